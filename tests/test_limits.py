"""What one user may have at a time, so that no user can use up what all share: core/limit_rule.c."""
import errno
import itertools
import os
import re
import signal
import subprocess

import pytest

import pfs
from pfs import WRITE, eventually, fails, opened, promisefs, set_attr, state
from test_unprivileged import why_not

ANY, OTHER = pfs.NOBODY, 65533
NONBLOCK = os.O_RDONLY | os.O_NONBLOCK

needs_root = pytest.mark.needs_root


@pytest.fixture
def limited(new_mount, data_path):
    """A function that makes a mount with some limits, in which everybody may do everything."""
    def make(options):
        space = new_mount(f"{data_path},{options}")
        os.chmod(space.root, 0o777)
        return space
    return make


def fill(worker, call, limit, wanted, *args):
    """Exactly `limit` of these calls, which take a number, succeed; what they returned."""
    done = [worker.call(*call(number), *args) for number in range(limit)]
    assert worker.begin(*call(limit), *args).error() == errno.errorcode[wanted]
    return done


@needs_root
def test_who_waits(limited):
    mnt = limited("max-waiting=3")
    mnt.declare("key", "other")
    readers = [mnt.waiting_reader(mnt / "key", uid=ANY) for _ in range(3)]
    assert mnt.reader(mnt / "key", uid=ANY).error() == "EAGAIN"
    assert mnt.reader(mnt.awaiting("nothing"), uid=ANY).error() == "EAGAIN"
    assert mnt.reader(mnt / "key", NONBLOCK, uid=ANY).error() == "EAGAIN"
    mnt.waiting_reader(mnt / "key", uid=OTHER), mnt.waiting_reader(mnt / "key")  # others are not concerned
    readers.pop().worker.kill()
    readers.append(mnt.waiting_reader(mnt / "key", uid=ANY))
    assert mnt.reader(mnt / "other", uid=ANY).error() == "EAGAIN"
    mnt.put("key", b"data")
    assert [reader.result() for reader in readers] == [b"data"] * 3
    assert len([mnt.waiting_reader(mnt / "other", uid=ANY) for _ in range(3)]) == 3  # each was counted once


@needs_root
def test_who_waits_without_waiting(limited):
    mnt = limited("max-waiting=2")
    mnt.declare("key", "other")
    worker = mnt.worker(uid=ANY)
    fds = [worker.open(mnt / "key", NONBLOCK), worker.open(mnt.awaiting("absent"), NONBLOCK)]
    assert worker.begin("open", mnt / "other", NONBLOCK).error() == "EAGAIN"
    mnt.put("key", b"data")  # what has settled waits no longer, though it is open
    eventually(lambda: worker.wait_readable(fds[0], "poll", 5))
    fds.append(worker.open(mnt / "other", NONBLOCK))
    assert worker.begin("open", mnt / "other", NONBLOCK).error() == "EAGAIN"
    worker.close(fds.pop())
    worker.close(fds.pop())

    def two():
        """Both are free again."""
        try:
            fds.append(worker.open(mnt / "other", NONBLOCK))
        except OSError as problem:
            assert problem.errno == errno.EAGAIN
        return len(fds) == 3
    eventually(two)


@needs_root
def test_open_for_writing(limited):
    mnt = limited("max-writing=3")
    mnt.put("old", b"old"), os.chmod(mnt / "old", 0o666)
    worker = mnt.worker(uid=ANY)
    fds = fill(worker, lambda n: ("open", mnt / f"new{n}", WRITE), 3, errno.EMFILE, 0o666)
    for path in (mnt / "old", mnt.future("future")):
        assert worker.begin("open", path, WRITE, 0o666).error() == "EMFILE"
    assert not os.path.lexists(mnt / "new3") and not os.path.lexists(mnt / "future") and mnt.get("old") == b"old"
    assert worker.read_path(mnt / "old") == b"old"
    mnt.put("old", b"root's")
    worker.close(fds.pop())
    eventually(lambda: worker.begin("write_path", mnt / "old", b"new").error() != "EMFILE")
    eventually(lambda: mnt.get("old") == b"new")
    worker.kill()
    eventually(lambda: mnt.worker(uid=ANY).begin("open", mnt / "again", WRITE, 0o666).error() != "EMFILE")


@needs_root
def test_open(limited):
    mnt = limited("max-open=5")
    mnt.put("key", b"data")
    worker = mnt.worker(uid=ANY)
    fds = fill(worker, lambda n: ("open", mnt / "key", os.O_RDONLY), 5, errno.EMFILE)
    attribute = mnt.special("attributes/state", "key")
    assert worker.begin("read_path", attribute).error() == "EMFILE"
    assert worker.begin("listdir", mnt.root).error() == "EMFILE"
    assert worker.stat(mnt / "key").st_size == 4 and mnt.get("key") == b"data"
    worker.close(fds.pop())
    eventually(lambda: worker.begin("read_path", attribute).error() != "EMFILE")


@needs_root
def test_listening(limited):
    mnt = limited("max-listening=3")
    worker = mnt.worker(uid=ANY)
    paths = [mnt.mount.control / name for name in ("events", "waits", "metrics")]
    fds = fill(worker, lambda n: ("open", paths[n % 3], os.O_RDONLY), 3, errno.EMFILE)
    assert mnt.waits() == []
    worker.close(fds[0])
    eventually(lambda: worker.begin("read_path", paths[1]).error() != "EMFILE")


@needs_root
def test_processes_with_limits_to_waiting(limited):
    mnt = limited("max-timeouts=2")
    path = mnt.mount.control / "wait-timeout"
    workers = [mnt.worker(uid=ANY) for _ in range(3)]
    for worker in workers[:2]:
        worker.write_path(path, b"5s\n", os.O_WRONLY)
    workers[1].write_path(path, b"6s\n", os.O_WRONLY)  # the same one again
    assert workers[2].begin("write_path", path, b"5s\n", os.O_WRONLY).error() == "EMFILE"
    workers[0].write_path(path, b"default\n", os.O_WRONLY)
    workers[2].write_path(path, b"5s\n", os.O_WRONLY)
    workers[1].kill()  # who has ended counts no longer
    workers[0].write_path(path, b"5s\n", os.O_WRONLY)


def handles(mnt, worker):
    """Fills three places with one of each kind."""
    worker.link(mnt / "key", mnt.handle("ref", "r"))
    worker.link(mnt / "other", mnt.handle("mut", "m"))
    worker.write_path(mnt.handle("own", "o"), b"own")


def has_room(mnt, worker):
    """One more place, exactly."""
    eventually(lambda: worker.begin("link", mnt / "key", mnt.handle("ref", "one")).error() != "EDQUOT")
    full(mnt, worker)
    worker.unlink(mnt.handle("ref", "one"))


def full(mnt, worker):
    """No more place for this user, whatever he would put there."""
    for call in (("link", mnt / "key", mnt.handle("ref", "x")), ("link", mnt / "key", mnt.handle("await-ref", "x")),
                 ("write_path", mnt.handle("own", "x"), b""), ("rename", mnt / "mine", mnt.handle("own", "x"))):
        assert worker.begin(*call).error() == "EDQUOT", call


@pytest.fixture
def with_handles(limited):
    mnt = limited("max-handles=3")
    worker = mnt.worker(uid=ANY)
    for key in ("key", "other", "mine"):
        worker.write_path(mnt / key, b"data")
    eventually(lambda: all(state(mnt / key) == "ready" for key in ("key", "other", "mine")))
    handles(mnt, worker)
    return mnt, worker


@needs_root
def test_handles(with_handles):
    mnt, worker = with_handles
    numbers = itertools.count()
    full(mnt, worker)
    os.link(mnt / "key", mnt.handle("ref", "root's"))
    for drop in (lambda: worker.unlink(mnt.handle("mut", "m")),
                 lambda: worker.rename(mnt.handle("own", "o"), mnt / "o"),
                 lambda: set_attr(mnt.handle("ref", "r"), "lease", "1ms")):
        drop()
        has_room(mnt, worker)
        worker.link(mnt / "key", mnt.handle("ref", f"again-{next(numbers)}"))
        full(mnt, worker)


@needs_root
def test_handles_that_are_handed_over(with_handles):
    mnt, worker = with_handles
    other = mnt.worker(uid=OTHER)
    for kind, name in (("own", "o"), ("ref", "r"), ("mut", "m")):
        os.chown(mnt.handle(kind, name), OTHER, OTHER)
    assert other.begin("link", mnt.special("lend", "key"), mnt.handle("ref", "y")).error() == "EDQUOT"
    for name in "abc":
        worker.link(mnt / "key", mnt.handle("ref", name))
    full(mnt, worker)


@needs_root
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_handles_are_counted_again(with_handles, how):
    mnt, worker = with_handles
    getattr(mnt.mount, how)()
    mnt.mount.start()
    full(mnt, worker)
    worker.unlink(mnt.handle("ref", "r"))
    has_room(mnt, worker)


@needs_root
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_lifetimes(limited, how):
    mnt = limited("max-lifetimes=2")
    worker = mnt.worker(uid=ANY)
    worker.write_path(mnt / "key", b"")
    own = mnt.special("lifetimes", "self")
    paths = [mnt.special("lifetimes", name) for name in "abc"]
    worker.mkdir(paths[0]), worker.mkdir(paths[1])

    def is_full():
        assert worker.begin("mkdir", paths[2]).error() == "EDQUOT"
        assert worker.begin("listdir", own).error() == "EDQUOT"
    is_full()
    os.mkdir(mnt.special("lifetimes", "root's"))
    getattr(mnt.mount, how)()
    mnt.mount.start()
    is_full()
    worker.rmdir(paths[0])
    worker.listdir(own)
    assert worker.begin("mkdir", paths[2]).error() == "EDQUOT"
    os.chown(paths[1], OTHER, OTHER)
    worker.mkdir(paths[2])
    assert worker.begin("mkdir", paths[0]).error() == "EDQUOT"


@needs_root
def test_a_limit_can_be_taken_away(limited):
    mnt = limited("max-lifetimes=none,max-handles=1")
    worker = mnt.worker(uid=ANY)
    for number in range(5):
        worker.mkdir(mnt.special("lifetimes", str(number)))


@needs_root
def test_who_mounts_has_no_limits(new_mount, open_device):
    """He could end the daemon anyway."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    space = new_mount("", start=False)
    mount = space.mount
    for path in (mount.base, mount.root):
        os.chown(path, ANY, ANY)
    subprocess.run(["cp", pfs.binary(), mount.base / "promisefs"], check=True)
    user = {"user": ANY, "group": ANY, "extra_groups": []}
    done = pfs.run(mount.base / "promisefs", "mount", mount.store, mount.root, "-o", "max-lifetimes=1", **user)
    assert done.returncode == 0, done.stderr
    try:
        done = pfs.run("mkdir", *(f"{mount.root}/.promisefs/lifetimes/{name}" for name in "abc"), **user)
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["fusermount3", "-u", str(mount.root)], check=True, **user)


@pytest.mark.parametrize("value", ["0", "-1", "many", "", "1.5"])
def test_a_wrong_limit(new_mount, value):
    mount = new_mount(start=False).mount
    done = promisefs("mount", mount.store, mount.root, "-o", f"max-waiting={value}")
    assert done.returncode == 2 and "max-waiting" in done.stderr and "give a number from 1, or none" in done.stderr


# ---- threads ---------------------------------------------------------------------------------------------------------

@needs_root
def test_nobody_s_fsync_waits_for_somebody_s_large_files(new_mount):
    """A hash takes as long as it takes, and one user may ask for many."""
    mnt = new_mount()
    paths = [mnt.put(f"large{number}") for number in range(12)]
    for path in paths:
        os.truncate(path, 1 << 30)
    workers = [mnt.worker(uid=ANY) for _ in paths]
    for worker in workers:
        worker.call("getpid")  # it has started
    before = attribute_requests(mnt)
    hashes = [worker.begin("getxattr", path, "user.promisefs.sha256") for worker, path in zip(workers, paths)]
    eventually(lambda: attribute_requests(mnt) - before >= 12, what="all have been asked for")
    with opened(mnt / "small", WRITE) as fd:
        os.write(fd, b"data")
        os.fsync(fd)
        assert not all(job.done for job in hashes)  # it did not stand in their line
    assert len({job.result(60) for job in hashes}) == 1


def attribute_requests(mnt):
    return int(re.search(r'requests_total\{kind="xattr"\} (\d+)', (mnt.mount.control / "metrics").read_text())[1])


# ---- descriptors -----------------------------------------------------------------------------------------------------

DESCRIPTORS = 160  # of which a quarter is kept for the daemon


@pytest.fixture
def scarce(new_mount, data_path, tmp_path, monkeypatch):
    """A mount whose daemon may have few descriptors."""
    wrapper = tmp_path / "promisefs"
    wrapper.write_text(f"#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec {pfs.binary()} \"$@\"\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PROMISEFS_BIN", str(wrapper))
    space = new_mount(data_path)
    os.chmod(space.root, 0o777)
    return space


def open_all(mnt, worker, count, flags=os.O_RDONLY):
    """Opens one key after the other until that fails with EMFILE; the descriptors."""
    fds = []
    for number in range(count):
        job = worker.begin("open", mnt / f"key{number}", flags)
        try:
            fds.append(job.result())
        except OSError as problem:
            assert problem.errno == errno.EMFILE
            return fds
    pytest.fail(f"{count} keys could be opened")


@needs_root
def test_one_user_does_not_take_all_descriptors(scarce):
    for number in range(DESCRIPTORS):
        scarce.put(f"key{number}", b"data")
    worker, other = scarce.worker(uid=ANY), scarce.worker(uid=OTHER)
    assert len(open_all(scarce, worker, DESCRIPTORS)) == DESCRIPTORS * 3 // 4 // 4
    assert len(open_all(scarce, other, DESCRIPTORS)) == DESCRIPTORS * 3 // 4 // 4


@needs_root
def test_the_daemon_lives_on_without_descriptors(scarce):
    """Root has no limit but that; what is open can be closed and is published, who is killed is seen."""
    for number in range(DESCRIPTORS):
        scarce.put(f"key{number}", b"data")
    bound = scarce.put("bound", b"bound")
    sleeper = subprocess.Popen(["sleep", "600"])
    set_attr(bound, "pid", str(sleeper.pid))
    torn, _ = scarce.writer("torn", b"torn")
    writer, fd = scarce.writer("written", b"data")
    worker = scarce.worker()
    fds = open_all(scarce, worker, DESCRIPTORS)
    assert len(fds) > DESCRIPTORS // 2
    try:
        with fails(errno.EMFILE):
            scarce.put("new")
        with fails(errno.EMFILE):
            scarce.put("key150", b"replaced")
        with fails(errno.EMFILE):
            set_attr(scarce / "key1", "pid", str(os.getpid()))  # he would have to be watched
        assert len(scarce.waits()) == 0 and len(os.listdir(scarce.root)) > DESCRIPTORS
        assert not os.path.lexists(scarce / "new") and os.path.lexists(scarce / "key1")
        torn.kill(signal.SIGKILL)
        eventually(lambda: os.path.exists(scarce.aborted("torn")))
        os.rename(scarce / "key0", scarce / "moved")
        os.unlink(scarce / "key159")
        writer.close(fd)
        eventually(lambda: state(scarce / "written") == "ready")
        assert os.path.exists(bound)
    finally:
        sleeper.kill()
        sleeper.wait()
    eventually(lambda: not os.path.exists(bound))
    for fd in fds:
        worker.close(fd)
    eventually(lambda: worker.begin("write_path", scarce / "new", b"new").error() != "EMFILE")
    eventually(lambda: scarce.get("new") == b"new")
    assert scarce.get("key150") == b"data"

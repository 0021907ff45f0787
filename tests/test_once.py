"""Section 5 of the design: objects that can be read once."""
import errno
import hashlib
import json
import os
import signal
import stat

import pytest

from pfs import (NOBODY, attr, check_store, eventually, fails, opened, pattern, readable, run, set_attr, state, version)

MINE = "user.mine"
NONBLOCK = os.O_RDONLY | os.O_NONBLOCK
KILLERS = [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV]


def put(mnt, path, data=b"data"):
    """An object that is ready."""
    before = version(mnt / path) if os.path.lexists(mnt / path) else 0
    mnt.put(path, data)
    mnt.versions(path, before + 1)
    return mnt / path


def gone(*paths):
    return not any(os.path.lexists(path) for path in paths)


def returns(mnt, path, data=b"data"):
    """Wait until an object is back under its key."""
    eventually(lambda: os.path.lexists(mnt / path), what=f"{path} is back")
    assert attr(mnt / path, "sha256") == hashlib.sha256(data).hexdigest()


def data_files(mount):
    return [name for _, _, names in os.walk(mount.store / "data") for name in names]


WAYS = ["once", "evict"]


@pytest.fixture(params=WAYS)
def way(request):
    """How a key is made to be read once: a function of Space and key that gives the path to open."""
    def path(mnt, key):
        if request.param == "once":
            return mnt.once(key)
        set_attr(mnt / key, "evict", "1")
        return mnt / key
    return path


def consumer_of(mnt, path, **kwargs):
    """A process that has consumed a file and holds it open: (worker, what it sees)."""
    worker = mnt.worker(**kwargs)
    return worker, worker.open_and_look(path)


# ---- once ------------------------------------------------------------------------------------------------------------

@pytest.mark.core
def test_5_it_is_read_once(own, way):
    data = pattern(300_000)
    put(own, "key", data)
    worker, seen = consumer_of(own, way(own, "key"))
    assert seen["bytes"] == seen["mapped"] == data and seen["size"] == len(data)
    assert gone(own / "key", own.once("key")) and os.listdir(own.root) == []
    for path in (own / "key", own.once("key")):
        with fails(errno.ENOENT):
            os.open(path, os.O_RDONLY)
    assert worker.look_again(seen["fd"]) == seen
    worker.leave()
    eventually(lambda: data_files(own.mount) == [], what="the data goes with the last reader")
    assert check_store(own.mount) == [] and gone(own / "key")


@pytest.mark.core
@pytest.mark.parametrize("argv", [["cat"], ["sha256sum"], ["wc", "-c"], ["cp", "-t"]], ids=lambda argv: argv[0])
def test_5_ordinary_programs(mnt, way, argv, tmp_path):
    put(mnt, "key")
    argv = [*argv, tmp_path] if argv[0] == "cp" else argv
    path = way(mnt, "key")
    assert run(*argv, path).returncode == 0
    assert gone(mnt / "key") and run(*argv, path).returncode == 1


@pytest.mark.core
def test_5_however_the_consumer_leaves_without_being_killed(mnt, way):
    """Any exit is a close, also without reading a byte, and with an exit status that is not 0."""
    for script in ("exec 3< $1", "exec 3< $1; exit 3", "exec 3< $1; exec 3<&-; kill -9 $$"):
        put(mnt, "key")
        run("sh", "-c", script, "sh", way(mnt, "key"))
        assert gone(mnt / "key")
        put(mnt, "witness")
        assert mnt.worker().read_path(mnt.once("witness")) == b"data"
        assert os.listdir(mnt.root) == []


@pytest.mark.core
def test_5_a_view_of_the_key_space(mnt):
    os.makedirs(mnt / "dir/sub")
    for key in ("a", "dir/b", "dir/sub/c"):
        put(mnt, key, key.encode())
    assert sorted(os.listdir(mnt.once())) == ["a", "dir"] and sorted(os.listdir(mnt.once("dir"))) == ["b", "sub"]
    assert os.stat(mnt.once("dir/b")).st_size == 5 and stat.S_ISDIR(os.stat(mnt.once("dir")).st_mode)
    assert mnt.worker().read_path(mnt.once("dir/sub/c")) == b"dir/sub/c"
    assert os.listdir(mnt / "dir/sub") == [] == os.listdir(mnt.once("dir/sub"))
    assert mnt.get("dir/b") == b"dir/b"


@pytest.mark.core
def test_5_what_is_not_there(mnt):
    for key in ("none", "none/none"):
        with fails(errno.ENOENT):
            mnt.worker().open(mnt.once(key), os.O_RDONLY)


@pytest.mark.core
def test_5_the_key_is_free_at_once(mnt, way):
    put(mnt, "key", b"first")
    worker, seen = consumer_of(mnt, way(mnt, "key"))
    put(mnt, "key", b"second")
    assert worker.look_again(seen["fd"]) == seen and mnt.get("key") == b"second" and version(mnt / "key") == 1
    worker.leave()
    assert mnt.get("key") == b"second" and attr(mnt / "key", "evict") is None


@pytest.mark.core
def test_5_again_and_again(mnt, way):
    """A queue of one: what is put is read once each time."""
    worker = mnt.worker()
    for turn in range(50):
        mnt.put("key", b"turn %d" % turn)
        assert worker.read_path(way(mnt, "key")) == b"turn %d" % turn
        assert gone(mnt / "key"), turn


@pytest.mark.core
def test_5_who_had_it_open_before_reads_on(mnt, way):
    put(mnt, "key", pattern(100_000))
    reader = mnt.worker()
    seen = reader.open_and_look(mnt / "key")
    assert mnt.worker().read_path(way(mnt, "key")) == pattern(100_000)
    assert reader.look_again(seen["fd"]) == seen


@pytest.mark.core
def test_5_all_names_of_the_object_go(mnt, way):
    put(mnt, "key")
    os.mkdir(mnt / "dir")
    os.link(mnt / "key", mnt / "dir/second")
    assert mnt.worker().read_path(way(mnt, "dir/second")) == b"data"
    eventually(lambda: gone(mnt / "key", mnt / "dir/second"))


@pytest.mark.core
@pytest.mark.parametrize("what", ["symlink", "fifo", "directory"])
def test_5_only_files_are_consumed(mnt, what):
    put(mnt, "key")
    os.mkdir(mnt / "dir")
    if what == "symlink":
        os.symlink("key", mnt / "link")
        assert mnt.worker().read_path(mnt.once("link")) == b"data"
        assert os.readlink(mnt / "link") == "key" and os.path.lexists(mnt / "link")
    elif what == "fifo":
        os.mkfifo(mnt / "fifo")
        os.close(os.open(mnt.once("fifo"), NONBLOCK))
        assert not gone(mnt / "fifo")
    else:
        os.close(os.open(mnt.once("dir"), os.O_RDONLY | os.O_DIRECTORY))
        assert os.listdir(mnt.once("dir")) == [] and os.path.isdir(mnt / "dir")


# ---- what does not consume -------------------------------------------------------------------------------------------

ASKING = {
    "stat": lambda m, w, path: w.stat(path),
    "access": lambda m, w, path: w.access(path, os.R_OK),
    "O_PATH": lambda m, w, path: w.close(w.open(path, os.O_PATH)),
    "sha256": lambda m, w, path: w.getxattr(path, "user.promisefs.sha256"),
    "state": lambda m, w, path: w.getxattr(path, "user.promisefs.state"),
    "listxattr": lambda m, w, path: w.listxattr(path),
    "list": lambda m, w, path: w.listdir(os.path.dirname(path)),
    "ls": lambda m, w, path: w.run(["ls", "-la", os.path.dirname(path)]),
    "find": lambda m, w, path: w.run(["find", os.path.dirname(path), "-size", "+0"]),
    "du": lambda m, w, path: w.run(["du", "-a", os.path.dirname(path)]),
}


@pytest.mark.core
@pytest.mark.parametrize("what", list(ASKING))
def test_5_asking_does_not_consume(mnt, way, what):
    put(mnt, "key")
    ASKING[what](mnt, mnt.worker(), way(mnt, "key"))
    assert not gone(mnt / "key") and mnt.worker().read_path(mnt.once("key")) == b"data"
    assert gone(mnt / "key")


REFUSED = {
    "write": (lambda m, w: w.open(m.once("key"), os.O_WRONLY), errno.EPERM),
    "read and write": (lambda m, w: w.open(m.once("key"), os.O_RDWR), errno.EPERM),
    "append": (lambda m, w: w.open(m.once("key"), os.O_WRONLY | os.O_APPEND), errno.EPERM),
    "replace": (lambda m, w: w.open(m.once("key"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), errno.EPERM),
    "read and truncate": (lambda m, w: w.open(m.once("key"), os.O_RDONLY | os.O_TRUNC), errno.EPERM, errno.EACCES),
    "truncate": (lambda m, w: w.truncate(m.once("key"), 0), errno.EPERM),
    "create": (lambda m, w: w.open(m.once("new"), os.O_WRONLY | os.O_CREAT), errno.EPERM),
    "mkdir": (lambda m, w: w.mkdir(m.once("new")), errno.EPERM),
    "fifo": (lambda m, w: w.mkfifo(m.once("new")), errno.EPERM),
    "symlink": (lambda m, w: w.symlink("key", m.once("new")), errno.EPERM),
    "link in it": (lambda m, w: w.link(m.once("key"), m.once("new")), errno.EPERM),
    "link to it": (lambda m, w: w.link(m / "key", m.once("new")), errno.EPERM),
    "link from it": (lambda m, w: w.link(m.once("key"), m / "new"), errno.EPERM),
    "borrow from it": (lambda m, w: w.link(m.once("key"), m.handle("ref", "new")), errno.EPERM),
    "rename in it": (lambda m, w: w.rename(m.once("key"), m.once("new")), errno.EPERM),
    "rename to it": (lambda m, w: w.rename(m / "key", m.once("new")), errno.EPERM),
    "rename from it": (lambda m, w: w.rename(m.once("key"), m / "new"), errno.EPERM),
    "remove": (lambda m, w: w.unlink(m.once("key")), errno.EPERM),
    "rmdir": (lambda m, w: w.rmdir(m.once("dir")), errno.EPERM),
    "remove once": (lambda m, w: w.rmdir(m.mount.control / "once"),
                    errno.EPERM, errno.EACCES, errno.EBUSY, errno.ENOTEMPTY),
    "evict=2": (lambda m, w: w.setxattr(m / "key", "user.promisefs.evict", b"2"), errno.EINVAL),
    "evict=yes": (lambda m, w: w.setxattr(m / "key", "user.promisefs.evict", b"yes"), errno.EINVAL),
    "evict=": (lambda m, w: w.setxattr(m / "key", "user.promisefs.evict", b""), errno.EINVAL),
    "evict=1 and more": (lambda m, w: w.setxattr(m / "key", "user.promisefs.evict", b"1 "), errno.EINVAL),
    "no evict": (lambda m, w: w.removexattr(m / "key", "user.promisefs.evict"), errno.ENODATA),
    "read what is borrowed": (lambda m, w: w.open(m.once("lent"), os.O_RDONLY), errno.EBUSY),
    "read what is borrowed, nonblocking": (lambda m, w: w.open(m.once("lent"), NONBLOCK), errno.EBUSY),
    "read what is mutably borrowed": (lambda m, w: w.open(m.once("lent-mut"), os.O_RDONLY), errno.EBUSY),
    "read what is borrowed and evicts": (lambda m, w: w.open(m / "lent-evict", os.O_RDONLY), errno.EBUSY),
    "read the evicting one in await": (lambda m, w: w.open(m.awaiting("lent-evict"), os.O_RDONLY), errno.EBUSY),
}


def situation(mnt):
    names = sorted(os.listdir(mnt.root))
    shown = ("id", "version", "state", "sha256", "borrows", "evict", "owner")
    return {name: (os.lstat(mnt / name).st_size, os.lstat(mnt / name).st_nlink,
                   [attr(mnt / name, what) for what in shown if name != "dir"]) for name in names}


@pytest.mark.core
@pytest.mark.parametrize("what", list(REFUSED))
def test_5_bad_input_changes_nothing(mnt, what):
    call, *codes = REFUSED[what]
    for key in ("key", "lent", "lent-mut", "lent-evict"):
        put(mnt, key)
    os.mkdir(mnt / "dir")
    set_attr(mnt / "lent-evict", "evict", "1")
    for key, kind in (("lent", "ref"), ("lent-mut", "mut"), ("lent-evict", "ref")):
        mnt.borrow(key, kind, key)
    before = situation(mnt)
    with fails(*codes):
        call(mnt, mnt.worker())
    assert situation(mnt) == before
    assert mnt.get(mnt.handle("ref", "lent")) == b"data" and mnt.get("key") == b"data"


@pytest.mark.core
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_TRUNC])
def test_5_writing_does_not_consume(mnt, flags):
    put(mnt, "key")
    set_attr(mnt / "key", "evict", "1")
    worker = mnt.worker()
    fd = worker.open(mnt / "key", flags)
    worker.write_all(fd, b"new!")
    assert not gone(mnt / "key")
    worker.close(fd)
    mnt.versions("key", 2)
    assert attr(mnt / "key", "evict") == "1"
    assert mnt.worker().read_path(mnt / "key") == (b"datanew!" if flags & os.O_APPEND else b"new!")
    assert gone(mnt / "key")


# ---- evict=1 ---------------------------------------------------------------------------------------------------------

@pytest.mark.core
def test_5_evict_is_set_and_taken(mnt):
    put(mnt, "key")
    assert attr(mnt / "key", "evict") is None
    for value, shown in (("1", "1"), ("0", None), ("1", "1"), ("1", "1")):
        set_attr(mnt / "key", "evict", value)
        assert attr(mnt / "key", "evict") == shown
    os.removexattr(mnt / "key", "user.promisefs.evict")
    assert attr(mnt / "key", "evict") is None and os.listxattr(mnt / "key") == []
    assert mnt.get("key") == mnt.get("key") == b"data"


@pytest.mark.core
def test_5_evict_stays_when_the_object_moves(mnt):
    """Under every key, in a lifetime, in own/; of any of them it is read once."""
    put(mnt, "key")
    set_attr(mnt / "key", "evict", "1")
    os.rename(mnt / "key", mnt.handle("own", "X"))
    assert attr(mnt.handle("own", "X"), "evict") == "1"
    os.rename(mnt.handle("own", "X"), mnt / "renamed")
    put(mnt, "renamed", b"new")
    assert attr(mnt / "renamed", "evict") == "1"
    assert mnt.worker().read_path(mnt / "renamed") == b"new" and gone(mnt / "renamed")


@pytest.mark.core
@pytest.mark.parametrize("where", ["own", "lifetime", "await", "second key"])
def test_5_every_way_to_open_it_consumes(mnt, where):
    put(mnt, "key")
    set_attr(mnt / "key", "evict", "1")
    path = {"own": mnt.handle("own", "X"), "lifetime": mnt.handle("lifetimes", "L") + "/key",
            "await": mnt.awaiting("key"), "second key": mnt / "second"}[where]
    if where == "own":
        os.rename(mnt / "key", path)
    elif where == "lifetime":
        os.mkdir(os.path.dirname(path))
    if where in ("lifetime", "second key"):
        os.link(mnt / "key", path)
    assert mnt.worker().read_path(path) == b"data"
    eventually(lambda: gone(mnt / "key", mnt.handle("own", "X"), mnt / "second"))
    with fails(errno.ENOENT):
        os.stat(mnt / "key")


@pytest.mark.core
def test_5_reading_a_borrow_does_not_consume(mnt):
    put(mnt, "key")
    set_attr(mnt / "key", "evict", "1")
    for kind in ("ref", "mut"):
        path = mnt.borrow("key", kind, "H")
        assert mnt.get(path) == mnt.get(path) == b"data"
        os.unlink(path)
    assert mnt.worker().read_path(mnt / "key") == b"data" and gone(mnt / "key")


@pytest.mark.core
def test_5_evict_and_a_mut(mnt):
    """A version that was written through a borrow is read once, like any other."""
    put(mnt, "key")
    set_attr(mnt / "key", "evict", "1")
    path = mnt.borrow("key", "mut", "M")
    put(mnt, path, b"new")
    os.unlink(path)
    assert mnt.worker().read_path(mnt / "key") == b"new" and gone(mnt / "key")


@pytest.mark.core
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_5_evict_is_kept_over_a_restart(own, how):
    put(own, "key")
    set_attr(own / "key", "evict", "1")
    restart(own, how)
    assert attr(own / "key", "evict") == "1"
    assert own.worker().read_path(own / "key") == b"data"
    restart(own, how)
    assert gone(own / "key") and check_store(own.mount) == []


def restart(mnt, how):
    mnt.mount.kill() if how == "kill" else mnt.mount.stop()
    mnt.mount.start()


# ---- one of many -----------------------------------------------------------------------------------------------------

@pytest.mark.core
def test_5_one_of_many_openers_gets_it(mnt, way):
    """Sixteen processes, thirty keys: each key is read by exactly one, and ENOENT is what all others get."""
    keys = [f"key{n}" for n in range(30)]
    for key in keys:
        mnt.put(key, key.encode())
    paths = [way(mnt, key) for key in keys]
    workers = [mnt.worker() for _ in range(16)]
    jobs = [[worker.begin("read_path", path) for worker in workers] for path in paths]
    for key, of_key in zip(keys, jobs):
        outcomes = [job.outcome if job.done else None for job in of_key]
        got = [job.error() for job in of_key]
        assert sorted(got)[:15] == ["ENOENT"] * 15, (key, got, outcomes)
        assert sorted(got)[15] == f"no error: {key.encode()!r}"
    assert os.listdir(mnt.root) == []


@pytest.mark.core
def test_5_many_threads_race(mnt, way):
    keys = [f"key{n}" for n in range(20)]
    for key in keys:
        mnt.put(key, key.encode())
    paths = [way(mnt, key) for key in keys] * 10
    jobs = [mnt.worker().begin("open_many", paths) for _ in range(3)]
    total = {}
    for job in jobs:
        for outcome, count in job.result().items():
            total[outcome] = total.get(outcome, 0) + count
    assert total == {errno.ENOENT: 580, **{key.encode(): 1 for key in keys}}


@pytest.mark.core
def test_5_a_queue(mnt):
    """Producers put, consumers take what they find: everything is taken once."""
    consume = """
import os, sys
folder, stop = sys.argv[1:]
while True:
    over = os.path.exists(stop)
    names = os.listdir(folder)
    for name in names:
        try:
            with open(f"{folder}/{name}") as file:
                print(file.read(), flush=True)
        except FileNotFoundError:
            pass
    if over and not names:
        break
"""
    os.mkdir(mnt / "queue")
    workers = [mnt.worker() for _ in range(4)]
    jobs = [worker.begin("run", ["python3", "-I", "-S", "-c", consume, mnt.once("queue"), mnt / "stop"])
            for worker in workers]
    for number in range(200):
        mnt.put(f"queue/{number}", b"%d" % number)
    put(mnt, "stop")
    lines = []
    for job in jobs:
        status, said, complaints = job.result()
        assert (status, complaints) == (0, b"")
        lines += said.split()
    assert sorted(int(line) for line in lines) == list(range(200)) and os.listdir(mnt / "queue") == []


# ---- futures ---------------------------------------------------------------------------------------------------------

def line(mnt, path, count):
    """Readers that wait, one behind the other."""
    return [mnt.waiting_reader(path) for _ in range(count)]


@pytest.mark.core
def test_5_the_first_in_line_gets_a_future(mnt, way):
    mnt.declare("key")
    first, *others = line(mnt, way(mnt, "key"), 12)
    worker = mnt.worker()
    fd = worker.open(mnt / "key", os.O_WRONLY)
    worker.write(fd, b"result")
    mnt.assert_still_waits(first, *others)
    worker.close(fd)
    assert first.result() == b"result"
    assert [job.error() for job in others] == ["ENOENT"] * 11
    assert gone(mnt / "key")


@pytest.mark.core
def test_5_the_first_in_line_of_a_draft(mnt, way):
    """A key that nobody declared, whose first version is being written."""
    worker, fd = mnt.writer("key", b"first")
    first, *others = line(mnt, way(mnt, "key"), 4)
    worker.close(fd)
    assert first.result() == b"first" and [job.error() for job in others] == ["ENOENT"] * 3
    assert gone(mnt / "key")


@pytest.mark.core
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "EINTR"])
def test_5_who_leaves_the_line_takes_nothing(mnt, way, how):
    mnt.declare("key")
    path = way(mnt, "key")
    worker = mnt.worker()
    worker.handle(signal.SIGUSR1)
    first = worker.begin("c_open", path, os.O_RDONLY)
    mnt.assert_waits(first)
    second, third = line(mnt, path, 2)
    if how == "EINTR":
        os.kill(worker.pid, signal.SIGUSR1)
        assert first.error() == "EINTR"
    else:
        worker.kill(signal.Signals[how])
    eventually(lambda: mnt.wait_of(first) is None)
    mnt.assert_still_waits(second, third)
    mnt.put("key", b"result")
    assert second.result() == b"result" and third.error() == "ENOENT" and gone(mnt / "key")


@pytest.mark.core
def test_5_all_have_left_the_line(mnt, way):
    """Then the future is set and stays."""
    mnt.declare("key")
    job = mnt.waiting_reader(way(mnt, "key"))
    job.worker.kill()
    eventually(lambda: mnt.wait_of(job) is None)
    put(mnt, "key", b"result")
    assert not gone(mnt / "key") and mnt.worker().read_path(mnt.once("key")) == b"result"


@pytest.mark.core
@pytest.mark.parametrize("how", ["fail", "cancel", "deadline", "producer killed"])
def test_5_a_future_that_fails(mnt, way, how):
    """Everybody in line is told so, and nothing is consumed."""
    mnt.declare("key")
    jobs = line(mnt, way(mnt, "key"), 3)
    if how == "producer killed":
        worker = mnt.worker()
        worker.write(worker.open(mnt / "key", os.O_WRONLY), b"half")
        worker.kill()
    else:
        {"fail": lambda: set_attr(mnt / "key", "error", "ENOLINK: broken"), "cancel": lambda: os.unlink(mnt / "key"),
         "deadline": lambda: set_attr(mnt / "key", "deadline", "100ms")}[how]()
    code = {"fail": "ENOLINK", "cancel": "ECANCELED", "deadline": "ETIMEDOUT", "producer killed": "EOWNERDEAD"}[how]
    assert [job.error() for job in jobs] == [code] * 3
    assert gone(mnt / "key") if how == "cancel" else state(mnt / "key") == "failed"
    if how != "cancel":
        put(mnt, "key", b"settled anew")
        assert mnt.worker().read_path(mnt.once("key")) == b"settled anew" and gone(mnt / "key")


@pytest.mark.core
def test_5_the_first_in_line_is_killed_after_it_got_it(mnt, way):
    """What it had not closed is back, for whoever comes then."""
    mnt.declare("key")
    path = way(mnt, "key")
    first = mnt.worker()
    job = first.begin("open_and_look", path)
    mnt.assert_waits(job)
    second = mnt.waiting_reader(path)
    mnt.put("key", b"result")
    assert job.result()["bytes"] == b"result" and second.error() == "ENOENT" and gone(mnt / "key")
    first.kill()
    returns(mnt, "key", b"result")


# ---- without waiting -------------------------------------------------------------------------------------------------

@pytest.mark.core
def test_5_nonblock_of_what_is_there(mnt, way):
    put(mnt, "key")
    with opened(way(mnt, "key"), NONBLOCK) as fd:
        assert os.read(fd, 100) == b"data" and gone(mnt / "key")
    assert gone(mnt / "key")


@pytest.mark.core
@pytest.mark.parametrize("how", ["poll", "select", "epoll", "epoll-edge"])
def test_5_nonblock_and_poll(mnt, way, how):
    mnt.declare("key")
    path = way(mnt, "key")
    first, second = mnt.worker(), mnt.worker()
    fds = [worker.open(path, NONBLOCK) for worker in (first, second)]
    for worker, fd in zip((first, second), fds):
        with fails(errno.EAGAIN):
            worker.read(fd, 10)
        assert not worker.wait_readable(fd, "poll", 0)
    jobs = [worker.begin("wait_readable", fd, how, 15) for worker, fd in zip((first, second), fds)]
    mnt.put("key", b"result")
    assert [job.result() for job in jobs] == [True, True]
    assert first.read_fd(fds[0]) == b"result"
    with fails(errno.ENOENT):
        second.read(fds[1], 10)
    first.close(fds[0])
    assert gone(mnt / "key")


@pytest.mark.core
def test_5_nonblock_leaves_the_line_with_close(mnt, way):
    mnt.declare("key")
    path = way(mnt, "key")
    fd = os.open(path, NONBLOCK)
    second = mnt.waiting_reader(path)
    os.close(fd)
    mnt.put("key", b"result")
    assert second.result() == b"result" and gone(mnt / "key")


@pytest.mark.core
def test_5_nonblock_is_in_line_with_who_waits(mnt, way):
    mnt.declare("key")
    path = way(mnt, "key")
    with opened(path, NONBLOCK) as fd:
        second = mnt.waiting_reader(path)
        mnt.put("key", b"result")
        assert readable(fd, 10) and os.read(fd, 10) == b"result" and second.error() == "ENOENT"
    assert gone(mnt / "key")


@pytest.mark.core
def test_5_nonblock_consumer_is_killed(mnt, way):
    mnt.declare("key")
    worker = mnt.worker()
    fd = worker.open(way(mnt, "key"), NONBLOCK)
    mnt.put("key", b"result")
    assert worker.wait_readable(fd, "poll", 10) and worker.read(fd, 3) == b"res"
    assert gone(mnt / "key")
    worker.kill()
    returns(mnt, "key", b"result")


# ---- a replacement under way -----------------------------------------------------------------------------------------

@pytest.mark.core
def test_5_a_replacement_is_waited_for(mnt, way):
    put(mnt, "key", b"old")
    path = way(mnt, "key")
    worker, fd = mnt.writer("key", b"new", os.O_WRONLY | os.O_TRUNC)
    first, second = line(mnt, path, 2)
    mnt.assert_still_waits(first)
    worker.close(fd)
    assert sorted([first.error(), second.error()]) == ["ENOENT", "no error: b'new'"] and gone(mnt / "key")


@pytest.mark.core
def test_5_a_replacement_whose_writer_is_killed(mnt, way):
    put(mnt, "key", b"old")
    path = way(mnt, "key")
    worker, _ = mnt.writer("key", b"torn", os.O_WRONLY | os.O_TRUNC)
    first = mnt.waiting_reader(path)
    worker.kill()
    assert first.result() == b"old" and gone(mnt / "key")


@pytest.mark.core
def test_5_a_replacement_and_nonblock(mnt, way):
    put(mnt, "key", b"old")
    path = way(mnt, "key")
    worker, fd = mnt.writer("key", b"new", os.O_WRONLY | os.O_TRUNC)
    with opened(path, NONBLOCK) as reading:
        with fails(errno.EAGAIN):
            os.read(reading, 10)
        assert not readable(reading) and not gone(mnt / "key")
        worker.close(fd)
        assert readable(reading, 10) and os.read(reading, 10) == b"new"
    assert gone(mnt / "key")


@pytest.mark.core
def test_5_a_writer_does_not_wait_for_himself(mnt, way):
    """Nobody deadlocks on himself: he is told, or reads his own draft."""
    put(mnt, "key", b"old")
    path = way(mnt, "key")
    worker, fd = mnt.writer("key", b"new", os.O_WRONLY | os.O_TRUNC)
    assert worker.begin("read_path", path).error() in ("EDEADLK", "EBUSY", "no error: b'new'", "no error: b'old'")


@pytest.mark.core
def test_5_a_writer_comes_after_the_consumer(mnt, way):
    """The key is gone, so that is another object, which takes the key of what a killed consumer had."""
    put(mnt, "key", b"old")
    consumer, seen = consumer_of(mnt, way(mnt, "key"))
    worker, fd = mnt.writer("key", b"new")
    reader = mnt.waiting_reader(mnt / "key")
    consumer.kill()
    eventually(lambda: os.path.exists(mnt.aborted("key")), what="it is kept elsewhere")
    mnt.assert_still_waits(reader)
    worker.close(fd)
    assert reader.result() == b"new" and mnt.worker().read_path(mnt.aborted("key")) == b"old"


# ---- consumers that are killed ---------------------------------------------------------------------------------------

@pytest.mark.core
@pytest.mark.parametrize("number", KILLERS, ids=lambda number: number.name)
def test_5_the_consumer_is_killed(mnt, way, number):
    """The same object is back, with all that it had, and can be consumed again."""
    data = pattern(100_000)
    put(mnt, "key", data)
    path = way(mnt, "key")
    os.setxattr(mnt / "key", MINE, b"value")
    os.chmod(mnt / "key", 0o640)
    known, before = [attr(mnt / "key", name) for name in ("id", "version", "state", "evict")], os.stat(mnt / "key")
    for _ in range(3):
        consumer, seen = consumer_of(mnt, path)
        assert seen["bytes"] == data and gone(mnt / "key")
        consumer.call("pread", seen["fd"], 10, 0)
        consumer.begin("raise_signal", number)
        assert consumer.wait() == -number
        eventually(lambda: not gone(mnt / "key"), what="it is back")
        after = os.stat(mnt / "key")
        assert (after.st_ino, after.st_mode, after.st_size, after.st_mtime_ns, after.st_nlink) == (
            before.st_ino, before.st_mode, before.st_size, before.st_mtime_ns, 1)
        assert os.getxattr(mnt / "key", MINE) == b"value"
        assert [attr(mnt / "key", name) for name in ("id", "version", "state", "evict")] == known
    assert mnt.worker().read_path(path) == data and gone(mnt / "key")


@pytest.mark.core
def test_5_a_program_is_killed_while_it_reads(mnt, way):
    put(mnt, "key", pattern(5_000_000))
    path = way(mnt, "key")
    source, sink = os.pipe()
    pid = os.posix_spawnp("cat", ["cat", path], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, sink, 1)])
    os.close(sink)
    eventually(lambda: gone(mnt / "key"))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(source)
    returns(mnt, "key", pattern(5_000_000))


@pytest.mark.core
def test_5_killed_after_close(mnt, way):
    put(mnt, "key")
    worker = mnt.worker()
    assert worker.read_path(way(mnt, "key")) == b"data"
    worker.kill()
    put(mnt, "witness")
    consumer, _ = consumer_of(mnt, mnt.once("witness"))
    consumer.kill()
    returns(mnt, "witness")
    assert gone(mnt / "key")


@pytest.mark.core
def test_5_a_consumer_with_threads_is_killed(mnt, way):
    put(mnt, "key")
    worker = mnt.worker()
    worker.busy_threads(4)
    assert worker.begin("open_and_look", way(mnt, "key"), threaded=True).result()["bytes"] == b"data"
    worker.kill()
    returns(mnt, "key")


@pytest.mark.core
def test_5_it_goes_back_under_all_its_keys(mnt, way):
    put(mnt, "key")
    os.mkdir(mnt / "dir")
    os.link(mnt / "key", mnt / "dir/second")
    path = way(mnt, "key")
    consumer, _ = consumer_of(mnt, path)
    eventually(lambda: gone(mnt / "key", mnt / "dir/second"))
    consumer.kill()
    eventually(lambda: not gone(mnt / "key") and not gone(mnt / "dir/second"), what="both keys are back")
    assert os.stat(mnt / "key").st_ino == os.stat(mnt / "dir/second").st_ino
    assert os.stat(mnt / "key").st_nlink == 2


@pytest.mark.core
def test_5_it_goes_back_under_the_key_that_is_free(mnt, way):
    put(mnt, "key", b"old")
    os.link(mnt / "key", mnt / "second")
    consumer, _ = consumer_of(mnt, way(mnt, "key"))
    eventually(lambda: gone(mnt / "key", mnt / "second"))
    put(mnt, "key", b"new")
    consumer.kill()
    eventually(lambda: not gone(mnt / "second"), what="it is back under the free key")
    assert mnt.get("key") == b"new" and mnt.worker().read_path(mnt.once("second")) == b"old"


TAKEN = {
    "file": lambda m: put(m, "key", b"new"),
    "directory": lambda m: os.mkdir(m / "key"),
    "symlink": lambda m: os.symlink("nowhere", m / "key"),
    "future": lambda m: m.declare("key"),
    "renamed": lambda m: os.rename(put(m, "other", b"new"), m / "key"),
}


@pytest.mark.core
@pytest.mark.parametrize("what", list(TAKEN))
def test_5_the_key_was_taken_meanwhile(mnt, way, what):
    """What took it stays; what was consumed is kept below aborted."""
    put(mnt, "key", b"old")
    consumer, _ = consumer_of(mnt, way(mnt, "key"))
    TAKEN[what](mnt)
    before = os.lstat(mnt / "key")
    consumer.kill()
    eventually(lambda: os.path.exists(mnt.aborted("key")), what="it is kept elsewhere")
    assert mnt.worker().read_path(mnt.aborted("key")) == b"old"
    after = os.lstat(mnt / "key")
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert attr(mnt / "key", "evict") is None
    if what in ("file", "renamed"):
        assert mnt.get("key") == b"new"


@pytest.mark.core
def test_5_its_directory_is_gone_meanwhile(mnt, way):
    """Nothing is lost: it is found below aborted."""
    os.mkdir(mnt / "dir")
    name = f"key{mnt.prefix}"
    put(mnt, f"dir/{name}")
    consumer, _ = consumer_of(mnt, way(mnt, f"dir/{name}"))
    os.rmdir(mnt / "dir")
    consumer.kill()

    def found():
        return [f"{folder}/{name}" for folder, _, names in os.walk(mnt.mount.control / "aborted") if name in names]

    assert mnt.worker().read_path(eventually(found)[0]) == b"data"


@pytest.mark.core
def test_5_its_directory_was_renamed_meanwhile(mnt, way):
    os.mkdir(mnt / "dir")
    put(mnt, "dir/key")
    consumer, _ = consumer_of(mnt, way(mnt, "dir/key"))
    os.rename(mnt / "dir", mnt / "moved")
    consumer.kill()
    places = [mnt / "moved/key", mnt / "dir/key", mnt.aborted("dir/key"), mnt.aborted("moved/key")]
    eventually(lambda: any(map(os.path.exists, places)))


@pytest.mark.core
def test_5_an_owned_object_goes_back_to_own(mnt):
    path = put(mnt, mnt.handle("own", "X"))
    set_attr(path, "evict", "1")
    consumer, _ = consumer_of(mnt, path)
    assert gone(path) and mnt.handles("own") == []
    consumer.kill()
    returns(mnt, path)
    assert mnt.worker().read_path(path) == b"data" and gone(path)


@pytest.mark.core
def test_5_who_awaits_the_key_gets_it_when_it_is_back(mnt):
    put(mnt, "key")
    consumer, _ = consumer_of(mnt, mnt.once("key"))
    reader = mnt.waiting_reader(mnt.awaiting("key"))
    consumer.kill()
    assert reader.result() == mnt.get("key") == b"data"


# ---- the daemon ends while it is open --------------------------------------------------------------------------------

def stop_by_signal(mnt):
    """A stop of the daemon, however busy the mount is."""
    mnt.mount.process.terminate()
    mnt.mount.process.wait(20)
    mnt.mount.detach()


@pytest.mark.core
@pytest.mark.parametrize("how", ["kill", "stop", "detach"])
def test_5_the_daemon_ends_while_it_is_open(own, way, how):
    data = pattern(100_000)
    put(own, "key", data)
    path = way(own, "key")
    consumer, _ = consumer_of(own, path)
    assert gone(own / "key")
    if how == "kill":
        own.mount.kill()
    elif how == "stop":
        stop_by_signal(own)
    else:
        run("fusermount3", "-u", "-z", own.mount.root)
        consumer.leave()
        own.mount.process.wait(20)
    if how != "detach":
        consumer.kill()
        own.mount.start()
        returns(own, "key", data)
        assert own.worker().read_path(path) == data and gone(own / "key")
    else:
        own.mount.start()
        assert gone(own / "key"), "its consumer has closed it"


@pytest.mark.core
def test_5_closed_is_consumed_although_the_daemon_is_killed(own, way):
    """What was read and closed does not come back."""
    for key in ("a", "b"):
        put(own, key)
        assert own.worker().read_path(way(own, key)) == b"data"
    own.mount.kill()
    own.mount.start()
    assert os.listdir(own.root) == [] and check_store(own.mount) == []


@pytest.mark.core
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_5_the_daemon_ends_and_the_key_was_taken(own, way, how):
    put(own, "key", b"old")
    consumer, _ = consumer_of(own, way(own, "key"))
    put(own, "key", b"new")
    own.mount.kill() if how == "kill" else stop_by_signal(own)
    consumer.kill()
    own.mount.start()
    assert own.get("key") == b"new" and own.worker().read_path(own.aborted("key")) == b"old"


def test_5_the_daemon_is_killed_again_and_again(own):
    """However often: the object is in one place."""
    put(own, "key")
    for _ in range(5):
        consumer, _ = consumer_of(own, own.once("key"))
        assert gone(own / "key")
        own.mount.kill()
        consumer.kill()
        own.mount.start()
        assert os.listdir(own.root) == ["key"]
    assert own.worker().read_path(own.once("key")) == b"data" and check_store(own.mount) == []


# ---- rights, events --------------------------------------------------------------------------------------------------

@pytest.mark.needs_root
@pytest.mark.parametrize("mode, allowed", [(0o606, True), (0o604, None), (0o640, False), (0o602, False)])
def test_5_who_may_not_read_does_not_consume(mnt, way, mode, allowed):
    """Nor who may only read, unless the object is meant for it."""
    put(mnt, "key")
    path = way(mnt, "key")
    os.chmod(mnt / "key", mode)
    allowed = path == mnt / "key" if allowed is None else allowed
    worker = mnt.worker(uid=NOBODY)
    if allowed:
        assert worker.read_path(path) == b"data"
    else:
        with fails(errno.EACCES):
            worker.open(path, os.O_RDONLY)
    assert gone(mnt / "key") == allowed


@pytest.mark.needs_root
def test_5_evict_is_set_by_who_may_write(mnt):
    put(mnt, "key")
    os.chmod(mnt / "key", 0o644)
    with fails(errno.EACCES, errno.EPERM):
        mnt.worker(uid=NOBODY).setxattr(mnt / "key", "user.promisefs.evict", b"1")
    assert attr(mnt / "key", "evict") is None


@pytest.mark.core
def test_5_events(mnt, way):
    put(mnt, "key")
    number, path = int(attr(mnt / "key", "id")), way(mnt, "key")
    consumer, _ = consumer_of(mnt, path)
    consumer.kill()
    eventually(lambda: not gone(mnt / "key"))
    path = way(mnt, "key")
    last = mnt.worker()
    last.read_path(path)
    events = [event for event in mnt.history("key") if event["event"] in ("evict", "return")]
    assert [event["event"] for event in events] == ["evict", "return", "evict"], json.dumps(events)
    assert [events[0]["pid"], events[2]["pid"]] == [consumer.pid, last.pid]
    for event in events:
        assert event["object"] == number and event["key"] == mnt.key("key")
        if event["event"] == "evict":
            assert event["detail"] == "once" and event["uid"] == os.geteuid()
            assert event["command"].startswith("python")


@pytest.mark.core
def test_5_members_of_lifetimes(mnt, way):
    """What was consumed is not read by its name there; the end of the lifetime does not take what its reader has."""
    put(mnt, "key", pattern(100_000))
    lifetime = mnt.handle("lifetimes", "L")
    os.mkdir(lifetime)
    os.link(mnt / "key", f"{lifetime}/key")
    consumer, seen = consumer_of(mnt, way(mnt, "key"))
    with fails(errno.ENOENT):
        mnt.worker().open(f"{lifetime}/key", os.O_RDONLY)
    os.rmdir(lifetime)
    assert consumer.look_again(seen["fd"]) == seen


@pytest.mark.core
def test_5_nothing_is_left_behind(own, way):
    """After all ways to come and go."""
    for number in range(6):
        key = f"key{number}"
        put(own, key, pattern(10_000))
        if number % 3 == 0:
            consumer_of(own, way(own, key))[0].leave()
        elif number % 3 == 1:
            consumer_of(own, way(own, key))[0].kill()
            eventually(lambda: not gone(own / key))
            os.unlink(own / key)
        else:
            worker = own.worker()
            worker.close(worker.open(way(own, key), os.O_RDONLY))
            worker.kill()
    eventually(lambda: data_files(own.mount) == [])
    assert os.listdir(own.root) == [] and check_store(own.mount) == []

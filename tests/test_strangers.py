"""What somebody with another uid cannot do in a mount that all may use: alice has something, mallory wants it."""
import json
import os
import signal

import pytest

import pfs
from pfs import WRITE, attr, eventually, set_attr, state

pytestmark = pytest.mark.needs_root

ALICE, MALLORY = 65533, pfs.NOBODY
NONBLOCK = os.O_RDONLY | os.O_NONBLOCK
SECRET = b"alice's secret"


class People:
    """A worker of each, and a directory in which both may make files."""

    def __init__(self, mnt):
        self.mnt = mnt
        self.alice, self.mallory = mnt.worker(uid=ALICE), mnt.worker(uid=MALLORY)

    def put(self, path, data=SECRET, mode=0o600):
        path = self.mnt / path
        self.alice.write_path(path, data, WRITE, mode)
        eventually(lambda: state(path) == "ready")
        os.chmod(path, mode)
        return path

    def mkdir(self, path, mode=0o700):
        path = self.mnt / path
        self.alice.mkdir(path)
        os.chmod(path, mode)
        return path

    def refused(self, *call, by=("EACCES", "EPERM")):
        found = self.mallory.begin(*call).error()
        assert found in by, (call, found)


@pytest.fixture
def people(mnt):
    return People(mnt)


# ---- reading ---------------------------------------------------------------------------------------------------------

VIEWS = ["future", "await", "once", "lend", *(f"attributes/{name}" for name in ("state", "sha256", "owner", "error"))]


@pytest.mark.parametrize("flags", [os.O_RDONLY, NONBLOCK])
def test_what_may_not_be_read_is_read_by_no_way(people, flags):
    mnt = people.mnt
    people.put("key"), people.mkdir("dir"), people.put("dir/key", mode=0o644)
    people.alice.link(mnt / "key", mnt.handle("ref", "r"))
    paths = [mnt.handle("ref", "r"), *(mnt.special(view, key) for view in VIEWS for key in ("key", "dir/key"))]
    for path in [mnt / "key", mnt / "dir/key", *paths]:
        people.refused("read_path", path, flags)
    assert people.alice.read_path(mnt / "key") == SECRET
    for name in ("sha256", "state", "owner", "producer", "version"):
        people.refused("getxattr", mnt / "key", f"user.promisefs.{name}")


def test_a_key_that_comes_later_is_not_read_by_who_awaited_it(people):
    mnt = people.mnt
    fd = people.mallory.open(mnt.awaiting("key"), NONBLOCK)
    waiting = [people.mallory.begin("read_path", mnt.awaiting("other"), threaded=True)]
    mnt.assert_waits(*waiting)
    people.put("key", mode=0o600), people.put("other", mode=0o600)
    assert waiting[0].error() == "EACCES"
    assert people.mallory.wait_readable(fd, "poll", 10)
    people.refused("read_fd", fd)
    good = people.alice.open(mnt.awaiting("third"), NONBLOCK)
    people.put("third")
    assert people.alice.wait_readable(good, "poll", 10) and people.alice.read_fd(good) == SECRET


def test_a_future_that_is_awaited_is_not_read_either(people):
    """The same, when it is declared first, and set later."""
    mnt = people.mnt
    fd = people.mallory.open(mnt.awaiting("key"), NONBLOCK)
    people.alice.write_path(mnt.future("key"), b"", os.O_WRONLY | os.O_CREAT, 0o600)
    people.put("key")
    assert people.mallory.wait_readable(fd, "poll", 10)
    people.refused("read_fd", fd)


@pytest.mark.parametrize("how", ["draft", "old version"])
def test_chmod_counts_at_once_by_whatever_descriptor(people, how):
    """The kernel keeps the mode of a node for an hour, and replacing gives the key another one."""
    path = people.put("key", mode=0o644)
    assert people.mallory.read_path(path) == SECRET
    if how == "draft":
        fd = people.alice.open(path, os.O_WRONLY | os.O_TRUNC)
    else:
        fd = people.alice.open(path, os.O_RDONLY)
        people.alice.write_path(path, b"new")
        eventually(lambda: people.mallory.read_path(path) == b"new")
    people.alice.fchmod(fd, 0o600)
    people.refused("read_path", path)
    people.alice.fchmod(fd, 0o644)
    assert people.mallory.read_path(path) in (SECRET, b"new")


# ---- evicting --------------------------------------------------------------------------------------------------------

def test_nobody_evicts_what_he_may_only_read(people):
    mnt = people.mnt
    people.mkdir("dir", 0o755)
    path = people.put("dir/key", mode=0o644)
    own = os.path.join(mnt.mount.control, "lifetimes", mnt.prefix)
    people.mallory.mkdir(own)
    people.refused("read_path", mnt.once("dir/key"))
    people.refused("read_path", mnt.once("dir/key"), NONBLOCK)
    people.refused("unlink", path), people.refused("unlink", mnt.future("dir/key"))
    people.refused("link", path, f"{own}/x"), people.refused("rename", path, mnt.handle("own", "x"))
    for name, value in (("lease", b"1ms"), ("pid", b"self"), ("evict", b"1"), ("error", b"EIO"), ("deadline", b"1ms")):
        people.refused("setxattr", path, f"user.promisefs.{name}", value)
        people.refused("write_path", mnt.special(f"attributes/{name}", "dir/key"), value, os.O_WRONLY)
    people.mallory.rmdir(own)
    assert people.mallory.read_path(path) == SECRET and attr(path, "lease") is None


def test_whoever_may_write_it_may_take_it(people):
    mnt = people.mnt
    people.put("dir-of-all", mode=0o666)
    assert people.mallory.read_path(mnt.once("dir-of-all")) == SECRET
    path = people.put("evict", mode=0o644)
    set_attr(path, "evict", "1")  # then its owner has said that whoever reads it takes it
    assert people.mallory.read_path(path) == SECRET
    eventually(lambda: not os.path.lexists(path))
    people.put("own", mode=0o400)
    assert people.alice.read_path(mnt.once("own")) == SECRET


def test_a_sticky_directory_is_its_owner_s(people):
    """As files of .promisefs/attributes its attributes have no sticky bit."""
    mnt = people.mnt
    shared = people.mkdir("shared", 0o1777)
    own = os.path.join(mnt.mount.control, "lifetimes", mnt.prefix)
    people.mallory.mkdir(own)
    lifetime = os.path.basename(own).encode()
    for name, value in (("lifetime", lifetime), ("publish", b"write"), ("lease", b"1ms"), ("pid", b"self")):
        people.refused("setxattr", shared, f"user.promisefs.{name}", value)
        people.refused("write_path", mnt.special(f"attributes/{name}", "shared/.dir"), value + b"\n", os.O_WRONLY)
    people.put("shared/key", mode=0o644)
    people.mallory.rmdir(own)
    people.refused("unlink", mnt / "shared/key"), people.refused("rename", mnt / "shared/key", mnt / "shared/other")
    people.refused("unlink", mnt.future("shared/key"))
    assert os.path.exists(mnt / "shared/key")


def test_a_binding_is_not_taken_away_by_others(people):
    mnt = people.mnt
    shared = people.mkdir("shared", 0o777)
    for name, value in (("pid", b"self"), ("lease", b"1h")):
        people.alice.setxattr(shared, f"user.promisefs.{name}", value)
        people.refused("removexattr", shared, f"user.promisefs.{name}")
        people.refused("write_path", mnt.special(f"attributes/{name}", "shared/.dir"), b"\n", os.O_WRONLY)
        people.alice.removexattr(shared, f"user.promisefs.{name}")


def test_a_lifetime_does_not_reach_into_directories_of_others(people):
    mnt = people.mnt
    lifetime = os.path.join(mnt.mount.control, "lifetimes", mnt.prefix)
    people.mallory.mkdir(lifetime), people.mallory.mkdir(mnt / "trap"), os.chmod(mnt / "trap", 0o1777)
    people.mallory.setxattr(mnt / "trap", "user.promisefs.lifetime", os.path.basename(lifetime).encode())
    people.mkdir("trap/dir"), people.put("trap/dir/key", mode=0o644), people.put("trap/seen")
    people.mallory.mkdir(mnt / "trap/own"), people.mallory.write_path(mnt / "trap/own/key", b"x")
    assert sorted(people.mallory.listdir(lifetime)) == ["key", "seen"]
    assert people.mallory.read_path(f"{lifetime}/key") == b"x"
    people.mallory.rmdir(lifetime)
    assert people.alice.read_path(mnt / "trap/dir/key") == SECRET


def test_processes_of_others(people):
    path = people.mnt / "mine"
    people.mallory.write_path(path, b"x")
    eventually(lambda: state(path) == "ready")
    for pid in (people.alice.pid, os.getpid(), 1):
        people.refused("setxattr", path, "user.promisefs.pid", str(pid).encode(), by=["EPERM"])
    people.mallory.setxattr(path, "user.promisefs.pid", str(people.mallory.pid).encode())


def test_the_lifetime_of_a_process_is_made_by_itself_only(people):
    lifetimes = os.path.join(people.mnt.mount.control, "lifetimes")
    people.refused("mkdir", f"{lifetimes}/pid-{people.alice.pid}")
    people.mallory.mkdir(f"{lifetimes}/m-{people.mnt.prefix}")
    people.refused("rename", f"{lifetimes}/m-{people.mnt.prefix}", f"{lifetimes}/pid-{people.alice.pid}")
    assert people.alice.listdir(f"{lifetimes}/self") == []
    people.refused("listdir", f"{lifetimes}/pid-{people.alice.pid}")
    people.refused("rmdir", f"{lifetimes}/pid-{people.alice.pid}")


def test_nobody_says_how_long_others_wait(people):
    mnt = people.mnt
    path = mnt.mount.control / "wait-timeout"
    mnt.declare("key")
    people.mallory.write_path(path, b"0\n", os.O_WRONLY)
    assert people.alice.read_path(path) == b"none\n" and people.mallory.read_path(path) != b"none\n"
    job = people.alice.begin("read_path", mnt / "key", threaded=True)
    mnt.assert_waits(job)
    assert people.mallory.begin("read_path", mnt / "key").error() == "ETIMEDOUT"
    mnt.put("key", b"data")
    assert job.result() == b"data"


def test_control_files_are_as_their_modes_say(people):
    control = people.mnt.mount.control
    for name in ("README", "waits", "metrics"):
        people.refused("open", control / name, os.O_WRONLY), people.refused("truncate", control / name, 0)
    for name in ("README", "waits", "metrics", "events", "wait-timeout", "future", "await", "once", "lend", "aborted"):
        for call, *args in (("unlink",), ("rmdir",), ("chmod", 0o777), ("setxattr", "user.x", b"x")):
            people.refused(call, control / name, *args, by=("EACCES", "EPERM", "ENOTDIR", "EISDIR", "EOPNOTSUPP"))
    for path in ("new", "aborted/new", "ref/new", "mut/new", "lifetimes/new", "await/new", "once/new", "lend/new",
                 "attributes/state/new", "attributes/new"):
        people.refused("open", control / path, WRITE, 0o666)
    for path in ("new", "aborted/new", "ref/new", "mut/new", "own/new", "await/new", "once/new", "attributes/new"):
        people.refused("mkdir", control / path, by=("EACCES", "EPERM", "EEXIST"))


# ---- handles and lifetimes -------------------------------------------------------------------------------------------

def test_handles_and_lifetimes_are_their_owner_s(people):
    mnt = people.mnt
    for key in ("a", "b", "c"):
        people.put(key)
    ref, mut, own = (mnt.handle(kind, "x") for kind in ("ref", "mut", "own"))
    people.alice.link(mnt / "a", ref), people.alice.link(mnt / "b", mut), people.alice.rename(mnt / "c", own)
    lifetime = os.path.join(mnt.mount.control, "lifetimes", mnt.prefix)
    people.alice.mkdir(lifetime)
    for path in (ref, mut, own):
        people.refused("unlink", path), people.refused("rename", path, path + "2"), people.refused("read_path", path)
        people.refused("write_path", path, b"x", os.O_WRONLY), people.refused("chmod", path, 0o777)
        people.refused("setxattr", path, "user.promisefs.lease", b"1ms"), people.refused("utime", path, (1e10, 1e10))
    people.refused("rename", own, mnt / "mine")
    people.mallory.write_path(mnt / "m", b"x")
    eventually(lambda: state(mnt / "m") == "ready")
    people.refused("rmdir", lifetime), people.refused("rename", lifetime, lifetime + "2")
    people.refused("link", mnt / "m", f"{lifetime}/m"), people.refused("utime", lifetime, (1e10, 1e10))
    people.refused("setxattr", lifetime, "user.promisefs.lease", b"1ms")


@pytest.mark.parametrize("turn", ["", "await-"])
def test_borrowing_takes_the_right_to_read_or_write(people, turn):
    mnt = people.mnt
    people.put("secret"), people.put("public", mode=0o644), people.mkdir("dir"), people.put("dir/key", mode=0o666)
    for source in ("secret", "dir/key"):
        for kind in ("ref", "mut"):
            for view in (mnt / source, mnt.special("lend", source)):
                people.refused("link", view, mnt.handle(turn + kind, "x"))
    people.refused("link", mnt.special("lend", "public"), mnt.handle(turn + "mut", "x"))
    people.mallory.link(mnt.special("lend", "public"), mnt.handle(turn + "ref", "x"))
    people.refused("link", mnt.special("lend", "public"), mnt / "stolen")


# ---- looking on ------------------------------------------------------------------------------------------------------

def log(worker, path, query=b"log\n"):
    fd = worker.open(path, os.O_RDWR)
    worker.write(fd, query)
    data = worker.read_fd(fd)
    worker.close(fd)
    return [json.loads(line) for line in data.splitlines()]


def test_events_of_what_is_hidden_are_hidden(people):
    mnt = people.mnt
    events = mnt.mount.control / "events"
    people.mkdir("dir"), people.mkdir("open", 0o755)
    fds = {worker: worker.open(events, os.O_RDONLY | os.O_NONBLOCK) for worker in (people.alice, people.mallory)}
    people.put("dir/xyzzy", mode=0o666), people.put("open/plugh")
    people.mallory.write_path(mnt / "last", b"x")

    def live(worker):
        data = b""
        while mnt.key("last").encode() not in data:
            assert worker.wait_readable(fds[worker], "poll", 20)
            data += worker.read(fds[worker], 1 << 16)
        return data
    for worker, sees in ((people.alice, True), (people.mallory, False)):
        text = live(worker)
        assert (b"xyzzy" in text) == sees and b"plugh" in text
        keys = {event["key"] for event in log(worker, events)}
        assert mnt.key("open/plugh") in keys and (mnt.key("dir/xyzzy") in keys) == sees
        assert bool(log(worker, events, f"log {mnt.key('dir/xyzzy')}\n".encode())) == sees
    assert mnt.history("dir/xyzzy") and mnt.history("open/plugh")  # root sees all


def test_waits_for_what_is_hidden_are_hidden(people):
    mnt = people.mnt
    people.mkdir("dir"), people.mkdir("open", 0o755)
    jobs = []
    for key in ("dir/xyzzy", "open/plugh"):
        people.alice.write_path(mnt.future(key), b"", os.O_WRONLY | os.O_CREAT)
        jobs.append(mnt.waiting_reader(mnt / key, uid=ALICE))
    waits = mnt.mount.control / "waits"
    found = people.mallory.read_path(waits)
    assert b"plugh" in found and b"xyzzy" not in found
    found = people.alice.read_path(waits)
    assert b"plugh" in found and b"xyzzy" in found
    assert len(mnt.waits()) >= 2


# ---- what killed writers leave ---------------------------------------------------------------------------------------

def tear(people, key, data=SECRET):
    writer = people.mnt.worker(uid=ALICE)
    fd = writer.open(people.mnt / key, WRITE, 0o644)
    writer.write_all(fd, data)
    writer.kill(signal.SIGKILL)


def everything_below(worker, path):
    """What somebody can read below a directory."""
    data = []
    for entry in worker.call("listdir", path):
        try:
            data += everything_below(worker, f"{path}/{entry}")
        except OSError:
            try:
                data.append(worker.read_path(f"{path}/{entry}"))
            except OSError:
                pass
    return data


def test_torn_bytes_are_as_hidden_as_their_directory_is_now(people):
    mnt = people.mnt
    people.mkdir("dir", 0o755)
    tear(people, "dir/first")
    eventually(lambda: os.path.exists(mnt.aborted("dir/first")))
    assert people.mallory.read_path(mnt.aborted("dir/first")) == SECRET
    people.alice.chmod(mnt / "dir", 0o700)
    tear(people, "dir/second")
    eventually(lambda: os.path.exists(mnt.aborted("dir/second")))
    people.refused("read_path", mnt.aborted("dir/second"))
    assert people.alice.read_path(mnt.aborted("dir/second")) == SECRET


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_torn_bytes_do_not_come_to_a_directory_of_somebody_else(people, mode):
    """Who has had a directory of that name, with torn bytes of his in it, or a file."""
    mnt = people.mnt
    people.mallory.mkdir(mnt / "dir"), os.chmod(mnt / "dir", mode)
    writer = mnt.worker(uid=MALLORY)
    writer.write_all(writer.open(mnt / "dir/x", WRITE, 0o644), b"mallory's")
    writer.kill(signal.SIGKILL)
    eventually(lambda: os.path.exists(mnt.aborted("dir/x")))
    people.mallory.rmdir(mnt / "dir")
    people.mkdir("dir", 0o700)
    data = mnt.prefix.encode()
    tear(people, "dir/key", data)
    top = mnt.mount.control / "aborted"
    eventually(lambda: data in everything_below(people.alice, str(top)))
    assert data not in everything_below(people.mallory, str(top))

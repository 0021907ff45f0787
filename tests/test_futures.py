"""Section 3 of the design: futures. What the command line does with them is in test_cli.py."""
import errno
import os
import re
import signal
import time
from datetime import datetime, timedelta, timezone

import pytest

from pfs import WRITE, attr, eventually, fails, name_of, opened, pattern, readable, run, set_attr, state, version

pytestmark = pytest.mark.core


def open_future(mnt, key, flags=os.O_WRONLY | os.O_CREAT):
    return os.open(mnt.future(key), flags, 0o666)


# ---- declare ---------------------------------------------------------------------------------------------------------

def test_3_declare(mnt):
    mnt.declare("key")
    found = os.stat(mnt / "key")
    assert (state(mnt / "key"), found.st_size, version(mnt / "key")) == ("pending", 0, 0)
    assert os.listdir(mnt.root) == ["key"]
    assert attr(mnt / "key", "deadline") is None and attr(mnt / "key", "error") is None
    assert attr(mnt / "key", "producer") is None and attr(mnt / "key", "sha256") is None


def test_3_declare_with_touch(mnt):
    assert run("touch", mnt.future("key")).returncode == 0
    assert state(mnt / "key") == "pending"


def test_3_declare_twice_is_fine(mnt):
    mnt.declare("key")
    number = attr(mnt / "key", "id")
    mnt.declare("key")
    assert (state(mnt / "key"), attr(mnt / "key", "id")) == ("pending", number)


def test_3_declare_exclusively(mnt):
    mnt.declare("key")
    with fails(errno.EEXIST):
        open_future(mnt, "key", os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def test_3_declare_needs_the_parent(mnt):
    with fails(errno.ENOENT):
        open_future(mnt, "no/such/key")


def test_3_declare_what_is_set_is_EEXIST(mnt):
    mnt.put("key", b"set")
    mnt.becomes("key", "ready")
    with fails(errno.EEXIST):
        open_future(mnt, "key")
    assert mnt.get("key") == b"set"


def test_3_declare_again_after_failure(mnt):
    mnt.declare("key")
    set_attr(mnt / "key", "error", "broken")
    assert state(mnt / "key") == "failed"
    mnt.declare("key")
    assert state(mnt / "key") == "pending" and attr(mnt / "key", "error") is None
    reader = mnt.waiting_reader(mnt / "key")
    mnt.put("key", b"at last")
    assert reader.result() == b"at last"


def test_3_future_is_a_view_of_the_whole_key_space(mnt):
    os.makedirs(mnt.future("a/b"))
    assert os.path.isdir(mnt / "a/b")
    mnt.declare("a/b/key")
    assert state(mnt / "a/b/key") == "pending"
    os.unlink(mnt.future("a/b/key"))
    eventually(lambda: not os.path.exists(mnt / "a/b/key"), 3)
    os.rmdir(mnt.future("a/b"))
    eventually(lambda: not os.path.exists(mnt / "a/b"), 3)


# ---- wait and read ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["before any writer", "while it is written"])
def test_3_wait_and_read(mnt, how):
    mnt.declare("key")
    first = mnt.waiting_reader(mnt / "key")
    assert mnt.wait_of(first)["state"] == "pending"
    writer, fd = mnt.writer("key", b"result", os.O_WRONLY)
    second = mnt.waiting_reader(mnt / "key")
    mnt.assert_still_waits(first, second)
    writer.close(fd)
    assert first.result() == second.result() == b"result"


def test_3_wait_with_ordinary_programs(mnt):
    """cat waits for a shell's redirection."""
    mnt.declare("key")
    worker = mnt.worker()
    job = worker.begin("run", ["/bin/cat", mnt / "key"])
    eventually(lambda: [wait for wait in mnt.waits() if wait["command"] == "cat"], what="cat waits")
    assert run("sh", "-c", 'echo hello > "$1"', "sh", mnt / "key").returncode == 0
    assert job.result() == (0, b"hello\n", b"")


def test_3_a_set_future_does_not_wait(mnt):
    mnt.declare("key")
    mnt.put("key", b"set")
    assert mnt.reader(mnt / "key").result() == b"set"


@pytest.mark.parametrize("declared", [False, True])
def test_3_await(mnt, declared):
    """Nobody needs to have declared a key that is awaited."""
    if declared:
        mnt.declare("key")
    reader = mnt.waiting_reader(mnt.awaiting("key"))
    assert os.path.exists(mnt / "key") == declared
    mnt.put("key", b"hello")
    assert reader.result() == b"hello"


def test_3_await_shows_the_key(mnt):
    reader = mnt.waiting_reader(mnt.awaiting("key"))
    assert mnt.wait_of(reader)["key"] == mnt.key("key")


def test_3_await_does_not_declare(mnt):
    reader = mnt.waiting_reader(mnt.awaiting("key"))
    assert os.listdir(mnt.root) == []
    reader.worker.kill()
    eventually(lambda: mnt.wait_of(reader) is None)
    with fails(errno.ENOENT):
        mnt.get("key")


def test_3_await_while_it_is_written_and_when_renamed_into_place(mnt):
    writer, fd = mnt.writer("one", b"1")
    jobs = [mnt.waiting_reader(mnt.awaiting(key)) for key in ("one", "two")]
    writer.close(fd)
    os.rename(mnt.put("draft", b"2"), mnt / "two")
    assert [job.result() for job in jobs] == [b"1", b"2"]


def test_3_await_waits_through_death_of_a_writer_nobody_promised(mnt):
    """The key of a killed writer disappears; who awaits it waits on."""
    reader = mnt.waiting_reader(mnt.awaiting("key"))
    writer, _ = mnt.writer("key", b"torn")
    writer.kill()
    eventually(lambda: not os.path.exists(mnt / "key"))
    mnt.put("key", b"whole")
    assert reader.result() == b"whole"


def test_3_await_what_is_there(mnt):
    mnt.put("key", b"there")
    assert mnt.reader(mnt.awaiting("key")).result() == b"there"


def test_3_await_needs_the_parent(mnt):
    assert mnt.reader(mnt.awaiting("no/such/key")).error() in ("ENOENT", "ENOTDIR")


# ---- set, once -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("flags", [WRITE, os.O_WRONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR])
def test_3_set(mnt, flags):
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    writer, fd = mnt.writer("key", b"result", flags)
    writer.close(fd)
    assert reader.result() == b"result"
    mnt.versions("key", 1)


def test_3_set_through_the_future_view(mnt):
    with opened(mnt.future("key"), os.O_WRONLY | os.O_CREAT) as fd:
        assert state(mnt / "key") in ("pending", "writing")
        reader = mnt.waiting_reader(mnt / "key")
        os.write(fd, b"result")
        mnt.assert_still_waits(reader)
    assert reader.result() == b"result"
    mnt.becomes("key", "ready")


def test_3_closing_without_writing_only_declares(mnt):
    os.close(open_future(mnt, "key", WRITE))
    reader = mnt.waiting_reader(mnt / "key")
    assert state(mnt / "key") == "pending"
    mnt.put("key", b"now")
    assert reader.result() == b"now"


def test_3_replacing_what_is_set_through_the_future_view_is_EEXIST(mnt):
    mnt.declare("key")
    mnt.put("key", b"set")
    mnt.becomes("key", "ready")
    for flags in (WRITE, os.O_WRONLY, os.O_WRONLY | os.O_APPEND):
        with fails(errno.EEXIST):
            os.close(open_future(mnt, "key", flags))
    mnt.put("key", b"replaced as an object")
    assert mnt.get("key") == b"replaced as an object"


def test_3_two_setters_through_the_future_view(mnt):
    """Both share the draft, or the second is refused: the result is never set twice."""
    mnt.declare("key")
    first = mnt.worker()
    fd = first.open(mnt.future("key"), os.O_WRONLY)
    first.write(fd, b"result")
    first.close(fd)
    mnt.becomes("key", "ready")
    with fails(errno.EEXIST):
        mnt.worker().write_path(mnt.future("key"), b"again")
    assert (mnt.get("key"), version(mnt / "key")) == (b"result", 1)


def test_3_rename_onto_a_pending_future_settles_it(mnt):
    mnt.declare("key")
    readers = [mnt.waiting_reader(mnt / "key") for _ in range(3)]
    os.rename(mnt.put("draft", b"by rename"), mnt / "key")
    assert [reader.result() for reader in readers] == [b"by rename"] * 3
    assert state(mnt / "key") == "ready"


def test_3_renamed_future_is_still_the_same_future(mnt):
    mnt.declare("key")
    number = attr(mnt / "key", "id")
    reader = mnt.waiting_reader(mnt / "key")
    os.rename(mnt / "key", mnt / "moved")
    assert (state(mnt / "moved"), attr(mnt / "moved", "id")) == ("pending", number)
    mnt.assert_still_waits(reader)
    mnt.put("moved", b"result")
    assert reader.result() == b"result"


def test_3_hard_link_to_a_future(mnt):
    mnt.declare("key")
    os.link(mnt / "key", mnt / "second")
    reader = mnt.waiting_reader(mnt / "second")
    mnt.put("key", b"result")
    assert reader.result() == b"result"


AFTER_SETTING = {
    "times": lambda path: os.utime(path, ns=(1, 10**18 + 7)),
    "mode": lambda path: os.chmod(path, 0o604),
    "link": lambda path: os.link(path, f"{path}-linked"),
    "xattr": lambda path: os.setxattr(path, "user.n", b"v"),
    "all": lambda path: [call(path) for name, call in AFTER_SETTING.items() if name != "all"],
}


@pytest.mark.parametrize("what", AFTER_SETTING)
def test_what_is_changed_while_those_who_waited_are_woken(mnt, what):
    """Who sets a future, and then its times, as cp -p, tar and rsync do, finds both, and it is set once. Waking many takes
    a while, in which it is shown as published already, but not yet recorded."""
    worker = mnt.worker()
    for number in range(8):
        key, path = f"key{number}", mnt / f"key{number}"
        mnt.declare(key)
        jobs = [worker.begin("read_path", path, threaded=True) for _ in range(40)]
        eventually(lambda: sum(wait["pid"] == worker.pid for wait in mnt.waits()) == len(jobs))
        mnt.put(key, b"x")
        AFTER_SETTING[what](path)
        if what in ("times", "all"):
            assert os.stat(path).st_mtime_ns == 10**18 + 7
        assert {job.result() for job in jobs} == {b"x"}
        mnt.becomes(key, "ready")
        assert version(path) == 1
        if what in ("times", "all"):
            assert os.stat(path).st_mtime_ns == 10**18 + 7
        if what in ("mode", "all"):
            assert os.stat(path).st_mode & 0o777 == 0o604
        if what in ("link", "all"):
            assert os.stat(path).st_nlink == 2 and mnt.get(f"{key}-linked") == b"x"
        if what in ("xattr", "all"):
            assert os.getxattr(path, "user.n") == b"v"


# ---- fail ------------------------------------------------------------------------------------------------------------

FAILURES = [
    ("disk on fire", "EIO", "EIO: disk on fire"),
    ("ENOSPC", "ENOSPC", "ENOSPC"),
    ("ENOSPC: the disk is full", "ENOSPC", "ENOSPC: the disk is full"),
    ("EPERM: not today", "EPERM", "EPERM: not today"),
    ("ETIMEDOUT: took too long", "ETIMEDOUT", "ETIMEDOUT: took too long"),
    ("ENOSUCHERRNO: not an errno", "EIO", "EIO: ENOSUCHERRNO: not an errno"),
]


@pytest.mark.parametrize("value, code, text", FAILURES)
def test_3_fail(mnt, value, code, text):
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    set_attr(mnt / "key", "error", value)
    assert reader.error() == code
    assert mnt.reader(mnt / "key").error() == code
    assert state(mnt / "key") == "failed"
    assert attr(mnt / "key", "error").startswith(text)


def test_3_fail_what_is_set_is_EEXIST(mnt):
    mnt.put("key", b"set")
    mnt.becomes("key", "ready")
    with fails(errno.EEXIST):
        set_attr(mnt / "key", "error", "too late")
    assert mnt.get("key") == b"set"


def test_3_a_failed_future_may_be_written_again(mnt):
    mnt.declare("key")
    set_attr(mnt / "key", "error", "first try")
    writer, fd = mnt.writer("key", b"second try", os.O_WRONLY)
    reader = mnt.waiting_reader(mnt / "key")
    writer.close(fd)
    assert reader.result() == b"second try"
    assert attr(mnt / "key", "error") is None


def test_3_a_future_settles_anew_after_death_of_its_producer(mnt):
    mnt.declare("key")
    for _ in range(2):
        writer, fd = mnt.writer("key", b"torn", os.O_WRONLY)
        reader = mnt.waiting_reader(mnt / "key")
        writer.kill()
        assert reader.error() == "EOWNERDEAD"
    mnt.put("key", b"whole")
    assert mnt.reader(mnt / "key").result() == b"whole"


def test_3_fail_while_it_is_written(mnt):
    """The readers know at once; the writer's bytes come too late or settle it anew, but nobody waits for ever."""
    mnt.declare("key")
    writer, fd = mnt.writer("key", b"late", os.O_WRONLY)
    reader = mnt.waiting_reader(mnt / "key")
    set_attr(mnt / "key", "error", "no longer needed")
    assert reader.error() == "EIO"


# ---- cancel ----------------------------------------------------------------------------------------------------------

def test_3_cancel(mnt):
    mnt.declare("key")
    readers = [mnt.waiting_reader(mnt / "key") for _ in range(3)]
    os.unlink(mnt / "key")
    assert [reader.error() for reader in readers] == ["ECANCELED"] * 3
    assert mnt.reader(mnt / "key").error() == "ENOENT"


def test_3_cancelled_key_can_be_declared_again(mnt):
    mnt.declare("key")
    os.unlink(mnt / "key")
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    mnt.put("key", b"new life")
    assert reader.result() == b"new life"


# ---- ask without waiting ---------------------------------------------------------------------------------------------

ASKING = [["stat"], ["ls", "-l"], ["find"], ["test", "-e"], ["du"], ["getfattr", "-d"], ["touch", "-c"],
          ["chmod", "600"]]


@pytest.mark.parametrize("argv", ASKING, ids=lambda argv: argv[0])
@pytest.mark.parametrize("pending", ["future", "draft"])
def test_3_asking_never_waits_and_resolves_nothing(mnt, argv, pending):
    if run("sh", "-c", f"command -v {argv[0]}").returncode:
        pytest.skip(f"no command {argv[0]}")
    holder = mnt.declare("key") if pending == "future" else mnt.writer("key")
    before = state(mnt / "key")
    assert run(*argv, mnt / "key", timeout=10).returncode == 0
    assert state(mnt / "key") == before and holder


def test_3_listing_the_directory_never_waits(mnt):
    mnt.declare("key")
    assert run("ls", "-laR", mnt.root, timeout=10).returncode == 0
    assert run("find", mnt.root, "-size", "0", "-name", "key", timeout=10).stdout == f"{mnt / 'key'}\n"
    assert state(mnt / "key") == "pending"


def test_3_O_PATH_never_waits(mnt):
    mnt.declare("key")
    with opened(mnt / "key", os.O_PATH) as fd:
        assert os.fstat(fd).st_size == 0


# ---- signals ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("restarts", [False, True], ids=["", "SA_RESTART"])
def test_3_a_handler_ends_the_wait_with_EINTR(mnt, restarts):
    mnt.declare("key")
    worker = mnt.worker()
    worker.handle(signal.SIGUSR1, restarts=restarts)
    job = worker.begin("c_open", mnt / "key", os.O_RDONLY)
    mnt.assert_waits(job)
    os.kill(worker.pid, signal.SIGUSR1)
    assert job.error() == "EINTR"
    eventually(lambda: mnt.wait_of(job) is None)
    mnt.put("key", b"later")
    assert worker.read_path(mnt / "key") == b"later"


def test_3_a_handler_that_raises_ends_the_wait(mnt):
    mnt.declare("key")
    worker = mnt.worker()
    worker.handle(signal.SIGUSR1, raising=True)
    job = worker.begin("open", mnt / "key", os.O_RDONLY)
    mnt.assert_waits(job)
    os.kill(worker.pid, signal.SIGUSR1)
    assert job.interrupted()


def stop_and_continue(pid):
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: " T (stopped)" in run("grep", "State", f"/proc/{pid}/status").stdout.replace("\t", " "))
    os.kill(pid, signal.SIGCONT)


def test_3_stop_and_continue(mnt):
    """Python opens again after EINTR, so the reader goes on waiting."""
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    stop_and_continue(reader.pid)
    mnt.assert_waits(reader)
    mnt.put("key", b"result")
    assert reader.result() == b"result"


def test_3_stop_and_continue_is_EINTR_for_who_does_not_open_again(mnt):
    mnt.declare("key")
    worker = mnt.worker()
    job = worker.begin("c_open", mnt / "key", os.O_RDONLY)
    mnt.assert_waits(job)
    stop_and_continue(worker.pid)
    assert job.error() == "EINTR"
    assert state(mnt / "key") == "pending"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("where", ["future", "await"])
def test_3_signals_end_a_waiting_reader_at_once(mnt, number, where):
    if where == "future":
        mnt.declare("key")
    path = mnt / "key" if where == "future" else mnt.awaiting("key")
    worker = mnt.worker()
    job = worker.begin("run", ["/bin/cat", path])
    wanted = ("cat", mnt.key("key"))
    wait = eventually(lambda: next((w for w in mnt.waits() if (w["command"], w["key"]) == wanted), None))
    start = time.monotonic()
    os.kill(wait["pid"], number)
    assert job.result(5)[0] == -number
    assert time.monotonic() - start < 2
    eventually(lambda: wait["pid"] not in [w["pid"] for w in mnt.waits()])


# ---- O_NONBLOCK ------------------------------------------------------------------------------------------------------

NONBLOCK = os.O_RDONLY | os.O_NONBLOCK


@pytest.mark.parametrize("start", ["future", "draft"])
def test_3_nonblock_open_succeeds_and_read_gives_EAGAIN(mnt, start):
    worker = mnt.worker()
    writer = mnt.writer("key") if start == "draft" else mnt.declare("key")
    fd = worker.open(mnt / "key", NONBLOCK)
    with fails(errno.EAGAIN):
        worker.read(fd, 10)
    assert not worker.wait_readable(fd, "poll", 0)
    if start == "draft":
        writer[0].write_all(writer[1], pattern(100_000))
        with fails(errno.EAGAIN):
            worker.read(fd, 10)
        writer[0].close(writer[1])
    else:
        mnt.put("key", pattern(100_000))
    assert worker.wait_readable(fd, "poll", 10)
    assert worker.read_fd(fd, 30_000) == pattern(100_000)
    assert worker.fstat(fd).st_size == 100_000


@pytest.mark.parametrize("how", ["select", "poll", "epoll", "epoll-edge"])
@pytest.mark.parametrize("settle", ["set", "fail", "cancel", "death"])
def test_3_poll_wakes_when_the_future_settles(mnt, how, settle):
    mnt.declare("key")
    worker = mnt.worker()
    fd = worker.open(mnt / "key", NONBLOCK)
    job = worker.begin("wait_readable", fd, how, 15)
    other = mnt.worker()
    eventually(lambda: in_poll(worker.pid), what="the process waits in poll")
    if settle == "set":
        other.write_path(mnt / "key", b"result")
    elif settle == "fail":
        set_attr(mnt / "key", "error", "broken")
    elif settle == "cancel":
        os.unlink(mnt / "key")
    else:
        other.open(mnt / "key", os.O_WRONLY)
        other.kill()
    assert job.result() is True
    if settle == "set":
        assert worker.read_fd(fd) == b"result"
    else:
        with fails({"fail": errno.EIO, "cancel": errno.ECANCELED, "death": errno.EOWNERDEAD}[settle]):
            worker.read(fd, 10)


def in_poll(pid):
    """True if a worker sleeps in another call than read(0), where it waits for orders: a wake-up must reach it now."""
    with open(f"/proc/{pid}/syscall") as file:
        return file.read().split()[1:2] not in ([], ["0x0"])


def test_3_nonblock_on_a_ready_object_reads_at_once(mnt):
    mnt.put("key", b"there")
    mnt.becomes("key", "ready")
    with opened(mnt / "key", NONBLOCK) as fd:
        assert readable(fd) and os.read(fd, 10) == b"there"


def test_3_nonblock_closed_while_it_settles(mnt):
    """A test of core shows that nothing is freed too early; here nothing is to be seen but that the daemon lives on."""
    writer = mnt.worker()
    for n in range(50):
        path = mnt.declare(f"key{n}")
        fds = [os.open(path, NONBLOCK) for _ in range(40)]
        fd = writer.open(path, os.O_WRONLY)
        job = writer.begin("close", fd)
        for fd in fds:
            os.stat(path)
            os.close(fd)
        job.result()


@pytest.mark.parametrize("how", ["key", "await", "once"])
def test_3_nonblock_open_while_it_settles(mnt, how):
    """Whatever comes first, the read gives EAGAIN or all of it."""
    writer = mnt.worker()
    for n in range(200):
        mnt.declare(f"key{n}")
        if how == "once":
            set_attr(mnt / f"key{n}", "evict", "1")
        path = mnt.awaiting(f"key{n}") if how == "await" else mnt / f"key{n}"
        job = writer.begin("write_path", mnt / f"key{n}", b"result")
        with opened(path, NONBLOCK) as fd:
            job.result()
            assert readable(fd, 10) and os.read(fd, 10) == b"result"


def test_3_nonblock_await_of_an_undeclared_key(mnt):
    with opened(mnt.awaiting("key"), NONBLOCK) as fd:
        with fails(errno.EAGAIN):
            os.read(fd, 10)
        mnt.put("key", b"there")
        assert readable(fd, 10) and os.read(fd, 10) == b"there"


def test_3_one_process_polls_many_futures(mnt):
    keys = [f"key{n}" for n in range(50)]
    mnt.declare(*keys)
    fds = [os.open(mnt / key, NONBLOCK) for key in keys]
    try:
        for n in (7, 33):
            mnt.put(keys[n], b"%d" % n)
        eventually(lambda: [n for n, fd in enumerate(fds) if readable(fd)] == [7, 33])
        assert os.read(fds[7], 10) == b"7"
    finally:
        for fd in fds:
            os.close(fd)


# ---- deadlines -------------------------------------------------------------------------------------------------------

def soon(milliseconds):
    return (datetime.now(timezone.utc) + timedelta(milliseconds=milliseconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.mark.parametrize("value", [lambda: "500ms", lambda: "0.5s", lambda: soon(500)], ids=["ms", "s", "time"])
def test_3_a_deadline_fails_the_future_with_ETIMEDOUT(mnt, value):
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    with opened(mnt / "key", NONBLOCK) as fd:
        set_attr(mnt / "key", "deadline", value())
        assert reader.error() == "ETIMEDOUT"
        assert state(mnt / "key") == "failed"
        assert attr(mnt / "key", "error").startswith("ETIMEDOUT")
        assert readable(fd, 5)
        with fails(errno.ETIMEDOUT):
            os.read(fd, 10)
    mnt.put("key", b"late but whole")
    assert mnt.reader(mnt / "key").result() == b"late but whole"


def test_3_a_deadline_is_shown_moved_and_taken_back(mnt):
    mnt.declare("key")
    set_attr(mnt / "key", "deadline", "1h")
    shown = attr(mnt / "key", "deadline")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", shown)
    left = datetime.fromisoformat(shown[:26] + "+00:00") - datetime.now(timezone.utc)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    set_attr(mnt / "key", "deadline", "2030-01-02T03:04:05.5+01:00")
    assert attr(mnt / "key", "deadline") == "2030-01-02T02:04:05.500000000Z"
    set_attr(mnt / "key", "deadline", "200ms")
    set_attr(mnt / "key", "deadline", "none")
    assert attr(mnt / "key", "deadline") is None
    other = mnt.declare("other")
    set_attr(other, "deadline", "300ms")
    eventually(lambda: state(other) == "failed")
    assert state(mnt / "key") == "pending"


def test_3_a_deadline_in_the_past_fails_at_once(mnt):
    mnt.declare("key")
    set_attr(mnt / "key", "deadline", "2001-01-01T00:00:00Z")
    mnt.becomes("key", "failed")
    assert mnt.reader(mnt / "key").error() == "ETIMEDOUT"


def test_3_a_set_future_meets_no_deadline(mnt):
    mnt.declare("key", "witness")
    set_attr(mnt / "key", "deadline", "300ms")
    mnt.put("key", b"in time")
    set_attr(mnt / "witness", "deadline", "600ms")
    eventually(lambda: state(mnt / "witness") == "failed")
    assert state(mnt / "key") == "ready" and mnt.get("key") == b"in time"


def test_3_removing_the_deadline_attribute(mnt):
    mnt.declare("key")
    set_attr(mnt / "key", "deadline", "1h")
    try:
        os.removexattr(mnt / "key", "user.promisefs.deadline")
    except OSError as error:
        assert name_of(error.errno) in ("EINVAL", "EPERM", "EACCES", "ENOTSUP")
    else:
        assert attr(mnt / "key", "deadline") is None


def test_3_deadlines_in_order(mnt):
    """Many deadlines, set in any order, each fires for its own key."""
    keys = [f"key{n}" for n in range(30)]
    mnt.declare(*keys)
    for n, key in enumerate(keys):
        set_attr(mnt / key, "deadline", "1h" if n % 3 == 0 else f"{300 + n * 7 % 100}ms")
    eventually(lambda: all(state(mnt / key) == "failed" for n, key in enumerate(keys) if n % 3))
    assert all(state(mnt / key) == "pending" for n, key in enumerate(keys) if n % 3 == 0)


def test_3_wait_timeout_option(new_mount):
    mnt = new_mount("wait-timeout=400ms")
    mnt.declare("key")
    assert mnt.reader(mnt / "key").error() == "ETIMEDOUT"
    assert mnt.reader(mnt.awaiting("nothing")).error() == "ETIMEDOUT"
    assert state(mnt / "key") == "pending"
    mnt.put("key", b"result")
    assert mnt.reader(mnt / "key").result() == b"result"


# ---- reading pending keys in other ways ------------------------------------------------------------------------------

def test_3_many_readers_of_one_future(mnt):
    mnt.declare("key")
    worker = mnt.worker()
    job = worker.begin("open_many", [mnt / "key"] * 200)
    eventually(lambda: sum(wait["key"] == mnt.key("key") for wait in mnt.waits()) == 200, what="200 readers wait")
    mnt.put("key", b"result")
    assert job.result() == {b"result": 200}


def test_3_a_symlink_to_a_future_waits(mnt):
    mnt.declare("key")
    os.symlink("key", mnt / "link")
    reader = mnt.waiting_reader(mnt / "link")
    mnt.put("key", b"result")
    assert reader.result() == b"result"


def test_3_truncate_of_a_pending_future_does_not_hang(mnt):
    """truncate(2) is a write: it may settle or fail, but it returns."""
    mnt.declare("key")
    worker = mnt.worker()
    job = worker.begin("truncate", mnt / "key", 5)
    eventually(lambda: job.done, 10, "truncate returns")


def test_3_threads_begin_to_write_a_future_at_once(mnt):
    worker, other = mnt.worker(), mnt.worker()
    for n in range(60):
        key = f"key{n}"
        mnt.declare(key)
        fd = worker.open(mnt.future(key), os.O_WRONLY)
        jobs = [worker.begin("pwrite", fd, bytes([65 + at]) * 10, 10 * at, threaded=True) for at in range(4)]
        assert [job.result() for job in jobs] == [10] * 4
        worker.close(fd)
        assert other.read_path(mnt / key) == b"A" * 10 + b"B" * 10 + b"C" * 10 + b"D" * 10
        assert version(mnt / key) == 1

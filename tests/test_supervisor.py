"""supervisor=on: the processes that serve a mount may die, and nobody who uses it sees that.

`--kill-seconds` makes the comparison with a model under kills longer."""
import collections
import contextlib
import errno
import mmap
import os
import random
import select
import signal
import time
from pathlib import Path

import pytest

import pfs
from pfs import PYTHON, attr, check_store, eventually, fails, is_mounted, opened, pattern, promisefs, set_attr, state

pytestmark = pytest.mark.timeout(120)


# ---- who is who ------------------------------------------------------------------------------------------------------

def is_worker(pid):
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task")) > 2
    return False


def role(mount, which):
    """The process that is `worker`, `supervisor` or `standby`, or None while there is none."""
    for pid, name in pfs.processes(mount).items():
        if name == "promisefs-tell":
            found = "teller"
        else:
            found = "standby" if name == "promisefs-stby" else "worker" if is_worker(pid) else "supervisor"
        if found == which:
            return pid
    return None


def the(mount, which):
    return eventually(lambda: role(mount, which), what=f"there is a {which}")


def kill(mount, *which):
    pids = [the(mount, one) for one in which]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for one, pid in zip(which, pids):
        eventually(lambda: role(mount, one) not in (None, pid), what=f"another {one}")


@pytest.fixture
def supervised(new_mount, data_path):
    space = new_mount(f"{data_path},{pfs.SUPERVISED}")
    yield space
    for name in ("supervisor", "standby"):  # what is left should the test have killed the one that was started
        pid = role(space.mount, name) if space.mount.process.poll() is not None else None
        if pid:
            os.kill(pid, signal.SIGTERM)


# ---- one death, and two ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("which", [["worker"], ["standby"], ["supervisor"], ["teller"], ["supervisor", "worker"],
                                   ["teller", "worker"],
                                   ["standby", "worker"], ["worker", "worker"]], ids="-".join)
def test_whoever_dies_the_mount_goes_on(supervised, which):
    mnt = supervised
    mnt.put("key", b"data")
    kill(mnt.mount, *dict.fromkeys(which))
    if len(set(which)) < len(which):
        kill(mnt.mount, which[0])
    assert mnt.get("key") == b"data"
    mnt.put("other", b"more")
    kill(mnt.mount, "worker")
    assert mnt.get("other") == b"more"
    assert "promisefs-stby" in pfs.processes(mnt.mount).values()
    done = promisefs("umount", mnt.root)
    assert done.returncode == 0, done.stderr
    eventually(lambda: not pfs.processes(mnt.mount), what="all processes have ended")


def test_what_was_answered_is_there_after_a_death(supervised):
    mnt = supervised
    for number in range(30):
        os.mkdir(mnt / f"dir-{number}")
        mnt.put(f"dir-{number}/key", b"%d" % number)
        os.rename(mnt / f"dir-{number}/key", mnt / f"key-{number}")
        os.setxattr(mnt / f"key-{number}", "user.n", b"%d" % number)
        os.kill(the(mnt.mount, "worker"), signal.SIGKILL)
        assert os.listdir(mnt / f"dir-{number}") == []
        assert mnt.get(f"key-{number}") == os.getxattr(mnt / f"key-{number}", "user.n") == b"%d" % number
    assert check_store(mnt.mount) == []


def test_too_many_deaths_end_the_mount(new_mount):
    mnt = new_mount("supervisor=on,restart-limit=3")
    waiting = mnt.worker()
    mnt.declare("future")
    job = waiting.begin("open", mnt / "future", os.O_RDONLY)
    mnt.assert_waits(job)
    for _ in range(2):
        kill(mnt.mount, "worker")
    os.kill(the(mnt.mount, "worker"), signal.SIGKILL)
    assert mnt.mount.process.wait(20) == 1
    assert not is_mounted(mnt.root) and not pfs.processes(mnt.mount)
    assert job.error() in ("ECONNABORTED", "ENOTCONN")
    assert "was killed by signal 9" in mnt.mount.tail() and "3 did within 10 s: the mount ends" in mnt.mount.tail()


def test_when_all_are_killed_nothing_stays(supervised):
    mnt = supervised
    mnt.declare("future")
    job = mnt.waiting_reader(mnt / "future")
    found = [the(mnt.mount, which) for which in ("worker", "supervisor", "standby")]
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not pfs.processes(mnt.mount), what="the teller has ended")
    assert job.error() in ("ECONNABORTED", "ENOTCONN")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_mount(supervised, number):
    mnt = supervised
    mnt.put("key", b"data")
    kill(mnt.mount, "worker")
    mnt.mount.process.send_signal(number)
    assert mnt.mount.process.wait(20) == 0
    assert not is_mounted(mnt.root) and not pfs.processes(mnt.mount)


def test_without_there_is_one_daemon(own):
    assert [name for name in pfs.processes(own.mount).values()] == ["promisefs"]


# ---- open files ------------------------------------------------------------------------------------------------------

def test_a_reader_goes_on(supervised):
    mnt = supervised
    mnt.put("key", pattern(300_000))
    with opened(mnt / "key") as fd:
        mapped = mmap.mmap(fd, 300_000, prot=mmap.PROT_READ)
        kill(mnt.mount, "worker")
        mnt.put("key", b"new")
        kill(mnt.mount, "worker")
        assert os.pread(fd, 400_000, 0) == pattern(300_000) == mapped[:]
        assert os.fstat(fd).st_size == 300_000
        mapped.close()
    assert mnt.get("key") == b"new"
    assert check_store(mnt.mount) == []


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_writer_goes_on(supervised, before):
    mnt = supervised
    if before:
        mnt.put("key", before)
    fd = os.open(mnt / "key", pfs.WRITE)
    for number in range(5):
        os.write(fd, b"%d" % number)
        kill(mnt.mount, "worker")
    if before:
        assert mnt.reader(mnt / "key").result() == before
    os.close(fd)
    assert mnt.get("key") == b"01234"
    assert check_store(mnt.mount) == []


def test_who_waits_goes_on_waiting(supervised):
    mnt = supervised
    mnt.declare("one", "two")
    jobs = [mnt.waiting_reader(mnt / "one") for _ in range(3)]
    awaiting = mnt.waiting_reader(mnt.awaiting("none"))
    kill(mnt.mount, "worker")
    mnt.assert_waits(*jobs, awaiting)
    mnt.put("one", b"data")
    kill(mnt.mount, "worker")
    mnt.put("none", b"more")
    assert [job.result() for job in jobs] == [b"data"] * 3 and awaiting.result() == b"more"
    failing = mnt.waiting_reader(mnt / "two")
    kill(mnt.mount, "worker")
    failing.worker.kill()
    set_attr(mnt / "two", "error", "EPERM: no")
    with fails(errno.EPERM):
        mnt.get("two")


def test_who_polls_is_told(supervised):
    mnt = supervised
    mnt.declare("key")
    fd = os.open(mnt / "key", os.O_RDONLY | os.O_NONBLOCK)
    poller = select.epoll()
    poller.register(fd, select.EPOLLIN)
    assert poller.poll(0) == []
    kill(mnt.mount, "worker")
    assert poller.poll(0.2) == []
    with fails(errno.EAGAIN):
        os.read(fd, 10)
    writer = mnt.worker()
    job = writer.begin("write_path", mnt / "key", b"data")
    assert poller.poll(10) != []
    assert os.read(fd, 10) == b"data"
    job.result()
    poller.close()
    os.close(fd)


def test_a_killed_writer_publishes_nothing(supervised):
    mnt = supervised
    mnt.put("key", b"old")
    writer, fd = mnt.writer("key", b"torn")
    kill(mnt.mount, "worker")
    writer.kill()
    time.sleep(0.2)
    assert mnt.get("key") == b"old"
    assert check_store(mnt.mount) == []


def test_removed_and_replaced_while_open(supervised):
    mnt = supervised
    mnt.put("gone", b"gone")
    mnt.put("dir-file", b"x")
    with opened(mnt / "gone") as fd, opened(mnt / "new", os.O_RDWR | os.O_CREAT) as draft:
        os.write(draft, b"temporary")
        os.unlink(mnt / "gone")
        os.unlink(mnt / "new")
        kill(mnt.mount, "worker")
        assert os.pread(fd, 10, 0) == b"gone" and os.pread(draft, 20, 0) == b"temporary"
        os.write(draft, b" file")
        kill(mnt.mount, "worker")
        assert os.pread(draft, 20, 0) == b"temporary file"
        assert os.fstat(fd).st_nlink == os.fstat(draft).st_nlink == 0
    assert check_store(mnt.mount) == []


def test_one_time_objects_are_read_once(supervised):
    mnt = supervised
    for number in range(10):
        mnt.put("key", b"%d" % number)
        fd = os.open(mnt.once("key"), os.O_RDONLY)
        kill(mnt.mount, "worker")
        with fails(errno.ENOENT):
            os.open(mnt.once("key"), os.O_RDONLY)
        assert os.read(fd, 10) == b"%d" % number
        os.close(fd)
        eventually(lambda: not os.path.exists(mnt / "key"))
    assert check_store(mnt.mount) == []


def test_borrows_and_lifetimes_stay(supervised):
    mnt = supervised
    mnt.put("key", b"data")
    handle = mnt.borrow("key", "ref", "r")
    os.mkdir(mnt.mount.control / "lifetimes/L")
    mnt.put("member", b"data")
    os.link(mnt / "member", mnt.mount.control / "lifetimes/L/member")
    with opened(handle) as fd:
        kill(mnt.mount, "worker")
        assert os.read(fd, 10) == b"data"
        with fails(errno.EBUSY):
            os.unlink(mnt / "key")
    os.unlink(handle)
    os.unlink(mnt / "key")
    kill(mnt.mount, "worker")
    os.rmdir(mnt.mount.control / "lifetimes/L")
    assert not os.path.exists(mnt / "member")
    assert check_store(mnt.mount) == []


# ---- a random workload under kills ------------------------------------------------------------------------------------

CLIENT = (Path(__file__).parent / "supervisor_worker.py")
CLIENTS = 4


def test_random_workload_under_kills(supervised, request):
    """Every client knows what each of its calls must answer."""
    import json
    import subprocess
    mnt = supervised
    seconds = request.config.getoption("--kill-seconds")
    seed = request.config.getoption("--kill-seed") or random.randrange(1 << 30)
    print(f"seed {seed}")
    with pfs.Killer(mnt.mount, seed) as killer:
        clients = [subprocess.Popen([*PYTHON, str(CLIENT), str(mnt.root), str(seed + number), str(seconds)],
                                    stdout=subprocess.PIPE, start_new_session=True) for number in range(CLIENTS)]
        try:
            results = [json.loads(client.communicate(timeout=seconds + 60)[0] or b"{}") for client in clients]
        finally:
            for client in clients:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(client.pid, signal.SIGKILL)
                client.wait()
    counts = sum((collections.Counter(result.get("counts", {})) for result in results), collections.Counter())
    wrong = [line for result in results for line in result.get("wrong", ["died"])]
    print(f"{killer.kills} kills, {sum(counts.values())} calls, {len(wrong)} wrong answers; {dict(counts)}")
    assert wrong == []
    assert killer.kills >= seconds
    assert check_store(mnt.mount) == []

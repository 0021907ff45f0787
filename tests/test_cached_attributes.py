"""What the kernel keeps of keys that nobody has written yet, so that looking at them costs nothing the second time; and
that it is never out of date when somebody does write, fail, cancel or rename them."""
import errno
import os
import re
import select
import signal
import subprocess
import time

import pytest

from pfs import PYTHON, eventually, fails, opened, pattern, run, set_attr, state

pytestmark = pytest.mark.core

MANY = 300
DATA = pattern(20_000)
NONBLOCK = os.O_RDONLY | os.O_NONBLOCK
WRITERS = {"key": lambda mnt, key: mnt / key, "future": lambda mnt, key: mnt.future(key)}


def size(path):
    return os.stat(path).st_size


def requests(mnt):
    text = (mnt.mount.control / "metrics").read_text()
    return {kind: int(count) for kind, count in re.findall(r'requests_total\{kind="(\w+)"\} (\d+)', text)}


def cost(mnt, call):
    """How many requests of which kind it takes."""
    before = requests(mnt)
    call()
    after = requests(mnt)
    return {kind: after[kind] - before[kind] for kind in after}


# ---- what looking costs ----------------------------------------------------------------------------------------------

def make_files(mnt, number):
    for n in range(number):
        mnt.put(f"tree/sub/{n}")
    eventually(lambda: {state(mnt / f"tree/sub/{n}") for n in range(number)} == {"ready"})


def make_futures(mnt, number):
    for n in range(number):
        os.close(os.open(mnt.future(f"tree/sub/{n}"), os.O_WRONLY | os.O_CREAT, 0o666))


def make_failed(mnt, number):
    make_futures(mnt, number)
    for n in range(number):
        set_attr(mnt / f"tree/sub/{n}", "error", "broken")


KINDS = {"files": make_files, "futures": make_futures, "failed": make_failed}
LOOKERS = {
    "find": ["find", "@", "-newer", "/etc/passwd"],
    "ls": ["ls", "-lR", "--color=never", "@"],
    "du": ["du", "-a", "@"],
}


def look(mnt, tool):
    argv = [os.path.join(mnt.root, "tree") if word == "@" else word for word in LOOKERS[tool]]
    assert run(*argv).returncode == 0


@pytest.mark.parametrize("tool", LOOKERS)
def test_looking_at_futures_costs_what_files_cost(own, tool):
    """Cold, when the kernel knows nothing, and again, when it need not ask for a single one."""
    costs = {}
    for kind, make in KINDS.items():
        os.makedirs(own / "tree/sub")
        make(own, MANY)
        own.mount.stop()
        own.mount.start()
        costs[kind] = [cost(own, lambda: look(own, tool)) for _ in range(3)]
        run("rm", "-r", own / "tree")
    for kind in ("futures", "failed"):
        for walk, file_walk in zip(costs[kind], costs["files"]):
            assert all(abs(walk[what] - file_walk[what]) < 8 for what in ("lookup", "getattr", "readdir", "xattr")), costs
        for again in costs[kind][1:]:
            assert again["lookup"] + again["getattr"] < 10, costs  # those of the directories


def test_a_second_look_asks_nothing(own):
    os.makedirs(own / "tree/sub")
    make_futures(own, MANY)
    with opened(own / "tree/sub") as folder:
        def stat_all():
            return [os.stat(str(n), dir_fd=folder) for n in range(MANY)]
        first = stat_all()
        again = []
        took = cost(own, lambda: again.extend(stat_all()))
    assert took["lookup"] + took["getattr"] < 10, took  # the way to the metrics
    assert again == first and {found.st_size for found in again} == {0}


# ---- writing ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("view", WRITERS)
@pytest.mark.parametrize("looked", ["before", "meanwhile"])
def test_what_is_closed_is_seen_at_once(mnt, view, looked):
    """By who has looked before, or for the first time while it was written: his question may be under way."""
    writers = [mnt.worker() for _ in range(4)]
    for n in range(0, 128, 4):
        paths = [mnt.declare(f"key{n + i}") for i in range(4)] if looked == "before" else []
        if looked == "meanwhile":
            for i in range(4):
                os.close(os.open(mnt.future(f"key{n + i}"), os.O_WRONLY | os.O_CREAT))
            paths = [mnt / f"key{n + i}" for i in range(4)]
        else:
            assert [size(path) for path in paths] == [0] * 4
        jobs = [writer.begin("write_path", WRITERS[view](mnt, f"key{n + i}"), DATA, os.O_WRONLY)
                for i, writer in enumerate(writers)]
        for path, job in zip(paths, jobs):
            while not job.done:
                assert 0 <= size(path) <= len(DATA)
            job.result()
            assert size(path) == len(DATA)


@pytest.mark.parametrize("view", WRITERS)
def test_who_has_waited_sees_all_of_it(mnt, view):
    """Size, bytes and mapping, at once when open(2) returns, while others look all the time."""
    readers, lookers = [mnt.worker() for _ in range(8)], [mnt.worker() for _ in range(2)]
    for _ in range(6):
        mnt.declare(*(f"key{n}" for n in range(8)))
        paths = [mnt / f"key{n}" for n in range(8)]
        looks = [looker.begin("run", ["find", mnt.root, "-newer", "/etc/passwd", "-size", "+99M"]) for looker in lookers]
        jobs = [reader.begin("open_and_look", path) for reader, path in zip(readers, paths)]
        mnt.assert_waits(*jobs)
        assert [size(path) for path in paths] == [0] * 8
        for n in range(8):
            with opened(WRITERS[view](mnt, f"key{n}"), os.O_WRONLY) as fd:
                os.write(fd, DATA)
        for reader, job in zip(readers, jobs):
            found = job.result()
            assert (found["size"], found["bytes"], found["mapped"]) == (len(DATA), DATA, DATA)
            reader.call("close", found["fd"])
        for path in paths:
            os.unlink(path)
        for looking in looks:
            assert looking.result()[1] == b""


MANY_READERS = """
import os, sys, threading
wrong = []
def read():
    fd = os.open(sys.argv[1], os.O_RDONLY)
    if not os.fstat(fd).st_size == os.stat(sys.argv[1]).st_size == len(os.pread(fd, 1 << 20, 0)) == int(sys.argv[2]):
        wrong.append(os.fstat(fd))
readers = [threading.Thread(target=read) for _ in range(64)]
[reader.start() for reader in readers]
[reader.join() for reader in readers]
sys.exit(f"{wrong}" if wrong else 0)
"""


@pytest.mark.parametrize("view", WRITERS)
def test_64_wait_for_one_and_see_the_same(mnt, view):
    worker = mnt.worker()
    for n in range(5):
        path = mnt.declare(f"key{n}")
        assert size(path) == 0
        job = worker.begin("run", [*PYTHON, "-c", MANY_READERS, path, str(len(DATA))])
        eventually(lambda: len(mnt.waits()) == 64)
        with opened(WRITERS[view](mnt, f"key{n}"), os.O_WRONLY) as fd:
            os.write(fd, DATA)
        assert size(path) == len(DATA)
        assert job.result() == (0, b"", b"")


def test_while_it_is_written_it_has_the_size_that_it_has(mnt):
    path = mnt.declare("key")
    assert size(path) == 0
    for view in ("future", "key"):
        with opened(WRITERS[view](mnt, "key"), os.O_WRONLY) as fd:
            for n in range(1, 20):
                os.write(fd, b"x" * 100)
                assert size(path) == n * 100 or view == "future"
            eventually(lambda: size(path) == 1900)
        assert size(path) == 1900
        os.unlink(path)
        mnt.declare("key")


@pytest.mark.parametrize("how", ["open", "truncate", "touch"])
def test_who_sets_it_without_a_byte_gives_it_a_new_time(mnt, how):
    worker = mnt.worker()
    for n in range(20):
        path = mnt.declare(f"key{n}")
        before = os.stat(path)
        eventually(lambda: time.time_ns() > before.st_mtime_ns + 20_000_000)  # the clock of the file system below ticks
        if how == "truncate":
            worker.truncate(path, 100)
        elif how == "touch":
            assert run("touch", path).returncode == 0
        else:
            worker.close(worker.open(path, os.O_WRONLY))
        after = os.stat(path)
        assert after.st_mtime_ns > before.st_mtime_ns and after.st_size == (100 if how == "truncate" else 0)
        assert after.st_ino == before.st_ino


def test_nonblock(mnt):
    """The descriptor of who has not waited, too, shows the size when it has settled."""
    for n in range(50):
        path = mnt.declare(f"key{n}")
        assert size(path) == 0
        with opened(path, NONBLOCK) as fd:
            assert os.fstat(fd).st_size == 0
            with fails(errno.EAGAIN):
                os.read(fd, 1)
            mnt.put(f"key{n}", DATA)
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            assert poller.poll(10_000)
            assert os.fstat(fd).st_size == len(DATA) and os.pread(fd, len(DATA) + 1, 0) == DATA


# ---- everything else that becomes of a future ------------------------------------------------------------------------

def test_killed_writer(mnt):
    """The key is as it was before, for who hears of that, and can be written again."""
    reader = mnt.worker()
    for n in range(6):
        path = mnt.declare(f"key{n}")
        assert size(path) == 0
        writer, fd = mnt.writer(f"key{n}", DATA, os.O_WRONLY)
        job = reader.begin("read_path", path)
        mnt.assert_waits(job)
        assert size(path) == len(DATA)
        writer.kill()
        assert job.error() == "EOWNERDEAD"
        assert size(path) == 0 and state(path) == "failed"
        mnt.put(f"key{n}", DATA[:100])
        assert size(path) == 100
        assert reader.read_path(path) == DATA[:100]


PRODUCER = """
import os, signal, subprocess, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
os.write(fd, b"x" * 1000)
own = os.open(sys.argv[1], os.O_RDONLY)
child = subprocess.Popen(["sleep", "1000"], pass_fds=[own], stdout=subprocess.DEVNULL)
os.close(own)
print(child.pid, flush=True)
signal.pause()
"""


@pytest.mark.parametrize("death", ["fail", "wait"])
def test_killed_writer_whose_draft_somebody_reads(new_mount, data_path, death):
    """He keeps what was torn; the key does not show its size."""
    mnt = new_mount(f"{data_path},on-producer-death={death}")
    path = mnt.declare("key")
    assert size(path) == 0
    producer = subprocess.Popen([*PYTHON, "-c", PRODUCER, path], stdout=subprocess.PIPE)
    reader = int(producer.stdout.readline())
    try:
        assert size(path) == 1000
        producer.kill()
        producer.wait()
        eventually(lambda: state(path) == ("failed" if death == "fail" else "pending"))
        eventually(lambda: size(path) == 0, 3)
        assert cost(mnt, lambda: [size(path) for _ in range(20)])["getattr"] < 10
        mnt.put("key", DATA)
        assert size(path) == len(DATA)
    finally:
        producer.kill()
        producer.wait()
        producer.stdout.close()
        os.kill(reader, signal.SIGKILL)
        eventually(lambda: not os.path.exists(f"/proc/{reader}/exe"), what="the reader has ended")


WHO_IS_TOLD = """
import os, sys, threading
wrong = []
def read():
    try:
        os.open(sys.argv[1], os.O_RDONLY)
    except OSError as error:
        if os.path.lexists(sys.argv[1]):
            wrong.append(error)
readers = [threading.Thread(target=read) for _ in range(64)]
[reader.start() for reader in readers]
[reader.join() for reader in readers]
sys.exit(f"{wrong}" if wrong else 0)
"""


@pytest.mark.parametrize("how", ["unlink", "lifetime", "lease"])
def test_64_wait_for_what_is_cancelled_and_find_nothing(mnt, how):
    worker = mnt.worker()
    for n in range(5):
        path = mnt.declare(f"key{n}")
        lifetime = mnt.handle("lifetimes", f"L{n}")
        os.mkdir(lifetime)
        os.link(path, lifetime + "/key")
        assert size(path) == 0
        job = worker.begin("run", [*PYTHON, "-c", WHO_IS_TOLD, path])
        eventually(lambda: len(mnt.waits()) == 64)
        if how == "unlink":
            os.unlink(mnt.future(f"key{n}"))
        elif how == "lifetime":
            os.rmdir(lifetime)
        else:
            set_attr(lifetime, "lease", "1ms")
        assert job.result() == (0, b"", b"")


@pytest.mark.parametrize("how", ["cancel", "rename", "fail", "deadline"])
def test_who_has_waited_for_nothing_sees_why(mnt, how):
    worker = mnt.worker()
    for n in range(10):
        path = mnt.declare(f"key{n}")
        if how == "deadline":
            set_attr(path, "deadline", "150ms")
        before = os.stat(path)
        reader = worker.begin("read_path", path)
        if how != "deadline":
            mnt.assert_waits(reader)
        if how == "cancel":
            os.unlink(mnt.future(f"key{n}"))
            assert reader.error() == "ECANCELED" and not os.path.lexists(path)
        elif how == "rename":
            mnt.put("new", DATA)
            os.rename(mnt / "new", path)
            assert reader.result() == DATA and size(path) == len(DATA)
        else:
            if how == "fail":
                set_attr(path, "error", "broken")
            assert reader.error() == ("EIO" if how == "fail" else "ETIMEDOUT")
            assert os.stat(path).st_ctime_ns > before.st_ctime_ns and state(path) == "failed"


def test_what_is_removed_through_future_is_gone_at_once(mnt):
    for n in range(100):
        path = mnt.declare("key")
        os.mkdir(mnt / "dir")
        assert size(path) == 0 and os.path.isdir(mnt / "dir")
        os.unlink(mnt.future("key"))
        assert not os.path.lexists(path)
        os.rmdir(mnt.future("dir"))
        assert not os.path.lexists(mnt / "dir")
        with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
            os.write(fd, b"x")
        assert size(path) == 1
        os.unlink(path)


def test_made_exclusively_beside_a_future(mnt):
    path = mnt.declare("key")
    assert size(path) == 0
    with fails(errno.EEXIST):
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    assert state(path) == "pending"


def test_renamed_and_exchanged(mnt):
    """Futures go with their names, and who waits for one waits on."""
    mnt.declare("a")
    mnt.put("b", DATA)
    assert (size(mnt / "a"), size(mnt / "b")) == (0, len(DATA))
    os.rename(mnt / "a", mnt / "c")
    os.rename(mnt / "b", mnt / "a")
    assert (size(mnt / "a"), size(mnt / "c")) == (len(DATA), 0) and not os.path.lexists(mnt / "b")
    reader = mnt.waiting_reader(mnt / "c")
    assert mnt.worker().read_path(mnt / "a") == DATA
    mnt.put("c", DATA[:10])
    assert reader.result() == DATA[:10] and size(mnt / "c") == 10


CHANGES = {
    "mode": lambda mnt: os.chmod(mnt.future("key"), 0o600),
    "time": lambda mnt: os.utime(mnt.future("key"), (1, 1)),
    "attribute": lambda mnt: os.setxattr(mnt.future("key"), "user.x", b"1"),
    "its own attribute": lambda mnt: open(mnt.special("attributes/evict", "key"), "w").write("1"),
}


@pytest.mark.parametrize("kind", ["pending", "ready"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_through_another_view_is_seen_at_once(mnt, kind, change):
    if kind == "pending":
        mnt.declare("key")
    else:
        mnt.put("key", DATA)
        mnt.becomes("key", "ready")
    before = os.stat(mnt / "key")
    CHANGES[change](mnt)
    fresh, after = os.stat(mnt.special("once", "key")), os.stat(mnt / "key")
    assert (after.st_mode, after.st_mtime_ns, after.st_ctime_ns) == (fresh.st_mode, fresh.st_mtime_ns, fresh.st_ctime_ns)
    assert change == "its own attribute" or after.st_ctime_ns > before.st_ctime_ns


def test_a_future_with_two_names_of_which_one_is_cancelled(mnt):
    mnt.declare("one")
    os.link(mnt / "one", mnt / "two")
    assert os.stat(mnt / "one").st_nlink == 2
    os.unlink(mnt.future("two"))
    eventually(lambda: os.stat(mnt / "one").st_nlink == 1, 5)

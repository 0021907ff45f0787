"""Section 2 of the design: an object is there whole or not at all. The number in a test's name is the sentence's."""
import errno
import os
import re
import signal
import time

import pytest

from pfs import NOBODY, PYTHON, WRITE, attr, eventually, fails, pattern, run, set_attr, state, tree_bytes, version

pytestmark = pytest.mark.core

KILLERS = [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGSEGV, signal.SIGHUP]


# ---- 1. published when the last writer closes ------------------------------------------------------------------------

def test_2_1_published_by_the_last_of_two_writers(mnt):
    first, fd1 = mnt.writer("key", b"one ")
    second, fd2 = mnt.writer("key", flags=os.O_WRONLY | os.O_APPEND)
    reader = mnt.waiting_reader(mnt / "key")
    first.close(fd1)
    second.write(fd2, b"two")
    mnt.assert_still_waits(reader)
    assert state(mnt / "key") == "writing"
    second.close(fd2)
    assert reader.result() == b"one two"
    mnt.becomes("key", "ready")


def test_2_1_published_by_the_last_descriptor(mnt):
    writer, fd = mnt.writer("key", b"bytes")
    copy = writer.dup(fd)
    reader = mnt.waiting_reader(mnt / "key")
    writer.close(fd)
    mnt.assert_still_waits(reader)
    writer.close(copy)
    assert reader.result() == b"bytes"


def test_2_1_readers_never_see_half_a_file(mnt):
    writer, fd = mnt.writer("key")
    readers = [mnt.waiting_reader(mnt / "key") for _ in range(3)]
    for part in range(4):
        writer.write_all(fd, pattern(100_000, part))
        mnt.assert_still_waits(*readers)
    writer.close(fd)
    whole = b"".join(pattern(100_000, part) for part in range(4))
    assert [reader.result() == whole for reader in readers] == [True] * 3


def test_2_1_a_replacement_is_seen_all_at_once(mnt):
    """Somebody who reads all the time sees whole versions only, and never an older one than before."""
    size = 50_000
    mnt.put("key", bytes(size))
    reader, writer = mnt.worker(), mnt.worker()
    last = 0
    for number in range(1, 60):
        job = writer.begin("write_path", mnt / "key", bytes([number]) * size)
        while not job.done:
            data = reader.read_path(mnt / "key")
            assert len(data) == size and len(set(data)) == 1
            assert data[0] in (number - 1, number) and data[0] >= last
            last = data[0]
        job.result()


def test_2_1_a_reader_after_close_gets_the_new_version(mnt):
    writer, reader = mnt.worker(), mnt.worker()
    for number in range(200):
        writer.write_path(mnt / "key", b"version %d" % number)
        assert reader.read_path(mnt / "key") == b"version %d" % number


def test_2_1_empty_object(mnt):
    mnt.put("key")
    assert mnt.reader(mnt / "key").result() == b""
    assert os.stat(mnt / "key").st_size == 0


def test_2_1_version_and_id(mnt):
    writer, fd = mnt.writer("key", b"1")
    assert (state(mnt / "key"), version(mnt / "key")) == ("writing", 0)
    writer.close(fd)
    mnt.versions("key", 1)
    number = attr(mnt / "key", "id")
    for wanted in (2, 3):
        mnt.put("key", b"next")
        mnt.versions("key", wanted)
    assert attr(mnt / "key", "id") == number


# ---- 2. opening a new object waits -----------------------------------------------------------------------------------

def start_draft(mnt):
    return mnt.writer("key")


def start_future(mnt):
    mnt.declare("key")
    worker = mnt.worker()
    return worker, None


@pytest.mark.parametrize("start", [start_draft, start_future])
def test_2_2_the_wait_is_in_open_and_all_is_final_after_it(mnt, start):
    writer, fd = start(mnt)
    data = pattern(300_001)
    reader = mnt.worker()
    job = reader.begin("open_and_look", mnt / "key")
    mnt.assert_waits(job)
    if fd is None:
        fd = writer.open(mnt / "key", os.O_WRONLY)
    writer.write_all(fd, data)
    mnt.assert_still_waits(job)
    writer.close(fd)
    seen = job.result()
    assert (seen["size"], seen["bytes"] == data, seen["mapped"] == data) == (len(data), True, True)
    mnt.put("key", b"something else")
    assert reader.look_again(seen["fd"]) == seen


def test_2_2_waiting_shows_key_and_holder(mnt):
    writer, _ = mnt.writer("key")
    reader = mnt.waiting_reader(mnt / "key")
    wait = mnt.wait_of(reader)
    assert wait["key"] == mnt.key("key") and wait["state"] == "writing" and wait["uid"] == os.geteuid()
    assert writer.pid in [holder["pid"] for holder in wait["holders"]]
    assert wait["command"].startswith("python") and wait["waited_ms"] >= 0
    assert re.match(r"\d{4}-\d\d-\d\dT", wait["since"])


def test_2_2_empty_draft_closed_without_a_byte(mnt):
    writer, fd = mnt.writer("key")
    reader = mnt.waiting_reader(mnt / "key")
    writer.close(fd)
    assert reader.result() == b""


def test_2_2_reading_and_writing_at_once_does_not_wait(mnt):
    """O_RDWR is a writer: it joins the draft."""
    writer, _ = mnt.writer("key", b"draft")
    second = mnt.worker()
    fd = second.open(mnt / "key", os.O_RDWR)
    assert second.pread(fd, 100, 0) == b"draft"


# ---- 3. a replacement does not disturb readers -----------------------------------------------------------------------

def test_2_3_current_version_while_a_replacement_is_written(mnt):
    mnt.put("key", b"old")
    mnt.versions("key", 1)
    writer, fd = mnt.writer("key", b"new and longer")
    assert mnt.reader(mnt / "key").result() == b"old"
    found = os.stat(mnt / "key")
    assert (state(mnt / "key"), version(mnt / "key"), found.st_size) == ("ready", 1, 3)
    writer.close(fd)
    assert mnt.reader(mnt / "key").result() == b"new and longer"


def replace_by_writing(mnt):
    mnt.put("key", b"new")


def replace_by_rename(mnt):
    os.rename(mnt.put("other", b"new"), mnt / "key")


def replace_in_place(mnt):
    with open(mnt / "key", "r+b", buffering=0) as file:
        file.write(b"new")


def replace_by_append(mnt):
    with open(mnt / "key", "ab", buffering=0) as file:
        file.write(b"new")


def replace_by_truncate(mnt):
    os.truncate(mnt / "key", 1)


def replace_by_unlink(mnt):
    os.unlink(mnt / "key")
    mnt.put("key", b"new")


REPLACEMENTS = [replace_by_writing, replace_by_rename, replace_in_place, replace_by_append, replace_by_truncate,
                replace_by_unlink]


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_2_3_reader_keeps_its_version(mnt, replace):
    data = pattern(70_000)
    mnt.put("key", data)
    reader = mnt.worker()
    seen = reader.open_and_look(mnt / "key")
    for _ in range(3):
        replace(mnt)
        assert reader.look_again(seen["fd"]) == seen
    assert mnt.reader(mnt / "key").result() != data
    assert seen["bytes"] == data and seen["mapped"] == data


def test_2_3_many_readers_of_many_versions(mnt):
    readers = []
    for number in range(20):
        mnt.put("key", b"version %d" % number)
        reader = mnt.worker()
        readers.append((reader, reader.open_and_look(mnt / "key")))
    for number, (reader, seen) in enumerate(readers):
        assert seen["bytes"] == b"version %d" % number
        assert reader.look_again(seen["fd"]) == seen


REPLACE = r"""
import sys
for number in range(int(sys.argv[2])):
    with open(sys.argv[1], "wb", buffering=0) as file:
        file.write(b"%d" % number)
    if len(sys.argv) > 3:
        with open(sys.argv[3], "rb") as file:
            assert file.read()
"""


@pytest.mark.parametrize("writers", [1, 2, 4])
@pytest.mark.parametrize("reading", [False, True], ids=["writing", "writing and reading"])
def test_2_3_replacing_again_and_again(mnt, writers, reading):
    """Each writer replaces a key of its own without a pause, and perhaps reads another's; no open ever fails."""
    keys = [mnt.put(f"key{number}", b"first") for number in range(writers)]
    jobs = []
    for number, key in enumerate(keys):
        others = [keys[number - 1]] if reading else []
        jobs.append(mnt.worker().begin("run", [*PYTHON, "-c", REPLACE, key, "1000", *others]))
    for job in jobs:
        status, _, errors = job.result(40)
        assert status == 0, errors.decode()
    assert [mnt.get(f"key{number}") for number in range(writers)] == [b"999"] * writers


@pytest.mark.parametrize("data", [b"", b"data"])
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_APPEND])
def test_2_3_opened_for_writing_and_not_written_is_no_new_version(mnt, data, flags):
    mnt.put("key", data)
    mnt.versions("key", 1)
    os.utime(mnt / "key", (1e9, 1e9))
    for _ in range(3):
        os.close(os.open(mnt / "key", flags))
        assert mnt.get("key") == data  # which waits for the close to be finished
    assert version(mnt / "key") == 1 and os.stat(mnt / "key").st_mtime == 1e9


def test_2_3_old_versions_leave_the_disk(mnt):
    for number in range(5):
        mnt.put("key", pattern(1 << 20, number))
    data = mnt.mount.store / "data"
    mnt.put("key", b"small")
    eventually(lambda: tree_bytes(data) < 1 << 20, what="the bytes of old versions are given back")


def test_2_3_replacing_keeps_mode_owner_attributes_and_links(mnt):
    mnt.put("key", b"old")
    os.chmod(mnt / "key", 0o640)
    os.setxattr(mnt / "key", "user.mine", b"value")
    os.link(mnt / "key", mnt / "link")
    before = os.stat(mnt / "key")
    mnt.put("key", b"new")
    mnt.versions("key", 2)
    after = os.stat(mnt / "key")
    assert (after.st_mode, after.st_uid, after.st_ino, after.st_nlink) == (
        before.st_mode, before.st_uid, before.st_ino, 2)
    assert os.getxattr(mnt / "key", "user.mine") == b"value"
    assert mnt.get("link") == b"new"


# ---- 4. writers of one draft share it --------------------------------------------------------------------------------

def test_2_4_writers_share_bytes_and_size(mnt):
    first, fd1 = mnt.writer("key", b"0123456789")
    second, fd2 = mnt.writer("key", flags=os.O_RDWR)
    assert second.pread(fd2, 100, 0) == b"0123456789"
    second.pwrite(fd2, b"AB", 2)
    second.pwrite(fd2, b"end", 12)
    assert first.fstat(fd1).st_size == 15 == second.fstat(fd2).st_size
    first.ftruncate(fd1, 14)
    assert second.pread(fd2, 100, 0) == b"01AB456789\0\0en"
    first.close(fd1)
    second.close(fd2)
    assert mnt.reader(mnt / "key").result() == b"01AB456789\0\0en"


def test_2_4_a_second_O_TRUNC_cuts_the_shared_draft(mnt):
    first, fd1 = mnt.writer("key", b"0123456789")
    second, fd2 = mnt.writer("key", flags=WRITE)
    assert first.fstat(fd1).st_size == 0
    first.pwrite(fd1, b"x", 0)
    first.close(fd1)
    second.close(fd2)
    assert mnt.reader(mnt / "key").result() == b"x"


@pytest.mark.parametrize("exists", [False, True], ids=["new", "replacement"])
def test_2_4_appends_of_many_processes_all_arrive(mnt, exists):
    if exists:
        mnt.put("log", b"head 0\n")
    holder, fd = mnt.writer("log", flags=os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    jobs = [mnt.worker().begin("append_lines", mnt / "log", b"tag%d" % n, 100) for n in range(4)]
    for job in jobs:
        job.result()
    holder.close(fd)
    lines = mnt.reader(mnt / "log").result().splitlines()
    expected = {b"tag%d %d" % (n, i) for n in range(4) for i in range(100)} | ({b"head 0"} if exists else set())
    assert len(lines) == len(expected) and set(lines) == expected


@pytest.mark.parametrize("flags, change, wanted", [
    (os.O_WRONLY, lambda w, fd: w.pwrite(fd, b"AB", 0), b"ABcdef"),
    (os.O_RDWR, lambda w, fd: w.pwrite(fd, w.pread(fd, 3, 3).upper(), 0), b"DEFdef"),
    (os.O_WRONLY | os.O_APPEND, lambda w, fd: w.write(fd, b"ghi"), b"abcdefghi"),
    (os.O_WRONLY | os.O_CREAT, lambda w, fd: w.ftruncate(fd, 2), b"ab"),
    (os.O_WRONLY, lambda w, fd: None, b"abcdef"),
])
def test_2_4_without_O_TRUNC_the_draft_starts_from_the_current_version(mnt, flags, change, wanted):
    mnt.put("key", b"abcdef")
    writer = mnt.worker()
    fd = writer.open(mnt / "key", flags)
    change(writer, fd)
    assert mnt.reader(mnt / "key").result() == b"abcdef"
    writer.close(fd)
    assert mnt.reader(mnt / "key").result() == wanted


def test_2_4_appending_is_not_O_n(mnt):
    """Fifty appends to a large object cost less than a few copies of it."""
    size = 192 << 20
    writer = mnt.worker()
    writer.write_path(mnt / "big", bytes(1 << 20))
    fd = writer.open(mnt / "big", os.O_WRONLY)
    block = pattern(1 << 20)
    for at in range(0, size, len(block)):
        writer.pwrite(fd, block, at)
    writer.close(fd)
    writer.read_path(mnt / "big", size=1 << 20, timeout=40)
    start = time.monotonic()
    with open(mnt / "big", "rb", buffering=0) as source, open(mnt.mount.base / "copy", "wb", buffering=0) as target:
        os.sendfile(target.fileno(), source.fileno(), 0, size)
    copy = time.monotonic() - start
    os.unlink(mnt.mount.base / "copy")
    start = time.monotonic()
    for number in range(50):
        writer.write_path(mnt / "big", b"%09d\n" % number, os.O_WRONLY | os.O_APPEND)
    appends = time.monotonic() - start
    assert os.stat(mnt / "big").st_size == size + 500
    assert appends < 10 * copy + 0.5, f"50 appends took {appends:.2f} s, one copy takes {copy:.2f} s"


def test_2_4_appending_while_a_reader_needs_the_old_version(mnt):
    mnt.put("key", pattern(1 << 20))
    reader = mnt.worker()
    seen = reader.open_and_look(mnt / "key")
    mnt.worker().write_path(mnt / "key", b"tail", os.O_WRONLY | os.O_APPEND)
    assert reader.look_again(seen["fd"]) == seen
    assert mnt.reader(mnt / "key").result() == pattern(1 << 20) + b"tail"


# ---- 5. nobody deadlocks on himself; cycles end ----------------------------------------------------------------------

def set_up_new(mnt):
    pass


def set_up_replacement(mnt):
    mnt.put("key", b"old version")


OWN_READERS = {
    "itself": lambda writer, path: writer.read_path(path),
    "a thread": lambda writer, path: writer.call("read_path", path, threaded=True),
    "a forked child": lambda writer, path: writer.fork_call("read_path", path),
}


@pytest.mark.parametrize("set_up", [set_up_new, set_up_replacement])
@pytest.mark.parametrize("who", list(OWN_READERS))
def test_2_5_a_writer_reads_its_own_draft(mnt, set_up, who):
    set_up(mnt)
    writer, fd = mnt.writer("key", b"my draft")
    assert OWN_READERS[who](writer, mnt / "key") == b"my draft"
    writer.close(fd)
    assert mnt.reader(mnt / "key").result() == b"my draft"


def test_2_5_a_program_that_inherited_the_descriptor_reads_the_draft(mnt):
    writer, fd = mnt.writer("key", b"my draft")
    status, out, err = writer.run(["/bin/cat", mnt / "key"], keep=(fd,))
    assert (status, out, err) == (0, b"my draft", b"")


def test_2_5_a_writer_sees_the_size_of_its_own_draft(mnt):
    """What it opens for reading is the draft's inode, not that of the version that others read."""
    mnt.put("key", b"old")
    worker, fd = mnt.writer("key", b"new and longer", os.O_RDWR | os.O_TRUNC)
    look = worker.open_and_look(mnt / "key")
    assert (look["size"], look["bytes"], look["mapped"]) == (14, b"new and longer", b"new and longer")
    worker.truncate(mnt / "key", 5)
    assert worker.fstat(fd).st_size == worker.fstat(look["fd"]).st_size == 5
    assert mnt.get("key") == b"old"


def test_2_1_an_open_that_makes_a_file_it_cannot_write(mnt):
    """O_CREAT with O_RDONLY, as of the file of a lock: it is empty and whole at once, nobody waits for its close."""
    worker = mnt.worker()
    fd = worker.open(mnt / "lock", os.O_RDONLY | os.O_CREAT, 0o640)
    assert (state(mnt / "lock"), version(mnt / "lock"), os.stat(mnt / "lock").st_mode & 0o777) == ("ready", 1, 0o640)
    assert worker.read_path(mnt / "lock") == b"" and mnt.reader(mnt / "lock").result() == b""
    assert [event["event"] for event in mnt.history("lock")] == ["put"]
    with fails(errno.EBADF):
        worker.write(fd, b"x")
    mnt.put("lock", b"data")
    assert mnt.get("lock") == b"data" and worker.read(fd, 10) == b""
    with fails(errno.EEXIST):
        worker.open(mnt / "lock", os.O_RDONLY | os.O_CREAT | os.O_EXCL)


def test_2_1_a_file_of_a_lock(mnt):
    """flock(1) makes its file so."""
    done = run("flock", "-n", mnt / "lock", "flock", "-n", mnt / "lock", "true", timeout=10)
    assert done.returncode == 1 and mnt.get("lock") == b""
    assert run("flock", "-n", mnt / "lock", "true", timeout=10).returncode == 0


def test_2_8_a_file_that_an_open_has_made_is_recorded(own):
    fd = os.open(own / "lock", os.O_RDONLY | os.O_CREAT, 0o600)
    own.mount.kill()
    os.close(fd)
    own.mount.start()
    assert own.get("lock") == b"" and state(own / "lock") == "ready"


def test_2_5_a_writer_reads_its_own_draft_of_a_future(mnt):
    mnt.declare("key")
    writer, fd = mnt.writer("key", b"my draft", os.O_WRONLY)
    assert writer.read_path(mnt / "key") == b"my draft"


def test_2_5_a_child_without_the_descriptor_waits(mnt):
    """Being related is not enough: the descriptor counts."""
    writer, fd = mnt.writer("key", b"draft")
    reader = mnt.waiting_reader(mnt / "key")
    writer.close(fd)
    assert reader.result() == b"draft"


@pytest.mark.parametrize("count", [2, 3])
def test_2_5_a_cycle_of_waiters_gets_EDEADLK(mnt, count):
    writers = [mnt.writer(f"key{n}", b"%d" % n) for n in range(count)]
    jobs = []
    for n, (worker, _) in enumerate(writers[:-1]):
        jobs.append(worker.begin("read_path", mnt / f"key{n + 1}"))
        mnt.assert_waits(jobs[-1])
    last, fd = writers[-1]
    with fails(errno.EDEADLK):
        last.read_path(mnt / "key0")
    mnt.assert_still_waits(*jobs)
    last.close(fd)
    for n in reversed(range(count - 1)):
        assert jobs[n].result() == b"%d" % (n + 1)
        writers[n][0].close(writers[n][1])
    assert mnt.reader(mnt / "key0").result() == b"0"


def test_2_5_a_chain_without_a_cycle_is_no_deadlock(mnt):
    first, fd1 = mnt.writer("key1", b"1")
    second, fd2 = mnt.writer("key2", b"2")
    jobs = [second.begin("read_path", mnt / "key1"), mnt.reader(mnt / "key2"), mnt.reader(mnt / "key1")]
    mnt.assert_waits(*jobs)
    first.close(fd1)
    assert jobs[0].result() == b"1" == jobs[2].result()
    second.close(fd2)
    assert jobs[1].result() == b"2"


def test_2_5_a_shared_draft_is_no_deadlock_while_another_writer_could_go_on(mnt):
    """A waits for B's draft, B reads a draft that A shares with itself: own draft, no wait."""
    first, fd1 = mnt.writer("shared", b"both")
    second, fd2 = mnt.writer("shared", flags=os.O_WRONLY)
    third, fd3 = mnt.writer("other", b"3")
    job = first.begin("read_path", mnt / "other")
    mnt.assert_waits(job)
    assert second.read_path(mnt / "shared") == b"both"
    third.close(fd3)
    assert job.result() == b"3"


# ---- 6. a killed writer did not finish -------------------------------------------------------------------------------

@pytest.mark.parametrize("number", KILLERS, ids=lambda number: number.name)
def test_2_6_killed_a_new_object_disappears(mnt, number):
    writer, _ = mnt.writer("key", b"torn")
    reader = mnt.waiting_reader(mnt / "key")
    writer.begin("raise_signal", number)
    assert writer.wait() == -number
    assert reader.error() == "EOWNERDEAD"
    eventually(lambda: not os.path.exists(mnt / "key"), what="the torn object disappears")
    assert "key" not in os.listdir(mnt.root)


@pytest.mark.parametrize("flags", [WRITE, os.O_RDWR, os.O_WRONLY | os.O_APPEND], ids=["trunc", "rdwr", "append"])
def test_2_6_killed_a_replacement_leaves_the_old_version(mnt, flags):
    mnt.put("key", b"old version")
    mnt.versions("key", 1)
    writer, _ = mnt.writer("key", b"torn", flags)
    writer.kill()
    eventually(lambda: os.path.exists(mnt.aborted("key")), what="the torn bytes are kept")
    assert mnt.reader(mnt / "key").result() == b"old version"
    assert (version(mnt / "key"), state(mnt / "key")) == (1, "ready")


def test_2_6_killed_a_future_fails(mnt):
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    writer, _ = mnt.writer("key", b"torn", os.O_WRONLY)
    writer.kill()
    assert reader.error() == "EOWNERDEAD"
    assert mnt.reader(mnt / "key").error() == "EOWNERDEAD"
    assert state(mnt / "key") == "failed"
    assert re.match(rf"EOWNERDEAD: .*\b{writer.pid}\b", attr(mnt / "key", "error"))


def test_2_6_killed_a_future_stays_pending_with_the_option(new_mount):
    mnt = new_mount("on-producer-death=wait")
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    writer, _ = mnt.writer("key", b"torn", os.O_WRONLY)
    writer.kill()
    eventually(lambda: os.path.exists(mnt.aborted("key")), what="the torn bytes are kept")
    mnt.assert_still_waits(reader)
    assert state(mnt / "key") == "pending"
    mnt.put("key", b"second try")
    assert reader.result() == b"second try"


def end_normally(worker):
    assert worker.leave() == 0


def end_with_3(worker):
    worker.begin("_exit", 3)
    assert worker.wait() == 3


def end_with_threads(worker):
    worker.busy_threads(4)
    worker.begin("_exit", 7)
    assert worker.wait() == 7


def end_by_exec(worker):
    worker.begin("exec_program", ["/bin/false"])
    assert worker.wait() == 1


@pytest.mark.parametrize("end", [end_normally, end_with_3, end_with_threads, end_by_exec])
@pytest.mark.parametrize("declared", [False, True], ids=["object", "future"])
def test_2_6_an_ordinary_exit_of_any_kind_is_a_close(mnt, end, declared):
    if declared:
        mnt.declare("key")
    writer, _ = mnt.writer("key", b"whole")
    reader = mnt.waiting_reader(mnt / "key")
    end(writer)
    assert reader.result() == b"whole"


def test_2_6_killed_with_threads(mnt):
    writer, _ = mnt.writer("key", b"torn")
    reader = mnt.waiting_reader(mnt / "key")
    writer.busy_threads(8)
    writer.kill()
    assert reader.error() == "EOWNERDEAD"
    eventually(lambda: not os.path.exists(mnt / "key"))


def test_2_6_killed_first_then_the_other_writer_closes(mnt):
    """The last close decides."""
    first, _ = mnt.writer("key", b"one ")
    second, fd = mnt.writer("key", flags=os.O_WRONLY | os.O_APPEND)
    reader = mnt.waiting_reader(mnt / "key")
    first.kill()
    second.write(fd, b"two")
    mnt.assert_still_waits(reader)
    second.close(fd)
    assert reader.result() == b"one two"


def test_2_6_closed_first_then_the_last_writer_is_killed(mnt):
    first, fd = mnt.writer("key", b"one")
    second, _ = mnt.writer("key", flags=os.O_WRONLY | os.O_APPEND)
    reader = mnt.waiting_reader(mnt / "key")
    first.close(fd)
    second.kill()
    assert reader.error() == "EOWNERDEAD"


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    for folder in [tmp_path, *list(tmp_path.parents)[:2]]:
        folder.chmod(0o755)
    os.mkfifo(path, 0o666)
    yield str(path)


def release_holder(fifo):
    """Let the child of fork_holder go: open its fifo once it reads there."""
    def opened():
        try:
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
            return True
        except OSError:
            return False
    eventually(opened, what="the child reads its fifo")


def test_2_6_a_child_holds_the_descriptor_after_the_parent_was_killed(mnt, fifo):
    writer, _ = mnt.writer("key", b"whole")
    reader = mnt.waiting_reader(mnt / "key")
    writer.fork_holder(fifo)
    writer.kill()
    mnt.assert_still_waits(reader)
    release_holder(fifo)
    assert reader.result() == b"whole"


def test_2_6_the_child_that_holds_the_descriptor_last_is_killed(mnt, fifo):
    writer, fd = mnt.writer("key", b"torn")
    reader = mnt.waiting_reader(mnt / "key")
    child = writer.fork_holder(fifo)
    writer.close(fd)
    mnt.assert_still_waits(reader)
    os.kill(child, signal.SIGKILL)
    assert reader.error() == "EOWNERDEAD"


@pytest.mark.parametrize("close_fds", [True, False])
def test_2_6_exec_with_a_CLOEXEC_descriptor_does_not_deadlock(mnt, close_fds):
    """The kernel closes the child's copy inside execve; the draft goes on."""
    writer, fd = mnt.writer("key", b"one ")
    for _ in range(10):
        assert writer.run(["/bin/true"], close_fds=close_fds)[0] == 0
    assert state(mnt / "key") == "writing"
    writer.write(fd, b"two")
    writer.close(fd)
    assert mnt.reader(mnt / "key").result() == b"one two"


def test_2_6_exec_closes_the_last_descriptor(mnt):
    """A process that becomes another program closes in the ordinary way, and lives on."""
    writer, _ = mnt.writer("key", b"whole")
    reader = mnt.waiting_reader(mnt / "key")
    writer.begin("exec_program", ["/bin/cat"])
    assert reader.result() == b"whole"
    assert writer.process.poll() is None


def test_2_6_torn_bytes_are_kept_readable_and_removable(mnt):
    os.makedirs(mnt / "a/b")
    writer, fd = mnt.writer("a/b/key", pattern(200_000))
    writer.kill()
    kept = mnt.aborted("a/b/key")
    eventually(lambda: os.path.exists(kept), what="the torn bytes are kept")
    assert os.listdir(mnt.aborted("a/b")) == ["key"]
    assert os.stat(kept).st_size == 200_000
    assert mnt.reader(kept).result() == pattern(200_000)
    os.unlink(kept)
    assert not os.path.exists(kept)


def test_2_6_torn_bytes_are_kept_up_to_a_size(new_mount):
    mnt = new_mount("aborted-bytes=1M")
    for number in range(4):
        writer, _ = mnt.writer(f"key{number}", pattern(400_000, number))
        writer.kill()
        eventually(lambda: os.path.exists(mnt.aborted(f"key{number}")), what="the newest torn bytes are kept")
    eventually(lambda: sum(os.stat(mnt.aborted(name)).st_size for name in os.listdir(mnt.aborted())) <= 1 << 20,
               what="the oldest torn bytes go")
    assert sorted(os.listdir(mnt.aborted())) == ["key2", "key3"]


def test_2_6_torn_bytes_are_kept_up_to_an_age(new_mount):
    mnt = new_mount("aborted-age=300ms")
    writer, _ = mnt.writer("key", b"torn")
    writer.kill()
    eventually(lambda: mnt.history("key") and not os.path.exists(mnt / "key"), what="the writer's death is noticed")
    eventually(lambda: not os.path.exists(mnt.aborted("key")), what="old torn bytes go")
    eventually(lambda: not any(files for _, _, files in os.walk(mnt.mount.store / "drafts")), what="so do their files")


@pytest.mark.parametrize("sync", ["fsync", "fdatasync"])
def test_2_6_fsynced_then_killed_is_published(mnt, sync):
    writer, fd = mnt.writer("key", b"synced ")
    reader = mnt.waiting_reader(mnt / "key")
    writer.call(sync, fd)
    writer.write(fd, b"and more")
    writer.kill()
    assert reader.result() == b"synced and more"
    assert not os.path.exists(mnt.aborted("key"))


def test_2_6_fsynced_replacement_then_killed_is_published(mnt):
    mnt.put("key", b"old version")
    writer, fd = mnt.writer("key", b"new")
    writer.fsync(fd)
    assert mnt.reader(mnt / "key").result() == b"old version"
    writer.kill()
    mnt.versions("key", 2)
    assert mnt.reader(mnt / "key").result() == b"new"


def test_2_6_fsynced_future_then_killed_is_not_published(mnt):
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    writer, fd = mnt.writer("key", b"half", os.O_WRONLY)
    writer.fsync(fd)
    writer.kill()
    assert reader.error() == "EOWNERDEAD"


def test_2_6_a_key_can_be_written_again_after_a_death(mnt):
    for data in (b"torn once", b"torn twice"):
        writer, _ = mnt.writer("key", data)
        writer.kill()
        eventually(lambda: not os.path.exists(mnt / "key"))
    mnt.put("key", b"done")
    assert mnt.reader(mnt / "key").result() == b"done"


# ---- 7. publish=write ------------------------------------------------------------------------------------------------

@pytest.fixture
def logs(mnt):
    os.mkdir(mnt / "logs")
    set_attr(mnt / "logs", "publish", "write")
    return mnt


def test_2_7_visible_as_it_is_written(logs):
    writer, fd = logs.writer("logs/a.log", b"one\n")
    reader = logs.worker()
    seen = reader.open(logs / "logs/a.log", os.O_RDONLY)
    assert reader.read_fd(seen) == b"one\n"
    writer.write(fd, b"two\n")
    assert os.stat(logs / "logs/a.log").st_size == 8
    assert reader.read_fd(seen) == b"two\n"
    writer.ftruncate(fd, 2)
    assert reader.pread(seen, 100, 0) == b"on"
    assert logs.reader(logs / "logs/a.log").result() == b"on"


@pytest.mark.parametrize("users", ["nobody", "a reader", "a writer"])
def test_2_7_times_that_are_set_stay(logs, users):
    """As cp -p, tar and rsync set them, whoever has the file open."""
    logs.put("logs/a.log", b"line")
    worker = logs.worker()
    if users != "nobody":
        worker.open(logs / "logs/a.log", os.O_RDONLY if users == "a reader" else os.O_RDWR)
    when = (10**18 + 1234567, 10**18 + 7654321)
    os.utime(logs / "logs/a.log", ns=when)
    found = os.stat(logs / "logs/a.log")
    assert (found.st_atime_ns, found.st_mtime_ns) == when
    worker.leave()
    assert logs.get("logs/a.log") == b"line" and os.stat(logs / "logs/a.log").st_mtime_ns == when[1]


def test_2_7_a_killed_writer_leaves_what_it_wrote(logs):
    writer, _ = logs.writer("logs/a.log", b"one\n")
    writer.kill()
    assert logs.reader(logs / "logs/a.log").result() == b"one\n"
    assert not os.path.exists(logs.aborted("logs/a.log"))


def test_2_7_overwriting_is_seen_by_open_readers(logs):
    logs.put("logs/a.log", b"old")
    reader = logs.worker()
    fd = reader.open(logs / "logs/a.log", os.O_RDONLY)
    logs.put("logs/a.log", b"new!")
    assert reader.read_fd(fd) == b"new!"


def test_2_7_inherited_by_directories_created_later(logs):
    os.mkdir(logs / "logs/sub")
    assert attr(logs / "logs/sub", "publish") == "write"
    writer, _ = logs.writer("logs/sub/b.log", b"line")
    assert logs.reader(logs / "logs/sub/b.log").result() == b"line"


def test_2_7_can_be_set_back(logs):
    os.mkdir(logs / "logs/whole")
    set_attr(logs / "logs/whole", "publish", "close")
    writer, fd = logs.writer("logs/whole/key", b"one")
    reader = logs.waiting_reader(logs / "logs/whole/key")
    writer.close(fd)
    assert reader.result() == b"one"


def test_2_7_the_default_is_close(mnt):
    os.mkdir(mnt / "plain")
    assert attr(mnt / "plain", "publish") == "close"


# ---- 8. acknowledged means recorded: test_crash.py -------------------------------------------------------------------

def test_2_8_the_catalog_has_it_when_the_call_returned(mnt):
    """What test_crash.py shows by killing the daemon, seen from outside it."""
    import sqlite3
    base = sqlite3.connect(f"file:{mnt.mount.store}/catalog.db?mode=ro", uri=True)
    for number in range(20):
        os.mkdir(mnt / f"dir{number}")
        found = base.execute("select count(*) from dentry where name = ? or name = ?",
                             (f"dir{number}", f"dir{number}".encode())).fetchone()[0]
        assert found >= 1
    base.close()


# ---- around them -----------------------------------------------------------------------------------------------------

def test_mmap_writes_are_published(mnt):
    data = pattern(100_000)
    mnt.worker().mmap_write(mnt / "key", data)
    assert mnt.reader(mnt / "key").result() == data


def test_large_object(mnt):
    data = pattern(8 << 20)
    mnt.worker().write_path(mnt / "key", data)
    assert mnt.reader(mnt / "key").result() == data


def test_sha256_and_producer(mnt):
    import hashlib
    worker = mnt.worker()
    worker.write_path(mnt / "key", b"abc" * 1000)
    mnt.becomes("key", "ready")
    assert attr(mnt / "key", "sha256") == hashlib.sha256(b"abc" * 1000).hexdigest()
    assert re.match(rf"pid={worker.pid} uid={os.geteuid()} command=python", attr(mnt / "key", "producer"))


def test_draft_renamed_while_open_is_published_under_the_new_name(mnt):
    writer, fd = mnt.writer("draft", b"bytes")
    writer.rename(mnt / "draft", mnt / "final")
    reader = mnt.waiting_reader(mnt / "final")
    writer.close(fd)
    assert reader.result() == b"bytes"
    assert os.listdir(mnt.root) == ["final"]


def test_draft_unlinked_while_open_publishes_nothing(mnt):
    writer, fd = mnt.writer("key", b"bytes")
    reader = mnt.waiting_reader(mnt / "key")
    writer.unlink(mnt / "key")
    assert reader.error() in ("ECANCELED", "ENOENT")
    writer.write(fd, b"more")
    writer.close(fd)
    assert os.listdir(mnt.root) == []


@pytest.mark.needs_root
def test_another_user_waits_and_reads(mnt):
    """The rules hold between users too; file modes say who may."""
    writer, fd = mnt.writer("key", b"for all")
    reader = mnt.waiting_reader(mnt / "key", uid=NOBODY)
    writer.close(fd)
    assert reader.result() == b"for all"



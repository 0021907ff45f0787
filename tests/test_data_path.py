"""How bytes travel: through the kernel by itself (passthrough) or through the daemon; what programs see is the same."""
import mmap
import os
import time

import pytest

from conftest import why_no_passthrough
from pfs import IS_ROOT, PYTHON, WRITE, eventually, opened, pattern, promisefs, run, version

pytestmark = pytest.mark.core
MIB = 1 << 20

# As programs in C do it: Python's mmap keeps a descriptor of its own.
STORE_AFTER_CLOSE = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDWR)
    at = libc.mmap(None, ctypes.c_size_t(4096), 3, 1, fd, ctypes.c_long(0))
    os.close(fd)
    ctypes.memset(ctypes.c_void_p(at), ord("b"), 4096)
    libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(4096))
"""


def test_what_is_stored_into_a_mapping_after_close_is_not_lost(mnt):
    keys = [mnt.put(f"key{number}", b"a" * 4096) for number in range(50)]
    for number in range(50):
        mnt.becomes(f"key{number}", "ready")
    done = run(*PYTHON, "-c", STORE_AFTER_CLOSE, *keys, timeout=30)
    assert done.returncode == 0, done.stderr
    for number in range(50):
        mnt.versions(f"key{number}", 2)
        eventually(lambda: mnt.get(f"key{number}") == b"b" * 4096, what="what was stored is there")


@pytest.mark.parametrize("size", [4096, 17 * MIB])
def test_what_is_stored_where_it_was_read_before_is_not_lost(mnt, size):
    """On tmpfs that leaves no trace in the file's time."""
    data = pattern(size)
    mnt.put("key", data)
    mnt.becomes("key", "ready")
    worker, path = mnt.worker(), os.fspath(mnt / "key")
    for number in range(4):
        assert worker.look_and_store(path, number, b"!") == b"!" * number + data[number:]
        mnt.versions("key", number + 2)
    assert mnt.get("key") == b"!!!!" + data[4:] and os.stat(path).st_mtime > time.time() - 60


@pytest.mark.parametrize("exists", [False, True], ids=["new", "replaced"])
def test_who_has_a_file_mapped_and_closed_opens_it_again(mnt, exists):
    """The mapping keeps the file of FUSE open, and with it the draft, where the bytes go through the daemon."""
    if exists:
        mnt.put("key", b"a" * 4096)
        mnt.becomes("key", "ready")
    worker, path = mnt.worker(), os.fspath(mnt / "key")
    at = worker.map_and_close(path, 4096, os.O_RDWR | os.O_CREAT)
    worker.store(at, b"b" * 4096)
    assert worker.begin("read_path", path).result(10) == b"b" * 4096
    assert worker.begin("fork_call", "read_path", path).result(10) == b"b" * 4096
    worker.store(at + 100, b"ccc")
    fd = worker.begin("open", path, os.O_RDWR).result(10)
    assert worker.pread(fd, 5, 99) == b"bcccb"
    worker.close(fd)
    worker.unmap(at, 4096)
    eventually(lambda: mnt.get("key")[99:104] == b"bcccb", what="what was stored is there")


@pytest.mark.parametrize("prot, shared", [(mmap.PROT_READ, True), (mmap.PROT_READ, False)])
def test_who_has_his_new_file_mapped_for_reading_opens_it_again(mnt, prot, shared):
    worker, path = mnt.worker(), os.fspath(mnt / "key")
    at = worker.map_and_close(path, 4096, os.O_RDWR | os.O_CREAT, prot, shared)
    assert worker.begin("read_path", path).result(10) == bytes(4096)
    worker.unmap(at, 4096)
    mnt.becomes("key", "ready")


def test_others_get_what_is_mapped_whole(new_mount):
    """Where the mapping keeps the draft open, that is when it is unmapped, or its process has ended."""
    mnt = new_mount("passthrough=off")
    for end in ("unmap", "exit"):
        key = f"key-{end}"
        worker, path = mnt.worker(), os.fspath(mnt / key)
        at = worker.map_and_close(path, 4096, os.O_RDWR | os.O_CREAT)
        reader = mnt.waiting_reader(path)
        worker.store(at, b"b" * 4096)
        assert worker.begin("read_path", path).result(10) == b"b" * 4096  # the reader was asked about before
        mnt.assert_waits(reader)
        worker.unmap(at, 4096) if end == "unmap" else worker.leave()
        assert reader.result(10) == b"b" * 4096


def test_what_is_mapped_only_is_not_appended_to(mnt):
    """Appending shares the file of the version that nobody uses (core/extend.c): a mapping alone uses it, too."""
    data, reader = pattern(200_000), mnt.worker()
    mnt.put("key", data)
    mnt.becomes("key", "ready")
    at = reader.map_and_close(os.fspath(mnt / "key"), len(data), os.O_RDONLY, mmap.PROT_READ)
    writer, fd = mnt.writer("key", b"more", os.O_WRONLY | os.O_APPEND)
    last = len(data) // 4096 * 4096
    assert reader.look(at + last, 4096) == data[last:].ljust(4096, b"\0")
    writer.ftruncate(fd, 10)
    assert reader.look(at, len(data)) == data
    writer.close(fd)
    mnt.versions("key", 2)
    assert reader.look(at, len(data)) == data and mnt.get("key") == data[:10]


def test_who_has_an_old_version_mapped_is_no_writer_of_the_next(new_mount):
    mnt = new_mount("passthrough=off")
    mnt.put("key", b"a" * 4096)
    mnt.becomes("key", "ready")
    reader, writer, path = mnt.worker(), mnt.worker(), os.fspath(mnt / "key")
    old = reader.map_and_close(path, 4096, os.O_RDONLY, mmap.PROT_READ)
    at = writer.map_and_close(path, 4096)
    writer.store(at, b"b" * 4096)
    assert reader.begin("read_path", path).result(10) == b"a" * 4096 == reader.look(old, 4096)
    writer.unmap(at, 4096)
    mnt.versions("key", 2)
    assert reader.read_path(path) == b"b" * 4096 and reader.look(old, 4096) == b"a" * 4096


def test_who_writes_a_future_reads_his_own_draft(mnt):
    """By its key, though he has it open below future/, whose files have numbers of their own."""
    worker = mnt.worker()
    fd = worker.open(mnt.future("key"), os.O_RDWR | os.O_CREAT, 0o666)
    worker.write_all(fd, b"half")
    assert worker.begin("read_path", os.fspath(mnt / "key")).result(10) == b"half"
    worker.write_all(fd, b" and half")
    worker.close(fd)
    mnt.becomes("key", "ready")
    assert mnt.get("key") == b"half and half"


@pytest.mark.parametrize("readers", ["of the same process", "of others"])
def test_what_is_opened_through_proc_has_the_size_of_what_is_written(mnt, readers):
    """The kernel does not look the name up, so the draft is written through the node of the version before."""
    mnt.put("key", b"a" * 1000)
    mnt.becomes("key", "ready")
    worker, other = mnt.worker(), mnt.worker()
    reader = worker.open(mnt / "key", os.O_RDONLY)
    theirs = other.open(mnt / "key", os.O_RDONLY)
    writer = worker.open(f"/proc/{worker.pid}/fd/{reader}", os.O_RDWR | os.O_APPEND)
    size = 1000
    for piece in (b"b" * 100, b"c" * 100, b"d" * 5000):
        worker.write_all(writer, piece)
        size += len(piece)
        looking, fd = (worker, reader) if readers == "of the same process" else (other, theirs)
        assert looking.lseek(fd, 0, os.SEEK_END) == 1000 and looking.pread(fd, 10_000, 0) == b"a" * 1000
        assert other.fstat(theirs).st_size == 1000
        assert worker.lseek(writer, 0, os.SEEK_END) == size == worker.fstat(writer).st_size
    worker.ftruncate(writer, 1150)
    worker.write_all(writer, b"e")
    assert worker.lseek(writer, 0, os.SEEK_END) == 1151
    worker.close(writer)
    mnt.versions("key", 2)
    assert mnt.get("key") == b"a" * 1000 + b"b" * 100 + b"c" * 50 + b"e"
    assert other.pread(theirs, 10_000, 0) == b"a" * 1000 and other.fstat(theirs).st_size == 1000


def test_what_was_open_to_be_mapped_and_was_not_stays(mnt):
    """An open for reading and writing that does neither is no new version."""
    worker = mnt.worker()
    mnt.put("key", b"a" * 4096)
    mnt.becomes("key", "ready")
    before = os.stat(mnt / "key")
    for _ in range(100):
        worker.close(worker.open(mnt / "key", os.O_RDWR))
    mnt.put("other", b"")
    eventually(lambda: pending_drafts(mnt) == 0)
    assert version(mnt / "key") == 1 and os.stat(mnt / "key").st_mtime_ns == before.st_mtime_ns


def test_what_is_open_for_writing_can_be_mapped_again_and_again(mnt):
    """Also right after it was closed without a change, when that draft is about to be dropped."""
    mnt.put("key", b"a" * 4096)
    mnt.becomes("key", "ready")
    for _ in range(500):
        with opened(mnt / "key", os.O_RDWR) as fd, mmap.mmap(fd, 4096) as mapped:
            assert mapped[0] == ord("a")


def pending_drafts(mnt):
    return len(os.listdir(mnt.mount.store / "drafts"))


@pytest.mark.needs_root
@pytest.mark.skipif(why_no_passthrough() is not None, reason=str(why_no_passthrough()))
@pytest.mark.parametrize("option", ["passthrough=on", "passthrough=auto", ""])
def test_passthrough_moves_no_byte_through_the_daemon(new_mount, option):
    """Writing, reading, mapping and replacing 32 MiB."""
    mnt = new_mount(option)
    worker = mnt.worker()
    data = pattern(32 * MIB)
    before = mnt.mount.bytes_moved()
    for _ in range(2):
        worker.write_path(mnt / "key", data)
        assert worker.read_path(mnt / "key") == data
    assert worker.open_and_look(mnt / "key")["mapped"] == data
    assert mnt.mount.bytes_moved() - before < 4 * MIB


def test_without_passthrough_the_daemon_moves_them(new_mount):
    """So the other parameter of all these tests really is another path."""
    mnt = new_mount("passthrough=off")
    before = mnt.mount.bytes_moved()
    mnt.worker().write_path(mnt / "key", pattern(8 * MIB))
    assert mnt.mount.bytes_moved() - before >= 8 * MIB


def test_passthrough_that_cannot_be_had_is_refused(scratch, numbers):
    if why_no_passthrough() is None:
        pytest.skip("this process may use passthrough")
    base = scratch / f"refused-{next(numbers)}"
    (base / "mnt").mkdir(parents=True)
    done = promisefs("mount", base / "store", base / "mnt", "-o", "passthrough=on")
    assert done.returncode == 1 and "passthrough" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 131072, 131073, 5 * MIB + 3])
@pytest.mark.parametrize("piece", [512, 65536, 1 << 30])
def test_sizes_and_pieces(mnt, size, piece):
    data = pattern(size)
    if size // piece > 2000:
        pytest.skip("too many pieces")
    with opened(mnt / "key", WRITE) as fd:
        at = 0
        while at < size:
            at += os.write(fd, data[at:at + piece])
    with opened(mnt / "key") as fd:
        parts = []
        while part := os.read(fd, piece):
            parts.append(part)
    assert b"".join(parts) == data


def test_writing_at_random_places(mnt):
    import random
    choice = random.Random(4711)
    wanted = bytearray(300_000)
    with opened(mnt / "key", os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, len(wanted))
        for number in range(200):
            at, piece = choice.randrange(290_000), pattern(choice.randrange(1, 10_000), number)
            assert os.pwrite(fd, piece, at) == len(piece)
            wanted[at:at + len(piece)] = piece
            assert os.pread(fd, len(piece), at) == piece
    assert mnt.get("key") == wanted


def test_vectors(mnt):
    with opened(mnt / "key", os.O_RDWR | os.O_CREAT) as fd:
        assert os.writev(fd, [b"one ", b"", b"two ", b"three"]) == 13
        buffers = [bytearray(4), bytearray(9)]
        assert os.preadv(fd, buffers, 0) == 13
    assert buffers == [b"one ", b"two three"]


def test_mapped_reading_at_random_places(mnt):
    import random
    data = pattern(4 * MIB)
    mnt.put("key", data)
    choice = random.Random(1)
    with opened(mnt / "key") as fd, mmap.mmap(fd, 0, prot=mmap.PROT_READ) as area:
        for _ in range(500):
            at = choice.randrange(len(data) - 100)
            assert area[at:at + 100] == data[at:at + 100]


def test_private_mapping(mnt):
    mnt.put("key", b"x" * 10_000)
    with opened(mnt / "key") as fd:
        with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as area:
            area[:3] = b"abc"
    assert mnt.get("key") == b"x" * 10_000


def test_a_program_is_run_from_the_mount(mnt):
    mnt.put("true", open("/bin/true", "rb").read())
    os.chmod(mnt / "true", 0o755)
    mnt.becomes("true", "ready")
    assert mnt.worker().run([mnt / "true"])[0] == 0


def test_reader_with_nonblock_beside_ordinary_readers(mnt):
    """All kinds of openers of one object at once: waiting, polling, reading, writing, mapping."""
    mnt.declare("key")
    polling = mnt.worker()
    fd = polling.open(mnt / "key", os.O_RDONLY | os.O_NONBLOCK)
    writer, wfd = mnt.writer("key", pattern(100_000), os.O_RDWR)
    second = mnt.worker()
    fd2 = second.open(mnt / "key", os.O_RDONLY | os.O_NONBLOCK)
    waiting = mnt.waiting_reader(mnt / "key")
    assert writer.pread(wfd, 10, 0) == pattern(10)
    writer.close(wfd)
    assert waiting.result() == pattern(100_000)
    assert polling.wait_readable(fd, "poll", 10) and second.wait_readable(fd2, "epoll", 10)
    mapping = mnt.worker()
    seen = mapping.open_and_look(mnt / "key")
    assert polling.read_fd(fd) == second.read_fd(fd2) == seen["mapped"] == pattern(100_000)
    mnt.put("key", b"replaced")
    assert polling.pread(fd, 10, 0) == pattern(10) and mapping.look_again(seen["fd"]) == seen


def test_reader_and_writer_descriptors_mixed_many_times(mnt):
    """Opening in any order never gives EIO, whatever modes the kernel keeps for an inode."""
    workers = [mnt.worker() for _ in range(3)]
    mnt.put("key", pattern(10_000))
    for number in range(30):
        first = [os.O_RDONLY, os.O_RDWR, os.O_RDONLY | os.O_NONBLOCK][number % 3]
        flags = (first, os.O_RDONLY, os.O_WRONLY | os.O_APPEND)
        fds = [worker.open(mnt / "key", flag) for worker, flag in zip(workers, flags)]
        assert workers[1].pread(fds[1], 10, 0) == pattern(10)
        for worker, fd in zip(workers, fds):
            worker.close(fd)
    assert len(mnt.get("key")) == 10_000


def test_O_DIRECT(mnt):
    mnt.put("key", pattern(16384))
    worker = mnt.worker()
    try:
        fd = worker.open(mnt / "key", os.O_RDONLY | os.O_DIRECT)
    except OSError:
        pytest.skip("the backing file system has no O_DIRECT")
    worker.close(fd)


@pytest.mark.skipif("PROMISEFS_SANITIZED" in os.environ, reason="sanitizers keep freed memory for a while")
def test_memory_of_the_daemon_does_not_grow_with_use(own):
    """Thousands of objects made, replaced, read and removed leave nothing behind in the daemon."""
    def turn():
        for number in range(400):
            own.put(f"key{number % 50}", b"x" * 100)
            own.get(f"key{number % 50}")
        for number in range(50):
            os.unlink(own / f"key{number}")

    turn()
    before = own.mount.rss()
    descriptors = len(os.listdir(f"/proc/{own.mount.pid}/fd")) if IS_ROOT else None
    for _ in range(4):
        turn()
    assert own.mount.rss() - before < 4 * MIB
    if descriptors:
        eventually(lambda: len(os.listdir(f"/proc/{own.mount.pid}/fd")) <= descriptors + 5)


def test_what_is_published_through_another_node_is_seen_by_its_name(mnt):
    """Nobody has looked the name up, and the kernel knows it from before."""
    mnt.put("key", b"old")
    mnt.becomes("key", "ready")
    assert os.stat(mnt / "key").st_size == 3
    for n in range(5):
        with opened(mnt / "key", os.O_RDONLY) as reader:
            assert os.stat(mnt / "key").st_size == 3 + 10 * n
            with opened(f"/proc/self/fd/{reader}", os.O_WRONLY | os.O_APPEND) as writer:
                os.write(writer, b"0123456789")
        eventually(lambda: os.stat(mnt / "key").st_size == 13 + 10 * n, 5)

"""Bad input gets one clear line and harms nothing."""
import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess

import pytest

from pfs import WRITE, binary, check_store, eventually, fails, is_mounted, pattern, promisefs, run, state


@pytest.fixture
def places(scratch, numbers):
    """A store's path and a mount point, nothing mounted; cleans up whatever comes to be mounted there."""
    base = scratch / f"places-{next(numbers)}"
    (base / "mnt").mkdir(parents=True)
    yield base
    for path in (base / "mnt", base):
        if is_mounted(path):
            run("umount", "-l", path)
    shutil.rmtree(base, ignore_errors=True)


def refused(done, *words, status=1, verb="mount"):
    """The command failed with one line that has these words."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1), done
    assert done.stderr.startswith(f"promisefs {verb}: "), done.stderr
    for word in words:
        assert str(word) in done.stderr, done.stderr


@contextlib.contextmanager
def tmpfs(path, options):
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


# ---- mount -----------------------------------------------------------------------------------------------------------

def test_unknown_option(places):
    refused(promisefs("mount", places / "store", places / "mnt", "-o", "frobnicate=1"), "frobnicate", status=2)
    assert not (places / "store").exists()


BAD_OPTIONS = ["passthrough=maybe", "on-producer-death=cry", "aborted-age=old", "aborted-bytes=lots", "wait-timeout=5",
               "wait-timeout=-1s", "threads=0", "busy-poll=2ms", "busy-poll=fast",
               "threads=many", "threads=1000000", "aborted-bytes=-1", "passthrough",
               "aborted-bytes=99999999999999999999G"]


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_malformed_option(places, option):
    refused(promisefs("mount", places / "store", places / "mnt", "-o", option), option.split("=")[0], status=2)


@pytest.mark.parametrize("argv", [["mount"], ["mount", "only-store"], ["mount", "a", "b", "c"], ["umount"]])
def test_usage(argv):
    done = promisefs(*argv)
    assert done.returncode == 2 and done.stdout == "" and done.stderr


def test_mount_point_missing(places):
    refused(promisefs("mount", places / "store", places / "none"), places / "none")
    assert not (places / "none").exists()


def test_mount_point_is_a_file(places):
    (places / "file").write_text("x")
    refused(promisefs("mount", places / "store", places / "file"), places / "file")


def test_mount_point_not_empty(places):
    (places / "mnt/file").write_text("precious")
    refused(promisefs("mount", places / "store", places / "mnt"), places / "mnt", "empty")
    assert (places / "mnt/file").read_text() == "precious"


def test_mount_point_busy(own, places):
    refused(promisefs("mount", places / "store", own.root), own.root)
    own.put("key", b"x")
    assert own.get("key") == b"x"


@pytest.mark.parametrize("where", ["store in mount point", "mount point in store"])
def test_store_and_mount_point_inside_each_other(places, where):
    store, point = places / "mnt/store", places / "mnt"
    if where == "mount point in store":
        store, point = places / "store", places / "store/mnt"
    point.mkdir(parents=True, exist_ok=True)
    refused(promisefs("mount", store, point), store)


def test_store_is_a_file(places):
    (places / "store").write_text("x")
    refused(promisefs("mount", places / "store", places / "mnt"), places / "store")
    assert (places / "store").read_text() == "x"


def test_store_whose_parent_is_missing(places):
    refused(promisefs("mount", places / "no/store", places / "mnt"), places / "no")


def test_a_directory_that_is_no_store_is_left_alone(places):
    (places / "store").mkdir()
    (places / "store/precious").write_text("mine")
    done = promisefs("mount", places / "store", places / "mnt")
    refused(done, places / "store")
    assert os.listdir(places / "store") == ["precious"]


@pytest.mark.needs_root
def test_store_on_a_read_only_disk(places):
    with tmpfs(places / "disk", "ro,size=1m") as disk:
        refused(promisefs("mount", disk / "store", places / "mnt"), disk / "store", "ead-only")


@pytest.mark.needs_root
def test_store_on_a_full_disk(places):
    with tmpfs(places / "disk", "size=64k") as disk:
        with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        refused(promisefs("mount", disk / "store", places / "mnt"), disk / "store", "pace")
    assert not is_mounted(places / "mnt")


CORRUPTIONS = {
    "no database": lambda path: path.write_bytes(b"this is no database" * 1000),
    "torn header": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "zeroed page": lambda path: path.write_bytes(path.read_bytes()[:100] + bytes(4096) + path.read_bytes()[4196:]),
    "other application": lambda path: edit(path, "pragma application_id = 1234"),
    "lost table": lambda path: edit(path, "drop table dentry"),
}


def edit(path, statement):
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.execute("pragma foreign_keys = off")
        base.execute("drop view if exists key")
        base.execute(statement)
        base.commit()


@pytest.fixture
def used(new_mount):
    """A store that was in use and is unmounted."""
    mnt = new_mount()
    mnt.put("key", b"precious")
    mnt.mount.stop()
    return mnt.mount


@pytest.mark.parametrize("corruption", list(CORRUPTIONS))
def test_corrupt_catalog(used, corruption):
    path = used.store / "catalog.db"
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")
    CORRUPTIONS[corruption](path)
    before = path.read_bytes()
    refused(promisefs("mount", used.store, used.root), used.store)
    assert path.read_bytes() == before
    assert b"precious" in b"".join(file.read_bytes() for file in (used.store / "data").rglob("*") if file.is_file())


def test_catalog_of_a_newer_version(used):
    with contextlib.closing(sqlite3.connect(used.store / "catalog.db")) as base:
        known, = base.execute("pragma user_version").fetchone()
        base.execute("pragma user_version = 9999")
    refused(promisefs("mount", used.store, used.root), used.store, "newer")
    with contextlib.closing(sqlite3.connect(used.store / "catalog.db")) as base:
        assert base.execute("pragma user_version").fetchone() == (9999,)
        base.execute(f"pragma user_version = {known}")
    assert used.start().root.joinpath("key").read_bytes() == b"precious"
    used.stop()


def test_a_failed_mount_leaves_no_process(places):
    (places / "mnt/file").write_text("x")
    refused(promisefs("mount", places / "store", places / "mnt"))
    assert run("pgrep", "-f", f"promisefs mount {places}").stdout == ""


# ---- mounting in the background --------------------------------------------------------------------------------------

def daemon_of(store):
    """The pid of the daemon on a store: what a second one says."""
    done = run(binary(), "mount", store, store.parent / "other")
    return int(done.stderr.split("pid ")[1].split()[0]) if "already mounted by pid" in done.stderr else None


def test_background_mount_answers_when_the_command_returns(places):
    (places / "other").mkdir()
    done = promisefs("mount", places / "store", places / "mnt")
    assert (done.returncode, done.stderr) == (0, "")
    assert (places / "mnt/.promisefs/README").read_text()
    pid = daemon_of(places / "store")
    (places / "mnt/key").write_bytes(b"x")
    assert promisefs("umount", places / "mnt").returncode == 0
    assert not is_mounted(places / "mnt")
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), what="the daemon ends")


def test_background_daemon_keeps_nothing_of_its_parent(places):
    """Not the terminal, not the working directory, not a pipe that somebody reads to its end: run() returned."""
    (places / "other").mkdir()
    assert promisefs("mount", places / "store", places / "mnt", cwd=places).returncode == 0
    pid = daemon_of(places / "store")
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) != os.getsid(0)
    assert promisefs("umount", places / "mnt").returncode == 0


def test_relative_paths(places):
    assert promisefs("mount", "store", "mnt", cwd=places).returncode == 0
    (places / "mnt/key").write_bytes(b"x")
    assert (places / "mnt/key").read_bytes() == b"x"
    assert (places / "store/catalog.db").exists()
    assert promisefs("umount", "mnt", cwd=places).returncode == 0


def test_umount_of_what_is_not_mounted(places):
    refused(promisefs("umount", places / "mnt"), places / "mnt", verb="umount")
    refused(promisefs("umount", places / "none"), places / "none", verb="umount")


@pytest.mark.needs_root
def test_umount_of_another_file_system(places):
    with tmpfs(places / "disk", "size=1m") as disk:
        refused(promisefs("umount", disk), disk, verb="umount")
        assert is_mounted(disk)


def test_umount_of_a_busy_mount(own):
    own.put("key", b"x")
    worker = own.worker()
    worker.open(own / "key", os.O_RDONLY)
    refused(promisefs("umount", own.root), own.root, verb="umount")
    assert own.get("key") == b"x"


def test_sigterm_unmounts(own):
    own.put("key", b"x")
    assert own.get("key") == b"x"  # the close is finished
    own.mount.process.terminate()
    assert own.mount.process.wait(20) == 0
    assert not is_mounted(own.root)
    assert check_store(own.mount) == []


def test_read_only_mount(used):
    used.start("ro")
    assert used.root.joinpath("key").read_bytes() == b"precious"
    for change in (lambda: used.root.joinpath("new").write_bytes(b""), lambda: used.root.joinpath("key").unlink(),
                   lambda: used.root.joinpath("dir").mkdir(), lambda: used.root.joinpath("key").write_bytes(b"")):
        with fails(errno.EROFS):
            change()
    used.stop()


# ---- no space --------------------------------------------------------------------------------------------------------

def filled(worker, path, flags=WRITE):
    """Write until it fails, then close: the name of the error."""
    fd = worker.open(path, flags, 0o666)
    names = []
    try:
        for _ in range(64):
            worker.write_all(fd, pattern(1 << 20))
    except OSError as error:
        names.append(errno.errorcode[error.errno])
    try:
        worker.close(fd)
    except OSError as error:
        names.append(errno.errorcode[error.errno])
    return names


@pytest.fixture
def small(new_mount, data_path, scratch, numbers):
    """A mount whose store has 16 MiB."""
    with tmpfs(scratch / f"disk-{next(numbers)}", "size=16m") as disk:
        mnt = new_mount(data_path, store=disk / "store")
        yield mnt
        mnt.close()
        mnt.mount.stop()


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["new", "replacement", "future"])
def test_8_no_space_in_the_middle_of_a_write_publishes_nothing(small, kind):
    if kind == "replacement":
        small.put("key", b"old version")
        small.versions("key", 1)
    elif kind == "future":
        small.declare("key")
    free = os.statvfs(small.mount.store).f_bavail
    writer = small.worker()
    assert set(filled(writer, small / "key")) == {"ENOSPC"}
    eventually(lambda: os.statvfs(small.mount.store).f_bavail >= free - 256, what="the space is given back")
    if kind == "replacement":
        assert small.reader(small / "key").result() == b"old version"
    elif kind == "new":
        eventually(lambda: not os.path.exists(small / "key"), what="the new object disappears")
    else:
        eventually(lambda: state(small / "key") in ("pending", "failed"), what="the draft of the future is gone")
    small.put("small", b"there is space again")
    assert small.reader(small / "small").result() == b"there is space again"
    assert check_store(small.mount) == []


@pytest.mark.needs_root
def test_8_no_space_with_the_shell_and_cat(small):
    """cat gives up with status 1; its exit is a close like any other, and yet nothing is published."""
    small.put("key", b"old version")
    done = run("sh", "-c", 'head -c 40000000 /dev/zero > "$1"', "sh", small / "key")
    assert done.returncode != 0 and "No space" in done.stderr
    eventually(lambda: os.statvfs(small.mount.store).f_bavail > 2000, what="the space is given back")
    assert small.reader(small / "key").result() == b"old version"


@pytest.mark.needs_root
def test_8_space_is_free_when_unlink_has_returned(small):
    """Files go away a moment after their key, but not when that moment would be one too long."""
    data = pattern(10 << 20)
    for _ in range(5):
        small.put("big", data)
        small.becomes("big", "ready")
        os.unlink(small / "big")


@pytest.mark.needs_root
def test_8_no_space_for_fallocate(small):
    small.put("key", b"old version")
    worker = small.worker()
    fd = worker.open(small / "key", os.O_RDWR)
    with fails(errno.ENOSPC):
        worker.posix_fallocate(fd, 0, 64 << 20)
    worker.close(fd)
    assert small.reader(small / "key").result()[:11] == b"old version"


@pytest.mark.needs_root
def test_8_no_space_for_the_catalog_harms_nothing(small):
    """When even a directory cannot be recorded, the call fails and what was there stays."""
    small.put("key", b"precious")
    small.becomes("key", "ready")
    with contextlib.suppress(OSError), open(small.mount.store.parent / "filler", "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    made = []
    with fails(errno.ENOSPC, errno.EIO):
        for number in range(20_000):
            os.mkdir(small / f"directory-{number:0200}")
            made.append(f"directory-{number:0200}")
    os.unlink(small.mount.store.parent / "filler")
    assert small.get("key") == b"precious"
    assert sorted(os.listdir(small.root)) == sorted([*made, "key"])
    eventually(lambda: small.put("after", b"x"), what="writing works again")


# ---- the store changes under the daemon ------------------------------------------------------------------------------

def test_a_store_that_is_moved_while_mounted(own):
    """The daemon holds its store by descriptor: it goes on, or every call says EIO; nothing hangs, nothing is torn."""
    own.put("key", b"precious")
    moved = own.mount.base / "moved"
    os.rename(own.mount.store, moved)
    worker = own.worker()
    job = worker.begin("write_path", own / "after", b"x")
    eventually(lambda: job.done)
    assert own.reader(own / "key").result() == b"precious"
    assert not own.mount.store.exists()
    os.rename(moved, own.mount.store)


def test_a_store_that_is_removed_while_mounted(own):
    own.put("key", b"x")
    eventually(lambda: shutil.rmtree(own.mount.store, ignore_errors=True) or not own.mount.store.exists())
    worker = own.worker()
    for job in (worker.begin("write_path", own / "after", b"x"), worker.begin("listdir", str(own.root)),
                worker.begin("read_path", own / "key")):
        eventually(lambda: job.done, what=job.what)
    assert own.mount.process.poll() is None
    assert not own.mount.store.exists()


def test_data_file_lost(own):
    """One lost version is EIO for its readers; the rest goes on."""
    own.put("key", b"lost")
    own.becomes("key", "ready")
    for folder, _, names in os.walk(own.mount.store / "data"):
        for name in names:
            os.unlink(os.path.join(folder, name))
    own.mount.stop()
    own.mount.start()
    assert own.reader(own / "key").error() in ("EIO", "ENOENT", "ENODATA")
    own.put("key", b"new")
    assert own.reader(own / "key").result() == b"new"

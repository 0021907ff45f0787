"""A real namespace: what any program expects of a file system, on both data paths."""
import errno
import os
import stat
import struct
import subprocess
import time

import pytest

from pfs import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, NOBODY, PYTHON, RENAME_EXCHANGE, RENAME_NOREPLACE,
                 attr, eventually, fails, fallocate, getdents, opened, pattern, renameat2, run, set_attr)

pytestmark = pytest.mark.core


# ---- directories -----------------------------------------------------------------------------------------------------

def test_directories(mnt):
    os.mkdir(mnt / "a")
    os.makedirs(mnt / "a/b/c")
    mnt.put("a/b/file", b"x")
    assert sorted(os.listdir(mnt / "a/b")) == ["c", "file"]
    assert os.stat(mnt / "a").st_nlink == 3 and os.stat(mnt / "a/b/c").st_nlink == 2
    with fails(errno.ENOTEMPTY):
        os.rmdir(mnt / "a/b")
    os.unlink(mnt / "a/b/file")
    os.rmdir(mnt / "a/b/c")
    os.rmdir(mnt / "a/b")
    assert os.listdir(mnt / "a") == []


DIRECTORY_ERRORS = [
    (lambda m: os.mkdir(m / "dir"), errno.EEXIST),
    (lambda m: os.mkdir(m / "file"), errno.EEXIST),
    (lambda m: os.mkdir(m / "no/dir"), errno.ENOENT),
    (lambda m: os.mkdir(m / "file/dir"), errno.ENOTDIR),
    (lambda m: os.rmdir(m / "file"), errno.ENOTDIR),
    (lambda m: os.rmdir(m / "no"), errno.ENOENT),
    (lambda m: os.unlink(m / "dir"), errno.EISDIR),
    (lambda m: os.unlink(m / "no"), errno.ENOENT),
    (lambda m: os.open(m / "dir", os.O_WRONLY), errno.EISDIR),
    (lambda m: os.open(m / "no", os.O_RDONLY), errno.ENOENT),
    (lambda m: os.open(m / "file/x", os.O_RDONLY), errno.ENOTDIR),
    (lambda m: os.open(m / "file", os.O_WRONLY | os.O_CREAT | os.O_EXCL), errno.EEXIST),
    (lambda m: os.rename(m / "dir", m / "dir/sub"), errno.EINVAL),
    (lambda m: os.rename(m / "file", m / "dir"), errno.EISDIR),
    (lambda m: os.rename(m / "dir", m / "file"), errno.ENOTDIR),
    (lambda m: os.rename(m / "empty", m / "dir"), errno.ENOTEMPTY),
    (lambda m: os.rename(m / "no", m / "file"), errno.ENOENT),
    (lambda m: os.link(m / "file", m / "dir"), errno.EEXIST),
    (lambda m: os.link(m / "dir", m / "dir2"), errno.EPERM),
    (lambda m: os.symlink("x", m / "file"), errno.EEXIST),
    (lambda m: os.readlink(m / "file"), errno.EINVAL),
    (lambda m: os.truncate(m / "dir", 0), errno.EISDIR),
    (lambda m: os.mkdir(m / ("n" * 256)), errno.ENAMETOOLONG),
    (lambda m: os.open(m / ("n" * 256), os.O_RDONLY), errno.ENAMETOOLONG),
    (lambda m: os.open(m / ("n" * 256), os.O_WRONLY | os.O_CREAT), errno.ENAMETOOLONG),
]


@pytest.mark.parametrize("number", range(len(DIRECTORY_ERRORS)))
def test_errors_are_those_of_any_file_system(mnt, number):
    call, code = DIRECTORY_ERRORS[number]
    mnt.put("file", b"x")
    os.makedirs(mnt / "dir/sub")
    os.mkdir(mnt / "empty")
    with fails(code):
        call(mnt)
    assert mnt.get("file") == b"x" and sorted(os.listdir(mnt.root)) == ["dir", "empty", "file"]


def test_directory_times_change_with_entries(mnt):
    os.mkdir(mnt / "dir")
    for change in (lambda: mnt.put("dir/a", b"x"), lambda: os.rename(mnt / "dir/a", mnt / "dir/b"),
                   lambda: os.unlink(mnt / "dir/b")):
        os.utime(mnt / "dir", ns=(10**9, 10**9))
        change()
        assert os.stat(mnt / "dir").st_mtime_ns > 10**9


# ---- rename ----------------------------------------------------------------------------------------------------------

def test_rename_file(mnt):
    number = os.stat(mnt.put("a", b"x")).st_ino
    os.mkdir(mnt / "dir")
    os.rename(mnt / "a", mnt / "dir/b")
    assert os.listdir(mnt.root) == ["dir"] and mnt.get("dir/b") == b"x"
    assert os.stat(mnt / "dir/b").st_ino == number


def test_rename_over_existing(mnt):
    mnt.put("a", b"a")
    mnt.put("b", b"b")
    os.rename(mnt / "a", mnt / "b")
    assert os.listdir(mnt.root) == ["b"] and mnt.get("b") == b"a"


def test_rename_directory_with_content(mnt):
    os.makedirs(mnt / "a/b")
    mnt.put("a/b/file", b"x")
    os.mkdir(mnt / "empty")
    os.rename(mnt / "a", mnt / "empty")
    assert mnt.get("empty/b/file") == b"x" and os.listdir(mnt.root) == ["empty"]
    os.rename(mnt / "empty/b", mnt / "b")
    assert os.listdir(mnt / "empty") == [] and mnt.get("b/file") == b"x"
    assert os.stat(mnt / "b/..").st_ino == os.stat(mnt.root).st_ino


def test_rename_to_itself_and_to_another_link_of_the_same(mnt):
    mnt.put("a", b"x")
    os.link(mnt / "a", mnt / "b")
    os.rename(mnt / "a", mnt / "a")
    os.rename(mnt / "a", mnt / "b")
    assert sorted(os.listdir(mnt.root)) == ["a", "b"] and mnt.get("a") == b"x"


def test_rename_noreplace(mnt):
    mnt.put("a", b"a")
    mnt.put("b", b"b")
    with fails(errno.EEXIST):
        renameat2(mnt / "a", mnt / "b", RENAME_NOREPLACE)
    renameat2(mnt / "a", mnt / "c", RENAME_NOREPLACE)
    assert mnt.get("b") == b"b" and mnt.get("c") == b"a"


@pytest.mark.parametrize("second", ["file", "directory", "elsewhere"])
def test_rename_exchange(mnt, second):
    mnt.put("a", b"a")
    other = {"file": "b", "directory": "dir", "elsewhere": "dir/b"}[second]
    if second != "file":
        os.mkdir(mnt / "dir")
    if second == "directory":
        mnt.put("dir/inside", b"i")
    else:
        mnt.put(other, b"b")
    renameat2(mnt / "a", mnt / other, RENAME_EXCHANGE)
    assert mnt.get(other) == b"a"
    assert mnt.get("a/inside") == b"i" if second == "directory" else mnt.get("a") == b"b"


def test_rename_exchange_needs_both(mnt):
    mnt.put("a", b"a")
    with fails(errno.ENOENT):
        renameat2(mnt / "a", mnt / "no", RENAME_EXCHANGE)


# ---- links -----------------------------------------------------------------------------------------------------------

def test_hard_links_name_one_object(mnt):
    mnt.put("a", b"one")
    os.mkdir(mnt / "dir")
    os.link(mnt / "a", mnt / "dir/b")
    first, second = os.stat(mnt / "a"), os.stat(mnt / "dir/b")
    assert (first.st_ino, first.st_nlink) == (second.st_ino, 2) and second.st_nlink == 2
    assert attr(mnt / "a", "id") == attr(mnt / "dir/b", "id")
    mnt.put("dir/b", b"two")
    assert mnt.get("a") == b"two"
    os.unlink(mnt / "a")
    assert mnt.get("dir/b") == b"two" and os.stat(mnt / "dir/b").st_nlink == 1


@pytest.mark.parametrize("target", ["file", "no/such", "x" * 4000, "non-utf8-\udcff"])
def test_symlinks(mnt, target):
    os.symlink(target, mnt / "link")
    assert os.readlink(mnt / "link") == target
    found = os.lstat(mnt / "link")
    assert stat.S_ISLNK(found.st_mode) and found.st_size == len(os.fsencode(target))


def test_symlinks_are_followed(mnt):
    os.mkdir(mnt / "dir")
    os.symlink("dir", mnt / "link")
    mnt.put("link/file", b"x")
    assert mnt.get("dir/file") == b"x"
    os.rename(mnt / "link", mnt / "moved")
    os.unlink(mnt / "moved")
    assert os.listdir(mnt / "dir") == ["file"]


# ---- modes and owners ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o4755, 0o2755, 0o1777, 0o000])
def test_chmod(mnt, mode):
    mnt.put("file", b"x")
    os.chmod(mnt / "file", mode)
    assert stat.S_IMODE(os.stat(mnt / "file").st_mode) == mode
    os.mkdir(mnt / "dir")
    os.chmod(mnt / "dir", mode)
    assert stat.S_IMODE(os.stat(mnt / "dir").st_mode) == mode
    os.chmod(mnt / "dir", 0o700)


def test_umask_and_creation_mode(mnt):
    worker = mnt.worker()
    worker.umask(0o027)
    worker.close(worker.open(mnt / "file", os.O_WRONLY | os.O_CREAT, 0o666))
    worker.mkdir(mnt / "dir", 0o777)
    assert stat.S_IMODE(os.stat(mnt / "file").st_mode) == 0o640
    assert stat.S_IMODE(os.stat(mnt / "dir").st_mode) == 0o750


@pytest.mark.needs_root
def test_chown(mnt):
    mnt.put("file", b"x")
    os.chmod(mnt / "file", 0o4755)
    os.chown(mnt / "file", NOBODY, 1234)
    found = os.stat(mnt / "file")
    assert (found.st_uid, found.st_gid) == (NOBODY, 1234)
    assert stat.S_IMODE(found.st_mode) == 0o755
    os.chown(mnt / "file", -1, 5678)
    assert (os.stat(mnt / "file").st_uid, os.stat(mnt / "file").st_gid) == (NOBODY, 5678)


def dangerous(mnt, live):
    """A file that anybody may write, with set-user-ID, set-group-ID and capabilities."""
    if live:
        os.mkdir(mnt / "live")
        os.setxattr(mnt / "live", "user.promisefs.publish", b"write")
    path = mnt.put("live/file" if live else "file", b"old")
    mnt.becomes("live/file" if live else "file", "ready")
    os.setxattr(path, "security.capability", CAPABILITY)
    os.chmod(path, 0o6777)
    return path


def privileges(path):
    return stat.S_IMODE(os.stat(path).st_mode) & 0o6000, "security.capability" in os.listxattr(path)


CAPABILITY = bytes.fromhex("0100000202000000000000000000000000000000")  # cap_dac_override, permitted


def append(worker, path):
    fd = worker.open(path, os.O_WRONLY | os.O_APPEND)
    worker.write(fd, b"new")
    worker.close(fd)


def overwrite(worker, path):
    fd = worker.open(path, os.O_WRONLY | os.O_TRUNC)
    worker.write(fd, b"new")
    worker.close(fd)


@pytest.mark.needs_root
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("change", [append, overwrite, lambda worker, path: worker.truncate(path, 1)],
                         ids=["append", "overwrite", "truncate"])
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_writing_takes_privileges_away(mnt, live, change, uid):
    path = dangerous(mnt, live)
    worker = mnt.worker(uid=uid, gid=uid or None)
    change(worker, path)
    eventually(lambda: privileges(path) == (0 if uid else 0o6000, False), what="privileges are dropped")


@pytest.mark.needs_root
def test_mode_set_after_writing_stays(mnt):
    """As cp -p, tar and install do."""
    path = dangerous(mnt, False)
    os.chown(path, NOBODY, NOBODY)
    worker = mnt.worker(uid=NOBODY, gid=NOBODY)
    for times in (None, (1, 10**18), None, (2, 10**18 + 1)):  # busybox tar sets them last
        fd = worker.open(path, os.O_WRONLY | os.O_TRUNC)
        worker.write(fd, b"new")
        worker.chmod(path, 0o4755)
        if times:
            worker.utime(fd, ns=times)
        worker.close(fd)
        eventually(lambda: mnt.get("file") == b"new")
        assert privileges(path) == (0o4000, False)
    fd = worker.open(path, os.O_WRONLY)
    worker.write(fd, b"new")
    worker.chmod(path, 0o4755)
    before = worker.fstat(fd).st_mtime_ns
    eventually(lambda: worker.write(fd, b"newer") and worker.fstat(fd).st_mtime_ns != before)  # older kernels: a tick
    worker.close(fd)
    eventually(lambda: privileges(path) == (0, False), what="written after chmod")


@pytest.mark.needs_root
def test_new_files_belong_to_who_makes_them(mnt):
    worker = mnt.worker(uid=NOBODY, gid=1234)
    worker.write_path(mnt / "file", b"x")
    worker.mkdir(mnt / "dir")
    worker.symlink("x", mnt / "link")
    worker.write_path(mnt.future("future"), b"")
    for name in ("file", "dir", "link", "future"):
        found = os.lstat(mnt / name)
        assert (name, found.st_uid, found.st_gid) == (name, NOBODY, 1234)


@pytest.mark.needs_root
def test_set_group_id_directory_gives_its_group(mnt):
    os.mkdir(mnt / "dir")
    os.chown(mnt / "dir", NOBODY, 4321)
    os.chmod(mnt / "dir", 0o2777)
    mnt.put("dir/file", b"x")
    os.mkdir(mnt / "dir/sub")
    assert os.stat(mnt / "dir/file").st_gid == 4321 == os.stat(mnt / "dir/sub").st_gid
    assert os.stat(mnt / "dir/sub").st_mode & stat.S_ISGID


PERMISSIONS = [
    ("read", 0o600, lambda w, m: w.read_path(m / "dir/file"), errno.EACCES),
    ("read", 0o644, lambda w, m: w.read_path(m / "dir/file"), 0),
    ("write", 0o644, lambda w, m: w.write_path(m / "dir/file", b"w"), errno.EACCES),
    ("write", 0o666, lambda w, m: w.write_path(m / "dir/file", b"w"), 0),
    ("append", 0o644, lambda w, m: w.write_path(m / "dir/file", b"w", os.O_WRONLY | os.O_APPEND), errno.EACCES),
    ("truncate", 0o644, lambda w, m: w.truncate(m / "dir/file", 0), errno.EACCES),
    ("chmod", 0o666, lambda w, m: w.chmod(m / "dir/file", 0o777), errno.EPERM),
    ("chown", 0o666, lambda w, m: w.chown(m / "dir/file", NOBODY, NOBODY), errno.EPERM),
    ("utime", 0o644, lambda w, m: w.utime(m / "dir/file", (1, 1)), errno.EPERM),
    ("xattr", 0o644, lambda w, m: w.setxattr(m / "dir/file", "user.x", b"1"), errno.EACCES),
    ("xattr", 0o666, lambda w, m: w.setxattr(m / "dir/file", "user.x", b"1"), 0),
    ("fail", 0o644, lambda w, m: w.setxattr(m / "dir/future", "user.promisefs.error", b"x"), errno.EACCES),
    ("create", 0o666, lambda w, m: w.write_path(m / "dir/new", b""), errno.EACCES),
    ("declare", 0o666, lambda w, m: w.write_path(m.future("dir/new"), b""), errno.EACCES),
    ("set", 0o666, lambda w, m: w.write_path(m.future("dir/future"), b"x"), errno.EACCES),
    ("unlink", 0o666, lambda w, m: w.unlink(m / "dir/file"), errno.EACCES),
    ("cancel", 0o666, lambda w, m: w.unlink(m.future("dir/future")), errno.EACCES),
    ("rename", 0o666, lambda w, m: w.rename(m / "dir/file", m / "dir/new"), errno.EACCES),
    ("mkdir", 0o666, lambda w, m: w.mkdir(m / "dir/new"), errno.EACCES),
    ("await", 0o600, lambda w, m: w.read_path(m.awaiting("dir/file")), errno.EACCES),
    ("search", 0o666, lambda w, m: w.read_path(m / "closed/file"), errno.EACCES),
    ("await below", 0o666, lambda w, m: w.read_path(m.awaiting("closed/file")), errno.EACCES),
    ("declare below", 0o666, lambda w, m: w.write_path(m.future("closed/new"), b""), errno.EACCES),
    ("sticky", 0o666, lambda w, m: w.unlink(m / "sticky/file"), errno.EPERM),
]


@pytest.mark.needs_root
@pytest.mark.parametrize("what, mode, call, code", PERMISSIONS, ids=[f"{row[0]}-{row[1]:o}" for row in PERMISSIONS])
def test_permissions_of_another_user(mnt, what, mode, call, code):
    for folder, rights in (("dir", 0o755), ("closed", 0o700), ("sticky", 0o1777)):
        os.mkdir(mnt / folder)
        mnt.put(f"{folder}/file", b"x")
        os.chmod(mnt / f"{folder}/file", mode)
        os.chmod(mnt / folder, rights)
    mnt.declare("dir/future")
    os.chmod(mnt / "dir/future", 0o644)
    worker = mnt.worker(uid=NOBODY)
    if code:
        with fails(code):
            call(worker, mnt)
    else:
        call(worker, mnt)


@pytest.mark.needs_root
def test_torn_bytes_are_as_private_as_the_object(mnt):
    worker = mnt.worker(uid=NOBODY)
    fd = worker.open(mnt / "key", os.O_WRONLY | os.O_CREAT, 0o600)
    worker.write(fd, b"secret")
    worker.kill()
    eventually(lambda: os.path.exists(mnt.aborted("key")))
    assert mnt.worker(uid=NOBODY).read_path(mnt.aborted("key")) == b"secret"
    with fails(errno.EACCES):
        mnt.worker(uid=NOBODY - 1).read_path(mnt.aborted("key"))


@pytest.mark.needs_root
def test_without_allow_other_other_users_stay_outside(scratch, numbers, watchdog, mnt):
    """The option is what lets them in."""
    import pfs
    mount = pfs.Mount(scratch / f"own-{next(numbers)}", "", watchdog=watchdog).start()
    try:
        with fails(errno.EACCES):
            mnt.worker(uid=NOBODY).stat(str(mount.root))
        mount.stop()
    finally:
        mount.close()
        mount.remove()


# ---- times -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["file", "dir", "link"])
@pytest.mark.parametrize("times", [(1_234_567_890_123_456_789, 987_654_321_000_000_001), (0, 1),
                                   (-1_500_000_000, -1), (4_294_967_296_000_000_007, 2**33 * 10**9 + 999_999_999)])
def test_times_in_nanoseconds(mnt, kind, times):
    path = mnt / "it"
    {"file": lambda: mnt.put("it", b"x"), "dir": lambda: os.mkdir(path), "link": lambda: os.symlink("x", path)}[kind]()
    os.utime(path, ns=times, follow_symlinks=False)
    found = os.lstat(path)
    assert (found.st_atime_ns, found.st_mtime_ns) == times
    assert found.st_ctime_ns > 10**18


def test_times_of_what_is_being_written(mnt):
    """They are kept when it is published, also those before 1970."""
    for times in ((10**9, 2 * 10**9 + 1), (-1_500_000_000, -1)):
        with opened(mnt / "it", os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
            os.write(fd, b"x")
            os.utime(fd, ns=times)
        mnt.becomes("it", "ready")
        eventually(lambda: os.stat(mnt / "it").st_mtime_ns == times[1], what=f"{times}")
        assert os.stat(mnt / "it").st_atime_ns == times[0]


def test_times_move_with_changes(mnt):
    mnt.put("file", b"x")
    os.utime(mnt / "file", ns=(10**9, 10**9))
    before = os.stat(mnt / "file")
    os.chmod(mnt / "file", 0o600)
    after = os.stat(mnt / "file")
    assert after.st_ctime_ns > before.st_ctime_ns and after.st_mtime_ns == 10**9
    mnt.put("file", b"new")
    assert abs(mnt_mtime(mnt) - time.time()) < 60


def mnt_mtime(mnt):
    mnt.get("file")
    return os.stat(mnt / "file").st_mtime


def test_times_set_on_the_writing_descriptor_stay(mnt):
    """cp -p sets times before it closes."""
    with opened(mnt / "file", os.O_WRONLY | os.O_CREAT) as fd:
        os.write(fd, b"x")
        os.utime(fd, ns=(3 * 10**9 + 1, 5 * 10**9 + 7))
    mnt.becomes("file", "ready")
    found = os.stat(mnt / "file")
    assert (found.st_atime_ns, found.st_mtime_ns) == (3 * 10**9 + 1, 5 * 10**9 + 7)


@pytest.mark.parametrize("publish", ["close", "write"])
@pytest.mark.parametrize("flags", [os.O_CREAT, os.O_TRUNC, os.O_APPEND, 0], ids=["new", "trunc", "append", "rdwr"])
def test_times_seen_before_closing_stay(mnt, publish, flags):
    """git remembers what fstat(2) says before it closes a file, and takes the file for changed when that changes."""
    os.setxattr(mnt.root, "user.promisefs.publish", publish.encode())
    if flags != os.O_CREAT:
        mnt.put("file", b"there")
        os.chmod(mnt / "file", 0o640)
    with opened(mnt / "file", os.O_RDWR | flags) as fd:
        os.write(fd, b"some bytes")
        before = os.fstat(fd)
    mnt.get("file")
    after = os.stat(mnt / "file")
    names = "st_ino", "st_size", "st_mode", "st_mtime_ns", "st_ctime_ns"
    assert [getattr(after, name) for name in names] == [getattr(before, name) for name in names]


# ---- extended attributes ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["file", "dir"])
def test_extended_attributes(mnt, kind):
    path = mnt / "it"
    mnt.put("it", b"x") if kind == "file" else os.mkdir(path)
    values = {"user.empty": b"", "user.bytes": bytes(range(256)), "user.long": pattern(20_000),
              "user." + "n" * 200: b"x"}
    for name, value in values.items():
        os.setxattr(path, name, value)
    assert sorted(os.listxattr(path)) == sorted(values)
    assert {name: os.getxattr(path, name) for name in values} == values
    os.removexattr(path, "user.long")
    with fails(errno.ENODATA):
        os.getxattr(path, "user.long")
    with fails(errno.ENODATA):
        os.removexattr(path, "user.long")
    with fails(errno.EEXIST):
        os.setxattr(path, "user.bytes", b"", os.XATTR_CREATE)
    with fails(errno.ENODATA):
        os.setxattr(path, "user.new", b"", os.XATTR_REPLACE)
    os.setxattr(path, "user.bytes", b"changed", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.bytes") == b"changed"


MALFORMED = [
    ("deadline", "soon"), ("deadline", ""), ("deadline", "10"), ("deadline", "-5s"), ("deadline", "5 parsecs"),
    ("deadline", "1e3s"), ("deadline", "99999999999999999999d"), ("deadline", "2026-13-01T00:00:00Z"),
    ("deadline", "2026-01-02"), ("deadline", b"5s\0"), ("deadline", b"\xff"), ("state", "ready"), ("state", "nonsense"),
    ("version", "7"), ("id", "7"), ("sha256", "00"), ("producer", "me"), ("nonsense", "1"), ("publish", "write"),
    ("", "x"),
]


@pytest.mark.parametrize("name, value", MALFORMED)
def test_8_malformed_attributes_are_EINVAL(mnt, name, value):
    mnt.declare("key")
    with fails(errno.EINVAL):
        set_attr(mnt / "key", name, value)
    assert attr(mnt / "key", "state") == "pending" and attr(mnt / "key", "deadline") is None


@pytest.mark.parametrize("value", ["sometimes", "", "WRITE"])
def test_8_malformed_publish_is_EINVAL(mnt, value):
    os.mkdir(mnt / "dir")
    with fails(errno.EINVAL):
        set_attr(mnt / "dir", "publish", value)


def test_unknown_attributes_are_ENODATA(mnt):
    mnt.put("key", b"x")
    for name in ("user.promisefs.nonsense", "user.none"):
        with fails(errno.ENODATA):
            os.getxattr(mnt / "key", name)
    assert os.listxattr(mnt / "key") == []


# ---- statfs ----------------------------------------------------------------------------------------------------------

def test_statfs(mnt):
    found = os.statvfs(mnt.root)
    below = os.statvfs(mnt.mount.store)
    assert found.f_namemax == 255 and found.f_bsize > 0
    assert found.f_blocks * found.f_frsize == below.f_blocks * below.f_frsize
    assert 0 < found.f_bavail <= found.f_blocks


# ---- bytes -----------------------------------------------------------------------------------------------------------

def test_append(mnt):
    mnt.put("file", b"one ")
    with opened(mnt / "file", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"two ")
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"three")
    assert mnt.get("file") == b"one two three"


@pytest.mark.parametrize("size, wanted", [(0, b""), (3, b"abc"), (6, b"abcdef"), (9, b"abcdef\0\0\0")])
@pytest.mark.parametrize("how", ["path", "descriptor"])
def test_truncate(mnt, size, wanted, how):
    mnt.put("file", b"abcdef")
    if how == "path":
        os.truncate(mnt / "file", size)
    else:
        with opened(mnt / "file", os.O_RDWR) as fd:
            os.ftruncate(fd, size)
            assert os.fstat(fd).st_size == size
    assert mnt.get("file") == wanted and os.stat(mnt / "file").st_size == size


def test_truncate_to_a_negative_size(mnt):
    mnt.put("file", b"abcdef")
    with fails(errno.EINVAL):
        os.truncate(mnt / "file", -1)
    assert mnt.get("file") == b"abcdef"


@pytest.mark.parametrize("size", [2**40, 2**63 - 1])
def test_truncate_to_an_absurd_size(mnt, size):
    """As large as the backing file system allows; otherwise nothing is changed."""
    mnt.put("file", b"abcdef")
    try:
        os.truncate(mnt / "file", size)
    except OSError as error:
        assert error.errno in (errno.EFBIG, errno.EINVAL, errno.ENOSPC)
        assert mnt.get("file") == b"abcdef"
    else:
        assert os.stat(mnt / "file").st_size == size
        with opened(mnt / "file") as fd:
            assert os.pread(fd, 8, 0) == b"abcdef\0\0" and os.pread(fd, 8, size - 8) == bytes(8)
    mnt.put("file", b"small again")
    assert mnt.get("file") == b"small again"


def test_write_at_an_absurd_offset(mnt):
    mnt.put("file", b"abcdef")
    with opened(mnt / "file", os.O_RDWR) as fd:
        with fails(errno.EINVAL, errno.EFBIG, errno.ENOSPC):
            os.pwrite(fd, b"x", 2**63 - 1)
        assert os.pread(fd, 10, 2**62) == b""
    assert mnt.get("file") == b"abcdef"


def test_sparse_file(mnt):
    with opened(mnt / "file", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"end", 1 << 30)
    assert os.stat(mnt / "file").st_size == (1 << 30) + 3
    with opened(mnt / "file") as fd:
        assert os.pread(fd, 5, (1 << 30) - 2) == b"\0\0end"
    assert os.stat(mnt / "file").st_blocks * 512 < 1 << 20


MIB = 1 << 20


def with_hole(mnt):
    """A file of 3 MiB: data, hole, data."""
    with opened(mnt / "file", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, pattern(MIB), 0)
        os.pwrite(fd, pattern(MIB), 2 * MIB)


def test_seek_hole_and_data(mnt):
    with_hole(mnt)
    with opened(mnt / "file") as fd:
        seeks = [(0, os.SEEK_HOLE, MIB), (0, os.SEEK_DATA, 0), (MIB, os.SEEK_DATA, 2 * MIB),
                 (2 * MIB, os.SEEK_HOLE, 3 * MIB), (0, os.SEEK_END, 3 * MIB)]
        assert [os.lseek(fd, offset, whence) for offset, whence, _ in seeks] == [wanted for _, _, wanted in seeks]
        with fails(errno.ENXIO):
            os.lseek(fd, 3 * MIB, os.SEEK_DATA)


FALLOCATIONS = [
    ("extend", 0, 0, 2 * MIB, lambda data: data + bytes(MIB)),
    ("keep size", FALLOC_KEEP_SIZE, 0, 2 * MIB, lambda data: data),
    ("punch hole", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 4096, 8192,
     lambda data: data[:4096] + bytes(8192) + data[12288:]),
]


@pytest.mark.parametrize("name, mode, offset, length, wanted", FALLOCATIONS, ids=[row[0] for row in FALLOCATIONS])
def test_fallocate(mnt, name, mode, offset, length, wanted):
    data = pattern(MIB)
    mnt.put("file", data)
    with opened(mnt / "file", os.O_RDWR) as fd:
        fallocate(fd, mode, offset, length)
        assert mnt.reader(mnt / "file").result() == data
    assert mnt.reader(mnt / "file").result() == wanted(data)


def test_fallocate_zero_range_where_the_backing_file_system_can(mnt):
    mnt.put("file", pattern(MIB))
    with opened(mnt / "file", os.O_RDWR) as fd:
        try:
            fallocate(fd, FALLOC_ZERO_RANGE, 0, 4096)
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP
            return
    assert mnt.get("file")[:4097] == bytes(4096) + pattern(MIB)[4096:4097]


@pytest.mark.parametrize("source, target", [("in", "in"), ("in", "out"), ("out", "in")])
def test_copy_file_range(mnt, tmp_path, source, target):
    """Within the mount and, as the kernel then copies by itself or says EXDEV, across its border."""
    data = pattern(3 * MIB)
    paths = {"in": mnt / "source", "out": str(tmp_path / "source")}
    with open(paths[source], "wb") as file:
        file.write(data)
    goal = {"in": mnt / "target", "out": str(tmp_path / "target")}[target]
    with opened(paths[source]) as src, opened(goal, os.O_WRONLY | os.O_CREAT) as dst:
        at = 0
        while at < len(data):
            try:
                count = os.copy_file_range(src, dst, len(data) - at, at, at)
            except OSError as error:
                assert error.errno in (errno.EXDEV, errno.EOPNOTSUPP) and source != target
                return
            assert count > 0
            at += count
    with open(goal, "rb") as file:
        assert file.read() == data


def test_copy_file_range_at_offsets(mnt):
    mnt.put("source", pattern(100_000))
    mnt.put("target", bytes(50_000))
    with opened(mnt / "source") as src, opened(mnt / "target", os.O_WRONLY) as dst:
        assert os.copy_file_range(src, dst, 10_000, 5_000, 20_000) == 10_000
    assert mnt.get("target") == bytes(20_000) + pattern(100_000)[5_000:15_000] + bytes(20_000)


def test_unlink_of_open_files(mnt):
    mnt.put("file", b"still here")
    with opened(mnt / "file") as reader, opened(mnt / "file", os.O_RDWR) as writer:
        os.unlink(mnt / "file")
        assert os.pread(reader, 100, 0) == b"still here"
        os.pwrite(writer, b"STILL", 0)
        assert os.pread(writer, 100, 0) == b"STILL here"
        assert os.fstat(reader).st_nlink == 0
    assert os.listdir(mnt.root) == []


def test_write_only_descriptor_cannot_read(mnt):
    with opened(mnt / "file", os.O_WRONLY | os.O_CREAT) as fd:
        with fails(errno.EBADF):
            os.read(fd, 1)


def test_locks(mnt):
    """flock(2) works between processes."""
    import fcntl
    mnt.put("file", b"x")
    with opened(mnt / "file") as fd:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        script = "flock -n \"$1\" true"
        assert run("sh", "-c", script, "sh", mnt / "file", timeout=10).returncode == 1
    assert run("sh", "-c", "flock -n \"$1\" true", "sh", mnt / "file", timeout=10).returncode == 0


# ---- reading directories ---------------------------------------------------------------------------------------------

def test_readdir_of_many_entries(mnt):
    names = {f"entry-{number:05}" for number in range(2000)}
    for name in names:
        os.mkdir(mnt / name)
    assert set(os.listdir(mnt.root)) == names and len(os.listdir(mnt.root)) == len(names)
    assert all(entry.is_dir(follow_symlinks=False) for entry in os.scandir(mnt.root))


def test_readdir_types(mnt):
    mnt.put("file", b"x")
    mnt.declare("future")
    os.mkdir(mnt / "dir")
    os.symlink("x", mnt / "link")
    kinds = {entry.name: (entry.is_file(follow_symlinks=False), entry.is_dir(follow_symlinks=False), entry.is_symlink())
             for entry in os.scandir(mnt.root)}
    assert kinds == {"file": (True, False, False), "future": (True, False, False), "dir": (False, True, False),
                     "link": (False, False, True)}


def read_rest(fd):
    """Names up to the end of the directory."""
    names = []
    while entries := getdents(fd):
        names += [name for name, _ in entries]
    return [name.decode() for name in names if name not in (b".", b"..")]


@pytest.mark.parametrize("position", ["stays", "seeks"])
def test_readdir_survives_concurrent_change(mnt, position):
    """Entries that were there all the time are seen exactly once, whatever comes and goes meanwhile."""
    stable = [f"stable-{number:04}" for number in range(300)]
    doomed = [f"doomed-{number:04}" for number in range(300)]
    for one, other in zip(stable, doomed):
        mnt.put(one)
        mnt.put(other)
    with opened(mnt.root, os.O_RDONLY | os.O_DIRECTORY) as fd:
        first = getdents(fd, 8192)
        seen = [name.decode() for name, _ in first if name not in (b".", b"..")]
        cookie = first[-1][1]
        for name in doomed:
            os.unlink(mnt / name)
        for number in range(300):
            mnt.put(f"late-{number:04}")
        os.rename(mnt / stable[150], mnt / "renamed")
        if position == "seeks":
            os.lseek(fd, 0, os.SEEK_SET)
            getdents(fd, 2048)
            os.lseek(fd, cookie, os.SEEK_SET)
        seen += read_rest(fd)
    kept = [name for name in stable if name != stable[150]]
    assert sorted(name for name in seen if name.startswith("stable") and name != stable[150]) == kept
    assert len(seen) == len(set(seen))


def test_every_cookie_leads_back(mnt):
    for number in range(100):
        mnt.put(f"f{number}")
    with opened(mnt.root, os.O_RDONLY | os.O_DIRECTORY) as fd:
        entries = []
        while part := getdents(fd, 65536):
            entries += part
        names = [name for name, _ in entries]
        for at in (0, 1, 17, 60, len(entries) - 2):
            os.lseek(fd, entries[at][1], os.SEEK_SET)
            assert getdents(fd, 4096)[0][0] == names[at + 1]
        os.lseek(fd, entries[-1][1], os.SEEK_SET)
        assert getdents(fd, 4096) == []


def test_a_removed_directory_that_is_open(mnt):
    os.mkdir(mnt / "dir")
    with opened(mnt / "dir", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(mnt / "dir")
        with fails(errno.ENOENT):
            getdents(fd)
        assert os.fstat(fd).st_nlink in (0, 1)


# ---- names -----------------------------------------------------------------------------------------------------------

NAMES = ["n" * 255, "é" * 127, "\udcff\udcfe", "with space", "-rf", "new\nline", "quote'\"", "back\\slash", "*?[",
         "\x01",
         "💾" * 63, ".hidden", "...", "%00", "a'; drop table dentry; --", ".promisefs2"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:12]))
def test_names_are_bytes(mnt, name):
    mnt.declare(name)
    reader = mnt.waiting_reader(mnt / name)
    mnt.put(name, b"x")
    assert reader.result() == b"x"
    assert os.listdir(mnt.root) == [name]
    os.rename(mnt / name, mnt / "other")
    os.mkdir(mnt / name)
    mnt.put(os.path.join(name, name), b"deeper")
    assert mnt.get(os.path.join(name, name)) == b"deeper" and sorted(os.listdir(mnt.root)) == sorted([name, "other"])


def test_deep_paths(mnt):
    parts = ["directory-%03d" % number for number in range(200)]
    os.makedirs(mnt / "/".join(parts))
    key = "/".join([*parts, "key"])
    mnt.declare(key)
    reader = mnt.waiting_reader(mnt / key)
    assert mnt.wait_of(reader)["key"] == mnt.key(key)
    mnt.put(key, b"deep")
    assert reader.result() == b"deep"
    os.rename(mnt / parts[0], mnt / "moved")
    assert mnt.get("/".join(["moved", *parts[1:], "key"])) == b"deep"


def test_paths_deeper_than_PATH_MAX(mnt):
    """Made with relative steps; a key of more than 4096 bytes is still an object like any other."""
    worker = mnt.worker()
    worker.chdir(str(mnt.root))
    for number in range(30):
        worker.mkdir("d" * 250)
        worker.chdir("d" * 250)
    worker.write_path("key", b"very deep")
    assert worker.read_path("key") == b"very deep"
    assert worker.listdir(".") == ["key"]
    worker.unlink("key")
    for number in range(30):
        worker.chdir("..")
        worker.rmdir("d" * 250)


# ---- ordinary programs -----------------------------------------------------------------------------------------------

def test_a_tree_copied_with_tar_and_cp_is_the_same(mnt, tmp_path):
    source = tmp_path / "source"
    (source / "sub/deep").mkdir(parents=True)
    for number in range(20):
        (source / f"sub/file{number}").write_bytes(pattern(number * 1000, number))
    (source / "sub/deep/script").write_text("#!/bin/sh\n")
    (source / "sub/deep/script").chmod(0o755)
    os.symlink("../file1", source / "sub/deep/link")
    assert run("sh", "-c", 'tar -C "$1" -cf - . | tar -C "$2" -xpf -', "sh", source, mnt.root).returncode == 0
    assert run("diff", "-r", "--no-dereference", source, mnt.root).stdout == ""
    copy = tmp_path / "copy"
    assert run("cp", "-a", mnt.root, copy).returncode == 0
    assert run("diff", "-r", "--no-dereference", source, copy).stdout == ""
    assert os.stat(copy / "sub/deep/script").st_mode == os.stat(source / "sub/deep/script").st_mode


def test_sqlite_works_on_the_mount(mnt):
    """A program that overwrites in place, syncs and locks."""
    import sqlite3
    set_attr(mnt.root, "publish", "write")
    base = sqlite3.connect(mnt / "data.db")
    base.execute("create table t (x)")
    base.executemany("insert into t values (?)", [(number,) for number in range(1000)])
    base.commit()
    assert base.execute("select sum(x) from t").fetchone() == (499500,)
    base.close()


# ---- access control lists; more of them is in test_acl.py --------------------------------------------------------------

def access_list(*entries):
    """The value of system.posix_acl_access: (tag, rights, id) each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, rights, number) for tag, rights, number in entries)


def test_lists_on_a_mount_of_whoever_runs_this(new_mount):
    """setfacl -m u:12345:rwx, as a default, and what is made below it."""
    mnt = new_mount("acl")
    nobody = 0xFFFFFFFF
    default = access_list((1, 7, nobody), (2, 7, 12345), (4, 5, nobody), (16, 7, nobody), (32, 0, nobody))
    inherited = access_list((1, 6, nobody), (2, 7, 12345), (4, 5, nobody), (16, 6, nobody), (32, 0, nobody))
    os.mkdir(mnt / "dir")
    os.setxattr(mnt / "dir", "system.posix_acl_default", default)
    mnt.put("dir/key", b"x")
    assert os.getxattr(mnt / "dir/key", "system.posix_acl_access") == inherited
    assert stat.S_IMODE(os.stat(mnt / "dir/key").st_mode) == 0o660
    os.chmod(mnt / "dir/key", 0o600)
    assert os.getxattr(mnt / "dir/key", "system.posix_acl_access")[-14] == 0  # the rights of the mask
    mnt.put("dir/key", b"y")
    assert mnt.get("dir/key") == b"y" and "system.posix_acl_access" in os.listxattr(mnt / "dir/key")
    os.removexattr(mnt / "dir/key", "system.posix_acl_access")
    assert os.listxattr(mnt / "dir/key") == []


# ---- locks of the kernel's ---------------------------------------------------------------------------------------------

CANCELS = """
import os, sys
for n in range(12):
    path = f"{sys.argv[1]}/.promisefs/future/y{os.getpid()}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    os.unlink(path)
"""
MOVES = """
import contextlib, os, sys
views = f"{sys.argv[1]}/.promisefs"
for n in range(12):
    os.close(os.open(f"{sys.argv[1]}/x", os.O_WRONLY | os.O_CREAT))
    with contextlib.suppress(OSError):
        os.mkdir(f"{views}/lifetimes/q")
    for to in ("future/x", "lifetimes/q/x", "lifetimes/new"):
        with contextlib.suppress(OSError):
            os.rename(f"{sys.argv[1]}/x", f"{views}/{to}")
    with contextlib.suppress(OSError):
        os.rmdir(f"{views}/lifetimes/q")
"""


def test_mv_into_views_hangs_nobody(own):
    """rename(2) locks both directories before it asks, and names are told to the kernel under the lock of one of them."""
    processes = [subprocess.Popen([*PYTHON, "-c", what, own.mount.root], stdin=subprocess.DEVNULL)
                 for what in (CANCELS, MOVES) * 2]
    try:
        assert [process.wait(40) for process in processes] == [0] * 4
    finally:
        for process in processes:
            process.kill()

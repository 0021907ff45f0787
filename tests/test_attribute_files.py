"""Attributes as files, for languages without extended attributes (.promisefs/attributes, promisefs(5))."""
import errno
import os
import stat

import pytest

from pfs import attr, fails, set_attr

NAMES = ["borrows", "deadline", "error", "evict", "id", "lease", "lifetime", "lifetimes", "owner", "pid", "producer",
         "publish", "sha256", "state", "version"]


def path_of(mnt, name, key):
    return mnt.mount.control / "attributes" / name / mnt.key(key)


def read(mnt, name, key):
    return path_of(mnt, name, key).read_text()


def write(mnt, name, key, value):
    """One write(2), as any language does it."""
    fd = os.open(path_of(mnt, name, key), os.O_WRONLY | os.O_TRUNC)
    try:
        assert os.write(fd, value) == len(value)
    finally:
        os.close(fd)


def test_listing(mnt):
    os.mkdir(mnt / "dir")
    mnt.put("dir/file", b"x")
    assert sorted(os.listdir(mnt.mount.control / "attributes")) == NAMES
    assert os.listdir(path_of(mnt, "lease", "dir")) == ["file"]
    found = os.stat(path_of(mnt, "lease", "dir/file"))
    assert stat.S_ISREG(found.st_mode) and found.st_size == 0
    assert stat.S_IMODE(found.st_mode) == stat.S_IMODE(os.stat(mnt / "dir/file").st_mode)


@pytest.mark.parametrize("name", NAMES)
def test_reads_as_the_attribute(mnt, name):
    os.mkdir(mnt / "dir")
    mnt.put("dir/file", b"content")
    mnt.declare("dir/future")
    set_attr(mnt / "dir/file", "lease", "1h")
    set_attr(mnt / "dir/file", "evict", "1")
    set_attr(mnt / "dir/future", "deadline", "1h")
    set_attr(mnt / "dir/future", "pid", str(os.getpid()))
    set_attr(mnt / "dir", "publish", "write")
    for key in ("dir/file", "dir/future", "dir"):
        value = attr(mnt / key, name)
        shown = read(mnt, name, key if key != "dir" else "dir/.dir")
        if name == "lease" and value is not None:  # what is left is told anew each time
            assert shown[:19] == value[:19]
        else:
            assert shown == ("" if value is None else value + "\n")


@pytest.mark.parametrize("name, value", [("lease", b"1h\n"), ("lease", b"1h"), ("pid", b"self"), ("evict", b"1\n"),
                                         ("deadline", b"60s\n")])
def test_write_sets_it_and_an_empty_line_removes_it(mnt, name, value):
    mnt.declare("key")
    write(mnt, name, "key", value)
    set_to = attr(mnt / "key", name)
    assert set_to == {"pid": str(os.getpid()), "evict": "1"}.get(name, set_to)
    write(mnt, name, "key", b"\n")
    assert attr(mnt / "key", name) is None
    with fails(errno.ENODATA):
        write(mnt, name, "key", b"\n")


def test_of_a_directory(mnt):
    os.mkdir(mnt / "dir")
    os.mkdir(mnt.mount.control / "lifetimes" / mnt.key("L").replace("/", "-"))
    write(mnt, "publish", "dir/.dir", b"write")
    write(mnt, "lifetime", "dir/.dir", mnt.key("L").replace("/", "-").encode())
    assert attr(mnt / "dir", "publish") == "write" and attr(mnt / "dir", "lifetime") == mnt.key("L").replace("/", "-")
    mnt.put("dir/file", b"x")
    assert read(mnt, "lifetimes", "dir/file") == mnt.key("L").replace("/", "-") + "\n"
    os.rmdir(mnt.mount.control / "lifetimes" / mnt.key("L").replace("/", "-"))


def test_fails_a_future(mnt):
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    write(mnt, "error", "key", b"ENOSPC: the disk is full\n")
    with fails(errno.ENOSPC):
        reader.result()
    assert read(mnt, "error", "key") == "ENOSPC: the disk is full\n"


@pytest.mark.parametrize("name, value, error", [
    ("lease", b"tomorrow", errno.EINVAL), ("lease", b"-5s", errno.EINVAL), ("lease", b"1e99s", errno.EINVAL),
    ("pid", b"4194304", errno.ESRCH), ("pid", b"x", errno.EINVAL), ("evict", b"2", errno.EINVAL),
    ("error", b"reason", errno.EEXIST), ("state", b"ready", errno.EINVAL), ("version", b"7", errno.EINVAL),
    ("sha256", b"0" * 64, errno.EINVAL), ("lease", b"1" * 2000, errno.EINVAL)])
def test_bad_values_change_nothing(mnt, name, value, error):
    mnt.put("key", b"content")
    mnt.becomes("key", "ready")
    before = [attr(mnt / "key", known) for known in NAMES]
    with fails(error):
        write(mnt, name, "key", value)
    assert [attr(mnt / "key", known) for known in NAMES] == before


def test_nothing_else_can_be_done_there(mnt):
    path = path_of(mnt, "lease", "key")
    mnt.put("key", b"x")
    for call, error in ((lambda: os.unlink(path), errno.EPERM), (lambda: os.mkdir(f"{path}2"), errno.EPERM),
                        (lambda: os.rename(path, f"{path}2"), errno.EPERM), (lambda: os.chmod(path, 0o600), errno.EPERM),
                        (lambda: os.link(path, mnt / "other"), errno.EPERM),
                        (lambda: open(f"{path}2", "w"), errno.EPERM), (lambda: os.stat(f"{path}2"), errno.ENOENT),
                        (lambda: os.setxattr(path, "user.x", b"1"), errno.EPERM),
                        (lambda: os.stat(mnt.mount.control / "attributes/nothing"), errno.ENOENT)):
        with fails(error):
            call()
    assert mnt.get("key") == b"x"


def test_stat_and_read_of_a_future_do_not_wait(mnt):
    mnt.declare("key")
    assert read(mnt, "state", "key") == "pending\n" and read(mnt, "sha256", "key") == ""

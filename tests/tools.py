"""Helpers of the tests of ordinary programs: a tree with everything that a tree can have, how it looks, and the same
thing done in the mount and on the native file system."""
import contextlib
import errno
import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from conftest import why_no_passthrough
from pfs import IS_ROOT, NOBODY, pattern

# For tests to which the data path does not matter.
ONE_PATH = pytest.mark.parametrize("data_path", ["fallback" if why_no_passthrough() else "passthrough"], indirect=True,
                                   scope="session")

LONG_AGO = 1_000_000_000_123_456_789  # 2001, in nanoseconds
OLD = 1_500_000_000 * 10**9           # times before this were set by somebody, those after it are the clock's
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/games", "LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "dumb",
               "HOME": "/nonexistent", "USER": "user", "PYTHONDONTWRITEBYTECODE": "",
               "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
               "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_AUTHOR_DATE": "2001-01-01T00:00:00Z",
               "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
               "GIT_COMMITTER_DATE": "2001-01-01T00:00:00Z"}


# ---- what a directory's file system can do ---------------------------------------------------------------------------

def can_xattrs(folder):
    """True if files there can have user.* attributes (tmpfs: from Linux 6.6 on)."""
    probe = os.path.join(folder, ".probe")
    Path(probe).touch()
    try:
        os.setxattr(probe, "user.probe", b"1")
        return True
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP, error
        return False
    finally:
        os.unlink(probe)


def can_acls(folder):
    """True if directories there can have ACLs."""
    probe = os.path.join(folder, ".probe")
    os.mkdir(probe)
    done = subprocess.run(["setfacl", "-m", "u:1:r-x", probe], capture_output=True, text=True)
    os.rmdir(probe)
    assert done.returncode == 0 or "not supported" in done.stderr, done.stderr
    return done.returncode == 0


def can_direct(folder):
    """True if files there can be opened with O_DIRECT (tmpfs: from Linux 6.6 on)."""
    probe = os.path.join(folder, ".probe")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
        return True
    except OSError as error:
        assert error.errno == errno.EINVAL, error
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(probe)


# ---- trees -----------------------------------------------------------------------------------------------------------

def write(path, data, mode=0o644):
    Path(path).write_bytes(data)
    os.chmod(path, mode)


def make_tree(root, xattrs=True, special=True, odd_names=True):
    """Files and directories of all kinds. special: FIFOs and sockets, too, which archivers for others' systems lack."""
    root = Path(root)
    for name in ("a/b/c", "empty", "many", "private"):
        (root / name).mkdir(parents=True)
    write(root / "a/text", b"some text\nwith lines\n")
    write(root / "a/empty", b"")
    write(root / "a/b/binary", pattern(300_001), 0o600)
    write(root / "a/b/program", b"#!/bin/sh\necho it runs\n", 0o755)
    write(root / "a/b/c/readonly", b"look, do not touch", 0o444)
    for number in range(60):
        write(root / f"many/{number:03}", b"%d\n" % number * number)
    with open(root / "sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    if odd_names:
        for name in ("with space", "new\nline", "-rf", "quote'\"\\", "é💾", "\udcff\udcfe", "*?[", "n" * 255):
            write(root / "a" / name, os.fsencode(name))
    os.link(root / "a/text", root / "a/b/c/same text")
    os.link(root / "a/text", root / "many/linked")
    os.link(root / "sparse", root / "empty/.sparse")
    for target, name in (("a/text", "link"), ("../a/b", "many/to directory"), ("nowhere", "a/dangling"), ("/", "root")):
        os.symlink(target, root / name)
    if special:
        os.mkfifo(root / "a/fifo", 0o640)
        with socket.socket(socket.AF_UNIX) as sock:
            here = os.open(root / "a", os.O_RDONLY | os.O_DIRECTORY)
            sock.bind(f"/proc/self/fd/{here}/socket")
            os.close(here)
    if xattrs:
        os.setxattr(root / "a/text", "user.colour", b"red")
        os.setxattr(root / "a/text", "user.binary", b"\0\1\2" * 100)
        os.setxattr(root / "private", "user.of directory", b"1")
        os.setxattr(root / "a/b/binary", "user.empty", b"")
    if IS_ROOT:
        os.chown(root / "a/b/binary", NOBODY, NOBODY)
        os.lchown(root / "link", 1, 1)
    os.chmod(root / "private", 0o700)
    os.chmod(root / "a/b", 0o2775)
    os.chmod(root / "many", 0o1777)
    paths = sorted(root.rglob("*"), reverse=True)
    for number, path in enumerate(paths):
        os.utime(path, ns=(LONG_AGO + number, LONG_AGO + number * 1_000_000_007), follow_symlinks=False)
    os.utime(root, ns=(LONG_AGO, LONG_AGO))
    return root


KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
         stat.S_IFSOCK: "socket", stat.S_IFCHR: "character device", stat.S_IFBLK: "block device"}


def attributes(path):
    names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("security.selinux")]
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}


def look_at(path, relative, inodes):
    found = os.lstat(path)
    kind = KINDS[stat.S_IFMT(found.st_mode)]
    look = {"kind": kind, "mode": oct(stat.S_IMODE(found.st_mode)), "owner": (found.st_uid, found.st_gid),
            "mtime": found.st_mtime_ns if found.st_mtime_ns < OLD else "the clock's"}
    if attributes(path):
        look["xattrs"] = attributes(path)
    if kind == "link":
        look["target"] = os.readlink(path)
    if kind == "file":
        data = Path(path).read_bytes()
        assert len(data) == found.st_size, f"{path} has {found.st_size} bytes, {len(data)} can be read"
        look["content"] = data if len(data) < 200 else f"{len(data)} bytes, {hashlib.md5(data).hexdigest()}"
    if kind != "directory":
        look["links"] = found.st_nlink
        look["same as"] = inodes.setdefault((found.st_dev, found.st_ino), relative)
    return look


def look(root, *leave_out):
    """How a tree looks: {relative path: what it is}."""
    looks, inodes = {}, {}
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            looks[relative] = look_at(path, relative, inodes)
            for what in leave_out:
                looks[relative].pop(what, None)
    return looks


def assert_alike(found, wanted, what):
    differences = [f"{path}: {found.get(path)}, should be {wanted.get(path)}"
                   for path in sorted({*found, *wanted}) if found.get(path) != wanted.get(path)]
    if differences:
        pytest.fail("\n".join([what, *differences[:20]]))


# ---- programs --------------------------------------------------------------------------------------------------------

def bash(script, folder, timeout=30, **variables):
    """Run a script, every command of which must succeed, in a folder: what it says, the folder's name taken out."""
    process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], cwd=folder, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="surrogateescape",
                               start_new_session=True, env={**ENVIRONMENT, **variables})
    try:
        said, status = process.communicate(timeout=timeout)[0], process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
        said, status = process.communicate()[0], f"not done after {timeout} s"
    output = said.replace(os.fspath(folder), "HERE")
    if status:
        pytest.fail(f"in {folder}: status {status}\n{script}\n--\n{output}")
    return output


def same(folder, native, script, *leave_out, **kwargs):
    """Do something in two folders; what is said and what the folders look like then must be the same."""
    said, looks = [], []
    for place in (native, folder):
        said.append(bash(script, place, **kwargs))
        looks.append(look(place, *leave_out))
    assert said[1] == said[0], f"{script}\n-- says natively:\n{said[0]}\n-- and in the mount:\n{said[1]}"
    assert_alike(looks[1], looks[0], script)
    return said[1]


@contextlib.contextmanager
def begun(command, folder, **kwargs):
    """A program that runs until the block is left, and then is ended."""
    process = subprocess.Popen([os.fspath(part) for part in command], cwd=folder, stdin=subprocess.DEVNULL,
                               start_new_session=True, env=ENVIRONMENT, **kwargs)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def empty(folder):
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

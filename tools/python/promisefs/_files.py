"""Files of a mount: where the mount is, opening with and without waiting, writing whole, attributes.

Waiting is open(2), or poll(2) on a descriptor that was opened with O_NONBLOCK; nothing here asks again and again.
"""
from __future__ import annotations

import contextlib
import errno
import os
import select
import subprocess
from typing import Any, Iterable, Optional

from .errors import BrokenPromise, Cancelled

ATTRIBUTE = "user.promisefs."
CONTROL = ".promisefs"
EXCEPTION = "user.python.exception"
NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
LONGEST = 2**31 - 1
BLOCK = 1 << 16
WRITE_BLOCK = 1 << 30


def find_mount(directory: str) -> tuple[str, str]:
    """The mount point that a directory is in, and the path from there to the directory ("" for itself)."""
    top = directory
    while not os.path.ismount(top):
        top = os.path.dirname(top)
    if not os.path.exists(os.path.join(top, CONTROL, "README")):
        raise OSError(errno.ENODEV, "not in a mount of promisefs", directory)
    return top, os.path.relpath(directory, top) if directory != top else ""


def attribute(path: str, name: str) -> Optional[str]:
    """user.promisefs.NAME of a file, None if it has none. Never waits."""
    try:
        return os.fsdecode(os.getxattr(path, ATTRIBUTE + name))
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise


def set_attribute(file: Any, name: str, value: str) -> None:
    """Set user.promisefs.NAME of a path or a descriptor."""
    os.setxattr(file, ATTRIBUTE + name, os.fsencode(value))


def readable(fd: int, timeout: Optional[float]) -> bool:
    """Wait until what is behind a descriptor has settled; False if it has not within so many seconds."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(None if timeout is None else min(max(0, int(timeout * 1000 + 0.999)), LONGEST)))


def open_nonblocking(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def open_settled(path: str, timeout: Optional[float] = None) -> int:
    """Open for reading, when it has settled. TimeoutError if that takes longer than so many seconds."""
    if timeout is None:
        return os.open(path, os.O_RDONLY)
    fd = open_nonblocking(path)
    try:
        if not readable(fd, timeout):
            raise TimeoutError(errno.ETIMEDOUT, f"not set within {timeout:g} s", path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_all(fd: int) -> bytes:
    """All that a file has. A read that is shorter than asked for is the last."""
    data = os.read(fd, BLOCK)
    if len(data) < BLOCK:
        return data
    parts = [data]
    left = os.fstat(fd).st_size - os.lseek(fd, 0, os.SEEK_CUR)
    while True:
        wanted = min(max(left, 1), WRITE_BLOCK)
        data = os.read(fd, wanted)
        if not data:
            return b"".join(parts)
        parts.append(data)
        left -= len(data)


def abandon(fd: int) -> None:
    """Close a file as if its process had been killed: what was written is not published.

    Every ordinary close counts, so a child gets the descriptor, and is killed with it.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[fd])
        stack.pop_all()
        os.close(fd)
        child.kill()
        child.communicate()


def write_whole(path: str, buffers: Iterable[Any], flags: int = NEW, pid: str = "", mode: int = 0o666) -> None:
    """Write a file; when close(2) has returned it is recorded. If anything goes wrong nothing is published.

    pid binds the object to a process before it can be seen.
    """
    fd = os.open(path, flags, mode)
    try:
        if pid:
            set_attribute(fd, "pid", pid)
        for buffer in buffers:
            view = memoryview(buffer)
            if view.format != "B" or view.ndim != 1:
                view = view.cast("B")
            while view:
                view = view[os.write(fd, view[:WRITE_BLOCK]):]
    except BaseException:
        abandon(fd)
        raise
    os.close(fd)


def explain(error: OSError, path: str) -> OSError:
    """Make a BrokenPromise of an error if it is the one with which the future at this path has failed."""
    if isinstance(error, BrokenPromise) or error.errno == errno.EAGAIN:
        return error
    text = None
    with contextlib.suppress(OSError):
        text = attribute(path, "error")
    if text is not None:
        name, _, reason = text.partition(": ")
        return BrokenPromise(getattr(errno, name, errno.EIO), reason or name, path)
    if error.errno == errno.ECANCELED:
        return Cancelled(errno.ECANCELED, "cancelled", path)
    if error.errno == errno.EOWNERDEAD:
        return BrokenPromise(errno.EOWNERDEAD, "the process that it was bound to has ended", path)
    return error

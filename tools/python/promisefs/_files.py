"""Files of a mount: where the mount is, opening with and without waiting, writing whole, attributes.

Waiting is open(2), or poll(2) on a descriptor that was opened with O_NONBLOCK; nothing here asks again and again.
"""
from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import Any, Iterable, Optional

from . import _drafts
from .errors import BrokenPromise, Cancelled

ATTRIBUTE = "user.promisefs."
CONTROL = ".promisefs"
EXCEPTION = "user.python.exception"
NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
WRITE_BLOCK = 1 << 30


class Mount:
    """The mount that a directory is in, which is named without symbolic links, and may be missing.

    As a context manager it says what FileNotFoundError means when nothing is mounted there any more: OSError (ENODEV).
    """

    def __init__(self, directory: str) -> None:
        top = directory
        while not os.path.ismount(top):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(top)  # raises what a mount says whose daemon was killed
            top = os.path.dirname(top)
        try:
            os.stat(os.path.join(top, CONTROL, "README"))
        except (FileNotFoundError, NotADirectoryError):
            raise OSError(errno.ENODEV, "not in a mount of promisefs", directory) from None
        self.path = top
        self.below = os.path.relpath(directory, top) if directory != top else ""
        self._above = os.stat(os.path.dirname(top)).st_dev if top != os.sep else None

    def check(self) -> None:
        """OSError (ENODEV) if it is not mounted. What is written then would be found by nobody."""
        try:
            device = os.lstat(self.path).st_dev
        except FileNotFoundError:
            device = -1
        if device in (-1, self._above):
            raise OSError(errno.ENODEV, "no promisefs is mounted here any more", self.path)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, FileNotFoundError):
            self.check()


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


def late(timeout: Optional[float], key: str) -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, f"not set within {timeout or 0:g} s", key)


def open_settled(path: str, key: str, timeout: Optional[float] = None) -> int:
    """Open for reading, when it has settled. TimeoutError if that takes longer than so many seconds."""
    end = None if timeout is None else time.monotonic() + timeout
    fd = _drafts.open_for_reading(path, key, os.O_RDONLY | (0 if end is None else os.O_NONBLOCK))
    if fd is not None and end is None:
        return fd
    if fd is None:
        fd = _drafts.open_between(path, key, None if end is None else max(0, end - time.monotonic()))
    if fd is None:
        raise late(timeout, key)
    try:
        if not _drafts.readable(fd, None if end is None else end - time.monotonic()):
            raise late(timeout, key)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_all(fd: int, head: bytes = b"") -> bytes:
    """All that a file has, of which head was read before. A first read that is shorter than asked for is the last."""
    data = head or os.read(fd, _drafts.BLOCK)
    if len(data) < _drafts.BLOCK:
        return data
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", buffering=0, closefd=False) as file:
        return file.readall()


def write_whole(mount: Mount, path: str, key: str, buffers: Iterable[Any], flags: int = NEW, pid: str = "") -> None:
    """Write a file, which is that of a key or a view of it; when close(2) has returned it is recorded. If anything goes
    wrong nothing is published. pid binds the object to a process before it can be seen.
    """
    with _drafts.the_writer(key, path):
        mount.check()
        fd = os.open(path, flags, 0o666)
        try:
            _drafts.has_opened(key, fd)
            if pid:
                set_attribute(fd, "pid", pid)
            for buffer in buffers:
                view = memoryview(buffer)
                if view.format != "B" or view.ndim != 1:
                    view = view.cast("B")
                while view:
                    view = view[os.write(fd, view[:WRITE_BLOCK]):]
        except BaseException:
            _drafts.abandon(fd)
            raise
        _drafts.is_closing(key)
        with _drafts.the_last_close():
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

"""Drafts, and who has them open: the threads of this process, and the children of fork(2).

What a process is writing it also reads, and whose close is the last decides whether it is published. Neither must be
seen by a user, so threads wait for each other here, and children close what they have inherited.
"""
from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import select
import signal
import threading
import warnings
from typing import Any, Callable, Iterator, Optional

LONGEST = 2**31 - 1
DESCRIPTORS = "/proc/self/fd"
DELETED = " (deleted)"
BLOCK = 1 << 16
ONCE = "/.promisefs/once/"


def target_of(fd: int) -> str:
    """The path that a descriptor was opened with."""
    path = os.readlink(f"{DESCRIPTORS}/{fd}")
    return path[:-len(DELETED)] if path.endswith(DELETED) else path


def readable(fd: int, timeout: Optional[float]) -> bool:
    """Wait until what is behind a descriptor has settled; False if it has not within so many seconds."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(None if timeout is None else min(max(0, int(timeout * 1000 + 0.999)), LONGEST)))


# A process that has a draft open for writing reads that draft: the file system cannot tell its threads apart. So
# threads of this process that read a key, or write it too, wait here until the one that writes it has closed it.
# For each key: the thread that writes it, and the path of what it has open, or is about to open.
_writers: dict[str, tuple[int, str]] = {}
_closing: set[str] = set()  # those of them that it is closing: that takes no time, and others may see them settled
_written = threading.Condition()
_told: set[int] = set()  # pipes of those who cannot sleep on _written
_afterwards: dict[str, list[Callable[[], Any]]] = {}  # what is called when the thread that writes a key has closed it
_openers: dict[str, list[int]] = {}  # for each key that threads are opening: how many, and how often one began to write
_patient: dict[str, int] = {}  # how many threads wait for one that writes; it is their turn before the next one writes
_abandoning = threading.Lock()  # so that what one has a child killed with is not closed later by the child of another
_kept = threading.local()  # .fd: what a child of this thread is to have

# A child of fork(2) has all drafts open that threads of its parent are writing. It closes them at once, but whose close
# is the last decides whether they are published, and that must be the parent: he waits for these pipes to be closed,
# and no thread forks while another one begins to write or closes what it has written.
_gate = threading.Condition()
_inside: list[int] = []  # threads during which no other one forks
_forking: list[int] = []  # the thread that forks, as often as it does
_pipes: list[int] = []  # of the fork that is under way, to be written to
_forked: list[int] = []  # to read from
_reaping = threading.RLock()  # who looks at _forked


@contextlib.contextmanager
def no_fork() -> Iterator[None]:
    """No other thread forks meanwhile."""
    me = threading.get_ident()
    with _gate:
        _gate.wait_for(lambda: not _forking or me in _forking)
        _inside.append(me)
    try:
        yield
    finally:
        with _gate:
            if me in _inside:
                _inside.remove(me)
            _gate.notify_all()


def _before_fork() -> None:
    me = threading.get_ident()
    with _gate:
        _gate.wait_for(lambda: (not _forking or me in _forking) and set(_inside) <= {me})
        _forking.append(me)
    if _writers:
        with contextlib.suppress(OSError):
            reading, writing = os.pipe()
            _forked.append(reading)
            _pipes.append(_above_all(writing))


def _above_all(fd: int) -> int:
    """The same under the highest number: who is killed closes it after everything else."""
    try:
        highest = max(map(int, os.listdir(DESCRIPTORS)))
        above = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, highest + 1)
    except OSError:
        return fd
    os.close(fd)
    return above


def _after_fork() -> None:
    if _pipes:
        os.close(_pipes.pop())
    with _gate:
        _forking.pop()
        _gate.notify_all()


def _forget() -> None:
    """In a forked child: what the threads of its parent write is published when they close it, not when the child
    ends, which may live long or be killed."""
    global _writers, _closing, _written, _told, _afterwards, _openers, _patient, _abandoning
    global _gate, _inside, _forking, _pipes, _forked, _reaping
    paths = {form for _, path in _writers.values() for form in (path, os.path.realpath(path))}
    for name in os.listdir(DESCRIPTORS) if paths else ():
        with contextlib.suppress(OSError):
            if target_of(int(name)) in paths and int(name) != getattr(_kept, "fd", -1):
                os.close(int(name))
    for fd in (*_forked, *_pipes):
        os.close(fd)
    _writers, _closing, _written, _told = {}, set(), threading.Condition(), set()
    _afterwards, _openers, _patient = {}, {}, {}
    _abandoning, _gate, _reaping = threading.Lock(), threading.Condition(), threading.RLock()
    _inside, _forking, _pipes, _forked = [], [], [], []


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_forget)


@contextlib.contextmanager
def the_last_close() -> Iterator[None]:
    """No child of this process has open what this thread has written, and none will."""
    with no_fork():
        with _reaping:
            while _forked:
                readable(_forked[0], None)
                os.close(_forked.pop(0))
        yield


def written_elsewhere(key: str) -> bool:
    """Another thread of this process is writing this key."""
    writer = _writers.get(key)
    return writer is not None and writer[0] != threading.get_ident()


def after_writing(key: str, call: Callable[[], Any]) -> bool:
    """Have call() called by the thread that is writing this key, when it has closed it. False if no other thread is."""
    with _written:
        if not written_elsewhere(key):
            return False
        _afterwards.setdefault(key, []).append(call)
    return True


@contextlib.contextmanager
def the_writer(key: str, path: str) -> Iterator[None]:
    with _written:
        _written.wait_for(lambda: not written_elsewhere(key) and key not in _patient)
        with no_fork():
            _writers[key] = threading.get_ident(), os.path.normpath(path)
        if key in _openers:
            _openers[key][1] += 1
    try:
        yield
    finally:
        with _written:
            _writers.pop(key, None)
            _closing.discard(key)
            calls = _afterwards.pop(key, ())
            _written.notify_all()
            for pipe in _told:
                with contextlib.suppress(BlockingIOError):
                    os.write(pipe, b"1")
        for call in calls:
            call()


def has_opened(key: str, fd: int) -> None:
    """Say by what path this thread, which writes a key, has it open."""
    _writers[key] = threading.get_ident(), target_of(fd)


def is_closing(key: str) -> None:
    """Say that this thread, which writes a key, is about to close it."""
    with _written:
        _closing.add(key)


def wait_for_close(key: str) -> None:
    """If another thread of this process is closing what it has written, wait until it has."""
    with _written:
        _written.wait_for(lambda: key not in _closing or not written_elsewhere(key))


@contextlib.contextmanager
def told_of_writers() -> Iterator[int]:
    """A pipe that is readable when a thread of this process has closed what it was writing."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        with _written:
            _told.add(writing)
        yield reading
    finally:
        with _written:
            _told.discard(writing)
        os.close(reading)
        os.close(writing)


def drain(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(pipe, BLOCK)


def open_for_reading(path: str, key: str, flags: int) -> Optional[int]:
    """Open a key, by its path or that of a view of it, for reading. None if another thread of this process writes it,
    or has begun to meanwhile: what was opened may be its draft then."""
    with _written:
        if written_elsewhere(key):
            return None
        opening = _openers.setdefault(key, [0, 0])
        opening[0] += 1
        before = opening[1]
    try:
        fd = os.open(path, flags)
    finally:
        with _written:
            opening[0] -= 1
            if not opening[0] and _openers.get(key) is opening:
                del _openers[key]
            began = opening[1] != before
    if began and not _is_taken(fd, path, key):
        os.close(fd)
        return None
    return fd


def _is_taken(fd: int, path: str, key: str) -> bool:
    """What was opened by its one-time view, and is no draft, cannot be opened again."""
    return ONCE in path and not (readable(fd, 0) and os.path.lexists(key))


def open_now(path: str, key: str) -> Optional[int]:
    """Open for reading when it has settled: EAGAIN until then. None while another thread of this process writes it."""
    return open_for_reading(path, key, os.O_RDONLY | os.O_NONBLOCK)


def open_between(path: str, key: str, timeout: Optional[float]) -> Optional[int]:
    """open_now() when no other thread of this process writes; None if one still does after so many seconds."""
    with _written:
        _patient[key] = _patient.get(key, 0) + 1
        try:
            if not _written.wait_for(lambda: not written_elsewhere(key), timeout):
                if key not in _closing:
                    return None
                _written.wait_for(lambda: not written_elsewhere(key))
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        finally:
            _patient[key] -= 1
            if not _patient[key]:
                del _patient[key]
                _written.notify_all()


def abandon(fd: int) -> None:
    """Close a file as if its process had been killed: what was written is not published. Raises nothing.

    Every ordinary close counts, and the last one decides, so a child gets the descriptor, and is killed with it. It
    stops when it has closed what other threads write, so none of that is closed by a process that was killed.
    """
    with _abandoning:
        _kept.fd = fd
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of fork in a process with threads: this child does nothing
                child = os.fork()
                if child == 0:
                    os.kill(os.getpid(), signal.SIGSTOP)
                    os.kill(os.getpid(), signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WUNTRACED)
            with the_last_close(), contextlib.suppress(OSError):
                os.close(fd)
            os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
        except Exception:  # there cannot be a child now: it stays open, and unpublished
            atexit.register(abandon, fd)
        finally:
            _kept.fd = -1
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)

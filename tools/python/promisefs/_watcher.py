"""One thread for all callbacks of this process: it sleeps in epoll_wait(2) until a future settles."""
from __future__ import annotations

import collections
import contextlib
import os
import select
import threading
from typing import Any, Callable, Optional

from . import _drafts


class Watcher:
    """Calls a function once, in its thread, when a descriptor is readable, and closes that."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.calls: dict[int, Callable[[], Any]] = {}
        self.queue: collections.deque[Callable[[], Any]] = collections.deque()
        self.reading, self.writing = os.pipe()  # written to when there is something in the queue
        os.set_blocking(self.reading, False)
        os.set_blocking(self.writing, False)
        self.epoll.register(self.reading, select.EPOLLIN)
        threading.Thread(target=self._run, name="promisefs-callbacks", daemon=True).start()

    def add(self, fd: int, call: Callable[[], Any]) -> None:
        self.calls[fd] = call
        try:
            self.epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
        except OSError:
            del self.calls[fd]
            os.close(fd)
            raise

    def add_now(self, call: Callable[[], Any]) -> None:
        self.queue.append(call)
        with contextlib.suppress(BlockingIOError):
            os.write(self.writing, b"1")

    def _run(self) -> None:
        while True:
            for fd, _ in self.epoll.poll():
                if fd == self.reading:
                    _drafts.drain(fd)
                    while self.queue:
                        safely(self.queue.popleft())
                else:
                    call = self.calls.pop(fd)
                    self.epoll.unregister(fd)
                    os.close(fd)
                    safely(call)


def safely(call: Callable[[], Any]) -> None:
    """call(), and log what it raises; SystemExit, too, which would end the one thread."""
    try:
        call()
    except BaseException:
        import logging

        logging.getLogger("promisefs").exception("a callback of a future failed")


_watcher: Optional[Watcher] = None
_lock = threading.Lock()


def the_watcher() -> Watcher:
    global _watcher
    with _lock:
        if _watcher is None:
            _watcher = Watcher()
        return _watcher


def watch(fd: int, call: Callable[[], Any]) -> None:
    """Take over a descriptor; call() when it is readable."""
    the_watcher().add(fd, call)


def soon(call: Callable[[], Any]) -> None:
    """call() in the thread of the callbacks."""
    the_watcher().add_now(call)


def _forget() -> None:
    """In a forked child: callbacks stay with the process that has asked for them."""
    global _watcher, _lock
    _lock = threading.Lock()
    if _watcher is not None:
        _watcher.epoll.close()
        for fd in (*_watcher.calls, _watcher.reading, _watcher.writing):
            os.close(fd)
        _watcher = None


os.register_at_fork(after_in_child=_forget)

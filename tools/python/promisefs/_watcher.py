"""One thread for all callbacks of this process: it sleeps in epoll_wait(2) until a future settles."""
from __future__ import annotations

import os
import select
import threading
from typing import Any, Callable, Optional


class Watcher:
    """Calls a function once, in its thread, when a descriptor is readable, and closes that."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.calls: dict[int, Callable[[], Any]] = {}
        threading.Thread(target=self._run, name="promisefs-callbacks", daemon=True).start()

    def add(self, fd: int, call: Callable[[], Any]) -> None:
        self.calls[fd] = call
        self.epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)

    def _run(self) -> None:
        while True:
            for fd, _ in self.epoll.poll():
                call = self.calls.pop(fd)
                self.epoll.unregister(fd)
                os.close(fd)
                try:
                    call()
                except BaseException:  # SystemExit, too, would end the one thread
                    import logging

                    logging.getLogger("promisefs").exception("a callback of a future failed")


_watcher: Optional[Watcher] = None
_lock = threading.Lock()


def watch(fd: int, call: Callable[[], Any]) -> None:
    """Take over a descriptor; call() when it is readable."""
    global _watcher
    with _lock:
        if _watcher is None:
            _watcher = Watcher()
    _watcher.add(fd, call)


def _forget() -> None:
    """In a forked child: callbacks stay with the process that has asked for them."""
    global _watcher, _lock
    _lock = threading.Lock()
    if _watcher is not None:
        _watcher.epoll.close()
        for fd in _watcher.calls:
            os.close(fd)
        _watcher = None


os.register_at_fork(after_in_child=_forget)

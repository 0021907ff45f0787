"""Values that are not there yet."""
from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import functools
import json
import os
import pickle
import select
import time
from typing import TYPE_CHECKING, Any, Callable, Generator, Generic, Iterable, Iterator, Optional, TypeVar

from . import _drafts, _files, _watcher
from .errors import Cancelled, InvalidStateError
from .proxy import Proxy

if TYPE_CHECKING:
    from .store import Store

T = TypeVar("T")
LONGEST_REASON = 1000
LARGEST_EXCEPTION = 60_000
SET = ("ready", "failed", "gone")
CANNOT_WAIT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED)


class Source:
    """Reads the value of a key, or of its view below `.promisefs`: what a Proxy calls, and what travels for it."""

    __slots__ = ("store", "key", "view", "path")

    def __init__(self, store: Store, key: str, view: str = "") -> None:
        self.store, self.key, self.view = store, key, view
        self.path = store._path(key, view)

    def __call__(self) -> Any:
        return self.store._load(self.key, self.view)

    def __reduce__(self) -> Any:
        return Source, (self.store, self.key, self.view)


def text_of(exception: BaseException) -> str:
    """What `user.promisefs.error` is set to: ERRNO: reason."""
    number = exception.errno if isinstance(exception, OSError) else None
    if number in errno.errorcode:
        name, reason = errno.errorcode[number or 0], exception.strerror or ""  # type: ignore[attr-defined]
    else:
        name, reason = "EIO", f"{type(exception).__name__}: {exception}"
    return f"{name}: {' '.join(reason.split())[:LONGEST_REASON]}"


class Future(Generic[T]):
    """A key that somebody will set once. Made by Store.future() or Store.expect(); copies may be in any process.

    It is also a path (os.fspath): whatever opens it for reading waits until it is set. Pickling it pickles the path.
    Waiting is done in open(2) or poll(2) and ends with a signal handler that raises, as Ctrl-C does.

        >>> future = store.future()
        >>> future.result(timeout=0.01)
        Traceback (most recent call last):
        TimeoutError: [Errno 110] not set within 0.01 s: '...'
        >>> future.set_result("value")
        >>> future.result(), future.done(), future.cancel()
        ('value', True, False)
    """

    def __init__(self, store: Store, key: str, *, evict: bool = False, view: str = "") -> None:
        self.store, self.key = store, key
        self._evict, self._view, self._set_here, self._cancelled_here = evict, view, False, False
        self.path = store._path(key)

    def __fspath__(self) -> str:
        return self.path

    def __reduce__(self) -> Any:
        return _future, (self.store, self.key, self._evict, self._view)

    def __repr__(self) -> str:
        try:
            return f"<Future {self.path} {self.state()}>"
        except OSError as error:
            return f"<Future {self.path} ({error.strerror})>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Future) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    # -- asking: never waits --

    def state(self) -> str:
        """"pending", "writing", "ready", "failed", or "gone" if the key is not there (yet, or any more)."""
        try:
            with self.store._mount:
                return _files.attribute(self.path, "state") or "gone"
        except FileNotFoundError:
            return "gone"

    def done(self) -> bool:
        """True if it is set, has failed or was cancelled. Never waits."""
        if self._set_here or self._cancelled_here:
            return True
        state = self.state()
        return state in SET and (state != "gone" or not self._view)

    def running(self) -> bool:
        """True while somebody is writing the value. Never waits."""
        return self.state() == "writing" and not self._set_here

    def cancelled(self) -> bool:
        """True if it was cancelled, by whomever. Never waits."""
        return self._cancelled_here or (self.state() == "gone" and self._last_event() == "cancel")

    def _last_event(self) -> str:
        """The event by which the key went."""
        fd = os.open(self.store._control("events"), os.O_RDWR)
        try:
            os.write(fd, b"log " + os.fsencode(self.store._from_top(self.key)) + b"\n")
            last = b""
            for block in iter(lambda: os.read(fd, _drafts.BLOCK), b""):
                last = b"\n".join((last + block).rsplit(b"\n", 2)[-2:])
        finally:
            os.close(fd)
        return str(json.loads(last)["event"]) if last else ""

    # -- waiting --

    def result(self, timeout: Optional[float] = None) -> T:
        """The value. Waits for it in the kernel, at most timeout seconds (0: not at all; None: as long as it takes).

        Raises TimeoutError if it is not set in time, Cancelled, BrokenPromise if it has failed (with the errno and the
        reason), or what set_exception() was given, if that could be pickled.
        """
        try:
            value: T = self.store._load(self.key, self._view, timeout)
        except OSError as error:
            raise self._reason(error)
        return value

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """What result() would raise, None if it has a value. Waits like result(); does not read the value.

        Raises TimeoutError if it has not settled in time, and Cancelled.
        """
        fd = -1
        try:
            with self.store._mount:
                fd = _files.open_settled(self._waiting_path(), self.path, timeout)
            os.pread(fd, 1, 0)
            return None
        except OSError as error:
            reason = self._reason(self.store._explain(error, self.path))
            if reason is error or isinstance(reason, Cancelled):
                raise reason
            return reason
        finally:
            if fd >= 0:
                os.close(fd)

    def _waiting_path(self) -> str:
        return self.store._path(self.key, self._view)

    def _reason(self, error: BaseException) -> BaseException:
        """A key that is gone because it was cancelled is not just missing."""
        if isinstance(error, FileNotFoundError) and self.cancelled():
            return Cancelled(errno.ECANCELED, "cancelled", self.path)
        return error

    def __await__(self) -> Generator[Any, None, T]:
        """`await future`: as result(), without holding up the event loop and without a thread."""
        return self._wait().__await__()

    async def _wait(self) -> T:
        import asyncio

        loop = asyncio.get_running_loop()
        try:
            self.store._mount.check()
            while (fd := _drafts.open_now(self._waiting_path(), self.path)) is None:
                with _drafts.told_of_writers() as pipe:
                    told = asyncio.Event()
                    loop.add_reader(pipe, told.set)
                    try:
                        while _drafts.written_elsewhere(self.path):
                            await told.wait()
                            told.clear()
                            _drafts.drain(pipe)
                    finally:
                        loop.remove_reader(pipe)
        except OSError as error:
            raise self._reason(self.store._explain(error, self.path))
        try:
            settled = asyncio.Event()
            loop.add_reader(fd, settled.set)
            try:
                await settled.wait()
            finally:
                loop.remove_reader(fd)
            value: T = self.store.serializer.load(fd)
            return value
        except OSError as error:
            raise self._reason(self.store._explain(error, self.path))
        finally:
            os.close(fd)

    def add_done_callback(self, call: Callable[[Future[T]], Any]) -> None:
        """Call call(future) when it has settled: at once if it has, else in the one thread that this module has for
        all callbacks, which must not be held up. What it raises is logged. After fork(2) only the parent calls.

        Never waits. Takes a descriptor until then: OSError (EMFILE) if there is none."""
        done = functools.partial(call, self)
        while not _drafts.after_writing(self.path, lambda: _watcher.soon(lambda: self.add_done_callback(call))):
            try:
                with self.store._mount:
                    fd = _drafts.open_now(self._waiting_path(), self.path)
            except OSError as error:
                if error.errno in CANNOT_WAIT:
                    raise
                return _watcher.safely(done)
            if fd is not None and _drafts.readable(fd, 0):
                os.close(fd)
                return _watcher.safely(done)
            if fd is not None:
                return _watcher.watch(fd, done)

    def proxy(self) -> Proxy[T]:
        """A Proxy of the value: may be handed to functions now, and waits when it is used."""
        return Proxy(Source(self.store, self.key, "once" if self._evict else self._view))

    # -- the producer's side --

    def set_result(self, value: T) -> None:
        """Set it; everybody who waits is woken. A future that has failed is set anew.

        Raises InvalidStateError if it is set already or was cancelled. If the value cannot be serialised or written,
        that is raised and the future stays as it was, or fails.
        """
        buffers = self.store.serializer.dump(value)
        try:
            path = self.path if self._view else self.store._path(self.key, "future")
            flags = os.O_WRONLY | (os.O_CREAT | os.O_EXCL if self._view else os.O_TRUNC)
            _files.write_whole(self.store._mount, path, self.path, buffers, flags)
        except FileExistsError:
            raise InvalidStateError(f"{self.path} is set already") from None
        except FileNotFoundError:
            raise InvalidStateError(f"{self.path} was cancelled or evicted") from None
        self._set_here = True

    def set_exception(self, exception: BaseException) -> None:
        """Let it fail. Readers in Python get this exception if it can be pickled and the store's serializer is one
        that pickles; everybody else an errno (that of an OSError, else EIO) and the text in `user.promisefs.error`.

        Raises InvalidStateError as set_result() does.
        """
        text = text_of(exception)
        try:
            if self._view:
                self.store._declare(self.key)
            with contextlib.suppress(Exception):
                blob = pickle.dumps((text, exception))
                if len(blob) <= LARGEST_EXCEPTION:
                    os.setxattr(self.path, _files.EXCEPTION, blob)
            with self.store._mount:
                _files.set_attribute(self.path, "error", text)
        except FileExistsError:
            with contextlib.suppress(OSError):
                os.removexattr(self.path, _files.EXCEPTION)
            raise InvalidStateError(f"{self.path} is set already") from None
        except FileNotFoundError:
            raise InvalidStateError(f"{self.path} was cancelled or evicted") from None

    def cancel(self) -> bool:
        """Cancel it, unless it is set or has failed: False then. Who waits gets Cancelled (others: ECANCELED)."""
        if self.state() == "failed":
            return False
        try:
            with self.store._mount:
                os.unlink(self.store._path(self.key, "future"))
        except FileExistsError:
            return False
        except FileNotFoundError:
            return self.cancelled()
        self._cancelled_here = True
        return True


def _future(store: Store, key: str, evict: bool, view: str) -> Future[Any]:
    return Future(store, key, evict=evict, view=view)


def as_completed(futures: Iterable[Future[Any]], timeout: Optional[float] = None) -> Iterator[Future[Any]]:
    """The futures, each when it has settled. One poll(2) waits for all of them.

    Raises TimeoutError if not all of them have settled timeout seconds after the call. Takes a descriptor for each that
    is not set: OSError (EMFILE) if there are not so many.

        >>> first, second = store.future(), store.future()
        >>> second.set_result("2"); first.cancel()
        True
        >>> [future.cancelled() for future in promisefs.as_completed([first, second])]
        [True, False]
    """
    end = None if timeout is None else time.monotonic() + timeout
    poller = select.poll()
    waiting: dict[int, Future[Any]] = {}
    later = list(dict.fromkeys(futures))  # what is not open yet: after the first round, what threads of ours write
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: list(map(os.close, waiting)))
        pipe = -1
        while later or waiting:
            todo, later = later, []
            for future in todo:
                try:
                    with future.store._mount:
                        fd = _drafts.open_now(future._waiting_path(), future.path)
                except OSError as error:
                    if error.errno in CANNOT_WAIT:
                        raise
                    yield future
                    continue
                if fd is None:
                    later.append(future)
                    continue
                waiting[fd] = future
                poller.register(fd, select.POLLIN)
            if not later and not waiting:
                break
            if later and pipe < 0:
                pipe = stack.enter_context(_drafts.told_of_writers())
                poller.register(pipe, select.POLLIN)
                continue
            left = None if end is None else max(0, end - time.monotonic())
            ready = poller.poll(None if left is None else min(int(left * 1000 + 0.999), _drafts.LONGEST))
            if not ready:
                raise TimeoutError(errno.ETIMEDOUT, f"{len(waiting) + len(later)} futures are not set within "
                                                    f"{timeout:g} s")
            for fd, _ in ready:
                if fd == pipe:
                    _drafts.drain(pipe)
                    continue
                poller.unregister(fd)
                os.close(fd)
                yield waiting.pop(fd)


def wait(futures: Iterable[Future[Any]], timeout: Optional[float] = None,
         return_when: str = concurrent.futures.ALL_COMPLETED) -> tuple[set[Future[Any]], set[Future[Any]]]:
    """(done, not done), as concurrent.futures.wait() with its constants, after timeout seconds at the latest."""
    pending = set(futures)
    done: set[Future[Any]] = set()
    with contextlib.suppress(TimeoutError):
        for future in as_completed(pending, timeout):
            done.add(future)
            if return_when == concurrent.futures.FIRST_COMPLETED:
                break
            if return_when == concurrent.futures.FIRST_EXCEPTION and _failed(future):
                break
    return done, pending - done


def _failed(future: Future[Any]) -> bool:
    try:
        return future.exception(0) is not None
    except Cancelled:
        return True

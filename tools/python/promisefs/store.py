"""A directory of a mount as a store of Python values."""
from __future__ import annotations

import contextlib
import errno
import functools
import os
import pathlib
import pickle
from typing import IO, Any, Iterable, Optional, TypeVar, Union

from . import _drafts, _files, ownership, serializers
from .errors import BrokenPromise
from .future import Future, Source
from .lifetimes import ContextLifetime, Expiry, lease_of
from .proxy import Proxy

T = TypeVar("T")


class Store:
    """Values under keys: a key is the path of a file below `directory`, which is a mount point of promisefs or below.

    The directory is made if it is missing. serializer: "auto" (the default), "pickle", "bytes", "view", "numpy" or a
    Serializer; see promisefs.serializers. It holds nothing open, may be used by any thread, and pickles as its path.

        >>> key = store.put({"a": 1})
        >>> store.get(key), store.get("missing", "default"), store.exists(key)
        ({'a': 1}, 'default', True)
        >>> store.put(b"bytes are the file itself", "dir/name")
        'dir/name'
        >>> store.path("dir/name").read_bytes()
        b'bytes are the file itself'

    Raises OSError: ENODEV if the directory is not in a mount of promisefs, ENOTCONN if its daemon was killed. So does
    everything that has to do with a Store when the mount has gone meanwhile. Nothing but get(), and what uses a Proxy,
    waits for others.
    """

    def __init__(self, directory: Union[str, os.PathLike[str]], *,
                 serializer: Union[str, serializers.Serializer] = "auto") -> None:
        self.directory = os.path.realpath(os.fspath(directory))
        self._mount = _files.Mount(self.directory)
        self.mountpoint, self._below = self._mount.path, self._mount.below
        os.makedirs(self.directory, exist_ok=True)
        self._serializer = serializer
        self.serializer = serializers.get(serializer)

    def __repr__(self) -> str:
        return f"Store({self.directory!r})"

    def __fspath__(self) -> str:
        return self.directory

    def __reduce__(self) -> Any:
        return _store, (self.directory, self._serializer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and (self.directory, self.serializer) == (other.directory, other.serializer)

    def __hash__(self) -> int:
        return hash(self.directory)

    # -- paths --

    def _check(self, key: str) -> str:
        parts = key.split("/")
        if not key or ".." in parts or parts[0] in ("", _files.CONTROL):
            raise ValueError(f"not a key: {key!r}")
        return key

    def _from_top(self, key: str) -> str:
        """The key as the mount knows it."""
        return f"{self._below}/{key}" if self._below else key

    def _control(self, name: str) -> str:
        return f"{self.mountpoint}/{_files.CONTROL}/{name}"

    def _path(self, key: str, view: str = "") -> str:
        """The path of a key, or of its view in the control directory (future, await, once)."""
        self._check(key)
        return self._control(f"{view}/{self._from_top(key)}") if view else f"{self.directory}/{key}"

    def path(self, key: str) -> pathlib.Path:
        """The path of a key, for other programs; opening it for reading waits until it is set."""
        return pathlib.Path(self._path(key))

    def _new_key(self) -> str:
        return os.urandom(16).hex()

    # -- values --

    def _load_path(self, path: str, shown: str, timeout: Optional[float] = None, block: bool = True) -> Any:
        if not block:
            _drafts.wait_for_close(shown)
        try:
            fd = _files.open_settled(path, shown, timeout) if block else _drafts.open_now(path, shown)
            if fd is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), shown)
            try:
                return self.serializer.load(fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno == errno.ENOENT:
                self._mount.check()
            reason = self._explain(error, shown)
            if reason is error:
                raise
            raise reason

    def _explain(self, error: OSError, path: str) -> BaseException:
        """What an error of reading means; the exception that the producer has given, if it is here and counts."""
        reason = _files.explain(error, path)
        if isinstance(reason, BrokenPromise) and self.serializer in (serializers.auto, serializers.pickled):
            with contextlib.suppress(Exception):
                text, exception = pickle.loads(os.getxattr(path, _files.EXCEPTION))
                if text == _files.attribute(path, "error") and isinstance(exception, BaseException):
                    exception.__cause__ = reason
                    return exception
        return reason

    def _load(self, key: str, view: str = "", timeout: Optional[float] = None, block: bool = True) -> Any:
        return self._load_path(self._path(key, view), self._path(key), timeout, block)

    def put(self, value: Any, key: Optional[str] = None, *, lifetime: Optional[ContextLifetime] = None,
            lease: Optional[Expiry] = None) -> str:
        """Write a value, whole, and return its key: a new one, or the one that is given, whose value is replaced.

        When it returns the value is safe from the death of any process. lifetime and lease say when it goes away.
        """
        is_new, key = key is None, self._new_key() if key is None else key
        path = self._path(key)
        until = None if lease is None else lease_of(lease)
        buffers = self.serializer.dump(value)
        try:
            _files.write_whole(self._mount, path, path, buffers)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _files.write_whole(self._mount, path, path, self.serializer.dump(value))
        try:
            if until is not None:
                _files.set_attribute(path, "lease", until)
            if lifetime is not None:
                lifetime.add_key(key, store=self)
        except BaseException:
            if is_new:
                self.evict(key)
            raise
        return key

    def put_batch(self, values: Iterable[Any], *, lifetime: Optional[ContextLifetime] = None) -> list[str]:
        """put() of each."""
        return [self.put(value, lifetime=lifetime) for value in values]

    def get(self, key: str, default: Any = None, *, timeout: Optional[float] = None, block: bool = True,
            once: bool = False) -> Any:
        """The value of a key, `default` if there is no such key.

        If it is declared but not set, this waits in open(2), at most timeout seconds (TimeoutError); with block=False
        it raises BlockingIOError instead. A future that has failed raises BrokenPromise or Cancelled. once=True takes
        it: of many who do so one gets the value, and the key is gone.
        """
        try:
            return self._load(key, "once" if once else "", timeout, block)
        except FileNotFoundError:
            return default

    def get_batch(self, keys: Iterable[str], default: Any = None) -> list[Any]:
        """get() of each."""
        return [self.get(key, default) for key in keys]

    def exists(self, key: str) -> bool:
        """True if get() would give a value or is about to: it is set, or being written. False while it is only
        declared. Never waits."""
        try:
            with self._mount:
                return _files.attribute(self._path(key), "state") in ("ready", "writing")
        except (FileNotFoundError, NotADirectoryError):
            return False

    def evict(self, key: str) -> None:
        """Remove a key, if it is there. Who is reading it goes on; who waits for it gets Cancelled.

        MutableBorrowError if it is borrowed.
        """
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._mount:
                os.unlink(self._path(key))
        except OSError as error:
            ownership.raise_borrow_error(error, self._path(key))

    def open(self, key: str, mode: str = "rb", **kwargs: Any) -> IO[Any]:
        """The builtin open() of the key's path. What is written is published when the file is closed."""
        return open(self._path(key), mode, **kwargs)

    def attribute(self, key: str, name: str) -> Optional[str]:
        """`user.promisefs.NAME` of a key (state, version, sha256, producer ...), None if it has none. Never waits."""
        return _files.attribute(self._path(key), name)

    def set_lease(self, key: str, expiry: Optional[Expiry]) -> None:
        """Have a key evicted at a moment, or so many seconds from now; None: not any more."""
        _files.set_attribute(self._path(key), "lease", "none" if expiry is None else lease_of(expiry))

    # -- proxies --

    def proxy(self, value: T, *, evict: bool = False, lifetime: Optional[ContextLifetime] = None,
              populate_target: bool = False) -> Proxy[T]:
        """put() and proxy_from_key(). populate_target: the proxy that is returned has the value already."""
        if evict and lifetime is not None:
            raise ValueError("evict and lifetime exclude each other")
        source = Source(self, self.put(value, lifetime=lifetime), "once" if evict else "")
        return Proxy(source, value) if populate_target else Proxy(source)

    def proxy_batch(self, values: Iterable[Any], *, evict: bool = False,
                    lifetime: Optional[ContextLifetime] = None) -> list[Proxy[Any]]:
        """proxy() of each."""
        return [self.proxy(value, evict=evict, lifetime=lifetime) for value in values]

    def proxy_from_key(self, key: str, *, evict: bool = False) -> Proxy[Any]:
        """A Proxy of the value of a key, which may be a future. evict: the first use of any copy takes the value."""
        return Proxy(Source(self, key, "once" if evict else ""))

    def owned_proxy(self, value: T, *, populate_target: bool = True) -> ownership.Owned[T]:
        """The owner of a new object that has no key; see promisefs.ownership."""
        return ownership.make_owned(self, value, populate_target=populate_target)

    # -- futures --

    def _declare(self, key: str) -> None:
        with self._mount:
            os.close(os.open(self._path(key, "future"), os.O_WRONLY | os.O_CREAT, 0o666))

    def future(self, key: Optional[str] = None, *, deadline: Optional[float] = None, evict: bool = False,
               lifetime: Optional[ContextLifetime] = None) -> Future[Any]:
        """Declare a key that somebody will set: a new one, or the one that is given.

        deadline: seconds after which it fails with ETIMEDOUT. evict: the first use of any of its proxies takes the
        value. Raises FileExistsError if the key is set already; one that is pending stays so.
        """
        if key is None:
            key = self._new_key()
        until = None if deadline is None else lease_of(deadline)
        try:
            self._declare(key)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._path(key)), exist_ok=True)
            self._declare(key)
        future: Future[Any] = Future(self, key, evict=evict)
        if until is not None:
            _files.set_attribute(future.path, "deadline", until)
        if lifetime is not None:
            lifetime.add_key(key, store=self)
        return future

    def expect(self, key: str) -> Future[Any]:
        """A Future of a key that nobody has to declare: settles when somebody has written it. Leaves no trace."""
        return Future(self, key, view="await")

    def attach(self, key: str, *, evict: bool = False) -> Future[Any]:
        """The Future of a key that was declared elsewhere. FileNotFoundError if it was not."""
        path = self._path(key)
        if not os.path.lexists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return Future(self, key, evict=evict)


@functools.lru_cache(maxsize=64)
def _store(directory: str, serializer: Union[str, serializers.Serializer]) -> Store:
    return Store(directory, serializer=serializer)

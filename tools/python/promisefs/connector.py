"""A connector for ProxyStore: Store("name", PromiseConnector("/mnt/promisefs/proxystore")).

It has the protocols Connector and DeferrableConnector of ProxyStore, of which nothing is imported. With it the proxy of
a Store.future() waits in open(2): get() of a key that new_key() has made returns when the key is set, so the loop in
which ProxyStore asks again and again runs once.
"""
from __future__ import annotations

import contextlib
import os
import re
import warnings
from typing import Any, NamedTuple, Optional, Sequence, Union

from . import _files

Bytes = Union[bytes, bytearray, memoryview]
NAME = re.compile(r"[0-9a-f]{32}")
OPTIONS = ("directory", "clear", "timeout")


class PromiseKey(NamedTuple):
    """Key of an object: the name of its file."""

    name: str


class PromiseConnector:
    """Objects are files in a directory of a mount of promisefs, which is made if it is missing.

    clear: what close() does with the objects of all connectors of this directory, if it is not told.
    timeout: how many seconds get() waits for a key that is not set before it returns None; as long as it takes by
    default. The timeout of ProxyStore's polling policy does not reach connectors, so set this one where that is used.

        >>> connector = promisefs.PromiseConnector(directory)
        >>> key = connector.new_key()
        >>> data = pool.submit(connector.get, key)  # waits in the kernel
        >>> connector.set(key, b"data")
        >>> data.result(), connector.get(key)
        (b'data', b'data')

    Raises OSError as Store does.
    """

    def __init__(self, directory: Union[str, os.PathLike[str]], clear: bool = False,
                 timeout: Optional[float] = None) -> None:
        self.directory = os.path.realpath(os.fspath(directory))
        self.clear, self.timeout = clear, timeout
        self._mount = _files.Mount(self.directory)
        self.mountpoint = self._mount.path
        os.makedirs(self.directory, exist_ok=True)
        self._futures = os.path.normpath(os.path.join(self.mountpoint, _files.CONTROL, "future", self._mount.below))

    def __enter__(self) -> PromiseConnector:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"PromiseConnector(directory={self.directory})"

    def __reduce__(self) -> Any:
        return type(self).from_config, (self.config(),)

    def _path(self, key: PromiseKey) -> str:
        return f"{self.directory}/{key.name}"

    def close(self, clear: Optional[bool] = None) -> bool:
        """Nothing to close. With clear, remove all objects that connectors have put here, and the directory if it is
        empty then; returns whether it did. May be called again."""
        clear = self.clear if clear is None else clear
        if not clear:
            return False
        with contextlib.suppress(FileNotFoundError), self._mount:
            self._mount.check()
            for name in os.listdir(self.directory):
                if NAME.fullmatch(name):
                    self.evict(PromiseKey(name))
        if self.directory != self.mountpoint:
            with contextlib.suppress(OSError):
                os.rmdir(self.directory)
        return True

    def config(self) -> dict[str, Any]:
        """What from_config() makes the same connector of. An option that is None is left out: ProxyStore can write this
        to a TOML file, which has no such value."""
        options = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in options.items() if value is not None}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PromiseConnector:
        """The connector that config() was of; options of later versions are ignored, with a warning."""
        unknown = sorted(set(config) - set(OPTIONS))
        if unknown:
            warnings.warn(f"PromiseConnector: ignored: {', '.join(unknown)}", stacklevel=2)
        return cls(**{name: value for name, value in config.items() if name in OPTIONS})

    def new_key(self, obj: Optional[Bytes] = None) -> PromiseKey:
        """Declare an object: get() of its key waits until set() was called, by whatever process."""
        key = PromiseKey(os.urandom(16).hex())
        with self._mount:
            os.close(os.open(f"{self._futures}/{key.name}", os.O_WRONLY | os.O_CREAT, 0o666))
        return key

    def set(self, key: PromiseKey, obj: Bytes) -> None:
        """Set the object of a key, or replace it. Readers get all of it or nothing."""
        _files.write_whole(self._mount, self._path(key), self._path(key), (obj,))

    def put(self, obj: Bytes) -> PromiseKey:
        """Store an object under a new key."""
        key = PromiseKey(os.urandom(16).hex())
        _files.write_whole(self._mount, self._path(key), self._path(key), (obj,))
        return key

    def put_batch(self, objs: Sequence[Bytes]) -> list[PromiseKey]:
        """put() of each."""
        return [self.put(obj) for obj in objs]

    def get(self, key: PromiseKey) -> Optional[bytes]:
        """The object, None if there is none. Waits in the kernel if the key is declared or being written, at most
        `timeout` seconds.

        Raises BrokenPromise if the process that was to set it was killed, or it has failed otherwise; Cancelled if it
        was evicted meanwhile.
        """
        path = self._path(key)
        try:
            fd = _files.open_settled(path, path, self.timeout)
            try:
                return _files.read_all(fd)
            finally:
                os.close(fd)
        except FileNotFoundError:
            self._mount.check()
            return None
        except OSError as error:
            reason = _files.explain(error, path)
            if isinstance(reason, TimeoutError):
                return None
            raise reason from None

    def get_batch(self, keys: Sequence[PromiseKey]) -> list[Optional[bytes]]:
        """get() of each."""
        return [self.get(key) for key in keys]

    def exists(self, key: PromiseKey) -> bool:
        """True if the object is there, is being written, or has failed: False only where get() would give None or wait
        for somebody to begin. Never waits."""
        try:
            return _files.attribute(self._path(key), "state") != "pending"
        except FileNotFoundError:
            self._mount.check()
            return False

    def evict(self, key: PromiseKey) -> None:
        """Remove an object, if it is there."""
        with contextlib.suppress(FileNotFoundError), self._mount:
            os.unlink(self._path(key))

"""Scopes of objects that are evicted together. The file system ends them, also when this process is killed."""
from __future__ import annotations

import contextlib
import datetime
import os
import urllib.parse
import uuid
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _files
from .proxy import Proxy, is_proxy, source_of

if TYPE_CHECKING:
    from .store import Store

Expiry = Union[datetime.datetime, datetime.timedelta, float]
LONGEST_NAME = 255


def lease_of(expiry: Expiry, extend: bool = False) -> str:
    """The value of `user.promisefs.lease` for a moment, or for so much (seconds, timedelta) from now."""
    if isinstance(expiry, datetime.datetime):
        return expiry.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    seconds = expiry.total_seconds() if isinstance(expiry, datetime.timedelta) else expiry
    return f"{'+' if extend else ''}{max(round(seconds * 1000), 0)}ms"


class ContextLifetime:
    """A directory in `.promisefs/lifetimes`: what is added goes when it ends, at the end of the with block.

    It is not bound to this process: if that is killed before, the lifetime stays until somebody ends it. See
    StaticLifetime and LeaseLifetime. Raises FileExistsError if there is a lifetime of this name.

        >>> with promisefs.ContextLifetime(store) as lifetime:
        ...     key = store.put("value", lifetime=lifetime)
        >>> store.exists(key), lifetime.done()
        (False, True)
    """

    def __init__(self, store: Store, *, name: Optional[str] = None) -> None:
        self.store = store
        self.name = name if name is not None else str(uuid.uuid4())
        self.path = store._control(f"lifetimes/{self.name}")
        with store._mount:
            os.mkdir(self.path)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, store={self.store!r})"

    def __fspath__(self) -> str:
        return self.path

    def add_key(self, *keys: str, store: Optional[Store] = None) -> None:
        """Add keys, which may be futures. RuntimeError if it has ended, FileNotFoundError if a key is gone."""
        for key in keys:
            self._add(store or self.store, key)

    def add_proxy(self, *proxies: Proxy[Any]) -> None:
        """Add what these proxies stand for. Does not read them."""
        for proxy in proxies:
            if not is_proxy(proxy) or not hasattr(source_of(proxy), "store"):
                raise TypeError("only the proxies of a store can be added")
            source = source_of(proxy)
            self.add_key(source.key, store=source.store)

    def _add(self, store: Store, key: str) -> None:
        folder, path, name = self._folder(store), store._path(key), urllib.parse.quote(store._from_top(key), safe="")
        try:
            with store._mount:
                os.link(path, os.path.join(folder, name if len(name) <= LONGEST_NAME else str(uuid.uuid4())))
        except FileExistsError:
            if not os.path.samefile(path, os.path.join(folder, name)):  # it has that name from before a rename
                os.link(path, os.path.join(folder, str(uuid.uuid4())))
        except FileNotFoundError:
            if self.done():
                raise RuntimeError(f"the lifetime {self.name} has ended") from None
            raise

    def _folder(self, store: Store) -> str:
        return self.path

    def close(self) -> None:
        """End it now, unless it has ended: everything that was added is evicted. What somebody reads he keeps."""
        with contextlib.suppress(FileNotFoundError), self.store._mount:
            os.rmdir(self.path)

    def done(self) -> bool:
        """True if it has ended."""
        try:
            with self.store._mount:
                os.stat(self.path)
        except FileNotFoundError:
            return True
        return False


class LeaseLifetime(ContextLifetime):
    """A lifetime that ends by itself, whatever becomes of this process, at a moment or so many seconds from now.

        >>> lifetime = promisefs.LeaseLifetime(store, 3600)
        >>> key = store.put("value", lifetime=lifetime)
        >>> lifetime.extend(3600)                       # two hours in all
        >>> lifetime.extend(datetime.datetime.now())    # or, after all, now
    """

    def __init__(self, store: Store, expiry: Expiry, *, name: Optional[str] = None) -> None:
        lease = lease_of(expiry)
        super().__init__(store, name=name)
        try:
            _files.set_attribute(self.path, "lease", lease)
        except BaseException:
            self.close()
            raise

    def extend(self, expiry: Expiry) -> None:
        """Let it end so much later, or at this moment. RuntimeError if it has ended."""
        try:
            with self.store._mount:
                _files.set_attribute(self.path, "lease", lease_of(expiry, extend=True))
        except FileNotFoundError:
            raise RuntimeError(f"the lifetime {self.name} has ended") from None


class StaticLifetime(ContextLifetime):
    """The lifetime of this process: ends when it does, by whatever cause, SIGKILL included.

    There is one for each process and mount. An object of this class is of use in the process that has made it.

        >>> key = store.put("value", lifetime=promisefs.StaticLifetime())
    """

    def __init__(self, store: Optional[Store] = None) -> None:
        self.name, self.pid, self._closed = "self", os.getpid(), False
        self._folders: dict[str, str] = {}
        if store is not None:
            self.store = store
            self.path = self._folder(store)

    def __repr__(self) -> str:
        return f"StaticLifetime(pid={self.pid})"

    def add_key(self, *keys: str, store: Optional[Store] = None) -> None:
        """Add keys. ValueError if the store is given neither here nor to StaticLifetime()."""
        if store is None and not hasattr(self, "store"):
            raise ValueError("StaticLifetime needs to know the store")
        super().add_key(*keys, store=store)

    def _folder(self, store: Store) -> str:
        if self.done():
            raise RuntimeError("this lifetime has ended, or is that of another process")
        link = store._control("lifetimes/self")
        store._mount.check()
        return self._folders.setdefault(link, os.path.join(os.path.dirname(link), os.readlink(link)))

    def close(self) -> None:
        """End it before the process ends."""
        if not self.done():
            for folder in self._folders.values():
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(folder)
            self._closed = True

    def done(self) -> bool:
        return self._closed or os.getpid() != self.pid

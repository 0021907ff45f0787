"""promisefs for Python: values, futures, lifetimes and borrows as files of a promisefs mount.

    >>> store = promisefs.Store(mountpoint)       # any directory of a mount, say "/mnt/p"
    >>> future = store.future()                   # a path that any program can open before it is written
    >>> total = pool.submit(sum, future.proxy())  # waits, in the kernel, when it uses its argument
    >>> pool.submit(future.set_result, [1, 2, 3]).result()
    >>> total.result()
    6

Nothing but the standard library is needed. All rules are kept by the file system, so they hold for other processes and
programs too; this module only calls open, read, write, link, rename, unlink, and poll.
"""
from .connector import PromiseConnector, PromiseKey
from .errors import (BorrowError, BrokenPromise, Cancelled, InvalidStateError, MutableBorrowError,
                     ReferenceInvalidError, ReferenceNotOwnedError)
from .future import Future, as_completed, wait
from .lifetimes import ContextLifetime, LeaseLifetime, StaticLifetime
from .ownership import (Owned, Ref, RefMut, borrow, clone, drop, into_key, into_owned, mut_borrow, submit, update)
from .proxy import Proxy, extract, is_proxy, is_resolved
from .serializers import Serializer
from .store import Store

__version__ = "0.1.0"

__all__ = [
    "BorrowError", "BrokenPromise", "Cancelled", "ContextLifetime", "Future", "InvalidStateError", "LeaseLifetime",
    "MutableBorrowError", "Owned", "PromiseConnector", "PromiseKey", "Proxy", "Ref", "RefMut", "ReferenceInvalidError",
    "ReferenceNotOwnedError", "Serializer", "StaticLifetime", "Store", "as_completed", "borrow", "clone", "drop",
    "extract", "into_key", "into_owned", "is_proxy", "is_resolved", "mut_borrow", "submit", "update", "wait",
]

"""One owner, and many who read or one who writes, across processes: the rules are kept by the file system.

Owned, Ref and RefMut are proxies that have a handle: a file in `.promisefs/own`, `ref` or `mut`. The handle is bound to
the process that has it, so nothing is left behind when that is killed. Pickling one moves it: it is invalid here, and
bound to the process that unpickles it. os.fspath() gives the handle's path, for other programs.

    >>> owned = store.owned_proxy([1, 2])
    >>> first, second = promisefs.borrow(owned), promisefs.borrow(owned)
    >>> promisefs.mut_borrow(owned)
    Traceback (most recent call last):
    promisefs.errors.MutableBorrowError: [Errno 16] Device or resource busy: '...'
    >>> promisefs.drop(first, second)
    >>> mutable = promisefs.mut_borrow(owned)
    >>> mutable.append(3)
    >>> promisefs.update(mutable)
    >>> promisefs.drop(mutable)
    >>> owned
    <Owned of ...>
    >>> list(owned)
    [1, 2, 3]
"""
from __future__ import annotations

import contextlib
import errno
import os
import warnings
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping, NoReturn, Optional, Sequence, TypeVar

from . import _files
from .errors import MutableBorrowError, ReferenceInvalidError, ReferenceNotOwnedError
from .future import Source
from .proxy import Proxy, extract, forget, is_proxy, is_resolved, set_slot, source_of

if TYPE_CHECKING:
    from .store import Store

T = TypeVar("T")
NEW_HANDLE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def new_name() -> str:
    return f"python-{os.getpid()}-{os.urandom(8).hex()}"


def raise_borrow_error(error: OSError, path: str, store: Optional[Store] = None) -> NoReturn:
    """Raise what an errno means where handles are concerned."""
    if store is not None and error.errno == errno.ENOENT:
        store._mount.check()
    kinds = {errno.EBUSY: MutableBorrowError, errno.EPERM: ReferenceNotOwnedError, errno.ENOENT: ReferenceInvalidError}
    if error.errno in kinds:
        raise kinds[error.errno](error.errno, error.strerror, path) from None
    raise error


class Handle:
    """Reads through a handle; the source of the proxies below."""

    __slots__ = ("store", "kind", "name", "path", "pid", "valid")

    def __init__(self, store: Store, kind: str, name: str) -> None:
        self.store, self.kind, self.name = store, kind, name
        self.path = store._control(f"{kind}/{name}")
        self.pid, self.valid = os.getpid(), True

    def check(self) -> None:
        if not self.valid:
            raise ReferenceInvalidError(errno.ENOENT, "the reference was dropped, or has moved by being pickled",
                                        self.path)

    def __call__(self) -> Any:
        self.check()
        try:
            return self.store._load_path(self.path, self.path)
        except OSError as error:
            raise_borrow_error(error, self.path, self.store)

    def bind(self) -> None:
        """Have it end with this process. One that is gone is found out when it is used."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            _files.set_attribute(self.path, "pid", "self")

    def remove(self) -> None:
        """Drop a borrow, evict an owned object. MutableBorrowError if that is borrowed."""
        self.valid = False
        try:
            with self.store._mount:
                os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.valid = True
            raise_borrow_error(error, self.path, self.store)

    def abandon(self) -> None:
        """The same, and what is borrowed goes with its last borrow."""
        if self.valid and self.pid == os.getpid():
            try:
                self.remove()
            except MutableBorrowError:
                _files.set_attribute(self.path, "lease", "0ms")


class Reference(Proxy[T]):
    """What Owned, Ref and RefMut have in common. Not to be copied: see clone()."""

    __slots__ = ("_promise_owner",)

    def __init__(self, source: Handle, *target: T, owner: Any = None) -> None:
        super().__init__(source, *target)
        set_slot(self, "_promise_owner", owner)  # keeps the owner alive as long as it is borrowed here

    def __reduce_ex__(self, protocol: Any) -> Any:
        handle = source_of(self)
        handle.check()
        invalidate(self)
        return _arrived, (type(self), handle.store, handle.kind, handle.name)

    def __copy__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be copied; see clone() and borrow()")

    def __deepcopy__(self, memo: Any) -> NoReturn:
        self.__copy__()

    def __del__(self) -> None:
        try:
            source_of(self).abandon()
        except OSError as error:
            warnings.warn(f"{source_of(self).path}: {error}", ResourceWarning, stacklevel=2)
        except AttributeError:
            pass  # it was never made


class Owned(Reference[T]):
    """The owner of an object: evicts it when it is dropped or garbage, or its process ends."""

    __slots__ = ()


class Ref(Reference[T]):
    """An immutable borrow. The object stays as it is as long as there is one."""

    __slots__ = ()


class RefMut(Reference[T]):
    """The mutable borrow. Nobody else reads or writes the object; update() writes the value back."""

    __slots__ = ()


def _arrived(kind: Any, store: Store, directory: str, name: str) -> Reference[Any]:
    """A reference that was pickled is this process's now."""
    handle = Handle(store, directory, name)
    handle.bind()
    arrived: Reference[Any] = kind(handle)
    return arrived


def invalidate(reference: Any) -> None:
    """Using it raises ReferenceInvalidError from now on; the handle stays."""
    source_of(reference).valid = False
    forget(reference)
    set_slot(reference, "_promise_owner", None)


def is_owned(value: Any) -> bool:
    return issubclass(type(value), Owned)


def make_owned(store: Store, value: T, *, populate_target: bool) -> Owned[T]:
    handle = Handle(store, "own", new_name())
    buffers = store.serializer.dump(value)
    _files.write_whole(store._mount, handle.path, handle.path, buffers, NEW_HANDLE, pid="self")
    return Owned(handle, value) if populate_target else Owned(handle)


def own_handle(reference: Any, what: str) -> Handle:
    if not is_owned(reference):
        raise ReferenceNotOwnedError(errno.EPERM, f"only what is owned can be {what}")
    handle: Handle = source_of(reference)
    handle.check()
    return handle


def _borrow(owned: Any, kind: Any, directory: str, wait: bool, *target: Any) -> Any:
    owner = own_handle(owned, "borrowed")
    handle = Handle(owner.store, directory, new_name())
    try:
        os.link(owner.path, owner.store._control(f"await-{directory}/{handle.name}") if wait else handle.path)
    except OSError as error:
        raise_borrow_error(error, owner.path, owner.store)
    handle.bind()
    return kind(handle, *target, owner=owned)


def borrow(owned: Owned[T], *, populate_target: bool = True, wait: bool = False) -> Ref[T]:
    """Borrow immutably: any number at a time.

    MutableBorrowError if it is mutably borrowed; with wait=True it gets in line instead, and the first use waits until
    it is its turn. populate_target: pass on the value if the owner has it. ReferenceNotOwnedError if it is no Owned,
    ReferenceInvalidError if that was dropped or moved.
    """
    target = (extract(owned),) if populate_target and not wait and is_owned(owned) and is_resolved(owned) else ()
    borrowed: Ref[T] = _borrow(owned, Ref, "ref", wait, *target)
    return borrowed


def mut_borrow(owned: Owned[T], *, populate_target: bool = True, wait: bool = False) -> RefMut[T]:
    """Borrow mutably: one at a time, and no other. The owner reads the value anew afterwards.

    MutableBorrowError if it is borrowed; with wait=True it gets in line instead. Otherwise as borrow().
    """
    target = (extract(owned),) if populate_target and not wait and is_owned(owned) and is_resolved(owned) else ()
    borrowed: RefMut[T] = _borrow(owned, RefMut, "mut", wait, *target)
    forget(owned)
    return borrowed


def clone(owned: Owned[T]) -> Owned[T]:
    """A copy of the object with an owner of its own. MutableBorrowError if it is mutably borrowed."""
    owner = own_handle(owned, "cloned")
    copy = Handle(owner.store, "own", new_name())
    try:
        fd = _files.open_settled(owner.path, owner.path)
    except OSError as error:
        raise_borrow_error(error, owner.path, owner.store)
    with open(fd, "rb", buffering=0) as file:
        blocks = iter(lambda: file.read(1 << 20), b"")
        _files.write_whole(copy.store._mount, copy.path, copy.path, blocks, NEW_HANDLE, pid="self")
    return Owned(copy)


def into_owned(proxy: Proxy[T], *, populate_target: bool = True) -> Owned[T]:
    """Make the owner of a key's object of a Proxy; the key is gone. ValueError if it is a reference already.

    FileNotFoundError if the key is gone, OSError (EMLINK) if the object has other keys.
    """
    if not is_proxy(proxy) or issubclass(type(proxy), Reference) or not isinstance(source_of(proxy), Source):
        raise ValueError("only the Proxy of a key can be made an owner")
    source = source_of(proxy)
    handle = Handle(source.store, "own", new_name())
    with source.store._mount:
        os.rename(source.store._path(source.key), handle.path)
    handle.bind()
    return Owned(handle, extract(proxy)) if populate_target and is_resolved(proxy) else Owned(handle)


def into_key(owned: Owned[T], key: Optional[str] = None) -> str:
    """Give an owned object back to a key, and return that. It may be borrowed; what the key had before is replaced."""
    owner = own_handle(owned, "given to a key")
    key = key if key is not None else owner.store._new_key()
    path = owner.store._path(key)
    try:
        if os.path.lexists(owner.path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        os.rename(owner.path, path)
    except OSError as error:
        raise_borrow_error(error, owner.path, owner.store)
    invalidate(owned)
    return key


def update(reference: Any) -> None:
    """Write the value of an Owned or a RefMut back, whole; does nothing if it was never used.

    ReferenceNotOwnedError if it is an immutable borrow, MutableBorrowError if it is an Owned that is borrowed.
    """
    if not issubclass(type(reference), (Owned, RefMut)):
        raise ReferenceNotOwnedError(errno.EPERM, "an immutable borrow cannot be written")
    handle = source_of(reference)
    handle.check()
    if not is_resolved(reference):
        return
    buffers = handle.store.serializer.dump(extract(reference))
    try:
        _files.write_whole(handle.store._mount, handle.path, handle.path, buffers, os.O_WRONLY | os.O_TRUNC)
    except OSError as error:
        raise_borrow_error(error, handle.path, handle.store)


def drop(*references: Any) -> None:
    """End references now: borrows are given back, owned objects evicted (MutableBorrowError if borrowed)."""
    for reference in references:
        handle = source_of(reference)
        if handle.valid:
            handle.remove()
            invalidate(reference)


def submit(submit_func: Callable[..., Any], *, args: Sequence[Any] = (), kwargs: Optional[Mapping[str, Any]] = None,
           register_custom_refs: Iterable[Any] = ()) -> Any:
    """submit_func(*args, **kwargs), and drop the borrows among the arguments when the future that it returns is done.

    submit_func is the submit() of an executor, or like it: its future has add_done_callback(). Borrows inside other
    objects are named in register_custom_refs. A worker that is killed gives its borrows back even before that. Waits
    for nothing. ReferenceInvalidError if one of them was dropped or has moved.

        >>> owned = store.owned_proxy([1, 2, 3])
        >>> promisefs.submit(pool.submit, args=(sum, promisefs.borrow(owned))).result()
        6
    """
    kwargs = kwargs or {}
    wanted = (*register_custom_refs, *args, *kwargs.values())
    handles = [source_of(ref) for ref in wanted if issubclass(type(ref), (Ref, RefMut))]
    for handle in handles:
        handle.check()
    references = [ref for ref in wanted if issubclass(type(ref), (Ref, RefMut))]
    future = submit_func(*args, **kwargs)

    def done(_: Any) -> None:
        for reference, handle in zip(references, handles):
            with contextlib.suppress(OSError):
                handle.remove()
            invalidate(reference)

    future.add_done_callback(done)
    return future

"""Objects that are read when they are first used."""
from __future__ import annotations

import math
import operator
import os
import threading
from typing import Any, Callable, Generic, TypeVar

T = TypeVar("T")


# A lock that some other thread had when this process was forked is never released: locks of before are not used.
_forks = 0
_renewing = threading.Lock()


def _forked() -> None:
    global _forks, _renewing
    _forks, _renewing = _forks + 1, threading.Lock()


os.register_at_fork(after_in_child=_forked)


class Proxy(Generic[T]):
    """Stands for a value in a store, and is read, once, when it is first used: open(2) waits for it if it must.

    Attributes, operators, calls, iteration and isinstance() are those of the value. What does not read it: repr(),
    pickling (a path travels, not the value), os.fspath() (the path, for other programs), and the functions
    is_resolved() and extract() of this module. Functions in C that demand a real str, bytes, list or dict need
    extract(proxy). Using it raises what reading does: BrokenPromise, FileNotFoundError if the key is gone, and so on.

        >>> proxy = store.proxy([3, 1, 2])
        >>> proxy
        <Proxy of ...>
        >>> sorted(proxy), isinstance(proxy, list), type(proxy) is promisefs.Proxy
        ([1, 2, 3], True, True)
        >>> proxy
        [3, 1, 2]
    """

    __slots__ = ("_promise_source", "_promise_target", "_promise_lock", "__weakref__")
    _promise_source: Any
    _promise_target: Any

    def __init__(self, source: Callable[[], T], *target: T) -> None:
        set_slot(self, "_promise_source", source)
        set_slot(self, "_promise_lock", (_forks, threading.Lock()))
        for value in target:
            set_slot(self, "_promise_target", value)

    def __getattr__(self, name: str) -> Any:
        return getattr(value_of(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(value_of(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(value_of(self), name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return value_of(self).__class__

    def __repr__(self) -> str:
        """Of the value when it is here; where it is otherwise, so that a debugger does not wait."""
        return repr(value_of(self)) if is_resolved(self) else f"<{type(self).__name__} of {source_of(self).path}>"

    def __fspath__(self) -> str:
        return str(source_of(self).path)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (source_of(self),)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __copy__(self) -> Any:
        return type(self)(source_of(self))

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__copy__()

    def __dir__(self) -> Any:
        return dir(value_of(self))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return value_of(self)(*args, **kwargs)

    def __enter__(self) -> Any:
        return value_of(self).__enter__()

    def __exit__(self, *error: Any) -> Any:
        return value_of(self).__exit__(*error)

    def __contains__(self, item: Any) -> bool:
        return item in value_of(self)

    def __format__(self, how: str) -> str:
        return format(value_of(self), how)

    def __setitem__(self, key: Any, value: Any) -> None:
        value_of(self)[key] = value

    def __delitem__(self, key: Any) -> None:
        del value_of(self)[key]


def set_slot(proxy: Any, name: str, value: Any) -> None:
    object.__setattr__(proxy, name, value)


def source_of(proxy: Any) -> Any:
    """Where a proxy reads from."""
    return object.__getattribute__(proxy, "_promise_source")


def is_proxy(value: Any) -> bool:
    """True for a Proxy of any kind. Does not read it."""
    return issubclass(type(value), Proxy)


def is_resolved(proxy: Proxy[Any]) -> bool:
    """True if the value is here already. Does not read it."""
    try:
        object.__getattribute__(proxy, "_promise_target")
    except AttributeError:
        return False
    return True


def lock_of(proxy: Any) -> threading.Lock:
    with _renewing:
        forks, lock = object.__getattribute__(proxy, "_promise_lock")
        if forks != _forks:
            lock = threading.Lock()
            set_slot(proxy, "_promise_lock", (_forks, lock))
    own: threading.Lock = lock
    return own


def value_of(proxy: Any) -> Any:
    """extract() for this module."""
    try:
        return object.__getattribute__(proxy, "_promise_target")
    except AttributeError:
        pass
    with lock_of(proxy):
        if not is_resolved(proxy):
            set_slot(proxy, "_promise_target", source_of(proxy)())
    return object.__getattribute__(proxy, "_promise_target")


def extract(proxy: Proxy[T]) -> T:
    """The value itself, read when it is not here yet; that may wait."""
    value: T = value_of(proxy)
    return value


def forget(proxy: Any) -> None:
    """Drop the value that is here; the next use reads it again."""
    if is_resolved(proxy):
        object.__delattr__(proxy, "_promise_target")


def _forward(name: str, function: Callable[..., Any]) -> None:
    def method(self: Any, *args: Any) -> Any:
        return function(value_of(self), *args)

    method.__name__ = name
    setattr(Proxy, name, method)


def _reflect(name: str, function: Callable[..., Any]) -> None:
    def method(self: Any, other: Any, *args: Any) -> Any:
        return function(other, value_of(self), *args)

    method.__name__ = name
    setattr(Proxy, name, method)


def _in_place(name: str, function: Callable[..., Any]) -> None:
    def method(self: Any, other: Any) -> Any:
        set_slot(self, "_promise_target", function(value_of(self), other))
        return self

    method.__name__ = name
    setattr(Proxy, name, method)


for _name in ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "lshift", "rshift", "and", "xor", "or",
              "pow"):
    _function = pow if _name == "pow" else getattr(operator, f"__{_name}__")
    _forward(f"__{_name}__", _function)
    _reflect(f"__r{_name}__", _function)
    _in_place(f"__i{_name}__", getattr(operator, f"__i{_name}__"))
_forward("__divmod__", divmod)
_reflect("__rdivmod__", divmod)
for _name, _function in {
    "neg": operator.neg, "pos": operator.pos, "abs": abs, "invert": operator.invert, "index": operator.index,
    "int": int, "float": float, "complex": complex, "bool": bool, "str": str, "bytes": bytes, "hash": hash,
    "len": len, "iter": iter, "next": next, "reversed": reversed, "round": round, "trunc": math.trunc,
    "floor": math.floor, "ceil": math.ceil, "getitem": operator.getitem, "length_hint": operator.length_hint,
    "lt": operator.lt, "le": operator.le, "eq": operator.eq, "ne": operator.ne, "gt": operator.gt, "ge": operator.ge,
}.items():
    _forward(f"__{_name}__", _function)

"""How a Python value becomes the bytes of a file, and back. Other programs see these bytes."""
from __future__ import annotations

import dataclasses
import errno
import mmap
import os
import pickle
import sys
from typing import Any, Callable, Iterable, Union

from . import _drafts, _files

PICKLE_MARKS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1))
NUMPY_MARK = b"\x93NUMPY"


@dataclasses.dataclass(frozen=True)
class Serializer:
    """dump(value) gives the buffers to write, one after the other; load(fd) the value of an open file.

    Both must be importable functions where a Store, a Future or a Proxy that uses them is pickled.

        >>> text = promisefs.Serializer(lambda value: [value.encode()], lambda fd: os.read(fd, 1000).decode())
        >>> texts = promisefs.Store(store, serializer=text)
        >>> texts.get(texts.put("as it is"))
        'as it is'
    """

    dump: Callable[[Any], Iterable[Any]]
    load: Callable[[int], Any]


def dump_bytes(value: Any) -> list[Any]:
    return [value]


def dump_pickle(value: Any) -> list[Any]:
    return [pickle.dumps(value, protocol=5)]


def load_pickle(fd: int) -> Any:
    return pickle.loads(_files.read_all(fd))


def load_view(fd: int) -> memoryview:
    """A read-only view of the mapped file: no byte is copied, unless it was opened before it was set."""
    os.pread(fd, 1, 0)  # raises what reading does; the size of what is not set is 0
    if os.fstat(fd).st_size == 0:
        return memoryview(b"")
    try:
        return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY)).toreadonly()
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    return memoryview(_files.read_all(fd))


def dump_numpy(value: Any) -> list[Any]:
    """The .npy format, from the array's own memory."""
    import io

    import numpy

    npy: Any = numpy.lib.format
    array = numpy.asanyarray(value)
    if array.dtype.hasobject:
        raise TypeError("arrays of Python objects have no bytes of their own; use the serializer pickle")
    header = npy.header_data_from_array_1_0(array)
    if header["fortran_order"]:
        array = array.T
    array = numpy.ascontiguousarray(array)
    head = io.BytesIO()
    npy.write_array_header_1_0(head, header)
    return [head.getvalue(), array.reshape(-1).view(numpy.uint8)] if array.size else [head.getvalue()]


def load_numpy(fd: int) -> Any:
    """An array on the mapped file: no byte is copied, unless it was opened before it was set. Writing to it changes
    this process's copy only."""
    import numpy

    os.pread(fd, 1, 0)
    npy: Any = numpy.lib.format
    with open(fd, "rb", closefd=False) as file:
        if npy.read_magic(file) != (1, 0):  # of another program; 1.0 is what numpy writes, too
            file.seek(0)
            return npy.read_array(file)
        shape, fortran, dtype = npy.read_array_header_1_0(file)
        if 0 in shape or dtype.itemsize == 0:
            return numpy.empty(shape, dtype)
        try:
            array = numpy.memmap(file, dtype, "c", file.tell(), shape or (1,), "F" if fortran else "C")
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            file.seek(0)
            return npy.read_array(file)
    return array if shape else array.reshape(())


def dump_auto(value: Any) -> list[Any]:
    if type(value) is bytes and not value.startswith((NUMPY_MARK, *PICKLE_MARKS)):
        return [value]
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value) in (numpy.ndarray, numpy.memmap) and not value.dtype.hasobject:
        return dump_numpy(value)
    return dump_pickle(value)


def load_auto(fd: int) -> Any:
    data = os.read(fd, _drafts.BLOCK)
    if data.startswith(NUMPY_MARK):
        os.lseek(fd, 0, os.SEEK_SET)
        return load_numpy(fd)
    if len(data) == _drafts.BLOCK:
        data = _files.read_all(fd, data)
    return pickle.loads(data) if data.startswith(PICKLE_MARKS) else data


#: Bytes are the file; what begins like a pickle or a .npy file is read as one; all other values are pickled.
auto = Serializer(dump_auto, load_auto)
#: Everything is pickled (protocol 5). Who may write the store can make its readers run code: as with auto.
pickled = Serializer(dump_pickle, load_pickle)
#: Bytes, and anything with the buffer protocol; read as bytes.
raw = Serializer(dump_bytes, _files.read_all)
#: The same, read as a memoryview of the mapped file.
view = Serializer(dump_bytes, load_view)
#: Arrays, as .npy files that are mapped when they are read.
array = Serializer(dump_numpy, load_numpy)

NAMES = {"auto": auto, "pickle": pickled, "bytes": raw, "view": view, "numpy": array}


def get(serializer: Union[str, Serializer]) -> Serializer:
    """A serializer by its name; ValueError if there is none of that name."""
    if isinstance(serializer, Serializer):
        return serializer
    if serializer not in NAMES:
        raise ValueError(f"no serializer {serializer!r}; there are {', '.join(NAMES)}")
    return NAMES[serializer]

"""A process that test_model.py has calls done by: it reads requests from descriptor 0 and answers on descriptor 1.

A request is a list of calls (name, arguments), the answer a list of outcomes: ("ok", value) or ("errno", name), each as
a length and a pickle. Open files have the numbers that the test gives them.
"""
import errno
import os
import pickle
import stat
import struct

FLAGS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "+": os.O_RDWR, "t": os.O_TRUNC, "c": os.O_CREAT, "x": os.O_EXCL,
         "a": os.O_APPEND, "n": os.O_NONBLOCK}
OURS = "user.promisefs."
files = {}


def open_file(number, path, flags):
    bits = 0
    for letter in flags:
        bits |= FLAGS[letter]
    if "+" in flags:
        bits &= ~os.O_WRONLY
    fd = os.open(path, bits, 0o666)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EISDIR, "a directory")
    files[number] = fd


def read(number):
    return os.pread(files[number], 1 << 20, 0)


def write(number, data):
    return os.write(files[number], data)


def truncate_open(number, size):
    os.ftruncate(files[number], size)


def fsync(number):
    os.fsync(files[number])


def close(number):
    os.close(files.pop(number))


def close_all():
    """Whatever close(2) says: the daemon may be dead."""
    for number in list(files):
        try:
            close(number)
        except OSError:
            pass


def rename_new(source, path):
    """rename(2) that does not replace."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(path), 1) < 0:
        raise OSError(ctypes.get_errno(), path)


def declare(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))


def set_future(path, data):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def get(path, name):
    """user.promisefs.NAME, None if there is none."""
    return get_theirs(path, OURS + name)


def get_theirs(path, name):
    try:
        return os.getxattr(path, name, follow_symlinks=False).decode()
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise


def set_ours(path, name, value):
    os.setxattr(path, OURS + name, value.encode())


def set_theirs(path, name, value):
    os.setxattr(path, name, value.encode())


def listing(path):
    return sorted(os.listdir(path))


def content(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def links(path):
    return os.lstat(path).st_nlink


def outcome(name, arguments):
    try:
        return "ok", (globals().get(name) or getattr(os, name))(*arguments)
    except OSError as error:
        return "errno", errno.errorcode.get(error.errno, str(error.errno))


def exactly(count):
    data = b""
    while len(data) < count:
        part = os.read(0, count - len(data))
        if not part:
            os._exit(0)
        data += part
    return data


def main():
    while True:
        calls = pickle.loads(exactly(*struct.unpack("=I", exactly(4))))
        body = pickle.dumps([outcome(name, arguments) for name, arguments in calls])
        data = struct.pack("=I", len(body)) + body
        while data:
            data = data[os.write(1, data):]


main()

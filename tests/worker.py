"""The child process of the tests: does what may block, and reports over a pipe.

It reads requests (id, threaded, name, args, kwargs) from descriptor 0 and answers (id, outcome) on descriptor 1,
both as a length and a pickle. A name is a function of this file or of `os`. The parent is class Worker in pfs.py, which
passes this source with -c, so that a user who cannot read the repository can run it too.
"""
import ctypes
import mmap
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

MAPS = {}
reply_lock = threading.Lock()


class Interrupted(Exception):
    pass


# ---- calls that tests ask for ----------------------------------------------------------------------------------------

def read_fd(fd, size=1 << 20):
    parts = []
    while part := os.read(fd, size):
        parts.append(part)
    return b"".join(parts)


def read_path(path, flags=os.O_RDONLY, size=1 << 20):
    fd = os.open(path, flags)
    try:
        return read_fd(fd, size)
    finally:
        os.close(fd)


def open_and_look(path):
    """What a reader knows directly after open: size, bytes read, bytes mapped. Leaves the file open."""
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    mapped = b""
    if size:
        MAPS[fd] = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        mapped = MAPS[fd][:]
    return {"fd": fd, "size": size, "bytes": os.pread(fd, size + 100, 0), "mapped": mapped}


def look_again(fd):
    """The same for a file that open_and_look left open."""
    size = os.fstat(fd).st_size
    return {"fd": fd, "size": size, "bytes": os.pread(fd, size + 100, 0), "mapped": MAPS[fd][:] if fd in MAPS else b""}


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def write_path(path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode=0o666):
    fd = os.open(path, flags, mode)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def append_lines(path, tag, count):
    """One descriptor, `count` appends of one line each."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for i in range(count):
        os.write(fd, b"%s %d\n" % (tag, i))
    os.close(fd)


def mmap_write(path, data):
    """Write a file through a shared mapping that outlives the descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    os.ftruncate(fd, len(data))
    with mmap.mmap(fd, len(data)) as area:
        area[:] = data
        os.close(fd)


def map_and_close(path, size, flags=os.O_RDWR, prot=mmap.PROT_READ | mmap.PROT_WRITE, shared=True):
    """Map a file and keep nothing but the mapping, as programs in C do (Python's mmap keeps a descriptor); its address."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_ssize_t
    fd = os.open(path, flags, 0o666)
    if os.fstat(fd).st_size < size:
        os.ftruncate(fd, size)
    kind = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
    at = libc.mmap(None, ctypes.c_size_t(size), prot, kind, fd, ctypes.c_long(0))
    error = ctypes.get_errno()
    os.close(fd)
    if at == -1:
        raise OSError(error, os.strerror(error), path)
    return at


def look_and_store(path, offset, data):
    """Read a file through a mapping, then write a part of it through the same."""
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, 0) as area:
        before = area[:]
        area[offset:offset + len(data)] = data
    os.close(fd)
    return before


def store(at, data):
    ctypes.memmove(at, data, len(data))


def look(at, size):
    return ctypes.string_at(at, size)


def unmap(at, size):
    ctypes.CDLL(None).munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))


def c_open(path, flags):
    """open(2) as a C program does it: EINTR is not tried again."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.open(os.fsencode(path), flags, 0o666)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return fd


def libc_call(name, *args):
    """A function of the C library, as it is: bytes are pointers to them, anything else are numbers."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = getattr(libc, name)(*(arg if isinstance(arg, bytes) else ctypes.c_long(arg) for arg in args))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return result


def renameat2(old, new, flags):
    libc_call("renameat2", -100, os.fsencode(old), -100, os.fsencode(new), flags)


def readlink_into(path, size):
    buffer = ctypes.create_string_buffer(size + 1)
    libc = ctypes.CDLL(None, use_errno=True)
    count = libc.readlink(path, buffer, ctypes.c_size_t(size))
    if count < 0:
        raise OSError(ctypes.get_errno(), "readlink")
    return buffer.raw[:count]


def ask_the_daemon(path, seconds):
    """stat(2) again and again, of the daemon itself also when the kernel knows (AT_STATX_FORCE_SYNC)."""
    libc = ctypes.CDLL(None)
    buffer = ctypes.create_string_buffer(512)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        libc.statx(-100, os.fsencode(path), 0x2000, 0x7ff, buffer)


def bind_socket(folder, name):
    """A socket in the file system, wherever that is: the address has room for 107 bytes."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def handle(signum, raising=False, restarts=False):
    """Install a handler, with or without an exception, with or without SA_RESTART."""
    def handler(number, frame):
        if raising:
            raise Interrupted()
    signal.signal(signum, handler)
    signal.siginterrupt(signum, not restarts)


def wait_readable(fd, how, timeout):
    """Wait with select, poll or epoll; true if the descriptor became readable."""
    if how == "select":
        return bool(select.select([fd], [], [], timeout)[0])
    if how == "poll":
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return any(event & select.POLLIN for _, event in poller.poll(timeout * 1000))
    poller = select.epoll()
    try:
        poller.register(fd, select.EPOLLIN | (select.EPOLLET if how == "epoll-edge" else 0))
        return any(event & select.EPOLLIN for _, event in poller.poll(timeout))
    finally:
        poller.close()


def fork_call(name, *args):
    """Run a call in a forked child, which inherits every descriptor, and return its result."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        with os.fdopen(sink, "wb") as pipe:
            pickle.dump(outcome(name, args, {}), pipe)
        os._exit(0)
    os.close(sink)
    with os.fdopen(source, "rb") as pipe:
        answer = pickle.load(pipe)
    os.waitpid(pid, 0)
    if answer[0] == "errno":
        raise OSError(answer[1], answer[2])
    return answer[1]


def fork_holder(fifo):
    """Fork a child that keeps every descriptor until somebody opens the fifo for writing; return its pid."""
    pid = os.fork()
    if pid == 0:
        os.close(0)
        os.close(1)
        os.open(fifo, os.O_RDONLY)
        os._exit(0)
    return pid


def run(argv, keep=(), close_fds=True):
    """Run a program to its end; `keep` are descriptors it inherits."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, pass_fds=keep, close_fds=close_fds)
    return done.returncode, done.stdout, done.stderr


def exec_program(argv):
    """Become another program; open descriptors are CLOEXEC as Python makes them."""
    os.execv(argv[0], argv)


def busy_threads(count):
    """Start threads that sit in the process until it ends."""
    for _ in range(count):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return threading.active_count()


def raise_signal(number):
    """Die of a signal, with the default action."""
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pause()


def open_many(paths, stack=256 * 1024):
    """Open and read every path in a thread of its own; {outcome: count}, an outcome being an errno or bytes."""
    threading.stack_size(stack)
    outcomes = {}
    lock = threading.Lock()

    def one(path):
        try:
            fd = os.open(path, os.O_RDONLY)
            key = os.read(fd, 100)
            os.close(fd)
        except OSError as error:
            key = error.errno
        with lock:
            outcomes[key] = outcomes.get(key, 0) + 1

    threads = [threading.Thread(target=one, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


# ---- the protocol ----------------------------------------------------------------------------------------------------

def outcome(name, args, kwargs):
    try:
        return "ok", (globals().get(name) or getattr(os, name))(*args, **kwargs)
    except OSError as error:
        return "errno", error.errno, str(error)
    except BaseException as error:
        return "exception", repr(error)


def answer(number, name, args, kwargs):
    result = outcome(name, args, kwargs)
    try:
        body = pickle.dumps((number, result))
    except Exception:
        body = pickle.dumps((number, ("ok", str(result[1]))))
    with reply_lock:
        write_all(1, struct.pack("=I", len(body)) + body)


def read_exactly(count):
    data = b""
    while len(data) < count:
        part = os.read(0, count - len(data))
        if not part:
            os._exit(0)
        data += part
    return data


def main():
    try:
        while True:
            number, threaded, name, args, kwargs = pickle.loads(read_exactly(*struct.unpack("=I", read_exactly(4))))
            if threaded:
                threading.Thread(target=answer, args=(number, name, args, kwargs), daemon=True).start()
            else:
                answer(number, name, args, kwargs)
    except (KeyboardInterrupt, Interrupted):
        sys.exit(1)


if __name__ == "__main__":
    main()

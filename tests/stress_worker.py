"""One process of the stress test: random operations on a mount, every object read is checked.

An object describes itself: a header (magic, name it was written for, writer, counter, length, checksum) and a body. So
a torn or mixed object is recognised by whoever reads it. Kinds of keys:
  own/P-N     written directly by process P only, read by all: a reader never sees an older version after a newer one
  shared/N    replaced by rename and exchange by all
  futures/P-N declared by process P, which settles each of them in one of several ways; all wait for them
Prints one JSON object at the end: what was done, and what the own keys must be now.
"""
import errno
import json
import os
import random
import select
import signal
import struct
import sys
import threading
import time
import zlib
from ctypes import CDLL, get_errno

HEADER = struct.Struct("=8s48sIQII")
MAGIC = b"promise1"
OWN, SHARED, WAITERS = 4, 6, 6
PROCESSES = 8
RENAME_EXCHANGE = 2
SETTLED_ERRORS = {errno.EIO, errno.ENOLINK, errno.ECANCELED, errno.ETIMEDOUT, errno.ENOENT, errno.EOWNERDEAD}
libc = CDLL(None, use_errno=True)


def make_object(name, writer, counter, size):
    """An object's bytes."""
    block = struct.pack("=QQ", counter * 2654435761 % 2**64, writer + 1) * (size // 16 + 1)
    body = block[:size]
    return HEADER.pack(MAGIC, name.encode(), writer, counter, size, zlib.crc32(body)) + body


def check_object(data, where):
    """(name, writer, counter) of whole bytes; raises AssertionError for anything else."""
    assert len(data) >= HEADER.size, f"{where}: torn, only {len(data)} bytes"
    magic, name, writer, counter, size, checksum = HEADER.unpack_from(data)
    body = data[HEADER.size:]
    assert magic == MAGIC, f"{where}: no header: {data[:20]!r}"
    assert len(body) == size, f"{where}: torn, {len(body)} of {size} bytes of writer {writer} counter {counter}"
    assert zlib.crc32(body) == checksum, f"{where}: wrong bytes of writer {writer} counter {counter}"
    return name.rstrip(b"\0").decode(), writer, counter


def read_all(fd):
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def read_object(path, flags=os.O_RDONLY):
    fd = os.open(path, flags)
    try:
        size = os.fstat(fd).st_size
        data = read_all(fd)
        after = os.fstat(fd).st_size
        assert len(data) == size == after, f"{path}: fstat {size}, read {len(data)}, fstat again {after}"
        return check_object(data, path)
    finally:
        os.close(fd)


class Process:
    def __init__(self, root, number, seed, seconds):
        self.root, self.number = root, number
        self.random = random.Random(seed * 1000 + number)
        self.end = time.monotonic() + seconds
        self.counter = 0
        self.expected = {f"own/{number}-{n}": None for n in range(OWN)}
        self.newest = {}
        self.futures = 0
        self.pending, self.cancelled = [], []
        self.waiters = []
        self.done = {}
        self.failure = []
        self.lock = threading.Lock()

    def path(self, name):
        return f"{self.root}/{name}"

    def count(self, what):
        with self.lock:
            self.done[what] = self.done.get(what, 0) + 1

    def write(self, path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        """Write in pieces of random size."""
        fd = os.open(path, flags, 0o644)
        try:
            at = 0
            while at < len(data):
                at += os.write(fd, data[at:at + self.random.choice((1 << 20, 65536, 5000))])
        finally:
            os.close(fd)

    def new_object(self, name):
        self.counter += 1
        return make_object(name, self.number, self.counter, int(self.random.paretovariate(0.6) * 100) % 300_000)

    def check(self, name, found):
        """What a reader knows of own keys: the name is right, and versions never go back."""
        if found and name.startswith("own/"):
            assert found[0] == name and f"{found[1]}-" == name[4:].split("-")[0] + "-", (name, found)
            with self.lock:
                assert found[2] >= self.newest.get(name, 0), f"{name}: {found[2]} after {self.newest.get(name)}"
                self.newest[name] = found[2]

    # ---- operations --------------------------------------------------------------------------------------------------

    def put(self):
        name = f"own/{self.number}-{self.random.randrange(OWN)}"
        data = self.new_object(name)
        if self.random.random() < 0.3 and self.expected[name] is not None:
            self.overwrite(name, data)
        else:
            self.write(self.path(name), data)
        self.expected[name] = self.counter
        assert read_object(self.path(name))[2] == self.counter, f"{name}: does not read what it just wrote"

    def overwrite(self, name, data):
        """The draft starts from the current version, and gets a new length."""
        fd = os.open(self.path(name), os.O_RDWR)
        try:
            check_object(os.pread(fd, os.fstat(fd).st_size, 0), name)
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, len(data))
        finally:
            os.close(fd)

    def put_shared(self):
        name = f"shared/{self.random.randrange(SHARED)}"
        temporary = self.path(f"tmp/{self.number}")
        self.write(temporary, self.new_object("shared"))
        os.rename(temporary, self.path(name))

    def exchange(self):
        first, second = self.random.sample(range(SHARED), 2)
        if libc.renameat2(-100, self.path(f"shared/{first}").encode(), -100, self.path(f"shared/{second}").encode(),
                          RENAME_EXCHANGE) < 0 and get_errno() != errno.ENOENT:
            raise OSError(get_errno(), "renameat2")

    def get(self):
        folder = self.random.choice(("own", "shared"))
        names = os.listdir(self.path(folder))
        if names:
            name = f"{folder}/{self.random.choice(names)}"
            self.attempt(name, lambda: read_object(self.path(name)), {errno.ENOENT, errno.EOWNERDEAD, errno.ECANCELED})

    def attempt(self, name, call, allowed):
        try:
            self.check(name, call())
        except OSError as error:
            assert error.errno in allowed, f"{name}: {error}"
            self.count(errno.errorcode[error.errno])

    def get_while_writing(self):
        """A reader that holds a draft itself: it may be told of a deadlock, but never hangs."""
        name = f"own/{self.number}-{self.random.randrange(OWN)}"
        other = f"own/{self.random.randrange(PROCESSES)}-{self.random.randrange(OWN)}"
        data = self.new_object(name)
        fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            if other != name:
                self.attempt(other, lambda: read_object(self.path(other)),
                             {errno.ENOENT, errno.EDEADLK, errno.EOWNERDEAD, errno.ECANCELED})
            at = 0
            while at < len(data):
                at += os.write(fd, data[at:])
        finally:
            os.close(fd)
        self.expected[name] = self.counter

    def hold_and_look_again(self):
        """What is open stays the same."""
        name = f"shared/{self.random.randrange(SHARED)}"
        try:
            fd = os.open(self.path(name), os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            first = check_object(os.pread(fd, 1 << 20, 0), name)
            self.put_shared()
            assert check_object(os.pread(fd, 1 << 20, 0), name) == first
        finally:
            os.close(fd)

    def evict(self):
        name = f"own/{self.number}-{self.random.randrange(OWN)}"
        if self.expected[name] is not None:
            os.unlink(self.path(name))
            self.expected[name] = None

    def link(self):
        """A second name for an own key, seen, and gone."""
        name = next((name for name, counter in self.expected.items() if counter), None)
        if name:
            second = self.path(f"tmp/link-{self.number}")
            os.link(self.path(name), second)
            assert read_object(second)[2] == self.expected[name]
            os.unlink(second)

    def attributes(self):
        name = next((name for name, counter in self.expected.items() if counter), None)
        if name:
            value = b"%d" % self.random.randrange(1000)
            os.setxattr(self.path(name), "user.stress", value)
            os.chmod(self.path(name), 0o600 | self.random.randrange(64))
            assert os.getxattr(self.path(name), "user.stress") == value

    def killed_writer(self):
        """A child is killed in the middle of a write: nobody ever sees its bytes."""
        name = f"own/{self.number}-{self.random.randrange(OWN)}"
        data = self.new_object(name)
        pid = os.fork()
        if pid == 0:
            fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.write(fd, data[:max(1, len(data) // 2)])
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        self.settle_own(name)

    def settle_own(self, name):
        """After a writer's death the old version is there, or nothing."""
        try:
            counter = read_object(self.path(name))[2]
        except OSError as error:
            assert error.errno in (errno.ENOENT, errno.EOWNERDEAD), error
            counter = None
        assert counter == self.expected[name], f"{name}: {counter} after a killed writer, not {self.expected[name]}"

    # ---- futures -----------------------------------------------------------------------------------------------------

    def declare(self):
        name = f"futures/{self.number}-{self.futures}"
        self.futures += 1
        os.close(os.open(f"{self.root}/.promisefs/future/{name}", os.O_WRONLY | os.O_CREAT, 0o644))
        self.pending.append(name)
        if len(self.pending) > 4:
            self.settle()
        old = f"futures/{self.number}-{self.futures - 60}"
        if self.futures > 60 and old not in self.pending:
            self.forget(old)

    def forget(self, name):
        """Evict an old future, so that there are never too many; a cancelled one is gone already."""
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            pass

    def revive(self):
        """Somebody may still await a key that was cancelled."""
        if self.cancelled:
            self.settle_by_set(self.cancelled.pop(), os.O_WRONLY | os.O_CREAT)

    def settle(self):
        if self.pending:
            name = self.pending.pop(self.random.randrange(len(self.pending)))
            how = self.random.choice(("set", "set", "rename", "fail", "cancel", "deadline", "kill"))
            getattr(self, "settle_by_" + how)(name)
            self.count("settle_by_" + how)

    def settle_by_set(self, name, flags=os.O_WRONLY):
        self.write(self.path(name), self.new_object(name), flags)

    def settle_by_rename(self, name):
        temporary = self.path(f"tmp/f{self.number}")
        self.write(temporary, self.new_object(name))
        os.rename(temporary, self.path(name))

    def settle_by_fail(self, name):
        os.setxattr(self.path(name), "user.promisefs.error", b"ENOLINK: stress")

    def settle_by_cancel(self, name):
        os.unlink(self.path(name))
        self.cancelled.append(name)

    def settle_by_deadline(self, name):
        os.setxattr(self.path(name), "user.promisefs.deadline", b"%dms" % self.random.randrange(1, 50))

    def settle_by_kill(self, name):
        pid = os.fork()
        if pid == 0:
            fd = os.open(self.path(name), os.O_WRONLY)
            os.write(fd, b"torn")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)

    def wait(self):
        """A thread waits for one of somebody else's newest futures: of its own, a process that is just writing it reads
        the draft."""
        self.waiters = [thread for thread in self.waiters if thread.is_alive()]
        owner = f"{(self.number + self.random.randrange(1, PROCESSES)) % PROCESSES}-"
        numbers = [int(name[len(owner):]) for name in os.listdir(self.path("futures")) if name.startswith(owner)]
        if len(self.waiters) >= WAITERS or not numbers:
            return
        name = f"futures/{owner}{self.random.choice(sorted(numbers)[-6:])}"
        kind = self.random.choice((self.wait_open, self.wait_open, self.wait_poll, self.wait_await))
        thread = threading.Thread(target=self.guarded, args=(kind, name), daemon=True)
        thread.start()
        self.waiters.append(thread)

    def guarded(self, kind, name):
        try:
            found = kind(name)
            if found:
                assert found[0] == name, (name, found)
            self.count(kind.__name__)
        except OSError as error:
            if error.errno not in SETTLED_ERRORS:
                self.failure.append(f"{kind.__name__} {name}: {error!r}")
            self.count(errno.errorcode[error.errno])
        except BaseException as error:
            self.failure.append(f"{kind.__name__} {name}: {error!r}")

    def wait_open(self, name):
        return read_object(self.path(name))

    def wait_await(self, name):
        return read_object(f"{self.root}/.promisefs/await/{name}")

    def wait_poll(self, name):
        fd = os.open(self.path(name), os.O_RDONLY | os.O_NONBLOCK)
        try:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            poller.poll()
            return check_object(read_all(fd), name)
        finally:
            os.close(fd)

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def operations(self):
        weights = {self.put: 20, self.put_shared: 10, self.exchange: 3, self.get: 30, self.get_while_writing: 3,
                   self.hold_and_look_again: 4, self.evict: 3, self.link: 3, self.attributes: 3, self.killed_writer: 1,
                   self.declare: 8, self.settle: 6, self.revive: 1, self.wait: 12}
        return list(weights), list(weights.values())

    def run(self):
        calls, weights = self.operations()
        while time.monotonic() < self.end and not self.failure:
            call, = self.random.choices(calls, weights)
            try:
                call()
            except OSError as error:
                raise AssertionError(f"{call.__name__}: {error!r}") from error
            self.count(call.__name__)
        while self.pending:
            self.settle()

    def report(self):
        """Say that all of ours is settled, wait for `go`, then for the waiters; say the rest."""
        print(json.dumps({"expected": self.expected, "futures": self.futures}), flush=True)
        sys.stdin.readline()
        end = time.monotonic() + 20
        for thread in self.waiters:
            thread.join(max(0, end - time.monotonic()))
        lost = sum(thread.is_alive() for thread in self.waiters)
        print(json.dumps({"done": self.done, "lost": lost, "failure": self.failure}), flush=True)
        os._exit(1 if lost or self.failure else 0)


def main():
    root, number, seed, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    process = Process(root, number, seed, seconds)
    process.run()
    process.report()


if __name__ == "__main__":
    main()

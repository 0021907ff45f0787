"""System calls of a daemon, or of a command, that fail when a test says so (tests/faults/faults.c), and the bookkeeping
of what a caller was told, which must be true afterwards."""
import ctypes
import errno
import mmap
import os
import time
from pathlib import Path

import pytest

from pfs import WRITE, binary, eventually, name_of, opened, sanitized

KINDS = ("data", "catalog", "wal", "shm", "place")
CALLS = ("open", "write", "truncate", "allocate", "sync", "rename", "unlink", "link", "mkdir", "copy", "clone", "map",
         "read")
TAKES_SPACE = ("open", "write", "truncate", "allocate", "sync", "rename", "link", "mkdir", "copy", "clone", "map")
OFF, ONCE, ON = range(3)
NEVER = 1 << 60


def mask(names, of):
    return sum(1 << of.index(name) for name in names)


class Shared(ctypes.Structure):
    """`struct faults`."""
    _fields_ = [("mode", ctypes.c_uint32), ("kinds", ctypes.c_uint32), ("calls", ctypes.c_uint32),
                ("error", ctypes.c_int32), ("n", ctypes.c_uint64), ("counted", ctypes.c_uint64),
                ("failed", ctypes.c_uint64), ("seen", ctypes.c_uint64 * len(CALLS) * len(KINDS)),
                ("hit", ctypes.c_uint64 * len(CALLS) * len(KINDS)), ("last", ctypes.c_char * 256)]


class Faults:
    """What the processes with `environment` shall suffer."""

    def __init__(self, path, store):
        library = Path(binary()).parent.parent.parent / "tests/libpromisefs-faults.so"
        if not library.exists():
            pytest.skip(f"{library} is not there: the tests were not built")
        if sanitized():
            pytest.skip("a sanitizer must be loaded first, and so must the failing system calls")
        path.write_bytes(bytes(ctypes.sizeof(Shared)))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.shared = Shared.from_buffer(self.memory)
        self.environment = {"LD_PRELOAD": str(library), "PROMISEFS_FAULTS": str(path),
                            "PROMISEFS_FAULTS_STORE": os.path.realpath(store)}

    def arm(self, error, n, mode=ONCE, kinds=KINDS, calls=None):
        """The n-th call from now on fails; mode ON: so do all after it. n=NEVER only counts."""
        shared = self.shared
        shared.mode = OFF
        shared.kinds = mask(kinds, KINDS)
        shared.calls = mask(calls or (TAKES_SPACE if error == errno.ENOSPC else CALLS), CALLS)
        shared.error = error
        shared.n = n
        shared.counted = shared.failed = 0
        shared.last = b""
        shared.mode = mode

    def off(self):
        """From now on nothing fails; how many have failed."""
        self.shared.mode = OFF
        return self.shared.failed

    @property
    def counted(self):
        return self.shared.counted

    @property
    def failed(self):
        return self.shared.failed

    @property
    def last(self):
        return self.shared.last.decode()

    def table(self, what="hit"):
        """{(kind, call): how often}"""
        rows = getattr(self.shared, what)
        return {(kind, call): rows[i][j] for i, kind in enumerate(KINDS) for j, call in enumerate(CALLS) if rows[i][j]}

    def total(self):
        return sum(self.table("seen").values())

    def quiet(self, seconds=0.012, timeout=2):
        """Wait until the daemon has done nothing for a moment."""
        end = time.monotonic() + timeout
        before, since = self.total(), time.monotonic()
        while time.monotonic() - since < seconds and time.monotonic() < end:
            time.sleep(0.002)
            now = self.total()
            if now != before:
                before, since = now, time.monotonic()


class Refused(Exception):
    """A system call failed with the error that was arranged."""


ABSENT = "absent"
PENDING = "pending"


def look(path):
    """What a key has now, without waiting: its bytes, ABSENT, PENDING, or the name of an errno."""
    try:
        with opened(path, os.O_RDONLY | os.O_NONBLOCK) as fd:
            data = b""
            while part := os.read(fd, 1 << 20):
                data += part
            return data
    except OSError as error:
        return {errno.ENOENT: ABSENT, errno.EAGAIN: PENDING}.get(error.errno, name_of(error.errno))


def show(value):
    if not isinstance(value, bytes) or len(value) < 40:
        return repr(value)
    return f"{len(value)} bytes {value[:4]!r}...{value[-8:]!r}"


class Stage:
    """A directory in which a scenario plays, and what must be true of it: for each name what may be found there."""

    def __init__(self, mnt, name, error):
        self.mnt, self.name, self.error = mnt, name, error
        self.root = mnt / name
        self.probes = {}
        self.truth = {}
        self.wrong = []
        self.number = name.rsplit("-", 1)[-1]
        os.mkdir(self.root)

    def __truediv__(self, key):
        return os.path.join(self.root, key)

    def special(self, view, key=""):
        """A handle or a lifetime of this stage, or its place in a view."""
        if view in ("future", "await", "once"):
            return self.mnt.special(view, os.path.join(self.name, key))
        return str(self.mnt.mount.control / view / f"{self.name}-{key}")

    def watch(self, name, probe=None, value=ABSENT):
        """From now on `name` is looked at by probe() (the bytes of the key by default) and must be `value`."""
        self.probes[name] = probe or (lambda: look(self / name))
        self.truth[name] = [value]

    def have(self, **contents):
        """Make keys before anything fails."""
        for key, data in contents.items():
            with opened(self / key, WRITE) as fd:
                os.write(fd, data)
            self.watch(key, value=data)
            eventually(lambda key=key: os.getxattr(self / key, "user.promisefs.state") == b"ready")

    def step(self, call, after, either=()):
        """Do something. If it succeeds, the names in `after` have these values from now on; if it fails nothing has
        changed (names in `either` may have), and the scenario ends."""
        for name in after:
            if name not in self.probes:
                self.watch(name)
        try:
            result = call()
        except OSError as error:
            if error.errno not in (self.error, errno.ESTALE):  # which a replacement that was taken back may give
                self.wrong.append(f"said {name_of(error.errno)} instead of {name_of(self.error)}")
            for name in either:
                self.truth[name] = [*self.truth[name], after[name]]
            raise Refused from error
        for name, value in after.items():
            self.truth[name] = [value]
        return result

    def write(self, key, data, flags=WRITE, fsync=False, whole=None, path=None):
        """Write and close; acknowledged only when everything was."""

        def call():
            fd = os.open(path or self / key, flags, 0o666)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view):]
                if fsync:
                    os.fsync(fd)
            except OSError:
                try:
                    os.close(fd)
                except OSError:
                    pass
                raise
            os.close(fd)

        self.step(call, {key: data if whole is None else whole})

    def false(self, timeout=1):
        """What is not as it was said to be, once nothing fails any more."""
        end = time.monotonic() + timeout
        pause = 0.001
        while True:
            seen = {name: probe() for name, probe in self.probes.items()}
            found = [f"{name} is {show(value)} and should be {' or '.join(map(show, self.truth[name]))}"
                     for name, value in seen.items() if value not in self.truth[name]]
            if not found or time.monotonic() > end:
                return found
            time.sleep(pause)
            pause = min(pause * 2, 0.1)

"""Helpers of the tests: mounts, child processes, waiting for conditions, and the system calls that Python lacks.

Rules of the house:
 - what may wait for ever is done in a Worker (a child process), never in pytest itself;
 - nothing sleeps to synchronise: eventually() waits for a condition, with a deadline;
 - that something is blocked is seen in `.promisefs/waits`, not guessed from the time;
 - every mount has a private store, is unmounted, and what was started is ended by its pid, whatever happens.
"""
import contextlib
import ctypes
import errno
import itertools
import json
import os
import pickle
import platform
import random
import re
import select
import shutil
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
REPO = TESTS.parent
PYTHON = [sys.executable, "-I", "-S"]
IS_ROOT = os.geteuid() == 0
DEADLINE = 20.0
SANITIZER_FINDING = r"ERROR: \w+Sanitizer.*|WARNING: ThreadSanitizer.*|runtime error:.*"

WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
NOBODY = 65534


def binary():
    """The command under test, an absolute path."""
    return os.path.abspath(os.environ.get("PROMISEFS_BIN") or REPO / "build/tools/promisefs/promisefs")


def sanitized():
    """True if the command was built with a sanitizer: its memory and speed say nothing then."""
    if os.environ.get("PROMISEFS_SANITIZED"):
        return True
    with open(binary(), "rb") as file:
        data = file.read()
    return b"__asan_init" in data or b"__tsan_init" in data


# ---- conditions and errors -------------------------------------------------------------------------------------------

def eventually(condition, timeout=DEADLINE, what=None):
    """Wait until condition() is true and return what it returned."""
    end = time.monotonic() + timeout
    pause = 0.001
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout:g} s: {what or getattr(condition, '__doc__', None) or condition}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


@contextlib.contextmanager
def opened(path, flags=os.O_RDONLY, mode=0o666):
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def name_of(code):
    return errno.errorcode.get(code, str(code))


@contextlib.contextmanager
def fails(*codes):
    """The block must raise OSError with one of these errnos."""
    with pytest.raises(OSError) as caught:
        yield caught
    assert name_of(caught.value.errno) in {name_of(code) for code in codes}, caught.value


def pattern(size, seed=0):
    """Bytes that differ everywhere, to tell one place or one version from another."""
    block = bytes((i * 31 + (i >> 8) * 17 + seed * 101) & 0xFF for i in range(65536 + 251))
    return (block * (size // len(block) + 1))[:size]


# ---- extended attributes of promisefs --------------------------------------------------------------------------------

def attr(path, name):
    """user.promisefs.NAME as text, or None if there is none."""
    try:
        return os.getxattr(path, "user.promisefs." + name, follow_symlinks=False).decode()
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise


def set_attr(path, name, value):
    os.setxattr(path, "user.promisefs." + name, value if isinstance(value, bytes) else value.encode())


def state(path):
    return attr(path, "state")


def version(path):
    return int(attr(path, "version"))


# ---- system calls ----------------------------------------------------------------------------------------------------

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16
MNT_FORCE, MNT_DETACH = 1, 2


def checked(result):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def renameat2(old, new, flags):
    return checked(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def fallocate(fd, mode, offset, length):
    return checked(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def getdents(fd, size=4096):
    """One getdents64: a list of (name, cookie)."""
    buffer = ctypes.create_string_buffer(size)
    number = {"x86_64": 217}.get(platform.machine(), 61)
    count = checked(libc.syscall(ctypes.c_long(number), fd, buffer, ctypes.c_size_t(size)))
    entries, at = [], 0
    while at < count:
        _, cookie, length, _ = struct.unpack_from("=QqHB", buffer.raw, at)
        entries.append((buffer.raw[at + 19:at + length].split(b"\0", 1)[0], cookie))
        at += length
    return entries


# ---- processes -------------------------------------------------------------------------------------------------------

class Job:
    """A call that a worker was asked to do."""

    def __init__(self, worker, what):
        self.worker = worker
        self.what = what
        self.pid = worker.pid
        self.outcome = None
        self.settled = threading.Event()

    @property
    def done(self):
        return self.settled.is_set()

    def result(self, timeout=DEADLINE):
        """What the call returned; raises the OSError that it raised."""
        if not self.settled.wait(timeout):
            pytest.fail(f"pid {self.pid}: {self.what} did not return within {timeout:g} s")
        kind, *rest = self.outcome
        if kind == "errno":
            raise OSError(rest[0], f"{rest[1]} [in {self.what}]")
        if kind != "ok":
            pytest.fail(f"pid {self.pid}: {self.what}: {kind} {rest}")
        return rest[0]

    def error(self, timeout=DEADLINE):
        """The name of the errno that the call must have failed with."""
        try:
            value = self.result(timeout)
        except OSError as error:
            return name_of(error.errno)
        return f"no error: {value!r:.80}"

    def interrupted(self, timeout=DEADLINE):
        """True if a Python signal handler ended the call with an exception."""
        self.settled.wait(timeout)
        return self.outcome is not None and self.outcome[0] == "exception" and "Interrupted" in self.outcome[1]


class Worker:
    """A child process that does calls for a test. worker.open(...) waits; worker.begin("open", ...) gives a Job."""

    def __init__(self, uid=None, gid=None, groups=()):
        credentials = {} if uid is None else {"user": uid, "group": uid if gid is None else gid,
                                              "extra_groups": list(groups)}
        source = (TESTS / "worker.py").read_text()
        self.process = subprocess.Popen([*PYTHON, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        start_new_session=True, cwd="/", **credentials)
        self.pid = self.process.pid
        self.jobs = {}
        self.numbers = itertools.count()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def begin(self, name, *args, threaded=False, **kwargs):
        job = Job(self, f"{name}{args!r:.120}")
        number = next(self.numbers)
        self.jobs[number] = job
        body = pickle.dumps((number, threaded, name, args, kwargs))
        try:
            self.process.stdin.write(struct.pack("=I", len(body)) + body)
            self.process.stdin.flush()
        except BrokenPipeError:
            self._settle(job, ("died", self.process.wait()))
        return job

    def call(self, name, *args, timeout=DEADLINE, **kwargs):
        return self.begin(name, *args, **kwargs).result(timeout)

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.call(name, *args, **kwargs)

    def _settle(self, job, outcome):
        job.outcome = outcome
        job.settled.set()

    def _listen(self):
        stream = self.process.stdout
        with contextlib.suppress(ValueError, OSError, EOFError):
            while len(head := stream.read(4)) == 4:
                number, outcome = pickle.loads(stream.read(*struct.unpack("=I", head)))
                self._settle(self.jobs.pop(number), outcome)
        for job in list(self.jobs.values()):
            self._settle(job, ("died", None))

    def kill(self, number=signal.SIGKILL, timeout=DEADLINE):
        """Send a signal and wait for the end; the wait status as subprocess gives it."""
        self.process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout=DEADLINE):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout)
        pytest.fail(f"pid {self.pid} did not end within {timeout:g} s")

    def leave(self, timeout=DEADLINE):
        """End in the ordinary way: the worker sees the end of its input and exits."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        return self.wait(timeout)

    def end(self, timeout=5):
        """End by force, with the children that it started; false if even that hangs."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self.listener.join(timeout)
        self.process.stdout.close()
        return True


class Watchdog:
    """Our end of watchdog.py."""

    def __init__(self):
        self.process = subprocess.Popen([*PYTHON, str(TESTS / "watchdog.py")], stdin=subprocess.PIPE,
                                        start_new_session=True)

    def arm(self, mount, seconds):
        fields = ("arm", mount.base, seconds, mount.pid, mount.root, mount.log)
        self._say("\t".join(str(field) for field in fields))

    def disarm(self, mount):
        self._say(f"disarm\t{mount.base}")

    def _say(self, line):
        self.process.stdin.write(line.encode("utf-8", "surrogateescape") + b"\n")
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()
        self.process.wait(5)


# ---- a mount ---------------------------------------------------------------------------------------------------------

def mount_table():
    """{mount point: (file system type, device)} of this mount namespace; never blocks."""
    table = {}
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        kind = fields[fields.index("-") + 1]
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        table[point] = (kind, fields[2])
    return table


def is_mounted(path):
    return os.path.realpath(os.path.dirname(path)) + "/" + os.path.basename(path) in mount_table()


def run(*argv, timeout=30, env=None, **kwargs):
    """Run a program to its end and capture what it says, as text."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, errors="surrogateescape",
                          timeout=timeout, env=env, **kwargs)


def promisefs(*argv, **kwargs):
    """Run the command under test."""
    return run(binary(), *argv, **kwargs)


class Command:
    """A verb of promisefs that runs in the background and may wait."""

    def __init__(self, *argv, **kwargs):
        self.process = subprocess.Popen([binary(), *map(str, argv)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, **kwargs)
        self.pid = self.process.pid
        self.what = argv

    @property
    def done(self):
        return self.process.poll() is not None

    @property
    def outcome(self):
        return self.process.returncode

    def result(self, timeout=20):
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def end(self):
        """Whatever it has written and nobody has read is dropped."""
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()
        self.process.stderr.close()


SUPERVISED = "supervisor=on,restart-limit=none"


def command_of(pid):
    return Path(f"/proc/{pid}/comm").read_text().strip()


def processes(mount):
    """{pid: name} of all that serve a mount: they have its lock file open."""
    lock = os.stat(mount.store / "lock")
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            if any(os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), lock) for fd in os.listdir(f"/proc/{pid}/fd")):
                found[pid] = command_of(pid)
    return found


class Killer(threading.Thread):
    """Kills the worker of a supervised mount again and again."""

    PAUSE = (0.1, 0.5)

    def __init__(self, mount, seed=None):
        super().__init__(daemon=True)
        self.mount, self.random = mount, random.Random(seed)
        self.over = threading.Event()
        self.kills = 0

    def run(self):
        while not self.over.wait(self.random.uniform(*self.PAUSE)):
            with contextlib.suppress(OSError):
                for pid in Path(f"/proc/{self.mount.pid}/task/{self.mount.pid}/children").read_text().split():
                    if command_of(pid) == "promisefs":
                        os.kill(int(pid), signal.SIGKILL)
                        self.kills += 1

    def stop(self):
        self.over.set()
        self.join()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()


class Mount:
    """A store, a directory, and the daemon between them."""

    kills_workers = False  # with --kill-workers: all mounts are supervised, and their workers are killed all the time
    kills = 0

    def __init__(self, base, options="", store=None, root=None, watchdog=None, environment=None):
        self.base = Path(base)
        self.environment = {**os.environ, **(environment or {})}
        self.store = Path(store or self.base / "store")
        self.root = Path(root or self.base / "mnt")
        self.options = options
        self.log = self.base / "daemon.log"
        self.watchdog = watchdog
        self.process = None
        self.killer = None
        self.base.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(exist_ok=True)
        self.base.chmod(0o755)

    @property
    def pid(self):
        return self.process.pid

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None and is_mounted(self.root)

    @property
    def control(self):
        return self.root / ".promisefs"

    def start(self, extra=""):
        """Start the daemon in the foreground and wait until the mount answers."""
        options = ",".join(part for part in (self.options, extra, SUPERVISED if self.kills_workers else "") if part)
        argv = [binary(), "mount", str(self.store), str(self.root), "-f", *(["-o", options] if options else [])]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.environment)
        if self.watchdog:
            self.watchdog.arm(self, 30)
        eventually(lambda: is_mounted(self.root) or self.process.poll() is not None, 15, "mount appears")
        if self.process.poll() is not None:
            pytest.fail(f"{' '.join(argv)}: exit {self.process.returncode}\n{self.tail()}")
        eventually((self.control / "README").exists, 15, "the mount answers")
        if self.kills_workers:
            self.killer = Killer(self)
            self.killer.start()
        return self

    def tail(self, size=6000):
        """The end of what the daemon said."""
        with contextlib.suppress(OSError):
            return self.log.read_bytes()[-size:].decode(errors="replace")
        return ""

    def detach(self):
        """Unmount by force, without help of the daemon."""
        point = os.fsencode(self.root)
        while is_mounted(self.root):
            if IS_ROOT:
                libc.umount2(point, MNT_FORCE)
                if libc.umount2(point, MNT_DETACH) < 0 and is_mounted(self.root):
                    raise OSError(ctypes.get_errno(), f"umount {self.root}")
            else:
                subprocess.run(["fusermount3", "-u", "-z", str(self.root)], timeout=10, check=True)

    def _spare(self):
        if self.killer:
            self.killer.stop()
            type(self).kills += self.killer.kills
            self.killer = None

    def kill(self):
        """The daemon dies of SIGKILL; the dead mount is taken away."""
        self._spare()
        if self.kills_workers:
            for number in (signal.SIGSTOP, signal.SIGSTOP, signal.SIGKILL):  # at once: none replaces another
                for pid in processes(self):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
        self.process.kill()
        self.process.wait(DEADLINE)
        self.detach()

    def stop(self, timeout=DEADLINE):
        """Unmount in the ordinary way; the daemon must end with status 0 and no complaint of a sanitizer."""
        self._spare()
        try:
            done = run("fusermount3", "-u", self.root, timeout=timeout)
            if done.returncode and is_mounted(self.root):
                pytest.fail(f"unmount of {self.root} failed: {done.stderr}\n{self.tail()}")
            status = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self.process.wait(timeout)
            if status is None:
                self.examine()
                pytest.fail(f"the daemon did not end {timeout:g} s after unmount\n{self.tail()}")
            findings = re.findall(SANITIZER_FINDING, self.tail(1 << 20))
            assert not findings and status == 0, f"daemon: status {status} {findings}\n{self.tail()}"
        finally:
            self.close()

    def examine(self):
        """Let the watchdog write into the log what the daemon's threads do, and end it."""
        if self.watchdog:
            self.watchdog.arm(self, 0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)

    def close(self):
        """Whatever happened: no daemon and no mount stay behind."""
        self._spare()
        if self.process and self.process.poll() is None:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        self.detach()
        if self.watchdog and self.process:
            self.watchdog.disarm(self)

    def remove(self):
        shutil.rmtree(self.base, ignore_errors=True)

    def bytes_moved(self):
        """Bytes that the daemon has read and written so far."""
        text = Path(f"/proc/{self.pid}/io").read_text()
        return sum(int(number) for number in re.findall(r"[rw]char: (\d+)", text))

    def switches(self):
        """How often threads of the daemon have gone to sleep, or given way, so far."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
                total += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", (task / "status").read_text())))
        return total

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def rss(self):
        """Resident bytes of the daemon."""
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())[1]) * 1024


class Space:
    """The part of a mount that one test uses: a directory of its own and the control paths of the keys in it."""

    def __init__(self, mount, prefix=""):
        self.mount = mount
        self.prefix = prefix
        self.root = mount.root / prefix
        self.workers = []
        if prefix:
            self.root.mkdir()
            self.root.chmod(0o777)

    def __truediv__(self, key):
        return os.path.join(self.root, key)

    def key(self, key):
        """The key as the mount knows it."""
        return os.path.join(self.prefix, key)

    def special(self, view, key=""):
        return os.path.join(self.mount.control, view, self.prefix, key)

    def future(self, key):
        return self.special("future", key)

    def awaiting(self, key):
        return self.special("await", key)

    def aborted(self, key=""):
        return self.special("aborted", key)

    def once(self, key=""):
        return self.special("once", key)

    def handle(self, kind, name=""):
        """The path of a handle of this test: all handles of a mount are in the directories own, ref and mut."""
        return os.path.join(self.mount.control, kind, self.prefix + name)

    def handles(self, kind):
        """The names, without what handle() puts before them, of the handles of this test."""
        names = os.listdir(self.mount.control / kind)
        return sorted(name[len(self.prefix):] for name in names if name.startswith(self.prefix))

    def borrow(self, source, kind, name):
        """Borrow a key or a path, at once or not at all; the path of the handle."""
        os.link(self / source, self.handle(kind, name))
        return self.handle(kind, name)

    # -- children --

    def worker(self, **kwargs):
        worker = Worker(**kwargs)
        self.workers.append(worker)
        return worker

    def reader(self, path, flags=os.O_RDONLY, **kwargs):
        """A process that opens a file, reads it to the end and closes it: a Job."""
        return self.worker(**kwargs).begin("read_path", os.fspath(path), flags)

    def waiting_reader(self, path, **kwargs):
        """The same, and it waits already."""
        job = self.reader(path, **kwargs)
        self.assert_waits(job)
        return job

    def writer(self, key, data=b"", flags=WRITE, **kwargs):
        """A process that has a key open for writing: (worker, fd)."""
        worker = self.worker(**kwargs)
        fd = worker.open(self / key, flags, 0o666)
        if data:
            worker.write_all(fd, data)
        return worker, fd

    # -- simple objects --

    def put(self, key, data=b""):
        with opened(self / key, WRITE) as fd:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view):]
        return self / key

    def get(self, key):
        with open(self / key, "rb", buffering=0) as file:
            return file.read()

    def declare(self, *keys):
        for key in keys:
            os.close(os.open(self.future(key), os.O_WRONLY | os.O_CREAT, 0o666))
            eventually(lambda: os.path.lexists(self / key), what=f"{key} is declared")
        return self / keys[0]

    def becomes(self, key, wanted):
        """Wait until a key has a state: close(2) returns a moment before the publish, as RELEASE comes late."""
        eventually(lambda: state(self / key) == wanted, what=f"{key} becomes {wanted}, is {state(self / key)}")

    def versions(self, key, wanted):
        eventually(lambda: version(self / key) == wanted, what=f"{key} gets version {wanted}, is {version(self / key)}")

    # -- waiting --

    def waits(self):
        """The entries of `.promisefs/waits`."""
        return [json.loads(line) for line in (self.mount.control / "waits").read_text().splitlines()]

    def wait_of(self, job):
        return next((wait for wait in self.waits() if wait["pid"] == job.pid), None)

    def assert_waits(self, *jobs):
        """These processes wait, now or soon, and have not returned."""
        for job in jobs:
            eventually(lambda: job.done or self.wait_of(job), what=f"pid {job.pid} waits: {job.what}")
            assert not job.done, f"{job.what} returned {job.outcome!r:.200} and should wait"

    def assert_still_waits(self, *jobs):
        """These processes wait at this moment."""
        waiting = {wait["pid"] for wait in self.waits()}
        for job in jobs:
            assert job.pid in waiting and not job.done, f"{job.what} should still wait; {job.outcome!r:.200}"

    # -- events --

    def history(self, key=None):
        """The recorded events of a key, oldest first."""
        request = f"log {self.key(key)}\n" if key is not None else "log\n"
        data = b""
        with opened(self.mount.control / "events", os.O_RDWR) as fd:
            os.write(fd, request.encode("utf-8", "surrogateescape"))
            while part := os.read(fd, 65536):
                data += part
        return [json.loads(line) for line in data.splitlines()]

    def close(self):
        """End the children of this test; if one hangs, free it by force and fail."""
        stuck = [worker for worker in self.workers if not worker.end()]
        self.workers.clear()
        if stuck:
            self.mount.close()
            for worker in stuck:
                worker.end(10)
            pytest.fail(f"pids {[worker.pid for worker in stuck]} could not be killed: they hung in the mount")


def readable(fd, timeout=0):
    """True if poll(2) says that fd is readable."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return any(event & select.POLLIN for _, event in poller.poll(timeout * 1000))


def tree_bytes(path):
    """Bytes that a directory tree takes on the disk."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


# ---- catalog against data --------------------------------------------------------------------------------------------

READY = 3


# Objects whose counts are not those of their borrows.
BORROWS = """
select o.id, o.borrows, o.queued, sum(not mut and not waiting), sum(mut and not waiting), sum(ifnull(waiting, 0))
from object as o left join borrow as b on b.object = o.id group by o.id
having o.borrows <> ifnull(sum(not mut and not waiting) - sum(mut and not waiting), 0) or o.queued <> sum(ifnull(waiting, 0))
"""


def complaints(mount):
    """What is wrong between the catalog and the files of a store on which nothing goes on: a list of lines."""
    base = sqlite3.connect(f"file:{mount.store}/catalog.db?mode=ro", uri=True)
    base.execute("begin")
    objects = base.execute("select id, vid, mode, size, state, live, nlink from object").fetchall()
    links = dict(base.execute("select object, count(*) from dentry group by object"))
    drafts = base.execute("select object from draft").fetchall()
    garbage = base.execute("select vid from garbage").fetchall()
    aborted = {row[0] for row in base.execute("select object from aborted")}
    broken = base.execute("pragma foreign_key_check").fetchall()
    borrowed = base.execute(BORROWS).fetchall()
    homeless = base.execute("select handle from borrow where handle not in (select object from dentry)").fetchall()
    taken = base.execute("select object from taken").fetchall()
    base.close()
    files = {}
    for folder, _, names in os.walk(mount.store / "data"):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # it is being removed
                files[name] = os.path.getsize(os.path.join(folder, name))
    found = [f"foreign key: {row}" for row in broken]
    found += [f"object {row[0]}: borrows {row[1]}, queued {row[2]}, its borrows are {row[3:]}" for row in borrowed]
    found += [f"borrow {row[0]} has no name" for row in homeless]
    found += [f"object {row[0]} was taken, and is neither read nor back" for row in taken]
    found += [f"draft of object {row[0]} is left" for row in drafts]
    found += [f"garbage: version {row[0]:016x} is left" for row in garbage]
    known = set()
    for number, vid, mode, size, what, live, nlink in objects:
        name = f"{vid:016x}"
        known.add(name)
        if stat.S_ISREG(mode) and what == READY:
            if name not in files:
                found.append(f"object {number}: no file {name}")
            elif files[name] != size and not live:
                found.append(f"object {number}: file {name} has {files[name]} bytes, the catalog says {size}")
        if not stat.S_ISDIR(mode) and links.get(number, 0) != nlink and number not in aborted:
            found.append(f"object {number}: {links.get(number, 0)} names, nlink {nlink}")
    found += [f"file {name} belongs to no object" for name in files if name not in known]
    if not aborted:
        found += [f"drafts/{name} is left" for name in os.listdir(mount.store / "drafts")]
    return found


def check_store(mount, timeout=5):
    """The same, after what is still going on (RELEASE, sweeping) has come to its end; and what promisefs fsck says."""
    end = time.monotonic() + timeout
    while (found := complaints(mount)) and time.monotonic() < end:
        time.sleep(0.05)
    done = promisefs("fsck", "--online", mount.store, timeout=60)
    return found if done.returncode == 0 else [*found, *done.stdout.splitlines(), *done.stderr.splitlines()]

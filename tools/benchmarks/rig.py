"""Processes, mounts, peers, sizes."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
START_SECONDS = 20
STEP_SECONDS = 600


class BenchError(Exception):
    """Something that is said in one line."""


# ---- processes and mounts --------------------------------------------------------------------------------------------

def checked_output(argv, timeout=STEP_SECONDS, **kwargs):
    """The output of a program; if it fails, one line of why."""
    with running(argv, **kwargs) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{argv[1]} did not end within {timeout} s") from None
    if process.returncode:
        raise BenchError((err.strip().splitlines() or [f"{argv[0]}: status {process.returncode}"])[-1])
    return out


@contextlib.contextmanager
def running(argv, **kwargs):
    """A program with pipes to its output; whatever is left of it in the end is killed."""
    process = subprocess.Popen([str(word) for word in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True, **kwargs)
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


def eventually(condition, what, seconds=START_SECONDS, pause=0.01):
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise BenchError(f"{what}: not within {seconds} s")
        time.sleep(pause)


def is_mounted(path):
    return f" {path} " in Path("/proc/self/mounts").read_text()


def end(process):
    """Ends a process of ours: kindly, then by force."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def unmount(path):
    for command in (["fusermount3", "-u", path], ["umount", path], ["umount", "-l", path],
                    ["fusermount3", "-u", "-z", path]):
        if not is_mounted(path):
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20, check=False)
    if is_mounted(path):
        print(f"bench: {path} could not be unmounted", file=sys.stderr)


def start_server(stack, argv, log, ready):
    """Starts a program that stays; the stack ends it. Fails with the last line that it said."""
    with open(log, "wb") as output:
        process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   start_new_session=True)
    stack.callback(end, process)

    def started():
        if process.poll() is not None:
            raise BenchError((log.read_text(errors="replace").strip().splitlines() or [f"{argv[0]} ended at once"])[-1])
        return ready()

    eventually(started, f"{Path(argv[0]).name} starts", pause=0.002)
    return process


def file_system(path):
    """The type of the file system that a directory is on: ext4, tmpfs ..."""
    found = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=False).stdout.strip()
    return {"ext2/ext3": "ext4"}.get(found, found or "unknown")


# ---- ourselves -------------------------------------------------------------------------------------------------------

def children(pid):
    """The processes below one, and itself."""
    found = [pid]
    for number in found:
        for names in Path(f"/proc/{number}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in names.read_text().split()]
    return found


def cpu_seconds(pids):
    """CPU time that these processes have had, to the nanosecond."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(task.read_text().split()[0])
    return total / 1e9


def cpu_ticks():
    """(ticks that any CPU was busy, ticks of all)"""
    fields = [int(number) for number in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


class Ours:
    """A mount of promisefs."""

    def __init__(self, stack, base, binary, data_path, store=None):
        self.store, self.path, log = store or base / "store", base / "promisefs", base / "promisefs.log"
        self.path.mkdir(exist_ok=True)
        self.process = None
        stack.callback(lambda: unmount(self.path))
        argv = [binary, "mount", self.store, self.path, "-f", "-o", f"passthrough={data_path}"]
        inner = stack.enter_context(contextlib.ExitStack())
        start = time.monotonic()
        self.process = start_server(inner, argv, log, lambda: is_mounted(self.path) and self.readme())
        self.mount_seconds = time.monotonic() - start
        inner.callback(lambda: unmount(self.path))  # before the daemon is ended

    def readme(self):
        return (self.path / ".promisefs/README").exists()

    def declare(self):
        return self.path / ".promisefs/future"

    def metric(self, name):
        found = re.search(rf"^{re.escape(name)} (\d+)", (self.path / ".promisefs/metrics").read_text(), re.M)
        return int(found[1]) if found else None

    def data_path(self):
        """What the daemon itself says of how bytes travel."""
        return {None: "unknown", 0: "fallback"}.get(self.metric("promisefs_passthrough"), "passthrough")

    def requests(self):
        """{kind: how many so far}"""
        text = (self.path / ".promisefs/metrics").read_text()
        pairs = re.findall(r'^promisefs_requests_total{kind="(\w+)"} (\d+)', text, re.M)
        return {kind: int(count) for kind, count in pairs}

    def resident(self):
        """Resident bytes of the daemon and of its children."""
        total = 0
        for pid in children(self.process.pid):
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024
        return total

    def wake_ups(self):
        """How often a thread of the daemon has gone to sleep, or given way, so far."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", (task / "status").read_text())))
        return total


# ---- peers -----------------------------------------------------------------------------------------------------------

# What was the fastest of what was tried for a client that opens, reads and closes, or creates, writes and closes.
BINDFS = ("--multithreaded", "-o", "kernel_cache,attr_timeout=3600,entry_timeout=3600")
MERGERFS = ("-o", "cache.files=full,cache.writeback=true,cache.attr=3600,cache.entry=3600,xattr=nosys,threads=1")


def start_fuse_peer(stack, base, name, options):
    """A mount of bindfs or mergerfs over a directory beside it, or None if it is not installed."""
    binary = shutil.which(name)
    if not binary:
        return None
    source, path = base / f"{name}-source", base / name
    source.mkdir()
    path.mkdir()
    stack.callback(lambda: unmount(path))
    inner = stack.enter_context(contextlib.ExitStack())
    start_server(inner, [binary, "-f", *options, source, path], base / f"{name}.log", lambda: is_mounted(path))
    inner.callback(lambda: unmount(path))
    return path


def start_bindfs(stack, base):
    return start_fuse_peer(stack, base, "bindfs", BINDFS)


def start_mergerfs(stack, base):
    return start_fuse_peer(stack, base, "mergerfs", MERGERFS)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_redis_with(stack, base, words):
    binary = shutil.which("redis-server")
    if not binary:
        return None
    base.mkdir(exist_ok=True)
    path = base / "redis.sock"

    def answers():
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return True
        return False

    start_server(stack, [binary, "--bind", "127.0.0.1", "--unixsocket", path, "--dir", base, "--save", "", *words],
                 base / "redis.log", answers)
    return path


def start_redis(stack, base):
    """The port on loopback of a Redis that keeps nothing on disk, or None if it is not installed."""
    port = free_port()
    path = start_redis_with(stack, base, ("--port", port, "--appendonly", "no"))
    return port if path else None


def start_redis_socket(stack, base, appending):
    """The socket of a Redis that keeps nothing, or that appends to a file and calls fsync(2) before every answer."""
    words = ("--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")
    return start_redis_with(stack, base, ("--port", "0", *(words if appending else ("--appendonly", "no"))))


def first_line(*argv):
    """What a program says of its version."""
    if not shutil.which(argv[0]):
        return None
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[0]


# ---- sizes -----------------------------------------------------------------------------------------------------------

@dataclass
class Sizes:
    """How much of everything. Presets are below."""

    runs: int = 7
    stream_bytes: int = 1024 * MIB
    pages: int = 200_000
    gets: int = 20_000
    puts: int = 10_000
    durable_puts: int = 2_000
    client_operations: int = 16_000  # of all clients together
    files: int = 1_000
    wake_rounds: int = 500
    wait_seconds: float = 2
    readers: int = 1_000
    waiters: int = 10_000
    stages: int = 8
    stage_bytes: int = 10_000_000
    task_seconds: float = 1
    fractions: tuple = (200, 500, 800)  # of a thousand
    objects: int = 200_000
    few_objects: int = 10_000
    directories: int = 1_000
    names: int = 100_000
    few_names: int = 1_000
    samples: int = 2_000
    lifetime_files: int = 10_000
    idle_seconds: float = 10


def sizes_of(preset):
    if preset == "quick":
        return Sizes(stream_bytes=64 * MIB, pages=20_000, gets=2_000, puts=500, durable_puts=100,
                     client_operations=800, wake_rounds=100, wait_seconds=0.5, waiters=1_000, task_seconds=0.1,
                     fractions=(500, 800), objects=10_000, few_objects=1_000, directories=100, names=10_000,
                     few_names=500, samples=200, lifetime_files=500, idle_seconds=2)
    if preset == "tiny":
        return Sizes(runs=1, stream_bytes=2 * MIB, pages=100, gets=50, puts=50, durable_puts=10, client_operations=48,
                     files=10, wake_rounds=5, wait_seconds=0.1, readers=20, waiters=20, stages=3, stage_bytes=100_000,
                     task_seconds=0.02, fractions=(500,), objects=200, few_objects=100, directories=10, names=200,
                     few_names=100, samples=20, lifetime_files=50, idle_seconds=0.2)
    if preset == "full":
        return Sizes(objects=10_000_000, names=1_000_000, fractions=(0, 200, 500, 800, 900))
    return Sizes()


# ---- all of it -------------------------------------------------------------------------------------------------------

class Rig:
    """What scenarios are given: where things are, how to start things, how much to measure."""

    def __init__(self, stack, base, disk, binary, loops, data_path, sizes, progress):
        self.stack, self.base, self.disk, self.binary, self.loops = stack, base, disk, binary, loops
        self.data_path, self.sizes, self.progress = data_path, sizes, progress
        self.notes = []
        self.number = 0
        self.started = {}
        self.cores_busy = 0.0

    def note(self, line):
        """Something that is said once, and kept with the results."""
        if line not in self.notes:
            self.notes.append(line)
            self.progress("")
            print(line, flush=True)

    def skip(self, what, why):
        self.note(f"skipped    {what}: {why}")

    def fresh(self, parent=None):
        """A new empty directory."""
        self.number += 1
        folder = Path(parent or self.base) / f"run-{self.number}"
        folder.mkdir()
        return folder

    def mount(self, stack=None, base=None, data_path=None, store=None):
        """A mount of ours; below the base directory unless something else is said."""
        return Ours(stack or self.stack, base or self.fresh(), self.binary, data_path or self.data_path, store)

    def once(self, name, start):
        """What is started when it is first asked for and serves all scenarios."""
        if name not in self.started:
            self.progress(f"starting {name}")
            self.started[name] = start()
            if self.started[name] is None:
                self.skip(name, "not installed")
        return self.started[name]

    def ours(self):
        return self.once("promisefs", self.mount)

    def native(self):
        return self.once("native", self.fresh)

    def bindfs(self):
        return self.once("bindfs", lambda: start_bindfs(self.stack, self.fresh()))

    def mergerfs(self):
        return self.once("mergerfs", lambda: start_mergerfs(self.stack, self.fresh()))

    def redis(self):
        return self.once("redis-server", lambda: start_redis_socket(self.stack, self.fresh(), False))

    def redis_appending(self, parent=None):
        name = "redis-server (appendfsync=always)" + (f" on {parent}" if parent else "")
        return self.once(name, lambda: start_redis_socket(self.stack, self.fresh(parent), True))

    def loop(self, *words, timeout=STEP_SECONDS):
        return checked_output([self.loops, *words], timeout)

    def seconds(self, *words):
        """What a loop says it took; and notes how many cores were busy meanwhile."""
        busy, ticks = cpu_ticks()
        seconds = float(self.loop(*words))
        busy_after, ticks_after = cpu_ticks()
        self.cores_busy = (busy_after - busy) / max(1, ticks_after - ticks) * os.cpu_count()
        return seconds

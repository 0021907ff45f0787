"""A waiter holds no thread of the daemon: ten thousand readers wait while other work goes on."""
import errno
import os
import signal
import statistics
import time

import pytest

from pfs import eventually, sanitized

PROCESSES, THREADS, KEYS = 10, 1000, 100
READERS = PROCESSES * THREADS


def waiting(mount):
    """How many readers wait, as the control file says."""
    return (mount.control / "waits").read_bytes().count(b"\n")


def work(mnt, count):
    """Median seconds of one put and get by somebody else."""
    times = []
    for number in range(count):
        start = time.perf_counter()
        mnt.put("busy", b"%d" % number)
        assert mnt.get("busy") == b"%d" % number
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def room_for(threads):
    """Why this machine cannot have so many threads, or None."""
    limits = [int(open(path).read()) for path in ("/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max")]
    return None if min(limits) > threads + 2000 else f"the kernel allows only {min(limits)} threads"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_4_ten_thousand_waiting_readers(own):
    if room_for(READERS):
        pytest.skip(room_for(READERS))
    keys = [f"key{number}" for number in range(KEYS)]
    own.declare(*keys)
    quiet = work(own, 200)
    before = own.mount.rss()
    paths = [own / key for key in keys] * (THREADS // KEYS)
    jobs = [own.worker().begin("open_many", paths) for _ in range(PROCESSES)]
    eventually(lambda: waiting(own.mount) == READERS, 120, f"{READERS} readers wait")
    grown = (own.mount.rss() - before) / READERS
    assert own.mount.threads() < 32
    busy = work(own, 200)
    assert waiting(own.mount) == READERS
    assert busy < 5 * quiet + 0.002, f"put and get: {quiet * 1e6:.0f} us alone, {busy * 1e6:.0f} us beside the waiters"
    assert grown < 2048 or sanitized(), f"{grown:.0f} bytes of the daemon for each waiter"
    for key in keys:
        own.put(key, key.encode())
    for job in jobs:
        assert job.result(100) == {key.encode(): THREADS // KEYS for key in keys}
    eventually(lambda: waiting(own.mount) == 0)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_4_two_thousand_waiting_readers_are_killed(own, number):
    own.declare("key")
    workers = [own.worker() for _ in range(2)]
    for worker in workers:
        worker.begin("open_many", [own / "key"] * THREADS)
    eventually(lambda: waiting(own.mount) == 2 * THREADS, 60, "2000 readers wait")
    for worker in workers:
        worker.process.send_signal(number)
    for worker in workers:
        assert worker.wait(30) == -number
    eventually(lambda: waiting(own.mount) == 0)
    own.put("key", b"x")
    assert own.reader(own / "key").result() == b"x"


@pytest.mark.timeout(120)
def test_4_waiters_of_many_kinds_of_settling(own):
    """Set, failed, cancelled, renamed onto, timed out: nobody is forgotten."""
    keys = ["set", "failed", "cancelled", "renamed", "late"]
    own.declare(*keys)
    worker = own.worker()
    jobs = {key: own.worker().begin("open_many", [own / key] * 100) for key in keys}
    eventually(lambda: waiting(own.mount) == 500, 60)
    os.setxattr(own / "late", "user.promisefs.deadline", b"200ms")
    worker.write_path(own / "set", b"set")
    worker.setxattr(own / "failed", "user.promisefs.error", b"ENOLINK: gone")
    worker.unlink(own / "cancelled")
    worker.rename(own.put("draft", b"renamed"), own / "renamed")
    assert {key: job.result() for key, job in jobs.items()} == {
        "set": {b"set": 100}, "failed": {errno.ENOLINK: 100}, "cancelled": {errno.ECANCELED: 100},
        "renamed": {b"renamed": 100}, "late": {errno.ETIMEDOUT: 100}}


def test_4_an_idle_daemon_does_nothing(own):
    """Not even with readers that wait: nothing polls, on either side."""
    own.declare("key")
    job = own.waiting_reader(own / "key")
    for number in range(100):  # requests in quick succession, after which threads look for the next one for a while
        own.put("busy", b"%d" % number)

    def asleep():
        """A second in which nothing has run."""
        before = own.mount.switches()
        time.sleep(1)
        return own.mount.switches() == before

    if not sanitized():  # the sanitizers have threads of their own
        eventually(asleep, what="the daemon is idle")
    own.put("key", b"done")
    assert job.result() == b"done"

"""Many processes do everything at random; nothing is torn, lost or leaked. `--stress-seed N` replays a run."""
import contextlib
import json
import os
import random
import sqlite3
import subprocess
import time

import pytest

from pfs import PYTHON, TESTS, attr, check_store, eventually, state
from stress_worker import OWN, PROCESSES, make_object, read_object


class Crowd:
    """The processes of one run."""

    def __init__(self, mnt, seed, seconds):
        self.mnt, self.seconds = mnt, seconds
        for name in ("own", "shared", "futures", "tmp"):
            os.mkdir(mnt / name)
        argv = [*PYTHON, TESTS / "stress_worker.py", mnt.root]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.processes = [subprocess.Popen([str(word) for word in (*argv, number, seed, seconds)], **pipes)
                          for number in range(PROCESSES)]

    def expectations(self):
        """What each process says when it has done its work."""
        said = []
        for process in self.processes:
            line = process.stdout.readline()
            if not line:
                pytest.fail(f"process {len(said)}: {process.communicate(timeout=10)[1]}")
            said.append(json.loads(line))
        return said

    def release_late_waiters(self, said):
        """Who awaits a key that was cancelled, or failed before he came, gets one now."""
        for number, entry in enumerate(said):
            for n in range(entry["futures"]):
                name = f"futures/{number}-{n}"
                if not os.path.exists(self.mnt / name) or state(self.mnt / name) != "ready":
                    with contextlib.suppress(FileExistsError):
                        self.mnt.put(name, make_object(name, 99, 0, 10))

    def reports(self):
        for process in self.processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(process.communicate(timeout=60)[0]) for process in self.processes]

    def end(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
                process.communicate(timeout=5)


def check_end(mnt, said):
    """Every own key is what its writer left, every object is whole, and the catalog agrees with the data."""
    for number, entry in enumerate(said):
        for name, counter in entry["expected"].items():
            if counter is None:
                assert not os.path.exists(mnt / name), name
            else:
                assert read_object(mnt / name) == (name, number, counter)
    for name in os.listdir(mnt / "shared"):
        assert read_object(mnt / f"shared/{name}")[0] == "shared"
    assert len(os.listdir(mnt / "own")) <= PROCESSES * OWN
    assert check_store(mnt.mount) == []


@pytest.mark.timeout(4000)
def test_many_processes_at_random(own, request):
    seconds = request.config.getoption("--stress-seconds")
    seed = request.config.getoption("--stress-seed")
    seed = random.randrange(1 << 31) if seed is None else seed
    print(f"replay with --stress-seconds {seconds:g} --stress-seed {seed}")
    own.mount.watchdog.arm(own.mount, seconds + 120)
    crowd = Crowd(own, seed, seconds)
    try:
        said = crowd.expectations()
        crowd.release_late_waiters(said)
        reports = crowd.reports()
    finally:
        crowd.end()
    failures = [report["failure"] for report in reports if report["failure"]]
    lost = sum(report["lost"] for report in reports)
    assert not failures and not lost, f"{lost} waiters were never woken; {failures}"
    eventually(lambda: own.waits() == [])
    check_end(own, said)
    done = {}
    for report in reports:
        for what, count in report["done"].items():
            done[what] = done.get(what, 0) + count
    print(dict(sorted(done.items())))
    if seconds >= 10:
        assert {"put", "get", "exchange", "wait_open", "wait_poll", "settle_by_kill", "killed_writer"} <= set(done)
    own.mount.stop()
    own.mount.start()
    check_end(own, said)
    assert attr(own.root, "publish") == "close"


@pytest.mark.timeout(4000)
def test_lifetimes_at_random(own, request):
    """Whatever ends while whatever else goes on: the catalog agrees with the data, and nothing is left of what ended."""
    seconds = request.config.getoption("--stress-seconds") / 2
    own.mount.watchdog.arm(own.mount, seconds + 120)
    argv = [*PYTHON, TESTS / "lifetime_worker.py", own.root, own.mount.control]
    processes = [subprocess.Popen([str(word) for word in (*argv, number, seconds)], stdout=subprocess.PIPE, text=True)
                 for number in range(6)]
    try:
        time.sleep(seconds / 2)
        processes[0].kill()  # with whatever it holds
        said = [process.communicate(timeout=seconds + 60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert not any(said), said
    lifetimes = own.mount.control / "lifetimes"
    eventually(lambda: not [name for name in os.listdir(lifetimes) if name.startswith("pid-")])
    for name in os.listdir(lifetimes):
        os.rmdir(lifetimes / name)
    assert check_store(own.mount, 20) == []
    own.mount.stop()
    with contextlib.closing(sqlite3.connect(own.mount.store / "catalog.db")) as base:
        for table in ("ending", "member", "binding"):
            left = base.execute(f"select count(*) from {table}").fetchone()
            assert left == (0,), table
        assert base.execute("select count(*) from object where id >= 16 and id not in (select object from dentry)"
                            ).fetchone() == (0,)
    own.mount.start()

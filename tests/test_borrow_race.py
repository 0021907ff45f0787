"""Many processes race for the borrows of a few objects; then the event log is checked for what must never have been.

`--race-processes` and `--race-seconds` make it longer.
"""
import collections
import json
import os
import random
import re
import signal
import subprocess
import time

import pytest

from borrow_worker import COUNTED, REPLACED
from pfs import PYTHON, TESTS, attr, check_store, eventually
from stress_worker import make_object, read_object

KEYS = [f"counted-{n}" for n in range(COUNTED)] + [f"replaced-{n}" for n in range(REPLACED)]


class Race:
    """The processes of one run; some are killed, others take their places."""

    def __init__(self, mnt, notes, seconds):
        self.mnt, self.notes = mnt, notes
        self.end = time.monotonic() + seconds
        self.numbers = 0
        self.processes = {}
        self.said = []

    def begin(self, count):
        for _ in range(count):
            self.numbers += 1
            argv = [*PYTHON, TESTS / "borrow_worker.py", self.mnt.root, self.notes, self.numbers,
                    max(self.end - time.monotonic(), 0)]
            self.processes[self.numbers] = subprocess.Popen([str(word) for word in argv], stdout=subprocess.PIPE,
                                                            stderr=subprocess.PIPE, text=True)

    def kill_one(self):
        """In the middle of anything. What it had bound to itself goes by itself; the rest somebody has to drop."""
        number = random.choice(list(self.processes))
        process = self.processes.pop(number)
        process.send_signal(random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        said, complaint = process.communicate(timeout=30)
        if process.returncode > 0:  # it had found something, or had come to its end
            self.said.append((number, process.returncode, said, complaint))
        for kind in ("ref", "mut"):
            mine = [name for name in os.listdir(self.mnt.mount.control / kind) if name.startswith(f"{number}-")]
            for name in mine:
                if not name.endswith(".bound"):
                    self.drop(kind, name)
            eventually(lambda: not self.left(kind, number), what=f"handles of {number}, which was killed, are dropped")

    def left(self, kind, number):
        return [name for name in os.listdir(self.mnt.mount.control / kind) if name.startswith(f"{number}-")]

    def drop(self, kind, name):
        try:
            os.unlink(self.mnt.mount.control / kind / name)
        except FileNotFoundError:  # its lease has expired
            pass

    def run(self, count):
        """Kill about two processes a second until the time is over."""
        self.begin(count)
        while time.monotonic() < self.end:
            time.sleep(random.random())
            self.kill_one()
            self.begin(1)
        for number, process in self.processes.items():
            said, complaint = process.communicate(timeout=60)
            self.said.append((number, process.returncode, said, complaint))

    def kill_all(self):
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()


def check_history(events):
    """Never a mut beside another borrow; every borrow ends once. The number of borrows."""
    held = collections.defaultdict(dict)
    count = 0
    for event in sorted(events, key=lambda event: event["id"]):
        if event["event"] not in ("borrow", "release"):
            continue
        kind, name = event["detail"].split("/")
        names = held[event["object"]]
        if event["event"] == "borrow":
            assert not names if kind == "mut" else "mut" not in names.values(), f"{event} beside {names}"
            assert name not in names, f"{event}: there is one already"
            names[name] = kind
            count += 1
        else:
            mine = [known for known in names if first_name(known) == first_name(name)]
            if mine:  # else it had never had its turn
                assert names.pop(mine[0]) == kind, f"{event}: what is borrowed is {names}"
    left = {number: names for number, names in held.items() if names}
    assert not left, f"never released: {left}"
    return count


def first_name(name):
    """What a handle was called when it was borrowed."""
    return re.match(r"\d+-\d+", name)[0]


def check_updates(mnt, notes):
    """No update through a mut was lost: no counter was written twice, and the last one is there."""
    want, done = collections.Counter(), collections.Counter()
    for path in notes.iterdir():
        for line in path.read_text().splitlines() if path.suffix != ".lock" else []:
            what, key, counter = line.split()
            (want if what == "want" else done)[key, int(counter)] += 1
    updates = 0
    for key in KEYS[:COUNTED]:
        _, _, last = read_object(mnt / key)
        mine = [counter for name, counter in done if name == key]
        twice = [(counter, times) for (name, counter), times in done.items() if name == key and times > 1]
        assert not twice, f"{key}: lost updates {twice}"
        assert max(mine, default=0) <= last, f"{key}: is {last}, but {max(mine)} was written"
        for counter in range(1, last + 1):
            assert want[key, counter], f"{key}: {counter} was never written"
        updates += last
    return updates


@pytest.mark.timeout(4000)
def test_6_a_race_for_borrows(own, request, tmp_path):
    count, seconds = request.config.getoption("--race-processes"), request.config.getoption("--race-seconds")
    own.mount.watchdog.arm(own.mount, seconds + 120)
    os.mkdir(own / "tmp")
    for key in KEYS:
        own.put(key, make_object(key, 0, 0, 1000))
        own.becomes(key, "ready")
    race = Race(own, tmp_path, seconds)
    try:
        race.run(count)
    finally:
        race.kill_all()
    wrong = [entry for entry in race.said if entry[1]]
    assert not wrong, "\n".join(f"process {number}: status {status} {said} {text[-1500:]}"
                                for number, status, said, text in wrong)
    eventually(lambda: own.waits() == [])
    for key in KEYS[:COUNTED]:  # a killed process may have left it there
        if os.path.lexists(own.handle("own", key)):
            os.rename(own.handle("own", key), own / key)
    assert {kind: own.handles(kind) for kind in ("ref", "mut", "own")} == {"ref": [], "mut": [], "own": []}
    for key in KEYS:
        assert attr(own / key, "borrows") == "none", key
        assert read_object(own / key)[0] == key
    borrows = check_history(own.history())
    updates = check_updates(own, tmp_path)
    total = collections.Counter()
    for _, _, said, _ in race.said:
        total.update(json.loads(said))
    print(f"{borrows} borrows, {updates} updates,", dict(sorted(total.items())))
    assert borrows > 20 and updates > 5
    for name in os.listdir(own / "tmp"):
        os.unlink(own / f"tmp/{name}")
    assert check_store(own.mount) == []
    own.mount.stop()
    own.mount.start()
    assert own.handles("ref") == own.handles("mut") == [] and all(read_object(own / key)[0] == key for key in KEYS)
    assert check_store(own.mount) == []

"""EIO and ENOSPC from everything below the daemon, at every single system call: whoever is affected is told, nobody is
told what is not true, nothing hangs, and when the fault is gone everything works again.

Each scenario is played again and again, with the first call failing, the second, the third ... until none is reached.
The default run takes a few of them; `--faults-all` all, and also with every later call failing, too. A failure says
which: `-k 'NAME and ...' --faults-all --faults-n N` plays that one alone."""
import contextlib
import errno
import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time

import pytest

from faults import ABSENT, NEVER, ON, ONCE, PENDING, Faults, Refused, Stage, look
from pfs import (WRITE, Mount, binary, complaints, eventually, is_mounted, name_of, opened, pattern, promisefs, set_attr)

pytestmark = [pytest.mark.timeout(20_000)]
OLD, NEW, BIG = pattern(3000, 1), pattern(5000, 2), pattern(700_000, 3)
DEADLINE = 15
SAMPLE = 3
ERRORS = [errno.EIO, errno.ENOSPC]

SCENARIOS = {}


def scenario(*kinds, once_more=None, every=1):
    """kinds: what it must touch, or the test of it would say nothing. every: one in so many calls is tried."""

    def add(play):
        SCENARIOS[play.__name__] = (play, kinds, every)
        return play
    return add


# ---- what is played: everything before `yield` is made ready, everything after it may fail ----------------------------

@scenario("data", "wal")
def put(s):
    yield
    s.write("key", NEW)


@scenario("data", "wal")
def put_and_sync(s):
    yield
    s.write("key", NEW, fsync=True)


@scenario("data", "wal")
def overwrite(s):
    s.have(key=OLD)
    yield
    s.write("key", NEW)


@scenario("data", "wal")
def overwrite_and_sync(s):
    s.have(key=OLD)
    with opened(s / "key") as fd:
        os.fsync(fd)
    yield
    s.write("key", NEW, fsync=True)
    time.sleep(0.55)  # the old one's file is removed


@scenario("data", "wal")
def append(s):
    s.have(key=OLD)
    yield
    s.write("key", b"more", os.O_WRONLY | os.O_APPEND, whole=OLD + b"more")


@scenario("data", "wal")
def append_to_large(s):
    s.have(key=BIG)
    yield
    s.write("key", b"more", os.O_WRONLY | os.O_APPEND, whole=BIG + b"more")
    s.write("key", b"still more", os.O_WRONLY | os.O_APPEND, whole=BIG + b"morestill more")


@scenario("data", "wal")
def append_while_somebody_reads(s):
    s.have(key=BIG)
    reader = s.mnt.worker()
    yield

    def call():
        fd = os.open(s / "key", os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, b"more")
            with contextlib.suppress(OSError):  # the current version gets a file of its own for him, or cannot
                if reader.read_path(s / "key", os.O_RDONLY) != BIG:
                    s.wrong.append("somebody reads what is not published")
        except OSError:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise
        os.close(fd)
    s.step(call, {"key": BIG + b"more"})


@scenario("data", "wal")
def change_a_large_one(s):
    s.have(key=BIG)
    yield
    s.write("key", NEW, os.O_RDWR, whole=NEW + BIG[len(NEW):])


@scenario("data", "wal")
def truncate(s):
    s.have(key=BIG)
    yield
    s.step(lambda: os.truncate(s / "key", 1000), {"key": BIG[:1000]})
    s.step(lambda: os.truncate(s / "key", 0), {"key": b""})


@scenario("data", "wal")
def truncate_an_open_one(s):
    s.have(key=OLD)
    yield

    def call():
        fd = os.open(s / "key", os.O_RDWR)
        try:
            os.ftruncate(fd, 100)
        except OSError:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise
        os.close(fd)
    s.step(call, {"key": OLD[:100]})


class Reader(threading.Thread):
    """Opens a key, waits for it, reads it."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.result = path, None
        self.start()

    def run(self):
        try:
            with open(self.path, "rb", buffering=0) as file:
                self.result = file.read()
        except OSError as error:
            self.result = name_of(error.errno)


@scenario("data", "wal")
def future_and_reader(s):
    s.mnt.declare(f"{s.name}/key")
    s.watch("key", value=PENDING)
    reader = Reader(s / "key")
    eventually(lambda: s.mnt.waits())
    yield
    try:
        s.write("key", NEW)
    except Refused:
        s.truth["key"] = [PENDING, name_of(s.error), "EOWNERDEAD"]
    finally:
        s.reader = reader


@scenario("wal")
def declare_and_cancel(s):
    yield
    s.step(lambda: os.close(os.open(s.special("future", "key"), os.O_WRONLY | os.O_CREAT, 0o666)), {"key": PENDING})
    s.step(lambda: os.unlink(s / "key"), {"key": ABSENT})


@scenario("wal")
def fail_a_future(s):
    s.mnt.declare(f"{s.name}/key")
    s.watch("key", value=PENDING)
    yield
    s.step(lambda: set_attr(s / "key", "error", "ENXIO: so"), {"key": "ENXIO"})


@scenario("data", "wal")
def set_through_future(s):
    s.watch("key")
    yield
    try:
        s.write("key", NEW, os.O_WRONLY | os.O_CREAT, path=s.special("future", "key"))
    except Refused:
        s.truth["key"] = [ABSENT, PENDING, name_of(s.error), "EOWNERDEAD"]  # it is declared by open(2)


@scenario("data", "wal")
def rename_over(s):
    s.have(a=OLD, b=NEW)
    yield
    s.step(lambda: os.rename(s / "a", s / "b"), {"a": ABSENT, "b": OLD})
    time.sleep(0.55)


@scenario("data", "wal")
def link_and_unlink(s):
    s.have(a=OLD)
    yield
    s.step(lambda: os.link(s / "a", s / "b"), {"b": OLD})
    s.step(lambda: os.unlink(s / "a"), {"a": ABSENT})
    s.step(lambda: os.unlink(s / "b"), {"b": ABSENT})
    time.sleep(0.55)


def is_dir(path):
    return lambda: "directory" if os.path.isdir(path) else ABSENT


@scenario("wal")
def mkdir_and_rmdir(s):
    s.watch("d", is_dir(s / "d"))
    s.watch("d/e", is_dir(s / "d/e"))
    yield
    s.step(lambda: os.mkdir(s / "d"), {"d": "directory"})
    s.step(lambda: os.mkdir(s / "d/e"), {"d/e": "directory"})
    s.step(lambda: os.rmdir(s / "d/e"), {"d/e": ABSENT})
    s.step(lambda: os.rmdir(s / "d"), {"d": ABSENT})


def attribute(path, name):
    def probe():
        try:
            return os.getxattr(path, name, follow_symlinks=False)
        except OSError as error:
            return ABSENT if error.errno == errno.ENODATA else name_of(error.errno)
    return probe


@scenario("wal")
def attributes(s):
    s.have(key=OLD)
    s.watch("user.a", attribute(s / "key", "user.a"))
    s.watch("mode", lambda: os.stat(s / "key").st_mode & 0o777, value=os.stat(s / "key").st_mode & 0o777)
    s.watch("mtime", lambda: os.stat(s / "key").st_mtime_ns, value=os.stat(s / "key").st_mtime_ns)
    yield
    s.step(lambda: os.setxattr(s / "key", "user.a", b"x" * 5000), {"user.a": b"x" * 5000})
    s.step(lambda: os.removexattr(s / "key", "user.a"), {"user.a": ABSENT})
    s.step(lambda: os.chmod(s / "key", 0o640), {"mode": 0o640})
    s.step(lambda: os.utime(s / "key", ns=(5, 7)), {"mtime": 7})


@scenario("data", "wal")
def checksum(s):
    s.have(key=OLD)
    probe = attribute(s / "key", "user.promisefs.sha256")
    yield

    def call():
        assert os.getxattr(s / "key", "user.promisefs.sha256") == hashlib.sha256(OLD).hexdigest().encode()
    s.watch("sha256", probe, hashlib.sha256(OLD).hexdigest().encode())
    s.step(call, {})


@scenario("wal")
def symlink_and_fifo(s):
    s.watch("l", lambda: os.readlink(s / "l") if os.path.lexists(s / "l") else ABSENT)
    s.watch("p", lambda: "there" if os.path.lexists(s / "p") else ABSENT)
    yield
    s.step(lambda: os.symlink("to", s / "l"), {"l": "to"})
    s.step(lambda: os.mkfifo(s / "p"), {"p": "there"})


@scenario("data", "wal")
def make_by_reading(s):
    yield
    s.step(lambda: os.close(os.open(s / "key", os.O_RDONLY | os.O_CREAT, 0o600)), {"key": b""})
    s.step(lambda: os.mknod(s / "node", 0o100600), {"node": b""})


@scenario("data", "wal")
def lease_ends(s):
    s.have(key=OLD)
    yield
    s.step(lambda: set_attr(s / "key", "lease", "50ms"), {"key": ABSENT})
    time.sleep(0.1)


@scenario("data", "wal")
def lifetime_ends(s):
    s.have(a=OLD, b=NEW)
    path = s.special("lifetimes", "L")
    s.watch("L", is_dir(path))
    yield
    s.step(lambda: os.mkdir(path), {"L": "directory"})
    s.step(lambda: os.link(s / "a", f"{path}/a"), {})
    s.step(lambda: os.link(s / "b", f"{path}/b"), {})
    s.step(lambda: os.rmdir(path), {"L": ABSENT, "a": ABSENT, "b": ABSENT})
    time.sleep(0.55)


@scenario("data", "wal")
def borrow_mut_and_publish(s):
    s.have(key=OLD)
    mut = s.special("mut", "M")
    s.watch("M", lambda: "there" if os.path.lexists(mut) else ABSENT)
    s.watch("key", lambda: look(mut) if os.path.lexists(mut) else look(s / "key"), OLD)
    yield
    s.step(lambda: os.link(s / "key", mut), {"M": "there"})
    s.write("key", NEW, os.O_WRONLY | os.O_TRUNC, path=mut)
    s.step(lambda: os.unlink(mut), {"M": ABSENT})


@scenario("wal")
def borrow_and_release(s):
    s.have(key=OLD)
    ref = s.special("ref", "R")
    s.watch("R", lambda: look(ref))
    yield
    s.step(lambda: os.link(s / "key", ref), {"R": OLD})
    s.step(lambda: os.unlink(ref), {"R": ABSENT})


@scenario("wal")
def own_and_give_back(s):
    s.have(key=OLD)
    own = s.special("own", "X")
    s.watch("X", lambda: look(own))
    yield
    s.step(lambda: os.rename(s / "key", own), {"key": ABSENT, "X": OLD})
    s.step(lambda: os.rename(own, s / "key"), {"key": OLD, "X": ABSENT})


def look_once(path):
    """Without taking it."""

    def probe():
        value = attribute(path, "user.promisefs.sha256")() if os.path.lexists(path) else ABSENT
        return ABSENT if value == "ENOENT" else value
    return probe


@scenario("data", "wal")
def read_once(s):
    s.have(key=OLD)
    sha = hashlib.sha256(OLD).hexdigest().encode()
    s.watch("key", look_once(s / "key"), sha)
    assert look_once(s / "key")() == sha
    yield

    def call():
        with open(s.special("once", "key"), "rb", buffering=0) as file:
            data = file.read()
        assert data == OLD
    s.step(call, {"key": ABSENT}, either=["key"])
    time.sleep(0.55)


@scenario("data", "wal")
def evict(s):
    s.have(a=OLD, b=BIG)
    yield
    s.step(lambda: os.unlink(s / "a"), {"a": ABSENT})
    s.step(lambda: os.unlink(s / "b"), {"b": ABSENT})
    time.sleep(0.6)


@scenario("data", "wal")
def log_that_is_tailed(s):
    os.mkdir(s / "live")
    set_attr(s / "live", "publish", "write")
    s.watch("live/log")
    yield
    try:
        s.write("live/log", b"one", os.O_WRONLY | os.O_CREAT | os.O_APPEND, fsync=True)
    except Refused:
        s.truth["live/log"] += [b"", b"one"]  # as it is written


@scenario("wal", "catalog", every=97)
def checkpoint(s):
    s.have(key=OLD)
    s.watch("user.a", attribute(s / "key", "user.a"))
    yield
    for number in range(330):
        value = bytes([number % 256]) * 60_000
        s.step(lambda value=value: os.setxattr(s / "key", "user.a", value), {"user.a": value})


@scenario("data", "wal", "catalog")
def read(s):
    s.have(key=BIG)
    os.symlink("key", s / "link")
    yield
    s.step(lambda: os.listdir(s.root), {})
    s.step(lambda: os.stat(s / "key"), {})
    s.step(lambda: os.stat(s / "nothing") if os.path.exists(s / "nothing") else None, {})

    def call():
        with open(s / "key", "rb", buffering=0) as file:
            assert file.read() == BIG
    s.step(call, {})


# ---- playing it ------------------------------------------------------------------------------------------------------

def pytest_generate_tests(metafunc):
    if "play" in metafunc.fixturenames:
        metafunc.parametrize("play", list(SCENARIOS))
    if "error" in metafunc.fixturenames:
        metafunc.parametrize("error", ERRORS, ids=name_of)
    if "mode" in metafunc.fixturenames:
        metafunc.parametrize("mode", [ONCE, ON], ids=["one", "from"])


class Rig:
    """A mount whose daemon suffers, what the scenarios in it were told, and what was wrong."""

    def __init__(self, mnt, faults, error):
        self.mnt, self.faults, self.error = mnt, faults, error
        self.stages = []
        self.wrong = []
        self.tolerated = []
        mnt.put("bystander", BIG)
        os.mkdir(mnt / "dir")
        mnt.put("dir/bystander", OLD)
        mnt.becomes("dir/bystander", "ready")

    def play(self, name, n, mode):
        """Once, with the n-th call failing. Returns whether any has."""
        faults = self.faults
        stage = Stage(self.mnt, f"{name}-{n}", self.error)
        steps = SCENARIOS[name][0](stage)
        next(steps)
        faults.quiet()
        self.mnt.mount.watchdog.arm(self.mnt.mount, DEADLINE)
        faults.arm(self.error, n, mode)
        with contextlib.suppress(Refused, StopIteration):
            next(steps)
        faults.quiet()
        failed = faults.off()
        what = f"{name}, number {n} of {faults.counted} ({faults.last})"
        found = stage.wrong + stage.false() + self.answers(stage)
        found += self.reader_is_right(stage)
        self.wrong += [f"{what}: {line}" for line in found]
        if not found:
            self.stages.append((what, stage))
        return failed

    def reader_is_right(self, stage):
        """Who has waited has what the key has, or an error; if it is pending still, he waits."""
        reader = getattr(stage, "reader", None)
        if reader is None:
            return []
        now = look(stage / "key")
        if now == PENDING:
            with opened(stage / "key", WRITE) as fd:
                os.write(fd, NEW)
            stage.truth["key"] = [NEW]
        reader.join(5)
        good = (NEW, name_of(self.error), "EOWNERDEAD")
        return [] if reader.result in good else [f"the reader got {reader.result!r:.60}, the key is {now!r:.60}"]

    def answers(self, stage):
        """Does it work as if nothing had been?"""
        found = []
        try:
            with opened(stage / "fresh", WRITE) as fd:
                os.write(fd, NEW)
            with open(stage / "fresh", "rb", buffering=0) as file:
                if file.read() != NEW:
                    found.append("what was put afterwards is not what is read")
            os.mkdir(stage / "fresh-dir")
            os.rmdir(stage / "fresh-dir")
        except OSError as error:
            found.append(f"afterwards: {error}")
        stage.watch("fresh", value=NEW)
        return found + self.bystanders()

    def bystanders(self):
        good = look(self.mnt / "bystander") == BIG and look(self.mnt / "dir/bystander") == OLD
        return [] if good else ["keys that nobody has touched are not what they were"]

    def check_all(self, when):
        self.wrong += [f"{what}: {when}: {line}" for what, stage in self.stages for line in stage.false()]
        self.wrong += [f"{when}: {line}" for line in self.bystanders()]

    def come_to_an_end(self):
        """Unmount, check, mount: all of it is there still, and nothing else."""
        mount = self.mnt.mount
        mount.watchdog.arm(mount, 60)
        self.wrong += self.fsck("--online")
        mount.stop(DEADLINE)
        self.wrong += self.fsck()
        mount.start()
        self.check_all("mounted again")
        deadline = time.monotonic() + 3
        while (left := complaints(mount)) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = [line for line in left if not any(words in line for words in self.tolerated)]
        self.wrong += [f"left over: {line}" for line in left]

    def fsck(self, *options):
        done = promisefs("fsck", *options, self.mnt.mount.store, timeout=60)
        lines = [line for line in done.stdout.splitlines() if re.match(r"\w+: ", line)]
        if lines and all(any(words in line for words in self.tolerated) for line in lines):
            return []
        return [] if done.returncode == 0 else [f"fsck {' '.join(options)}: {done.stdout} {done.stderr}"]


@pytest.fixture
def rig(new_mount, data_path, scratch, numbers, error):
    base = scratch / f"faults-{next(numbers)}"
    base.mkdir()
    faults = Faults(base / "control", base / "store")
    mnt = new_mount(data_path, store=base / "store", environment=faults.environment)
    yield Rig(mnt, faults, error)
    mnt.mount.close()
    shutil.rmtree(base, ignore_errors=True)


def numbers_to_try(config, total, every):
    """All that there are, or a sample that is different for each scenario but the same in each run."""
    only = config.getoption("--faults-n")
    if only is not None:
        return [only]
    step = every if config.getoption("--faults-all") else max(every, (total + SAMPLE - 1) // SAMPLE)
    return range(1 + total % step if step > 1 else 1, total + 1, step)


def sweep(rig, config, play, mode):
    kinds, every = SCENARIOS[play][1:]
    rig.play(play, NEVER, ONCE)
    if rig.error == errno.EIO:
        touched = {kind for kind, _ in rig.faults.table("seen")}
        assert touched >= set(kinds), f"it does not touch {set(kinds) - touched}"
    rig.play(play, NEVER - 1, ONCE)  # with everything that is made the first time
    total, hits = rig.faults.counted, 0
    assert total > 0, "nothing is called that could fail"
    for n in numbers_to_try(config, total, every):
        hits += rig.play(play, n, mode) > 0
    n = total + 1
    while config.getoption("--faults-all") and config.getoption("--faults-n") is None and rig.play(play, n, mode):
        hits += 1
        n += every
    assert hits > 0, "nothing has failed"
    if mode == ON:  # what can neither be recorded nor removed or cut off stays: fsck finds it, and opening cuts it
        rig.tolerated = {"log_that_is_tailed": ["belongs to no object"],
                         "append_while_somebody_reads": ["its data file is longer"],
                         "append_to_large": ["its data file is longer"]}.get(play, [])
    rig.come_to_an_end()
    report(config, play, rig, hits)
    assert not rig.wrong, "\n" + "\n".join(rig.wrong)


def report(config, play, rig, hits):
    if config.getoption("--faults-all"):
        print(f"\n{play}: {hits} faults", {" ".join(key): count for key, count in rig.faults.table().items()})


def is_in_sample(config, play, error, mode, data_path):
    """The default run plays each scenario with one of the errors, in one mode, on one data path."""
    if config.getoption("--faults-all") or config.getoption("--faults-n"):
        return True
    which = ERRORS.index(error) + 2 * (mode == ON) + 4 * (data_path == "passthrough=on")
    return (list(SCENARIOS).index(play) + which) % 8 == 0


def test_sweep(request, rig, play, error, mode, data_path):
    if play == "read" and error == errno.ENOSPC:
        pytest.skip("reading takes no space")
    if not is_in_sample(request.config, play, error, mode, data_path):
        pytest.skip("not in the sample; --faults-all")
    sweep(rig, request.config, play, mode)


# ---- what happens outside of a mount ---------------------------------------------------------------------------------

class Outside:
    """A store with something of everything, as a killed daemon has left it, and commands that suffer."""

    def __init__(self, scratch, numbers, watchdog, data_path):
        self.base = scratch / f"faults-{next(numbers)}"
        self.base.mkdir()
        self.store = self.base / "store"
        self.watchdog, self.data_path = watchdog, data_path
        self.faults = Faults(self.base / "control", self.store)
        self.mounts = []

    def mount(self, environment=None):
        mount = Mount(self.base, ",".join(part for part in ("allow_other", self.data_path) if part), store=self.store,
                      watchdog=self.watchdog, environment=environment)
        self.mounts.append(mount)
        return mount

    def command(self, *argv, suffers=True, timeout=60):
        environment = {**os.environ, **(self.faults.environment if suffers else {})}
        return subprocess.run([binary(), *map(str, argv)], env=environment, capture_output=True, text=True,
                              timeout=timeout, stdin=subprocess.DEVNULL)

    def fill(self):
        """Keys, and what is under way when the daemon is killed."""
        mount = self.mount()
        mount.start()
        root = mount.root
        (root / "dir").mkdir()
        (root / "key").write_bytes(OLD)
        (root / "dir/big").write_bytes(BIG)
        for key in ("key", "dir/big"):
            eventually(lambda key=key: os.getxattr(root / key, "user.promisefs.state") == b"ready")
        with opened(root / "replaced", WRITE) as fd:
            os.write(fd, OLD)
        fd = os.open(root / "synced", WRITE, 0o600)
        os.write(fd, NEW)
        os.fsync(fd)
        (root / "replaced").write_bytes(NEW)
        (root / "gone").write_bytes(BIG)
        os.unlink(root / "gone")
        mount.kill()
        with contextlib.suppress(OSError):
            os.close(fd)

    def copy(self):
        shutil.rmtree(self.store, ignore_errors=True)
        shutil.copytree(self.base / "kept", self.store, symlinks=True)

    def is_whole(self):
        """What a mount shows, and what fsck says afterwards: a list of what is wrong."""
        mount = self.mount()
        mount.start()
        root = mount.root
        wanted = {"key": OLD, "dir/big": BIG, "replaced": NEW, "synced": NEW, "gone": ABSENT}
        end = time.monotonic() + 2
        while True:
            found = [f"{key} is not as it was" for key, data in wanted.items() if look(root / key) != data]
            if not found or time.monotonic() > end:
                break
            time.sleep(0.02)
        with opened(root / "fresh", WRITE) as fd:
            os.write(fd, b"fresh")
        mount.stop(DEADLINE)
        done = promisefs("fsck", self.store)
        return found + ([] if done.returncode == 0 else [done.stdout + done.stderr])

    def close(self):
        for mount in self.mounts:
            mount.close()
        shutil.rmtree(self.base, ignore_errors=True)


@pytest.fixture
def outside(scratch, numbers, watchdog, data_path):
    rig = Outside(scratch, numbers, watchdog, data_path)
    yield rig
    rig.close()


def one_line(done, verb):
    """It has failed, and said why in a line."""
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"promisefs {verb}: ")]
    return [] if lines else [f"status {done.returncode}, {done.stderr!r}"]


def sweep_outside(config, outside, error, mode, play, every=1):
    """play(n) gives a list of what was wrong and leaves faults.counted and faults.failed as they were."""
    faults, wrong, hits = outside.faults, [], 0
    wrong += play(NEVER)
    total = faults.counted
    assert total > 0, "nothing is called that could fail"
    for n in numbers_to_try(config, total, every):
        found = play(n)
        hits += faults.failed > 0
        wrong += [f"number {n} of {total} ({faults.last}): {line}" for line in found]
    assert hits > 0, "nothing has failed"
    if config.getoption("--faults-all"):
        print(f"\n{hits} faults", {" ".join(key): count for key, count in faults.table().items()})
    assert not wrong, "\n" + "\n".join(wrong)


def chosen(request, number):
    """In the default run each of these is played with one of the errors, in one mode."""
    config, params = request.config, request.node.callspec.params
    if config.getoption("--faults-all") or config.getoption("--faults-n"):
        return
    if (number + ERRORS.index(params["error"]) + (params["mode"] == ON) * 2 + (params["data_path"] != "passthrough")) % 4:
        pytest.skip("not in the sample; --faults-all")


def test_mount(request, outside, error, mode):
    """After a crash, with all that has to be put right: it mounts, or says why not, and the next one does."""
    chosen(request, 0)
    outside.fill()
    outside.store.rename(outside.base / "kept")

    def play(n):
        outside.copy()
        mount = outside.mount(outside.faults.environment)
        argv = [binary(), "mount", str(outside.store), str(mount.root), "-o", mount.options]
        outside.faults.arm(error, n, mode)
        done = subprocess.run(argv, env=mount.environment, capture_output=True, text=True, timeout=40)
        failed = outside.faults.off()
        found = []
        if done.returncode == 0:
            unmounted = promisefs("umount", mount.root, timeout=30)
            found += [] if unmounted.returncode == 0 else [unmounted.stderr]
        elif not failed:
            found.append(f"did not mount: {done.stderr}")
        else:
            found += one_line(done, "mount") + (["left a mount behind"] if is_mounted(mount.root) else [])
        return found + outside.is_whole()

    sweep_outside(request.config, outside, error, mode, play)


def test_first_mount(request, outside, error, mode):
    """Of a store that is made by it."""
    chosen(request, 1)

    def play(n):
        shutil.rmtree(outside.store, ignore_errors=True)
        outside.store.mkdir()
        mount = outside.mount(outside.faults.environment)
        argv = [binary(), "mount", str(outside.store), str(mount.root), "-o", mount.options]
        outside.faults.arm(error, n, mode)
        done = subprocess.run(argv, env=mount.environment, capture_output=True, text=True, timeout=40)
        outside.faults.off()
        found = one_line(done, "mount") if done.returncode else []
        if done.returncode == 0:
            unmounted = promisefs("umount", mount.root, timeout=30)
            found += [] if unmounted.returncode == 0 else [unmounted.stderr]
        assert not is_mounted(mount.root), (n, outside.faults.last, done, found)
        mount.start()
        (mount.root / "key").write_bytes(OLD)
        mount.stop(DEADLINE)
        checked = promisefs("fsck", outside.store)
        return found + ([] if checked.returncode == 0 else [checked.stdout + checked.stderr])

    sweep_outside(request.config, outside, error, mode, play)


def test_unmount(request, outside, error, mode):
    """It comes to its end in time, and all is there when it is mounted again."""
    chosen(request, 2)
    outside.fill()
    outside.store.rename(outside.base / "kept")

    def play(n):
        outside.copy()
        mount = outside.mount(outside.faults.environment)
        mount.start()
        (mount.root / "last").write_bytes(BIG)
        os.unlink(mount.root / "last")
        outside.faults.arm(error, n, mode)
        mount.process.terminate()
        mount.process.wait(DEADLINE)
        outside.faults.off()
        found = [] if not is_mounted(mount.root) else ["still mounted"]
        found += [] if mount.process.returncode >= 0 else [f"the daemon died of signal {-mount.process.returncode}"]
        return found + outside.is_whole()

    sweep_outside(request.config, outside, error, mode, play)


def test_backup(request, outside, error, mode):
    """The copy is whole, or the command says that it is not; the store is as it was, and the next copy is whole."""
    chosen(request, 3)
    outside.fill()
    copy = outside.base / "copy"
    where = [copy, outside.store]

    def play(n):
        found = []
        for place in where:
            shutil.rmtree(copy, ignore_errors=True)
            outside.faults.environment["PROMISEFS_FAULTS_STORE"] = str(place)
            outside.faults.arm(error, n, mode)
            done = outside.command("backup", outside.store, copy)
            failed = outside.faults.off()
            if done.returncode != 0:
                found += one_line(done, "backup") if failed else [f"failed by itself: {done.stderr}"]
                done = outside.command("backup", outside.store, copy, suffers=False)
                found += [] if done.returncode == 0 else [f"the next one failed: {done.stderr}"]
            found += same_store(outside, copy)
        return found

    sweep_outside(request.config, outside, error, mode, play)


def same_store(outside, copy):
    done = promisefs("fsck", copy)
    if done.returncode != 0:
        return [f"the copy: {done.stdout}{done.stderr}"]
    base = sqlite3.connect(f"file:{copy}/catalog.db?mode=ro", uri=True)
    rows = base.execute("select vid, size from object where state = 3").fetchall()
    base.close()
    sizes = {}
    for folder, _, names in os.walk(copy):
        sizes |= {name: os.path.getsize(os.path.join(folder, name)) for name in names}
    return [f"version {vid:016x} has {sizes.get(f'{vid:016x}')} bytes, not {size}"
            for vid, size in rows if sizes.get(f"{vid:016x}") != size]


def test_repair(request, outside, error, mode):
    """A repair that does not come to its end is gone on with by the next one, and loses nothing."""
    chosen(request, 0)
    outside.fill()
    assert outside.is_whole() == []
    files = sorted((outside.store / "data").rglob("*"), key=lambda path: path.stat().st_size)
    (outside.store / "data/00").mkdir(0o700, exist_ok=True)
    shutil.copy(files[-1], outside.store / "data/00/00000000deadbe00")
    base = sqlite3.connect(outside.store / "catalog.db")
    base.execute("update object set nlink = 5 where state = 3 and size = ?", (len(OLD),))
    base.execute("insert into garbage values (77777)")
    base.commit()
    base.close()
    assert promisefs("fsck", outside.store).returncode == 4
    outside.store.rename(outside.base / "kept")

    def play(n):
        outside.copy()
        outside.faults.arm(error, n, mode)
        done = outside.command("fsck", "--repair", outside.store)
        failed = outside.faults.off()
        found = []
        if done.returncode not in (0, 1):
            found += one_line(done, "fsck") if failed and done.returncode == 8 else []
            done = outside.command("fsck", "--repair", outside.store, suffers=False)
            found += [] if done.returncode in (0, 1) else [f"the next one: {done.stdout}{done.stderr}"]
        return found + outside.is_whole()

    sweep_outside(request.config, outside, error, mode, play)

"""Power loss: the store is on a disk that loses, when it is cut off, what was not flushed (lossy_disk.c, with ext4 on it).
Whatever fsync(2) was acknowledged for is there afterwards, and nothing of what it is has changed."""
import errno
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

import pfs
from pfs import PYTHON, TESTS, check_store, eventually, run, state
from power_worker import content

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(600)]
DISK_SIZE = 192 << 20
WRITERS = 4


class LossyDisk:
    """An ext4 file system on a disk that can be cut off. Whatever happens, close() takes all of it away."""

    def __init__(self, base: Path):
        self.base = base
        self.now, self.safe, self.disk, self.root = (base / name for name in ("now", "safe", "disk", "ext4"))
        for path in (self.disk, self.root):
            path.mkdir(parents=True)
        with open(self.safe, "wb") as file:
            file.truncate(DISK_SIZE)
        self.process = self.loop = None

    def on(self, share=0, seed=0, make=False):
        """With what was safe. A cut leaves `share` percent of what was not."""
        run("cp", "--sparse=always", self.safe, self.now).check_returncode()
        program = Path(pfs.binary()).parents[2] / "tests/lossy-disk"
        self.process = subprocess.Popen([str(word) for word in (program, self.now, self.safe, share, seed, self.disk)],
                                        stdin=subprocess.DEVNULL)
        eventually((self.disk / "disk").exists)
        self.loop = self._said("losetup", "--find", "--show", self.disk / "disk")
        if make:
            self._said("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0", self.loop)
        self._said("mount", "-t", "ext4", "-o", "nodiscard", self.loop, self.root)

    @staticmethod
    def _said(*argv):
        done = run(*argv)
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout.strip()

    def cut(self):
        self.process.send_signal(signal.SIGUSR1)

    def off(self):
        """Take it away: what is not in `safe` by now is lost."""
        if pfs.is_mounted(self.root):
            self._said("umount", self.root)
        if self.loop:
            self._said("losetup", "-d", self.loop)
            self.loop = None
        if self.process:
            eventually(lambda: run("fusermount3", "-u", self.disk).returncode == 0 or not pfs.is_mounted(self.disk))
            self.process.wait(10)
            self.process = None

    def close(self):
        try:
            self.off()
        finally:
            if self.process:
                self.process.kill()
                self.process.wait(10)
            for path in (self.root, self.disk):
                if pfs.is_mounted(path):
                    run("umount", "-l", path)
            if self.loop:
                run("losetup", "-d", self.loop)


@pytest.fixture
def lossy(scratch, numbers):
    if run("losetup", "--find").returncode != 0:
        pytest.skip("this machine has no loop devices")
    disk = LossyDisk(scratch / f"lossy-{next(numbers)}")
    try:
        disk.on(make=True)
        disk.off()
        yield disk
    finally:
        disk.close()
        shutil.rmtree(disk.base)


def allowed(log: Path):
    """{key: what it may be} after a cut, by what its only writer has said: parts, or None if it is not there."""
    keys, before = {}, {}
    for line in log.read_bytes().splitlines():
        said = json.loads(line)
        key = said["key"]
        if "done" in said:
            keys[key] = [keys[key][-1]]
            continue
        before[key] = keys.get(key, [None])[-1]
        # A future is one that was cancelled before it was set: in between it is missing, pending, or failed.
        keys[key] = [before[key], *([None] if said["what"] == "set_future" else []), said["then"]]
    return keys


def what_is(path):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, OSError) as error:
        return None if isinstance(error, FileNotFoundError) else error
    with os.fdopen(fd, "rb") as file:
        try:
            return file.read()
        except OSError as error:
            return error


def is_one_of(found, key, parts):
    if key == "d" and None in parts and getattr(found, "errno", None) in (errno.EAGAIN, errno.EOWNERDEAD):
        return True  # pending, or failed, as its writer is gone
    return any(found == (None if one is None else content(one)) for one in parts)


def wrong(mnt, logs):
    """What is not as it was acknowledged."""
    found = []
    for number, log in enumerate(logs):
        for key, parts in allowed(log).items():
            data = what_is(mnt / f"w{number}/{key}")
            if not is_one_of(data, key, parts):
                shown = data if not isinstance(data, bytes) else f"{len(data)} bytes, {data[:9]} ... {data[-9:]}"
                found.append(f"w{number}/{key}: {shown}, not one of {parts}")
    return found


def run_until_cut(lossy, mnt, seed, logs, seconds):
    """Writers work, the power is cut below them, and everything dies."""
    writers = [subprocess.Popen([*PYTHON, "-c", f"import sys; sys.path.insert(0, {str(TESTS)!r}); import power_worker; "
                                 "power_worker.main()", str(mnt / f"w{number}"), str(mnt.mount.control), str(log),
                                 str(seed + number)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for number, log in enumerate(logs)]
    try:
        eventually(lambda: all(log.exists() and log.stat().st_size > 0 for log in logs), what="all writers write")
        time.sleep(seconds)
        lossy.cut()
        mnt.mount.kill()
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(10)


@pytest.mark.parametrize("share", [0, 50, 90])
def test_what_was_fsynced_survives_power_loss(lossy, new_mount, data_path, request, share):
    seed = request.config.getoption("--stress-seed") or random.randrange(1 << 30)
    chance = random.Random(seed)
    for cut in range(request.config.getoption("--power-cuts")):
        lossy.on(share, chance.randrange(1 << 30))
        mnt = new_mount(data_path, store=lossy.root / "store")
        logs = [mnt.mount.base / f"log{number}" for number in range(WRITERS)]
        run_until_cut(lossy, mnt, chance.randrange(1 << 30), logs, chance.uniform(0.1, 1.2))
        lossy.off()
        lossy.on()
        mnt.mount.start()
        found = wrong(mnt, logs)
        for noise in Path(mnt.root).glob("w*/noise*"):  # may be shorter than the catalog says
            noise.unlink()
        found += check_store(mnt.mount)
        done = sum(log.read_bytes().count(b"done") for log in logs)
        assert not found, f"seed {seed}, cut {cut} after {done} acknowledged changes: {found}"
        assert done > 0
        for number in range(WRITERS):
            shutil.rmtree(mnt / f"w{number}", ignore_errors=True)
        mnt.mount.stop()
        lossy.off()


def published_too_early(store: Path):
    """What power loss leaves when it takes back what published a draft, but not that its file was moved."""
    for draft in (store / "drafts").iterdir():
        shard = store / "data" / draft.name[-2:]
        shard.mkdir(0o700, exist_ok=True)
        draft.rename(shard / draft.name)


def leave(store: Path, number):
    """A published file of which nothing is recorded."""
    shard = store / "data" / f"{number & 255:02x}"
    shard.mkdir(0o700, exist_ok=True)
    (shard / f"{number:016x}").write_bytes(b"lost")
    (shard / f"{number:016x}").chmod(0o600)


def test_files_that_were_published_by_what_is_lost(own):
    own.put("replaced", b"old")
    own.declare("future", "other")
    for key in ("new", "replaced", "future"):
        own.writer(key, b"torn")
    with sqlite3.connect(f"file:{own.mount.store}/catalog.db?mode=ro", uri=True) as catalog:
        eventually(lambda: catalog.execute("select count(*) from draft").fetchone() == (3,))
        other, highest = catalog.execute("select max(id) filter (where state = 1), max(id) from object").fetchone()
    catalog.close()
    own.mount.kill()
    published_too_early(own.mount.store)
    for number in (other, highest + 5, highest + 4000):
        leave(own.mount.store, number)
    own.mount.start()
    assert own.get("replaced") == b"old" and not os.path.exists(own / "new")
    assert Path(own.aborted("future")).read_bytes() == b"torn"
    assert state(own / "other") == "pending"
    own.put("other", b"set")
    assert own.get("other") == b"set"
    assert check_store(own.mount) == []

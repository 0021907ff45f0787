"""Many objects: in many directories, in one, and evicted together."""

import contextlib
import functools
import shutil
import sqlite3
import subprocess
import time

from .measure import Aim, Case, Row
from .rig import BenchError, checked_output, eventually, file_system, running

FILL_CLIENTS = 4
OPERATIONS = ("stat", "get", "put", "evict")
# Roughly what an object of 64 bytes takes: a block, an inode, its rows.
BYTES_AN_OBJECT = 6000


class Filled:
    """A store with many objects, which is mounted anew for each round, so that the kernel knows none of them."""

    def __init__(self, rig, base, directories, per_directory):
        self.rig, self.base, self.directories, self.per_directory = rig, base, directories, per_directory
        self.store, self.first, self.ours, self.stack = base / "store", 0, None, None
        self.remount()
        start = time.monotonic()
        self.fill()
        self.fill_seconds = time.monotonic() - start
        rig.stack.callback(self.close)

    @property
    def objects(self):
        return self.directories * self.per_directory

    def fill(self):
        words = [self.rig.loops, "fill", self.ours.path, self.directories, self.per_directory, FILL_CLIENTS]
        with running(words) as process:
            for line in process.stdout:
                self.rig.progress(f"making objects: {int(line):,} of {self.objects:,}")
            if process.wait(60):
                raise BenchError(process.stderr.read().strip())

    def close(self):
        if self.stack:
            self.stack.close()
            self.stack = None

    def remount(self):
        self.close()
        self.stack = contextlib.ExitStack()
        self.ours = self.rig.mount(self.stack, self.base, store=self.store)

    def sample(self, operation):
        """Microseconds an operation, on objects that nobody has touched since the mount."""
        count = min(self.rig.sizes.samples, self.objects // 2)
        first = self.first % self.objects
        if operation in ("stat", "get"):  # the last two go to the same new names
            self.first += count
        words = ("sample", operation, self.ours.path, self.directories, self.per_directory, count, first)
        return self.rig.seconds(*words) / count * 1e6

    def round(self):
        self.remount()
        values = {operation: self.sample(operation) for operation in OPERATIONS}
        return {**values, "mount": self.ours.mount_seconds}

    def list(self):
        """Names a second of `ls -f` in the first directory."""
        start = time.monotonic()
        checked_output(["ls", "-f", self.ours.path / "d0"])
        return self.per_directory / (time.monotonic() - start) / 1000

    def resident_after_find(self):
        """MiB of the daemon when find has listed everything."""
        self.remount()
        subprocess.run(["find", self.ours.path], stdout=subprocess.DEVNULL, check=True)
        return self.ours.resident() / (1 << 20)


def place_for(rig, objects):
    """Where so many objects go: the fast place, else the disk, else nowhere."""
    needed = objects * BYTES_AN_OBJECT
    for base in (rig.base, rig.disk):
        if base and shutil.disk_usage(base).free > 2 * needed:
            return base
    return None


def compare(rig, name, many, few, operations, titles):
    """The rows of both scenarios: many objects against few."""
    big, small = f"{many.objects:,}", f"{few.objects:,}"
    rows = [Row(f"{titles[operation]}: {big} against {small}", "us", big, small, Aim("<=", 1.2), operation)
            for operation in operations]
    return Case(name, {small: few.round, big: many.round}, rows, warm_up=True), big


def filled_pair(rig, what, many, few):
    """Two filled stores, (directories, per directory) each, on the same file system; or None."""
    base = place_for(rig, many[0] * many[1])
    if base is None:
        rig.skip(what, "not enough space for that many files")
        return None
    pair = [Filled(rig, rig.fresh(base), *shape) for shape in (few, many)]
    rig.note(f"filled     {pair[1].objects:,} objects in {many[0]:,} directories on {file_system(base)} in "
             f"{pair[1].fill_seconds:.0f} s ({pair[1].objects / pair[1].fill_seconds:,.0f} a second)")
    return pair


def objects(rig):
    sizes = rig.sizes
    directories = sizes.directories
    pair = filled_pair(rig, "many objects", (directories, max(1, sizes.objects // directories)),
                       (directories, max(1, sizes.few_objects // directories)))
    if not pair:
        return []
    few, many = pair
    titles = {operation: f"{operation} in {directories:,} directories" for operation in OPERATIONS}
    case, big = compare(rig, "many objects", many, few, OPERATIONS, titles)
    case.rows.append(Row(f"mounting {many.objects:,} objects", "s", big, None, Aim("<", 1, " s"), "mount"))
    memory = Row(f"daemon memory, {many.objects:,} objects listed by find", "MiB", "ours", None, Aim("<", 256, " MiB"))
    return [case, Case("memory after find", {"ours": many.resident_after_find}, [memory], runs=min(3, rig.sizes.runs),
                       warm_up=False)]


def directory(rig):
    sizes = rig.sizes
    pair = filled_pair(rig, "one large directory", (1, sizes.names), (1, sizes.few_names))
    if not pair:
        return []
    few, many = pair
    titles = {"stat": "lookup in one directory", "put": "create in one directory"}
    case, _ = compare(rig, "one directory", many, few, ("stat", "put"), titles)
    names = Row(f"ls -f of {many.objects:,} names", "1000/s", "ours", None, Aim(">=", 300, ",000/s"))
    return [case, Case("ls -f", {"ours": many.list}, [names])]


# ---- evicting together -----------------------------------------------------------------------------------------------

class Catalog:
    """Whether lifetimes are still ending, as the catalog says (docs/catalog.md)."""

    def __init__(self, store):
        self.base = sqlite3.connect(f"file:{store}/catalog.db?mode=ro", uri=True, isolation_level=None)

    def is_quiet(self):
        return not self.base.execute("select count(*) from ending").fetchone()[0]


def evict_once(rig, catalog, by_lifetime):
    """Microseconds a file until all are gone."""
    ours, count = rig.ours(), rig.sizes.lifetime_files
    folder = rig.fresh(ours.path)
    lifetime = ours.path / ".promisefs/lifetimes" / f"bench-{folder.name}"
    rig.loop("put", folder, count, 1)
    if by_lifetime:
        lifetime.mkdir()
        rig.loop("link-all", folder, lifetime, count)
    start = time.monotonic()
    if by_lifetime:
        lifetime.rmdir()
        eventually(catalog.is_quiet, "the lifetime has ended", 120, pause=0.0005)
    else:
        checked_output(["rm", "-r", folder])
    seconds = time.monotonic() - start
    if by_lifetime:
        folder.rmdir()  # which fails if anything is left
    return seconds / count * 1e6


def evict(rig):
    catalog = Catalog(rig.ours().store)
    contenders = {"lifetime": functools.partial(evict_once, rig, catalog, True),
                  "rm": functools.partial(evict_once, rig, catalog, False)}
    return [Case("evict", contenders, [
        Row(f"evict {rig.sizes.lifetime_files:,} files: end of a lifetime", "us", "lifetime", "rm", Aim("<=", 0.2))])]


SCENARIOS = {"objects": objects, "directory": directory, "evict": evict}

"""Streams and random reads of one large file, against the file system that the store is on."""

import shutil

from .measure import Aim, Case, Row
from .rig import MIB, file_system

KINDS = (("write", "stream write", "MiB/s"), ("read", "stream read", "MiB/s"),
         ("mmap", "random 4 KiB mmap reads", "1000/s"), ("pread", "random 4 KiB pread(2)", "1000/s"))
AIMS = {"passthrough": Aim(">=", 0.97), "fallback": Aim(">=", 0.5)}


def measure(rig, path):
    """One round of one contender; the file is left for nobody."""
    sizes = rig.sizes
    mib = sizes.stream_bytes / MIB
    values = {"write": mib / rig.seconds("stream-write", path, sizes.stream_bytes),
              "read": mib / rig.seconds("stream-read", path),
              "mmap": sizes.pages / rig.seconds("mmap-read", path, sizes.pages) / 1000,
              "pread": sizes.pages / rig.seconds("pread", path, sizes.pages) / 1000}
    path.unlink()
    return values


def on(rig, where, base):
    """The case of a file system: each data path that this machine has, and native."""
    if shutil.disk_usage(base).free < 4 * rig.sizes.stream_bytes:
        rig.skip(f"streams on {where}", f"less than {4 * rig.sizes.stream_bytes // MIB} MiB free in {base}")
        return []
    native = rig.fresh(base)
    contenders = {"native": lambda: measure(rig, native / "stream")}
    mounts = [rig.mount(base=rig.fresh(base))]
    if mounts[0].data_path() == "passthrough" and rig.data_path == "auto":
        mounts.append(rig.mount(base=rig.fresh(base), data_path="off"))
    rows = []
    for ours in mounts:
        name = ours.data_path()
        contenders[name] = lambda ours=ours: measure(rig, ours.path / "stream")
        rows += [Row(f"{title}, {where}", unit, name, "native", AIMS[name], metric) for metric, title, unit in KINDS]
    return [Case(f"streams on {where}", contenders, rows)]


def stream(rig):
    return on(rig, file_system(rig.base), rig.base)


def stream_disk(rig):
    if not rig.disk:
        rig.skip("streams on a disk", "no directory on a disk (--disk)")
        return []
    return on(rig, file_system(rig.disk), rig.disk)


SCENARIOS = {"stream": stream, "stream-disk": stream_disk}

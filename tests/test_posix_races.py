"""Several processes change the same names at once: the tree stays one, and nothing is lost or there twice."""
import collections
import contextlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess

from pfs import PYTHON, TESTS, check_store
from posixfs import one_data_path

pytestmark = one_data_path

PROCESSES, SECONDS = 4, 0.4


def race(place, what, seconds=SECONDS):
    """Let them race; the sum of what each counted."""
    racers = [subprocess.Popen([*PYTHON, str(TESTS / "posix_racer.py"), what, place.root, str(seconds), str(seed)],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
              for seed in range(PROCESSES)]
    counts, errors = collections.Counter(), []
    try:
        for racer in racers:
            said = json.loads(racer.communicate(timeout=40)[0] or b'{"counts": {}, "errors": ["it died"]}')
            counts.update(said["counts"])
            errors += said["errors"]
    finally:
        for racer in racers:
            with contextlib.suppress(ProcessLookupError):
                racer.kill()
            racer.wait(10)
    assert not errors, errors[:10]
    return counts


def look(root):
    """Walk a tree without being led in circles: ({inode: names}, complaints)."""
    names, complaints, folders = collections.Counter(), [], {os.lstat(root).st_ino}
    pending = [root]
    while pending:
        folder = pending.pop()
        below = 0
        for entry in os.scandir(folder):
            found = os.lstat(entry.path)
            if found.st_ino != entry.inode():
                complaints.append(f"{entry.path}: listed as inode {entry.inode()}, is {found.st_ino}")
            names[found.st_ino] += 1
            if stat.S_ISDIR(found.st_mode):
                below += 1
                if found.st_ino in folders:
                    complaints.append(f"{entry.path} is there twice")
                else:
                    folders.add(found.st_ino)
                    pending.append(entry.path)
                    if os.stat(entry.path + "/..").st_ino != os.lstat(folder).st_ino:
                        complaints.append(f"{entry.path}/.. is another directory")
        if os.lstat(folder).st_nlink not in (2 + below, 1):  # btrfs counts no links of directories
            complaints.append(f"{folder}: {below} directories in it, nlink {os.lstat(folder).st_nlink}")
    return names, complaints


def entries(place_root):
    """How many names the catalog has: one that nobody can reach is counted, too."""
    if not hasattr(place_root, "mount"):
        return None
    with contextlib.closing(sqlite3.connect(f"file:{place_root.mount.store}/catalog.db?mode=ro", uri=True)) as base:
        return base.execute("select count(*) from dentry").fetchone()[0]


def test_a_tree_stays_a_tree(place, place_root):
    before = entries(place_root)
    counts = race(place, "tree")
    assert counts["rename"] > 20 and counts["mkdir"] > 20, counts
    names, complaints = look(place.root)
    assert not complaints
    for folder, _, files in os.walk(place.root):
        for name in files:
            found = os.lstat(os.path.join(folder, name))
            assert found.st_nlink == names[found.st_ino], f"{folder}/{name}: nlink {found.st_nlink}, {names[found.st_ino]} names"
    for name in os.listdir(place.root):
        path = os.path.join(place.root, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    assert os.lstat(place.root).st_nlink in (1, 2)
    assert entries(place_root) == before
    if place.mounted:
        assert check_store(place_root.mount) == []


def test_one_wins(place):
    place.run("file source")
    counts = race(place, "once")
    for kind in ("mkdir", "create", "link", "symlink", "mkfifo"):
        left = os.path.lexists(place.path(kind))
        assert counts[f"+{kind}"] - counts[f"-{kind}"] == left and counts[f"-{kind}"] > 5, (kind, left, counts)
    assert os.lstat(place.path("source")).st_nlink == 1 + os.path.lexists(place.path("link"))


def test_nothing_is_lost(place):
    place.run("dir p; dir q; " + "".join(f"file p/{n}; dir q/{n}; " for n in range(3)))
    before, _ = look(place.root)
    counts = race(place, "tokens")
    assert counts["rename"] > 20 and counts["exchange"] > 10
    after, complaints = look(place.root)
    assert not complaints and after == before


def test_what_is_replaced_is_always_there(place):
    place.run("dir dir; file one; dir two")
    with open(place.path("target"), "wb") as file:
        file.write(b"0\n" * 100)
    counts = race(place, "replace")
    assert counts["replace"] > 20 and counts["look"] > 20, counts
    assert sorted(os.listdir(place.root)) == ["dir", "one", "target", "two"]
    _, complaints = look(place.root)
    assert not complaints

"""Programs in a tree with pending futures: what only looks never waits, what opens meets what docs/tools.md says."""
import os
import re
import shutil
import subprocess

import pytest

from pfs import Space, eventually, state
from tools import ONE_PATH, bash, begun

FOLDERS, EACH = 20, 100

# What looks at a tree, and says the same of one with as many empty files.
LOOKERS = {
    "find": "find . -printf '%p %s %y %n %m\n' | sort | md5sum",
    "find by attributes": "find . -type f -empty -readable -newermt 2001-01-01 -links 1 -user 0 | wc -l",
    "ls": "ls -lR --time-style=+ | sed 's/^total.*//' | md5sum",
    "du": "du -ab --max-depth=9 | cut -f 2 | sort | md5sum",
    "rsync": "rsync -an --stats . $OTHER/ | grep 'files:'",
    "git status": "git init -q; git status --short -uall | wc -l; git status --short | wc -l; rm -rf .git",
    "python": "python3 -c 'import glob, os; print(sum(map(os.path.getsize, glob.glob(\"*/*\"))))'",
    "tab completion": "compgen -f folder1/ | wc -l; echo folder*/*7 | wc -w; test -e folder1/1; ls -d folder1/*",
}


@pytest.fixture(scope="module")
def trees(scratch, numbers, watchdog, pool):
    """Two directories of one mount, with files that are empty and with pending futures."""
    space = Space(pool.get(), f"trees-{next(numbers)}")
    watchdog.disarm(space.mount)  # which starting it has armed; tests arm it again
    for which in ("files", "futures"):
        for folder in range(FOLDERS):
            os.makedirs(space.root / which / f"folder{folder}")
            for number in range(EACH):
                key = f"{which}/folder{folder}/{number}"
                path = space / key if which == "files" else space.future(key)
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
    yield space
    assert space.mount.alive, f"the daemon died with status {space.mount.process.poll()}\n{space.mount.tail()}"
    shutil.rmtree(space.root)


def requests(space):
    """How many the daemon has answered."""
    return sum(map(int, re.findall(r"requests_total\{.*\} (\d+)", (space.mount.control / "metrics").read_text())))


@pytest.fixture
def guarded(trees, watchdog):
    watchdog.arm(trees.mount, 40)
    yield trees
    watchdog.disarm(trees.mount)


@ONE_PATH
@pytest.mark.parametrize("what", LOOKERS)
def test_what_looks_does_not_wait(guarded, tmp_path, what):
    trees = guarded
    said = []
    for which in ("files", "futures"):
        before = requests(trees)
        said.append(bash(LOOKERS[what], trees.root / which, OTHER=os.fspath(tmp_path)))
        took = requests(trees) - before
    assert said[1] == said[0]
    assert took < 20 * FOLDERS * EACH, f"{took} requests for {FOLDERS * EACH} futures"
    assert trees.waits() == []
    assert {state(trees.root / f"futures/folder{n}/{n}") for n in range(FOLDERS)} == {"pending"}


# ---- what opens ------------------------------------------------------------------------------------------------------

WAITING = {
    "cat": ["cat", "key"],
    "grep": ["grep", "value", "key"],
    "cp": ["cp", "-a", "key", "copy"],
    "rsync": ["rsync", "-a", "key", "copy"],
    "md5sum": ["md5sum", "key"],
    "find -exec": ["find", ".", "-name", "key", "-exec", "cat", "{}", "+"],
    "busybox tar": ["busybox", "tar", "cf", "archive", "key"],
    "zip": ["zip", "-q", "archive.zip", "key"],
    "bash": ["bash", "-c", "read line < key; echo $line"],
    "python": ["python3", "-I", "-c", "open('key').read()"],
    "xz": ["xz", "-kc", "key"],
    "git add": ["git", "hash-object", "key"],
}


@pytest.mark.parametrize("what", WAITING)
def test_what_reads_a_pending_key_waits_and_goes_on(mnt, what):
    """And before that it can be ended by a signal, which leaves the key as it was."""
    mnt.declare("key")
    for kill in (True, False):
        with begun(WAITING[what], mnt.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
            eventually(mnt.waits, what=f"{what} waits")
            assert program.poll() is None
            if kill:
                os.killpg(program.pid, 15)
                program.wait(10)
                eventually(lambda: not mnt.waits(), what="nobody waits any more")
                assert state(mnt / "key") == "pending"
            else:
                mnt.put("key", b"value\n")
                assert program.wait(10) == 0


AT_ONCE = {
    "grep -r": ("grep -r value . || echo $?", "grep: ./key: Resource temporarily unavailable\n2\n"),
    "gzip": ("gzip -k key || echo $?", "\ngzip: key: Resource temporarily unavailable\n1\n"),
    "tar": ("tar cf - key | tar tvf - | awk '{ print $3, $6 }'", "0 key\n"),
    "file size": ("stat -c %s key; wc -c < /dev/null; test -s key || echo empty; find -empty", "0\n0\nempty\n./key\n"),
}


@pytest.mark.parametrize("what", AT_ONCE)
def test_what_does_not_wait(mnt, what):
    """Programs that open with O_NONBLOCK, or do not open what has no size."""
    mnt.declare("key")
    script, wanted = AT_ONCE[what]
    assert bash(script, mnt.root) == wanted
    assert state(mnt / "key") == "pending"


def test_touch_sets_a_future(mnt):
    """It opens the file for writing and closes it."""
    mnt.declare("key")
    bash("touch key", mnt.root)
    mnt.becomes("key", "ready")
    assert mnt.get("key") == b""


def test_a_failed_future_is_an_error_of_the_program(mnt):
    mnt.declare("key")
    with begun(["cat", "key"], mnt.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as program:
        eventually(mnt.waits, what="cat waits")
        os.setxattr(mnt / "key", "user.promisefs.error", b"ENOSPC: full")
        assert program.stdout.read() == b"cat: key: No space left on device\n" and program.wait(10) == 1

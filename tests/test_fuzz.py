"""Random operations on files and names, compared with what they must do (tests/fuzz), also on the file system below.

Each failure prints a seed: `--fuzz-seed SEED` begins with that run. `--fuzz-seconds 3600` runs for an hour."""
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import zlib
from pathlib import Path

import pytest

from pfs import PYTHON, TESTS, binary, check_store, set_attr

pytestmark = [pytest.mark.timeout(200_000), pytest.mark.slow]
PRIVATE, SHARED = 2, 4  # processes in directories of their own, and in the same ones


@pytest.fixture(scope="session")
def program(scratch):
    """The program that works on the bytes of files: from the build, or built now."""
    built = Path(binary()).parent.parent.parent / "tests/fuzz-file"
    if os.access(built, os.X_OK):
        return built
    if not shutil.which("cc"):
        pytest.skip(f"{built} is not there, and there is no cc to build it")
    built = scratch / "fuzz-file"
    subprocess.run(["cc", "-D_GNU_SOURCE", "-std=gnu11", "-O1", "-o", built, TESTS / "fuzz/file.c"], check=True)
    return built


@pytest.fixture
def seed(request):
    given = request.config.getoption("--fuzz-seed")
    return random.SystemRandom().randrange(10**9) if given is None else given


@pytest.fixture
def seconds(request):
    return request.config.getoption("--fuzz-seconds")


@pytest.fixture
def fuzzed(own, seconds):
    """A mount of its own with the directories of both rules."""
    own.mount.watchdog.arm(own.mount, seconds * 3 + 120)
    for name in ("promise", "native"):
        os.mkdir(own / name)
    set_attr(own / "native", "publish", "write")
    return own


def finish(*processes):
    """What processes say that did not succeed."""
    said = [process.communicate()[0].decode(errors="replace") for process in processes]
    failed = [text for process, text in zip(processes, said) if process.returncode]
    assert not failed, "\n".join(failed)


def check_again(fuzzed):
    """What is left when it was unmounted and mounted again: what was evicted last may be removed only then."""
    fuzzed.mount.stop()
    fuzzed.mount.start()
    assert check_store(fuzzed.mount) == []


def begin(argv):
    return subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)


# ---- the bytes of files ----------------------------------------------------------------------------------------------

def fuzz_file(program, rule, directory, probe, seed, seconds, *options):
    finish(begin([program, "-m", rule, "-s", seed, "-t", seconds, "-p", probe, *options, directory]))


def test_fuzz_of_bytes_control(program, scratch, seed, seconds):
    """The same on the file system below: a wrong shadow fails here."""
    path = scratch / "fuzz-control"
    path.mkdir(exist_ok=True)
    fuzz_file(program, "native", path, scratch, seed, seconds / 3, "-c")


@pytest.mark.parametrize("rule", ["promise", "native"])
def test_fuzz_of_bytes(fuzzed, data_path, program, rule, seed, seconds):
    """In an ordinary directory, and in one with publish=write."""
    # By passthrough a mapping does not keep its file open: see Known limits in docs/architecture.md.
    options = [] if rule == "promise" and data_path == "passthrough=on" else ["-c"]
    fuzz_file(program, rule, fuzzed / rule, fuzzed.mount.base, seed, seconds, *options)
    assert os.listdir(fuzzed / rule) == []
    check_again(fuzzed)


# ---- names -----------------------------------------------------------------------------------------------------------

def names(kind, rule, root, number, seed, steps, seconds):
    return begin([*PYTHON, TESTS / "fuzz/names.py", kind, rule, root, number, seed, steps, seconds])


def make_tokens(root):
    os.mkdir(root)
    for number in range(6):
        body = b"token %d" % number
        (Path(root) / f"t{number}").write_bytes(b"%08x" % zlib.crc32(body) + body)


def check_tree(root):
    """Whatever the processes in it have done: no token is lost, and files have as many names as they say."""
    counts, said, tokens = {}, {}, []
    for folder, folders, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)
            found = os.lstat(path)
            counts[found.st_ino] = counts.get(found.st_ino, 0) + 1
            said[found.st_ino] = found.st_nlink
            if name.startswith("t"):
                tokens.append(Path(path).read_bytes()[8:])
        subdirectories = [name for name in folders if not os.path.islink(os.path.join(folder, name))]
        assert os.stat(folder).st_nlink == 2 + len(subdirectories), folder
    assert sorted(tokens) == [b"token %d" % number for number in range(6)]
    assert counts == said


def check_catalog(mount, listed):
    """Every name hangs on a root, none in a circle, and the catalog has the names that the mount had."""
    base = sqlite3.connect(f"file:{mount.store}/catalog.db?mode=ro", uri=True)
    rows = base.execute("select parent, name, object from dentry").fetchall()
    kinds = dict(base.execute("select id, mode from object"))
    base.close()
    below = {}
    for parent, name, number in rows:
        below.setdefault(parent, []).append((os.fsdecode(name), number))
    seen, paths, todo = 0, {}, [(root, None) for root in range(16)]
    for number, path in todo:
        for name, child in below.pop(number, []):
            seen += 1
            full = name if path is None else f"{path}/{name}"
            paths[full] = child
            if stat.S_ISDIR(kinds[child]):
                todo.append((child, full))
    assert seen == len(rows), f"names that hang on nothing: {below}"
    assert {path: paths.get(path) for path in listed} == listed and set(paths) == set(listed)


def listing(root):
    found = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = os.lstat(path).st_ino
    return found


def test_fuzz_of_names_control(scratch, seed, seconds):
    root = scratch / "fuzz-names"
    make_tokens(root)
    finish(names("private", "native", root, "alone", seed, 300, seconds / 3),
           *(names("shared", "native", root, number, seed + number, 300, seconds / 3) for number in range(2)))
    shutil.rmtree(root / "alone")
    check_tree(root)


def test_fuzz_of_names(fuzzed, seed, seconds):
    """Some processes in directories of their own, where every errno counts, and some in each other's way."""
    make_tokens(fuzzed / "shared")
    processes = [names("private", rule, fuzzed / rule, number, seed + number, 300, seconds)
                 for number in range(PRIVATE) for rule in ("promise", "native")]
    processes += [names("shared", "promise", fuzzed / "shared", number, seed + number, 1000, seconds)
                  for number in range(SHARED)]
    finish(*processes)
    check_tree(fuzzed / "shared")
    listed = listing(fuzzed.root)
    check_again(fuzzed)
    check_catalog(fuzzed.mount, listed)

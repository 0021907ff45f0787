"""promisefs backup: copies of stores that are mounted, and written all the time, are whole; unfinished ones are no stores."""
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import stat
import subprocess
import tempfile
import time

import pytest

from pfs import (IS_ROOT, NOBODY, PYTHON, binary, check_store, eventually, opened, pattern, promisefs, run, state)
from test_fsck import copied, filled, foreign, is_clean, owners, killed, made, put_hashed  # noqa: F401 (fixtures)

LARGE = pattern(300_000, 5)


def backup(source, target, status=0):
    done = promisefs("backup", "--json", source, target)
    assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout) if status == 0 else done.stderr


@pytest.fixture
def copy_of(new_mount):
    """Backs a store up and mounts the copy: (Space, what backup said)."""
    def make(source):
        space = new_mount(start=False)
        said = backup(source, space.mount.store)
        assert sorted(os.listdir(space.mount.store)) == ["catalog.db", "data", "drafts"]
        assert is_clean(space.mount.store)
        space.mount.start()
        return space, said
    return make


def contents(space):
    """{path: what it is} of all that a mount shows."""
    found = {}
    for folder, folders, names in os.walk(space.root):
        for name in folders + names:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            what = [stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode), st.st_nlink, st.st_uid, st.st_mtime_ns]
            if stat.S_ISREG(st.st_mode):
                readable = state(path) == "ready" and name not in ("lent", "once")  # not at all, or once
                what += [state(path), space.get(path) if readable else None]
            elif stat.S_ISLNK(st.st_mode):
                what.append(os.readlink(path))
            what.append({key: os.getxattr(path, key, follow_symlinks=False)
                         for key in os.listxattr(path, follow_symlinks=False) if "promisefs" not in key})
            found[os.path.relpath(path, space.root)] = what
    found["handles"] = [space.handles(kind) for kind in ("own", "ref", "mut")]
    found["lifetimes"] = os.listdir(space.mount.control / "lifetimes/L")
    return found


# ---- nothing goes on -------------------------------------------------------------------------------------------------

def test_a_copy_of_an_unmounted_store_is_the_same(filled, copied, copy_of):  # noqa: F811
    space = copied(filled)
    copy, said = copy_of(space.mount.store)
    assert not said["mounted"] and said["moments"] == 1 and said["files"] == said["cloned"] + said["copied"]
    space.mount.start()
    assert contents(copy) == contents(space)
    assert check_store(copy.mount) == []


def test_a_copy_of_a_mounted_store_is_the_same(filled, copied, copy_of):  # noqa: F811
    space = copied(filled)
    space.mount.start()
    copy, said = copy_of(space.mount.store)
    assert said["mounted"] and contents(copy) == contents(space)
    assert is_clean(space.mount.store, "--online")


def test_a_copy_of_what_a_killed_daemon_left(killed, copied, copy_of):  # noqa: F811
    """It becomes what the store itself becomes."""
    space = copied(killed)
    copy, _ = copy_of(space.mount.store)
    space.mount.start()
    mine, its = contents(space), contents(copy)
    assert {path: what[6:] for path, what in mine.items()} == {path: what[6:] for path, what in its.items()}
    assert its["synced"][6] == b"synced" and "draft" not in its
    with open(copy.aborted("draft"), "rb") as torn:
        assert torn.read() == b"torn"


def test_on_another_file_system(filled, copied, new_mount):  # noqa: F811
    space = copied(filled)
    with tempfile.TemporaryDirectory(prefix="promisefs-test-") as folder:
        if os.stat(folder).st_dev == os.stat(space.mount.store).st_dev:
            pytest.skip("there is only one file system")
        said = backup(space.mount.store, f"{folder}/copy")
        assert said["cloned"] == 0 and said["copied"] == said["files"] > 10
        copy = new_mount(start=False, store=f"{folder}/copy")
        copy.mount.start()
        space.mount.start()
        assert contents(copy) == contents(space)
        copy.mount.stop()


def test_root_copies_a_store_of_somebody_else_for_him(foreign):  # noqa: F811
    """Also to where only root can make a directory; never into one that is another's."""
    base = foreign.mount.base
    backup(foreign.mount.store, base / "copy")
    assert owners(base / "copy") == {NOBODY} and owners(foreign.mount.store) == {NOBODY}
    assert is_clean(base / "copy")
    (base / "roots").mkdir(0o755)
    assert "another user" in backup(foreign.mount.store, base / "roots", status=1)
    assert os.listdir(base / "roots") == []


# ---- what is shared must not change ----------------------------------------------------------------------------------

def append(space, key, data):
    with opened(space / key, os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, data)


def test_store_and_copy_do_not_see_what_is_written_to_the_other(new_mount, copy_of):
    """Also appended, which does without copying where nobody else has the file."""
    mnt = new_mount()
    for key in ("here", "there", "both", "never"):
        put_hashed(mnt, key, LARGE)
    copy, _ = copy_of(mnt.mount.store)
    second, _ = copy_of(mnt.mount.store)
    for round_ in (b"1", b"2"):
        for key in ("here", "both"):
            append(mnt, key, b"mnt" + round_)
        for key in ("there", "both"):
            append(copy, key, b"copy" + round_)
    copy.put("never", b"replaced")
    copy.becomes("never", "ready")
    wanted = {mnt: [LARGE + b"mnt1mnt2", LARGE, LARGE + b"mnt1mnt2", LARGE],
              copy: [LARGE, LARGE + b"copy1copy2", LARGE + b"copy1copy2", b"replaced"], second: [LARGE] * 4}
    for space, data in wanted.items():
        for key, value in zip(("here", "there", "both", "never"), data):
            eventually(lambda: space.get(key) == value, what=f"{key} on {space.root}")
        assert check_store(space.mount) == []
    for space in wanted:
        space.mount.stop()
        assert is_clean(space.mount.store)
        space.mount.start()
    assert second.get("here") == LARGE and mnt.get("never") == LARGE


def test_an_append_under_way_is_not_in_the_copy(new_mount, copy_of):
    mnt = new_mount()
    put_hashed(mnt, "key", LARGE)
    worker, fd = mnt.writer("key", flags=os.O_WRONLY | os.O_APPEND)
    worker.write_all(fd, b"under way")
    copy, _ = copy_of(mnt.mount.store)
    worker.write_all(fd, b" still")
    worker.close(fd)
    mnt.versions("key", 2)
    assert copy.get("key") == LARGE and mnt.get("key") == LARGE + b"under way still"
    append(copy, "key", b"!")
    copy.versions("key", 2)
    assert mnt.get("key") == LARGE + b"under way still"
    assert is_clean(mnt.mount.store, "--online") and is_clean(copy.mount.store, "--online")


# ---- drafts ----------------------------------------------------------------------------------------------------------

def test_drafts_of_living_writers(new_mount, copy_of):
    """As if they were killed at that moment; what was fsynced is in it, and what changes all the time is as before."""
    mnt = new_mount()
    mnt.put("replaced", b"old")
    mnt.becomes("replaced", "ready")
    mnt.writer("replaced", b"new, unfinished")
    mnt.writer("unfinished", b"torn")
    mnt.declare("future")
    mnt.writer("future", b"torn")
    worker, fd = mnt.writer("database", b"page")
    worker.call("fsync", fd)
    copy, _ = copy_of(mnt.mount.store)
    assert copy.get("replaced") == b"old" and copy.get("database") == b"page"
    assert not os.path.lexists(copy / "unfinished") and state(copy / "future") == "pending"


def test_a_draft_that_goes_on_after_close_is_left_out(new_mount):
    """A shell that has closed one of its descriptors: sealed, and written all the same."""
    mnt = new_mount()
    worker, fd = mnt.writer("key", b"first")
    worker.close(worker.dup(fd))
    worker.write_all(fd, b" and more")
    target = mnt.mount.base / "copy"
    done = promisefs("backup", mnt.mount.store, target)
    assert done.returncode == 0 and "somebody is writing it" in done.stderr, done.stderr
    copy = new_mount(start=False, store=target)
    copy.mount.start()
    assert not os.path.lexists(copy / "key")
    worker.close(fd)
    eventually(lambda: mnt.get("key") == b"first and more")


# ---- while others write ----------------------------------------------------------------------------------------------

WRITER = r"""
import hashlib, itertools, os, random, sys
root, name, state = sys.argv[1:]
choice = random.Random(name)
def put(path, counter, size):
    body = b"%s %d " % (name.encode(), counter) + bytes([counter % 251]) * size
    with open(path, "wb") as file:
        file.write(hashlib.sha256(body).hexdigest().encode() + body)
os.makedirs(f"{root}/{name}/live")
os.setxattr(f"{root}/{name}/live", "user.promisefs.publish", b"write")
with open(state, "wb", buffering=0) as acknowledged:
    for counter in itertools.count(1):
        put(f"{root}/{name}/counter", counter, 10)
        os.pwrite(acknowledged.fileno(), b"%012d" % counter, 0)
        path = f"{root}/{name}/key-{choice.randrange(12)}"
        put(path, counter, choice.choice((0, 100, 5000, 200_000)))
        what = choice.randrange(5)
        if what == 0:
            os.rename(path, f"{root}/{name}/renamed-{choice.randrange(4)}")
        elif what == 1:
            os.unlink(path)
        elif what == 2:
            with open(f"{root}/{name}/lines", "ab") as file:
                file.write(b"%07d\n" % counter * 500)
        elif what == 3:
            with open(f"{root}/{name}/live/log", "ab") as file:
                file.write(b"%07d\n" % counter)
"""


def check_whole(space, name):
    """Every object of a writer is one version, whole; the counter of its newest."""
    for key in os.listdir(space / name):
        if key == "live":
            continue
        data = space.get(f"{name}/{key}")
        if key == "lines":
            lines = data.decode().splitlines()
            assert len(lines) % 500 == 0 and all(len(line) == 7 for line in lines), (name, key)
            assert all(len(set(lines[at:at + 500])) == 1 for at in range(0, len(lines), 500)), (name, key)
        else:
            assert hashlib.sha256(data[64:]).hexdigest().encode() == data[:64], (name, key, len(data))
    for line in space.get(f"{name}/live/log").splitlines() if os.path.exists(space / f"{name}/live/log") else ():
        assert len(line) == 7
    return int(space.get(f"{name}/counter")[64:].split()[1])


def test_while_four_writers_replace_rename_append_and_evict(new_mount, copy_of):
    """What was acknowledged before the copy began is in it, and everything in it is whole."""
    mnt = new_mount()
    put_hashed(mnt, "still", LARGE)
    names = [f"writer{n}" for n in range(4)]
    children = [subprocess.Popen([*PYTHON, "-c", WRITER, str(mnt.root), name, f"{mnt.mount.base}/{name}"],
                                 stderr=subprocess.PIPE) for name in names]

    def acknowledged(name):
        with contextlib.suppress(FileNotFoundError, ValueError):
            with open(mnt.mount.base / name, "rb") as file:
                return int(file.read(12))
        return 0

    try:
        eventually(lambda: all(acknowledged(name) > 30 for name in names), what="all write")
        copies = []
        for _ in range(3):
            before = {name: acknowledged(name) for name in names}
            copies.append((copy_of(mnt.mount.store)[0], before))
            eventually(lambda: all(acknowledged(name) > before[name] + 20 for name in names), what="all go on")
        assert all(child.poll() is None for child in children)
    finally:
        for child in children:
            child.kill()
            assert child.communicate()[1] == b""
    for copy, before in copies:
        assert {name for name in names if check_whole(copy, name) < before[name]} == set()
        assert copy.get("still") == LARGE and check_store(copy.mount) == []
    assert is_clean(mnt.mount.store, "--online")


# ---- files are held --------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def held(store):
    """As a backup does while it copies."""
    with opened(store / "data", os.O_RDONLY) as fd:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield


def data_files(store):
    return {path.name for path in (store / "data").glob("*/*")}


def test_files_stay_while_they_are_copied(new_mount):
    mnt = new_mount()
    store = mnt.mount.store
    for key in ("evicted", "replaced", "open"):
        mnt.put(key, LARGE)
        mnt.becomes(key, "ready")
    old = data_files(store)
    with held(store):
        with opened(mnt / "open", os.O_RDONLY):
            os.unlink(mnt / "open")
            os.unlink(mnt / "evicted")
            mnt.put("replaced", b"new")
            mnt.versions("replaced", 2)
            time.sleep(0.8)  # longer than garbage waits for company: that nothing happens can only be waited for
            assert old <= data_files(store)
        for words in (["gc"], ["fsck", "--repair"]):
            assert promisefs(*words, store).returncode != 0
        mnt.mount.stop()
        done = promisefs("gc", store)
        assert done.returncode == 1 and "promisefs backup is copying it" in done.stderr
        assert old <= data_files(store)
        mnt.mount.start()
        mnt.put("later", b"later")
        mnt.becomes("later", "ready")
        assert old <= data_files(store)
    eventually(lambda: not old & data_files(store), what="they go afterwards")
    assert check_store(mnt.mount) == []


# ---- unfinished ones -------------------------------------------------------------------------------------------------

def is_no_store(target, root):
    for done in (promisefs("mount", target, root), promisefs("fsck", "--repair", target)):
        assert done.returncode in (1, 8) and "not a store" in done.stderr, done.stderr
    assert not os.path.exists(target / "catalog.db")
    return True


@pytest.fixture
def small_disk(scratch, numbers):
    """A function that mounts a file system of that many bytes, and makes it larger when called again."""
    if not IS_ROOT:
        pytest.skip("mounting a small tmpfs needs root")
    point = scratch / f"small-{next(numbers)}"
    point.mkdir()
    mounted = []

    def size(number):
        done = run("mount", "-t", "tmpfs", "-o", f"{'remount,' if mounted else ''}size={number}", "tmpfs", point)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted: {done.stderr}")
        mounted.append(number)
        return point

    yield size
    if mounted:
        run("umount", point)


def test_a_full_disk_and_going_on(new_mount, small_disk):
    mnt = new_mount()
    for number in range(12):
        mnt.put(f"key-{number}", LARGE)
    mnt.becomes("key-11", "ready")
    target = small_disk(2 << 20) / "copy"
    said = backup(mnt.mount.store, target, status=1)
    assert said == (f"promisefs backup: {target}: not complete: No space left on device; "
                    "free some space and run it again, or remove the directory\n")
    other = mnt.mount.base / "other"
    other.mkdir()
    assert is_no_store(target, other) and (target / "incomplete").exists()
    os.unlink(mnt / "key-0")
    small_disk(20 << 20)
    said = backup(mnt.mount.store, target)
    assert said["kept"] > 0 and said["copied"] < 11
    copy = new_mount(start=False, store=target)
    copy.mount.start()
    assert sorted(os.listdir(copy.root)) == sorted(os.listdir(mnt.root)) and copy.get("key-5") == LARGE
    assert check_store(copy.mount) == []
    copy.mount.stop()
    assert is_clean(target)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_and_going_on(new_mount, number):
    mnt = new_mount()
    for key in range(1500):
        mnt.put(f"key-{key}", b"%d" % key)
    mnt.becomes("key-1499", "ready")
    other = mnt.mount.base / "other"
    other.mkdir()
    for attempt in range(20):  # it may be quicker than we
        target = mnt.mount.base / f"copy-{attempt}"
        child = subprocess.Popen([binary(), "backup", mnt.mount.store, target], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE)
        while child.poll() is None and not (target / "data/20").exists():
            time.sleep(0.0005)
        child.send_signal(number)
        said = child.communicate()[1].decode()
        if child.returncode != 0:
            break
    assert child.returncode == (1 if number == signal.SIGINT else -number)
    assert said == ("" if number == signal.SIGKILL else f"promisefs backup: {target}: interrupted, not complete; "
                    "run it again to go on, or remove the directory\n")
    assert is_no_store(target, other)
    mnt.put("new", b"new")
    mnt.becomes("new", "ready")
    backup(mnt.mount.store, target)
    copy = new_mount(start=False, store=target)
    copy.mount.start()
    assert len(os.listdir(copy.root)) == 1501 and copy.get("new") == b"new" and check_store(copy.mount) == []


def test_misuse(new_mount, tmp_path):
    mnt = new_mount()
    mnt.put("key", b"data")
    mnt.becomes("key", "ready")
    store = mnt.mount.store
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    (tmp_path / "file").write_text("mine")
    backup(store, tmp_path / "copy")
    for target, why in ((tmp_path / "full", "not empty"), (tmp_path / "copy", "not empty"), (store / "inside", "inside"),
                        (tmp_path / "no/where", "No such file"), (tmp_path / "file", "Not a directory")):
        said = backup(store, target, status=1)
        assert said.startswith(f"promisefs backup: {target}: ") and why in said and said.count("\n") == 1
    assert os.listdir(tmp_path / "full") == ["file"]
    assert "not a store" in backup(tmp_path / "full", tmp_path / "else", status=1)
    (tmp_path / "half").mkdir()
    (tmp_path / "half/incomplete").write_text("of another")
    assert "of another store" in backup(store, tmp_path / "half", status=1)
    assert promisefs("backup", store).returncode == 2


def test_a_damaged_store_is_not_copied_in_silence(new_mount, tmp_path):
    mnt = new_mount()
    mnt.put("key", b"data")
    mnt.becomes("key", "ready")
    mnt.mount.stop()
    next((mnt.mount.store / "data").glob("*/*")).unlink()
    said = backup(mnt.mount.store, tmp_path / "copy", status=1)
    assert "has lost data" in said and "promisefs fsck" in said
    assert is_no_store(tmp_path / "copy", mnt.root)

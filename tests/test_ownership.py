"""Section 6 of the design: owners, borrows, and waiting for one's turn, by files alone."""
import contextlib
import errno
import os
import re
import signal
import stat
import subprocess
import time

import pytest

from pfs import (NOBODY, PYTHON, RENAME_NOREPLACE, attr, check_store, eventually, fails, opened, pattern, renameat2,
                 run, set_attr, state, version)

SOMEBODY, OTHER = NOBODY, NOBODY - 1
DENIED = (errno.EPERM, errno.EACCES)
KINDS = ["ref", "mut"]
SHOWN = ["state", "version", "id", "sha256", "owner", "borrows", "evict", "lease", "pid", "lifetimes"]
MINE = "user.mine"
LATER = "2040-01-01T00:00:00Z"


def put(mnt, path, data=b"data"):
    """An object that is ready."""
    before = version(mnt / path) if os.path.lexists(mnt / path) else 0
    mnt.put(path, data)
    mnt.versions(path, before + 1)
    return mnt / path


def scope(mnt, name="L"):
    return mnt.handle("lifetimes", name)


def borrows(path):
    return attr(path, "borrows")


def gone(*paths):
    return not any(os.path.lexists(path) for path in paths)


def vanish(*paths):
    eventually(lambda: gone(*paths), what=f"{paths} vanish")


def described(path):
    """All that can be seen of a file or a handle without opening it."""
    found = os.lstat(path)
    shown = tuple(attr(path, name) for name in SHOWN) if stat.S_ISREG(found.st_mode) else ()
    with contextlib.suppress(OSError):
        shown += (os.getxattr(path, MINE, follow_symlinks=False),)
    return found.st_mode, found.st_uid, found.st_size, found.st_ino, found.st_nlink, shown


def situation(mnt):
    """All that a refused call could have changed."""
    paths = [os.path.join(folder, name) for folder, folders, names in os.walk(mnt.root) for name in folders + names]
    for kind in ("own", "ref", "mut", "lifetimes"):
        paths += [mnt.handle(kind, name) for name in mnt.handles(kind)]
    with contextlib.suppress(FileNotFoundError):
        paths += [os.path.join(scope(mnt), name) for name in os.listdir(scope(mnt))]
    return {path: described(path) for path in paths}


def data_files(mount):
    return [name for _, _, names in os.walk(mount.store / "data") for name in names]


def wait_to_borrow(mnt, key, kind, name, **kwargs):
    """A process that has got in line and waits for its turn already: a Job, which reads the handle then."""
    worker = mnt.worker(**kwargs)
    worker.link(mnt / key, mnt.handle(f"await-{kind}", name))
    job = worker.begin("read_path", mnt.handle(kind, name))
    mnt.assert_waits(job)
    return job


@pytest.fixture
def sleeper():
    """A process that does nothing until it is ended."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


# ---- the directories -------------------------------------------------------------------------------------------------

@pytest.mark.core
@pytest.mark.parametrize("kind", ["own", "ref", "mut"])
def test_6_directories_like_tmp(mnt, kind):
    found = os.stat(mnt.mount.control / kind)
    assert stat.S_IMODE(found.st_mode) == 0o1777 and stat.S_ISDIR(found.st_mode)
    assert {kind, "await-ref", "await-mut", "once"} <= set(os.listdir(mnt.mount.control))


@pytest.mark.core
def test_6_with_the_tools_of_a_shell(mnt):
    script = r"""
        set -e
        cd "$1"; C=$2; P=$3
        refused() { if "$@" 2> /dev/null; then exit 1; fi; }
        echo one > key
        ln key "$C/ref/${P}R"; ln key "$C/ref/${P}R2"
        test "$(cat "$C/ref/${P}R")" = one
        refused ln key "$C/mut/${P}M"
        refused sh -c 'echo no > key'
        refused rm -f key
        rm -f "$C/ref/${P}R" "$C/ref/${P}R2"
        ln key "$C/mut/${P}M"
        refused cat key
        echo two > "$C/mut/${P}M"
        test "$(cat "$C/mut/${P}M")" = two
        rm -f "$C/mut/${P}M"
        test "$(cat key)" = two
        mv key "$C/own/${P}X"; test "$(echo *)" = '*'
        cp "$C/own/${P}X" "$C/own/${P}Y"
        mv "$C/own/${P}X" back; test "$(cat back)" = two
        rm "$C/own/${P}Y"
        echo three > "$C/own/${P}Z"; test "$(cat "$C/own/${P}Z")" = three; mv "$C/own/${P}Z" back
        test "$(cat back)" = three
        rm back
    """
    done = run("sh", "-c", script, "sh", mnt.root, mnt.mount.control, mnt.prefix)
    assert done.returncode == 0, done.stderr
    assert os.listdir(mnt.root) == mnt.handles("own") == mnt.handles("ref") == mnt.handles("mut") == []


# ---- owners ----------------------------------------------------------------------------------------------------------

@pytest.mark.core
def test_6_a_key_becomes_an_owned_object_and_comes_back(mnt):
    data = pattern(300_000)
    put(mnt, "key", data)
    os.setxattr(mnt / "key", MINE, b"value")
    os.chmod(mnt / "key", 0o640)
    before = os.stat(mnt / "key")
    known = attr(mnt / "key", "id"), attr(mnt / "key", "version"), attr(mnt / "key", "sha256")
    assert attr(mnt / "key", "owner") == mnt.key("key")
    path = mnt.handle("own", "X")
    for old, new, owner in ((mnt / "key", path, f".promisefs/own/{mnt.prefix}X"),
                            (path, path + "2", f".promisefs/own/{mnt.prefix}X2"),
                            (path + "2", mnt / "back", mnt.key("back"))):
        os.rename(old, new)
        assert gone(old) and attr(new, "owner") == owner
        seen = os.stat(new)
        assert (seen.st_ino, seen.st_mode, seen.st_nlink, seen.st_size) == (before.st_ino, before.st_mode, 1, len(data))
        assert known == (attr(new, "id"), attr(new, "version"), attr(new, "sha256"))
        assert os.getxattr(new, MINE) == b"value" and mnt.get(new) == data
    assert os.listdir(mnt.root) == ["back"] and mnt.handles("own") == []


@pytest.mark.core
def test_6_an_owned_object_is_made_directly(mnt):
    """Nobody reads half of it, and what is renamed to a key was never elsewhere."""
    path = mnt.handle("own", "X")
    worker = mnt.worker()
    fd = worker.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    worker.write_all(fd, b"half")
    assert state(path) == "writing" and mnt.handles("own") == ["X"]
    reader = mnt.waiting_reader(path)
    worker.write_all(fd, b" and half")
    worker.close(fd)
    assert reader.result() == b"half and half" and os.listdir(mnt.root) == []
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and os.stat(path).st_uid == os.geteuid()
    with fails(errno.EEXIST):
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.rename(path, mnt / "key")
    assert mnt.get("key") == b"half and half"


@pytest.mark.core
def test_6_a_killed_writer_leaves_no_owned_object(mnt):
    path = mnt.handle("own", "X")
    worker = mnt.worker()
    worker.write(worker.open(path, os.O_WRONLY | os.O_CREAT), b"half")
    worker.kill()
    vanish(path)
    assert mnt.handles("own") == []


@pytest.mark.core
def test_6_an_owned_object_is_replaced_as_a_key_is(mnt):
    path = put(mnt, mnt.handle("own", "X"), b"old")
    reader = mnt.worker()
    seen = reader.open_and_look(path)
    worker = mnt.worker()
    fd = worker.open(path, os.O_WRONLY | os.O_TRUNC)
    worker.write_all(fd, b"new version")
    assert mnt.get(path) == b"old"
    worker.close(fd)
    mnt.versions(path, 2)
    assert mnt.get(path) == b"new version" and reader.look_again(seen["fd"])["bytes"] == b"old"


@pytest.mark.core
def test_6_removing_an_owned_object_evicts_it(own):
    path = put(own, own.handle("own", "X"))
    with opened(path) as fd:
        os.unlink(path)
        assert gone(path) and os.read(fd, 10) == b"data"
    eventually(lambda: data_files(own.mount) == [])
    assert check_store(own.mount) == []


OVER = {"a key over an owned object": ("key", "X"), "an owned object over a key": ("X", "key"),
        "an owned object over another": ("X", "Y"), "a key over a key": ("key", "other")}


@pytest.mark.core
@pytest.mark.parametrize("what", list(OVER))
def test_6_renaming_over(own, what):
    """What had the name is evicted, unless RENAME_NOREPLACE forbids it."""
    old, new = (own / name if name in ("key", "other") else own.handle("own", name) for name in OVER[what])
    put(own, old, b"new")
    put(own, new, b"old")
    with fails(errno.EEXIST):
        renameat2(old, new, RENAME_NOREPLACE)
    os.rename(old, new)
    assert gone(old) and own.get(new) == b"new"
    eventually(lambda: len(data_files(own.mount)) == 1)
    assert check_store(own.mount) == []


@pytest.mark.core
def test_6_a_clone_is_another_object(mnt):
    path = put(mnt, mnt.handle("own", "X"), b"original")
    assert run("cp", path, path + "2").returncode == 0
    put(mnt, path, b"changed")
    assert mnt.reader(path + "2").result() == b"original"
    assert attr(path, "id") != attr(path + "2", "id")


@pytest.mark.core
def test_6_a_future_is_owned_before_it_is_set(mnt):
    mnt.declare("key")
    path = mnt.handle("own", "X")
    os.rename(mnt / "key", path)
    assert state(path) == "pending" and gone(mnt / "key")
    readers = [mnt.waiting_reader(path) for _ in range(3)]
    worker = mnt.worker()
    fd = worker.open(path, os.O_WRONLY)
    worker.write(fd, b"set")
    mnt.assert_still_waits(*readers)
    worker.close(fd)
    assert [reader.result() for reader in readers] == [b"set"] * 3


@pytest.mark.core
def test_6_a_future_is_set_by_an_owned_object(mnt):
    """Who waits for the key gets what is renamed over it."""
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    path = put(mnt, mnt.handle("own", "X"), b"result")
    os.rename(path, mnt / "key")
    assert reader.result() == b"result" and mnt.handles("own") == []


@pytest.mark.core
@pytest.mark.parametrize("how", ["lease", "pid", "lifetime", "lease of the lifetime"])
def test_6_an_owned_object_ends_as_a_key_does(mnt, sleeper, how):
    path = put(mnt, mnt.handle("own", "X"))
    if "lifetime" in how:
        os.mkdir(scope(mnt))
        os.link(path, f"{scope(mnt)}/member")
        assert attr(path, "lifetimes") == os.path.basename(scope(mnt))
    if how == "pid":
        set_attr(path, "pid", str(sleeper.pid))
    assert mnt.get(path) == b"data"
    {"lease": lambda: set_attr(path, "lease", "100ms"), "pid": sleeper.kill, "lifetime": lambda: os.rmdir(scope(mnt)),
     "lease of the lifetime": lambda: set_attr(scope(mnt), "lease", "100ms")}[how]()
    vanish(path)
    assert mnt.handles("own") == []


# ---- borrows ---------------------------------------------------------------------------------------------------------

SOURCES = {"key": lambda m: m / "key", "own": lambda m: m.handle("own", "X")}


@pytest.fixture(params=list(SOURCES))
def owner(request, mnt):
    """The path of an object that has one owner: a key, or a handle in own/."""
    return put(mnt, SOURCES[request.param](mnt), pattern(100_000))


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_6_a_borrow_reads_the_object(mnt, owner, kind):
    os.chmod(owner, 0o754)
    path = mnt.borrow(owner, kind, "R")
    found, of_owner = os.stat(path), os.stat(owner)
    assert found.st_mode == stat.S_IFREG | 0o600 | 0o754 & (0o444 if kind == "ref" else 0o666)
    assert (found.st_ino, found.st_size, found.st_nlink, found.st_uid) == (
        of_owner.st_ino, 100_000, 1, os.geteuid())
    assert found.st_blocks == of_owner.st_blocks and of_owner.st_nlink == 1
    assert mnt.handles(kind) == ["R"] == mnt.handles(f"await-{kind}")
    seen = mnt.worker().open_and_look(path)
    assert seen["bytes"] == seen["mapped"] == pattern(100_000) and seen["size"] == 100_000
    os.unlink(path)
    assert gone(path) and mnt.handles(kind) == [] and mnt.get(owner) == pattern(100_000)


@pytest.mark.core
def test_6_what_attributes_say(mnt, owner):
    named = os.path.relpath(owner, mnt.mount.root)
    os.setxattr(owner, MINE, b"value")
    assert borrows(owner) == "none" and attr(owner, "owner") == named
    refs = [mnt.borrow(owner, "ref", f"R{n}") for n in range(3)]
    for number, path in enumerate(refs):
        assert borrows(owner) == borrows(path) == f"ref {3 - number}"
        assert attr(path, "owner") == named and os.getxattr(path, MINE) == b"value"
        for name in ("state", "version", "id", "sha256", "producer"):
            assert attr(path, name) == attr(owner, name) is not None
        assert attr(path, "lease") is attr(path, "pid") is attr(path, "lifetimes") is None
        os.unlink(path)
    path = mnt.borrow(owner, "mut", "M")
    assert borrows(owner) == borrows(path) == "mut" and attr(path, "owner") == named
    assert not [name for name in os.listxattr(path) if "promisefs" in name] and MINE in os.listxattr(path)
    os.unlink(path)
    assert borrows(owner) == "none"


@pytest.mark.core
def test_6_the_attributes_of_a_handle_are_its_own(mnt, owner):
    path = mnt.borrow(owner, "ref", "R")
    set_attr(path, "lease", "1h")
    set_attr(path, "pid", str(os.getpid()))
    os.mkdir(scope(mnt))
    os.link(path, f"{scope(mnt)}/R")
    assert attr(owner, "lease") is attr(owner, "pid") is attr(owner, "lifetimes") is None
    assert attr(path, "lease") and attr(path, "pid") == str(os.getpid())
    assert attr(path, "lifetimes") == os.path.basename(scope(mnt)) and os.listdir(scope(mnt)) == ["R"]
    set_attr(owner, "lease", "2h")
    set_attr(path, "lease", "none")
    assert attr(path, "lease") is None and attr(owner, "lease")


@pytest.mark.core
def test_6_mode_and_times_of_a_handle_are_its_own(mnt, owner):
    os.chmod(owner, 0o640)
    before = os.stat(owner)
    for kind in KINDS:
        path = mnt.borrow(owner, kind, "H")
        os.chmod(path, 0o404)
        os.utime(path, ns=(1_000_000_000, 2_000_000_000))
        found = os.stat(path)
        assert stat.S_IMODE(found.st_mode) == 0o404 and found.st_mtime_ns == 2_000_000_000
        after = os.stat(owner)
        assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
        os.unlink(path)


@pytest.mark.core
def test_6_attributes_of_the_user_through_a_mut_are_the_objects(mnt, owner):
    path = mnt.borrow(owner, "mut", "M")
    os.setxattr(path, MINE, b"through it")
    assert os.getxattr(owner, MINE) == b"through it"
    os.removexattr(path, MINE)
    assert MINE not in os.listxattr(owner)


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_6_who_has_it_open_reads_on(mnt, owner, kind):
    reader = mnt.worker()
    seen = reader.open_and_look(owner)
    path = mnt.borrow(owner, kind, "H")
    if kind == "mut":
        put(mnt, path, b"another version")
    assert reader.look_again(seen["fd"]) == seen and seen["bytes"] == pattern(100_000)


@pytest.mark.core
def test_6_many_refs(mnt, owner):
    refs = [mnt.borrow(owner, "ref", f"R{n}") for n in range(100)]
    assert borrows(owner) == "ref 100" and len(mnt.handles("ref")) == 100
    assert {mnt.get(path) for path in refs} == {pattern(100_000)}
    for path in refs:
        with fails(errno.EBUSY):
            mnt.borrow(owner, "mut", "M")
        os.unlink(path)
    os.unlink(mnt.borrow(owner, "mut", "M"))


@pytest.mark.core
def test_6_borrowing_again_and_again(mnt, owner):
    """A name may be used again at once, for another object, too."""
    other = put(mnt, "another", b"other")
    for _ in range(30):
        for kind in KINDS:
            path = mnt.borrow(owner, kind, "H")
            assert mnt.get(path) == pattern(100_000)
            os.unlink(path)
            path = mnt.borrow(other, kind, "H")
            assert mnt.get(path) == b"other" and os.stat(path).st_size == 5
            os.unlink(path)
    assert borrows(owner) == borrows(other) == "none"


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_6_the_owner_may_move_while_it_is_borrowed(mnt, kind):
    put(mnt, "key")
    path = mnt.borrow("key", kind, "H")
    os.mkdir(mnt / "dir")
    for old, new in ((mnt / "key", mnt / "dir/renamed"), (mnt / "dir/renamed", mnt.handle("own", "X")),
                     (mnt.handle("own", "X"), mnt.handle("own", "Y")), (mnt.handle("own", "Y"), mnt / "key")):
        os.rename(old, new)
        assert attr(path, "owner") == os.path.relpath(new, mnt.mount.root) and borrows(new) != "none"
        with fails(errno.EBUSY):
            os.unlink(new)
        with fails(errno.EBUSY):
            mnt.borrow(new, "mut", "another")
        assert mnt.get(path) == b"data"
    os.rename(mnt / "key", mnt / "dir/key")
    os.rename(mnt / "dir", mnt / "moved")
    assert attr(path, "owner") == mnt.key("moved/key")


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_6_the_last_name_of_what_is_borrowed_stays(mnt, kind):
    put(mnt, "key")
    os.link(mnt / "key", mnt / "second")
    path = mnt.borrow("key", kind, "H")
    assert os.stat(path).st_nlink == 1 and os.stat(mnt / "key").st_nlink == 2
    os.unlink(mnt / "key")
    with fails(errno.EBUSY):
        os.unlink(mnt / "second")
    assert attr(path, "owner") == mnt.key("second")
    os.unlink(path)
    os.unlink(mnt / "second")
    assert os.listdir(mnt.root) == []


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_6_renaming_a_handle_hands_it_over(mnt, kind):
    put(mnt, "key")
    put(mnt, "other", b"other")
    path, another = mnt.borrow("key", kind, "H"), mnt.borrow("other", kind, "I")
    os.rename(path, path + "2")
    assert gone(path) and borrows(mnt / "key") != "none" and mnt.get(path + "2") == b"data"
    with fails(errno.EEXIST):
        renameat2(path + "2", another, RENAME_NOREPLACE)
    os.rename(path + "2", another)
    assert mnt.handles(kind) == ["I"] and mnt.get(another) == b"data"
    assert borrows(mnt / "other") == "none" and borrows(mnt / "key") != "none"
    os.unlink(another)
    assert borrows(mnt / "key") == "none"


@pytest.mark.core
def test_6_renaming_one_ref_over_another_of_the_same_object(mnt):
    put(mnt, "key")
    first, second = mnt.borrow("key", "ref", "R1"), mnt.borrow("key", "ref", "R2")
    os.rename(first, second)
    assert mnt.handles("ref") == ["R2"] and borrows(mnt / "key") == "ref 1" and mnt.get(second) == b"data"


@pytest.mark.core
def test_6_an_object_that_is_being_written_is_busy(mnt, owner):
    worker = mnt.worker()
    fd = worker.open(owner, os.O_WRONLY | os.O_TRUNC)
    for kind in KINDS:
        with fails(errno.EBUSY):
            mnt.borrow(owner, kind, "H")
    assert mnt.handles("ref") == mnt.handles("mut") == [] and borrows(owner) == "none"
    worker.write(fd, b"new")
    worker.close(fd)
    mnt.versions(owner, 2)
    for kind in KINDS:
        path = mnt.borrow(owner, kind, "H")
        assert mnt.get(path) == b"new"
        os.unlink(path)


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_6_what_was_just_closed_can_be_borrowed(mnt, owner, kind):
    """It is no draft any more when close(2) has returned, so nobody is told that it is busy."""
    for turn in range(50):
        mnt.put(owner, b"turn %d" % turn)
        path = mnt.borrow(owner, kind, "H")
        assert mnt.get(path) == b"turn %d" % turn
        os.unlink(path)


@pytest.mark.core
def test_6_after_a_killed_writer_it_can_be_borrowed(mnt, owner):
    worker = mnt.worker()
    worker.write(worker.open(owner, os.O_WRONLY | os.O_TRUNC), b"torn")
    with fails(errno.EBUSY):
        mnt.borrow(owner, "ref", "R")
    worker.kill()
    mnt.worker().link(owner, mnt.handle("await-ref", "R"))
    assert mnt.reader(mnt.handle("ref", "R")).result() == pattern(100_000)


@pytest.mark.core
@pytest.mark.parametrize("publish", ["close", "write"])
def test_6_nobody_writes_what_is_borrowed(mnt, publish):
    os.mkdir(mnt / "dir")
    set_attr(mnt / "dir", "publish", publish)
    mnt.put("dir/key", b"data")
    mnt.becomes("dir/key", "ready")
    for kind in KINDS:
        path = eventually(lambda: borrow_if_free(mnt, "dir/key", kind, "H"))
        with fails(errno.EBUSY):
            mnt.worker().open(mnt / "dir/key", os.O_WRONLY)
        assert mnt.get(path) == b"data"
        os.unlink(path)
    mnt.put("dir/key", b"new")


def borrow_if_free(mnt, source, kind, name):
    """The handle, or None if the object is in use."""
    try:
        return mnt.borrow(source, kind, name)
    except OSError as error:
        assert error.errno == errno.EBUSY, error
        return None


# ---- writing through a mutable borrow --------------------------------------------------------------------------------

WRITES = {
    "replace": (os.O_WRONLY | os.O_TRUNC, lambda w, fd: w.write_all(fd, b"new"), b"new"),
    "create over": (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, lambda w, fd: w.write_all(fd, b"new"), b"new"),
    "append": (os.O_WRONLY | os.O_APPEND, lambda w, fd: w.write_all(fd, b"+more"), b"0123456789+more"),
    "overwrite a part": (os.O_RDWR, lambda w, fd: w.pwrite(fd, b"--", 4), b"0123--6789"),
    "shorten": (os.O_RDWR, lambda w, fd: w.ftruncate(fd, 3), b"012"),
    "empty": (os.O_WRONLY | os.O_TRUNC, lambda w, fd: None, b""),
}


@pytest.mark.core
@pytest.mark.parametrize("what", list(WRITES))
@pytest.mark.parametrize("source", list(SOURCES))
def test_6_writing_through_a_mut(mnt, source, what):
    """A draft like any other: nobody sees half of it, and the owner has it when the borrow is over."""
    flags, call, expected = WRITES[what]
    owner = put(mnt, SOURCES[source](mnt), b"0123456789")
    number, producer = attr(owner, "id"), mnt.worker()
    path = mnt.borrow(owner, "mut", "M")
    fd = producer.open(path, flags)
    call(producer, fd)
    assert mnt.get(path) == b"0123456789" and version(owner) == 1
    producer.close(fd)
    mnt.versions(path, 2)
    assert mnt.get(path) == expected and version(owner) == 2 and attr(owner, "id") == number
    eventually(lambda: os.stat(path).st_size == os.stat(owner).st_size == len(expected), what="both have its size")
    assert re.match(f"pid={producer.pid} ", attr(owner, "producer"))
    os.unlink(path)
    assert mnt.get(owner) == expected


@pytest.mark.core
def test_6_truncate_through_a_mut(mnt, owner):
    path = mnt.borrow(owner, "mut", "M")
    mnt.worker().truncate(path, 10)
    mnt.versions(path, 2)
    assert mnt.get(path) == pattern(100_000)[:10]
    os.unlink(path)
    assert mnt.get(owner) == pattern(100_000)[:10]


@pytest.mark.core
def test_6_closed_is_written_although_the_mut_is_dropped_at_once(mnt, owner):
    """Acknowledged means recorded: close(2) has returned, so the version is there, whatever is dropped then."""
    worker = mnt.worker()
    for turn in range(1, 40):
        path = mnt.borrow(owner, "mut", "M")
        mnt.put(path, b"turn %d" % turn)
        os.unlink(path)
        assert worker.read_path(owner) == b"turn %d" % turn
        worker.link(owner, mnt.handle("await-ref", "R"))
        assert worker.read_path(mnt.handle("ref", "R")) == b"turn %d" % turn
        os.unlink(mnt.handle("ref", "R"))
    assert version(owner) == 40


@pytest.mark.core
def test_6_a_writer_through_a_mut_is_killed(mnt, owner):
    path = mnt.borrow(owner, "mut", "M")
    worker = mnt.worker()
    worker.write(worker.open(path, os.O_WRONLY | os.O_TRUNC), b"torn")
    worker.kill()
    eventually(lambda: [event for event in mnt.history() if event["event"] == "abort"
                        and str(event["object"]) == attr(owner, "id")], what="the draft is aborted")
    assert mnt.get(path) == pattern(100_000) and borrows(owner) == "mut" and version(owner) == 1
    put(mnt, path, b"whole")
    os.unlink(path)
    assert mnt.get(owner) == b"whole"


DROPS = {
    "unlink": lambda m, path, process: os.unlink(path),
    "lease": lambda m, path, process: set_attr(path, "lease", "100ms"),
    "pid": lambda m, path, process: process.kill(),
    "end of a lifetime": lambda m, path, process: os.rmdir(scope(m)),
    "lease of a lifetime": lambda m, path, process: set_attr(scope(m), "lease", "100ms"),
    "removed from a lifetime": lambda m, path, process: os.unlink(f"{scope(m)}/member"),
    "another renamed over it": lambda m, path, process: os.rename(
        m.borrow("another", "ref" if "/ref/" in path else "mut", "another"), path),
}


def prepare_drop(mnt, path, process, how):
    put(mnt, "another", b"another")
    if how == "pid":
        set_attr(path, "pid", str(process.pid))
    if "lifetime" in how:
        os.mkdir(scope(mnt))
        os.link(path, f"{scope(mnt)}/member")


@pytest.mark.core
@pytest.mark.parametrize("how", list(DROPS))
@pytest.mark.parametrize("kind", KINDS)
def test_6_a_handle_is_dropped(mnt, owner, sleeper, kind, how):
    """The object stays, it is free again, and who waits for it has his turn."""
    path = mnt.borrow(owner, kind, "H")
    prepare_drop(mnt, path, sleeper, how)
    waiter = wait_to_borrow(mnt, owner, "mut", "M")
    DROPS[how](mnt, path, sleeper)
    assert waiter.result() == pattern(100_000) and borrows(owner) == "mut"
    assert "renamed" in how or gone(path)
    with contextlib.suppress(FileNotFoundError):
        assert "renamed" in how or os.listdir(scope(mnt)) == []
    releases = [event for event in mnt.history() if event["event"] == "release"]
    assert f"{kind}/{mnt.prefix}H" in [event["detail"] for event in releases]
    os.unlink(mnt.handle("mut", "M"))
    assert mnt.get(owner) == pattern(100_000) and borrows(owner) == "none"


@pytest.mark.core
@pytest.mark.parametrize("how", list(DROPS))
def test_6_what_is_being_written_when_the_mut_is_dropped(mnt, owner, sleeper, how):
    path = mnt.borrow(owner, "mut", "M")
    prepare_drop(mnt, path, sleeper, how)
    worker = mnt.worker()
    fd = worker.open(path, os.O_WRONLY | os.O_TRUNC)
    worker.write_all(fd, b"too late")
    DROPS[how](mnt, path, sleeper)
    eventually(lambda: borrows(owner) == "none", what="it is dropped")
    assert mnt.get(owner) == pattern(100_000)
    with fails(errno.EBUSY):
        worker.close(fd)
    mnt.worker().link(owner, mnt.handle("await-mut", "N"))
    assert mnt.reader(mnt.handle("mut", "N")).result() == pattern(100_000)
    assert version(owner) == 1


# ---- bad input -------------------------------------------------------------------------------------------------------

def world(mnt):
    """One of each kind. `lent` has two refs, `lent-mut` a mut."""
    for key in ("key", "other", "lent", "lent-mut", "two", "failed"):
        put(mnt, key, key.encode())
    put(mnt, mnt.handle("own", "X"), b"X")
    os.mkdir(mnt / "dir")
    os.symlink("key", mnt / "link")
    os.mkfifo(mnt / "fifo")
    os.link(mnt / "two", mnt / "two-again")
    mnt.declare("pending", "failing")
    set_attr(mnt / "failing", "error", "no")
    for name in ("R", "R2"):
        mnt.borrow("lent", "ref", name)
    mnt.borrow("lent-mut", "mut", "M")
    os.setxattr(mnt / "lent", MINE, b"value")
    os.mkdir(scope(mnt))
    for key in ("lent", "lent-mut"):
        os.link(mnt / key, f"{scope(mnt)}/{key}")


def owned(m, name="X"):
    return m.handle("own", name)


def ref(m, name="R"):
    return m.handle("ref", name)


def mut(m, name="M"):
    return m.handle("mut", name)


LONG = "n" * 256
REFUSED = {
    # own/
    "mkdir in own": (lambda m, w: w.mkdir(owned(m, "new")), errno.EPERM),
    "fifo in own": (lambda m, w: w.mkfifo(owned(m, "new")), errno.EPERM),
    "socket in own": (lambda m, w: w.mknod(owned(m, "new"), stat.S_IFSOCK | 0o600), errno.EPERM),
    "symlink in own": (lambda m, w: w.symlink("key", owned(m, "new")), errno.EPERM),
    "directory into own": (lambda m, w: w.rename(m / "dir", owned(m, "new")), errno.EPERM),
    "symlink into own": (lambda m, w: w.rename(m / "link", owned(m, "new")), errno.EPERM),
    "fifo into own": (lambda m, w: w.rename(m / "fifo", owned(m, "new")), errno.EPERM),
    "several names into own": (lambda m, w: w.rename(m / "two", owned(m, "new")), errno.EMLINK),
    "several names over an owned one": (lambda m, w: w.rename(m / "two", owned(m)), errno.EMLINK),
    "link a key to own": (lambda m, w: w.link(m / "key", owned(m, "new")), errno.EPERM),
    "link own to a key": (lambda m, w: w.link(owned(m), m / "new"), errno.EPERM),
    "link own to own": (lambda m, w: w.link(owned(m), owned(m, "new")), errno.EPERM),
    "what is not there into own": (lambda m, w: w.rename(m / "none", owned(m, "new")), errno.ENOENT),
    "long name in own": (lambda m, w: w.rename(m / "key", owned(m, LONG)), errno.ENAMETOOLONG),
    "owned over a directory": (lambda m, w: w.rename(owned(m), m / "dir"), errno.EISDIR),
    "remove what is not owned": (lambda m, w: w.unlink(owned(m, "none")), errno.ENOENT),
    # what can be borrowed
    "ref of a ref": (lambda m, w: w.link(ref(m), ref(m, "new")), errno.EPERM),
    "mut of a ref": (lambda m, w: w.link(ref(m), mut(m, "new")), errno.EPERM),
    "ref of a mut": (lambda m, w: w.link(mut(m), ref(m, "new")), errno.EPERM),
    "mut of a mut": (lambda m, w: w.link(mut(m), mut(m, "new")), errno.EPERM),
    "key of a ref": (lambda m, w: w.link(ref(m), m / "new"), errno.EPERM),
    "key of a mut": (lambda m, w: w.link(mut(m), m / "new"), errno.EPERM),
    "own of a ref": (lambda m, w: w.link(ref(m), owned(m, "new")), errno.EPERM),
    "own of a mut": (lambda m, w: w.link(mut(m), owned(m, "new")), errno.EPERM),
    "wait for a ref of a ref": (lambda m, w: w.link(ref(m), m.handle("await-ref", "new")), errno.EPERM),
    "wait for a mut of a mut": (lambda m, w: w.link(mut(m), m.handle("await-mut", "new")), errno.EPERM),
    "ref of a name in await-ref": (lambda m, w: w.link(m.handle("await-ref", "R"), ref(m, "new")), errno.EPERM),
    "ref of a directory": (lambda m, w: w.link(m / "dir", ref(m, "new")), errno.EPERM),
    "ref of a symlink": (lambda m, w: w.link(m / "link", ref(m, "new"), follow_symlinks=False), errno.EPERM),
    "mut of a symlink": (lambda m, w: w.link(m / "link", mut(m, "new"), follow_symlinks=False), errno.EPERM),
    "ref of a fifo": (lambda m, w: w.link(m / "fifo", ref(m, "new")), errno.EPERM),
    "ref of a control file": (lambda m, w: w.link(m.mount.control / "README", ref(m, "new")), errno.EPERM),
    "ref of nothing": (lambda m, w: w.link(m / "none", ref(m, "new")), errno.ENOENT),
    "mut of nothing": (lambda m, w: w.link(m / "none", mut(m, "new")), errno.ENOENT),
    "wait for nothing": (lambda m, w: w.link(m / "none", m.handle("await-mut", "new")), errno.ENOENT),
    "the name of a ref is taken": (lambda m, w: w.link(m / "key", ref(m)), errno.EEXIST),
    "the name of a mut is taken": (lambda m, w: w.link(m / "key", mut(m)), errno.EEXIST),
    "wait for a ref, name taken": (lambda m, w: w.link(m / "lent-mut", m.handle("await-ref", "R")), errno.EEXIST),
    "wait for a mut, name taken": (lambda m, w: w.link(m / "lent", m.handle("await-mut", "M")), errno.EEXIST),
    "the name of a ref is too long": (lambda m, w: w.link(m / "key", ref(m, LONG)), errno.ENAMETOOLONG),
    # who is busy
    "ref beside a mut": (lambda m, w: w.link(m / "lent-mut", ref(m, "new")), errno.EBUSY),
    "mut beside refs": (lambda m, w: w.link(m / "lent", mut(m, "new")), errno.EBUSY),
    "mut beside a mut": (lambda m, w: w.link(m / "lent-mut", mut(m, "new")), errno.EBUSY),
    "ref of a member beside a mut": (lambda m, w: w.link(f"{scope(m)}/lent-mut", ref(m, "new")),
                                     errno.EBUSY, errno.EPERM),
    "ref of a pending one": (lambda m, w: w.link(m / "pending", ref(m, "new")), errno.EBUSY),
    "mut of a pending one": (lambda m, w: w.link(m / "pending", mut(m, "new")), errno.EBUSY),
    "ref of a failed one": (lambda m, w: w.link(m / "failing", ref(m, "new")), errno.EBUSY),
    "mut of a failed one": (lambda m, w: w.link(m / "failing", mut(m, "new")), errno.EBUSY),
    # what else ref/ and mut/ are not for
    "mkdir in ref": (lambda m, w: w.mkdir(ref(m, "new")), errno.EPERM),
    "mkdir in mut": (lambda m, w: w.mkdir(mut(m, "new")), errno.EPERM),
    "create in ref": (lambda m, w: w.open(ref(m, "new"), os.O_WRONLY | os.O_CREAT), errno.EPERM),
    "create in mut": (lambda m, w: w.open(mut(m, "new"), os.O_WRONLY | os.O_CREAT), errno.EPERM),
    "fifo in ref": (lambda m, w: w.mkfifo(ref(m, "new")), errno.EPERM),
    "mknod in mut": (lambda m, w: w.mknod(mut(m, "new"), stat.S_IFREG | 0o600), errno.EPERM),
    "symlink in ref": (lambda m, w: w.symlink("x", ref(m, "new")), errno.EPERM),
    "symlink in mut": (lambda m, w: w.symlink("x", mut(m, "new")), errno.EPERM),
    "rename a ref to mut": (lambda m, w: w.rename(ref(m), mut(m, "new")), errno.EPERM),
    "rename a mut to ref": (lambda m, w: w.rename(mut(m), ref(m, "new")), errno.EPERM),
    "rename a ref over a mut": (lambda m, w: w.rename(ref(m), mut(m)), errno.EPERM),
    "rename a ref to a key": (lambda m, w: w.rename(ref(m), m / "new"), errno.EPERM),
    "rename a mut to a key": (lambda m, w: w.rename(mut(m), m / "new"), errno.EPERM),
    "rename a ref over its key": (lambda m, w: w.rename(ref(m), m / "lent"), errno.EPERM),
    "rename a ref to own": (lambda m, w: w.rename(ref(m), owned(m, "new")), errno.EPERM),
    "rename a mut to own": (lambda m, w: w.rename(mut(m), owned(m, "new")), errno.EPERM),
    "rename a key to ref": (lambda m, w: w.rename(m / "key", ref(m, "new")), errno.EPERM),
    "rename a key to mut": (lambda m, w: w.rename(m / "key", mut(m, "new")), errno.EPERM),
    "rename a key over a ref": (lambda m, w: w.rename(m / "key", ref(m)), errno.EPERM),
    "rename own to ref": (lambda m, w: w.rename(owned(m), ref(m, "new")), errno.EPERM),
    "rename own to mut": (lambda m, w: w.rename(owned(m), mut(m, "new")), errno.EPERM),
    "rename a directory to ref": (lambda m, w: w.rename(m / "dir", ref(m, "new")), errno.EPERM),
    "remove ref": (lambda m, w: w.rmdir(m.mount.control / "ref"), *DENIED, errno.EBUSY, errno.ENOTEMPTY),
    "rmdir of a ref": (lambda m, w: w.rmdir(ref(m)), errno.ENOTDIR),
    "drop what is not there": (lambda m, w: w.unlink(mut(m, "none")), errno.ENOENT),
    # await-ref/, await-mut/
    "create in await-ref": (lambda m, w: w.open(m.handle("await-ref", "new"), os.O_WRONLY | os.O_CREAT), errno.EPERM),
    "mkdir in await-mut": (lambda m, w: w.mkdir(m.handle("await-mut", "new")), errno.EPERM),
    "symlink in await-ref": (lambda m, w: w.symlink("x", m.handle("await-ref", "new")), errno.EPERM),
    "fifo in await-mut": (lambda m, w: w.mkfifo(m.handle("await-mut", "new")), errno.EPERM),
    "drop in await-ref": (lambda m, w: w.unlink(m.handle("await-ref", "R")), errno.EPERM),
    "rename in await-ref": (lambda m, w: w.rename(m.handle("await-ref", "R"), m.handle("await-ref", "new")),
                            errno.EPERM),
    "rename from await-ref": (lambda m, w: w.rename(m.handle("await-ref", "R"), ref(m, "new")), errno.EPERM),
    "rename to await-ref": (lambda m, w: w.rename(ref(m), m.handle("await-ref", "new")), errno.EPERM),
    "rename a key to await-mut": (lambda m, w: w.rename(m / "key", m.handle("await-mut", "new")), errno.EPERM),
    # attributes
    "set an attribute through a ref": (lambda m, w: w.setxattr(ref(m), MINE, b"new"), errno.EPERM),
    "take an attribute through a ref": (lambda m, w: w.removexattr(ref(m), MINE), errno.EPERM),
    "malformed lease": (lambda m, w: w.setxattr(ref(m), "user.promisefs.lease", b"soon"), errno.EINVAL),
    "malformed pid": (lambda m, w: w.setxattr(ref(m), "user.promisefs.pid", b"me"), errno.EINVAL),
    "no such process": (lambda m, w: w.setxattr(mut(m), "user.promisefs.pid", b"4194305"), errno.ESRCH),
}


@pytest.mark.core
@pytest.mark.parametrize("what", list(REFUSED))
def test_6_bad_input_changes_nothing(mnt, what):
    call, *codes = REFUSED[what]
    world(mnt)
    before = situation(mnt)
    with fails(*codes):
        call(mnt, mnt.worker())
    assert situation(mnt) == before
    assert mnt.get(ref(mnt)) == b"lent" and mnt.get(mut(mnt)) == b"lent-mut" and mnt.get(owned(mnt)) == b"X"


@pytest.mark.core
@pytest.mark.parametrize("what", ["owner", "borrows"])
@pytest.mark.parametrize("where", [lambda m: m / "key", owned, ref, mut], ids=["key", "own", "ref", "mut"])
def test_6_what_can_only_be_read(mnt, where, what):
    world(mnt)
    before = situation(mnt)
    with pytest.raises(OSError):
        set_attr(where(mnt), what, "none")
    with pytest.raises(OSError):
        os.removexattr(where(mnt), f"user.promisefs.{what}")
    assert situation(mnt) == before


BUSY = {
    "open to write": lambda m, w, key: w.open(m / key, os.O_WRONLY),
    "open to read and write": lambda m, w, key: w.open(m / key, os.O_RDWR),
    "open to append": lambda m, w, key: w.open(m / key, os.O_WRONLY | os.O_APPEND),
    "replace": lambda m, w, key: w.open(m / key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    "read and truncate": lambda m, w, key: w.open(m / key, os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda m, w, key: w.truncate(m / key, 0),
    "lengthen": lambda m, w, key: w.truncate(m / key, 1000),
    "unlink": lambda m, w, key: w.unlink(m / key),
    "unlink in a lifetime": lambda m, w, key: w.unlink(f"{scope(m)}/{key}"),
    "write in a lifetime": lambda m, w, key: w.open(f"{scope(m)}/{key}", os.O_WRONLY),
    "rename over": lambda m, w, key: w.rename(m / "other", m / key),
    "rename an owned one over": lambda m, w, key: w.rename(owned(m), m / key),
}
BUSY_TO_READ = {
    "read": lambda m, w, key: w.open(m / key, os.O_RDONLY),
    "read with O_NONBLOCK": lambda m, w, key: w.open(m / key, os.O_RDONLY | os.O_NONBLOCK),
    "read in a lifetime": lambda m, w, key: w.open(f"{scope(m)}/{key}", os.O_RDONLY),
    "read in await": lambda m, w, key: w.open(m.awaiting(key), os.O_RDONLY),
}


@pytest.mark.core
@pytest.mark.parametrize("what", [*BUSY, *BUSY_TO_READ])
@pytest.mark.parametrize("key", ["lent", "lent-mut"])
def test_6_what_is_borrowed_is_busy(mnt, key, what):
    world(mnt)
    before = situation(mnt)
    if what in BUSY_TO_READ and key == "lent":
        BUSY_TO_READ[what](mnt, mnt.worker(), key)
    else:
        with fails(errno.EBUSY):
            (BUSY | BUSY_TO_READ)[what](mnt, mnt.worker(), key)
    assert situation(mnt) == before
    assert mnt.get(ref(mnt)) == b"lent" and mnt.get(mut(mnt)) == b"lent-mut" and mnt.get("other") == b"other"


@pytest.mark.core
@pytest.mark.parametrize("what", ["open to write", "open to read and write", "open to append", "read and truncate",
                                  "replace", "truncate", "unlink", "rename over"])
@pytest.mark.parametrize("kind", KINDS)
def test_6_an_owned_object_that_is_borrowed_is_busy(mnt, kind, what):
    path = put(mnt, owned(mnt), b"owned")
    put(mnt, "other", b"other")
    handle = mnt.borrow(path, kind, "H")
    before = situation(mnt)
    with fails(errno.EBUSY):
        BUSY[what](mnt, mnt.worker(), path)
    if kind == "mut":
        with fails(errno.EBUSY):
            mnt.worker().open(path, os.O_RDONLY)
    assert situation(mnt) == before and mnt.get(handle) == b"owned"


@pytest.mark.core
def test_6_declaring_and_cancelling_what_is_borrowed(mnt):
    world(mnt)
    before = situation(mnt)
    for key in ("lent", "lent-mut"):
        with fails(errno.EEXIST, errno.EBUSY):
            mnt.worker().open(mnt.future(key), os.O_WRONLY | os.O_CREAT)
        with pytest.raises(OSError):
            mnt.worker().unlink(mnt.future(key))
        with pytest.raises(OSError):
            mnt.worker().setxattr(mnt / key, "user.promisefs.error", b"failed")
    assert situation(mnt) == before


@pytest.mark.core
@pytest.mark.parametrize("mode", [0o444, 0o666])
@pytest.mark.parametrize("what", ["open to write", "open to read and write", "read and truncate", "truncate"])
def test_6_a_ref_is_never_written(mnt, what, mode):
    """Not by root either, whatever the mode of the handle."""
    put(mnt, "key")
    path = mnt.borrow("key", "ref", "R")
    os.chmod(path, mode)
    with fails(errno.EACCES):
        BUSY[what](mnt, mnt.worker(), path)
    assert mnt.get(path) == mnt.get("key") == b"data" and version(path) == 1


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_6_what_was_evicted_cannot_be_borrowed(mnt, kind):
    """Not by a descriptor that is still open either."""
    put(mnt, "key")
    with opened(mnt / "key") as fd:
        os.unlink(mnt / "key")
        with fails(errno.ENOENT):
            os.link(f"/proc/self/fd/{fd}", mnt.handle(kind, "H"), src_dir_fd=fd, follow_symlinks=True)
    assert mnt.handles(kind) == []


# ---- waiting for one's turn ------------------------------------------------------------------------------------------

@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_6_what_is_free_is_borrowed_at_once(mnt, owner, kind):
    worker = mnt.worker()
    worker.link(owner, mnt.handle(f"await-{kind}", "H"))
    path = mnt.handle(kind, "H")
    assert state(path) == "ready" and mnt.handles(kind) == ["H"] and borrows(owner).startswith(kind)
    assert worker.read_path(path) == pattern(100_000)
    assert os.stat(mnt.handle(f"await-{kind}", "H")).st_ino == os.stat(path).st_ino
    os.unlink(path)
    assert mnt.handles(f"await-{kind}") == []


@pytest.mark.core
@pytest.mark.parametrize("held, wanted", [("ref", "mut"), ("mut", "ref"), ("mut", "mut")])
def test_6_a_borrow_waits_until_the_object_is_free(mnt, owner, held, wanted):
    path, named = mnt.borrow(owner, held, "held"), os.path.relpath(owner, mnt.mount.root)
    job = wait_to_borrow(mnt, owner, wanted, "H")
    wait, waiting = mnt.wait_of(job), mnt.handle(wanted, "H")
    assert wait["key"] == named and wait["uid"] == os.geteuid() and wait["command"].startswith("python")
    assert (wait["state"], wait["wants"], wait["handle"]) == ("borrowed", wanted, f"{wanted}/{mnt.prefix}H")
    assert (state(waiting), attr(waiting, "owner")) == ("waiting", named)
    assert borrows(owner) == ("mut" if held == "mut" else "ref 1") and state(owner) == "ready"
    found = os.stat(waiting)
    assert (found.st_ino, found.st_nlink, found.st_uid) == (os.stat(owner).st_ino, 1, os.geteuid())
    os.unlink(path)
    assert job.result() == pattern(100_000) and state(waiting) == "ready" and mnt.wait_of(job) is None
    assert borrows(owner) == ("mut" if wanted == "mut" else "ref 1")


@pytest.mark.core
def test_6_turns_are_in_the_order_of_arrival(mnt, owner):
    """Refs that stand side by side in the line come together; nobody overtakes."""
    held = mnt.borrow(owner, "ref", "held")
    jobs = {name: wait_to_borrow(mnt, owner, "mut" if name[0] == "M" else "ref", name)
            for name in ("M1", "R1", "R2", "M2", "M3", "R3")}

    def turn_of(*names):
        for name in names:
            assert jobs.pop(name).result() == pattern(100_000)
        mnt.assert_still_waits(*jobs.values())
        for kind in KINDS:
            with fails(errno.EBUSY):
                mnt.borrow(owner, kind, "overtaking")
        return [mnt.handle("mut" if name[0] == "M" else "ref", name) for name in names]

    turn_of()
    os.unlink(held)
    for names in (["M1"], ["R1", "R2"], ["M2"], ["M3"]):
        handles = turn_of(*names)
        for path in handles[:-1]:
            os.unlink(path)
            turn_of()
        os.unlink(handles[-1])
    assert jobs.pop("R3").result() == pattern(100_000)
    os.unlink(mnt.borrow(owner, "ref", "another"))
    os.unlink(mnt.handle("ref", "R3"))
    assert borrows(owner) == "none"


@pytest.mark.core
def test_6_nobody_starves(mnt, owner):
    """Processes that borrow immutably again and again do not keep out the one that wants to write."""
    script = """
import itertools, os, sys
owner, path, stop = sys.argv[1:]
for n in itertools.count():
    name = f"{path}{os.getpid()}-{n}"
    os.link(owner, name.replace("/ref/", "/await-ref/"))
    os.close(os.open(name, os.O_RDONLY))
    os.unlink(name)
    if os.path.exists(stop):
        break
"""
    keepers = [subprocess.Popen([*PYTHON, "-c", script, owner, mnt.handle("ref", "R"), mnt / "stop"])
               for _ in range(4)]
    try:
        eventually(lambda: borrows(owner) != "none")
        worker = mnt.worker()
        for turn in range(20):
            worker.link(owner, mnt.handle("await-mut", "M"))
            worker.write_path(mnt.handle("mut", "M"), b"turn %d" % turn, os.O_WRONLY | os.O_TRUNC)
            assert borrows(owner) == "mut"
            os.unlink(mnt.handle("mut", "M"))
        put(mnt, "stop")
        assert [keeper.wait(20) for keeper in keepers] == [0] * 4
    finally:
        for keeper in keepers:
            keeper.kill()
            keeper.wait()
    assert borrows(owner) == "none" and mnt.get(owner) == b"turn 19"


@pytest.mark.core
def test_6_many_wait_for_the_one_turn(mnt, owner):
    """Sixteen in a row: each is woken by the one before it, none twice, none never."""
    path = mnt.borrow(owner, "mut", "first")
    jobs = [wait_to_borrow(mnt, owner, "mut", f"M{n}") for n in range(16)]
    for number, job in enumerate(jobs):
        os.unlink(path)
        assert job.result() == pattern(100_000)
        path = mnt.handle("mut", f"M{number}")
        mnt.assert_still_waits(*jobs[number + 1:])
    os.unlink(path)
    assert borrows(owner) == "none"


@pytest.mark.core
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND])
def test_6_who_opens_it_to_write_waits_too(mnt, owner, flags):
    held = mnt.borrow(owner, "ref", "held")
    worker = mnt.worker()
    worker.link(owner, mnt.handle("await-mut", "M"))
    job = worker.begin("write_path", mnt.handle("mut", "M"), b"written", flags)
    mnt.assert_waits(job)
    assert mnt.get(held) == mnt.get(owner) == pattern(100_000)
    os.unlink(held)
    job.result()
    mnt.versions(owner, 2)
    os.unlink(mnt.handle("mut", "M"))
    rest = b"" if flags & os.O_TRUNC else pattern(100_000)
    assert mnt.get(owner) == (rest + b"written" if flags & os.O_APPEND else b"written" + rest[7:])


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_6_waiting_with_poll(mnt, owner, kind):
    held, path = mnt.borrow(owner, "mut", "held"), mnt.handle(kind, "H")
    worker = mnt.worker()
    worker.link(owner, mnt.handle(f"await-{kind}", "H"))
    fd = worker.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with fails(errno.EAGAIN):
        worker.read(fd, 10)
    assert not worker.wait_readable(fd, "poll", 0)
    job = worker.begin("wait_readable", fd, "epoll", 15)
    os.unlink(held)
    assert job.result() and worker.read_fd(fd) == pattern(100_000)


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_6_a_handled_signal_ends_the_wait_with_EINTR(mnt, owner, kind):
    """The place in the line is the handle's."""
    held, path = mnt.borrow(owner, "mut", "held"), mnt.handle(kind, "H")
    worker = mnt.worker()
    worker.handle(signal.SIGUSR1)
    worker.link(owner, mnt.handle(f"await-{kind}", "H"))
    job = worker.begin("c_open", path, os.O_RDONLY)
    mnt.assert_waits(job)
    behind = wait_to_borrow(mnt, owner, "mut", "behind")
    os.kill(worker.pid, signal.SIGUSR1)
    assert job.error() == "EINTR" and state(path) == "waiting"
    eventually(lambda: mnt.wait_of(job) is None)
    os.unlink(held)
    assert worker.read_path(path) == pattern(100_000)
    mnt.assert_still_waits(behind)
    os.unlink(path)
    assert behind.result() == pattern(100_000)


@pytest.mark.core
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_6_a_signal_ends_who_waits_and_the_next_has_the_turn(mnt, owner, number):
    """If its handle is bound to it."""
    held = mnt.borrow(owner, "ref", "held")
    worker = mnt.worker()
    worker.link(owner, mnt.handle("await-mut", "M"))
    worker.setxattr(mnt.handle("mut", "M"), "user.promisefs.pid", b"self")
    first = worker.begin("read_path", mnt.handle("mut", "M"))
    mnt.assert_waits(first)
    second = wait_to_borrow(mnt, owner, "ref", "R")
    worker.kill(number)
    assert second.result() == pattern(100_000) and borrows(owner) == "ref 2" and mnt.handles("mut") == []
    assert mnt.wait_of(first) is None
    os.unlink(held)


@pytest.mark.core
def test_6_a_program_that_waits_can_be_killed(mnt, owner):
    held, path = mnt.borrow(owner, "mut", "held"), mnt.handle("mut", "M")
    assert run("ln", owner, mnt.handle("await-mut", "M")).returncode == 0
    process = subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL)
    eventually(lambda: [wait for wait in mnt.waits() if wait["pid"] == process.pid], what="cat waits")
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM and state(path) == "waiting"
    os.unlink(path)
    os.unlink(held)
    assert borrows(owner) == "none" and mnt.handles("mut") == []


@pytest.mark.core
@pytest.mark.parametrize("how", list(DROPS))
@pytest.mark.parametrize("kind", KINDS)
def test_6_the_place_in_the_line_is_given_up(mnt, owner, sleeper, kind, how):
    """Who waited for that handle is told; who stands behind it moves up."""
    held, path = mnt.borrow(owner, "ref", "held"), mnt.handle(kind, "H")
    first = wait_to_borrow(mnt, owner, "mut", "first")
    second = wait_to_borrow(mnt, owner, kind, "H")
    third = wait_to_borrow(mnt, owner, "mut", "third")
    prepare_drop(mnt, path, sleeper, how)
    DROPS[how](mnt, path, sleeper)
    if "renamed" in how:  # as with keys: who waits for a name gets what is renamed to it
        assert second.result() == b"another"
    else:
        assert second.error() in ("ECANCELED", "ENOENT") and gone(path)
    mnt.assert_still_waits(first, third)
    os.unlink(held)
    assert first.result() == pattern(100_000)
    mnt.assert_still_waits(third)
    os.unlink(mnt.handle("mut", "first"))
    assert third.result() == pattern(100_000)


@pytest.mark.core
def test_6_a_handle_that_waits_is_renamed(mnt, owner):
    """It keeps its place, and who waits for the one that it replaces waits for it then."""
    held = mnt.borrow(owner, "ref", "held")
    jobs = {name: wait_to_borrow(mnt, owner, "mut", name) for name in ("M1", "M2", "M3")}
    os.rename(mnt.handle("mut", "M1"), mnt.handle("mut", "renamed"))
    os.rename(mnt.handle("mut", "renamed"), mnt.handle("mut", "M2"))
    assert mnt.handles("mut") == ["M2", "M3"]
    mnt.assert_waits(jobs["M2"], jobs["M3"])
    os.unlink(held)
    assert jobs["M2"].result() == pattern(100_000)
    assert jobs["M1"].error() == "ENOENT" or jobs["M1"].result() == pattern(100_000)
    mnt.assert_still_waits(jobs["M3"])
    os.unlink(mnt.handle("mut", "M2"))
    assert jobs["M3"].result() == pattern(100_000)


@pytest.mark.core
def test_6_the_name_of_a_handle_that_waits_is_taken(mnt, owner):
    held = mnt.borrow(owner, "mut", "held")
    job = wait_to_borrow(mnt, owner, "ref", "same")
    for view in ("ref", "await-ref"):
        with fails(errno.EEXIST):
            os.link(put(mnt, "other"), mnt.handle(view, "same"))
    os.unlink(held)
    assert job.result() == pattern(100_000) and borrows(owner) == "ref 1"


@pytest.mark.core
def test_6_waiting_for_a_writer(mnt, owner):
    """Who borrows gets what was being written, if it was published."""
    worker = mnt.worker()
    fd = worker.open(owner, os.O_WRONLY | os.O_TRUNC)
    worker.write(fd, b"new")
    job = wait_to_borrow(mnt, owner, "ref", "R")
    with fails(errno.EBUSY):
        mnt.borrow(owner, "ref", "overtaking")
    mnt.assert_still_waits(job)
    worker.close(fd)
    assert job.result() == b"new"


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_6_waiting_for_a_future(mnt, kind):
    mnt.declare("key")
    job = wait_to_borrow(mnt, "key", kind, "H")
    worker = mnt.worker()
    fd = worker.open(mnt / "key", os.O_WRONLY)
    worker.write(fd, b"result")
    mnt.assert_still_waits(job)
    worker.close(fd)
    assert job.result() == b"result" and borrows(mnt / "key").startswith(kind)


@pytest.mark.core
def test_6_the_owner_moves_while_somebody_waits(mnt):
    put(mnt, "key")
    held = mnt.borrow("key", "ref", "held")
    job = wait_to_borrow(mnt, "key", "mut", "M")
    os.rename(mnt / "key", mnt.handle("own", "X"))
    assert attr(mnt.handle("mut", "M"), "owner") == f".promisefs/own/{mnt.prefix}X"
    mnt.assert_still_waits(job)
    os.unlink(held)
    assert job.result() == b"data" and attr(mnt.handle("mut", "M"), "owner") == f".promisefs/own/{mnt.prefix}X"


@pytest.mark.core
@pytest.mark.parametrize("how", ["lease", "unlink", "rename over"])
def test_6_what_somebody_waits_for_is_evicted(mnt, how):
    """Waiting alone does not keep an object."""
    put(mnt, "key")
    if how == "lease":
        held = mnt.borrow("key", "mut", "held")
    else:
        worker = mnt.worker()
        fd = worker.open(mnt / "key", os.O_WRONLY | os.O_TRUNC)
    jobs = [wait_to_borrow(mnt, "key", kind, "H") for kind in KINDS]
    {"lease": lambda: set_attr(mnt / "key", "lease", "100ms"), "unlink": lambda: os.unlink(mnt / "key"),
     "rename over": lambda: os.rename(put(mnt, "other"), mnt / "key")}[how]()
    assert [job.error() for job in jobs] == ["ENOENT"] * 2
    assert gone(mnt.handle("ref", "H"), mnt.handle("mut", "H"))
    if how == "lease":
        assert mnt.get(held) == b"data"
    else:
        worker.close(fd)


@pytest.mark.core
def test_6_waiting_holds_up_nobody_else(mnt, owner):
    """Neither other objects, nor readers of this one, nor its attributes."""
    mnt.borrow(owner, "ref", "held")
    job = wait_to_borrow(mnt, owner, "mut", "M")
    put(mnt, "another")
    os.unlink(mnt.borrow("another", "mut", "another"))
    worker = mnt.worker()
    assert worker.read_path(owner) == pattern(100_000)
    worker.chmod(owner, 0o600)
    worker.setxattr(owner, MINE, b"value")
    worker.rename(owner, mnt / "moved")
    with fails(errno.EBUSY):
        worker.open(mnt / "moved", os.O_WRONLY)
    mnt.assert_still_waits(job)


def test_6_a_limit_to_waiting(new_mount):
    mnt = new_mount("wait-timeout=300ms")
    put(mnt, "key")
    held = mnt.borrow("key", "mut", "held")
    os.link(mnt / "key", mnt.handle("await-ref", "R"))
    assert mnt.reader(mnt.handle("ref", "R")).error() == "ETIMEDOUT" and state(mnt.handle("ref", "R")) == "waiting"
    os.unlink(held)
    assert mnt.reader(mnt.handle("ref", "R")).result() == b"data"


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_6_the_line_is_kept_over_a_restart(own, how):
    put(own, "key")
    held = own.borrow("key", "mut", "held")
    names = ["M1", "R1", "R2", "M2"]
    for name in names:
        os.link(own / "key", own.handle("await-mut" if name[0] == "M" else "await-ref", name))
    if how == "kill":
        job = own.reader(own.handle("mut", "M1"))
        own.assert_waits(job)
    restart(own, how)
    if how == "kill":
        assert job.error() in {"ECONNABORTED", "ENOTCONN", "EIO"}
    paths = {name: own.handle("mut" if name[0] == "M" else "ref", name) for name in names}

    def states():
        return [state(paths[name]) if os.path.lexists(paths[name]) else None for name in names]

    assert states() == ["waiting"] * 4 and borrows(own / "key") == "mut"
    os.unlink(held)
    eventually(lambda: states() == ["ready", "waiting", "waiting", "waiting"])
    os.unlink(paths["M1"])
    eventually(lambda: states() == [None, "ready", "ready", "waiting"])
    os.unlink(paths["R1"])
    os.unlink(paths["R2"])
    assert own.reader(paths["M2"]).result() == b"data"
    os.unlink(paths["M2"])
    assert borrows(own / "key") == "none" and check_store(own.mount) == []


# ---- what ends while it is borrowed ----------------------------------------------------------------------------------

ENDS = ["end of a lifetime", "lease of a lifetime", "lease", "pid", "lease of a directory"]


def end_object(mnt, how, process):
    path = mnt / "dir/key"
    if "lifetime" in how:
        os.mkdir(scope(mnt))
        os.link(path, f"{scope(mnt)}/key")
    {"end of a lifetime": lambda: os.rmdir(scope(mnt)),
     "lease of a lifetime": lambda: set_attr(scope(mnt), "lease", "100ms"),
     "lease": lambda: set_attr(path, "lease", "100ms"),
     "lease of a directory": lambda: set_attr(mnt / "dir", "lease", "100ms"),
     "pid": lambda: (set_attr(path, "pid", str(process.pid)), process.kill())}[how]()


@pytest.mark.core
@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_6_the_name_goes_at_once_and_the_data_with_the_last_handle(own, sleeper, kind, how):
    os.mkdir(own / "dir")
    put(own, "dir/key", pattern(100_000))
    number = attr(own / "dir/key", "id")
    paths = [own.borrow("dir/key", kind, f"H{n}") for n in range(2 if kind == "ref" else 1)]
    end_object(own, how, sleeper)
    vanish(own / "dir/key")
    for path in paths:
        assert attr(path, "owner") is None and (attr(path, "id"), state(path)) == (number, "ready")
        reader = own.worker()
        assert own.get(path) == reader.open_and_look(path)["mapped"] == pattern(100_000)
        reader.leave()
    if kind == "mut":
        put(own, paths[0], b"new version of what has no name")
        assert own.get(paths[0]) == b"new version of what has no name"
    os.makedirs(own / "dir", exist_ok=True)
    put(own, "dir/key", b"another object")
    assert borrows(own / "dir/key") == "none"
    os.unlink(own / "dir/key")
    for path in paths:
        eventually(lambda: len(data_files(own.mount)) == 1)
        os.unlink(path)
    eventually(lambda: data_files(own.mount) == [], what="the data goes")
    assert check_store(own.mount) == []


@pytest.mark.core
def test_6_an_open_reader_outlives_the_handle_and_the_object(own):
    put(own, "key", pattern(100_000))
    path = own.borrow("key", "ref", "R")
    reader = own.worker()
    seen = reader.open_and_look(path)
    set_attr(own / "key", "lease", "1ms")
    vanish(own / "key")
    os.unlink(path)
    assert reader.look_again(seen["fd"]) == seen and seen["bytes"] == pattern(100_000)
    reader.leave()
    eventually(lambda: data_files(own.mount) == [])
    assert check_store(own.mount) == []


# ---- leases, processes -----------------------------------------------------------------------------------------------

@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_6_a_dead_worker_releases_its_borrow(mnt, owner, kind, how):
    worker = mnt.worker()
    path = mnt.handle(kind, "H")
    worker.link(owner, path)
    worker.setxattr(path, "user.promisefs.pid", b"self")
    assert attr(path, "pid") == str(worker.pid)
    worker.kill(how)
    vanish(path)
    assert borrows(owner) == "none" and mnt.get(owner) == pattern(100_000)


@pytest.mark.core
def test_6_the_lease_of_a_handle_is_extended(mnt, owner):
    path = mnt.borrow(owner, "ref", "R")
    witness = put(mnt, "witness")
    set_attr(path, "lease", "200ms")
    set_attr(path, "lease", "+1h")
    set_attr(witness, "lease", "400ms")
    vanish(witness)
    assert os.path.exists(path)
    set_attr(path, "lease", "0")
    vanish(path)
    assert borrows(owner) == "none"


@pytest.mark.core
def test_6_the_end_of_a_handle_follows_it_when_it_is_renamed(mnt, owner, sleeper):
    path = mnt.borrow(owner, "mut", "M")
    set_attr(path, "pid", str(sleeper.pid))
    os.rename(path, path + "2")
    sleeper.kill()
    vanish(path + "2")
    assert borrows(owner) == "none"


@pytest.mark.core
def test_6_a_dropped_handles_lease_does_not_end_the_next_of_its_name(mnt, owner, sleeper):
    path = mnt.borrow(owner, "ref", "R")
    set_attr(path, "lease", "200ms")
    set_attr(path, "pid", str(sleeper.pid))
    os.mkdir(scope(mnt))
    os.link(path, f"{scope(mnt)}/R")
    os.unlink(path)
    assert os.listdir(scope(mnt)) == []
    path = mnt.borrow(owner, "ref", "R")
    witness = put(mnt, "witness")
    set_attr(witness, "lease", "400ms")
    os.rmdir(scope(mnt))
    sleeper.kill()
    sleeper.wait()
    vanish(witness)
    assert mnt.get(path) == pattern(100_000) and attr(path, "lease") is attr(path, "pid") is None


@pytest.mark.core
def test_6_a_lifetime_of_handles_and_objects(mnt):
    """All of them end with it, also when it holds an object and its borrows."""
    put(mnt, "key")
    put(mnt, "other")
    os.mkdir(scope(mnt))
    for source in (mnt / "key", mnt.borrow("key", "ref", "R"), mnt.borrow("other", "mut", "M"),
                   put(mnt, mnt.handle("own", "X"))):
        os.link(source, f"{scope(mnt)}/{len(os.listdir(scope(mnt)))}")
    os.rmdir(scope(mnt))
    vanish(mnt / "key", *(mnt.handle(kind, name) for kind, name in (("ref", "R"), ("mut", "M"), ("own", "X"))))
    assert os.listdir(mnt.root) == ["other"] and borrows(mnt / "other") == "none" and mnt.get("other") == b"data"


# ---- users -----------------------------------------------------------------------------------------------------------

def links_are_protected():
    return open("/proc/sys/fs/protected_hardlinks").read().strip() != "0"


BY_RIGHTS = [  # mode of the object, gid of who borrows, kind, whether he may
    (0o604, OTHER, "ref", True), (0o640, 1234, "ref", True), (0o600, OTHER, "ref", False), (0o640, OTHER, "ref", False),
    (0o602, OTHER, "mut", True), (0o660, 1234, "mut", True), (0o644, OTHER, "mut", False), (0o664, OTHER, "mut", False),
    (0o602, OTHER, "ref", False), (0o606, OTHER, "ref", True), (0o606, OTHER, "mut", True)]


@pytest.mark.needs_root
@pytest.mark.parametrize("mode, gid, kind, allowed", BY_RIGHTS)
@pytest.mark.parametrize("view", ["", "await-"])
def test_6_who_may_borrow(mnt, mode, gid, kind, allowed, view):
    """What the kernel does not forbid before (protected_hardlinks): EPERM for who may not both read and write."""
    put(mnt, "key")
    os.chown(mnt / "key", SOMEBODY, 1234)
    os.chmod(mnt / "key", mode)
    shift = 3 if gid == 1234 else 0
    forbidden = links_are_protected() and mode >> shift & 6 != 6
    other = mnt.worker(uid=OTHER, gid=gid)
    with (fails(errno.EPERM if forbidden else errno.EACCES) if forbidden or not allowed else contextlib.nullcontext()):
        other.link(mnt / "key", mnt.handle(view + kind, "H"))
    if forbidden or not allowed:
        assert mnt.handles(kind) == [] and borrows(mnt / "key") == "none"
    else:
        found = os.stat(mnt.handle(kind, "H"))
        assert found.st_mode == stat.S_IFREG | 0o600 | mode & (0o444 if kind == "ref" else 0o666)
        assert found.st_uid == OTHER


@pytest.mark.needs_root
@pytest.mark.parametrize("mode, gid, kind, allowed", BY_RIGHTS)
def test_6_who_may_borrow_by_lend(mnt, mode, gid, kind, allowed):
    """Below lend/ the kernel does not ask for more than the right to read."""
    put(mnt, "key")
    os.chown(mnt / "key", SOMEBODY, 1234)
    os.chmod(mnt / "key", mode)
    shift = 3 if gid == 1234 else 0
    reads = mode >> shift & 4
    other = mnt.worker(uid=OTHER, gid=gid)
    lent = f"{mnt.mount.control}/lend/{mnt.key('key')}"
    if allowed and reads:
        other.link(lent, mnt.handle(kind, "H"))
        assert other.read_path(mnt.handle(kind, "H")) == b"data"
    else:
        with fails(errno.EACCES, *([] if reads else [errno.EPERM])):
            other.link(lent, mnt.handle(kind, "H"))
        assert mnt.handles(kind) == [] and borrows(mnt / "key") == "none"


@pytest.mark.needs_root
def test_6_lend_is_for_borrowing_only(mnt):
    put(mnt, "key")
    os.chmod(mnt / "key", 0o644)
    other = mnt.worker(uid=OTHER)
    lent = f"{mnt.mount.control}/lend/{mnt.key('key')}"
    assert other.read_path(lent) == b"data"
    for call in (lambda: other.open(lent, os.O_WRONLY), lambda: other.open(lent, os.O_RDONLY | os.O_TRUNC),
                 lambda: other.truncate(lent, 0), lambda: other.setxattr(lent, "user.x", b"1"),
                 lambda: other.utime(lent), lambda: other.chmod(lent, 0o666), lambda: os.unlink(lent),
                 lambda: os.link(lent, mnt / "new"), lambda: os.rename(lent, mnt / "new")):
        with fails(errno.EPERM, errno.EACCES):
            call()
    assert mnt.get("key") == b"data" and os.listdir(mnt.root) == ["key"] and os.listxattr(mnt / "key") == []


@pytest.mark.needs_root
@pytest.mark.parametrize("mode, kind, allowed", [(0o200, "ref", False), (0o400, "mut", False), (0o400, "ref", True),
                                                 (0o200, "mut", True), (0o000, "ref", False)])
def test_6_the_mode_says_what_its_owner_may_borrow(mnt, mode, kind, allowed):
    put(mnt, "key")
    os.chown(mnt / "key", SOMEBODY, SOMEBODY)
    os.chmod(mnt / "key", mode)
    with contextlib.nullcontext() if allowed else fails(errno.EACCES):
        mnt.worker(uid=SOMEBODY).link(mnt / "key", mnt.handle(kind, "H"))
    assert mnt.handles(kind) == (["H"] if allowed else [])


FOREIGN = {
    "drop it": (lambda w, p: w.unlink(p), errno.EPERM),
    "rename it": (lambda w, p: w.rename(p, p + "-new"), errno.EPERM),
    "rename over it": (lambda w, p: w.rename(p + "-mine", p), errno.EPERM),
    "read it": (lambda w, p: w.open(p, os.O_RDONLY), errno.EACCES),
    "write it": (lambda w, p: w.open(p, os.O_WRONLY), errno.EACCES),
    "end it by a lease": (lambda w, p: w.setxattr(p, "user.promisefs.lease", b"0"), *DENIED),
    "end it by a process": (lambda w, p: w.setxattr(p, "user.promisefs.pid", b"self"), *DENIED),
    "set an attribute": (lambda w, p: w.setxattr(p, MINE, b"x"), *DENIED),
    "mode": (lambda w, p: w.chmod(p, 0o666), errno.EPERM),
    "owner": (lambda w, p: w.chown(p, OTHER, OTHER), errno.EPERM),
    "times": (lambda w, p: w.utime(p, (1, 1)), errno.EPERM),
    "bind it": (lambda w, p: w.link(p, p.replace("/ref/", "/lifetimes/").replace("/mut/", "/lifetimes/").replace(
        "/own/", "/lifetimes/") + "-L/H"), errno.EPERM),
}


@pytest.mark.needs_root
@pytest.mark.parametrize("what", list(FOREIGN))
@pytest.mark.parametrize("kind", ["own", "ref", "mut"])
def test_6_a_handle_belongs_to_who_made_it(mnt, kind, what):
    """Who owns the object or not: others may not touch somebody's handle, whose mode is his."""
    call, *codes = FOREIGN[what]
    creator, other = mnt.worker(uid=SOMEBODY), mnt.worker(uid=OTHER)
    path = mnt.handle(kind, "H")
    for worker, key, handle in ((creator, "key", path), (other, "other", path + "-mine")):
        worker.write_path(mnt / key, b"data", mode=0o600)
        mnt.becomes(key, "ready")
        worker.rename(mnt / key, handle) if kind == "own" else worker.link(mnt / key, handle)
    other.mkdir(mnt.handle("lifetimes", "H-L"))
    before = situation(mnt)
    with fails(*codes):
        call(other, path)
    assert situation(mnt) == before
    creator.unlink(path)
    mnt.worker(uid=0).unlink(path + "-mine")
    assert mnt.handles(kind) == []


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["own", "ref", "mut"])
def test_6_a_handle_is_given_to_another_user(mnt, kind):
    """It is his then, although he may not open the object itself; who had it has lost it."""
    creator, other = mnt.worker(uid=SOMEBODY), mnt.worker(uid=OTHER)
    creator.write_path(mnt / "key", b"data", mode=0o600)
    mnt.becomes("key", "ready")
    path = mnt.handle(kind, "H")
    creator.rename(mnt / "key", path) if kind == "own" else creator.link(mnt / "key", path)
    os.chown(path, OTHER, OTHER)
    assert other.read_path(path) == b"data"
    with fails(errno.EACCES):
        creator.open(path, os.O_RDONLY)
    if kind != "own":
        assert os.stat(mnt / "key").st_uid == SOMEBODY
        with fails(errno.EACCES):
            other.open(mnt / "key", os.O_RDONLY)
    if kind != "ref":
        other.write_path(path, b"by the other", os.O_WRONLY | os.O_TRUNC)
        mnt.versions(path, 2)
    with fails(errno.EPERM):
        creator.unlink(path)
    other.unlink(path)
    if kind != "own":
        assert creator.read_path(mnt / "key") == (b"data" if kind == "ref" else b"by the other")
        assert os.stat(mnt / "key").st_uid == SOMEBODY


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", KINDS)
def test_6_the_mode_of_the_handle_decides(mnt, kind):
    creator, other = mnt.worker(uid=SOMEBODY), mnt.worker(uid=OTHER)
    creator.write_path(mnt / "key", b"data", mode=0o600)
    mnt.becomes("key", "ready")
    path = mnt.handle(kind, "H")
    creator.link(mnt / "key", path)
    with fails(errno.EACCES):
        other.open(path, os.O_RDONLY)
    creator.chmod(path, 0o604)
    assert other.read_path(path) == b"data"
    with fails(errno.EACCES):
        other.open(path, os.O_WRONLY)
    creator.chmod(path, 0o200)
    for worker in (creator, other):
        with fails(errno.EACCES):
            worker.open(path, os.O_RDONLY)
    creator.chmod(mnt / "key", 0o666)
    with fails(errno.EACCES):
        other.open(path, os.O_RDONLY)


@pytest.mark.needs_root
def test_6_moving_into_own_needs_the_right_to_the_directory(mnt):
    os.mkdir(mnt / "dir", 0o755)
    put(mnt, "dir/key")
    os.chmod(mnt / "dir/key", 0o666)
    other = mnt.worker(uid=OTHER)
    with fails(errno.EACCES):
        other.rename(mnt / "dir/key", mnt.handle("own", "X"))
    other.write_path(mnt.handle("own", "X"), b"owned")
    with fails(errno.EACCES):
        other.rename(mnt.handle("own", "X"), mnt / "dir/new")
    assert os.listdir(mnt / "dir") == ["key"] and mnt.handles("own") == ["X"]


@pytest.mark.needs_root
def test_6_borrows_of_several_users(mnt):
    """The rule holds across users, and so does the line of those who wait."""
    put(mnt, "key")
    os.chmod(mnt / "key", 0o666)
    workers = [mnt.worker(uid=uid) for uid in (SOMEBODY, OTHER)]
    for number, worker in enumerate(workers):
        worker.link(mnt / "key", mnt.handle("ref", f"R{number}"))
    with fails(errno.EBUSY):
        workers[0].link(mnt / "key", mnt.handle("mut", "M"))
    job = wait_to_borrow(mnt, "key", "mut", "M", uid=OTHER)
    assert mnt.wait_of(job)["uid"] == OTHER
    for number, worker in enumerate(workers):
        worker.unlink(mnt.handle("ref", f"R{number}"))
    assert job.result() == b"data" and os.stat(mnt.handle("mut", "M")).st_uid == OTHER
    with fails(errno.EBUSY):
        workers[0].open(mnt / "key", os.O_RDONLY)


# ---- restarts --------------------------------------------------------------------------------------------------------

def restart(mnt, how):
    mnt.mount.kill() if how == "kill" else mnt.mount.stop()
    mnt.mount.start()


@pytest.mark.core
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_6_a_restart_keeps_owners_and_borrows(own, how):
    world(own)
    os.chmod(ref(own), 0o640)
    set_attr(ref(own), "lease", LATER)
    set_attr(mut(own), "pid", str(os.getpid()))
    os.link(ref(own), f"{scope(own)}/R")
    before = situation(own)
    restart(own, how)
    assert situation(own) == before
    assert own.get(ref(own)) == b"lent" and own.get(mut(own)) == b"lent-mut" and own.get(own.handle("own", "X")) == b"X"
    for key, kind in (("lent", "mut"), ("lent-mut", "ref"), ("lent-mut", "mut")):
        with fails(errno.EBUSY):
            own.borrow(key, kind, "new")
    for key in ("lent", "lent-mut"):
        with fails(errno.EBUSY):
            os.unlink(own / key)
        with fails(errno.EBUSY):
            os.open(own / key, os.O_WRONLY)
    put(own, mut(own), b"after the restart")
    job = wait_to_borrow(own, "lent-mut", "ref", "new")
    os.unlink(mut(own))
    assert job.result() == b"after the restart"
    os.rmdir(scope(own))
    vanish(ref(own), own / "lent", own / "lent-mut")
    assert own.get(own.handle("ref", "new")) == b"after the restart" and own.get(ref(own, "R2")) == b"lent"
    restart(own, how)
    for path in (own.handle("ref", "new"), ref(own, "R2")):
        assert own.get(path) and attr(path, "owner") is None
        os.unlink(path)
    assert check_store(own.mount) == []


@pytest.mark.core
@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("kind", KINDS)
def test_6_what_ends_while_nobody_is_mounted(own, sleeper, kind, how):
    for key in ("leased", "bound", "kept"):
        put(own, key)
        own.borrow(key, kind, key)
    set_attr(own.handle(kind, "leased"), "lease", "300ms")
    due = time.time() + 0.3
    set_attr(own.handle(kind, "bound"), "pid", str(sleeper.pid))
    own.mount.kill() if how == "kill" else own.mount.stop()
    sleeper.kill()
    sleeper.wait()
    eventually(lambda: time.time() > due)
    own.mount.start()
    vanish(own.handle(kind, "leased"), own.handle(kind, "bound"))
    assert own.handles(kind) == ["kept"]
    assert [borrows(own / key) for key in ("leased", "bound")] == ["none"] * 2 and borrows(own / "kept") != "none"
    assert own.get("leased") == b"data"


@pytest.mark.core
@pytest.mark.parametrize("how", ["drop", "borrow", "wait"])
def test_6_acknowledged_means_recorded(own, how):
    put(own, "key")
    path = own.borrow("key", "mut", "M")
    if how == "drop":
        os.unlink(path)
    if how == "wait":
        job = wait_to_borrow(own, "key", "mut", "N")
        os.unlink(path)
        job.result()
    own.mount.kill()
    own.mount.start()
    assert own.handles("mut") == {"drop": [], "borrow": ["M"], "wait": ["N"]}[how]
    assert borrows(own / "key") == ("none" if how == "drop" else "mut")


@pytest.mark.core
@pytest.mark.parametrize("how", ["replace", "append"])
def test_6_the_daemon_is_killed_while_a_mut_is_written(own, how):
    put(own, "key", b"old")
    path = own.borrow("key", "mut", "M")
    worker = own.worker()
    fd = worker.open(path, os.O_WRONLY | (os.O_TRUNC if how == "replace" else os.O_APPEND))
    worker.write_all(fd, pattern(100_000))
    own.mount.kill()
    worker.kill()
    own.mount.start()
    assert own.get(path) == b"old" and borrows(own / "key") == "mut" and version(path) == 1
    put(own, path, b"new")
    os.unlink(path)
    assert own.get("key") == b"new" and check_store(own.mount) == []


def test_6_a_mount_that_is_read_only(new_mount):
    mnt = new_mount()
    world(mnt)
    before = situation(mnt)
    mnt.mount.stop()
    mnt.mount.start("ro")
    assert situation(mnt) == before and mnt.get(ref(mnt)) == b"lent"
    for call in (lambda: mnt.borrow("key", "ref", "new"), lambda: os.unlink(ref(mnt)),
                 lambda: os.rename(mnt / "key", mnt.handle("own", "new")), lambda: os.open(mut(mnt), os.O_WRONLY)):
        with fails(errno.EROFS):
            call()
    assert situation(mnt) == before


# ---- events ----------------------------------------------------------------------------------------------------------

@pytest.mark.core
def test_6_events(mnt, owner):
    worker = mnt.worker()
    named = os.path.relpath(owner, mnt.mount.root)
    for kind in KINDS:
        worker.link(owner, mnt.handle(kind, "H"))
        worker.unlink(mnt.handle(kind, "H"))
    events = [event for event in mnt.history() if event["event"] in ("borrow", "release") and event["key"] == named]
    details = [f"{kind}/{mnt.prefix}H" for kind in KINDS]
    assert [(event["event"], event["detail"]) for event in events] == [
        ("borrow", details[0]), ("release", details[0]), ("borrow", details[1]), ("release", details[1])]
    for event in events:
        assert (event["pid"], event["uid"]) == (worker.pid, os.geteuid()) and event["command"].startswith("python")
        assert str(event["object"]) == attr(owner, "id") and event["version"] == 1


@pytest.mark.core
def test_6_events_of_a_key(mnt):
    """Its history goes on while it is in own/."""
    put(mnt, "key")
    os.unlink(mnt.borrow("key", "ref", "R"))
    assert [event["event"] for event in mnt.history("key")][-2:] == ["borrow", "release"]


# ---- the store -------------------------------------------------------------------------------------------------------

@pytest.mark.core
def test_6_nothing_is_left_behind(own, sleeper):
    world(own)
    for how, name in (("lease", "1"), ("pid", "2")):
        path = own.borrow("key", "ref", name)
        set_attr(path, how, "50ms" if how == "lease" else str(sleeper.pid))
    worker = own.worker()
    worker.write(worker.open(mut(own), os.O_WRONLY | os.O_TRUNC), b"torn")
    sleeper.kill()
    vanish(own.handle("ref", "1"), own.handle("ref", "2"))
    for path in (ref(own), ref(own, "R2"), mut(own), own.handle("own", "X")):
        os.unlink(path)
    worker.leave()
    for key in os.listdir(own.root):
        os.rmdir(own / key) if key == "dir" else os.unlink(own / key)
    os.rmdir(scope(own))
    eventually(lambda: data_files(own.mount) == [])
    assert check_store(own.mount) == []
    restart(own, "stop")
    assert situation(own) == {} and check_store(own.mount) == []

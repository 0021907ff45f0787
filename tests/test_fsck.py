"""promisefs fsck and gc: each kind of damage is found, named and repaired, and nothing is said of a store that is well."""
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess

import pytest

from pfs import (IS_ROOT, NOBODY, PYTHON, Mount, Space, check_store, complaints, eventually, fails, opened, pattern,
                 promisefs, set_attr, state)

BIG = pattern(200_000, 3)
WORDS = pattern(5000, 1)


# ---- stores ----------------------------------------------------------------------------------------------------------

def put_hashed(mnt, key, data):
    mnt.put(key, data)
    mnt.becomes(key, "ready")
    assert os.getxattr(mnt / key, "user.promisefs.sha256").decode() == hashlib.sha256(data).hexdigest()


def fill(mnt):
    """Every kind of object that a store can hold, and nothing going on."""
    os.makedirs(mnt / "dir/deep/er")
    os.mkdir(mnt / "empty")
    os.mkdir(mnt / "live")
    set_attr(mnt / "live", "publish", "write")
    mnt.put("live/log", b"line\n")
    put_hashed(mnt, "words", WORDS)
    mnt.put("dir/deep/file", b"deep")
    mnt.put("dir/other", b"other")
    mnt.put("big", BIG)
    with opened(mnt / "big", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"more")
    mnt.versions("big", 2)
    os.link(mnt / "words", mnt / "dir/link")
    os.symlink("words", mnt / "symlink")
    os.mkfifo(mnt / "fifo")
    mnt.declare("future", "failing")
    set_attr(mnt / "future", "deadline", "1h")
    set_attr(mnt / "failing", "error", "ENOSPC: no room")
    os.setxattr(mnt / "words", "user.colour", b"blue")
    os.mkdir(mnt.mount.control / "lifetimes/L")
    os.link(mnt / "dir/other", mnt.mount.control / "lifetimes/L/other")
    mnt.put("leased", b"leased")
    set_attr(mnt / "leased", "lease", "1h")
    mnt.put("bound", b"bound")
    mnt.put("borrowed", b"borrowed")
    for name in ("one", "two"):
        mnt.borrow("borrowed", "ref", name)
    mnt.put("owned", b"owned")
    os.rename(mnt / "owned", mnt.handle("own", "X"))
    mnt.put("lent", b"lent")
    mnt.borrow("lent", "mut", "M")
    mnt.put("once", b"once")
    set_attr(mnt / "once", "evict", "1")
    for key in ("words", "dir/other", "leased", "borrowed", "lent", "once", "live/log"):
        mnt.becomes(key, "ready")


def leave_unfinished(mnt):
    """What is under way when the daemon is killed."""
    mnt.writer("draft", b"torn")
    mnt.writer("words", b"torn")
    mnt.writer("future", b"torn")
    worker, fd = mnt.writer("synced", b"synced")
    worker.call("fsync", fd)
    taker = mnt.worker()
    fd = taker.open(mnt.once("once"), os.O_RDONLY)
    taker.read(fd, 2)
    mnt.put("replaced", b"1")
    mnt.put("replaced", b"2")
    os.unlink(mnt / "big")


@pytest.fixture(scope="module")
def made(scratch, watchdog):
    """Makes a store once, for all tests of this module to copy."""
    mounts = []

    def make(name, prepare=fill, killed=False):
        mount = Mount(scratch / f"fsck-{name}", watchdog=watchdog)
        mounts.append(mount)
        mount.start()
        space = Space(mount)
        try:
            prepare(space)
            eventually(lambda: not complaints(mount), what="all is published")
            if killed:
                leave_unfinished(space)
                mount.kill()
        finally:
            space.close()
        if not killed:
            mount.stop()
        return mount.store

    yield make
    for mount in mounts:
        mount.close()
        mount.remove()


@pytest.fixture(scope="module")
def filled(made):
    return made("filled")


@pytest.fixture(scope="module")
def killed(made):
    return made("killed", killed=True)


@pytest.fixture
def copied(new_mount):
    """A copy of a store, not mounted: a Space whose mount can be started."""
    def copy(store):
        space = new_mount(start=False)
        shutil.copytree(store, space.mount.store)
        return space
    return copy


# ---- running it ------------------------------------------------------------------------------------------------------

def fsck(store, *options, status=0):
    """[findings], {summary} of a run that must end with this status."""
    done = promisefs("fsck", "--json", *options, store)
    assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
    *findings, summary = map(json.loads, done.stdout.splitlines())
    return [finding for finding in findings if not finding["harmless"]], summary


def is_clean(store, *options):
    findings, summary = fsck(store, *options)
    assert findings == [] and summary["clean"] and summary["found"] == summary["left"] == 0
    return True


def catalog(space):
    base = sqlite3.connect(space.mount.store / "catalog.db", isolation_level=None)
    base.execute("pragma foreign_keys = off")
    return base


def change(space, *statements):
    base = catalog(space)
    for sql in statements:
        base.execute(sql)
    base.close()


def ask(space, sql):
    base = catalog(space)
    row = base.execute(sql).fetchone()
    base.close()
    return row[0] if len(row) == 1 else row


def object_of(space, path):
    """(id, vid) of a key."""
    return ask(space, f"select o.id, o.vid from key k join object o on o.id = k.object where k.path = '{path}'")


def data_file(space, path):
    vid = object_of(space, path)[1]
    return space.mount.store / f"data/{vid & 0xff:02x}/{vid:016x}"


def quarantined(space):
    """{name: bytes} of what was set aside, and the text of the index."""
    folder, = (space.mount.store / "quarantine").iterdir()
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "index"}
    return files, (folder / "index").read_text()


def without_log(findings):
    """The log of the catalog comes with the first who reads it."""
    return [finding for finding in findings if not finding["key"].startswith("catalog.db-")]


def found_and_repaired(space, kind, key=None, others=()):
    """It is found and named, twice the same; repaired; and then nothing is wrong. Leaves the store mounted."""
    store = space.mount.store
    findings, summary = fsck(store, status=4)
    kinds = {finding["kind"] for finding in findings}
    assert kind in kinds and kinds <= {kind, *others}, findings
    assert summary["left"] == summary["found"] == len(findings) and not summary["clean"]
    if key is not None:
        assert key in [finding["key"] for finding in findings if finding["kind"] == kind], findings
    assert without_log(fsck(store, status=4)[0]) == without_log(findings)
    assert not (store / "quarantine").exists()
    repaired, summary = fsck(store, "--repair", status=1)
    assert all(finding["repaired"] for finding in repaired) and summary["left"] == 0
    assert summary["found"] == len(repaired) >= len(findings)
    assert is_clean(store)
    space.mount.start()
    assert check_store(space.mount) == []
    assert is_clean(store, "--online")
    return findings


# ---- nothing is wrong ------------------------------------------------------------------------------------------------

def test_a_store_with_everything_is_clean(filled, copied):
    space = copied(filled)
    findings, summary = fsck(space.mount.store)
    assert findings == [] and summary["harmless"] == 0
    assert summary["objects"] > 25 and summary["files"] >= 10 and summary["bytes"] == len(WORDS)
    done = promisefs("fsck", space.mount.store)
    assert re.fullmatch(r"\d+ objects, \d+ data files: nothing is wrong\n", done.stdout) and done.stderr == ""
    assert is_clean(space.mount.store, "--repair") and not (space.mount.store / "quarantine").exists()


def test_what_a_killed_daemon_leaves_is_no_damage(killed, copied):
    space = copied(killed)
    assert (space.mount.store / "catalog.db-wal").stat().st_size > 0
    findings, summary = fsck(space.mount.store)
    assert findings == [] and summary["harmless"] >= 4
    assert "which the next mount sees to" in promisefs("fsck", space.mount.store).stdout
    assert is_clean(space.mount.store, "--repair")
    space.mount.start()
    assert space.get("words") == WORDS and space.get("synced") == b"synced" and space.get("once") == b"once"
    assert not os.path.lexists(space / "draft") and check_store(space.mount) == []
    space.mount.stop()
    assert is_clean(space.mount.store)


def test_it_sees_what_the_tests_see(mnt):
    """What pfs.complaints says of a store in use, --online says, too: nothing."""
    fill_small(mnt)
    assert check_store(mnt.mount) == []
    assert is_clean(mnt.mount.store, "--online")


def fill_small(mnt):
    mnt.put("key", b"data")
    mnt.becomes("key", "ready")
    os.link(mnt / "key", mnt / "other")


WRITING = r"""
import itertools, os, sys
root, name = sys.argv[1:]
for n in itertools.count():
    path = f"{root}/{name}-{n % 20}"
    with open(path, "wb") as file:
        file.write(b"%d" % n * (n % 5000))
    if n % 3 == 0:
        os.rename(path, path + "r")
    if n % 7 == 0:
        os.unlink(path + "r" if n % 3 == 0 else path)
    if n == 10:
        print("on", flush=True)
"""


def test_online_while_others_write(own_mount_with_writers):
    """No false alarm, however much changes meanwhile."""
    for _ in range(3):
        assert is_clean(own_mount_with_writers.mount.store, "--online")


@pytest.fixture
def own_mount_with_writers(new_mount):
    mnt = new_mount()
    children = [subprocess.Popen([*PYTHON, "-c", WRITING, str(mnt.root), f"w{n}"], stdout=subprocess.PIPE)
                for n in range(4)]
    for child in children:
        assert child.stdout.readline() == b"on\n"
    yield mnt
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


# ---- damage to data --------------------------------------------------------------------------------------------------

def test_a_data_file_is_missing(filled, copied):
    space = copied(filled)
    data_file(space, "dir/deep/file").unlink()
    found_and_repaired(space, "lost", "dir/deep/file")
    assert state(space / "dir/deep/file") == "failed" and "lost" in os.getxattr(
        space / "dir/deep/file", "user.promisefs.error").decode()
    with fails(errno.EIO):
        space.get("dir/deep/file")
    space.put("dir/deep/file", b"anew")
    assert space.get("dir/deep/file") == b"anew" and space.get("words") == WORDS


def test_a_data_file_of_what_is_borrowed_is_missing(filled, copied):
    space = copied(filled)
    data_file(space, "borrowed").unlink()
    found_and_repaired(space, "lost", "borrowed", others={"handle", "counts"})
    assert space.handles("ref") == [] and space.handles("mut") == ["M"]
    space.put("borrowed", b"free again")
    assert space.get("borrowed") == b"free again"


def test_a_data_file_is_too_many(filled, copied):
    space = copied(filled)
    path = space.mount.store / "data/ab/00000000000fffab"
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o700)
    path.write_bytes(b"whose?")
    path.chmod(0o600)
    finding, = found_and_repaired(space, "unknown")
    assert finding["file"] == "00000000000fffab"
    files, index = quarantined(space)
    assert files == {"00000000000fffab": b"whose?"} and "00000000000fffab" in index and "promisefs put" in index


def test_among_the_data_files_is_something_else(filled, copied):
    space = copied(filled)
    (space.mount.store / "data/notes.txt").write_text("mine")
    found_and_repaired(space, "strange", others={"rights"})
    assert quarantined(space)[0] == {"notes.txt": b"mine"}


def test_a_draft_of_what_is_published(filled, copied):
    """The next mount would take it for the data, not yet moved."""
    space = copied(filled)
    path = space.mount.store / "drafts" / data_file(space, "words").name
    path.write_bytes(b"stale")
    path.chmod(0o600)
    finding, = found_and_repaired(space, "strange")
    assert finding["file"] == f"drafts/{path.name}" and quarantined(space)[0] == {path.name: b"stale"}
    assert space.get("words") == WORDS


def test_a_data_file_is_shorter(filled, copied):
    space = copied(filled)
    path = data_file(space, "big")
    os.truncate(path, 1000)
    finding, = found_and_repaired(space, "short", "big")
    assert finding["version"] == 2 and finding["file"] == path.name
    files, index = quarantined(space)
    assert files == {path.name: BIG[:1000]} and re.search(rf"^short\tbig\t\d+\t2\t{path.name}\t", index, re.M)
    with fails(errno.EIO):
        space.get("big")


def test_a_data_file_is_longer(filled, copied):
    space = copied(filled)
    path = data_file(space, "dir/other")
    with open(path, "ab") as file:
        file.write(b"tail")
    found_and_repaired(space, "long", "dir/other")
    assert space.get("dir/other") == b"other" and quarantined(space)[0] == {path.name: b"othertail"}


def test_data_has_changed(filled, copied):
    space = copied(filled)
    path = data_file(space, "words")
    with open(path, "r+b") as file:
        file.seek(2500)
        file.write(b"?")
    assert fsck(space.mount.store, "--quick")[0] == []
    finding, = found_and_repaired(space, "checksum")
    assert finding["key"] in ("words", "dir/link")
    assert len(quarantined(space)[0][path.name]) == len(WORDS)
    assert state(space / "words") == state(space / "dir/link") == "failed"
    space.put("words", WORDS)
    assert space.get("dir/link") == WORDS


def add_draft(space, number, data, sealed=0, fsynced=0):
    """As a daemon leaves it that is killed before a draft is published; the path of its file."""
    vid = ask(space, "select next from sequence where name = 'id'")
    path = space.mount.store / f"drafts/{vid:016x}"
    path.write_bytes(data)
    path.chmod(0o600)
    change(space, "update sequence set next = next + 1 where name = 'id'",
           f"insert into draft values ({number}, {vid}, {sealed}, {fsynced}, {len(data)}, {path.stat().st_mtime_ns})")
    return path


def damage_words(space, kind):
    path = data_file(space, "words")
    if kind == "lost":
        path.unlink()
    elif kind == "short":
        os.truncate(path, 1000)
    else:
        path.write_bytes(bytes(len(WORDS)))


@pytest.mark.parametrize("known", ["sealed", "fsynced"])
@pytest.mark.parametrize("kind", ["lost", "short", "checksum"])
def test_what_is_damaged_has_a_draft_that_counts(filled, copied, kind, known):
    """It was closed, or fsynced: the next mount publishes it."""
    space = copied(filled)
    damage_words(space, kind)
    add_draft(space, object_of(space, "words")[0], b"newer", **{known: 1})
    found_and_repaired(space, kind)
    assert space.get("words") == space.get("dir/link") == b"newer"


def test_what_is_damaged_has_a_torn_draft(filled, copied):
    space = copied(filled)
    damage_words(space, "lost")
    draft = add_draft(space, object_of(space, "words")[0], b"torn")
    found_and_repaired(space, "lost")
    assert quarantined(space)[0] == {draft.name: b"torn"} and state(space / "words") == "failed"


def test_the_object_of_a_draft_is_lost(filled, copied):
    space = copied(filled)
    number, _ = object_of(space, "fifo")
    draft = add_draft(space, number, b"closed", sealed=1)
    change(space, f"delete from object where id = {number}")
    findings = found_and_repaired(space, "orphan", others={"dangling"})
    assert draft.name in [finding["file"] for finding in findings if finding["kind"] == "orphan"]
    assert quarantined(space)[0] == {draft.name: b"closed"}


def test_all_data_is_lost(filled, copied):
    space = copied(filled)
    shutil.rmtree(space.mount.store / "data")
    findings, _ = fsck(space.mount.store, status=4)
    assert [finding["key"] for finding in findings] == ["data"]
    fsck(space.mount.store, "--repair", status=1)
    assert is_clean(space.mount.store)
    space.mount.start()
    assert state(space / "words") == "failed" and os.readlink(space / "symlink") == "words"


# ---- damage to the catalog -------------------------------------------------------------------------------------------

def lost_name(space, number):
    return space / f"lost+found/#{number}"


def test_an_object_has_no_name(filled, copied):
    space = copied(filled)
    number, _ = object_of(space, "big")
    change(space, f"delete from dentry where object = {number}")
    found_and_repaired(space, "nameless", f"#{number}")
    with open(lost_name(space, number), "rb") as file:
        assert file.read() == BIG + b"more"
    assert stat.S_IMODE(os.stat(space / "lost+found").st_mode) == 0o700


def test_a_directory_has_no_name(filled, copied):
    space = copied(filled)
    number, _ = object_of(space, "dir")
    change(space, f"delete from dentry where object = {number}")
    found_and_repaired(space, "nameless", f"#{number}", others={"links"})
    with open(f"{lost_name(space, number)}/deep/file", "rb") as file:
        assert file.read() == b"deep"


def test_lost_and_found_is_taken(filled, copied):
    space = copied(filled)
    number, _ = object_of(space, "big")
    change(space, f"update dentry set name = cast('lost+found' as blob) where object = {object_of(space, 'fifo')[0]}",
           f"delete from dentry where object = {number}")
    fsck(space.mount.store, "--repair", status=1)
    assert is_clean(space.mount.store)


def test_a_name_means_nothing(filled, copied):
    space = copied(filled)
    number, _ = object_of(space, "fifo")
    change(space, f"delete from object where id = {number}")
    found_and_repaired(space, "dangling", "fifo")
    assert "fifo" not in os.listdir(space.root)
    assert "fifo" in quarantined(space)[1]


def test_a_row_of_an_object_is_lost(filled, copied):
    """Its name, its attributes, its place in a lifetime, its borrows and its data are left without it."""
    space = copied(filled)
    number, vid = object_of(space, "dir/other")
    change(space, f"delete from object where id = {number}",
           f"insert into attribute values ({number}, 'user.x', x'00')", f"insert into lease values ({number}, 1, null, 1)",
           f"insert into draft values ({number}, 999, 0, 0, 0, 0)")
    findings = found_and_repaired(space, "dangling", "dir/other", others={"member", "orphan", "unknown", "left file"})
    assert {finding["kind"] for finding in findings} == {"dangling", "member", "orphan", "unknown"}
    assert sum(finding["kind"] == "orphan" for finding in findings) == 3
    assert quarantined(space)[0] == {f"{vid:016x}": b"other"}
    assert os.listdir(space.mount.control / "lifetimes/L") == []


def test_a_directory_is_lost(filled, copied):
    """What was in it keeps its names."""
    space = copied(filled)
    number, _ = object_of(space, "dir")
    change(space, f"delete from object where id = {number}")
    found_and_repaired(space, "homeless", others={"dangling", "links"})
    with open(f"{lost_name(space, number)}/deep/file", "rb") as file:
        assert file.read() == b"deep"


def test_a_name_in_what_is_no_directory(filled, copied):
    space = copied(filled)
    big, other = object_of(space, "big")[0], object_of(space, "symlink")[0]
    change(space, f"update dentry set parent = {other} where object = {big}")
    found_and_repaired(space, "misplaced", others={"nameless"})
    assert os.path.exists(lost_name(space, big))


def test_a_name_with_a_slash(filled, copied):
    space = copied(filled)
    big, _ = object_of(space, "big")
    change(space, f"update dentry set name = cast('a/b' as blob) where object = {big}")
    found_and_repaired(space, "name", "a/b", others={"nameless"})
    assert os.path.exists(lost_name(space, big))


def test_a_directory_with_two_names(filled, copied):
    space = copied(filled)
    number, _ = object_of(space, "empty")
    change(space, f"insert into dentry values (1, 77, cast('twin' as blob), {number})")
    found_and_repaired(space, "directory")
    assert len({"empty", "twin"} & set(os.listdir(space.root))) == 1


def test_directories_inside_of_each_other(filled, copied):
    space = copied(filled)
    outer, inner = object_of(space, "dir/deep")[0], object_of(space, "dir/deep/er")[0]
    change(space, f"update dentry set parent = {inner} where object = {outer}")
    found_and_repaired(space, "circle", others={"links"})
    deep = [folder for folder, _, names in os.walk(space / "lost+found") if "file" in names]
    assert len(deep) == 1


@pytest.mark.parametrize("path, wrong", [("words", 1), ("words", 7), ("big", 0), ("dir", 2)])
def test_wrong_number_of_links(filled, copied, path, wrong):
    space = copied(filled)
    right = ask(space, f"select nlink from object where id = {object_of(space, path)[0]}")
    change(space, f"update object set nlink = {wrong} where id = {object_of(space, path)[0]}")
    found_and_repaired(space, "links")
    assert os.stat(space / path).st_nlink == right


@pytest.mark.parametrize("column", ["object", "lifetime"])
def test_a_member_of_a_lifetime_dangles(filled, copied, column):
    space = copied(filled)
    change(space, f"update member set {column} = 123456")
    found_and_repaired(space, "member")
    assert os.listdir(space.mount.control / "lifetimes/L") == [] and space.get("dir/other") == b"other"


def test_a_borrow_dangles(filled, copied):
    space = copied(filled)
    change(space, f"update borrow set object = 123456 where object = {object_of(space, 'lent')[0]}")
    found_and_repaired(space, "handle", ".promisefs/mut/M", others={"counts"})
    assert space.handles("mut") == [] and space.get("lent") == b"lent"


def test_a_handle_borrows_nothing(filled, copied):
    space = copied(filled)
    change(space, f"delete from borrow where object = {object_of(space, 'lent')[0]}")
    found_and_repaired(space, "handle", ".promisefs/mut/M", others={"counts"})
    assert space.get("lent") == b"lent"


def test_a_borrow_without_a_handle(filled, copied):
    space = copied(filled)
    handle = ask(space, f"select handle from borrow where object = {object_of(space, 'lent')[0]}")
    change(space, f"delete from dentry where object = {handle}", f"delete from object where id = {handle}")
    found_and_repaired(space, "borrow", others={"counts"})
    assert space.get("lent") == b"lent"


def test_a_handle_without_a_name(filled, copied):
    space = copied(filled)
    handle = ask(space, f"select handle from borrow where object = {object_of(space, 'lent')[0]}")
    change(space, f"delete from dentry where object = {handle}")
    found_and_repaired(space, "handle", others={"counts"})
    assert space.get("lent") == b"lent"


def test_borrowed_to_write_and_to_read(filled, copied):
    space = copied(filled)
    change(space, "update borrow set mut = 1 where handle = (select max(handle) from borrow where not mut)")
    found_and_repaired(space, "handle", others={"counts"})
    assert len(space.handles("ref")) == 1 and space.get("borrowed") == b"borrowed"


@pytest.mark.parametrize("columns", ["borrows = 0", "borrows = -1", "queued = 3"])
def test_wrong_number_of_borrows(filled, copied, columns):
    space = copied(filled)
    change(space, f"update object set {columns} where id = {object_of(space, 'borrowed')[0]}")
    found_and_repaired(space, "counts", "borrowed")
    with fails(errno.EBUSY):
        os.unlink(space / "borrowed")
    for name in ("one", "two"):
        os.unlink(space.handle("ref", name))
    os.unlink(space / "borrowed")


@pytest.mark.parametrize("path, columns", [("words", "version = 0"), ("future", "version = 3"), ("future", "error = 5"),
                                           ("failing", "error = 0"), ("symlink", "state = 3"), ("future", "state = 2")])
def test_fields_that_contradict_the_state(filled, copied, path, columns):
    space = copied(filled)
    change(space, f"update object set {columns} where id = {object_of(space, path)[0]}")
    found_and_repaired(space, "state", others={"lost"})
    assert space.get("words") == WORDS and os.readlink(space / "symlink") == "words"


def test_two_objects_with_one_data_file(filled, copied):
    space = copied(filled)
    change(space, f"update object set vid = {object_of(space, 'lent')[1]}, size = 4"
                  f" where id = {object_of(space, 'leased')[0]}")
    found_and_repaired(space, "twice", others={"unknown", "handle", "counts"})
    assert sorted([state(space / "lent"), state(space / "leased")]) == ["failed", "ready"]


def test_data_that_is_needed_was_to_be_removed(filled, copied):
    space = copied(filled)
    change(space, f"insert into garbage values ({object_of(space, 'words')[1]})")
    found_and_repaired(space, "garbage")
    assert space.get("words") == WORDS


def test_numbers_would_be_given_out_twice(filled, copied):
    space = copied(filled)
    change(space, "update sequence set next = 16")
    found_and_repaired(space, "numbers")
    space.put("new", b"new")
    assert space.get("new") == b"new" and space.get("words") == WORDS


def test_numbers_would_be_given_out_twice_later(filled, copied):
    """And nothing else is wrong, and opening the catalog does not happen to mend it."""
    space = copied(filled)
    change(space, "insert into garbage values (5000000000)", "update sequence set next = 16")
    found_and_repaired(space, "numbers")


def test_a_root_is_missing(filled, copied):
    space = copied(filled)
    change(space, "delete from object where id = 3")
    found_and_repaired(space, "root", others={"links"})
    assert os.listdir(space.mount.control / "lifetimes") == ["L"]


def test_much_is_wrong_at_once(filled, copied):
    space = copied(filled)
    change(space, "delete from object where id % 3 = 0 and id > 16", "delete from dentry where cookie % 5 = 0",
           "update object set nlink = 9", "update object set vid = vid + 1 where id % 7 = 0", "delete from borrow")
    fsck(space.mount.store, "--repair", status=1)
    assert is_clean(space.mount.store)
    space.mount.start()
    assert check_store(space.mount) == []
    for folder, _, names in os.walk(space.root):
        for name in names:
            os.lstat(os.path.join(folder, name))


# ---- damage to the file of the catalog -------------------------------------------------------------------------------

def pages_of(space, table):
    """Numbers of the pages of a table, leaves last."""
    base = catalog(space)
    base.execute("pragma wal_checkpoint(truncate)")
    size = base.execute("pragma page_size").fetchone()[0]
    root = base.execute("select rootpage from sqlite_schema where name = ?", (table,)).fetchone()[0]
    base.close()
    return root, size


def smash(space, page, size):
    with open(space.mount.store / "catalog.db", "r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * 200)


@pytest.fixture(scope="module")
def many(made):
    def prepare(mnt):
        for number in range(600):
            mnt.put(f"key-{number}", b"%d" % number)
        mnt.becomes("key-599", "ready")
    return made("many", prepare)


@pytest.mark.parametrize("table", ["object_version", "dentry_object", "event", "attribute"])
def test_a_page_that_holds_no_objects_is_damaged(many, copied, table):
    """Nothing is lost but what was on it."""
    space = copied(many)
    smash(space, *pages_of(space, table))
    assert "catalog" in {finding["kind"] for finding in fsck(space.mount.store, status=4)[0]}
    fsck(space.mount.store, "--repair", status=1)
    assert is_clean(space.mount.store)
    assert (next((space.mount.store / "quarantine").iterdir()) / "catalog.db").stat().st_size > 0
    space.mount.start()
    assert all(space.get(f"key-{number}") == b"%d" % number for number in range(600))
    space.put("new", b"new")


def leaves_of(space, table):
    base = catalog(space)
    try:
        rows = base.execute("select pageno from dbstat where name = ? and pagetype = 'leaf'", (table,)).fetchall()
    except sqlite3.OperationalError:
        pytest.skip("this SQLite has no table dbstat, so nobody knows which page is which")
    finally:
        base.close()
    return [row[0] for row in rows]


@pytest.mark.parametrize("table", ["object", "dentry"])
def test_a_page_of_objects_or_names_is_damaged(many, copied, table):
    """Some are lost; of all others, and of all data, nothing is."""
    space = copied(many)
    _, size = pages_of(space, table)
    leaves = leaves_of(space, table)
    smash(space, leaves[len(leaves) // 2], size)
    fsck(space.mount.store, status=4)
    fsck(space.mount.store, "--repair", status=1)
    assert is_clean(space.mount.store)
    space.mount.start()
    there = [number for number in range(600) if os.path.lexists(space / f"key-{number}")]
    assert 450 < len(there) < 600 and all(space.get(f"key-{number}") == b"%d" % number for number in there)
    files, _ = quarantined(space)
    kept = {data for name, data in files.items() if not name.startswith("catalog.db")}
    if os.path.isdir(space / "lost+found"):
        kept |= {space.get(f"lost+found/{name}") for name in os.listdir(space / "lost+found")}
    assert {b"%d" % number for number in range(600) if number not in there} == kept


@pytest.mark.parametrize("damage", ["missing", "only its log", "empty", "noise", "first page"])
def test_the_catalog_is_gone(filled, copied, damage):
    """The data files are all that is left, and stay, out of the way."""
    space = copied(filled)
    path = space.mount.store / "catalog.db"
    draft = space.mount.store / "drafts/0000000000abcdef"
    draft.write_bytes(b"closed, perhaps")
    draft.chmod(0o600)
    data = {entry.read_bytes() for entry in (space.mount.store / "data").glob("*/*")} | {b"closed, perhaps"}
    whole = path.read_bytes()
    if damage in ("missing", "only its log"):
        path.rename(f"{path}-wal") if damage == "only its log" else path.unlink()
    else:
        path.write_bytes({"empty": b"", "noise": b"noise" * 3000, "first page": bytes(4096) + whole[4096:]}[damage])
    findings, _ = fsck(space.mount.store, status=4)
    assert {finding["key"] for finding in findings} == {"catalog.db"}
    fsck(space.mount.store, "--repair", status=1)
    assert is_clean(space.mount.store)
    files, index = quarantined(space)
    assert data <= set(files.values()) and "catalog.db" in index
    space.mount.start()
    assert os.listdir(space.root) == []
    space.put("new", b"new")
    assert check_store(space.mount) == []


def test_a_repair_is_killed_before_the_new_catalog_has_its_place(filled, copied):
    """The damaged one is out of the way, its log is not."""
    space = copied(filled)
    store = space.mount.store
    change(space, "pragma wal_checkpoint(truncate)", "pragma journal_mode = delete")
    (store / "catalog.db").rename(store / "catalog.db.salvaged")
    (store / "catalog.db-wal").write_bytes(b"old")
    (store / "repairing").touch()
    fsck(store, status=4)
    fsck(store, "--repair", status=1)
    assert is_clean(store) and quarantined(space)[0] == {"catalog.db-wal": b"old"}
    assert not {"catalog.db.salvaged", "repairing"} & set(os.listdir(store))
    space.mount.start()
    assert space.get("words") == WORDS and space.get("dir/deep/file") == b"deep"


def test_a_repair_is_killed_before_files_are_set_aside(filled, copied):
    """Until it has come to its end nothing else may take them for garbage."""
    space = copied(filled)
    store = space.mount.store
    (store / "repairing").touch()
    draft = store / "drafts/0000000000abcdef"
    draft.write_bytes(b"closed, perhaps")
    draft.chmod(0o600)
    for words in (["gc", store], ["backup", store, space.mount.base / "copy"], ["mount", store, space.mount.root]):
        done = promisefs(*words)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "promisefs fsck --repair" in done.stderr
    findings, _ = fsck(store, status=4)
    assert {finding["kind"] for finding in findings} == {"repair", "unknown"}
    fsck(store, "--repair", status=1)
    assert is_clean(store) and quarantined(space)[0] == {draft.name: b"closed, perhaps"}
    space.mount.start()
    assert space.get("words") == WORDS


def test_nothing_can_be_set_aside(filled, copied):
    """Then nothing is changed."""
    space = copied(filled)
    store = space.mount.store
    (store / "quarantine").write_text("mine")
    (store / "data").chmod(0o755)
    data_file(space, "big").unlink()
    done = promisefs("fsck", "--repair", store)
    assert done.returncode == 8 and done.stderr.count("\n") == 1 and "quarantine" in done.stderr
    assert stat.S_IMODE((store / "data").stat().st_mode) == 0o755 and (store / "quarantine").read_text() == "mine"
    (store / "quarantine").unlink()
    assert {finding["kind"] for finding in without_log(fsck(store, status=4)[0])} == {"rights", "lost"}


def test_rights_are_wrong(filled, copied):
    space = copied(filled)
    store = space.mount.store
    (store / "catalog.db").chmod(0o644)
    (store / "data").chmod(0o755)
    data_file(space, "words").chmod(0o666)
    if os.geteuid() == 0:
        os.chown(data_file(space, "big"), 1234, 1234)
    findings = without_log(found_and_repaired(space, "rights"))
    assert {"catalog.db", "data"} <= {finding["key"] for finding in findings}
    assert len(findings) == (4 if os.geteuid() == 0 else 3)
    assert data_file(space, "big").stat().st_uid == os.geteuid() and stat.S_IMODE((store / "data").stat().st_mode) == 0o700


# ---- how it is used --------------------------------------------------------------------------------------------------

def test_a_mounted_store_is_not_touched(own_space):
    store = own_space.mount.store
    own_space.put("key", b"data")
    for words in (["fsck"], ["fsck", "--repair"], ["gc"], ["gc", "--dry-run"]):
        done = promisefs(*words, store)
        assert done.returncode == (8 if words[0] == "fsck" else 1) and done.stdout == ""
        line = f"promisefs {words[0]}: {store}: mounted by pid {own_space.mount.pid} at {own_space.mount.root}; unmount it"
        assert done.stderr.startswith(line) and done.stderr.count("\n") == 1
    assert own_space.get("key") == b"data"


@pytest.fixture
def own_space(new_mount):
    return new_mount()


def test_misuse(tmp_path, own_space):
    (tmp_path / "plain").write_text("")
    for word in (tmp_path, tmp_path / "plain", tmp_path / "nothing"):
        done = promisefs("fsck", word)
        assert done.returncode == 8 and done.stderr.startswith(f"promisefs fsck: {word}: ") and done.stderr.count("\n") == 1
    assert promisefs("fsck", "--online", "--repair", own_space.mount.store).returncode == 2
    assert promisefs("fsck").returncode == promisefs("gc", "--events", "many", tmp_path).returncode == 2
    assert os.listdir(tmp_path) == ["plain"]


def test_damage_is_seen_while_it_is_mounted(filled, copied):
    space = copied(filled)
    data_file(space, "big").unlink()
    space.mount.start()
    findings, _ = fsck(space.mount.store, "--online", status=4)
    assert [(finding["kind"], finding["key"]) for finding in findings] == [("lost", "big")]
    assert not (space.mount.store / "quarantine").exists()


def test_a_store_that_is_checked_cannot_be_mounted(filled, copied):
    space = copied(filled)
    (space.mount.store / "repairing").touch()
    with open(space.mount.store / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("promisefs fsck, pid 12345")
        lock.flush()
        done = promisefs("mount", space.mount.store, space.mount.root)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert f"{space.mount.store}: in use by promisefs fsck, pid 12345; wait" in done.stderr
        done = promisefs("fsck", "--online", space.mount.store)
        assert done.returncode == 8 and "in use by promisefs fsck, pid 12345; wait" in done.stderr


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_store_that_has_lost_its_catalog_cannot_be_mounted(filled, copied, damage):
    """With a new one its data would be of no use to anybody, and its drafts would go."""
    space = copied(filled)
    store = space.mount.store
    (store / "catalog.db").unlink()
    for name in ("catalog.db-wal", "catalog.db-shm"):
        (store / name).unlink(missing_ok=True)
    if damage == "empty":
        (store / "catalog.db").touch()
    else:
        (store / "quarantine").mkdir()
    done = promisefs("mount", store, space.mount.root)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"promisefs fsck --repair {store}" in done.stderr
    fsck(store, "--repair", status=1)
    space.mount.start()
    assert os.listdir(space.root) == []


def test_a_directory_of_somebody_is_no_store(new_mount):
    space = new_mount(start=False)
    (space.mount.store / "data").mkdir(parents=True)
    (space.mount.store / "data/mine").write_text("mine")
    done = promisefs("mount", space.mount.store, space.mount.root)
    assert done.returncode == 1 and "not a store" in done.stderr and "fsck" not in done.stderr
    assert os.listdir(space.mount.store) == ["data"]


def test_a_directory_that_never_was_a_store_can_be_mounted(new_mount):
    space = new_mount(start=False)
    (space.mount.store / "data/ab").mkdir(parents=True)
    (space.mount.store / "drafts").mkdir()
    (space.mount.store / "catalog.db").touch()
    space.mount.start()
    space.put("key", b"data")
    assert space.get("key") == b"data"


@pytest.fixture
def foreign(filled, copied):
    """A store that belongs to somebody else, who may have put anything there."""
    if not IS_ROOT:
        pytest.skip("only root can look at what belongs to others")
    space = copied(filled)
    chown_all(space.mount.store)
    return space


def chown_all(store):
    for path in (store, *store.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def owners(store):
    return {path.lstat().st_uid for path in (store, *store.rglob("*"))}


def test_root_repairs_a_store_of_somebody_else_as_he_could(foreign, tmp_path):
    store = foreign.mount.store
    target = tmp_path / "target"
    target.mkdir(0o700)
    (store / "quarantine").symlink_to(target)
    data_file(foreign, "big").unlink()
    data = data_file(foreign, "words")
    os.truncate(data, 10)
    chown_all(store)
    assert promisefs("fsck", "--repair", store).returncode == 8 and os.listdir(target) == []
    (store / "quarantine").unlink()
    fsck(store, "--repair", status=1)
    assert owners(store) == {NOBODY} and quarantined(foreign)[0] == {data.name: WORDS[:10]}
    gc(store)
    assert owners(store) == {NOBODY} and is_clean(store)
    os.chown(store / "catalog.db", 0, 0)
    done = promisefs("fsck", store)
    assert done.returncode == 8 and done.stderr.count("\n") == 1 and "chown" in done.stderr


# ---- gc --------------------------------------------------------------------------------------------------------------

def gc(store, *options):
    done = promisefs("gc", "--json", *options, store)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_gc_frees_what_nobody_needs(killed, copied):
    space = copied(killed)
    store = space.mount.store
    for name in ("data/00/000000000fffff00", "drafts/000000000fffff01", "drafts/000000000fffff02.private"):
        (store / name).parent.mkdir(mode=0o700, exist_ok=True)
        (store / name).write_bytes(bytes(1 << 20))
    before = {str(path): path.stat().st_size for path in store.rglob("*") if path.name != "catalog.db-shm"}
    would = gc(store, "--dry-run")
    assert {str(path): path.stat().st_size for path in store.rglob("*")
            if path.name not in ("catalog.db-shm", "lock")} == {
                path: size for path, size in before.items() if not path.endswith("/lock")}
    assert would["dry_run"] and would["unknown"] >= 2 and would["drafts"] >= 3 and would["data_bytes"] >= 2 << 20
    assert would["set_aside"] == 1 and not (store / "quarantine").exists()
    did = gc(store, "--events", "5")
    assert did["data_bytes"] >= 2 << 20 and did["unknown"] >= 2 and did["events"] > 0 and did["catalog_bytes"] > 0
    assert ask(space, "select count(*) from event") == 5 and ask(space, "select count(*) from draft") == 0
    assert os.listdir(store / "drafts") == [] and not (store / "data/00/000000000fffff00").exists()
    files, index = quarantined(space)  # it may be what a repair that was killed has not yet set aside
    assert did["set_aside"] == 1 and files == {"000000000fffff00": bytes(1 << 20)} and "000000000fffff00" in index
    findings, summary = fsck(store)
    assert findings == [] and summary["harmless"] == 0
    assert gc(store)["data_bytes"] == 0
    space.mount.start()
    assert space.get("words") == WORDS and space.get("synced") == b"synced" and check_store(space.mount) == []


@pytest.mark.parametrize("damage", ["missing", "empty", "damaged", "row", "data"])
def test_gc_removes_nothing_from_a_store_that_is_damaged(filled, copied, damage):
    """What nothing speaks of may be what a lost record spoke of."""
    space = copied(filled)
    path = space.mount.store / "catalog.db"
    number, _ = object_of(space, "big")
    if damage == "row":
        change(space, f"delete from object where id = {number}")
    elif damage == "data":
        data_file(space, "words").unlink()
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"noise" * 3000)
    before = {entry.name: entry.read_bytes() for entry in (space.mount.store / "data").glob("*/*")}
    for options in ((), ("--dry-run",)):
        done = promisefs("gc", *options, space.mount.store)
        assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
        assert "promisefs fsck" in done.stderr
    assert {entry.name: entry.read_bytes() for entry in (space.mount.store / "data").glob("*/*")} == before
    assert path.exists() == (damage != "missing")


def test_gc_settles_futures_as_the_mount_would(killed, copied):
    for options, wanted in (([], "failed"), (["-o", "on-producer-death=wait"], "pending")):
        space = copied(killed)
        gc(space.mount.store, *options)
        number = {"failed": 4, "pending": 1}[wanted]
        assert ask(space, f"select state from object where id = {object_of(space, 'future')[0]}") == number
        space.mount.start()
        assert state(space / "future") == wanted

"""Section 4 of the design: lifetimes, which end their members with them, and leases, which end things by themselves."""
import contextlib
import errno
import os
import random
import re
import sqlite3
import stat
import statistics
import time
from datetime import datetime, timedelta, timezone

import pytest

from pfs import (NOBODY, RENAME_EXCHANGE, attr, check_store, eventually, fails, name_of, opened, pattern, readable,
                 renameat2, run, sanitized, set_attr, state)

LATER = "2040-01-01T00:00:00Z"
DENIED = (errno.EPERM, errno.EACCES)


def scope(mnt, name="L"):
    """The path of a lifetime of this test: all lifetimes of a mount are in one directory."""
    return str(mnt.mount.control / "lifetimes" / f"{name}{mnt.prefix}")


def begin(mnt, *keys, name="L"):
    """A new lifetime with these keys, each under its own name."""
    os.mkdir(scope(mnt, name))
    for key in keys:
        os.link(mnt / key, f"{scope(mnt, name)}/{os.path.basename(key)}")
    return scope(mnt, name)


def put_all(mnt, *keys):
    for key in keys:
        mnt.put(key, key.encode())
    for key in keys:
        mnt.becomes(key, "ready")


def gone(mnt, *keys):
    return not any(os.path.lexists(mnt / key) for key in keys)


def vanish(mnt, *keys):
    """Wait until they are gone: what the kernel knows of other names of an evicted object lives a moment longer."""
    eventually(lambda: gone(mnt, *keys), what=f"{len(keys)} keys vanish")


def seconds(text):
    return datetime.fromisoformat(text).timestamp()


def left(path):
    """Seconds until a lease expires."""
    return seconds(attr(path, "lease")) - time.time()


def is_due(path, when):
    """It has a lease until then, as near as clocks can be compared."""
    return abs(seconds(attr(path, "lease")) - when) < 0.001


def after(mnt, milliseconds):
    """Wait until a lease that is given now has run for so long: what was due before it has happened."""
    set_attr(mnt.put("witness", b""), "lease", f"{milliseconds}ms")
    vanish(mnt, "witness")


def soon(delay, zone=timezone.utc):
    return (datetime.now(zone) + timedelta(seconds=delay)).isoformat()


# ---- members ---------------------------------------------------------------------------------------------------------

@pytest.mark.core
def test_4_add_list_read_and_end(mnt):
    put_all(mnt, "a", "b", "other")
    path = begin(mnt, "a", "b")
    assert sorted(os.listdir(path)) == ["a", "b"] and stat.S_ISDIR(os.stat(path).st_mode)
    assert os.path.basename(path) in os.listdir(os.path.dirname(path))
    with open(f"{path}/a", "rb") as file:
        assert file.read() == b"a"
    assert os.stat(f"{path}/a").st_ino == os.stat(mnt / "a").st_ino
    os.rmdir(path)
    vanish(mnt, "a", "b")
    assert os.listdir(mnt.root) == ["other"] and not os.path.lexists(path)
    assert os.path.basename(path) not in os.listdir(os.path.dirname(path))


@pytest.mark.core
def test_4_a_member_is_no_hard_link(mnt):
    put_all(mnt, "key")
    path = begin(mnt, "key")
    os.link(mnt / "key", f"{path}/again")
    assert os.stat(mnt / "key").st_nlink == 1 == os.stat(f"{path}/again").st_nlink
    os.unlink(mnt / "key")
    assert os.listdir(path) == []
    os.rmdir(path)


@pytest.mark.core
def test_4_everything_with_the_tools_of_a_shell(mnt):
    script = r"""
        set -e
        cd "$1"; L=$2
        mkdir "$L"
        for key in a b c d; do echo $key > $key; done
        ln a b c d "$L/"
        test "$(cat "$L/b")" = b
        test "$(ls "$L" | tr '\n' ' ')" = "a b c d "
        rm "$L/a"; test "$(echo *)" = "b c d"
        rm b; test "$(ls "$L" | tr '\n' ' ')" = "c d "
        rm -r "$L"; test "$(echo *)" = "*"; test ! -e "$L"
        echo e > e; mkdir "$L"; ln e "$L/"; rmdir "$L"; test "$(echo *)" = "*"
        echo f > f; mkdir "$L"; ln f "$L/"; touch -d '1 second' "$L"
        echo g > g
        if command -v setfattr > /dev/null; then setfattr -n user.promisefs.lease -v 1s g; else rm g; fi
    """
    done = run("sh", "-c", script, "sh", mnt.root, scope(mnt))
    assert done.returncode == 0, done.stderr
    vanish(mnt, "f", "g")
    assert not os.path.exists(scope(mnt)) and os.listdir(mnt.root) == []


@pytest.mark.core
def test_4_removing_a_member_evicts_it(mnt):
    put_all(mnt, "a", "b")
    path = begin(mnt, "a", "b")
    os.unlink(f"{path}/a")
    vanish(mnt, "a")
    assert os.listdir(path) == ["b"] and mnt.get("b") == b"b"
    os.rmdir(path)


@pytest.mark.core
@pytest.mark.parametrize("how", ["first", "sooner", "later"])
def test_what_was_known_is_gone_when_its_lease_is(mnt, how):
    """The names were looked up before their lifetime had this lease."""
    keys = [mnt / f"key{n}" for n in range(900)]
    os.mkdir(scope(mnt))
    for n, key in enumerate(keys):
        mnt.put(f"key{n}")
        os.link(key, f"{scope(mnt)}/key{n}")
    if how != "first":
        set_attr(scope(mnt), "lease", {"sooner": "1h", "later": "500ms"}[how])
    assert all(os.path.lexists(key) for key in keys)
    end = time.time() + 1
    os.utime(scope(mnt), (end, end))
    if how == "later":
        eventually(lambda: time.time() > end - 0.3, 5)
        assert all(os.path.lexists(key) for key in keys) or time.time() > end
    eventually(lambda: time.time() > end, 5)
    assert [key for key in reversed(keys) if os.path.lexists(key)] == []


@pytest.mark.parametrize("how", ["end", "remove the member", "lease of the lifetime", "lease of the file"])
def test_4_all_keys_of_a_member_go(mnt, how):
    put_all(mnt, "key")
    os.mkdir(mnt / "dir")
    for link in ("second", "dir/third"):
        os.link(mnt / "key", mnt / link)
    path = begin(mnt, "key")
    {"end": lambda: os.rmdir(path), "remove the member": lambda: os.unlink(f"{path}/key"),
     "lease of the lifetime": lambda: set_attr(path, "lease", "100ms"),
     "lease of the file": lambda: set_attr(mnt / "second", "lease", "100ms")}[how]()
    vanish(mnt, "key", "second", "dir/third")
    assert not os.path.lexists(f"{path}/key")


def test_4_one_of_several_keys_may_go(mnt):
    put_all(mnt, "key")
    os.link(mnt / "key", mnt / "second")
    path = begin(mnt, "key")
    os.unlink(mnt / "key")
    assert os.listdir(path) == ["key"] and mnt.get("second") == b"key"
    os.rmdir(path)
    vanish(mnt, "second")


@pytest.mark.core
def test_4_the_first_of_two_lifetimes_wins(mnt):
    put_all(mnt, "shared", "only-b")
    a, b = begin(mnt, "shared", name="A"), begin(mnt, "shared", "only-b", name="B")
    assert attr(mnt / "shared", "lifetimes").split("/") == [os.path.basename(a), os.path.basename(b)]
    assert attr(mnt / "only-b", "lifetimes") == os.path.basename(b)
    os.rmdir(a)
    vanish(mnt, "shared")
    assert os.listdir(b) == ["only-b"]
    os.rmdir(b)
    vanish(mnt, "only-b")


def test_4_the_names_of_the_lifetimes_of_an_object(mnt):
    put_all(mnt, "key")
    assert attr(mnt / "key", "lifetimes") is None
    paths = [begin(mnt, "key", name=f"{n}-") for n in range(5)]
    assert set(attr(mnt / "key", "lifetimes").split("/")) == {os.path.basename(path) for path in paths}
    os.rename(paths[0], paths[0] + "-renamed")
    assert f"{os.path.basename(paths[0])}-renamed" in attr(mnt / "key", "lifetimes").split("/")
    with pytest.raises(OSError):
        set_attr(mnt / "key", "lifetimes", "mine")
    assert not [name for name in os.listxattr(mnt / "key") if "promisefs" in name]
    os.unlink(mnt / "key")
    for path in [paths[0] + "-renamed", *paths[1:]]:
        assert os.listdir(path) == []
        os.rmdir(path)


def test_4_a_renamed_key_stays_a_member(mnt):
    put_all(mnt, "key")
    path = begin(mnt, "key")
    os.mkdir(mnt / "dir")
    os.rename(mnt / "key", mnt / "dir/renamed")
    os.rename(mnt / "dir", mnt / "moved")
    assert os.listdir(path) == ["key"]
    os.rmdir(path)
    assert os.listdir(mnt / "moved") == []


def test_4_a_new_version_stays_a_member_and_what_is_renamed_over_it_does_not(mnt):
    put_all(mnt, "a", "b", "new")
    path = begin(mnt, "a", "b")
    mnt.put("a", b"next version")
    mnt.versions("a", 2)
    os.rename(mnt / "new", mnt / "b")
    assert os.listdir(path) == ["a"] and attr(mnt / "b", "lifetimes") is None
    os.rmdir(path)
    assert os.listdir(mnt.root) == ["b"] and mnt.get("b") == b"new"


def test_4_writing_through_a_member_replaces_the_object(mnt):
    put_all(mnt, "key")
    path = begin(mnt, "key")
    mnt.worker().write_path(f"{path}/key", b"through the lifetime", os.O_WRONLY | os.O_TRUNC)
    mnt.versions("key", 2)
    assert mnt.get("key") == b"through the lifetime" and os.listdir(path) == ["key"]
    os.rmdir(path)
    vanish(mnt, "key")


@pytest.mark.parametrize("name", ["n" * 255, "ünïcode", "\udcff-bytes", "new\nline", ".hidden", "self", ".promisefs"])
def test_4_names_of_members(mnt, name):
    put_all(mnt, "key")
    path = begin(mnt)
    os.link(mnt / "key", f"{path}/{name}")
    assert os.listdir(path) == [name] and os.path.exists(f"{path}/{name}")
    os.rmdir(path)
    vanish(mnt, "key")


@pytest.mark.core
@pytest.mark.parametrize("make", [lambda path: os.symlink("target", path), os.mkfifo], ids=["symlink", "fifo"])
def test_4_whatever_has_a_key_can_be_a_member(mnt, make):
    make(mnt / "key")
    path = begin(mnt, "key")
    assert stat.S_IFMT(os.lstat(f"{path}/key").st_mode) == stat.S_IFMT(os.lstat(mnt / "key").st_mode)
    os.rmdir(path)
    vanish(mnt, "key")


REFUSED = {
    "the name is taken": (lambda m, p: os.link(m / "other", p + "/key"), errno.EEXIST),
    "twice under one name": (lambda m, p: os.link(m / "key", p + "/key"), errno.EEXIST),
    "a directory": (lambda m, p: os.link(m / "dir", p + "/dir"), errno.EPERM),
    "a lifetime": (lambda m, p: os.link(p, p + "/self"), errno.EPERM),
    "a control file": (lambda m, p: os.link(m.mount.control / "README", p + "/README"), errno.EPERM),
    "the name is too long": (lambda m, p: os.link(m / "other", p + "/" + "n" * 256), errno.ENAMETOOLONG),
    "no such key": (lambda m, p: os.link(m / "none", p + "/none"), errno.ENOENT),
    "no such lifetime": (lambda m, p: os.link(m / "other", p + "-none/other"), errno.ENOENT),
    "straight into lifetimes": (lambda m, p: os.link(m / "other", p + "-other"), errno.EPERM),
    "mkdir in a lifetime": (lambda m, p: os.mkdir(p + "/dir"), errno.EPERM),
    "create in a lifetime": (lambda m, p: os.open(p + "/new", os.O_WRONLY | os.O_CREAT), errno.EPERM),
    "symlink in a lifetime": (lambda m, p: os.symlink("x", p + "/link"), errno.EPERM),
    "mknod in a lifetime": (lambda m, p: os.mkfifo(p + "/fifo"), errno.EPERM),
    "create in lifetimes": (lambda m, p: os.open(p + "-new", os.O_WRONLY | os.O_CREAT), errno.EPERM),
    "symlink in lifetimes": (lambda m, p: os.symlink("x", p + "-link"), errno.EPERM),
    "unlink a lifetime": (lambda m, p: os.unlink(p), errno.EISDIR),
    "rmdir a member": (lambda m, p: os.rmdir(p + "/key"), errno.ENOTDIR),
    "unlink no member": (lambda m, p: os.unlink(p + "/none"), errno.ENOENT),
    "rmdir no lifetime": (lambda m, p: os.rmdir(p + "-none"), errno.ENOENT),
    "begin it twice": (lambda m, p: os.mkdir(p), errno.EEXIST),
    "a long name": (lambda m, p: os.mkdir(os.path.dirname(p) + "/" + "n" * 256), errno.ENAMETOOLONG),
    "rename a member": (lambda m, p: os.rename(p + "/key", p + "/new"), errno.EPERM),
    "rename a member to a key": (lambda m, p: os.rename(p + "/key", m / "new"), errno.EPERM),
    "rename a key to a member": (lambda m, p: os.rename(m / "other", p + "/other"), errno.EPERM),
    "rename a lifetime to a key": (lambda m, p: os.rename(p, m / "new"), errno.EPERM),
    "rename a directory to a lifetime": (lambda m, p: os.rename(m / "dir", p + "-new"), errno.EPERM),
    "rename into the future": (lambda m, p: os.rename(p + "/key", m.future("new")), errno.EPERM),
    "remove lifetimes": (lambda m, p: os.rmdir(os.path.dirname(p)), *DENIED, errno.EBUSY, errno.ENOTEMPTY),
}


def situation(mnt, path):
    """All that could be changed."""
    lifetimes = [name for name in os.listdir(os.path.dirname(path)) if mnt.prefix in name]
    return sorted(os.listdir(path)), sorted(os.listdir(mnt.root)), sorted(lifetimes)


@pytest.mark.core
@pytest.mark.parametrize("what", list(REFUSED))
def test_4_bad_input_changes_nothing(mnt, what):
    call, *codes = REFUSED[what]
    put_all(mnt, "key", "other")
    os.mkdir(mnt / "dir")
    path = begin(mnt, "key")
    before = situation(mnt, path)
    with fails(*codes):
        call(mnt, path)
    assert situation(mnt, path) == before and mnt.get("key") == b"key" and mnt.get("other") == b"other"
    os.rmdir(path)
    vanish(mnt, "key")
    assert sorted(os.listdir(mnt.root)) == ["dir", "other"]


@pytest.mark.core
def test_4_no_lifetime_is_called_self(mnt):
    put_all(mnt, "key")
    path = begin(mnt, "key")
    with fails(errno.EEXIST):
        os.mkdir(mnt.mount.control / "lifetimes/self")
    with fails(errno.EEXIST, errno.ENOTDIR):
        os.rename(path, mnt.mount.control / "lifetimes/self")
    assert os.listdir(path) == ["key"] and mnt.get("key") == b"key"
    os.rmdir(path)


@pytest.mark.parametrize("flags", [0, RENAME_EXCHANGE])
def test_4_renaming_a_lifetime_never_ends_another(mnt, flags):
    put_all(mnt, "a", "b")
    a, b = begin(mnt, "a", name="A"), begin(mnt, "b", name="B")
    with fails(errno.EEXIST, *([errno.EINVAL] if flags else [])):
        renameat2(a, b, flags)
    assert os.listdir(a) == ["a"] and os.listdir(b) == ["b"]
    os.rename(a, a + "-renamed")
    assert not os.path.exists(a) and os.listdir(a + "-renamed") == ["a"]
    os.rmdir(a + "-renamed")
    vanish(mnt, "a")
    assert mnt.get("b") == b"b"
    os.rmdir(b)


@pytest.mark.core
@pytest.mark.parametrize("how", ["end", "lease"])
def test_4_nothing_joins_what_has_ended(mnt, how):
    """Not even by a descriptor that was opened before."""
    put_all(mnt, "key", "late")
    path = begin(mnt, "key")
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(path) if how == "end" else set_attr(path, "lease", "100ms")
        vanish(mnt, "key")
        with fails(errno.ENOENT):
            os.link(mnt / "late", "late", dst_dir_fd=fd)
        with contextlib.suppress(FileNotFoundError):
            assert os.listdir(fd) == []
    assert mnt.get("late") == b"late" and attr(mnt / "late", "lifetimes") is None


def test_4_the_same_name_begins_anew(mnt):
    for turn in range(20):
        put_all(mnt, "key")
        path = begin(mnt, "key")
        assert os.listdir(path) == ["key"] and attr(path, "lease") is None, turn
        set_attr(path, "lease", "1h")
        os.rmdir(path)
        assert os.listdir(mnt.root) == [], turn


@pytest.mark.core
@pytest.mark.parametrize("how", ["end", "remove the member"])
def test_4_the_keys_are_gone_when_the_call_returns(mnt, how):
    """For stat(2), too: no name that the kernel remembers is left."""
    for turn in range(30):
        put_all(mnt, "a", "b")
        path = begin(mnt, "a", "b")
        if how == "end":
            os.rmdir(path)
            assert gone(mnt, "a", "b"), turn
        else:
            os.unlink(f"{path}/a")
            assert gone(mnt, "a"), turn
            os.rmdir(path)
            vanish(mnt, "b")


def test_4_joining_while_it_ends(mnt):
    """Every key has joined and is gone, or it has not and is there."""
    keys = [f"key{n}" for n in range(400)]
    put_all(mnt, *keys)
    path = begin(mnt)
    worker = mnt.worker()
    jobs = {key: worker.begin("link", mnt / key, f"{path}/{key}") for key in keys}
    eventually(lambda: len(os.listdir(path)) > 50)
    os.rmdir(path)
    joined = {key for key, job in jobs.items() if job.error() != "ENOENT"}
    assert all(jobs[key].result() is None for key in joined) and len(joined) > 50
    vanish(mnt, *joined)
    assert set(os.listdir(mnt.root)) == set(keys) - joined


# ---- members that are in use -----------------------------------------------------------------------------------------

def data_files(mount):
    return [name for _, _, names in os.walk(mount.store / "data") for name in names]


@pytest.mark.core
@pytest.mark.parametrize("how", ["end", "lease of the lifetime", "lease of the file"])
def test_4_a_reader_keeps_what_it_has_open(mnt, how):
    data = pattern(300_000)
    mnt.put("key", data)
    mnt.becomes("key", "ready")
    path = begin(mnt, "key")
    reader = mnt.worker()
    seen = reader.open_and_look(f"{path}/key")
    os.rmdir(path) if how == "end" else set_attr(path if "lifetime" in how else mnt / "key", "lease", "100ms")
    vanish(mnt, "key")
    assert reader.look_again(seen["fd"]) == seen and seen["bytes"] == data == seen["mapped"]


def test_4_data_goes_with_the_last_reader(own):
    put_all(own, "key")
    path = begin(own, "key")
    with opened(own / "key") as fd:
        os.rmdir(path)
        vanish(own, "key")
        assert os.read(fd, 10) == b"key"
    eventually(lambda: data_files(own.mount) == [])
    assert check_store(own.mount) == []


@pytest.mark.core
@pytest.mark.parametrize("what", ["new", "replacement", "live"])
def test_4_a_member_that_is_being_written(own, what):
    """Its writer goes on without an error, as with any file that was removed, and nothing comes of it."""
    os.mkdir(own / "dir")
    if what == "live":
        set_attr(own / "dir", "publish", "write")
    if what == "replacement":
        put_all(own, "dir/key")
    writer, fd = own.writer("dir/key", b"first")
    path = begin(own, "dir/key")
    reader = own.waiting_reader(own / "dir/key") if what == "new" else None
    os.rmdir(path)
    vanish(own, "dir/key")
    if reader:
        assert reader.error() == "ECANCELED"
    writer.write_all(fd, b"second")
    writer.fsync(fd)
    writer.close(fd)
    writer.leave()
    assert check_store(own.mount) == [] and os.listdir(own / "dir") == []


@pytest.mark.core
@pytest.mark.parametrize("kind", ["pending", "ready"])
def test_what_was_listed_is_gone_when_its_lease_is(mnt, kind):
    """Also when so many end together that some of them have their turn late."""
    os.mkdir(scope(mnt))
    for n in range(2000):
        if kind == "pending":
            os.close(os.open(mnt.future(f"key{n}"), os.O_WRONLY | os.O_CREAT))
        else:
            mnt.put(f"key{n}")
        os.link(mnt / f"key{n}", f"{scope(mnt)}/key{n}")
    end = time.time() + 1
    os.utime(scope(mnt), (end, end))
    listed = [entry.stat().st_size for entry in os.scandir(mnt.root)]
    assert time.time() > end - 0.1 or len(listed) == 2000
    eventually(lambda: time.time() > end, 5)
    assert [n for n in reversed(range(2000)) if os.path.lexists(mnt / f"key{n}")] == []


@pytest.mark.parametrize("how", ["end", "remove the member", "lease of the lifetime", "lease of the future"])
def test_4_who_waits_for_a_member_is_told(mnt, how):
    mnt.declare("key")
    path = begin(mnt, "key")
    readers = [mnt.waiting_reader(where) for where in (mnt / "key", f"{path}/key", mnt / "key")]
    with opened(mnt / "key", os.O_RDONLY | os.O_NONBLOCK) as fd:
        assert not readable(fd)
        {"end": lambda: os.rmdir(path), "remove the member": lambda: os.unlink(f"{path}/key"),
         "lease of the lifetime": lambda: set_attr(path, "lease", "200ms"),
         "lease of the future": lambda: set_attr(mnt / "key", "lease", "200ms")}[how]()
        assert [reader.error() for reader in readers] == ["ECANCELED"] * 3
        assert readable(fd, 5)
        with fails(errno.ECANCELED):
            os.read(fd, 10)
    vanish(mnt, "key")


def test_4_a_future_that_is_set_stays_a_member(mnt):
    mnt.declare("key")
    path = begin(mnt, "key")
    reader = mnt.waiting_reader(f"{path}/key")
    mnt.put("key", b"result")
    assert reader.result() == b"result" and os.listdir(path) == ["key"]
    os.rmdir(path)
    vanish(mnt, "key")
    mnt.declare("key")
    assert state(mnt / "key") == "pending" and attr(mnt / "key", "lifetimes") is None


# ---- many ------------------------------------------------------------------------------------------------------------

def make_members(mnt, path, count):
    """Empty files, each a key and a member."""
    os.mkdir(path)
    for number in range(count):
        os.mknod(mnt / f"key{number}", 0o644)
        os.link(mnt / f"key{number}", f"{path}/{number}")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_4_five_thousand_members_end(own):
    path = scope(own)
    make_members(own, path, 5000)
    assert len(os.listdir(path)) == 5000
    began = time.monotonic()
    ending = own.worker().begin("rmdir", path)
    eventually(lambda: gone(own, "key0"))
    own.put("other", b"others have their turn")
    assert own.get("other") == b"others have their turn"
    ending.result()
    assert os.listdir(own.root) == ["other"] or time.monotonic() - began >= 1
    eventually(lambda: os.listdir(own.root) == ["other"] and len(data_files(own.mount)) == 1)
    assert check_store(own.mount) == []
    assert len([event for event in own.history() if event["event"] == "evict"]) == 5000


def members_in_catalog(mount):
    with contextlib.closing(sqlite3.connect(f"file:{mount.store}/catalog.db?mode=ro", uri=True)) as base:
        return base.execute("select count(*) from member").fetchone()[0]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_4_an_ending_goes_on_after_the_daemon_was_killed(new_mount):
    mnt = new_mount()
    path = scope(mnt)
    make_members(mnt, path, 20_000)
    put_all(mnt, "kept")
    mnt.worker().begin("rmdir", path)
    eventually(lambda: 0 < members_in_catalog(mnt.mount) < 20_000, what="a part of the ending is recorded")
    mnt.mount.kill()
    assert 0 < members_in_catalog(mnt.mount) < 20_000, "it was over before the daemon was killed"
    mnt.mount.start()
    assert not os.path.exists(path)
    put_all(mnt, "new")
    begin(mnt, "new")
    eventually(lambda: sorted(os.listdir(mnt.root)) == ["kept", "new"], 60, "the rest is evicted")
    assert os.listdir(path) == ["new"] and mnt.get("new") == b"new"
    eventually(lambda: members_in_catalog(mnt.mount) == 1 and len(data_files(mnt.mount)) == 2)
    assert check_store(mnt.mount) == []


# ---- users -----------------------------------------------------------------------------------------------------------

SOMEBODY, OTHER = NOBODY, NOBODY - 1
RIGHTS = {
    "end it": (0o777, lambda w, m, p: w.rmdir(p), errno.EPERM),
    "rename it": (0o777, lambda w, m, p: w.rename(p, p + "-new"), errno.EPERM),
    "end it by a lease": (0o777, lambda w, m, p: w.setxattr(p, "user.promisefs.lease", b"0"), *DENIED),
    "prolong it": (0o1777, lambda w, m, p: w.setxattr(p, "user.promisefs.lease", b"+1h"), *DENIED),
    "lease": (0o755, lambda w, m, p: w.setxattr(p, "user.promisefs.lease", b"0"), *DENIED),
    "take the lease": (0o755, lambda w, m, p: w.removexattr(p, "user.promisefs.lease"), *DENIED),
    "mtime": (0o777, lambda w, m, p: w.utime(p, (1, time.time() + 3600)), errno.EPERM),
    "mode": (0o777, lambda w, m, p: w.chmod(p, 0o700), errno.EPERM),
    "add what belongs to the creator": (0o777, lambda w, m, p: w.link(m / "theirs", p + "/x"), errno.EPERM),
    "add to a closed one": (0o755, lambda w, m, p: w.link(m / "mine", p + "/x"), errno.EACCES),
    "evict from a closed one": (0o755, lambda w, m, p: w.unlink(p + "/member"), errno.EACCES),
    "evict from a sticky one": (0o1777, lambda w, m, p: w.unlink(p + "/member"), errno.EPERM),
    "look into a private one": (0o700, lambda w, m, p: w.listdir(p), errno.EACCES),
    "lease of a file": (0o777, lambda w, m, p: w.setxattr(m / "theirs", "user.promisefs.lease", b"0"), *DENIED),
}


@pytest.mark.needs_root
@pytest.mark.parametrize("what", list(RIGHTS))
def test_4_what_other_users_may_not(mnt, what):
    mode, call, *codes = RIGHTS[what]
    creator, other = mnt.worker(uid=SOMEBODY), mnt.worker(uid=OTHER)
    for worker, key in ((creator, "theirs"), (creator, "member"), (other, "mine")):
        worker.write_path(mnt / key, b"x", mode=0o644)
    path = scope(mnt)
    creator.mkdir(path)
    creator.link(mnt / "member", f"{path}/member")
    creator.setxattr(path, "user.promisefs.lease", b"1h")
    creator.chmod(path, mode)
    before = situation(mnt, path)
    with fails(*codes):
        call(other, mnt, path)
    assert situation(mnt, path) == before and 3500 < left(path) < 3700
    creator.rmdir(path)
    vanish(mnt, "member")
    assert sorted(os.listdir(mnt.root)) == ["mine", "theirs"]


@pytest.mark.needs_root
@pytest.mark.parametrize("uid", [0, SOMEBODY])
def test_4_the_creator_and_root_may_end_a_lifetime(mnt, uid):
    """With all that others have put into it."""
    creator, other = mnt.worker(uid=SOMEBODY), mnt.worker(uid=OTHER)
    path = scope(mnt)
    creator.mkdir(path)
    creator.chmod(path, 0o777)
    other.write_path(mnt / "key", b"x", mode=0o600)
    other.link(mnt / "key", f"{path}/key")
    assert os.stat(path).st_uid == SOMEBODY
    mnt.worker(uid=uid).rmdir(path)
    vanish(mnt, "key")


@pytest.mark.needs_root
@pytest.mark.parametrize("mode, gid, allowed", [(0o666, OTHER, True), (0o664, 1234, True), (0o644, 1234, False),
                                                (0o664, OTHER, False), (0o646, OTHER, True)])
def test_4_who_may_write_an_object_may_add_it(mnt, mode, gid, allowed):
    put_all(mnt, "key")
    os.chown(mnt / "key", SOMEBODY, 1234)
    os.chmod(mnt / "key", mode)
    other = mnt.worker(uid=OTHER, gid=gid)
    other.mkdir(scope(mnt))
    with contextlib.nullcontext() if allowed else fails(errno.EPERM):
        other.link(mnt / "key", f"{scope(mnt)}/key")
    other.rmdir(scope(mnt))
    eventually(lambda: gone(mnt, "key") == allowed)
    assert os.listdir(mnt.root) == ([] if allowed else ["key"])


@pytest.mark.core
def test_4_lifetimes_is_a_directory_like_tmp(mnt):
    found = os.stat(mnt.mount.control / "lifetimes")
    assert stat.S_IMODE(found.st_mode) == 0o1777 and "lifetimes" in os.listdir(mnt.mount.control)
    path = begin(mnt)
    os.chmod(path, 0o750)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o750 and os.stat(path).st_uid == os.geteuid()
    os.rmdir(path)


# ---- leases ----------------------------------------------------------------------------------------------------------

@pytest.fixture(params=["file", "lifetime"])
def leased(request, mnt):
    """What can have a lease, with the key that goes when it ends."""
    put_all(mnt, "key")
    yield mnt / "key" if request.param == "file" else begin(mnt, "key")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(scope(mnt))


@pytest.mark.core
@pytest.mark.parametrize("value, earliest", [
    ("300ms", 0.3), ("0.3s", 0.3), ("+300ms", 0.3), ("0", 0), ("0s", 0), ("1ns", 0), ("2001-01-01T00:00:00Z", 0),
    (lambda: soon(0.3), 0.3), (lambda: soon(0.3, timezone(timedelta(hours=5, minutes=30))), 0.3)])
def test_4_a_lease_expires(mnt, leased, value, earliest):
    """The key is gone, so is the lifetime, and not before the time."""
    began = time.time()
    set_attr(leased, "lease", value() if callable(value) else value)
    vanish(mnt, "key")
    assert time.time() >= began + earliest - 0.001
    eventually(lambda: not os.path.lexists(leased))


@pytest.mark.core
@pytest.mark.parametrize("value, shortest, longest", [
    ("10s", 8, 10), ("90000ms", 85, 90), ("1.5h", 5390, 5400), ("2d", 172790, 172800), ("+1m", 55, 60)])
def test_4_a_lease_is_shown_as_a_time(mnt, leased, value, shortest, longest):
    assert attr(leased, "lease") is None
    set_attr(leased, "lease", value)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", attr(leased, "lease"))
    assert shortest < left(leased) <= longest
    assert os.listxattr(leased) == []


@pytest.mark.core
@pytest.mark.parametrize("given, shown", [
    ("2040-01-01T00:00:00Z", "2040-01-01T00:00:00.000000000Z"),
    ("2040-01-02T03:04:05.5+01:00", "2040-01-02T02:04:05.500000000Z"),
    ("2100-12-31t23:59:59.123456789z", "2100-12-31T23:59:59.123456789Z")])
def test_4_a_lease_given_as_a_time_is_shown_as_it_was_given(mnt, leased, given, shown):
    set_attr(leased, "lease", given)
    assert attr(leased, "lease") == shown


@pytest.mark.core
def test_4_a_lease_is_extended(mnt, leased):
    set_attr(leased, "lease", "500ms")
    set_attr(leased, "lease", "+20s")
    assert 18 < left(leased) <= 20.5
    set_attr(leased, "lease", "+1h")
    assert 3610 < left(leased) <= 3620.5
    after(mnt, 600)
    assert mnt.get("key") == b"key" and os.path.exists(leased)


def test_4_a_lease_given_as_a_time_is_extended(mnt, leased):
    set_attr(leased, "lease", LATER)
    set_attr(leased, "lease", "+1.5s")
    assert is_due(leased, seconds(LATER) + 1.5)


@pytest.mark.core
@pytest.mark.parametrize("before", ["1h", LATER])
@pytest.mark.parametrize("now", [lambda: "200ms", lambda: soon(0.2)], ids=["duration", "time"])
def test_4_a_lease_is_shortened(mnt, leased, before, now):
    set_attr(leased, "lease", before)
    set_attr(leased, "lease", now())
    vanish(mnt, "key")


@pytest.mark.core
@pytest.mark.parametrize("how", ["none", "remove the attribute"])
def test_4_a_lease_is_taken_back(mnt, leased, how):
    set_attr(leased, "lease", "500ms")
    set_attr(leased, "lease", "none") if how == "none" else os.removexattr(leased, "user.promisefs.lease")
    assert attr(leased, "lease") is None
    with fails(errno.ENODATA):
        os.removexattr(leased, "user.promisefs.lease")
    set_attr(leased, "lease", "none")
    after(mnt, 600)
    assert mnt.get("key") == b"key" and os.path.exists(leased)


MALFORMED = ["", "soon", "10", "10 s", "10s ", " 10s", "10s\n", "10S", "10x", "-5s", "+", "+-5s", "+ 5s", "++5s",
             "1e3s", "0x10s", "1.s", ".5s", "None", "NONE", "none ", "+none", "1h30m", "99999999999999999999s",
             "+99999999999999999999s", "999999d", "2040-01-01", "2040-01-01T00:00:00", "2040-13-01T00:00:00Z",
             "2040-02-30T00:00:00Z", "2040-01-01T24:00:00Z", "2040-01-01T00:00:00+25:00", "+2040-01-01T00:00:00Z",
             "9999-01-01T00:00:00Z", "10s\0", "10s\0junk", "\0", "\udcff", "9" * 5000 + "s"]


@pytest.mark.core
@pytest.mark.parametrize("before", [None, LATER])
def test_4_a_malformed_lease_changes_nothing(mnt, leased, before):
    set_attr(leased, "lease", before or "none")
    wrong = {}
    for value in MALFORMED:
        try:
            set_attr(leased, "lease", os.fsencode(value))
            wrong[value] = attr(leased, "lease")
        except OSError as error:
            if error.errno != errno.EINVAL and len(value) < 256:
                wrong[value] = name_of(error.errno)
        if not (is_due(leased, seconds(LATER)) if before else attr(leased, "lease") is None):
            wrong[value] = attr(leased, "lease")
            set_attr(leased, "lease", before or "none")
    assert wrong == {} and mnt.get("key") == b"key"


@pytest.mark.parametrize("before", ["50000d", "2261-01-01T00:00:00Z"])
def test_4_a_lease_cannot_be_extended_beyond_time(mnt, leased, before):
    """What does not fit into 64 bits of nanoseconds is refused, or as long as it can be; it never ends anything."""
    set_attr(leased, "lease", before)
    for _ in range(3):
        with contextlib.suppress(OSError):
            set_attr(leased, "lease", "+50000d")
        assert os.path.exists(leased) and left(leased) > 49_999 * 86400, attr(leased, "lease")
    after(mnt, 100)
    assert mnt.get("key") == b"key"


@pytest.mark.core
@pytest.mark.parametrize("where", ["", ".promisefs/lifetimes"])
def test_4_the_root_and_lifetimes_itself_have_no_lease(mnt, where):
    for value in ("1h", "+1h", LATER):
        with fails(errno.EOPNOTSUPP):
            set_attr(mnt.mount.root / where, "lease", value)
        assert attr(mnt.mount.root / where, "lease") is None


@pytest.mark.core
def test_4_a_lease_belongs_to_the_object(mnt):
    """To all its keys, after a rename and for the next version; not to another object under the same key."""
    put_all(mnt, "key", "renamed", "new")
    os.link(mnt / "key", mnt / "link")
    for key in ("key", "renamed"):
        set_attr(mnt / key, "lease", "1h")
    os.rename(mnt / "renamed", mnt / "there")
    mnt.put("key", b"next version")
    mnt.versions("key", 2)
    assert left(mnt / "link") > 3500 and left(mnt / "there") > 3500
    os.rename(mnt / "new", mnt / "key")
    assert attr(mnt / "key", "lease") is None
    for key in ("link", "there"):
        set_attr(mnt / key, "lease", "100ms")
    vanish(mnt, "link", "there")
    assert mnt.get("key") == b"new"


def test_4_a_lease_given_through_a_descriptor_and_a_member(mnt):
    put_all(mnt, "a", "b")
    path = begin(mnt, "b")
    with opened(mnt / "a") as fd:
        set_attr(fd, "lease", "200ms")
        vanish(mnt, "a")
        assert os.read(fd, 10) == b"a"
    set_attr(f"{path}/b", "lease", "200ms")
    vanish(mnt, "b")
    assert os.listdir(path) == []
    os.rmdir(path)


def test_4_a_lease_of_what_has_gone(mnt):
    """A reader still has it open, but there is nothing to end."""
    put_all(mnt, "key")
    with opened(mnt / "key") as fd:
        os.unlink(mnt / "key")
        with fails(errno.ENOENT):
            set_attr(fd, "lease", "1h")


def test_4_a_member_with_a_lease_of_its_own(mnt):
    put_all(mnt, "first", "second", "third")
    path = begin(mnt, "first", "second", "third")
    set_attr(mnt / "first", "lease", "100ms")
    vanish(mnt, "first")
    assert sorted(os.listdir(path)) == ["second", "third"]
    set_attr(mnt / "second", "lease", "1h")
    set_attr(path, "lease", "100ms")
    vanish(mnt, "second", "third")


# ---- the time of modification ----------------------------------------------------------------------------------------

@pytest.mark.core
def test_4_a_time_of_modification_in_the_future_is_a_lease(mnt):
    put_all(mnt, "key")
    path = begin(mnt, "key")
    when = time.time_ns() + 3600 * 10**9
    os.utime(path, ns=(when, when))
    assert is_due(path, when / 1e9)
    os.utime(path, ns=(when, time.time_ns() + 300 * 10**6))
    vanish(mnt, "key")
    assert time.time_ns() > when - 3600 * 10**9 + 250 * 10**6 and not os.path.exists(path)


@pytest.mark.parametrize("year", [2300, 2700, 9999])
def test_4_a_time_of_modification_that_is_too_far_away(mnt, year):
    """It is refused, or a lease that is as long as it can be."""
    path = begin(mnt)
    when = datetime(year, 1, 1, tzinfo=timezone.utc).timestamp()
    try:
        os.utime(path, (when, when))
    except OSError:
        assert attr(path, "lease") is None
    else:
        assert attr(path, "lease") and left(path) > 200 * 365 * 86400, attr(path, "lease")
    os.rmdir(path)


@pytest.mark.core
def test_4_other_times_are_no_lease(mnt):
    put_all(mnt, "key")
    path = begin(mnt, "key")
    hour = time.time_ns() + 3600 * 10**9
    for target, times in ((path, (hour, 10**9)), (path, None), (mnt / "key", (hour, hour)), (mnt.root, (hour, hour))):
        os.utime(target, **({"ns": times} if times else {}))
        assert attr(target, "lease") is None, (target, times)
    set_attr(path, "lease", LATER)
    os.utime(path, ns=(1, 10**9))
    os.utime(path)
    os.chmod(path, 0o700)
    assert is_due(path, seconds(LATER))
    os.rmdir(path)


# ---- many leases -----------------------------------------------------------------------------------------------------

def test_4_two_hundred_leases_expire_together(mnt):
    keys = [f"key{n}" for n in range(200)]
    put_all(mnt, *keys, "other")
    when = soon(1.5)
    for key in keys:
        set_attr(mnt / key, "lease", when)
    set_attr(mnt / "other", "lease", "1h")
    vanish(mnt, *keys)
    assert os.listdir(mnt.root) == ["other"]
    expired = [event for event in mnt.history() if event["event"] == "expire" and event["key"].startswith(mnt.prefix)]
    assert sorted(event["key"] for event in expired) == sorted(map(mnt.key, keys))
    assert min(seconds(event["time"]) for event in expired) >= seconds(when)


def test_4_many_leases_in_any_order(mnt):
    """One timer serves all of them: the soonest is always the one that is armed."""
    keys = [f"key{n}" for n in range(60)]
    put_all(mnt, *keys)
    for n, key in enumerate(keys):
        set_attr(mnt / key, "lease", "1h" if n % 3 == 0 else f"{200 + (n * 37) % 60 * 10}ms" if n % 3 == 1 else LATER)
    for n, key in enumerate(keys):
        if n % 3 == 2:
            set_attr(mnt / key, "lease", soon(0.2 + (n * 37) % 60 / 100))
    vanish(mnt, *(key for n, key in enumerate(keys) if n % 3))
    assert sorted(os.listdir(mnt.root)) == sorted(keys[::3])


def test_4_leases_are_punctual(own):
    if sanitized():
        pytest.skip("a sanitizer takes its time")
    keys = [f"key{n}" for n in range(300)]
    put_all(own, *keys)
    due = {}
    for key in keys:
        set_attr(own / key, "lease", "500ms")
        due[key] = seconds(attr(own / key, "lease"))
    vanish(own, *keys)
    came = {event["key"]: seconds(event["time"]) for event in own.history() if event["event"] == "expire"}
    late = [came[key] - due[key] for key in keys]
    assert min(late) > -0.001 and statistics.median(late) < 0.05, (min(late), statistics.median(late), max(late))


@pytest.mark.parametrize("leased", ["objects", "lifetimes"])
def test_4_no_key_is_found_after_its_lease(mnt, leased):
    """However many expire together, and though the kernel knows the names: evicting them may take a while."""
    keys = [f"key{n}" for n in range(400)]
    put_all(mnt, *keys)
    due = time.time() + 6
    when = datetime.fromtimestamp(due, timezone.utc).isoformat()
    for key in keys:
        os.stat(mnt / key)
        if leased == "objects":
            set_attr(mnt / key, "lease", when)
        else:
            os.mkdir(scope(mnt, key))
            set_attr(scope(mnt, key), "lease", when)
            os.link(mnt / key, scope(mnt, key) + "/member")
    assert time.time() < due, "this machine is too slow to tell"
    choice, seen, found = random.Random(1), 0, []
    while time.time() < due + 0.5:
        key = choice.choice(keys)
        began = time.time()
        if os.path.lexists(mnt / key):
            seen += 1
            found += [(key, began - due)] if began > due + 0.0001 else []
    assert seen > 100 and not found, found[:10]
    mnt.put(keys[0], b"new")
    vanish(mnt, *keys[1:])
    assert os.listdir(mnt.root) == [keys[0]]


# ---- restart ---------------------------------------------------------------------------------------------------------

@pytest.mark.core
@pytest.mark.parametrize("end", ["unmounted", "killed"])
def test_4_lifetimes_and_leases_survive_a_restart(new_mount, end):
    mnt = new_mount()
    put_all(mnt, "member", "both", "running", "timed", "overdue", "overdue-member", "plain")
    kept = begin(mnt, "member", "both", name="kept")
    late = begin(mnt, "overdue-member", "both", name="late")
    os.unlink(f"{late}/both")
    put_all(mnt, "both")
    os.link(mnt / "both", f"{kept}/both")
    for path, lease in ((mnt / "running", "1h"), (kept, "+1h"), (mnt / "timed", LATER), (late, "500ms"),
                        (mnt / "overdue", soon(0.5))):
        set_attr(path, "lease", lease)
    over = time.monotonic() + 0.6
    mnt.mount.stop() if end == "unmounted" else mnt.mount.kill()
    eventually(lambda: time.monotonic() > over, what="leases run out while nobody is there")
    mnt.mount.start()
    vanish(mnt, "overdue", "overdue-member")
    assert os.listdir(mnt.mount.control / "lifetimes") == ["kept"] and sorted(os.listdir(kept)) == ["both", "member"]
    assert 3580 < left(kept) <= 3600 and 3580 < left(mnt / "running") <= 3600 and attr(mnt / "plain", "lease") is None
    assert is_due(mnt / "timed", seconds(LATER))
    set_attr(kept, "lease", "200ms")
    vanish(mnt, "member", "both")
    assert sorted(os.listdir(mnt.root)) == ["plain", "running", "timed"] and check_store(mnt.mount) == []


def test_4_a_lease_runs_on_through_a_restart(new_mount):
    mnt = new_mount()
    put_all(mnt, "key")
    mnt.declare("future")
    for key in ("key", "future"):
        set_attr(mnt / key, "lease", "4s")
    due = seconds(attr(mnt / "future", "lease"))
    mnt.mount.stop()
    mnt.mount.start()
    assert abs(seconds(attr(mnt / "key", "lease")) - due) < 0.1
    reader = mnt.waiting_reader(mnt / "future")
    assert reader.error() == "ECANCELED"
    vanish(mnt, "key")
    assert due <= time.time() + 0.01


CHANGES = {
    "begin": (lambda m, p: os.mkdir(p + "2"), lambda m, p: os.path.isdir(p + "2")),
    "join": (lambda m, p: os.link(m / "other", p + "/other"), lambda m, p: sorted(os.listdir(p)) == ["key", "other"]),
    "evict": (lambda m, p: os.unlink(p + "/key"), lambda m, p: gone(m, "key") and os.listdir(p) == []),
    "end": (lambda m, p: os.rmdir(p), lambda m, p: gone(m, "key") and not os.path.exists(p)),
    "rename": (lambda m, p: os.rename(p, p + "2"), lambda m, p: os.listdir(p + "2") == ["key"]),
    "lease": (lambda m, p: set_attr(p, "lease", LATER), lambda m, p: is_due(p, seconds(LATER))),
    "lease of a file": (lambda m, p: set_attr(m / "key", "lease", "1h"), lambda m, p: left(m / "key") > 3500),
    "none": (lambda m, p: set_attr(m / "other", "lease", "none"), lambda m, p: attr(m / "other", "lease") is None),
    "mtime": (lambda m, p: os.utime(p, (1, 2**31)), lambda m, p: is_due(p, 2**31)),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_4_acknowledged_means_recorded(new_mount, change):
    mnt = new_mount()
    do, is_done = CHANGES[change]
    put_all(mnt, "key", "other")
    path = begin(mnt, "key")
    set_attr(mnt / "other", "lease", "1h")
    do(mnt, path)
    mnt.mount.kill()
    mnt.mount.start()
    assert is_done(mnt, path) and check_store(mnt.mount) == []


# ---- the event log ---------------------------------------------------------------------------------------------------

def story(mnt, key, wanted):
    return [(event["event"], event.get("detail")) for event in mnt.history(key) if event["event"] in wanted]


def test_4_events(own):
    put_all(own, "ended", "removed", "expired", "lease")
    worker = own.worker()
    worker.mkdir(scope(own))
    for key in ("ended", "removed"):
        worker.link(own / key, f"{scope(own)}/{key}")
    worker.unlink(f"{scope(own)}/removed")
    worker.rmdir(scope(own))
    late = begin(own, "expired", name="late")
    set_attr(late, "lease", "100ms")
    set_attr(own / "lease", "lease", "100ms")
    vanish(own, "expired", "lease")
    wanted = ("join", "evict", "end", "expire")
    assert story(own, "ended", wanted) == [("join", "L"), ("evict", "lifetime L")]
    assert story(own, "removed", wanted) == [("join", "L"), ("evict", None)]
    assert story(own, "expired", wanted) == [("join", "late"), ("evict", "lifetime late")]
    assert story(own, "lease", wanted) == [("expire", "lease")]
    assert story(own, ".promisefs/lifetimes/L", wanted) == [("end", None)]
    assert story(own, ".promisefs/lifetimes/late", wanted) == [("expire", "lease")]
    by = {event["event"]: (event["pid"], event["uid"]) for event in own.history("ended")}
    assert by["join"] == by["evict"] == (worker.pid, os.geteuid())


def test_4_events_of_lifetimes_and_keys_that_were_renamed(own):
    put_all(own, "key")
    path = begin(own, "key")
    os.rename(path, path + "2")
    os.mkdir(own / "dir")
    os.rename(own / "key", own / "dir/new")
    os.rmdir(path + "2")
    assert story(own, "dir/new", ("evict",)) == [("evict", "lifetime L2")]
    assert story(own, ".promisefs/lifetimes/L2", ("end",)) == [("end", None)]


def test_4_a_refused_change_leaves_no_event(own):
    put_all(own, "key")
    path = begin(own, "key")
    count = len(own.history())
    with fails(errno.EEXIST):
        os.link(own / "key", f"{path}/key")
    with fails(errno.EINVAL):
        set_attr(path, "lease", "nonsense")
    with fails(errno.ENOENT):
        os.rmdir(path + "2")
    assert len(own.history()) == count

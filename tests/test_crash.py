"""Acknowledged means recorded (2.8): SIGKILL of the daemon loses nothing that a call has returned for."""
import contextlib
import errno
import os
import random
import shutil
import sqlite3
import subprocess
import time

import pytest

from pfs import PYTHON, attr, check_store, eventually, fails, pattern, promisefs, sanitized, set_attr, state, version

pytestmark = pytest.mark.timeout(90)


def crash(mnt):
    """SIGKILL the daemon, take the dead mount away, mount again."""
    mnt.mount.kill()
    mnt.mount.start()


CHANGES = {
    "put": (lambda m: m.put("new", pattern(100_000)), lambda m: m.get("new") == pattern(100_000)),
    "empty": (lambda m: m.put("new"), lambda m: m.get("new") == b""),
    "replace": (lambda m: m.put("file", b"replaced"), lambda m: m.get("file") == b"replaced"),
    "append": (lambda m: append(m, "file", b"+"), lambda m: m.get("file") == b"file+"),
    "truncate": (lambda m: os.truncate(m / "file", 2), lambda m: m.get("file") == b"fi"),
    "mkdir": (lambda m: os.mkdir(m / "new"), lambda m: os.path.isdir(m / "new")),
    "rmdir": (lambda m: os.rmdir(m / "empty"), lambda m: not os.path.exists(m / "empty")),
    "unlink": (lambda m: os.unlink(m / "file"), lambda m: not os.path.exists(m / "file")),
    "rename": (lambda m: os.rename(m / "file", m / "dir/new"),
               lambda m: m.get("dir/new") == b"file" and not os.path.exists(m / "file")),
    "rename over": (lambda m: os.rename(m / "file", m / "dir/other"), lambda m: m.get("dir/other") == b"file"),
    "rename directory": (lambda m: os.rename(m / "dir", m / "moved"), lambda m: m.get("moved/other") == b"other"),
    "link": (lambda m: os.link(m / "file", m / "new"), lambda m: os.stat(m / "new").st_nlink == 2),
    "symlink": (lambda m: os.symlink("x" * 300, m / "new"), lambda m: os.readlink(m / "new") == "x" * 300),
    "setxattr": (lambda m: os.setxattr(m / "file", "user.n", b"v"),
                 lambda m: os.getxattr(m / "file", "user.n") == b"v"),
    "removexattr": (lambda m: os.removexattr(m / "file", "user.old"), lambda m: os.listxattr(m / "file") == []),
    "chmod": (lambda m: os.chmod(m / "file", 0o604), lambda m: os.stat(m / "file").st_mode & 0o777 == 0o604),
    "utime": (lambda m: os.utime(m / "file", ns=(1, 2)), lambda m: os.stat(m / "file").st_mtime_ns == 2),
    "declare": (lambda m: m.declare("new"), lambda m: state(m / "new") == "pending"),
    "fail": (lambda m: set_attr(m / "future", "error", "EPERM: no"),
             lambda m: state(m / "future") == "failed" and attr(m / "future", "error") == "EPERM: no"),
    "cancel": (lambda m: os.unlink(m / "future"), lambda m: not os.path.exists(m / "future")),
    "set": (lambda m: m.put("future", b"result"), lambda m: m.get("future") == b"result"),
    "deadline": (lambda m: set_attr(m / "future", "deadline", "2040-01-01T00:00:00Z"),
                 lambda m: attr(m / "future", "deadline") == "2040-01-01T00:00:00.000000000Z"),
    "publish": (lambda m: set_attr(m / "dir", "publish", "write"), lambda m: attr(m / "dir", "publish") == "write"),
}


def append(mnt, key, data):
    with open(mnt / key, "ab", buffering=0) as file:
        file.write(data)


@pytest.mark.parametrize("change", list(CHANGES))
def test_2_8_acknowledged_means_recorded(new_mount, change):
    mnt = new_mount()
    mnt.put("file", b"file")
    os.setxattr(mnt / "file", "user.old", b"v")
    os.mkdir(mnt / "dir")
    os.mkdir(mnt / "empty")
    mnt.put("dir/other", b"other")
    mnt.declare("future")
    do, is_done = CHANGES[change]
    do(mnt)
    crash(mnt)
    assert is_done(mnt)
    assert check_store(mnt.mount) == []


def test_2_8_a_closed_draft_is_kept_and_an_open_one_is_gone(own):
    own.put("replaced", b"old version")
    own.declare("future")
    writers = [own.writer(key, b"torn") for key in ("new", "replaced", "future")]
    own.put("closed", b"whole")
    crash(own)
    assert own.get("closed") == b"whole" and own.get("replaced") == b"old version"
    assert sorted(os.listdir(own.root)) == ["closed", "future", "replaced"]
    assert state(own / "future") in ("pending", "failed")
    for worker, fd in writers:
        worker.kill()
    assert os.listdir(own.mount.store / "drafts") == [] or os.listdir(own.aborted())


def test_2_8_an_fsynced_draft_is_kept_as_any_file_system_would(own):
    writer, fd = own.writer("key", b"synced")
    writer.fsync(fd)
    crash(own)
    assert own.get("key") == b"synced"
    writer.kill()


def test_2_8_closed_is_kept_although_the_daemon_dies_at_once(own):
    """close has returned, RELEASE has perhaps not come: the draft is sealed in the catalog."""
    for number in range(8):
        writer, fd = own.writer("key", b"version %d" % number)
        writer.close(fd)
        crash(own)
        assert own.get("key") == b"version %d" % number
        writer.kill()


@pytest.mark.parametrize("before", [None, b"old"])
def test_2_8_times_that_are_set_after_close(own, before):
    """As by rsync and tar. Somebody has inherited the descriptor, so it is closed, and not published yet."""
    if before:
        own.put("key", before)
    fd = os.open(own / "key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, b"new")
    heir = subprocess.Popen(["sleep", "1000"], pass_fds=[fd])
    try:
        os.close(fd)
        os.utime(own / "key", ns=(1, 10**18 + 7))
        crash(own)
    finally:
        heir.kill()
        heir.wait()
    assert own.get("key") == b"new"
    assert os.stat(own / "key").st_mtime_ns == 10**18 + 7


ACKNOWLEDGED = r"""
import os, sys
root, name = sys.argv[1:]
os.chdir(root)  # stays in the old mount, which is dead once its daemon is
number = 0
while True:
    path = f"{name}-{number}"
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(f"{name} {number} ".encode() * 200)
        os.rename(path, path + ".done")
    except OSError:
        sys.exit(0)
    os.write(1, f"{name}-{number}.done\n".encode())
    number += 1
"""


def at_work(mnt):
    """The names of the writers that have made something."""
    return {name.split("-")[0] for name in os.listdir(mnt / "dir")}


def test_2_8_many_writers_and_the_daemon_is_killed_in_the_middle(own):
    """Everything acknowledged is there and whole; what was not is there whole or not at all."""
    seed = random.randrange(1 << 30)
    choice = random.Random(seed)
    os.mkdir(own / "dir")
    for turn in range(4):
        names = {f"t{turn}p{n}" for n in range(4)}
        jobs = [own.worker().begin("run", [*PYTHON, "-c", ACKNOWLEDGED, own / "dir", name]) for name in names]
        count = choice.randrange(20, 200)
        eventually(lambda: len(os.listdir(own / "dir")) >= count and names <= at_work(own), what="all writers work")
        crash(own)
        acknowledged = {line for job in jobs for line in job.result()[1].decode().split()}
        present = set(os.listdir(own / "dir"))
        assert acknowledged and acknowledged <= present, (seed, acknowledged - present)
        for name in present:
            stem = name.removesuffix(".done").replace("-", " ")
            assert own.get(f"dir/{name}") == f"{stem} ".encode() * 200, (seed, name)
        assert check_store(own.mount) == [], seed
        for name in present:
            os.unlink(own / f"dir/{name}")


def test_restart_keeps_futures_and_deadlines(new_mount):
    mnt = new_mount()
    mnt.declare("pending", "overdue", "later")
    set_attr(mnt / "later", "deadline", "2040-01-01T00:00:00Z")
    set_attr(mnt / "overdue", "deadline", "1s")
    mnt.mount.kill()
    end = time.monotonic() + 1.2
    eventually(lambda: time.monotonic() > end, what="the deadline passes while nobody is there")
    mnt.mount.start()
    assert mnt.reader(mnt / "overdue").error() == "ETIMEDOUT"
    assert attr(mnt / "later", "deadline").startswith("2040")
    readers = [mnt.waiting_reader(mnt / key) for key in ("pending", "later")]
    set_attr(mnt / "later", "deadline", "300ms")
    assert readers[1].error() == "ETIMEDOUT"
    mnt.put("pending", b"result")
    assert readers[0].result() == b"result"


def test_restart_fires_a_deadline_that_is_still_to_come(new_mount):
    mnt = new_mount()
    mnt.declare("key")
    set_attr(mnt / "key", "deadline", "3s")
    crash(mnt)
    assert mnt.reader(mnt / "key").error() in ("ETIMEDOUT",)


def test_restart_keeps_ids_versions_events_and_torn_bytes(new_mount):
    mnt = new_mount()
    for data in (b"1", b"2"):
        mnt.put("key", data)
    mnt.versions("key", 2)
    number = attr(mnt / "key", "id")
    writer, _ = mnt.writer("torn", b"torn")
    writer.kill()
    eventually(lambda: os.path.exists(mnt.aborted("torn")))
    events = mnt.history("key")
    os.mkdir(mnt / "dir")  # when that has returned, all before it is recorded: nobody has waited for the writer's end
    crash(mnt)
    assert (attr(mnt / "key", "id"), version(mnt / "key")) == (number, 2)
    assert mnt.history("key")[:len(events)] == events
    assert mnt.reader(mnt.aborted("torn")).result() == b"torn"
    mnt.put("key", b"3")
    mnt.versions("key", 3)


def test_restart_in_the_ordinary_way(own):
    own.put("key", pattern(50_000))
    os.mkdir(own / "dir")
    own.mount.stop()
    assert check_store(own.mount) == []
    own.mount.start()
    assert own.get("key") == pattern(50_000) and os.path.isdir(own / "dir")


def test_death_of_the_daemon_ends_waiting_readers(own):
    own.declare("key")
    readers = [own.waiting_reader(own / "key") for _ in range(5)]
    own.mount.kill()
    assert {reader.error() for reader in readers} <= {"ECONNABORTED", "ENOTCONN", "EIO"}
    own.mount.start()


def test_a_reader_of_an_old_version_survives_while_the_catalog_forgets_it(own):
    """Old versions that nobody can open any more are swept at start."""
    own.put("key", pattern(300_000))
    reader = own.worker()
    reader.open_and_look(own / "key")
    own.put("key", b"new")
    own.versions("key", 2)
    crash(own)
    reader.kill()
    assert own.get("key") == b"new" and check_store(own.mount) == []


def test_second_daemon_is_refused_by_name(own, tmp_path):
    other = tmp_path / "second"
    other.mkdir()
    done = promisefs("mount", own.mount.store, other)
    assert done.returncode == 1
    line = f"promisefs mount: {own.mount.store}: already mounted by pid {own.mount.pid} at {own.mount.root}; "
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1
    own.put("key", b"first is fine")
    assert own.get("key") == b"first is fine"


def test_a_mount_point_with_a_dead_daemon_is_refused_in_words(own):
    own.mount.process.kill()
    own.mount.process.wait(10)
    with fails(errno.ENOTCONN, errno.ECONNABORTED):
        os.listdir(own.root)
    done = promisefs("mount", own.mount.store, own.root)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and str(own.root) in done.stderr
    own.mount.detach()
    own.mount.start()


def test_the_catalog_is_sound_after_a_crash(own):
    for number in range(50):
        own.put(f"key{number}", b"x")
    own.mount.kill()
    with contextlib.closing(sqlite3.connect(f"{own.mount.store}/catalog.db")) as base:
        assert base.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert base.execute("pragma foreign_key_check").fetchall() == []
    own.mount.start()
    assert len(os.listdir(own.root)) == 50


# ---- what fsync brings to the disk -----------------------------------------------------------------------------------

SYNC_LOG = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int logged(const char *call, int fd)
{
	char link[64], path[4096], line[4300];
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
	int r = real(fd), log = open(getenv("SYNC_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0666);
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n < 0 ? 0 : n] = '\0';
	if (write(log, line, (size_t)snprintf(line, sizeof(line), "%s\n", path)) < 0)
		abort();
	close(log);
	return r;
}

int fsync(int fd) { return logged("fsync", fd); }
int fdatasync(int fd) { return logged("fdatasync", fd); }
int syncfs(int fd) { return logged("syncfs", fd); }
"""


@pytest.fixture
def synced(new_mount, data_path, tmp_path):
    """A mount, and a function that forgets or tells what its daemon brought to the disk."""
    if sanitized() or not shutil.which("cc"):
        pytest.skip("needs a C compiler and a build without a sanitizer")
    (tmp_path / "log.c").write_text(SYNC_LOG)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "log.so", tmp_path / "log.c", "-ldl"], check=True)
    log = tmp_path / "log"
    mnt = new_mount(data_path, environment={"LD_PRELOAD": str(tmp_path / "log.so"), "SYNC_LOG": str(log)})

    def paths():
        found = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return found

    return mnt, paths


def catalog_in(paths):
    return any("catalog.db" in path for path in paths)


def data_in(paths):
    return any("/drafts/" in path or "/data/" in path for path in paths)


def test_2_8_fsync_of_a_draft_brings_bytes_and_record_to_the_disk(synced):
    mnt, paths = synced
    writer, fd = mnt.writer("key", b"bytes")
    paths()
    writer.fsync(fd)
    found = paths()
    assert data_in(found) and catalog_in(found), found


def test_2_8_fsync_of_a_published_object(synced):
    mnt, paths = synced
    mnt.put("key", b"bytes")
    mnt.becomes("key", "ready")
    paths()
    worker = mnt.worker()
    worker.fsync(worker.open(mnt / "key", os.O_RDONLY))
    found = paths()
    assert data_in(found) and catalog_in(found), found


def test_2_8_fsync_of_a_directory(synced):
    mnt, paths = synced
    os.rename(mnt.put("a", b"x"), mnt / "b")
    paths()
    worker = mnt.worker()
    worker.fsync(worker.open(str(mnt.root), os.O_RDONLY | os.O_DIRECTORY))
    assert catalog_in(paths())


def test_2_8_close_alone_does_not_wait_for_the_disk(synced):
    """Only fsync costs what fsync costs."""
    mnt, paths = synced
    paths()
    for number in range(20):
        mnt.put(f"key{number}", b"x")
    assert len(paths()) < 10

"""What the daemon may do: as little as it needs. tests/unit/test_privileges.c has what becomes of the rest."""
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import pfs
from conftest import DATA_PATHS
from pfs import attr, eventually, opened, promisefs, sanitized
from test_unprivileged import why_not

PTRACE, READ_SEARCH, ADMIN = 1 << 19, 1 << 2, 1 << 21
FOREIGN = 1 << 0 | 1 << 1 | 1 << 28  # CHOWN, DAC_OVERRIDE, LEASE
NOBODY = pfs.NOBODY


def fields(path):
    return dict(re.findall(r"^(\w+):\s+(.*)$", Path(path, "status").read_text(), re.M))


def threads(pid):
    return [fields(task) for task in Path(f"/proc/{pid}/task").iterdir()]


def children(pid):
    return [int(entry.name) for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and (entry / "status").exists() and fields(entry)["PPid"] == str(pid)]


def has_filters(new_mount):
    """Was it built with them?"""
    space = new_mount("seccomp=on", start=False)
    done = promisefs("mount", space.mount.store, space.mount.root, "-o", "seccomp=on")
    if done.returncode == 0:
        promisefs("umount", space.mount.root)
    return done.returncode == 0


@pytest.mark.needs_root
def test_root_keeps_what_it_needs_and_no_more(own, data_path):
    own.put("key", b"data"), own.get("key")  # starts whatever starts late
    wanted = PTRACE | READ_SEARCH | (ADMIN if data_path == DATA_PATHS["passthrough"] else 0)
    found = threads(own.mount.pid)
    assert len(found) > 5
    for status in found:
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(status[name], 16) == wanted, (status["Name"], name, status[name])
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0 and status["NoNewPrivs"] == "1"


@pytest.mark.needs_root
def test_the_keeper_can_unmount_and_no_more(own):
    keeper, = children(own.mount.pid)
    status = fields(f"/proc/{keeper}")
    assert status["Name"] == "promisefs-keep" and int(status["CapEff"], 16) == ADMIN | READ_SEARCH
    held = {os.readlink(f"/proc/{keeper}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{keeper}/fd")}
    assert held == {"/dev/null", "socket"} and os.readlink(f"/proc/{keeper}/cwd") == "/"


@pytest.mark.core
@pytest.mark.skipif(sanitized(), reason="sanitizers call what they like")
def test_system_calls_are_filtered_unless_told_otherwise(new_mount):
    if not has_filters(new_mount):
        pytest.skip("built without libseccomp")
    filtered, free = new_mount(), new_mount("seccomp=off")
    filtered.put("key", b"data")
    assert {status["Seccomp"] for status in threads(filtered.mount.pid)} == {"2"}
    assert {status["Seccomp"] for status in threads(free.mount.pid)} == {"0"}
    assert {status["NoNewPrivs"] for status in threads(free.mount.pid)} == {"1"}


@pytest.mark.core
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_unmounts(new_mount, number):
    """Which takes rights, or a program that has some: the daemon has neither."""
    mount = new_mount().mount
    keeper, = children(mount.pid)
    mount.process.send_signal(number)
    assert mount.process.wait(pfs.DEADLINE) == 0
    assert not pfs.is_mounted(mount.root) and not os.path.exists(f"/proc/{keeper}")


@pytest.mark.core
def test_the_keeper_ends_with_the_daemon(new_mount):
    mount = new_mount().mount
    keeper, = children(mount.pid)
    os.kill(keeper, signal.SIGTERM)  # as a terminal and a service manager send it to all: it is not for him
    mount.process.kill()
    mount.process.wait(pfs.DEADLINE)
    eventually(lambda: not os.path.exists(f"/proc/{keeper}") or fields(f"/proc/{keeper}")["State"].startswith("Z"))
    assert pfs.is_mounted(mount.root)  # by a dead mount, as before
    mount.detach()


def test_who_starts_a_daemon_hears_its_end_of_the_pipe(new_mount):
    """$(promisefs mount ...) in a shell returns: neither the daemon nor its keeper keep the output open."""
    space = new_mount(start=False)
    options = ["-o", space.mount.options] if space.mount.options else []
    done = promisefs("mount", space.mount.store, space.mount.root, *options, timeout=15)
    try:
        assert done.returncode == 0, done.stderr
    finally:
        promisefs("umount", space.mount.root)


@pytest.mark.needs_root
def test_how_others_end_is_still_seen(own):
    """/proc/TID/stat of another user, and of root with all its capabilities."""
    os.chmod(own.root, 0o777)
    for uid in (None, NOBODY):
        worker, fd = own.writer(f"torn-{uid}", b"torn", uid=uid)
        worker.kill(signal.SIGKILL)
        eventually(lambda name=f"torn-{uid}": os.path.exists(own.aborted(name)))
        assert not os.path.exists(own / f"torn-{uid}")


@pytest.mark.needs_root
def test_a_store_of_somebody_else(new_mount, open_device, data_path):
    """Root mounts it all the same, and may do in it what its owner may."""
    space = new_mount("", start=False)
    mount = space.mount
    reason = why_not()
    if reason:
        pytest.skip(reason)
    binary = mount.base / "promisefs"
    shutil.copy(pfs.binary(), binary)
    for path in (mount.base, mount.root):
        os.chown(path, NOBODY, NOBODY)
    done = pfs.run(binary, "mount", mount.store, mount.root, user=NOBODY, group=NOBODY, extra_groups=[])
    assert done.returncode == 0, done.stderr
    pfs.run("sh", "-c", f"head -c 200000 /dev/zero > {mount.root}/key", user=NOBODY, group=NOBODY, extra_groups=[])
    subprocess.run(["fusermount3", "-u", str(mount.root)], user=NOBODY, group=NOBODY, check=True)
    eventually(lambda: pfs.run("flock", "-n", mount.store / "lock", "true").returncode == 0, what="its daemon's end")
    mount.options = f"allow_other,{data_path}"
    mount.start()
    assert int(fields(f"/proc/{mount.pid}")["CapEff"], 16) & FOREIGN == FOREIGN
    with opened(space / "key", os.O_WRONLY | os.O_APPEND) as fd:  # a link of the file of another user, with a lease on it
        os.write(fd, b"more")
    eventually(lambda: os.path.getsize(space / "key") == 200_004)
    space.put("key", b"replaced"), space.put("other", b"new")
    os.unlink(space / "other")
    assert space.get("key") == b"replaced" and attr(space / "key", "state") == "ready"
    assert os.stat(mount.store / "catalog.db-wal").st_uid == NOBODY
    space.mount.stop()

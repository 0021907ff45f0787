"""The files of a store are its owner's alone, and their names are numbers."""
import os
import re
import shutil
import signal
import stat
import subprocess

import pytest

import pfs
from pfs import attr, eventually, opened, promisefs, state

MODES = {stat.S_IFREG: 0o600, stat.S_IFDIR: 0o700}
NAME = "xyzzy"


def wrong_modes(*roots):
    """Everything below that others might use, or find out about."""
    found = []
    for root in map(str, roots):
        for folder, folders, names in os.walk(root):
            for path in [folder, *(os.path.join(folder, name) for name in names)]:
                try:
                    mode = os.lstat(path).st_mode
                except FileNotFoundError:
                    continue
                if stat.S_IMODE(mode) & ~stat.S_ISGID != MODES[stat.S_IFMT(mode)]:
                    found.append(f"{path[len(root):] or '.'}: {stat.filemode(mode)}")
    return found


@pytest.fixture
def careless():
    """Nothing is taken away from the mode of what is made."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("exists", [False, True])
def test_all_files_of_a_store_are_private(new_mount, careless, tmp_path, exists):
    base = tmp_path / "open"
    base.mkdir(mode=0o777)
    if exists:
        (base / "store").mkdir(mode=0o755)
    mnt = new_mount(store=base / "store")
    store = mnt.mount.store
    mnt.put("key", b"data"), mnt.put("big", bytes(300_000))
    with opened(mnt / "big", os.O_WRONLY | os.O_APPEND) as fd:  # a link of the file, and a copy of it
        os.write(fd, b"more")
        assert len(mnt.get("big")) in (300_000, 300_004)
    writer, _ = mnt.writer("torn", b"torn")
    mnt.writer("draft", b"draft")
    assert wrong_modes(store) == []
    writer.kill(signal.SIGKILL)
    eventually(lambda: os.path.exists(mnt.aborted("torn")))
    for number in range(50):
        mnt.put(f"key{number}", b"x" * 5000)
    assert {"catalog.db", "catalog.db-wal", "catalog.db-shm", "lock", "data", "drafts"} <= set(os.listdir(store))
    assert wrong_modes(store) == []
    done = promisefs("backup", store, base / "backup")
    assert done.returncode == 0, done.stderr
    assert wrong_modes(base / "backup") == []
    mnt.mount.kill()
    assert wrong_modes(store) == []


def test_what_a_repair_makes_is_private(new_mount, careless):
    mnt = new_mount()
    store = mnt.mount.store
    for number in range(20):
        mnt.put(f"key{number}", b"data")
    mnt.mount.stop()
    (store / "data" / "alien").write_bytes(b"not ours")
    os.chmod(store / "data" / "alien", 0o600)
    with open(store / "catalog.db", "r+b") as file:  # so that it has to be salvaged
        size = file.seek(0, os.SEEK_END)
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    promisefs("fsck", "--repair", store, timeout=60)
    promisefs("gc", store, timeout=60)
    assert (store / "quarantine").is_dir() and wrong_modes(store) == []


def traces_children():
    try:
        return subprocess.run(["strace", "-f", "true"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


@pytest.mark.needs_root
def test_no_name_of_a_user_reaches_the_store(new_mount, tmp_path, monkeypatch):
    """Whatever users call things, the daemon opens, makes, renames and removes files by numbers."""
    if not traces_children():
        pytest.skip("no strace, or this process may not trace")
    trace, wrapper = tmp_path / "trace", tmp_path / "promisefs"
    # LeakSanitizer traces itself, and cannot while somebody else does.
    wrapper.write_text('#!/bin/sh\nexport ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0"\n'
                       f"exec strace -f -qq -s 4096 -e trace=%file -o {trace} {pfs.binary()} \"$@\"\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PROMISEFS_BIN", str(wrapper))
    mnt = new_mount()
    path = mnt.put(NAME, b"data")
    mnt.put(NAME, b"replaced"), os.mkdir(mnt / f"{NAME}-dir"), mnt.put(f"{NAME}-dir/{NAME}", b"x")
    os.symlink(f"/tmp/{NAME}", mnt / f"{NAME}-link"), os.link(path, mnt / f"{NAME}-2"), os.unlink(mnt / f"{NAME}-2")
    mnt.declare(f"{NAME}-future"), mnt.put(f"{NAME}-future", b"x"), os.mkfifo(mnt / f"{NAME}-fifo")
    os.setxattr(path, f"user.{NAME}", NAME.encode())
    attr(path, "sha256")
    os.mkdir(mnt.special("lifetimes", NAME)), os.link(path, mnt.special("lifetimes", f"{NAME}/{NAME}"))
    os.link(path, mnt.handle("ref", NAME)), os.unlink(mnt.handle("ref", NAME))
    os.rename(path, mnt.handle("own", NAME)), os.rename(mnt.handle("own", NAME), mnt / f"{NAME}-3")
    with open(mnt / "..%2f..", "wb") as file, open(mnt / f"{NAME}-once", "wb"):
        file.write(b"x")
    eventually(lambda: state(mnt / f"{NAME}-once") == "ready")
    mnt.get("..%2f.."), open(mnt.once(f"{NAME}-once")).close()
    writer, _ = mnt.writer(f"{NAME}-torn", b"torn")
    writer.kill(signal.SIGKILL)
    eventually(lambda: os.path.exists(mnt.aborted(f"{NAME}-torn")))
    os.rmdir(mnt.special("lifetimes", NAME))
    shutil.rmtree(mnt / f"{NAME}-dir")
    mnt.mount.stop()
    lines = trace.read_text(errors="replace").splitlines()
    assert len([line for line in lines if "openat(" in line]) > 20  # it did see something
    assert [line for line in lines if NAME in line or "%2f" in line] == []
    calls = r'(?:openat|renameat2?|unlinkat|linkat|mkdirat)\(\d+, "([^"]*)"'
    used = {path for line in lines for path in re.findall(calls, line)}
    known = r"[0-9a-f]{16}|[0-9a-f]{2}(/[0-9a-f]{16})?|[0-9a-f]{16}\.private|data|drafts|lock|\.|catalog\.db"
    assert {name for name in used if not re.fullmatch(known, name)} == set()

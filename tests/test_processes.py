"""What is bound to a process ends with it, however it ends (DESIGN.md, section 4)."""
import errno
import os
import signal
import subprocess

import pytest

from pfs import NOBODY, PYTHON, attr, check_store, eventually, fails, sanitized, set_attr

SELF = "user.promisefs.pid"


@pytest.fixture
def sleeper():
    """A process that does nothing until it is ended."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def lifetime(mnt, name):
    path = f"{mnt.mount.control}/lifetimes/{name}"
    os.mkdir(path)
    return path


def bind(path, pid):
    set_attr(path, "pid", str(pid))


def end(process, number=signal.SIGKILL):
    os.kill(process.pid, number)
    process.wait()


def gone(path):
    return not os.path.lexists(path)


@pytest.mark.core
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_4_an_object_ends_with_its_process(mnt, sleeper, how):
    path, other = mnt.put("key", b"data"), mnt.put("other", b"data")
    bind(path, sleeper.pid)
    assert attr(path, "pid") == str(sleeper.pid)
    with open(path, "rb") as file:
        end(sleeper, how)
        eventually(lambda: gone(path))
        assert file.read() == b"data"
    assert os.path.exists(other)


@pytest.mark.core
def test_4_a_lifetime_ends_with_its_process(own, sleeper):
    path = lifetime(own, "L")
    bind(path, sleeper.pid)
    own.declare("future")
    for name in ("a", "b", "future"):
        if name != "future":
            own.put(name, b"x")
        os.link(own / name, f"{path}/{name}")
    waiter = own.waiting_reader(own / "future")
    end(sleeper)
    eventually(lambda: gone(path) and gone(own / "a") and gone(own / "b"))
    with fails(errno.ECANCELED):
        waiter.result()


def test_4_an_ordinary_exit_is_an_end(own):
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    path = own.put("key", b"x")
    bind(path, process.pid)
    process.stdin.close()
    assert process.wait() == 0
    eventually(lambda: gone(path))


def test_4_bound_to_another_one_or_to_none(own, sleeper):
    other = subprocess.Popen(["sleep", "600"])
    try:
        moved, freed = own.put("moved", b"x"), own.put("freed", b"x")
        for path in (moved, freed):
            bind(path, sleeper.pid)
        bind(moved, other.pid)
        os.removexattr(freed, SELF)
        with fails(errno.ENODATA):
            os.removexattr(freed, SELF)
        marker = own.put("marker", b"x")
        bind(marker, sleeper.pid)
        end(sleeper)
        eventually(lambda: gone(marker))
        assert os.path.exists(moved) and os.path.exists(freed)
        end(other)
        eventually(lambda: gone(moved))
        assert os.path.exists(freed)
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("value, error", [("0", errno.EINVAL), ("-1", errno.EINVAL), ("one", errno.EINVAL),
                                          ("", errno.EINVAL), ("1 ", errno.EINVAL), ("99999999999", errno.EINVAL),
                                          ("4194305", errno.ESRCH)])
def test_7_bad_process_numbers_change_nothing(mnt, value, error):
    path = mnt.put("key", b"x")
    with fails(error):
        os.setxattr(path, SELF, value.encode())
    with fails(errno.ENODATA):
        os.getxattr(path, SELF)
    with fails(errno.EOPNOTSUPP):
        bind(mnt.mount.root, os.getpid())


@pytest.mark.needs_root
def test_7_other_users_processes(mnt, sleeper):
    path = mnt.put("key", b"x")
    os.chmod(path, 0o666)
    worker = mnt.worker(uid=NOBODY, gid=NOBODY)
    with fails(errno.EPERM):
        worker.setxattr(path, SELF, str(sleeper.pid).encode())
    worker.setxattr(path, SELF, str(worker.pid).encode())
    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: gone(path))


@pytest.mark.core
def test_4_self(own):
    """Each process has a lifetime of its own, which goes when the process does."""
    root = f"{own.mount.control}/lifetimes"
    one, two = own.worker(), own.worker()
    for name, worker in (("a", one), ("b", two)):
        worker.link(own.put(name, b"x"), f"{root}/self/{name}")
        assert worker.readlink(f"{root}/self") == f"pid-{worker.pid}"
        assert worker.listdir(f"{root}/self") == [name]
    assert set(os.listdir(root)) >= {f"pid-{one.pid}", f"pid-{two.pid}"}
    os.kill(one.pid, signal.SIGKILL)
    eventually(lambda: gone(own / "a") and gone(f"{root}/pid-{one.pid}"))
    assert os.path.exists(own / "b")
    two.rmdir(f"{root}/pid-{two.pid}")  # before the process ends
    assert gone(own / "b")
    two.link(own.put("c", b"x"), f"{root}/self/c")  # another one
    os.kill(two.pid, signal.SIGKILL)
    eventually(lambda: gone(own / "c"))


def test_4_restart(own, sleeper):
    """Who has ended while nobody was mounted is found out at the start; who lives is watched again."""
    other = subprocess.Popen(["sleep", "600"])
    try:
        bind(own.put("ended", b"x"), other.pid)
        bind(own.put("alive", b"x"), sleeper.pid)
        path = lifetime(own, "L")
        os.link(own.put("member", b"x"), f"{path}/member")
        bind(path, other.pid)
        own.mount.stop()
        end(other)
        own.mount.start()
        eventually(lambda: gone(own / "ended") and gone(own / "member") and gone(path))
        assert os.path.exists(own / "alive")
        end(sleeper)
        eventually(lambda: gone(own / "alive"))
    finally:
        other.kill()
        other.wait()
    assert check_store(own.mount) == []


MANY = """
import os, sys, time
root, control = sys.argv[1:]
for number in range(10):
    os.mkdir(f"{control}/lifetimes/of-{number}")
    os.setxattr(f"{control}/lifetimes/of-{number}", "user.promisefs.pid", str(os.getpid()).encode())
for number in range(1000):
    with open(f"{root}/key-{number}", "w") as file:
        file.write("x")
    os.link(f"{root}/key-{number}", f"{control}/lifetimes/of-{number % 10}/key-{number}")
    os.link(f"{root}/lent", f"{control}/ref/of-{number}")
    os.setxattr(f"{control}/ref/of-{number}", "user.promisefs.pid", b"self")
drafts = [open(f"{root}/draft-{number}", "w") for number in range(5)]
for draft in drafts:
    draft.write("torn")
    draft.flush()
print("ready", flush=True)
time.sleep(600)
"""


def test_4_a_process_with_much_is_killed(own):
    own.put("lent", b"x")
    process = subprocess.Popen([*map(str, PYTHON), "-c", MANY, str(own.root), str(own.mount.control)],
                               stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        assert attr(own / "lent", "borrows") == "ref 1000"
        waiter = own.waiting_reader(own / "draft-3")
        end(process)
        eventually(lambda: not [name for name in os.listdir(own.root) if name.startswith(("key-", "draft-"))],
                   timeout=60 if sanitized() else 5, what="all of it is gone")
        with fails(errno.EOWNERDEAD):
            waiter.result()
        assert not [name for name in os.listdir(f"{own.mount.control}/lifetimes") if name.startswith("of-")]
        eventually(lambda: attr(own / "lent", "borrows") == "none")
        assert os.listdir(own.mount.control / "ref") == []
    finally:
        process.kill()
        process.wait()
    assert check_store(own.mount) == []


IN_A_CONTAINER = """
import os, sys, time
root, control = sys.argv[1:]
assert os.getpid() < 10
for name in ("bound", "linked", "lent"):
    with open(f"{root}/{name}", "w") as file:
        file.write("x")
os.setxattr(f"{root}/bound", "user.promisefs.pid", b"self")
os.link(f"{root}/linked", f"{control}/lifetimes/self/linked")
os.link(f"{root}/lent", f"{control}/ref/contained")
os.setxattr(f"{control}/ref/contained", "user.promisefs.pid", b"self")
print("ready", flush=True)
time.sleep(600)
"""


def test_4_in_a_pid_namespace(own):
    """A process in a container binds what it makes to itself, whatever its number is there."""
    if os.geteuid() != 0:
        pytest.skip("a PID namespace takes root")
    own.put("other", b"x")
    process = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", *map(str, PYTHON), "-c", IN_A_CONTAINER,
                                str(own.root), str(own.mount.control)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        inside = int(attr(own / "bound", "pid"))
        assert inside > 10 and os.readlink(f"/proc/{inside}/exe") == os.path.realpath(PYTHON[0])
        assert attr(own / "lent", "borrows") == "ref 1"
        os.kill(inside, signal.SIGKILL)
        eventually(lambda: gone(own / "bound") and gone(own / "linked") and attr(own / "lent", "borrows") == "none")
        assert own.get("other") == b"x" and own.get("lent") == b"x"
    finally:
        process.kill()
        process.wait()
    assert check_store(own.mount) == []

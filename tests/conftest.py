"""Fixtures: `mnt` (a private directory in a mount that many tests share, for both data paths), `new_mount`, `own`."""
import itertools
import os
import platform
import re
import shutil
import signal
import stat
import tempfile
from pathlib import Path

import pytest

import pfs
import posixfs

TIMEOUT = 60
DATA_PATHS = {"passthrough": "passthrough=on", "fallback": "passthrough=off"}


def pytest_addoption(parser):
    parser.addoption("--data-path", choices=list(DATA_PATHS), help="run what runs on each data path on this one only")
    parser.addoption("--stress-seconds", type=float, default=20, help="how long each stress test runs (20)")
    parser.addoption("--stress-seed", type=int, default=None, help="replay a stress test with this seed")
    parser.addoption("--model-steps", type=int, default=20_000, help="steps of the comparison with the model (20000)")
    parser.addoption("--model-seed", type=int, default=1, help="make other steps, or replay a run (1)")
    parser.addoption("--fuzz-seconds", type=float, default=3, help="how long each fuzz test and each fuzzer runs (3)")
    parser.addoption("--fuzz-seed", type=int, default=None, help="replay a fuzz test from this seed on")
    parser.addoption("--faults-all", action="store_true", help="let every single system call below the daemon fail")
    parser.addoption("--faults-n", type=int, default=None, help="only the one with this number")
    parser.addoption("--power-cuts", type=int, default=1, help="how often the power fails in each of its tests (1)")
    parser.addoption("--race-processes", type=int, default=16, help="how many processes race for borrows (16)")
    parser.addoption("--race-seconds", type=float, default=3, help="how long they do (3)")
    parser.addoption("--kill-seconds", type=float, default=20, help="how long workers are killed in the test of that (20)")
    parser.addoption("--kill-workers", action="store_true",
                     help="supervise every mount, and kill its worker every 100 to 500 ms: nothing may notice")
    parser.addoption("--kill-seed", type=int, default=None, help="replay that with this seed")
    parser.addoption("--tools-long", action="store_true", help="ordinary programs on larger input and for longer")


def pytest_terminal_summary(terminalreporter):
    if pfs.Mount.kills_workers:
        terminalreporter.write_line(f"{pfs.Mount.kills} workers were killed")


def pytest_configure(config):
    pfs.Mount.kills_workers = config.getoption("--kill-workers")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what is to run in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "core: the part of the suite that is also run by an unprivileged user")
    config.addinivalue_line("markers", "needs_root: needs root's rights")
    config.addinivalue_line("markers", "slow: takes long, left out of quick and sanitized runs")
    config.addinivalue_line("markers", "timeout(seconds): end the test then")


def is_chosen(item, data_path):
    params = getattr(getattr(item, "callspec", None), "params", {})
    return data_path is None or params.get("data_path", data_path) == data_path


def pytest_collection_modifyitems(config, items):
    chosen = {item: is_chosen(item, config.getoption("--data-path")) for item in items}
    config.hook.pytest_deselected(items=[item for item in items if not chosen[item]])
    items[:] = [item for item in items if chosen[item]]
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT))
        if item.get_closest_marker("needs_root") and not pfs.IS_ROOT:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Show what the daemons said when a test failed."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for mount in getattr(item, "mounts", []):
            report.sections.append((f"daemon on {mount.root}", mount.tail()))


def seconds_of(node):
    return node.get_closest_marker("timeout").args[0]


# ---- what this machine can do ----------------------------------------------------------------------------------------

def why_no_passthrough():
    """None if this process may use kernel passthrough, else the reason why not."""
    release = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    if not pfs.IS_ROOT:
        return "passthrough needs root"
    if release < (6, 9):
        return f"passthrough needs kernel 6.9, this is {platform.release()}"
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        return "passthrough needs root of the machine, this is a user namespace"
    capabilities = int(re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())[1], 16)
    return None if capabilities >> 21 & 1 else "passthrough needs CAP_SYS_ADMIN"


@pytest.fixture(scope="session", autouse=True)
def fuse():
    """Skip nothing quietly: without the command or without FUSE no test can say anything."""
    if not os.access(pfs.binary(), os.X_OK):
        pytest.exit(f"{pfs.binary()}: no such command; build it or set PROMISEFS_BIN", 3)
    if not os.path.exists("/dev/fuse"):
        pytest.exit("/dev/fuse does not exist: load the module fuse", 3)


@pytest.fixture(scope="session")
def scratch():
    """A directory for everything that this session makes, on tmpfs if there is one."""
    shm = "/dev/shm"
    base = os.environ.get("PROMISEFS_TEST_TMP") or (shm if os.access(shm, os.W_OK) else tempfile.gettempdir())
    path = Path(tempfile.mkdtemp(prefix="promisefs-test-", dir=base)).resolve()
    path.chmod(0o755)
    yield path
    left = [point for point in pfs.mount_table() if point.startswith(f"{path}/")]
    if not left:
        shutil.rmtree(path, ignore_errors=True)
    assert not left, f"still mounted: {left}"


@pytest.fixture(scope="session")
def watchdog():
    dog = pfs.Watchdog()
    yield dog
    dog.close()


@pytest.fixture(scope="session")
def open_device():
    """/dev/fuse as on an ordinary system: everybody may open it."""
    before = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    if before & 0o666 == 0o666:
        yield
        return
    try:
        os.chmod("/dev/fuse", 0o666)
    except OSError as error:
        pytest.skip(f"/dev/fuse is closed to ordinary users and stays so: {error}")
    yield
    os.chmod("/dev/fuse", before)


# ---- mounts ----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def numbers():
    return itertools.count()


@pytest.fixture(scope="session", params=list(DATA_PATHS))
def data_path(request):
    """The mount option of each data path that this machine has."""
    reason = why_no_passthrough()
    if request.param == "passthrough" and reason:
        pytest.skip(reason)
    return DATA_PATHS[request.param]


def base_options():
    return "allow_other" if pfs.IS_ROOT else ""


class Pool:
    """One mount for many tests; replaced when a test broke it."""

    def __init__(self, scratch, numbers, watchdog, options):
        self.scratch, self.numbers, self.watchdog, self.options = scratch, numbers, watchdog, options
        self.mount = None

    def get(self):
        if self.mount is None or not self.mount.alive:
            self.drop()
            base = self.scratch / f"shared-{next(self.numbers)}"
            self.mount = pfs.Mount(base, self.options, watchdog=self.watchdog)
            self.mount.start()
        return self.mount

    def drop(self):
        """Forget a broken mount."""
        if self.mount:
            self.mount.close()
            self.mount.remove()
            self.mount = None

    def stop(self):
        """Unmount in the ordinary way."""
        if self.mount and self.mount.alive:
            self.watchdog.arm(self.mount, 40)
            self.mount.stop()
        self.drop()


@pytest.fixture(scope="module")
def pool(request, scratch, numbers, watchdog, data_path):
    parts = (base_options(), data_path, getattr(request.module, "MOUNT_OPTIONS", ""))
    options = ",".join(part for part in parts if part)
    shared = Pool(scratch, numbers, watchdog, options)
    yield shared
    shared.stop()


def directory_name(node, number):
    return re.sub(r"\W+", "_", node.name)[:80] + f"-{number}"


@pytest.fixture
def mnt(request, pool, numbers):
    """A Space: a directory of this test in a mount that the module shares, with both data paths."""
    mount = pool.get()
    request.node.mounts = [mount]
    pool.watchdog.arm(mount, seconds_of(request.node) * 0.75)
    space = pfs.Space(mount, directory_name(request.node, next(numbers)))
    yield space
    try:
        space.close()
        assert mount.alive, f"the daemon died with status {mount.process.poll()}\n{mount.tail()}"
    finally:
        pool.watchdog.disarm(mount)


@pytest.fixture
def start():
    """Start a verb of promisefs in the background; it ends with the test."""
    commands = []

    def begin(*argv, **kwargs):
        commands.append(pfs.Command(*argv, **kwargs))
        return commands[-1]

    yield begin
    for command in commands:
        command.end()


# ---- POSIX cases: the mount, and what it is compared with --------------------------------------------------------------

@pytest.fixture(scope="session", params=["passthrough", "fallback", "control", "disk"])
def place_kind(request):
    """Where a case runs: on both data paths (or, as "mount", on the one that is taken by itself), on the file system
    of the store, and on another one if there is one."""
    reason = why_no_passthrough()
    if request.param == "passthrough" and reason:
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="session")
def users():
    processes = posixfs.Users()
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def place_root(request, place_kind, scratch, numbers, watchdog):
    """The pool of mounts, or the directory, that the cases of a module share."""
    if place_kind in ("control", "disk"):
        base = scratch if place_kind == "control" else tempfile.gettempdir()
        if place_kind == "disk" and os.stat(base).st_dev == os.stat(scratch).st_dev:
            pytest.skip(f"{base} is the file system that is compared with already")
        folder = Path(tempfile.mkdtemp(prefix="promisefs-test-", dir=base))
        folder.chmod(0o755)
        yield folder
        shutil.rmtree(folder)
        return
    options = (base_options(), DATA_PATHS.get(place_kind), getattr(request.module, "MOUNT_OPTIONS", ""))
    shared = Pool(scratch, numbers, watchdog, ",".join(option for option in options if option))
    yield shared
    shared.stop()


@pytest.fixture
def place(request, place_root, users, numbers):
    """A posixfs.Place: an empty directory for one case."""
    mount = place_root.get() if isinstance(place_root, Pool) else None
    if mount:
        request.node.mounts = [mount]
        place_root.watchdog.arm(mount, seconds_of(request.node) * 0.75)
    root = (mount.root if mount else place_root) / str(next(numbers))
    root.mkdir()
    root.chmod(0o755)
    here = posixfs.Place(root, users, mount is not None)
    yield here
    try:
        here.close()
        assert not mount or mount.alive, f"the daemon died with status {mount.process.poll()}\n{mount.tail()}"
    finally:
        if mount:
            place_root.watchdog.disarm(mount)


@pytest.fixture
def native(mnt, numbers):
    """An empty directory on the file system that the store of `mnt` is on."""
    path = mnt.mount.base / f"native-{next(numbers)}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def new_mount(request, scratch, numbers, watchdog):
    """A function that makes a mount of this test's own: new_mount(options, store=, root=) gives a Space at its root."""
    mounts = request.node.mounts = []
    spaces = []

    def make(options="", start=True, **kwargs):
        base = scratch / f"own-{next(numbers)}"
        parts = (base_options() if "allow_other" not in options else "", options)
        mount = pfs.Mount(base, ",".join(part for part in parts if part), watchdog=watchdog, **kwargs)
        mounts.append(mount)
        space = pfs.Space(mount)
        spaces.append(space)
        if start:
            mount.start()
            watchdog.arm(mount, seconds_of(request.node) * 0.75)
        return space

    yield make
    for space in spaces:
        try:
            space.close()
            if space.mount.alive:
                space.mount.stop()
        finally:
            space.mount.close()
    for mount in mounts:
        mount.remove()


@pytest.fixture
def own(new_mount, data_path):
    """A mount of this test's own, for both data paths."""
    return new_mount(data_path)

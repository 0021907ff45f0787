"""The Python module in tools/python, on real mounts; the checks are in python_checks.py."""
import ast
import contextlib
import itertools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile

import pytest

from pfs import REPO, check_store, run

TESTS = pathlib.Path(__file__).parent
MODULE = REPO / "tools/python"
SKIPPED = 77
SECONDS = 40


def names(script):
    return re.findall(r"^@check\ndef (\w+)", (TESTS / script).read_text(), re.M)


class Checks:
    """A process that runs checks in children of its own, which are ended with all that they have started."""

    def __init__(self, script, folder):
        self.folder = folder
        self.numbers = itertools.count()
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen([sys.executable, TESTS / script, "--serve"], stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, bufsize=1, env=environment)

    def run(self, name, directory):
        log = self.folder / f"log-{next(self.numbers)}"
        self.process.stdin.write(f"{name} {directory} {log}\n")
        pid = int(self.process.stdout.readline())
        late = threading.Timer(SECONDS, os.killpg, (pid, signal.SIGKILL))
        late.start()
        try:
            status = int(self.process.stdout.readline())
        finally:
            late.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        said = log.read_text()
        if status == SKIPPED:
            pytest.skip(said.strip())
        assert status == 0, said or f"ended by signal {-status}, after {SECONDS} s if that is {signal.SIGKILL:d}"
        assert "Warning" not in said and "Exception" not in said, said

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(10) == 0
        self.process.stdout.close()


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    server = Checks("python_checks.py", tmp_path_factory.mktemp("checks"))
    yield server
    server.close()


@pytest.mark.parametrize("name", names("python_checks.py"))
def test_module(mnt, checks, name):
    checks.run(name, mnt.root)
    handles = {kind: os.listdir(mnt.mount.control / kind) for kind in ("own", "ref", "mut")}
    assert not any(handles.values()), handles


def test_all_checks_are_run():
    listed = run(sys.executable, TESTS / "python_checks.py", "--list")
    assert listed.stdout.split() == names("python_checks.py") and len(set(listed.stdout.split())) > 20


def test_nothing_is_left_behind(own, checks):
    for name in ("submit", "cancel", "nothing_torn_is_published", "context_lifetime"):
        checks.run(name, own.root / name)
    assert check_store(own.mount) == [] or os.listdir(own.mount.control / "aborted")


@pytest.mark.parametrize("how", ["unmounted", "killed"])
def test_after_the_mount_is_gone(own, how):
    os.mkdir(own.root / "work")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, TESTS / "python_checks.py", "without_the_mount", own.root / "work"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                          env=environment) as process:
        late = threading.Timer(SECONDS, process.kill)
        late.start()
        try:
            assert process.stdout.readline() == "ready\n"
            if how == "killed":
                own.mount.process.kill()
                own.mount.process.wait(SECONDS)
            else:
                own.mount.stop()
            process.stdin.write(f"{how}\n")
            assert process.stdout.readline() == "gone\n"
            own.mount.detach()
            own.mount.start()
            process.stdin.write("mounted\n")
            assert process.wait(SECONDS) == 0
        finally:
            late.cancel()
            process.kill()


# ---- Pythons ---------------------------------------------------------------------------------------------------------

def other_pythons():
    """Those in PATH besides the one that runs this, from the oldest that the module is for; and those that the variable
    PROMISEFS_TEST_PYTHONS names."""
    named = os.environ.get("PROMISEFS_TEST_PYTHONS", "").split(":")
    code = "import sys; print(sys.version_info[:2] != tuple(map(int, sys.argv[1:])))"
    for path in map(shutil.which, (*named, *(f"python3.{minor}" for minor in range(9, 20)))):
        if path and run(path, "-c", code, *map(str, sys.version_info[:2])).stdout == "True\n":
            yield path


FOR_EACH_PYTHON = ["values_come_back", "future_between_processes", "a_child_of_fork_has_no_drafts", "exceptions_travel",
                   "asyncio_fails_and_cancels", "callbacks", "proxies_are_transparent", "submit", "docstrings"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_other_pythons(new_mount):
    pythons = list(other_pythons())
    if not pythons:
        pytest.skip("no Python besides this one in PATH or in PROMISEFS_TEST_PYTHONS")
    space, environment = new_mount(), {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    for python in pythons:
        for name in FOR_EACH_PYTHON:
            directory = space.root / python.replace("/", "-") / name
            done = run(python, "-X", "dev", TESTS / "python_checks.py", name, directory, env=environment, timeout=120)
            assert done.returncode == 0 and "Warning" not in done.stderr, f"{python}: {done.stdout}{done.stderr}"


def test_syntax_of_the_oldest_python():
    """What the programs in this repository are written in is Python 3.9."""
    guides = REPO / "docs/guides"
    for path in (*MODULE.rglob("*.py"), *guides.rglob("*.py"), REPO / "tools/bench", REPO / "tools/bench-python"):
        ast.parse(path.read_text(), str(path), feature_version=(3, 9))


TYPED = """
import asyncio, concurrent.futures, datetime, os
import promisefs
store = promisefs.Store("/mnt")
future: promisefs.Future[int] = store.future("key", deadline=5)
number: int = future.result(timeout=1)
path: str = os.fspath(future)
async def wait_for(one: promisefs.Future[int]) -> int:
    return await one
proxy: promisefs.Proxy[int] = future.proxy()
number = promisefs.extract(proxy)
owned: promisefs.Owned[list[int]] = store.owned_proxy([1])
ref: promisefs.Ref[list[int]] = promisefs.borrow(owned)
promisefs.update(promisefs.mut_borrow(owned))
done, late = promisefs.wait([future], 1, concurrent.futures.FIRST_COMPLETED)
with promisefs.LeaseLifetime(store, datetime.timedelta(seconds=1)) as lifetime:
    lifetime.extend(5)
connector = promisefs.PromiseConnector("/mnt", clear=True)
data: "bytes | None" = connector.get(connector.put(b"x"))
number = store.future().path  # an error
connector.set("name", b"x")  # an error
"""


@pytest.mark.timeout(300)
def test_types(tmp_path):
    """mypy accepts the module and who uses it rightly, and no others."""
    if not shutil.which("mypy"):
        pytest.skip("mypy is not installed")
    (tmp_path / "user.py").write_text(TYPED)
    environment = {**os.environ, "MYPYPATH": str(MODULE)}
    done = run("mypy", "--strict", "--python-version", "3.9", "--cache-dir", tmp_path / "cache", "--no-error-summary",
               MODULE / "promisefs", tmp_path / "user.py", cwd=tmp_path, env=environment, timeout=240)
    lines = [str(number) for number, line in enumerate(TYPED.splitlines(), 1) if line.endswith("# an error")]
    assert re.findall(r"^(?:.*/)?(\w+\.py):(\d+): error", done.stdout, re.M) == [("user.py", line) for line in lines], (
        done.stdout + done.stderr)


# ---- the package -----------------------------------------------------------------------------------------------------

def test_the_wheel_is_complete(tmp_path):
    script = f"import sys; sys.path.insert(0, {str(MODULE)!r}); import build_backend as b; print(b.build_wheel('.'))"
    built = run(sys.executable, "-B", "-c", script, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    wheel = tmp_path / built.stdout.strip()
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("promisefs/")}
        assert "promisefs-0.1.0.dist-info/RECORD" in archive.namelist() and archive.testzip() is None
    assert packed == {f"promisefs/{path.name}" for path in (MODULE / "promisefs").iterdir() if path.is_file()}
    shown = run(sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(wheel)!r}); import promisefs; "
                                            "print(promisefs.__file__, promisefs.__version__)")
    assert shown.stdout.split() == [f"{wheel}/promisefs/__init__.py", "0.1.0"], shown.stderr
    assert '\nversion = "0.1.0"\n' in (MODULE / "pyproject.toml").read_text()


def test_pip_installs_it_without_a_network(tmp_path):
    if run("/usr/bin/python3", "-m", "pip", "--version").returncode:
        pytest.skip("python3-pip is not installed")
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HOME": str(tmp_path)}
    done = run("/usr/bin/python3", "-m", "pip", "install", "--no-index", "--no-cache-dir", "--target",
               tmp_path / "site", MODULE, env=environment)
    assert done.returncode == 0, done.stderr
    shown = run("/usr/bin/python3", "-I", "-c", f"import sys; sys.path.insert(0, '{tmp_path}/site'); import promisefs; "
                                                "print(promisefs.Store)")
    assert shown.stdout == "<class 'promisefs.store.Store'>\n", shown.stderr


def test_all_names_are_documented():
    script = (f"import sys; sys.path.insert(0, {str(MODULE)!r}); import inspect, promisefs\n"
              "for name in promisefs.__all__:\n"
              "    thing = getattr(promisefs, name)\n"
              "    members = vars(thing).items() if inspect.isclass(thing) else ()\n"
              "    for what, one in [(name, thing), *((f'{name}.{n}', f) for n, f in members if n[0] != '_')]:\n"
              "        if (inspect.isfunction(one) or inspect.isclass(one)) and not inspect.getdoc(one): print(what)\n")
    done = run(sys.executable, "-B", "-c", script)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {"StaticLifetime.done"}

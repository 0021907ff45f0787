"""The Python module in tools/python, on real mounts; the checks are in python_checks.py."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import zipfile

import pytest

from pfs import REPO, check_store, run

TESTS = pathlib.Path(__file__).parent
MODULE = REPO / "tools/python"
SKIPPED = 77
SECONDS = 45


def names(script):
    return re.findall(r"^@check\ndef (\w+)", (TESTS / script).read_text(), re.M)


def run_check(script, name, directory):
    """Run a check in a process of its own, which is ended with all that it has started."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen([sys.executable, TESTS / script, name, directory], stdin=subprocess.DEVNULL, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, env=environment)
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate()
        pytest.fail(f"{name} did not end within {SECONDS} s\n{err}")
    finally:
        with pytest.MonkeyPatch.context():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    if process.returncode == SKIPPED:
        pytest.skip(out.strip())
    assert process.returncode == 0, err
    assert "Warning" not in err and "Exception ignored" not in err, err


@pytest.mark.parametrize("name", names("python_checks.py"))
def test_module(mnt, name):
    run_check("python_checks.py", name, mnt.root)
    handles = {kind: os.listdir(mnt.mount.control / kind) for kind in ("own", "ref", "mut")}
    assert not any(handles.values()), handles


def test_all_checks_are_run():
    listed = run(sys.executable, TESTS / "python_checks.py", "--list")
    assert listed.stdout.split() == names("python_checks.py") and len(set(listed.stdout.split())) > 20


def test_nothing_is_left_behind(own):
    for name in ("submit", "cancel", "nothing_torn_is_published", "context_lifetime"):
        run_check("python_checks.py", name, own.root / name)
    assert check_store(own.mount) == [] or os.listdir(own.mount.control / "aborted")


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
    done = run("/usr/bin/python3", "-m", "pip", "install", "--no-index", "--no-cache-dir", "--target", tmp_path / "site",
               MODULE, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HOME": str(tmp_path)})
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

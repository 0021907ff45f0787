"""The core of the suite once more, by an ordinary user: mounts through fusermount3, no passthrough, no allow_other."""
import os
import re
import shutil
import stat
import subprocess
import sys

import pytest

import pfs

CORE = ["test_objects.py", "test_futures.py", "test_namespace.py", "test_control.py", "test_lifetimes.py",
        "test_processes.py", "test_ownership.py", "test_once.py", "test_cli_handles.py", "test_wait_timeout.py"]


def why_not():
    """Why an ordinary user cannot mount here, or None."""
    helper = shutil.which("fusermount3")
    if not helper:
        return "no fusermount3"
    if not (os.stat(helper).st_mode & stat.S_ISUID and os.stat(helper).st_uid == 0):
        return f"{helper} is not setuid root"
    if "NoNewPrivs:\t1" in open("/proc/self/status").read():
        return "this process may not gain privileges, so fusermount3 has none"
    return None


@pytest.fixture(scope="module")
def copy(scratch, open_device):
    """The tests and the command where the user can read them."""
    base = scratch / "unprivileged"
    shutil.copytree(pfs.TESTS, base / "tests", ignore=shutil.ignore_patterns("__pycache__", "*.c", "*.h"))
    shutil.copy(pfs.binary(), base / "promisefs")
    (base / "tmp").mkdir()
    for folder, _, names in os.walk(base):
        for path in [folder, *(os.path.join(folder, name) for name in names)]:
            os.chmod(path, os.stat(path).st_mode | 0o555)
            os.chown(path, pfs.NOBODY, pfs.NOBODY)
    return base


@pytest.mark.needs_root
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CORE)
def test_by_an_ordinary_user(copy, name):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    environment = {**os.environ, "PROMISEFS_BIN": str(copy / "promisefs"), "PROMISEFS_TEST_TMP": str(copy / "tmp"),
                   "HOME": str(copy / "tmp"), "TMPDIR": str(copy / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "core", "--tb=short",
                           "-rf", str(copy / "tests" / name)], cwd=copy, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=580,
                          user=pfs.NOBODY, group=pfs.NOBODY, extra_groups=[])
    last = done.stdout.strip().splitlines()[-1]
    assert done.returncode == 0 and re.search(r"[1-9]\d* passed", last), done.stdout[-20_000:]

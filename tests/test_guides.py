"""The guides in docs/guides do what they say."""
import os
import re
import shutil
import sys

import pytest

from pfs import PYTHON, REPO, check_store, run

GUIDES = REPO / "docs/guides"
SCRIPTS = sorted(path.name for path in GUIDES.iterdir() if path.suffix in (".sh", ".py"))
EXECUTORS = sorted(path.name for path in (GUIDES / "executors").iterdir() if path.suffix in (".sh", ".py"))
NEEDED = {"parallel.sh": "parallel", "make.sh": "make", "slurm.sh": "setfattr"}


def test_all_are_listed():
    text = (GUIDES / "README.md").read_text()
    assert SCRIPTS == sorted(["object-lifetimes.sh", "object_lifetimes.py", "proxy-futures.sh", "proxy_futures.py"])
    assert all(f"({name})" in text for name in SCRIPTS)
    assert EXECUTORS and all(f"(executors/{name})" in text for name in EXECUTORS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_guide(own, name):
    command = [*PYTHON] if name.endswith(".py") else ["bash"]
    done = run(*command, GUIDES / name, own.root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all as it should be\n")
    assert not done.stderr or name.endswith(".sh")  # bash says who was killed
    control = own.mount.control
    assert os.listdir(own.root) == [] and not any(os.listdir(control / name) for name in ("own", "ref", "mut"))
    assert check_store(own.mount) == []


@pytest.mark.parametrize("name", EXECUTORS)
def test_executor(own, name):
    program = NEEDED.get(name)
    if program and not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    environment = {**os.environ, "PYTHONPATH": str(REPO / "tools/python"), "PYTHONDONTWRITEBYTECODE": "1",
                   "HOME": str(own.mount.base)}
    command = [sys.executable] if name.endswith(".py") else ["bash"]
    done = run(*command, GUIDES / "executors" / name, own.root, env=environment)
    assert done.returncode == 0 and done.stdout.endswith("all as it should be\n"), done.stdout + done.stderr
    assert not done.stderr
    control = own.mount.control
    assert os.listdir(own.root) == [] and not any(os.listdir(control / name) for name in ("own", "ref", "mut"))
    assert check_store(own.mount) == []


def test_python_examples(own, tmp_path):
    """The blocks of docs/guides/python.md, one after the other."""
    blocks = re.findall(r"^```python\n(.*?)^```", (GUIDES / "python.md").read_text(), re.M | re.S)
    assert len(blocks) >= 4
    script = tmp_path / "examples.py"
    script.write_text(f"mountpoint = {os.fspath(own.root)!r}\n" + "\n".join(blocks))
    environment = {**os.environ, "PYTHONPATH": str(REPO / "tools/python"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = run(sys.executable, "-X", "dev", script, env=environment)
    assert done.returncode == 0 and not done.stderr, done.stderr

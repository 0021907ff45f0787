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
LANGUAGES = sorted(path.name for path in (GUIDES / "languages").iterdir() if path.name != "run.sh")
NEEDED = {"parallel.sh": "parallel", "make.sh": "make", "slurm.sh": "setfattr"}

# How a program is built, where it is, and run; the first word of each is what must be installed.
WAYS = {
    "workflow.sh": ((), ("bash", "{source}")),
    "workflow.py": ((), (sys.executable, "{source}")),
    "workflow.pl": ((), ("perl", "{source}")),
    "workflow.js": ((), ("node", "{source}")),
    "workflow.tcl": ((), ("tclsh", "{source}")),
    "workflow.lua": ((), ("lua5.4", "{source}")),
    "workflow.R": ((), ("Rscript", "{source}")),
    "workflow.c": (("gcc", "-Wall", "-Werror", "{source}", "-o", "{out}/workflow"), ("{out}/workflow",)),
    "workflow.rs": (("rustc", "--edition=2021", "-o", "{out}/workflow", "{source}"), ("{out}/workflow",)),
    "workflow.go": (("go", "build", "-o", "{out}/workflow", "{source}"), ("{out}/workflow",)),
    "Workflow.java": (("javac", "-d", "{out}", "{source}"), ("java", "-cp", "{out}", "Workflow")),
}


def test_all_are_listed():
    text = (GUIDES / "README.md").read_text()
    assert SCRIPTS == sorted(["object-lifetimes.sh", "object_lifetimes.py", "proxy-futures.sh", "proxy_futures.py"])
    assert all(f"({name})" in text for name in SCRIPTS)
    assert set(LANGUAGES) == set(WAYS) and all(f"(languages/{name})" in text for name in [*LANGUAGES, "run.sh"])
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


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", LANGUAGES)
def test_language(new_mount, name, tmp_path):
    """The same program in every language that is installed."""
    places = {"source": GUIDES / "languages" / name, "out": tmp_path}
    build, program = [[word.format(**places) for word in words] for words in WAYS[name]]
    for words in (build, program):
        if words and "/" not in words[0] and not shutil.which(words[0]):
            pytest.skip(f"{words[0]} is not installed")
    environment = {**os.environ, "GOCACHE": str(tmp_path / "go"), "GO111MODULE": "off"}
    if build:
        built = run(*build, env=environment, timeout=120)
        assert built.returncode == 0, built.stderr
    space = new_mount()
    done = run("bash", GUIDES / "languages/run.sh", space.root, *program, env=environment)
    assert done.returncode == 0 and done.stdout == "all as it should be\n", done.stdout + done.stderr
    control = space.mount.control
    assert os.listdir(space.root) == [] and not any(os.listdir(control / name) for name in ("own", "ref", "mut"))
    assert check_store(space.mount) == []


def test_python_examples(own, tmp_path):
    """The blocks of docs/guides/python.md, one after the other."""
    blocks = re.findall(r"^```python\n(.*?)^```", (GUIDES / "python.md").read_text(), re.M | re.S)
    assert len(blocks) >= 4
    script = tmp_path / "examples.py"
    script.write_text(f"mountpoint = {os.fspath(own.root)!r}\n" + "\n".join(blocks))
    environment = {**os.environ, "PYTHONPATH": str(REPO / "tools/python"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = run(sys.executable, "-X", "dev", script, env=environment)
    assert done.returncode == 0 and not done.stderr, done.stderr

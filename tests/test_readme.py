"""The transcript in README.md is what really happens."""
import os
import re
import shlex
import subprocess

import pytest

from pfs import REPO, binary, mount_table, run

BLOCK = re.compile(r"^```console\n(.*?)^```", re.M | re.S)
MARK = "-- end of output --"


def transcript():
    """[(command, expected output)] of the README's console block; a line that ends in a backslash goes on."""
    path = REPO / "README.md"
    blocks = BLOCK.findall(path.read_text()) if path.exists() else []
    if not blocks:
        return []
    steps = []
    for line in blocks[0].splitlines(keepends=True):
        if line.startswith("$ "):
            steps.append([line[2:], ""])
        elif line.startswith("> ") and steps and not steps[-1][1]:
            steps[-1][0] += line[2:]
        elif steps:
            steps[-1][1] += line
    return [(command, expected) for command, expected in steps]


def as_pattern(expected):
    """`...` stands for anything within a line, a line of nothing else for any number of lines."""
    text = re.escape(expected)
    text = re.sub(r"^\\\.\\\.\\\.\\?\n", r"(?:.*\n)*?", text, flags=re.M)
    return text.replace(r"\.\.\.", ".*?")


def session(steps, folder, timeout):
    """Run the commands in one bash; the output of each."""
    script = "".join(f"{command.rstrip()}\necho; echo {shlex.quote(MARK)}\n" for command, _ in steps)
    path = f"{os.path.dirname(binary())}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
    shell = subprocess.run(["bash", "-s"], input=script, text=True, cwd=folder, timeout=timeout, env=environment,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return shell.stdout.split(f"\n{MARK}\n")[:-1]


def same(expected, got):
    """True if the output is the expected one, trailing white space aside."""
    def tidy(text):
        return "".join(line.rstrip() + "\n" for line in text.splitlines()) if text.strip() else ""
    return re.fullmatch(as_pattern(tidy(expected)), tidy(got)) is not None


@pytest.fixture
def folder(scratch, numbers):
    path = scratch / f"readme-{next(numbers)}"
    path.mkdir()
    yield path
    for point in mount_table():
        if point.startswith(f"{path}/"):
            run("fusermount3", "-u", "-z", point)


@pytest.mark.timeout(120)
def test_the_transcript_of_the_readme(folder):
    steps = transcript()
    assert steps, "README.md has no ```console block with `$ ` lines"
    outputs = session(steps, folder, 90)
    report = "\n".join(f"$ {command.rstrip()}\n{out}" for (command, _), out in zip(steps, outputs))
    assert len(outputs) == len(steps), report
    for (command, expected), got in zip(steps, outputs):
        assert same(expected, got), f"$ {command}expected:\n{expected}got:\n{got}\n--- whole session:\n{report}"


@pytest.mark.parametrize("expected, got, wanted", [
    ("a\n", "a\n", True), ("a\n", "b\n", False), ("a ... c\n", "a bbb c\n", True), ("...\n", "x\ny\n", True),
    ("...\n", "", True),
    ("a\n...\nd\n", "a\nb\nc\nd\n", True), ("a\n...\nd\n", "a\nb\n", False), ("", "", True), ("", "x\n", False),
    ("pid=... uid=0\n", "pid=12 uid=0\n", True),
])
def test_how_outputs_are_compared(expected, got, wanted):
    assert same(expected, got) == wanted

"""The pipeline of docs/guides/languages prints the same in all languages, and they work together."""
import collections
import contextlib
import os
import re
import shutil
import signal
import subprocess

import pytest

from pfs import DEADLINE, REPO, check_store, eventually

FOLDER = REPO / "docs/guides/languages"
PATH = f"/usr/bin:/bin:{os.environ['PATH']}"  # Debian's own first
Row = collections.namedtuple("Row", "name program packages compile run")

LINES = ["the sum is 5050", None, "scratch says: not for long", "scratch is gone", "the list is 1 2 3"]
TICKETS = ["the ticket is gone", "the ticket is mine: admit one"]
PRODUCER = ["one answers 5050", "two answers 5050", "the list is 1 2 3 4"]


def table():
    """The rows of the table of commands in the README: they are what is tested."""
    rows = []
    for line in (FOLDER / "README.md").read_text().splitlines():
        if "](pipeline." in line:
            name, program, packages, compile_, run = [cell.strip() for cell in line.strip("|").split("|")]
            program = re.fullmatch(r"\[(.*)\]\(\1\)", program)[1]
            rows.append(Row(name, program, packages.split(", "), compile_.strip("`"), run.strip("`")))
    return {row.name: row for row in rows}


LANGUAGES = table()
pytestmark = pytest.mark.timeout(180)  # compilers are slow on a busy machine


class Commands:
    """What runs the program of each language; compiled once."""

    def __init__(self, out):
        self.environment = {**os.environ, "PATH": PATH, "here": str(FOLDER), "out": str(out), "GOTOOLCHAIN": "local",
                            "GOCACHE": str(out / "go-cache"), "PYTHONDONTWRITEBYTECODE": "1"}
        self.compiled = {}

    def why_not(self, row):
        """None if the language is installed, else what is missing."""
        tools = [command.split()[0] for command in (row.compile, row.run) if command and not command.startswith("$")]
        missing = [tool for tool in tools if not shutil.which(tool, path=PATH)]
        return f"{' and '.join(missing)} not installed ({', '.join(row.packages)})" if missing else None

    def prepare(self, row):
        reason = self.why_not(row)
        if reason and os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; tools/test should have installed it")
        if reason:
            pytest.skip(reason)
        if row.compile and row.name not in self.compiled:
            done = subprocess.run(["bash", "-c", row.compile], cwd=FOLDER, env=self.environment, text=True,
                                  stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
            assert done.returncode == 0, done.stdout + done.stderr
            self.compiled[row.name] = True

    def start(self, row, mount, *role):
        command = f"exec {row.run} {' '.join(role)}"
        return subprocess.Popen(["bash", "-c", command], cwd=mount, env=self.environment, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True)


@pytest.fixture(scope="session")
def commands(scratch):
    out = scratch / "languages"
    out.mkdir()
    return Commands(out)


@contextlib.contextmanager
def ended(processes):
    """Whatever happens: no process of these, nor a child of one, is left."""
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def output(process, who):
    """The lines of a process that must have been successful, without the name that each begins with."""
    out, complaints = process.communicate(timeout=DEADLINE * 2)
    assert process.returncode == 0 and complaints == "", f"{who}: {process.returncode} {out} {complaints}"
    lines = out.splitlines()
    assert all(line.startswith(f"{who}: ") for line in lines), out
    return [line[len(who) + 2:] for line in lines]


def waiting(space):
    return sum(wait["key"] == "demo/numbers" for wait in space.waits())


def pipeline(space, commands, one, two, producer):
    """Runs it with a program of any language in each role, and looks at what they print."""
    (space.mount.control / "wait-timeout").write_text(f"{DEADLINE:g}s")  # of this process and what it starts
    os.mkdir(space / "demo")
    rows = {"one": one, "two": two}
    with ended([commands.start(row, space.root, "consumer", name) for name, row in rows.items()]) as processes:
        eventually(lambda: waiting(space) == 2 or any(process.poll() is not None for process in processes))
        processes.append(commands.start(producer, space.root, "producer"))
        got = {name: output(process, name) for name, process in zip([*rows, "producer"], processes)}
    assert got["producer"] == PRODUCER
    assert sorted(got[name][1] for name in rows) == TICKETS
    for name in rows:
        assert [line for at, line in enumerate(got[name]) if at != 1] == [line for line in LINES if line]
    check_events(space)
    check_rest(space)


def check_events(space):
    """What happened did so in the order that the rules demand."""
    events = [(event["event"], event.get("detail")) for event in space.history()]
    assert events.count(("evict", "once")) == 1 and ("expire", "lease") in events
    turn = events.index(("borrow", "mut/demo-writer"))
    for handle in ("ref/demo-one", "ref/demo-two"):
        assert events.index(("borrow", handle)) < events.index(("expire", "lease"))
        assert events.index(("release", handle)) < turn


def check_rest(space):
    """Nothing is left but the numbers and the answers."""
    assert sorted(os.listdir(space / "demo")) == ["answer-one", "answer-two", "numbers"]
    assert not any(os.listdir(space.mount.control / kind) for kind in ("own", "ref", "mut"))
    assert check_store(space.mount) == []


def test_the_table_is_complete():
    programs = sorted(path.name for path in FOLDER.iterdir() if path.name.startswith("pipeline."))
    assert sorted(row.program for row in LANGUAGES.values()) == programs and len(programs) == 11
    listed = re.findall(r"^\w+_packages=\(([^)]*)\)", (REPO / "tools/lib.sh").read_text(), re.M)
    installed = {"bash", "coreutils", *" ".join(listed).split()}
    assert {package for row in LANGUAGES.values() for package in row.packages} <= installed


@pytest.mark.parametrize("name", LANGUAGES)
def test_language(own, commands, name):
    row = LANGUAGES[name]
    commands.prepare(row)
    pipeline(own, commands, row, row, row)


@pytest.mark.parametrize("at", range(0, len(LANGUAGES), 2))
def test_languages_together(own, commands, at):
    """Every language meets others: three of those that are installed."""
    rows = [row for row in LANGUAGES.values() if commands.why_not(row) is None]
    chosen = [rows[(at + step) % len(rows)] for step in (0, 3, 5)]
    for row in chosen:
        commands.prepare(row)
    pipeline(own, commands, *chosen)


@pytest.mark.parametrize("row", LANGUAGES.values(), ids=LANGUAGES)
def test_nobody_sleeps(row):
    text = (FOLDER / row.program).read_text()
    assert not re.search(r"sleep|setTimeout|wait-timeout", text, re.I)

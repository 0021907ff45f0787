#!/usr/bin/python3
"""The pipeline of tools/quickstart: ordinary programs connected by nothing but paths in a mount of promisefs.

Every consumer is started before the producer that it reads from. The programs know nothing of each other and of
promisefs: each opens its input as any file, and open(2) waits until the input is there. What waited for what, and for
how long, is sampled from MOUNTPOINT/.promisefs/waits while it happens. At the end the same commands are run once more
outside the mount, producers first as usual, and all results are compared byte by byte.
"""

import argparse
import filecmp
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.005
LIMIT_SECONDS = 120
SOURCE_PARTS = ("core", "meta", "fs", "tools", "tests", "docs", "meson.build", "README.md", "LICENSE")
DOCUMENTS = ("/usr/share/common-licenses", "/usr/share/doc")
MAX_DOCUMENTS = 500


class DemoError(Exception):
    pass


class Stage:
    """One process: it reads the keys `inputs` and writes the key `output`."""

    def __init__(self, output, inputs, command):
        self.output, self.inputs, self.command = output, inputs, command
        self.process = None


class Wait:
    """A process of the stage `stage`, found waiting for a key; `seconds` is up to the moment when it no longer was."""

    def __init__(self, key, pid, command, before_ms):
        self.key, self.pid, self.command = key, pid, command
        self.since = time.monotonic() - before_ms / 1000
        self.seconds = None
        try:
            self.stage = os.getsid(pid)  # each stage is a session of its own, named by its first process
        except ProcessLookupError:
            self.stage = None


def quoted(paths):
    return " ".join(shlex.quote(str(path)) for path in paths)


def documents():
    """The licences and copyright notices that Debian puts on every machine."""
    found = []
    for folder in DOCUMENTS:
        names = sorted(Path(folder).rglob("copyright" if folder.endswith("doc") else "*"))
        found += [name for name in names if name.is_file() and not name.is_symlink()]
    return found[:MAX_DOCUMENTS]


def stages(list_file):
    """In the order in which they are started: who reads comes before who writes."""
    parts = [part for part in SOURCE_PARTS if (SOURCE / part).exists()]
    words = "tr -cs A-Za-z '\\n' | tr A-Z a-z | sort"
    return [
        Stage("report.txt", ["sums.txt", "top-words.txt", "shared-words.txt"],
              "{ cat sums.txt && echo 'most frequent words:' && cat top-words.txt && "
              "echo \"words in both: $(wc -l < shared-words.txt)\"; } > report.txt"),
        Stage("shared-words.txt", ["code-words.txt", "words.txt"],
              "comm -12 code-words.txt <(uniq words.txt) > shared-words.txt"),
        Stage("top-words.txt", ["words.txt"],
              "uniq -c words.txt | sort -k1,1nr -k2 | sed -n 1,5p > top-words.txt"),
        Stage("sums.txt", ["source.tar", "source.tar.gz"], "sha256sum source.tar source.tar.gz > sums.txt"),
        Stage("code-words.txt", ["source.tar"], f"tar -xOf source.tar | {words} -u > code-words.txt"),
        Stage("source.tar.gz", ["source.tar"], "gzip -nc < source.tar > source.tar.gz"),
        Stage("words.txt", ["documents.txt"], f"cat documents.txt | {words} > words.txt"),
        Stage("documents.txt", [], f"xargs -0 cat < {shlex.quote(str(list_file))} > documents.txt"),
        Stage("source.tar", [],
              f"tar -C {shlex.quote(str(SOURCE))} --exclude=__pycache__ --sort=name --mtime=@0 --owner=0 --group=0 "
              f"-cf - {quoted(parts)} > source.tar"),
    ]


def start(stage, folder):
    stage.process = subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", stage.command], cwd=folder, stdin=subprocess.DEVNULL,
        env=dict(os.environ, LC_ALL="C"), start_new_session=True)


def stop(running):
    for stage in running:
        if stage.process and stage.process.poll() is None:
            os.killpg(stage.process.pid, signal.SIGKILL)
            stage.process.wait()


def waiting_now(mount, prefix):
    """The lines of .promisefs/waits about keys below `prefix`."""
    lines = (mount / ".promisefs/waits").read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return [row for row in rows if row["key"].lstrip("/").startswith(prefix + "/")]


class Monitor:
    """Follows `waits` and the processes until all have ended."""

    def __init__(self, mount, prefix):
        self.mount, self.prefix = mount, prefix
        self.open, self.closed = {}, []

    def sample(self):
        rows = waiting_now(self.mount, self.prefix)
        now = time.monotonic()
        current = {}
        for row in rows:
            key = row["key"].rsplit("/", 1)[1]
            current[(row["pid"], key)] = self.open.get((row["pid"], key)) or Wait(
                key, row["pid"], row["command"], row["waited_ms"])
        for name, wait in self.open.items():
            if name not in current:
                wait.seconds = now - wait.since
                self.closed.append(wait)
        self.open = current

    def until(self, condition, what):
        limit = time.monotonic() + LIMIT_SECONDS
        while not condition():
            if time.monotonic() > limit:
                raise DemoError(f"gave up after {LIMIT_SECONDS} s: {what}")
            self.sample()
            time.sleep(SAMPLE_SECONDS)


def start_consumers(folder, consumers, monitor):
    """Starts those who read and returns when all of them wait, and have waited for a second."""
    print(f"\nDeclared the futures in {folder}. Starting the consumers; nothing that they read exists yet:")
    for stage in consumers:
        start(stage, folder)
        print(f"  pid {stage.process.pid:<8}{stage.command}")
    everybody = {stage.process.pid for stage in consumers}

    def everybody_waits():
        early = [stage.command for stage in consumers if stage.process.poll() is not None]
        if early:
            raise DemoError(f"ended before anything was there to read: {early[0]}")
        return {wait.stage for wait in monitor.open.values()} >= everybody

    monitor.until(everybody_waits, "not every consumer came to wait")
    time.sleep(1)
    monitor.sample()
    everybody_waits()


def follow_to_the_end(pipeline, monitor):
    running = list(pipeline)

    def all_ended():
        for stage in list(running):
            if stage.process.poll() is not None:
                running.remove(stage)
                if stage.process.returncode:
                    raise DemoError(f"status {stage.process.returncode}: {stage.command}")
        return not running

    monitor.until(all_ended, "not every stage ended")
    monitor.sample()


def run_inside(mount, folder, pipeline, promisefs):
    """Starts consumers, shows them waiting, starts producers, follows all to the end, shows who waited how long."""
    consumers = [stage for stage in pipeline if stage.inputs]
    producers = [stage for stage in pipeline if not stage.inputs]
    for stage in pipeline:
        subprocess.run([promisefs, "future", str(folder / stage.output)], check=True, stdout=subprocess.DEVNULL)
    monitor = Monitor(mount, str(folder.relative_to(mount)))
    start_consumers(folder, consumers, monitor)

    outputs = {stage.process.pid: stage.output for stage in consumers}
    print("\nWho waits for what now (.promisefs/waits):")
    for wait in sorted(monitor.open.values(), key=lambda wait: wait.key):
        writes = outputs.get(wait.stage, "?")
        print(f"  {wait.command:<10} pid {wait.pid:<8} waits for {wait.key:<18} to write {writes}")
    print("\nStarting the producers:")
    for stage in producers:
        start(stage, folder)
        print(f"  pid {stage.process.pid:<8}{stage.command}")
    follow_to_the_end(pipeline, monitor)

    print("\nWhat waited for what, and for how long:")
    for wait in sorted(monitor.closed, key=lambda wait: (wait.key, -wait.seconds)):
        writes = outputs.get(wait.stage, "?")
        print(f"  {wait.command:<10} waited {wait.seconds:7.3f} s for {wait.key:<18} to write {writes}")
    inputs = {key for stage in pipeline for key in stage.inputs}
    for key in sorted(inputs - {wait.key for wait in monitor.closed}):
        print(f"  nobody had to wait for {key}: it was there when its reader came to it")


def verify(folder, pipeline):
    """Runs the same commands outside, producers first, and compares every file."""
    with tempfile.TemporaryDirectory(prefix="promisefs-outside-") as outside:
        for stage in reversed(pipeline):
            start(stage, outside)
            if stage.process.wait():
                raise DemoError(f"outside of the mount this failed: {stage.command}")
        names = [stage.output for stage in pipeline]
        same, different, missing = filecmp.cmpfiles(folder, outside, names, shallow=False)
    if different or missing:
        raise DemoError(f"not what the same commands give outside: {', '.join(different + missing)}")
    size = sum((folder / name).stat().st_size for name in same)
    print(f"\nRight: {len(same)} of {len(names)} files ({size:,} bytes) are, byte for byte, "
          "what the same commands give outside of the mount.")


def main():
    parser = argparse.ArgumentParser(description="Run a pipeline, consumers first, in a mount of promisefs.")
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("--promisefs", default=str(SOURCE / "build/tools/promisefs/promisefs"), help="the command")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("pipeline: ended by SIGTERM"))
    mount = arguments.mountpoint.resolve()
    folder = mount / "quickstart"
    pipeline = []
    with tempfile.NamedTemporaryFile(prefix="promisefs-list-") as list_file:
        try:
            list_file.write(b"".join(os.fsencode(path) + b"\0" for path in documents()))
            list_file.flush()
            if folder.exists():
                print(f"Removing what the run before this one left in {folder}.")
                shutil.rmtree(folder)
            folder.mkdir()
            pipeline = stages(list_file.name)
            run_inside(mount, folder, pipeline, arguments.promisefs)
            print("\nreport.txt:")
            print("  " + (folder / "report.txt").read_text().rstrip("\n").replace("\n", "\n  "))
            verify(folder, pipeline)
        except KeyboardInterrupt:
            sys.exit("pipeline: interrupted")
        except (DemoError, OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"pipeline: {error}")
        finally:
            stop(pipeline)


if __name__ == "__main__":
    main()

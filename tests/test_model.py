"""Several processes do random things in a mount and in model.py, and both must answer the same.

Hypothesis chooses the steps; every answer is compared, and now and then all that can be seen. `--model-steps N` makes
it longer, `--model-seed N` replays a run or makes another one.
"""
import collections
import contextlib
import math
import os
import pickle
import re
import select
import struct
import subprocess
import time

import pytest
from hypothesis import HealthCheck, Phase, seed, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from conftest import why_no_passthrough
from model import File, Handle, Model, OneOf, Refused, Version
from pfs import PYTHON, TESTS, check_store, sanitized

TIMEOUT = 4000
STEPS_OF_AN_EXAMPLE = 250
SHORT_EXAMPLES = 10  # that Hypothesis begins with
SHRINKING = 60       # seconds to look for a short way to a failure
LATE = 5             # seconds for what may come late
BLOCKED = 15         # seconds after which a call that must not wait is taken for one that does
PROCESSES = 3
OPEN_MAX = 12        # descriptors at a time
KEYS = ["a", "b", "c", "s/a", "t/a", "s/b"]
FOLDERS = ["s", "t"]
LIFETIMES = ["life:K", "life:L"]
MEMBERS = ["life:K/a", "life:K/b", "life:L/a"]
AREAS = {"life": "lifetimes", "own": "own", "ref": "ref", "mut": "mut"}
HANDLES = ["own:x", "own:y", "ref:q", "ref:r", "mut:m", "mut:n"]
READABLE = [*KEYS, *KEYS, *MEMBERS, *HANDLES]
ANYWHERE = [*KEYS, *FOLDERS, *LIFETIMES, *MEMBERS, *HANDLES]
OPENING = ["w", "wt", "wct", "wct", "wcx", "wa", "wca", "w+", "w+ct"]
ERRORS = {"ENOSPC: full": ("ENOSPC", "full"), "it broke": ("EIO", "it broke"), "EIO": ("EIO", "")}
PAST = "2001-01-01T00:00:00Z"

process = st.integers(0, PROCESSES - 1)
descriptor = st.integers(0, 15)
size = st.sampled_from([0, 1, 7, 7, 300, 300, 5000, 70_000])


class Blocked(Exception):
    pass


class Enough(BaseException):
    """No more looking for a shorter story; passes through Hypothesis."""


class Worker:
    """Our end of model_worker.py."""

    source = (TESTS / "model_worker.py").read_text()

    def __init__(self):
        self.process = subprocess.Popen([*PYTHON, "-c", self.source], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        bufsize=0, start_new_session=True, cwd="/")
        self.pid = self.process.pid
        self.poll = select.poll()
        self.poll.register(self.process.stdout, select.POLLIN)

    def _read(self, count):
        data = b""
        while len(data) < count:
            if not self.poll.poll(BLOCKED * 1000):
                raise Blocked(f"process {self.pid} waits")
            part = os.read(self.process.stdout.fileno(), count - len(data))
            assert part, f"process {self.pid} has ended"
            data += part
        return data

    def calls(self, calls):
        """Outcomes of (name, arguments)."""
        body = pickle.dumps(calls)
        self.process.stdin.write(struct.pack("=I", len(body)) + body)
        return pickle.loads(self._read(*struct.unpack("=I", self._read(4))))

    def call(self, name, *arguments):
        return self.calls([(name, arguments)])[0]

    def end(self, killed=True):
        """By SIGKILL, or in the ordinary way. When it returns the process has ended."""
        if killed:
            self.process.kill()
        self.process.stdin.close()
        self.process.wait(BLOCKED)
        self.process.stdout.close()


class World:
    """A mount, the processes, and how far we are. Goes on from one example to the next."""

    def __init__(self, space):
        self.space, self.mount = space, space.mount
        self.workers = [Worker() for _ in range(PROCESSES)]
        self.observer = Worker()
        self.spare = Worker()
        self.steps = self.examples = 0
        self.stories = []
        self.counts = collections.Counter()
        self.until = math.inf
        self.patience = LATE

    def failed(self, length, story):
        """Keep the shortest story."""
        if not self.stories:
            self.until = time.monotonic() + SHRINKING
            self.patience = 1
            print(f"the first failure, in example {self.examples}:\n{story}", flush=True)
        self.stories.append((length, story))
        raise AssertionError(story)

    def replace(self, number, killed):
        self.workers[number].end(killed)
        self.workers[number], self.spare = self.spare, Worker()

    def everybody(self):
        return [*self.workers, self.observer, self.spare]

    def end(self):
        for worker in self.everybody():
            with contextlib.suppress(Exception):
                worker.end()


class Machine(RuleBasedStateMachine):
    def __init__(self, world):
        super().__init__()
        if time.monotonic() > world.until:
            raise Enough
        self.world = world
        world.examples += 1
        self.name = f"e{world.examples}"
        self.model = Model()
        self.story = []
        self.opened = {}    # number: descriptor of the model
        self.numbers = 0
        self.late = []      # files that close(2) has settled, perhaps a moment later
        self.restarts = self.kills = 0
        self.broken = False  # model and mount differ
        os.mkdir(world.space / self.name)
        self.begin()

    def begin(self):
        """Something to begin with."""
        for path in ("s", "life:K"):
            self.mkdir(0, path)
        for path in ("a", "b", "s/a", "own:x"):
            self.put(0, path, 7)
        for source, path in (("b", "life:K/b"), ("s/a", "ref:r"), ("own:x", "mut:m")):
            self.link(0, source, path)
        self.world.steps -= len(self.story)  # these do not count

    # ---- paths and comparing -----------------------------------------------------------------------------------------

    def real(self, path, view=None):
        """A path of the model in the mount."""
        area, _, rest = path.rpartition(":")
        if area:
            return os.path.join(self.world.mount.control, AREAS[area], f"{self.name}.{rest}")
        if view:
            return os.path.join(self.world.mount.control, view, self.name, rest)
        return os.path.join(self.world.mount.root, self.name, rest)

    def expect(self, method, *arguments):
        try:
            return "ok", method(*arguments)
        except Refused as refused:
            return "errno", refused.names

    @staticmethod
    def same(expected, got):
        if expected[0] == "errno":
            return got[0] == "errno" and got[1] in expected[1]
        if isinstance(expected[1], OneOf):
            return got[1] in expected[1]
        return got == expected

    def wrong(self, what, expected, got):
        self.broken = True
        waits = (self.world.mount.control / "waits").read_text() if self.world.mount.alive else "the daemon is dead\n"
        lines = [*self.story, what, f"  model: {shorten(expected)}", f"  mount: {shorten(got)}", waits]
        self.world.failed(len(lines), "\n".join(lines))

    def note(self, kind, what, got):
        self.world.steps += 1
        self.world.counts[f"{kind} {got[1]}" if got[0] == "errno" else kind] += 1
        what = what.replace(f"{self.world.mount.root}/", "")
        self.story.append(f"{len(self.story):4} {what} -> {shorten(got)}")

    def do(self, who, expected, call, *arguments):
        """A process does what the model has done."""
        what = f"{who}: {call}{arguments!r:.150}"
        try:
            got = self.world.workers[who].call(call, *arguments)
        except Blocked as blocked:
            self.wrong(what, expected, str(blocked))
        self.note(call, what, got)
        if not self.same(expected, got):
            self.wrong(what, expected, got)
        return got

    def observe(self, calls):
        try:
            return self.world.observer.calls(calls)
        except Blocked as blocked:
            self.wrong(f"observer: {calls}", None, str(blocked))

    def settle(self):
        """RELEASE follows close(2); what could overtake it waits here."""
        while self.late:
            file = self.late.pop()
            path = next((self.model.path_of(*place) for place in (
                *file.names, *(handle.place for handle in file.borrows))), None)
            if path:
                self.becomes(path, {"state": file.state, "version": str(file.version)})

    def becomes(self, path, wanted):
        calls = [("get", (self.real(path), name)) for name in wanted]
        got = None
        end = time.monotonic() + self.world.patience
        while time.monotonic() < end:
            got = self.observe(calls)
            if got == [("ok", value) for value in wanted.values()]:
                return
            time.sleep(0.0005)
        self.wrong(f"{path} settles", wanted, got)

    # ---- all that can be seen ----------------------------------------------------------------------------------------

    def attributes_of(self, node):
        """What the model says of the attributes; True: there is one."""
        lifetimes = sorted(self.shown(directory.name) for directory, _ in getattr(node, "memberships", ()))
        shown = {"lease": True if node.lease else None,
                 "pid": None if node.pid is None else str(self.world.workers[node.pid].pid),
                 "lifetimes": "/".join(dict.fromkeys(lifetimes)) or None}
        file = node.file if isinstance(node, Handle) else node
        if isinstance(file, File):
            shown |= {"borrows": file.borrowed, "evict": "1" if file.evict else None,
                      "owner": tuple(self.owner_shown(path) for path in self.model.owners(node))}
        if isinstance(node, Handle):
            shown |= {"state": "ready", "version": str(file.version)}
        elif isinstance(node, File):
            reason = node.error and f"{node.error[0]}: "
            shown |= {"state": node.state, "version": str(node.version), "deadline": True if node.deadline else None,
                      "error": reason if node.error is None or node.error[1] is None else reason + node.error[1]}
        elif node.kind == "keys":
            joins = node.joins is not None and node.joins.alive
            shown |= {"lifetime": self.shown(node.joins.name) if joins else None}
        return shown

    def shown(self, lifetime):
        return f"{self.name}.{lifetime}"

    def owner_shown(self, path):
        area, _, rest = path.rpartition(":")
        return f".promisefs/{area}/{self.name}.{rest}" if area else f"{self.name}/{rest}"

    @staticmethod
    def attribute_is(name, expected, got):
        if got[0] != "ok":
            return False
        if expected is True:
            return got[1] is not None
        if name == "owner":
            return got[1] in expected if expected else got[1] is None
        if name == "error" and expected is not None:
            return got[1] is not None and got[1].startswith(expected)
        if name == "lifetimes" and got[1] is not None:
            return expected == "/".join(sorted(got[1].split("/")))
        return got[1] == expected

    def views(self):
        """(call, is this what it should return?) for everything that can be seen."""
        yield self.listing_view("", self.model.keys)
        for kind in AREAS:
            yield self.area_view(kind)
        lifetimes = self.model.areas["life"]
        for path, directory in self.model.directories():
            yield self.listing_view(path, directory)
            yield from self.attribute_views(path, directory)
        for name, lifetime in lifetimes.entries.items():
            yield self.listing_view(f"life:{name}", lifetime)
            yield from self.attribute_views(f"life:{name}", lifetime)
        for path, file in (*self.model.files(), *self.model.files(self.model.areas["own"])):
            yield from self.attribute_views(path, file)
            yield ("links", (self.real(path),)), ("ok", len(file.names)).__eq__
            yield from self.content_views(path, file, file.borrowed != "mut")
        for kind in ("ref", "mut"):
            for name, handle in self.model.areas[kind].entries.items():
                yield from self.attribute_views(f"{kind}:{name}", handle)
                yield ("links", (self.real(f"{kind}:{name}"),)), ("ok", 1).__eq__
                yield from self.content_views(f"{kind}:{name}", handle.file, True)

        for key, data in self.model.aborted.items():
            if ":" not in key and key not in self.model.unsure:
                yield ("content", (self.real(key, "aborted"),)), ("ok", data).__eq__

    def content_views(self, path, file, readable):
        if file.ready and not (file.evict and readable):
            wanted = ("ok", bytes(file.current.content)) if readable else ("errno", "EBUSY")
            yield ("content", (self.real(path),)), wanted.__eq__
        yield ("get_theirs", (self.real(path), "user.x")), ("ok", file.attributes.get("user.x")).__eq__

    def listing_view(self, path, directory):
        wanted = without_numbers(directory.entries)
        return ("listing", (self.real(path),)), lambda got: got[0] == "ok" and without_numbers(got[1]) == wanted

    def area_view(self, kind):
        """A directory that all examples share."""
        wanted = sorted(self.shown(name) for name in self.model.areas[kind].entries)
        path = os.path.join(self.world.mount.control, AREAS[kind])
        return ("listing", (path,)), lambda got: [
            name for name in got[1] if name.startswith(f"{self.name}.")] == wanted

    def attribute_views(self, path, node):
        for name, value in self.attributes_of(node).items():
            yield (("get", (self.real(path), name)),
                   lambda got, name=name, value=value: self.attribute_is(name, value, got))

    def agree(self):
        """Model and mount show the same. What ends by itself, and what close(2) has published, may come late."""
        self.late.clear()
        views = list(self.views())
        calls, checks = [call for call, _ in views], [check for _, check in views]
        end = time.monotonic() + self.world.patience
        while True:
            got = self.observe(calls)
            wrong = [(call, one) for call, check, one in zip(calls, checks, got) if not check(one)]
            if not wrong:
                return
            if time.monotonic() > end:
                self.wrong(f"{wrong[0][0]} [{len(wrong)} differ]", self.describe(), wrong[:5])
            time.sleep(0.001)

    def describe(self):
        return {path: (file.state, file.version, self.attributes_of(file)) for path, file in self.model.files()}

    def found(self, path, among):
        """Every other time, a path that is there instead of one that is not."""
        if self.model.exists(path) or len(self.story) % 2:
            return path
        there = [one for one in among if self.model.exists(one)]
        return there[among.index(path) % len(there)] if there else path

    # ---- rules: opening, reading, writing ----------------------------------------------------------------------------

    def is_unmodelled(self, path, once=False):
        """Taking what is not written yet, or is in a lifetime."""
        with contextlib.suppress(Refused):
            file = self.model.look(path)
            takes = isinstance(file, File) and (once or file.evict)
            again = {name for one in self.model.takers() for name in one.takes}
            return takes and (file.draft or file.state in ("pending", "writing") or file.memberships
                              or file.names & again)
        return False

    def open_in_both(self, who, path, flags):
        if flags == "r" and self.is_unmodelled(path):
            return None
        self.numbers += 1
        nonblocking = flags == "r" and self.model.would_wait(who, path)
        expected = self.expect(self.model.open, who, path, flags)
        if expected[0] == "ok":
            self.opened[self.numbers] = expected[1]
        self.do(who, ("ok", None) if expected[0] == "ok" else expected, "open_file", self.numbers, self.real(path),
                flags + "n" * nonblocking)
        if expected[0] != "ok":
            return None
        self.vanish(expected[1])
        return self.numbers

    def vanish(self, one):
        """The names of what was taken by an open are forgotten a moment later."""
        calls = [("links", (self.real(self.model.path_of(*name)),)) for name in one.takes or ()]
        end = time.monotonic() + self.world.patience
        while (got := self.observe(calls)) and any(outcome[0] == "ok" for outcome in got):
            if time.monotonic() > end:
                self.wrong("the names vanish", [], calls)
            time.sleep(0.0005)

    def pick(self, number):
        numbers = sorted(self.opened)
        return numbers[number % len(numbers)]

    def is_any_open(self):
        return self.opened

    def close_in_both(self, number):
        one = self.opened.pop(number)
        if one.writes and not one.version.revoked:
            self.late.append(one.file)
        self.do(one.process, self.expect(self.model.close, one), "close", number)

    def data(self, length):
        return (b"%d of %s," % (len(self.story), self.name.encode()) * (length // 8 + 1))[:length]

    @rule(who=process, path=st.sampled_from(READABLE))
    def open_for_reading(self, who, path):
        path = self.found(path, READABLE)
        if len(self.opened) < OPEN_MAX:
            self.open_in_both(who, path, "r")

    @rule(who=process, path=st.sampled_from(READABLE), flags=st.sampled_from(OPENING))
    def open_for_writing(self, who, path, flags):
        path = self.found(path, READABLE)
        if len(self.opened) < OPEN_MAX:
            self.open_in_both(who, path, flags)

    @precondition(is_any_open)
    @rule(number=descriptor, length=size)
    def write(self, number, length):
        number = self.pick(number)
        one, data = self.opened[number], self.data(length)
        self.do(one.process, self.expect(self.model.write, one, data), "write", number, data)

    @precondition(is_any_open)
    @rule(number=descriptor)
    def read(self, number):
        number = self.pick(number)
        one = self.opened[number]
        if one.version is None:
            self.settle()
        expected = self.expect(self.model.read, one)
        got = self.do(one.process, expected, "read", number)
        if isinstance(expected[1], OneOf):
            one.outcomes = [outcome for outcome in one.outcomes if got[1] == (
                bytes(outcome.content) if isinstance(outcome, Version) else outcome)][:1]

    @precondition(is_any_open)
    @rule(number=descriptor)
    def close(self, number):
        self.close_in_both(self.pick(number))

    @precondition(is_any_open)
    @rule(number=descriptor)
    def fsync(self, number):
        number = self.pick(number)
        one = self.opened[number]
        if one.writes:
            self.do(one.process, self.expect(self.model.fsync, one), "fsync", number)

    @precondition(is_any_open)
    @rule(number=descriptor, length=size)
    def truncate_open(self, number, length):
        number = self.pick(number)
        one = self.opened[number]
        self.do(one.process, self.expect(self.model.truncate_open, one, length), "truncate_open", number, length)

    @rule(who=process, path=st.sampled_from(READABLE), length=size)
    def truncate(self, who, path, length):
        path = self.found(path, READABLE)
        with contextlib.suppress(Refused):
            self.late.append(self.model.look_at_file(path))
        self.do(who, self.expect(self.model.truncate, who, path, length), "truncate", self.real(path), length)

    @rule(who=process, path=st.sampled_from(READABLE), length=size)
    def put(self, who, path, length):
        number = self.open_in_both(who, path, "wct")
        if number:
            data = self.data(length)
            self.do(who, self.expect(self.model.write, self.opened[number], data), "write", number, data)
            self.close_in_both(number)

    @rule(who=process, path=st.sampled_from(READABLE))
    def get(self, who, path):
        path = self.found(path, READABLE)
        number = self.open_in_both(who, path, "r")
        if number:
            self.do(who, self.expect(self.model.read, self.opened[number]), "read", number)
            self.close_in_both(number)

    @rule(who=process, path=st.sampled_from(KEYS))
    def open_once(self, who, path):
        path = self.found(path, KEYS)
        if len(self.opened) >= OPEN_MAX or self.is_unmodelled(path, once=True):
            return
        self.numbers += 1
        expected = self.expect(self.model.open_once, who, path)
        if expected[0] == "ok":
            self.opened[self.numbers] = expected[1]
        self.do(who, ("ok", None) if expected[0] == "ok" else expected, "open_file", self.numbers,
                self.real(path, "once"), "r")
        if expected[0] == "ok":
            self.vanish(expected[1])

    @rule(who=process, path=st.sampled_from([*KEYS, *HANDLES]), value=st.booleans())
    def evict(self, who, path, value):
        path = self.found(path, [*KEYS, *HANDLES])
        self.settle()
        with contextlib.suppress(Refused):
            if not self.model.look_at_file(path).ready:
                return  # who waits for it may take it, then
        expected = self.expect(self.model.set_evict, path, value)
        self.do(who, expected, "set_ours", self.real(path), "evict", "1" if value else "0")

    def close_disputed(self, who=None):
        """What would go back to a name that somebody else has for the moment, who may lose it at the same time."""
        for number, one in sorted(self.opened.items()):
            there = [directory.entries.get(name) for directory, name in one.takes or ()]
            if who in (None, one.process) and any(isinstance(node, File) and (
                    node.draft or not node.ready or node.pid is not None) for node in there):
                self.close_in_both(number)

    # ---- rules: names ------------------------------------------------------------------------------------------------

    @rule(who=process, source=st.sampled_from(ANYWHERE), path=st.sampled_from(ANYWHERE))
    def link(self, who, source, path):
        source = self.found(source, ANYWHERE)
        self.do(who, self.expect(self.model.link, source, path), "link", self.real(source), self.real(path))

    @rule(who=process, source=st.sampled_from(KEYS), path=st.sampled_from(MEMBERS))
    def join(self, who, source, path):
        source = self.found(source, KEYS)
        self.link(who, source, path)

    @rule(who=process, source=st.sampled_from([*KEYS, *HANDLES]), path=st.sampled_from(HANDLES))
    def borrow(self, who, source, path):
        source = self.found(source, [*KEYS, *HANDLES])
        self.link(who, source, path)

    @rule(who=process, source=st.sampled_from([*KEYS, "own:x"]), length=size)
    def update(self, who, source, length):
        """Borrow it, write it, give it back."""
        source = self.found(source, [*KEYS, "own:x"])
        self.link(who, source, "mut:n")
        if self.model.exists("mut:n"):
            self.put(who, "mut:n", length)
            self.unlink(who, "mut:n")

    @rule(who=process, path=st.sampled_from(HANDLES))
    def release(self, who, path):
        path = self.found(path, HANDLES)
        self.unlink(who, path)

    @rule(who=process, source=st.sampled_from([*KEYS, *HANDLES]), path=st.sampled_from([*KEYS, *HANDLES]))
    def hand_over(self, who, source, path):
        source = self.found(source, [*KEYS, *HANDLES])
        self.rename(who, source, path, True)

    @rule(who=process, source=st.sampled_from(ANYWHERE), path=st.sampled_from(ANYWHERE), replace=st.booleans())
    def rename(self, who, source, path, replace):
        source = self.found(source, ANYWHERE)
        if self.are_one(source, path):
            return  # the kernel knows that they are, or does not
        self.settle()
        self.do(who, self.expect(self.model.rename, source, path, replace), "rename" if replace else "rename_new",
                self.real(source), self.real(path))

    def are_one(self, key, member):
        with contextlib.suppress(Refused):
            return key[:5] != member[:5] and "life:" in (key[:5], member[:5]) and self.model.look(
                key) is self.model.look(member)
        return False

    @rule(who=process, source=st.sampled_from(KEYS), path=st.sampled_from(KEYS))
    def rename_key(self, who, source, path):
        source = self.found(source, KEYS)
        self.rename(who, source, path, True)

    @rule(who=process, path=st.sampled_from(ANYWHERE))
    def unlink(self, who, path):
        path = self.found(path, ANYWHERE)
        if not path.startswith("mut:"):
            self.settle()
        self.do(who, self.expect(self.model.unlink, path), "unlink", self.real(path))

    @rule(who=process, path=st.sampled_from([*FOLDERS, *FOLDERS, *LIFETIMES, *ANYWHERE]))
    def mkdir(self, who, path):
        self.do(who, self.expect(self.model.mkdir, path), "mkdir", self.real(path))

    @rule(who=process, path=st.sampled_from([*FOLDERS, *LIFETIMES, *ANYWHERE]))
    def rmdir(self, who, path):
        path = self.found(path, ANYWHERE)
        self.settle()
        self.do(who, self.expect(self.model.rmdir, path), "rmdir", self.real(path))

    @rule(who=process, path=st.sampled_from(["", *FOLDERS]))
    def listing(self, who, path):
        self.do(who, self.expect(self.model.listing, path), "listing", self.real(path))

    # ---- rules: futures ----------------------------------------------------------------------------------------------

    @rule(who=process, path=st.sampled_from(KEYS))
    def declare(self, who, path):
        self.settle()
        self.do(who, self.expect(self.model.declare, path), "declare", self.real(path, "future"))

    @rule(who=process, path=st.sampled_from(KEYS), length=st.sampled_from([1, 300]))
    def set_future(self, who, path, length):
        self.settle()
        data = self.data(length)
        expected = self.expect(self.model.set_future, who, path, data)
        if expected[0] == "ok":
            self.late.append(self.model.look(path))
        self.do(who, expected, "set_future", self.real(path, "future"), data)

    @rule(who=process, path=st.sampled_from(KEYS))
    def cancel(self, who, path):
        self.settle()
        self.do(who, self.expect(self.model.cancel, path), "unlink", self.real(path, "future"))

    @rule(who=process, path=st.sampled_from(READABLE), error=st.sampled_from(sorted(ERRORS)))
    def fail(self, who, path, error):
        path = self.found(path, READABLE)
        self.settle()
        expected = self.expect(self.model.fail, path, *ERRORS[error])
        self.do(who, expected, "set_ours", self.real(path), "error", error)

    @rule(who=process, path=st.sampled_from(READABLE), given=st.booleans())
    def deadline(self, who, path, given):
        path = self.found(path, READABLE)
        self.settle()
        expected = self.expect(self.model.set_deadline, path, given)
        self.do(who, expected, "set_ours", self.real(path), "deadline", "1h" if given else "none")

    # ---- rules: attributes and what ends by itself -------------------------------------------------------------------

    @rule(who=process, path=st.sampled_from(ANYWHERE), value=st.sampled_from(["1h", "1h", "none", "past"]))
    def lease(self, who, path, value):
        path = self.found(path, ANYWHERE)
        self.settle()
        expected = self.expect(self.model.set_lease, path, value)
        self.do(who, expected, "set_ours", self.real(path), "lease", PAST if value == "past" else value)
        if expected[0] == "ok" and value == "past":
            self.agree()

    @rule(who=process, to=process, path=st.sampled_from(ANYWHERE))
    def bind(self, who, to, path):
        path = self.found(path, ANYWHERE)
        self.settle()
        pid = self.world.workers[to].pid
        expected = self.expect(self.model.set_pid, path, to)
        self.do(who, expected, "set_ours", self.real(path), "pid", "self" if to == who else str(pid))

    @rule(who=process, path=st.sampled_from(FOLDERS), lifetime=st.sampled_from("KL"))
    def joins(self, who, path, lifetime):
        expected = self.expect(self.model.set_joins, path, lifetime)
        self.do(who, expected, "set_ours", self.real(path), "lifetime", self.shown(lifetime))

    @rule(who=process, path=st.sampled_from([*KEYS, *HANDLES]), value=st.sampled_from(["1", "2", None]))
    def attribute(self, who, path, value):
        path = self.found(path, [*KEYS, *HANDLES])
        self.settle()
        expected = self.expect(self.model.set_attribute, path, "user.x", value)
        real = self.real(path)
        if value is None:
            self.do(who, expected, "removexattr", real, "user.x")
        else:
            self.do(who, expected, "set_theirs", real, "user.x", value)

    @rule()
    def look_at_all(self):
        self.agree()
        self.note("look", "look at all", "ok")

    # ---- rules: ends -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.kills < 6)
    @rule(who=process, killed=st.booleans())
    def end_process(self, who, killed):
        self.kills += 1
        self.close_disputed(who)
        self.settle()
        pid = self.world.workers[who].pid
        self.model.end_process(who, killed)
        self.opened = {number: one for number, one in self.opened.items() if one.process != who}
        self.world.replace(who, killed)
        how = "is killed" if killed else "exits"
        self.note(how, f"{who}: pid {pid} {how}", "ok")
        self.agree()

    def record(self):
        """What was opened for writing is recorded a moment later; when this has returned, it is."""
        path = self.real("recorded")
        self.observe([("mkdir", (path,)), ("rmdir", (path,))])

    @precondition(lambda self: self.restarts < 1 and len(self.story) > 30)
    @rule(killed=st.booleans())
    def restart(self, killed):
        """Of the daemon. It is unmounted only when nothing is open."""
        self.restarts += 1
        mount = self.world.mount
        if killed:
            self.close_disputed()
            self.record()
            mount.kill()
            self.model.crash()
            self.opened.clear()
        else:
            for number in sorted(self.opened):
                self.close_in_both(number)
        for worker in self.world.everybody():
            worker.call("close_all")
        if not killed:
            mount.stop()
        mount.start()
        mount.watchdog.arm(mount, TIMEOUT)
        how = "daemon is killed" if killed else "daemon is stopped"
        self.note(how, f"the {how} and started", "ok")
        self.agree()

    def teardown(self):
        try:
            if not self.broken:
                self.agree()
            self.clear()
        finally:
            for worker in self.world.everybody():
                worker.call("close_all")

    def clear(self):
        """Leave nothing behind that makes the next examples slower."""
        calls = [("unlink", (self.real(f"{kind}:{name}"),)) for kind in ("ref", "mut", "own")
                 for name in self.model.areas[kind].entries]
        calls += [("rmdir", (self.real(f"life:{name}"),)) for name in self.model.areas["life"].entries]
        outcomes = self.observe([*calls, ("set_ours", (self.real(""), "lease", PAST))])
        if not self.broken and {kind for kind, _ in outcomes} != {"ok"}:
            self.wrong("clearing", calls, outcomes)


def without_numbers(names):
    """A new file that joins a lifetime where its name is taken has its number in the name."""
    return sorted(re.sub(r"\.\d+$", ".N", name) for name in names)


def shorten(value):
    text = repr(value)
    return text if len(text) < 400 else text[:300] + f"... [{len(text)}]"


def run_machine(world, number, steps):
    """About so many steps, with this seed."""
    def machine():
        return Machine(world)

    seed(number)(machine)
    run_state_machine_as_test(machine, settings=settings(
        max_examples=SHORT_EXAMPLES + math.ceil(steps / STEPS_OF_AN_EXAMPLE),
        stateful_step_count=STEPS_OF_AN_EXAMPLE, deadline=None, database=None, print_blob=False,
        phases=(Phase.generate, Phase.shrink), report_multiple_bugs=False, suppress_health_check=list(HealthCheck)))


@pytest.mark.timeout(TIMEOUT + 60)
def test_mount_and_model_agree(own, request):
    wanted = request.config.getoption("--model-steps")
    first = request.config.getoption("--model-seed")
    steps = wanted if why_no_passthrough() else wanted // 2  # the other half is for the other data path
    if sanitized():
        steps //= 5
    own.mount.watchdog.arm(own.mount, TIMEOUT)
    world = World(own)
    began = time.monotonic()
    print(f"replay with --model-steps {wanted} --model-seed {first}")
    try:
        number = first
        while world.steps < steps:
            run_machine(world, number, steps - world.steps)
            number += 1
    except (Enough, Exception):
        if not world.stories:
            raise
        pytest.fail(f"the shortest failure:\n{min(world.stories)[1]}", pytrace=False)
    finally:
        world.end()
    taken = time.monotonic() - began
    print(f"{world.steps} steps, {world.examples} examples, {taken:.1f} s: {world.steps / taken:.0f} steps per second")
    print(dict(sorted(world.counts.items())))
    assert world.steps >= steps
    assert check_store(own.mount) == []

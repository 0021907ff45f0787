"""What an operation costs: how many requests the caller waits for, and how many SQL statements they lead to. Times vary
from machine to machine, these counts do not: one that grows is a regression, and when one shrinks, so should the table.
Commits come as they come, and each has four statements of its own (BEGIN, COMMIT, BEGIN IMMEDIATE, COMMIT)."""
import os
import re

import pytest

from pfs import opened, sanitized, set_attr

ROUNDS = 40
WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC

# {operation: (requests that are waited for, the same without passthrough, SQL statements without those of commits)}. The
# numbers are of Linux 6.18 and may be smaller with another kernel.
COSTS = {
    "put": (5, 6, 15),           # GETATTR of the directory, LOOKUP, CREATE, GETXATTR (capabilities), WRITE, FLUSH
    "get": (1, 1, 1),            # OPEN
    "get of what is new": (2, 3, 3),  # LOOKUP, OPEN, READ
    "replace": (8, 9, 23),       # GETATTR; LOOKUP and OPEN of the old version, then of the draft; GETXATTR twice, WRITE, FLUSH
    "declare": (6, 6, 10),       # GETATTR three times, LOOKUP, CREATE, FLUSH
    "set": (5, 6, 17),           # LOOKUP, OPEN, GETXATTR twice, WRITE, FLUSH
    "stat": (1, 1, 1),           # GETATTR, as reading has changed the time of access
    "rename": (3, 3, 11),        # GETATTR of the directory, LOOKUP of the new name, RENAME
    "evict": (3, 3, 14),         # GETATTR of the directory, LOOKUP, UNLINK
    "lease": (3, 3, 10),         # LOOKUP, as its name may have a lease already, GETATTR, SETXATTR
    "mkdir": (3, 3, 7),         # GETATTR of the directory, LOOKUP, MKDIR
}


def put(path):
    with opened(path, WRITE) as fd:
        os.write(fd, b"x" * 4096)


def get(path):
    with opened(path, os.O_RDONLY) as fd:
        assert os.read(fd, 5000) == b"x" * 4096


def counts(mnt):
    text = (mnt.mount.control / "metrics").read_text()
    requests = re.findall(r'requests_total\{kind="(?!release)\w+"\} (\d+)', text)  # RELEASE comes when it comes
    statements, commits = (int(re.search(rf"catalog_{what}_total (\d+)", text)[1]) for what in ("statements", "commits"))
    return sum(map(int, requests)), statements - 4 * commits


def cost(mnt, call):
    """Of one call: requests and statements, without those of looking."""
    first, second = counts(mnt), counts(mnt)
    for number in range(ROUNDS):
        call(number)
    last = counts(mnt)
    return [(after - before - (before - earlier)) / ROUNDS for earlier, before, after in zip(first, second, last)]


def steps(mnt):
    """In an order in which each finds what it needs."""
    def key(number):
        return mnt / f"key{number}"

    yield "put", lambda n: put(key(n))
    yield "get of what is new", lambda n: get(key(n))
    yield "get", lambda n: get(key(n))
    yield "stat", lambda n: os.stat(key(n))
    yield "replace", lambda n: put(key(n))
    yield "declare", lambda n: os.close(os.open(mnt.future(f"future{n}"), os.O_WRONLY | os.O_CREAT))
    yield "set", lambda n: put(mnt / f"future{n}")
    yield "rename", lambda n: os.rename(mnt / f"future{n}", mnt / f"other{n}")
    yield "evict", lambda n: os.unlink(key(n))
    yield "lease", lambda n: set_attr(mnt / f"other{n}", "lease", "1h")
    yield "mkdir", lambda n: os.mkdir(mnt / f"dir{n}")


@pytest.mark.skipif(sanitized(), reason="the checker has statements of its own")
def test_what_operations_cost(own):
    through = re.search(r"^promisefs_passthrough (\d)", (own.mount.control / "metrics").read_text(), re.M)[1] == "0"
    put(own / "warm"), get(own / "warm")
    found = {what: cost(own, call) for what, call in steps(own)}
    assert found.keys() == COSTS.keys()
    dear = {what: (requests, statements) for what, (requests, statements) in found.items()
            if requests > COSTS[what][through] + 0.3 or statements > COSTS[what][2] + 0.8}
    assert not dear, dear

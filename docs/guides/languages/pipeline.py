#!/usr/bin/env python3
"""A producer and two consumers, started in any order; see README.md. Run it in the root of a mount, after mkdir demo:

pipeline.py consumer one & pipeline.py consumer two & pipeline.py producer
"""
import errno
import os
import sys
from pathlib import Path

CONTROL = Path(".promisefs")
DEMO = Path("demo")


def consumer(me):
    # A future that nobody has declared: the open waits until the key is published. Whoever comes late need not wait.
    numbers = (CONTROL / "await/demo/numbers").read_text()
    total = sum(int(number) for number in numbers.split())
    print(f"{me}: the sum is {total}")

    # A one-time object: the open takes it, of all who try one gets it. The others find no such file.
    try:
        print(f"{me}: the ticket is mine: {(CONTROL / 'once/demo/ticket').read_text().strip()}")
    except FileNotFoundError:
        print(f"{me}: the ticket is gone")

    # A borrow is a hard link. As long as it is there nobody can write the list or evict it.
    ref = CONTROL / "ref" / f"demo-{me}"
    os.link(CONTROL / "own/demo-list", ref)
    print(f"{me}: scratch says: {(DEMO / 'scratch/note').read_text().strip()}")
    (DEMO / f"answer-{me}").write_text(f"{total}\n")  # keeps the promise that the producer waits for

    # A future that nobody will ever write, in a directory with a lease: the open waits until the lease is over.
    try:
        sys.exit(f"demo/scratch/never: somebody has written {(DEMO / 'scratch/never').read_bytes()}")
    except OSError as error:
        if error.errno not in (errno.ECANCELED, errno.ENOENT):
            raise
    try:
        sys.exit(f"demo/scratch/note is still there: {(DEMO / 'scratch/note').read_bytes()}")
    except FileNotFoundError:
        print(f"{me}: scratch is gone")

    print(f"{me}: the list is {ref.read_text().strip()}")  # a writer is in line by now, and does not get in
    ref.unlink()  # until the last borrow is dropped


def producer():
    own = CONTROL / "own/demo-list"
    own.write_text("1 2 3\n")  # an object whose owner is a handle, not a key
    (DEMO / "scratch").mkdir()
    (DEMO / "scratch/note").write_text("not for long\n")
    for name in ("scratch/never", "answer-one", "answer-two"):
        (CONTROL / "future/demo" / name).touch()  # declares a future
    (DEMO / "ticket").write_text("admit one\n")
    with open(DEMO / "numbers", "w") as file:  # published, whole, when it is closed: this wakes the consumers
        for number in range(1, 101):
            print(number, file=file)

    for name in ("one", "two"):
        print(f"producer: {name} answers {(DEMO / f'answer-{name}').read_text().strip()}")  # waits for the future

    # To write the list takes the only borrow there is. Both consumers borrow it now, so get in line.
    os.link(own, CONTROL / "await-mut/demo-writer")
    (CONTROL / "attributes/lease/demo/scratch/.dir").write_text("100ms\n")  # the directory goes by itself
    mut = CONTROL / "mut/demo-writer"
    mut.write_text("1 2 3 4\n")  # the open waits for the turn
    mut.unlink()
    print(f"producer: the list is {own.read_text().strip()}")
    own.unlink()  # nobody borrows it: evicted


if __name__ == "__main__":
    if sys.argv[1] == "producer":
        producer()
    else:
        consumer(sys.argv[2])

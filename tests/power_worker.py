"""One of several processes that write until the power is cut, for test_power_loss.py.

power_worker.py DIRECTORY CONTROL LOG SEED: prints to LOG, in JSON, what it is about to do to a key, and that it was done:
so that it must be there after the cut. Each process has keys of its own. LOG is not on the disk whose power is cut.
"""
import json
import os
import random
import sys

KEYS = ("a", "b", "c", "d")
SIZES = (0, 1, 100, 5000, 70_000, 300_000)


def content(parts):
    """The bytes of a key that was made of these (number, size)."""
    return b"".join((b"%08d." % number * (size // 9 + 1))[:size] for number, size in parts)


class Writer:
    def __init__(self, root, control, log, seed):
        self.root, self.control, self.random = root, control, random.Random(seed)
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.number = 0
        self.has = {}  # key: parts

    def say(self, **what):
        os.write(self.log, json.dumps(what).encode() + b"\n")

    def fill(self, path, flags, part, sync=True):
        data = content([part])
        fd = os.open(path, os.O_WRONLY | flags, 0o644)
        try:
            while data:
                data = data[os.write(fd, data[:self.random.choice((4096, 50_000, 1 << 20))]):]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def sync_directory(self):
        fd = os.open(self.root, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def put(self, key, part):
        self.fill(f"{self.root}/{key}", os.O_CREAT | os.O_TRUNC, part)

    def save(self, key, part):
        self.fill(f"{self.root}/{key}.new", os.O_CREAT | os.O_TRUNC, part)
        os.rename(f"{self.root}/{key}.new", f"{self.root}/{key}")
        self.sync_directory()

    def append(self, key, part):
        self.fill(f"{self.root}/{key}", os.O_APPEND, part)

    def remove(self, key, _):
        os.unlink(f"{self.root}/{key}")
        self.sync_directory()

    def set_future(self, key, part):
        """Cancels what was there, declares a future, and sets it."""
        if key in self.has:
            os.unlink(f"{self.root}/{key}")
        os.close(os.open(f"{self.control}/future/{os.path.basename(self.root)}/{key}", os.O_WRONLY | os.O_CREAT))
        self.fill(f"{self.root}/{key}", 0, part)

    def step(self):
        """Something that has to last, or sometimes a key that has not: nobody asks for it, but it takes part."""
        self.number += 1
        part = (self.number, self.random.choice(SIZES))
        if self.random.random() < 0.3:
            self.fill(f"{self.root}/noise{self.number % 5}", os.O_CREAT | os.O_TRUNC, part, sync=False)
            return
        key = self.random.choice(KEYS)
        parts = self.has.get(key)
        if parts is None or len(parts) > 6:
            what = self.random.choice(("put", "save"))
        else:
            what = self.random.choice(("put", "save", "append", "append", "remove"))
        if key == "d":
            what = "set_future"
        then = {"append": (parts or []) + [part], "remove": None}.get(what, [part])
        self.say(key=key, what=what, then=then)
        getattr(self, what)(key, part)
        self.say(key=key, done=True)
        self.has.pop(key, None)
        if then is not None:
            self.has[key] = then


def main():
    writer = Writer(*sys.argv[1:4], int(sys.argv[4]))
    os.makedirs(writer.root, exist_ok=True)
    while True:
        writer.step()


if __name__ == "__main__":
    main()

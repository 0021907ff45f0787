"""One process of the race for borrows: borrows, reads, writes, hands over and drops at random, by plain files.

Two kinds of keys, each with objects that describe themselves (see stress_worker.py):
  counted-N   written only through mutable borrows: who has one reads the counter and writes the next. What it wants to
              write and what it has written is noted in a file outside the mount, so that no update can be lost unseen.
  replaced-N  also written by their owners, and replaced by rename: then nobody may have borrowed them.
Names of handles begin with the number of the process. Those that are bound to the process end in `.bound`.
Prints what it did at the end, or at once what no rule allows.
"""
import contextlib
import errno
import fcntl
import json
import os
import random
import select
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from stress_worker import check_object, make_object, read_all  # noqa: E402

COUNTED, REPLACED = 3, 3
SIZES = (0, 100, 5000, 100_000)


class Broken(Exception):
    """Something that no rule allows."""


@contextlib.contextmanager
def refused(*codes):
    """The block may fail with one of these errnos."""
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise


def must_fail(code, what, call, *args):
    """ENOENT is right, too: somebody may have moved the owner."""
    try:
        call(*args)
    except OSError as error:
        if error.errno in (code, errno.ENOENT):
            return
        raise Broken(f"{what}: {error!r}, expected {errno.errorcode[code]}") from error
    raise Broken(f"{what}: was allowed")


class Process:
    def __init__(self, root, notes, number, seconds):
        self.root, self.control, self.number = root, f"{root}/.promisefs", number
        self.notes = open(f"{notes}/{number}", "a", buffering=1)
        self.locks = notes
        self.random = random.Random()
        self.end = time.monotonic() + seconds
        self.handles = 0
        self.done = {}

    def key(self):
        kind, count = self.random.choice((("counted", COUNTED), ("replaced", REPLACED)))
        return f"{kind}-{self.random.randrange(count)}"

    def path(self, key):
        return f"{self.root}/{key}"

    def read(self, path):
        """What is read is an object that was published whole: (name, writer, counter)."""
        fd = os.open(path, os.O_RDONLY)
        try:
            data = read_all(fd)
            assert len(data) == os.fstat(fd).st_size, f"{path}: {len(data)} bytes read, {os.fstat(fd)}"
            return check_object(data, path)
        finally:
            os.close(fd)

    def write(self, path, data, flags=os.O_WRONLY | os.O_TRUNC):
        fd = os.open(path, flags, 0o666)
        try:
            while data:
                data = data[os.write(fd, data[:self.random.choice((1 << 20, 3000))]):]
        finally:
            os.close(fd)

    def object(self, key, counter):
        return make_object(key, self.number, counter, self.random.choice(SIZES))

    def pause(self):
        if self.random.random() < 0.3:
            time.sleep(self.random.random() * 0.005)

    # ---- borrowing ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def borrowed(self, key, kind):
        """A handle of the key, or none if it is in use, or waiting took too long."""
        self.handles += 1
        name = f"{self.number}-{self.handles}"
        path = f"{self.control}/{kind}/{name}"
        if not self.link(key, kind, name):
            yield None
            return
        if self.random.random() < 0.5:
            with refused(errno.ENOENT):
                os.setxattr(path, "user.promisefs.pid", b"self")
                os.rename(path, f"{path}.bound")
                path += ".bound"
        if not self.has_turn(path):
            yield None
            return
        self.count(kind)
        yield path
        self.drop(path)

    def link(self, key, kind, name):
        """Half of the time get in line, if it must be; then the handle may have to wait."""
        waits = self.random.random() < 0.5
        with refused(errno.ENOENT, *([] if waits else [errno.EBUSY])):
            os.link(self.path(key), f"{self.control}/{'await-' if waits else ''}{kind}/{name}")
            return True
        if os.path.lexists(f"{self.control}/{kind}/{name}"):
            raise Broken(f"{kind}/{name} is there, although link(2) failed")
        self.count("refused")
        return False

    def has_turn(self, path):
        """Wait for the turn; false if it was given up after a while, or the object has gone meanwhile."""
        with refused(errno.ENOENT):
            if self.random.random() < 0.5:
                os.close(os.open(path, os.O_RDONLY))
                return True
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                if select.select([fd], [], [], self.random.random() * 0.05)[0]:
                    os.read(fd, 1)
                    return True
                self.count("given up")
                os.unlink(path)
                return False
            finally:
                os.close(fd)
        self.count("gone")
        return False

    def drop(self, path):
        how = self.random.random()
        if how < 0.7:
            os.unlink(path)
        elif how < 0.85:
            os.setxattr(path, "user.promisefs.lease", b"0")
            while os.path.lexists(path):
                time.sleep(0.001)
        else:
            os.rename(path, f"{path}.moved" if not path.endswith(".bound") else f"{path[:-6]}.moved.bound")
            os.unlink(f"{path}.moved" if not path.endswith(".bound") else f"{path[:-6]}.moved.bound")

    # ---- operations --------------------------------------------------------------------------------------------------

    def ref(self):
        """As long as it has a ref, nothing changes."""
        key = self.key()
        with self.borrowed(key, "ref") as path:
            if not path:
                return
            first = self.read(path)
            self.pause()
            self.same(first, self.read(path), f"{path}: changed while it was borrowed")
            if first[0] != key:
                raise Broken(f"{path} of {key} is {first}")
            what = self.random.randrange(6)
            if what == 0:
                must_fail(errno.EBUSY, f"writing {key} beside {path}", os.open, self.path(key), os.O_WRONLY)
            elif what == 1:
                must_fail(errno.EBUSY, f"removing {key} beside {path}", os.unlink, self.path(key))
            elif what == 2:
                must_fail(errno.EBUSY, f"a mut of {key} beside {path}", os.link, self.path(key),
                          f"{self.control}/mut/{self.number}-no")
            elif what == 3:
                with refused(errno.ENOENT):
                    self.same(first, self.read(self.path(key)), f"{key}: is not what {path} is")
            elif what == 4:
                self.same(first, self.read(path), f"{path}: changed while it was borrowed")
            else:
                must_fail(errno.EACCES, f"writing {path}", os.open, path, os.O_RDWR)

    def same(self, first, second, what):
        if first != second:
            raise Broken(f"{what}: {first} and {second}")

    def mut(self):
        """As long as it has a mut, only it writes, and nobody reads by the key."""
        key = self.key()
        with self.borrowed(key, "mut") as path:
            if not path:
                return
            name, _, counter = self.read(path)
            if name != key:
                raise Broken(f"{path} of {key} is an object of {name}")
            self.pause()
            if self.random.random() < 0.2:
                must_fail(errno.EBUSY, f"reading {key} beside {path}", os.open, self.path(key), os.O_RDONLY)
            if self.random.random() < 0.2:
                must_fail(errno.EBUSY, f"a ref of {key} beside {path}", os.link, self.path(key),
                          f"{self.control}/ref/{self.number}-no")
            if self.random.random() < 0.8:
                self.notes.write(f"want {key} {counter + 1}\n")
                self.write(path, self.object(key, counter + 1))
                self.notes.write(f"done {key} {counter + 1}\n")
                if self.random.random() < 0.5:
                    self.same((key, self.number, counter + 1), self.read(path), f"{path}: is not what was written")

    def get(self):
        key = self.key()
        with refused(errno.EBUSY, errno.ENOENT):
            if self.read(self.path(key))[0] != key:
                raise Broken(f"{key} has another name inside")
            self.count("got")

    def put(self):
        """By the owner. Only one process does so at a time: who writes together writes one draft together."""
        key = f"replaced-{self.random.randrange(REPLACED)}"
        with open(f"{self.locks}/{key}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with refused(errno.EBUSY, errno.ENOENT):
                self.write(self.path(key), self.object(key, 0))
                self.count("written by the owner")

    def replace(self):
        key = f"replaced-{self.random.randrange(REPLACED)}"
        temporary = f"{self.root}/tmp/{self.number}"
        self.write(temporary, self.object(key, 0), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with refused(errno.EBUSY):
            os.rename(temporary, self.path(key))
            self.count("replaced")

    def own(self):
        """Move it away and back; borrows go on."""
        key = f"counted-{self.random.randrange(COUNTED)}"
        path = f"{self.control}/own/{key}"
        with refused(errno.ENOENT):
            os.rename(self.path(key), path)
            self.count("owned")
        with refused(errno.ENOENT, errno.EEXIST):
            os.rename(path, self.path(key))

    def ask(self):
        with refused(errno.ENOENT):
            path = self.path(self.key())
            said = os.getxattr(path, "user.promisefs.borrows").decode()
            if said not in ("none", "mut") and not said.startswith("ref "):
                raise Broken(f"{path}: borrows {said}")
            os.listdir(f"{self.control}/{self.random.choice(['ref', 'mut', 'await-ref'])}")

    def count(self, what):
        self.done[what] = self.done.get(what, 0) + 1

    def run(self):
        calls = [self.ref] * 6 + [self.mut] * 6 + [self.get] * 3 + [self.put, self.replace, self.own, self.ask]
        while time.monotonic() < self.end:
            self.random.choice(calls)()
        return self.done


if __name__ == "__main__":
    print(json.dumps(Process(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])).run()))

"""One of several processes that change names in one directory, for test_posix_races.py.

posix_racer.py WHAT DIRECTORY SECONDS SEED: does it until the time is over, and 400 times at least, and prints as JSON what
it counted. Whatever no file system answers in such a race is an error, with the call.
"""
import ctypes
import errno
import json
import os
import random
import sys
import time

NOREPLACE, EXCHANGE, PAGE = 1, 2, 4096
# Somebody else was there first: these are the answers of every file system to what the racers do.
LOST = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}
libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old, new, flags):
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def create(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))


class Racer:
    def __init__(self, root, seed):
        self.root, self.random = root, random.Random(seed)
        self.counts, self.errors, self.writes, self.fd, self.whole = {}, [], 0, -1, True

    def attempt(self, what, call, *args, allowed=LOST):
        """Count what succeeds; true if it did."""
        try:
            call(*args)
        except OSError as error:
            if error.errno not in allowed:
                self.errors.append(f"{what}: {call.__name__}{args}: {errno.errorcode.get(error.errno, error.errno)}")
            return False
        self.counts[what] = self.counts.get(what, 0) + 1
        return True

    def name(self, names="abc", depth=3):
        """A path of one to three components."""
        return "/".join([self.root, *self.random.choices(names, k=self.random.randint(1, depth))])

    # Everything at once, in a small tree.
    def tree(self):
        one, two = self.name(), self.name()
        may_be_below = LOST | {errno.EINVAL}  # a directory below itself
        call, args, allowed = self.random.choice([
            (os.mkdir, (one,), LOST), (os.mkdir, (one,), LOST), (os.rmdir, (one,), LOST), (create, (one,), LOST),
            (os.unlink, (one,), LOST), (os.link, (one, two), LOST | {errno.EPERM}), (os.symlink, ("a", one), LOST | {errno.ELOOP}),
            (os.rename, (one, two), may_be_below), (os.rename, (one, two), may_be_below),
            (renameat2, (one, two, NOREPLACE), may_be_below), (renameat2, (one, two, EXCHANGE), may_be_below),
            (os.listdir, (one,), LOST), (os.stat, (one,), LOST)])
        self.attempt(call.__name__, call, *args, allowed=allowed | {errno.ELOOP})

    # One name each that all make and remove: as often made as removed, but for what is there in the end.
    def once(self):
        kind = self.random.choice(["mkdir", "create", "link", "symlink", "mkfifo"])
        path = f"{self.root}/{kind}"
        make = {"mkdir": (os.mkdir, path), "create": (create, path), "link": (os.link, f"{self.root}/source", path),
                "symlink": (os.symlink, "x", path), "mkfifo": (os.mkfifo, path)}[kind]
        if self.random.random() < 0.5:
            self.attempt(f"+{kind}", *make, allowed={errno.EEXIST})
        else:
            self.attempt(f"-{kind}", os.rmdir if kind == "mkdir" else os.unlink, path, allowed={errno.ENOENT})

    # Files and directories that go from one free name to another: there are always as many.
    def tokens(self):
        one, two = (f"{self.root}/{self.random.choice('pq')}/{self.random.randrange(8)}" for _ in range(2))
        if self.random.random() < 0.3:
            self.attempt("exchange", renameat2, one, two, EXCHANGE, allowed={errno.ENOENT})
        else:
            self.attempt("rename", renameat2, one, two, NOREPLACE, allowed={errno.ENOENT, errno.EEXIST})

    # What is replaced by a rename is there at every moment, whole.
    def replace(self):
        mine = f"{self.root}/tmp{os.getpid()}"
        what = self.random.randrange(4)
        if what == 0:
            with open(mine, "wb") as file:
                file.write(b"%d\n" % os.getpid() * 100)
            self.attempt("replace", os.rename, mine, f"{self.root}/target", allowed=())
        elif what == 1:
            os.mkdir(mine)
            self.attempt("replace-dir", os.rename, mine, f"{self.root}/dir", allowed=())
        elif what == 2:
            self.attempt("swap", renameat2, f"{self.root}/one", f"{self.root}/two", EXCHANGE, allowed=())
        else:
            self.attempt("look", self.look, allowed=())

    # Two keys that are written, cut, replaced and asked all the time, but never removed: every call succeeds.
    def keys(self):
        path = f"{self.root}/key{self.random.randrange(2)}"
        what = self.random.choice(["write", "write", "write", "rename", "rename", "truncate", "truncate", "read", "append",
                                   "reopen", "stat", "getxattr", "setxattr", "listxattr", "chmod", "utime", "link"])
        calls = {"rename": lambda: os.rename(self.write(f"{path}.{os.getpid()}", os.O_CREAT | os.O_TRUNC), path),
                 "write": lambda: self.write(path, self.random.choice([os.O_TRUNC, os.O_CREAT | os.O_TRUNC, 0, os.O_CREAT])),
                 "append": lambda: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)),
                 "truncate": lambda: os.truncate(path, PAGE), "read": lambda: self.read(path), "reopen": lambda: self.read(f"/proc/self/fd/{self.fd}"),
                 "stat": lambda: os.stat(path), "getxattr": lambda: os.getxattr(path, "user.mine"),
                 "setxattr": lambda: os.setxattr(path, "user.mine", b"1"), "listxattr": lambda: os.listxattr(path),
                 "chmod": lambda: os.chmod(path, self.random.choice([0o644, 0o640])), "utime": lambda: os.utime(path),
                 "link": lambda: os.link(path, f"{path}.{os.getpid()}")}
        allowed = {"getxattr": {errno.ENODATA}, "link": {errno.ENOENT, errno.EEXIST}}.get(what, ())
        if what == "reopen":
            self.fd = os.open(path, os.O_RDONLY)
        self.attempt(what, calls[what], allowed=allowed)
        if what == "reopen":
            os.close(self.fd)
        elif what == "link" and os.path.lexists(f"{path}.{os.getpid()}"):
            os.unlink(f"{path}.{os.getpid()}")

    # Where a reader sees what is being written.
    def shared_keys(self):
        self.whole = False
        self.keys()

    # The same, and removed: then an open with O_CREAT succeeds, and everything else finds it or not.
    def making(self):
        path = f"{self.root}/key{self.random.randrange(2)}"
        what = self.random.choice(["create", "create", "create", "rename", "unlink", "unlink", "truncate", "truncate",
                                   "write", "link"])
        calls = {"create": lambda: self.write(path, os.O_CREAT | self.random.choice([0, os.O_TRUNC])),
                 "rename": lambda: os.rename(self.write(f"{path}.{os.getpid()}", os.O_CREAT | os.O_TRUNC), path),
                 "unlink": lambda: os.unlink(path), "truncate": lambda: os.truncate(path, PAGE),
                 "write": lambda: self.write(path, 0),
                 "link": lambda: os.link(path, f"{path}.{os.getpid()}")}
        if self.attempt(what, calls[what], allowed=() if what in ("create", "rename") else {errno.ENOENT}) and what == "link":
            os.unlink(f"{path}.{os.getpid()}")

    def write(self, path, flags):
        self.writes += 1
        fd = os.open(path, os.O_WRONLY | flags, 0o644)
        try:
            os.pwrite(fd, (b"%07d.%07d\n" % (os.getpid(), self.writes) * (PAGE // 16 + 1))[:PAGE], 0)
        finally:
            os.close(fd)
        return path

    def read(self, path):
        with open(path, "rb", buffering=0) as file:
            data = file.read()
            size = os.fstat(file.fileno()).st_size
        if self.whole and (len(data) != PAGE or size != PAGE or data != (data[:16] * (PAGE // 16 + 1))[:PAGE]):
            self.errors.append(f"torn: {len(data)} bytes of {size}: {data[:16]} ... {data[-16:]}")

    def look(self):
        with open(f"{self.root}/target", "rb") as file:
            lines = file.read().split(b"\n")
        if len(lines) != 101 or len(set(lines[:100])) != 1:
            self.errors.append(f"torn: {lines[:3]} and {len(lines) - 3} more")
        for name in ("target", "dir", "one", "two"):
            os.stat(f"{self.root}/{name}")
        os.listdir(f"{self.root}/dir")


def main():
    what, root, seconds, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    racer = Racer(root, seed)
    end = time.monotonic() + seconds
    rounds = 0
    while (time.monotonic() < end or rounds < 400) and len(racer.errors) < 20:
        getattr(racer, what)()
        rounds += 1
    print(json.dumps({"counts": racer.counts, "errors": racer.errors}))


if __name__ == "__main__":
    main()

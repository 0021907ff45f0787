"""Random operations on names by one process, compared with a model, or by many in the same directories.

    names.py private|shared promise|native ROOT NUMBER SEED STEPS SECONDS

private: runs of STEPS steps in the directory ROOT/NUMBER, made from SEED, SEED + 1 and so on until the time is over.
The model knows what each call must return, to the errno. shared: in ROOT, with other processes there, each call may
return what some order of theirs explains. With `native` a file is one set of bytes for all who have it open; with
`promise` who has opened it keeps his version. After a difference the last steps and the seed are printed, and the exit
status is 1.
"""
import collections
import ctypes
import errno
import os
import random
import stat
import sys
import time
import zlib

NOREPLACE, EXCHANGE = 1, 2
NAMES = ["a", "b", "c", "d", "e", "\xe4 \n", "x" * 255]
DIRS_MAX, DEPTH_MAX, HELD_MAX = 12, 4, 6
libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old, new, flags):
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def name_of(code):
    return errno.errorcode.get(code, str(code)) if code else "success"


class Different(Exception):
    pass


class Node:
    """A file, a directory or a symbolic link of the model."""

    def __init__(self, kind, mode):
        self.kind, self.mode = kind, mode
        self.entries = {}  # of a directory
        self.data = b""    # of a file; of a link its target
        self.names = 0
        self.number = None
        self.parent = None
        self.version = 0
        self.fresh = False  # written, and nobody has opened it since: its size may be told late


class Process:
    """What both kinds have in common: chance, the trace, and calls that are compared."""

    def __init__(self, root, seed, promise):
        self.root, self.seed, self.promise = root, seed, promise
        self.random = random.Random(seed)
        self.trace = collections.deque(maxlen=40)
        self.step = 0

    def say(self, *words):
        self.trace.append(" ".join([f"{self.step}:", *(w if isinstance(w, str) else repr(w) for w in words)]))

    def attempt(self, call, *args):
        """(errno or 0, what it returned)"""
        try:
            return 0, call(*args)
        except OSError as error:
            return error.errno, None

    def expect(self, wanted, call, *args):
        code, value = self.attempt(call, *args)
        if code != wanted:
            raise Different(f"{name_of(code)}, should be {name_of(wanted)}")
        return value if code == 0 else None

    def same(self, what, found, wanted):
        if found != wanted:
            raise Different(f"{what} is {found!r:.200}, should be {wanted!r:.200}")

    def run(self, steps):
        calls, weights = zip(*self.operations())
        try:
            for self.step in range(1, steps + 1):
                self.random.choices(calls, weights)[0]()
        except (Different, OSError) as error:
            print("\n".join(f"  {line}" for line in self.trace))
            print(f"seed {self.seed}, step {self.step}: {error}")
            sys.exit(1)


class Private(Process):
    """One process in its own directory, and a model of that."""

    def __init__(self, root, seed, promise):
        super().__init__(root, seed, promise)
        self.top = Node("dir", 0o755)
        self.top.parent = self.top
        self.held = []

    def operations(self):
        return [(self.write, 14), (self.read, 8), (self.mkdir, 6), (self.rmdir, 4), (self.unlink, 7), (self.rename, 16),
                (self.link, 6), (self.symlink, 3), (self.readlink, 2), (self.chmod, 3), (self.truncate, 3),
                (self.append, 4), (self.stat, 8), (self.list, 5), (self.hold, 3), (self.look_again, 4), (self.utime, 2),
                (self.mknod, 1)]

    # ---- the model ---------------------------------------------------------------------------------------------------

    def directories(self):
        found = [self.top]
        for node in found:
            found += [entry for entry in node.entries.values() if entry.kind == "dir"]
        return found

    def path_of(self, node):
        if node is self.top:
            return self.root
        name = next(name for name, entry in node.parent.entries.items() if entry is node)
        return os.path.join(self.path_of(node.parent), name)

    def depth(self, node):
        return 0 if node is self.top else 1 + self.depth(node.parent)

    def place(self):
        """A path somewhere: (its parent in the model or None, the name, the path, the errno of the way there)."""
        parent = self.random.choice(self.directories())
        name = self.random.choice(NAMES)
        chance = self.random.random()
        path = self.path_of(parent)
        if chance < 0.03:
            return None, name, os.path.join(path, "missing", name), errno.ENOENT
        files = [n for n, entry in parent.entries.items() if entry.kind == "file"]
        if chance < 0.06 and files:
            return None, name, os.path.join(path, self.random.choice(files), name), errno.ENOTDIR
        if chance < 0.07:
            return None, name, os.path.join(path, "y" * 256), errno.ENAMETOOLONG
        return parent, name, os.path.join(path, name), 0

    def existing(self):
        """The same, rather of something that is there."""
        places = [(parent, name) for parent in self.directories() for name in parent.entries]
        if not places or self.random.random() < 0.15:
            return self.place()
        parent, name = self.random.choice(places)
        return parent, name, os.path.join(self.path_of(parent), name), 0

    def short(self, path):
        return os.path.relpath(path, self.root)

    def add(self, parent, name, node):
        parent.entries[name] = node
        node.names += 1
        if node.kind == "dir":
            node.parent = parent

    def remove(self, parent, name):
        parent.entries.pop(name).names -= 1

    def is_in(self, node, directory):
        while node is not directory and node is not self.top:
            node = node.parent
        return node is directory

    # ---- files -------------------------------------------------------------------------------------------------------

    def some_bytes(self):
        size = self.random.choice((0, 1, 10, 4096, 5000, 70000))
        return (b"%d %d " % (self.seed, self.step) * (size // 4 + 1))[:size]

    def written(self, node):
        node.version += 1
        node.fresh = True

    def write_file(self, path, flags, data):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | flags, 0o640)
        try:
            while data:
                data = data[os.write(fd, data):]
        finally:
            os.close(fd)

    def write(self):
        parent, name, path, error = self.place()
        flags = self.random.choice((0, os.O_CREAT, os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_EXCL, os.O_TRUNC))
        data = self.some_bytes()
        node = parent.entries.get(name) if parent else None
        if not error and node is None and not flags & os.O_CREAT:
            error = errno.ENOENT
        elif not error and node is not None and flags & os.O_EXCL:
            error = errno.EEXIST
        elif node is not None and node.kind == "link":
            error = errno.ELOOP
        elif node is not None and node.kind == "dir":
            error = errno.EISDIR
        self.say("write", self.short(path), f"flags {flags:o},", f"{len(data)} bytes")
        self.expect(error, self.write_file, path, flags, data)
        if error:
            return
        if node is None:
            node = Node("file", 0o640)
            self.add(parent, name, node)
        node.data = data if flags & os.O_TRUNC else data + node.data[len(data):]
        self.written(node)

    def append(self):
        parent, name, path, error = self.existing()
        node = parent.entries.get(name) if parent else None
        if node is None or node.kind != "file" or len(node.data) > 300_000:
            return
        data = self.some_bytes()
        self.say("append", self.short(path), f"{len(data)} bytes")
        self.expect(0, self.write_file, path, os.O_APPEND, data)
        node.data += data
        self.written(node)

    def truncate(self):
        parent, name, path, error = self.existing()
        node = parent.entries.get(name) if parent else None
        if node is not None and node.kind == "link":
            return
        error = error or (errno.ENOENT if node is None else errno.EISDIR if node.kind == "dir" else 0)
        size = self.random.choice((0, 1, 4096, 66000))
        self.say("truncate", self.short(path), size)
        self.expect(error, os.truncate, path, size)
        if not error:
            node.data = node.data[:size] + bytes(max(0, size - len(node.data)))
            self.written(node)

    def read_file(self, path):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            return self.read_fd(fd)
        finally:
            os.close(fd)

    def read_fd(self, fd):
        size, data, at = os.fstat(fd).st_size, b"", 0
        while part := os.pread(fd, 1 << 20, at):
            data, at = data + part, at + len(part)
        self.same("what fstat says of the size", size, len(data))
        return data

    def read(self):
        parent, name, path, error = self.existing()
        node = parent.entries.get(name) if parent else None
        if not error and (node is None or node.kind != "file"):
            error = errno.ENOENT if node is None else errno.ELOOP if node.kind == "link" else errno.EISDIR
        self.say("read", self.short(path))
        data = self.expect(error, self.read_file, path)
        if not error:
            self.same("the content", data, node.data)
            node.fresh = False

    def hold(self):
        """Open a file, and keep it open whatever becomes of it."""
        parent, name, path, error = self.existing()
        node = parent.entries.get(name) if parent else None
        if node is None or node.kind != "file":
            return
        if len(self.held) >= HELD_MAX:
            os.close(self.held.pop(self.random.randrange(HELD_MAX))[0])
        self.say("hold", self.short(path))
        fd = self.expect(0, os.open, path, os.O_RDONLY)
        self.held.append((fd, node, node.version, node.data))
        node.fresh = False

    def look_again(self):
        if not self.held:
            return
        fd, node, version, data = self.random.choice(self.held)
        self.say("look again at what is held")
        self.same("what is held", self.read_fd(fd), data if self.promise else node.data)
        if not self.promise or version == node.version:  # who has an old version is told nothing of its names
            self.same("its number of names", os.fstat(fd).st_nlink, node.names)

    # ---- names -------------------------------------------------------------------------------------------------------

    def new_name(self, what, kind, mode, call):
        parent, name, path, error = self.place()
        if kind == "dir" and parent and (len(self.directories()) > DIRS_MAX or self.depth(parent) >= DEPTH_MAX):
            return None
        if not error and name in parent.entries:
            error = errno.EEXIST
        self.say(what, self.short(path))
        self.expect(error, call, path)
        if error:
            return None
        node = Node(kind, mode)
        self.add(parent, name, node)
        return node

    def mkdir(self):
        self.new_name("mkdir", "dir", 0o755, lambda path: os.mkdir(path, 0o755))

    def mknod(self):
        self.new_name("mknod", "file", 0o600, lambda path: os.mknod(path, 0o600 | stat.S_IFREG))

    def symlink(self):
        target = self.random.choice(["a", "../b", "nowhere/" + "z" * 200, "/"])
        node = self.new_name("symlink", "link", 0o777, lambda path: os.symlink(target, path))
        if node:
            node.data = target

    def readlink(self):
        parent, name, path, error = self.existing()
        node = parent.entries.get(name) if parent else None
        error = error or (errno.ENOENT if node is None else 0 if node.kind == "link" else errno.EINVAL)
        self.say("readlink", self.short(path))
        target = self.expect(error, os.readlink, path)
        if not error:
            self.same("the target", target, node.data)

    def rmdir(self):
        parent, name, path, error = self.existing()
        node = parent.entries.get(name) if parent else None
        if not error:
            error = errno.ENOENT if node is None else errno.ENOTDIR if node.kind != "dir" else \
                errno.ENOTEMPTY if node.entries else 0
        self.say("rmdir", self.short(path))
        self.expect(error, os.rmdir, path)
        if not error:
            self.remove(parent, name)

    def unlink(self):
        parent, name, path, error = self.existing()
        node = parent.entries.get(name) if parent else None
        error = error or (errno.ENOENT if node is None else errno.EISDIR if node.kind == "dir" else 0)
        self.say("unlink", self.short(path))
        self.expect(error, os.unlink, path)
        if not error:
            self.remove(parent, name)

    def link(self):
        parent, name, path, error = self.existing()
        to, to_name, to_path, to_error = self.place()
        node = parent.entries.get(name) if parent else None
        error = error or (errno.ENOENT if node is None else 0)
        error = error or to_error or (errno.EEXIST if to_name in to.entries else 0)
        error = error or (errno.EPERM if node.kind == "dir" else 0)
        self.say("link", self.short(path), self.short(to_path))
        self.expect(error, lambda: os.link(path, to_path, follow_symlinks=False))
        if not error:
            self.add(to, to_name, node)

    def rename_error(self, node, parent, to, new, flags):
        """What comes of a rename whose ways are there, in the order in which the kernel looks."""
        if node is None:
            return errno.ENOENT
        if flags == NOREPLACE and new is not None:
            return errno.EEXIST
        if flags == EXCHANGE and new is None:
            return errno.ENOENT
        if node.kind == "dir" and self.is_in(to, node):
            return errno.EINVAL
        if new is not None and new.kind == "dir" and self.is_in(parent, new):
            return errno.EINVAL if flags == EXCHANGE else errno.ENOTEMPTY
        if new is None or new is node or flags == EXCHANGE:
            return 0
        if node.kind == "dir":
            return errno.ENOTDIR if new.kind != "dir" else errno.ENOTEMPTY if new.entries else 0
        return errno.EISDIR if new.kind == "dir" else 0

    def rename(self):
        parent, name, path, error = self.existing()
        to, to_name, to_path, to_error = self.place() if self.random.random() < 0.6 else self.existing()
        flags = self.random.choice((0, 0, 0, NOREPLACE, EXCHANGE))
        error = error if error != errno.ENAMETOOLONG else 0
        if parent is None and not error or to is None and to_error == errno.ENAMETOOLONG:
            return  # which of the two names is looked at first is not said anywhere
        node, new = parent.entries.get(name) if parent else None, to.entries.get(to_name) if to else None
        error = error or to_error or self.rename_error(node, parent, to, new, flags)
        deep = node is not None and node.kind == "dir" and to is not None and self.depth(to) >= DEPTH_MAX
        if deep or (parent and new is not None and new.kind == "dir" and self.depth(parent) >= DEPTH_MAX):
            return
        self.say("rename", self.short(path), self.short(to_path), flags)
        self.expect(error, renameat2, path, to_path, flags)
        if error or new is node:
            return
        self.remove(parent, name)
        if new is not None:
            self.remove(to, to_name)
        self.add(to, to_name, node)
        if flags == EXCHANGE:
            self.add(parent, name, new)

    # ---- attributes and lists ----------------------------------------------------------------------------------------

    def chmod(self):
        parent, name, path, error = self.existing()
        node = parent.entries.get(name) if parent else None
        if node is not None and node.kind == "link":
            return
        mode = self.random.choice((0o600, 0o644, 0o755, 0o711, 0o1777))
        error = error or (errno.ENOENT if node is None else 0)
        self.say("chmod", self.short(path), oct(mode))
        self.expect(error, os.chmod, path, mode)
        if not error:
            node.mode = mode

    def utime(self):
        parent, name, path, error = self.existing()
        node = parent.entries.get(name) if parent else None
        when = (self.random.randrange(2**31) * 10**9 + 1, 10**18 + self.random.randrange(10**9))
        error = error or (errno.ENOENT if node is None else 0)
        self.say("utime", self.short(path), when)
        if node is not None and node.fresh:
            self.expect(0, self.read_file, path)  # published: now the time is its own
            node.fresh = False
        self.expect(error, lambda: os.utime(path, ns=when, follow_symlinks=False))
        if not error:
            found = os.lstat(path)
            self.same("its times", (found.st_atime_ns, found.st_mtime_ns), when)

    def stat(self):
        parent, name, path, error = self.existing()
        node = parent.entries.get(name) if parent else None
        error = error or (errno.ENOENT if node is None else 0)
        self.say("stat", self.short(path))
        if node is not None and node.kind == "file" and node.fresh:
            self.same("the content", self.expect(0, self.read_file, path), node.data)
            node.fresh = False
        found = self.expect(error, os.lstat, path)
        if not error:
            self.compare(node, self.settled(node, path, found))

    def settled(self, node, path, found):
        """The kernel is told a moment later that the other names of a file mean another version now."""
        end = time.monotonic() + 5
        while self.promise and node.names > 1 and found.st_size != len(node.data) and time.monotonic() < end:
            found = os.lstat(path)
        return found

    def compare(self, node, found):
        kinds = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "link": stat.S_IFLNK}
        self.same("its type", stat.S_IFMT(found.st_mode), kinds[node.kind])
        if node.kind != "link":
            self.same("its mode", oct(stat.S_IMODE(found.st_mode)), oct(node.mode))
        if node.kind == "dir":
            subdirectories = sum(entry.kind == "dir" for entry in node.entries.values())
            self.same("its number of names", found.st_nlink, 2 + subdirectories)
        else:
            self.same("its size", found.st_size, len(node.data))
            self.same("its number of names", found.st_nlink, node.names)
        if node.number is not None:
            self.same("its inode", found.st_ino, node.number)
        node.number = found.st_ino

    def list(self):
        directory = self.random.choice(self.directories())
        self.say("list", self.short(self.path_of(directory)))
        with os.scandir(self.path_of(directory)) as entries:
            found = [(entry.name, self.kind_of(entry)) for entry in entries]
        self.same("the list", sorted(found), sorted((name, node.kind) for name, node in directory.entries.items()))

    def kind_of(self, entry):
        return "link" if entry.is_symlink() else "dir" if entry.is_dir(follow_symlinks=False) else "file"

    def check_all(self):
        self.say("check all")
        for directory in self.directories():
            path = self.path_of(directory)
            self.same("the list", sorted(os.listdir(path)), sorted(directory.entries))
            for name, node in directory.entries.items():
                if node.kind == "file":
                    self.same("the content", self.read_file(os.path.join(path, name)), node.data)
                found = os.lstat(os.path.join(path, name))
                self.compare(node, self.settled(node, os.path.join(path, name), found))
        for fd, node, _, data in self.held:
            self.same("what is held", self.read_fd(fd), data if self.promise else node.data)

    def end(self, leave):
        """Look at everything; unless it is to stay, remove it."""
        self.check_all()
        for fd, *_ in self.held:
            os.close(fd)
        for folder, folders, files in os.walk(self.root, topdown=False) if not leave else ():
            for name in files:
                os.unlink(os.path.join(folder, name))
            for name in folders:
                path = os.path.join(folder, name)
                (os.unlink if os.path.islink(path) else os.rmdir)(path)

    def run(self, steps):
        super().run(steps)


class Shared(Process):
    """One of many in the same directories. Tokens t0, t1 ... are moved and exchanged, and never lost."""

    NAMES = ["a", "b", "c", "d"]
    FOLDERS = ["p", "q", "r"]
    TOKENS = [f"t{n}" for n in range(6)]
    # What others may have done in between: the name has come, gone, or is of another kind now.
    ANY = {0, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL, errno.EPERM,
           errno.ELOOP, errno.EOWNERDEAD, errno.ECANCELED}

    def operations(self):
        return [(self.write, 8), (self.replace, 8), (self.read, 12), (self.mkdir, 6), (self.rmdir, 4),
                (self.unlink, 6), (self.rename, 10), (self.link, 6), (self.move_folder, 4), (self.move_token, 10),
                (self.stat, 6), (self.list, 5), (self.chmod, 3)]

    def folder(self):
        return os.path.join(self.root, *self.random.choices(self.FOLDERS, k=self.random.choice((0, 0, 1, 1, 2, 3))))

    def path(self, names=None):
        return os.path.join(self.folder(), self.random.choice(names or self.NAMES))

    def allow(self, allowed, call, *args):
        code, value = self.attempt(call, *args)
        if code not in allowed:
            raise Different(f"{name_of(code)} is not among what it may be")
        return value

    def put(self, path):
        """A new file that only we write, since two writers share their draft."""
        body = b"%d " % self.random.randrange(10**9) * self.random.choice((1, 10, 1000, 9000))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(fd, b"%08x" % zlib.crc32(body) + body)
        finally:
            os.close(fd)

    def write(self):
        path = self.path()
        self.say("write", path)
        self.allow(self.ANY, self.put, path)

    def replace(self):
        path, temporary = self.path(), os.path.join(self.root, f"w{os.getpid()}")
        self.say("replace", path)
        self.put(temporary)
        self.allow(self.ANY, os.rename, temporary, path)
        self.attempt(os.unlink, temporary)

    def read(self):
        path = self.path(self.NAMES + self.TOKENS)
        self.say("read", path)

        def get():
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                return os.pread(fd, 1 << 20, 0)
            finally:
                os.close(fd)

        data = self.allow(self.ANY, get)
        if data is not None and self.promise:
            self.check_whole(data)

    def check_whole(self, data):
        if data and b"%08x" % zlib.crc32(data[8:]) != data[:8]:
            raise Different(f"torn: {data[:40]!r}, {len(data)} bytes")

    def mkdir(self):
        path = self.path(self.FOLDERS)
        if path.count("/") - self.root.count("/") < 4:
            self.say("mkdir", path)
            self.allow(self.ANY, os.mkdir, path)

    def rmdir(self):
        path = self.path(self.FOLDERS)
        self.say("rmdir", path)
        self.allow(self.ANY, os.rmdir, path)

    def unlink(self):
        path = self.path()
        self.say("unlink", path)
        self.allow(self.ANY, os.unlink, path)

    def rename(self):
        old, new, flags = self.path(), self.path(), self.random.choice((0, 0, NOREPLACE, EXCHANGE))
        self.say("rename", old, new, flags)
        self.allow(self.ANY, renameat2, old, new, flags)

    def move_folder(self):
        old, new, flags = self.path(self.FOLDERS), self.path(self.FOLDERS), self.random.choice((0, NOREPLACE, EXCHANGE))
        self.say("move", old, new, flags)
        self.allow(self.ANY, renameat2, old, new, flags)

    def move_token(self):
        old, new = self.path(self.TOKENS), self.path(self.TOKENS)
        flags = self.random.choice((NOREPLACE, EXCHANGE))
        self.say("token", old, new, flags)
        self.allow(self.ANY, renameat2, old, new, flags)

    def link(self):
        old, new = self.path(), self.path()
        self.say("link", old, new)
        self.allow(self.ANY, os.link, old, new)

    def chmod(self):
        path, mode = self.path(), self.random.choice((0o600, 0o644))
        self.say("chmod", path)
        self.allow(self.ANY, os.chmod, path, mode)

    def stat(self):
        path = self.path(self.NAMES + self.FOLDERS)
        self.say("stat", path)
        found = self.allow(self.ANY, os.lstat, path)
        end, number = time.monotonic() + 10, found and found.st_ino
        # Another is removing it: it has no name any more, but he has to get the processor before the name is gone.
        while found is not None and found.st_ino == number and found.st_nlink < 1:
            if time.monotonic() > end:
                raise Different("found by a name, and has none")
            found = self.allow(self.ANY, os.lstat, path)

    def list(self):
        path = self.folder()
        self.say("list", path)
        names = self.allow(self.ANY, os.listdir, path)
        if names is not None and self.promise and len(set(names)) != len(names):
            raise Different(f"listed twice: {sorted(names)}")


def main():
    kind, rule, root, number, seed, steps, seconds = sys.argv[1:]
    seed, promise, end, runs = int(seed), rule == "promise", time.monotonic() + float(seconds), 0
    if kind == "private":
        root = os.path.join(root, number)
        os.makedirs(root, exist_ok=True)
    os.umask(0)
    while True:
        process = (Private if kind == "private" else Shared)(root, seed + runs, promise)
        process.run(int(steps))
        runs += 1
        over = time.monotonic() >= end
        if kind == "private":
            try:
                process.end(over)
            except (Different, OSError) as error:
                print("\n".join(f"  {line}" for line in process.trace))
                print(f"seed {process.seed}, at the end: {error}")
                sys.exit(1)
        if over:
            break
    print(f"{runs} runs of {steps} steps from seed {seed}")


if __name__ == "__main__":
    main()

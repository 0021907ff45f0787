"""POSIX conformance: cases that run on the mount and, as a control, on the file systems below.

A case is a short script. Its steps are separated by `;` or a newline and are each

    [@USER] VERB ARGUMENT... [= OUTCOME] [~ROW OUTCOME]

OUTCOME is what the system call gives: `0` (the default), the name of an errno, or what the verb looks at; `A|B` is one
of the two. The control says that OUTCOME is what file systems do. `~ROW OUTCOME` is what the mount does instead; ROW
must be a row of docs/posix.md, which says why.

    file f alice 0600; @bob open f rdonly = EACCES; @alice unlink f; type f = none

Arguments that are paths are relative to the directory of the case. `%FF` is the byte 0xFF, `''` the empty path, `4095:f` an
absolute path of 4095 bytes to f, `&H` the file that `keep H ...` has left open. Every user but root has one process
that does his calls, for as long as the tests run. Calls leave modes alone: the umask is 0 unless a case says `umask`.

Verbs are functions that are registered with @verb; a test file may add its own. `make(place, ...)` has the user in
place.user, and place.call() does a call of the worker, or of `os`, as that user.
"""
import contextlib
import errno
import os
import re
import stat
import time
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import pytest

import worker
from pfs import AT_FDCWD, REPO, Worker, name_of


class User(NamedTuple):
    uid: int
    gid: int
    groups: tuple = ()


USERS = {
    "root": User(0, 0),
    "alice": User(65501, 65501, (65510,)),  # is in the group `team`
    "bob": User(65502, 65502),
    "carol": User(65503, 65503, (65510, 65501)),  # is in `team`, and in alice's group
    "process": User(0, 0),  # root in a process of his own
}
GROUPS = {**{name: user.gid for name, user in USERS.items() if name != "process"}, "team": 65510, "none": 65520}
VERBS = {}
REALTIME_COARSE = 5  # what file systems take their times from


def documented():
    """The rows of docs/posix.md."""
    return set(re.findall(r"^\| `([\w-]+)` \|", (REPO / "docs/posix.md").read_text(), re.MULTILINE))


def verb(function):
    VERBS[function.__name__.rstrip("_")] = function
    return function


class Users:
    """The process of each user, made when it is needed."""

    def __init__(self):
        self.workers = {}

    def __getitem__(self, name):
        if name not in self.workers or self.workers[name].process.poll() is not None:
            self.workers[name] = Worker() if os.geteuid() else Worker(*USERS[name])
            self.workers[name].umask(0)
        return self.workers[name]

    def close(self):
        stuck = [worker.pid for worker in self.workers.values() if not worker.end()]
        assert not stuck, f"pids {stuck} could not be ended"


class Place:
    """A directory on one file system in which one case runs."""

    def __init__(self, root, users, mounted):
        self.root, self.users, self.mounted = os.fsdecode(root), users, mounted
        self.umask = os.umask(0)
        self.user = "root"
        self.kept = {}  # name: (user, descriptor)
        self.marks = {}
        self.masked = set()  # users with an umask

    def path(self, name):
        """The absolute path of an argument."""
        sized = re.fullmatch(r"(\d+):(.*)", name)
        if name == "''":
            return ""
        if name.startswith("&"):  # below a directory that is kept open
            handle, slash, rest = name[1:].partition("/")
            return f"/proc/self/fd/{self.kept[handle][1]}{slash}{rest}"
        if sized:
            return self.root + "/" * (int(sized[1]) - len(os.fsencode(self.root + sized[2]))) + sized[2]
        return os.path.join(self.root, os.fsdecode(unquote_to_bytes(name)))

    def call(self, name, *args, **kwargs):
        return self.call_as(self.user, name, *args, **kwargs)

    def call_as(self, user, name, *args, **kwargs):
        if user == "root":  # faster, and what hangs is ended by the watchdog
            return (getattr(worker, name, None) or getattr(os, name))(*args, **kwargs)
        process = self.users[user]
        job = process.begin(name, *args, **kwargs)
        try:
            return job.result()
        finally:
            if not job.done:
                process.end()  # it hangs: the next case gets another one

    def lstat(self, name):
        """What lstat(2) says of a path, or fstat(2) of `&H`."""
        if name.startswith("&") and "/" not in name:
            user, fd = self.kept[name[1:]]
            return self.call_as(user, "fstat", fd)
        return self.call("lstat", self.path(name)) if name.startswith("&") else os.lstat(self.path(name))

    def outcome(self, name, *args):
        """Do one verb: an errno's name, or what it returns."""
        try:
            result = VERBS[name](self, *args)
        except OSError as error:
            return {"ENOTSUP": "EOPNOTSUPP", "EWOULDBLOCK": "EAGAIN"}.get(name := name_of(error.errno), name)
        return "0" if result is None else str(result)

    def run(self, script):
        """Run the steps of a case; every one must have its outcome."""
        steps = filter(None, map(str.strip, re.split(r"[;\n]", script)))
        wrong = [complaint for complaint in map(self.step, steps) if complaint]
        assert not wrong, f"{'mount' if self.mounted else 'control'}, {self.root}: " + "; ".join(wrong)

    def step(self, step):
        """Run one step: None, or what is wrong."""
        found = re.fullmatch(r"(?:@(\w+) )?(.*?)(?: = (\S*))?(?: ~([\w-]+) (\S+))?", step)
        user, call, wanted, row, differs = found.groups()
        assert row is None or row in documented(), f"{row} is not a row of docs/posix.md"
        wanted = differs if row and self.mounted else wanted if wanted is not None else "0"
        self.user = user or "root"
        got = self.outcome(*call.split())
        return None if got in wanted.split("|") else f"{step:.300}: got {got:.300}"

    def close(self):
        for user, fd in self.kept.values():
            with contextlib.suppress(OSError):
                self.call_as(user, "close", fd)
        self.kept.clear()
        for user in self.masked:
            self.call_as(user, "umask", 0)
        os.umask(self.umask)


# ---- making things ---------------------------------------------------------------------------------------------------

KINDS = ("file", "dir", "symlink", "fifo", "socket", "char", "block")


def make(place, kind, name):
    """Make something of a kind, with no rights held back."""
    path = place.path(name)
    if kind == "file":
        place.call("close", place.call("open", path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    elif kind == "dir":
        place.call("mkdir", path, 0o755)
    elif kind == "symlink":
        place.call("symlink", "test", path)
    elif kind == "fifo":
        place.call("mkfifo", path, 0o644)
    else:
        mode = {"socket": stat.S_IFSOCK, "char": stat.S_IFCHR, "block": stat.S_IFBLK}[kind]
        place.call("mknod", path, mode | 0o644, 0 if kind == "socket" else os.makedev(1, 2))


def made(kind):
    def maker(place, name, owner=None, mode=None):
        """KIND NAME [OWNER[:GROUP]] [MODE]: root's, whoever asks, if he does not say whose."""
        if owner is not None and owner.isdigit():
            owner, mode = None, owner
        make(place, kind, name)
        if owner:
            chown(place, name, owner)
        if mode and kind != "symlink":
            os.chmod(place.path(name), int(mode, 8))
    return maker


for each in KINDS:
    VERBS[each] = made(each)


def owner_of(text):
    """`alice`, `alice:team` or `:team` as numbers; -1 is as it was."""
    user, _, group = text.partition(":")
    uid = USERS[user].uid if user else -1
    return uid, GROUPS[group] if group else USERS[user].gid if user else -1


# ---- system calls ----------------------------------------------------------------------------------------------------

@verb
def mkdir(place, name, mode="0755"):
    place.call("mkdir", place.path(name), int(mode, 8))


@verb
def rmdir(place, name):
    place.call("rmdir", place.path(name))


@verb
def unlink(place, name):
    place.call("unlink", place.path(name))


@verb
def rename(place, old, new, *flags):
    """`noreplace` and `exchange` make it renameat2(2)."""
    if flags:
        bits = sum({"noreplace": 1, "exchange": 2, "whiteout": 4}.get(flag) or int(flag, 0) for flag in flags)
        place.call("renameat2", place.path(old), place.path(new), bits)
    else:
        place.call("rename", place.path(old), place.path(new))


@verb
def link(place, old, new, *flags):
    """`follow` makes it linkat(2) with AT_SYMLINK_FOLLOW, which os.link does not give."""
    paths = os.fsencode(place.path(old)), os.fsencode(place.path(new))
    place.call("libc_call", "linkat", AT_FDCWD, paths[0], AT_FDCWD, paths[1], 0x400 if "follow" in flags else 0)


@verb
def symlink_(place, target, name):
    """`ln TARGET NAME`: the target is taken as it stands; `$/` at its beginning is the directory of the case."""
    target = "" if target == "''" else os.fsdecode(unquote_to_bytes(target))
    place.call("symlink", place.root + target[1:] if target.startswith("$/") else target, place.path(name))


VERBS["ln"] = VERBS.pop("symlink")
VERBS["symlink"] = made("symlink")


@verb
def readlink(place, name):
    return place.call("readlink", place.path(name))


@verb
def mkfifo(place, name, mode="0644"):
    place.call("mkfifo", place.path(name), int(mode, 8))


@verb
def mknod(place, name, kind, mode="0644", device="1:2"):
    major, minor = map(int, device.split(":"))
    format_ = {"file": stat.S_IFREG, "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "char": stat.S_IFCHR,
               "block": stat.S_IFBLK, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK}[kind]
    device = os.makedev(major, minor) if kind in ("char", "block") else 0
    place.call("mknod", place.path(name), format_ | int(mode, 8), device)


@verb
def bind(place, name):
    folder, _, last = place.path(name).rpartition("/")
    place.call("bind_socket", folder, last)


def open_flags(text):
    """`rdwr,creat,excl` as a number."""
    bits = 0
    for flag in text.split(","):
        bits |= int(flag) if flag.isdigit() else getattr(os, "O_" + flag.upper())
    return bits


@verb
def open_(place, name, flags, mode="0644"):
    place.call("close", place.call("open", place.path(name), open_flags(flags), int(mode, 8)))


@verb
def keep(place, handle, name, flags, mode="0644"):
    """Like open, but the file stays open as &HANDLE."""
    place.kept[handle] = place.user, place.call("open", place.path(name), open_flags(flags), int(mode, 8))


@verb
def close(place, handle):
    user, fd = place.kept.pop(handle.lstrip("&"))
    place.call_as(user, "close", fd)


@verb
def chmod(place, name, mode):
    if name.startswith("&"):
        user, fd = place.kept[name[1:]]
        place.call_as(user, "fchmod", fd, int(mode, 8))
    else:
        place.call("chmod", place.path(name), int(mode, 8))


@verb
def chown(place, name, owner):
    place.call("lchown", place.path(name), *owner_of(owner))


@verb
def umask(place, mask):
    place.call("umask", int(mask, 8))
    place.masked.add(place.user)


@verb
def effective(place, user, *step):
    """A call of a process whose effective ids are another user's, its real ones root's."""
    who, root = USERS[user], place.users["process"]
    place.user = "process"
    root.setgroups(list(who.groups))
    root.setegid(who.gid)
    root.seteuid(who.uid)
    try:
        return place.outcome(*step)
    finally:
        root.seteuid(0)
        root.setegid(0)
        root.setgroups([])


# ---- looking ---------------------------------------------------------------------------------------------------------

@verb
def type_(place, name):
    try:
        mode = place.lstat(name).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "none"
    return {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
            stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}[stat.S_IFMT(mode)]


@verb
def mode_(place, name):
    return f"{stat.S_IMODE(place.lstat(name).st_mode):04o}"


@verb
def owner(place, name):
    """Of a file: `alice:team`."""
    found = place.lstat(name)
    return (f"{next(user for user, ids in USERS.items() if ids.uid == found.st_uid)}:"
            f"{next(group for group, gid in GROUPS.items() if gid == found.st_gid)}")


@verb
def nlink(place, name):
    return place.lstat(name).st_nlink


@verb
def size(place, name):
    return place.lstat(name).st_size


@verb
def device(place, name):
    number = place.lstat(name).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


@verb
def same(place, first, second):
    """Whether two names are of one object."""
    one, two = place.lstat(first), place.lstat(second)
    return "yes" if (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino) else "no"


@verb
def ls(place, name="."):
    """The names in a directory, sorted, with `,` between them; `-` if there are none."""
    return ",".join(sorted(place.call("listdir", place.path(name)))) or "-"


@verb
def read(place, name):
    """The bytes of a file; `-` if there are none."""
    if name.startswith("&") and "/" not in name:
        user, fd = place.kept[name[1:]]
        return place.call_as(user, "pread", fd, 1 << 20, 0).decode() or "-"
    return place.call("read_path", place.path(name)).decode() or "-"


@verb
def write(place, name, text):
    """Make what a file has this text; `&H` is written to at 0."""
    if name.startswith("&"):
        user, fd = place.kept[name[1:]]
        place.call_as(user, "pwrite", fd, text.encode(), 0)
    else:
        place.call("write_path", place.path(name), text.encode(), mode=0o644)


# ---- times -----------------------------------------------------------------------------------------------------------

def times(place, name):
    found = place.lstat(name)
    return {"m": found.st_mtime_ns, "c": found.st_ctime_ns}


@verb
def mark(place, *names):
    """Note the times of these, and wait until the clock gives others."""
    found = {name: times(place, name) for name in names}
    place.marks.update(found)
    latest = max(each for entry in found.values() for each in entry.values() if each < time.time_ns() + 10**9)
    while time.clock_gettime_ns(REALTIME_COARSE) <= latest:
        time.sleep(0.0005)


@verb
def changed(place, name, before=None):
    """Which of mtime and ctime have changed since they were marked (under the name BEFORE): m, c, mc or -."""
    old, new = place.marks[before or name], times(place, name)
    assert all(new[each] >= old[each] for each in old), f"{name}: times go back, {old} to {new}"
    return "".join(each for each in "mc" if new[each] != old[each]) or "-"


# ---- tables ----------------------------------------------------------------------------------------------------------

def cases(*tables):
    """Parametrize a test with scripts: each table is {name: script} or (a line of) `name: script` text."""
    rows = []
    for table in tables:
        if isinstance(table, str):
            table = [line.split(": ", 1) for line in map(str.strip, table.splitlines()) if line and line[0] != "#"]
        rows += [pytest.param(script, id=name) for name, script in (table.items() if isinstance(table, dict) else table)]
    names = [row.id for row in rows]
    assert len(set(names)) == len(names), f"twice: {sorted({name for name in names if names.count(name) > 1})}"
    return pytest.mark.parametrize("script", rows)


# One data path is enough for what has nothing to do with data.
one_data_path = pytest.mark.parametrize("place_kind", ["mount", "control", "disk"], indirect=True)

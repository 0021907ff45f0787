"""How paths are resolved, for every call that takes one: what POSIX says of each component, by call and errno."""
import os
import subprocess
from pathlib import Path

import pytest

import pfs
from posixfs import USERS, Place, cases, one_data_path, verb

pytestmark = [pytest.mark.needs_root, one_data_path]

# Calls that make P, with what they need besides.
MAKERS = {
    "mkdir": "mkdir P",
    "mkfifo": "mkfifo P",
    "mknod-file": "mknod P file",
    "mknod-socket": "mknod P socket",
    "mknod-char": "mknod P char",
    "mknod-block": "mknod P block",
    "ln": "ln test P",
    "open-creat": "open P wronly,creat",
    "open-excl": "open P rdwr,creat,excl",
    "link-to": "link src P",
    "rename-to": "rename src P",
    "noreplace-to": "rename src P noreplace",
    "rename-dir-to": "rename srcdir P",
}
# Calls that want P to be there, and what they want.
TAKERS = {
    "open": ("file", "open P rdonly"),
    "open-write": ("file", "open P wronly"),
    "open-path": ("file", "open P path"),
    "open-directory": ("dir", "open P rdonly,directory"),
    "link-from": ("file", "link P dst"),
    "rename-from": ("file", "rename P dst"),
    "exchange": ("file", "rename P src exchange"),
    "unlink": ("file", "unlink P"),
    "rmdir": ("dir", "rmdir P"),
    "readlink": ("symlink", "readlink P"),
    "lstat": ("file", "lstat P"),
    "stat": ("file", "stat P"),
}
READLINK = " = test"  # what it gives when it succeeds
SOURCES = "file src; dir srcdir; "
CALLS = {**MAKERS, **{name: call for name, (_, call) in TAKERS.items()}}


@verb
def lstat(place, name):
    place.call("lstat", place.path(name))


@verb
def stat(place, name):
    place.call("stat", place.path(name))


def on(call, path, outcome="0"):
    """The step that does a call on a path."""
    wanted = READLINK if outcome == "0" and call.startswith("readlink") else f" = {outcome}"
    return call.replace(" P", f" {path}") + wanted


def every_call(label, before, path, outcome):
    """The case of every call on a path that cannot be reached: nothing changes."""
    calls = "\n".join(on(call, path, outcome) for call in CALLS.values())
    return {label: f"{SOURCES}{before}; mark . src srcdir\n{calls}\nchanged . = -; changed src = -; changed srcdir = -"}


# ---- what is on the way ----------------------------------------------------------------------------------------------

WAYS = {}
for kind in ("file", "fifo", "socket", "char", "block"):
    WAYS.update(every_call(f"below-{kind}", f"{kind} n", "n/x", "ENOTDIR"))
    WAYS.update(every_call(f"below-{kind}-further", f"dir d; {kind} d/n", "d/n/x/y", "ENOTDIR"))
WAYS.update(every_call("below-link-to-file", "file f; ln f n", "n/x", "ENOTDIR"))
WAYS.update(every_call("below-nothing", "dir d", "d/n/x", "ENOENT"))
WAYS.update(every_call("below-dangling-link", "ln nothing n", "n/x", "ENOENT"))
WAYS.update(every_call("empty-path", "dir d", "''", "ENOENT"))
WAYS.update(every_call("loop", "ln b a; ln a b", "a/x", "ELOOP"))
WAYS.update(every_call("link-to-itself", "ln a a", "a/x", "ELOOP"))
WAYS.update(every_call("absolute-loop", "ln $/b a; ln $/a b", "a/x", "ELOOP"))
WAYS.update(every_call("component-256", "dir d", "d/" + "x" * 256, "ENAMETOOLONG"))
WAYS.update(every_call("middle-256", "dir d", "d/" + "x" * 256 + "/y", "ENAMETOOLONG"))
WAYS.update(every_call("component-1000", "dir d", "x" * 1000, "ENAMETOOLONG"))
WAYS.update(every_call("path-4096", "dir d", "4096:x", "ENAMETOOLONG"))
WAYS.update(every_call("path-8000", "dir d", "8000:x", "ENAMETOOLONG"))

CHAIN = "dir d; " + "".join(f"ln {'d' if n == 0 else f'l{n - 1}'} l{n}; " for n in range(42))
WAYS.update(every_call("over-41-links", CHAIN, "l40/x", "ELOOP"))


@cases(WAYS)
def test_a_path_that_leads_nowhere(place, script):
    place.run(script)


# ---- what is long, but not too long ----------------------------------------------------------------------------------

LONG = {}
for name, call in MAKERS.items():
    LONG[f"{name}-component-255"] = f"{SOURCES}{on(call, 'x' * 255)}; unlink {'x' * 255} = 0|EISDIR"
    LONG[f"{name}-path-4095"] = f"{SOURCES}{on(call, '4095:x')}; unlink x = 0|EISDIR"
    LONG[f"{name}-over-40-links"] = f"{SOURCES}{CHAIN}{on(call, 'l39/x')}; unlink d/x = 0|EISDIR"
for name, (kind, call) in TAKERS.items():
    LONG[f"{name}-component-255"] = f"{SOURCES}{kind} {'x' * 255}; {on(call, 'x' * 255)}"
    LONG[f"{name}-path-4095"] = f"{SOURCES}{kind} x; {on(call, '4095:x')}"
    differs = " ~links-of-writers ELOOP" if name == "open-write" else ""
    LONG[f"{name}-over-40-links"] = f"{SOURCES}{CHAIN}{kind} d/x; {on(call, 'l39/x')}{differs}"
LONG["open-write-over-20-links"] = f"{CHAIN}file d/x; open l19/x wronly; open l20/x wronly = 0 ~links-of-writers ELOOP"
LONG["open-through-40-links"] = "file f; " + CHAIN.replace("ln d l0", "ln f l0") + "open l39 rdonly; open l40 rdonly = ELOOP"
LONG["open-creat-through-40-links"] = (CHAIN.replace("ln d l0", "ln f l0") + "open l40 wronly,creat = ELOOP; "
                                       "type f = none; open l39 wronly,creat; type f = file")
LONG["target-4095"] = f"ln {'x' * 4095} s; size s = 4095; readlink s = {'x' * 4095}"
LONG["target-4096"] = f"ln {'x' * 4096} s = ENAMETOOLONG; type s = none"
LONG["target-with-component-256"] = f"ln {'x' * 256} s; open s rdonly = ENAMETOOLONG"
LONG["target-empty"] = "ln '' s = ENOENT; type s = none"


@cases(LONG)
def test_a_long_path(place, script):
    place.run(script)


def test_deep_trees(place):
    """Directories can be nested until PATH_MAX ends them, and further by steps."""
    depth = (4095 - len(place.root) - 2) // 201
    deep = "/".join(["x" * 200] * depth)
    os.makedirs(place.path(deep))
    place.run(f"write {deep}/f text; read {deep}/f = text; rename {deep}/f {deep}/g; read {deep}/g = text")
    place.run(f"ls 4095:{deep} = g")
    place.run(f"keep H {deep} rdonly,directory; dir &H/{'y' * 250}; file &H/{'y' * 250}/f; nlink {deep} = 3")
    place.run(f"open {deep}/{'y' * 250}/{'z' * 250} rdonly = ENOENT|ENAMETOOLONG; unlink &H/{'y' * 250}/f")


# ---- dots and slashes ------------------------------------------------------------------------------------------------

ENDS = """
mkdir-slash: mkdir d/; type d = dir
mkdir-slashes: mkdir d///; type d = dir
mkdir-dot: mkdir . = EEXIST; dir d; mkdir d/. = EEXIST; mkdir d/.. = EEXIST; mkdir x/. = ENOENT
mkdir-inner-slashes: dir d; mkdir d///e; type d/e = dir
mkdir-inner-dots: dir d; mkdir d/./../d/e; type d/e = dir
mkdir-root: mkdir / = EEXIST
rmdir-slash: dir d; rmdir d/; type d = none
rmdir-dot: dir d; rmdir d/. = EINVAL; rmdir . = EINVAL; type d = dir
rmdir-dot-dot: dir d; dir d/e; rmdir d/e/.. = ENOTEMPTY; rmdir d/.. = ENOTEMPTY; type d/e = dir
rmdir-slash-file: file f; rmdir f/ = ENOTDIR; type f = file
rmdir-link: dir d; ln d s; rmdir s = ENOTDIR; rmdir s/ = ENOTDIR; type d = dir; type s = symlink
rmdir-root: rmdir / = EBUSY
unlink-slash: file f; unlink f/ = ENOTDIR; type f = file
unlink-slash-dir: dir d; unlink d/ = EISDIR; type d = dir
unlink-slash-nothing: unlink n/ = ENOENT
unlink-slash-link: dir d; ln d s; unlink s/ = ENOTDIR; type s = symlink
unlink-dot: unlink . = EISDIR; dir d; unlink d/. = EISDIR; unlink d/.. = EISDIR
open-slash: file f; open f/ rdonly = ENOTDIR
open-slash-dir: dir d; open d/ rdonly; open d/. rdonly; open d/.. rdonly
open-slash-nothing: open n/ rdonly = ENOENT
open-creat-slash: open n/ wronly,creat = EISDIR; type n = none
open-creat-slash-file: file f; open f/ wronly,creat = EISDIR|ENOTDIR
open-creat-dot: open . wronly,creat = EISDIR; open .. rdonly,creat = EISDIR
open-slash-link: dir d; ln d s; open s/ rdonly,nofollow; open s/. rdonly,nofollow
open-slash-link-to-file: file f; ln f s; open s/ rdonly = ENOTDIR
mkfifo-slash: mkfifo p/ = ENOENT; type p = none
mkfifo-slash-there: dir d; mkfifo d/ = EEXIST
mkfifo-dot: mkfifo . = EEXIST
mknod-slash: mknod p/ socket = ENOENT; type p = none
ln-slash: ln test s/ = ENOENT; type s = none
ln-slash-there: dir d; ln test d/ = EEXIST; file f; ln test f/ = EEXIST|ENOTDIR
ln-dot: ln test . = EEXIST
link-slash-new: file f; link f g/ = ENOENT; type g = none
link-slash-old: file f; link f/ g = ENOTDIR; type g = none
link-dot-new: file f; dir d; link f . = EEXIST; link f d/. = EEXIST; link f d/.. = EEXIST
link-dot-old: dir d; link . x = EPERM; link d/. x = EPERM
rename-slash-file: file f; rename f/ g = ENOTDIR; rename f g/ = ENOTDIR; type f = file; type g = none
rename-slash-dir: dir d; rename d/ e; type e = dir; rename e d/; type d = dir; rename d/ e/; type e = dir
rename-slash-dir-there: dir d; dir e; rename d e/; type d = none; type e = dir
rename-slash-link: dir d; ln d s; rename s/ t = ENOTDIR; type s = symlink
rename-slash-to-link: dir d; dir e; ln e s; rename d s/ = ENOTDIR; type s = symlink
rename-dot: dir d; rename . e = EBUSY; rename d/. e = EBUSY; rename d/.. e = EBUSY
rename-to-dot: dir d; dir e; rename d . = EBUSY; rename d e/. = EBUSY; rename d e/.. = EBUSY
readlink-slash: dir d; ln d s; readlink s/ = EINVAL; readlink s = d
readlink-dot: readlink . = EINVAL
dot-dot-of-link: dir d; dir d/e; ln d/e s; mkdir s/../x; type d/x = dir
dot-dot-after-rename: dir d; dir d/s; dir e; rename d/s e/s; mkdir e/s/../x; type e/x = dir; same e/s/.. e = yes
dot-dot-of-root: mkdir /../.. = EEXIST
"""


@cases(ENDS)
def test_dots_and_slashes(place, script):
    place.run(script)


# ---- symbolic links --------------------------------------------------------------------------------------------------

LINKS = """
relative: dir d; write d/f text; ln d/f s; read s = text
relative-to-its-directory: dir d; write f text; write d/f other; ln f d/s; read d/s = other
absolute: write f text; ln $/f s; read s = text
up: dir d; write f text; ln ../f d/s; read d/s = text
through-link: dir d; write d/f text; ln d s; read s/f = text; unlink s/f; type d/f = none
link-to-link: write f text; ln f a; ln a b; read b = text; readlink b = a
link-to-slash: dir d; ln d/ s; mkdir s/x; type d/x = dir
last-not-followed: file f; ln f s; unlink s; type f = file; type s = none
last-not-followed-rename: file f; ln f s; rename s t; readlink t = f; type f = file
last-not-followed-rename-over: write f text; ln f s; file g; rename g s; type s = file; read f = text
last-not-followed-mkdir: ln d s; mkdir s = EEXIST; type d = none
last-not-followed-mkfifo: ln d s; mkfifo s = EEXIST; type d = none
last-not-followed-mknod: ln d s; mknod s socket = EEXIST; type d = none
last-not-followed-ln: ln d s; ln x s = EEXIST; readlink s = d
last-not-followed-link: file f; ln d s; link f s = EEXIST; type d = none
last-not-followed-excl: ln d s; open s wronly,creat,excl = EEXIST; type d = none
last-followed-creat: ln f s; open s wronly,creat; type f = file; type s = symlink
last-followed-creat-further: dir d; ln d/f s; open s wronly,creat; type d/f = file
last-followed-creat-nowhere: ln d/f s; open s wronly,creat = ENOENT
mkdir-through-dangling-slash: ln d s; mkdir s/ = EEXIST; type d = none
link-of-link: write f text; ln f s; link s t; type t = symlink; nlink s = 2; same s t = yes
link-of-link-followed: write f text; ln f s; link s t follow; type t = file; nlink f = 2; same f t = yes
link-of-dangling-followed: ln f s; link s t follow = ENOENT
link-of-loop-followed: ln s s; link s t follow = ELOOP
open-loop: ln s s; open s rdonly = ELOOP; open s wronly,creat = ELOOP
open-loop-excl: ln s s; open s wronly,creat,excl = EEXIST
exec-bits-do-not-matter: dir d root 0755; ln d s; @bob ls s = -; mode s = 0777
size-is-length: ln 12345 s; size s = 5; nlink s = 1; mode s = 0777
any-bytes: ln %FF%0A%C3%28 s; size s = 4
"""


@cases(LINKS)
def test_symbolic_links(place, script):
    place.run(script)


# ---- rights ----------------------------------------------------------------------------------------------------------

def bits_of(mode, user, owner, group):
    """The permission bits that count for a user."""
    who = USERS[user]
    if who.uid == USERS[owner].uid:
        return mode >> 6 & 7
    return mode >> 3 & 7 if group in (who.gid, *who.groups) else mode & 7


def outcome(allowed):
    return "0" if allowed else "EACCES"


RIGHTS = {}
for user in ("alice", "bob", "carol"):
    for shift in (6, 3, 0):
        for bits in range(8):
            mode = bits << shift | (7 - bits) * (0o111 ^ 1 << shift)
            mine = bits_of(mode, user, "alice", 65510)
            search, change = outcome(mine & 1), outcome(mine & 3 == 3)
            RIGHTS[f"{user}-{mode:04o}"] = f"""
                dir d alice:team 0777; file d/f root 0666; file d/g root 0666; dir d/e; symlink d/s; file mine {user}
                chmod d {mode:04o}; mark d; chmod . 0777
                @{user} ls d = {'e,f,g,s' if mine & 4 else 'EACCES'}
                @{user} open d/f rdonly = {search}; @{user} open d/f wronly = {search}; @{user} stat d/f = {search}
                @{user} readlink d/s = {'test' if mine & 1 else 'EACCES'}; @{user} link d/f f2 = {search}
                @{user} open d/nothing rdonly = {'ENOENT' if mine & 1 else 'EACCES'}; changed d = -
                @{user} mkdir d/new1 = {change}; @{user} open d/new2 wronly,creat = {change}
                @{user} mkfifo d/new3 = {change}; @{user} ln test d/new4 = {change}
                @{user} mknod d/new5 socket = {change}; @{user} link mine d/new6 = {change}
                @{user} rename mine d/new7 = {change}; @{user} rename d/f moved = {change}
                @{user} unlink d/g = {change}; @{user} rmdir d/e = {change}; changed d = {'mc' if mine & 3 == 3 else '-'}
                open d/f rdonly = {'ENOENT' if mine & 3 == 3 else 0}"""


@cases(RIGHTS)
def test_rights_on_the_directory(place, script):
    place.run(script)


SEARCH = {}
for first, second in ("0644", "0755"), ("0755", "0644"), ("0666", "0777"), ("0710", "0755"), ("0755", "0700"):
    calls = "\n".join("@bob " + on(call, "d/e/x/y", "EACCES") for call in CALLS.values() if "char" not in call)
    SEARCH[f"{first}-{second}"] = f"""
        file src bob; dir srcdir bob; dir d; dir d/e; dir d/e/x bob:bob 0777; chmod . 0777
        chmod d/e {second}; chmod d {first}; mark d/e/x\n{calls}\nchanged d/e/x = -"""
EXISTING = """
mkdir-where-something-is: dir d root 0555; file d/f; @bob mkdir d/f = EEXIST
mkfifo-where-something-is: dir d root 0555; file d/f; @bob mkfifo d/f = EEXIST
ln-where-something-is: dir d root 0555; file d/f; @bob ln x d/f = EEXIST
link-where-something-is: dir d root 0555; file d/f; file f bob; chmod . 0777; @bob link f d/f = EEXIST
open-creat-where-something-is: dir d root 0555; file d/f root 0666; @bob open d/f rdwr,creat; @bob open d/f rdwr,creat,excl = EEXIST
unlink-nothing: dir d root 0555; @bob unlink d/f = ENOENT
rmdir-nothing: dir d root 0555; @bob rmdir d/f = ENOENT
rmdir-file: dir d root 0555; file d/f; @bob rmdir d/f = EACCES|ENOTDIR
unlink-dir: dir d root 0555; dir d/e; @bob unlink d/e = EACCES|EISDIR
rename-nothing: dir d root 0555; @bob rename d/f d/g = ENOENT
rename-to-itself: dir d root 0555; file d/f bob; @bob rename d/f d/f = 0|EACCES
open-creat-new: dir d root 0555; @bob open d/f wronly,creat = EACCES; type d/f = none
open-tmpfile: dir d root 0555; @bob open d rdwr,tmpfile = EACCES
group-by-supplementary: dir d root:team 0770; @carol mkdir d/x; @alice mkdir d/y; @bob mkdir d/z = EACCES
group-by-effective: dir d root:bob 0770; @bob mkdir d/x; @alice mkdir d/y = EACCES
group-denied-others-allowed: dir d root:team 0707; @carol mkdir d/x = EACCES; @bob mkdir d/y
owner-denied-group-allowed: dir d alice:team 0077; @alice mkdir d/x = EACCES; @carol mkdir d/x; @bob mkdir d/y
root-always: dir d alice 0000; mkdir d/x; open d/f wronly,creat; unlink d/f; rename d/x d/y; rmdir d/y
search-without-read: dir d root 0711; write d/f text; @bob read d/f = text; @bob ls d = EACCES
read-without-search: dir d root 0744; write d/f text; @bob ls d = f; @bob read d/f = EACCES; @bob stat d/f = EACCES
link-needs-no-right-on-the-way-of-the-target: dir d root 0700; chmod . 0777; @bob ln d/f s; @bob open s rdonly = EACCES
effective-uid: dir d bob 0700; effective bob mkdir d/x; owner d/x = bob:bob; effective alice mkdir d/y = EACCES
effective-uid-sticky: dir d root 1777; file d/f bob; effective alice unlink d/f = EPERM; effective bob unlink d/f
"""


@cases(SEARCH, EXISTING)
def test_rights_on_the_way(place, script):
    place.run(script)


# ---- addresses that are none -----------------------------------------------------------------------------------------

BAD = 1  # no page is there
EFAULT = {
    "mkdir": ("mkdir", BAD, 0o755), "rmdir": ("rmdir", BAD), "unlink": ("unlink", BAD), "open": ("open", BAD, os.O_RDONLY),
    "open-creat": ("open", BAD, os.O_RDWR | os.O_CREAT, 0o644), "mkfifo": ("mkfifo", BAD, 0o644),
    "mknod": ("mknod", BAD, 0o140644, 0), "link-old": ("link", BAD, "new"), "link-new": ("link", "f", BAD),
    "symlink-target": ("symlink", BAD, "new"), "symlink-name": ("symlink", "f", BAD),
    "rename-old": ("rename", BAD, "new"), "rename-new": ("rename", "f", BAD), "readlink": ("readlink", BAD, BAD, 100),
    "readlink-buffer": ("readlink", "s", BAD, 100),
}


@pytest.mark.parametrize("call", EFAULT)
def test_bad_addresses(place, call):
    place.run("file f; symlink s; mark . f s")
    name, *args = EFAULT[call]
    args = [os.fsencode(place.path(arg)) if isinstance(arg, str) else arg for arg in args]
    with pfs.fails(pfs.errno.EFAULT):
        place.call("libc_call", name, *args)
    place.run("ls = f,s; changed . = -; changed f = -; changed s = -")


def test_readlink_cuts_off(place):
    """readlinkat(2) into a buffer that is too small gives what fits, and no size is no buffer."""
    place.run("ln 1234567 s")
    path = os.fsencode(place.path("s"))
    assert place.call("readlink_into", path, 3) == b"123"
    assert place.call("readlink_into", path, 7) == b"1234567"
    assert place.call("readlink_into", path, 8) == b"1234567"
    with pfs.fails(pfs.errno.EINVAL):
        place.call("readlink_into", path, 0)


# ---- read-only -------------------------------------------------------------------------------------------------------

READ_ONLY = {name: on(call, "new", "EROFS") for name, call in MAKERS.items()}
READ_ONLY.update({f"{name}-there": on(call, "there", "EEXIST") for name, call in MAKERS.items()
                  if not name.startswith(("rename", "noreplace", "open-creat"))})
READ_ONLY.update({f"{name}-no-directory": on(call, "no/new", "ENOENT") for name, call in MAKERS.items()})
READ_ONLY.update({
    "open": "open there rdonly; open there path; open d rdonly,directory",
    "open-write": "open there wronly = EROFS; open there rdwr = EROFS; open there rdonly,trunc = EROFS",
    "open-append": "open there wronly,append = EROFS",
    "open-creat-there": "open there rdonly,creat; open there wronly,creat = EROFS",
    "open-dir": "open d wronly = EISDIR",
    "unlink": "unlink there = EROFS; unlink nothing = EROFS|ENOENT",
    "rmdir": "rmdir d = EROFS; rmdir nothing = EROFS|ENOENT",
    "rename": "rename there moved = EROFS; rename there src = EROFS; rename nothing x = EROFS|ENOENT",
    "exchange": "rename there src exchange = EROFS; rename src there noreplace = EROFS|EEXIST",
    "link": "link there new = EROFS",
    "open-fifo": "open p rdwr",
    "no-right-first": "@bob open closed rdonly = EACCES; @bob open closed wronly = EACCES|EROFS",
    "read": "read text = text; readlink s = test; ls d = -",
})


class ReadOnly:
    """A tree that was made and is then mounted read only."""
    TREE = "file src; dir srcdir; file there; dir d; fifo p; symlink s; write text text; file closed root 0600"

    def __init__(self, where, numbers, watchdog, users, mounted):
        self.mount = None
        self.base = where / f"readonly-{next(numbers)}"
        self.base.mkdir(mode=0o755)
        self.root = self.base / "mnt"
        self.root.mkdir()
        if mounted:
            with_rights = pfs.Mount(self.base, "allow_other", watchdog=watchdog).start()
            Place(self.root, users, True).run(self.TREE)
            with_rights.stop()
            self.mount = pfs.Mount(self.base, "allow_other,ro", watchdog=watchdog).start()
            watchdog.disarm(self.mount)
            return
        Place(self.root, users, False).run(self.TREE)
        subprocess.run(["mount", "--bind", self.root, self.root], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", self.root], check=True)

    def close(self):
        if self.mount:
            self.mount.stop()
        else:
            subprocess.run(["umount", self.root], check=True)


@pytest.fixture(scope="module")
def read_only(place_root, scratch, numbers, watchdog, users):
    mounted = not isinstance(place_root, Path)
    tree = ReadOnly(scratch if mounted else place_root, numbers, watchdog, users, mounted)
    yield Place(tree.root, users, mounted)
    tree.close()


@cases(READ_ONLY)
def test_read_only(read_only, script):
    read_only.run("mark . there d")
    read_only.run(script + "; changed . = -; changed there = -; changed d = -")

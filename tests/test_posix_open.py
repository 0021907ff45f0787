"""open(2) as POSIX has it: flags, kinds, rights, what changes, and what stays open when its name goes."""
import itertools
import os
from pathlib import Path

import pytest

from posixfs import KINDS, USERS, cases, verb

pytestmark = pytest.mark.needs_root

DEVICES = ("char", "block")


def sysctl(name):
    try:
        return int(Path("/proc/sys/fs", name).read_text())
    except OSError:
        return 0


# ---- what is there, and how it is opened -----------------------------------------------------------------------------

OPENED = {}
for kind in KINDS:
    makes = f"{kind} n; mark . n"
    nothing_changed = f"changed . = -; changed n = -; type n = {kind}"
    OPENED[f"{kind}-creat-excl"] = f"""
        {makes}; open n wronly,creat,excl = EEXIST; open n rdonly,creat,excl = EEXIST; open n rdwr,creat,excl,trunc = EEXIST
        open n wronly,creat,excl,nofollow = EEXIST; @bob open n wronly,creat,excl = EEXIST; {nothing_changed}"""
    OPENED[f"{kind}-path"] = f"{makes}; keep H n path,nofollow; type &H = {kind}; same &H n = yes; {nothing_changed}"
    if kind not in ("dir", "symlink"):
        OPENED[f"{kind}-directory"] = f"""
            {makes}; open n rdonly,directory = ENOTDIR; open n rdwr,directory = ENOTDIR; open n path,directory,nofollow = ENOTDIR
            open n wronly,directory,nonblock = ENOTDIR; {nothing_changed}"""
OPENED.update({
    "file": "file n; mark . n; open n rdonly; open n wronly; open n rdwr; open n rdonly,creat; open n rdwr,creat; changed . = -; changed n = -",
    "file-flags": """file n; mark . n; open n rdonly,nonblock; open n rdwr,nonblock; open n rdwr,sync; open n rdwr,dsync
        open n rdwr,append; open n rdonly,append; open n rdwr,noctty; open n rdonly,noatime; open n rdonly,nofollow
        open n wronly,nofollow; open n rdonly,excl; open n rdwr,excl; changed . = -; changed n = -""",
    "file-trunc": "write n text; mark .; open n wronly,trunc; size n = 0; open n rdwr,creat,trunc; read n = -; changed . = -",
    "file-trunc-rdonly": "write n text; open n rdonly,trunc; size n = 0",
    "file-trunc-times": "write n text; mark n; open n wronly,trunc; changed n = mc",
    "file-trunc-keeps": "write n text; chmod n 0640; chown n bob:team; open n wronly,trunc; mode n = 0640; owner n = bob:team; nlink n = 1",
    "file-trunc-links": "write n text; link n m; open n wronly,trunc; size m = 0; same n m = yes; nlink m = 2",
    "file-access-3": "write n text; keep H n 3; close H; read n = text",
    "dir": """dir n; mark . n; open n rdonly; open n rdonly,directory; open n rdonly,nofollow; open n rdonly,nonblock
        open n path; open n path,directory; open n rdonly,append; changed . = -; changed n = -""",
    "dir-write": """dir n; mark . n; open n wronly = EISDIR; open n rdwr = EISDIR; open n rdonly,trunc = EISDIR
        open n wronly,trunc = EISDIR; open n rdwr,append = EISDIR; open n wronly,directory = EISDIR; open n 3 = EISDIR
        changed . = -; changed n = -""",
    "dir-creat": "dir n; open n rdonly,creat = EISDIR; open n wronly,creat = EISDIR; open n rdwr,creat = EISDIR; type n = dir",
    "dir-creat-directory": "dir n; open n rdonly,creat,directory = EINVAL|EISDIR; open m rdonly,creat,directory = EINVAL|ENOTDIR|0",
    "symlink-nofollow": """write f text; ln f n; open n rdonly,nofollow = ELOOP; open n wronly,nofollow = ELOOP
        open n rdwr,creat,nofollow = ELOOP; open n wronly,trunc,nofollow = ELOOP; open n rdonly; open n wronly; read f = text""",
    "symlink-nofollow-earlier": "dir d; write d/f text; ln d n; open n/f rdonly,nofollow; open n/f wronly,nofollow",
    "symlink-to-dir-directory": "dir d; ln d n; open n rdonly,directory; open n rdonly,directory,nofollow = ENOTDIR|ELOOP",
    "symlink-dangling": """ln f n; mark . n; open n rdonly = ENOENT; open n wronly = ENOENT; open n wronly,creat,excl = EEXIST
        open n wronly,creat,nofollow = ELOOP; changed . = -; type f = none; open n wronly,creat 0604; type f = file
        mode f = 0604; readlink n = f; changed n = -; changed . = mc""",
    "symlink-path": "write f text; ln f n; keep H n path,nofollow; type &H = symlink; keep G n path; type &G = file; same &G f = yes",
    "fifo": "fifo n; open n rdonly,nonblock; open n wronly,nonblock = ENXIO; open n rdwr; open n rdwr,nonblock",
    "fifo-with-reader": "fifo n; keep H n rdonly,nonblock; open n wronly,nonblock; open n wronly; close H; open n wronly,nonblock = ENXIO",
    "fifo-with-writer": "fifo n; keep H n rdwr; open n rdonly; open n wronly; pipe H text = text",
    "fifo-by-two-names": "fifo n; link n m; keep H n rdonly,nonblock; keep G m wronly,nonblock; close H; open n wronly,nonblock = ENXIO",
    "fifo-trunc": "fifo n; mark n; keep H n rdwr,trunc; changed n = -",
    "fifo-creat": "fifo n; open n rdonly,nonblock,creat; open n rdwr,creat,trunc; type n = fifo",
    "fifo-moved-and-unlinked": """fifo n; keep H n rdwr; rename n m; keep G m wronly,nonblock; unlink m; pipe H text = text
        fifo m; open m wronly,nonblock = ENXIO; nlink &H = 0; type &H = fifo""",
    "fifo-rights": "fifo n alice 0600; @bob open n rdonly,nonblock = EACCES; @bob open n wronly,nonblock = EACCES; @alice open n rdwr",
    "socket": """socket n; mark . n; open n rdonly = ENXIO; open n wronly = ENXIO; open n rdwr = ENXIO; open n rdwr,nonblock = ENXIO
        open n rdonly,creat = ENXIO; open n wronly,trunc = ENXIO; open n path; changed . = -; changed n = -""",
    "socket-bound": "bind n; open n rdonly = ENXIO; rename n m; open m rdwr = ENXIO; unlink m; type m = none",
    "socket-rights": "socket n alice 0600; @bob open n rdonly = EACCES",
    "device": """mknod n char 0666 1:3; openable n rdonly = yes; openable n wronly = yes; openable n rdwr,trunc = yes
        @bob openable n rdwr = yes; chmod n 0600; @bob open n rdonly = EACCES""",
    "device-that-does-not-exist": "mknod n char 0666 240:255; open n rdonly = ENXIO|EACCES; mknod m block 0666 240:255; open m rdonly = ENXIO|EACCES",
    "nothing": """mark .; open n rdonly = ENOENT; open n wronly = ENOENT; open n rdwr,trunc = ENOENT; open n path = ENOENT
        open n rdonly,directory = ENOENT; open n wronly,append = ENOENT; open n rdonly,excl = ENOENT; changed . = -""",
    "creat": """mark .; open n wronly,creat 0640; type n = file; mode n = 0640; size n = 0; nlink n = 1; owner n = root:root
        changed . = mc; changed n . = mc; nlink . = 2""",
    "creat-rdonly": "open n rdonly,creat 0444; mode n = 0444; open m rdonly,creat,excl 0; mode m = 0000; size m = 0",
    "creat-trunc": "open n rdonly,creat,trunc; open m wronly,creat,trunc,excl; size m = 0",
    "creat-nofollow": "open n rdwr,creat,nofollow; type n = file",
    "creat-mode-does-not-bind-the-maker": "chmod . 0777; @bob keep H n rdwr,creat 0400; @bob write &H text; @bob read &H = text; mode n = 0400",
    "creat-mode-0": "chmod . 0777; @bob keep H n rdwr,creat,excl 0; @bob write &H text; @bob close H; @bob open n rdonly = EACCES; read n = text",
    "creat-over-mode": "write n text; open n wronly,creat 0000; mode n = 0644; read n = text",
    "creat-in-missing-directory": "open d/n wronly,creat = ENOENT; open d/n wronly,creat,excl = ENOENT; ls = -",
    "path-is-not-open": "write n text; keep H n path; read &H = EBADF; write &H x = EBADF; chmod &H 0600 = EBADF; mode n = 0644",
    "path-needs-no-right": "file n root 0000; @bob open n path; dir d root 0000; @bob open d path; @bob open d rdonly = EACCES",
    "path-ignores-the-rest": "write n text; mark n; open n path,trunc,creat,wronly; changed n = -; read n = text; open m path,creat = ENOENT",
    "noatime-of-others": "chmod . 0777; file n alice 0666; @bob open n rdonly,noatime = EPERM; @alice open n rdonly,noatime",
    "read-of-write-only": "write n text; keep H n wronly; read &H = EBADF; keep G n rdonly; write &G x = EBADF",
    "dup-in-proc": "write n text; keep H n rdonly; keep G &H rdonly; read &G = text; same &G n = yes",
})


@verb
def openable(place, name, flags):
    """Whether a device can be opened: where the mount has `nodev` it must be EACCES."""
    nodev = os.statvfs(place.root).f_flag & 4
    outcome = place.outcome("open", name, flags)
    return "yes" if outcome == ("EACCES" if nodev else "0") else outcome


@verb
def pipe(place, handle, text):
    """What is written into an open FIFO comes out of it."""
    user, fd = place.kept[handle]
    place.call_as(user, "write", fd, text.encode())
    return place.call_as(user, "read", fd, 100).decode()


@cases(OPENED)
def test_open(place, script):
    place.run(script)


# ---- rights on the file ----------------------------------------------------------------------------------------------

def bits_of(mode, user):
    who = USERS[user]
    if who.uid == USERS["alice"].uid:
        return mode >> 6 & 7
    return mode >> 3 & 7 if USERS["alice"].groups[0] in (who.gid, *who.groups) else mode & 7


WAYS = {"rdonly": 4, "wronly": 2, "rdwr": 6, "rdonly,trunc": 6, "wronly,append": 2, "wronly,trunc": 2, "rdwr,creat": 6,
        "rdonly,nonblock": 4, "path": 0, "3": 6}
RIGHTS = {}
for user, shift, bits in itertools.product(("alice", "bob", "carol"), (6, 3, 0), range(8)):
    mode = bits << shift | (7 - bits) * (0o111 ^ 1 << shift)
    mine = bits_of(mode, user)
    steps = []
    for flags, needed in WAYS.items():
        steps.append(f"@{user} open n {flags} = {'0' if mine & needed == needed else 'EACCES'}")
    listing = "-" if mine & 4 else "EACCES"
    RIGHTS[f"{user}-{mode:04o}"] = "\n".join(
        [f"write n text; chown n alice:team; chmod n {mode:04o}; chmod . 0777", *steps,
         f"dir d alice:team {mode:04o}; @{user} ls d = {listing}; @{user} open d rdonly = {'0' if mine & 4 else 'EACCES'}",
         f"open n rdonly; open n rdwr; open d rdonly; mode n = {mode:04o}"])
FAILED = """
changes-nothing: write n text; chmod n 0444; mark . n; @bob open n wronly,trunc = EACCES; @bob open n rdonly,trunc = EACCES; @bob open n rdwr,creat,trunc = EACCES; changed . = -; changed n = -; read n = text
excl-changes-nothing: write n text; mark . n; open n wronly,creat,excl,trunc = EEXIST; changed . = -; changed n = -; read n = text
directory-not-writable: dir d root 0755; mark d; @bob open d/n wronly,creat = EACCES; @bob open d/n rdonly,creat,excl = EACCES; changed d = -; ls d = -
directory-not-searchable: dir d root 0666; file d/n root 0666; @bob open d/n rdonly = EACCES; @bob open d/n wronly,creat = EACCES
rights-at-open-count: chmod . 0777; write n text; chmod n 0644; @bob keep H n rdonly; chmod n 0000; @bob read &H = text; @bob open n rdonly = EACCES
new-owner: write n text; chown n bob; chmod n 0600; @bob read n = text; @alice read n = EACCES; chown n alice; @bob read n = EACCES; @alice read n = text
supplementary-group: write n text; chown n root:team; chmod n 0640; @alice read n = text; @carol read n = text; @bob read n = EACCES; @carol open n wronly = EACCES
group-comes-before-others: write n text; chown n root:team; chmod n 0604; @carol read n = EACCES; @bob read n = text
owner-comes-before-group: write n text; chown n alice:team; chmod n 0060; @alice read n = EACCES; @carol read n = text
effective-uid: write n text; chown n bob; chmod n 0600; effective bob read n = text; effective alice read n = EACCES; effective alice open n wronly = EACCES
"""


@cases(RIGHTS, FAILED)
def test_rights_on_the_file(place, script):
    place.run(script)


REGULAR, FIFOS, SYMLINKS = (sysctl(f"protected_{name}") for name in ("regular", "fifos", "symlinks"))
PROTECTED = {}
for mode in ("1777", "1775", "0777"):
    # In a sticky directory that all may write (2: or a group), O_CREAT does not open what belongs neither to the one who
    # asks nor to the directory's owner.
    for name, kind, level in (("regular", "file", REGULAR), ("fifo", "fifo", FIFOS)):
        refused = mode == "1777" and level >= 1 or mode == "1775" and level >= 2
        PROTECTED[f"{name}-{mode}"] = f"""
            dir d root {mode}; {kind} d/n bob 0666; @carol open d/n rdwr,creat = {'EACCES' if refused else '0'}
            @carol open d/n rdwr; @bob open d/n rdwr,creat; {kind} d/m root 0666; @carol open d/m rdwr,creat
            open d/n rdwr,creat = {'EACCES' if refused else '0'}"""
    refused = mode == "1777" and SYMLINKS
    PROTECTED[f"symlink-{mode}"] = f"""
        dir d root {mode}; file f root 0666; ln $/f d/s; chown d/s bob; @carol open d/s rdonly = {'EACCES' if refused else '0'}
        @bob open d/s rdonly; readlink d/s = {{root}}/f; @carol open d/s rdonly,nofollow = ELOOP"""


@cases(PROTECTED)
def test_sticky_directories_that_all_may_write(place, script):
    place.run(script.replace("{root}", place.root))


# ---- what stays open -------------------------------------------------------------------------------------------------

STAYS = """
unlink-new: keep H n rdwr,creat; write &H text; unlink n; type n = none; nlink &H = 0; read &H = text; write &H more; read &H = more; size &H = 4
unlink-reader: write n text; keep H n rdonly; unlink n; read &H = text; nlink &H = 0; size &H = 4; type n = none
unlink-writer: write n text; keep H n rdwr; write &H TE; unlink n; read &H = TExt; nlink &H = 0; write &H tex; read &H = text
unlink-of-one-name: write n text; link n m; keep H n rdonly; mark &H; unlink n; nlink &H = 1; changed &H = c; read &H = text; unlink m; nlink &H = 0
unlink-and-again: write n old; keep H n rdonly; unlink n; write n new; read &H = old; read n = new; same &H n = no; nlink &H = 0
unlink-and-close: keep H n rdwr,creat; write &H text; unlink n; close H; type n = none; ls = -; write n other; read n = other
unlink-and-chmod: keep H n rdwr,creat; unlink n; chmod &H 0600; mode &H = 0600; nlink &H = 0
unlink-and-open-again: write n text; keep H n rdonly; unlink n; keep G &H rdonly; read &G = text; close H; read &G = text
unlink-twice-open: write n text; keep H n rdonly; keep G n rdonly; unlink n; close H; read &G = text
unlink-fifo-and-chmod: fifo p; keep H p rdwr; unlink p; chmod &H 0600; nlink &H = 0
cut-while-read: write n text; keep H n rdonly; open &H wronly,trunc = 0 ~cut-while-read ESTALE; open &H wronly
unlink-and-open-by-path: write n text; keep H n path; unlink n; open &H rdonly = 0 ~removed-open-by-path ENOENT; nlink &H = 0; size &H = 4
unlink-directory-around: dir d; write d/n text; keep H d/n rdonly; unlink d/n; rmdir d; read &H = text; nlink &H = 0
rename-reader: write n text; keep H n rdonly; rename n m; read &H = text; same &H m = yes; nlink &H = 1
rename-writer: write n text; keep H n rdwr; rename n m; write &H more; close H; read m = more; type n = none
rename-new-writer: keep H n wronly,creat; write &H text; rename n m; close H; read m = text; type n = none
rename-directory-of-writer: dir d; keep H d/n wronly,creat; write &H text; rename d e; close H; read e/n = text; ls = e
rename-over-reader: write n new; write m old; keep H m rdonly; rename n m; read &H = old; read m = new; nlink &H = 0; same &H m = no
rename-over-writer: write n new; write m old; keep H m rdwr; write &H OLD; rename n m; read &H = OLD; read m = new; close H; read m = new
rename-over-new-writer: write n new; keep H m rdwr,creat; write &H old; rename n m; read m = new; read &H = old; close H; read m = new
exchange-readers: write n one; write m two; keep H n rdonly; keep G m rdonly; rename n m exchange; read &H = one; read &G = two; same &H m = yes; same &G n = yes
exchange-writer: write n one; write m two; keep H n rdwr; rename n m exchange; write &H ONE; close H; read m = ONE; read n = two
link-of-writer: keep H n wronly,creat; write &H text; link n m; close H; read m = text; read n = text; nlink n = 2; same n m = yes
chmod-while-open: keep H n wronly,creat 0600; chmod n 0000; write &H text; chmod n 0644; close H; read n = text; mode n = 0644
chown-while-open: chmod . 0777; @bob keep H n rdwr,creat 0600; chown n alice; @bob write &H text; @bob close H; read n = text; owner n = alice:alice
directory-of-reader: dir d; write d/n text; keep H d rdonly; rename d e; type &H/n = file; read &H/n = text; mkdir &H/x; ls e = n,x
two-handles-of-one-writer: keep H n wronly,creat; keep G n rdwr; write &H text; read &G = text; write &G more; close H; close G; read n = more
creat-while-it-is-written: keep H n wronly,creat; open n wronly,creat,excl = EEXIST; mkdir n = EEXIST; write &H text; close H; read n = text
"""


@cases(STAYS)
def test_what_is_open_stays(place, script):
    place.run(script)


def test_working_directory_that_is_gone(place):
    """A process goes on in a directory that was removed; it can make nothing there."""
    process = place.users["process"]
    place.run("dir d; file f")
    process.chdir(place.path("d"))
    try:
        place.run("rmdir d")
        assert process.stat(".").st_nlink == 0 and process.listdir(".") == []
        for name, *args in (("mkdir", "x"), ("open", "x", os.O_WRONLY | os.O_CREAT), ("symlink", "x", "y"), ("stat", "x"),
                            ("mkfifo", "x"), ("link", place.path("f"), "x"), ("rename", place.path("f"), "x")):
            assert process.begin(name, *args).error() == "ENOENT", name
        process.chdir("..")
        assert os.path.samestat(process.stat("."), os.stat(place.root))
    finally:
        process.chdir("/")


# ---- programs that run -----------------------------------------------------------------------------------------------

@pytest.fixture
def program(place):
    """A program in the case's directory that runs until its input ends."""
    with open(os.path.realpath("/bin/cat"), "rb") as file:
        data = file.read()
    place.call("write_path", place.path("cat"), data)
    os.chmod(place.path("cat"), 0o755)
    if os.statvfs(place.root).f_flag & os.ST_NOEXEC:
        pytest.skip("mounted with noexec")
    import subprocess
    process = subprocess.Popen([place.path("cat")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(b"runs")
    process.stdin.flush()
    assert process.stdout.read(4) == b"runs"  # execve(2) is over
    yield process
    process.stdin.close()
    assert process.wait(20) == 0
    process.stdout.close()


RUNNING = """
write: open cat wronly = ETXTBSY; open cat rdwr = ETXTBSY; open cat wronly,trunc = ETXTBSY
append: open cat wronly,append = ETXTBSY; link cat dog; open dog wronly = ETXTBSY
read: open cat rdonly; open cat path
unlink: unlink cat; ls = -
rename: rename cat dog; ls = dog; rename dog cat
rename-over: write new text; rename new cat; read cat = text
link: link cat dog; nlink cat = 2; unlink dog
chmod: chmod cat 0644; mode cat = 0644
"""


@cases(RUNNING)
def test_a_program_that_runs(place, program, script):
    place.run(script)


# ---- files without a name --------------------------------------------------------------------------------------------

TMPFILE = """
dir: dir d; mark d; open d rdwr,tmpfile = 0 ~tmpfile EOPNOTSUPP; open d wronly,tmpfile = 0 ~tmpfile EOPNOTSUPP; changed d = -; ls d = -
read-only: open . rdonly,tmpfile = EINVAL
file: file f; open f rdwr,tmpfile = ENOTDIR
nothing: open n rdwr,tmpfile = ENOENT
user: chmod . 0777; @bob open . rdwr,tmpfile = 0 ~tmpfile EOPNOTSUPP
no-right: dir d root 0755; @bob open d rdwr,tmpfile = EACCES
"""


@cases(TMPFILE)
def test_tmpfile(place, script):
    place.run(script)

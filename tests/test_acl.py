"""Access control lists: setting, reading, checking and inheriting them, as the file systems below do; and where
promisefs itself has to ask them."""
import errno
import os
import re
import shutil
import stat
import struct

import pytest

import pfs
from pfs import fails, run
from posixfs import GROUPS, KINDS, USERS, VERBS, cases, one_data_path, verb

pytestmark = pytest.mark.needs_root
MOUNT_OPTIONS = "acl"

TAGS = {"u": (0x01, 0x02), "g": (0x04, 0x08), "m": (0x10, 0x10), "o": (0x20, 0x20)}
NAMES = {0x01: "u", 0x02: "u", 0x04: "g", 0x08: "g", 0x10: "m", 0x20: "o"}
NOBODYS = 0xFFFFFFFF


def number(kind, name):
    if not name:
        return NOBODYS
    return int(name) if name.isdigit() else USERS[name].uid if kind == "u" else GROUPS[name]


def encode(text):
    """`u::rw-,u:bob:r--,g::r--,m::rw-,o::---` as the attribute has it."""
    value = struct.pack("<I", 2)
    for entry in text.split(",") if text else ():
        kind, name, rights = entry.split(":")
        perm = sum(bit for bit, letter in zip((4, 2, 1), rights) if letter != "-")
        value += struct.pack("<HHI", TAGS[kind][bool(name)], perm, number(kind, name))
    return value


def decode(value):
    entries = []
    for tag, perm, found in struct.iter_unpack("<HHI", value[4:]):
        named = USERS if tag == 2 else GROUPS
        known = {getattr(each, "uid", each): name for name, each in named.items()}
        name = "" if found == NOBODYS else known.get(found, str(found))
        rights = "".join(letter if perm & bit else "-" for bit, letter in zip((4, 2, 1), "rwx"))
        entries.append(f"{NAMES[tag]}:{name}:{rights}")
    return ",".join(entries)


ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def setter(attribute):
    def set_list(place, name, text):
        place.call("setxattr", place.path(name), attribute, encode(text))
    return set_list


def getter(attribute):
    def get_list(place, name):
        return decode(place.call("getxattr", place.path(name), attribute))
    return get_list


def remover(attribute):
    def remove_list(place, name):
        place.call("removexattr", place.path(name), attribute)
    return remove_list


VERBS.update({"setacl": setter(ACCESS), "setdefault": setter(DEFAULT), "acl": getter(ACCESS), "default": getter(DEFAULT),
              "noacl": remover(ACCESS), "nodefault": remover(DEFAULT)})


@verb
def may(place, name):
    """What access(2) says: `r-x`."""
    bits = ((os.R_OK, "r"), (os.W_OK, "w"), (os.X_OK, "x"))
    return "".join(letter if place.call("access", place.path(name), bit) else "-" for bit, letter in bits)


@verb
def attributes(place, name):
    return ",".join(sorted(place.call("listxattr", place.path(name)))) or "-"


@verb
def rawacl(place, name, *entries):
    """Sets entries TAG:PERM:ID as they are; `v3` in front is another version."""
    version = 2
    if entries and entries[0].startswith("v"):
        version, entries = int(entries[0][1:]), entries[1:]
    numbers = [[int(part, 0) for part in entry.split(":")] for entry in entries]
    value = struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in numbers)
    place.call("setxattr", place.path(name), ACCESS, value)


@pytest.fixture(autouse=True)
def has_lists(request):
    """The file systems that it is compared with may have none."""
    if "place" not in request.fixturenames:
        return
    here = request.getfixturevalue("place")
    if not here.mounted:
        probe = here.root + "-probe"
        os.mkdir(probe)
        try:
            os.setxattr(probe, DEFAULT, encode("u::rwx,g::rwx,o::rwx"))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            pytest.skip(f"{here.root}: the file system has no access control lists")
        finally:
            os.rmdir(probe)


SETTING = """
none: file f; acl f = ENODATA; default f = ENODATA; dir d; acl d = ENODATA; default d = ENODATA
plain: file f 0600; setacl f u::rwx,g::r-x,o::r--; acl f = ENODATA; mode f = 0754; attributes f = -
named: file f 0600; setacl f u::rw-,u:bob:rwx,g::r--,m::rwx,o::---; acl f = u::rw-,u:bob:rwx,g::r--,m::rwx,o::---; mode f = 0670
masked: file f 0600; setacl f u::rw-,u:bob:rwx,g::rwx,m::r--,o::---; mode f = 0640
mask-only: file f 0600; setacl f u::rw-,g::rwx,m::r--,o::---; acl f = u::rw-,g::rwx,m::r--,o::---; mode f = 0640
sticky-bits-stay: dir d 7755; setacl d u::rwx,g::---,o::---; mode d = 7700
becomes-plain: file f; setacl f u::rw-,u:bob:r--,g::r--,m::r--,o::---; setacl f u::rw-,g::r--,o::r--; acl f = ENODATA; mode f = 0644
replaced: file f; setacl f u::rw-,u:bob:r--,g::r--,m::r--,o::---; setacl f u::rw-,u:carol:-w-,g::r--,m::rw-,o::---; acl f = u::rw-,u:carol:-w-,g::r--,m::rw-,o::---
removed: file f; setacl f u::rw-,u:bob:rwx,g::r--,m::rwx,o::---; noacl f; acl f = ENODATA; mode f = 0670
remove-none: file f; noacl f; dir d; nodefault d
empty-removes: file f; setacl f u::rw-,u:bob:rwx,g::r--,m::rwx,o::---; rawacl f; acl f = ENODATA; mode f = 0670
default: dir d; setdefault d u::rwx,g::---,o::---; default d = u::rwx,g::---,o::---; mode d = 0755; acl d = ENODATA
default-named: dir d; setdefault d u::rwx,u:bob:r-x,g::---,m::r-x,o::---; default d = u::rwx,u:bob:r-x,g::---,m::r-x,o::---; mode d = 0755
default-removed: dir d; setdefault d u::rwx,g::---,o::---; nodefault d; default d = ENODATA
default-of-file: file f; setdefault f u::rwx,g::---,o::--- = EACCES
listed: file f; setacl f u::rw-,u:bob:r--,g::r--,m::r--,o::---; attributes f = system.posix_acl_access
both-listed: dir d; setacl d u::rw-,u:bob:r--,g::r--,m::r--,o::---; setdefault d u::rwx,g::---,o::---; attributes d = system.posix_acl_access,system.posix_acl_default
owner-may: file f alice; @alice setacl f u::rw-,u:bob:r--,g::r--,m::r--,o::---; @alice noacl f
others-may-not: file f alice 0666; @bob setacl f u::rw-,u:bob:r--,g::r--,m::r--,o::--- = EPERM
others-may-not-remove: file f alice 0666; setacl f u::rw-,u:bob:rwx,g::r--,m::rwx,o::---; @bob noacl f = EPERM
others-may-not-default: dir d alice 0777; @bob setdefault d u::rwx,g::---,o::--- = EPERM
others-may-read: file f alice 0600; setacl f u::rw-,u:carol:r--,g::---,m::r--,o::---; @bob acl f = u::rw-,u:carol:r--,g::---,m::r--,o::---
sgid-kept: file f alice:team 2755; @alice setacl f u::rwx,g::r-x,o::r-x; mode f = 2755
sgid-killed: file f alice:none 2755; @alice setacl f u::rwx,u:bob:r-x,g::r-x,m::r-x,o::---; mode f = 0750
sgid-kept-by-root: file f alice:none 2755; setacl f u::rwx,g::r-x,o::r-x; mode f = 2755
ctime: file f; mark f; setacl f u::rw-,u:bob:r--,g::r--,m::r--,o::---; changed f = c; mark f; noacl f; changed f = c
ctime-default: dir d; mark d; setdefault d u::rwx,g::---,o::---; changed d = c; mark d; nodefault d; changed d = c
ctime-refused: file f alice 0666; mark f; @bob setacl f u::rw-,g::r--,o::--- = EPERM; changed f = -
symlink-follows: file f; ln f l; setacl l u::rw-,u:bob:r--,g::r--,m::r--,o::---; acl f = u::rw-,u:bob:r--,g::r--,m::r--,o::---
no-user-obj: file f; rawacl f 4:4:0 0x20:4:0 = EINVAL
no-group-obj: file f; rawacl f 1:4:0 0x20:4:0 = EINVAL
no-other: file f; rawacl f 1:4:0 4:4:0 = EINVAL
no-mask: file f; rawacl f 1:4:0 2:4:5 4:4:0 0x20:4:0 = EINVAL
wrong-order: file f; rawacl f 4:4:0 1:4:0 0x20:4:0 = EINVAL
wrong-tag: file f; rawacl f 1:4:0 3:4:0 4:4:0 0x20:4:0 = EINVAL
wrong-rights: file f; rawacl f 1:8:0 4:4:0 0x20:4:0 = EINVAL
wrong-version: file f; rawacl f v3 1:4:0 4:4:0 0x20:4:0 = EOPNOTSUPP|ENOTSUP
many: file f; setacl f u::rw-,u:1:r--,u:2:r--,u:3:r--,u:4:r--,u:5:r--,g::r--,g:6:r--,g:7:r--,g:8:r--,m::rwx,o::---; mode f = 0670
on-kept: keep H f rdwr,creat; setacl f u::rw-,u:bob:r--,g::---,m::r--,o::---; mode &H = 0640; close &H; acl f = u::rw-,u:bob:r--,g::---,m::r--,o::---; mode f = 0640
""" + "\n".join(f"kind-{kind}: {kind} n; setacl n u::rw-,u:bob:r--,g::r--,m::r--,o::---; acl n = u::rw-,u:bob:r--,g::r--,m::r--,o::---; mode n = 0640"
                for kind in KINDS if kind != "symlink")

CHMOD = """
plain: file f; chmod f 0640; acl f = ENODATA
mask: file f; setacl f u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; chmod f 0645; acl f = u::rw-,u:bob:rwx,g::r-x,m::r--,o::r-x; mode f = 0645
mask-only: file f; setacl f u::rwx,g::rwx,m::rwx,o::---; chmod f 0; acl f = u::---,g::rwx,m::---,o::---
back: file f; setacl f u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; chmod f 0; chmod f 0777; acl f = u::rwx,u:bob:rwx,g::r-x,m::rwx,o::rwx
special-bits: file f; setacl f u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; chmod f 6755; acl f = u::rwx,u:bob:rwx,g::r-x,m::r-x,o::r-x; mode f = 6755
default-stays: dir d; setdefault d u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; chmod d 0; default d = u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---
by-descriptor: keep H f rdwr,creat; setacl f u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; chmod &H 0600; acl f = u::rw-,u:bob:rwx,g::r-x,m::---,o::---
chown: file f; setacl f u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; chown f alice:team; acl f = u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; mode f = 0770
"""

INHERITING = """
umask: umask 022; keep H f wronly,creat 0666; mode f = 0644; mkdir d 0777; mode d = 0755; mkfifo p 0666; mode p = 0644
umask-77: umask 077; keep H f wronly,creat 0666; mode f = 0600
no-umask: dir d; setdefault d u::rwx,g::rwx,o::rwx; umask 077; keep H d/f wronly,creat 0666; mode d/f = 0666; acl d/f = ENODATA
no-umask-mkdir: dir d; setdefault d u::rwx,g::rwx,o::rwx; umask 077; mkdir d/s 0777; mode d/s = 0777; default d/s = u::rwx,g::rwx,o::rwx; acl d/s = ENODATA
no-umask-mknod: dir d; setdefault d u::rwx,g::rwx,o::rwx; umask 077; mknod d/n file 0666; mode d/n = 0666; mkfifo d/p 0666; mode d/p = 0666
plain: dir d; setdefault d u::rwx,g::r-x,o::---; keep H d/f wronly,creat 0666; mode d/f = 0640; mkdir d/s 0777; mode d/s = 0750
named: dir d; setdefault d u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; keep H d/f wronly,creat 0666; acl d/f = u::rw-,u:bob:rwx,g::r-x,m::rw-,o::---; mode d/f = 0660; default d/f = ENODATA
named-mkdir: dir d; setdefault d u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; mkdir d/s 0700; acl d/s = u::rwx,u:bob:rwx,g::r-x,m::---,o::---; default d/s = u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; mode d/s = 0700
named-mknod: dir d; setdefault d u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; mknod d/n file 0640; acl d/n = u::rw-,u:bob:rwx,g::r-x,m::r--,o::---
named-fifo: dir d; setdefault d u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; mkfifo d/n 0640; acl d/n = u::rw-,u:bob:rwx,g::r-x,m::r--,o::---
deeper: dir d; setdefault d u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; mkdir d/a 0777; mkdir d/a/b 0777; keep H d/a/b/f wronly,creat 0600; acl d/a/b/f = u::rw-,u:bob:rwx,g::r-x,m::---,o::---
symlink: dir d; setdefault d u::rwx,g::---,o::---; ln x d/l; mode d/l = 0777
access-is-not-inherited: dir d; setacl d u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; umask 022; mkdir d/s 0777; acl d/s = ENODATA; mode d/s = 0755
not-by-rename: dir d; setdefault d u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; file f 0644; rename f d/f; acl d/f = ENODATA; mode d/f = 0644
not-by-link: dir d; setdefault d u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; file f 0644; link f d/f; acl d/f = ENODATA; mode d/f = 0644
sgid: dir d alice:team 2777; setdefault d u::rwx,g::r-x,o::---; mkdir d/s 0777; mode d/s = 2750; owner d/s = root:team
only-existing: dir d; setdefault d u::rwx,g::---,o::---; nodefault d; umask 022; keep H d/f wronly,creat 0666; mode d/f = 0644
over-existing: dir d; write d/f one; chmod d/f 0604; setdefault d u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; write d/f two; acl d/f = ENODATA; mode d/f = 0604
excl: dir d; setdefault d u::rwx,u:bob:rwx,g::r-x,m::rwx,o::---; keep H d/f rdwr,creat,excl 0660; acl d/f = u::rw-,u:bob:rwx,g::r-x,m::rw-,o::---
by-others: dir d root 0777; setdefault d u::rwx,u:bob:rw-,g::---,m::rwx,o::---; @alice write d/f one; @bob read d/f = one; @carol read d/f = EACCES
"""

CHECKING = """
user: file f alice 0600; setacl f u::rw-,u:bob:r--,g::---,m::r--,o::---; @bob may f = r--; @carol may f = ---; @alice may f = rw-
user-mask: file f alice 0600; setacl f u::rw-,u:bob:rwx,g::---,m::-w-,o::---; @bob may f = -w-
user-before-other: file f alice 0644; setacl f u::rw-,u:bob:---,g::r--,m::rwx,o::rwx; @bob may f = ---; @bob open f rdonly = EACCES
group: file f bob:none 0600; setacl f u::rw-,g::---,g:team:rw-,m::rw-,o::---; @alice may f = rw-; @carol may f = rw-; @bob may f = rw-
group-before-other: file f bob:none 0600; setacl f u::rw-,g::---,g:team:---,m::rwx,o::rwx; @alice may f = ---
group-obj: file f bob:team 0600; setacl f u::rw-,g::r--,g:none:rwx,m::rwx,o::---; @alice may f = r--
group-obj-masked: file f bob:team 0600; setacl f u::rw-,g::rw-,m::r--,o::---; @alice may f = r--
group-obj-is-not-mask: file f bob:team 0600; setacl f u::rw-,u:root:rwx,g::---,m::rwx,o::---; @alice may f = ---; @alice open f rdonly = EACCES
other: file f bob:none 0600; setacl f u::rw-,u:root:r--,g::---,m::---,o::r-x; @alice may f = r-x
owner-first: file f alice 0600; setacl f u::r--,u:alice:rwx,g::---,m::rwx,o::---; @alice may f = r--
mask-none: file f alice 0600; setacl f u::rw-,u:bob:rwx,g::---,m::---,o::---; @bob may f = ---
open: file f alice 0600; setacl f u::rw-,u:bob:rw-,g::---,m::rwx,o::---; @bob open f rdwr; @carol open f rdonly = EACCES
write: file f alice 0600; setacl f u::rw-,u:bob:rw-,g::---,m::rwx,o::---; @bob write f new; @alice read f = new; acl f = u::rw-,u:bob:rw-,g::---,m::rwx,o::---
granted-later: file f alice 0600; @bob open f rdonly = EACCES; @alice setacl f u::rw-,u:bob:r--,g::---,m::r--,o::---; @bob open f rdonly; @alice noacl f; @bob open f rdonly = EACCES
granted-in-turn: file f alice 0600; @alice setacl f u::rw-,u:bob:r--,g::---,m::r--,o::---; @bob open f rdonly; @alice setacl f u::rw-,u:carol:r--,g::---,m::r--,o::---; @bob open f rdonly = EACCES; @carol open f rdonly
chmod-takes: file f alice 0600; setacl f u::rw-,u:bob:rw-,g::---,m::rw-,o::---; @bob open f rdwr; @alice chmod f 0600; @bob open f rdonly = EACCES; @alice chmod f 0640; @bob open f rdonly; @bob open f rdwr = EACCES
search: dir d alice 0700; file d/f alice 0644; @bob open d/f rdonly = EACCES; setacl d u::rwx,u:bob:--x,g::---,m::--x,o::---; @bob open d/f rdonly; @bob open d rdonly,directory = EACCES; @carol open d/f rdonly = EACCES
make: dir d alice 0700; setacl d u::rwx,u:bob:rwx,g::---,m::rwx,o::---; @bob mkdir d/s; @bob write d/f x; @bob unlink d/f; @carol mkdir d/t = EACCES
make-not: dir d alice 0777; setacl d u::rwx,u:bob:r-x,g::rwx,m::rwx,o::rwx; @bob mkdir d/s = EACCES; @carol mkdir d/s
rename: file f alice 0600; setacl f u::rw-,u:bob:r--,g::---,m::r--,o::---; rename f g; acl g = u::rw-,u:bob:r--,g::---,m::r--,o::---; @bob open g rdonly
link: file f alice 0600; link f g; setacl g u::rw-,u:bob:r--,g::---,m::r--,o::---; acl f = u::rw-,u:bob:r--,g::---,m::r--,o::---; @bob open f rdonly
renamed-over: file f alice 0600; setacl f u::rw-,u:bob:r--,g::---,m::r--,o::---; file g alice 0600; @bob open f rdonly; rename g f; acl f = ENODATA; @bob open f rdonly = EACCES
remade: file f alice 0600; setacl f u::rw-,u:bob:r--,g::---,m::r--,o::---; unlink f; file f alice 0600; acl f = ENODATA; @bob open f rdonly = EACCES
new-version: file f alice 0600; setacl f u::rw-,u:bob:r--,g::---,m::r--,o::---; @alice write f one; @bob read f = one; @alice write f two; @bob read f = two; mode f = 0640
truncate: file f alice 0600; setacl f u::rw-,u:bob:r--,g::---,m::r--,o::---; @alice open f wronly,trunc; acl f = u::rw-,u:bob:r--,g::---,m::r--,o::---
while-written: file f alice 0600; @alice keep H f wronly; setacl f u::rw-,u:bob:r--,g::---,m::r--,o::---; @bob open f rdonly; @alice write &H x; @alice close &H; @bob open f rdonly; @carol open f rdonly = EACCES
while-written-taken: file f alice 0644; setacl f u::rw-,u:bob:r--,g::---,m::r--,o::---; @bob open f rdonly; @alice keep H f wronly; @alice noacl f; @alice chmod f 0600; @bob open f rdonly = EACCES; @alice close &H; @bob open f rdonly = EACCES
exec: file f alice 0700; setacl f u::rwx,u:bob:--x,g::---,m::--x,o::---; @bob may f = --x; @carol may f = ---
"""


@one_data_path
@cases(SETTING)
def test_setting(place, script):
    place.run(script)


@one_data_path
@cases(CHMOD)
def test_chmod(place, script):
    place.run(script)


@one_data_path
@cases(INHERITING)
def test_inheriting(place, script):
    place.run(script)


@cases(CHECKING)
def test_checking(place, script):
    place.run(script)


def test_longest_list(place):
    """507 users fit into a page; nobody's file system takes much more than that."""
    os.close(os.open(place.path("f"), os.O_CREAT | os.O_WRONLY))
    users = ",".join(f"u:{uid}:r--" for uid in range(1000, 1000 + 400))
    text = f"u::rw-,{users},g::r--,m::r--,o::---"
    os.setxattr(place.path("f"), ACCESS, encode(text))
    assert decode(os.getxattr(place.path("f"), ACCESS)) == text


# ---- setfacl and getfacl ---------------------------------------------------------------------------------------------

@one_data_path
def test_commands(place):
    """The output on the mount is that of the file system below, since each is compared with the same text."""
    if not shutil.which("setfacl"):
        pytest.skip("no setfacl: install acl")
    folder = place.path("d")
    os.mkdir(folder, 0o755)
    for argv in (["-m", "u:65502:rwx,g:65510:r-x", folder], ["-d", "-m", "u:65502:rw-", folder]):
        done = run("setfacl", *argv)
        assert done.returncode == 0, done.stderr
    with open(folder + "/f", "w"):
        pass
    shown = run("getfacl", "-cnE", "d", "d/f", cwd=place.root).stdout
    assert shown.split("\n\n")[:2] == [
        "user::rwx\nuser:65502:rwx\ngroup::r-x\ngroup:65510:r-x\nmask::rwx\nother::r-x\n"
        "default:user::rwx\ndefault:user:65502:rw-\ndefault:group::r-x\ndefault:mask::rwx\ndefault:other::r-x",
        "user::rw-\nuser:65502:rw-\ngroup::r-x\nmask::rw-\nother::r--"]
    copied = run("cp", "-a", "d", "e", cwd=place.root)
    assert copied.returncode == 0, copied.stderr
    assert run("getfacl", "-cnE", "e", "e/f", cwd=place.root).stdout == shown
    assert run("setfacl", "-R", "-b", "d", cwd=place.root).returncode == 0
    assert run("getfacl", "-cnEs", "d", "d/f", cwd=place.root).stdout == ""


# ---- promisefs' own ---------------------------------------------------------------------------------------------------

BOB_READS = encode("u::rw-,u:65502:r--,g::---,m::r--,o::---")
NOT_TEAM = encode("u::rw-,u:65502:rw-,g::---,m::rw-,o::---")
TEAM = GROUPS["team"]


def worker_of(mnt, name):
    user = USERS[name]
    return mnt.worker(uid=user.uid, gid=user.gid, groups=user.groups)


def test_not_for_handles_and_control_files(mnt):
    mnt.put("key")
    os.setxattr(mnt / "key", ACCESS, BOB_READS)
    ref, mut = mnt.borrow("key", "ref", "r"), mnt.handle("mut", "m")
    os.rename(mnt / "key", mnt.handle("own", "x"))
    assert decode(os.getxattr(mnt.handle("own", "x"), ACCESS)) == decode(BOB_READS)
    lifetime = mnt.mount.control / "lifetimes" / mnt.prefix
    os.mkdir(lifetime)
    control = mnt.mount.control
    for path in (ref, control, control / "own", control / "ref", control / "metrics", control / "lifetimes", lifetime):
        with fails(errno.EOPNOTSUPP):
            os.setxattr(path, ACCESS, BOB_READS)
        with fails(errno.ENODATA):
            os.getxattr(path, ACCESS)
    os.unlink(ref)
    os.link(mnt.handle("own", "x"), mut)
    with fails(errno.EOPNOTSUPP):
        os.setxattr(mut, ACCESS, BOB_READS)
    os.unlink(mut)
    os.unlink(mnt.handle("own", "x"))
    os.rmdir(lifetime)


def test_set_by_the_key_only(mnt):
    mnt.put("key")
    for view in ("future", "once", "lend", "await"):
        with fails(errno.EOPNOTSUPP):
            os.setxattr(mnt.special(view, "key"), ACCESS, BOB_READS)


def test_borrowing_asks_the_list(mnt):
    """A right that only the list gives is enough, and one that only the mask seems to give is not."""
    mnt.put("key")
    os.chown(mnt / "key", 0, TEAM)
    os.setxattr(mnt / "key", ACCESS, NOT_TEAM)
    bob, alice = worker_of(mnt, "bob"), worker_of(mnt, "alice")
    lend = mnt.special("lend", "key")
    bob.link(lend, mnt.handle("ref", "b"))
    bob.unlink(mnt.handle("ref", "b"))
    bob.link(lend, mnt.handle("mut", "b"))
    assert stat.S_IMODE(os.stat(mnt.handle("mut", "b")).st_mode) == 0o600
    bob.unlink(mnt.handle("mut", "b"))
    for kind in ("ref", "mut"):
        assert alice.begin("link", lend, mnt.handle(kind, "a")).error() in ("EACCES", "EPERM")
    os.setxattr(mnt / "key", ACCESS, BOB_READS)
    bob.link(lend, mnt.handle("ref", "b"))
    bob.unlink(mnt.handle("ref", "b"))
    assert bob.begin("link", lend, mnt.handle("mut", "b")).error() == "EACCES"


def test_handles_take_no_rights_from_the_mask(mnt):
    """The group of a handle is the borrower's, and gets no more of it than the object's group has of that."""
    mnt.put("key")
    os.setxattr(mnt / "key", ACCESS, encode("u::rw-,u:65502:rw-,g::---,m::rw-,o::---"))
    mnt.borrow("key", "ref", "r")
    assert stat.S_IMODE(os.stat(mnt.handle("ref", "r")).st_mode) == 0o600
    os.unlink(mnt.handle("ref", "r"))


def test_awaiting_asks_the_list(mnt):
    mnt.put("key", b"x")
    os.chown(mnt / "key", 0, TEAM)
    os.setxattr(mnt / "key", ACCESS, NOT_TEAM)
    assert worker_of(mnt, "bob").read_path(mnt.awaiting("key")) == b"x"
    assert worker_of(mnt, "alice").begin("read_path", mnt.awaiting("key")).error() == "EACCES"


def test_who_may_read_is_asked_when_it_comes(mnt):
    """Who awaits a key has no rights to it before it is there; then its list counts, and he is in its group."""
    os.setxattr(mnt.root, DEFAULT, encode("u::rwx,u:65502:r--,g::---,m::rwx,o::---"))
    os.chmod(mnt.root, 0o2777)
    os.chown(mnt.root, 0, TEAM)
    bob, alice = worker_of(mnt, "bob"), worker_of(mnt, "alice")
    jobs = [user.begin("read_path", mnt.awaiting("key")) for user in (bob, alice)]
    mnt.assert_waits(*jobs)
    mnt.put("key", b"x")
    assert jobs[0].result() == b"x"
    assert jobs[1].error() == "EACCES"


def test_views_show_the_list(mnt):
    mnt.put("key", b"x")
    os.chown(mnt / "key", 0, TEAM)
    os.setxattr(mnt / "key", ACCESS, NOT_TEAM)
    bob, alice = worker_of(mnt, "bob"), worker_of(mnt, "alice")
    for path in (mnt.future("key"), mnt.awaiting("key"), mnt.special("attributes/version", "key")):
        assert bob.read_path(path).strip() in (b"x", b"1"), path
        assert alice.begin("read_path", path).error() == "EACCES", path
    assert alice.begin("read_path", mnt.once("key")).error() == "EACCES"
    assert bob.read_path(mnt.once("key")) == b"x"


def test_lifetimes_ask_the_list(mnt):
    lifetime = mnt.mount.control / "lifetimes" / mnt.prefix
    os.mkdir(lifetime)
    os.chmod(lifetime, 0o777)
    mnt.put("key")
    os.chown(mnt / "key", 0, TEAM)
    os.setxattr(mnt / "key", ACCESS, NOT_TEAM)
    assert worker_of(mnt, "alice").begin("link", mnt / "key", str(lifetime / "a")).error() == "EPERM"
    worker_of(mnt, "bob").link(mnt / "key", str(lifetime / "b"))
    os.rmdir(lifetime)


def test_futures_inherit(mnt):
    os.setxattr(mnt.root, DEFAULT, encode("u::rwx,u:65502:rw-,g::---,m::rwx,o::---"))
    os.umask(0o077)
    try:
        mnt.declare("key")
    finally:
        os.umask(0o022)
    assert decode(os.getxattr(mnt / "key", ACCESS)) == "u::rw-,u:bob:rw-,g::---,m::rw-,o::---"
    mnt.put("key", b"x")
    assert worker_of(mnt, "bob").read_path(mnt / "key") == b"x"


def test_torn_bytes_have_no_more_readers(mnt):
    """What a killed writer leaves has no list, and its mode gives the group what the list gave the group."""
    fd = os.open(mnt / "key", os.O_WRONLY | os.O_CREAT)
    os.fchmod(fd, 0o640)
    os.setxattr(mnt / "key", ACCESS, encode("u::rw-,u:65502:rw-,g::---,m::rw-,o::---"))
    os.close(fd)
    worker, fd = mnt.writer("key", b"torn")
    worker.kill()
    pfs.eventually(lambda: os.path.exists(mnt.aborted("key")), what="the torn bytes are kept")
    assert stat.S_IMODE(os.stat(mnt.aborted("key")).st_mode) == 0o600


def test_they_survive(new_mount):
    """Lists are in the catalog, and a store that has some has them count when it is mounted anew."""
    mnt = new_mount("acl")
    os.mkdir(mnt / "dir")
    os.setxattr(mnt / "dir", DEFAULT, encode("u::rwx,u:65502:rw-,g::---,m::rwx,o::---"))
    mnt.mount.kill()
    mnt.mount.options = "allow_other"
    mnt.mount.start()
    mnt.put("dir/key")
    assert decode(os.getxattr(mnt / "dir/key", ACCESS)) == "u::rw-,u:bob:rw-,g::---,m::rw-,o::---"
    assert pfs.check_store(mnt.mount) == []


def refuses_lists(mnt, key):
    for name in (ACCESS, DEFAULT):
        with fails(errno.EOPNOTSUPP):
            os.setxattr(mnt / key, name, BOB_READS)
        with fails(errno.EOPNOTSUPP):
            os.getxattr(mnt / key, name)
    assert os.listxattr(mnt / key) == []


def test_not_by_themselves(new_mount):
    """A store that has none does without, unless it is told otherwise."""
    mnt = new_mount()
    os.mkdir(mnt / "key")
    refuses_lists(mnt, "key")
    mnt.mount.stop()
    mnt.mount.start("acl")
    os.setxattr(mnt / "key", ACCESS, BOB_READS)


def test_noacl(new_mount):
    mnt = new_mount("acl")
    mount = mnt.mount
    os.mkdir(mnt / "dir")
    os.chmod(mnt / "dir", 0o777)
    os.setxattr(mnt / "dir", DEFAULT, encode("u::rwx,u:65502:rw-,g::---,m::rwx,o::---"))
    mnt.put("dir/key")
    mount.stop()
    mount.start("noacl")
    refuses_lists(mnt, "dir")
    mnt.put("dir/new")
    assert stat.S_IMODE(os.stat(mnt / "dir/new").st_mode) == 0o644
    assert worker_of(mnt, "bob").begin("open", mnt / "dir/key", os.O_RDONLY).error() == "EACCES"
    os.chmod(mnt / "dir/key", 0o600)
    mount.stop()
    mount.start()
    assert decode(os.getxattr(mnt / "dir/key", ACCESS)) == "u::rw-,u:bob:rw-,g::---,m::---,o::---"


# ---- What it costs ----------------------------------------------------------------------------------------------------

def requests(mnt):
    text = (mnt.mount.control / "metrics").read_text()
    return {kind: int(count) for kind, count in re.findall(r'requests_total\{kind="(\w+)"\} (\d+)', text)}


def statements(mnt):
    return int(re.search(r"catalog_statements_total (\d+)", (mnt.mount.control / "metrics").read_text())[1])


def cost(mnt, call, rounds=50):
    before = requests(mnt)
    for i in range(rounds):
        call(i)
    after = requests(mnt)
    return {kind: after[kind] - before[kind] for kind in after
            if after[kind] - before[kind] >= rounds / 2 and kind != "release"}  # which come when they come


CALLS = {
    "put": lambda mnt, i: mnt.put(f"new{i}", b"x"),
    "get": lambda mnt, i: mnt.get(f"old{i}"),
    "replace": lambda mnt, i: mnt.put(f"old{i}", b"y"),
}


@pytest.mark.parametrize("kind", CALLS)
def test_owners_pay_nothing(new_mount, kind):
    """No request more than on a mount without lists, be there one in the store or not."""
    counts = []
    for options, has in (("noacl", False), ("acl", False), ("acl", True)):
        mnt = new_mount(options)
        if has:
            mnt.put("other")
            os.setxattr(mnt / "other", ACCESS, BOB_READS)
        for i in range(50):
            mnt.put(f"old{i}", b"x")
        counts.append(cost(mnt, lambda i: CALLS[kind](mnt, i)))
    assert counts[0] and counts[0] == counts[1] == counts[2], counts


def test_without_lists_nobody_pays(new_mount):
    """By default, in a store that has none: others than the owner ask for no attribute either."""
    mnt = new_mount()
    for i in range(50):
        mnt.put(f"key{i}", b"x")
    bob = worker_of(mnt, "bob")
    assert "xattr" not in cost(mnt, lambda i: bob.read_path(mnt / f"key{i}"))


def test_others_pay_for_what_is_new(new_mount):
    """Somebody else's first look at a file asks for its list; later ones ask for that of the mount's root only, which
    the kernel does not keep."""
    mnt = new_mount("acl")
    for i in range(50):
        mnt.put(f"key{i}", b"x")
    bob = worker_of(mnt, "bob")
    first = cost(mnt, lambda i: bob.read_path(mnt / f"key{i}"))
    again = cost(mnt, lambda i: bob.read_path(mnt / f"key{i}"))
    assert first["xattr"] <= 102 and again.get("xattr", 0) <= 52, (first, again)


def test_a_store_without_lists_is_not_searched(new_mount):
    """The catalog is asked nothing more for what is made while nobody has set a list."""
    counts = []
    for options in ("noacl", "acl"):
        mnt = new_mount(options)
        mnt.put("warm", b"x")
        before = statements(mnt)
        for i in range(50):
            os.mkdir(mnt / f"dir{i}")
        counts.append(statements(mnt) - before)
    assert abs(counts[0] - counts[1]) < 25 < counts[0]  # commits come when they come

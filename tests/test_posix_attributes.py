"""What concerns the attributes of files: chmod, chown, utimensat, access, stat, statvfs and extended attributes, in tables
by system call. See posixfs.py for how to read a case."""
import os

import pytest

import posixattr  # its verbs
from posixfs import KINDS, cases, one_data_path

pytestmark = [pytest.mark.needs_root, one_data_path]

FILES = [kind for kind in KINDS if kind != "symlink"]

# Where a path leads nowhere: {name: (preparation, path, errno)}, for every call that takes a path.
PATHS = {
    "none": ("", "none", "ENOENT"),
    "none-below": ("dir d", "d/none", "ENOENT"),
    "no-dir": ("", "none/f", "ENOENT"),
    "empty": ("", "''", "ENOENT"),
    "below-file": ("file f", "f/x", "ENOTDIR"),
    "file-as-dir": ("file f", "f/", "ENOTDIR"),
    "below-fifo": ("fifo f", "f/x", "ENOTDIR"),
    "loop": ("ln l l", "l/x", "ELOOP"),
    "loop-of-two": ("ln b a; ln a b", "a/x", "ELOOP"),
    "long-name": ("", "x" * 256, "ENAMETOOLONG"),
    "long-path": ("file f", "4096:f", "ENAMETOOLONG"),
    "dangling": ("ln none l", "l/x", "ENOENT"),
    "no-search": ("dir d alice 0600; file d/f alice 0777", "d/f", "EACCES"),
    "no-search-above": ("dir d alice 0600; dir d/e alice; file d/e/f alice 0777", "d/e/f", "EACCES"),
}


def paths(call):
    """Cases of a call, a text with `{}` for the path, which alice does."""
    return {f"path-{name}": f"{prepare}; @alice {call.format(path)} = {code}" for name, (prepare, path, code) in PATHS.items()}


# ---- chmod -----------------------------------------------------------------------------------------------------------

CHMOD = {
    **paths("chmod {} 0644"),
    **{f"bits-{bits:04o}": f"file f 0; chmod f {bits:04o}; mode f = {bits:04o}" for bits in [1 << n for n in range(12)]},
    **{f"dir-bits-{bits:04o}": f"dir f 0; chmod f {bits:04o}; mode f = {bits:04o}" for bits in [1 << n for n in range(12)]},
    **{f"all-{kind}": f"{kind} n; chmod n 7777; mode n = 7777; type n = {kind}; chmod n 0; mode n = 0000" for kind in FILES},
    **{f"owner-{kind}": f"{kind} n alice; @alice chmod n 0421; mode n = 0421" for kind in FILES},
    **{f"not-owner-{kind}": f"{kind} n alice 0777; @bob chmod n 0421 = EPERM; mode n = 0777" for kind in FILES},
    **{f"group-{kind}": f"{kind} n root:team 0777; @alice chmod n 0421 = EPERM; mode n = 0777" for kind in FILES},
    **{f"ctime-{kind}": f"{kind} n; mark n; chmod n 0421; changed n = c; mark n; chmod n 0421; changed n = c" for kind in FILES},
    **{f"ctime-refused-{kind}": f"{kind} n alice; mark n; @bob chmod n 0421 = EPERM; changed n = -" for kind in FILES},
    **{f"through-link-{kind}": f"{kind} n; ln n l; chmod l 0421; mode n = 0421" for kind in FILES},
}
CHMOD_MORE = """
dangling-link: ln none l; chmod l 0644 = ENOENT
type-bits: file f; chmod f 0140644; mode f = 0644; type f = file
parent-stays: dir d; file d/f; mark d; chmod d/f 0600; changed d = -
descriptor: keep H f rdwr,creat; chmod &H 0421; mode f = 0421; mode &H = 0421; close &H; mode f = 0421
read-descriptor: file f; keep H f rdonly; chmod &H 0421; mode f = 0421
write-descriptor: file f; keep H f wronly; chmod &H 0421; mode f = 0421; mode &H = 0421; close &H; mode f = 0421
write-descriptor-written: file f; keep H f wronly; pwrite &H 0 x = 1; chmod &H 0421; mode f = 0421; close &H; mode f = 0421; read f = x
path-while-written: keep H f wronly,creat; pwrite &H 0 x = 1; chmod f 0421; mode &H = 0421; close &H; mode f = 0421
path-while-replaced: write f one; keep H f wronly,trunc; pwrite &H 0 x = 1; chmod f 0421; mode &H = 0421; mode f = 0421; close &H; mode f = 0421; read f = x
path-descriptor: file f; keep H f rdonly,path; chmod &H 0421 = EBADF
dir-descriptor: dir d; keep H d rdonly,directory; chmod &H 0700; mode d = 0700
descriptor-not-owner: file f alice 0666; @bob keep H f rdwr; @bob chmod &H 0421 = EPERM; mode f = 0666
descriptor-unlinked: keep H f rdwr,creat; unlink f; chmod &H 0421; mode &H = 0421
nofollow: file f; fchmodat f 0421 nofollow; mode f = 0421
nofollow-link: file f; ln f l; fchmodat l 0421 nofollow = EOPNOTSUPP; mode f = 0644; mode l = 0777
nofollow-dir: dir d; fchmodat d 0421 nofollow; mode d = 0421
at: file f; ln f l; fchmodat l 0421; mode f = 0421; fchmodat none 0421 = ENOENT
descriptor-replaced: file f; keep H f rdonly; file g 0600; rename g f; chmod &H 0421; mode &H = 0421; mode f = 0600
descriptor-renamed: file f; keep H f rdonly; rename f g; chmod &H 0421; mode g = 0421
links: file f; link f g; chmod g 0421; mode f = 0421
rights-kept-open: file f alice 0600; @alice keep H f rdwr; chmod f 0; @alice pwrite &H 0 x = 1; @alice chmod &H 0400; @alice read f = x
rights-kept-open-closed: file f alice 0600; @alice keep H f rdwr; chmod f 0; @alice pwrite &H 0 x = 1; close &H; read f = x; mode f = 0000
sticky-file: file f alice; @alice chmod f 1644; mode f = 1644
sticky-dir: dir d alice; @alice chmod d 1755; mode d = 1755
suid: file f alice; @alice chmod f 4755; mode f = 4755
sgid-own-group: file f alice; @alice chmod f 2755; mode f = 2755
sgid-team: file f alice:team; @alice chmod f 2755; mode f = 2755
sgid-other-group: file f alice:none; @alice chmod f 2755; mode f = 0755
sgid-other-group-no-x: file f alice:none; @alice chmod f 2644; mode f = 0644
sgid-other-group-all: file f alice:none; @alice chmod f 7777; mode f = 5777
sgid-other-group-descriptor: file f alice:none; @alice keep H f rdwr; @alice chmod &H 2755; mode f = 0755
sgid-other-group-dir: dir d alice:none; @alice chmod d 2755; mode d = 0755
sgid-team-dir: dir d alice:team; @alice chmod d 2755; mode d = 2755
sgid-root: file f alice:none; chmod f 2755; mode f = 2755
sgid-kept-by-path: file f alice:team 2755; @alice chmod f 2700; mode f = 2700
cached-rights: file f alice 0600; @bob open f rdonly = EACCES; chmod f 0604; @bob open f rdonly; chmod f 0600; @bob open f rdonly = EACCES
cached-rights-dir: dir d alice 0700; file d/f alice; @bob open d/f rdonly = EACCES; chmod d 0701; @bob open d/f rdonly; chmod d 0700; @bob open d/f rdonly = EACCES
"""


@cases(CHMOD, CHMOD_MORE)
def test_chmod(place, script):
    place.run(script)


# ---- chown -----------------------------------------------------------------------------------------------------------

CHOWN = {
    **paths("own {} alice alice"),
    **{f"root-{kind}": f"{kind} n; own n alice team nofollow; owner n = alice:team; type n = {kind}" for kind in KINDS},
    **{f"uid-{kind}": f"{kind} n bob:none; own n alice - nofollow; owner n = alice:none" for kind in KINDS},
    **{f"gid-{kind}": f"{kind} n bob:none; own n - team nofollow; owner n = bob:team" for kind in KINDS},
    **{f"nothing-{kind}": f"{kind} n bob:none; own n - - nofollow; owner n = bob:none" for kind in KINDS},
    **{f"to-own-group-{kind}": f"{kind} n alice; @alice own n - team nofollow; owner n = alice:team" for kind in KINDS},
    **{f"to-other-group-{kind}": f"{kind} n alice; @alice own n - none nofollow = EPERM; owner n = alice:alice" for kind in KINDS},
    **{f"give-away-{kind}": f"{kind} n alice; @alice own n bob - nofollow = EPERM; owner n = alice:alice" for kind in KINDS},
    **{f"take-{kind}": f"{kind} n alice 0777; @bob own n bob bob nofollow = EPERM; owner n = alice:alice" for kind in KINDS},
    **{f"ctime-{kind}": f"{kind} n; mark n; own n alice team nofollow; changed n = c" for kind in KINDS},
    **{f"ctime-same-{kind}": f"{kind} n alice; mark n; own n alice alice nofollow; changed n = c" for kind in KINDS},
    **{f"ctime-nothing-{kind}": f"{kind} n alice; mark n; own n - - nofollow; changed n = c" for kind in KINDS},
    **{f"ctime-refused-{kind}": f"{kind} n alice; mark n; @bob own n bob - nofollow = EPERM; changed n = -" for kind in KINDS},
    **{f"through-link-{kind}": f"{kind} n; ln n l; own l alice team; owner n = alice:team; owner l = root:root" for kind in FILES},
}
# What goes with the owner: {mode before: mode after}, by who does it.
CLEARED = {0o4755: 0o755, 0o2755: 0o755, 0o6755: 0o755, 0o6775: 0o775, 0o4644: 0o644, 0o2711: 0o711, 0o7755: 0o1755, 0o1755: 0o1755}
NO_GROUP_X = {0o2644: 0o2644, 0o2744: 0o2744, 0o6644: 0o2644}
for before, after in CLEARED.items():
    CHOWN[f"clears-{before:04o}"] = f"file f alice {before:04o}; @alice own f - team; mode f = {after:04o}"
    CHOWN[f"clears-root-{before:04o}"] = f"file f alice {before:04o}; own f bob none; mode f = {after:04o}"
    CHOWN[f"clears-same-{before:04o}"] = f"file f alice {before:04o}; @alice own f alice alice; mode f = {after:04o}"
    CHOWN[f"clears-nothing-{before:04o}"] = f"file f alice {before:04o}; @alice own f - -; mode f = {after:04o}"
    CHOWN[f"clears-descriptor-{before:04o}"] = f"file f alice {before:04o}; keep H f rdonly; own &H bob none; mode f = {after:04o}"
    CHOWN[f"dir-keeps-{before:04o}"] = f"dir f alice {before:04o}; own f bob none; mode f = {before:04o}"
    CHOWN[f"dir-keeps-own-{before:04o}"] = f"dir f alice {before:04o}; @alice own f - team; mode f = {before:04o}"
    CHOWN[f"refused-{before:04o}"] = f"file f alice {before:04o}; @bob own f bob -  = EPERM; mode f = {before:04o}"
for before, after in NO_GROUP_X.items():
    CHOWN[f"no-group-x-root-{before:04o}"] = f"file f alice {before:04o}; own f bob none; mode f = {after:04o}"
CHOWN_MORE = """
dangling-link: ln none l; own l alice - = ENOENT
dangling-link-itself: ln none l; own l alice - nofollow; owner l = alice:root
nothing-by-root: file f alice 4755; own f - -; mode f = 0755 ~chown-nothing 4755
nothing-by-others: file f alice; @bob own f - -; owner f = alice:alice
same-by-others: file f alice; @bob own f alice - = EPERM
same-group-by-others: file f alice; @bob own f - alice = EPERM
same-by-owner: file f alice:none; @alice own f alice -; owner f = alice:none
same-group-by-owner: file f alice:none; @alice own f - none; owner f = alice:none
same-both-by-owner: file f alice:none; @alice own f alice none; owner f = alice:none
to-primary-group: file f alice:team; @alice own f - alice; owner f = alice:alice
out-of-other-group: file f alice:none; @alice own f - team; owner f = alice:team
back-to-other-group: file f alice:none; @alice own f - team; @alice own f - none = EPERM
uid-and-good-group: file f alice; @alice own f bob team = EPERM; owner f = alice:alice
member-is-not-owner: file f alice:team 0770; @carol own f - alice = EPERM
descriptor: keep H f rdwr,creat; own &H alice team; owner f = alice:team; owner &H = alice:team
read-descriptor: file f; keep H f rdonly; own &H alice team; owner f = alice:team
path-descriptor: file f; keep H f rdonly,path; own &H alice team = EBADF
write-descriptor: file f; keep H f wronly; pwrite &H 0 x = 1; own &H alice team; close &H; owner f = alice:team; read f = x
path-descriptor-itself: file f; keep H f rdonly,path; fchownat &H alice team; owner f = alice:team
path-while-replaced: write f one; keep H f wronly,trunc; pwrite &H 0 x = 1; own f alice team; owner &H = alice:team; close &H; owner f = alice:team
descriptor-unlinked: keep H f rdwr,creat; unlink f; own &H alice team; owner &H = alice:team
links: file f; link f g; own g alice team; owner f = alice:team
others-rights: file f alice 0600; @bob open f rdonly = EACCES; own f bob -; @bob open f rdonly; @alice open f rdonly = EACCES
new-version-keeps: file f bob:team 0666; @alice write f x; owner f = bob:team; mode f = 0666
parent-stays: dir d; file d/f; mark d; own d/f alice -; changed d = -
"""


@cases(CHOWN, CHOWN_MORE)
def test_chown(place, script):
    place.run(script)


# ---- utimensat -------------------------------------------------------------------------------------------------------

VALUES = {
    "second": ("1", "2"), "zero": ("0", "0"), "nanosecond": ("1000000000.000000001", "1000000001.999999999"),
    "far": ("4294967296", "8589934592.123456789"), "after-2038": ("2147483648", "2147483649.000000007"), "last-32": ("2147483647", "2147483647"),
    "micro": ("5.123456000", "6.000001000"),
}
UTIME = {
    **paths("utime {} 1 1"),
    **{f"value-{name}": f"file f; utime f {a} {m}; atime f = {a}; mtime f = {m}; utime f {m} {a}; atime f = {m}; mtime f = {a}"
       for name, (a, m) in VALUES.items()},
    **{f"kind-{kind}": f"{kind} n; utime n 100 200.000000003 nofollow; atime n = 100; mtime n = 200.000000003; ages n = --c" for kind in KINDS},
    **{f"now-{kind}": f"{kind} n; utime n 100 200 nofollow; mark n; utime n now now nofollow; changed n = mc; ages n = amc" for kind in KINDS},
    **{f"omit-{kind}": f"{kind} n; utime n 100 200 nofollow; mark n; utime n omit omit nofollow; changed n = -; atime n = 100" for kind in KINDS},
    **{f"omit-atime-{kind}": f"{kind} n; utime n 100 200 nofollow; utime n omit 5 nofollow; atime n = 100; mtime n = 5" for kind in KINDS},
    **{f"omit-mtime-{kind}": f"{kind} n; utime n 100 200 nofollow; utime n 5 omit nofollow; atime n = 5; mtime n = 200" for kind in KINDS},
    **{f"now-atime-{kind}": f"{kind} n; utime n 100 200 nofollow; utime n now 5 nofollow; ages n = a-c; mtime n = 5" for kind in KINDS},
    **{f"now-mtime-{kind}": f"{kind} n; utime n 100 200 nofollow; utime n 5 now nofollow; ages n = -mc; atime n = 5" for kind in KINDS},
    **{f"null-{kind}": f"{kind} n; utime n 100 200; mark n; utime n; changed n = mc; ages n = amc" for kind in FILES},
    **{f"ctime-{kind}": f"{kind} n; mark n; utime n omit 5 nofollow; mark n; utime n 7 omit nofollow; changed n = c" for kind in KINDS},
    **{f"through-link-{kind}": f"{kind} n; ln n l; utime l 1 2; mtime n = 2; ages l = amc" for kind in FILES},
}
# Who may do what: {rights of the file, alice's: outcomes for bob of now, both omitted, times, one now and one omitted}
RIGHTS = {"0600": "EACCES 0 EPERM EPERM", "0602": "0 0 EPERM EPERM", "0604": "EACCES 0 EPERM EPERM", "0666": "0 0 EPERM EPERM"}
for mode, outcomes in RIGHTS.items():
    for what, times, outcome in zip(("null", "now", "omit", "times", "mixed"), ("", "now now", "omit omit", "1 2", "now omit"),
                                    (outcomes.split()[0], *outcomes.split())):
        for kind in ("file", "dir", "fifo"):
            UTIME[f"{what}-by-others-{mode}-{kind}"] = f"{kind} n alice {mode}; mark n; @bob utime n {times} = {outcome}"
            if outcome != "0" or what == "omit":
                UTIME[f"{what}-by-others-{mode}-{kind}"] += "; changed n = -"
for mode in ("0000", "0400", "0600"):
    for what, times in (("null", ""), ("now", "now now"), ("times", "1 2"), ("mixed", "now omit")):
        UTIME[f"{what}-by-owner-{mode}"] = f"file f alice {mode}; @alice utime f {times}"
        UTIME[f"{what}-by-root-{mode}"] = f"file f alice {mode}; utime f {times}"
UTIME_MORE = """
before-1970: file f; utime f -1 -86400; atime f = -1; mtime f = -86400
before-1970-nanoseconds: file f; utime f -1.999999999 -2.000000001; atime f = -1.999999999|-1; mtime f = -2.000000001|-1
year-1901: file f; utime f -2147483648 -2147483648; mtime f = -2147483648
too-many-nanoseconds: file f; utime f 1:1000000000 1 = EINVAL
too-many-nanoseconds-mtime: file f; mark f; utime f 1 1:1000000000 = EINVAL; changed f = -
negative-nanoseconds: file f; utime f 1:-1 1 = EINVAL
dangling-link: ln none l; utime l 1 2 = ENOENT
dangling-link-itself: ln none l; utime l 1 2 nofollow; mtime l = 2
link-of-others: file f; ln f l; own l alice - nofollow; @alice utime l 1 2 nofollow; @bob utime l 1 2 nofollow = EPERM
descriptor: keep H f rdwr,creat; utime &H 1 2; atime &H = 1; mtime &H = 2; mtime f = 2; close &H; mtime f = 2; atime f = 1
descriptor-written: keep H f wronly,creat; pwrite &H 0 x = 1; utime &H 1 2; mtime &H = 2; close &H; mtime f = 2; atime f = 1
descriptor-written-after: keep H f wronly,creat; utime &H 1 2; pwrite &H 0 x = 1; close &H; ages f = -mc
descriptor-replacing: write f one; keep H f wronly,trunc; pwrite &H 0 x = 1; utime &H 1 2; close &H; mtime f = 2; atime f = 1; read f = x
descriptor-omit: write f one; utime f 1 2; keep H f rdwr; utime &H omit 7; atime &H = 1; mtime &H = 7; close &H; mtime f = 7; atime f = 1
read-descriptor: file f; keep H f rdonly; utime &H 1 2; mtime &H = 2; mtime f = 2
path-descriptor: file f; keep H f rdonly,path; utime &H 1 2 = EBADF
dir-descriptor: dir d; keep H d rdonly,directory; utime &H 1 2; mtime d = 2
descriptor-now: file f; utime f 1 2; keep H f rdonly; utime &H; ages f = amc
descriptor-by-others: file f alice 0666; @bob keep H f rdwr; @bob utime &H 1 2 = EPERM; @bob utime &H
descriptor-null-read-only: file f alice 0644; @bob keep H f rdonly; @bob utime &H = EACCES
descriptor-unlinked: keep H f rdwr,creat; unlink f; utime &H 1 2; mtime &H = 2
path-while-written: keep H f wronly,creat; pwrite &H 0 x = 1; utime f 1 2; mtime &H = 2; close &H; mtime f = 2
links: file f; link f g; utime g 1 2; mtime f = 2; atime f = 1
replaced-keeps-not: write f one; utime f 1 2; write f two; ages f = -mc
append-keeps-atime: write f one; utime f 1 2; keep H f wronly,append; append &H x = 1; close &H; atime f = 1; ages f = -mc
untouched: write f one; utime f 1 2; keep H f wronly; close &H; mtime f = 2; atime f = 1
untouched-rdwr: write f one; utime f 1 2; mark f; keep H f rdwr; close &H; changed f = -
rename-keeps: file f; utime f 1 2; rename f g; mtime g = 2; atime g = 1
link-keeps: file f; utime f 1 2; link f g; mtime g = 2
chmod-keeps: file f; utime f 1 2; chmod f 0600; own f alice -; mtime f = 2; atime f = 1
parent-stays: dir d; file d/f; mark d; utime d/f 1 2; changed d = -
dir-changes: dir d; utime d 1 2; file d/f; ages d = -mc; atime d = 1
"""


@cases(UTIME, UTIME_MORE)
def test_utimensat(place, script):
    place.run(script)


# ---- access ----------------------------------------------------------------------------------------------------------

def rwx(bits):
    return "".join(letter if bits & bit else "-" for bit, letter in ((4, "r"), (2, "w"), (1, "x")))


ACCESS = {
    **paths("access {}"),
    **{f"owner-{bits}": f"file f alice:none 0{bits}00; @alice may f = {rwx(bits)}; @alice may f = {rwx(bits)}" for bits in range(8)},
    **{f"group-{bits}": f"file f root:team 07{bits}7; @alice may f = {rwx(bits)}" for bits in range(8)},
    **{f"other-{bits}": f"file f root:none 077{bits}; @alice may f = {rwx(bits)}" for bits in range(8)},
    **{f"owner-first-{bits}": f"file f alice:alice 0{bits}77; @alice may f = {rwx(bits)}" for bits in range(8)},
    **{f"root-{mode}": f"file f alice {mode}; may f = {'rwx' if int(mode, 8) & 0o111 else 'rw-'}"
       for mode in ("0000", "0100", "0010", "0001", "0644", "0700")},
    **{f"root-dir-{mode}": f"dir d alice {mode}; may d = rwx" for mode in ("0000", "0644", "0700")},
    **{f"dir-{bits}": f"dir d alice:none 0{bits}00; @alice may d = {rwx(bits)}" for bits in range(8)},
}
ACCESS_MORE = """
exists: file f 0; @alice access f 0
exists-not: @alice access f 0 = ENOENT
bad-bits: file f; access f 8 = EINVAL
dangling-link: ln none l; access l = ENOENT
dangling-link-itself: ln none l; access l 0 nofollow
loop: ln l l; access l = ELOOP
real-ids: file f root 0600; effective alice access f 4 = 0
effective-ids: file f root 0600; effective alice access f 4 eaccess = EACCES
effective-ids-owner: file f alice 0600; effective alice access f 4 eaccess = 0
changes-nothing: file f; mark f; access f 7 = EACCES; changed f = -
"""


@cases(ACCESS, ACCESS_MORE)
def test_access(place, script):
    place.run(script)


# ---- stat ------------------------------------------------------------------------------------------------------------

STAT = {
    **paths("statx {}"),
    **{f"type-{kind}": f"{kind} n; type n = {kind}; nlink n = {2 if kind == 'dir' else 1}" for kind in KINDS},
    **{f"owner-{kind}": f"dir d root 0777; @alice {kind} d/n; owner d/n = alice:alice" for kind in ("file", "dir", "symlink", "fifo", "socket")},
    **{f"link-size-{size}": f"ln {'x' * size} l; size l = {size}; type l = symlink" for size in (1, 59, 60, 61, 255, 1000, 4095)},
}
STAT_MORE = """
size: fill f 1000; size f = 1000; blocks f = all
size-none: file f; size f = 0; blocks f = none
size-big: fill f 1000000; size f = 1000000
device: char n; device n = 1:2; block m; device m = 1:2
nlink: file f; link f g; link f h; nlink f = 3; unlink g; nlink f = 2; nlink h = 2
nlink-dirs: dir d; dir d/a; dir d/b; nlink d = 4; file d/f; nlink d = 4; rmdir d/a; nlink d = 3
same-file: write f one; keep H f rdonly; same f &H = yes; write f two; same f &H = yes
same-links: file f; link f g; same f g = yes; file h; same f h = no
same-after-rename: file f; keep H f rdonly; rename f g; same g &H = yes
other-after-remake: file f; keep H f rdonly; unlink f; file f; same f &H = no
unlinked: write f one; keep H f rdonly; unlink f; nlink &H = 0; size &H = 3; type &H = file
unlinked-writer: keep H f rdwr,creat; pwrite &H 0 abc = 3; unlink f; nlink &H = 0; size &H = 3
removed-dir: dir d; keep H d rdonly,directory; rmdir d; nlink &H = 0
reading-changes-no-ctime: write f one; mark f; read f = one; changed f = -
looking-changes-nothing: write f one; mark f .; size f = 3; ls . = f; changed f = -; changed . = -
link-changes-ctime: file f; mark f; link f g; changed f = c; mark f; unlink g; changed f = c
rename-changes-ctime: file f; mark f; rename f g; changed g f = c
"""


@posixattr.verb
def statx(place, name):
    """stat(2), as the user of the step."""
    place.call("stat", place.path(name))


@cases(STAT, STAT_MORE)
def test_stat(place, script):
    place.run(script)


def test_stat_numbers(place):
    """What goes together: the device of everything, the inode numbers, the blocks."""
    os.mkdir(place.path("d"))
    with open(place.path("d/f"), "wb", buffering=0) as file:
        file.write(b"x" * 5000)
        assert os.fstat(file.fileno()).st_size == 5000
    found = {name: os.stat(place.path(name)) for name in (".", "d", "d/f")}
    assert len({each.st_dev for each in found.values()}) == 1
    assert len({each.st_ino for each in found.values()}) == 3
    assert found["d/f"].st_blocks * 512 >= 5000 and found["d/f"].st_blksize > 0
    assert {entry.name: entry.inode() for entry in os.scandir(place.path("d"))} == {"f": found["d/f"].st_ino}
    assert os.stat(place.path("d/..")).st_ino == found["."].st_ino


def test_statvfs(place):
    found = os.statvfs(place.root)
    assert found.f_namemax == 255
    assert found.f_bsize > 0 and found.f_frsize > 0
    assert found.f_bavail <= found.f_bfree <= found.f_blocks
    with open(place.path("f"), "wb") as file:
        assert os.fstatvfs(file.fileno()).f_blocks == found.f_blocks
    fd = os.open(place.path("f"), os.O_PATH)
    try:
        assert os.fstatvfs(fd).f_blocks == found.f_blocks
    finally:
        os.close(fd)
    for path, error in (("none", FileNotFoundError), ("f/x", NotADirectoryError)):
        with pytest.raises(error):
            os.statvfs(place.path(path))
    assert os.stat(place.root).st_dev == os.stat(place.path("f")).st_dev


# ---- extended attributes ---------------------------------------------------------------------------------------------

@pytest.fixture
def has_attributes(place):
    """Some file systems that it is compared with have none of the users."""
    probe = place.root + "-probe"
    if not place.mounted:
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY))
        try:
            os.setxattr(probe, "user.probe", b"")
        except OSError:
            pytest.skip(f"{place.root}: the file system has no attributes of users")
        finally:
            os.unlink(probe)


XATTR = {
    **{f"set-{name}": script for name, script in paths("setx {} user.a").items()},
    **{f"get-{name}": script for name, script in paths("getx {} user.a").items()},
    **{f"list-{name}": script for name, script in paths("listx {}").items()},
    **{f"remove-{name}": script for name, script in paths("rmx {} user.a").items()},
    **{f"user-{kind}": f"{kind} n; setx n user.a one; getx n user.a = one; listx n = user.a; rmx n user.a; listx n = -; getx n user.a = ENODATA"
       for kind in ("file", "dir")},
    **{f"user-{kind}": f"{kind} n; setx n user.a one nofollow = EPERM; getx n user.a nofollow = ENODATA; rmx n user.a nofollow = EPERM; listx n nofollow = -"
       for kind in ("symlink", "fifo", "socket", "char", "block")},
    **{f"trusted-{kind}": f"{kind} n; setx n trusted.a one nofollow; getx n trusted.a nofollow = one; listx n nofollow = trusted.a; rmx n trusted.a nofollow"
       for kind in KINDS},
    **{f"trusted-by-others-{kind}": f"{kind} n alice 0777; setx n trusted.a one; @alice getx n trusted.a = ENODATA; @alice listx n = -; "
       "@alice setx n trusted.a two = EPERM; @alice rmx n trusted.a = EPERM; getx n trusted.a = one" for kind in ("file", "dir")},
    **{f"value-{size}": f"file f; setx f user.a x*{size}; getx f user.a = x*{size}; size f = 0" for size in (80, 1000, 3000)},
}
XATTR_MORE = """
empty-value: file f; setx f user.a -; getx f user.a = -; listx f = user.a
several: file f; setx f user.b 1; setx f user.a 2; setx f user.c 3; listx f = user.a,user.b,user.c; rmx f user.b; listx f = user.a,user.c
again: file f; setx f user.a one; setx f user.a two; getx f user.a = two; listx f = user.a
shorter: file f; setx f user.a x*500; setx f user.a y; getx f user.a = y
create: file f; setx f user.a one create; getx f user.a = one
create-existing: file f; setx f user.a one; setx f user.a two create = EEXIST; getx f user.a = one
replace: file f; setx f user.a one; setx f user.a two replace; getx f user.a = two
replace-none: file f; setx f user.a one replace = ENODATA; listx f = -
none: file f; getx f user.a = ENODATA; rmx f user.a = ENODATA; listx f = -
names-differ: file f; setx f user.A one; getx f user.a = ENODATA; setx f user.a two; getx f user.A = one
no-prefix: file f; setx f a one = EOPNOTSUPP; getx f a = EOPNOTSUPP; rmx f a = EOPNOTSUPP
unknown-prefix: file f; setx f other.a one = EOPNOTSUPP; getx f other.a = EOPNOTSUPP
unknown-system: file f; setx f system.a one = EOPNOTSUPP; getx f system.a = EOPNOTSUPP
empty-name: file f; setx f '' one = ERANGE|EOPNOTSUPP
prefix-alone: file f; setx f user. one = EINVAL|EOPNOTSUPP; getx f user. = EINVAL|EOPNOTSUPP
long-name: file f; setx f user.n*250 one; getx f user.n*250 = one
too-long-name: file f; setx f user.n*251 one = ERANGE; getx f user.n*251 = ERANGE; rmx f user.n*251 = ERANGE
too-big: file f; setx f user.a x*65537 = E2BIG; listx f = -
buffer-exact: file f; setx f user.a four; getx_size f user.a 4 = 4
buffer-bigger: file f; setx f user.a four; getx_size f user.a 100 = 4
buffer-small: file f; setx f user.a four; getx_size f user.a 3 = ERANGE
buffer-none: file f; setx f user.a four; getx_size f user.a 0 = 4
list-exact: file f; setx f user.a four; setx f user.b four; listx_size f 14 = 14
list-small: file f; setx f user.a four; setx f user.b four; listx_size f 13 = ERANGE
list-none: file f; setx f user.a four; setx f user.b four; listx_size f 0 = 14
list-empty: file f; listx_size f 0 = 0; listx_size f 10 = 0
through-link: file f; ln f l; setx l user.a one; getx f user.a = one; listx l = user.a
links: file f; link f g; setx g user.a one; getx f user.a = one
rename-keeps: file f; setx f user.a one; rename f g; getx g user.a = one
renamed-over: file f; setx f user.a one; file g; rename g f; listx f = -
remade: file f; setx f user.a one; unlink f; file f; listx f = -
new-version-keeps: file f; setx f user.a one; write f text; getx f user.a = one; write f more; getx f user.a = one
truncate-keeps: write f text; setx f user.a one; truncate f 0; getx f user.a = one
chmod-keeps: file f; setx f user.a one; chmod f 0600; own f alice team; getx f user.a = one
descriptor: keep H f rdwr,creat; setx &H user.a one; getx &H user.a = one; listx &H = user.a; getx f user.a = one; rmx &H user.a; listx f = -
read-descriptor: file f; keep H f rdonly; setx &H user.a one; getx f user.a = one
write-descriptor: file f; keep H f wronly; setx &H user.a one; close &H; getx f user.a = one
path-descriptor: file f; keep H f rdonly,path; setx &H user.a one = EBADF; getx &H user.a = EBADF
while-written: keep H f wronly,creat; pwrite &H 0 x = 1; setx f user.a one; getx &H user.a = one; close &H; getx f user.a = one
while-replaced: write f one; keep H f wronly,trunc; setx f user.a one; getx &H user.a = one; close &H; getx f user.a = one
ctime: file f; mark f; setx f user.a one; changed f = c; mark f; setx f user.a two; changed f = c; mark f; rmx f user.a; changed f = c
ctime-dir: dir d; mark d; setx d user.a one; changed d = c; mark d; rmx d user.a; changed d = c
no-ctime-refused: file f; setx f user.a one; mark f; setx f user.a two create = EEXIST; changed f = -; rmx f user.b = ENODATA; changed f = -; setx f user.b x replace = ENODATA; changed f = -
no-ctime-reading: file f; setx f user.a one; mark f; getx f user.a = one; listx f = user.a; changed f = -
no-right-to-write: file f alice 0604; @bob setx f user.a one = EACCES; @bob getx f user.a = ENODATA; setx f user.a one; @bob rmx f user.a = EACCES; @bob getx f user.a = one
no-right-to-read: file f alice 0602; setx f user.a one; @bob getx f user.a = EACCES; @bob setx f user.b two; @bob listx f = user.a,user.b
others-may: file f alice 0606; @bob setx f user.a one; @bob getx f user.a = one; @bob rmx f user.a
owner-without-rights: file f alice 0000; @alice setx f user.a one = EACCES; @alice getx f user.a = EACCES
sticky-dir: dir d alice 1777; @bob setx d user.a one = EPERM; @alice setx d user.a one
security-by-others: file f alice; @alice setx f security.a one = EPERM; @alice getx f security.a = ENODATA
security-by-root: file f alice; setx f security.a one; getx f security.a = one; @bob getx f security.a = one; rmx f security.a
"""


@pytest.mark.usefixtures("has_attributes")
@cases(XATTR, XATTR_MORE)
def test_xattr(place, script):
    place.run(script)

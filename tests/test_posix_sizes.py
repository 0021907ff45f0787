"""What concerns sizes and content, as far as attributes show it: truncate, fallocate, what writing does to times, modes
and what stat(2) says of a file that is open. See posixfs.py for how to read a case."""
import os
import shutil
import signal

import pytest

import posixattr  # its verbs
from posixfs import cases
from test_posix_attributes import UTIME, UTIME_MORE, paths

pytestmark = pytest.mark.needs_root
HUGE = "2^63-1"

TRUNCATE = {
    **{name: script.replace("CALL", "truncate") for name, script in paths("truncate {} 0").items()},
    **{f"kind-{kind}": f"{kind} n; truncate n 0 = {code}" for kind, code in
       {"dir": "EISDIR", "fifo": "EINVAL", "socket": "EINVAL", "char": "EINVAL", "block": "EINVAL"}.items()},
    **{f"to-{size}": f"fill f 5000; truncate f {size}; size f = {size}" for size in (0, 1, 4095, 4096, 4097, 4999, 5000, 5001, 100000)},
    **{f"descriptor-to-{size}": f"fill f 5000; keep H f rdwr; truncate &H {size}; size &H = {size}; close &H; size f = {size}"
       for size in (0, 1, 4096, 4999, 5000, 5001, 100000)},
}
TRUNCATE_MORE = f"""
shrink: write f abcdef; truncate f 3; read f = abc
grow: write f abc; truncate f 6; bytes f = abc000
shrink-and-grow: write f abcdef; truncate f 2; truncate f 4; bytes f = ab00
none-to-some: file f; truncate f 20; bytes f = 0*20,; blocks f = none
sparse: file f; truncate f 100000000; size f = 100000000; blocks f = none
negative: write f abc; truncate f -1 = EINVAL; size f = 3
negative-descriptor: write f abc; keep H f rdwr; truncate &H -1 = EINVAL; size f = 3
negative-dir: dir d; truncate d -1 = EINVAL
too-big: write f abc; truncate f {HUGE} = EFBIG|EINVAL|0 ; size f = 3|9223372036854775807
through-link: write f abc; ln f l; truncate l 1; read f = a
dangling-link: ln none l; truncate l 1 = ENOENT; type none = none
links: write f abc; link f g; truncate g 1; read f = a
no-right: write f abc; chmod f 0604; @bob truncate f 0 = EACCES; read f = abc
right: write f abc; chmod f 0606; @bob truncate f 1; read f = a
owner-without-right: file f alice 0400; @alice truncate f 0 = EACCES
root-without-right: write f abc; chmod f 0; truncate f 1; read f = a
read-descriptor: write f abc; keep H f rdonly; truncate &H 0 = EINVAL; read f = abc
path-descriptor: write f abc; keep H f rdonly,path; truncate &H 0 = EBADF
dir-descriptor: dir d; keep H d rdonly,directory; truncate &H 0 = EINVAL
fifo-descriptor: fifo p; keep H p rdwr; truncate &H 0 = EINVAL
descriptor: write f abcdef; keep H f rdwr; truncate &H 3; bytes &H = abc; close &H; read f = abc
write-descriptor: write f abcdef; keep H f wronly; truncate &H 3; close &H; read f = abc
append-descriptor: write f abcdef; keep H f wronly,append; truncate &H 3; append &H x = 1; close &H; read f = abcx
position-stays: write f abcdef; keep H f rdwr; seek &H 5 set = 5; truncate &H 2; position &H = 5; append &H x = 1; bytes &H = ab000x; close &H; bytes f = ab000x
descriptor-later-without-right: file f alice 0600; @alice keep H f rdwr; chmod f 0; @alice truncate &H 10; size &H = 10; close &H; size f = 10
descriptor-unlinked: keep H f rdwr,creat; unlink f; truncate &H 10; size &H = 10; pwrite &H 0 x = 1; bytes &H = x0*9,
of-written: keep H f rdwr,creat; pwrite &H 0 abcdef = 6; truncate f 3; size &H = 3; bytes &H = abc; close &H; read f = abc
times: write f abc; mark f; truncate f 1; changed f = mc; mark f; truncate f 5; changed f = mc
times-descriptor: write f abc; keep H f rdwr; mark f; truncate &H 1; changed &H f = mc; close &H; changed f = mc
times-none: write f abc; mark f; truncate f -1 = EINVAL; @bob truncate f 0 = EACCES; changed f = -
times-read-descriptor: write f abc; keep H f rdonly; mark f; truncate &H 0 = EINVAL; changed f = -
atime-stays: write f abc; utime f 1 2; truncate f 1; atime f = 1
parent-stays: dir d; write d/f abc; mark d; truncate d/f 0; changed d = -
attributes-stay: file f alice:team 0606; truncate f 10; owner f = alice:team; mode f = 0606
"""


@cases(TRUNCATE, TRUNCATE_MORE)
def test_truncate(place, script):
    place.run(script)


# ---- What is dangerous goes when others write ------------------------------------------------------------------------

# {mode: what is left}, by a writer who is not root. Everybody may write.
DROPPED = {0o4777: 0o777, 0o2777: 0o777, 0o6777: 0o777, 0o2767: 0o2767, 0o1777: 0o1777, 0o777: 0o777}
KILLPRIV = {}
for mode, left in DROPPED.items():
    begin = f"file f alice:team {mode:04o}"
    for who in ("alice", "bob"):
        after = f"{left:04o}|0767" if mode == 0o2767 and who == "bob" else f"{left:04o}"  # newer kernels ask for the group
        KILLPRIV[f"write-{mode:04o}-{who}"] = f"{begin}; @{who} keep H f wronly; @{who} pwrite &H 0 x = 1; close &H; mode f = {after}; read f = x"
        KILLPRIV[f"truncate-{mode:04o}-{who}"] = f"{begin}; @{who} truncate f 10; mode f = {after}"
        KILLPRIV[f"ftruncate-{mode:04o}-{who}"] = f"{begin}; @{who} keep H f wronly; @{who} truncate &H 10; close &H; mode f = {after}"
        KILLPRIV[f"fallocate-{mode:04o}-{who}"] = f"{begin}; @{who} keep H f wronly; @{who} fallocate &H 0 10; close &H; mode f = {after}"
        KILLPRIV[f"open-trunc-{mode:04o}-{who}"] = (f"write f abc; own f alice team; chmod f {mode:04o}; @{who} keep H f wronly,trunc; "
                                                    f"close &H; mode f = {after}")
        KILLPRIV[f"append-{mode:04o}-{who}"] = f"{begin}; @{who} keep H f wronly,append; @{who} append &H x = 1; close &H; mode f = {after}"
        KILLPRIV[f"open-only-{mode:04o}-{who}"] = f"{begin}; @{who} keep H f wronly; close &H; mode f = {mode:04o}"
        KILLPRIV[f"read-{mode:04o}-{who}"] = f"{begin}; @{who} keep H f rdwr; @{who} read &H = -; close &H; mode f = {mode:04o}"
    KILLPRIV[f"root-write-{mode:04o}"] = f"{begin}; keep H f wronly; pwrite &H 0 x = 1; close &H; mode f = {mode:04o}"
    KILLPRIV[f"root-truncate-{mode:04o}"] = f"{begin}; truncate f 10; mode f = {mode:04o}"
    KILLPRIV[f"then-chmod-{mode:04o}"] = f"{begin}; @alice keep H f wronly; @alice pwrite &H 0 x = 1; @alice chmod &H {mode:04o}; close &H; mode f = {mode:04o}"
    KILLPRIV[f"refused-{mode:04o}"] = f"{begin}; @alice keep H f rdonly; @alice pwrite &H 0 x = EBADF; @alice truncate &H 0 = EINVAL; mode f = {mode:04o}"


@cases(KILLPRIV)
def test_privileges_of_what_is_written(place, script):
    place.run(script)


# ---- Writing, and what is seen of it ---------------------------------------------------------------------------------

WRITING = """
new-open: keep H f wronly,creat; size f = 0; size &H = 0; pwrite &H 0 abc = 3; size &H = 3; size f = 3; close &H; size f = 3
descriptor-size: keep H f rdwr,creat; pwrite &H 100 x = 1; size &H = 101; bytes &H = 0*100,x; truncate &H 50; size &H = 50
replaced: write f abc; keep H f wronly; pwrite &H 0 123456 = 6; size &H = 6; size f = 6 ~published-at-close 3; close &H; size f = 6
replaced-trunc: write f abc; keep H f wronly,trunc; size &H = 0; size f = 0 ~published-at-close 3; close &H; size f = 0
replaced-read: write f abc; keep H f wronly; pwrite &H 0 1 = 1; @bob read f = 1bc ~published-at-close abc; close &H; @bob read f = 1bc
reader-keeps: write f abc; keep R f rdonly; write f 12; bytes &R = 12 ~readers-keep abc; size &R = 2 ~readers-keep 3
reader-sees: write f abc; keep R f rdonly; @alice size &R = 3; bytes &R = abc
truncated-under-reader: write f abc; keep R f rdonly; truncate f 1; bytes &R = a ~readers-keep abc
sparse: keep H f rdwr,creat; pwrite &H 10000000 x = 1; size &H = 10000001; blocks &H = some; close &H; blocks f = some; size f = 10000001
append: write f abc; keep H f wronly,append; append &H def = 3; close &H; read f = abcdef
append-pwrite: write f abc; keep H f wronly,append; pwrite &H 0 def = 3; close &H; read f = abcdef
append-of-two: write f abc; keep H f wronly,append; keep I f wronly,append; append &H 1 = 1; append &I 2 = 1; append &H 3 = 1; close &H; close &I; read f = abc123
two-writers: keep H f wronly,creat; keep I f wronly; pwrite &H 0 ab = 2; pwrite &I 1 x = 1; size &H = 2; size &I = 2; close &H; close &I; read f = ax
unlinked: keep H f rdwr,creat; unlink f; pwrite &H 0 abc = 3; bytes &H = abc; size &H = 3; type f = none; close &H; type f = none
not-for-reading: write f abc; keep H f wronly; bytes &H = EBADF
not-for-writing: write f abc; keep H f rdonly; pwrite &H 0 x = EBADF; read f = abc
far: keep H f wronly,creat; pwrite &H 4294967296 x = 1; size &H = 4294967297; close &H; size f = 4294967297; blocks f = some
negative-offset: keep H f wronly,creat; pwrite &H -1 x = EINVAL
too-far: keep H f wronly,creat; pwrite &H 2^63-1 x = EFBIG|EINVAL; size &H = 0
data-and-holes: keep H f rdwr,creat; truncate &H 1000000; seek &H 0 hole = 0; seek &H 0 data = ENXIO; pwrite &H 524288 x = 1; seek &H 0 data = 524288; seek &H 1000000 data = ENXIO; seek &H -1 data = ENXIO
end-is-hole: write f abc; keep H f rdonly; seek &H 0 hole = 3; seek &H 0 data = 0; seek &H 3 hole = ENXIO
"""
TIMES = """
write: write f abc; keep H f wronly; mark f; pwrite &H 0 x = 1; changed &H f = mc; close &H; changed f = mc
write-new: keep H f wronly,creat; mark f; pwrite &H 0 x = 1; changed f = mc; close &H; changed f = mc
write-same: write f abc; mark f; keep H f wronly; pwrite &H 0 abc = 3; close &H; changed f = mc
write-nothing: write f abc; mark f; keep H f wronly; pwrite &H 0 - = 0; close &H; changed f = -
append: write f abc; mark f; keep H f wronly,append; append &H x = 1; close &H; changed f = mc
open-and-close: write f abc; mark f; keep H f rdwr; changed &H f = -; close &H; changed f = -
open-to-read: write f abc; mark f; keep H f rdonly; close &H; changed f = -
open-creat-existing: write f abc; mark f .; keep H f wronly,creat; close &H; changed f = -; changed . = -
open-trunc: write f abc; mark f; keep H f wronly,trunc; close &H; changed f = mc
open-trunc-empty: file f; mark f; keep H f wronly,trunc; close &H; changed f = mc
open-excl-existing: write f abc; mark f .; open f wronly,creat,excl = EEXIST; changed f = -; changed . = -
open-creat-new: mark .; keep H f wronly,creat; changed . = mc; mark .; pwrite &H 0 x = 1; close &H; changed . = -
open-refused: write f abc; mark f; @bob open f wronly,trunc = EACCES; changed f = -; read f = abc
read: write f abc; mark f; read f = abc; changed f = -
fsync: write f abc; mark f; keep H f wronly; sync &H; close &H; changed f = -
after-publish: keep H f wronly,creat; pwrite &H 0 x = 1; mark f; close &H; changed f = -
after-replace: write f abc; keep H f wronly; pwrite &H 0 x = 1; mark &H; close &H; changed f &H = -
fallocate: write f abc; keep H f wronly; mark f; fallocate &H 0 10; changed &H f = mc; close &H; changed f = mc; size f = 10
write-times-stay-old: write f abc; utime f 1 2; keep H f wronly; mtime &H = 2; pwrite &H 0 x = 1; ages &H = -mc; close &H; ages f = -mc
mapped: write f abc; mark f; mapwrite f 1 x; read f = axc; changed f = mc
mapped-same: write f abc; mark f; mapwrite f 1 b; read f = abc; changed f = mc
read-atime: write f abc; utime f 1 2; read f = abc; ages f = a-c ~atime --c
"""


@cases(WRITING)
def test_writing(place, script):
    place.run(script)


@cases(TIMES)
def test_times_of_writing(place, script):
    place.run(script)


# ---- publish=write: as other file systems do -------------------------------------------------------------------------

on_mounts = pytest.mark.parametrize("place_kind", ["passthrough", "fallback"], indirect=True)


@on_mounts
@cases({f"truncate-{name}": script for name, script in TRUNCATE.items()}, KILLPRIV,
       "\n".join(f"{name}-{line}" for name, table in (("truncate", TRUNCATE_MORE), ("writing", WRITING), ("times", TIMES))
                 for line in table.strip().splitlines() if "~atime" not in line))
def test_changed_in_place(place, script):
    os.setxattr(place.root, "user.promisefs.publish", b"write")
    place.mounted = False  # no difference is allowed
    place.run(script)


@on_mounts
@cases(UTIME, UTIME_MORE)
def test_times_in_place(place, script):
    """The times of what is changed in place are those of its data file."""
    os.setxattr(place.root, "user.promisefs.publish", b"write")
    place.run(script)


# ---- fallocate -------------------------------------------------------------------------------------------------------

FALLOCATE = """
grow: file f; keep H f rdwr; fallocate &H 0 100; size &H = 100; bytes &H = 0*100,; close &H; size f = 100; blocks f = all
inside: fill f 100; keep H f rdwr; fallocate &H 10 20; size &H = 100; close &H; bytes f = x*100,
beyond: write f abc; keep H f rdwr; fallocate &H 10 20; size &H = 30; close &H; bytes f = abc0*27,
posix: file f; keep H f rdwr; posix_fallocate &H 5 10; size &H = 15; close &H; size f = 15
posix-inside: fill f 100; keep H f rdwr; posix_fallocate &H 0 10; size &H = 100
keep: write f abc; keep H f rdwr; fallocate &H 0 100000 keep; size &H = 3; close &H; size f = 3; read f = abc
punch: fill f 12288; keep H f rdwr; fallocate &H 4096 4096 punch keep; size &H = 12288; close &H; bytes f = x*4096,0*4096,x*4096,
punch-part: fill f 30; keep H f rdwr; fallocate &H 10 10 punch keep; close &H; bytes f = x*10,0*10,x*10,
punch-beyond: write f abc; keep H f rdwr; fallocate &H 100 100 punch keep; close &H; read f = abc
punch-alone: fill f 30; keep H f rdwr; fallocate &H 10 10 punch = EOPNOTSUPP
zero: fill f 30; keep H f rdwr; fallocate &H 10 10 zero = 0|EOPNOTSUPP
zero-and-punch: fill f 30; keep H f rdwr; fallocate &H 10 10 zero punch = EOPNOTSUPP
collapse-and-keep: fill f 30; keep H f rdwr; fallocate &H 0 10 collapse keep = EINVAL|EOPNOTSUPP
no-length: write f abc; keep H f rdwr; fallocate &H 0 0 = EINVAL; size f = 3
negative-length: write f abc; keep H f rdwr; fallocate &H 0 -1 = EINVAL
negative-offset: write f abc; keep H f rdwr; fallocate &H -1 10 = EINVAL
posix-no-length: write f abc; keep H f rdwr; posix_fallocate &H 0 0 = EINVAL
posix-negative: write f abc; keep H f rdwr; posix_fallocate &H -1 10 = EINVAL
too-far: write f abc; keep H f rdwr; fallocate &H 2^63-1 10 = EFBIG; size f = 3
read-descriptor: write f abc; keep H f rdonly; fallocate &H 0 10 = EBADF; size f = 3
path-descriptor: write f abc; keep H f rdonly,path; fallocate &H 0 10 = EBADF
dir-descriptor: dir d; keep H d rdonly,directory; fallocate &H 0 10 = EBADF
fifo-descriptor: fifo p; keep H p rdwr; fallocate &H 0 10 = ESPIPE
write-descriptor: file f; keep H f wronly; fallocate &H 0 10; close &H; size f = 10
append-descriptor: write f abc; keep H f wronly,append; fallocate &H 0 10; append &H x = 1; close &H; bytes f = abc0000000x
unlinked: keep H f rdwr,creat; unlink f; fallocate &H 0 100; size &H = 100
unlinked-unchanged: fill f 100; keep H f rdwr; unlink f; fallocate &H 10 10 punch keep; bytes &H = x*10,0*10,x*80,
punch-changes: fill f 30; keep H f rdwr; mark f; fallocate &H 10 10 punch keep; changed &H f = mc; close &H; changed f = mc
refused-changes-nothing: fill f 30; keep H f rdwr; mark f; fallocate &H 0 0 = EINVAL; fallocate &H 0 10 punch = EOPNOTSUPP; close &H; changed f = -
"""


@cases(FALLOCATE)
def test_fallocate(place, script):
    place.run(script)


# ---- A program that runs ---------------------------------------------------------------------------------------------

def test_running_program(place):
    """ETXTBSY, for as long as it runs."""
    path = place.path("sleep")
    shutil.copy(shutil.which("sleep"), path)
    os.chmod(path, 0o755)
    pid = os.posix_spawn(path, [path, "60"], {})
    try:
        for wrong in ("truncate sleep 0 = ETXTBSY", "open sleep wronly = ETXTBSY", "open sleep rdwr = ETXTBSY"):
            place.run(wrong)
        assert os.path.getsize(path) > 1000
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    place.run("truncate sleep 0; size sleep = 0")


def test_file_size_limit(place):
    """EFBIG, and SIGXFSZ is what Python ignores."""
    import resource
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    place.run("write f abc; keep H f rdwr")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        place.run("truncate f 1001 = EFBIG; truncate &H 1001 = EFBIG; pwrite &H 1000 x = EFBIG; fallocate &H 0 1001 = EFBIG")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    place.run("size &H = 3; close &H; read f = abc; truncate f 1001; size f = 1001")

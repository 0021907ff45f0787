"""mkdir, rmdir, mkfifo, mknod, symlink and readlink as POSIX has them: what is made, whose it is, what else changes."""
import itertools

import pytest

from posixfs import KINDS, cases, one_data_path

pytestmark = [pytest.mark.needs_root, one_data_path]

MAKE = {  # how each kind is made, with a mode
    "file": "open n wronly,creat {}",
    "excl": "open n rdwr,creat,excl {}",
    "mknod": "mknod n file {}",
    "dir": "mkdir n {}",
    "fifo": "mkfifo n {}",
    "mknod-fifo": "mknod n fifo {}",
    "socket": "mknod n socket {}",
    "char": "mknod n char {}",
    "block": "mknod n block {}",
    "symlink": "ln test n",
}
KIND = {**{how: how for how in MAKE}, "excl": "file", "mknod": "file", "mknod-fifo": "fifo"}


# ---- what is there already -------------------------------------------------------------------------------------------

THERE = {}
for how, there in itertools.product(MAKE, KINDS):
    if how != "file":
        THERE[f"{how}-over-{there}"] = f"""
            {there} n; mark . n; {MAKE[how].format('0644')} = EEXIST
            type n = {there}; changed . = -; changed n = -; ls = n"""
for how in MAKE:
    if how != "file":
        THERE[f"{how}-over-dangling-link"] = f"ln nothing n; {MAKE[how].format('0644')} = EEXIST; ls = n"
        THERE[f"{how}-over-full-dir"] = f"dir n; file n/f; {MAKE[how].format('0644')} = EEXIST; ls n = f"


@cases(THERE)
def test_what_is_there_stays(place, script):
    place.run(script)


# ---- modes and owners ------------------------------------------------------------------------------------------------

def kept_bits(how, mode):
    """mkdir(2) takes no set-id bits."""
    return mode & (0o1777 if how == "dir" else 0o7777)


MODES = {}
for how in MAKE:
    if how != "symlink":
        steps = [f"{MAKE[how].format(f'{mode:04o}')}; mode n = {kept_bits(how, mode):04o}; type n = {KIND[how]}; "
                 f"{'rmdir' if how == 'dir' else 'unlink'} n"
                 for mode in (0, 0o777, 0o151, 0o640, 0o400, 0o1777, 0o2755, 0o4711, 0o7777)]
        MODES[f"{how}-modes"] = "\n".join(steps)
        steps = [f"umask {mask:04o}; {MAKE[how].format('0777')}; mode n = {0o777 & ~mask:04o}; "
                 f"{'rmdir' if how == 'dir' else 'unlink'} n" for mask in (0, 0o022, 0o070, 0o077, 0o345, 0o501, 0o777)]
        MODES[f"{how}-umask"] = "\n".join(steps)
MODES["symlink-umask"] = "umask 0077; ln test n; mode n = 0777"


@cases(MODES)
def test_modes(place, script):
    place.run(script)


OWNERS = {}
for how in MAKE:
    if how in ("char", "block"):
        OWNERS[f"{how}-by-user"] = f"chmod . 0777; mark .; @alice {MAKE[how].format('0644')} = EPERM; changed . = -; ls = -"
        OWNERS[f"{how}-by-root"] = f"dir d alice:team 0777; {MAKE[how].replace(' n', ' d/n').format('0644')}; owner d/n = root:root"
        continue
    making = MAKE[how].replace(" n", " d/n").format("0640")
    OWNERS[f"{how}-owner"] = f"""
        dir d root:none 0777; @alice {making}; owner d/n = alice:alice
        {'rmdir' if how == 'dir' else 'unlink'} d/n; @carol {making}; owner d/n = carol:carol"""
    sgid = "2640" if how == "dir" else "0777" if how == "symlink" else "0640"
    OWNERS[f"{how}-in-setgid-directory"] = f"dir d root:team 2777; @bob {making}; owner d/n = bob:team; mode d/n = {sgid}"
    OWNERS[f"{how}-effective"] = f"dir d root:none 0777; effective bob {making}; owner d/n = bob:bob"
    if how not in ("dir", "symlink"):
        making = MAKE[how].replace(" n", " d/n").format("2775")
        OWNERS[f"{how}-setgid-of-a-group-that-is-not-his"] = f"""
            dir d root:team 2777; @bob {making}; owner d/n = bob:team; mode d/n = 0775"""
        OWNERS[f"{how}-setgid-of-his-group"] = f"""
            dir d root:team 2777; @carol {making}; owner d/n = carol:team; mode d/n = 2775"""
        OWNERS[f"{how}-setgid-without-execution"] = f"""
            dir d root:team 2777; @bob {making.replace('2775', '2665')}; owner d/n = bob:team; mode d/n = 2665"""
OWNERS["setgid-is-inherited-further"] = """
    dir d root:team 2777; @bob mkdir d/a 0777; @bob mkdir d/a/b 0777; owner d/a/b = bob:team; mode d/a/b = 2777
    @alice open d/a/b/f wronly,creat; owner d/a/b/f = alice:team"""
OWNERS["no-setgid-no-group"] = "dir d root:team 0777; @bob mkdir d/a; owner d/a = bob:bob; mode d/a = 0755"
OWNERS["sticky-is-not-inherited"] = "dir d root:team 1777; @bob mkdir d/a; mode d/a = 0755"
OWNERS["setgid-stays-with-rename"] = """
    dir d root:team 2777; file f bob; dir e bob 0777; @bob rename f d/f = EACCES; chmod . 0777
    @bob rename f d/f; owner d/f = bob:bob; @bob rename e d/e; owner d/e = bob:bob; mode d/e = 0777"""


@cases(OWNERS)
def test_owners(place, script):
    place.run(script)


# ---- times and links -------------------------------------------------------------------------------------------------

CHANGES = {}
for how in MAKE:
    nlink = 2 if how == "dir" else 1
    making = MAKE[how].replace(" n", " d/n").format("0644")
    removing = ("rmdir" if how == "dir" else "unlink") + " d/n"
    CHANGES[f"{how}-times"] = f"""
        dir d; mark . d; {making}; changed d = mc; changed . = -; changed d/n d = mc; nlink d/n = {nlink}
        nlink d = {nlink + 1 if how == 'dir' else 2}; mark d . d/n; {removing}; changed d = mc; changed . = -; nlink d = 2
        mark d; {removing} = ENOENT; changed d = -"""
for there in KINDS:
    CHANGES[f"rmdir-{there}-inside"] = f"""
        dir d; {there} d/n; mark . d d/n; rmdir d = ENOTEMPTY; changed . = -; changed d = -; changed d/n = -; ls d = n"""
    if there != "dir":
        CHANGES[f"rmdir-of-{there}"] = f"{there} n; mark . n; rmdir n = ENOTDIR; changed . = -; changed n = -; type n = {there}"
CHANGES.update({
    "nlink-of-directories": """nlink . = 2; dir a; dir b; dir a/x; file f; nlink . = 4; nlink a = 3; nlink a/x = 2
        rename a/x b/x; nlink a = 2; nlink b = 3; rename b/x a/y; nlink a = 3; nlink b = 2
        rename a/y b; nlink a = 2; nlink b = 2; nlink . = 4; rmdir a; nlink . = 3; unlink f; nlink . = 3; rmdir b; nlink . = 2""",
    "rmdir-needs-all-gone": "dir d; dir d/a; file d/b; rmdir d = ENOTEMPTY; rmdir d/a; rmdir d = ENOTEMPTY; unlink d/b; rmdir d",
    "rmdir-twice": "dir d; rmdir d; rmdir d = ENOENT; mkdir d; rmdir d",
    "rmdir-of-what-is-open": """dir d; keep H d rdonly; rmdir d; nlink &H = 0; type &H = dir; mkdir &H/x = ENOENT
        open &H/f wronly,creat = ENOENT; ln x &H/s = ENOENT; mkfifo &H/p = ENOENT; mknod &H/k socket = ENOENT
        ls &H/ = -; file f; link f &H/f = ENOENT; rename f &H/f = ENOENT; open &H/. rdonly; mode &H = 0755""",
    "rmdir-of-what-is-open-by-path": "dir d; keep H d path; rmdir d; nlink &H = 0; type &H = dir; owner &H = root:root",
    "unlink-of-what-is-open-by-path": "".join(
        f"{kind} n; keep {kind} n path,nofollow; unlink n; nlink &{kind} = 0; type &{kind} = {kind}; "
        for kind in KINDS if kind != "dir"),
    "unlink-of-an-open-fifo": "fifo p bob 0640; keep H p rdwr; unlink p; nlink &H = 0; mode &H = 0640; owner &H = bob:bob",
    "rmdir-and-again": "dir d; keep H d rdonly; rmdir d; mkdir d; file d/f; nlink &H = 0; ls &H/ = -; ls d = f",
    "rename-over-what-is-open": "dir d; dir e; keep H e rdonly; rename d e; nlink &H = 0; mkdir &H/x = ENOENT; mkdir e/x",
    "open-directory-that-moves": "dir d; keep H d rdonly; rename d e; mkdir &H/x; ls e = x; nlink &H = 3; rename e d; ls &H/ = x",
    "device-numbers": """mknod a char 0600 1:3; device a = 1:3; mknod b block 0600 7:200; device b = 7:200
        mknod c char 0600 4095:1048575; device c = 4095:1048575; mknod d char 0600 0:255; device d = 0:255
        mknod e block 0600 300:70000; device e = 300:70000""",
    "device-0-0-is-a-whiteout": "mknod w char 0600 0:0; device w = 0:0; type w = char; unlink w",
    "mknod-of-a-directory": "mknod n dir = EPERM; type n = none",
    "mknod-of-a-symlink": "mknod n symlink = EPERM|EINVAL; type n = none",
    "fifo-has-no-bytes": "fifo p; size p = 0; nlink p = 1",
    "socket-by-bind": "bind s; type s = socket; bind s = EADDRINUSE; file f; bind f = EADDRINUSE; unlink s; bind s",
    "socket-mode": "umask 0077; bind s; mode s = 0700; umask 0022; bind t; mode t = 0755",
    "socket-where-he-may-not": "dir d root 0555; @bob bind d/s = EACCES; type d/s = none",
    "readlink-of-others": "".join(f"{kind} {kind[:3]}; readlink {kind[:3]} = EINVAL; " for kind in KINDS if kind != "symlink"),
    "readlink-changes-nothing": "symlink s; mark . s; readlink s = test; changed . = -; changed s = -",
    "readlink-of-nothing": "readlink s = ENOENT",
    "symlink-owner-and-nlink": "chmod . 0777; @alice ln x s; owner s = alice:alice; nlink s = 1; link s t; nlink t = 2",
})


@cases(CHANGES)
def test_times_and_links(place, script):
    place.run(script)


# ---- names -----------------------------------------------------------------------------------------------------------

SAME = [("case", "a", "A"), ("accent-composed-or-not", "%C3%A9", "e%CC%81"), ("sharp-s", "%C3%9F", "ss"),
        ("greek-sigma", "%CF%82", "%CF%83"), ("dot-at-end", "a", "a."), ("space-at-end", "a", "a%20"),
        ("invalid", "%FF", "%FE"), ("surrogate", "%ED%A0%80", "%ED%A0%81"), ("overlong-slash", "%C0%AF", "%2E%C0%AF"),
        ("newline", "a%0Ab", "a%0A"), ("zero-width", "a", "a%E2%80%8B"), ("turkish-i", "i", "%C4%B1"),
        ("digit", "1", "01"), ("tilde", "%7E", "%7Ea"), ("dots", "...", "...."), ("backslash", "a%5Cb", "a%5C%5Cb"),
        ("quote", "%27", "%22"), ("star", "*", "?"), ("dash", "-rf", "--"), ("cut-in-a-character", "%C3", "%C3%A9")]
NAMES = {f"{label}-differs": f"write {one} 1; type {two} = none; write {two} 2; read {one} = 1; read {two} = 2; "
                             f"unlink {one}; read {two} = 2; mkdir {one}; rename {two} {one}/{two}; read {one}/{two} = 2"
         for label, one, two in SAME}
for label, name in {
        "fuse-hidden": ".fuse_hidden0000000100000001", "nfs": ".nfs0000000000000001", "control-below": ".promisefs",
        "dot-dir": ".dir", "control-like": ".promisefs2", "dots": "...", "dot": ".a", "space": "%20", "newline": "%0A",
        "tab": "%09", "escape": "%1B[31m", "delete": "%7F", "all-ff": "%FF" * 255, "multibyte-255": "%E2%82%AC" * 85,
        "self": "self", "json": "%22%7D,%7B%22", "colon": "a:b", "percent": "%25s%25n", "hash": "%23", "semicolon": "%3B",
        "aborted": "aborted", "long-and-invalid": "%80" * 254 + "a"}.items():
    NAMES[label] = "\n".join(f"{kind} {name}; type {name} = {kind}; rename {name} moved; type {name} = none; "
                             f"rename moved {name}; {'rmdir' if kind == 'dir' else 'unlink'} {name}" for kind in KINDS)


@cases(NAMES)
def test_names(place, script):
    place.run(script)


def test_every_byte_is_a_name(place):
    import os
    root = os.fsencode(place.root)
    names = {bytes([byte]) for byte in range(1, 256)} - {b"/", b"."} | {b"x%c" % byte for byte in range(1, 256) if byte != 0x2f}
    for name in names:
        os.mkdir(root + b"/" + name)
    assert set(os.listdir(root)) == names
    for name in names:
        os.rename(root + b"/" + name, root + b"/" + name + b"zz")
    assert set(os.listdir(root)) == {name + b"zz" for name in names}

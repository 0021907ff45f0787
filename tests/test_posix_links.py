"""link, unlink and rename as POSIX has them: kinds, sticky directories, times, link counts, what stays open."""
import itertools
import os
import tempfile
from pathlib import Path

import pytest

from posixfs import KINDS, cases, one_data_path

pytestmark = [pytest.mark.needs_root, one_data_path]

REMOVE = {kind: "rmdir" if kind == "dir" else "unlink" for kind in KINDS}
FILES = [kind for kind in KINDS if kind != "dir"]


def sysctl(name):
    try:
        return int(Path("/proc/sys/fs", name).read_text())
    except OSError:
        return 0


# ---- link ------------------------------------------------------------------------------------------------------------

LINK = {}
for kind in FILES:
    LINK[f"link-{kind}"] = f"""
        dir d; {kind} n alice; mark . d n; link n d/m; nlink n = 2; nlink d/m = 2; same n d/m = yes; type d/m = {kind}
        owner d/m = alice:alice; changed n = c; changed d/m n = c; changed d = mc; changed . = -
        mark n d; link d/m o; nlink o = 3; changed n = c; changed d = -; mark d o; unlink d/m; nlink n = 2; changed o = c
        changed d = mc; unlink n; nlink o = 1; type o = {kind}; rename o n; nlink n = 1; unlink n; ls = d"""
    for there in KINDS:
        LINK[f"link-{kind}-over-{there}"] = f"""
            {kind} n; {there} m; mark . n m; link n m = EEXIST; changed . = -; changed n = -; changed m = -
            nlink n = 1; type m = {there}"""
    LINK[f"link-{kind}-over-itself"] = f"{kind} n; mark . n; link n n = EEXIST; nlink n = 1; changed n = -; changed . = -"
LINK.update({
    "link-dir": "dir d; mark . d; link d e = EPERM; changed . = -; changed d = -; nlink d = 2; type e = none",
    "link-dir-by-user": "chmod . 0777; dir d alice; @alice link d e = EPERM",
    "link-dir-over": "dir d; file f; link d f = EEXIST; link d d = EEXIST",
    "link-full-dir": "dir d; file d/f; link d e = EPERM; link d d/e = EPERM",
    "link-nothing": "mark .; link n m = ENOENT; changed . = -",
    "link-nothing-over": "file m; link n m = ENOENT|EEXIST",
    "link-to-missing-directory": "file n; mark n; link n d/m = ENOENT; nlink n = 1; changed n = -",
    "link-changes-mode-of-both": "file n; link n m; chmod m 0600; mode n = 0600; chown n bob; owner m = bob:bob",
    "link-shares-bytes": "write n one; link n m; read m = one; write m two; read n = two; unlink n; read m = two; nlink m = 1",
    "link-many": "file n; " + "".join(f"link n m{i}; " for i in range(50)) + "nlink n = 51; unlink n; nlink m7 = 50",
    "link-what-is-unlinked": "file n; keep H n rdonly; unlink n; link &H m follow = ENOENT",
    "link-own": "chmod . 0777; file n bob 0600; @bob link n m; nlink n = 2",
    "link-into-his-directory": "dir d bob; file n bob; @bob link n d/m; @alice link n d/k = EACCES|EPERM",
    "link-from-closed-directory": "dir d root 0700; chmod . 0777; file d/n bob; @bob link d/n m = EACCES",
})
if sysctl("protected_hardlinks"):
    LINK.update({
        "link-of-others-file": "chmod . 0777; file n alice 0644; @bob link n m = EPERM; nlink n = 1",
        "link-of-others-file-that-he-may-write": "chmod . 0777; file n alice 0666; @bob link n m; owner m = alice:alice",
        "link-of-others-setuid": "chmod . 0777; file n alice 4777; @bob link n m = EPERM",
        "link-of-others-setgid": "chmod . 0777; file n alice 2777; @bob link n m = EPERM",
        "link-of-others-fifo": "chmod . 0777; fifo n alice 0666; @bob link n m = EPERM",
        "link-of-others-symlink": "chmod . 0777; symlink n alice; @bob link n m = EPERM",
        "link-by-group": "chmod . 0777; file n alice:team 0660; @carol link n m; @bob link n k = EPERM",
        "link-by-root": "file n alice 0000; link n m",
    })
else:
    LINK["link-of-others-file"] = "chmod . 0777; file n alice 0600; @bob link n m; owner m = alice:alice; nlink n = 2"


@cases(LINK)
def test_link(place, script):
    place.run(script)


# ---- unlink ----------------------------------------------------------------------------------------------------------

UNLINK = {}
for kind in FILES:
    UNLINK[f"unlink-{kind}"] = f"""
        dir d; {kind} d/n; mark . d; unlink d/n; type d/n = none; changed d = mc; changed . = -; nlink d = 2
        unlink d/n = ENOENT; {kind} d/n; unlink d/n"""
UNLINK.update({
    "unlink-dir": "dir d; mark . d; unlink d = EISDIR; changed . = -; changed d = -; type d = dir",
    "unlink-full-dir": "dir d; file d/f; unlink d = EISDIR; type d/f = file",
    "unlink-dir-by-user": "chmod . 0777; dir d bob; @bob unlink d = EISDIR",
    "unlink-leaves-others": "file a; file b; link a c; unlink a; ls = b,c; nlink c = 1; nlink b = 1",
    "unlink-without-rights-on-it": "chmod . 0777; file n root 0000; @bob unlink n; ls = -",
    "unlink-read-only-file": "dir d bob; file d/n bob 0000; @bob unlink d/n",
    "unlink-link-not-target": "file f; ln f s; mark f; unlink s; type f = file; changed f = -",
})


@cases(UNLINK)
def test_unlink(place, script):
    place.run(script)


# ---- rename: what may take whose place -------------------------------------------------------------------------------

def replaced(kind, there):
    """The outcome of renaming one kind over another."""
    if kind == "dir":
        return {"nothing": "0", "dir": "0", "full": "ENOTEMPTY|EEXIST"}.get(there, "ENOTDIR")
    return "EISDIR" if there in ("dir", "full") else "0"


def make(kind, name):
    return {"nothing": "", "full": f"dir {name}; file {name}/f"}.get(kind, f"{kind} {name}")


OVER = {}
for kind, there in itertools.product(KINDS, (*KINDS, "full", "nothing")):
    outcome = replaced(kind, there)
    moved = outcome == "0"
    kept = {"full": "dir", "nothing": "none"}.get(there, there)
    before = f"dir d; dir e; {kind} d/n; {make(there, 'e/m')}; mark d/n d e ."
    changed, in_place = "mc" if moved else "-", kind if moved else kept
    free = there == "nothing"
    steps = [f"""
        {before}; rename d/n e/m = {outcome}; type d/n = {'none' if moved else kind}; type e/m = {in_place}
        changed d = {changed}; changed e = {changed}; changed . = -; changed {'e/m d/n = c' if moved else 'd/n = -'}
        nlink d = {3 if kind == 'dir' and not moved else 2}; nlink e = {3 if in_place == 'dir' else 2}"""]
    steps.append(f"""
        dir f; {kind} f/n; {make(there, 'f/m')}; mark f/n f .; rename f/n f/m = {outcome}
        type f/n = {'none' if moved else kind}; type f/m = {in_place}; changed . = -; changed f = {changed}
        changed {'f/m f/n = c' if moved else 'f/n = -'}; nlink f = {2 + (in_place == 'dir') + (kind == 'dir' and not moved)}""")
    before = before.replace("d/", "g/").replace("e/", "h/").replace("dir d; dir e", "dir g; dir h").replace(" d e .", " g h .")
    steps.append(f"""
        {before}; rename g/n h/m noreplace = {'0' if free else 'EEXIST'}; type g/n = {'none' if free else kind}
        type h/m = {kind if free else kept}; changed h = {'mc' if free else '-'}; changed g = {'mc' if free else '-'}
        {'rename h/m g/n' if free else ''}; mark g/n g h .""")
    if free:
        steps.append(f"rename g/n h/m exchange = ENOENT; type g/n = {kind}; type h/m = none; changed g = -; changed h = -")
    else:
        steps.append(f"""
            mark h/m; rename g/n h/m exchange; type g/n = {kept}; type h/m = {kind}; changed g = mc; changed h = mc
            changed . = -; changed g/n h/m = c; changed h/m g/n = c; nlink g = {3 if kept == 'dir' else 2}
            nlink h = {3 if kind == 'dir' else 2}; {'type g/n/f = file' if there == 'full' else ''}""")
    OVER[f"{kind}-over-{there}"] = "\n".join(steps)


@cases(OVER)
def test_rename_over(place, script):
    place.run(script)


RENAME = {
    "itself": "file n; mark . n; rename n n; type n = file; changed . = -; changed n = -",
    "itself-dir": "dir d; file d/f; mark . d; rename d d; type d/f = file; changed . = -; changed d = -",
    "itself-noreplace": "file n; rename n n noreplace = EEXIST; type n = file",
    "itself-exchange": "file n; rename n n exchange; type n = file",
    "other-link": "file n; link n m; mark . n; rename n m; ls = m,n; nlink n = 2; changed . = -; changed n = -",
    "other-link-elsewhere": "dir d; file n; link n d/m; mark . n; rename n d/m; nlink n = 2; ls d = m; changed n = -; changed . = -",
    "other-link-noreplace": "file n; link n m; rename n m noreplace = EEXIST; ls = m,n",
    "other-link-exchange": "file n; link n m; rename n m exchange; ls = m,n; nlink n = 2",
    "over-one-of-two-links": "file n; file m; link m k; mark k; rename n m; nlink k = 1; changed k = c; nlink m = 1; same m k = no",
    "link-counts": "file n; link n k; file m; rename n m; nlink m = 2; nlink k = 2; same m k = yes",
    "below-itself": "dir d; mark . d; rename d d/e = EINVAL; changed d = -; changed . = -; ls d = -",
    "below-itself-further": "dir d; dir d/e; rename d d/e/f = EINVAL; rename d d/e = EINVAL; ls d = e",
    "below-itself-by-link": "dir d; ln d s; rename d s/e = EINVAL; type d = dir",
    "over-parent": "dir d; dir d/e; file d/e/f; rename d/e d = ENOTEMPTY|EEXIST; rename d/e/f d = EISDIR|ENOTEMPTY; type d/e/f = file",
    "over-grandparent": "dir d; dir d/e; dir d/e/f; rename d/e/f d = ENOTEMPTY|EEXIST; type d/e/f = dir",
    "exchange-with-parent": "dir d; dir d/e; rename d/e d exchange = EINVAL|ENOTEMPTY; rename d d/e exchange = EINVAL; type d/e = dir",
    "nothing": "mark .; rename n m = ENOENT; rename n m noreplace = ENOENT; rename n m exchange = ENOENT; changed . = -",
    "nothing-over-something": "file m; mark m .; rename n m = ENOENT; changed m = -; changed . = -; type m = file",
    "nothing-over-itself": "rename n n = ENOENT",
    "to-missing-directory": "file n; mark . n; rename n d/n = ENOENT; changed . = -; changed n = -; type n = file",
    "tree": "dir a; dir a/b; write a/b/f text; dir z; rename a z/a; read z/a/b/f = text; rename z/a/b b; read b/f = text; ls z/a = -",
    "dot-dot-follows": "dir a; dir z; dir a/b; rename a/b z/b; same z/b/.. z = yes; nlink z = 3; nlink a = 2",
    "flags-wrong": "file n; rename n m 3 = EINVAL; rename n m 8 = EINVAL; rename n m 256 = EINVAL; type n = file",
    "whiteout-with-exchange": "file n; file m; rename n m 6 = EINVAL",
    "exchange-trees": "dir a; dir a/x; file a/x/f; dir b; file b/g; rename a/x b exchange; type b/f = file; type a/x/g = file; nlink a = 3",
    "exchange-symlink-and-target": "write f text; ln f s; rename f s exchange; type f = symlink; read s = text",
    "long-chain": "file n0; " + "".join(f"rename n{i} n{i + 1}; " for i in range(60)) + "ls = n60",
    "swap-by-three": "write a 1; write b 2; rename a t; rename b a; rename t b; read a = 2; read b = 1",
    "case": "file n; rename n N; ls = N",
    "moved-directory-keeps-its-own-mtime": "dir d; dir e; file d/f; mark d; rename d e/d; changed e/d d = c",
    "bytes-stay": "write n text; chmod n 4711; chown n bob; chmod n 4711; rename n m; read m = text; mode m = 4711; owner m = bob:bob",
    "rename-without-rights-on-it": "chmod . 0777; file n root 0000; @bob rename n m; type m = file",
    "rename-over-without-rights-on-it": "chmod . 0777; file n bob; file m root 0000; @bob rename n m; owner m = bob:bob",
    "directory-that-he-may-not-write-elsewhere": """dir a bob 0777; dir z bob 0777; dir a/d root 0755
        @bob rename a/d z/d = EACCES; @bob rename a/d a/e; @bob rename a/e a/e""",
    "directory-that-he-may-write-elsewhere": "dir a bob; dir z bob; dir a/d root 0777; @bob rename a/d z/d",
    "own-directory-without-writing-elsewhere": "dir a bob; dir z bob; dir a/d bob 0555; @bob rename a/d z/d = EACCES; @bob rename a/d a/e",
    "exchange-directory-elsewhere": """dir a bob; dir z bob; dir a/d root 0755; dir z/e bob; @bob rename z/e a/d exchange = EACCES
        file z/f bob; @bob rename z/f a/d exchange = EACCES; chmod a/d 0777; @bob rename z/f a/d exchange""",
    "source-directory-not-writable": "dir a root 0755; dir z bob; file a/n bob; @bob rename a/n z/n = EACCES; @bob rename a/n a/m = EACCES",
    "target-directory-not-writable": "dir a bob; dir z root 0755; file a/n bob; mark a z; @bob rename a/n z/n = EACCES; changed a = -; changed z = -",
    "source-not-searchable": "dir a bob; dir a/b bob 0600; file a/b/n bob; @bob rename a/b/n a/n = EACCES",
    "target-not-searchable": "dir a bob; dir a/b bob 0600; file a/n bob; @bob rename a/n a/b/n = EACCES",
}


@cases(RENAME)
def test_rename(place, script):
    place.run(script)


# ---- sticky directories ----------------------------------------------------------------------------------------------

STICKY = {}
for folder, owner, user in itertools.product(("root", "alice", "bob"), ("root", "alice", "bob"), ("root", "alice", "bob", "carol")):
    allowed = user in ("root", folder, owner)
    outcome = "0" if allowed else "EPERM"
    changed = "mc" if allowed else "-"
    label = f"{folder}s-directory-{owner}s-file-{user}"
    removing, renaming, over = [], [], []
    for kind in ("file", "dir", "symlink", "fifo"):
        thing = f"{kind} t/{kind} {owner}:none 0777"
        other = "dir" if kind == "dir" else "file"
        removing.append(f"{thing}; mark t; @{user} {REMOVE[kind]} t/{kind} = {outcome}; changed t = {changed}")
        renaming.append(f"""{thing}; mark t u; @{user} rename t/{kind} u/{kind} = {outcome}; changed u = {changed}
            {f'rename u/{kind} t/{kind}' if allowed else ''}; @{user} rename t/{kind} t/m{kind} = {outcome}
            type t/m{kind} = {kind if allowed else 'none'}; type t/{kind} = {'none' if allowed else kind}""")
        over.append(f"""{thing}; {other} u/{kind} {user}; {other} t/o{kind} {user}; mark t
            @{user} rename u/{kind} t/{kind} = {outcome}; changed t = {changed}
            owner t/{kind} = {user if allowed else owner}:{user if allowed else 'none'}; chown t/{kind} {owner}
            @{user} rename t/o{kind} t/{kind} = {outcome}; type t/o{kind} = {'none' if allowed else other}""")
    exchange = f"""file t/n {owner}; file u/m {user}; @{user} rename u/m t/n exchange = {outcome}
        chown t/n {owner}; chown u/m {user}; @{user} rename t/n u/m exchange = {outcome}"""
    for what, steps in ("remove", removing), ("rename", renaming), ("over", over), ("exchange", [exchange]):
        STICKY[f"{what}-{label}"] = "\n".join([f"dir t {folder} 1777; dir u root 0777", *steps])
STICKY.update({
    "not-sticky": "dir t root 0777; file t/n alice; dir t/d alice; @bob unlink t/n; @bob rmdir t/d",
    "sticky-and-full": "dir t root 1777; dir t/d alice; file t/d/f alice; @bob rmdir t/d = EPERM; @alice rmdir t/d = ENOTEMPTY",
    "sticky-without-write": "dir t root 1755; file t/n bob; @bob unlink t/n = EACCES; @bob rename t/n t/m = EACCES",
    "sticky-owner-without-write": "dir t bob 1555; file t/n bob; @bob unlink t/n = EACCES",
    "sticky-making-is-free": "dir t root 1777; @bob mkdir t/d; @bob open t/f wronly,creat; @bob ln x t/s; @bob unlink t/s",
    "sticky-below": "dir t root 1777; dir t/d bob 0777; file t/d/f alice; @bob unlink t/d/f; @carol rmdir t/d = EPERM",
    "sticky-group-does-not-help": "dir t root:team 1777; file t/n alice:team 0777; @carol unlink t/n = EPERM",
    "sticky-goes": "dir t root 1777; file t/n alice; @bob unlink t/n = EPERM; chmod t 0777; @bob unlink t/n",
    "sticky-comes": "dir t root 0777; file t/n alice; chmod t 1777; @bob unlink t/n = EPERM",
    "sticky-file-bit-means-nothing": "dir t root 0777; file t/n alice 1777; @bob unlink t/n",
    "sticky-new-owner": "dir t root 1777; file t/n alice; chown t/n bob; @alice unlink t/n = EPERM; @bob unlink t/n",
    "sticky-directory-gets-owner": "dir t root 1777; file t/n alice; chown t bob; @carol unlink t/n = EPERM; @bob unlink t/n",
    "sticky-hard-link": "dir t root 1777; dir u root 0777; file t/n alice 0666; link t/n u/m; @bob unlink t/n = EPERM; @bob unlink u/m",
})


@cases(STICKY)
def test_sticky(place, script):
    place.run(script)


# ---- other file systems, mount points, limits ------------------------------------------------------------------------

@pytest.fixture
def elsewhere(place, scratch):
    """A directory on another file system than the case's."""
    device = os.stat(place.root).st_dev
    for base in (str(scratch), tempfile.gettempdir(), "/dev/shm"):
        if os.path.isdir(base) and os.stat(base).st_dev != device:
            with tempfile.TemporaryDirectory(prefix="promisefs-test-", dir=base) as folder:
                yield folder
            return
    pytest.skip("there is no second file system")


EXDEV = """
link: file n; link n E/m = EXDEV; link E/file m = EXDEV; ls = n; nlink n = 1
link-dir: link E/dir m = EXDEV|EPERM; dir d; link d E/m = EXDEV|EPERM
link-over: file n; link n E/file = EEXIST|EXDEV; link E/file n = EEXIST|EXDEV
rename: file n; mark . n; rename n E/m = EXDEV; rename E/file m = EXDEV; changed . = -; changed n = -; ls = n
rename-dir: dir d; rename d E/m = EXDEV; rename E/dir m = EXDEV; type d = dir
rename-over: file n; rename n E/file = EXDEV; rename E/file n = EXDEV
rename-noreplace: file n; rename n E/file noreplace = EXDEV; rename n E/m exchange = EXDEV; rename n E/file exchange = EXDEV
symlink: ln E/file s; open s rdonly; ln E/dir t; mkdir t/x; rmdir t/x; rename s t/s = EXDEV
"""


@cases(EXDEV)
def test_other_file_systems(place, elsewhere, script):
    Path(elsewhere, "file").touch()
    Path(elsewhere, "dir").mkdir()
    place.run(script.replace("E/", elsewhere + "/"))
    assert sorted(os.listdir(elsewhere)) == ["dir", "file"]

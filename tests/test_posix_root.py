"""The root of a mount: it is busy, and has one name that is not the user's."""
import os
from pathlib import Path

import pytest

from posixfs import KINDS, cases

pytestmark = [pytest.mark.needs_root, pytest.mark.parametrize("place_kind", ["mount"], indirect=True)]


def test_the_root_of_the_mount(place, place_root):
    """A mount point is busy, and nothing is above it."""
    root = str(place_root.mount.root)
    place.run(f"""rmdir {root} = EBUSY; rename {root} {root}2 = EBUSY|EXDEV; dir d; rename d {root} = EBUSY|EXDEV
        unlink {root} = EISDIR|EBUSY; same {root}/.. {Path(root).parent} = yes; type {root}/. = dir""")


# `.promisefs` in the root of the mount is there, for good.
RESERVED = {
    f"over-{kind}": f"{kind} n; rename n P = EPERM|EBUSY|EEXIST|ENOTEMPTY|EISDIR; rename n P noreplace = EEXIST; "
                    f"rename n P exchange = EPERM; type n = {kind}; type P = dir" for kind in KINDS}
RESERVED.update({
    "mkdir": "mkdir P = EEXIST",
    "mkfifo": "mkfifo P = EEXIST",
    "mknod": "mknod P socket = EEXIST; mknod P char = EEXIST; mknod P file = EEXIST",
    "ln": "ln x P = EEXIST",
    "link": "file n; link n P = EEXIST; link P m = EPERM; nlink n = 1",
    "open": "open P wronly,creat,excl = EEXIST; open P wronly,creat = EISDIR; open P rdwr = EISDIR; open P rdonly",
    "rmdir": "rmdir P = EPERM|EBUSY; type P = dir",
    "unlink": "unlink P = EISDIR",
    "rename-away": "rename P x = EPERM|EBUSY; rename P P = 0|EPERM|EBUSY; type P = dir; type x = none",
    "as-user": "chmod . 0777; @bob mkdir P = EEXIST; @bob rmdir P = EACCES|EPERM; @bob rename P x = EACCES|EPERM",
    "others-are-free": "mkdir P2; rmdir P2; mkdir Px; rename Px Py; rmdir Py; open P- wronly,creat,excl; unlink P-",
})


@cases(RESERVED)
def test_the_reserved_name(place, place_root, script):
    root = str(place_root.mount.root)
    place.run(script.replace(" P", f" {root}/.promisefs"))
    assert ".promisefs" not in os.listdir(root)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reserved_name_is_ordinary_below(place, kind):
    place.run(f"""dir d; {kind} .promisefs; {kind} d/.promisefs; ls = .promisefs,d; rename .promisefs x; rename x .promisefs
        {'rmdir' if kind == 'dir' else 'unlink'} .promisefs; rename d/.promisefs .promisefs; type .promisefs = {kind}; ls d = -""")

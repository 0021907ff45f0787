"""Opens and other calls by a path succeed while others replace what it names: nobody hears ESTALE, as nobody does on other
file systems. The kernel looks a path up once more when it is told so, not twice."""
import os

import pytest

from pfs import check_store
from posixfs import Place
from test_posix_races import race

SECONDS = 1.2


def make_keys(place: Place):
    for number in range(2):
        with open(place.path(f"key{number}"), "wb") as file:
            file.write((b"0000000.%07d\n" % 0 * 257)[:4096])


def test_what_is_replaced_can_be_used(place, place_root):
    make_keys(place)
    counts = race(place, "keys" if place.mounted else "shared_keys", SECONDS)
    assert counts["write"] > 100 and counts["read"] > 20 and counts["truncate"] > 20, counts
    assert sorted(os.listdir(place.root)) == ["key0", "key1"]
    if place.mounted:
        assert check_store(place_root.mount) == []


def test_what_is_removed_can_be_made(place, place_root):
    """Also: truncate(2), rename(2) and unlink(2) have locks of the kernel that the others wait for."""
    make_keys(place)
    counts = race(place, "making", SECONDS)
    assert counts["create"] > 100 and counts["unlink"] > 20, counts
    assert set(os.listdir(place.root)) <= {"key0", "key1"}
    if place.mounted:
        assert check_store(place_root.mount) == []


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR | os.O_APPEND, os.O_RDONLY])
def test_what_was_replaced_or_removed_is_opened_anew(place, flags):
    """By /proc/self/fd there is no name to look up. (O_TRUNC: see Known limits in docs/architecture.md.)"""
    make_keys(place)
    for change in (lambda: place.run("write key0 replaced"), lambda: os.rename(place.path("key1"), place.path("key0")),
                   lambda: os.unlink(place.path("key0"))):
        fd = os.open(place.path("key0"), os.O_RDONLY)
        change()
        os.close(os.open(f"/proc/self/fd/{fd}", flags))
        os.close(fd)


def test_attributes_of_what_is_removed_and_open(place):
    make_keys(place)
    fd = os.open(place.path("key0"), os.O_RDONLY)
    os.unlink(place.path("key0"))
    os.setxattr(fd, "user.mine", b"1")
    os.setxattr(fd, "user.other", b"")
    assert os.getxattr(fd, "user.mine") == b"1" and sorted(os.listxattr(fd)) == ["user.mine", "user.other"]
    with pytest.raises(FileExistsError):
        os.setxattr(fd, "user.mine", b"2", os.XATTR_CREATE)
    os.removexattr(fd, "user.mine")
    assert os.listxattr(fd) == ["user.other"]
    with pytest.raises(OSError, match="No data"):
        os.getxattr(fd, "user.mine")
    os.fchmod(fd, 0o600)
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    os.close(fd)

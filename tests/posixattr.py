"""What the POSIX cases of attributes and sizes can do besides (posixfs.py): owners by number, times, truncate, fallocate,
extended attributes."""
import mmap
import os
import struct
import time

from posixfs import AT_FDCWD, GROUPS, USERS, verb

UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
NOFOLLOW = 0x100
NS = 10**9


def on(place, handle, name, *args):
    """A call with the descriptor that a case keeps as &HANDLE."""
    user, fd = place.kept[handle.lstrip("&")]
    return place.call_as(user, name, fd, *args)


def is_kept(name):
    return name.startswith("&") and "/" not in name


def call(place, of_path, of_fd, name, *args):
    """chmod or fchmod, truncate or ftruncate: by what is named."""
    if is_kept(name):
        return on(place, name, of_fd, *args)
    return place.call(of_path, place.path(name), *args)


@verb
def own(place, name, user, group, *flags):
    """chown(2), which follows links (`nofollow`: lchown), by `-` for -1."""
    uid = -1 if user == "-" else USERS[user].uid
    gid = -1 if group == "-" else GROUPS[group]
    call(place, "lchown" if "nofollow" in flags else "chown", "fchown", name, uid, gid)


@verb
def fchmodat(place, name, mode, *flags):
    place.call("libc_call", "fchmodat", AT_FDCWD, os.fsencode(place.path(name)), int(mode, 8), NOFOLLOW if "nofollow" in flags else 0)


@verb
def fchownat(place, handle, user, group):
    """With AT_EMPTY_PATH: of a descriptor that may be opened with O_PATH."""
    user_of, fd = place.kept[handle[1:]]
    place.call_as(user_of, "libc_call", "fchownat", fd, b"", USERS[user].uid, GROUPS[group], 0x1000)


# ---- times -----------------------------------------------------------------------------------------------------------

def timespec(text):
    """`now`, `omit`, SECONDS, SECONDS.NANOSECONDS (all nine) or SECONDS:NSEC as they are."""
    if text in ("now", "omit"):
        return 0, UTIME_NOW if text == "now" else UTIME_OMIT
    seconds, _, nanoseconds = text.replace(":", ".").partition(".")
    return int(seconds), int(nanoseconds or 0)


@verb
def utime(place, name, *when):
    """utimensat(2) or futimens(2): `utime f ATIME MTIME [nofollow]`; without times for now."""
    flags = NOFOLLOW if "nofollow" in when else 0
    when = [each for each in when if each != "nofollow"]
    value = struct.pack("=qqqq", *timespec(when[0]), *timespec(when[1])) if when else 0
    if is_kept(name):
        user, fd = place.kept[name[1:]]
        place.call_as(user, "libc_call", "futimens", fd, value)
    else:
        place.call("libc_call", "utimensat", AT_FDCWD, os.fsencode(place.path(name)), value, flags)


def time_text(ns):
    return f"{ns // NS}.{ns % NS:09}" if ns % NS else str(ns // NS)


@verb
def atime(place, name):
    return time_text(place.lstat(name).st_atime_ns)


@verb
def mtime(place, name):
    return time_text(place.lstat(name).st_mtime_ns)


@verb
def ages(place, name):
    """Which of atime, mtime and ctime are of this minute: `-mc`."""
    found = place.lstat(name)
    now = time.time_ns()
    return "".join(letter if abs(now - ns) < 60 * NS else "-" for letter, ns in
                   (("a", found.st_atime_ns), ("m", found.st_mtime_ns), ("c", found.st_ctime_ns)))


# ---- sizes -----------------------------------------------------------------------------------------------------------

def number(text):
    """An integer, `2^N`, `2^N-1`."""
    if "^" not in text:
        return int(text)
    power, _, less = text.partition("-")
    return 2 ** int(power.split("^")[1]) - int(less or 0)


@verb
def truncate(place, name, length):
    call(place, "truncate", "ftruncate", name, number(length))


FALLOC = {"keep": 1, "punch": 2, "collapse": 8, "zero": 16, "insert": 32}


@verb
def fallocate(place, handle, offset, length, *modes):
    user, fd = place.kept[handle[1:]]
    bits = sum(FALLOC[mode] for mode in modes)
    place.call_as(user, "libc_call", "fallocate", fd, bits, number(offset), number(length))


@verb
def posix_fallocate(place, handle, offset, length):
    on(place, handle, "posix_fallocate", number(offset), number(length))


@verb
def pwrite(place, handle, offset, text):
    return on(place, handle, "pwrite", b"" if text == "-" else text.encode(), number(offset))


@verb
def mapwrite(place, name, offset, text):
    """Writes through a shared mapping; the descriptor is closed, and the mapping gone, when this returns."""
    fd = place.call("open", place.path(name), os.O_RDWR)
    try:
        with mmap.mmap(fd, 0) as area:
            os.close(fd)
            fd = -1
            area[int(offset):int(offset) + len(text)] = text.encode()
    finally:
        if fd >= 0:
            os.close(fd)


@verb
def append(place, handle, text):
    """write(2), at the position that the descriptor has."""
    return on(place, handle, "write", text.encode())


@verb
def position(place, handle):
    return on(place, handle, "lseek", 0, os.SEEK_CUR)


@verb
def seek(place, handle, offset, whence):
    return on(place, handle, "lseek", number(offset), {"set": 0, "cur": 1, "end": 2, "data": 3, "hole": 4}[whence])


@verb
def bytes_(place, name):
    """The content, zeros as `0`, a run of more than eight equal bytes as `BYTE*COUNT`."""
    if is_kept(name):
        data = on(place, name, "pread", 1 << 20, 0)
    else:
        data = place.call("read_path", place.path(name))
    text, at = "", 0
    while at < len(data):
        end = at
        while end < len(data) and data[end] == data[at]:
            end += 1
        letter = chr(data[at]) if data[at] else "0"
        text += f"{letter}*{end - at}," if end - at > 8 else letter * (end - at)
        at = end
    return text or "-"


@verb
def fill(place, name, count):
    """Makes a file of so many bytes `x`."""
    place.call("write_path", place.path(name), b"x" * number(count))


@verb
def sync(place, handle):
    on(place, handle, "fsync")


@verb
def blocks(place, name):
    """`none`, `some` (fewer than the size takes), or `all`."""
    found = place.lstat(name)
    return "none" if not found.st_blocks else "some" if found.st_blocks * 512 < found.st_size else "all"


# ---- rights ----------------------------------------------------------------------------------------------------------

@verb
def may(place, name):
    """What access(2) says: `r-x`."""
    bits = ((os.R_OK, "r"), (os.W_OK, "w"), (os.X_OK, "x"))
    return "".join(letter if place.call("access", place.path(name), bit) else "-" for bit, letter in bits)


@verb
def access(place, name, bits="0", *flags):
    """access(2) itself, or faccessat(2) with a flag."""
    place.call("libc_call", "faccessat", AT_FDCWD, os.fsencode(place.path(name)), int(bits),
               sum({"eaccess": 0x200, "nofollow": NOFOLLOW}[flag] for flag in flags))


# ---- extended attributes ---------------------------------------------------------------------------------------------

FLAGS = {"create": 1, "replace": 2, "both": 3}


def long(text):
    """`x*N` is N times x, `-` nothing."""
    letter, star, count = text.partition("*")
    return letter * int(count) if star else "" if text == "-" else text


def attribute_name(text):
    prefix, dot, rest = text.partition(".")
    return prefix + dot + long(rest) if "*" in rest else text


@verb
def setx(place, name, attribute, value="v", *flags):
    arguments = attribute_name(attribute), long(value).encode(), sum(FLAGS[flag] for flag in flags if flag in FLAGS)
    if is_kept(name):
        on(place, name, "setxattr", *arguments)
    else:
        place.call("setxattr", place.path(name), *arguments, follow_symlinks="nofollow" not in flags)


@verb
def getx(place, name, attribute, *flags):
    if is_kept(name):
        return on(place, name, "getxattr", attribute_name(attribute)).decode() or "-"
    value = place.call("getxattr", place.path(name), attribute_name(attribute), follow_symlinks="nofollow" not in flags)
    return f"{chr(value[0])}*{len(value)}" if len(value) >= 80 else value.decode() or "-"


@verb
def getx_size(place, name, attribute, size):
    """getxattr(2) with a buffer of that size: the length."""
    buffer = bytes(int(size) + 2)
    return place.call("libc_call", "getxattr", os.fsencode(place.path(name)), attribute.encode(), buffer, int(size))


@verb
def listx_size(place, name, size):
    buffer = bytes(int(size) + 2)
    return place.call("libc_call", "listxattr", os.fsencode(place.path(name)), buffer, int(size))


@verb
def rmx(place, name, attribute, *flags):
    if is_kept(name):
        on(place, name, "removexattr", attribute_name(attribute))
    else:
        place.call("removexattr", place.path(name), attribute_name(attribute), follow_symlinks="nofollow" not in flags)


@verb
def listx(place, name, *flags):
    if is_kept(name):
        found = on(place, name, "listxattr")
    else:
        found = place.call("listxattr", place.path(name), follow_symlinks="nofollow" not in flags)
    return ",".join(sorted(each for each in found if not each.startswith("security.selinux"))) or "-"

"""A client of test_supervisor.py: random calls on names of its own, and what each of them must answer.

supervisor_worker.py ROOT SEED SECONDS; prints {"counts": {call: n}, "wrong": [...]} at its end."""
import collections
import errno
import json
import mmap
import os
import random
import sys
import time

root, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
rng = random.Random(seed)
home = f"{root}/c{seed}"
control = f"{root}/.promisefs"
counts = collections.Counter()
wrong = []
files, dirs = {}, {"": True}     # what there is: content by key
readers, writers = [], []        # (fd, content), [fd, key, content so far, object]
attributes = collections.defaultdict(dict)
begun = time.monotonic()


def name(code):
    return errno.errorcode.get(code, str(code))


def check(what, got, wanted):
    counts[what.split()[0]] += 1
    if got != wanted:
        wrong.append(f"{time.monotonic() - begun:.2f} s, client {seed}: {what}: {str(got)[:80]} instead of {str(wanted)[:80]}")


def do(what, call, *args, wanted=None, fails=None, **kwargs):
    """One call: its result, or None if it failed."""
    try:
        result = call(*args, **kwargs)
    except OSError as error:
        check(what, name(error.errno), name(fails) if fails else "success")
        return None
    check(what, "success", name(fails) if fails else "success")
    return result


def path(key):
    return f"{home}/{key}"


def content():
    return rng.randbytes(rng.choice([0, 1, 10, 500, 5000, 70_000, 300_000]) or 1) if rng.random() < .95 else b""


def some(table):
    return rng.choice(sorted(table)) if table else None


def new_key():
    folder = some(dirs)
    return (folder + "/" if folder else "") + f"k{rng.randrange(30)}"


def is_written(key):
    return any(writer[1] == key for writer in writers)


def put():
    key, data = new_key(), content()
    if is_written(key) or key in dirs:
        return
    fd = do(f"open-w {key}", os.open, path(key), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    if fd is None:
        return
    half = len(data) // 2
    do(f"write {key}", os.write, fd, data[:half])
    do(f"write {key}", os.write, fd, data[half:])
    do(f"close {key}", os.close, fd)
    if key not in files:
        attributes.pop(key, None)
    files[key] = data


def begin_write():
    key = new_key()
    if is_written(key) or key in dirs or len(writers) > 4:
        return
    keep = rng.random() < .4
    fd = do(f"open-w {key}", os.open, path(key), os.O_WRONLY | os.O_CREAT | (0 if keep else os.O_TRUNC), 0o644)
    if fd is not None:
        if key not in files:
            attributes.pop(key, None)
        writers.append([fd, key, bytearray(files.get(key, b"") if keep else b""), key in files])


def go_on_writing():
    if writers:
        fd, key, data, _ = writer = rng.choice(writers)
        part, at = content()[:20_000], rng.randrange(len(data) + 1)
        do(f"pwrite {key}", os.pwrite, fd, part, at)
        writer[2][at:at + len(part)] = part


def sync():
    if writers:
        fd, key, _, _ = rng.choice(writers)
        do(f"fsync {key}", os.fsync, fd)


def end_write():
    if writers:
        fd, key, data, _ = writers.pop(rng.randrange(len(writers)))
        do(f"close {key}", os.close, fd)
        files[key] = bytes(data)


def get():
    key = some(files)
    if key is None or is_written(key) and rng.random() < 1:
        return
    try:
        with open(path(key), "rb", buffering=0) as file:
            data = file.readall()
        check(f"get {key}", data == files[key], True)
    except OSError as error:
        check(f"get {key}", name(error.errno), "success")


def get_nothing():
    do("open-nothing", os.open, path(f"nothing{rng.randrange(5)}"), os.O_RDONLY, fails=errno.ENOENT)


def begin_read():
    key = some(files)
    if key is None or is_written(key) or len(readers) > 8:
        return
    fd = do(f"open-r {key}", os.open, path(key), os.O_RDONLY)
    if fd is not None:
        readers.append((fd, files[key], key))


def read_on():
    if readers:
        fd, data, key = rng.choice(readers)
        at = rng.randrange(len(data) + 1)
        got = do(f"pread {key}", os.pread, fd, 50_000, at)
        if got is not None:
            check(f"pread-bytes {key}", got == data[at:at + 50_000], True)
        st = do(f"fstat {key}", os.fstat, fd)
        if st is not None:
            check(f"fstat-size {key}", st.st_size, len(data))


def map_it():
    if readers:
        fd, data, key = rng.choice(readers)
        if data:
            try:
                with mmap.mmap(fd, len(data), prot=mmap.PROT_READ) as mapped:
                    check(f"mmap {key}", mapped[:] == data, True)
            except OSError as error:
                check(f"mmap {key}", name(error.errno), "success")


def end_read():
    if readers:
        fd, _, key = readers.pop(rng.randrange(len(readers)))
        do(f"close-r {key}", os.close, fd)


def unlink():
    key = some(files)
    if key and not is_written(key):
        do(f"unlink {key}", os.unlink, path(key))
        del files[key]
        attributes.pop(key, None)


def rename():
    key, to = some(files), new_key()
    if key and not is_written(key) and not is_written(to) and to not in dirs and key != to:
        do(f"rename {key} {to}", os.rename, path(key), path(to))
        files[to] = files.pop(key)
        attributes.pop(to, None)
        if key in attributes:
            attributes[to] = attributes.pop(key)


def mkdir():
    key = f"d{rng.randrange(6)}"
    do(f"mkdir {key}", os.mkdir, path(key), fails=errno.EEXIST if key in dirs else None)
    dirs[key] = True


def rmdir():
    key = f"d{rng.randrange(6)}"
    full = any(other.startswith(key + "/") for other in [*files, *(writer[1] for writer in writers)])
    do(f"rmdir {key}", os.rmdir, path(key), fails=errno.ENOENT if key not in dirs else errno.ENOTEMPTY if full else None)
    if not full:
        dirs.pop(key, None)


def set_attribute():
    key = some(files)
    if key and not is_written(key):
        value = b"%d" % rng.randrange(1000)
        flags = os.XATTR_REPLACE if "user.a" in attributes[key] else os.XATTR_CREATE
        do(f"setxattr {key}", os.setxattr, path(key), "user.a", value, flags)
        attributes[key]["user.a"] = value


def get_attribute():
    key = some(files)
    if key and not is_written(key):
        wanted = attributes[key].get("user.a")
        got = do(f"getxattr {key}", os.getxattr, path(key), "user.a", fails=None if wanted is not None else errno.ENODATA)
        check(f"getxattr-value {key}", got, wanted)


def drop_attribute():
    key = some(files)
    if key and not is_written(key):
        there = "user.a" in attributes[key]
        do(f"removexattr {key}", os.removexattr, path(key), "user.a", fails=None if there else errno.ENODATA)
        attributes[key].pop("user.a", None)


def listing():
    folder = some(dirs)
    got = do(f"listdir {folder}", os.listdir, path(folder))
    prefix = folder + "/" if folder else ""
    names = [*files, *dirs, *(writer[1] for writer in writers)]
    wanted = {key[len(prefix):] for key in names if key.startswith(prefix) and key[len(prefix):] and "/" not in key[len(prefix):]}
    if got is not None:
        check(f"listdir-names {folder}", sorted(got), sorted(wanted))


def truncate():
    key = some(files)
    if key and not is_written(key):
        size = rng.randrange(len(files[key]) + 100)
        do(f"truncate {key}", os.truncate, path(key), size)
        files[key] = files[key][:size].ljust(size, b"\0")


def append():
    key = some(files)
    if key and not is_written(key):
        fd = do(f"open-a {key}", os.open, path(key), os.O_WRONLY | os.O_APPEND)
        if fd is not None:
            data = content()[:1000]
            do(f"append {key}", os.write, fd, data)
            do(f"close-a {key}", os.close, fd)
            files[key] += data


def future():
    """Declared, waited for by a child, set."""
    key = f"future{rng.randrange(1 << 40)}"
    fd = do(f"declare {key}", os.open, f"{control}/future/c{seed}/{key}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    if fd is None:
        return
    do(f"close-declare {key}", os.close, fd)
    data = content()
    child = os.fork()
    if child == 0:
        try:
            with open(path(key), "rb", buffering=0) as file:
                os._exit(0 if file.readall() == data else 2)
        except OSError as error:
            os._exit(100 + error.errno)
    time.sleep(rng.random() * .3)
    fd = do(f"open-set {key}", os.open, path(key), os.O_WRONLY)
    if fd is None:
        os.kill(child, 9)
    else:
        do(f"write-set {key}", os.write, fd, data)
        do(f"close-set {key}", os.close, fd)
    status = os.waitpid(child, 0)[1]
    check(f"wait {key}", os.waitstatus_to_exitcode(status), 0)
    do(f"unlink {key}", os.unlink, path(key))


def once():
    key, data = f"once{rng.randrange(1 << 40)}", content()
    fd = do(f"open-w {key}", os.open, path(key), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    if fd is None:
        return
    do(f"write {key}", os.write, fd, data)
    do(f"close {key}", os.close, fd)
    fd = do(f"open-once {key}", os.open, f"{control}/once/c{seed}/{key}", os.O_RDONLY)
    if fd is not None:
        got = do(f"read-once {key}", os.pread, fd, len(data) + 1, 0)
        check(f"read-once-bytes {key}", got == data, True)
        do(f"open-once-again {key}", os.open, f"{control}/once/c{seed}/{key}", os.O_RDONLY, fails=errno.ENOENT)
        do(f"close-once {key}", os.close, fd)


def lifetime():
    life, key = f"{control}/lifetimes/c{seed}-{rng.randrange(1 << 40)}", f"member{rng.randrange(1 << 40)}"
    fd = do(f"open-w {key}", os.open, path(key), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    if fd is None:
        return
    do(f"close {key}", os.close, fd)
    do("mkdir-lifetime", os.mkdir, life)
    do("link-lifetime", os.link, path(key), f"{life}/m")
    do("rmdir-lifetime", os.rmdir, life)
    do(f"stat-evicted {key}", os.stat, path(key), fails=errno.ENOENT)


def borrow():
    key = some(files)
    if key is None or is_written(key):
        return
    handle = f"{control}/ref/c{seed}-{rng.randrange(1 << 40)}"
    do(f"borrow {key}", os.link, path(key), handle)
    do(f"unlink-borrowed {key}", os.unlink, path(key), fails=errno.EBUSY)
    fd = do(f"open-ref {key}", os.open, handle, os.O_RDONLY)
    if fd is not None:
        got = do(f"read-ref {key}", os.pread, fd, len(files[key]) + 1, 0)
        check(f"read-ref-bytes {key}", got == files[key], True)
        do(f"close-ref {key}", os.close, fd)
    do(f"unlink-ref {key}", os.unlink, handle)


def link():
    key, to = some(files), f"l{rng.randrange(1 << 40)}"
    if key and not is_written(key):
        do(f"link {key}", os.link, path(key), path(to))
        st = do(f"stat {to}", os.stat, path(to))
        if st is not None:
            check(f"stat-nlink {to}", (st.st_nlink, st.st_size), (2, len(files[key])))
        do(f"unlink-link {to}", os.unlink, path(to))


def symlink():
    to = f"s{rng.randrange(1 << 40)}"
    do(f"symlink {to}", os.symlink, "target", path(to))
    check(f"readlink {to}", do("readlink", os.readlink, path(to)), "target")
    do(f"unlink-symlink {to}", os.unlink, path(to))


CALLS = {put: 10, begin_write: 4, go_on_writing: 8, end_write: 4, sync: 1, get: 10, get_nothing: 2, begin_read: 4, read_on: 8,
         map_it: 2, end_read: 4, unlink: 3, rename: 4, mkdir: 3, rmdir: 2, set_attribute: 3, get_attribute: 3,
         drop_attribute: 1, listing: 3, truncate: 2, append: 4, future: .5, once: 2, lifetime: 1, borrow: 2, link: 2,
         symlink: 1}
only = sys.argv[4].split(",") if len(sys.argv) > 4 else []
chosen = {call: weight for call, weight in CALLS.items() if not only or call.__name__ in only}
os.mkdir(home)
while time.monotonic() - begun < seconds and len(wrong) < 20:
    rng.choices(list(chosen), chosen.values())[0]()
while writers:
    end_write()
while readers:
    end_read()
for key in sorted(files):
    with open(path(key), "rb") as file:
        check(f"at-end {key}", file.read() == files[key], True)
listing()
print(json.dumps({"counts": counts, "wrong": wrong}))

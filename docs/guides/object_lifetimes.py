#!/usr/bin/env python3
"""When objects go away, with ordinary files: one-time objects, lifetimes, ownership and borrowing.

usage: object_lifetimes.py MOUNTPOINT
"""
import contextlib
import errno
import multiprocessing
import os
import pathlib
import shutil
import sys
import time

mount = pathlib.Path(sys.argv[1])
control = mount / ".promisefs"
work = mount / "guide"


@contextlib.contextmanager
def fails(number):
    try:
        yield
    except OSError as error:
        assert error.errno == number, error
    else:
        raise AssertionError(f"expected {errno.errorcode[number]}")


@contextlib.contextmanager
def lifetime(name):
    """ContextLifetime: what is linked into the directory is evicted at the end."""
    path = control / "lifetimes" / name
    path.mkdir()
    try:
        yield path
    finally:
        path.rmdir()


def gone(path):
    end = time.monotonic() + 10
    while path.exists():
        assert time.monotonic() < end, f"{path} is still there"
        time.sleep(0.01)


def one_time():
    print("== one-time objects")
    (work / "message").write_text("read me once")
    assert (control / "once/guide/message").read_text() == "read me once"
    gone(work / "message")
    with fails(errno.ENOENT):
        open(control / "once/guide/message")
    (work / "ephemeral").write_text("the key itself is so")
    os.setxattr(work / "ephemeral", "user.promisefs.evict", b"1")
    assert (work / "ephemeral").stat().st_size == 20  # looking does not take it
    assert (work / "ephemeral").read_text() == "the key itself is so"
    with fails(errno.ENOENT):
        open(work / "ephemeral")


def context_lifetime():
    print("== a lifetime: what is in it goes with it")
    with lifetime("guide-py") as scope:
        for n in range(3):
            (work / f"part-{n}").write_text(f"part {n}")
            os.link(work / f"part-{n}", scope / f"part-{n}")
        assert len(os.listdir(scope)) == 3
    assert not os.listdir(work)


def lease_lifetime():
    print("== a lease: the lifetime ends by itself")
    scope = control / "lifetimes/guide-py-lease"
    scope.mkdir()
    os.setxattr(scope, "user.promisefs.lease", b"300ms")
    (work / "leased").write_text("value")
    os.link(work / "leased", scope / "leased")
    os.setxattr(scope, "user.promisefs.lease", b"+200ms")  # extend(0.2)
    assert (work / "leased").read_text() == "value"
    gone(work / "leased")
    gone(scope)


def make_scratch():
    (work / "scratch").write_text("for as long as this process lives")
    os.link(work / "scratch", control / "lifetimes/self/scratch")
    os._exit(1)  # no atexit handler is needed


def static_lifetime():
    print("== a static lifetime: bound to a process, however that ends")
    process = multiprocessing.Process(target=make_scratch)
    process.start()
    process.join()
    gone(work / "scratch")


def ownership():
    print("== ownership: one owner, and many who read or one who writes")
    own, ref, mut = control / "own", control / "ref", control / "mut"
    (own / "list").write_text("1 2 3")
    os.link(own / "list", ref / "reader-1")
    os.link(own / "list", ref / "reader-2")
    assert (ref / "reader-1").read_text() == "1 2 3"
    with fails(errno.EBUSY):
        os.link(own / "list", mut / "writer")
    with fails(errno.EBUSY):
        (own / "list").unlink()
    with fails(errno.EPERM):
        os.link(ref / "reader-1", ref / "reader-3")  # only owners are borrowed
    (ref / "reader-1").unlink()
    (ref / "reader-2").unlink()
    os.link(own / "list", mut / "writer")
    with fails(errno.EBUSY):
        open(own / "list")
    (mut / "writer").write_text("1 2 3 4")
    (mut / "writer").unlink()
    assert (own / "list").read_text() == "1 2 3 4"
    shutil.copy(own / "list", own / "clone")
    (own / "clone").rename(work / "list")
    (own / "list").unlink()
    assert (work / "list").read_text() == "1 2 3 4"


def add(path):
    sys.exit(sum(int(word) for word in path.read_text().split()))


def submit():
    """A borrow that is dropped when the process ends that works with it, whatever happens to that."""
    print("== a borrow for as long as a process lives")
    handle = control / "ref/task"
    os.link(work / "list", handle)
    process = multiprocessing.Process(target=add, args=(handle,))
    process.start()
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it may be done already
        os.setxattr(handle, "user.promisefs.pid", str(process.pid).encode())
    process.join()
    assert process.exitcode == 10
    with contextlib.suppress(FileNotFoundError):
        handle.unlink()
    gone(handle)


if __name__ == "__main__":
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for part in (one_time, context_lifetime, lease_lifetime, static_lifetime, ownership, submit):
        part()
    shutil.rmtree(work)
    print("all as it should be")

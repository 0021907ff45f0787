"""Checks of the Python module; see python_rig.py."""
import asyncio
import concurrent.futures
import copy
import datetime
import doctest
import errno
import gc
import importlib
import importlib.util
import logging
import multiprocessing
import operator
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

from python_rig import (Child, Skip, alarm, descriptors, eventually, is_waited_for, main, raises,
                        waits)

import promisefs
from promisefs import _drafts, _watcher
from promisefs import proxy as proxies

CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def have_numpy():
    try:
        import numpy
    except ImportError:
        raise Skip("python3-numpy is not installed") from None
    return numpy


def entries(store, kind):
    return os.listdir(store._control(kind))


# ---- values ----------------------------------------------------------------------------------------------------------

@check
def values_come_back(store):
    for value in (b"", b"bytes", b"\x80\x05N.", b"\x93NUMPY?", bytearray(b"x"), "text", None, True, 7, [1, {"a": (2,)}],
                  os.urandom(3_000_001), "x" * 65_536, b"y" * 65_535, b"z" * 65_536):
        key = store.put(value)
        again = store.get(key)
        assert again == value and type(again) is type(value), repr(value)[:40]
    keys = store.put_batch([1, 2, 3])
    assert store.get_batch([*keys, "missing"], "default") == [1, 2, 3, "default"]
    assert store.get("missing") is None and not store.exists("missing") and store.exists(keys[0])
    store.evict(keys[0])
    store.evict(keys[0])
    assert not store.exists(keys[0]) and store.get(keys[0]) is None


@check
def keys_are_paths(store):
    assert store.put("new", "a/b/c") == "a/b/c" and store.get("a/b/c") == "new"
    store.put(b"replaced", "a/b/c")
    assert store.path("a/b/c").read_bytes() == b"replaced"
    store.path("other").write_bytes(b"of another program")
    assert store.get("other") == b"of another program"
    with store.open("file", "w") as file:
        file.write("text")
    assert store.get("file") == b"text" and store.attribute("file", "state") == "ready"
    assert store.attribute("file", "deadline") is None
    for key in ("", "/etc/passwd", "../x", "a/../../x", ".promisefs/own/x"):
        with raises(ValueError):
            store.put(b"", key)
    below = promisefs.Store(store.path("a"))
    assert below.get("b/c") == b"replaced" and below != store
    assert pickle.loads(pickle.dumps(below)) == below and len(pickle.dumps(below)) < 300


@check
def not_a_mount(store):
    missing = os.path.join(os.path.dirname(store.mountpoint), "missing/deep")
    for directory in ("/", missing):
        for kind in (promisefs.Store, promisefs.PromiseConnector):
            with raises(OSError, errno.ENODEV):
                kind(directory)
    assert not os.path.exists(os.path.dirname(missing)), "nothing is made outside a mount"
    assert promisefs.Store(os.path.join(store.directory, "a/b")).put(b"x", "k") and store.get("a/b/k") == b"x"
    with raises(ValueError):
        promisefs.Store(store.directory, serializer="yaml")


@check
def a_symbolic_link_to_a_mount(store):
    with tempfile.TemporaryDirectory() as directory:
        link = os.path.join(directory, "link")
        os.symlink(store.directory, link)
        linked = promisefs.Store(link)
        assert linked == store and linked.mountpoint == store.mountpoint
        key = linked.put("value")
        assert store.get(key) == "value"
        future = promisefs.Store(os.path.join(link, "below")).future("key")
        store.put(1, "below/key")
        assert future.result(10) == 1
        connector = promisefs.PromiseConnector(link)
        assert connector.get(connector.put(b"bytes")) == b"bytes"


@check
def serializers(store):
    raw = promisefs.Store(store.directory, serializer="bytes")
    key = raw.put(memoryview(b"\x80\x05N."))
    assert raw.get(key) == b"\x80\x05N." == store.path(key).read_bytes() and store.get(key) is None
    view = promisefs.Store(store.directory, serializer="view")
    mapped = view.get(raw.put(b"m" * 100_000))
    assert type(mapped) is memoryview and mapped.readonly and mapped == b"m" * 100_000
    assert view.get(raw.put(b"")) == b""
    assert promisefs.Store(store.directory, serializer="pickle").get(store.put([1])) == [1]
    upper = promisefs.Store(store.directory, serializer=promisefs.Serializer(
        lambda text: [text.upper().encode()], lambda fd: os.read(fd, 100).decode()))
    assert upper.get(upper.put("text")) == "TEXT"


def own_memory():
    """Bytes of this process that are not pages of files."""
    return int(open("/proc/self/status").read().partition("RssAnon:")[2].split()[0]) << 10


@check
def numpy_without_a_copy(store):
    numpy = have_numpy()
    arrays = promisefs.Store(store.directory, serializer="numpy")
    plain = numpy.arange(24.0).reshape(4, 6)
    for value in (plain, plain.T, plain[::2, 1:], numpy.asfortranarray(plain), numpy.array(5), numpy.zeros((0, 3)),
                  numpy.array(["2020-01-01"], "M8[D]"), numpy.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])):
        for one in (store, arrays):
            key = one.put(value)
            again = one.get(key)
            assert again.shape == value.shape and again.dtype == value.dtype and numpy.array_equal(again, value)
            assert numpy.array_equal(numpy.load(one.path(key)), value), "it is an ordinary .npy file"
    key = arrays.put(plain)
    mapped = arrays.get(key)
    assert type(mapped) is numpy.memmap and f"/{key}" in open("/proc/self/maps").read()
    mapped[0, 0] = 99
    assert arrays.get(key)[0, 0] == 0, "a change is this process's own"
    arrays.put(plain + 1, key)
    assert mapped[1, 1] == plain[1, 1] and arrays.get(key)[1, 1] == plain[1, 1] + 1
    future = arrays.future()
    threading.Timer(0.02, future.set_result, [plain]).start()
    assert numpy.array_equal(future.result(10), plain)
    proxy = store.proxy(plain)
    assert numpy.sum(proxy) == plain.sum() and numpy.array_equal(proxy + plain, plain + proxy)
    with raises(TypeError):
        arrays.put(numpy.array([object()]))
    large = numpy.arange(8 << 20)
    key, before = arrays.put(large), own_memory()
    again = arrays.get(key)
    arrays.put(large)
    assert again[::512].sum() == large[::512].sum() and own_memory() - before < 8 << 20, "64 MiB were not copied"


@check
def nothing_torn_is_published(store):
    def dump(value):
        yield b"half of it"
        if value != b"good":
            raise value
        yield b" and the rest"

    torn = promisefs.Store(store.directory, serializer=promisefs.Serializer(dump, lambda fd: os.read(fd, 100)))
    torn.put(b"good", "old")
    for error in (ValueError("no"), KeyboardInterrupt()):
        for key in ("old", "new"):
            with raises(type(error)):
                torn.put(error, key)
        eventually(lambda: store.attribute("old", "state") == "ready")
        assert torn.get("old") == b"half of it and the rest" and not store.exists("new")
    future = torn.future()
    with raises(ValueError):
        future.set_result(ValueError("no"))
    with raises(promisefs.BrokenPromise, errno.EOWNERDEAD):
        future.result(10)
    future.set_result(b"good")
    assert future.result(10) == b"half of it and the rest"
    assert subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True).stdout.count(b"\n") <= 1


@check
def nothing_torn_is_published_without_help(store):
    """Neither a program nor a child is to be had: the error is that of the value, and nothing is published."""
    def dump(value):
        yield b"half of it"
        raise value

    torn = promisefs.Store(store.directory, serializer=promisefs.Serializer(dump, lambda fd: os.read(fd, 100)))
    store.put(b"old", "old")
    before, path, fork = descriptors(), os.environ["PATH"], os.fork
    os.environ["PATH"] = "/nonexistent"
    try:
        for key in ("old", "new"):
            with raises(ValueError):
                torn.put(ValueError("no"), key)
        future = torn.future()
        with raises(ValueError):
            future.set_result(ValueError("no"))
        with raises(promisefs.BrokenPromise, errno.EOWNERDEAD):
            future.result(10)
        assert store.get("old", timeout=10) == b"old" and not store.exists("new") and descriptors() == before

        def none():
            raise BlockingIOError(errno.EAGAIN, "no more processes")

        os.fork = none
        with raises(ValueError):
            torn.put(ValueError("no"), "newer")
        assert store.attribute("newer", "state") == "writing", "nobody reads the half of it"
    finally:
        os.environ["PATH"], os.fork = path, fork


@check
def many_threads_that_fail(store):
    def dump(value):
        yield b"half of it"
        if value % 2:
            raise ValueError
        yield b" and the rest"

    torn = promisefs.Store(store.directory, serializer=promisefs.Serializer(dump, lambda fd: os.read(fd, 100)))

    def put(number):
        try:
            torn.put(number, str(number))
        except ValueError:
            pass

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(put, range(160)))
    eventually(lambda: "writing" not in {promisefs.Future(store, name).state() for name in os.listdir(store)})
    assert sorted(map(int, os.listdir(store))) == list(range(0, 160, 2)), os.listdir(store)


def slow_store(store):
    """A store that sets `half` when it has written that much of a value, and waits there for `go_on`."""
    half, go_on = threading.Event(), threading.Event()

    def dump(value):
        yield b"half"
        half.set()
        assert go_on.wait(20)
        yield b" and half"

    slow = promisefs.Store(store.directory, serializer=promisefs.Serializer(dump, lambda fd: os.read(fd, 100)))
    return slow, half, go_on


@check
def threads_read_no_drafts(store):
    """A process may read its own drafts; the module's other threads must not."""
    slow, half, go_on = slow_store(store)
    pool = concurrent.futures.ThreadPoolExecutor(10)
    future = slow.future()

    def set_result():
        future.set_result(1)

    for write, path, read in ((set_result, future.path, future.result),
                              (lambda: slow.put(1, "key"), "key", lambda *_, **__: slow.get("key"))):
        half.clear(), go_on.clear()
        early = []
        if write is set_result:
            early = [pool.submit(read), pool.submit(read, timeout=20)]
            is_waited_for(future, 1)
        writer = pool.submit(write)
        assert half.wait(20)
        readers = [pool.submit(read), pool.submit(read, timeout=20), pool.submit(slow.proxy_from_key(
            os.path.basename(path)).__len__)]
        called = []
        key = os.path.basename(path)
        with raises(BlockingIOError):
            slow.get(key, block=False)
        with raises(TimeoutError):
            slow.get(key, timeout=0.05)
        pool.submit(slow.attach(key).add_done_callback, lambda one: called.append(one.result()))
        time.sleep(0.05)
        assert not any(reader.done() for reader in readers + early) and not called
        go_on.set()
        writer.result(20)
        assert [reader.result(20) for reader in early] in ([b"half and half"] * 2, [])
        assert [reader.result(20) for reader in readers] == [b"half and half", b"half and half", 13]
        eventually(lambda: called == [b"half and half"])


@check
def a_child_of_fork_has_no_drafts(store):
    """What a thread writes while another one forks is published when it is written, and whole."""
    slow, half, go_on = slow_store(store)
    os.mkdir(store.path("directory"))
    os.symlink("directory", store.path("link"))
    future = slow.future()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    for write, key in ((lambda: slow.put(1, "plain"), "plain"), (lambda: slow.put(1, "link//name"), "directory/name"),
                       (lambda: future.set_result(1), future.key)):
        half.clear(), go_on.clear()
        writing = pool.submit(write)
        assert half.wait(20)
        ready, end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(end, b"x")
            time.sleep(600)
            os._exit(1)
        os.read(ready, 1)
        assert store.attribute(key, "state") == "writing"
        go_on.set()
        writing.result(20)
        try:
            assert slow.get(key, timeout=5) == b"half and half"
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert slow.get(key, timeout=5) == b"half and half" and slow.attribute(key, "state") == "ready"


class Halves:
    """A store whose writers wait in the middle of a value."""

    def __init__(self, store):
        self.half, self.go_on = threading.Event(), threading.Event()
        self.store = promisefs.Store(store.directory, serializer=promisefs.Serializer(self.dump, self.load))
        self.pool = concurrent.futures.ThreadPoolExecutor(4)

    def dump(self, value):
        yield b"half"
        self.half.set()
        assert self.go_on.wait(20)
        if isinstance(value, Exception):
            raise value
        yield b" and half"

    def load(self, fd):
        return os.read(fd, 100)

    def write(self, function, *args):
        """Begin to write; the future of a thread that is in the middle of it."""
        self.half.clear(), self.go_on.clear()
        writing = self.pool.submit(function, *args)
        assert self.half.wait(20)
        return writing


@check
def a_thread_that_always_writes(store):
    """The others have their turn."""
    stop, reads = threading.Event(), []

    def write():
        while not stop.is_set():
            store.put(b"value", "key")

    store.put(b"value", "key")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        writing = pool.submit(write)
        try:
            for timeout in (None, 20):
                reads += [pool.submit(lambda: [store.get("key", timeout=timeout) for _ in range(20)]) for _ in range(3)]
                assert [read.result(15) for read in reads] == [[b"value"] * 20] * len(reads)
        finally:
            stop.set()
        writing.result(20)


@check
def a_writer_that_begins_while_somebody_opens(store):
    """Between the look whether a thread writes and the open is time for one that begins."""
    slow, open_file = Halves(store), os.open
    slow.go_on.set()
    slow.store.put(1, "old")
    reads = {"old": slow.store.get, "new": slow.store.get, "timeout": lambda key: slow.store.get(key, timeout=20),
             "once": lambda key: slow.store.get(key, once=True), "await": lambda key: slow.store.expect(key).result(),
             "asyncio": lambda key: asyncio.run(slow.store.expect(key)._wait()),
             "completed": lambda key: [one.result() for one in promisefs.as_completed([slow.store.expect(key)])][0],
             "proxy": lambda key: bytes(slow.store.proxy_from_key(key))}
    for key, read in reads.items():
        writings, reader = [], []

        def opens(path, flags, *args):
            if threading.get_ident() in reader and not flags & 3 and not writings and os.fspath(path).endswith(key):
                writings.append(slow.write(slow.store.put, 1, key))
                slow.pool.submit(lambda: time.sleep(0.03) or slow.go_on.set())
            return open_file(path, flags, *args)

        os.open = opens
        try:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                reader.append(pool.submit(threading.get_ident).result())
                got = pool.submit(read, key).result(20)
        finally:
            os.open = open_file
        assert got == b"half and half" and writings and writings[0].result(20) == key, (key, got)
        assert key != "once" or not store.path(key).exists(), "it was taken"
    assert descriptors() < 60


@check
def callbacks_do_not_wait_for_a_thread_that_writes(store):
    slow, called = Halves(store), []
    future = slow.store.future()
    writing = slow.write(future.set_result, 1)
    for _ in range(3):
        future.add_done_callback(lambda one: called.append((one.result(), threading.current_thread().name)))
    assert not called and not writing.done()
    slow.go_on.set()
    writing.result(20)
    eventually(lambda: called == [(b"half and half", "promisefs-callbacks")] * 3)
    broken = slow.store.future()
    writing = slow.write(broken.set_result, ValueError("no"))
    broken.add_done_callback(lambda one: called.append(one.exception()))
    slow.go_on.set()
    with raises(ValueError):
        writing.result(20)
    eventually(lambda: len(called) == 4 and called[3].errno == errno.EOWNERDEAD)
    assert not _drafts._afterwards and not _drafts._openers


@check
def a_fork_while_a_draft_is_opened(store):
    """The child of another thread closes it, whatever the path by which it was opened."""
    os.mkdir(store.path("directory"))
    os.symlink("directory", store.path("link"))
    future, target_of, children = store.future("link/future"), _drafts.target_of, []

    def fork_first(fd):
        _drafts.target_of = target_of
        children.append(os.fork())
        if children[-1] == 0:
            time.sleep(600)
        return target_of(fd)

    for write, key in ((lambda: store.put(b"value", "link/plain"), "directory/plain"),
                       (lambda: future.set_result(b"value"), "directory/future")):
        _drafts.target_of = fork_first
        try:
            write()
            assert store.get(key, timeout=5) == b"value" and store.attribute(key, "state") == "ready"
        finally:
            os.kill(children[0], signal.SIGKILL)
            os.waitpid(children.pop(), 0)
    assert not _drafts._forked


@check
def a_child_that_is_slow_to_forget(store):
    """It has what a thread is writing still open when that is done, and may be killed, or close it, any time later."""
    slow, parent, listdir = Halves(store), os.getpid(), os.listdir

    def listed(path):
        if os.getpid() != parent:
            time.sleep(0.3)
        return listdir(path)

    os.listdir = listed
    for killed in (True, False):
        future, broken = slow.store.future(), slow.store.future()
        for one, value in ((future, 1), (broken, ValueError("no"))):
            writing = slow.write(one.set_result, value)
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
            slow.go_on.set()
            if killed:
                time.sleep(0.05)
                os.kill(pid, signal.SIGKILL)
            concurrent.futures.wait([writing], 20)
            if not killed:
                eventually(lambda: one.done())
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert future.result(20) == b"half and half" and future.state() == "ready"
        assert broken.exception(20).errno == errno.EOWNERDEAD
    os.listdir = listdir
    assert not _drafts._pipes and len(_drafts._forked) <= 1


@check
def forks_and_threads(store):
    """Threads write, and fail to, while others fork, and kill the children at once."""
    def dump(value):
        yield b"half"
        if value < 0:
            raise ValueError
        yield b" and half"

    halves = promisefs.Store(store.directory, serializer=promisefs.Serializer(dump, lambda fd: os.read(fd, 100)))
    stop = threading.Event()

    def fork(number):
        while not stop.is_set():
            pid = os.fork()
            if pid == 0:
                time.sleep(0.01 * number)
                os._exit(0)
            os.kill(pid, signal.SIGKILL if number else 0)
            os.waitpid(pid, 0)

    def write(number):
        for value in (1, -1, 1):
            future = halves.future()
            try:
                future.set_result(value)
            except ValueError:
                pass
            if value > 0:
                assert future.result(20) == b"half and half"
            else:
                with raises(promisefs.BrokenPromise, errno.EOWNERDEAD):
                    future.result(20)

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        forking = [pool.submit(fork, number) for number in range(2)]
        try:
            list(pool.map(write, range(40)))
        finally:
            stop.set()
        for one in forking:
            one.result(20)
    assert not _drafts._writers and not _drafts._inside and not _drafts._forking and not _drafts._pipes


@check
def waiting_for_a_thread_that_writes(store):
    """It holds up neither an event loop nor who has no time."""
    slow, half, go_on = slow_store(store)
    pool = concurrent.futures.ThreadPoolExecutor(2)

    async def turn(future):
        waiting = [asyncio.ensure_future(future._wait()) for _ in range(2)]
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert not any(one.done() for one in waiting)
        go_on.set()
        return await asyncio.gather(*waiting)

    before = descriptors()
    for number in range(2):
        half.clear(), go_on.clear()
        future, ready, pending = slow.future(), store.future(), store.future()
        ready.set_result(1)
        writing = pool.submit(future.set_result, 1)
        assert half.wait(20)
        late = threading.Timer(10, go_on.set)
        late.start()
        if number == 0:
            assert promisefs.wait([future, ready, pending], 0) == ({ready}, {future, pending})
            assert promisefs.wait([future, ready], return_when="FIRST_COMPLETED") == ({ready}, {future})
            both = pool.submit(lambda: list(promisefs.as_completed([future, pending], 20)))
            is_waited_for(pending)
            pending.set_result(1)
            eventually(pending.done)
            assert not go_on.is_set() and not writing.done() and not both.done()
            go_on.set()
            assert both.result(20) == [pending, future]
        else:
            assert asyncio.run(turn(future)) == [b"half and half"] * 2
        late.cancel()
        writing.result(20)
        assert future.result(20) == b"half and half"
    eventually(lambda: descriptors() == before)


# ---- futures ---------------------------------------------------------------------------------------------------------

@check
def future_between_processes(store):
    future = store.future("answer")
    reader = Child("print(given[0].result(), given[1] + [4])", store, future, future.proxy())
    is_waited_for(future)
    assert future.state() == "pending" and not future.done() and not future.running()
    writer = Child("given[0].set_result([1, 2, 3])", store, future)
    assert reader.end() == "[1, 2, 3] [1, 2, 3, 4]" and writer.end() == ""
    assert future.done() and future.state() == "ready" and future.result() == [1, 2, 3] == store.get("answer")
    assert future == store.attach("answer") and len({future, store.attach("answer")}) == 1
    with raises(FileNotFoundError):
        store.attach("missing")
    with raises(FileExistsError):
        store.future("answer")


@check
def future_of_other_programs(store):
    future = store.future("dir/file")
    reader = subprocess.Popen(["cat", future], stdout=subprocess.PIPE)
    is_waited_for(future)
    subprocess.run(["cp", "/etc/hostname", future], check=True)
    assert reader.communicate(timeout=20)[0] == open("/etc/hostname", "rb").read() == future.result(10)


@check
def waiting_in_threads_takes_no_time(store):
    """Nobody who waits wakes up before there is something, nor afterwards more often than needed."""
    future, results = store.future(), []
    threads = [threading.Thread(target=lambda: results.append(future.result())) for _ in range(20)]
    for thread in threads:
        thread.start()
    is_waited_for(future, 20)

    def switches():
        total = 0
        for thread in threads:
            text = open(f"/proc/self/task/{thread.native_id}/status").read()
            total += int(text.partition("voluntary_ctxt_switches:")[2].split()[0])
        return total

    before = switches()
    time.sleep(0.3)
    assert switches() - before <= len(threads), "each may just have gone to sleep"
    future.set_result(7)
    for thread in threads:
        thread.join(20)
    assert results == [7] * 20


@check
def timeouts(store):
    future = store.future()
    before = time.monotonic()
    for timeout in (0, 0.05):
        with raises(TimeoutError):
            future.result(timeout)
        with raises(TimeoutError):
            future.exception(timeout)
        with raises(TimeoutError):
            store.get(future.key, timeout=timeout)
    assert 0.15 <= time.monotonic() - before < 5
    with raises(BlockingIOError):
        store.get(future.key, block=False)
    assert not store.exists(future.key) and store.get("missing", 1, timeout=1) == store.get("missing", 1, block=False)
    threading.Timer(0.05, future.set_result, ["now"]).start()
    assert future.result(20) == "now" == future.result(0) == store.get(future.key, block=False)
    assert future.exception() is None


@check
def what_has_settled_is_there_at_once(store):
    """Also when the thread that has closed it has not said so yet."""
    for number in range(300):
        future = store.future()
        thread = threading.Thread(target=future.set_result, args=[number])
        thread.start()
        assert future.result(20) == number == future.result(0) == store.get(future.key, block=False)
        thread.join()


@check
def set_once(store):
    future = store.future()
    other = pickle.loads(pickle.dumps(future))
    future.set_result(1)
    assert future.done()
    for one in (future, other):
        with raises(promisefs.InvalidStateError):
            one.set_result(2)
        with raises(promisefs.InvalidStateError):
            one.set_exception(ValueError())
        assert one.result(10) == 1 and not one.cancel() and not one.cancelled()
    store.evict(future.key)
    with raises(promisefs.InvalidStateError):
        other.set_result(2)
    assert not other.cancelled() and other.done()
    with raises(FileNotFoundError):
        other.result()


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("no")


@check
def exceptions_travel(store):
    future = store.future()
    reader = Child("try: given[0].result()\nexcept ValueError as e: print(repr(e), e.__cause__.errno)", store, future)
    is_waited_for(future)
    future.set_exception(ValueError("bad\ninput"))
    assert reader.end() == "ValueError('bad\\ninput') 5"
    assert future.done() and future.state() == "failed" and not future.cancelled() and not future.cancel()
    assert isinstance(future.exception(), ValueError)
    with raises(ValueError):
        future.proxy() + 1
    assert store.attribute(future.key, "error") == "EIO: ValueError: bad input"
    with raises(OSError, errno.EIO):
        open(future).close()
    future.set_result("a second attempt")
    assert future.result(10) == "a second attempt" and future.exception() is None

    for exception, number, reason in ((Unpicklable("x"), errno.EIO, "Unpicklable: x"),
                                      (OSError(errno.ENOENT, "no input"), errno.ENOENT, "no input"),
                                      (TimeoutError("late"), errno.EIO, "TimeoutError: late")):
        plain = promisefs.Store(store.directory, serializer="bytes").future()
        plain.set_exception(exception)
        for function in (plain.result, lambda: plain.result(10), lambda: plain.store.get(plain.key)):
            with raises(promisefs.BrokenPromise, number) as caught:
                function()
            assert caught[0].reason == reason and caught[0].filename == plain.path
        assert type(plain.exception(1)) is promisefs.BrokenPromise
    future = store.future()
    future.set_exception(FileNotFoundError(errno.ENOENT, "gone"))
    with raises(FileNotFoundError):
        future.result(10)


@check
def mapped_values_that_are_not_there(store):
    for name in ("view", *(("numpy",) if importlib.util.find_spec("numpy") else ())):
        mapped = promisefs.Store(store.directory, serializer=name)
        failed, cancelled, pending = (mapped.future() for _ in range(3))

        async def wait_for(future):
            return await future

        def functions(future):
            return future.result, lambda: future.result(10), lambda: asyncio.run(wait_for(future))

        failed.set_exception(OSError(errno.ENOSPC, "no room"))
        for function in functions(failed):
            with raises(promisefs.BrokenPromise, errno.ENOSPC):
                function()
        with raises(BlockingIOError):
            mapped.get(pending.key, block=False)
        waiting = [concurrent.futures.ThreadPoolExecutor(1).submit(function) for function in functions(cancelled)]
        is_waited_for(cancelled, 3)
        cancelled.cancel()
        for one in waiting:
            with raises(promisefs.Cancelled):
                one.result(20)
        waiting = [concurrent.futures.ThreadPoolExecutor(1).submit(function) for function in functions(pending)]
        is_waited_for(pending, 3)
        value = b"value" * 20_000 if name == "view" else have_numpy().arange(10_000)
        pending.set_result(value)
        assert [bytes(one.result(20)) for one in waiting] == [bytes(value)] * 3


@check
def a_stale_exception_does_not_count(store):
    future = store.future()
    future.set_exception(ValueError("first"))
    assert store.future(future.key) == future and future.state() == "pending"
    child = Child("f = open(given[0], 'wb', buffering=0); f.write(b'torn'); os.kill(os.getpid(), 9)", store, future)
    assert child.process.wait(20) == -9
    with raises(promisefs.BrokenPromise, errno.EOWNERDEAD):
        future.result(10)


@check
def the_producer_is_killed(store):
    future = store.future()
    waiting = [concurrent.futures.ThreadPoolExecutor(1).submit(function)
               for function in (future.result, future.exception, lambda: future.result(20))]
    is_waited_for(future)
    child = Child("f = open(given[0], 'wb', buffering=0); f.write(b'torn'); os.kill(os.getpid(), 9)", store, future)
    child.process.wait(20)
    for one in (waiting[0], waiting[2]):
        with raises(promisefs.BrokenPromise, errno.EOWNERDEAD):
            one.result(20)
    assert waiting[1].result(20).errno == errno.EOWNERDEAD


@check
def deadline(store):
    future = store.future(deadline=0.05)
    with raises(promisefs.BrokenPromise, errno.ETIMEDOUT) as caught:
        future.result()
    assert not isinstance(caught[0], TimeoutError)
    assert future.exception(0).errno == errno.ETIMEDOUT


@check
def cancel(store):
    future = store.future()
    pool = concurrent.futures.ThreadPoolExecutor(2)
    waiting = [pool.submit(future.result), pool.submit(future.result, 20)]
    is_waited_for(future)
    other = pickle.loads(pickle.dumps(future))
    assert future.cancel() and future.cancel() and other.cancel()
    for one in waiting:
        with raises(promisefs.Cancelled):
            one.result(20)
    for one in (future, other):
        assert one.cancelled() and one.done() and one.state() == "gone"
        for function in (one.result, one.exception, lambda: one.result(1)):
            with raises(concurrent.futures.CancelledError):
                function()
        with raises(promisefs.InvalidStateError):
            one.set_result(1)
    assert not store.exists(future.key)


@check
def cancelled_after_a_long_log(store):
    key = "often" * 40
    for _ in range(250):
        store.put(b"x", key)
    store.evict(key)
    with open(os.open(store._control("events"), os.O_RDWR), "r+b", buffering=0) as events:
        events.write(b"log " + os.fsencode(store._from_top(key)) + b"\n")
        assert sum(map(len, iter(lambda: events.read(4096), b""))) > 1 << 16
    assert not store.expect(key).cancelled()
    assert store.future(key).cancel()
    assert promisefs.Future(store, key).cancelled()


@check
def a_signal_ends_waiting(store):
    def handler(number, frame):
        raise KeyboardInterrupt

    future = store.future()
    for function in (future.result, lambda: future.result(20), future.proxy().__len__):
        with raises(KeyboardInterrupt):
            alarm(0.05, handler)
            function()
    alarm(0.05, lambda *_: future.set_result([1]))
    assert future.result() == [1], "a handler that returns does not end it"


@check
def asyncio_waits_for_many(store):
    """A thousand waits take a thousand descriptors, and no thread."""
    async def body():
        futures = [store.future() for _ in range(count // 5)]
        tasks = [asyncio.ensure_future(future._wait()) for future in futures for _ in range(4)]
        gathered = asyncio.gather(*futures)
        await asyncio.sleep(0.05)
        assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1 and not gathered.done()
        assert descriptors() >= before + count
        for number, future in enumerate(futures):
            future.set_result(number)
        assert await gathered == list(range(count // 5))
        assert sorted(await asyncio.gather(*tasks)) == sorted(4 * await asyncio.gather(*futures)), "what is set already"

    before, (soft, hard) = descriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = 1000 if hard == resource.RLIM_INFINITY or hard > 1100 else 200
    asyncio.run(body())
    assert descriptors() == before


@check
def asyncio_fails_and_cancels(store):
    async def body():
        future = store.future()
        with raises(asyncio.TimeoutError):
            await asyncio.wait_for(future, 0.02)
        loop = asyncio.get_running_loop()
        loop.call_later(0.02, future.set_exception, ValueError("bad"))
        with raises(ValueError):
            await future
        future = store.future()
        loop.call_later(0.02, future.cancel)
        with raises(promisefs.Cancelled):
            await future
        with raises(promisefs.Cancelled):
            await future
        future = store.expect("later")
        loop.call_later(0.02, store.put, "value", "later")
        assert await future == "value"

    before = descriptors()
    asyncio.run(body())
    assert descriptors() == before


@check
def callbacks(store):
    logging.getLogger("promisefs").setLevel(logging.CRITICAL)
    called = {}
    done = threading.Event()

    def call(future):
        called[future.key] = threading.current_thread().name
        if len(called) == 101:
            done.set()
        raise ValueError("is logged")

    futures = [store.future() for _ in range(100)]
    before = descriptors()
    for future in futures:
        future.add_done_callback(call)
    assert threading.active_count() == 2 and not called
    pid = os.fork()
    if pid == 0:
        left, its_own, called_here = descriptors(), store.future(), threading.Event()
        its_own.add_done_callback(lambda _: called_here.set())
        its_own.set_result(1)
        os._exit(0 if left <= before and called_here.wait(20) else 1)
    assert os.waitpid(pid, 0)[1] == 0, "a child has nothing of its parent's, and can have callbacks"
    for number, future in enumerate(futures):
        future.cancel() if number % 3 == 0 else future.set_exception(ValueError()) if number % 3 == 1 else (
            future.set_result(number))
    ready = store.future()
    ready.set_result(1)
    eventually(lambda: ready.state() == "ready")
    ready.add_done_callback(call)
    assert called[ready.key] == "MainThread"
    assert done.wait(20) and {called[future.key] for future in futures} == {"promisefs-callbacks"}
    eventually(lambda: descriptors() <= before + 3)


@check
def a_callback_that_exits(store):
    logging.getLogger("promisefs").setLevel(logging.CRITICAL)

    def leave(future):
        raise SystemExit

    first, second, called = store.future(), store.future(), threading.Event()
    first.add_done_callback(leave)
    second.add_done_callback(lambda _: called.set())
    first.set_result(1)
    eventually(lambda: not _watcher._watcher.calls or len(_watcher._watcher.calls) == 1)
    second.set_result(1)
    assert called.wait(5), "the other callbacks are called all the same"


@check
def wait_and_as_completed(store):
    futures = [store.future() for _ in range(5)]
    before = descriptors()
    order = []
    thread = threading.Thread(target=lambda: order.extend(promisefs.as_completed(futures, 20)))
    thread.start()
    for number in (3, 0, 4, 1, 2):
        futures[number].set_result(number)
        eventually(lambda: len(order) and order[-1] is futures[number])
    thread.join(20)
    assert [future.result() for future in order] == [3, 0, 4, 1, 2]
    late = store.future()
    assert promisefs.wait([late, futures[0]], 0.02) == ({futures[0]}, {late})
    assert promisefs.wait([late, futures[0]], return_when=concurrent.futures.FIRST_COMPLETED) == ({futures[0]}, {late})
    with raises(TimeoutError):
        list(promisefs.as_completed([late], 0.02))
    late.cancel()
    assert promisefs.wait([late, futures[1]])[1] == set()
    failed = store.future()
    failed.set_exception(ValueError())
    assert failed in promisefs.wait([store.future(), failed], return_when=concurrent.futures.FIRST_EXCEPTION)[0]
    assert descriptors() == before


@check
def too_few_descriptors(store):
    """What cannot be waited for has not settled."""
    futures = [store.future() for _ in range(40)]
    called = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = descriptors()
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 30, limits[1]))
    try:
        for function in (promisefs.wait, lambda some: list(promisefs.as_completed(some))):
            with raises(OSError, errno.EMFILE):
                function(futures)
        with raises(OSError, errno.EMFILE):
            for future in futures:
                future.add_done_callback(called.append)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not called


@check
def expect(store):
    future = store.expect("undeclared")
    assert not future.done() and future.state() == "gone"
    with raises(TimeoutError):
        future.result(0.02)
    child = Child("print(given[0].result())", store, future)
    eventually(lambda: waits(store, pid=child.pid))
    store.put("value", "undeclared")
    assert child.end() == "value" and future.done() and future.proxy() == "value"
    with raises(promisefs.InvalidStateError):
        future.set_result("again")
    future = store.expect("second")
    future.set_result("value")
    assert future.result(10) == "value"
    future = store.expect("third")
    future.set_exception(ValueError("no"))
    with raises(ValueError):
        store.attach("third").result(10)


@check
def one_time_futures(store):
    future = store.future(evict=True)
    first, second = future.proxy(), future.proxy()
    seen = threading.Event()
    future.add_done_callback(lambda _: seen.set())
    future.set_result([1])
    assert seen.wait(20) and future.exception() is None and future.done(), "looking takes nothing"
    assert first == [1] and first == [1]
    with raises(FileNotFoundError):
        len(second)
    assert not store.exists(future.key)


# ---- proxies ---------------------------------------------------------------------------------------------------------

class Thing:
    attribute = 1

    def __call__(self, *args, **kwargs):
        return args, kwargs

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.attribute = error


@check
def proxies_are_transparent(store):
    for value in (7, 2.5, [3, 1, 2], "text", {"a": 1}, b"bytes", (1, 2), {1, 2}):
        proxy = store.proxy(value)
        assert not promisefs.is_resolved(proxy) and promisefs.is_proxy(proxy) and type(proxy) is promisefs.Proxy
        assert isinstance(proxy, type(value)) and promisefs.is_resolved(proxy)
        assert proxy == value and value == proxy and not proxy != value and str(proxy) == str(value)
        assert repr(proxy) == repr(value) and bool(proxy) and promisefs.extract(proxy) == value
        assert f"{proxy}" == f"{value}" and dir(proxy) == dir(value)
    number = store.proxy(7)
    for function in (operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
                     operator.pow, operator.lshift, operator.and_, operator.or_, operator.xor, divmod, operator.lt,
                     operator.ge, round):
        assert function(number, 3) == function(7, 3), function
        assert function is round or function(3, number) == function(3, 7), function
    assert (-number, +number, abs(number), ~number, int(number), float(number), complex(number), hash(number),
            [*range(8)][number], number.bit_length()) == (-7, 7, 7, ~7, 7, 7.0, 7 + 0j, hash(7), 7, 3)
    number += 1
    assert number == 8 and type(number) is promisefs.Proxy
    items = store.proxy([3, 1, 2])
    items[0] = 5
    items += [9]
    items.append(10)
    del items[1]
    assert items == [5, 2, 9, 10] and 9 in items and len(items) == 4 and sorted(items) == [2, 5, 9, 10]
    assert list(reversed(items))[0] == 10 and items[1:] == [2, 9, 10] and [*items] == items and [1] + items
    assert sum(store.proxy([1, 2])) == 3 and max(store.proxy({"a": 1})) == "a"
    thing = store.proxy(Thing())
    assert thing(1, a=2) == ((1,), {"a": 2}) and thing.attribute == 1
    thing.attribute = 5
    with thing as same:
        assert same.attribute == 5
    assert thing.attribute == (None, None, None)
    del thing.attribute
    assert thing.attribute == 1
    with raises(AttributeError):
        store.proxy(1).nothing


@check
def proxies_are_lazy_and_travel(store):
    future = store.future()
    proxy = future.proxy()
    assert "pending" not in repr(proxy) and future.key in repr(proxy) and os.fspath(proxy) == future.path
    copies = [pickle.loads(pickle.dumps(proxy)), copy.copy(proxy), copy.deepcopy(proxy)]
    assert not promisefs.is_resolved(proxy) and len(pickle.dumps(proxy)) < 500
    future.set_result("x" * 100_000)
    assert copies == [proxy] * 3 and len(proxy) == 100_000
    assert len(pickle.dumps(proxy)) < 500, "the path travels, not the value"
    assert subprocess.run(["wc", "-c", store.proxy(b"12345")], capture_output=True).stdout.startswith(b"5 ")
    with raises(FileNotFoundError):
        str(store.proxy_from_key("missing"))
    with raises(ValueError):
        store.proxy(1, evict=True, lifetime=promisefs.StaticLifetime(store))
    assert promisefs.is_resolved(store.proxy(1, populate_target=True))
    assert store.proxy_batch([1, 2]) == [1, 2]


@check
def proxies_after_fork(store):
    """A child reads a proxy that a thread of its parent waited for."""
    future = store.future()
    proxy = future.proxy()
    thread = threading.Thread(target=lambda: len(proxy))
    thread.start()
    is_waited_for(future)
    pid = os.fork()
    if pid == 0:
        signal.alarm(15)
        os._exit(len(proxy))
    is_waited_for(future, 1)
    future.set_result([1, 2, 3])
    status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 3, f"status {status}"
    thread.join(20)
    assert proxy == [1, 2, 3]


@check
def one_time_proxies(store):
    proxy = store.proxy([1, 2], evict=True)
    other = pickle.loads(pickle.dumps(proxy))
    results = []
    threads = [threading.Thread(target=lambda: results.append(len(proxy))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [2] * 8, "one proxy is read once"
    with raises(FileNotFoundError):
        len(other)
    key = store.put("value")
    assert store.get(key, once=True) == "value" and store.get(key, once=True) is None


# ---- lifetimes -------------------------------------------------------------------------------------------------------

@check
def context_lifetime(store):
    with promisefs.ContextLifetime(store) as lifetime:
        keys = [store.put(1, lifetime=lifetime), store.put(2, f"deep/{'n' * 250}", lifetime=lifetime)]
        future = store.future(lifetime=lifetime)
        proxy = store.proxy([3], lifetime=lifetime)
        lifetime.add_proxy(proxy, future.proxy())
        lifetime.add_key(keys[0], keys[1])
        with raises(FileNotFoundError):
            lifetime.add_key("missing")
        with raises(TypeError):
            lifetime.add_proxy([1])
        with raises(FileExistsError):
            promisefs.ContextLifetime(store, name=lifetime.name)
        pool = concurrent.futures.ThreadPoolExecutor(1)
        waiting = pool.submit(future.result)
        is_waited_for(future)
        assert not lifetime.done() and proxy == [3] and lifetime.name in entries(store, "lifetimes")
    assert lifetime.done() and not any(map(store.exists, keys)) and proxy == [3]
    with raises(promisefs.Cancelled):
        waiting.result(20)
    before = os.listdir(store)
    with raises(RuntimeError):
        store.put(1, lifetime=lifetime)
    assert os.listdir(store) == before
    lifetime.close()


@check
def lease_lifetime(store):
    start = time.monotonic()
    lifetime = promisefs.LeaseLifetime(store, 1)
    key = store.put(1, lifetime=lifetime)
    lifetime.extend(0.3)
    eventually(lifetime.done)
    assert 1.29 < time.monotonic() - start < 10
    eventually(lambda: not store.exists(key))
    with raises(RuntimeError):
        lifetime.extend(1)
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    lifetime = promisefs.LeaseLifetime(store, later)
    shown = os.getxattr(lifetime.path, "user.promisefs.lease").decode()
    assert shown[:19] == later.strftime("%Y-%m-%dT%H:%M:%S"), (shown, later)
    key = store.put(1, lifetime=lifetime)
    lifetime.extend(datetime.datetime.now() + datetime.timedelta(seconds=0.05))
    eventually(lambda: lifetime.done() and not store.exists(key))
    lifetime = promisefs.LeaseLifetime(store, datetime.timedelta(hours=1))
    lifetime.close()
    key = store.put(1, lease=0.05)
    eventually(lambda: not store.exists(key))
    key = store.put(1, lease=60)
    store.set_lease(key, None)
    assert store.attribute(key, "lease") is None


@check
def leases_that_are_none(store):
    for value in (float("nan"), float("inf")):
        for function in (lambda: promisefs.LeaseLifetime(store, value), lambda: store.put(1, "key", lease=value),
                         lambda: store.future("key", deadline=value)):
            with raises((ValueError, OverflowError)):
                function()
    assert set(entries(store, "lifetimes")) <= {"self"} and os.listdir(store) == [], "nothing is left"


@check
def static_lifetime(store):
    code = "\n".join(["lifetime = promisefs.StaticLifetime(store)", "store.put(1, 'scratch', lifetime=lifetime)",
                      "promisefs.StaticLifetime().add_key('scratch', store=store)", "print('put', flush=True)",
                      "time.sleep(600)"])
    child = Child(code, store)
    assert child.said() == "put" and store.get("scratch") == 1
    child.kill()
    eventually(lambda: not store.exists("scratch"))
    lifetime = promisefs.StaticLifetime()
    with raises(ValueError):
        lifetime.add_key("x")
    key = store.put(1, lifetime=lifetime)
    pid = os.fork()
    if pid == 0:
        lifetime.close()
        os._exit(0 if lifetime.done() else 1)
    assert os.waitpid(pid, 0)[1] == 0 and store.exists(key) and not lifetime.done()
    lifetime.close()
    assert not store.exists(key) and lifetime.done()


# ---- ownership -------------------------------------------------------------------------------------------------------

@check
def the_rules_of_borrowing(store):
    owned = store.owned_proxy([1, 2, 3])
    assert isinstance(owned, list) and promisefs.is_resolved(owned) and sum(owned) == 6
    first, second = promisefs.borrow(owned), promisefs.borrow(owned, populate_target=False)
    assert promisefs.is_resolved(first) and not promisefs.is_resolved(second) and first == second == [1, 2, 3]
    for function in (promisefs.mut_borrow, promisefs.update, promisefs.drop):
        with raises(promisefs.MutableBorrowError, errno.EBUSY):
            function(owned)
    for reference in (first, store.proxy([1]), [1]):
        for function in (promisefs.borrow, promisefs.mut_borrow, promisefs.clone, promisefs.into_key):
            with raises(promisefs.ReferenceNotOwnedError):
                function(reference)
    with raises(promisefs.BorrowError, errno.EPERM):
        promisefs.update(first)
    promisefs.drop(first, second)
    with raises(promisefs.ReferenceInvalidError):
        len(first)
    mutable = promisefs.mut_borrow(owned)
    mutable.append(4)
    promisefs.update(mutable)
    for function in (len, promisefs.borrow, promisefs.mut_borrow, promisefs.clone):
        with raises(promisefs.MutableBorrowError, errno.EBUSY):
            function(owned)
    promisefs.drop(mutable)
    assert owned == [1, 2, 3, 4], "the owner reads it anew"
    owned.append(5)
    promisefs.update(owned)
    other = promisefs.clone(owned)
    owned.append(6)
    promisefs.update(owned)
    assert other == [1, 2, 3, 4, 5] and promisefs.borrow(owned, populate_target=False) == [1, 2, 3, 4, 5, 6]
    promisefs.update(promisefs.clone(owned))
    for reference in (owned, other):
        for function in (copy.copy, copy.deepcopy):
            with raises(TypeError):
                function(reference)
    promisefs.drop(owned)
    with raises(promisefs.ReferenceInvalidError):
        promisefs.borrow(owned)
    del other, reference
    gc.collect()
    assert [entries(store, kind) for kind in ("own", "ref", "mut")] == [[], [], []]


@check
def owners_and_keys(store):
    proxy = store.proxy("value")
    path = os.fspath(proxy)
    owned = promisefs.into_owned(proxy)
    assert not os.path.exists(path) and owned == "value" and open(owned, "rb").read().endswith(b".")
    for value in (owned, 7, promisefs.Proxy(lambda: 1)):
        with raises(ValueError):
            promisefs.into_owned(value)
    key = promisefs.into_key(owned)
    assert store.get(key) == "value" and store.attribute(key, "pid") is None
    with raises(promisefs.ReferenceInvalidError):
        str(owned)
    del owned
    gc.collect()
    assert store.exists(key)
    with raises(FileNotFoundError):
        promisefs.into_owned(store.proxy_from_key("missing"))
    owned = promisefs.into_owned(store.proxy_from_key(key))
    borrowed = promisefs.borrow(owned)
    with raises(promisefs.BorrowError):
        promisefs.drop(owned)
    other = promisefs.borrow(owned)
    del owned
    promisefs.drop(borrowed)
    assert len(entries(store, "own")) == 1, "a borrow keeps its owner"
    del other, borrowed
    gc.collect()
    assert entries(store, "own") == []
    borrowed = store.owned_proxy([1])
    key = promisefs.into_key(borrowed)
    owned = promisefs.into_owned(store.proxy_from_key(key))
    with raises(promisefs.MutableBorrowError):
        handle = os.path.join(os.path.dirname(os.path.dirname(os.fspath(owned))), "ref/check")
        os.link(owned, handle)
        promisefs.drop(owned)
    del owned
    gc.collect()
    eventually(lambda: entries(store, "own") == [], "it goes with the borrow that is elsewhere")
    assert os.path.exists(handle)
    os.unlink(handle)


@check
def an_owner_into_a_new_directory(store):
    owned = store.owned_proxy([1])
    assert promisefs.into_key(owned, "new/directory/key") == "new/directory/key"
    assert store.get("new/directory/key") == [1]
    gone = store.owned_proxy([1])
    os.unlink(gone)
    with raises(promisefs.ReferenceInvalidError):
        promisefs.into_key(gone, "other/key")
    assert not store.path("other").exists()


@check
def waiting_for_ones_turn(store):
    owned = store.owned_proxy([1])
    mutable = promisefs.mut_borrow(owned)
    waiting = promisefs.borrow(owned, wait=True)
    thread = concurrent.futures.ThreadPoolExecutor(1).submit(lambda: list(waiting))
    eventually(lambda: waits(store, state="borrowed"))
    mutable.append(2)
    promisefs.update(mutable)
    promisefs.drop(mutable)
    assert thread.result(20) == [1, 2]
    second = promisefs.mut_borrow(owned, wait=True)
    promisefs.drop(waiting)
    second.append(3)
    promisefs.update(second)
    promisefs.drop(second)
    assert owned == [1, 2, 3]
    promisefs.drop(owned)


def total(values, more=()):
    return sum(values) + sum(more)


def append(values, item):
    values.append(item)
    promisefs.update(values)


def die(values):
    len(values)
    os.kill(os.getpid(), signal.SIGKILL)


@check
def submit(store):
    owned = store.owned_proxy([1, 2, 3])
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        for executor in (pool, concurrent.futures.ThreadPoolExecutor(1)):
            borrowed, more = promisefs.borrow(owned), promisefs.borrow(owned)
            future = promisefs.submit(executor.submit, args=(total, borrowed), kwargs={"more": more})
            assert future.result(20) == 12
            eventually(lambda: entries(store, "ref") == [])
            for reference in (borrowed, more):
                with raises(promisefs.ReferenceInvalidError):
                    len(reference)
                with raises(promisefs.ReferenceInvalidError):
                    promisefs.submit(executor.submit, args=(total, reference))
        mutable = promisefs.mut_borrow(owned)
        promisefs.submit(pool.submit, args=(append, mutable, 4)).result(20)
        eventually(lambda: entries(store, "mut") == [])
        assert owned == [1, 2, 3, 4]
        box = [promisefs.borrow(owned)]
        assert promisefs.submit(pool.submit, args=(len, box), register_custom_refs=box).result(20) == 1
        eventually(lambda: entries(store, "ref") == [])
        assert pool.submit(len, promisefs.clone(owned)).result(20) == 4
        eventually(lambda: len(entries(store, "own")) == 1)
        kept = promisefs.borrow(owned)
        pool.submit(gc.collect).result(20)
        assert kept == [1, 2, 3, 4]
    promisefs.drop(kept, owned)


@check
def a_killed_worker_gives_back(store):
    owned = store.owned_proxy([1])
    process = multiprocessing.get_context("spawn").Process
    for borrowed in (promisefs.borrow(owned), promisefs.mut_borrow):
        borrowed = borrowed(owned) if callable(borrowed) and not promisefs.is_proxy(borrowed) else borrowed
        child = Child("len(given[0]); os.kill(os.getpid(), 9)", store, borrowed)
        with raises(promisefs.ReferenceInvalidError):
            len(borrowed)
        assert child.process.wait(20) == -signal.SIGKILL and process
        eventually(lambda: entries(store, "ref") == entries(store, "mut") == [])
    moved = pickle.dumps(owned)
    with raises(promisefs.ReferenceInvalidError):
        pickle.dumps(owned)
    back = pickle.loads(moved)
    assert back == [1] and len(entries(store, "own")) == 1
    Child("keep = given[0]; print(len(keep)); os.kill(os.getpid(), 9)", store, back).process.wait(20)
    eventually(lambda: entries(store, "own") == [])


@check
def a_forked_child_drops_nothing_of_its_parent(store):
    owned = store.owned_proxy([1])
    borrowed = promisefs.borrow(owned)
    pid = os.fork()
    if pid == 0:
        proxies.source_of(borrowed)
        del borrowed, owned
        gc.collect()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(entries(store, "ref")) == len(entries(store, "own")) == 1
    promisefs.drop(borrowed, owned)


@check
def an_owner_ends_with_its_process(store):
    child = Child("keep = store.owned_proxy([1])\nprint(os.fspath(keep), flush=True)\ntime.sleep(600)", store)
    path = child.said()
    assert os.path.exists(path)
    child.kill()
    eventually(lambda: not os.path.exists(path))


@check
def evicting_what_is_borrowed(store):
    key = store.put(1)
    handle = store._control("ref/evicting")
    os.link(store.path(key), handle)
    with raises(promisefs.MutableBorrowError):
        store.evict(key)
    os.unlink(handle)
    store.evict(key)


@check
def many_processes(store):
    """A pipeline that is started from its end."""
    futures = [store.future(f"stage-{number}") for number in range(4)]
    stages = [Child("given[1].set_result(given[0] + [len(given[0])])", store, before.proxy(), after)
              for before, after in reversed(list(zip(futures, futures[1:])))]
    is_waited_for(futures[0])
    futures[0].set_result([])
    assert futures[-1].result(20) == [0, 1, 2]
    for stage in stages:
        stage.end()


@check
def docstrings(store):
    """What they show is so."""
    pool = concurrent.futures.ThreadPoolExecutor(4)
    given = {"promisefs": promisefs, "mountpoint": store.mountpoint, "directory": store.directory, "store": store,
             "pool": pool, "datetime": datetime, "os": os}
    tried = 0
    for name in sorted(os.listdir(os.path.dirname(promisefs.__file__))):
        if name.endswith(".py"):
            module = importlib.import_module(f"promisefs.{name[:-3]}") if name != "__init__.py" else promisefs
            for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs=given):
                runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
                runner.run(test)
                assert not runner.failures, test.name
                tried += runner.tries
                test.globs.clear()
    gc.collect()
    assert tried > 40, tried


# ---- without the mount -----------------------------------------------------------------------------------------------

def without_the_mount(store):
    """Run by test_after_the_mount_is_gone, which unmounts it, or kills the daemon, and mounts it again."""
    connector = promisefs.PromiseConnector(store.directory)
    future, ready, pending = store.future(), store.future(), store.future()
    ready.set_result(1)
    key, proxy = store.put([1]), store.proxy([1])
    owned = store.owned_proxy([1])
    borrowed = promisefs.borrow(owned, populate_target=False)
    lifetime, lease = promisefs.ContextLifetime(store), promisefs.LeaseLifetime(store, 60)
    static = promisefs.StaticLifetime(store)
    put, new = connector.put(b"bytes"), connector.new_key()
    print("ready", flush=True)
    expected = {"unmounted": errno.ENODEV, "killed": errno.ENOTCONN}[sys.stdin.readline().strip()]
    for function in (
            lambda: promisefs.Store(store.directory), lambda: promisefs.PromiseConnector(store.directory),
            lambda: store.put(1), lambda: store.put(1, "a/b"), lambda: store.get(key), lambda: store.get("missing"),
            lambda: store.get(key, timeout=1), lambda: store.get(key, block=False), lambda: store.exists(key),
            lambda: store.evict(key), lambda: store.future(), lambda: store.future("a/b/c"), lambda: store.proxy(1),
            lambda: store.owned_proxy(1), future.result, lambda: future.result(1), lambda: future.exception(0),
            future.done, future.state, future.cancelled, future.cancel, lambda: future.set_result(1),
            lambda: future.set_exception(ValueError()), lambda: asyncio.run(future._wait()), ready.result,
            lambda: future.add_done_callback(print), lambda: promisefs.wait([future], 0), proxy.__len__,
            lambda: store.expect("a").set_result(1), lambda: promisefs.borrow(owned), borrowed.__len__,
            lambda: promisefs.mut_borrow(owned), lambda: promisefs.update(owned), lambda: promisefs.clone(owned),
            lambda: promisefs.into_key(owned), lambda: promisefs.into_owned(store.proxy_from_key(key)),
            lambda: promisefs.drop(borrowed), lambda: promisefs.ContextLifetime(store),
            lambda: lifetime.add_key(key), lifetime.close, lifetime.done, lambda: lease.extend(1),
            lambda: static.add_key(key), lambda: connector.put(b"x"), lambda: connector.get(put),
            lambda: connector.exists(put), lambda: connector.evict(put), connector.new_key,
            lambda: connector.set(new, b"x"), lambda: connector.close(clear=True)):
        try:
            got = function()
        except OSError as error:
            assert error.errno == expected and error.filename.startswith(store.mountpoint), (function, error)
        else:
            raise AssertionError(f"{function} has returned {got}")
    assert key not in repr(future) and future.path in repr(future)
    if expected == errno.ENODEV:
        assert os.listdir(store.mountpoint) == [], "nothing is written where nobody would find it"
    print("gone", flush=True)
    assert sys.stdin.readline() == "mounted\n"
    assert store.get(key) == [1] and store.get(store.put(2)) == 2 and connector.get(put) == b"bytes"
    pending.set_result(1)
    assert pending.result(10) == 1
    lifetime.close()


if __name__ == "__main__":
    main(CHECKS, promisefs.Store, {"without_the_mount": without_the_mount})

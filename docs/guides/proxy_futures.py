#!/usr/bin/env python3
"""Using data before it exists, with ordinary files: futures.

usage: proxy_futures.py MOUNTPOINT
"""
import errno
import multiprocessing
import os
import pathlib
import select
import shutil
import signal
import sys

mount = pathlib.Path(sys.argv[1])
control = mount / ".promisefs"
work = mount / "guide"


def future(key):
    """store.future(): the path can be handed on at once; who opens it waits until it is set."""
    (control / "future" / key).touch()
    return mount / key


def trivial():
    print("== a future is declared, and set once")
    value = future("guide/value")
    assert os.getxattr(value, "user.promisefs.state") == b"pending"
    value.write_text("value")
    assert value.read_text() == "value"
    try:
        (control / "future/guide/value").touch()
        open(control / "future/guide/value", "w").close()
    except FileExistsError:
        pass
    else:
        raise AssertionError("it was declared a second time")


def foo(path):
    path.write_text("\n".join(str(n) for n in range(100_000)))


def bar(path, answer):
    early = sum(range(1000))  # does not need the data
    late = sum(int(line) for line in path.read_text().splitlines())  # waits in open(2)
    answer.send((early, late))


def independent():
    print("== consumer and producer start together, the consumer first")
    data = future("guide/data")
    receiver, sender = multiprocessing.Pipe(duplex=False)
    processes = [multiprocessing.Process(target=bar, args=(data, sender)), multiprocessing.Process(target=foo, args=(data,))]
    for process in processes:
        process.start()
    assert receiver.recv() == (499_500, 4_999_950_000)
    for process in processes:
        process.join()


def poll():
    print("== without waiting: O_NONBLOCK and poll")
    path = future("guide/later")
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    assert poller.poll(10) == []
    try:
        os.read(fd, 10)
    except BlockingIOError:
        pass
    else:
        raise AssertionError("there was something to read")
    path.write_text("now")
    assert poller.poll(10_000) != []
    assert os.read(fd, 10) == b"now"
    os.close(fd)


def die_while_writing(path):
    file = open(path, "wb", buffering=0)
    file.write(b"half of i")
    os.kill(os.getpid(), signal.SIGKILL)


def killed():
    print("== a producer that is killed fails the future")
    path = future("guide/doomed")
    process = multiprocessing.Process(target=die_while_writing, args=(path,))
    process.start()
    process.join()
    try:
        path.read_text()
    except OSError as error:
        assert error.errno == errno.EOWNERDEAD, error
    else:
        raise AssertionError("half of it was read")
    assert (control / "aborted/guide/doomed").read_text() == "half of i"
    path.write_text("a second attempt")
    assert path.read_text() == "a second attempt"


if __name__ == "__main__":
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for part in (trivial, independent, poll, killed):
        part()
    shutil.rmtree(work)
    print("all as it should be")

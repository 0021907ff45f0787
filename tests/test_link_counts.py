"""st_nlink beside others: what one process is told while another one's change is on its way stays right afterwards.

The kernel takes one off the number that it has when it gets the answer to unlink(2). A process that hardly ever gets
the processor (SCHED_IDLE) takes its time for that."""
import os
import time

import pytest

from pfs import eventually

pytestmark = [pytest.mark.core, pytest.mark.timeout(120)]
ROUNDS = 30
MANY = 250
SECONDS = 2
REMOVERS = {
    "unlink": lambda name: os.unlink(name),
    "rename-over": lambda name: os.rename(f"{os.path.dirname(name)}/other", name),
    "rename-away": lambda name: (os.rename(name, f"{name}-away"), os.unlink(f"{name}-away")),
}


@pytest.fixture
def one_processor():
    """All of the test on one processor, so that whoever is idle waits for the others."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield min(before)
    os.sched_setaffinity(0, before)


@pytest.fixture
def slow(mnt, one_processor):
    """Processes that run when nobody else wants to."""
    def make():
        worker = mnt.worker()
        os.sched_setscheduler(worker.pid, os.SCHED_IDLE, os.sched_param(0))
        return worker

    return make


def names(path):
    return os.stat(path).st_nlink


@pytest.mark.parametrize("how", REMOVERS)
def test_a_name_less_of_what_has_another_version_now(mnt, how):
    """The name that is removed was looked up before the object was replaced by its other name. The kernel is told of
    that a moment later, so it may take the name for one of the old version. (That moment is short: nothing else
    happens in it.)"""
    one, two, remove, wrong = os.fspath(mnt / "one"), os.fspath(mnt / "two"), REMOVERS[how], 0
    for number in range(MANY):
        mnt.put("other", b"other")
        mnt.put("one", b"1")
        os.link(one, two)
        mnt.put("two", b"22")
        fd = os.open(two, os.O_RDONLY)
        before = os.fstat(fd).st_nlink
        remove(one)
        after = os.fstat(fd).st_nlink
        os.unlink(two)
        wrong += (before, after, os.fstat(fd).st_nlink) != (2, 1, 0)
        os.close(fd)
    assert wrong == 0, f"{wrong} of {MANY}"


@pytest.mark.parametrize("how", ["unlink", "rename-over"])
def test_link_of_what_loses_a_name_meanwhile(mnt, slow, how):
    """It has one all the time, so link(2) must succeed."""
    remover = slow()
    for folder in "abcd":
        os.mkdir(mnt / folder)
    for number in range(ROUNDS):
        mnt.put("a/gone", b"1")
        mnt.put("d/other", b"2")
        os.link(mnt / "a/gone", mnt / "b/stays")
        if how == "unlink":
            job = remover.begin("unlink", str(mnt / "a/gone"))
        else:
            job = remover.begin("rename", str(mnt / "d/other"), str(mnt / "a/gone"))
        eventually(lambda: names(mnt / "b/stays") == 1)
        os.link(mnt / "b/stays", mnt / "c/new")
        job.result()
        assert names(mnt / "b/stays") == 2, f"round {number}"
        os.unlink(mnt / "c/new")
        assert names(mnt / "b/stays") == 1
        os.unlink(mnt / "b/stays")


def stays(path, number):
    """None, or what the number of names is instead, looked at for as long as an idle process may need."""
    for _ in range(8):
        found = names(path)
        if found != number:
            return found
        time.sleep(0.0003)  # the idle ones go on
    return None


def test_directories_that_others_look_at(mnt, slow):
    os.mkdir(mnt / "dir")
    jobs = [slow().begin("ask_the_daemon", str(mnt / "dir"), SECONDS) for _ in range(2)]
    wrong = rounds = 0
    while not all(job.done for job in jobs):
        os.mkdir(mnt / "dir/x")
        wrong += stays(mnt / "dir", 3) is not None
        os.rename(mnt / "dir/x", mnt / "x")
        wrong += stays(mnt / "dir", 2) is not None
        os.rename(mnt / "x", mnt / "dir/x")
        wrong += stays(mnt / "dir", 3) is not None
        os.rmdir(mnt / "dir/x")
        wrong += stays(mnt / "dir", 2) is not None
        rounds += 1
    assert rounds > 5 and wrong == 0, f"{wrong} in {rounds} rounds"

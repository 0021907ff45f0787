"""Futures: waking one, waking a thousand, a chain of tasks, and what waiting costs."""

import contextlib
import functools
import math
import shutil
import statistics
import subprocess
import time

from .measure import Aim, Case, Row
from .rig import BenchError, children, cpu_seconds, running

POLL_MICRO = 1000


# ---- waking one ------------------------------------------------------------------------------------------------------

def summary(lines, column=0):
    """Median and 99th percentile in microseconds of one column of nanoseconds."""
    values = sorted(int(line.split()[column]) / 1000 for line in lines.splitlines())
    return {"median": statistics.median(values), "p99": values[math.ceil(len(values) * 0.99) - 1]}


def wake_future(rig):
    ours = rig.ours()
    folder = rig.fresh(ours.path)
    lines = rig.loop("wake-future", folder, ours.declare() / folder.name, rig.sizes.wake_rounds)
    shutil.rmtree(folder)
    return {**summary(lines), "called": summary(lines, 1)["median"]}


def wake_poll(rig):
    folder = rig.fresh(rig.native())
    lines = rig.loop("wake-poll", folder, rig.sizes.wake_rounds, POLL_MICRO)
    shutil.rmtree(folder)
    return summary(lines)


@contextlib.contextmanager
def waiting(rig, *words):
    """A loop that has said that it waits."""
    with running([rig.loops, *words], stdin=subprocess.PIPE) as process:
        if process.stdout.readline() != "waiting\n":
            raise BenchError(f"{words[0]}: {process.stderr.read().strip() or 'did not come to wait'}")
        yield process


def release(process):
    process.communicate(timeout=120)
    if process.returncode:
        raise BenchError("the waiting readers failed")


def cpu_percent(rig, pids):
    before, start = cpu_seconds(pids), time.monotonic()
    time.sleep(rig.sizes.wait_seconds)
    return (cpu_seconds(pids) - before) / (time.monotonic() - start) * 100


def wait_future(rig):
    ours = rig.ours()
    with waiting(rig, "wait-many", ours.path, ours.declare(), 1) as process:
        reader = [pid for pid in children(process.pid) if pid != process.pid]
        percent = cpu_percent(rig, [*reader, *children(ours.process.pid)])
        release(process)
    return percent


def wait_poll(rig):
    path = rig.fresh(rig.native()) / "never"
    with waiting(rig, "poll-wait", path, POLL_MICRO) as process:
        percent = cpu_percent(rig, [process.pid])
        path.touch()
        release(process)
    return percent


def wake(rig):
    wakes = {"ours": functools.partial(wake_future, rig), "polling": functools.partial(wake_poll, rig),
             "pipe": lambda: summary(rig.loop("wake-pipe", rig.sizes.wake_rounds))}
    waits = {"ours": functools.partial(wait_future, rig), "polling": functools.partial(wait_poll, rig)}
    title = "future: close returned to data"
    return [
        Case("wake", wakes, [
            Row(f"{title}, median", "us", "ours", "pipe", Aim("<=", 2.5), "median"),
            Row(f"{title}, p99 against median", "us", "ours", "pipe", Aim("<=", 5), "p99", "median"),
            Row(f"{title}, median", "us", "ours", "polling", Aim("<", 1), "median"),
            Row("future: close called to data, median", "us", "ours", "pipe", None, "called", "median"),
            Row("pipe: p99 against median", "us", "pipe", "pipe", None, "p99", "median")]),
        Case("CPU while waiting", waits, [
            Row("CPU of a waiter and the daemon while it waits", "%", "ours", None, Aim("<=", 0.1, " %")),
            Row("CPU of a waiter and the daemon while it waits", "%", "ours", "polling")],
             runs=min(3, rig.sizes.runs), warm_up=False)]


# ---- waking many -----------------------------------------------------------------------------------------------------

def fan(rig):
    many = rig.sizes.readers
    some = max(1, many // 4)

    def ours(readers):
        mount = rig.ours()
        return rig.seconds("fan-future", mount.path, mount.declare(), readers) * 1000

    def pipes():
        return rig.seconds("fan-pipes", rig.native(), many) * 1000

    name, peer = f"ours x{many}", f"pipes x{many}"
    contenders = {name: functools.partial(ours, many), peer: pipes, f"ours x{some}": functools.partial(ours, some),
                  "ours x1": functools.partial(ours, 1)}
    title = f"{many:,} readers of one future: the last has its data"
    rows = [Row(f"{title}, beyond pipes", "ms", name, None, Aim("<=", 10, " ms"), beyond=peer),
            Row(title, "ms", name, peer),
            Row(f"{many:,} readers against {some:,} (4 is linear)", "ms", name, f"ours x{some}", Aim("<=", 5)),
            Row(f"{many:,} readers against one, for each reader", "ms", name, "ours x1", Aim("<=", 1), per=many)]
    return [Case("fan", contenders, rows)]


# ---- a chain of tasks ------------------------------------------------------------------------------------------------

# What makespan / ideal may be with tasks of 1 s, by thousandths of a task that do not need the input.
CHAIN_AIMS = {200: 1.004, 500: 1.006, 800: 1.012}


def chain_once(rig, kind, permille, ideal):
    sizes = rig.sizes
    parent = rig.ours().path if kind == "future" else rig.native()
    folder = rig.fresh(parent)
    declare = rig.ours().declare() / folder.name if kind == "future" else "-"
    seconds = rig.seconds("chain", kind, folder, declare, sizes.stages, sizes.stage_bytes,
                          round(sizes.task_seconds * 1e6), permille)
    shutil.rmtree(folder)
    return {"ratio": seconds / ideal, "seconds": seconds, "overhead": (seconds - ideal) * 1000}


def chain_case(rig, permille):
    sizes, f = rig.sizes, permille / 1000
    ideal = (f + sizes.stages * (1 - f)) * sizes.task_seconds
    contenders = {name: functools.partial(chain_once, rig, kind, permille, ideal)
                  for name, kind in (("ours", "future"), ("polling", "poll"), ("pipe", "pipe"))}
    aim = None
    if permille in CHAIN_AIMS:  # the same milliseconds, when tasks are shorter than a second
        aim = Aim("<=", round(1 + (CHAIN_AIMS[permille] - 1) / sizes.task_seconds, 4))
    title = f"chain, f={f:g}, T={sizes.task_seconds:g} s"
    return Case(title, contenders, [
        Row(f"{title}: makespan / ideal", "", "ours", None, aim, "ratio"),
        Row(f"{title}: makespan", "s", "ours", "pipe", None, "seconds"),
        Row(f"{title}: beyond the ideal", "ms", "ours", "polling", None, "overhead"),
        Row(f"{title}: beyond the ideal", "ms", "ours", "pipe", None, "overhead")], warm_up=permille == 500)


def chain(rig):
    return [chain_case(rig, permille) for permille in rig.sizes.fractions]


# ---- what a waiting reader takes -------------------------------------------------------------------------------------

def resident_with_waiters(rig, ours, count):
    with waiting(rig, "wait-many", ours.path, ours.declare(), count) as process:
        resident = ours.resident()
        release(process)
    return resident


def memory_once(rig):
    """In a new daemon each time: one that has had waiters before has room for them already."""
    with contextlib.ExitStack() as stack:
        ours = rig.mount(stack)
        resident_with_waiters(rig, ours, 10)
        before = ours.resident()
        value = (resident_with_waiters(rig, ours, rig.sizes.waiters) - before) / rig.sizes.waiters
    shutil.rmtree(ours.path.parent)
    return value


def memory(rig):
    rows = [Row("daemon memory for a waiting reader", "bytes", "ours", None, Aim("<", 1024, " bytes"))]
    return [Case("memory", {"ours": functools.partial(memory_once, rig)}, rows, runs=min(3, rig.sizes.runs),
                 warm_up=False)]


SCENARIOS = {"wake": wake, "fan": fan, "chain": chain, "memory": memory}

#!/usr/bin/env python3
"""multiprocessing: processes that are started in the wrong order, results as they come, and one that is killed.

usage: multiprocessing_fan_in.py MOUNTPOINT    (promisefs installed, or PYTHONPATH=tools/python)
"""
import multiprocessing
import os
import shutil
import signal
import sys

import promisefs


def merge(parts, merged):
    merged.set_result(sorted(sum((part.result() for part in parts), [])))


def part_of(number, future):
    future.set_result([number, number + 10])


def doomed(future):
    file = open(future, "wb", buffering=0)
    file.write(b"half of i")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    store = promisefs.Store(f"{sys.argv[1]}/guide")
    parts, merged, broken = [store.future() for _ in range(3)], store.future(), store.future()

    print("== the one that needs everything starts first")
    processes = [context.Process(target=merge, args=(parts, merged))]
    processes += [context.Process(target=part_of, args=(number, part)) for number, part in enumerate(parts)]
    processes += [context.Process(target=doomed, args=(broken,))]
    for process in processes:
        process.start()

    print("== results as they come")
    seen = [part.result()[0] for part in promisefs.as_completed(parts, timeout=60)]
    assert sorted(seen) == [0, 1, 2] and merged.result(timeout=60) == [0, 1, 2, 10, 11, 12]

    print("== who waits for a process that is killed is told")
    try:
        broken.result(timeout=60)
    except promisefs.BrokenPromise as error:
        print(f"   {error.reason}")
    else:
        raise AssertionError("half of it was read")
    for process in processes:
        process.join()
    shutil.rmtree(store)
    shutil.rmtree(f"{sys.argv[1]}/.promisefs/aborted/guide")
    print("all as it should be")

#!/usr/bin/env python3
"""concurrent.futures: tasks that use each other's results are submitted in any order, and borrow instead of copying.

usage: process_pool.py MOUNTPOINT    (promisefs installed, or PYTHONPATH=tools/python)
"""
import concurrent.futures
import shutil
import sys

import promisefs


def produce(future):
    future.set_result(list(range(1000)))


def consume(numbers, total):
    total.set_result(sum(numbers))  # waits here, where the argument is used


def append(numbers, number):
    numbers.append(number)
    promisefs.update(numbers)


if __name__ == "__main__":
    store = promisefs.Store(f"{sys.argv[1]}/guide")
    # A task that waits has a worker to itself: give the pool more workers than there are tasks that may wait.
    with concurrent.futures.ProcessPoolExecutor(4) as pool:
        print("== the consumer is submitted first")
        numbers, total = store.future(), store.future()
        tasks = [pool.submit(consume, numbers.proxy(), total), pool.submit(produce, numbers)]
        assert total.result(timeout=60) == 499500
        for task in tasks:
            task.result()

        print("== many tasks read what one process owns, then one writes it")
        owned = store.owned_proxy([1, 2, 3])
        tasks = [promisefs.submit(pool.submit, args=(sum, promisefs.borrow(owned))) for _ in range(8)]
        assert [task.result() for task in tasks] == [6] * 8
        # A borrow is given back a moment after its task is done: get in line instead of being refused.
        task = promisefs.submit(pool.submit, args=(append, promisefs.mut_borrow(owned, wait=True), 4))
        task.result()
        assert promisefs.borrow(owned, wait=True) == [1, 2, 3, 4]
        promisefs.drop(promisefs.clone(owned))
    del owned
    shutil.rmtree(store)
    print("all as it should be")

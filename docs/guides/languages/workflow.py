"""usage: workflow.py MOUNTPOINT declare|consume N|produce|write"""
import errno
import os
import sys

os.chdir(sys.argv[1])
role = sys.argv[2]
control = ".promisefs"


def read(path):
    with open(path) as file:
        return file.read()


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


if role == "declare":
    write(f"{control}/future/guide/numbers", "")
elif role == "consume":
    total = sum(map(int, read("guide/numbers").split()))  # waits until it is written
    try:
        token = read(f"{control}/once/guide/token")  # one of all consumers gets it
    except FileNotFoundError:
        token = "-"
    handle = f"{control}/ref/guide-{sys.argv[3]}"
    os.link(f"{control}/own/guide-list", handle)  # nobody writes it now
    numbers = read(handle)
    os.unlink(handle)
    write(f"guide/result-{sys.argv[3]}", f"{total} {token} {numbers}\n")
elif role == "produce":
    write("guide/token", "token")
    write(f"{control}/own/guide-list", "1 2 3")  # an object without a key
    write("guide/scratch", "scratch")
    write(f"{control}/attributes/lease/guide/scratch", "500ms\n")
    write("guide/numbers", "".join(f"{n}\n" for n in range(1, 11)))  # wakes the consumers
elif role == "write":
    os.link(f"{control}/own/guide-list", f"{control}/mut/guide")  # nobody else reads or writes it now
    try:
        read(f"{control}/own/guide-list")
    except OSError as error:
        assert error.errno == errno.EBUSY
    else:
        sys.exit("it was read")
    write(f"{control}/mut/guide", "1 2 3 4")
    os.unlink(f"{control}/mut/guide")
    os.rename(f"{control}/own/guide-list", "guide/list")

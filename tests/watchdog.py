"""Frees tests from a mount that hangs: a process of its own, so that nothing that hangs can stop it.

Reads lines from standard input: `arm ID SECONDS PID MOUNTPOINT LOG` and `disarm ID`. When the seconds are over it
writes into LOG where the threads of the daemon PID are, aborts the FUSE connection, which ends every system call that
waits for it, and kills the daemon. It ends when standard input does.
"""
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

MNT_FORCE, MNT_DETACH = 1, 2
LOOK = """for t in /proc/{pid}/task/*; do echo $t $(cat $t/comm); cat $t/syscall $t/stack; done 2>/dev/null
gdb -p {pid} -batch -ex 'thread apply all bt' 2>/dev/null"""


def describe(pid, log):
    """Append what every thread of the daemon does to the log."""
    try:
        with open(log, "ab") as out:
            out.write(b"\n-- the test ran out of time; threads of the daemon:\n")
            out.flush()
            subprocess.run(["sh", "-c", LOOK.format(pid=pid)], stdout=out, stderr=subprocess.STDOUT, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pass


def abort(pid, mountpoint, log):
    """Make every call that hangs on the mount return."""
    describe(pid, log)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.umount2(os.fsencode(mountpoint), MNT_FORCE)
    libc.umount2(os.fsencode(mountpoint), MNT_DETACH)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def main():
    armed = {}
    pending = b""
    while True:
        now = time.monotonic()
        for key in [k for k, entry in armed.items() if entry[0] <= now]:
            abort(*armed.pop(key)[1:])
        timeout = max(0, min((entry[0] for entry in armed.values()), default=now + 3600) - now)
        if not select.select([0], [], [], timeout)[0]:
            continue
        data = os.read(0, 65536)
        if not data:
            sys.exit(0)
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            verb, key, *rest = line.decode("utf-8", "surrogateescape").split("\t")
            if verb == "arm":
                armed[key] = (time.monotonic() + float(rest[0]), int(rest[1]), rest[2], rest[3])
            else:
                armed.pop(key, None)


if __name__ == "__main__":
    main()

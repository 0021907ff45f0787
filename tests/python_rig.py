"""What the checks of the Python module share. Each check is a function of a Store, run in a process of its own by
test_python_module.py and test_python_connector.py: usage: CHECKS.py NAME DIRECTORY. Not collected by pytest."""
import contextlib
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings

HERE = pathlib.Path(__file__).resolve().parent
MODULE = str(HERE.parent / "tools/python")
SKIPPED = 77
SECONDS = 20
sys.path.insert(0, MODULE)
# What a child does after these forks is safe: it ends, or runs a check.
warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)


class Skip(Exception):
    pass


def main(checks, make, alone=()):
    """Run the check that the command line names, or one of those that run alone; its status says what became of it.

    With --serve: for each line NAME DIRECTORY LOG of the input a child does so, with its output in LOG; its number and
    then its status go to the output. Python is started once then, and each check still has a process of its own.
    """
    if sys.argv[1:] == ["--list"]:
        print("\n".join(checks))
    elif sys.argv[1:] == ["--serve"]:
        serve(checks, make)
    else:
        run({**checks, **dict(alone)}[sys.argv[1]], make(sys.argv[2]))


def run(check, argument):
    status = 1
    try:
        check(argument)
        status = 0
    except Skip as reason:
        print(reason)
        status = SKIPPED
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    if status or threading.active_count() > 1:
        os._exit(status)
    sys.exit(status)


def serve(checks, make):
    for line in sys.stdin:
        name, directory, log = line.split()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (out, 1), (out, 2)):
                os.dup2(source, target)
            os.closerange(3, 100)
            run(checks[name], make(directory))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


@contextlib.contextmanager
def raises(kind, number=None):
    """The block must raise this exception, with this errno."""
    caught = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
        assert number is None or error.errno == number, f"{error!r}: not {errno.errorcode[number]}"
    else:
        raise AssertionError(f"no {kind}")


def eventually(condition, what=""):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"not within {SECONDS} s: {what}"
        time.sleep(0.002)


def waits(store, **wanted):
    """The entries of `.promisefs/waits` that have these members."""
    text = pathlib.Path(store._control("waits")).read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    return [entry for entry in entries if all(entry[name] == value for name, value in wanted.items())]


def is_waited_for(future, count=1):
    """Somebody waits for a future, in the kernel."""
    key = future.store._from_top(future.key)
    eventually(lambda: len(waits(future.store, key=key)) >= count, f"{count} wait for {key}")


class Child:
    """A process that runs some code with the names promisefs and store, and what it is given, pickled."""

    def __init__(self, code, store, *given):
        import pickle
        lines = ("import pickle, sys, os, signal, time", f"sys.path.insert(0, {MODULE!r})", "import promisefs",
                 f"store = promisefs.Store({store.directory!r})",
                 f"given = [pickle.loads(part) for part in {[pickle.dumps(value) for value in given]!r}]", code)
        self.process = subprocess.Popen([sys.executable, "-c", "\n".join(lines)], stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def said(self):
        return self.process.stdout.readline().strip()

    def kill(self):
        self.process.kill()
        return self.process.wait(SECONDS)

    def end(self):
        out, _ = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 0, self.process.returncode
        return out.strip()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def alarm(seconds, handler):
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)

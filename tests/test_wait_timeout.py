"""How long an open may wait: mount option wait-timeout, .promisefs/wait-timeout, `promisefs run --wait-timeout`."""
import errno
import os
import shlex
import signal
from pathlib import Path

import pytest

from pfs import NOBODY, PYTHON, binary, eventually, fails, opened, promisefs, run, set_attr, state

pytestmark = pytest.mark.core

TIMED_OUT = "Connection timed out"  # ETIMEDOUT


def control(mnt):
    return os.fspath(mnt.mount.control / "wait-timeout")


def limited(mnt, limit, *argv, **kwargs):
    """`promisefs run --wait-timeout LIMIT -- ARGV` in the directory of the test."""
    return promisefs("run", "--wait-timeout", limit, "--", *argv, cwd=mnt.root, **kwargs)


def say(worker, mnt, text):
    """A worker writes into the file, as itself."""
    fd = worker.open(control(mnt), os.O_WRONLY)
    try:
        return worker.write(fd, text)
    finally:
        worker.close(fd)


def heard(worker, mnt):
    return worker.read_path(control(mnt)).decode()


def waits_for(mnt, key):
    return [wait for wait in mnt.waits() if wait["key"] == mnt.key(key)]


# ---- the option ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("option", ["wait-timeout=0", "wait_timeout=0s"])
def test_option_of_nothing(new_mount, option):
    """0: what would have to wait fails at once; all else is as ever."""
    mnt = new_mount(option)
    mnt.declare("key")
    assert mnt.reader(mnt / "key").error() == "ETIMEDOUT"
    assert mnt.reader(mnt.awaiting("nothing")).error() == "ETIMEDOUT"
    worker, fd = mnt.writer("written", b"half")
    assert mnt.reader(mnt / "written").error() == "ETIMEDOUT"
    assert worker.read_path(mnt / "written") == b"half", "a writer reads his own draft"
    worker.close(fd)
    assert mnt.reader(mnt / "written").result() == b"half"
    worker, fd = mnt.writer("written", b"other")
    assert mnt.reader(mnt / "written").result() == b"half", "there is a version to read"
    assert state(mnt / "key") == "pending" and mnt.reader(control(mnt)).result() == b"0\n"


def test_option_none(new_mount):
    mnt = new_mount("wait-timeout=none")
    mnt.declare("key")
    job = mnt.waiting_reader(mnt / "key")
    assert mnt.reader(control(mnt)).result() == b"none\n"
    mnt.put("key", b"data")
    assert job.result() == b"data"


def test_whoever_does_not_wait_is_not_limited(new_mount):
    """O_NONBLOCK does not wait in open(2)."""
    mnt = new_mount("wait-timeout=0")
    mnt.declare("key")
    with opened(mnt / "key", os.O_RDONLY | os.O_NONBLOCK) as fd:
        with fails(errno.EAGAIN):
            os.read(fd, 10)
        mnt.put("key", b"data")
        eventually(lambda: state(mnt / "key") == "ready")
        assert os.read(fd, 10) == b"data"


# ---- the file --------------------------------------------------------------------------------------------------------

def test_a_process_limits_itself_and_what_it_starts(mnt):
    mnt.declare("key")
    one, other = mnt.worker(), mnt.worker()
    assert heard(one, mnt) == heard(other, mnt) == "none\n"
    say(one, mnt, b"0\n")
    assert heard(one, mnt) == "0\n" and heard(other, mnt) == "none\n"
    assert one.begin("read_path", mnt / "key").error() == "ETIMEDOUT"
    job = other.begin("read_path", mnt / "key")
    mnt.assert_waits(job)
    for text, shown in [(b"90s", "90s\n"), (b"1500ms", "1500ms\n"), (b"none", "none\n"), (b"default", "none\n")]:
        say(one, mnt, text)
        assert heard(one, mnt) == shown
    mnt.assert_still_waits(job)


def test_a_shell_limits_what_comes_after(mnt):
    mnt.declare("key")
    script = 'cat key & pid=$!; until grep -q "\\"pid\\":$pid," "$0/waits"; do :; done; ' \
             'echo 1ms > "$0/wait-timeout"; cat key; echo $?; kill $pid; wait $pid; echo $?'
    done = run("sh", "-c", script, mnt.mount.control, cwd=mnt.root)
    assert done.stdout == "1\n143\n" and done.stderr.count(TIMED_OUT) == 1


@pytest.mark.parametrize("text", [b"soon", b"5", b"-1s", b"\n", b"1s 2s", b"x" * 100, b"none\0", b"\0\n", b"1s\n\n",
                                  b"0x1s", b"NONE"])
def test_bad_values_change_nothing(mnt, text):
    worker = mnt.worker()
    say(worker, mnt, b"3s")
    fd = worker.open(control(mnt), os.O_RDWR)
    with fails(errno.EINVAL):
        worker.write(fd, text)
    assert heard(worker, mnt) == "3s\n"


def test_all_threads_of_a_process(mnt):
    mnt.declare("key")
    worker = mnt.worker()
    job = worker.begin("read_path", mnt / "key", threaded=True)
    mnt.assert_waits(job)
    fd = worker.begin("open", control(mnt), os.O_WRONLY, threaded=True).result()
    worker.begin("write", fd, b"20ms", threaded=True).result()
    for threaded in (False, True):
        assert worker.begin("read_path", mnt / "key", threaded=threaded).error() == "ETIMEDOUT"
    mnt.assert_still_waits(job)  # it began before
    mnt.put("key", b"data")
    assert job.result() == b"data"


def test_everything_that_waits_in_open(mnt):
    worker = mnt.worker()
    say(worker, mnt, b"10ms")
    mnt.declare("future", "once")
    set_attr(mnt / "once", "evict", "1")
    _, fd = mnt.writer("draft", b"x")
    mnt.put("lent")
    eventually(lambda: state(mnt / "lent") == "ready")
    mnt.borrow("lent", "mut", "held")
    os.link(mnt / "lent", mnt.handle("await-ref", "turn"))
    for path in (mnt / "future", mnt / "draft", mnt.awaiting("absent"), mnt.awaiting("future"), mnt / "once",
                 mnt.once("future"), mnt.handle("ref", "turn")):
        assert worker.begin("read_path", path).error() == "ETIMEDOUT", path
    assert state(mnt / "future") == state(mnt / "once") == "pending" and state(mnt.handle("ref", "turn")) == "waiting"


def test_a_close_that_is_under_way_is_waited_for(mnt):
    """0 is for what somebody has to do first, not for what the file system is just doing."""
    worker = mnt.worker()
    say(worker, mnt, b"0")
    for n in range(200):
        mnt.put("new%d" % (n % 3), b"%d" % n)
        assert worker.read_path(mnt / ("new%d" % (n % 3))) == b"%d" % n


def test_what_it_was_limited_to_ends_with_it(own):
    """The daemon keeps nothing of processes that have ended, but for a few."""
    before = len(os.listdir(f"/proc/{own.mount.pid}/fd"))
    worker = own.worker()
    say(worker, own, b"0")
    script = 'i=0; while [ $i -lt 200 ]; do (exec sh -c "echo 1s > $1"); i=$((i+1)); done'
    assert run("sh", "-c", script, "sh", control(own)).returncode == 0
    assert len(os.listdir(f"/proc/{own.mount.pid}/fd")) - before < 60
    own.declare("key")
    assert worker.begin("read_path", own / "key").error() == "ETIMEDOUT", "it is still said of him"
    own.waiting_reader(own / "key")


@pytest.mark.needs_root
def test_other_users_limit_themselves(mnt):
    mnt.declare("key")
    worker = mnt.worker(uid=NOBODY)
    say(worker, mnt, b"0")
    assert worker.begin("read_path", mnt / "key").error() == "ETIMEDOUT"
    mnt.waiting_reader(mnt / "key", uid=NOBODY)


# ---- the command -----------------------------------------------------------------------------------------------------

def test_run_limits_a_command(mnt):
    mnt.declare("key")
    done = limited(mnt, "0", "cat", "key")
    assert done.returncode == 1 and TIMED_OUT in done.stderr and done.stderr.count("\n") == 1
    assert state(mnt / "key") == "pending"
    assert limited(mnt, "0", "sh", "-c", "exit 7").returncode == 7
    assert limited(mnt, "20ms", binary(), "get", "key").returncode == 124
    assert limited(mnt, "0", "cat", control(mnt)).stdout == "0\n"


def test_run_finds_the_mount_of_its_keys(mnt):
    mnt.put("key", b"data")
    words = ["run", "--wait-timeout", "1m", "--borrow", mnt / "key", "cat", control(mnt)]
    assert promisefs(*words, cwd="/").stdout == "1m\n"
    assert promisefs("-m", mnt.mount.root, "run", "--wait-timeout", "1h", "cat", control(mnt), cwd="/").stdout == "1h\n"
    done = promisefs("run", "--wait-timeout", "1m", "true", cwd="/")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "-m MOUNTPOINT" in done.stderr


@pytest.mark.parametrize("value", ["5", "soon", "-1s", "", "5s,3s", "default", "99999999999h"])
def test_run_with_a_bad_value(mnt, value):
    done = limited(mnt, value, "touch", "made")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"--wait-timeout: '{value}'" in done.stderr and not os.path.exists(mnt / "made")


def test_run_overrides_the_option_to_less(new_mount):
    mnt = new_mount("wait-timeout=1h")
    mnt.declare("key")
    assert TIMED_OUT in limited(mnt, "1ms", "cat", "key").stderr


def test_run_overrides_the_option_to_more(new_mount, start):
    mnt = new_mount("wait-timeout=0")
    mnt.declare("key")
    patient = [start("run", "--wait-timeout", limit, "--", "cat", "key", cwd=mnt.root) for limit in ("none", "1h")]
    eventually(lambda: len(waits_for(mnt, "key")) == 2)
    assert mnt.reader(mnt / "key").error() == "ETIMEDOUT"
    mnt.put("key", b"data")
    assert [command.result() for command in patient] == [(0, "data", "")] * 2


def test_the_nearest_says(mnt):
    mnt.declare("key")
    me = shlex.quote(binary())
    script = f"cat {control(mnt)}; {me} run --wait-timeout none -- " \
             f"sh -c 'cat {control(mnt)}; {me} run --wait-timeout 0 cat key'"
    done = limited(mnt, "1h", "sh", "-c", script)
    assert done.stdout == "1h\nnone\n" and TIMED_OUT in done.stderr and done.returncode == 1


@pytest.mark.parametrize("depth", [0, 1, 40])
def test_descendants(mnt, depth):
    mnt.declare("key")
    script = 'if [ $1 -gt 0 ]; then sh "$0" $(($1 - 1)); exit $?; fi; cat key | cat; cat key'
    Path(mnt / "descend").write_text(script)
    done = limited(mnt, "0", "sh", "descend", depth)
    assert done.returncode == 1 and done.stderr.count(TIMED_OUT) == 2


DAEMON = """
import os, sys
key, result, ready = sys.argv[1:]
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.read(os.open(ready, os.O_RDONLY), 1)
        try:
            os.open(key, os.O_RDONLY)
        except OSError as error:
            open(result, "w").write(f"{error.errno}")
    os._exit(0)
os.wait()
"""


def test_a_daemon_of_the_command(mnt, tmp_path):
    """Its parent has ended when it opens: it belongs to `run` then, as long as the command goes on."""
    mnt.declare("key")
    os.mkfifo(tmp_path / "ready")
    script = '"$@"; echo > "$0/ready"; until [ -s "$0/result" ]; do :; done; cat "$0/result"'
    done = limited(mnt, "0", "sh", "-c", script, tmp_path, *PYTHON, "-c", DAEMON, mnt / "key", tmp_path / "result",
                   tmp_path / "ready")
    assert (done.returncode, done.stdout) == (0, f"{errno.ETIMEDOUT}")


def test_run_reaps_what_it_was_left(mnt):
    script = "for n in 1 2 3 4 5; do (sleep 0 &) ; done; " \
             "while [ $(wc -w < /proc/$PPID/task/$PPID/children) -gt 1 ]; do :; done; exit 3"
    done = limited(mnt, "0", "sh", "-c", script, timeout=10)
    assert (done.returncode, done.stdout) == (3, "")


def test_run_that_is_killed_leaves_the_limit(mnt, start):
    """The process of the command has said it, too."""
    mnt.declare("key")
    script = 'echo ready; read line < "$0"; cat key; echo $?'
    os.mkfifo(fifo := os.fspath(mnt.mount.base / "fifo"))
    command = start("run", "--wait-timeout", "0", "--", "sh", "-c", script, fifo, cwd=mnt.root)
    assert command.process.stdout.readline() == "ready\n"
    os.kill(command.pid, signal.SIGKILL)
    command.process.wait(10)
    Path(fifo).write_text("go\n")
    assert command.process.stdout.read() == "1\n" and TIMED_OUT in command.process.stderr.read()
    os.unlink(fifo)


@pytest.mark.parametrize("argv", [["cp", "-r", "tree", "copy"], ["tar", "cf", "-", "tree"],
                                  ["grep", "-r", "data", "tree"],
                                  ["find", "tree", "-type", "f", "-exec", "cat", "{}", ";"],
                                  ["sh", "-c", "cat tree/*/*"]], ids=lambda argv: "-".join(argv[:2]))
def test_programs_that_read_a_whole_tree_end_by_themselves(mnt, argv):
    for n in range(20):
        os.makedirs(mnt / f"tree/{n % 4}", exist_ok=True)
        if n % 2:
            mnt.declare(f"tree/{n % 4}/{n}")
        else:
            mnt.put(f"tree/{n % 4}/{n}", b"data\n")
    done = limited(mnt, "0", *argv, timeout=20)
    if argv[0] in ("cp", "sh"):
        assert done.returncode == 1 and TIMED_OUT in done.stderr
    if argv[0] in ("find", "sh"):
        assert done.stdout.count("data\n") == 10, "what is ready was read"


@pytest.mark.needs_root
def test_in_a_pid_namespace(mnt):
    """What a container of the command opens is limited, and a container limits itself."""
    mnt.declare("key")
    done = limited(mnt, "0", "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "cat key; echo $$")
    assert TIMED_OUT in done.stderr and done.stdout == "1\n"
    script = f"echo 1ms > {control(mnt)}; (cat key); cat {control(mnt)}"
    done = run("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", script, cwd=mnt.root)
    assert TIMED_OUT in done.stderr and done.stdout == "1ms\n"


def test_run_on_a_mount_that_is_read_only(new_mount):
    before = new_mount()
    before.declare("key")
    before.mount.stop()
    mnt = new_mount("ro,wait-timeout=0", store=before.mount.store)
    assert mnt.reader(mnt / "key").error() == "ETIMEDOUT"
    done = limited(mnt, "0", "true")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "-o wait-timeout" in done.stderr


def test_completion_and_help(mnt):
    assert "--wait-timeout DUR|none" in promisefs("run", "--help").stdout

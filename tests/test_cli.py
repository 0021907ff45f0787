"""The command line: every verb, its exit status, one line for each failure, JSON."""
import json
import os
import re
import signal
import subprocess

import pytest

from pfs import attr, binary, eventually, pattern, promisefs, run, set_attr, state, version

VERBS = ["mount", "umount", "put", "get", "future", "wait", "fail", "cancel", "evict", "stat", "ls", "log", "doctor",
         "help"]
KEY_VERBS = {"put": [], "get": [], "future": [], "wait": [], "fail": ["reason"], "cancel": [], "evict": [], "stat": [],
             "ls": [], "log": []}


class Command:
    """A command that runs in the background and may wait."""

    def __init__(self, *argv, **kwargs):
        self.process = subprocess.Popen([binary(), *map(str, argv)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, **kwargs)
        self.pid = self.process.pid
        self.what = argv

    @property
    def done(self):
        return self.process.poll() is not None

    @property
    def outcome(self):
        return self.process.returncode

    def result(self, timeout=20):
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def end(self):
        self.process.kill()
        self.process.communicate(timeout=10)


@pytest.fixture
def start(mnt):
    """Start a command in the background; it ends with the test."""
    commands = []

    def begin(*argv, **kwargs):
        commands.append(Command(*argv, **kwargs))
        return commands[-1]

    yield begin
    for command in commands:
        command.end()


def good(done, stdout=None):
    """The command did its work and said nothing else."""
    assert (done.returncode, done.stderr) == (0, ""), done
    if stdout is not None:
        assert done.stdout == stdout
    return done.stdout


def bad(done, verb, key, *words, status=1):
    """One line on standard error: verb, key, what, and what to do after a semicolon."""
    assert done.returncode == status and done.stderr.count("\n") == 1, done
    assert done.stderr.startswith(f"promisefs {verb}: {key}: "), done.stderr
    assert "; " in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


# ---- help and usage --------------------------------------------------------------------------------------------------

def test_version_and_help():
    assert re.match(r"promisefs \d+\.\d+", good(promisefs("--version")))
    text = good(promisefs("help"))
    for verb in VERBS:
        assert re.search(rf"^\s+{verb}\b", text, re.M), verb
    assert good(promisefs("--help")) == text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb):
    text = good(promisefs(verb, "--help"))
    assert re.search(rf"^usage: promisefs {verb}\b", text, re.M | re.I) and max(map(len, text.splitlines())) <= 80
    assert good(promisefs("help", verb)) == text


MISUSES = [[], ["nonsense"], ["help", "nonsense"], ["--nonsense"], ["get"], ["get", "--nonsense", "k"],
           ["get", "a", "b"], ["fail", "key"], ["get", "--timeout"], ["get", "--timeout", "soon", "k"],
           ["get", "--timeout", "5", "k"], ["future", "--deadline", "", "k"], ["wait"], ["doctor", "x"],
           ["put", "--json", "k"], ["stat"], ["evict"]]


@pytest.mark.parametrize("argv", MISUSES, ids=" ".join)
def test_usage_errors(argv):
    done = promisefs(*argv)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("promisefs")


@pytest.mark.parametrize("verb", list(KEY_VERBS))
def test_a_key_outside_of_any_mount(verb, tmp_path):
    bad(promisefs(verb, tmp_path / "key", *KEY_VERBS[verb]), verb, tmp_path / "key", "mount")


def test_failing_output_is_an_error(mnt):
    mnt.put("key", pattern(100_000))
    for verb in ("get", "stat", "ls"):
        with open("/dev/full", "w") as full:
            done = subprocess.run([binary(), verb, mnt / "key"], stdout=full, stderr=subprocess.PIPE, text=True,
                                  timeout=20)
        assert done.returncode == 1 and done.stderr.count("\n") == 1


# ---- put and get -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("data", [b"", b"hello\n", bytes(range(256)) * 10_000], ids=len)
def test_put_and_get(mnt, data):
    done = subprocess.run([binary(), "put", mnt / "key"], input=data, capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = subprocess.run([binary(), "get", mnt / "key"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


def test_put_sets_a_future_and_replaces(mnt, start):
    mnt.declare("key")
    reader = start("get", mnt / "key")
    mnt.assert_waits(reader)
    for text in ("first", "second"):
        good(run(binary(), "put", mnt / "key", input=text, stdin=None), "")
        assert good(promisefs("get", mnt / "key")) == text
    assert reader.result() == (0, "first", "")


def test_put_that_is_killed_publishes_nothing(mnt):
    mnt.put("key", b"old version")
    source, sink = os.pipe()
    command = subprocess.Popen([binary(), "put", mnt / "key"], stdin=source)
    os.close(source)
    os.write(sink, b"torn")
    eventually(lambda: os.path.exists(f"/proc/{command.pid}/fd/0"))
    command.send_signal(signal.SIGTERM)
    assert command.wait(20) == -signal.SIGTERM
    os.close(sink)
    assert mnt.reader(mnt / "key").result() == b"old version"


def test_put_and_get_errors(mnt):
    bad(promisefs("put", mnt / "no/key"), "put", mnt / "no/key", "no' does not exist")
    bad(promisefs("get", mnt / "key"), "get", mnt / "key")
    os.mkdir(mnt / "dir")
    bad(promisefs("put", mnt / "dir"), "put", mnt / "dir")
    bad(promisefs("get", mnt / "dir"), "get", mnt / "dir")


def test_get_times_out(mnt):
    mnt.declare("key")
    bad(promisefs("get", mnt / "key", "--timeout", "200ms"), "get", mnt / "key", status=124)
    bad(promisefs("get", "--await", "--timeout", "200ms", mnt / "other"), "get", mnt / "other", status=124)
    assert state(mnt / "key") == "pending" and not os.path.exists(mnt / "other")
    mnt.put("key", b"x")
    assert good(promisefs("get", mnt / "key", "--timeout", "0")) == "x"


def test_get_await(mnt, start):
    reader = start("get", "--await", mnt / "key")
    mnt.assert_waits(reader)
    mnt.put("key", b"hello")
    assert reader.result() == (0, "hello", "")
    assert good(promisefs("get", "--await", mnt / "key")) == "hello"


def test_get_of_a_failed_future_says_why(mnt):
    set_attr(mnt.declare("key"), "error", "ENOSPC: the disk is full")
    bad(promisefs("get", mnt / "key"), "get", mnt / "key", "the disk is full")


def test_get_is_ended_by_signals(mnt, start):
    mnt.declare("key")
    for number in (signal.SIGINT, signal.SIGTERM):
        reader = start("get", mnt / "key")
        mnt.assert_waits(reader)
        reader.process.send_signal(number)
        assert reader.process.wait(5) in (-number, 128 + number)


# ---- where a key is --------------------------------------------------------------------------------------------------

def test_relative_keys(mnt):
    os.mkdir(mnt / "dir")
    mnt.put("dir/key", b"x")
    for cwd, key in ((mnt.root, "dir/key"), (mnt / "dir", "key"), (mnt / "dir", "../dir/key"), (mnt / "dir", "./key")):
        assert good(promisefs("get", key, cwd=cwd)) == "x"


def test_keys_relative_to_a_mount(mnt):
    mnt.put("key", b"x")
    assert good(promisefs("get", "-m", mnt.mount.root, mnt.key("key"))) == "x"
    environment = {**os.environ, "PROMISEFS_MOUNT": str(mnt.mount.root)}
    assert good(promisefs("get", mnt.key("key"), env=environment)) == "x"
    assert good(promisefs("future", "-m", mnt.mount.root, mnt.key("new"))) == f"{mnt / 'new'}\n"


def test_mount_given_is_none(mnt, tmp_path):
    done = promisefs("get", "-m", tmp_path, "key")
    assert done.returncode in (1, 2) and str(tmp_path) in done.stderr


@pytest.mark.parametrize("name", ["with space", "new\nline", "-dash", "\udcff", "quote'\"", "*"], ids=ascii)
def test_odd_names(mnt, name):
    path = f"{mnt.root}/{name}"
    good(promisefs("future", path))
    good(run(binary(), "put", path, input="x", stdin=None))
    assert good(promisefs("get", path)) == "x"
    assert name in good(promisefs("ls", mnt.root))
    for verb in ("stat", "ls", "log"):
        for entry in lines(good(promisefs(verb, "--json", path))):
            assert "\udcff" in name or entry["key"] == mnt.key(name)
    good(promisefs("evict", path))


# ---- futures ---------------------------------------------------------------------------------------------------------

def test_future_prints_the_path(mnt):
    assert good(promisefs("future", mnt / "key")) == f"{mnt / 'key'}\n"
    assert state(mnt / "key") == "pending"
    assert good(promisefs("future", mnt / "key")) == f"{mnt / 'key'}\n"


def test_future_with_a_deadline(mnt):
    good(promisefs("future", mnt / "key", "--deadline", "300ms"))
    assert attr(mnt / "key", "deadline")
    bad(promisefs("get", mnt / "key"), "get", mnt / "key", status=124)
    assert state(mnt / "key") == "failed"


def test_future_errors(mnt):
    mnt.put("key", b"x")
    mnt.becomes("key", "ready")
    bad(promisefs("future", mnt / "key"), "future", mnt / "key")
    bad(promisefs("future", mnt / "no/key"), "future", mnt / "no/key")
    assert version(mnt / "key") == 1


@pytest.mark.parametrize("reason, code", [("it broke", "EIO"), ("ENOLINK: gone", "ENOLINK"), ("EPERM", "EPERM")])
def test_fail(mnt, start, reason, code):
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    good(promisefs("fail", mnt / "key", reason), "")
    assert reader.error() == code


def test_cancel(mnt):
    mnt.declare("key")
    reader = mnt.waiting_reader(mnt / "key")
    good(promisefs("cancel", mnt / "key"), "")
    assert reader.error() == "ECANCELED" and not os.path.exists(mnt / "key")


def test_fail_and_cancel_and_evict_errors(mnt):
    mnt.put("ready", b"x")
    mnt.becomes("ready", "ready")
    bad(promisefs("fail", mnt / "ready", "too late"), "fail", mnt / "ready")
    bad(promisefs("cancel", mnt / "ready"), "cancel", mnt / "ready")
    for verb, rest in (("fail", ["x"]), ("cancel", []), ("evict", [])):
        bad(promisefs(verb, mnt / "none", *rest), verb, mnt / "none")
    assert mnt.get("ready") == b"x"


def test_evict_many(mnt):
    keys = [mnt.put(f"key{number}", b"x") for number in range(5)]
    good(promisefs("evict", *keys), "")
    assert os.listdir(mnt.root) == []


def test_evict_goes_on_after_a_failure(mnt):
    mnt.put("key", b"x")
    bad(promisefs("evict", mnt / "none", mnt / "key"), "evict", mnt / "none")
    assert os.listdir(mnt.root) == []


# ---- wait ------------------------------------------------------------------------------------------------------------

def waits_in_epoll(command):
    """True if the command sleeps; it waits for the descriptors of all its keys."""
    with open(f"/proc/{command.pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] == "S"


def test_wait_for_all(mnt, start):
    mnt.declare("a", "b")
    command = start("wait", mnt / "a", mnt / "b")
    mnt.put("b", b"x")
    assert not command.done
    mnt.put("a", b"x")
    status, out, err = command.result()
    assert (status, err) == (0, "") and sorted(out.splitlines()) == sorted([mnt / "a", mnt / "b"])


def test_wait_for_any(mnt, start):
    mnt.declare("a", "b")
    command = start("wait", "--any", mnt / "a", mnt / "b")
    eventually(lambda: waits_in_epoll(command))
    mnt.put("b", b"x")
    assert command.result() == (0, f"{mnt / 'b'}\n", "")
    assert state(mnt / "a") == "pending"


def test_wait_for_failures_and_timeouts(mnt, start):
    mnt.declare("a", "b")
    bad(promisefs("wait", mnt / "a", "--timeout", "200ms"), "wait", mnt / "a", status=124)
    command = start("wait", mnt / "a", mnt / "b")
    eventually(lambda: waits_in_epoll(command))
    set_attr(mnt / "a", "error", "broken for a reason")
    mnt.put("b", b"x")
    status, out, err = command.result()
    assert (status, out) == (1, f"{mnt / 'b'}\n") and "broken for a reason" in err and err.count("\n") == 1
    bad(promisefs("wait", mnt / "none"), "wait", mnt / "none")


def test_wait_json(mnt):
    mnt.put("a", b"x")
    set_attr(mnt.declare("b"), "error", "broken")
    done = promisefs("wait", "--json", mnt / "a", mnt / "b")
    assert done.returncode == 1
    states = {entry["key"]: entry["state"] for entry in lines(done.stdout)}
    assert states == {mnt.key("a"): "ready", mnt.key("b"): "failed"}


# ---- stat, ls, log ---------------------------------------------------------------------------------------------------

def test_stat(mnt):
    mnt.put("key", b"12345")
    mnt.declare("future")
    mnt.becomes("key", "ready")
    entries = {entry["key"]: entry for entry in lines(good(promisefs("stat", "--json", mnt / "key", mnt / "future")))}
    ready, pending = entries[mnt.key("key")], entries[mnt.key("future")]
    assert (ready["state"], ready["version"], ready["size"]) == ("ready", 1, 5)
    assert (pending["state"], pending["version"], pending["size"]) == ("pending", 0, 0)
    assert ready["id"] == int(attr(mnt / "key", "id")) and ready["producer"]["pid"] == os.getpid()
    text = good(promisefs("stat", mnt / "key", mnt / "future"))
    assert "ready" in text and "pending" in text
    bad(promisefs("stat", mnt / "none"), "stat", mnt / "none")


def test_ls(mnt):
    mnt.put("b", b"12345")
    mnt.declare("a")
    os.mkdir(mnt / "dir")
    mnt.becomes("b", "ready")
    assert good(promisefs("ls", mnt.root)).split() == ["a", "b", "dir/"]
    long = good(promisefs("ls", "-l", mnt.root))
    assert "pending" in long and "ready" in long
    entries = {entry["key"]: entry for entry in lines(good(promisefs("ls", "--json", mnt.root)))}
    assert {key: entry["state"] for key, entry in entries.items() if key != mnt.key("dir")} == {
        mnt.key("a"): "pending", mnt.key("b"): "ready"}
    assert good(promisefs("ls", cwd=mnt.root)).split() == ["a", "b", "dir/"]
    assert good(promisefs("ls", "--json", mnt / "dir")) == ""
    bad(promisefs("ls", mnt / "none"), "ls", mnt / "none")


def test_log(mnt):
    mnt.declare("key")
    mnt.put("key", b"x")
    mnt.becomes("key", "ready")
    events = lines(good(promisefs("log", "--json", mnt / "key")))
    assert [event["event"] for event in events] == ["declare", "put"]
    text = good(promisefs("log", mnt / "key"))
    assert "declare" in text and "put" in text and str(os.getpid()) in text
    assert mnt.key("key") in [event["key"] for event in lines(good(promisefs("log", "--json", cwd=mnt.root)))]


def test_log_follow(mnt, start):
    mnt.put("key", b"1")
    mnt.versions("key", 1)
    command = start("log", "--follow", "--json", mnt / "key")
    assert json.loads(command.process.stdout.readline())["version"] == 1
    mnt.put("other", b"x")
    mnt.put("key", b"2")
    assert json.loads(command.process.stdout.readline())["version"] == 2


# ---- doctor ----------------------------------------------------------------------------------------------------------

def test_doctor():
    text = good(promisefs("doctor"))
    for word in ("fuse", "passthrough"):
        assert word in text.lower()
    assert lines(good(promisefs("doctor", "--json")))

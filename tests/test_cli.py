"""The command line: every verb, its exit status, one line for each failure, JSON."""
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from pfs import NOBODY, attr, binary, eventually, pattern, promisefs, run, set_attr, state, version

VERBS = ["mount", "umount", "put", "get", "future", "wait", "fail", "cancel", "evict", "lifetime", "lease", "run",
         "stat", "ls", "log", "stats", "doctor", "fsck", "gc", "backup", "help"]
KEY_VERBS = {"put": [], "get": [], "future": [], "wait": [], "fail": ["reason"], "cancel": [], "evict": [], "lease": [],
             "stat": [], "ls": [], "log": []}


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
           ["fsck"], ["fsck", "a", "b"], ["fsck", "--online", "--repair", "s"], ["gc"], ["gc", "--events", "x", "s"],
           ["gc", "-o", "nonsense", "s"], ["backup", "s"], ["backup", "a", "b", "c"],
           ["put", "--json", "k"], ["stat"], ["evict"], ["lifetime"], ["lifetime", "nonsense"], ["lifetime", "begin"],
           ["lifetime", "begin", "a", "b"], ["lifetime", "begin", "a/b"], ["lifetime", "begin", ".."],
           ["lifetime", "begin", "self"], ["lifetime", "add", "self", "k"], ["lifetime", "add", "a"],
           ["lifetime", "add", "a/b", "k"], ["lifetime", "end"], ["lifetime", "end", "a", "--lease", "1s"],
           ["lifetime", "begin", "a", "--json"], ["lifetime", "begin", "a", "--lease"], ["lifetime", "list", "a", "b"],
           ["lease"], ["lease", "k", "1s", "2s"], ["lease", "--lifetime", "a/b"], ["lease", "--json", "k", "1s"]]


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


# ---- lifetimes and leases --------------------------------------------------------------------------------------------

def unique(mnt, name):
    """A name for a lifetime that only this test uses: all of a mount are in one place."""
    return f"{name}-{mnt.prefix}"


def lifetime(mnt, *argv, **kwargs):
    return promisefs("lifetime", *argv, cwd=mnt.root, **kwargs)


def begin(mnt, name, *options):
    """Begin a lifetime: (its name, its directory)."""
    name = unique(mnt, name)
    path = good(lifetime(mnt, "begin", name, *options)).rstrip("\n")
    assert path == os.path.join(mnt.mount.control, "lifetimes", name)
    return name, path


def names_in(mnt, name):
    return [entry["name"] for entry in lines(good(lifetime(mnt, "list", "--json", name)))]


def of_lifetime(mnt, name):
    """What `lifetime list` says of one, or None."""
    found = [entry for entry in lines(good(lifetime(mnt, "list", "--json"))) if entry["lifetime"] == name]
    return found[0] if found else None


def test_a_lifetime_from_begin_to_end(mnt):
    mnt.put("a", b"x")
    mnt.put("b", b"x")
    mnt.declare("future")
    name, path = begin(mnt, "job")
    good(lifetime(mnt, "add", name, "a", mnt / "future"), "")
    assert sorted(os.listdir(path)) == names_in(mnt, name) == ["a", "future"]
    waiter = mnt.waiting_reader(mnt / "future")
    good(lifetime(mnt, "end", name), "")
    assert waiter.error() == "ECANCELED"
    assert os.listdir(mnt.root) == ["b"] and not os.path.exists(path)


def test_lifetimes_of_another_mount_than_that_of_the_current_directory(mnt, tmp_path):
    mnt.put("key", b"x")
    mount, name = mnt.mount.root, unique(mnt, "job")
    bad(promisefs("lifetime", "begin", name, cwd=tmp_path), "lifetime", ".", "-m MOUNTPOINT")
    good(promisefs("lifetime", "begin", "-m", mount, name, cwd=tmp_path))
    good(promisefs("lifetime", "add", name, mnt / "key", cwd=tmp_path), "")
    good(promisefs("lease", "-m", mount, "--lifetime", name, "1h", cwd=tmp_path), "")
    good(promisefs("lifetime", "end", name, cwd=tmp_path, env={**os.environ, "PROMISEFS_MOUNT": str(mount)}), "")
    assert os.listdir(mnt.root) == []


def test_names_in_a_lifetime(mnt):
    os.mkdir(mnt / "d")
    for key in ("key", "d/key", "d/other"):
        mnt.put(key, key.encode())
    name, path = begin(mnt, "job")
    whole = mnt.key("d/key").replace("/", ":")
    good(lifetime(mnt, "add", name, "key", "d/key", "d/other"), "")
    assert set(names_in(mnt, name)) == {"key", "other", whole}
    with open(os.path.join(path, whole)) as file:
        assert file.read() == "d/key"
    good(lifetime(mnt, "add", name, "key", "d/key", "d/other"), "")
    assert len(os.listdir(path)) == 3, "they were in it already"
    os.unlink(mnt / "d/key")
    mnt.put(whole, b"")
    mnt.put("d/key", b"")
    good(lifetime(mnt, "add", name, whole), "")
    bad(lifetime(mnt, "add", name, "d/key"), "lifetime", "d/key", name, "taken", "ln d/key")
    good(lifetime(mnt, "end", name), "")
    assert os.listdir(mnt.root) == ["d"] and os.listdir(mnt / "d") == ["key"]


def test_a_replaced_key_is_still_in_its_lifetime(mnt):
    mnt.put("key", b"1")
    name, path = begin(mnt, "job")
    good(lifetime(mnt, "add", name, "key"), "")
    mnt.put("key", b"2")
    mnt.versions("key", 2)
    good(lifetime(mnt, "add", name, "key"), "")
    assert os.listdir(path) == ["key"]
    good(lifetime(mnt, "end", name))


def test_a_lifetime_with_a_lease(mnt):
    mnt.put("key", b"x")
    name, path = begin(mnt, "job", "--lease", "1h")
    assert attr(path, "lease") and good(promisefs("lease", path)).startswith("20")
    good(lifetime(mnt, "add", name, "key"))
    good(promisefs("lease", path, "100ms"), "")
    eventually(lambda: not os.path.exists(mnt / "key") and not os.path.exists(path))


def test_list_of_lifetimes(mnt):
    mnt.put("key", b"x")
    mnt.declare("future")
    name, path = begin(mnt, "job")
    empty, empty_path = begin(mnt, "empty", "--lease", "1h")
    good(lifetime(mnt, "add", name, "key", "future"))
    assert of_lifetime(mnt, name) == {"lifetime": name, "path": path, "members": 2, "lease": None}
    there = of_lifetime(mnt, empty)
    assert (there["path"], there["members"]) == (empty_path, 0) and re.fullmatch(r"20\d\d-.*Z", there["lease"])
    members = [(entry["lifetime"], entry["name"], entry["state"], entry["id"])
               for entry in lines(good(lifetime(mnt, "list", "--json", name)))]
    assert members == [(name, "future", "pending", int(attr(mnt / "future", "id"))),
                       (name, "key", "ready", int(attr(mnt / "key", "id")))]
    text = good(lifetime(mnt, "list"))
    assert re.search(rf"^ *2 +- +{name}$", text, re.M) and re.search(rf"^ *0 +20\S+Z +{empty}$", text, re.M)
    assert re.fullmatch(r"pending +\d+ +future\nready +\d+ +key\n", good(lifetime(mnt, "list", name)))
    assert good(lifetime(mnt, "list", empty)) == ""
    for each in (name, empty):
        good(lifetime(mnt, "end", each))


def test_lifetime_errors(mnt):
    mnt.put("key", b"x")
    os.mkdir(mnt / "dir")
    name, none = unique(mnt, "job"), unique(mnt, "none")
    bad(lifetime(mnt, "begin", name, "--lease", "soon"), "lifetime", name, "soon", status=2)
    assert of_lifetime(mnt, name) is None
    _, path = begin(mnt, "job")
    bad(lifetime(mnt, "begin", name), "lifetime", name, "already", f"promisefs lifetime end {name}")
    for argv in (["end", none], ["list", none], ["add", none, "key", "nokey", "dir"]):
        bad(lifetime(mnt, *argv), "lifetime", none, "no such lifetime", "promisefs lifetime list")
    bad(lifetime(mnt, "add", name, "dir"), "lifetime", "dir", "directory")
    bad(lifetime(mnt, "add", name, "no/key"), "lifetime", "no/key", "no' does not exist")
    bad(lifetime(mnt, "add", name, "nokey", "key"), "lifetime", "nokey", "no such key")
    assert os.listdir(path) == ["key"], "the others are added all the same"
    bad(lifetime(mnt, "begin", "x" * 256), "lifetime", "x" * 256, "too long")
    good(lifetime(mnt, "end", name))


@pytest.mark.needs_root
def test_lifetimes_of_other_users(mnt, scratch, numbers):
    copy = shutil.copy(binary(), scratch / f"promisefs-{next(numbers)}")
    os.chmod(copy, 0o755)

    def nobody(*argv):
        return run(copy, *argv, cwd=mnt.root, user=NOBODY, group=NOBODY, extra_groups=[])

    key = mnt.put("key", b"x")
    os.chmod(key, 0o644)
    name, path = begin(mnt, "job")
    mine = unique(mnt, "mine")
    good(nobody("lifetime", "begin", mine))
    bad(nobody("lifetime", "add", mine, "key"), "lifetime", "key", "not permitted", "owner of the key")
    bad(nobody("lifetime", "end", name), "lifetime", name, "not permitted", "who began it")
    bad(nobody("lease", "--lifetime", name, "1s"), "lease", name, "not permitted", "who began it")
    bad(nobody("lease", "key", "1s"), "lease", "key", "permission denied")
    os.chmod(key, 0o666)
    good(nobody("lifetime", "add", mine, "key"), "")
    bad(nobody("lifetime", "add", name, "key"), "lifetime", name, "not permitted")
    os.chmod(path, 0o700)
    bad(nobody("lifetime", "list", name), "lifetime", name, "not permitted")
    there = [entry for entry in lines(good(nobody("lifetime", "list", "--json"))) if entry["lifetime"] == name]
    assert [entry["members"] for entry in there] == [None]
    good(nobody("lifetime", "end", mine), "")
    assert os.listdir(mnt.root) == []
    good(lifetime(mnt, "end", name))


def seconds_left(text):
    """From now until a time that the command printed."""
    when = datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text.strip()).replace("Z", "+00:00"))
    return when.timestamp() - time.time()


def test_lease(mnt):
    key = mnt.put("key", b"x")
    assert good(promisefs("lease", key)) == "none\n"
    assert lines(good(promisefs("lease", "--json", key))) == [{"key": mnt.key("key"), "lease": None}]
    good(promisefs("lease", key, "100s"), "")
    assert 50 < seconds_left(good(promisefs("lease", key))) <= 100
    good(promisefs("lease", key, "+100s"), "")
    assert 150 < seconds_left(good(promisefs("lease", key))) <= 201
    good(promisefs("lease", key, "2100-01-02T03:04:05Z"), "")
    [entry] = lines(good(promisefs("lease", "--json", key)))
    assert entry["key"] == mnt.key("key")
    assert abs(seconds_left(entry["lease"]) - seconds_left("2100-01-02T03:04:05Z")) < 5
    good(promisefs("lease", key, "none"), "")
    assert good(promisefs("lease", key)) == "none\n"
    good(promisefs("lease", key, "100ms"), "")
    eventually(lambda: not os.path.exists(key))
    assert [event["event"] for event in lines(good(promisefs("log", "--json", key)))] == ["put", "expire"]


@pytest.mark.parametrize("value", ["soon", "5", "+", "+none", "10x", "2026-01-02", "++5s"])
def test_malformed_leases(mnt, value):
    key = mnt.put("key", b"x")
    bad(promisefs("lease", key, value), "lease", key, f"'{value}'", status=2)
    assert attr(key, "lease") is None


def test_lease_errors(mnt):
    none = unique(mnt, "none")
    path = os.path.join(mnt.mount.control, "lifetimes", none)
    for rest in ([], ["5s"]):
        bad(promisefs("lease", mnt / "none", *rest), "lease", mnt / "none", "no such key")
        bad(promisefs("lease", path, *rest), "lease", path, "no such lifetime")
        bad(promisefs("lease", "--lifetime", none, *rest, cwd=mnt.root), "lease", none, "no such lifetime")
    bad(promisefs("lease", mnt.mount.root, "5s"), "lease", mnt.mount.root, "cannot have a lease", "lifetime")


def test_stat_shows_leases_and_lifetimes(mnt):
    key = mnt.put("key", b"x")
    mnt.becomes("key", "ready")
    text = good(promisefs("stat", key))
    assert not re.search(r"^  (lease|lifetimes) ", text, re.M)
    [entry] = lines(good(promisefs("stat", "--json", key)))
    assert (entry["lease"], entry["lifetimes"]) == (None, None)
    names = [begin(mnt, name)[0] for name in ("a", "b")]
    for name in names:
        good(lifetime(mnt, "add", name, key))
    good(promisefs("lease", key, "1h"))
    text = good(promisefs("stat", key))
    assert re.search(r"^  lease     20\S+Z$", text, re.M)
    assert sorted(re.search(r"^  lifetimes (.+)$", text, re.M)[1].split("/")) == names
    [entry] = lines(good(promisefs("stat", "--json", key)))
    assert sorted(entry["lifetimes"]) == names and 3000 < seconds_left(entry["lease"]) <= 3600
    for name in names:
        promisefs("lifetime", "end", name, cwd=mnt.root)


# ---- completion ------------------------------------------------------------------------------------------------------

def completions(*words, **kwargs):
    return good(promisefs("--complete", len(words), "promisefs", *words, **kwargs)).splitlines()


def test_completion(mnt):
    name, _ = begin(mnt, "job")
    assert completions("li") == ["lifetime"]
    assert completions("lifetime", "") == ["begin", "add", "end", "list"]
    assert completions("lifetime", "begin", "--l") == ["--lease"]
    assert completions("lifetime", "begin", "") == []
    for words in (["lifetime", "add"], ["lifetime", "end"], ["lifetime", "list"], ["lease", "--lifetime"]):
        assert name in completions(*words, "", cwd=mnt.root)
        assert completions("-m", mnt.mount.root, *words, name) == [name]
    assert completions("lifetime", "add", name, "") == completions("lease", "") == ["@files"]
    good(lifetime(mnt, "end", name))


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


# ---- stats -----------------------------------------------------------------------------------------------------------

def test_stats(own):
    own.declare("key")
    reader = own.waiting_reader(own / "key")
    own.put("key", b"x")
    assert reader.result() == b"x"
    for n in range(20):
        own.put(f"key{n}", b"x")
    found = {(entry["name"], entry.get("kind")): entry for entry in
             lines(good(promisefs("stats", "--json", "-m", own.mount.root)))}
    assert found["requests_total", "create"]["value"] == 21  # key was there
    creates = found["request_seconds", "create"]
    assert 0 < creates["median_ns"] <= creates["p99_ns"] and creates["sum_ns"] < 21 * 2 * creates["p99_ns"]
    assert found["wait_seconds", None]["count"] == 1 and found["wait_seconds", None]["p99_ns"] > 100_000
    commits = found["commit_operations", None]
    assert commits["count"] == found["catalog_commits_total", None]["value"] <= commits["sum"]
    assert found["drafts", None]["value"] == 0
    text = good(promisefs("stats", cwd=own.mount.root)).splitlines()
    assert text[0].split()[:3] == ["request", "count", "mean"]
    assert [line.split()[1] for line in text if line.startswith("create ")] == ["21"]
    assert re.search("changes a commit, [0-9.]+% of pages were in memory", text[-2]) and "0 waiters" in text[-1]
    bad(promisefs("stats", cwd="/"), "stats", ".", "not below a mount of promisefs")


def test_metrics_are_what_prometheus_reads(own):
    own.put("key", b"x")
    own.get("key")
    buckets, others, types = {}, {}, {}
    for line in (own.mount.control / "metrics").read_text().splitlines():
        if line.startswith("#"):
            _, what, name, rest = line.split(" ", 3)
            types.update({name: rest} if what == "TYPE" else {})
            continue
        name, labels, value = re.fullmatch(r'(promisefs_[a-z_]+)(?:\{(.*)\})? ([0-9.e+-]+)', line).groups()
        labels = dict(re.findall(r'([a-z]+)="([^"]*)"', labels or ""))
        if name.endswith("_bucket"):
            buckets.setdefault((name[:-7], labels.get("kind")), []).append((float(labels["le"]), int(value)))
        else:
            others[name, labels.get("kind")] = float(value)
    assert ("promisefs_commit_seconds", None) in buckets and ("promisefs_request_seconds", "open") in buckets
    for (name, kind), found in buckets.items():
        assert types[name] == "histogram"
        assert found == sorted(found) and [count for _, count in found] == sorted(count for _, count in found)
        assert found[-1] == (float("inf"), others[f"{name}_count", kind])
        assert (others[f"{name}_sum", kind] > 0) == (found[-1][1] > 0)
    assert types["promisefs_requests_total"] == "counter" and types["promisefs_drafts"] == "gauge"


# ---- doctor ----------------------------------------------------------------------------------------------------------

def test_doctor():
    text = good(promisefs("doctor"))
    for word in ("fuse", "passthrough"):
        assert word in text.lower()
    assert lines(good(promisefs("doctor", "--json")))


# ---- run -------------------------------------------------------------------------------------------------------------

JOB = 'echo x > "$1/key"; ln "$1/key" "$PROMISEFS_LIFETIME/"; '


def in_lifetime(mnt, script, *options):
    return promisefs("run", "-m", mnt.mount.root, "--lifetime", "job", *options, "--",
                     "sh", "-c", JOB + script, "sh", mnt.root)


def lifetimes(mnt):
    return os.listdir(mnt.mount.control / "lifetimes")


@pytest.mark.parametrize("script, status", [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_run_ends_its_lifetime(own, script, status):
    done = in_lifetime(own, 'test -e "$1/key" && ls "$PROMISEFS_LIFETIME"; ' + script)
    assert (done.returncode, done.stdout, done.stderr) == (status, "key\n", "")
    assert not os.path.exists(own / "key") and "job" not in lifetimes(own)


def test_run_that_is_killed_leaves_nothing(own, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    process = subprocess.Popen([binary(), "run", "-m", own.mount.root, "--lifetime", "job", "--", "sh", "-c",
                                JOB + 'echo $$ > "$2"; read _ < "$2"', "sh", own.root, tmp_path / "fifo"])
    command = int((tmp_path / "fifo").read_text())
    process.kill()
    process.wait()
    assert os.path.exists(own / "key"), "the command goes on"
    os.kill(command, signal.SIGKILL)
    eventually(lambda: not os.path.exists(own / "key") and "job" not in lifetimes(own))


def test_run_with_a_lease(own):
    done = in_lifetime(own, 'while test -e "$1/key"; do sleep 0.01; done; echo gone', "--lease", "100ms")
    assert (done.returncode, done.stdout) == (0, "gone\n")


def test_run_gives_the_path_of_its_lifetime(own):
    path = own.mount.control / "lifetimes/job"
    done = promisefs("run", "-m", own.mount.root, "--lifetime", "job", "printf", "%s|", "{lifetime}",
                     "a={lifetime}/{lifetime}", "--help", "")
    assert good(done) == f"{path}|a={path}/{path}|--help||"


def test_run_passes_signals_on():
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    process = subprocess.Popen([binary(), "run", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(20) == 9


def test_run_with_a_limit():
    done = promisefs("run", "--timeout", "100ms", "sleep", "600")
    bad(done, "run", "sleep", "--timeout", status=124)


@pytest.mark.parametrize("words, status", [(["no-such-command"], 127), (["/"], 126)])
def test_run_of_what_cannot_be_run(words, status):
    bad(promisefs("run", *words), "run", words[0], "PATH", status=status)


@pytest.mark.parametrize("words", [[], ["--lease", "5s", "true"], ["--lifetime", "a/b", "true"],
                                   ["--timeout", "x", "true"], ["--lifetime", "self", "true"],
                                   ["--lifetime", "L", "--lease", "tomorrow", "true"]])
def test_run_usage(own, words):
    done = promisefs("run", "-m", own.mount.root, *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert lifetimes(own) == []


def test_run_in_a_lifetime_that_there_is(own):
    os.mkdir(own.mount.control / "lifetimes/job")
    bad(in_lifetime(own, "exit 0"), "run", "job", "EEXIST")
    assert lifetimes(own) == ["job"] and not os.path.exists(own / "key")

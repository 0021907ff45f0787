"""The command line of section 6: borrow, own, release, once, and the handles of `promisefs run`."""
import contextlib
import os
import re
import signal
import subprocess
import time

import pytest

from pfs import NOBODY, attr, binary, eventually, pattern, promisefs, readable, run, set_attr, state, version
from test_cli import bad, completions, good, lines

VERBS = ["borrow", "own", "release", "once"]
EVENTS = {"borrow", "release"}


@pytest.fixture
def sleeper():
    """A process that does nothing until it is ended."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def put(mnt, key, data=b"data"):
    before = version(mnt / key) if os.path.lexists(mnt / key) else 0
    mnt.put(key, data)
    mnt.versions(key, before + 1)
    return mnt / key


def path_of(done):
    """The path that a command has printed."""
    path = good(done).rstrip("\n")
    assert os.path.lexists(path), path
    return path


def of_key(mnt, key, kind):
    """The handles of a kind that were made of a key: all of a mount are in one directory."""
    found = []
    for name in os.listdir(mnt.mount.control / kind):
        path = os.path.join(mnt.mount.control, kind, name)
        try:
            if attr(path, "owner") == mnt.key(key):
                found.append(name)
        except FileNotFoundError:
            pass
    return found


def free(mnt, key):
    return attr(mnt / key, "borrows") == "none"


def waiters(mnt, key):
    """The pids of those who wait to borrow a key."""
    return [wait["pid"] for wait in mnt.waits() if wait["key"] == mnt.key(key) and wait["state"] == "borrowed"]


def made_by(mnt, pid):
    """The handles that a `promisefs run` has made."""
    return [os.path.join(kind, name) for kind in ("own", "ref", "mut")
            for name in os.listdir(mnt.mount.control / kind) if name.startswith(f"run-{pid}-")]


def sh(mnt, *options, script, **kwargs):
    """`promisefs run OPTIONS -- sh -c SCRIPT` in the directory of the test."""
    return promisefs("run", *options, "--", "sh", "-c", script, cwd=mnt.root, **kwargs)


# ---- help and usage --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("verb", [*VERBS, "run"])
def test_help(verb):
    text = good(promisefs(verb, "--help"))
    assert text.startswith(f"Usage: promisefs {verb} ") and max(map(len, text.splitlines())) <= 80
    assert re.search(rf"^  {verb} ", good(promisefs("help")), re.M)


MISUSES = [["borrow"], ["borrow", "a", "b", "c"], ["borrow", "a", "b/c"], ["borrow", "a", ".."],
           ["borrow", "--timeout", "1s", "a"], ["borrow", "--wait", "--timeout", "soon", "a"],
           ["borrow", "--pid", "self", "a"], ["borrow", "--pid", "0", "a"], ["borrow", "--pid", "-1", "a"],
           ["borrow", "--pid", "1x", "a"], ["borrow", "--lease", "soon", "a"], ["borrow", "--json", "a"],
           ["own"], ["own", "a", "b/c"], ["own", "--to", "a"], ["own", "--to", "a", "own/b", "c"],
           ["own", "--to", "a", "--lease", "1s", "own/b"], ["own", "--to", "a", "--pid", "1", "own/b"],
           ["own", "--pid", "x", "a"], ["own", "--lease", "x", "a"], ["release"], ["once"], ["once", "a", "b"],
           ["run", "--wait", "true"], ["run", "--borrow", "true"], ["run", "--borrow", "", "true"],
           ["run", "--borrow", "x=", "true"]]


@pytest.mark.parametrize("argv", MISUSES, ids=" ".join)
def test_usage_errors(argv):
    done = promisefs(*argv)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"promisefs {argv[0]}: ")


@pytest.mark.parametrize("words", [["--borrow", "lifetime=a", "true"], ["--own", "MOUNT=a", "true"],
                                   ["--borrow", "x=a", "--once", "X=b", "true"],
                                   ["--borrow", "a", "--borrow-mut", "./a", "true"],
                                   ["--own", "a", "--own", "a", "true"],
                                   ["--produce", "a", "--borrow", "a", "true"],
                                   ["--borrow", "a", "--borrow", "b", "echo", "{}{}", "{}"],
                                   ["--produce", "new", "--lease", "1s", "true"],
                                   ["--borrow", "a", "--lease", "soon", "true"],
                                   ["--produce", "new", "--wait", "true"]], ids=" ".join)
def test_run_usage(mnt, words):
    put(mnt, "a")
    put(mnt, "b")
    done = promisefs("run", *words, cwd=mnt.root)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("promisefs run: "), done
    assert sorted(os.listdir(mnt.root)) == ["a", "b"] and free(mnt, "a")


@pytest.mark.parametrize("verb", VERBS)
def test_a_key_outside_of_any_mount(verb, tmp_path):
    bad(promisefs(verb, tmp_path / "key"), verb, tmp_path / "key", "mount")


@pytest.mark.core
# ---- borrow and release ----------------------------------------------------------------------------------------------

def test_borrow_to_read(mnt):
    key = put(mnt, "key", b"one")
    path = path_of(promisefs("borrow", key))
    assert re.fullmatch(re.escape(str(mnt.mount.control / "ref")) + r"/borrow-\d+-\d+", path)
    assert mnt.get(path) == b"one" and attr(path, "owner") == mnt.key("key")
    second = path_of(promisefs("borrow", "key", mnt.prefix + "R", cwd=mnt.root))
    assert second == mnt.handle("ref", "R") and attr(key, "borrows") == "ref 2"
    bad(promisefs("borrow", "--mut", key), "borrow", key, "borrowed by 2", "EBUSY", "--wait")
    bad(promisefs("evict", key), "evict", key, "borrowed")
    bad(run(binary(), "put", key, input="no", stdin=None), "put", key, "EBUSY")
    good(promisefs("release", path, f"ref/{mnt.prefix}R", cwd=mnt.root), "")
    assert free(mnt, "key") and not os.path.lexists(path) and not os.path.lexists(second)
    assert [event["event"] for event in mnt.history("key") if event["event"] in EVENTS] == [
        "borrow", "borrow", "release", "release"]


@pytest.mark.core
def test_borrow_to_write(mnt):
    key = put(mnt, "key", b"one")
    path = path_of(promisefs("borrow", "--mut", key))
    assert path.startswith(f"{mnt.mount.control}/mut/borrow-") and attr(key, "borrows") == "mut"
    for options in ([], ["--mut"]):
        bad(promisefs("borrow", *options, key), "borrow", key, "mutably borrowed", "EBUSY")
    bad(promisefs("get", key), "get", key, "EBUSY")
    good(run(binary(), "put", path, input="two", stdin=None), "")
    assert good(promisefs("get", path)) == "two"
    good(promisefs("release", "-m", mnt.mount.root, f"mut/{os.path.basename(path)}"), "")
    assert good(promisefs("get", key)) == "two" and free(mnt, "key")


def test_borrow_of_an_owner_handle(mnt):
    put(mnt, "key", b"one")
    own = path_of(promisefs("own", mnt / "key"))
    path = path_of(promisefs("borrow", own))
    assert mnt.get(path) == b"one" and attr(path, "owner") == os.path.relpath(own, mnt.mount.root)
    bad(promisefs("release", own), "release", own, "EBUSY", "release these first")
    good(promisefs("release", path, own), "")
    assert not os.path.lexists(own)


@pytest.mark.core
def test_borrow_waits_for_its_turn(mnt, start):
    key = put(mnt, "key")
    path = path_of(promisefs("borrow", "--mut", key))
    waiter = start("borrow", "--wait", "--timeout", "1h", key, mnt.prefix + "W")
    mnt.assert_waits(waiter)
    bad(promisefs("borrow", key), "borrow", key, "EBUSY")
    good(promisefs("release", path), "")
    assert waiter.result() == (0, mnt.handle("ref", "W") + "\n", "")
    good(promisefs("borrow", "--wait", key, mnt.prefix + "V"), mnt.handle("ref", "V") + "\n")
    assert attr(key, "borrows") == "ref 2"
    good(promisefs("release", mnt.handle("ref", "W"), mnt.handle("ref", "V")))


@pytest.mark.parametrize("limit", ["0", "200ms"])
def test_borrow_that_waits_too_long(mnt, limit):
    key = put(mnt, "key")
    path = path_of(promisefs("borrow", key))
    bad(promisefs("borrow", "--mut", "--wait", "--timeout", limit, key), "borrow", key, "still borrowed by 1",
        "--timeout", status=124)
    assert attr(key, "borrows") == "ref 1" and of_key(mnt, "key", "mut") == [] and not waiters(mnt, "key")
    good(promisefs("release", path))


def test_borrow_that_waits_is_ended_by_signals(mnt, start):
    key = put(mnt, "key")
    path = path_of(promisefs("borrow", key))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        waiter = start("borrow", "--mut", "--wait", key)
        mnt.assert_waits(waiter)
        os.kill(waiter.pid, number)
        assert waiter.result()[0] == -number
    eventually(lambda: of_key(mnt, "key", "mut") == [], what="nothing is in line any more")
    good(promisefs("release", path))
    assert free(mnt, "key")


def test_borrow_with_a_lease(mnt):
    key = put(mnt, "key")
    path = path_of(promisefs("borrow", "--lease", "1h", key))
    assert attr(path, "lease").startswith("20") and attr(key, "lease") is None
    good(promisefs("lease", path, "50ms"), "")
    eventually(lambda: free(mnt, "key") and not os.path.lexists(path))
    assert os.path.exists(key)


def test_borrow_for_a_process(mnt, sleeper):
    key = put(mnt, "key")
    path = path_of(promisefs("borrow", "--mut", "--pid", sleeper.pid, key))
    assert attr(path, "pid") == str(sleeper.pid) and attr(key, "borrows") == "mut"
    sleeper.kill()
    eventually(lambda: free(mnt, "key") and not os.path.lexists(path))
    sleeper.wait()
    bad(promisefs("borrow", "--pid", sleeper.pid, key), "borrow", key, f"no process {sleeper.pid}")
    assert free(mnt, "key")


def test_borrow_errors(mnt):
    key = put(mnt, "key")
    os.mkdir(mnt / "dir")
    os.symlink("key", mnt / "link")
    mnt.declare("future")
    ref = path_of(promisefs("borrow", key, mnt.prefix + "R"))
    bad(promisefs("borrow", mnt / "none"), "borrow", mnt / "none", "no such key")
    for name in ("dir", "link"):
        bad(promisefs("borrow", mnt / name), "borrow", mnt / name, "not a file", "EPERM")
    bad(promisefs("borrow", ref), "borrow", ref, "only what owns", "stat")
    bad(promisefs("borrow", key, mnt.prefix + "R"), "borrow", key, f"ref/{mnt.prefix}R already", "another name")
    bad(promisefs("borrow", mnt / "future"), "borrow", mnt / "future", "pending, not ready")
    bad(promisefs("borrow", key, "x" * 256), "borrow", key, "too long")
    good(promisefs("release", ref), "")
    worker, fd = mnt.writer("key", b"new")
    bad(promisefs("borrow", key), "borrow", key, "being written")
    worker.close(fd)


def test_release_errors(mnt):
    key = put(mnt, "key")
    path = path_of(promisefs("borrow", key))
    none = mnt.handle("ref", "none")
    done = promisefs("release", none, key, f"own/{mnt.prefix}none", path, cwd=mnt.root)
    first, second, third = done.stderr.splitlines()
    assert done.returncode == 1 and "no such handle" in first and "no such handle" in third
    assert "not a handle" in second and "promisefs evict" in second
    assert free(mnt, "key") and os.path.exists(key), "the others are released all the same"


@pytest.mark.needs_root
def test_handles_of_other_users(mnt, scratch, numbers):
    copy = scratch / f"promisefs-{next(numbers)}"
    copy.write_bytes(open(binary(), "rb").read())
    copy.chmod(0o755)

    def nobody(*argv):
        return run(copy, *argv, cwd=mnt.root, user=NOBODY, group=NOBODY, extra_groups=[])

    key = put(mnt, "key")
    os.chmod(key, 0o600)
    done = nobody("borrow", "key")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and ("EACCES" in done.stderr or "EPERM" in done.stderr)
    os.chmod(key, 0o666)
    mine = path_of(promisefs("borrow", key))
    bad(nobody("release", mine), "release", mine, "somebody else's")
    theirs = path_of(nobody("borrow", "key"))
    assert os.stat(theirs).st_uid == NOBODY
    bad(nobody("borrow", "--pid", str(os.getpid()), "key"), "borrow", "key", "somebody else's")
    assert attr(key, "borrows") == "ref 2"
    good(nobody("release", theirs), "")
    good(promisefs("release", mine), "")


@pytest.mark.core
# ---- own -------------------------------------------------------------------------------------------------------------

def test_own_and_back(mnt):
    put(mnt, "data.gz", b"one")
    path = path_of(promisefs("own", mnt / "data.gz"))
    assert re.fullmatch(re.escape(str(mnt.mount.control / "own")) + r"/own-\d+-1-data\.gz", path)
    assert os.listdir(mnt.root) == [] and mnt.get(path) == b"one"
    put(mnt, "old", b"old")
    good(promisefs("own", "--to", mnt / "old", path), "")
    assert mnt.get("old") == b"one" and not os.path.lexists(path)
    path = path_of(promisefs("own", "old", mnt.prefix + "X", cwd=mnt.root))
    assert path == mnt.handle("own", "X")
    good(promisefs("own", "--to", "back", f"own/{mnt.prefix}X", cwd=mnt.root), "")
    assert mnt.get("back") == b"one" and os.listdir(mnt.root) == ["back"]


def test_own_and_release(mnt):
    path = path_of(promisefs("own", put(mnt, "key")))
    good(promisefs("release", f"own/{os.path.basename(path)}", cwd=mnt.root), "")
    assert not os.path.lexists(path) and os.listdir(mnt.root) == []


def test_own_of_a_long_name_keeps_its_end(mnt):
    name = "é" * 120 + ".tar.gz"
    path = path_of(promisefs("own", put(mnt, name)))
    base = os.fsencode(os.path.basename(path))
    assert len(base) <= 255 and base.endswith("é.tar.gz".encode()) and base.decode()
    good(promisefs("release", path))


def test_own_for_a_process_or_a_time(mnt, sleeper):
    path = path_of(promisefs("own", "--pid", sleeper.pid, put(mnt, "key")))
    sleeper.kill()
    eventually(lambda: not os.path.lexists(path))
    path = path_of(promisefs("own", "--lease", "1h", put(mnt, "key")))
    assert attr(path, "lease").startswith("20")
    set_attr(path, "lease", "10ms")
    eventually(lambda: not os.path.lexists(path))
    assert os.listdir(mnt.root) == []


def test_own_errors(mnt, sleeper):
    key = put(mnt, "key", b"one")
    os.mkdir(mnt / "dir")
    none = mnt.handle("own", "none")
    bad(promisefs("own", mnt / "none"), "own", mnt / "none", "no such key")
    bad(promisefs("own", mnt / "dir"), "own", mnt / "dir", "not a file")
    os.link(key, mnt / "second")
    bad(promisefs("own", key), "own", key, "several names", "EMLINK")
    os.unlink(mnt / "second")
    eventually(lambda: os.stat(key).st_nlink == 1)
    path = path_of(promisefs("own", put(mnt, "other", b"two"), mnt.prefix + "X"))
    bad(promisefs("own", key, mnt.prefix + "X"), "own", key, f"own/{mnt.prefix}X already")
    sleeper.kill()
    sleeper.wait()
    bad(promisefs("own", "--pid", sleeper.pid, key), "own", key, f"no process {sleeper.pid}")
    assert mnt.get("key") == b"one", "it is where it was"
    bad(promisefs("own", "--to", key, none), "own", none, "no such handle")
    bad(promisefs("own", "--to", mnt / "dir", path), "own", mnt / "dir", "EISDIR")
    bad(promisefs("own", "--to", mnt / "no/key", path), "own", mnt / "no/key", "does not exist")
    bad(promisefs("own", "--to", key, mnt / "key"), "own", mnt / "key", "not a handle")
    ref = path_of(promisefs("borrow", key))
    bad(promisefs("own", "--to", key, path), "own", key, "borrowed", "EBUSY")
    bad(promisefs("own", "--to", mnt / "new", ref), "own", ref, "only borrows", f"release {ref}")
    good(promisefs("release", ref, path), "")


def test_stat_shows_owner_and_borrows(mnt):
    key = put(mnt, "key")
    text = good(promisefs("stat", key))
    assert not re.search(r"^  (owner|borrows|evict|pid) ", text, re.M)
    [entry] = lines(good(promisefs("stat", "--json", key)))
    assert (entry["owner"], entry["borrows"], entry["evict"], entry["pid"]) == (mnt.key("key"), "none", None, None)
    path = path_of(promisefs("borrow", "--pid", os.getpid(), key))
    text = good(promisefs("stat", key, path))
    assert re.search(r"^  borrows   ref 1$", text, re.M) and re.search(rf"^  owner     {mnt.key('key')}$", text, re.M)
    [entry] = lines(good(promisefs("stat", "--json", path)))
    assert (entry["owner"], entry["borrows"], entry["pid"]) == (mnt.key("key"), "ref 1", os.getpid())
    good(promisefs("release", path))
    set_attr(key, "evict", "1")
    assert re.search(r"^  evict     1$", good(promisefs("stat", key)), re.M)
    assert lines(good(promisefs("stat", "--json", key)))[0]["evict"] == 1


@pytest.mark.core
# ---- once ------------------------------------------------------------------------------------------------------------

def test_once(mnt):
    key = put(mnt, "key", pattern(200_000))
    done = subprocess.run([binary(), "once", key], capture_output=True, stdin=subprocess.DEVNULL, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, pattern(200_000), b"")
    eventually(lambda: not os.path.lexists(key))
    bad(promisefs("once", key), "once", key, "no such key", "taken", f"promisefs log {key}")


def test_once_waits_for_a_future(mnt, start):
    key = mnt.declare("key")
    bad(promisefs("once", "--timeout", "0", key), "once", key, "pending", status=124)
    bad(promisefs("once", "--timeout", "100ms", key), "once", key, "pending", status=124)
    first = start("once", key)
    mnt.assert_waits(first)
    second = start("once", "--timeout", "1h", key)
    mnt.assert_waits(second)
    mnt.put("key", b"x")
    assert first.result() == (0, "x", "")
    status, out, err = second.result()
    assert (status, out) == (1, "") and "no such key" in err and err.count("\n") == 1
    assert not os.path.lexists(key)


def test_once_at_once(mnt):
    key = put(mnt, "key", b"x")
    assert good(promisefs("once", "--timeout", "0", key)) == "x"
    put(mnt, "key", b"y")
    worker, fd = mnt.writer("key", b"z")
    bad(promisefs("once", "--timeout", "0", key), "once", key, "being replaced", status=124)
    worker.close(fd)


def test_once_of_what_is_borrowed(mnt):
    key = put(mnt, "key", b"x")
    path = path_of(promisefs("borrow", key))
    bad(promisefs("once", key), "once", key, "borrowed", "EBUSY")
    good(promisefs("release", path))
    assert good(promisefs("once", key)) == "x"


def test_once_gives_back_what_it_could_not_write(mnt):
    key = put(mnt, "key", pattern(1_000_000))
    with open("/dev/full", "w") as full:
        done = subprocess.run([binary(), "once", key], stdout=full, stderr=subprocess.PIPE, text=True, timeout=20)
    assert done.returncode == 1 and "there again" in done.stderr and done.stderr.count("\n") == 1
    eventually(lambda: os.path.lexists(key))
    done = run("sh", "-c", '"$1" once "$2" | head -c 1 > /dev/null', "sh", binary(), key)
    assert (done.returncode, done.stderr) == (0, "")
    eventually(lambda: os.path.lexists(key))
    assert mnt.get("key") == pattern(1_000_000)


@pytest.mark.core
def test_once_that_is_killed_gives_back(mnt, start):
    key = put(mnt, "key", pattern(1_000_000))
    command = start("once", key)
    eventually(lambda: readable(command.process.stdout.fileno()), what="it has it, and the pipe is full")
    assert not os.path.lexists(key)
    command.process.kill()
    command.process.wait()
    eventually(lambda: os.path.lexists(key))
    assert mnt.get("key") == pattern(1_000_000)


# ---- run: marks and names --------------------------------------------------------------------------------------------

def test_run_replaces_marks(mnt):
    for key in ("a", "b", "c=d"):
        put(mnt, key, key.encode())
    done = promisefs("run", "--borrow", "one=a", "--borrow", "b", "--borrow", "./c=d", "--", "sh", "-c",
                     'cat "$@"; cat "$PROMISEFS_1" "$PROMISEFS_ONE" "$PROMISEFS_2" "$PROMISEFS_3"',
                     "{other}", "{}", "{}", "{}", "{one}", cwd=mnt.root)
    assert good(done) == "abc=da" + "aabc=d"
    done = promisefs("run", "--borrow", "x=a", "printf", "%s|", "{}", "{}:{x}", "{", "}", "{y}", "{{x}}", "",
                     cwd=mnt.root)
    [handle] = set(re.findall(r"[^|{:}]+/ref/run-\d+-\d+", good(done)))
    assert done.stdout == f"{handle}|{handle}:{handle}|{{|}}|{{y}}|{{{handle}}}||"
    assert good(promisefs("run", "echo", "{}", "{a}")) == "{} {a}\n"


def test_run_does_not_take_paths_for_marks(mnt):
    os.mkdir(mnt / "{}{x}")
    put(mnt, "{}{x}/a", b"a")
    put(mnt, "b", b"b")
    done = promisefs("run", "--once", "{}{x}/a", "--once", "x=b", "cat", "{}", "{}", cwd=mnt.root)
    assert good(done) == "ab"


# ---- run: borrows ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("option, kind", [("--borrow", "ref"), ("--borrow-mut", "mut")])
@pytest.mark.parametrize("end, status", [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_run_with_a_borrow(mnt, option, kind, end, status):
    key = put(mnt, "key", b"x\n")
    done = sh(mnt, option, "key", script=f'cat {{}}; dirname {{}}; "$BIN" stat --json {{}}; {end}',
              env={**os.environ, "BIN": binary()})
    assert (done.returncode, done.stderr) == (status, "")
    text, directory, seen = done.stdout.splitlines()
    assert (text, directory) == ("x", f"{mnt.mount.control}/{kind}")
    assert f'"borrows":"{"ref 1" if kind == "ref" else "mut"}"' in seen and not re.search(r'"pid":null', seen)
    assert free(mnt, "key") and mnt.get(key) == b"x\n"


def test_run_writes_what_it_has_borrowed(mnt):
    put(mnt, "key", b"one")
    good(sh(mnt, "--borrow-mut", "key", script="echo two > {}; ! cat key 2> /dev/null"), "")
    assert mnt.get("key") == b"two\n"


@pytest.fixture
def held(mnt, start, tmp_path):
    """`promisefs run` of commands that go on until they are killed: (the run, the pid of the command)."""
    pids = []

    def begin(*options):
        fifo = tmp_path / f"fifo{len(pids)}"
        os.mkfifo(fifo)
        command = start("run", *options, "--", "sh", "-c", f"echo $$ > {fifo}; exec sleep 600", cwd=mnt.root)
        pids.append(int(fifo.read_text()))
        return command, pids[-1]

    yield begin
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.core
@pytest.mark.parametrize("option, key", [("--borrow", "ref"), ("--borrow-mut", "mut"), ("--own", "own")])
def test_run_that_is_killed(mnt, held, option, key):
    """What the command has it keeps as long as it runs, and no longer."""
    put(mnt, key)
    command, pid = held(option, key)
    os.kill(command.pid, signal.SIGKILL)
    command.process.wait()
    [handle] = made_by(mnt, command.pid)
    assert attr(mnt.mount.control / handle, "pid") == str(pid)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not made_by(mnt, command.pid))
    assert handle.startswith(key) and os.path.exists(mnt / key) == (option != "--own")


def test_run_waits_for_its_turn(mnt, start):
    put(mnt, "key", b"x")
    path = path_of(promisefs("borrow", "--mut", mnt / "key"))
    bad(sh(mnt, "--borrow", "key", script="echo no"), "run", "key", "mutably borrowed")
    bad(sh(mnt, "--wait", "--timeout", "100ms", "--borrow", "key", script="echo no"), "run", "key", "still", status=124)
    bad(sh(mnt, "--wait", "--timeout", "0", "--borrow", "key", script="echo no"), "run", "key", "still", status=124)
    command = start("run", "--wait", "--borrow", mnt / "key", "--", "cat", "{}")
    eventually(lambda: waiters(mnt, "key"))
    good(promisefs("release", path))
    assert command.result() == (0, "x", "")
    assert free(mnt, "key")


def test_run_ends_the_command_when_the_time_is_over(mnt):
    put(mnt, "key", b"x")
    bad(sh(mnt, "--timeout", "200ms", "--wait", "--borrow", "key", script="exec sleep 600"), "run", "sh", "--timeout",
        status=124)
    assert free(mnt, "key")


def test_runs_that_need_the_same_never_wait_for_each_other(mnt, start):
    put(mnt, "a")
    put(mnt, "b")
    commands = [start("run", "--wait", "--borrow-mut", x, "--borrow-mut", y, "--", "true", cwd=mnt.root)
                for x, y in [("a", "b"), ("b", "a")] * 8]
    for command in commands:
        assert command.result() == (0, "", "")
    assert free(mnt, "a") and free(mnt, "b")


def test_runs_that_change_the_same_lose_nothing(mnt, start):
    put(mnt, "count", b"0\n")
    commands = [start("run", "--wait", "--borrow-mut", "count", "--", "sh", "-ec", 'n=$(cat {}); echo $((n + 1)) > {}',
                      cwd=mnt.root) for _ in range(16)]
    for command in commands:
        assert command.result() == (0, "", "")
    assert mnt.get("count") == b"16\n" and free(mnt, "count")


def test_run_with_a_lease_of_its_borrows(mnt):
    put(mnt, "key")
    done = sh(mnt, "--borrow-mut", "key", "--lease", "100ms", script="while test -e {}; do sleep 0.01; done; echo gone")
    assert good(done) == "gone\n"


@pytest.mark.parametrize("last", [["--borrow", "c"], ["--borrow", "none"], ["--once", "none"], ["--produce", "dir"]],
                         ids=" ".join)
def test_run_leaves_nothing_when_a_handle_cannot_be_made(mnt, last):
    for key in ("a", "b", "c", "mine"):
        put(mnt, key)
    os.mkdir(mnt / "dir")
    path = path_of(promisefs("borrow", "--mut", mnt / "c"))
    done = sh(mnt, "--produce", "d", "--own", "mine", "--borrow", "a", "--borrow-mut", "b", *last, script="echo no")
    bad(done, "run", last[1])
    assert sorted(os.listdir(mnt.root)) == ["a", "b", "c", "dir", "mine"] and done.stdout == ""
    assert free(mnt, "a") and free(mnt, "b") and attr(mnt / "mine", "pid") is None
    good(promisefs("release", path))


def test_run_of_what_cannot_be_run(mnt):
    put(mnt, "key")
    put(mnt, "mine")
    done = promisefs("run", "--borrow", "key", "--own", "mine", "--produce", "new", "--", "no-such-command",
                     cwd=mnt.root)
    bad(done, "run", "no-such-command", "PATH", status=127)
    assert free(mnt, "key") and mnt.get("mine") == b"data" and attr(mnt / "mine", "pid") is None
    assert attr(mnt / "new", "error") == "EIO: no-such-command exited with status 127"


def test_run_that_is_killed_while_it_waits(mnt, start):
    put(mnt, "key")
    path = path_of(promisefs("borrow", "--mut", mnt / "key"))
    for number in (signal.SIGKILL, signal.SIGTERM):
        command = start("run", "--wait", "--borrow", mnt / "key", "--", "true")
        eventually(lambda: waiters(mnt, "key"))
        os.kill(command.pid, number)
        assert command.process.wait(20) == -number
        eventually(lambda: not made_by(mnt, command.pid))
    good(promisefs("release", path))
    assert free(mnt, "key")


@pytest.mark.parametrize("step", range(16))
def test_run_killed_at_any_moment_leaves_no_borrow_and_no_future(mnt, step):
    put(mnt, "a")
    put(mnt, "b")
    process = subprocess.Popen([binary(), "run", "--borrow", "a", "--borrow-mut", "b", "--produce", "c", "--", "true"],
                               cwd=mnt.root)
    time.sleep(step * 0.001)
    process.kill()
    process.wait()
    eventually(lambda: free(mnt, "a") and free(mnt, "b") and not made_by(mnt, process.pid))
    eventually(lambda: not os.path.lexists(mnt / "c") or state(mnt / "c") == "failed")


def test_run_passes_signals_on_and_drops_its_handles(mnt, start):
    key = put(mnt, "key")
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    command = start("run", "--borrow", key, "--", "sh", "-c", script)
    assert command.process.stdout.readline() == "ready\n"
    os.kill(command.pid, signal.SIGTERM)
    assert command.process.wait(20) == 9 and free(mnt, "key")


@pytest.mark.core
# ---- run: owners -----------------------------------------------------------------------------------------------------

def test_run_owns(mnt):
    put(mnt, "key.gz", b"x\n")
    done = sh(mnt, "--own", "key.gz", script="ls; cat {}; echo {}")
    text, path = good(done).splitlines()
    assert text == "x" and re.fullmatch(r".*/own/run-\d+-\d+-key\.gz", path)
    assert os.listdir(mnt.root) == [] and not os.path.lexists(path)


@pytest.mark.parametrize("move", ["mv {} back", '"$BIN" own --to back {}'])
def test_run_leaves_what_was_moved_away(mnt, move):
    put(mnt, "key", b"x\n")
    done = sh(mnt, "--own", "key", script=f"echo y >> {{}}; {move}", env={**os.environ, "BIN": binary()})
    assert good(done) == ""
    put(mnt, "witness")
    set_attr(mnt / "witness", "lease", "200ms")
    eventually(lambda: not os.path.lexists(mnt / "witness"))
    assert mnt.get("back") == b"x\ny\n" and attr(mnt / "back", "pid") is None


@pytest.mark.core
# ---- run: products ---------------------------------------------------------------------------------------------------

def test_run_produces(mnt, start):
    command = start("run", "--produce", "out=new.txt", "--", "sh", "-c",
                    'echo one > "$PROMISEFS_OUT"; echo two >> {}; echo {}',
                    cwd=mnt.root)
    eventually(lambda: os.path.lexists(mnt / "new.txt"))
    assert good(promisefs("get", mnt / "new.txt")) == "one\ntwo\n"
    status, out, err = command.result()
    assert (status, err) == (0, "")
    path = out.rstrip()
    assert re.fullmatch(r".*/own/run-\d+-\d+-new\.txt", path) and not os.path.lexists(path)
    assert attr(mnt / "new.txt", "pid") is None


def test_readers_wait_for_what_is_produced(mnt, start, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    command = start("run", "--produce", mnt / "key", "--", "sh", "-c", f"cat {tmp_path}/fifo > {{}}")
    eventually(lambda: os.path.lexists(mnt / "key") and attr(mnt / "key", "pid"))
    assert state(mnt / "key") == "pending"
    reader = mnt.waiting_reader(mnt / "key")
    (tmp_path / "fifo").write_text("data")
    assert reader.result() == b"data" and command.result()[0] == 0


FAILURES = [("echo x > {}; exit 3", 3, "sh exited with status 3"), ("kill -9 $$", 137, "sh was killed by SIGKILL"),
            ("exit 0", 1, "nothing was written to it"), ("rm {}", 1, "nothing was written to it"),
            ("exec sleep 600", 124, "sh did not end in time")]


@pytest.mark.parametrize("script, status, reason", FAILURES)
def test_run_that_produces_nothing(mnt, script, status, reason):
    done = sh(mnt, "--timeout", "500ms" if status == 124 else "20s", "--produce", "key", script=script)
    assert done.returncode == status and done.stderr.count("\n") == (1 if status in (1, 124) else 0)
    if status == 1:
        bad(done, "run", "key", "nothing was written", "{}")
    assert attr(mnt / "key", "error") == f"EIO: {reason}" and attr(mnt / "key", "pid") is None
    bad(promisefs("get", mnt / "key"), "get", mnt / "key", reason)
    good(sh(mnt, "--produce", "key", script="echo y > {}"))
    assert mnt.get("key") == b"y\n", "it may be tried again"


def test_readers_of_what_is_not_produced(mnt, start, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    command = start("run", "--produce", mnt / "key", "--", "sh", "-c", f"read _ < {tmp_path}/fifo; exit 5")
    eventually(lambda: os.path.lexists(mnt / "key") and attr(mnt / "key", "pid"))
    reader = mnt.waiting_reader(mnt / "key")
    (tmp_path / "fifo").write_text("go\n")
    assert reader.error() == "EIO" and command.result()[0] == 5


def test_readers_when_the_run_that_produces_is_killed(mnt, held):
    command, pid = held("--produce", "key")
    reader = mnt.waiting_reader(mnt / "key")
    os.kill(command.pid, signal.SIGKILL)
    assert reader.error() == "EOWNERDEAD"
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not made_by(mnt, command.pid))


def test_an_empty_product_counts_when_it_was_touched(mnt):
    good(sh(mnt, "--produce", "a", "--produce", "b", script="touch {}; : > {}"))
    assert mnt.get("a") == mnt.get("b") == b""


def test_a_product_that_was_renamed_into_place(mnt):
    good(sh(mnt, "--produce", "a", script="echo x > tmp; mv tmp {}"))
    assert mnt.get("a") == b"x\n" and os.listdir(mnt.root) == ["a"]


def test_a_product_replaces_and_a_failure_does_not(mnt):
    put(mnt, "key", b"old")
    os.chmod(mnt / "key", 0o640)
    assert sh(mnt, "--produce", "key", script="echo new > {}; exit 1").returncode == 1
    assert mnt.get("key") == b"old" and state(mnt / "key") == "ready"
    done = sh(mnt, "--produce", "key", script="cat key; echo new > {}; cat key")
    assert good(done) == "oldold"
    assert mnt.get("key") == b"new\n" and os.stat(mnt / "key").st_mode & 0o777 == 0o640


def test_a_product_stays_in_the_lifetimes_of_its_future(mnt):
    mnt.declare("key")
    scope = mnt.handle("lifetimes", "L")
    os.mkdir(scope)
    os.link(mnt / "key", f"{scope}/key")
    set_attr(mnt / "key", "lease", "1h")
    good(sh(mnt, "--produce", "key", script="echo x > {}"))
    assert attr(mnt / "key", "lifetimes") == os.path.basename(scope) and attr(mnt / "key", "lease")
    os.rmdir(scope)
    eventually(lambda: not os.path.lexists(mnt / "key"))


def test_a_product_that_cannot_get_its_name_is_kept(mnt):
    put(mnt, "key", b"old")
    path = path_of(promisefs("borrow", mnt / "key"))
    done = sh(mnt, "--produce", "key", script="echo new > {}")
    bad(done, "run", "key", "borrowed", "EBUSY", "stays in")
    kept = re.search(r"'(.*?)'", done.stderr)[1]
    good(promisefs("release", path))
    good(promisefs("own", "--to", mnt / "key", kept))
    assert mnt.get("key") == b"new\n" and attr(mnt / "key", "pid") is None


def test_product_errors(mnt):
    os.mkdir(mnt / "dir")
    bad(sh(mnt, "--produce", "dir", script="echo no"), "run", "dir", "EISDIR")
    bad(sh(mnt, "--produce", "no/key", script="echo no"), "run", "no/key", "does not exist")
    put(mnt, "borrowed")
    path = path_of(promisefs("borrow", "--mut", mnt / "borrowed"))
    bad(sh(mnt, "--produce", "new", "--borrow", "borrowed", script="echo no"), "run", "borrowed")
    assert sorted(os.listdir(mnt.root)) == ["borrowed", "dir"]
    good(promisefs("release", path))


# ---- run: once -------------------------------------------------------------------------------------------------------

def test_run_takes_once(mnt):
    put(mnt, "key", b"x\n")
    done = sh(mnt, "--once", "key", script="echo {}; cat {}; cat {}")
    path, text = done.stdout.splitlines()
    assert (path, text) == (mnt.once("key"), "x") and done.returncode == 1
    eventually(lambda: not os.path.lexists(mnt / "key"))
    bad(sh(mnt, "--once", "key", script="echo no"), "run", "key", "no such key")


def test_run_with_everything(mnt):
    put(mnt, "in", b"2\n1\n")
    put(mnt, "count", b"0\n")
    put(mnt, "scratch", b"s\n")
    put(mnt, "ticket", b"t\n")
    scope = mnt.prefix + "L"
    done = promisefs("run", "-m", mnt.mount.root, "--lifetime", scope, "--borrow", f"in={mnt / 'in'}", "--borrow-mut",
                     f"count={mnt / 'count'}", "--own", f"scratch={mnt / 'scratch'}", "--once",
                     f"ticket={mnt / 'ticket'}", "--produce", f"out={mnt / 'out'}", "--lease", "1h", "--", "sh", "-ec",
                     "sort {in} > {out}; wc -l < {in} > {count}; cat {ticket} {scratch}; ls -d {lifetime}")
    assert good(done) == f"t\ns\n{mnt.handle('lifetimes', 'L')}\n"
    assert (mnt.get("out"), mnt.get("count")) == (b"1\n2\n", b"2\n")
    eventually(lambda: sorted(os.listdir(mnt.root)) == ["count", "in", "out"])
    assert free(mnt, "in") and free(mnt, "count") and not os.path.lexists(mnt.handle("lifetimes", "L"))


# ---- completion ------------------------------------------------------------------------------------------------------

def test_completion(mnt):
    path = path_of(promisefs("borrow", put(mnt, "key"), mnt.prefix + "R"))
    assert completions("bo") == ["borrow"] and completions("on") == ["once"]
    assert completions("borrow", "--w") == ["--wait"] and completions("run", "--bo") == ["--borrow", "--borrow-mut"]
    assert completions("release", "", cwd=mnt.root) == ["own/", "ref/", "mut/", "@files"]
    assert f"ref/{mnt.prefix}R" in completions("-m", mnt.mount.root, "release", "ref/")
    assert completions("own", "--to", "key", "m", cwd=mnt.root) == ["mut/", "@files"]
    assert completions("run", "--borrow", "in", "=", "k") == completions("run", "--borrow", "in", "=") == ["@files"]
    assert completions("run", "sort", "-") == ["@files"]
    good(promisefs("release", path))

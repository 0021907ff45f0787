"""The control directory `.promisefs` (section 7)."""
import errno
import json
import os
import re
import select
import signal
import stat

import pytest

from pfs import NOBODY, attr, eventually, fails, opened, pattern, readable, run, set_attr

pytestmark = pytest.mark.core


def test_hidden_from_the_listing_but_found_by_name(mnt):
    assert ".promisefs" not in os.listdir(mnt.mount.root)
    assert os.path.isdir(mnt.mount.control)
    assert {"future", "await", "aborted", "metrics", "events", "waits", "README"} <= set(os.listdir(mnt.mount.control))
    assert run("find", mnt.mount.root, "-name", ".promisefs", "-not", "-path", mnt.mount.root).stdout == ""


def test_recursive_programs_never_walk_into_it(own, tmp_path):
    own.put("file", b"x")
    assert run("cp", "-a", own.root, tmp_path / "copy", timeout=20).returncode == 0
    assert os.listdir(tmp_path / "copy") == ["file"]
    assert run("grep", "-rc", "x", own.root, timeout=20).stdout == f"{own / 'file'}:1\n"
    assert run("sh", "-c", 'rm -rf "$1"/*', "sh", own.root, timeout=20).returncode == 0
    assert own.mount.control.exists() and os.listdir(own.root) == []


CHANGES = [
    lambda c: os.mkdir(c / "new"), lambda c: (c / "new").write_text("x"), lambda c: os.unlink(c / "README"),
    lambda c: os.rmdir(c / "future"), lambda c: os.rename(c / "README", c / "other"),
    lambda c: os.symlink("x", c / "new"),
    lambda c: (c / "README").write_text("x"), lambda c: (c / "metrics").write_text("x"), lambda c: os.rmdir(c),
    lambda c: os.rename(c, c.parent / "moved"), lambda c: (c / "waits").write_text("x"),
    lambda c: os.link(c / "README", c.parent / "linked"), lambda c: os.truncate(c / "README", 0),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_nobody_changes_it(mnt, number):
    before = sorted(os.listdir(mnt.mount.control))
    with pytest.raises(OSError):
        CHANGES[number](mnt.mount.control)
    assert sorted(os.listdir(mnt.mount.control)) == before


def test_it_is_no_key(mnt):
    for name in (".promisefs",):
        with fails(errno.EEXIST):
            os.mkdir(mnt.mount.root / name)
        with fails(errno.EEXIST, errno.EISDIR):
            os.close(os.open(mnt.mount.root / name, os.O_WRONLY | os.O_CREAT))
    os.mkdir(mnt / ".promisefs")
    mnt.put(".promisefs/key", b"only the root has one")
    assert os.listdir(mnt.root) == [".promisefs"]


def test_readme(mnt):
    text = (mnt.mount.control / "README").read_text()
    assert len(text) > 500 and os.stat(mnt.mount.control / "README").st_size in (0, len(text.encode()))
    for word in ("future/", "await/", "aborted/", "metrics", "events", "waits", "user.promisefs"):
        assert word in text


# ---- metrics ---------------------------------------------------------------------------------------------------------

SAMPLE = re.compile(r"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^}]*\})? [-+]?(\d+(\.\d+)?([eE][-+]?\d+)?|NaN|\+?Inf)$")


def metrics(mnt):
    lines = (mnt.mount.control / "metrics").read_text().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def test_metrics_are_prometheus_text(mnt):
    text = (mnt.mount.control / "metrics").read_text()
    assert text.endswith("\n")
    typed = set(re.findall(r"^# TYPE (\w+) (?:counter|gauge|histogram|summary)$", text, re.M))
    helped = set(re.findall(r"^# HELP (\w+) .+$", text, re.M))
    assert typed and typed == helped
    for line in text.splitlines():
        assert line.startswith("#") or SAMPLE.match(line), line
        if not line.startswith("#"):
            name = re.split(r"[{ ]", line)[0]
            assert name.startswith("promisefs_")
            assert name in typed or re.sub("_(bucket|sum|count)$", "", name) in typed, name


def test_metrics_move(mnt):
    before = metrics(mnt)
    for number in range(5):
        mnt.put(f"key{number}", b"x")
    eventually(lambda: any(value >= before.get(name, 0) + 5 for name, value in metrics(mnt).items()))
    mnt.declare("future")
    quiet = metrics(mnt)
    job = mnt.waiting_reader(mnt / "future")
    assert any(value == quiet.get(name, 0) + 1 for name, value in metrics(mnt).items()), "a gauge counts the waiters"
    mnt.put("future", b"x")
    job.result()


# ---- waits -----------------------------------------------------------------------------------------------------------

def test_waits_is_empty_when_nobody_waits(mnt):
    eventually(lambda: mnt.waits() == [])


def test_waits_lists_who_waits_for_what(mnt):
    mnt.declare("pending")
    writer, fd = mnt.writer("writing")
    jobs = {key: mnt.waiting_reader(mnt / key) for key in ("pending", "writing")}
    for key, job in jobs.items():
        wait = mnt.wait_of(job)
        assert set(wait) >= {"key", "pid", "uid", "command", "since", "waited_ms", "state", "holders"}
        assert (wait["key"], wait["state"], wait["uid"]) == (mnt.key(key), key, os.geteuid())
    assert mnt.wait_of(jobs["pending"])["holders"] == []
    holder, = mnt.wait_of(jobs["writing"])["holders"]
    assert holder["pid"] == writer.pid and holder["command"].startswith("python")
    writer.close(fd)
    mnt.put("pending", b"")
    for job in jobs.values():
        job.result()
    eventually(lambda: not [wait for wait in mnt.waits() if wait["pid"] in [job.pid for job in jobs.values()]])


ODD_NAMES = ['quote"', "back\\slash", "new\nline", "\x01\x7f", "ünïcode", "\udcff-bytes"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_json_of_odd_names(mnt, name):
    """Every line stays JSON whatever the name is."""
    mnt.declare(name)
    job = mnt.waiting_reader(mnt / name)
    text = (mnt.mount.control / "waits").read_bytes()
    wait = next(wait for wait in map(json.loads, text.decode("utf-8").splitlines()) if wait["pid"] == job.pid)
    if "\udcff" not in name:
        assert wait["key"] == mnt.key(name)
    mnt.put(name, b"")
    job.result()
    if "\udcff" not in name:
        eventually(lambda: [event["event"] for event in mnt.history(name)][-1:] == ["put"])


# ---- events ----------------------------------------------------------------------------------------------------------

class Stream:
    """The live stream of events of one test's keys."""

    def __init__(self, mnt, flags=os.O_RDONLY | os.O_NONBLOCK):
        self.mnt = mnt
        self.fd = os.open(mnt.mount.control / "events", flags)
        self.rest = b""

    def poll(self, timeout=10):
        """The events that come until there is one, at most `timeout` seconds."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return []
        try:
            self.rest += os.read(self.fd, 65536)
        except BlockingIOError:
            return []
        *lines, self.rest = self.rest.split(b"\n")
        return [event for event in map(json.loads, lines) if event["key"].startswith(self.mnt.prefix)]

    def until(self, kind, key):
        """Read on until an event comes; all that came."""
        events = []
        wanted = (kind, self.mnt.key(key))

        def came():
            events.extend(self.poll(1))
            return wanted in [(event["event"], event["key"]) for event in events]

        eventually(came, what=f"{kind} {key} in the stream")
        return events

    def close(self):
        os.close(self.fd)


@pytest.fixture
def stream(mnt):
    stream = Stream(mnt)
    yield stream
    stream.close()


def test_events_give_EAGAIN_and_poll(mnt, stream):
    with opened(mnt.mount.control / "events", os.O_RDONLY | os.O_NONBLOCK) as fd:
        with fails(errno.EAGAIN):
            os.read(fd, 100)
        assert not readable(fd)
        mnt.put("key", b"x")
        assert readable(fd, 10) and os.read(fd, 10_000)


def do_put(mnt):
    mnt.put("key", b"x")


def do_fail(mnt):
    set_attr(mnt.declare("key"), "error", "broken")


def do_cancel(mnt):
    os.unlink(mnt.declare("key"))


def do_evict(mnt):
    mnt.put("key", b"x")
    mnt.becomes("key", "ready")
    os.unlink(mnt / "key")


def do_abort(mnt):
    mnt.writer("key", b"torn")[0].kill()


def do_rename(mnt):
    mnt.put("key", b"x")
    mnt.becomes("key", "ready")
    os.rename(mnt / "key", mnt / "other")


def do_expire(mnt):
    set_attr(mnt.declare("key"), "deadline", "50ms")


EVENTS = [("put", do_put), ("declare", lambda mnt: mnt.declare("key")), ("fail", do_fail), ("cancel", do_cancel),
          ("evict", do_evict), ("abort", do_abort), ("rename", do_rename), ("expire", do_expire)]


@pytest.mark.parametrize("kind, do", EVENTS, ids=[row[0] for row in EVENTS])
def test_every_event_is_streamed_and_recorded(mnt, stream, kind, do):
    do(mnt)
    event = eventually(lambda: next((e for e in stream.poll(1) if e["event"] == kind), None), what=f"event {kind}")
    assert set(event) >= {"id", "time", "event", "key", "object", "version", "pid", "uid", "command"}
    assert event["key"] in (mnt.key("key"), mnt.key("other")) and event["uid"] == os.geteuid()
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", event["time"])
    eventually(lambda: [e for e in mnt.history("key") + mnt.history("other") if e["event"] == kind])


def test_put_event_says_who(mnt, stream):
    worker = mnt.worker()
    for _ in range(2):
        worker.write_path(mnt / "key", b"x")
        mnt.get("key")
    puts = []
    eventually(lambda: puts.extend(e for e in stream.poll(1) if e["event"] == "put") or len(puts) == 2)
    assert [put["version"] for put in puts] == [1, 2]
    assert {put["pid"] for put in puts} == {worker.pid} and puts[0]["command"].startswith("python")
    assert {str(put["object"]) for put in puts} == {attr(mnt / "key", "id")} and puts[0]["id"] < puts[1]["id"]


def test_blocking_read_of_the_stream(mnt):
    worker = mnt.worker()
    fd = worker.open(str(mnt.mount.control / "events"), os.O_RDONLY)
    job = worker.begin("read", fd, 65536)
    mnt.put("key", b"x")
    line = job.result().splitlines()[0]
    assert json.loads(line)["event"]
    job = worker.begin("read", fd, 65536)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait(5)


def test_several_streams_see_the_same(mnt):
    streams = [Stream(mnt) for _ in range(3)]
    mnt.put("key", b"x")
    try:
        seen = [[event["id"] for event in stream.until("put", "key")] for stream in streams]
    finally:
        for stream in streams:
            stream.close()
    assert seen[0] == seen[1] == seen[2]


def test_a_stream_that_nobody_reads_stops_nothing(own):
    """A slow reader may lose events; it never blocks writers nor eats memory without end."""
    worker = own.worker()
    with opened(own.mount.control / "events"):
        for number in range(300):
            worker.write_path(own / f"key{number % 7}", b"x")


def test_history_of_a_key_and_of_all(mnt):
    mnt.declare("key")
    mnt.put("key", b"1")
    mnt.put("key", b"2")
    mnt.put("another", b"x")
    mnt.versions("key", 2)
    mnt.becomes("another", "ready")
    kinds = [event["event"] for event in mnt.history("key")]
    assert kinds == ["declare", "put", "put"]
    everything = mnt.history()
    assert [event["id"] for event in everything] == sorted(event["id"] for event in everything)
    assert {mnt.key("key"), mnt.key("another")} <= {event["key"] for event in everything}
    assert mnt.history("never-seen") == []


def test_history_survives_the_key(mnt):
    mnt.put("key", b"x")
    mnt.becomes("key", "ready")
    os.unlink(mnt / "key")
    assert [event["event"] for event in mnt.history("key")] == ["put", "evict"]


@pytest.mark.parametrize("request_line", [b"nonsense\n", b"log\0\n", b"\xff\xfe\n", b"logkey\n", b"\n"])
def test_malformed_request_is_EINVAL(mnt, request_line):
    with opened(mnt.mount.control / "events", os.O_RDWR) as fd:
        with fails(errno.EINVAL):
            os.write(fd, request_line)


# ---- views -----------------------------------------------------------------------------------------------------------

def test_stat_in_the_views_does_not_wait(mnt):
    """await/KEY of a key that is not there can be looked up only by opening it; asking never waits."""
    mnt.put("key", b"12345")
    os.mkdir(mnt / "dir")
    assert os.stat(mnt.awaiting("key")).st_size == 5
    assert os.path.isdir(mnt.future("dir")) and os.path.isdir(mnt.awaiting("dir"))
    assert run("ls", "-laR", mnt.mount.control / "future", mnt.mount.control / "await", timeout=20).returncode == 0


@pytest.mark.parametrize("change", [
    lambda m: m.put_raw(m.awaiting("new")), lambda m: os.mkdir(m.awaiting("dir")),
    lambda m: os.mkdir(m.aborted() + "x"), lambda m: m.put_raw(m.special("aborted", "") + "x"),
])
def test_await_and_aborted_are_not_for_writing(mnt, change):
    mnt.put_raw = lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    with pytest.raises(OSError):
        change(mnt)


def test_mixed_users_of_the_views(mnt):
    if os.geteuid():
        pytest.skip("needs root")
    worker = mnt.worker(uid=NOBODY)
    worker.write_path(mnt.future("key"), b"")
    reader = mnt.waiting_reader(mnt.awaiting("key"), uid=NOBODY - 1)
    assert mnt.wait_of(reader)["uid"] == NOBODY - 1
    worker.write_path(mnt / "key", pattern(1000))
    assert reader.result() == pattern(1000)


def test_what_is_changed_through_future_is_so_for_the_key(mnt):
    """The kernel keeps the attributes of the key, and another inode was changed."""
    key = mnt.put("key", b"x")
    mnt.becomes("key", "ready")
    assert stat.S_IMODE(os.stat(key).st_mode) != 0o600
    os.chmod(mnt.future("key"), 0o600)
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    os.utime(mnt.future("key"), (1, 2))
    assert os.stat(key).st_mtime == 2

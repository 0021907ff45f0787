"""Programs that meet in the mount: locks, FIFOs, sockets, watches, and who follows a file that others write."""
import os
import socket
import subprocess

import pytest

from pfs import PYTHON, eventually, opened
from tools import bash, begun, same

# ---- locks -----------------------------------------------------------------------------------------------------------

LOCKS = """
echo > f
mkdir d
flock f echo alone
flock -n f sh -c 'flock -n f echo both || echo refused'
flock -n f sh -c 'flock -ns f echo both || echo refused'
flock -sn f sh -c 'flock -sn f echo shared'
flock d sh -c 'flock -n d echo both || echo refused'
exec 5> new
flock -x 5
(flock -n new echo both || echo refused)
exec 5>&-
flock -n new echo free
"""

RECORD_LOCKS = """
import fcntl, os, struct
OFD = {"set": 37}
fd, second = os.open("f", os.O_RDWR | os.O_CREAT), os.open("f", os.O_RDWR)

def lock(fd, kind, start, length, command=fcntl.F_SETLK):
    try:
        fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, 0, start, length, 0))
        return "got"
    except OSError as error:
        return error.errno

def child(*args):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, str(lock(*args)).encode())
        os._exit(0)
    os.wait()
    return os.read(read, 20).decode()

print(lock(fd, fcntl.F_WRLCK, 0, 10), child(second, fcntl.F_WRLCK, 5, 10), child(second, fcntl.F_RDLCK, 5, 1))
print(child(second, fcntl.F_WRLCK, 10, 10), lock(second, fcntl.F_WRLCK, 5, 10))
print(lock(fd, fcntl.F_UNLCK, 0, 5), child(second, fcntl.F_WRLCK, 0, 5), lock(fd, fcntl.F_UNLCK, 0, 0))
print(lock(fd, fcntl.F_WRLCK, 0, 10, OFD["set"]), lock(second, fcntl.F_WRLCK, 5, 10, OFD["set"]))
print(lock(second, fcntl.F_WRLCK, 10, 10, OFD["set"]), child(second, fcntl.F_WRLCK, 0, 1, OFD["set"]))
os.close(fd)
print(lock(second, fcntl.F_WRLCK, 0, 10, OFD["set"]))
"""


def test_flock(mnt, native):
    os.mkdir(mnt / "here")
    same(mnt / "here", native, LOCKS)


def test_record_locks(mnt, native):
    os.mkdir(mnt / "here")
    same(mnt / "here", native, f"python3 -I - <<'END'\n{RECORD_LOCKS}\nEND")


COUNT = "for i in $(seq 50); do flock lock sh -c 'n=$(cat number); echo $((n + 1)) > number'; done"


def test_a_counter_under_a_lock(mnt):
    """What was closed under the lock is what the next one under the lock reads."""
    mnt.put("lock")
    mnt.put("number", b"0\n")
    jobs = [mnt.worker().begin("run", ["/bin/sh", "-c", f"cd {mnt.root} && {COUNT}"]) for _ in range(4)]
    for job in jobs:
        status, _, errors = job.result(40)
        assert status == 0 and not errors, errors
    assert mnt.get("number") == b"200\n"


@pytest.mark.parametrize("name", ["flock", "fcntl"])
def test_locks_go_with_their_process(mnt, name):
    mnt.put("f")
    take = f"import fcntl, os, sys; f = open(sys.argv[1], 'r+'); fcntl.{'flock' if name == 'flock' else 'lockf'}" \
           "(f, fcntl.LOCK_EX); print(1, flush=True); sys.stdin.read()"
    first = subprocess.Popen([*PYTHON, "-c", take, mnt / "f"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"1\n"
    second = subprocess.Popen([*PYTHON, "-c", take, mnt / "f"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        first.kill()
        first.wait(10)
        assert second.stdout.readline() == b"1\n"
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


# ---- FIFOs and sockets -----------------------------------------------------------------------------------------------

def test_a_fifo_between_processes(mnt, native):
    os.mkdir(mnt / "here")
    same(mnt / "here", native, """
mkfifo p
seq 20000 > p &
wc -l < p
wait
cat p > out &
echo through > p
wait
cat out
ln p q
echo linked > q &
cat p
wait
rm p
""")


def test_sockets_between_processes(mnt):
    """A stream and a datagram socket, found by their names, also after these have been moved."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with opened(mnt.root, os.O_RDONLY | os.O_DIRECTORY) as fd, socket.socket(socket.AF_UNIX, kind) as server:
            server.bind(f"/proc/self/fd/{fd}/socket")
            os.rename(mnt / "socket", mnt / "moved")
            if kind == socket.SOCK_STREAM:
                server.listen()
            client = f"import os, socket; os.chdir({mnt.root.as_posix()!r}); s = socket.socket(socket.AF_UNIX, " \
                     f"{kind:d}); s.connect('moved'); s.send(b'hello')"
            with begun([*PYTHON, "-c", client], "/"):
                server.settimeout(20)
                receiver = server.accept()[0] if kind == socket.SOCK_STREAM else server
                assert receiver.recv(10) == b"hello"
                receiver.close()
        os.unlink(mnt / "moved")


# ---- watches ---------------------------------------------------------------------------------------------------------

CHANGES = """
echo x > f
echo y >> f
mv f g
cat g
chmod 600 g
rm g
mkdir s
rmdir s
ln -s a l
echo over > h
echo new > i
mv i h
"""


def watched(folder, log):
    """What inotifywait says of a directory while things change in it."""
    with open(log, "wb") as out, open(f"{log}.errors", "w+b") as errors:
        with begun(["inotifywait", "-m", "--format", "%e %f", "."], folder, stdout=out, stderr=errors):
            eventually(lambda: b"established" in open(errors.name, "rb").read(), what="inotifywait watches")
            bash(CHANGES, folder)
            bash("touch end", folder)
            eventually(lambda: b"CLOSE_WRITE,CLOSE end" in open(log, "rb").read(), what="the last event")
    return [line for line in open(log).read().splitlines() if "ISDIR" not in line or " s" in line]


def test_inotify_of_a_directory(mnt, native, tmp_path):
    os.mkdir(mnt / "here")
    assert watched(mnt / "here", tmp_path / "mount") == watched(native, tmp_path / "native")


# ---- following -------------------------------------------------------------------------------------------------------

TAIL = ["tail", "-s", "0.05", "--max-unchanged-stats=1", "-n", "+1"]


def follows(folder, out, changes, how):
    """tail shows each change when it has come, before the next one."""
    with open(out, "wb") as file, begun([*TAIL, how, "log"], folder, stdout=file, stderr=subprocess.DEVNULL):
        for script, line in changes:
            bash(script, folder)
            eventually(lambda line=line: open(out).read().endswith(f"{line}\n"), what=f"tail shows {line!r}")


@pytest.mark.parametrize("how", ["-f", "-F"])
def test_tail_below_publish_write(mnt, tmp_path, how):
    os.setxattr(mnt.root, "user.promisefs.publish", b"write")
    bash("echo first > log", mnt.root)
    with subprocess.Popen(["sh", "-c", "while read line; do echo $line; done >> log"], cwd=mnt.root,
                          stdin=subprocess.PIPE) as writer:  # one that does not close it
        def say(line):
            writer.stdin.write(line)
            writer.stdin.flush()

        with open(tmp_path / "out", "wb") as file, begun([*TAIL, how, "log"], mnt.root, stdout=file):
            for line in (b"one\n", b"two\n", b"three\n"):
                say(line)
                eventually(lambda line=line: open(tmp_path / "out", "rb").read().endswith(line), what="tail shows it")
    assert open(tmp_path / "out").read() == "first\none\ntwo\nthree\n"


def test_tail_F_of_a_file_that_is_replaced(mnt, tmp_path):
    """By rename, as logrotate and editors do, and after it was away."""
    bash("echo first > log", mnt.root)
    follows(mnt.root, tmp_path / "out", [("true", "first"), ("echo 2 > new; mv new log", "2"), ("rm log", "2"),
                                         ("echo 3 > other; mv other log", "3")], "-F")

"""Programs that are hard on a file's bytes: databases, mapped files, fio, stress-ng, dbench. They check themselves."""
import os
import re
import signal
import sqlite3
import subprocess

import pytest

from pfs import PYTHON, eventually
from tools import bash, begun, can_direct, same

# ---- sqlite3 ---------------------------------------------------------------------------------------------------------

SQL = """
sqlite3 base 'pragma journal_mode=MODE; create table t(a integer primary key, b); create index i on t(b)'
for i in 1 2 3 4 5
do
	sqlite3 base "insert into t(b) with recursive n(x) as (select 1 union all select x + 1 from n limit 1000)
		select x % 97 from n"
done
sqlite3 base 'delete from t where b < 40; vacuum; pragma integrity_check; select count(*), sum(b) from t'
sqlite3 base 'begin; delete from t; rollback; update t set b = b + 1 where a % 2; select count(*), sum(b) from t'
sqlite3 base .dump | sqlite3 copy
sqlite3 base '.backup backup'
sqlite3 base "attach 'copy' as c; select count(*) from main.t join c.t using (a)"
sqlite3 copy .dump | md5sum
sqlite3 backup 'pragma integrity_check'
sqlite3 base 'pragma mmap_size=10000000; select sum(b) from t; pragma wal_checkpoint(truncate)' | tail -1
ls
rm base* copy* backup*
"""


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_sqlite(mnt, native, mode):
    os.mkdir(mnt / "here")
    same(mnt / "here", native, SQL.replace("MODE", mode))


WRITE_FOR_EVER = r"""
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute("pragma journal_mode=" + sys.argv[2])
base.execute("pragma synchronous=full")
base.execute("create table if not exists t(a integer primary key, b)")
while True:
    base.execute("begin")
    base.executemany("insert into t(b) values(?)", [("x" * 100,)] * 50)
    base.execute("update t set b = 'y' where a % 7 = 0")
    base.execute("commit")
    print(base.execute("select max(a) from t").fetchone()[0], flush=True)
"""


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("publish", ["close", "write"])
def test_sqlite_writer_is_killed(mnt, mode, publish):
    """What was committed is there, nothing is half there, and the next one goes on. In a directory with publish=write,
    which is for files that are changed in place; and in any other, where fsync(2) counts."""
    os.setxattr(mnt.root, "user.promisefs.publish", publish.encode())
    committed = 0
    for _ in range(3):
        with begun([*PYTHON, "-c", WRITE_FOR_EVER, mnt / "base", mode], "/", stdout=subprocess.PIPE) as writer:
            for _ in range(4):
                committed = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            writer.wait(10)
            for line in writer.stdout:
                committed = int(line)
        worker = mnt.worker()
        status, said, errors = worker.run(["/usr/bin/sqlite3", mnt / "base",
                                           "pragma integrity_check; select max(a), count(*) from t"])
        assert status == 0, errors
        lines = said.decode().split()
        last, count = map(int, lines[1].split("|"))
        assert lines[0] == "ok" and last == count and committed <= last <= committed + 50


# ---- mapped files ----------------------------------------------------------------------------------------------------

SHARE = r"""
import mmap, os, sys, time
path, me, other = sys.argv[1], int(sys.argv[2]), 1 - int(sys.argv[2])
with open(path, "r+b") as file:
    shared = mmap.mmap(file.fileno(), 1 << 20)
end = time.monotonic() + 20
for number in range(1, 201):
    shared[me * 65536 + number * 8:me * 65536 + number * 8 + 8] = number.to_bytes(8, "little")
    shared[me * 65536] = number
    while shared[other * 65536] < number:
        assert time.monotonic() < end, "the other one's bytes do not come"
    got = int.from_bytes(shared[other * 65536 + number * 8:other * 65536 + number * 8 + 8], "little")
    assert got == number, (got, number)
shared.flush()
shared.close()
"""


def test_two_processes_share_a_mapped_file(mnt):
    path = mnt.put("file", bytes(1 << 20))
    holder = os.open(path, os.O_RDWR)  # so that both come to the same draft
    try:
        jobs = [mnt.worker().begin("run", [*PYTHON, "-c", SHARE, path, str(number)]) for number in range(2)]
        for job in jobs:
            status, _, errors = job.result(30)
            assert status == 0, errors.decode()
    finally:
        os.close(holder)
    data = mnt.reader(path).result()
    assert data[0] == data[65536] == 200 and data[200 * 8:201 * 8] == (200).to_bytes(8, "little")


# ---- numpy -----------------------------------------------------------------------------------------------------------

MEMMAP = r"""
python3 - <<'END'
import os
import numpy

array = numpy.memmap("array", dtype="float64", mode="w+", shape=(300, 1000))
array[:] = numpy.arange(300_000).reshape(300, 1000)
array.flush()
del array
again = numpy.memmap("array", dtype="float64", mode="r+", shape=(300, 1000))
again[10:20] *= -1
again.flush()
del again
copied = numpy.memmap("array", dtype="float64", mode="c", shape=(300, 1000))
copied[:] = 0
read = numpy.memmap("array", dtype="float64", mode="r", offset=8000 * 9, shape=(12, 1000))
print(read.sum(), read[0, 0], read[1, 1], read[11, 999], copied.sum())
numpy.save("new.npy", read)
held = numpy.load("new.npy", mmap_mode="r")
with open("other.npy", "wb") as file:
    numpy.save(file, read * 2)
os.rename("other.npy", "new.npy")
print(held.sum(), numpy.load("new.npy", mmap_mode="r").sum())
part = numpy.lib.format.open_memmap("grown.npy", mode="w+", dtype="int16", shape=(70_001,))
part[-1] = 7
part.flush()
del part
print(numpy.load("grown.npy")[-2:], os.path.getsize("grown.npy"), os.path.getsize("array"))
END
md5sum *
"""


def test_numpy_maps_files(mnt, native):
    pytest.importorskip("numpy")
    os.mkdir(mnt / "here")
    same(mnt / "here", native, MEMMAP)


# ---- fio -------------------------------------------------------------------------------------------------------------

FIO = {
    "random, in pieces": "--rw=randrw --bs=4k --ioengine=psync --numjobs=2",
    "of all sizes, mapped": "--rw=randwrite --bsrange=512-64k --bs_unaligned --ioengine=mmap",
    "in sequence, vectors": "--rw=write --bs=32k --ioengine=pvsync2 --end_fsync=1",
    "spliced": "--rw=write --bs=16k --ioengine=splice",
    "overwritten with fsyncs": "--rw=randwrite --bs=4k --ioengine=sync --fsync=16 --overwrite=1",
    "direct and asynchronous": "--rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 --direct=1",
    "io_uring": "--rw=randwrite --bs=16k --ioengine=io_uring --iodepth=8 --force_async=1",
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("what", FIO)
def test_fio(mnt, native, request, what):
    if "direct" in what and not can_direct(native):
        pytest.skip(f"{native} does not have O_DIRECT")
    if "io_uring" in what and "3" == bash("cat /proc/sys/kernel/io_uring_disabled 2> /dev/null || echo 0", "/").strip():
        pytest.skip("io_uring is disabled on this machine")
    size = "256m --loops=3" if request.config.getoption("--tools-long") else "2m"
    said = bash(f"fio --name=job {FIO[what]} --size={size} --verify=crc32c --verify_fatal=1 --directory=.", mnt.root,
                timeout=300)
    assert re.search(r"err= 0", said) and not re.search(r"verify.*(bad|fail)", said), said


# ---- stress-ng, dbench -----------------------------------------------------------------------------------------------

# Without fpunch: that of stress-ng 0.18 (Debian 13) fails on every file system, on tmpfs, too.

STRESSORS = """access chdir chmod chown copy-file dentry dir dirdeep dup fallocate fcntl filename flock fstat
getdent hdd inotify iomix link locka lockf lockofd mmap mmapfork msync open rename readahead revio seek sendfile symlink
touch utime xattr aiol mknod msyncmany splice""".split()
AT_ONCE = "chmod dentry dir fallocate getdent hdd link mmap rename sendfile touch xattr".split()


def stress(stressors, processes, seconds, folder):
    """Status 7 is that a process was ended while it counted what it had done, as happens on a busy machine: nothing is
    counted here. What it has found to be wrong is 2, and `fail:` in what it says."""
    chosen = " ".join(f"--{stressor} {processes}" for stressor in stressors)
    said = bash(f"stress-ng {chosen} --timeout {seconds} --temp-path . --verify --oomable --hdd-bytes 4m "
                "--fallocate-bytes 4m --iomix-bytes 4m --readahead-bytes 4m --revio-bytes 4m --mmap-bytes 4m "
                "--dirdeep-inodes 2000 || [ $? = 7 ]", folder, timeout=150)
    assert " fail: " not in said and " successful run completed" in said, said


@pytest.mark.timeout(1000)
def test_stress_ng(mnt, request):
    """By default some of them at once for a moment, with --tools-long each of them for a while."""
    os.mkdir(mnt / "here")
    if request.config.getoption("--tools-long"):
        for stressor in STRESSORS:
            stress([stressor], 2, 8, mnt / "here")
    else:
        stress(AT_ONCE, 1, 1, mnt / "here")
    eventually(lambda: os.listdir(mnt / "here") == [], what="stress-ng has removed everything")


@pytest.mark.timeout(120)
def test_dbench(mnt, request):
    seconds = 30 if request.config.getoption("--tools-long") else 2
    said = bash(f"dbench -t {seconds} -D . 2", mnt.root, timeout=100)
    said = said.replace("failed to create barrier semaphore", "")  # of its own, when another dbench runs; it goes on
    assert "Throughput" in said and "failed" not in said


def test_sqlite_of_this_python(mnt):
    """Two connections of one process, one of which waits for the other's lock."""
    first, second = (sqlite3.connect(mnt / "base", timeout=0.05, isolation_level=None) for _ in range(2))
    first.execute("create table t(a)")
    first.execute("begin immediate")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        second.execute("begin immediate")
    first.execute("insert into t values(1)")
    first.execute("commit")
    second.execute("insert into t values(2)")
    assert second.execute("select sum(a) from t").fetchone() == (3,)
    first.close()
    second.close()
    assert bash("sqlite3 base 'pragma integrity_check'", mnt.root) == "ok\n"

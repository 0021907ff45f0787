"""The catalog: one SQLite file that anybody may read while the store is mounted."""
import contextlib
import os
import re
import sqlite3

import pytest

from pfs import PYTHON, REPO, eventually, pattern, run, set_attr

TABLES = {"store", "sequence", "object", "dentry", "attribute", "draft", "aborted", "garbage", "event", "member",
          "ending", "lease", "binding", "borrow", "taken"}
# Statements that may walk a whole table: only those that run once, at start, on tables that are small then.
MAY_SCAN = set()
MACRO = re.compile(r'#define\s+(\w+)((?:[^\n]*\\\n)*[^\n]*)')
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"|\b([A-Z][A-Z_]+)\b')


@contextlib.contextmanager
def catalog(mount, mode="ro"):
    base = sqlite3.connect(f"file:{mount.store}/catalog.db?mode={mode}", uri=True)
    try:
        yield base
    finally:
        base.close()


# ---- what anybody sees -----------------------------------------------------------------------------------------------

def test_readable_while_mounted(mnt):
    mnt.put("file", b"12345")
    mnt.declare("future")
    mnt.versions("file", 1)
    with catalog(mnt.mount) as base:
        rows = {row[0]: row[1:] for row in base.execute("select path, state, version, size from key")}
        assert rows[mnt.key("file")] == ("ready", 1, 5)
        assert rows[mnt.key("future")] == ("pending", 0, 0)
        mnt.put("later", b"x")
        eventually(lambda: base.execute("select 1 from key where path = ?", (mnt.key("later"),)).fetchone())


def test_readable_with_the_sqlite3_program(mnt):
    mnt.put("file", b"12345")
    if run("sh", "-c", "command -v sqlite3").returncode:
        pytest.skip("no command sqlite3")
    mnt.becomes("file", "ready")
    query = f"select size from key where path = '{mnt.key('file')}'"
    assert run("sqlite3", "-readonly", f"{mnt.mount.store}/catalog.db", query).stdout == "5\n"


def test_schema(mnt):
    with catalog(mnt.mount) as base:
        assert base.execute("pragma journal_mode").fetchone() == ("wal",)
        assert base.execute("pragma user_version").fetchone()[0] >= 1
        tables = {row[1]: row for row in base.execute("pragma table_list") if row[0] == "main"}
        strict = {name for name, row in tables.items() if row[2] == "table" and row[5]}
        assert TABLES <= strict
        plain = {name for name, row in tables.items() if row[2] == "table"} - strict
        assert {name for name in plain if not name.startswith("sqlite_")} == set()


def test_foreign_keys(mnt):
    os.makedirs(mnt / "a/b")
    os.link(mnt.put("file", b"x"), mnt / "a/link")
    os.setxattr(mnt / "file", "user.x", b"1")
    with catalog(mnt.mount) as base:
        declared = [row for table in TABLES for row in base.execute(f"pragma foreign_key_list({table})")]
        assert declared, "no table has a foreign key"
        assert base.execute("pragma foreign_key_check").fetchall() == []
        assert base.execute("pragma integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("query", ["select * from key", "select count(*) from object", "select * from event"])
def test_a_long_reader_does_not_disturb_the_mount(mnt, query):
    """A reader's snapshot stays open while the daemon goes on writing."""
    mnt.put("before", b"x")
    with catalog(mnt.mount) as base:
        base.execute("begin")
        before = base.execute(query).fetchall()
        for number in range(20):
            mnt.put(f"file{number}", b"x")
        assert base.execute(query).fetchall() == before


def test_nobody_can_write_it_by_the_read_only_way(mnt):
    with catalog(mnt.mount) as base:
        with pytest.raises(sqlite3.OperationalError):
            base.execute("delete from object")


def test_documented_in_order(mnt):
    """docs/ describes every table of the schema."""
    text = "".join(path.read_text() for path in sorted((REPO / "docs").glob("*.md")))
    with catalog(mnt.mount) as base:
        columns = {name: [row[1] for row in base.execute(f"pragma table_info({name})")] for name in TABLES}
    missing = [name for name in TABLES if not re.search(rf"`{name}`", text)]
    missing += [f"{name}.{column}" for name in columns for column in columns[name]
                if not re.search(rf"\b{column}\b", text)]
    assert not missing


# ---- the prepared statements -----------------------------------------------------------------------------------------

def macros(source):
    """{name: text} of the string macros of a C file."""
    return {match[1]: match[2] for match in MACRO.finditer(source) if '"' in match[2]}


def joined(text, known):
    """The C string literals of a text put together, string macros included."""
    parts = []
    for literal, macro in STRING.findall(text):
        parts.append(joined(known[macro], known) if macro in known and not literal
                     else literal.replace('\\"', '"').replace("\\n", "\n"))
    return "".join(parts)


def statements():
    """[(name, sql)] of meta/sqlite_statements.h."""
    path = REPO / "meta/sqlite_statements.h"
    source = path.read_text() if path.exists() else ""
    known = macros(source)
    body = re.sub(r"/\*.*?\*/", "", MACRO.sub("", source), flags=re.S)
    found = []
    for part in re.split(r"^\s*STATEMENT\(", body, flags=re.M)[1:]:
        name, rest = part.split(",", 1)
        found.append((name.strip(), joined(rest, known)))
    return found


STATEMENTS = [row for row in statements() if row[1] not in ("COMMIT", "ROLLBACK") and not row[1].startswith("BEGIN")]


def test_there_are_few_statements():
    assert 10 < len(STATEMENTS) < 80


@pytest.mark.parametrize("name, sql", STATEMENTS, ids=[row[0] for row in STATEMENTS])
def test_no_statement_scans_a_table(mnt, name, sql):
    numbers = [int(number) for number in re.findall(r"\?(\d+)", sql)]
    with catalog(mnt.mount) as source:
        base = sqlite3.connect(":memory:")
        source.backup(base)
    plan = [row[3] for row in base.execute("explain query plan " + sql, [None] * max(numbers, default=0))]
    base.close()
    scans = [row for row in plan if re.match(rf"SCAN ({'|'.join(TABLES)})\b", row)]
    sorts = [row for row in plan if "TEMP B-TREE" in row]
    assert name in MAY_SCAN or not scans + sorts, "\n".join([sql, *plan])


# ---- many at once ----------------------------------------------------------------------------------------------------

BUSY = r"""
import os, sys
root, name = sys.argv[1:]
for number in range(40):
    path = f"{root}/{name}-{number}"
    with open(path, "wb") as file:
        file.write(b"x" * 1000)
    os.setxattr(path, "user.n", b"1")
    os.rename(path, path + "r")
    os.link(path + "r", path + "l")
    os.unlink(path + "r")
    os.mkdir(path + "d")
    assert open(path + "l", "rb").read() == b"x" * 1000
print("done")
"""


def test_32_processes_never_see_a_locked_catalog(mnt):
    """And somebody reads the catalog all the time."""
    jobs = [mnt.worker().begin("run", [*PYTHON, "-c", BUSY, str(mnt.root), f"p{n}"]) for n in range(32)]
    with catalog(mnt.mount) as base:
        eventually(lambda: base.execute("select count(*) from object").fetchone() and all(job.done for job in jobs), 50)
    results = [job.result() for job in jobs]
    assert {result[:2] for result in results} == {(0, b"done\n")}, b"".join(result[2] for result in results).decode()
    assert len(os.listdir(mnt.root)) == 32 * 40 * 2
    assert "is locked" not in mnt.mount.tail(1 << 20)


def test_recorded_size_and_data(mnt):
    """Where the bytes are: STORE/data/XX/HEX16, named by the version's id."""
    mnt.put("file", pattern(10_000))
    mnt.becomes("file", "ready")
    query = "select o.vid, o.size from key join object o on o.id = key.object where path = ? and key.state = 'ready'"
    with catalog(mnt.mount) as base:
        vid, size = eventually(lambda: base.execute(query, (mnt.key("file"),)).fetchone())
    found = [os.path.join(folder, f"{vid:016x}") for folder, _, names in os.walk(mnt.mount.store / "data")
             if f"{vid:016x}" in names]
    assert len(found) == 1 and size == 10_000
    with open(found[0], "rb") as file:
        assert file.read() == pattern(10_000)


def test_malformed_values_reach_no_table(mnt):
    mnt.declare("key")
    for value in (b"'; drop table object; --", b"\xff\xfe"):
        with contextlib.suppress(OSError):
            set_attr(mnt / "key", "error", value)
    with catalog(mnt.mount) as base:
        assert base.execute("pragma integrity_check").fetchall() == [("ok",)]

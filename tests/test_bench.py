"""tools/bench measures something in each scenario, and its table, CSV and plots are well formed."""
import csv
import math
import os
import shutil
import xml.etree.ElementTree as ElementTree

import pytest

from pfs import REPO, binary, mount_table, run

SVG = "{http://www.w3.org/2000/svg}"
GROUPS = (("stream", "stream-disk", "put-disk"), ("get", "put", "clients"), ("wake", "fan", "chain", "memory"),
          ("objects", "directory", "evict", "idle"))
PEERS = {"bindfs": "bindfs", "mergerfs": "mergerfs", "redis": "redis-server", "redis aof": "redis-server"}

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]


def bench(scratch, *words):
    environment = {**os.environ, "PROMISEFS_BIN": str(binary())}
    return run(REPO / "tools/bench", "--no-install", "--tmpfs", scratch, *words, env=environment, timeout=100)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_number(text):
    return math.isfinite(float(text))


def check_results(rows, scenarios):
    assert {row["scenario"] for row in rows} == scenarios
    for row in rows:
        absent = PEERS.get(row["peer"]) and not shutil.which(PEERS[row["peer"]])
        assert float(row["least"]) <= float(row["median"]) <= float(row["most"]), row
        if row["peer"] and not absent:
            assert float(row["peer_least"]) <= float(row["peer_median"]) <= float(row["peer_most"]), row
        judged = row["ratio"] if row["peer"] else row["median"]
        wanted = {"-"} if not row["aim"] else {"met", "missed"} if judged else {"not measured"}
        assert row["outcome"] in wanted and (judged or absent or float(row["peer_least"]) == 0), row


def check_plot(path, is_empty):
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    numbers = [float(element.get(name)) for element in root.iter() for name in ("x", "y", "x1", "x2", "width", "height")
               if element.get(name)]
    assert all(map(math.isfinite, numbers)) and min(numbers) >= 0 and max(numbers) <= float(root.get("height")) + 900
    assert is_empty or len(list(root.iter(f"{SVG}rect"))) > 1, path


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
def test_every_scenario(scratch, tmp_path, group):
    done = bench(scratch, "--tiny", "--out", tmp_path, *group)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.txt").read_text()
    assert set(table.splitlines()) - set(done.stderr.splitlines()) <= set(done.stdout.splitlines())
    assert all(f"measured   {name} in " in done.stderr for name in group)
    skipped = {name for name in ("stream-disk", "put-disk") if "no directory on a disk" in table} & set(group)
    rows = rows_of(tmp_path / "results.csv")
    check_results(rows, set(group) - skipped)
    for peer, program in PEERS.items():
        if not shutil.which(program) and any(row["peer"] == peer for row in rows):
            assert f"skipped    {program}" in table
    lines = [line for line in table.splitlines() if line.startswith(tuple(row["what"] for row in rows))]
    assert len(lines) == len(rows), table
    values = rows_of(tmp_path / "values.csv")
    assert values and all(is_number(row["value"]) and row["run"] == "0" for row in values)
    check_plot(tmp_path / "outcomes.svg", not any(row["aim"] for row in rows))
    for name in set(group) - skipped:
        check_plot(tmp_path / f"{name}.svg", False)
    assert not [point for point in mount_table() if "promisefs-bench-" in point and point.startswith(str(scratch))]
    assert not list(scratch.glob("promisefs-bench-*"))


def test_names_of_scenarios():
    done = run(REPO / "tools/bench", "gett")
    words = done.stderr.split("there are")[1].replace(",", " ").split()
    assert done.returncode == 2 and "no scenario gett" in done.stderr
    assert sorted(words) == sorted(name for group in GROUPS for name in group)  # all of them are tested above

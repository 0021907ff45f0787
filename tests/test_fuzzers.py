"""Fuzzers of every parser, of a damaged catalog, and of the requests that a kernel sends: a few seconds each, from the inputs
in tests/fuzz/corpus on. `--fuzz-seconds 3600` runs each for an hour. What has failed once is in the corpus, too."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pfs import REPO, TESTS, binary, sanitized

pytestmark = [pytest.mark.timeout(200_000), pytest.mark.slow]
NAMES = ["parse", "acl", "options", "args", "catalog", "values", "requests"]
QUIET = {"options", "args", "catalog"}  # they complain of each input


@pytest.fixture(scope="session")
def programs():
    """Where the fuzzers are: `tools/test` builds them when there is a clang."""
    if sanitized():
        pytest.skip("the fuzzers have sanitizers of their own")
    for place in (os.environ.get("PROMISEFS_FUZZERS"), REPO / "build-fuzz/tests", Path(binary()).parents[3] / "build-fuzz/tests"):
        if place and os.access(Path(place) / "fuzz-requests", os.X_OK):
            return Path(place)
    pytest.skip("the fuzzers are not built: they need clang with its run-time libraries; see CONTRIBUTING.md")
    return None


@pytest.mark.parametrize("name", NAMES)
def test_fuzzer(request, programs, scratch, numbers, name):
    seconds = max(1, int(request.config.getoption("--fuzz-seconds")))
    found = scratch / f"found-{name}-{next(numbers)}"
    found.mkdir()
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
    argv = [programs / f"fuzz-{name}", f"-max_total_time={seconds}", "-timeout=120", "-rss_limit_mb=4000",
            f"-artifact_prefix={found}/input-", f"-close_fd_mask={2 if name in QUIET else 0}", found,
            TESTS / "fuzz/corpus" / name]
    done = subprocess.run([str(word) for word in argv], env=environment, capture_output=True, stdin=subprocess.DEVNULL,
                          timeout=seconds + 600, check=False)
    said = done.stderr.decode(errors="replace")
    inputs = {path.name: path.read_bytes() for path in found.glob("input-*")}
    shutil.rmtree(found, ignore_errors=True)
    assert done.returncode == 0, f"{said[-6000:]}\n{inputs}"
    assert "DONE" in said or "Done" in said, said[-1000:]

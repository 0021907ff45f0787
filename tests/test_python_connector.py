"""The connector for ProxyStore, on real mounts; the checks are in connector_checks.py."""
import sys

import pytest

from pfs import run
from test_python_module import TESTS, names, run_check


@pytest.mark.parametrize("name", names("connector_checks.py"))
def test_connector(mnt, name):
    run_check("connector_checks.py", name, mnt.root)


def test_all_checks_are_run():
    listed = run(sys.executable, TESTS / "connector_checks.py", "--list")
    assert listed.stdout.split() == names("connector_checks.py") and len(set(listed.stdout.split())) > 8

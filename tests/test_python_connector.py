"""The connector for ProxyStore, on real mounts; the checks are in connector_checks.py."""
import sys

import pytest

from pfs import run
from test_python_module import TESTS, Checks, names


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    server = Checks("connector_checks.py", tmp_path_factory.mktemp("checks"))
    yield server
    server.close()


@pytest.mark.parametrize("name", names("connector_checks.py"))
def test_connector(mnt, checks, name):
    checks.run(name, mnt.root)


def test_all_checks_are_run():
    listed = run(sys.executable, TESTS / "connector_checks.py", "--list")
    assert listed.stdout.split() == names("connector_checks.py") and len(set(listed.stdout.split())) > 8

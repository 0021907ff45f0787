"""The guides in docs/guides do what they say."""
import os
import pathlib

import pytest

from pfs import PYTHON, check_store, run

GUIDES = pathlib.Path(__file__).parent.parent / "docs/guides"
SCRIPTS = sorted(path.name for path in GUIDES.iterdir() if path.suffix in (".sh", ".py"))


def test_all_are_listed():
    text = (GUIDES / "README.md").read_text()
    assert SCRIPTS == sorted(["object-lifetimes.sh", "object_lifetimes.py", "proxy-futures.sh", "proxy_futures.py"])
    assert all(f"({name})" in text for name in SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_guide(own, name):
    command = [*PYTHON] if name.endswith(".py") else ["bash"]
    done = run(*command, GUIDES / name, own.root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all as it should be\n")
    assert not done.stderr or name.endswith(".sh")  # bash says who was killed
    control = own.mount.control
    assert os.listdir(own.root) == [] and not any(os.listdir(control / name) for name in ("own", "ref", "mut"))
    assert check_store(own.mount) == []

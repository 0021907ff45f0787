"""The POSIX cases' own language: a wrong outcome is found."""
import pytest

from posixfs import cases, documented, one_data_path

pytestmark = one_data_path

WRONG = """
no-error: mkdir d = EEXIST
other-error: mkdir d; mkdir d = ENOENT
error: rmdir d
nothing-there: type n = file
other-type: file n; type n = dir
other-mode: file n; mode n = 0600
no-change: dir d; mark d; mkdir d/x; changed d = -
change: dir d; mark d; changed d = mc
content: write n one; read n = two
"""


@cases(WRONG)
def test_wrong_outcomes_are_found(place, script):
    with pytest.raises(AssertionError):
        place.run(script)


def test_differences_must_be_documented(place):
    with pytest.raises(AssertionError):
        place.run("mkdir d = 0 ~no-such-row 0")
    row = min(documented())
    if place.mounted:
        with pytest.raises(AssertionError):
            place.run(f"mkdir d = 0 ~{row} EPERM")
    else:
        place.run(f"mkdir d = 0 ~{row} EPERM")

"""mkdir(2) and rmdir(2) as POSIX has them."""
import pytest

from posixfs import KINDS, cases, one_data_path

pytestmark = [pytest.mark.needs_root, one_data_path]

MKDIR = {f"mkdir-over-{kind}": f"{kind} n; mkdir n = EEXIST; type n = {kind}" for kind in KINDS}
MKDIR.update({
    "mkdir-mode": "mkdir d 0755; type d = dir; mode d = 0755; nlink d = 2; nlink . = 3",
    "times": "dir d; mark . d; mkdir d/x; changed d = mc; changed . = -",
})


@cases(MKDIR)
def test_mkdir(place, script):
    place.run(script)

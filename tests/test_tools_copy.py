"""Whole trees copied by programs, within the mount and between it and the native file system: what comes out is what
comes out on the native file system, whatever the program itself loses."""
import os
import shutil

import pytest

from tools import assert_alike, bash, can_acls, can_xattrs, look, make_tree

WAYS = ["within", "in", "out"]
TAR = "tar --xattrs --xattrs-include='*'"

# name: (script that copies the tree $FROM to the directory $TO, which is not there yet; what it cannot copy)
COPIERS = {
    "cp -a": ("cp -a --reflink=auto $FROM $TO", {}),
    "rsync": ("rsync -aHX$ACL --checksum $FROM/ $TO/", {}),
    "tar": (f"mkdir -m 755 $TO; {TAR} -C $FROM -cf - . | {TAR} -C $TO -xpf -", {"special": False}),
    "rsync --inplace": ("rsync -aHX$ACL --inplace --whole-file $FROM/ $TO/", {}),
    "rsync --sparse": ("rsync -aHX$ACL --sparse --fsync $FROM/ $TO/", {}),
    "tar, an archive": (f"mkdir -m 755 $TO; {TAR} -C $FROM --format=posix -S -czf $TO.tgz .; "
                        f"{TAR} -C $TO -xpf $TO.tgz; rm $TO.tgz", {"special": False}),
    "cpio": ("mkdir -m 755 $TO; cd $FROM; find . -depth -print0 | cpio -0 -pdm --quiet $TO", {}),
    "cpio, an archive": ("mkdir -m 755 $TO; cd $FROM; find . -print0 | sort -rz | cpio -0 -o -H newc -C 65536 --quiet "
                         "-F $TO.cpio; cd $TO; cpio -idm --quiet --no-absolute-filenames -F $TO.cpio; rm $TO.cpio", {}),
    "zip": ("mkdir -m 755 $TO; cd $FROM; zip -qry $TO.zip .; cd $TO; unzip -qXK $TO.zip; rm $TO.zip",
            {"special": False, "odd_names": False}),
    "busybox cp": ("busybox cp -a $FROM $TO", {}),
    "busybox tar": ("mkdir -m 755 $TO; busybox tar -C $FROM -cf - . | busybox tar -C $TO -xpf -", {"special": False}),
    "mv": ("cp -a $FROM $TO.copy; mv $TO.copy $TO", {}),
}
BOTH_WAYS = ["cp -a", "rsync", "tar"]
CASES = [(name, way) for name in COPIERS for way in (WAYS if name in BOTH_WAYS else WAYS[:1])]


@pytest.fixture
def places(mnt, native):
    """The parents of source and target for each way."""
    for name in ("from", "to"):
        os.mkdir(mnt / name)
        os.mkdir(native / name)
    return {"within": (mnt / "from", mnt / "to"), "in": (native / "from", mnt / "to"),
            "out": (mnt / "from", native / "to"), "native": (native / "from", native / "to")}


def variables(source, target):
    acl = "A" if can_acls(os.path.dirname(source)) and can_acls(os.path.dirname(target)) else ""
    return {"FROM": os.fspath(source), "TO": os.fspath(target), "ACL": acl}


@pytest.mark.parametrize("name, way", CASES)
def test_a_copied_tree_is_as_the_program_makes_it(places, native, name, way):
    script, lacks = COPIERS[name]
    lacks = dict(lacks, xattrs=can_xattrs(native)) # tmpfs has none before Linux 6.6
    found = []
    for which in ("native", way):
        source, target = (os.path.join(place, f"{which} tree".replace(" ", "-")) for place in places[which])
        make_tree(source, **lacks)
        found.append(look(source))
        bash(script, places[which][0], **variables(source, target))
        found.append(look(target))
    assert_alike(found[2], found[0], "the source")
    assert_alike(found[3], found[1], f"{name}, {way}")


def test_attributes_are_copied_within_the_mount(places):
    """Also where the file system below has none that they could be compared with."""
    source, target = (os.path.join(place, "tree") for place in places["within"])
    make_tree(source)
    for name in ("cp -a", "rsync"):
        bash(COPIERS[name][0], "/", **variables(source, target))
        assert_alike(look(target), look(source), name)
        shutil.rmtree(target)


@pytest.mark.parametrize("way", WAYS)
def test_a_second_rsync_transfers_nothing(places, way):
    source, target = (os.path.join(place, "tree") for place in places[way])
    make_tree(source, xattrs=all(map(can_xattrs, places[way])))
    names = variables(source, target)
    bash("rsync -aHX$ACL $FROM/ $TO/", "/tmp", **names)
    for flags in ("", "--checksum"):
        assert bash(f"rsync -aHX$ACL -i {flags} $FROM/ $TO/", "/tmp", **names) == ""
    with open(os.path.join(target, "a/text"), "a") as file:
        file.write("more\n")
    os.unlink(os.path.join(target, "many/007"))
    os.mkdir(os.path.join(target, "extra"))
    changed = bash("rsync -aHX$ACL -i --delete $FROM/ $TO/", "/tmp", **names)
    assert {"many/007", "extra/"} <= {line.split(maxsplit=1)[1] for line in changed.splitlines()}
    assert_alike(look(target), look(source), way)


def test_links_survive_what_programs_do_to_one_of_them(mnt, native):
    """A tree with hard links and another one that shares its files: one name is replaced, one is written to."""
    os.mkdir(mnt / "here")
    for place in (native, mnt / "here"):
        make_tree(os.path.join(place, "tree"), xattrs=False)
        bash("cd tree; cp -al . ../linked; echo more >> a/text; sed -i s/some/any/ many/linked; rm sparse; mv a b",
             place)
    assert_alike(look(mnt / "here"), look(native), "the trees")

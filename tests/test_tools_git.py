"""git in the mount: it says and leaves in the working tree what it does natively, and its stores are whole."""
import os
import random

import pytest

from tools import ONE_PATH, bash, same

FILES, COMMITS = 40, 8

SETUP = """
git init -q -b main repo
cd repo
git config gc.auto 0
git config core.fsync none
python3 -I ../make.py 0
git add -A
git commit -qm first
"""

# Changes files as the number of the commit says, always in the same way.
MAKE = f"""
import os, random, sys
chosen = random.Random(int(sys.argv[1]))
for number in range({FILES}):
    path = f"dir{{number % 7}}/file{{number}}"
    if chosen.random() < 0.3 or not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a" if number % 2 else "w") as file:
            file.writelines(f"line {{chosen.randrange(10 ** 9)}}\\n" for _ in range(chosen.randrange(1, 200)))
if int(sys.argv[1]) % 3 == 1:
    os.chmod("dir1/file1", 0o755 if chosen.random() < 0.5 else 0o644)
    if os.path.lexists("link"):
        os.unlink("link")
    os.symlink(f"dir{{chosen.randrange(7)}}", "link")
"""

HISTORY = """
cd repo
for i in $(seq COMMITS)
do
	python3 -I ../make.py $i
	git add -A
	git commit -qm "commit $i"
done
git tag -a -m tagged v1 HEAD~2
git status --short
git log --oneline --stat | md5sum
git fsck --strict 2>&1
"""

BRANCHES = """
cd repo
git checkout -q -b side HEAD~3
echo side > side
git add side
git commit -qm side
git checkout -q main
git merge -q --no-edit side
git rebase -q side 2>&1
git log --oneline --graph | md5sum
echo dirty >> dir1/file1
echo new > untracked
git stash -qu
git status --short
git stash pop -q
git status --short
git diff | md5sum
git checkout -q -- .
git clean -qfd
git mv dir1/file1 dir1/moved
git rm -qr dir2
git status --short | sort
git reset -q --hard
git cherry-pick -n side~1 > /dev/null 2>&1 || git reset -q --hard
git reset -q --hard
git status --short
"""

BACK_AND_FORTH = """
cd repo
for i in $(git rev-list HEAD) main
do
	git checkout -q $i
	git status --short
	cat dir*/* | md5sum
done
"""

BISECT = """
cd repo
git bisect start HEAD $(git rev-list --max-parents=0 HEAD) > /dev/null 2>&1
git bisect run sh -c 'test $(git rev-list --count HEAD) -lt 6' > /dev/null 2>&1
git rev-parse refs/bisect/bad
git bisect reset > /dev/null 2>&1
git status --short
"""

PACKS = """
cd repo
git gc -q --prune=now
git fsck --strict 2>&1
git count-objects -v | grep -v ^size
git repack -adfq --window=5
git pack-refs --all
git prune
git fsck 2>&1
git clone -q --bare . ../bare.git
git clone -q ../bare.git ../clone
git clone -q --no-local ../bare.git ../clone2
cd ../clone
echo pushed > pushed
git add pushed
git commit -qm pushed
git push -q origin HEAD
git fsck 2>&1
cd ../clone2
git pull -q
cat pushed
git fsck 2>&1
git bundle create -q ../it.bundle --all
git clone -q ../it.bundle ../clone3
git -C ../clone3 log --oneline | wc -l
"""

WORKTREES = """
cd repo
git worktree add -q ../tree side
cd ../tree
echo there >> side
git commit -qam there
git status --short
cd ../repo
git log --oneline side -- | md5sum
git worktree move ../tree ../tree2
git worktree list | sed 's/ .*//'
git worktree remove ../tree2
git archive HEAD | tar tf - | md5sum
git grep -c 'line 1' | md5sum
git blame dir3/file3 | md5sum
git apply --check -R <(git show HEAD)
git branch -q -D side
"""

STEPS = {"history": HISTORY.replace("COMMITS", str(COMMITS)), "branches": BRANCHES, "back and forth": BACK_AND_FORTH,
         "bisect": BISECT, "packs": PACKS, "worktrees": WORKTREES}


# What depends on the numbers of inodes, on directories' order or on the clock.
def clean(folder):
    bash("for i in */.git; do [ ! -d $i ] || rm -rf $i/index $i/logs $i/FETCH_HEAD $i/ORIG_HEAD; done; "
         "rm -rf */.git/objects *.git/objects */.git/gc.log */.git/config bare.git/config it.bundle", folder)


@pytest.mark.timeout(120)
def test_git(mnt, native):
    os.mkdir(mnt / "here")
    for place in (native, mnt / "here"):
        with open(os.path.join(place, "make.py"), "w") as file:
            file.write(MAKE)
        bash(SETUP, place)
    for step in STEPS.values():
        said = [bash(step, place) for place in (native, mnt / "here")]
        assert said[1] == said[0], step
    for place in (native, mnt / "here"):
        clean(place)
    same(mnt / "here", native, "ls")


@pytest.mark.timeout(120)
@ONE_PATH
def test_many_changes_and_checkouts(mnt, request):
    """Racy times: files that change within one tick of the clock after git has looked at them are seen as changed."""
    chosen = random.Random(7)
    folder = mnt / "repo"
    bash("git init -q -b main repo; cd repo; seq 100 > a; seq 200 > b; git add -A; git commit -qm 0", mnt.root)
    for number in range(200 if request.config.getoption("--tools-long") else 15):
        text = "".join(f"{chosen.randrange(10)}\n" for _ in range(100))
        with open(os.path.join(folder, "a"), "w") as file:
            file.write(text)
        said = bash("git status --short; git commit -qam next; git checkout -q HEAD~1; git checkout -q main; "
                    "git status --short", folder)
        assert said == " M a\n", number
        assert open(os.path.join(folder, "a")).read() == text
    bash("git fsck --strict", folder)

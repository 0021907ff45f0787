"""Compilers, linkers, make, ninja and Python in the mount, on the sources of this repository."""
import os
import shutil
import subprocess

import pytest

from pfs import REPO
from tools import ONE_PATH, bash, look, same

# Every source file on its own, a library of them, and one program that is linked with it and run.
MAKEFILE = """
CFLAGS = $(shell pkg-config --cflags fuse3 sqlite3) -I. -O0 -g0 -D_GNU_SOURCE -std=gnu11 -DFUSE_USE_VERSION=312
objects = $(patsubst %.c,build/%.o,$(wildcard core/*.c))

all: build/program
build/program: program.c build/libpart.a
	gcc $(CFLAGS) -o $@ $^ $(shell pkg-config --libs sqlite3) -lxxhash -lpthread
build/libpart.a: $(objects)
	rm -f $@
	ar rcD $@ $^
build/%.o: %.c
	@mkdir -p $(@D)
	gcc $(CFLAGS) -MMD -c -o $@ $<
clean:
	rm -rf build
-include $(objects:.o=.d)
"""

PROGRAM = """
#include "core/parse.h"
#include <stdio.h>
int main(int argc, char **argv)
{
	uint64_t ns = 0;
	int r = parse_duration(argv[1], &ns);
	printf("%d %llu\\n", r, (unsigned long long)ns);
	return 0;
}
"""


@pytest.fixture
def sources(mnt, native):
    """Copies of the sources in the mount and beside it."""
    os.mkdir(mnt / "here")
    for place in (native, mnt / "here"):
        shutil.copytree(REPO / "core", os.path.join(place, "core"))
        shutil.copytree(REPO / "meta", os.path.join(place, "meta"))
        for name, text in (("Makefile", MAKEFILE), ("program.c", PROGRAM)):
            with open(os.path.join(place, name), "w") as file:
                file.write(text)
    return mnt / "here", native


@pytest.mark.timeout(180)
def test_make(sources):
    """The same products; nothing to do the second time; what was touched is made again."""
    inside, native = sources
    script = """
make -s -j 4 2>&1
make -q
build/program 10s
touch -d '+3 seconds' core/parse.c
make -n 2> /dev/null | grep -c ' -c '
make -s 2> /dev/null
touch -d 2001-01-01 core/parse.c
md5sum build/program build/libpart.a
ld -r -o build/all.o --whole-archive build/libpart.a
nm build/all.o | grep -c ' T '
strip -o build/stripped build/program
build/stripped 2h
objcopy --only-keep-debug build/program build/debug
"""
    same(inside, native, script, timeout=80)


MESON = """
project('it', 'c')
part = static_library('part', 'lib.c')
executable('it', 'it.c', link_with: part)
test('it', executable('check', 'it.c', 'lib.c'))
"""


@ONE_PATH
def test_meson_and_ninja(mnt, native):
    os.mkdir(mnt / "here")
    said = []
    for place in (native, mnt / "here"):
        for name, text in (("meson.build", MESON), ("lib.c", "int f(void) { return 0; }\n"),
                           ("it.c", "int f(void);\nint main(void) { return f(); }\n")):
            with open(os.path.join(place, name), "w") as file:
                file.write(text)
        said.append(bash("""
meson setup build > /dev/null
ninja -C build > /dev/null
ninja -C build | tail -1
build/it
meson test -C build --no-rebuild > /dev/null
touch -d '+3 seconds' lib.c
ninja -C build -n | grep -c lib.c.o
sed -i s/0/1/ lib.c
touch -d '+9 seconds' lib.c
ninja -C build > /dev/null
! build/it
""", place))
    assert said[1] == said[0] and "no work to do" in said[0]


@pytest.mark.timeout(600)
def test_this_repository_is_built_and_tests_itself(mnt, request):
    if not request.config.getoption("--tools-long"):
        pytest.skip("--tools-long runs it")
    bash("(cd $REPO; find core docs fs meta meson* tests tools -type f -print0) > list; "
         "rsync -a --files-from=list --from0 $REPO/ tree/; cd tree; meson setup build; ninja -C build; "
         "meson test -C build --no-rebuild; ninja -C build clean", mnt.root, timeout=500, REPO=os.fspath(REPO))


def test_shared_libraries_and_scripts_run(mnt, native):
    os.mkdir(mnt / "here")
    same(mnt / "here", native, """
printf 'int answer(void) { return 42; }\\n' > lib.c
printf '#include <stdio.h>\\nint answer(void);\\nint main(void) { printf("%%d\\\\n", answer()); }\\n' > main.c
gcc -shared -fPIC -o libanswer.so lib.c
gcc -o main main.c -L. -lanswer -Wl,-rpath,'$ORIGIN'
./main
LD_PRELOAD=$PWD/libanswer.so /bin/true
python3 -I -c 'import ctypes; print(ctypes.CDLL("./libanswer.so").answer())'
sed -i s/42/43/ lib.c
gcc -shared -fPIC -o libanswer.so.new lib.c
mv libanswer.so.new libanswer.so
./main
printf '#!/usr/bin/env python3\\nprint("from Python")\\n' > script
chmod 755 script
./script
echo 'echo sourced' > rc
. ./rc
gcc -O0 -c -o lib.o lib.c
ar rc lib.a lib.o
gcc -o static main.c lib.a
./static
rm main static libanswer.so lib.a lib.o
""")


def test_a_running_program_is_replaced(mnt):
    """As package managers do it: it goes on, and who starts it next gets the new one."""
    bash("cp /bin/sleep program", mnt.root)
    with subprocess.Popen(["./program", "100"], executable=mnt / "program", cwd=mnt.root) as process:
        try:
            bash("cp /bin/true program.new; mv program.new program; ./program", mnt.root)
            assert process.poll() is None
        finally:
            process.kill()


@pytest.mark.timeout(120)
def test_python(mnt, native):
    """Packages are compiled and imported; a virtual environment works."""
    os.mkdir(mnt / "here")
    script = """
mkdir -p src/package/inner
echo 'from . import inner; value = inner.value + 1' > src/package/__init__.py
echo 'value = 41' > src/package/inner/__init__.py
touch -d 2001-01-01 src/package/__init__.py src/package/inner/__init__.py
cp -r /usr/lib/python3*/json /usr/lib/python3*/email src
rm -rf src/*/__pycache__ src/*/*/__pycache__
python3 -m compileall -q --invalidation-mode checked-hash -j 2 src
find src -name '*.pyc' | wc -l
cd src
python3 -c 'import package; print(package.value, package.__cached__)'
cd ..
python3 -m venv --without-pip --symlinks env
env/bin/python -c 'import sys; print(sys.prefix, sys.prefix != sys.base_prefix)'
cp -r src/package env/lib/python3*/site-packages
env/bin/python -I -c 'import package; print(package.value)'
echo 'value = 1' > src/package/inner/__init__.py
cd src
python3 -c 'import package; print(package.value)'
python3 -m zipfile -c ../it.zip package
cd ..
PYTHONPATH=it.zip python3 -c 'import package; print(package.value)'
rm -rf env it.zip src/*/__pycache__ src/*/*/__pycache__
"""
    same(mnt / "here", native, script)
    assert "src" in look(mnt / "here")

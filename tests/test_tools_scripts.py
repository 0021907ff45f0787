"""Short scripts of everyday programs: in the mount they say and leave behind what they do on the native file system."""
import os
import shutil

import pytest

from tools import ONE_PATH, bash, can_direct, can_xattrs, same

WRITING = {
    "redirections": r"""
echo 1 > f
echo 2 >> f
echo 3 1<> f
cat f f > g
set -C
! echo 4 > f
echo 5 >| f
cat f g
""",
    "a descriptor to read and write": r"""
printf 'a
b
' > f
exec 5<> f
read x <&5
echo c >&5
exec 5>&-
cat f
echo $x
""",
    "a descriptor of what is removed": r"""
echo a > f
exec 5< f
rm f
cat <&5
readlink /proc/self/fd/5 | grep -o deleted
""",
    "here": r"""
cat > f <<< here
diff f <(echo here)
""",
    "appending at once": r"""
for i in 1 2 3 4 5
do echo $i >> f & done
wait
sort f
rm f
""",
    "tee": r"""
seq 5 | tee f g > h
seq 3 | tee -a f
cat f
cmp g h
""",
    "dd of odd sizes": r"""
seq 30000 > in
dd if=in of=a bs=4093 status=none
cmp in a
dd if=in of=b bs=1 count=700 seek=9 status=none
dd if=in of=b bs=1237 skip=3 seek=5 count=20 conv=notrunc,fsync status=none
dd if=in of=b bs=7 count=3 oflag=append conv=notrunc status=none
dd if=in of=c ibs=100 obs=333 conv=sync,ucase,swab status=none
""",
    "truncate": r"""
echo abc > f
truncate -s 10 f
truncate -s +5 f
truncate -s '<12' f
truncate -s %4096 f
truncate -r f g
truncate -s 1 f
stat -c '%n %s' f g
""",
    "fallocate": r"""
fallocate -l 64K f
seq 30000 > g
fallocate -p -o 8192 -l 8192 g
fallocate -n -l 1M g
stat -c '%n %s' f g
for i in $(seq 100)
do printf '%4096s'
done | tr ' ' '\0' > h
cp h i
fallocate -d i
cmp h i
[ $(stat -c %b i) -lt $(stat -c %b h) ]
""",
    "holes": r"""
truncate -s 1M a
echo end >> a
cp --sparse=always a b
cp --sparse=never a c
cmp a b
cmp a c
[ $(stat -c %b b) -lt $(stat -c %b c) ]
rm c
""",
    "shred": r"""
seq 1000 > f
ln f g
shred -n 1 f
wc -c < f
! grep -q '^500$' f
shred -n 1 -z f
tr -d '\0' < f | wc -c
shred -u f
ls
rm g
""",
    "split": r"""
seq 30000 > f
split -b 10000 -d f part.
cat part.* | cmp - f
split -n l/5 f line.
cat line.* | cmp - f
csplit -s f 100 2000 '/^25000$/'
cat xx* | cmp - f
wc -c part.* line.* xx*
""",
    "sort": r"""
seq 60000 | shuf --random-source=/bin/bash > f
sort -n -S 200K -T . f > g
sort -n -o f f
cmp f g
sort -c -n f
head -1 f
tail -1 f
ls
""",
    "text tools": r"""
seq 2000 > a
tac a > b
paste a b > c
join -t $'\t' <(sort c) <(sort c) | wc -l
cut -f 2 c | cmp - b
comm -12 <(sort a) <(sort b) | wc -l
uniq -c a | awk '{ s += $1 * $2 } END { print s }'
nl a | tail -1
tr 0-9 a-j < a > d
fold -w 3 d | sed -n 1,2p
od -c d | tail -1
cksum a b c d
wc a b c d
""",
    "opened and not written": r"""
touch -d 2001-01-01 f g
echo a > h
touch -d 2002-02-02 h
for i in f g h
do : >> $i
exec 9<> $i
flock 9
exec 9>&-
done
touch -a -d 2003-03-03 f h
stat -c '%n %y' f g h
stat -c %x f h
touch -m -d 2004-04-04 f h
chmod 600 g
stat -c '%n %y' f g h
cat h
: > f
[ f -nt h ]
exec 9<> f
: > f
echo b >&9
exec 9>&-
cat f
""",
    "mktemp": r"""
a=$(mktemp -p . x.XXXXXX)
b=$(mktemp -d -p . y.XXXXXX)
stat -c '%a %F' $a $b
rm -r $a $b
""",
    "install": r"""
install -D -m 751 /bin/true a/b/c
a/b/c
install -b -m 600 /etc/passwd a/b/c
install -d -m 3777 d/e
stat -c '%a %n' a/b/* d/e
cmp a/b/c /etc/passwd
rm a/b/c
""",
    "touch": r"""
touch -d '2001-02-03 04:05:06.123456789' f
touch -r f g
touch -a -d 2002-01-01 g
touch -h -d 2003-03-03 f
cp -p f h
stat -c '%n %y' f g h
stat -c %x g
""",
    "md5sum": r"""
seq 100 > f
seq 200 > g
md5sum f g > sums
md5sum -c sums
echo >> g
! md5sum -c --quiet sums 2> /dev/null
sha256sum f
b2sum g
""",
    "sync": r"""
echo a > f
sync f
sync -d f
sync -f f
sync .
sync
""",
    "a shell script": r"""
printf '#!/bin/sh
echo $0 $1
. ./lib
a
' > s
printf 'a() { echo from lib
}
' > lib
chmod +x s
./s 1
sh s 2
bash -c '. ./lib
a'
""",
    "a program that is replaced": r"""
cp /bin/true p
./p
cp --remove-destination /bin/false p
! ./p
cp /bin/true q
mv q p
./p
""",
    "logrotate": r"""
echo one > log
chmod 600 log
printf '%s/log { 
size 1
rotate 2
create 640
}
' $PWD > conf
chmod 644 conf
chmod 755 .
logrotate -s $PWD/state conf
stat -c '%a %s %n' log log.1
echo two > log
logrotate -s $PWD/state conf
cat log.1 log.2
printf '%s/log { 
size 1
rotate 3
copytruncate
compress
}
' $PWD > conf
echo three > log
logrotate -f -s $PWD/state conf
zcat log.1.gz
ls
rm *
""",
}

EDITORS = {
    "vim, a new file and the old one kept": r"""
printf 'a
b
' > f
chmod 640 f
vim.tiny -u NONE -es -c 'set backup backupcopy=no' -c '%s/a/A/' -c wq f
cat f f~
stat -c '%a %h' f f~
ls -A
""",
    "vim, the same file": r"""
printf 'a
b
' > f
ln f g
vim.tiny -u NONE -es -c 'set backup backupcopy=yes' -c '%s/a/A/' -c wq f
cat g f~
stat -c '%a %h' f f~
ls -A
""",
    "vim, as it likes": r"""
echo a > f
ln -s f g
vim.tiny -u NONE -es -c '%s/a/b/' -c wq g
cat f
readlink g
ls -A
""",
    "vim, many saves": r"""
echo 0 > f
vim.tiny -u NONE -es -c '%s/0/1/' -c w -c '%s/1/2/' -c w -c '%s/2/3/' -c w! -c q f
cat f
""",
    "vim, recovered from its swap file": r"""
echo a > f
(vim.tiny -u NONE -es -c 'set directory=.' -c '%s/a/rescued/' -c preserve -c '!kill -9 $PPID' f || true) 2> /dev/null
ls -A
vim.tiny -u NONE -es -r f -c 'w g' -c q! > /dev/null
cat f g
rm .f.swp
""",
    # What emacs does, call by call: the lock is a symbolic link to nowhere, what is typed is kept in #f#.
    "as emacs, the old one renamed": r"""
printf 'a\n' > f
chmod 640 f
ln -s me@here.1:2 .#f
readlink .#f
printf 'b\n' > '#f#'
mv f f~
(set -C; printf 'b\n' > f)
chmod --reference=f~ f
rm '#f#' .#f
cat f f~
stat -c '%a %h' f f~
ls -A
""",
    "as emacs, the old one copied": r"""
printf 'a\nlong line\n' > f
ln f g
ln -s me@here.1:2 .#f
for n in 1 2 3
do
	cp -p f f.~$n~
	printf '%d\n' $n > f
done
rm .#f
cat g f.~*
stat -c '%a %h' f f.~1~
ls -A
""",
    "as emacs, precious": r"""
printf 'a\n' > f
cp -p f f~
printf 'b\n' > new12345
sync new12345
chmod --reference=f new12345
mv -f new12345 f
cat f f~
ls -A
""",
    "nano": r"""
echo a > f
(sleep 0.3
printf 'typed\x0f\r'
sleep 0.2
printf '\x18') | script -qec 'nano -I -B f' /dev/null > /dev/null
cat f f~
ls -A
""",
    "as Emacs saves": r"""
echo old > f
ln -s me@host.1:1 .#f
echo auto > '#f#'
mv f f~
echo new > .new
chmod --reference=f~ .new
mv .new f
rm .#f '#f#'
cat f f~
ls -A
""",
    "sed": r"""
seq 9 > f
cp -p f g
ln g h
chmod 600 f
sed -i s/5/five/ f
sed -i.bak -e 1d -e '$d' f
sed -i s/1/x/ g
sed --follow-symlinks -i s/2/y/ h
cat f f.bak g h
stat -c '%n %a %h' *
""",
    "perl": r"""
echo 1 > f
perl -pi.bak -e s/1/2/ f
perl -i -ne 'print if 1' f
cat f f.bak
ls
""",
    "patch": r"""
printf '1\n2\n3\n' > f
chmod 755 f
cp -p f g
sed -i s/2/two/ g
(diff -u f g || true) > p
patch -b f p
cmp f g
patch -R f p
cat f f.orig
! patch f < /dev/null
sed -i s/two/TWO/ p
patch f p
! patch -sf f p > /dev/null
stat -c '%a %n' f*
rm f.orig p g f.rej
""",
    "ed and ex": r"""
seq 3 > f
printf 'g/2/d\nw\nq\n' | vim.tiny -u NONE -es f
printf '%%s/3/4/\nx\n' | vim.tiny -u NONE -es f
cat f
""",
    "sponge": r"""
seq 5 > f
python3 -c 'import sys
d = sys.stdin.read()
open("f", "w").write(d * 2)' < f
wc -l f
""",
}

NAMES = {
    "ln": r"""
echo a > a
echo b > b
ln -sf a l
ln -sf b l
cat l
ln -sfn . l
readlink l
ln a c
! ln a b 2> /dev/null
ln -f b c
cat c
ln -sr a d
stat -c '%n %h' a b c
""",
    "mv": r"""
echo a > a
echo b > b
mkdir d e
touch e/x
mv -n a b || true
cat b
mv --backup=numbered a b
cat b 'b.~1~'
mv b d
mv d f
! mv -T f e 2> /dev/null
mv -T f g
mv g/b g/c
! mv g g/h 2>&1
ls -R
""",
    "mv to and fro": r"""
mkdir d
echo a > d/f
ln d/f d/g
ln -s f d/l
touch -d 2001-01-01 d/f d
o=$(mktemp -d)
mv d $o
ls
ls $o/d
mv $o/d e
cat e/l
stat -c '%h %y' e/f e
rmdir $o
""",
    "rm": r"""
mkdir -p a/b/c
touch a/b/{1..300} a/b/c/{1..50}
rm -r a/b/c
rm a/b/1*
ls a/b | wc -l
rm -rf a
ls
""",
    "rm of where one is": r"""
mkdir -p d/a/b
touch d/a/b/{1..20}
cd d/a/b
rm -rf ../../../d
ls -a
stat -c %h . | sed s/2/0/
! touch x 2> /dev/null
cd ../../..
ls
pwd
""",
    "rmdir of where one is": r"""
mkdir -p d/a
cd d/a
rmdir ../a
ls
! mkdir x 2> /dev/null
cd ..
rmdir ../d
ls
cd ..
ls
""",
    "a directory that is replaced where one is": r"""
mkdir a b
cd b
mv -T ../a ../b
ls
cd ..
ls
""",
    "cp": r"""
seq 100 > a
chmod 751 a
cp a b
cp -p a c
cp --reflink=auto a d
cp -l a e
cp -s a f
cp -n b a || true
cp -u a b
cp -b a b
cp --attributes-only -p a g
cp -f c b
cp -T a h
mkdir i
cp a b c -t i
cp -r i j
cp --parents i/a j
! cp a a 2>&1
stat -c '%n %a %h %s' [a-h]*
ls -R i j
""",
    "odd names": r"""
touch 'a b' $'n\nl' ./-dash $'\xff\xfe' '*' "'"
ls -b
find . -name '-*' -exec rm {} +
rm -- '*'
ls -b
printf '%s\0' * | xargs -0 -n 1 echo | wc -l
""",
    "depth": r"""
d=$(printf '%0100d/' 1 2 3 4 5 6 7 8 9)
mkdir -p $d
echo deep > $d/f
cat $d/f
find . -type f -exec cat {} +
(cd $d && pwd | wc -c > /dev/null && cat f)
rm -r 0*
""",
    "find": r"""
mkdir -p a/b
echo 1 > a/1
touch -d 2001-01-01 a/old
ln a/1 a/b/2
ln -s 1 a/l
ln -s none a/d
mkfifo a/p
truncate -s 5K a/big
find . | sort
find . -newer a/old -type f | sort
find . -links +1 -type f | sort
find a -xtype l
find . -empty -type f
find . -size +4k
find . -samefile a/1 | sort
find . -type p
find . -mtime +100
find . -inum $(stat -c %i a/b)
find a -type f -size +4k -delete
find a -depth -name b -exec rm -r {} +
find . | sort
""",
    "ls": r"""
mkdir d
echo abc > d/f
ln -s f d/l
mkfifo d/p
chmod 4711 d/f
touch -hd 2001-01-01 d/f d/l d/p d
ls -l --time-style=full-iso d | grep -v ^total
ls -ld --time-style=full-iso d | cut -d ' ' -f 1-4,6-
ls -1F d
ls -i d | wc -l
ls -a
""",
    "du and df": r"""
mkdir d
head -c 100000 /dev/zero > d/f
ln d/f d/g
du --apparent-size -b d/f
[ $(du -k d/f | cut -f 1) -ge 96 ]
df --output=target . | tail -n +2 | wc -l
df -i . | wc -l
[ $(df --output=avail . | tail -1) -gt 1000 ]
[ $(stat -f -c %a .) -gt 0 ]
""",
    "grep": r"""
mkdir -p a/b
seq 20000 > a/f
seq 20000 40000 > a/b/g
ln -s a/f l
printf 'x\0 777' > a/bin
grep -rc 777 . | sort
grep -rl 39999 .
grep -rlZ 777 . | tr '\0' '\n' | sort
grep -r --include=g -c 3 a
""",
    "modes": r"""
umask 027
touch f
mkdir d
mkfifo p
umask 0
touch g
chmod u+s,g+s,o-r g
chmod -R a+X,o= d
chmod 1777 d
stat -c '%n %a %F' *
cp -p g h
stat -c '%n %a' h
(umask 077
cp g i
mkdir -m 755 e)
stat -c '%n %a' i e
""",
    "devices": r"""
mknod c c 1 3
mknod b b 7 77
mknod p p
stat -c '%n %F %t %T' c b p
cp -a c d
tar cf - c | tar tvf - | cut -c 1-10
""",
    "capabilities": r"""
cp /bin/true f
setcap cap_net_raw+ep f
getcap f
cp --preserve=all f g
getcap g
cat /bin/true > f
getcap f
rm f g
""",
    "script": r"""
script -qc 'echo in a terminal' log > /dev/null
grep -c terminal log
rm log
""",
    "make by times": r"""
printf 'x: y\n\tcat y > x\n\techo built\ny:\n\techo > y\n' > Makefile
make -s
make -s
make -q
touch -d '+2 seconds' y
make -s 2> /dev/null
touch -d 2001-01-01 y
make -s
""",
    "nohup": r"""
nohup sh -c 'echo kept' > log 2>&1
cat log
""",
}

PACKING = {
    "gzip and friends": r"""
seq 9000 > f
for c in gzip bzip2 xz zstd
do $c -qk f
done
for c in gz bz2 xz zst
do [ -s f.$c ]
done
gunzip -c f.gz | cmp - f
bzcat f.bz2 | cmp - f
xzcat f.xz | cmp - f
zstdcat f.zst | cmp - f
xz -t f.xz
zstd -qt f.zst
touch -d 2001-01-01 f
chmod 640 f
xz -f f
stat -c '%a %Y %n' f.xz
xz -d f.xz
stat -c '%a %Y %n' f
rm f.*
""",
    "a tar that grows": r"""
seq 5000 > a
seq 7000 > b
tar cf x.tar a
tar rf x.tar b
tar uf x.tar a
tar tf x.tar
tar --delete -f x.tar a
tar tf x.tar
tar --compare -f x.tar
tar --sparse -cf y.tar a b
tar czf z.tgz a b
tar cf - a b | tar tf -
echo x >> b
! tar df x.tar > /dev/null
rm *.t*
""",
    "a tar by increments": r"""
mkdir d
echo 1 > d/a
tar -c -g snap -f 0.tar d
echo 2 > d/b
tar -c -g snap -f 1.tar d
tar tf 0.tar
tar tf 1.tar
rm snap *.tar
""",
    "a zip that changes": r"""
seq 5000 > a
seq 7000 > b
zip -q x.zip a b
echo >> a
touch -d '+9 seconds' a
zip -qu x.zip a
zip -qd x.zip b
unzip -tq x.zip
unzip -Z1 x.zip
rm a
unzip -qo x.zip
wc -l a b
rm x.zip
""",
    "ar and cpio": r"""
seq 500 > a
seq 700 > b
ar rc lib.a a
ar r lib.a b
ar d lib.a a
ar t lib.a
printf 'a\nb\n' | cpio -o --quiet > c
mkdir d
cd d
cpio -i --quiet -m < ../c
cmp a ../a
rm ../lib.a ../c
""",
    "rsync of files": r"""
seq 20000 > a
cp a b
echo end >> a
rsync --inplace a b
cmp a b
head -c 5000 a > c
rsync --append-verify a c
cmp a c
rsync -S --partial a d
cmp a d
rsync --fsync -t a e
rsync -a --link-dest=$PWD e g/
stat -c %h e
echo new > a
rsync --backup --suffix=.o a b
ls
rsync -a --delete --exclude=g ./ g/
ls g
rsync -ai --delete --exclude=g ./ g/
""",
    "busybox": r"""
busybox seq 100 > a
busybox cp -a a b
busybox sed -i s/5/x/ b
busybox tar czf x.tgz a b
busybox tar tzf x.tgz
mkdir d
busybox tar xzf x.tgz -C d
busybox find . -name a | busybox sort
busybox ln -s a l
busybox mv b c
busybox cp a d/e
busybox dd if=a of=g bs=7 2> /dev/null
busybox cmp a g
busybox md5sum a > s
busybox md5sum -c s
busybox gzip a
busybox gunzip a.gz
busybox diff a g
busybox ls -1
busybox truncate -s 3 g
busybox unlink c
busybox stat -c %s g
rm x.tgz l
""",
}

PYTHON = {
    "tempfile": """
import tempfile, os, shutil
with tempfile.NamedTemporaryFile(dir=".") as file:
    file.write(b"x"); file.flush(); print(open(file.name).read())
with tempfile.TemporaryFile(dir=".") as file:
    file.write(b"y"); file.seek(0); print(file.read())
shutil.rmtree(tempfile.mkdtemp(dir=".")); print(os.listdir("."))
""",
    "shelve": """
import shelve
for n in range(3):
    with shelve.open("it") as file:
        file[str(n)] = n
print(sorted(shelve.open("it", "r").items()))
import os
for name in os.listdir("."):
    os.unlink(name)
""",
    "calls": """
import fcntl, os
fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o600)
os.posix_fallocate(fd, 0, 100); os.posix_fadvise(fd, 0, 0, 4); print(os.fstat(fd).st_size)
print(os.pathconf("f", "PC_NAME_MAX"), os.fpathconf(fd, "PC_PATH_MAX"))
print(os.copy_file_range(fd, fd, 10, 0, 50), os.sendfile(fd, fd, 0, 5), os.pread(fd, 5, 0))
print(os.preadv(fd, [bytearray(3), bytearray(4)], 0), os.pwritev(fd, [b"ab", b"c"], 1, 0))
print(os.lseek(fd, 0, os.SEEK_HOLE))
print(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE, os.isatty(fd), os.access("f", os.X_OK))
""",
    "the file is mapped": """
import mmap, os
with open("f", "w+b") as file:
    file.truncate(20000)
    shared = mmap.mmap(file.fileno(), 20000)
    shared[5:8] = b"abc"
    print(open("f", "rb").read()[:10])
    file.seek(9); file.write(b"file"); file.flush()
    print(shared[:16])
    private = mmap.mmap(file.fileno(), 20000, mmap.MAP_PRIVATE)
    private[0:3] = b"own"
    print(shared[:3], private[:8])
    shared.flush()
shared[16000:16003] = b"end"
shared.resize(30000)
print(open("f", "rb").read()[15999:16004], os.path.getsize("f"))
shared.close()
print(open("f", "rb").read()[15999:16004])
""",
    "a file that is there is mapped": """
import mmap
open("f", "wb").write(b"old" + bytes(9000))
with open("f", "r+b") as file:
    shared = mmap.mmap(file.fileno(), 0)
    shared[0:3] = b"new"
    print(open("f", "rb").read(3))
    shared[8000:8003] = b"end"
    with open("f", "rb") as second:
        other = mmap.mmap(second.fileno(), 0, access=mmap.ACCESS_READ)
        shared[1:2] = b"E"
        print(other[:3], other[8000:8003])
        other.close()
    shared.close()
print(open("f", "rb").read(3))
""",
}


@pytest.fixture
def here(mnt):
    """An empty directory in the mount."""
    os.mkdir(mnt / "here")
    return mnt / "here"


@pytest.mark.parametrize("what", WRITING)
def test_writing(here, native, what):
    same(here, native, WRITING[what])


@pytest.mark.parametrize("what", EDITORS)
def test_editors(here, native, what):
    same(here, native, EDITORS[what])


@ONE_PATH
@pytest.mark.parametrize("what", NAMES)
def test_names(here, native, what):
    same(here, native, NAMES[what])


@pytest.mark.parametrize("what", PACKING)
def test_packing(here, native, what):
    same(here, native, PACKING[what])


@pytest.mark.parametrize("what", PYTHON)
def test_python(here, native, what):
    same(here, native, f"python3 -I - <<'END'\n{PYTHON[what]}\nEND")


def test_O_DIRECT(here, native):
    if not can_direct(native):
        pytest.skip(f"{native} does not have O_DIRECT")
    same(here, native, """
seq 90000 > in
truncate -s 512K in
dd if=in of=a bs=4096 iflag=direct oflag=direct status=none
cmp in a
dd if=in of=a bs=64K iflag=direct oflag=direct,append conv=notrunc status=none
stat -c %s a
dd if=in of=b bs=128K seek=1 oflag=direct status=none
dd if=b bs=4096 skip=32 iflag=direct status=none | cmp - in
dd if=in of=c bs=100K oflag=direct status=none
cmp in c
""")


XATTRS = """
echo 1 > f
mkdir d
ln -s f l
setfattr -n user.a -v 1 f d
setfattr -n user.b f
getfattr -d f d l
cp f g
cp --preserve=xattr f h
getfattr -d g h
setfattr -x user.a f
getfattr -d f
echo 2 > h
getfattr -d h
sed -i s/2/3/ h
mv h i
getfattr -d i
! getfattr -n user.none f 2>&1
! setfattr -n nonsense -v 1 f 2>&1
"""


def test_xattrs(here, native):
    if can_xattrs(native):
        same(here, native, XATTRS)
    else:
        assert 'user.a="1"' in bash(XATTRS, here)


def test_reflink(here, native):
    """cp --reflink=always works where it does on the file system below, or says so."""
    script = "seq 50000 > a; cp --reflink=always a b 2>&1 | sed 's/.*: //' || true; cmp a b && rm b || rm -f b"
    try:
        same(here, native, script)
    finally:
        shutil.rmtree(here)

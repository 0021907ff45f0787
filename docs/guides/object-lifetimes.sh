#!/bin/bash
# When objects go away, with ordinary files: one-time objects, lifetimes, ownership and borrowing.
# usage: object-lifetimes.sh MOUNTPOINT
set -euo pipefail
cd "$1"
control=.promisefs
rm -rf guide
mkdir guide

fails() { # the command must fail, and with these words
	local words="$1" said
	shift
	if said="$("$@" 2>&1)" || [[ "$said" != *"$words"* ]]; then
		echo "expected \"$words\" of: $*; got: $said" >&2
		exit 1
	fi
}

gone() { # within ten seconds
	for ((i = 0; i < 1000; i++)); do
		[[ -e "$1" ]] || return 0
		sleep 0.01
	done
	echo "$1 is still there" >&2
	exit 1
}

echo "== one-time objects"
echo 'read me once' >guide/message
cat "$control/once/guide/message"
gone guide/message # by that open; of many who open it one gets it
fails 'No such file' cat "$control/once/guide/message"

echo "== a lifetime: what is in it goes with it"
mkdir "$control/lifetimes/guide"
for n in 1 2 3; do
	echo "part $n" >"guide/part-$n"
	ln "guide/part-$n" "$control/lifetimes/guide/"
done
ls "$control/lifetimes/guide"
rmdir "$control/lifetimes/guide"
[[ -z "$(ls guide)" ]]

echo "== a lease: the lifetime ends by itself"
mkdir "$control/lifetimes/guide-lease"
echo value >guide/leased
ln guide/leased "$control/lifetimes/guide-lease/"
touch -d '+2 seconds' "$control/lifetimes/guide-lease" # the same again extends it, or shortens it
cat guide/leased
touch -d '+1 second' "$control/lifetimes/guide-lease"
gone guide/leased
gone "$control/lifetimes/guide-lease"

echo "== a static lifetime: bound to a process, however that ends"
(
	echo scratch >guide/scratch
	exec python3 -c 'import os, signal
os.link("guide/scratch", ".promisefs/lifetimes/self/scratch")
os.kill(os.getpid(), signal.SIGKILL)'
) || true
gone guide/scratch

echo "== ownership: one owner, and many who read or one who writes"
echo '1 2 3' >"$control/own/list" # an object that no key owns
ln "$control/own/list" "$control/ref/reader-1"
ln "$control/own/list" "$control/ref/reader-2"
cat "$control/ref/reader-1"
fails 'busy' ln "$control/own/list" "$control/mut/writer"
fails 'busy' rm "$control/own/list" # a reference is always valid
rm "$control/ref/reader-1" "$control/ref/reader-2"

ln "$control/own/list" "$control/mut/writer"
fails 'busy' cat "$control/own/list" # nobody else, while somebody may write
echo '1 2 3 4' >"$control/mut/writer"
rm "$control/mut/writer"
cat "$control/own/list"

cp "$control/own/list" "$control/own/clone"
mv "$control/own/clone" guide/list # from now on a key owns it
rm "$control/own/list"             # the owner is gone, and so is the object
cat guide/list

echo "== a borrow for as long as a process lives"
ln guide/list "$control/ref/task"
python3 -c 'import sys
print(sum(int(word) for word in open(sys.argv[1]).read().split()))' "$control/ref/task"
rm "$control/ref/task" # promisefs run --borrow guide/list -- CMD {} does both, whatever happens to CMD

rm -r guide
echo "all as it should be"

#!/bin/bash
# Using data before it exists, with ordinary files: futures.
# usage: proxy-futures.sh MOUNTPOINT
set -euo pipefail
cd "$1"
control=.promisefs
rm -rf guide
mkdir guide

echo "== a future is declared, handed on as a path, and set once"
: >"$control/future/guide/value"
(cat guide/value >guide/copy) & # waits in open(2)
reader=$!
echo 'the value' >guide/value
wait "$reader"
cat guide/copy

echo "== consumer and producer start together; the consumer does what it can meanwhile"
: >"$control/future/guide/data"
consumer() { # it gets a path, and need not know that nothing is there yet
	local early late
	early="$(seq 1 1000 | sort -n | tail -1)" # what does not need the data
	late="$(sort -n "$1" | tail -1)"          # waits here
	echo "early $early, late $late"
}
producer() {
	seq 1 500 | sort -R >"$1" # the readers see all of it or nothing
}
consumer guide/data &
first=$!
producer guide/data &
second=$!
wait "$first" "$second"

echo "== nobody has to declare it"
cat "$control/await/guide/undeclared" &
reader=$!
echo 'hello' >guide/undeclared
wait "$reader"

echo "== a producer that is killed fails the future"
: >"$control/future/guide/doomed"
(cat guide/doomed >guide/copy 2>guide/why) &
reader=$!
python3 -c 'import os, signal
file = open("guide/doomed", "wb", buffering=0)
file.write(b"half of i")
os.kill(os.getpid(), signal.SIGKILL)' || true
if wait "$reader"; then
	echo "the reader got half of it" >&2
	exit 1
fi
cat "$control/aborted/guide/doomed" # for whoever wants to look at it
echo

rm -r guide
echo "all as it should be"

#!/bin/bash
# xargs -P: a worker for each input, started before there is any input; nobody has to declare anything.
# usage: xargs.sh MOUNTPOINT
set -euo pipefail
cd "$1"
rm -rf guide
mkdir guide

# shellcheck disable=SC2016 # $1 is that of the inner shell
seq 1 4 | xargs -P 4 -I{} sh -c 'wc -l <".promisefs/await/guide/input-$1" >"guide/count-$1"' sh {} &
workers=$!
for n in 4 3 2 1; do
	seq "$n" >"guide/input-$n"
done
wait "$workers"

[[ "$(cat guide/count-*)" == "$(seq 1 4)" ]]
rm -r guide
echo "all as it should be"

#!/bin/bash
# Runs one of the programs beside this file: two consumers first, then the producer, then the writer, and looks at what
# they have done. All wait for each other in open(2).
# usage: run.sh MOUNTPOINT COMMAND [ARGUMENT...]    for example: run.sh /mnt/promisefs python3 workflow.py
set -euo pipefail
mount="$1"
shift
rm -rf "$mount/guide"
mkdir "$mount/guide"

gone() { # within ten seconds
	for ((i = 0; i < 1000; i++)); do
		[[ -e "$1" ]] || return 0
		sleep 0.01
	done
	echo "$1 is still there" >&2
	return 1
}

"$@" "$mount" declare
"$@" "$mount" consume 1 &
first=$!
"$@" "$mount" consume 2 &
second=$!
"$@" "$mount" produce
wait "$first"
wait "$second"
"$@" "$mount" write

results="$(sort "$mount/guide/result-1" "$mount/guide/result-2")"
[[ "$results" == $'55 - 1 2 3\n55 token 1 2 3' ]] || {
	echo "the consumers say: $results" >&2
	exit 1
}
[[ "$(cat "$mount/guide/list")" == "1 2 3 4" ]]
gone "$mount/guide/scratch" # its lease has expired
rm -r "$mount/guide"
echo "all as it should be"

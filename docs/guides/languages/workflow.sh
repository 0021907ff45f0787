#!/bin/bash
# usage: workflow.sh MOUNTPOINT declare|consume N|produce|write
set -euo pipefail
cd "$1"
control=.promisefs
case "$2" in
declare)
	: >"$control/future/guide/numbers"
	;;
consume)
	sum="$(awk '{ sum += $1 } END { print sum }' guide/numbers)"               # waits until it is written
	token="$(cat "$control/once/guide/token" 2>/dev/null)" || token=-           # one of all consumers gets it
	ln "$control/own/guide-list" "$control/ref/guide-$3"                        # nobody writes it now
	list="$(cat "$control/ref/guide-$3")"
	rm "$control/ref/guide-$3"
	echo "$sum $token $list" >"guide/result-$3"
	;;
produce)
	printf token >guide/token
	printf '1 2 3' >"$control/own/guide-list"                                   # an object without a key
	echo scratch >guide/scratch
	echo 500ms >"$control/attributes/lease/guide/scratch"
	seq 1 10 >guide/numbers                                                     # wakes the consumers
	;;
write)
	ln "$control/own/guide-list" "$control/mut/guide"                           # nobody else reads or writes it now
	if cat "$control/own/guide-list" 2>/dev/null; then exit 1; fi               # EBUSY
	printf '1 2 3 4' >"$control/mut/guide"
	rm "$control/mut/guide"
	mv "$control/own/guide-list" guide/list
	;;
esac

#!/bin/bash
# A producer and two consumers, started in any order; see README.md. Run it in the root of a mount, after mkdir demo:
#	pipeline.sh consumer one & pipeline.sh consumer two & pipeline.sh producer
set -euo pipefail
control=.promisefs
export LC_ALL=C # the words of error messages are looked at below

consumer() {
	local me="$1" ref="$control/ref/demo-$1" sum=0 number numbers ticket why

	# A future that nobody has declared: the open waits until the key is published. Whoever comes late need not wait.
	mapfile -t numbers <"$control/await/demo/numbers"
	for number in "${numbers[@]}"; do
		((sum += number))
	done
	echo "$me: the sum is $sum"

	# A one-time object: the open takes it, of all who try one gets it. The others find no such file.
	if ticket="$(cat "$control/once/demo/ticket" 2>&1)"; then
		echo "$me: the ticket is mine: $ticket"
	elif [[ "$ticket" == *"No such file"* ]]; then
		echo "$me: the ticket is gone"
	else
		echo "$ticket" >&2
		exit 1
	fi

	# A borrow is a hard link. As long as it is there nobody can write the list or evict it.
	ln "$control/own/demo-list" "$ref"
	echo "$me: scratch says: $(<demo/scratch/note)"
	echo "$sum" >"demo/answer-$me" # keeps the promise that the producer waits for

	# A future that nobody will ever write, in a directory with a lease: the open waits until the lease is over.
	if why="$(cat demo/scratch/never 2>&1)" || [[ "$why" != *"Operation canceled"* && "$why" != *"No such file"* ]]; then
		echo "demo/scratch/never: $why" >&2
		exit 1
	fi
	if cat demo/scratch/note 2>/dev/null; then exit 1; fi
	echo "$me: scratch is gone"

	echo "$me: the list is $(<"$ref")" # a writer is in line by now, and does not get in
	rm "$ref"                          # until the last borrow is dropped
}

producer() {
	local name

	echo '1 2 3' >"$control/own/demo-list" # an object whose owner is a handle, not a key
	mkdir demo/scratch
	echo 'not for long' >demo/scratch/note
	for name in scratch/never answer-one answer-two; do
		: >"$control/future/demo/$name" # declares a future
	done
	echo 'admit one' >demo/ticket
	seq 1 100 >demo/numbers # published, whole, when it is closed: this wakes the consumers

	for name in one two; do
		echo "producer: $name answers $(<"demo/answer-$name")" # waits for the future
	done

	# To write the list takes the only borrow there is. Both consumers borrow it now, so get in line.
	ln "$control/own/demo-list" "$control/await-mut/demo-writer"
	echo 100ms >"$control/attributes/lease/demo/scratch/.dir" # the directory goes by itself, with what is in it
	echo '1 2 3 4' >"$control/mut/demo-writer"                # the open waits for the turn
	rm "$control/mut/demo-writer"
	echo "producer: the list is $(<"$control/own/demo-list")"
	rm "$control/own/demo-list" # nobody borrows it: evicted
}

"$@"

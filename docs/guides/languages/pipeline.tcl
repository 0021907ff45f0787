#!/usr/bin/tclsh
# A producer and two consumers, started in any order; see README.md. Run it in the root of a mount, after mkdir demo:
#	pipeline.tcl consumer one & pipeline.tcl consumer two & pipeline.tcl producer
set control .promisefs

proc get {path} { # what waits, waits in open
	set file [open $path]
	try {
		return [string trimright [read $file]]
	} finally {
		close $file
	}
}

proc put {path lines} { # what is written counts when it is closed
	set file [open $path w]
	foreach line $lines {
		puts $file $line
	}
	close $file
}

proc consumer {me} {
	global control
	set ref $control/ref/demo-$me

	# A future that nobody has declared: the open waits until the key is published. Whoever comes late need not wait.
	set sum [::tcl::mathop::+ {*}[get $control/await/demo/numbers]]
	puts "$me: the sum is $sum"

	# A one-time object: the open takes it, of all who try one gets it. The others find no such file.
	try {
		puts "$me: the ticket is mine: [get $control/once/demo/ticket]"
	} trap {POSIX ENOENT} {} {
		puts "$me: the ticket is gone"
	}

	# A borrow is a hard link. As long as it is there nobody can write the list or evict it.
	file link -hard $ref $control/own/demo-list
	puts "$me: scratch says: [get demo/scratch/note]"
	put demo/answer-$me [list $sum] ;# keeps the promise that the producer waits for

	# A future that nobody will ever write, in a directory with a lease: the open waits until the lease is over.
	try {
		get demo/scratch/never
	} trap {POSIX ECANCELED} {} {
	} trap {POSIX ENOENT} {} {
	} on ok {} {
		error "demo/scratch/never: somebody has written it"
	}
	try {
		error "demo/scratch/note is still there: [get demo/scratch/note]"
	} trap {POSIX ENOENT} {} {
		puts "$me: scratch is gone"
	}

	puts "$me: the list is [get $ref]" ;# a writer is in line by now, and does not get in
	file delete $ref ;# until the last borrow is dropped
}

proc producer {} {
	global control
	set own $control/own/demo-list

	put $own {{1 2 3}} ;# an object whose owner is a handle, not a key
	file mkdir demo/scratch
	put demo/scratch/note {{not for long}}
	foreach name {scratch/never answer-one answer-two} {
		put $control/future/demo/$name {} ;# an empty file declares a future
	}
	put demo/ticket {{admit one}}
	for {set number 1} {$number <= 100} {incr number} {
		lappend numbers $number
	}
	put demo/numbers $numbers ;# published, whole, when it is closed: this wakes the consumers

	foreach name {one two} {
		puts "producer: $name answers [get demo/answer-$name]" ;# waits for the future
	}

	# To write the list takes the only borrow there is. Both consumers borrow it now, so get in line.
	file link -hard $control/await-mut/demo-writer $own
	put $control/attributes/lease/demo/scratch/.dir {100ms} ;# the directory goes by itself, with what is in it
	put $control/mut/demo-writer {{1 2 3 4}} ;# the open waits for the turn
	file delete $control/mut/demo-writer
	puts "producer: the list is [get $own]"
	file delete $own ;# nobody borrows it: evicted
}

{*}$argv ;# producer, or consumer NAME

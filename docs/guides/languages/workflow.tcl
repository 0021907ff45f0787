# usage: workflow.tcl MOUNTPOINT declare|consume N|produce|write
lassign $argv mount role number
cd $mount
set control .promisefs

proc read_file {path} {
	set file [open $path]
	set text [read $file]
	close $file
	return $text
}

proc write_file {path text} {
	set file [open $path w]
	puts -nonewline $file $text
	close $file
}

switch $role {
	declare {
		write_file $control/future/guide/numbers ""
	}
	consume {
		set sum [tcl::mathop::+ {*}[read_file guide/numbers]] ;# waits until it is written
		try {
			set token [read_file $control/once/guide/token] ;# one of all consumers gets it
		} trap {POSIX ENOENT} {} {
			set token -
		}
		file link -hard $control/ref/guide-$number $control/own/guide-list ;# nobody writes it now
		set list [read_file $control/ref/guide-$number]
		file delete $control/ref/guide-$number
		write_file guide/result-$number "$sum $token $list\n"
	}
	produce {
		write_file guide/token token
		write_file $control/own/guide-list "1 2 3" ;# an object without a key
		write_file guide/scratch scratch
		write_file $control/attributes/lease/guide/scratch "500ms\n"
		write_file guide/numbers "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n" ;# wakes the consumers
	}
	write {
		file link -hard $control/mut/guide $control/own/guide-list ;# nobody else reads or writes it now
		try {
			read_file $control/own/guide-list
			error "it was read"
		} trap {POSIX EBUSY} {} {}
		write_file $control/mut/guide "1 2 3 4"
		file delete $control/mut/guide
		file rename $control/own/guide-list guide/list
	}
}

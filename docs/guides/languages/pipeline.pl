#!/usr/bin/perl
# A producer and two consumers, started in any order; see README.md. Run it in the root of a mount, after mkdir demo:
#	pipeline.pl consumer one & pipeline.pl consumer two & pipeline.pl producer
use strict;
use warnings;
use Errno qw(ECANCELED EINTR ENOENT);

my $control = '.promisefs';

# The content of a file, or undef with the reason in $!. What waits, waits in open.
sub try_get {
	my ($path) = @_;
	my $file;
	until (open $file, '<', $path) {
		return undef unless $!{EINTR}; # a signal was handled: open again
	}
	chomp(my @lines = <$file>);
	close $file or die "$path: $!\n";
	return join "\n", @lines;
}

sub get {
	my ($path) = @_;
	return try_get($path) // die "$path: $!\n";
}

sub put { # what is written counts when it is closed, so that must not fail unseen
	my ($path, @lines) = @_;
	open my $file, '>', $path or die "$path: $!\n";
	print $file map { "$_\n" } @lines or die "$path: $!\n";
	close $file or die "$path: $!\n";
}

sub consumer {
	my ($me) = @_;
	my ($ref, $sum) = ("$control/ref/demo-$me", 0);

	# A future that nobody has declared: the open waits until the key is published. Whoever comes late need not wait.
	$sum += $_ for split ' ', get("$control/await/demo/numbers");
	print "$me: the sum is $sum\n";

	# A one-time object: the open takes it, of all who try one gets it. The others find no such file.
	my $ticket = try_get("$control/once/demo/ticket");
	die "ticket: $!\n" if !defined $ticket && !$!{ENOENT};
	print "$me: the ticket is ", defined $ticket ? "mine: $ticket\n" : "gone\n";

	# A borrow is a hard link. As long as it is there nobody can write the list or evict it.
	link "$control/own/demo-list", $ref or die "$ref: $!\n";
	print "$me: scratch says: ", get('demo/scratch/note'), "\n";
	put("demo/answer-$me", $sum); # keeps the promise that the producer waits for

	# A future that nobody will ever write, in a directory with a lease: the open waits until the lease is over.
	die "demo/scratch/never: somebody has written it\n" if defined try_get('demo/scratch/never');
	die "demo/scratch/never: $!\n" if !$!{ECANCELED} && !$!{ENOENT};
	die "demo/scratch/note is still there\n" if defined try_get('demo/scratch/note');
	print "$me: scratch is gone\n";

	print "$me: the list is ", get($ref), "\n"; # a writer is in line by now, and does not get in
	unlink $ref or die "$ref: $!\n";            # until the last borrow is dropped
}

sub producer {
	my ($own, $mut) = ("$control/own/demo-list", "$control/mut/demo-writer");

	put($own, '1 2 3'); # an object whose owner is a handle, not a key
	mkdir 'demo/scratch' or die "demo/scratch: $!\n";
	put('demo/scratch/note', 'not for long');
	put("$control/future/demo/$_") for qw(scratch/never answer-one answer-two); # an empty file declares a future
	put('demo/ticket', 'admit one');
	put('demo/numbers', 1 .. 100); # published, whole, when it is closed: this wakes the consumers

	print "producer: $_ answers ", get("demo/answer-$_"), "\n" for qw(one two); # waits for the future

	# To write the list takes the only borrow there is. Both consumers borrow it now, so get in line.
	link $own, "$control/await-mut/demo-writer" or die "$mut: $!\n";
	put("$control/attributes/lease/demo/scratch/.dir", '100ms'); # the directory goes by itself, with what is in it
	put($mut, '1 2 3 4');                                        # the open waits for the turn
	unlink $mut or die "$mut: $!\n";
	print "producer: the list is ", get($own), "\n";
	unlink $own or die "$own: $!\n"; # nobody borrows it: evicted
}

my $role = shift // '';
if ($role eq 'producer') {
	producer();
} else {
	consumer(@ARGV);
}

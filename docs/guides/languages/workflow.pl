# usage: workflow.pl MOUNTPOINT declare|consume N|produce|write
use strict;
use warnings;
use Errno qw(EBUSY ENOENT);
use List::Util qw(sum);

my ($mount, $role, $number) = @ARGV;
chdir $mount or die "$mount: $!";
my $control = '.promisefs';

sub read_file {    # undef, with the reason in $!, if it cannot be opened
	open my $file, '<', $_[0] or return;
	local $/;
	return scalar <$file>;
}

sub write_file {
	my ($path, $text) = @_;
	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file or die "$path: $!";
}

if ($role eq 'declare') {
	write_file("$control/future/guide/numbers", '');
} elsif ($role eq 'consume') {
	my $sum   = sum split ' ', read_file('guide/numbers');                        # waits until it is written
	my $token = read_file("$control/once/guide/token") // ($! == ENOENT ? '-' : die $!); # one consumer gets it
	link "$control/own/guide-list", "$control/ref/guide-$number" or die $!;       # nobody writes it now
	my $list = read_file("$control/ref/guide-$number");
	unlink "$control/ref/guide-$number" or die $!;
	write_file("guide/result-$number", "$sum $token $list\n");
} elsif ($role eq 'produce') {
	write_file('guide/token', 'token');
	write_file("$control/own/guide-list", '1 2 3');                               # an object without a key
	write_file('guide/scratch', 'scratch');
	write_file("$control/attributes/lease/guide/scratch", "500ms\n");
	write_file('guide/numbers', join "\n", 1 .. 10);                              # wakes the consumers
} elsif ($role eq 'write') {
	link "$control/own/guide-list", "$control/mut/guide" or die $!;               # nobody else reads or writes it now
	die 'it was read' if defined read_file("$control/own/guide-list") or $! != EBUSY;
	write_file("$control/mut/guide", '1 2 3 4');
	unlink "$control/mut/guide" or die $!;
	rename "$control/own/guide-list", 'guide/list' or die $!;
}

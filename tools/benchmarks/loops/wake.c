/*
 * One that waits, and one that wakes it.
 *
 *   wake-pipe ROUNDS                 write(2) into a pipe called to data in its sleeping reader: nanoseconds, one
 *                                    a line
 *   wake-poll DIR ROUNDS MICRO       rename(2) of a written file returned to data in a reader that asks for it every
 *                                    MICRO microseconds: the same
 *   wake-future DIR DECLARE ROUNDS   close(2) returned in the producer to data in the consumer that waited in open(2):
 *                                    nanoseconds, and from the call of close(2): nanoseconds; two a line
 *   poll-wait FILE MICRO             asks for FILE every MICRO microseconds, until it is there
 */
#include "loops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
	SETTLE_US = 1500, /* long enough for a reader to fall asleep, short enough for the CPU to stay awake */
};

/* Written by the consumer's process, read by the producer's. */
struct seen {
	_Atomic int64_t at; /* when the data was there */
	atomic_int rounds;  /* that are over */
};

struct wake {
	struct seen *seen;
	const char *directory;
	long rounds, micro;
	int turn[2], data[2];
};

static void init_wake(struct wake *wake)
{
	wake->seen = share(sizeof(*wake->seen));
	if (pipe(wake->turn) || pipe(wake->data))
		die("pipe");
}

static void say_ready(struct wake *wake)
{
	char c = 0;

	write_all(wake->turn[1], &c, 1);
}

static void note_seen(struct wake *wake)
{
	wake->seen->at = now();
	wake->seen->rounds++;
}

/* Waits until the consumer is about to wait, and then for it to sleep; not always as long, so that what asks now and
 * then is met at any moment between. */
static void await_reader(struct wake *wake, long round)
{
	char c;

	read_all(wake->turn[0], &c, 1);
	usleep(SETTLE_US + round * 373 % 1000);
}

static int64_t await_seen(struct wake *wake, long round)
{
	while (wake->seen->rounds <= round)
		usleep(50);
	return wake->seen->at;
}

static void pipe_consumer(struct wake *wake)
{
	for (long i = 0; i < wake->rounds; i++) {
		say_ready(wake);
		read_all(wake->data[0], value, VALUE_SIZE);
		note_seen(wake);
	}
	_exit(0);
}

static int wake_pipe(char **argument)
{
	struct wake wake = {.rounds = number(argument[0])};
	pid_t child;

	init_wake(&wake);
	child = fork_child();
	if (child == 0)
		pipe_consumer(&wake);
	for (long i = 0; i < wake.rounds; i++) {
		int64_t start;

		await_reader(&wake, i);
		start = now();
		write_all(wake.data[1], value, VALUE_SIZE);
		printf("%lld\n", (long long)(await_seen(&wake, i) - start));
	}
	reap(child);
	return 0;
}

static int poll_open(const char *path, long micro)
{
	struct timespec interval = {.tv_nsec = micro * 1000};
	int fd;

	while ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
		if (errno != ENOENT)
			die(path);
		nanosleep(&interval, NULL);
	}
	return fd;
}

/* Opens each file in its turn, as it does it, reads and closes it. */
static void file_consumer(struct wake *wake)
{
	for (long i = 0; i < wake->rounds; i++) {
		char *path = path_of("%s/w%ld", wake->directory, i);
		int fd;

		say_ready(wake);
		fd = wake->micro ? poll_open(path, wake->micro) : must_open(path, O_RDONLY);
		read_all(fd, value, VALUE_SIZE);
		note_seen(wake);
		close(fd);
		free(path);
	}
	_exit(0);
}

static int wake_poll(char **argument)
{
	struct wake wake = {.directory = argument[0], .rounds = number(argument[1]), .micro = number(argument[2])};
	char *draft = path_of("%s/draft", wake.directory);
	pid_t child;

	init_wake(&wake);
	child = fork_child();
	if (child == 0)
		file_consumer(&wake);
	for (long i = 0; i < wake.rounds; i++) {
		char *path = path_of("%s/w%ld", wake.directory, i);
		int64_t returned;

		await_reader(&wake, i);
		put_file(draft);
		if (rename(draft, path))
			die(path);
		returned = now();
		printf("%lld\n", (long long)(await_seen(&wake, i) - returned));
		free(path);
	}
	reap(child);
	return 0;
}

static void produce(struct wake *wake, long round)
{
	char *path = path_of("%s/w%ld", wake->directory, round);
	int64_t called, returned;
	int fd;

	await_reader(wake, round);
	fd = must_open(path, O_WRONLY | O_CREAT);
	write_all(fd, value, VALUE_SIZE);
	called = now();
	must_close(fd);
	returned = now();
	await_seen(wake, round);
	printf("%lld %lld\n", (long long)(wake->seen->at - returned), (long long)(wake->seen->at - called));
	free(path);
}

static int wake_future(char **argument)
{
	struct wake wake = {.directory = argument[0], .rounds = number(argument[2])};
	char name[32];
	pid_t child;

	/* All are declared before, so that a round has nothing in it but the waiting, the writing and the waking. */
	for (long i = 0; i < wake.rounds; i++) {
		snprintf(name, sizeof(name), "w%ld", i);
		declare(argument[1], name);
	}
	init_wake(&wake);
	child = fork_child();
	if (child == 0)
		file_consumer(&wake);
	for (long i = 0; i < wake.rounds; i++)
		produce(&wake, i);
	reap(child);
	return 0;
}

static int poll_wait(char **argument)
{
	printf("waiting\n");
	fflush(stdout);
	close(poll_open(argument[0], number(argument[1])));
	return 0;
}

const struct verb wake_verbs[] = {
	{"wake-pipe", 1, wake_pipe}, {"wake-poll", 3, wake_poll}, {"wake-future", 3, wake_future},
	{"poll-wait", 2, poll_wait}, {NULL, 0, NULL},
};

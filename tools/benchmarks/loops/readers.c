/*
 * Many that wait for one.
 *
 *   fan-future DIR DECLARE READERS   close(2) called to data in the last of READERS waiting threads: seconds
 *   fan-pipes DIR READERS            the same without futures: every reader has a pipe, is told, opens the file
 *   wait-many DIR DECLARE READERS    READERS threads wait for one key; prints "waiting", and ends them at end of input
 */
#include "loops.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	READERS_PER_PROCESS = 1000,
	READER_STACK = 64 * 1024,
	FALL_ASLEEP_US = 100000,
};

/* Written by the readers' processes, read by the writer's. */
struct shared {
	_Atomic int64_t seen; /* when the last one had the data */
	atomic_int started;   /* readers about to wait */
	atomic_int finished;  /* readers that have the data */
	atomic_int failed;
};

struct reader {
	struct shared *shared;
	const char *path;
	int gate; /* -1, or a pipe that says when to open */
};

static void *read_one(void *data)
{
	struct reader *reader = data;
	char buffer[VALUE_SIZE], c;
	ssize_t n = -1;
	int fd;

	reader->shared->started++;
	if (reader->gate >= 0 && read(reader->gate, &c, 1) != 1)
		reader->shared->failed++;
	fd = open(reader->path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, buffer, sizeof(buffer));
		close(fd);
	}
	if (n != VALUE_SIZE)
		reader->shared->failed++;
	reader->shared->seen = now();
	reader->shared->finished++;
	return NULL;
}

/* Starts `count` reading threads and ends, with the process, when they have all finished. */
static void run_readers(struct shared *s, const char *path, long count, int (*pipes)[2])
{
	pthread_t *threads = calloc(count, sizeof(*threads));
	struct reader *readers = calloc(count, sizeof(*readers));
	pthread_attr_t attributes;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, READER_STACK);
	for (long i = 0; i < count; i++) {
		readers[i] = (struct reader){s, path, pipes ? pipes[i][0] : -1};
		if ((errno = pthread_create(&threads[i], &attributes, read_one, &readers[i])))
			die("pthread_create");
	}
	for (long i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

/* How many opens wait on the mount of promisefs at `directory`, as it says itself; -1 if that is no such mount. */
static long opens_waiting(const char *directory)
{
	char *name = path_of("%s/.promisefs/metrics", directory), line[256];
	FILE *file = fopen(name, "re");
	long waiting = -1;

	free(name);
	if (!file)
		return -1;
	while (waiting < 0 && fgets(line, sizeof(line), file))
		sscanf(line, "promisefs_waiters %ld", &waiting);
	fclose(file);
	return waiting;
}

static void wait_until_all_wait(struct shared *s, const char *directory, long readers)
{
	int64_t limit = now() + 60 * (int64_t)1000000000;

	while (s->started < readers && now() < limit)
		usleep(1000);
	if (opens_waiting(directory) >= 0)
		while (opens_waiting(directory) < readers && now() < limit)
			usleep(20000);
	if (s->started < readers || now() >= limit)
		fail("only %d of %ld readers came to wait, %ld opens", s->started, readers, opens_waiting(directory));
	usleep(FALL_ASLEEP_US);
}

static void wait_until_all_read(struct shared *s, long readers)
{
	int64_t limit = now() + 60 * (int64_t)1000000000;

	while (s->finished < readers && now() < limit)
		usleep(200);
	if (s->finished < readers || s->failed)
		fail("%d of %ld readers ended, %d failed", s->finished, readers, s->failed);
}

static int fan_future(char **argument)
{
	long readers = number(argument[2]);
	struct shared *s = share(sizeof(*s));
	char *path = path_of("%s/fan", argument[0]);
	int64_t called;
	pid_t child;
	int fd;

	declare(argument[1], "fan");
	child = fork_child();
	if (child == 0)
		run_readers(s, path, readers, NULL);
	wait_until_all_wait(s, argument[0], readers);
	fd = must_open(path, O_WRONLY | O_CREAT);
	write_all(fd, value, VALUE_SIZE);
	called = now();
	must_close(fd);
	wait_until_all_read(s, readers);
	printf("%.9f\n", (double)(s->seen - called) / 1e9);
	reap(child);
	unlink(path);
	return 0;
}

static int fan_pipes(char **argument)
{
	long readers = number(argument[1]);
	struct shared *s = share(sizeof(*s));
	char *path = path_of("%s/fan", argument[0]), c = 0;
	int (*pipes)[2] = calloc(readers, sizeof(*pipes));
	int64_t called;
	pid_t child;
	int fd;

	for (long i = 0; i < readers; i++)
		if (pipe2(pipes[i], O_CLOEXEC))
			die("pipe");
	child = fork_child();
	if (child == 0)
		run_readers(s, path, readers, pipes);
	wait_until_all_wait(s, "/proc", readers);
	fd = must_open(path, O_WRONLY | O_CREAT);
	write_all(fd, value, VALUE_SIZE);
	called = now();
	must_close(fd);
	for (long i = 0; i < readers; i++)
		write_all(pipes[i][1], &c, 1);
	wait_until_all_read(s, readers);
	printf("%.9f\n", (double)(s->seen - called) / 1e9);
	reap(child);
	unlink(path);
	return 0;
}

static int wait_many(char **argument)
{
	long readers = number(argument[2]), left = readers;
	struct shared *s = share(sizeof(*s));
	char *path = path_of("%s/many", argument[0]), line[16];

	declare(argument[1], "many");
	for (; left > 0; left -= READERS_PER_PROCESS)
		if (fork_child() == 0)
			run_readers(s, path, left < READERS_PER_PROCESS ? left : READERS_PER_PROCESS, NULL);
	wait_until_all_wait(s, argument[0], readers);
	printf("waiting\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		;
	put_file(path);
	wait_until_all_read(s, readers);
	while (wait(NULL) > 0)
		;
	unlink(path);
	return 0;
}

const struct verb reader_verbs[] = {
	{"fan-future", 3, fan_future}, {"fan-pipes", 2, fan_pipes}, {"wait-many", 3, wait_many}, {NULL, 0, NULL},
};

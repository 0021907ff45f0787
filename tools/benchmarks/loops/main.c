/* loops VERB ARGUMENT...: finds the verb; and what all verbs use. */
#include "loops.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

char value[VALUE_SIZE];

void die(const char *what)
{
	fail("%s: %s", what, strerror(errno));
}

void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fprintf(stderr, "loops: ");
	vfprintf(stderr, format, arguments);
	fprintf(stderr, "\n");
	va_end(arguments);
	exit(1);
}

int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void print_seconds(int64_t start)
{
	printf("%.9f\n", (double)(now() - start) / 1e9);
}

long number(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*end || n <= 0)
		fail("%s is not a positive number", text);
	return n;
}

char *path_of(const char *format, ...)
{
	char *path;
	va_list arguments;

	va_start(arguments, format);
	if (vasprintf(&path, format, arguments) < 0)
		die("vasprintf");
	va_end(arguments);
	return path;
}

void *must_allocate(size_t size)
{
	void *memory = malloc(size);

	if (!memory)
		die("malloc");
	memset(memory, 0, size);
	return memory;
}

void *share(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die("mmap");
	return memory;
}

int must_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	if (fd < 0)
		die(path);
	return fd;
}

void must_close(int fd)
{
	if (close(fd))
		die("close");
}

void write_all(int fd, const char *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0)
			die("write");
		data += n;
		size -= n;
	}
}

void read_all(int fd, char *data, size_t size)
{
	while (size) {
		ssize_t n = read(fd, data, size);

		if (n <= 0)
			die(n ? "read" : "read: too short");
		data += n;
		size -= n;
	}
}

void put_file(const char *path)
{
	int fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);

	write_all(fd, value, VALUE_SIZE);
	must_close(fd);
}

void declare(const char *directory, const char *name)
{
	char *path = path_of("%s/%s", directory, name);

	must_close(must_open(path, O_WRONLY | O_CREAT));
	free(path);
}

pid_t fork_child(void)
{
	pid_t child = fork();

	if (child < 0)
		die("fork");
	if (child == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return child;
}

void reap(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) < 0 || status)
		fail("a child failed");
}

/* A child that fails before it is ready ends us, too. */
static void await_ready(atomic_long *ready, long count)
{
	int status;

	while (*ready < count) {
		if (waitpid(-1, &status, WNOHANG) > 0)
			fail("a client failed before it began");
		usleep(100);
	}
}

double run_clients(long count, void (*client)(long number, void *data), void (*prepare)(long number, void *data),
	void *data)
{
	atomic_long *ready = share(sizeof(*ready));
	pid_t *children = must_allocate(count * sizeof(*children));
	int64_t start;
	int gate[2]; /* what all of them read until it is closed */
	char c;

	if (pipe2(gate, O_CLOEXEC))
		die("pipe");
	for (long i = 0; i < count; i++) {
		children[i] = fork_child();
		if (children[i] == 0) {
			close(gate[1]);
			if (prepare)
				prepare(i, data);
			++*ready;
			if (read(gate[0], &c, 1))
				die("gate");
			client(i, data);
			_exit(0);
		}
	}
	await_ready(ready, count);
	start = now();
	close(gate[1]);
	for (long i = 0; i < count; i++)
		reap(children[i]);
	free(children);
	return (double)(now() - start) / 1e9;
}

static const struct verb *find_verb(const char *name, int arguments)
{
	const struct verb *tables[] = {file_verbs, redis_verbs, wake_verbs, reader_verbs, chain_verbs, scale_verbs};

	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct verb *verb = tables[i]; verb->name; verb++)
			if (!strcmp(name, verb->name) && arguments == verb->arguments)
				return verb;
	return NULL;
}

int main(int argc, char **argv)
{
	const struct verb *verb = argc >= 2 ? find_verb(argv[1], argc - 2) : NULL;
	struct rlimit files;

	if (!verb) {
		fprintf(stderr, "usage: loops VERB ARGUMENT...; the verbs are listed at the top of each file\n");
		return 2;
	}
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(value, 'v', sizeof(value));
	return verb->run(argv + 2);
}

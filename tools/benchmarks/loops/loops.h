/*
 * The timed loops of tools/bench. Each verb does one thing to one file system (or Redis) and prints what it took.
 *
 * They know nothing of promisefs but two paths: a key, and where to declare it. So the same loop runs on tmpfs, bindfs,
 * mergerfs and promisefs. tools/bench compiles them (cc -O2 -pthread), starts them, and does the statistics.
 */
#ifndef LOOPS_H
#define LOOPS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	VALUE_SIZE = 4096,
	PIECE_SIZE = 1 << 20,
};

struct verb {
	const char *name;
	int arguments;
	int (*run)(char **argument);
};

/* Each ends with an entry without a name. */
extern const struct verb file_verbs[], redis_verbs[], wake_verbs[], reader_verbs[], chain_verbs[], scale_verbs[];

/* 4 KiB of 'v'; gets read into this as well. */
extern char value[VALUE_SIZE];

/* Ends the process with a line of why; errno says it. */
_Noreturn void die(const char *what);
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

int64_t now(void); /* nanoseconds, CLOCK_MONOTONIC */
void print_seconds(int64_t start);
long number(const char *text); /* a positive one, or the end */
char *path_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *must_allocate(size_t size); /* zeroed, and in memory */
void *share(size_t size);         /* zeroed, shared with children */

int must_open(const char *path, int flags);
void must_close(int fd);
void write_all(int fd, const char *data, size_t size);
void read_all(int fd, char *data, size_t size);
void put_file(const char *path); /* create, write 4 KiB, close */
void declare(const char *directory, const char *name);

/* `count` processes that begin at the same moment; returns the seconds from there to the end of the last one. */
double run_clients(long count, void (*client)(long number, void *data), void (*prepare)(long number, void *data),
	void *data);
/* A child of its own that does not outlive us. */
pid_t fork_child(void);
void reap(pid_t child);

#endif

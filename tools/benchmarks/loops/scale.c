/*
 * Many objects: DIR/d0 ... d(DIRS-1), with o0 ... o(PER-1) in each.
 *
 *   fill DIR DIRS PER CLIENTS            makes them all, of 64 bytes; prints how many there are every second
 *   sample stat|get DIR DIRS PER COUNT FIRST    one operation on each of COUNT of them, chosen all over; those of
 *                                        another FIRST are others, as long as they do not overlap: seconds
 *   sample put|evict DIR DIRS PER COUNT FIRST   makes, or removes, COUNT more: seconds
 *   link-all DIR LIFETIME COUNT          link(2) of DIR/p0-0, p0-1 ... into LIFETIME: seconds
 */
#include "loops.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	OBJECT_SIZE = 64,
	SPREAD = 1000003, /* a prime: steps of this size meet every object once before they meet one twice */
};

struct scale {
	const char *directory;
	long directories, per_directory, clients;
	atomic_long *made;
};

static void write_small(const char *path)
{
	int fd = must_open(path, O_WRONLY | O_CREAT);

	write_all(fd, value, OBJECT_SIZE);
	must_close(fd);
}

static void fill_client(long client, void *data)
{
	struct scale *scale = data;
	char path[4096];

	for (long d = client; d < scale->directories; d += scale->clients) {
		snprintf(path, sizeof(path), "%s/d%ld", scale->directory, d);
		if (mkdir(path, 0755))
			die(path);
		for (long i = 0; i < scale->per_directory; i++) {
			snprintf(path, sizeof(path), "%s/d%ld/o%ld", scale->directory, d, i);
			write_small(path);
			++*scale->made;
		}
	}
}

static void report(struct scale *scale)
{
	long all = scale->directories * scale->per_directory;

	for (long ticks = 1; *scale->made < all; ticks++) {
		usleep(20000);
		if (ticks % 50 == 0) {
			printf("%ld\n", *scale->made);
			fflush(stdout);
		}
	}
	_exit(0);
}

static int fill(char **argument)
{
	struct scale scale = {.directory = argument[0], .directories = number(argument[1]),
		.per_directory = number(argument[2]), .clients = number(argument[3]), .made = share(sizeof(atomic_long))};
	pid_t reporter = fork_child();

	if (reporter == 0)
		report(&scale);
	run_clients(scale.clients, fill_client, NULL, &scale);
	reap(reporter);
	return 0;
}

static void stat_one(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		die(path);
}

static void get_one(const char *path)
{
	int fd = must_open(path, O_RDONLY);

	read_all(fd, value, OBJECT_SIZE);
	close(fd);
}

static void evict_one(const char *path)
{
	if (unlink(path))
		die(path);
}

static char *sample_path(char **argument, int is_new, long i)
{
	long directories = number(argument[2]), per_directory = number(argument[3]);
	long which = (strtol(argument[5], NULL, 10) + i) * SPREAD % (directories * per_directory);

	if (is_new)
		return path_of("%s/d%ld/n%s-%ld", argument[1], which % directories, argument[5], i);
	return path_of("%s/d%ld/o%ld", argument[1], which % directories, which / directories);
}

static int sample(char **argument)
{
	static const struct {
		const char *name;
		void (*one)(const char *path);
		int is_new;
	} kinds[] = {{"stat", stat_one, 0}, {"get", get_one, 0}, {"put", write_small, 1}, {"evict", evict_one, 1}};
	long count = number(argument[4]);
	char **paths = must_allocate(count * sizeof(*paths));
	int64_t start;
	size_t k = 0;

	while (k < 4 && strcmp(kinds[k].name, argument[0]))
		k++;
	if (k == 4)
		fail("sample cannot %s", argument[0]);
	for (long i = 0; i < count; i++)
		paths[i] = sample_path(argument, kinds[k].is_new, i);
	for (long d = 0; d < number(argument[2]); d++) /* the directories are known already */
		stat_one(path_of("%s/d%ld", argument[1], d));
	start = now();
	for (long i = 0; i < count; i++)
		kinds[k].one(paths[i]);
	print_seconds(start);
	return 0;
}

static int link_all(char **argument)
{
	long count = number(argument[2]);
	int64_t start = now();

	for (long i = 0; i < count; i++) {
		char *from = path_of("%s/p0-%ld", argument[0], i), *to = path_of("%s/m%ld", argument[1], i);

		if (link(from, to))
			die(to);
		free(from);
		free(to);
	}
	print_seconds(start);
	return 0;
}

const struct verb scale_verbs[] = {
	{"fill", 4, fill}, {"sample", 6, sample}, {"link-all", 3, link_all}, {NULL, 0, NULL},
};

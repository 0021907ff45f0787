/*
 * Streams, and small files.
 *
 *   stream-write FILE BYTES          create, write in 1 MiB pieces, close: seconds
 *   stream-read FILE                 open, read in 1 MiB pieces, close: seconds
 *   mmap-read FILE COUNT             copy COUNT random pages out of a mapping: seconds
 *   pread FILE COUNT                 pread(2) of COUNT random pages: seconds
 *   get DIR FILES COUNT CLIENTS      each client opens, reads (4 KiB) and closes COUNT times, round robin over
 *                                    DIR/k0, k1, ...: seconds until the last one is done
 *   put DIR COUNT CLIENTS            each client creates COUNT files in DIR, writes 4 KiB, closes: the same
 */
#include "loops.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int stream_write(char **argument)
{
	char *piece = must_allocate(PIECE_SIZE);
	long left = number(argument[1]);
	int64_t start;
	int fd;

	memset(piece, 'x', PIECE_SIZE);
	start = now();
	fd = must_open(argument[0], O_WRONLY | O_CREAT | O_TRUNC);
	for (; left > 0; left -= PIECE_SIZE)
		write_all(fd, piece, left < PIECE_SIZE ? left : PIECE_SIZE);
	must_close(fd);
	print_seconds(start);
	return 0;
}

static int stream_read(char **argument)
{
	char *piece = must_allocate(PIECE_SIZE);
	int64_t start;
	ssize_t n;
	int fd;

	start = now();
	fd = must_open(argument[0], O_RDONLY);
	while ((n = read(fd, piece, PIECE_SIZE)) > 0)
		;
	if (n < 0)
		die("read");
	must_close(fd);
	print_seconds(start);
	return 0;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static off_t size_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		die("fstat");
	if (st.st_size < VALUE_SIZE)
		fail("the file is shorter than a page");
	return st.st_size;
}

static int mmap_read(char **argument)
{
	int fd = must_open(argument[0], O_RDONLY);
	long count = number(argument[1]);
	uint64_t seed = 88172645463325252u;
	off_t size = size_of(fd);
	int64_t start = now();
	char *map;

	map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("mmap");
	for (long i = 0; i < count; i++) {
		memcpy(value, map + next_random(&seed) % (size / VALUE_SIZE) * VALUE_SIZE, VALUE_SIZE);
		__asm__ volatile("" : : "r"(value) : "memory");
	}
	munmap(map, size);
	print_seconds(start);
	return 0;
}

static int pread_random(char **argument)
{
	int fd = must_open(argument[0], O_RDONLY);
	long count = number(argument[1]);
	uint64_t seed = 88172645463325252u;
	off_t size = size_of(fd);
	int64_t start = now();

	for (long i = 0; i < count; i++)
		if (pread(fd, value, VALUE_SIZE, next_random(&seed) % (size / VALUE_SIZE) * VALUE_SIZE) != VALUE_SIZE)
			die("pread");
	print_seconds(start);
	return 0;
}

/* ---- small files ---- */

struct small {
	const char *directory;
	long files, count;
	char **paths;
};

static void get_prepare(long client, void *data)
{
	struct small *small = data;

	(void)client;
	small->paths = must_allocate(small->files * sizeof(*small->paths));
	for (long i = 0; i < small->files; i++)
		small->paths[i] = path_of("%s/k%ld", small->directory, i);
}

static void get_client(long client, void *data)
{
	struct small *small = data;

	for (long i = 0; i < small->count; i++) {
		int fd = must_open(small->paths[(i + client * 101) % small->files], O_RDONLY);

		read_all(fd, value, VALUE_SIZE);
		close(fd);
	}
}

static int get(char **argument)
{
	struct small small = {.directory = argument[0], .files = number(argument[1]), .count = number(argument[2])};

	printf("%.9f\n", run_clients(number(argument[3]), get_client, get_prepare, &small));
	return 0;
}

static void put_prepare(long client, void *data)
{
	struct small *small = data;

	small->paths = must_allocate(small->count * sizeof(*small->paths));
	for (long i = 0; i < small->count; i++)
		small->paths[i] = path_of("%s/p%ld-%ld", small->directory, client, i);
}

static void put_client(long client, void *data)
{
	struct small *small = data;

	(void)client;
	for (long i = 0; i < small->count; i++)
		put_file(small->paths[i]);
}

static int put(char **argument)
{
	struct small small = {.directory = argument[0], .count = number(argument[1])};

	printf("%.9f\n", run_clients(number(argument[2]), put_client, put_prepare, &small));
	return 0;
}

const struct verb file_verbs[] = {
	{"stream-write", 2, stream_write}, {"stream-read", 1, stream_read}, {"mmap-read", 2, mmap_read},
	{"pread", 2, pread_random},        {"get", 4, get},                 {"put", 3, put},
	{NULL, 0, NULL},
};

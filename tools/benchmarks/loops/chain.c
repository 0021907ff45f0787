/*
 * A chain of tasks, all started at once: each works for FRACTION/1000 of TASK microseconds, needs the whole output of
 * the one before, works for the rest of its time, and writes its own output.
 *
 *   chain future DIR DECLARE STAGES BYTES TASK FRACTION    outputs are keys that are opened before they are there
 *   chain poll DIR - STAGES BYTES TASK FRACTION            files, asked for every millisecond
 *   chain pipe DIR - STAGES BYTES TASK FRACTION            files, and one pipe from each task to the next
 *
 * Prints the seconds from the start of all to the end of the last. Work is sleeping. Without any cost of data and
 * waking it would take FRACTION * TASK + STAGES * (1 - FRACTION) * TASK.
 */
#include "loops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	POLL_NS = 1000000,
};

struct chain {
	const char *kind, *directory;
	long stages, bytes;
	int64_t before, after; /* nanoseconds of work without and with the input */
	int (*pipes)[2];
	char *buffer;
};

static void work(int64_t ns)
{
	struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

static char *output_of(struct chain *chain, long stage)
{
	return path_of("%s/s%ld", chain->directory, stage);
}

static int open_input(struct chain *chain, long stage)
{
	char *path = output_of(chain, stage), c;
	int fd;

	if (!strcmp(chain->kind, "pipe"))
		read_all(chain->pipes[stage][0], &c, 1);
	while ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
		if (errno != ENOENT || strcmp(chain->kind, "poll"))
			die(path);
		work(POLL_NS);
	}
	free(path);
	return fd;
}

static void write_output(struct chain *chain, long stage)
{
	char *path = output_of(chain, stage), *draft = path_of("%s.draft", path), c = 0;
	int is_renamed = !strcmp(chain->kind, "poll");
	int fd = must_open(is_renamed ? draft : path, O_WRONLY | O_CREAT);

	for (long done = 0; done < chain->bytes; done += PIECE_SIZE)
		write_all(fd, chain->buffer + done, chain->bytes - done < PIECE_SIZE ? chain->bytes - done : PIECE_SIZE);
	must_close(fd);
	if (is_renamed && rename(draft, path))
		die(path);
	if (!strcmp(chain->kind, "pipe"))
		write_all(chain->pipes[stage][1], &c, 1);
	free(draft);
	free(path);
}

static void prepare_stage(long stage, void *data)
{
	struct chain *chain = data;

	(void)stage;
	chain->buffer = must_allocate(chain->bytes);
}

static void run_stage(long stage, void *data)
{
	struct chain *chain = data;

	work(chain->before);
	if (stage > 0) {
		int fd = open_input(chain, stage - 1);

		read_all(fd, chain->buffer, chain->bytes);
		close(fd);
	}
	work(chain->after);
	write_output(chain, stage);
}

static int run_chain(char **argument)
{
	struct chain chain = {.kind = argument[0], .directory = argument[1], .stages = number(argument[3]),
		.bytes = number(argument[4])};
	int64_t task = number(argument[5]) * 1000, permille = strtol(argument[6], NULL, 10);
	char name[32];

	chain.before = task * permille / 1000;
	chain.after = task - chain.before;
	chain.pipes = must_allocate(chain.stages * sizeof(*chain.pipes));
	for (long i = 0; i < chain.stages; i++) {
		if (pipe2(chain.pipes[i], O_CLOEXEC))
			die("pipe");
		snprintf(name, sizeof(name), "s%ld", i);
		if (!strcmp(chain.kind, "future"))
			declare(argument[2], name);
	}
	printf("%.9f\n", run_clients(chain.stages, run_stage, prepare_stage, &chain));
	return 0;
}

const struct verb chain_verbs[] = {{"chain", 7, run_chain}, {NULL, 0, NULL}};

/* Running a command: what `run` does when everything is made. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct command {
	char **words;              /* ends with NULL */
	int (*begin)(void *arg);   /* in its process, before it begins: 0, or an exit status after saying why not */
	void (*not_run)(void *arg); /* in its process: it could not begin, begin is to be made undone */
	void *arg;
};

struct outcome {
	int status; /* as of waitpid(2) */
	bool timed_out;
};

/* Run it to its end; after `until` (CLOCK_MONOTONIC; negative: never) end it. What is sent to this process is for the
 * command. Returns 0, or an exit status after saying why it could not be started. */
int command_run(const struct command *c, int64_t until, struct outcome *o);

/* The exit status that stands for it. */
int command_status(const struct outcome *o);

/* How it ended, as in `make exited with status 2`, in a new string; NULL: well. */
char *command_failure(const char *name, const struct outcome *o);

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t command_clock(void);

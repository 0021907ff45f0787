/* The handles of a command that is run: one for each --borrow, --borrow-mut, --own, --produce and --once. */
#pragma once

#include "handle.h"
#include "marks.h"
#include "produce.h"

struct run_handle {
	enum option_id option;
	char *name; /* NULL: has none */
	struct key key;
	struct handle handle;   /* of --borrow, --borrow-mut, --own */
	struct product product; /* of --produce */
	char *once;             /* of --once: the path */
};

struct run_handles {
	struct run_handle *list;
	int count;
};

/* Take them from the command line. Returns 0 or an exit status after saying what is wrong; nothing is made yet. */
int run_handles_find(const struct args *a, struct run_handles *h);

/* Make them, bound to this process so that they end with it; only what is moved is not bound before the command is
 * there. What has to be waited for is waited for until `until` (CLOCK_MONOTONIC; negative: for ever). Returns 0, or an
 * exit status after saying why not, and then nothing is left. */
int run_handles_make(const struct args *a, struct run_handles *h, int64_t until);

/* In the process of the command: bind them to it. Returns 0 or an exit status after saying why not. */
int run_handles_bind(struct run_handles *h);

/* In the process of the command: it does not begin. What was moved goes back before it ends with this process. */
void run_handles_give_back(struct run_handles *h);

/* The command was not started. */
void run_handles_undo(struct run_handles *h);

/* The command has ended, well or with a failure. Returns 0 or an exit status after saying what went wrong. */
int run_handles_end(struct run_handles *h, const char *failure);

/* Their paths; list is a new array. */
void run_handles_mark(const struct run_handles *h, struct marks *m);

void run_handles_finish(struct run_handles *h);

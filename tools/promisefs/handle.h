/* Handles: names in own/, ref/ and mut/ of the control directory. The first owns an object instead of its key, the
 * others borrow it. */
#pragma once

#include "key.h"

#include <stdbool.h>
#include <sys/types.h>

enum handle_kind {
	HANDLE_OWN,
	HANDLE_REF,
	HANDLE_MUT,
};

struct handle {
	enum handle_kind kind;
	const struct key *key; /* what it is made of */
	char *path;            /* NULL: not made */
	char *pid_before;      /* own: the process that the key was bound to, or NULL */
};

/* What a handle is to be: it is called `name`, or when that is NULL PREFIX-PID-N, which nobody else is; owners then end
 * as their key does. */
struct handle_wish {
	const char *name;
	const char *prefix;
	const char *pid; /* the process that it is bound to, as in user.promisefs.pid; NULL: none */
	bool wait;       /* a borrow: for its turn, until the limit (limit.h) has passed */
	mode_t mode;     /* a new file */
};

/* Make a handle of h->key: a borrow; an owner, which is moved from the key; an owner that is a new, empty file. What is
 * bound to a process is never there without one, except that it takes a moment to bind what was moved: so nothing is
 * evicted before all is well. Return 0, or an exit status after saying why not. */
int handle_borrow(struct handle *h, const struct handle_wish *w);
int handle_own(struct handle *h, const struct handle_wish *w);
int handle_create(struct handle *h, const struct handle_wish *w);

/* Returns 0 when there is a process of that number which one may bind things to, or an exit status after saying that
 * there is not; pid may be NULL. */
int handle_check_process(const struct key *k, const char *pid);

/* Set an attribute of it (a lease, a process). Returns 0 or an exit status after saying why not. */
int handle_set(const struct handle *h, const char *attribute, const char *value);

/* Make its making undone, without a word: a borrow is dropped, what was moved goes back. */
void handle_undo(struct handle *h);

/* Drop it, without a word. */
void handle_drop(struct handle *h);

void handle_finish(struct handle *h);

/* The handle that a user names by its path, or as own/X, ref/R or mut/M of the mount of -m or of the current directory,
 * as a key; it need not exist. Returns 0, or an exit status after saying what is wrong. */
int handle_find(const struct args *a, const char *word, struct key *k);

/* Whether a key is a handle, and of which kind. */
bool handle_is(const struct key *k, enum handle_kind *kind);

/* Say what failed with a handle, for an errno (positive). Returns EXIT_FAILED. */
int handle_report(const struct key *k, int error);

/* Returns 0 when `name` can be that of a handle, else EXIT_USAGE after saying so. */
int handle_check_name(const char *name);

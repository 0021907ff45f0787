/* A store without a mount: for promisefs fsck, gc and backup. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct offline {
	char path[PATH_MAX];
	char catalog[PATH_MAX + 16]; /* path of the catalog */
	int fd, lock_fd;
	bool online;      /* a daemon has it */
	char owner[PATH_MAX + 64]; /* who that is */
	int keep_fd;      /* what is set aside goes there; -1: nothing was yet */
	char keep[PATH_MAX + 64];
	FILE *index;      /* what was set aside, and why */
	char error[PATH_MAX + 200]; /* when a call has failed: what */
	const char *advice;         /* and what to do */
};

/* Root becomes the owner of the directory. Locks it, so that nobody can mount it; when it is mounted: with `online` goes
 * on without the lock, else fails. All return 0 or a negative errno and then have filled in error and advice. */
int offline_open(struct offline *s, const char *store, const char *verb, bool online);
void offline_close(struct offline *s);

/* Nobody copies it just now, and nobody begins to until it is closed. */
int offline_claim(struct offline *s);

/* Makes the directory where things are set aside, if there is none yet, and opens its index. */
int offline_keep(struct offline *s);

/* What was written to the index is on the disk. */
int offline_noted(struct offline *s);

/* A repair is under way: while there is this file, nothing but another repair may touch the store, as files that no
 * record speaks of may be the only copies. offline_repairing puts it there, or, when that is done,
 * takes it away. */
#define OFFLINE_REPAIRING "repairing"
bool offline_is_repairing(struct offline *s);
int offline_repairing(struct offline *s, bool done);

/* Sets aside the catalog with what belongs to it. */
int offline_keep_catalog(struct offline *s);

/* Files that others may read or write, that we may not, or that belong to somebody else: found is called with each. With
 * repair they are put right; left counts those that could not be. */
int offline_rights(struct offline *s, bool repair, void (*found)(void *arg, const char *name, const char *what), void *arg,
		   uint64_t *count, uint64_t *left);

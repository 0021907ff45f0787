/* Copying a store, also one that is mounted and being written: promisefs backup.
 *
 * The catalog is copied first, of one moment; then every data file that this copy speaks of. Published versions never
 * change, so it does not matter when they are copied, as long as they are still there. They are: a lock on the directory
 * of the data files, which is taken before the moment of the catalog, keeps the daemon from removing any (garbage.c; it
 * removes only what the catalog has recorded as removed before it looks at the lock). What does change are drafts. One
 * that was closed must be as it was at that moment, by size and time; where it is not, a newer moment is taken, in which it
 * is published or somebody is writing it still.
 *
 * Files are cloned where the file system can, else copied, and never linked: two stores would rely on the other one not
 * to change them.
 *
 * The copy gets the name catalog.db last, when everything that it speaks of is there and on the disk. Before that
 * nobody takes the directory for a store, and the next run goes on with what is there. */
#pragma once

#include "fs/offline.h"

#define BACKUP_MARKER "incomplete" /* in what is no store yet */

struct backup_options {
	bool (*stop)(void *arg);
	void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
	void (*left_out)(void *arg, uint64_t object, const char *why); /* a draft that is still being written */
	void *arg;
};

struct backup_result {
	uint64_t files, cloned, copied, there; /* there: from an earlier run */
	uint64_t bytes;                                /* that were copied */
	unsigned moments;                              /* how often the catalog was copied */
};

/* Makes the directory when root copies what belongs to somebody else, before he becomes that user; it is his then. What
 * goes wrong backup_store finds. */
void backup_make_dest(const char *store, const char *dest);

/* Fills in s->error and s->advice when it fails. -ECANCELED: stopped. */
int backup_store(struct offline *s, const char *dest, const struct backup_options *o, struct backup_result *result);

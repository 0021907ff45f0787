/* Which data files a copy of a catalog needs to be the copy of a store. */
#pragma once

#include "meta/meta.h"

enum need {
	NEED_WHOLE,  /* the first `size` bytes of a published version; they never change */
	NEED_LIVE,   /* what there is: changed in place, as its readers see it */
	NEED_SEALED, /* a draft that was closed: as it was then, by size and mtime, or not at all */
	NEED_SYNCED, /* a draft that was fsynced: as it is at some moment, or not at all */
	NEED_DRAFT,  /* a draft of somebody who is dead; if there is any */
};

struct needed {
	enum need need;
	uint64_t object, vid;
	uint64_t instead; /* the number that the file may have as yet; 0: none */
	int64_t size, mtime;
};

/* Calls fn for each, inside of an operation. online: drafts may have writers, who are taken for dead as of the moment of
 * the catalog. Then those that were neither closed nor synced are worth nothing. fn may call the engine. */
int store_needed_files(struct meta *m, bool online, int (*fn)(void *arg, const struct needed *n), void *arg);

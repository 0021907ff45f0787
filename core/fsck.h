/* Looking at a whole store: does what the catalog says agree with itself, and with the data files? And putting it right,
 * so that nothing is lost: what has no place any more gets a name below lost+found/ in the mount, or is set aside.
 *
 * Knows no SQL and no paths; the catalog is asked through meta->ops and the files through blobs->ops. A store that is in
 * use can be looked at, too, where `meta` shows one moment: what is seen twice in a row, with a pause in between, is so.
 * Needs some 150 bytes of memory for each object. */
#pragma once

#include "core/blobs.h"
#include "meta/meta.h"

struct fsck_finding {
	const char *kind;    /* a word for programs */
	bool harmless;       /* left by a daemon that was killed: the next mount sees to it */
	const char *key;     /* below the mount, or "#NUMBER" when it has no name */
	uint64_t object, version; /* 0: of none */
	const char *file;    /* the data file in question, NULL: none */
	const char *text;    /* what is wrong */
	const char *remedy;  /* what is done about it, NULL: nothing can be */
};

struct fsck_options {
	bool checksums; /* read the data of what has a recorded checksum */
	bool repair;    /* nobody else has the store, and `meta` and `blobs` may be changed */
	bool online;    /* somebody else has it, and changes it */
	bool remade;    /* records may be lost: a file that none speaks of may be the only copy, also among the drafts */
	int (*noted)(void *arg); /* with repair: what was told so far is on the disk, or a negative errno; may be NULL */
	void (*found)(void *arg, const struct fsck_finding *f); /* with repair: before it is repaired */
	void (*pause)(void *arg);                               /* with online: long enough for others to finish */
	bool (*stop)(void *arg);                                /* asked now and then */
	void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
	void *arg;
};

struct fsck_result {
	uint64_t objects, files, bytes; /* looked at; bytes were read for checksums */
	uint64_t found;    /* without what is harmless */
	uint64_t left;     /* of these, what was not repaired */
	uint64_t harmless;
};

/* What is wrong with the catalog by itself: its pages, its numbers. Anything else is of no use before that is right.
 * damaged: it must be made anew. All return 0 or a negative errno; -ECANCELED: stopped. */
int store_fsck_catalog(struct meta *m, const struct fsck_options *o, struct fsck_result *result, bool *damaged);
int store_fsck(struct meta *m, struct blobs *b, const struct fsck_options *o, struct fsck_result *result);

/* Files that no row speaks of: fn is called with each. For gc; what a daemon has left must be settled before. */
int store_unknown_files(struct meta *m, struct blobs *b, int (*fn)(void *arg, const struct blob_file *f), void *arg);

/* Does with the drafts, garbage and one-time objects that a daemon has left what a mount does when it begins. */
struct store_options;
int store_settle(struct meta *m, struct blobs *b, const struct store_options *options);

/* What fsck has gathered of a store, and what it found: shared by fsck*.c. */
#pragma once

#include "core/fsck.h"
#include "core/internal.h"

/* What is kept of an object. */
struct item {
	uint64_t id, vid, version;
	uint64_t parent;         /* of a directory: by its first name; 0: none */
	int64_t size, borrows;
	uint32_t mode, nlink, queued;
	uint32_t names, subdirs; /* counted */
	uint32_t refs, muts, waits;
	int32_t error;
	uint8_t state;
	bool live, declared;
	bool ending, taken, torn, drafted, handle; /* it has such a row */
	uint8_t reached; /* 0: not looked at, 1: on the way, 2: from a root, 3: in a circle */
	bool fails;      /* a finding says that it cannot be read */
};

struct edge { /* a name, or a member of a lifetime */
	uint64_t parent, cookie, object;
	bool bad; /* no name that a system call can give */
};

struct file {
	uint64_t vid;
	int64_t size;
	bool draft;
	char *name; /* only of what is none of ours */
};

struct number { /* a version that some row speaks of */
	uint64_t vid, object;
	enum { NUMBER_CURRENT, NUMBER_DRAFT, NUMBER_TORN, NUMBER_GARBAGE } why;
	bool dropped; /* a draft whose row was removed just now */
};

#define TABLE(type) struct { type *at; size_t n, capacity; }

enum fsck_kind {
	FSCK_ROOT, FSCK_LOST, FSCK_SHORT, FSCK_LONG, FSCK_CHECKSUM, FSCK_TWICE, FSCK_STATE, FSCK_TYPE, FSCK_LINKS,
	FSCK_NAMELESS, FSCK_DANGLING, FSCK_HOMELESS, FSCK_MISPLACED, FSCK_NAME, FSCK_DIRECTORY_NAMES, FSCK_CIRCLE, FSCK_HANDLE,
	FSCK_BORROW, FSCK_COUNTS, FSCK_MEMBER, FSCK_ORPHAN, FSCK_DRAFT, FSCK_GARBAGE, FSCK_UNKNOWN, FSCK_STRANGE,
	FSCK_LEFT_DRAFT, FSCK_LEFT_FILE, FSCK_LEFT_GARBAGE, FSCK_LEFT_TAKEN, FSCK_LEFT_ENDING,
	FSCK_KINDS
};

struct finding {
	enum fsck_kind kind;
	uint64_t object, vid, other; /* other: a table, a parent, a lifetime */
	uint64_t cookie;
	char *name; /* of a file that is none of ours */
	int64_t size;
};

struct fsck {
	struct meta *m;
	struct blobs *b;
	const struct fsck_options *o;
	struct fsck_result *result;
	TABLE(struct item) items;     /* by id */
	TABLE(struct edge) names;     /* by parent and cookie */
	TABLE(struct edge) members;
	TABLE(struct meta_borrow) borrows;
	TABLE(struct file) files;     /* by vid */
	TABLE(struct number) numbers; /* by vid */
	TABLE(struct number) orphans; /* rows of objects that are not there; vid: the table */
	TABLE(struct finding) findings;
	bool hash; /* read the data in this pass */
};

/* Makes room for one more; NULL: no memory. */
void *table_more(void **at, size_t *n, size_t *capacity, size_t size);
#define ADD(table) ((__typeof__((table).at))table_more((void **)&(table).at, &(table).n, &(table).capacity, sizeof(*(table).at)))

struct item *fsck_item(struct fsck *c, uint64_t id); /* NULL: there is none */
const struct file *fsck_file(struct fsck *c, uint64_t vid); /* the published one when there are both */
bool fsck_knows(struct fsck *c, uint64_t vid, bool draft);
int fsck_find(struct fsck *c, const struct finding *f);
bool fsck_stopped(struct fsck *c);
void fsck_progress(struct fsck *c, const char *what, uint64_t done, uint64_t total);

int fsck_gather(struct fsck *c);  /* files first, then one moment of the catalog; inside of an operation afterwards */
void fsck_forget(struct fsck *c); /* what was gathered, but not the findings */

int fsck_compare(struct fsck *c); /* fsck_rules.c: what is wrong with it, as findings */
bool fsck_is_harmless(enum fsck_kind kind);
int fsck_tell(struct fsck *c, const struct finding *f); /* fsck_tell.c: to the one who asked */
int fsck_repair(struct fsck *c, const struct finding *f); /* fsck_repair.c: in the catalog, inside of an operation */
int fsck_repair_files(struct fsck *c, const struct finding *f); /* and then among the files */
bool fsck_can_repair(enum fsck_kind kind);

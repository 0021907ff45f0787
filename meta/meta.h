/* The catalog: one interface, engines behind it (SQLite first).
 *
 * A catalog holds records and nothing but records: objects, directory entries, attributes, drafts, garbage, events.
 * It knows no rule about them; those are in core. An engine may be in the process (SQLite) or on another host that
 * several mounts share (PostgreSQL), so:
 *   - every record call happens between begin and end, which bracket one operation;
 *   - the end of an operation names how far it must be recorded, and a callback says when it is (or that it failed):
 *     the caller never assumes that this happens before end() returns, nor in which thread;
 *   - the engine hands out identifiers and wall-clock time, and tells (notify) when somebody else changed an object.
 *
 * Operations of one host run one after another between begin and end. What an operation changed is seen by the next
 * one at once; a crash may take back a whole tail of operations, never one out of the middle.
 *
 * Record calls return 0 or a negative errno: -ENOENT a record that is asked for is not there (changing or removing one
 * that is not there is 0), -EEXIST the record is there already, or what it belongs to is not (for names core looks
 * first: an engine need not notice that one is taken), and for the store itself -ENOSPC, -EIO, -EROFS, -EBADMSG (corrupt). After one of the latter the operation must end with
 * META_ABANDON; every operation that was not recorded yet is then taken back and told so.
 */
#pragma once

#include "meta/histogram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define META_NAME_MAX 255
#define META_COMMAND_MAX 16

/* The identifiers. All come from one sequence (new_id), so no two are ever equal:
 *   object   what a key names; stays through rename and replacement. The roots of the control directory's
 *            trees have fixed numbers, below.
 *   version  one immutable set of bytes of an object; names the data file and is the inode number.
 *            The first version of an object has the object's own number. */
#define META_ROOT 1
#define META_ABORTED 2
#define META_LIFETIMES 3
#define META_OWN 4 /* owner handles: objects that no key owns */
#define META_REF 5 /* immutable borrows */
#define META_MUT 6 /* mutable borrows */
#define META_FIRST_ID 16

enum object_state {
	OBJECT_OTHER = 0,   /* not a regular file, or the handle of a borrow */
	OBJECT_PENDING = 1, /* declared, nobody writes */
	OBJECT_WRITING = 2, /* has never been published and has a draft */
	OBJECT_READY = 3,   /* has a current version */
	OBJECT_FAILED = 4,  /* a future that settled with an error */
};

struct meta_object {
	uint64_t id;
	uint64_t vid;     /* current version, or the one that will be the first */
	uint64_t version; /* number of the current version, 0 before the first */
	uint32_t mode, uid, gid, nlink;
	uint64_t rdev;
	int64_t size, blocks; /* of the current version; blocks of 512 bytes */
	int64_t atime, mtime, ctime, btime; /* nanoseconds since the epoch */
	enum object_state state;
	bool declared; /* is or was a future: its producer's death fails it instead of removing it */
	bool durable;  /* the current version was fsynced: it survives power loss, and so must what replaces it */
	bool live;     /* publish=write: a file changed in place, or a directory whose new files are */
	int32_t error; /* errno of a failed future */
	int64_t deadline; /* wall clock, nanoseconds; 0 none */
	int32_t producer_pid;
	uint32_t producer_uid;
	char producer_command[META_COMMAND_MAX];
	uint64_t lifetime; /* of a directory: the lifetime that new files in it join; 0 none */
	int64_t borrows;   /* how many immutable borrows there are; BORROWED_MUT: one mutable one */
	uint32_t queued;   /* how many more wait for their turn */
	bool evict;        /* opening it for reading evicts it */
};

#define BORROWED_MUT (-1)

struct meta_dentry {
	uint64_t parent, object;
	uint64_t cookie; /* position in the directory; stays as long as the entry does, 1 to INT64_MAX */
	unsigned name_len;
	char name[META_NAME_MAX + 1];
};

struct meta_draft {
	uint64_t object, vid;
	bool sealed;  /* the writer has closed it: counts as published if nobody comes to say otherwise */
	bool fsynced; /* the writer has called fsync: what is there counts */
	int64_t size, mtime; /* of the data file when it was sealed or synced: a file that differs was written afterwards */
};

struct meta_aborted {
	uint64_t object;
	uint64_t draft; /* whose file it was */
	int64_t at; /* wall clock, nanoseconds */
	int64_t size;
};

/* When something expires by itself. */
struct meta_lease {
	uint64_t object; /* a file, or the directory of a lifetime */
	int64_t expires; /* wall clock, nanoseconds */
	int64_t boot;    /* CLOCK_BOOTTIME, nanoseconds, when it was given as a duration; 0: it was given as a time */
	uint64_t boot_id; /* of the boot that `boot` belongs to */
};

/* A borrow: an object without bytes of its own (the handle) that stands for another one. */
struct meta_borrow {
	uint64_t handle, object;
	bool mut;
	bool waiting; /* for its turn; in the order of the handles' numbers */
};

/* What ends with a process. */
struct meta_binding {
	uint64_t object; /* a file, or the directory of a lifetime */
	int32_t pid;
	uint64_t start; /* tells the process from others that had, or will have, its number in this boot */
	uint64_t boot_id;
};

struct meta_event {
	uint64_t id; /* given by event_add */
	int64_t at;  /* wall clock, nanoseconds */
	const char *kind;
	const void *key; /* bytes of the path; valid only during the callback in event_scan */
	size_t key_len;
	uint64_t object, version;
	int32_t pid;
	uint32_t uid;
	char command[META_COMMAND_MAX];
	const char *detail; /* NULL: none */
};

struct meta_counts {
	uint64_t operations, commits, statements;
	uint64_t page_hits, page_misses;    /* of the catalog's pages in memory */
	const struct histogram *commit_ns;  /* how long commits took */
	const struct histogram *commit_ops; /* how many operations one has recorded */
	const struct histogram *record_ns;  /* how long an operation waited, from its end on, to be recorded */
};

/* How far an operation has to be recorded. */
enum meta_ack {
	META_READ,     /* it changed nothing */
	META_LATER,    /* recorded soon; nobody waits for it */
	META_RECORDED, /* survives the death of every process */
	META_DURABLE,  /* survives power loss */
	META_ABANDON,  /* take it back */
};

/* One who waits for the end of an operation. Belongs to the caller, who keeps it until done was called. */
struct meta_commit {
	void (*done)(struct meta_commit *c, int r);
	struct meta_commit *next;
	bool durable;
	int64_t since; /* when it began to wait, by the monotonic clock */
};

struct meta;

/* Tables whose rows belong to an object and go with it; see rows_scan. */
enum meta_table {
	META_ATTRIBUTES,
	META_DRAFTS,
	META_TORN, /* `aborted` */
	META_ENDINGS,
	META_LEASES,
	META_BINDINGS,
	META_TAKEN,
	META_TABLES,
};

typedef int (*meta_text_fn)(void *arg, const char *text);
typedef int (*meta_dentry_fn)(void *arg, const struct meta_dentry *d); /* non-zero ends the walk and is returned */
typedef int (*meta_attribute_fn)(void *arg, const char *name, size_t value_len);
typedef int (*meta_draft_fn)(void *arg, const struct meta_draft *d);
typedef int (*meta_id_fn)(void *arg, uint64_t id);
typedef int (*meta_taken_fn)(void *arg, uint64_t object, bool done);
typedef int (*meta_ending_fn)(void *arg, uint64_t object, const char *path);
typedef int (*meta_object_fn)(void *arg, const struct meta_object *o);
typedef int (*meta_aborted_fn)(void *arg, const struct meta_aborted *a);
typedef int (*meta_lease_fn)(void *arg, const struct meta_lease *l);
typedef int (*meta_borrow_fn)(void *arg, const struct meta_borrow *b);
typedef int (*meta_binding_fn)(void *arg, const struct meta_binding *b);
typedef int (*meta_event_fn)(void *arg, const struct meta_event *e);

/* The contract of an engine. Walk callbacks must not call the engine. */
struct meta_ops {
	void (*close)(struct meta *m); /* records everything, then frees */
	void (*begin)(struct meta *m); /* waits for its turn */
	void (*end)(struct meta *m, enum meta_ack ack, struct meta_commit *c); /* c may be NULL */
	bool (*contended)(struct meta *m); /* does anybody wait for his turn, between begin and end? */
	int64_t (*now)(struct meta *m); /* the catalog's wall clock, nanoseconds */
	int (*new_id)(struct meta *m, uint64_t *id);

	int (*object_get)(struct meta *m, uint64_t id, struct meta_object *o);
	int (*object_by_version)(struct meta *m, uint64_t vid, struct meta_object *o);
	int (*object_insert)(struct meta *m, const struct meta_object *o);
	int (*object_update)(struct meta *m, const struct meta_object *o); /* all fields */
	int (*object_touch)(struct meta *m, uint64_t id, int64_t when, int nlink_delta); /* mtime, ctime, nlink */
	int (*object_delete)(struct meta *m, uint64_t id); /* with its attributes and draft */
	int (*object_deadlines)(struct meta *m, meta_object_fn fn, void *arg); /* all that have one, soonest first */

	int (*dentry_get)(struct meta *m, uint64_t parent, const char *name, struct meta_dentry *d);
	int (*dentry_insert)(struct meta *m, uint64_t parent, const char *name, uint64_t object);
	int (*dentry_set)(struct meta *m, const struct meta_dentry *d, uint64_t object); /* point it elsewhere */
	int (*dentry_delete)(struct meta *m, const struct meta_dentry *d);
	int (*dentry_list)(struct meta *m, uint64_t parent, uint64_t after, meta_dentry_fn fn, void *arg); /* by cookie */
	int (*dentry_names)(struct meta *m, uint64_t object, meta_dentry_fn fn, void *arg); /* all names of an object */

	/* Attributes are name and value below an object: the user's xattrs (`user.`) and what core keeps (`pfs.`).
	 * A get with size 0 asks for the length; -ERANGE when it does not fit. Returns the length. */
	int (*attribute_get)(struct meta *m, uint64_t object, const char *name, void *value, size_t size);
	int (*attribute_set)(struct meta *m, uint64_t object, const char *name, const void *value, size_t len);
	int (*attribute_remove)(struct meta *m, uint64_t object, const char *name);
	int (*attribute_list)(struct meta *m, uint64_t object, meta_attribute_fn fn, void *arg);

	int (*draft_put)(struct meta *m, const struct meta_draft *d); /* insert or replace */
	int (*draft_delete)(struct meta *m, uint64_t object, uint64_t vid); /* vid 0: whichever; 0 also when there is none */
	int (*draft_list)(struct meta *m, meta_draft_fn fn, void *arg);

	int (*garbage_add)(struct meta *m, uint64_t vid); /* a data file to remove once the commit is recorded */
	int (*garbage_remove)(struct meta *m, uint64_t vid);
	int (*garbage_list)(struct meta *m, meta_id_fn fn, void *arg);

	int (*aborted_add)(struct meta *m, const struct meta_aborted *a);
	int (*aborted_remove)(struct meta *m, uint64_t object);
	int (*aborted_list)(struct meta *m, meta_aborted_fn fn, void *arg); /* oldest first */

	/* Members of a lifetime: names like those of a directory (parent: the lifetime), but no keys. They go with the
	 * object. */
	int (*member_get)(struct meta *m, uint64_t lifetime, const char *name, struct meta_dentry *d);
	int (*member_insert)(struct meta *m, uint64_t lifetime, const char *name, uint64_t object);
	int (*member_delete)(struct meta *m, const struct meta_dentry *d);
	int (*member_list)(struct meta *m, uint64_t lifetime, uint64_t after, meta_dentry_fn fn, void *arg); /* by cookie */
	int (*member_names)(struct meta *m, uint64_t object, meta_dentry_fn fn, void *arg); /* in whatever lifetime */

	/* Lifetimes and directories that have ended, but still have something in them. They have no name any more; path is
	 * where they were. Both go with the object. */
	int (*ending_add)(struct meta *m, uint64_t object, const char *path);
	int (*ending_list)(struct meta *m, meta_ending_fn fn, void *arg);

	/* One lease an object at most; it goes with the object. */
	int (*lease_get)(struct meta *m, uint64_t object, struct meta_lease *l);
	int (*lease_put)(struct meta *m, const struct meta_lease *l); /* insert or replace */
	int (*lease_remove)(struct meta *m, uint64_t object);
	int (*lease_soonest)(struct meta *m, bool timed, meta_lease_fn fn, void *arg); /* given as a time, or as a duration */
	/* Durations of another boot go on from now: what is left of them is what is left by the wall clock. */
	int (*lease_rebase)(struct meta *m, uint64_t boot_id, int64_t wall, int64_t boot);

	/* One process an object at most; it goes with the object. */
	int (*binding_get)(struct meta *m, uint64_t object, struct meta_binding *b);
	int (*binding_put)(struct meta *m, const struct meta_binding *b); /* insert or replace */
	int (*binding_remove)(struct meta *m, uint64_t object);
	int (*binding_list)(struct meta *m, uint64_t after, meta_binding_fn fn, void *arg); /* all, by object */
	int (*binding_of)(struct meta *m, int32_t pid, uint64_t start, meta_binding_fn fn, void *arg);

	/* A borrow goes with its handle. The object must not be deleted before. */
	int (*borrow_get)(struct meta *m, uint64_t handle, struct meta_borrow *b);
	int (*borrow_add)(struct meta *m, const struct meta_borrow *b);
	int (*borrow_held)(struct meta *m, uint64_t handle); /* it waits no longer */
	int (*borrow_queues)(struct meta *m, uint64_t after, meta_id_fn fn, void *arg); /* objects for which somebody waits */
	/* Those of an object that wait, or those that do not; oldest first. */
	int (*borrow_list)(struct meta *m, uint64_t object, bool waiting, meta_borrow_fn fn, void *arg);

	/* The names that an object had before somebody took it (a one-time object that is being read). They go with the
	 * object. */
	int (*taken_add)(struct meta *m, const struct meta_dentry *d);
	int (*taken_remove)(struct meta *m, uint64_t object); /* all of an object */
	int (*taken_names)(struct meta *m, uint64_t object, meta_dentry_fn fn, void *arg);
	int (*taken_done)(struct meta *m, uint64_t object, bool done); /* it has been read: it does not go back */
	int (*taken_list)(struct meta *m, meta_taken_fn fn, void *arg); /* the objects, each at least once */

	int (*event_add)(struct meta *m, struct meta_event *e);
	int (*event_scan)(struct meta *m, uint64_t after, meta_event_fn fn, void *arg); /* oldest first */

	/* For looking at a whole store and putting it right (core/fsck.c): walks over all rows, in the order of their keys,
	 * and what no operation of a mount needs. Records may contradict each other here. */
	int (*object_scan)(struct meta *m, meta_object_fn fn, void *arg);
	int (*dentry_scan)(struct meta *m, bool members, meta_dentry_fn fn, void *arg); /* by parent and cookie */
	int (*borrow_scan)(struct meta *m, meta_borrow_fn fn, void *arg);
	int (*borrow_remove)(struct meta *m, uint64_t handle);
	int (*rows_scan)(struct meta *m, enum meta_table t, meta_id_fn fn, void *arg); /* the objects, each once */
	int (*rows_remove)(struct meta *m, enum meta_table t, uint64_t object);
	int (*check)(struct meta *m, meta_text_fn fn, void *arg); /* what the engine finds wrong with its own files */
	int (*numbers)(struct meta *m, uint64_t *next, uint64_t *used); /* first number not given out, highest in use */
	int (*numbers_mend)(struct meta *m); /* none that is in use is given out again */
	int (*identity)(struct meta *m, char uuid[static 64]); /* tells this store from all others */
	int (*events_trim)(struct meta *m, uint64_t keep, bool dry, uint64_t *removed); /* all but the newest */
	int (*space)(struct meta *m, int64_t *bytes, int64_t *unused); /* what it takes, and what of that is free */
	int (*compact)(struct meta *m); /* outside of begin and end, and nobody else has it open */

	void (*counts)(struct meta *m, struct meta_counts *c); /* since it was opened; not between begin and end */
};

struct meta {
	const struct meta_ops *ops;
	/* Called after operations were taken back, outside of begin/end; set by core before its first operation. */
	void (*on_rollback)(void *arg, int r);
	void (*on_failure)(void *arg); /* the same when nothing was taken back, but something could not be read */
	void *on_rollback_arg;
	/* How often changes were taken back, and why they were last; changed between begin and end. */
	_Atomic unsigned rollbacks;
	int rollback_error;
	uint64_t first; /* of the numbers that are given out: all others are from before it was opened */
	bool left_open; /* whoever had it before has not closed it: it was killed, or the power failed */
	bool serving; /* set by core: whoever asks now is told EIO, not -EBADMSG, when what is read makes no sense */
};

/* Open the SQLite catalog at path, made when missing, and bring it to this version's schema. On failure returns a
 * negative errno and points *why at a sentence (valid in this thread until the next call): -EBADMSG corrupt or not a catalog, -EPROTO from a newer version,
 * -EROFS, -EACCES, -ENOSPC, -EIO. */
int meta_sqlite_open(const char *path, struct meta **ret, const char **why);

/* The same with a redo region: what the last process with that region had answered, and not committed, is done again
 * first. NULL: without. */
struct redo;
int meta_sqlite_open_redo(const char *path, struct redo *redo, struct meta **ret, const char **why);

/* The same to look at it only, also while a daemon has it open: what it shows is one moment, from the first call after
 * begin to end(META_ABANDON). Also -ENOENT: there is none, or it is empty; -ESTALE: of an older version. */
int meta_sqlite_open_reader(const char *path, struct meta **ret, const char **why);

/* A copy of the catalog of one moment, also while a daemon has it open, in a new file that holds all of it. `stop` (may
 * be NULL) is asked now and then: -ECANCELED. */
int meta_sqlite_copy(const char *from, const char *to, bool (*stop)(void *arg), void *arg);

/* Makes a new catalog of what can be read of a damaged one. `copied` is told each table, how many rows were read, and
 * whether some could not be. -ENODATA: nothing can be read. */
typedef void (*meta_copied_fn)(void *arg, const char *table, uint64_t rows, bool lost);
int meta_sqlite_salvage(const char *from, const char *to, meta_copied_fn copied, void *arg);

/* The newest schema version that meta_sqlite_open knows. */
#define META_SCHEMA_VERSION 4

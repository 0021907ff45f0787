/* The store: what fs (and any other front end) can ask of core.
 *
 * Identifiers: a `node` is what a front end calls an inode number. For a regular file it is the id of a version, so a
 * reader of an old version and the writer of the next one are on different nodes; for everything else the object's id.
 *
 * Results: 0 or a negative errno, unless said otherwise. A call that takes a struct meta_commit answers twice: a
 * negative result means that nothing was done and the commit will not be used; 0 means that commit->done will be
 * called, once, in whatever thread, when the change is recorded (or could not be). Output parameters are complete
 * before done is called.
 *
 * Locks, in the order in which they are taken:
 *   1. the catalog (meta begin .. end): every operation that reads or changes records. What is in memory of drafts,
 *      current versions and waiters changes only while it is held.
 *   2. store->lock: everything in memory. No I/O and no callback under it.
 * Hooks, wake-ups and completions run with neither. */
#pragma once

#include "core/blobs.h"
#include "core/borrow_rule.h"
#include "core/limit_rule.h"
#include "core/timer.h"
#include "meta/meta.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <uthash.h>

struct store;
struct object;
struct version;
struct awaited;
struct kept;

/* Who asks. tid 0: not known (a process outside of this PID namespace). */
struct caller {
	uint32_t uid, gid;
	int32_t tid;
	uint32_t umask;
	enum via via;           /* by which way he comes to the node that he names */
	const uint32_t *groups; /* his further groups, where they matter */
	unsigned group_count;
	bool unseen; /* what he changes, the front end does not see by itself: it has to be told what a name means now */
};

enum fate { FATE_ALIVE, FATE_EXITED, FATE_KILLED };

struct process {
	int32_t pid;
	char command[META_COMMAND_MAX];
	enum fate fate;
};

/* What a process still has mapped of an object that it has no descriptor of. */
enum maps {
	MAPS_UNKNOWN,
	MAPS_NOT,
	MAPS_READING, /* or its own copy of it */
	MAPS_WRITING, /* what it stores goes to the object */
};

/* A thread that opened an object for writing. */
struct holding {
	int32_t tid;
	uint64_t object;
};

struct told {
	void (*done)(struct told *t);
};

/* What core asks of its host. Called without locks. */
struct store_hooks {
	void (*process)(void *arg, int32_t tid, struct process *p);
	/* Does the process of tid have this object open for writing, by itself or inherited? */
	bool (*holds)(void *arg, int32_t tid, uint64_t object);
	/* Does any process have it open for writing? Slow. */
	bool (*held)(void *arg, uint64_t object);
	/* Does each of these threads' processes really have its object open for writing, and nobody else any of them? */
	bool (*only_these_hold)(void *arg, const struct holding *h, unsigned n);
	/* What tells the process `pid` from others of that number. -ESRCH: there is none; -EPERM: `who` has no right to
	 * it. */
	int (*identify)(void *arg, const struct caller *who, int32_t pid, uint64_t *start);
	/* Call store_process_ended when that process has ended, also if it has already; not from within. */
	void (*watch)(void *arg, int32_t pid, uint64_t start);
	/* A name means something else. Called with the catalog held, unlike all others, so it must not wait for anything. */
	void (*invalidate)(void *arg, uint64_t parent, const char *name);
	/* The attributes of a node have changed by themselves. As invalidate, and in order with that. */
	void (*forget)(void *arg, uint64_t node);
	/* The same at once. Called without locks, before the change is answered that has led to it. */
	void (*forget_now)(void *arg, uint64_t node);
	/* Call t->done when all that was said by these two until now has come to be known; it may be at once. */
	void (*told)(void *arg, struct told *t);
	/* Something happened; e is valid during the call. */
	void (*event)(void *arg, const struct meta_event *e);
};

struct store_options {
	bool producer_death_waits; /* a future stays pending when its producer is killed */
	int64_t aborted_age;       /* nanoseconds that torn bytes are kept */
	uint64_t aborted_bytes;    /* and how many of them */
	uint64_t boot_id;          /* tells this boot of the machine from others; clocks start anew with each */
	int64_t wait_timeout;      /* nanoseconds an open waits at most, unless its waiter is limited; -1 for ever */
	uint64_t max[LIMITED_COUNT]; /* of each user but root and: */
	uint32_t owner;              /* the user whom all of it belongs to */
	/* Do access control lists count? If not, those that there are are kept, but not asked, inherited or set. */
	struct kept *kept; /* what the next process needs, and what the last one has left; see kept.h. NULL: nothing is kept */
	enum { ACLS_IF_ANY, ACLS_ON, ACLS_OFF } acls; /* IF_ANY: if there are some when the store is opened */
};

/* Takes over meta and blobs' use, not their memory; hooks and options are copied. Publishes what was sealed, removes
 * what was torn, settles what expired meanwhile. *why names what was wrong. */
int store_open_all(struct meta *meta, struct blobs *blobs, const struct store_hooks *hooks, void *hooks_arg,
		   const struct store_options *options, struct store **ret);
/* The end, in this order: store_stop (nothing happens by itself any more), meta->ops->close (records what is left, which
 * still needs the store), store_close. All handles must be released. */
void store_stop(struct store *st);
/* The wall clock was set: what is to happen at a time is looked at anew. */
void store_clock_was_set(struct store *st);
void store_close(struct store *st);

struct store_counts {
	unsigned waiters, drafts, versions, objects;
};
void store_counts(struct store *st, struct store_counts *c);

/* ---- What one user may have: core/limit_rule.c, core/usage.c ---- */

/* One more, or a negative errno. What is recorded (handles, lifetimes) counts by itself. */
int store_take(struct store *st, enum limited what, uint32_t uid);
void store_give(struct store *st, enum limited what, uint32_t uid); /* back */

/* ---- Names: core/namespace.c, core/make.c ---- */

struct entry {
	uint64_t node;
	struct meta_object o; /* size and times as they are for this node */
	enum via via;         /* VIA_REF, VIA_MUT: it is a borrow, with the rights of that; node belongs to that way */
	bool stable;          /* the name means this node until somebody changes it through the front end, or: */
	int64_t until;        /* when it goes away by itself, boot time; 0: it does not, or a hook will tell */
	bool recounted;       /* the number of its names is another since a moment: forget how the node looks, then answer */
};

/* What to make with store_make. */
struct node_new {
	uint32_t mode; /* type and permissions, umask not yet applied */
	uint64_t rdev;
	const char *target; /* of a symbolic link */
};

int store_lookup(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct entry *e);
int store_make(struct store *st, const struct caller *who, uint64_t parent, const char *name, const struct node_new *n,
	       struct entry *e, struct meta_commit *c);
int store_link(struct store *st, const struct caller *who, uint64_t node, uint64_t parent, const char *name,
	       struct entry *e, struct meta_commit *c);
int store_unlink(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct meta_commit *c);
/* Cancels a future: the same, but -EEXIST when it is set already. */
int store_cancel(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct meta_commit *c);
int store_rmdir(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct meta_commit *c);
/* flags: 0, RENAME_NOREPLACE or RENAME_EXCHANGE */
int store_rename(struct store *st, const struct caller *who, uint64_t from, const char *name, uint64_t to,
		 const char *to_name, unsigned flags, struct meta_commit *c);
int store_readlink(struct store *st, uint64_t node, char target[static PATH_MAX]);
/* Calls fn for up to `limit` entries after the cookie `after`, in a fixed order, without locks. fn returns non-zero to
 * end. Entries that come and go meanwhile may or may not be seen; all others are seen once. */
typedef int (*store_entry_fn)(void *arg, const struct meta_dentry *d, const struct entry *e);
int store_readdir(struct store *st, const struct caller *who, uint64_t node, uint64_t after, unsigned limit,
		  store_entry_fn fn, void *arg);
/* An open directory can still be looked at when it was removed. */
int store_opendir(struct store *st, uint64_t node, struct object **ret);
void store_closedir(struct store *st, struct object *dir);
/* The same goes for one that was removed by its name, open or not, until the kernel has forgotten it and says so here;
 * what else was removed still answers store_getattr until then. */
void store_forget(struct store *st, uint64_t node);
int store_parent(struct store *st, uint64_t node, uint64_t *parent);

/* ---- Lifetimes: core/lifetimes.c, core/leases.c ---- */

/* A lifetime is a directory below META_LIFETIMES: it is made with store_make and renamed with store_rename. */
/* Makes the object of a node a member. -EPERM: a directory, or one that `who` may not write; -EEXIST: the name is taken;
 * -ENOENT: the lifetime has ended, or the object is gone. */
int store_lifetime_add(struct store *st, const struct caller *who, uint64_t node, uint64_t lifetime, const char *name,
		       struct entry *e, struct meta_commit *c);
int store_lifetime_lookup(struct store *st, const struct caller *who, uint64_t lifetime, const char *name, struct entry *e);
int store_lifetime_list(struct store *st, const struct caller *who, uint64_t lifetime, uint64_t after, unsigned limit,
			store_entry_fn fn, void *arg);
/* Evicts a member, wherever else it has names. */
int store_lifetime_evict(struct store *st, const struct caller *who, uint64_t lifetime, const char *name,
			 struct meta_commit *c);
/* Ends the lifetime `name` of `parent` (META_LIFETIMES): its members are evicted. c is told when all of them are, or
 * after a second. */
int store_lifetime_end(struct store *st, const struct caller *who, uint64_t parent, const char *name,
		       struct meta_commit *c);
/* A lifetime or a borrow ends at that time (wall clock, nanoseconds), whatever was said before. */
int store_lease_until(struct store *st, const struct caller *who, uint64_t node, int64_t wall, struct meta_commit *c);

/* ---- What ends with a process: core/bindings.c ---- */

/* Binds a file or a lifetime to a process. -ESRCH, -EPERM; -EOPNOTSUPP: it is neither. */
int store_bind(struct store *st, const struct caller *who, uint64_t node, int32_t pid, struct meta_commit *c);
/* The name of the lifetime of process pid, the caller's, which is made when missing. */
int store_lifetime_self(struct store *st, const struct caller *who, int32_t pid, char name[static META_NAME_MAX + 1]);
int store_process_ended(struct store *st, int32_t pid, uint64_t start);

/* ---- Borrowing: core/borrows.c, core/borrow_rule.c ---- */

struct borrowing; /* below, with the waiters */
/* Borrows the object of b->node: makes the handle b->name in ref/ or mut/, and b->e of it. c is told when it is
 * recorded. With b->queue, where that cannot be now, the handle waits for its turn, first come, first served, and
 * whoever opens it waits with it. STORE_WAITING: for a close that is under way; b->waiter.wake is called to ask again.
 * -EBUSY: the rule of borrowing, or somebody writes it, or others wait for it already. -EPERM: not a file, or by a
 * handle; -EACCES: no right to read (or to write) it; -EEXIST: the name is taken; -ENOENT: it is gone; -ESTALE: look its
 * name up again. */
int store_borrow(struct store *st, struct borrowing *b, struct meta_commit *c);

/* ---- Attributes: core/attributes.c ---- */

#define CHANGE_MODE 1u
#define CHANGE_UID 2u
#define CHANGE_GID 4u
#define CHANGE_ATIME 8u
#define CHANGE_MTIME 16u
struct attribute_change {
	unsigned which; /* 0: chown(2) with neither, or a write takes privileges away */
	uint32_t mode, uid, gid;
	int64_t atime, mtime; /* nanoseconds; INT64_MIN means now */
};

/* What node belongs to was changed so that the front end did not see it: it is told of its names and attributes. */
void store_changed_unseen(struct store *st, uint64_t node);
/* Does somebody have its object open by another node, too? Then front ends keep the rights to it more than once. */
bool store_has_nodes(struct store *st, uint64_t node);
int store_getattr(struct store *st, const struct caller *who, uint64_t node, struct entry *e);
int store_setattr(struct store *st, const struct caller *who, uint64_t node, const struct attribute_change *ch, struct entry *e,
		  struct meta_commit *c);
/* Returns the length; size 0 asks for it. Reading the hash reads all of the data, so call it where that may block. */
int store_getxattr(struct store *st, const struct caller *who, uint64_t node, const char *name, void *value, size_t size);
int store_setxattr(struct store *st, const struct caller *who, uint64_t node, const char *name, const void *value,
		   size_t len, int flags, struct meta_commit *c);
int store_removexattr(struct store *st, const struct caller *who, uint64_t node, const char *name, struct meta_commit *c);
bool store_uses_acls(struct store *st);
/* Whether somebody may read (4), write (2) or execute (1) an object, by its mode and its access control list: 0, -EACCES.
 * For where the kernel does not look, or looked at something else. */
int store_check_access(struct store *st, const struct caller *who, const struct meta_object *o, unsigned want);
/* The names of the attributes user.promisefs.*, by number from 0; NULL: there are no more. */
const char *store_attribute_name(unsigned i);
int store_listxattr(struct store *st, const struct caller *who, uint64_t node, char *list, size_t size);

/* ---- Opening and waiting: core/open.c, core/waiters.c ---- */

/* Somebody who waits. Belongs to the caller, zeroed but for `wake`; in core's hands from STORE_WAITING until wake. */
struct waiter {
	/* 0: things have changed, ask again. Otherwise a negative errno to give up with. Called without locks. */
	void (*wake)(struct waiter *w, int r);
	struct object *object; /* what is waited for, or NULL: a key that is not there, below */
	uint64_t parent;
	char *name;
	uint64_t object_id; /* what was waited for last */
	int32_t tid;
	uint32_t uid;
	int64_t since; /* wall clock */
	bool listed, cancelled;
	bool lingers; /* the waiter of a handle (O_NONBLOCK): its thread does something else */
	bool waking; /* taken off the list by somebody who is about to call wake */
	bool impatient; /* has waited for a close longer than a close takes */
	bool writes;    /* to write it */
	bool takes;     /* what it waits for goes away by its open */
	bool heir;      /* it is its turn to take that; see once.c */
	enum maps maps; /* what its process has mapped of object_id; the caller says so after STORE_LOOK */
	uint64_t maps_vid; /* the draft about which that was asked */
	bool limited;     /* the caller says how long it may wait, instead of the option */
	int64_t patience; /* that: nanoseconds from its first wait on; -1: for ever */
	int64_t began;    /* when that was; boot time, 0: not yet */
	int result; /* what it is woken with */
	struct waiter *prev, *next, *all_prev, *all_next;
	struct wait_limit *limit; /* NULL: it may wait for ever */
	int64_t until;            /* boot time */
	struct waiter *limit_prev, *limit_next;
	UT_hash_handle by_tid;
};

/* Somebody who borrows. Belongs to the caller, who fills in the first part. */
struct borrowing {
	struct waiter waiter; /* first */
	struct caller who;
	uint64_t node;
	bool mut, queue;
	char name[META_NAME_MAX + 1];
	struct entry e;
};

/* An open file. */
struct handle {
	struct store *st;
	struct version *version; /* NULL: a reader with O_NONBLOCK whose future has not settled */
	struct object *object;
	uint64_t vid;  /* of the version; 0: none */
	uint64_t node; /* through which it was opened */
	int flags;
	bool writer;
	int32_t tid;
	uint32_t uid;
	struct handle *prev, *next; /* among the writers of a version */
	enum via via;
	struct object *borrow;  /* VIA_REF: through which it was opened; counted */
	uint64_t borrow_id;     /* that; 0: none */
	bool releasing;         /* by store_release */
	bool truncates;         /* O_TRUNC, and that has not been done yet */
	bool kept;              /* it is in memory that is kept */
	bool detour;            /* its node will not stand for what it reads */
	bool flushed;           /* a writer: somebody has closed a descriptor of it */
	bool takes;             /* the object went away by this open, and goes back if its process is killed */
	struct process closer;  /* with takes: who closed a descriptor of it last */
	bool closed;
	bool unsettled; /* O_NONBLOCK: its future has not settled yet; until then version and takes are whose who settles it */
	int failed;     /* what it settled with */
	bool released;  /* while it is being woken: whoever does that frees it */
	uint64_t object_id; /* what it waits for; 0: the key below, which is not there */
	uint64_t parent;
	char *name;
	struct caller *reader; /* with that, whose rights to what comes are looked at */
	struct awaited *awaited; /* both of these, when that is kept; NULL: they are in other memory */
	struct waiter waiter;
	struct told told;
	void (*on_settle)(struct handle *h); /* see handle_on_settle */
	void (*on_end)(void *front);
	void *front;
};

#define STORE_WAITING 1  /* the waiter is listed and will be woken */
#define STORE_MUST_WAIT 2 /* it would have to wait, but no waiter was given */
#define STORE_PREPARE 3  /* the draft's data has to be copied first: call store_prepare, then ask again */
#define STORE_LOOK 4     /* set the waiter's `maps`, in a thread that may block, then ask again */
#define STORE_GONE 5     /* -ESTALE for the second time: he has looked the name up again, and what he found is gone, too */

/* Open node. flags as for open(2). waiter NULL: do not wait, return STORE_MUST_WAIT. On 0 *ret is a handle.
 * *prepare_vid: 0 at first; after STORE_PREPARE the draft to prepare, to be passed on as it is when asking again.
 * Errors: -ESTALE look the name up again, -EDEADLK waiting could never end, -EINTR the waiter was cancelled,
 * and what the future failed with. */
int store_open(struct store *st, const struct caller *who, uint64_t node, int flags, struct waiter *waiter,
	       struct handle **ret, uint64_t *prepare_vid);
/* After -ESTALE: who asked will not come back with what the name gives then. */
void store_open_given_up(struct store *st, const struct caller *who);
/* Fills the draft vid with what it starts from. Blocks as long as copying takes. */
int store_prepare(struct store *st, uint64_t vid);
int store_prepare_is_quick(struct store *st, uint64_t vid);
/* Open for reading without waiting what store_open said STORE_MUST_WAIT of: a handle that settles later. */
int store_open_unsettled(struct store *st, const struct caller *who, uint64_t node, int flags, struct handle **ret);
/* The same for a key that may not be there. */
int store_await_unsettled(struct store *st, const struct caller *who, uint64_t parent, const char *name, int flags,
			  struct handle **ret);
/* Of a handle: 0 when its version can be read, -EAGAIN when it has not settled, or what the future failed with. */
int handle_settled(struct handle *h);
/* Have fn called, without locks, when h settles; it finds `front` in the handle. It may have settled before. fn may be
 * under way when h is released, so that `front` is in use until `end`, if there is one, is called. */
void handle_on_settle(struct handle *h, void (*fn)(struct handle *h), void (*end)(void *front), void *front);
/* Make a regular file and open it for writing; or, with O_RDONLY, an empty one that is whole already. Then it blocks until
 * that is recorded. */
int store_create(struct store *st, const struct caller *who, uint64_t parent, const char *name, uint32_t mode, int flags,
		 struct entry *e, struct handle **ret);
/* Wait until parent/name can be read. 0 when it can be now (or has failed), STORE_WAITING, or a negative errno. */
int store_await(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct waiter *waiter);
/* A waiter that was woken has been answered, whatever it has come to. */
void store_wait_over(struct store *st, struct waiter *w);
/* Take a waiter back: true when it was listed and is the caller's again. Otherwise it will not be listed any more. */
bool store_cancel_wait(struct store *st, struct waiter *w);

/* ---- Open files: core/handles.c ---- */

/* The descriptor of a handle's data, owned by the store, valid until the handle is released; or as handle_settled says. */
int handle_fd(struct handle *h);
uint64_t handle_vid(const struct handle *h);
bool handle_begins(const struct handle *h); /* it writes what has had no version before */
bool handle_is_final(const struct handle *h); /* its bytes never change again */
/* Before its file is changed in any way but by appending to it. May copy. */
int store_make_private(struct handle *h);
int store_before_write(struct handle *h, int64_t at); /* the same when it is none that appends */
/* A writer or an inheritor closes a descriptor of h. */
int store_flush(struct handle *h, const struct caller *who, struct meta_commit *c);
/* Record what was just flushed as failed: nothing will be published. */
void store_poison(struct handle *h, int error);
int store_fsync(struct handle *h, struct meta_commit *c);
int store_ftruncate(struct handle *h, int64_t size);
void store_release(struct handle *h); /* frees h */
void handle_forget(struct handle *h); /* the same after store_close, for one that was still open then */

/* ---- Futures: core/future.c ---- */

int store_declare(struct store *st, const struct caller *who, uint64_t parent, const char *name, uint32_t mode,
		  struct entry *e, struct meta_commit *c);

/* The same for what is there already. */
int store_redeclare(struct store *st, const struct caller *who, uint64_t node, struct meta_commit *c);

/* ---- Looking on: core/events.c, core/waiters.c, core/sight.c ---- */

/* May he know of what happens to a key? `known` (zeroed at first, or NULL) remembers the last answer, for many at once. */
struct sight {
	bool known, seen;
	uint64_t root;
	char dir[PATH_MAX];
};
bool store_sees(struct store *st, const struct caller *who, const char *key, struct sight *known);
bool store_is_host(struct store *st, uint32_t uid); /* root, or the user whom all of it belongs to */
struct caller *caller_keep(const struct caller *who); /* a copy, with the groups, that the caller frees; NULL: no memory */

/* A snapshot of one waiter. */
struct wait_info {
	const char *key;
	int32_t tid;
	uint32_t uid;
	int64_t since; /* wall clock */
	const char *state;
	const char *handle; /* the handle whose turn he waits for: ref/NAME or mut/NAME. NULL: he waits for the content */
	const int32_t *holders; /* tids that opened the draft for writing */
	unsigned holder_count;
};
int store_waits(struct store *st, int (*fn)(void *arg, const struct wait_info *w), void *arg);
/* Recorded events of `key` (NULL: of all), oldest first. fn is called without locks. */
int store_log(struct store *st, const char *key, int (*fn)(void *arg, const struct meta_event *e), void *arg);

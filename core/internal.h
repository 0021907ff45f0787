/* What the files of core share: the tables in memory, and the bracket around an operation. */
#pragma once

#include "core/give_way.h"
#include "core/kept.h"
#include "core/parse.h"
#include "core/store.h"
#include "core/walks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <uthash.h>
#include <utlist.h>

#define INTENT_NS 2000000000LL   /* how long a redirected open may take to come back */
#define CLOSING_NS 50000000LL    /* after which an open that waits for a close to be finished asks what holds it up */
#define CLOSING_MAX_NS 2000000000LL /* how long it waits though nothing seems to */

enum role {
	ROLE_DRAFT,   /* the object's draft */
	ROLE_CURRENT, /* what its key gives */
	ROLE_OLD,     /* replaced, aborted or evicted; lives as long as somebody has it open */
};

enum data {
	DATA_NONE,      /* a draft that nobody has opened yet: no file */
	DATA_PREPARING, /* its file is being filled with what it starts from */
	DATA_READY,
};

/* A version that is in use. There is at most one per vid. */
struct version {
	uint64_t vid;
	struct object *object; /* counted */
	uint64_t object_id;
	enum role role;
	enum data data;
	unsigned opens;   /* handles and intents */
	unsigned writers; /* handles and intents that may write */
	unsigned readers; /* handles that may not */
	struct handle *writer_list;
	int fd; /* -1 until somebody needs it */
	uint64_t base;        /* the version that a draft starts from, 0: empty */
	bool mappable;        /* somebody has had it open so that he could map it for writing */
	unsigned writer_opens; /* how often it was opened for writing */
	bool detoured;        /* written by somebody who has not looked its name up to get here */
	atomic_bool stored;   /* written to by a mapping, or may be yet, though the time of its file does not tell */
	bool continues;       /* it starts from the current version, which may be empty, too */
	bool sealed, fsynced; /* as in the catalog's draft record */
	int64_t sealed_at;    /* boot time */
	int64_t looked_up;    /* when it was last looked up who holds it since then; boot time */
	bool held_up;         /* sealed, but another process has inherited the descriptor, so RELEASE may be long in coming */
	bool replaces;        /* an object that was published before */
	bool extends;         /* only appends, to the file of the version it starts from; see extend.c */
	bool unsharing;       /* until it has a file of its own */
	bool live;            /* changed in place: its file may be longer than its record says */
	bool aborted;         /* it was a draft, and never published */
	bool unlinked_data;   /* its file is to be removed when the last one is done with it */
	uint64_t moved;       /* the number under which its file is kept, when it was torn; 0: its own */
	int error;            /* a write or a commit failed: never publish */
	int64_t start_size, start_mtime; /* of the file when it was prepared; before that, of what it starts from */
	int64_t synced_size, synced_mtime; /* of the file when it was last fsynced */
	int64_t blessed_mtime; /* of the file when somebody last set the mode or the capabilities; see privileges.c */
	bool unprivileged;     /* somebody other than root has had it open for writing */
	/* Who closed a descriptor of it last. Nobody: it was opened, but no process ever got the descriptor (the open was
	 * interrupted at the last moment), so nobody has said that it is finished either. */
	struct process closer;
	bool closed;
	uint32_t producer_uid;
	int64_t size; /* final size once published, for readers of old versions */
	int64_t mtime, blocks;
	UT_hash_handle hh;
};

/* An object that is in use: it has versions open, a draft, or somebody waits for it. */
struct object {
	uint64_t id;
	unsigned refs;
	struct version *current, *draft; /* not counted: they hold a reference to this */
	struct waiter *waiters;
	struct waiter *heir;            /* the one whose turn it is to take it; see once.c */
	bool guarded;           /* opening it for reading may be refused, or take it: ask the catalog */
	bool evict;             /* as in its record */
	bool taken;             /* somebody reads it for the one time; gone for all others */
	bool adopted_taker;     /* that somebody has been adopted */
	uint64_t stands_for;    /* of an immutable borrow that is open: the version */
	bool bare;              /* it was made just now, and nobody has set an attribute */
	bool gone;              /* it has no record any more; `row` is what it was */
	bool removed;           /* a directory that the kernel still has, perhaps as somebody's working directory */
	bool settling;          /* it was published a moment ago, and is being recorded; `row` is what it will be */
	struct meta_object row;
	struct orphan *orphans; /* its attributes, when it is gone */
	UT_hash_handle hh;
};

/* A thread that was told to look a name up again, and what it shall find. */
struct intent {
	int32_t tid;
	uint64_t object; /* 0: whatever it finds */
	struct version *version; /* counted as open; NULL until it has looked */
	uint64_t reserved;       /* the node that it was given for a draft that cannot be begun yet; 0: none */
	struct version *kept;    /* which that one will follow; counted as open */
	uint64_t given;          /* by the last look-up of the thread; 0: nothing */
	bool write, looked_up;
	bool looked; /* it has looked up anything */
	bool pins;   /* the version is kept in case it is removed, and given to nobody before it is published */
	bool away; /* sent to look for whatever the name means now */
	bool wants_draft; /* to write it */
	int64_t at;
	UT_hash_handle hh;
};

/* What a reader with O_NONBLOCK awaits, and whose rights are looked at then. */
#define AWAITED_GROUPS 256
struct awaited {
	struct handle *of;
	char name[META_NAME_MAX + 1];
	struct caller who;
	uint32_t groups[AWAITED_GROUPS];
};

/* Waiters in the order in which their time is up: one timer serves them all. */
struct wait_limit {
	struct store *st;
	int64_t ns; /* what they may wait when they do not say it themselves; -1: for ever */
	int result; /* what they are woken with then */
	struct waiter *waiters;
	struct timer timer;
};

/* A version that was replaced not long ago. The kernel may still ask for its node, and an answer that tells the object
 * saves it a walk down the path. */
struct replaced {
	uint64_t vid, object;
	int64_t size, mtime, blocks;
	struct replaced *prev, *next;
	UT_hash_handle hh;
};

/* What was removed and may still be in use without our knowing, see departed.c. */
struct departed {
	uint64_t node;
	struct meta_object row; /* as it was */
	struct departed *prev, *next;
	UT_hash_handle hh;
};

/* Waiters for a key that is not there. */
struct absent {
	char *key; /* parent id, '/', name */
	struct waiter *waiters;
	UT_hash_handle hh;
};

/* The path of a directory, so that events need not climb the tree each time. Guarded by the catalog. */
struct dir_path {
	uint64_t id;
	char *path;
	size_t len;
	UT_hash_handle hh;
};

/* See recounts.c. Guarded by the catalog. */
#define RECOUNTS_MAX 64
struct recounts {
	uint64_t nodes[RECOUNTS_MAX];
	unsigned next;
	int64_t until; /* boot time; 0: there is none */
};

struct store {
	struct meta *meta;
	struct blobs *blobs;
	struct store_hooks hooks;
	void *hooks_arg;
	struct store_options options;
	struct timers *timers;
	struct kept_pool *kept; /* NULL: nothing is kept. Guards itself */
	bool adopting;          /* it was another process's, which was killed; since then there was no power loss */

	pthread_mutex_t lock; /* guards the rest, and all objects, versions, handles and waiters */
	struct object *objects;
	struct version *versions;
	struct intent *intents;
	struct replaced *replaced, *replaced_order; /* by vid; oldest first */
	struct departed *departed, *departed_order; /* by node; oldest first */
	struct absent *absents;
	struct waiter *all_waiters;
	struct waiter *waiting_threads;  /* by tid; not those that linger */
	struct wait_limit wait_limit;    /* of the wait-timeout option, or as the waiter says */
	struct wait_limit closing_limit; /* of waiting for a close */
	struct store_counts counts;
	struct timer intent_timer;
	atomic_uint departed_count;
	atomic_uint removed_dirs;           /* how many objects are `removed` */

	pthread_mutex_t usage_lock; /* nothing is taken inside */
	struct usage *usages;       /* by user */

	struct garbage *garbage;            /* guards itself */
	struct dir_path *dir_paths;         /* guarded by the catalog */
	struct recounts recounts;
	struct timer resync_timer;          /* memory is to be looked through again, as the catalog could not be read */
	struct timer deadline_timer;        /* for the soonest deadline of all */
	struct timer aborted_timer;
	struct timer lease_timer;           /* for the one that expires first */
	int64_t lease_due;                  /* when that is; boot time. Guarded by the catalog */
	struct timer ending_timer;          /* while lifetimes are ending */
	uint64_t ending_asked;              /* `asked` as it was seen to change last, and when: only its timer uses them */
	int64_t ending_asked_at;
	atomic_ullong asked;                /* operations that somebody has asked for */
	struct ending *endings;             /* these; guarded by lock */
	struct resettling *resettlings;     /* drafts that could not be recorded as settled; guarded by lock */
	atomic_bool closing;
	bool uses_acls;       /* access control lists count */
	atomic_bool has_acls; /* somebody has set one in this store */
};

/* One operation: from op_begin to op_end the catalog is ours. What must not happen under a lock, or not before the
 * change is recorded, is noted in between; op_end sees to it. */
struct op {
	struct store *st;
	const struct caller *who;
	struct process process;        /* who that is, when events are to say so */
	struct waiter *woken;          /* to be woken once the catalog was left */
	struct op_note *notes;         /* to be told then */
	struct aftermath *after;       /* to be done once recorded */
	struct version *let_go;        /* what an intent kept that is overtaken */
};

enum note {
	NOTE_NAME,  /* a name means something else now */
	NOTE_NODE,  /* the attributes of the node `parent` have changed by themselves */
	NOTE_NAME_NOW, /* as the caller knows; but if the operation is taken back, somebody may have seen it meanwhile */
	NOTE_NODE_NOW, /* the same of attributes */
	NOTE_EVENT,
	NOTE_TURN,  /* it may be somebody's turn to borrow `parent` */
	NOTE_REVOKE, /* the draft `parent` is taken from its writer, unless the operation is taken back */
};

struct op_note {
	struct op_note *next;
	enum note what;
	uint64_t parent;
	char *name; /* of the entry, or the key of the event */
	char *detail;
	struct meta_event event;
};

#define FORGOTTEN_MAX 3 /* a rename: what it replaces, and two directories */
/* What waits for the operation to be recorded. */
struct aftermath {
	struct meta_commit c;
	struct store *st;
	struct meta_commit *user;
	struct op_note *names;    /* what the kernel may have been told meanwhile, should it be taken back */
	struct removal *removals; /* data files that nobody will need; versions in use are held open meanwhile */
	uint64_t settles; /* the object whose draft is settled: to be done again if it cannot be recorded. 0: none */
	uint64_t draft;   /* its version */
	int failed;       /* why it is not published, though it was closed or fsynced; 0: by what is recorded of it */
	uint64_t makes;   /* a version that is whole at once, whose file is published then, or removed. 0: none */
	uint64_t forgotten[FORGOTTEN_MAX]; /* nodes whose attributes the kernel has to forget first */
	uint64_t poisons; /* the draft whose writer is told of it: if it cannot be recorded, the draft has failed. 0: none */
};

void op_begin(struct op *op, struct store *st, const struct caller *who);
void op_begin_named(struct op *op, struct store *st, const struct caller *who); /* finds out op->process first */
/* r < 0: nothing was changed; returns r. Otherwise ends with ack and c (may be NULL) and returns r. */
int op_end(struct op *op, int r, enum meta_ack ack, struct meta_commit *c);
struct aftermath *op_after(struct op *op);        /* NULL: no memory */
void op_turn(struct op *op, uint64_t object); /* see NOTE_TURN */
int op_revoke(struct op *op, uint64_t draft);
void op_invalidate(struct op *op, uint64_t parent, const char *name);
void op_forget(struct op *op, uint64_t node); /* see NOTE_NODE */
void op_shows_name(struct op *op, uint64_t parent, const char *name); /* see NOTE_NAME_NOW */
void op_shows_node(struct op *op, uint64_t node);

/* kept.c: memory that is kept when the process ends, or just memory when nothing is. Zeroed, like that of calloc; it counts
 * when it is live. Of handles there may be no more, though there is memory. Guards itself. */
enum kept_kind {
	KEPT_HANDLE, /* with what is the front end's behind it */
	KEPT_VERSION,
	KEPT_OBJECT,
	KEPT_INTENT,
	KEPT_AWAITED,
	KEPT_REPLACED,
	KEPT_DEPARTED,
	KEPT_KINDS,
};
struct kept_pool;
int kept_open(struct kept *k, struct kept_pool **ret);
void kept_close(struct kept_pool *p);
bool kept_in_use(const struct kept *k); /* a store has been opened with it */
void kept_begins(struct store *st);     /* that is so now */
void *kept_take(struct store *st, enum kept_kind kind);
void kept_live(struct store *st, void *body);
void kept_give(struct store *st, enum kept_kind kind, void *body);
void *kept_next(struct store *st, enum kept_kind kind, uint32_t *at); /* those that are live, from *at on; NULL: no more */
bool kept_is_live(struct store *st, const void *body); /* false also of what is in other memory */
uint64_t kept_request(struct store *st, const void *body); /* for which it was taken; 0: that was answered */
void kept_answered(struct store *st, void *body);

struct handle *handle_new(struct store *st); /* zeroed, but for st; NULL: there may be no more */
void handle_free(struct handle *h);          /* which has nothing open */
/* What was stored before counts for the next process if what is stored behind does: one thread, killed in between. */
static inline void kept_in_order(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

/* adopt.c; before anything is served */
int adopt(struct store *st);
void adopt_go_on(struct store *st); /* later: everything else has begun. Without locks */

/* memory.c; all with store->lock held */
struct object *object_find(struct store *st, uint64_t id);
struct object *object_ref(struct store *st, uint64_t id); /* found or made; NULL: no memory */
void object_guard(struct object *obj, const struct meta_object *o); /* locked */
struct object *object_ref_row(struct store *st, const struct meta_object *o); /* the same, and it knows what o says */
void object_unref(struct store *st, struct object *obj);
bool object_has_draft(struct store *st, uint64_t id); /* takes the lock itself */
struct version *version_find(struct store *st, uint64_t vid);
struct version *version_add(struct store *st, struct object *obj, uint64_t vid, enum role role);
/* Gives up one use. What is left to do for the last one, the caller does with version_end, outside of the lock. */
struct version_end {
	int fd;          /* to close; -1: none */
	uint64_t remove; /* whose data file to remove; 0: none */
};
struct version_end version_put(struct store *st, struct version *v);
struct version *version_current(struct store *st, const struct meta_object *o); /* found or made, not counted */

int object_of_version(struct store *st, uint64_t vid, struct meta_object *o); /* in an operation of its own */
int new_file(struct store *st, uint64_t vid); /* for a draft; a descriptor to read and write */
int record_now(struct store *st, enum meta_ack ack); /* waits until everything up to now is; without locks */
int end_and_wait(struct meta *m, enum meta_ack ack); /* ends an operation, and waits until it is recorded */
int roots_make(struct meta *m);                      /* those that are missing; inside of an operation */
int hash_file(int fd, int64_t left, char hex[static 65]); /* SHA-256 of the next `left` bytes at most */

/* garbage.c */
/* The data of o's version is needed no longer. replaced: the object has another version instead. */
int op_remove_data(struct op *op, const struct meta_object *o, bool replaced);
bool garbage_take(struct store *st, struct removal *list, struct meta_commit *user); /* true: it is told later */
void garbage_keep(struct store *st, struct removal *list); /* the operation was taken back */
int garbage_adopt(struct store *st, const uint64_t *vids, size_t n); /* recorded by a process that was killed */
void garbage_empty(struct store *st); /* waits until all that was taken is removed; without locks */
/* A backup needs the files that are there: then this one is removed when it has ended. False: remove it now. */
bool garbage_put_off(struct store *st, uint64_t vid);
int garbage_start(struct store *st);
void garbage_stop(struct store *st); /* empties it; what is taken afterwards waits for the next start */
void garbage_free(struct store *st);

/* store.c */
void version_end(struct store *st, struct version_end end);         /* without locks */
void version_end_in_op(struct store *st, struct version_end end);   /* catalog held */
void version_release(struct store *st, struct version *v);          /* put and end; without locks */

void replaced_forget_all(struct store *st);
void version_replaced(struct store *st, const struct meta_object *o); /* o: as it was */

/* What a node is, for the length of an operation. */
struct subject {
	struct meta_object o;
	struct object *obj; /* counted; NULL when nothing of it is in memory */
	struct version *v;  /* NULL when the version is not in use */
	bool gone;
	uint64_t reserved;         /* the node of the draft that is to be begun; 0: a new one */
	enum via via;
	struct meta_object handle; /* VIA_REF, VIA_MUT: the borrow through which it was found; o is what is borrowed */
	bool mut;                  /* which may be a mutable one that waits for its turn, with VIA_REF */
};
int subject_get(struct store *st, uint64_t node, struct subject *s); /* catalog held */
int subject_by_object(struct store *st, uint64_t id, struct subject *s); /* the same when only the object is known */
int subject_get_via(struct store *st, enum via via, uint64_t node, struct subject *s); /* by a handle of the object */
/* The same for a thread that may have been given a node that nothing has yet; see intents.c. */
int subject_get_for(struct store *st, const struct caller *who, uint64_t node, struct subject *s);
/* The same when that handle has been dropped, for somebody who has it open: shown as the object is. */
int subject_get_dropped(struct store *st, enum via via, uint64_t node, struct subject *s);
bool subject_is_stale(const struct subject *s, uint64_t node); /* its node stands for a version that is no more */
int subject_refresh(struct store *st, struct subject *s, uint64_t node); /* then s->o becomes what the object is now */
int subject_get_now(struct store *st, const struct caller *who, uint64_t node, struct subject *s); /* both of that */
const struct meta_object *subject_self(const struct subject *s); /* what was named: the handle itself, or the object */
void subject_put(struct store *st, struct subject *s);
int subject_save(struct store *st, struct subject *s); /* writes s->o back */

/* handles.c */
void handle_ask_again(struct handle *h);     /* which has not settled, and is listed nowhere; without locks */
int draft_record(struct store *st, struct version *v, const struct stat *bytes); /* how it is now; catalog held */
void handle_take(struct waiter *w, struct version *v); /* locked: the handle of w has settled as v */

/* waiters.c */
void waiters_wake(struct op *op, struct object *obj, int r); /* catalog held, store->lock not */
void waiters_wake_id(struct op *op, uint64_t id, int r);
void waiters_wake_absent(struct op *op, uint64_t parent, const char *name);
void waiters_wake_absents(struct op *op); /* all of them, to look again */
int waiter_list(struct store *st, struct waiter *w, struct object *obj, struct wait_limit *limit); /* locked */
int waiter_list_absent(struct store *st, struct waiter *w, uint64_t parent, const char *name);     /* locked */
bool wait_is_endless(struct store *st, int32_t tid, struct object *obj, struct holding *held, unsigned *n, unsigned max);
void waiter_unlist(struct store *st, struct waiter *w); /* locked; w belongs to whoever called this */
void waiters_run(struct waiter *list); /* without locks */
void waiters_start(struct store *st);

/* lifetimes.c; catalog held */
/* The kernel asks anew for the names of members, of the first thousand: it may know them for longer than the lifetime has.
 * 0 when that is no lifetime. */
int lifetime_names_expire(struct op *op, uint64_t lifetime);
int lifetime_name(struct store *st, uint64_t lifetime, struct meta_dentry *d); /* -ENOENT: none that is alive */
int lifetime_make(struct op *op, const char *name, struct meta_object *o); /* the name is free */
int check_can_expire(struct store *st, const struct caller *who, const struct subject *s); /* -EOPNOTSUPP, -ENOENT, -EPERM */
int expire(struct op *op, uint64_t object, const char *why, int waiters_get); /* evict a file, end a lifetime or a directory */
int lifetime_join(struct op *op, const struct meta_object *o, const char *name); /* o->lifetime, as `name` if it is free */
int lifetime_of_dir_set(struct op *op, struct subject *s, const char *name); /* NULL: none */
int lifetimes_of(struct store *st, uint64_t object, char *text, size_t size); /* their names; -ENODATA: in none */
int lifetimes_end(struct store *st, uint64_t object, int64_t *at, uint64_t *lifetime); /* when the first one that it is in does */
int lifetime_entry_until(struct store *st, const struct meta_object *o, int64_t *until); /* of a new file; 0: no end */
bool lifetime_is_ending(struct store *st, uint64_t lifetime);
int lifetime_evict_member(struct op *op, uint64_t object, uint64_t lifetime); /* out of its turn; 0 also when it is gone */
int ending_path(struct store *st, uint64_t object, char path[static PATH_MAX]); /* where it was; -ENOENT: it is not ending */
void endings_resume(struct store *st); /* catalog held: after operations were taken back, some of them ends */
int lifetimes_start(struct store *st);  /* goes on with those that were ending; without locks */
void lifetimes_forget(struct store *st); /* at the end */

int bindings_start(struct store *st); /* bindings.c; without locks */

/* borrows.c; catalog held */
int borrow_entry(struct store *st, const struct caller *who, const struct meta_object *handle, struct entry *e);
int borrow_lookup(struct op *op, const struct meta_object *handle, struct entry *e, bool *changed);
void borrow_show(const struct meta_object *handle, bool mut, struct entry *e); /* e, of the object, becomes the handle's */
int borrow_changes(struct op *op, struct meta_object *o, int64_t borrows); /* how often o is borrowed now */
int borrow_dropped(struct op *op, const struct meta_object *handle); /* just before its record goes */
#define HANDLE_NAME_MAX (META_NAME_MAX + 8)
/* The path of what it stands for, and `ref/NAME` or `mut/NAME`. */
int borrow_describe(struct store *st, const struct meta_object *handle, char path[static PATH_MAX],
		    char name[static HANDLE_NAME_MAX]);
int borrow_event(struct op *op, const char *kind, const struct meta_object *handle);
int borrow_outlive(struct op *op, struct meta_object *o); /* o has lost its names, but is borrowed */
int borrow_queue_fails(struct op *op, uint64_t object); /* o is a future, and has failed */
int borrow_queue_ends(struct op *op, struct meta_object *o); /* nobody can borrow o any more */
void borrow_turn(struct store *st, uint64_t object); /* without locks */
int borrows_start(struct store *st); /* gives what was not given when the daemon ended */

/* usage.c; catalog held but for those that start, count and forget */
int usage_check(struct store *st, enum limited what, uint32_t uid); /* may he have one more? */
int usage_check_in(struct store *st, uint64_t parent, uint32_t uid); /* the same of what gets a name in that directory */
int usage_chown(struct store *st, const struct meta_object *o, uint32_t before); /* o was another user's */
int usage_recount(struct store *st); /* what is recorded */
void usage_start(struct store *st); /* before there are threads */
int usage_count(struct store *st);  /* the same, when what was left is put right */
void usage_forget_all(struct store *st);

/* once.c */
bool once_takes(const struct meta_object *o, enum via via, bool write); /* does such an open take it? */
int once_take(struct op *op, struct meta_object *o); /* catalog held */
int once_recorded(struct handle *h); /* whoever gets it must be the only one, so that it was taken is recorded first; without locks */
void once_flush(struct handle *h, const struct caller *who, const struct process *closer, struct meta_commit *c);
void once_release(struct handle *h); /* without locks; before h's version is given up */
int once_recover(struct store *st);  /* what was being read when the daemon ended */
int once_name(struct store *st, uint64_t object, struct meta_dentry *d); /* a name that it had; -ENOENT: it is not taken */

/* departed.c */
void departed_add(struct store *st, const struct meta_object *o); /* o is being removed */
int departed_get(struct store *st, uint64_t node, struct meta_object *o);
int departed_put(struct store *st, uint64_t node, const struct meta_object *o); /* it has changed; -ENOENT */
void departed_forget(struct store *st, uint64_t node);
void departed_forget_all(struct store *st);

/* orphans.c: of an object that is gone, like those of `meta` */
int orphan_set(struct store *st, struct object *obj, const char *name, const void *value, size_t len, int flags);
int orphan_get(struct store *st, struct object *obj, const char *name, void *value, size_t size);
int orphan_remove(struct store *st, struct object *obj, const char *name);
int orphan_list(struct store *st, struct object *obj, int (*fn)(void *arg, const char *name, size_t len), void *arg);
void orphans_free(struct object *obj); /* locked */

/* leases.c; catalog held */
int lease_set(struct op *op, const struct subject *s, const char *text);
int lease_text(struct store *st, uint64_t object, char text[static 40]); /* its length; -ENODATA: none */
void leases_rearm(struct store *st);
void leases_resume(struct store *st); /* after operations were taken back */
int lease_end(struct store *st, uint64_t object, int64_t *at); /* boot time; INT64_MAX: it has no lease */
/* 1: o's time is over, and now it is evicted; otherwise *until is when its time is over, 0: not by itself. */
int lease_enforce(struct op *op, struct meta_object *o, int64_t *until);
int lease_until(struct store *st, const struct meta_object *o, int64_t *until); /* the same without evicting it */
int leases_start(struct store *st); /* without locks */

void checker_start(struct meta *m); /* checker.c; before the first operation */

/* access.c; catalog held but for access_start */
int access_start(struct store *st);
int access_set(struct op *op, struct subject *s, const char *name, const void *value, size_t len);
int access_chmod(struct store *st, const struct meta_object *o); /* its mode was set */
/* What is being made in dir: its mode, and, when it has been recorded, its lists. */
int access_inherit_mode(struct op *op, uint64_t dir, struct meta_object *o);
int access_inherit(struct op *op, uint64_t dir, const struct meta_object *o);
bool access_is_bare(struct store *st, const struct meta_object *o);
int access_check(struct store *st, const struct caller *who, const struct meta_object *o, unsigned want); /* -EACCES */
uint32_t access_plain_mode(struct store *st, const struct meta_object *o); /* of what is like o, but has no list */

/* attributes.c */
void rights_changed(struct op *op, const struct subject *s); /* by one of its nodes: the kernel asks for those of the others */
void object_takes(struct meta_object *o, const struct stat *bytes); /* what its file says */
void object_as_draft(struct meta_object *o, const struct version *d, const struct stat *bytes); /* as it would be published; locked */

/* privileges.c */
void privileges_bless(struct store *st, struct subject *s);
void privileges_drop_mode(struct meta_object *o);
int privileges_after_write(struct op *op, struct meta_object *o, bool unprivileged);
int privileges_after_chown(struct op *op, struct meta_object *o);

/* extend.c */
bool draft_may_extend(struct store *st, const struct meta_object *o, int flags, bool in_use); /* locked */
int draft_unshare(struct store *st, struct version *d); /* without locks; d must be held open */

/* draft.c */
int draft_begin(struct op *op, struct subject *s, struct version **ret); /* makes and records the object's draft */
void draft_settle(struct store *st, struct version *v, const struct caller *who); /* gives up one use of v */
int draft_revoke(struct op *op, uint64_t object); /* who writes it may not any more: it is never published */
void draft_revoked(struct store *st, uint64_t vid); /* that is done; catalog held */
struct publication {
	uint64_t vid;
	const struct stat *bytes;
	const struct process *producer;
	uint32_t uid; /* of the producer */
	bool durable; /* all the bytes were fsynced */
	bool written; /* since somebody has last set the mode or the capabilities */
	bool unprivileged; /* by somebody other than root, or perhaps */
	bool detoured; /* by somebody who has not looked its name up to get at it */
};
bool draft_is_untouched(const struct version *v, const struct stat *bytes); /* nothing was written to it */
int draft_renew_version(struct op *op, struct meta_object *o); /* in o only */
int draft_publish(struct op *op, struct meta_object *o, const struct publication *p);
int draft_drop_unsettled(struct op *op, const struct meta_object *o); /* o is being deleted */
/* The draft that the catalog has of an object; 0: none, or no change was ever taken back, and memory knows it. One that
 * memory does not know was closed, and could not be recorded as settled yet: it must not be written over. Catalog held. */
uint64_t draft_recorded(struct store *st, uint64_t object);
void drafts_settle_now(struct store *st); /* those that are to be settled later; without locks */
void draft_poison(struct store *st, uint64_t vid, int error); /* a write, or its record, has failed: never published */
void draft_settle_later(struct store *st, uint64_t object, uint64_t vid, int failed); /* see struct aftermath */

/* aborted.c */
/* *kept: the version under which the draft's file is to be published, once recorded; 0: there is no place for it */
int aborted_keep(struct op *op, const char *key, const struct meta_object *o, uint64_t draft, const struct stat *bytes,
		 uint64_t *kept);
int aborted_adopt(struct op *op, const char *key, struct meta_object *o); /* o gets a name below aborted/; saved by the caller */
void aborted_start(struct store *st);

/* future.c */
int future_fail(struct op *op, struct subject *s, int error, const char *reason);
int future_error(struct store *st, const struct meta_object *o);
void deadlines_start(struct store *st);
void deadline_rearm(struct store *st); /* catalog held */

/* intents.c; with store->lock held but for those that say otherwise */
struct intent *intent_find(struct store *st, int32_t tid); /* NULL: none */
struct intent *intent_make(struct store *st, int32_t tid, uint64_t object, struct version *v, bool write);
struct version *intent_take(struct store *st, struct intent *in); /* ends it; whoever calls lets the version go */
bool intent_was_sent(const struct intent *in, const struct version *d, uint64_t node); /* is its thread back from looking for a draft? */
void version_let_go(struct store *st, struct version *v, const struct caller *who); /* without locks */
void intents_start(struct store *st);
bool intent_find_draft(struct op *op, const struct meta_object *o); /* catalog held */
void intent_looked(struct store *st, int32_t tid, uint64_t node); /* a look-up has given that, 0: nothing; without locks */
bool intent_is_back(struct store *st, int32_t tid, uint64_t node); /* it was told to look, and has; without locks */
/* What to say of a node that nothing is known of: -ESTALE, but -ENOENT to who has heard that already. Without locks. */
int intent_stale(struct store *st, int32_t tid, uint64_t node, bool write);
void intent_done(struct op *op); /* the thread had looked for something else than to open it, and has done that */
void intent_give_up(struct store *st, int32_t tid); /* it will not come back; without locks */
/* What stands behind a reserved node. The catalog is held; -ENOENT: it is none of this thread. */
int intent_subject(struct store *st, int32_t tid, uint64_t node, struct subject *s);
void intent_away(struct store *st, int32_t tid, bool write); /* it is being told to look a name up again; without locks */
uint64_t intent_node(struct store *st, const struct caller *who, const struct meta_object *o,
		     struct version_end *overtaken); /* locked */

/* recounts.c; the catalog is held */
void op_recounts(struct op *op, const struct meta_object *o); /* o, which has other names still, has one less */
void op_recounts_dir(struct op *op, uint64_t dir);            /* a directory in it was made, removed or moved */
bool is_recounted(struct store *st, uint64_t node);

/* namespace.c */
int dir_get(struct store *st, uint64_t id, struct meta_object *dir); /* -ENOENT, -ENOTDIR */
int object_delete(struct op *op, struct meta_object *o, int waiters_get); /* which has no name any more */
int names_invalidate(struct op *op, uint64_t object); /* the kernel asks anew what they mean */
int object_forget(struct op *op, const struct meta_object *o); /* the same, and how it looks */
int names_remove(struct op *op, const struct meta_object *o, bool taken); /* all; taken: remembered */
void object_gone(struct op *op, const struct meta_object *o, int waiters_get); /* what is in use lives on without a name */
int object_evict(struct op *op, struct meta_object *o, int waiters_get); /* its last name is gone */
void fill_entry(struct store *st, const struct caller *who, const struct meta_object *o, struct entry *e);

/* events.c */
int path_of_name(struct store *st, uint64_t parent, const char *name, char path[static PATH_MAX]); /* catalog held */
int path_of(struct store *st, uint64_t object, char path[static PATH_MAX]);
void paths_forget(struct store *st);
void path_remember(struct store *st, uint64_t dir, const char *path);
int event_record(struct op *op, const char *kind, const char *key, const struct meta_object *o,
		 const struct process *p, const char *detail);

/* recovery.c */
/* failed: a write has; 0: goes by what is recorded. */
int settle_recorded(struct op *op, const struct meta_draft *d, int failed, uint64_t *as); /* *as: the version to publish its file as */
int store_recover(struct store *st);

static inline int64_t store_now(struct store *st)
{
	return st->meta->ops->now(st->meta);
}

static inline int64_t ns_of(const struct timespec *ts)
{
	return (int64_t)ts->tv_sec * NS_PER_SEC + ts->tv_nsec;
}

static inline struct timespec timespec_of(int64_t ns)
{
	struct timespec ts = { .tv_sec = ns / NS_PER_SEC, .tv_nsec = ns % NS_PER_SEC };

	if (ts.tv_nsec < 0) { /* before 1970 */
		ts.tv_nsec += NS_PER_SEC;
		ts.tv_sec--;
	}
	return ts;
}

/* The handle of a borrow: it looks like a file, but has no bytes of its own. */
static inline bool is_borrow(const struct meta_object *o)
{
	return (o->mode & S_IFMT) == S_IFREG && o->state == OBJECT_OTHER;
}

static inline bool is_file(const struct meta_object *o)
{
	return (o->mode & S_IFMT) == S_IFREG && o->state != OBJECT_OTHER;
}

static inline bool caller_in_group(const struct caller *who, uint32_t gid)
{
	bool in = who->gid == gid;

	for (unsigned i = 0; i < who->group_count; i++)
		in = in || who->groups[i] == gid;
	return in;
}

static inline bool is_dir(const struct meta_object *o)
{
	return (o->mode & S_IFMT) == S_IFDIR;
}

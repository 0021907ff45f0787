/* What the files of the daemon share.
 *
 * Node numbers (what FUSE calls inodes): the upper byte says which view of the key space a node belongs to, the rest is
 * core's node. So views need no table of their own:
 *   VIEW_KEYS     the mount itself; 1 is its root, 2 the root of aborted/, 4 that of own/
 *   VIEW_CONTROL  .promisefs and the files in it
 *   VIEW_FUTURE   below .promisefs/future/
 *   VIEW_AWAIT    directories below .promisefs/await/
 *   VIEW_ONCE     below .promisefs/once/
 *   VIEW_REF      .promisefs/ref/ and what is in it, by the number of the handle
 *   VIEW_MUT      .promisefs/mut/ and what is in it, by the version of what is borrowed, as VIEW_KEYS
 *   VIEW_TURN     .promisefs/await-ref/ and await-mut/
 *   VIEW_LEND     below .promisefs/lend/: what is linked from there is borrowed. The kernel (fs.protected_hardlinks) lets
 *                 only those link a file of somebody else who may write it, so here files look as if all may write
 *                 who may read; core checks what it takes to borrow
 *   VIEW_ATTRIBUTES and all that follow: .promisefs/attributes/, a view for each attribute
 *   VIEW_AWAITED  files below it, there or not: each look-up gives a number of its own, until it is forgotten
 *
 * Locks: files, listeners, the registry of waiting opens, the table of backing files: each has its own mutex. Only the
 * registry is held while core is called (store_cancel_wait). */
#pragma once

#define FUSE_USE_VERSION 314

#include "core/kept.h"
#include "core/store.h"
#include "fs/keeper.h"
#include "fs/privileges.h"
#include "fs/work.h"

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

/* VIEW_LIFETIME: lifetimes/ and the directories in it. Their members are shown in VIEW_KEYS. VIEW_SELF: the symbolic
 * link lifetimes/self as a process sees it; the id is the process's number. */
enum view { VIEW_KEYS, VIEW_CONTROL, VIEW_FUTURE, VIEW_AWAIT, VIEW_AWAITED, VIEW_LIFETIME, VIEW_SELF,
	    VIEW_ONCE, VIEW_REF, VIEW_MUT, VIEW_TURN, VIEW_LEND,
	    VIEW_ATTRIBUTES = 64 };

#define VIEW_SHIFT 56

static inline enum view node_view(fuse_ino_t ino)
{
	return (enum view)(ino >> VIEW_SHIFT);
}

static inline uint64_t node_id(fuse_ino_t ino)
{
	return ino & ((1ULL << VIEW_SHIFT) - 1);
}

static inline fuse_ino_t node_in(enum view view, uint64_t id)
{
	return (fuse_ino_t)view << VIEW_SHIFT | id;
}

#define CONTROL_NAME ".promisefs"

enum control { CONTROL_DIR = 1, CONTROL_METRICS, CONTROL_EVENTS, CONTROL_WAITS, CONTROL_README,
	       CONTROL_ATTRIBUTES, CONTROL_WAIT_TIMEOUT };

enum passthrough { PASSTHROUGH_AUTO, PASSTHROUGH_ON, PASSTHROUGH_OFF };

struct fs_options {
	const char *store, *mountpoint;
	bool foreground, allow_other, read_only;
	enum passthrough passthrough;
	enum seccomp seccomp;
	unsigned threads; /* 0: one per CPU, at least 2 */
	int64_t busy_poll; /* nanoseconds that a thread looks for the next request before it sleeps; 0: not at all */
	bool supervised;
	unsigned restart_limit; /* deaths of workers in DEATHS_NS after which the mount ends; 0: none */
	struct store_options core;
};

#define RESTARTS_DEFAULT 5

#define BUSY_POLL_DEFAULT_NS 50000
#define BUSY_POLL_MAX_NS 1000000


struct backing;
struct listener;
struct awaited;
struct watch;
struct interruptible;
struct patience;
struct shared;
struct kept_file;

enum request { REQUEST_LOOKUP, REQUEST_GETATTR, REQUEST_SETATTR, REQUEST_OPEN, REQUEST_CREATE, REQUEST_READ, REQUEST_WRITE,
	       REQUEST_FLUSH, REQUEST_RELEASE, REQUEST_FSYNC, REQUEST_NAMES, REQUEST_XATTR, REQUEST_READDIR, REQUEST_POLL,
	       REQUEST_OTHER, REQUEST_COUNT };

struct fs {
	struct fs_options options;
	int store_fd;
	struct meta *meta;
	struct blobs *blobs;
	struct store *store;
	struct fuse_session *se;
	struct keeper keeper;
	int lock_fd;           /* of the store's lock */
	struct shared *shared; /* with other workers of the mount, see shared.h; NULL: there are none */
	int device;            /* its connection, if that is there already; -1 */
	struct workers *workers;
	struct workers *slow;        /* what takes as long as a user's file is large: hashing and copying */
	struct workers *tellers;     /* who waits, and what has happened: as long as there is to tell */
	struct workers *invalidator; /* one thread, so in the order in which it was told */
	struct timers *timers;       /* of answers that must not wait for it for ever */
	atomic_bool serving; /* there is a session that answers requests */
	dev_t dev; /* of the mount */
	int64_t started;

	atomic_bool passthrough; /* in use; turned off when the kernel refuses */
	pthread_mutex_t backing_lock;
	struct backing *backings; /* by node */

	pthread_mutex_t detours_lock; /* nothing is taken inside */
	struct detour *detours;
	atomic_uint detour_count;

	atomic_uint pollers; /* threads that are looking for a request instead of sleeping */
	atomic_bool busy;    /* requests come in quick succession */
	_Atomic int64_t last_request; /* when it came, CLOCK_MONOTONIC */

	pthread_mutex_t waiting_lock; /* taken before core's locks */
	struct interruptible *waiting; /* by id */
	uint64_t next_waiting;

	pthread_mutex_t patience_lock; /* nothing is taken inside */
	struct patience *patience;     /* by process */
	atomic_uint patience_count;
	unsigned patience_sweep;       /* at how many to look for those that have ended */

	struct watch *watch; /* of the clock, and of processes */

	pthread_mutex_t files_lock;
	struct file *files; /* that are open */

	pthread_mutex_t listeners_lock;
	struct listener *listeners;
	atomic_uint listener_count;

	pthread_mutex_t awaited_lock;
	struct awaited *awaited; /* by id */
	uint64_t next_awaited;

	atomic_ullong requests[REQUEST_COUNT];
	struct histogram request_ns[REQUEST_COUNT]; /* see metrics.c */
	struct histogram wait_ns;                   /* of opens that had to wait and have ended */
};

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static inline struct caller caller_of(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct caller){ .uid = ctx->uid, .gid = ctx->gid, .tid = ctx->pid, .umask = ctx->umask };
}

/* A node of ref/ or mut/ that is not the directory itself. */
static inline bool node_is_borrow(fuse_ino_t ino)
{
	return (node_view(ino) == VIEW_REF || node_view(ino) == VIEW_MUT) && node_id(ino) >= META_FIRST_ID;
}

/* The same, who names a node by the way that its view is. */
static inline struct caller caller_at(fuse_req_t req, fuse_ino_t ino)
{
	struct caller who = caller_of(req);

	if (node_is_borrow(ino))
		who.via = node_view(ino) == VIEW_REF ? VIA_REF : VIA_MUT;
	else if (node_view(ino) == VIEW_ONCE)
		who.via = VIA_ONCE;
	who.unseen = node_view(ino) == VIEW_FUTURE; /* the kernel has the key by another node */
	return who;
}

#define CALLER_GROUPS 4096

/* The same, with his groups; there may be more, which do not count. */
static inline struct caller caller_with_groups(fuse_req_t req, fuse_ino_t ino, uint32_t groups[static CALLER_GROUPS])
{
	struct caller who = caller_at(req, ino);
	int n = fuse_req_getgroups(req, CALLER_GROUPS, groups);

	who.groups = groups;
	who.group_count = n < 0 ? 0 : n < CALLER_GROUPS ? (unsigned)n : CALLER_GROUPS;
	return who;
}

/* An open file: what fi->fh points to. */
struct file {
	enum { FILE_DATA, FILE_FUTURE, FILE_TEXT, FILE_EVENTS, FILE_ATTRIBUTE, FILE_PATIENCE } kind;
	struct fs *fs;
	struct handle *_Atomic h; /* DATA; FUTURE once something was written, maybe by another thread */
	fuse_ino_t ino;           /* through which it was opened */
	uint32_t uid;             /* by whom, see core/limit_rule.h */
	bool writes;              /* counts as open for writing */
	atomic_bool waits;        /* counts as waiting, without anybody who waits in open(2) */
	bool detour;              /* see detours.c */
	bool backed;              /* counts as a user of its node's backing file */
	atomic_bool strays;       /* answered without one, and the kernel may not have seen that yet */
	char *text;               /* TEXT, ATTRIBUTE, PATIENCE */
	size_t text_len;
	struct listener *listener; /* EVENTS */
	pthread_mutex_t lock;      /* guards poll, and the beginning of a FUTURE */
	struct fuse_pollhandle *poll;
	struct file *prev, *next;  /* of all that are open */
	struct kept_file *slot;    /* see shared.h; NULL: none */
	bool adopted;              /* another worker has opened it */
};

void passthrough_arrived(struct file *f);

extern struct fs *files_are_kept_of; /* NULL: fh is an address */
void *kept_of(uint64_t fh); /* NULL: it was released, by another worker */
extern struct file file_gone;

/* Of a request that came with an open file. */
static inline struct file *file_of(struct fuse_file_info *fi)
{
	struct file *f = files_are_kept_of == NULL ? (struct file *)(uintptr_t)fi->fh : kept_of(fi->fh);

	if (f == NULL)
		f = &file_gone;

	if (atomic_load_explicit(&f->strays, memory_order_relaxed))
		passthrough_arrived(f);
	return f;
}

void file_awaits(struct file *f);
void file_has(struct file *f, struct handle *h); /* from now on */
/* Answers an open, or a create, with f; fi but for fh. As fuse_reply_open. */
int file_reply(struct file *f, fuse_req_t req, struct fuse_file_info *fi, const struct fuse_entry_param *p);
int file_new(struct fs *fs, int kind, uint32_t uid, struct file **ret);
int file_will_write(struct file *f);
void file_waits_no_more(struct file *f);
void file_free(struct file *f);
void file_release(struct file *f); /* it and its handle, which may use it a moment longer */
void files_forget(struct fs *fs); /* those that are open when the daemon ends; after store_close */
void file_tell_pollers(struct file *f);

/* detours.c */
void detour_begin(struct file *f, int32_t tid);
void detour_adopt(struct file *f, int32_t pid);
void detour_end(struct file *f); /* if it is one; before its handle is released */
bool detour_at(struct fs *fs, fuse_ino_t ino); /* has anybody one through this node? Then its attributes are not kept */
/* The node whose attributes answer for ino: asked for f (may be NULL) by thread tid. */
uint64_t detour_shows(struct fs *fs, fuse_ino_t ino, const struct file *f, int32_t tid);
ssize_t detour_append(int fd, struct fuse_bufvec *in); /* how much was, or a negative errno */

/* reply.c: an answer that is given when the change is recorded */
struct reply {
	struct meta_commit c;
	struct work work;
	fuse_req_t req;
	int error;        /* what to answer then instead, 0: none */
	/* Not before the kernel has forgotten all names that it was told to forget up to then. SOON: the request has the
	 * kernel's lock of a directory, so it must not wait for that for ever. */
	enum { AT_ONCE, AFTER_NAMES, AFTER_NAMES_SOON } when;
	struct timer patience;
	struct timers *timers;
	atomic_uint parties; /* who may answer: the invalidator, the timer */
	atomic_bool answered;
	enum { REPLY_ERR, REPLY_ENTRY, REPLY_ATTR } kind;
	enum view view;
	struct entry e;
};
struct reply *reply_new(fuse_req_t req, int kind, enum view view); /* NULL: has answered ENOMEM */
void reply_end(struct reply *r, int result); /* result < 0: the change was refused, answer now */
void reply_prepare(struct fs *fs, const struct entry *e); /* before what it looks like is told */
void reply_entry_param(enum view view, const struct entry *e, struct fuse_entry_param *p);
double reply_attr(enum view view, const struct entry *e, struct stat *st); /* returns the timeout */

/* passthrough.c */
void busy_poll(struct fs *fs);         /* before a thread waits for a request */
void busy_poll_request(struct fs *fs); /* it has got one */

bool passthrough_possible(const struct fs_options *o); /* as far as can be known before there is a session */
void passthrough_asked(struct fs *fs, const void *request, size_t n); /* INIT, which another worker has read */
int passthrough_setup(struct fs *fs); /* after the session was mounted */
void passthrough_ready(struct fs *fs, struct fuse_conn_info *conn); /* in init */
/* Answers an open or a create (p not NULL) for f, with its data wherever it is best read. Takes f. */
void passthrough_reply(struct file *f, fuse_req_t req, struct fuse_file_info *fi, const struct fuse_entry_param *p);
void passthrough_adopt(struct file *f);
void passthrough_release(struct file *f); /* before the release is answered */

/* watch.c */
uint64_t watch_boot_id(void);
struct watch *watch_new(struct fs *fs); /* NULL: no memory, or no descriptors */
int watch_start(struct watch *w); /* once there is a store to tell; 0 or negative errno */
void watch_stop(struct watch *w);
void watch_free(struct watch *w);
/* See the hooks of core/store.h. */
int watch_identify(const struct caller *who, int32_t pid, uint64_t *start);
void watch_process(struct watch *w, int32_t pid, uint64_t start);

/* interrupts.c: a request that waits */
struct interruptible {
	struct waiter *waiter;
	void (*give_up)(struct interruptible *i); /* answers EINTR: the waiter was taken back */
	uint64_t id; /* in the registry; 0: not in it */
	bool arming, interrupted;
	UT_hash_handle hh;
};
bool interrupt_arm(struct fs *fs, fuse_req_t req, struct interruptible *i); /* false: it has been interrupted already */
void interrupt_disarm(struct fs *fs, struct interruptible *i);              /* before it is answered */

/* attribute_files.c */
static inline bool node_is_attribute(fuse_ino_t ino)
{
	return node_view(ino) >= VIEW_ATTRIBUTES;
}
int attribute_view(const char *name, enum view *view); /* -ENOENT */
uint64_t attribute_file_subject(fuse_ino_t ino); /* whose attribute it is */
int attribute_file_lookup(fuse_req_t req, fuse_ino_t parent, const char *name, struct fuse_entry_param *p);
int attribute_file_getattr(fuse_req_t req, fuse_ino_t ino, struct stat *st);
void attribute_file_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void attribute_file_write(fuse_req_t req, struct file *f, struct fuse_bufvec *in);

/* borrow.c: link(2) into a directory of borrows; answers it */
void borrow_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);

/* ops_*.c */
void ops_names(struct fuse_lowlevel_ops *ops);
bool names_self_stat(fuse_ino_t ino, struct stat *st); /* false: ino is not lifetimes/self */
void ops_attributes(struct fuse_lowlevel_ops *ops);
void ops_open(struct fuse_lowlevel_ops *ops);
void ops_data(struct fuse_lowlevel_ops *ops);
void ops_directories(struct fuse_lowlevel_ops *ops);

/* invalidate.c; parent is a node of VIEW_KEYS */
void fs_invalidate(struct fs *fs, uint64_t parent, const char *name);
void fs_forget_attributes(struct fs *fs, uint64_t node); /* at once: those of a node that the kernel has, if it has it */
void fs_forget_later(struct fs *fs, uint64_t node); /* after the names that were invalidated before */
void fs_after_names(struct fs *fs, struct work *w);  /* run it then */
void fs_told(struct fs *fs, struct told *t);         /* and that: call t->done after all of it */

/* ops_open.c: truncate(2) of a path: open, cut, close */
void open_truncate(fuse_req_t req, fuse_ino_t ino, int64_t size);

/* control.c: .promisefs */
bool control_lookup(struct fs *fs, fuse_ino_t parent, const char *name, struct fuse_entry_param *p);
int control_getattr(struct fs *fs, fuse_ino_t ino, struct stat *st);
void control_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void control_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus);
bool control_name_is_reserved(fuse_ino_t parent, const char *name);

/* views.c: future/ and await/ */
/* e: what is there, or NULL */
void views_await(struct fs *fs, uint64_t parent, const char *name, const struct entry *e, struct fuse_entry_param *p);
bool views_awaited_key(struct fs *fs, fuse_ino_t ino, uint64_t *parent, char name[static META_NAME_MAX + 1]);
int views_awaited_stat(struct fs *fs, const struct caller *who, fuse_ino_t ino, struct stat *st);
bool views_awaited_node(struct fs *fs, const struct caller *who, fuse_ino_t ino, uint64_t *node); /* what is there */
/* From now on the node stands for this version. False: it stands for another one already. */
bool views_awaited_bind(struct fs *fs, fuse_ino_t ino, uint64_t vid);
void views_awaited_adopt(struct fs *fs, fuse_ino_t ino, uint64_t vid); /* opened when there was another worker */
void views_forget(struct fs *fs, fuse_ino_t ino, uint64_t nlookup);
void views_free(struct fs *fs); /* what the kernel had not forgotten */
void views_future_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void views_future_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
int views_future_begin(struct file *f, const struct caller *who); /* the first write: a draft */

/* Of the request that this thread serves, with a supervisor: its number, and what was done for it by a worker who died
 * before it was answered. Requests that do not come again claim nothing and were not done. */
extern _Thread_local uint64_t request_unique;
extern _Thread_local bool request_comes_again;
uint64_t request_is_for(uint64_t unique); /* from now on; what it was for before */
struct handle *request_claims(struct fs *fs);
bool request_was_done(struct fs *fs);

/* listeners.c: the live stream of events */
struct listener *listener_new(struct fs *fs, struct file *f, fuse_req_t req);
void listener_free(struct listener *l);
void listener_read(struct listener *l, fuse_req_t req, size_t size, bool nonblock);
bool listener_readable(struct listener *l);
int listener_query(struct listener *l, const char *line, size_t len); /* `log [KEY]`: history instead */
void listeners_tell(struct fs *fs, const struct meta_event *e);

/* text.c: growing strings and JSON */
struct text {
	char *at;
	size_t len, capacity;
	bool failed;
};
void text_add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_json(struct text *t, const char *bytes); /* quoted; bytes that are not UTF-8 as \udcXX */
void text_event(struct text *t, const struct meta_event *e);

/* patience.c */
bool patience_of(struct fs *fs, int32_t tid, int64_t *ns); /* false: neither it nor an ancestor has said */
void patience_write(fuse_req_t req, struct fuse_bufvec *in);
void patience_text(fuse_req_t req, struct text *t); /* what counts for the caller */
void patience_free(struct fs *fs);

/* metrics.c */
extern _Thread_local enum request request_served; /* by this thread */
void metrics_text(struct fs *fs, struct text *t);
void metrics_waited(struct fs *fs, const struct waiter *w);
void metrics_serve(struct fs *fs, struct fuse_buf *buf); /* one request, and counts it */
static inline void count(struct fs *fs, enum request which)
{
	request_served = which;
	atomic_fetch_add_explicit(&fs->requests[which], 1, memory_order_relaxed); /* before it is answered */
}

/* session.c */
void session_free(struct fs *fs); /* when nobody can answer a request any more */
int session_new(struct fs *fs, struct fuse_session **ret); /* not mounted yet */
int session_run(struct fs *fs, int ready_fd); /* mounts, serves until unmounted; exit status. Tells ready_fd */

/* Answers: how entries and attributes look to FUSE, and answers that wait for the catalog. */
#include "core/timer.h"
#include "fs/fs.h"

#include <errno.h>
#include <stdlib.h>

/* Names and attributes change only through this mount, and the kernel sees those changes, so what nobody is writing may
 * be cached for long: what has a version, and what has none yet. When somebody opens that for writing, or it fails, the
 * kernel is told. Directories change through the views below .promisefs, too. */
#define STABLE_SECONDS 3600.0
#define DIRECTORY_SECONDS 1.0
#define UNSTABLE_SECONDS 1.0
#define PATIENCE_NS 250000000LL

static struct timespec timespec_of(int64_t ns)
{
	struct timespec ts = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };

	if (ts.tv_nsec < 0) { /* before 1970 */
		ts.tv_nsec += 1000000000;
		ts.tv_sec--;
	}
	return ts;
}

/* All versions of an object show its number as st_ino, as a file that is overwritten keeps its inode; their node
 * numbers, which are the kernel's, differ. */
/* A borrow shows the number of the object, too: whoever holds it open is found by that. */
static enum view shown_in(enum view view, const struct entry *e)
{
	return e->via == VIA_REF ? VIEW_REF : e->via == VIA_MUT ? VIEW_MUT : view;
}

double reply_attr(enum view of, const struct entry *e, struct stat *st)
{
	const struct meta_object *o = &e->o;
	enum view view = shown_in(of, e);

	*st = (struct stat){
		.st_ino = node_in(e->via == VIA_OWNER ? view : VIEW_KEYS, o->id), .st_mode = o->mode, .st_nlink = o->nlink, .st_uid = o->uid,
		.st_gid = o->gid, .st_rdev = o->rdev, .st_size = o->size, .st_blocks = o->blocks, .st_blksize = 4096,
		.st_atim = timespec_of(o->atime), .st_mtim = timespec_of(o->mtime), .st_ctim = timespec_of(o->ctime),
	};
	if (S_ISDIR(o->mode)) {
		st->st_size = 4096;
		return view == VIEW_KEYS ? DIRECTORY_SECONDS : 0;
	}
	if (view == VIEW_LEND)
		st->st_mode |= (st->st_mode & 0444) >> 1;
	if (view != VIEW_KEYS || e->node != o->vid || o->state == OBJECT_WRITING)
		return 0; /* what is being written may be written through another node */
	if ((o->mode & (S_ISUID | S_ISGID)) != 0)
		return 0; /* the next write takes them away, and the kernel leaves that to us */
	/* The kernel looks at the attributes once more between a look-up and an open: if the node was replaced in that
	 * moment, an open that is to be redirected would be so for the second time, which the caller gets to see. */
	return e->stable ? STABLE_SECONDS : o->state == OBJECT_READY ? UNSTABLE_SECONDS : 0;
}

/* A name is not to be found after its lease is over. The kernel counts in ticks, and rounds up. */
#define TICKS_SECONDS 0.025

static double entry_seconds(const struct entry *e)
{
	double left;

	if (e->until == 0)
		return STABLE_SECONDS;
	left = (double)(e->until - timers_now()) / 1e9 - TICKS_SECONDS;
	return left < 0 ? 0 : left < STABLE_SECONDS ? left : STABLE_SECONDS;
}

void reply_prepare(struct fs *fs, const struct entry *e)
{
	if (e->recounted)
		fs_forget_attributes(fs, e->node);
}

void reply_entry_param(enum view of, const struct entry *e, struct fuse_entry_param *p)
{
	enum view view = shown_in(of, e);

	*p = (struct fuse_entry_param){ .ino = node_in(view, e->node), .generation = 1 };
	p->attr_timeout = reply_attr(view, e, &p->attr);
	if (view == VIEW_KEYS && (e->stable || S_ISDIR(e->o.mode)))
		p->entry_timeout = entry_seconds(e);
}

static void answer(struct reply *r)
{
	struct fuse_entry_param p;
	struct stat st;
	double timeout;

	switch (r->kind) {
	case REPLY_ENTRY:
		reply_entry_param(r->view, &r->e, &p);
		fuse_reply_entry(r->req, &p);
		break;
	case REPLY_ATTR:
		timeout = reply_attr(r->view, &r->e, &st);
		fuse_reply_attr(r->req, &st, detour_at(fs_of(r->req), node_in(r->view, r->e.node)) ? 0 : timeout);
		break;
	case REPLY_ERR:
		fuse_reply_err(r->req, 0);
		break;
	}
}

/* Whoever comes first answers, whoever comes last frees. */
static void give(struct reply *r)
{
	if (!atomic_exchange(&r->answered, true)) {
		if (r->error != 0)
			fuse_reply_err(r->req, r->error);
		else
			answer(r);
	}
	if (atomic_fetch_sub(&r->parties, 1) == 1)
		free(r);
}

static void names_forgotten(struct work *w)
{
	struct reply *r = (struct reply *)((char *)w - offsetof(struct reply, work));

	if (r->when == AFTER_NAMES_SOON && timer_disarm(r->timers, &r->patience))
		atomic_fetch_sub(&r->parties, 1);
	give(r);
}

static void waited_long_enough(struct timer *t)
{
	give((struct reply *)((char *)t - offsetof(struct reply, patience)));
}

/* The invalidator waits for the lock of the directory whose name it tells. Somebody may have that one who waits for the
 * lock of another directory, as rename(2) does, and whoever has that may wait here: a circle, which ends by the timer.
 * (Only so: the kernel takes no signal from those who wait for such locks.) */
static void give_after_names(struct fs *fs, struct reply *r)
{
	r->work.run = names_forgotten;
	r->timers = fs->timers;
	if (r->when == AFTER_NAMES_SOON) {
		r->patience.fire = waited_long_enough;
		atomic_store(&r->parties, 2);
		if (timer_arm(fs->timers, &r->patience, timers_now() + PATIENCE_NS) < 0) {
			atomic_store(&r->parties, 1);
			give(r);
			return;
		}
	}
	fs_after_names(fs, &r->work);
}

static void recorded(struct meta_commit *c, int result)
{
	struct reply *r = (struct reply *)c;

	r->error = result == -EBADMSG ? EIO : -result;
	if (r->when == AT_ONCE)
		give(r);
	else
		give_after_names(fs_of(r->req), r);
}

struct reply *reply_new(fuse_req_t req, int kind, enum view view)
{
	struct reply *r = calloc(1, sizeof(*r));

	if (r == NULL) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	r->c.done = recorded;
	atomic_init(&r->parties, 1);
	r->req = req;
	r->kind = kind;
	r->view = view;
	if (view == VIEW_FUTURE) /* whoever looks the key up may be about to make the node of what was before */
		r->when = AFTER_NAMES_SOON;
	return r;
}

void reply_end(struct reply *r, int result)
{
	if (result < 0)
		recorded(&r->c, result);
}

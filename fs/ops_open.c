/* Opening, creating and releasing files.
 *
 * An open that has to wait leaves its request unanswered and its thread free; core calls back when it is worth asking
 * again. Such a request must be answered when the kernel says INTERRUPT, or its process cannot even be killed: see
 * interrupts.c. */
#include "fs/fs.h"
#include "fs/process.h"
#include "fs/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

struct open_request {
	struct waiter waiter;
	struct work work;
	struct fs *fs;
	fuse_req_t req;
	fuse_ino_t ino;
	struct caller who;
	struct fuse_file_info fi;
	uint64_t prepare;
	struct file *file; /* the answer */
	bool truncates; /* truncate(2) of a path: open, cut, close */
	bool awaits;    /* below await/: for whatever has that name */
	bool creates;   /* what was not there when the kernel looked, and is now */
	uint64_t parent;
	mode_t mode;
	struct entry e; /* what it has become */
	char *name;
	int64_t size;
	int error;
	bool counts; /* as somebody who waits */
	uint64_t unique;
	struct interruptible interrupt;
};

static void run(struct open_request *rq);

static bool writes(const struct open_request *rq)
{
	return rq->truncates || (rq->fi.flags & O_ACCMODE) != O_RDONLY || (rq->fi.flags & O_TRUNC) != 0;
}

static bool reads_without_waiting(const struct open_request *rq)
{
	return (rq->fi.flags & O_NONBLOCK) != 0 && (rq->fi.flags & O_ACCMODE) == O_RDONLY && !rq->truncates;
}

static void free_request(struct open_request *rq)
{
	free(rq->name);
	free(rq);
}

/* The request has come to its end, and is about to be answered. */
static void finish(struct open_request *rq)
{
	interrupt_disarm(rq->fs, &rq->interrupt);
	store_wait_over(rq->fs->store, &rq->waiter);
	if (rq->counts)
		store_give(rq->fs->store, LIMITED_WAITING, rq->who.uid);
	rq->counts = false;
	metrics_waited(rq->fs, &rq->waiter);
}

static void answer_failure(struct work *w)
{
	struct open_request *rq = (struct open_request *)((char *)w - offsetof(struct open_request, work));

	fuse_reply_err(rq->req, rq->error);
	free_request(rq);
}

/* Who has waited finds the key as it is then. Not so truncate(2): it has the kernel's lock of the file, for which unlink(2)
 * or rename(2) may wait that has the lock of the directory, for which the names wait to be forgotten. And not an open with
 * O_CREAT, which has that one itself. */
static void fail(struct open_request *rq, int error)
{
	bool after_names = rq->interrupt.id != 0 && error != EINTR && !rq->truncates && !rq->creates;

	finish(rq);
	file_free(rq->file);
	rq->file = NULL;
	rq->error = error == EBADMSG ? EIO : error;
	rq->work.run = answer_failure;
	if (after_names)
		fs_after_names(rq->fs, &rq->work);
	else
		answer_failure(&rq->work);
}

static void give_up(struct interruptible *i)
{
	fail((struct open_request *)((char *)i - offsetof(struct open_request, interrupt)), EINTR);
}

static void woken(struct waiter *w, int r)
{
	struct open_request *rq = (struct open_request *)w;
	uint64_t served;

	/* Who awaits a key does not care whose draft it was that went away, or what was renamed over it. Nobody else hears of
	 * the latter either: asking again tells him to look the name up, unless he has done so already. Writers have waited for
	 * a close only, and write what is there now. */
	if (rq->awaits) /* whatever has that name now: not the one whose heir this was, perhaps */
		store_wait_over(rq->fs->store, w);
	if ((rq->awaits && r == -EOWNERDEAD) || r == -ESTALE || (writes(rq) && r < 0 && r != -EINTR && r != -ETIMEDOUT))
		r = 0;
	served = request_is_for(rq->unique);
	if (r < 0)
		fail(rq, -r);
	else
		run(rq);
	request_is_for(served);
}

/* From here on the request can be interrupted. -EINTR when it has been; or he waits for too much already. */
static int arm(struct open_request *rq)
{
	int r = store_take(rq->fs->store, LIMITED_WAITING, rq->who.uid);

	if (r < 0)
		return r;
	rq->counts = true;
	rq->waiter.wake = woken;
	rq->waiter.limited = patience_of(rq->fs, rq->who.tid, &rq->waiter.patience);
	rq->interrupt.waiter = &rq->waiter;
	rq->interrupt.give_up = give_up;
	return interrupt_arm(rq->fs, rq->req, &rq->interrupt) ? 0 : -EINTR;
}

/* The outcomes */

static void answer(struct work *w)
{
	struct open_request *rq = (struct open_request *)((char *)w - offsetof(struct open_request, work));

	struct fuse_entry_param p;

	if (rq->creates)
		reply_entry_param(VIEW_KEYS, &rq->e, &p);
	passthrough_reply(rq->file, rq->req, &rq->fi, rq->creates ? &p : NULL);
	free_request(rq);
}

/* While nobody wrote it, the kernel may have kept how it looks. It has the node, as that is being opened. */
static void tell_of_writing(struct open_request *rq, struct handle *h)
{
	if (handle_begins(h))
		fs_forget_attributes(rq->fs, handle_vid(h));
}

static void give(struct open_request *rq, struct handle *h)
{
	struct file *f = rq->file;
	int fd = handle_fd(h);

	if (fd == -EMFILE || fd == -ENFILE) { /* we have as many open as we can */
		store_release(h);
		fail(rq, -fd);
		return;
	}
	file_has(f, h);
	f->ino = rq->ino;
	if (reads_without_waiting(rq)) {
		file_awaits(f);
		if (handle_settled(h) != -EAGAIN) /* before that */
			file_waits_no_more(f);
	}
	finish(rq);
	rq->work.run = answer;
	tell_of_writing(rq, h);
	if (handle_settled(h) == 0 && h->takes) /* its keys are gone: whoever hears of this finds it so */
		fs_after_names(rq->fs, &rq->work);
	else
		answer(&rq->work);
}

struct truncation {
	struct reply reply;
	struct handle *h;
	struct fs *fs;
	enum via via;
	enum view view;
	struct entry before; /* for the answer, if it can be closed, but not be looked at afterwards */
};

static void truncated(struct meta_commit *c, int r)
{
	struct truncation *t = (struct truncation *)c;
	const struct caller nobody = { .via = t->via };
	fuse_ino_t ino = handle_vid(t->h);
	struct entry e;
	struct stat st;
	double timeout = 0;

	if (r < 0)
		store_poison(t->h, -r);
	store_release(t->h);
	if (r < 0) {
		fuse_reply_err(t->reply.req, r == -EBADMSG ? EIO : -r);
	} else {
		if (store_getattr(t->fs->store, &nobody, ino, &e) == 0)
			timeout = reply_attr(t->view, &e, &st);
		else
			reply_attr(t->view, &t->before, &st); /* somebody has replaced or removed it since */
		fuse_reply_attr(t->reply.req, &st, timeout);
	}
	free(t);
}

static void cut(struct open_request *rq, struct handle *h)
{
	struct truncation *t = calloc(1, sizeof(*t));
	const struct caller nobody = { .via = rq->who.via };
	int r = t == NULL ? -ENOMEM : store_ftruncate(h, rq->size);

	if (r == 0)
		r = store_getattr(rq->fs->store, &nobody, handle_vid(h), &t->before);
	if (r < 0) {
		store_poison(h, -r);
		store_release(h);
		free(t);
		fail(rq, -r);
		return;
	}
	t->reply.c.done = truncated;
	t->reply.req = rq->req;
	t->h = h;
	t->fs = rq->fs;
	t->via = rq->who.via;
	t->view = node_view(rq->ino);
	tell_of_writing(rq, h);
	finish(rq);
	r = store_flush(h, &rq->who, &t->reply.c);
	free_request(rq);
	if (r < 0)
		truncated(&t->reply.c, r);
}

static void prepare(struct work *w)
{
	struct open_request *rq = (struct open_request *)((char *)w - offsetof(struct open_request, work));
	int r = store_prepare(rq->fs->store, rq->prepare);

	if (r < 0)
		fail(rq, -r);
	else
		run(rq);
}

/* A mapping is looked at under a lock that a process may hold while it waits for us to take what it has written. */
static void look_at_maps(struct work *w)
{
	struct open_request *rq = (struct open_request *)((char *)w - offsetof(struct open_request, work));

	rq->waiter.maps = process_maps(rq->who.tid, rq->fs->dev, rq->waiter.object_id);
	run(rq);
}

static int unsettled(struct open_request *rq, struct handle **h)
{
	uint32_t groups[CALLER_GROUPS];
	char name[META_NAME_MAX + 1];
	struct caller who;
	uint64_t parent;
	int r;

	r = store_take(rq->fs->store, LIMITED_WAITING, rq->who.uid);
	if (r < 0)
		return r;
	atomic_store(&rq->file->waits, true);
	if (!rq->awaits)
		return store_open_unsettled(rq->fs->store, &rq->who, node_id(rq->ino), rq->fi.flags, h);
	if (!views_awaited_key(rq->fs, rq->ino, &parent, name))
		return -ESTALE;
	who = caller_with_groups(rq->req, rq->ino, groups);
	return store_await_unsettled(rq->fs->store, &who, parent, name, rq->fi.flags, h);
}

/* The kernel has checked the rights to what was there when the name was looked up. */
static int check_rights(struct open_request *rq, const struct meta_object *o)
{
	unsigned want = ((rq->fi.flags & O_ACCMODE) != O_WRONLY ? 4 : 0) | (writes(rq) ? 2 : 0);
	uint32_t groups[CALLER_GROUPS];
	struct caller who;

	if (rq->who.uid == 0 || (rq->who.uid == o->uid && ((o->mode >> 6) & want) == want))
		return 0;
	who = caller_with_groups(rq->req, rq->ino, groups);
	return store_check_access(rq->fs->store, &who, o, want);
}

static int attempt_awaited(struct open_request *rq, struct handle **h)
{
	struct store *st = rq->fs->store;
	char name[META_NAME_MAX + 1];
	struct entry e;
	uint64_t parent;
	int r;

	if (!views_awaited_key(rq->fs, rq->ino, &parent, name))
		return -ESTALE;
	do {
		r = store_lookup(st, &rq->who, parent, name, &e);
		if (r == 0)
			r = check_rights(rq, &e.o);
		if (r == 0)
			r = store_open(st, &rq->who, e.node, rq->fi.flags, rq->interrupt.id != 0 ? &rq->waiter : NULL, h,
				       &rq->prepare);
		else if (r == -ENOENT && rq->interrupt.id == 0)
			r = STORE_MUST_WAIT;
		else if (r == -ENOENT && (r = store_await(st, &rq->who, parent, name, &rq->waiter)) == 0)
			r = -ESTALE;
	} while (r == -ESTALE || r == STORE_GONE); /* it has changed in between */
	return r;
}

#define CREATES_MAX 100

/* Until it could be made, or opened: others may remove it and make it as often as they like. The kernel would look it up
 * once more by itself, and then give up. */
static int attempt_create(struct open_request *rq, struct handle **h)
{
	struct store *st = rq->fs->store;
	int r, attempts = 0;

	do {
		r = store_create(st, &rq->who, rq->parent, rq->name, rq->mode, rq->fi.flags, &rq->e, h);
		if (r != -EEXIST) {
			rq->ino = r == 0 ? node_in(VIEW_KEYS, rq->e.node) : 0;
			return r;
		}
		r = store_lookup(st, &rq->who, rq->parent, rq->name, &rq->e);
		if (r == 0 && !S_ISREG(rq->e.o.mode))
			return -ESTALE;
		if (r == 0)
			r = check_rights(rq, &rq->e.o);
		rq->ino = r == 0 ? node_in(VIEW_KEYS, rq->e.node) : 0;
		if (r == 0)
			r = store_open(st, &rq->who, rq->e.node, rq->fi.flags, rq->interrupt.id != 0 ? &rq->waiter : NULL, h, &rq->prepare);
		else if (r == -ENOENT)
			r = -ESTALE;
	} while ((r == -ESTALE || r == STORE_GONE) && ++attempts < CREATES_MAX);
	return r;
}

static int attempt(struct open_request *rq, struct handle **h)
{
	if (rq->awaits)
		return attempt_awaited(rq, h);
	if (rq->creates)
		return attempt_create(rq, h);
	return store_open(rq->fs->store, &rq->who, node_id(rq->ino), rq->fi.flags, rq->interrupt.id != 0 ? &rq->waiter : NULL, h,
			  &rq->prepare);
}

static void run(struct open_request *rq)
{
	struct handle *h = NULL;
	int r;

	for (;;) {
		r = attempt(rq, &h);
		if (r == STORE_WAITING)
			return; /* it may be answered by now */
		if (r == STORE_LOOK) {
			rq->work.run = look_at_maps;
			workers_queue(rq->fs->workers, &rq->work);
			return;
		}
		if (r == STORE_PREPARE && !store_prepare_is_quick(rq->fs->store, rq->prepare)) {
			rq->work.run = prepare;
			workers_queue(rq->fs->slow, &rq->work);
			return;
		}
		if (r == STORE_PREPARE)
			r = store_prepare(rq->fs->store, rq->prepare);
		else if (r == STORE_MUST_WAIT && reads_without_waiting(rq))
			r = unsettled(rq, &h);
		else if (r == STORE_GONE)
			r = -ENOENT;
		else if (r == STORE_MUST_WAIT)
			r = arm(rq);
		if (r < 0) {
			fail(rq, -r);
			return;
		}
		if (h == NULL)
			continue;
		if (rq->truncates)
			cut(rq, h);
		else
			give(rq, h);
		return;
	}
}

/* Another worker has opened it for this request, and not answered that. */
static void claimed(struct open_request *rq, struct handle *h)
{
	int r = rq->creates ? store_lookup(rq->fs->store, &rq->who, rq->parent, rq->name, &rq->e) : 0;

	if (r < 0) {
		store_release(h);
		run(rq);
		return;
	}
	if (rq->creates)
		rq->ino = node_in(VIEW_KEYS, rq->e.node);
	if (rq->awaits && handle_vid(h) != 0)
		views_awaited_adopt(rq->fs, rq->ino, handle_vid(h));
	if (rq->truncates)
		cut(rq, h);
	else
		give(rq, h);
}

/* With a place for what is to be opened. */
static void start(struct open_request *rq)
{
	struct handle *h;
	int r = file_new(rq->fs, FILE_DATA, rq->who.uid, &rq->file);

	if (r == 0 && writes(rq))
		r = file_will_write(rq->file);
	if (r < 0)
		fail(rq, -r);
	else if ((h = request_claims(rq->fs)) != NULL)
		claimed(rq, h);
	else
		run(rq);
}

static struct open_request *new_request(fuse_req_t req, fuse_ino_t ino)
{
	struct open_request *rq = calloc(1, sizeof(*rq));

	if (rq == NULL) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	rq->fs = fs_of(req);
	rq->req = req;
	rq->ino = ino;
	rq->who = caller_at(req, ino);
	rq->unique = request_unique;
	return rq;
}

/* To take what is not meant for it takes the right to write it, or to own it. The kernel has seen to that to read it. */
static int check_once(fuse_req_t req, fuse_ino_t ino)
{
	uint32_t groups[CALLER_GROUPS];
	struct fs *fs = fs_of(req);
	struct caller who = caller_of(req);
	struct entry e;

	if (who.uid == 0 || store_getattr(fs->store, &who, node_id(ino), &e) < 0 || e.o.evict || e.o.uid == who.uid)
		return 0; /* or it is gone, as opening it says */
	who = caller_with_groups(req, ino, groups);
	return store_check_access(fs->store, &who, &e.o, 2);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	bool write = (fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC) != 0;
	enum view view = node_view(ino);
	struct open_request *rq;
	int r;

	count(fs_of(req), REQUEST_OPEN);
	if (view == VIEW_CONTROL) {
		control_open(req, ino, fi);
		return;
	}
	if (node_is_attribute(ino)) {
		attribute_file_open(req, ino, fi);
		return;
	}
	if (view == VIEW_FUTURE && write) {
		views_future_open(req, ino, fi);
		return;
	}
	if (write && (view == VIEW_AWAIT || view == VIEW_AWAITED || view == VIEW_ONCE || view == VIEW_LEND)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	r = view == VIEW_ONCE ? check_once(req, ino) : 0;
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	rq = new_request(req, ino);
	if (rq == NULL)
		return;
	rq->fi = *fi;
	rq->awaits = view == VIEW_AWAITED;
	start(rq);
}

/* Another worker has cut it, and published that. It is not begun anew, which would take looking its name up once more. */
static bool was_cut(struct open_request *rq)
{
	const struct caller nobody = { .via = rq->who.via };
	struct entry e;
	struct stat st;
	double timeout;

	if (!request_was_done(rq->fs) || store_getattr(rq->fs->store, &nobody, node_id(rq->ino), &e) < 0 ||
	    e.o.state != OBJECT_READY || e.node != e.o.vid || e.o.size != rq->size)
		return false;
	timeout = reply_attr(node_view(rq->ino), &e, &st);
	fuse_reply_attr(rq->req, &st, timeout);
	free_request(rq);
	return true;
}

void open_truncate(fuse_req_t req, fuse_ino_t ino, int64_t size)
{
	struct open_request *rq = new_request(req, ino);
	struct handle *h;

	if (rq == NULL)
		return;
	rq->fi.flags = O_WRONLY | (size == 0 ? O_TRUNC : 0);
	rq->truncates = true;
	rq->size = size;
	h = request_claims(rq->fs);
	if (h != NULL)
		claimed(rq, h);
	else if (!was_cut(rq))
		run(rq);
}

/* It was not there a moment ago, and now it is. Readers may have to wait for it, and would have the lock of the directory
 * meanwhile: the kernel looks again. */
static void open_created(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct open_request *rq;

	if ((fi->flags & O_EXCL) != 0 || (fi->flags & O_ACCMODE) == O_RDONLY) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	rq = new_request(req, parent);
	if (rq == NULL)
		return;
	rq->fi = *fi;
	rq->creates = true;
	rq->parent = node_id(parent);
	rq->mode = mode;
	rq->name = strdup(name);
	if (rq->name == NULL)
		fail(rq, ENOMEM);
	else
		start(rq);
}

static int create(struct fs *fs, const struct caller *who, uint64_t parent, const char *name, mode_t mode, int flags,
		  struct entry *e, struct handle **h)
{
	*h = request_claims(fs);
	if (*h != NULL && store_lookup(fs->store, who, parent, name, e) == 0)
		return 0;
	store_release(*h);
	return store_create(fs->store, who, parent, name, mode, flags, e, h);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct caller who = caller_of(req);
	struct fuse_entry_param p;
	struct handle *h;
	struct entry e;
	struct file *f = NULL;
	int r = 0;

	count(fs, REQUEST_CREATE);
	if (node_view(parent) == VIEW_FUTURE) {
		views_future_create(req, parent, name, mode, fi);
		return;
	}
	if (node_view(parent) != VIEW_KEYS || control_name_is_reserved(parent, name))
		r = -EPERM;
	if (r == 0 && strlen(name) > META_NAME_MAX)
		r = -ENAMETOOLONG;
	if (r == 0)
		r = file_new(fs, FILE_DATA, who.uid, &f);
	if (r == 0 && (fi->flags & O_ACCMODE) != O_RDONLY)
		r = file_will_write(f);
	if (r == 0)
		r = create(fs, &who, node_id(parent), name, mode, fi->flags, &e, &h);
	if (r < 0) {
		file_free(f);
		if (r == -EEXIST)
			open_created(req, parent, name, mode, fi);
		else
			fuse_reply_err(req, r == -EBADMSG ? EIO : -r);
		return;
	}
	file_has(f, h);
	f->ino = node_in(VIEW_KEYS, e.node);
	reply_entry_param(VIEW_KEYS, &e, &p);
	if ((e.o.mode & (S_ISUID | S_ISGID)) == 0)
		p.attr_timeout = 3600; /* the kernel keeps the size of what is written through it */
	passthrough_reply(f, req, fi, &p);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct file *f = file_of(fi);
	struct caller who = caller_of(req);
	struct reply *reply;

	count(f->fs, REQUEST_FLUSH);
	if (f->h == NULL) {
		fuse_reply_err(req, 0);
		return;
	}
	reply = reply_new(req, REPLY_ERR, VIEW_KEYS);
	if (reply == NULL)
		return;
	reply->when = f->kind == FILE_FUTURE ? AFTER_NAMES : AT_ONCE;
	reply_end(reply, store_flush(f->h, &who, &reply->c));
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct file *f = file_of(fi);

	count(fs_of(req), REQUEST_RELEASE);
	if (f != &file_gone) {
		passthrough_release(f);
		file_release(f);
	}
	fuse_reply_err(req, 0);
}

struct fsync_request {
	struct work work;
	struct handle *h;
	struct reply *reply;
};

static void sync_now(struct work *w)
{
	struct fsync_request *rq = (struct fsync_request *)w;

	reply_end(rq->reply, store_fsync(rq->h, &rq->reply->c));
	free(rq);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct file *f = file_of(fi);
	struct fsync_request *rq;

	count(f->fs, REQUEST_FSYNC);
	if (f->h == NULL) {
		fuse_reply_err(req, 0);
		return;
	}
	rq = calloc(1, sizeof(*rq));
	if (rq == NULL) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	rq->reply = reply_new(req, REPLY_ERR, VIEW_KEYS);
	if (rq->reply == NULL) {
		free(rq);
		return;
	}
	rq->h = f->h;
	rq->work.run = sync_now;
	workers_queue(f->fs->workers, &rq->work);
}

static unsigned readiness(struct file *f)
{
	if (f->kind == FILE_EVENTS)
		return listener_readable(f->listener) ? POLLIN : 0;
	if (f->h != NULL && handle_settled(f->h) == -EAGAIN)
		return 0;
	return POLLIN | POLLOUT;
}

static void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
	struct file *f = file_of(fi);
	struct fuse_pollhandle *old = NULL;

	count(f->fs, REQUEST_POLL);
	pthread_mutex_lock(&f->lock);
	if (ph != NULL) {
		old = f->poll;
		f->poll = ph;
		if (f->slot != NULL)
			atomic_store(&f->slot->poll, *(const uint64_t *)ph + 1); /* the kernel's number of it comes first */
	}
	pthread_mutex_unlock(&f->lock);
	if (old != NULL)
		fuse_pollhandle_destroy(old);
	fuse_reply_poll(req, readiness(f)); /* looked at after listing, so no change is missed */
}

void ops_open(struct fuse_lowlevel_ops *ops)
{
	ops->open = op_open;
	ops->create = op_create;
	ops->flush = op_flush;
	ops->release = op_release;
	ops->fsync = op_fsync;
	ops->poll = op_poll;
}

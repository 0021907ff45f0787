/* link(2) into ref/ and mut/, and into await-ref/ and await-mut/, where the handle may have to wait for its turn. The request
 * itself waits for nothing but a close that is under way. */
#include "fs/fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct borrow_request {
	struct borrowing b; /* first: its waiter is this */
	struct interruptible interrupt;
	struct meta_commit c;
	struct fs *fs;
	fuse_req_t req;
	uint64_t unique;
	uint32_t groups[CALLER_GROUPS];
};

static void over(struct borrow_request *rq)
{
	interrupt_disarm(rq->fs, &rq->interrupt);
	store_give(rq->fs->store, LIMITED_WAITING, rq->b.who.uid);
}

static void fail(struct borrow_request *rq, int error)
{
	over(rq);
	fuse_reply_err(rq->req, error == EBADMSG ? EIO : error);
	free(rq);
}

static void give_up(struct interruptible *i)
{
	fail((struct borrow_request *)((char *)i - offsetof(struct borrow_request, interrupt)), EINTR);
}

static void recorded(struct meta_commit *c, int r)
{
	struct borrow_request *rq = (struct borrow_request *)((char *)c - offsetof(struct borrow_request, c));
	struct fuse_entry_param p;

	if (r < 0) {
		fail(rq, -r);
		return;
	}
	over(rq);
	reply_entry_param(VIEW_KEYS, &rq->b.e, &p);
	fuse_reply_entry(rq->req, &p);
	free(rq);
}

static void ask(struct borrow_request *rq)
{
	int r = store_borrow(rq->fs->store, &rq->b, &rq->c);

	if (r < 0)
		fail(rq, -r);
}

static void woken(struct waiter *w, int r)
{
	struct borrow_request *rq = (struct borrow_request *)w;

	uint64_t served = request_is_for(rq->unique);

	if (r < 0)
		fail(rq, -r);
	else
		ask(rq);
	request_is_for(served);
}

void borrow_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct borrow_request *rq = calloc(1, sizeof(*rq));
	int r = rq == NULL ? -ENOMEM : store_take(fs_of(req)->store, LIMITED_WAITING, caller_of(req).uid);

	if (r < 0) {
		free(rq);
		fuse_reply_err(req, -r);
		return;
	}
	rq->fs = fs_of(req);
	rq->req = req;
	rq->unique = request_unique;
	rq->c.done = recorded;
	rq->interrupt.waiter = &rq->b.waiter;
	rq->interrupt.give_up = give_up;
	rq->b.waiter.wake = woken;
	rq->b.who = caller_with_groups(req, ino, rq->groups);
	rq->b.node = node_id(ino);
	rq->b.mut = node_id(parent) == META_MUT;
	rq->b.queue = node_view(parent) == VIEW_TURN;
	strcpy(rq->b.name, name);
	if (interrupt_arm(rq->fs, req, &rq->interrupt))
		ask(rq);
	else
		fail(rq, EINTR);
}

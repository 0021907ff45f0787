/* Opening: asks the rule (open_rule.c) and does what it says.
 *
 * A writer who replaces an object cannot write into the node that it opened, since readers have it. It is told to look
 * the name up again (ESTALE; the kernel does so by itself), and that look-up gives it the draft's node. What was
 * promised to which thread is an intent. The same way a reader whose name is cached for too long gets to the current
 * version. An intent keeps its version open until the thread is back, or for INTENT_NS. */
#include "core/internal.h"
#include "core/open_rule.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct opening {
	struct store *st;
	const struct caller *who;
	uint64_t node;
	int flags;
	bool write;
	struct waiter *waiter;
	struct subject s;
	enum holds holds;
	bool changed;   /* records were changed */
	uint64_t ask;   /* whose writers to look for */
	int32_t *stuck; /* threads that form a circle, to be confirmed */
	unsigned stuck_count;
	bool stuck_confirmed;
	struct handle *handle;
	uint64_t prepare;
	struct version *let_go; /* what an intent that is overtaken kept open */
};

#define ASK_HOLDS 100
#define ASK_STUCK 101
#define STUCK_MAX 64

/* Intents */

/* store->lock held; the catalog too when the intent is a writer's. */
static struct version *intent_take(struct store *st, struct intent *in)
{
	struct version *v = in->version;

	HASH_DELETE(hh, st->intents, in);
	if (v != NULL && in->write)
		v->writers--;
	free(in);
	return v;
}

static struct intent *intent_find(struct store *st, int32_t tid)
{
	struct intent *in = NULL;

	if (st->intents != NULL && tid != 0)
		HASH_FIND(hh, st->intents, &tid, sizeof(tid), in);
	return in;
}

/* Gives back what an intent kept open; a draft that nobody came for is settled. */
static void version_let_go(struct store *st, struct version *v, const struct caller *who)
{
	struct process nobody = { 0 };
	uint64_t vid = v->vid;
	bool remove = false, draft;
	int fd = -1;

	pthread_mutex_lock(&st->lock);
	draft = v->role == ROLE_DRAFT && v->writers == 0;
	if (!draft)
		remove = version_put(st, v, &fd);
	pthread_mutex_unlock(&st->lock);
	if (fd >= 0)
		close(fd);
	if (remove)
		st->blobs->ops->remove(st->blobs, vid);
	if (draft)
		draft_settle(st, v, who, &nobody);
}

static void intents_expire(struct timer *t)
{
	struct store *st = (struct store *)((char *)t - offsetof(struct store, intent_timer));
	struct version *v = NULL;
	struct intent *in, *tmp;
	bool more = false;

	pthread_mutex_lock(&st->lock);
	HASH_ITER(hh, st->intents, in, tmp) {
		if (v == NULL && in->at + INTENT_NS <= timers_now())
			v = intent_take(st, in);
		else
			more = true;
	}
	if (more)
		timer_arm(st->timers, t, timers_now() + (v != NULL ? 0 : INTENT_NS / 2));
	pthread_mutex_unlock(&st->lock);
	if (v != NULL)
		version_let_go(st, v, &(struct caller){ 0 });
}

/* store->lock held. */
static int intent_make(struct opening *o, struct version *v, bool write)
{
	struct store *st = o->st;
	struct intent *in = calloc(1, sizeof(*in));

	if (in == NULL)
		return -ENOMEM;
	*in = (struct intent){ .tid = o->who->tid, .object = o->s.o.id, .version = v, .write = write,
			       .at = timers_now() };
	if (v != NULL) {
		v->opens++;
		v->writers += write;
	}
	st->intent_timer.fire = intents_expire;
	if (st->intents == NULL)
		timer_arm(st->timers, &st->intent_timer, in->at + INTENT_NS);
	HASH_ADD(hh, st->intents, tid, sizeof(in->tid), in);
	return 0;
}

/* Handles; store->lock held */

static int handle_make(struct opening *o, struct version *v, bool writer)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (h == NULL)
		return -ENOMEM;
	h->st = o->st;
	h->version = v;
	h->object = v->object;
	h->node = o->node;
	h->flags = o->flags;
	h->writer = writer;
	h->tid = o->who->tid;
	h->uid = o->who->uid;
	v->opens++;
	if (writer) {
		v->writers++;
		v->sealed = false;
		DL_APPEND(v->writer_list, h);
	}
	o->handle = h;
	return 0;
}

/* The verdicts */

static int open_this(struct opening *o, bool writer)
{
	struct version *v = o->s.v != NULL ? o->s.v : version_current(o->st, &o->s.o);

	return v == NULL ? -ENOMEM : handle_make(o, v, writer);
}

/* A draft whose bytes are not there yet is prepared by whoever comes first, without locks. */
static int open_draft_data(struct opening *o, struct version *d)
{
	if (d->data == DATA_READY)
		return handle_make(o, d, o->write);
	if (d->data == DATA_PREPARING)
		return o->waiter == NULL ? STORE_MUST_WAIT : waiter_list(o->st, o->waiter, d->object, NULL);
	d->data = DATA_PREPARING;
	d->opens++; /* until store_prepare is done */
	d->writers++;
	d->base = o->s.o.state == OBJECT_READY && (o->flags & O_TRUNC) == 0 && o->s.o.size > 0 ? o->s.o.vid : 0;
	o->prepare = d->vid;
	return STORE_PREPARE;
}

static int begin_draft(struct opening *o, struct version **ret)
{
	struct op op = { .st = o->st, .who = o->who };
	int r = 0;

	*ret = o->s.obj != NULL ? o->s.obj->draft : NULL;
	if (*ret != NULL)
		return 0;
	r = draft_begin(&op, &o->s, ret);
	o->changed = r == 0;
	return r;
}

static int open_draft(struct opening *o)
{
	struct version *d;
	int r = begin_draft(o, &d);

	if (r < 0)
		return r;
	pthread_mutex_lock(&o->st->lock);
	r = open_draft_data(o, d);
	pthread_mutex_unlock(&o->st->lock);
	return r;
}

/* The name is not looked up again by whoever opens through /proc/PID/fd or a file bind mount: such a writer, and one
 * whose thread is unknown, writes the draft through the node that it has. */
static int redirect_to_draft(struct opening *o)
{
	struct intent *in;
	struct version *d;
	int r = begin_draft(o, &d);

	if (r < 0)
		return r;
	pthread_mutex_lock(&o->st->lock);
	in = intent_find(o->st, o->who->tid);
	if (o->who->tid == 0 || (in != NULL && in->version == d && !in->looked_up)) {
		r = open_draft_data(o, d);
		if (in != NULL && r == 0) {
			d->opens--;
			intent_take(o->st, in);
		}
	} else {
		if (in != NULL)
			o->let_go = intent_take(o->st, in);
		r = intent_make(o, d, o->write);
		if (r == 0)
			r = -ESTALE;
	}
	pthread_mutex_unlock(&o->st->lock);
	return r;
}

static int redirect_to_name(struct opening *o)
{
	struct intent *in;

	pthread_mutex_lock(&o->st->lock);
	in = intent_find(o->st, o->who->tid);
	if (in != NULL)
		o->let_go = intent_take(o->st, in);
	if (o->who->tid != 0)
		intent_make(o, NULL, false);
	pthread_mutex_unlock(&o->st->lock);
	return -ESTALE;
}

static int wait_for(struct opening *o, struct wait_limit *limit)
{
	struct store *st = o->st;
	struct object *obj;
	int r;

	if (o->waiter == NULL)
		return STORE_MUST_WAIT;
	pthread_mutex_lock(&st->lock);
	obj = object_ref(st, o->s.o.id);
	if (obj == NULL)
		r = -ENOMEM;
	else if (!o->waiter->lingers && wait_is_endless(st, o->who->tid, obj, o->stuck, &o->stuck_count, STUCK_MAX))
		r = o->stuck_confirmed ? -EDEADLK : ASK_STUCK;
	else
		r = waiter_list(st, o->waiter, obj, limit);
	if (obj != NULL && obj->draft != NULL)
		o->ask = obj->draft->vid;
	object_unref(st, obj);
	pthread_mutex_unlock(&st->lock);
	return r;
}

static int act(struct opening *o, enum open_verdict verdict)
{
	int r;

	switch (verdict) {
	case OPEN_THIS:
	case OPEN_IN_PLACE:
		pthread_mutex_lock(&o->st->lock);
		r = open_this(o, verdict == OPEN_IN_PLACE);
		pthread_mutex_unlock(&o->st->lock);
		return r;
	case OPEN_DRAFT:
		return open_draft(o);
	case OPEN_FAILED:
		return future_error(o->st, &o->s.o);
	case OPEN_WAIT:
		return wait_for(o, &o->st->wait_limit);
	case OPEN_WAIT_CLOSE:
		return wait_for(o, &o->st->closing_limit);
	case OPEN_LOOK_UP:
		return redirect_to_name(o);
	case OPEN_LOOK_UP_DRAFT:
		return redirect_to_draft(o);
	case OPEN_ASK_HOLDS:
		return ASK_HOLDS;
	}
	return -EIO;
}

/* store->lock held. */
static struct open_question question(struct opening *o)
{
	struct version *d = o->s.obj != NULL ? o->s.obj->draft : NULL;
	struct open_question q = {
		.state = o->s.o.state,
		.gone = o->s.gone,
		.live = o->s.o.live,
		.write = o->write,
		.drafting = d != NULL && d->writer_list != NULL,
		.sealed = d != NULL && d->sealed,
		.patient = o->waiter == NULL ? (o->flags & O_NONBLOCK) == 0 || o->write : !o->waiter->impatient,
		.is_draft = d != NULL && d->vid == o->node,
		.holds = o->holds,
	};

	q.standing = o->s.o.vid == o->node ? NODE_CURRENT : q.is_draft ? NODE_DRAFT : NODE_OUTDATED;
	if (d != NULL)
		o->ask = d->vid;
	return q;
}

/* The thread is back where it was sent. */
static int open_intended(struct opening *o, bool *done)
{
	struct store *st = o->st;
	struct intent *in;
	struct version *v;
	int r = 0;

	*done = false;
	pthread_mutex_lock(&st->lock);
	in = intent_find(st, o->who->tid);
	if (in != NULL && in->version != NULL && in->version->vid == o->node) {
		v = in->version;
		if (v->role != ROLE_DRAFT && o->write) {
			r = 0; /* published meanwhile: the rule decides anew */
		} else {
			r = v->role == ROLE_DRAFT ? open_draft_data(o, v) : handle_make(o, v, o->write);
			*done = true;
		}
		if (r == 0) { /* while the draft is prepared, the intent keeps it */
			v->opens--;
			intent_take(st, in);
		}
	}
	pthread_mutex_unlock(&st->lock);
	return r;
}

static int open_once(struct opening *o)
{
	struct op op;
	struct open_question q;
	bool done = false;
	int r;

	op_begin(&op, o->st, o->who);
	r = subject_get(o->st, o->node, &o->s);
	if (r == -ENOENT)
		r = -ESTALE;
	if (r == 0)
		r = open_intended(o, &done);
	if (r == 0 && !done) {
		pthread_mutex_lock(&o->st->lock);
		q = question(o);
		pthread_mutex_unlock(&o->st->lock);
		r = act(o, open_rule(&q));
	}
	subject_put(o->st, &o->s);
	op_end(&op, 0, o->changed ? META_LATER : META_READ, NULL);
	if (o->let_go != NULL)
		version_let_go(o->st, o->let_go, o->who);
	o->let_go = NULL;
	return r;
}

/* Most opens: a reader of what is in use already. */
static struct handle *open_in_use(struct opening *o)
{
	struct version *v;

	pthread_mutex_lock(&o->st->lock);
	v = version_find(o->st, o->node);
	if (v != NULL && v->role == ROLE_CURRENT && v->object->draft == NULL && !v->object->gone)
		handle_make(o, v, false);
	pthread_mutex_unlock(&o->st->lock);
	return o->handle;
}

int store_open(struct store *st, const struct caller *who, uint64_t node, int flags, struct waiter *waiter,
	       struct handle **ret, uint64_t *prepare_vid)
{
	const struct caller anonymous = { .uid = who->uid, .gid = who->gid };
	int32_t stuck[STUCK_MAX];
	struct opening o = {
		.st = st, .who = who, .node = node, .flags = flags, .waiter = waiter, .stuck = stuck,
		.write = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0,
	};
	int r;

	*ret = NULL;
	if (waiter != NULL) {
		waiter->tid = who->tid;
		waiter->uid = who->uid;
	}
	if (!o.write && (*ret = open_in_use(&o)) != NULL)
		return 0;
	while ((r = open_once(&o)) == ASK_HOLDS || r == ASK_STUCK) {
		if (r == ASK_HOLDS)
			o.holds = st->hooks.holds(st->hooks_arg, who->tid, o.ask) ? HOLDS_YES : HOLDS_NO;
		else if (st->hooks.others_hold(st->hooks_arg, o.ask, stuck, o.stuck_count))
			o.who = &anonymous; /* somebody who is not waiting may finish it */
		else
			o.stuck_confirmed = true;
	}
	*ret = o.handle;
	*prepare_vid = o.prepare;
	if (r == 0 && o.write && (flags & O_TRUNC) != 0 && o.handle->writer) {
		r = store_ftruncate(o.handle, 0);
		if (r < 0) {
			store_release(o.handle);
			*ret = NULL;
		}
	}
	return r;
}

/* What a look-up by this thread shall give for the object, 0: nothing special. store->lock held. */
uint64_t intent_node(struct store *st, const struct caller *who, const struct meta_object *o)
{
	struct intent *in = intent_find(st, who->tid);

	if (in == NULL || in->object != o->id)
		return 0;
	if (in->version == NULL) {
		in->version = version_current(st, o);
		if (in->version != NULL)
			in->version->opens++;
	}
	in->looked_up = true;
	return in->version != NULL ? in->version->vid : 0;
}

int store_prepare_is_quick(struct store *st, uint64_t vid)
{
	struct stat from;
	struct version *v;
	uint64_t base = 0;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, vid);
	if (v != NULL)
		base = v->base;
	pthread_mutex_unlock(&st->lock);
	return base == 0 || st->blobs->ops->stat(st->blobs, base, &from) < 0 || from.st_size <= 65536;
}

static int fill_draft(struct store *st, uint64_t vid, uint64_t base, int *fd)
{
	struct blobs *b = st->blobs;
	int from, r;

	*fd = b->ops->create(b, vid);
	if (*fd < 0 || base == 0)
		return *fd < 0 ? *fd : 0;
	from = b->ops->open(b, base);
	r = from < 0 ? from : b->ops->copy(b, from, *fd);
	if (from >= 0)
		close(from);
	if (r < 0) {
		close(*fd);
		*fd = -1;
		b->ops->remove(b, vid);
	}
	return r;
}

int store_prepare(struct store *st, uint64_t vid)
{
	static const struct caller nobody;
	struct version *v;
	struct stat start = { 0 };
	struct op op;
	uint64_t base = 0;
	int fd = -1, r;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, vid);
	if (v != NULL)
		base = v->base;
	pthread_mutex_unlock(&st->lock);
	if (v == NULL)
		return -ESTALE;
	r = fill_draft(st, vid, base, &fd);
	if (r == 0)
		fstat(fd, &start);

	op_begin(&op, st, &nobody);
	pthread_mutex_lock(&st->lock);
	v->opens--;
	v->writers--;
	v->fd = fd;
	v->data = r == 0 ? DATA_READY : DATA_NONE;
	v->start_size = start.st_size;
	v->start_mtime = ns_of(&start.st_mtim);
	pthread_mutex_unlock(&st->lock);
	waiters_wake(&op, v->object, 0);
	op_end(&op, 0, META_READ, NULL);
	return r;
}

int store_await(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct waiter *waiter)
{
	struct meta_dentry d;
	struct subject s = { 0 };
	struct object *obj;
	struct op op;
	int r;

	waiter->tid = who->tid;
	waiter->uid = who->uid;
	op_begin(&op, st, who);
	r = st->meta->ops->dentry_get(st->meta, parent, name, &d);
	if (r == 0)
		r = st->meta->ops->object_get(st->meta, d.object, &s.o);
	pthread_mutex_lock(&st->lock);
	if (r == -ENOENT) {
		r = waiter_list_absent(st, waiter, parent, name);
	} else if (r == 0 && (s.o.state == OBJECT_PENDING || s.o.state == OBJECT_WRITING)) {
		obj = object_ref(st, s.o.id);
		r = obj == NULL ? -ENOMEM : waiter_list(st, waiter, obj, &st->wait_limit);
		object_unref(st, obj);
	}
	pthread_mutex_unlock(&st->lock);
	op_end(&op, 0, META_READ, NULL);
	return r;
}

/* Opening: asks the rule (open_rule.c) and does what it says.
 *
 * A writer who replaces an object cannot write into the node that it opened, since readers have it. It is told to look
 * the name up again (ESTALE; the kernel does so by itself), and that look-up gives it the draft's node. What was
 * promised to which thread is an intent (intents.c). */
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
	enum holds held; /* does any process have the sealed draft open? */
	bool changed;   /* records were changed */
	uint64_t ask;   /* the object whose writers to look for */
	struct holding *stuck; /* who would wait for each other, to be confirmed */
	unsigned stuck_count;
	bool stuck_confirmed, stuck_denied;
	struct handle *handle;
	uint64_t prepare;
	uint64_t draft;   /* that was begun or prepared for this open */
	struct version *let_go; /* what an intent that is overtaken kept open */
};

#define STUCK_MAX 64

/* What an attempt ends with, besides what store_open returns: what has to be found out without locks before the next */
enum {
	LOOK_AGAIN = 100,
	ASK_HOLDS, /* is the asking process one of the draft's writers? */
	ASK_STUCK, /* do those who wait for each other really hold what they wait for? */
	ASK_HELD,  /* does anybody hold the sealed draft? */
	ASK_AGAIN, /* nothing more */
};

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
		v->unprivileged = v->unprivileged || h->uid != 0;
		DL_APPEND(v->writer_list, h);
	}
	o->handle = h;
	return 0;
}

/* The verdicts */

static int prepare_first(struct opening *o, struct version *d)
{
	d->opens++; /* until store_prepare is done */
	d->writers++;
	o->prepare = d->vid;
	return STORE_PREPARE;
}

static int wait_prepared(struct opening *o, struct version *d)
{
	return o->waiter == NULL ? STORE_MUST_WAIT : waiter_list(o->st, o->waiter, d->object, NULL);
}

/* The draft shares the current version's file; whoever needs either of them alone has them parted first. */
static int unshare_first(struct opening *o, struct version *d)
{
	if (d->unsharing || d->data == DATA_PREPARING)
		return wait_prepared(o, d);
	d->unsharing = true;
	return prepare_first(o, d);
}

static int open_this(struct opening *o, bool writer)
{
	struct version *v = o->s.v != NULL ? o->s.v : version_current(o->st, &o->s.o);
	struct version *d = o->s.obj != NULL ? o->s.obj->draft : NULL;

	if (d != NULL && d->extends && v != NULL && v->vid == d->base)
		return unshare_first(o, d);
	return v == NULL ? -ENOMEM : handle_make(o, v, writer);
}

/* By anybody but this operation and the asking thread's intent. */
static bool current_in_use(struct opening *o)
{
	struct version *v = version_find(o->st, o->s.o.vid);
	struct intent *in = intent_find(o->st, o->who->tid);

	return v != NULL && v->opens > (v == o->s.v ? 1u : 0u) + (in != NULL && in->version == v ? 1u : 0u);
}

/* A draft whose bytes are not there yet is prepared by whoever comes first, without locks. */
static int open_draft_data(struct opening *o, struct version *d)
{
	if (d->data == DATA_READY && d->extends && o->write && (o->flags & (O_ACCMODE | O_APPEND | O_TRUNC)) != (O_WRONLY | O_APPEND))
		return unshare_first(o, d);
	if (d->data == DATA_READY)
		return handle_make(o, d, o->write);
	if (d->data == DATA_PREPARING)
		return wait_prepared(o, d);
	d->data = DATA_PREPARING;
	d->extends = draft_may_extend(o->st, &o->s.o, o->flags, current_in_use(o));
	d->start_size = o->s.o.size;
	d->base = o->s.o.state == OBJECT_READY && (o->flags & O_TRUNC) == 0 && o->s.o.size > 0 ? o->s.o.vid : 0;
	return prepare_first(o, d);
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
	if (r == 0)
		o->draft = (*ret)->vid;
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

/* Opening with O_TRUNC empties the node in the kernel's eyes, so readers of the current version must not be on it. */
static bool may_detour(struct opening *o)
{
	return (o->flags & O_TRUNC) == 0 || !current_in_use(o);
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
	if (o->who->tid == 0 || (in != NULL && intent_was_sent(in, d))) {
		r = may_detour(o) ? open_draft_data(o, d) : -ESTALE;
		if (in != NULL && r == 0)
			o->let_go = intent_take(o->st, in);
	} else {
		if (in != NULL)
			o->let_go = intent_take(o->st, in);
		r = intent_make(o->st, o->who->tid, o->s.o.id, d, o->write) != NULL ? -ESTALE : -ENOMEM;
	}
	pthread_mutex_unlock(&o->st->lock);
	return r;
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
	else if (limit != &st->closing_limit && !o->stuck_denied &&
		 wait_is_endless(st, o->who->tid, obj, o->stuck, &o->stuck_count, STUCK_MAX))
		r = o->stuck_confirmed ? -EDEADLK : ASK_STUCK;
	else
		r = waiter_list(st, o->waiter, obj, limit);
	if (obj != NULL && obj->draft != NULL)
		o->ask = obj->id;
	object_unref(st, obj);
	pthread_mutex_unlock(&st->lock);
	return r;
}

/* RELEASE follows FLUSH at once, unless some other process has inherited the descriptor. On a busy machine "at once" may
 * take long, and who gives up too early misses what was closed before he came: so before that it is looked up. */
static int wait_for_close(struct opening *o)
{
	const int64_t now = timers_now();
	struct store *st = o->st;
	struct version *d;
	int r = 0;

	if (o->waiter == NULL || !o->waiter->impatient)
		return wait_for(o, &st->closing_limit);
	pthread_mutex_lock(&st->lock);
	d = o->s.obj->draft;
	if (o->held != HOLDS_NO)
		d->held_up = o->held == HOLDS_YES || now - d->sealed_at > CLOSING_MAX_NS;
	if (o->held == HOLDS_UNKNOWN && !d->held_up && now - d->looked_up > CLOSING_NS) {
		d->looked_up = now; /* nobody else needs to for a while */
		r = ASK_HELD;
	} else if (d->held_up) {
		r = ASK_AGAIN;
	}
	pthread_mutex_unlock(&st->lock);
	if (r != 0)
		return r;
	o->waiter->impatient = false;
	return wait_for(o, &st->closing_limit);
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
		return wait_for_close(o);
	case OPEN_LOOK_UP:
		return LOOK_AGAIN;
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
		.aborted = o->s.v != NULL && o->s.v->aborted,
		.live = o->s.o.live,
		.write = o->write,
		.drafting = d != NULL && d->writer_list != NULL,
		.sealed = d != NULL && d->sealed,
		.patient = (d == NULL || !d->held_up) && (o->waiter != NULL || (o->flags & O_NONBLOCK) == 0 || o->write),
		.is_draft = d != NULL && d->vid == o->node,
		.holds = o->holds,
	};

	q.standing = o->s.o.vid == o->node ? NODE_CURRENT : q.is_draft ? NODE_DRAFT : NODE_OUTDATED;
	o->ask = o->s.o.id;
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
		if (v->role == ROLE_DRAFT || (!o->write && !v->aborted)) {
			r = v->role == ROLE_DRAFT ? open_draft_data(o, v) : handle_make(o, v, false);
			*done = true;
		} /* else: what it was sent to is no draft (any more), and the rule decides anew */
		if (*done && r == 0) /* while the draft is prepared, the intent keeps it */
			o->let_go = intent_take(st, in);
	}
	pthread_mutex_unlock(&st->lock);
	return r;
}

static bool is_settling(struct opening *o)
{
	bool settling;

	pthread_mutex_lock(&o->st->lock);
	settling = o->s.obj != NULL && o->s.obj->settling;
	pthread_mutex_unlock(&o->st->lock);
	return settling;
}

/* A draft that was begun or prepared for an open that does not take it after all: nobody else would settle it. */
static void leave_draft(struct opening *o)
{
	struct version *d;

	if (o->draft == 0)
		return;
	pthread_mutex_lock(&o->st->lock);
	d = version_find(o->st, o->draft);
	if (d == NULL || d->opens > 0)
		d = NULL;
	else
		d->opens++;
	pthread_mutex_unlock(&o->st->lock);
	if (d != NULL)
		version_let_go(o->st, d, o->who);
}

static int open_once(struct opening *o)
{
	struct op op;
	struct open_question q;
	bool done = false;
	int r;

	op_begin(&op, o->st, o->who);
	r = subject_get(o->st, o->node, &o->s);
	if (r == -ENOENT && o->waiter != NULL && o->waiter->object_id != 0)
		r = subject_by_object(o->st, o->waiter->object_id, &o->s);
	if (r == -ENOENT)
		r = LOOK_AGAIN;
	if (r == 0)
		r = open_intended(o, &done);
	if (r == 0 && !done && o->write && is_settling(o)) {
		r = wait_for(o, NULL);
	} else if (r == 0 && !done) {
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
	leave_draft(o);
	if (r != LOOK_AGAIN)
		return r;
	intent_away(o->st, o->who->tid, o->write);
	return -ESTALE;
}

/* Most opens: a reader of what is in use already. */
static struct handle *open_in_use(struct opening *o)
{
	struct version *v;

	pthread_mutex_lock(&o->st->lock);
	v = intent_find(o->st, o->who->tid) == NULL ? version_find(o->st, o->node) : NULL;
	if (v != NULL && v->role == ROLE_CURRENT && v->object->draft == NULL && !v->object->gone)
		handle_make(o, v, false);
	pthread_mutex_unlock(&o->st->lock);
	return o->handle;
}

/* Without locks. */
static void find_out(struct opening *o, int what)
{
	const struct store_hooks *hooks = &o->st->hooks;
	void *arg = o->st->hooks_arg;

	if (what == ASK_HOLDS)
		o->holds = hooks->holds(arg, o->who->tid, o->ask) ? HOLDS_YES : HOLDS_NO;
	else if (what == ASK_HELD)
		o->held = hooks->held(arg, o->ask) ? HOLDS_YES : HOLDS_NO;
	else if (what == ASK_STUCK && hooks->only_these_hold(arg, o->stuck, o->stuck_count))
		o->stuck_confirmed = true;
	else if (what == ASK_STUCK)
		o->stuck_denied = true; /* somebody who is not waiting may finish it, or a close is on its way */
}

int store_open(struct store *st, const struct caller *who, uint64_t node, int flags, struct waiter *waiter,
	       struct handle **ret, uint64_t *prepare_vid)
{
	const struct caller self = *who; /* `who` may be gone with the waiter as soon as that is listed */
	struct holding stuck[STUCK_MAX];
	struct opening o = {
		.st = st, .who = &self, .node = node, .flags = flags, .waiter = waiter, .stuck = stuck, .draft = *prepare_vid,
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
	while ((r = open_once(&o)) >= ASK_HOLDS)
		find_out(&o, r);
	if (r == STORE_WAITING)
		return r; /* by now the waiter may have been woken, and everything that belongs to it be gone */
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

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
	uint64_t named; /* the node that was asked for */
	uint64_t node;  /* the version: the same, but for an immutable borrow */
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
	struct process process; /* who takes it, once that matters */
	bool known;
	struct handle *drop; /* was made, but could not be recorded */
	struct version *let_go; /* what an intent that is overtaken kept open */
	bool takes; /* it goes away by this open */
};

#define STUCK_MAX 64

/* What an attempt ends with, besides what store_open returns: what has to be found out without locks before the next */
enum {
	LOOK_AGAIN = 100,
	ASK_HOLDS, /* is the asking process one of the draft's writers? */
	ASK_STUCK, /* do those who wait for each other really hold what they wait for? */
	ASK_HELD,  /* does anybody hold the sealed draft? */
	ASK_WHO,   /* who is it that takes the object? */
	ASK_AGAIN, /* nothing more */
};

/* Handles; store->lock held */

static int handle_make(struct opening *o, struct version *v, bool writer)
{
	struct handle *h = handle_new(o->st);

	if (h == NULL)
		return -ENFILE;
	h->version = v;
	h->vid = v->vid;
	h->object = v->object;
	h->node = o->node;
	h->flags = o->flags;
	h->writer = writer;
	h->tid = o->who->tid;
	h->uid = o->who->uid;
	h->via = o->who->via;
	h->detour = h->via == VIA_REF && o->s.mut;
	h->borrow = h->via == VIA_REF ? object_ref(o->st, o->named) : NULL;
	h->borrow_id = h->borrow != NULL ? o->named : 0;
	if (h->borrow != NULL)
		h->borrow->stands_for = v->vid;
	h->truncates = writer && (o->flags & O_TRUNC) != 0;
	if (!o->takes) /* else when it is taken: a reader who did not take it must not be left */
		kept_live(o->st, h);
	v->opens++;
	v->readers += !writer;
	if (writer) {
		v->writers++;
		v->sealed = false;
		v->writer_opens++;
		v->detoured = v->detoured || (o->node != v->vid && v->replaces);
		v->mappable = v->mappable || (h->flags & O_ACCMODE) == O_RDWR;
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

static int open_version(struct opening *o, struct version *v, bool writer)
{
	struct version *d = o->s.obj != NULL ? o->s.obj->draft : NULL;

	if (d != NULL && d->extends && v != NULL && v->vid == d->base)
		return unshare_first(o, d);
	return v == NULL ? -ENOMEM : handle_make(o, v, writer);
}

static int open_this(struct opening *o, bool writer)
{
	return open_version(o, o->s.v != NULL ? o->s.v : version_current(o->st, &o->s.o), writer);
}

/* By anybody but this operation and the asking thread's intent. */
static bool in_use(struct opening *o, uint64_t vid)
{
	struct version *v = version_find(o->st, vid);
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
	d->extends = o->who->via != VIA_MUT && !o->s.gone && draft_may_extend(o->st, &o->s.o, o->flags, in_use(o, o->s.o.vid));
	d->start_size = o->s.o.size;
	d->start_mtime = o->s.o.mtime;
	d->continues = o->s.o.state == OBJECT_READY && (o->flags & O_TRUNC) == 0;
	d->base = d->continues && o->s.o.size > 0 ? o->s.o.vid : 0;
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

/* Opening with O_TRUNC empties the node in the kernel's eyes, so readers must not be on it. */
static bool may_detour(struct opening *o)
{
	struct version *v = version_find(o->st, o->node);

	return (o->flags & O_TRUNC) == 0 || v == NULL || v->readers == 0;
}

/* The name is not looked up again by whoever opens through /proc/PID/fd or a file bind mount: such a writer, and one
 * whose thread is unknown, writes the draft through the node that it has. */
static int redirect_to_draft(struct opening *o)
{
	struct intent *in;
	struct version *d;
	bool sent;
	int r = begin_draft(o, &d);

	if (r < 0)
		return r;
	pthread_mutex_lock(&o->st->lock);
	in = intent_find(o->st, o->who->tid);
	sent = o->who->tid == 0 || o->s.reserved != 0 || (in != NULL && intent_was_sent(in, d, o->named));
	if (sent && may_detour(o)) {
		r = open_draft_data(o, d);
		if (in != NULL && r == 0)
			o->let_go = intent_take(o->st, in);
	} else if (o->who->tid == 0) {
		r = -ESTALE;
	} else { /* if he was sent for something that he has given up since, he looks now */
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
	struct intent *in;
	struct object *obj;
	int r;

	if (o->waiter == NULL)
		return STORE_MUST_WAIT;
	o->waiter->writes = o->write;
	o->waiter->takes = once_takes(&o->s.o, o->who->via, o->write);
	pthread_mutex_lock(&st->lock);
	obj = object_ref_row(st, &o->s.o);
	in = intent_find(st, o->who->tid);
	if (in != NULL) /* he has come, and waits with what it keeps for him */
		in->at = timers_now();
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

/* A mapping that has outlived its descriptor holds RELEASE up, too, where the bytes come through us. */
static bool may_be_mapped(const struct version *d)
{
	const struct handle *h;

	DL_FOREACH(d->writer_list, h)
		if (h->flushed && (h->flags & O_ACCMODE) == O_RDWR)
			return true;
	return false;
}

/* Such a process is a writer of the draft. Of an object that has had other versions, what is mapped may be one of
 * these, unless it is mapped for writing. store->lock held. */
static bool maps_draft(const struct opening *o, const struct version *d)
{
	const struct waiter *w = o->waiter;

	if (w == NULL || d == NULL || w->maps_vid != d->vid)
		return false;
	return w->maps == MAPS_WRITING || (w->maps == MAPS_READING && !d->replaces);
}

/* Not before the close has had the time that it takes. store->lock held. */
static bool ask_mapped(struct opening *o, const struct version *d)
{
	if (!o->waiter->impatient || d == NULL || o->waiter->maps_vid == d->vid || !may_be_mapped(d))
		return false;
	o->waiter->maps_vid = d->vid;
	o->waiter->maps = MAPS_UNKNOWN;
	o->waiter->object_id = d->object->id;
	return true;
}

static int wait_for_writers(struct opening *o)
{
	struct store *st = o->st;
	struct wait_limit *limit = &st->wait_limit;
	struct version *d;
	bool ask = false;

	if (o->waiter == NULL)
		return STORE_MUST_WAIT;
	pthread_mutex_lock(&st->lock);
	d = o->s.obj != NULL ? o->s.obj->draft : NULL;
	if (d != NULL && o->waiter->maps_vid != d->vid && may_be_mapped(d)) {
		ask = ask_mapped(o, d);
		limit = &st->closing_limit;
	}
	pthread_mutex_unlock(&st->lock);
	return ask ? STORE_LOOK : wait_for(o, limit);
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
	if (ask_mapped(o, d)) {
		pthread_mutex_unlock(&st->lock);
		return STORE_LOOK;
	}
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

/* Somebody else is being asked first, or a new version is on its way. */
static bool must_wait_to_take(struct opening *o)
{
	struct object *obj = o->s.obj;
	bool wait;

	pthread_mutex_lock(&o->st->lock);
	wait = obj != NULL && (obj->draft != NULL || obj->settling || (obj->heir != NULL && obj->heir != o->waiter));
	pthread_mutex_unlock(&o->st->lock);
	return wait;
}

/* The version that its key gives: who has waited for his turn may have come by a node that was replaced meanwhile. */
static int open_current(struct opening *o)
{
	struct version *v;
	int r = o->st->meta->ops->object_get(o->st->meta, o->s.o.id, &o->s.o);

	if (r < 0)
		return r;
	pthread_mutex_lock(&o->st->lock);
	v = version_current(o->st, &o->s.o);
	r = v == NULL ? -ENOMEM : handle_make(o, v, false);
	pthread_mutex_unlock(&o->st->lock);
	return r;
}

static int take_this(struct opening *o, struct op *op)
{
	struct intent *in;
	int r;

	if (must_wait_to_take(o))
		return wait_for(o, &o->st->wait_limit);
	if (!o->known)
		return ASK_WHO;
	op->process = o->process;
	o->takes = true;
	r = open_current(o);
	pthread_mutex_lock(&o->st->lock);
	in = intent_find(o->st, o->who->tid);
	if (r == 0 && in != NULL)
		o->let_go = intent_take(o->st, in);
	pthread_mutex_unlock(&o->st->lock);
	if (r != 0)
		return r;
	r = once_take(op, &o->s.o);
	o->changed = r == 0;
	o->handle->takes = r == 0;
	o->handle->object_id = o->s.o.id;
	if (r == 0)
		kept_live(o->st, o->handle);
	if (r < 0) {
		o->drop = o->handle;
		o->handle = NULL;
	}
	return r;
}

static int read_anyhow(struct opening *o)
{
	struct version *v = o->s.v;
	int r = LOOK_AGAIN;

	pthread_mutex_lock(&o->st->lock);
	if (v != NULL && (v->role == ROLE_DRAFT ? o->s.gone && v->sealed && v->data == DATA_READY : !v->aborted))
		r = open_version(o, v, false);
	else if (!o->s.gone)
		r = open_version(o, version_current(o->st, &o->s.o), false);
	pthread_mutex_unlock(&o->st->lock);
	return r;
}

static int draft_anyhow(struct opening *o)
{
	bool may;

	pthread_mutex_lock(&o->st->lock);
	may = may_detour(o);
	pthread_mutex_unlock(&o->st->lock);
	return may ? open_draft(o) : -ESTALE;
}

/* In place, or the draft; what has no name left is written all the same, and never published. */
static int write_anyhow(struct opening *o)
{
	struct version *v = o->s.v;
	int r;

	if (!o->s.o.live)
		return draft_anyhow(o);
	pthread_mutex_lock(&o->st->lock);
	if (!o->s.gone)
		v = version_current(o->st, &o->s.o);
	r = v == NULL ? o->s.gone ? LOOK_AGAIN : -ENOMEM : handle_make(o, v, true);
	pthread_mutex_unlock(&o->st->lock);
	return r;
}

/* The node stands for nothing that may be opened, but its thread has looked the name up again already, or has none to look
 * up, so it would hear of another ESTALE. What the object is now is read and written through the node all the same; a
 * version that somebody replaced since it was looked up is what the key had in that moment. */
static int open_anyhow(struct opening *o)
{
	if (!intent_is_back(o->st, o->who->tid, o->named) || o->who->via != VIA_OWNER)
		return LOOK_AGAIN;
	if (!o->write && !o->s.gone && once_takes(&o->s.o, o->who->via, false))
		return LOOK_AGAIN;
	return o->write ? write_anyhow(o) : read_anyhow(o);
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
		return wait_for_writers(o);
	case OPEN_WAIT_CLOSE:
		return wait_for_close(o);
	case OPEN_LOOK_UP:
		return open_anyhow(o);
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
	const bool mapped = maps_draft(o, d);
	struct open_question q = {
		.state = o->s.o.state,
		.gone = o->s.gone,
		.aborted = o->s.v != NULL && o->s.v->aborted,
		.live = o->s.o.live,
		.write = o->write,
		.drafting = d != NULL && d->writer_list != NULL,
		.sealed = d != NULL && d->sealed,
		.patient = !mapped && (d == NULL || !d->held_up) &&
			   (o->waiter != NULL || (o->flags & O_NONBLOCK) == 0 || o->write),
		.is_draft = d != NULL && d->vid == o->node,
		.holds = mapped ? HOLDS_YES : o->holds,
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
		if ((v->role == ROLE_DRAFT && !in->pins) || (!o->write && !v->aborted && v->role != ROLE_DRAFT)) {
			r = v->role == ROLE_DRAFT ? open_draft_data(o, v) : open_version(o, v, false);
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

/* A borrow whose turn has not come yet: what settles is the handle. */
static int wait_for_turn(struct opening *o)
{
	struct store *st = o->st;
	struct object *obj;
	int r;

	if (o->s.o.state == OBJECT_FAILED)
		return future_error(st, &o->s.o);
	if (o->waiter == NULL)
		return STORE_MUST_WAIT;
	pthread_mutex_lock(&st->lock);
	obj = object_ref(st, o->s.handle.id);
	r = obj == NULL ? -ENOMEM : waiter_list(st, o->waiter, obj, &st->wait_limit);
	object_unref(st, obj);
	pthread_mutex_unlock(&st->lock);
	return r;
}

static bool is_taken(struct opening *o)
{
	bool taken;

	pthread_mutex_lock(&o->st->lock);
	taken = o->s.obj->taken;
	pthread_mutex_unlock(&o->st->lock);
	return taken;
}

/* Before the rule of opening: may it be opened by this way at all? */
static int check_borrows(struct opening *o)
{
	const struct meta_object *row = &o->s.o;
	enum act act = o->write ? ACT_WRITE : once_takes(row, o->who->via, false) ? ACT_EVICT : ACT_READ;
	enum via via = o->who->via;
	int r;

	if (via == VIA_REF && o->write && !o->s.mut)
		return -EACCES;
	if (via == VIA_REF && o->s.handle.declared)
		return wait_for_turn(o);
	if (o->s.gone && o->s.obj != NULL && is_taken(o))
		return LOOK_AGAIN;
	if (o->s.gone || !is_file(row))
		return 0;
	if (via == VIA_REF && row->borrows == BORROWED_MUT) /* a mutable one that has waited: from now on found by its version */
		return o->write ? LOOK_AGAIN : 0;
	if (row->nlink == 0 && (via == VIA_OWNER || via == VIA_ONCE))
		return LOOK_AGAIN;
	r = borrow_rule(row->borrows, via, act);
	return r == -ESTALE ? LOOK_AGAIN : r;
}

static int open_by_rule(struct opening *o, struct op *op)
{
	struct open_question q;
	enum open_verdict verdict;

	pthread_mutex_lock(&o->st->lock);
	q = question(o);
	pthread_mutex_unlock(&o->st->lock);
	verdict = open_rule(&q);
	if (o->s.gone || !once_takes(&o->s.o, o->who->via, o->write))
		return act(o, verdict);
	if (verdict == OPEN_THIS || (o->waiter != NULL && o->waiter->heir && o->s.o.state == OBJECT_READY))
		return take_this(o, op);
	return act(o, verdict);
}

/* Who has done so already hears that there is nothing. */
static int look_again(struct opening *o)
{
	return intent_stale(o->st, o->who->tid, o->named, o->write) == -ESTALE ? -ESTALE : STORE_GONE;
}

/* It has what it came for: what it opens next is something else. */
static void come_back(struct opening *o)
{
	struct intent *in;

	pthread_mutex_lock(&o->st->lock);
	in = o->let_go == NULL ? intent_find(o->st, o->who->tid) : NULL;
	if (in != NULL)
		o->let_go = intent_take(o->st, in);
	pthread_mutex_unlock(&o->st->lock);
}

static int open_once(struct opening *o)
{
	struct op op;
	bool done = false;
	int r;

	op_begin(&op, o->st, o->who);
	r = subject_get_now(o->st, o->who, o->named, &o->s);
	if (r == 0 && o->who->via == VIA_REF)
		o->node = o->s.o.vid;
	if (r == -ENOENT && o->waiter != NULL && o->waiter->object_id != 0)
		r = subject_by_object(o->st, o->waiter->object_id, &o->s);
	if (r == -ENOENT)
		r = LOOK_AGAIN;
	if (r == 0)
		r = check_borrows(o);
	if (r == 0 && !once_takes(&o->s.o, o->who->via, o->write))
		r = open_intended(o, &done);
	if (r == 0 && !done && o->write && is_settling(o))
		r = wait_for(o, NULL);
	else if (r == 0 && !done)
		r = open_by_rule(o, &op);
	subject_put(o->st, &o->s);
	op_end(&op, o->drop != NULL ? r : 0, o->changed ? META_LATER : META_READ, NULL);
	store_release(o->drop);
	o->drop = NULL;
	if (r == 0 && o->handle != NULL)
		come_back(o);
	if (o->let_go != NULL)
		version_let_go(o->st, o->let_go, o->who);
	o->let_go = NULL;
	leave_draft(o);
	return r == LOOK_AGAIN ? look_again(o) : r;
}

/* Most opens: a reader of what is in use already. */
static struct handle *open_in_use(struct opening *o)
{
	struct version *v;

	pthread_mutex_lock(&o->st->lock);
	v = intent_find(o->st, o->who->tid) == NULL ? version_find(o->st, o->node) : NULL;
	if (v != NULL && v->role == ROLE_CURRENT && v->object->draft == NULL && !v->object->gone && !v->object->guarded)
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
	else if (what == ASK_WHO)
		hooks->process(arg, o->who->tid, &o->process);
	else if (what == ASK_STUCK && hooks->only_these_hold(arg, o->stuck, o->stuck_count))
		o->stuck_confirmed = true;
	else if (what == ASK_STUCK)
		o->stuck_denied = true; /* somebody who is not waiting may finish it, or a close is on its way */
	o->known = o->known || what == ASK_WHO;
}

int store_open(struct store *st, const struct caller *who, uint64_t node, int flags, struct waiter *waiter,
	       struct handle **ret, uint64_t *prepare_vid)
{
	const struct caller self = *who; /* `who` may be gone with the waiter as soon as that is listed */
	struct holding stuck[STUCK_MAX];
	struct opening o = {
		.st = st, .who = &self, .named = node, .node = node, .flags = flags, .waiter = waiter, .stuck = stuck, .draft = *prepare_vid,
		.write = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0,
	};
	int r;

	*ret = NULL;
	if (waiter != NULL) {
		waiter->tid = who->tid;
		waiter->uid = who->uid;
	}
	if (!o.write && who->via == VIA_OWNER && (*ret = open_in_use(&o)) != NULL)
		return 0;
	drafts_settle_now(st);
	while ((r = open_once(&o)) >= ASK_HOLDS)
		find_out(&o, r);
	if (r == STORE_WAITING)
		return r; /* by now the waiter may have been woken, and everything that belongs to it be gone */
	*ret = o.handle;
	*prepare_vid = o.prepare;
	if (r == 0 && o.handle->takes && (r = once_recorded(o.handle)) < 0) {
		store_release(o.handle);
		*ret = NULL;
	}
	if (r == 0 && o.write && (flags & O_TRUNC) != 0 && o.handle->writer) {
		r = store_ftruncate(o.handle, 0);
		o.handle->truncates = false;
		if (r < 0) {
			store_release(o.handle);
			*ret = NULL;
		}
	}
	return r;
}

void store_open_given_up(struct store *st, const struct caller *who)
{
	intent_give_up(st, who->tid);
}

int store_await(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct waiter *waiter)
{
	struct meta_dentry d;
	struct subject s = { 0 };
	struct object *obj;
	int64_t until;
	struct op op;
	int r, over = 0;

	waiter->tid = who->tid;
	waiter->uid = who->uid;
	op_begin(&op, st, who);
	r = st->meta->ops->dentry_get(st->meta, parent, name, &d);
	if (r == 0)
		r = st->meta->ops->object_get(st->meta, d.object, &s.o);
	if (r == 0)
		over = lease_enforce(&op, &s.o, &until);
	if (over != 0)
		r = -ENOENT; /* as store_lookup says */
	pthread_mutex_lock(&st->lock);
	if (r == -ENOENT) {
		r = waiter_list_absent(st, waiter, parent, name);
	} else if (r == 0 && (s.o.state == OBJECT_PENDING || s.o.state == OBJECT_WRITING)) {
		obj = object_ref(st, s.o.id);
		r = obj == NULL ? -ENOMEM : waiter_list(st, waiter, obj, &st->wait_limit);
		object_unref(st, obj);
	}
	pthread_mutex_unlock(&st->lock);
	op_end(&op, over < 0 ? over : 0, over > 0 ? META_LATER : META_READ, NULL);
	return r;
}

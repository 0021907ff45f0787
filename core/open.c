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
	uint64_t ask;   /* the object whose writers to look for */
	struct holding *stuck; /* who would wait for each other, to be confirmed */
	unsigned stuck_count;
	bool stuck_confirmed, stuck_denied;
	struct handle *handle;
	uint64_t prepare;
	struct version *let_go; /* what an intent that is overtaken kept open */
};

#define ASK_HOLDS 100
#define ASK_STUCK 101
#define LOOK_AGAIN 102
#define STUCK_MAX 64

#define AWAY_NS 200000000LL

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
	struct version_end end = { .fd = -1 };
	bool draft;

	pthread_mutex_lock(&st->lock);
	draft = v->role == ROLE_DRAFT && v->writers == 0;
	if (!draft)
		end = version_put(st, v);
	pthread_mutex_unlock(&st->lock);
	version_end(st, end);
	if (draft)
		draft_settle(st, v, who);
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
static struct intent *intent_make(struct store *st, int32_t tid, uint64_t object, struct version *v, bool write)
{
	struct intent *in = calloc(1, sizeof(*in));

	if (in == NULL)
		return NULL;
	*in = (struct intent){ .tid = tid, .object = object, .version = v, .write = write, .at = timers_now() };
	if (v != NULL) {
		v->opens++;
		v->writers += write;
	}
	if (st->intents == NULL)
		timer_arm(st->timers, &st->intent_timer, in->at + INTENT_NS);
	HASH_ADD(hh, st->intents, tid, sizeof(in->tid), in);
	return in;
}

void intent_away(struct store *st, int32_t tid, bool write)
{
	struct version *overtaken = NULL;
	struct intent *in;

	if (tid == 0)
		return;
	pthread_mutex_lock(&st->lock);
	in = intent_find(st, tid);
	if (in != NULL)
		overtaken = intent_take(st, in);
	in = intent_make(st, tid, 0, NULL, false);
	if (in != NULL) {
		in->away = true;
		in->wants_draft = write;
	}
	pthread_mutex_unlock(&st->lock);
	if (overtaken != NULL)
		version_let_go(st, overtaken, &(struct caller){ .tid = tid });
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

void intents_start(struct store *st)
{
	st->intent_timer.fire = intents_expire;
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

/* The kernel does not look a name up a third time. */
static bool was_sent(const struct intent *in, const struct version *d)
{
	return (in->version == d && !in->looked_up) || (in->away && timers_now() - in->at < AWAY_NS);
}

/* Opening with O_TRUNC empties the node in the kernel's eyes; where readers of the current version have their data from
 * there, they must not be on the same node. */
static bool may_detour(struct opening *o)
{
	return (o->flags & O_TRUNC) == 0 || !atomic_load(&o->st->cached_nodes) || !current_in_use(o);
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
	if (o->who->tid == 0 || (in != NULL && was_sent(in, d))) {
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
		.live = o->s.o.live,
		.write = o->write,
		.drafting = d != NULL && d->writer_list != NULL,
		.sealed = d != NULL && d->sealed,
		.patient = o->waiter == NULL ? (o->flags & O_NONBLOCK) == 0 || o->write : !o->waiter->impatient,
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
		if (v->role == ROLE_DRAFT || !o->write) {
			r = v->role == ROLE_DRAFT ? open_draft_data(o, v) : handle_make(o, v, false);
			*done = true;
		} /* else: what it was sent to is no draft (any more), and the rule decides anew */
		if (*done && r == 0) /* while the draft is prepared, the intent keeps it */
			o->let_go = intent_take(st, in);
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
	if (r == -ENOENT && o->waiter != NULL && o->waiter->object_id != 0)
		r = subject_by_object(o->st, o->waiter->object_id, &o->s);
	if (r == -ENOENT)
		r = LOOK_AGAIN;
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

int store_open(struct store *st, const struct caller *who, uint64_t node, int flags, struct waiter *waiter,
	       struct handle **ret, uint64_t *prepare_vid)
{
	const struct caller self = *who; /* `who` may be gone with the waiter as soon as that is listed */
	struct holding stuck[STUCK_MAX];
	struct opening o = {
		.st = st, .who = &self, .node = node, .flags = flags, .waiter = waiter, .stuck = stuck,
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
			o.holds = st->hooks.holds(st->hooks_arg, self.tid, o.ask) ? HOLDS_YES : HOLDS_NO;
		else if (st->hooks.only_these_hold(st->hooks_arg, stuck, o.stuck_count))
			o.stuck_confirmed = true;
		else
			o.stuck_denied = true; /* somebody who is not waiting may finish it, or a close is on its way */
	}
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

/* A writer who was sent to look for whatever the name means now has found `o`: it shall get the draft at once. True when
 * records were changed. */
bool intent_find_draft(struct op *op, const struct meta_object *o)
{
	struct store *st = op->st;
	struct subject s = { .o = *o };
	struct object *obj;
	struct version *d;
	struct intent *in;
	bool wants, begins;

	pthread_mutex_lock(&st->lock);
	in = intent_find(st, op->who->tid);
	obj = object_find(st, o->id);
	d = obj != NULL ? obj->draft : NULL;
	wants = in != NULL && in->wants_draft && in->version == NULL && o->state == OBJECT_READY && !o->live &&
		(d == NULL || !d->sealed);
	begins = wants && d == NULL;
	pthread_mutex_unlock(&st->lock);
	if (!wants || (begins && draft_begin(op, &s, &d) < 0))
		return false;
	pthread_mutex_lock(&st->lock);
	in = intent_find(st, op->who->tid);
	if (in != NULL && in->version == NULL) {
		in->object = o->id;
		in->version = d;
		in->write = true;
		in->away = false;
		d->opens++;
		d->writers++;
	}
	pthread_mutex_unlock(&st->lock);
	return begins;
}

/* What a look-up by this thread shall give for the object, 0: nothing special. store->lock held. */
uint64_t intent_node(struct store *st, const struct caller *who, const struct meta_object *o)
{
	struct intent *in = intent_find(st, who->tid);

	if (in == NULL || (in->object != 0 && in->object != o->id) || (in->version == NULL && o->state != OBJECT_READY))
		return 0;
	in->object = o->id;
	if (in->version == NULL) { /* a reader, who gets the version that is current now even if it is replaced meanwhile */
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
	if (v != NULL && !(v->extends && v->data == DATA_PREPARING))
		base = v->base;
	pthread_mutex_unlock(&st->lock);
	return base == 0 || st->blobs->ops->stat(st->blobs, base, &from) < 0 || from.st_size <= 65536;
}

static int copy_base(struct store *st, uint64_t vid, uint64_t base, int *fd)
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

struct recorded {
	struct meta_commit c;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int result;
};

static void now_recorded(struct meta_commit *c, int r)
{
	struct recorded *w = (struct recorded *)c;

	pthread_mutex_lock(&w->lock);
	w->done = true;
	w->result = r;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

/* Waits until everything up to now is recorded. */
static int record_now(struct store *st)
{
	struct recorded w = { .c.done = now_recorded, .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

	st->meta->ops->begin(st->meta);
	st->meta->ops->end(st->meta, META_RECORDED, &w.c);
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	return w.result;
}

/* That there is a draft has to be recorded before the file of a published version grows. */
static int share_base(struct store *st, uint64_t vid, uint64_t base, int *fd)
{
	int r = record_now(st);

	if (r == 0)
		r = st->blobs->ops->share(st->blobs, base, vid);
	if (r < 0)
		return r;
	*fd = st->blobs->ops->open(st->blobs, vid);
	return *fd < 0 ? *fd : 0;
}

static void prepared(struct store *st, struct version *v, int fd, bool shares, int r)
{
	struct stat start = { 0 };

	if (r == 0)
		fstat(fd, &start);
	pthread_mutex_lock(&st->lock);
	v->fd = fd;
	v->data = r == 0 ? DATA_READY : DATA_NONE;
	v->extends = shares;
	v->start_size = start.st_size;
	v->start_mtime = ns_of(&start.st_mtim);
	pthread_mutex_unlock(&st->lock);
}

static int prepare_data(struct store *st, struct version *v)
{
	bool shares;
	int fd = -1, r;

	pthread_mutex_lock(&st->lock);
	shares = v->extends;
	pthread_mutex_unlock(&st->lock);
	r = shares ? share_base(st, v->vid, v->base, &fd) : -EOPNOTSUPP;
	if (r < 0) {
		shares = false;
		r = copy_base(st, v->vid, v->base, &fd);
	}
	prepared(st, v, fd, shares, r);
	return r;
}

int store_prepare(struct store *st, uint64_t vid)
{
	static const struct caller nobody;
	struct version *v;
	bool unsharing, idle;
	struct op op;
	int r;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, vid); /* whoever was told to prepare holds it open */
	unsharing = v != NULL && v->unsharing;
	pthread_mutex_unlock(&st->lock);
	if (v == NULL)
		return -ESTALE;
	r = unsharing ? draft_unshare(st, v) : prepare_data(st, v);

	op_begin(&op, st, &nobody);
	pthread_mutex_lock(&st->lock);
	v->writers--;
	idle = r < 0 && v->writers == 0;
	if (!idle)
		v->opens--;
	pthread_mutex_unlock(&st->lock);
	waiters_wake(&op, v->object, 0);
	op_end(&op, 0, META_READ, NULL);
	if (idle)
		draft_settle(st, v, &nobody); /* nobody will come for it */
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

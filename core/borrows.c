/* Borrows: handles in ref/ and mut/ that stand for an object which somebody else owns.
 *
 *  borrow    record                                       left by
 *  none      -                                            ln OWNER ref/R, mut/M -> held; ln OWNER await-ref/R,
 *                                                         await-mut/M -> held if it can be, else waiting
 *  waiting   the handle (`declared`), its name; a row of  it is its turn -> held; dropped, or the object goes -> none
 *            `borrow`, waiting; the object's `queued`
 *  held      the handle, its name; a row of `borrow`;     unlink, rename over it; its lease, process or lifetime ends
 *            the object's `borrows`                       -> none
 *
 * What a borrow allows and forbids is in borrow_rule.c. A handle has an owner, a mode and times of its own; its bytes are
 * the object's. When the last one is dropped, an object that has lost its names meanwhile goes, too.
 *
 * Waiting is first come, first served: nobody overtakes, so writers are not starved by readers. link(2) itself does not
 * wait, since the kernel holds locks during it: a handle that waits is a promise, and opening it waits. Whoever changes
 * what others may wait for (drops a borrow, settles a draft) gives the next ones their turn when his operation is done. */
#include "core/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_NS 200000000LL
#define TIME_OF_OBJECT INT64_MIN /* nobody has set it for the handle itself */

#define CLOSING 100  /* the object is being closed by its writer, which takes but a moment */
#define ASK_HELD 101 /* does any process still have it open? */

/* The handle and the object */

static int borrow_target(struct store *st, const struct meta_object *handle, struct meta_borrow *b, struct meta_object *o)
{
	int r = st->meta->ops->borrow_get(st->meta, handle->id, b);

	return r == 0 ? st->meta->ops->object_get(st->meta, b->object, o) : r;
}

void borrow_show(const struct meta_object *handle, bool mut, struct entry *e)
{
	bool by_handle = !mut || handle->declared; /* which version a mutable one will stand for is not known before */

	e->via = by_handle ? VIA_REF : VIA_MUT;
	if (by_handle)
		e->node = handle->id;
	e->o.mode = handle->mode;
	e->o.uid = handle->uid;
	e->o.gid = handle->gid;
	e->o.nlink = 1;
	if (handle->atime != TIME_OF_OBJECT)
		e->o.atime = handle->atime;
	if (handle->mtime != TIME_OF_OBJECT)
		e->o.mtime = handle->mtime;
	e->stable = false;
}

int borrow_entry(struct store *st, const struct caller *who, const struct meta_object *handle, struct entry *e)
{
	struct meta_object o;
	struct meta_borrow b;
	int r = borrow_target(st, handle, &b, &o);

	if (r < 0)
		return r;
	fill_entry(st, who, &o, e);
	borrow_show(handle, b.mut, e);
	return 0;
}

/* The same for somebody who looks its name up, perhaps because he was sent to (see intents.c). */
int borrow_lookup(struct op *op, const struct meta_object *handle, struct entry *e, bool *changed)
{
	struct meta_object o;
	struct meta_borrow b;
	int r = borrow_target(op->st, handle, &b, &o);

	if (r < 0)
		return r;
	*changed = b.mut && intent_find_draft(op, &o);
	fill_entry(op->st, op->who, &o, e);
	borrow_show(handle, b.mut, e);
	return 0;
}

static int by_ref(struct store *st, uint64_t node, struct subject *s)
{
	struct meta_object handle;
	struct meta_borrow b;
	int r = st->meta->ops->object_get(st->meta, node, &handle);

	if (r == 0)
		r = is_borrow(&handle) ? st->meta->ops->borrow_get(st->meta, node, &b) : -ENOENT;
	if (r == 0)
		r = subject_by_object(st, b.object, s);
	s->handle = handle;
	s->mut = r == 0 && b.mut;
	return r;
}

static int by_mut(struct store *st, uint64_t node, struct subject *s)
{
	struct meta_borrow b;
	int r = subject_get(st, node, s);

	if (r < 0)
		return r;
	r = s->o.borrows == BORROWED_MUT ? st->meta->ops->borrow_list(st->meta, s->o.id, false, take_borrow, &b) : 0;
	if (r > 0)
		r = st->meta->ops->object_get(st->meta, b.handle, &s->handle);
	else if (r == 0)
		r = -ENOENT;
	if (r < 0)
		subject_put(st, s);
	return r;
}

int subject_get_via(struct store *st, enum via via, uint64_t node, struct subject *s)
{
	int r;

	*s = (struct subject){ 0 };
	r = via == VIA_REF ? by_ref(st, node, s) : via == VIA_MUT ? by_mut(st, node, s) : subject_get(st, node, s);
	s->via = via;
	return r;
}

int subject_get_for(struct store *st, const struct caller *who, uint64_t node, struct subject *s)
{
	int r = subject_get_via(st, who->via, node, s);

	if (r == -ENOENT && who->via == VIA_OWNER)
		r = intent_subject(st, who->tid, node, s);
	s->via = who->via;
	return r;
}

int subject_get_now(struct store *st, const struct caller *who, uint64_t node, struct subject *s)
{
	int r = subject_get_for(st, who, node, s);

	if (r < 0 || (r = subject_refresh(st, s, node)) == 0)
		return r;
	subject_put(st, s);
	return r;
}

int subject_get_dropped(struct store *st, enum via via, uint64_t node, struct subject *s)
{
	uint64_t vid = via == VIA_MUT ? node : 0;
	struct object *handle;

	pthread_mutex_lock(&st->lock);
	handle = via == VIA_REF ? object_find(st, node) : NULL;
	if (handle != NULL)
		vid = handle->stands_for;
	pthread_mutex_unlock(&st->lock);
	return vid == 0 ? -ENOENT : subject_get(st, vid, s);
}

const struct meta_object *subject_self(const struct subject *s)
{
	return s->via == VIA_REF || s->via == VIA_MUT ? &s->handle : &s->o;
}

bool subject_is_stale(const struct subject *s, uint64_t node)
{
	return s->via != VIA_REF && is_file(&s->o) && s->v == NULL && s->o.vid != node;
}

int subject_refresh(struct store *st, struct subject *s, uint64_t node)
{
	if (s->gone || !subject_is_stale(s, node) || (s->obj != NULL && s->obj->settling))
		return 0;
	return st->meta->ops->object_get(st->meta, s->o.id, &s->o);
}

/* Records */

static int describe(struct store *st, const struct meta_object *handle, struct meta_object *o, char path[static PATH_MAX],
		    char name[static HANDLE_NAME_MAX])
{
	struct meta_dentry d = { .name = "" };
	struct meta_borrow b;
	int r = borrow_target(st, handle, &b, o);

	if (r == 0)
		r = path_of(st, o->id, path);
	if (r == 0)
		r = st->meta->ops->dentry_names(st->meta, handle->id, take_name, &d);
	snprintf(name, HANDLE_NAME_MAX, "%s/%s", r >= 0 && b.mut ? "mut" : "ref", d.name);
	return r < 0 ? r : 0;
}

int borrow_describe(struct store *st, const struct meta_object *handle, char path[static PATH_MAX],
		    char name[static HANDLE_NAME_MAX])
{
	struct meta_object o;

	return describe(st, handle, &o, path, name);
}

/* key: the owner of what is borrowed; detail: the handle. */
int borrow_event(struct op *op, const char *kind, const struct meta_object *handle)
{
	char owner[PATH_MAX], name[HANDLE_NAME_MAX];
	struct meta_object o;
	int r = describe(op->st, handle, &o, owner, name);

	return r == 0 ? event_record(op, kind, owner, &o, NULL, name) : r;
}

int borrow_changes(struct op *op, struct meta_object *o, int64_t borrows)
{
	struct object *obj;

	if (o->queued > 0 && borrows != BORROWED_MUT && (o->borrows == BORROWED_MUT || borrows < o->borrows))
		op_turn(op, o->id);
	o->borrows = borrows;
	pthread_mutex_lock(&op->st->lock);
	obj = object_find(op->st, o->id);
	if (obj != NULL)
		object_guard(obj, o);
	pthread_mutex_unlock(&op->st->lock);
	return op->st->meta->ops->object_update(op->st->meta, o);
}

static int stop_waiting(struct op *op, struct meta_object *o)
{
	if (--o->queued > 0)
		op_turn(op, o->id); /* he may have been the first in line */
	return op->st->meta->ops->object_update(op->st->meta, o);
}

int borrow_dropped(struct op *op, const struct meta_object *handle)
{
	struct meta *m = op->st->meta;
	struct meta_object o;
	struct meta_borrow b;
	int r = borrow_target(op->st, handle, &b, &o);

	if (r == 0 && b.waiting)
		return stop_waiting(op, &o);
	if (r == 0 && b.mut)
		r = draft_revoke(op, o.id);
	if (r == 0)
		r = borrow_changes(op, &o, b.mut ? 0 : o.borrows - 1);
	if (r < 0 || o.borrows != 0 || o.nlink > 0)
		return r;
	r = m->ops->object_delete(m, handle->id); /* the borrow first: nothing is deleted that is borrowed */
	return r == 0 ? object_delete(op, &o, -ENOENT) : r;
}

static int drop_first(struct op *op, uint64_t object)
{
	struct meta *m = op->st->meta;
	struct meta_object handle;
	struct meta_borrow b;
	int r = m->ops->borrow_list(m, object, true, take_borrow, &b);

	if (r <= 0)
		return r;
	r = m->ops->object_get(m, b.handle, &handle);
	if (r == 0)
		r = object_evict(op, &handle, -ENOENT);
	return r == 0 ? 1 : r;
}

struct line {
	uint64_t handle[64];
	unsigned n;
};

static int gather_line(void *arg, const struct meta_borrow *b)
{
	struct line *l = arg;

	l->handle[l->n++] = b->handle;
	return l->n == 64;
}

/* What they wait for has failed: who has opened one of them is told. */
int borrow_queue_fails(struct op *op, uint64_t object)
{
	struct line l = { .n = 0 };
	int r = op->st->meta->ops->borrow_list(op->st->meta, object, true, gather_line, &l);

	for (unsigned i = 0; i < l.n; i++)
		waiters_wake_id(op, l.handle[i], 0);
	return r < 0 ? r : 0;
}

int borrow_queue_ends(struct op *op, struct meta_object *o)
{
	int r;

	do {
		r = drop_first(op, o->id);
	} while (r > 0);
	o->queued = 0;
	return r;
}

static int leave_lifetimes(struct meta *m, uint64_t object)
{
	struct names names;
	int r;

	do {
		names.n = 0;
		r = m->ops->member_names(m, object, gather_name, &names);
		for (unsigned i = 0; r >= 0 && i < names.n; i++) {
			int e = m->ops->member_delete(m, &names.d[i]);

			r = e < 0 ? e : r;
		}
	} while (r > 0);
	return r;
}

int borrow_outlive(struct op *op, struct meta_object *o)
{
	struct meta *m = op->st->meta;
	struct object *obj;
	int r;

	r = o->queued > 0 ? borrow_queue_ends(op, o) : 0;
	o->nlink = 0;
	if (r == 0)
		r = m->ops->object_update(m, o);
	if (r == 0)
		r = m->ops->lease_remove(m, o->id);
	if (r == 0)
		r = m->ops->binding_remove(m, o->id);
	if (r == 0)
		r = m->ops->aborted_remove(m, o->id);
	if (r == 0)
		r = leave_lifetimes(m, o->id);
	pthread_mutex_lock(&op->st->lock);
	obj = object_find(op->st, o->id);
	if (obj != NULL)
		object_guard(obj, o);
	pthread_mutex_unlock(&op->st->lock);
	waiters_wake_id(op, o->id, -ENOENT);
	return r;
}

/* Borrowing */

/* The kernel looks at the rights to the handle when that is used; whoever makes it must have them to the object. */
static int check_right(struct store *st, const struct caller *who, const struct meta_object *o, bool write)
{
	return access_check(st, who, o, write ? 2 : 4);
}

static uint64_t place_of(const struct borrowing *b)
{
	return b->mut ? META_MUT : META_REF;
}

/* What no waiting mends. */
static int check(struct store *st, const struct borrowing *b, const struct subject *s)
{
	struct meta_dentry d;
	int r;

	if (b->who.via == VIA_REF || b->who.via == VIA_MUT || !is_file(&s->o))
		return -EPERM;
	if (s->gone || s->o.nlink == 0)
		return -ENOENT;
	r = check_right(st, &b->who, &s->o, b->mut);
	if (r < 0)
		return r;
	r = st->meta->ops->dentry_get(st->meta, place_of(b), b->name, &d);
	return r == 0 ? -EEXIST : r == -ENOENT ? usage_check(st, LIMITED_HANDLES, b->who.uid) : r;
}

/* What is in memory of an object that somebody would borrow: 0, -EBUSY or CLOSING. store->lock held. */
static int in_use(const struct object *obj)
{
	const struct version *d = obj->draft, *v = obj->current;

	if (v != NULL && v->live && v->writers > 0)
		return -EBUSY;
	if (obj->settling)
		return CLOSING;
	if (d == NULL)
		return 0;
	return !d->held_up && (d->sealed || d->closed || d->writers == 0) ? CLOSING : -EBUSY;
}

/* What stands in the way of the first in line. */
static int obstacle(struct store *st, const struct meta_object *o, bool mut)
{
	int r = borrow_rule(o->borrows, VIA_OWNER, mut ? ACT_BORROW_MUT : ACT_BORROW_REF);
	struct object *obj;

	if (r < 0)
		return r;
	pthread_mutex_lock(&st->lock);
	obj = object_find(st, o->id);
	r = obj != NULL ? in_use(obj) : 0;
	pthread_mutex_unlock(&st->lock);
	if (r == 0 && draft_recorded(st, o->id) != 0)
		r = -EBUSY; /* what was closed has yet to be published */
	return r == 0 && o->state != OBJECT_READY ? -EBUSY : r;
}

/* The borrower may always use and change his handle himself; the rest he gets from the object. */
static struct meta_object new_handle(struct store *st, const struct borrowing *b, const struct meta_object *o)
{
	int64_t now = store_now(st);

	return (struct meta_object){
		.mode = S_IFREG | 0600 | (access_plain_mode(st, o) & (b->mut ? 0666 : 0444)), .uid = b->who.uid, .gid = b->who.gid,
		.nlink = 1, .atime = TIME_OF_OBJECT, .mtime = TIME_OF_OBJECT, .ctime = now, .btime = now,
	};
}

static int make_handle(struct op *op, const struct borrowing *b, const struct meta_object *o, bool waiting,
		       struct meta_object *h)
{
	struct meta *m = op->st->meta;
	int r;

	*h = new_handle(op->st, b, o);
	h->declared = waiting;
	r = m->ops->new_id(m, &h->id);
	h->vid = h->id;
	if (r == 0)
		r = m->ops->object_insert(m, h);
	if (r == 0)
		r = m->ops->dentry_insert(m, place_of(b), b->name, h->id);
	if (r == 0)
		r = m->ops->object_touch(m, place_of(b), h->btime, 0);
	return r == 0 ? m->ops->borrow_add(m, &(struct meta_borrow){ h->id, o->id, b->mut, waiting }) : r;
}

static int is_held(struct op *op, struct meta_object *o, const struct meta_object *handle, bool mut)
{
	int r = borrow_changes(op, o, mut ? BORROWED_MUT : o->borrows + 1);

	return r == 0 ? borrow_event(op, "borrow", handle) : r;
}

static int borrow_now(struct op *op, struct borrowing *b, struct meta_object *o)
{
	struct meta_object h;
	int r = make_handle(op, b, o, false, &h);

	if (r == 0)
		r = is_held(op, o, &h, b->mut);
	return r == 0 ? borrow_entry(op->st, NULL, &h, &b->e) : r;
}

static int get_in_line(struct op *op, struct borrowing *b, struct meta_object *o)
{
	struct meta_object h;
	int r = make_handle(op, b, o, true, &h);

	o->queued++;
	if (r == 0)
		r = op->st->meta->ops->object_update(op->st->meta, o);
	return r == 0 ? borrow_entry(op->st, NULL, &h, &b->e) : r;
}

/* A close that was called, but is not finished: see wait_for_close in open.c. */
static int wait_for_close(struct store *st, struct borrowing *b, const struct meta_object *o)
{
	struct object *obj;
	struct version *d;
	int r;

	pthread_mutex_lock(&st->lock);
	obj = object_ref_row(st, o);
	d = obj != NULL ? obj->draft : NULL;
	if (obj == NULL)
		r = -ENOMEM;
	else if (!b->waiter.impatient)
		r = waiter_list(st, &b->waiter, obj, &st->closing_limit);
	else
		r = d != NULL && timers_now() - d->sealed_at > CLOSING_MAX_NS ? -EBUSY : ASK_HELD;
	object_unref(st, obj);
	pthread_mutex_unlock(&st->lock);
	return r;
}

static int borrow_or_wait(struct op *op, struct borrowing *b, struct meta_object *o)
{
	int r = o->queued > 0 ? -EBUSY : obstacle(op->st, o, b->mut);

	if (r == 0)
		return borrow_now(op, b, o);
	if (b->queue)
		return get_in_line(op, b, o);
	return r == CLOSING ? wait_for_close(op->st, b, o) : r;
}

static int try_to_borrow(struct store *st, struct borrowing *b, const struct process *process, struct meta_commit *c,
			 uint64_t *object)
{
	const struct caller who = b->who; /* b may be gone as soon as it waits and the catalog was left */
	struct subject s;
	struct op op;
	int r;

	op_begin(&op, st, &who);
	op.process = *process;
	r = subject_get_via(st, who.via, b->node, &s);
	if (r < 0) {
		op_end(&op, r, META_READ, NULL);
		return r == -ENOENT ? intent_stale(st, who.tid, b->node, false) : r;
	}
	intent_done(&op);
	*object = s.o.id;
	r = s.gone ? 0 : st->meta->ops->object_get(st->meta, s.o.id, &s.o); /* by whatever version he came */
	if (r == 0)
		r = check(st, b, &s);
	if (r == 0)
		r = borrow_or_wait(&op, b, &s.o);
	subject_put(st, &s);
	return op_end(&op, r, r == 0 ? META_RECORDED : META_READ, r == 0 ? c : NULL);
}

int store_borrow(struct store *st, struct borrowing *b, struct meta_commit *c)
{
	struct process process;
	uint64_t object = 0;
	int r;

	b->waiter.tid = b->who.tid;
	b->waiter.uid = b->who.uid;
	st->hooks.process(st->hooks_arg, b->who.tid, &process);
	while ((r = try_to_borrow(st, b, &process, c, &object)) == ASK_HELD) {
		if (st->hooks.held(st->hooks_arg, object))
			return -EBUSY;
		b->waiter.impatient = false;
	}
	return r;
}

/* Turns */

/* 1: the first in line holds it now, and the next one may have his turn, too. */
static int give_turn(struct op *op, struct meta_object *o)
{
	struct meta *m = op->st->meta;
	struct meta_object handle;
	struct meta_borrow b;
	struct caller who = { 0 };
	int r = m->ops->borrow_list(m, o->id, true, take_borrow, &b);

	if (r <= 0 || obstacle(op->st, o, b.mut) != 0)
		return r < 0 ? r : 0;
	r = m->ops->object_get(m, b.handle, &handle);
	if (r < 0)
		return r;
	who.uid = handle.uid;
	op->who = &who;
	handle.declared = false;
	r = m->ops->object_update(m, &handle);
	if (r == 0)
		r = m->ops->borrow_held(m, b.handle);
	o->queued--;
	if (r == 0)
		r = is_held(op, o, &handle, b.mut);
	if (r == 0)
		waiters_wake_id(op, b.handle, 0);
	op->who = NULL;
	return r == 0 ? 1 : r;
}

/* It could not be recorded (a full disk, most likely). */
struct retry {
	struct timer timer;
	struct store *st;
	uint64_t object;
};

static void try_again(struct timer *t)
{
	struct retry *again = (struct retry *)t;

	borrow_turn(again->st, again->object);
	free(again);
}

static void drop_retry(struct timer *t)
{
	free(t);
}

static void turn_later(struct store *st, uint64_t object)
{
	struct retry *again = atomic_load(&st->closing) ? NULL : calloc(1, sizeof(*again));

	if (again == NULL)
		return; /* the next start does it */
	*again = (struct retry){ .timer = { .fire = try_again, .drop = drop_retry }, .st = st, .object = object };
	timer_arm(st->timers, &again->timer, timers_now() + RETRY_NS);
}

void borrow_turn(struct store *st, uint64_t object)
{
	bool changed = false;
	struct meta_object o;
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = st->meta->ops->object_get(st->meta, object, &o);
	while (r >= 0 && o.queued > 0 && (r = give_turn(&op, &o)) > 0)
		changed = true;
	r = r == -ENOENT || r > 0 ? 0 : r;
	op_end(&op, r, changed ? META_LATER : META_READ, NULL);
	if (r < 0)
		turn_later(st, object);
}

struct queues {
	uint64_t object[64];
	unsigned n;
};

static int gather_queue(void *arg, uint64_t object)
{
	struct queues *q = arg;

	q->object[q->n++] = object;
	return q->n == 64;
}

int borrows_start(struct store *st)
{
	struct queues q;
	uint64_t after = 0;
	struct op op;
	int r;

	do {
		q.n = 0;
		op_begin(&op, st, NULL);
		r = st->meta->ops->borrow_queues(st->meta, after, gather_queue, &q);
		op_end(&op, 0, META_READ, NULL);
		for (unsigned i = 0; r >= 0 && i < q.n; i++) {
			after = q.object[i];
			borrow_turn(st, after);
		}
	} while (r > 0);
	return r;
}

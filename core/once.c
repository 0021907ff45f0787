/* One-time objects: the first one to open them for reading takes them.
 *
 *  object   record                                left by
 *  there    its names                             open below once/, or of one with user.promisefs.evict=1 -> taken
 *  taken    no name; its names in `taken`         its consumer closes it -> read; is killed, or the daemon ends -> there
 *  read     no name; `taken`, done                the last close (RELEASE) -> gone; another process that has inherited
 *                                                 the descriptor is killed before it closes that -> there
 *  gone     -
 *
 * Of many who wait for one that is not written yet the first in line is its heir: nobody may take it before he was asked
 * again. What goes back finds its names again; where somebody else has a name by now, it is kept below aborted/. */
#include "core/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool once_takes(const struct meta_object *o, enum via via, bool write)
{
	return !write && is_file(o) && (via == VIA_ONCE || (via == VIA_OWNER && o->evict));
}

static void set_taken(struct store *st, uint64_t object, bool taken)
{
	struct object *obj;

	pthread_mutex_lock(&st->lock);
	obj = object_find(st, object);
	if (obj != NULL)
		obj->taken = taken;
	pthread_mutex_unlock(&st->lock);
}

int once_take(struct op *op, struct meta_object *o)
{
	char key[PATH_MAX];
	int r = path_of(op->st, o->id, key);

	if (r == 0)
		r = event_record(op, "evict", key, o, NULL, "once");
	if (r == 0 && o->queued > 0)
		r = borrow_queue_ends(op, o);
	if (r == 0)
		r = names_remove(op, o, true);
	o->nlink = 0;
	if (r == 0)
		r = op->st->meta->ops->object_update(op->st->meta, o);
	if (r == 0)
		object_gone(op, o, -ENOENT);
	if (r == 0)
		set_taken(op->st, o->id, true);
	return r;
}

int once_name(struct store *st, uint64_t object, struct meta_dentry *d)
{
	int r = st->meta->ops->taken_names(st->meta, object, take_name, d);

	return r > 0 ? 0 : r == 0 ? -ENOENT : r;
}

/* Going back */

#define NAMES_MAX 64 /* an object with more goes back under these */

struct taken_names {
	struct meta_dentry d[NAMES_MAX];
	unsigned n;
};

static int gather(void *arg, const struct meta_dentry *d)
{
	struct taken_names *names = arg;

	names->d[names->n++] = *d;
	return names->n == NAMES_MAX;
}

/* 1: it has that name again; 0: it cannot. */
static int restore_name(struct op *op, const struct meta_dentry *d)
{
	struct meta *m = op->st->meta;
	struct meta_dentry other;
	struct meta_object dir;
	int r = m->ops->object_get(m, d->parent, &dir);

	if (r == 0 && dir.nlink == 0)
		r = -ENOENT; /* on its way out itself */
	if (r == 0)
		r = m->ops->dentry_get(m, d->parent, d->name, &other) == -ENOENT ? 0 : -ENOENT;
	if (r == 0)
		r = m->ops->dentry_insert(m, d->parent, d->name, d->object);
	if (r == 0)
		r = m->ops->object_touch(m, d->parent, store_now(op->st), 0);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	op_invalidate(op, d->parent, d->name);
	waiters_wake_absent(op, d->parent, d->name);
	return 1;
}

/* In memory: the version that was read is what the key gives again. */
static void come_back(struct store *st, const struct meta_object *o)
{
	struct object *obj;
	struct version *v;

	pthread_mutex_lock(&st->lock);
	obj = object_find(st, o->id);
	v = version_find(st, o->vid);
	if (obj != NULL)
		obj->gone = obj->taken = false;
	if (obj != NULL && v != NULL && v->object == obj) {
		v->role = ROLE_CURRENT;
		obj->current = v;
	}
	pthread_mutex_unlock(&st->lock);
}

static int go_back(struct op *op, struct meta_object *o)
{
	struct meta *m = op->st->meta;
	struct taken_names *names = calloc(1, sizeof(*names));
	char key[PATH_MAX] = "";
	int r = names == NULL ? -ENOMEM : m->ops->taken_names(m, o->id, gather, names);

	o->nlink = 0;
	if (r >= 0 && names->n > 0)
		r = path_of(op->st, o->id, key);
	for (unsigned i = 0; r >= 0 && i < names->n; i++) {
		names->d[i].object = o->id;
		r = restore_name(op, &names->d[i]);
		o->nlink += r > 0;
	}
	free(names);
	if (r >= 0)
		r = m->ops->taken_remove(m, o->id);
	if (r == 0 && o->nlink == 0)
		r = aborted_adopt(op, key, o);
	if (r == 0)
		r = m->ops->object_update(m, o);
	if (r == 0)
		r = event_record(op, "return", key, o, NULL, op->process.pid != 0 ? "its reader was killed" : NULL);
	if (r == 0)
		come_back(op->st, o);
	return r;
}

/* The consumer */

int once_recorded(struct handle *h)
{
	int r = record_now(h->st, META_RECORDED);

	if (r < 0)
		h->takes = false; /* it is back by that */
	return r;
}

/* Catalog held. -EIO: that was taken back, and it has its names again. */
static int get_taken(struct handle *h, struct meta_object *o)
{
	int r = h->st->meta->ops->object_get(h->st->meta, h->object_id, o);

	return r == 0 && o->nlink > 0 ? -EIO : r;
}

void once_flush(struct handle *h, const struct caller *who, const struct process *closer, struct meta_commit *c)
{
	struct meta_object o;
	struct op op;
	int r;

	pthread_mutex_lock(&h->st->lock);
	h->closer = *closer;
	h->closed = true;
	pthread_mutex_unlock(&h->st->lock);
	op_begin(&op, h->st, who);
	r = get_taken(h, &o);
	if (r == 0 || r == -ENOENT) /* it may have been evicted meanwhile */
		r = h->st->meta->ops->taken_done(h->st->meta, h->object_id, closer->fate != FATE_KILLED);
	if (op_end(&op, r, META_RECORDED, c) < 0)
		c->done(c, r);
}

void once_release(struct handle *h)
{
	const struct caller who = { .uid = h->uid, .tid = h->tid };
	bool back = !h->closed || h->closer.fate == FATE_KILLED;
	struct store *st = h->st;
	struct meta_object o;
	struct op op;
	int r;

	op_begin(&op, st, &who);
	op.process = h->closer;
	r = get_taken(h, &o);
	if (r == 0)
		r = back ? go_back(&op, &o) : object_delete(&op, &o, -ENOENT);
	op_end(&op, r == -ENOENT || r == -EIO ? 0 : r, META_LATER, NULL); /* what cannot be recorded, the next start does */
}

/* After the end of a daemon */

struct taken {
	struct store *st;
	uint64_t object[64];
	bool done[64];
	unsigned n;
};

static int gather_taken(void *arg, uint64_t object, bool done)
{
	struct taken *t = arg;

	struct object *obj;
	bool adopted;

	if (t->n > 0 && t->object[t->n - 1] == object)
		return 0; /* by another of its names */
	pthread_mutex_lock(&t->st->lock);
	obj = object_find(t->st, object);
	adopted = obj != NULL && obj->taken && obj->adopted_taker;
	pthread_mutex_unlock(&t->st->lock);
	if (adopted)
		return 0; /* somebody reads it */
	t->object[t->n] = object;
	t->done[t->n++] = done;
	return t->n == 64;
}

int once_recover(struct store *st)
{
	struct meta *m = st->meta;
	struct meta_object o;
	struct taken t = { .st = st };
	struct op op;
	int r = 0;

	do {
		t.n = 0;
		op_begin(&op, st, NULL);
		if (m->ops->taken_list(m, gather_taken, &t) < 0)
			r = -EIO;
		for (unsigned i = 0; r == 0 && i < t.n; i++) {
			r = m->ops->object_get(m, t.object[i], &o);
			if (r == 0)
				r = t.done[i] ? object_delete(&op, &o, -ENOENT) : go_back(&op, &o);
		}
		r = op_end(&op, r, META_LATER, NULL);
	} while (r == 0 && t.n == 64);
	return r;
}

/* The heir */

void store_wait_over(struct store *st, struct waiter *w)
{
	struct object *obj;
	struct op op;

	if (!w->heir)
		return;
	w->heir = false;
	op_begin(&op, st, NULL);
	pthread_mutex_lock(&st->lock);
	obj = object_find(st, w->object_id);
	if (obj != NULL && obj->heir == w) {
		obj->heir = NULL;
		object_unref(st, obj);
	}
	pthread_mutex_unlock(&st->lock);
	waiters_wake_id(&op, w->object_id, 0); /* whoever is next in line */
	op_end(&op, 0, META_READ, NULL);
}

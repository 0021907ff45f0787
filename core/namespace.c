/* Names: looking up, linking, renaming, removing, listing (making is in make.c). Permissions are the kernel's business
 * (default_permissions); here is what POSIX says about the tree. */
#include "core/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Directories */

int dir_get(struct store *st, uint64_t id, struct meta_object *dir)
{
	int r = st->meta->ops->object_get(st->meta, id, dir);

	if (r < 0)
		return r;
	return is_dir(dir) ? 0 : -ENOTDIR;
}

static int found(void *arg, const struct meta_dentry *d)
{
	return -ENOTEMPTY;
}

static int check_empty(struct store *st, uint64_t dir)
{
	return st->meta->ops->dentry_list(st->meta, dir, 0, found, NULL);
}

static int get_name(struct store *st, uint64_t parent, const char *name, struct meta_dentry *d, struct meta_object *o)
{
	int r = st->meta->ops->dentry_get(st->meta, parent, name, d);

	return r < 0 ? r : st->meta->ops->object_get(st->meta, d->object, o);
}

/* Entries */

static void live_size(struct store *st, struct meta_object *o, uint64_t vid)
{
	struct stat bytes;

	if (st->blobs->ops->stat(st->blobs, vid, &bytes) < 0)
		return;
	object_takes(o, &bytes);
}

/* As long as the catalog is held, the draft stays. */
static void draft_size(struct store *st, struct meta_object *o, const struct version *d)
{
	struct stat bytes;
	int fd;

	pthread_mutex_lock(&st->lock);
	fd = d->fd;
	pthread_mutex_unlock(&st->lock);
	if (fd < 0 || fstat(fd, &bytes) < 0)
		return;
	pthread_mutex_lock(&st->lock);
	object_as_draft(o, d, &bytes);
	pthread_mutex_unlock(&st->lock);
}

/* store->lock held. */
static bool is_closed(const struct version *d)
{
	return d->replaces && d->sealed && !d->held_up && d->error == 0;
}

/* Its writer has closed it, and it is about to be published: whoever looks now finds it so. Not when nothing was written
 * to it, since then it is about to be dropped. */
static bool will_be_published(const struct version *d, int fd)
{
	struct stat bytes;

	return fd >= 0 && fstat(fd, &bytes) == 0 && !draft_is_untouched(d, &bytes);
}

/* The catalog is held. */
void fill_entry(struct store *st, const struct caller *who, const struct meta_object *o, struct entry *e)
{
	struct version_end overtaken = { .fd = -1 };
	struct object *obj;
	struct version *d;
	uint64_t other = 0;
	bool closed;
	int fd;

	*e = (struct entry){ .node = o->vid, .o = *o, .stable = true, .recounted = is_recounted(st, o->vid) };
	if (!is_file(o))
		return;
	pthread_mutex_lock(&st->lock);
	obj = object_find(st, o->id);
	d = obj != NULL ? obj->draft : NULL;
	if (st->intents != NULL && who != NULL)
		other = intent_node(st, who, o, &overtaken);
	e->stable = o->state != OBJECT_WRITING && d == NULL && o->nlink == 1;
	closed = other == 0 && d != NULL && is_closed(d);
	fd = closed ? d->fd : -1;
	if (other != 0)
		e->node = other;
	pthread_mutex_unlock(&st->lock);
	version_end_in_op(st, overtaken);
	if (closed && will_be_published(d, fd))
		e->node = d->vid;
	if (d != NULL && d->vid == e->node)
		draft_size(st, &e->o, d);
	else if (o->live || o->state == OBJECT_WRITING)
		live_size(st, &e->o, e->node);
}

int store_lookup(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct entry *e)
{
	struct meta_dentry d;
	struct meta_object o;
	bool changed = false;
	int64_t until = 0;
	struct op op;
	int r, over = 0;

	op_begin(&op, st, who);
	r = get_name(st, parent, name, &d, &o);
	if (r == 0)
		over = lease_enforce(&op, &o, &until);
	if (over != 0)
		r = -ENOENT; /* also when that could not be recorded */
	if (r == 0 && is_borrow(&o))
		r = borrow_lookup(&op, &o, e, &changed);
	else if (r == 0) {
		changed = is_file(&o) && o.borrows == 0 && intent_find_draft(&op, &o);
		fill_entry(st, who, &o, e);
	}
	e->until = until;
	if (r == -ENOENT || (r == 0 && !is_dir(&e->o)))
		intent_looked(st, who->tid, r == 0 ? e->node : 0);
	op_end(&op, over < 0 ? over : 0, changed || over > 0 ? META_LATER : META_READ, NULL);
	return r;
}

int store_readlink(struct store *st, uint64_t node, char target[static PATH_MAX])
{
	struct meta_object o;
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = st->meta->ops->attribute_get(st->meta, node, "pfs.target", target, PATH_MAX - 1);
	if (r == -ENOENT) /* removed while it was on somebody's way: he looks his path up again */
		r = st->meta->ops->object_get(st->meta, node, &o) == -ENOENT ? -ESTALE : -EINVAL;
	op_end(&op, 0, META_READ, NULL);
	if (r < 0)
		return r;
	target[r] = '\0';
	return 0;
}

/* Linking */

static int take_parent(void *arg, const struct meta_dentry *d)
{
	*(uint64_t *)arg = d->parent;
	return 1;
}

/* An object has one owner: what an owner handle owns gets no key besides, and borrows are no owners. */
static int check_link(struct store *st, const struct caller *who, const struct subject *s, uint64_t parent)
{
	uint64_t owner = 0;
	int r;

	if (is_dir(&s->o) || who->via == VIA_REF || who->via == VIA_MUT)
		return -EPERM;
	if (parent == META_OWN || parent == META_REF || parent == META_MUT)
		return -EPERM;
	r = st->meta->ops->dentry_names(st->meta, s->o.id, take_parent, &owner);
	return r < 0 ? r : owner == META_OWN ? -EPERM : 0;
}

int store_link(struct store *st, const struct caller *who, uint64_t node, uint64_t parent, const char *name,
	       struct entry *e, struct meta_commit *c)
{
	struct meta *m = st->meta;
	struct meta_object dir;
	struct meta_dentry d;
	struct subject s;
	struct op op;
	bool gone;
	int r;

	op_begin(&op, st, who);
	r = subject_get_now(st, &(struct caller){ .tid = who->tid }, node, &s);
	if (r < 0) {
		op_end(&op, r, META_READ, NULL);
		return r == -ENOENT ? intent_stale(st, who->tid, node, false) : r;
	}
	r = dir_get(st, parent, &dir);
	if (r == 0)
		r = check_link(st, who, &s, parent);
	if (r == 0)
		r = s.gone || s.o.nlink == 0 ? -ENOENT : 0;
	gone = s.gone && r == -ENOENT;
	if (r == 0) {
		r = m->ops->dentry_get(m, parent, name, &d);
		r = r == 0 ? -EEXIST : r == -ENOENT ? 0 : r;
	}
	s.o.nlink++;
	s.o.ctime = store_now(st);
	if (r == 0)
		r = subject_save(st, &s);
	if (r == 0)
		r = m->ops->dentry_insert(m, parent, name, s.o.id);
	if (r == 0)
		r = m->ops->object_touch(m, parent, s.o.ctime, 0);
	if (r == 0) {
		waiters_wake_absent(&op, parent, name);
		fill_entry(st, NULL, &s.o, e);
		op_shows_name(&op, parent, name);
	}
	subject_put(st, &s);
	if (!gone)
		intent_done(&op);
	r = op_end(&op, r, META_RECORDED, c);
	return gone ? intent_stale(st, who->tid, node, false) : r;
}

/* Removing */

static int drop_data(struct op *op, const struct meta_object *o)
{
	bool published = is_file(o) && (o->state == OBJECT_READY || o->version > 0);

	return published ? op_remove_data(op, o, false) : 0;
}

void object_gone(struct op *op, const struct meta_object *o, int waiters_get)
{
	struct store *st = op->st;
	struct object *obj;

	pthread_mutex_lock(&st->lock);
	obj = object_find(st, o->id);
	if (obj != NULL) {
		obj->gone = true;
		obj->row = *o;
		obj->row.nlink = 0;
		if (obj->current != NULL)
			obj->current->role = ROLE_OLD;
	}
	pthread_mutex_unlock(&st->lock);
	if (!is_dir(o) && !is_borrow(o))
		departed_add(st, o);
	waiters_wake_id(op, o->id, waiters_get);
}

static int invalidate_name(void *arg, const struct meta_dentry *d)
{
	op_invalidate(arg, d->parent, d->name);
	return 0;
}

int names_invalidate(struct op *op, uint64_t object)
{
	return op->st->meta->ops->dentry_names(op->st->meta, object, invalidate_name, op);
}

int object_forget(struct op *op, const struct meta_object *o)
{
	int r = names_invalidate(op, o->id);

	op_forget(op, o->vid); /* after the names: by then nobody is looking them up who would be told what was before */
	return r < 0 ? r : 0;
}

int names_remove(struct op *op, const struct meta_object *o, bool taken)
{
	struct meta *m = op->st->meta;
	struct names *names = malloc(sizeof(*names));
	int r = names == NULL ? -ENOMEM : 1;

	while (r > 0) {
		names->n = 0;
		r = m->ops->dentry_names(m, o->id, gather_name, names);
		for (unsigned i = 0; r >= 0 && i < names->n; i++) {
			int e = taken ? m->ops->taken_add(m, &names->d[i]) : 0;

			if (e == 0)
				e = m->ops->dentry_delete(m, &names->d[i]);

			if (e == 0)
				e = m->ops->object_touch(m, names->d[i].parent, store_now(op->st), 0);
			op_invalidate(op, names->d[i].parent, names->d[i].name);
			r = e < 0 ? e : r;
		}
	}
	free(names);
	return r;
}

int object_delete(struct op *op, struct meta_object *o, int waiters_get)
{
	int r = o->queued > 0 ? borrow_queue_ends(op, o) : 0;

	if (r == 0)
		r = is_borrow(o) ? borrow_dropped(op, o) : drop_data(op, o);
	if (r == 0 && is_file(o))
		r = draft_drop_unsettled(op, o);
	if (r == 0)
		r = op->st->meta->ops->object_delete(op->st->meta, o->id);
	if (r == 0)
		object_gone(op, o, waiters_get);
	return r;
}

int object_evict(struct op *op, struct meta_object *o, int waiters_get)
{
	int r = names_remove(op, o, false);

	if (r == 0 && o->borrows != 0)
		return borrow_outlive(op, o);
	return r == 0 ? object_delete(op, o, waiters_get) : r;
}

static int record_removal(struct op *op, uint64_t parent, const char *name, const struct meta_object *o)
{
	const char *kind = o->state == OBJECT_PENDING || o->state == OBJECT_WRITING ? "cancel" : "evict";
	char key[PATH_MAX];
	int r;

	if (is_borrow(o))
		return o->declared ? 0 : borrow_event(op, "release", o); /* one that waits was never borrowed */
	if (!is_file(o) || o->nlink > 1)
		return 0;
	r = path_of_name(op->st, parent, name, key);
	return r == 0 ? event_record(op, kind, key, o, NULL, NULL) : r;
}

/* One name less. waiters_get: what those get who wait for an object that thereby goes away. */
static int drop_name(struct op *op, struct meta_object *o, int waiters_get)
{
	o->nlink--;
	o->ctime = store_now(op->st);
	if (o->nlink == 0)
		return object_delete(op, o, waiters_get);
	op_recounts(op, o);
	return op->st->meta->ops->object_update(op->st->meta, o);
}

/* The last name of what is borrowed stays. */
static int check_evict(const struct meta_object *o)
{
	return o->nlink == 1 && !is_dir(o) ? borrow_rule(o->borrows, VIA_OWNER, ACT_EVICT) : 0;
}

static int unlink_name(struct store *st, const struct caller *who, uint64_t parent, const char *name, bool only_promises,
		       struct meta_commit *c)
{
	struct meta_dentry d;
	struct meta_object o;
	struct op op;
	int r;

	op_begin_named(&op, st, who);
	r = get_name(st, parent, name, &d, &o);
	if (r == 0 && is_dir(&o))
		r = -EISDIR;
	if (r == 0)
		r = check_evict(&o);
	if (r == 0 && only_promises && (!is_file(&o) || o.state == OBJECT_READY))
		r = -EEXIST;
	if (r == 0)
		r = record_removal(&op, parent, name, &o);
	if (r == 0)
		r = st->meta->ops->dentry_delete(st->meta, &d);
	if (r == 0)
		r = st->meta->ops->object_touch(st->meta, parent, store_now(st), 0);
	if (r == 0)
		r = drop_name(&op, &o, -ECANCELED);
	if (r == 0 && who->unseen)
		op_invalidate(&op, parent, name);
	if (r == 0 && who->unseen && o.nlink > 0)
		r = object_forget(&op, &o); /* it has one name less */
	return op_end(&op, r, META_RECORDED, c);
}

int store_unlink(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct meta_commit *c)
{
	return unlink_name(st, who, parent, name, false, c);
}

int store_cancel(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct meta_commit *c)
{
	return unlink_name(st, who, parent, name, true, c);
}

/* Whoever has it as his working directory can still look at it, and leave it by `..`, until the kernel forgets it. */
static void keep_removed(struct store *st, uint64_t id)
{
	struct object *obj;

	pthread_mutex_lock(&st->lock);
	obj = object_ref(st, id);
	if (obj != NULL && obj->removed) {
		object_unref(st, obj); /* its removal was taken back before */
	} else if (obj != NULL) {
		obj->removed = true;
		atomic_fetch_add(&st->removed_dirs, 1);
	}
	pthread_mutex_unlock(&st->lock);
}

void store_forget(struct store *st, uint64_t node)
{
	struct object *obj;

	departed_forget(st, node);
	if (atomic_load(&st->removed_dirs) == 0)
		return;
	pthread_mutex_lock(&st->lock);
	obj = object_find(st, node);
	if (obj != NULL && obj->removed) {
		obj->removed = false;
		atomic_fetch_sub(&st->removed_dirs, 1);
		object_unref(st, obj);
	}
	pthread_mutex_unlock(&st->lock);
}

static int remove_dir(struct op *op, const struct meta_dentry *d, struct meta_object *o)
{
	int r = op->st->meta->ops->dentry_delete(op->st->meta, d);

	o->nlink = 0;
	keep_removed(op->st, o->id);
	if (r == 0)
		r = object_delete(op, o, -ENOENT);
	if (r == 0)
		r = op->st->meta->ops->object_touch(op->st->meta, d->parent, store_now(op->st), -1);
	if (r < 0)
		store_forget(op->st, o->id);
	else
		op_recounts_dir(op, d->parent);
	paths_forget(op->st);
	return r;
}

int store_rmdir(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct meta_commit *c)
{
	struct meta_dentry d;
	struct meta_object o;
	struct op op;
	int r;

	op_begin(&op, st, who);
	r = get_name(st, parent, name, &d, &o);
	if (r == 0 && !is_dir(&o))
		r = -ENOTDIR;
	if (r == 0)
		r = check_empty(st, o.id);
	if (r == 0)
		r = remove_dir(&op, &d, &o);
	if (r == 0 && who->unseen)
		op_invalidate(&op, parent, name);
	return op_end(&op, r, META_RECORDED, c);
}

/* Renaming */

struct renaming {
	struct meta_dentry from, to;
	struct meta_object a, b; /* what is renamed, and what is there */
	bool exists;
	unsigned flags;
};

/* Whether `o` may go from one directory to the other: borrows stay where they are, and an owner handle owns a file that
 * has no other name. */
static int check_move(const struct meta_object *o, uint64_t from, uint64_t to)
{
	if (from == to)
		return 0;
	if (from == META_REF || from == META_MUT || to == META_REF || to == META_MUT)
		return -EPERM;
	if (to != META_OWN)
		return 0;
	return !is_file(o) ? -EPERM : o->nlink > 1 ? -EMLINK : 0;
}

static int rename_check(struct store *st, struct renaming *rn, uint64_t to)
{
	int r = check_move(&rn->a, rn->from.parent, to);

	if (r == 0 && rn->exists && (rn->flags & RENAME_EXCHANGE) != 0)
		r = check_move(&rn->b, to, rn->from.parent);
	if (r == 0 && rn->from.parent != to)
		r = usage_check_in(st, to, rn->a.uid);
	if (r < 0)
		return r;
	if ((rn->flags & RENAME_NOREPLACE) != 0 && rn->exists)
		return -EEXIST;
	if ((rn->flags & RENAME_EXCHANGE) != 0)
		return rn->exists ? 0 : -ENOENT;
	if (!rn->exists)
		return 0;
	if (is_dir(&rn->a) != is_dir(&rn->b))
		return is_dir(&rn->b) ? -EISDIR : -ENOTDIR;
	if (rn->a.id == rn->b.id)
		return 0;
	return is_dir(&rn->b) ? check_empty(st, rn->b.id) : check_evict(&rn->b);
}

static int touch_parents(struct op *op, struct renaming *rn, uint64_t to_parent, int delta)
{
	struct meta *m = op->st->meta;
	int64_t now = store_now(op->st);
	int r;

	if (rn->from.parent == to_parent)
		return m->ops->object_touch(m, to_parent, now, 0);
	if (delta != 0) {
		op_recounts_dir(op, rn->from.parent);
		op_recounts_dir(op, to_parent);
	}
	r = m->ops->object_touch(m, rn->from.parent, now, -delta);
	return r == 0 ? m->ops->object_touch(m, to_parent, now, delta) : r;
}

/* What has a key again is not bound to the process any more for which somebody owned it. */
static int leave_own(struct op *op, const struct meta_object *o, uint64_t from, uint64_t to)
{
	return from == META_OWN && to != META_OWN ? op->st->meta->ops->binding_remove(op->st->meta, o->id) : 0;
}

static int exchange(struct op *op, struct renaming *rn)
{
	struct meta *m = op->st->meta;
	int delta = is_dir(&rn->a) - is_dir(&rn->b);
	int r = m->ops->dentry_set(m, &rn->from, rn->b.id);

	if (r == 0)
		r = m->ops->dentry_set(m, &rn->to, rn->a.id);
	rn->a.ctime = rn->b.ctime = store_now(op->st);
	if (r == 0)
		r = leave_own(op, &rn->a, rn->from.parent, rn->to.parent);
	if (r == 0)
		r = leave_own(op, &rn->b, rn->to.parent, rn->from.parent);
	if (r == 0)
		r = m->ops->object_update(m, &rn->a);
	if (r == 0)
		r = m->ops->object_update(m, &rn->b);
	return r == 0 ? touch_parents(op, rn, rn->to.parent, delta) : r;
}

/* Takes away what is at the target. Whoever waits for it looks the name up again: a future is set by renaming the
 * finished file over it. */
static int displace(struct op *op, struct renaming *rn)
{
	int r = record_removal(op, rn->to.parent, rn->to.name, &rn->b);

	if (r < 0)
		return r;
	if (is_dir(&rn->b))
		return remove_dir(op, &rn->to, &rn->b);
	r = op->st->meta->ops->dentry_delete(op->st->meta, &rn->to);
	return r == 0 ? drop_name(op, &rn->b, -ESTALE) : r;
}

static int move_name(struct op *op, struct renaming *rn, uint64_t to, const char *to_name)
{
	struct meta *m = op->st->meta;
	char key[PATH_MAX];
	int r = rn->exists ? displace(op, rn) : 0;

	if (r == 0)
		r = m->ops->dentry_delete(m, &rn->from);
	if (r == 0)
		r = m->ops->dentry_insert(m, to, to_name, rn->a.id);
	if (r == 0)
		r = leave_own(op, &rn->a, rn->from.parent, to);
	rn->a.ctime = store_now(op->st);
	if (r == 0)
		r = m->ops->object_update(m, &rn->a);
	if (r == 0)
		r = touch_parents(op, rn, to, is_dir(&rn->a));
	waiters_wake_absent(op, to, to_name);
	if (r == 0 && is_file(&rn->a)) {
		r = path_of_name(op->st, to, to_name, key);
		if (r == 0)
			r = event_record(op, "rename", key, &rn->a, NULL, rn->from.name);
	}
	return r;
}

int store_rename(struct store *st, const struct caller *who, uint64_t from, const char *name, uint64_t to,
		 const char *to_name, unsigned flags, struct meta_commit *c)
{
	struct renaming rn = { .flags = flags };
	struct meta_object dir;
	struct op op;
	int r;

	if (to == META_LIFETIMES)
		rn.flags |= RENAME_NOREPLACE; /* a lifetime that is replaced would be ended */
	if ((flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0)
		return -EINVAL;
	op_begin_named(&op, st, who);
	r = get_name(st, from, name, &rn.from, &rn.a);
	if (r == 0)
		r = dir_get(st, to, &dir);
	if (r == 0) {
		r = get_name(st, to, to_name, &rn.to, &rn.b);
		rn.exists = r == 0;
		r = r == -ENOENT ? 0 : r;
	}
	if (r == 0)
		r = rename_check(st, &rn, to);
	if (r == 0 && rn.exists && rn.a.id == rn.b.id)
		return op_end(&op, 0, META_RECORDED, c); /* two names of one object: POSIX says nothing happens */
	if (r == 0)
		r = (flags & RENAME_EXCHANGE) != 0 ? exchange(&op, &rn) : move_name(&op, &rn, to, to_name);
	if (is_dir(&rn.a) || (rn.exists && is_dir(&rn.b)))
		paths_forget(st);
	if (r == 0)
		op_shows_name(&op, to, to_name);
	if (r == 0 && (flags & RENAME_EXCHANGE) != 0)
		op_shows_name(&op, from, name);
	return op_end(&op, r, META_RECORDED, c);
}

/* Listing */

struct listing {
	struct meta_dentry *d;
	unsigned n, limit;
};

static int list_one(void *arg, const struct meta_dentry *d)
{
	struct listing *l = arg;

	l->d[l->n++] = *d;
	return l->n == l->limit;
}

static int list_entry(struct store *st, const struct meta_object *o, struct entry *e)
{
	if (is_borrow(o))
		return borrow_entry(st, NULL, o, e);
	fill_entry(st, NULL, o, e);
	return lease_until(st, o, &e->until);
}

typedef int (*list_fn)(struct meta *m, uint64_t parent, uint64_t after, meta_dentry_fn fn, void *arg);

static int list_names(struct store *st, const struct caller *who, list_fn list, uint64_t node, uint64_t after,
		      unsigned limit, store_entry_fn fn, void *arg)
{
	struct listing l = { .d = malloc(limit * sizeof(*l.d)), .limit = limit };
	struct entry *entries = malloc(limit * sizeof(*entries));
	struct meta_object o;
	struct op op;
	int r = l.d == NULL || entries == NULL ? -ENOMEM : 0;

	if (r == 0) {
		op_begin(&op, st, who);
		r = list(st->meta, node, after, list_one, &l);
		for (unsigned i = 0; r >= 0 && i < l.n; i++) {
			r = st->meta->ops->object_get(st->meta, l.d[i].object, &o);
			if (r == 0)
				r = list_entry(st, &o, &entries[i]);
			if (r == 0 && is_file(&o) && o.nlink == 0)
				entries[i].node = 0; /* a member of a lifetime that somebody reads for the one time */
		}
		op_end(&op, 0, META_READ, NULL);
	}
	r = r < 0 ? r : 0;
	for (unsigned i = 0; r == 0 && i < l.n; i++)
		if (entries[i].node != 0)
			r = fn(arg, &l.d[i], &entries[i]);
	free(l.d);
	free(entries);
	return r < 0 ? r : 0;
}

int store_readdir(struct store *st, const struct caller *who, uint64_t node, uint64_t after, unsigned limit,
		  store_entry_fn fn, void *arg)
{
	return list_names(st, who, st->meta->ops->dentry_list, node, after, limit, fn, arg);
}

int store_lifetime_list(struct store *st, const struct caller *who, uint64_t lifetime, uint64_t after, unsigned limit,
			store_entry_fn fn, void *arg)
{
	return list_names(st, who, st->meta->ops->member_list, lifetime, after, limit, fn, arg);
}

int store_parent(struct store *st, uint64_t node, uint64_t *parent)
{
	struct op op;
	int r;

	*parent = META_ROOT;
	op_begin(&op, st, NULL);
	r = st->meta->ops->dentry_names(st->meta, node, take_parent, parent);
	op_end(&op, 0, META_READ, NULL);
	return r < 0 ? r : 0;
}

/* Futures: objects that are declared before they are written.
 *
 *  state     record                       left by
 *  absent    -                            declare -> pending; create -> writing (not a future)
 *  pending   state 1, declared            open for writing -> writing; fail, deadline -> failed; unlink -> cancelled
 *  writing   state 2, declared, a draft   last close -> ready; killed -> failed (or pending); deadline -> failed,
 *                                         with the draft going on
 *  ready     state 3                      for good: declaring it again is EEXIST
 *  failed    state 4, error               open for writing -> writing; declare -> pending
 *  cancelled no record                    -
 */
#include "core/internal.h"
#include "core/parse.h"

#include <errno.h>
#include <string.h>

int future_error(struct store *st, const struct meta_object *o)
{
	return o->error != 0 ? -o->error : -EIO;
}

int future_fail(struct op *op, struct subject *s, int error, const char *reason)
{
	struct store *st = op->st;
	struct meta_object *o = &s->o;
	char key[PATH_MAX];
	int r;

	o->state = OBJECT_FAILED;
	o->error = error;
	o->deadline = 0;
	o->declared = true;
	o->ctime = store_now(st);
	r = st->meta->ops->object_update(st->meta, o);
	if (r == 0)
		r = st->meta->ops->attribute_set(st->meta, o->id, "pfs.error", reason, strlen(reason));
	if (r == 0)
		r = path_of(st, o->id, key);
	if (r == 0)
		r = object_forget(op, o);
	if (r == 0)
		r = event_record(op, error == ETIMEDOUT ? "expire" : "fail", key, o, NULL, reason);
	if (r == 0)
		waiters_wake_id(op, o->id, 0);
	if (r == 0 && o->queued > 0)
		r = borrow_queue_fails(op, o->id);
	return r;
}

/* Declaring */

static int declare_new(struct op *op, uint64_t parent, const char *name, uint32_t mode, struct meta_object *o)
{
	struct meta *m = op->st->meta;
	struct meta_object dir;
	int64_t now = store_now(op->st);
	int r = m->ops->object_get(m, parent, &dir);

	if (r < 0)
		return r;
	*o = (struct meta_object){
		.mode = S_IFREG | (mode & 07777), .uid = op->who->uid,
		.gid = (dir.mode & S_ISGID) != 0 ? dir.gid : op->who->gid, .nlink = 1,
		.atime = now, .mtime = now, .ctime = now, .btime = now, .state = OBJECT_PENDING, .declared = true,
		.lifetime = dir.lifetime,
	};
	r = access_inherit_mode(op, parent, o);
	if (r == 0)
		r = m->ops->new_id(m, &o->id);
	o->vid = o->id;
	if (r == 0)
		r = m->ops->object_insert(m, o);
	if (r == 0)
		r = access_inherit(op, parent, o);
	if (r == 0)
		r = m->ops->dentry_insert(m, parent, name, o->id);
	if (r == 0)
		r = m->ops->object_touch(m, parent, now, 0);
	if (r == 0 && o->lifetime != 0)
		r = lifetime_join(op, o, name);
	waiters_wake_absent(op, parent, name);
	return r;
}

static int declare_existing(struct op *op, struct meta_object *o, bool *changed)
{
	struct meta *m = op->st->meta;

	if (!is_file(o) || o->state == OBJECT_READY)
		return -EEXIST;
	*changed = !o->declared || o->state == OBJECT_FAILED;
	if (!*changed)
		return 0;
	if (o->state == OBJECT_FAILED)
		o->state = object_has_draft(op->st, o->id) ? OBJECT_WRITING : OBJECT_PENDING;
	o->declared = true;
	o->error = 0;
	return m->ops->object_update(m, o);
}

int store_declare(struct store *st, const struct caller *who, uint64_t parent, const char *name, uint32_t mode,
		  struct entry *e, struct meta_commit *c)
{
	struct meta *m = st->meta;
	struct meta_dentry d;
	struct meta_object o;
	bool changed = true;
	char key[PATH_MAX];
	struct op op;
	int r;

	op_begin_named(&op, st, who);
	r = m->ops->dentry_get(m, parent, name, &d);
	if (r == 0)
		r = m->ops->object_get(m, d.object, &o);
	if (r == 0)
		r = declare_existing(&op, &o, &changed);
	else if (r == -ENOENT)
		r = declare_new(&op, parent, name, mode, &o);
	if (r == 0 && changed)
		r = path_of_name(st, parent, name, key);
	if (r == 0 && changed)
		r = event_record(&op, "declare", key, &o, NULL, NULL);
	if (r == 0) {
		fill_entry(st, NULL, &o, e);
		op_shows_name(&op, parent, name);
		op_shows_node(&op, o.vid);
	}
	return op_end(&op, r, META_RECORDED, c);
}

int store_redeclare(struct store *st, const struct caller *who, uint64_t node, struct meta_commit *c)
{
	bool changed = false;
	char key[PATH_MAX];
	struct subject s;
	struct op op;
	int r;

	op_begin_named(&op, st, who);
	r = subject_get(st, node, &s);
	if (r == 0) {
		r = s.gone ? -ESTALE : declare_existing(&op, &s.o, &changed);
		if (r == 0 && changed)
			r = path_of(st, s.o.id, key);
		if (r == 0 && changed)
			r = event_record(&op, "declare", key, &s.o, NULL, NULL);
		subject_put(st, &s);
	}
	return op_end(&op, r == -ENOENT ? -ESTALE : r, META_RECORDED, c);
}

/* Deadlines: one timer, for the soonest of them; the catalog has them in order. */

struct soonest {
	int64_t at;
	uint64_t object;
};

static int take_soonest(void *arg, const struct meta_object *o)
{
	*(struct soonest *)arg = (struct soonest){ o->deadline, o->id };
	return 1;
}

void deadline_rearm(struct store *st)
{
	struct soonest s = { 0 };

	if (st->meta->ops->object_deadlines(st->meta, take_soonest, &s) > 0)
		timer_arm(st->timers, &st->deadline_timer, timers_now() + s.at - store_now(st));
	else
		timer_disarm(st->timers, &st->deadline_timer);
}

/* Fails the future whose deadline has passed, if there is one. */
static bool expire_one(struct store *st)
{
	struct soonest due = { 0 };
	struct subject s = { 0 };
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = st->meta->ops->object_deadlines(st->meta, take_soonest, &due);
	if (r <= 0 || due.at > store_now(st)) {
		deadline_rearm(st);
		op_end(&op, 0, META_READ, NULL);
		return false;
	}
	r = st->meta->ops->object_get(st->meta, due.object, &s.o);
	if (r == 0)
		r = future_fail(&op, &s, ETIMEDOUT, "its deadline has passed");
	op_end(&op, r, META_LATER, NULL);
	return r == 0;
}

static void deadlines_due(struct timer *t)
{
	struct store *st = (struct store *)((char *)t - offsetof(struct store, deadline_timer));

	while (expire_one(st))
		;
}

void deadlines_start(struct store *st)
{
	struct op op;

	st->deadline_timer.fire = deadlines_due;
	op_begin(&op, st, NULL);
	deadline_rearm(st);
	op_end(&op, 0, META_READ, NULL);
}

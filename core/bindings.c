/* What is bound to a process: an object or a lifetime that ends when the process does, however that happens.
 *
 *  binding  record                              left by
 *  none     -                                   user.promisefs.pid = PID, or lifetimes/self -> bound
 *  bound    pid, and what tells the process     the process ends, now or while nobody was mounted; the attribute is
 *           from others of that number          removed, or set to another process -> none
 *
 * The host finds processes by number (hook `identify`) and tells when they have ended (hook `watch`). A number that the
 * kernel gives to another process later is never taken for the first. */
#include "core/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT_ONCE 64

static int put(struct op *op, const struct subject *s, int32_t pid, uint64_t start)
{
	const struct meta_binding b = { .object = subject_self(s)->id, .pid = pid, .start = start,
					.boot_id = op->st->options.boot_id };
	int r = check_can_expire(op->st, op->who, s);

	return r == 0 ? op->st->meta->ops->binding_put(op->st->meta, &b) : r;
}

int store_bind(struct store *st, const struct caller *who, uint64_t node, int32_t pid, struct meta_commit *c)
{
	struct subject s;
	uint64_t start;
	struct op op;
	bool gone;
	int r = st->hooks.identify(st->hooks_arg, who, pid, &start);

	if (r < 0)
		return r;
	op_begin(&op, st, who);
	r = subject_get_now(st, who, node, &s);
	gone = r == -ENOENT;
	if (r == 0) {
		r = put(&op, &s, pid, start);
		subject_put(st, &s);
		intent_done(&op);
	}
	r = op_end(&op, r, META_RECORDED, c);
	if (gone)
		r = intent_stale(st, who->tid, node, false);
	if (r == 0) /* now that it is written down: it may have ended meanwhile */
		st->hooks.watch(st->hooks_arg, pid, start);
	return r;
}

/* The lifetime of a process: the directory pid-PID of lifetimes/, made when it is asked for. */

static int check_owner(struct store *st, const struct caller *who, uint64_t lifetime, int32_t pid, uint64_t start)
{
	struct meta_object o;
	struct meta_binding b;
	int r = st->meta->ops->binding_get(st->meta, lifetime, &b);

	if (r < 0)
		return r == -ENOENT ? -EEXIST : r; /* it was taken from the process */
	r = st->meta->ops->object_get(st->meta, lifetime, &o);
	if (r == 0 && who->uid != 0 && o.uid != who->uid && b.pid == pid && b.start == start)
		r = -EACCES; /* the process was somebody else's when it was made */
	if (r < 0)
		return r;
	return b.pid == pid && b.start == start && b.boot_id == st->options.boot_id ? 0 : -EAGAIN;
}

static int make_own(struct op *op, const char *name, int32_t pid, uint64_t start)
{
	struct subject s = { 0 };
	int r = lifetime_make(op, name, &s.o);

	return r == 0 ? put(op, &s, pid, start) : r;
}

int store_lifetime_self(struct store *st, const struct caller *who, int32_t pid, char name[static META_NAME_MAX + 1])
{
	struct meta_dentry d;
	bool made = false;
	uint64_t start;
	struct op op;
	int r = st->hooks.identify(st->hooks_arg, who, pid, &start);

	if (r < 0)
		return r;
	snprintf(name, META_NAME_MAX + 1, "pid-%d", pid);
	op_begin(&op, st, who);
	r = st->meta->ops->dentry_get(st->meta, META_LIFETIMES, name, &d);
	if (r == 0) {
		r = check_owner(st, who, d.object, pid, start);
		if (r == -EAGAIN) { /* of an earlier process, which is known to have ended */
			r = expire(&op, d.object, "process", -EOWNERDEAD);
			made = r == 0;
		}
	} else if (r == -ENOENT) {
		r = 0;
		made = true;
	}
	if (r == 0 && made)
		r = make_own(&op, name, pid, start);
	r = op_end(&op, r, made ? META_RECORDED : META_READ, NULL);
	if (r == 0)
		st->hooks.watch(st->hooks_arg, pid, start);
	return r;
}

/* Ends */

struct bound {
	uint64_t objects[AT_ONCE];
	unsigned n;
};

static int gather(void *arg, const struct meta_binding *b)
{
	struct bound *l = arg;

	l->objects[l->n++] = b->object;
	return l->n == AT_ONCE;
}

static int end_some(struct store *st, int32_t pid, uint64_t start)
{
	struct bound l = { .n = 0 };
	char why[32];
	struct op op;
	int r;

	snprintf(why, sizeof(why), "process %d", pid);
	op_begin(&op, st, NULL);
	r = st->meta->ops->binding_of(st->meta, pid, start, gather, &l);
	for (unsigned i = 0; r >= 0 && i < l.n; i++) {
		r = expire(&op, l.objects[i], why, -EOWNERDEAD);
		r = r == -ENOENT ? 0 : r; /* it went with one of the others */
	}
	op_end(&op, r < 0 ? r : 0, l.n > 0 ? META_LATER : META_READ, NULL);
	return r < 0 ? r : l.n == AT_ONCE;
}

int store_process_ended(struct store *st, int32_t pid, uint64_t start)
{
	int r;

	do {
		r = end_some(st, pid, start);
	} while (r > 0);
	return r;
}

/* The start: who has ended meanwhile, and whom to watch. */

struct recorded_bindings {
	struct meta_binding b[AT_ONCE];
	unsigned n;
};

static int gather_recorded(void *arg, const struct meta_binding *b)
{
	struct recorded_bindings *l = arg;

	l->b[l->n++] = *b;
	return l->n == AT_ONCE;
}

static void resume(struct store *st, const struct meta_binding *b)
{
	if (b->boot_id == st->options.boot_id)
		st->hooks.watch(st->hooks_arg, b->pid, b->start);
	else
		store_process_ended(st, b->pid, b->start);
}

int bindings_start(struct store *st)
{
	struct recorded_bindings *l = calloc(1, sizeof(*l));
	uint64_t after = 0;
	struct op op;
	int r = l == NULL ? -ENOMEM : 1;

	while (r > 0) {
		l->n = 0;
		op_begin(&op, st, NULL);
		r = st->meta->ops->binding_list(st->meta, after, gather_recorded, l);
		op_end(&op, 0, META_READ, NULL);
		for (unsigned i = 0; i < l->n; i++) {
			after = l->b[i].object;
			resume(st, &l->b[i]);
		}
	}
	free(l);
	return r;
}

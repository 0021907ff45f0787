/* Leases: objects and lifetimes that end by themselves.
 *
 *  lease    given as            counts by
 *  boot     a duration          CLOCK_BOOTTIME, so setting the clock changes nothing; after a reboot what the wall clock
 *                               says is left
 *  time     a time              the wall clock
 *
 * One timer, for the soonest of all; the catalog has them in order. When many expire together it takes some time until
 * all of them are evicted, in slices; whoever looks one up meanwhile does not find it (lease_enforce), so no name is found
 * after its lease is over. The kernel keeps such a name no longer than that (entry.until). */
#include "core/internal.h"
#include "core/parse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LATEST (INT64_MAX - 86400 * NS_PER_SEC) /* later times cannot be told */
#define RETRY_NS 200000000LL
#define AT_ONCE 64 /* leases that end in one operation */
#define NEVER INT64_MAX

static int take_lease(void *arg, const struct meta_lease *l)
{
	*(struct meta_lease *)arg = *l;
	return 1;
}

/* When a lease expires, in boot time. */
static int64_t expiry(struct store *st, const struct meta_lease *l)
{
	int64_t at;

	if (l->boot != 0)
		return l->boot;
	return __builtin_add_overflow(timers_now() - store_now(st), l->expires, &at) ? NEVER : at;
}

/* 1: *l is the one that expires first, at *at; 0: there is none. */
static int soonest(struct store *st, struct meta_lease *l, int64_t *at)
{
	struct meta *m = st->meta;
	struct meta_lease timed;
	int boot = m->ops->lease_soonest(m, false, take_lease, l);
	int time = m->ops->lease_soonest(m, true, take_lease, &timed);

	if (boot < 0 || time < 0)
		return boot < 0 ? boot : time;
	if (time > 0 && (boot == 0 || expiry(st, &timed) < expiry(st, l)))
		*l = timed;
	if (boot + time > 0)
		*at = expiry(st, l);
	return boot + time > 0;
}

void leases_rearm(struct store *st)
{
	struct meta_lease l;
	int64_t at = NEVER;

	if (soonest(st, &l, &at) > 0) {
		st->lease_due = at;
		timer_arm(st->timers, &st->lease_timer, at);
	} else {
		st->lease_due = NEVER;
		timer_disarm(st->timers, &st->lease_timer);
	}
}

/* Ends that had come were taken back: not at once again, as most likely the disk is full. */
void leases_resume(struct store *st)
{
	leases_rearm(st);
	if (st->lease_due <= timers_now())
		timer_arm(st->timers, &st->lease_timer, timers_now() + RETRY_NS);
}

/* Setting */

/* The kernel may keep the names for longer than what they mean will be there from now on. Not those of a directory:
 * whoever works in there could not find out where he is any more. */
static int names_expire(struct op *op, uint64_t object)
{
	struct meta_object o;
	int r = op->st->meta->ops->object_get(op->st->meta, object, &o);

	if (r < 0)
		return r;
	return is_dir(&o) ? lifetime_names_expire(op, object) : names_invalidate(op, object);
}

/* `10s`, `+5s`, an RFC 3339 time. */
static int parse_lease(struct store *st, const char *text, struct meta_lease *l)
{
	bool extends = text[0] == '+' && l->expires != 0;
	int64_t ns, now = store_now(st);
	int r = parse_duration(text + (text[0] == '+'), &ns);

	if (r < 0 && text[0] == '+')
		return -EINVAL;
	if (r < 0) {
		l->boot = 0;
		return parse_time(text, &l->expires) < 0 ? -EINVAL : 0;
	}
	if (extends && l->boot == 0)
		return __builtin_add_overflow(l->expires, ns, &l->expires) || l->expires > LATEST ? -EINVAL : 0;
	if (__builtin_add_overflow(extends ? l->boot : timers_now(), ns, &l->boot) ||
	    __builtin_add_overflow(now, l->boot - timers_now(), &l->expires) || l->expires > LATEST)
		return -EINVAL;
	return 0;
}

/* before: the lease that it has had; zero if none. */
static int put(struct op *op, struct meta_lease *l, const struct meta_lease *before)
{
	bool sooner = before->object == 0 || expiry(op->st, l) < expiry(op->st, before);
	int r;

	l->boot_id = op->st->options.boot_id;
	r = op->st->meta->ops->lease_put(op->st->meta, l);
	if (r == 0)
		leases_rearm(op->st);
	return r == 0 && sooner ? names_expire(op, l->object) : r;
}

int lease_set(struct op *op, const struct subject *s, const char *text)
{
	struct meta *m = op->st->meta;
	const uint64_t id = subject_self(s)->id;
	struct meta_lease l, before = { 0 };
	int r = check_can_expire(op->st, op->who, s);

	if (r == 0 && strcmp(text, "none") == 0) {
		r = m->ops->lease_remove(m, id);
		leases_rearm(op->st);
		return r;
	}
	if (r < 0)
		return r;
	r = m->ops->lease_get(m, id, &before);
	if (r < 0 && r != -ENOENT)
		return r;
	l = before;
	l.object = id;
	r = parse_lease(op->st, text, &l);
	return r == 0 ? put(op, &l, &before) : r;
}

int lease_text(struct store *st, uint64_t object, char text[static 40])
{
	struct meta_lease l;
	int r = st->meta->ops->lease_get(st->meta, object, &l);

	if (r < 0)
		return r == -ENOENT ? -ENODATA : r;
	format_time(l.boot == 0 ? l.expires : store_now(st) + l.boot - timers_now(), text);
	return (int)strlen(text);
}

int store_lease_until(struct store *st, const struct caller *who, uint64_t node, int64_t wall, struct meta_commit *c)
{
	struct meta_lease l = { .expires = wall }, before = { 0 };
	struct meta_dentry d;
	struct subject s;
	struct op op;
	int r;

	op_begin(&op, st, who);
	r = subject_get_via(st, who->via, node, &s);
	if (r < 0)
		return op_end(&op, r, META_READ, NULL);
	l.object = subject_self(&s)->id;
	r = is_borrow(subject_self(&s)) ? 0 : lifetime_name(st, l.object, &d);
	subject_put(st, &s);
	if (r < 0)
		return op_end(&op, r, META_RECORDED, c);
	r = st->meta->ops->lease_get(st->meta, l.object, &before);
	if (r == 0 || r == -ENOENT)
		r = put(&op, &l, &before);
	return op_end(&op, r, META_RECORDED, c);
}

/* Expiring */

int lease_end(struct store *st, uint64_t object, int64_t *at)
{
	struct meta_lease l;
	int r = st->meta->ops->lease_get(st->meta, object, &l);

	*at = r == 0 ? expiry(st, &l) : NEVER;
	return r == -ENOENT ? 0 : r;
}

/* When o goes away by itself as far as leases say: its own, and those of the lifetimes that it is in. *by: whose it is. */
static int end_of(struct store *st, const struct meta_object *o, int64_t *at, uint64_t *by)
{
	uint64_t lifetime;
	int64_t with;
	int r = lease_end(st, o->id, at);

	*by = o->id;
	if (r == 0 && !is_dir(o))
		r = lifetimes_end(st, o->id, &with, &lifetime);
	else
		with = NEVER;
	if (r == 0 && with < *at) {
		*at = with;
		*by = lifetime;
	}
	return r;
}

static bool nothing_ends(struct store *st)
{
	bool ending;

	pthread_mutex_lock(&st->lock);
	ending = st->endings != NULL;
	pthread_mutex_unlock(&st->lock);
	return !ending && st->lease_due == NEVER;
}

static int evict_late(struct op *op, struct meta_object *o, uint64_t by)
{
	const struct caller *who = op->who;
	int r;

	op->who = NULL; /* it is not the doing of whoever looks */
	r = by == o->id || !lifetime_is_ending(op->st, by) ? expire(op, by, "lease", -ECANCELED) : 0;
	if (r == 0 && by != o->id)
		r = lifetime_evict_member(op, o->id, by);
	op->who = who;
	return r;
}

int lease_enforce(struct op *op, struct meta_object *o, int64_t *until)
{
	uint64_t by;
	int r;

	*until = 0;
	if (nothing_ends(op->st))
		return 0;
	r = end_of(op->st, o, until, &by);
	if (r < 0 || *until > timers_now()) {
		*until = *until == NEVER ? 0 : *until;
		return r;
	}
	r = evict_late(op, o, by);
	return r < 0 ? r : 1;
}

int lease_until(struct store *st, const struct meta_object *o, int64_t *until)
{
	uint64_t by;
	int r;

	*until = 0;
	if (nothing_ends(st))
		return 0;
	r = end_of(st, o, until, &by);
	if (*until == 0)
		*until = 1; /* it is ending */
	if (*until == NEVER)
		*until = 0;
	return r;
}

/* Those that are due, in order. */
struct due {
	struct store *st;
	int64_t now;
	uint64_t objects[AT_ONCE];
	unsigned n;
};

static int gather_due(void *arg, const struct meta_lease *l)
{
	struct due *d = arg;

	if (expiry(d->st, l) > d->now)
		return 1;
	d->objects[d->n++] = l->object;
	return d->n == AT_ONCE;
}

static int find_due(struct store *st, struct due *d)
{
	int r;

	*d = (struct due){ .st = st, .now = timers_now() };
	r = st->meta->ops->lease_soonest(st->meta, false, gather_due, d);
	if (r >= 0 && d->n < AT_ONCE)
		r = st->meta->ops->lease_soonest(st->meta, true, gather_due, d);
	return r < 0 ? r : 0;
}

/* True when there may be more that are due. */
static bool expire_some(struct store *st)
{
	struct due d;
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = find_due(st, &d);
	for (unsigned i = 0; r == 0 && i < d.n; i++) {
		r = expire(&op, d.objects[i], "lease", -ECANCELED);
		r = r == -ENOENT ? 0 : r; /* it went with another one */
	}
	if (r < 0)
		timer_arm(st->timers, &st->lease_timer, timers_now() + RETRY_NS); /* a full disk, most likely */
	else if (d.n < AT_ONCE)
		leases_rearm(st);
	op_end(&op, r, d.n > 0 ? META_LATER : META_READ, NULL);
	return r == 0 && d.n == AT_ONCE;
}

static void leases_due(struct timer *t)
{
	struct store *st = (struct store *)((char *)t - offsetof(struct store, lease_timer));

	if (expire_some(st))
		timer_arm(st->timers, t, timers_now()); /* others have their turn in between */
}

int leases_start(struct store *st)
{
	struct op op;
	int r;

	st->lease_timer.fire = leases_due;
	op_begin(&op, st, NULL);
	r = st->meta->ops->lease_rebase(st->meta, st->options.boot_id, store_now(st), timers_now());
	if (r == 0)
		leases_rearm(st);
	return op_end(&op, r, META_RECORDED, NULL);
}

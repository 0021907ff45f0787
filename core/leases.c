/* Leases: objects and lifetimes that end by themselves.
 *
 *  lease    given as            counts by
 *  boot     a duration          CLOCK_BOOTTIME, so setting the clock changes nothing; after a reboot what the wall clock
 *                               says is left
 *  time     a time              the wall clock
 *
 * One timer, for the soonest of all; the catalog has them in order. */
#include "core/internal.h"
#include "core/parse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LATEST (INT64_MAX - 86400 * NS_PER_SEC) /* later times cannot be told */
#define RETRY_NS 200000000LL
#define AT_ONCE 64 /* leases that end in one operation */

static int take_lease(void *arg, const struct meta_lease *l)
{
	*(struct meta_lease *)arg = *l;
	return 1;
}

/* When a lease expires, in boot time. */
static int64_t expiry(struct store *st, const struct meta_lease *l)
{
	return l->boot != 0 ? l->boot : timers_now() + l->expires - store_now(st);
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
	int64_t at;

	if (soonest(st, &l, &at) > 0)
		timer_arm(st->timers, &st->lease_timer, at);
	else
		timer_disarm(st->timers, &st->lease_timer);
}

/* Setting */

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

static int put(struct op *op, struct meta_lease *l)
{
	int r;

	l->boot_id = op->st->options.boot_id;
	r = op->st->meta->ops->lease_put(op->st->meta, l);
	if (r == 0)
		leases_rearm(op->st);
	return r;
}

int lease_set(struct op *op, const struct subject *s, const char *text)
{
	struct meta *m = op->st->meta;
	const uint64_t id = subject_self(s)->id;
	struct meta_lease l = { 0 };
	int r = check_can_expire(op->who, s);

	if (r == 0 && strcmp(text, "none") == 0) {
		r = m->ops->lease_remove(m, id);
		leases_rearm(op->st);
		return r;
	}
	if (r < 0)
		return r;
	r = m->ops->lease_get(m, id, &l);
	if (r < 0 && r != -ENOENT)
		return r;
	l.object = id;
	r = parse_lease(op->st, text, &l);
	return r == 0 ? put(op, &l) : r;
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
	struct meta_lease l = { .expires = wall };
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
	if (r == 0)
		r = put(&op, &l);
	return op_end(&op, r, META_RECORDED, c);
}

/* Expiring */

/* True when there may be more that are due. */
static bool expire_some(struct store *st)
{
	struct meta_lease l;
	unsigned n = 0;
	int64_t at;
	struct op op;
	int r = 0, due = 1;

	op_begin(&op, st, NULL);
	while (r >= 0 && n < AT_ONCE && (due = soonest(st, &l, &at)) > 0 && at <= timers_now()) {
		r = expire(&op, l.object, "lease", -ECANCELED);
		n += r >= 0;
	}
	if (r < 0)
		timer_arm(st->timers, &st->lease_timer, timers_now() + RETRY_NS); /* a full disk, most likely */
	else if (n < AT_ONCE)
		leases_rearm(st);
	op_end(&op, r < 0 ? r : due < 0 ? due : 0, n > 0 ? META_LATER : META_READ, NULL);
	return r >= 0 && n == AT_ONCE;
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

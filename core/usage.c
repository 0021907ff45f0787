/* How much of what is limited (limit_rule.c) each user has. Root and the user whom the daemon belongs to are not
 * counted: they could end it anyway.
 *
 * What lives as long as a descriptor or a request is counted by whoever has these (store_take, store_give). Handles and
 * lifetimes are recorded: they are counted when the store is opened and after operations were taken back, in between
 * by each name that comes and goes in their directories, which is seen here on its way to the catalog, so no place that
 * makes or removes one can forget it. */
#include "core/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct usage {
	uint32_t uid;
	uint64_t have[LIMITED_COUNT];
	UT_hash_handle hh;
};

/* usage_lock held. */
static struct usage *usage_of(struct store *st, uint32_t uid, bool add)
{
	struct usage *u;

	HASH_FIND(hh, st->usages, &uid, sizeof(uid), u);
	if (u == NULL && add && (u = calloc(1, sizeof(*u))) != NULL) {
		u->uid = uid;
		HASH_ADD(hh, st->usages, uid, sizeof(u->uid), u);
	}
	return u;
}

/* usage_lock held. */
static void drop_empty(struct store *st, struct usage *u)
{
	for (int i = 0; i < LIMITED_COUNT; i++)
		if (u->have[i] > 0)
			return;
	HASH_DELETE(hh, st->usages, u);
	free(u);
}

static void add(struct store *st, enum limited what, uint32_t uid, bool more)
{
	struct usage *u;

	if (store_is_host(st, uid))
		return;
	pthread_mutex_lock(&st->usage_lock);
	u = usage_of(st, uid, more);
	if (u != NULL && more)
		u->have[what]++;
	else if (u != NULL && u->have[what] > 0)
		u->have[what]--;
	if (u != NULL && !more)
		drop_empty(st, u);
	pthread_mutex_unlock(&st->usage_lock);
}

int store_take(struct store *st, enum limited what, uint32_t uid)
{
	struct usage *u;
	int r;

	if (store_is_host(st, uid))
		return 0;
	pthread_mutex_lock(&st->usage_lock);
	u = usage_of(st, uid, true);
	r = u == NULL ? -ENOMEM : limit_rule(what, st->options.max[what], u->have[what]);
	if (r == 0)
		u->have[what]++;
	pthread_mutex_unlock(&st->usage_lock);
	return r;
}

void store_give(struct store *st, enum limited what, uint32_t uid)
{
	add(st, what, uid, false);
}

int usage_check(struct store *st, enum limited what, uint32_t uid)
{
	struct usage *u;
	int r;

	if (store_is_host(st, uid))
		return 0;
	pthread_mutex_lock(&st->usage_lock);
	u = usage_of(st, uid, false);
	r = limit_rule(what, st->options.max[what], u != NULL ? u->have[what] : 0);
	pthread_mutex_unlock(&st->usage_lock);
	return r;
}

/* What names in a directory are; LIMITED_COUNT: nothing that is counted. */
static enum limited kind_in(uint64_t parent)
{
	if (parent == META_LIFETIMES)
		return LIMITED_LIFETIMES;
	return parent >= META_OWN && parent <= META_MUT ? LIMITED_HANDLES : LIMITED_COUNT;
}

int usage_check_in(struct store *st, uint64_t parent, uint32_t uid)
{
	enum limited what = kind_in(parent);

	return what == LIMITED_COUNT ? 0 : usage_check(st, what, uid);
}

static int first_parent(void *arg, const struct meta_dentry *d)
{
	*(uint64_t *)arg = d->parent;
	return 1;
}

int usage_chown(struct store *st, const struct meta_object *o, uint32_t before)
{
	uint64_t parent = 0;
	int r;

	if (o->uid == before)
		return 0;
	r = st->meta->ops->dentry_names(st->meta, o->id, first_parent, &parent);
	if (r < 0 || kind_in(parent) == LIMITED_COUNT)
		return r < 0 ? r : 0;
	add(st, kind_in(parent), before, false);
	add(st, kind_in(parent), o->uid, true);
	return 0;
}

/* On the way to the catalog */

static const struct meta_ops *engine; /* what is behind */
static struct meta_ops counting;

static void count_name(struct meta *m, uint64_t parent, uint64_t object, bool more)
{
	struct store *st = m->on_rollback_arg;
	struct meta_object o;

	if (engine->object_get(m, object, &o) == 0)
		add(st, kind_in(parent), o.uid, more);
}

static int counting_insert(struct meta *m, uint64_t parent, const char *name, uint64_t object)
{
	int r = engine->dentry_insert(m, parent, name, object);

	if (r == 0 && kind_in(parent) != LIMITED_COUNT)
		count_name(m, parent, object, true);
	return r;
}

static int counting_delete(struct meta *m, const struct meta_dentry *d)
{
	int r = engine->dentry_delete(m, d);

	if (r == 0 && kind_in(d->parent) != LIMITED_COUNT)
		count_name(m, d->parent, d->object, false);
	return r;
}

static int counting_set(struct meta *m, const struct meta_dentry *d, uint64_t object)
{
	int r = engine->dentry_set(m, d, object);

	if (r == 0 && kind_in(d->parent) != LIMITED_COUNT) {
		count_name(m, d->parent, d->object, false);
		count_name(m, d->parent, object, true);
	}
	return r;
}

/* All over */

static int recount_one(void *arg, const struct meta_dentry *d)
{
	count_name(((struct store *)arg)->meta, d->parent, d->object, true);
	return 0;
}

int usage_recount(struct store *st)
{
	static const uint64_t parents[] = { META_OWN, META_REF, META_MUT, META_LIFETIMES };
	struct usage *u, *tmp;
	int r = 0;

	pthread_mutex_lock(&st->usage_lock);
	HASH_ITER(hh, st->usages, u, tmp) {
		u->have[LIMITED_HANDLES] = u->have[LIMITED_LIFETIMES] = 0;
		drop_empty(st, u);
	}
	pthread_mutex_unlock(&st->usage_lock);
	for (size_t i = 0; r == 0 && i < sizeof(parents) / sizeof(parents[0]); i++)
		r = st->meta->ops->dentry_list(st->meta, parents[i], 0, recount_one, st);
	return r < 0 ? r : 0;
}

void usage_start(struct store *st)
{
	engine = st->meta->ops;
	counting = *engine;
	counting.dentry_insert = counting_insert;
	counting.dentry_delete = counting_delete;
	counting.dentry_set = counting_set;
	st->meta->on_rollback_arg = st;
	st->meta->ops = &counting;
}

int usage_count(struct store *st)
{
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = usage_recount(st);
	op_end(&op, 0, META_READ, NULL);
	return r;
}

void usage_forget_all(struct store *st)
{
	struct usage *u, *tmp;

	HASH_ITER(hh, st->usages, u, tmp) {
		HASH_DELETE(hh, st->usages, u);
		free(u);
	}
}

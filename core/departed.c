/* What is no directory, has no name any more, and is still known to the kernel: a FIFO or a device that is open, what is
 * open with O_PATH. fstat(2) of it answers as everywhere, with a link count of 0. (Directories, and regular files that
 * are open, are in memory as objects.) One is kept until the kernel forgets it. What the kernel never knew, as it was
 * removed by the end of a lifetime, it never forgets, so there is a limit. */
#include "core/internal.h"

#include <errno.h>
#include <stdlib.h>

#define DEPARTED_MAX 4096

/* store->lock held. */
static void forget(struct store *st, struct departed *d)
{
	HASH_DELETE(hh, st->departed, d);
	DL_DELETE(st->departed_order, d);
	atomic_fetch_sub(&st->departed_count, 1);
	kept_give(st, KEPT_DEPARTED, d);
}

void departed_add(struct store *st, const struct meta_object *o)
{
	struct departed *d = kept_take(st, KEPT_DEPARTED), *old;

	if (d == NULL)
		return;
	*d = (struct departed){ .node = o->vid, .row = *o };
	d->row.nlink = 0;
	kept_live(st, d);
	pthread_mutex_lock(&st->lock);
	HASH_FIND(hh, st->departed, &d->node, sizeof(d->node), old); /* it was back in between */
	if (old == NULL && HASH_COUNT(st->departed) == DEPARTED_MAX)
		old = st->departed_order;
	if (old != NULL)
		forget(st, old);
	HASH_ADD(hh, st->departed, node, sizeof(d->node), d);
	DL_APPEND(st->departed_order, d);
	atomic_fetch_add(&st->departed_count, 1);
	pthread_mutex_unlock(&st->lock);
}

int departed_get(struct store *st, uint64_t node, struct meta_object *o)
{
	struct departed *d;

	pthread_mutex_lock(&st->lock);
	HASH_FIND(hh, st->departed, &node, sizeof(node), d);
	if (d != NULL)
		*o = d->row;
	pthread_mutex_unlock(&st->lock);
	return d != NULL ? 0 : -ENOENT;
}

int departed_put(struct store *st, uint64_t node, const struct meta_object *o)
{
	struct departed *d;

	pthread_mutex_lock(&st->lock);
	HASH_FIND(hh, st->departed, &node, sizeof(node), d);
	if (d != NULL)
		d->row = *o;
	pthread_mutex_unlock(&st->lock);
	return d != NULL ? 0 : -ENOENT;
}

void departed_forget(struct store *st, uint64_t node)
{
	struct departed *d;

	if (atomic_load(&st->departed_count) == 0)
		return;
	pthread_mutex_lock(&st->lock);
	HASH_FIND(hh, st->departed, &node, sizeof(node), d);
	if (d != NULL)
		forget(st, d);
	pthread_mutex_unlock(&st->lock);
}

void departed_forget_all(struct store *st)
{
	while (st->departed_order != NULL)
		forget(st, st->departed_order);
}

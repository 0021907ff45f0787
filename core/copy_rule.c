/* The table:
 *
 *  row                          mounted          not mounted
 *  ready, published             whole            whole
 *  ready, live                  live             live
 *  ready, torn bytes            whole            whole, or by the number of the draft that it was
 *  draft, sealed                sealed           draft
 *  draft, fsynced only          synced           draft
 *  draft                        -                draft
 *  garbage                      -                -
 */
#include "core/copy_rule.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

struct gathering {
	struct meta *m;
	bool online;
	struct needed *at;
	size_t n, capacity;
};

static struct needed *more(struct gathering *g)
{
	if (g->n == g->capacity) {
		size_t capacity = g->capacity == 0 ? 256 : g->capacity * 2;
		struct needed *p = realloc(g->at, capacity * sizeof(*p));

		if (p == NULL)
			return NULL;
		g->at = p;
		g->capacity = capacity;
	}
	return &g->at[g->n++];
}

static int add_object(void *arg, const struct meta_object *o)
{
	struct needed *n;

	if (!S_ISREG(o->mode) || o->state != OBJECT_READY)
		return 0;
	n = more(arg);
	if (n == NULL)
		return -ENOMEM;
	*n = (struct needed){ .need = o->live ? NEED_LIVE : NEED_WHOLE, .object = o->id, .vid = o->vid, .size = o->size };
	return 0;
}

static int add_draft(void *arg, const struct meta_draft *d)
{
	struct gathering *g = arg;
	struct needed *n;

	if (g->online && !d->sealed && !d->fsynced)
		return 0;
	n = more(g);
	if (n == NULL)
		return -ENOMEM;
	*n = (struct needed){ .need = !g->online ? NEED_DRAFT : d->sealed ? NEED_SEALED : NEED_SYNCED, .object = d->object,
			      .vid = d->vid, .size = d->size, .mtime = d->mtime };
	return 0;
}

static int by_object(const void *key, const void *needed)
{
	uint64_t id = *(const uint64_t *)key, other = ((const struct needed *)needed)->object;

	return (id > other) - (id < other);
}

/* Objects were added in the order of their numbers. */
static int add_torn(void *arg, const struct meta_aborted *a)
{
	struct gathering *g = arg;
	struct needed *n = g->n == 0 ? NULL : bsearch(&a->object, g->at, g->n, sizeof(*n), by_object);

	if (n != NULL)
		n->instead = a->draft;
	return 0;
}

int store_needed_files(struct meta *m, bool online, int (*fn)(void *arg, const struct needed *n), void *arg)
{
	struct gathering g = { .m = m, .online = online };
	int r = m->ops->object_scan(m, add_object, &g);

	if (r == 0)
		r = m->ops->aborted_list(m, add_torn, &g);
	if (r == 0)
		r = m->ops->draft_list(m, add_draft, &g);
	for (size_t i = 0; r == 0 && i < g.n; i++)
		r = fn(arg, &g.at[i]);
	free(g.at);
	return r;
}

/* Data files that nobody needs any more: removed by a thread, many at a time, once that survives power loss.
 *
 * An operation that replaces or evicts a version records its file as garbage. If the file went away at once and the
 * power failed, the catalog could come back without that operation: with a version, perhaps one that was fsynced, and
 * no file. So the thread waits a moment for company, makes the catalog durable, once for all of them, and removes the
 * files then. Where the version was durable and its replacement is not, the replacement's bytes are synced first: what
 * was fsynced may be replaced, but never lost.
 *
 * While a backup copies the store (blobs->ops->held), everything stays: what its catalog speaks of must be there. It is
 * looked again every half second.
 *
 * When a file holds much of what space there is left, it is not waited for company, and whoever removed it is told only
 * when the space is free again. */
#include "core/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define COMPANY_NS 500000000LL
#define COMPANY_MAX 4096  /* files; more are not waited for */
#define FORGET_AT_ONCE 64
#define TURN_US 100
#define TURNS_MAX 10
#define SCARCE_PART 4     /* of the free space */
#define SCARCE_MIN 65536  /* smaller files never matter */

struct removal {
	uint64_t vid;
	uint64_t replaced; /* the object that has another version instead; 0: none, or nobody minds if it is lost */
	int64_t size;
	struct meta_commit *user; /* to be told when the file is gone; NULL: nobody */
	bool loose; /* nobody has it open, and we do not keep it open */
	struct removal *next;
};

struct garbage {
	struct store *st;
	pthread_t thread;
	pthread_mutex_t lock; /* guards the rest; taken last, with nothing inside */
	pthread_cond_t cond;  /* both ways: there is work, there is none */
	struct removal *list;
	struct removal *later; /* what a backup still needs */
	unsigned count;
	bool urgent, busy, stop, started;
	atomic_bool unsynced; /* what was adopted is in the list: nobody knows what has replaced it */
};

int op_remove_data(struct op *op, const struct meta_object *o, bool replaced)
{
	struct removal *rm = calloc(1, sizeof(*rm));
	struct aftermath *a = op_after(op);
	struct version *v;
	int r = rm == NULL || a == NULL ? -ENOMEM : op->st->meta->ops->garbage_add(op->st->meta, o->vid);

	if (r < 0) {
		free(rm);
		return r;
	}
	*rm = (struct removal){ .vid = o->vid, .size = o->size, .replaced = replaced && o->durable ? o->id : 0 };
	LL_PREPEND(a->removals, rm);
	pthread_mutex_lock(&op->st->lock);
	v = version_find(op->st, o->vid);
	if (v != NULL)
		v->opens++; /* until garbage_take: the last one to let go removes the file */
	pthread_mutex_unlock(&op->st->lock);
	return 0;
}

/* Gives up the hold that op_remove_data took on a version in use. */
static struct version_end let_go(struct store *st, uint64_t vid, bool remove)
{
	struct version_end end = { .fd = -1, .remove = remove ? vid : 0 };
	struct version *v;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, vid);
	if (v != NULL) {
		v->unlinked_data = remove;
		end = version_put(st, v);
	}
	pthread_mutex_unlock(&st->lock);
	return end;
}

static bool is_scarce(struct store *st, const struct removal *list)
{
	const struct removal *rm;
	int64_t size = 0;

	LL_FOREACH(list, rm)
		size += rm->size;
	return size > SCARCE_MIN && size > st->blobs->ops->space(st->blobs) / SCARCE_PART;
}

bool garbage_take(struct store *st, struct removal *list, struct meta_commit *user)
{
	struct garbage *g = st->garbage;
	struct removal *rm, *next;
	bool scarce, stopped;

	if (list == NULL)
		return false;
	scarce = is_scarce(st, list);
	pthread_mutex_lock(&g->lock);
	stopped = g->stop;
	if (stopped) {
		pthread_mutex_unlock(&g->lock);
		garbage_keep(st, list);
		return false;
	}
	list->user = scarce ? user : NULL;
	LL_FOREACH_SAFE(list, rm, next) {
		LL_PREPEND(g->list, rm);
		g->count++;
	}
	g->urgent = g->urgent || scarce;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
	return scarce;
}

int garbage_adopt(struct store *st, const uint64_t *vids, size_t n)
{
	struct removal *list = NULL, *rm;
	struct version *v;

	for (size_t i = 0; i < n; i++) {
		rm = calloc(1, sizeof(*rm));
		if (rm == NULL)
			break; /* it stays recorded */
		pthread_mutex_lock(&st->lock);
		v = version_find(st, vids[i]);
		if (v != NULL)
			v->opens++;
		pthread_mutex_unlock(&st->lock);
		*rm = (struct removal){ .vid = vids[i], .loose = v == NULL };
		LL_PREPEND(list, rm);
	}
	st->garbage->unsynced = list != NULL;
	garbage_take(st, list, NULL);
	pthread_mutex_lock(&st->garbage->lock);
	st->garbage->urgent = list != NULL; /* it has waited for company already, and processes may not last that long */
	pthread_cond_broadcast(&st->garbage->cond);
	pthread_mutex_unlock(&st->garbage->lock);
	return 0;
}

void garbage_keep(struct store *st, struct removal *list)
{
	struct removal *rm, *next;

	LL_FOREACH_SAFE(list, rm, next) {
		if (!rm->loose)
			version_end(st, let_go(st, rm->vid, false));
		free(rm);
	}
}

/* The bytes that an object has now survive power loss. */
static int sync_current(struct store *st, uint64_t object)
{
	struct meta *m = st->meta;
	struct meta_object o;
	uint64_t vid;
	struct op op;
	int fd, r;

	op_begin(&op, st, NULL);
	r = m->ops->object_get(m, object, &o);
	op_end(&op, 0, META_READ, NULL);
	if (r < 0 || o.state != OBJECT_READY || o.durable)
		return r == -ENOENT ? 0 : r;
	vid = o.vid;
	fd = st->blobs->ops->open(st->blobs, vid);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd; /* replaced meanwhile, and that one is in a list, too */
	r = st->blobs->ops->sync(st->blobs, fd);
	close(fd);
	op_begin(&op, st, NULL);
	if (r == 0 && m->ops->object_get(m, object, &o) == 0 && o.vid == vid) {
		o.durable = true;
		r = m->ops->object_update(m, &o);
	}
	return op_end(&op, r, META_LATER, NULL);
}

static int make_durable(struct store *st, struct removal *list)
{
	struct removal *rm;
	int r = 0;

	if (atomic_exchange(&st->garbage->unsynced, false))
		r = st->blobs->ops->sync_all(st->blobs);
	LL_FOREACH(list, rm)
		if (r == 0 && rm->replaced != 0)
			r = sync_current(st, rm->replaced);
	return r == 0 ? record_now(st, META_DURABLE) : r;
}

/* Whoever sleeps until he gets the catalog comes too late when we take it again at once. */
static void let_others_in(struct store *st)
{
	give_way();
	for (unsigned i = 0; i < TURNS_MAX && st->meta->ops->contended(st->meta); i++)
		usleep(TURN_US);
}

/* A few at a time: others want the catalog, too. */
static void forget_removed(struct store *st, struct removal *rm)
{
	struct op op;
	int r = 0;

	while (r == 0 && rm != NULL) {
		op_begin(&op, st, NULL);
		for (unsigned n = 0; r == 0 && rm != NULL && n < FORGET_AT_ONCE; n++, rm = rm->next)
			if (rm->vid != 0)
				r = st->meta->ops->garbage_remove(st->meta, rm->vid);
		op_end(&op, r, META_LATER, NULL);
		let_others_in(st);
	}
}

/* Was it published after all, as the record of its removal was taken back? */
static bool is_published(struct store *st, uint64_t vid)
{
	struct meta_object o;
	int r = object_of_version(st, vid, &o);

	return r != -ENOENT && (r < 0 || o.state == OBJECT_READY);
}

/* What cannot be made durable stays where it is: it is recorded as garbage, and the next start tries again. */
static void remove_all(struct store *st, struct removal *list, int result)
{
	struct removal *rm;

	LL_FOREACH(list, rm) {
		struct version_end end = { .fd = -1, .remove = result == 0 ? rm->vid : 0 };

		if (!rm->loose)
			end = let_go(st, rm->vid, result == 0);
		else if (end.remove != 0 && is_published(st, rm->vid))
			end.remove = 0;
		if (end.fd >= 0)
			close(end.fd);
		if (end.remove == 0 || st->blobs->ops->remove(st->blobs, end.remove) < 0)
			rm->vid = 0; /* in use, or it stays recorded */
		give_way();
	}
	forget_removed(st, list);
}

static void finish(struct removal *list)
{
	struct removal *rm, *next;

	LL_FOREACH_SAFE(list, rm, next) {
		if (rm->user != NULL)
			rm->user->done(rm->user, 0);
		free(rm);
	}
}

/* g->lock held. */
static void wait_for_company(struct garbage *g)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += COMPANY_NS;
	until.tv_sec += until.tv_nsec / NS_PER_SEC;
	until.tv_nsec %= NS_PER_SEC;
	while (!g->stop && !g->urgent && g->count < COMPANY_MAX)
		if (pthread_cond_timedwait(&g->cond, &g->lock, &until) == ETIMEDOUT)
			return;
}

/* Nobody is kept waiting for the space. At the end it stays recorded, and the next start removes it. */
static void put_off(struct garbage *g, struct removal *list)
{
	struct removal *rm, *next;

	LL_FOREACH(list, rm)
		if (rm->user != NULL) {
			rm->user->done(rm->user, 0);
			rm->user = NULL;
		}
	pthread_mutex_lock(&g->lock);
	if (!g->stop) {
		LL_FOREACH_SAFE(list, rm, next)
			LL_PREPEND(g->later, rm);
		list = NULL;
	}
	pthread_mutex_unlock(&g->lock);
	garbage_keep(g->st, list);
}

bool garbage_put_off(struct store *st, uint64_t vid)
{
	struct garbage *g = st->garbage;
	struct removal *rm;
	bool stopped;

	if (!st->blobs->ops->held(st->blobs))
		return false;
	rm = calloc(1, sizeof(*rm));
	pthread_mutex_lock(&g->lock);
	stopped = g->stop;
	if (rm != NULL && !stopped) {
		*rm = (struct removal){ .vid = vid, .loose = true };
		LL_PREPEND(g->later, rm);
		pthread_cond_broadcast(&g->cond);
	}
	pthread_mutex_unlock(&g->lock);
	if (stopped)
		free(rm);
	return true;
}

static void *garbage_main(void *arg)
{
	struct garbage *g = arg;

	pthread_mutex_lock(&g->lock);
	while (!g->stop || g->list != NULL || g->later != NULL) {
		struct removal *list;
		int r;

		if (g->list == NULL && g->later == NULL) {
			pthread_cond_wait(&g->cond, &g->lock);
			continue;
		}
		wait_for_company(g);
		list = g->list;
		LL_CONCAT(list, g->later);
		g->list = g->later = NULL;
		g->count = 0;
		g->busy = true;
		g->urgent = false;
		pthread_mutex_unlock(&g->lock);
		r = make_durable(g->st, list);
		if (g->st->blobs->ops->held(g->st->blobs)) {
			put_off(g, list);
		} else {
			remove_all(g->st, list, r);
			finish(list);
		}
		pthread_mutex_lock(&g->lock);
		g->busy = false;
		pthread_cond_broadcast(&g->cond);
	}
	pthread_mutex_unlock(&g->lock);
	return NULL;
}

void garbage_empty(struct store *st)
{
	struct garbage *g = st->garbage;

	pthread_mutex_lock(&g->lock);
	while (g->busy || g->list != NULL) {
		g->urgent = true;
		pthread_cond_broadcast(&g->cond);
		pthread_cond_wait(&g->cond, &g->lock);
	}
	pthread_mutex_unlock(&g->lock);
}

int garbage_start(struct store *st)
{
	struct garbage *g = calloc(1, sizeof(*g));
	pthread_condattr_t attr;
	int r;

	if (g == NULL)
		return -ENOMEM;
	g->st = st;
	st->garbage = g;
	pthread_mutex_init(&g->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&g->cond, &attr);
	pthread_condattr_destroy(&attr);
	r = pthread_create(&g->thread, NULL, garbage_main, g);
	if (r != 0)
		return -r;
	g->started = true;
	pthread_setname_np(g->thread, "garbage");
	return 0;
}

void garbage_stop(struct store *st)
{
	struct garbage *g = st->garbage;

	if (g == NULL || !g->started)
		return;
	record_now(st, META_RECORDED); /* what is under way comes here, too */
	pthread_mutex_lock(&g->lock);
	g->stop = true;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
	pthread_join(g->thread, NULL);
	g->started = false;
}

void garbage_free(struct store *st)
{
	struct garbage *g = st->garbage;

	if (g == NULL)
		return;
	garbage_stop(st);
	pthread_mutex_destroy(&g->lock);
	pthread_cond_destroy(&g->cond);
	free(g);
	st->garbage = NULL;
}

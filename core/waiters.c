/* Who waits for what. A waiter holds no thread: it is a record in a list, and a function to call.
 *
 * A waiter is listed under the catalog and store->lock together with the look at what it waits for, and whoever
 * changes that does so under the catalog too, so no wake-up is lost. Waking means "ask again": the waiter is taken off
 * its list and asks the rule of opening anew, and is listed again if the answer is still to wait. */
#include "core/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *absent_key(uint64_t parent, const char *name)
{
	char *key;

	return asprintf(&key, "%llu/%s", (unsigned long long)parent, name) < 0 ? NULL : key;
}

/* Before it is listed: when will its time be up? What a user allows is for the open as a whole, however often that asks
 * again; -ETIMEDOUT: it is over already. store->lock held. */
static int limit_begin(struct store *st, struct waiter *w, const struct wait_limit *limit)
{
	const bool users = limit == &st->wait_limit;
	const int64_t now = timers_now();
	const int64_t ns = limit == NULL ? -1 : users && w->limited ? w->patience : limit->ns;

	if (w->began == 0)
		w->began = now;
	w->until = ns < 0 ? INT64_MAX : (users ? w->began : now) + ns;
	return users && w->until <= now ? -ETIMEDOUT : 0;
}

/* Most come with the same limit, so its place is at the end or near it. store->lock held. */
static void limit_add(struct wait_limit *limit, struct waiter *w)
{
	struct waiter *last = limit != NULL && limit->waiters != NULL ? limit->waiters->limit_prev : NULL;

	if (limit == NULL || w->until == INT64_MAX)
		return;
	w->limit = limit;
	while (last != NULL && last->until > w->until)
		last = last == limit->waiters ? NULL : last->limit_prev;
	DL_APPEND_ELEM2(limit->waiters, last, w, limit_prev, limit_next); /* NULL: as the first */
	if (limit->waiters == w)
		timer_arm(limit->st->timers, &limit->timer, w->until);
}

static void limit_remove(struct waiter *w)
{
	if (w->limit == NULL)
		return;
	DL_DELETE2(w->limit->waiters, w, limit_prev, limit_next);
	w->limit = NULL; /* the timer may fire for nothing, and arms itself for the next one */
}

static void list_in_all(struct store *st, struct waiter *w, struct wait_limit *limit)
{
	w->listed = true;
	w->waking = false;
	if (w->since == 0)
		w->since = store_now(st);
	DL_APPEND2(st->all_waiters, w, all_prev, all_next);
	if (w->tid != 0 && !w->lingers)
		HASH_ADD(by_tid, st->waiting_threads, tid, sizeof(w->tid), w);
	st->counts.waiters++;
	limit_add(limit, w);
}

int waiter_list(struct store *st, struct waiter *w, struct object *obj, struct wait_limit *limit)
{
	int r = w->cancelled ? -EINTR : limit_begin(st, w, limit);

	if (r < 0)
		return r;
	w->object = obj;
	w->object_id = obj->id;
	obj->refs++;
	if (w->heir)
		DL_PREPEND(obj->waiters, w); /* he keeps his place */
	else
		DL_APPEND(obj->waiters, w);
	if (w->heir && obj->heir == w) {
		obj->heir = NULL;
		object_unref(st, obj); /* whoever calls this has one, too */
	}
	w->heir = false;
	list_in_all(st, w, limit);
	return STORE_WAITING;
}

static struct absent *absent_find(struct store *st, uint64_t parent, const char *name)
{
	struct absent *ab = NULL;
	char *key = absent_key(parent, name);

	if (key != NULL)
		HASH_FIND_STR(st->absents, key, ab);
	free(key);
	return ab;
}

static struct absent *absent_get(struct store *st, uint64_t parent, const char *name)
{
	struct absent *ab = absent_find(st, parent, name);

	if (ab != NULL)
		return ab;
	ab = calloc(1, sizeof(*ab));
	if (ab == NULL || (ab->key = absent_key(parent, name)) == NULL) {
		free(ab);
		return NULL;
	}
	HASH_ADD_KEYPTR(hh, st->absents, ab->key, strlen(ab->key), ab);
	return ab;
}

static void absent_drop_empty(struct store *st, struct absent *ab)
{
	if (ab->waiters != NULL)
		return;
	HASH_DELETE(hh, st->absents, ab);
	free(ab->key);
	free(ab);
}

int waiter_list_absent(struct store *st, struct waiter *w, uint64_t parent, const char *name)
{
	struct wait_limit *limit = w->lingers ? NULL : &st->wait_limit;
	int r = w->cancelled ? -EINTR : limit_begin(st, w, limit);
	struct absent *ab;

	if (r < 0)
		return r;
	w->name = strdup(name);
	ab = w->name != NULL ? absent_get(st, parent, name) : NULL;
	if (ab == NULL) {
		free(w->name);
		w->name = NULL;
		return -ENOMEM;
	}
	w->parent = parent;
	w->object = NULL;
	DL_APPEND(ab->waiters, w);
	list_in_all(st, w, limit);
	return STORE_WAITING;
}

void waiter_unlist(struct store *st, struct waiter *w)
{
	if (w->object != NULL) {
		DL_DELETE(w->object->waiters, w);
		object_unref(st, w->object);
		w->object = NULL;
	} else {
		struct absent *ab = absent_find(st, w->parent, w->name);

		DL_DELETE(ab->waiters, w);
		absent_drop_empty(st, ab);
		free(w->name);
		w->name = NULL;
	}
	DL_DELETE2(st->all_waiters, w, all_prev, all_next);
	if (w->tid != 0 && !w->lingers)
		HASH_DELETE(by_tid, st->waiting_threads, w);
	st->counts.waiters--;
	w->listed = false;
	limit_remove(w);
}

/* current: what its object has just been published as, or NULL. A handle takes it at once: it might be replaced
 * before it is asked again. */
static void move_to_woken(struct op *op, struct waiter *w, int r, struct version *current)
{
	waiter_unlist(op->st, w);
	w->result = r;
	w->waking = true;
	if (w->lingers && r == 0 && current != NULL && !w->takes && !current->object->evict)
		handle_take(w, current);
	DL_APPEND(op->woken, w);
}

/* Up to and with the first one who will take it; who waits behind him is told when he has. store->lock held. */
static void wake_in_order(struct op *op, struct object *obj, int r)
{
	struct waiter *w, *tmp;

	if (r == 0 && obj->heir != NULL)
		return;
	DL_FOREACH_SAFE(obj->waiters, w, tmp) {
		bool takes = w->takes || (obj->evict && !w->writes);

		if (r == 0 && takes && obj->current != NULL) {
			w->heir = true;
			obj->heir = w;
			obj->refs++; /* as long as he is */
		}
		move_to_woken(op, w, r, obj->current);
		if (obj->heir == w)
			break;
	}
}

void waiters_wake(struct op *op, struct object *obj, int r)
{
	pthread_mutex_lock(&op->st->lock);
	obj->refs++; /* the last waiter would take it away */
	wake_in_order(op, obj, r);
	object_unref(op->st, obj);
	pthread_mutex_unlock(&op->st->lock);
}

void waiters_wake_id(struct op *op, uint64_t id, int r)
{
	struct store *st = op->st;
	struct object *obj;

	pthread_mutex_lock(&st->lock);
	obj = object_find(st, id);
	if (obj != NULL)
		obj->refs++;
	pthread_mutex_unlock(&st->lock);
	if (obj == NULL)
		return; /* nobody waits for what is not in memory */
	waiters_wake(op, obj, r);
	pthread_mutex_lock(&st->lock);
	object_unref(st, obj);
	pthread_mutex_unlock(&st->lock);
}

/* store->lock held. */
static void wake_absent(struct op *op, struct absent *ab)
{
	struct waiter *w, *tmp, *list = ab->waiters;

	DL_FOREACH_SAFE(list, w, tmp)
		move_to_woken(op, w, 0, NULL); /* frees ab with the last one */
}

void waiters_wake_absent(struct op *op, uint64_t parent, const char *name)
{
	struct absent *ab;

	pthread_mutex_lock(&op->st->lock);
	ab = op->st->absents != NULL ? absent_find(op->st, parent, name) : NULL;
	if (ab != NULL)
		wake_absent(op, ab);
	pthread_mutex_unlock(&op->st->lock);
}

void waiters_wake_absents(struct op *op)
{
	struct absent *ab, *tmp;

	pthread_mutex_lock(&op->st->lock);
	HASH_ITER(hh, op->st->absents, ab, tmp)
		wake_absent(op, ab);
	pthread_mutex_unlock(&op->st->lock);
}

void waiters_run(struct waiter *list)
{
	struct waiter *w, *tmp;

	DL_FOREACH_SAFE(list, w, tmp) {
		DL_DELETE(list, w);
		w->wake(w, w->result);
	}
}

bool store_cancel_wait(struct store *st, struct waiter *w)
{
	bool listed;

	pthread_mutex_lock(&st->lock);
	listed = w->listed;
	if (listed)
		waiter_unlist(st, w);
	else
		w->cancelled = true;
	pthread_mutex_unlock(&st->lock);
	return listed;
}

static void time_is_up(struct timer *t)
{
	struct wait_limit *limit = (struct wait_limit *)((char *)t - offsetof(struct wait_limit, timer));
	struct store *st = limit->st;
	struct waiter *woken = NULL, *w;
	int64_t now = timers_now();

	pthread_mutex_lock(&st->lock);
	while ((w = limit->waiters) != NULL && w->until <= now) {
		waiter_unlist(st, w);
		w->result = limit->result;
		w->waking = true;
		w->impatient = true;
		DL_APPEND(woken, w);
	}
	if (w != NULL)
		timer_arm(st->timers, t, w->until);
	pthread_mutex_unlock(&st->lock);
	waiters_run(woken);
}

void waiters_start(struct store *st)
{
	st->wait_limit = (struct wait_limit){ .st = st, .ns = st->options.wait_timeout, .result = -ETIMEDOUT };
	st->wait_limit.timer.fire = time_is_up;
	st->closing_limit = (struct wait_limit){ .st = st, .ns = CLOSING_NS };
	st->closing_limit.timer.fire = time_is_up;
}

/* Waiting cycles. A thread waits for a draft; the draft is held by threads that opened it for writing; they may
 * wait for other drafts in turn. When everybody who could finish is waiting, nobody will: the one who would close the
 * circle is told. A draft with no writer, or with one that is not waiting, may still be finished. */

struct endless {
	struct store *st;
	int32_t asker;
	struct holding *held; /* who would be stuck */
	unsigned *n, max;
	struct object *path[64];
	unsigned depth;
};

static struct waiter *waiter_of(struct store *st, int32_t tid)
{
	struct waiter *w;

	HASH_FIND(by_tid, st->waiting_threads, &tid, sizeof(tid), w);
	return w;
}

static bool object_is_stuck(struct endless *e, struct object *obj);

static bool writer_is_stuck(struct endless *e, int32_t tid, uint64_t object)
{
	struct waiter *w;

	if (tid == 0)
		return false;
	if (*e->n < e->max)
		e->held[(*e->n)++] = (struct holding){ tid, object };
	if (tid == e->asker)
		return true;
	w = waiter_of(e->st, tid);
	return w != NULL && w->object != NULL && object_is_stuck(e, w->object);
}

static bool object_is_stuck(struct endless *e, struct object *obj)
{
	struct handle *h;
	bool stuck = true;

	for (unsigned i = 0; i < e->depth; i++)
		if (e->path[i] == obj)
			return true;
	if (obj->draft == NULL || obj->draft->writer_list == NULL || e->depth == 64)
		return false;
	e->path[e->depth++] = obj;
	DL_FOREACH(obj->draft->writer_list, h)
		stuck = stuck && writer_is_stuck(e, h->tid, obj->id);
	e->depth--;
	return stuck;
}

bool wait_is_endless(struct store *st, int32_t tid, struct object *obj, struct holding *held, unsigned *n, unsigned max)
{
	struct endless e = { .st = st, .asker = tid, .held = held, .n = n, .max = max };

	*n = 0;
	return tid != 0 && object_is_stuck(&e, obj);
}

/* Looking on */

struct wait_copy {
	uint64_t object, parent;
	char *name;
	int32_t tid;
	uint32_t uid;
	int64_t since;
	int32_t holders[8];
	unsigned holder_count;
};

static void copy_wait(const struct waiter *w, struct wait_copy *c)
{
	struct handle *h;

	*c = (struct wait_copy){ .tid = w->tid, .uid = w->uid, .since = w->since };
	if (w->object == NULL) {
		c->parent = w->parent;
		c->name = strdup(w->name);
		return;
	}
	c->object = w->object->id;
	if (w->object->draft == NULL)
		return;
	DL_FOREACH(w->object->draft->writer_list, h)
		if (c->holder_count < 8)
			c->holders[c->holder_count++] = h->tid;
}

static struct wait_copy *copy_waits(struct store *st, unsigned *n)
{
	struct wait_copy *copies;
	struct waiter *w;

	pthread_mutex_lock(&st->lock);
	copies = calloc(st->counts.waiters + 1, sizeof(*copies));
	*n = 0;
	if (copies != NULL)
		DL_FOREACH2(st->all_waiters, w, all_next)
			copy_wait(w, &copies[(*n)++]);
	pthread_mutex_unlock(&st->lock);
	return copies;
}

/* For whom, and for what: without a name it is the object, or, when that is the handle of a borrow, its turn. */
static int describe(struct store *st, const struct wait_copy *c, char path[static PATH_MAX], char *handle)
{
	struct meta_object o;
	struct op op;
	int r;

	handle[0] = '\0';
	op_begin(&op, st, NULL);
	if (c->name != NULL)
		r = path_of_name(st, c->parent, c->name, path);
	else
		r = st->meta->ops->object_get(st->meta, c->object, &o);
	if (r == 0 && c->name == NULL)
		r = is_borrow(&o) ? borrow_describe(st, &o, path, handle) : path_of(st, c->object, path);
	op_end(&op, 0, META_READ, NULL);
	return r;
}

static const char *wait_state(const struct wait_copy *c, const char *handle)
{
	if (c->name != NULL)
		return "absent";
	return c->holder_count > 0 ? "writing" : handle[0] != '\0' ? "borrowed" : "pending";
}

int store_waits(struct store *st, int (*fn)(void *arg, const struct wait_info *w), void *arg)
{
	unsigned n = 0;
	struct wait_copy *copies = copy_waits(st, &n);
	char path[PATH_MAX], handle[HANDLE_NAME_MAX];
	int r = copies == NULL ? -ENOMEM : 0;

	for (unsigned i = 0; i < n; i++) {
		struct wait_copy *c = &copies[i];
		struct wait_info info = {
			.key = describe(st, c, path, handle) < 0 ? "" : path, .tid = c->tid, .uid = c->uid, .since = c->since,
			.holders = c->holders, .holder_count = c->holder_count,
		};

		info.state = wait_state(c, handle);
		info.handle = handle[0] != '\0' ? handle : NULL;
		if (r == 0)
			r = fn(arg, &info);
		free(c->name);
	}
	free(copies);
	return r;
}

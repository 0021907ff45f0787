/* Slots in shared memory, by kind. Which ones are free is in them: the lists of those are each process's own. */
#include "core/internal.h"
#include "meta/redo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum slot_state {
	SLOT_FREE,
	SLOT_BUSY, /* being filled in: nobody will miss it */
	SLOT_LIVE,
};

struct slot {
	_Atomic uint32_t state;
	uint32_t generation; /* how often it was taken */
	_Atomic uint64_t request; /* for which it was, while that is not known to be answered */
	char body[];
};

struct slab {
	uint32_t count;
	_Atomic uint32_t used; /* those behind have never been taken */
	size_t offset;
};

struct kept {
	size_t size;
	_Atomic bool in_use;
	struct slab slabs[KEPT_KINDS];
};

struct kept_pool {
	struct kept *k;
	pthread_mutex_t lock; /* guards the rest; nothing is taken inside */
	struct {
		uint32_t *free;
		uint32_t n, room;
	} kinds[KEPT_KINDS];
};

static const size_t body_sizes[KEPT_KINDS] = {
	[KEPT_HANDLE] = sizeof(struct handle) + HANDLE_FRONT,
	[KEPT_VERSION] = sizeof(struct version),
	[KEPT_OBJECT] = sizeof(struct object),
	[KEPT_INTENT] = sizeof(struct intent),
	[KEPT_AWAITED] = sizeof(struct awaited),
	[KEPT_REPLACED] = sizeof(struct replaced),
	[KEPT_DEPARTED] = sizeof(struct departed),
};

static size_t slot_size(enum kept_kind kind)
{
	return (sizeof(struct slot) + body_sizes[kind] + 63) / 64 * 64;
}

static struct slot *slot_at(struct kept *k, enum kept_kind kind, uint32_t at)
{
	return (struct slot *)((char *)k + k->slabs[kind].offset + at * slot_size(kind));
}

static struct slot *slot_of(const void *body)
{
	return (struct slot *)((char *)body - offsetof(struct slot, body));
}

/* Where there are more versions and objects in use than slots, the rest is in the process's own memory, and ends with
 * it. */
static bool is_kept(const struct kept *k, const void *body)
{
	return (const char *)body > (const char *)k && (const char *)body < (const char *)k + k->size;
}

struct kept *kept_new(unsigned handles_max)
{
	const uint32_t counts[KEPT_KINDS] = {
		[KEPT_HANDLE] = handles_max, [KEPT_VERSION] = handles_max + 8192, [KEPT_OBJECT] = 2 * handles_max + 8192,
		[KEPT_INTENT] = 8192, [KEPT_AWAITED] = 4096, [KEPT_REPLACED] = 4096 + 1, [KEPT_DEPARTED] = 4096 + 1,
	};
	size_t size = 4096;
	struct kept *k;

	for (int i = 0; i < KEPT_KINDS; i++)
		size += counts[i] * slot_size(i);
	k = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (k == MAP_FAILED)
		return NULL;
	k->size = size;
	size = 4096;
	for (int i = 0; i < KEPT_KINDS; i++) {
		k->slabs[i].count = counts[i];
		k->slabs[i].offset = size;
		size += counts[i] * slot_size(i);
	}
	return k;
}

void kept_free(struct kept *k)
{
	if (k != NULL)
		munmap(k, k->size);
}

static int put_free(struct kept_pool *p, enum kept_kind kind, uint32_t at)
{
	uint32_t room = p->kinds[kind].room;

	if (p->kinds[kind].n == room) {
		uint32_t *more = realloc(p->kinds[kind].free, (room + 1024) * sizeof(*more));

		if (more == NULL)
			return -ENOMEM;
		p->kinds[kind].free = more;
		p->kinds[kind].room = room + 1024;
	}
	p->kinds[kind].free[p->kinds[kind].n++] = at;
	return 0;
}

int kept_open(struct kept *k, struct kept_pool **ret)
{
	struct kept_pool *p = calloc(1, sizeof(*p));
	int r = p == NULL ? -ENOMEM : 0;

	if (p == NULL)
		return r;
	p->k = k;
	pthread_mutex_init(&p->lock, NULL);
	for (int i = 0; r == 0 && i < KEPT_KINDS; i++)
		for (uint32_t at = k->slabs[i].used; r == 0 && at-- > 0;) {
			struct slot *s = slot_at(k, i, at);

			if (s->state == SLOT_LIVE)
				continue;
			s->state = SLOT_FREE;
			r = put_free(p, i, at);
		}
	*ret = p;
	return r;
}

bool kept_in_use(const struct kept *k)
{
	return k != NULL && k->in_use;
}

void kept_begins(struct store *st)
{
	if (st->kept != NULL)
		st->kept->k->in_use = true;
}

void kept_close(struct kept_pool *p)
{
	if (p == NULL)
		return;
	for (int i = 0; i < KEPT_KINDS; i++)
		free(p->kinds[i].free);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static struct slot *take(struct kept_pool *p, enum kept_kind kind)
{
	struct slab *slab = &p->k->slabs[kind];
	struct slot *s = NULL;

	pthread_mutex_lock(&p->lock);
	if (p->kinds[kind].n > 0)
		s = slot_at(p->k, kind, p->kinds[kind].free[--p->kinds[kind].n]);
	else if (slab->used < slab->count)
		s = slot_at(p->k, kind, slab->used++);
	pthread_mutex_unlock(&p->lock);
	return s;
}

void *kept_take(struct store *st, enum kept_kind kind)
{
	struct slot *s = st->kept != NULL ? take(st->kept, kind) : NULL;

	if (s == NULL)
		return st->kept != NULL && kind == KEPT_HANDLE ? NULL : calloc(1, body_sizes[kind]);
	s->state = SLOT_BUSY;
	s->generation++;
	s->request = redo_requested();
	memset(s->body, 0, body_sizes[kind]);
	return s->body;
}

void kept_live(struct store *st, void *body)
{
	if (st->kept != NULL && is_kept(st->kept->k, body))
		atomic_store_explicit(&slot_of(body)->state, SLOT_LIVE, memory_order_release);
}

void kept_give(struct store *st, enum kept_kind kind, void *body)
{
	struct kept_pool *p = st->kept;
	struct slot *s = slot_of(body);

	if (body == NULL)
		return;
	if (p == NULL || !is_kept(p->k, body)) {
		free(body);
		return;
	}
	atomic_store_explicit(&s->state, SLOT_FREE, memory_order_release);
	pthread_mutex_lock(&p->lock);
	put_free(p, kind, (uint32_t)(((char *)s - (char *)slot_at(p->k, kind, 0)) / slot_size(kind)));
	pthread_mutex_unlock(&p->lock);
}

void *kept_next(struct store *st, enum kept_kind kind, uint32_t *at)
{
	struct kept *k = st->kept != NULL ? st->kept->k : NULL;

	while (k != NULL && *at < k->slabs[kind].used) {
		struct slot *s = slot_at(k, kind, (*at)++);

		if (atomic_load_explicit(&s->state, memory_order_acquire) == SLOT_LIVE)
			return s->body;
	}
	return NULL;
}

bool kept_is_live(struct store *st, const void *body)
{
	return st->kept != NULL && is_kept(st->kept->k, body) &&
	       atomic_load_explicit(&slot_of(body)->state, memory_order_acquire) == SLOT_LIVE;
}

uint64_t kept_request(struct store *st, const void *body)
{
	return st->kept != NULL && is_kept(st->kept->k, body) ? slot_of(body)->request : 0;
}

void kept_answered(struct store *st, void *body)
{
	if (st->kept != NULL && is_kept(st->kept->k, body))
		atomic_store_explicit(&slot_of(body)->request, 0, memory_order_release);
}

/* Handles */

struct handle *handle_new(struct store *st)
{
	struct handle *h = kept_take(st, KEPT_HANDLE);

	if (h != NULL) {
		h->st = st;
		h->kept = st->kept != NULL;
	}
	return h;
}

void handle_free(struct handle *h)
{
	struct store *st = h->st;

	if (h->awaited != NULL) {
		kept_give(st, KEPT_AWAITED, h->awaited);
	} else {
		free(h->name);
		free(h->reader);
	}
	kept_give(st, KEPT_HANDLE, h);
}

uint64_t handle_number(const struct handle *h)
{
	struct kept_pool *p = h->st->kept;
	struct slot *s = slot_of(h);

	if (p == NULL)
		return 0;
	return (uint64_t)s->generation << 32 |
	       (uint64_t)(((char *)s - (char *)slot_at(p->k, KEPT_HANDLE, 0)) / slot_size(KEPT_HANDLE));
}

void *handle_front(struct handle *h)
{
	return (char *)h + sizeof(*h);
}

struct handle *store_adopted(struct store *st, uint64_t number)
{
	struct kept *k = st->kept != NULL ? st->kept->k : NULL;
	struct slot *s;

	if (k == NULL || (uint32_t)number >= k->slabs[KEPT_HANDLE].used)
		return NULL;
	s = slot_at(k, KEPT_HANDLE, (uint32_t)number);
	if (atomic_load_explicit(&s->state, memory_order_acquire) != SLOT_LIVE || s->generation != number >> 32)
		return NULL;
	return (struct handle *)s->body;
}

void store_adopted_each(struct store *st, void (*fn)(void *arg, struct handle *h), void *arg)
{
	struct handle *h;
	uint32_t at = 0;

	while ((h = kept_next(st, KEPT_HANDLE, &at)) != NULL)
		fn(arg, h);
}

void handle_answered(struct handle *h)
{
	kept_answered(h->st, h);
}

void store_adoption_over(struct store *st)
{
	struct handle *h;
	struct intent *in;
	uint32_t at = 0;

	while ((h = kept_next(st, KEPT_HANDLE, &at)) != NULL)
		kept_answered(st, h);
	for (at = 0; (in = kept_next(st, KEPT_INTENT, &at)) != NULL;)
		kept_answered(st, in);
}

struct handle *store_claim(struct store *st, uint64_t request)
{
	struct handle *h = NULL;
	uint32_t at = 0;

	while (request != 0 && (h = kept_next(st, KEPT_HANDLE, &at)) != NULL)
		if (kept_request(st, h) == request && !h->releasing)
			break;
	if (h == NULL || request == 0 || !h->truncates || store_ftruncate(h, 0) == 0)
		return h;
	store_release(h);
	return NULL;
}

void store_resent(struct store *st, const struct caller *who, uint64_t request)
{
	struct version *v = NULL;
	struct intent *in;

	pthread_mutex_lock(&st->lock);
	in = intent_find(st, who->tid);
	if (in != NULL && request != 0 && kept_request(st, in) == request)
		v = intent_take(st, in);
	pthread_mutex_unlock(&st->lock);
	if (v != NULL)
		version_let_go(st, v, who);
}

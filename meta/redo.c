/* The redo region, without what an engine makes of it. */
#include "meta/redo_region.h"

#include <string.h>
#include <sys/mman.h>

static _Thread_local uint64_t requested;

struct redo *redo_new(void)
{
	void *p = mmap(NULL, sizeof(struct redo), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p != MAP_FAILED ? p : NULL;
}

void redo_free(struct redo *r)
{
	if (r != NULL)
		munmap(r, sizeof(*r));
}

void redo_request(uint64_t request)
{
	requested = request;
}

uint64_t redo_requested(void)
{
	return requested;
}

struct redo_state redo_state(const struct redo *r)
{
	return redo_state_of(atomic_load_explicit(&r->state, memory_order_acquire));
}

void redo_set_state(struct redo *r, struct redo_state s)
{
	atomic_store_explicit(&r->state, redo_word(s), memory_order_release);
}

bool redo_append(struct redo *r, uint32_t *at, const void *p, size_t len)
{
	if (len > REDO_BYTES - *at)
		return false;
	memcpy(r->log + *at, p, len);
	*at += (uint32_t)len;
	return true;
}

static bool has_happened(struct redo_state mark, struct redo_state now)
{
	int32_t later = (int32_t)(now.generation - mark.generation);

	return later > 0 || (later == 0 && mark.length <= now.length);
}

/* A request is in one of the few places that its number names, so that one that is not there is not looked for for
 * long. */
static struct redo_request *place(struct redo *r, uint64_t request, unsigned i)
{
	return &r->requests[((request * 0x9e3779b97f4a7c15u >> 40) + i) % REDO_REQUESTS];
}

static struct redo_request *find(struct redo *r, uint64_t request)
{
	for (unsigned i = 0; i < REDO_PLACES; i++) {
		struct redo_request *p = place(r, request, i);

		if (atomic_load_explicit(&p->request, memory_order_acquire) == request)
			return p;
	}
	return NULL;
}

/* The first operation counts. The table is much larger than there are requests at a time; one that finds no place all
 * the same is done twice, perhaps, if the process is killed now. */
static void note(struct redo *r, uint64_t request, struct redo_state at)
{
	struct redo_request *p = NULL;

	if (find(r, request) != NULL)
		return;
	for (unsigned i = 0; p == NULL && i < REDO_PLACES; i++)
		if (atomic_load_explicit(&place(r, request, i)->request, memory_order_acquire) == 0)
			p = place(r, request, i);
	if (p == NULL)
		return;
	atomic_store_explicit(&p->mark, redo_word(at), memory_order_release);
	atomic_store_explicit(&p->request, request, memory_order_release);
}

void redo_ended(struct redo *r, struct redo_state at)
{
	if (requested != 0)
		note(r, requested, at);
	if (at.length != REDO_NOWHERE)
		redo_set_state(r, at);
}

void redo_forget_requests(struct redo *r, bool all)
{
	struct redo_state now = redo_state(r);

	for (unsigned i = 0; i < REDO_REQUESTS; i++) {
		struct redo_request *p = &r->requests[i];
		struct redo_state mark;

		if (atomic_load_explicit(&p->request, memory_order_acquire) == 0)
			continue;
		mark = redo_state_of(atomic_load_explicit(&p->mark, memory_order_acquire));
		if (mark.generation == now.generation && (all || !has_happened(mark, now)))
			atomic_store_explicit(&p->request, 0, memory_order_release);
	}
}

int redo_was_done(struct redo *r, uint64_t request)
{
	struct redo_request *p = r != NULL && request != 0 ? find(r, request) : NULL;

	return p != NULL && has_happened(redo_state_of(atomic_load_explicit(&p->mark, memory_order_acquire)), redo_state(r));
}

void redo_answered(struct redo *r, uint64_t request)
{
	struct redo_request *p = r != NULL && request != 0 ? find(r, request) : NULL;

	if (p != NULL)
		atomic_store_explicit(&p->request, 0, memory_order_release);
}

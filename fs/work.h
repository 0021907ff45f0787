/* A few threads for what may block (fsync, copying, hashing), so that the threads that answer the kernel never do. */
#pragma once

#include <stdint.h>

struct work {
	void (*run)(struct work *w); /* may free w */
	struct work *next;
	uint64_t unique; /* the request that it is for: see request_is_for in fs.h */
};

struct workers;

int workers_new(unsigned max, struct workers **ret); /* threads start when there is something to do */
void workers_finish(struct workers *ws);             /* waits until what was queued is done, of one thread. NULL is fine */
void workers_free(struct workers *ws);               /* finishes what was queued. NULL is fine */
void workers_queue(struct workers *ws, struct work *w);

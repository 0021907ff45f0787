/* What is in a redo region. For engines only. */
#pragma once

#include "meta/redo.h"

#include <stdatomic.h>
#include <stdbool.h>

#define REDO_BYTES (4u << 20)
#define REDO_FULL (REDO_BYTES / 2) /* from there on every operation is committed at its end */
#define REDO_REQUESTS 16384
#define REDO_PLACES 16 /* where one may be */
#define REDO_NOWHERE UINT32_MAX /* a position that is never valid: such an operation counts when it is committed */

/* The generation counts commits: the changes in the region belong to the one after that. Generation and length are one
 * word, so one store says that operations are valid, or that all of them are committed. */
struct redo_state {
	uint32_t generation, length;
};

struct redo_request {
	_Atomic uint64_t request; /* 0: free; written last */
	_Atomic uint64_t mark;    /* the state from which on an operation of it has ended */
};

struct redo {
	bool bound; /* it belongs to a catalog */
	_Atomic uint64_t state;
	_Atomic uint64_t next_id; /* numbers below have been given out */
	struct redo_request requests[REDO_REQUESTS];
	char log[REDO_BYTES];
};

static inline uint64_t redo_word(struct redo_state s)
{
	return (uint64_t)s.generation << 32 | s.length;
}

static inline struct redo_state redo_state_of(uint64_t word)
{
	return (struct redo_state){ (uint32_t)(word >> 32), (uint32_t)word };
}

struct redo_state redo_state(const struct redo *r);
void redo_set_state(struct redo *r, struct redo_state s);
bool redo_append(struct redo *r, uint32_t *at, const void *p, size_t len); /* false: no room */
/* The operation of this thread has ended when the state is `at`; makes that so, if it is not REDO_NOWHERE. */
void redo_ended(struct redo *r, struct redo_state at);
/* The changes of this generation that are not valid never happened. all: and the valid ones neither. */
void redo_forget_requests(struct redo *r, bool all);

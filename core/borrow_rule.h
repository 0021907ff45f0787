/* The rule of borrowing, as a function of what is known and nothing else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* By which way somebody comes to an object. */
enum via {
	VIA_OWNER, /* one of its keys, or its owner handle */
	VIA_REF,   /* an immutable borrow */
	VIA_MUT,   /* the mutable borrow */
	VIA_ONCE,  /* a key, below once/ */
};

enum act {
	ACT_READ,       /* open it for reading */
	ACT_WRITE,      /* open it for writing, or cut it */
	ACT_EVICT,      /* take its last name away */
	ACT_BORROW_REF, /* have it borrowed by one more */
	ACT_BORROW_MUT,
};

/* borrows: as in struct meta_object. 0, -EBUSY, or what cannot be done by that way at all: -EPERM, -EACCES; -ESTALE: by a
 * handle that has been dropped. */
int borrow_rule(int64_t borrows, enum via via, enum act act);

/* What tests of the catalog and of the store share: waiting for commits, a clock in the test's hand. */
#pragma once

#include "meta/meta.h"

#include <pthread.h>

/* One operation's commit, and somebody who waits for it. */
struct sync_commit {
	struct meta_commit c; /* first */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned times; /* how often done was called */
	int result;
};

void sync_init(struct sync_commit *s);
bool sync_wait(struct sync_commit *s); /* false: not done after a long time */
unsigned sync_times(struct sync_commit *s);

/* Puts a clock of the test's in the place of the engine's. One catalog at a time. */
void clock_take_over(struct meta *m, int64_t start);
void clock_move(int64_t by);
int64_t clock_now(void);

/* The next calls of object_update in a catalog with such a clock fail with this errno, that many times, and the
 * operations that they are part of are taken back, with all others that are not recorded yet. */
void updates_fail(int error, unsigned times);
void updates_fail_after(unsigned first, int error, unsigned times); /* the first so many succeed */
unsigned updates_to_fail(void); /* how many of them are still to come */

/* The next operations that change anything cannot be recorded (EIO), that many. */
void commits_fail(unsigned times);

/* How many operations asked to survive power loss. */
unsigned durables_asked(void);

/* Things to do later: a heap of deadlines and one thread that sleeps until the first. It wakes for nothing else.
 * Time is CLOCK_BOOTTIME, so setting the wall clock moves nothing, and time spent suspended counts. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct timers;

/* One thing to do. Belongs to the caller and must stay where it is while armed. */
struct timer {
	int64_t at; /* boot time, nanoseconds */
	void (*fire)(struct timer *t); /* in the timer thread, without locks; the timer is not armed any more */
	void (*drop)(struct timer *t); /* what to do when it is still armed at timers_free; NULL: nothing */
	unsigned position; /* in the heap, 0 when not armed */
};

int timers_new(struct timers **ret); /* starts the thread; 0 or negative errno */
void timers_stop(struct timers *ts);   /* ends the thread: nothing fires afterwards. Arming is still harmless */
void timers_free(struct timers *ts);   /* stops, too. NULL is fine */
int64_t timers_now(void);            /* boot time, nanoseconds */

/* Arms t for `at`, or moves it. 0 or -ENOMEM. */
int timer_arm(struct timers *ts, struct timer *t, int64_t at);
/* Disarms t. False when it was not armed: it has fired, or is about to. */
bool timer_disarm(struct timers *ts, struct timer *t);

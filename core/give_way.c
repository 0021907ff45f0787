/* Several threads work off what the end of a lifetime leaves: evicting, removing files, telling the kernel of names. When
 * each of them lets others run by sched_yield(2), they run in turns, and a program that has used up its share of the CPU
 * a moment before was seen to wait 24 ms for its turn (Linux 6.18), though each step takes 10 us. A CPU on which all of
 * them sleep takes whoever is ready. */
#include "core/give_way.h"

#include <stdint.h>
#include <time.h>

#define WORK_NS 500000
#define REST_NS 100000
#define IDLE_NS 1000000 /* who has not been here for so long, has slept anyway */

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void give_way(void)
{
	static _Thread_local int64_t began, last;
	struct timespec rest = { .tv_nsec = REST_NS };
	int64_t now = now_ns();

	if (now - last > IDLE_NS)
		began = now;
	if (now - began > WORK_NS) {
		nanosleep(&rest, NULL);
		began = now = now_ns();
	}
	last = now;
}

/* Looking for the next request for a moment before going to sleep.
 *
 * Waking a thread on another CPU costs several times what most requests do, and requests come in rows: whoever has
 * looked a name up opens it, and who has opened it reads. So a thread that has answered looks for the next request for
 * a short while, giving way to whoever wants its CPU. It does so as long as requests come in quick succession, so a mount
 * that nobody uses costs nothing, and one that is seldom used hardly anything. */
#include "fs/fs.h"

#include <poll.h>
#include <sched.h>
#include <time.h>

#define POLLERS_MAX 2 /* threads that look at the same time */
#define SUCCESSION 10 /* times the option: two requests with less in between come in quick succession */

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static bool is_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) != 0; /* an error, too, is for read(2) to find */
}

static void look(int fd, int64_t end)
{
	while (!is_readable(fd) && now_ns() < end)
		sched_yield();
}

void busy_poll(struct fs *fs)
{
	if (!atomic_load_explicit(&fs->busy, memory_order_relaxed))
		return;
	if (atomic_fetch_add(&fs->pollers, 1) < POLLERS_MAX)
		look(fuse_session_fd(fs->se), now_ns() + fs->options.busy_poll);
	atomic_fetch_sub(&fs->pollers, 1);
}

void busy_poll_request(struct fs *fs)
{
	int64_t now = now_ns(), last = atomic_exchange_explicit(&fs->last_request, now, memory_order_relaxed);
	bool busy = now - last < SUCCESSION * fs->options.busy_poll;

	if (atomic_load_explicit(&fs->busy, memory_order_relaxed) != busy)
		atomic_store_explicit(&fs->busy, busy, memory_order_relaxed);
}

#include "tests/unit/rig.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#define PATIENCE_S 20

static void sync_done(struct meta_commit *c, int r)
{
	struct sync_commit *s = (struct sync_commit *)c;

	pthread_mutex_lock(&s->lock);
	s->times++;
	s->result = r;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

void sync_init(struct sync_commit *s)
{
	memset(s, 0, sizeof(*s));
	s->c.done = sync_done;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
}

bool sync_wait(struct sync_commit *s)
{
	struct timespec until;
	bool done;
	int r = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&s->lock);
	while (s->times == 0 && r == 0)
		r = pthread_cond_timedwait(&s->cond, &s->lock, &until);
	done = s->times > 0;
	pthread_mutex_unlock(&s->lock);
	return done;
}

unsigned sync_times(struct sync_commit *s)
{
	unsigned n;

	pthread_mutex_lock(&s->lock);
	n = s->times;
	pthread_mutex_unlock(&s->lock);
	return n;
}

static struct meta_ops ops;
static const struct meta_ops *engine;
static _Atomic int64_t wall;
static atomic_uint successes, failures, durables; /* successes: before the first failure */
static atomic_int failure;
static atomic_uint commit_failures;
static bool failed; /* the operation that is under way; guarded by its being so */

static int64_t now(struct meta *m)
{
	return wall;
}

static int object_update(struct meta *m, const struct meta_object *o)
{
	if (failures > 0 && successes > 0) {
		successes--;
	} else if (failures > 0) {
		failures--;
		failed = true;
		return -failure;
	}
	return engine->object_update(m, o);
}

/* An engine that has failed in the middle of an operation takes it back. */
static void end(struct meta *m, enum meta_ack ack, struct meta_commit *c)
{
	durables += ack == META_DURABLE;
	if (ack != META_READ && commit_failures > 0) {
		commit_failures--;
		failed = true;
	}
	if (failed)
		ack = META_ABANDON;
	failed = false;
	engine->end(m, ack, c);
}

unsigned durables_asked(void)
{
	return durables;
}

void clock_take_over(struct meta *m, int64_t start)
{
	engine = m->ops;
	ops = *m->ops;
	ops.now = now;
	ops.object_update = object_update;
	ops.end = end;
	m->ops = &ops;
	wall = start;
	failures = 0;
}

void commits_fail(unsigned times)
{
	commit_failures = times;
}

void clock_move(int64_t by)
{
	wall += by;
}

int64_t clock_now(void)
{
	return wall;
}

void updates_fail(int error, unsigned times)
{
	updates_fail_after(0, error, times);
}

void updates_fail_after(unsigned first, int error, unsigned times)
{
	successes = first;
	failure = error;
	failures = times;
}

unsigned updates_to_fail(void)
{
	return failures;
}

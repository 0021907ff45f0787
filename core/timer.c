#include "core/timer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct timers {
	pthread_mutex_t lock; /* guards all below; innermost, nothing is taken inside it */
	pthread_cond_t cond;
	pthread_t thread;
	struct timer **heap; /* 1-based */
	unsigned count, capacity;
	bool stop;
};

int64_t timers_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void put(struct timers *ts, unsigned i, struct timer *t)
{
	ts->heap[i] = t;
	t->position = i;
}

static void sift_up(struct timers *ts, unsigned i)
{
	struct timer *t = ts->heap[i];

	for (; i > 1 && ts->heap[i / 2]->at > t->at; i /= 2)
		put(ts, i, ts->heap[i / 2]);
	put(ts, i, t);
}

static void sift_down(struct timers *ts, unsigned i)
{
	struct timer *t = ts->heap[i];

	for (unsigned child; (child = 2 * i) <= ts->count; i = child) {
		if (child < ts->count && ts->heap[child + 1]->at < ts->heap[child]->at)
			child++;
		if (ts->heap[child]->at >= t->at)
			break;
		put(ts, i, ts->heap[child]);
	}
	put(ts, i, t);
}

static void take_out(struct timers *ts, struct timer *t)
{
	unsigned i = t->position;
	struct timer *last = ts->heap[ts->count--];

	t->position = 0;
	if (last == t)
		return;
	put(ts, i, last);
	sift_up(ts, i);
	sift_down(ts, last->position);
}

static int grow(struct timers *ts)
{
	unsigned capacity = ts->capacity == 0 ? 64 : ts->capacity * 2;
	struct timer **heap;

	if (ts->count + 1 < ts->capacity)
		return 0;
	heap = realloc(ts->heap, capacity * sizeof(*heap));
	if (heap == NULL)
		return -ENOMEM;
	ts->heap = heap;
	ts->capacity = capacity;
	return 0;
}

int timer_arm(struct timers *ts, struct timer *t, int64_t at)
{
	int r = 0;

	pthread_mutex_lock(&ts->lock);
	if (t->position != 0)
		take_out(ts, t);
	r = grow(ts);
	if (r == 0) {
		t->at = at;
		put(ts, ++ts->count, t);
		sift_up(ts, ts->count);
		if (t->position == 1)
			pthread_cond_signal(&ts->cond);
	}
	pthread_mutex_unlock(&ts->lock);
	return r;
}

bool timer_disarm(struct timers *ts, struct timer *t)
{
	bool armed;

	pthread_mutex_lock(&ts->lock);
	armed = t->position != 0;
	if (armed)
		take_out(ts, t);
	pthread_mutex_unlock(&ts->lock);
	return armed;
}

/* Condition variables cannot wait on CLOCK_BOOTTIME: wait as long on the monotonic clock, then look again. */
static void sleep_until(struct timers *ts, int64_t at)
{
	struct timespec until;
	int64_t wait = at - timers_now();

	clock_gettime(CLOCK_MONOTONIC, &until);
	wait += (int64_t)until.tv_sec * 1000000000 + until.tv_nsec;
	until.tv_sec = wait / 1000000000;
	until.tv_nsec = wait % 1000000000;
	pthread_cond_timedwait(&ts->cond, &ts->lock, &until);
}

static void *timers_main(void *arg)
{
	struct timers *ts = arg;

	pthread_mutex_lock(&ts->lock);
	while (!ts->stop) {
		struct timer *first = ts->count > 0 ? ts->heap[1] : NULL;

		if (first == NULL) {
			pthread_cond_wait(&ts->cond, &ts->lock);
		} else if (first->at > timers_now()) {
			sleep_until(ts, first->at);
		} else {
			take_out(ts, first);
			pthread_mutex_unlock(&ts->lock);
			first->fire(first);
			pthread_mutex_lock(&ts->lock);
		}
	}
	pthread_mutex_unlock(&ts->lock);
	return NULL;
}

int timers_new(struct timers **ret)
{
	struct timers *ts = calloc(1, sizeof(*ts));
	pthread_condattr_t attr;
	int r;

	if (ts == NULL)
		return -ENOMEM;
	pthread_mutex_init(&ts->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ts->cond, &attr);
	pthread_condattr_destroy(&attr);
	r = pthread_create(&ts->thread, NULL, timers_main, ts);
	if (r != 0) {
		free(ts);
		return -r;
	}
	pthread_setname_np(ts->thread, "timers");
	*ret = ts;
	return 0;
}

void timers_stop(struct timers *ts)
{
	bool running;

	pthread_mutex_lock(&ts->lock);
	running = !ts->stop;
	ts->stop = true;
	pthread_cond_signal(&ts->cond);
	pthread_mutex_unlock(&ts->lock);
	if (running)
		pthread_join(ts->thread, NULL);
}

void timers_free(struct timers *ts)
{
	if (ts == NULL)
		return;
	timers_stop(ts);
	for (unsigned i = 1; i <= ts->count; i++)
		if (ts->heap[i]->drop != NULL)
			ts->heap[i]->drop(ts->heap[i]);
	pthread_mutex_destroy(&ts->lock);
	pthread_cond_destroy(&ts->cond);
	free(ts->heap);
	free(ts);
}

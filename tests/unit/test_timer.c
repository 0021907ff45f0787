/* The timer heap and its thread. Nothing here asserts in the timer thread: it notes what fires, the test looks. */
#include "core/timer.h"
#include "tests/unit/unit.h"

#include <pthread.h>

#define MANY 10000
#define PATIENCE (20 * SECOND) /* how long to wait for what should take milliseconds */

struct shot {
	struct timer t;
	int64_t at;    /* when it was due */
	int64_t fired; /* when it fired; 0: not yet */
	unsigned times, order;
	bool was_armed; /* its position said so while it fired */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static unsigned shots;

static void fire(struct timer *t)
{
	struct shot *s = (struct shot *)t;

	pthread_mutex_lock(&lock);
	s->fired = timers_now();
	s->times++;
	s->order = ++shots;
	s->was_armed = t->position != 0;
	pthread_cond_signal(&cond);
	pthread_mutex_unlock(&lock);
}

static void arm(struct timers *ts, struct shot *s, int64_t at)
{
	s->t.fire = fire;
	s->at = at;
	assert_int_equal(timer_arm(ts, &s->t, at), 0);
}

/* Waits until n have fired in all. */
static bool fired(unsigned n)
{
	struct timespec until;
	bool enough;
	int r = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE / SECOND;
	pthread_mutex_lock(&lock);
	while (shots < n && r == 0)
		r = pthread_cond_timedwait(&cond, &lock, &until);
	enough = shots >= n;
	pthread_mutex_unlock(&lock);
	return enough;
}

static void pause_ms(unsigned ms)
{
	usleep(ms * 1000);
}

static int set_up(void **state)
{
	struct timers *ts;

	shots = 0;
	if (timers_new(&ts) != 0)
		return -1;
	*state = ts;
	return 0;
}

static int tear_down(void **state)
{
	timers_free(*state);
	return 0;
}

static void test_order(void **state)
{
	struct shot s[5] = { 0 };
	static const int place[] = { 3, 1, 5, 2, 4 };
	int64_t now = timers_now();

	for (unsigned i = 0; i < 5; i++)
		arm(*state, &s[i], now + place[i] * 20 * MS);
	assert_true(fired(5));
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(s[i].order, place[i]);
		assert_int_equal(s[i].times, 1);
		assert_false(s[i].was_armed);
		assert_int_equal(s[i].t.position, 0);
		assert_true(s[i].fired >= s[i].at);
	}
}

static void test_due_already(void **state)
{
	struct shot s[3] = { 0 };

	arm(*state, &s[0], 0);
	arm(*state, &s[1], timers_now() - 3600 * SECOND);
	arm(*state, &s[2], timers_now());
	assert_true(fired(3));
}

/* Neither early nor, on a machine that is not overloaded, much too late. */
static void test_punctual(void **state)
{
	int64_t best = INT64_MAX;

	for (unsigned i = 0; i < 5; i++) {
		struct shot s = { 0 };

		arm(*state, &s, timers_now() + 10 * MS);
		assert_true(fired(i + 1));
		assert_true(s.fired >= s.at);
		if (s.fired - s.at < best)
			best = s.fired - s.at;
	}
	assert_true(best < 100 * MS);
}

/* A new first one wakes the thread that sleeps until a later one. */
static void test_sooner_than_first(void **state)
{
	struct shot late = { 0 }, soon = { 0 };

	arm(*state, &late, timers_now() + 3600 * SECOND);
	pause_ms(20);
	arm(*state, &soon, timers_now() + 5 * MS);
	assert_true(fired(1));
	assert_int_equal(soon.times, 1);
	assert_int_equal(late.times, 0);
	assert_true(timer_disarm(*state, &late.t));
}

static void test_disarm(void **state)
{
	struct shot s = { 0 }, after = { 0 };

	assert_false(timer_disarm(*state, &s.t)); /* never armed */
	arm(*state, &s, timers_now() + 30 * MS);
	assert_true(timer_disarm(*state, &s.t));
	assert_false(timer_disarm(*state, &s.t));
	arm(*state, &after, timers_now() + 60 * MS);
	assert_true(fired(1));
	assert_int_equal(s.times, 0);
	assert_int_equal(after.times, 1);
	assert_false(timer_disarm(*state, &after.t)); /* has fired */
}

static void test_move_later(void **state)
{
	struct shot s = { 0 }, mark = { 0 };
	int64_t now = timers_now();

	arm(*state, &s, now + 10 * MS);
	arm(*state, &mark, now + 40 * MS);
	arm(*state, &s, now + 80 * MS);
	assert_true(fired(2));
	assert_int_equal(mark.order, 1);
	assert_int_equal(s.order, 2);
	assert_int_equal(s.times, 1);
	assert_true(s.fired >= now + 80 * MS);
}

static void test_move_sooner(void **state)
{
	struct shot s = { 0 }, mark = { 0 };
	int64_t now = timers_now();

	arm(*state, &s, now + 3600 * SECOND);
	arm(*state, &mark, now + 60 * MS);
	arm(*state, &s, now + 20 * MS);
	assert_true(fired(2));
	assert_int_equal(s.order, 1);
	assert_int_equal(s.times, 1);
}

struct again {
	struct timer t;
	struct timers *ts;
	unsigned left;
};

static void fire_again(struct timer *t)
{
	struct again *a = (struct again *)t;

	if (--a->left > 0)
		timer_arm(a->ts, t, timers_now());
	pthread_mutex_lock(&lock);
	shots++;
	pthread_cond_signal(&cond);
	pthread_mutex_unlock(&lock);
}

static void test_arms_itself(void **state)
{
	struct again a = { .t.fire = fire_again, .ts = *state, .left = 100 };

	assert_int_equal(timer_arm(*state, &a.t, timers_now()), 0);
	assert_true(fired(100));
	assert_int_equal(a.left, 0);
}

static void test_free_with_armed(void **state)
{
	struct shot s = { 0 };
	struct timers *ts;

	timers_free(NULL);
	assert_int_equal(timers_new(&ts), 0);
	arm(ts, &s, timers_now() + 20 * MS);
	timers_free(ts);
	pause_ms(40);
	assert_int_equal(s.times, 0);
}

static void shuffle(unsigned *a, unsigned n)
{
	for (unsigned i = n - 1; i > 0; i--) {
		unsigned j = (unsigned)random() % (i + 1), x = a[i];

		a[i] = a[j];
		a[j] = x;
	}
}

/* All are due at different times after `start`, armed in random order; a third is moved, a third taken away. */
static void arm_many(struct timers *ts, struct shot *s, unsigned *order, int64_t start)
{
	for (unsigned i = 0; i < MANY; i++)
		order[i] = i;
	shuffle(order, MANY);
	for (unsigned i = 0; i < MANY; i++)
		arm(ts, &s[order[i]], start + (int64_t)((order[i] * 7919) % MANY) * 1000 + 3600 * SECOND);
	shuffle(order, MANY);
	for (unsigned i = 0; i < MANY; i++) {
		if (order[i] % 3 == 1)
			assert_true(timer_disarm(ts, &s[order[i]].t));
		else
			arm(ts, &s[order[i]], start + (int64_t)order[i] * 1000);
	}
}

static void test_many(void **state)
{
	struct shot *s = calloc(MANY, sizeof(*s));
	unsigned *order = malloc(MANY * sizeof(*order));
	unsigned expected = 0;

	assert_non_null(s);
	assert_non_null(order);
	srandom(1);
	arm_many(*state, s, order, timers_now() + 300 * MS);
	assert_int_equal(shots, 0); /* else this machine was too slow for the test */
	assert_true(fired(MANY - MANY / 3));
	pause_ms(20);
	assert_int_equal(shots, MANY - MANY / 3);
	for (unsigned i = 0; i < MANY; i++) {
		if (i % 3 == 1) {
			assert_int_equal(s[i].times, 0);
			continue;
		}
		assert_int_equal(s[i].times, 1);
		assert_int_equal(s[i].order, ++expected); /* they were due in the order of their numbers */
		assert_true(s[i].fired >= s[i].at);
	}
	free(order);
	free(s);
}

struct arming {
	struct timers *ts;
	struct shot s[500];
};

static void *arm_some(void *arg)
{
	struct arming *a = arg;

	for (unsigned i = 0; i < COUNT(a->s); i++) {
		a->s[i].t.fire = fire;
		timer_arm(a->ts, &a->s[i].t, timers_now() + (i % 7) * MS);
	}
	return NULL;
}

static void test_threads(void **state)
{
	static struct arming a[4];
	pthread_t threads[4];

	for (unsigned i = 0; i < 4; i++) {
		a[i] = (struct arming){ .ts = *state };
		assert_int_equal(pthread_create(&threads[i], NULL, arm_some, &a[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_true(fired(4 * 500));
	for (unsigned i = 0; i < 4; i++)
		for (unsigned j = 0; j < 500; j++)
			assert_int_equal(a[i].s[j].times, 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_order),       TEST(test_due_already), TEST(test_punctual),    TEST(test_sooner_than_first),
		TEST(test_disarm),      TEST(test_move_later),  TEST(test_move_sooner), TEST(test_arms_itself),
		TEST(test_free_with_armed), TEST(test_many),    TEST(test_threads),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

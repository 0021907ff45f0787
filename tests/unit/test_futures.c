/* The store: futures and all that waits, for whatever reason. */
#include "tests/unit/store_rig.h"

#include <fcntl.h>

/* ---- Futures ---- */

static void test_future(void **state)
{
	struct test_waiter tw[3];
	struct handle *w, *h;
	uint64_t node = 0;

	CHECK_R(declare("f"), 0);
	CHECK(state_is("f", "pending"));
	CHECK_R(declare("f"), 0); /* again: nothing changes */
	for (unsigned i = 0; i < 3; i++)
		node = wait_for(&tw[i], 10 + (int)i, "f");
	w = open_write(1, "f", 0);
	put_bytes(w, "set");
	CHECK(state_is("f", "writing"));
	for (unsigned i = 0; i < 3; i++)
		still_waits(&tw[i], 10 + (int)i, node);
	CHECK_R(flush(1, w), 0);
	store_release(w);
	for (unsigned i = 0; i < 3; i++) {
		CHECK(is_woken(&tw[i]));
		CHECK_R(tw[i].result, 0);
		CHECK_R(ask_again(&tw[i], 10 + (int)i, node, &h), 0);
		CHECK(reads(h, "set"));
		store_release(h);
	}
	CHECK(state_is("f", "ready"));
	CHECK_R(declare("f"), -EEXIST); /* for good */
	check_idle(1);
}

/* stat and the like never wait. */
static void test_future_asked(void **state)
{
	struct handle *h = NULL;

	CHECK_R(declare("f"), 0);
	CHECK(size_of("f") == 0);
	CHECK_R(open_node(2, node_of("f"), O_RDONLY, NULL, &h), STORE_MUST_WAIT);
	CHECK(h == NULL);
	check_idle(0);
	remount();
	CHECK(state_is("f", "pending"));
}

static void test_future_set_by_rename(void **state)
{
	const struct caller mover = who(3);
	struct test_waiter tw;

	CHECK_R(declare("f"), 0);
	wait_for(&tw, 2, "f");
	put("tmp", "moved");
	CHECK_R(COMMITTED(store_rename(st, &mover, META_ROOT, "tmp", META_ROOT, "f", 0, c)), 0);
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, -ESTALE); /* look the name up again */
	has("f", "moved");
	check_idle(1);
}

static void test_wait_for_writer(void **state)
{
	struct handle *w = create(1, "a"), *h = NULL;
	struct test_waiter tw;
	uint64_t node;

	put_bytes(w, "all of it");
	node = wait_for(&tw, 2, "a");
	close_handle(1, w);
	CHECK(is_woken(&tw));
	CHECK_R(ask_again(&tw, 2, node, &h), 0);
	CHECK(reads(h, "all of it"));
	store_release(h);
	check_idle(1);
}

static void test_cancel_future(void **state)
{
	struct test_waiter tw;
	struct entry e;

	CHECK_R(declare("f"), 0);
	wait_for(&tw, 2, "f");
	CHECK_R(unlink_name("f"), 0);
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, -ECANCELED);
	CHECK_R(lookup(0, META_ROOT, "f", &e), -ENOENT);
	check_idle(0);
}

static void test_cancel_wait(void **state)
{
	struct test_waiter tw;
	struct handle *h = NULL;
	uint64_t node;

	CHECK_R(declare("f"), 0);
	node = wait_for(&tw, 2, "f");
	CHECK(store_cancel_wait(st, &tw.w));
	CHECK(tw.times == 0);
	check_idle(0);
	CHECK(!store_cancel_wait(st, &tw.w)); /* not listed: and it will not be any more */
	CHECK_R(open_node(2, node, O_RDONLY, &tw.w, &h), -EINTR);
	close_handle(1, open_write(1, "f", O_TRUNC));
	CHECK(tw.times == 0);
}

static void test_fail(void **state)
{
	struct handle *h = NULL;
	struct test_waiter tw;
	uint64_t node;

	CHECK_R(declare("f"), 0);
	node = wait_for(&tw, 2, "f");
	CHECK_R(set_attribute("f", "user.promisefs.error", "ENOSPC: no room"), 0);
	CHECK(is_woken(&tw));
	CHECK_R(ask_again(&tw, 2, node, &h), -ENOSPC);
	CHECK(state_is("f", "failed"));
	CHECK(attribute_is("f", "user.promisefs.error", "ENOSPC: no room"));
	CHECK_R(open_name(2, "f", O_RDONLY, NULL, &h), -ENOSPC);
	remount();
	CHECK_R(open_name(2, "f", O_RDONLY, NULL, &h), -ENOSPC);
	CHECK(attribute_is("f", "user.promisefs.error", "ENOSPC: no room"));
	h = open_write(1, "f", O_TRUNC); /* it may be written again, and settles anew */
	put_bytes(h, "second try");
	close_handle(1, h);
	has("f", "second try");
	CHECK_R(store_getxattr(st, &anybody, node_of("f"), "user.promisefs.error", NULL, 0), -ENODATA);
	CHECK_R(set_attribute("f", "user.promisefs.error", "too late"), -EEXIST);
	check_idle(1);
}

static void test_fail_reasons(void **state)
{
	struct handle *h = NULL;

	CHECK_R(declare("f"), 0);
	CHECK_R(set_attribute("f", "user.promisefs.error", "just because"), 0);
	CHECK_R(open_name(2, "f", O_RDONLY, NULL, &h), -EIO);
	CHECK(attribute_is("f", "user.promisefs.error", "EIO: just because"));
	CHECK_R(declare("f"), 0); /* once more */
	CHECK(state_is("f", "pending"));
	CHECK_R(set_attribute("f", "user.promisefs.error", "EAGAIN"), 0);
	CHECK_R(open_name(2, "f", O_RDONLY, NULL, &h), -EAGAIN);
}

static void test_future_killed(void **state)
{
	struct handle *w, *h = NULL;
	struct test_waiter tw;
	uint64_t node;

	CHECK_R(declare("f"), 0);
	node = wait_for(&tw, 2, "f");
	w = open_write(1, "f", O_TRUNC);
	put_bytes(w, "torn");
	CHECK_R(fsync_handle(w), 0); /* not even then */
	still_waits(&tw, 2, node);
	kill_writer(1, w);
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, 0);
	CHECK_R(ask_again(&tw, 2, node, &h), -EOWNERDEAD);
	CHECK(state_is("f", "failed"));
	torn_has("f", "torn");
	check_idle(1);
}

static void test_future_killed_waits(void **state)
{
	struct handle *w, *h = NULL;
	struct test_waiter tw;
	uint64_t node;

	unmount_store();
	options.producer_death_waits = true;
	mount_store(START);
	CHECK_R(declare("f"), 0);
	node = wait_for(&tw, 2, "f");
	w = open_write(1, "f", O_TRUNC);
	put_bytes(w, "torn");
	still_waits(&tw, 2, node);
	kill_writer(1, w);
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, 0);
	CHECK_R(ask_again(&tw, 2, node, &h), STORE_WAITING); /* whose number has changed meanwhile */
	CHECK(state_is("f", "pending"));
	w = open_write(4, "f", O_TRUNC);
	put_bytes(w, "whole");
	close_handle(4, w);
	CHECK(is_woken(&tw));
	h = open_read(2, "f");
	CHECK(reads(h, "whole"));
	store_release(h);
}

static void test_cancel_while_writing(void **state)
{
	struct test_waiter tw;
	struct handle *w;

	CHECK_R(declare("f"), 0);
	w = open_write(1, "f", O_TRUNC);
	wait_for(&tw, 2, "f");
	CHECK_R(unlink_name("f"), 0);
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, -ECANCELED);
	close_handle(1, w);
	check_idle(0);
}

/* ---- Time ---- */

static void test_deadline(void **state)
{
	struct handle *h = NULL;
	struct test_waiter tw;
	uint64_t node;

	CHECK_R(declare("f"), 0);
	CHECK_R(declare("g"), 0);
	CHECK_R(set_attribute("f", "user.promisefs.deadline", "60s"), 0);
	CHECK(attribute_is("f", "user.promisefs.deadline", "2023-11-14T22:14:20.000000000Z"));
	node = wait_for(&tw, 2, "f");
	clock_move(59 * SECOND);
	CHECK_R(set_attribute("g", "user.promisefs.deadline", "1h"), 0); /* the timer is set anew, by the clock as it is */
	CHECK(!woken_times(&tw, 1, 50));
	clock_move(2 * SECOND);
	CHECK_R(set_attribute("g", "user.promisefs.deadline", "1h"), 0);
	CHECK(is_woken(&tw));
	CHECK_R(ask_again(&tw, 2, node, &h), -ETIMEDOUT);
	CHECK(state_is("f", "failed"));
	CHECK(state_is("g", "pending"));
	check_idle(0);
}

/* The timer goes off by the machine's clock; that the deadline has passed is for the wall clock to say. */
static void test_deadline_clock_stands_still(void **state)
{
	struct test_waiter tw;

	CHECK_R(declare("f"), 0);
	CHECK_R(set_attribute("f", "user.promisefs.deadline", "20ms"), 0);
	wait_for(&tw, 2, "f");
	CHECK(!woken_times(&tw, 1, 100));
	CHECK(state_is("f", "pending"));
	clock_move(30 * MS);
	CHECK(is_woken(&tw));
	CHECK(state_is("f", "failed"));
}

static void test_deadline_past(void **state)
{
	struct test_waiter tw;

	CHECK_R(declare("f"), 0);
	wait_for(&tw, 2, "f");
	CHECK_R(set_attribute("f", "user.promisefs.deadline", "2001-01-01T00:00:00Z"), 0);
	CHECK(is_woken(&tw));
	CHECK(attribute_is("f", "user.promisefs.error", "ETIMEDOUT: its deadline has passed"));
}

static void test_deadline_bad(void **state)
{
	CHECK_R(declare("f"), 0);
	CHECK_R(set_attribute("f", "user.promisefs.deadline", "tomorrow"), -EINVAL);
	CHECK_R(set_attribute("f", "user.promisefs.deadline", "-5s"), -EINVAL);
	CHECK_R(set_attribute("f", "user.promisefs.deadline", "60s"), 0);
	CHECK_R(set_attribute("f", "user.promisefs.deadline", "none"), 0);
	CHECK_R(store_getxattr(st, &anybody, node_of("f"), "user.promisefs.deadline", NULL, 0), -ENODATA);
	put("plain", "x");
	CHECK_R(set_attribute("plain", "user.promisefs.deadline", "60s"), -EINVAL); /* it has settled */
}

static void test_deadline_kept(void **state)
{
	struct handle *h = NULL;

	CHECK_R(declare("f"), 0);
	CHECK_R(declare("g"), 0);
	CHECK_R(set_attribute("f", "user.promisefs.deadline", "60s"), 0);
	CHECK_R(set_attribute("g", "user.promisefs.deadline", "60s"), 0);
	close_handle(1, open_write(1, "g", O_TRUNC)); /* settled: nothing expires */
	unmount_store();
	mount_store(START + HOUR);
	for (unsigned i = 0; i < 500 && open_name(2, "f", O_RDONLY, NULL, &h) == STORE_MUST_WAIT; i++)
		usleep(10000);
	CHECK_R(open_name(2, "f", O_RDONLY, NULL, &h), -ETIMEDOUT);
	has("g", "");
}

static void test_wait_timeout(void **state)
{
	struct test_waiter a, b;

	unmount_store();
	options.wait_timeout = 40 * MS;
	mount_store(START);
	CHECK_R(declare("f"), 0);
	wait_for(&a, 2, "f");
	usleep(20000);
	wait_for(&b, 3, "f");
	CHECK(is_woken(&a) && is_woken(&b));
	CHECK_R(a.result, -ETIMEDOUT);
	CHECK_R(b.result, -ETIMEDOUT);
	CHECK(state_is("f", "pending")); /* the future knows nothing of it */
	check_idle(0);
}

static int wait_with(struct test_waiter *tw, int32_t tid, const char *name, int64_t patience)
{
	struct handle *h = NULL;

	waiter_init(tw);
	tw->w.limited = true;
	tw->w.patience = patience;
	return open_node(tid, node_of(name), O_RDONLY, &tw->w, &h);
}

/* Each waits as long as he says, in whatever order they come, and otherwise as the option says. */
static void test_wait_of_ones_own(void **state)
{
	static const int64_t patience[] = { 400 * MS, 60 * MS, -1, 200 * MS, 60 * MS, 61 * MS, HOUR };
	struct test_waiter tw[COUNT(patience)], plain;

	unmount_store();
	options.wait_timeout = 120 * MS;
	mount_store(START);
	CHECK_R(declare("f"), 0);
	CHECK_R(wait_with(&tw[0], 2, "f", 0), -ETIMEDOUT);
	for (unsigned i = 0; i < COUNT(patience); i++)
		CHECK_R(wait_with(&tw[i], 10 + (int)i, "f", patience[i]), STORE_WAITING);
	wait_for(&plain, 3, "f");
	CHECK(is_woken(&tw[1]) && is_woken(&tw[4]) && is_woken(&tw[5]) && is_woken(&plain));
	CHECK(is_woken(&tw[3]) && is_woken(&tw[0]));
	for (unsigned i = 0; i < COUNT(patience); i++)
		CHECK_R(tw[i].result, patience[i] < 0 || patience[i] == HOUR ? 0 : -ETIMEDOUT);
	CHECK(sleeps(&tw[2]) && sleeps(&tw[6]));
	CHECK(store_cancel_wait(st, &tw[2].w) && store_cancel_wait(st, &tw[6].w));
	check_idle(0);
}

/* It is the open that may not take longer, not each of the things that it waits for. */
static void test_wait_of_the_whole_open(void **state)
{
	struct test_waiter tw;
	struct handle *h = NULL;

	CHECK_R(declare("f"), 0);
	CHECK_R(wait_with(&tw, 2, "f", 200 * MS), STORE_WAITING);
	usleep(100000);
	CHECK(store_cancel_wait(st, &tw.w)); /* as if it were woken for another reason */
	tw.w.cancelled = false;
	CHECK_R(ask_again(&tw, 2, node_of("f"), &h), STORE_WAITING);
	CHECK(tw.w.until - tw.w.began == 200 * MS);
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, -ETIMEDOUT);
	CHECK_R(ask_again(&tw, 2, node_of("f"), &h), -ETIMEDOUT);
	check_idle(0);
}

/* ---- Closing: FLUSH has been answered, RELEASE is on its way ---- */

static void test_closing(void **state)
{
	struct handle *w, *h = NULL;
	struct test_waiter tw;
	uint64_t node;

	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "new");
	CHECK_R(flush(1, w), 0);
	node = wait_for(&tw, 2, "a"); /* whoever comes now must see what was closed */
	store_release(w);
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, 0);
	CHECK_R(ask_again(&tw, 2, node, &h), 0); /* the look-up has given the draft */
	CHECK(reads(h, "new"));
	store_release(h);
	has("a", "new");
}

/* What stat(2) says of it meanwhile is what it will be. */
static void test_closing_is_seen(void **state)
{
	struct handle *w;
	struct entry e;

	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "newer");
	CHECK(size_of("a") == 3);
	CHECK_R(flush(1, w), 0);
	CHECK_R(lookup(2, META_ROOT, "a", &e), 0);
	CHECK(e.o.size == 5 && e.node == handle_vid(w) && !e.stable);
	store_release(w);
	CHECK_R(lookup(2, META_ROOT, "a", &e), 0);
	CHECK(e.o.size == 5 && e.stable);
}

/* Two have closed it, and RELEASE of both is on its way: whoever comes now waits for them. */
static void test_closing_by_two(void **state)
{
	struct handle *w1, *w2, *h = NULL;
	struct test_waiter tw;
	uint64_t node;

	put("a", "old");
	w1 = open_write(1, "a", O_TRUNC);
	w2 = open_write(4, "a", 0);
	put_bytes(w1, "new");
	CHECK_R(flush(1, w1), 0);
	has("a", "old"); /* the other one goes on writing */
	CHECK_R(flush(4, w2), 0);
	node = wait_for(&tw, 3, "a");
	store_release(w1);
	still_waits(&tw, 3, node);
	store_release(w2);
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, 0);
	CHECK_R(ask_again(&tw, 3, node, &h), 0);
	CHECK(reads(h, "new"));
	store_release(h);
	has("a", "new");
}

/* A child has the descriptor: nobody waits for it, or only the first one. */
static void test_closing_held_up(void **state)
{
	struct handle *w, *h = NULL;
	struct test_waiter tw;
	uint64_t node;

	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "new");
	CHECK_R(flush(1, w), 0);
	node = wait_for(&tw, 2, "a");
	others_hold = true;
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, 0);
	CHECK_R(ask_again(&tw, 2, node, &h), -ESTALE);
	CHECK_R(open_name(2, "a", O_RDONLY, NULL, &h), 0);
	CHECK(reads(h, "old"));
	store_release(h);
	CHECK_R(open_name(3, "a", O_RDONLY, NULL, &h), 0);
	CHECK(reads(h, "old"));
	store_release(h);
	CHECK_R(flush(1, w), 0);
	CHECK_R(open_name(3, "a", O_RDONLY, NULL, &h), STORE_MUST_WAIT); /* it has been closed once more */
	store_release(w);
	has("a", "new");
	check_idle(1);
}

/* Nobody has it, so RELEASE cannot be far, however busy the machine is. */
static void test_closing_slowly(void **state)
{
	struct handle *w, *h = NULL;
	struct test_waiter tw;
	uint64_t node;

	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "new");
	CHECK_R(flush(1, w), 0);
	node = wait_for(&tw, 2, "a");
	for (unsigned i = 0; i < 5; i++) {
		CHECK(is_woken(&tw));
		CHECK_R(tw.result, 0);
		CHECK_R(ask_again(&tw, 2, node, &h), STORE_WAITING);
	}
	store_release(w);
	CHECK(is_woken(&tw));
	CHECK_R(ask_again(&tw, 2, node, &h), 0);
	CHECK(reads(h, "new"));
	store_release(h);
	has("a", "new");
	check_idle(1);
}

/* But not for ever: there are ways to keep a file open that are not seen. */
static void test_closing_never(void **state)
{
	struct handle *w, *h = NULL;
	struct test_waiter tw;
	unsigned waited = 0;
	uint64_t node;
	int r;

	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "new");
	CHECK_R(flush(1, w), 0);
	node = wait_for(&tw, 2, "a");
	do {
		CHECK(is_woken(&tw));
		r = ask_again(&tw, 2, node, &h);
	} while (r == STORE_WAITING && ++waited < 200);
	CHECK_R(r, -ESTALE);
	CHECK(waited > 2);
	CHECK_R(open_name(2, "a", O_RDONLY, NULL, &h), 0);
	CHECK(reads(h, "old"));
	store_release(h);
	store_release(w);
	has("a", "new");
}

/* ---- Await ---- */

static void test_await(void **state)
{
	struct test_waiter tw;
	struct handle *w;

	waiter_init(&tw);
	CHECK_R(await_key(&tw, 2, "k"), STORE_WAITING);
	put("other", "x");
	CHECK(sleeps(&tw));
	w = create(1, "k");
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, 0);
	tw.times = 0;
	CHECK_R(await_key(&tw, 2, "k"), STORE_WAITING); /* it is there, but not whole */
	put_bytes(w, "whole");
	close_handle(1, w);
	CHECK(is_woken(&tw));
	CHECK_R(await_key(&tw, 2, "k"), 0);
	has("k", "whole");
	check_idle(2);
}

static void await_woken_by(const char *name, int (*step)(const char *name))
{
	struct test_waiter tw;

	waiter_init(&tw);
	CHECK_R(await_key(&tw, 2, name), STORE_WAITING);
	CHECK_R(step(name), 0);
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, 0);
}

static int by_rename(const char *name)
{
	const struct caller mover = who(3);

	return COMMITTED(store_rename(st, &mover, META_ROOT, "there", META_ROOT, name, 0, c));
}

static int by_mknod(const char *name)
{
	const struct caller maker = who(3);
	const struct node_new n = { .mode = S_IFREG | 0600 };
	struct entry e;

	return COMMITTED(store_make(st, &maker, META_ROOT, name, &n, &e, c));
}

static int by_open(const char *name)
{
	const struct caller maker = who(3);
	struct handle *h = NULL;
	struct entry e;
	int r = store_create(st, &maker, META_ROOT, name, 0600, O_RDONLY, &e, &h);

	if (r == 0)
		store_release(h);
	return r;
}

static void test_await_any_way(void **state)
{
	put("there", "x");
	await_woken_by("k1", declare);
	await_woken_by("k2", by_rename);
	await_woken_by("k3", by_link);
	await_woken_by("k4", by_mknod);
	await_woken_by("k5", by_open);
	has("k4", "");
	has("k5", "");
	check_idle(3);
}

static void test_await_cancel(void **state)
{
	struct test_waiter tw;

	waiter_init(&tw);
	CHECK_R(await_key(&tw, 2, "k"), STORE_WAITING);
	CHECK(store_cancel_wait(st, &tw.w));
	put("k", "x");
	CHECK(tw.times == 0);
	check_idle(1);
}

/* ---- O_NONBLOCK ---- */

static void test_unsettled(void **state)
{
	const struct caller reader = who(2);
	struct handle *h = NULL, *w;

	settled = 0;
	CHECK_R(declare("f"), 0);
	CHECK_R(store_open_unsettled(st, &reader, node_of("f"), O_RDONLY | O_NONBLOCK, &h), 0);
	CHECK_R(handle_settled(h), -EAGAIN);
	CHECK_R(handle_fd(h), -EAGAIN);
	handle_on_settle(h, on_settle, NULL, NULL);
	w = open_write(1, "f", O_TRUNC);
	put_bytes(w, "now");
	CHECK(settled == 0);
	close_handle(1, w);
	replace("f", "later"); /* the handle is of what it settled as */
	CHECK(settled == 1);
	CHECK_R(handle_settled(h), 0);
	CHECK(reads(h, "now"));
	store_release(h);
	check_idle(1);
}

static void test_unsettled_fails(void **state)
{
	const struct caller reader = who(2);
	struct handle *a = NULL, *b = NULL;

	CHECK_R(declare("f"), 0);
	CHECK_R(declare("g"), 0);
	CHECK_R(store_open_unsettled(st, &reader, node_of("f"), O_RDONLY | O_NONBLOCK, &a), 0);
	CHECK_R(store_open_unsettled(st, &reader, node_of("g"), O_RDONLY | O_NONBLOCK, &b), 0);
	CHECK_R(set_attribute("f", "user.promisefs.error", "EXDEV"), 0);
	CHECK_R(unlink_name("g"), 0);
	CHECK_R(handle_settled(a), -EXDEV);
	CHECK_R(handle_settled(b), -ECANCELED);
	store_release(a);
	store_release(b);
	check_idle(0);
}

static bool front_ended, ended_too_early;

static void end_front(void *front)
{
	front_ended = true;
}

static void released_while_told(struct handle *h)
{
	settled++;
	store_release(h);
	ended_too_early = front_ended; /* whoever is told still looks at it */
}

static void test_unsettled_released_while_it_settles(void **state)
{
	const struct caller reader = who(2);
	struct handle *h = NULL;

	settled = 0;
	front_ended = ended_too_early = false;
	CHECK_R(declare("f"), 0);
	CHECK_R(store_open_unsettled(st, &reader, node_of("f"), O_RDONLY | O_NONBLOCK, &h), 0);
	handle_on_settle(h, released_while_told, end_front, NULL);
	replace("f", "now");
	CHECK(settled == 1 && !ended_too_early && front_ended);
	check_idle(1);
}

static void test_unsettled_awaits(void **state)
{
	const struct caller reader = who(2);
	struct handle *h = NULL, *never = NULL;

	settled = 0;
	CHECK_R(store_await_unsettled(st, &reader, META_ROOT, "k", O_RDONLY | O_NONBLOCK, &h), 0);
	CHECK_R(store_await_unsettled(st, &reader, META_ROOT, "never", O_RDONLY | O_NONBLOCK, &never), 0);
	handle_on_settle(h, on_settle, NULL, NULL);
	kill_writer(1, create(1, "k")); /* that was nothing */
	CHECK_R(handle_settled(h), -EAGAIN);
	put("k", "here");
	CHECK_R(handle_settled(h), 0);
	CHECK(settled == 1);
	CHECK(reads(h, "here"));
	CHECK_R(handle_settled(never), -EAGAIN);
	store_release(never); /* while it waits */
	store_release(h);
	check_idle(1);
}

/* ---- Waiting for each other ---- */

static void test_deadlock_of_two(void **state)
{
	struct handle *a = create(1, "a"), *b = create(4, "b"), *h = NULL;
	struct test_waiter tw, other;

	wait_for(&tw, 1, "b"); /* 1 writes a and waits for b */
	waiter_init(&other);
	CHECK_R(open_node(4, node_of("a"), O_RDONLY, &other.w, &h), -EDEADLK); /* 4 would close the circle */
	CHECK(!other.w.listed);
	CHECK(sleeps(&tw));
	close_handle(4, b);
	CHECK(is_woken(&tw));
	close_handle(1, a);
	check_idle(2);
}

/* When somebody else may finish the draft, it is no deadlock. */
static void test_no_deadlock(void **state)
{
	struct handle *a = create(1, "a"), *b = create(4, "b");
	struct test_waiter one, two;

	others_hold = true;
	wait_for(&one, 1, "b");
	wait_for(&two, 4, "a");
	close_handle(1, a);
	CHECK(is_woken(&two));
	close_handle(4, b);
	CHECK(is_woken(&one));
	check_idle(2);
}

static void test_deadlock_of_three(void **state)
{
	struct handle *a = create(1, "a"), *b = create(4, "b"), *d = create(5, "d"), *h = NULL;
	struct test_waiter one, two, three;

	wait_for(&one, 1, "b");
	wait_for(&two, 4, "d");
	waiter_init(&three);
	CHECK_R(open_node(5, node_of("a"), O_RDONLY, &three.w, &h), -EDEADLK);
	close_handle(5, d);
	CHECK(is_woken(&two));
	close_handle(4, b);
	CHECK(is_woken(&one));
	close_handle(1, a);
}

/* A second writer who does not wait can still finish it. */
static void test_deadlock_not_all(void **state)
{
	struct handle *a = create(1, "a"), *also = open_write(6, "a", 0), *b = create(4, "b");
	struct test_waiter one, two;

	wait_for(&one, 1, "b");
	wait_for(&two, 4, "a");
	close_handle(1, a);
	close_handle(6, also);
	CHECK(is_woken(&two));
	close_handle(4, b);
	CHECK(is_woken(&one));
}

/* Somebody may have looked it up before it was taken back, and the kernel keeps what he saw. */
static void test_taken_back_is_told(void **state)
{
	const struct caller c1 = who(1);
	const struct node_new fifo = { .mode = S_IFIFO | 0644 }, folder = { .mode = S_IFDIR | 0755 };
	const struct attribute_change ch = { .which = CHANGE_MODE, .mode = 0600 };
	struct entry e;
	unsigned told;

	CHECK_R(declare("there"), 0);
	put("k", "text");
	record_all();
	told = invalidations;
	commits_fail(1);
	CHECK_R(declare("f"), -EIO);
	CHECK(invalidations == told + 1 && forgotten == 1);
	CHECK_R(lookup(0, META_ROOT, "f", &e), -ENOENT);
	commits_fail(3);
	CHECK_R(COMMITTED(store_make(st, &c1, META_ROOT, "made", &fifo, &e, c)), -EIO);
	CHECK_R(COMMITTED(store_make(st, &c1, META_ROOT, "dir", &folder, &e, c)), -EIO);
	CHECK_R(COMMITTED(store_link(st, &c1, node_of("k"), META_ROOT, "link", &e, c)), -EIO);
	CHECK(invalidations == told + 4);
	commits_fail(2);
	CHECK_R(COMMITTED(store_rename(st, &c1, META_ROOT, "k", META_ROOT, "k2", 0, c)), -EIO);
	CHECK(invalidations == told + 5);
	told = forgotten;
	CHECK_R(COMMITTED(store_setattr(st, &c1, node_of("k"), &ch, &e, c)), -EIO);
	CHECK(forgotten == told + 1);
	CHECK_R(COMMITTED(store_setattr(st, &c1, node_of("k"), &ch, &e, c)), 0);
	CHECK(forgotten == told + 1); /* what is recorded is as the kernel knows it */
	has("k", "text");
	check_idle(1);
}

/* By another node than the key's: the names first, for whoever is looking one up, and then the attributes. */
static void test_changed_unseen_is_told(void **state)
{
	struct caller c1 = who(1);
	const struct attribute_change ch = { .which = CHANGE_MODE, .mode = 0600 };
	struct entry e;
	unsigned names, nodes;

	CHECK_R(declare("f"), 0);
	c1.unseen = true;
	names = invalidations;
	nodes = forgotten;
	CHECK_R(COMMITTED(store_setattr(st, &c1, node_of("f"), &ch, &e, c)), 0);
	CHECK(invalidations == names + 1 && forgotten == nodes + 1);
	CHECK_R(COMMITTED(store_setxattr(st, &c1, node_of("f"), "user.mine", "1", 1, 0, c)), 0);
	CHECK(invalidations == names + 2 && forgotten == nodes + 2);
	CHECK_R(COMMITTED(store_removexattr(st, &c1, node_of("f"), "user.mine", c)), 0);
	CHECK(invalidations == names + 3 && forgotten == nodes + 3);
	check_idle(0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_future),
		TEST(test_future_asked),
		TEST(test_future_set_by_rename),
		TEST(test_wait_for_writer),
		TEST(test_cancel_future),
		TEST(test_cancel_wait),
		TEST(test_fail),
		TEST(test_fail_reasons),
		TEST(test_future_killed),
		TEST(test_future_killed_waits),
		TEST(test_cancel_while_writing),
		TEST(test_deadline),
		TEST(test_deadline_clock_stands_still),
		TEST(test_deadline_past),
		TEST(test_deadline_bad),
		TEST(test_deadline_kept),
		TEST(test_wait_timeout),
		TEST(test_wait_of_ones_own),
		TEST(test_wait_of_the_whole_open),
		TEST(test_closing),
		TEST(test_closing_is_seen),
		TEST(test_closing_by_two),
		TEST(test_closing_held_up),
		TEST(test_closing_slowly),
		TEST(test_closing_never),
		TEST(test_await),
		TEST(test_await_any_way),
		TEST(test_await_cancel),
		TEST(test_unsettled),
		TEST(test_unsettled_fails),
		TEST(test_unsettled_released_while_it_settles),
		TEST(test_unsettled_awaits),
		TEST(test_deadlock_of_two),
		TEST(test_no_deadlock),
		TEST(test_deadlock_of_three),
		TEST(test_deadlock_not_all),
		TEST(test_taken_back_is_told),
		TEST(test_changed_unseen_is_told),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

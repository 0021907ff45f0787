/* The store: those who wait for their turn to borrow. */
#include "tests/unit/borrow_rig.h"

/* ---- The queue ---- */

static void test_queue(void **state)
{
	put("k", "x");
	CHECK_R(borrow("k", "mut/M"), 0);
	queue(5, "k", "ref/A");
	CHECK_R(borrow("k", "ref/Z"), -EBUSY);
	queue(6, "k", "ref/B");
	queue(7, "k", "mut/C");
	queue(8, "k", "ref/D");
	CHECK(attribute_is("k", "user.promisefs.borrows", "mut"));
	CHECK(handle_attribute_is("ref/A", "user.promisefs.state", "waiting"));
	CHECK_R(drop("mut/M"), 0);
	CHECK(has_turn("ref/A") && has_turn("ref/B"));
	CHECK(in_line("mut/C") && in_line("ref/D")); /* nobody overtakes */
	CHECK_R(borrow("k", "ref/Z"), -EBUSY);      /* nor does anybody who does not wait */
	CHECK(attribute_is("k", "user.promisefs.borrows", "ref 2"));
	CHECK(handle_attribute_is("ref/A", "user.promisefs.state", "ready"));
	CHECK_R(drop("ref/A"), 0);
	CHECK(in_line("mut/C") && in_line("ref/D"));
	CHECK_R(drop("ref/B"), 0);
	CHECK(has_turn("mut/C") && in_line("ref/D"));
	replace_through("mut/C", "new");
	CHECK(in_line("ref/D"));
	CHECK_R(drop("mut/C"), 0);
	CHECK(has_turn("ref/D"));
	handle_has("ref/D", "new");
	CHECK_R(drop("ref/D"), 0);
	check_idle(1);
	CHECK(log_is("k", "put; borrow mut/M; release mut/M; borrow ref/A; borrow ref/B; release ref/A; release ref/B; "
			  "borrow mut/C; put; release mut/C; borrow ref/D; release ref/D"));
}

static void test_queue_empty(void **state)
{
	const struct caller c5 = who(5);

	put("k", "x");
	CHECK_R(queue_as(&c5, node_of("k"), "ref/A"), 0);
	CHECK(has_turn("ref/A"));
	CHECK_R(queue_as(&c5, node_of("k"), "ref/A"), -EEXIST);
	CHECK_R(drop("ref/A"), 0);
	check_idle(1);
}

/* Whoever opens a handle that is in line waits with it. */
static void test_queue_opened(void **state)
{
	struct test_waiter r1, r2, mut;
	struct handle *h = NULL;
	uint64_t node, mut_node;

	put("k", "x");
	CHECK_R(borrow("k", "mut/M"), 0);
	queue(5, "k", "ref/A");
	queue(5, "k", "mut/B");
	node = wait_for_turn(&r1, 5, "ref/A", O_RDONLY);
	wait_for_turn(&r2, 6, "ref/A", O_RDONLY);
	mut_node = wait_for_turn(&mut, 7, "mut/B", O_WRONLY | O_TRUNC);
	replace_through("mut/M", "new");
	CHECK_R(drop("mut/M"), 0);
	CHECK(is_woken(&r1) && is_woken(&r2) && sleeps(&mut));
	CHECK_R(r1.result, 0);
	CHECK_R(open_via(5, VIA_REF, node, O_RDONLY, &r1.w, &h), 0);
	CHECK(reads(h, "new"));
	store_release(h);
	CHECK_R(drop("ref/A"), 0);
	CHECK(is_woken(&mut));
	CHECK_R(mut.result, 0);
	h = NULL;
	CHECK_R(open_via(7, VIA_REF, mut_node, O_WRONLY | O_TRUNC, &mut.w, &h), -ESTALE); /* from now on it has a version */
	h = write_through(7, "mut/B", O_TRUNC);
	put_bytes(h, "by B");
	close_handle(7, h);
	CHECK_R(drop("mut/B"), 0);
	has("k", "by B");
	check_idle(1);
}

/* To write through an immutable borrow: that no waiting mends. */
static void test_queue_written(void **state)
{
	struct handle *h = NULL;
	struct test_waiter tw;
	struct entry e;

	put("k", "x");
	CHECK_R(borrow("k", "mut/M"), 0);
	queue(5, "k", "ref/A");
	CHECK_R(look(0, "ref/A", &e), 0);
	waiter_init(&tw);
	CHECK_R(open_via(8, VIA_REF, e.node, O_WRONLY, &tw.w, &h), -EACCES);
	CHECK_R(drop("ref/A"), 0);
	CHECK_R(drop("mut/M"), 0);
	check_idle(1);
}

static void test_queue_for_writer(void **state)
{
	struct handle *w;

	put("k", "old");
	w = open_write(1, "k", O_TRUNC);
	queue(5, "k", "ref/A");
	put_bytes(w, "new");
	CHECK(in_line("ref/A"));
	close_handle(1, w);
	handle_has("ref/A", "new");
	CHECK_R(drop("ref/A"), 0);
	w = open_write(1, "k", 0); /* closed without a change */
	queue(5, "k", "mut/A");
	close_handle(1, w);
	CHECK(has_turn("mut/A"));
	CHECK_R(drop("mut/A"), 0);
	w = open_write(1, "k", O_TRUNC);
	queue(5, "k", "mut/A");
	kill_writer(1, w);
	CHECK(has_turn("mut/A"));
	CHECK_R(drop("mut/A"), 0);
	CHECK_R(declare("f"), 0);
	queue(5, "f", "mut/A");
	queue(6, "f", "ref/B");
	queue(7, "f", "ref/C");
	replace("f", "first");
	CHECK(has_turn("mut/A") && in_line("ref/B") && in_line("ref/C"));
	CHECK_R(drop("mut/A"), 0);
	CHECK(has_turn("ref/B") && has_turn("ref/C"));
	CHECK_R(drop("ref/B"), 0);
	CHECK_R(drop("ref/C"), 0);
	check_idle(2);
}

/* Who waits in line holds up nobody who writes: he does not hold it yet. */
static void test_queue_writer_between(void **state)
{
	struct handle *w, *x;

	put("k", "old");
	w = open_write(1, "k", O_TRUNC);
	queue(5, "k", "ref/A");
	x = open_write(4, "k", 0);
	put_bytes(w, "new");
	close_handle(1, w);
	CHECK(in_line("ref/A"));
	close_handle(4, x);
	handle_has("ref/A", "new");
	CHECK_R(drop("ref/A"), 0);
	check_idle(1);
}

/* Dropped while they are in line, in the middle and as the first one. */
static void test_queue_dropped(void **state)
{
	struct test_waiter tw;

	put("k", "x");
	CHECK_R(borrow("k", "ref/R"), 0);
	queue(5, "k", "mut/A");
	queue(6, "k", "mut/B");
	queue(7, "k", "ref/C");
	wait_for_turn(&tw, 8, "mut/B", O_RDONLY);
	CHECK_R(drop("mut/B"), 0);
	CHECK(is_woken(&tw));
	CHECK(tw.result < 0);
	CHECK(in_line("mut/A") && in_line("ref/C"));
	CHECK_R(drop("mut/A"), 0);
	CHECK(has_turn("ref/C")); /* what he waited for has gone with the first one */
	CHECK_R(drop("ref/R"), 0);
	CHECK_R(drop("ref/C"), 0);
	CHECK(attribute_is("k", "user.promisefs.borrows", "none"));
	check_idle(1);
}

static void test_queue_interrupted(void **state)
{
	struct test_waiter tw;

	put("k", "x");
	CHECK_R(borrow("k", "ref/R"), 0);
	queue(5, "k", "mut/A");
	wait_for_turn(&tw, 5, "mut/A", O_RDONLY);
	CHECK(store_cancel_wait(st, &tw.w));
	CHECK(in_line("mut/A")); /* only he gives up, not the handle */
	CHECK_R(drop("ref/R"), 0);
	CHECK(has_turn("mut/A") && tw.times == 0);
	CHECK_R(drop("mut/A"), 0);
	check_idle(1);
}

static void test_queue_remount(void **state)
{
	put("k", "x");
	CHECK_R(borrow("k", "mut/M"), 0);
	queue(5, "k", "ref/A");
	queue(6, "k", "mut/B");
	remount();
	CHECK(in_line("ref/A") && in_line("mut/B"));
	CHECK_R(borrow("k", "ref/Z"), -EBUSY);
	CHECK_R(drop("mut/M"), 0);
	CHECK(has_turn("ref/A") && in_line("mut/B"));
	remount();
	CHECK(in_line("mut/B"));
	CHECK_R(drop("ref/A"), 0);
	CHECK(has_turn("mut/B"));
	CHECK_R(drop("mut/B"), 0);
	check_idle(1);
}

static struct handle *never_closed;

/* What stood in the way went with the daemon. */
static void test_queue_remount_turn(void **state)
{
	put("k", "x");
	never_closed = open_write(1, "k", O_TRUNC);
	queue(5, "k", "mut/A");
	unmount_store();
	free(never_closed);
	mount_store(START);
	CHECK(has_turn("mut/A"));
	CHECK_R(drop("mut/A"), 0);
	check_idle(1);
}

/* However the object goes away, its queue goes with it. */
static void test_queue_gone(void **state)
{
	struct test_waiter tw;
	struct entry l;

	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	put("k", "x");
	CHECK_R(join(l.o.id, "k", "k"), 0);
	CHECK_R(borrow("k", "ref/R"), 0);
	queue(5, "k", "mut/A");
	queue(6, "k", "ref/B");
	wait_for_turn(&tw, 7, "mut/A", O_RDONLY);
	CHECK_R(end_lifetime("L"), 0);
	CHECK(is_woken(&tw));
	CHECK(tw.result < 0);
	CHECK(!held_as("mut/A") && !held_as("ref/B") && held_as("ref/R"));
	CHECK_R(drop("ref/R"), 0);
	CHECK_R(declare("f"), 0);
	queue(5, "f", "mut/A");
	CHECK_R(unlink_name("f"), 0);
	CHECK(!held_as("mut/A"));
	CHECK_R(declare("f"), 0);
	put("new", "new");
	queue(5, "f", "mut/A");
	CHECK_R(move("new", "f"), 0);
	CHECK(!held_as("mut/A"));
	CHECK_R(unlink_name("f"), 0);
	check_idle(0);
}

static int see_borrower(void *arg, const struct wait_info *w)
{
	char *text = arg;

	sprintf(text + strlen(text), "%s %s %s;", w->key, w->state, w->handle != NULL ? w->handle : "-");
	return 0;
}

static void test_queue_seen(void **state)
{
	char text[256] = "";
	struct test_waiter a, b;

	put("k", "x");
	CHECK_R(borrow("k", "ref/R"), 0);
	queue(5, "k", "mut/A");
	queue(6, "k", "ref/B");
	wait_for_turn(&a, 5, "mut/A", O_RDONLY);
	wait_for_turn(&b, 6, "ref/B", O_RDONLY);
	CHECK_R(store_waits(st, see_borrower, text), 0);
	CHECK(strcmp(text, "k borrowed mut/A;k borrowed ref/B;") == 0);
	CHECK(store_cancel_wait(st, &b.w) && store_cancel_wait(st, &a.w));
	CHECK_R(drop("mut/A"), 0);
	CHECK_R(drop("ref/B"), 0);
	CHECK_R(drop("ref/R"), 0);
	check_idle(1);
}

/* A lease, a process, a lifetime of a handle that is in line. */
static void test_queue_ends(void **state)
{
	starts[9] = 100;
	put("k", "x");
	CHECK_R(borrow("k", "mut/M"), 0);
	queue(5, "k", "ref/A");
	queue(5, "k", "mut/B");
	queue(5, "k", "ref/C");
	CHECK_R(set_handle_attribute("ref/A", "user.promisefs.pid", "9"), 0);
	CHECK_R(set_handle_attribute("mut/B", "user.promisefs.pid", "9"), 0);
	CHECK_R(store_process_ended(st, 9, 100), 0);
	CHECK(!held_as("ref/A") && !held_as("mut/B") && in_line("ref/C"));
	CHECK_R(drop("mut/M"), 0);
	CHECK(has_turn("ref/C"));
	CHECK_R(drop("ref/C"), 0);
	check_idle(1);
}

/* With O_NONBLOCK: a descriptor that settles with the turn. */
static void test_queue_unsettled(void **state)
{
	const struct caller c6 = who_via(6, VIA_REF);
	struct handle *h = NULL, *dropped = NULL;
	struct entry e;

	put("k", "x");
	CHECK_R(borrow("k", "mut/M"), 0);
	queue(5, "k", "ref/A");
	queue(5, "k", "ref/B");
	CHECK_R(look(6, "ref/A", &e), 0);
	CHECK_R(store_open_unsettled(st, &c6, e.node, O_RDONLY | O_NONBLOCK, &h), 0);
	CHECK_R(handle_settled(h), -EAGAIN);
	CHECK_R(look(6, "ref/B", &e), 0);
	CHECK_R(store_open_unsettled(st, &c6, e.node, O_RDONLY | O_NONBLOCK, &dropped), 0);
	CHECK_R(drop("ref/B"), 0);
	CHECK(handle_settled(dropped) < 0 && handle_settled(dropped) != -EAGAIN);
	replace_through("mut/M", "new");
	CHECK_R(handle_settled(h), -EAGAIN);
	CHECK_R(drop("mut/M"), 0);
	CHECK_R(handle_settled(h), 0);
	CHECK(reads(h, "new"));
	store_release(h);
	store_release(dropped);
	CHECK_R(drop("ref/A"), 0);
	check_idle(1);
}

/* The one who takes it comes before those in line, or after them: never both. */
static void test_queue_taken(void **state)
{
	const struct caller c6 = who_via(6, VIA_ONCE);
	struct handle *h = NULL;

	CHECK_R(declare("f"), 0);
	CHECK_R(store_open_unsettled(st, &c6, node_of("f"), O_RDONLY | O_NONBLOCK, &h), 0);
	queue(5, "f", "ref/A");
	queue(5, "f", "mut/B");
	replace("f", "data");
	if (handle_settled(h) == 0) {
		CHECK(h->takes && reads(h, "data") && !is_there("f"));
		CHECK(!held_as("ref/A") && !held_as("mut/B"));
	} else {
		CHECK_R(handle_settled(h), -EBUSY);
		CHECK(has_turn("ref/A") && in_line("mut/B"));
		CHECK_R(drop("mut/B"), 0);
		CHECK_R(drop("ref/A"), 0);
		CHECK_R(unlink_name("f"), 0);
	}
	CHECK_R(flush(6, h), 0);
	store_release(h);
	check_idle(0);
	remount();
	check_idle(0);
}

/* In line for reading what another one is in line to write. */
static void test_queue_moved(void **state)
{
	put("k", "x");
	put("l", "y");
	CHECK_R(borrow("k", "mut/M"), 0);
	queue(5, "k", "ref/A");
	queue(5, "k", "ref/B");
	CHECK_R(rename_to(META_REF, "A", META_REF, "A2", 0), 0);
	CHECK(in_line("ref/A2"));
	CHECK_R(rename_to(META_REF, "A2", META_REF, "B", 0), 0); /* which drops B */
	CHECK(in_line("ref/B"));
	CHECK_R(rename_to(META_ROOT, "k", META_ROOT, "k2", 0), 0);
	CHECK_R(drop("mut/M"), 0);
	CHECK(has_turn("ref/B"));
	CHECK(attribute_is("k2", "user.promisefs.borrows", "ref 1"));
	CHECK_R(drop("ref/B"), 0);
	check_idle(2);
}

/* A close that was called is waited for, but not one that somebody else holds up. */
static void test_closing(void **state)
{
	const struct caller c5 = who(5);
	struct test_borrowing a;
	struct handle *w;
	int r;

	put("k", "old");
	w = open_write(1, "k", O_TRUNC);
	put_bytes(w, "new");
	CHECK_R(flush(1, w), 0);
	CHECK_R(begin_borrow(&a, &c5, node_of("k"), "ref/A", false), STORE_WAITING);
	CHECK(a.b.waiter.listed && a.woken == 0);
	store_release(w);
	CHECK(woken_with(&a, 0));
	CHECK_R(store_borrow(st, &a.b, &a.s.c), 0); /* its version is another one now, and that is what is borrowed */
	CHECK(sync_wait(&a.s) && a.s.result == 0);
	handle_has("ref/A", "new");
	CHECK_R(drop("ref/A"), 0);
	w = open_write(1, "k", O_TRUNC);
	put_bytes(w, "held up");
	CHECK_R(flush(1, w), 0);
	others_hold = true;
	CHECK_R(begin_borrow(&a, &c5, node_of("k"), "ref/A", false), STORE_WAITING);
	CHECK(woken_with(&a, 0));
	a.woken = 0;
	r = store_borrow(st, &a.b, &a.s.c);
	CHECK_R(r, -EBUSY);
	store_release(w);
	CHECK_R(borrow("k", "ref/A"), 0);
	handle_has("ref/A", "held up");
	CHECK_R(drop("ref/A"), 0);
	check_idle(1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_queue),
		TEST(test_queue_empty),
		TEST(test_queue_opened),
		TEST(test_queue_written),
		TEST(test_queue_for_writer),
		TEST(test_queue_writer_between),
		TEST(test_queue_dropped),
		TEST(test_queue_interrupted),
		TEST(test_queue_remount),
		TEST(test_queue_remount_turn),
		TEST(test_queue_gone),
		TEST(test_queue_seen),
		TEST(test_queue_ends),
		TEST(test_queue_unsettled),
		TEST(test_queue_taken),
		TEST(test_queue_moved),
		TEST(test_closing),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

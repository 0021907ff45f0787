/* The store: how borrows end, by themselves or with what they stand for, and what a crash or a full disk leaves of
 * them. */
#include "tests/unit/borrow_rig.h"

/* ---- Taking a mutable borrow away while it is written ---- */

static int open_in_steps(int32_t tid, const char *handle, int flags, uint64_t *node, uint64_t *prepare)
{
	const struct caller c = who_via(tid, via_of(handle));
	struct handle *h = NULL;
	struct entry e;
	int r;

	CHECK_R(look(tid, handle, &e), 0);
	r = store_open(st, &c, e.node, flags, NULL, &h, prepare);
	if (r == -ESTALE) {
		CHECK_R(look(tid, handle, &e), 0);
		r = store_open(st, &c, e.node, flags, NULL, &h, prepare);
	}
	*node = e.node;
	return r;
}

static void revoke_while_written(int flags, const char *expected)
{
	struct handle *w, *h = NULL;

	put("k", "old");
	CHECK_R(borrow("k", "mut/M"), 0);
	w = write_through(1, "mut/M", flags);
	append_bytes(w, 'x', 5);
	CHECK_R(drop("mut/M"), 0);
	CHECK_R(flush(1, w), -EBUSY);
	append_bytes(w, 'y', 5); /* nobody stops him, but it is for nothing */
	CHECK_R(fsync_handle(w), -EBUSY);
	CHECK_R(flush(1, w), -EBUSY);
	has("k", expected);
	CHECK_R(borrow("k", "mut/N"), 0); /* meanwhile it is somebody else's */
	replace_through("mut/N", "theirs");
	store_release(w);
	CHECK_R(drop("mut/N"), 0);
	has("k", "theirs");
	CHECK_R(open_handle(1, "mut/M", O_WRONLY, &h), -ENOENT);
	check_idle(1);
}

static void test_revoke(void **state)
{
	revoke_while_written(O_TRUNC, "old");
}

static void test_revoke_update(void **state)
{
	revoke_while_written(0, "old");
}

static void test_revoke_append(void **state)
{
	revoke_while_written(O_APPEND, "old");
}

static void test_revoke_unwritten(void **state)
{
	struct handle *w;

	put("k", "old");
	CHECK_R(borrow("k", "mut/M"), 0);
	w = write_through(1, "mut/M", O_TRUNC);
	CHECK_R(drop("mut/M"), 0);
	CHECK_R(flush(1, w), -EBUSY);
	store_release(w);
	has("k", "old");
	check_idle(1);
}

/* close(2) has returned 0; that the kernel has not said RELEASE yet is not the writer's fault. */
static void test_drop_after_close(void **state)
{
	struct handle *w;

	put("k", "old");
	CHECK_R(borrow("k", "mut/M"), 0);
	w = write_through(1, "mut/M", O_TRUNC);
	put_bytes(w, "new");
	CHECK_R(flush(1, w), 0);
	CHECK_R(drop("mut/M"), 0);
	store_release(w);
	has("k", "new");
	check_idle(1);
}

static void test_revoke_preparing(void **state)
{
	const struct caller c1 = who_via(1, VIA_MUT);
	struct handle *h = NULL;
	uint64_t prepare = 0, node;

	put("k", "old");
	CHECK_R(borrow("k", "mut/M"), 0);
	CHECK_R(open_in_steps(1, "mut/M", O_WRONLY, &node, &prepare), STORE_PREPARE);
	CHECK_R(drop("mut/M"), 0);
	CHECK_R(store_prepare(st, prepare), 0);
	CHECK_R(store_open(st, &c1, node, O_WRONLY, NULL, &h, &prepare), STORE_GONE);
	has("k", "old");
	replace("k", "new");
	check_idle(1);
}

/* He was sent to look the name up, and it is gone when he does; or when he is back. */
static void test_revoke_on_the_way(void **state)
{
	struct handle *h = NULL;
	struct entry e;

	put("k", "old");
	CHECK_R(borrow("k", "mut/M"), 0);
	CHECK_R(look(1, "mut/M", &e), 0);
	CHECK_R(open_via(1, VIA_MUT, e.node, O_WRONLY, NULL, &h), -ESTALE);
	CHECK_R(drop("mut/M"), 0);
	CHECK_R(look(1, "mut/M", &e), -ENOENT);
	replace("k", "mine"); /* by another thread, no: by the same, for whom nothing is kept */
	CHECK_R(borrow("k", "mut/M"), 0);
	CHECK_R(look(6, "mut/M", &e), 0);
	CHECK_R(open_via(6, VIA_MUT, e.node, O_WRONLY, NULL, &h), -ESTALE);
	CHECK_R(look(6, "mut/M", &e), 0);
	CHECK_R(drop("mut/M"), 0);
	CHECK_R(open_via(6, VIA_MUT, e.node, O_WRONLY, NULL, &h), STORE_GONE);
	has("k", "mine");
	usleep(10000);
	check_idle(1);
}

/* publish=write: what is written is there at once, and stays. */
static void test_revoke_in_place(void **state)
{
	const struct caller c1 = who(1), root = { .uid = 0 };
	struct handle *w = NULL, *h = NULL;
	struct entry d, e;

	CHECK_R(make_dir(META_ROOT, "d", &d), 0);
	CHECK_R(COMMITTED(store_setxattr(st, &root, d.node, "user.promisefs.publish", "write", 5, 0, c)), 0);
	CHECK_R(store_create(st, &c1, d.node, "k", 0644, O_WRONLY | O_CREAT, &e, &w), 0);
	put_bytes(w, "old");
	CHECK_R(borrow_as(&c1, e.node, "ref/R"), -EBUSY); /* it is being written */
	close_handle(1, w);
	CHECK_R(borrow_as(&c1, e.node, "mut/M"), 0);
	w = write_through(1, "mut/M", O_APPEND);
	append_bytes(w, 'x', 2);
	CHECK_R(drop("mut/M"), 0);
	CHECK_R(borrow_as(&c1, e.node, "ref/R"), -EBUSY); /* it still is */
	flush(1, w);
	store_release(w);
	CHECK_R(open_node(2, e.node, O_RDONLY, NULL, &h), 0);
	CHECK(reads(h, "oldxx"));
	store_release(h);
	CHECK_R(borrow_as(&c1, e.node, "ref/R"), 0);
	CHECK_R(drop("ref/R"), 0);
	check_idle(1);
}

/* The handle goes with its writer, whom somebody has killed. */
static void test_mut_killed(void **state)
{
	struct handle *w;

	put("k", "old");
	CHECK_R(borrow("k", "mut/M"), 0);
	w = write_through(1, "mut/M", O_TRUNC);
	put_bytes(w, "torn");
	kill_writer(1, w);
	torn_has("k", "torn");
	handle_has("mut/M", "old");
	CHECK_R(drop("mut/M"), 0);
	has("k", "old");
	check_idle(2);
}

/* ---- Objects that end while they are borrowed ---- */

static void orphan(const char *key, const char *handle)
{
	struct entry l;

	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	put(key, "orphan");
	CHECK_R(join(l.o.id, key, "member"), 0);
	CHECK_R(borrow(key, handle), 0);
	CHECK_R(end_lifetime("L"), 0);
	CHECK(!is_there(key) && held_as(handle));
}

static void test_orphan(void **state)
{
	struct handle *h = NULL, *late = NULL;
	struct entry l;
	uint64_t node;

	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	put("k", "orphan");
	node = node_of("k");
	CHECK_R(join(l.o.id, "k", "member"), 0);
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(borrow("k", "ref/S"), 0);
	CHECK_R(open_handle(2, "ref/R", O_RDONLY, &h), 0);
	CHECK_R(end_lifetime("L"), 0);
	CHECK(!is_there("k"));
	handle_has("ref/R", "orphan");
	CHECK_R(handle_attribute("ref/R", "user.promisefs.owner"), -ENODATA);
	CHECK(handle_attribute_is("ref/R", "user.promisefs.borrows", "ref 2"));
	CHECK_R(open_node(5, node, O_WRONLY, NULL, &late), -ESTALE);
	put("k", "another");
	CHECK_R(drop("ref/R"), 0);
	handle_has("ref/S", "orphan");
	CHECK(reads(h, "orphan"));
	CHECK_R(drop("ref/S"), 0);
	CHECK(reads(h, "orphan")); /* whoever has it open goes on reading */
	store_release(h);
	has("k", "another");
	check_idle(1);
}

/* Its names go at once, also for somebody who has looked one up before. */
static void test_orphan_by_old_node(void **state)
{
	struct handle *h = NULL, *mine = NULL;
	struct entry l;
	uint64_t node;

	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	put("k", "orphan");
	node = node_of("k");
	CHECK_R(join(l.o.id, "k", "member"), 0);
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(end_lifetime("L"), 0);
	CHECK_R(open_node(5, node, O_RDONLY, NULL, &h), -ESTALE);
	CHECK_R(open_handle(2, "ref/R", O_RDONLY, &mine), 0);
	CHECK_R(open_node(8, node, O_RDONLY, NULL, &h), -ESTALE); /* nor now that it is in use */
	store_release(mine);
	CHECK_R(drop("ref/R"), 0);
	check_idle(0);
}

static void test_orphan_mut(void **state)
{
	struct handle *w;

	orphan("k", "mut/M");
	handle_has("mut/M", "orphan");
	replace_through("mut/M", "second");
	handle_has("mut/M", "second");
	w = write_through(1, "mut/M", O_TRUNC);
	put_bytes(w, "third");
	CHECK_R(drop("mut/M"), 0);
	CHECK_R(flush(1, w), -EBUSY);
	store_release(w);
	check_idle(0);
}

/* The lifetime ends while it is written through the handle: that goes on. */
static void test_orphan_while_written(void **state)
{
	struct handle *w;
	struct entry l;

	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	put("k", "old");
	CHECK_R(join(l.o.id, "k", "k"), 0);
	CHECK_R(borrow("k", "mut/M"), 0);
	w = write_through(1, "mut/M", O_TRUNC);
	put_bytes(w, "new");
	CHECK_R(end_lifetime("L"), 0);
	close_handle(1, w);
	handle_has("mut/M", "new");
	remount();
	handle_has("mut/M", "new");
	CHECK_R(drop("mut/M"), 0);
	check_idle(0);
}

static void test_orphan_mut_killed(void **state)
{
	struct handle *w;

	orphan("k", "mut/M");
	w = write_through(1, "mut/M", O_TRUNC);
	put_bytes(w, "torn");
	kill_writer(1, w);
	handle_has("mut/M", "orphan");
	CHECK_R(drop("mut/M"), 0);
	usleep(300000);
	record_all();
	CHECK_R((int)test_blobs_count(&blobs, false), 0);
}

static void test_orphan_remount(void **state)
{
	orphan("k", "ref/R");
	remount();
	handle_has("ref/R", "orphan");
	check_idle(1);
	CHECK_R(drop("ref/R"), 0);
	check_idle(0);
}

/* By a lease and by the end of a process. */
static void test_orphan_otherwise(void **state)
{
	starts[9] = 100;
	put("k", "k");
	put("p", "p");
	CHECK_R(borrow("k", "ref/K"), 0);
	CHECK_R(borrow("p", "mut/P"), 0);
	CHECK_R(set_attribute("k", "user.promisefs.lease", "20ms"), 0);
	CHECK_R(set_attribute("p", "user.promisefs.pid", "9"), 0);
	CHECK(goes("k"));
	CHECK_R(store_process_ended(st, 9, 100), 0);
	CHECK(!is_there("p"));
	handle_has("ref/K", "k");
	handle_has("mut/P", "p");
	CHECK_R(handle_attribute("ref/K", "user.promisefs.lease"), -ENODATA);
	CHECK_R(handle_attribute("mut/P", "user.promisefs.pid"), -ENODATA);
	CHECK_R(drop("ref/K"), 0);
	CHECK_R(drop("mut/P"), 0);
	check_idle(0);
}

/* ---- Handles that end by themselves ---- */

static bool handle_goes(const char *handle)
{
	for (unsigned i = 0; i < 1000 && held_as(handle); i++)
		usleep(5000);
	return !held_as(handle);
}

static void test_handle_lease(void **state)
{
	struct handle *w;

	put("k", "old");
	CHECK_R(borrow("k", "mut/M"), 0);
	CHECK_R(set_handle_attribute("mut/M", "user.promisefs.lease", "1h"), 0);
	CHECK(handle_attribute("mut/M", "user.promisefs.lease") > 0);
	CHECK_R(store_getxattr(st, &anybody, node_of("k"), "user.promisefs.lease", NULL, 0), -ENODATA);
	w = write_through(1, "mut/M", O_TRUNC);
	put_bytes(w, "late");
	queue(5, "k", "ref/R");
	CHECK_R(set_handle_attribute("mut/M", "user.promisefs.lease", "20ms"), 0);
	CHECK(handle_goes("mut/M"));
	for (unsigned i = 0; i < 200 && !attribute_is("k", "user.promisefs.borrows", "ref 1"); i++)
		usleep(5000); /* it is the next one's turn as soon as that is done */
	CHECK(has_turn("ref/R"));
	CHECK_R(flush(1, w), -EBUSY);
	store_release(w);
	has("k", "old");
	CHECK_R(drop("ref/R"), 0);
	CHECK(log_is("k", "put; borrow mut/M; release mut/M; borrow ref/R; release ref/R"));
	CHECK(log_is(".promisefs/mut/M", "expire lease"));
	check_idle(1);
}

static void test_handle_process(void **state)
{
	starts[9] = 100;
	put("k", "x");
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(borrow("k", "ref/S"), 0);
	CHECK_R(set_handle_attribute("ref/R", "user.promisefs.pid", "9"), 0);
	CHECK(handle_attribute_is("ref/R", "user.promisefs.pid", "9"));
	CHECK_R(handle_attribute("ref/S", "user.promisefs.pid"), -ENODATA);
	remount();
	CHECK(held_as("ref/R"));
	CHECK_R(store_process_ended(st, 9, 100), 0);
	CHECK(!held_as("ref/R") && held_as("ref/S") && is_there("k"));
	CHECK(attribute_is("k", "user.promisefs.borrows", "ref 1"));
	CHECK_R(drop("ref/S"), 0);
	check_idle(1);
}

static int join_handle(uint64_t lifetime, const char *handle, const char *name)
{
	const struct caller c3 = who_via(3, via_of(handle));
	struct entry h, e;
	int r = look(0, handle, &h);

	return r < 0 ? r : COMMITTED(store_lifetime_add(st, &c3, h.node, lifetime, name, &e, c));
}

static void test_handle_lifetime(void **state)
{
	const struct caller c3 = who(3);
	struct entry l, e;

	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	put("k", "x");
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(borrow("k", "ref/S"), 0);
	CHECK_R(join_handle(l.o.id, "ref/R", "r"), 0);
	CHECK_R(join_handle(l.o.id, "ref/S", "s"), 0);
	CHECK(handle_attribute_is("ref/R", "user.promisefs.lifetimes", "L"));
	CHECK_R(store_getxattr(st, &anybody, node_of("k"), "user.promisefs.lifetimes", NULL, 0), -ENODATA);
	CHECK_R(store_lifetime_lookup(st, &c3, l.o.id, "r", &e), 0);
	CHECK(e.via == VIA_REF && e.o.id == object_of("k"));
	CHECK_R(COMMITTED(store_lifetime_evict(st, &c3, l.o.id, "s", c)), 0);
	CHECK(!held_as("ref/S"));
	CHECK_R(join(l.o.id, "k", "k"), 0);
	CHECK_R(COMMITTED(store_lifetime_evict(st, &c3, l.o.id, "k", c)), -EBUSY);
	CHECK_R(end_lifetime("L"), 0);
	CHECK(!held_as("ref/R") && !is_there("k")); /* in whatever order */
	check_idle(0);
}

/* A lifetime that is bound to the process to which its members are bound, too. */
static void test_bound_twice(void **state)
{
	struct entry l;

	starts[9] = 100;
	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	put("a", "a");
	put("b", "b");
	CHECK_R(join(l.o.id, "a", "a"), 0);
	CHECK_R(COMMITTED(store_bind(st, &(struct caller){ 0 }, l.o.id, 9, c)), 0);
	CHECK_R(set_attribute("a", "user.promisefs.pid", "9"), 0);
	CHECK_R(set_attribute("b", "user.promisefs.pid", "9"), 0);
	CHECK_R(store_process_ended(st, 9, 100), 0);
	CHECK(!is_there("a") && !is_there("b"));
	check_idle(0);
}

static void test_bound_owner_and_handle(void **state)
{
	starts[9] = 100;
	put("a", "a");
	CHECK_R(borrow("a", "ref/R"), 0);
	CHECK_R(set_attribute("a", "user.promisefs.pid", "9"), 0);
	CHECK_R(set_handle_attribute("ref/R", "user.promisefs.pid", "9"), 0);
	put("b", "b");
	CHECK_R(set_attribute("b", "user.promisefs.pid", "9"), 0);
	CHECK_R(store_process_ended(st, 9, 100), 0);
	CHECK(!is_there("a") && !is_there("b") && !held_as("ref/R"));
	check_idle(0);
}

/* ---- Remounting, crashing ---- */

static void test_remount(void **state)
{
	struct entry before, after;

	put("k", "k");
	put("m", "m");
	CHECK_R(borrow("k", "ref/A"), 0);
	CHECK_R(borrow("k", "ref/B"), 0);
	CHECK_R(borrow("m", "mut/M"), 0);
	CHECK_R(rename_to(META_ROOT, "m", META_OWN, "X", 0), 0);
	CHECK_R(look(0, "ref/A", &before), 0);
	remount();
	CHECK_R(look(0, "ref/A", &after), 0);
	CHECK(before.node == after.node && before.o.uid == after.o.uid && before.o.mode == after.o.mode);
	CHECK(attribute_is("k", "user.promisefs.borrows", "ref 2"));
	CHECK_R(open_key("k", O_WRONLY), -EBUSY);
	CHECK_R(open_handle(5, "own/X", O_RDONLY, &(struct handle *){ NULL }), -EBUSY);
	replace_through("mut/M", "new");
	CHECK_R(drop("mut/M"), 0);
	handle_has("own/X", "new");
	CHECK_R(drop("ref/A"), 0);
	CHECK_R(drop("ref/B"), 0);
	CHECK_R(borrow("k", "mut/M"), 0);
	CHECK_R(drop("mut/M"), 0);
	check_idle(2);
}

static void crash_revoked(void)
{
	struct handle *w;

	put("k", "old");
	CHECK_R(borrow("k", "mut/M"), 0);
	w = write_through(1, "mut/M", O_TRUNC);
	put_bytes(w, "never");
	CHECK_R(drop("mut/M"), 0);
	record_all();
}

static void crash_writing_mut(void)
{
	struct handle *w;

	put("k", "old");
	CHECK_R(borrow("k", "mut/M"), 0);
	w = write_through(1, "mut/M", O_TRUNC);
	put_bytes(w, "sealed");
	CHECK_R(flush(1, w), 0);
	put("l", "old");
	CHECK_R(borrow("l", "mut/L"), 0);
	w = write_through(4, "mut/L", O_TRUNC);
	put_bytes(w, "torn");
	record_all();
}

static void test_crash_revoked(void **state)
{
	crash(crash_revoked);
	has("k", "old");
	check_idle(1);
}

static void test_crash_writing(void **state)
{
	crash(crash_writing_mut);
	handle_has("mut/M", "sealed");
	handle_has("mut/L", "old");
	torn_has("l", "torn");
	CHECK_R(drop("mut/M"), 0);
	CHECK_R(drop("mut/L"), 0);
	has("k", "sealed");
	has("l", "old");
	check_idle(3);
}

/* ---- When the catalog cannot record ---- */

/* Each step fails once at each of its updates; after that all is as before, and the step can be done. */
static void fails_whole(int (*step)(void), void (*as_before)(void))
{
	for (unsigned i = 0; i < 3; i++) {
		updates_fail(ENOSPC, 1);
		CHECK_R(step(), -ENOSPC);
		CHECK(updates_to_fail() == 0);
		as_before();
	}
	CHECK_R(step(), 0);
}

static int step_borrow_ref(void)
{
	return borrow("k", "ref/R");
}

static int step_borrow_mut(void)
{
	return borrow("k", "mut/M");
}

static int step_drop_ref(void)
{
	return drop("ref/R");
}

static int step_drop_mut(void)
{
	return drop("mut/M");
}

static void not_borrowed(void)
{
	CHECK(attribute_is("k", "user.promisefs.borrows", "none"));
	CHECK(!held_as("ref/R") && !held_as("mut/M"));
	has("k", "k");
}

static void by_a_ref(void)
{
	CHECK(attribute_is("k", "user.promisefs.borrows", "ref 1"));
	handle_has("ref/R", "k");
	CHECK_R(open_key("k", O_WRONLY), -EBUSY);
}

static void by_a_mut(void)
{
	CHECK(attribute_is("k", "user.promisefs.borrows", "mut"));
	handle_has("mut/M", "k");
	CHECK_R(open_key("k", O_RDONLY), -EBUSY);
}

static void test_fails(void **state)
{
	put("k", "k");
	record_all();
	fails_whole(step_borrow_ref, not_borrowed);
	record_all();
	fails_whole(step_drop_ref, by_a_ref);
	record_all();
	fails_whole(step_borrow_mut, not_borrowed);
	record_all();
	fails_whole(step_drop_mut, by_a_mut);
	record_all();
	not_borrowed();
	check_idle(1);
	remount();
	not_borrowed();
	check_idle(1);
}

/* The drop fails while it is written: it is still borrowed, and nothing is in the way of the next writer. */
static void test_drop_fails_while_written(void **state)
{
	struct handle *w;

	put("k", "k");
	CHECK_R(borrow("k", "mut/M"), 0);
	w = write_through(1, "mut/M", O_TRUNC);
	put_bytes(w, "new");
	record_all();
	updates_fail(ENOSPC, 1);
	CHECK_R(drop("mut/M"), -ENOSPC);
	CHECK(held_as("mut/M"));
	CHECK_R(flush(1, w), 0); /* it has not been dropped */
	store_release(w);
	handle_has("mut/M", "new");
	CHECK_R(drop("mut/M"), 0);
	check_idle(1);
}

static void test_orphan_fails(void **state)
{
	struct handle *h = NULL;

	put("k", "k");
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(open_handle(2, "ref/R", O_RDONLY, &h), 0);
	record_all();
	updates_fail(ENOSPC, 1);
	CHECK_R(set_attribute("k", "user.promisefs.lease", "50ms"), 0);
	CHECK(goes("k")); /* at the second try */
	CHECK(updates_to_fail() == 0);
	handle_has("ref/R", "k");
	CHECK_R(drop("ref/R"), 0);
	store_release(h);
	check_idle(0);
}

static int step_queue(void)
{
	const struct caller c5 = who(5);

	return queue_as(&c5, node_of("k"), "mut/A");
}

static void test_queue_fails(void **state)
{
	put("k", "k");
	CHECK_R(borrow("k", "ref/R"), 0);
	record_all();
	fails_whole(step_queue, by_a_ref);
	CHECK(in_line("mut/A"));
	queue(6, "k", "ref/B");
	record_all();
	updates_fail(ENOSPC, 1);
	CHECK_R(drop("ref/R"), -ENOSPC);
	CHECK(in_line("mut/A") && in_line("ref/B"));
	CHECK_R(drop("ref/R"), 0);
	CHECK(has_turn("mut/A"));
	record_all();
	updates_fail(ENOSPC, 1);
	CHECK_R(drop("mut/A"), -ENOSPC);
	CHECK(has_turn("mut/A") && in_line("ref/B"));
	CHECK_R(drop("mut/A"), 0);
	CHECK(has_turn("ref/B"));
	CHECK_R(drop("ref/B"), 0);
	check_idle(1);
}

/* The drop is recorded, but that it is the next one's turn cannot be: he has it sooner or later. */
static void test_turn_fails(void **state)
{
	const struct caller c3 = who(3);
	struct sync_commit s;

	put("k", "k");
	CHECK_R(borrow("k", "ref/R"), 0);
	queue(5, "k", "mut/A");
	record_all();
	sync_init(&s);
	updates_fail_after(1, ENOSPC, 1); /* the drop is one update; what comes after that is the turn */
	CHECK_R(store_unlink(st, &c3, META_REF, "R", &s.c), 0);
	CHECK(sync_wait(&s));
	CHECK_R((int)updates_to_fail(), 0);
	for (unsigned i = 0; i < 100 && attribute_is("k", "user.promisefs.borrows", "none"); i++)
		usleep(10000);
	if (held_as("ref/R"))
		CHECK_R(drop("ref/R"), 0); /* it was taken back with it */
	CHECK(has_turn("mut/A"));
	CHECK_R(drop("mut/A"), 0);
	check_idle(1);
}

/* Whatever update fails, nothing is half done: what is left can be dropped, and then nothing is left. */

static void scenario(unsigned first)
{
	const struct caller c4 = who(4), c7 = who_via(7, VIA_ONCE);
	struct handle *w = NULL, *h = NULL;
	struct entry l, e;
	uint64_t node;

	put("k", "old");
	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	CHECK_R(join(l.o.id, "k", "k"), 0);
	node = node_of("k");
	record_all();
	updates_fail_after(first, ENOSPC, 1);
	borrow_as(&c4, node, "mut/M");
	queue_as(&c4, node, "ref/A");
	queue_as(&c4, node, "mut/B");
	if (open_handle(1, "mut/M", O_WRONLY | O_TRUNC, &w) == 0) {
		put_bytes(w, "new");
		flush(1, w);
		store_release(w);
	}
	drop("mut/M");
	if (open_handle(1, "mut/B", O_WRONLY | O_TRUNC, &w) == 0) {
		put_bytes(w, "newer");
		drop("mut/B");
		flush(1, w);
		store_release(w);
	}
	drop("ref/A");
	if (lookup(7, META_ROOT, "k", &e) == 0 && open_via(7, VIA_ONCE, e.node, O_RDONLY, NULL, &h) == 0) {
		fates[7] = FATE_KILLED;
		COMMITTED(store_flush(h, &c7, c));
		store_release(h);
		fates[7] = FATE_ALIVE;
	}
	if (is_there("k"))
		borrow("k", "ref/C");
	end_lifetime("L");
}

static int count_torn(void *arg, const struct meta_aborted *a)
{
	++*(int *)arg;
	return 0;
}

static int torn_files(void)
{
	int n = 0;

	m->ops->begin(m);
	m->ops->aborted_list(m, count_torn, &n);
	m->ops->end(m, META_READ, NULL);
	return n;
}

static void test_any_update_fails(void **state)
{
	static const char *const handles[] = { "mut/M", "ref/A", "mut/B", "ref/C" };
	struct store_counts n;
	unsigned first = 0;

	do {
		scenario(first);
		usleep(3000);
		if (updates_to_fail() > 0)
			break; /* there are no more of them */
		record_all();
		if (first % 2 == 0)
			remount();
		for (unsigned i = 0; i < 1000 && is_there("k"); i++) {
			end_lifetime("L");
			usleep(2000);
			if (i == 500)
				unlink_name("k");
		}
		CHECK(!is_there("k"));
		for (unsigned i = 0; i < COUNT(handles); i++)
			if (held_as(handles[i]))
				CHECK_R(drop(handles[i]), 0);
		record_all();
		remount();
		store_counts(st, &n);
		CHECK(n.waiters == 0 && n.drafts == 0 && n.versions == 0 && n.objects == 0);
		CHECK_R((int)test_blobs_count(&blobs, false), 0);
		CHECK_R((int)test_blobs_count(&blobs, true), torn_files());
	} while (++first < 60);
	CHECK(first > 10);
	updates_fail(0, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_revoke),
		TEST(test_revoke_update),
		TEST(test_revoke_append),
		TEST(test_revoke_unwritten),
		TEST(test_drop_after_close),
		TEST(test_revoke_preparing),
		TEST(test_revoke_on_the_way),
		TEST(test_revoke_in_place),
		TEST(test_mut_killed),
		TEST(test_orphan),
		TEST(test_orphan_by_old_node),
		TEST(test_orphan_mut),
		TEST(test_orphan_while_written),
		TEST(test_orphan_mut_killed),
		TEST(test_orphan_remount),
		TEST(test_orphan_otherwise),
		TEST(test_handle_lease),
		TEST(test_handle_process),
		TEST(test_handle_lifetime),
		TEST(test_bound_twice),
		TEST(test_bound_owner_and_handle),
		TEST(test_remount),
		TEST(test_crash_revoked),
		TEST(test_crash_writing),
		TEST(test_fails),
		TEST(test_drop_fails_while_written),
		TEST(test_orphan_fails),
		TEST(test_queue_fails),
		TEST(test_turn_fails),
		TEST(test_any_update_fails),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The store: lifetimes, leases, and what is bound to a process. */
#include "tests/unit/store_rig.h"

#include <fcntl.h>

/* ---- Lifetimes and leases ---- */

static void test_lifetime(void **state)
{
	const struct caller stranger = { .uid = 7, .gid = 7, .tid = 4 }, c3 = who(3);
	struct entry l, second, e;
	struct test_waiter tw;
	struct handle *h;

	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	CHECK_R(make_dir(META_LIFETIMES, "L", &e), -EEXIST);
	CHECK_R(make_dir(META_LIFETIMES, "M", &second), 0);
	put("a", "a");
	put("b", "b");
	put("c", "c");
	CHECK_R(declare("f"), 0);
	CHECK_R(join(l.o.id, "a", "a"), 0);
	CHECK_R(join(l.o.id, "b", "a"), -EEXIST);
	CHECK_R(join(l.o.id, "b", "b"), 0);
	CHECK_R(join(l.o.id, "f", "f"), 0);
	CHECK_R(join(second.o.id, "a", "other"), 0);
	CHECK_R(join(META_ROOT, "a", "x"), -ENOENT); /* no lifetime */
	CHECK_R(store_lifetime_add(st, &stranger, node_of("c"), l.o.id, "c", &e, NULL), -EPERM);
	CHECK(attribute_is("a", "user.promisefs.lifetimes", "L/M"));
	CHECK_R(store_lifetime_lookup(st, &c3, l.o.id, "a", &e), 0);
	CHECK(e.node == node_of("a") && e.o.nlink == 1);
	h = open_read(2, "a");
	wait_for(&tw, 5, "f");
	CHECK_R(end_lifetime("L"), 0);
	CHECK(!is_there("a") && !is_there("b") && !is_there("f") && is_there("c"));
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, -ECANCELED);
	CHECK(reads(h, "a"));
	store_release(h);
	CHECK_R(end_lifetime("L"), -ENOENT);
	CHECK_R(join(l.o.id, "c", "c"), -ENOENT); /* it has ended */
	CHECK_R(store_lifetime_lookup(st, &c3, second.o.id, "other", &e), -ENOENT);
	CHECK_R(join(second.o.id, "c", "c"), 0);
	CHECK_R(COMMITTED(store_lifetime_evict(st, &c3, second.o.id, "c", c)), 0);
	CHECK(!is_there("c"));
	check_idle(0);
}

#define MANY 150 /* more than are evicted at once */

static uint64_t many_members(void)
{
	struct entry l;
	char name[16];

	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		put(name, name);
		CHECK_R(join(l.o.id, name, name), 0);
	}
	return l.o.id;
}

static void test_lifetime_of_many(void **state)
{
	many_members();
	CHECK_R(end_lifetime("L"), 0);
	CHECK(!is_there("m0") && !is_there("m149"));
	check_idle(0);
}

/* The lifetime of many has ended, and nothing more happens by itself. */
static uint64_t end_and_stop(struct sync_commit *nobody)
{
	const struct caller ender = who(3);
	uint64_t lifetime = many_members();

	st->ending_timer.fire = NULL;
	timers_stop(st->timers);
	sync_init(nobody);
	CHECK_R(store_lifetime_end(st, &ender, META_LIFETIMES, "L", &nobody->c), 0);
	record_all();
	CHECK(st->endings != NULL);
	return lifetime;
}

static void crash_ending(void)
{
	struct sync_commit nobody;

	end_and_stop(&nobody);
}

static void seen_while_ending(void)
{
	struct sync_commit nobody;

	end_and_stop(&nobody);
	CHECK(!is_there("m149")); /* though its turn has not come */
	put("m149", "new");
	CHECK(is_there("m149"));
	CHECK(!is_there("m148") && !is_there("m0"));
}

static void test_seen_while_ending(void **state)
{
	crash(seen_while_ending);
	CHECK(is_there("m149")); /* the new one */
	CHECK(!is_there("m148") && !is_there("m75"));
}

/* Many leases expire together: no key is found afterwards, though evicting them takes a while. */
static void test_leases_together(void **state)
{
	char name[16];
	int64_t over;

	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		put(name, name);
		CHECK_R(set_attribute(name, "user.promisefs.lease", "300ms"), 0);
	}
	over = timers_now() + 300000000;
	st->meta->ops->begin(st->meta); /* nobody gets to evict anything for now */
	while (timers_now() < over)
		usleep(1000);
	st->meta->ops->end(st->meta, META_READ, NULL);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		CHECK(!is_there(name));
	}
	check_idle(0);
}

static void test_crash_ending(void **state)
{
	char name[16];

	crash(crash_ending);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		CHECK(goes(name));
	}
	check_idle(0);
}

static void test_lease(void **state)
{
	struct entry l;

	put("a", "a");
	put("b", "b");
	CHECK_R(set_attribute("a", "user.promisefs.lease", "-5s"), -EINVAL);
	CHECK_R(set_attribute("a", "user.promisefs.lease", "+-5s"), -EINVAL);
	CHECK_R(set_attribute("a", "user.promisefs.lease", "1e99s"), -EINVAL);
	CHECK_R(set_attribute("a", "user.promisefs.lease", "tomorrow"), -EINVAL);
	CHECK_R(set_attribute("a", "user.promisefs.lease", ""), -EINVAL);
	CHECK_R(store_getxattr(st, &anybody, node_of("a"), "user.promisefs.lease", NULL, 0), -ENODATA);
	CHECK_R(COMMITTED(store_setxattr(st, &(struct caller){ 0 }, META_ROOT, "user.promisefs.lease", "5s", 2, 0, c)), -EOPNOTSUPP);
	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	CHECK_R(join(l.o.id, "b", "b"), 0);
	CHECK_R(set_attribute("a", "user.promisefs.lease", "1h"), 0);
	CHECK_R(set_attribute("a", "user.promisefs.lease", "none"), 0);
	CHECK_R(store_getxattr(st, &anybody, node_of("a"), "user.promisefs.lease", NULL, 0), -ENODATA);
	CHECK_R(set_attribute("a", "user.promisefs.lease", "1h"), 0);
	CHECK_R(set_attribute("a", "user.promisefs.lease", "50ms"), 0); /* shorter */
	CHECK_R(COMMITTED(store_setxattr(st, &(struct caller){ 0 }, l.o.id, "user.promisefs.lease", "100ms", 5, 0, c)), 0);
	clock_move(-HOUR); /* which changes nothing */
	store_clock_was_set(st);
	CHECK(goes("a") && goes("b"));
	CHECK_R(end_lifetime("L"), -ENOENT);
	check_idle(0);
}

static void test_lease_extended(void **state)
{
	put("a", "a");
	CHECK_R(set_attribute("a", "user.promisefs.lease", "100ms"), 0);
	CHECK_R(set_attribute("a", "user.promisefs.lease", "+1h"), 0);
	usleep(300000);
	CHECK(is_there("a"));
	CHECK_R(set_attribute("a", "user.promisefs.lease", "+1h"), 0);
	CHECK(attribute_is("a", "user.promisefs.state", "ready"));
}

/* Given as a time, it follows the wall clock. */
static void test_lease_time(void **state)
{
	put("a", "a");
	CHECK_R(set_attribute("a", "user.promisefs.lease", "2023-11-14T23:13:20Z"), 0); /* an hour from START */
	CHECK(attribute_is("a", "user.promisefs.state", "ready"));
	clock_move(HOUR + SECOND);
	store_clock_was_set(st);
	CHECK(goes("a"));
}

static void test_lease_restart(void **state)
{
	put("a", "a");
	put("b", "b");
	put("over", "x");
	CHECK_R(set_attribute("a", "user.promisefs.lease", "2h"), 0);
	CHECK_R(set_attribute("b", "user.promisefs.lease", "2h"), 0);
	CHECK_R(set_attribute("over", "user.promisefs.lease", "1ms"), 0);
	unmount_store();
	mount_store(START + 3 * HOUR); /* the same boot: the wall clock was set */
	CHECK(is_there("a") && goes("over"));
	unmount_store();
	options.boot_id = 2; /* another one, an hour later */
	mount_store(START + HOUR);
	CHECK(is_there("a"));
	unmount_store();
	options.boot_id = 3;
	mount_store(START + 3 * HOUR);
	CHECK(goes("a") && goes("b"));
	check_idle(0);
}

/* ROOT/d/e0/e1/.../f, and a hundred files beside each other. */
static void make_tree(void)
{
	const struct caller maker = who(1);
	struct entry d, f;
	struct handle *h;
	char name[16];

	CHECK_R(make_dir(META_ROOT, "d", &d), 0);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "e%u", i);
		CHECK_R(store_create(st, &maker, d.o.id, name, 0644, O_WRONLY | O_CREAT, &f, &h), 0);
		close_handle(1, h);
	}
	for (unsigned i = 0; i < 20; i++)
		CHECK_R(make_dir(d.o.id, "sub", &d), 0);
	CHECK_R(store_create(st, &maker, d.o.id, "f", 0644, O_WRONLY | O_CREAT, &f, &h), 0);
	close_handle(1, h);
}

static void test_lease_of_directory(void **state)
{
	struct entry sub;

	put("other", "x");
	make_tree();
	CHECK_R(lookup(0, node_of("d"), "sub", &sub), 0); /* has one itself, which is due while d is ending */
	CHECK_R(COMMITTED(store_setxattr(st, &(struct caller){ 0 }, sub.o.id, "user.promisefs.lease", "10ms", 4, 0, c)), 0);
	CHECK_R(set_attribute("d", "user.promisefs.lease", "10ms"), 0);
	CHECK(goes("d"));
	for (unsigned i = 0; i < 2000 && test_blobs_count(&blobs, true) > 1; i++) {
		usleep(5000);
		record_all();
	}
	CHECK((int)links_of(META_ROOT) == 2);
	check_idle(1);
}

static void crash_directory(void)
{
	make_tree();
	st->ending_timer.fire = NULL;
	CHECK_R(set_attribute("d", "user.promisefs.lease", "1h"), 0);
	timers_stop(st->timers);
	CHECK_R(set_attribute("d", "user.promisefs.lease", "0"), 0);
	st->lease_timer.fire(&st->lease_timer);
	CHECK(!is_there("d"));
	record_all();
	CHECK(test_blobs_count(&blobs, true) > 10);
}

static void test_crash_directory(void **state)
{
	crash(crash_directory);
	for (unsigned i = 0; i < 2000 && test_blobs_count(&blobs, true) > 0; i++) {
		usleep(5000);
		record_all();
	}
	check_idle(0);
}

/* New files of a directory join a lifetime. */
static void test_lifetime_of_directory(void **state)
{
	const struct caller maker = who(1);
	struct entry l, d, sub, f;
	struct handle *h;

	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	CHECK_R(make_dir(META_ROOT, "d", &d), 0);
	put("x", "x");
	CHECK_R(set_attribute("d", "user.promisefs.lifetime", "M"), -ENOENT);
	CHECK_R(set_attribute("x", "user.promisefs.lifetime", "L"), -EINVAL);
	CHECK_R(set_attribute("d", "user.promisefs.lifetime", "L"), 0);
	CHECK(attribute_is("d", "user.promisefs.lifetime", "L"));
	CHECK_R(make_dir(d.o.id, "sub", &sub), 0);
	CHECK_R(store_create(st, &maker, d.o.id, "f", 0644, O_WRONLY | O_CREAT, &f, &h), 0);
	close_handle(1, h);
	CHECK_R(store_create(st, &maker, sub.o.id, "f", 0644, O_WRONLY | O_CREAT, &f, &h), 0);
	close_handle(1, h);
	CHECK_R(COMMITTED(store_declare(st, &maker, sub.o.id, "future", 0644, &f, c)), 0);
	CHECK_R(end_lifetime("L"), 0);
	CHECK_R(lookup(0, d.o.id, "f", &f), -ENOENT);
	CHECK_R(lookup(0, sub.o.id, "f", &f), -ENOENT);
	CHECK_R(lookup(0, sub.o.id, "future", &f), -ENOENT);
	CHECK_R(lookup(0, d.o.id, "sub", &f), 0);
	CHECK_R(store_getxattr(st, &anybody, d.o.id, "user.promisefs.lifetime", NULL, 0), -ENODATA);
	CHECK_R(store_create(st, &maker, d.o.id, "g", 0644, O_WRONLY | O_CREAT, &f, &h), 0); /* it has ended */
	close_handle(1, h);
	check_idle(2);
}

static void test_binding(void **state)
{
	const struct caller stranger = { .uid = 7, .tid = 4 };
	struct entry l;

	starts[9] = 100;
	watched[9] = 0;
	put("a", "a");
	put("b", "b");
	put("c", "c");
	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	CHECK_R(join(l.o.id, "b", "b"), 0);
	CHECK_R(set_attribute("a", "user.promisefs.pid", "8"), -ESRCH);
	CHECK_R(set_attribute("a", "user.promisefs.pid", "nine"), -EINVAL);
	CHECK_R(set_attribute("a", "user.promisefs.pid", "-9"), -EINVAL);
	CHECK_R(set_attribute("a", "user.promisefs.pid", "0"), -EINVAL);
	CHECK_R(store_bind(st, &stranger, node_of("a"), 9, NULL), -EPERM);
	CHECK_R((int)watched[9], 0);
	CHECK_R(set_attribute("a", "user.promisefs.pid", "9"), 0);
	CHECK_R(set_attribute("c", "user.promisefs.pid", "9"), 0);
	CHECK_R(COMMITTED(store_bind(st, &(struct caller){ 0 }, l.o.id, 9, c)), 0);
	CHECK_R((int)watched[9], 3);
	CHECK(attribute_is("a", "user.promisefs.pid", "9"));
	CHECK_R(COMMITTED(store_removexattr(st, &(struct caller){ 0 }, node_of("c"), "user.promisefs.pid", c)), 0);
	CHECK_R(store_process_ended(st, 9, 99), 0); /* another one of that number */
	CHECK(is_there("a") && is_there("b"));
	CHECK_R(store_process_ended(st, 9, 100), 0);
	CHECK(!is_there("a") && !is_there("b") && is_there("c"));
	CHECK_R(end_lifetime("L"), -ENOENT);
	check_idle(1);
}

static void test_binding_self(void **state)
{
	const struct caller c9 = who(9);
	char name[META_NAME_MAX + 1];
	struct entry l;

	starts[9] = 100;
	CHECK_R(store_lifetime_self(st, &c9, 8, name), -ESRCH);
	CHECK_R(store_lifetime_self(st, &c9, 9, name), 0);
	CHECK_R(store_lifetime_self(st, &c9, 9, name), 0);
	CHECK(strcmp(name, "pid-9") == 0);
	CHECK_R(lookup(0, META_LIFETIMES, name, &l), 0);
	put("a", "a");
	CHECK_R(join(l.o.id, "a", "a"), 0);
	starts[9] = 101; /* the number was given again before anybody told us */
	CHECK_R(store_lifetime_self(st, &c9, 9, name), 0);
	CHECK(!is_there("a"));
	CHECK_R(lookup(0, META_LIFETIMES, name, &l), 0);
	put("b", "b");
	CHECK_R(join(l.o.id, "b", "b"), 0);
	CHECK_R(store_process_ended(st, 9, 101), 0);
	CHECK(!is_there("b"));
	CHECK_R(make_dir(META_LIFETIMES, "pid-9", &l), 0);
	CHECK_R(store_lifetime_self(st, &c9, 9, name), -EEXIST); /* somebody else's */
	check_idle(0);
}

static void test_binding_restart(void **state)
{
	starts[9] = 100;
	put("a", "a");
	CHECK_R(set_attribute("a", "user.promisefs.pid", "9"), 0);
	watched[9] = 0;
	unmount_store();
	mount_store(START);
	CHECK_R((int)watched[9], 1);
	CHECK(is_there("a"));
	unmount_store();
	options.boot_id = 5;
	mount_store(START);
	CHECK(!is_there("a")); /* no process survives that */
	check_idle(0);
}

/* What is not recorded yet is taken back: another operation of the same commit fails. */
static void fail_the_commit(uint64_t node)
{
	const struct caller c3 = who(3);
	struct attribute_change change = { .which = CHANGE_MODE, .mode = 0600 };
	struct entry e;

	updates_fail(ENOSPC, 1);
	CHECK_R(store_setattr(st, &c3, node, &change, &e, NULL), -ENOSPC);
}

/* As the catalog has it. */
static bool nothing_is_leased(void)
{
	bool nothing;

	m->ops->begin(m);
	nothing = st->lease_due == INT64_MAX;
	m->ops->end(m, META_READ, NULL);
	return nothing;
}

static bool nothing_ends(void)
{
	bool nothing;

	pthread_mutex_lock(&st->lock);
	nothing = st->endings == NULL;
	pthread_mutex_unlock(&st->lock);
	return nothing;
}

static void test_expiry_taken_back(void **state)
{
	put("other", "o");
	put("a", "a");
	CHECK_R(set_attribute("a", "user.promisefs.lease", "50ms"), 0);
	while (!nothing_is_leased())
		sched_yield();
	fail_the_commit(node_of("other"));
	CHECK(goes("a"));
	check_idle(1);
}

/* Whoever awaits a key whose end is taken back finds it. The end may have been recorded in time, so it takes tries. */
static void test_awaited_taken_back(void **state)
{
	struct test_waiter tw;
	bool woken = false;

	put("other", "o");
	for (int i = 0; i < 200 && !woken; i++) {
		put("a", "a");
		CHECK_R(set_attribute("a", "user.promisefs.lease", "5ms"), 0);
		while (!nothing_is_leased())
			sched_yield();
		waiter_init(&tw);
		CHECK_R(await_key(&tw, 2, "a"), STORE_WAITING);
		fail_the_commit(node_of("other"));
		woken = !store_cancel_wait(st, &tw.w);
		CHECK(goes("a"));
	}
	CHECK(woken);
	CHECK_R(tw.result, 0);
	check_idle(1);
}

static void test_ending_taken_back(void **state)
{
	const struct caller c3 = who(3);
	uint64_t lifetime, other;
	char name[16];

	put("other", "o");
	other = node_of("other");
	lifetime = many_members();
	CHECK_R(COMMITTED(store_setxattr(st, &c3, lifetime, "user.promisefs.lease", "50ms", 4, 0, c)), 0);
	while (!nothing_is_leased() || !nothing_ends())
		sched_yield();
	fail_the_commit(other);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		CHECK(goes(name));
	}
	check_idle(1);
}

/* Nor is it found through its lifetime after its lease is over. */
static void test_member_after_its_lease(void **state)
{
	const struct caller c3 = who(3);
	struct entry l, e;

	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	put("a", "a");
	CHECK_R(join(l.o.id, "a", "a"), 0);
	CHECK_R(set_attribute("a", "user.promisefs.lease", "20ms"), 0);
	timers_stop(st->timers);
	usleep(30000);
	CHECK_R(store_lifetime_lookup(st, &c3, l.o.id, "a", &e), -ENOENT);
	CHECK(!is_there("a"));
	record_all();
	check_idle(0);
}

static void lease_while_ending(void)
{
	const struct caller c3 = who(3);
	struct sync_commit nobody;
	uint64_t lifetime;

	lifetime = end_and_stop(&nobody);
	CHECK_R(COMMITTED(store_setxattr(st, &c3, lifetime, "user.promisefs.lease", "1h", 2, 0, c)), -ENOENT);
}

static void test_lease_while_ending(void **state)
{
	crash(lease_while_ending);
	CHECK(goes("m149"));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lifetime),
		TEST(test_lifetime_of_many),
		TEST(test_crash_ending), TEST(test_seen_while_ending), TEST(test_leases_together),
		TEST(test_expiry_taken_back), TEST(test_awaited_taken_back), TEST(test_ending_taken_back), TEST(test_member_after_its_lease),
		TEST(test_lease_while_ending),
		TEST(test_lease),
		TEST(test_lease_extended),
		TEST(test_lease_time),
		TEST(test_lease_restart),
		TEST(test_lease_of_directory),
		TEST(test_crash_directory),
		TEST(test_lifetime_of_directory),
		TEST(test_binding),
		TEST(test_binding_self),
		TEST(test_binding_restart),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The store: objects that can be read once. */
#include "tests/unit/store_rig.h"

#include <fcntl.h>

static int open_once(int32_t tid, const char *key, struct waiter *w, struct handle **h)
{
	struct entry e;
	int r = lookup(tid, META_ROOT, key, &e);

	if (r == 0)
		r = open_via(tid, VIA_ONCE, e.node, O_RDONLY, w, h);
	if (r != -ESTALE)
		return r;
	r = lookup(tid, META_ROOT, key, &e);
	return r == 0 ? open_via(tid, VIA_ONCE, e.node, O_RDONLY, w, h) : r;
}

static struct handle *take(int32_t tid, const char *key)
{
	struct handle *h = NULL;

	CHECK_R(open_once(tid, key, NULL, &h), 0);
	return h;
}

/* The process that has it is killed: the kernel closes its descriptors then. */
static void kill_reader(int32_t tid, struct handle *h)
{
	fates[tid] = FATE_KILLED;
	CHECK_R(flush(tid, h), 0);
	store_release(h);
	fates[tid] = FATE_ALIVE;
}

/* Waits for its turn to take. */
static uint64_t wait_once(struct test_waiter *tw, int32_t tid, enum via via, const char *key)
{
	struct handle *h = NULL;
	uint64_t node = node_of(key);

	waiter_init(tw);
	CHECK_R(open_via(tid, via, node, O_RDONLY, &tw->w, &h), STORE_WAITING);
	CHECK(sleeps(tw));
	return node;
}

static int ask(struct test_waiter *tw, int32_t tid, enum via via, uint64_t node, struct handle **h)
{
	pthread_mutex_lock(&tw->lock);
	tw->times = 0;
	pthread_mutex_unlock(&tw->lock);
	return open_via(tid, via, node, O_RDONLY, &tw->w, h);
}

static bool woken_with(struct test_waiter *tw, int r)
{
	bool woken = woken_times(tw, 1, 2000);

	if (!woken || tw->result != r)
		fprintf(stderr, "woken: %d, with %d instead of %d\n", (int)woken, tw->result, r);
	return woken && tw->result == r;
}

/* ---- Reading it once ---- */

static void test_once(void **state)
{
	struct handle *h, *other = NULL;
	uint64_t node;

	put("k", "data");
	node = node_of("k");
	h = take(2, "k");
	CHECK(h->takes && reads(h, "data"));
	CHECK(!is_there("k"));
	CHECK_R(open_via(5, VIA_ONCE, node, O_RDONLY, NULL, &other), -ESTALE);
	CHECK_R(open_once(5, "k", NULL, &other), -ENOENT);
	CHECK_R(open_node(5, node, O_RDONLY, NULL, &other), -ESTALE);
	CHECK(reads(h, "data"));
	CHECK_R(flush(2, h), 0);
	CHECK(reads(h, "data"));
	store_release(h);
	check_idle(0);
	CHECK(log_is("k", "put; evict once"));
}

static void test_asking_takes_nothing(void **state)
{
	struct entry e;

	put("k", "data");
	CHECK_R(set_attribute("k", "user.promisefs.evict", "1"), 0);
	CHECK(attribute_is("k", "user.promisefs.evict", "1"));
	CHECK(attribute_is("k", "user.promisefs.sha256", "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"));
	CHECK_R(store_getattr(st, &(const struct caller){ .via = VIA_ONCE }, node_of("k"), &e), 0);
	CHECK(is_there("k"));
	check_idle(1);
}

static void test_evict(void **state)
{
	struct handle *h;

	put("k", "data");
	CHECK_R(set_attribute("k", "user.promisefs.evict", "yes"), -EINVAL);
	CHECK_R(store_getxattr(st, &anybody, node_of("k"), "user.promisefs.evict", NULL, 0), -ENODATA);
	CHECK_R(set_attribute("k", "user.promisefs.evict", "1"), 0);
	CHECK_R(set_attribute("k", "user.promisefs.evict", "0"), 0);
	has("k", "data");
	CHECK(is_there("k"));
	CHECK_R(set_attribute("k", "user.promisefs.evict", "1"), 0);
	CHECK_R(remove_attribute("k", "user.promisefs.evict"), 0);
	CHECK_R(remove_attribute("k", "user.promisefs.evict"), -ENODATA);
	has("k", "data");
	CHECK_R(set_attribute("k", "user.promisefs.evict", "1"), 0);
	replace("k", "new"); /* to write it takes nothing, and it stays so */
	CHECK(attribute_is("k", "user.promisefs.evict", "1"));
	remount();
	h = open_read(2, "k");
	CHECK(h->takes && reads(h, "new") && !is_there("k"));
	close_handle(2, h);
	check_idle(0);
}

/* Whatever has it in memory already. */
static void test_evict_in_use(void **state)
{
	struct handle *w, *own = NULL, *h = NULL, *other = NULL;

	put("k", "old");
	CHECK_R(set_attribute("k", "user.promisefs.evict", "1"), 0);
	w = open_write(1, "k", O_TRUNC);
	put_bytes(w, "new");
	CHECK_R(open_node(1, handle_vid(w), O_RDONLY, NULL, &own), 0); /* its own draft, which is not published yet */
	CHECK(!own->takes);
	close_handle(1, w);
	h = open_read(2, "k");
	CHECK(h->takes && reads(h, "new"));
	CHECK_R(open_name(5, "k", O_RDONLY, NULL, &other), -ENOENT);
	close_handle(2, h);
	CHECK(reads(own, "new"));
	store_release(own);
	check_idle(0);
}

static void test_evict_set_while_read(void **state)
{
	struct handle *plain, *h;

	put("k", "data");
	plain = open_read(2, "k");
	CHECK_R(set_attribute("k", "user.promisefs.evict", "1"), 0);
	h = open_read(5, "k");
	CHECK(h->takes && !plain->takes && !is_there("k"));
	close_handle(5, h);
	CHECK(reads(plain, "data"));
	store_release(plain);
	check_idle(0);
}

static void test_names(void **state)
{
	const struct caller linker = who(3);
	struct handle *h;
	struct entry d, e;

	CHECK_R(make_dir(META_ROOT, "d", &d), 0);
	put("k", "data");
	CHECK_R(COMMITTED(store_link(st, &linker, node_of("k"), d.o.id, "l", &e, c)), 0);
	CHECK_R(COMMITTED(store_link(st, &linker, node_of("k"), META_ROOT, "m", &e, c)), 0);
	h = take(2, "k");
	CHECK(!is_there("k") && !is_there("m"));
	CHECK_R(lookup(0, d.o.id, "l", &e), -ENOENT);
	put("m", "another");
	kill_reader(2, h);
	has("k", "data");
	has("m", "another");
	CHECK_R(lookup(0, d.o.id, "l", &e), 0);
	CHECK(e.o.id == object_of("k") && e.o.nlink == 2);
	h = take(2, "k");
	close_handle(2, h);
	CHECK_R(lookup(0, d.o.id, "l", &e), -ENOENT);
	check_idle(1);
}

/* More names than are moved at once. */
static void test_many_names(void **state)
{
	const struct caller linker = who(3);
	struct handle *h;
	struct entry e;
	char name[16];

	put("k", "data");
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		CHECK_R(COMMITTED(store_link(st, &linker, node_of("k"), META_ROOT, name, &e, c)), 0);
	}
	h = take(2, "n7");
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		CHECK(!is_there(name));
	}
	kill_reader(2, h);
	CHECK_R((int)links_of(node_of("k")), 41);
	has("n39", "data");
	check_idle(1);
}

/* Many at once: one gets it, and the others nothing. */

#define RACERS 6
#define ROUNDS 30

static atomic_int took, read_it, refused;

static void *race(void *arg)
{
	int32_t tid = (int32_t)(intptr_t)arg;
	const struct caller c = who_via(tid, VIA_ONCE);
	struct handle *h = NULL;
	struct sync_commit s;
	int r = open_once(tid, "k", NULL, &h);

	if (r == -ENOENT || r == -ESTALE || r == STORE_GONE) /* which is ENOENT for its caller */
		refused++;
	if (r != 0)
		return NULL;
	took += h->takes;
	read_it++;
	sync_init(&s);
	if (store_flush(h, &c, &s.c) == 0)
		sync_wait(&s);
	store_release(h);
	return NULL;
}

static void test_race(void **state)
{
	pthread_t threads[RACERS];

	for (unsigned i = 0; i < ROUNDS; i++) {
		took = read_it = refused = 0;
		put("k", "data");
		for (intptr_t t = 0; t < RACERS; t++)
			CHECK(pthread_create(&threads[t], NULL, race, (void *)(t + 5)) == 0);
		for (unsigned t = 0; t < RACERS; t++)
			pthread_join(threads[t], NULL);
		CHECK_R((int)took, 1);
		CHECK_R((int)read_it, 1);
		CHECK_R((int)refused, RACERS - 1);
		CHECK(!is_there("k"));
	}
	usleep(10000);
	record_all();
	CHECK_R((int)test_blobs_count(&blobs, false), 0);
}

/* ---- Going back ---- */

static void test_killed(void **state)
{
	struct handle *h;

	put("k", "data");
	h = take(2, "k");
	kill_reader(2, h);
	has("k", "data");
	CHECK(state_is("k", "ready"));
	CHECK(log_is("k", "put; evict once; return its reader was killed"));
	h = take(2, "k");
	close_handle(2, h);
	check_idle(0);
}

/* No process ever got the descriptor. */
static void test_never_closed(void **state)
{
	put("k", "data");
	store_release(take(2, "k"));
	has("k", "data");
	check_idle(1);
}

/* A child has inherited it. */
static void test_inherited(void **state)
{
	struct handle *h;

	put("k", "data");
	h = take(2, "k");
	CHECK_R(flush(2, h), 0);
	CHECK(!is_there("k"));
	kill_reader(3, h);
	has("k", "data");
	h = take(2, "k");
	fates[2] = FATE_KILLED;
	CHECK_R(flush(2, h), 0);
	fates[2] = FATE_ALIVE;
	CHECK_R(flush(3, h), 0); /* the child has read it */
	store_release(h);
	check_idle(0);
}

static void test_key_taken(void **state)
{
	struct handle *h;

	put("k", "data");
	h = take(2, "k");
	put("k", "another");
	kill_reader(2, h);
	has("k", "another");
	torn_has("k", "data");
	check_idle(2);
	remount();
	torn_has("k", "data");
	clock_move(25 * HOUR);
	unmount_store();
	mount_store(clock_now());
	for (unsigned i = 0; i < 200 && lookup_torn("k", &(struct entry){ 0 }) == 0; i++)
		usleep(5000);
	check_idle(1);
}

static struct handle *take_in(uint64_t dir_node, const char *name)
{
	struct handle *h = NULL;
	struct entry e;

	CHECK_R(lookup(2, dir_node, name, &e), 0);
	CHECK_R(open_via(2, VIA_ONCE, e.node, O_RDONLY, NULL, &h), 0);
	return h;
}

static void put_in(uint64_t dir_node, const char *name, const char *text)
{
	const struct caller c = who(1);
	struct handle *h = NULL;
	struct entry e;

	CHECK_R(store_create(st, &c, dir_node, name, 0644, O_WRONLY | O_CREAT, &e, &h), 0);
	put_bytes(h, text);
	close_handle(1, h);
}

struct found {
	unsigned n;
	char name[META_NAME_MAX + 1];
	uint64_t node;
};

static int find_file(void *arg, const struct meta_dentry *d, const struct entry *e)
{
	struct found *f = arg;

	f->n++;
	f->node = e->node;
	snprintf(f->name, sizeof(f->name), "%s", d->name);
	return 0;
}

/* What finds no place any more is kept, by a name. */
static void test_directory_gone(void **state)
{
	const struct caller c3 = who(3);
	struct found f = { 0 };
	struct handle *h;
	struct entry d;

	CHECK_R(make_dir(META_ROOT, "d", &d), 0);
	put_in(d.o.id, "k", "data");
	h = take_in(d.o.id, "k");
	CHECK_R(COMMITTED(store_rmdir(st, &c3, META_ROOT, "d", c)), 0);
	kill_reader(2, h);
	CHECK_R(store_readdir(st, &c3, META_ABORTED, 0, 16, find_file, &f), 0);
	CHECK_R((int)f.n, 1);
	CHECK(f.name[0] != '\0');
	check_idle(1);
	h = NULL;
	CHECK_R(lookup(2, META_ABORTED, f.name, &d), 0);
	if ((d.o.mode & S_IFMT) == S_IFDIR)
		CHECK_R(lookup(2, d.node, "k", &d), 0);
	CHECK_R(open_node(2, d.node, O_RDONLY, NULL, &h), 0);
	CHECK(reads(h, "data"));
	store_release(h);
}

static void test_directory_renamed(void **state)
{
	struct handle *h;
	struct entry d, e;

	CHECK_R(make_dir(META_ROOT, "d", &d), 0);
	put_in(d.o.id, "k", "data");
	h = take_in(d.o.id, "k");
	CHECK_R(rename_to(META_ROOT, "d", META_ROOT, "e", 0), 0);
	kill_reader(2, h);
	CHECK_R(lookup(0, d.o.id, "k", &e), 0);
	check_idle(1);
}

/* aborted/ has a directory where it would be kept. */
static void test_no_place(void **state)
{
	const struct caller c1 = who(1), c3 = who(3);
	struct found f = { 0 };
	struct handle *h = NULL;
	struct entry d, e;
	unsigned files;

	CHECK_R(make_dir(META_ROOT, "k", &d), 0);
	CHECK_R(store_create(st, &c1, d.o.id, "x", 0644, O_WRONLY | O_CREAT, &e, &h), 0);
	put_bytes(h, "torn");
	kill_writer(1, h);
	CHECK_R(COMMITTED(store_rmdir(st, &c3, META_ROOT, "k", c)), 0);
	put("k", "data");
	h = take(2, "k");
	put("k", "another");
	kill_reader(2, h);
	has("k", "another");
	record_all();
	remount();
	has("k", "another");
	files = test_blobs_count(&blobs, true);
	check_idle(files);
	CHECK_R(store_readdir(st, &c3, META_ABORTED, 0, 16, find_file, &f), 0);
	CHECK_R((int)files, f.n == 2 ? 3 : 2); /* k, the torn one, and this one if it is kept by some name */
}

/* The daemon ends while it is read. */
static struct handle *left;

static void forget_handle(void)
{
	free(left);
	left = NULL;
}

static void test_remount_taken(void **state)
{
	put("k", "data");
	put("l", "data");
	left = take(2, "k");
	record_all();
	unmount_store();
	forget_handle();
	mount_store(START);
	has("k", "data");
	CHECK(log_is("k", "put; evict once; return"));
	has("l", "data");
	check_idle(2);
}

static void test_remount_done(void **state)
{
	put("k", "data");
	left = take(2, "k");
	CHECK_R(flush(2, left), 0);
	unmount_store();
	forget_handle();
	mount_store(START);
	CHECK(!is_there("k"));
	check_idle(0);
}

static void test_remount_killed(void **state)
{
	put("k", "data");
	left = take(2, "k");
	fates[2] = FATE_KILLED;
	CHECK_R(flush(2, left), 0);
	fates[2] = FATE_ALIVE;
	unmount_store();
	forget_handle();
	mount_store(START);
	has("k", "data");
	check_idle(1);
}

/* The same when its directory has gone meanwhile: whatever becomes of it, the next daemon starts. */
static void test_remount_directory_gone(void **state)
{
	const struct caller c3 = who(3);
	struct meta_object o;
	struct entry d;
	const char *why;
	uint64_t id;
	int r;

	CHECK_R(make_dir(META_ROOT, "d", &d), 0);
	put_in(d.o.id, "k", "data");
	left = take_in(d.o.id, "k");
	id = left->object_id;
	CHECK_R(COMMITTED(store_rmdir(st, &c3, META_ROOT, "d", c)), 0);
	unmount_store();
	forget_handle();
	CHECK_R(meta_sqlite_open(scratch_path(dir, "catalog.db"), &m, &why), 0);
	clock_take_over(m, START);
	CHECK_R(test_blobs_open(scratch_path(dir, "data"), &blobs), 0);
	r = store_open_all(m, &blobs.b, &hooks, NULL, &options, &st);
	if (r < 0) {
		st = NULL;
		m->ops->close(m);
		test_blobs_close(&blobs);
	}
	CHECK_R(r, 0);
	m->ops->begin(m);
	r = m->ops->object_get(m, id, &o);
	m->ops->end(m, META_READ, NULL);
	CHECK_R(r, 0);
	CHECK(o.nlink == 1);
	check_idle(1);
}

static void crash_many(void)
{
	char name[16];

	for (unsigned i = 0; i < 70; i++) { /* more than are looked at at once */
		struct handle *h;

		snprintf(name, sizeof(name), "k%u", i);
		put(name, name);
		h = take(2, name);
		if (i % 2 == 0)
			CHECK_R(flush(2, h), 0);
	}
	record_all();
}

static void test_crash_many(void **state)
{
	char name[16];

	crash(crash_many);
	for (unsigned i = 0; i < 70; i++) {
		snprintf(name, sizeof(name), "k%u", i);
		CHECK(is_there(name) == (i % 2 == 1));
	}
	check_idle(35);
}

/* ---- What ends it while it is taken ---- */

static void test_lifetime_ends(void **state)
{
	struct handle *h;
	struct entry l;

	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	put("k", "data");
	CHECK_R(join(l.o.id, "k", "k"), 0);
	h = take(2, "k");
	CHECK_R(end_lifetime("L"), 0);
	CHECK(reads(h, "data"));
	kill_reader(2, h);
	CHECK(!is_there("k"));
	check_idle(0);
}

static void test_lease_ends(void **state)
{
	struct handle *h;

	put("k", "data");
	CHECK_R(set_attribute("k", "user.promisefs.lease", "30ms"), 0);
	h = take(2, "k");
	usleep(200000);
	kill_reader(2, h);
	CHECK(!is_there("k"));
	put("k", "data");
	CHECK_R(set_attribute("k", "user.promisefs.lease", "1h"), 0);
	h = take(2, "k");
	kill_reader(2, h);
	CHECK(store_getxattr(st, &anybody, node_of("k"), "user.promisefs.lease", NULL, 0) > 0); /* it goes on */
	check_idle(1);
}

static void test_borrowed(void **state)
{
	struct borrowing b = { .who = who(4), .name = "R" };
	struct sync_commit s;
	struct handle *h = NULL;

	put("k", "data");
	CHECK_R(set_attribute("k", "user.promisefs.evict", "1"), 0);
	sync_init(&s);
	b.node = node_of("k");
	CHECK_R(store_borrow(st, &b, &s.c), 0);
	CHECK(sync_wait(&s));
	CHECK_R(open_once(2, "k", NULL, &h), -EBUSY);
	CHECK_R(open_name(2, "k", O_RDONLY, NULL, &h), -EBUSY);
	CHECK_R(open_via(2, VIA_REF, b.e.node, O_RDONLY, NULL, &h), 0); /* through a handle it is only read */
	CHECK(!h->takes && is_there("k"));
	store_release(h);
	CHECK_R(COMMITTED(store_unlink(st, &(struct caller){ 0 }, META_REF, "R", c)), 0);
	h = take(2, "k");
	s.times = 0;
	b.node = handle_vid(h);
	CHECK_R(store_borrow(st, &b, &s.c), -ENOENT);
	close_handle(2, h);
	check_idle(0);
}

/* ---- Waiting for it ---- */

static struct handle *producer;

/* A future that is being written. Whoever waited before that began was woken for nothing. */
static void promise(const char *key, bool evict)
{
	CHECK_R(declare(key), 0);
	if (evict)
		CHECK_R(set_attribute(key, "user.promisefs.evict", "1"), 0);
	producer = open_write(1, key, O_TRUNC);
}

static void publish(const char *text)
{
	put_bytes(producer, text);
	close_handle(1, producer);
}

static void test_future(void **state)
{
	struct test_waiter a, b, d;
	struct handle *h = NULL;
	uint64_t node;

	promise("f", false);
	node = wait_once(&a, 5, VIA_ONCE, "f");
	wait_once(&b, 6, VIA_ONCE, "f");
	wait_once(&d, 7, VIA_ONCE, "f");
	publish("data");
	CHECK(woken_with(&a, 0));
	CHECK(sleeps(&b) && sleeps(&d));
	CHECK_R(ask(&a, 5, VIA_ONCE, node, &h), 0);
	store_wait_over(st, &a.w);
	CHECK(h->takes && reads(h, "data"));
	CHECK(woken_with(&b, -ENOENT) && woken_with(&d, -ENOENT));
	close_handle(5, h);
	check_idle(0);
}

/* Between being woken and asking again nobody overtakes the first one. */
static void test_heir(void **state)
{
	struct test_waiter a, b;
	struct handle *h = NULL, *other = NULL;
	uint64_t node;

	promise("f", false);
	node = wait_once(&a, 5, VIA_ONCE, "f");
	wait_once(&b, 6, VIA_ONCE, "f");
	publish("data");
	CHECK(woken_with(&a, 0));
	CHECK_R(open_once(8, "f", NULL, &other), STORE_MUST_WAIT);
	CHECK_R(ask(&a, 5, VIA_ONCE, node, &h), 0);
	store_wait_over(st, &a.w);
	CHECK(woken_with(&b, -ENOENT));
	close_handle(5, h);
	check_idle(0);
}

static void test_heir_alone(void **state)
{
	struct test_waiter a;
	struct handle *h = NULL, *other = NULL;
	uint64_t node;

	promise("f", false);
	node = wait_once(&a, 5, VIA_ONCE, "f");
	publish("data");
	CHECK(woken_with(&a, 0));
	CHECK_R(open_once(8, "f", NULL, &other), STORE_MUST_WAIT); /* a has waited for it */
	CHECK_R(ask(&a, 5, VIA_ONCE, node, &h), 0);
	store_wait_over(st, &a.w);
	close_handle(5, h);
	check_idle(0);
}

/* The heir is interrupted before he has asked: it is the next one's turn. */
static void test_heir_interrupted(void **state)
{
	struct test_waiter a, b;
	struct handle *h = NULL;
	uint64_t node;

	promise("f", false);
	wait_once(&a, 5, VIA_ONCE, "f");
	node = wait_once(&b, 6, VIA_ONCE, "f");
	publish("data");
	CHECK(woken_with(&a, 0));
	CHECK(!store_cancel_wait(st, &a.w));
	CHECK(sleeps(&b));
	store_wait_over(st, &a.w);
	CHECK(woken_with(&b, 0));
	CHECK_R(ask(&b, 6, VIA_ONCE, node, &h), 0);
	store_wait_over(st, &b.w);
	close_handle(6, h);
	check_idle(0);
}

/* Interrupted while it waits: that is nobody's turn. */
static void test_waiter_interrupted(void **state)
{
	struct test_waiter a, b;
	struct handle *h = NULL;
	uint64_t node;

	promise("f", false);
	wait_once(&a, 5, VIA_ONCE, "f");
	node = wait_once(&b, 6, VIA_ONCE, "f");
	CHECK(store_cancel_wait(st, &a.w));
	publish("data");
	CHECK(woken_with(&b, 0));
	CHECK_R(ask(&b, 6, VIA_ONCE, node, &h), 0);
	store_wait_over(st, &b.w);
	close_handle(6, h);
	check_idle(0);
}

/* The heir is killed after he has taken it: it goes back. */
static void test_heir_killed(void **state)
{
	struct test_waiter a;
	struct handle *h = NULL;
	uint64_t node;

	promise("f", false);
	node = wait_once(&a, 5, VIA_ONCE, "f");
	publish("data");
	CHECK(woken_with(&a, 0));
	CHECK_R(ask(&a, 5, VIA_ONCE, node, &h), 0);
	store_wait_over(st, &a.w);
	kill_reader(5, h);
	has("f", "data");
	check_idle(1);
}

/* As a front end does when it is woken: asks again, and when told so the kernel looks the name up again. 1: not yet. */
static int come_again(struct test_waiter *tw, int32_t tid, uint64_t node, struct handle **h)
{
	int r;

	if (!woken_times(tw, 1, 0))
		return 1;
	if (tw->result < 0)
		return tw->result;
	r = ask(tw, tid, VIA_ONCE, node, h);
	if (r != STORE_WAITING)
		store_wait_over(st, &tw->w);
	if (r == -ESTALE)
		r = open_once(tid, "f", &tw->w, h);
	if (r != STORE_WAITING)
		store_wait_over(st, &tw->w);
	return r;
}

/* Before the heir asks, somebody begins to write the next version: he waits for that. */
static void test_heir_overtaken_by_writer(void **state)
{
	struct handle *h[2] = { NULL, NULL }, *w;
	int r[2] = { 1, 1 };
	struct test_waiter tw[2];
	uint64_t node;

	promise("f", false);
	node = wait_once(&tw[0], 5, VIA_ONCE, "f");
	wait_once(&tw[1], 6, VIA_ONCE, "f");
	publish("first");
	CHECK(woken_with(&tw[0], 0));
	w = open_write(1, "f", O_TRUNC);
	put_bytes(w, "second");
	r[0] = come_again(&tw[0], 5, node, &h[0]);
	CHECK_R(r[0], STORE_WAITING);
	close_handle(1, w);
	for (unsigned round = 0; round < 20; round++)
		for (unsigned i = 0; i < 2; i++) {
			usleep(2000);
			if (r[i] == 1) /* STORE_WAITING, too */
				r[i] = come_again(&tw[i], 5 + (int32_t)i, node, &h[i]);
		}
	CHECK((r[0] == 0 && r[1] == -ENOENT) || (r[1] == 0 && r[0] == -ENOENT));
	CHECK(reads(h[r[0] == 0 ? 0 : 1], "second"));
	close_handle(5, h[r[0] == 0 ? 0 : 1]);
}

/* Those who only read do not take, and are not held up for long. */
static void test_mixed(void **state)
{
	struct test_waiter plain, a, behind;
	struct handle *h = NULL, *p = NULL;
	uint64_t node;

	promise("f", false);
	node = wait_once(&plain, 4, VIA_OWNER, "f");
	wait_once(&a, 5, VIA_ONCE, "f");
	wait_once(&behind, 6, VIA_OWNER, "f");
	publish("data");
	CHECK(woken_with(&plain, 0) && woken_with(&a, 0));
	CHECK(sleeps(&behind));
	CHECK_R(ask(&plain, 4, VIA_OWNER, node, &p), 0);
	store_wait_over(st, &plain.w);
	CHECK(sleeps(&behind));
	CHECK_R(ask(&a, 5, VIA_ONCE, node, &h), 0);
	store_wait_over(st, &a.w);
	CHECK(woken_with(&behind, -ENOENT));
	CHECK(reads(p, "data") && reads(h, "data"));
	store_release(p);
	close_handle(5, h);
	check_idle(0);
}

/* With evict=1 every reader takes, whichever way he comes. */
static void test_evict_waiters(void **state)
{
	struct test_waiter a, b;
	struct handle *h = NULL;
	uint64_t node;

	promise("f", true);
	node = wait_once(&a, 4, VIA_OWNER, "f");
	wait_once(&b, 5, VIA_ONCE, "f");
	publish("data");
	CHECK(woken_with(&a, 0));
	CHECK(sleeps(&b));
	CHECK_R(ask(&a, 4, VIA_OWNER, node, &h), 0);
	store_wait_over(st, &a.w);
	CHECK(h->takes);
	CHECK(woken_with(&b, -ENOENT));
	close_handle(4, h);
	check_idle(0);
}

static void test_failed_future(void **state)
{
	struct test_waiter a, b;
	struct handle *h = NULL;
	uint64_t node;

	CHECK_R(declare("f"), 0);
	node = wait_once(&a, 5, VIA_ONCE, "f");
	wait_once(&b, 6, VIA_ONCE, "f");
	CHECK_R(set_attribute("f", "user.promisefs.error", "EXDEV"), 0);
	CHECK(woken_times(&a, 1, 1000) && woken_times(&b, 1, 1000));
	if (a.result == 0)
		CHECK_R(ask(&a, 5, VIA_ONCE, node, &h), -EXDEV);
	if (b.result == 0)
		CHECK_R(ask(&b, 6, VIA_ONCE, node, &h), -EXDEV);
	CHECK(is_there("f"));
	check_idle(0);
}

/* While a replacement is being written an open that would take waits for that. */
static void test_replacement(void **state)
{
	struct handle *w, *h = NULL, *plain;
	struct test_waiter a;
	uint64_t node;

	put("k", "old");
	w = open_write(1, "k", O_TRUNC);
	CHECK_R(open_once(2, "k", NULL, &h), STORE_MUST_WAIT);
	node = wait_once(&a, 5, VIA_ONCE, "k");
	plain = open_read(2, "k"); /* who only reads does not */
	CHECK(reads(plain, "old"));
	put_bytes(w, "new");
	close_handle(1, w);
	CHECK(woken_with(&a, 0));
	CHECK_R(ask(&a, 5, VIA_ONCE, node, &h), 0); /* though the node is another one now */
	store_wait_over(st, &a.w);
	CHECK(h->takes && reads(h, "new"));
	close_handle(5, h);
	store_release(plain);
	check_idle(0);
}

static void test_replacement_dropped(void **state)
{
	struct handle *w, *h = NULL;
	struct test_waiter a;
	uint64_t node;

	put("k", "old");
	w = open_write(1, "k", 0);
	node = wait_once(&a, 5, VIA_ONCE, "k");
	close_handle(1, w); /* without a change */
	CHECK(woken_with(&a, 0));
	CHECK_R(ask(&a, 5, VIA_ONCE, node, &h), 0);
	store_wait_over(st, &a.w);
	CHECK(h->takes && reads(h, "old"));
	close_handle(5, h);
	check_idle(0);
}

static void test_timeout(void **state)
{
	struct test_waiter a, b;

	unmount_store();
	options.wait_timeout = 100 * MS;
	mount_store(START);
	CHECK_R(declare("f"), 0);
	wait_once(&a, 5, VIA_ONCE, "f");
	wait_once(&b, 6, VIA_ONCE, "f");
	CHECK(woken_with(&a, -ETIMEDOUT) && woken_with(&b, -ETIMEDOUT));
	CHECK(is_there("f"));
	check_idle(0);
}

/* ---- O_NONBLOCK ---- */

static struct handle *begin_unsettled(int32_t tid, enum via via, const char *key)
{
	const struct caller c = who_via(tid, via);
	struct handle *h = NULL;

	CHECK_R(store_open_unsettled(st, &c, node_of(key), O_RDONLY | O_NONBLOCK, &h), 0);
	return h;
}

static void unsettled(enum via via, bool evict)
{
	struct handle *a, *b, *d;

	settled = 0;
	CHECK_R(declare("f"), 0);
	if (evict)
		CHECK_R(set_attribute("f", "user.promisefs.evict", "1"), 0);
	a = begin_unsettled(5, via, "f");
	b = begin_unsettled(6, via, "f");
	d = begin_unsettled(7, via, "f");
	handle_on_settle(a, on_settle, NULL, NULL);
	handle_on_settle(b, on_settle, NULL, NULL);
	CHECK_R(handle_settled(a), -EAGAIN);
	replace("f", "data");
	for (unsigned i = 0; i < 200 && handle_settled(d) == -EAGAIN; i++)
		usleep(5000);
	CHECK_R(handle_settled(a), 0);
	CHECK_R(handle_settled(b), -ENOENT);
	CHECK_R(handle_settled(d), -ENOENT);
	CHECK(settled == 2);
	CHECK(a->takes && reads(a, "data") && !is_there("f"));
	CHECK_R(flush(5, a), 0);
	store_release(a);
	store_release(b);
	store_release(d);
	check_idle(0);
	CHECK(log_is("f", "declare; put; evict once"));
}

static void test_unsettled(void **state)
{
	unsettled(VIA_ONCE, false);
}

static void test_unsettled_evict(void **state)
{
	unsettled(VIA_OWNER, true);
}

/* It has settled between being asked for and being waited for; of two, one gets it. */
static void test_unsettled_late(void **state)
{
	const struct caller c6 = who_via(6, VIA_ONCE);
	struct handle *a, *b = NULL;
	uint64_t node;
	int r;

	put("k", "data");
	node = node_of("k");
	a = begin_unsettled(5, VIA_ONCE, "k");
	CHECK_R(handle_settled(a), 0);
	CHECK(a->takes && reads(a, "data"));
	r = store_open_unsettled(st, &c6, node, O_RDONLY | O_NONBLOCK, &b);
	CHECK(r == -ESTALE || r == -ENOENT || (r == 0 && handle_settled(b) < 0));
	if (r == 0)
		store_release(b);
	CHECK_R(flush(5, a), 0);
	store_release(a);
	check_idle(0);
}

static void test_unsettled_killed(void **state)
{
	struct handle *a, *b;

	CHECK_R(declare("f"), 0);
	a = begin_unsettled(5, VIA_ONCE, "f");
	b = begin_unsettled(6, VIA_ONCE, "f");
	store_release(a); /* gives up while it waits */
	replace("f", "data");
	CHECK_R(handle_settled(b), 0);
	CHECK(b->takes);
	kill_reader(6, b);
	has("f", "data");
	check_idle(1);
}

/* The heir finds that a new version is under way. */
static void test_unsettled_awaits(void **state)
{
	const struct caller c5 = who(5);
	struct handle *a = NULL;

	put("k", "data");
	CHECK_R(set_attribute("k", "user.promisefs.evict", "1"), 0);
	CHECK_R(store_await_unsettled(st, &c5, META_ROOT, "k", O_RDONLY | O_NONBLOCK, &a), 0);
	CHECK_R(handle_settled(a), 0);
	CHECK(a->takes && reads(a, "data") && !is_there("k"));
	CHECK_R(flush(5, a), 0);
	store_release(a);
	check_idle(0);
}

struct who_took {
	int32_t pid;
	char command[META_COMMAND_MAX];
};

static int find_taker(void *arg, const struct meta_event *e)
{
	struct who_took *t = arg;

	if (strcmp(e->kind, "evict") == 0) {
		t->pid = e->pid;
		memcpy(t->command, e->command, sizeof(t->command));
	}
	return 0;
}

static void check_taker(int32_t tid)
{
	struct who_took t = { 0 };
	char command[16];

	snprintf(command, sizeof(command), "cmd%d", tid);
	CHECK_R(store_log(st, "k", find_taker, &t), 0);
	CHECK_R(t.pid, tid);
	CHECK(strcmp(t.command, command) == 0);
}

/* Whichever way it was taken, the log says by whom. */
static void test_events(void **state)
{
	struct handle *h;

	put("k", "data");
	close_handle(2, take(2, "k"));
	check_taker(2);
	put("k", "data");
	CHECK_R(set_attribute("k", "user.promisefs.evict", "1"), 0);
	close_handle(5, open_read(5, "k"));
	check_taker(5);
	put("k", "data");
	h = begin_unsettled(6, VIA_ONCE, "k");
	CHECK_R(flush(6, h), 0);
	store_release(h);
	check_taker(6);
	put("k", "data");
	CHECK_R(set_attribute("k", "user.promisefs.evict", "1"), 0);
	h = begin_unsettled(7, VIA_OWNER, "k");
	CHECK_R(flush(7, h), 0);
	store_release(h);
	check_taker(7);
	check_idle(0);
}

/* ---- Owner handles ---- */

static void test_own(void **state)
{
	struct handle *h = NULL;
	struct entry e;

	put("k", "data");
	CHECK_R(set_attribute("k", "user.promisefs.evict", "1"), 0);
	CHECK_R(rename_to(META_ROOT, "k", META_OWN, "X", 0), 0);
	CHECK_R(lookup(2, META_OWN, "X", &e), 0);
	CHECK_R(open_node(2, e.node, O_RDONLY, NULL, &h), 0);
	CHECK(h->takes);
	CHECK_R(lookup(2, META_OWN, "X", &e), -ENOENT);
	kill_reader(2, h);
	CHECK_R(lookup(2, META_OWN, "X", &e), 0);
	h = NULL;
	CHECK_R(open_node(2, e.node, O_RDONLY, NULL, &h), 0);
	put("l", "another");
	CHECK_R(rename_to(META_ROOT, "l", META_OWN, "X", 0), 0);
	kill_reader(2, h); /* something else is there by now */
	check_idle(2);
	remount();
	check_idle(2);
}

/* An aborted file that was itself taken, and its place too. */
static void test_aborted_taken(void **state)
{
	struct handle *w, *h = NULL;
	struct entry e;

	put("k", "old");
	w = open_write(1, "k", O_TRUNC);
	put_bytes(w, "torn");
	kill_writer(1, w);
	CHECK_R(lookup_torn("k", &e), 0);
	CHECK_R(open_via(2, VIA_ONCE, e.node, O_RDONLY, NULL, &h), 0);
	CHECK_R(lookup_torn("k", &e), -ENOENT);
	kill_reader(2, h);
	torn_has("k", "torn");
	CHECK_R(lookup_torn("k", &e), 0);
	h = NULL;
	CHECK_R(open_via(2, VIA_ONCE, e.node, O_RDONLY, NULL, &h), 0);
	w = open_write(1, "k", O_TRUNC);
	put_bytes(w, "torn again");
	kill_writer(1, w);
	kill_reader(2, h);
	record_all();
	check_idle(test_blobs_count(&blobs, true));
	remount();
	CHECK_R(lookup_torn("k", &e), 0);
	has("k", "old");
}

/* ---- When the catalog cannot record ---- */

static void test_take_fails(void **state)
{
	struct handle *h = NULL;

	put("k", "data");
	record_all();
	updates_fail(ENOSPC, 1);
	CHECK_R(open_once(2, "k", NULL, &h), -ENOSPC);
	CHECK(updates_to_fail() == 0);
	CHECK(is_there("k"));
	check_idle(1);
	h = take(2, "k");
	close_handle(2, h);
	check_idle(0);
}

/* That it was taken could not be recorded; whoever did has it open all the same. */
static void test_take_taken_back(void **state)
{
	struct handle *h;
	struct entry e;

	put("k", "data");
	put("other", "x");
	record_all();
	h = take(2, "k");
	updates_fail(ENOSPC, 1);
	CHECK_R(set_attribute("other", "user.mine", "1"), -ENOSPC); /* takes the tail of operations with it */
	CHECK(reads(h, "data"));
	CHECK_R(flush(2, h), 0);
	store_release(h);
	record_all();
	if (lookup(0, META_ROOT, "k", &e) == 0)
		has("k", "data");
	remount();
	if (lookup(0, META_ROOT, "k", &e) == 0)
		has("k", "data");
	has("other", "x");
	check_idle(test_blobs_count(&blobs, true));
}

static void test_take_taken_back_killed(void **state)
{
	struct handle *h;

	put("k", "data");
	put("other", "x");
	record_all();
	h = take(2, "k");
	updates_fail(ENOSPC, 1);
	CHECK_R(set_attribute("other", "user.mine", "1"), -ENOSPC);
	kill_reader(2, h);
	record_all();
	has("k", "data");
	CHECK_R((int)links_of(node_of("k")), 1);
	check_idle(2);
	remount();
	has("k", "data");
	check_idle(2);
}

static void test_return_fails(void **state)
{
	struct handle *h;

	put("k", "data");
	h = take(2, "k");
	record_all();
	fates[2] = FATE_KILLED;
	CHECK_R(flush(2, h), 0);
	fates[2] = FATE_ALIVE;
	record_all();
	updates_fail(ENOSPC, 1);
	store_release(h);
	CHECK(updates_to_fail() == 0);
	for (unsigned i = 0; i < 100 && !is_there("k"); i++)
		usleep(5000);
	if (!is_there("k"))
		remount(); /* the next start does it */
	has("k", "data");
	check_idle(1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_once),
		TEST(test_asking_takes_nothing),
		TEST(test_evict),
		TEST(test_evict_in_use),
		TEST(test_evict_set_while_read),
		TEST(test_names),
		TEST(test_many_names),
		TEST(test_race),
		TEST(test_killed),
		TEST(test_never_closed),
		TEST(test_inherited),
		TEST(test_key_taken),
		TEST(test_directory_gone),
		TEST(test_directory_renamed),
		TEST(test_no_place),
		TEST(test_remount_taken),
		TEST(test_remount_done),
		TEST(test_remount_killed),
		TEST(test_remount_directory_gone),
		TEST(test_crash_many),
		TEST(test_lifetime_ends),
		TEST(test_lease_ends),
		TEST(test_borrowed),
		TEST(test_future),
		TEST(test_heir),
		TEST(test_heir_alone),
		TEST(test_heir_interrupted),
		TEST(test_waiter_interrupted),
		TEST(test_heir_killed),
		TEST(test_heir_overtaken_by_writer),
		TEST(test_mixed),
		TEST(test_evict_waiters),
		TEST(test_failed_future),
		TEST(test_replacement),
		TEST(test_replacement_dropped),
		TEST(test_timeout),
		TEST(test_unsettled),
		TEST(test_unsettled_evict),
		TEST(test_unsettled_late),
		TEST(test_unsettled_killed),
		TEST(test_unsettled_awaits),
		TEST(test_events),
		TEST(test_own),
		TEST(test_aborted_taken),
		TEST(test_take_fails),
		TEST(test_take_taken_back),
		TEST(test_take_taken_back_killed),
		TEST(test_return_fails),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

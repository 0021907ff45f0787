/* The store: what borrows allow and forbid, owners, and the names of both. */
#include "tests/unit/borrow_rig.h"

/* ---- What is allowed while something is borrowed ---- */

static void test_ref(void **state)
{
	struct entry k, e;

	put("k", "text");
	CHECK(attribute_is("k", "user.promisefs.borrows", "none"));
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(borrow("k", "ref/S"), 0);
	CHECK(attribute_is("k", "user.promisefs.borrows", "ref 2"));
	handle_has("ref/R", "text");
	has("k", "text");
	CHECK_R(lookup(0, META_ROOT, "k", &k), 0);
	CHECK_R(look(0, "ref/R", &e), 0);
	CHECK(e.via == VIA_REF && e.node != k.node && e.o.id == k.o.id && e.o.size == 4 && e.o.nlink == 1 && !e.stable);
	CHECK_R(borrow("k", "mut/M"), -EBUSY);
	CHECK_R(open_key("k", O_WRONLY), -EBUSY);
	CHECK_R(open_key("k", O_RDONLY | O_TRUNC), -EBUSY);
	CHECK_R(open_key("k", O_RDWR | O_APPEND), -EBUSY);
	CHECK_R(unlink_name("k"), -EBUSY);
	put("other", "x");
	CHECK_R(move("other", "k"), -EBUSY);
	CHECK_R(move("k", "k2"), 0);
	has("k2", "text");
	handle_has("ref/R", "text");
	CHECK_R(unlink_name("k2"), -EBUSY);
	CHECK_R(drop("ref/R"), 0);
	CHECK_R(drop("ref/R"), -ENOENT);
	CHECK_R(unlink_name("k2"), -EBUSY);
	CHECK(attribute_is("k2", "user.promisefs.borrows", "ref 1"));
	handle_has("ref/S", "text");
	CHECK_R(drop("ref/S"), 0);
	CHECK(attribute_is("k2", "user.promisefs.borrows", "none"));
	replace("k2", "again");
	CHECK_R(unlink_name("k2"), 0);
	check_idle(1);
}

static void test_mut(void **state)
{
	struct handle *before;
	struct entry k, e;

	put("k", "text");
	before = open_read(2, "k");
	CHECK_R(borrow("k", "mut/M"), 0);
	CHECK(attribute_is("k", "user.promisefs.borrows", "mut"));
	CHECK_R(lookup(0, META_ROOT, "k", &k), 0);
	CHECK_R(look(0, "mut/M", &e), 0);
	CHECK(e.via == VIA_MUT && e.node == k.node && e.o.id == k.o.id && e.o.nlink == 1 && !e.stable);
	handle_has("mut/M", "text");
	CHECK_R(open_key("k", O_RDONLY), -EBUSY);
	CHECK_R(open_key("k", O_WRONLY), -EBUSY);
	CHECK_R(unlink_name("k"), -EBUSY);
	CHECK_R(borrow("k", "ref/R"), -EBUSY);
	CHECK_R(borrow("k", "mut/N"), -EBUSY);
	CHECK(reads(before, "text"));
	replace_through("mut/M", "second one");
	handle_has("mut/M", "second one");
	CHECK(reads(before, "text"));
	CHECK(size_of("k") == 10);
	CHECK(handle_attribute_is("mut/M", "user.promisefs.version", "2"));
	CHECK_R(open_key("k", O_RDONLY), -EBUSY);
	CHECK_R(drop("mut/M"), 0);
	has("k", "second one");
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(drop("ref/R"), 0);
	store_release(before);
	check_idle(1);
}

/* The owner may not read while it is mutably borrowed, however the object has come into memory. */
static void test_mut_in_use(void **state)
{
	struct handle *w, *own = NULL, *reader = NULL;
	struct entry e;

	put("k", "text");
	CHECK_R(borrow("k", "mut/M"), 0);
	w = write_through(1, "mut/M", O_TRUNC);
	put_bytes(w, "new");
	CHECK_R(look(1, "mut/M", &e), 0);
	CHECK_R(open_via(1, VIA_MUT, handle_vid(w), O_RDONLY, NULL, &own), 0); /* its own draft */
	CHECK_R(handle_vid(own) == handle_vid(w), true);
	close_handle(1, w);
	CHECK_R(open_handle(2, "mut/M", O_RDONLY, &reader), 0);
	CHECK(reads(reader, "new"));
	CHECK_R(open_key("k", O_RDONLY), -EBUSY);
	CHECK_R(open_key("k", O_WRONLY), -EBUSY);
	store_release(own);
	store_release(reader);
	CHECK_R(drop("mut/M"), 0);
	has("k", "new");
	check_idle(1);
}

/* Somebody has looked the key up before it was borrowed. */
static void test_mut_late(void **state)
{
	struct handle *h = NULL, *before;
	uint64_t node;

	put("k", "text");
	node = node_of("k");
	CHECK_R(borrow("k", "mut/M"), 0);
	before = NULL;
	CHECK_R(open_handle(2, "mut/M", O_RDONLY, &before), 0);
	CHECK_R(open_node(5, node, O_RDONLY, NULL, &h), -EBUSY);
	CHECK_R(open_node(5, node, O_WRONLY, NULL, &h), -EBUSY);
	store_release(before);
	CHECK_R(drop("mut/M"), 0);
	check_idle(1);
}

static void test_ref_is_read_only(void **state)
{
	struct handle *h = NULL;

	put("k", "text");
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(open_handle(2, "ref/R", O_WRONLY, &h), -EACCES);
	CHECK_R(open_handle(2, "ref/R", O_RDWR, &h), -EACCES);
	CHECK_R(open_handle(2, "ref/R", O_RDONLY | O_TRUNC, &h), -EACCES);
	CHECK_R(drop("ref/R"), 0);
	check_idle(1);
}

/* Handles that were dropped, by the node that somebody still has. */
static void test_dropped(void **state)
{
	const struct caller by_ref = who_via(5, VIA_REF), by_mut = who_via(5, VIA_MUT);
	struct handle *h = NULL, *open_ref = NULL;
	struct entry r, mu, e;

	put("k", "text");
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(look(0, "ref/R", &r), 0);
	CHECK_R(open_handle(2, "ref/R", O_RDONLY, &open_ref), 0);
	CHECK_R(drop("ref/R"), 0);
	CHECK(reads(open_ref, "text"));
	CHECK_R(open_via(5, VIA_REF, r.node, O_RDONLY, NULL, &h), -ESTALE);
	CHECK_R(store_getattr(st, &by_ref, r.node, &e), 0); /* fstat(2) of what is still open */
	CHECK(e.o.size == 4);
	CHECK_R(store_getxattr(st, &by_ref, r.node, "user.promisefs.state", NULL, 0), -ENOENT); /* he has heard ESTALE */
	CHECK_R(borrow("k", "mut/M"), 0);
	CHECK_R(look(0, "mut/M", &mu), 0);
	CHECK_R(drop("mut/M"), 0);
	CHECK_R(open_via(5, VIA_MUT, mu.node, O_RDONLY, NULL, &h), -ESTALE);
	CHECK_R(open_via(5, VIA_MUT, mu.node, O_WRONLY, NULL, &h), STORE_GONE);
	CHECK(reads(open_ref, "text"));
	store_release(open_ref);
	CHECK_R(store_getattr(st, &by_ref, r.node, &e), -ESTALE);
	CHECK_R(store_getxattr(st, &by_mut, mu.node, "user.promisefs.state", NULL, 0), -ENOENT);
	CHECK_R(unlink_name("k"), 0);
	check_idle(0);
}

static void test_not_borrowed(void **state)
{
	const struct caller c4 = who(4), by_ref = who_via(4, VIA_REF), by_mut = who_via(4, VIA_MUT);
	const struct node_new fifo = { .mode = S_IFIFO | 0644 }, link = { .mode = S_IFLNK | 0777, .target = "k" };
	const struct caller c3 = who(3);
	struct handle *w, *old;
	struct entry e, r, mu;
	uint64_t node;

	CHECK_R(make_dir(META_ROOT, "d", &e), 0);
	CHECK_R(borrow("d", "ref/R"), -EPERM);
	CHECK_R(COMMITTED(store_make(st, &c3, META_ROOT, "fifo", &fifo, &e, c)), 0);
	CHECK_R(borrow("fifo", "ref/R"), -EPERM);
	CHECK_R(COMMITTED(store_make(st, &c3, META_ROOT, "link", &link, &e, c)), 0);
	CHECK_R(borrow("link", "mut/M"), -EPERM);
	CHECK_R(declare("f"), 0);
	CHECK_R(borrow("f", "ref/R"), -EBUSY);
	CHECK_R(set_attribute("f", "user.promisefs.error", "bad"), 0);
	CHECK_R(borrow("f", "ref/R"), -EBUSY);
	w = create(1, "new");
	CHECK_R(borrow("new", "ref/R"), -EBUSY);
	close_handle(1, w);
	CHECK_R(borrow("new", "ref/R"), 0);
	CHECK_R(borrow("new", "ref/R"), -EEXIST);
	CHECK_R(look(0, "ref/R", &r), 0);
	CHECK_R(borrow_as(&by_ref, r.node, "ref/S"), -EPERM);
	CHECK_R(borrow_as(&by_ref, r.node, "mut/S"), -EPERM);
	put("k", "1");
	CHECK_R(borrow("k", "mut/M"), 0);
	CHECK_R(look(0, "mut/M", &mu), 0);
	CHECK_R(borrow_as(&by_mut, mu.node, "ref/S"), -EPERM);
	CHECK_R(drop("mut/M"), 0);
	w = open_write(1, "k", O_TRUNC);
	CHECK_R(borrow("k", "ref/S"), -EBUSY);
	put_bytes(w, "2");
	close_handle(1, w);
	old = open_read(2, "k");
	node = node_of("k");
	replace("k", "3");
	CHECK_R(borrow_as(&c4, node, "ref/S"), 0); /* whoever looked it up means the object */
	handle_has("ref/S", "3");
	CHECK_R(drop("ref/S"), 0);
	store_release(old);
	old = open_read(2, "k");
	CHECK_R(unlink_name("k"), 0);
	CHECK_R(borrow_as(&c4, handle_vid(old), "ref/S"), -ENOENT);
	store_release(old);
	record_all();
	CHECK_R(borrow_as(&c4, node, "ref/S"), -ESTALE);
	CHECK_R(drop("ref/R"), 0);
	check_idle(1);
}

/* Many at once: any number of readers or one writer. */

#define BORROWERS 5
#define ROUNDS 40

static atomic_int readers, writers, broken, borrowed;

static void *race(void *arg)
{
	int32_t tid = (int32_t)(intptr_t)arg;
	const struct caller self = who(tid);
	char name[16];
	struct entry e;

	for (unsigned i = 0; i < ROUNDS; i++) {
		bool mut = (tid + (int32_t)i) % 4 == 0;

		snprintf(name, sizeof(name), "%s/%d", mut ? "mut" : "ref", tid);
		if (lookup(0, META_ROOT, "k", &e) < 0 || borrow_as(&self, e.node, name) < 0)
			continue;
		borrowed++;
		atomic_fetch_add(mut ? &writers : &readers, 1);
		if (writers > 1 || (writers == 1 && readers > 0))
			broken++;
		atomic_fetch_sub(mut ? &writers : &readers, 1);
		if (COMMITTED(store_unlink(st, &self, place_of(name), name_of(name), c)) < 0)
			broken++;
	}
	return NULL;
}

static void test_race(void **state)
{
	pthread_t threads[BORROWERS];

	readers = writers = broken = borrowed = 0;
	put("k", "text");
	for (intptr_t t = 0; t < BORROWERS; t++)
		CHECK(pthread_create(&threads[t], NULL, race, (void *)(t + 5)) == 0);
	for (unsigned t = 0; t < BORROWERS; t++)
		pthread_join(threads[t], NULL);
	CHECK_R((int)broken, 0);
	CHECK(borrowed > 0);
	CHECK(attribute_is("k", "user.promisefs.borrows", "none"));
	has("k", "text");
	check_idle(1);
}

/* ---- Who may ---- */

static void test_rights(void **state)
{
	static const uint32_t groups[] = { 5, 70 };
	static const struct {
		uint32_t mode, uid, gid;
		bool further; /* he has further groups */
		int ref, mut;
	} rows[] = {
		{ 0600, 1000, 1000, false, 0, 0 },
		{ 0400, 1000, 1000, false, 0, -EACCES },
		{ 0200, 1000, 1000, false, -EACCES, 0 },
		{ 0066, 1000, 1000, false, -EACCES, -EACCES }, /* the owner's rights are the owner's */
		{ 0040, 2000, 1000, false, 0, -EACCES },
		{ 0020, 2000, 1000, false, -EACCES, 0 },
		{ 0606, 2000, 1000, false, -EACCES, -EACCES },
		{ 0060, 2000, 70, false, -EACCES, -EACCES },
		{ 0060, 2000, 70, true, 0, 0 },
		{ 0606, 2000, 70, true, -EACCES, -EACCES },
		{ 0004, 2000, 2000, false, 0, -EACCES },
		{ 0002, 2000, 2000, true, -EACCES, 0 },
		{ 0770, 2000, 2000, true, -EACCES, -EACCES },
		{ 0000, 1, 1, false, -EACCES, -EACCES },
		{ 0000, 0, 0, false, -EACCES, -EACCES },
	};
	const struct caller root = { .uid = 0, .gid = 0, .tid = 4 };
	uint64_t node;
	struct entry e;

	put("k", "x");
	node = node_of("k");
	for (unsigned i = 0; i < COUNT(rows); i++) {
		const struct attribute_change ch = { .which = CHANGE_MODE | CHANGE_UID | CHANGE_GID, .mode = rows[i].mode,
						     .uid = rows[i].uid, .gid = rows[i].gid };
		struct caller c4 = who(4);

		CHECK_R(COMMITTED(store_setattr(st, &root, node, &ch, &e, c)), 0);
		if (rows[i].further) {
			c4.groups = groups;
			c4.group_count = COUNT(groups);
		}
		CHECK_R(borrow_as(&c4, node, "ref/R"), rows[i].ref);
		if (rows[i].ref == 0)
			CHECK_R(drop("ref/R"), 0);
		CHECK_R(borrow_as(&c4, node, "mut/M"), rows[i].mut);
		if (rows[i].mut == 0)
			CHECK_R(drop("mut/M"), 0);
		CHECK_R(borrow_as(&root, node, "mut/M"), 0);
		CHECK_R(drop("mut/M"), 0);
	}
	check_idle(1);
}

/* A handle is its borrower's; what it lets others do is what the object lets them. */
static void test_handle_mode(void **state)
{
	const struct caller c9 = { .uid = 9, .gid = 9, .tid = 4, .umask = 077 };
	const struct attribute_change object = { .which = CHANGE_MODE, .mode = 04757 };
	const struct attribute_change ch = { .which = CHANGE_MODE | CHANGE_UID, .mode = 0444, .uid = 77 };
	const struct attribute_change times = { .which = CHANGE_ATIME | CHANGE_MTIME, .atime = 5, .mtime = 6 };
	const struct caller root = { .uid = 0 }, by_ref = { .uid = 0, .via = VIA_REF }, by_mut = { .uid = 0, .via = VIA_MUT };
	struct entry k, e;

	put("k", "x");
	CHECK_R(COMMITTED(store_setattr(st, &root, node_of("k"), &object, &e, c)), 0);
	CHECK_R(borrow_as(&c9, node_of("k"), "ref/R"), 0);
	CHECK_R(look(0, "ref/R", &e), 0);
	CHECK_R((int)(e.o.mode & ~0600u), S_IFREG | 0044); /* his own are for him to say */
	CHECK(e.o.uid == 9 && e.o.gid == 9);
	CHECK_R(COMMITTED(store_setattr(st, &by_ref, e.node, &ch, &e, c)), 0);
	CHECK(e.o.mode == (S_IFREG | 0444) && e.o.uid == 77);
	CHECK_R(look(0, "ref/R", &e), 0);
	CHECK(e.o.mode == (S_IFREG | 0444) && e.o.uid == 77 && e.o.gid == 9);
	CHECK_R(lookup(0, META_ROOT, "k", &k), 0);
	CHECK(k.o.mode == (S_IFREG | 04757) && k.o.uid == 1000);
	CHECK_R(COMMITTED(store_setattr(st, &by_ref, e.node, &times, &e, c)), 0);
	CHECK_R(lookup(0, META_ROOT, "k", &e), 0);
	CHECK(e.o.mtime == k.o.mtime); /* a handle has times of its own */
	CHECK_R(look(0, "ref/R", &e), 0);
	CHECK(e.o.mtime == 6 && e.o.atime == 5);
	CHECK_R(drop("ref/R"), 0);
	CHECK_R(borrow_as(&c9, k.node, "mut/M"), 0);
	CHECK_R(look(0, "mut/M", &e), 0);
	CHECK_R((int)(e.o.mode & ~0600u), S_IFREG | 0046);
	CHECK_R(COMMITTED(store_setattr(st, &by_mut, e.node, &ch, &e, c)), 0);
	CHECK_R(store_getattr(st, &by_mut, e.node, &e), 0);
	CHECK(e.o.mode == (S_IFREG | 0444) && e.o.uid == 77 && e.via == VIA_MUT);
	CHECK_R(COMMITTED(store_setattr(st, &by_mut, e.node, &times, &e, c)), 0);
	CHECK_R(lookup(0, META_ROOT, "k", &e), 0);
	CHECK(e.o.mode == (S_IFREG | 04757) && e.o.uid == 1000 && e.o.mtime == k.o.mtime);
	CHECK_R(look(0, "mut/M", &e), 0);
	CHECK(e.o.mtime == 6 && e.o.atime == 5);
	CHECK_R(drop("mut/M"), 0);
	check_idle(1);
}

/* ---- Owner handles ---- */

static int own(const char *key, const char *handle)
{
	return rename_to(META_ROOT, key, META_OWN, name_of(handle), 0);
}

static int disown(const char *handle, const char *key)
{
	return rename_to(META_OWN, name_of(handle), META_ROOT, key, 0);
}

static int create_own(int32_t tid, const char *handle, struct handle **h)
{
	const struct caller c = who(tid);
	struct entry e;
	int r = store_create(st, &c, META_OWN, name_of(handle), 0644, O_WRONLY | O_CREAT, &e, h);

	if (r == 0)
		held[tid] = e.o.id;
	return r;
}

static void test_own(void **state)
{
	struct handle *w = NULL;
	struct entry e;

	put("k", "text");
	CHECK_R(own("k", "own/X"), 0);
	CHECK(!is_there("k"));
	handle_has("own/X", "text");
	CHECK(handle_attribute_is("own/X", "user.promisefs.owner", ".promisefs/own/X"));
	CHECK_R(look(0, "own/X", &e), 0);
	CHECK_R(borrow_as(&(struct caller){ 0 }, e.node, "ref/R"), 0);
	CHECK(handle_attribute_is("ref/R", "user.promisefs.owner", ".promisefs/own/X"));
	CHECK_R(drop("own/X"), -EBUSY);
	CHECK_R(disown("own/X", "k2"), 0);
	CHECK(handle_attribute_is("ref/R", "user.promisefs.owner", "k2"));
	CHECK_R(drop("ref/R"), 0);
	CHECK_R(create_own(1, "own/Y", &w), 0);
	put_bytes(w, "made");
	close_handle(1, w);
	handle_has("own/Y", "made");
	CHECK_R(rename_to(META_OWN, "Y", META_OWN, "Z", 0), 0);
	CHECK_R(disown("own/Z", "k2"), 0); /* in the place of what was there */
	has("k2", "made");
	CHECK_R(own("k2", "own/Z"), 0);
	CHECK_R(drop("own/Z"), 0);
	check_idle(0);
}

/* What a killed writer has left of own/X has no key below which it could be kept like others'. */
static void test_own_killed(void **state)
{
	struct handle *w = NULL;
	struct entry e;

	CHECK_R(create_own(1, "own/X", &w), 0);
	put_bytes(w, "torn");
	kill_writer(1, w);
	CHECK_R(look(0, "own/X", &e), -ENOENT);
	CHECK_R(create_own(1, "own/X", &w), 0);
	put_bytes(w, "whole");
	close_handle(1, w);
	w = write_through(1, "own/X", O_TRUNC);
	put_bytes(w, "torn");
	kill_writer(1, w);
	handle_has("own/X", "whole");
	usleep(500000); /* were it not settled, it would be tried again */
	record_all();
	CHECK_R((int)test_blobs_count(&blobs, false), 0);
	remount();
	handle_has("own/X", "whole");
	CHECK_R(drop("own/X"), 0);
}

static void crash_own(void)
{
	struct handle *w = NULL;

	CHECK_R(create_own(1, "own/X", &w), 0);
	put_bytes(w, "torn");
	record_all();
}

static void test_crash_own(void **state)
{
	struct entry e;

	crash(crash_own);
	CHECK_R(look(0, "own/X", &e), -ENOENT);
	CHECK_R((int)test_blobs_count(&blobs, false), 0);
}

static void test_own_future(void **state)
{
	struct handle *h = NULL;
	struct test_waiter tw;
	struct entry e;

	CHECK_R(declare("f"), 0);
	wait_for(&tw, 2, "f");
	CHECK_R(own("f", "own/X"), 0);
	CHECK(sleeps(&tw));
	CHECK_R(open_handle(5, "own/X", O_RDONLY, &h), STORE_MUST_WAIT);
	replace_through("own/X", "set");
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, 0);
	handle_has("own/X", "set");
	CHECK_R(look(0, "own/X", &e), 0);
	CHECK_R(drop("own/X"), 0);
	check_idle(0);
}

/* ---- Names ---- */

static int make_in(uint64_t parent, const char *name, uint32_t mode)
{
	const struct caller c3 = who(3);
	const struct node_new n = { .mode = mode, .target = S_ISLNK(mode) ? "x" : NULL };
	struct entry e;

	return COMMITTED(store_make(st, &c3, parent, name, &n, &e, c));
}

static void test_places(void **state)
{
	static const uint32_t kinds[] = { S_IFREG | 0644, S_IFDIR | 0755, S_IFIFO | 0644, S_IFLNK | 0777, S_IFSOCK | 0644 };
	static const uint64_t places[] = { META_OWN, META_REF, META_MUT };
	const struct caller c3 = who(3);
	struct handle *h = NULL;
	struct entry e;

	for (unsigned p = 0; p < COUNT(places); p++)
		for (unsigned k = 0; k < COUNT(kinds); k++)
			if (places[p] != META_OWN || k > 0)
				CHECK_R(make_in(places[p], "x", kinds[k]), -EPERM);
	CHECK_R(store_create(st, &c3, META_REF, "x", 0644, O_WRONLY, &e, &h), -EPERM);
	CHECK_R(store_create(st, &c3, META_MUT, "x", 0644, O_WRONLY, &e, &h), -EPERM);
	CHECK_R(make_in(META_OWN, "x", kinds[0]), 0);
	CHECK_R(drop("own/x"), 0);
	check_idle(0);
}

static int link_to(const char *from, uint64_t parent, const char *name)
{
	bool key = strchr(from, '/') == NULL;
	const struct caller c3 = who_via(3, key ? VIA_OWNER : via_of(from));
	struct entry f, e;

	CHECK_R(key ? lookup(0, META_ROOT, from, &f) : look(0, from, &f), 0);
	return COMMITTED(store_link(st, &c3, f.node, parent, name, &e, c));
}

static void test_links(void **state)
{
	put("k", "x");
	put("o", "y");
	put("m", "z");
	CHECK_R(own("o", "own/X"), 0);
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(borrow("m", "mut/M"), 0);
	CHECK_R(link_to("k", META_OWN, "Y"), -EPERM);
	CHECK_R(link_to("own/X", META_ROOT, "o"), -EPERM);
	CHECK_R(link_to("own/X", META_OWN, "Y"), -EPERM);
	CHECK_R(link_to("ref/R", META_ROOT, "r"), -EPERM);
	CHECK_R(link_to("mut/M", META_ROOT, "r"), -EPERM);
	CHECK_R(link_to("ref/R", META_OWN, "r"), -EPERM);
	CHECK_R(link_to("k", META_ROOT, "k2"), 0);
	CHECK_R(unlink_name("k"), 0); /* it has another name */
	CHECK_R(unlink_name("k2"), -EBUSY);
	CHECK_R(drop("ref/R"), 0);
	CHECK_R(drop("mut/M"), 0);
	CHECK_R(link_to("k2", META_ROOT, "k"), 0);
	CHECK_R(own("k", "own/Y"), -EMLINK);
	CHECK_R(unlink_name("k"), 0);
	CHECK_R(own("k2", "own/Y"), 0);
	check_idle(3);
}

enum { ROOT, OWN, REF, MUT, PLACES };

/* From every place to every other, to a free name, over a name, and exchanged. */
static void test_moves(void **state)
{
	static const uint64_t parents[PLACES] = { META_ROOT, META_OWN, META_REF, META_MUT };
	static const char *const names[PLACES] = { "a", "a", "a", "a" };
	static const int allowed[PLACES][PLACES] = {
		[ROOT] = { 0, 0, -EPERM, -EPERM },
		[OWN] = { 0, 0, -EPERM, -EPERM },
		[REF] = { -EPERM, -EPERM, 0, -EPERM },
		[MUT] = { -EPERM, -EPERM, -EPERM, 0 },
	};

	put("a", "a");
	put("b", "b");
	put("c", "c");
	put("d", "d");
	CHECK_R(rename_to(META_ROOT, "b", META_OWN, "a", 0), 0);
	CHECK_R(borrow("c", "ref/a"), 0);
	CHECK_R(borrow("d", "mut/a"), 0);
	for (int from = 0; from < PLACES; from++)
		for (int to = 0; to < PLACES; to++) {
			CHECK_R(rename_to(parents[from], names[from], parents[to], "free", 0), allowed[from][to]);
			if (allowed[from][to] == 0)
				CHECK_R(rename_to(parents[to], "free", parents[from], names[from], 0), 0);
			CHECK_R(rename_to(parents[from], names[from], parents[to], names[to], RENAME_EXCHANGE), allowed[from][to]);
		}
	CHECK_R(make_in(META_ROOT, "dir", S_IFDIR | 0755), 0);
	CHECK_R(make_in(META_ROOT, "fifo", S_IFIFO | 0644), 0);
	CHECK_R(make_in(META_ROOT, "link", S_IFLNK | 0644), 0);
	CHECK_R(rename_to(META_ROOT, "dir", META_OWN, "x", 0), -EPERM);
	CHECK_R(rename_to(META_ROOT, "fifo", META_OWN, "x", 0), -EPERM);
	CHECK_R(rename_to(META_ROOT, "link", META_OWN, "x", 0), -EPERM);
	CHECK_R(rename_to(META_OWN, "a", META_ROOT, "dir", RENAME_EXCHANGE), -EPERM);
	CHECK_R(rename_to(META_OWN, "a", META_ROOT, "dir", 0), -EISDIR);
	CHECK_R(rename_to(META_ROOT, "a", META_ROOT, "c", RENAME_EXCHANGE), 0); /* what is borrowed moves */
	CHECK_R(rename_to(META_ROOT, "a", META_ROOT, "c", RENAME_EXCHANGE), 0);
	CHECK_R(rename_to(META_ROOT, "a", META_ROOT, "c", 0), -EBUSY);
	CHECK_R(rename_to(META_ROOT, "a", META_ROOT, "d", 0), -EBUSY);
	CHECK_R(drop("ref/a"), 0);
	CHECK_R(drop("mut/a"), 0);
	check_idle(4);
}

/* A handle that is renamed over another one drops that. */
static void test_hand_over(void **state)
{
	struct handle *w;

	put("k", "k");
	put("l", "l");
	CHECK_R(borrow("k", "ref/A"), 0);
	CHECK_R(borrow("k", "ref/B"), 0);
	CHECK_R(rename_to(META_REF, "A", META_REF, "B", RENAME_NOREPLACE), -EEXIST);
	CHECK_R(rename_to(META_REF, "A", META_REF, "B", 0), 0);
	CHECK(attribute_is("k", "user.promisefs.borrows", "ref 1"));
	CHECK(!held_as("ref/A"));
	handle_has("ref/B", "k");
	CHECK_R(borrow("l", "ref/C"), 0);
	queue(5, "k", "mut/M");
	CHECK_R(rename_to(META_REF, "C", META_REF, "B", 0), 0);
	CHECK(has_turn("mut/M"));
	handle_has("ref/B", "l");
	CHECK_R(drop("ref/B"), 0);
	CHECK_R(borrow("l", "mut/N"), 0);
	w = write_through(1, "mut/M", O_TRUNC);
	put_bytes(w, "never");
	CHECK_R(rename_to(META_MUT, "N", META_MUT, "M", 0), 0);
	CHECK_R(flush(1, w), -EBUSY);
	store_release(w);
	has("k", "k");
	replace_through("mut/M", "new l");
	CHECK_R(drop("mut/M"), 0);
	has("l", "new l");
	check_idle(2);
}

struct listed {
	unsigned n, refs;
};

static int count_handle(void *arg, const struct meta_dentry *d, const struct entry *e)
{
	struct listed *l = arg;

	l->n++;
	l->refs += e->via == VIA_REF && e->o.size == 4;
	return 0;
}

static void test_list(void **state)
{
	const struct caller c3 = who(3);
	struct listed l = { 0 };

	put("k", "text");
	CHECK_R(borrow("k", "ref/A"), 0);
	CHECK_R(borrow("k", "ref/B"), 0);
	CHECK_R(store_readdir(st, &c3, META_REF, 0, 64, count_handle, &l), 0);
	CHECK(l.n == 2 && l.refs == 2);
	CHECK_R(drop("ref/A"), 0);
	CHECK_R(drop("ref/B"), 0);
	check_idle(1);
}

/* ---- Attributes and events ---- */

static void test_attributes(void **state)
{
	char id[32];

	put("k", "x");
	put("m", "x");
	CHECK_R(set_attribute("k", "user.mine", "1"), 0);
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(borrow("m", "mut/M"), 0);
	snprintf(id, sizeof(id), "%llu", (unsigned long long)object_of("k"));
	CHECK(handle_attribute_is("ref/R", "user.promisefs.id", id));
	CHECK(handle_attribute_is("ref/R", "user.promisefs.state", "ready"));
	CHECK(handle_attribute_is("ref/R", "user.promisefs.version", "1"));
	CHECK(handle_attribute_is("ref/R", "user.promisefs.owner", "k"));
	CHECK(handle_attribute_is("ref/R", "user.promisefs.producer", "pid=1 uid=1000 command=cmd1"));
	CHECK(handle_attribute_is("ref/R", "user.promisefs.sha256",
				  "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"));
	CHECK(handle_attribute_is("mut/M", "user.promisefs.sha256",
				  "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"));
	CHECK(handle_attribute_is("mut/M", "user.promisefs.borrows", "mut"));
	CHECK(handle_attribute_is("ref/R", "user.mine", "1"));
	CHECK_R(set_handle_attribute("ref/R", "user.mine", "2"), -EPERM);
	CHECK_R(set_handle_attribute("ref/R", "user.promisefs.evict", "1"), -EPERM);
	CHECK_R(set_handle_attribute("mut/M", "user.promisefs.evict", "1"), -EPERM);
	CHECK_R(set_handle_attribute("mut/M", "user.promisefs.error", "bad"), -EPERM);
	CHECK_R(set_handle_attribute("mut/M", "user.mine", "2"), 0);
	CHECK(attribute_is("m", "user.mine", "2"));
	CHECK_R(handle_attribute("mut/M", "user.promisefs.evict"), -ENODATA);
	CHECK_R(set_handle_attribute("mut/M", "user.promisefs.lease", "1h"), 0);
	CHECK_R(set_handle_attribute("mut/M", "user.promisefs.lease", "none"), 0);
	CHECK_R(handle_attribute("mut/M", "user.promisefs.lease"), -ENODATA);
	CHECK_R(set_attribute("k", "user.mine", "3"), 0); /* by its owner, that is no writing */
	CHECK(handle_attribute_is("ref/R", "user.mine", "3"));
	CHECK_R(drop("ref/R"), 0);
	CHECK_R(drop("mut/M"), 0);
	check_idle(2);
}

static void test_events(void **state)
{
	put("k", "x");
	CHECK_R(borrow("k", "ref/R"), 0);
	CHECK_R(drop("ref/R"), 0);
	CHECK_R(borrow("k", "mut/M"), 0);
	replace_through("mut/M", "y");
	CHECK_R(drop("mut/M"), 0);
	CHECK(log_is("k", "put; borrow ref/R; release ref/R; borrow mut/M; put; release mut/M"));
	CHECK_R((int)events_seen, 6);
	check_idle(1);
}

/* ---- Torn bytes that somebody has borrowed ---- */

static void sweep_borrowed(void)
{
	struct meta_counts before, after;
	struct handle *w;
	struct entry e;

	alarm(20);
	put("k", "old");
	w = open_write(1, "k", O_TRUNC);
	put_bytes(w, "torn");
	kill_writer(1, w);
	CHECK_R(lookup_torn("k", &e), 0);
	CHECK_R(borrow_as(&(struct caller){ 0 }, e.node, "ref/R"), 0);
	clock_move(25 * HOUR);
	w = open_write(1, "k", O_TRUNC);
	put_bytes(w, "torn again");
	kill_writer(1, w); /* makes room, and sweeps */
	handle_has("ref/R", "torn");
	clock_move(25 * HOUR);
	w = open_write(1, "k", O_TRUNC);
	kill_writer(1, w);
	put("l", "l");
	w = open_write(1, "l", O_TRUNC);
	put_bytes(w, "torn l");
	kill_writer(1, w);
	usleep(200000);
	m->ops->counts(m, &before);
	usleep(200000);
	m->ops->counts(m, &after);
	CHECK(after.operations - before.operations < 50); /* it is not swept again and again */
	handle_has("ref/R", "torn");
	CHECK_R(drop("ref/R"), 0);
	record_all();
}

static void test_sweep_borrowed(void **state)
{
	crash(sweep_borrowed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ref),
		TEST(test_mut),
		TEST(test_mut_in_use),
		TEST(test_mut_late),
		TEST(test_ref_is_read_only),
		TEST(test_dropped),
		TEST(test_not_borrowed),
		TEST(test_race),
		TEST(test_rights),
		TEST(test_handle_mode),
		TEST(test_own),
		TEST(test_own_killed),
		TEST(test_crash_own),
		TEST(test_own_future),
		TEST(test_places),
		TEST(test_links),
		TEST(test_moves),
		TEST(test_hand_over),
		TEST(test_list),
		TEST(test_attributes),
		TEST(test_events),
		TEST(test_sweep_borrowed),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The store: objects and drafts, killed writers, crashes and power loss, names, looking on. */
#include "tests/unit/store_rig.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/xattr.h>

/* ---- Objects ---- */

static void test_put(void **state)
{
	struct handle *h = create(1, "a");
	struct entry e;

	put_bytes(h, "hello");
	CHECK(state_is("a", "writing"));
	CHECK(!handle_is_final(h));
	close_handle(1, h);
	CHECK(state_is("a", "ready"));
	CHECK(attribute_is("a", "user.promisefs.version", "1"));
	CHECK(attribute_is("a", "user.promisefs.producer", "pid=1 uid=1000 command=cmd1"));
	has("a", "hello");
	CHECK_R(lookup(0, META_ROOT, "a", &e), 0);
	CHECK(e.o.size == 5 && e.o.mode == (S_IFREG | 0644) && e.o.uid == 1000 && e.o.nlink == 1);
	check_idle(1);
	remount();
	has("a", "hello");
}

static void test_put_empty(void **state)
{
	put("a", "");
	has("a", "");
	CHECK(attribute_is("a", "user.promisefs.version", "1"));
	check_idle(1);
}

static void test_exists(void **state)
{
	const struct caller c = who(1);
	struct handle *h = NULL;
	struct entry e;

	put("a", "1");
	CHECK_R(store_create(st, &c, META_ROOT, "a", 0644, O_WRONLY, &e, &h), -EEXIST);
	check_idle(1);
}

static void test_replace(void **state)
{
	struct handle *old, *w;
	struct entry before, after;

	put("a", "first");
	CHECK_R(lookup(0, META_ROOT, "a", &before), 0);
	old = open_read(2, "a");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "second one");
	has("a", "first"); /* until it is published */
	CHECK(state_is("a", "ready"));
	close_handle(1, w);
	has("a", "second one");
	CHECK(reads(old, "first")); /* keeps its version */
	CHECK(handle_is_final(old));
	CHECK(test_blobs_has(&blobs, handle_vid(old), true));
	CHECK_R(lookup(0, META_ROOT, "a", &after), 0);
	CHECK(after.o.id == before.o.id && after.node != before.node && after.o.version == 2);
	store_release(old);
	check_idle(1); /* the old version's file went with its last reader */
}

static void test_old_version_stat(void **state)
{
	const struct caller c = who(2);
	struct handle *old;
	struct entry e;

	put("a", "first");
	old = open_read(2, "a");
	replace("a", "second one");
	CHECK_R(store_getattr(st, &c, handle_vid(old), &e), 0);
	CHECK(e.o.size == 5 && e.o.nlink == 0);
	store_release(old);
	check_idle(1);
}

static void test_many_replacements(void **state)
{
	struct handle *readers[10];
	char text[16];

	put("a", "v0");
	for (unsigned i = 0; i < 10; i++) {
		readers[i] = open_read(2, "a");
		snprintf(text, sizeof(text), "v%u", i + 1);
		replace("a", text);
	}
	for (unsigned i = 0; i < 10; i++) {
		snprintf(text, sizeof(text), "v%u", i);
		CHECK(reads(readers[i], text));
		store_release(readers[i]);
	}
	has("a", "v10");
	CHECK(attribute_is("a", "user.promisefs.version", "11"));
	check_idle(1);
}

/* Without O_TRUNC the draft starts from the current version. */
static void test_update(void **state)
{
	struct handle *w;

	put("a", "hello");
	w = open_write(1, "a", 0);
	CHECK(pwrite(handle_fd(w), "J", 1, 0) == 1);
	has("a", "hello");
	close_handle(1, w);
	has("a", "Jello");
	check_idle(1);
}

static void test_unchanged(void **state)
{
	put("a", "hello");
	close_handle(1, open_write(1, "a", 0));
	CHECK(attribute_is("a", "user.promisefs.version", "1"));
	has("a", "hello");
	check_idle(1);
}

/* Two writers of one draft share it; the last one to close publishes. */
static void test_two_writers(void **state)
{
	struct handle *a, *b;

	put("a", "old");
	a = open_write(1, "a", O_TRUNC);
	b = open_write(4, "a", 0);
	CHECK(handle_vid(a) == handle_vid(b));
	put_bytes(a, "one ");
	CHECK(pwrite(handle_fd(b), "two", 3, 4) == 3);
	close_handle(1, a);
	has("a", "old");
	close_handle(4, b);
	has("a", "one two");
	CHECK(attribute_is("a", "user.promisefs.version", "2"));
	check_idle(1);
}

static void test_reads_own_draft(void **state)
{
	struct handle *w, *r;

	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "mine");
	r = open_read(1, "a");
	CHECK(handle_vid(r) == handle_vid(w));
	CHECK(!handle_is_final(r));
	has("a", "old");
	close_handle(1, w);
	store_release(r);
	w = create(1, "b"); /* a new one too, which others would have to wait for */
	put_bytes(w, "new");
	r = open_read(1, "b");
	CHECK(reads(r, "new"));
	store_release(r);
	close_handle(1, w);
	check_idle(2);
}

static void test_unlink_open(void **state)
{
	const struct caller c = who(2);
	struct handle *r;
	struct entry e;
	uint64_t node;

	put("a", "hello");
	r = open_read(2, "a");
	node = handle_vid(r);
	CHECK_R(unlink_name("a"), 0);
	CHECK_R(lookup(0, META_ROOT, "a", &e), -ENOENT);
	CHECK(reads(r, "hello"));
	CHECK_R(store_getattr(st, &c, node, &e), 0);
	CHECK(e.o.nlink == 0 && e.o.size == 5);
	CHECK(test_blobs_has(&blobs, node, true));
	store_release(r);
	CHECK_R(store_getattr(st, &c, node, &e), 0); /* it may still be open with O_PATH */
	CHECK(e.o.nlink == 0 && e.o.size == 5);
	check_idle(0);
	CHECK_R(store_getattr(st, &c, node, &e), -ESTALE);
	CHECK_R(unlink_name("a"), -ENOENT);
}

static void make_link(const char *name, struct entry *e)
{
	const struct caller me = who(2);
	const struct node_new link = { .mode = S_IFLNK | 0777, .target = "target" };

	CHECK_R(COMMITTED(store_make(st, &me, META_ROOT, name, &link, e, c)), 0);
}

/* What has no name any more may still be known to the kernel: an open FIFO, a link on somebody's way. */
static void test_departed(void **state)
{
	const struct caller me = who(2);
	char target[PATH_MAX];
	struct entry sym, e;

	put("file", "x");
	CHECK_R(lookup(0, META_ROOT, "file", &e), 0);
	CHECK_R(store_readlink(st, e.node, target), -EINVAL);
	make_link("link", &sym);
	CHECK_R(store_readlink(st, sym.node, target), 0);
	CHECK_R(unlink_name("link"), 0);
	CHECK_R(store_readlink(st, sym.node, target), -ESTALE); /* he looks his path up again */
	CHECK_R(store_getattr(st, &me, sym.node, &e), 0);
	CHECK(S_ISLNK(e.o.mode) && e.o.nlink == 0 && !e.stable);
	store_forget(st, sym.node);
	CHECK_R(store_getattr(st, &me, sym.node, &e), -ESTALE);
	store_forget(st, sym.node);
	CHECK_R(unlink_name("file"), 0);
	check_idle(0);
}

/* There is a limit to what the kernel never forgets, as it never knew it. */
static void test_departed_many(void **state)
{
	const struct caller me = who(2);
	struct entry first, last = { 0 }, e;

	make_link("link", &first);
	CHECK_R(unlink_name("link"), 0);
	for (int i = 0; i < 4096; i++) {
		make_link("link", &last);
		CHECK_R(unlink_name("link"), 0);
	}
	CHECK_R(store_getattr(st, &me, first.node, &e), -ESTALE);
	CHECK_R(store_getattr(st, &me, last.node, &e), 0);
	check_idle(0);
}

static void test_unlink_while_writing(void **state)
{
	struct handle *w = create(1, "a");

	put_bytes(w, "gone");
	CHECK_R(unlink_name("a"), 0);
	close_handle(1, w);
	check_idle(0);
	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	CHECK_R(unlink_name("a"), 0);
	put("a", "another");
	put_bytes(w, "late");
	close_handle(1, w);
	has("a", "another");
	check_idle(1);
}

static void test_no_space(void **state)
{
	const struct caller writer = who(1);
	struct handle *w;

	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "new");
	blobs.space = 1000;
	CHECK_R(COMMITTED(store_flush(w, &writer, c)), -ENOSPC);
	store_release(w);
	blobs.space = INT64_MAX;
	has("a", "old"); /* nothing is published */
	check_idle(1);
}

static void test_create_fails(void **state)
{
	const struct caller c = who(1);
	struct handle *h = NULL;
	struct entry e;

	blobs.create_fails = EMFILE;
	CHECK_R(store_create(st, &c, META_ROOT, "a", 0644, O_WRONLY, &e, &h), -EMFILE);
	CHECK_R(lookup(0, META_ROOT, "a", &e), -ENOENT);
	check_idle(0);
	put("a", "now");
	has("a", "now");
}

static void test_prepare_fails(void **state)
{
	struct handle *h = NULL;

	put("a", "old");
	blobs.copy_fails = EIO;
	CHECK_R(open_name(1, "a", O_WRONLY, NULL, &h), -EIO);
	has("a", "old");
	h = open_write(1, "a", O_TRUNC);
	put_bytes(h, "new");
	close_handle(1, h);
	has("a", "new");
}

/* Client 2 has opened a node that was replaced meanwhile, and looked the name up again. */
static void send_to_look_up(struct entry *e)
{
	struct handle *h = NULL;
	uint64_t first;

	put("a", "one");
	first = node_of("a");
	replace("a", "two");
	CHECK_R(open_node(2, first, O_RDONLY, NULL, &h), -ESTALE);
	CHECK_R(lookup(2, META_ROOT, "a", e), 0);
}

/* What a reader was given when he was sent to look a name up is for the open that follows, not for a later one. */
static void test_looked_up_long_ago(void **state)
{
	struct handle *h = NULL;
	struct entry e;

	send_to_look_up(&e); /* and does not open it */
	replace("a", "three");
	CHECK_R(lookup(2, META_ROOT, "a", &e), 0);
	CHECK_R(open_node(2, e.node, O_RDONLY, NULL, &h), 0);
	CHECK(reads(h, "three"));
	store_release(h);
}

/* The kernel looks up twice before it opens, and does not come a third time: what it found last is kept for it. */
static void test_looked_up_twice(void **state)
{
	struct handle *h = NULL;
	struct entry e;

	send_to_look_up(&e);
	replace("a", "three");
	CHECK_R(lookup(2, META_ROOT, "a", &e), 0);
	replace("a", "four");
	CHECK_R(open_node(2, e.node, O_RDONLY, NULL, &h), 0);
	CHECK(reads(h, "three"));
	store_release(h);
	check_idle(1);
}

/* A writer who reads what he writes is sent to the draft's node, so that he sees the pages that he has mapped there. */
static void test_looks_up_own_draft(void **state)
{
	struct handle *w, *h = NULL;
	uint64_t current;
	struct entry e;

	put("a", "one");
	current = node_of("a");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "two");
	CHECK_R(open_node(1, current, O_RDONLY, NULL, &h), -ESTALE);
	CHECK_R(lookup(1, META_ROOT, "a", &e), 0);
	CHECK(e.node != current);
	CHECK_R(open_node(1, e.node, O_RDONLY, NULL, &h), 0);
	CHECK(reads(h, "two"));
	store_release(h);
	close_handle(1, w);
	has("a", "two");
	check_idle(1);
}

/* With passthrough a mapping goes on after the last close: what may still be stored there is not dropped. */
static void test_mapped(void **state)
{
	struct handle *w = NULL;

	put("a", "old");
	CHECK_R(open_name(1, "a", O_RDWR, NULL, &w), 0);
	close_handle(1, w);
	CHECK(attribute_is("a", "user.promisefs.version", "1"));
	blobs.mapped = true;
	w = open_write(1, "a", O_WRONLY);
	close_handle(1, w);
	CHECK(attribute_is("a", "user.promisefs.version", "1")); /* who cannot read it cannot map it */
	CHECK_R(open_name(1, "a", O_RDWR, NULL, &w), 0);
	close_handle(1, w);
	CHECK(attribute_is("a", "user.promisefs.version", "2"));
	blobs.mapped = false;
	has("a", "old");
	check_idle(1);
}

/* Something else is renamed to the key between the open that is sent to look it up again and that look-up. */
static void test_renamed_while_looked_up(void **state)
{
	const struct caller renamer = who(3);
	struct handle *h = NULL;
	struct entry e;

	put("a", "old");
	put("b", "other");
	CHECK_R(open_node(1, node_of("a"), O_WRONLY, NULL, &h), -ESTALE);
	CHECK_R(COMMITTED(store_rename(st, &renamer, META_ROOT, "b", META_ROOT, "a", 0, c)), 0);
	CHECK_R(lookup(1, META_ROOT, "a", &e), 0);
	CHECK_R(open_node(1, e.node, O_WRONLY, NULL, &h), 0); /* a second time is seen by the user */
	put_bytes(h, "new");
	close_handle(1, h);
	has("a", "newer");
	check_idle(1);
}

/* The same between its two look-ups, while somebody reads what was renamed there, so that it cannot be emptied in place. */
static void test_renamed_between_look_ups(void **state)
{
	const struct caller renamer = who(3);
	struct handle *h = NULL, *reader = NULL;
	struct entry e;

	put("a", "old");
	put("b", "other");
	CHECK_R(open_node(2, node_of("b"), O_RDONLY, NULL, &reader), 0);
	CHECK_R(open_node(1, node_of("a"), O_WRONLY | O_TRUNC, NULL, &h), -ESTALE);
	CHECK_R(lookup(1, META_ROOT, "a", &e), 0);
	CHECK_R(COMMITTED(store_rename(st, &renamer, META_ROOT, "b", META_ROOT, "a", 0, c)), 0);
	CHECK_R(lookup(1, META_ROOT, "a", &e), 0);
	CHECK_R(open_node(1, e.node, O_WRONLY | O_TRUNC, NULL, &h), 0);
	put_bytes(h, "new");
	close_handle(1, h);
	has("a", "new");
	CHECK(reads(reader, "other"));
	store_release(reader);
	check_idle(1);
}

/* Somebody who was sent to look the name up again, and comes back by the node that he had (/proc/PID/fd), gets a draft
 * there; what it was begun for goes away while its bytes are copied. */
static void test_gone_while_prepared(void **state)
{
	const struct caller c = who(1);
	struct handle *h = NULL, *w;
	uint64_t old, node, prepare = 0;

	put("a", "old");
	old = node_of("a");
	w = open_write(2, "a", O_TRUNC);
	put_bytes(w, "new");
	close_handle(2, w);
	node = node_of("a");
	CHECK_R(open_node(1, old, O_RDONLY, NULL, &h), -ESTALE);
	CHECK_R(store_open(st, &c, node, O_WRONLY, NULL, &h, &prepare), STORE_PREPARE);
	CHECK_R(unlink_name("a"), 0);
	CHECK_R(store_prepare(st, prepare), 0);
	CHECK_R(store_open(st, &c, node, O_WRONLY, NULL, &h, &prepare), STORE_GONE);
	check_idle(0);
}

/* Appending to what nobody reads copies nothing; a reader has the old version all the same. */
static void test_append(void **state)
{
	struct handle *w = create(1, "a"), *r;
	struct stat bytes;

	append_bytes(w, 'a', 100000);
	close_handle(1, w);
	w = open_write(1, "a", O_APPEND);
	append_bytes(w, 'b', 10);
	close_handle(1, w);
	CHECK_R((int)blobs.copies, 0);
	CHECK(size_of("a") == 100010);
	w = open_write(1, "a", O_APPEND);
	append_bytes(w, 'c', 10);
	r = open_read(2, "a");
	CHECK(fstat(handle_fd(r), &bytes) == 0 && bytes.st_size == 100010);
	close_handle(1, w);
	CHECK(fstat(handle_fd(r), &bytes) == 0 && bytes.st_size == 100010);
	store_release(r);
	CHECK(size_of("a") == 100020);
	check_idle(1);
}

/* What was closed was published, and that is taken back together with the beginning of the next append. The file is
 * still that of the first, who was told that it is closed. */
static void test_append_to_what_is_taken_back(void **state)
{
	struct handle *w = create(1, "a"), *h = NULL;
	const struct caller c2 = who(2);
	uint64_t vid = 0, node;
	char tail[11] = "";
	struct entry e;

	append_bytes(w, 'a', 100000);
	close_handle(1, w);
	record_all();
	w = open_write(1, "a", O_APPEND);
	append_bytes(w, 'b', 10);
	CHECK_R(flush(1, w), 0);
	store_release(w);
	CHECK_R(open_node(2, node_of("a"), O_WRONLY | O_APPEND, NULL, &h), -ESTALE);
	CHECK_R(lookup(2, META_ROOT, "a", &e), 0);
	node = e.node;
	CHECK_R(store_open(st, &c2, node, O_WRONLY | O_APPEND, NULL, &h, &vid), STORE_PREPARE);
	commits_fail(1);
	CHECK(declare("other") < 0);
	if (store_prepare(st, vid) == 0 && store_open(st, &c2, node, O_WRONLY | O_APPEND, NULL, &h, &vid) == 0) {
		append_bytes(h, 'c', 10);
		CHECK(flush(2, h) < 0);
		store_release(h);
	}
	drafts_settle_now(st);
	record_all();
	CHECK(size_of("a") == 100010);
	h = open_read(3, "a");
	CHECK(pread(handle_fd(h), tail, 10, 100000) == 10 && strcmp(tail, "bbbbbbbbbb") == 0);
	store_release(h);
	check_idle(1);
}

static void test_append_killed(void **state)
{
	struct handle *w = create(1, "a"), *r;
	struct stat bytes;

	append_bytes(w, 'a', 100000);
	close_handle(1, w);
	w = open_write(1, "a", O_APPEND);
	append_bytes(w, 'b', 10);
	kill_writer(1, w);
	CHECK(size_of("a") == 100000);
	r = open_read(2, "a");
	CHECK(fstat(handle_fd(r), &bytes) == 0 && bytes.st_size == 100000);
	store_release(r);
	check_idle(2); /* with what was torn */
}

/* ---- Killed writers ---- */

static void test_killed_new(void **state)
{
	struct handle *w = create(1, "a"), *h = NULL;
	struct test_waiter tw;
	struct entry e;

	put_bytes(w, "torn");
	wait_for(&tw, 2, "a");
	kill_writer(1, w);
	CHECK(is_woken(&tw));
	CHECK_R(tw.result, -EOWNERDEAD);
	CHECK_R(lookup(0, META_ROOT, "a", &e), -ENOENT);
	CHECK_R(open_name(2, "a", O_RDONLY, NULL, &h), -ENOENT);
	torn_has("a", "torn");
	check_idle(1);
}

/* Somebody looked the name up just before it went away with its draft. */
static void test_killed_new_late(void **state)
{
	struct handle *w = create(1, "a"), *own, *h = NULL;
	const struct caller c = who(1);
	uint64_t node = handle_vid(w);
	struct entry e;

	put_bytes(w, "torn");
	own = open_read(1, "a");
	kill_writer(1, w);
	CHECK_R(open_node(2, node, O_RDONLY, NULL, &h), -ESTALE);
	CHECK_R(open_node(3, node, O_WRONLY, NULL, &h), -ESTALE);
	CHECK_R(store_getattr(st, &c, node, &e), 0);
	CHECK(e.o.nlink == 0 && e.o.size == 4); /* what it is, for those who had it open */
	CHECK(reads(own, "torn"));
	store_release(own);
	check_idle(1);
}

static void test_killed_replacement(void **state)
{
	struct handle *w;

	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "torn");
	kill_writer(1, w);
	has("a", "old");
	CHECK(attribute_is("a", "user.promisefs.version", "1"));
	torn_has("a", "torn");
	check_idle(2);
}

/* An exit of any kind is a close. */
static void test_exited(void **state)
{
	struct handle *w = create(1, "a");

	put_bytes(w, "whole");
	fates[1] = FATE_EXITED;
	close_handle(1, w);
	has("a", "whole");
}

/* It is the last close that counts. */
static void test_killed_first(void **state)
{
	struct handle *a, *b;

	put("a", "old");
	a = open_write(1, "a", O_TRUNC);
	b = open_write(4, "a", 0);
	put_bytes(a, "both");
	kill_writer(1, a);
	close_handle(4, b);
	has("a", "both");
	check_idle(1);
}

static void test_killed_fsynced(void **state)
{
	struct handle *w = create(1, "a");

	put_bytes(w, "counts");
	CHECK_R(fsync_handle(w), 0);
	CHECK(blobs.syncs > 0);
	kill_writer(1, w);
	has("a", "counts");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "this too");
	CHECK_R(fsync_handle(w), 0);
	kill_writer(1, w);
	has("a", "this too");
	check_idle(1);
}

static void test_killed_after_flush(void **state)
{
	struct handle *w;

	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "torn");
	CHECK_R(flush(1, w), 0); /* one descriptor; a child has it too, and dies */
	kill_writer(1, w);
	has("a", "old");
}

static void test_torn_bytes_age(void **state)
{
	struct handle *w = create(1, "a");
	struct entry e;

	put_bytes(w, "first");
	kill_writer(1, w);
	torn_has("a", "first");
	clock_move(25 * HOUR);
	w = create(1, "b"); /* keeping another one looks through them */
	put_bytes(w, "second");
	kill_writer(1, w);
	for (unsigned i = 0; i < 500 && lookup_torn("a", &e) == 0; i++)
		usleep(10000);
	CHECK_R(lookup_torn("a", &e), -ENOENT);
	torn_has("b", "second");
}

static void test_torn_bytes_limit(void **state)
{
	struct handle *w;
	struct entry e;

	unmount_store();
	options.aborted_bytes = 10;
	mount_store(START);
	w = create(1, "a");
	put_bytes(w, "12345678");
	kill_writer(1, w);
	torn_has("a", "12345678");
	w = create(1, "b");
	put_bytes(w, "123");
	kill_writer(1, w);
	for (unsigned i = 0; i < 500 && lookup_torn("a", &e) == 0; i++)
		usleep(10000);
	CHECK_R(lookup_torn("a", &e), -ENOENT);
	torn_has("b", "123");
}

/* ---- Crashes ---- */

static void crash_published(void)
{
	put("a", "published");
	replace("a", "again");
	record_all();
}

static void crash_sealed(void)
{
	struct handle *w = create(1, "new");

	put_bytes(w, "sealed new");
	CHECK_R(flush(1, w), 0);
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "sealed");
	CHECK_R(flush(1, w), 0); /* close(2) has returned; RELEASE never comes */
}

static void crash_writing(void)
{
	put_bytes(open_write(1, "a", O_TRUNC), "torn");
	put_bytes(create(1, "new"), "torn new");
	record_all();
}

/* Its writer was killed, and RELEASE never comes. */
static void crash_killed(void)
{
	struct handle *a = open_write(1, "a", O_TRUNC), *n = create(1, "new");

	put_bytes(a, "torn");
	CHECK_R(flush(1, a), 0); /* what one descriptor sealed, the death of another takes back */
	put_bytes(n, "torn new");
	fates[1] = FATE_KILLED;
	CHECK_R(flush(1, a), 0);
	CHECK_R(flush(1, n), 0);
	record_all();
}

static void crash_fsynced(void)
{
	struct handle *a = open_write(1, "a", O_TRUNC), *f = open_write(1, "f", O_TRUNC);

	put_bytes(a, "synced");
	put_bytes(f, "synced");
	CHECK_R(fsync_handle(a), 0);
	CHECK_R(fsync_handle(f), 0);
}

static void crash_sealed_then_written(void)
{
	struct handle *w = open_write(1, "a", O_TRUNC);

	put_bytes(w, "sealed");
	CHECK_R(flush(1, w), 0);
	put_bytes(w, " and more, by a child"); /* which has not closed it */
}

static void crash_appending(void)
{
	struct handle *w = open_write(1, "a", O_APPEND);

	append_bytes(w, 'b', 1000);
	record_all();
}

static void crash_unlinked_open(void)
{
	open_read(2, "a");
	CHECK_R(unlink_name("a"), 0);
}

/* ---- Power loss: what has to be on the disk before a file is removed ---- */

static atomic_uint removed, durables_at_removal, syncs_at_removal;

static void note_removal(uint64_t vid)
{
	removed++;
	durables_at_removal = durables_asked();
	syncs_at_removal = blobs.syncs + blobs.sync_alls;
}

/* Without asking that anything survive power loss. */
static void collect_garbage(void)
{
	COMMITTED((m->ops->begin(m), m->ops->end(m, META_RECORDED, c), 0));
	garbage_empty(st);
}

static void note_removals(void)
{
	record_all();
	removed = 0;
	blobs.on_remove = note_removal;
}

static void put_durable(const char *name, const char *text)
{
	struct handle *w = create(1, name);

	put_bytes(w, text);
	CHECK_R(fsync_handle(w), 0);
	close_handle(1, w);
}

static void test_removal_of_durable(void **state)
{
	unsigned durables, syncs;

	put_durable("a", "old");
	note_removals();
	durables = durables_asked();
	syncs = blobs.syncs;
	replace("a", "new");
	CHECK_R((int)test_blobs_count(&blobs, true), 2); /* nothing was said of power loss yet */
	collect_garbage();
	CHECK_R((int)removed, 1);
	CHECK(syncs_at_removal == syncs + 1); /* the new version */
	CHECK(durables_at_removal > durables);
	note_removals();
	syncs = blobs.syncs;
	replace("a", "newer"); /* what it replaces has come to be durable */
	collect_garbage();
	CHECK_R((int)removed, 1);
	CHECK(syncs_at_removal == syncs + 1);
	has("a", "newer");
	blobs.on_remove = NULL;
	check_idle(1);
}

static void test_removal_of_unsynced(void **state)
{
	unsigned durables, syncs;

	put("a", "old");
	note_removals();
	durables = durables_asked();
	syncs = blobs.syncs;
	replace("a", "new");
	replace("a", "newer");
	collect_garbage();
	CHECK_R((int)removed, 2);
	CHECK(blobs.syncs == syncs); /* nobody was promised anything */
	CHECK(durables_at_removal > durables); /* but no record without a file */
	CHECK_R(unlink_name("a"), 0);
	durables = durables_asked();
	collect_garbage();
	CHECK_R((int)removed, 3);
	CHECK(durables_at_removal > durables);
	blobs.on_remove = NULL;
	check_idle(0);
}

/* A reader's fsync counts too; bytes that came after the last fsync do not. */
static void test_removal_of_synced_later(void **state)
{
	struct handle *h;
	unsigned syncs;

	put("a", "old");
	h = open_read(2, "a");
	CHECK_R(fsync_handle(h), 0);
	store_release(h);
	note_removals();
	syncs = blobs.syncs;
	replace("a", "new");
	collect_garbage();
	CHECK(syncs_at_removal == syncs + 1);

	h = open_write(1, "a", O_TRUNC);
	put_bytes(h, "synced");
	CHECK_R(fsync_handle(h), 0);
	put_bytes(h, " and more");
	syncs = blobs.syncs;
	close_handle(1, h);
	collect_garbage();
	CHECK(syncs_at_removal == syncs + 1);
	has("a", "synced and more");
	blobs.on_remove = NULL;
	check_idle(1);
}

/* While a backup copies them files stay, also those that somebody has open and closes meanwhile; then they go. */
static void test_removal_while_held(void **state)
{
	struct handle *h;
	int64_t at;

	put("a", "old");
	put("b", "old");
	note_removals();
	blobs.held = true;
	h = open_read(2, "b");
	replace("a", "new");
	CHECK_R(unlink_name("b"), 0);
	collect_garbage();
	store_release(h);
	collect_garbage();
	CHECK_R((int)removed, 0);
	has("a", "new");
	CHECK_R((int)test_blobs_count(&blobs, true), 3);
	blobs.held = false;
	at = clock_now();
	unmount_store(); /* does not wait for the half second */
	CHECK_R((int)removed, 2);
	mount_store(at);
	has("a", "new");
	check_idle(1);
}

static void test_removal_held_to_the_end(void **state)
{
	put("a", "old");
	note_removals();
	blobs.held = true;
	replace("a", "new");
	remount(); /* nothing is held any more */
	CHECK_R((int)removed, 0); /* not before the next start */
	collect_garbage();
	CHECK_R((int)test_blobs_count(&blobs, true), 1);
	has("a", "new");
	check_idle(1);
}

/* Who frees much of what is left of a full disk finds it free. */
static void test_removal_when_scarce(void **state)
{
	static char big[100001];

	memset(big, 'x', sizeof(big) - 1);
	put("a", big);
	put("b", "small");
	record_all();
	blobs.space = 2 * sizeof(big);
	CHECK_R(unlink_name("b"), 0);
	CHECK_R((int)test_blobs_count(&blobs, true), 2);
	CHECK_R(unlink_name("a"), 0);
	CHECK_R((int)test_blobs_count(&blobs, true), 0);
	check_idle(0);
}

static void crash_replaced(void)
{
	replace("a", "new");
	COMMITTED((m->ops->begin(m), m->ops->end(m, META_RECORDED, c), 0));
}

static void test_crash_garbage(void **state)
{
	put_durable("a", "old");
	crash(crash_replaced);
	CHECK(blobs.sync_alls == 1); /* before what is garbage goes */
	has("a", "new");
	check_idle(1);
}

/* The power failed after an append whose record was lost. */
static void test_power_loss_tail(void **state)
{
	struct entry e;
	int fd;

	put("a", "whole");
	CHECK_R(lookup(0, META_ROOT, "a", &e), 0);
	unmount_store();
	CHECK_R(test_blobs_open(scratch_path(dir, "data"), &blobs), 0);
	fd = blobs.b.ops->open(&blobs.b, e.node);
	CHECK(pwrite(fd, " and a tail", 11, 5) == 11);
	close(fd);
	test_blobs_close(&blobs);
	mount_store(START);
	has("a", "whole");
	check_idle(1);
}

static void test_crash_published(void **state)
{
	crash(crash_published);
	has("a", "again");
	CHECK(attribute_is("a", "user.promisefs.version", "2"));
	check_idle(1);
}

static void test_crash_sealed(void **state)
{
	put("a", "old");
	crash(crash_sealed);
	has("a", "sealed");
	has("new", "sealed new");
	check_idle(2);
}

static void test_crash_writing(void **state)
{
	struct entry e;

	put("a", "old");
	crash(crash_writing);
	has("a", "old");
	CHECK_R(lookup(0, META_ROOT, "new", &e), -ENOENT);
	torn_has("a", "torn");
	torn_has("new", "torn new");
	check_idle(3);
}

static void test_crash_killed(void **state)
{
	struct entry e;

	put("a", "old");
	crash(crash_killed);
	has("a", "old");
	CHECK_R(lookup(0, META_ROOT, "new", &e), -ENOENT);
	torn_has("a", "torn");
	torn_has("new", "torn new");
	check_idle(3);
}

static void test_crash_fsynced(void **state)
{
	struct handle *h = NULL;

	put("a", "old");
	CHECK_R(declare("f"), 0);
	crash(crash_fsynced);
	has("a", "synced");
	CHECK_R(open_name(2, "f", O_RDONLY, NULL, &h), -EOWNERDEAD);
	torn_has("f", "synced");
	check_idle(2);
}

static void test_crash_sealed_then_written(void **state)
{
	put("a", "old");
	crash(crash_sealed_then_written);
	has("a", "old");
	torn_has("a", "sealed and more, by a child");
}

static void test_crash_appending(void **state)
{
	struct handle *h = create(1, "a");
	struct stat bytes;

	append_bytes(h, 'a', 100000);
	close_handle(1, h);
	crash(crash_appending);
	h = open_read(2, "a");
	CHECK(fstat(handle_fd(h), &bytes) == 0 && bytes.st_size == 100000);
	store_release(h);
	CHECK(size_of("a") == 100000);
}

static void test_crash_unlinked_open(void **state)
{
	struct entry e;

	put("a", "x");
	crash(crash_unlinked_open);
	CHECK_R(lookup(0, META_ROOT, "a", &e), -ENOENT);
	check_idle(0);
}

/* The store and the catalog are closed under a writer and readers, and opened again. */
static void test_reopen_under_handles(void **state)
{
	struct handle *w, *r, *sealed;
	int64_t at = clock_now();

	put("a", "old");
	r = open_read(2, "a");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "torn");
	sealed = create(4, "s");
	put_bytes(sealed, "whole");
	CHECK_R(flush(4, sealed), 0);
	unmount_store();
	free(w);
	free(r);
	free(sealed);
	mount_store(at);
	has("a", "old");
	has("s", "whole");
	torn_has("a", "torn");
	check_idle(3);
}

/* ---- When the catalog cannot record ---- */

static bool reaches_version(const char *name, uint64_t version)
{
	struct entry e = { 0 };

	for (unsigned i = 0; i < 500; i++) {
		CHECK_R(lookup(0, META_ROOT, name, &e), 0);
		if (e.o.version == version)
			return true;
		usleep(10000);
	}
	return false;
}

static void test_settle_again(void **state)
{
	struct handle *w;

	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "new");
	CHECK_R(flush(1, w), 0);
	updates_fail(EIO, 2);
	store_release(w); /* cannot be recorded now; close(2) has said that it is */
	CHECK(reaches_version("a", 2));
	has("a", "new");
	check_idle(1);
}

/* Before that is tried again, the next writer comes: his is the newer one, and no file is left of the other. */
static void test_settle_overtaken(void **state)
{
	struct handle *w;

	put("a", "old");
	w = open_write(1, "a", O_TRUNC);
	put_bytes(w, "new");
	CHECK_R(flush(1, w), 0);
	updates_fail(EIO, 1);
	store_release(w);
	replace("a", "newer");
	usleep(500000);
	has("a", "newer");
	check_idle(1);
}

/* ---- Names ---- */

static int remove_dir(const char *name)
{
	const struct caller remover = who(3);

	return COMMITTED(store_rmdir(st, &remover, META_ROOT, name, c));
}

static void test_directories(void **state)
{
	const struct caller somebody = who(4);
	struct entry d, sub, e;

	CHECK_R(make_dir(META_ROOT, "d", &d), 0);
	CHECK_R(make_dir(META_ROOT, "d", &e), -EEXIST);
	CHECK(d.o.mode == (S_IFDIR | 0755) && links_of(d.node) == 2 && links_of(META_ROOT) == 3);
	CHECK_R(make_dir(d.node, "sub", &sub), 0);
	CHECK_R((int)links_of(d.node), 3);
	CHECK_R(remove_dir("d"), -ENOTEMPTY);
	CHECK_R(unlink_name("d"), -EISDIR);
	put("f", "x");
	CHECK_R(remove_dir("f"), -ENOTDIR);
	CHECK_R(rename_to(d.node, "sub", META_ROOT, "up", 0), 0);
	CHECK(links_of(d.node) == 2 && links_of(META_ROOT) == 4);
	CHECK_R(remove_dir("d"), 0);
	CHECK_R(remove_dir("d"), -ENOENT);
	CHECK_R((int)links_of(META_ROOT), 3);
	CHECK_R((int)links_of(d.node), 0); /* it may be somebody's working directory */
	store_forget(st, d.node);
	CHECK_R(store_getattr(st, &somebody, d.node, &e), -ESTALE);
	check_idle(1);
}

static void test_rename(void **state)
{
	struct handle *r;

	put("a", "A");
	put("b", "B");
	CHECK_R(rename_to(META_ROOT, "a", META_ROOT, "b", RENAME_NOREPLACE), -EEXIST);
	CHECK_R(rename_to(META_ROOT, "a", META_ROOT, "nothing", RENAME_EXCHANGE), -ENOENT);
	CHECK_R(rename_to(META_ROOT, "nothing", META_ROOT, "b", 0), -ENOENT);
	CHECK_R(rename_to(META_ROOT, "a", META_ROOT, "b", 4), -EINVAL);
	CHECK_R(rename_to(META_ROOT, "a", META_ROOT, "b", RENAME_EXCHANGE), 0);
	has("a", "B");
	has("b", "A");
	r = open_read(2, "b");
	CHECK_R(rename_to(META_ROOT, "a", META_ROOT, "b", 0), 0);
	has("b", "B");
	CHECK(reads(r, "A"));
	store_release(r);
	check_idle(1);
}

static void test_links(void **state)
{
	struct entry e;

	put("k2", "linked");
	CHECK_R(by_link("other"), 0);
	CHECK_R(by_link("other"), -EEXIST);
	CHECK(object_of("k2") == object_of("other"));
	CHECK_R((int)links_of(node_of("k2")), 2);
	replace("other", "new");
	has("k2", "new"); /* one object */
	CHECK(invalidations >= 2); /* whoever has the other name cached is told */
	CHECK_R(rename_to(META_ROOT, "k2", META_ROOT, "other", 0), 0); /* of the same object: nothing happens */
	has("k2", "new");
	CHECK_R(unlink_name("k2"), 0);
	has("other", "new");
	CHECK_R(unlink_name("other"), 0);
	CHECK_R(lookup(0, META_ROOT, "other", &e), -ENOENT);
	check_idle(0);
}

/* As the kernel makes a link: looks both names up, and once more when what has the first is gone. */
static int link_what_is_replaced(int32_t tid)
{
	struct caller linker = who(tid);
	struct entry e, none;

	CHECK_R(lookup(tid, META_ROOT, "k", &e), 0);
	CHECK_R(lookup(tid, META_ROOT, "link", &none), -ENOENT);
	CHECK_R(unlink_name("k"), 0);
	put("k", "another");
	return COMMITTED(store_link(st, &linker, e.node, META_ROOT, "link", &none, c));
}

static void test_links_of_what_is_replaced(void **state)
{
	put("k", "one");
	CHECK_R(link_what_is_replaced(5), -ESTALE);
	CHECK_R(link_what_is_replaced(5), -ENOENT);
	CHECK_R(unlink_name("k"), 0);
	check_idle(0);
}

struct listed {
	unsigned n;
	uint64_t last;
};

static int list_entry(void *arg, const struct meta_dentry *d, const struct entry *e)
{
	struct listed *l = arg;

	l->n++;
	l->last = d->cookie;
	return 0;
}

static void test_readdir(void **state)
{
	const struct caller c = who(3);
	struct listed l = { 0 };
	char name[16];
	unsigned before;

	for (unsigned i = 0; i < 25; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		CHECK_R(declare(name), 0);
	}
	do {
		before = l.n;
		CHECK_R(store_readdir(st, &c, META_ROOT, l.last, 4, list_entry, &l), 0);
		CHECK(l.n - before <= 4);
	} while (l.n > before);
	CHECK_R((int)l.n, 25);
}

static void test_user_attributes(void **state)
{
	const struct caller setter = who(3);
	char list[64];
	uint64_t node;

	put("a", "x");
	node = node_of("a");
	CHECK_R(set_attribute("a", "user.mine", "value"), 0);
	CHECK(attribute_is("a", "user.mine", "value"));
	CHECK_R(store_getxattr(st, &anybody, node, "user.mine", list, 2), -ERANGE);
	CHECK_R(store_getxattr(st, &anybody, node, "user.other", NULL, 0), -ENODATA);
	CHECK_R(store_getxattr(st, &anybody, node, "pfs.sha256", NULL, 0), -EOPNOTSUPP);
	CHECK_R(set_attribute("a", "pfs.x", "1"), -EOPNOTSUPP);
	CHECK_R(set_attribute("a", "user.promisefs.state", "ready"), -EINVAL);
	CHECK_R(COMMITTED(store_setxattr(st, &setter, node, "user.mine", "v", 1, XATTR_CREATE, c)), -EEXIST);
	CHECK_R(COMMITTED(store_setxattr(st, &setter, node, "user.new", "v", 1, XATTR_REPLACE, c)), -ENODATA);
	CHECK(attribute_is("a", "user.promisefs.sha256", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"));
	CHECK(attribute_is("a", "user.promisefs.sha256", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"));
	CHECK_R(store_listxattr(st, &anybody, node, list, sizeof(list)), 10);
	CHECK(strcmp(list, "user.mine") == 0);
	CHECK_R(store_listxattr(st, &anybody, node, list, 5), -ERANGE);
	replace("a", "y");
	CHECK(attribute_is("a", "user.mine", "value")); /* the object's, not the version's */
	CHECK(attribute_is("a", "user.promisefs.sha256", "a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa"));
	CHECK_R(remove_attribute("a", "user.mine"), 0);
	CHECK_R(remove_attribute("a", "user.mine"), -ENODATA);
}

/* ---- Looking on ---- */

struct log {
	char kinds[256];
};

static int add_kind(void *arg, const struct meta_event *e)
{
	struct log *l = arg;

	strncat(l->kinds, e->kind, sizeof(l->kinds) - strlen(l->kinds) - 2);
	strcat(l->kinds, " ");
	return 0;
}

static void test_log(void **state)
{
	struct log l = { "" };

	CHECK_R(declare("f"), 0);
	CHECK_R(set_attribute("f", "user.promisefs.error", "bad"), 0);
	replace("f", "x");
	put("other", "y");
	CHECK_R(unlink_name("f"), 0);
	CHECK_R(store_log(st, "f", add_kind, &l), 0);
	CHECK(strcmp(l.kinds, "declare fail put evict ") == 0);
	CHECK(events_seen == 5);
	l.kinds[0] = '\0';
	CHECK_R(store_log(st, NULL, add_kind, &l), 0);
	CHECK(strcmp(l.kinds, "declare fail put put evict ") == 0);
}

struct seen_wait {
	char key[64], state[16];
	int32_t tid, holder;
	int64_t since;
	unsigned n;
};

static int see_wait(void *arg, const struct wait_info *w)
{
	struct seen_wait *s = arg;

	s->n++;
	snprintf(s->key, sizeof(s->key), "%s", w->key);
	snprintf(s->state, sizeof(s->state), "%s", w->state);
	s->tid = w->tid;
	s->since = w->since;
	s->holder = w->holder_count > 0 ? w->holders[0] : 0;
	return 0;
}

static void test_waits(void **state)
{
	struct handle *w = create(1, "a");
	struct seen_wait s = { .n = 0 };
	struct test_waiter tw;

	CHECK_R(store_waits(st, see_wait, &s), 0);
	CHECK_R((int)s.n, 0);
	wait_for(&tw, 2, "a");
	CHECK_R(store_waits(st, see_wait, &s), 0);
	CHECK_R((int)s.n, 1);
	CHECK(strcmp(s.key, "a") == 0 && strcmp(s.state, "writing") == 0);
	CHECK(s.tid == 2 && s.holder == 1 && s.since == START);
	close_handle(1, w);
	CHECK(is_woken(&tw));
}

/* Where clocks are coarse, a write in the moment of the open must be told from none. */
static void test_copy_is_older_than_any_write(void **state)
{
	struct handle *h;
	struct stat bytes;
	struct entry e;

	put("a", "text");
	h = open_write(1, "a", 0);
	CHECK_R(lookup(2, META_ROOT, "a", &e), 0);
	CHECK(fstat(handle_fd(h), &bytes) == 0 && ns_of(&bytes.st_mtim) == e.o.mtime - 1);
	CHECK_R(store_getattr(st, &anybody, handle_vid(h), &e), 0);
	CHECK(e.o.mtime == ns_of(&bytes.st_mtim) + 1); /* nobody gets to see that */
	put_bytes(h, "test");
	close_handle(1, h);
	has("a", "test");
}

/* Somebody appends to a, in the file that the current version has as well. */
static struct handle *append_to_shared(void)
{
	struct handle *w = create(1, "a");

	append_bytes(w, 'x', 100000);
	close_handle(1, w);
	w = open_write(1, "a", O_APPEND);
	CHECK(blobs.shares == 1);
	return w;
}

static void does_not_see_appended(struct handle *w, struct handle *r)
{
	handle_fd(r);
	append_bytes(w, 'y', 10);
	CHECK(lseek(handle_fd(r), 0, SEEK_END) == 100000);
	store_release(r);
	close_handle(1, w);
	CHECK(size_of("a") == 100010);
}

static void test_reader_who_looks_again_shares_nothing(void **state)
{
	struct handle *w = append_to_shared(), *r;
	struct entry e;

	CHECK_R(open_node(2, handle_vid(w), O_RDONLY, NULL, &r), -ESTALE);
	CHECK_R(lookup(2, META_ROOT, "a", &e), 0);
	CHECK_R(open_node(2, e.node, O_RDONLY, NULL, &r), 0);
	does_not_see_appended(w, r);
}

static void test_reader_who_settles_late_shares_nothing(void **state)
{
	struct handle *w = append_to_shared(), *r;
	const struct caller reader = who(2);
	struct entry e;

	CHECK_R(lookup(2, META_ROOT, "a", &e), 0);
	CHECK_R(store_open_unsettled(st, &reader, e.node, O_RDONLY | O_NONBLOCK, &r), 0);
	CHECK_R(handle_settled(r), 0);
	does_not_see_appended(w, r);
}

/* What the thread was sent to look for before was not there. */
static void test_look_given_up(void **state)
{
	struct handle *r, *w;
	struct entry e;
	uint64_t gone;

	put("a", "1");
	put("b", "2");
	gone = node_of("a");
	CHECK_R(unlink_name("a"), 0);
	CHECK_R(open_node(2, gone, O_RDONLY, NULL, &r), -ESTALE);
	CHECK_R(lookup(2, META_ROOT, "a", &e), -ENOENT);
	r = open_read(3, "b");
	w = open_write(2, "b", O_TRUNC);
	put_bytes(w, "3");
	close_handle(2, w);
	CHECK(reads(r, "2"));
	store_release(r);
	has("b", "3");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_copy_is_older_than_any_write),
		TEST(test_put),
		TEST(test_put_empty),
		TEST(test_exists),
		TEST(test_replace),
		TEST(test_old_version_stat),
		TEST(test_many_replacements),
		TEST(test_update),
		TEST(test_unchanged),
		TEST(test_two_writers),
		TEST(test_reads_own_draft),
		TEST(test_unlink_open),
		TEST(test_departed),
		TEST(test_departed_many),
		TEST(test_unlink_while_writing),
		TEST(test_no_space),
		TEST(test_create_fails),
		TEST(test_prepare_fails),
		TEST(test_gone_while_prepared),
		TEST(test_looked_up_long_ago),
		TEST(test_looked_up_twice),
		TEST(test_looks_up_own_draft),
		TEST(test_mapped),
		TEST(test_renamed_while_looked_up),
		TEST(test_renamed_between_look_ups),
		TEST(test_append),
		TEST(test_append_to_what_is_taken_back),
		TEST(test_append_killed),
		TEST(test_killed_new),
		TEST(test_killed_new_late),
		TEST(test_killed_replacement),
		TEST(test_exited),
		TEST(test_killed_first),
		TEST(test_killed_fsynced),
		TEST(test_killed_after_flush),
		TEST(test_torn_bytes_age),
		TEST(test_torn_bytes_limit),
		TEST(test_removal_of_durable),
		TEST(test_removal_while_held),
		TEST(test_removal_held_to_the_end),
		TEST(test_removal_of_unsynced),
		TEST(test_removal_of_synced_later),
		TEST(test_removal_when_scarce),
		TEST(test_crash_garbage),
		TEST(test_power_loss_tail),
		TEST(test_crash_published),
		TEST(test_crash_sealed),
		TEST(test_crash_writing),
		TEST(test_crash_killed),
		TEST(test_crash_fsynced),
		TEST(test_crash_sealed_then_written),
		TEST(test_crash_appending),
		TEST(test_crash_unlinked_open),
		TEST(test_reopen_under_handles),
		TEST(test_settle_again),
		TEST(test_settle_overtaken),
		TEST(test_directories),
		TEST(test_rename),
		TEST(test_links),
		TEST(test_links_of_what_is_replaced),
		TEST(test_readdir),
		TEST(test_user_attributes),
		TEST(test_log),
		TEST(test_waits),
		TEST(test_reader_who_looks_again_shares_nothing),
		TEST(test_reader_who_settles_late_shares_nothing),
		TEST(test_look_given_up),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

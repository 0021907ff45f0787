/* The store over a SQLite catalog and a directory of data files, without FUSE: the test is the front end. Threads are
 * numbers here, and the test says what became of them; the wall clock is the test's. */
#include "core/internal.h"
#include "core/parse.h"
#include "core/store.h"
#include "tests/unit/blobs.h"
#include "tests/unit/rig.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#define START (1700000000 * SECOND)
#define HOUR (3600 * SECOND)
#define TIDS 32

static char *dir;
static struct meta *m;
static struct test_blobs blobs;
static struct store *st;
static struct store_options options;

/* What the hooks say. */
static enum fate fates[TIDS];
static bool holds_own;      /* every thread holds what it writes, as far as `holds` is concerned */
static bool others_hold;    /* there are more processes than those that are known */
static uint64_t held[TIDS]; /* the object that a thread has open */
static atomic_uint events_seen, invalidations;

static void hook_process(void *arg, int32_t tid, struct process *p)
{
	*p = (struct process){ .pid = tid, .fate = fates[tid] };
	snprintf(p->command, sizeof(p->command), "cmd%d", tid);
}

static bool hook_holds(void *arg, int32_t tid, uint64_t object)
{
	return holds_own && held[tid] == object;
}

static bool hook_held(void *arg, uint64_t object)
{
	return others_hold;
}

static bool hook_only_these(void *arg, const struct holding *h, unsigned n)
{
	return !others_hold;
}

static uint64_t starts[TIDS]; /* what tells processes apart; 0: there is none */
static unsigned watched[TIDS];

static int hook_identify(void *arg, const struct caller *who, int32_t pid, uint64_t *start)
{
	if (pid >= TIDS || starts[pid] == 0)
		return -ESRCH;
	*start = starts[pid];
	return who->uid == 7 ? -EPERM : 0;
}

static void hook_watch(void *arg, int32_t pid, uint64_t start)
{
	watched[pid]++;
}

static void hook_invalidate(void *arg, uint64_t parent, const char *name)
{
	invalidations++;
}

static void hook_event(void *arg, const struct meta_event *e)
{
	events_seen++;
}

static const struct store_hooks hooks = {
	.process = hook_process, .holds = hook_holds, .held = hook_held, .only_these_hold = hook_only_these,
	.identify = hook_identify, .watch = hook_watch, .invalidate = hook_invalidate, .event = hook_event,
};

static struct caller who(int32_t tid)
{
	return (struct caller){ .uid = 1000, .gid = 1000, .tid = tid, .umask = 022 };
}

/* ---- The rig ---- */

static bool in_child; /* where a failed check must not run the rest of the tests */

static void check_at(bool good, const char *what, int line)
{
	if (good)
		return;
	if (in_child) {
		fprintf(stderr, "test_store.c:%d: %s (in the child)\n", line, what);
		_exit(1);
	}
	_assert_true(0, what, __FILE__, line);
}

#define CHECK(cond) check_at((cond), #cond, __LINE__)

static void check_result(int r, int expected, const char *what, int line)
{
	char text[256];

	snprintf(text, sizeof(text), "%s: %d, expected %d", what, r, expected);
	check_at(r == expected, text, line);
}

#define CHECK_R(call, expected) check_result((call), (expected), #call, __LINE__)

/* Waits for what a call with a commit answers. */
#define COMMITTED(call)                                    \
	({                                                 \
		struct sync_commit committed;              \
		struct meta_commit *c = &committed.c;      \
		int committed_r;                           \
                                                           \
		sync_init(&committed);                     \
		committed_r = (call);                      \
		if (committed_r == 0) {                    \
			CHECK(sync_wait(&committed));      \
			committed_r = committed.result;    \
		}                                          \
		committed_r;                               \
	})

/* Waits until everything up to now is recorded and told to whom it concerns. The catalog's thread answers for power
 * loss, so once it has, it is done with what it was told before. And until what is not needed is removed. */
static void record_all(void)
{
	COMMITTED((m->ops->begin(m), m->ops->end(m, META_DURABLE, c), 0));
	garbage_empty(st);
}

static void mount_store(int64_t at)
{
	const char *why;

	CHECK_R(meta_sqlite_open(scratch_path(dir, "catalog.db"), &m, &why), 0);
	clock_take_over(m, at);
	CHECK_R(test_blobs_open(scratch_path(dir, "data"), &blobs), 0);
	CHECK_R(store_open_all(m, &blobs.b, &hooks, NULL, &options, &st), 0);
}

static void unmount_store(void)
{
	if (st == NULL)
		return;
	record_all();
	store_close(st);
	m->ops->close(m);
	test_blobs_close(&blobs);
	st = NULL;
}

static void remount(void)
{
	int64_t at = clock_now();

	unmount_store();
	mount_store(at);
}

static int set_up_raw(void **state)
{
	options = (struct store_options){ .aborted_age = 24 * HOUR, .aborted_bytes = 1 << 30, .wait_timeout = -1 };
	memset(fates, 0, sizeof(fates));
	memset(held, 0, sizeof(held));
	holds_own = true;
	others_hold = false;
	events_seen = invalidations = 0;
	dir = scratch_make();
	return dir == NULL || mkdir(scratch_path(dir, "data"), 0700) < 0 ? -1 : 0;
}

static int set_up(void **state)
{
	if (set_up_raw(state) < 0)
		return -1;
	mount_store(START);
	return 0;
}

static int tear_down(void **state)
{
	unmount_store();
	scratch_remove(dir);
	return 0;
}

/* ---- What a front end does ---- */

static int lookup(int32_t tid, uint64_t parent, const char *name, struct entry *e)
{
	const struct caller c = who(tid);

	return store_lookup(st, &c, parent, name, e);
}

static uint64_t node_of(const char *name)
{
	struct entry e;

	CHECK_R(lookup(0, META_ROOT, name, &e), 0);
	return e.node;
}

static uint64_t object_of(const char *name)
{
	struct entry e;

	CHECK_R(lookup(0, META_ROOT, name, &e), 0);
	return e.o.id;
}

static struct handle *create(int32_t tid, const char *name)
{
	const struct caller c = who(tid);
	struct handle *h = NULL;
	struct entry e;

	CHECK_R(store_create(st, &c, META_ROOT, name, 0644, O_WRONLY | O_CREAT, &e, &h), 0);
	held[tid] = e.o.id;
	return h;
}

static int open_node(int32_t tid, uint64_t node, int flags, struct waiter *w, struct handle **h)
{
	const struct caller c = who(tid);
	uint64_t prepare = 0;
	int r;

	while ((r = store_open(st, &c, node, flags, w, h, &prepare)) == STORE_PREPARE) {
		r = store_prepare(st, prepare);
		if (r < 0)
			return r;
	}
	return r;
}

/* As the kernel opens a path: looks the name up, and once more when told to. */
static int open_name(int32_t tid, const char *name, int flags, struct waiter *w, struct handle **h)
{
	struct entry e;
	int r = lookup(tid, META_ROOT, name, &e);

	if (r == 0)
		r = open_node(tid, e.node, flags, w, h);
	if (r != -ESTALE)
		return r;
	r = lookup(tid, META_ROOT, name, &e);
	return r == 0 ? open_node(tid, e.node, flags, w, h) : r;
}

static struct handle *open_write(int32_t tid, const char *name, int flags)
{
	struct handle *h = NULL;

	CHECK_R(open_name(tid, name, O_WRONLY | flags, NULL, &h), 0);
	held[tid] = object_of(name);
	return h;
}

static struct handle *open_read(int32_t tid, const char *name)
{
	struct handle *h = NULL;

	CHECK_R(open_name(tid, name, O_RDONLY, NULL, &h), 0);
	return h;
}

static void put_bytes(struct handle *h, const char *text)
{
	CHECK(write(handle_fd(h), text, strlen(text)) == (ssize_t)strlen(text));
}

static int flush(int32_t tid, struct handle *h)
{
	const struct caller who_closes = who(tid);

	return COMMITTED(store_flush(h, &who_closes, c));
}

static void close_handle(int32_t tid, struct handle *h)
{
	CHECK_R(flush(tid, h), 0);
	store_release(h);
	held[tid] = 0;
}

static void kill_writer(int32_t tid, struct handle *h)
{
	fates[tid] = FATE_KILLED;
	flush(tid, h);
	store_release(h);
	fates[tid] = FATE_ALIVE;
	held[tid] = 0;
}

static void put(const char *name, const char *text)
{
	struct handle *h = create(1, name);

	put_bytes(h, text);
	close_handle(1, h);
}

static void replace(const char *name, const char *text)
{
	struct handle *h = open_write(1, name, O_TRUNC);

	put_bytes(h, text);
	close_handle(1, h);
}

static bool reads(struct handle *h, const char *text)
{
	char got[256] = "";
	ssize_t n = pread(handle_fd(h), got, sizeof(got) - 1, 0);

	if (n < 0 || strcmp(got, text) != 0)
		fprintf(stderr, "read \"%s\" instead of \"%s\"\n", got, text);
	return n >= 0 && strcmp(got, text) == 0;
}

static void has(const char *name, const char *text)
{
	struct handle *h = open_read(2, name);

	CHECK(reads(h, text));
	CHECK(handle_is_final(h));
	store_release(h);
}

static int declare(const char *name)
{
	const struct caller declarer = who(1);
	struct entry e;

	return COMMITTED(store_declare(st, &declarer, META_ROOT, name, 0644, &e, c));
}

static int unlink_name(const char *name)
{
	const struct caller remover = who(3);

	return COMMITTED(store_unlink(st, &remover, META_ROOT, name, c));
}

static int set_attribute(const char *name, const char *attribute, const char *value)
{
	const struct caller setter = who(3);
	uint64_t node = node_of(name);

	return COMMITTED(store_setxattr(st, &setter, node, attribute, value, strlen(value), 0, c));
}

static bool attribute_is(const char *name, const char *attribute, const char *value)
{
	char got[256] = "";
	int r = store_getxattr(st, node_of(name), attribute, got, sizeof(got) - 1);

	if (r < 0 || strcmp(got, value) != 0)
		fprintf(stderr, "%s is \"%s\" (%d) instead of \"%s\"\n", attribute, got, r, value);
	return r == (int)strlen(value) && strcmp(got, value) == 0;
}

static bool state_is(const char *name, const char *state)
{
	return attribute_is(name, "user.promisefs.state", state);
}

/* Nothing is in use any more, and data files and records agree. */
static void check_idle(unsigned files)
{
	struct store_counts n;

	record_all();
	store_counts(st, &n);
	CHECK_R((int)n.waiters, 0);
	CHECK_R((int)n.drafts, 0);
	CHECK_R((int)n.versions, 0);
	CHECK_R((int)n.objects, 0);
	CHECK_R((int)test_blobs_count(&blobs, false), 0);
	CHECK_R((int)test_blobs_count(&blobs, true), (int)files);
}

/* ---- Waiters ---- */

struct test_waiter {
	struct waiter w; /* first */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned times;
	int result;
};

static void woken(struct waiter *w, int r)
{
	struct test_waiter *tw = (struct test_waiter *)w;

	pthread_mutex_lock(&tw->lock);
	tw->times++;
	tw->result = r;
	pthread_cond_broadcast(&tw->cond);
	pthread_mutex_unlock(&tw->lock);
}

static void waiter_init(struct test_waiter *tw)
{
	memset(tw, 0, sizeof(*tw));
	tw->w.wake = woken;
	pthread_mutex_init(&tw->lock, NULL);
	pthread_cond_init(&tw->cond, NULL);
}

/* Waits, at most a while, until it was woken that often. */
static bool woken_times(struct test_waiter *tw, unsigned times, unsigned ms)
{
	struct timespec until;
	bool enough;
	int r = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&tw->lock);
	while (tw->times < times && r == 0)
		r = pthread_cond_timedwait(&tw->cond, &tw->lock, &until);
	enough = tw->times >= times;
	pthread_mutex_unlock(&tw->lock);
	return enough;
}

static bool is_woken(struct test_waiter *tw)
{
	return woken_times(tw, 1, 10000);
}

static bool sleeps(struct test_waiter *tw)
{
	bool listed;

	pthread_mutex_lock(&st->lock);
	listed = tw->w.listed;
	pthread_mutex_unlock(&st->lock);
	return listed && !woken_times(tw, 1, 0);
}

/* Begins to wait for name. */
static uint64_t wait_for(struct test_waiter *tw, int32_t tid, const char *name)
{
	struct handle *h = NULL;
	uint64_t node = node_of(name);

	waiter_init(tw);
	CHECK_R(open_node(tid, node, O_RDONLY, &tw->w, &h), STORE_WAITING);
	CHECK(sleeps(tw));
	return node;
}

/* After a wake-up with 0: asks again, through the same node. */
static int ask_again(struct test_waiter *tw, int32_t tid, uint64_t node, struct handle **h)
{
	pthread_mutex_lock(&tw->lock);
	tw->times = 0;
	pthread_mutex_unlock(&tw->lock);
	return open_node(tid, node, O_RDONLY, &tw->w, h);
}

/* A waiter may be woken for nothing; then it asks again, and goes on waiting. */
static void still_waits(struct test_waiter *tw, int32_t tid, uint64_t node)
{
	struct handle *h = NULL;

	if (tw->times > 0) {
		CHECK_R(tw->result, 0);
		CHECK_R(ask_again(tw, tid, node, &h), STORE_WAITING);
	}
	CHECK(sleeps(tw));
}

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
	check_idle(0);
	CHECK_R(store_getattr(st, &c, node, &e), -ESTALE);
	CHECK_R(unlink_name("a"), -ENOENT);
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
	CHECK_R(store_open(st, &c, node, O_WRONLY, NULL, &h, &prepare), -ESTALE);
	check_idle(0);
}

static void append_bytes(struct handle *h, char with, size_t n)
{
	char *bytes = malloc(n);

	CHECK(bytes != NULL);
	memset(bytes, with, n);
	lseek(handle_fd(h), 0, SEEK_END);
	CHECK(write(handle_fd(h), bytes, n) == (ssize_t)n);
	free(bytes);
}

static int64_t size_of(const char *name)
{
	struct entry e;

	CHECK_R(lookup(0, META_ROOT, name, &e), 0);
	return e.o.size;
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

static int lookup_torn(const char *name, struct entry *e)
{
	return lookup(0, META_ABORTED, name, e);
}

static void torn_has(const char *name, const char *text)
{
	struct handle *h = NULL;
	struct entry e;

	CHECK_R(lookup_torn(name, &e), 0);
	CHECK_R(open_node(2, e.node, O_RDONLY, NULL, &h), 0);
	CHECK(reads(h, text));
	store_release(h);
}

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
	CHECK_R(open_node(2, node, O_WRONLY, NULL, &h), -ESTALE);
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

static int fsync_handle(struct handle *h)
{
	return COMMITTED(store_fsync(h, c));
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
	CHECK_R(store_getxattr(st, node_of("f"), "user.promisefs.error", NULL, 0), -ENODATA);
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
	CHECK_R(store_getxattr(st, node_of("f"), "user.promisefs.deadline", NULL, 0), -ENODATA);
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
	CHECK_R(ask_again(&tw, 2, node, &h), -ESTALE);
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
	CHECK_R(ask_again(&tw, 2, node, &h), 0);
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
	CHECK_R(ask_again(&tw, 2, node, &h), -ESTALE);
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
	CHECK_R(r, 0);
	CHECK(waited > 2);
	CHECK(reads(h, "old"));
	store_release(h);
	store_release(w);
	has("a", "new");
}

/* ---- Await ---- */

static int await_key(struct test_waiter *tw, int32_t tid, const char *name)
{
	const struct caller c = who(tid);

	return store_await(st, &c, META_ROOT, name, &tw->w);
}

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

static int by_link(const char *name)
{
	const struct caller linker = who(3);
	uint64_t node = node_of("k2");
	struct entry e;

	return COMMITTED(store_link(st, &linker, node, META_ROOT, name, &e, c));
}

static int by_mknod(const char *name)
{
	const struct caller maker = who(3);
	const struct node_new n = { .mode = S_IFREG | 0600 };
	struct entry e;

	return COMMITTED(store_make(st, &maker, META_ROOT, name, &n, &e, c));
}

static void test_await_any_way(void **state)
{
	put("there", "x");
	await_woken_by("k1", declare);
	await_woken_by("k2", by_rename);
	await_woken_by("k3", by_link);
	await_woken_by("k4", by_mknod);
	has("k4", "");
	check_idle(2);
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

static atomic_uint settled;

static void on_settle(struct handle *h)
{
	settled++;
}

static void test_unsettled(void **state)
{
	const struct caller reader = who(2);
	struct handle *h = NULL, *w;

	settled = 0;
	CHECK_R(declare("f"), 0);
	CHECK_R(store_open_unsettled(st, &reader, node_of("f"), O_RDONLY | O_NONBLOCK, &h), 0);
	CHECK_R(handle_settled(h), -EAGAIN);
	CHECK_R(handle_fd(h), -EAGAIN);
	handle_on_settle(h, on_settle, NULL);
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

static void test_unsettled_awaits(void **state)
{
	const struct caller reader = who(2);
	struct handle *h = NULL, *never = NULL;

	settled = 0;
	CHECK_R(store_await_unsettled(st, &reader, META_ROOT, "k", O_RDONLY | O_NONBLOCK, &h), 0);
	CHECK_R(store_await_unsettled(st, &reader, META_ROOT, "never", O_RDONLY | O_NONBLOCK, &never), 0);
	handle_on_settle(h, on_settle, NULL);
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

/* ---- Crashes ---- */

/* Runs what in a process of its own, which ends by SIGKILL in the middle of everything. */
static void crash(void (*what)(void))
{
	int64_t at = clock_now();
	int status;
	pid_t pid;

	unmount_store();
	pid = fork();
	if (pid == 0) {
		in_child = true;
		mount_store(at);
		what();
		raise(SIGKILL);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	mount_store(at);
}

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

/* ---- Names ---- */

static int make_dir(uint64_t parent, const char *name, struct entry *e)
{
	const struct caller maker = who(3);
	const struct node_new n = { .mode = S_IFDIR | 0777 };

	return COMMITTED(store_make(st, &maker, parent, name, &n, e, c));
}

static uint32_t links_of(uint64_t node)
{
	const struct caller c = who(3);
	struct entry e;

	CHECK_R(store_getattr(st, &c, node, &e), 0);
	return e.o.nlink;
}

/* ---- Lifetimes and leases ---- */

static int join(uint64_t lifetime, const char *key, const char *name)
{
	const struct caller c1 = who(3);
	uint64_t node = node_of(key);
	struct entry e;

	return COMMITTED(store_lifetime_add(st, &c1, node, lifetime, name, &e, c));
}

static int end_lifetime(const char *name)
{
	const struct caller ender = who(3);

	return COMMITTED(store_lifetime_end(st, &ender, META_LIFETIMES, name, c));
}

static bool is_there(const char *name)
{
	struct entry e;

	return lookup(0, META_ROOT, name, &e) == 0;
}

/* Waits until it is not, at most a while. */
static bool goes(const char *name)
{
	for (unsigned i = 0; i < 2000 && is_there(name); i++)
		usleep(5000);
	return !is_there(name);
}

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

static void crash_ending(void)
{
	const struct caller ender = who(3);
	struct sync_commit nobody;

	many_members();
	st->ending_timer.fire = NULL;
	timers_stop(st->timers); /* so that nothing goes on */
	sync_init(&nobody);
	CHECK_R(store_lifetime_end(st, &ender, META_LIFETIMES, "L", &nobody.c), 0);
	record_all();
	CHECK(is_there("m0") || is_there("m149"));
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
	CHECK_R(store_getxattr(st, node_of("a"), "user.promisefs.lease", NULL, 0), -ENODATA);
	CHECK_R(COMMITTED(store_setxattr(st, &(struct caller){ 0 }, META_ROOT, "user.promisefs.lease", "5s", 2, 0, c)), -EOPNOTSUPP);
	CHECK_R(make_dir(META_LIFETIMES, "L", &l), 0);
	CHECK_R(join(l.o.id, "b", "b"), 0);
	CHECK_R(set_attribute("a", "user.promisefs.lease", "1h"), 0);
	CHECK_R(set_attribute("a", "user.promisefs.lease", "none"), 0);
	CHECK_R(store_getxattr(st, node_of("a"), "user.promisefs.lease", NULL, 0), -ENODATA);
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
	CHECK_R(store_getxattr(st, d.o.id, "user.promisefs.lifetime", NULL, 0), -ENODATA);
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

static int rename_to(uint64_t from, const char *name, uint64_t to, const char *to_name, unsigned flags)
{
	const struct caller mover = who(3);

	return COMMITTED(store_rename(st, &mover, from, name, to, to_name, flags, c));
}

static int remove_dir(const char *name)
{
	const struct caller remover = who(3);

	return COMMITTED(store_rmdir(st, &remover, META_ROOT, name, c));
}

static void test_directories(void **state)
{
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

static int remove_attribute(const char *name, const char *attribute)
{
	uint64_t node = node_of(name);

	return COMMITTED(store_removexattr(st, &(struct caller){ 0 }, node, attribute, c));
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
	CHECK_R(store_getxattr(st, node, "user.mine", list, 2), -ERANGE);
	CHECK_R(store_getxattr(st, node, "user.other", NULL, 0), -ENODATA);
	CHECK_R(store_getxattr(st, node, "pfs.sha256", NULL, 0), -EOPNOTSUPP);
	CHECK_R(set_attribute("a", "pfs.x", "1"), -EOPNOTSUPP);
	CHECK_R(set_attribute("a", "user.promisefs.state", "ready"), -EINVAL);
	CHECK_R(COMMITTED(store_setxattr(st, &setter, node, "user.mine", "v", 1, XATTR_CREATE, c)), -EEXIST);
	CHECK_R(COMMITTED(store_setxattr(st, &setter, node, "user.new", "v", 1, XATTR_REPLACE, c)), -ENODATA);
	CHECK(attribute_is("a", "user.promisefs.sha256", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"));
	CHECK(attribute_is("a", "user.promisefs.sha256", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"));
	CHECK_R(store_listxattr(st, node, list, sizeof(list)), 10);
	CHECK(strcmp(list, "user.mine") == 0);
	CHECK_R(store_listxattr(st, node, list, 5), -ERANGE);
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

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
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
		TEST(test_unlink_while_writing),
		TEST(test_no_space),
		TEST(test_create_fails),
		TEST(test_prepare_fails),
		TEST(test_gone_while_prepared),
		TEST(test_append),
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
		TEST(test_closing),
		TEST(test_closing_held_up),
		TEST(test_closing_slowly),
		TEST(test_closing_never),
		TEST(test_await),
		TEST(test_await_any_way),
		TEST(test_await_cancel),
		TEST(test_unsettled),
		TEST(test_unsettled_fails),
		TEST(test_unsettled_awaits),
		TEST(test_deadlock_of_two),
		TEST(test_no_deadlock),
		TEST(test_deadlock_of_three),
		TEST(test_deadlock_not_all),
		TEST(test_removal_of_durable),
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
		TEST(test_directories),
		TEST(test_lifetime),
		TEST(test_lifetime_of_many),
		TEST(test_crash_ending),
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
		TEST(test_rename),
		TEST(test_links),
		TEST(test_readdir),
		TEST(test_user_attributes),
		TEST(test_log),
		TEST(test_waits),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

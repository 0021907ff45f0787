#include "tests/unit/store_rig.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

char *dir;
struct meta *m;
struct test_blobs blobs;
struct store *st;
const struct caller anybody;
struct store_options options;

enum fate fates[TIDS];
bool holds_own, others_hold;
uint64_t held[TIDS], starts[TIDS];
unsigned watched[TIDS];
atomic_uint events_seen, invalidations, forgotten, settled;
bool in_child;

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

static void hook_forget(void *arg, uint64_t node)
{
	forgotten++;
}

static void hook_told(void *arg, struct told *t)
{
	t->done(t);
}

static void hook_event(void *arg, const struct meta_event *e)
{
	events_seen++;
}

const struct store_hooks hooks = {
	.process = hook_process, .holds = hook_holds, .held = hook_held, .only_these_hold = hook_only_these,
	.identify = hook_identify, .watch = hook_watch, .invalidate = hook_invalidate, .forget = hook_forget,
	.forget_now = hook_forget, .told = hook_told, .event = hook_event,
};

struct caller who(int32_t tid)
{
	return (struct caller){ .uid = 1000, .gid = 1000, .tid = tid, .umask = 022 };
}

/* ---- Checks ---- */

void check_at(bool good, const char *what, const char *file, int line)
{
	if (good)
		return;
	if (in_child) {
		fprintf(stderr, "%s:%d: %s (in the child)\n", file, line, what);
		_exit(1);
	}
	_assert_true(0, what, file, line);
}

void check_result(int r, int expected, const char *what, const char *file, int line)
{
	char text[256];

	snprintf(text, sizeof(text), "%s: %d, expected %d", what, r, expected);
	check_at(r == expected, text, file, line);
}

/* ---- The rig ---- */

void record_all(void)
{
	COMMITTED((m->ops->begin(m), m->ops->end(m, META_DURABLE, c), 0));
	garbage_empty(st);
}

void mount_store(int64_t at)
{
	const char *why;

	CHECK_R(meta_sqlite_open(scratch_path(dir, "catalog.db"), &m, &why), 0);
	clock_take_over(m, at);
	CHECK_R(test_blobs_open(scratch_path(dir, "data"), &blobs), 0);
	CHECK_R(store_open_all(m, &blobs.b, &hooks, NULL, &options, &st), 0);
}

void unmount_store(void)
{
	if (st == NULL)
		return;
	record_all();
	store_close(st);
	m->ops->close(m);
	test_blobs_close(&blobs);
	st = NULL;
}

void remount(void)
{
	int64_t at = clock_now();

	unmount_store();
	mount_store(at);
}

int set_up_raw(void **state)
{
	options = (struct store_options){ .aborted_age = 24 * HOUR, .aborted_bytes = 1 << 30, .wait_timeout = -1 };
	memset(fates, 0, sizeof(fates));
	memset(held, 0, sizeof(held));
	holds_own = true;
	others_hold = false;
	events_seen = invalidations = forgotten = 0;
	dir = scratch_make();
	return dir == NULL || mkdir(scratch_path(dir, "data"), 0700) < 0 ? -1 : 0;
}

int set_up(void **state)
{
	if (set_up_raw(state) < 0)
		return -1;
	mount_store(START);
	return 0;
}

int tear_down(void **state)
{
	unmount_store();
	scratch_remove(dir);
	return 0;
}

/* ---- What a front end does ---- */

int lookup(int32_t tid, uint64_t parent, const char *name, struct entry *e)
{
	const struct caller c = who(tid);

	return store_lookup(st, &c, parent, name, e);
}

uint64_t node_of(const char *name)
{
	struct entry e;

	CHECK_R(lookup(0, META_ROOT, name, &e), 0);
	return e.node;
}

uint64_t object_of(const char *name)
{
	struct entry e;

	CHECK_R(lookup(0, META_ROOT, name, &e), 0);
	return e.o.id;
}

struct handle *create(int32_t tid, const char *name)
{
	const struct caller c = who(tid);
	struct handle *h = NULL;
	struct entry e;

	CHECK_R(store_create(st, &c, META_ROOT, name, 0644, O_WRONLY | O_CREAT, &e, &h), 0);
	held[tid] = e.o.id;
	return h;
}

struct caller who_via(int32_t tid, enum via via)
{
	struct caller c = who(tid);

	c.via = via;
	return c;
}

int open_via(int32_t tid, enum via via, uint64_t node, int flags, struct waiter *w, struct handle **h)
{
	const struct caller c = who_via(tid, via);
	uint64_t prepare = 0;
	int r;

	while ((r = store_open(st, &c, node, flags, w, h, &prepare)) == STORE_PREPARE) {
		r = store_prepare(st, prepare);
		if (r < 0)
			return r;
	}
	return r;
}

int open_node(int32_t tid, uint64_t node, int flags, struct waiter *w, struct handle **h)
{
	return open_via(tid, VIA_OWNER, node, flags, w, h);
}

int open_name(int32_t tid, const char *name, int flags, struct waiter *w, struct handle **h)
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

struct handle *open_write(int32_t tid, const char *name, int flags)
{
	struct handle *h = NULL;

	CHECK_R(open_name(tid, name, O_WRONLY | flags, NULL, &h), 0);
	held[tid] = object_of(name);
	return h;
}

struct handle *open_read(int32_t tid, const char *name)
{
	struct handle *h = NULL;

	CHECK_R(open_name(tid, name, O_RDONLY, NULL, &h), 0);
	return h;
}

void put_bytes(struct handle *h, const char *text)
{
	CHECK(write(handle_fd(h), text, strlen(text)) == (ssize_t)strlen(text));
}

int flush(int32_t tid, struct handle *h)
{
	const struct caller who_closes = who(tid);

	return COMMITTED(store_flush(h, &who_closes, c));
}

void close_handle(int32_t tid, struct handle *h)
{
	CHECK_R(flush(tid, h), 0);
	store_release(h);
	held[tid] = 0;
}

void kill_writer(int32_t tid, struct handle *h)
{
	fates[tid] = FATE_KILLED;
	flush(tid, h);
	store_release(h);
	fates[tid] = FATE_ALIVE;
	held[tid] = 0;
}

void put(const char *name, const char *text)
{
	struct handle *h = create(1, name);

	put_bytes(h, text);
	close_handle(1, h);
}

void replace(const char *name, const char *text)
{
	struct handle *h = open_write(1, name, O_TRUNC);

	put_bytes(h, text);
	close_handle(1, h);
}

bool reads(struct handle *h, const char *text)
{
	char got[256] = "";
	ssize_t n = pread(handle_fd(h), got, sizeof(got) - 1, 0);

	if (n < 0 || strcmp(got, text) != 0)
		fprintf(stderr, "read \"%s\" instead of \"%s\"\n", got, text);
	return n >= 0 && strcmp(got, text) == 0;
}

void has(const char *name, const char *text)
{
	struct handle *h = open_read(2, name);

	CHECK(reads(h, text));
	CHECK(handle_is_final(h));
	store_release(h);
}

int declare(const char *name)
{
	const struct caller declarer = who(1);
	struct entry e;

	return COMMITTED(store_declare(st, &declarer, META_ROOT, name, 0644, &e, c));
}

int unlink_name(const char *name)
{
	const struct caller remover = who(3);

	return COMMITTED(store_unlink(st, &remover, META_ROOT, name, c));
}

int set_attribute(const char *name, const char *attribute, const char *value)
{
	const struct caller setter = who(3);
	uint64_t node = node_of(name);

	return COMMITTED(store_setxattr(st, &setter, node, attribute, value, strlen(value), 0, c));
}

bool attribute_is(const char *name, const char *attribute, const char *value)
{
	char got[256] = "";
	int r = store_getxattr(st, &anybody, node_of(name), attribute, got, sizeof(got) - 1);

	if (r < 0 || strcmp(got, value) != 0)
		fprintf(stderr, "%s is \"%s\" (%d) instead of \"%s\"\n", attribute, got, r, value);
	return r == (int)strlen(value) && strcmp(got, value) == 0;
}

bool state_is(const char *name, const char *state)
{
	return attribute_is(name, "user.promisefs.state", state);
}

void check_idle(unsigned files)
{
	struct store_counts n;

	record_all();
	for (uint64_t node = META_ROOT; node < 1000; node++) /* as the kernel does when nobody uses it any more */
		store_forget(st, node);
	store_counts(st, &n);
	CHECK_R((int)n.waiters, 0);
	CHECK_R((int)n.drafts, 0);
	CHECK_R((int)n.versions, 0);
	CHECK_R((int)n.objects, 0);
	CHECK_R((int)test_blobs_count(&blobs, false), 0);
	CHECK_R((int)test_blobs_count(&blobs, true), (int)files);
}

/* ---- Waiters ---- */

static void woken(struct waiter *w, int r)
{
	struct test_waiter *tw = (struct test_waiter *)w;

	pthread_mutex_lock(&tw->lock);
	tw->times++;
	tw->result = r;
	pthread_cond_broadcast(&tw->cond);
	pthread_mutex_unlock(&tw->lock);
}

void waiter_init(struct test_waiter *tw)
{
	memset(tw, 0, sizeof(*tw));
	tw->w.wake = woken;
	pthread_mutex_init(&tw->lock, NULL);
	pthread_cond_init(&tw->cond, NULL);
}

bool woken_times(struct test_waiter *tw, unsigned times, unsigned ms)
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

bool is_woken(struct test_waiter *tw)
{
	return woken_times(tw, 1, 10000);
}

bool sleeps(struct test_waiter *tw)
{
	bool listed;

	pthread_mutex_lock(&st->lock);
	listed = tw->w.listed;
	pthread_mutex_unlock(&st->lock);
	return listed && !woken_times(tw, 1, 0);
}

uint64_t wait_for(struct test_waiter *tw, int32_t tid, const char *name)
{
	struct handle *h = NULL;
	uint64_t node = node_of(name);

	waiter_init(tw);
	CHECK_R(open_node(tid, node, O_RDONLY, &tw->w, &h), STORE_WAITING);
	CHECK(sleeps(tw));
	return node;
}

int ask_again(struct test_waiter *tw, int32_t tid, uint64_t node, struct handle **h)
{
	pthread_mutex_lock(&tw->lock);
	tw->times = 0;
	pthread_mutex_unlock(&tw->lock);
	return open_node(tid, node, O_RDONLY, &tw->w, h);
}

void still_waits(struct test_waiter *tw, int32_t tid, uint64_t node)
{
	struct handle *h = NULL;

	if (tw->times > 0) {
		CHECK_R(tw->result, 0);
		CHECK_R(ask_again(tw, tid, node, &h), STORE_WAITING);
	}
	CHECK(sleeps(tw));
}

/* ---- More that several tests use ---- */

void append_bytes(struct handle *h, char with, size_t n)
{
	char *bytes = malloc(n);

	CHECK(bytes != NULL);
	memset(bytes, with, n);
	lseek(handle_fd(h), 0, SEEK_END);
	CHECK(write(handle_fd(h), bytes, n) == (ssize_t)n);
	free(bytes);
}

int64_t size_of(const char *name)
{
	struct entry e;

	CHECK_R(lookup(0, META_ROOT, name, &e), 0);
	return e.o.size;
}

int lookup_torn(const char *name, struct entry *e)
{
	return lookup(0, META_ABORTED, name, e);
}

void torn_has(const char *name, const char *text)
{
	struct handle *h = NULL;
	struct entry e;

	CHECK_R(lookup_torn(name, &e), 0);
	CHECK_R(open_node(2, e.node, O_RDONLY, NULL, &h), 0);
	CHECK(reads(h, text));
	store_release(h);
}

int fsync_handle(struct handle *h)
{
	return COMMITTED(store_fsync(h, c));
}

int await_key(struct test_waiter *tw, int32_t tid, const char *name)
{
	const struct caller c = who(tid);

	return store_await(st, &c, META_ROOT, name, &tw->w);
}

int by_link(const char *name)
{
	const struct caller linker = who(3);
	uint64_t node = node_of("k2");
	struct entry e;

	return COMMITTED(store_link(st, &linker, node, META_ROOT, name, &e, c));
}

void on_settle(struct handle *h)
{
	settled++;
}

void crash(void (*what)(void))
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

int make_dir(uint64_t parent, const char *name, struct entry *e)
{
	const struct caller maker = who(3);
	const struct node_new n = { .mode = S_IFDIR | 0777 };

	return COMMITTED(store_make(st, &maker, parent, name, &n, e, c));
}

uint32_t links_of(uint64_t node)
{
	const struct caller c = who(3);
	struct entry e;

	CHECK_R(store_getattr(st, &c, node, &e), 0);
	return e.o.nlink;
}

int join(uint64_t lifetime, const char *key, const char *name)
{
	const struct caller c1 = who(3);
	uint64_t node = node_of(key);
	struct entry e;

	return COMMITTED(store_lifetime_add(st, &c1, node, lifetime, name, &e, c));
}

int end_lifetime(const char *name)
{
	const struct caller ender = who(3);

	return COMMITTED(store_lifetime_end(st, &ender, META_LIFETIMES, name, c));
}

bool is_there(const char *name)
{
	struct entry e;

	return lookup(0, META_ROOT, name, &e) == 0;
}

bool goes(const char *name)
{
	for (unsigned i = 0; i < 2000 && is_there(name); i++)
		usleep(5000);
	return !is_there(name);
}

int rename_to(uint64_t from, const char *name, uint64_t to, const char *to_name, unsigned flags)
{
	const struct caller mover = who(3);

	return COMMITTED(store_rename(st, &mover, from, name, to, to_name, flags, c));
}

int remove_attribute(const char *name, const char *attribute)
{
	uint64_t node = node_of(name);

	return COMMITTED(store_removexattr(st, &(struct caller){ 0 }, node, attribute, c));
}

struct log {
	char text[2048];
	size_t n;
};

static int add_event(void *arg, const struct meta_event *e)
{
	struct log *l = arg;

	l->n += (size_t)snprintf(l->text + l->n, sizeof(l->text) - l->n, "%s%s%s%s", l->n > 0 ? "; " : "", e->kind,
				 e->detail != NULL ? " " : "", e->detail != NULL ? e->detail : "");
	return l->n + 300 > sizeof(l->text);
}

bool log_is(const char *key, const char *events)
{
	struct log l = { .text = "" };

	CHECK_R(store_log(st, key, add_event, &l), 0);
	if (strcmp(l.text, events) != 0)
		fprintf(stderr, "the log of %s is \"%s\" instead of \"%s\"\n", key, l.text, events);
	return strcmp(l.text, events) == 0;
}

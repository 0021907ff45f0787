/* A process that serves a store is killed all the time, and nobody notices: core/kept.h.
 *
 * Three kinds of processes: the worker has the store, and serves requests; the clients each do random things with
 * keys of their own (and read those of others), know what every answer has to be, and live on; this one kills the
 * worker, at any moment, also while it adopts, and has the next one begin. What was not answered by then is sent
 * again, once, with a mark, as the kernel does it. What the worker does here with such a request is what a front end
 * has to do. */
#include "core/internal.h"
#include "core/kept.h"
#include "meta/redo.h"
#include "tests/unit/blobs.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define CLIENTS 4
#define KEYS 5
#define OPEN_MAX_EACH 5
#define SEGMENTS 6
#define CHUNK 6000
#define HISTORY 100

enum action {
	LOOK_UP,
	OPEN,
	CREATE,
	AWAIT,
	WRITE,
	READ,
	FLUSH,
	FSYNC,
	RELEASE,
	SETTLED,
	UNLINK,
	RENAME,
	MKDIR,
	RMDIR,
	SET_ATTRIBUTE,
	GET_ATTRIBUTE,
	DECLARE,
	NODES, /* how many names there are */
	ACTIONS,
};

static const char *const action_names[ACTIONS] = {
	"look up", "open", "create", "await", "write", "read", "flush", "fsync", "release", "settled", "unlink", "rename", "mkdir",
	"rmdir", "set attribute", "get attribute", "declare", "nodes",
};

struct ask {
	uint64_t request;
	bool again;
	enum action action;
	enum via via;
	enum fate fate; /* of the process that closes */
	int flags;
	uint64_t node, number, at;
	char name[24], to[24];
	uint32_t len;
	char data[CHUNK];
};

struct answer {
	uint64_t request;
	int64_t r;
	uint64_t node, number;
	uint32_t len;
	char data[CHUNK];
};

/* Seen by all. */
struct shared {
	_Atomic uint32_t phase; /* odd: there is no worker */
	_Atomic uint32_t sending[CLIENTS];
	_Atomic bool stop, failed, serving;
	_Atomic uint64_t again, claimed, done_before, answers;
	_Atomic uint64_t acted[ACTIONS];
};

static struct shared *shared;
static struct kept *kept;
static struct redo *redo;
static char *dir;
static int to_worker[CLIENTS][2]; /* [0]: the client's end */

static void failed(const char *what, const char *detail, int64_t got)
{
	fprintf(stderr, "%s: %s: %lld\n", what, detail, (long long)got);
	shared->failed = true;
	_exit(1);
}

/* ---- The worker ---- */

static struct meta *m;
static struct test_blobs blobs;
static struct store *st;
static enum fate fates[CLIENTS + 1];

static void hook_process(void *arg, int32_t tid, struct process *p)
{
	*p = (struct process){ .pid = tid, .fate = tid > 0 && tid <= CLIENTS ? fates[tid] : FATE_ALIVE, .command = "test" };
}

static bool hook_holds(void *arg, int32_t tid, uint64_t object)
{
	return false;
}

static bool hook_held(void *arg, uint64_t object)
{
	return false;
}

static bool hook_only_these(void *arg, const struct holding *h, unsigned n)
{
	return false;
}

static int hook_identify(void *arg, const struct caller *who, int32_t pid, uint64_t *start)
{
	return -ESRCH;
}

static void hook_watch(void *arg, int32_t pid, uint64_t start)
{
}

static void hook_name(void *arg, uint64_t parent, const char *name)
{
}

static void hook_node(void *arg, uint64_t node)
{
}

static void hook_told(void *arg, struct told *t)
{
	t->done(t);
}

static void hook_event(void *arg, const struct meta_event *e)
{
}

static const struct store_hooks hooks = {
	.process = hook_process, .holds = hook_holds, .held = hook_held, .only_these_hold = hook_only_these,
	.identify = hook_identify, .watch = hook_watch, .invalidate = hook_name, .forget = hook_node,
	.forget_now = hook_node, .told = hook_told, .event = hook_event,
};

struct done {
	struct meta_commit c; /* first */
	struct waiter w;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int r;
};

static void say(struct done *d, int r)
{
	pthread_mutex_lock(&d->lock);
	d->r = r;
	d->done = true;
	pthread_cond_signal(&d->cond);
	pthread_mutex_unlock(&d->lock);
}

static void committed(struct meta_commit *c, int r)
{
	say((struct done *)c, r);
}

static void woken(struct waiter *w, int r)
{
	say((struct done *)((char *)w - offsetof(struct done, w)), r);
}

static int wait_done(struct done *d)
{
	pthread_mutex_lock(&d->lock);
	while (!d->done)
		pthread_cond_wait(&d->cond, &d->lock);
	d->done = false;
	pthread_mutex_unlock(&d->lock);
	return d->r;
}

#define DONE { .c.done = committed, .w.wake = woken, .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER }

#define RECORDED(call)                              \
	({                                          \
		struct done done_ = DONE;           \
		struct meta_commit *c = &done_.c;   \
		int r_ = (call);                    \
		r_ == 0 ? wait_done(&done_) : r_;   \
	})

static int open_node(const struct ask *a, const struct caller *who, struct handle **h)
{
	struct done d = DONE;
	uint64_t prepare = 0;
	int r;

	*h = NULL;
	for (;;) {
		bool lingers = (a->flags & O_NONBLOCK) != 0;

		r = store_open(st, who, a->node, a->flags, lingers ? NULL : &d.w, h, &prepare);
		if (r == STORE_PREPARE)
			r = store_prepare(st, prepare);
		else if (r == STORE_WAITING)
			r = wait_done(&d);
		else if (r == STORE_MUST_WAIT && lingers)
			return store_open_unsettled(st, who, a->node, a->flags, h);
		else if (r == STORE_LOOK)
			d.w.maps = MAPS_NOT;
		else
			break;
		if (r == -ESTALE)
			r = 0;
		if (r < 0)
			break;
	}
	store_wait_over(st, &d.w);
	return r == STORE_GONE ? -ENOENT : r;
}

/* One that was done before it could be answered has its handle already. */
static int open_or_claim(const struct ask *a, const struct caller *who, struct answer *b)
{
	struct handle *h = NULL;
	struct entry e;
	int r = 0;

	if (a->again) {
		store_resent(st, who, a->request);
		h = store_claim(st, a->request);
		shared->claimed += h != NULL;
	}
	if (h == NULL && a->action == AWAIT)
		r = store_await_unsettled(st, who, META_ROOT, a->name, O_RDONLY | O_NONBLOCK, &h);
	else if (h == NULL && a->action == CREATE)
		r = store_create(st, who, META_ROOT, a->name, 0644, a->flags, &e, &h);
	else if (h == NULL)
		r = open_node(a, who, &h);
	if (r == 0)
		b->number = handle_number(h);
	return r;
}

static int write_data(const struct ask *a, struct handle *h)
{
	int fd = handle_fd(h), r = fd < 0 ? fd : store_before_write(h, (int64_t)a->at);

	if (r >= 0 && pwrite(fd, a->data, a->len, (off_t)a->at) != a->len)
		r = -EIO;
	return r < 0 ? r : 0;
}

static int read_data(const struct ask *a, struct handle *h, struct answer *b)
{
	int fd = handle_fd(h);
	ssize_t n = fd < 0 ? fd : pread(fd, b->data, CHUNK, (off_t)a->at);

	b->len = n > 0 ? (uint32_t)n : 0;
	return (int)n;
}

static int act_on_handle(const struct ask *a, const struct caller *who, struct answer *b)
{
	struct handle *h = store_adopted(st, a->number);

	if (h == NULL)
		return a->action == RELEASE && a->again ? 0 : -EBADF;
	switch (a->action) {
	case WRITE:
		return write_data(a, h);
	case READ:
		return read_data(a, h, b);
	case FLUSH:
		fates[who->tid] = a->fate;
		return RECORDED(store_flush(h, who, c));
	case FSYNC:
		return RECORDED(store_fsync(h, c));
	case SETTLED:
		return handle_settled(h);
	default:
		store_release(h);
		return 0;
	}
}

static int count_entry(void *arg, const struct meta_dentry *d, const struct entry *e)
{
	++*(unsigned *)arg;
	return 0;
}

static int count_names(const struct caller *who)
{
	unsigned n = 0;
	int r = store_readdir(st, who, META_ROOT, 0, 1000, count_entry, &n);

	return r < 0 ? r : (int)n;
}

static int act_on_name(const struct ask *a, const struct caller *who, struct answer *b)
{
	const struct node_new dir_new = { .mode = S_IFDIR | 0755 };
	struct entry e = { 0 };
	int r;

	switch (a->action) {
	case LOOK_UP:
		r = store_lookup(st, who, META_ROOT, a->name, &e);
		b->node = e.node;
		return r;
	case UNLINK:
		return RECORDED(store_unlink(st, who, META_ROOT, a->name, c));
	case RENAME:
		return RECORDED(store_rename(st, who, META_ROOT, a->name, META_ROOT, a->to, 0, c));
	case MKDIR:
		return RECORDED(store_make(st, who, META_ROOT, a->name, &dir_new, &e, c));
	case RMDIR:
		return RECORDED(store_rmdir(st, who, META_ROOT, a->name, c));
	case DECLARE:
		return RECORDED(store_declare(st, who, META_ROOT, a->name, 0644, &e, c));
	case SET_ATTRIBUTE:
		return RECORDED(store_setxattr(st, who, a->node, "user.x", a->data, a->len, 0, c));
	case GET_ATTRIBUTE:
		r = store_getxattr(st, who, a->node, "user.x", b->data, CHUNK);
		b->len = r > 0 ? (uint32_t)r : 0;
		return r;
	default:
		return count_names(who);
	}
}

static bool changes(enum action action)
{
	return action >= UNLINK && action <= DECLARE && action != GET_ATTRIBUTE;
}

static void serve_one(const struct ask *a, int32_t tid, struct answer *b)
{
	const struct caller who = { .uid = 1000, .gid = 1000, .tid = tid, .umask = 022, .via = a->via };

	redo_request(a->request);
	b->request = a->request;
	b->number = b->node = b->len = 0;
	shared->again += a->again;
	if (a->action >= OPEN && a->action <= AWAIT) {
		b->r = open_or_claim(a, &who, b);
	} else if (a->action >= WRITE && a->action <= SETTLED) {
		b->r = act_on_handle(a, &who, b);
	} else if (a->again && changes(a->action) && redo_was_done(redo, a->request)) {
		shared->done_before++;
		b->r = RECORDED((m->ops->begin(m), m->ops->end(m, META_RECORDED, c), 0));
	} else {
		b->r = act_on_name(a, &who, b);
	}
}

static void *serve(void *arg)
{
	int at = (int)(intptr_t)arg, fd = to_worker[at][1];
	struct ask *a = malloc(sizeof(*a));
	struct answer *b = malloc(sizeof(*b));

	while (recv(fd, a, sizeof(*a), 0) > 0) {
		serve_one(a, at + 1, b);
		if (b->number != 0 && store_adopted(st, b->number) == NULL)
			failed("worker", "a handle that was given is not there", a->action);
		send(fd, b, offsetof(struct answer, data) + b->len, 0);
		redo_answered(redo, a->request);
		if (b->number != 0)
			handle_answered(store_adopted(st, b->number));
		shared->answers++;
		shared->acted[a->action]++;
	}
	free(a);
	free(b);
	return NULL;
}

static int begin_work(void)
{
	const struct store_options options = { .aborted_age = 1000 * NS_PER_SEC, .wait_timeout = -1, .kept = kept };
	const char *why = "?";
	int r = meta_sqlite_open_redo(scratch_path(dir, "catalog.db"), redo, &m, &why);

	if (r == 0)
		r = test_blobs_open(scratch_path(dir, "data"), &blobs);
	if (r == 0)
		r = store_open_all(m, &blobs.b, &hooks, NULL, &options, &st);
	if (r < 0)
		failed("worker", why, r);
	return r;
}

static void end_work(void)
{
	store_stop(st);
	m->ops->close(m);
	store_close(st);
	test_blobs_close(&blobs);
}

static void close_end(int client, int end)
{
	if (to_worker[client][end] >= 0)
		close(to_worker[client][end]);
	to_worker[client][end] = -1;
}

static void work(void)
{
	pthread_t threads[CLIENTS];

	for (int i = 0; i < CLIENTS; i++)
		close_end(i, 0);
	begin_work();
	for (int i = 0; i < CLIENTS; i++)
		pthread_create(&threads[i], NULL, serve, (void *)(intptr_t)i);
	shared->serving = true;
	for (int i = 0; i < CLIENTS; i++)
		pthread_join(threads[i], NULL); /* when all clients have gone */
	end_work();
	_exit(0);
}

/* ---- A client ---- */

/* What a version consists of: every opening for writing adds a segment. Each begins with what tells its length, so that
 * who reads knows whether what he gets is whole. */
struct segment {
	uint32_t value, len;
};

struct content {
	unsigned n;
	struct segment s[SEGMENTS];
};

struct key {
	bool there;
	bool pending; /* declared, and nobody writes it */
	uint32_t attribute; /* 0: none */
	struct content c;
};

struct open_file {
	uint64_t number; /* 0: not open */
	int key;         /* -1: the key it had is gone, or another's */
	bool writes, takes, first, synced, declared;
	struct content c;
	uint32_t written; /* of the last segment */
};

struct client {
	int at, fd;
	uint64_t requests;
	uint32_t values;
	unsigned seed;
	bool dir;
	struct key keys[KEYS];
	uint64_t nodes[KEYS];
	struct open_file files[OPEN_MAX_EACH];
	struct ask a;
	struct answer b;
	char history[HISTORY][120]; /* the last answers, for when one is wrong */
	unsigned told;
};

static unsigned chance(struct client *c, unsigned n)
{
	return (unsigned)rand_r(&c->seed) % n;
}

static void key_name(int client, int key, char name[24])
{
	snprintf(name, 24, "c%d.k%d", client, key);
}

static void wait_even(void)
{
	while (shared->phase % 2 != 0)
		usleep(100);
}

static uint32_t send_ask(struct client *c)
{
	uint32_t phase;

	for (;;) {
		wait_even();
		shared->sending[c->at] = 1;
		phase = shared->phase;
		if (phase % 2 == 0)
			break;
		shared->sending[c->at] = 0;
	}
	if (send(c->fd, &c->a, offsetof(struct ask, data) + c->a.len, 0) < 0)
		failed("client", "send", errno);
	shared->sending[c->at] = 0;
	return phase;
}

/* Sends what is in c->a, and waits for the answer, for which it may have to be sent again. */
static int64_t ask(struct client *c, enum action action)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	uint32_t phase;

	c->a.action = action;
	c->a.request = ++c->requests * CLIENTS + (uint64_t)c->at + 1;
	c->a.again = false;
	phase = send_ask(c);
	for (;;) {
		uint32_t now = shared->phase;

		if (poll(&p, 1, 2) > 0) {
			if (recv(c->fd, &c->b, sizeof(c->b), 0) <= 0)
				failed("client", "receive", errno);
			if (c->b.request != c->a.request)
				failed("client", "answered twice", (int64_t)c->b.request);
			break;
		}
		if (now != phase && now % 2 == 0) {
			c->a.again = true;
			phase = send_ask(c);
		}
		if (shared->failed)
			_exit(1);
	}
	snprintf(c->history[c->told++ % HISTORY], sizeof(c->history[0]),
		 "%s%s %s node %llx number %llx at %llu len %u flags %o via %d fate %d: %lld node %llx number %llx",
		 action_names[action], c->a.again ? " AGAIN" : "", c->a.name, (unsigned long long)c->a.node,
		 (unsigned long long)c->a.number, (unsigned long long)c->a.at, c->a.len, (unsigned)c->a.flags, c->a.via, c->a.fate,
		 (long long)c->b.r, (unsigned long long)c->b.node, (unsigned long long)c->b.number);
	c->a.len = 0;
	return c->b.r;
}

static void check(struct client *c, bool good, const char *what)
{
	char detail[160];

	snprintf(detail, sizeof(detail), "%s (%s%s, client %d, name %s, at %llu, flags %o)", what,
		 action_names[c->a.action], c->a.again ? ", again" : "", c->at, c->a.name, (unsigned long long)c->a.at,
		 (unsigned)c->a.flags);
	if (good)
		return;
	for (unsigned i = c->told < HISTORY ? 0 : c->told - HISTORY; i < c->told; i++)
		fprintf(stderr, "  %s\n", c->history[i % HISTORY]);
	failed("client", detail, c->b.r);
}

static int64_t ask_name(struct client *c, enum action action, int key)
{
	key_name(c->at, key, c->a.name);
	return ask(c, action);
}

static char byte_of(const struct segment *s, uint32_t at)
{
	uint32_t head[2] = { s->value, s->len };

	return at < sizeof(head) ? ((char *)head)[at] : (char)(s->value * 31 + at * 7 + (at >> 8));
}

static uint64_t size_of(const struct content *c)
{
	uint64_t size = 0;

	for (unsigned i = 0; i < c->n; i++)
		size += c->s[i].len;
	return size;
}

static char content_byte(const struct content *c, uint64_t at)
{
	unsigned i = 0;

	while (at >= c->s[i].len)
		at -= c->s[i++].len;
	return byte_of(&c->s[i], (uint32_t)at);
}

/* Of a file of the client's own: what is written in this place has to be there. */
static void check_bytes(struct client *c, struct open_file *f)
{
	uint64_t size = size_of(&f->c), at = chance(c, 3) == 0 && size > 0 ? (uint64_t)rand_r(&c->seed) % size : 0;
	int64_t r;

	c->a.number = f->number;
	c->a.at = at;
	r = ask(c, READ);
	check(c, r == (int64_t)(size - at < CHUNK ? size - at : CHUNK), "a file has another length");
	for (uint32_t i = 0; i < c->b.len; i++)
		check(c, c->b.data[i] == content_byte(&f->c, at + i), "a file has other bytes");
}

/* Of another's: it has to be whole. */
static void check_whole(struct client *c, uint64_t number)
{
	struct segment s = { 0 };
	uint64_t at = 0, next = 0;

	c->a.number = number;
	do {
		c->a.at = at;
		check(c, ask(c, READ) >= 0, "cannot be read");
		for (uint32_t i = 0; i < c->b.len; i++, at++) {
			if (at == next) {
				check(c, c->b.len - i >= sizeof(s) || c->b.len == CHUNK, "torn before a segment");
				if (c->b.len - i < sizeof(s))
					break; /* it begins the next part */
				memcpy(&s, c->b.data + i, sizeof(s));
				check(c, s.len >= sizeof(s), "no segment");
				next = at + s.len;
			}
			check(c, c->b.data[i] == byte_of(&s, (uint32_t)(at - (next - s.len))), "torn");
		}
	} while (c->b.len > 0);
	check(c, at == next, "cut off");
}

/* As the kernel: with the node that it knows, and again when it is told to look. */
static int64_t open_key(struct client *c, int key, int flags, enum via via)
{
	int64_t r = 0;

	c->a.via = via;
	if (c->nodes[key] == 0 || chance(c, 3) > 0) {
		r = ask_name(c, LOOK_UP, key);
		c->nodes[key] = c->b.node;
	}
	for (int tries = 0; r == 0 && tries < 2; tries++) {
		c->a.node = c->nodes[key];
		c->a.flags = flags;
		r = ask_name(c, OPEN, key);
		if (r != -ESTALE || tries > 0)
			break;
		r = ask_name(c, LOOK_UP, key);
		c->nodes[key] = c->b.node;
	}
	c->a.via = VIA_OWNER;
	return r;
}

static struct open_file *writer_of(struct client *c, int key)
{
	for (int i = 0; i < OPEN_MAX_EACH; i++)
		if (c->files[i].number != 0 && c->files[i].writes && c->files[i].key == key)
			return &c->files[i];
	return NULL;
}

static void begin_segment(struct client *c, struct open_file *f)
{
	uint32_t value = ++c->values, len = 8 + value * 7919u % 3000;

	if (value % 9 == 0)
		len += 70000; /* appended to without copying */
	f->c.s[f->c.n++] = (struct segment){ value, len };
	f->written = 0;
}

static void open_to_write(struct client *c, struct open_file *f, int key)
{
	struct key *k = &c->keys[key];
	int flags = k->c.n < SEGMENTS && chance(c, 2) ? O_APPEND : O_TRUNC;

	if (writer_of(c, key) != NULL)
		return;
	*f = (struct open_file){ .key = key, .writes = true, .first = !k->there || k->pending, .declared = k->pending };
	if (!k->there) {
		c->a.flags = O_WRONLY | O_CREAT;
		check(c, ask_name(c, CREATE, key) == 0, "cannot be made");
		c->nodes[key] = 0;
		k->attribute = 0;
	} else {
		check(c, open_key(c, key, (chance(c, 8) == 0 ? O_RDWR : O_WRONLY) | flags, VIA_OWNER) == 0,
		      "cannot be opened to write");
		if (flags == O_APPEND && !k->pending)
			f->c = k->c;
	}
	f->number = c->b.number;
	k->there = true;
	begin_segment(c, f);
}

static void write_more(struct client *c, struct open_file *f)
{
	struct segment *s = &f->c.s[f->c.n - 1];
	uint32_t n = s->len - f->written, want = 1 + chance(c, CHUNK);

	n = n < want ? n : want;
	if (n == 0)
		return;
	c->a.number = f->number;
	c->a.at = size_of(&f->c) - s->len + f->written;
	c->a.len = n;
	for (uint32_t i = 0; i < n; i++)
		c->a.data[i] = byte_of(s, f->written + i);
	check(c, ask(c, WRITE) == 0, "cannot be written");
	f->written += n;
}

/* Then it counts, whatever becomes of the process: so only what is whole is. */
static void sync_file(struct client *c, struct open_file *f)
{
	if (f->written < f->c.s[f->c.n - 1].len)
		return;
	c->a.number = f->number;
	check(c, ask(c, FSYNC) == 0, "cannot be synced");
	f->synced = true;
}

/* The files of it have no key any more. */
static void lose_key(struct client *c, int key)
{
	for (int i = 0; i < OPEN_MAX_EACH; i++)
		if (c->files[i].key == key)
			c->files[i].key = -1;
	c->keys[key] = (struct key){ 0 };
	c->nodes[key] = 0;
}

static void unlink_key(struct client *c, int key)
{
	bool there = c->keys[key].there;

	check(c, ask_name(c, UNLINK, key) == (there ? 0 : -ENOENT), "unlink");
	if (there)
		lose_key(c, key);
}

static void writer_killed(struct client *c, struct open_file *f)
{
	if (f->declared)
		unlink_key(c, f->key); /* it has failed */
	else if (f->synced)
		c->keys[f->key].c = f->c;
	else if (f->first)
		lose_key(c, f->key);
}

static void close_file(struct client *c, struct open_file *f)
{
	bool killed = chance(c, 6) == 0;

	if (f->writes && !killed)
		while (f->written < f->c.s[f->c.n - 1].len)
			write_more(c, f);
	c->a.number = f->number;
	c->a.fate = killed ? FATE_KILLED : FATE_EXITED;
	check(c, ask(c, FLUSH) == 0, "cannot be closed");
	check(c, ask(c, RELEASE) == 0, "cannot be released");
	f->number = 0;
	if (f->key < 0)
		return;
	if (f->writes && killed) {
		writer_killed(c, f);
		return;
	} else if (f->writes) {
		c->keys[f->key].c = f->c;
		c->keys[f->key].pending = false;
	} else if (f->takes && killed) {
		c->keys[f->key].there = true;
	}
	c->nodes[f->key] = chance(c, 2) ? c->nodes[f->key] : 0;
}

static void open_to_read(struct client *c, struct open_file *f, int key)
{
	struct key *k = &c->keys[key];
	struct open_file *w = writer_of(c, key);
	bool takes = k->there && w == NULL && !k->pending && chance(c, 4) == 0;
	int64_t r;

	if (k->pending || (w != NULL && w->first))
		return; /* would wait for itself */
	for (int i = 0; i < OPEN_MAX_EACH; i++)
		takes = takes && (c->files[i].number == 0 || c->files[i].key != key);
	r = open_key(c, key, O_RDONLY, takes ? VIA_ONCE : VIA_OWNER);
	check(c, r == (k->there ? 0 : -ENOENT), "open to read");
	if (r < 0)
		return;
	*f = (struct open_file){ .number = c->b.number, .key = key, .takes = takes, .c = k->c };
	if (takes) {
		k->there = false;
		c->nodes[key] = 0; /* a kernel is told */
	}
	check_bytes(c, f);
}

/* Something may have been put back by a reader that was killed: what is open to be taken has to be left alone. */
static bool is_being_taken(struct client *c, int key)
{
	for (int i = 0; i < OPEN_MAX_EACH; i++)
		if (c->files[i].number != 0 && c->files[i].takes && c->files[i].key == key)
			return true;
	return false;
}

static void rename_key(struct client *c, int from, int to)
{
	bool there = c->keys[from].there;

	if (from == to || is_being_taken(c, to))
		return;
	key_name(c->at, to, c->a.to);
	check(c, ask_name(c, RENAME, from) == (there ? 0 : -ENOENT), "rename");
	if (!there)
		return;
	lose_key(c, to);
	c->keys[to] = c->keys[from];
	for (int i = 0; i < OPEN_MAX_EACH; i++)
		if (c->files[i].key == from)
			c->files[i].key = to;
	c->keys[from] = (struct key){ 0 };
	c->nodes[from] = c->nodes[to] = 0;
}

static void make_or_remove_dir(struct client *c)
{
	int64_t r;

	snprintf(c->a.name, sizeof(c->a.name), "d%d", c->at);
	if (chance(c, 8) == 0) /* the wrong one */
		check(c, ask(c, c->dir ? MKDIR : RMDIR) == (c->dir ? -EEXIST : -ENOENT), "directory");
	r = ask(c, c->dir ? RMDIR : MKDIR);
	check(c, r == 0, "directory");
	c->dir = !c->dir;
}

static void declare_key(struct client *c, int key)
{
	struct key *k = &c->keys[key];

	if (k->there)
		return;
	check(c, ask_name(c, DECLARE, key) == 0, "declare");
	*k = (struct key){ .there = true, .pending = true };
	c->nodes[key] = 0;
}

static void use_attribute(struct client *c, int key)
{
	struct key *k = &c->keys[key];
	char text[16];

	if (!k->there || ask_name(c, LOOK_UP, key) != 0)
		return;
	c->a.node = c->b.node;
	if (chance(c, 2)) {
		k->attribute = ++c->values;
		c->a.len = (uint32_t)snprintf(c->a.data, CHUNK, "%u", k->attribute);
		check(c, ask(c, SET_ATTRIBUTE) == 0, "attribute");
		return;
	}
	snprintf(text, sizeof(text), "%u", k->attribute);
	ask(c, GET_ATTRIBUTE);
	if (k->attribute == 0)
		check(c, c->b.r == -ENODATA, "attribute");
	else
		check(c, c->b.len == strlen(text) && memcmp(c->b.data, text, c->b.len) == 0, "attribute");
}

/* Of a client with a lower number, so that no two wait for each other. */
static void read_another(struct client *c)
{
	int other = c->at > 0 ? (int)chance(c, (unsigned)c->at) : -1;
	bool lingers = chance(c, 2);
	uint64_t number;
	int64_t r;

	if (other < 0)
		return;
	key_name(other, (int)chance(c, KEYS), c->a.name);
	r = chance(c, 3) == 0 ? ask(c, AWAIT) : ask(c, LOOK_UP);
	for (int tries = 0; r == 0 && c->a.action != AWAIT; tries++) {
		c->a.node = c->b.node;
		c->a.flags = O_RDONLY | (lingers ? O_NONBLOCK : 0);
		r = ask(c, OPEN);
		if (r != -ESTALE)
			break;
		check(c, tries == 0, "stale twice");
		r = ask(c, LOOK_UP);
	}
	number = r == 0 ? c->b.number : 0;
	for (int looks = 0; r == 0 && looks < 50; looks++) {
		c->a.number = number;
		r = ask(c, SETTLED);
		if (r != -EAGAIN)
			break;
		r = 0;
		usleep(200);
	}
	if (r == 0 && ask(c, SETTLED) == 0)
		check_whole(c, number);
	else
		check(c, r == 0 || r == -ENOENT || r == -EOWNERDEAD || r == -ECANCELED || r == -EAGAIN, "another's");
	if (number != 0) {
		c->a.number = number;
		check(c, ask(c, RELEASE) == 0, "another's");
	}
}

static void do_something(struct client *c)
{
	struct open_file *f = &c->files[chance(c, OPEN_MAX_EACH)];
	int key = (int)chance(c, KEYS);
	unsigned what = chance(c, 100);

	if (is_being_taken(c, key) && f->key != key)
		return;
	if (f->number != 0 && f->writes && what < 55)
		write_more(c, f);
	else if (f->number != 0 && f->writes && what < 58)
		sync_file(c, f);
	else if (f->number != 0 && what < 55)
		check_bytes(c, f);
	else if (f->number != 0 && what < 80)
		close_file(c, f);
	else if (f->number == 0 && what < 25 && !is_being_taken(c, key))
		open_to_read(c, f, key);
	else if (f->number == 0 && what < 60 && !is_being_taken(c, key))
		open_to_write(c, f, key);
	else if (what < 66)
		read_another(c);
	else if (is_being_taken(c, key))
		return;
	else if (what < 74)
		unlink_key(c, key);
	else if (what < 82)
		rename_key(c, key, (int)chance(c, KEYS));
	else if (what < 88)
		make_or_remove_dir(c);
	else if (what < 92)
		declare_key(c, key);
	else
		use_attribute(c, key);
}

/* Everything is closed, and what is there in the end is what has to be there. */
static void end_client(struct client *c)
{
	struct open_file last;

	for (int i = 0; i < OPEN_MAX_EACH; i++)
		if (c->files[i].number != 0)
			close_file(c, &c->files[i]);
	for (int key = 0; key < KEYS; key++) {
		if (c->keys[key].pending)
			unlink_key(c, key);
		check(c, open_key(c, key, O_RDONLY, VIA_OWNER) == (c->keys[key].there ? 0 : -ENOENT), "at the end");
		if (!c->keys[key].there)
			continue;
		last = (struct open_file){ .number = c->b.number, .c = c->keys[key].c };
		check_bytes(c, &last);
		c->a.number = last.number;
		ask(c, RELEASE);
	}
	if (c->dir)
		make_or_remove_dir(c);
}

static void be_client(int at, unsigned seed)
{
	struct client *c = calloc(1, sizeof(*c));

	for (int i = 0; i < CLIENTS; i++) {
		close_end(i, 1);
		if (i != at)
			close_end(i, 0);
	}
	*c = (struct client){ .at = at, .fd = to_worker[at][0], .seed = seed * 100 + (unsigned)at };
	while (!shared->stop)
		do_something(c);
	end_client(c);
	_exit(0);
}

/* ---- The one who kills ---- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static const int crashes[] = { SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE };

static pid_t start(void (*what)(int at, unsigned seed), int at, unsigned seed)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	for (int i = 0; i < (int)COUNT(crashes); i++)
		signal(crashes[i], SIG_DFL); /* cmocka has handlers */
	if (what != NULL)
		what(at, seed);
	else
		work();
	_exit(0);
}

static void drain(void)
{
	static struct ask a;

	for (int i = 0; i < CLIENTS; i++)
		while (recv(to_worker[i][1], &a, sizeof(a), MSG_DONTWAIT) > 0)
			;
}

/* What was asked and not read goes with the worker: whoever asked, asks again. */
static void nobody_asks(void)
{
	shared->phase++;
	for (int i = 0; i < CLIENTS; i++)
		while (shared->sending[i] != 0)
			usleep(10);
	drain();
}

static unsigned number_from(const char *variable, unsigned otherwise)
{
	const char *text = getenv(variable);

	return text != NULL ? (unsigned)atoi(text) : otherwise;
}

static bool has_crashed(pid_t worker)
{
	siginfo_t ended = { 0 };

	return waitid(P_PID, (id_t)worker, &ended, WEXITED | WNOWAIT | WNOHANG) == 0 && ended.si_pid != 0 &&
	       (ended.si_code != CLD_EXITED || ended.si_status != 0);
}

static unsigned kill_workers(pid_t *worker, int64_t until, unsigned *seed, unsigned *early)
{
	unsigned kills = 0;
	int status;

	while (now_ms() < until && !shared->failed) {
		bool at_once = rand_r(seed) % 4 == 0 && number_from("KEPT_PAUSE_US", 0) == 0; /* while it adopts, perhaps */

		while (!at_once && !shared->serving && !shared->failed && !has_crashed(*worker))
			usleep(100);
		usleep((useconds_t)rand_r(seed) % (at_once ? 6000 : number_from("KEPT_PAUSE_US", 12000)));
		*early += !shared->serving;
		kill(*worker, SIGKILL);
		waitpid(*worker, &status, 0);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) { /* by itself */
			fprintf(stderr, "the worker has ended: %#x\n", (unsigned)status);
			shared->failed = true;
			break;
		}
		kills++;
		nobody_asks();
		shared->serving = false;
		*worker = start(NULL, 0, 0);
		shared->phase++;
	}
	return kills;
}

static int count_name(void *arg, const struct meta_dentry *d)
{
	++*(unsigned *)arg;
	return 0;
}

/* Without what was kept: there is a file for every key, and nothing else. */
static void check_left(void)
{
	const struct store_options options = { .aborted_age = 1, .wait_timeout = -1 };
	unsigned names = 0, files = 1;
	const char *why;

	assert_int_equal(meta_sqlite_open(scratch_path(dir, "catalog.db"), &m, &why), 0);
	assert_int_equal(test_blobs_open(scratch_path(dir, "data"), &blobs), 0);
	assert_int_equal(store_open_all(m, &blobs.b, &hooks, NULL, &options, &st), 0);
	for (int i = 0; i < 500 && names != files; i++) {
		usleep(10000);
		names = 0;
		m->ops->begin(m);
		m->ops->dentry_list(m, META_ROOT, 0, count_name, &names);
		m->ops->end(m, META_READ, NULL);
		files = test_blobs_count(&blobs, true) + test_blobs_count(&blobs, false);
	}
	assert_int_equal(files, names);
	end_work();
}

static void set_up_shared(void)
{
	dir = scratch_make();
	assert_non_null(dir);
	assert_int_equal(mkdir(scratch_path(dir, "data"), 0700), 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(shared != MAP_FAILED);
	kept = kept_new(1000);
	redo = redo_new();
	assert_true(kept != NULL && redo != NULL);
	for (int i = 0; i < CLIENTS; i++)
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, to_worker[i]), 0);
}

static void killed_at_any_time(void **state)
{
	unsigned seconds = number_from("KEPT_SECONDS", 8), seed = number_from("KEPT_SEED", (unsigned)time(NULL)), early = 0;
	unsigned kills, first = seed;
	pid_t clients[CLIENTS], worker;
	int status;

	set_up_shared();
	worker = start(NULL, 0, 0);
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = start(be_client, i, seed);
	for (int i = 0; i < CLIENTS; i++)
		close_end(i, 0);
	kills = kill_workers(&worker, now_ms() + seconds * 1000, &seed, &early);
	shared->stop = true;
	for (int i = 0; i < CLIENTS; i++)
		while (waitpid(clients[i], &status, WNOHANG) == 0) {
			usleep(1000);
			if (has_crashed(worker))
				shared->failed = true;
		}
	for (int i = 0; i < CLIENTS; i++)
		close_end(i, 1);
	if (shared->failed)
		kill(worker, SIGKILL);
	waitpid(worker, &status, 0);
	fprintf(stderr, "seed %u: %u kills (%u before it served), %lu answers, %lu asked again, %lu done before, %lu claimed\n",
		first, kills, early, shared->answers, shared->again, shared->done_before, shared->claimed);
	assert_false(shared->failed);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	check_left();
	assert_true(kills > seconds);
	assert_true(shared->again > 0 && shared->done_before > 0);
	for (int i = 0; i < NODES; i++)
		assert_true(shared->acted[i] > 0);
	redo_free(redo);
	kept_free(kept);
	scratch_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(killed_at_any_time) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What tests of the store share: the store over a SQLite catalog and a directory of data files, without FUSE. The test
 * is the front end. Threads are numbers here, and the test says what became of them; the wall clock is the test's. */
#pragma once

#include "core/internal.h"
#include "core/store.h"
#include "tests/unit/blobs.h"
#include "tests/unit/rig.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

#include <stdatomic.h>

#define START (1700000000 * SECOND)
#define HOUR (3600 * SECOND)
#define TIDS 32

extern char *dir;
extern struct meta *m;
extern struct test_blobs blobs;
extern struct store *st;
extern const struct caller anybody;
extern struct store_options options; /* of the next mount_store */
extern const struct store_hooks hooks;

/* What the hooks say. */
extern enum fate fates[TIDS];
extern bool holds_own;        /* every thread holds what it writes, as far as `holds` is concerned */
extern bool others_hold;      /* there are more processes than those that are known */
extern uint64_t held[TIDS];   /* the object that a thread has open */
extern uint64_t starts[TIDS]; /* what tells processes apart; 0: there is none */
/* And what they were told. */
extern unsigned watched[TIDS];
extern atomic_uint events_seen, invalidations, forgotten;

/* ---- Checks ---- */

extern bool in_child; /* where a failed check must not run the rest of the tests */

void check_at(bool good, const char *what, const char *file, int line);
void check_result(int r, int expected, const char *what, const char *file, int line);

#define CHECK(cond) check_at((cond), #cond, __FILE__, __LINE__)
#define CHECK_R(call, expected) check_result((call), (expected), #call, __FILE__, __LINE__)

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

/* ---- The rig ---- */

struct caller who(int32_t tid);
struct caller who_via(int32_t tid, enum via via);
/* Waits until everything up to now is recorded and told to whom it concerns. The catalog's thread answers for power
 * loss, so once it has, it is done with what it was told before. And until what is not needed is removed. */
void record_all(void);
void mount_store(int64_t at);
void unmount_store(void);
void remount(void);
int set_up_raw(void **state);
int set_up(void **state);
int tear_down(void **state);

/* ---- What a front end does ---- */

int lookup(int32_t tid, uint64_t parent, const char *name, struct entry *e);
uint64_t node_of(const char *name);
uint64_t object_of(const char *name);
struct handle *create(int32_t tid, const char *name);
int open_via(int32_t tid, enum via via, uint64_t node, int flags, struct waiter *w, struct handle **h);
int open_node(int32_t tid, uint64_t node, int flags, struct waiter *w, struct handle **h);
/* As the kernel opens a path: looks the name up, and once more when told to. */
int open_name(int32_t tid, const char *name, int flags, struct waiter *w, struct handle **h);
struct handle *open_write(int32_t tid, const char *name, int flags);
struct handle *open_read(int32_t tid, const char *name);
void put_bytes(struct handle *h, const char *text);
int flush(int32_t tid, struct handle *h);
void close_handle(int32_t tid, struct handle *h);
void kill_writer(int32_t tid, struct handle *h);
void put(const char *name, const char *text);
void replace(const char *name, const char *text);
bool reads(struct handle *h, const char *text);
void has(const char *name, const char *text);
int declare(const char *name);
int unlink_name(const char *name);
int set_attribute(const char *name, const char *attribute, const char *value);
bool attribute_is(const char *name, const char *attribute, const char *value);
bool state_is(const char *name, const char *state);
/* Nothing is in use any more, and data files and records agree. */
void check_idle(unsigned files);

/* ---- Waiters ---- */

struct test_waiter {
	struct waiter w; /* first */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned times;
	int result;
};

void waiter_init(struct test_waiter *tw);
/* Waits, at most a while, until it was woken that often. */
bool woken_times(struct test_waiter *tw, unsigned times, unsigned ms);
bool is_woken(struct test_waiter *tw);
bool sleeps(struct test_waiter *tw);
/* Begins to wait for name. */
uint64_t wait_for(struct test_waiter *tw, int32_t tid, const char *name);
/* After a wake-up with 0: asks again, through the same node. */
int ask_again(struct test_waiter *tw, int32_t tid, uint64_t node, struct handle **h);
/* A waiter may be woken for nothing; then it asks again, and goes on waiting. */
void still_waits(struct test_waiter *tw, int32_t tid, uint64_t node);

/* ---- More that several tests use ---- */

void append_bytes(struct handle *h, char with, size_t n);
int64_t size_of(const char *name);
int lookup_torn(const char *name, struct entry *e);
void torn_has(const char *name, const char *text);
int fsync_handle(struct handle *h);
int await_key(struct test_waiter *tw, int32_t tid, const char *name);
int by_link(const char *name);
extern atomic_uint settled;
void on_settle(struct handle *h);
/* Runs what in a process of its own, which ends by SIGKILL in the middle of everything. */
void crash(void (*what)(void));
int make_dir(uint64_t parent, const char *name, struct entry *e);
uint32_t links_of(uint64_t node);
int join(uint64_t lifetime, const char *key, const char *name);
int end_lifetime(const char *name);
bool is_there(const char *name);
/* Waits until it is not, at most a while. */
bool goes(const char *name);
int rename_to(uint64_t from, const char *name, uint64_t to, const char *to_name, unsigned flags);
int remove_attribute(const char *name, const char *attribute);
/* The events of a key, as "KIND DETAIL; KIND DETAIL". */
bool log_is(const char *key, const char *events);

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

/* Group commit: one connection, one operation at a time, many operations in a commit.
 *
 * An operation that has to be recorded does not commit when another thread is already waiting for its turn: that one
 * will commit both. So under load a commit serves as many operations as arrived meanwhile, and alone it costs no
 * hand-over to another thread. GROUP_MAX and GROUP_NS bound how long anybody waits for company.
 *
 * A background thread does what must not hold up a caller: commits that nobody waits for, fsync of the WAL for those
 * who asked for durability (one for all of them), and checkpoints. */
#include "meta/sqlite_catalog.h"

#include <errno.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#define GROUP_MAX 64
#define GROUP_NS 500000
#define LATER_NS 2000000
#define LATER_STATEMENTS 300 /* some two milliseconds of writing them to the log */
#define TURN_SPIN_NS 50000
#define WAL_PAGES_CHECKPOINT 4000
#define WAL_PAGES_FORCED 20000

int64_t sqlite_now(struct meta *m)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Most turns are shorter than it takes to put a thread to sleep and to wake it up again. */
static void take_turn(struct sqlite_catalog *s)
{
	int64_t until;

	if (pthread_mutex_trylock(&s->lock) == 0)
		return;
	until = monotonic_ns() + TURN_SPIN_NS;
	do {
		sched_yield();
		if (pthread_mutex_trylock(&s->lock) == 0)
			return;
	} while (monotonic_ns() < until);
	pthread_mutex_lock(&s->lock);
}

void sqlite_begin(struct meta *m)
{
	struct sqlite_catalog *s = catalog_of(m);

	atomic_fetch_add(&s->contenders, 1);
	take_turn(s);
	atomic_fetch_sub(&s->contenders, 1);
}

/* From reading to writing by way of BEGIN IMMEDIATE, which waits when somebody else has the catalog locked; a reading
 * transaction that becomes a writing one would fail at once. */
int sqlite_write_begin(struct sqlite_catalog *s)
{
	int r = s->failed;

	if (s->changed || r < 0)
		return r;
	if (s->in_transaction)
		r = sqlite_step(s, STMT_COMMIT);
	if (r >= 0) {
		s->in_transaction = true; /* so that the step does not begin a reading one */
		r = sqlite_step(s, STMT_BEGIN_IMMEDIATE);
		s->in_transaction = r >= 0;
	}
	s->changed = r >= 0;
	s->statements_before = atomic_load_explicit(&s->statements, memory_order_relaxed);
	return r < 0 ? r : 0;
}

static struct meta_commit *take_pending(struct sqlite_catalog *s)
{
	struct meta_commit *list = s->pending;

	s->pending = NULL;
	s->pending_tail = &s->pending;
	s->pending_count = 0;
	return list;
}

static void add_pending(struct sqlite_catalog *s, struct meta_commit *c, enum meta_ack ack)
{
	c->next = NULL;
	c->durable = ack == META_DURABLE;
	c->since = monotonic_ns();
	*s->pending_tail = c;
	s->pending_tail = &c->next;
	if (ack != META_LATER && s->pending_count++ == 0)
		s->pending_since = c->since;
}

static void roll_back(struct sqlite_catalog *s, int r)
{
	if (s->changed) {
		s->meta.rollback_error = r;
		atomic_fetch_add(&s->meta.rollbacks, 1);
	}
	if (s->in_transaction && !sqlite3_get_autocommit(s->db))
		sqlite_step(s, STMT_ROLLBACK);
	sqlite_redo_rolled_back(s);
	s->in_transaction = s->changed = false;
	s->changes = 0;
	s->failed = 0;
	s->id_limit = s->next_id; /* the reservation may be gone with the rest */
}

static int commit(struct sqlite_catalog *s)
{
	int64_t began = monotonic_ns();
	int r = s->changed ? sqlite_redo_committing(s) : 0;

	if (r == 0)
		r = sqlite_step(s, STMT_COMMIT);
	if (r < 0)
		return r;
	if (s->changed)
		sqlite_redo_committed(s);
	histogram_add(&s->commit_ns, monotonic_ns() - began);
	histogram_add(&s->commit_ops, s->changes);
	s->changes = 0;
	s->in_transaction = s->changed = false;
	atomic_fetch_add_explicit(&s->commits, 1, memory_order_relaxed);
	return 0;
}

static void complete(struct sqlite_catalog *s, struct meta_commit *list, int r)
{
	int64_t now = list != NULL ? monotonic_ns() : 0;

	for (struct meta_commit *next; list != NULL; list = next) {
		next = list->next;
		histogram_add(&s->record_ns, now - list->since);
		list->done(list, r);
	}
}

/* Hands the durable ones of a committed list to the worker and returns the others. */
static struct meta_commit *defer_durable(struct sqlite_catalog *s, struct meta_commit *list)
{
	struct meta_commit *rest = NULL, **tail = &rest;

	for (struct meta_commit *next; list != NULL; list = next) {
		next = list->next;
		list->next = NULL;
		if (!list->durable) {
			*tail = list;
			tail = &list->next;
			continue;
		}
		pthread_mutex_lock(&s->work_lock);
		*s->sync_tail = list;
		s->sync_tail = &list->next;
		pthread_cond_signal(&s->work_cond);
		pthread_mutex_unlock(&s->work_lock);
	}
	return rest;
}

static void want_later(struct sqlite_catalog *s)
{
	pthread_mutex_lock(&s->work_lock);
	if (!s->later_wanted) {
		s->later_wanted = true;
		pthread_cond_signal(&s->work_cond);
	}
	pthread_mutex_unlock(&s->work_lock);
}

static bool somebody_will_commit(struct sqlite_catalog *s)
{
	return atomic_load(&s->contenders) > 0 && s->pending_count < GROUP_MAX &&
	       monotonic_ns() - s->pending_since < GROUP_NS;
}

/* Whoever commits next would have to write all of it, while everybody waits: the worker may be copying pages meanwhile. */
static bool is_much(struct sqlite_catalog *s)
{
	return s->changed &&
	       atomic_load_explicit(&s->statements, memory_order_relaxed) - s->statements_before > LATER_STATEMENTS;
}

/* Ends the turn of the calling thread: decides whether to commit, and tells whom it concerns. */
static void leave(struct sqlite_catalog *s, bool force, int failed)
{
	struct meta_commit *list = NULL;
	bool lost, unread;
	int r = failed;

	if (r == 0 && sqlite_redo_ended(s))
		force = true;
	if (r == 0 && (force || is_much(s) || (s->pending_count > 0 && !somebody_will_commit(s)))) {
		r = s->changed ? commit(s) : 0;
		list = take_pending(s);
	}
	if (r < 0) {
		if (list == NULL)
			list = take_pending(s);
		unread = s->failed != 0;
		lost = s->changed || list != NULL; /* what could only not be read leaves everything as it was */
		roll_back(s, r);
		pthread_mutex_unlock(&s->lock);
		complete(s, list, r);
		if (lost && s->meta.on_rollback != NULL)
			s->meta.on_rollback(s->meta.on_rollback_arg, r);
		else if (unread && s->meta.on_failure != NULL)
			s->meta.on_failure(s->meta.on_rollback_arg);
		return;
	}
	if (s->pending_count == 0 && (s->changed || s->pending != NULL))
		want_later(s);
	pthread_mutex_unlock(&s->lock);
	complete(s, defer_durable(s, list), 0);
}

void sqlite_end(struct meta *m, enum meta_ack ack, struct meta_commit *c)
{
	struct sqlite_catalog *s = catalog_of(m);
	int failed = s->failed;

	atomic_fetch_add_explicit(&s->operations, 1, memory_order_relaxed);
	if (ack == META_ABANDON && failed == 0)
		failed = -EIO;
	s->changes += ack != META_READ;
	if (c != NULL)
		add_pending(s, c, ack);
	leave(s, c == NULL && (ack == META_RECORDED || ack == META_DURABLE), failed);
}

/* The worker. */

static void commit_later(struct sqlite_catalog *s)
{
	struct timespec pause = { .tv_nsec = LATER_NS };

	nanosleep(&pause, NULL); /* others may commit it for us meanwhile */
	sqlite_begin(&s->meta);
	leave(s, true, s->failed);
}

/* When a sync has failed the kernel may take what it could not write for written, and the next sync says nothing of it.
 * So the WAL is trusted again only when all of it has been copied to the database, and that was synced. */
static int copy_all(struct sqlite_catalog *s)
{
	int in_wal = 0, copied = 0, rc;

	sqlite_begin(&s->meta);
	if (s->in_transaction && !s->changed && commit(s) < 0)
		s->failed = -EIO;
	rc = sqlite3_wal_checkpoint_v2(s->checkpoint_db, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_wal, &copied);
	s->wal_suspect = rc != SQLITE_OK || copied < in_wal;
	leave(s, false, s->failed);
	if (rc != SQLITE_OK)
		return sqlite_errno(s->checkpoint_db, rc);
	return s->wal_suspect ? -EIO : 0; /* somebody reads an old state of it */
}

static void sync_wal(struct sqlite_catalog *s, struct meta_commit *list)
{
	int r = s->wal_suspect ? copy_all(s) : 0;

	if (r == 0 && fdatasync(s->wal_fd) < 0)
		r = -errno;
	s->wal_suspect = s->wal_suspect || r < 0;
	complete(s, list, r);
}

/* SQLite counts in ints, and only so that who has the turn may look. */
static void take_page_counts(struct sqlite_catalog *s)
{
	int hits = 0, misses = 0, highest;

	sqlite3_db_status(s->db, SQLITE_DBSTATUS_CACHE_HIT, &hits, &highest, 1);
	sqlite3_db_status(s->db, SQLITE_DBSTATUS_CACHE_MISS, &misses, &highest, 1);
	s->page_hits += (uint64_t)hits;
	s->page_misses += (uint64_t)misses;
}

/* Copies pages back while others work; when the WAL grows all the same, finishes with everybody held up once. */
static void checkpoint(struct sqlite_catalog *s)
{
	int in_wal = 0, copied = 0;

	if (sqlite3_wal_checkpoint_v2(s->checkpoint_db, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_wal, &copied) != SQLITE_OK)
		s->wal_suspect = true; /* it syncs the WAL first */
	if (in_wal < WAL_PAGES_FORCED)
		return;
	sqlite_begin(&s->meta);
	take_page_counts(s);
	if (s->in_transaction && !s->changed && commit(s) < 0)
		s->failed = -EIO;
	if (!s->in_transaction)
		sqlite3_wal_checkpoint_v2(s->checkpoint_db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	leave(s, false, s->failed);
}

static bool work_to_do(struct sqlite_catalog *s)
{
	return s->later_wanted || s->sync_list != NULL || s->checkpoint_wanted || s->stop;
}

static void *worker_main(void *arg)
{
	struct sqlite_catalog *s = arg;
	bool stop = false;

	while (!stop) {
		struct meta_commit *syncs;
		bool later, want_checkpoint;

		pthread_mutex_lock(&s->work_lock);
		while (!work_to_do(s))
			pthread_cond_wait(&s->work_cond, &s->work_lock);
		later = s->later_wanted;
		want_checkpoint = s->checkpoint_wanted;
		syncs = s->sync_list;
		stop = s->stop && syncs == NULL && !later;
		s->later_wanted = s->checkpoint_wanted = false;
		s->sync_list = NULL;
		s->sync_tail = &s->sync_list;
		pthread_mutex_unlock(&s->work_lock);

		if (syncs != NULL)
			sync_wal(s, syncs);
		if (later)
			commit_later(s);
		if (want_checkpoint)
			checkpoint(s);
	}
	return NULL;
}

void sqlite_page_counts(struct sqlite_catalog *s, uint64_t *hits, uint64_t *misses)
{
	sqlite_begin(&s->meta);
	take_page_counts(s);
	*hits = s->page_hits;
	*misses = s->page_misses;
	leave(s, false, s->failed);
}

static int on_wal(void *arg, sqlite3 *db, const char *name, int pages)
{
	struct sqlite_catalog *s = arg;

	if (pages < WAL_PAGES_CHECKPOINT || pages % (WAL_PAGES_CHECKPOINT / 4) > 64)
		return SQLITE_OK;
	pthread_mutex_lock(&s->work_lock);
	s->checkpoint_wanted = true;
	pthread_cond_signal(&s->work_cond);
	pthread_mutex_unlock(&s->work_lock);
	return SQLITE_OK;
}

int sqlite_worker_start(struct sqlite_catalog *s)
{
	int r;

	sqlite3_wal_hook(s->db, on_wal, s);
	s->worker_started = true;
	r = pthread_create(&s->worker, NULL, worker_main, s);
	if (r != 0) {
		s->worker_started = false;
		return -r;
	}
	pthread_setname_np(s->worker, "catalog");
	return 0;
}

void sqlite_worker_stop(struct sqlite_catalog *s)
{
	if (!s->worker_started)
		return;
	sqlite_begin(&s->meta);
	leave(s, true, s->failed);
	pthread_mutex_lock(&s->work_lock);
	s->stop = true;
	pthread_cond_signal(&s->work_cond);
	pthread_mutex_unlock(&s->work_lock);
	pthread_join(s->worker, NULL);
	s->worker_started = false;
}

/* Opening and closing the SQLite catalog: checks, migrations, prepared statements. */
#include "meta/sqlite_catalog.h"
#include "meta/sqlite_schema.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_TIMEOUT_MS 5000

static const char *const statement_sql[STATEMENT_COUNT] = {
#define STATEMENT(name, sql) [STMT_##name] = sql,
#include "meta/sqlite_statements.h"
#undef STATEMENT
};

static int exec(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 :
								       sqlite_errno(db, sqlite3_extended_errcode(db));
}

static int pragma_int(sqlite3 *db, const char *sql, int *value)
{
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		*value = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	return rc == SQLITE_ROW ? 0 : sqlite_errno(db, sqlite3_extended_errcode(db));
}

static int migrate_one(sqlite3 *db, int from)
{
	char sql[96];
	int r = exec(db, "BEGIN IMMEDIATE");

	if (r < 0)
		return r;
	r = exec(db, sqlite_migrations[from]);
	snprintf(sql, sizeof(sql), "PRAGMA user_version = %d; PRAGMA application_id = %d; COMMIT", from + 1,
		 SQLITE_APPLICATION_ID);
	if (r == 0)
		r = exec(db, sql);
	if (r < 0)
		exec(db, "ROLLBACK");
	return r;
}

/* An empty file is a new catalog; anything else must say that it is one. */
static int check_identity(sqlite3 *db, int version, const char **why)
{
	int id = 0, pages = 0, r;

	r = pragma_int(db, "PRAGMA application_id", &id);
	if (r == 0)
		r = pragma_int(db, "PRAGMA page_count", &pages);
	if (r < 0)
		return r;
	if (id != SQLITE_APPLICATION_ID && (version != 0 || pages > 0)) {
		*why = "it is an SQLite database, but not a catalog of promisefs";
		return -EBADMSG;
	}
	if (version < 0)
		return -EBADMSG;
	if (version > META_SCHEMA_VERSION) {
		static _Thread_local char newer[160];

		snprintf(newer, sizeof(newer), "it has version %d, from a newer promisefs (this one knows %d); use that, or "
			 "a store of its own", version, META_SCHEMA_VERSION);
		*why = newer;
		return -EPROTO;
	}
	return 0;
}

static int migrate(sqlite3 *db, const char **why)
{
	int version = 0, r = pragma_int(db, "PRAGMA user_version", &version);

	if (r == 0)
		r = check_identity(db, version, why);
	for (; r == 0 && version < META_SCHEMA_VERSION; version++)
		r = migrate_one(db, version);
	return r;
}

static int configure(sqlite3 *db)
{
	sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
	/* NORMAL: a commit is safe from the death of any process; durability against power loss is asked for by
	 * META_DURABLE, which syncs the WAL itself. */
	return exec(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;"
			"PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 0;"
			"PRAGMA journal_size_limit = 67108864");
}

static int prepare(struct sqlite_catalog *s)
{
	for (int i = 0; i < STATEMENT_COUNT; i++)
		if (sqlite3_prepare_v3(s->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &s->stmt[i], NULL) !=
		    SQLITE_OK)
			return sqlite_errno(s->db, sqlite3_extended_errcode(s->db)) == -EIO ? -EBADMSG : -EIO;
	return 0;
}

/* Nobody asks how much memory SQLite has in use; counting it costs a lock at every allocation. */
static void configure_library(void)
{
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

/* The last connection that is closed copies the log into the database and deletes it. SQLite (3.40 and others) deletes it
 * also when it could not be copied because the shared memory could not be opened. So that is done by us, see close_log. */
void sqlite_keep_log(sqlite3 *db)
{
	sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
}

static int open_connection(const char *path, sqlite3 **db)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
	int rc = sqlite3_open_v2(path, db, flags, NULL);

	if (rc == SQLITE_OK)
		sqlite_keep_log(*db);
	return rc == SQLITE_OK ? 0 : sqlite_errno(*db, rc);
}

static void wal_of(const char *path, char wal[static PATH_MAX])
{
	snprintf(wal, PATH_MAX, "%s-wal", path);
}

/* Closing removes it. */
static bool has_wal(const char *path)
{
	char wal[PATH_MAX];
	struct stat st;

	wal_of(path, wal);
	return stat(wal, &st) == 0 && st.st_size > 0;
}

/* The numbers that were reserved are not reserved again after power loss: files have them as names. And there is a log
 * from now on, also after that. */
static int open_wal(struct sqlite_catalog *s, const char *path)
{
	char wal[PATH_MAX];

	wal_of(path, wal);
	s->wal_fd = open(wal, O_RDWR | O_CLOEXEC);
	return s->wal_fd < 0 || fdatasync(s->wal_fd) < 0 ? -errno : 0;
}

/* Bad pages show when they are read: the root directory and the small tables are read at every start anyway. */
static int first_commit(struct sqlite_catalog *s)
{
	struct meta_object root;
	int r = s->meta.ops->object_get(&s->meta, META_ROOT, &root);

	if (r < 0 && r != -ENOENT)
		return r;
	r = sqlite_reserve_ids(s);
	s->meta.first = s->next_id;
	if (r == 0)
		r = sqlite_step(s, STMT_COMMIT);
	s->in_transaction = s->changed = false;
	return r < 0 ? r : 0;
}

/* When all of it has been copied it may be deleted. Otherwise the next one who opens it goes on with it. */
static void close_log(struct sqlite_catalog *s)
{
	if (sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) == SQLITE_OK)
		sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
}

static void close_catalog(struct meta *m)
{
	struct sqlite_catalog *s = catalog_of(m);

	if (s == NULL)
		return;
	sqlite_worker_stop(s);
	for (int i = 0; i < STATEMENT_COUNT; i++)
		sqlite3_finalize(s->stmt[i]);
	sqlite3_close(s->checkpoint_db);
	if (s->opened)
		close_log(s);
	sqlite3_close(s->db);
	if (s->wal_fd >= 0)
		close(s->wal_fd);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->work_lock);
	pthread_cond_destroy(&s->work_cond);
	free(s);
}

static void counts(struct meta *m, struct meta_counts *c)
{
	struct sqlite_catalog *s = catalog_of(m);

	c->operations = atomic_load_explicit(&s->operations, memory_order_relaxed);
	c->commits = atomic_load_explicit(&s->commits, memory_order_relaxed);
	c->statements = atomic_load_explicit(&s->statements, memory_order_relaxed);
	c->commit_ns = &s->commit_ns;
	c->commit_ops = &s->commit_ops;
	c->record_ns = &s->record_ns;
	sqlite_page_counts(s, &c->page_hits, &c->page_misses);
}

static bool contended(struct meta *m)
{
	return atomic_load(&catalog_of(m)->contenders) > 0;
}

static struct meta_ops sqlite_ops;
static pthread_once_t sqlite_ops_once = PTHREAD_ONCE_INIT;

static void make_ops(void)
{
	configure_library();
	sqlite_ops = sqlite_record_ops;
	sqlite_ops.close = close_catalog;
	sqlite_ops.begin = sqlite_begin;
	sqlite_ops.end = sqlite_end;
	sqlite_ops.contended = contended;
	sqlite_ops.counts = counts;
	sqlite_upkeep_ops(&sqlite_ops);
}

static struct sqlite_catalog *new_catalog(void)
{
	struct sqlite_catalog *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	pthread_once(&sqlite_ops_once, make_ops);
	s->meta.ops = &sqlite_ops;
	s->wal_fd = -1;
	s->events_since_prune = UINT32_MAX; /* the first event looks whether there are too many */
	s->pending_tail = &s->pending;
	s->sync_tail = &s->sync_list;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->work_lock, NULL);
	pthread_cond_init(&s->work_cond, NULL);
	return s;
}

static const char *open_error(int r)
{
	switch (r) {
	case -EBADMSG:
		return "it is damaged or not an SQLite database; restore it from a copy";
	case -EROFS:
	case -EACCES:
		return "it cannot be written; check the permissions and whether the file system is read-only";
	case -ENOSPC:
		return "the disk is full; free some space";
	default:
		return "it cannot be read";
	}
}

int meta_sqlite_open(const char *path, struct meta **ret, const char **why)
{
	return meta_sqlite_open_redo(path, NULL, ret, why);
}

int meta_sqlite_open_redo(const char *path, struct redo *redo, struct meta **ret, const char **why)
{
	struct sqlite_catalog *s = new_catalog();
	mode_t mask = umask(077); /* the catalog is nobody's but the daemon's */
	int r;

	*why = NULL;
	if (s == NULL)
		return -ENOMEM;
	s->meta.left_open = has_wal(path);
	r = open_connection(path, &s->db);
	if (r == 0)
		r = migrate(s->db, why);
	if (r == 0)
		r = configure(s->db);
	if (r == 0)
		r = prepare(s);
	if (r == 0)
		r = sqlite_redo_replay(s, redo);
	if (r == 0)
		r = first_commit(s);
	if (r == 0)
		sqlite_redo_start(s, redo);
	if (r == 0)
		r = open_wal(s, path);
	if (r == 0)
		r = open_connection(path, &s->checkpoint_db);
	if (r == 0)
		r = configure(s->checkpoint_db);
	if (r == 0)
		r = sqlite_worker_start(s);
	s->opened = r == 0;
	umask(mask);
	if (r < 0) {
		if (*why == NULL)
			*why = open_error(r);
		close_catalog(&s->meta);
		return r;
	}
	*ret = &s->meta;
	return 0;
}

/* Nothing is made, brought up to date or copied back. */
static int open_reading(struct sqlite_catalog *s, const char *path, const char **why)
{
	int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
	int rc = sqlite3_open_v2(path, &s->db, flags, NULL), version = 0, pages = 0, r;

	if (rc != SQLITE_OK)
		return sqlite_errno(s->db, rc);
	sqlite_keep_log(s->db);
	sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
	r = pragma_int(s->db, "PRAGMA page_count", &pages);
	if (r == 0 && pages == 0)
		return -ENOENT;
	if (r == 0)
		r = pragma_int(s->db, "PRAGMA user_version", &version);
	if (r == 0)
		r = check_identity(s->db, version, why);
	if (r == 0 && version < META_SCHEMA_VERSION) {
		*why = "it is from an older promisefs; mount the store once, that brings it up to date";
		return -ESTALE;
	}
	return r;
}

int meta_sqlite_open_reader(const char *path, struct meta **ret, const char **why)
{
	struct sqlite_catalog *s;
	int r;

	*why = NULL;
	if (access(path, F_OK) < 0) {
		*why = "it is not there";
		return -errno;
	}
	s = new_catalog();
	if (s == NULL)
		return -ENOMEM;
	r = open_reading(s, path, why);
	if (r == 0)
		r = prepare(s);
	if (r < 0) {
		if (*why == NULL)
			*why = r == -ENOENT ? "it is empty" : open_error(r);
		close_catalog(&s->meta);
		return r;
	}
	*ret = &s->meta;
	return 0;
}

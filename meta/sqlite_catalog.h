/* What the files of the SQLite engine share.
 *
 * Locks: `lock` is held from begin to end and guards the connection with everything up to `wal_fd`. `work_lock` guards
 * the list of things for the background thread; it is taken inside `lock` and nothing is taken inside it. Completion
 * callbacks run with neither. */
#pragma once

#include "meta/meta.h"
#include "meta/redo_region.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

enum statement {
#define STATEMENT(name, sql) STMT_##name,
#include "meta/sqlite_statements.h"
#undef STATEMENT
	STATEMENT_COUNT
};

struct sqlite_catalog {
	struct meta meta;
	pthread_mutex_t lock;
	atomic_uint contenders; /* threads waiting in begin: they will commit for us */
	sqlite3 *db;
	sqlite3_stmt *stmt[STATEMENT_COUNT];
	bool in_transaction; /* reads are in one, too, so that they need no locks of their own */
	bool changed;        /* it has something to commit */
	int failed; /* first error of the running transaction that it cannot survive */
	struct meta_commit *pending; /* operations of the running transaction that wait to be recorded */
	struct meta_commit **pending_tail;
	unsigned pending_count; /* of them, those that do not want it just later */
	int64_t pending_since;
	uint64_t page_hits, page_misses;
	uint64_t statements_before; /* the changes that are not committed */
	unsigned changes; /* operations since the last commit that changed something */
	uint64_t next_id, id_limit;
	struct redo *redo; /* NULL: none */
	uint32_t redo_at;  /* how far it is written; valid or not */
	bool redo_over;    /* the running operation has found no room there, or one before it, which is being committed */
	bool changes_records[STATEMENT_COUNT];
	uint64_t events_since_prune;
	bool opened; /* for writing, and all was well */
	int wal_fd; /* for making commits durable; the WAL file stays the same one while the catalog is open */

	pthread_mutex_t work_lock;
	pthread_cond_t work_cond;
	pthread_t worker;
	bool worker_started, stop, later_wanted, checkpoint_wanted;
	struct meta_commit *sync_list, **sync_tail;
	bool wal_suspect; /* the worker's: a sync of the WAL has failed, so what it had may never reach the disk */
	sqlite3 *checkpoint_db; /* only the worker uses it, so copying pages back blocks nobody */

	atomic_ullong operations, commits, statements;
	struct histogram commit_ns, commit_ops, record_ns;
};

static inline struct sqlite_catalog *catalog_of(struct meta *m)
{
	return (struct sqlite_catalog *)m;
}

/* sqlite_records.c */
extern const struct meta_ops sqlite_record_ops; /* the record calls; the life cycle calls are NULL */
int sqlite_errno(sqlite3 *db, int rc);          /* negative errno for an SQLite result code */
int sqlite_step(struct sqlite_catalog *s, enum statement which); /* SQLITE_ROW, SQLITE_DONE or negative errno */
int sqlite_reserve_ids(struct sqlite_catalog *s);
void sqlite_read_object(sqlite3_stmt *st, struct meta_object *o);
void sqlite_read_name(sqlite3_stmt *st, int column, struct meta_dentry *d);

void sqlite_keep_log(sqlite3 *db); /* sqlite.c */

/* sqlite_upkeep.c */
void sqlite_upkeep_ops(struct meta_ops *ops); /* fills in the calls for looking at a whole store */

/* sqlite_transaction.c */
void sqlite_begin(struct meta *m);
void sqlite_page_counts(struct sqlite_catalog *s, uint64_t *hits, uint64_t *misses);
void sqlite_end(struct meta *m, enum meta_ack ack, struct meta_commit *c);
int sqlite_write_begin(struct sqlite_catalog *s); /* opens the transaction before the first change */
int sqlite_worker_start(struct sqlite_catalog *s);
void sqlite_worker_stop(struct sqlite_catalog *s); /* records everything first */
int64_t sqlite_now(struct meta *m);

/* sqlite_redo.c; without a region none of them does anything */
struct redo_value {
	int kind;  /* of SQLite's */
	int64_t i; /* the number, or how many bytes */
	const void *p; /* there until the statement has run */
};
/* A parameter of the statement that this thread runs next. All of them are bound anew before it runs, if it changes
 * anything. */
void sqlite_redo_bound(int at, struct redo_value v);
void sqlite_redo_note(struct sqlite_catalog *s, enum statement which); /* it has just run */
bool sqlite_redo_ended(struct sqlite_catalog *s);   /* an operation; true: it has to be committed now */
int sqlite_redo_committing(struct sqlite_catalog *s); /* the transaction, next */
void sqlite_redo_committed(struct sqlite_catalog *s);
void sqlite_redo_rolled_back(struct sqlite_catalog *s);
int sqlite_redo_replay(struct sqlite_catalog *s, struct redo *r); /* what is left of the last process */
void sqlite_redo_start(struct sqlite_catalog *s, struct redo *r);

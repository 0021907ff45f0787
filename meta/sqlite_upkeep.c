/* What fsck, gc and backup ask of the SQLite engine: walks over whole tables, its own check, compaction. */
#include "meta/sqlite_upkeep.h"
#include "meta/sqlite_catalog.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Runs a statement with at most one parameter; row (may be NULL) is called for each row. */
static int run(struct meta *m, const char *sql, uint64_t parameter, int (*row)(void *ctx, sqlite3_stmt *st), void *ctx)
{
	struct sqlite_catalog *s = catalog_of(m);
	sqlite3_stmt *st = NULL;
	int rc, r = 0;

	if (!s->in_transaction) {
		r = sqlite_step(s, STMT_BEGIN);
		if (r < 0)
			return r;
		s->in_transaction = true;
		r = 0;
	}
	rc = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);
	if (rc == SQLITE_OK && sqlite3_bind_parameter_count(st) > 0)
		sqlite3_bind_int64(st, 1, (int64_t)parameter);
	while (rc == SQLITE_OK && r == 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		r = row != NULL ? row(ctx, st) : 0;
		rc = SQLITE_OK;
	}
	if (r == 0 && rc != SQLITE_DONE && rc != SQLITE_OK)
		r = sqlite_errno(s->db, rc);
	sqlite3_finalize(st);
	return r;
}

static int change(struct meta *m, const char *sql, uint64_t parameter)
{
	int r = sqlite_write_begin(catalog_of(m));

	return r == 0 ? run(m, sql, parameter, NULL, NULL) : r;
}

struct walk {
	void *arg;
	meta_object_fn object;
	meta_dentry_fn dentry;
	meta_borrow_fn borrow;
	meta_id_fn id;
	meta_text_fn text;
};

static int object_row(void *ctx, sqlite3_stmt *st)
{
	struct walk *w = ctx;
	struct meta_object o;

	sqlite_read_object(st, &o);
	return w->object(w->arg, &o);
}

static int object_scan(struct meta *m, meta_object_fn fn, void *arg)
{
	return run(m, SQL_OBJECTS, 0, object_row, &(struct walk){ .arg = arg, .object = fn });
}

static int dentry_row(void *ctx, sqlite3_stmt *st)
{
	struct walk *w = ctx;
	struct meta_dentry d;

	d.parent = (uint64_t)sqlite3_column_int64(st, 0);
	d.cookie = (uint64_t)sqlite3_column_int64(st, 1);
	d.object = (uint64_t)sqlite3_column_int64(st, 3);
	sqlite_read_name(st, 2, &d);
	return w->dentry(w->arg, &d);
}

static int dentry_scan(struct meta *m, bool members, meta_dentry_fn fn, void *arg)
{
	return run(m, members ? SQL_MEMBERS : SQL_DENTRIES, 0, dentry_row, &(struct walk){ .arg = arg, .dentry = fn });
}

static int borrow_row(void *ctx, sqlite3_stmt *st)
{
	struct walk *w = ctx;
	struct meta_borrow b = {
		.handle = (uint64_t)sqlite3_column_int64(st, 0),
		.object = (uint64_t)sqlite3_column_int64(st, 1),
		.mut = sqlite3_column_int(st, 2) != 0,
		.waiting = sqlite3_column_int(st, 3) != 0,
	};

	return w->borrow(w->arg, &b);
}

static int borrow_scan(struct meta *m, meta_borrow_fn fn, void *arg)
{
	return run(m, SQL_BORROWS, 0, borrow_row, &(struct walk){ .arg = arg, .borrow = fn });
}

static int borrow_remove(struct meta *m, uint64_t handle)
{
	return change(m, SQL_BORROW_REMOVE, handle);
}

static int id_row(void *ctx, sqlite3_stmt *st)
{
	struct walk *w = ctx;

	return w->id(w->arg, (uint64_t)sqlite3_column_int64(st, 0));
}

static int rows_scan(struct meta *m, enum meta_table t, meta_id_fn fn, void *arg)
{
	return run(m, sqlite_tables[t].scan, 0, id_row, &(struct walk){ .arg = arg, .id = fn });
}

static int rows_remove(struct meta *m, enum meta_table t, uint64_t object)
{
	return change(m, sqlite_tables[t].remove, object);
}

static int check_row(void *ctx, sqlite3_stmt *st)
{
	struct walk *w = ctx;
	const char *text = (const char *)sqlite3_column_text(st, 0);

	return text == NULL || strcmp(text, "ok") == 0 ? 0 : w->text(w->arg, text);
}

static int check(struct meta *m, meta_text_fn fn, void *arg)
{
	return run(m, SQL_CHECK, 0, check_row, &(struct walk){ .arg = arg, .text = fn });
}

static int two_numbers(void *ctx, sqlite3_stmt *st)
{
	int64_t *n = ctx;

	n[0] = sqlite3_column_int64(st, 0);
	n[1] = sqlite3_column_int64(st, 1);
	return 0;
}

static int numbers(struct meta *m, uint64_t *next, uint64_t *used)
{
	int64_t n[2] = { 0 };
	int r = run(m, SQL_NUMBERS, 0, two_numbers, n);

	*next = (uint64_t)n[0];
	*used = (uint64_t)n[1];
	return r;
}

/* What was reserved when it was opened may be in use. */
static int numbers_mend(struct meta *m)
{
	struct sqlite_catalog *s = catalog_of(m);
	int r = change(m, SQL_NUMBERS_MEND, 0);

	s->next_id = s->id_limit = 0;
	return r == 0 ? sqlite_reserve_ids(s) : r;
}

static int uuid_row(void *ctx, sqlite3_stmt *st)
{
	snprintf(ctx, 64, "%s", (const char *)sqlite3_column_text(st, 0) ?: "");
	return 0;
}

static int identity(struct meta *m, char uuid[static 64])
{
	uuid[0] = '\0';
	return run(m, SQL_IDENTITY, 0, uuid_row, uuid);
}

static int events_trim(struct meta *m, uint64_t keep, bool dry, uint64_t *removed)
{
	int64_t n[2] = { 0 };
	int r = run(m, SQL_EVENTS_OVER, keep, two_numbers, n);

	*removed = n[0] > 0 ? (uint64_t)n[0] : 0;
	return r == 0 && n[0] > 0 && !dry ? change(m, SQL_EVENTS_TRIM, keep) : r;
}

static int space(struct meta *m, int64_t *bytes, int64_t *unused)
{
	int64_t n[2] = { 0 };
	int r = run(m, SQL_SPACE, 0, two_numbers, n);

	*bytes = n[0];
	*unused = n[1];
	return r;
}

static int compact(struct meta *m)
{
	struct sqlite_catalog *s = catalog_of(m);
	int rc;

	sqlite_begin(m);
	sqlite_end(m, META_RECORDED, NULL);
	sqlite_begin(m);
	if (s->in_transaction) { /* a reading one is left open */
		sqlite_step(s, STMT_COMMIT);
		s->in_transaction = s->changed = false;
	}
	rc = sqlite3_exec(s->db, SQL_COMPACT, NULL, NULL, NULL);
	sqlite_end(m, META_READ, NULL);
	return rc == SQLITE_OK ? 0 : sqlite_errno(s->db, rc);
}

void sqlite_upkeep_ops(struct meta_ops *ops)
{
	ops->object_scan = object_scan;
	ops->dentry_scan = dentry_scan;
	ops->borrow_scan = borrow_scan;
	ops->borrow_remove = borrow_remove;
	ops->rows_scan = rows_scan;
	ops->rows_remove = rows_remove;
	ops->check = check;
	ops->numbers = numbers;
	ops->numbers_mend = numbers_mend;
	ops->identity = identity;
	ops->events_trim = events_trim;
	ops->space = space;
	ops->compact = compact;
}

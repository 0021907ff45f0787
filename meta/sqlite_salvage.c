/* Copies of a catalog: a whole one of one that is in use, and what is left of one that is damaged. */
#include "meta/sqlite_catalog.h"
#include "meta/sqlite_upkeep.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define COPY_PAGES 2048 /* between two looks at whether to stop */
#define SKIPS 63

static int open_source(const char *path, sqlite3 **db)
{
	int rc = sqlite3_open_v2(path, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_EXRESCODE, NULL);

	if (rc == SQLITE_OK)
		sqlite_keep_log(*db);
	if (rc == SQLITE_OK)
		sqlite3_busy_timeout(*db, 5000);
	return rc == SQLITE_OK ? 0 : sqlite_errno(*db, rc);
}

/* In one reading transaction, so that all pages are of one moment, however long it takes. */
static int copy_pages(sqlite3 *from, sqlite3 *to, bool (*stop)(void *arg), void *arg)
{
	sqlite3_backup *b;
	int rc = sqlite3_exec(from, "BEGIN; SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);

	if (rc != SQLITE_OK)
		return sqlite_errno(from, rc);
	b = sqlite3_backup_init(to, "main", from, "main");
	if (b == NULL)
		return sqlite_errno(to, sqlite3_extended_errcode(to));
	do {
		rc = stop != NULL && stop(arg) ? SQLITE_INTERRUPT : sqlite3_backup_step(b, COPY_PAGES);
		if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED) {
			sqlite3_sleep(10);
			rc = SQLITE_OK;
		}
	} while (rc == SQLITE_OK);
	sqlite3_backup_finish(b);
	sqlite3_exec(from, "ROLLBACK", NULL, NULL, NULL);
	return rc == SQLITE_DONE ? 0 : rc == SQLITE_INTERRUPT ? -ECANCELED : sqlite_errno(to, rc);
}

int meta_sqlite_copy(const char *from, const char *to, bool (*stop)(void *arg), void *arg)
{
	sqlite3 *source = NULL, *copy = NULL;
	int rc = SQLITE_OK, r = open_source(from, &source);

	if (r == 0 && unlink(to) < 0 && errno != ENOENT)
		r = -errno;
	if (r == 0)
		rc = sqlite3_open_v2(to, &copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_EXRESCODE, NULL);
	if (rc != SQLITE_OK)
		r = sqlite_errno(copy, rc);
	if (r == 0)
		r = copy_pages(source, copy, stop, arg);
	if (r == 0) { /* one file, without a log beside it */
		rc = sqlite3_exec(copy, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
		r = rc == SQLITE_OK ? 0 : sqlite_errno(copy, rc);
	}
	sqlite3_close(copy);
	sqlite3_close(source);
	return r;
}

/* Salvage */

struct salvage {
	sqlite3 *from, *to;
	const struct salvaged *table;
	sqlite3_stmt *insert;
	uint64_t rows;
	int64_t last; /* number of the last row that could be read */
	bool any;
};

static int prepare_insert(struct salvage *s)
{
	char sql[200], *p = sql;
	int columns = 0;
	sqlite3_stmt *st;

	snprintf(sql, sizeof(sql), "SELECT * FROM %s", s->table->table);
	if (sqlite3_prepare_v2(s->to, sql, -1, &st, NULL) == SQLITE_OK)
		columns = sqlite3_column_count(st);
	sqlite3_finalize(st);
	p += snprintf(p, sizeof(sql), "INSERT OR REPLACE INTO %s VALUES (?", s->table->table);
	for (int i = 1; i < columns; i++)
		p += snprintf(p, 3, ",?");
	snprintf(p, 2, ")");
	return sqlite3_prepare_v2(s->to, sql, -1, &s->insert, NULL);
}

/* A row that the new table does not take is not one. */
static int take_row(struct salvage *s, sqlite3_stmt *st)
{
	int rc;

	for (int i = 0; i < sqlite3_column_count(st); i++)
		sqlite3_bind_value(s->insert, i + 1, sqlite3_column_value(st, i));
	rc = sqlite3_step(s->insert);
	sqlite3_reset(s->insert);
	s->rows += rc == SQLITE_DONE;
	s->last = sqlite3_column_int64(st, 0);
	s->any = true;
	return rc == SQLITE_DONE || (rc & 0xff) == SQLITE_CONSTRAINT || (rc & 0xff) == SQLITE_MISMATCH ? SQLITE_OK : rc;
}

/* Until the end or what cannot be read. Returns SQLITE_DONE, an error of `from`, or a negative errno of `to`. */
static int take_rows(struct salvage *s, const char *order, bool beyond, int64_t after)
{
	sqlite3_stmt *st = NULL;
	char sql[240];
	int rc, r = SQLITE_OK;

	snprintf(sql, sizeof(sql), "SELECT * FROM %s%s%.*s%s ORDER BY %s", s->table->table, beyond ? " WHERE " : "",
		 beyond ? (int)strcspn(s->table->key, ",") : 0, s->table->key, beyond ? " > ?1" : "", order);
	rc = sqlite3_prepare_v2(s->from, sql, -1, &st, NULL);
	if (rc == SQLITE_OK && beyond)
		sqlite3_bind_int64(st, 1, after);
	while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		r = take_row(s, st);
		rc = r == SQLITE_OK ? SQLITE_OK : SQLITE_INTERRUPT;
	}
	sqlite3_finalize(st);
	return r != SQLITE_OK ? sqlite_errno(s->to, r) : rc;
}

/* Behind what cannot be read rows go on: further and further away it is tried again. */
static int take_beyond(struct salvage *s, int rc)
{
	for (int skip = 0; rc > 0 && rc != SQLITE_DONE && skip < SKIPS; skip++) {
		int64_t after = s->last, before = s->last;

		if (__builtin_add_overflow(after, (int64_t)1 << skip, &after))
			break;
		rc = take_rows(s, s->table->key, true, after);
		if (s->last != before)
			skip = -1;
	}
	return rc;
}

static int salvage_table(struct salvage *s, bool *lost)
{
	int rc = prepare_insert(s);

	s->rows = 0;
	s->last = 0;
	if (rc != SQLITE_OK)
		return sqlite_errno(s->to, rc);
	rc = take_rows(s, s->table->key, false, 0);
	*lost = rc > 0 && rc != SQLITE_DONE;
	if (*lost && s->table->numbered)
		rc = take_beyond(s, rc);
	if (*lost && rc >= 0)
		rc = take_rows(s, s->table->backwards, false, 0);
	sqlite3_finalize(s->insert);
	s->insert = NULL;
	return rc < 0 ? rc : 0;
}

static int salvage_tables(struct salvage *s, meta_copied_fn copied, void *arg)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(sqlite_salvaged) / sizeof(sqlite_salvaged[0]); i++) {
		bool lost = false;

		s->table = &sqlite_salvaged[i];
		r = salvage_table(s, &lost);
		if (r == 0)
			copied(arg, s->table->table, s->rows, lost);
	}
	return r == 0 && !s->any ? -ENODATA : r;
}

static int is_delete(void *arg, int columns, char **values, char **names)
{
	*(bool *)arg = columns == 1 && values[0] != NULL && strcmp(values[0], "delete") == 0;
	return 0;
}

/* One file, without a log beside it, and on the disk: only then it can take the place of another. */
static int complete(sqlite3 *db, const char *path)
{
	char log[PATH_MAX + 40];
	bool alone = false;
	int rc = sqlite3_exec(db, "PRAGMA journal_mode = DELETE", is_delete, &alone, NULL), fd, r = 0;

	if (rc != SQLITE_OK)
		return sqlite_errno(db, rc);
	snprintf(log, sizeof(log), "%s-wal", path);
	if (!alone || access(log, F_OK) == 0)
		return -EIO;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	return r;
}

int meta_sqlite_salvage(const char *from, const char *to, meta_copied_fn copied, void *arg)
{
	struct salvage s = { 0 };
	struct meta *fresh;
	const char *why;
	int rc, r = meta_sqlite_open(to, &fresh, &why);

	if (r < 0)
		return r;
	fresh->ops->close(fresh);
	r = open_source(from, &s.from);
	rc = sqlite3_open_v2(to, &s.to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_EXRESCODE, NULL);
	if (r == 0 && rc != SQLITE_OK)
		r = sqlite_errno(s.to, rc);
	if (r == 0 && sqlite3_exec(s.to, "PRAGMA foreign_keys = OFF; BEGIN", NULL, NULL, NULL) != SQLITE_OK)
		r = -EIO;
	if (r == 0)
		r = salvage_tables(&s, copied, arg);
	if (r == 0 && (rc = sqlite3_exec(s.to, SQL_NUMBERS_MEND "; COMMIT", NULL, NULL, NULL)) != SQLITE_OK)
		r = sqlite_errno(s.to, rc);
	if (r == 0)
		r = complete(s.to, to);
	sqlite3_close(s.from);
	if (sqlite3_close(s.to) != SQLITE_OK && r == 0)
		r = -EIO;
	return r;
}

/* The changes of operations that are not committed yet, as SQL, in memory that outlives the process: see redo.h. That a
 * commit has happened is told by a number that it writes: SQLite says so too late for us. */
#include "meta/sqlite_catalog.h"

#include <string.h>

void sqlite_redo_note(struct sqlite_catalog *s, enum statement which)
{
	char *sql;

	if (s->redo == NULL || !s->changes_records[which] || s->redo_over)
		return;
	sql = sqlite3_expanded_sql(s->stmt[which]);
	s->redo_over = sql == NULL || !redo_append(s->redo, &s->redo_at, sql, strlen(sql));
	sqlite3_free(sql);
}

bool sqlite_redo_ended(struct sqlite_catalog *s)
{
	struct redo_state now, at;

	if (s->redo == NULL)
		return false;
	now = redo_state(s->redo);
	at = (struct redo_state){ now.generation, s->redo_over ? REDO_NOWHERE : s->redo_at };
	if (at.length != now.length)
		redo_ended(s->redo, at);
	return s->redo_over || s->redo_at > REDO_FULL;
}

static int write_generation(struct sqlite_catalog *s, uint32_t generation)
{
	int r;

	sqlite3_bind_int64(s->stmt[STMT_GENERATION_SET], 1, generation);
	r = sqlite_step(s, STMT_GENERATION_SET);
	return r < 0 ? r : 0;
}

int sqlite_redo_committing(struct sqlite_catalog *s)
{
	return s->redo != NULL ? write_generation(s, redo_state(s->redo).generation + 1) : 0;
}

void sqlite_redo_committed(struct sqlite_catalog *s)
{
	if (s->redo == NULL)
		return;
	s->redo_at = 0;
	s->redo_over = false;
	redo_set_state(s->redo, (struct redo_state){ redo_state(s->redo).generation + 1, 0 });
}

void sqlite_redo_rolled_back(struct sqlite_catalog *s)
{
	if (s->redo == NULL)
		return;
	redo_forget_requests(s->redo, true);
	s->redo_at = 0;
	s->redo_over = false;
	redo_set_state(s->redo, (struct redo_state){ redo_state(s->redo).generation, 0 });
}

static int run(struct sqlite_catalog *s, const char *sql, size_t len)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(s->db, sql, (int)len, &st, NULL);

	if (rc == SQLITE_OK)
		while ((rc = sqlite3_step(st)) == SQLITE_ROW)
			;
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? 0 : sqlite_errno(s->db, sqlite3_extended_errcode(s->db));
}

static int run_all(struct sqlite_catalog *s, struct redo *redo, uint32_t end)
{
	const char *sql;
	uint32_t at = 0;
	size_t len;
	int r = 0;

	while (r == 0 && (sql = redo_text(redo, &at, end, &len)) != NULL)
		r = run(s, sql, len);
	return r;
}

static int get_generation(struct sqlite_catalog *s, uint32_t *generation)
{
	int r = sqlite_step(s, STMT_GENERATION_GET);

	*generation = 0;
	if (r == SQLITE_ROW) {
		*generation = (uint32_t)sqlite3_column_int64(s->stmt[STMT_GENERATION_GET], 0);
		sqlite3_reset(s->stmt[STMT_GENERATION_GET]);
	}
	return r < 0 ? r : 0;
}

/* In one transaction, so that a process that is killed meanwhile has done nothing. */
static int do_again(struct sqlite_catalog *s, struct redo *redo, struct redo_state now)
{
	int r = sqlite_write_begin(s);

	if (r == 0)
		r = run_all(s, redo, now.length);
	if (r == 0)
		r = write_generation(s, now.generation + 1);
	if (r == 0)
		r = sqlite_step(s, STMT_COMMIT);
	if (r < 0) {
		sqlite_step(s, STMT_ROLLBACK);
		s->failed = 0;
	}
	s->in_transaction = s->changed = false;
	return r < 0 ? r : 0;
}

int sqlite_redo_replay(struct sqlite_catalog *s, struct redo *redo)
{
	uint32_t recorded;
	struct redo_state now;
	int r = redo != NULL ? get_generation(s, &recorded) : 0;

	if (redo == NULL || r < 0)
		return r;
	if (!redo->bound)
		redo_set_state(redo, (struct redo_state){ recorded, 0 });
	redo->bound = true;
	now = redo_state(redo);
	if (recorded == now.generation) { /* else it was committed: all of this generation has ended */
		redo_forget_requests(redo, false);
		if (now.length > 0)
			r = do_again(s, redo, now);
		recorded = now.length > 0 ? recorded + 1 : recorded;
	}
	if (r == 0)
		redo_set_state(redo, (struct redo_state){ recorded, 0 });
	if (s->next_id < redo->next_id)
		s->next_id = redo->next_id;
	return r;
}

void sqlite_redo_start(struct sqlite_catalog *s, struct redo *redo)
{
	s->redo = redo;
	for (int i = STMT_ROLLBACK + 1; i < STATEMENT_COUNT; i++)
		s->changes_records[i] = i != STMT_GENERATION_SET && !sqlite3_stmt_readonly(s->stmt[i]);
	if (redo != NULL)
		atomic_store(&redo->next_id, s->next_id);
}

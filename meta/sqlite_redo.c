/* The changes of operations that are not committed yet, in memory that outlives the process: see redo.h. That a
 * commit has happened is told by a number that it writes: SQLite says so too late for us. */
#include "meta/sqlite_catalog.h"

#include <string.h>

#define PARAMETERS_MAX 32

static _Thread_local struct redo_value bound[PARAMETERS_MAX];

void sqlite_redo_bound(int at, struct redo_value v)
{
	bound[at] = v;
}

/* A statement is its number, and its parameters: a byte for the kind of each, its number or length, its bytes. */
struct redo_writer {
	struct redo *redo;
	uint32_t at;
	bool over;
};

static void put(struct redo_writer *w, const void *p, size_t len)
{
	w->over = w->over || !redo_append(w->redo, &w->at, p, len);
}

static void put_value(struct redo_writer *w, const struct redo_value *v)
{
	const unsigned char kind = (unsigned char)v->kind;
	const int64_t i = v->kind == SQLITE_TEXT ? (int64_t)strlen(v->p) : v->i;

	put(w, &kind, sizeof(kind));
	if (v->kind != SQLITE_NULL)
		put(w, &i, sizeof(i));
	if (v->kind == SQLITE_TEXT || v->kind == SQLITE_BLOB)
		put(w, v->p, (size_t)i);
}

void sqlite_redo_note(struct sqlite_catalog *s, enum statement which)
{
	struct redo_writer w = { .redo = s->redo, .at = s->redo_at };
	const uint16_t number = (uint16_t)which;
	int n;

	if (s->redo == NULL || !s->changes_records[which] || s->redo_over)
		return;
	n = sqlite3_bind_parameter_count(s->stmt[which]);
	put(&w, &number, sizeof(number));
	for (int i = 1; i <= n; i++)
		put_value(&w, &bound[i]);
	s->redo_over = w.over;
	if (!w.over)
		s->redo_at = w.at;
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

static const char *take(const char **at, size_t n)
{
	const char *p = *at;

	*at += n;
	return p;
}

static void bind_again(sqlite3_stmt *st, int i, const char **at)
{
	const int kind = (unsigned char)*take(at, 1);
	const char *p;
	int64_t v = 0;

	if (kind != SQLITE_NULL)
		memcpy(&v, take(at, sizeof(v)), sizeof(v));
	p = kind == SQLITE_TEXT || kind == SQLITE_BLOB ? take(at, (size_t)v) : NULL;
	if (kind == SQLITE_NULL)
		sqlite3_bind_null(st, i);
	else if (kind == SQLITE_INTEGER)
		sqlite3_bind_int64(st, i, v);
	else if (kind == SQLITE_TEXT)
		sqlite3_bind_text(st, i, p, (int)v, SQLITE_STATIC);
	else
		sqlite3_bind_blob64(st, i, p, (sqlite3_uint64)v, SQLITE_STATIC);
}

static int run(struct sqlite_catalog *s, const char **at)
{
	sqlite3_stmt *st;
	uint16_t number;
	int rc, n;

	memcpy(&number, take(at, sizeof(number)), sizeof(number));
	st = s->stmt[number];
	n = sqlite3_bind_parameter_count(st);
	for (int i = 1; i <= n; i++)
		bind_again(st, i, at);
	while ((rc = sqlite3_step(st)) == SQLITE_ROW)
		;
	sqlite3_reset(st);
	return rc == SQLITE_DONE ? 0 : sqlite_errno(s->db, sqlite3_extended_errcode(s->db));
}

static int run_all(struct sqlite_catalog *s, struct redo *redo, uint32_t length)
{
	const char *at = redo->log, *end = redo->log + length;
	int r = 0;

	while (r == 0 && at < end)
		r = run(s, &at);
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

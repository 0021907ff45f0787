/* The three rules, over all that can be asked. First what must hold whatever the rule says in detail (DESIGN.md,
 * sections 2, 3 and 5), then the tables above the rules, row by row and written down a second time. */
#include "core/borrow_rule.h"
#include "core/draft_rule.h"
#include "core/limit_rule.h"
#include "core/open_rule.h"
#include "meta/meta.h"
#include "tests/unit/unit.h"

/* ---- Drafts ---- */

#define DRAFT_QUESTIONS (1 << 9)

static struct draft_question draft_question(unsigned i)
{
	return (struct draft_question){
		.gone = i & 1, .replaces = i & 2, .declared = i & 4, .has_data = i & 8, .unchanged = i & 16,
		.error = (i & 32) != 0 ? ENOSPC : 0, .killed = i & 64, .fsynced = i & 128, .death_waits = i & 256,
	};
}

static const char *draft_text(const struct draft_question *q)
{
	static char s[256];

	snprintf(s, sizeof(s), "gone=%d replaces=%d declared=%d has_data=%d unchanged=%d error=%d killed=%d fsynced=%d waits=%d",
		 q->gone, q->replaces, q->declared, q->has_data, q->unchanged, q->error, q->killed, q->fsynced, q->death_waits);
	return s;
}

#define DRAFT_HOLDS(cond)                                                              \
	do {                                                                           \
		if (!(cond))                                                           \
			fail_msg("%s: %s gives %d", #cond, draft_text(&q), (int)v);    \
	} while (0)

#define EACH_DRAFT(q, v)                                                                      \
	for (unsigned draft_i = 0; draft_i < DRAFT_QUESTIONS; draft_i++)                      \
		for (struct draft_question q = draft_question(draft_i), *once = &q; once != NULL; once = NULL) \
			for (enum draft_verdict v = draft_rule(&q); once != NULL; once = NULL)

static void test_draft_published_whole(void **state)
{
	EACH_DRAFT(q, v) {
		if (v != DRAFT_PUBLISH)
			continue;
		DRAFT_HOLDS(!q.gone);
		DRAFT_HOLDS(q.error == 0);
		DRAFT_HOLDS(q.has_data);
		DRAFT_HOLDS(!q.killed || q.fsynced);                        /* 2.6 */
		DRAFT_HOLDS(!(q.killed && q.declared && !q.replaces));      /* a future is never published half done */
		DRAFT_HOLDS(!(q.replaces && q.unchanged));
	}
}

/* 2.1: what was written, and closed by a living process, is published. 2.6: an exit of any kind is a close. */
static void test_draft_closed_is_published(void **state)
{
	EACH_DRAFT(q, v) {
		if (!q.gone && q.error == 0 && q.has_data && !q.killed && !(q.unchanged && q.replaces))
			DRAFT_HOLDS(v == DRAFT_PUBLISH);
		if (!q.gone && q.error == 0 && q.has_data && q.fsynced && (q.replaces || !q.declared) &&
		    !(q.unchanged && q.replaces))
			DRAFT_HOLDS(v == DRAFT_PUBLISH);
	}
}

static void test_draft_old_version_stays(void **state)
{
	EACH_DRAFT(q, v) {
		if (q.replaces)
			DRAFT_HOLDS(v == DRAFT_PUBLISH || v == DRAFT_DROP);
		if (q.gone)
			DRAFT_HOLDS(v == DRAFT_DROP);
		if (!q.replaces && !q.gone)
			DRAFT_HOLDS(v != DRAFT_DROP); /* a new object always gets to be something else */
	}
}

static void test_draft_futures(void **state)
{
	EACH_DRAFT(q, v) {
		if (v == DRAFT_FAIL || v == DRAFT_PEND)
			DRAFT_HOLDS(q.declared && !q.replaces && !q.gone);
		if (v == DRAFT_REMOVE)
			DRAFT_HOLDS(!q.declared && !q.replaces && !q.gone);
		if (v == DRAFT_PEND)
			DRAFT_HOLDS(q.error == 0 && (!q.has_data || (q.killed && q.death_waits)));
		if (v == DRAFT_FAIL)
			DRAFT_HOLDS(q.error != 0 || (q.killed && !q.death_waits));
		if (q.declared && !q.replaces && !q.gone && q.killed && q.has_data && q.error == 0)
			DRAFT_HOLDS(v == (q.death_waits ? DRAFT_PEND : DRAFT_FAIL));
	}
}

static void test_draft_kept_bytes(void **state)
{
	EACH_DRAFT(q, v) {
		bool torn = q.killed && q.has_data && q.error == 0 && !q.gone;

		if (draft_keeps_bytes(&q)) {
			DRAFT_HOLDS(torn);
			DRAFT_HOLDS(v != DRAFT_PUBLISH);
		}
		if (torn && v != DRAFT_PUBLISH && !q.unchanged)
			DRAFT_HOLDS(draft_keeps_bytes(&q));
	}
}

/* on-producer-death=wait is about killed producers of futures and nothing else. */
static void test_draft_death_waits(void **state)
{
	EACH_DRAFT(q, v) {
		struct draft_question other = q;

		other.death_waits = !q.death_waits;
		if (draft_rule(&other) != v)
			DRAFT_HOLDS(q.killed && q.declared && !q.replaces);
		DRAFT_HOLDS(draft_keeps_bytes(&other) == draft_keeps_bytes(&q));
	}
}

enum { REPLACEMENT, NEW_FUTURE, NEW_PLAIN };

struct draft_row {
	bool (*when)(const struct draft_question *q);
	enum draft_verdict v[3];
	bool keep[3];
};

static bool row_gone(const struct draft_question *q) { return q->gone; }
static bool row_error(const struct draft_question *q) { return q->error != 0; }
static bool row_nothing(const struct draft_question *q) { return !q->has_data; }
static bool row_killed(const struct draft_question *q) { return q->killed && !q->fsynced; }
static bool row_killed_synced(const struct draft_question *q) { return q->killed; }
static bool row_unchanged(const struct draft_question *q) { return q->unchanged; }
static bool row_closed(const struct draft_question *q) { return true; }

/* FAIL stands for "fail or pend". */
static const struct draft_row draft_rows[] = {
	{ row_gone, { DRAFT_DROP, DRAFT_DROP, DRAFT_DROP }, { 0 } },
	{ row_error, { DRAFT_DROP, DRAFT_FAIL, DRAFT_REMOVE }, { 0 } },
	{ row_nothing, { DRAFT_DROP, DRAFT_PEND, DRAFT_REMOVE }, { 0 } },
	{ row_killed, { DRAFT_DROP, DRAFT_FAIL, DRAFT_REMOVE }, { true, true, true } },
	{ row_killed_synced, { DRAFT_PUBLISH, DRAFT_FAIL, DRAFT_PUBLISH }, { false, true, false } },
	{ row_unchanged, { DRAFT_DROP, DRAFT_PUBLISH, DRAFT_PUBLISH }, { 0 } },
	{ row_closed, { DRAFT_PUBLISH, DRAFT_PUBLISH, DRAFT_PUBLISH }, { 0 } },
};

static enum draft_verdict expected_draft(const struct draft_question *q, bool *keep)
{
	unsigned column = q->replaces ? REPLACEMENT : q->declared ? NEW_FUTURE : NEW_PLAIN, i = 0;
	enum draft_verdict v;

	while (!draft_rows[i].when(q))
		i++;
	v = draft_rows[i].v[column];
	*keep = draft_rows[i].keep[column];
	return v == DRAFT_FAIL && q->error == 0 && q->death_waits ? DRAFT_PEND : v;
}

/* A killed writer that changed nothing has no row of its own; test_draft_published_whole covers it. */
static void test_draft_table(void **state)
{
	unsigned checked = 0;

	EACH_DRAFT(q, v) {
		bool keep;
		enum draft_verdict expected = expected_draft(&q, &keep);

		if (q.unchanged && (q.killed || !q.replaces))
			continue;
		checked++;
		DRAFT_HOLDS(v == expected);
		DRAFT_HOLDS(draft_keeps_bytes(&q) == keep);
	}
	assert_true(checked >= 256);
}

/* ---- Opening ---- */

static const enum object_state states[] = { OBJECT_PENDING, OBJECT_WRITING, OBJECT_READY, OBJECT_FAILED };

#define OPEN_QUESTIONS (4 * 3 * 3 * (1 << 8))

static struct open_question open_question(unsigned i)
{
	struct open_question q = {
		.gone = i & 1, .live = i & 2, .write = i & 4, .drafting = i & 8, .sealed = i & 16,
		.patient = i & 32, .is_draft = i & 64, .aborted = i & 128,
	};

	i >>= 8;
	q.state = states[i % 4];
	q.standing = (enum standing)(i / 4 % 3);
	q.holds = (enum holds)(i / 12);
	return q;
}

/* Can it be asked at all? What core knows of an object hangs together. */
static bool makes_sense(const struct open_question *q)
{
	if (q->standing == NODE_DRAFT && !q->is_draft)
		return false;
	if (q->standing == NODE_OUTDATED && q->is_draft)
		return false;
	if (q->state == OBJECT_PENDING && (q->drafting || q->sealed || q->is_draft))
		return false;
	if (q->state == OBJECT_READY && q->is_draft && q->standing == NODE_CURRENT)
		return false;
	if (q->aborted && (q->is_draft || (!q->gone && q->standing != NODE_OUTDATED)))
		return false;
	if (q->live && (q->state != OBJECT_READY || q->drafting || q->sealed || q->is_draft))
		return false;
	if (q->state != OBJECT_READY && q->standing == NODE_DRAFT)
		return false;
	return true;
}

static const char *open_text(const struct open_question *q)
{
	static char s[256];

	snprintf(s, sizeof(s), "state=%d standing=%d gone=%d live=%d write=%d drafting=%d sealed=%d patient=%d is_draft=%d "
		 "aborted=%d holds=%d",
		 (int)q->state, (int)q->standing, q->gone, q->live, q->write, q->drafting, q->sealed, q->patient,
		 q->is_draft, q->aborted, (int)q->holds);
	return s;
}

#define OPEN_HOLDS(cond)                                                              \
	do {                                                                          \
		if (!(cond))                                                          \
			fail_msg("%s: %s gives %d", #cond, open_text(&q), (int)v);    \
	} while (0)

#define EACH_OPEN(q, v)                                                                     \
	for (unsigned open_i = 0; open_i < OPEN_QUESTIONS; open_i++)                        \
		for (struct open_question q = open_question(open_i), *once = &q; once != NULL; once = NULL) \
			for (enum open_verdict v = open_rule(&q); once != NULL; once = NULL)

static void test_open_draft_is_private(void **state)
{
	EACH_OPEN(q, v) {
		if (q.write)
			continue;
		if (v == OPEN_DRAFT || v == OPEN_LOOK_UP_DRAFT)
			OPEN_HOLDS(q.holds == HOLDS_YES && q.drafting); /* 2.2, 2.5 */
		OPEN_HOLDS(v != OPEN_IN_PLACE);
	}
}

/* 2.5: nobody deadlocks on himself. */
static void test_open_own_draft(void **state)
{
	EACH_OPEN(q, v) {
		if (q.write || q.holds != HOLDS_YES || !q.drafting || q.live)
			continue;
		if (q.state == OBJECT_WRITING && makes_sense(&q))
			OPEN_HOLDS(v != OPEN_WAIT);
		if (q.state == OBJECT_WRITING && makes_sense(&q) && (!q.gone || q.is_draft))
			OPEN_HOLDS(v == OPEN_DRAFT);
	}
}

static void test_open_gone(void **state)
{
	EACH_OPEN(q, v) {
		if (!q.gone)
			continue;
		OPEN_HOLDS(v != OPEN_WAIT && v != OPEN_WAIT_CLOSE);
		OPEN_HOLDS(v != OPEN_IN_PLACE && v != OPEN_LOOK_UP_DRAFT && v != OPEN_FAILED);
		if (q.write && v == OPEN_DRAFT)
			OPEN_HOLDS(q.is_draft); /* only who has the draft goes on with it */
	}
}

static void test_open_this(void **state)
{
	EACH_OPEN(q, v) {
		if (v == OPEN_THIS) {
			OPEN_HOLDS(!q.write);
			OPEN_HOLDS(q.state == OBJECT_READY || q.gone);
			OPEN_HOLDS(q.gone || q.standing != NODE_OUTDATED);
			OPEN_HOLDS(q.gone || q.live || q.standing == NODE_CURRENT);
			OPEN_HOLDS(!q.gone || (!q.is_draft && !q.aborted)); /* 2.6: nobody ever sees torn bytes */
		}
		if (v == OPEN_IN_PLACE)
			OPEN_HOLDS(q.write && q.live && q.state == OBJECT_READY);
	}
}

/* 2.3: a replacement holds no reader up, but for the moment of its close. */
static void test_open_reader_of_ready(void **state)
{
	EACH_OPEN(q, v) {
		if (q.write || q.state != OBJECT_READY)
			continue;
		OPEN_HOLDS(v != OPEN_WAIT);
		OPEN_HOLDS(v != OPEN_FAILED);
		if (v == OPEN_WAIT_CLOSE)
			OPEN_HOLDS(q.sealed && q.patient && !q.live);
		if (!q.gone && q.standing == NODE_CURRENT && q.holds == HOLDS_NO && !(q.sealed && q.patient))
			OPEN_HOLDS(v == OPEN_THIS);
	}
}

static void test_open_waiting(void **state)
{
	EACH_OPEN(q, v) {
		if (v == OPEN_WAIT) {
			OPEN_HOLDS(!q.write); /* writers never wait for a future to settle */
			OPEN_HOLDS(q.state == OBJECT_PENDING || q.state == OBJECT_WRITING);
		}
		if (v == OPEN_WAIT_CLOSE)
			OPEN_HOLDS(q.sealed && q.patient);
		if (v == OPEN_FAILED)
			OPEN_HOLDS(q.state == OBJECT_FAILED && !q.write);
		if (!q.write && !q.gone && q.state == OBJECT_FAILED && q.holds == HOLDS_NO)
			OPEN_HOLDS(v == OPEN_FAILED);
	}
}

/* Who asks "does he hold it?" and has the answer must get on. */
static void test_open_asks_once(void **state)
{
	EACH_OPEN(q, v) {
		if (v == OPEN_ASK_HOLDS)
			OPEN_HOLDS(q.holds == HOLDS_UNKNOWN && q.drafting && !q.write);
		if (q.holds == HOLDS_UNKNOWN) {
			struct open_question yes = q, no = q;

			yes.holds = HOLDS_YES;
			no.holds = HOLDS_NO;
			if (v != OPEN_ASK_HOLDS) /* then the answer does not matter */
				OPEN_HOLDS(open_rule(&yes) == v && open_rule(&no) == v);
		}
	}
}

/* A writer of anything that is there gets somewhere: no verdict that means failure. */
static void test_open_writers(void **state)
{
	EACH_OPEN(q, v) {
		if (!q.write)
			continue;
		OPEN_HOLDS(v == OPEN_DRAFT || v == OPEN_IN_PLACE || v == OPEN_WAIT_CLOSE || v == OPEN_LOOK_UP ||
			   v == OPEN_LOOK_UP_DRAFT);
		if (q.state == OBJECT_READY && q.standing == NODE_CURRENT && !q.gone)
			OPEN_HOLDS(v != OPEN_DRAFT); /* readers have that node */
		if (q.live && q.state == OBJECT_READY)
			OPEN_HOLDS(v != OPEN_DRAFT || q.gone);
	}
}

#define ANY -1
enum { ROW_GONE_DRAFT, ROW_GONE_ABORTED, ROW_GONE, ROW_LIVE, ROW_NORMAL };

struct open_row {
	int kind, state, standing;
	enum open_verdict own, reading, sealed_reading, writing, sealed_writing;
};

/* The table of open_rule.c. "own": a reader who is one of the draft's writers. */
static const struct open_row open_rows[] = {
	{ ROW_GONE_DRAFT, ANY, ANY, OPEN_DRAFT, OPEN_LOOK_UP, OPEN_LOOK_UP, OPEN_DRAFT, OPEN_DRAFT },
	{ ROW_GONE_ABORTED, ANY, ANY, OPEN_LOOK_UP, OPEN_LOOK_UP, OPEN_LOOK_UP, OPEN_LOOK_UP, OPEN_LOOK_UP },
	{ ROW_GONE, ANY, ANY, OPEN_THIS, OPEN_THIS, OPEN_THIS, OPEN_LOOK_UP, OPEN_LOOK_UP },
	{ ROW_LIVE, OBJECT_READY, NODE_CURRENT, OPEN_THIS, OPEN_THIS, OPEN_THIS, OPEN_IN_PLACE, OPEN_IN_PLACE },
	{ ROW_LIVE, OBJECT_READY, NODE_OUTDATED, OPEN_LOOK_UP, OPEN_LOOK_UP, OPEN_LOOK_UP, OPEN_LOOK_UP, OPEN_LOOK_UP },
	{ ROW_NORMAL, OBJECT_PENDING, NODE_CURRENT, OPEN_WAIT, OPEN_WAIT, OPEN_WAIT, OPEN_DRAFT, OPEN_DRAFT },
	{ ROW_NORMAL, OBJECT_WRITING, NODE_CURRENT, OPEN_DRAFT, OPEN_WAIT, OPEN_WAIT, OPEN_DRAFT, OPEN_WAIT_CLOSE },
	{ ROW_NORMAL, OBJECT_FAILED, NODE_CURRENT, OPEN_DRAFT, OPEN_FAILED, OPEN_FAILED, OPEN_DRAFT, OPEN_WAIT_CLOSE },
	{ ROW_NORMAL, OBJECT_READY, NODE_CURRENT, OPEN_LOOK_UP_DRAFT, OPEN_THIS, OPEN_WAIT_CLOSE, OPEN_LOOK_UP_DRAFT,
	  OPEN_WAIT_CLOSE },
	{ ROW_NORMAL, OBJECT_READY, NODE_DRAFT, OPEN_DRAFT, OPEN_LOOK_UP, OPEN_WAIT_CLOSE, OPEN_DRAFT, OPEN_WAIT_CLOSE },
	{ ROW_NORMAL, OBJECT_READY, NODE_OUTDATED, OPEN_LOOK_UP, OPEN_LOOK_UP, OPEN_LOOK_UP, OPEN_LOOK_UP_DRAFT,
	  OPEN_WAIT_CLOSE },
};

static const struct open_row *open_row(const struct open_question *q)
{
	int kind = !q->gone ? (q->live ? ROW_LIVE : ROW_NORMAL) :
		   q->aborted ? ROW_GONE_ABORTED : q->is_draft ? ROW_GONE_DRAFT : ROW_GONE;

	for (size_t i = 0; i < COUNT(open_rows); i++)
		if (open_rows[i].kind == kind && (open_rows[i].state == ANY || open_rows[i].state == (int)q->state) &&
		    (open_rows[i].standing == ANY || open_rows[i].standing == (int)q->standing))
			return &open_rows[i];
	return NULL;
}

static enum open_verdict expected_open(const struct open_question *q, const struct open_row *row)
{
	bool closing = q->sealed && q->patient;

	if (q->write)
		return closing ? row->sealed_writing : row->writing;
	if (closing && row->sealed_reading == OPEN_WAIT_CLOSE)
		return OPEN_WAIT_CLOSE;
	if (!q->drafting || row->own == row->reading || q->holds == HOLDS_NO)
		return row->reading;
	return q->holds == HOLDS_YES ? row->own : OPEN_ASK_HOLDS;
}

/* Outdated nodes of what is not READY are "other, outdated" in the table: look up. The rule lets readers of those ask
 * the object instead (a waiter's node has moved on), so they are left to the tests above. */
static void test_open_table(void **state)
{
	unsigned checked = 0;

	EACH_OPEN(q, v) {
		const struct open_row *row = open_row(&q);

		if (!makes_sense(&q))
			continue;
		if (row == NULL) {
			assert_true(q.standing == NODE_OUTDATED && q.state != OBJECT_READY);
			if (q.write)
				OPEN_HOLDS(v == OPEN_LOOK_UP);
			continue;
		}
		checked++;
		OPEN_HOLDS(v == expected_open(&q, row));
	}
	assert_true(checked > 400);
}

/* ---- Borrows ---- */

static const int64_t borrow_counts[] = { BORROWED_MUT, 0, 1, 2, 1000000 };
static const enum via vias[] = { VIA_OWNER, VIA_REF, VIA_MUT, VIA_ONCE };
static const enum act acts[] = { ACT_READ, ACT_WRITE, ACT_EVICT, ACT_BORROW_REF, ACT_BORROW_MUT };

/* Many may read or one may write, and never both. */
static void test_borrow_exclusive(void **state)
{
	for (unsigned i = 0; i < COUNT(borrow_counts); i++) {
		int64_t n = borrow_counts[i];
		bool writers = borrow_rule(n, VIA_OWNER, ACT_WRITE) == 0 || borrow_rule(n, VIA_MUT, ACT_WRITE) == 0;
		bool readers = borrow_rule(n, VIA_REF, ACT_READ) == 0;

		assert_false(readers && writers);
		assert_false(borrow_rule(n, VIA_OWNER, ACT_READ) == 0 && borrow_rule(n, VIA_MUT, ACT_WRITE) == 0);
		assert_false(readers && borrow_rule(n, VIA_OWNER, ACT_EVICT) == 0);
		assert_false(readers && borrow_rule(n, VIA_OWNER, ACT_BORROW_MUT) == 0);
		assert_true(n == 0 || borrow_rule(n, VIA_ONCE, ACT_READ) == -EBUSY);
		assert_true(borrow_rule(n, VIA_REF, ACT_WRITE) == -EACCES);
	}
}

/* Only an owner is borrowed, and only an owner evicts. */
static void test_borrow_owners(void **state)
{
	for (unsigned i = 0; i < COUNT(borrow_counts); i++)
		for (unsigned a = 0; a < COUNT(acts); a++)
			if (acts[a] != ACT_READ && acts[a] != ACT_WRITE) {
				assert_int_equal(borrow_rule(borrow_counts[i], VIA_REF, acts[a]), -EPERM);
				assert_int_equal(borrow_rule(borrow_counts[i], VIA_MUT, acts[a]), -EPERM);
			}
}

#define ALL(r) { r, r, r }

static const struct borrow_row {
	enum via via;
	enum act act;
	int expected[3]; /* not borrowed, by refs, by one mut */
} borrow_rows[] = {
	{ VIA_OWNER, ACT_READ, { 0, 0, -EBUSY } },
	{ VIA_OWNER, ACT_WRITE, { 0, -EBUSY, -EBUSY } },
	{ VIA_OWNER, ACT_EVICT, { 0, -EBUSY, -EBUSY } },
	{ VIA_OWNER, ACT_BORROW_REF, { 0, 0, -EBUSY } },
	{ VIA_OWNER, ACT_BORROW_MUT, { 0, -EBUSY, -EBUSY } },
	{ VIA_ONCE, ACT_READ, { 0, -EBUSY, -EBUSY } },
	{ VIA_ONCE, ACT_EVICT, { 0, -EBUSY, -EBUSY } },
	{ VIA_REF, ACT_READ, { -ESTALE, 0, -ESTALE } },
	{ VIA_REF, ACT_WRITE, ALL(-EACCES) },
	{ VIA_REF, ACT_EVICT, ALL(-EPERM) },
	{ VIA_REF, ACT_BORROW_REF, ALL(-EPERM) },
	{ VIA_REF, ACT_BORROW_MUT, ALL(-EPERM) },
	{ VIA_MUT, ACT_READ, { -ESTALE, -ESTALE, 0 } },
	{ VIA_MUT, ACT_WRITE, { -ESTALE, -ESTALE, 0 } },
	{ VIA_MUT, ACT_EVICT, ALL(-EPERM) },
	{ VIA_MUT, ACT_BORROW_REF, ALL(-EPERM) },
	{ VIA_MUT, ACT_BORROW_MUT, ALL(-EPERM) },
};

static void test_borrow_table(void **state)
{
	static const int64_t columns[] = { 0, 1, BORROWED_MUT };

	for (unsigned i = 0; i < COUNT(borrow_rows); i++)
		for (unsigned c = 0; c < COUNT(columns); c++) {
			const struct borrow_row *row = &borrow_rows[i];

			assert_int_equal(borrow_rule(columns[c], row->via, row->act), row->expected[c]);
			if (columns[c] > 0)
				assert_int_equal(borrow_rule(77, row->via, row->act), row->expected[c]);
		}
	for (unsigned v = 0; v < COUNT(vias); v++)
		assert_true(borrow_rule(0, vias[v], ACT_READ) == 0 || vias[v] == VIA_REF || vias[v] == VIA_MUT);
}

/* Limits */

static void test_limits(void **state)
{
	static const int errors[LIMITED_COUNT] = { EMFILE, EMFILE, EAGAIN, EMFILE, EMFILE, EDQUOT, EDQUOT };

	for (int i = 0; i < LIMITED_COUNT; i++) {
		assert_int_equal(limits[i].error, errors[i]);
		assert_non_null(limits[i].option);
		assert_int_equal(limit_rule((enum limited)i, 3, 0), 0);
		assert_int_equal(limit_rule((enum limited)i, 3, 2), 0);
		assert_int_equal(limit_rule((enum limited)i, 3, 3), -errors[i]);
		assert_int_equal(limit_rule((enum limited)i, 3, 4), -errors[i]);
		assert_int_equal(limit_rule((enum limited)i, 0, UINT64_MAX), 0);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_draft_published_whole),
		cmocka_unit_test(test_draft_closed_is_published),
		cmocka_unit_test(test_draft_old_version_stays),
		cmocka_unit_test(test_draft_futures),
		cmocka_unit_test(test_draft_kept_bytes),
		cmocka_unit_test(test_draft_death_waits),
		cmocka_unit_test(test_draft_table),
		cmocka_unit_test(test_open_draft_is_private),
		cmocka_unit_test(test_open_own_draft),
		cmocka_unit_test(test_open_gone),
		cmocka_unit_test(test_open_this),
		cmocka_unit_test(test_open_reader_of_ready),
		cmocka_unit_test(test_open_waiting),
		cmocka_unit_test(test_open_asks_once),
		cmocka_unit_test(test_open_writers),
		cmocka_unit_test(test_open_table),
		cmocka_unit_test(test_borrow_exclusive),
		cmocka_unit_test(test_borrow_owners),
		cmocka_unit_test(test_borrow_table),
		cmocka_unit_test(test_limits),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "core/fsck_tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PASSES 8

void *table_more(void **at, size_t *n, size_t *capacity, size_t size)
{
	if (*n == *capacity) {
		size_t more = *capacity == 0 ? 256 : *capacity * 2;
		void *p = realloc(*at, more * size);

		if (p == NULL)
			return NULL;
		*at = p;
		*capacity = more;
	}
	return memset((char *)*at + (*n)++ * size, 0, size);
}

bool fsck_stopped(struct fsck *c)
{
	return c->o->stop != NULL && c->o->stop(c->o->arg);
}

void fsck_progress(struct fsck *c, const char *what, uint64_t done, uint64_t total)
{
	if (c->o->progress != NULL)
		c->o->progress(c->o->arg, what, done, total);
}

int fsck_find(struct fsck *c, const struct finding *f)
{
	struct finding *more = ADD(c->findings);

	if (more == NULL)
		return -ENOMEM;
	*more = *f;
	return 0;
}

/* Gathering */

static int add_file(void *arg, const struct blob_file *f)
{
	struct fsck *c = arg;
	struct file *more = fsck_stopped(c) ? NULL : ADD(c->files);

	if (more == NULL)
		return fsck_stopped(c) ? -ECANCELED : -ENOMEM;
	*more = (struct file){ .vid = f->vid, .size = f->st->st_size, .draft = f->draft };
	if (f->vid == 0)
		more->name = strdup(f->name);
	fsck_progress(c, "data files", c->files.n, 0);
	return 0;
}

static int add_number(struct fsck *c, uint64_t vid, uint64_t object, int why)
{
	struct number *more = ADD(c->numbers);

	if (more == NULL)
		return -ENOMEM;
	*more = (struct number){ .vid = vid, .object = object, .why = why };
	return 0;
}

static int add_object(void *arg, const struct meta_object *o)
{
	struct fsck *c = arg;
	struct item *i = ADD(c->items);

	if (i == NULL || fsck_stopped(c))
		return i == NULL ? -ENOMEM : -ECANCELED;
	*i = (struct item){ .id = o->id, .vid = o->vid, .version = o->version, .size = o->size, .mode = o->mode,
			    .nlink = o->nlink, .state = (uint8_t)o->state, .live = o->live, .declared = o->declared,
			    .borrows = o->borrows, .queued = o->queued, .error = o->error };
	fsck_progress(c, "objects", c->items.n, 0);
	return o->state == OBJECT_READY && S_ISREG(o->mode) ? add_number(c, o->vid, o->id, NUMBER_CURRENT) : 0;
}

static bool name_is_bad(const struct meta_dentry *d)
{
	return d->name_len == 0 || memchr(d->name, '/', d->name_len) != NULL || strlen(d->name) != d->name_len ||
	       strcmp(d->name, ".") == 0 || strcmp(d->name, "..") == 0;
}

static int add_name(void *arg, const struct meta_dentry *d)
{
	struct fsck *c = arg;
	struct edge *more = ADD(c->names);

	if (more == NULL)
		return -ENOMEM;
	*more = (struct edge){ .parent = d->parent, .cookie = d->cookie, .object = d->object, .bad = name_is_bad(d) };
	return 0;
}

static int add_member(void *arg, const struct meta_dentry *d)
{
	struct fsck *c = arg;
	struct edge *more = ADD(c->members);

	if (more == NULL)
		return -ENOMEM;
	*more = (struct edge){ .parent = d->parent, .cookie = d->cookie, .object = d->object };
	return 0;
}

static int add_borrow(void *arg, const struct meta_borrow *b)
{
	struct fsck *c = arg;
	struct meta_borrow *more = ADD(c->borrows);

	if (more == NULL)
		return -ENOMEM;
	*more = *b;
	return 0;
}

static int add_draft(void *arg, const struct meta_draft *d)
{
	return add_number(arg, d->vid, d->object, NUMBER_DRAFT);
}

static int add_torn(void *arg, const struct meta_aborted *a)
{
	return add_number(arg, a->draft, a->object, NUMBER_TORN);
}

static int add_garbage(void *arg, uint64_t vid)
{
	return add_number(arg, vid, 0, NUMBER_GARBAGE);
}

struct rows {
	struct fsck *c;
	enum meta_table table;
};

/* What an object has rows of; those of no object are remembered. */
static int mark_row(void *arg, uint64_t id)
{
	struct rows *rows = arg;
	struct item *i = fsck_item(rows->c, id);
	struct number *orphan;

	if (i == NULL) {
		orphan = ADD(rows->c->orphans);
		if (orphan == NULL)
			return -ENOMEM;
		*orphan = (struct number){ .vid = rows->table, .object = id };
		return 0;
	}
	i->ending |= rows->table == META_ENDINGS;
	i->taken |= rows->table == META_TAKEN;
	i->torn |= rows->table == META_TORN;
	i->drafted |= rows->table == META_DRAFTS;
	return 0;
}

static int mark_rows(struct fsck *c)
{
	int r = 0;

	for (struct rows rows = { c, 0 }; r == 0 && rows.table < META_TABLES; rows.table++)
		r = c->m->ops->rows_scan(c->m, rows.table, mark_row, &rows);
	return r;
}

static int by_vid(const void *a, const void *b)
{
	const struct number *x = a, *y = b;

	return x->vid != y->vid ? (x->vid > y->vid) - (x->vid < y->vid) : (int)x->why - (int)y->why;
}

static int file_by_vid(const void *a, const void *b)
{
	const struct file *x = a, *y = b;

	return x->vid != y->vid ? (x->vid > y->vid) - (x->vid < y->vid) : (int)x->draft - (int)y->draft;
}

static int item_by_id(const void *key, const void *item)
{
	uint64_t id = *(const uint64_t *)key, other = ((const struct item *)item)->id;

	return (id > other) - (id < other);
}

struct item *fsck_item(struct fsck *c, uint64_t id)
{
	return c->items.n == 0 ? NULL : bsearch(&id, c->items.at, c->items.n, sizeof(struct item), item_by_id);
}

/* The first place in a sorted table whose vid is not less. */
#define FIRST(table, wanted)                                     \
	({                                                       \
		size_t low = 0, high = (table).n;                \
		while (low < high) {                             \
			size_t middle = (low + high) / 2;        \
			if ((table).at[middle].vid < (wanted))   \
				low = middle + 1;                \
			else                                     \
				high = middle;                   \
		}                                                \
		low;                                             \
	})

const struct file *fsck_file(struct fsck *c, uint64_t vid)
{
	size_t at = FIRST(c->files, vid);

	return at < c->files.n && c->files.at[at].vid == vid ? &c->files.at[at] : NULL;
}

bool fsck_knows(struct fsck *c, uint64_t vid, bool draft)
{
	for (size_t at = FIRST(c->numbers, vid); at < c->numbers.n && c->numbers.at[at].vid == vid; at++)
		return true;
	return false;
}

int fsck_gather(struct fsck *c)
{
	const struct meta_ops *ops = c->m->ops;
	int r = c->b->ops->list(c->b, add_file, c);

	ops->begin(c->m);
	if (r == 0)
		r = ops->object_scan(c->m, add_object, c);
	if (r == 0)
		r = ops->dentry_scan(c->m, false, add_name, c);
	if (r == 0)
		r = ops->dentry_scan(c->m, true, add_member, c);
	if (r == 0)
		r = ops->borrow_scan(c->m, add_borrow, c);
	if (r == 0)
		r = ops->draft_list(c->m, add_draft, c);
	if (r == 0)
		r = ops->aborted_list(c->m, add_torn, c);
	if (r == 0)
		r = ops->garbage_list(c->m, add_garbage, c);
	if (r == 0)
		r = mark_rows(c);
	if (c->files.n > 0)
		qsort(c->files.at, c->files.n, sizeof(struct file), file_by_vid);
	if (c->numbers.n > 0)
		qsort(c->numbers.at, c->numbers.n, sizeof(struct number), by_vid);
	return r;
}

static void forget_findings(struct fsck *c)
{
	for (size_t i = 0; i < c->findings.n; i++)
		free(c->findings.at[i].name);
	c->findings.n = 0;
}

void fsck_forget(struct fsck *c)
{
	for (size_t i = 0; i < c->files.n; i++)
		free(c->files.at[i].name);
	c->items.n = c->names.n = c->members.n = c->borrows.n = c->files.n = c->numbers.n = c->orphans.n = 0;
}

static void finish(struct fsck *c)
{
	fsck_forget(c);
	forget_findings(c);
	free(c->items.at);
	free(c->names.at);
	free(c->members.at);
	free(c->borrows.at);
	free(c->files.at);
	free(c->numbers.at);
	free(c->orphans.at);
	free(c->findings.at);
}

/* Passes */

/* Leaves the moment of the catalog open: begin was called. */
static int look(struct fsck *c)
{
	int r;

	fsck_forget(c);
	forget_findings(c);
	r = fsck_gather(c);
	return r == 0 ? fsck_compare(c) : r;
}

static bool same(const struct finding *a, const struct finding *b)
{
	return a->kind == b->kind && a->object == b->object && a->vid == b->vid && a->other == b->other &&
	       a->cookie == b->cookie && (a->name == NULL) == (b->name == NULL) &&
	       (a->name == NULL || strcmp(a->name, b->name) == 0);
}

static bool is_among(const struct finding *f, const struct finding *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (same(f, &list[i]))
			return true;
	return false;
}

static int tell_all(struct fsck *c)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < c->findings.n; i++) {
		bool harmless = fsck_is_harmless(c->findings.at[i].kind);

		r = fsck_tell(c, &c->findings.at[i]);
		c->result->harmless += harmless;
		c->result->found += !harmless;
	}
	return r;
}

static bool is_clean(struct fsck *c)
{
	for (size_t i = 0; i < c->findings.n; i++)
		if (!fsck_is_harmless(c->findings.at[i].kind))
			return false;
	return true;
}

/* Only what is there again after a while is told. */
static int look_twice(struct fsck *c)
{
	struct finding *first;
	size_t n, kept = 0;
	int r = look(c);

	if (r < 0 || is_clean(c))
		return r;
	c->m->ops->end(c->m, META_ABANDON, NULL);
	n = c->findings.n;
	first = c->findings.at;
	memset(&c->findings, 0, sizeof(c->findings));
	c->o->pause(c->o->arg);
	r = look(c);
	for (size_t i = 0; r == 0 && i < c->findings.n; i++) {
		struct finding f = c->findings.at[i];

		if (is_among(&f, first, n))
			c->findings.at[kept++] = f;
		else
			free(f.name);
	}
	if (r == 0)
		c->findings.n = kept;
	for (size_t i = 0; i < n; i++)
		free(first[i].name);
	free(first);
	return r;
}

/* In the catalog all at once, then the files: if it is stopped in between, a file too many is left, which is found. */
static int repair_all(struct fsck *c)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < c->findings.n; i++)
		r = fsck_repair(c, &c->findings.at[i]);
	if (r == 0 && c->o->noted != NULL)
		r = c->o->noted(c->o->arg);
	if (r < 0) {
		c->m->ops->end(c->m, META_ABANDON, NULL);
		return r;
	}
	r = end_and_wait(c->m, META_DURABLE);
	for (size_t i = 0; r == 0 && i < c->findings.n; i++)
		r = fsck_repair_files(c, &c->findings.at[i]);
	return r;
}

/* Before anything is looked at: opening the catalog has taken numbers, so what is wrong with them may not show. */
static int mend_numbers(struct fsck *c)
{
	int r;

	c->m->ops->begin(c->m);
	r = c->m->ops->numbers_mend(c->m);
	if (r == 0)
		return end_and_wait(c->m, META_DURABLE);
	c->m->ops->end(c->m, META_ABANDON, NULL);
	return r;
}

/* What one repair brings to light the next pass finds. */
static int repair(struct fsck *c)
{
	bool clean = false;
	int r = mend_numbers(c);

	for (int pass = 0; r == 0 && !clean && pass < PASSES; pass++) {
		c->hash = c->o->checksums && pass == 0;
		r = look(c);
		clean = r == 0 && is_clean(c);
		c->result->objects = c->items.n;
		c->result->files = c->files.n;
		if (r < 0 || clean || pass == PASSES - 1) {
			c->m->ops->end(c->m, META_READ, NULL);
			break;
		}
		c->result->harmless = 0;
		r = tell_all(c);
		if (r == 0)
			r = repair_all(c);
		else
			c->m->ops->end(c->m, META_READ, NULL);
	}
	c->result->left = 0;
	for (size_t i = 0; r == 0 && i < c->findings.n; i++)
		c->result->left += !fsck_is_harmless(c->findings.at[i].kind);
	return r;
}

int store_fsck(struct meta *m, struct blobs *b, const struct fsck_options *o, struct fsck_result *result)
{
	struct fsck c = { .m = m, .b = b, .o = o, .result = result, .hash = o->checksums };
	uint64_t before = result->found;
	int r;

	if (o->repair) {
		r = repair(&c);
		finish(&c);
		return r;
	}
	r = o->online ? look_twice(&c) : look(&c);
	result->objects = c.items.n;
	result->files = c.files.n;
	if (r == 0)
		r = tell_all(&c);
	result->left += result->found - before;
	m->ops->end(m, META_ABANDON, NULL);
	finish(&c);
	return r;
}

/* The catalog by itself */

struct complaint {
	const struct fsck_options *o;
	struct fsck_result *result;
	bool *damaged;
};

static int tell_damage(void *arg, const char *text)
{
	struct complaint *c = arg;

	*c->damaged = true;
	c->result->found++;
	c->result->left++;
	c->o->found(c->o->arg, &(struct fsck_finding){
		.kind = "catalog", .key = "catalog.db", .text = text,
		.remedy = "what can be read of it becomes a new one, it is set aside" });
	return 0;
}

int store_fsck_catalog(struct meta *m, const struct fsck_options *o, struct fsck_result *result, bool *damaged)
{
	struct complaint c = { o, result, damaged };
	uint64_t next = 0, used = 0;
	int r;

	*damaged = false;
	m->ops->begin(m);
	r = m->ops->check(m, tell_damage, &c);
	if (r == 0 && !*damaged)
		r = m->ops->numbers(m, &next, &used);
	m->ops->end(m, META_ABANDON, NULL);
	if (r == -EBADMSG) {
		tell_damage(&c, "its pages cannot be read");
		return 0;
	}
	if (r < 0 || *damaged || next > used)
		return r;
	result->found++;
	result->left++;
	o->found(o->arg, &(struct fsck_finding){ .kind = "numbers", .key = "catalog.db",
						 .text = "numbers that are in use would be given out again",
						 .remedy = "it goes on behind them" });
	return 0;
}

int store_unknown_files(struct meta *m, struct blobs *b, int (*fn)(void *arg, const struct blob_file *f), void *arg)
{
	static const struct fsck_options none;
	struct fsck_result ignored = { 0 };
	struct fsck c = { .m = m, .b = b, .o = &none, .result = &ignored };
	int r = fsck_gather(&c);

	m->ops->end(m, META_ABANDON, NULL);
	for (size_t i = 0; r == 0 && i < c.files.n; i++) {
		const struct file *f = &c.files.at[i];

		if (f->vid != 0 && !fsck_knows(&c, f->vid, f->draft))
			r = fn(arg, &(struct blob_file){ .vid = f->vid, .draft = f->draft });
	}
	finish(&c);
	return r;
}

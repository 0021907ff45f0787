/* What the last daemon left: drafts are published or dropped by what is recorded of them, files that nobody will need
 * are removed. Reads no more than the small tables and the directory of drafts, however many objects there are. */
#include "core/draft_rule.h"
#include "core/internal.h"

#include <errno.h>
#include <stdlib.h>

#define LOST_GAP 4096 /* numbers without files, behind which no more are looked for */

struct ids {
	struct meta_draft *drafts;
	uint64_t *vids;
	size_t n, capacity;
};

static int add_draft(void *arg, const struct meta_draft *d)
{
	struct ids *l = arg;

	if (l->n == l->capacity) {
		size_t capacity = l->capacity == 0 ? 64 : l->capacity * 2;
		struct meta_draft *p = realloc(l->drafts, capacity * sizeof(*p));

		if (p == NULL)
			return -ENOMEM;
		l->drafts = p;
		l->capacity = capacity;
	}
	l->drafts[l->n++] = *d;
	return 0;
}

static int add_vid(void *arg, uint64_t vid)
{
	struct ids *l = arg;

	if (l->n == l->capacity) {
		size_t capacity = l->capacity == 0 ? 64 : l->capacity * 2;
		uint64_t *p = realloc(l->vids, capacity * sizeof(*p));

		if (p == NULL)
			return -ENOMEM;
		l->vids = p;
		l->capacity = capacity;
	}
	l->vids[l->n++] = vid;
	return 0;
}

/* Written after it was sealed: by a child of the writer that has inherited it. */
static bool changed_since(const struct meta_draft *d, const struct stat *bytes)
{
	return bytes->st_size != d->size ||
	       ns_of(&bytes->st_mtim) != d->mtime;
}

/* A version number whose bytes are gone or are somebody else's now must not be used again. */
static int settle_unpublished(struct op *op, struct meta_object *o, const struct draft_question *q,
			      enum draft_verdict verdict)
{
	static const char reason[] = "the daemon ended while it was being written";
	struct subject s;
	int r;

	if (verdict == DRAFT_DROP)
		return 0;
	if (verdict == DRAFT_REMOVE)
		return object_evict(op, o, -EOWNERDEAD);
	r = draft_renew_version(op, o);
	o->state = OBJECT_PENDING;
	o->error = 0;
	if (r == 0)
		r = op->st->meta->ops->object_update(op->st->meta, o);
	s = (struct subject){ .o = *o };
	return r == 0 && verdict == DRAFT_FAIL ? future_fail(op, &s, EOWNERDEAD, reason) : r;
}

/* A draft that only appended may share the file of the current version, which then has a tail that nobody published. */
static int undo_append(struct store *st, const struct meta_object *o)
{
	struct stat bytes;

	if (st->blobs->ops->stat(st->blobs, o->vid, &bytes) < 0 || bytes.st_nlink < 2)
		return 0;
	return st->blobs->ops->unshare(st->blobs, o->vid, o->size);
}

int settle_recorded(struct op *op, const struct meta_draft *d, int failed, uint64_t *as)
{
	struct store *st = op->st;
	struct process nobody = { 0 };
	struct stat bytes = { 0 };
	struct draft_question q;
	enum draft_verdict verdict;
	struct meta_object o;
	char key[PATH_MAX];
	int r = st->meta->ops->object_get(st->meta, d->object, &o);

	if (r < 0)
		return r;
	q = (struct draft_question){
		.replaces = o.state == OBJECT_READY,
		.declared = o.declared,
		.has_data = st->blobs->ops->stat(st->blobs, d->vid, &bytes) == 0,
		.error = failed,
		.killed = !d->sealed || changed_since(d, &bytes),
		.fsynced = d->fsynced,
		.death_waits = st->options.producer_death_waits,
	};
	verdict = draft_rule(&q);
	if (verdict == DRAFT_PUBLISH) {
		*as = d->vid;
		return draft_publish(op, &o, &(struct publication){ .vid = d->vid, .bytes = &bytes, .producer = &nobody,
								    .uid = o.uid, .written = q.replaces,
								    .unprivileged = true });
	}
	if (q.replaces)
		r = undo_append(st, &o);
	if (r == 0)
		r = path_of(st, d->object, key);
	if (r == 0)
		r = st->meta->ops->draft_delete(st->meta, d->object, d->vid);
	if (r == 0)
		r = settle_unpublished(op, &o, &q, verdict);
	return r == 0 && draft_keeps_bytes(&q) && bytes.st_size > 0 ? aborted_keep(op, key, &o, d->vid, &bytes, as) : r;
}

/* Only what was adopted can be, by now. */
static bool in_memory(struct store *st, uint64_t vid)
{
	bool is;

	pthread_mutex_lock(&st->lock);
	is = version_find(st, vid) != NULL;
	pthread_mutex_unlock(&st->lock);
	return is;
}

static int recover_drafts(struct store *st)
{
	struct ids l = { 0 };
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = st->meta->ops->draft_list(st->meta, add_draft, &l);
	op_end(&op, 0, META_READ, NULL);
	for (size_t i = 0; r == 0 && i < l.n; i++) {
		uint64_t as = 0;

		if (in_memory(st, l.drafts[i].vid))
			continue; /* adopted */
		op_begin(&op, st, NULL);
		r = settle_recorded(&op, &l.drafts[i], 0, &as);
		r = op_end(&op, r, META_LATER, NULL);
		if (r == 0 && as != 0)
			r = st->blobs->ops->publish(st->blobs, l.drafts[i].vid, as);
		else if (r == 0) /* it may be among the published ones, when power loss has taken that back */
			r = st->blobs->ops->remove(st->blobs, l.drafts[i].vid);
	}
	free(l.drafts);
	return r;
}

static int recover_garbage(struct store *st)
{
	struct ids l = { 0 };
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = st->meta->ops->garbage_list(st->meta, add_vid, &l);
	op_end(&op, 0, META_READ, NULL);
	if (r == 0 && st->adopting) { /* nobody has to wait for that */
		r = garbage_adopt(st, l.vids, l.n);
		free(l.vids);
		return r;
	}
	if (r == 0 && l.n > 0)
		r = st->blobs->ops->sync_all(st->blobs); /* of what replaced them, too; see garbage.c */
	if (r == 0 && l.n > 0)
		r = record_now(st, META_DURABLE);
	for (size_t i = 0; r == 0 && i < l.n; i++) {
		if (garbage_put_off(st, l.vids[i]) || st->blobs->ops->remove(st->blobs, l.vids[i]) < 0)
			continue;
		op_begin(&op, st, NULL);
		r = op_end(&op, st->meta->ops->garbage_remove(st->meta, l.vids[i]), META_LATER, NULL);
	}
	free(l.vids);
	return r;
}

/* A file among the drafts that belongs to a published version was not moved in time; one that nobody knows is the
 * draft of somebody who died before it was recorded. */
static int recover_file(struct store *st, uint64_t vid)
{
	struct meta_object o;
	int r = object_of_version(st, vid, &o);

	if (r == 0 && o.state == OBJECT_READY && o.vid == vid)
		return st->blobs->ops->publish(st->blobs, vid, vid);
	if ((r == 0 || r == -ENOENT) && in_memory(st, vid))
		return 0;
	return r == 0 || r == -ENOENT ? st->blobs->ops->remove(st->blobs, vid) : r;
}

static int recover_files(struct store *st)
{
	struct ids l = { 0 };
	int r = st->blobs->ops->list_drafts(st->blobs, add_vid, &l);

	for (size_t i = 0; r == 0 && i < l.n; i++)
		r = recover_file(st, l.vids[i]);
	free(l.vids);
	return r;
}

/* Torn bytes whose file was not moved in time. */

struct torn {
	struct meta_aborted a[64];
	unsigned n;
	uint64_t after;
};

static int add_torn(void *arg, const struct meta_aborted *a)
{
	struct torn *t = arg;

	if (a->object > t->after)
		t->a[t->n++] = *a;
	return t->n == 64;
}

static int recover_torn(struct store *st)
{
	struct torn *t = calloc(1, sizeof(*t));
	struct stat bytes;
	struct op op;
	int r = t == NULL ? -ENOMEM : 1;

	while (r > 0) {
		t->n = 0;
		op_begin(&op, st, NULL);
		r = st->meta->ops->aborted_list(st->meta, add_torn, t);
		op_end(&op, 0, META_READ, NULL);
		for (unsigned i = 0; i < t->n; i++) {
			t->after = t->a[i].object;
			if (st->blobs->ops->stat(st->blobs, t->after, &bytes) < 0)
				st->blobs->ops->publish(st->blobs, t->a[i].draft, t->after);
		}
	}
	free(t);
	return r;
}

/* Power loss takes back the last operations, but not always the files that they had published. Those have numbers above
 * all that are recorded, in the order in which they were made. */
static int recover_lost(struct store *st)
{
	uint64_t next = 0, vid = 0;
	unsigned missing = 0;
	struct stat bytes;
	struct op op;
	int r;

	if (!st->meta->left_open || st->adopting)
		return 0;
	op_begin(&op, st, NULL);
	r = st->meta->ops->numbers(st->meta, &next, &vid);
	op_end(&op, 0, META_READ, NULL);
	for (vid++; r == 0 && vid < st->meta->first && missing < LOST_GAP; vid++) {
		missing = st->blobs->ops->stat(st->blobs, vid, &bytes) == 0 ? 0 : missing + 1;
		if (missing == 0 && !garbage_put_off(st, vid))
			r = st->blobs->ops->remove(st->blobs, vid);
	}
	return r;
}

int store_recover(struct store *st)
{
	int r = recover_lost(st); /* first: before there are new numbers */

	if (r == 0)
		r = recover_drafts(st);
	if (r == 0)
		r = recover_torn(st);
	if (r == 0)
		r = recover_files(st);
	if (r == 0)
		r = once_recover(st);
	return r == 0 ? recover_garbage(st) : r;
}

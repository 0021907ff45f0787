/* What a store must be like. The table:
 *
 *  kind         it is wrong that                                             --repair
 *  root         a directory that every store has is missing                  makes it
 *  lost         what is ready has no data file                               it fails with EIO, so that its readers are told
 *  short        its file has less bytes than the catalog says                the same; the file is set aside
 *  long         it has more, and nobody appends to it                        what is too much is set aside, and cut off
 *  checksum     its bytes are not those that were hashed                     as short
 *  twice        two objects have one data file, or one number                the second one fails
 *  state        the fields of an object contradict its state                 the state counts
 *  type         an object is of no type                                      -
 *  links        an object has more or less names than it says                counted anew
 *  nameless     an object has no name, nobody has borrowed or taken it       gets one below lost+found/
 *  dangling     a name means nothing                                         removed
 *  homeless     a name is in a directory that is not there                   the directory is made, below lost+found/
 *  misplaced    a name is in what is no directory                            removed, see nameless
 *  name         a name is none (a slash, a dot)                              removed, see nameless
 *  directory    a directory has a second name                                removed
 *  circle       directories are in each other, and below no root             the name is removed, see nameless
 *  handle       the handle of a borrow borrows nothing that can be           dropped
 *  borrow       a borrow has no handle                                       removed
 *  counts       an object has more or less borrows than it says              counted anew
 *  member       a lifetime has a member that is not there, or is not there   removed
 *  orphan       a row of any other table belongs to no object                removed; the file of a draft is set aside
 *  draft        what is no file, or is changed in place, has a draft         removed, its file is set aside
 *  garbage      the data file of what is ready is to be removed              it is not
 *  unknown      no row speaks of a data file, or, when the catalog was made  set aside
 *               anew, of a draft's
 *  strange      a file among the data files is none, or a draft's is still   set aside
 *               there though it is published
 *
 * What fails and has a draft that was closed or fsynced keeps that, so that the next mount publishes it.
 *
 * Harmless is what a daemon leaves that is killed; the next mount sees to it: drafts, files among the drafts that no row
 * speaks of, garbage, one-time objects that were being read, lifetimes that were ending. */
#include "core/fsck_tables.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_root(uint64_t id)
{
	return id >= META_ROOT && id <= META_MUT;
}

static bool item_is_file(const struct item *i)
{
	return S_ISREG(i->mode) && i->state != OBJECT_OTHER;
}

static bool item_is_handle(const struct item *i)
{
	return S_ISREG(i->mode) && i->state == OBJECT_OTHER;
}

static int find(struct fsck *c, enum fsck_kind kind, const struct item *i)
{
	return fsck_find(c, &(struct finding){ .kind = kind, .object = i->id, .vid = i->vid, .size = i->size });
}

static int roots(struct fsck *c)
{
	int r = 0;

	for (uint64_t id = META_ROOT; r == 0 && id <= META_MUT; id++) {
		struct item *i = fsck_item(c, id);

		if (i == NULL || !S_ISDIR(i->mode))
			r = fsck_find(c, &(struct finding){ .kind = FSCK_ROOT, .object = id });
	}
	return r;
}

/* Names */

static int one_name(struct fsck *c, const struct edge *e)
{
	struct item *parent = fsck_item(c, e->parent), *i = fsck_item(c, e->object);
	struct finding f = { .object = e->object, .other = e->parent, .cookie = e->cookie };

	if (i == NULL)
		f.kind = FSCK_DANGLING;
	else if (parent == NULL)
		f.kind = FSCK_HOMELESS;
	else if (!S_ISDIR(parent->mode) || is_root(e->object))
		f.kind = FSCK_MISPLACED;
	else if (e->bad)
		f.kind = FSCK_NAME;
	else if (S_ISDIR(i->mode) && i->parent != 0)
		f.kind = FSCK_DIRECTORY_NAMES;
	else {
		i->names++;
		if (S_ISDIR(i->mode)) {
			i->parent = e->parent;
			parent->subdirs++;
		}
		return 0;
	}
	/* What is in a directory that is made anew keeps its name. */
	if (f.kind == FSCK_HOMELESS && i != NULL) {
		i->names++;
		if (S_ISDIR(i->mode))
			i->parent = e->parent;
	}
	return fsck_find(c, &f);
}

static int names(struct fsck *c)
{
	int r = 0;

	for (size_t n = 0; r == 0 && n < c->names.n; n++)
		r = one_name(c, &c->names.at[n]);
	return r;
}

/* Up to a root, to what has no name, or back to where one has been. */
static int climb(struct fsck *c, struct item *from)
{
	struct item *i = from, *up;
	uint8_t end;

	while (i != NULL && i->reached == 0) {
		i->reached = 1;
		up = i->parent != 0 ? fsck_item(c, i->parent) : NULL;
		if (up == NULL || is_root(i->id))
			i->reached = 2;
		else
			i = up;
	}
	end = i->reached;
	for (struct item *j = from; j != NULL && j->reached == 1; j = fsck_item(c, j->parent))
		j->reached = end == 1 ? 3 : 2;
	return end == 1 ? find(c, FSCK_CIRCLE, i) : 0;
}

static int circles(struct fsck *c)
{
	int r = 0;

	for (size_t n = 0; r == 0 && n < c->items.n; n++)
		if (S_ISDIR(c->items.at[n].mode))
			r = climb(c, &c->items.at[n]);
	return r;
}

static bool may_be_nameless(const struct item *i)
{
	return is_root(i->id) || i->ending || i->taken || i->refs + i->muts + i->waits > 0;
}

static int links_of(struct fsck *c, const struct item *i)
{
	uint32_t expected = S_ISDIR(i->mode) ? 2 + i->subdirs : i->names;

	if (i->names == 0 && !may_be_nameless(i))
		return find(c, FSCK_NAMELESS, i);
	return expected != i->nlink && !i->taken && !i->ending ? find(c, FSCK_LINKS, i) : 0;
}

static int links(struct fsck *c)
{
	int r = 0;

	for (size_t n = 0; r == 0 && n < c->items.n; n++)
		if (!item_is_handle(&c->items.at[n]))
			r = links_of(c, &c->items.at[n]);
	return r;
}

/* Borrows */

static int drop(struct fsck *c, uint64_t handle, uint64_t object)
{
	return fsck_find(c, &(struct finding){ .kind = FSCK_HANDLE, .object = handle, .other = object });
}

static int one_borrow(struct fsck *c, const struct meta_borrow *b)
{
	struct item *handle = fsck_item(c, b->handle), *i = fsck_item(c, b->object);

	if (handle == NULL)
		return fsck_find(c, &(struct finding){ .kind = FSCK_BORROW, .object = b->handle, .other = b->object });
	handle->handle = true;
	if (i == NULL || !item_is_file(i) || !item_is_handle(handle) || handle->names == 0)
		return drop(c, b->handle, b->object);
	if (!b->waiting && (i->state != OBJECT_READY || i->fails || i->muts > 0 || (b->mut && i->refs > 0)))
		return drop(c, b->handle, b->object);
	i->waits += b->waiting;
	i->muts += !b->waiting && b->mut;
	i->refs += !b->waiting && !b->mut;
	return 0;
}

static int counts_of(struct fsck *c, const struct item *i)
{
	if (item_is_handle(i))
		return i->handle ? 0 : drop(c, i->id, 0);
	return i->borrows != (int64_t)i->refs - (int64_t)i->muts || i->queued != i->waits ? find(c, FSCK_COUNTS, i) : 0;
}

static int borrows(struct fsck *c)
{
	int r = 0;

	for (size_t n = 0; r == 0 && n < c->borrows.n; n++)
		r = one_borrow(c, &c->borrows.at[n]);
	for (size_t n = 0; r == 0 && n < c->items.n; n++)
		r = counts_of(c, &c->items.at[n]);
	return r;
}

/* Rows that belong to something */

static int members(struct fsck *c)
{
	int r = 0;

	for (size_t n = 0; r == 0 && n < c->members.n; n++) {
		const struct edge *e = &c->members.at[n];
		const struct item *lifetime = fsck_item(c, e->parent), *i = fsck_item(c, e->object);

		if (i == NULL || S_ISDIR(i->mode) || lifetime == NULL || !S_ISDIR(lifetime->mode))
			r = fsck_find(c, &(struct finding){ .kind = FSCK_MEMBER, .object = e->object, .other = e->parent,
							    .cookie = e->cookie });
	}
	return r;
}

/* The number of its draft, where that is what the row is about. */
static uint64_t draft_of(struct fsck *c, const struct number *orphan)
{
	for (size_t n = 0; orphan->vid == META_DRAFTS && n < c->numbers.n; n++)
		if (c->numbers.at[n].why == NUMBER_DRAFT && c->numbers.at[n].object == orphan->object)
			return c->numbers.at[n].vid;
	return 0;
}

static int orphans(struct fsck *c)
{
	int r = 0;

	for (size_t n = 0; r == 0 && n < c->orphans.n; n++)
		r = fsck_find(c, &(struct finding){ .kind = FSCK_ORPHAN, .object = c->orphans.at[n].object,
						    .other = c->orphans.at[n].vid, .vid = draft_of(c, &c->orphans.at[n]) });
	return r;
}

static int left_rows(struct fsck *c, const struct item *i)
{
	int r = 0;

	if (i->drafted)
		r = find(c, item_is_file(i) && !i->live ? FSCK_LEFT_DRAFT : FSCK_DRAFT, i);
	if (r == 0 && i->taken)
		r = find(c, FSCK_LEFT_TAKEN, i);
	if (r == 0 && i->ending)
		r = find(c, FSCK_LEFT_ENDING, i);
	return r;
}

/* Objects and their data */

static bool type_is_known(const struct item *i)
{
	return S_ISREG(i->mode) || S_ISDIR(i->mode) || S_ISLNK(i->mode) || S_ISFIFO(i->mode) || S_ISSOCK(i->mode) ||
	       S_ISCHR(i->mode) || S_ISBLK(i->mode);
}

static bool state_is_right(const struct item *i)
{
	if (!S_ISREG(i->mode) || i->state == OBJECT_OTHER)
		return i->state == OBJECT_OTHER && i->vid == i->id;
	if ((i->state == OBJECT_READY) != (i->version > 0) || (i->state == OBJECT_FAILED) != (i->error != 0))
		return false;
	return i->state != OBJECT_WRITING || i->drafted;
}

static const struct file *data_of(struct fsck *c, const struct item *i)
{
	const struct file *f = fsck_file(c, i->vid);

	for (size_t n = 0; f == NULL && i->torn && n < c->numbers.n; n++) /* it was not moved in time; there are few */
		if (c->numbers.at[n].why == NUMBER_TORN && c->numbers.at[n].object == i->id)
			f = fsck_file(c, c->numbers.at[n].vid);
	return f;
}

/* 1: it is as it was hashed, or nobody knows; 0: it is not. */
static int is_as_hashed(struct fsck *c, const struct item *i)
{
	char recorded[65] = "", hex[65] = "";
	int n = c->m->ops->attribute_get(c->m, i->id, "pfs.sha256", recorded, 64), fd, r;

	if (n != 64)
		return n < 0 && n != -ENOENT && n != -ERANGE ? n : n == -ENOENT;
	fd = c->b->ops->open(c->b, i->vid);
	if (fd == -ENOENT)
		return 1; /* it has gone meanwhile */
	r = fd < 0 ? fd : hash_file(fd, i->size, hex);
	if (fd >= 0)
		close(fd);
	c->result->bytes += (uint64_t)i->size;
	return r == -EIO ? 0 : r < 0 ? r : memcmp(hex, recorded, 64) == 0;
}

static int check_data(struct fsck *c, struct item *i)
{
	const struct file *f = data_of(c, i);
	int r;

	if (f == NULL || (f->size < i->size && !i->live)) {
		i->fails = true;
		return find(c, f == NULL ? FSCK_LOST : FSCK_SHORT, i);
	}
	if (f->size > i->size && !i->live && !i->drafted && !i->torn)
		return find(c, FSCK_LONG, i);
	if (!c->hash || i->live)
		return 0;
	r = is_as_hashed(c, i);
	if (r != 0)
		return r < 0 ? r : 0;
	i->fails = true;
	return find(c, FSCK_CHECKSUM, i);
}

static int check_object(struct fsck *c, struct item *i)
{
	const struct item *other;
	int r = left_rows(c, i);

	if (r != 0)
		return r;
	if (!type_is_known(i))
		return find(c, FSCK_TYPE, i);
	if (!state_is_right(i)) {
		i->fails = i->state == OBJECT_WRITING && i->version == 0 && i->error == 0;
		return find(c, FSCK_STATE, i);
	}
	if (!item_is_file(i) || i->state != OBJECT_READY)
		return 0;
	other = i->vid != i->id ? fsck_item(c, i->vid) : NULL;
	if (other == NULL || other->vid != i->vid || item_is_file(other))
		return check_data(c, i);
	i->fails = true;
	return find(c, FSCK_TWICE, i);
}

static int objects(struct fsck *c)
{
	int r = 0;

	for (size_t n = 0; r == 0 && n < c->items.n; n++) {
		r = fsck_stopped(c) ? -ECANCELED : check_object(c, &c->items.at[n]);
		fsck_progress(c, c->hash ? "checksums" : "data", n + 1, c->items.n);
	}
	return r;
}

/* One number, one file, one object. */
static int numbers(struct fsck *c)
{
	int r = 0;

	for (size_t n = 1; r == 0 && n < c->numbers.n; n++) {
		const struct number *a = &c->numbers.at[n - 1], *b = &c->numbers.at[n];
		struct item *i;

		if (a->vid != b->vid || a->why != NUMBER_CURRENT)
			continue;
		if (b->why == NUMBER_GARBAGE)
			r = fsck_find(c, &(struct finding){ .kind = FSCK_GARBAGE, .object = a->object, .vid = a->vid });
		if (b->why != NUMBER_CURRENT || (i = fsck_item(c, b->object)) == NULL || i->fails)
			continue;
		i->fails = true;
		r = find(c, FSCK_TWICE, i);
	}
	for (size_t n = 0; r == 0 && n < c->numbers.n; n++)
		if (c->numbers.at[n].why == NUMBER_GARBAGE)
			r = fsck_find(c, &(struct finding){ .kind = FSCK_LEFT_GARBAGE, .vid = c->numbers.at[n].vid });
	return r;
}

static bool is_temporary(const char *name)
{
	size_t n = strlen(name);

	return n > 8 && strcmp(name + n - 8, ".private") == 0;
}

/* Among the drafts, and its version is published: the next mount would put it in the place of that. */
static bool is_second(struct fsck *c, size_t n)
{
	const struct file *f = &c->files.at[n];

	return f->vid != 0 && f->draft && n > 0 && f[-1].vid == f->vid && !f[-1].draft;
}

static int files(struct fsck *c)
{
	char second[40];
	int r = 0;

	for (size_t n = 0; r == 0 && n < c->files.n; n++) {
		const struct file *f = &c->files.at[n];
		struct finding found = { .kind = f->draft && !c->o->remade ? FSCK_LEFT_FILE : FSCK_UNKNOWN,
					 .vid = f->vid, .size = f->size };

		if (is_second(c, n)) {
			snprintf(second, sizeof(second), "drafts/%016llx", (unsigned long long)f->vid);
			found.kind = FSCK_STRANGE;
			found.vid = 0;
			found.name = strdup(second);
		} else if (f->vid == 0) {
			found.kind = f->draft && is_temporary(f->name) ? FSCK_LEFT_FILE : FSCK_STRANGE;
			found.name = strdup(f->name);
		} else if (fsck_knows(c, f->vid, f->draft)) {
			continue;
		}
		r = fsck_find(c, &found);
	}
	return r;
}

int fsck_compare(struct fsck *c)
{
	int r = roots(c);

	if (r < 0 || c->findings.n > 0)
		return r; /* nothing else can be judged without them */
	r = names(c);
	if (r == 0)
		r = circles(c);
	if (r == 0)
		r = objects(c);
	if (r == 0)
		r = numbers(c);
	if (r == 0)
		r = borrows(c);
	if (r == 0)
		r = links(c);
	if (r == 0)
		r = members(c);
	if (r == 0)
		r = orphans(c);
	return r == 0 ? files(c) : r;
}

bool fsck_is_harmless(enum fsck_kind kind)
{
	return kind >= FSCK_LEFT_DRAFT;
}

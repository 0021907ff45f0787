/* Putting right what fsck has found. Nothing is deleted that holds data: files are set aside, objects get names. */
#include "core/fsck_tables.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int end_walk(void *arg, const struct meta_dentry *d)
{
	*(struct meta_dentry *)arg = *d;
	return 1;
}

static int remove_names(struct meta *m, uint64_t object)
{
	struct meta_dentry d;
	int r;

	while ((r = m->ops->dentry_names(m, object, end_walk, &d)) == 1) {
		r = m->ops->dentry_delete(m, &d);
		if (r < 0)
			break;
	}
	return r < 0 ? r : 0;
}

/* Without its row, the next mount would delete the file of a draft. */
static int drop_draft(struct fsck *c, uint64_t object)
{
	for (size_t n = 0; n < c->numbers.n; n++)
		if (c->numbers.at[n].why == NUMBER_DRAFT && c->numbers.at[n].object == object)
			c->numbers.at[n].dropped = true;
	return c->m->ops->draft_delete(c->m, object, 0);
}

static int set_dropped_aside(struct fsck *c, uint64_t object)
{
	char name[40];
	int r = 0;

	for (size_t n = 0; r == 0 && n < c->numbers.n; n++) {
		if (!c->numbers.at[n].dropped || c->numbers.at[n].object != object)
			continue;
		snprintf(name, sizeof(name), "drafts/%016llx", (unsigned long long)c->numbers.at[n].vid);
		r = c->b->ops->set_aside(c->b, 0, name, false);
		r = r == -ENOENT ? 0 : r;
	}
	return r;
}

struct own_draft {
	uint64_t object;
	struct meta_draft d;
};

static int find_draft(void *arg, const struct meta_draft *d)
{
	struct own_draft *own = arg;

	if (d->object != own->object)
		return 0;
	own->d = *d;
	return 1;
}

/* Was it closed or fsynced, and is its file there, which is not the damaged one? Then the next mount sees to it. */
static int draft_counts(struct fsck *c, const struct meta_object *o, bool *fsynced)
{
	struct own_draft own = { .object = o->id };
	struct stat bytes, damaged;
	int r = c->m->ops->draft_list(c->m, find_draft, &own);

	if (r <= 0 || (!own.d.sealed && !own.d.fsynced) || c->b->ops->stat(c->b, own.d.vid, &bytes) < 0)
		return r < 0 ? r : 0;
	*fsynced = own.d.fsynced;
	if (c->b->ops->stat(c->b, o->vid, &damaged) < 0)
		return 1;
	return bytes.st_ino != damaged.st_ino || bytes.st_dev != damaged.st_dev;
}

/* It cannot be read any more: whoever tries is told so, until somebody writes it. A draft that was only fsynced is
 * published when its object is no future, see core/draft_rule.c. */
static int fail_object(struct fsck *c, uint64_t id, const char *reason)
{
	struct meta *m = c->m;
	struct meta_object o;
	bool fsynced = false;
	int keeps = 0, r = m->ops->object_get(m, id, &o);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (o.state == OBJECT_READY && (keeps = draft_counts(c, &o, &fsynced)) < 0)
		return keeps;
	o.state = OBJECT_FAILED;
	o.error = EIO;
	o.declared = keeps == 0 || !fsynced;
	o.version = 0;
	o.size = o.blocks = o.deadline = o.borrows = 0;
	o.live = o.durable = false;
	r = m->ops->new_id(m, &o.vid);
	if (r == 0 && keeps == 0)
		r = drop_draft(c, id);
	if (r == 0)
		r = m->ops->object_update(m, &o);
	if (r == 0)
		r = m->ops->attribute_remove(m, id, "pfs.sha256");
	return r == 0 ? m->ops->attribute_set(m, id, "pfs.error", reason, strlen(reason)) : r;
}

static int set_by_state(struct meta *m, uint64_t id)
{
	struct meta_object o;
	int r = m->ops->object_get(m, id, &o);

	if (r < 0)
		return r;
	if (!S_ISREG(o.mode))
		o.state = OBJECT_OTHER;
	if (o.state == OBJECT_OTHER)
		o.vid = id;
	o.version = o.state != OBJECT_READY ? 0 : o.version > 0 ? o.version : 1;
	o.error = o.state != OBJECT_FAILED ? 0 : o.error != 0 ? o.error : EIO;
	r = m->ops->object_update(m, &o);
	return r;
}

static int any_draft(void *arg, const struct meta_draft *d)
{
	return d->object == *(uint64_t *)arg;
}

static int mend_state(struct fsck *c, uint64_t id)
{
	struct meta *m = c->m;
	struct meta_object o;
	int r = set_by_state(m, id);

	if (r == 0)
		r = m->ops->object_get(m, id, &o);
	if (r == 0 && o.state == OBJECT_WRITING && m->ops->draft_list(m, any_draft, &id) == 0)
		r = fail_object(c, id, "its draft was lost");
	return r;
}

static int insert_directory(struct meta *m, uint64_t id)
{
	int64_t now = m->ops->now(m);

	return m->ops->object_insert(m, &(struct meta_object){
		.id = id, .vid = id, .mode = S_IFDIR | 0700, .uid = geteuid(), .gid = getegid(), .nlink = 2,
		.atime = now, .mtime = now, .ctime = now, .btime = now });
}

/* The directory lost+found of the mount, or one called nearly so where that is something else. */
static int lost_and_found(struct meta *m, uint64_t *id)
{
	char name[32] = "lost+found";
	struct meta_object o;
	struct meta_dentry d;
	int r = 0;

	for (int n = 1; n < 100; n++) {
		r = m->ops->dentry_get(m, META_ROOT, name, &d);
		if (r < 0)
			break;
		*id = d.object;
		if (m->ops->object_get(m, d.object, &o) == 0 && S_ISDIR(o.mode))
			return 0;
		snprintf(name, sizeof(name), "lost+found.%d", n);
	}
	if (r != -ENOENT)
		return r < 0 ? r : -EEXIST;
	r = m->ops->new_id(m, id);
	if (r == 0)
		r = insert_directory(m, *id);
	if (r == 0)
		r = m->ops->dentry_insert(m, META_ROOT, name, *id);
	return r == 0 ? m->ops->object_touch(m, META_ROOT, m->ops->now(m), 1) : r;
}

static int give_name(struct meta *m, uint64_t id)
{
	struct meta_object o;
	char name[32];
	uint64_t dir;
	int r = m->ops->object_get(m, id, &o);

	if (r == 0)
		r = lost_and_found(m, &dir);
	snprintf(name, sizeof(name), "#%llu", (unsigned long long)id);
	if (r == 0)
		r = m->ops->dentry_insert(m, dir, name, id);
	if (r == 0)
		r = m->ops->object_touch(m, dir, m->ops->now(m), S_ISDIR(o.mode));
	if (r == 0 && !S_ISDIR(o.mode)) {
		o.nlink = 1;
		r = m->ops->object_update(m, &o);
	}
	return r;
}

static int count_anew(struct fsck *c, uint64_t id, bool borrows)
{
	const struct item *i = fsck_item(c, id);
	struct meta_object o;
	int r = c->m->ops->object_get(c->m, id, &o);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (borrows) {
		o.borrows = (int64_t)i->refs - (int64_t)i->muts;
		o.queued = i->waits;
	} else {
		o.nlink = S_ISDIR(i->mode) ? 2 + i->subdirs : i->names;
	}
	return c->m->ops->object_update(c->m, &o);
}

static int drop_handle(struct meta *m, uint64_t handle)
{
	int r = m->ops->borrow_remove(m, handle);

	if (r == 0)
		r = remove_names(m, handle);
	return r == 0 ? m->ops->object_delete(m, handle) : r;
}

static int make_parent(struct meta *m, uint64_t id)
{
	struct meta_object o;
	int r = m->ops->object_get(m, id, &o);

	return r == -ENOENT ? insert_directory(m, id) : r;
}

static int make_root_again(struct meta *m, uint64_t id)
{
	struct meta_object o;
	int r = m->ops->object_get(m, id, &o);

	if (r == 0 && !S_ISDIR(o.mode)) {
		o.mode = S_IFDIR | 0755;
		o.state = OBJECT_OTHER;
		return m->ops->object_update(m, &o);
	}
	return r == 0 || r == -ENOENT ? roots_make(m) : r;
}

int fsck_repair(struct fsck *c, const struct finding *f)
{
	const struct meta_dentry name = { .parent = f->other, .cookie = f->cookie };
	struct meta *m = c->m;

	switch (f->kind) {
	case FSCK_ROOT:
		return make_root_again(m, f->object);
	case FSCK_LOST:
	case FSCK_TWICE:
		return fail_object(c, f->object, "its data was lost; promisefs fsck has found that");
	case FSCK_SHORT:
	case FSCK_CHECKSUM:
		return fail_object(c, f->object, "its data was damaged; promisefs fsck has set it aside");
	case FSCK_STATE:
		return mend_state(c, f->object);
	case FSCK_LINKS:
	case FSCK_COUNTS:
		return count_anew(c, f->object, f->kind == FSCK_COUNTS);
	case FSCK_NAMELESS:
		return give_name(m, f->object);
	case FSCK_HOMELESS:
		return make_parent(m, f->other);
	case FSCK_DANGLING:
	case FSCK_MISPLACED:
	case FSCK_NAME:
	case FSCK_DIRECTORY_NAMES:
		return m->ops->dentry_delete(m, &name);
	case FSCK_CIRCLE:
		return remove_names(m, f->object);
	case FSCK_HANDLE:
		return drop_handle(m, f->object);
	case FSCK_BORROW:
		return m->ops->borrow_remove(m, f->object);
	case FSCK_MEMBER:
		return m->ops->member_delete(m, &name);
	case FSCK_ORPHAN:
		if (f->other == META_DRAFTS)
			return drop_draft(c, f->object);
		return m->ops->rows_remove(m, (enum meta_table)f->other, f->object);
	case FSCK_DRAFT:
		return drop_draft(c, f->object);
	case FSCK_GARBAGE:
		return m->ops->garbage_remove(m, f->vid);
	default:
		return 0;
	}
}

/* The file as it is is kept, then the object gets one that ends where it should. */
static int cut(struct fsck *c, const struct finding *f)
{
	int r = c->b->ops->set_aside(c->b, f->vid, NULL, true);

	return r == 0 ? c->b->ops->unshare(c->b, f->vid, f->size) : r;
}

int fsck_repair_files(struct fsck *c, const struct finding *f)
{
	int r = set_dropped_aside(c, f->object);

	if (r < 0)
		return r;
	switch (f->kind) {
	case FSCK_SHORT:
	case FSCK_CHECKSUM:
	case FSCK_UNKNOWN:
		r = c->b->ops->set_aside(c->b, f->vid, NULL, false);
		return r == -ENOENT ? 0 : r;
	case FSCK_LONG:
		return cut(c, f);
	case FSCK_STRANGE:
		return c->b->ops->set_aside(c->b, 0, f->name, false);
	default:
		return 0;
	}
}

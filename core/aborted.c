/* Torn bytes of killed writers: kept for a while as ordinary objects below aborted/, at the path of their key. */
#include "core/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One that is there shows as much as the directory of keys does now. What is in it may not come under the rights of
 * another user: -ENOTDIR. */
static int mirror_again(struct op *op, uint64_t id, const struct meta_object *like, bool *changed)
{
	struct meta *m = op->st->meta;
	uint32_t mode = access_plain_mode(op->st, like);
	struct meta_object o;
	int r = m->ops->object_get(m, id, &o);

	if (r < 0)
		return r;
	if (!is_dir(&o) || o.uid != like->uid || o.gid != like->gid)
		return -ENOTDIR;
	if (o.mode == mode)
		return 0;
	*changed = true; /* the kernel knows the old mode a moment longer */
	o.mode = mode;
	o.ctime = store_now(op->st);
	op_forget(op, id);
	return m->ops->object_update(m, &o);
}

/* The directory `name` in `parent` below aborted/, made when missing with the rights of the one it mirrors. */
static int mirror_dir(struct op *op, uint64_t parent, const char *name, const struct meta_object *like, uint64_t *id,
		      bool *changed)
{
	struct meta *m = op->st->meta;
	struct meta_object o = *like;
	struct meta_dentry d;
	int64_t now = store_now(op->st);
	int r = m->ops->dentry_get(m, parent, name, &d);

	if (r != -ENOENT) {
		*id = d.object;
		return r == 0 ? mirror_again(op, d.object, like, changed) : r;
	}
	r = m->ops->new_id(m, &o.id);
	o.vid = o.id;
	o.mode = access_plain_mode(op->st, like);
	o.nlink = 2;
	o.live = false;
	o.atime = o.mtime = o.ctime = o.btime = now;
	if (r == 0)
		r = m->ops->object_insert(m, &o);
	if (r == 0)
		r = m->ops->dentry_insert(m, parent, name, o.id);
	if (r == 0)
		r = m->ops->object_touch(m, parent, now, 1);
	*id = o.id;
	return r;
}

static int real_dir(struct store *st, uint64_t parent, const char *name, struct meta_object *o)
{
	struct meta_dentry d;
	int r = st->meta->ops->dentry_get(st->meta, parent, name, &d);

	return r < 0 ? r : st->meta->ops->object_get(st->meta, d.object, o);
}

/* Walks the directories of `path` in both trees; leaves the last name. Those that are no more, or no directories of keys
 * (.promisefs/own), are made like the one above. */
static int mirror_path(struct op *op, char *path, uint64_t *parent, const char **name, bool *changed)
{
	struct meta_object like;
	uint64_t real = META_ROOT;
	char *slash;
	int r = op->st->meta->ops->object_get(op->st->meta, META_ROOT, &like);

	*parent = META_ABORTED;
	for (; r == 0 && (slash = strchr(path, '/')) != NULL; path = slash + 1) {
		*slash = '\0';
		r = real != 0 ? real_dir(op->st, real, path, &like) : -ENOENT;
		real = r == 0 ? like.id : 0;
		if (r == 0 || r == -ENOENT)
			r = mirror_dir(op, *parent, path, &like, parent, changed);
	}
	*name = path;
	return r;
}

/* An older one of the same key makes room; a directory in the way does not. */
static int make_room(struct op *op, uint64_t parent, const char *name)
{
	struct meta *m = op->st->meta;
	struct meta_dentry d;
	struct meta_object o;
	int r = m->ops->dentry_get(m, parent, name, &d);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = m->ops->object_get(m, d.object, &o);
	if (r == 0 && !is_file(&o))
		return -EISDIR;
	return r == 0 ? object_evict(op, &o, -ENOENT) : r;
}

struct place {
	uint64_t parent;
	bool secret; /* not in a directory that hides it as that of its key does: only its owner may read it */
	char name[META_NAME_MAX + 1];
};

/* The torn bytes get a number of their own: whoever still knows the draft's must not find them. */
static int insert_torn(struct op *op, const struct place *p, const struct meta_object *of, uint64_t draft,
		       const struct stat *bytes, uint64_t *vid)
{
	struct meta *m = op->st->meta;
	int64_t now = store_now(op->st);
	struct meta_object o = {
		.version = 1, .mode = S_IFREG | (access_plain_mode(op->st, of) & (p->secret ? 07700 : 07777)),
		.uid = of->uid, .gid = of->gid,
		.nlink = 1, .size = bytes->st_size, .blocks = bytes->st_blocks, .atime = now,
		.mtime = ns_of(&bytes->st_mtim),
		.ctime = now, .btime = now, .state = OBJECT_READY,
	};
	int r = m->ops->new_id(m, &o.id);

	*vid = o.vid = o.id;
	if (r == 0)
		r = m->ops->object_insert(m, &o);
	if (r == 0)
		r = m->ops->dentry_insert(m, p->parent, p->name, o.id);
	if (r == 0)
		r = m->ops->object_touch(m, p->parent, now, 0);
	if (r == 0)
		r = m->ops->aborted_add(m, &(struct meta_aborted){ .object = o.id, .draft = draft, .at = now,
								   .size = bytes->st_size });
	return r;
}

/* Where what had that key is kept: at the path of the key, or, where directories and files are in the way of each other, by
 * its number. */
static int find_place(struct op *op, const char *key, uint64_t id, struct place *p)
{
	char path[PATH_MAX];
	const char *name;
	int r;

	strcpy(path, key);
	p->secret = false;
	r = mirror_path(op, path, &p->parent, &name, &p->secret);
	snprintf(p->name, sizeof(p->name), "%s", name);
	if (r == 0)
		r = make_room(op, p->parent, p->name);
	if (r != -EISDIR && r != -ENOTDIR)
		return r;
	p->secret = true;
	p->parent = META_ABORTED;
	snprintf(p->name, sizeof(p->name), "%.200s.%llu", strrchr(key, '/') != NULL ? strrchr(key, '/') + 1 : key,
		 (unsigned long long)id);
	return make_room(op, p->parent, p->name);
}

int aborted_keep(struct op *op, const char *key, const struct meta_object *o, uint64_t draft, const struct stat *bytes,
		 uint64_t *kept)
{
	struct place p;
	int r;

	*kept = 0;
	r = find_place(op, key, draft, &p);
	if (r == 0)
		r = insert_torn(op, &p, o, draft, bytes, kept);
	if (r == 0)
		timer_arm(op->st->timers, &op->st->aborted_timer, timers_now());
	if (r < 0)
		*kept = 0;
	return r == -EISDIR || r == -ENOTDIR ? 0 : r; /* then there is no place for it; it is removed with the draft */
}

/* An object that was taken, and finds no name again. */
int aborted_adopt(struct op *op, const char *key, struct meta_object *o)
{
	struct meta *m = op->st->meta;
	int64_t now = store_now(op->st);
	struct place p;
	int r = find_place(op, key, o->id, &p);

	if (r == 0)
		r = m->ops->dentry_insert(m, p.parent, p.name, o->id);
	if (r == 0)
		r = m->ops->object_touch(m, p.parent, now, 0);
	if (r == 0)
		r = m->ops->aborted_add(m, &(struct meta_aborted){ .object = o->id, .draft = o->vid, .at = now,
								   .size = o->size });
	if (r == 0)
		timer_arm(op->st->timers, &op->st->aborted_timer, timers_now());
	o->nlink = 1;
	if (p.secret)
		o->mode &= ~077u;
	return r;
}

/* Sweeping */

struct sweep {
	struct meta_aborted oldest;
	uint64_t bytes;
	unsigned n;
};

static int count_one(void *arg, const struct meta_aborted *a)
{
	struct sweep *s = arg;

	if (s->n++ == 0)
		s->oldest = *a;
	s->bytes += (uint64_t)a->size;
	return 0;
}

static int any_entry(void *arg, const struct meta_dentry *d)
{
	return 1;
}

/* Directories that were made for what is gone now. */
static int prune_dirs(struct op *op, uint64_t dir)
{
	struct meta *m = op->st->meta;
	struct meta_dentry d;
	int r = 0;

	while (r == 0 && dir != META_ABORTED && dir != META_ROOT) {
		r = m->ops->dentry_list(m, dir, 0, any_entry, NULL);
		if (r != 0 || m->ops->dentry_names(m, dir, take_name, &d) != 1)
			return r < 0 ? r : 0;
		r = m->ops->dentry_delete(m, &d);
		if (r == 0)
			r = m->ops->object_delete(m, dir);
		if (r == 0)
			r = m->ops->object_touch(m, d.parent, store_now(op->st), -1);
		op_invalidate(op, d.parent, d.name);
		dir = d.parent;
		paths_forget(op->st);
	}
	return r;
}

static int sweep_object(struct op *op, uint64_t id)
{
	struct meta *m = op->st->meta;
	struct meta_dentry d = { .parent = META_ABORTED };
	struct meta_object o;
	int r = m->ops->object_get(m, id, &o);

	m->ops->dentry_names(m, id, take_name, &d);
	if (r == 0)
		r = object_evict(op, &o, -ENOENT);
	return r == 0 ? prune_dirs(op, d.parent) : r;
}

/* Removes the oldest if there are too many bytes or it is too old. */
static bool sweep_one(struct store *st)
{
	struct sweep s = { 0 };
	struct op op;
	int64_t age;
	int r;

	op_begin(&op, st, NULL);
	r = st->meta->ops->aborted_list(st->meta, count_one, &s);
	age = store_now(st) - s.oldest.at;
	if (r < 0 || s.n == 0 || (s.bytes <= st->options.aborted_bytes && age < st->options.aborted_age)) {
		if (s.n > 0)
			timer_arm(st->timers, &st->aborted_timer, timers_now() + st->options.aborted_age - age);
		op_end(&op, 0, META_READ, NULL);
		return false;
	}
	r = sweep_object(&op, s.oldest.object);
	op_end(&op, r, META_LATER, NULL);
	return r == 0;
}

static void sweep(struct timer *t)
{
	struct store *st = (struct store *)((char *)t - offsetof(struct store, aborted_timer));

	while (sweep_one(st))
		;
}

void aborted_start(struct store *st)
{
	st->aborted_timer.fire = sweep;
	timer_arm(st->timers, &st->aborted_timer, timers_now());
}

/* Making what a name shall mean: files, with or without a draft, directories and the rest. */
#include "core/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int inherit(struct op *op, const struct meta_object *dir, struct meta_object *o)
{
	const struct caller *who = op->who;
	int r;

	o->uid = who->uid;
	o->gid = (dir->mode & S_ISGID) != 0 ? dir->gid : who->gid;
	r = access_inherit_mode(op, dir->id, o);
	if (is_dir(o))
		o->mode |= dir->mode & S_ISGID;
	o->live = dir->live && (is_dir(o) || S_ISREG(o->mode));
	/* Whoever makes a directory in somebody else's says who may find what is in it: not by a lifetime of that one. */
	o->lifetime = is_dir(o) && o->uid != dir->uid ? 0 : dir->lifetime;
	return r;
}

/* own/ holds files, ref/ and mut/ what link(2) has made there. */
static int check_place(uint64_t parent, uint32_t mode)
{
	if (parent == META_REF || parent == META_MUT)
		return -EPERM;
	return parent == META_OWN && !S_ISREG(mode) ? -EPERM : 0;
}

static int new_object(struct op *op, uint64_t parent, const char *name, uint32_t mode, struct meta_object *o)
{
	struct store *st = op->st;
	struct meta *m = st->meta;
	struct meta_object dir;
	struct meta_dentry d;
	int64_t now = store_now(st);
	int r = dir_get(st, parent, &dir);

	if (r == 0)
		r = check_place(parent, mode);
	if (r < 0)
		return r;
	r = m->ops->dentry_get(m, parent, name, &d);
	if (r != -ENOENT)
		return r == 0 ? -EEXIST : r;
	*o = (struct meta_object){ .mode = mode, .nlink = S_ISDIR(mode) ? 2 : 1,
				   .atime = now, .mtime = now, .ctime = now, .btime = now };
	r = inherit(op, &dir, o);
	if (r == 0)
		r = usage_check_in(st, parent, o->uid);
	if (r == 0)
		r = m->ops->new_id(m, &o->id);
	o->vid = o->id;
	return r;
}

static int insert_object(struct op *op, uint64_t parent, const char *name, const struct meta_object *o)
{
	struct meta *m = op->st->meta;
	int r = m->ops->object_insert(m, o);

	if (r == 0)
		r = access_inherit(op, parent, o);
	if (r == 0)
		r = m->ops->dentry_insert(m, parent, name, o->id);
	if (r == 0)
		r = m->ops->object_touch(m, parent, o->btime, is_dir(o) ? 1 : 0);
	if (r == 0 && o->lifetime != 0 && !is_dir(o))
		r = lifetime_join(op, o, name);
	if (r == 0)
		waiters_wake_absent(op, parent, name);
	return r;
}

/* An object that is whole at once, and empty: by mknod(2), or by an open that makes it and cannot write it. */
static int insert_empty(struct op *op, uint64_t parent, const char *name, struct meta_object *o)
{
	struct blobs *blobs = op->st->blobs;
	char key[PATH_MAX];
	int fd = new_file(op->st, o->vid), r = fd < 0 ? fd : 0;

	o->state = OBJECT_READY;
	o->version = 1;
	if (fd >= 0)
		close(fd);
	if (r == 0 && op_after(op) == NULL)
		r = -ENOMEM;
	if (r == 0)
		r = insert_object(op, parent, name, o);
	if (r == 0)
		r = path_of_name(op->st, parent, name, key);
	if (r == 0)
		r = event_record(op, "put", key, o, NULL, NULL);
	if (r < 0)
		blobs->ops->remove(blobs, o->vid);
	else
		op->after->makes = o->vid;
	return r;
}

int store_make(struct store *st, const struct caller *who, uint64_t parent, const char *name, const struct node_new *n,
	       struct entry *e, struct meta_commit *c)
{
	struct meta_object o;
	struct op op;
	int r;

	op_begin_named(&op, st, who);
	r = new_object(&op, parent, name, n->mode, &o);
	o.rdev = n->rdev;
	if (n->target != NULL)
		o.size = (int64_t)strlen(n->target);
	if (r == 0)
		r = S_ISREG(o.mode) ? insert_empty(&op, parent, name, &o) : insert_object(&op, parent, name, &o);
	if (r == 0 && n->target != NULL)
		r = st->meta->ops->attribute_set(st->meta, o.id, "pfs.target", n->target, strlen(n->target));
	if (r == 0) {
		fill_entry(st, who, &o, e);
		r = lifetime_entry_until(st, &o, &e->until);
		op_shows_name(&op, parent, name);
		if (is_dir(&o))
			op_recounts_dir(&op, parent);
	}
	return op_end(&op, r, META_RECORDED, c);
}

/* Memory of a file that is being made: its draft, or the file itself when it is changed in place. */
static int add_in_memory(struct op *op, const struct meta_object *o, struct version **ret)
{
	struct store *st = op->st;
	bool bare = access_is_bare(st, o);
	struct object *obj;

	pthread_mutex_lock(&st->lock);
	obj = object_ref(st, o->id);
	*ret = obj != NULL ? version_add(st, obj, o->vid, o->live ? ROLE_CURRENT : ROLE_DRAFT) : NULL;
	if (*ret != NULL) {
		obj->bare = bare;
		(*ret)->data = DATA_PREPARING;
		(*ret)->live = o->live;
		(*ret)->opens = 1;
		(*ret)->writers = 1;
	}
	object_unref(st, obj);
	pthread_mutex_unlock(&st->lock);
	return *ret != NULL ? 0 : -ENOMEM;
}

static int record_create(struct op *op, uint64_t parent, const char *name, uint32_t mode, struct meta_object *o,
			 struct version **v)
{
	struct meta *m = op->st->meta;
	int r = new_object(op, parent, name, mode, o);

	if (r < 0)
		return r;
	o->state = o->live ? OBJECT_READY : OBJECT_WRITING;
	o->version = o->live;
	r = insert_object(op, parent, name, o);
	if (r == 0 && !o->live)
		r = m->ops->draft_put(m, &(struct meta_draft){ .object = o->id, .vid = o->vid });
	return r == 0 ? add_in_memory(op, o, v) : r;
}

/* The same when it is changed in place, and has no draft that could settle. */
static void drop_live(struct store *st, const struct caller *who, struct version *v)
{
	struct meta_object o;
	struct op op;
	int r;

	op_begin(&op, st, who);
	r = st->meta->ops->object_get(st->meta, v->object->id, &o);
	if (r == 0)
		r = object_evict(&op, &o, -EIO);
	op_end(&op, r == -ENOENT ? 0 : r, META_LATER, NULL);
}

/* The file of what was recorded. When it cannot be made the draft settles, which takes the record back. */
static int create_data(struct store *st, const struct caller *who, struct version *v, uint32_t mode, bool live)
{
	int fd = new_file(st, v->vid);
	struct stat bytes;
	bool blessed = fd >= 0 && (mode & (S_ISUID | S_ISGID)) != 0 && fstat(fd, &bytes) == 0;

	if (fd >= 0 && live)
		st->blobs->ops->publish(st->blobs, v->vid, v->vid);
	pthread_mutex_lock(&st->lock);
	v->fd = fd < 0 ? -1 : fd;
	v->error = fd < 0 ? -fd : 0;
	v->blessed_mtime = blessed ? ns_of(&bytes.st_mtim) : 0;
	kept_in_order();
	v->data = fd < 0 ? DATA_NONE : DATA_READY;
	v->writers -= fd < 0;
	pthread_mutex_unlock(&st->lock);
	if (fd < 0 && live)
		drop_live(st, who, v);
	if (fd < 0)
		draft_settle(st, v, who);
	return fd < 0 ? fd : 0;
}

static void fill_handle(struct handle *h, const struct caller *who, struct version *v, int flags)
{
	h->vid = v->vid;
	h->version = v;
	h->object = v->object;
	h->node = v->vid;
	h->flags = flags;
	h->tid = who->tid;
	h->uid = who->uid;
	kept_live(h->st, h);
}

static int open_empty(struct store *st, const struct caller *who, const struct meta_object *o, int flags, struct handle *h)
{
	struct version *v;

	pthread_mutex_lock(&st->lock);
	v = version_current(st, o);
	if (v != NULL) {
		v->opens++;
		v->readers++;
		fill_handle(h, who, v, flags);
	}
	pthread_mutex_unlock(&st->lock);
	return v != NULL ? 0 : -ENOMEM;
}

/* Nobody can write it by this open, so there is nothing to wait for: who else opens it, such as the file of a lock, gets
 * the empty file. */
static int create_to_read(struct store *st, const struct caller *who, uint64_t parent, const char *name, uint32_t mode,
			  int flags, struct entry *e, struct handle **ret)
{
	struct handle *h = handle_new(st);
	struct meta_object o;
	int64_t until = 0;
	struct op op;
	int r = h == NULL ? -ENFILE : 0;

	if (r < 0)
		return r;
	op_begin_named(&op, st, who);
	r = new_object(&op, parent, name, S_IFREG | (mode & 07777), &o);
	if (r == 0)
		r = insert_empty(&op, parent, name, &o);
	if (r == 0)
		r = lifetime_entry_until(st, &o, &until);
	if (r == 0)
		r = open_empty(st, who, &o, flags, h);
	r = op_end(&op, r, META_LATER, NULL);
	if (r < 0) {
		handle_free(h);
		return r;
	}
	r = record_now(st, META_RECORDED); /* its close does not wait for that */
	if (r < 0) {
		store_release(h);
		return r;
	}
	*e = (struct entry){ .node = o.vid, .o = o, .until = until };
	*ret = h;
	return 0;
}

int store_create(struct store *st, const struct caller *who, uint64_t parent, const char *name, uint32_t mode, int flags,
		 struct entry *e, struct handle **ret)
{
	struct handle *h;
	struct meta_object o;
	struct version *v = NULL;
	int64_t until = 0;
	struct op op;
	int r;

	if ((flags & O_ACCMODE) == O_RDONLY)
		return create_to_read(st, who, parent, name, mode, flags, e, ret);
	h = handle_new(st);
	if (h == NULL)
		return -ENFILE;
	h->writer = true;
	op_begin(&op, st, who);
	r = record_create(&op, parent, name, S_IFREG | (mode & 07777), &o, &v);
	if (r == 0)
		lifetime_entry_until(st, &o, &until);
	if (r == 0 && o.live && op_after(&op) != NULL)
		op.after->makes = o.vid;
	if (r == 0)
		fill_handle(h, who, v, flags); /* within the operation: if we are killed, there are both or neither */
	op_end(&op, r, META_LATER, NULL);
	if (r == 0)
		r = create_data(st, who, v, o.mode, o.live);
	if (r < 0) {
		handle_free(h);
		return r;
	}
	*e = (struct entry){ .node = o.vid, .o = o, .until = until };
	pthread_mutex_lock(&st->lock);
	v->unprivileged = h->uid != 0;
	DL_APPEND(v->writer_list, h); /* the use and the writer were counted when it was made */
	pthread_mutex_unlock(&st->lock);
	*ret = h;
	return 0;
}

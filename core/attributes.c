/* Reading and changing what stat(2) shows. */
#include "core/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void object_takes(struct meta_object *o, const struct stat *bytes)
{
	o->size = bytes->st_size;
	o->blocks = bytes->st_blocks;
	o->mtime = ns_of(&bytes->st_mtim);
	if (o->ctime < ns_of(&bytes->st_ctim))
		o->ctime = ns_of(&bytes->st_ctim); /* when it was written; chmod and the like are not the file's */
}

void object_as_draft(struct meta_object *o, const struct version *d, const struct stat *bytes)
{
	if (draft_is_untouched(d, bytes))
		return;
	object_takes(o, bytes);
	if (d->unprivileged && d->replaces && d->blessed_mtime != o->mtime)
		privileges_drop_mode(o);
}

/* A node in use knows better than the record: drafts, what became of them, and files changed in place have their own
 * size, and an old version keeps the one it had. */
static void overlay(struct store *st, struct subject *s)
{
	struct version *v = s->v;
	bool draft = false, unrecorded;
	struct stat bytes;
	int fd;

	pthread_mutex_lock(&st->lock);
	if (s->gone)
		s->o.nlink = 0;
	fd = v != NULL && (v->role == ROLE_DRAFT || v->aborted || s->o.live) ? v->fd : -1;
	draft = v != NULL && v->role == ROLE_DRAFT;
	/* Who has waited for it reads it already, but that it was published could not be recorded yet. */
	unrecorded = v != NULL && v->role == ROLE_CURRENT && !v->live && s->o.state == OBJECT_WRITING;
	if (unrecorded || (v != NULL && v->role == ROLE_OLD)) {
		s->o.size = v->size;
		s->o.mtime = v->mtime;
		s->o.blocks = v->blocks;
		s->o.nlink = unrecorded ? s->o.nlink : 0;
	}
	pthread_mutex_unlock(&st->lock);
	if (fd >= 0 ? fstat(fd, &bytes) < 0 : !s->o.live || !is_file(&s->o) ||
					      st->blobs->ops->stat(st->blobs, s->o.vid, &bytes) < 0)
		return;
	if (!draft) {
		object_takes(&s->o, &bytes);
		return;
	}
	pthread_mutex_lock(&st->lock);
	object_as_draft(&s->o, v, &bytes);
	pthread_mutex_unlock(&st->lock);
}

static void entry_of(struct store *st, struct subject *s, uint64_t node, struct entry *e)
{
	*e = (struct entry){ .node = node, .o = s->o, .recounted = is_recounted(st, node) };
	if (subject_self(s) != &s->o) {
		borrow_show(&s->handle, s->via == VIA_MUT, e);
		return;
	}
	e->stable = !s->gone && (!is_file(&s->o) || (s->o.state != OBJECT_WRITING && (s->obj == NULL || s->obj->draft == NULL)));
}

void store_changed_unseen(struct store *st, uint64_t node)
{
	struct subject s;
	struct op op;

	op_begin(&op, st, NULL);
	if (subject_get(st, node, &s) == 0) {
		object_forget(&op, &s.o);
		subject_put(st, &s);
	}
	op_end(&op, 0, META_READ, NULL);
}

int store_getattr(struct store *st, const struct caller *who, uint64_t node, struct entry *e)
{
	struct subject s;
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = subject_get_for(st, who, node, &s);
	if (r == -ENOENT && who->via != VIA_OWNER)
		r = subject_get_dropped(st, who->via, node, &s);
	if (r == 0) {
		overlay(st, &s);
		entry_of(st, &s, node, e);
		subject_put(st, &s);
	} else if (r == -ENOENT && who->via == VIA_OWNER) {
		*e = (struct entry){ .node = node };
		r = departed_get(st, node, &e->o);
	}
	op_end(&op, 0, META_READ, NULL);
	return r == -ENOENT ? intent_stale(st, who->tid, node, false) : r;
}

static void set_times(struct meta_object *o, const struct attribute_change *ch, int64_t now)
{
	if ((ch->which & CHANGE_ATIME) != 0)
		o->atime = ch->atime == INT64_MIN ? now : ch->atime;
	if ((ch->which & CHANGE_MTIME) != 0)
		o->mtime = ch->mtime == INT64_MIN ? now : ch->mtime;
}

/* A draft that was sealed is known by its time of modification: with another one it was written afterwards. So is one
 * that was given its mode after the last write. */
static int retime(struct store *st, struct version *v, int fd, const struct timespec ts[static 2])
{
	struct stat before, after;
	bool sealed;

	if (fstat(fd, &before) < 0 || futimens(fd, ts) < 0 || fstat(fd, &after) < 0)
		return -errno;
	if (v == NULL)
		return 0;
	pthread_mutex_lock(&st->lock);
	if (v->blessed_mtime == ns_of(&before.st_mtim))
		v->blessed_mtime = ns_of(&after.st_mtim);
	sealed = v->sealed && (v->role == ROLE_DRAFT || v->object->settling) && !v->object->gone;
	pthread_mutex_unlock(&st->lock);
	return sealed ? draft_record(st, v, &after) : 0;
}

/* The times of a draft are those of its file, which is where publishing takes them from; so are those of what is changed
 * in place. */
static int set_draft_times(struct store *st, struct subject *s, const struct attribute_change *ch)
{
	struct timespec ts[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };
	int fd = -1, opened = -1, r = 0;

	if ((ch->which & (CHANGE_ATIME | CHANGE_MTIME)) == 0 || !is_file(&s->o) || (s->v == NULL && !s->o.live))
		return 0;
	if ((ch->which & CHANGE_ATIME) != 0)
		ts[0] = timespec_of(s->o.atime);
	if ((ch->which & CHANGE_MTIME) != 0)
		ts[1] = timespec_of(s->o.mtime);
	pthread_mutex_lock(&st->lock);
	if (s->v != NULL && (s->v->role == ROLE_DRAFT || s->v->object->settling || s->o.live))
		fd = s->v->fd;
	pthread_mutex_unlock(&st->lock);
	if (fd < 0 && s->o.live && !s->gone)
		fd = opened = st->blobs->ops->open(st->blobs, s->o.vid);
	if (fd >= 0)
		r = retime(st, s->v, fd, ts);
	if (opened >= 0)
		close(opened);
	return r;
}

/* chown(2) with -1 and -1 looks like what the kernel asks of itself when a file is written that has something to lose. So
 * root's leaves the mode alone; and of a draft it is the publishing that decides. */
static int drop_privileges(struct op *op, struct subject *s, const struct attribute_change *ch)
{
	bool replaces = s->v != NULL && s->v->role == ROLE_DRAFT && s->v->replaces;

	if (is_dir(&s->o))
		return 0;
	if ((ch->which & (CHANGE_UID | CHANGE_GID)) != 0)
		return privileges_after_chown(op, &s->o);
	return ch->which == 0 && !replaces ? privileges_after_write(op, &s->o, op->who->uid != 0) : 0;
}

static int set_fields(struct op *op, struct subject *s, const struct attribute_change *ch)
{
	struct meta_object *o = &s->o;
	struct store *st = op->st;
	int64_t now = store_now(st);
	int r = drop_privileges(op, s, ch);

	if ((ch->which & CHANGE_MODE) != 0)
		privileges_bless(st, s);
	if ((ch->which & CHANGE_MODE) != 0)
		o->mode = (o->mode & S_IFMT) | (ch->mode & 07777);
	if (r == 0 && (ch->which & CHANGE_MODE) != 0 && !s->gone)
		r = access_chmod(st, o);
	if ((ch->which & CHANGE_UID) != 0) {
		uint32_t before = o->uid;

		o->uid = ch->uid;
		if (r == 0 && !s->gone)
			r = usage_chown(st, o, before);
	}
	if ((ch->which & CHANGE_GID) != 0)
		o->gid = ch->gid;
	set_times(o, ch, now);
	o->ctime = now;
	return r == 0 ? set_draft_times(st, s, ch) : r;
}

/* Nothing of this concerns what it stands for. */
static int set_handle(struct op *op, struct meta_object *h, const struct attribute_change *ch)
{
	int64_t now = store_now(op->st);
	uint32_t before = h->uid;
	int r = 0;

	if ((ch->which & CHANGE_MODE) != 0)
		h->mode = (h->mode & S_IFMT) | (ch->mode & 07777);
	if ((ch->which & CHANGE_UID) != 0) {
		h->uid = ch->uid;
		r = usage_chown(op->st, h, before);
	}
	if ((ch->which & CHANGE_GID) != 0)
		h->gid = ch->gid;
	set_times(h, ch, now);
	h->ctime = now;
	return r == 0 ? op->st->meta->ops->object_update(op->st->meta, h) : r;
}

static unsigned nodes_of(struct store *st, const struct subject *s, uint64_t nodes[static 2])
{
	const struct object *obj = s->obj;
	unsigned n = 0;

	if (obj == NULL || !is_file(&s->o))
		return 0;
	pthread_mutex_lock(&st->lock);
	if (obj->draft != NULL && obj->draft->vid != s->o.vid)
		nodes[n++] = obj->draft->vid;
	if (n > 0 || s->v == NULL || s->v->vid != s->o.vid)
		nodes[n++] = s->o.vid;
	pthread_mutex_unlock(&st->lock);
	return n;
}

void rights_changed(struct op *op, const struct subject *s)
{
	uint64_t nodes[2];
	unsigned n = nodes_of(op->st, s, nodes);

	for (unsigned i = 0; i < n; i++)
		op_forget(op, nodes[i]);
}

bool store_has_nodes(struct store *st, uint64_t node)
{
	struct version *v;
	bool others;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, node);
	others = v != NULL && (v->object->current != v || v->object->draft != NULL);
	pthread_mutex_unlock(&st->lock);
	return others;
}

/* Of what has no name any more, and nobody has open that we know of. */
static int set_departed(struct op *op, struct subject *s, uint64_t node, const struct attribute_change *ch, struct entry *e)
{
	int r = departed_get(op->st, node, &s->o);

	if (r < 0)
		return r;
	s->gone = true;
	r = set_fields(op, s, ch);
	if (r == 0)
		r = departed_put(op->st, node, &s->o);
	*e = (struct entry){ .node = node, .o = s->o };
	return r;
}

int store_setattr(struct store *st, const struct caller *who, uint64_t node, const struct attribute_change *ch,
		  struct entry *e, struct meta_commit *c)
{
	struct subject s;
	struct op op;
	int r;

	op_begin(&op, st, who);
	r = subject_get_now(st, who, node, &s);
	if (r == -ENOENT && who->via == VIA_OWNER && (r = set_departed(&op, &s, node, ch, e)) == 0)
		return op_end(&op, 0, META_RECORDED, c);
	if (r < 0) {
		op_end(&op, r, META_READ, NULL);
		return r == -ENOENT ? intent_stale(st, who->tid, node, false) : r;
	}
	if (subject_self(&s) != &s.o)
		r = set_handle(&op, &s.handle, ch);
	else
		r = set_fields(&op, &s, ch);
	if (r == 0 && subject_self(&s) == &s.o && (ch->which & (CHANGE_MODE | CHANGE_UID | CHANGE_GID)) != 0)
		rights_changed(&op, &s);
	if (r == 0 && subject_self(&s) == &s.o)
		r = subject_save(st, &s);
	if (r == 0 && who->unseen)
		r = object_forget(&op, &s.o);
	else if (r == 0)
		op_shows_node(&op, s.o.vid);
	overlay(st, &s);
	entry_of(st, &s, node, e);
	subject_put(st, &s);
	intent_done(&op);
	return op_end(&op, r, META_RECORDED, c);
}

/* The tables in memory: objects and versions that are in use. Everything here runs under store->lock but subject_get,
 * which also needs the catalog. What nobody uses is not in memory: it is in the catalog. */
#include "core/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct object *object_find(struct store *st, uint64_t id)
{
	struct object *obj;

	HASH_FIND(hh, st->objects, &id, sizeof(id), obj);
	return obj;
}

struct object *object_ref(struct store *st, uint64_t id)
{
	struct object *obj = object_find(st, id);

	if (obj == NULL) {
		obj = kept_take(st, KEPT_OBJECT);
		if (obj == NULL)
			return NULL;
		obj->id = id;
		kept_live(st, obj);
		HASH_ADD(hh, st->objects, id, sizeof(id), obj);
		st->counts.objects++;
	}
	obj->refs++;
	return obj;
}

/* What a reader who finds the version in memory has to look at first. */
void object_guard(struct object *obj, const struct meta_object *o)
{
	obj->evict = o->evict;
	obj->guarded = o->evict || o->borrows == BORROWED_MUT || (is_file(o) && o->nlink == 0);
}

struct object *object_ref_row(struct store *st, const struct meta_object *o)
{
	struct object *obj = object_ref(st, o->id);

	if (obj == NULL)
		return NULL;
	object_guard(obj, o);
	return obj;
}

void object_unref(struct store *st, struct object *obj)
{
	if (obj == NULL || --obj->refs > 0)
		return;
	HASH_DELETE(hh, st->objects, obj);
	st->counts.objects--;
	orphans_free(obj);
	kept_give(st, KEPT_OBJECT, obj);
}

bool object_has_draft(struct store *st, uint64_t id)
{
	struct object *obj;
	bool has;

	pthread_mutex_lock(&st->lock);
	obj = object_find(st, id);
	has = obj != NULL && obj->draft != NULL;
	pthread_mutex_unlock(&st->lock);
	return has;
}

struct version *version_find(struct store *st, uint64_t vid)
{
	struct version *v;

	HASH_FIND(hh, st->versions, &vid, sizeof(vid), v);
	return v;
}

struct version *version_add(struct store *st, struct object *obj, uint64_t vid, enum role role)
{
	struct version *v = kept_take(st, KEPT_VERSION);

	if (v == NULL)
		return NULL;
	v->vid = vid;
	v->object = obj;
	v->object_id = obj->id;
	v->role = role;
	v->fd = -1;
	v->data = role == ROLE_DRAFT ? DATA_NONE : DATA_READY;
	kept_live(st, v);
	obj->refs++;
	if (role == ROLE_DRAFT) {
		obj->draft = v;
		st->counts.drafts++;
	} else if (role == ROLE_CURRENT) {
		obj->current = v;
	}
	HASH_ADD(hh, st->versions, vid, sizeof(vid), v);
	st->counts.versions++;
	return v;
}

static void version_free(struct store *st, struct version *v)
{
	struct object *obj = v->object;

	if (obj->current == v)
		obj->current = NULL;
	if (obj->draft == v)
		obj->draft = NULL;
	HASH_DELETE(hh, st->versions, v);
	st->counts.versions--;
	kept_give(st, KEPT_VERSION, v);
	object_unref(st, obj);
}

struct version_end version_put(struct store *st, struct version *v)
{
	struct version_end end = { .fd = -1 };

	if (--v->opens > 0 || v->role == ROLE_DRAFT)
		return end; /* a draft ends in draft_settle */
	end.fd = v->fd;
	end.remove = v->unlinked_data ? v->vid : 0;
	version_free(st, v);
	return end;
}

struct version *version_current(struct store *st, const struct meta_object *o)
{
	struct version *v = version_find(st, o->vid);
	struct object *obj;

	if (v != NULL)
		return v;
	obj = object_ref_row(st, o);
	if (obj == NULL)
		return NULL;
	v = version_add(st, obj, o->vid, ROLE_CURRENT);
	if (v != NULL) {
		v->size = o->size;
		v->mtime = o->mtime;
		v->blocks = o->blocks;
		v->live = o->live;
	}
	object_unref(st, obj); /* the version holds it now */
	return v;
}

#define REPLACED_MAX 4096

static void forget_replaced(struct store *st, struct replaced *rp)
{
	HASH_DELETE(hh, st->replaced, rp);
	DL_DELETE(st->replaced_order, rp);
	kept_give(st, KEPT_REPLACED, rp);
}

void version_replaced(struct store *st, const struct meta_object *o)
{
	struct replaced *rp = kept_take(st, KEPT_REPLACED);

	if (rp == NULL)
		return;
	*rp = (struct replaced){ .vid = o->vid, .object = o->id, .size = o->size, .mtime = o->mtime, .blocks = o->blocks };
	kept_live(st, rp);
	pthread_mutex_lock(&st->lock);
	if (HASH_COUNT(st->replaced) >= REPLACED_MAX)
		forget_replaced(st, st->replaced_order);
	HASH_ADD(hh, st->replaced, vid, sizeof(rp->vid), rp);
	DL_APPEND(st->replaced_order, rp);
	pthread_mutex_unlock(&st->lock);
}

void replaced_forget_all(struct store *st)
{
	while (st->replaced_order != NULL)
		forget_replaced(st, st->replaced_order);
}

static int get_replaced(struct store *st, uint64_t vid, struct meta_object *o)
{
	struct replaced copy = { 0 }, *rp;
	int r;

	pthread_mutex_lock(&st->lock);
	HASH_FIND(hh, st->replaced, &vid, sizeof(vid), rp);
	if (rp != NULL)
		copy = *rp;
	pthread_mutex_unlock(&st->lock);
	if (copy.object == 0)
		return -ENOENT;
	r = st->meta->ops->object_get(st->meta, copy.object, o);
	o->size = copy.size;
	o->mtime = copy.mtime;
	o->blocks = copy.blocks;
	return r;
}

static void find_object(struct store *st, struct subject *s)
{
	pthread_mutex_lock(&st->lock);
	s->obj = object_find(st, s->o.id);
	if (s->obj != NULL)
		s->obj->refs++;
	if (s->obj != NULL && s->obj->settling)
		s->o = s->obj->row;
	pthread_mutex_unlock(&st->lock);
}

int subject_get(struct store *st, uint64_t node, struct subject *s)
{
	struct meta *m = st->meta;
	bool settling = false;
	uint64_t id = 0;
	int r = 0;

	*s = (struct subject){ 0 };
	pthread_mutex_lock(&st->lock);
	s->v = version_find(st, node);
	if (s->v != NULL) {
		s->v->opens++;
		s->obj = s->v->object;
		s->obj->refs++;
		s->gone = s->obj->gone;
		settling = s->obj->settling;
		s->o = s->obj->row;
		id = s->obj->id;
	} else if ((s->obj = object_find(st, node)) != NULL) {
		s->gone = s->obj->gone && is_dir(&s->obj->row); /* removed, but somebody has it open */
		if (s->gone) {
			s->obj->refs++;
			s->o = s->obj->row;
		} else {
			s->obj = NULL;
		}
	}
	pthread_mutex_unlock(&st->lock);
	if (!s->gone && !settling)
		r = id != 0 ? m->ops->object_get(m, id, &s->o) : m->ops->object_by_version(m, node, &s->o);
	if (r == -ENOENT && id == 0 && !s->gone)
		r = get_replaced(st, node, &s->o);
	if (r < 0) {
		subject_put(st, s);
		return r;
	}
	if (s->obj == NULL)
		find_object(st, s);
	return 0;
}

/* One that went away after it was looked up is looked up again, and not found then. */
int store_opendir(struct store *st, uint64_t node, struct object **ret)
{
	struct meta_object o;
	struct op op;
	int r;

	*ret = NULL;
	op_begin(&op, st, NULL);
	r = st->meta->ops->object_get(st->meta, node, &o);
	pthread_mutex_lock(&st->lock);
	if (r == 0)
		*ret = object_ref(st, node);
	else if (r == -ENOENT && object_find(st, node) != NULL)
		*ret = object_ref(st, node); /* removed, but somebody has it open */
	pthread_mutex_unlock(&st->lock);
	op_end(&op, 0, META_READ, NULL);
	if (r == -ENOENT)
		return *ret != NULL ? 0 : -ESTALE;
	return r < 0 ? r : *ret != NULL ? 0 : -ENOMEM;
}

void store_closedir(struct store *st, struct object *dir)
{
	pthread_mutex_lock(&st->lock);
	object_unref(st, dir);
	pthread_mutex_unlock(&st->lock);
}

int subject_by_object(struct store *st, uint64_t id, struct subject *s)
{
	int r;

	*s = (struct subject){ 0 };
	r = st->meta->ops->object_get(st->meta, id, &s->o);
	if (r == 0)
		find_object(st, s);
	return r;
}

void subject_put(struct store *st, struct subject *s)
{
	struct version_end end = { .fd = -1 };

	pthread_mutex_lock(&st->lock);
	if (s->v != NULL)
		end = version_put(st, s->v);
	object_unref(st, s->obj);
	pthread_mutex_unlock(&st->lock);
	s->v = NULL;
	s->obj = NULL;
	version_end_in_op(st, end);
}

/* It is shown as it will be, but what of it comes with publishing has yet to be recorded, all at once. */
static int save_settling(struct store *st, struct subject *s)
{
	struct meta_object recorded, o = s->o;
	int r = st->meta->ops->object_get(st->meta, o.id, &recorded);

	if (r < 0)
		return r;
	o.version = recorded.version;
	o.state = recorded.state;
	o.error = recorded.error;
	o.deadline = recorded.deadline;
	o.durable = recorded.durable;
	o.producer_pid = recorded.producer_pid;
	o.producer_uid = recorded.producer_uid;
	memcpy(o.producer_command, recorded.producer_command, META_COMMAND_MAX);
	pthread_mutex_lock(&st->lock);
	s->obj->row = s->o;
	pthread_mutex_unlock(&st->lock);
	return st->meta->ops->object_update(st->meta, &o);
}

int subject_save(struct store *st, struct subject *s)
{
	bool settling;

	pthread_mutex_lock(&st->lock);
	settling = s->obj != NULL && s->obj->settling;
	pthread_mutex_unlock(&st->lock);
	if (!s->gone && settling)
		return save_settling(st, s);
	if (!s->gone)
		return st->meta->ops->object_update(st->meta, &s->o);
	pthread_mutex_lock(&st->lock);
	s->obj->row = s->o;
	pthread_mutex_unlock(&st->lock);
	return 0;
}

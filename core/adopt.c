/* Making the memory of a process that was killed that of this one: see kept.h. Everything here comes out the same
 * when it is begun again, since whoever does it may be killed as well.
 *
 *  in kept memory                       the catalog says                      then
 *  object                               no record, and memory neither         it was never made: dropped with all of it
 *                                       no record                             it is gone, as memory says
 *                                       a record without a name, `taken`      it is taken
 *                                       a record                              it is there, whatever memory says
 *  version, of an object that is there  its draft                             draft; closed if that says so
 *                                       current                               current
 *                                       neither, a draft in memory            it was never begun: dropped
 *                                       neither                               old
 *  version, of one that is gone         -                                     as in memory
 *  handle                               (its version is dropped)              dropped: it was never given
 *    that takes                         not taken                             the same; if being released, given up
 *    that is being released             -                                     released, once all is as it was
 *    that has not settled               -                                     asks again
 *  intent                               (its version is dropped)              looks again
 *
 * A draft that nobody writes now was left by whoever was about to open it, and has not been answered: it is held for
 * him for a moment, by an intent of nobody's. Drafts that nobody in memory knows, and all that has no version here,
 * are put right as after any other crash (recovery.c). */
#include "core/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The drafts that are recorded, by object */

struct recorded_draft {
	struct meta_draft d;
	UT_hash_handle hh;
};

struct adoption {
	struct store *st;
	struct recorded_draft *drafts;
	int32_t nobody; /* the next thread that does not exist */
};

static int note_draft(void *arg, const struct meta_draft *d)
{
	struct adoption *a = arg;
	struct recorded_draft *rd = calloc(1, sizeof(*rd));

	if (rd == NULL)
		return -ENOMEM;
	rd->d = *d;
	HASH_ADD(hh, a->drafts, d.object, sizeof(rd->d.object), rd);
	return 0;
}

static struct recorded_draft *draft_of(struct adoption *a, uint64_t object)
{
	struct recorded_draft *rd;

	HASH_FIND(hh, a->drafts, &object, sizeof(object), rd);
	return rd;
}

static void forget_drafts(struct adoption *a)
{
	struct recorded_draft *rd, *tmp;

	HASH_ITER(hh, a->drafts, rd, tmp) {
		HASH_DELETE(hh, a->drafts, rd);
		free(rd);
	}
}

/* Objects. store->lock and the catalog are held in all that follows. */

static int any_name(void *arg, const struct meta_dentry *d)
{
	return 1;
}

static int is_taken(struct store *st, uint64_t object)
{
	return st->meta->ops->taken_names(st->meta, object, any_name, NULL);
}

/* 1: it is one of ours, 0: it was never made. */
static int judge_object(struct adoption *a, struct object *obj)
{
	struct meta_object o;
	int r = a->st->meta->ops->object_get(a->st->meta, obj->id, &o), taken = 0;

	if (r == -ENOENT) {
		obj->taken = false;
		return obj->gone;
	}
	if (r == 0 && is_file(&o) && o.nlink == 0)
		taken = is_taken(a->st, obj->id);
	if (r < 0 || taken < 0)
		return r < 0 ? r : taken;
	obj->taken = taken > 0;
	obj->gone = obj->taken || (obj->gone && o.nlink == 0 && o.borrows == 0);
	if (obj->gone) {
		obj->row = o;
		obj->row.nlink = 0;
	}
	object_guard(obj, &o);
	return 1;
}

static int adopt_object(struct adoption *a, struct object *obj)
{
	struct store *st = a->st;
	int r;

	obj->refs = 0;
	obj->current = obj->draft = NULL;
	obj->waiters = obj->heir = NULL;
	obj->orphans = NULL;
	obj->settling = obj->bare = obj->adopted_taker = false;
	r = judge_object(a, obj);
	if (r == 0)
		kept_give(st, KEPT_OBJECT, obj);
	if (r <= 0)
		return r;
	HASH_ADD(hh, st->objects, id, sizeof(obj->id), obj);
	st->counts.objects++;
	obj->removed = obj->removed && obj->gone;
	if (obj->removed) {
		obj->refs = 1;
		atomic_fetch_add(&st->removed_dirs, 1);
	}
	return 0;
}

static int adopt_objects(struct adoption *a)
{
	struct object *obj;
	uint32_t at = 0;
	int r = 0;

	while (r == 0 && (obj = kept_next(a->st, KEPT_OBJECT, &at)) != NULL)
		r = adopt_object(a, obj);
	return r;
}

/* Versions */

static void become_draft(struct version *v, const struct meta_draft *d)
{
	v->role = ROLE_DRAFT;
	v->sealed = d->sealed && v->error == 0; /* and everybody has closed it, see count_handle */
	v->fsynced = v->fsynced || d->fsynced;
	v->aborted = v->unlinked_data = false;
}

static void become_current(struct version *v, const struct meta_object *o)
{
	v->role = v->object->gone ? ROLE_OLD : ROLE_CURRENT;
	v->object->current = v;
	v->aborted = v->unlinked_data = false;
	v->live = o->live;
	if (v->data != DATA_PREPARING)
		v->data = DATA_READY;
	v->size = o->size;
	v->mtime = o->mtime;
	v->blocks = o->blocks;
}

/* 1: it is one of ours. */
static int judge_version(struct adoption *a, struct version *v)
{
	struct recorded_draft *rd = draft_of(a, v->object_id);
	struct object *obj = v->object;
	struct meta_object o;
	int r = 0;

	if (!obj->gone || obj->taken)
		r = a->st->meta->ops->object_get(a->st->meta, obj->id, &o);
	if (r < 0)
		return r;
	if (obj->gone && !obj->taken) {
		v->role = v->role == ROLE_DRAFT ? ROLE_DRAFT : ROLE_OLD;
	} else if (rd != NULL && rd->d.vid == v->vid) {
		become_draft(v, &rd->d);
	} else if (o.vid == v->vid && o.state == OBJECT_READY) {
		become_current(v, &o);
	} else if (v->role == ROLE_DRAFT) {
		return 0;
	} else {
		v->role = ROLE_OLD;
	}
	if (v->role == ROLE_DRAFT) {
		obj->draft = v;
		a->st->counts.drafts++;
	}
	return 1;
}

static int adopt_version(struct adoption *a, struct version *v)
{
	struct store *st = a->st;
	int r = 0;

	v->opens = v->writers = v->readers = 0;
	v->writer_list = NULL;
	v->fd = -1;
	v->unsharing = false;
	v->object = object_find(st, v->object_id);
	if (v->object != NULL)
		r = judge_version(a, v);
	if (r == 0)
		kept_give(st, KEPT_VERSION, v);
	if (r <= 0)
		return r;
	v->object->refs++;
	HASH_ADD(hh, st->versions, vid, sizeof(v->vid), v);
	st->counts.versions++;
	return 0;
}

static int adopt_versions(struct adoption *a)
{
	struct version *v;
	uint32_t at = 0;
	int r = 0;

	while (r == 0 && (v = kept_next(a->st, KEPT_VERSION, &at)) != NULL)
		r = adopt_version(a, v);
	return r;
}

/* Handles */

static void reset_handle(struct store *st, struct handle *h)
{
	h->st = st;
	h->object = NULL;
	h->borrow = NULL;
	h->prev = h->next = NULL;
	h->waiter = (struct waiter){ 0 };
	h->told = (struct told){ 0 };
	h->on_settle = NULL;
	h->on_end = NULL;
	h->front = NULL;
	h->released = false;
	h->version = h->vid != 0 ? version_find(st, h->vid) : NULL;
	if (h->awaited == NULL)
		h->name = NULL; /* was in other memory */
	h->reader = h->awaited != NULL ? &h->awaited->who : NULL;
}

/* What takes something and has not taken it was not given to anybody. */
static bool has_taken(struct store *st, struct handle *h)
{
	struct object *obj = object_find(st, h->object_id);

	if (obj != NULL)
		return obj->gone;
	return h->version != NULL;
}

/* One that waits for a key is asked again by that name, so that has to be there. */
static bool can_ask_again(const struct handle *h)
{
	return h->object_id != 0 || h->awaited != NULL;
}

/* false: it was never given, or cannot be had. */
static bool judge_handle(struct store *st, struct handle *h)
{
	if (h->takes && !has_taken(st, h)) {
		if (!h->unsettled && !h->releasing)
			return false;
		h->takes = false;
		if (h->unsettled)
			h->version = NULL;
	}
	if (h->unsettled && h->version != NULL && h->version->role != ROLE_DRAFT)
		h->unsettled = false;
	if (h->unsettled) {
		h->version = NULL;
		h->vid = 0;
		return h->releasing || can_ask_again(h);
	}
	return h->version != NULL || h->failed < 0;
}

static void count_handle(struct store *st, struct handle *h)
{
	struct version *v = h->version;

	if (h->borrow_id != 0)
		h->borrow = object_ref(st, h->borrow_id);
	if (v == NULL)
		return;
	if (h->borrow != NULL)
		h->borrow->stands_for = v->vid;
	h->object = v->object;
	v->object->adopted_taker = v->object->adopted_taker || h->takes;
	v->opens++;
	if (h->releasing && v->role != ROLE_DRAFT && !v->live)
		h->writer = false; /* what it wrote is settled */
	v->readers += !h->writer;
	if (!h->writer)
		return;
	v->writers++;
	v->sealed = v->sealed && h->flushed;
	DL_APPEND(v->writer_list, h);
}

static void adopt_handles(struct store *st)
{
	struct awaited *aw;
	struct handle *h;
	uint32_t at = 0;

	while ((aw = kept_next(st, KEPT_AWAITED, &at)) != NULL)
		if (!kept_is_live(st, aw->of) || aw->of->awaited != aw)
			kept_give(st, KEPT_AWAITED, aw);
	at = 0;

	while ((h = kept_next(st, KEPT_HANDLE, &at)) != NULL) {
		reset_handle(st, h);
		if (judge_handle(st, h))
			count_handle(st, h);
		else
			handle_free(h);
	}
}

/* Intents */

static struct version *still_there(struct store *st, struct version *v)
{
	return v != NULL && kept_is_live(st, v) && version_find(st, v->vid) == v ? v : NULL;
}

static void judge_intent(struct store *st, struct intent *in)
{
	struct version *v = still_there(st, in->version);

	if (v == NULL && in->version != NULL) {
		in->wants_draft = in->wants_draft || in->write;
		in->away = true;
		in->write = in->pins = false;
		in->object = 0;
	}
	in->version = v;
	in->kept = still_there(st, in->kept);
	if (in->kept == NULL || in->reserved == 0) {
		in->kept = NULL;
		in->reserved = 0;
	}
	in->at = timers_now(); /* nobody can have come meanwhile */
}

static void adopt_intents(struct store *st)
{
	struct intent *in;
	uint32_t at = 0;

	while ((in = kept_next(st, KEPT_INTENT, &at)) != NULL) {
		if (in->tid < 0 || intent_find(st, in->tid) != NULL) { /* nobody's: made anew where it is needed */
			kept_give(st, KEPT_INTENT, in);
			continue;
		}
		judge_intent(st, in);
		if (in->version != NULL) {
			in->version->opens++;
			in->version->writers += in->write;
		}
		if (in->kept != NULL)
			in->kept->opens++;
		if (st->intents == NULL)
			timer_arm(st->timers, &st->intent_timer, in->at + INTENT_NS);
		HASH_ADD(hh, st->intents, tid, sizeof(in->tid), in);
	}
}

/* Data */

static bool is_shared(struct store *st, const struct version *v)
{
	struct stat bytes;

	return st->blobs->ops->stat(st->blobs, v->vid, &bytes) == 0 && bytes.st_nlink > 1;
}

/* Who prepared it has not come to an end. Nobody has it open then, but him who was making it. */
static void begin_data_anew(struct store *st, struct version *v)
{
	bool made = v->writer_list != NULL;

	st->blobs->ops->remove(st->blobs, v->vid);
	v->extends = v->continues = false;
	v->base = 0;
	v->data = DATA_NONE;
	if (!made)
		return;
	v->fd = new_file(st, v->vid);
	v->error = v->fd < 0 ? -v->fd : 0;
	v->data = v->fd < 0 ? DATA_NONE : DATA_READY;
	if (v->fd >= 0 && v->live)
		st->blobs->ops->publish(st->blobs, v->vid, v->vid);
}

/* Whoever flushes and records expects the descriptor of what is written to be there. */
static void open_data(struct store *st, struct version *v)
{
	if (v->data == DATA_PREPARING || (v->role == ROLE_DRAFT && v->data == DATA_NONE && v->writer_list != NULL))
		begin_data_anew(st, v);
	if (v->extends && !is_shared(st, v))
		v->extends = false;
	if (v->data != DATA_READY || v->fd >= 0 || (v->role != ROLE_DRAFT && v->writers == 0))
		return;
	v->fd = st->blobs->ops->open_for_user(st->blobs, v->moved != 0 ? v->moved : v->vid);
	if (v->fd < 0 && v->error == 0)
		v->error = -v->fd; /* nothing is published of it */
}

/* What is left when everybody has been counted */

/* Not as a writer: who comes and writes it is the last one, and closes it. Without memory it is settled as after any
 * other crash. */
static void hold_for_a_moment(struct adoption *a, struct version *v)
{
	intent_make(a->st, --a->nobody, v->object_id, v, false);
}

static void drop_version(struct store *st, struct version *v)
{
	struct object *obj = v->object;

	if (obj->current == v)
		obj->current = NULL;
	if (obj->draft == v) {
		obj->draft = NULL;
		st->counts.drafts--;
	}
	HASH_DELETE(hh, st->versions, v);
	st->counts.versions--;
	kept_give(st, KEPT_VERSION, v);
	object_unref(st, obj);
}

static void look_through_versions(struct adoption *a)
{
	struct store *st = a->st;
	struct version *v, *tmp;

	HASH_ITER(hh, st->versions, v, tmp) {
		if (v->role == ROLE_DRAFT && v->writers == 0 && (v->opens > 0 || !v->object->gone))
			hold_for_a_moment(a, v);
		if (v->opens == 0)
			drop_version(st, v);
		else
			open_data(st, v);
	}
}

static void look_through_objects(struct store *st)
{
	struct object *obj, *tmp;

	HASH_ITER(hh, st->objects, obj, tmp) {
		if (obj->refs == 0) {
			obj->refs = 1;
			object_unref(st, obj);
		}
	}
}

static void adopt_notes(struct store *st)
{
	struct replaced *rp, *other;
	struct departed *d, *before;
	uint32_t at = 0;

	while ((rp = kept_next(st, KEPT_REPLACED, &at)) != NULL) {
		HASH_FIND(hh, st->replaced, &rp->vid, sizeof(rp->vid), other);
		if (other != NULL) {
			kept_give(st, KEPT_REPLACED, rp);
			continue;
		}
		HASH_ADD(hh, st->replaced, vid, sizeof(rp->vid), rp);
		DL_APPEND(st->replaced_order, rp);
	}
	for (at = 0; (d = kept_next(st, KEPT_DEPARTED, &at)) != NULL;) {
		HASH_FIND(hh, st->departed, &d->node, sizeof(d->node), before);
		if (before != NULL) {
			kept_give(st, KEPT_DEPARTED, d);
			continue;
		}
		HASH_ADD(hh, st->departed, node, sizeof(d->node), d);
		DL_APPEND(st->departed_order, d);
		atomic_fetch_add(&st->departed_count, 1);
	}
}

int adopt(struct store *st)
{
	struct adoption a = { .st = st, .nobody = -1 };
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	pthread_mutex_lock(&st->lock);
	r = st->meta->ops->draft_list(st->meta, note_draft, &a);
	if (r == 0)
		r = adopt_objects(&a);
	if (r == 0)
		r = adopt_versions(&a);
	if (r == 0) {
		adopt_handles(st);
		adopt_intents(st);
		adopt_notes(st);
		look_through_versions(&a);
		look_through_objects(st);
	}
	pthread_mutex_unlock(&st->lock);
	op_end(&op, 0, META_READ, NULL);
	forget_drafts(&a);
	return r;
}

/* Serving begins: what was under way in the middle goes on. */
void adopt_go_on(struct store *st)
{
	struct handle *h;
	uint32_t at = 0;

	while ((h = kept_next(st, KEPT_HANDLE, &at)) != NULL) {
		if (h->releasing)
			store_release(h);
		else if (h->unsettled)
			handle_ask_again(h);
	}
}

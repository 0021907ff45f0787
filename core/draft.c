/* Drafts: from the first writer to the step that publishes them, all at once.
 *
 *  draft            catalog record         file            left by
 *  none             -                      -               first open for writing -> writing
 *  writing          draft                  drafts/VID      last close -> sealed; death -> settled
 *  sealed           draft, sealed          drafts/VID      RELEASE -> settled; another writer -> writing
 *  settled          -                      data/VID, or    (draft_rule.c says how)
 *                                          none
 *
 * A sealed draft counts as published if everything dies before RELEASE: close(2) has returned by then. */
#include "core/draft_rule.h"
#include "core/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RETRY_NS 200000000LL
#define MAPPED_LOOKS 10
#define MAPPED_PAUSE_US 1000

struct draft_search {
	uint64_t object;
	struct meta_draft d;
	bool found;
};

static int compare_draft(void *arg, const struct meta_draft *d)
{
	struct draft_search *s = arg;

	s->found = d->object == s->object;
	if (s->found)
		s->d = *d;
	return s->found;
}

uint64_t draft_recorded(struct store *st, uint64_t object)
{
	struct draft_search s = { .object = object };

	if (atomic_load(&st->meta->rollbacks) == 0)
		return 0;
	st->meta->ops->draft_list(st->meta, compare_draft, &s);
	return s.found ? s.d.vid : 0;
}

/* May a draft have the node that its writer was given? */
static bool is_free(struct store *st, uint64_t reserved)
{
	bool used;

	pthread_mutex_lock(&st->lock);
	used = reserved == 0 || version_find(st, reserved) != NULL;
	pthread_mutex_unlock(&st->lock);
	return !used;
}

int draft_begin(struct op *op, struct subject *s, struct version **ret)
{
	struct store *st = op->st;
	struct meta *m = st->meta;
	struct meta_object *o = &s->o;
	struct meta_draft d = { .object = o->id, .vid = o->vid };
	bool replaces = o->state == OBJECT_READY || s->gone;
	struct object *obj;
	int r = draft_recorded(st, o->id) != 0 ? st->meta->rollback_error : 0; /* what was closed has yet to be published */

	if (r == 0 && replaces && is_free(st, s->reserved))
		d.vid = s->reserved;
	else if (r == 0 && replaces)
		r = m->ops->new_id(m, &d.vid);
	if (r == 0 && o->error != 0 && !s->gone)
		r = m->ops->attribute_remove(m, o->id, "pfs.error");
	if (r == 0 && !replaces) {
		o->state = OBJECT_WRITING;
		o->error = 0;
		r = m->ops->object_update(m, o);
	}
	if (r == 0 && !s->gone) /* what has no name any more has no record, and will have no other version */
		r = m->ops->draft_put(m, &d);
	if (r < 0)
		return r;
	pthread_mutex_lock(&st->lock);
	obj = object_ref_row(st, o);
	*ret = obj != NULL ? version_add(st, obj, d.vid, ROLE_DRAFT) : NULL;
	if (*ret != NULL)
		(*ret)->replaces = replaces;
	object_unref(st, obj);
	pthread_mutex_unlock(&st->lock);
	return *ret != NULL ? 0 : -ENOMEM;
}

/* Everybody who has the name cached has the old version's node. The writer's own look-up has put that right for the
 * name that it used, which is none of the object's when it was borrowed; and who took a detour has made none. */
static int invalidate_others(struct op *op, const struct meta_object *o, bool detoured)
{
	if (o->nlink < 2 && o->borrows == 0 && !detoured)
		return 0;
	return names_invalidate(op, o->id);
}

static int forget_results(struct meta *m, const struct meta_object *o)
{
	int r = 0;

	if (o->version > 0)
		r = m->ops->attribute_remove(m, o->id, "pfs.sha256");
	if (r == 0 && o->error != 0)
		r = m->ops->attribute_remove(m, o->id, "pfs.error");
	return r;
}

static void become_published(struct meta_object *o, const struct publication *p)
{
	o->vid = p->vid;
	o->version++;
	o->state = OBJECT_READY;
	o->error = 0;
	o->deadline = 0;
	o->durable = p->durable;
	object_takes(o, p->bytes);
	o->producer_pid = p->producer->pid;
	o->producer_uid = p->uid;
	memcpy(o->producer_command, p->producer->command, META_COMMAND_MAX);
}

int draft_publish(struct op *op, struct meta_object *o, const struct publication *p)
{
	struct meta *m = op->st->meta;
	const struct meta_object old = *o;
	bool replaces = old.version > 0 && old.vid != p->vid;
	char key[PATH_MAX];
	int r = forget_results(m, o);

	if (replaces)
		version_replaced(op->st, o);
	if (r == 0 && p->written)
		r = privileges_after_write(op, o, p->unprivileged);
	become_published(o, p);
	if (r == 0)
		r = m->ops->object_update(m, o);
	if (r == 0)
		r = m->ops->draft_delete(m, o->id, p->vid);
	if (r == 0 && replaces)
		r = op_remove_data(op, &old, true);
	if (r == 0)
		r = path_of(op->st, o->id, key);
	if (r == 0)
		r = event_record(op, "put", key, o, p->producer, NULL);
	return r == 0 ? invalidate_others(op, o, p->detoured) : r;
}

/* The catalog could not record how a draft was settled (a full disk, most likely): try until it can. What was sealed is
 * recorded as such, so nothing that close(2) has acknowledged is lost, whatever happens meanwhile. */

struct resettling {
	struct timer timer;
	struct store *st;
	uint64_t object, vid;
	int failed;
	struct resettling *prev, *next;
};

/* Its object goes meanwhile: the file that was published, and taken back with the record, goes too. */
int draft_drop_unsettled(struct op *op, const struct meta_object *o)
{
	struct store *st = op->st;
	struct meta_object unsettled = *o;
	struct resettling *rs;

	unsettled.vid = 0;
	pthread_mutex_lock(&st->lock);
	DL_FOREACH(st->resettlings, rs)
		if (rs->object == o->id)
			unsettled.vid = rs->vid;
	pthread_mutex_unlock(&st->lock);
	return unsettled.vid != 0 ? op_remove_data(op, &unsettled, false) : 0;
}

static void note_settles(struct aftermath *a, uint64_t object, uint64_t vid, int failed)
{
	a->settles = object;
	a->draft = vid;
	a->failed = failed;
}

static bool version_is_draft(struct store *st, uint64_t vid)
{
	const struct version *v;
	bool is;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, vid);
	is = v != NULL && v->role == ROLE_DRAFT;
	pthread_mutex_unlock(&st->lock);
	return is;
}

/* The object was taken back with its draft, before anybody was told that it was recorded: nobody will need the file. */
static bool is_lost(struct store *st, uint64_t vid)
{
	struct meta_object o;
	bool in_use;

	pthread_mutex_lock(&st->lock);
	in_use = version_find(st, vid) != NULL;
	pthread_mutex_unlock(&st->lock);
	return !in_use && st->meta->ops->object_by_version(st->meta, vid, &o) == -ENOENT;
}

/* In its own operation; on failure it is tried again later. */
static int settle_once(struct store *st, uint64_t object, uint64_t vid, int failed)
{
	struct draft_search s = { .object = object };
	bool lost = false, ours;
	uint64_t as = 0;
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = st->meta->ops->draft_list(st->meta, compare_draft, &s);
	ours = r > 0 && s.d.vid == vid && !version_is_draft(st, vid);
	if (ours) {
		r = settle_recorded(&op, &s.d, failed, &as);
		if (r == 0 && op_after(&op) != NULL)
			note_settles(op.after, object, vid, failed);
		waiters_wake_id(&op, object, 0);
	} else if (r >= 0) {
		lost = is_lost(st, vid);
		r = 0;
	}
	op_end(&op, r, META_LATER, NULL);
	if (r == 0 && as != 0)
		st->blobs->ops->publish(st->blobs, vid, as);
	if (lost)
		st->blobs->ops->remove(st->blobs, vid);
	if (r < 0)
		draft_settle_later(st, object, vid, failed);
	return r;
}

static void settle_again(struct timer *t)
{
	struct resettling *rs = (struct resettling *)t;

	pthread_mutex_lock(&rs->st->lock);
	DL_DELETE(rs->st->resettlings, rs);
	pthread_mutex_unlock(&rs->st->lock);
	settle_once(rs->st, rs->object, rs->vid, rs->failed);
	free(rs);
}

void drafts_settle_now(struct store *st)
{
	struct resettling *rs, *next, *mine = NULL;

	if (atomic_load(&st->meta->rollbacks) == 0)
		return;
	pthread_mutex_lock(&st->lock);
	DL_FOREACH_SAFE(st->resettlings, rs, next)
		if (timer_disarm(st->timers, &rs->timer)) {
			DL_DELETE(st->resettlings, rs);
			DL_APPEND(mine, rs);
		}
	pthread_mutex_unlock(&st->lock);
	DL_FOREACH_SAFE(mine, rs, next) {
		settle_once(st, rs->object, rs->vid, rs->failed);
		free(rs);
	}
}

static void drop_resettling(struct timer *t)
{
	free(t);
}

void draft_settle_later(struct store *st, uint64_t object, uint64_t vid, int failed)
{
	struct resettling *rs = atomic_load(&st->closing) ? NULL : calloc(1, sizeof(*rs));

	if (rs == NULL)
		return; /* the next start does it */
	rs->timer.fire = settle_again;
	rs->timer.drop = drop_resettling; /* the next start does it */
	rs->st = st;
	rs->object = object;
	rs->vid = vid;
	rs->failed = failed;
	pthread_mutex_lock(&st->lock);
	DL_APPEND(st->resettlings, rs);
	pthread_mutex_unlock(&st->lock);
	timer_arm(st->timers, &rs->timer, timers_now() + RETRY_NS);
}

static int fail_future(struct op *op, struct meta_object *o, int error, const struct process *producer)
{
	struct subject s = { .o = *o };
	char reason[96];
	int r;

	if (error == EOWNERDEAD)
		snprintf(reason, sizeof(reason), "producer %d (%s) was killed", producer->pid, producer->command);
	else
		snprintf(reason, sizeof(reason), "producer %d (%s) could not write: %s", producer->pid,
			 producer->command, strerror(error));
	r = future_fail(op, &s, error, reason);
	*o = s.o;
	return r;
}

/* The next draft needs a version of its own: this one's number may be known to the kernel with these bytes, and to those
 * who have looked it up while it was pending. */
int draft_renew_version(struct op *op, struct meta_object *o)
{
	int r = op->st->meta->ops->new_id(op->st->meta, &o->vid);

	return r == 0 ? names_invalidate(op, o->id) : r;
}

static int keep_bytes(struct op *op, const struct meta_object *o, const struct draft_question *q,
		      const struct publication *p, uint64_t *kept)
{
	char key[PATH_MAX];
	int r = path_of(op->st, o->id, key);

	if (r < 0 || !q->killed)
		return r;
	r = event_record(op, "abort", key, o, p->producer, NULL);
	if (r == 0 && draft_keeps_bytes(q) && p->bytes->st_size > 0)
		r = aborted_keep(op, key, o, p->vid, p->bytes, kept);
	return r;
}

static int apply(struct op *op, struct meta_object *o, const struct draft_question *q, enum draft_verdict verdict,
		 const struct publication *p, uint64_t *kept)
{
	struct meta *m = op->st->meta;
	int r;

	if (q->gone)
		return 0;
	if (verdict == DRAFT_PUBLISH)
		return draft_publish(op, o, p);
	o->producer_uid = p->uid;
	r = m->ops->draft_delete(m, o->id, p->vid);
	if (r == 0 && (verdict == DRAFT_FAIL || verdict == DRAFT_PEND)) {
		r = draft_renew_version(op, o);
		o->state = OBJECT_PENDING;
		o->error = 0;
		if (r == 0)
			r = m->ops->object_update(m, o);
	}
	if (r == 0)
		r = keep_bytes(op, o, q, p, kept);
	if (r == 0 && verdict == DRAFT_FAIL)
		r = fail_future(op, o, q->error != 0 ? q->error : EOWNERDEAD, p->producer);
	if (r == 0 && verdict == DRAFT_REMOVE)
		r = object_evict(op, o, q->error != 0 ? -q->error : -EOWNERDEAD);
	return r;
}

/* store->lock held. */
static void leave_draft(struct store *st, struct version *v, enum draft_verdict verdict, uint64_t kept,
			const struct meta_object *o)
{
	struct object *obj = v->object;

	st->counts.drafts--;
	obj->draft = NULL;
	if (verdict != DRAFT_PUBLISH) {
		v->role = ROLE_OLD;
		v->aborted = true;
		v->unlinked_data = kept == 0;
		v->moved = kept;
		return;
	}
	if (obj->current != NULL)
		obj->current->role = ROLE_OLD;
	obj->current = v;
	v->role = ROLE_CURRENT;
	v->size = o->size;
	v->mtime = o->mtime;
	v->blocks = o->blocks;
}

/* What was closed is acknowledged, and is published. */
int draft_revoke(struct op *op, uint64_t object)
{
	struct store *st = op->st;
	struct object *obj;
	uint64_t vid = 0;
	int r;

	pthread_mutex_lock(&st->lock);
	obj = object_find(st, object);
	if (obj != NULL && obj->draft != NULL && !obj->draft->sealed)
		vid = obj->draft->vid;
	pthread_mutex_unlock(&st->lock);
	if (vid == 0)
		return 0;
	r = st->meta->ops->draft_delete(st->meta, object, vid);
	return r == 0 ? op_revoke(op, vid) : r;
}

void draft_revoked(struct store *st, uint64_t vid)
{
	struct version *v;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, vid);
	if (v != NULL && v->role == ROLE_DRAFT) {
		v->error = EBUSY;
		leave_draft(st, v, DRAFT_DROP, 0, NULL);
	}
	pthread_mutex_unlock(&st->lock);
}

bool draft_is_untouched(const struct version *v, const struct stat *bytes)
{
	return v->continues && !v->stored && v->data == DATA_READY &&
	       bytes->st_size == v->start_size && ns_of(&bytes->st_mtim) == v->start_mtime;
}

static struct draft_question draft_question(struct store *st, struct version *v, const struct meta_object *o,
					    const struct stat *bytes, bool killed)
{
	return (struct draft_question){
		.gone = v->object->gone,
		.replaces = v->replaces,
		.declared = o->declared,
		.has_data = v->data == DATA_READY && v->closed,
		.unchanged = draft_is_untouched(v, bytes),
		.error = v->error,
		.killed = killed,
		.fsynced = v->fsynced,
		.death_waits = st->options.producer_death_waits,
	};
}

static struct publication publication(const struct version *v, const struct stat *bytes)
{
	return (struct publication){
		.vid = v->vid, .bytes = bytes, .producer = &v->closer, .uid = v->producer_uid,
		.written = v->blessed_mtime != ns_of(&bytes->st_mtim),
		.unprivileged = v->unprivileged, .detoured = v->detoured,
		.durable = v->fsynced && v->synced_size == bytes->st_size && v->synced_mtime == ns_of(&bytes->st_mtim),
	};
}

/* By readers. One who takes it needs the record at once. */
static bool is_awaited(struct store *st, struct object *obj, const struct meta_object *o)
{
	const struct waiter *w;
	bool awaited;

	pthread_mutex_lock(&st->lock);
	awaited = obj->waiters != NULL && !o->evict;
	DL_FOREACH(obj->waiters, w)
		awaited = awaited && !w->takes;
	pthread_mutex_unlock(&st->lock);
	return awaited;
}

/* Those who wait for a future need not wait for the catalog: what they get is sealed there already. The catalog is left
 * to wake them and entered again; until the publication is recorded, the object shows the row that it will have, and
 * writers wait. */
static void show_published(struct op *op, struct version *v, const struct meta_object *o, const struct publication *p)
{
	const struct caller *who = op->who;
	struct store *st = op->st;
	struct meta_object row = *o;

	become_published(&row, p);
	pthread_mutex_lock(&st->lock);
	v->object->row = row;
	v->object->settling = true;
	leave_draft(st, v, DRAFT_PUBLISH, 0, &row);
	pthread_mutex_unlock(&st->lock);
	waiters_wake(op, v->object, 0);
	op_end(op, 0, META_READ, NULL);
	op_begin(op, st, who);
}

/* The memory of v after it was settled; it is its object's draft no longer. */
static void forget_draft(struct op *op, struct version *v, enum draft_verdict verdict, uint64_t kept, bool shown,
			 const struct meta_object *o)
{
	pthread_mutex_lock(&op->st->lock);
	if (!shown)
		leave_draft(op->st, v, verdict, kept, o);
	else if (v->object->gone)
		v->unlinked_data = true; /* removed before it was recorded */
	v->object->settling = false;
	pthread_mutex_unlock(&op->st->lock);
	waiters_wake(op, v->object, 0);
}

static int get_row(struct store *st, struct version *v, struct meta_object *o)
{
	struct object *obj = v->object;
	int r = st->meta->ops->object_get(st->meta, obj->id, o);

	if (r != -ENOENT)
		return r;
	pthread_mutex_lock(&st->lock); /* unlinked, or taken back by a failed commit */
	*o = obj->row;
	obj->gone = true;
	pthread_mutex_unlock(&st->lock);
	return 0;
}

/* Settles v, a draft without writers; the catalog is held. */
static int settle(struct op *op, struct version *v, enum draft_verdict *verdict, uint64_t *kept)
{
	struct store *st = op->st;
	struct stat bytes = { 0 };
	struct draft_question q;
	struct publication p;
	struct meta_object o;
	bool shown;
	int r = get_row(st, v, &o);

	if (v->fd >= 0)
		fstat(v->fd, &bytes);
	if (v->stored)
		bytes.st_mtim = timespec_of(store_now(st));
	q = draft_question(st, v, &o, &bytes, v->closer.fate == FATE_KILLED);
	p = publication(v, &bytes);
	*verdict = draft_rule(&q);
	shown = r == 0 && *verdict == DRAFT_PUBLISH && !v->replaces && is_awaited(st, v->object, &o);
	if (shown) {
		show_published(op, v, &o, &p);
		r = get_row(st, v, &o);
		q.gone = v->object->gone;
		if (!v->stored)
			fstat(v->fd, &bytes); /* its times may have been set */
	}
	if (*verdict != DRAFT_PUBLISH && v->error != 0 && !v->extends && v->fd >= 0 && ftruncate(v->fd, 0) < 0)
		perror("promisefs: giving back the space of a draft");
	if (v->extends && *verdict != DRAFT_PUBLISH && ftruncate(v->fd, v->start_size) < 0)
		perror("promisefs: undoing an append"); /* the next start does it */
	if (r == 0)
		r = apply(op, &o, &q, *verdict, &p, kept);
	forget_draft(op, v, *verdict, *kept, shown, &o);
	if (o.queued > 0)
		op_turn(op, o.id);
	if (r == 0 && op_after(op) != NULL)
		note_settles(op->after, v->object->id, v->vid, v->error);
	return r;
}

static void poison(struct store *st, struct version *v, int error)
{
	pthread_mutex_lock(&st->lock);
	v->error = error;
	pthread_mutex_unlock(&st->lock);
}

void draft_poison(struct store *st, uint64_t vid, int error)
{
	struct version *v;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, vid);
	if (v != NULL && v->role == ROLE_DRAFT) {
		v->error = error;
		v->sealed = false;
	}
	pthread_mutex_unlock(&st->lock);
}

/* A mapping outlives its descriptor, and with passthrough the release does not wait for it. A draft that nothing was
 * written to would be dropped, and with it what is still to be stored there. */
static bool is_mapped(struct store *st, const struct version *v)
{
	struct stat bytes;

	return v->mappable && v->fd >= 0 && !v->extends && v->closer.fate != FATE_KILLED && fstat(v->fd, &bytes) == 0 &&
	       draft_is_untouched(v, &bytes) && st->blobs->ops->is_written(st->blobs, v->fd);
}

/* What was stored by a mapping that is gone. Returns how often it had been opened for writing by then. */
static unsigned find_stores(struct store *st, struct version *v)
{
	struct stat bytes;
	bool closed, told;
	unsigned opens;

	pthread_mutex_lock(&st->lock);
	opens = v->writer_opens;
	told = v->stored;
	closed = v->role == ROLE_DRAFT && v->writers == 0 && v->mappable && v->fd >= 0 && v->base != 0 && !v->extends;
	pthread_mutex_unlock(&st->lock);
	if (told || !closed || (v->closer.fate == FATE_KILLED && !v->fsynced) || fstat(v->fd, &bytes) < 0 ||
	    !draft_is_untouched(v, &bytes) || !st->blobs->ops->differs(st->blobs, v->base, v->fd))
		return opens;
	pthread_mutex_lock(&st->lock);
	v->stored = true;
	pthread_mutex_unlock(&st->lock);
	return opens;
}

/* The kernel may let go of a closed file a moment after it has said so. */
static bool begin_settling(struct op *op, struct store *st, struct version *v, const struct caller *who)
{
	bool settles, again;
	unsigned opens;

	for (unsigned looks = 1;; looks++) {
		opens = find_stores(st, v);
		op_begin(op, st, who);
		pthread_mutex_lock(&st->lock);
		settles = v->role == ROLE_DRAFT && v->writers == 0;
		again = v->writer_opens != opens;
		pthread_mutex_unlock(&st->lock);
		if (!settles || (!again && !is_mapped(st, v)))
			return settles;
		if (!again && looks >= MAPPED_LOOKS)
			break;
		op_end(op, 0, META_READ, NULL);
		if (!again)
			usleep(MAPPED_PAUSE_US);
	}
	pthread_mutex_lock(&st->lock);
	v->stored = true;
	pthread_mutex_unlock(&st->lock);
	return settles;
}

void draft_settle(struct store *st, struct version *v, const struct caller *who)
{
	enum draft_verdict verdict = DRAFT_DROP;
	bool settles;
	uint64_t vid = v->vid, object = v->object->id, kept = 0;
	struct op op;
	int r = 0;

	if (v->closer.fate == FATE_KILLED && v->extends && draft_unshare(st, v) < 0)
		poison(st, v, ENOSPC); /* no room to keep what was torn */
	settles = begin_settling(&op, st, v, who);
	if (settles)
		r = settle(&op, v, &verdict, &kept);
	op_end(&op, r, META_LATER, NULL);
	if (settles && r >= 0 && (verdict == DRAFT_PUBLISH || kept != 0))
		st->blobs->ops->publish(st->blobs, vid, kept != 0 ? kept : vid);
	if (settles && r < 0)
		draft_settle_later(st, object, vid, v->error);

	version_release(st, v);
}

/* Open files: their data, flush, fsync, release; and readers with O_NONBLOCK. */
#include "core/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Below this much free space nothing is published: with kernel passthrough the daemon does not see a write fail, and
 * a file that was cut off by a full disk must not count as whole. */
#define SPACE_RESERVE (256 * 1024)

/* An append that power loss has taken back may have left its bytes behind the end. What has another name belongs to the
 * version that has replaced this one, too. */
static void cut_tail(int fd, int64_t size)
{
	struct stat bytes;

	if (fstat(fd, &bytes) == 0 && bytes.st_nlink == 1 && bytes.st_size > size && ftruncate(fd, size) < 0)
		perror("promisefs: cutting off what was never published");
}

/* Closed, but not recorded as published yet: it may have grown behind the end of the one before, in the same file. */
static bool is_unsettled(struct store *st, uint64_t object)
{
	struct op op;
	bool is;

	if (atomic_load(&st->meta->rollbacks) == 0)
		return false;
	op_begin(&op, st, NULL);
	is = draft_recorded(st, object) != 0;
	op_end(&op, 0, META_READ, NULL);
	return is;
}

static int version_fd(struct store *st, struct version *v)
{
	bool whole;
	int64_t size;
	int fd, ours;

	pthread_mutex_lock(&st->lock);
	fd = v->fd;
	size = v->size;
	whole = v->role != ROLE_DRAFT && !v->aborted && !v->live;
	pthread_mutex_unlock(&st->lock);
	if (fd >= 0)
		return fd;
	ours = st->blobs->ops->open_for_user(st->blobs, v->vid);
	if (ours == -ENOENT && v->moved != 0)
		ours = st->blobs->ops->open_for_user(st->blobs, v->moved);
	if (ours < 0)
		return ours;
	if (whole && !is_unsettled(st, v->object->id))
		cut_tail(ours, size);
	pthread_mutex_lock(&st->lock);
	if (v->fd < 0) {
		v->fd = ours;
		ours = -1;
	}
	fd = v->fd;
	pthread_mutex_unlock(&st->lock);
	if (ours >= 0)
		close(ours);
	return fd;
}

int handle_fd(struct handle *h)
{
	int r = handle_settled(h);

	return r < 0 ? r : version_fd(h->st, h->version);
}

uint64_t handle_vid(const struct handle *h)
{
	return h->version != NULL ? h->version->vid : 0;
}

bool handle_begins(const struct handle *h)
{
	bool begins;

	pthread_mutex_lock(&h->st->lock);
	begins = h->writer && h->version != NULL && h->version->role == ROLE_DRAFT && !h->version->replaces;
	pthread_mutex_unlock(&h->st->lock);
	return begins;
}

bool handle_is_final(const struct handle *h)
{
	bool final;

	pthread_mutex_lock(&h->st->lock);
	final = h->version != NULL && h->version->role != ROLE_DRAFT && h->version->writers == 0;
	pthread_mutex_unlock(&h->st->lock);
	return final;
}

void store_poison(struct handle *h, int error)
{
	pthread_mutex_lock(&h->st->lock);
	if (h->version != NULL && h->writer)
		h->version->error = error;
	pthread_mutex_unlock(&h->st->lock);
}

int store_make_private(struct handle *h)
{
	struct version *v = h->version;
	bool shared;

	pthread_mutex_lock(&h->st->lock);
	shared = v != NULL && v->extends;
	pthread_mutex_unlock(&h->st->lock);
	return shared ? draft_unshare(h->st, v) : 0;
}

int store_before_write(struct handle *h, int64_t at)
{
	struct version *v = h->version;
	bool shared;

	pthread_mutex_lock(&h->st->lock);
	shared = v != NULL && v->extends && at < v->start_size;
	pthread_mutex_unlock(&h->st->lock);
	return shared ? draft_unshare(h->st, v) : 0;
}

int store_ftruncate(struct handle *h, int64_t size)
{
	int fd = handle_fd(h), r = store_make_private(h);

	if (fd < 0 || r < 0)
		return fd < 0 ? fd : r;
	return ftruncate(fd, size) < 0 ? -errno : 0;
}

/* Files changed in place: the record follows the file. */
static int record_in_place(struct op *op, struct version *v)
{
	struct meta *m = op->st->meta;
	struct meta_object o;
	struct stat bytes;
	int r;

	if (v->aborted) /* a draft that was taken from its writer */
		return v->error != 0 ? -v->error : -EIO;
	if (v->object->gone || fstat(v->fd, &bytes) < 0)
		return 0;
	r = m->ops->object_get(m, v->object->id, &o);
	if (r == -ENOENT)
		return m->rollback_error; /* its making was taken back */
	if (r < 0)
		return r;
	if (o.mtime != ns_of(&bytes.st_mtim) && v->blessed_mtime != ns_of(&bytes.st_mtim))
		r = privileges_after_write(op, &o, v->unprivileged);
	object_takes(&o, &bytes);
	if (o.queued > 0)
		op_turn(op, o.id); /* it may have been the last who writes it */
	return r == 0 ? m->ops->object_update(m, &o) : r;
}

int draft_record(struct store *st, struct version *v, const struct stat *bytes)
{
	struct meta *m = st->meta;
	struct meta_draft d = { .object = v->object->id, .vid = v->vid, .sealed = v->sealed, .fsynced = v->fsynced,
				.size = bytes->st_size, .mtime = ns_of(&bytes->st_mtim) };
	struct meta_object o;
	uint64_t other;
	int r;

	if (v->object->gone)
		return 0;
	r = m->ops->object_get(m, d.object, &o);
	other = r == 0 ? draft_recorded(st, d.object) : 0;
	if (other != 0 && other != v->vid)
		r = m->rollback_error; /* ours was taken back, together with how the one before was settled */
	if (r == 0)
		r = m->ops->draft_put(m, &d);
	if (r == -ENOENT) /* a failed commit has taken the object back */
		r = v->error != 0 ? -v->error : atomic_load(&m->rollbacks) > 0 ? m->rollback_error : -EIO;
	return r;
}

/* Has everybody who writes it closed a descriptor? RELEASE of those who closed before may still be on its way, and whoever
 * has another descriptor of the same open is found when a reader waits. store->lock held. */
static bool all_flushed(const struct version *v)
{
	const struct handle *h;
	unsigned n = 0;

	DL_FOREACH(v->writer_list, h)
		n += h->flushed;
	return n == v->writers; /* which counts those who are about to open it, too */
}

static void done_now(struct meta_commit *c)
{
	c->done(c, 0);
}

/* Somebody else may have opened it since it was looked at: then it is he who closes it, and nobody must wait for a close that
 * is not under way. */
static int set_sealed(struct handle *h, const struct caller *who, bool sealed, enum meta_ack ack, struct meta_commit *c)
{
	struct version *v = h->version;
	struct stat bytes;
	struct op op;
	int r = fstat(v->fd, &bytes) < 0 ? -errno : 0;

	if (r < 0)
		return r;
	op_begin(&op, h->st, who);
	pthread_mutex_lock(&h->st->lock);
	if (sealed && !all_flushed(v)) {
		pthread_mutex_unlock(&h->st->lock);
		op_end(&op, 0, META_READ, NULL);
		done_now(c);
		return 0;
	}
	v->sealed = sealed;
	v->sealed_at = timers_now();
	v->held_up = false;
	pthread_mutex_unlock(&h->st->lock);
	r = draft_record(h->st, v, &bytes);
	if (r == 0 && sealed && op_after(&op) != NULL)
		op.after->poisons = v->vid; /* close(2) is told, so nothing must come of it */
	return op_end(&op, r, ack, c);
}

static bool has_space(struct store *st)
{
	if (st->blobs->ops->space(st->blobs) >= SPACE_RESERVE)
		return true;
	garbage_empty(st);
	return st->blobs->ops->space(st->blobs) >= SPACE_RESERVE;
}

static int flush_draft(struct handle *h, const struct caller *who, const struct process *closer, struct meta_commit *c)
{
	struct store *st = h->st;
	struct version *v = h->version;
	bool last, sealed, fsynced;
	int error;

	pthread_mutex_lock(&st->lock);
	h->flushed = true;
	last = all_flushed(v);
	sealed = v->sealed;
	fsynced = v->fsynced;
	error = v->error;
	v->closer = *closer;
	v->closed = true;
	v->producer_uid = h->uid;
	pthread_mutex_unlock(&st->lock);
	if (error != 0)
		return -error;
	if (closer->fate == FATE_KILLED) {
		if (sealed)
			set_sealed(h, who, false, META_LATER, NULL);
		done_now(c);
		return 0;
	}
	if (!has_space(st))
		return -ENOSPC;
	if (!last) {
		done_now(c); /* the others go on writing; the last one publishes */
		return 0;
	}
	return set_sealed(h, who, true, fsynced ? META_DURABLE : META_RECORDED, c);
}

static int flush_in_place(struct handle *h, const struct caller *who, struct meta_commit *c)
{
	struct op op;
	int r;

	op_begin(&op, h->st, who);
	r = record_in_place(&op, h->version);
	return op_end(&op, r, META_RECORDED, c);
}

int store_flush(struct handle *h, const struct caller *who, struct meta_commit *c)
{
	struct process closer;
	bool draft;
	int r;

	if (handle_settled(h) == 0 && h->takes) {
		h->st->hooks.process(h->st->hooks_arg, who->tid, &closer);
		once_flush(h, who, &closer, c);
		return 0;
	}
	if (!h->writer || h->version->fd < 0) {
		done_now(c);
		return 0;
	}
	h->st->hooks.process(h->st->hooks_arg, who->tid, &closer);
	pthread_mutex_lock(&h->st->lock);
	draft = h->version->role == ROLE_DRAFT;
	pthread_mutex_unlock(&h->st->lock);
	r = draft ? flush_draft(h, who, &closer, c) : flush_in_place(h, who, c);
	if (r < 0)
		store_poison(h, -r);
	return r;
}

/* A reader has synced what is published. */
static int mark_durable(struct op *op, struct version *v)
{
	struct meta *m = op->st->meta;
	struct meta_object o;
	int r = m->ops->object_get(m, v->object->id, &o);

	if (r < 0 || o.durable || o.vid != v->vid)
		return r == -ENOENT ? 0 : r;
	o.durable = true;
	return m->ops->object_update(m, &o);
}

int store_fsync(struct handle *h, struct meta_commit *c)
{
	static const struct caller nobody;
	int fd = handle_fd(h), r;
	bool draft, current;
	struct stat bytes;
	struct version *v;
	struct op op;

	if (fd < 0)
		return fd;
	v = h->version;
	r = h->st->blobs->ops->sync(h->st->blobs, fd);
	if (r < 0 || fstat(fd, &bytes) < 0) {
		store_poison(h, EIO);
		return r < 0 ? r : -errno;
	}
	op_begin(&op, h->st, &nobody);
	pthread_mutex_lock(&h->st->lock);
	v->fsynced = v->fsynced || h->writer;
	v->synced_size = bytes.st_size;
	v->synced_mtime = ns_of(&bytes.st_mtim);
	draft = v->role == ROLE_DRAFT;
	current = v->role == ROLE_CURRENT && !h->writer;
	pthread_mutex_unlock(&h->st->lock);
	r = draft ? draft_record(h->st, v, &bytes) : h->writer ? record_in_place(&op, v) : current ? mark_durable(&op, v) : 0;
	if (r == 0 && draft && op_after(&op) != NULL)
		op.after->poisons = v->vid;
	return op_end(&op, r, META_DURABLE, c);
}

static void release_writer(struct handle *h)
{
	const struct caller who = { .uid = h->uid, .tid = h->tid };
	struct store *st = h->st;
	struct version *v = h->version;
	bool draft, last;
	struct op op;

	pthread_mutex_lock(&st->lock);
	DL_DELETE(v->writer_list, h);
	last = --v->writers == 0;
	draft = v->role == ROLE_DRAFT;
	pthread_mutex_unlock(&st->lock);
	if (draft && last) {
		draft_settle(st, v, &who);
		return;
	}
	if (!draft) {
		op_begin(&op, st, &who);
		op_end(&op, record_in_place(&op, v), META_LATER, NULL);
	}
	version_release(st, v);
}

static void release_reader(struct handle *h)
{
	struct version_end end;

	pthread_mutex_lock(&h->st->lock);
	h->version->readers--;
	end = version_put(h->st, h->version);
	pthread_mutex_unlock(&h->st->lock);
	version_end(h->st, end);
}

static void free_handle(struct handle *h)
{
	if (h->on_end != NULL)
		h->on_end(h->front);
	pthread_mutex_lock(&h->st->lock);
	object_unref(h->st, h->borrow);
	pthread_mutex_unlock(&h->st->lock);
	if (h->takes)
		once_release(h);
	if (h->version != NULL && h->writer)
		release_writer(h);
	else if (h->version != NULL)
		release_reader(h);
	handle_free(h);
}

void store_release(struct handle *h)
{
	bool busy;

	if (h == NULL)
		return;
	h->releasing = true;
	store_cancel_wait(h->st, &h->waiter);
	pthread_mutex_lock(&h->st->lock);
	busy = h->waiter.waking;
	h->released = busy;
	pthread_mutex_unlock(&h->st->lock);
	if (!busy)
		free_handle(h);
}

/* Readers with O_NONBLOCK: a handle that waits, instead of a thread. */

/* store->lock held. */
static int wait_on(struct handle *h, const struct meta_object *o)
{
	struct object *obj = object_ref_row(h->st, o);
	int r;

	h->waiter.takes = once_takes(o, h->via, false);
	r = obj == NULL ? -ENOMEM : waiter_list(h->st, &h->waiter, obj, NULL);
	object_unref(h->st, obj);
	return r;
}

static int read_current(struct handle *h, const struct meta_object *o)
{
	struct version *v = version_current(h->st, o);

	if (v != NULL) {
		v->opens++;
		v->readers++;
	}
	h->vid = v != NULL ? v->vid : 0;
	h->version = v;
	return v == NULL ? -ENOMEM : 0;
}

/* It may be somebody else's turn, or a new version is on its way. */
static bool must_wait_to_take(struct handle *h, const struct meta_object *o)
{
	struct object *obj = object_find(h->st, o->id);

	return obj != NULL && (obj->draft != NULL || obj->settling || (obj->heir != NULL && obj->heir != &h->waiter));
}

static void let_go_in_op(struct handle *h)
{
	struct version_end end;

	pthread_mutex_lock(&h->st->lock);
	h->version->readers--;
	end = version_put(h->st, h->version);
	h->version = NULL;
	h->vid = 0;
	pthread_mutex_unlock(&h->st->lock);
	version_end_in_op(h->st, end);
}

/* By now somebody may append to it again, in the same file (extend.c). The draft cannot end while the catalog is held. 1:
 * that is being prepared, so there is no saying whose file it is. */
static int part_from_draft(struct store *st, const struct meta_object *o)
{
	struct version *d;
	struct object *obj;
	bool shared, busy;

	pthread_mutex_lock(&st->lock);
	obj = object_find(st, o->id);
	d = obj != NULL ? obj->draft : NULL;
	shared = d != NULL && d->extends && d->base == o->vid;
	busy = shared && (d->unsharing || d->data == DATA_PREPARING);
	pthread_mutex_unlock(&st->lock);
	return busy ? 1 : shared ? draft_unshare(st, d) : 0;
}

static int settle_handle(struct handle *h, struct meta_object *o, struct op *op)
{
	struct store *st = h->st;
	bool takes = once_takes(o, h->via, false);
	int r = takes ? borrow_rule(o->borrows, VIA_OWNER, ACT_EVICT) : borrow_rule(o->borrows, h->via, ACT_READ);

	if (o->nlink == 0 && (h->via == VIA_OWNER || h->via == VIA_ONCE))
		return -ENOENT;
	if (r == 0 && o->state == OBJECT_READY)
		r = part_from_draft(st, o);
	if (r < 0)
		return r;
	pthread_mutex_lock(&st->lock);
	r = r > 0 || o->state != OBJECT_READY || (takes && must_wait_to_take(h, o)) ? wait_on(h, o) : read_current(h, o);
	pthread_mutex_unlock(&st->lock);
	if (r != 0 || !takes)
		return r;
	r = once_take(op, o);
	h->takes = r == 0;
	if (r < 0)
		let_go_in_op(h);
	return r;
}

/* Waits for its turn, and is then read as what it stands for. */
static int look_at_borrow(struct handle *h, const struct meta_object *borrow, struct op *op)
{
	struct meta *m = h->st->meta;
	struct meta_borrow b;
	struct meta_object o;
	int r = m->ops->borrow_get(m, borrow->id, &b);

	if (r == 0)
		r = m->ops->object_get(m, b.object, &o);
	if (r < 0)
		return r;
	if (borrow->declared && o.state == OBJECT_FAILED)
		return future_error(h->st, &o);
	if (!borrow->declared) {
		h->via = b.mut ? VIA_MUT : VIA_REF;
		return settle_handle(h, &o, op);
	}
	pthread_mutex_lock(&h->st->lock);
	r = wait_on(h, borrow);
	pthread_mutex_unlock(&h->st->lock);
	return r;
}

/* The catalog is held, so nothing settles in between. */
static int look_at(struct handle *h, struct op *op)
{
	struct meta *m = h->st->meta;
	struct meta_dentry d;
	struct meta_object o;
	int r = h->object_id == 0 ? m->ops->dentry_get(m, h->parent, h->name, &d) : 0;

	if (r == -ENOENT) {
		pthread_mutex_lock(&h->st->lock);
		r = waiter_list_absent(h->st, &h->waiter, h->parent, h->name);
		pthread_mutex_unlock(&h->st->lock);
		return r;
	}
	if (r == 0 && h->object_id == 0)
		h->object_id = d.object;
	if (r == 0)
		r = m->ops->object_get(m, h->object_id, &o);
	if (r == 0 && is_borrow(&o))
		return look_at_borrow(h, &o, op);
	if (r < 0)
		return r == -ENOENT ? -ECANCELED : r;
	if (h->reader != NULL && (r = access_check(h->st, h->reader, &o, 4)) < 0)
		return r;
	if (o.state == OBJECT_FAILED)
		return future_error(h->st, &o);
	return settle_handle(h, &o, op);
}

void handle_take(struct waiter *w, struct version *v)
{
	struct handle *h = (struct handle *)((char *)w - offsetof(struct handle, waiter));

	h->vid = v->vid;
	h->version = v;
	v->opens++;
	v->readers++;
}

static void settled(struct told *t)
{
	struct handle *h = (struct handle *)((char *)t - offsetof(struct handle, told));
	void (*on_settle)(struct handle *h);
	bool released;

	pthread_mutex_lock(&h->st->lock);
	h->unsettled = false;
	on_settle = h->released ? NULL : h->on_settle;
	pthread_mutex_unlock(&h->st->lock);
	if (on_settle != NULL)
		on_settle(h);

	pthread_mutex_lock(&h->st->lock);
	h->waiter.waking = false;
	released = h->released;
	pthread_mutex_unlock(&h->st->lock);
	if (released)
		free_handle(h);
}

static void unsettled_woken(struct waiter *w, int r)
{
	struct handle *h = (struct handle *)((char *)w - offsetof(struct handle, waiter));
	const struct caller who = { .tid = h->tid, .uid = h->uid, .via = h->via };
	struct op op;

	if (h->name != NULL) /* whatever has that name now: not the one whose heir this was, perhaps */
		store_wait_over(h->st, w);
	if (r == -EOWNERDEAD && h->name != NULL) { /* awaits the key, whosever draft went away */
		h->object_id = 0;
		r = 0;
	}
	if (r == 0 && h->version == NULL) {
		op_begin_named(&op, h->st, &who); /* he may take it */
		r = look_at(h, &op);
		op_end(&op, r < 0 ? r : 0, r == 0 && h->takes ? META_LATER : META_READ, NULL); /* waiting, h may be gone */
	}
	if (r == STORE_WAITING)
		return;
	if (r == 0 && h->takes)
		r = once_recorded(h);
	store_wait_over(h->st, w);
	h->failed = r == -ESTALE ? -ECANCELED : r;
	h->told.done = settled;
	if (h->takes || r < 0) /* its keys are gone, perhaps: whoever hears of this finds it so */
		h->st->hooks.told(h->st->hooks_arg, &h->told);
	else
		settled(&h->told);
}

static void begin_waiting(struct handle *h)
{
	h->waiter = (struct waiter){ .wake = unsettled_woken, .tid = h->tid, .uid = h->uid, .lingers = true };
}

/* As in the process before: it may have settled meanwhile. */
void handle_ask_again(struct handle *h)
{
	const struct caller who = { .tid = h->tid, .uid = h->uid, .via = h->via };
	struct op op;
	int r;

	begin_waiting(h);
	op_begin_named(&op, h->st, &who);
	r = look_at(h, &op);
	op_end(&op, r < 0 ? r : 0, r == 0 && h->takes ? META_LATER : META_READ, NULL);
	if (r == STORE_WAITING)
		return;
	if (r == 0 && h->takes)
		r = once_recorded(h);
	pthread_mutex_lock(&h->st->lock);
	h->failed = r == -ESTALE ? -ECANCELED : r;
	h->unsettled = false;
	pthread_mutex_unlock(&h->st->lock);
}

static struct handle *new_unsettled(struct store *st, const struct caller *who, uint64_t node, int flags)
{
	struct handle *h = handle_new(st);

	if (h == NULL)
		return NULL;
	h->node = node;
	h->flags = flags;
	h->tid = who->tid;
	h->uid = who->uid;
	h->via = who->via;
	h->unsettled = true;
	begin_waiting(h);
	return h;
}

/* The key that it awaits, and for whom. */
static int set_awaited(struct handle *h, const struct caller *who, uint64_t parent, const char *name)
{
	struct awaited *a = h->kept && who->group_count <= AWAITED_GROUPS ? kept_take(h->st, KEPT_AWAITED) : NULL;

	h->parent = parent;
	if (a == NULL) {
		h->name = strdup(name);
		h->reader = h->name != NULL ? caller_keep(who) : NULL;
		return h->reader != NULL ? 0 : -ENOMEM;
	}
	a->of = h;
	snprintf(a->name, sizeof(a->name), "%s", name);
	a->who = *who;
	a->who.groups = a->groups;
	if (who->group_count > 0)
		memcpy(a->groups, who->groups, who->group_count * sizeof(*who->groups));
	h->name = a->name;
	h->reader = &a->who;
	h->awaited = a;
	kept_live(h->st, a);
	return 0;
}

/* r: what look_at said. From STORE_WAITING on, h may be settled by others. */
static int give_unsettled(struct handle *h, int r, struct handle **ret)
{
	if (r < 0) {
		handle_free(h);
		return r;
	}
	if (r == 0)
		h->unsettled = false;
	*ret = h;
	return 0;
}

static int end_looking(struct handle *h, struct op *op, int r, struct handle **ret)
{
	if (r >= 0)
		kept_live(h->st, h);
	op_end(op, r < 0 ? r : 0, r == 0 && h->takes ? META_LATER : META_READ, NULL);
	if (r != 0 || !h->takes)
		return give_unsettled(h, r, ret);
	h->unsettled = false;
	*ret = h;
	r = once_recorded(h);
	if (r < 0)
		store_release(h);
	return r;
}

int store_open_unsettled(struct store *st, const struct caller *who, uint64_t node, int flags, struct handle **ret)
{
	struct handle *h = new_unsettled(st, who, node, flags);
	struct subject s;
	struct op op;
	int r;

	if (h == NULL)
		return -ENFILE;
	op_begin_named(&op, st, who);
	r = subject_get_via(st, who->via, node, &s);
	if (r == -ENOENT)
		r = -ESTALE;
	if (r == 0) {
		h->object_id = subject_self(&s)->id;
		r = look_at(h, &op);
		subject_put(st, &s);
	}
	return end_looking(h, &op, r, ret);
}

int store_await_unsettled(struct store *st, const struct caller *who, uint64_t parent, const char *name, int flags,
			  struct handle **ret)
{
	struct handle *h = new_unsettled(st, who, 0, flags);
	struct op op;
	int r = h != NULL ? set_awaited(h, who, parent, name) : -ENFILE;

	if (r < 0)
		return h != NULL ? give_unsettled(h, r, ret) : r;
	op_begin_named(&op, st, who);
	r = look_at(h, &op);
	return end_looking(h, &op, r, ret);
}

int handle_settled(struct handle *h)
{
	int r;

	pthread_mutex_lock(&h->st->lock);
	r = h->unsettled ? -EAGAIN : h->failed;
	pthread_mutex_unlock(&h->st->lock);
	return r;
}

void handle_on_settle(struct handle *h, void (*fn)(struct handle *h), void (*end)(void *front), void *front)
{
	pthread_mutex_lock(&h->st->lock);
	h->on_settle = fn;
	h->on_end = end;
	h->front = front;
	pthread_mutex_unlock(&h->st->lock);
}

void handle_forget(struct handle *h)
{
	if (h == NULL)
		return;
	if (h->awaited == NULL) {
		free(h->name);
		free(h->reader);
	}
	if (!h->kept)
		free(h);
}

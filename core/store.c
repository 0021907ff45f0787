/* The life of a store, and the bracket around each operation. */
#include "core/fsck.h"
#include "core/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RESYNC_NS 200000000LL

void op_begin(struct op *op, struct store *st, const struct caller *who)
{
	*op = (struct op){ .st = st, .who = who };
	if (who != NULL)
		atomic_fetch_add_explicit(&st->asked, 1, memory_order_relaxed);
	st->meta->ops->begin(st->meta);
}

/* The record of a removal goes away with the file. When the file cannot be removed it stays recorded as garbage, and
 * the next start tries again. */
void version_end_in_op(struct store *st, struct version_end end)
{
	if (end.fd >= 0)
		close(end.fd);
	if (end.remove != 0 && !garbage_put_off(st, end.remove) && st->blobs->ops->remove(st->blobs, end.remove) == 0)
		st->meta->ops->garbage_remove(st->meta, end.remove);
}

void version_end(struct store *st, struct version_end end)
{
	struct op op;

	if (end.fd >= 0)
		close(end.fd);
	if (end.remove == 0 || garbage_put_off(st, end.remove) || st->blobs->ops->remove(st->blobs, end.remove) < 0)
		return;
	op_begin(&op, st, NULL);
	op_end(&op, st->meta->ops->garbage_remove(st->meta, end.remove), META_LATER, NULL);
}

void version_release(struct store *st, struct version *v)
{
	struct version_end end;

	pthread_mutex_lock(&st->lock);
	end = version_put(st, v);
	pthread_mutex_unlock(&st->lock);
	version_end(st, end);
}

void op_begin_named(struct op *op, struct store *st, const struct caller *who)
{
	struct process p;

	st->hooks.process(st->hooks_arg, who->tid, &p);
	op_begin(op, st, who);
	op->process = p;
}

static void notes_free(struct op_note *notes)
{
	struct op_note *n, *next;

	LL_FOREACH_SAFE(notes, n, next) {
		free(n->name);
		free(n->detail);
		free(n);
	}
}

/* Whoever has looked between the operation and its being taken back may have told the kernel to keep what he saw. */
static void tell_taken_back(struct store *st, struct op_note *notes)
{
	struct op_note *n;

	LL_FOREACH(notes, n) {
		if (n->name != NULL)
			st->hooks.invalidate(st->hooks_arg, n->parent, n->name);
		else
			st->hooks.forget(st->hooks_arg, n->parent);
	}
}

static void after_commit(struct meta_commit *c, int r)
{
	struct aftermath *a = (struct aftermath *)c;

	if (r < 0) {
		garbage_keep(a->st, a->removals);
		tell_taken_back(a->st, a->names);
	}
	notes_free(a->names);
	if (r < 0 && a->poisons != 0)
		draft_poison(a->st, a->poisons, -r);
	if (a->makes != 0 && r < 0)
		a->st->blobs->ops->remove(a->st->blobs, a->makes);
	else if (a->makes != 0)
		a->st->blobs->ops->publish(a->st->blobs, a->makes, a->makes); /* it is found in either place */
	for (unsigned i = 0; i < FORGOTTEN_MAX && a->forgotten[i] != 0; i++)
		a->st->hooks.forget_now(a->st->hooks_arg, a->forgotten[i]);
	if ((r < 0 || !garbage_take(a->st, a->removals, a->user)) && a->user != NULL)
		a->user->done(a->user, r);
	if (a->settles != 0 && r < 0)
		draft_settle_later(a->st, a->settles, a->draft, a->failed);
	free(a);
}

struct aftermath *op_after(struct op *op)
{
	if (op->after == NULL) {
		op->after = calloc(1, sizeof(*op->after));
		if (op->after != NULL) {
			op->after->st = op->st;
			op->after->c.done = after_commit;
		}
	}
	return op->after;
}

static int op_note(struct op *op, enum note what, uint64_t id)
{
	struct op_note *n = calloc(1, sizeof(*n));

	if (n == NULL)
		return -ENOMEM;
	n->what = what;
	n->parent = id;
	LL_APPEND(op->notes, n);
	return 0;
}

void op_turn(struct op *op, uint64_t object)
{
	op_note(op, NOTE_TURN, object); /* without memory the next change does it */
}

void op_forget(struct op *op, uint64_t node)
{
	op_note(op, NOTE_NODE, node); /* without memory the kernel shows the old ones a while longer */
}

int op_revoke(struct op *op, uint64_t draft)
{
	return op_note(op, NOTE_REVOKE, draft);
}

void op_shows_node(struct op *op, uint64_t node)
{
	op_note(op, NOTE_NODE_NOW, node);
}

static void note_name(struct op *op, enum note what, uint64_t parent, const char *name)
{
	struct op_note *n;

	if (parent == META_REF || parent == META_MUT)
		return; /* nothing there is cached */
	n = calloc(1, sizeof(*n));
	if (n == NULL || (n->name = strdup(name)) == NULL) {
		free(n);
		return; /* the kernel keeps a name a while longer; opening it finds out */
	}
	n->what = what;
	n->parent = parent;
	LL_APPEND(op->notes, n);
}

void op_invalidate(struct op *op, uint64_t parent, const char *name)
{
	note_name(op, NOTE_NAME, parent, name);
}

void op_shows_name(struct op *op, uint64_t parent, const char *name)
{
	note_name(op, NOTE_NAME_NOW, parent, name);
}

/* Names that mean something else now, before anybody can be told that the operation is recorded: he may look at once.
 * Whoever looks one up meanwhile has to wait for the catalog. */
static void tell_names(struct store *st, struct op_note *notes)
{
	struct op_note *n;

	LL_FOREACH(notes, n) {
		if (n->what == NOTE_NAME)
			st->hooks.invalidate(st->hooks_arg, n->parent, n->name);
		else if (n->what == NOTE_NODE)
			st->hooks.forget(st->hooks_arg, n->parent);
	}
}

static void tell_the_rest(struct store *st, struct op_note *notes)
{
	struct op_note *n;

	LL_FOREACH(notes, n) {
		if (n->what == NOTE_EVENT)
			st->hooks.event(st->hooks_arg, &n->event);
		else if (n->what == NOTE_TURN)
			borrow_turn(st, n->parent);
	}
	notes_free(notes);
}

/* What is told again if the operation is taken back later. */
static void keep_names(struct op *op)
{
	struct op_note *n, *next;

	LL_FOREACH_SAFE(op->notes, n, next) {
		if (n->what > NOTE_NODE_NOW || op_after(op) == NULL)
			continue;
		LL_DELETE(op->notes, n);
		LL_APPEND(op->after->names, n);
	}
}

static void revoke_drafts(struct store *st, struct op_note *notes)
{
	struct op_note *n;

	LL_FOREACH(notes, n)
		if (n->what == NOTE_REVOKE)
			draft_revoked(st, n->parent);
}

int op_end(struct op *op, int r, enum meta_ack ack, struct meta_commit *c)
{
	struct meta *m = op->st->meta;

	tell_names(op->st, op->notes);
	if (r >= 0)
		revoke_drafts(op->st, op->notes);
	if (r >= 0 && (c != NULL ? ack != META_READ : ack == META_LATER)) /* else the engine waits for it */
		keep_names(op);
	if (r < 0) {
		/* Rules refuse before they change anything, so there is nothing to take back; when the catalog itself
		 * failed in the middle, the engine knows. */
		m->ops->end(m, op->after != NULL ? META_ABANDON : META_READ, NULL);
		if (op->after != NULL) {
			op->after->settles = 0; /* whoever settles sees to it */
			after_commit(&op->after->c, r);
		}
	} else if (op->after != NULL) {
		op->after->user = c;
		m->ops->end(m, ack, &op->after->c);
	} else {
		m->ops->end(m, ack, c);
	}
	waiters_run(op->woken);
	tell_the_rest(op->st, op->notes);
	if (op->let_go != NULL)
		version_let_go(op->st, op->let_go, op->who);
	return r;
}

struct recorded {
	struct meta_commit c;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int result;
};

static void now_recorded(struct meta_commit *c, int r)
{
	struct recorded *w = (struct recorded *)c;

	pthread_mutex_lock(&w->lock);
	w->done = true;
	w->result = r;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

/* Of a future that was declared in an earlier mount, power loss may have left what it has taken back. */
int new_file(struct store *st, uint64_t vid)
{
	struct blobs *b = st->blobs;
	int r = vid < st->meta->first ? b->ops->remove(b, vid) : 0;

	return r < 0 ? r : b->ops->create(b, vid);
}

int object_of_version(struct store *st, uint64_t vid, struct meta_object *o)
{
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = st->meta->ops->object_by_version(st->meta, vid, o);
	op_end(&op, 0, META_READ, NULL);
	return r;
}

int record_now(struct store *st, enum meta_ack ack)
{
	st->meta->ops->begin(st->meta);
	return end_and_wait(st->meta, ack);
}

int end_and_wait(struct meta *m, enum meta_ack ack)
{
	struct recorded w = { .c.done = now_recorded, .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

	m->ops->end(m, ack, &w.c);
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	return w.result;
}

struct taken_back {
	struct store *st;
	int error;
};

/* A draft that began together with how the one before was settled, and was taken back with it. It may have the wrong start. */
static int fail_overtaken(void *arg, const struct meta_draft *d)
{
	const struct taken_back *t = arg;
	struct object *obj = object_find(t->st, d->object);

	if (obj != NULL && obj->draft != NULL && obj->draft->vid != d->vid && obj->draft->error == 0)
		obj->draft->error = t->error;
	return 0;
}

/* Timers may have missed their turn; and what is memory to believe? */
static void resync_later(void *arg)
{
	struct store *st = arg;

	timer_arm(st->timers, &st->resync_timer, timers_now() + RESYNC_NS);
}

/* Operations were taken back: what memory believes of names that went away may be wrong. */
static void resync(void *arg, int r)
{
	struct store *st = arg;
	struct object *obj, *tmp;
	bool again;
	struct op op;

	op_begin(&op, st, NULL);
	pthread_mutex_lock(&st->lock);
	again = st->meta->ops->draft_list(st->meta, fail_overtaken, &(struct taken_back){ st, -r }) < 0;
	HASH_ITER(hh, st->objects, obj, tmp) {
		struct meta_object o;

		int got = st->meta->ops->object_get(st->meta, obj->id, &o);

		if (got == -ENOENT && obj->draft != NULL && obj->draft->error == 0)
			obj->draft->error = -r; /* what was being made is no more */
		again = again || (got < 0 && got != -ENOENT);
		if (got < 0)
			continue;
		obj->gone = obj->gone && o.nlink == 0 && o.borrows == 0; /* taken, perhaps */
		obj->taken = obj->gone;
		if (obj->current != NULL && !obj->gone && obj->current->vid == o.vid)
			obj->current->role = ROLE_CURRENT;
		object_guard(obj, &o);
	}
	pthread_mutex_unlock(&st->lock);
	paths_forget(st);
	deadline_rearm(st);
	leases_resume(st);
	endings_resume(st);
	usage_recount(st);
	waiters_wake_absents(&op); /* what they await may be there again */
	op_end(&op, 0, META_READ, NULL);
	if (again)
		resync_later(st);
}

static void resync_again(struct timer *t)
{
	struct store *st = (struct store *)((char *)t - offsetof(struct store, resync_timer));

	resync(st, st->meta->rollback_error);
}

static int make_root(struct meta *m, uint64_t id, uint32_t mode)
{
	struct meta_object o;
	int64_t now = m->ops->now(m);
	int r = m->ops->object_get(m, id, &o);

	if (r != -ENOENT)
		return r;
	o = (struct meta_object){
		.id = id, .vid = id, .mode = S_IFDIR | mode, .uid = geteuid(), .gid = getegid(), .nlink = 2,
		.atime = now, .mtime = now, .ctime = now, .btime = now,
	};
	return m->ops->object_insert(m, &o);
}

int roots_make(struct meta *m)
{
	int r = make_root(m, META_ROOT, 0755);

	if (r == 0)
		r = make_root(m, META_ABORTED, 0755);
	if (r == 0)
		r = make_root(m, META_LIFETIMES, 01777);
	for (uint64_t id = META_OWN; r == 0 && id <= META_MUT; id++)
		r = make_root(m, id, 01777);
	return r;
}

static int make_roots(struct store *st)
{
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = roots_make(st->meta);
	return r < 0 ? op_end(&op, r, META_READ, NULL) : end_and_wait(st->meta, META_RECORDED); /* nothing works without */
}

static void no_process(void *arg, int32_t tid, struct process *p)
{
	*p = (struct process){ .pid = tid };
}

static bool no_holds(void *arg, int32_t tid, uint64_t node)
{
	return false;
}

static bool nobody_holds(void *arg, uint64_t object)
{
	return false;
}

static bool believe_holds(void *arg, const struct holding *h, unsigned n)
{
	return true;
}

static int no_identify(void *arg, const struct caller *who, int32_t pid, uint64_t *start)
{
	return -ESRCH;
}

static void no_watch(void *arg, int32_t pid, uint64_t start)
{
}

static void no_invalidate(void *arg, uint64_t parent, const char *name)
{
}

static void no_forget(void *arg, uint64_t node)
{
}

static void told_at_once(void *arg, struct told *t)
{
	t->done(t);
}

static void no_event(void *arg, const struct meta_event *e)
{
}

static const struct store_hooks no_hooks = {
	.process = no_process, .holds = no_holds, .held = nobody_holds, .only_these_hold = believe_holds,
	.identify = no_identify, .watch = no_watch, .invalidate = no_invalidate, .forget = no_forget,
	.forget_now = no_forget, .told = told_at_once, .event = no_event,
};

int store_open_all(struct meta *meta, struct blobs *blobs, const struct store_hooks *hooks, void *hooks_arg,
		   const struct store_options *options, struct store **ret)
{
	struct store *st = calloc(1, sizeof(*st));
	int r;

	if (st == NULL)
		return -ENOMEM;
	st->meta = meta;
	checker_start(meta);
	st->blobs = blobs;
	st->hooks = hooks != NULL ? *hooks : no_hooks;
	st->hooks_arg = hooks_arg;
	st->options = *options;
	pthread_mutex_init(&st->lock, NULL);
	pthread_mutex_init(&st->usage_lock, NULL);
	usage_start(st);
	r = options->kept != NULL ? kept_open(options->kept, &st->kept) : 0;
	if (r == 0)
		r = timers_new(&st->timers);
	if (r == 0)
		r = garbage_start(st);
	if (r == 0) {
		st->resync_timer.fire = resync_again;
		meta->on_rollback = resync;
		meta->on_failure = resync_later;
		waiters_start(st);
		intents_start(st);
		r = make_roots(st);
	}
	if (r == 0)
		r = access_start(st);
	st->adopting = kept_in_use(options->kept);
	if (r == 0 && st->adopting)
		r = adopt(st); /* before anything happens by itself: what is kept by then is from before */
	if (r == 0) {
		deadlines_start(st);
		aborted_start(st);
	}
	if (r == 0)
		r = store_recover(st);
	if (r == 0)
		r = usage_count(st);
	if (r == 0)
		r = lifetimes_start(st);
	if (r == 0)
		r = leases_start(st);
	if (r == 0)
		r = bindings_start(st);
	if (r == 0)
		r = borrows_start(st);
	if (r < 0) {
		store_close(st);
		return r;
	}
	kept_begins(st);
	adopt_go_on(st);
	meta->serving = true;
	*ret = st;
	return 0;
}

/* No timer fires: what has expired meanwhile is the business of whoever serves the store. */
int store_settle(struct meta *meta, struct blobs *blobs, const struct store_options *options)
{
	struct store *st = calloc(1, sizeof(*st));
	int r;

	if (st == NULL)
		return -ENOMEM;
	*st = (struct store){ .meta = meta, .blobs = blobs, .hooks = no_hooks, .options = *options };
	pthread_mutex_init(&st->lock, NULL);
	pthread_mutex_init(&st->usage_lock, NULL);
	r = timers_new(&st->timers);
	if (r == 0) {
		timers_stop(st->timers);
		r = garbage_start(st);
	}
	if (r == 0) {
		waiters_start(st);
		intents_start(st);
		r = make_roots(st);
	}
	if (r == 0)
		r = access_start(st);
	if (r == 0)
		r = store_recover(st);
	if (r == 0)
		garbage_empty(st);
	store_close(st);
	return r;
}

static void drop_intents(struct store *st)
{
	struct intent *in, *tmp;

	HASH_ITER(hh, st->intents, in, tmp) {
		HASH_DELETE(hh, st->intents, in);
		if (st->kept == NULL)
			free(in);
	}
}

/* What is kept stays for the next process: this one may have failed to begin. */
static void drop_memory(struct store *st)
{
	struct version *v, *vtmp;
	struct object *obj, *otmp;
	struct absent *ab, *atmp;

	HASH_ITER(hh, st->versions, v, vtmp) {
		HASH_DELETE(hh, st->versions, v);
		if (v->fd >= 0)
			close(v->fd);
		if (st->kept == NULL)
			free(v);
	}
	HASH_ITER(hh, st->objects, obj, otmp) {
		HASH_DELETE(hh, st->objects, obj);
		orphans_free(obj);
		if (st->kept == NULL)
			free(obj);
	}
	HASH_ITER(hh, st->absents, ab, atmp) {
		HASH_DELETE(hh, st->absents, ab);
		free(ab->key);
		free(ab);
	}
}

void store_stop(struct store *st)
{
	if (st == NULL || atomic_exchange(&st->closing, true))
		return;
	if (st->timers != NULL)
		timers_stop(st->timers);
	garbage_stop(st);
	st->meta->on_rollback = NULL;
	st->meta->on_failure = NULL;
}

void store_clock_was_set(struct store *st)
{
	struct op op;

	op_begin(&op, st, NULL);
	deadline_rearm(st);
	leases_rearm(st);
	op_end(&op, 0, META_READ, NULL);
}

void store_close(struct store *st)
{
	if (st == NULL)
		return;
	store_stop(st);
	timers_free(st->timers);
	garbage_free(st);
	drop_intents(st);
	lifetimes_forget(st);
	replaced_forget_all(st);
	departed_forget_all(st);
	drop_memory(st);
	paths_forget(st);
	usage_forget_all(st);
	kept_close(st->kept);
	pthread_mutex_destroy(&st->usage_lock);
	pthread_mutex_destroy(&st->lock);
	free(st);
}

void store_counts(struct store *st, struct store_counts *c)
{
	pthread_mutex_lock(&st->lock);
	*c = st->counts;
	pthread_mutex_unlock(&st->lock);
}

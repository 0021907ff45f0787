/* Intents: what was promised to a thread that was told (ESTALE) to look a name up again.
 *
 * The kernel does so by itself, once; a second ESTALE reaches the user. So the look-up that follows gives the thread's
 * intent: a writer gets the draft's node, a reader the version that is current in that moment, even if it is replaced
 * before the open arrives. An intent keeps its version open until the thread is back, or for INTENT_NS. */
#include "core/internal.h"

#include <errno.h>
#include <stdlib.h>

#define AWAY_NS 1000000000LL /* the kernel comes back at once */

/* store->lock held; the catalog too when the intent is a writer's. */
struct version *intent_take(struct store *st, struct intent *in)
{
	struct version *v = in->version;

	HASH_DELETE(hh, st->intents, in);
	if (v != NULL && in->write)
		v->writers--;
	if (v == NULL)
		v = in->kept;
	kept_give(st, KEPT_INTENT, in);
	return v;
}

struct intent *intent_find(struct store *st, int32_t tid)
{
	struct intent *in = NULL;

	if (st->intents != NULL && tid != 0)
		HASH_FIND(hh, st->intents, &tid, sizeof(tid), in);
	return in;
}

/* Gives back what an intent kept open; a draft that nobody came for is settled. */
void version_let_go(struct store *st, struct version *v, const struct caller *who)
{
	struct version_end end = { .fd = -1 };
	bool draft;

	pthread_mutex_lock(&st->lock);
	draft = v->role == ROLE_DRAFT && v->writers == 0;
	if (!draft)
		end = version_put(st, v);
	pthread_mutex_unlock(&st->lock);
	version_end(st, end);
	if (draft)
		draft_settle(st, v, who);
}

static void intents_expire(struct timer *t)
{
	struct store *st = (struct store *)((char *)t - offsetof(struct store, intent_timer));
	struct version *v = NULL;
	struct intent *in, *tmp;
	bool more = false;

	pthread_mutex_lock(&st->lock);
	HASH_ITER(hh, st->intents, in, tmp) {
		if (v == NULL && in->at + INTENT_NS <= timers_now())
			v = intent_take(st, in);
		else
			more = true;
	}
	if (more)
		timer_arm(st->timers, t, timers_now() + (v != NULL ? 0 : INTENT_NS / 2));
	pthread_mutex_unlock(&st->lock);
	if (v != NULL)
		version_let_go(st, v, &(struct caller){ 0 });
}

/* store->lock held. */
struct intent *intent_make(struct store *st, int32_t tid, uint64_t object, struct version *v, bool write)
{
	struct intent *in = kept_take(st, KEPT_INTENT);

	if (in == NULL)
		return NULL;
	*in = (struct intent){ .tid = tid, .object = object, .version = v, .write = write, .at = timers_now() };
	if (v != NULL) {
		v->opens++;
		v->writers += write;
	}
	kept_live(st, in);
	if (st->intents == NULL)
		timer_arm(st->timers, &st->intent_timer, in->at + INTENT_NS);
	HASH_ADD(hh, st->intents, tid, sizeof(in->tid), in);
	return in;
}

void intent_away(struct store *st, int32_t tid, bool write)
{
	struct version *overtaken = NULL;
	struct intent *in;

	if (tid == 0)
		return;
	pthread_mutex_lock(&st->lock);
	in = intent_find(st, tid);
	if (in != NULL)
		overtaken = intent_take(st, in);
	in = intent_make(st, tid, 0, NULL, false);
	if (in != NULL) {
		in->away = true;
		in->wants_draft = write;
	}
	pthread_mutex_unlock(&st->lock);
	if (overtaken != NULL)
		version_let_go(st, overtaken, &(struct caller){ .tid = tid });
}

void intent_give_up(struct store *st, int32_t tid)
{
	struct version *v = NULL;
	struct intent *in;

	pthread_mutex_lock(&st->lock);
	in = intent_find(st, tid);
	if (in != NULL)
		v = intent_take(st, in);
	pthread_mutex_unlock(&st->lock);
	if (v != NULL)
		version_let_go(st, v, &(struct caller){ .tid = tid });
}

void intent_looked(struct store *st, int32_t tid, uint64_t node)
{
	struct intent *in;

	pthread_mutex_lock(&st->lock);
	in = intent_find(st, tid);
	if (in != NULL && (node != 0 || !in->looked)) { /* link(2) looks the new name up as well, and finds nothing */
		in->looked = true;
		in->given = node;
	}
	pthread_mutex_unlock(&st->lock);
}

void intents_start(struct store *st)
{
	st->intent_timer.fire = intents_expire;
}

static bool is_fresh(const struct intent *in)
{
	return timers_now() - in->at < AWAY_NS;
}

/* Has it looked, and come by what it was given, or has it no name to look up? */
static bool is_back(const struct intent *in, uint64_t node)
{
	return in->looked ? in->given == node : is_fresh(in);
}

/* The kernel does not look a name up a third time. So whoever comes by another node than the one that he was sent to,
 * because that draft was published meanwhile, or something else was renamed to its key, gets what he finds. */
bool intent_was_sent(const struct intent *in, const struct version *d, uint64_t node)
{
	if (in->version == d)
		return !in->looked_up;
	return is_back(in, node) && (in->away || in->write);
}

/* Who is told ESTALE now would hear of it: either he has looked the name up again, and comes by what it gave, or he has not,
 * since he has no name (/proc/PID/fd, a file bind mount). Whoever comes by anything else opens something else. */
bool intent_is_back(struct store *st, int32_t tid, uint64_t node)
{
	struct intent *in;
	bool back;

	pthread_mutex_lock(&st->lock);
	in = intent_find(st, tid);
	back = in != NULL && is_back(in, node);
	pthread_mutex_unlock(&st->lock);
	return back;
}

/* He was sent to look for the draft of another object, which does not have that name any more. */
static bool looks_for_another(const struct intent *in, const struct meta_object *o)
{
	return in->write && in->version != NULL && in->object != o->id && is_fresh(in);
}

/* store->lock held. */
static void leave_for_another(struct op *op, struct intent *in, const struct meta_object *o)
{
	if (in->version == NULL || !looks_for_another(in, o))
		return;
	op->let_go = in->version;
	in->version->writers--;
	in->version = NULL;
}

/* store->lock held. What was pinned is let go by the caller. */
static struct version *unpin(struct intent *in)
{
	struct version *pinned = in->version;

	in->version = NULL;
	in->object = 0;
	in->pins = false;
	return pinned;
}

/* store->lock held. What it kept is let go by the caller. */
static struct version *forget_reserved(struct intent *in)
{
	struct version *kept = in->kept;

	in->kept = NULL;
	in->reserved = 0;
	return kept;
}

int intent_stale(struct store *st, int32_t tid, uint64_t node, bool write)
{
	if (intent_is_back(st, tid, node)) {
		intent_give_up(st, tid);
		return -ENOENT;
	}
	intent_away(st, tid, write);
	return -ESTALE;
}

void intent_done(struct op *op)
{
	struct store *st = op->st;
	struct intent *in;

	pthread_mutex_lock(&st->lock);
	in = op->let_go == NULL ? intent_find(st, op->who->tid) : NULL;
	if (in != NULL && in->away && !in->write && !in->wants_draft)
		op->let_go = intent_take(st, in);
	pthread_mutex_unlock(&st->lock);
}

/* A draft that is closed and not published yet cannot be written any more, and there is none beside it. A look-up waits for
 * nothing, and if it gave what is about to be current, that would have readers when the writer comes. So it gives a node
 * that nothing has yet; the open waits for the close, and begins the draft that has it. Catalog held. */
static void reserve(struct op *op, const struct meta_object *o, struct version *d)
{
	struct store *st = op->st;
	struct intent *in;
	uint64_t node;

	if (st->meta->ops->new_id(st->meta, &node) < 0)
		return;
	pthread_mutex_lock(&st->lock);
	in = intent_find(st, op->who->tid);
	if (in != NULL) {
		leave_for_another(op, in, o);
		if (in->kept != NULL)
			op->let_go = in->kept;
		in->kept = d;
		in->reserved = node;
		d->opens++;
		in->object = o->id;
		in->wants_draft = in->away = true;
		in->write = false;
	}
	pthread_mutex_unlock(&st->lock);
}

int intent_subject(struct store *st, int32_t tid, uint64_t node, struct subject *s)
{
	struct intent *in;
	uint64_t object = 0;
	int r = -ENOENT;

	*s = (struct subject){ 0 };
	pthread_mutex_lock(&st->lock);
	in = intent_find(st, tid);
	if (in != NULL && in->reserved == node && node != 0) {
		object = in->kept->object->id;
		if (in->kept->object->gone) {
			s->gone = true;
			s->obj = in->kept->object;
			s->obj->refs++;
			s->o = s->obj->row;
			r = 0;
		}
	}
	pthread_mutex_unlock(&st->lock);
	if (object != 0 && r < 0)
		r = subject_by_object(st, object, s);
	s->reserved = node;
	return r;
}

/* A writer who was sent to look for whatever the name means now has found `o`: it shall get the draft at once. True when
 * records were changed. */
bool intent_find_draft(struct op *op, const struct meta_object *o)
{
	struct store *st = op->st;
	struct subject s = { .o = *o };
	struct object *obj;
	struct version *d;
	struct intent *in;
	bool wants, closing, begins;

	pthread_mutex_lock(&st->lock);
	in = intent_find(st, op->who->tid);
	obj = object_find(st, o->id);
	d = obj != NULL ? obj->draft : NULL;
	if (in != NULL && in->pins && o->state == OBJECT_READY)
		op->let_go = unpin(in);
	if (in != NULL && o->state != OBJECT_READY && looks_for_another(in, o)) {
		leave_for_another(op, in, o);
		in->object = 0;
		in->write = false;
		in->away = in->wants_draft = true;
	}
	wants = in != NULL && ((in->wants_draft && in->version == NULL) || looks_for_another(in, o)) &&
		o->state == OBJECT_READY && !o->live;
	closing = wants && d != NULL && d->sealed;
	if (closing && (o->borrows != 0 || (in->reserved != 0 && in->object == o->id)))
		wants = false; /* found by its handle, or it has one */
	begins = wants && d == NULL;
	pthread_mutex_unlock(&st->lock);
	if (wants && closing)
		reserve(op, o, d);
	if (!wants || closing || (begins && draft_begin(op, &s, &d) < 0))
		return wants && closing;
	pthread_mutex_lock(&st->lock);
	in = intent_find(st, op->who->tid);
	if (in != NULL)
		leave_for_another(op, in, o);
	if (in != NULL && in->version == NULL) {
		if (in->kept != NULL)
			op->let_go = forget_reserved(in);
		in->object = o->id;
		in->version = d;
		in->write = true;
		in->away = false;
		d->opens++;
		d->writers++;
	}
	pthread_mutex_unlock(&st->lock);
	return begins;
}

/* Looked up anew, perhaps much later, or under a name that means another object now: the version that was kept for the last
 * time is not what the name gives. A draft is kept for one of its writers, who reads what he writes. */
static bool is_overtaken(const struct intent *in, const struct meta_object *o)
{
	const struct version *v = in->version;

	return v != NULL && !in->write && (v->role != ROLE_DRAFT || in->pins) && (in->object != o->id || v->vid != o->vid);
}

/* Its first version, which is being written: should it be closed and removed before the thread is back, it is what he would
 * have got. store->lock held. */
static void pin_draft(struct store *st, struct intent *in, const struct meta_object *o)
{
	struct version *d = version_find(st, o->vid);

	if (in->version != NULL || in->reserved != 0 || d == NULL)
		return;
	in->object = o->id;
	in->version = d;
	in->pins = true;
	d->opens++;
}

/* What a look-up by this thread shall give for the object, 0: nothing special. store->lock held. *overtaken is what the
 * caller lets go afterwards, without it. */
uint64_t intent_node(struct store *st, const struct caller *who, const struct meta_object *o, struct version_end *overtaken)
{
	struct intent *in = intent_find(st, who->tid);

	if (in == NULL)
		return 0;
	if (is_overtaken(in, o)) {
		*overtaken = version_put(st, in->version);
		in->version = NULL;
		in->object = 0;
		in->pins = false;
	}
	if (in->reserved != 0 && in->object != o->id) {
		*overtaken = version_put(st, forget_reserved(in));
		in->object = 0;
	}
	if (in->object != 0 && in->object != o->id)
		return 0;
	if (o->state != OBJECT_READY) {
		pin_draft(st, in, o);
		return 0;
	}
	in->object = o->id;
	if (in->reserved != 0)
		return in->reserved;
	if (in->version == NULL) { /* a reader, who gets the version that is current now even if it is replaced meanwhile */
		in->version = version_current(st, o);
		if (in->version != NULL)
			in->version->opens++;
	}
	in->looked_up = true;
	return in->version != NULL ? in->version->vid : 0;
}

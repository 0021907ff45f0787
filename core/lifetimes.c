/* Lifetimes: named scopes of objects, directories below lifetimes/. And what ends otherwise: files and directories whose
 * lease has expired (leases.c) or whose process has ended (bindings.c).
 *
 *  lifetime  record                                  left by
 *  absent    -                                       mkdir -> alive
 *  alive     a directory below META_LIFETIMES        rmdir, or its lease expires -> ending
 *  ending    that directory without a name, and a    its last member is evicted -> absent
 *            row in `ending`
 *
 * A member is a name in a table of its own (link(2) into the directory). It is no key: it does not keep its object alive
 * and goes with it. An object may be in several lifetimes; the first one to end takes it along. Whoever makes an object a
 * member decides that it will go away, so it takes the right to write it.
 *
 * A lifetime may have a million members, so it ends in slices, between which everybody else has his turn. rmdir(2)
 * returns when all of them are evicted, but does not wait longer than PATIENCE_NS. A crash in between is no matter: the
 * next start goes on. A directory that expires goes the same way, with everything below it. */
#include "core/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLICE 16
#define TELL_MAX 1000
#define PATIENCE_NS 1000000000LL
#define RETRY_NS 200000000LL
#define OTHERS_NS 20000000LL

/* One that is ending: a lifetime, or a directory whose lease has expired. */
struct ending {
	uint64_t object;
	struct meta_commit *user; /* who is to be told; NULL: nobody, or he has been */
	int64_t until;            /* when he loses patience; boot time */
	char *path, *why;         /* where it was; what the events say */
	struct ending *prev, *next;
};

/* The name of a lifetime that is alive. */
int lifetime_name(struct store *st, uint64_t lifetime, struct meta_dentry *d)
{
	int r = st->meta->ops->dentry_names(st->meta, lifetime, take_name, d);

	if (r < 0)
		return r;
	return r > 0 && d->parent == META_LIFETIMES ? 0 : -ENOENT;
}

int lifetime_make(struct op *op, const char *name, struct meta_object *o)
{
	struct meta *m = op->st->meta;
	int64_t now = store_now(op->st);
	int r = usage_check(op->st, LIMITED_LIFETIMES, op->who->uid);

	if (r < 0)
		return r;
	*o = (struct meta_object){ .mode = S_IFDIR | 0700, /* what is in it may be hidden where its key is */ .uid = op->who->uid, .gid = op->who->gid,
				   .nlink = 2, .atime = now, .mtime = now, .ctime = now, .btime = now };
	r = m->ops->new_id(m, &o->id);
	o->vid = o->id;
	if (r == 0)
		r = m->ops->object_insert(m, o);
	if (r == 0)
		r = m->ops->dentry_insert(m, META_LIFETIMES, name, o->id);
	return r == 0 ? m->ops->object_touch(m, META_LIFETIMES, now, 1) : r;
}

/* Members */

static bool may_end(struct store *st, const struct caller *who, const struct meta_object *o)
{
	return who->uid == o->uid || access_check(st, who, o, 2) == 0;
}

/* The kernel may know names of the object for longer than the lifetime has. */
static int end_reaches_names(struct op *op, uint64_t lifetime, uint64_t object)
{
	int64_t at;
	int r = lease_end(op->st, lifetime, &at);

	return r == 0 && at != INT64_MAX ? names_invalidate(op, object) : r;
}

struct telling {
	struct op *op;
	unsigned n;
};

static int tell_member(void *arg, const struct meta_dentry *d)
{
	struct telling *t = arg;
	int r = names_invalidate(t->op, d->object);

	return r < 0 ? r : ++t->n == TELL_MAX;
}

int lifetime_names_expire(struct op *op, uint64_t lifetime)
{
	struct telling t = { .op = op };
	struct meta_dentry d;
	int r = lifetime_name(op->st, lifetime, &d);

	if (r == 0)
		r = op->st->meta->ops->member_list(op->st->meta, lifetime, 0, tell_member, &t);
	return r < 0 && r != -ENOENT ? r : 0;
}

static int add_member(struct op *op, const struct subject *s, uint64_t lifetime, const char *name)
{
	const struct meta_object *o = subject_self(s);
	struct meta *m = op->st->meta;
	struct meta_dentry d, scope;
	char key[PATH_MAX];
	int r = lifetime_name(op->st, lifetime, &scope);

	if (r < 0)
		return r;
	if (s->gone)
		return -ENOENT;
	if (is_dir(o) || !may_end(op->st, op->who, o))
		return -EPERM;
	r = m->ops->member_get(m, lifetime, name, &d);
	if (r != -ENOENT)
		return r == 0 ? -EEXIST : r;
	r = m->ops->member_insert(m, lifetime, name, o->id);
	if (r == 0)
		r = end_reaches_names(op, lifetime, o->id);
	if (r == 0)
		r = path_of(op->st, o->id, key);
	return r == 0 ? event_record(op, "join", key, o, NULL, scope.name) : r;
}

/* A new file in a directory whose files join a lifetime. */
int lifetime_join(struct op *op, const struct meta_object *o, const char *name)
{
	struct meta *m = op->st->meta;
	char unique[META_NAME_MAX + 1];
	struct meta_dentry d;
	int r = lifetime_name(op->st, o->lifetime, &d);

	if (r < 0)
		return r == -ENOENT ? 0 : r; /* it has ended */
	r = m->ops->member_get(m, o->lifetime, name, &d);
	if (r == 0) {
		snprintf(unique, sizeof(unique), "%.200s.%llu", name, (unsigned long long)o->id);
		name = unique;
	}
	return r == 0 || r == -ENOENT ? m->ops->member_insert(m, o->lifetime, name, o->id) : r;
}

int lifetime_of_dir_set(struct op *op, struct subject *s, const char *name)
{
	struct meta_object lifetime = { 0 };
	struct meta_dentry d;
	int r = 0;

	if (!is_dir(&s->o) || s->o.id < META_FIRST_ID)
		return -EINVAL;
	if (name != NULL) {
		r = op->st->meta->ops->dentry_get(op->st->meta, META_LIFETIMES, name, &d);
		if (r == 0)
			r = op->st->meta->ops->object_get(op->st->meta, d.object, &lifetime);
		if (r == 0 && !may_end(op->st, op->who, &lifetime))
			r = -EPERM;
	}
	s->o.lifetime = lifetime.id;
	return r == 0 ? subject_save(op->st, s) : r;
}

int store_lifetime_add(struct store *st, const struct caller *who, uint64_t node, uint64_t lifetime, const char *name,
		       struct entry *e, struct meta_commit *c)
{
	struct subject s;
	struct op op;
	int r;

	op_begin_named(&op, st, who);
	r = subject_get_now(st, who, node, &s);
	if (r < 0) {
		op_end(&op, r, META_READ, NULL);
		return r == -ENOENT ? intent_stale(st, who->tid, node, false) : r;
	}
	r = add_member(&op, &s, lifetime, name);
	intent_done(&op);
	if (r == 0) {
		if (is_borrow(subject_self(&s)))
			r = borrow_entry(st, NULL, subject_self(&s), e);
		else
			fill_entry(st, NULL, &s.o, e);
		e->stable = false; /* the name goes away by itself */
	}
	subject_put(st, &s);
	return op_end(&op, r, META_RECORDED, c);
}

static int get_member(struct store *st, uint64_t lifetime, const char *name, struct meta_object *o)
{
	struct meta_dentry d;
	int r = st->meta->ops->member_get(st->meta, lifetime, name, &d);

	if (r == 0)
		r = st->meta->ops->object_get(st->meta, d.object, o);
	return r == 0 && is_file(o) && o->nlink == 0 ? -ENOENT : r; /* somebody reads it for the one time */
}

int store_lifetime_lookup(struct store *st, const struct caller *who, uint64_t lifetime, const char *name, struct entry *e)
{
	struct meta_object o;
	int64_t until;
	struct op op;
	int r, over = 0;

	op_begin(&op, st, who);
	r = get_member(st, lifetime, name, &o);
	if (r == 0)
		over = lease_enforce(&op, &o, &until);
	if (over != 0)
		r = -ENOENT;
	if (r == 0 && is_borrow(&o))
		r = borrow_entry(st, who, &o, e);
	else if (r == 0)
		fill_entry(st, who, &o, e);
	e->stable = false;
	op_end(&op, over < 0 ? over : 0, over > 0 ? META_LATER : META_READ, NULL);
	return r;
}

/* What is known of a member's end */

struct lifetime_ids {
	uint64_t ids[64];
	unsigned n;
};

static int gather_lifetime(void *arg, const struct meta_dentry *d)
{
	struct lifetime_ids *l = arg;

	for (unsigned i = 0; i < l->n; i++)
		if (l->ids[i] == d->parent)
			return 0;
	l->ids[l->n++] = d->parent;
	return l->n == 64;
}

/* 0: it is ending. */
static int lifetime_end_at(struct store *st, uint64_t lifetime, int64_t *at)
{
	struct meta_dentry d;
	int r = lifetime_name(st, lifetime, &d);

	*at = 0;
	return r == -ENOENT ? 0 : r < 0 ? r : lease_end(st, lifetime, at);
}

int lifetimes_end(struct store *st, uint64_t object, int64_t *at, uint64_t *lifetime)
{
	struct lifetime_ids l = { .n = 0 };
	int64_t end;
	int r = st->meta->ops->member_names(st->meta, object, gather_lifetime, &l);

	*at = INT64_MAX;
	for (unsigned i = 0; r >= 0 && i < l.n; i++) {
		r = lifetime_end_at(st, l.ids[i], &end);
		if (r == 0 && end < *at) {
			*at = end;
			*lifetime = l.ids[i];
		}
	}
	return r < 0 ? r : 0;
}

int lifetime_entry_until(struct store *st, const struct meta_object *o, int64_t *until)
{
	int r;

	*until = 0;
	if (o->lifetime == 0 || is_dir(o))
		return 0;
	r = lifetime_end_at(st, o->lifetime, until);
	if (*until == INT64_MAX)
		*until = 0;
	return r;
}

/* Ending */

/* waiters_get: what those get who wait for it. */
static int evict_for(struct op *op, struct meta_object *o, const char *kind, const char *why, int waiters_get)
{
	char key[PATH_MAX];
	int r = path_of(op->st, o->id, key);

	if (r == 0)
		r = event_record(op, kind, key, o, NULL, why);
	if (r == 0 && is_borrow(o) && !o->declared)
		r = borrow_event(op, "release", o);
	return r == 0 ? object_evict(op, o, is_borrow(o) ? -ENOENT : waiters_get) : r;
}

static int evict(struct op *op, struct meta_object *o, const char *kind, const char *why)
{
	return evict_for(op, o, kind, why, -ECANCELED);
}

int store_lifetime_evict(struct store *st, const struct caller *who, uint64_t lifetime, const char *name,
			 struct meta_commit *c)
{
	struct meta_object o;
	struct op op;
	int r;

	op_begin_named(&op, st, who);
	r = get_member(st, lifetime, name, &o);
	if (r == 0 && is_file(&o))
		r = borrow_rule(o.borrows, VIA_OWNER, ACT_EVICT);
	if (r == 0)
		r = evict(&op, &o, "evict", NULL);
	return op_end(&op, r, META_RECORDED, c);
}

static void free_ending(struct ending *e)
{
	if (e == NULL)
		return;
	free(e->path);
	free(e->why);
	free(e);
}

/* Depth first, so that not too many of them are under way at any time. */
static void schedule(struct store *st, struct ending *list)
{
	struct ending *e, *next;
	bool any;

	pthread_mutex_lock(&st->lock);
	DL_FOREACH_SAFE(list, e, next) {
		DL_DELETE(list, e);
		DL_PREPEND(st->endings, e);
	}
	any = st->endings != NULL;
	pthread_mutex_unlock(&st->lock);
	if (any)
		timer_arm(st->timers, &st->ending_timer, timers_now());
}

static void free_endings(struct ending *list)
{
	struct ending *e, *next;

	DL_FOREACH_SAFE(list, e, next) {
		DL_DELETE(list, e);
		free_ending(e);
	}
}

static struct ending *new_ending(uint64_t object, const char *path, const char *why)
{
	struct ending *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return NULL;
	e->object = object;
	e->until = timers_now() + PATIENCE_NS;
	e->path = strdup(path);
	e->why = strdup(why);
	if (e->path != NULL && e->why != NULL)
		return e;
	free_ending(e);
	return NULL;
}

struct slice {
	uint64_t objects[SLICE];
	unsigned n;
};

static int gather(void *arg, const struct meta_dentry *d)
{
	struct slice *s = arg;

	s->objects[s->n++] = d->object;
	return s->n == SLICE;
}

/* 1: there may be more. */
static int evict_members(struct op *op, uint64_t lifetime, const char *why)
{
	struct meta *m = op->st->meta;
	struct slice s = { .n = 0 };
	struct meta_object o;
	int r = m->ops->member_list(m, lifetime, 0, gather, &s);

	for (unsigned i = 0; r >= 0 && i < s.n; i++) {
		r = m->ops->object_get(m, s.objects[i], &o);
		r = r == 0 ? evict(op, &o, "evict", why) : r == -ENOENT ? 0 : r; /* it may be a member by two names */
	}
	return r < 0 ? r : s.n == SLICE;
}

struct entries {
	struct meta_dentry d[SLICE];
	unsigned n;
};

static int gather_entry(void *arg, const struct meta_dentry *d)
{
	struct entries *l = arg;

	l->d[l->n++] = *d;
	return l->n == SLICE;
}

/* A directory below one that is ending ends by itself, so however deep a tree is, nobody has to walk down. */
static int detach(struct op *op, const struct ending *above, const struct meta_dentry *d, struct ending **below)
{
	struct ending *e;
	char *path;
	int r;

	if (asprintf(&path, "%s/%s", above->path, d->name) < 0)
		return -ENOMEM;
	e = new_ending(d->object, path, above->why);
	free(path);
	if (e == NULL)
		return -ENOMEM;
	DL_PREPEND(*below, e);
	r = op->st->meta->ops->dentry_delete(op->st->meta, d);
	return r == 0 ? op->st->meta->ops->ending_add(op->st->meta, d->object, e->path) : r;
}

/* 1: there may be more. */
static int evict_entries(struct op *op, const struct ending *e, struct ending **below)
{
	struct meta *m = op->st->meta;
	struct entries *l = calloc(1, sizeof(*l));
	struct meta_object o;
	int r = l == NULL ? -ENOMEM : m->ops->dentry_list(m, e->object, 0, gather_entry, l);
	bool more = r > 0;

	for (unsigned i = 0; r >= 0 && i < l->n; i++) {
		r = m->ops->object_get(m, l->d[i].object, &o);
		if (r == 0)
			r = is_dir(&o) ? detach(op, e, &l->d[i], below) : evict(op, &o, "evict", e->why);
		r = r == -ENOENT ? 0 : r; /* it has two names here */
	}
	free(l);
	return r < 0 ? r : more;
}

/* Evicts some of what is in it. 1: there is more; 0: that was all, and it is gone itself. What is to end before it does
 * goes to *below. */
static int evict_some(struct op *op, const struct ending *e, struct ending **below)
{
	struct meta_dentry d;
	struct meta_object o;
	int r = op->st->meta->ops->dentry_names(op->st->meta, e->object, take_name, &d);

	if (r != 0)
		return r < 0 ? r : 0; /* its end was taken back */
	path_remember(op->st, e->object, e->path);
	r = evict_members(op, e->object, e->why);
	if (r == 0)
		r = evict_entries(op, e, below);
	if (r == 0)
		r = op->st->meta->ops->object_get(op->st->meta, e->object, &o);
	if (r == 0) {
		o.nlink = 0;
		r = object_delete(op, &o, -ENOENT);
		paths_forget(op->st);
	}
	return r;
}

static struct ending *find_ending(struct store *st, uint64_t object) /* locked */
{
	struct ending *e;

	DL_FOREACH(st->endings, e)
		if (e->object == object)
			return e;
	return NULL;
}

bool lifetime_is_ending(struct store *st, uint64_t lifetime)
{
	bool is;

	pthread_mutex_lock(&st->lock);
	is = find_ending(st, lifetime) != NULL;
	pthread_mutex_unlock(&st->lock);
	return is;
}

int lifetime_evict_member(struct op *op, uint64_t object, uint64_t lifetime)
{
	char why[META_NAME_MAX + 32] = "lifetime";
	struct meta_object o;
	struct ending *e;
	int r = op->st->meta->ops->object_get(op->st->meta, object, &o);

	if (r == 0 && is_file(&o) && o.nlink == 0)
		return 0; /* it is, and lives on for who has borrowed it */
	pthread_mutex_lock(&op->st->lock);
	e = find_ending(op->st, lifetime);
	if (e != NULL)
		snprintf(why, sizeof(why), "%s", e->why);
	pthread_mutex_unlock(&op->st->lock);
	return r == 0 ? evict(op, &o, "evict", why) : r == -ENOENT ? 0 : r;
}

int ending_path(struct store *st, uint64_t object, char path[static PATH_MAX])
{
	struct ending *e;

	pthread_mutex_lock(&st->lock);
	e = find_ending(st, object);
	if (e != NULL)
		snprintf(path, PATH_MAX, "%s", e->path);
	pthread_mutex_unlock(&st->lock);
	return e != NULL ? 0 : -ENOENT;
}

/* From alive to ending. */
static int take_away(struct op *op, const struct meta_dentry *d, const char *path)
{
	struct meta *m = op->st->meta;
	int r = m->ops->dentry_delete(m, d);

	if (r == 0)
		r = m->ops->object_touch(m, d->parent, store_now(op->st), -1);
	if (r == 0)
		r = m->ops->lease_remove(m, d->object);
	if (r == 0)
		r = m->ops->binding_remove(m, d->object);
	if (r == 0)
		r = m->ops->ending_add(m, d->object, path);
	op_invalidate(op, d->parent, d->name);
	paths_forget(op->st);
	return r;
}

/* And perhaps to its end; otherwise *rest is what is left to be done, the directory itself first. */
static int begin_end(struct op *op, const struct meta_dentry *d, const char *kind, const char *detail,
		     struct ending **rest)
{
	char path[PATH_MAX], why[META_NAME_MAX + 32];
	struct ending *e = NULL;
	struct meta_object o;
	int r = op->st->meta->ops->object_get(op->st->meta, d->object, &o);

	*rest = NULL;
	snprintf(why, sizeof(why), "%s %s", d->parent == META_LIFETIMES ? "lifetime" : "directory", d->name);
	if (r == 0)
		r = path_of_name(op->st, d->parent, d->name, path);
	if (r == 0 && (e = new_ending(d->object, path, why)) == NULL)
		r = -ENOMEM;
	if (r == 0)
		r = event_record(op, kind, path, &o, NULL, detail);
	if (r == 0)
		r = take_away(op, d, path);
	if (r == 0)
		r = evict_some(op, e, rest);
	if (r == 1)
		DL_PREPEND(*rest, e);
	else
		free_ending(e);
	if (r < 0) {
		free_endings(*rest);
		*rest = NULL;
	}
	return r < 0 ? r : 0;
}

/* It may be ending already, of its lease, say: whoever ends it all the same waits for that. The catalog is held. */
static bool wait_for_end(struct store *st, const char *name, struct meta_commit *c)
{
	struct ending *e, *found = NULL;
	char path[PATH_MAX];

	if (path_of_name(st, META_LIFETIMES, name, path) < 0)
		return false;
	pthread_mutex_lock(&st->lock);
	DL_FOREACH(st->endings, e)
		if (e->user == NULL && strcmp(e->path, path) == 0)
			found = e;
	if (found != NULL) {
		found->user = c;
		found->until = timers_now() + PATIENCE_NS;
	}
	pthread_mutex_unlock(&st->lock);
	return found != NULL;
}

int store_lifetime_end(struct store *st, const struct caller *who, uint64_t parent, const char *name,
		       struct meta_commit *c)
{
	struct ending *rest = NULL;
	struct meta_dentry d;
	struct op op;
	int r;

	op_begin_named(&op, st, who);
	r = st->meta->ops->dentry_get(st->meta, parent, name, &d);
	if (r == -ENOENT && wait_for_end(st, name, c))
		return op_end(&op, 0, META_READ, NULL);
	if (r == 0)
		r = begin_end(&op, &d, "end", NULL, &rest);
	if (r < 0 || rest == NULL)
		return op_end(&op, r, META_RECORDED, c);
	rest->user = c;
	op_end(&op, 0, META_LATER, NULL);
	schedule(st, rest);
	return 0;
}

/* Whoever may write a file may say when it goes; a directory goes with what is in it, so that is for its owner to say. */
int check_can_expire(struct store *st, const struct caller *who, const struct subject *s)
{
	struct meta_dentry d;

	if (is_dir(&s->o) && s->o.id >= META_FIRST_ID && st->meta->ops->dentry_names(st->meta, s->o.id, take_name, &d) == 0)
		return -ENOENT; /* it is ending */
	if (s->gone || (s->via == VIA_OWNER && is_file(&s->o) && s->o.nlink == 0))
		return -ENOENT;
	if (s->o.id < META_FIRST_ID)
		return -EOPNOTSUPP; /* the root, lifetimes/ */
	return is_dir(&s->o) && who->uid != 0 && who->uid != s->o.uid ? -EPERM : 0;
}

static int expire_dir(struct op *op, uint64_t dir, const char *why)
{
	struct ending *rest = NULL;
	struct meta_dentry d;
	int r = op->st->meta->ops->dentry_names(op->st->meta, dir, take_name, &d);

	if (r == 0) { /* it is ending with the one that it was in */
		r = op->st->meta->ops->lease_remove(op->st->meta, dir);
		return r == 0 ? op->st->meta->ops->binding_remove(op->st->meta, dir) : r;
	}
	if (r < 0)
		return r;
	r = begin_end(op, &d, "expire", why, &rest);
	if (rest != NULL)
		schedule(op->st, rest);
	return r;
}

int expire(struct op *op, uint64_t object, const char *why, int waiters_get)
{
	struct meta_object o;
	int r = op->st->meta->ops->object_get(op->st->meta, object, &o);

	if (r < 0)
		return r;
	return is_dir(&o) ? expire_dir(op, object, why) : evict_for(op, &o, "expire", why, waiters_get);
}

/* After a slice: whatever was found below comes first. */
static void put_back(struct store *st, struct ending *e, struct ending *below, int r)
{
	pthread_mutex_lock(&st->lock);
	DL_DELETE(st->endings, e);
	pthread_mutex_unlock(&st->lock);
	if (r < 0) { /* it was taken back */
		free_endings(below);
		below = NULL;
	}
	if (r == 0)
		free_ending(e);
	else
		DL_PREPEND(below, e);
	schedule(st, below);
}

/* Whoever waits for a CPU asks nothing meanwhile, so he who asked a moment ago counts, too. */
static bool others_work(struct store *st, int64_t now)
{
	uint64_t asked = atomic_load_explicit(&st->asked, memory_order_relaxed);

	if (asked != st->ending_asked) {
		st->ending_asked = asked;
		st->ending_asked_at = now;
	}
	return now - st->ending_asked_at < OTHERS_NS || st->meta->ops->contended(st->meta);
}

/* One slice. While others work they get four times as long as it has taken, and it is committed at once: nobody has
 * to wait while many slices are. */
static void go_on(struct timer *t)
{
	struct store *st = (struct store *)((char *)t - offsetof(struct store, ending_timer));
	int64_t began = timers_now(), pause = 0;
	struct ending *e, *below = NULL;
	struct meta_commit *user = NULL;
	struct op op;
	int r;

	give_way();
	op_begin(&op, st, NULL);
	pthread_mutex_lock(&st->lock);
	e = st->endings;
	pthread_mutex_unlock(&st->lock);
	if (e == NULL) {
		op_end(&op, 0, META_READ, NULL);
		return;
	}
	r = evict_some(&op, e, &below);
	if (r == 0 || (r == 1 && timers_now() > e->until)) {
		user = e->user;
		e->user = NULL;
	}
	put_back(st, e, below, r);
	if (others_work(st, timers_now()))
		pause = 4 * (timers_now() - began);
	op_end(&op, r < 0 ? r : 0, user != NULL || pause > 0 ? META_RECORDED : META_LATER, user);
	if ((r < 0 || pause > 0) && timer_disarm(st->timers, t))
		timer_arm(st->timers, t, timers_now() + (r < 0 ? RETRY_NS : pause));
}

static int add_ending(void *arg, uint64_t object, const char *path)
{
	struct store *st = arg;
	struct ending *e;
	int r = 0;

	pthread_mutex_lock(&st->lock);
	if (find_ending(st, object) == NULL) {
		e = new_ending(object, path, path);
		if (e != NULL)
			DL_APPEND(st->endings, e);
		r = e != NULL ? 0 : -ENOMEM;
	}
	pthread_mutex_unlock(&st->lock);
	return r;
}

void endings_resume(struct store *st)
{
	bool any;

	st->meta->ops->ending_list(st->meta, add_ending, st);
	pthread_mutex_lock(&st->lock);
	any = st->endings != NULL;
	pthread_mutex_unlock(&st->lock);
	if (any)
		timer_arm(st->timers, &st->ending_timer, timers_now() + RETRY_NS);
}

int lifetimes_start(struct store *st)
{
	struct op op;
	int r;

	st->ending_timer.fire = go_on;
	op_begin(&op, st, NULL);
	r = st->meta->ops->ending_list(st->meta, add_ending, st);
	op_end(&op, 0, META_READ, NULL);
	if (r == 0)
		schedule(st, NULL);
	return r;
}

void lifetimes_forget(struct store *st)
{
	struct ending *e, *next;

	DL_FOREACH_SAFE(st->endings, e, next) {
		DL_DELETE(st->endings, e);
		free_ending(e);
	}
}

/* Looking */

int lifetimes_of(struct store *st, uint64_t object, char *text, size_t size)
{
	struct lifetime_ids l = { .n = 0 };
	struct meta_dentry d;
	size_t len = 0;
	int r = st->meta->ops->member_names(st->meta, object, gather_lifetime, &l);

	for (unsigned i = 0; r >= 0 && i < l.n; i++) {
		r = lifetime_name(st, l.ids[i], &d);
		if (r == -ENOENT)
			r = 0;
		else if (r == 0 && len + d.name_len + 2 < size)
			len += (size_t)snprintf(text + len, size - len, "%s%s", len > 0 ? "/" : "", d.name);
	}
	return r < 0 ? r : len > 0 ? (int)len : -ENODATA;
}

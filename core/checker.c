/* The state tables, checked at every change of a record. Only in builds with -Dchecks=true (or buildtype=debug): each
 * change costs a look at the record as it was. A violation is a bug of ours: it is said, and the daemon ends there, so
 * that what is recorded stays as it was.
 *
 * An object, by the state in its record (struct meta_object). What brings it from one to the other is in draft.c and
 * future.c:
 *
 *  from \ to   pending     writing      ready       failed      deleted
 *  new         declare     create       mknod       -           -
 *  pending     -           open, write  -           fail        cancel, evict
 *  writing     killed      -            publish     fail        killed, cancel, evict
 *  ready       -           -            replace     -           evict, unless borrowed
 *  failed      declare     open, write  publish     fail        evict
 *
 * (What fails while it is written goes on being written.) In every state:
 *  - what is ready has a version, what is not has none; the number of versions only grows
 *  - what is failed has an error, nothing else has; only what is pending (or is written after a declaration) has a deadline
 *  - only what is ready is borrowed: by one more or one less, or by one mutable borrow after none
 *  - while it is borrowed immutably its version stays the same
 *
 * A lifetime, by what the catalog has of it (lifetimes.c says what brings it on); a directory that expires ends like it:
 *
 *  state    name  `ending`  members come  goes on
 *  alive    yes   no        yes           alive, ending
 *  ending   no    yes       no, they go   ending, deleted once it is empty
 *
 * What has no name any more (it is ending, evicted, or taken) gets no lease and is bound to no process. */
#include "core/internal.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef PROMISEFS_CHECKS

#define TO(state) (1u << (state))
#define FILES (TO(OBJECT_PENDING) | TO(OBJECT_WRITING) | TO(OBJECT_READY))

static const unsigned next_states[] = {
	[OBJECT_OTHER] = TO(OBJECT_OTHER),
	[OBJECT_PENDING] = TO(OBJECT_PENDING) | TO(OBJECT_WRITING) | TO(OBJECT_FAILED),
	[OBJECT_WRITING] = TO(OBJECT_WRITING) | TO(OBJECT_PENDING) | TO(OBJECT_READY) | TO(OBJECT_FAILED),
	[OBJECT_READY] = TO(OBJECT_READY),
	[OBJECT_FAILED] = TO(OBJECT_FAILED) | TO(OBJECT_PENDING) | TO(OBJECT_WRITING) | TO(OBJECT_READY),
};

static struct meta_ops checked;
static const struct meta_ops *engine;

static void require(bool good, const struct meta_object *o, const char *rule)
{
	if (good)
		return;
	fprintf(stderr, "promisefs: object %llu breaks a rule: %s\n", (unsigned long long)o->id, rule);
	abort();
}

static void check_state(const struct meta_object *o)
{
	bool ready = o->state == OBJECT_READY;

	if (!is_file(o))
		return;
	require(ready == (o->version > 0), o, "what is ready has a version, what is not has none");
	require((o->state == OBJECT_FAILED) == (o->error != 0), o, "what is failed has an error, nothing else has");
	require(o->deadline == 0 || o->state == OBJECT_PENDING || (o->state == OBJECT_WRITING && o->declared), o,
		"only a future that is not set has a deadline");
	require(o->borrows == 0 || ready, o, "only what is ready is borrowed");
}

static void check_change(const struct meta_object *old, const struct meta_object *o)
{
	int64_t step = o->borrows - old->borrows;

	require((o->mode & S_IFMT) == (old->mode & S_IFMT), o, "its type stays");
	require((next_states[old->state] & TO(o->state)) != 0, o, "there is no such step between states");
	require(o->version >= old->version, o, "the number of versions only grows");
	require(step >= -1 && step <= 1 && o->borrows >= BORROWED_MUT, o, "a borrow comes, or goes");
	require(old->borrows <= 0 || o->borrows <= 0 || o->vid == old->vid, o, "what is borrowed immutably stays as it is");
	require(old->borrows != BORROWED_MUT || o->borrows <= 0, o, "nobody borrows what is borrowed mutably");
}

static int insert_checked(struct meta *m, const struct meta_object *o)
{
	require(!is_file(o) || (TO(o->state) & FILES) != 0, o, "nothing is made as a failure");
	check_state(o);
	return engine->object_insert(m, o);
}

static int update_checked(struct meta *m, const struct meta_object *o)
{
	struct meta_object old;

	check_state(o);
	if (engine->object_get(m, o->id, &old) == 0)
		check_change(&old, o);
	return engine->object_update(m, o);
}

static int any_name(void *arg, const struct meta_dentry *d)
{
	return 1;
}

static bool is_empty(struct meta *m, uint64_t dir)
{
	return engine->dentry_list(m, dir, 0, any_name, NULL) <= 0 && engine->member_list(m, dir, 0, any_name, NULL) <= 0;
}

static int delete_checked(struct meta *m, uint64_t id)
{
	struct meta_object old;

	if (engine->object_get(m, id, &old) == 0) {
		require(old.borrows == 0, &old, "what is borrowed is not deleted");
		require(!is_dir(&old) || is_empty(m, id), &old, "a lifetime or a directory that goes is empty");
	}
	return engine->object_delete(m, id);
}

static int name_of_lifetime(void *arg, const struct meta_dentry *d)
{
	return d->parent == META_LIFETIMES;
}

static void require_id(bool good, uint64_t id, const char *rule)
{
	require(good, &(struct meta_object){ .id = id }, rule);
}

static bool has_name(struct meta *m, uint64_t id)
{
	return engine->dentry_names(m, id, any_name, NULL) != 0; /* an error is no violation */
}

static int member_insert_checked(struct meta *m, uint64_t lifetime, const char *name, uint64_t object)
{
	require_id(engine->dentry_names(m, lifetime, name_of_lifetime, NULL) != 0, lifetime, "only what is alive gets members");
	return engine->member_insert(m, lifetime, name, object);
}

static int ending_checked(struct meta *m, uint64_t object, const char *path)
{
	require_id(engine->dentry_names(m, object, any_name, NULL) <= 0, object, "what is ending has no name");
	return engine->ending_add(m, object, path);
}

static int lease_checked(struct meta *m, const struct meta_lease *l)
{
	require_id(has_name(m, l->object), l->object, "what has no name gets no lease");
	return engine->lease_put(m, l);
}

static int binding_checked(struct meta *m, const struct meta_binding *b)
{
	require_id(has_name(m, b->object), b->object, "what has no name is bound to no process");
	return engine->binding_put(m, b);
}

void checker_start(struct meta *m)
{
	engine = m->ops;
	checked = *m->ops;
	checked.member_insert = member_insert_checked;
	checked.ending_add = ending_checked;
	checked.lease_put = lease_checked;
	checked.binding_put = binding_checked;
	checked.object_insert = insert_checked;
	checked.object_update = update_checked;
	checked.object_delete = delete_checked;
	m->ops = &checked;
}

#else

void checker_start(struct meta *m)
{
}

#endif

/* The contract of meta/meta.h, with the SQLite engine in a directory of its own. */
#include "meta/meta.h"
#include "tests/unit/rig.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char *dir;
static struct meta *m;

#define OP(call) (m->ops->call)

static void open_catalog(void)
{
	const char *why;

	assert_int_equal(meta_sqlite_open(scratch_path(dir, "catalog.db"), &m, &why), 0);
}

static void close_catalog(void)
{
	if (m != NULL)
		m->ops->close(m);
	m = NULL;
}

static void reopen(void)
{
	close_catalog();
	open_catalog();
}

/* A test that fails leaves its operation open: tear_down ends it, or closing would wait for ever. */
static bool in_operation;

static void begin(void)
{
	m->ops->begin(m);
	in_operation = true;
}

static void end(enum meta_ack ack, struct meta_commit *c)
{
	in_operation = false;
	m->ops->end(m, ack, c);
}

static void end_read(void)
{
	end(META_READ, NULL);
}

static int set_up(void **state)
{
	dir = scratch_make();
	if (dir == NULL)
		return -1;
	open_catalog();
	return 0;
}

static int tear_down(void **state)
{
	if (in_operation)
		end_read();
	close_catalog();
	scratch_remove(dir);
	return 0;
}

/* Ends the operation and waits until it is recorded. */
static void end_recorded(void)
{
	struct sync_commit s;

	sync_init(&s);
	end(META_RECORDED, &s.c);
	assert_true(sync_wait(&s));
	assert_int_equal(s.result, 0);
}

static struct meta_object object(uint64_t id)
{
	return (struct meta_object){ .id = id, .vid = id, .mode = S_IFREG | 0644, .nlink = 1, .state = OBJECT_READY,
				     .version = 1 };
}

static uint64_t new_id(void)
{
	uint64_t id = 0;

	assert_int_equal(m->ops->new_id(m, &id), 0);
	return id;
}

/* Within an operation. */
static uint64_t add_object(void)
{
	struct meta_object o = object(new_id());

	assert_int_equal(m->ops->object_insert(m, &o), 0);
	return o.id;
}

/* The root, as core makes it. */
static void add_root(void)
{
	struct meta_object o = { .id = META_ROOT, .vid = META_ROOT, .mode = S_IFDIR | 0755, .nlink = 2 };

	assert_int_equal(m->ops->object_insert(m, &o), 0);
}

/* ---- Objects ---- */

static struct meta_object full_object(uint64_t id)
{
	return (struct meta_object){
		.id = id, .vid = id + 1000000, .version = UINT64_MAX >> 1, .mode = S_IFREG | 07777, .uid = UINT32_MAX,
		.gid = UINT32_MAX - 1, .nlink = UINT32_MAX - 2, .rdev = UINT64_MAX - 3, .size = INT64_MAX, .blocks = 1LL << 40,
		.atime = -1, .mtime = INT64_MIN, .ctime = INT64_MAX, .btime = 7, .state = OBJECT_FAILED, .declared = true,
		.durable = true, .live = true, .error = ETIMEDOUT, .deadline = INT64_MAX - 1, .producer_pid = INT32_MAX, .lifetime = INT64_MAX,
		.borrows = INT64_MAX, .queued = UINT32_MAX, .evict = true,
		.producer_uid = UINT32_MAX, .producer_command = "123456789012345",
	};
}

static void same_object(const struct meta_object *a, const struct meta_object *b)
{
	assert_true(a->id == b->id && a->vid == b->vid && a->version == b->version);
	assert_true(a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->nlink == b->nlink);
	assert_true(a->rdev == b->rdev && a->size == b->size && a->blocks == b->blocks);
	assert_true(a->atime == b->atime && a->mtime == b->mtime && a->ctime == b->ctime && a->btime == b->btime);
	assert_true(a->state == b->state && a->declared == b->declared && a->live == b->live);
	assert_true(a->error == b->error && a->deadline == b->deadline && a->durable == b->durable);
	assert_true(a->lifetime == b->lifetime && a->borrows == b->borrows && a->queued == b->queued && a->evict == b->evict);
	assert_true(a->producer_pid == b->producer_pid && a->producer_uid == b->producer_uid);
	assert_string_equal(a->producer_command, b->producer_command);
}

static void test_object(void **state)
{
	struct meta_object o, got;

	begin();
	o = full_object(new_id());
	assert_int_equal(OP(object_get)(m, o.id, &got), -ENOENT);
	assert_int_equal(OP(object_insert)(m, &o), 0);
	assert_int_equal(OP(object_insert)(m, &o), -EEXIST);
	assert_int_equal(OP(object_get)(m, o.id, &got), 0);
	same_object(&o, &got);
	end_recorded();
	reopen();
	begin();
	assert_int_equal(OP(object_get)(m, o.id, &got), 0);
	same_object(&o, &got);
	o = (struct meta_object){ .id = o.id, .vid = o.id };
	assert_int_equal(OP(object_update)(m, &o), 0);
	assert_int_equal(OP(object_get)(m, o.id, &got), 0);
	same_object(&o, &got);
	assert_int_equal(OP(object_delete)(m, o.id), 0);
	assert_int_equal(OP(object_get)(m, o.id, &got), -ENOENT);
	end_recorded();
}

static void test_object_by_version(void **state)
{
	struct meta_object o, got;
	uint64_t first, second;

	begin();
	o = object(first = new_id());
	assert_int_equal(OP(object_insert)(m, &o), 0);
	assert_int_equal(OP(object_by_version)(m, first, &got), 0);
	assert_true(got.id == first);
	o.vid = second = new_id();
	assert_int_equal(OP(object_update)(m, &o), 0);
	assert_int_equal(OP(object_by_version)(m, second, &got), 0);
	assert_true(got.id == first && got.vid == second);
	assert_int_equal(OP(object_by_version)(m, first, &got), -ENOENT); /* the object's, but not its version any more */
	assert_int_equal(OP(object_get)(m, first, &got), 0);
	assert_int_equal(OP(object_get)(m, second, &got), -ENOENT);
	assert_int_equal(OP(object_by_version)(m, new_id(), &got), -ENOENT);
	o = object(new_id());
	o.vid = second;
	assert_int_equal(OP(object_insert)(m, &o), -EEXIST); /* a version belongs to one object */
	end_read();
}

static void test_object_touch(void **state)
{
	struct meta_object o;
	uint64_t id;

	begin();
	id = add_object();
	assert_int_equal(OP(object_touch)(m, id, 1234, 3), 0);
	assert_int_equal(OP(object_touch)(m, id, 5678, -2), 0);
	assert_int_equal(OP(object_get)(m, id, &o), 0);
	assert_true(o.mtime == 5678 && o.ctime == 5678 && o.atime == 0 && o.btime == 0);
	assert_int_equal(o.nlink, 2);
	end_recorded();
}

static int count_attribute(void *arg, const char *name, size_t len)
{
	++*(unsigned *)arg;
	return 0;
}

static int count_draft(void *arg, const struct meta_draft *d)
{
	++*(unsigned *)arg;
	return 0;
}

static unsigned draft_count(void)
{
	unsigned n = 0;

	assert_int_equal(OP(draft_list)(m, count_draft, &n), 0);
	return n;
}

static void test_object_delete_takes_along(void **state)
{
	unsigned attributes = 0;
	uint64_t id, other;

	begin();
	id = add_object();
	other = add_object();
	OP(attribute_set)(m, id, "user.a", "1", 1);
	OP(attribute_set)(m, other, "user.a", "1", 1);
	OP(draft_put)(m, &(struct meta_draft){ .object = id, .vid = id });
	OP(draft_put)(m, &(struct meta_draft){ .object = other, .vid = other });
	assert_int_equal(OP(object_delete)(m, id), 0);
	assert_int_equal(OP(attribute_get)(m, id, "user.a", NULL, 0), -ENOENT);
	assert_int_equal(OP(attribute_list)(m, id, count_attribute, &attributes), 0);
	assert_int_equal(attributes, 0);
	assert_int_equal(OP(attribute_get)(m, other, "user.a", NULL, 0), 1);
	assert_int_equal(draft_count(), 1);
	end_recorded();
}

struct id_list {
	uint64_t id[16];
	unsigned n, stop; /* 0: never */
};

static int list_object(void *arg, const struct meta_object *o)
{
	struct id_list *l = arg;

	l->id[l->n++] = o->id;
	return l->n == l->stop ? 42 : 0;
}

static void test_deadlines(void **state)
{
	static const int64_t at[] = { 300, 0, 100, INT64_MAX, 200 };
	struct id_list l = { .n = 0 };
	uint64_t id[5];

	begin();
	for (unsigned i = 0; i < 5; i++) {
		struct meta_object o = object(id[i] = new_id());

		o.deadline = at[i];
		assert_int_equal(OP(object_insert)(m, &o), 0);
	}
	assert_int_equal(OP(object_deadlines)(m, list_object, &l), 0);
	assert_int_equal(l.n, 4);
	assert_true(l.id[0] == id[2] && l.id[1] == id[4] && l.id[2] == id[0] && l.id[3] == id[3]);
	l = (struct id_list){ .stop = 2 };
	assert_int_equal(OP(object_deadlines)(m, list_object, &l), 42); /* ended, and what ended it */
	assert_int_equal(l.n, 2);
	l = (struct id_list){ .n = 0 };
	assert_int_equal(OP(object_deadlines)(m, list_object, &l), 0); /* from the start again */
	assert_int_equal(l.n, 4);
	end_recorded();
}

/* ---- Directory entries ---- */

static void test_dentry(void **state)
{
	struct meta_dentry d;
	uint64_t a, b;

	begin();
	add_root();
	a = add_object();
	b = add_object();
	assert_int_equal(OP(dentry_get)(m, META_ROOT, "x", &d), -ENOENT);
	assert_int_equal(OP(dentry_insert)(m, META_ROOT, "x", a), 0);
	assert_int_equal(OP(dentry_get)(m, META_ROOT, "x", &d), 0);
	assert_true(d.parent == META_ROOT && d.object == a && d.cookie >= 1 && d.cookie <= INT64_MAX);
	assert_int_equal(d.name_len, 1);
	assert_string_equal(d.name, "x");
	assert_int_equal(OP(dentry_get)(m, a, "x", &d), -ENOENT); /* another parent */
	assert_int_equal(OP(dentry_get)(m, META_ROOT, "X", &d), -ENOENT);
	assert_int_equal(OP(dentry_get)(m, META_ROOT, "x", &d), 0);
	assert_int_equal(OP(dentry_set)(m, &d, b), 0);
	assert_int_equal(OP(dentry_get)(m, META_ROOT, "x", &d), 0);
	assert_true(d.object == b);
	assert_int_equal(OP(dentry_delete)(m, &d), 0);
	assert_int_equal(OP(dentry_get)(m, META_ROOT, "x", &d), -ENOENT);
	end_recorded();
}

static void test_dentry_bytes(void **state)
{
	char longest[META_NAME_MAX + 1];
	struct meta_dentry d;
	uint64_t a;

	memset(longest, 'n', META_NAME_MAX);
	longest[META_NAME_MAX] = '\0';
	begin();
	add_root();
	a = add_object();
	assert_int_equal(OP(dentry_insert)(m, META_ROOT, longest, a), 0);
	assert_int_equal(OP(dentry_insert)(m, META_ROOT, "\xff\xfe'\"\n%", a), 0);
	end_recorded();
	reopen();
	begin();
	assert_int_equal(OP(dentry_get)(m, META_ROOT, longest, &d), 0);
	assert_int_equal(d.name_len, META_NAME_MAX);
	assert_string_equal(d.name, longest);
	assert_int_equal(OP(dentry_get)(m, META_ROOT, "\xff\xfe'\"\n%", &d), 0);
	assert_string_equal(d.name, "\xff\xfe'\"\n%");
	end_read();
}

#define ENTRIES 500

struct listing {
	struct meta_dentry d[ENTRIES + 1];
	unsigned n, limit;
};

static int list_dentry(void *arg, const struct meta_dentry *d)
{
	struct listing *l = arg;

	if (l->n <= ENTRIES)
		l->d[l->n] = *d;
	l->n++;
	return l->n == l->limit ? 1 : 0;
}

static struct meta_dentry *find_name(struct listing *l, const char *name)
{
	for (unsigned i = 0; i < l->n; i++)
		if (strcmp(l->d[i].name, name) == 0)
			return &l->d[i];
	return NULL;
}

static void add_entries(uint64_t object)
{
	char name[16];

	for (unsigned i = 0; i < ENTRIES; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(OP(dentry_insert)(m, META_ROOT, name, object), 0);
	}
}

/* Reads the directory in pieces; between two of them, others come and go. */
static void read_in_pieces(struct listing *all, uint64_t object, bool disturb)
{
	struct listing *l = malloc(sizeof(*l));
	uint64_t after = 0;
	char name[16];

	assert_non_null(l);
	all->n = 0;
	do {
		l->n = 0;
		l->limit = 7;
		assert_true(OP(dentry_list)(m, META_ROOT, after, list_dentry, l) >= 0);
		for (unsigned i = 0; i < l->n; i++) {
			assert_true(l->d[i].cookie > after);
			after = l->d[i].cookie;
			if (l->d[i].name[0] == 'n')
				all->d[all->n++] = l->d[i];
		}
		snprintf(name, sizeof(name), "other%u", all->n);
		if (disturb && l->n > 0)
			assert_int_equal(OP(dentry_insert)(m, META_ROOT, name, object), 0);
	} while (l->n > 0);
	free(l);
}

static void test_cookies(void **state)
{
	struct listing *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));
	uint64_t object;

	begin();
	add_root();
	object = add_object();
	add_entries(object);
	assert_int_equal(OP(dentry_list)(m, META_ROOT, 0, list_dentry, a), 0);
	assert_int_equal(a->n, ENTRIES);
	read_in_pieces(b, object, true);
	assert_int_equal(b->n, ENTRIES); /* all of them, once */
	end_recorded();
	reopen();
	begin();
	for (unsigned i = 0; i < ENTRIES; i += 2)
		assert_int_equal(OP(dentry_delete)(m, &a->d[i]), 0);
	read_in_pieces(b, object, false);
	assert_int_equal(b->n, ENTRIES / 2);
	for (unsigned i = 1; i < ENTRIES; i += 2) {
		const struct meta_dentry *d = find_name(b, a->d[i].name);

		assert_non_null(d);
		assert_true(d->cookie == a->d[i].cookie);
	}
	end_recorded();
	free(a);
	free(b);
}

static void test_dentry_names(void **state)
{
	struct listing *l = calloc(1, sizeof(*l));
	uint64_t a, sub;

	begin();
	add_root();
	a = add_object();
	sub = add_object();
	assert_int_equal(OP(dentry_names)(m, a, list_dentry, l), 0);
	assert_int_equal(l->n, 0);
	OP(dentry_insert)(m, META_ROOT, "one", a);
	OP(dentry_insert)(m, sub, "one", a);
	OP(dentry_insert)(m, META_ROOT, "sub", sub);
	assert_int_equal(OP(dentry_names)(m, a, list_dentry, l), 0);
	assert_int_equal(l->n, 2);
	assert_true(l->d[0].parent != l->d[1].parent && l->d[0].object == a && l->d[1].object == a);
	assert_string_equal(l->d[0].name, "one");
	l->n = 0;
	l->limit = 1;
	assert_int_equal(OP(dentry_names)(m, a, list_dentry, l), 1);
	assert_int_equal(OP(dentry_delete)(m, &l->d[0]), 0); /* as found, so it can be deleted */
	l->n = 0;
	l->limit = 0;
	assert_int_equal(OP(dentry_names)(m, a, list_dentry, l), 0);
	assert_int_equal(l->n, 1);
	end_recorded();
	free(l);
}

/* ---- Attributes ---- */

static void test_attributes(void **state)
{
	char big[65536], got[65536];
	uint64_t id;

	memset(big, 0xa5, sizeof(big));
	begin();
	id = add_object();
	assert_int_equal(OP(attribute_get)(m, id, "user.x", got, sizeof(got)), -ENOENT);
	assert_int_equal(OP(attribute_set)(m, id, "user.x", "a\0b", 3), 0);
	assert_int_equal(OP(attribute_get)(m, id, "user.x", NULL, 0), 3);
	assert_int_equal(OP(attribute_get)(m, id, "user.x", got, 2), -ERANGE);
	assert_int_equal(OP(attribute_get)(m, id, "user.x", got, 3), 3);
	assert_memory_equal(got, "a\0b", 3);
	assert_int_equal(OP(attribute_set)(m, id, "user.x", "longer", 6), 0);
	assert_int_equal(OP(attribute_get)(m, id, "user.x", got, sizeof(got)), 6);
	assert_int_equal(OP(attribute_set)(m, id, "user.empty", NULL, 0), 0);
	assert_int_equal(OP(attribute_get)(m, id, "user.empty", got, 1), 0);
	assert_int_equal(OP(attribute_set)(m, id, "user.big", big, sizeof(big)), 0);
	end_recorded();
	reopen();
	begin();
	assert_int_equal(OP(attribute_get)(m, id, "user.big", got, sizeof(got)), sizeof(big));
	assert_memory_equal(got, big, sizeof(big));
	assert_int_equal(OP(attribute_get)(m, id, "user.big", got, sizeof(big) - 1), -ERANGE);
	assert_int_equal(OP(attribute_remove)(m, id, "user.x"), 0);
	assert_int_equal(OP(attribute_get)(m, id, "user.x", NULL, 0), -ENOENT);
	end_recorded();
}

struct attribute_list {
	size_t lens;
	unsigned n, stop;
};

static int list_attribute(void *arg, const char *name, size_t len)
{
	struct attribute_list *l = arg;

	assert_true(strncmp(name, "user.", 5) == 0);
	l->lens += len;
	return ++l->n == l->stop ? -ERANGE : 0;
}

static void test_attribute_list(void **state)
{
	struct attribute_list l = { 0 };
	uint64_t id, other;

	begin();
	id = add_object();
	other = add_object();
	OP(attribute_set)(m, id, "user.a", "1", 1);
	OP(attribute_set)(m, id, "user.b", "22", 2);
	OP(attribute_set)(m, id, "user.c", "4444", 4);
	OP(attribute_set)(m, other, "user.d", "88888888", 8);
	assert_int_equal(OP(attribute_list)(m, id, list_attribute, &l), 0);
	assert_int_equal(l.n, 3);
	assert_int_equal(l.lens, 7);
	l = (struct attribute_list){ .stop = 2 };
	assert_int_equal(OP(attribute_list)(m, id, list_attribute, &l), -ERANGE);
	assert_int_equal(l.n, 2);
	end_recorded();
}

/* ---- Drafts, garbage, aborted ---- */

struct draft_copy {
	struct meta_draft d[4];
	unsigned n;
};

static int copy_draft(void *arg, const struct meta_draft *d)
{
	struct draft_copy *c = arg;

	c->d[c->n++] = *d;
	return c->n == 4;
}

static void test_drafts(void **state)
{
	struct meta_draft d = { .sealed = true, .size = INT64_MAX, .mtime = -5 };
	struct draft_copy c = { .n = 0 };

	begin();
	d.object = add_object();
	d.vid = new_id();
	assert_int_equal(OP(draft_delete)(m, d.object, d.vid), 0); /* also when there is none */
	assert_int_equal(OP(draft_put)(m, &d), 0);
	d.vid = new_id();
	d.sealed = false;
	d.fsynced = true;
	assert_int_equal(OP(draft_put)(m, &d), 0); /* replaces */
	end_recorded();
	reopen();
	begin();
	assert_int_equal(OP(draft_list)(m, copy_draft, &c), 0);
	assert_int_equal(c.n, 1);
	assert_true(c.d[0].object == d.object && c.d[0].vid == d.vid && !c.d[0].sealed && c.d[0].fsynced);
	assert_true(c.d[0].size == INT64_MAX && c.d[0].mtime == -5);
	assert_int_equal(OP(draft_delete)(m, d.object, d.vid), 0);
	assert_int_equal(draft_count(), 0);
	end_recorded();
}

static int list_id(void *arg, uint64_t id)
{
	struct id_list *l = arg;

	l->id[l->n++] = id;
	return l->n == l->stop ? -EINTR : 0;
}

static void test_garbage(void **state)
{
	struct id_list l = { .n = 0 };

	begin();
	assert_int_equal(OP(garbage_list)(m, list_id, &l), 0);
	assert_int_equal(l.n, 0);
	assert_int_equal(OP(garbage_add)(m, 100), 0);
	assert_int_equal(OP(garbage_add)(m, 200), 0);
	assert_int_equal(OP(garbage_add)(m, 100), -EEXIST);
	end_recorded(); /* an EEXIST harms nobody */
	reopen();
	begin();
	assert_int_equal(OP(garbage_list)(m, list_id, &l), 0);
	assert_int_equal(l.n, 2);
	l = (struct id_list){ .stop = 1 };
	assert_int_equal(OP(garbage_list)(m, list_id, &l), -EINTR);
	assert_int_equal(OP(garbage_remove)(m, 100), 0);
	l = (struct id_list){ .n = 0 };
	assert_int_equal(OP(garbage_list)(m, list_id, &l), 0);
	assert_int_equal(l.n, 1);
	assert_true(l.id[0] == 200);
	end_recorded();
}

struct aborted_copy {
	struct meta_aborted a[4];
	unsigned n;
};

static int copy_aborted(void *arg, const struct meta_aborted *a)
{
	struct aborted_copy *c = arg;

	c->a[c->n++] = *a;
	return 0;
}

static void test_aborted(void **state)
{
	struct aborted_copy c = { .n = 0 };
	uint64_t old, young;

	begin();
	old = add_object();
	young = add_object();
	assert_int_equal(OP(aborted_add)(m, &(struct meta_aborted){ young, 7, 2000, 20 }), 0);
	assert_int_equal(OP(aborted_add)(m, &(struct meta_aborted){ old, 8, 1000, 10 }), 0);
	assert_int_equal(OP(aborted_add)(m, &(struct meta_aborted){ old, 9, 1000, 10 }), -EEXIST);
	end_recorded();
	reopen();
	begin();
	assert_int_equal(OP(aborted_list)(m, copy_aborted, &c), 0);
	assert_int_equal(c.n, 2);
	assert_true(c.a[0].object == old && c.a[0].draft == 8 && c.a[0].at == 1000 && c.a[0].size == 10);
	assert_true(c.a[1].object == young);
	assert_int_equal(OP(aborted_remove)(m, old), 0);
	assert_int_equal(OP(object_delete)(m, young), 0); /* and with it its record here */
	c.n = 0;
	assert_int_equal(OP(aborted_list)(m, copy_aborted, &c), 0);
	assert_int_equal(c.n, 0);
	end_recorded();
}

/* ---- Lifetimes and leases ---- */

static int list_member(void *arg, const struct meta_dentry *d)
{
	return list_id(arg, d->object);
}

static int list_lifetime(void *arg, const struct meta_dentry *d)
{
	return list_id(arg, d->parent);
}

static unsigned members(uint64_t lifetime)
{
	struct id_list l = { .n = 0 };

	assert_int_equal(OP(member_list)(m, lifetime, 0, list_member, &l), 0);
	return l.n;
}

static void test_members(void **state)
{
	struct id_list l = { .n = 0 };
	uint64_t first, second, object, other;
	struct meta_dentry d;

	begin();
	first = add_object();
	second = add_object();
	object = add_object();
	other = add_object();
	assert_int_equal(OP(member_insert)(m, first, "name", object), 0);
	assert_int_equal(OP(member_insert)(m, first, "other", other), 0);
	assert_int_equal(OP(member_insert)(m, second, "name", object), 0);
	end_recorded();
	reopen();
	begin();
	assert_int_equal(OP(member_get)(m, first, "name", &d), 0);
	assert_true(d.parent == first && d.object == object && d.cookie > 0 && strcmp(d.name, "name") == 0);
	assert_int_equal(OP(member_get)(m, second, "other", &d), -ENOENT);
	assert_int_equal(OP(dentry_get)(m, first, "name", &d), -ENOENT); /* not a key */
	assert_int_equal(OP(dentry_names)(m, object, list_member, &l), 0);
	assert_int_equal(l.n, 0);
	assert_int_equal(OP(member_names)(m, object, list_lifetime, &l), 0);
	assert_int_equal(l.n, 2);
	assert_int_equal(members(first), 2);
	assert_int_equal(OP(member_get)(m, first, "other", &d), 0);
	assert_int_equal(OP(member_delete)(m, &d), 0);
	assert_int_equal(members(first), 1);
	assert_int_equal(OP(object_delete)(m, object), 0); /* and with it its membership */
	assert_int_equal(members(first) + members(second), 0);
	end_recorded();
}

static int list_ending(void *arg, uint64_t object, const char *path)
{
	assert_string_equal(path, "where/it was");
	return list_id(arg, object);
}

static void test_ending(void **state)
{
	struct id_list l = { .n = 0 };
	uint64_t lifetime;

	begin();
	lifetime = add_object();
	assert_int_equal(OP(ending_add)(m, lifetime, "where/it was"), 0);
	end_recorded();
	reopen();
	begin();
	assert_int_equal(OP(ending_list)(m, list_ending, &l), 0);
	assert_true(l.n == 1 && l.id[0] == lifetime);
	assert_int_equal(OP(object_delete)(m, lifetime), 0);
	l.n = 0;
	assert_int_equal(OP(ending_list)(m, list_ending, &l), 0);
	assert_int_equal(l.n, 0);
	end_recorded();
}

static int copy_lease(void *arg, const struct meta_lease *l)
{
	*(struct meta_lease *)arg = *l;
	return 1;
}

static void check_lease(uint64_t object, int64_t expires, int64_t boot, uint64_t boot_id)
{
	struct meta_lease l;

	assert_int_equal(OP(lease_get)(m, object, &l), 0);
	assert_true(l.object == object && l.expires == expires && l.boot == boot && l.boot_id == boot_id);
}

static void test_leases(void **state)
{
	uint64_t a, b, c;
	struct meta_lease l;

	begin();
	a = add_object();
	b = add_object();
	c = add_object();
	assert_int_equal(OP(lease_get)(m, a, &l), -ENOENT);
	assert_int_equal(OP(lease_soonest)(m, false, copy_lease, &l), 0);
	assert_int_equal(OP(lease_put)(m, &(struct meta_lease){ a, 5000, 0, 7 }), 0);
	assert_int_equal(OP(lease_put)(m, &(struct meta_lease){ a, 3000, 900, 7 }), 0);
	assert_int_equal(OP(lease_put)(m, &(struct meta_lease){ b, 2000, 950, 7 }), 0);
	assert_int_equal(OP(lease_put)(m, &(struct meta_lease){ c, INT64_MAX, 0, 7 }), 0);
	end_recorded();
	reopen();
	begin();
	check_lease(a, 3000, 900, 7);
	assert_int_equal(OP(lease_soonest)(m, false, copy_lease, &l), 1);
	assert_true(l.object == a);
	assert_int_equal(OP(lease_soonest)(m, true, copy_lease, &l), 1);
	assert_true(l.object == c && l.boot == 0);
	assert_int_equal(OP(lease_rebase)(m, 7, 1000, 10), 0); /* the same boot */
	check_lease(a, 3000, 900, 7);
	assert_int_equal(OP(lease_rebase)(m, 8, 2500, 10), 0);
	check_lease(a, 3000, 510, 8);
	check_lease(b, 2000, 1, 8); /* over */
	check_lease(c, INT64_MAX, 0, 7);
	assert_int_equal(OP(lease_remove)(m, a), 0);
	assert_int_equal(OP(lease_get)(m, a, &l), -ENOENT);
	assert_int_equal(OP(object_delete)(m, b), 0);
	assert_int_equal(OP(lease_soonest)(m, false, copy_lease, &l), 0);
	end_recorded();
}

static int copy_binding(void *arg, const struct meta_binding *b)
{
	return list_id(arg, b->object);
}

static void test_bindings(void **state)
{
	struct id_list l = { .n = 0 };
	struct meta_binding b;
	uint64_t one, two;

	begin();
	one = add_object();
	two = add_object();
	assert_int_equal(OP(binding_get)(m, one, &b), -ENOENT);
	assert_int_equal(OP(binding_put)(m, &(struct meta_binding){ one, 7, 8, 9 }), 0);
	assert_int_equal(OP(binding_put)(m, &(struct meta_binding){ one, INT32_MAX, INT64_MAX, INT64_MAX }), 0);
	assert_int_equal(OP(binding_put)(m, &(struct meta_binding){ two, INT32_MAX, 5, 6 }), 0);
	end_recorded();
	reopen();
	begin();
	assert_int_equal(OP(binding_get)(m, one, &b), 0);
	assert_true(b.object == one && b.pid == INT32_MAX && b.start == INT64_MAX && b.boot_id == INT64_MAX);
	assert_int_equal(OP(binding_list)(m, 0, copy_binding, &l), 0);
	assert_true(l.n == 2 && l.id[0] == one && l.id[1] == two);
	l.n = 0;
	assert_int_equal(OP(binding_list)(m, one, copy_binding, &l), 0);
	assert_true(l.n == 1 && l.id[0] == two);
	l.n = 0;
	assert_int_equal(OP(binding_of)(m, INT32_MAX, 5, copy_binding, &l), 0); /* not every process of that number */
	assert_true(l.n == 1 && l.id[0] == two);
	assert_int_equal(OP(binding_remove)(m, one), 0);
	assert_int_equal(OP(object_delete)(m, two), 0);
	l.n = 0;
	assert_int_equal(OP(binding_list)(m, 0, copy_binding, &l), 0);
	assert_int_equal(l.n, 0);
	end_recorded();
}

static int copy_borrow(void *arg, const struct meta_borrow *b)
{
	return list_id(arg, b->handle);
}

static void test_borrows(void **state)
{
	struct id_list l = { .n = 0 };
	struct meta_borrow b;
	uint64_t object, one, two;

	begin();
	object = add_object();
	one = add_object();
	two = add_object();
	assert_int_equal(OP(borrow_get)(m, one, &b), -ENOENT);
	assert_int_equal(OP(borrow_add)(m, &(struct meta_borrow){ two, object, false, true }), 0);
	assert_int_equal(OP(borrow_add)(m, &(struct meta_borrow){ one, object, true }), 0);
	assert_int_equal(OP(borrow_add)(m, &(struct meta_borrow){ one, two, true }), -EEXIST);
	end_recorded();
	reopen();
	begin();
	assert_int_equal(OP(borrow_get)(m, one, &b), 0);
	assert_true(b.handle == one && b.object == object && b.mut && !b.waiting);
	assert_int_equal(OP(borrow_list)(m, object, false, copy_borrow, &l), 0);
	assert_true(l.n == 1 && l.id[0] == one);
	assert_int_equal(OP(borrow_list)(m, object, true, copy_borrow, &l), 0);
	assert_true(l.n == 2 && l.id[1] == two);
	assert_int_equal(OP(borrow_held)(m, two), 0);
	l.n = 0;
	assert_int_equal(OP(borrow_list)(m, object, false, copy_borrow, &l), 0);
	assert_true(l.n == 2 && l.id[0] == one && l.id[1] == two);
	assert_int_equal(OP(object_delete)(m, object), -EEXIST); /* while it is borrowed */
	assert_int_equal(OP(object_delete)(m, one), 0);
	assert_int_equal(OP(object_delete)(m, two), 0);
	assert_int_equal(OP(object_delete)(m, object), 0);
	assert_int_equal(OP(borrow_get)(m, one, &b), -ENOENT);
	end_recorded();
}

static int list_taken(void *arg, const struct meta_dentry *d)
{
	assert_string_equal(d->name, "name");
	assert_int_equal(d->name_len, 4);
	return list_id(arg, d->parent);
}

static int list_done(void *arg, uint64_t object, bool done)
{
	return done ? list_id(arg, object) : 0;
}

static int list_all_taken(void *arg, uint64_t object, bool done)
{
	return list_id(arg, object);
}

static void test_taken(void **state)
{
	struct id_list l = { .n = 0 };
	uint64_t one, two;

	begin();
	one = add_object();
	two = add_object();
	assert_int_equal(OP(taken_add)(m, &(struct meta_dentry){ .object = one, .parent = 1, .name = "name", .name_len = 4 }), 0);
	assert_int_equal(OP(taken_add)(m, &(struct meta_dentry){ .object = one, .parent = 77, .name = "name", .name_len = 4 }), 0);
	assert_int_equal(OP(taken_add)(m, &(struct meta_dentry){ .object = two, .parent = 1, .name = "name", .name_len = 4 }), 0);
	end_recorded();
	reopen();
	begin();
	assert_int_equal(OP(taken_names)(m, one, list_taken, &l), 0);
	assert_true(l.n == 2 && l.id[0] == 1 && l.id[1] == 77); /* whether the directory is still there or not */
	assert_int_equal(OP(taken_remove)(m, one), 0);
	l.n = 0;
	assert_int_equal(OP(taken_list)(m, list_done, &l), 0);
	assert_int_equal(l.n, 0);
	assert_int_equal(OP(taken_done)(m, two, true), 0);
	assert_int_equal(OP(taken_list)(m, list_done, &l), 0);
	assert_true(l.n == 1 && l.id[0] == two);
	assert_int_equal(OP(object_delete)(m, two), 0);
	l.n = 0;
	assert_int_equal(OP(taken_list)(m, list_all_taken, &l), 0);
	assert_int_equal(l.n, 0);
	end_recorded();
}

/* ---- Events ---- */

struct event_copy {
	uint64_t first, last, expected_id;
	unsigned n, stop;
	bool ordered;
	char kind[16], key[16], detail[16], command[META_COMMAND_MAX];
	struct meta_event e;
};

static int copy_event(void *arg, const struct meta_event *e)
{
	struct event_copy *c = arg;

	if (c->n++ == 0)
		c->first = e->id;
	else if (e->id <= c->last)
		c->ordered = false;
	c->last = e->id;
	c->e = *e;
	snprintf(c->kind, sizeof(c->kind), "%s", e->kind);
	snprintf(c->key, sizeof(c->key), "%.*s", (int)e->key_len, (const char *)e->key);
	snprintf(c->detail, sizeof(c->detail), "%s", e->detail != NULL ? e->detail : "(none)");
	snprintf(c->command, sizeof(c->command), "%s", e->command);
	return c->n == c->stop ? 9 : 0;
}

static void test_events(void **state)
{
	struct meta_event e = { .at = 123, .kind = "put", .key = "a\xff/b", .key_len = 4, .object = 77, .version = 3,
				.pid = 4242, .uid = 1000, .command = "123456789012345", .detail = "why" };
	struct event_copy c = { .ordered = true };
	uint64_t first;

	begin();
	assert_int_equal(OP(event_add)(m, &e), 0);
	first = e.id;
	e.detail = NULL;
	e.kind = "evict";
	assert_int_equal(OP(event_add)(m, &e), 0);
	assert_true(e.id > first);
	end_recorded();
	reopen();
	begin();
	assert_int_equal(OP(event_scan)(m, 0, copy_event, &c), 0);
	assert_int_equal(c.n, 2);
	assert_true(c.ordered && c.first == first && c.last == e.id);
	assert_string_equal(c.detail, "(none)");
	assert_string_equal(c.kind, "evict");
	c = (struct event_copy){ .stop = 1 };
	assert_int_equal(OP(event_scan)(m, 0, copy_event, &c), 9);
	assert_string_equal(c.kind, "put");
	assert_string_equal(c.key, "a\xff/b");
	assert_string_equal(c.detail, "why");
	assert_string_equal(c.command, "123456789012345");
	assert_true(c.e.at == 123 && c.e.object == 77 && c.e.version == 3 && c.e.pid == 4242 && c.e.uid == 1000);
	c = (struct event_copy){ .n = 0 };
	assert_int_equal(OP(event_scan)(m, first, copy_event, &c), 0); /* those after it */
	assert_int_equal(c.n, 1);
	end_read();
}

#define KEPT 100000

static void test_events_pruned(void **state)
{
	struct meta_event e = { .at = 1, .kind = "put", .key = "k", .key_len = 1 };
	struct event_copy c = { .ordered = true };

	begin();
	for (unsigned i = 0; i < KEPT + 3000; i++)
		if (OP(event_add)(m, &e) != 0)
			fail();
	end_recorded();
	begin();
	assert_int_equal(OP(event_scan)(m, 0, copy_event, &c), 0);
	assert_true(c.ordered && c.last == e.id); /* the newest are all there */
	assert_in_range(c.n, KEPT, KEPT + 1024);
	assert_int_equal(c.last - c.first + 1, c.n);
	end_read();
}

/* ---- Identifiers ---- */

static void test_ids(void **state)
{
	uint64_t last = META_FIRST_ID - 1;

	for (unsigned opened = 0; opened < 3; opened++) {
		begin();
		for (unsigned i = 0; i < 1000; i++) {
			uint64_t id = new_id();

			assert_true(id > last && id <= INT64_MAX);
			last = id;
		}
		end_read();
		reopen();
	}
}

static void end_abandoned(void)
{
	struct sync_commit s;

	sync_init(&s);
	end(META_ABANDON, &s.c);
	assert_true(sync_wait(&s));
	assert_true(s.result < 0);
}

static void test_ids_after_rollback(void **state)
{
	uint64_t id;

	begin();
	id = add_object();
	end_abandoned();
	begin();
	assert_true(new_id() > id);
	end_recorded();
}

/* A process that dies in the middle, without any chance to tidy up. */
static void die_with_ids(int out)
{
	uint64_t id;

	open_catalog();
	begin();
	for (unsigned i = 0; i < 10; i++)
		id = add_object();
	end(META_LATER, NULL);
	if (write(out, &id, sizeof(id)) == sizeof(id))
		raise(SIGKILL);
	_exit(1);
}

static void test_ids_after_crash(void **state)
{
	uint64_t theirs = 0;
	int p[2], status;
	pid_t pid;

	close_catalog();
	assert_int_equal(pipe(p), 0);
	pid = fork();
	if (pid == 0)
		die_with_ids(p[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(read(p[0], &theirs, sizeof(theirs)), sizeof(theirs));
	close(p[0]);
	close(p[1]);
	open_catalog();
	begin();
	assert_true(new_id() > theirs);
	end_read();
}

/* ---- Acknowledgements ---- */

static bool has_object(uint64_t id)
{
	struct meta_object o;
	int r;

	begin();
	r = OP(object_get)(m, id, &o);
	end_read();
	assert_true(r == 0 || r == -ENOENT);
	return r == 0;
}

static void test_ack(enum meta_ack ack)
{
	struct sync_commit s;
	uint64_t id;

	sync_init(&s);
	begin();
	id = add_object();
	end(ack, &s.c);
	assert_true(sync_wait(&s));
	assert_int_equal(s.result, 0);
	reopen();
	assert_true(has_object(id));
	assert_int_equal(sync_times(&s), 1);
}

static void test_recorded(void **state)
{
	test_ack(META_RECORDED);
}

static void test_durable(void **state)
{
	test_ack(META_DURABLE);
}

static void test_later(void **state)
{
	test_ack(META_LATER);
}

/* Nobody asks for anything else: what was to be recorded is, without a change in the operation itself. */
static void test_recorded_of_nothing(void **state)
{
	struct sync_commit s, d;

	sync_init(&s);
	sync_init(&d);
	begin();
	end(META_RECORDED, &s.c);
	begin();
	end(META_DURABLE, &d.c);
	assert_true(sync_wait(&s) && sync_wait(&d));
	assert_int_equal(s.result, 0);
	assert_int_equal(d.result, 0);
}

static void test_close_records(void **state)
{
	static const enum meta_ack acks[] = { META_LATER, META_RECORDED, META_DURABLE };
	struct sync_commit s[3];
	uint64_t id[3], silent;

	for (unsigned i = 0; i < 3; i++) {
		sync_init(&s[i]);
		begin();
		id[i] = add_object();
		end(acks[i], &s[i].c);
	}
	begin();
	silent = add_object();
	end(META_LATER, NULL);
	close_catalog();
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(sync_times(&s[i]), 1); /* before close returned */
		assert_int_equal(s[i].result, 0);
	}
	open_catalog();
	for (unsigned i = 0; i < 3; i++)
		assert_true(has_object(id[i]));
	assert_true(has_object(silent));
}

/* What was acknowledged survives SIGKILL. */
static void die_after_ack(int out, enum meta_ack ack)
{
	struct sync_commit s;
	uint64_t id;

	open_catalog();
	sync_init(&s);
	begin();
	id = add_object();
	end(ack, &s.c);
	if (sync_wait(&s) && s.result == 0 && write(out, &id, sizeof(id)) == sizeof(id))
		raise(SIGKILL);
	_exit(1);
}

static void test_ack_survives(void **state)
{
	static const enum meta_ack acks[] = { META_RECORDED, META_DURABLE, META_LATER };
	uint64_t id = 0;
	int p[2], status;

	close_catalog();
	assert_int_equal(pipe(p), 0);
	for (unsigned i = 0; i < 3; i++) {
		pid_t pid = fork();

		if (pid == 0)
			die_after_ack(p[1], acks[i]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		assert_int_equal(read(p[0], &id, sizeof(id)), sizeof(id));
		open_catalog();
		assert_true(has_object(id));
		close_catalog();
	}
	close(p[0]);
	close(p[1]);
}

struct rollbacks {
	unsigned n;
	int r;
	uint64_t seen; /* by a read from within */
};

static void on_rollback(void *arg, int r)
{
	struct rollbacks *b = arg;

	b->n++;
	b->r = r;
	m->ops->begin(m); /* it is called outside of begin and end */
	m->ops->new_id(m, &b->seen);
	m->ops->end(m, META_READ, NULL);
}

struct tail {
	struct sync_commit s[3];
	uint64_t id[3];
};

/* Three operations, of which the last is abandoned. */
static void make_tail(struct tail *t)
{
	static const enum meta_ack acks[] = { META_LATER, META_LATER, META_ABANDON };

	for (unsigned i = 0; i < 3; i++) {
		sync_init(&t->s[i]);
		begin();
		t->id[i] = add_object();
		end(acks[i], &t->s[i].c);
	}
}

/* The background thread may be quicker and record the first ones: then they are there, and were told so. */
static unsigned check_tail(struct tail *t)
{
	unsigned taken_back = 0;

	for (unsigned i = 0; i < 3; i++) {
		assert_true(sync_wait(&t->s[i]));
		assert_int_equal(sync_times(&t->s[i]), 1);
		assert_true(has_object(t->id[i]) == (t->s[i].result == 0));
		taken_back += t->s[i].result < 0;
	}
	assert_true(t->s[2].result < 0);
	assert_false(t->s[0].result < 0 && t->s[1].result == 0); /* a tail, never one out of the middle */
	return taken_back;
}

static void test_abandon(void **state)
{
	struct rollbacks b = { 0 };
	struct tail t;
	uint64_t before;
	unsigned n = 0;

	m->on_rollback = on_rollback;
	m->on_rollback_arg = &b;
	begin();
	before = add_object();
	end_recorded();
	for (unsigned i = 1; n < 3; i++) {
		assert_true(i < 100);
		make_tail(&t);
		n = check_tail(&t);
		assert_int_equal(b.n, i);
		assert_true(b.r < 0 && b.seen > 0);
	}
	assert_true(has_object(before)); /* what was recorded stays */
	reopen();
	assert_true(has_object(before));
	for (unsigned i = 0; i < 3; i++)
		assert_false(has_object(t.id[i]));
}

static void test_abandon_then_go_on(void **state)
{
	uint64_t id;

	begin();
	add_object();
	end_abandoned();
	begin();
	end(META_ABANDON, NULL); /* nothing changed, nobody waits, no on_rollback */
	begin();
	id = add_object();
	end_recorded();
	reopen();
	assert_true(has_object(id));
}

/* A record call that fails for the store's sake (the disk is full) spoils the operations that were not recorded. */
static void test_full_disk(void **state)
{
	struct rlimit old, small = { .rlim_cur = 65536 };
	struct rollbacks b = { 0 };
	char big[4096] = { 0 };
	struct sync_commit s;
	uint64_t id, after;

	m->on_rollback = on_rollback;
	m->on_rollback_arg = &b;
	begin();
	id = add_object();
	end_recorded();
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small.rlim_max = old.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	sync_init(&s);
	begin();
	for (unsigned i = 0; i < 100; i++) {
		snprintf(big, sizeof(big), "user.%u", i);
		OP(attribute_set)(m, id, big, big, sizeof(big));
	}
	end(META_RECORDED, &s.c);
	assert_true(sync_wait(&s));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_true(s.result < 0);
	assert_int_equal(b.n, 1);
	begin();
	assert_int_equal(OP(attribute_get)(m, id, "user.1", NULL, 0), -ENOENT);
	after = add_object();
	end_recorded();
	reopen();
	assert_true(has_object(id) && has_object(after));
}

/* ---- Group commit ---- */

#define THREADS 8
#define OPERATIONS 500

struct worker {
	unsigned number, failed;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < OPERATIONS; i++) {
		struct sync_commit s;
		int r;

		sync_init(&s);
		m->ops->begin(m);
		r = OP(garbage_add)(m, 1 + w->number * OPERATIONS + i);
		m->ops->end(m, META_RECORDED, &s.c);
		if (r != 0 || !sync_wait(&s) || s.result != 0)
			w->failed++;
	}
	return NULL;
}

static int count_id(void *arg, uint64_t id)
{
	++*(unsigned *)arg;
	return 0;
}

static uint64_t counted(const struct histogram *h)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		n += h->buckets[i];
	return n;
}

static void test_histogram(void **state)
{
	const int64_t values[] = { -1, 0, 1, 2, 3, 4, 5, 1024, 1025, INT64_MAX };
	const unsigned buckets[] = { 0, 0, 0, 1, 2, 2, 3, 10, 11, HISTOGRAM_BUCKETS - 1 };

	for (unsigned i = 0; i < sizeof(values) / sizeof(*values); i++) {
		struct histogram h = { 0 };

		histogram_add(&h, values[i]);
		assert_int_equal(h.buckets[buckets[i]], 1);
		assert_int_equal(counted(&h), 1);
		assert_int_equal(h.sum, values[i] < 0 ? 0 : values[i]);
	}
}

static void test_group_commit(void **state)
{
	struct meta_counts before, after;
	struct worker w[THREADS];
	pthread_t threads[THREADS];
	unsigned n = 0;

	OP(counts)(m, &before);
	for (unsigned i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .number = i };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	OP(counts)(m, &after);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(w[i].failed, 0);
	assert_int_equal(after.operations - before.operations, THREADS * OPERATIONS);
	assert_true(after.statements - before.statements >= THREADS * OPERATIONS);
	assert_in_range(after.commits - before.commits, 1, THREADS * OPERATIONS - 1);
	assert_int_equal(counted(after.commit_ns), after.commits);
	assert_int_equal(counted(after.commit_ops), after.commits);
	assert_int_equal(after.commit_ops->sum, after.operations);
	assert_true(after.page_hits > before.page_hits);
	reopen();
	begin();
	assert_int_equal(OP(garbage_list)(m, count_id, &n), 0);
	end_read();
	assert_int_equal(n, THREADS * OPERATIONS);
}

/* Alone, an operation that must be recorded is so at once, in a commit of its own. */
static void test_alone(void **state)
{
	struct meta_counts before, after;

	OP(counts)(m, &before);
	for (unsigned i = 0; i < 50; i++) {
		begin();
		OP(garbage_add)(m, 1 + i);
		end_recorded();
	}
	OP(counts)(m, &after);
	assert_int_equal(after.commits - before.commits, 50);
}

static void test_clock(void **state)
{
	int64_t before = (int64_t)time(NULL) * SECOND, now = OP(now)(m);

	assert_true(now >= before && now <= before + 5 * SECOND);
}

/* ---- Files that are no catalog ---- */

static void run_sql(const char *path, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void refused(const char *name, int expected)
{
	const char *path = scratch_path(dir, name), *why = NULL;
	struct meta *other = NULL;
	struct stat before, after;
	mode_t mask = umask(022);

	stat(path, &before);
	assert_int_equal(meta_sqlite_open(path, &other, &why), expected);
	assert_null(other);
	assert_non_null(why);
	assert_true(strlen(why) > 10);
	assert_int_equal(umask(mask), 022); /* as it was */
	stat(path, &after);
	assert_true(before.st_size == after.st_size);
}

static void write_file(const char *name, const void *bytes, size_t len)
{
	FILE *f = fopen(scratch_path(dir, name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
	fclose(f);
}

static void test_newer(void **state)
{
	char sql[64];

	close_catalog();
	snprintf(sql, sizeof(sql), "PRAGMA user_version = %d", META_SCHEMA_VERSION + 1);
	run_sql(scratch_path(dir, "catalog.db"), sql);
	refused("catalog.db", -EPROTO);
}

static int stop_at_name(void *arg, const struct meta_dentry *d)
{
	return 1;
}

/* A catalog of the first version is brought up to date, with all that is in it. */
static void test_older(void **state)
{
	struct meta_object o;
	uint64_t id;

	begin();
	id = add_object();
	end_recorded();
	close_catalog();
	run_sql(scratch_path(dir, "catalog.db"), "ALTER TABLE object DROP COLUMN borrows;"
		"ALTER TABLE object DROP COLUMN queued; ALTER TABLE object DROP COLUMN evict; DROP TABLE borrow; DROP TABLE taken;"
		"ALTER TABLE object DROP COLUMN lifetime; DROP TABLE member; DROP TABLE ending;"
		"DROP TABLE lease; DROP TABLE binding; PRAGMA user_version = 1");
	reopen();
	begin();
	assert_int_equal(OP(object_get)(m, id, &o), 0);
	assert_int_equal(OP(member_insert)(m, id, "name", id), 0);
	assert_int_equal(OP(lease_put)(m, &(struct meta_lease){ id, 1, 1, 1 }), 0);
	assert_true(o.borrows == 0 && !o.evict);
	assert_int_equal(OP(borrow_add)(m, &(struct meta_borrow){ id, id, true }), 0);
	end_recorded();
}

/* Tables of the third version are made anew, with what is in them, and what an object has still goes with it. */
static void test_older_tables(void **state)
{
	struct meta_dentry d = { .parent = META_ROOT, .name = "taken", .name_len = 5 };
	uint64_t id;

	begin();
	id = d.object = add_object();
	assert_int_equal(OP(attribute_set)(m, id, "user.a", "value", 5), 0);
	assert_int_equal(OP(member_insert)(m, META_LIFETIMES, "member", id), 0);
	assert_int_equal(OP(taken_add)(m, &d), 0);
	end_recorded();
	close_catalog();
	run_sql(scratch_path(dir, "catalog.db"), "PRAGMA user_version = 3");
	reopen();
	begin();
	assert_int_equal(OP(attribute_get)(m, id, "user.a", NULL, 0), 5);
	assert_int_equal(OP(member_get)(m, META_LIFETIMES, "member", &d), 0);
	assert_int_equal(OP(taken_names)(m, id, stop_at_name, NULL), 1);
	assert_int_equal(OP(object_delete)(m, id), 0);
	assert_int_equal(OP(attribute_get)(m, id, "user.a", NULL, 0), -ENOENT);
	assert_int_equal(OP(member_get)(m, META_LIFETIMES, "member", &d), -ENOENT);
	assert_int_equal(OP(taken_names)(m, id, stop_at_name, NULL), 0);
	end_recorded();
}

static void test_foreign(void **state)
{
	run_sql(scratch_path(dir, "foreign.db"), "CREATE TABLE t (x); INSERT INTO t VALUES (1)");
	refused("foreign.db", -EBADMSG);
	run_sql(scratch_path(dir, "foreign1.db"), "CREATE TABLE t (x); PRAGMA user_version = 1");
	refused("foreign1.db", -EBADMSG);
	run_sql(scratch_path(dir, "foreign2.db"), "CREATE TABLE t (x); PRAGMA user_version = 1; PRAGMA application_id = 77");
	refused("foreign2.db", -EBADMSG);
}

static void test_garbage_bytes(void **state)
{
	unsigned char bytes[8192];

	srandom(7);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)random();
	write_file("noise", bytes, sizeof(bytes));
	refused("noise", -EBADMSG);
	write_file("text", "this is not a catalog\n", 22);
	refused("text", -EBADMSG);
	memcpy(bytes, "SQLite format 3", 16);
	write_file("half", bytes, sizeof(bytes));
	refused("half", -EBADMSG);
}

/* The header is whole, the pages behind it are not. */
static void test_damaged(void **state)
{
	unsigned char noise[4096 * 3];
	int fd;

	begin();
	add_root();
	end_recorded();
	close_catalog();
	memset(noise, 0x5a, sizeof(noise));
	fd = open(scratch_path(dir, "catalog.db"), O_RDWR);
	assert_true(pwrite(fd, noise, sizeof(noise), 4096) == sizeof(noise));
	close(fd);
	refused("catalog.db", -EBADMSG);
}

static void test_cannot_open(void **state)
{
	struct meta *other = NULL;
	const char *why = NULL;

	assert_true(meta_sqlite_open(scratch_path(dir, "no/such/dir/catalog.db"), &other, &why) < 0);
	assert_non_null(why);
	assert_true(meta_sqlite_open(dir, &other, &why) < 0);
	assert_non_null(why);
	assert_null(other);
}

static void test_nobody_elses(void **state)
{
	struct stat st;

	assert_int_equal(stat(scratch_path(dir, "catalog.db"), &st), 0);
	assert_int_equal(st.st_mode & 077, 0);
}

static void test_empty_file(void **state)
{
	struct meta *other;
	const char *why;

	write_file("empty", "", 0);
	assert_int_equal(meta_sqlite_open(scratch_path(dir, "empty"), &other, &why), 0);
	other->ops->close(other);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static void count_copied(void *arg, const char *table, uint64_t rows, bool lost)
{
	*(uint64_t *)arg += rows;
	assert_false(lost);
}

/* It takes the place of another by its name alone: nothing of it is in a log beside it. */
static void test_salvaged(void **state)
{
	unsigned char header[20] = { 0 };
	uint64_t rows = 0;
	struct stat st;
	int fd;

	close_catalog();
	assert_int_equal(meta_sqlite_salvage(scratch_path(dir, "catalog.db"), scratch_path(dir, "new"), count_copied,
					     &rows), 0);
	assert_true(rows > 0);
	assert_int_equal(stat(scratch_path(dir, "new-wal"), &st), -1);
	fd = open(scratch_path(dir, "new"), O_RDONLY);
	assert_int_equal(read(fd, header, sizeof(header)), sizeof(header));
	close(fd);
	assert_int_equal(header[18], 1); /* 2: there is a log */
	assert_int_equal(header[19], 1);
	open_catalog();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_object),
		TEST(test_object_by_version),
		TEST(test_object_touch),
		TEST(test_object_delete_takes_along),
		TEST(test_deadlines),
		TEST(test_dentry),
		TEST(test_dentry_bytes),
		TEST(test_cookies),
		TEST(test_dentry_names),
		TEST(test_attributes),
		TEST(test_attribute_list),
		TEST(test_drafts),
		TEST(test_garbage),
		TEST(test_aborted),
		TEST(test_members),
		TEST(test_ending),
		TEST(test_leases),
		TEST(test_bindings),
		TEST(test_borrows),
		TEST(test_taken),
		TEST(test_events),
		TEST(test_events_pruned),
		TEST(test_ids),
		TEST(test_ids_after_rollback),
		TEST(test_ids_after_crash),
		TEST(test_recorded),
		TEST(test_durable),
		TEST(test_later),
		TEST(test_recorded_of_nothing),
		TEST(test_close_records),
		TEST(test_ack_survives),
		TEST(test_abandon),
		TEST(test_abandon_then_go_on),
		TEST(test_full_disk),
		TEST(test_histogram),
		TEST(test_group_commit),
		TEST(test_alone),
		TEST(test_clock),
		TEST(test_newer),
		TEST(test_older), TEST(test_older_tables),
		TEST(test_foreign),
		TEST(test_garbage_bytes),
		TEST(test_damaged),
		TEST(test_cannot_open),
		TEST(test_nobody_elses),
		TEST(test_empty_file),
		TEST(test_salvaged),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

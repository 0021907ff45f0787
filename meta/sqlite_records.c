/* The record calls of the SQLite engine: bind, step, read. Nothing is decided here. */
#include "meta/sqlite_catalog.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <xxhash.h>

#define ID_BLOCK (1 << 20)
#define EVENTS_KEPT 100000
#define EVENTS_PRUNE_EVERY 1024

/* A name's position in its directory is its hash, with room for a few names of the same hash. */
#define COOKIE_SLOTS 4

int sqlite_errno(sqlite3 *db, int rc)
{
	int e;

	switch (rc & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EBADMSG;
	case SQLITE_CONSTRAINT:
		return -EEXIST;
	case SQLITE_PERM:
		return -EACCES;
	case SQLITE_CANTOPEN:
	case SQLITE_IOERR:
		e = db != NULL ? sqlite3_system_errno(db) : 0;
		return e == ENOSPC || e == EDQUOT || e == EROFS || e == EACCES || e == EMFILE ? -e : -EIO;
	default:
		return -EIO;
	}
}

int sqlite_step(struct sqlite_catalog *s, enum statement which)
{
	sqlite3_stmt *st = s->stmt[which];
	int rc, r;

	if (!s->in_transaction && which != STMT_BEGIN) {
		r = sqlite_step(s, STMT_BEGIN);
		if (r < 0)
			return r;
		s->in_transaction = true;
	}
	rc = sqlite3_step(st);
	atomic_fetch_add_explicit(&s->statements, 1, memory_order_relaxed);
	if (rc == SQLITE_ROW || rc == SQLITE_DONE)
		sqlite_redo_note(s, which);
	if (rc == SQLITE_ROW)
		return SQLITE_ROW;
	r = rc == SQLITE_DONE ? SQLITE_DONE : sqlite_errno(s->db, sqlite3_extended_errcode(s->db));
	sqlite3_reset(st);
	if (r == -EBADMSG && s->meta.serving)
		r = -EIO;
	if (r < 0 && r != -EEXIST && s->failed == 0)
		s->failed = r;
	return r;
}

static sqlite3_stmt *statement(struct meta *m, enum statement which)
{
	return catalog_of(m)->stmt[which];
}

static void bind(sqlite3_stmt *st, int at, int64_t v)
{
	sqlite_redo_bound(at, (struct redo_value){ .kind = SQLITE_INTEGER, .i = v });
	sqlite3_bind_int64(st, at, v);
}

static void bind_null(sqlite3_stmt *st, int at)
{
	sqlite_redo_bound(at, (struct redo_value){ .kind = SQLITE_NULL });
	sqlite3_bind_null(st, at);
}

static void bind_text(sqlite3_stmt *st, int at, const char *text, sqlite3_destructor_type keep)
{
	sqlite_redo_bound(at, (struct redo_value){ .kind = text != NULL ? SQLITE_TEXT : SQLITE_NULL, .p = text });
	sqlite3_bind_text(st, at, text, -1, keep);
}

static void bind_bytes(sqlite3_stmt *st, int at, const void *p, size_t len)
{
	sqlite_redo_bound(at, (struct redo_value){ .kind = SQLITE_BLOB, .p = p, .i = (int64_t)len });
	sqlite3_bind_blob64(st, at, p, len, SQLITE_STATIC);
}

/* Runs a changing statement whose parameters are bound. */
static int change(struct meta *m, enum statement which)
{
	struct sqlite_catalog *s = catalog_of(m);
	int r = sqlite_write_begin(s);

	if (r == 0)
		r = sqlite_step(s, which);
	if (r == SQLITE_ROW) {
		sqlite3_reset(s->stmt[which]);
		r = SQLITE_DONE;
	}
	return r == SQLITE_DONE ? 0 : r;
}

static int change_one(struct meta *m, enum statement which, uint64_t id)
{
	bind(statement(m, which), 1, (int64_t)id);
	return change(m, which);
}

/* Calls row for each row; row returns non-zero to end the walk. */
static int walk(struct meta *m, enum statement which, int (*row)(void *ctx, sqlite3_stmt *st), void *ctx)
{
	struct sqlite_catalog *s = catalog_of(m);
	int r;

	while ((r = sqlite_step(s, which)) == SQLITE_ROW) {
		r = row(ctx, s->stmt[which]);
		if (r != 0) {
			sqlite3_reset(s->stmt[which]);
			return r;
		}
	}
	return r == SQLITE_DONE ? 0 : r;
}

/* Identifiers */

int sqlite_reserve_ids(struct sqlite_catalog *s)
{
	int r = sqlite_write_begin(s);

	if (r < 0)
		return r;
	bind(s->stmt[STMT_SEQUENCE_TAKE], 1, ID_BLOCK);
	bind(s->stmt[STMT_SEQUENCE_TAKE], 2, (int64_t)s->next_id); /* a rollback may have taken the last block back */
	r = sqlite_step(s, STMT_SEQUENCE_TAKE);
	if (r != SQLITE_ROW)
		return r < 0 ? r : -EBADMSG;
	s->id_limit = (uint64_t)sqlite3_column_int64(s->stmt[STMT_SEQUENCE_TAKE], 0);
	s->next_id = s->id_limit - ID_BLOCK;
	sqlite3_reset(s->stmt[STMT_SEQUENCE_TAKE]);
	return 0;
}

static int new_id(struct meta *m, uint64_t *id)
{
	struct sqlite_catalog *s = catalog_of(m);
	int r = s->next_id < s->id_limit ? 0 : sqlite_reserve_ids(s);

	if (r == 0)
		*id = s->next_id++;
	if (r == 0 && s->redo != NULL)
		atomic_store_explicit(&s->redo->next_id, s->next_id, memory_order_release);
	return r;
}

/* Objects */

/* A damaged row may have nothing where there must be something. */
static const char *text_of(sqlite3_stmt *st, int column)
{
	const unsigned char *text = sqlite3_column_text(st, column);

	return text != NULL ? (const char *)text : "";
}

void sqlite_read_object(sqlite3_stmt *st, struct meta_object *o)
{
	int c = 0;

	o->id = (uint64_t)sqlite3_column_int64(st, c++);
	o->vid = (uint64_t)sqlite3_column_int64(st, c++);
	o->version = (uint64_t)sqlite3_column_int64(st, c++);
	o->mode = (uint32_t)sqlite3_column_int64(st, c++);
	o->uid = (uint32_t)sqlite3_column_int64(st, c++);
	o->gid = (uint32_t)sqlite3_column_int64(st, c++);
	o->nlink = (uint32_t)sqlite3_column_int64(st, c++);
	o->rdev = (uint64_t)sqlite3_column_int64(st, c++);
	o->size = sqlite3_column_int64(st, c++);
	o->blocks = sqlite3_column_int64(st, c++);
	o->atime = sqlite3_column_int64(st, c++);
	o->mtime = sqlite3_column_int64(st, c++);
	o->ctime = sqlite3_column_int64(st, c++);
	o->btime = sqlite3_column_int64(st, c++);
	o->state = sqlite3_column_int(st, c++);
	o->declared = sqlite3_column_int(st, c++) != 0;
	o->durable = sqlite3_column_int(st, c++) != 0;
	o->live = sqlite3_column_int(st, c++) != 0;
	o->error = sqlite3_column_int(st, c++);
	o->deadline = sqlite3_column_int64(st, c++);
	o->producer_pid = sqlite3_column_int(st, c++);
	o->producer_uid = (uint32_t)sqlite3_column_int64(st, c++);
	strncpy(o->producer_command, text_of(st, c++), META_COMMAND_MAX - 1);
	o->producer_command[META_COMMAND_MAX - 1] = '\0';
	o->lifetime = (uint64_t)sqlite3_column_int64(st, c++);
	o->borrows = sqlite3_column_int64(st, c++);
	o->queued = (uint32_t)sqlite3_column_int64(st, c++);
	o->evict = sqlite3_column_int(st, c) != 0;
}

static void bind_object(sqlite3_stmt *st, const struct meta_object *o)
{
	const int64_t values[] = { (int64_t)o->id,  (int64_t)o->vid, (int64_t)o->version, o->mode,  o->uid,   o->gid,
				   o->nlink,        (int64_t)o->rdev, o->size,  o->blocks, o->atime,
				   o->mtime,        o->ctime,         o->btime,            o->state, o->declared, o->durable, o->live,
				   o->error };
	int at = 1;

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		bind(st, at++, values[i]);
	if (o->deadline != 0)
		bind(st, at++, o->deadline);
	else
		bind_null(st, at++);
	bind(st, at++, o->producer_pid);
	bind(st, at++, o->producer_uid);
	bind_text(st, at++, o->producer_command, SQLITE_TRANSIENT);
	bind(st, at++, (int64_t)o->lifetime);
	bind(st, at++, o->borrows);
	bind(st, at++, o->queued);
	bind(st, at, o->evict);
}

static int get_object(struct meta *m, enum statement which, uint64_t id, struct meta_object *o)
{
	sqlite3_stmt *st = statement(m, which);
	int r;

	bind(st, 1, (int64_t)id);
	r = sqlite_step(catalog_of(m), which);
	if (r != SQLITE_ROW)
		return r < 0 ? r : -ENOENT;
	sqlite_read_object(st, o);
	sqlite3_reset(st);
	return 0;
}

static int object_get(struct meta *m, uint64_t id, struct meta_object *o)
{
	return get_object(m, STMT_OBJECT_GET, id, o);
}

static int object_by_version(struct meta *m, uint64_t vid, struct meta_object *o)
{
	int r = get_object(m, STMT_OBJECT_GET, vid, o);

	if (r == 0 && o->vid == vid)
		return 0;
	return r < 0 && r != -ENOENT ? r : get_object(m, STMT_OBJECT_BY_VERSION, vid, o);
}

static int object_insert(struct meta *m, const struct meta_object *o)
{
	bind_object(statement(m, STMT_OBJECT_INSERT), o);
	return change(m, STMT_OBJECT_INSERT);
}

static int object_update(struct meta *m, const struct meta_object *o)
{
	bind_object(statement(m, STMT_OBJECT_UPDATE), o);
	return change(m, STMT_OBJECT_UPDATE);
}

static int object_touch(struct meta *m, uint64_t id, int64_t when, int nlink_delta)
{
	sqlite3_stmt *st = statement(m, STMT_OBJECT_TOUCH);

	bind(st, 1, (int64_t)id);
	bind(st, 2, when);
	bind(st, 3, nlink_delta);
	return change(m, STMT_OBJECT_TOUCH);
}

static int object_delete(struct meta *m, uint64_t id)
{
	/* What has one row an object at most goes with it by ON DELETE CASCADE. */
	static const enum statement deletions[] = {
		STMT_ATTRIBUTES_DELETE, STMT_MEMBERSHIPS_DELETE, STMT_MEMBERS_DELETE, STMT_TAKEN_REMOVE, STMT_OBJECT_DELETE,
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(deletions) / sizeof(deletions[0]); i++)
		r = change_one(m, deletions[i], id);
	return r;
}

struct object_walk {
	meta_object_fn fn;
	void *arg;
};

static int object_row(void *ctx, sqlite3_stmt *st)
{
	struct object_walk *w = ctx;
	struct meta_object o;

	sqlite_read_object(st, &o);
	return w->fn(w->arg, &o);
}

static int object_deadlines(struct meta *m, meta_object_fn fn, void *arg)
{
	struct object_walk w = { fn, arg };

	return walk(m, STMT_OBJECT_DEADLINES, object_row, &w);
}

/* Directory entries */

static uint64_t cookie_of(const char *name, size_t len)
{
	uint64_t h = (XXH3_64bits(name, len) >> 1) & ~(uint64_t)(COOKIE_SLOTS - 1);

	return h == 0 ? COOKIE_SLOTS : h; /* 0 to 3 are left for "." and ".." */
}

static int get_name(struct meta *m, enum statement which, uint64_t parent, const char *name, struct meta_dentry *d)
{
	sqlite3_stmt *st = statement(m, which);
	size_t len = strlen(name);
	uint64_t cookie = cookie_of(name, len);
	int r;

	bind(st, 1, (int64_t)parent);
	bind(st, 2, (int64_t)cookie);
	bind(st, 3, (int64_t)(cookie + COOKIE_SLOTS - 1));
	bind_bytes(st, 4, name, len);
	r = sqlite_step(catalog_of(m), which);
	if (r != SQLITE_ROW)
		return r < 0 ? r : -ENOENT;
	d->parent = parent;
	d->cookie = (uint64_t)sqlite3_column_int64(st, 0);
	d->object = (uint64_t)sqlite3_column_int64(st, 1);
	d->name_len = (unsigned)len;
	memcpy(d->name, name, len + 1);
	sqlite3_reset(st);
	return 0;
}

static int insert_name(struct meta *m, enum statement which, uint64_t parent, const char *name, uint64_t object)
{
	sqlite3_stmt *st = statement(m, which);
	size_t len = strlen(name);
	uint64_t cookie = cookie_of(name, len);
	int r = -EEXIST;

	for (int slot = 0; r == -EEXIST && slot < COOKIE_SLOTS; slot++) {
		bind(st, 1, (int64_t)parent);
		bind(st, 2, (int64_t)(cookie + (uint64_t)slot));
		bind_bytes(st, 3, name, len);
		bind(st, 4, (int64_t)object);
		r = change(m, which);
	}
	return r;
}

static int delete_name(struct meta *m, enum statement which, const struct meta_dentry *d)
{
	bind(statement(m, which), 2, (int64_t)d->cookie);
	return change_one(m, which, d->parent);
}

static int dentry_get(struct meta *m, uint64_t parent, const char *name, struct meta_dentry *d)
{
	return get_name(m, STMT_DENTRY_GET, parent, name, d);
}

static int dentry_insert(struct meta *m, uint64_t parent, const char *name, uint64_t object)
{
	return insert_name(m, STMT_DENTRY_INSERT, parent, name, object);
}

static int dentry_set(struct meta *m, const struct meta_dentry *d, uint64_t object)
{
	sqlite3_stmt *st = statement(m, STMT_DENTRY_SET);

	bind(st, 1, (int64_t)d->parent);
	bind(st, 2, (int64_t)d->cookie);
	bind(st, 3, (int64_t)object);
	return change(m, STMT_DENTRY_SET);
}

static int dentry_delete(struct meta *m, const struct meta_dentry *d)
{
	return delete_name(m, STMT_DENTRY_DELETE, d);
}

struct dentry_walk {
	meta_dentry_fn fn;
	void *arg;
	uint64_t fixed; /* the parent when listing, the object when asking for names */
};

void sqlite_read_name(sqlite3_stmt *st, int column, struct meta_dentry *d)
{
	int len = sqlite3_column_bytes(st, column);

	d->name_len = len <= META_NAME_MAX ? (unsigned)len : META_NAME_MAX;
	if (d->name_len > 0)
		memcpy(d->name, sqlite3_column_blob(st, column), d->name_len);
	d->name[d->name_len] = '\0';
}

static int list_row(void *ctx, sqlite3_stmt *st)
{
	struct dentry_walk *w = ctx;
	struct meta_dentry d = { .parent = w->fixed };

	d.cookie = (uint64_t)sqlite3_column_int64(st, 0);
	d.object = (uint64_t)sqlite3_column_int64(st, 2);
	sqlite_read_name(st, 1, &d);
	return w->fn(w->arg, &d);
}

static int list_names(struct meta *m, enum statement which, uint64_t parent, uint64_t after, meta_dentry_fn fn, void *arg)
{
	struct dentry_walk w = { fn, arg, parent };

	bind(statement(m, which), 1, (int64_t)parent);
	bind(statement(m, which), 2, (int64_t)after);
	return walk(m, which, list_row, &w);
}

static int dentry_list(struct meta *m, uint64_t parent, uint64_t after, meta_dentry_fn fn, void *arg)
{
	return list_names(m, STMT_DENTRY_LIST, parent, after, fn, arg);
}

static int names_row(void *ctx, sqlite3_stmt *st)
{
	struct dentry_walk *w = ctx;
	struct meta_dentry d = { .object = w->fixed };

	d.parent = (uint64_t)sqlite3_column_int64(st, 0);
	d.cookie = (uint64_t)sqlite3_column_int64(st, 1);
	sqlite_read_name(st, 2, &d);
	return w->fn(w->arg, &d);
}

static int names_of(struct meta *m, enum statement which, uint64_t object, meta_dentry_fn fn, void *arg)
{
	struct dentry_walk w = { fn, arg, object };

	bind(statement(m, which), 1, (int64_t)object);
	return walk(m, which, names_row, &w);
}

static int dentry_names(struct meta *m, uint64_t object, meta_dentry_fn fn, void *arg)
{
	return names_of(m, STMT_DENTRY_NAMES, object, fn, arg);
}

/* Members of lifetimes: names in a table of their own */

static int member_get(struct meta *m, uint64_t lifetime, const char *name, struct meta_dentry *d)
{
	return get_name(m, STMT_MEMBER_GET, lifetime, name, d);
}

static int member_insert(struct meta *m, uint64_t lifetime, const char *name, uint64_t object)
{
	return insert_name(m, STMT_MEMBER_INSERT, lifetime, name, object);
}

static int member_delete(struct meta *m, const struct meta_dentry *d)
{
	return delete_name(m, STMT_MEMBER_DELETE, d);
}

static int member_list(struct meta *m, uint64_t lifetime, uint64_t after, meta_dentry_fn fn, void *arg)
{
	return list_names(m, STMT_MEMBER_LIST, lifetime, after, fn, arg);
}

static int member_names(struct meta *m, uint64_t object, meta_dentry_fn fn, void *arg)
{
	return names_of(m, STMT_MEMBER_NAMES, object, fn, arg);
}

/* Attributes */

static void bind_attribute(sqlite3_stmt *st, uint64_t object, const char *name)
{
	bind(st, 1, (int64_t)object);
	bind_text(st, 2, name, SQLITE_STATIC);
}

static int attribute_get(struct meta *m, uint64_t object, const char *name, void *value, size_t size)
{
	sqlite3_stmt *st = statement(m, STMT_ATTRIBUTE_GET);
	int r, len;

	bind_attribute(st, object, name);
	r = sqlite_step(catalog_of(m), STMT_ATTRIBUTE_GET);
	if (r != SQLITE_ROW)
		return r < 0 ? r : -ENOENT;
	len = sqlite3_column_bytes(st, 0);
	if (size > 0 && (size_t)len > size)
		r = -ERANGE;
	else if (size > 0 && len > 0)
		memcpy(value, sqlite3_column_blob(st, 0), (size_t)len);
	sqlite3_reset(st);
	return r < 0 ? r : len;
}

static int attribute_set(struct meta *m, uint64_t object, const char *name, const void *value, size_t len)
{
	sqlite3_stmt *st = statement(m, STMT_ATTRIBUTE_SET);

	bind_attribute(st, object, name);
	bind_bytes(st, 3, len > 0 ? value : "", len);
	return change(m, STMT_ATTRIBUTE_SET);
}

static int attribute_remove(struct meta *m, uint64_t object, const char *name)
{
	bind_attribute(statement(m, STMT_ATTRIBUTE_REMOVE), object, name);
	return change(m, STMT_ATTRIBUTE_REMOVE);
}

struct attribute_walk {
	meta_attribute_fn fn;
	void *arg;
};

static int attribute_row(void *ctx, sqlite3_stmt *st)
{
	struct attribute_walk *w = ctx;

	return w->fn(w->arg, text_of(st, 0), (size_t)sqlite3_column_int64(st, 1));
}

static int attribute_list(struct meta *m, uint64_t object, meta_attribute_fn fn, void *arg)
{
	struct attribute_walk w = { fn, arg };

	bind(statement(m, STMT_ATTRIBUTE_LIST), 1, (int64_t)object);
	return walk(m, STMT_ATTRIBUTE_LIST, attribute_row, &w);
}

/* Drafts, garbage, aborted */

static int draft_put(struct meta *m, const struct meta_draft *d)
{
	const int64_t values[] = { (int64_t)d->object, (int64_t)d->vid, d->sealed, d->fsynced, d->size, d->mtime };

	for (int i = 0; i < 6; i++)
		bind(statement(m, STMT_DRAFT_PUT), i + 1, values[i]);
	return change(m, STMT_DRAFT_PUT);
}

static int draft_delete(struct meta *m, uint64_t object, uint64_t vid)
{
	bind(statement(m, STMT_DRAFT_DELETE), 2, (int64_t)vid);
	return change_one(m, STMT_DRAFT_DELETE, object);
}

struct draft_walk {
	meta_draft_fn fn;
	void *arg;
};

static int draft_row(void *ctx, sqlite3_stmt *st)
{
	struct draft_walk *w = ctx;
	struct meta_draft d = {
		.object = (uint64_t)sqlite3_column_int64(st, 0),
		.vid = (uint64_t)sqlite3_column_int64(st, 1),
		.sealed = sqlite3_column_int(st, 2) != 0,
		.fsynced = sqlite3_column_int(st, 3) != 0,
		.size = sqlite3_column_int64(st, 4),
		.mtime = sqlite3_column_int64(st, 5),
	};

	return w->fn(w->arg, &d);
}

static int draft_list(struct meta *m, meta_draft_fn fn, void *arg)
{
	struct draft_walk w = { fn, arg };

	return walk(m, STMT_DRAFT_LIST, draft_row, &w);
}

static int garbage_add(struct meta *m, uint64_t vid)
{
	return change_one(m, STMT_GARBAGE_ADD, vid);
}

static int garbage_remove(struct meta *m, uint64_t vid)
{
	return change_one(m, STMT_GARBAGE_REMOVE, vid);
}

struct id_walk {
	meta_id_fn fn;
	void *arg;
};

static int id_row(void *ctx, sqlite3_stmt *st)
{
	struct id_walk *w = ctx;

	return w->fn(w->arg, (uint64_t)sqlite3_column_int64(st, 0));
}

static int garbage_list(struct meta *m, meta_id_fn fn, void *arg)
{
	struct id_walk w = { fn, arg };

	return walk(m, STMT_GARBAGE_LIST, id_row, &w);
}

static int ending_add(struct meta *m, uint64_t object, const char *path)
{
	bind_bytes(statement(m, STMT_ENDING_ADD), 2, path, strlen(path));
	return change_one(m, STMT_ENDING_ADD, object);
}

struct ending_walk {
	meta_ending_fn fn;
	void *arg;
};

static int ending_row(void *ctx, sqlite3_stmt *st)
{
	struct ending_walk *w = ctx;
	char path[PATH_MAX];
	int len = sqlite3_column_bytes(st, 1);

	len = len < PATH_MAX ? len : PATH_MAX - 1;
	if (len > 0)
		memcpy(path, sqlite3_column_blob(st, 1), (size_t)len);
	path[len] = '\0';
	return w->fn(w->arg, (uint64_t)sqlite3_column_int64(st, 0), path);
}

static int ending_list(struct meta *m, meta_ending_fn fn, void *arg)
{
	struct ending_walk w = { fn, arg };

	return walk(m, STMT_ENDING_LIST, ending_row, &w);
}

/* Leases */

struct lease_walk {
	meta_lease_fn fn;
	void *arg;
};

static int lease_row(void *ctx, sqlite3_stmt *st)
{
	struct lease_walk *w = ctx;
	struct meta_lease l = {
		.object = (uint64_t)sqlite3_column_int64(st, 0), .expires = sqlite3_column_int64(st, 1),
		.boot = sqlite3_column_int64(st, 2), .boot_id = (uint64_t)sqlite3_column_int64(st, 3),
	};

	return w->fn(w->arg, &l);
}

static int take_lease(void *arg, const struct meta_lease *l)
{
	*(struct meta_lease *)arg = *l;
	return 1;
}

static int lease_get(struct meta *m, uint64_t object, struct meta_lease *l)
{
	struct lease_walk w = { take_lease, l };
	int r;

	bind(statement(m, STMT_LEASE_GET), 1, (int64_t)object);
	r = walk(m, STMT_LEASE_GET, lease_row, &w);
	return r > 0 ? 0 : r == 0 ? -ENOENT : r;
}

static int lease_put(struct meta *m, const struct meta_lease *l)
{
	sqlite3_stmt *st = statement(m, STMT_LEASE_PUT);

	bind(st, 1, (int64_t)l->object);
	bind(st, 2, l->expires);
	if (l->boot != 0)
		bind(st, 3, l->boot);
	else
		bind_null(st, 3);
	bind(st, 4, (int64_t)l->boot_id);
	return change(m, STMT_LEASE_PUT);
}

static int lease_remove(struct meta *m, uint64_t object)
{
	return change_one(m, STMT_LEASE_REMOVE, object);
}

static int lease_soonest(struct meta *m, bool timed, meta_lease_fn fn, void *arg)
{
	struct lease_walk w = { fn, arg };

	return walk(m, timed ? STMT_LEASE_SOONEST_TIME : STMT_LEASE_SOONEST_BOOT, lease_row, &w);
}

static int lease_rebase(struct meta *m, uint64_t boot_id, int64_t wall, int64_t boot)
{
	sqlite3_stmt *st = statement(m, STMT_LEASE_REBASE);

	bind(st, 1, (int64_t)boot_id);
	bind(st, 2, wall);
	bind(st, 3, boot);
	return change(m, STMT_LEASE_REBASE);
}

/* Bindings to processes */

struct binding_walk {
	meta_binding_fn fn;
	void *arg;
};

static int binding_row(void *ctx, sqlite3_stmt *st)
{
	struct binding_walk *w = ctx;
	struct meta_binding b = {
		.object = (uint64_t)sqlite3_column_int64(st, 0), .pid = sqlite3_column_int(st, 1),
		.start = (uint64_t)sqlite3_column_int64(st, 2), .boot_id = (uint64_t)sqlite3_column_int64(st, 3),
	};

	return w->fn(w->arg, &b);
}

static int take_binding(void *arg, const struct meta_binding *b)
{
	*(struct meta_binding *)arg = *b;
	return 1;
}

static int binding_get(struct meta *m, uint64_t object, struct meta_binding *b)
{
	struct binding_walk w = { take_binding, b };
	int r;

	bind(statement(m, STMT_BINDING_GET), 1, (int64_t)object);
	r = walk(m, STMT_BINDING_GET, binding_row, &w);
	return r > 0 ? 0 : r == 0 ? -ENOENT : r;
}

static int binding_put(struct meta *m, const struct meta_binding *b)
{
	sqlite3_stmt *st = statement(m, STMT_BINDING_PUT);

	bind(st, 1, (int64_t)b->object);
	bind(st, 2, b->pid);
	bind(st, 3, (int64_t)b->start);
	bind(st, 4, (int64_t)b->boot_id);
	return change(m, STMT_BINDING_PUT);
}

static int binding_remove(struct meta *m, uint64_t object)
{
	return change_one(m, STMT_BINDING_REMOVE, object);
}

static int binding_list(struct meta *m, uint64_t after, meta_binding_fn fn, void *arg)
{
	struct binding_walk w = { fn, arg };

	bind(statement(m, STMT_BINDING_LIST), 1, (int64_t)after);
	return walk(m, STMT_BINDING_LIST, binding_row, &w);
}

static int binding_of(struct meta *m, int32_t pid, uint64_t start, meta_binding_fn fn, void *arg)
{
	struct binding_walk w = { fn, arg };

	bind(statement(m, STMT_BINDING_OF), 1, pid);
	bind(statement(m, STMT_BINDING_OF), 2, (int64_t)start);
	return walk(m, STMT_BINDING_OF, binding_row, &w);
}

/* Borrows */

struct borrow_walk {
	meta_borrow_fn fn;
	void *arg;
};

static int borrow_row(void *ctx, sqlite3_stmt *st)
{
	struct borrow_walk *w = ctx;
	struct meta_borrow b = {
		.handle = (uint64_t)sqlite3_column_int64(st, 0), .object = (uint64_t)sqlite3_column_int64(st, 1),
		.mut = sqlite3_column_int(st, 2) != 0, .waiting = sqlite3_column_int(st, 3) != 0,
	};

	return w->fn(w->arg, &b);
}

static int take_borrow(void *arg, const struct meta_borrow *b)
{
	*(struct meta_borrow *)arg = *b;
	return 1;
}

static int borrow_get(struct meta *m, uint64_t handle, struct meta_borrow *b)
{
	struct borrow_walk w = { take_borrow, b };
	int r;

	bind(statement(m, STMT_BORROW_GET), 1, (int64_t)handle);
	r = walk(m, STMT_BORROW_GET, borrow_row, &w);
	return r > 0 ? 0 : r == 0 ? -ENOENT : r;
}

static int borrow_add(struct meta *m, const struct meta_borrow *b)
{
	sqlite3_stmt *st = statement(m, STMT_BORROW_ADD);

	bind(st, 1, (int64_t)b->handle);
	bind(st, 2, (int64_t)b->object);
	bind(st, 3, b->mut);
	bind(st, 4, b->waiting);
	return change(m, STMT_BORROW_ADD);
}

static int borrow_held(struct meta *m, uint64_t handle)
{
	return change_one(m, STMT_BORROW_HELD, handle);
}

static int borrow_queues(struct meta *m, uint64_t after, meta_id_fn fn, void *arg)
{
	struct id_walk w = { fn, arg };

	bind(statement(m, STMT_BORROW_QUEUES), 1, (int64_t)after);
	return walk(m, STMT_BORROW_QUEUES, id_row, &w);
}

static int borrow_list(struct meta *m, uint64_t object, bool waiting, meta_borrow_fn fn, void *arg)
{
	struct borrow_walk w = { fn, arg };

	bind(statement(m, STMT_BORROW_LIST), 2, waiting);
	bind(statement(m, STMT_BORROW_LIST), 1, (int64_t)object);
	return walk(m, STMT_BORROW_LIST, borrow_row, &w);
}

/* The names of what was taken */

static int taken_add(struct meta *m, const struct meta_dentry *d)
{
	sqlite3_stmt *st = statement(m, STMT_TAKEN_ADD);

	bind(st, 1, (int64_t)d->object);
	bind(st, 2, (int64_t)d->parent);
	bind_bytes(st, 3, d->name, d->name_len);
	return change(m, STMT_TAKEN_ADD);
}

static int taken_remove(struct meta *m, uint64_t object)
{
	return change_one(m, STMT_TAKEN_REMOVE, object);
}

static int taken_names(struct meta *m, uint64_t object, meta_dentry_fn fn, void *arg)
{
	return names_of(m, STMT_TAKEN_NAMES, object, fn, arg);
}

static int taken_done(struct meta *m, uint64_t object, bool done)
{
	bind(statement(m, STMT_TAKEN_DONE), 2, done);
	return change_one(m, STMT_TAKEN_DONE, object);
}

struct taken_walk {
	meta_taken_fn fn;
	void *arg;
};

static int taken_row(void *ctx, sqlite3_stmt *st)
{
	struct taken_walk *w = ctx;

	return w->fn(w->arg, (uint64_t)sqlite3_column_int64(st, 0), sqlite3_column_int(st, 1) != 0);
}

static int taken_list(struct meta *m, meta_taken_fn fn, void *arg)
{
	struct taken_walk w = { fn, arg };

	return walk(m, STMT_TAKEN_LIST, taken_row, &w);
}

static int aborted_add(struct meta *m, const struct meta_aborted *a)
{
	sqlite3_stmt *st = statement(m, STMT_ABORTED_ADD);

	bind(st, 1, (int64_t)a->object);
	bind(st, 2, (int64_t)a->draft);
	bind(st, 3, a->at);
	bind(st, 4, a->size);
	return change(m, STMT_ABORTED_ADD);
}

static int aborted_remove(struct meta *m, uint64_t object)
{
	return change_one(m, STMT_ABORTED_REMOVE, object);
}

struct aborted_walk {
	meta_aborted_fn fn;
	void *arg;
};

static int aborted_row(void *ctx, sqlite3_stmt *st)
{
	struct aborted_walk *w = ctx;
	struct meta_aborted a = {
		.object = (uint64_t)sqlite3_column_int64(st, 0),
		.draft = (uint64_t)sqlite3_column_int64(st, 1),
		.at = sqlite3_column_int64(st, 2),
		.size = sqlite3_column_int64(st, 3),
	};

	return w->fn(w->arg, &a);
}

static int aborted_list(struct meta *m, meta_aborted_fn fn, void *arg)
{
	struct aborted_walk w = { fn, arg };

	return walk(m, STMT_ABORTED_LIST, aborted_row, &w);
}

/* Events */

static int prune_events(struct meta *m, uint64_t newest)
{
	if (++catalog_of(m)->events_since_prune < EVENTS_PRUNE_EVERY || newest <= EVENTS_KEPT)
		return 0;
	catalog_of(m)->events_since_prune = 0;
	return change_one(m, STMT_EVENT_PRUNE, newest - EVENTS_KEPT);
}

static int event_add(struct meta *m, struct meta_event *e)
{
	sqlite3_stmt *st = statement(m, STMT_EVENT_ADD);
	int r;

	bind(st, 1, e->at);
	bind_text(st, 2, e->kind, SQLITE_STATIC);
	bind_bytes(st, 3, e->key_len > 0 ? e->key : "", e->key_len);
	bind(st, 4, (int64_t)e->object);
	bind(st, 5, (int64_t)e->version);
	bind(st, 6, e->pid);
	bind(st, 7, e->uid);
	bind_text(st, 8, e->command, SQLITE_TRANSIENT);
	bind_text(st, 9, e->detail, SQLITE_TRANSIENT);
	r = change(m, STMT_EVENT_ADD);
	if (r < 0)
		return r;
	e->id = (uint64_t)sqlite3_last_insert_rowid(catalog_of(m)->db);
	return prune_events(m, e->id);
}

struct event_walk {
	meta_event_fn fn;
	void *arg;
};

static int event_row(void *ctx, sqlite3_stmt *st)
{
	struct event_walk *w = ctx;
	struct meta_event e = {
		.id = (uint64_t)sqlite3_column_int64(st, 0),
		.at = sqlite3_column_int64(st, 1),
		.kind = text_of(st, 2),
		.key = sqlite3_column_blob(st, 3),
		.key_len = (size_t)sqlite3_column_bytes(st, 3),
		.object = (uint64_t)sqlite3_column_int64(st, 4),
		.version = (uint64_t)sqlite3_column_int64(st, 5),
		.pid = sqlite3_column_int(st, 6),
		.uid = (uint32_t)sqlite3_column_int64(st, 7),
		.detail = (const char *)sqlite3_column_text(st, 9),
	};

	strncpy(e.command, text_of(st, 8), META_COMMAND_MAX - 1);
	return w->fn(w->arg, &e);
}

static int event_scan(struct meta *m, uint64_t after, meta_event_fn fn, void *arg)
{
	struct event_walk w = { fn, arg };

	bind(statement(m, STMT_EVENT_SCAN), 1, (int64_t)after);
	return walk(m, STMT_EVENT_SCAN, event_row, &w);
}

const struct meta_ops sqlite_record_ops = {
	.now = sqlite_now,
	.new_id = new_id,
	.object_get = object_get,
	.object_by_version = object_by_version,
	.object_insert = object_insert,
	.object_update = object_update,
	.object_touch = object_touch,
	.object_delete = object_delete,
	.object_deadlines = object_deadlines,
	.dentry_get = dentry_get,
	.dentry_insert = dentry_insert,
	.dentry_set = dentry_set,
	.dentry_delete = dentry_delete,
	.dentry_list = dentry_list,
	.dentry_names = dentry_names,
	.attribute_get = attribute_get,
	.attribute_set = attribute_set,
	.attribute_remove = attribute_remove,
	.attribute_list = attribute_list,
	.draft_put = draft_put,
	.draft_delete = draft_delete,
	.draft_list = draft_list,
	.garbage_add = garbage_add,
	.garbage_remove = garbage_remove,
	.garbage_list = garbage_list,
	.aborted_add = aborted_add,
	.aborted_remove = aborted_remove,
	.aborted_list = aborted_list,
	.member_get = member_get,
	.member_insert = member_insert,
	.member_delete = member_delete,
	.member_list = member_list,
	.member_names = member_names,
	.ending_add = ending_add,
	.ending_list = ending_list,
	.lease_get = lease_get,
	.lease_put = lease_put,
	.lease_remove = lease_remove,
	.lease_soonest = lease_soonest,
	.lease_rebase = lease_rebase,
	.binding_get = binding_get,
	.binding_put = binding_put,
	.binding_remove = binding_remove,
	.binding_list = binding_list,
	.binding_of = binding_of,
	.borrow_get = borrow_get,
	.borrow_add = borrow_add,
	.borrow_held = borrow_held,
	.borrow_queues = borrow_queues,
	.borrow_list = borrow_list,
	.taken_add = taken_add,
	.taken_remove = taken_remove,
	.taken_names = taken_names,
	.taken_done = taken_done,
	.taken_list = taken_list,
	.event_add = event_add,
	.event_scan = event_scan,
};

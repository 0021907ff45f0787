/* The event log, and the paths by which it names things. */
#include "core/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIR_PATHS_MAX 4096

void paths_forget(struct store *st)
{
	struct dir_path *p, *tmp;

	HASH_ITER(hh, st->dir_paths, p, tmp) {
		HASH_DELETE(hh, st->dir_paths, p);
		free(p->path);
		free(p);
	}
}

void path_remember(struct store *st, uint64_t id, const char *path)
{
	struct dir_path *p;

	HASH_FIND(hh, st->dir_paths, &id, sizeof(id), p);
	if (p != NULL)
		return;
	p = calloc(1, sizeof(*p));

	if (HASH_COUNT(st->dir_paths) >= DIR_PATHS_MAX)
		paths_forget(st);
	if (p == NULL || (p->path = strdup(path)) == NULL) {
		free(p);
		return;
	}
	p->id = id;
	p->len = strlen(path);
	HASH_ADD(hh, st->dir_paths, id, sizeof(id), p);
}

static const char *const places[META_FIRST_ID] = {
	[META_ABORTED] = ".promisefs/aborted",
	[META_LIFETIMES] = ".promisefs/lifetimes",
	[META_OWN] = ".promisefs/own",
	[META_REF] = ".promisefs/ref",
	[META_MUT] = ".promisefs/mut",
};

static int dir_path(struct store *st, uint64_t id, char path[static PATH_MAX], unsigned depth)
{
	struct dir_path *known;
	struct meta_dentry d;
	int r;

	path[0] = '\0';
	if (id == META_ROOT)
		return 0;
	if (id < META_FIRST_ID && places[id] != NULL) {
		strcpy(path, places[id]);
		return 0;
	}
	HASH_FIND(hh, st->dir_paths, &id, sizeof(id), known);
	if (known != NULL) {
		memcpy(path, known->path, known->len + 1);
		return 0;
	}
	r = depth == 0 ? -ELOOP : st->meta->ops->dentry_names(st->meta, id, take_name, &d);
	if (r <= 0)
		return r < 0 ? r : ending_path(st, id, path);
	r = dir_path(st, d.parent, path, depth - 1);
	if (r < 0)
		return r;
	if (strlen(path) + d.name_len + 2 > PATH_MAX) {
		strcpy(path, "..."); /* a tree deeper than a path can be long: named by its end */
	}
	if (path[0] != '\0')
		strcat(path, "/");
	strcat(path, d.name);
	path_remember(st, id, path);
	return 0;
}

int path_of_name(struct store *st, uint64_t parent, const char *name, char path[static PATH_MAX])
{
	int r = dir_path(st, parent, path, 4096);

	if (r < 0)
		return r;
	if (strlen(path) + strlen(name) + 2 > PATH_MAX)
		strcpy(path, "...");
	if (path[0] != '\0')
		strcat(path, "/");
	strcat(path, name);
	return 0;
}

/* What has no name of its own (any more): the one that it had, or that of whoever has borrowed it. 1: found. */
static int other_name(struct store *st, uint64_t object, struct meta_dentry *d)
{
	struct meta_borrow b;
	int r = once_name(st, object, d);

	if (r != -ENOENT)
		return r < 0 ? r : 1;
	r = st->meta->ops->borrow_list(st->meta, object, false, take_borrow, &b);
	return r > 0 ? st->meta->ops->dentry_names(st->meta, b.handle, take_name, d) : r;
}

int path_of(struct store *st, uint64_t object, char path[static PATH_MAX])
{
	struct meta_dentry d;
	int r = st->meta->ops->dentry_names(st->meta, object, take_name, &d);

	path[0] = '\0';
	if (r == 0)
		r = other_name(st, object, &d);
	if (r <= 0)
		return r;
	r = path_of_name(st, d.parent, d.name, path);
	if (r == -ENOENT) { /* its directory has gone meanwhile */
		strcpy(path, d.name);
		r = 0;
	}
	return r;
}

/* For the live stream, once the catalog was left. */
static void note_event(struct op *op, const struct meta_event *e)
{
	struct op_note *n = calloc(1, sizeof(*n));

	if (n == NULL)
		return;
	n->what = NOTE_EVENT;
	n->event = *e;
	n->name = strdup(e->key);
	n->event.key = n->name;
	n->detail = e->detail != NULL ? strdup(e->detail) : NULL;
	n->event.detail = n->detail;
	if (n->name == NULL) {
		free(n->detail);
		free(n);
		return;
	}
	LL_APPEND(op->notes, n);
}

int event_record(struct op *op, const char *kind, const char *key, const struct meta_object *o,
		 const struct process *p, const char *detail)
{
	const struct process *by = p != NULL ? p : &op->process;
	struct meta_event e = {
		.at = store_now(op->st), .kind = kind, .key = key, .key_len = strlen(key), .object = o->id,
		.version = o->version, .detail = detail, .pid = by->pid,
		.uid = p != NULL ? o->producer_uid : op->who != NULL ? op->who->uid : o->uid,
	};
	int r;

	memcpy(e.command, by->command, META_COMMAND_MAX);
	r = op->st->meta->ops->event_add(op->st->meta, &e);
	if (r == 0)
		note_event(op, &e);
	return r;
}

/* The recorded log. Gathered a piece at a time, so that reading it holds nobody up for long. */

#define LOG_BATCH 256

struct log_copy {
	struct meta_event e;
	char *key, *detail;
	char kind[16];
};

struct log_batch {
	struct log_copy copies[LOG_BATCH];
	unsigned n, seen;
	uint64_t last;
	const char *key;
};

static bool key_matches(const char *key, const struct meta_event *e)
{
	return key == NULL || (strlen(key) == e->key_len && memcmp(key, e->key, e->key_len) == 0);
}

static int gather_event(void *arg, const struct meta_event *e)
{
	struct log_batch *b = arg;
	struct log_copy *c = &b->copies[b->n];

	b->last = e->id;
	b->seen++;
	if (key_matches(b->key, e)) {
		c->e = *e;
		c->key = strndup(e->key_len > 0 ? e->key : "", e->key_len);
		c->detail = e->detail != NULL ? strdup(e->detail) : NULL;
		snprintf(c->kind, sizeof(c->kind), "%s", e->kind);
		b->n++;
	}
	return b->n == LOG_BATCH || b->seen == 16 * LOG_BATCH;
}

static int hand_out(struct log_batch *b, int (*fn)(void *arg, const struct meta_event *e), void *arg)
{
	int r = 0;

	for (unsigned i = 0; i < b->n; i++) {
		struct log_copy *c = &b->copies[i];

		c->e.key = c->key;
		c->e.detail = c->detail;
		c->e.kind = c->kind;
		if (r == 0 && c->key != NULL)
			r = fn(arg, &c->e);
		free(c->key);
		free(c->detail);
	}
	return r;
}

int store_log(struct store *st, const char *key, int (*fn)(void *arg, const struct meta_event *e), void *arg)
{
	struct log_batch *b = malloc(sizeof(*b));
	uint64_t after = 0;
	struct op op;
	int more = 1, r = b == NULL ? -ENOMEM : 0;

	while (r == 0 && more > 0) {
		b->n = b->seen = 0;
		b->key = key;
		op_begin(&op, st, NULL);
		more = st->meta->ops->event_scan(st->meta, after, gather_event, b);
		op_end(&op, 0, META_READ, NULL);
		after = b->last;
		r = more < 0 ? more : 0;
		if (hand_out(b, fn, arg) != 0)
			r = -ECANCELED;
	}
	free(b);
	return r;
}

/* Attributes of what has no name any more, and no record, but is open: they end with it. Those that it had when it went
 * away went with the record. */
#include "core/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

struct orphan {
	struct orphan *next;
	size_t len;
	char *name;
	char value[];
};

/* store->lock held. */
static struct orphan *find(struct object *obj, const char *name)
{
	struct orphan *a;

	LL_FOREACH(obj->orphans, a)
		if (strcmp(a->name, name) == 0)
			return a;
	return NULL;
}

/* store->lock held. */
static int drop(struct object *obj, const char *name)
{
	struct orphan *a = find(obj, name);

	if (a == NULL)
		return -ENODATA;
	LL_DELETE(obj->orphans, a);
	free(a->name);
	free(a);
	return 0;
}

void orphans_free(struct object *obj)
{
	while (obj->orphans != NULL)
		drop(obj, obj->orphans->name);
}

int orphan_set(struct store *st, struct object *obj, const char *name, const void *value, size_t len, int flags)
{
	struct orphan *a = malloc(sizeof(*a) + len);
	bool there;
	int r = 0;

	if (a == NULL || (a->name = strdup(name)) == NULL) {
		free(a);
		return -ENOMEM;
	}
	a->len = len;
	memcpy(a->value, value, len);
	pthread_mutex_lock(&st->lock);
	there = find(obj, name) != NULL;
	if (there && (flags & XATTR_CREATE) != 0)
		r = -EEXIST;
	else if (!there && (flags & XATTR_REPLACE) != 0)
		r = -ENODATA;
	if (r == 0) {
		drop(obj, name);
		LL_APPEND(obj->orphans, a);
	}
	pthread_mutex_unlock(&st->lock);
	if (r < 0) {
		free(a->name);
		free(a);
	}
	return r;
}

int orphan_get(struct store *st, struct object *obj, const char *name, void *value, size_t size)
{
	struct orphan *a;
	int r;

	pthread_mutex_lock(&st->lock);
	a = find(obj, name);
	r = a == NULL ? -ENODATA : size > 0 && size < a->len ? -ERANGE : (int)a->len;
	if (r > 0 && size > 0)
		memcpy(value, a->value, a->len);
	pthread_mutex_unlock(&st->lock);
	return r;
}

int orphan_remove(struct store *st, struct object *obj, const char *name)
{
	int r;

	pthread_mutex_lock(&st->lock);
	r = drop(obj, name);
	pthread_mutex_unlock(&st->lock);
	return r;
}

int orphan_list(struct store *st, struct object *obj, int (*fn)(void *arg, const char *name, size_t len), void *arg)
{
	struct orphan *a;
	int r = 0;

	pthread_mutex_lock(&st->lock);
	LL_FOREACH(obj->orphans, a)
		if (r == 0)
			r = fn(arg, a->name, a->len);
	pthread_mutex_unlock(&st->lock);
	return r;
}

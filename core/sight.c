/* Whose business a key is, where keys are told of (events, waits) instead of looked up: of whoever could list the
 * directory that it is in. Root, and the user whose daemon it is, see everything. */
#include "core/internal.h"

#include <stdlib.h>
#include <string.h>

#define READ_AND_SEARCH 5
#define SEARCH 1

struct caller *caller_keep(const struct caller *who)
{
	struct caller *kept = malloc(sizeof(*kept) + who->group_count * sizeof(*who->groups));

	if (kept == NULL)
		return NULL;
	*kept = *who;
	if (who->group_count > 0)
		memcpy(kept + 1, who->groups, who->group_count * sizeof(*who->groups));
	kept->groups = (const uint32_t *)(kept + 1);
	return kept;
}

bool store_is_host(struct store *st, uint32_t uid)
{
	return uid == 0 || uid == st->options.owner;
}

static bool begins_with(const char **path, const char *what)
{
	size_t n = strlen(what);

	if (strncmp(*path, what, n) != 0)
		return false;
	*path += n;
	return true;
}

/* May he go into every directory of `path` (which it is cut into), from `id` on, and list the last? Catalog held. */
static bool may_list(struct store *st, const struct caller *who, uint64_t id, char *path)
{
	struct meta_object dir;
	struct meta_dentry d;
	char *name;

	for (;;) {
		if (dir_get(st, id, &dir) < 0 ||
		    access_check(st, who, &dir, path == NULL ? READ_AND_SEARCH : SEARCH) < 0)
			return false;
		name = strsep(&path, "/");
		if (name == NULL)
			return true;
		if (st->meta->ops->dentry_get(st->meta, id, name, &d) < 0)
			return false;
		id = d.object;
	}
}

bool store_sees(struct store *st, const struct caller *who, const char *key, struct sight *known)
{
	uint64_t root = META_ROOT;
	char *name, dir[PATH_MAX];
	struct op op;
	bool sees;

	if (store_is_host(st, who->uid))
		return true;
	if (begins_with(&key, ".promisefs/aborted/"))
		root = META_ABORTED;
	else if (begins_with(&key, ".promisefs/"))
		return true; /* names of handles and lifetimes are no secret */
	if (strlen(key) >= sizeof(dir))
		return false;
	strcpy(dir, key);
	name = strrchr(dir, '/');
	*(name != NULL ? name : dir) = '\0';
	if (known != NULL && known->known && known->root == root && strcmp(known->dir, dir) == 0)
		return known->seen;
	if (known != NULL) {
		strcpy(known->dir, dir);
		known->root = root;
		known->known = true;
	}
	op_begin(&op, st, NULL);
	sees = may_list(st, who, root, name != NULL ? dir : NULL);
	op_end(&op, 0, META_READ, NULL);
	if (known != NULL)
		known->seen = sees;
	return sees;
}

/* Access control lists of objects: attributes in the catalog (acl_rule.c has the rules). The kernel asks for them and
 * checks them; here they are set, kept in step with the mode, and inherited. And the rights to an object, for what is
 * asked of core alone.
 *
 * Most stores have none. They have a mark at the root from the first list on, so until then nothing is looked up. */
#include "core/acl_rule.h"
#include "core/internal.h"

#include <errno.h>

#define MARK "pfs.acl"

int access_start(struct store *st)
{
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = st->meta->ops->attribute_get(st->meta, META_ROOT, MARK, NULL, 0);
	op_end(&op, 0, META_READ, NULL);
	atomic_store(&st->has_acls, r >= 0);
	st->uses_acls = st->options.acls == ACLS_ON || (st->options.acls == ACLS_IF_ANY && r >= 0);
	return r == -ENOENT || r >= 0 ? 0 : r;
}

bool store_uses_acls(struct store *st)
{
	return st->uses_acls;
}

/* -ENOENT: it has none. */
static int get_acl(struct store *st, uint64_t object, const char *name, struct acl *a)
{
	unsigned char blob[ACL_BLOB_MAX];
	int r;

	if (!atomic_load(&st->has_acls))
		return -ENOENT;
	r = st->meta->ops->attribute_get(st->meta, object, name, blob, sizeof(blob));
	return r < 0 ? r : acl_parse(blob, (size_t)r, a) < 0 ? -EBADMSG : 0;
}

static int put_acl(struct store *st, uint64_t object, const char *name, const struct acl *a)
{
	unsigned char blob[ACL_BLOB_MAX];
	size_t len = acl_format(a, blob);
	int r = st->meta->ops->attribute_get(st->meta, META_ROOT, MARK, NULL, 0);

	if (r == -ENOENT) /* what is in memory may have been taken back in the catalog */
		r = st->meta->ops->attribute_set(st->meta, META_ROOT, MARK, "", 0);
	r = r > 0 ? 0 : r;
	atomic_store(&st->has_acls, true);
	return r == 0 ? st->meta->ops->attribute_set(st->meta, object, name, blob, len) : r;
}

/* Setting them */

/* Ours; what is made below has none to inherit. */
static bool is_root_of_ours(const struct meta_object *o)
{
	return o->id < META_FIRST_ID && o->id != META_ROOT;
}

static int set_access(struct op *op, struct subject *s, const struct acl *a)
{
	struct meta_object *o = &s->o;

	o->mode = (o->mode & ~0777u) | acl_mode(a);
	if (op->who->uid != 0 && !caller_in_group(op->who, o->gid))
		o->mode &= ~(uint32_t)S_ISGID;
	if (acl_is_plain(a))
		return op->st->meta->ops->attribute_remove(op->st->meta, o->id, ACL_ACCESS);
	return put_acl(op->st, o->id, ACL_ACCESS, a);
}

int access_set(struct op *op, struct subject *s, const char *name, const void *value, size_t len)
{
	bool access = strcmp(name, ACL_ACCESS) == 0;
	struct acl a;
	int r = acl_parse(value, len, &a);

	if (r < 0 || s->gone)
		return r < 0 ? r : -ENOENT;
	if (!op->st->uses_acls || subject_self(s) != &s->o || is_root_of_ours(&s->o) || (s->o.mode & S_IFMT) == S_IFLNK)
		return -EOPNOTSUPP;
	if (!access && !is_dir(&s->o))
		return -EACCES;
	r = access ? set_access(op, s, &a) : put_acl(op->st, s->o.id, name, &a);
	s->o.ctime = store_now(op->st);
	return r == 0 ? subject_save(op->st, s) : r;
}

int access_chmod(struct store *st, const struct meta_object *o)
{
	struct acl a;
	int r = get_acl(st, o->id, ACL_ACCESS, &a);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	acl_chmod(&a, o->mode);
	return put_acl(st, o->id, ACL_ACCESS, &a);
}

/* Inheriting */

static int get_default(struct store *st, uint64_t dir, const struct meta_object *o, struct acl *a)
{
	if (!st->uses_acls || (o->mode & S_IFMT) == S_IFLNK)
		return -ENOENT;
	return get_acl(st, dir, ACL_DEFAULT, a);
}

int access_inherit_mode(struct op *op, uint64_t dir, struct meta_object *o)
{
	struct acl a;
	int r = get_default(op->st, dir, o, &a);

	if (r == 0)
		o->mode = (o->mode & ~0777u) | acl_inherit(&a, o->mode & 0777);
	else if (r == -ENOENT)
		o->mode &= ~op->who->umask;
	return r == -ENOENT ? 0 : r;
}

int access_inherit(struct op *op, uint64_t dir, const struct meta_object *o)
{
	struct acl a;
	int r = get_default(op->st, dir, o, &a);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (is_dir(o))
		r = put_acl(op->st, o->id, ACL_DEFAULT, &a);
	acl_inherit(&a, o->mode & 0777); /* the mode has been cut down by it already: the list is the same */
	return r < 0 || acl_is_plain(&a) ? r : put_acl(op->st, o->id, ACL_ACCESS, &a);
}

bool access_is_bare(struct store *st, const struct meta_object *o)
{
	return !atomic_load(&st->has_acls) || st->meta->ops->attribute_get(st->meta, o->id, ACL_ACCESS, NULL, 0) < 0;
}

/* Asking */

static bool in_group(const void *who, uint32_t gid)
{
	return caller_in_group(who, gid);
}

static bool mode_permits(const struct caller *who, const struct meta_object *o, unsigned want)
{
	unsigned bits = who->uid == o->uid ? o->mode >> 6 : caller_in_group(who, o->gid) ? o->mode >> 3 : o->mode;

	return (bits & want) == want;
}

int access_check(struct store *st, const struct caller *who, const struct meta_object *o, unsigned want)
{
	struct acl a;
	struct acl_question q = { .uid = who->uid, .in_group = in_group, .arg = who, .owner = o->uid, .group = o->gid,
				  .want = want };
	int r;

	if (who->uid == 0)
		return 0;
	r = !st->uses_acls ? -ENOENT : get_acl(st, o->id, ACL_ACCESS, &a);
	if (r == -ENOENT)
		return mode_permits(who, o, want) ? 0 : -EACCES;
	return r < 0 ? r : acl_permits(&a, &q) ? 0 : -EACCES;
}

int store_check_access(struct store *st, const struct caller *who, const struct meta_object *o, unsigned want)
{
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = access_check(st, who, o, want);
	op_end(&op, 0, META_READ, NULL);
	return r;
}

uint32_t access_plain_mode(struct store *st, const struct meta_object *o)
{
	struct acl a;

	return get_acl(st, o->id, ACL_ACCESS, &a) == 0 ? (o->mode & ~0777u) | acl_mode_without(&a) : o->mode;
}

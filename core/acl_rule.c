#include "core/acl_rule.h"

#include <errno.h>

/* A list has USER_OBJ, GROUP_OBJ and OTHER once each, in this order with any number of USER and GROUP between them, and
 * a MASK when it has any of those (it may have one without).
 *
 *  entry       speaks for                            limited by   is in the mode as
 *  USER_OBJ    the owner                             -            the owner's bits
 *  USER        one user                              MASK         -
 *  GROUP_OBJ   the group of the file                 MASK         the group's bits, when there is no MASK
 *  GROUP       one group                             MASK         -
 *  MASK        nobody: the most that those may get   -            the group's bits
 *  OTHER       everybody else                        -            the others' bits
 *
 * The first that speaks for somebody decides, but of those for groups one that permits what is asked for is enough.
 *
 *  what happens          the access list                                   the mode
 *  setfacl               is set; dropped when the mode says it all         from the list
 *  setfacl -b            is dropped                                        stays
 *  chmod                 USER_OBJ, MASK (else GROUP_OBJ) and OTHER from    is set
 *                        the mode
 *  a new file or         its directory's default list, if it has one, with from the list
 *  directory             USER_OBJ, MASK (else GROUP_OBJ) and OTHER cut
 *                        down to the mode that was asked for; dropped when
 *                        the mode says it all. Else none                   as asked, without the umask
 *  a new directory       ... and its default list is its directory's
 *  a new version, rename, stays with the object                            stays
 *  a further name, own/ */

static uint32_t little(const unsigned char *p, unsigned bytes)
{
	uint32_t v = 0;

	while (bytes-- > 0)
		v = v << 8 | p[bytes];
	return v;
}

static void put_little(unsigned char *p, uint32_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (unsigned char)(v >> 8 * i);
}

#define VERSION 2
#define HEADER 4
#define ENTRY 8

static unsigned count(const struct acl *a, enum acl_tag tag)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->n; i++)
		n += a->e[i].tag == tag;
	return n;
}

static bool is_complete(const struct acl *a)
{
	unsigned known = 0;

	for (unsigned i = 0; i < a->n; i++) {
		if (a->e[i].perm > 7 || (i > 0 && a->e[i].tag < a->e[i - 1].tag))
			return false;
		known += a->e[i].tag == ACL_TAG_USER || a->e[i].tag == ACL_TAG_GROUP;
	}
	if (count(a, ACL_TAG_USER_OBJ) != 1 || count(a, ACL_TAG_GROUP_OBJ) != 1 || count(a, ACL_TAG_OTHER) != 1)
		return false;
	return a->n == 3 + known + count(a, ACL_TAG_MASK) && count(a, ACL_TAG_MASK) <= 1 &&
	       (known == 0 || count(a, ACL_TAG_MASK) == 1);
}

int acl_parse(const void *blob, size_t len, struct acl *a)
{
	const unsigned char *p = blob;

	a->n = 0;
	if (len < HEADER || len > ACL_BLOB_MAX || (len - HEADER) % ENTRY != 0 || little(p, HEADER) != VERSION)
		return -EINVAL;
	for (p += HEADER, len -= HEADER; len > 0; p += ENTRY, len -= ENTRY)
		a->e[a->n++] = (struct acl_entry){ .tag = (uint16_t)little(p, 2), .perm = (uint16_t)little(p + 2, 2),
						   .id = little(p + 4, 4) };
	return is_complete(a) ? 0 : -EINVAL;
}

size_t acl_format(const struct acl *a, void *blob)
{
	unsigned char *p = blob;

	put_little(p, VERSION, HEADER);
	for (unsigned i = 0; i < a->n; i++) {
		put_little(p + HEADER + ENTRY * i, a->e[i].tag, 2);
		put_little(p + HEADER + ENTRY * i + 2, a->e[i].perm, 2);
		put_little(p + HEADER + ENTRY * i + 4, a->e[i].id, 4);
	}
	return HEADER + (size_t)ENTRY * a->n;
}

static struct acl_entry *find(const struct acl *a, enum acl_tag tag)
{
	for (unsigned i = 0; i < a->n; i++)
		if (a->e[i].tag == tag)
			return (struct acl_entry *)&a->e[i];
	return NULL;
}

static unsigned mask_of(const struct acl *a)
{
	const struct acl_entry *mask = find(a, ACL_TAG_MASK);

	return mask != NULL ? mask->perm : 7;
}

/* What the group's bits of the mode are. */
static struct acl_entry *group_class(const struct acl *a)
{
	struct acl_entry *mask = find(a, ACL_TAG_MASK);

	return mask != NULL ? mask : find(a, ACL_TAG_GROUP_OBJ);
}

bool acl_is_plain(const struct acl *a)
{
	return a->n == 3;
}

uint32_t acl_mode(const struct acl *a)
{
	return (uint32_t)(find(a, ACL_TAG_USER_OBJ)->perm << 6 | group_class(a)->perm << 3 | find(a, ACL_TAG_OTHER)->perm);
}

uint32_t acl_mode_without(const struct acl *a)
{
	return (acl_mode(a) & ~070u) | (find(a, ACL_TAG_GROUP_OBJ)->perm & mask_of(a)) << 3;
}

void acl_chmod(struct acl *a, uint32_t mode)
{
	find(a, ACL_TAG_USER_OBJ)->perm = mode >> 6 & 7;
	group_class(a)->perm = mode >> 3 & 7;
	find(a, ACL_TAG_OTHER)->perm = mode & 7;
}

uint32_t acl_inherit(struct acl *a, uint32_t mode)
{
	acl_chmod(a, mode & acl_mode(a));
	return acl_mode(a);
}

static bool in_groups(const struct acl *a, const struct acl_question *q, bool *permits)
{
	bool in = false;

	*permits = false;
	for (unsigned i = 0; i < a->n; i++) {
		const struct acl_entry *e = &a->e[i];

		if (e->tag != ACL_TAG_GROUP_OBJ && e->tag != ACL_TAG_GROUP)
			continue;
		if (!q->in_group(q->arg, e->tag == ACL_TAG_GROUP ? e->id : q->group))
			continue;
		in = true;
		*permits = *permits || (e->perm & mask_of(a) & q->want) == q->want;
	}
	return in;
}

bool acl_permits(const struct acl *a, const struct acl_question *q)
{
	bool permits;

	if (q->uid == q->owner)
		return (find(a, ACL_TAG_USER_OBJ)->perm & q->want) == q->want;
	for (unsigned i = 0; i < a->n; i++)
		if (a->e[i].tag == ACL_TAG_USER && a->e[i].id == q->uid)
			return (a->e[i].perm & mask_of(a) & q->want) == q->want;
	if (in_groups(a, q, &permits))
		return permits;
	return (find(a, ACL_TAG_OTHER)->perm & q->want) == q->want;
}

void acl_lend(struct acl *a)
{
	for (unsigned i = 0; i < a->n; i++)
		if ((a->e[i].perm & ACL_READ) != 0)
			a->e[i].perm |= ACL_WRITE;
}

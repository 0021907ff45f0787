/* POSIX access control lists: what they say and how they change, as functions of the lists and nothing else. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

#define ACL_READ 4u
#define ACL_WRITE 2u
#define ACL_EXECUTE 1u

/* As the kernel numbers them; a list is in this order. */
enum acl_tag {
	ACL_TAG_USER_OBJ = 0x01,
	ACL_TAG_USER = 0x02,
	ACL_TAG_GROUP_OBJ = 0x04,
	ACL_TAG_GROUP = 0x08,
	ACL_TAG_MASK = 0x10,
	ACL_TAG_OTHER = 0x20,
};

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id; /* USER, GROUP */
};

/* The kernel takes no list whose attribute is longer than a page. */
#define ACL_BLOB_MAX 4096
#define ACL_ENTRIES_MAX ((ACL_BLOB_MAX - 4) / 8)

struct acl {
	unsigned n;
	struct acl_entry e[ACL_ENTRIES_MAX];
};

/* Who asks for something, and whose it is. */
struct acl_question {
	uint32_t uid;
	bool (*in_group)(const void *arg, uint32_t gid);
	const void *arg;
	uint32_t owner, group;
	unsigned want; /* ACL_READ | ... */
};

/* Is this the name of an attribute that is a list? */
static inline bool is_acl(const char *name)
{
	return strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0;
}

/* The value of the attribute, as getxattr(2) and setxattr(2) have it. -EINVAL: it is no complete list. */
int acl_parse(const void *blob, size_t len, struct acl *a);
size_t acl_format(const struct acl *a, void *blob); /* its length, at most ACL_BLOB_MAX */

bool acl_is_plain(const struct acl *a);       /* the mode says it all */
uint32_t acl_mode(const struct acl *a);       /* the permission bits that stat(2) shows: those of an access list */
uint32_t acl_mode_without(const struct acl *a); /* what the mode grants when the list is taken away: no more than it did */
void acl_chmod(struct acl *a, uint32_t mode); /* the access list of a file whose mode was set */
/* a: the default list of a directory; becomes the access list of what is made in it with this mode, whose permission bits
 * are returned. */
uint32_t acl_inherit(struct acl *a, uint32_t mode);
bool acl_permits(const struct acl *a, const struct acl_question *q);
/* Writing for everybody who may read. */
void acl_lend(struct acl *a);

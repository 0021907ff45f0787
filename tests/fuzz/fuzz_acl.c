/* Access control lists as setxattr(2) brings them: what is taken is whole, is written as it was read, and stays a list
 * through everything that may happen to it. */
#include "core/acl_rule.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int good)
{
	if (!good)
		abort();
}

static bool in_group(const void *arg, uint32_t gid)
{
	return gid % 3 == 0;
}

static void write_and_read(const struct acl *a)
{
	char blob[ACL_BLOB_MAX];
	struct acl again;
	size_t n = acl_format(a, blob);

	require(n <= ACL_BLOB_MAX && acl_parse(blob, n, &again) == 0 && again.n == a->n);
	for (unsigned i = 0; i < a->n; i++)
		require(again.e[i].tag == a->e[i].tag && again.e[i].perm == a->e[i].perm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t mode = size > 5 ? data[size - 1] | (uint32_t)data[size - 2] << 8 : 0;
	struct acl_question q = { .uid = mode, .in_group = in_group, .owner = 1, .group = 3, .want = mode & 7 };
	struct acl a, b;

	if (acl_parse(data, size, &a) < 0)
		return 0;
	write_and_read(&a);
	require((acl_mode(&a) & ~0777u) == 0 && (acl_mode_without(&a) & ~0777u) == 0);
	acl_is_plain(&a);
	acl_permits(&a, &q);
	b = a;
	acl_chmod(&b, mode & 07777);
	require((acl_mode(&b) & 0777) == (mode & 0777));
	write_and_read(&b);
	b = a;
	require((acl_inherit(&b, mode & 0777) & ~mode & 0777) == 0);
	write_and_read(&b);
	b = a;
	acl_lend(&b);
	write_and_read(&b);
	return 0;
}

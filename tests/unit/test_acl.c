/* The rules of access control lists. Lists are written as getfacl(1) shows them: u::rw-,u:5:r--,g::r--,m::r--,o::--- */
#include "core/acl_rule.h"
#include "tests/unit/unit.h"

static uint16_t tag_of(char kind, bool named)
{
	switch (kind) {
	case 'u':
		return named ? ACL_TAG_USER : ACL_TAG_USER_OBJ;
	case 'g':
		return named ? ACL_TAG_GROUP : ACL_TAG_GROUP_OBJ;
	case 'm':
		return ACL_TAG_MASK;
	default:
		return ACL_TAG_OTHER;
	}
}

static struct acl list(const char *text)
{
	struct acl a = { .n = 0 };

	for (const char *p = text; *p != '\0'; p += *p == ',') {
		struct acl_entry *e = &a.e[a.n++];
		char *end;

		*e = (struct acl_entry){ .tag = tag_of(*p, p[2] != ':'), .id = p[2] != ':' ? (uint32_t)strtoul(p + 2, &end, 10) : UINT32_MAX };
		p = p[2] != ':' ? end + 1 : p + 3;
		for (int bit = 4; bit > 0; bit >>= 1, p++)
			e->perm |= *p != '-' ? bit : 0;
	}
	return a;
}

static void assert_is(const struct acl *a, const char *text)
{
	struct acl b = list(text);
	unsigned char one[ACL_BLOB_MAX], two[ACL_BLOB_MAX];
	size_t len = acl_format(a, one);

	if (len != acl_format(&b, two) || memcmp(one, two, len) != 0)
		fail_msg("it is not %s", text);
}

/* ---- The attribute ---- */

static void test_blob_of_the_kernel(void **state)
{
	static const unsigned char blob[] = {
		2, 0, 0, 0,
		0x01, 0, 6, 0, 0xff, 0xff, 0xff, 0xff,
		0x02, 0, 7, 0, 0x39, 0x30, 0, 0,
		0x04, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
		0x10, 0, 5, 0, 0xff, 0xff, 0xff, 0xff,
		0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
	};
	unsigned char back[ACL_BLOB_MAX];
	struct acl a;

	assert_int_equal(acl_parse(blob, sizeof(blob), &a), 0);
	assert_is(&a, "u::rw-,u:12345:rwx,g::r--,m::r-x,o::---");
	assert_int_equal(acl_format(&a, back), sizeof(blob));
	assert_memory_equal(back, blob, sizeof(blob));
	for (size_t len = 0; len < sizeof(blob); len++)
		assert_int_equal(acl_parse(blob, len, &a), -EINVAL);
	memcpy(back, blob, sizeof(blob));
	back[0] = 3;
	assert_int_equal(acl_parse(back, sizeof(blob), &a), -EINVAL);
}

static void test_complete_lists(void **state)
{
	static const struct {
		const char *text;
		int expected;
	} rows[] = {
		{ "u::rwx,g::r-x,o::r--", 0 },
		{ "u::---,g::---,o::---", 0 },
		{ "u::rwx,g::r-x,m::r--,o::r--", 0 },
		{ "u::rwx,u:1:r--,u:2:r--,g::r-x,g:1:rw-,m::rwx,o::r--", 0 },
		{ "", -EINVAL },
		{ "u::rwx,g::r-x", -EINVAL },
		{ "u::rwx,o::r--", -EINVAL },
		{ "g::rwx,o::r--", -EINVAL },
		{ "u::rwx,u:1:r--,g::r-x,o::r--", -EINVAL }, /* no mask */
		{ "u::rwx,g::r-x,g:1:r--,o::r--", -EINVAL },
		{ "u::rwx,g::r-x,m::r--,m::r--,o::r--", -EINVAL },
		{ "u::rwx,u::rwx,g::r-x,o::r--", -EINVAL },
		{ "u::rwx,g::r-x,g::r-x,o::r--", -EINVAL },
		{ "u::rwx,g::r-x,o::r--,o::r--", -EINVAL },
		{ "g::r-x,u::rwx,o::r--", -EINVAL }, /* order */
		{ "u::rwx,g::r-x,o::r--,m::r--", -EINVAL },
	};
	unsigned char blob[ACL_BLOB_MAX];
	struct acl a;

	for (unsigned i = 0; i < COUNT(rows); i++) {
		struct acl b = list(rows[i].text);

		assert_int_equal(acl_parse(blob, acl_format(&b, blob), &a), rows[i].expected);
	}
	a = list("u::rwx,g::r-x,o::r--");
	a.e[1].perm = 8;
	assert_int_equal(acl_parse(blob, acl_format(&a, blob), &a), -EINVAL);
	a = list("u::rwx,g::r-x,o::r--");
	a.e[1].tag = 3;
	assert_int_equal(acl_parse(blob, acl_format(&a, blob), &a), -EINVAL);
}

static void test_longest_list(void **state)
{
	static unsigned char blob[ACL_BLOB_MAX + 8];
	static struct acl a, b;

	a.n = ACL_ENTRIES_MAX;
	for (unsigned i = 0; i < a.n; i++)
		a.e[i] = (struct acl_entry){ .tag = ACL_TAG_USER, .perm = 4, .id = i };
	a.e[0].tag = ACL_TAG_USER_OBJ;
	a.e[a.n - 3].tag = ACL_TAG_GROUP_OBJ;
	a.e[a.n - 2].tag = ACL_TAG_MASK;
	a.e[a.n - 1].tag = ACL_TAG_OTHER;
	assert_true(acl_format(&a, blob) <= ACL_BLOB_MAX);
	assert_int_equal(acl_parse(blob, acl_format(&a, blob), &b), 0);
	assert_int_equal(b.n, a.n);
	assert_int_equal(acl_parse(blob, acl_format(&a, blob) + 8, &b), -EINVAL);
}

/* ---- The mode ---- */

static void test_mode(void **state)
{
	static const struct {
		const char *text;
		uint32_t mode, without;
		bool plain;
	} rows[] = {
		{ "u::rwx,g::r-x,o::r--", 0754, 0754, true },
		{ "u::rw-,u:1:rwx,g::r--,m::rwx,o::---", 0670, 0640, false },
		{ "u::rw-,u:1:rwx,g::rwx,m::r--,o::---", 0640, 0640, false },
		{ "u::rw-,g::rwx,m::---,o::rwx", 0607, 0607, false },
		{ "u::---,g::---,g:1:rwx,m::rwx,o::---", 0070, 0000, false },
	};

	for (unsigned i = 0; i < COUNT(rows); i++) {
		struct acl a = list(rows[i].text);

		assert_int_equal(acl_mode(&a), rows[i].mode);
		assert_int_equal(acl_mode_without(&a), rows[i].without);
		assert_int_equal(acl_is_plain(&a), rows[i].plain);
	}
}

static void test_chmod(void **state)
{
	static const struct {
		const char *before;
		uint32_t mode;
		const char *after;
	} rows[] = {
		{ "u::rwx,g::r-x,o::r--", 0640, "u::rw-,g::r--,o::---" },
		{ "u::rwx,u:1:rwx,g::r-x,m::rwx,o::r--", 0640, "u::rw-,u:1:rwx,g::r-x,m::r--,o::---" },
		{ "u::---,u:1:rwx,g::---,m::---,o::---", 0777, "u::rwx,u:1:rwx,g::---,m::rwx,o::rwx" },
		{ "u::rwx,g::rwx,m::rwx,o::rwx", 0, "u::---,g::rwx,m::---,o::---" },
	};

	for (unsigned i = 0; i < COUNT(rows); i++) {
		struct acl a = list(rows[i].before);

		acl_chmod(&a, rows[i].mode | 0102000); /* nothing but the permission bits matters */
		assert_is(&a, rows[i].after);
		assert_int_equal(acl_mode(&a), rows[i].mode);
	}
}

/* ---- Inheriting ---- */

static void test_inherit(void **state)
{
	static const struct {
		const char *dir;
		uint32_t asked, mode;
		const char *file;
	} rows[] = {
		{ "u::rwx,g::r-x,o::---", 0666, 0640, "u::rw-,g::r--,o::---" },
		{ "u::rwx,g::r-x,o::---", 0777, 0750, "u::rwx,g::r-x,o::---" },
		{ "u::rwx,u:1:rwx,g::r-x,m::rwx,o::---", 0666, 0660, "u::rw-,u:1:rwx,g::r-x,m::rw-,o::---" },
		{ "u::rwx,u:1:rwx,g::r-x,m::rwx,o::r-x", 0600, 0600, "u::rw-,u:1:rwx,g::r-x,m::---,o::---" },
		{ "u::r--,g::---,g:1:r--,m::r--,o::---", 0777, 0440, "u::r--,g::---,g:1:r--,m::r--,o::---" },
		{ "u::---,g::---,o::---", 0777, 0, "u::---,g::---,o::---" },
	};

	for (unsigned i = 0; i < COUNT(rows); i++) {
		struct acl a = list(rows[i].dir), again = a;

		assert_int_equal(acl_inherit(&a, rows[i].asked), rows[i].mode);
		assert_is(&a, rows[i].file);
		assert_int_equal(acl_inherit(&again, rows[i].mode), rows[i].mode); /* from the mode it has come to: the same */
		assert_is(&again, rows[i].file);
	}
}

/* ---- Rights ---- */

#define GROUPS 3

struct asker {
	uint32_t uid;
	uint32_t groups[GROUPS];
};

static bool is_in(const void *arg, uint32_t gid)
{
	const struct asker *who = arg;

	for (unsigned i = 0; i < GROUPS; i++)
		if (who->groups[i] == gid)
			return true;
	return false;
}

static void test_permits(void **state)
{
	static const struct { /* the file is 10:20's */
		const char *text;
		struct asker who;
		unsigned may; /* what of READ, WRITE and EXECUTE, each by itself */
	} rows[] = {
		{ "u::rw-,g::r--,o::--x", { 10, { 20 } }, 6 },
		{ "u::rw-,g::r--,o::--x", { 11, { 20 } }, 4 },
		{ "u::rw-,g::r--,o::--x", { 11, { 21, 20 } }, 4 },
		{ "u::rw-,g::r--,o::--x", { 11, { 21 } }, 1 },
		{ "u::---,u:10:rwx,g::rwx,m::rwx,o::rwx", { 10, { 20 } }, 0 }, /* the owner is the owner */
		{ "u::rwx,g::---,m::---,o::---", { 10, { 1 } }, 7 },            /* whom no mask limits */
		{ "u::---,u:11:rw-,g::rwx,m::r-x,o::rwx", { 11, { 20 } }, 4 },
		{ "u::---,u:11:---,g::rwx,m::rwx,o::rwx", { 11, { 20 } }, 0 }, /* the user before the groups */
		{ "u::---,g::rwx,m::r--,o::rwx", { 12, { 20 } }, 4 },
		{ "u::---,g::---,g:21:-w-,m::rwx,o::rwx", { 12, { 20, 21 } }, 2 }, /* one group is enough */
		{ "u::---,g::---,g:21:---,m::rwx,o::rwx", { 12, { 21 } }, 0 },     /* but then not the others */
		{ "u::---,g::r--,g:21:rwx,m::rw-,o::rwx", { 12, { 1, 21, 20 } }, 6 },
		{ "u::---,u:5:rwx,g::---,g:6:rwx,m::---,o::rw-", { 12, { 1 } }, 6 }, /* no mask for the others */
	};

	for (unsigned i = 0; i < COUNT(rows); i++) {
		struct acl a = list(rows[i].text);

		for (unsigned want = 1; want <= 4; want <<= 1)
			assert_int_equal(acl_permits(&a, &(struct acl_question){ .uid = rows[i].who.uid, .in_group = is_in,
						 .arg = &rows[i].who, .owner = 10, .group = 20, .want = want }),
					 (rows[i].may & want) != 0);
	}
}

/* Two groups that together have the rights do not: one entry decides. */
static void test_rights_are_not_added_up(void **state)
{
	static const struct asker who = { 12, { 20, 21 } };
	struct acl a = list("u::rwx,g::r--,g:21:-w-,m::rwx,o::rwx");
	struct acl_question q = { .uid = 12, .in_group = is_in, .arg = &who, .owner = 10, .group = 20 };

	q.want = ACL_READ | ACL_WRITE;
	assert_false(acl_permits(&a, &q));
	q.want = ACL_READ;
	assert_true(acl_permits(&a, &q));
}

static void test_lend(void **state)
{
	struct acl a = list("u::r--,u:1:rwx,u:2:--x,g::r-x,m::r--,o::---");

	acl_lend(&a);
	assert_is(&a, "u::rw-,u:1:rwx,u:2:--x,g::rwx,m::rw-,o::---");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blob_of_the_kernel),
		cmocka_unit_test(test_complete_lists),
		cmocka_unit_test(test_longest_list),
		cmocka_unit_test(test_mode),
		cmocka_unit_test(test_chmod),
		cmocka_unit_test(test_inherit),
		cmocka_unit_test(test_permits),
		cmocka_unit_test(test_rights_are_not_added_up),
		cmocka_unit_test(test_lend),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

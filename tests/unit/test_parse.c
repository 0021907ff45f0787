/* Durations, times, sizes and errno names: tables of what is taken and what is refused. */
#include "core/parse.h"
#include "tests/unit/unit.h"

#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define UNTOUCHED -77

struct number_case {
	const char *text;
	int r;
	int64_t value;
};

static const struct number_case durations[] = {
	{ "0", 0, 0 },
	{ "0s", 0, 0 },
	{ "000s", 0, 0 },
	{ "1ns", 0, 1 },
	{ "1us", 0, 1000 },
	{ "500ms", 0, 500 * MS },
	{ "1s", 0, SECOND },
	{ "1.5s", 0, 1500 * MS },
	{ "0.5s", 0, 500 * MS },
	{ "1.000000001s", 0, SECOND + 1 },
	{ "1.0000000019s", 0, SECOND + 1 },
	{ "1.9ns", 0, 1 },
	{ "2m", 0, 2 * MINUTE },
	{ "0.1m", 0, 6 * SECOND },
	{ "2h", 0, 2 * HOUR },
	{ "1.25h", 0, 75 * MINUTE },
	{ "7d", 0, 7 * DAY },
	{ "007d", 0, 7 * DAY },
	{ "4611686018427387903ns", 0, INT64_MAX / 2 },
	{ "4611686018427387904ns", -ERANGE, 0 },
	{ "4611686018.427387903s", 0, INT64_MAX / 2 },
	{ "4611686018.427387904s", -ERANGE, 0 },
	{ "53375d", 0, 53375 * DAY },
	{ "53376d", -ERANGE, 0 },
	{ "9223372036854775808ns", -ERANGE, 0 },
	{ "18446744073709551616ns", -ERANGE, 0 },
	{ "18446744073709551617s", -ERANGE, 0 },
	{ "99999999999999999999999999999999999999999d", -ERANGE, 0 },
	{ "", -EINVAL, 0 },
	{ "1", -EINVAL, 0 },
	{ "00", -EINVAL, 0 },
	{ "0.0", -EINVAL, 0 },
	{ "s", -EINVAL, 0 },
	{ "-5s", -EINVAL, 0 },
	{ "+5s", -EINVAL, 0 },
	{ " 5s", -EINVAL, 0 },
	{ "5s ", -EINVAL, 0 },
	{ "5 s", -EINVAL, 0 },
	{ "5s\n", -EINVAL, 0 },
	{ "5S", -EINVAL, 0 },
	{ "5sec", -EINVAL, 0 },
	{ "5w", -EINVAL, 0 },
	{ "1e99s", -EINVAL, 0 },
	{ "1e3s", -EINVAL, 0 },
	{ "0x10s", -EINVAL, 0 },
	{ ".5s", -EINVAL, 0 },
	{ "5.s", -EINVAL, 0 },
	{ "1..5s", -EINVAL, 0 },
	{ "1.5.5s", -EINVAL, 0 },
	{ "1,5s", -EINVAL, 0 },
	{ "1h30m", -EINVAL, 0 },
	{ "1.-5s", -EINVAL, 0 },
	{ "nan", -EINVAL, 0 },
	{ "inf", -EINVAL, 0 },
	{ "none", -EINVAL, 0 },
	{ "tomorrow", -EINVAL, 0 },
	{ "\xd9\xa1s", -EINVAL, 0 }, /* a digit, but not of ours */
};

static void check_numbers(const struct number_case *cases, size_t n, int (*parse)(const char *s, int64_t *v))
{
	for (size_t i = 0; i < n; i++) {
		int64_t v = UNTOUCHED;
		int r = parse(cases[i].text, &v);
		int64_t expected = cases[i].r == 0 ? cases[i].value : UNTOUCHED;

		if (r != cases[i].r || v != expected)
			fail_msg("\"%s\": returned %d (expected %d), value %lld (expected %lld)", cases[i].text, r,
				 cases[i].r, (long long)v, (long long)expected);
	}
}

static void test_durations(void **state)
{
	check_numbers(durations, COUNT(durations), parse_duration);
}

static void test_durations_written(void **state)
{
	static const struct { int64_t ns; const char *text; } cases[] = {
		{ 0, "0" }, { 1, "1ns" }, { 1500, "1500ns" }, { 500 * MS, "500ms" }, { 1500 * MS, "1500ms" },
		{ 90 * SECOND, "90s" }, { 2 * MINUTE, "2m" }, { 3 * DAY, "3d" }, { INT64_MAX / 2, "4611686018427387903ns" },
	};
	char buf[32];
	int64_t ns;

	for (size_t i = 0; i < COUNT(cases); i++) {
		format_duration(cases[i].ns, buf);
		assert_string_equal(buf, cases[i].text);
		assert_int_equal(parse_duration(buf, &ns), 0);
		assert_true(ns == cases[i].ns);
	}
}

#define LEAP_2024 (19782 * DAY) /* 2024-02-29 */
#define DAY_2026 (20455 * DAY)  /* 2026-01-02 */

static const struct number_case times[] = {
	{ "1970-01-01T00:00:00Z", 0, 0 },
	{ "1970-01-01T00:00:00.000000001Z", 0, 1 },
	{ "1970-01-01t00:00:01z", 0, SECOND },
	{ "1970-01-01 00:00:01Z", 0, SECOND },
	{ "2026-01-02T03:04:05.25Z", 0, DAY_2026 + 3 * HOUR + 4 * MINUTE + 5 * SECOND + 250 * MS },
	{ "2026-01-02T03:04:05Z", 0, DAY_2026 + 3 * HOUR + 4 * MINUTE + 5 * SECOND },
	{ "2026-01-02T03:04:05+01:00", 0, DAY_2026 + 2 * HOUR + 4 * MINUTE + 5 * SECOND },
	{ "2026-01-02T03:04:05-01:30", 0, DAY_2026 + 4 * HOUR + 34 * MINUTE + 5 * SECOND },
	{ "2026-01-02T00:00:00+00:00", 0, DAY_2026 },
	{ "2026-01-02T00:00:00-00:00", 0, DAY_2026 },
	{ "2026-01-02T23:59:00+23:59", 0, DAY_2026 },
	{ "2026-01-02T00:30:00.5+00:31", 0, DAY_2026 - MINUTE + 500 * MS },
	{ "2026-01-02T03:04:05.123456789Z", 0, DAY_2026 + 3 * HOUR + 4 * MINUTE + 5 * SECOND + 123456789 },
	{ "2026-01-02T03:04:05.1234567899Z", 0, DAY_2026 + 3 * HOUR + 4 * MINUTE + 5 * SECOND + 123456789 },
	{ "2024-02-29T00:00:00Z", 0, LEAP_2024 },
	{ "2024-03-01T00:00:00Z", 0, LEAP_2024 + DAY },
	{ "2000-02-29T00:00:00Z", 0, 11016 * DAY },
	{ "1972-02-29T00:00:00Z", 0, 789 * DAY },
	{ "2016-12-31T23:59:60Z", 0, 17167 * DAY }, /* a leap second is the second after */
	{ "1970-01-01T01:00:00+01:00", 0, 0 },
	{ "2261-12-31T23:59:59.999999999Z", 0, 9214646399999999999 },
	{ "2261-12-31T23:59:59-23:59", 0, 9214732739000000000 },
	{ "2023-02-29T00:00:00Z", -EINVAL, 0 },
	{ "2100-02-29T00:00:00Z", -EINVAL, 0 },
	{ "2200-02-29T00:00:00Z", -EINVAL, 0 },
	{ "2024-02-30T00:00:00Z", -EINVAL, 0 },
	{ "2026-04-31T00:00:00Z", -EINVAL, 0 },
	{ "2026-01-32T00:00:00Z", -EINVAL, 0 },
	{ "2026-01-00T00:00:00Z", -EINVAL, 0 },
	{ "2026-00-01T00:00:00Z", -EINVAL, 0 },
	{ "2026-13-01T00:00:00Z", -EINVAL, 0 },
	{ "1969-12-31T23:59:59Z", -EINVAL, 0 },
	{ "1970-01-01T00:59:59+01:00", -EINVAL, 0 },
	{ "2262-01-01T00:00:00Z", -EINVAL, 0 },
	{ "9999-12-31T23:59:59Z", -EINVAL, 0 },
	{ "10000-01-01T00:00:00Z", -EINVAL, 0 },
	{ "0000-01-01T00:00:00Z", -EINVAL, 0 },
	{ "2026-01-02T24:00:00Z", -EINVAL, 0 },
	{ "2026-01-02T00:60:00Z", -EINVAL, 0 },
	{ "2026-01-02T00:00:61Z", -EINVAL, 0 },
	{ "2026-01-02T00:00:00", -EINVAL, 0 },
	{ "2026-01-02T00:00Z", -EINVAL, 0 },
	{ "2026-01-02", -EINVAL, 0 },
	{ "2026-01-02T00:00:00.Z", -EINVAL, 0 },
	{ "2026-01-02T00:00:00,5Z", -EINVAL, 0 },
	{ "2026-01-02T00:00:00+24:00", -EINVAL, 0 },
	{ "2026-01-02T00:00:00+01:60", -EINVAL, 0 },
	{ "2026-01-02T00:00:00+0100", -EINVAL, 0 },
	{ "2026-01-02T00:00:00+01", -EINVAL, 0 },
	{ "2026-01-02T00:00:00+1:00", -EINVAL, 0 },
	{ "2026-01-02T00:00:00ZZ", -EINVAL, 0 },
	{ "2026-01-02T00:00:00Z ", -EINVAL, 0 },
	{ " 2026-01-02T00:00:00Z", -EINVAL, 0 },
	{ "+026-01-02T00:00:00Z", -EINVAL, 0 },
	{ "-2026-01-02T00:00:00Z", -EINVAL, 0 },
	{ "2026-1-2T00:00:00Z", -EINVAL, 0 },
	{ "2026/01/02T00:00:00Z", -EINVAL, 0 },
	{ "2026-01-02X00:00:00Z", -EINVAL, 0 },
	{ "2", -EINVAL, 0 },
	{ "2026-", -EINVAL, 0 },
	{ "", -EINVAL, 0 },
	{ "now", -EINVAL, 0 },
	{ "tomorrow", -EINVAL, 0 },
};

static void test_times(void **state)
{
	check_numbers(times, COUNT(times), parse_time);
}

/* Every prefix of a time is none, and nothing behind its end is looked at. */
static void test_time_prefixes(void **state)
{
	static const char whole[] = "2026-01-02T03:04:05.25+01:00";

	for (size_t n = 0; n < sizeof(whole) - 1; n++) {
		char *s = strndup(whole, n); /* exactly as long, so that a sanitizer sees a read too far */
		int64_t v;

		assert_int_equal(parse_time(s, &v), -EINVAL);
		free(s);
	}
}

static void test_format(void **state)
{
	static const struct {
		int64_t ns;
		const char *text;
	} cases[] = {
		{ 0, "1970-01-01T00:00:00.000000000Z" },
		{ 1, "1970-01-01T00:00:00.000000001Z" },
		{ 999999999, "1970-01-01T00:00:00.999999999Z" },
		{ LEAP_2024 + 86399 * SECOND, "2024-02-29T23:59:59.000000000Z" },
		{ DAY_2026 + 250 * MS, "2026-01-02T00:00:00.250000000Z" },
		{ INT64_MAX, "2262-04-11T23:47:16.854775807Z" },
	};
	char buf[40];

	for (size_t i = 0; i < COUNT(cases); i++) {
		format_time(cases[i].ns, buf);
		assert_string_equal(buf, cases[i].text);
	}
}

static void test_time_round_trip(void **state)
{
	int64_t step = 9214646399999999999 / 9973;

	for (int64_t t = 0; t <= 9214646399999999999 - step; t += step) {
		char buf[40];
		int64_t back = -1;

		format_time(t, buf);
		assert_int_equal(parse_time(buf, &back), 0);
		assert_true(back == t);
	}
}

/* Each day from 1970 to 2261 begins where the one before ended. */
static void test_every_day(void **state)
{
	int64_t expected = 0, v;
	unsigned days = 0;

	for (int y = 1970; y <= 2261; y++)
		for (int m = 0; m <= 13; m++)
			for (int d = 0; d <= 32; d++) {
				char s[32];

				snprintf(s, sizeof(s), "%04d-%02d-%02dT00:00:00Z", y, m, d);
				if (parse_time(s, &v) < 0)
					continue;
				assert_true(v == expected);
				expected += DAY;
				days++;
			}
	assert_int_equal(days, 106651);
}

static int parse_size_signed(const char *s, int64_t *v)
{
	uint64_t bytes = (uint64_t)*v;
	int r = parse_size(s, &bytes);

	*v = (int64_t)bytes;
	return r;
}

static const struct number_case sizes[] = {
	{ "0", 0, 0 },
	{ "1", 0, 1 },
	{ "0K", 0, 0 },
	{ "1K", 0, 1024 },
	{ "1k", 0, 1024 },
	{ "10M", 0, 10 << 20 },
	{ "3m", 0, 3 << 20 },
	{ "1G", 0, 1 << 30 },
	{ "1g", 0, 1 << 30 },
	{ "2T", 0, 2LL << 40 },
	{ "007", 0, 7 },
	{ "9223372036854775807", 0, INT64_MAX },
	{ "8388607T", 0, 8388607LL << 40 },
	{ "9223372036854775808", -ERANGE, 0 },
	{ "8388608T", -ERANGE, 0 },
	{ "16777216T", -ERANGE, 0 },
	{ "9007199254740992K", -ERANGE, 0 },
	{ "18446744073709551615", -ERANGE, 0 },
	{ "18446744073709551616", -ERANGE, 0 },
	{ "99999999999999999999999", -ERANGE, 0 },
	{ "", -EINVAL, 0 },
	{ "K", -EINVAL, 0 },
	{ "-1", -EINVAL, 0 },
	{ "+1", -EINVAL, 0 },
	{ " 1", -EINVAL, 0 },
	{ "1 ", -EINVAL, 0 },
	{ "1 K", -EINVAL, 0 },
	{ "1KB", -EINVAL, 0 },
	{ "1KiB", -EINVAL, 0 },
	{ "1KK", -EINVAL, 0 },
	{ "1B", -EINVAL, 0 },
	{ "1P", -EINVAL, 0 },
	{ "1.5G", -EINVAL, 0 },
	{ "1e3", -EINVAL, 0 },
	{ "0x10", -EINVAL, 0 },
	{ "many", -EINVAL, 0 },
};

static void test_sizes(void **state)
{
	check_numbers(sizes, COUNT(sizes), parse_size_signed);
}

static int by_name(const char *name)
{
	return errno_by_name(name, strlen(name));
}

static void test_errno_names(void **state)
{
	assert_int_equal(by_name("ENOSPC"), ENOSPC);
	assert_int_equal(by_name("EPERM"), EPERM);
	assert_int_equal(by_name("EIO"), EIO);
	assert_int_equal(by_name("ETIMEDOUT"), ETIMEDOUT);
	assert_int_equal(by_name("EOWNERDEAD"), EOWNERDEAD);
	assert_int_equal(by_name("EHWPOISON"), EHWPOISON);
	assert_int_equal(by_name("ENOSP"), 0);
	assert_int_equal(by_name("ENOSPCX"), 0);
	assert_int_equal(by_name("enospc"), 0);
	assert_int_equal(by_name(" ENOSPC"), 0);
	assert_int_equal(by_name("EWHATEVER"), 0);
	assert_int_equal(by_name("28"), 0);
	assert_int_equal(by_name(""), 0);
	assert_int_equal(by_name("0"), 0);
	assert_int_equal(errno_by_name("ENOSPC: full", 6), ENOSPC); /* only len bytes count */
	assert_int_equal(errno_by_name("ENOSPC", 5), 0);
	assert_int_equal(errno_by_name("EIO\0", 4), 0);
}

static void test_errno_round_trip(void **state)
{
	unsigned known = 0;

	assert_null(errno_name(0));
	assert_null(errno_name(-EIO));
	assert_null(errno_name(99999));
	assert_null(errno_name(INT32_MAX));
	assert_null(errno_name(INT32_MIN));
	for (int e = 1; e < 4096; e++) {
		const char *name = errno_name(e);

		if (name == NULL)
			continue;
		known++;
		assert_int_equal(by_name(name), e);
	}
	assert_true(known >= 120);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_durations),       cmocka_unit_test(test_durations_written),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_time_prefixes),   cmocka_unit_test(test_format),
		cmocka_unit_test(test_time_round_trip), cmocka_unit_test(test_every_day),
		cmocka_unit_test(test_sizes),           cmocka_unit_test(test_errno_names),
		cmocka_unit_test(test_errno_round_trip),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern such as "test_a*" */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

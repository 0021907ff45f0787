#include "core/parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct {
	const char *unit;
	int64_t ns;
} units[] = {
	{ "ns", 1 },
	{ "us", 1000 },
	{ "ms", NS_PER_MS },
	{ "s", NS_PER_SEC },
	{ "m", 60 * NS_PER_SEC },
	{ "h", 3600 * NS_PER_SEC },
	{ "d", 86400 * NS_PER_SEC },
};

static int64_t unit_ns(const char *s)
{
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(units[i].unit, s) == 0)
			return units[i].ns;
	return 0;
}

/* The digits after the decimal point, in 1e-9 of the unit. */
static int parse_fraction(const char **s, int64_t *nano)
{
	int64_t place = 100000000;

	*nano = 0;
	if (!isdigit((unsigned char)**s))
		return -EINVAL;
	for (; isdigit((unsigned char)**s); (*s)++, place /= 10)
		*nano += (**s - '0') * place;
	return 0;
}

int parse_duration(const char *s, int64_t *ns)
{
	int64_t whole = 0, nano = 0, unit;
	__int128 total;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	if (strcmp(s, "0") == 0) {
		*ns = 0;
		return 0;
	}
	for (; isdigit((unsigned char)*s); s++) {
		if (whole > INT64_MAX / 20)
			return -ERANGE;
		whole = whole * 10 + (*s - '0');
	}
	if (*s == '.') {
		s++;
		if (parse_fraction(&s, &nano) < 0)
			return -EINVAL;
	}
	unit = unit_ns(s);
	if (unit == 0)
		return -EINVAL;
	total = (__int128)whole * unit + (__int128)nano * unit / NS_PER_SEC;
	if (total > INT64_MAX / 2)
		return -ERANGE;
	*ns = (int64_t)total;
	return 0;
}

void format_duration(int64_t ns, char buf[static 32])
{
	size_t i = sizeof(units) / sizeof(units[0]) - 1;

	while (ns % units[i].ns != 0)
		i--;
	snprintf(buf, 32, ns == 0 ? "0" : "%lld%s", (long long)(ns / units[i].ns), units[i].unit);
}

/* Exactly n digits as a number, -1 when they are not digits. */
static int digits(const char **s, int n)
{
	int v = 0;

	while (n-- > 0) {
		if (!isdigit((unsigned char)**s))
			return -1;
		v = v * 10 + *(*s)++ - '0';
	}
	return v;
}

static int expect(const char **s, const char *set)
{
	if (**s == '\0' || strchr(set, **s) == NULL)
		return -EINVAL;
	(*s)++;
	return 0;
}

static int parse_zone(const char **s, int64_t *offset_s)
{
	int sign, h, m;

	*offset_s = 0;
	if (**s == 'Z' || **s == 'z') {
		(*s)++;
		return 0;
	}
	sign = **s == '+' ? 1 : -1;
	if (expect(s, "+-") < 0)
		return -EINVAL;
	h = digits(s, 2);
	if (h < 0 || h > 23 || expect(s, ":") < 0)
		return -EINVAL;
	m = digits(s, 2);
	if (m < 0 || m > 59)
		return -EINVAL;
	*offset_s = sign * (h * 3600 + m * 60);
	return 0;
}

static int days_in_month(int year, int month)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap);
}

static int parse_calendar(const char **s, struct tm *tm)
{
	int year = digits(s, 4), month, day;

	if (year < 1970 || year > 2261 || expect(s, "-") < 0)
		return -EINVAL;
	month = digits(s, 2);
	if (month < 1 || month > 12 || expect(s, "-") < 0)
		return -EINVAL;
	day = digits(s, 2);
	if (day < 1 || day > days_in_month(year, month))
		return -EINVAL;
	*tm = (struct tm){ .tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day };
	return 0;
}

static int parse_clock(const char **s, struct tm *tm)
{
	tm->tm_hour = digits(s, 2);
	if (tm->tm_hour < 0 || tm->tm_hour > 23 || expect(s, ":") < 0)
		return -EINVAL;
	tm->tm_min = digits(s, 2);
	if (tm->tm_min < 0 || tm->tm_min > 59 || expect(s, ":") < 0)
		return -EINVAL;
	tm->tm_sec = digits(s, 2);
	if (tm->tm_sec < 0 || tm->tm_sec > 60)
		return -EINVAL;
	return 0;
}

int parse_time(const char *s, int64_t *wall_ns)
{
	struct tm tm;
	int64_t nano = 0, offset;
	int64_t seconds;

	if (parse_calendar(&s, &tm) < 0 || expect(&s, "Tt ") < 0 || parse_clock(&s, &tm) < 0)
		return -EINVAL;
	if (*s == '.') {
		s++;
		if (parse_fraction(&s, &nano) < 0)
			return -EINVAL;
	}
	if (parse_zone(&s, &offset) < 0 || *s != '\0')
		return -EINVAL;
	seconds = (int64_t)timegm(&tm) - offset;
	if (seconds < 0)
		return -EINVAL;
	*wall_ns = seconds * NS_PER_SEC + nano;
	return 0;
}

int parse_size(const char *s, uint64_t *bytes)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	uint64_t v = 0;
	int shift = 0;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	for (; isdigit((unsigned char)*s); s++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return -ERANGE;
	if (*s != '\0') {
		suffix = strchr(suffixes, toupper((unsigned char)*s));
		if (suffix == NULL || s[1] != '\0')
			return -EINVAL;
		shift = 10 * (int)(suffix - suffixes + 1);
	}
	if (v > (UINT64_MAX >> 1) >> shift)
		return -ERANGE;
	*bytes = v << shift;
	return 0;
}

void format_time(int64_t wall_ns, char buf[static 40])
{
	time_t seconds = wall_ns / NS_PER_SEC;
	struct tm tm;
	size_t n;

	gmtime_r(&seconds, &tm);
	n = strftime(buf, 40, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + n, 40 - n, ".%09dZ", (int)(wall_ns % NS_PER_SEC));
}

/* glibc knows the names (strerrorname_np, 2.32 and newer), so there is no table of our own. */
const char *errno_name(int e)
{
	return e > 0 ? strerrorname_np(e) : NULL;
}

static const struct {
	const char *name;
	int value;
} errno_aliases[] = {
	{ "EWOULDBLOCK", EWOULDBLOCK },
	{ "ENOTSUP", ENOTSUP },
	{ "EDEADLOCK", EDEADLOCK },
};

int errno_by_name(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof(errno_aliases) / sizeof(errno_aliases[0]); i++)
		if (strlen(errno_aliases[i].name) == len && memcmp(errno_aliases[i].name, name, len) == 0)
			return errno_aliases[i].value;
	for (int e = 1; e < 134; e++) {
		const char *known = errno_name(e);

		if (known != NULL && strlen(known) == len && memcmp(known, name, len) == 0)
			return e;
	}
	return 0;
}

/* Durations, times, sizes and errno names as users write them. Pure functions, shared by the daemon and the command. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define NS_PER_SEC 1000000000LL
#define NS_PER_MS 1000000LL

/* Parse `500ms`, `1.5s`, `2h`, `0`: a decimal number with a unit of ns, us, ms, s, m, h or d (a bare `0` needs none).
 * Stores nanoseconds, 0 to INT64_MAX/2. Returns 0, -EINVAL when malformed or negative, -ERANGE when too long. */
int parse_duration(const char *s, int64_t *ns);

/* Write a duration so that parse_duration reads the same: a whole number of the largest unit that allows it. */
void format_duration(int64_t ns, char buf[static 32]);

/* Parse an RFC 3339 time such as `2026-01-02T03:04:05.25Z` or `...+01:00`. Stores nanoseconds since the epoch
 * (years 1970 to 2261). Returns 0 or -EINVAL. */
int parse_time(const char *s, int64_t *wall_ns);

/* Parse a size: a whole number with an optional K, M, G or T (powers of 1024). Returns 0, -EINVAL or -ERANGE. */
int parse_size(const char *s, uint64_t *bytes);

/* Write wall_ns (nanoseconds since the epoch) as RFC 3339 in UTC with nine decimals. */
void format_time(int64_t wall_ns, char buf[static 40]);

/* The errno whose name (`ENOSPC`) is the len bytes at name; 0 when there is none of that name. */
int errno_by_name(const char *name, size_t len);

/* The name of errno e (positive), NULL when unknown. */
const char *errno_name(int e);

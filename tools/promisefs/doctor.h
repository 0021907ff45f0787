/* The checks of doctor: each fills one line. */
#pragma once

#include <stdbool.h>

enum health {
	HEALTH_OK,
	HEALTH_WARN, /* works, but less than it could */
	HEALTH_FAIL, /* promisefs cannot work like this */
};

struct check {
	enum health health;
	char detail[512]; /* what was found */
	const char *advice; /* what to change, NULL: nothing */
};

/* Fill in one check: health, advice and what was found. */
void check_set(struct check *c, enum health health, const char *advice, const char *detail, ...)
	__attribute__((format(printf, 4, 5)));

/* Whether kernel, privileges and configuration allow passthrough; tries it with a throw-away mount. */
void check_passthrough(struct check *c);

/* The kernel's version as major * 1000 + minor. */
int kernel_version(void);

/* Whether this process may mount by itself (CAP_SYS_ADMIN). */
bool may_mount(void);

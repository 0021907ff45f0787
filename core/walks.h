/* Callbacks for the walks of the catalog: take the first row, or gather some. */
#pragma once

#include "meta/meta.h"

struct names {
	struct meta_dentry d[16];
	unsigned n;
};

static inline int take_name(void *arg, const struct meta_dentry *d)
{
	*(struct meta_dentry *)arg = *d;
	return 1;
}

static inline int gather_name(void *arg, const struct meta_dentry *d)
{
	struct names *names = (struct names *)arg;

	names->d[names->n++] = *d;
	return names->n == sizeof(names->d) / sizeof(names->d[0]);
}

static inline int take_borrow(void *arg, const struct meta_borrow *b)
{
	*(struct meta_borrow *)arg = *b;
	return 1;
}

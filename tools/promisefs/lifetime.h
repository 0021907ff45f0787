/* Lifetimes and leases, for the verbs of both. */
#pragma once

#include "key.h"

#include <stdbool.h>

/* The lifetime of that name, whether there is one or not, as a key: in the mount of -m, or of the current directory.
 * Returns 0, or an exit status after saying what is wrong. */
int lifetime_find(const struct args *a, const char *name, struct key *k);

/* Whether a key is a lifetime. */
bool lifetime_is(const struct key *k);

/* Say what failed with a lifetime, for an errno (positive). Returns EXIT_FAILED. */
int lifetime_report(const struct key *k, int error);

/* Returns 0 when `value` is a lease, else EXIT_USAGE after saying that it is none for `word`. */
int lease_check(const char *word, const char *value);

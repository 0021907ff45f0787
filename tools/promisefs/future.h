/* Futures, for the verbs that make them. */
#pragma once

#include "key.h"

/* Declare the key; remove it while it is pending. Return 0 or a negative errno. */
int future_declare(const struct key *k);
int future_cancel(const struct key *k);

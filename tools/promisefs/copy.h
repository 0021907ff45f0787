/* Copying from one descriptor to another until the end, as fast as the kernel allows for the two. */
#pragma once

#include <stdbool.h>

/* Returns 0 or a negative errno; *reading then says which side failed. */
int copy_all(int in, int out, bool *reading);

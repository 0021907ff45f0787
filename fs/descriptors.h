/* Descriptors of the daemon. The highest numbers are kept for what it does by itself (reading /proc, copying, syncing): what
 * lives as long as a user wants gets none of them, so users who have taken all others can be told so, and served on. */
#pragma once

#include <stdint.h>

void descriptors_start(void); /* as many as can be had; before there are threads */
uint64_t descriptors_for_users(void);
int descriptor_for_user(int fd); /* fd; or -1 and EMFILE, when it is one of the highest: it is closed then */

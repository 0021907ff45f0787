/* A limit on system calls that wait: when it has passed, a signal ends them with EINTR. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Begin to count; ns < 0: no limit. */
void limit_start(int64_t ns);

void limit_stop(void);

/* Whether the limit has passed. */
bool limit_passed(void);

/* It has, whatever the clock says: what there was no time to wait for is not there. */
void limit_pass(void);

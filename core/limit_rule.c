#include "core/limit_rule.h"

#include <errno.h>

/* EMFILE for what ends with a descriptor or a process, as for descriptors themselves; EAGAIN for waiting, which ends by
 * itself; EDQUOT for what is recorded, and stays until somebody removes it. */
const struct limit limits[LIMITED_COUNT] = {
	[LIMITED_OPEN]      = { "max-open",      0,     EMFILE },
	[LIMITED_WRITING]   = { "max-writing",   4096,  EMFILE },
	[LIMITED_WAITING]   = { "max-waiting",   4096,  EAGAIN },
	[LIMITED_LISTENING] = { "max-listening", 64,    EMFILE },
	[LIMITED_TIMEOUTS]  = { "max-timeouts",  1024,  EMFILE },
	[LIMITED_HANDLES]   = { "max-handles",   16384, EDQUOT },
	[LIMITED_LIFETIMES] = { "max-lifetimes", 4096,  EDQUOT },
};

int limit_rule(enum limited what, uint64_t max, uint64_t have)
{
	return max == 0 || have < max ? 0 : -limits[what].error;
}

/* What one user may have at a time, so that none can use up what all share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum limited {
	LIMITED_OPEN,      /* open files, each of which may take a descriptor of the daemon */
	LIMITED_WRITING,   /* of these, those that are open for writing: drafts */
	LIMITED_WAITING,   /* opens that wait, and descriptors with O_NONBLOCK that wait for their future */
	LIMITED_LISTENING, /* open control files whose text the daemon keeps: events, waits, metrics */
	LIMITED_TIMEOUTS,  /* processes that have a limit of their own to waiting */
	LIMITED_HANDLES,   /* names in own/, ref/ and mut/ */
	LIMITED_LIFETIMES, /* names in lifetimes/ */
	LIMITED_COUNT
};

struct limit {
	const char *option; /* of a mount */
	uint64_t usual;     /* 0: for the host to say */
	int error;          /* what who would have more gets */
};
extern const struct limit limits[LIMITED_COUNT];

/* 0, or the negative errno for somebody who has `have` of them already. max 0: there is no limit. */
int limit_rule(enum limited what, uint64_t max, uint64_t have);

/* What the daemon may do: as little as it needs. */
#pragma once

#include <stdbool.h>

enum seccomp { SECCOMP_AUTO, SECCOMP_ON, SECCOMP_OFF };

struct privileges {
	bool passthrough;   /* it may register backing files with the kernel */
	bool foreign_store; /* what is in the store belongs to another user than the daemon's */
	enum seccomp seccomp;
};

/* Gives up, for this thread and those that it starts, and for good, what serving a mount does not take: capabilities,
 * programs that have more rights, system calls. Call it before there are threads. -EOPNOTSUPP: with SECCOMP_ON, where
 * this build or this kernel has no filters. */
int privileges_drop(const struct privileges *p);
void privileges_of_supervisor(void); /* those of fs/supervisor.c */
void privileges_of_keeper(void); /* those of fs/keeper.c once it has mounted */

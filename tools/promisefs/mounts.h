/* The mounts of this machine, from /proc/self/mountinfo: never asks a daemon, so a mount that hangs does no harm. */
#pragma once

#include <stdbool.h>

struct mount_row {
	char *point;  /* where */
	char *type;   /* such as fuse.promisefs */
	char *source; /* the store, when it is a mount of promisefs */
};

/* Call fn for every mount of this process's namespace until it returns non-zero, which is returned; else 0. */
int mounts_walk(int (*fn)(void *arg, const struct mount_row *m), void *arg);

/* The topmost mount at exactly that path. Returns whether there is one; the row is released with mount_finish. */
bool mount_at(const char *point, struct mount_row *m);
void mount_finish(struct mount_row *m);

bool mount_is_promisefs(const struct mount_row *m);

/* `promisefs mount`: from the arguments to a daemon that serves a mount. */
#pragma once

#include <stdbool.h>

struct pfs_mount_args {
	const char *store;      /* a directory; made when missing */
	const char *mountpoint; /* an existing directory */
	const char *options;    /* comma separated, may be NULL */
	bool foreground;
};

/* Mounts and, unless in the foreground, returns when the mount answers. Returns the exit status: 0 done, 1 failed,
 * 2 usage; has said on stderr, in one line, what was wrong and what to do. */
struct store_options;
/* What mount options (NULL: none) say of the rules. Negative after saying what is wrong. */
int pfs_core_options(const char *words, struct store_options *options);

int pfs_mount_main(const struct pfs_mount_args *args);

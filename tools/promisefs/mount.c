/* mount: the daemon is in fs/; this only hands it the words. */
#include "fs/mount.h"

#include "args.h"
#include "verbs.h"

int verb_mount(const struct args *a)
{
	struct pfs_mount_args m = {
		.store = a->words[0],
		.mountpoint = a->words[1],
		.options = a->mount_options,
		.foreground = args_has(a, OPT_FOREGROUND),
	};

	return pfs_mount_main(&m);
}

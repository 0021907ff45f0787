/* Telling the kernel that a name does not mean what it has cached. */
#include "fs/fs.h"

#include <stdlib.h>
#include <string.h>

struct invalidation {
	struct work work;
	struct fs *fs;
	uint64_t parent;
	char name[];
};

static void invalidate_now(struct work *w)
{
	struct invalidation *i = (struct invalidation *)w;

	fuse_lowlevel_notify_inval_entry(i->fs->se, i->parent, i->name, strlen(i->name));
	free(i);
}

/* Never from a thread that serves requests: the kernel may hold a lock that a request of ours has to end first. */
void fs_invalidate(struct fs *fs, uint64_t parent, const char *name)
{
	struct invalidation *i;

	if (!atomic_load(&fs->serving))
		return; /* the kernel knows no name yet */
	i = calloc(1, sizeof(*i) + strlen(name) + 1);
	if (i == NULL)
		return; /* the name is cached a while longer; opening it finds out */
	i->work.run = invalidate_now;
	i->fs = fs;
	i->parent = parent;
	strcpy(i->name, name);
	workers_queue(fs->invalidator, &i->work);
}

/* Without an offset the kernel looks at no pages, and takes no lock that somebody could hold who waits for us. */
void fs_forget_attributes(struct fs *fs, uint64_t node)
{
	fuse_lowlevel_notify_inval_inode(fs->se, node_in(VIEW_KEYS, node), -1, 0);
}

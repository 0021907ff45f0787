/* Telling the kernel that a name does not mean what it has cached, or a node does not look so.
 *
 * A name is invalidated under the kernel's lock of its directory, which whoever looks it up has, too: when that is done,
 * everybody has got his answer, and made a node of it. So what is to be forgotten of a node for good is told after its
 * names: by then nobody is on his way with an answer from before, to make the node that was not there yet. Where the
 * kernel has the node, because somebody is opening it, such an answer is recognised, and names need not be dropped. */
#include "core/give_way.h"
#include "fs/fs.h"

#include <stdlib.h>
#include <string.h>

struct invalidation {
	struct work work;
	struct fs *fs;
	uint64_t node; /* the directory, or what to forget the attributes of */
	char name[];
};

static void invalidate_now(struct work *w)
{
	struct invalidation *i = (struct invalidation *)w;

	fuse_lowlevel_notify_inval_entry(i->fs->se, i->node, i->name, strlen(i->name));
	free(i);
	give_way();
}

static void forget_now(struct work *w)
{
	struct invalidation *i = (struct invalidation *)w;

	fs_forget_attributes(i->fs, i->node);
	free(i);
}

/* Never from a thread that serves requests: the kernel may hold a lock that a request of ours has to end first. */
static void tell(struct fs *fs, void (*run)(struct work *w), uint64_t node, const char *name)
{
	struct invalidation *i;

	if (!atomic_load(&fs->serving))
		return; /* the kernel knows nothing yet */
	i = calloc(1, sizeof(*i) + strlen(name) + 1);
	if (i == NULL)
		return; /* it is cached a while longer; opening it finds out */
	i->work.run = run;
	i->fs = fs;
	i->node = node;
	strcpy(i->name, name);
	workers_queue(fs->invalidator, &i->work);
}

void fs_invalidate(struct fs *fs, uint64_t parent, const char *name)
{
	tell(fs, invalidate_now, parent, name);
}

void fs_forget_later(struct fs *fs, uint64_t node)
{
	tell(fs, forget_now, node, "");
}

void fs_after_names(struct fs *fs, struct work *w)
{
	if (atomic_load(&fs->serving))
		workers_queue(fs->invalidator, w);
	else
		w->run(w);
}

struct telling {
	struct work work;
	struct told *told;
};

static void all_told(struct work *w)
{
	struct telling *tl = (struct telling *)w;
	struct told *t = tl->told;

	free(tl);
	t->done(t);
}

void fs_told(struct fs *fs, struct told *t)
{
	struct telling *tl = malloc(sizeof(*tl));

	if (tl == NULL) {
		t->done(t);
		return;
	}
	*tl = (struct telling){ .work.run = all_told, .told = t };
	fs_after_names(fs, &tl->work);
}

/* Without an offset the kernel looks at no pages, and takes no lock that somebody could hold who waits for us. */
void fs_forget_attributes(struct fs *fs, uint64_t node)
{
	fuse_lowlevel_notify_inval_inode(fs->se, node_in(VIEW_KEYS, node), -1, 0);
}

/* Telling the kernel that a name does not mean what it has cached, or a node does not look so.
 *
 * A name is invalidated under the kernel's lock of its directory, which whoever looks it up has, too: when that is done,
 * everybody has got his answer, and made a node of it. So what is to be forgotten of a node for good is told after its
 * names: by then nobody is on his way with an answer from before, to make the node that was not there yet. Where the
 * kernel has the node, because somebody is opening it, such an answer is recognised, and names need not be dropped. */
#include "core/give_way.h"
#include "fs/fs.h"
#include "fs/shared.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOTIFY_INC_EPOCH 8 /* from linux/fuse.h 7.44; others refuse it */

struct invalidation {
	struct work work;
	struct fs *fs;
	struct kept_note *note; /* of the same, for the next worker; NULL: there was no room, or nobody is to come */
	uint64_t node; /* the directory, or what to forget the attributes of */
	char name[];
};

/* With a supervisor: whoever comes next tells what we have not told. */

static struct kept_note *note(struct shared *sh, bool queued, bool is_name, uint64_t node, const char *name)
{
	for (unsigned i = 0; i < NOTES_MAX; i++) {
		struct kept_note *n = &sh->notes[atomic_fetch_add(&sh->next_note, 1) % NOTES_MAX];
		int state = NOTE_FREE;

		if (!atomic_compare_exchange_strong(&n->state, &state, NOTE_BUSY))
			continue;
		n->queued_by = queued ? atomic_load(&sh->workers) : 0;
		n->is_name = is_name;
		n->node = node;
		strcpy(n->name, name);
		atomic_store(&n->state, NOTE_VALID);
		return n;
	}
	atomic_fetch_add(&sh->notes_lost, 1);
	return NULL;
}

static void done(struct invalidation *i)
{
	if (i->note != NULL)
		atomic_store(&i->note->state, NOTE_FREE);
	else if (i->fs->shared != NULL)
		atomic_fetch_sub(&i->fs->shared->notes_lost, 1);
	free(i);
}

static void invalidate_now(struct work *w)
{
	struct invalidation *i = (struct invalidation *)w;

	if (i->fs->shared != NULL)
		tell_name(i->fs, i->node, i->name);
	else
		fuse_lowlevel_notify_inval_entry(i->fs->se, i->node, i->name, strlen(i->name));
	done(i);
	give_way();
}

static void forget_now(struct work *w)
{
	struct invalidation *i = (struct invalidation *)w;

	fs_forget_attributes(i->fs, i->node);
	done(i);
}

/* Never from a thread that serves requests: the kernel may hold a lock that a request of ours has to end first. */
static void tell(struct fs *fs, void (*run)(struct work *w), uint64_t node, const char *name)
{
	struct invalidation *i;

	if (!atomic_load(&fs->serving)) { /* the kernel knows nothing yet, or is told by invalidate_resume */
		if (connection_is_taken_over(fs))
			note(fs->shared, false, run == invalidate_now, node, name);
		return;
	}
	i = calloc(1, sizeof(*i) + strlen(name) + 1);
	if (i == NULL)
		return; /* it is cached a while longer; opening it finds out */
	i->work.run = run;
	i->fs = fs;
	i->node = node;
	strcpy(i->name, name);
	if (fs->shared != NULL)
		i->note = note(fs->shared, true, run == invalidate_now, node, name);
	workers_queue(fs->invalidator, &i->work);
}

/* All names that the kernel has are looked up again. */
static void forget_everything(struct fs *fs)
{
	struct { uint32_t len; int32_t error; uint64_t unique; } notice = { .len = sizeof(notice), .error = NOTIFY_INC_EPOCH };

	if (write(fuse_session_fd(fs->se), &notice, sizeof(notice)) < 0)
		fprintf(stderr, "promisefs: some names may be out of date for an hour: this kernel cannot be told of all at once\n");
}

static int resume_one(struct fs *fs, struct kept_note *n)
{
	struct invalidation *i = calloc(1, sizeof(*i) + strlen(n->name) + 1);

	if (i == NULL)
		return -ENOMEM;
	i->work.run = n->is_name ? invalidate_now : forget_now;
	i->fs = fs;
	i->node = n->node;
	i->note = n;
	n->queued_by = atomic_load(&fs->shared->workers);
	strcpy(i->name, n->name);
	workers_queue(fs->invalidator, &i->work);
	return 0;
}

int invalidate_resume(struct fs *fs)
{
	struct shared *sh = fs->shared;
	int r = 0;

	if (atomic_exchange(&sh->notes_lost, 0) > 0)
		forget_everything(fs);
	for (unsigned i = 0; r == 0 && i < NOTES_MAX; i++) {
		struct kept_note *n = &sh->notes[i];

		if (n->queued_by == atomic_load(&sh->workers))
			continue;
		if (atomic_load(&n->state) == NOTE_VALID)
			r = resume_one(fs, n);
		else
			atomic_store(&n->state, NOTE_FREE);
	}
	return r;
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

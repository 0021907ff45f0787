/* Requests that wait and can be interrupted: kept in a registry by a number of their own, since libfuse may call the
 * interrupt handler when the request has just been answered by somebody else. Without this their processes could not even
 * be killed. */
#include "fs/fs.h"

static void interrupted(fuse_req_t req, void *data)
{
	struct fs *fs = fs_of(req);
	uint64_t id = (uint64_t)(uintptr_t)data;
	struct interruptible *i;
	bool ours = false;

	pthread_mutex_lock(&fs->waiting_lock);
	HASH_FIND(hh, fs->waiting, &id, sizeof(id), i);
	if (i != NULL && i->arming)
		i->interrupted = true;
	else if (i != NULL)
		ours = store_cancel_wait(fs->store, i->waiter);
	pthread_mutex_unlock(&fs->waiting_lock);
	if (ours)
		i->give_up(i);
}

bool interrupt_arm(struct fs *fs, fuse_req_t req, struct interruptible *i)
{
	bool stop;

	i->arming = true;
	pthread_mutex_lock(&fs->waiting_lock);
	i->id = ++fs->next_waiting;
	HASH_ADD(hh, fs->waiting, id, sizeof(i->id), i);
	pthread_mutex_unlock(&fs->waiting_lock);
	fuse_req_interrupt_func(req, interrupted, (void *)(uintptr_t)i->id);
	pthread_mutex_lock(&fs->waiting_lock);
	i->arming = false;
	stop = i->interrupted;
	pthread_mutex_unlock(&fs->waiting_lock);
	return !stop;
}

void interrupt_disarm(struct fs *fs, struct interruptible *i)
{
	if (i->id == 0)
		return;
	pthread_mutex_lock(&fs->waiting_lock);
	HASH_DELETE(hh, fs->waiting, i);
	pthread_mutex_unlock(&fs->waiting_lock);
	i->id = 0;
}

/* Detours: open files whose node stands for other bytes than they have, such as the draft that a writer got who came
 * through /proc/PID/fd. Their data go through us. The size that the kernel keeps is that of the node, so all that goes
 * by it is put right here: attributes that are asked for such a file, or by a process that has one of the node, are
 * those of what it writes, and are not kept; and its appends are appended. */
#include "fs/fs.h"
#include "fs/process.h"
#include "fs/shared.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utlist.h>

struct detour {
	const struct file *file;
	uint64_t vid; /* what it has */
	int32_t pid;  /* of the process that opened it */
	struct detour *prev, *next;
};

static void add(struct file *f, int32_t pid)
{
	struct detour *d = calloc(1, sizeof(*d));
	struct fs *fs = f->fs;

	if (d == NULL)
		return;
	d->file = f;
	d->vid = handle_vid(f->h);
	d->pid = pid;
	pthread_mutex_lock(&fs->detours_lock);
	DL_APPEND(fs->detours, d);
	pthread_mutex_unlock(&fs->detours_lock);
	atomic_fetch_add(&fs->detour_count, 1);
}

void detour_begin(struct file *f, int32_t tid)
{
	int32_t pid, parent;

	if (process_family(tid, &pid, &parent) < 0)
		pid = 0;
	if (f->slot != NULL) {
		f->slot->pid = pid;
		f->slot->detour = true;
	}
	add(f, pid);
}

void detour_adopt(struct file *f, int32_t pid)
{
	add(f, pid);
}

void detour_end(struct file *f)
{
	struct fs *fs = f->fs;
	struct detour *d, *found = NULL;

	if (atomic_load(&fs->detour_count) == 0)
		return;
	pthread_mutex_lock(&fs->detours_lock);
	DL_FOREACH(fs->detours, d)
		if (d->file == f)
			found = d;
	if (found != NULL)
		DL_DELETE(fs->detours, found);
	pthread_mutex_unlock(&fs->detours_lock);
	if (found != NULL)
		atomic_fetch_sub(&fs->detour_count, 1);
	free(found);
}

/* f NULL: any of process pid; pid 0 as well: any at all. detours_lock held. */
static struct detour *find(struct fs *fs, fuse_ino_t ino, const struct file *f, int32_t pid)
{
	struct detour *d;

	DL_FOREACH(fs->detours, d)
		if (f != NULL ? d->file == f : d->file->ino == ino && (pid == 0 || d->pid == pid))
			return d;
	return NULL;
}

bool detour_at(struct fs *fs, fuse_ino_t ino)
{
	bool any = false;

	if (atomic_load(&fs->detour_count) > 0) {
		pthread_mutex_lock(&fs->detours_lock);
		any = find(fs, ino, NULL, 0) != NULL;
		pthread_mutex_unlock(&fs->detours_lock);
	}
	return any;
}

uint64_t detour_shows(struct fs *fs, fuse_ino_t ino, const struct file *f, int32_t tid)
{
	uint64_t shows = node_id(ino);
	struct detour *d;
	int32_t pid, parent;

	if (!detour_at(fs, ino))
		return shows;
	if (process_family(tid, &pid, &parent) < 0)
		pid = -1;
	pthread_mutex_lock(&fs->detours_lock);
	d = f != NULL ? find(fs, ino, f, 0) : find(fs, ino, NULL, pid);
	if (d != NULL)
		shows = d->vid;
	pthread_mutex_unlock(&fs->detours_lock);
	return shows;
}

ssize_t detour_append(int fd, struct fuse_bufvec *in)
{
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(fuse_buf_size(in));
	struct iovec iov = { .iov_base = malloc(fuse_buf_size(in)), .iov_len = fuse_buf_size(in) };
	ssize_t n;

	if (iov.iov_base == NULL)
		return -ENOMEM;
	out.buf[0].mem = iov.iov_base;
	n = fuse_buf_copy(&out, in, 0);
	if (n > 0) {
		iov.iov_len = (size_t)n;
		n = pwritev2(fd, &iov, 1, 0, RWF_APPEND);
		n = n < 0 ? -errno : n;
	}
	free(iov.iov_base);
	return n;
}

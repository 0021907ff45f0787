#include "fs/blob_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define COPY_CHUNK (1 << 20)
#define COMPARE_MAX (16 << 20) /* some milliseconds */

struct blob_dir {
	struct blobs b;
	int store, data, drafts;
};

static struct blob_dir *dir_of(struct blobs *b)
{
	return (struct blob_dir *)b;
}

static void draft_name(uint64_t vid, char name[static 24])
{
	snprintf(name, 24, "%016llx", (unsigned long long)vid);
}

static void data_name(uint64_t vid, char name[static 24])
{
	snprintf(name, 24, "%02x/%016llx", (unsigned)(vid & 0xff), (unsigned long long)vid);
}

static int create(struct blobs *b, uint64_t vid)
{
	char name[24];
	int fd;

	draft_name(vid, name);
	fd = openat(dir_of(b)->drafts, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : fd;
}

/* Calls fn on the published file, then on the draft, then on the published one again: it may have been published in
 * between. */
static int either(struct blobs *b, uint64_t vid, int (*fn)(int dir, const char *name, void *arg), void *arg)
{
	char published[24], draft[24];
	int r;

	data_name(vid, published);
	draft_name(vid, draft);
	r = fn(dir_of(b)->data, published, arg);
	if (r == -ENOENT)
		r = fn(dir_of(b)->drafts, draft, arg);
	return r == -ENOENT ? fn(dir_of(b)->data, published, arg) : r;
}

static int open_one(int dir, const char *name, void *arg)
{
	int fd = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

static int open_file(struct blobs *b, uint64_t vid)
{
	return either(b, vid, open_one, NULL);
}

static int stat_one(int dir, const char *name, void *arg)
{
	return fstatat(dir, name, arg, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int stat_file(struct blobs *b, uint64_t vid, struct stat *st)
{
	return either(b, vid, stat_one, st);
}

static int remove_one(int dir, const char *name, void *arg)
{
	return unlinkat(dir, name, 0) < 0 ? -errno : 0;
}

static int remove_file(struct blobs *b, uint64_t vid)
{
	int r = either(b, vid, remove_one, NULL);

	return r == -ENOENT ? 0 : r;
}

static int publish(struct blobs *b, uint64_t vid, uint64_t as)
{
	char from[24], to[24], shard[4];

	draft_name(vid, from);
	data_name(as, to);
	if (renameat(dir_of(b)->drafts, from, dir_of(b)->data, to) == 0)
		return 0;
	if (errno != ENOENT)
		return -errno;
	snprintf(shard, sizeof(shard), "%02x", (unsigned)(as & 0xff));
	if (mkdirat(dir_of(b)->data, shard, 0700) < 0)
		return errno == EEXIST ? 0 : -errno; /* the file is there already, or nowhere */
	return renameat(dir_of(b)->drafts, from, dir_of(b)->data, to) < 0 && errno != ENOENT ? -errno : 0;
}

/* A lease to write is refused while anybody else has the file open, as by a mapping that outlived its descriptor. */
static bool is_used(int fd)
{
	bool used = fcntl(fd, F_SETLEASE, F_WRLCK) < 0 && errno == EAGAIN;

	if (!used)
		fcntl(fd, F_SETLEASE, F_UNLCK);
	return used;
}

static int share(struct blobs *b, uint64_t vid, uint64_t draft)
{
	int fd = open_file(b, vid), r = fd < 0 ? fd : 0;
	char from[24], to[24];

	data_name(vid, from);
	draft_name(draft, to);
	if (r == 0 && is_used(fd))
		r = -EBUSY;
	if (r == 0 && linkat(dir_of(b)->data, from, dir_of(b)->drafts, to, 0) < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	return r;
}

static int copy_by_hand(int from, int to)
{
	char *buf = malloc(COPY_CHUNK);
	ssize_t n = -1, done;

	if (buf == NULL)
		return -ENOMEM;
	while ((n = read(from, buf, COPY_CHUNK)) > 0)
		for (ssize_t at = 0; at < n; at += done)
			if ((done = write(to, buf + at, (size_t)(n - at))) < 0) {
				int e = errno;

				free(buf);
				return -e;
			}
	free(buf);
	return n < 0 ? -errno : 0;
}

/* Keeps holes where the file system does; the caller's descriptor ends up wherever. */
static int copy(struct blobs *b, int from, int to)
{
	struct stat st;
	off_t at_from = 0, at_to = 0;
	ssize_t n;

	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	if (fstat(from, &st) < 0)
		return -errno;
	while (at_from < st.st_size) {
		n = copy_file_range(from, &at_from, to, &at_to, (size_t)(st.st_size - at_from), 0);
		if (n < 0 && at_from == 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL))
			return copy_by_hand(from, to);
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
	}
	return 0;
}

static int copy_start(struct blobs *b, int from, int to, int64_t size)
{
	int r = copy(b, from, to);

	return r == 0 && ftruncate(to, size) < 0 ? -errno : r;
}

static int unshare(struct blobs *b, uint64_t vid, int64_t size)
{
	char name[24], temporary[32];
	int from = open_file(b, vid), to, r;

	if (from < 0)
		return from;
	data_name(vid, name);
	snprintf(temporary, sizeof(temporary), "%016llx.private", (unsigned long long)vid);
	to = openat(dir_of(b)->drafts, temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	r = to < 0 ? -errno : copy_start(b, from, to, size);
	if (r == 0 && renameat(dir_of(b)->drafts, temporary, dir_of(b)->data, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dir_of(b)->drafts, temporary, 0);
	if (to >= 0)
		close(to);
	close(from);
	return r;
}

static int sync_file(struct blobs *b, int fd)
{
	if (fsync(fd) < 0 || fsync(dir_of(b)->drafts) < 0)
		return -errno;
	return 0;
}

static int sync_all(struct blobs *b)
{
	return syncfs(dir_of(b)->store) < 0 ? -errno : 0;
}

static int list_drafts(struct blobs *b, int (*fn)(void *arg, uint64_t vid), void *arg)
{
	int fd = openat(dir_of(b)->drafts, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int r = 0;

	if (dir == NULL)
		return -errno;
	while (r == 0 && (e = readdir(dir)) != NULL) {
		char *end;
		uint64_t vid = strtoull(e->d_name, &end, 16);

		if (e->d_name[0] != '.' && *end == '\0' && strlen(e->d_name) == 16)
			r = fn(arg, vid);
	}
	closedir(dir);
	return r;
}

static bool become(const char *itself, int fd, int flags)
{
	int other = open(itself, flags | O_CLOEXEC);
	bool good = other >= 0 && dup3(other, fd, O_CLOEXEC) >= 0;

	if (other >= 0)
		close(other);
	return good;
}

/* A lease to read is refused while the file is open for writing anywhere. Our own descriptor must not be in the way. */
static bool is_written(struct blobs *b, int fd)
{
	char itself[40];
	bool written;

	snprintf(itself, sizeof(itself), "/proc/self/fd/%d", fd);
	if (!become(itself, fd, O_RDONLY))
		return false;
	written = fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN;
	if (!written)
		fcntl(fd, F_SETLEASE, F_UNLCK);
	become(itself, fd, O_RDWR);
	return written;
}

static bool same_bytes(int a, int b)
{
	char *x = malloc(COPY_CHUNK), *y = malloc(COPY_CHUNK);
	off_t at = 0;
	ssize_t n = -1;
	bool same = x != NULL && y != NULL;

	while (same && (n = pread(a, x, COPY_CHUNK, at)) > 0) {
		same = pread(b, y, (size_t)n, at) == n && memcmp(x, y, (size_t)n) == 0;
		at += n;
	}
	free(x);
	free(y);
	return same && n == 0;
}

/* In memory, a page that was read by a mapping is written by it without anybody noticing. */
static bool tells_stores(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC;
}

static bool differs(struct blobs *b, uint64_t vid, int fd)
{
	struct stat st;
	bool same;
	int other;

	if (tells_stores(fd))
		return false;
	other = fstat(fd, &st) < 0 || st.st_size > COMPARE_MAX ? -1 : open_file(b, vid);
	same = other >= 0 && same_bytes(other, fd);
	if (other >= 0)
		close(other);
	return !same;
}

static int64_t space(struct blobs *b)
{
	struct statvfs v;

	if (fstatvfs(dir_of(b)->store, &v) < 0 || v.f_blocks == 0)
		return INT64_MAX;
	return (int64_t)(geteuid() == 0 ? v.f_bfree : v.f_bavail) * (int64_t)v.f_frsize;
}

static const struct blob_ops blob_dir_ops = {
	.create = create,
	.open = open_file,
	.publish = publish,
	.share = share,
	.unshare = unshare,
	.remove = remove_file,
	.stat = stat_file,
	.copy = copy,
	.sync = sync_file,
	.is_written = is_written, .differs = differs,
	.sync_all = sync_all,
	.list_drafts = list_drafts,
	.space = space,
};

static int open_dir(int at, const char *name)
{
	int fd;

	if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int blob_dir_open(int store_fd, struct blobs **ret)
{
	struct blob_dir *d = calloc(1, sizeof(*d));
	int r;

	if (d == NULL)
		return -ENOMEM;
	signal(SIGIO, SIG_IGN); /* sent when somebody opens what we have a lease on, for a moment */
	d->b.ops = &blob_dir_ops;
	d->store = store_fd;
	d->data = open_dir(store_fd, "data");
	d->drafts = open_dir(store_fd, "drafts");
	r = d->data < 0 ? d->data : d->drafts < 0 ? d->drafts : 0;
	if (r < 0) {
		blob_dir_close(&d->b);
		return r;
	}
	*ret = &d->b;
	return 0;
}

void blob_dir_close(struct blobs *b)
{
	if (b == NULL)
		return;
	if (dir_of(b)->data >= 0)
		close(dir_of(b)->data);
	if (dir_of(b)->drafts >= 0)
		close(dir_of(b)->drafts);
	free(b);
}

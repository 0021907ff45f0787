#include "fs/blob_dir.h"

#include "fs/descriptors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define COPY_CHUNK (1 << 20)
#define COMPARE_MAX (16 << 20) /* some milliseconds */

struct blob_dir {
	struct blobs b;
	int store, data, drafts;
	int keep; /* where set_aside moves files to; not ours */
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
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
	char name[24];
	int fd;

	draft_name(vid, name);
	fd = descriptor_for_user(openat(dir_of(b)->drafts, name, flags, 0600));
	/* What an attempt that failed has left may be another name of a published version's file: it is not emptied. */
	if (fd < 0 && errno == EEXIST && unlinkat(dir_of(b)->drafts, name, 0) == 0)
		fd = descriptor_for_user(openat(dir_of(b)->drafts, name, flags, 0600));
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

static int open_for_user(struct blobs *b, uint64_t vid)
{
	int fd = open_file(b, vid);

	if (fd < 0)
		return fd;
	fd = descriptor_for_user(fd);
	return fd < 0 ? -errno : fd;
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
	if (mkdirat(dir_of(b)->data, shard, 0700) < 0 && errno != EEXIST)
		return -errno;
	if (renameat(dir_of(b)->drafts, from, dir_of(b)->data, to) == 0)
		return 0;
	/* It is there already, or nowhere; or it was published, and power loss has taken that back. */
	data_name(vid, from);
	return errno == ENOENT && renameat(dir_of(b)->data, from, dir_of(b)->data, to) < 0 && errno != ENOENT ? -errno : 0;
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

/* A backup has a lock on the directory while it needs what is in it. Whatever was removed from the catalog before it got
 * that lock, it does not need, so it is enough to look. */
static bool held(struct blobs *b)
{
	if (flock(dir_of(b)->data, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK;
	flock(dir_of(b)->data, LOCK_UN);
	return false;
}

int blob_dir_hold(int store_fd)
{
	int fd = openat(store_fd, "data", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), r;

	if (fd < 0 || flock(fd, LOCK_SH) == 0)
		return fd < 0 ? -errno : fd;
	r = -errno;
	close(fd);
	return r;
}

/* Calls fn for each file of one directory. shard: what its names end with, -1: any. */
struct listing {
	int (*fn)(void *arg, const struct blob_file *f);
	void *arg;
	const char *where; /* below the store */
	bool draft;
	int shard;
};

static uint64_t vid_of(const char *name, const struct listing *l)
{
	char *end;
	uint64_t vid = strtoull(name, &end, 16);

	if (strlen(name) != 16 || strspn(name, "0123456789abcdef") != 16)
		return 0;
	return l->shard < 0 || (vid & 0xff) == (unsigned)l->shard ? vid : 0;
}

static int list_one(int dir, const char *base, const struct listing *l)
{
	char name[300];
	struct stat st;
	struct blob_file f = { .vid = vid_of(base, l), .draft = l->draft, .name = name, .st = &st };

	snprintf(name, sizeof(name), "%s/%s", l->where, base);
	if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno; /* it went away meanwhile */
	if (!S_ISREG(st.st_mode))
		f.vid = 0;
	return l->fn(l->arg, &f);
}

/* For each entry but "." and "..", until fn returns something else than 0. */
static int walk_dir(int at, const char *name, int (*fn)(int dir, const char *base, const struct listing *l),
		    const struct listing *l)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (dir == NULL)
		return -errno;
	while (r == 0 && (e = readdir(dir)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = fn(fd, e->d_name, l);
	closedir(dir);
	return r;
}

/* An entry of data/: a directory of two digits, or nothing of ours. */
static int list_shard(int dir, const char *base, const struct listing *l)
{
	char where[16];
	struct listing files = *l;
	struct stat st;

	if (strlen(base) != 2 || strspn(base, "0123456789abcdef") != 2 ||
	    fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
		return list_one(dir, base, l);
	snprintf(where, sizeof(where), "data/%.2s", base);
	files.where = where;
	files.shard = (int)strtol(base, NULL, 16);
	return walk_dir(dir, base, list_one, &files);
}

static int list_files(struct blobs *b, int (*fn)(void *arg, const struct blob_file *f), void *arg)
{
	struct listing published = { fn, arg, "data", false, 256 }, drafts = { fn, arg, "drafts", true, -1 };
	int r = walk_dir(dir_of(b)->data, ".", list_shard, &published);

	return r == 0 ? walk_dir(dir_of(b)->drafts, ".", list_one, &drafts) : r;
}

static int keep_as(int dir, const char *name, int keep, const char *as, bool stays)
{
	int r = stays ? linkat(dir, name, keep, as, 0) : renameat2(dir, name, keep, as, RENAME_NOREPLACE);

	return r < 0 ? -errno : 0;
}

struct keeping {
	int keep;
	bool stays;
};

/* Under the name that it has, or, where that is taken, with a number behind it. */
static int keep_one(int dir, const char *name, void *arg)
{
	const char *base = strrchr(name, '/') != NULL ? strrchr(name, '/') + 1 : name;
	const struct keeping *k = arg;
	char other[300];
	int r = keep_as(dir, name, k->keep, base, k->stays);

	for (int n = 1; r == -EEXIST && n < 100; n++) {
		snprintf(other, sizeof(other), "%.200s.%d", base, n);
		r = keep_as(dir, name, k->keep, other, k->stays);
	}
	return r;
}

static int set_aside(struct blobs *b, uint64_t vid, const char *name, bool stays)
{
	struct keeping k = { dir_of(b)->keep, stays };

	return name != NULL ? keep_one(dir_of(b)->store, name, &k) : either(b, vid, keep_one, &k);
}

void blob_dir_keep_in(struct blobs *b, int keep_fd)
{
	dir_of(b)->keep = keep_fd;
}

static const struct blob_ops blob_dir_ops = {
	.create = create,
	.open = open_file,
	.open_for_user = open_for_user,
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
	.held = held,
	.list = list_files,
	.set_aside = set_aside,
};

static int open_dir(int at, const char *name, bool make)
{
	int fd;

	if (make && mkdirat(at, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

static int open_dirs(int store_fd, bool make, struct blobs **ret)
{
	struct blob_dir *d = calloc(1, sizeof(*d));
	int r;

	if (d == NULL)
		return -ENOMEM;
	signal(SIGIO, SIG_IGN); /* sent when somebody opens what we have a lease on, for a moment */
	d->b.ops = &blob_dir_ops;
	d->store = store_fd;
	d->keep = -1;
	d->data = open_dir(store_fd, "data", make);
	d->drafts = open_dir(store_fd, "drafts", make);
	r = d->data < 0 ? d->data : d->drafts < 0 ? d->drafts : 0;
	if (r < 0) {
		blob_dir_close(&d->b);
		return r;
	}
	*ret = &d->b;
	return 0;
}

int blob_dir_open(int store_fd, struct blobs **ret)
{
	return open_dirs(store_fd, true, ret);
}

int blob_dir_look(int store_fd, struct blobs **ret)
{
	return open_dirs(store_fd, false, ret);
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

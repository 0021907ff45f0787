#include "tests/unit/blobs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct name {
	char s[24];
};

static struct test_blobs *of(struct blobs *b)
{
	return (struct test_blobs *)b;
}

static struct name name_of(uint64_t vid, bool published)
{
	struct name n;

	snprintf(n.s, sizeof(n.s), "%c%016llx", published ? 'p' : 'd', (unsigned long long)vid);
	return n;
}

static struct name private_name(uint64_t vid)
{
	struct name n = name_of(vid, true);

	n.s[0] = '+';
	return n;
}

static int create(struct blobs *b, uint64_t vid)
{
	int fd, e = atomic_exchange(&of(b)->create_fails, 0);

	if (e != 0)
		return -e;
	fd = openat(of(b)->dir, name_of(vid, false).s, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

static int open_file(struct blobs *b, uint64_t vid)
{
	int fd = openat(of(b)->dir, name_of(vid, true).s, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fd = openat(of(b)->dir, name_of(vid, false).s, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int publish(struct blobs *b, uint64_t vid, uint64_t as)
{
	int r = renameat(of(b)->dir, name_of(vid, false).s, of(b)->dir, name_of(as, true).s);

	return r < 0 && errno != ENOENT ? -errno : 0;
}

static int share(struct blobs *b, uint64_t vid, uint64_t draft)
{
	of(b)->shares++;
	return linkat(of(b)->dir, name_of(vid, true).s, of(b)->dir, name_of(draft, false).s, 0) < 0 ? -errno : 0;
}

static int copy(struct blobs *b, int from, int to)
{
	char buf[8192];
	off_t at = 0;
	ssize_t n;
	int e = atomic_exchange(&of(b)->copy_fails, 0);

	of(b)->copies++;
	if (e != 0)
		return -e;
	for (; (n = pread(from, buf, sizeof(buf), at)) > 0; at += n)
		if (pwrite(to, buf, (size_t)n, at) != n)
			return -EIO;
	return n < 0 ? -errno : 0;
}

static int unshare(struct blobs *b, uint64_t vid, int64_t size)
{
	int from = open_file(b, vid);
	const struct name own = private_name(vid);
	int to = openat(of(b)->dir, own.s, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r = from < 0 || to < 0 ? -EIO : copy(b, from, to);

	of(b)->unshares++;
	if (r == 0 && (ftruncate(to, size) < 0 ||
		       renameat(of(b)->dir, own.s, of(b)->dir, name_of(vid, true).s) < 0))
		r = -errno;
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return r;
}

static int remove_file(struct blobs *b, uint64_t vid)
{
	if (of(b)->on_remove != NULL)
		of(b)->on_remove(vid);
	if (unlinkat(of(b)->dir, name_of(vid, true).s, 0) < 0 && errno == ENOENT &&
	    unlinkat(of(b)->dir, name_of(vid, false).s, 0) < 0 && errno == ENOENT)
		return 0;
	return 0;
}

static int stat_file(struct blobs *b, uint64_t vid, struct stat *st)
{
	if (fstatat(of(b)->dir, name_of(vid, true).s, st, 0) == 0)
		return 0;
	return fstatat(of(b)->dir, name_of(vid, false).s, st, 0) < 0 ? -errno : 0;
}

static int sync_file(struct blobs *b, int fd)
{
	of(b)->syncs++;
	return 0;
}

static int sync_all(struct blobs *b)
{
	of(b)->sync_alls++;
	return 0;
}

/* Calls fn for each file of the kind. */
static int walk(struct test_blobs *tb, char kind, int (*fn)(void *arg, uint64_t vid), void *arg)
{
	int fd = openat(tb->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (dir == NULL)
		return -errno;
	while (r == 0 && (e = readdir(dir)) != NULL)
		if (e->d_name[0] == kind && strlen(e->d_name) == 17)
			r = fn(arg, strtoull(e->d_name + 1, NULL, 16));
	closedir(dir);
	return r;
}

static int list_drafts(struct blobs *b, int (*fn)(void *arg, uint64_t vid), void *arg)
{
	return walk(of(b), 'd', fn, arg);
}

static bool differs(struct blobs *b, uint64_t vid, int fd)
{
	return false;
}

static bool is_written(struct blobs *b, int fd)
{
	return of(b)->mapped;
}

static int64_t space(struct blobs *b)
{
	return of(b)->space;
}

static bool held(struct blobs *b)
{
	return of(b)->held;
}

static const struct blob_ops ops = {
	.create = create, .open = open_file, .open_for_user = open_file, .publish = publish, .share = share, .unshare = unshare,
	.remove = remove_file, .stat = stat_file, .copy = copy, .sync = sync_file, .sync_all = sync_all,
	.differs = differs,
	.list_drafts = list_drafts, .space = space, .is_written = is_written, .held = held,
};

int test_blobs_open(const char *path, struct test_blobs *tb)
{
	memset(tb, 0, sizeof(*tb));
	tb->b.ops = &ops;
	tb->space = INT64_MAX;
	tb->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return tb->dir < 0 ? -errno : 0;
}

void test_blobs_close(struct test_blobs *tb)
{
	close(tb->dir);
}

bool test_blobs_has(struct test_blobs *tb, uint64_t vid, bool published)
{
	return faccessat(tb->dir, name_of(vid, published).s, F_OK, 0) == 0;
}

static int count_one(void *arg, uint64_t vid)
{
	++*(unsigned *)arg;
	return 0;
}

unsigned test_blobs_count(struct test_blobs *tb, bool published)
{
	unsigned n = 0;

	walk(tb, published ? 'p' : 'd', count_one, &n);
	return n;
}

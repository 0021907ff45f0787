/* A disk that loses what was not flushed when its power is cut, as real ones may: for tests/test_power_loss.py.
 *
 *   lossy-disk NOW SAFE SHARE SEED MOUNTPOINT
 *
 * A file system with one file, `disk`, to be used through a loop device. Its content is in two images of the same size:
 * NOW is what is read and written, SAFE is what a power cut leaves. fsync(2) of the file, which is what a loop device does
 * when a file system flushes its disk's cache, brings SAFE up to date. SIGUSR1 cuts the power: of the sectors that were
 * written since the last flush SHARE percent, chosen by SEED, reach SAFE, in whatever order they were written; every
 * request from then on fails with EIO. */
#define FUSE_USE_VERSION 34

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512

static char *now, *safe;
static size_t size;
static unsigned char *unflushed; /* a byte for each sector */
static int share;
static volatile sig_atomic_t cut_wanted;
static bool is_cut;

static void on_cut(int sig)
{
	(void)sig;
	cut_wanted = 1;
}

/* Share: of what was written since the last time, in percent. */
static void save(int percent)
{
	unsigned char *at = unflushed, *end = unflushed + size / SECTOR;

	while ((at = memchr(at, 1, (size_t)(end - at))) != NULL) {
		size_t offset = (size_t)(at - unflushed) * SECTOR;

		if (percent == 100 || rand() % 100 < percent)
			memcpy(safe + offset, now + offset, SECTOR);
		*at++ = 0;
	}
}

static bool power_is_off(void)
{
	if (cut_wanted && !is_cut) {
		save(share);
		is_cut = true;
	}
	return is_cut;
}

static int disk_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	*st = (struct stat){ .st_mode = S_IFDIR | 0700, .st_nlink = 2 };
	if (strcmp(path, "/") == 0)
		return 0;
	*st = (struct stat){ .st_mode = S_IFREG | 0600, .st_nlink = 1, .st_size = (off_t)size };
	return strcmp(path, "/disk") == 0 ? 0 : -ENOENT;
}

static int disk_open(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	fi->direct_io = 1; /* nothing stays in a cache above us */
	return 0;
}

static size_t within(size_t n, off_t offset)
{
	return (size_t)offset >= size ? 0 : n < size - (size_t)offset ? n : size - (size_t)offset;
}

static int disk_read(const char *path, char *buf, size_t n, off_t offset, struct fuse_file_info *fi)
{
	(void)path;
	(void)fi;
	if (power_is_off())
		return -EIO;
	n = within(n, offset);
	memcpy(buf, now + offset, n);
	return (int)n;
}

static int disk_write(const char *path, const char *buf, size_t n, off_t offset, struct fuse_file_info *fi)
{
	(void)path;
	(void)fi;
	if (power_is_off())
		return -EIO;
	n = within(n, offset);
	memcpy(now + offset, buf, n);
	if (n > 0)
		memset(unflushed + offset / SECTOR, 1, ((size_t)offset % SECTOR + n + SECTOR - 1) / SECTOR);
	return (int)n;
}

static int disk_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	(void)path;
	(void)datasync;
	(void)fi;
	if (power_is_off())
		return -EIO;
	save(100);
	return 0;
}

static void *map(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st) < 0) {
		perror(path);
		exit(1);
	}
	size = (size_t)st.st_size;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED) {
		perror(path);
		exit(1);
	}
	return p;
}

int main(int argc, char **argv)
{
	static const struct fuse_operations ops = {
		.getattr = disk_getattr, .open = disk_open, .read = disk_read, .write = disk_write, .fsync = disk_fsync,
	};
	char foreground[] = "-f", single[] = "-s";
	char *fuse_argv[] = { argv[0], foreground, single, argc == 6 ? argv[5] : NULL, NULL };

	if (argc != 6) {
		fprintf(stderr, "usage: lossy-disk NOW SAFE SHARE SEED MOUNTPOINT\n");
		return 2;
	}
	now = map(argv[1]);
	safe = map(argv[2]);
	unflushed = calloc(1, size / SECTOR + 1);
	share = atoi(argv[3]);
	srand((unsigned)atoi(argv[4]));
	if (unflushed == NULL)
		return 1;
	signal(SIGUSR1, on_cut);
	return fuse_main(4, fuse_argv, &ops, NULL);
}

/* Makes chosen system calls on the files of a store fail: LD_PRELOAD this into a daemon or a command.
 *
 *   PROMISEFS_FAULTS=FILE          a `struct faults`, made by the test (tests/faults.py knows the layout), mapped here
 *   PROMISEFS_FAULTS_STORE=PATH    the real path of the store; nothing outside of it is touched
 *
 * Each call that the kinds and the calls select is counted; from the moment when the test arms it, the n-th one fails
 * (mode ONCE) or the n-th one and all that follow (mode ON), with the errno that is set. What was seen and what was
 * failed is written down, so that a test can tell that its faults were real. SQLite calls libc through a table of its
 * own, whose entries are filled by the dynamic linker, so its calls come here too. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { DATA, CATALOG, WAL, SHM, PLACE, KINDS }; /* PLACE: the store's directory, and whatever else is in it */
enum call {
	OPEN, WRITE, TRUNCATE, ALLOCATE, SYNC, RENAME, UNLINK, LINK, MKDIR, COPY, CLONE, MAP, READ, CALLS
};
enum mode { OFF, ONCE, ON };

struct faults {
	_Atomic uint32_t mode, kinds, calls; /* masks of what to count */
	_Atomic int32_t error;
	_Atomic uint64_t n;       /* which one of those counted, from 1 */
	_Atomic uint64_t counted; /* since it was armed */
	_Atomic uint64_t failed;  /* since it was armed */
	_Atomic uint64_t seen[KINDS][CALLS];
	_Atomic uint64_t hit[KINDS][CALLS];
	char last[256]; /* what failed last */
};

static const char *const kind_names[KINDS] = { "data", "catalog", "wal", "shm", "place" };
static const char *const call_names[CALLS] = { "open", "write", "truncate", "allocate", "sync", "rename", "unlink",
					       "link", "mkdir", "copy", "clone", "map", "read" };
static struct faults *faults;
static char store[4096];
static size_t store_len;

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("PROMISEFS_FAULTS"), *where = getenv("PROMISEFS_FAULTS_STORE");
	int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
	int fd;
	void *p;

	if (path == NULL || where == NULL)
		return;
	fd = real_open(path, O_RDWR | O_CLOEXEC);
	p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED) {
		perror(path);
		_exit(99);
	}
	snprintf(store, sizeof(store), "%s", where);
	store_len = strlen(store);
	faults = p;
}

static int ends(const char *text, const char *with)
{
	size_t a = strlen(text), b = strlen(with);

	return a >= b && strcmp(text + a - b, with) == 0;
}

/* -1: not of the store. */
static int kind_of_path(const char *path)
{
	const char *rest = path + store_len;

	if (strncmp(path, store, store_len) != 0 || (*rest != '/' && *rest != '\0'))
		return -1;
	if (strncmp(rest, "/data", 5) == 0 || strncmp(rest, "/drafts", 7) == 0)
		return DATA;
	if (strncmp(rest, "/catalog.db", 11) != 0)
		return PLACE;
	return ends(rest, "-wal") ? WAL : ends(rest, "-shm") ? SHM : CATALOG;
}

static int kind_of_fd(int fd)
{
	char link[40], path[4200];
	ssize_t n;

	if (faults == NULL || fd < 0)
		return -1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return -1;
	path[n] = '\0';
	return kind_of_path(path);
}

static int kind_at(int dir, const char *name)
{
	char joined[4200];
	int kind;

	if (faults == NULL || name == NULL)
		return -1;
	if (name[0] == '/')
		return kind_of_path(name);
	kind = dir == AT_FDCWD ? -1 : kind_of_fd(dir);
	if (kind != PLACE)
		return kind;
	snprintf(joined, sizeof(joined), "%s/%s", store, name);
	return kind_of_path(joined);
}

/* Is this one to fail? Then errno is set. */
static int fails(int kind, enum call call)
{
	uint32_t mode;
	uint64_t at;

	if (kind < 0 || faults == NULL)
		return 0;
	atomic_fetch_add(&faults->seen[kind][call], 1);
	mode = atomic_load(&faults->mode);
	if (mode == OFF || !(atomic_load(&faults->kinds) >> kind & 1) || !(atomic_load(&faults->calls) >> call & 1))
		return 0;
	at = atomic_fetch_add(&faults->counted, 1) + 1;
	if (mode == ONCE ? at != atomic_load(&faults->n) : at < atomic_load(&faults->n))
		return 0;
	atomic_fetch_add(&faults->failed, 1);
	atomic_fetch_add(&faults->hit[kind][call], 1);
	snprintf(faults->last, sizeof(faults->last), "%s %s", kind_names[kind], call_names[call]);
	errno = atomic_load(&faults->error);
	return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* What may take space is another thing than what only reads. */
static enum call call_of_open(int flags)
{
	return (flags & O_CREAT) != 0 ? OPEN : READ;
}

static mode_t mode_of(int flags, va_list list)
{
	return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, mode_t) : 0;
}

#define OPEN_BODY(name)                                                        \
	int name(const char *path, int flags, ...)                             \
	{                                                                      \
		static int (*real)(const char *, int, ...);                    \
		va_list list;                                                  \
		mode_t mode;                                                   \
                                                                               \
		va_start(list, flags);                                         \
		mode = mode_of(flags, list);                                   \
		va_end(list);                                                  \
		if (real == NULL)                                              \
			real = dlsym(RTLD_NEXT, #name);                        \
		if (fails(kind_at(AT_FDCWD, path), call_of_open(flags)))       \
			return -1;                                             \
		return real(path, flags, mode);                                \
	}
#define OPENAT_BODY(name)                                                      \
	int name(int dir, const char *path, int flags, ...)                    \
	{                                                                      \
		static int (*real)(int, const char *, int, ...);               \
		va_list list;                                                  \
		mode_t mode;                                                   \
                                                                               \
		va_start(list, flags);                                         \
		mode = mode_of(flags, list);                                   \
		va_end(list);                                                  \
		if (real == NULL)                                              \
			real = dlsym(RTLD_NEXT, #name);                        \
		if (fails(kind_at(dir, path), call_of_open(flags)))            \
			return -1;                                             \
		return real(dir, path, flags, mode);                           \
	}
/* A function whose first parameter is a descriptor. */
#define FD_BODY(type, name, call, parameters, arguments)                       \
	type name parameters                                                   \
	{                                                                      \
		static type(*real) parameters;                                 \
                                                                               \
		if (real == NULL)                                              \
			real = dlsym(RTLD_NEXT, #name);                        \
		if (fails(kind_of_fd(fd), call))                               \
			return (type)-1;                                       \
		return real arguments;                                         \
	}

#undef open
#undef openat
#undef open64
#undef openat64
OPEN_BODY(open)
OPEN_BODY(open64)
OPENAT_BODY(openat)
OPENAT_BODY(openat64)

#undef pwrite
#undef pread
#undef ftruncate
#undef fallocate
#undef pwritev
#undef pwritev2
int ftruncate64(int fd, off64_t size);
FD_BODY(ssize_t, pwrite, WRITE, (int fd, const void *buf, size_t n, off_t at), (fd, buf, n, at))
FD_BODY(ssize_t, pwrite64, WRITE, (int fd, const void *buf, size_t n, off64_t at), (fd, buf, n, at))
FD_BODY(ssize_t, write, WRITE, (int fd, const void *buf, size_t n), (fd, buf, n))
FD_BODY(ssize_t, writev, WRITE, (int fd, const struct iovec *v, int n), (fd, v, n))
FD_BODY(ssize_t, pwritev, WRITE, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at))
FD_BODY(ssize_t, pwritev64, WRITE, (int fd, const struct iovec *v, int n, off64_t at), (fd, v, n, at))
FD_BODY(ssize_t, pwritev64v2, WRITE, (int fd, const struct iovec *v, int n, off64_t at, int flags), (fd, v, n, at, flags))
FD_BODY(ssize_t, pread, READ, (int fd, void *buf, size_t n, off_t at), (fd, buf, n, at))
FD_BODY(ssize_t, pread64, READ, (int fd, void *buf, size_t n, off64_t at), (fd, buf, n, at))
FD_BODY(ssize_t, read, READ, (int fd, void *buf, size_t n), (fd, buf, n))
FD_BODY(int, ftruncate, TRUNCATE, (int fd, off_t size), (fd, size))
FD_BODY(int, ftruncate64, TRUNCATE, (int fd, off64_t size), (fd, size))
FD_BODY(int, fallocate, ALLOCATE, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
FD_BODY(int, fallocate64, ALLOCATE, (int fd, int mode, off64_t at, off64_t n), (fd, mode, at, n))
FD_BODY(int, fsync, SYNC, (int fd), (fd))
FD_BODY(int, fdatasync, SYNC, (int fd), (fd))
FD_BODY(int, syncfs, SYNC, (int fd), (fd))

/* The destination counts. */
ssize_t copy_file_range(int from, off64_t *at_from, int fd, off64_t *at, size_t n, unsigned flags)
{
	return fails(kind_of_fd(fd), COPY) ? -1 : REAL(copy_file_range)(from, at_from, fd, at, n, flags);
}

/* Into a file it writes, out of one it reads. */
ssize_t splice(int from, off64_t *at_from, int to, off64_t *at_to, size_t n, unsigned flags)
{
	if (fails(kind_of_fd(to), WRITE) || fails(kind_of_fd(from), READ))
		return -1;
	return REAL(splice)(from, at_from, to, at_to, n, flags);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *arg;

	va_start(list, request);
	arg = va_arg(list, void *);
	va_end(list);
	if (request == FICLONE && fails(kind_of_fd(fd), CLONE))
		return -1;
	return REAL(ioctl)(fd, request, arg);
}

static void *map(const char *name, void *where, size_t n, int prot, int flags, int fd, off_t at)
{
	void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, name);

	return fd >= 0 && fails(kind_of_fd(fd), MAP) ? MAP_FAILED : real(where, n, prot, flags, fd, at);
}

#undef mmap
void *mmap(void *where, size_t n, int prot, int flags, int fd, off_t at)
{
	return map("mmap", where, n, prot, flags, fd, at);
}

void *mmap64(void *where, size_t n, int prot, int flags, int fd, off64_t at)
{
	return map("mmap64", where, n, prot, flags, fd, at);
}

int rename(const char *from, const char *to)
{
	return fails(kind_at(AT_FDCWD, to), RENAME) ? -1 : REAL(rename)(from, to);
}

int renameat(int from_dir, const char *from, int dir, const char *to)
{
	return fails(kind_at(dir, to), RENAME) ? -1 : REAL(renameat)(from_dir, from, dir, to);
}

int renameat2(int from_dir, const char *from, int dir, const char *to, unsigned flags)
{
	return fails(kind_at(dir, to), RENAME) ? -1 : REAL(renameat2)(from_dir, from, dir, to, flags);
}

int unlink(const char *path)
{
	return fails(kind_at(AT_FDCWD, path), UNLINK) ? -1 : REAL(unlink)(path);
}

int unlinkat(int dir, const char *path, int flags)
{
	return fails(kind_at(dir, path), UNLINK) ? -1 : REAL(unlinkat)(dir, path, flags);
}

int link(const char *from, const char *to)
{
	return fails(kind_at(AT_FDCWD, to), LINK) ? -1 : REAL(link)(from, to);
}

int linkat(int from_dir, const char *from, int dir, const char *to, int flags)
{
	return fails(kind_at(dir, to), LINK) ? -1 : REAL(linkat)(from_dir, from, dir, to, flags);
}

int mkdir(const char *path, mode_t mode)
{
	return fails(kind_at(AT_FDCWD, path), MKDIR) ? -1 : REAL(mkdir)(path, mode);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
	return fails(kind_at(dir, path), MKDIR) ? -1 : REAL(mkdirat)(dir, path, mode);
}

/* A disk on which nothing can be written any more says so when it is asked. */
static int is_full(int fd)
{
	return kind_of_fd(fd) >= 0 && atomic_load(&faults->mode) == ON && atomic_load(&faults->error) == ENOSPC &&
	       atomic_load(&faults->failed) > 0;
}

#undef fstatvfs
int fstatvfs(int fd, struct statvfs *v)
{
	int r = REAL(fstatvfs)(fd, v);

	if (r == 0 && is_full(fd))
		v->f_bfree = v->f_bavail = 0;
	return r;
}

int fstatvfs64(int fd, struct statvfs64 *v)
{
	int r = REAL(fstatvfs64)(fd, v);

	if (r == 0 && is_full(fd))
		v->f_bfree = v->f_bavail = 0;
	return r;
}

#include "fs/offline.h"

#include "fs/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int fail(struct offline *s, int r, const char *advice, const char *what, ...) __attribute__((format(printf, 4, 5)));

static int fail(struct offline *s, int r, const char *advice, const char *what, ...)
{
	va_list ap;

	va_start(ap, what);
	vsnprintf(s->error, sizeof(s->error), what, ap);
	va_end(ap);
	s->advice = advice;
	return r;
}

bool offline_is_repairing(struct offline *s)
{
	return faccessat(s->fd, OFFLINE_REPAIRING, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Root does what the owner of the directory could: what he has put there leads nowhere else, and what is made is his. */
static int become_owner(struct offline *s)
{
	struct stat st, catalog;

	if (fstat(s->fd, &st) < 0)
		return fail(s, -errno, "check the disk", "%s", strerror(errno));
	if (geteuid() != 0 || st.st_uid == 0)
		return 0;
	if (fstatat(s->fd, "catalog.db", &catalog, AT_SYMLINK_NOFOLLOW) == 0 && catalog.st_uid != st.st_uid)
		return fail(s, -EPERM, "give both to the user who mounts the store, with chown",
			    "the directory belongs to user %u, but catalog.db to user %u", st.st_uid, catalog.st_uid);
	if (setgroups(0, NULL) < 0 || setresgid(st.st_gid, st.st_gid, st.st_gid) < 0 ||
	    setresuid(st.st_uid, st.st_uid, st.st_uid) < 0)
		return fail(s, -errno, "run it as the user who mounts the store", "it belongs to user %u: %s", st.st_uid,
			    strerror(errno));
	return 0;
}

static int check_is_store(struct offline *s)
{
	if (faccessat(s->fd, "catalog.db", F_OK, 0) == 0 || offline_is_repairing(s) ||
	    (faccessat(s->fd, "data", F_OK, 0) == 0 && faccessat(s->fd, "drafts", F_OK, 0) == 0 &&
	     faccessat(s->fd, BACKUP_MARKER, F_OK, AT_SYMLINK_NOFOLLOW) < 0))
		return 0;
	return fail(s, -ENOENT, "name the directory that 'promisefs mount' was given first", "it is not a store");
}

/* Where nothing can be written the lock can still be had. */
static int open_lock(struct offline *s)
{
	s->lock_fd = openat(s->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0 && (errno == EROFS || errno == EACCES))
		s->lock_fd = openat(s->fd, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return s->lock_fd < 0 ? fail(s, -errno, "run it as the user who mounts the store, or as root", "its file lock: %s",
				     strerror(errno)) : 0;
}

static int lock(struct offline *s, const char *verb, bool online)
{
	ssize_t n;
	int r = open_lock(s);

	if (r < 0)
		return r;
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0) {
		if (ftruncate(s->lock_fd, 0) == 0)
			dprintf(s->lock_fd, "promisefs %s, pid %d", verb, getpid());
		return 0;
	}
	n = pread(s->lock_fd, s->owner, sizeof(s->owner) - 1, 0);
	s->owner[n > 0 ? n : 0] = '\0';
	if (n <= 0)
		strcpy(s->owner, "another process");
	close(s->lock_fd);
	s->lock_fd = -1;
	if (strncmp(s->owner, "pid ", 4) != 0)
		return fail(s, -EBUSY, "wait until that has ended", "in use by %s", s->owner);
	s->online = true;
	if (online)
		return 0;
	return fail(s, -EBUSY, strcmp(verb, "fsck") == 0 ? "unmount it first, or look without repairing, with --online" :
							   "unmount it first", "mounted by %s", s->owner);
}

int offline_open(struct offline *s, const char *store, const char *verb, bool online)
{
	int r;

	*s = (struct offline){ .fd = -1, .lock_fd = -1, .keep_fd = -1 };
	if (realpath(store, s->path) == NULL)
		return fail(s, -errno, "check the path", "%s", strerror(errno));
	snprintf(s->catalog, sizeof(s->catalog), "%s/catalog.db", s->path);
	s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->fd < 0)
		return fail(s, -errno, errno == EACCES ? "run it as the user who mounts the store, or as root" :
							 "name the directory of a store", "%s", strerror(errno));
	r = become_owner(s);
	if (r == 0)
		r = check_is_store(s);
	if (r == 0)
		r = lock(s, verb, online);
	if (r == 0 && strcmp(verb, "fsck") != 0 && offline_is_repairing(s))
		r = fail(s, -EBADMSG, "'promisefs fsck --repair' goes on with it", "a repair did not come to its end");
	return r;
}

void offline_close(struct offline *s)
{
	if (s->index != NULL)
		fclose(s->index);
	if (s->lock_fd >= 0 && ftruncate(s->lock_fd, 0) == 0)
		errno = 0; /* nobody has it now */
	for (int *fd = (int[]){ s->keep_fd, s->lock_fd, s->fd, -2 }; *fd != -2; fd++)
		if (*fd >= 0)
			close(*fd);
}

int offline_claim(struct offline *s)
{
	int fd = openat(s->fd, "data", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool copied = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;

	if (fd >= 0)
		close(fd);
	return copied ? fail(s, -EBUSY, "wait until that has ended", "promisefs backup is copying it") : 0;
}

/* What is set aside */

int offline_keep(struct offline *s)
{
	char name[64];
	time_t now = time(NULL);
	struct tm tm;
	int r = -EEXIST;

	if (s->keep_fd >= 0)
		return 0;
	if (mkdirat(s->fd, "quarantine", 0700) < 0 && errno != EEXIST)
		return fail(s, -errno, "free some space, check its rights", "quarantine cannot be made: %s", strerror(errno));
	gmtime_r(&now, &tm);
	for (int n = 0; r == -EEXIST && n < 100; n++) {
		size_t len = strftime(name, sizeof(name), "quarantine/%Y-%m-%dT%H.%M.%SZ", &tm);

		if (n > 0)
			snprintf(name + len, sizeof(name) - len, ".%d", n);
		r = mkdirat(s->fd, name, 0700) < 0 ? -errno : 0;
	}
	if (r == 0)
		s->keep_fd = openat(s->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r < 0 || s->keep_fd < 0)
		return fail(s, r < 0 ? r : -errno, "free some space, check its rights", "%s cannot be made: %s", name,
			    strerror(r < 0 ? -r : errno));
	snprintf(s->keep, sizeof(s->keep), "%s/%s", s->path, name);
	r = openat(s->keep_fd, "index", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	s->index = r < 0 ? NULL : fdopen(r, "w");
	if (s->index != NULL)
		return 0;
	r = fail(s, -errno, "free some space", "%s/index: %s", s->keep, strerror(errno));
	close(s->keep_fd);
	s->keep_fd = -1;
	return r;
}

static int sync_directory(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return r;
}

int offline_noted(struct offline *s)
{
	int r = fflush(s->index) != 0 || fsync(fileno(s->index)) < 0 ? -errno : 0;

	if (r == 0)
		r = sync_directory(s->keep_fd, ".");
	if (r == 0)
		r = sync_directory(s->fd, "quarantine");
	return r == 0 ? sync_directory(s->fd, ".") : r;
}

int offline_repairing(struct offline *s, bool done)
{
	int fd = -1, r = 0;

	if (done)
		r = unlinkat(s->fd, OFFLINE_REPAIRING, 0) < 0 && errno != ENOENT ? -errno : 0;
	else if ((fd = openat(s->fd, OFFLINE_REPAIRING, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)) < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	return r == 0 ? sync_directory(s->fd, ".") : r;
}

int offline_keep_catalog(struct offline *s)
{
	/* In this order, so that it is never taken for whole without its log. */
	static const char *const names[] = { "catalog.db", "catalog.db-wal", "catalog.db-shm" };
	int r = offline_keep(s);

	for (int i = 0; r == 0 && i < 3; i++)
		if (renameat(s->fd, names[i], s->keep_fd, names[i]) < 0 && errno != ENOENT)
			r = fail(s, -errno, "check its rights", "%s cannot be set aside: %s", names[i], strerror(errno));
	if (r == 0)
		r = sync_directory(s->keep_fd, ".");
	return r == 0 ? sync_directory(s->fd, ".") : r;
}

/* Rights */

struct rights {
	bool repair;
	uid_t owner;
	void (*found)(void *arg, const char *name, const char *what);
	void *arg;
	uint64_t count, left;
};

static void look_at(struct rights *w, int dir, const char *base, const char *name, mode_t type, mode_t mode)
{
	struct stat st;
	bool bad_owner, bad_mode;

	if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) < 0 || (st.st_mode & S_IFMT) != type)
		return;
	bad_owner = st.st_uid != w->owner;
	bad_mode = (st.st_mode & 07777 & ~S_ISGID) != mode; /* a directory may have got it from the one above */
	if (!bad_owner && !bad_mode)
		return;
	w->count++;
	w->found(w->arg, name, bad_owner ? "it belongs to another user than the store" : "its mode lets others in, or keeps us out");
	if (!w->repair || (bad_owner && fchownat(dir, base, w->owner, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0) ||
	    fchmodat(dir, base, mode, AT_SYMLINK_NOFOLLOW) < 0)
		w->left++;
}

static void look_into(struct rights *w, int at, const char *base, const char *name, bool deeper)
{
	int fd = openat(at, base, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	char below[600];

	while (dir != NULL && (e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(below, sizeof(below), "%s/%s", name, e->d_name);
		look_at(w, fd, e->d_name, below, S_IFREG, 0600);
		look_at(w, fd, e->d_name, below, S_IFDIR, 0700);
		if (deeper)
			look_into(w, fd, e->d_name, below, false);
	}
	if (dir != NULL)
		closedir(dir);
}

/* The user that most of them belong to. */
static uid_t owner_of(struct offline *s)
{
	static const char *const names[] = { "catalog.db", "data", "drafts", "lock", "." };
	uid_t owners[5];
	int n = 0, best = 0, most = 0;
	struct stat st;

	for (int i = 0; i < 5; i++)
		if (fstatat(s->fd, names[i], &st, 0) == 0)
			owners[n++] = st.st_uid;
	for (int i = 0; i < n; i++) {
		int same = 0;

		for (int j = 0; j < n; j++)
			same += owners[i] == owners[j];
		if (same > most) {
			most = same;
			best = i;
		}
	}
	return n > 0 ? owners[best] : geteuid();
}

int offline_rights(struct offline *s, bool repair, void (*found)(void *arg, const char *name, const char *what), void *arg,
		   uint64_t *count, uint64_t *left)
{
	static const char *const files[] = { "catalog.db", "catalog.db-wal", "catalog.db-shm", "lock" };
	static const char *const directories[] = { "data", "drafts" };
	struct rights w = { .repair = repair, .owner = owner_of(s), .found = found, .arg = arg };

	for (int i = 0; i < 4; i++)
		look_at(&w, s->fd, files[i], files[i], S_IFREG, 0600);
	for (int i = 0; i < 2; i++) {
		look_at(&w, s->fd, directories[i], directories[i], S_IFDIR, 0700);
		look_into(&w, s->fd, directories[i], directories[i], i == 0);
	}
	*count += w.count;
	*left += w.left;
	return 0;
}

#include "fs/backup.h"

#include "core/copy_rule.h"
#include "core/fsck.h"
#include "fs/blob_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PARTIAL "catalog.db.partial"
#define PART "part" /* the file that is just being copied */
#define CHUNK (8 << 20)
#define MOMENTS_MAX 50
#define PATIENCE 3        /* moments after which a draft that goes on changing is left out */
#define SETTLED_NS 20000000 /* times of files go by the ticks of a clock */
#define TRIES 5
#define NS_PER_S 1000000000LL

struct moving { /* drafts that were not as the catalog says */
	uint64_t vid;
	unsigned times;
};

struct backup {
	struct offline *s;
	const struct backup_options *o;
	struct backup_result *result;
	char dest[PATH_MAX];
	char partial[PATH_MAX + 32];
	int to;           /* the directory of the copy */
	int hold;
	struct meta *copy;
	struct moving moving[64];
	unsigned moving_count;
	uint64_t done;
	bool again; /* a newer moment is needed */
};

static int fail(struct backup *b, int r, const char *advice, const char *what, ...) __attribute__((format(printf, 4, 5)));

static int fail(struct backup *b, int r, const char *advice, const char *what, ...)
{
	va_list ap;

	va_start(ap, what);
	vsnprintf(b->s->error, sizeof(b->s->error), what, ap);
	va_end(ap);
	b->s->advice = advice;
	return r;
}

static int fail_to(struct backup *b, int r)
{
	if (r == -ECANCELED)
		return fail(b, r, "run it again to go on, or remove the directory", "interrupted, not complete");
	return fail(b, r, r == -ENOSPC ? "free some space and run it again, or remove the directory" :
					 "run it again, or remove the directory", "not complete: %s", strerror(-r));
}

static bool stopped(struct backup *b)
{
	return b->o->stop != NULL && b->o->stop(b->o->arg);
}

static int64_t mtime_of(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * NS_PER_S + st->st_mtim.tv_nsec;
}

/* Names */

static void data_name(char name[static 32], uint64_t vid)
{
	snprintf(name, 32, "data/%02x/%016llx", (unsigned)(vid & 0xff), (unsigned long long)vid);
}

static void draft_name(char name[static 32], uint64_t vid)
{
	snprintf(name, 32, "drafts/%016llx", (unsigned long long)vid);
}

/* Published or draft, or published in between. Leaves its name. */
static int open_source(struct backup *b, uint64_t vid, char name[static 32])
{
	int fd = -1;

	for (int i = 0; fd < 0 && i < 3; i++) {
		if (i == 1)
			draft_name(name, vid);
		else
			data_name(name, vid);
		fd = openat(b->s->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0 && errno != ENOENT)
			break;
	}
	return fd < 0 ? -errno : fd;
}

/* Copying one file */

static int copy_bytes(struct backup *b, int from, int to, int64_t size)
{
	char *buf = NULL;
	int64_t at = 0;
	int r = 0;

	while (r == 0 && at < size) {
		size_t want = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
		off_t in = at, out = at;
		ssize_t n = stopped(b) ? -2 : buf == NULL ? copy_file_range(from, &in, to, &out, want, 0) : pread(from, buf, want, at);

		if (n == -2) {
			r = -ECANCELED;
		} else if (n < 0 && buf == NULL && (errno == EXDEV || errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)) {
			buf = malloc(CHUNK);
			r = buf == NULL ? -ENOMEM : 0;
		} else if (n <= 0) {
			r = n < 0 ? -errno : -EBADMSG;
		} else if (buf != NULL && (n = pwrite(to, buf, (size_t)n, at)) < 0) {
			r = -errno;
		} else {
			at += n;
		}
	}
	free(buf);
	b->result->bytes += (uint64_t)at;
	return r;
}

/* Into PART; the first size bytes (-1: all that there are). */
static int copy_part(struct backup *b, int from, int64_t size, int64_t mtime)
{
	struct timespec ts[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = mtime / NS_PER_S, .tv_nsec = mtime % NS_PER_S } };
	int to = openat(b->to, PART, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), r = 0;
	struct stat st;
	bool cloned;

	if (to < 0 || fstat(from, &st) < 0) {
		r = -errno;
		if (to >= 0)
			close(to);
		return r;
	}
	if (size < 0)
		size = st.st_size;
	cloned = ioctl(to, FICLONE, from) == 0;
	if (!cloned)
		r = copy_bytes(b, from, to, size);
	if (r == 0 && ftruncate(to, size) < 0)
		r = -errno;
	if (r == 0)
		futimens(to, ts);
	b->result->cloned += r == 0 && cloned;
	b->result->copied += r == 0 && !cloned;
	close(to);
	return r;
}

static int make_shard(struct backup *b, uint64_t vid)
{
	char name[16];

	snprintf(name, sizeof(name), "data/%02x", (unsigned)(vid & 0xff));
	return mkdirat(b->to, name, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* PART gets its name. */
static int put_part(struct backup *b, const char *name)
{
	return renameat(b->to, PART, b->to, name) < 0 ? -errno : 0;
}

/* A published file whose draft only appends is given up to that draft before anything else is written to it: by then its
 * name is that of a file with the same bytes. */
static bool has_still_its_name(struct backup *b, int fd, const char *name)
{
	struct stat own, named;

	return fstat(fd, &own) == 0 && fstatat(b->s->fd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       own.st_ino == named.st_ino && own.st_dev == named.st_dev;
}

/* -ESTALE: try again. */
static int take_whole(struct backup *b, const struct needed *n)
{
	char name[32];
	struct stat st;
	int fd = open_source(b, n->vid, name), r = 0;

	if (fd == -ENOENT && n->instead != 0)
		fd = open_source(b, n->instead, name);
	if (fd == -ENOENT) /* it was moved in between */
		fd = open_source(b, n->vid, name);
	if (fd < 0)
		return fd == -ENOENT ? -EBADMSG : fd;
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if (st.st_size < n->size)
		r = -EBADMSG;
	if (r == 0)
		r = copy_part(b, fd, n->size, mtime_of(&st));
	if (r == 0 && !has_still_its_name(b, fd, name))
		r = -ESTALE;
	close(fd);
	return r;
}

static bool is_there(struct backup *b, const char *name, int64_t size)
{
	struct stat st;

	return fstatat(b->to, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_size == size;
}

static int place_whole(struct backup *b, const struct needed *n)
{
	char to[32];
	int r;

	data_name(to, n->vid);
	if (is_there(b, to, n->size)) {
		b->result->there++;
		return 0;
	}
	r = make_shard(b, n->vid);
	if (r < 0)
		return r;
	do {
		r = take_whole(b, n);
	} while (r == -ESTALE);
	return r == 0 ? put_part(b, to) : r;
}

static int place_live(struct backup *b, const struct needed *n)
{
	char name[32], to[32];
	struct stat st;
	int fd = open_source(b, n->vid, name), r;

	data_name(to, n->vid);
	if (fd < 0)
		return fd == -ENOENT ? -EBADMSG : fd;
	r = make_shard(b, n->vid);
	for (int i = 0; i < TRIES; i++) {
		if (r == 0)
			r = fstat(fd, &st) < 0 ? -errno : copy_part(b, fd, -1, mtime_of(&st));
		if (r != -EBADMSG)
			break;
		r = 0; /* it became shorter meanwhile */
	}
	close(fd);
	return r == 0 ? put_part(b, to) : r;
}

/* A newer moment may have it otherwise. When it has not after some, somebody writes it for longer: as of this moment he
 * has not finished. */
static int comes_later(struct backup *b, const struct needed *n)
{
	unsigned i = 0;

	while (i < b->moving_count && b->moving[i].vid != n->vid)
		i++;
	if (i == b->moving_count && i < sizeof(b->moving) / sizeof(b->moving[0]))
		b->moving[b->moving_count++] = (struct moving){ .vid = n->vid };
	if (i < b->moving_count && b->moving[i].times++ < PATIENCE) {
		b->again = true;
		return 0;
	}
	b->o->left_out(b->o->arg, n->object, "somebody is writing it");
	return 0;
}

static bool as_it_was(int fd, const struct needed *n)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_size == n->size && mtime_of(&st) == n->mtime;
}

static int place_sealed(struct backup *b, const struct needed *n)
{
	char name[32], to[32];
	int fd = open_source(b, n->vid, name), r;

	draft_name(to, n->vid);
	unlinkat(b->to, to, 0);
	if (fd == -ENOENT)
		return comes_later(b, n);
	if (fd < 0)
		return fd;
	r = as_it_was(fd, n) ? copy_part(b, fd, n->size, n->mtime) : -EBADMSG;
	if (r == 0 && !as_it_was(fd, n))
		r = -EBADMSG;
	close(fd);
	if (r == -EBADMSG)
		return comes_later(b, n);
	return r == 0 ? put_part(b, to) : r;
}

/* Nothing has changed from before the copy to its end. */
static int copy_at_rest(struct backup *b, int fd)
{
	struct timespec now, pause = { .tv_nsec = SETTLED_NS };
	struct stat before, after;
	int r;

	if (fstat(fd, &before) < 0)
		return -errno;
	clock_gettime(CLOCK_REALTIME, &now);
	if ((int64_t)now.tv_sec * NS_PER_S + now.tv_nsec - mtime_of(&before) < SETTLED_NS) {
		nanosleep(&pause, NULL);
		return -EAGAIN;
	}
	r = copy_part(b, fd, before.st_size, mtime_of(&before));
	if (r == 0 && (fstat(fd, &after) < 0 || after.st_size != before.st_size || mtime_of(&after) != mtime_of(&before)))
		r = -EAGAIN;
	return r == -EBADMSG ? -EAGAIN : r;
}

static int place_synced(struct backup *b, const struct needed *n)
{
	char name[32], to[32];
	int fd = open_source(b, n->vid, name), r = -EAGAIN;

	draft_name(to, n->vid);
	unlinkat(b->to, to, 0);
	if (fd == -ENOENT)
		return comes_later(b, n);
	if (fd < 0)
		return fd;
	if (strncmp(name, "data/", 5) == 0) { /* it was published since */
		close(fd);
		return comes_later(b, n);
	}
	for (int i = 0; r == -EAGAIN && i < TRIES; i++)
		r = copy_at_rest(b, fd);
	close(fd);
	if (r != -EAGAIN)
		return r == 0 ? put_part(b, to) : r;
	b->o->left_out(b->o->arg, n->object, "somebody is writing it");
	return 0;
}

static int place_draft(struct backup *b, const struct needed *n)
{
	char name[32], to[32];
	struct stat st;
	int fd = open_source(b, n->vid, name), r;

	draft_name(to, n->vid);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	r = fstat(fd, &st) < 0 ? -errno : copy_part(b, fd, st.st_size, mtime_of(&st));
	close(fd);
	return r == 0 ? put_part(b, to) : r;
}

static int place(void *arg, const struct needed *n)
{
	static int (*const placing[])(struct backup *b, const struct needed *n) = {
		[NEED_WHOLE] = place_whole, [NEED_LIVE] = place_live, [NEED_SEALED] = place_sealed,
		[NEED_SYNCED] = place_synced, [NEED_DRAFT] = place_draft,
	};
	struct backup *b = arg;
	int r = stopped(b) ? -ECANCELED : placing[n->need](b, n);

	b->o->progress(b->o->arg, "data files", ++b->done, 0);
	if (r == -EBADMSG)
		return fail(b, r, "see 'promisefs fsck' and repair it first", "object %llu has lost data (version file %016llx)",
			    (unsigned long long)n->object, (unsigned long long)n->vid);
	return r < 0 ? fail_to(b, r) : 0;
}

/* One moment */

/* What an older one had of them may be something else by now. */
static void remove_drafts(struct backup *b)
{
	int fd = openat(b->to, "drafts", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (dir != NULL && (e = readdir(dir)) != NULL)
		if (e->d_name[0] != '.')
			unlinkat(fd, e->d_name, 0);
	if (dir != NULL)
		closedir(dir);
}

static int copy_moment(struct backup *b)
{
	const char *why;
	int r;

	b->o->progress(b->o->arg, "catalog", 0, 0);
	r = meta_sqlite_copy(b->s->catalog, b->partial, b->o->stop, b->o->arg);
	if (r == -EBADMSG)
		return fail(b, r, "see 'promisefs fsck'", "its catalog is damaged");
	if (r < 0)
		return fail_to(b, r);
	r = meta_sqlite_open_reader(b->partial, &b->copy, &why);
	if (r < 0)
		return fail(b, r, "see 'promisefs fsck'", "its catalog cannot be used: %s", why);
	b->result->moments++;
	b->again = false;
	b->done = 0;
	remove_drafts(b);
	b->copy->ops->begin(b->copy);
	r = store_needed_files(b->copy, b->s->online, place, b);
	b->copy->ops->end(b->copy, META_ABANDON, NULL);
	b->result->files = b->done;
	return r;
}

static void close_copy(struct backup *b)
{
	if (b->copy != NULL)
		b->copy->ops->close(b->copy);
	b->copy = NULL;
}

static int copy_moments(struct backup *b)
{
	int r = copy_moment(b);

	while (r == 0 && b->again) {
		close_copy(b);
		if (b->result->moments >= MOMENTS_MAX)
			return fail(b, -EBUSY, "run it again when less is written", "too much changes all the time");
		r = copy_moment(b);
	}
	return r;
}

/* The whole */

static int remove_file(void *arg, const struct blob_file *f)
{
	struct backup *b = arg;
	char name[32];

	if (f->draft)
		draft_name(name, f->vid);
	else
		data_name(name, f->vid);
	return unlinkat(b->to, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

static void count_lost(void *arg, const struct fsck_finding *f)
{
	*(unsigned *)arg += strcmp(f->kind, "lost") == 0 || strcmp(f->kind, "short") == 0 || strcmp(f->kind, "long") == 0;
}

/* Older moments may have left files that this one does not speak of. Then it must be as its catalog says. */
static int confirm(struct backup *b)
{
	unsigned lost = 0;
	struct fsck_options look = { .found = count_lost, .arg = &lost };
	struct fsck_result ignored = { 0 };
	struct blobs *blobs;
	bool damaged;
	int r = store_fsck_catalog(b->copy, &look, &ignored, &damaged);

	if (r == 0 && damaged)
		return fail(b, -EBADMSG, "see 'promisefs fsck'", "its catalog is damaged");
	if (r == 0)
		r = blob_dir_look(b->to, &blobs);
	if (r < 0)
		return fail_to(b, r);
	r = store_unknown_files(b->copy, blobs, remove_file, b);
	if (r == 0)
		r = store_fsck(b->copy, blobs, &look, &ignored);
	blob_dir_close(blobs);
	if (r == 0 && lost > 0)
		return fail(b, -EIO, "remove the directory and run it again", "the copy is not as its catalog says");
	return r < 0 ? fail_to(b, r) : 0;
}

static int sync_dir(int fd)
{
	return fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
}

static int complete(struct backup *b)
{
	int r = fchmodat(b->to, PARTIAL, 0600, 0) < 0 ? -errno : 0;

	unlinkat(b->to, PARTIAL "-wal", 0);
	unlinkat(b->to, PARTIAL "-shm", 0);
	if (r == 0 && syncfs(b->to) < 0)
		r = -errno;
	if (r == 0)
		r = sync_dir(b->to);
	if (r == 0 && renameat(b->to, PARTIAL, b->to, "catalog.db") < 0)
		r = -errno;
	if (r == 0)
		unlinkat(b->to, BACKUP_MARKER, 0);
	if (r == 0)
		r = sync_dir(b->to);
	return r < 0 ? fail_to(b, r) : 0;
}

/* Where to */

static int write_marker(struct backup *b, int fd, const char *text)
{
	ssize_t n = pwrite(fd, text, strlen(text), 0);

	return n == (ssize_t)strlen(text) ? 0 : fail_to(b, n < 0 ? -errno : -ENOSPC);
}

static int read_identity(struct backup *b, char uuid[static 64])
{
	struct meta *m;
	const char *why;
	int r = meta_sqlite_open_reader(b->s->catalog, &m, &why);

	if (r < 0)
		return fail(b, r, "see 'promisefs fsck'", "its catalog cannot be used: %s", why);
	m->ops->begin(m);
	r = m->ops->identity(m, uuid);
	m->ops->end(m, META_ABANDON, NULL);
	m->ops->close(m);
	return r < 0 ? fail(b, r, "see 'promisefs fsck'", "its catalog cannot be read") : 0;
}

static bool is_empty(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	bool empty = dir != NULL;

	while (empty && (e = readdir(dir)) != NULL)
		empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
	if (dir != NULL)
		closedir(dir);
	return empty;
}

/* The marker says what the directory is, until it is a store. */
static int mark(struct backup *b)
{
	char uuid[64], text[256], there[256] = "";
	int r = read_identity(b, uuid), fd;
	ssize_t n;

	if (r < 0)
		return r;
	snprintf(text, sizeof(text), "An unfinished copy of the promisefs store %s, of no use like this.\n"
		 "Run promisefs backup again to go on with it, or remove this directory.\n", uuid);
	fd = openat(b->to, BACKUP_MARKER, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && !is_empty(b->to))
		return fail(b, -EEXIST, "name a new directory", "it is not empty");
	if (fd < 0) {
		fd = openat(b->to, BACKUP_MARKER, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		r = fd < 0 ? fail_to(b, -errno) : write_marker(b, fd, text);
	} else {
		n = read(fd, there, sizeof(there) - 1);
		there[n > 0 ? n : 0] = '\0';
		if (n >= 0 && n < (ssize_t)strlen(text) && strncmp(there, text, (size_t)n) == 0)
			r = write_marker(b, fd, text); /* a disk that was full: nothing was copied behind it */
		else if (strcmp(there, text) != 0)
			r = fail(b, -EEXIST, "name a new directory, or remove this one", "it has an unfinished copy of another store");
		else if (faccessat(b->to, "catalog.db", F_OK, 0) == 0)
			r = fail(b, -EEXIST, "name a new directory", "it is a complete copy already");
	}
	if (fd >= 0)
		close(fd);
	return r;
}

/* As its owner himself where he can; where he cannot, he can put nothing else there either. */
static bool make_as(const char *dest, const struct stat *owner)
{
	bool made = setegid(owner->st_gid) == 0 && seteuid(owner->st_uid) == 0 && mkdir(dest, 0700) == 0;

	return (seteuid(0) < 0 || setegid(0) < 0) || made;
}

void backup_make_dest(const char *store, const char *dest)
{
	struct stat st;
	int fd;

	if (geteuid() != 0 || stat(store, &st) < 0 || st.st_uid == 0 || make_as(dest, &st) || mkdir(dest, 0700) < 0)
		return;
	fd = open(dest, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && fchown(fd, st.st_uid, st.st_gid) == 0)
		errno = 0;
	if (fd >= 0)
		close(fd);
}

static int open_dest(struct backup *b, const char *dest)
{
	size_t n = strlen(b->s->path);
	struct stat st;
	int r;

	if (mkdir(dest, 0700) < 0 && errno != EEXIST)
		return fail(b, -errno, "make its parent directory, or name another place", "cannot be made: %s", strerror(errno));
	if (realpath(dest, b->dest) == NULL)
		return fail(b, -errno, "name another place", "%s", strerror(errno));
	if (strncmp(b->dest, b->s->path, n) == 0 && (b->dest[n] == '/' || b->dest[n] == '\0'))
		return fail(b, -EINVAL, "name a directory outside of it", "it is inside of the store");
	snprintf(b->partial, sizeof(b->partial), "%s/%s", b->dest, PARTIAL);
	b->to = open(b->dest, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->to < 0)
		return fail(b, -errno, "name a new directory", "%s", strerror(errno));
	if (fstat(b->to, &st) < 0 || st.st_uid != geteuid())
		return fail(b, -EPERM, "name a new directory", "it belongs to another user than the store, or the caller");
	r = mark(b);
	if (r == 0 && ((mkdirat(b->to, "data", 0700) < 0 && errno != EEXIST) ||
		       (mkdirat(b->to, "drafts", 0700) < 0 && errno != EEXIST)))
		r = fail_to(b, -errno);
	return r;
}

int backup_store(struct offline *s, const char *dest, const struct backup_options *o, struct backup_result *result)
{
	struct backup b = { .s = s, .o = o, .result = result, .to = -1, .hold = -1 };
	int r = open_dest(&b, dest);

	if (r == 0) {
		b.hold = blob_dir_hold(s->fd);
		if (b.hold == -EINTR)
			r = fail_to(&b, -ECANCELED);
		else if (b.hold < 0)
			r = fail(&b, b.hold, "see 'promisefs fsck'", "its directory data: %s", strerror(-b.hold));
	}
	if (r == 0)
		r = copy_moments(&b);
	if (r == 0)
		r = confirm(&b);
	close_copy(&b);
	if (r == 0)
		r = complete(&b);
	if (b.to >= 0) {
		unlinkat(b.to, PART, 0);
		close(b.to);
	}
	if (b.hold >= 0)
		close(b.hold);
	return r;
}

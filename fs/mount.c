/* Setting up and taking down: options, the store and its lock, the daemon, and the report to who started it. */
#include "fs/mount.h"

#include "core/parse.h"
#include "fs/backup.h"
#include "fs/blob_dir.h"
#include "fs/descriptors.h"
#include "fs/fs.h"
#include "fs/offline.h"
#include "fs/process.h"
#include "fs/shared.h"
#include "fs/supervisor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static int complain(const char *what, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int complain(const char *what, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "promisefs mount: %s: ", what);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return -1;
}

/* Options: one table */

static int set_passthrough(struct fs_options *o, const char *value)
{
	static const char *const names[] = { "auto", "on", "off" };

	for (int i = 0; i < 3; i++)
		if (strcmp(value, names[i]) == 0) {
			o->passthrough = (enum passthrough)i;
			return 0;
		}
	return -EINVAL;
}

static int set_seccomp(struct fs_options *o, const char *value)
{
	static const char *const names[] = { "auto", "on", "off" };

	for (int i = 0; i < 3; i++)
		if (strcmp(value, names[i]) == 0) {
			o->seccomp = (enum seccomp)i;
			return 0;
		}
	return -EINVAL;
}

static int set_producer_death(struct fs_options *o, const char *value)
{
	o->core.producer_death_waits = strcmp(value, "wait") == 0;
	return o->core.producer_death_waits || strcmp(value, "fail") == 0 ? 0 : -EINVAL;
}

static int set_aborted_age(struct fs_options *o, const char *value)
{
	return parse_duration(value, &o->core.aborted_age);
}

static int set_aborted_bytes(struct fs_options *o, const char *value)
{
	return parse_size(value, &o->core.aborted_bytes);
}

static int set_wait_timeout(struct fs_options *o, const char *value)
{
	o->core.wait_timeout = -1;
	return strcmp(value, "none") == 0 ? 0 : parse_duration(value, &o->core.wait_timeout);
}

static int set_threads(struct fs_options *o, const char *value)
{
	uint64_t n;

	if (parse_size(value, &n) < 0 || n < 1 || n > 64)
		return -EINVAL;
	o->threads = (unsigned)n;
	return 0;
}

static int set_busy_poll(struct fs_options *o, const char *value)
{
	o->busy_poll = 0;
	if (strcmp(value, "off") == 0)
		return 0;
	return parse_duration(value, &o->busy_poll) < 0 || o->busy_poll > BUSY_POLL_MAX_NS ? -EINVAL : 0;
}

static int set_allow_other(struct fs_options *o, const char *value)
{
	o->allow_other = true;
	return 0;
}

static int set_read_only(struct fs_options *o, const char *value)
{
	o->read_only = true;
	return 0;
}

static int set_acl(struct fs_options *o, const char *value)
{
	o->core.acls = ACLS_ON;
	return 0;
}

static int set_noacl(struct fs_options *o, const char *value)
{
	o->core.acls = ACLS_OFF;
	return 0;
}

static int set_supervisor(struct fs_options *o, const char *value)
{
	o->supervised = strcmp(value, "on") == 0;
	return o->supervised || strcmp(value, "off") == 0 ? 0 : -EINVAL;
}

static int set_restart_limit(struct fs_options *o, const char *value)
{
	uint64_t n = 0;

	if (strcmp(value, "none") != 0 && (parse_size(value, &n) < 0 || n < 1 || n > DEATHS_MAX))
		return -EINVAL;
	o->restart_limit = (unsigned)n;
	return 0;
}

static int set_nothing(struct fs_options *o, const char *value)
{
	return 0;
}

static const struct option_row {
	const char *name;
	bool has_value;
	int (*set)(struct fs_options *o, const char *value);
	const char *expects;
} option_table[] = {
	{ "passthrough", true, set_passthrough, "auto, on or off" },
	{ "seccomp", true, set_seccomp, "auto, on or off" },
	{ "on-producer-death", true, set_producer_death, "fail or wait" },
	{ "aborted-age", true, set_aborted_age, "a duration such as 24h" },
	{ "aborted-bytes", true, set_aborted_bytes, "a size such as 1G" },
	{ "wait-timeout", true, set_wait_timeout, "a duration such as 60s, or none" },
	{ "threads", true, set_threads, "a number from 1 to 64" },
	{ "busy-poll", true, set_busy_poll, "a duration of at most 1ms such as 50us, or off" },
	{ "supervisor", true, set_supervisor, "on or off" },
	{ "restart-limit", true, set_restart_limit, "a number from 1 to 64, or none" },
	{ "allow_other", false, set_allow_other, NULL },
	{ "ro", false, set_read_only, NULL },
	{ "acl", false, set_acl, NULL },
	{ "noacl", false, set_noacl, NULL },
	{ "rw", false, set_nothing, NULL }, /* what mount(8) adds by itself */
	{ "dev", false, set_nothing, NULL },
	{ "suid", false, set_nothing, NULL },
	{ "nodev", false, set_nothing, NULL },
	{ "nosuid", false, set_nothing, NULL },
};

/* mount(8) knows options with either. */
static bool same_name(const char *a, const char *b)
{
	while (*a != '\0' && (*a == *b || (strchr("-_", *a) != NULL && strchr("-_", *b) != NULL && *b != '\0')))
		a++, b++;
	return *a == *b;
}

#define MAX_BY_DESCRIPTORS UINT64_MAX

/* What one user may have (core/limit_rule.h). 1: it is no such option. */
static int set_limit(struct fs_options *o, const char *name, const char *value)
{
	uint64_t n = 0;

	for (int i = 0; i < LIMITED_COUNT; i++) {
		if (!same_name(limits[i].option, name) || value == NULL)
			continue;
		if (strcmp(value, "none") != 0 && (parse_size(value, &n) < 0 || n == 0 || n > INT32_MAX))
			return complain(name, "cannot be '%s'; give a number from 1, or none", value);
		o->core.max[i] = n;
		return 0;
	}
	return 1;
}

static void set_usual_limits(struct store_options *o)
{
	for (int i = 0; i < LIMITED_COUNT; i++)
		o->max[i] = limits[i].usual;
	o->max[LIMITED_OPEN] = MAX_BY_DESCRIPTORS;
}

static int set_option(struct fs_options *o, char *option)
{
	int r;

	char *value = strchr(option, '=');

	if (value != NULL)
		*value++ = '\0';
	for (size_t i = 0; i < sizeof(option_table) / sizeof(option_table[0]); i++) {
		const struct option_row *row = &option_table[i];

		if (!same_name(row->name, option) || row->has_value != (value != NULL))
			continue;
		if (row->set(o, value) < 0)
			return complain(option, "cannot be '%s'; give %s", value, row->expects);
		return 0;
	}
	r = set_limit(o, option, value);
	if (r <= 0)
		return r;
	return complain(option, "no such option%s; see promisefs(5)", value != NULL ? " with a value" : "");
}

static int parse_options(struct fs_options *o, const char *options)
{
	char *copy = strdup(options != NULL ? options : ""), *rest = copy, *option;
	int r = copy == NULL ? complain("options", "no memory") : 0;

	while (r == 0 && (option = strsep(&rest, ",")) != NULL)
		if (*option != '\0')
			r = set_option(o, option);
	free(copy);
	return r;
}

/* The store */

static int lock_store(struct fs *fs)
{
	char owner[PATH_MAX + 64] = "";
	ssize_t n;

	fs->lock_fd = openat(fs->store_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fs->lock_fd < 0)
		return complain(fs->options.store, "cannot lock it: %s; check its permissions and the disk", strerror(errno));
	if (flock(fs->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		n = pread(fs->lock_fd, owner, sizeof(owner) - 1, 0);
		owner[n > 0 ? n : 0] = '\0';
		if (strncmp(owner, "promisefs ", 10) == 0)
			return complain(fs->options.store, "in use by %s; wait until that has ended", owner);
		return complain(fs->options.store, "already mounted by %s; use that, or unmount it first", owner);
	}
	return 0;
}

static int write_owner(struct fs *fs)
{
	char owner[PATH_MAX + 64];
	int n = snprintf(owner, sizeof(owner), "pid %d at %s", getpid(), fs->options.mountpoint);

	if (ftruncate(fs->lock_fd, 0) < 0 || pwrite(fs->lock_fd, owner, (size_t)n, 0) != n)
		return complain(fs->options.store, "cannot be written: %s", strerror(errno));
	return 0;
}

static int open_store_dir(struct fs *fs)
{
	const char *store = fs->options.store;

	if (mkdir(store, 0700) < 0 && errno != EEXIST)
		return complain(store, "cannot make it: %s; make its parent directory, or name another place", strerror(errno));
	fs->store_fd = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fs->store_fd < 0)
		return complain(store, "%s; a store is a directory of its own", strerror(errno));
	return 0;
}

static bool has_file(int at, const char *name, bool deeper)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	bool found = false;
	struct dirent *e;
	struct stat st;

	while (!found && dir != NULL && (e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.' || fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		found = S_ISREG(st.st_mode) || (deeper && S_ISDIR(st.st_mode) && has_file(fd, e->d_name, false));
	}
	if (dir != NULL)
		closedir(dir);
	return found;
}

/* With an empty catalog all its data would be of no use, and drafts would be deleted. */
static bool has_lost_its_catalog(struct fs *fs)
{
	struct stat st;

	if (fstatat(fs->store_fd, "catalog.db", &st, 0) == 0 &&
	    (st.st_size > 0 || (fstatat(fs->store_fd, "catalog.db-wal", &st, 0) == 0 && st.st_size > 0)))
		return false;
	return has_file(fs->store_fd, "data", true) || has_file(fs->store_fd, "drafts", false);
}

static bool is_repairing(struct fs *fs)
{
	return faccessat(fs->store_fd, OFFLINE_REPAIRING, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* A copy that promisefs backup has not finished never was one. */
static bool was_a_store(struct fs *fs)
{
	if (faccessat(fs->store_fd, BACKUP_MARKER, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return false;
	return is_repairing(fs) || (faccessat(fs->store_fd, "drafts", F_OK, 0) == 0 && has_lost_its_catalog(fs));
}

/* A directory that has other things in it is somebody's, not a store. */
static int check_is_store(struct fs *fs)
{
	int fd = openat(fs->store_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	bool catalog = faccessat(fs->store_fd, "catalog.db", F_OK, 0) == 0, other = false;
	struct dirent *e;

	if (dir == NULL)
		return complain(fs->options.store, "cannot read it: %s", strerror(errno));
	while ((e = readdir(dir)) != NULL)
		other = other || (e->d_name[0] != '.' && strcmp(e->d_name, "lock") != 0 && strcmp(e->d_name, "data") != 0 &&
				  strcmp(e->d_name, "drafts") != 0 && strcmp(e->d_name, "lost+found") != 0);
	closedir(dir);
	if (!catalog && (other || has_lost_its_catalog(fs)) && !was_a_store(fs))
		return complain(fs->options.store, "is not empty and not a store; name a new or empty directory");
	return 0;
}

/* When nobody is at work on it. */
static int check_is_whole(struct fs *fs)
{
	if (is_repairing(fs))
		return complain(fs->options.store, "a repair did not come to its end; 'promisefs fsck --repair %s' "
				"goes on with it", fs->options.store);
	if (has_lost_its_catalog(fs))
		return complain(fs->options.store, "has data, but its catalog is missing; 'promisefs fsck --repair %s' "
				"sets the data aside", fs->options.store);
	return 0;
}

/* A new store; an old one's directory is as its owner has made it. */
static void make_private(struct fs *fs)
{
	struct stat st;

	if (faccessat(fs->store_fd, "catalog.db", F_OK, 0) < 0 && fstat(fs->store_fd, &st) == 0 && st.st_uid == geteuid() &&
	    (st.st_mode & 077) != 0 && fchmod(fs->store_fd, 0700) < 0)
		complain(fs->options.store, "cannot be made private: %s", strerror(errno));
}

static int open_catalog(struct fs *fs)
{
	char path[PATH_MAX];
	const char *why;
	int r;

	if (snprintf(path, sizeof(path), "%s/catalog.db", fs->options.store) >= (int)sizeof(path))
		return complain(fs->options.store, "its path is too long");
	r = fs->shared != NULL ? meta_sqlite_open_redo(path, fs->shared->redo, &fs->meta, &why) :
				 meta_sqlite_open(path, &fs->meta, &why);
	return r < 0 ? complain(path, "cannot use the catalog: %s", why) : 0;
}

/* What core asks of us */

static void hook_process(void *arg, int32_t tid, struct process *p)
{
	process_look(tid, p);
}

static bool hook_holds(void *arg, int32_t tid, uint64_t node)
{
	return process_holds(tid, ((struct fs *)arg)->dev, node);
}

static bool hook_held(void *arg, uint64_t node)
{
	return process_any_holds(((struct fs *)arg)->dev, node);
}

static bool hook_only_these_hold(void *arg, const struct holding *h, unsigned n)
{
	return process_only_these_hold(((struct fs *)arg)->dev, h, n);
}

static int hook_identify(void *arg, const struct caller *who, int32_t pid, uint64_t *start)
{
	return watch_identify(who, pid, start);
}

static void hook_watch(void *arg, int32_t pid, uint64_t start)
{
	watch_process(((struct fs *)arg)->watch, pid, start);
}

static void hook_invalidate(void *arg, uint64_t parent, const char *name)
{
	fs_invalidate(arg, parent, name);
}

static void hook_forget(void *arg, uint64_t node)
{
	fs_forget_later(arg, node);
}

static void hook_forget_now(void *arg, uint64_t node)
{
	struct fs *fs = arg;

	if (atomic_load(&fs->serving))
		fs_forget_attributes(fs, node);
}

static void hook_told(void *arg, struct told *t)
{
	fs_told(arg, t);
}

static void hook_event(void *arg, const struct meta_event *e)
{
	listeners_tell(arg, e);
}

static const struct store_hooks hooks = {
	.process = hook_process, .holds = hook_holds, .held = hook_held, .only_these_hold = hook_only_these_hold,
	.identify = hook_identify, .watch = hook_watch, .invalidate = hook_invalidate, .forget = hook_forget,
	.forget_now = hook_forget_now, .told = hook_told, .event = hook_event,
};

static int open_store(struct fs *fs)
{
	int r;

	if (open_catalog(fs) < 0)
		return -1;
	r = blob_dir_open(fs->store_fd, &fs->blobs);
	fs->options.core.boot_id = watch_boot_id();
	if (fs->shared != NULL)
		fs->options.core.kept = fs->shared->kept;
	if (connection_is_taken_over(fs)) /* the kernel was told what counts */
		fs->options.core.acls = fs->shared->uses_acls ? ACLS_ON : ACLS_OFF;
	fs->watch = watch_new(fs);
	if (r == 0 && fs->watch == NULL)
		r = -ENOMEM;
	if (r == 0)
		r = store_open_all(fs->meta, fs->blobs, &hooks, fs, &fs->options.core, &fs->store);
	if (r < 0)
		return complain(fs->options.store, "cannot be opened: %s%s", strerror(-r),
				r == -EBADMSG ? " (the catalog is damaged); restore it from a copy" : "");
	if (fs->shared != NULL)
		files_adopt(fs);
	r = watch_start(fs->watch);
	return r < 0 ? complain("daemon", "cannot start a thread: %s", strerror(-r)) : 0;
}

static void close_store(struct fs *fs)
{
	watch_stop(fs->watch);
	store_stop(fs->store);
	atomic_store(&fs->serving, false); /* from now on nothing goes to the invalidator */
	workers_free(fs->tellers);
	fs->tellers = NULL;
	workers_free(fs->slow);
	fs->slow = NULL;
	workers_free(fs->workers);
	fs->workers = NULL;
	workers_finish(fs->invalidator); /* which may yet need the catalog */
	if (fs->meta != NULL)
		fs->meta->ops->close(fs->meta); /* completes what is pending, so somebody may just be on his way there */
	workers_free(fs->invalidator);
	fs->invalidator = NULL;
	timers_free(fs->timers);
	store_close(fs->store);
	fs->store = NULL;
	files_forget(fs);
	watch_free(fs->watch);
	patience_free(fs);
	views_free(fs);
	blob_dir_close(fs->blobs);
}

/* The mount point */

static int check_mountpoint(const char *mountpoint)
{
	struct stat st, parent;
	char up[PATH_MAX];
	DIR *dir;
	struct dirent *e;
	bool empty = true;

	if (stat(mountpoint, &st) < 0)
		return complain(mountpoint, "%s%s", strerror(errno),
				errno == ENOENT ? "; make the directory first" :
				errno == ENOTCONN ? "; a dead mount is there: umount it first" : "");
	if (!S_ISDIR(st.st_mode))
		return complain(mountpoint, "is not a directory");
	snprintf(up, sizeof(up), "%s/..", mountpoint);
	if (stat(up, &parent) == 0 && parent.st_dev != st.st_dev && st.st_ino == 1)
		return complain(mountpoint, "something is mounted there already; unmount it, or name another directory");
	dir = opendir(mountpoint);
	if (dir == NULL)
		return complain(mountpoint, "%s", strerror(errno));
	while ((e = readdir(dir)) != NULL)
		empty = empty && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0);
	closedir(dir);
	return empty ? 0 : complain(mountpoint, "is not empty; name an empty directory");
}

static int check_fuse(const char *mountpoint)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return complain(mountpoint, "/dev/fuse: %s; %s", strerror(errno),
				errno == EACCES ? "it must be readable and writable for you (usually mode 0666)" :
						  "load the fuse module, or allow it for this container");
	close(fd);
	return 0;
}

/* The daemon */

static int explain_end(struct fs *fs, int r)
{
	if (r == -EOPNOTSUPP)
		return complain(fs->options.mountpoint,
				"passthrough=on, but this kernel or user cannot; use passthrough=auto, or see promisefs doctor");
	if (r == -ENOTSUP)
		return complain(fs->options.mountpoint, "supervisor=on takes a kernel that can send requests again (6.9)");
	if (r == -ECONNREFUSED)
		return complain(fs->options.mountpoint, "the mount was refused; the line above says why");
	return r < 0 ? complain(fs->options.mountpoint, "%s", strerror(-r)) : 0;
}

/* Before there are threads: each has what the one has that starts it. */
static int give_up_privileges(struct fs *fs)
{
	struct stat st;
	struct privileges p = { .passthrough = passthrough_possible(&fs->options), .seccomp = fs->options.seccomp };
	int r;

	if (fstat(fs->store_fd, &st) == 0)
		p.foreign_store = st.st_uid != geteuid();
	r = fs->shared != NULL ? 0 : keeper_start(&fs->keeper, fs);
	if (r < 0)
		return complain("daemon", "cannot start a process: %s", strerror(-r));
	r = privileges_drop(&p);
	if (r == -EOPNOTSUPP)
		return complain("seccomp=on", "this build or this kernel has no filters; use seccomp=auto");
	return r < 0 ? complain("daemon", "cannot give up what it may not need: %s", strerror(-r)) : 0;
}

/* Exit status. */
static int run_mount(struct fs *fs, int ready_fd)
{
	int r = give_up_privileges(fs);

	if (r == 0)
		r = workers_new(8, &fs->workers) < 0 ? complain("daemon", "no memory") : 0;
	if (r == 0)
		r = workers_new(4, &fs->slow) < 0 ? complain("daemon", "no memory") : 0;
	if (r == 0)
		r = workers_new(2, &fs->tellers) < 0 ? complain("daemon", "no memory") : 0;
	if (r == 0)
		r = workers_new(1, &fs->invalidator) < 0 ? complain("daemon", "no memory") : 0;
	if (r == 0)
		r = timers_new(&fs->timers) < 0 ? complain("daemon", "no memory") : 0;
	if (r == 0 && slots_start(fs) < 0)
		r = complain("daemon", "no memory");
	if (r == 0)
		r = open_store(fs);
	fs->started = fs->meta != NULL ? fs->meta->ops->now(fs->meta) : 0;
	if (r == 0)
		r = explain_end(fs, session_run(fs, ready_fd));
	close_store(fs); /* its threads may still answer requests */
	session_free(fs);
	keeper_end(&fs->keeper);
	return r < 0 ? 1 : 0;
}

static void detach(void);
static int serve_and_detach(struct fs *fs, int report_fd);

static int serve_supervised(struct fs *fs, int ready_fd)
{
	const struct supervised how = {
		.work = fs->options.foreground ? run_mount : serve_and_detach, .detach = fs->options.foreground ? NULL : detach,
		.took_over = write_owner,
	};

	return supervise(fs, &how, ready_fd);
}

static int run(struct fs *fs, int ready_fd)
{
	int r;

	descriptors_start();
	if (fs->options.core.max[LIMITED_OPEN] == MAX_BY_DESCRIPTORS)
		fs->options.core.max[LIMITED_OPEN] = (descriptors_for_users() + 3) / 4;
	fs->options.core.owner = geteuid();
	r = open_store_dir(fs);
	if (r == 0)
		r = check_is_store(fs);
	if (r == 0)
		r = lock_store(fs);
	if (r == 0)
		r = check_is_whole(fs);
	if (r == 0)
		make_private(fs);
	if (r == 0)
		r = write_owner(fs);
	if (r == 0)
		r = fs->options.supervised ? serve_supervised(fs, ready_fd) : run_mount(fs, ready_fd);
	if (fs->lock_fd >= 0)
		close(fs->lock_fd);
	if (fs->store_fd >= 0)
		close(fs->store_fd);
	return r != 0 ? 1 : 0;
}

/* The mount answers: its README can be found. */
static int confirm(const struct fs *fs)
{
	char path[PATH_MAX + 32];
	struct stat st;

	snprintf(path, sizeof(path), "%s/" CONTROL_NAME "/README", fs->options.mountpoint);
	return stat(path, &st) < 0 ? complain(fs->options.mountpoint, "it was mounted, but does not answer: %s", strerror(errno)) : 0;
}

static void detach(void)
{
	int null = open("/dev/null", O_RDWR);

	setsid();
	if (chdir("/") < 0)
		perror("promisefs: /");
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	if (null > 2)
		close(null);
}

struct ready_watch {
	sem_t begun;
	int from, to;
};

/* Messages go to the parent's stderr until the mount is up; then the daemon lets go of it. */
static void *let_go(void *arg)
{
	struct ready_watch *w = arg;
	char byte;

	sem_post(&w->begun);
	if (read(w->from, &byte, 1) == 1) {
		detach();
		if (write(w->to, "", 1) < 0)
			_exit(1);
	}
	close(w->to);
	return NULL;
}

static int detaching(int (*what)(struct fs *fs, int ready_fd), struct fs *fs, int report_fd)
{
	struct ready_watch w = { .to = report_fd };
	pthread_t thread;
	sigset_t all, old;
	int inner[2], r;

	if (pipe2(inner, O_CLOEXEC) < 0 || sem_init(&w.begun, 0, 0) < 0)
		return 1;
	w.from = inner[0];
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old); /* signals are for the main thread */
	r = pthread_create(&thread, NULL, let_go, &w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r != 0)
		return 1;
	while (sem_wait(&w.begun) < 0)
		; /* while a thread begins, a process that is forked may have locks that nobody unlocks (AddressSanitizer's) */
	r = what(fs, inner[1]);
	close(inner[1]);
	pthread_join(thread, NULL);
	close(inner[0]);
	return r;
}

static int serve_and_detach(struct fs *fs, int report_fd)
{
	return report_fd < 0 ? run_mount(fs, -1) : detaching(run_mount, fs, report_fd);
}

/* A worker of a supervised mount detaches when it is ready, and so does the supervisor then. */
static int run_daemon(struct fs *fs, int report_fd)
{
	return fs->options.supervised ? run(fs, report_fd) : detaching(run, fs, report_fd);
}

static int start_daemon(struct fs *fs)
{
	int report[2], status;
	char byte;
	pid_t child;

	if (pipe2(report, O_CLOEXEC) < 0 || (child = fork()) < 0)
		return complain("daemon", "%s", strerror(errno)), 1;
	if (child == 0) {
		close(report[0]);
		exit(run_daemon(fs, report[1]));
	}
	close(report[1]);
	if (read(report[0], &byte, 1) == 1)
		return confirm(fs) < 0 ? 1 : 0;
	if (waitpid(child, &status, 0) == child && WIFEXITED(status))
		return WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : 1;
	return complain("daemon", "it ended by signal %d before the mount was up", WTERMSIG(status)), 1;
}

static void init_locks(struct fs *fs)
{
	pthread_mutex_init(&fs->backing_lock, NULL);
	pthread_mutex_init(&fs->detours_lock, NULL);
	pthread_mutex_init(&fs->waiting_lock, NULL);
	pthread_mutex_init(&fs->listeners_lock, NULL);
	pthread_mutex_init(&fs->awaited_lock, NULL);
	pthread_mutex_init(&fs->patience_lock, NULL);
}

/* The daemon leaves the directory it was started in. */
static int absolute_paths(const struct pfs_mount_args *args, char store[static PATH_MAX], char mountpoint[static PATH_MAX])
{
	if (realpath(args->mountpoint, mountpoint) == NULL)
		snprintf(mountpoint, PATH_MAX, "%s", args->mountpoint); /* the check says what is wrong */
	if (mkdir(args->store, 0700) < 0 && errno != EEXIST)
		return complain(args->store, "cannot make it: %s; make its parent directory, or name another place",
				strerror(errno));
	if (realpath(args->store, store) == NULL)
		return complain(args->store, "%s", strerror(errno));
	if (strncmp(store, mountpoint, strlen(mountpoint)) == 0 &&
	    (store[strlen(mountpoint)] == '/' || store[strlen(mountpoint)] == '\0'))
		return complain(args->store, "the store would be hidden by the mount; name a directory outside of %s", mountpoint);
	return 0;
}

static const struct store_options default_options = {
	.aborted_age = 24 * 3600 * NS_PER_SEC, .aborted_bytes = 1ULL << 30, .wait_timeout = -1,
};

int pfs_core_options(const char *words, struct store_options *options)
{
	struct fs_options o = { .core = default_options };
	int r = parse_options(&o, words);

	*options = o.core;
	return r;
}

int pfs_mount_main(const struct pfs_mount_args *args)
{
	static struct fs fs;
	static char store[PATH_MAX], mountpoint[PATH_MAX];

	umask(077); /* nothing in a store is for anybody but its owner */
	fs.store_fd = fs.lock_fd = -1;
	fs.keeper.fd = -1;
	fs.device = -1;
	fs.options.restart_limit = RESTARTS_DEFAULT;
	fs.options.busy_poll = BUSY_POLL_DEFAULT_NS;
	fs.options.core = default_options;
	set_usual_limits(&fs.options.core);
	if (parse_options(&fs.options, args->options) < 0)
		return 2;
	if (check_mountpoint(args->mountpoint) < 0 || check_fuse(args->mountpoint) < 0 ||
	    absolute_paths(args, store, mountpoint) < 0)
		return 1;
	fs.options.store = store;
	fs.options.mountpoint = mountpoint;
	fs.options.foreground = args->foreground;
	init_locks(&fs);
	return args->foreground ? run(&fs, -1) : start_daemon(&fs);
}

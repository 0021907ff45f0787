/* The FUSE session: mounting, the threads that serve requests, the end.
 *
 * One thread for each CPU reads requests and stays on its CPU: a request is then mostly answered where it was sent,
 * which saves the wake-up of another CPU. None of them may block for long; what does goes to the workers. */
#include "fs/fs.h"
#include "fs/process.h"
#include "fs/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MAX_WRITE (1 << 20)
#define THREADS_MAX 64
#define END_SECONDS 5

struct server {
	struct fs *fs;
	pthread_t main;
	pthread_t threads[THREADS_MAX];
	unsigned n;
	atomic_uint running;
};

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;
	unsigned want = FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
			FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_CACHE_SYMLINKS;

	if (fs->shared != NULL && !connection_is_taken_over(fs))
		fs->shared->uses_acls = store_uses_acls(fs->store);
	if (store_uses_acls(fs->store))
		want |= FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK; /* what is made may inherit a list instead of losing the umask */
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
	want |= FUSE_CAP_HANDLE_KILLPRIV_V2; /* see core/privileges.c; older libfuse: passthrough.c */
#endif
	conn->want |= conn->capable & want;
	if (fs->shared != NULL)
		conn->want &= ~(unsigned)FUSE_CAP_SPLICE_READ; /* which request a write is has to be known */
	conn->max_write = MAX_WRITE;
	conn->max_background = 64;
	conn->time_gran = 1;
	passthrough_ready(fs, conn);
}

static struct fuse_lowlevel_ops operations(void)
{
	struct fuse_lowlevel_ops ops = { .init = op_init };

	ops_names(&ops);
	ops_attributes(&ops);
	ops_open(&ops);
	ops_data(&ops);
	ops_directories(&ops);
	return ops;
}

/* libfuse takes what is not its own option for an error of ours, so a store's path must not look like a list. */
static void add_escaped(char *to, size_t size, const char *from)
{
	size_t n = strlen(to);

	for (; *from != '\0' && n + 3 < size; from++) {
		if (*from == ',' || *from == '\\')
			to[n++] = '\\';
		to[n++] = *from;
	}
	to[n] = '\0';
}

int session_new(struct fs *fs, struct fuse_session **ret)
{
	struct fuse_lowlevel_ops ops = operations();
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	char options[8192] = "default_permissions,subtype=promisefs,";
	struct fuse_session *se = NULL;

	if (fs->options.allow_other)
		strcat(options, "allow_other,");
	if (fs->options.read_only)
		strcat(options, "ro,");
	strcat(options, "fsname=");
	add_escaped(options, sizeof(options), fs->options.store);
	if (fuse_opt_add_arg(&args, "promisefs") == 0 && fuse_opt_add_arg(&args, "-o") == 0 &&
	    fuse_opt_add_arg(&args, options) == 0)
		se = fuse_session_new(&args, &ops, sizeof(ops), fs);
	fuse_opt_free_args(&args);
	*ret = se;
	return se == NULL ? -EINVAL : 0;
}

static int serve_one(struct fs *fs, struct fuse_buf *buf)
{
	int r;

	busy_poll(fs);
	r = fuse_session_receive_buf(fs->se, buf);
	busy_poll_request(fs);
	if (r > 0)
		metrics_serve(fs, buf);
	return r == -EINTR ? 1 : r; /* whether it is to end is for the caller to see */
}

static void *serve(void *arg)
{
	struct server *s = arg;
	struct fuse_buf buf = { 0 };

	while (!fuse_session_exited(s->fs->se) && serve_one(s->fs, &buf) > 0)
		;
	free(buf.mem);
	if (atomic_fetch_sub(&s->running, 1) == 1)
		pthread_kill(s->main, SIGTERM); /* the last one: it was unmounted */
	return NULL;
}

static void pin(pthread_t thread, const cpu_set_t *allowed, unsigned nth)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, allowed) && nth-- == 0) {
			CPU_SET(cpu, &one);
			pthread_setaffinity_np(thread, sizeof(one), &one);
			return;
		}
}

static int start_threads(struct server *s)
{
	cpu_set_t allowed;
	unsigned cpus, wanted;

	sched_getaffinity(0, sizeof(allowed), &allowed);
	cpus = (unsigned)CPU_COUNT(&allowed);
	wanted = s->fs->options.threads != 0 ? s->fs->options.threads : cpus < 2 ? 2 : cpus;
	wanted = wanted > THREADS_MAX ? THREADS_MAX : wanted;
	atomic_store(&s->running, wanted);
	for (s->n = 0; s->n < wanted; s->n++) {
		int r = pthread_create(&s->threads[s->n], NULL, serve, s);

		if (r != 0) {
			atomic_fetch_sub(&s->running, wanted - s->n);
			return s->n > 0 ? 0 : -r;
		}
		pthread_setname_np(s->threads[s->n], "fuse");
		if (wanted <= cpus)
			pin(s->threads[s->n], &allowed, s->n);
	}
	return 0;
}

/* The device of the mount, without a request to it: nobody serves yet. */
static void learn_device(struct fs *fs)
{
	struct statx sx;

	if (connection_is_taken_over(fs))
		fs->dev = fs->shared->dev; /* it may have been unmounted, but is in use still */
	else if (statx(AT_FDCWD, fs->options.mountpoint, AT_STATX_DONT_SYNC, STATX_INO, &sx) == 0)
		fs->dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
	if (fs->shared != NULL)
		fs->shared->dev = fs->dev;
}

static void abort_connection(struct fs *fs)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", minor(fs->dev));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "1", 1) < 0)
			perror(path);
		close(fd);
	}
}

/* Told to end while it is mounted: unmount for everybody at once, give those who have files open a moment. */
static void end_mount(struct server *s)
{
	sigset_t set;
	struct timespec limit = { .tv_sec = END_SECONDS };

	if (atomic_load(&s->running) == 0)
		return;
	keeper_unmount(&s->fs->keeper);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	while (atomic_load(&s->running) > 0)
		if (sigtimedwait(&set, NULL, &limit) < 0 && errno == EAGAIN) {
			abort_connection(s->fs);
			fuse_session_exit(s->fs->se);
			for (unsigned i = 0; i < s->n; i++)
				pthread_kill(s->threads[i], SIGUSR1); /* out of read(2), should the abort have been refused */
			break;
		}
}

static void join_threads(struct server *s)
{
	for (unsigned i = 0; i < s->n; i++)
		pthread_join(s->threads[i], NULL);
}

static void only_interrupt(int sig)
{
}

/* From another worker, with what he has left undone. As serve_one. */
static int take_over(struct fs *fs)
{
	int r;

	connection_replay(fs);
	atomic_store(&fs->serving, true);
	r = invalidate_resume(fs);
	if (r == 0)
		r = connection_resume(fs);
	return r < 0 ? r : 1;
}

static int serve_until_unmounted(struct fs *fs, int ready_fd)
{
	struct server s = { .fs = fs, .main = pthread_self() };
	struct fuse_buf buf = { 0 };
	const bool taken_over = connection_is_taken_over(fs);
	sigset_t set;
	int sig, r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = only_interrupt }, NULL);
	learn_device(fs);
	if (!taken_over)
		atomic_store(&fs->serving, true);
	r = taken_over ? take_over(fs) : serve_one(fs, &buf); /* INIT, alone */
	free(buf.mem);
	if (r > 0 && fs->shared != NULL && !connection_can_resend(fs))
		return -ENOTSUP;
	if (r > 0 && fs->options.passthrough == PASSTHROUGH_ON && !atomic_load(&fs->passthrough))
		return -EOPNOTSUPP;
	r = r > 0 ? start_threads(&s) : r == 0 ? -ECONNABORTED : r;
	if (r < 0)
		return r;
	if (ready_fd >= 0 && write(ready_fd, "", 1) < 0)
		perror("promisefs: telling the parent");
	sigwait(&set, &sig);
	end_mount(&s);
	join_threads(&s);
	return 0;
}

/* The keeper mounts, and the session takes over what it is given. */
static int mount_session(struct fs *fs)
{
	int fd = fs->device >= 0 ? fs->device : keeper_mount(&fs->keeper);
	char path[32];

	if (fd < 0)
		return fd == -ECONNREFUSED ? fd : -ECONNABORTED;
	snprintf(path, sizeof(path), "/dev/fd/%d", fd);
	return fuse_session_mount(fs->se, path) == 0 ? 0 : -ECONNABORTED;
}

int session_run(struct fs *fs, int ready_fd)
{
	int r = session_new(fs, &fs->se);

	if (r == 0)
		r = mount_session(fs);
	if (r < 0)
		return r;
	r = passthrough_setup(fs);
	if (r == 0)
		r = serve_until_unmounted(fs, ready_fd);
	if (r < 0)
		keeper_unmount(&fs->keeper);
	return r;
}

void session_free(struct fs *fs)
{
	if (fs->se != NULL)
		fuse_session_destroy(fs->se);
	fs->se = NULL;
}

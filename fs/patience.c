/* How long the opens of a process may wait: .promisefs/wait-timeout. A process that writes a duration into that file
 * limits itself and all that descend from it; of several ancestors that have done so the nearest one counts, and when
 * there is none the mount option does.
 *
 * Descent is looked up when an open is about to wait, and only then: the parents are followed through
 * /proc/PID/status, which unlike most else in /proc does not block while a process is in exec. No right, no cgroup and
 * no session is needed for that, it reaches into PID namespaces below ours, and a process can undo it for itself. It
 * ends where a parent has ended: such a process belongs to init, or to the next subreaper.
 *
 * What a process has said ends with it. Its pidfd tells: when that is readable the process has ended, and its number may
 * be another's. */
#include "core/parse.h"
#include "fs/descriptors.h"
#include "fs/fs.h"
#include "fs/process.h"
#include "fs/shared.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ANCESTORS_MAX 4096
#define ATTEMPTS 8 /* to follow parents of which one ends meanwhile */
#define SWEEP_MIN 16

struct patience {
	int32_t pid;
	int pidfd;
	int64_t ns; /* -1: for ever */
	uint32_t uid;
	struct kept_patience *kept; /* NULL: it ends with us */
	UT_hash_handle hh;
};

/* patience_lock held, here and below. */
static void forget(struct fs *fs, struct patience *p)
{
	HASH_DELETE(hh, fs->patience, p);
	atomic_fetch_sub(&fs->patience_count, 1);
	close(p->pidfd);
	if (p->kept != NULL && fs->store != NULL)
		atomic_store(&p->kept->pid, 0);
	if (fs->store != NULL)
		store_give(fs->store, LIMITED_TIMEOUTS, p->uid);
	free(p);
}

static bool has_ended(const struct patience *p)
{
	struct pollfd pfd = { .fd = p->pidfd, .events = POLLIN };

	return poll(&pfd, 1, 0) > 0;
}

/* Those that have ended are never more than those that had not at the last sweep, and a few. now: whatever that was. */
static void sweep(struct fs *fs, bool now)
{
	struct patience *p, *tmp;

	if (!now && atomic_load(&fs->patience_count) < fs->patience_sweep)
		return;
	HASH_ITER(hh, fs->patience, p, tmp)
		if (has_ended(p))
			forget(fs, p);
	fs->patience_sweep = 2 * atomic_load(&fs->patience_count) + SWEEP_MIN;
}

static struct patience *find(struct fs *fs, int32_t pid)
{
	struct patience *p;

	HASH_FIND(hh, fs->patience, &pid, sizeof(pid), p);
	if (p != NULL && has_ended(p)) {
		forget(fs, p);
		p = NULL;
	}
	return p;
}

static bool look_up(struct fs *fs, int32_t pid, int64_t *ns)
{
	struct patience *p;

	pthread_mutex_lock(&fs->patience_lock);
	p = find(fs, pid);
	if (p != NULL)
		*ns = p->ns;
	pthread_mutex_unlock(&fs->patience_lock);
	return p != NULL;
}

/* 1: found; 0: there is none; -EAGAIN: somebody on the way has ended. A parent counts when it is still the parent after
 * it was read: until then its number was its own. */
static int climb(struct fs *fs, int32_t tid, int64_t *ns)
{
	int32_t pid, parent, above, now;

	if (process_family(tid, &pid, &parent) < 0)
		return 0;
	for (unsigned i = 0; i < ANCESTORS_MAX; i++) {
		bool read;

		if (look_up(fs, pid, ns))
			return 1;
		if (parent <= 0)
			return 0;
		read = process_family(parent, NULL, &above) == 0;
		if (process_family(pid, NULL, &now) < 0 || now != parent)
			return -EAGAIN;
		if (!read)
			return 0; /* it is hidden from us */
		pid = parent;
		parent = above;
	}
	return 0;
}

bool patience_of(struct fs *fs, int32_t tid, int64_t *ns)
{
	int r = -EAGAIN;

	if (tid == 0 || atomic_load(&fs->patience_count) == 0)
		return false;
	for (unsigned i = 0; r == -EAGAIN && i < ATTEMPTS; i++)
		r = climb(fs, tid, ns);
	return r > 0;
}

static int take(struct fs *fs, uint32_t uid)
{
	int r = store_take(fs->store, LIMITED_TIMEOUTS, uid);

	if (r == 0 || r == -ENOMEM)
		return r;
	sweep(fs, true); /* what has ended counts until somebody looks */
	return store_take(fs->store, LIMITED_TIMEOUTS, uid);
}

/* For the worker after us. patience_lock held. */
static struct kept_patience *keep(struct fs *fs, const struct patience *p)
{
	uint64_t start;

	if (fs->shared == NULL || process_identity(p->pid, p->pidfd, &start) < 0)
		return NULL;
	for (unsigned i = 0; i < PATIENCES_MAX; i++) {
		struct kept_patience *k = &fs->shared->patiences[i];

		if (atomic_load(&k->pid) != 0)
			continue;
		k->uid = p->uid;
		k->start = start;
		k->ns = p->ns;
		atomic_store(&k->pid, p->pid);
		return k;
	}
	return NULL;
}

static int add(struct fs *fs, int32_t pid, uint32_t uid, int64_t ns)
{
	struct patience *p = calloc(1, sizeof(*p));
	int r = p == NULL ? -ENOMEM : take(fs, uid);

	if (r < 0) {
		free(p);
		return r;
	}
	*p = (struct patience){ .pid = pid, .ns = ns, .uid = uid };
	p->pidfd = descriptor_for_user((int)syscall(SYS_pidfd_open, pid, 0));
	if (p->pidfd < 0) {
		store_give(fs->store, LIMITED_TIMEOUTS, uid);
		free(p);
		return errno == EINVAL ? -ESRCH : -errno;
	}
	p->kept = keep(fs, p);
	HASH_ADD(hh, fs->patience, pid, sizeof(p->pid), p);
	atomic_fetch_add(&fs->patience_count, 1);
	return 0;
}

static int put(struct fs *fs, int32_t pid, uint32_t uid, int64_t ns)
{
	struct patience *p = find(fs, pid);

	if (p == NULL)
		return add(fs, pid, uid, ns);
	p->ns = ns;
	if (p->kept != NULL)
		p->kept->ns = ns;
	return 0;
}

/* What was said to another worker, by those that have not ended. */
void patience_adopt(struct fs *fs)
{
	for (unsigned i = 0; i < PATIENCES_MAX; i++) {
		struct kept_patience k = fs->shared->patiences[i];
		int fd = k.pid != 0 ? (int)syscall(SYS_pidfd_open, k.pid, 0) : -1;
		uint64_t start = 0;

		if (k.pid == 0)
			continue;
		atomic_store(&fs->shared->patiences[i].pid, 0);
		if (fd >= 0 && process_identity(k.pid, fd, &start) == 0 && start == k.start)
			add(fs, k.pid, k.uid, k.ns);
		if (fd >= 0)
			close(fd);
	}
}

static void drop(struct fs *fs, int32_t pid)
{
	struct patience *p = find(fs, pid);

	if (p != NULL)
		forget(fs, p);
}

static int set(struct fs *fs, int32_t tid, uint32_t uid, const char *text)
{
	const bool drops = strcmp(text, "default") == 0;
	int32_t pid, parent;
	int64_t ns = -1;
	int r = drops || strcmp(text, "none") == 0 ? 0 : parse_duration(text, &ns);

	if (r < 0)
		return -EINVAL;
	if (tid == 0 || process_family(tid, &pid, &parent) < 0)
		return -ESRCH;
	pthread_mutex_lock(&fs->patience_lock);
	sweep(fs, false);
	if (drops)
		drop(fs, pid);
	else
		r = put(fs, pid, uid, ns);
	pthread_mutex_unlock(&fs->patience_lock);
	return r;
}

void patience_write(fuse_req_t req, struct fuse_bufvec *in)
{
	char text[64];
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(sizeof(text) - 1);
	size_t len;
	ssize_t n;
	int r;

	out.buf[0].mem = text;
	n = fuse_buf_size(in) < sizeof(text) ? fuse_buf_copy(&out, in, 0) : -EINVAL;
	len = n > 0 ? (size_t)n - (text[n - 1] == '\n') : 0;
	text[len] = '\0';
	if (strlen(text) < len)
		n = -EINVAL;
	r = n < 0 ? (int)n : set(fs_of(req), caller_of(req).tid, caller_of(req).uid, text);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_write(req, (size_t)n);
}

void patience_text(fuse_req_t req, struct text *t)
{
	struct fs *fs = fs_of(req);
	char buf[32];
	int64_t ns;

	if (!patience_of(fs, caller_of(req).tid, &ns))
		ns = fs->options.core.wait_timeout;
	if (ns >= 0)
		format_duration(ns, buf);
	text_add(t, "%s\n", ns < 0 ? "none" : buf);
}

void patience_free(struct fs *fs)
{
	struct patience *p, *tmp;

	HASH_ITER(hh, fs->patience, p, tmp)
		forget(fs, p);
}

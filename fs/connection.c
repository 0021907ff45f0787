/* Taking over the connection of another worker, who has died (supervisor.c).
 *
 *   1. INIT. The kernel asks once; its request is kept, and libfuse is given it anew. The answer is not sent.
 *   2. RESEND. What the dead one had read and not answered, the kernel puts in front of what is waiting. All of it is read
 *      before any of it is served: from then on it is known which opens were answered (they are not sent again), so which
 *      files their processes have.
 *   3. It is served, in the order of its numbers; then the threads begin.
 *
 * What had been done and was not answered must not be done twice: `was_done` in ops_names.c and others asks the catalog's
 * table of requests (meta/redo.h). An open is undone and done anew. FORGETs are not sent again; nothing depends on their
 * number. INTERRUPTs are. */
#include "fs/shared.h"
#include "meta/redo.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utlist.h>

#define INIT_OPCODE 26
#define FORGET_OPCODE 2
#define INTERRUPT_OPCODE 36
#define BATCH_FORGET_OPCODE 42
#define NOTIFY_RESEND 7
#define REQUEST_MAX ((1 << 20) + (64 << 10))
#define INIT_EXT (1U << 30)
#define INIT_HAS_RESEND_2 (1U << (39 - 32))

struct in_header {
	uint32_t len, opcode;
	uint64_t unique;
	uint64_t nodeid;
	uint32_t uid, gid, pid, padding;
};

struct out_header {
	uint32_t len;
	int32_t error;
	uint64_t unique;
};

struct init_in {
	uint32_t major, minor, max_readahead, flags, flags2;
};

static bool replaying;
static struct { uint64_t unique; uint32_t len; } asked; /* INIT, which nothing is served beside */

bool connection_is_taken_over(const struct fs *fs)
{
	return fs->shared != NULL && atomic_load(&fs->shared->init_len) > 0;
}

bool connection_can_resend(const struct fs *fs)
{
	const struct in_header *h = (const struct in_header *)fs->shared->init;
	const struct init_in *in = (const struct init_in *)(h + 1);

	return (in->flags & INIT_EXT) != 0 && (in->flags2 & INIT_HAS_RESEND_2) != 0;
}

void connection_asked(struct fs *fs, const void *request, size_t n)
{
	const struct in_header *h = request;

	if (n < sizeof(*h) + sizeof(struct init_in) || n > INIT_MAX || h->opcode != INIT_OPCODE || replaying)
		return;
	memcpy(fs->shared->init, request, n);
	asked.unique = h->unique;
	asked.len = (uint32_t)n;
}

ssize_t connection_answer(struct fs *fs, int fd, struct iovec *iov, int n)
{
	const struct out_header *h = iov[0].iov_base;
	const uint64_t unique = h->unique;
	ssize_t r;

	if (replaying)
		return h->len;
	r = writev(fd, iov, n);
	if (asked.len != 0 && unique == asked.unique) {
		if (r > 0)
			atomic_store(&fs->shared->init_len, asked.len);
		asked.len = 0;
	}
	if (unique != 0)
		connection_answered(fs, unique & ~RESENT);
	return r;
}

void connection_replay(struct fs *fs)
{
	struct fuse_buf buf = { .size = atomic_load(&fs->shared->init_len) };
	char copy[INIT_MAX];

	memcpy(copy, fs->shared->init, buf.size);
	buf.mem = copy;
	replaying = true;
	passthrough_asked(fs, copy, buf.size);
	fuse_session_process_buf(fs->se, &buf);
	replaying = false;
}

void connection_answered(struct fs *fs, uint64_t unique)
{
	redo_answered(fs->shared->redo, unique);
	if (unique == request_unique)
		request_is_for(0); /* whatever this thread does yet is for others */
}

uint64_t connection_unique(const struct fuse_buf *buf)
{
	const struct in_header *h = buf->mem;

	return (buf->flags & FUSE_BUF_IS_FD) != 0 || buf->size < sizeof(*h) ? 0 : h->unique & ~RESENT;
}

/* What is sent again */

struct resent {
	struct resent *next;
	size_t len;
	char bytes[];
};

static bool resend(int fd)
{
	struct out_header h = { .len = sizeof(h), .error = NOTIFY_RESEND };

	return write(fd, &h, sizeof(h)) == sizeof(h);
}

/* 1: goes on */
static int read_one(int fd, char *buf, struct resent ***tail)
{
	const struct in_header *h = (const struct in_header *)buf;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct resent *q;
	ssize_t n;

	if (poll(&p, 1, 0) <= 0 || (p.revents & POLLIN) == 0)
		return 0;
	n = read(fd, buf, REQUEST_MAX);
	if (n < (ssize_t)sizeof(*h))
		return n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT) ? 1 : n < 0 ? -errno : -EIO;
	q = malloc(sizeof(*q) + (size_t)n);
	if (q == NULL)
		return -ENOMEM;
	q->next = NULL;
	q->len = (size_t)n;
	memcpy(q->bytes, buf, q->len);
	**tail = q;
	*tail = &q->next;
	return (h->unique & RESENT) != 0 || h->opcode == FORGET_OPCODE || h->opcode == BATCH_FORGET_OPCODE ||
	       h->opcode == INTERRUPT_OPCODE;
}

static bool comes_again(const void *arg, uint64_t unique)
{
	for (const struct resent *q = arg; q != NULL; q = q->next)
		if (((const struct in_header *)q->bytes)->unique == (unique | RESENT) &&
		    ((const struct in_header *)q->bytes)->opcode != INTERRUPT_OPCODE)
			return true;
	return false;
}

/* In the order in which they were asked, which is that of their numbers: who waits has his old place in the line. */
static int earlier(const struct resent *a, const struct resent *b)
{
	const struct in_header *x = (const struct in_header *)a->bytes, *y = (const struct in_header *)b->bytes;

	if ((x->unique & RESENT) == 0 || (y->unique & RESENT) == 0)
		return (x->unique & RESENT) != 0 ? -1 : (y->unique & RESENT) != 0;
	return x->unique < y->unique ? -1 : x->unique > y->unique;
}

static void tell_store(struct fs *fs, const struct resent *q)
{
	for (; q != NULL; q = q->next) {
		const struct in_header *h = (const struct in_header *)q->bytes;
		struct caller who = { .uid = h->uid, .gid = h->gid, .tid = (int32_t)h->pid };

		if ((h->unique & RESENT) != 0 && h->opcode != INTERRUPT_OPCODE)
			store_resent(fs->store, &who, h->unique & ~RESENT);
	}
}

static void serve_all(struct fs *fs, struct resent *q)
{
	for (struct resent *next; q != NULL; q = next) {
		struct fuse_buf buf = { .size = q->len, .mem = q->bytes };

		next = q->next;
		request_comes_again = (((const struct in_header *)q->bytes)->unique & RESENT) != 0;
		metrics_serve(fs, &buf);
		free(q);
	}
	request_comes_again = false;
}

int connection_resume(struct fs *fs)
{
	struct resent *first = NULL, **tail = &first;
	int fd = fuse_session_fd(fs->se), r = 1;
	char *buf = malloc(REQUEST_MAX);

	if (buf == NULL)
		return -ENOMEM;
	if (!resend(fd)) /* it is unmounted, perhaps, as who reads from it will see */
		r = 0;
	while (r > 0)
		r = read_one(fd, buf, &tail);
	free(buf);
	if (r == -ENODEV)
		r = 0;
	if (r == 0) {
		LL_SORT(first, earlier);
		files_decide(fs, comes_again, first);
		tell_store(fs, first);
		serve_all(fs, first);
		store_adoption_over(fs->store);
	}
	return r;
}

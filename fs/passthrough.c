/* Kernel passthrough: reads, writes and mmaps of an open file go to its data file without asking us.
 *
 * An inode can have one backing file at a time, so backing files are kept by node and counted by opens. An open that
 * must go through us although others of the same node do not (a reader with O_NONBLOCK, a writer that could not be
 * redirected) takes the same backing file and asks for direct I/O. Without passthrough everything goes through us.
 *
 * Once an inode has a backing file the kernel refuses opens without it (EIO), in the order in which the openers come to
 * run, not in that of our answers. So an open that was answered without one is a stray until its first request
 * arrives, and as long as a node has strays no backing file is made for it: who opens it meanwhile goes through us, too.
 * A stray of which nothing is heard for a second has had time enough.
 *
 * libfuse knows passthrough from 3.17 on. Before that the answers to INIT, OPEN and CREATE are completed on their way
 * to the kernel. */
#include "core/timer.h"
#include "fs/fs.h"
#include "fs/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

struct backing {
	fuse_ino_t ino;
	int id; /* 0: none */
	unsigned users, strays;
	int64_t strayed; /* when the last of them was answered; boot time */
	UT_hash_handle hh;
};

#define BACKING_CLOSE _IOW(229, 2, uint32_t) /* FUSE_DEV_IOC_BACKING_CLOSE of newer headers */

#define ARRIVAL_NS 1000000000LL

/* A kernel that knows backing files says that this descriptor has no mount; others, that they do not know the call. */
static bool kernel_knows(void)
{
	struct { int32_t fd; uint32_t flags; uint64_t padding; } map = { .fd = -1 };
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC), error;

	if (fd < 0)
		return true; /* it will say so itself */
	error = ioctl(fd, _IOW(229, 1, map), &map) < 0 ? errno : 0;
	close(fd);
	return error != ENOTTY && error != EOPNOTSUPP && error != ENOSYS;
}

bool passthrough_possible(const struct fs_options *o)
{
	return geteuid() == 0 && o->passthrough != PASSTHROUGH_OFF && kernel_knows();
}

static bool wants_passthrough(const struct fs *fs)
{
	return geteuid() == 0 && fs->options.passthrough != PASSTHROUGH_OFF;
}

/* An earlier worker was. */
static bool was_refused(const struct fs *fs)
{
	return fs->shared != NULL && atomic_load(&fs->shared->passthrough_refused);
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)

static ssize_t read_request(int fd, void *buf, size_t size, void *userdata)
{
	ssize_t n = read(fd, buf, size);

	if (n > 0)
		connection_asked(userdata, buf, (size_t)n);
	return n;
}

static ssize_t write_reply(int fd, struct iovec *iov, int n, void *userdata)
{
	return connection_answer(userdata, fd, iov, n);
}

int passthrough_setup(struct fs *fs)
{
	static const struct fuse_custom_io io = { .writev = write_reply, .read = read_request };

	return fs->shared == NULL ? 0 : fuse_session_custom_io(fs->se, &io, fuse_session_fd(fs->se));
}

void passthrough_ready(struct fs *fs, struct fuse_conn_info *conn)
{
	bool can = (conn->capable & FUSE_CAP_PASSTHROUGH) != 0 && wants_passthrough(fs) && !was_refused(fs);

	if (can) {
		conn->want |= FUSE_CAP_PASSTHROUGH;
		conn->max_backing_stack_depth = 1;
	}
	atomic_store(&fs->passthrough, can);
}

void passthrough_asked(struct fs *fs, const void *request, size_t n)
{
}

static int backing_open(fuse_req_t req, struct fs *fs, int fd)
{
	int id = fuse_passthrough_open(req, fd);

	return id > 0 ? id : -EPERM;
}

static void announce(struct fuse_file_info *fi, int id)
{
	fi->backing_id = id;
}

static void announced(void)
{
}

#else

/* From linux/fuse.h 7.40 and newer; Debian 12's is older. */
#define INIT_OPCODE 26
#define INIT_EXT (1U << 30)
#define INIT_KILLPRIV_V2 (1U << 28)
#define INIT_PASSTHROUGH_2 (1U << (37 - 32))
#define OPEN_PASSTHROUGH (1U << 7)

struct in_header {
	uint32_t len, opcode;
	uint64_t unique;
	uint64_t rest[3];
};

struct init_in {
	uint32_t major, minor, max_readahead, flags, flags2;
};

struct out_header {
	uint32_t len;
	int32_t error;
	uint64_t unique;
};

struct init_out {
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, max_stack_depth;
};

struct open_out {
	uint64_t fh;
	uint32_t open_flags;
	int32_t backing_id;
};

struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};

#define BACKING_OPEN _IOW(229, 1, struct backing_map)

static bool offered_killpriv;
static _Thread_local int announced_id; /* of the open that this thread is answering */

static bool offers_passthrough(const struct init_in *in)
{
	return in->major == 7 && in->minor >= 40 && (in->flags & INIT_EXT) != 0 && (in->flags2 & INIT_PASSTHROUGH_2) != 0;
}

/* INIT is the first request and comes once; nothing else is answered before it */
void passthrough_asked(struct fs *fs, const void *request, size_t n)
{
	const struct in_header *h = request;

	if (n < sizeof(*h) + sizeof(struct init_in) || h->opcode != INIT_OPCODE)
		return;
	atomic_store(&fs->passthrough, wants_passthrough(fs) && !was_refused(fs) && offers_passthrough((const struct init_in *)(h + 1)));
	offered_killpriv = (((const struct init_in *)(h + 1))->flags & INIT_KILLPRIV_V2) != 0;
	announced_id = -1;
}

static ssize_t read_request(int fd, void *buf, size_t size, void *userdata)
{
	ssize_t n = read(fd, buf, size);
	struct fs *fs = userdata;

	if (n > 0) {
		passthrough_asked(fs, buf, (size_t)n);
		if (fs->shared != NULL)
			connection_asked(fs, buf, (size_t)n);
	}
	return n;
}

static void complete_init(struct iovec *iov)
{
	struct init_out *out = iov[1].iov_base;

	out->flags |= INIT_EXT | (offered_killpriv ? INIT_KILLPRIV_V2 : 0); /* see core/privileges.c */
	out->flags2 |= INIT_PASSTHROUGH_2;
	out->max_stack_depth = 1;
}

/* OPEN is answered with an open_out, CREATE with an entry_out and an open_out behind it. */
static void complete_open(struct iovec *iov)
{
	struct open_out *out = (struct open_out *)((char *)iov[1].iov_base + iov[1].iov_len - sizeof(*out));

	out->open_flags |= OPEN_PASSTHROUGH;
	out->backing_id = announced_id;
}

static ssize_t write_reply(int fd, struct iovec *iov, int n, void *userdata)
{
	const struct out_header *h = iov[0].iov_base;
	struct fs *fs = userdata;

	if (announced_id == -1 && n == 2 && iov[1].iov_len >= sizeof(struct init_out)) {
		if (h->error == 0 && atomic_load(&fs->passthrough))
			complete_init(iov);
		announced_id = 0;
	} else if (announced_id > 0 && n == 2 && h->error == 0 && iov[1].iov_len >= sizeof(struct open_out)) {
		complete_open(iov);
	}
	return fs->shared != NULL ? connection_answer(fs, fd, iov, n) : writev(fd, iov, n);
}

int passthrough_setup(struct fs *fs)
{
	static const struct fuse_custom_io io = { .writev = write_reply, .read = read_request };

#ifndef __SANITIZE_THREAD__ /* which has to see every answer go out through write_reply; see tests/tsan.supp */
	if (!wants_passthrough(fs) && fs->shared == NULL)
		return 0;
#endif
	return fuse_session_custom_io(fs->se, &io, fuse_session_fd(fs->se));
}

void passthrough_ready(struct fs *fs, struct fuse_conn_info *conn)
{
	/* read_request has found out */
}

static int backing_open(fuse_req_t req, struct fs *fs, int fd)
{
	struct backing_map map = { .fd = fd };
	int id = ioctl(fuse_session_fd(fs->se), BACKING_OPEN, &map);

	return id > 0 ? id : -errno;
}

static void announce(struct fuse_file_info *fi, int id)
{
	announced_id = id;
}

static void announced(void)
{
	announced_id = 0;
}

#endif

static void refused(struct fs *fs, int error)
{
	if (error == EPERM || error == EOPNOTSUPP || error == ENOTTY || error == ENOSYS || error == EINVAL) {
		if (fs->shared != NULL)
			atomic_store(&fs->shared->passthrough_refused, true);
		if (atomic_exchange(&fs->passthrough, false))
			fprintf(stderr, "promisefs: the kernel refuses passthrough (%s): data goes through the daemon\n",
				strerror(error));
	}
}

/* fs->backing_lock held. */
static struct backing *backing_of(struct fs *fs, fuse_ino_t ino, bool add)
{
	struct backing *b;

	HASH_FIND(hh, fs->backings, &ino, sizeof(ino), b);
	if (b == NULL && add && (b = calloc(1, sizeof(*b))) != NULL) {
		b->ino = ino;
		HASH_ADD(hh, fs->backings, ino, sizeof(b->ino), b);
	}
	return b;
}

/* fs->backing_lock held. */
static void backing_drop_unused(struct fs *fs, struct backing *b)
{
	uint32_t id = (uint32_t)b->id;

	if (b->users == 0 && b->id > 0) {
		ioctl(fuse_session_fd(fs->se), BACKING_CLOSE, &id);
		b->id = 0;
	}
	if (b->users == 0 && b->strays == 0) {
		HASH_DELETE(hh, fs->backings, b);
		free(b);
	}
}

static void backing_make(struct fs *fs, fuse_req_t req, struct backing *b, int fd)
{
	int id;

	if (b->strays > 0 && timers_now() - b->strayed < ARRIVAL_NS)
		return;
	id = backing_open(req, fs, fd);
	if (id < 0)
		refused(fs, -id);
	else
		b->id = id;
}

/* The backing file of f's node, made of fd when it has none; fd -1: only if it has one. 0 none, else its id. */
static int backing_get(struct file *f, fuse_req_t req, int fd)
{
	struct fs *fs = f->fs;
	struct backing *b;
	int id = 0;

	pthread_mutex_lock(&fs->backing_lock);
	b = backing_of(fs, f->ino, true);
	if (b != NULL && b->id == 0 && fd >= 0)
		backing_make(fs, req, b, fd);
	if (b != NULL && b->id > 0) {
		id = b->id;
		b->users++;
		f->backed = true;
		if (f->slot != NULL)
			atomic_store(&f->slot->backing, id);
	} else if (b != NULL) {
		b->strays++;
		b->strayed = timers_now();
		atomic_store(&f->strays, true);
		if (f->slot != NULL)
			atomic_store(&f->slot->strays, true);
	}
	pthread_mutex_unlock(&fs->backing_lock);
	return id;
}

void passthrough_release(struct file *f)
{
	struct fs *fs = f->fs;
	struct backing *b;

	detour_end(f);
	if (!f->backed)
		return;
	pthread_mutex_lock(&fs->backing_lock);
	b = backing_of(fs, f->ino, false);
	if (f->slot != NULL)
		atomic_store(&f->slot->backing, 0); /* first: the number is given back below */
	if (b != NULL) {
		b->users--;
		backing_drop_unused(fs, b);
	}
	pthread_mutex_unlock(&fs->backing_lock);
	f->backed = false;
}

void passthrough_arrived(struct file *f)
{
	struct fs *fs = f->fs;
	struct backing *b;

	if (!atomic_exchange(&f->strays, false))
		return;
	if (f->slot != NULL)
		atomic_store(&f->slot->strays, false);
	pthread_mutex_lock(&fs->backing_lock);
	b = backing_of(fs, f->ino, false);
	if (b != NULL) {
		b->strays--;
		backing_drop_unused(fs, b);
	}
	pthread_mutex_unlock(&fs->backing_lock);
}

/* Of an open file of another worker's. */
void passthrough_adopt(struct file *f)
{
	struct fs *fs = f->fs;
	struct backing *b;
	int id = atomic_load(&f->slot->backing);

	if (id == 0 && !atomic_load(&f->slot->strays))
		return;
	pthread_mutex_lock(&fs->backing_lock);
	b = backing_of(fs, f->ino, true);
	if (b != NULL && id != 0) {
		b->id = id;
		b->users++;
		f->backed = true;
	} else if (b != NULL) {
		b->strays++;
		b->strayed = timers_now();
		atomic_store(&f->strays, true);
	}
	pthread_mutex_unlock(&fs->backing_lock);
}

/* Through us, because what the node's data file has is not what this open is to see. */
static bool is_detour(struct file *f)
{
	if (node_view(f->ino) == VIEW_AWAITED)
		return !views_awaited_bind(f->fs, f->ino, handle_vid(f->h));
	if (node_view(f->ino) == VIEW_REF) /* what it stands for does not change as long as it is there */
		return f->h->detour;
	return handle_vid(f->h) != node_id(f->ino);
}

static int choose(struct file *f, fuse_req_t req, struct fuse_file_info *fi)
{
	bool settled = handle_settled(f->h) == 0; /* once: others may settle it meanwhile */
	bool detour = !settled || is_detour(f);
	int id = 0;

	f->detour = settled && detour && node_view(f->ino) == VIEW_KEYS;
	if (f->detour) {
		detour_begin(f, f->h->tid);
		fs_forget_attributes(f->fs, node_id(f->ino)); /* the kernel has the node, as it is being opened */
	}
	if (atomic_load(&f->fs->passthrough))
		id = backing_get(f, req, detour ? -1 : handle_fd(f->h));
	/* Nobody may have the node cached while passthrough is in use: the two exclude each other. */
	fi->direct_io = detour || (id == 0 && atomic_load(&f->fs->passthrough));
	fi->keep_cache = !fi->direct_io && id == 0 && !f->h->writer && handle_is_final(f->h);
	/* Whoever takes a one-time object says by closing it that he has read it. */
	fi->noflush = settled && !f->h->writer && !f->h->takes;
	return id;
}

void passthrough_reply(struct file *f, fuse_req_t req, struct fuse_file_info *fi, const struct fuse_entry_param *p)
{
	int id = choose(f, req, fi), r;

	if (id > 0)
		announce(fi, id);
	r = file_reply(f, req, fi, p);
	announced();
	if (r < 0) { /* interrupted at the last moment: nobody will release it */
		passthrough_arrived(f);
		passthrough_release(f);
		file_release(f);
	}
}

/* The bytes that a draft starts from. Whoever is the first to need them is told to prepare them, without any lock, and
 * to ask again; others wait meanwhile. */
#include "core/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int store_prepare_is_quick(struct store *st, uint64_t vid)
{
	struct stat from;
	struct version *v;
	uint64_t base = 0;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, vid);
	if (v != NULL && !(v->extends && v->data == DATA_PREPARING))
		base = v->base;
	pthread_mutex_unlock(&st->lock);
	return base == 0 || st->blobs->ops->stat(st->blobs, base, &from) < 0 || from.st_size <= 65536;
}

static int copy_base(struct store *st, uint64_t vid, uint64_t base, int *fd)
{
	struct blobs *b = st->blobs;
	int from, r;

	*fd = new_file(st, vid);
	if (*fd < 0 || base == 0)
		return *fd < 0 ? *fd : 0;
	from = b->ops->open(b, base);
	r = from < 0 ? from : b->ops->copy(b, from, *fd);
	if (from >= 0)
		close(from);
	if (r < 0) {
		close(*fd);
		*fd = -1;
		b->ops->remove(b, vid);
	}
	return r;
}

/* It may have been taken back meanwhile, together with how the draft before it was settled: then the file is that one's. */
static bool is_recorded(struct store *st, uint64_t vid, uint64_t object)
{
	struct op op;
	bool is;

	if (atomic_load(&st->meta->rollbacks) == 0)
		return true;
	op_begin(&op, st, NULL);
	is = draft_recorded(st, object) == vid;
	op_end(&op, 0, META_READ, NULL);
	return is;
}

/* That there is a draft has to be recorded before the file of a published version grows. */
static int share_base(struct store *st, uint64_t vid, uint64_t object, uint64_t base, int *fd)
{
	int r = record_now(st, META_RECORDED);

	if (r == 0 && !is_recorded(st, vid, object))
		r = -EIO;
	if (r == 0)
		r = st->blobs->ops->share(st->blobs, base, vid);
	if (r < 0)
		return r;
	*fd = st->blobs->ops->open_for_user(st->blobs, vid);
	if (*fd < 0)
		st->blobs->ops->remove(st->blobs, vid);
	return *fd < 0 ? *fd : 0;
}

/* By its time it is seen whether anybody has written to it. Before Linux 6.13 all that happens within a tick of the clock
 * (4 ms) has the same one: a copy that had the time when it was made, or that of a version just published, would not show
 * a write that does not change the size. So it is a nanosecond older than what it is a copy of. */
static void set_start_time(int fd, const struct version *v)
{
	struct timespec ts[2] = { { .tv_nsec = UTIME_OMIT }, timespec_of(v->start_mtime - (v->start_mtime > INT64_MIN)) };

	if (v->continues)
		futimens(fd, ts);
}

static void prepared(struct store *st, struct version *v, int fd, bool shares, int r)
{
	struct stat start = { 0 };

	if (r == 0) {
		set_start_time(fd, v);
		fstat(fd, &start);
	}
	pthread_mutex_lock(&st->lock);
	v->fd = fd;
	v->extends = shares;
	v->start_size = start.st_size;
	v->start_mtime = ns_of(&start.st_mtim);
	kept_in_order();
	v->data = r == 0 ? DATA_READY : DATA_NONE;
	pthread_mutex_unlock(&st->lock);
}

static int prepare_data(struct store *st, struct version *v)
{
	bool shares;
	int fd = -1, r;

	pthread_mutex_lock(&st->lock);
	shares = v->extends;
	pthread_mutex_unlock(&st->lock);
	r = shares ? share_base(st, v->vid, v->object->id, v->base, &fd) : -EOPNOTSUPP;
	if (r < 0) {
		shares = false;
		r = copy_base(st, v->vid, v->base, &fd);
	}
	prepared(st, v, fd, shares, r);
	return r;
}

int store_prepare(struct store *st, uint64_t vid)
{
	static const struct caller nobody;
	struct version *v;
	bool unsharing, idle;
	struct op op;
	int r;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, vid); /* whoever was told to prepare holds it open */
	unsharing = v != NULL && v->unsharing;
	pthread_mutex_unlock(&st->lock);
	if (v == NULL)
		return -ESTALE;
	r = unsharing ? draft_unshare(st, v) : prepare_data(st, v);

	op_begin(&op, st, &nobody);
	pthread_mutex_lock(&st->lock);
	v->writers--;
	idle = r < 0 && v->writers == 0;
	if (!idle)
		v->opens--;
	pthread_mutex_unlock(&st->lock);
	waiters_wake(&op, v->object, 0);
	op_end(&op, 0, META_READ, NULL);
	if (idle)
		draft_settle(st, v, &nobody); /* nobody will come for it */
	return r;
}

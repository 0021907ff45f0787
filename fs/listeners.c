/* .promisefs/events: everybody who has it open gets each event from then on as a line of JSON. A reader that does not
 * keep up loses lines, and is told how many. After a query it is the recorded history instead, with an end. */
#include "fs/fs.h"
#include "fs/shared.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define BACKLOG_MAX (4 << 20)

struct pending_read {
	fuse_req_t req;
	size_t size;
	bool arming, interrupted;
};

struct listener {
	struct fs *fs;
	struct file *file;
	struct text backlog; /* whole lines */
	size_t taken;
	unsigned lost;
	struct caller *who; /* NULL: sees everything */
	bool history; /* it is a query's answer, which ends */
	uint64_t id;
	struct pending_read *read; /* one that waits */
	struct listener *prev, *next;
};

static uint64_t next_id;

static struct caller *limited_sight(struct fs *fs, fuse_req_t req)
{
	uint32_t groups[CALLER_GROUPS];
	struct caller who = caller_with_groups(req, 0, groups);

	return caller_keep(&who);
}

/* who NULL: sees everything. It is the listener's. */
static struct listener *add_listener(struct file *f, struct caller *who)
{
	struct listener *l = calloc(1, sizeof(*l));
	struct fs *fs = f->fs;

	if (l == NULL) {
		free(who);
		return NULL;
	}
	l->who = who;
	l->fs = fs;
	l->file = f;
	pthread_mutex_lock(&fs->listeners_lock);
	l->id = ++next_id;
	DL_APPEND(fs->listeners, l);
	pthread_mutex_unlock(&fs->listeners_lock);
	atomic_fetch_add(&fs->listener_count, 1);
	return l;
}

struct listener *listener_new(struct fs *fs, struct file *f, fuse_req_t req)
{
	bool all = store_is_host(fs->store, caller_of(req).uid);
	struct caller *who = all ? NULL : limited_sight(fs, req);

	return all || who != NULL ? add_listener(f, who) : NULL;
}

/* What has happened meanwhile is lost, nobody knows how much. His further groups are not known either. */
void listener_adopt(struct file *f)
{
	const struct caller who = { .uid = f->uid, .gid = (uint32_t)-1 };
	bool all = store_is_host(f->fs->store, f->uid);
	struct caller *copy = all ? NULL : caller_keep(&who);

	if (!all && copy == NULL)
		return;
	f->listener = add_listener(f, copy);
	if (f->listener != NULL)
		text_add(&f->listener->backlog, "{\"event\":\"lost\",\"count\":0}\n");
}

void listener_free(struct listener *l)
{
	if (l == NULL)
		return;
	pthread_mutex_lock(&l->fs->listeners_lock);
	DL_DELETE(l->fs->listeners, l);
	pthread_mutex_unlock(&l->fs->listeners_lock);
	atomic_fetch_sub(&l->fs->listener_count, 1);
	free(l->backlog.at);
	free(l->who);
	free(l->read);
	free(l);
}

/* A piece of at most size bytes that the caller frees; listeners_lock held. */
static char *take(struct listener *l, size_t size, size_t *n)
{
	size_t left = l->backlog.len - l->taken;
	char *piece;

	*n = left < size ? left : size;
	piece = malloc(*n + 1);
	if (piece == NULL)
		return NULL;
	if (*n > 0)
		memcpy(piece, l->backlog.at + l->taken, *n);
	l->taken += *n;
	if (l->taken == l->backlog.len)
		l->taken = l->backlog.len = 0;
	return piece;
}

static void answer(fuse_req_t req, char *piece, size_t n)
{
	if (piece == NULL)
		fuse_reply_err(req, ENOMEM);
	else
		fuse_reply_buf(req, piece, n);
	free(piece);
}

static struct listener *find(struct fs *fs, uint64_t id)
{
	struct listener *l;

	DL_FOREACH(fs->listeners, l)
		if (l->id == id)
			return l;
	return NULL;
}

static void interrupted(fuse_req_t req, void *data)
{
	struct fs *fs = fs_of(req);
	struct pending_read *read = NULL;
	struct listener *l;

	pthread_mutex_lock(&fs->listeners_lock);
	l = find(fs, (uint64_t)(uintptr_t)data);
	if (l != NULL && l->read != NULL && l->read->req == req) {
		if (l->read->arming) {
			l->read->interrupted = true;
		} else {
			read = l->read;
			l->read = NULL;
		}
	}
	pthread_mutex_unlock(&fs->listeners_lock);
	if (read != NULL) {
		free(read);
		fuse_reply_err(req, EINTR);
	}
}

/* Nothing is there: the request waits. While it is arming nobody else answers it. */
static void wait_for_events(struct listener *l, fuse_req_t req, size_t size)
{
	struct pending_read *read = calloc(1, sizeof(*read));
	struct fs *fs = l->fs;
	char *piece = NULL;
	size_t n = 0;
	bool stop;

	if (read == NULL || l->read != NULL) {
		pthread_mutex_unlock(&fs->listeners_lock);
		fuse_reply_err(req, read == NULL ? ENOMEM : EBUSY);
		free(read);
		return;
	}
	*read = (struct pending_read){ .req = req, .size = size, .arming = true };
	l->read = read;
	pthread_mutex_unlock(&fs->listeners_lock);
	fuse_req_interrupt_func(req, interrupted, (void *)(uintptr_t)l->id);
	pthread_mutex_lock(&fs->listeners_lock);
	read->arming = false;
	stop = read->interrupted;
	if (stop || l->backlog.len > l->taken) {
		l->read = NULL;
		piece = stop ? NULL : take(l, size, &n);
	} else {
		read = NULL;
	}
	pthread_mutex_unlock(&fs->listeners_lock);
	if (read == NULL)
		return;
	free(read);
	if (stop)
		fuse_reply_err(req, EINTR);
	else
		answer(req, piece, n);
}

void listener_read(struct listener *l, fuse_req_t req, size_t size, bool nonblock)
{
	char *piece;
	size_t n;

	pthread_mutex_lock(&l->fs->listeners_lock);
	if (l->backlog.len == l->taken && !l->history && !nonblock) {
		wait_for_events(l, req, size); /* unlocks */
		return;
	}
	if (l->backlog.len == l->taken && !l->history) {
		pthread_mutex_unlock(&l->fs->listeners_lock);
		fuse_reply_err(req, EAGAIN);
		return;
	}
	piece = take(l, size, &n);
	pthread_mutex_unlock(&l->fs->listeners_lock);
	answer(req, piece, n);
}

bool listener_readable(struct listener *l)
{
	bool readable;

	pthread_mutex_lock(&l->fs->listeners_lock);
	readable = l->history || l->backlog.len > l->taken;
	pthread_mutex_unlock(&l->fs->listeners_lock);
	return readable;
}

static void add_line(struct listener *l, const struct meta_event *e)
{
	if (l->backlog.len - l->taken > BACKLOG_MAX) {
		l->lost++;
		return;
	}
	if (l->taken > 0) {
		memmove(l->backlog.at, l->backlog.at + l->taken, l->backlog.len - l->taken);
		l->backlog.len -= l->taken;
		l->taken = 0;
	}
	if (l->lost > 0)
		text_add(&l->backlog, "{\"event\":\"lost\",\"count\":%u}\n", l->lost);
	l->lost = 0;
	text_event(&l->backlog, e);
}

/* What somebody has done himself he knows. */
static bool sees(const struct listener *l, const struct meta_event *e, struct sight *known)
{
	if (l->who == NULL || (e->uid == l->who->uid && e->pid != 0))
		return true;
	return store_sees(l->fs->store, l->who, e->key, known);
}

/* The same as the last one, mostly: one user has many. */
struct answer_for {
	const struct listener *l;
	bool sees;
};

static bool same_rights(const struct caller *a, const struct caller *b)
{
	return a != NULL && b != NULL && a->uid == b->uid && a->gid == b->gid && a->group_count == b->group_count &&
	       memcmp(a->groups, b->groups, a->group_count * sizeof(*a->groups)) == 0;
}

static bool sees_as_last(const struct listener *l, const struct meta_event *e, struct answer_for *last)
{
	if (last->l == NULL || !same_rights(l->who, last->l->who))
		*last = (struct answer_for){ l, sees(l, e, NULL) };
	return last->sees;
}

void listeners_tell(struct fs *fs, const struct meta_event *e)
{
	struct answer_for last = { 0 };
	struct listener *l;

	if (atomic_load_explicit(&fs->listener_count, memory_order_relaxed) == 0)
		return;
	pthread_mutex_lock(&fs->listeners_lock);
	DL_FOREACH(fs->listeners, l) {
		struct pending_read *read = l->read;
		size_t n = 0;

		if (l->history || !sees_as_last(l, e, &last))
			continue;
		add_line(l, e);
		if (read != NULL && !read->arming) {
			char *piece = take(l, read->size, &n);

			l->read = NULL;
			answer(read->req, piece, n);
			free(read);
		}
		file_tell_pollers(l->file);
	}
	pthread_mutex_unlock(&fs->listeners_lock);
}

struct history {
	const struct listener *l;
	struct text text;
	struct sight known;
};

static int add_history(void *arg, const struct meta_event *e)
{
	struct history *h = arg;

	if (sees(h->l, e, &h->known))
		text_event(&h->text, e);
	return h->text.failed ? -ENOMEM : 0;
}

int listener_query(struct listener *l, const char *line, size_t len)
{
	struct history history = { .l = l };
	char *key = NULL;
	int r;

	while (len > 0 && line[len - 1] == '\n')
		len--;
	if (len < 3 || memcmp(line, "log", 3) != 0 || (len > 3 && line[3] != ' '))
		return -EINVAL;
	if (len > 4 && (key = strndup(line + 4, len - 4)) == NULL)
		return -ENOMEM;
	r = store_log(l->fs->store, key, add_history, &history);
	free(key);
	pthread_mutex_lock(&l->fs->listeners_lock);
	free(l->backlog.at);
	l->backlog = history.text;
	l->taken = 0;
	l->history = true;
	pthread_mutex_unlock(&l->fs->listeners_lock);
	return r;
}

/* Listing directories. The position of an entry is its cookie in the catalog; 1 and 2 are "." and "..". */
#include "fs/fs.h"
#include "fs/shared.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COOKIE_DOT 1
#define COOKIE_DOTDOT 2

#define LISTING_NS 250000000LL

struct listing {
	fuse_req_t req;
	enum view view; /* of the directory */
	enum view of;   /* of what is in it */
	bool plus; /* with attributes */
	char *buf;
	size_t size, used;
	uint64_t last;
	bool full;
};

static bool add(struct listing *l, const char *name, const struct fuse_entry_param *p, off_t next)
{
	size_t left = l->size - l->used;
	size_t n = l->plus ? fuse_add_direntry_plus(l->req, l->buf + l->used, left, name, p, next) :
			     fuse_add_direntry(l->req, l->buf + l->used, left, name, &p->attr, next);

	if (n > left) {
		l->full = true;
		return false;
	}
	l->used += n;
	return true;
}

/* A node number of 0 tells the kernel that this entry was not looked up. */
static bool add_dot(struct listing *l, const char *name, uint64_t id, off_t next)
{
	struct fuse_entry_param p = { .attr = { .st_ino = node_in(l->view, id), .st_mode = S_IFDIR } };

	return add(l, name, &p, next);
}

static int add_entry(void *arg, const struct meta_dentry *d, const struct entry *e)
{
	struct listing *l = arg;
	struct fuse_entry_param p;
	struct entry found = *e;

	found.stable = found.stable && l->of == l->view; /* members of lifetimes go away by themselves */
	if (found.until != 0) /* a listing may take long to make, and the kernel counts from its arrival */
		found.until -= LISTING_NS;
	reply_prepare(fs_of(l->req), &found);
	reply_entry_param(l->of, &found, &p);
	if (detour_at(fs_of(l->req), p.ino))
		p.attr_timeout = 0;
	if (!add(l, d->name, &p, (off_t)d->cookie))
		return 1;
	l->last = d->cookie;
	return 0;
}

static int add_dots(struct listing *l, struct store *st, uint64_t id, off_t off)
{
	uint64_t parent = META_ROOT;
	int r = 0;

	if (off < COOKIE_DOT && !add_dot(l, ".", id, COOKIE_DOT))
		return 0;
	if (off < COOKIE_DOTDOT) {
		r = store_parent(st, id, &parent);
		if (r == 0)
			add_dot(l, "..", parent, COOKIE_DOTDOT);
	}
	return r;
}

static int list(struct listing *l, const struct caller *who, fuse_ino_t ino, off_t off)
{
	struct store *st = fs_of(l->req)->store;
	unsigned limit = (unsigned)(l->size / (l->plus ? 160 : 32)) + 1;
	bool members = l->view == VIEW_LIFETIME && node_id(ino) != META_LIFETIMES;
	int (*list_some)(struct store *, const struct caller *, uint64_t, uint64_t, unsigned, store_entry_fn, void *) =
		members ? store_lifetime_list : store_readdir;
	size_t before;
	int r = add_dots(l, st, node_id(ino), off);

	l->of = members ? VIEW_KEYS : l->view;
	l->last = off > COOKIE_DOTDOT ? (uint64_t)off : COOKIE_DOTDOT;
	do {
		before = l->used;
		if (r == 0 && !l->full)
			r = list_some(st, who, node_id(ino), l->last, limit < 256 ? limit : 256, add_entry, l);
	} while (r == 0 && !l->full && l->used > before);
	return r;
}

static void readdir_any(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct listing l = { .req = req, .view = node_view(ino), .plus = plus, .size = size };
	struct caller who = caller_of(req);
	int r;

	count(fs_of(req), REQUEST_READDIR);
	l.buf = malloc(size);
	r = l.buf == NULL ? -ENOMEM : list(&l, &who, ino, off);
	if (r < 0 && l.used == 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_buf(req, l.buf, l.used);
	free(l.buf);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	if (node_view(ino) == VIEW_CONTROL)
		control_readdir(req, ino, size, off, false);
	else
		readdir_any(req, ino, size, off, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	if (node_view(ino) == VIEW_CONTROL)
		control_readdir(req, ino, size, off, true);
	else
		readdir_any(req, ino, size, off, true);
}

/* What fi->fh points to. */
struct open_dir {
	struct object *object; /* NULL: of a view that needs none */
	uint32_t uid;
	struct kept_file *slot; /* see shared.h; NULL: none */
};

static void close_dir(struct store *st, struct open_dir *d)
{
	if (d->object != NULL)
		store_closedir(st, d->object);
	store_give(st, LIMITED_OPEN, d->uid);
	if (d->slot != NULL)
		slot_give(files_are_kept_of, d->slot);
	free(d);
}

static int take_slot(struct fs *fs, struct open_dir *d)
{
	d->slot = fs->shared == NULL ? NULL : slot_take(fs, KEPT_DIR, d);
	return fs->shared == NULL || d->slot != NULL ? 0 : -ENFILE;
}

static int open_dir(struct store *st, fuse_req_t req, fuse_ino_t ino, struct open_dir **ret)
{
	struct open_dir *d = calloc(1, sizeof(*d));
	int r = d == NULL ? -ENOMEM : store_take(st, LIMITED_OPEN, caller_of(req).uid);

	if (r < 0) {
		free(d);
		return r;
	}
	d->uid = caller_of(req).uid;
	r = take_slot(fs_of(req), d);
	if (r < 0) {
		close_dir(st, d);
		return r;
	}
	if (node_view(ino) == VIEW_KEYS || node_view(ino) == VIEW_LIFETIME)
		r = store_opendir(st, node_id(ino), &d->object);
	if (r < 0)
		close_dir(st, d);
	else
		*ret = d;
	return r;
}

static int reply_dir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct open_dir *d)
{
	struct kept_file *slot = d->slot;
	const uint64_t unique = request_unique;
	int r;

	fi->fh = (uintptr_t)d;
	if (slot != NULL) {
		slot->ino = ino;
		slot->uid = d->uid;
		fi->fh = slot_number(fs_of(req), slot);
	}
	r = fuse_reply_open(req, fi);
	if (slot != NULL && r == 0)
		slot_answered(slot, unique);
	return r;
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct store *st = fs_of(req)->store; /* req is gone once answered */
	struct open_dir *d = NULL;
	int r = open_dir(st, req, ino, &d);

	if (r < 0)
		fuse_reply_err(req, -r);
	else if (reply_dir(req, ino, fi, d) < 0)
		close_dir(st, d);
}

/* What was removed meanwhile is empty. */
void dir_adopt(struct fs *fs, struct kept_file *slot)
{
	struct open_dir *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return;
	d->slot = slot;
	d->uid = slot->uid;
	store_take(fs->store, LIMITED_OPEN, d->uid);
	if (node_view(slot->ino) == VIEW_KEYS || node_view(slot->ino) == VIEW_LIFETIME)
		store_opendir(fs->store, node_id(slot->ino), &d->object);
	slot_bind(fs, slot, d);
}

void dir_undo(struct fs *fs, struct kept_file *slot)
{
	struct open_dir *d = kept_of(slot_number(fs, slot));

	if (d != NULL)
		close_dir(fs->store, d);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct open_dir *d = files_are_kept_of == NULL ? (struct open_dir *)(uintptr_t)fi->fh : kept_of(fi->fh);

	if (d != NULL)
		close_dir(fs_of(req)->store, d);
	fuse_reply_err(req, 0);
}

/* Directories have nothing to sync but the catalog. */
static void synced(struct meta_commit *c, int r)
{
	struct reply *reply = (struct reply *)c;

	fuse_reply_err(reply->req, -r);
	free(reply);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct reply *reply = reply_new(req, REPLY_ERR, VIEW_KEYS);
	struct meta *m = fs_of(req)->meta;

	if (reply == NULL)
		return;
	reply->c.done = synced;
	m->ops->begin(m);
	m->ops->end(m, META_DURABLE, &reply->c);
}

void ops_directories(struct fuse_lowlevel_ops *ops)
{
	ops->opendir = op_opendir;
	ops->releasedir = op_releasedir;
	ops->readdir = op_readdir;
	ops->readdirplus = op_readdirplus;
	ops->fsyncdir = op_fsyncdir;
}

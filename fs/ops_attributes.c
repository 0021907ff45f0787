/* Requests about attributes. */
#include "core/acl_rule.h"
#include "fs/fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void reply_node(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct caller who = caller_at(req, ino);
	uint64_t node = detour_shows(fs, ino, fi != NULL ? file_of(fi) : NULL, who.tid);
	struct entry e;
	struct stat st;
	double timeout;
	int r = store_getattr(fs->store, &who, node, &e);

	if (r == -ESTALE && node != node_id(ino)) /* that has ended in this moment */
		r = store_getattr(fs->store, &who, node_id(ino), &e);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	reply_prepare(fs, &e);
	timeout = reply_attr(node_view(ino), &e, &st);
	fuse_reply_attr(req, &st, detour_at(fs, ino) ? 0 : timeout);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct caller who = caller_of(req);
	struct stat st;

	count(fs_of(req), REQUEST_GETATTR);
	if (node_view(ino) == VIEW_CONTROL) {
		int r = control_getattr(fs_of(req), ino, &st);

		if (r < 0)
			fuse_reply_err(req, -r);
		else
			fuse_reply_attr(req, &st, 0);
	} else if (node_is_attribute(ino)) {
		int r = attribute_file_getattr(req, ino, &st);

		if (r < 0)
			fuse_reply_err(req, -r);
		else
			fuse_reply_attr(req, &st, 0);
	} else if (names_self_stat(ino, &st)) {
		fuse_reply_attr(req, &st, 0);
	} else if (node_view(ino) == VIEW_AWAITED) {
		int r = views_awaited_stat(fs_of(req), &who, ino, &st);

		if (r < 0)
			fuse_reply_err(req, -r);
		else
			fuse_reply_attr(req, &st, 0);
	} else {
		reply_node(req, ino, fi);
	}
}

static int64_t time_of(const struct timespec *ts, bool now)
{
	int64_t ns;

	if (now)
		return INT64_MIN;
	if (__builtin_mul_overflow((int64_t)ts->tv_sec, 1000000000, &ns) || __builtin_add_overflow(ns, ts->tv_nsec, &ns))
		return ts->tv_sec < 0 ? INT64_MIN + 1 : INT64_MAX; /* as far as it can be told */
	return ns;
}

static struct attribute_change change_of(const struct stat *st, int set)
{
	struct attribute_change ch = {
		.mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid,
		.atime = time_of(&st->st_atim, (set & FUSE_SET_ATTR_ATIME_NOW) != 0),
		.mtime = time_of(&st->st_mtim, (set & FUSE_SET_ATTR_MTIME_NOW) != 0),
	};

	ch.which = ((set & FUSE_SET_ATTR_MODE) != 0 ? CHANGE_MODE : 0) | ((set & FUSE_SET_ATTR_UID) != 0 ? CHANGE_UID : 0) |
		   ((set & FUSE_SET_ATTR_GID) != 0 ? CHANGE_GID : 0) |
		   ((set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) != 0 ? CHANGE_ATIME : 0) |
		   ((set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) != 0 ? CHANGE_MTIME : 0);
	return ch;
}

static void set_attributes(fuse_req_t req, fuse_ino_t ino, const struct attribute_change *ch)
{
	struct reply *reply = reply_new(req, REPLY_ATTR, node_view(ino));
	struct caller who = caller_at(req, ino);

	if (reply != NULL && store_has_nodes(fs_of(req)->store, node_id(ino)))
		reply->when = AFTER_NAMES_SOON; /* by which others are kept out, or let in */
	if (reply != NULL)
		reply_end(reply, store_setattr(fs_of(req)->store, &who, node_id(ino), ch, &reply->e, &reply->c));
}

/* For languages without xattrs: a lifetime or a borrow whose time of modification is set into the future ends then. */
static bool is_lease(struct fs *fs, fuse_ino_t ino, const struct attribute_change *ch)
{
	bool lifetime = node_view(ino) == VIEW_LIFETIME && node_id(ino) != META_LIFETIMES;

	return (lifetime || node_is_borrow(ino)) && (ch->which & CHANGE_MTIME) != 0 &&
	       ch->mtime != INT64_MIN && ch->mtime > fs->meta->ops->now(fs->meta);
}

static bool has_own_attributes(fuse_ino_t ino)
{
	enum view view = node_view(ino);

	return view == VIEW_KEYS || view == VIEW_FUTURE || view == VIEW_LIFETIME || node_is_borrow(ino);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int set, struct fuse_file_info *fi)
{
	struct attribute_change ch = change_of(st, set);
	struct file *f = fi != NULL ? file_of(fi) : NULL;
	struct caller who = caller_at(req, ino);
	struct entry e;
	int r = 0;

	count(fs_of(req), REQUEST_SETATTR);
	if (node_view(ino) == VIEW_FUTURE && (set & FUSE_SET_ATTR_SIZE) != 0) {
		reply_node(req, ino, fi); /* `: > future/KEY` declares, and there is nothing to cut off */
		return;
	}
	if (node_is_attribute(ino) && set == FUSE_SET_ATTR_SIZE) {
		fuse_reply_attr(req, &(struct stat){ .st_ino = ino, .st_mode = S_IFREG | 0666, .st_nlink = 1 }, 0);
		return;
	}
	if (!has_own_attributes(ino)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (is_lease(fs_of(req), ino, &ch))
		r = store_lease_until(fs_of(req)->store, &who, node_id(ino), ch.mtime, NULL);
	if (r == 0 && (set & FUSE_SET_ATTR_SIZE) != 0 && f == NULL) { /* with a mode, when truncation takes set-user-ID away */
		if (ch.which != 0)
			r = store_setattr(fs_of(req)->store, &who, node_id(ino), &ch, &e, NULL);
		if (r < 0)
			fuse_reply_err(req, -r);
		else
			open_truncate(req, ino, st->st_size);
		return;
	}
	if (r == 0 && (set & FUSE_SET_ATTR_SIZE) != 0)
		r = f->h != NULL ? store_ftruncate(f->h, st->st_size) : -EINVAL;
	if (r < 0)
		fuse_reply_err(req, -r);
	else if (ch.which != 0 || set == 0)
		set_attributes(req, ino, &ch);
	else
		reply_node(req, ino, fi);
}

/* Extended attributes: reading the hash reads the whole file. */

struct get_request {
	struct work work;
	fuse_req_t req;
	fuse_ino_t ino;
	size_t size;
	char name[256];
};

/* r: the value's length, or a negative errno; size: how much room the caller has, 0 when he asks for the length. */
static void answer_value(fuse_req_t req, const char *value, int r, size_t size)
{
	if (r < 0)
		fuse_reply_err(req, r == -EBADMSG ? EIO : -r);
	else if (size == 0)
		fuse_reply_xattr(req, (size_t)r);
	else
		fuse_reply_buf(req, value, (size_t)r);
}

static void answer_get(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char *value = size > 0 ? malloc(size) : NULL;
	struct caller who = caller_at(req, ino);
	int r = size > 0 && value == NULL ? -ENOMEM : store_getxattr(fs_of(req)->store, &who, node_id(ino), name, value, size);

	answer_value(req, value, r, size);
	free(value);
}

static void get_later(struct work *w)
{
	struct get_request *rq = (struct get_request *)w;

	answer_get(rq->req, rq->ino, rq->name, rq->size);
	free(rq);
}

/* Access control lists. Whichever view the kernel looks at, it checks the rights to what is shown there; they are set
 * where the object has its name, so that nothing else is out of date. */

static bool shows_acl(fuse_ino_t ino)
{
	enum view view = node_view(ino);

	return view != VIEW_CONTROL && view != VIEW_LIFETIME && view != VIEW_SELF && view != VIEW_TURN && !node_is_borrow(ino);
}

static int lend_acl(char *value, int len)
{
	struct acl a;

	if (acl_parse(value, (size_t)len, &a) < 0)
		return -EIO;
	acl_lend(&a);
	return (int)acl_format(&a, value);
}

/* -ENODATA: it has none. */
static int get_acl(fuse_req_t req, fuse_ino_t ino, const char *name, void *value, size_t size)
{
	struct fs *fs = fs_of(req);
	struct caller who = caller_of(req);
	uint64_t node = node_id(ino);
	int r;

	if (!shows_acl(ino))
		return -ENODATA;
	if (node_is_attribute(ino))
		node = attribute_file_subject(ino);
	else if (node_view(ino) == VIEW_AWAITED && !views_awaited_node(fs, &who, ino, &node))
		return -ENODATA;
	r = store_getxattr(fs->store, &who, node, name, value, size);
	return r > 0 && size > 0 && node_view(ino) == VIEW_LEND ? lend_acl(value, r) : r;
}

static void answer_acl(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char value[ACL_BLOB_MAX];
	int r = get_acl(req, ino, name, value, size < sizeof(value) ? size : sizeof(value));

	answer_value(req, value, r, size);
}

static int check_acl_place(fuse_ino_t ino)
{
	return node_view(ino) == VIEW_KEYS ? 0 : -EOPNOTSUPP;
}

static bool has_attributes(fuse_ino_t ino)
{
	return !node_is_attribute(ino) && node_view(ino) != VIEW_CONTROL && node_view(ino) != VIEW_AWAITED && node_view(ino) != VIEW_SELF;
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct get_request *rq;

	count(fs_of(req), REQUEST_XATTR);
	if (is_acl(name)) {
		answer_acl(req, ino, name, size);
		return;
	}
	if (!has_attributes(ino)) {
		fuse_reply_err(req, ENODATA);
		return;
	}
	if (strcmp(name, "user.promisefs.sha256") != 0 || size == 0 || (rq = calloc(1, sizeof(*rq))) == NULL) {
		answer_get(req, ino, name, size);
		return;
	}
	rq->work.run = get_later;
	rq->req = req;
	rq->ino = ino;
	rq->size = size;
	strcpy(rq->name, name);
	workers_queue(fs_of(req)->slow, &rq->work);
}

/* What is seen through such a view is changed elsewhere. */
static bool only_shows(fuse_ino_t ino)
{
	return node_view(ino) == VIEW_ONCE || node_view(ino) == VIEW_LEND;
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	uint32_t groups[CALLER_GROUPS];
	const bool asks = is_acl(name) || strcmp(name, "user.promisefs.lifetime") == 0; /* whether one may change something else */
	struct caller who = asks ? caller_with_groups(req, ino, groups) : caller_at(req, ino);
	int r = is_acl(name) ? check_acl_place(ino) : has_attributes(ino) && !only_shows(ino) ? 0 : -EPERM;
	struct reply *reply;

	count(fs_of(req), REQUEST_XATTR);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	reply = reply_new(req, REPLY_ERR, node_view(ino));
	if (reply == NULL)
		return;
	reply->e.node = node_id(ino);
	if (is_acl(name) && store_has_nodes(fs_of(req)->store, node_id(ino)))
		reply->when = AFTER_NAMES_SOON;
	if (request_was_done(fs_of(req)))
		reply->c.done(&reply->c, 0);
	else
		reply_end(reply, store_setxattr(fs_of(req)->store, &who, node_id(ino), name, value, size, flags, &reply->c));
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct caller who = caller_at(req, ino);
	int r = is_acl(name) ? check_acl_place(ino) : !has_attributes(ino) ? -ENODATA : only_shows(ino) ? -EPERM : 0;
	struct reply *reply;

	count(fs_of(req), REQUEST_XATTR);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	reply = reply_new(req, REPLY_ERR, node_view(ino));
	if (reply == NULL)
		return;
	reply->e.node = node_id(ino);
	if (request_was_done(fs_of(req)))
		reply->c.done(&reply->c, 0);
	else
		reply_end(reply, store_removexattr(fs_of(req)->store, &who, node_id(ino), name, &reply->c));
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	char *list = size > 0 ? malloc(size) : NULL;
	struct caller who = caller_at(req, ino);
	int r = 0;

	count(fs_of(req), REQUEST_XATTR);
	if (size > 0 && list == NULL)
		r = -ENOMEM;
	else if (has_attributes(ino))
		r = store_listxattr(fs_of(req)->store, &who, node_id(ino), list, size);
	answer_value(req, list, r, size);
	free(list);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs v;

	count(fs_of(req), REQUEST_OTHER);
	if (fstatvfs(fs_of(req)->store_fd, &v) < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	v.f_namemax = META_NAME_MAX;
	fuse_reply_statfs(req, &v);
}

void ops_attributes(struct fuse_lowlevel_ops *ops)
{
	ops->getattr = op_getattr;
	ops->setattr = op_setattr;
	ops->getxattr = op_getxattr;
	ops->setxattr = op_setxattr;
	ops->removexattr = op_removexattr;
	ops->listxattr = op_listxattr;
	ops->statfs = op_statfs;
}

/* Requests about names. */
#include "fs/fs.h"
#include "fs/process.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* What may be done where: `future` shows the real tree and lets it grow, `await` only looks. */
static int check_change(fuse_ino_t parent, const char *name)
{
	switch (node_view(parent)) {
	case VIEW_KEYS:
		return control_name_is_reserved(parent, name) ? -EPERM : 0;
	case VIEW_FUTURE:
	case VIEW_REF:
	case VIEW_MUT:
		return 0;
	default:
		return -EPERM;
	}
}

/* One of lifetimes/, not that itself. */
static bool is_lifetime(fuse_ino_t ino)
{
	return node_view(ino) == VIEW_LIFETIME && node_id(ino) != META_LIFETIMES;
}

static bool is_lifetimes(fuse_ino_t ino)
{
	return node_view(ino) == VIEW_LIFETIME && node_id(ino) == META_LIFETIMES;
}

/* lifetimes/self: a symbolic link to the lifetime of the process that asks, made when it asks. */

static void self_stat(uint64_t pid, struct stat *st)
{
	*st = (struct stat){ .st_ino = node_in(VIEW_SELF, pid), .st_mode = S_IFLNK | 0777, .st_nlink = 1,
			     .st_size = 8, .st_blksize = 4096 };
}

static int lookup_self(struct fs *fs, const struct caller *who, struct fuse_entry_param *p)
{
	char name[META_NAME_MAX + 1];
	struct process process;
	int r;

	process_look(who->tid, &process);
	r = store_lifetime_self(fs->store, who, process.pid, name);
	*p = (struct fuse_entry_param){ .ino = node_in(VIEW_SELF, (uint64_t)process.pid), .generation = 1 };
	self_stat((uint64_t)process.pid, &p->attr);
	return r;
}

bool names_self_stat(fuse_ino_t ino, struct stat *st)
{
	if (node_view(ino) == VIEW_SELF)
		self_stat(node_id(ino), st);
	return node_view(ino) == VIEW_SELF;
}

static void reply_after_names(fuse_req_t req, int error)
{
	struct reply *reply = reply_new(req, REPLY_ERR, VIEW_LIFETIME);

	if (reply == NULL)
		return;
	reply->when = AFTER_NAMES_SOON;
	reply_end(reply, -error);
}

static int look_up(struct fs *fs, const struct caller *who, fuse_ino_t parent, const char *name,
		   struct fuse_entry_param *p)
{
	enum view view = is_lifetime(parent) ? VIEW_KEYS : node_view(parent); /* of what is found */
	uint64_t id = node_id(parent);
	struct entry e;
	int r;

	if (view == VIEW_CONTROL)
		return -ENOENT;
	if (strlen(name) > META_NAME_MAX)
		return -ENAMETOOLONG;
	if (is_lifetimes(parent) && strcmp(name, "self") == 0)
		return lookup_self(fs, who, p);
	r = is_lifetime(parent) ? store_lifetime_lookup(fs->store, who, id, name, &e) :
				  store_lookup(fs->store, who, id, name, &e);
	if (view == VIEW_AWAIT && (r == -ENOENT || (r == 0 && S_ISREG(e.o.mode)))) {
		views_await(fs, id, name, r == 0 ? &e : NULL, p);
		return p->ino != 0 ? 0 : -ENOMEM;
	}
	if (r == 0) {
		reply_prepare(fs, &e);
		reply_entry_param(view, &e, p);
	}
	if (r == 0 && detour_at(fs, p->ino))
		p->attr_timeout = 0;
	return r;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct caller who = caller_of(req);
	struct fuse_entry_param p;
	int r = 0;

	count(fs, REQUEST_LOOKUP);
	if (node_is_attribute(parent))
		r = strlen(name) > META_NAME_MAX ? -ENAMETOOLONG : attribute_file_lookup(req, parent, name, &p);
	else if (!control_lookup(fs, parent, name, &p))
		r = look_up(fs, &who, parent, name, &p);
	if (r == 0) {
		if (fuse_reply_entry(req, &p) < 0)
			views_forget(fs, p.ino, 1); /* whoever asked was interrupted, and the kernel knows of nothing */
	} else if (r == -ENOENT && is_lifetimes(parent)) {
		reply_after_names(req, ENOENT); /* it may have ended just now: whoever hears of that finds its keys gone */
	} else {
		fuse_reply_err(req, -r);
	}
}

static void forget(struct fs *fs, fuse_ino_t ino, uint64_t nlookup)
{
	views_forget(fs, ino, nlookup);
	if (node_view(ino) == VIEW_KEYS || node_view(ino) == VIEW_FUTURE) /* by which it may have been removed */
		store_forget(fs->store, node_id(ino));
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	forget(fs_of(req), ino, nlookup);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t n, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < n; i++)
		forget(fs_of(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/* `self` is the lifetime of the process that asks, which is called pid-PID. */
static int check_lifetime_name(const char *name)
{
	if (strncmp(name, "pid-", 4) == 0 && name[4] != '\0' && name[4 + strspn(name + 4, "0123456789")] == '\0')
		return -EPERM;
	return strcmp(name, "self") == 0 ? -EEXIST : 0;
}

/* What a worker who died has made for this request, and not answered. False: nothing, or it is gone again. */
static bool made_before(fuse_req_t req, fuse_ino_t parent, const char *name, struct entry *e)
{
	struct fs *fs = fs_of(req);
	struct caller who = caller_of(req);

	if (!request_was_done(fs))
		return false;
	return (is_lifetime(parent) ? store_lifetime_lookup(fs->store, &who, node_id(parent), name, e) :
				      store_lookup(fs->store, &who, node_id(parent), name, e)) == 0;
}

static void make(fuse_req_t req, fuse_ino_t parent, const char *name, const struct node_new *n)
{
	struct caller who = caller_of(req);
	int r = is_lifetimes(parent) && S_ISDIR(n->mode) ? check_lifetime_name(name) : check_change(parent, name);
	struct reply *reply;

	count(fs_of(req), REQUEST_NAMES);
	if (r == 0 && strlen(name) > META_NAME_MAX)
		r = -ENAMETOOLONG;
	reply = reply_new(req, REPLY_ENTRY, node_view(parent));
	if (reply == NULL)
		return;
	if (r == 0 && made_before(req, parent, name, &reply->e)) {
		reply->c.done(&reply->c, 0);
		return;
	}
	if (r == 0)
		r = store_make(fs_of(req)->store, &who, node_id(parent), name, n, &reply->e, &reply->c);
	reply_end(reply, r);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make(req, parent, name, &(struct node_new){ .mode = S_IFDIR | (mode & 07777) });
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	if (node_view(parent) == VIEW_FUTURE) {
		fuse_reply_err(req, EPERM);
		return;
	}
	make(req, parent, name, &(struct node_new){ .mode = mode, .rdev = rdev });
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	if (strlen(target) >= PATH_MAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	make(req, parent, name, &(struct node_new){ .mode = S_IFLNK | 0777, .target = target });
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PATH_MAX];
	int r = 0;

	if (node_view(ino) == VIEW_SELF)
		snprintf(target, sizeof(target), "pid-%llu", (unsigned long long)node_id(ino));
	else
		r = store_readlink(fs_of(req)->store, node_id(ino), target);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_readlink(req, target);
}

/* ref/ and mut/, and where one waits for his turn. */
static bool holds_borrows(fuse_ino_t ino)
{
	return node_view(ino) == VIEW_REF || node_view(ino) == VIEW_MUT || node_view(ino) == VIEW_TURN;
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	bool joins = is_lifetime(parent), borrows = holds_borrows(parent);
	uint32_t groups[CALLER_GROUPS];
	struct caller who = joins ? caller_with_groups(req, ino, groups) : caller_at(req, ino);
	int r = joins || borrows ? 0 : check_change(parent, name);
	struct reply *reply;

	count(fs_of(req), REQUEST_NAMES);
	if (r == 0 && ((node_view(ino) != VIEW_KEYS && !node_is_borrow(ino) && !(borrows && node_view(ino) == VIEW_LEND)) ||
		       node_view(parent) == VIEW_FUTURE))
		r = -EPERM;
	if (r == 0 && strlen(name) > META_NAME_MAX)
		r = -ENAMETOOLONG;
	if (r == 0 && borrows && !request_was_done(fs_of(req))) {
		borrow_link(req, ino, parent, name);
		return;
	}
	reply = reply_new(req, REPLY_ENTRY, VIEW_KEYS);
	if (reply == NULL)
		return;
	if (r == 0 && made_before(req, parent, name, &reply->e)) {
		reply->c.done(&reply->c, 0);
		return;
	}
	if (r == 0 && borrows)
		r = -ESTALE;
	if (r == 0 && joins)
		r = store_lifetime_add(fs_of(req)->store, &who, node_id(ino), node_id(parent), name, &reply->e, &reply->c);
	else if (r == 0)
		r = store_link(fs_of(req)->store, &who, node_id(ino), node_id(parent), name, &reply->e, &reply->c);
	reply_end(reply, r);
}

static void take_away(fuse_req_t req, fuse_ino_t parent, const char *name,
		      int (*how)(struct store *, const struct caller *, uint64_t, const char *, struct meta_commit *))
{
	struct caller who = caller_of(req);
	int r = node_view(parent) == VIEW_LIFETIME ? 0 : check_change(parent, name);
	struct reply *reply = reply_new(req, REPLY_ERR, VIEW_KEYS);

	count(fs_of(req), REQUEST_NAMES);
	if (reply == NULL)
		return;
	who.unseen = node_view(parent) == VIEW_FUTURE;
	reply->when = node_view(parent) == VIEW_LIFETIME || who.unseen ? AFTER_NAMES_SOON : AT_ONCE;
	if (r == 0 && request_was_done(fs_of(req))) {
		reply->c.done(&reply->c, 0);
		return;
	}
	if (r == 0)
		r = how(fs_of(req)->store, &who, node_id(parent), name, &reply->c);
	reply_end(reply, r);
}

/* What lifetimes/ and its directories hold is of one kind each. */

static int not_a_file(struct store *st, const struct caller *who, uint64_t parent, const char *name, struct meta_commit *c)
{
	return -EISDIR;
}

static int not_a_directory(struct store *st, const struct caller *who, uint64_t parent, const char *name,
			   struct meta_commit *c)
{
	return -ENOTDIR;
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	take_away(req, parent, name, is_lifetimes(parent) ? not_a_file : is_lifetime(parent) ? store_lifetime_evict :
				     node_view(parent) == VIEW_FUTURE ? store_cancel : store_unlink);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	take_away(req, parent, name, is_lifetimes(parent) ? store_lifetime_end : is_lifetime(parent) ? not_a_directory :
				     store_rmdir);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *to_name,
		      unsigned flags)
{
	struct caller who = caller_of(req);
	bool lifetime = is_lifetimes(parent) && is_lifetimes(to);
	int r = lifetime ? check_lifetime_name(to_name) : check_change(parent, name);
	struct reply *reply = reply_new(req, REPLY_ERR, VIEW_KEYS);

	count(fs_of(req), REQUEST_NAMES);
	if (reply == NULL)
		return;
	if (r == 0 && !lifetime)
		r = check_change(to, to_name);
	if (r == 0 && !lifetime && (node_view(parent) == VIEW_FUTURE || node_view(to) == VIEW_FUTURE))
		r = -EPERM;
	if (r == 0 && strlen(to_name) > META_NAME_MAX)
		r = -ENAMETOOLONG;
	if (r == 0 && request_was_done(fs_of(req))) {
		reply->c.done(&reply->c, 0);
		return;
	}
	if (r == 0)
		r = store_rename(fs_of(req)->store, &who, node_id(parent), name, node_id(to), to_name, flags, &reply->c);
	reply_end(reply, r);
}

void ops_names(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = op_lookup;
	ops->forget = op_forget;
	ops->forget_multi = op_forget_multi;
	ops->mkdir = op_mkdir;
	ops->mknod = op_mknod;
	ops->symlink = op_symlink;
	ops->readlink = op_readlink;
	ops->link = op_link;
	ops->unlink = op_unlink;
	ops->rmdir = op_rmdir;
	ops->rename = op_rename;
}

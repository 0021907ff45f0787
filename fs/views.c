/* The views future/ and await/ of the key space. Below future/, what is there has the node that it has everywhere,
 * marked with the view. A file below await/ is a name to wait for: every look-up gives a node of its own, which stands
 * for no version until it is opened, and then for that one. So waiting needs no second look-up, however often the key
 * changes hands meanwhile. */
#include "fs/fs.h"
#include "fs/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

struct awaited {
	uint64_t id;
	uint64_t parent;
	uint64_t lookups;
	uint64_t vid; /* 0: not opened yet */
	char name[META_NAME_MAX + 1];
	struct kept_awaited *kept; /* the same, for the next worker; NULL: there is no room, or nobody is to come */
	UT_hash_handle hh;
};

static struct kept_awaited *keep(struct fs *fs, const struct awaited *n)
{
	for (unsigned i = 0; fs->shared != NULL && i < AWAITED_MAX; i++) {
		struct kept_awaited *k = &fs->shared->awaited[atomic_fetch_add(&fs->shared->awaited_hint, 1) % AWAITED_MAX];
		uint64_t none = 0;

		if (!atomic_compare_exchange_strong(&k->id, &none, UINT64_MAX))
			continue;
		k->parent = n->parent;
		k->lookups = n->lookups;
		strcpy(k->name, n->name);
		atomic_store(&k->vid, n->vid);
		atomic_store(&k->id, n->id);
		return k;
	}
	return NULL;
}

static void bind(struct awaited *n, uint64_t vid)
{
	n->vid = vid;
	if (n->kept != NULL)
		atomic_store(&n->kept->vid, vid);
}

/* Before there are threads. */
void views_resume(struct fs *fs)
{
	for (unsigned i = 0; i < AWAITED_MAX; i++) {
		struct kept_awaited *k = &fs->shared->awaited[i];
		struct awaited *n;

		if (atomic_load(&k->id) == UINT64_MAX)
			atomic_store(&k->id, 0);
		if (atomic_load(&k->id) == 0 || (n = calloc(1, sizeof(*n))) == NULL)
			continue;
		n->id = atomic_load(&k->id);
		n->parent = k->parent;
		n->lookups = k->lookups;
		n->vid = atomic_load(&k->vid);
		n->kept = k;
		strcpy(n->name, k->name);
		HASH_ADD(hh, fs->awaited, id, sizeof(n->id), n);
	}
}

static void nothing_yet(fuse_ino_t ino, struct stat *st)
{
	*st = (struct stat){ .st_ino = ino, .st_mode = S_IFREG | 0444, .st_nlink = 1, .st_blksize = 4096 };
}

void views_await(struct fs *fs, uint64_t parent, const char *name, const struct entry *e, struct fuse_entry_param *p)
{
	struct awaited *n = calloc(1, sizeof(*n));

	*p = (struct fuse_entry_param){ .generation = 1 };
	if (n == NULL)
		return;
	n->parent = parent;
	n->lookups = 1;
	strcpy(n->name, name);
	pthread_mutex_lock(&fs->awaited_lock);
	n->id = fs->shared != NULL ? atomic_fetch_add(&fs->shared->next_awaited, 1) + 1 : ++fs->next_awaited;
	n->kept = keep(fs, n);
	HASH_ADD(hh, fs->awaited, id, sizeof(n->id), n);
	pthread_mutex_unlock(&fs->awaited_lock);
	p->ino = node_in(VIEW_AWAITED, n->id);
	if (e != NULL)
		reply_attr(VIEW_AWAIT, e, &p->attr);
	else
		nothing_yet(p->ino, &p->attr);
}

/* awaited_lock held. */
static struct awaited *find(struct fs *fs, fuse_ino_t ino)
{
	uint64_t id = node_id(ino);
	struct awaited *n;

	HASH_FIND(hh, fs->awaited, &id, sizeof(id), n);
	return n;
}

bool views_awaited_key(struct fs *fs, fuse_ino_t ino, uint64_t *parent, char name[static META_NAME_MAX + 1])
{
	struct awaited *n;
	bool known;

	pthread_mutex_lock(&fs->awaited_lock);
	n = find(fs, ino);
	known = n != NULL && n->parent != 0;
	if (known) {
		*parent = n->parent;
		strcpy(name, n->name);
	}
	pthread_mutex_unlock(&fs->awaited_lock);
	return known;
}

bool views_awaited_bind(struct fs *fs, fuse_ino_t ino, uint64_t vid)
{
	struct awaited *n;
	bool bound;

	pthread_mutex_lock(&fs->awaited_lock);
	n = find(fs, ino);
	bound = n != NULL && (n->vid == 0 || n->vid == vid);
	if (bound)
		bind(n, vid);
	pthread_mutex_unlock(&fs->awaited_lock);
	return bound;
}

void views_awaited_adopt(struct fs *fs, fuse_ino_t ino, uint64_t vid)
{
	struct awaited *n;

	pthread_mutex_lock(&fs->awaited_lock);
	n = find(fs, ino);
	if (n == NULL && (n = calloc(1, sizeof(*n))) != NULL) {
		n->id = node_id(ino);
		n->lookups = UINT64_MAX; /* how many there were nobody knows */
		HASH_ADD(hh, fs->awaited, id, sizeof(n->id), n);
	}
	if (n != NULL)
		bind(n, vid);
	pthread_mutex_unlock(&fs->awaited_lock);
}

int views_awaited_stat(struct fs *fs, const struct caller *who, fuse_ino_t ino, struct stat *st)
{
	struct entry e;
	struct awaited *n, copy = { 0 };
	int r;

	pthread_mutex_lock(&fs->awaited_lock);
	n = find(fs, ino);
	if (n != NULL)
		copy = *n;
	pthread_mutex_unlock(&fs->awaited_lock);
	if (n == NULL && connection_is_taken_over(fs))
		return -ESTALE; /* its name is to be looked up again */
	if (copy.vid != 0)
		r = store_getattr(fs->store, who, copy.vid, &e);
	else
		r = n != NULL ? store_lookup(fs->store, who, copy.parent, copy.name, &e) : -ENOENT;
	if (r == 0)
		reply_attr(VIEW_AWAIT, &e, st);
	else if (r == -ENOENT)
		nothing_yet(ino, st);
	return r == -ENOENT ? 0 : r;
}

bool views_awaited_node(struct fs *fs, const struct caller *who, fuse_ino_t ino, uint64_t *node)
{
	struct awaited *n, copy = { 0 };
	struct entry e;

	pthread_mutex_lock(&fs->awaited_lock);
	n = find(fs, ino);
	if (n != NULL)
		copy = *n;
	pthread_mutex_unlock(&fs->awaited_lock);
	*node = copy.vid;
	if (copy.vid == 0 && copy.parent != 0 && store_lookup(fs->store, who, copy.parent, copy.name, &e) == 0)
		*node = e.node;
	return *node != 0;
}

void views_forget(struct fs *fs, fuse_ino_t ino, uint64_t nlookup)
{
	struct awaited *n;

	if (node_view(ino) != VIEW_AWAITED)
		return;
	pthread_mutex_lock(&fs->awaited_lock);
	n = find(fs, ino);
	if (n != NULL && (n->lookups -= nlookup < n->lookups ? nlookup : n->lookups) == 0) {
		HASH_DELETE(hh, fs->awaited, n);
		if (n->kept != NULL)
			atomic_store(&n->kept->id, 0);
		free(n);
	}
	pthread_mutex_unlock(&fs->awaited_lock);
}

void views_free(struct fs *fs)
{
	struct awaited *n, *next;

	HASH_ITER(hh, fs->awaited, n, next) {
		HASH_DELETE(hh, fs->awaited, n);
		free(n);
	}
}

/* future/: opening for writing declares; the first byte that is written begins a draft, which sets the future. */

struct declaring {
	struct reply reply;
	struct file *file;
	struct fuse_file_info fi;
	bool creates;
};

static void declared(struct meta_commit *c, int r)
{
	struct declaring *d = (struct declaring *)c;
	struct fuse_entry_param p;

	if (r < 0) {
		file_free(d->file);
		fuse_reply_err(d->reply.req, r == -EBADMSG ? EIO : -r);
		free(d);
		return;
	}
	if (d->creates) {
		reply_entry_param(VIEW_FUTURE, &d->reply.e, &p);
		d->file->ino = p.ino;
		r = file_reply(d->file, d->reply.req, &d->fi, &p);
	} else {
		r = file_reply(d->file, d->reply.req, &d->fi, NULL);
	}
	if (r < 0)
		file_free(d->file);
	free(d);
}

static struct declaring *declaring(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct declaring *d = calloc(1, sizeof(*d));
	struct file *f = NULL;
	int r = d == NULL ? -ENOMEM : file_new(fs_of(req), FILE_FUTURE, caller_of(req).uid, &f);

	if (r == 0)
		r = file_will_write(f);
	if (r < 0) {
		free(d);
		file_free(f);
		fuse_reply_err(req, -r);
		return NULL;
	}
	f->ino = ino;
	d->reply.c.done = declared;
	d->reply.req = req;
	d->file = f;
	d->fi = *fi;
	d->fi.direct_io = 1;
	return d;
}

void views_future_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct caller who = caller_of(req);
	struct declaring *d;
	int r;

	if (strlen(name) > META_NAME_MAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	if (control_name_is_reserved(node_id(parent), name)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	d = declaring(req, 0, fi);
	if (d == NULL)
		return;
	d->creates = true;
	r = request_was_done(fs_of(req)) ? store_lookup(fs_of(req)->store, &who, node_id(parent), name, &d->reply.e) : -ENOENT;
	if (r == 0) {
		declared(&d->reply.c, 0);
		return;
	}
	r = store_declare(fs_of(req)->store, &who, node_id(parent), name, mode, &d->reply.e, &d->reply.c);
	if (r < 0)
		declared(&d->reply.c, r);
}

void views_future_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct caller who = caller_of(req);
	struct declaring *d = declaring(req, ino, fi);
	int r;

	if (d == NULL)
		return;
	r = store_redeclare(fs_of(req)->store, &who, node_id(ino), &d->reply.c);
	if (r < 0)
		declared(&d->reply.c, r);
}

int views_future_begin(struct file *f, const struct caller *who)
{
	struct store *st = f->fs->store;
	struct handle *h = NULL;
	uint64_t vid = 0;
	int r, prepared = 0;

	pthread_mutex_lock(&f->lock); /* one of those who write at once */
	if (f->h != NULL) {
		pthread_mutex_unlock(&f->lock);
		return 0;
	}
	h = request_claims(f->fs);
	do {
		r = h != NULL ? 0 : store_open(st, who, node_id(f->ino), O_WRONLY, NULL, &h, &vid);
		if (r == STORE_PREPARE)
			prepared = store_prepare(st, vid);
	} while (r == STORE_PREPARE && prepared == 0);
	r = prepared < 0 ? prepared : r;
	if (r == 0) {
		file_has(f, h);
		store_changed_unseen(st, node_id(f->ino));
	}
	pthread_mutex_unlock(&f->lock);
	if (r == -ESTALE)
		store_open_given_up(st, who);
	return r == -ESTALE || r == STORE_GONE ? -EEXIST : r == STORE_MUST_WAIT ? -EBUSY : r; /* stale: somebody has set it meanwhile */
}

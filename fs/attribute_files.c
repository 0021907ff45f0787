/* .promisefs/attributes/NAME/KEY: the attributes user.promisefs.NAME as files, for languages that have no extended
 * attributes. Below attributes/NAME/ is the key space; a file there reads as the attribute of that key, and what is written
 * to it sets the attribute, with each write(2), so that is what fails. An empty line removes it. The attribute of a
 * directory is the file `.dir` in it.
 *
 * Each attribute is a view of its own, from VIEW_ATTRIBUTES on. The rights to a file are those to the key, without x. */
#include "fs/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIR_FILE ".dir"
#define DIR_FILE_BIT (1ULL << (VIEW_SHIFT - 1)) /* of a node: that file, not the directory */
#define VALUE_MAX 1024

/* "" for a node that no look-up has given. */
static const char *attribute_of(fuse_ino_t ino)
{
	const char *name = store_attribute_name(node_view(ino) - VIEW_ATTRIBUTES);

	return name != NULL ? name : "";
}

uint64_t attribute_file_subject(fuse_ino_t ino)
{
	return node_id(ino) & ~DIR_FILE_BIT;
}

static bool full_name(fuse_ino_t ino, char name[static 64])
{
	return snprintf(name, 64, "user.promisefs.%s", attribute_of(ino)) < 64;
}

static void fill_stat(fuse_ino_t ino, const struct entry *e, struct stat *st)
{
	reply_attr(node_view(ino), e, st);
	st->st_ino = ino;
	if (S_ISDIR(e->o.mode) && (node_id(ino) & DIR_FILE_BIT) == 0)
		return;
	st->st_mode = S_IFREG | (e->o.mode & 0666);
	st->st_nlink = 1;
	st->st_size = st->st_blocks = 0;
}

int attribute_view(const char *name, enum view *view)
{
	const char *known;

	for (unsigned i = 0; (known = store_attribute_name(i)) != NULL; i++)
		if (strcmp(known, name) == 0) {
			*view = VIEW_ATTRIBUTES + i;
			return 0;
		}
	return -ENOENT;
}

int attribute_file_getattr(fuse_req_t req, fuse_ino_t ino, struct stat *st)
{
	struct caller who = caller_of(req);
	struct entry e;
	int r = store_getattr(fs_of(req)->store, &who, attribute_file_subject(ino), &e);

	if (r == 0)
		fill_stat(ino, &e, st);
	return r;
}

int attribute_file_lookup(fuse_req_t req, fuse_ino_t parent, const char *name, struct fuse_entry_param *p)
{
	struct caller who = caller_of(req);
	bool of_dir = strcmp(name, DIR_FILE) == 0;
	struct entry e;
	int r = of_dir ? store_getattr(fs_of(req)->store, &who, node_id(parent), &e) :
			 store_lookup(fs_of(req)->store, &who, node_id(parent), name, &e);

	if (r < 0)
		return r;
	*p = (struct fuse_entry_param){ .ino = node_in(node_view(parent), e.node | (of_dir ? DIR_FILE_BIT : 0)), .generation = 1 };
	fill_stat(p->ino, &e, &p->attr);
	return 0;
}

struct opening {
	struct work work;
	fuse_req_t req;
	struct file *file;
	struct fuse_file_info fi;
};

/* The value and a newline. An attribute that is not set reads as nothing. */
static int read_value(fuse_req_t req, struct file *f)
{
	struct caller who = caller_of(req);
	char name[64];
	int r;

	f->text = malloc(VALUE_MAX + 2);
	if (f->text == NULL || !full_name(f->ino, name))
		return -ENOMEM;
	r = store_getxattr(f->fs->store, &who, attribute_file_subject(f->ino), name, f->text, VALUE_MAX);
	if (r == -ENODATA)
		return 0;
	if (r < 0)
		return r;
	f->text_len = (size_t)r;
	f->text[f->text_len++] = '\n';
	return 0;
}

static void open_now(struct work *w)
{
	struct opening *o = (struct opening *)w;
	int r = (o->fi.flags & O_ACCMODE) != O_WRONLY ? read_value(o->req, o->file) : 0;

	if (r < 0)
		fuse_reply_err(o->req, -r);
	if (r < 0 || file_reply(o->file, o->req, &o->fi, NULL) < 0)
		file_free(o->file);
	free(o);
}

void attribute_file_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct opening *o = calloc(1, sizeof(*o));
	struct file *f = NULL;
	int r = o == NULL ? -ENOMEM : file_new(fs_of(req), FILE_ATTRIBUTE, caller_of(req).uid, &f);

	if (r < 0) {
		free(o);
		fuse_reply_err(req, -r);
		return;
	}
	f->ino = ino;
	*o = (struct opening){ .work.run = open_now, .req = req, .file = f, .fi = *fi };
	o->fi.direct_io = 1;
	o->fi.noflush = 1;
	if (strcmp(attribute_of(ino), "sha256") == 0) /* reads all of it */
		workers_queue(f->fs->slow, &o->work);
	else
		open_now(&o->work);
}

struct writing {
	struct meta_commit c;
	fuse_req_t req;
	uint64_t node;
	size_t size;
};

static void written(struct meta_commit *c, int r)
{
	struct writing *w = (struct writing *)c;

	if (r == 0)
		fs_forget_attributes(fs_of(w->req), w->node); /* the time of its last change */
	if (r < 0)
		fuse_reply_err(w->req, r == -EBADMSG ? EIO : -r);
	else
		fuse_reply_write(w->req, w->size);
	free(w);
}

void attribute_file_write(fuse_req_t req, struct file *f, struct fuse_bufvec *in)
{
	struct writing *w = calloc(1, sizeof(*w));
	struct caller who = caller_of(req);
	char value[VALUE_MAX], name[64];
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(sizeof(value));
	ssize_t n = fuse_buf_size(in) > sizeof(value) ? -EINVAL : 0;
	size_t len;

	out.buf[0].mem = value;
	if (w == NULL || !full_name(f->ino, name))
		n = -ENOMEM;
	if (n == 0)
		n = fuse_buf_copy(&out, in, 0);
	if (n < 0) {
		fuse_reply_err(req, (int)-n);
		free(w);
		return;
	}
	*w = (struct writing){ .c.done = written, .req = req, .node = attribute_file_subject(f->ino),
				.size = (size_t)n };
	len = n > 0 && value[n - 1] == '\n' ? (size_t)n - 1 : (size_t)n;
	if (request_was_done(f->fs)) {
		written(&w->c, 0);
		return;
	}
	n = len > 0 ? store_setxattr(f->fs->store, &who, attribute_file_subject(f->ino), name, value, len, 0, &w->c) :
		      store_removexattr(f->fs->store, &who, attribute_file_subject(f->ino), name, &w->c);
	if (n < 0)
		written(&w->c, (int)n);
}

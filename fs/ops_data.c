/* Requests about data: what does not go past us by passthrough. */
#include "fs/fs.h"
#include "fs/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* From a copy: as soon as the answer is written, another thread may serve the release that frees the text. */
static void read_text(struct file *f, fuse_req_t req, size_t size, off_t off)
{
	size_t at = off < 0 || (size_t)off > f->text_len ? f->text_len : (size_t)off;
	size_t n = f->text_len - at < size ? f->text_len - at : size;
	char *copy = malloc(n + 1);

	if (copy == NULL) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (n > 0)
		memcpy(copy, f->text + at, n);
	fuse_reply_buf(req, copy, n);
	free(copy);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fuse_bufvec data = FUSE_BUFVEC_INIT(size);
	struct file *f = file_of(fi);
	int r;

	count(fs_of(req), REQUEST_READ);
	if (f->adopted && f->slot->text < 0) { /* what it reads did not come through */
		fuse_reply_err(req, EIO);
		return;
	}
	if (f->kind == FILE_TEXT || f->kind == FILE_ATTRIBUTE || f->kind == FILE_PATIENCE) {
		read_text(f, req, size, off);
		return;
	}
	if (f->kind == FILE_EVENTS && f->listener != NULL) {
		listener_read(f->listener, req, size, (fi->flags & O_NONBLOCK) != 0);
		return;
	}
	r = f->h == NULL ? -EBADF : handle_fd(f->h);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	data.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	data.buf[0].fd = r;
	data.buf[0].pos = off;
	fuse_reply_data(req, &data, FUSE_BUF_SPLICE_MOVE);
}

static ssize_t write_data(struct file *f, struct fuse_bufvec *in, off_t off, bool appends)
{
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(fuse_buf_size(in));
	int fd = handle_fd(f->h), r;

	if (fd < 0)
		return fd;
	if (f->detour && appends)
		return detour_append(fd, in);
	r = store_before_write(f->h, off);
	if (r < 0)
		return r;
	out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	out.buf[0].fd = fd;
	out.buf[0].pos = off;
	return fuse_buf_copy(&out, in, 0);
}

struct query {
	struct work work;
	fuse_req_t req;
	struct listener *listener;
	size_t len;
	char line[8192];
};

/* Looks at all that is recorded. */
static void answer_query(struct work *w)
{
	struct query *q = (struct query *)w;
	int r = listener_query(q->listener, q->line, q->len);

	if (r < 0)
		fuse_reply_err(q->req, -r);
	else
		fuse_reply_write(q->req, q->len);
	free(q);
}

static void write_query(struct file *f, fuse_req_t req, struct fuse_bufvec *in)
{
	struct query *q = calloc(1, sizeof(*q));
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(sizeof(q->line) - 1);
	ssize_t n = q == NULL ? -ENOMEM : fuse_buf_size(in) < sizeof(q->line) ? 0 : -EINVAL;

	if (n == 0) {
		out.buf[0].mem = q->line;
		n = fuse_buf_copy(&out, in, 0);
	}
	if (n < 0) {
		free(q);
		fuse_reply_err(req, (int)-n);
		return;
	}
	q->work.run = answer_query;
	q->req = req;
	q->listener = f->listener;
	q->len = (size_t)n;
	workers_queue(f->fs->tellers, &q->work);
}

static void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off, struct fuse_file_info *fi)
{
	struct file *f = file_of(fi);
	struct caller who = caller_of(req);
	ssize_t n = 0;

	count(fs_of(req), REQUEST_WRITE);
	if (f->kind == FILE_EVENTS && f->listener != NULL) {
		if (f->slot != NULL)
			f->slot->text = -1; /* the answer is not kept */
		write_query(f, req, in);
		return;
	}
	if (f->kind == FILE_ATTRIBUTE) {
		attribute_file_write(req, f, in);
		return;
	}
	if (f->kind == FILE_PATIENCE) {
		patience_write(req, in);
		return;
	}
	if (f->kind == FILE_FUTURE && f->h == NULL)
		n = views_future_begin(f, &who);
	if (f->h == NULL && n == 0)
		n = -EBADF;
	if (n == 0)
		n = write_data(f, in, off, (fi->flags & O_APPEND) != 0);
	if (n < 0 && f->h != NULL)
		store_poison(f->h, (int)-n); /* what is there now is not what the writer meant */
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_write(req, (size_t)n);
}

static int data_fd(struct fuse_file_info *fi)
{
	struct file *f = fi != NULL ? file_of(fi) : NULL;

	return f == NULL || f->h == NULL ? -EBADF : handle_fd(f->h);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	int fd = data_fd(fi), r = 0;

	count(fs_of(req), REQUEST_OTHER);
	if (fd >= 0)
		r = -store_make_private(file_of(fi)->h);
	if (fd < 0)
		r = -fd;
	else if (r == 0 && fallocate(fd, mode, off, len) < 0)
		r = errno;
	fuse_reply_err(req, r);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	int fd = data_fd(fi);
	off_t at = fd < 0 ? -1 : lseek(fd, off, whence);

	count(fs_of(req), REQUEST_OTHER);
	if (fd < 0)
		fuse_reply_err(req, -fd);
	else if (at < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, at);
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			       fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	int from = data_fd(fi_in), to = data_fd(fi_out);
	ssize_t n;

	count(fs_of(req), REQUEST_OTHER);
	if (from < 0 || to < 0) {
		fuse_reply_err(req, from < 0 ? -from : -to);
		return;
	}
	n = store_make_private(file_of(fi_out)->h);
	if (n == 0)
		n = copy_file_range(from, &off_in, to, &off_out, len, 0);
	else
		errno = (int)-n;
	if (n < 0) {
		int e = errno;

		if (e == ENOSPC || e == EDQUOT || e == EIO)
			store_poison(file_of(fi_out)->h, e);
		fuse_reply_err(req, e);
		return;
	}
	fuse_reply_write(req, (size_t)n);
}

void ops_data(struct fuse_lowlevel_ops *ops)
{
	ops->read = op_read;
	ops->write_buf = op_write_buf;
	ops->fallocate = op_fallocate;
	ops->lseek = op_lseek;
	ops->copy_file_range = op_copy_file_range;
}

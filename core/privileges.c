/* A file that is written or given to somebody else loses what made it dangerous: set-user-ID, set-group-ID and file
 * capabilities. We have told the kernel that we see to it (FUSE_HANDLE_KILLPRIV_V2), so it asks once for each file that
 * is written whether it has capabilities, not before every write.
 *
 * With passthrough we do not see writes. Therefore they count when a draft is published (or a file that is changed in
 * place is closed): unless the file has not been touched since somebody set the mode, as cp, tar and install do when
 * they have written the bytes, or since it was made with that mode. The kernel's timestamps tell the two apart: one that
 * was looked at is never given to a later change. */
#include "core/internal.h"

#include <errno.h>

/* The mode, or the capabilities, of s are being set now. */
void privileges_bless(struct store *st, struct subject *s)
{
	struct version *v;
	struct stat bytes;
	int fd = -1;

	pthread_mutex_lock(&st->lock);
	v = s->obj != NULL && s->obj->draft != NULL ? s->obj->draft : s->v; /* the catalog, or s, keeps it */
	if (v != NULL)
		fd = v->fd;
	pthread_mutex_unlock(&st->lock);
	if (fd < 0 || fstat(fd, &bytes) < 0)
		return;
	pthread_mutex_lock(&st->lock);
	v->blessed_mtime = ns_of(&bytes.st_mtim);
	pthread_mutex_unlock(&st->lock);
}

void privileges_drop_mode(struct meta_object *o)
{
	o->mode &= ~(uint32_t)S_ISUID;
	if ((o->mode & S_IXGRP) != 0) /* without it, it never meant a group to run as */
		o->mode &= ~(uint32_t)S_ISGID;
}

static int drop_capabilities(struct op *op, const struct meta_object *o)
{
	return op->st->meta->ops->attribute_remove(op->st->meta, o->id, "security.capability");
}

/* Root's writes leave the mode alone (CAP_FSETID), but not the capabilities. */
int privileges_after_write(struct op *op, struct meta_object *o, bool unprivileged)
{
	if (unprivileged)
		privileges_drop_mode(o);
	return o->version > 0 ? drop_capabilities(op, o) : 0;
}

int privileges_after_chown(struct op *op, struct meta_object *o)
{
	privileges_drop_mode(o);
	return drop_capabilities(op, o);
}

/* Appending without copying.
 *
 * A draft that starts from the current version needs a file of its own, which costs a copy where the file system
 * cannot clone. But a writer with O_WRONLY|O_APPEND leaves the bytes that are there alone: while nobody reads the
 * current version, or has it mapped though it is closed, which `share` finds out, its draft is the very same file
 * (another name of it), and grows behind the end that the catalog knows. As soon as somebody wants more, be it to read
 * the current version or to write anywhere else, the current version is given a file of its own with the bytes it had
 * (draft_unshare). When the draft is not published, its tail is cut off again.
 *
 * A writer who takes O_APPEND off its descriptor with fcntl(2) and then overwrites and is killed has changed the
 * version that others read; with kernel passthrough this is not seen. */
#include "core/internal.h"

#include <errno.h>
#include <fcntl.h>

#define EXTEND_MIN 65536 /* copying less is as quick */

bool draft_may_extend(struct store *st, const struct meta_object *o, int flags, bool in_use)
{
	return o->state == OBJECT_READY && (flags & (O_ACCMODE | O_APPEND | O_TRUNC)) == (O_WRONLY | O_APPEND) &&
	       o->size > EXTEND_MIN && !in_use;
}

int draft_unshare(struct store *st, struct version *d)
{
	int r = st->blobs->ops->unshare(st->blobs, d->base, d->start_size);

	pthread_mutex_lock(&st->lock);
	if (r == 0)
		d->extends = false;
	d->unsharing = false;
	pthread_mutex_unlock(&st->lock);
	return r;
}

/* Open files, as the front end has them, and those that another worker had open (shared.h). */
#include "fs/fs.h"
#include "fs/shared.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

static enum limited limited_as(const struct file *f)
{
	return f->kind == FILE_TEXT || f->kind == FILE_EVENTS ? LIMITED_LISTENING : LIMITED_OPEN;
}

static void list_file(struct file *f)
{
	pthread_mutex_init(&f->lock, NULL);
	pthread_mutex_lock(&f->fs->files_lock);
	DL_PREPEND(f->fs->files, f);
	pthread_mutex_unlock(&f->fs->files_lock);
}

int file_new(struct fs *fs, int kind, uint32_t uid, struct file **ret)
{
	struct file *f = *ret = calloc(1, sizeof(*f));
	int r;

	if (f == NULL)
		return -ENOMEM;
	f->fs = fs;
	f->kind = kind;
	f->uid = uid;
	r = store_take(fs->store, limited_as(f), uid);
	if (r < 0) {
		free(f);
		*ret = NULL;
		return r;
	}
	f->slot = fs->shared != NULL ? slot_take(fs, (uint8_t)kind, f) : NULL;
	if (fs->shared != NULL && f->slot == NULL) {
		store_give(fs->store, limited_as(f), uid);
		free(f);
		*ret = NULL;
		return -ENFILE;
	}
	list_file(f);
	return 0;
}

struct file file_gone = { .kind = FILE_DATA, .lock = PTHREAD_MUTEX_INITIALIZER };

void file_has(struct file *f, struct handle *h)
{
	f->h = h;
	if (f->slot != NULL)
		atomic_store(&f->slot->handle, handle_number(h));
}

int file_reply(struct file *f, fuse_req_t req, struct fuse_file_info *fi, const struct fuse_entry_param *p)
{
	struct kept_file *slot = f->slot; /* stays, whoever releases f as soon as it is answered */
	const uint64_t unique = slot != NULL ? atomic_load(&slot->unique) : 0;
	int r;

	fi->fh = (uintptr_t)f;
	if (slot != NULL) {
		if (f->text != NULL)
			slot_keep_text(f->fs, slot, f->text, f->text_len);
		slot->ino = f->ino;
		slot->uid = f->uid;
		slot->writes = f->writes;
		slot->waits = atomic_load(&f->waits);
		fi->fh = slot_number(f->fs, slot);
	}
	r = p != NULL ? fuse_reply_create(req, p, fi) : fuse_reply_open(req, fi);
	if (slot != NULL && r == 0)
		slot_answered(slot, unique);
	return r;
}

int file_will_write(struct file *f)
{
	int r = store_take(f->fs->store, LIMITED_WRITING, f->uid);

	f->writes = r == 0;
	return r;
}

void file_waits_no_more(struct file *f)
{
	if (atomic_exchange(&f->waits, false))
		store_give(f->fs->store, LIMITED_WAITING, f->uid);
}

/* Not when the store is closed: nothing is counted any more. */
static void file_uncount(struct file *f)
{
	struct store *st = f->fs->store;

	if (st == NULL)
		return;
	store_give(st, limited_as(f), f->uid);
	if (f->writes)
		store_give(st, LIMITED_WRITING, f->uid);
	file_waits_no_more(f);
}

/* The slot goes last: a release that comes again finds what is left to do. */
void file_release(struct file *f)
{
	struct handle *h = f->h;
	struct kept_file *slot = f->slot;
	struct fs *fs = f->fs;

	pthread_mutex_lock(&f->lock); /* its handle may be settling */
	f->slot = NULL;
	pthread_mutex_unlock(&f->lock);
	if (h == NULL || h->on_end == NULL)
		file_free(f);
	store_release(h);
	if (slot != NULL)
		slot_give(fs, slot);
}

void files_forget(struct fs *fs)
{
	while (fs->files != NULL) {
		handle_forget(fs->files->h);
		file_free(fs->files);
	}
}

void file_free(struct file *f)
{
	if (f == NULL)
		return;
	pthread_mutex_lock(&f->fs->files_lock);
	DL_DELETE(f->fs->files, f);
	pthread_mutex_unlock(&f->fs->files_lock);
	if (f->slot != NULL && f->fs->store != NULL) /* otherwise it is over */
		slot_give(f->fs, f->slot);
	detour_end(f);
	file_uncount(f);
	listener_free(f->listener);
	if (f->poll != NULL)
		fuse_pollhandle_destroy(f->poll);
	pthread_mutex_destroy(&f->lock);
	free(f->text);
	free(f);
}

void file_tell_pollers(struct file *f)
{
	struct fuse_pollhandle *ph;

	pthread_mutex_lock(&f->lock);
	ph = f->poll;
	f->poll = NULL;
	if (f->slot != NULL && ph != NULL)
		atomic_store(&f->slot->poll, 0);
	pthread_mutex_unlock(&f->lock);
	if (ph != NULL) {
		fuse_lowlevel_notify_poll(ph);
		fuse_pollhandle_destroy(ph);
	}
}

static void settled(struct handle *h)
{
	struct file *f = h->front;

	if (node_view(f->ino) == VIEW_AWAITED && handle_vid(h) != 0)
		views_awaited_bind(f->fs, f->ino, handle_vid(h));
	file_waits_no_more(f);
	file_tell_pollers(f);
}

static void end_file(void *file)
{
	file_free(file);
}

/* Without waiting: it is told when it settles, which may be now. */
void file_awaits(struct file *f)
{
	handle_on_settle(f->h, settled, end_file, f);
}

/* What another worker had open. */

/* What it reads was made when it was opened. */
static void adopt_text(struct file *f)
{
	struct kept_file *slot = f->slot;

	if (f->kind == FILE_EVENTS)
		listener_adopt(f);
	if (slot->text <= 0)
		return;
	f->text = malloc(slot->text_len + 1);
	if (f->text == NULL)
		return;
	memcpy(f->text, f->fs->shared->texts[slot->text - 1], slot->text_len);
	f->text_len = slot->text_len;
}

static void adopt(struct fs *fs, struct kept_file *slot)
{
	struct file *f = calloc(1, sizeof(*f));
	struct handle *h;

	if (f == NULL)
		return;
	f->fs = fs;
	f->slot = slot;
	f->adopted = true;
	f->kind = slot->kind;
	f->uid = slot->uid;
	f->ino = slot->ino;
	slot_bind(fs, slot, f);
	passthrough_adopt(f);
	store_take(fs->store, limited_as(f), f->uid); /* it has it already, whatever the limit is */
	f->writes = slot->writes && store_take(fs->store, LIMITED_WRITING, f->uid) == 0;
	list_file(f);
	adopt_text(f);
	h = store_adopted(fs->store, atomic_load(&slot->handle));
	f->h = h;
	if (h == NULL)
		return;
	if (node_view(f->ino) == VIEW_AWAITED && handle_vid(h) != 0)
		views_awaited_adopt(fs, f->ino, handle_vid(h));
	if (handle_settled(h) == -EAGAIN) {
		atomic_store(&f->waits, store_take(fs->store, LIMITED_WAITING, f->uid) == 0);
		file_awaits(f);
	}
	f->detour = slot->detour;
	if (f->detour)
		detour_adopt(f, slot->pid);
}

static void tell_kernel_of_poll(struct fs *fs, struct kept_file *slot)
{
	struct { uint32_t len; int32_t error; uint64_t unique, number; } notice = { .len = sizeof(notice), .error = 1 };
	uint64_t number = atomic_exchange(&slot->poll, 0);

	notice.number = number - 1;
	if (number != 0 && write(fuse_session_fd(fs->se), &notice, sizeof(notice)) < 0)
		return; /* he polls no longer */
}

void files_adopt(struct fs *fs)
{
	struct shared *sh = fs->shared;

	views_resume(fs);
	for (unsigned i = 0; i < atomic_load(&sh->slots_used); i++)
		if (atomic_load(&sh->slots[i].used) && sh->slots[i].kind == KEPT_DIR)
			dir_adopt(fs, &sh->slots[i]);
		else if (atomic_load(&sh->slots[i].used))
			adopt(fs, &sh->slots[i]);
	patience_adopt(fs);
}

/* What the open has done stays with the handle, which the request claims. */
static void undo_open(struct fs *fs, struct kept_file *slot)
{
	struct file *f = kept_of(slot_number(fs, slot));

	if (f == NULL)
		return;
	passthrough_release(f);
	if (f->h != NULL && handle_settled(f->h) == -EAGAIN) {
		file_release(f); /* nothing was promised */
	} else {
		f->h = NULL;
		file_free(f);
	}
}

/* Whoever polls asks again: what has happened meanwhile nobody has told him. */
void files_decide(struct fs *fs, bool (*comes_again)(const void *arg, uint64_t unique), const void *arg)
{
	struct shared *sh = fs->shared;

	for (unsigned i = 0; i < atomic_load(&sh->slots_used); i++) {
		struct kept_file *slot = &sh->slots[i];
		uint64_t unique = atomic_load(&slot->unique);

		if (!atomic_load(&slot->used))
			continue;
		if (unique != 0 && comes_again(arg, unique)) {
			if (slot->kind == KEPT_DIR)
				dir_undo(fs, slot);
			else
				undo_open(fs, slot);
			continue;
		}
		slot_answered(slot, unique);
		tell_kernel_of_poll(fs, slot);
	}
}

/* The memory of shared.h, and its slots of open files. */
#include "fs/shared.h"

#include "meta/redo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct shared *shared_new(void)
{
	const int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;
	void *p = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, flags, -1, 0);

	struct shared *sh = p == MAP_FAILED ? NULL : p;

	if (sh == NULL)
		return NULL;
	sh->kept = kept_new(SLOTS_MAX);
	sh->redo = redo_new();
	return sh->kept == NULL || sh->redo == NULL ? NULL : sh;
}

_Thread_local uint64_t request_unique;
_Thread_local bool request_comes_again;

uint64_t request_is_for(uint64_t unique)
{
	uint64_t before = request_unique;

	if (unique != before) {
		request_unique = unique;
		redo_request(unique);
	}
	return before;
}

struct handle *request_claims(struct fs *fs)
{
	return request_comes_again ? store_claim(fs->store, request_unique) : NULL;
}

bool request_was_done(struct fs *fs)
{
	return request_comes_again && redo_was_done(fs->shared->redo, request_unique);
}

struct fs *files_are_kept_of;

/* What this worker has for each slot, and which are free. */
static struct {
	void *files[SLOTS_MAX];
	uint32_t free[SLOTS_MAX];
	unsigned free_count;
	bool texts[TEXTS_MAX]; /* in use */
} *ours;

int slots_start(struct fs *fs)
{
	struct shared *sh = fs->shared;

	if (sh == NULL)
		return 0;
	ours = calloc(1, sizeof(*ours));
	if (ours == NULL)
		return -ENOMEM;
	for (unsigned i = atomic_load(&sh->slots_used); i-- > 0;)
		if (!atomic_load(&sh->slots[i].used))
			ours->free[ours->free_count++] = i;
		else if (sh->slots[i].text > 0)
			ours->texts[sh->slots[i].text - 1] = true;
	for (unsigned i = 0; i < NOTES_MAX; i++)
		if (atomic_load(&sh->notes[i].state) == NOTE_BUSY)
			atomic_store(&sh->notes[i].state, NOTE_FREE);
	files_are_kept_of = fs;
	return 0;
}

/* files_lock held. */
static bool free_slot(struct shared *sh, unsigned *i)
{
	if (ours->free_count > 0) {
		*i = ours->free[--ours->free_count];
		return true;
	}
	*i = atomic_load(&sh->slots_used);
	if (*i == SLOTS_MAX)
		return false;
	atomic_store(&sh->slots_used, *i + 1);
	return true;
}

struct kept_file *slot_take(struct fs *fs, uint8_t kind, void *file)
{
	struct kept_file *slot = NULL;
	unsigned i;

	pthread_mutex_lock(&fs->files_lock);
	if (free_slot(fs->shared, &i)) {
		slot = &fs->shared->slots[i];
		ours->files[i] = file;
	}
	pthread_mutex_unlock(&fs->files_lock);
	if (slot == NULL)
		return NULL;
	slot->kind = kind;
	slot->writes = slot->detour = slot->waits = false;
	slot->pid = 0;
	slot->text = 0;
	slot->text_len = 0;
	slot->uid = 0;
	slot->ino = 0;
	atomic_store(&slot->strays, false);
	atomic_store(&slot->backing, 0);
	atomic_store(&slot->handle, 0);
	atomic_store(&slot->poll, 0);
	atomic_store(&slot->unique, request_unique);
	atomic_store(&slot->used, true);
	return slot;
}

/* files_lock held. */
static void drop_text(struct fs *fs, struct kept_file *slot)
{
	if (slot->text <= 0)
		return;
	madvise(fs->shared->texts[slot->text - 1], TEXT_MAX, MADV_REMOVE); /* what it takes */
	ours->texts[slot->text - 1] = false;
}

void slot_keep_text(struct fs *fs, struct kept_file *slot, const char *text, size_t len)
{
	int i = 0;

	pthread_mutex_lock(&fs->files_lock);
	while (i < TEXTS_MAX && ours->texts[i])
		i++;
	if (i < TEXTS_MAX && len <= TEXT_MAX)
		ours->texts[i] = true;
	pthread_mutex_unlock(&fs->files_lock);
	slot->text = -1;
	if (i == TEXTS_MAX || len > TEXT_MAX)
		return;
	memcpy(fs->shared->texts[i], text, len);
	slot->text_len = (uint32_t)len;
	slot->text = i + 1;
}

void slot_give(struct fs *fs, struct kept_file *slot)
{
	unsigned i = (unsigned)(slot - fs->shared->slots);

	pthread_mutex_lock(&fs->files_lock);
	slot->generation++;
	atomic_store(&slot->used, false);
	drop_text(fs, slot);
	ours->files[i] = NULL;
	ours->free[ours->free_count++] = i;
	pthread_mutex_unlock(&fs->files_lock);
}

void slot_answered(struct kept_file *slot, uint64_t unique)
{
	atomic_compare_exchange_strong(&slot->unique, &unique, 0); /* it may be another's by now */
}

uint64_t slot_number(const struct fs *fs, const struct kept_file *slot)
{
	return (uint64_t)slot->generation << 32 | (uint32_t)(slot - fs->shared->slots + 1);
}

void slot_bind(struct fs *fs, struct kept_file *slot, void *file)
{
	ours->files[slot - fs->shared->slots] = file;
}

void *kept_of(uint64_t number)
{
	struct fs *fs = files_are_kept_of;
	uint32_t i = (uint32_t)number - 1;

	const struct kept_file *slot = i < SLOTS_MAX ? &fs->shared->slots[i] : NULL;

	if (slot == NULL || slot->generation != number >> 32 || !atomic_load(&slot->used))
		return NULL;
	return ours->files[i];
}

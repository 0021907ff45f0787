/* What a worker leaves to the next one (supervisor.c): memory that all processes of a mount have, made before the first is
 * forked. Without a supervisor there is none, and fs->shared is NULL.
 *
 * A worker may die at any instruction, so nothing here is ever locked, and whatever takes more than one store becomes
 * valid, or is given up, by a single one. Only one worker is there at a time (its role is a lock of the kernel's), so atomics
 * are for the order of stores, and for its threads.
 *
 * Open files have slots. What FUSE calls fh is the number of a slot and its generation, so it means the same to every
 * worker; f->slot is NULL without a supervisor, and fh is the address of the struct file.
 *
 *   slot            unique            what the next worker does with it
 *   free            -                 -
 *   opening         of the request    if the kernel sends that again: undone, and the request is served anew.
 *                                     Otherwise it was answered: as with
 *   open            0                 it goes on */
#pragma once

#include "fs/fs.h"

#define DEATHS_MAX 64
#define DEATHS_NS 10000000000LL
#define INIT_MAX 512
#define SLOTS_MAX (1u << 18)
#define RESENT (1ULL << 63) /* of the unique of a request: the kernel sends it again */

struct kept_file {
	atomic_bool used;
	uint32_t generation;
	_Atomic uint64_t unique;
	uint8_t kind; /* of struct file; KEPT_DIR */
	bool writes, detour, waits;
	atomic_bool strays;
	int32_t pid;           /* of a detour */
	int32_t text;          /* number of its text, from 1; 0: it has none; -1: it was not kept */
	uint32_t text_len;
	_Atomic int32_t backing; /* number of the backing file, 0: none */
	uint32_t uid;
	uint64_t ino;
	_Atomic uint64_t handle; /* core's, 0: none */
	_Atomic uint64_t poll;   /* who polls it: the kernel's number; 0: nobody */
};

#define KEPT_DIR 255

/* What the kernel is to be told, and has not been yet: see invalidate.c. */
enum note_state { NOTE_FREE, NOTE_BUSY, NOTE_VALID };

struct kept_note {
	atomic_int state;
	unsigned queued_by; /* which worker has it in its queue; 0: none */
	bool is_name;
	uint64_t node;
	char name[META_NAME_MAX + 1];
};

/* A name that is being told: teller.c. */
struct telling_name {
	atomic_uint asked, done;
	uint64_t parent;
	char name[META_NAME_MAX + 1];
};

/* A look-up below await/: views.c. FORGETs may be lost with a worker, so some stay until the mount ends. */
struct kept_awaited {
	_Atomic uint64_t id; /* 0: free; UINT64_MAX: being filled in */
	uint64_t parent, lookups;
	_Atomic uint64_t vid;
	char name[META_NAME_MAX + 1];
};

#define AWAITED_MAX 16384
#define NOTES_MAX 4096
#define TEXT_MAX (64 << 10)
#define TEXTS_MAX 512

/* What a process has said of waiting: patience.c. */
struct kept_patience {
	atomic_int pid; /* 0: free */
	uint32_t uid;
	uint64_t start;
	int64_t ns;
};

#define PATIENCES_MAX 4096

struct kept;
struct redo;

struct shared {
	/* processes */
	atomic_uint workers; /* that have been there */
	atomic_bool over, unmounted;
	bool serving, ending;
	int status; /* exit status, when it is over */
	int64_t ending_since, deaths[DEATHS_MAX];
	unsigned death_count;

	/* the connection */
	atomic_uint init_len; /* 0: not answered yet */
	unsigned char init[INIT_MAX];
	atomic_bool passthrough_refused;
	bool uses_acls;
	dev_t dev;
	atomic_ullong next_awaited;
	atomic_uint next_note, notes_lost; /* those for which there was no room */
	struct kept_note notes[NOTES_MAX];
	struct telling_name telling;
	atomic_uint awaited_hint;
	struct kept_awaited awaited[AWAITED_MAX];
	struct kept_patience patiences[PATIENCES_MAX];

	struct kept *kept; /* core's */
	struct redo *redo; /* the catalog's */

	atomic_uint slots_used; /* none above this one was ever used */
	struct kept_file slots[SLOTS_MAX];
	char texts[TEXTS_MAX][TEXT_MAX];
};

struct shared *shared_new(void); /* NULL: no memory */

/* The slots, of which a worker's threads take and give back. */
int slots_start(struct fs *fs); /* in a worker; before there are threads */
/* For the request that this thread serves; NULL: none is free. */
struct kept_file *slot_take(struct fs *fs, uint8_t kind, void *file);
void slot_give(struct fs *fs, struct kept_file *slot);
void slot_answered(struct kept_file *slot, uint64_t unique);
uint64_t slot_number(const struct fs *fs, const struct kept_file *slot);
void slot_keep_text(struct fs *fs, struct kept_file *slot, const char *text, size_t len);
void slot_bind(struct fs *fs, struct kept_file *slot, void *file); /* of another worker, to what we have for it */

/* ops_open.c, once the store is open: the files that another worker had */
void files_adopt(struct fs *fs);
/* Those whose open comes again are undone; the others go on. */
void files_decide(struct fs *fs, bool (*comes_again)(const void *arg, uint64_t unique), const void *arg);

/* ops_directories.c */
void dir_adopt(struct fs *fs, struct kept_file *slot);
void dir_undo(struct fs *fs, struct kept_file *slot);

/* teller.c */
void tell_name(struct fs *fs, uint64_t parent, const char *name); /* by one thread; returns when it was told */
_Noreturn void teller_main(struct fs *fs, bool (*alone)(void *arg), void *arg); /* in a process of its own */

/* invalidate.c: what another worker has not told; before anything else is served */
int invalidate_resume(struct fs *fs);

void views_resume(struct fs *fs); /* what was looked up below await/ */
void listener_adopt(struct file *f);
void patience_adopt(struct fs *fs);

/* connection.c */
bool connection_can_resend(const struct fs *fs); /* does this kernel? */
void connection_answered(struct fs *fs, uint64_t unique);
bool connection_is_taken_over(const struct fs *fs); /* somebody has served it before us */
void connection_asked(struct fs *fs, const void *request, size_t n); /* what was read */
ssize_t connection_answer(struct fs *fs, int fd, struct iovec *iov, int n); /* as writev(2) */
uint64_t connection_unique(const struct fuse_buf *buf); /* of the request in it */
void connection_replay(struct fs *fs); /* INIT, without the kernel */
/* Has the kernel send again what was not answered, and serves it. */
int connection_resume(struct fs *fs);

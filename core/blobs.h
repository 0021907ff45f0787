/* Where the bytes are. Core names data by version id only; what that is on disk (or elsewhere) is the business of the
 * implementation. A version's data is a draft until it is published, and never changes afterwards. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct blobs;

struct blob_file {
	uint64_t vid; /* 0: it is none of ours */
	bool draft;
	const char *name; /* what a person finds it by */
	const struct stat *st;
};

/* All return 0 (or what is said) or a negative errno, and may be called from any thread. */
struct blob_ops {
	int (*create)(struct blobs *b, uint64_t vid);   /* new empty draft; returns a descriptor to read and write */
	int (*open)(struct blobs *b, uint64_t vid);     /* draft or published; returns a descriptor */
	/* The same for as long as somebody has it open, as `create` is. -EMFILE: nobody can have more open. */
	int (*open_for_user)(struct blobs *b, uint64_t vid);
	int (*publish)(struct blobs *b, uint64_t vid, uint64_t as); /* draft vid to published `as`; 0 when it is already */
	int (*share)(struct blobs *b, uint64_t vid, uint64_t draft); /* make draft the same file as vid; -EBUSY: vid is in use */
	int (*unshare)(struct blobs *b, uint64_t vid, int64_t size); /* a file of its own again: its first size bytes */
	int (*remove)(struct blobs *b, uint64_t vid);   /* draft or published; 0 when there is none */
	int (*stat)(struct blobs *b, uint64_t vid, struct stat *st);
	int (*copy)(struct blobs *b, int from, int to); /* all bytes; by reference where the file system can */
	int (*sync)(struct blobs *b, int fd);           /* the data and its name survive power loss */
	int (*sync_all)(struct blobs *b);               /* the same of everything */
	int (*list_drafts)(struct blobs *b, int (*fn)(void *arg, uint64_t vid), void *arg);
	bool (*is_written)(struct blobs *b, int fd);    /* can anybody but us write it, as through a mapping that is left? */
	/* Are its bytes others than those of published vid? Asked of files of the same size and time: false also where
	 * that means that nobody has written, not even by a mapping; true also when it would take long to find out. */
	bool (*differs)(struct blobs *b, uint64_t vid, int fd);
	int64_t (*space)(struct blobs *b);              /* bytes that can still be written */
	bool (*held)(struct blobs *b);                  /* does a backup need the files that are there? */
	/* For fsck: every file that there is; and moving one out of the way, to where it is kept (stays: it also stays where
	 * it is). name: of one that is none of ours, else NULL. */
	int (*list)(struct blobs *b, int (*fn)(void *arg, const struct blob_file *f), void *arg);
	int (*set_aside)(struct blobs *b, uint64_t vid, const char *name, bool stays);
};

struct blobs {
	const struct blob_ops *ops;
};

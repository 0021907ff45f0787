/* Keys: from a path as the user wrote it to the mount that it is in and the name below it.
 *
 *   word   what the user wrote; used in messages and results
 *   root   the root of the mount, absolute
 *   name   the key: bytes below the root, without a slash at the ends; "" is the root itself
 *   path   root and name, absolute; symbolic links in the directories on the way are resolved, the last part is not
 */
#pragma once

#include "args.h"

#include <sys/types.h>

struct dirent;

struct key {
	const char *word;
	char *root;
	char *name;
	char *path;
};

/* Find the mount of `word`. Its directory must exist, the key itself need not. Relative words are below -m, or
 * PROMISEFS_MOUNT. Returns 0, or an exit status after saying what is wrong. */
int key_find(const struct args *a, const char *word, struct key *k);

/* The word that stands for the directory when none is given: the root of -m, or the current directory. */
const char *key_default(const struct args *a);

void key_finish(struct key *k);

/* The path MOUNT/.promisefs/VIEW[/NAME] in a new string; name may be NULL. */
char *key_control(const struct key *k, const char *view, const char *name);

/* Read user.promisefs.ATTRIBUTE of path into a new string; NULL when it has none (errno is set). Never waits. */
char *attribute_read(const char *path, const char *attribute);

/* The names in a directory, sorted by bytes, without `.` and `..`. Returns how many, or -1 with errno. */
int directory_names(const char *path, struct dirent ***names);

/* Set user.promisefs.ATTRIBUTE. Returns 0 or a negative errno. */
int attribute_write(const char *path, const char *attribute, const char *value);

/* Remove user.promisefs.ATTRIBUTE; one that is not there is no error. Returns 0 or a negative errno. */
int attribute_remove(const char *path, const char *attribute);

/* Say why waiting for or reading the key failed with errno `error`, with the reason that is recorded. Returns
 * EXIT_TIMEOUT for ETIMEDOUT, whoever set the limit, else EXIT_FAILED. */
int key_report(const struct key *k, int error);

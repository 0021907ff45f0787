#include "key.h"

#include "core/parse.h"
#include "report.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NO_MOUNT_ADVICE "give a path below a mount, or -m MOUNTPOINT; 'promisefs mount STORE MOUNTPOINT' makes one"

static char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *text(const char *format, ...)
{
	char *s = NULL;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&s, format, ap) < 0)
		out_of_memory();
	va_end(ap);
	return s;
}

static const char *base_of(const struct args *a)
{
	const char *base = args_has(a, OPT_MOUNT) ? a->value[OPT_MOUNT] : getenv("PROMISEFS_MOUNT");

	return base != NULL && *base != '\0' ? base : NULL;
}

const char *key_default(const struct args *a)
{
	return base_of(a) ?: ".";
}

/* The word as a path, without slashes at its end. */
static char *path_of(const struct args *a, const char *word)
{
	const char *base = base_of(a);
	char *path = word[0] == '/' || base == NULL || word == base ? text("%s", word) : text("%s/%s", base, word);

	for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
		path[n - 1] = '\0';
	return path;
}

/* Whether dir is where a file system is mounted. Does not ask the daemon for fresh attributes. */
static int is_mount_root(const char *dir)
{
	struct statx here, above;
	char *parent;
	int r;

	if (statx(AT_FDCWD, dir, AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, STATX_TYPE, &here) < 0)
		return -errno;
	if (here.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT)
		return (here.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
	parent = text("%s/..", dir);
	r = statx(AT_FDCWD, parent, AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, STATX_TYPE, &above) < 0 ? -errno :
	    here.stx_dev_major != above.stx_dev_major || here.stx_dev_minor != above.stx_dev_minor;
	free(parent);
	return r;
}

/* Cut dir down to the root of the mount that it is in. */
static int cut_to_root(char *dir)
{
	int r;

	while ((r = is_mount_root(dir)) == 0 && strcmp(dir, "/") != 0) {
		char *slash = strrchr(dir, '/');

		slash[slash == dir ? 1 : 0] = '\0';
	}
	return r < 0 ? r : 0;
}

/* Returns 0, -EXDEV when something else is mounted there, or why that cannot be seen. */
static int check_promisefs(const char *root)
{
	struct statfs fs;
	char *readme;
	int r;

	if (statfs(root, &fs) < 0)
		return -errno;
	if (fs.f_type != FUSE_SUPER_MAGIC)
		return -EXDEV;
	readme = text("%s/.promisefs/README", root);
	r = access(readme, F_OK) == 0 ? 0 : errno == ENOTCONN ? -ENOTCONN : -EXDEV;
	free(readme);
	return r;
}

/* Split path into its resolved directory and its last part; the last part is "" when path is itself a directory that
 * cannot be split (`.`, `/`, a mount root). Returns 0 or a negative errno. */
static int resolve(const char *path, char **dir, char **last)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	char *parent;

	if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || is_mount_root(path) == 1) {
		*dir = realpath(path, NULL);
		*last = text("%s", "");
	} else {
		parent = slash == NULL ? text(".") : text("%.*s", (int)(slash == path ? 1 : slash - path), path);
		*dir = realpath(parent, NULL);
		*last = text("%s", name);
		free(parent);
	}
	return *dir != NULL ? 0 : -errno;
}

static int report_missing(const char *word, const char *path)
{
	char *dir = text("%s", path), *advice = NULL;
	char *slash = strrchr(dir, '/');
	size_t len;
	FILE *f = open_memstream(&advice, &len);

	if (f == NULL)
		out_of_memory();
	*(slash != NULL ? slash : dir) = '\0';
	fputs("make it with 'mkdir -p ", f);
	print_quoted(f, dir);
	fputs("', or check the path", f);
	fclose(f);
	report(word, advice, "directory '%s' does not exist", dir);
	free(advice);
	free(dir);
	return EXIT_FAILED;
}

/* Fill root, name and path from the resolved directory and the last part. */
static int compose(struct key *k, const char *dir, const char *last)
{
	const char *below;
	int r;

	k->root = text("%s", dir);
	r = cut_to_root(k->root);
	if (r == 0)
		r = check_promisefs(k->root);
	if (r < 0)
		return r;
	below = dir + strlen(k->root);
	below += *below == '/';
	k->name = text("%s%s%s", below, *below && *last ? "/" : "", last);
	k->path = text("%s%s%s", k->root, *k->name ? "/" : "", k->name);
	return 0;
}

static int report_find(const struct args *a, const char *word, const char *path, int error)
{
	const char *base = word[0] != '/' ? base_of(a) : NULL;

	if (error == ENOENT && strchr(path, '/') == NULL)
		return report(word, "go to one that does", "the current directory does not exist any more");
	if (error == ENOENT)
		return report_missing(word, path);
	if (error == EXDEV && base != NULL)
		return report(word, NO_MOUNT_ADVICE, "'%s' is not a mount of promisefs, nor below one", base);
	if (error == EXDEV)
		return report(word, NO_MOUNT_ADVICE, "not below a mount of promisefs");
	return report_errno(word, error, NULL);
}

int key_find(const struct args *a, const char *word, struct key *k)
{
	char *path = path_of(a, word), *dir = NULL, *last = NULL;
	int r;

	*k = (struct key){ .word = word };
	r = resolve(path, &dir, &last);
	if (r == 0)
		r = compose(k, dir, last);
	if (r < 0) {
		r = report_find(a, word, path, -r);
		key_finish(k);
	}
	free(path);
	free(dir);
	free(last);
	return r;
}

void key_finish(struct key *k)
{
	free(k->root);
	free(k->name);
	free(k->path);
	*k = (struct key){ 0 };
}

char *key_control(const struct key *k, const char *view, const char *name)
{
	return text("%s/.promisefs/%s%s%s", k->root, view, name ? "/" : "", name ?: "");
}

char *attribute_read(const char *path, const char *attribute)
{
	char *full = text("user.promisefs.%s", attribute);
	char buffer[4096];
	ssize_t n = getxattr(path, full, buffer, sizeof(buffer) - 1);

	free(full);
	if (n < 0)
		return NULL;
	buffer[n] = '\0';
	return text("%s", buffer);
}

static int no_dots(const struct dirent *d)
{
	return strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
}

static int by_bytes(const struct dirent **x, const struct dirent **y)
{
	return strcmp((*x)->d_name, (*y)->d_name);
}

int directory_names(const char *path, struct dirent ***names)
{
	return scandir(path, names, no_dots, by_bytes);
}

int attribute_write(const char *path, const char *attribute, const char *value)
{
	char *full = text("user.promisefs.%s", attribute);
	int r = setxattr(path, full, value, strlen(value), 0) < 0 ? -errno : 0;

	free(full);
	return r;
}

int attribute_remove(const char *path, const char *attribute)
{
	char *full = text("user.promisefs.%s", attribute);
	int r = removexattr(path, full) < 0 && errno != ENODATA ? -errno : 0;

	free(full);
	return r;
}

int key_report(const struct key *k, int error)
{
	char *recorded = attribute_read(k->path, "error");
	const char *name = errno_name(error);
	size_t n = name != NULL ? strlen(name) : 0;
	bool same = recorded != NULL && n != 0 && strncmp(recorded, name, n) == 0 && strchr(":", recorded[n]) != NULL;
	char *reason = same ? text("failed: %s", recorded) : NULL;

	report_errno(k->word, error, reason);
	free(recorded);
	free(reason);
	return error == ETIMEDOUT ? EXIT_TIMEOUT : EXIT_FAILED;
}

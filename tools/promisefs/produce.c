#include "produce.h"

#include "future.h"
#include "guard.h"
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The file */

/* Close is finished a moment after close(2) has returned: an open waits for that. */
static void settle(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
}

static int make_file(struct product *p)
{
	struct handle_wish wish = { .prefix = "run", .pid = "self", .mode = 0666 };
	struct stat st;
	bool there = lstat(p->handle.key->path, &st) == 0;
	int r;

	if (there && S_ISDIR(st.st_mode))
		return report_errno(p->handle.key->word, EISDIR, NULL);
	if (there && S_ISREG(st.st_mode))
		wish.mode = (st.st_mode & 0777) | 0200;
	r = handle_create(&p->handle, &wish);
	if (r != 0)
		return r;
	if (there)
		chmod(p->handle.path, wish.mode); /* whatever the umask is: who may read the key may read this */
	settle(p->handle.path);
	p->id = attribute_read(p->handle.path, "id");
	if (lstat(p->handle.path, &st) == 0)
		p->mtime = st.st_mtim;
	return 0;
}

static bool is_written(const struct product *p)
{
	const char *path = p->handle.path;
	char *id, *version;
	struct stat st;
	bool written;

	settle(path);
	if (lstat(path, &st) < 0)
		return false;
	id = attribute_read(path, "id");
	version = attribute_read(path, "version");
	written = st.st_mtim.tv_sec != p->mtime.tv_sec || st.st_mtim.tv_nsec != p->mtime.tv_nsec || id == NULL ||
		  p->id == NULL || strcmp(id, p->id) != 0 || (version != NULL && strcmp(version, "1") != 0);
	free(id);
	free(version);
	return written;
}

/* The future */

static bool key_is(const struct key *k, const char *wanted)
{
	char *state = attribute_read(k->path, "state");
	bool is = state != NULL ? strcmp(state, wanted) == 0 : wanted[0] == '\0' && errno == ENOENT;

	free(state);
	return is;
}

static bool is_bound(const struct key *k)
{
	char *pid = attribute_read(k->path, "pid");

	free(pid);
	return pid != NULL;
}

static int declare(void *arg)
{
	return future_declare(arg);
}

static void cancel(void *arg)
{
	future_cancel(arg);
}

static int make_future(struct product *p)
{
	const struct key *k = p->handle.key;
	const struct guarded g = { .make = declare, .unmake = cancel, .arg = (void *)k, .path = k->path,
				   .pid = "self" };
	int r = 0;

	if (key_is(k, "") || key_is(k, "failed")) {
		r = guarded_make(&g);
		p->declared = p->bound = r == 0;
	}
	if (r < 0 && r != -EEXIST)
		return report_errno(k->word, -r, NULL);
	if (!p->bound && key_is(k, "pending") && !is_bound(k))
		p->bound = attribute_write(k->path, "pid", "self") == 0;
	return 0;
}

/* Who waits gets EIO, whatever the reason begins with. */
static void fail_future(struct product *p, const char *reason)
{
	const struct key *k = p->handle.key;
	char *value = NULL;

	if (asprintf(&value, "EIO: %.500s", reason) < 0)
		out_of_memory();
	if (key_is(k, "pending"))
		attribute_write(k->path, "error", value);
	if (p->bound && !key_is(k, "ready"))
		attribute_remove(k->path, "pid");
	free(value);
}

/* All of it */

int product_begin(struct product *p, const struct key *k)
{
	int r;

	p->handle = (struct handle){ .kind = HANDLE_OWN, .key = k };
	r = make_file(p);
	if (r == 0)
		r = make_future(p);
	if (r != 0)
		product_undo(p);
	return r;
}

static void carry_attribute(const struct product *p, const char *attribute)
{
	char *value = attribute_read(p->handle.key->path, attribute);

	if (value != NULL)
		attribute_write(p->handle.path, attribute, value);
	free(value);
}

/* The lifetimes of the key, by the name that the file has: it is the only one of its name. */
static void carry_lifetimes(const struct product *p)
{
	char *lifetimes = attribute_read(p->handle.key->path, "lifetimes"), *rest = lifetimes, *name, *path = NULL;

	while (lifetimes != NULL && (name = strsep(&rest, "/")) != NULL) {
		if (asprintf(&path, "%s/.promisefs/lifetimes/%s%s", p->handle.key->root, name,
			     strrchr(p->handle.path, '/')) < 0)
			out_of_memory();
		if (link(p->handle.path, path) < 0 && errno != ENOENT)
			report(p->handle.key->word, "add it with 'promisefs lifetime add'",
			       "it does not stay in lifetime '%s' (%s)", name, strerror(errno));
		free(path);
	}
	free(lifetimes);
}

/* When it cannot be renamed it stays: it may have been much work. */
static int publish(struct product *p)
{
	const struct key *k = p->handle.key;
	int error;

	carry_attribute(p, "lease");
	carry_attribute(p, "evict");
	carry_lifetimes(p);
	if (rename(p->handle.path, k->path) == 0)
		return EXIT_DONE;
	error = errno;
	attribute_remove(p->handle.path, "pid"); /* it outlives us */
	fail_future(p, "what was produced could not get this name");
	return report(k->word, "move it with 'promisefs own --to'", "what was produced stays in '%s' (%s)",
		      p->handle.path, error == EBUSY ? "the key is borrowed, EBUSY" : strerror(error));
}

int product_end(struct product *p, const char *failure)
{
	static const char nothing[] = "nothing was written to it";
	bool written = failure == NULL && is_written(p);

	if (written)
		return publish(p);
	fail_future(p, failure ?: nothing);
	handle_drop(&p->handle);
	if (failure != NULL)
		return EXIT_FAILED;
	return report(p->handle.key->word, "let the command write to {}, or to $PROMISEFS_1",
		      "%s, although the command succeeded", nothing);
}

void product_undo(struct product *p)
{
	const struct key *k = p->handle.key;

	if (p->declared && key_is(k, "pending"))
		future_cancel(k);
	else if (p->bound)
		attribute_remove(k->path, "pid");
	handle_drop(&p->handle);
	product_finish(p);
}

void product_finish(struct product *p)
{
	handle_finish(&p->handle);
	free(p->id);
	p->id = NULL;
}

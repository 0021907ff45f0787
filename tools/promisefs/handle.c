#include "handle.h"

#include "core/parse.h"
#include "guard.h"
#include "limit.h"
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ATTEMPTS 1000

static const char *const views[] = { [HANDLE_OWN] = "own", [HANDLE_REF] = "ref", [HANDLE_MUT] = "mut" };
static const char *const queues[] = { [HANDLE_REF] = "await-ref", [HANDLE_MUT] = "await-mut" };

/* Names */

int handle_check_name(const char *name)
{
	if (strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
		return 0;
	return report_usage("%s: not a name for a handle, which is a single part of a path", name);
}

/* The end of a key that fits into `room` bytes behind a dash: tools look at what a name ends with. */
static const char *end_of(const struct key *k, size_t room)
{
	const char *slash = strrchr(k->name, '/');
	const char *last = slash != NULL ? slash + 1 : k->name;

	if (strlen(last) >= room)
		last += strlen(last) - room + 1;
	while ((*last & 0xC0) == 0x80) /* inside a character of UTF-8 */
		last++;
	return last;
}

static char *fresh_name(const struct handle *h, const char *prefix)
{
	static unsigned count;
	char start[64], *name = NULL;
	bool owner = h->kind == HANDLE_OWN;
	int n = snprintf(start, sizeof(start), "%s-%d-%u", prefix, getpid(), ++count);

	if (asprintf(&name, "%s%s%s", start, owner ? "-" : "",
		     owner ? end_of(h->key, NAME_MAX - (size_t)n) : "") < 0)
		out_of_memory();
	return name;
}

bool handle_is(const struct key *k, enum handle_kind *kind)
{
	for (unsigned i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
		char below[32];
		int n = snprintf(below, sizeof(below), ".promisefs/%s/", views[i]);

		if (strncmp(k->name, below, (size_t)n) != 0 || k->name[n] == '\0' || strchr(k->name + n, '/') != NULL)
			continue;
		*kind = (enum handle_kind)i;
		return true;
	}
	return false;
}

/* `ref/R` and the like. */
static bool is_short(const char *word)
{
	return (strncmp(word, "own/", 4) == 0 || strncmp(word, "ref/", 4) == 0 || strncmp(word, "mut/", 4) == 0) &&
	       word[4] != '\0' && strchr(word + 4, '/') == NULL;
}

static int find_short(const struct args *a, const char *word, struct key *k)
{
	struct key mount;
	int r = key_find(a, key_default(a), &mount);

	if (r != 0)
		return r;
	*k = (struct key){ .word = word, .root = strdup(mount.root), .path = key_control(&mount, word, NULL) };
	if (k->root == NULL || asprintf(&k->name, ".promisefs/%s", word) < 0)
		out_of_memory();
	key_finish(&mount);
	return 0;
}

int handle_find(const struct args *a, const char *word, struct key *k)
{
	enum handle_kind kind;
	int r = is_short(word) ? find_short(a, word, k) : key_find(a, word, k);

	if (r != 0 || handle_is(k, &kind))
		return r;
	key_finish(k);
	return report(word, "give ref/NAME, mut/NAME, own/NAME, or a path; 'promisefs evict KEY' is for keys",
		      "it is not a handle");
}

/* What to tell */

/* Why something cannot be borrowed now. */
static const char *why_busy(const struct handle *h, char text[static 64])
{
	char *state = attribute_read(h->key->path, "state"), *borrows = attribute_read(h->key->path, "borrows");
	int count;

	if (state != NULL && strcmp(state, "ready") != 0)
		snprintf(text, 64, "%s, not ready", state);
	else if (borrows != NULL && strcmp(borrows, "mut") == 0)
		snprintf(text, 64, "mutably borrowed");
	else if (h->kind == HANDLE_MUT && borrows != NULL && sscanf(borrows, "ref %d", &count) == 1)
		snprintf(text, 64, "borrowed by %d", count);
	else
		snprintf(text, 64, "being written, or others wait to borrow it");
	free(state);
	free(borrows);
	return text;
}

static int report_busy(const struct handle *h, bool late)
{
	char text[64];

	if (!late)
		return report(h->key->word, "--wait waits for it; 'promisefs log KEY' tells who has it",
			      "it is %s (EBUSY)", why_busy(h, text));
	report(h->key->word, "raise --timeout; 'promisefs log KEY' tells who has it", "it is still %s (ETIMEDOUT)",
	       why_busy(h, text));
	return EXIT_TIMEOUT;
}

static int report_not_permitted(const struct handle *h)
{
	const char *word = h->key->word;
	enum handle_kind kind;
	struct stat st;

	if (handle_is(h->key, &kind) && kind != HANDLE_OWN)
		return report(word, "name its owner, which 'promisefs stat KEY' tells",
			      "it is a borrow itself, only what owns can be borrowed (EPERM)");
	if (lstat(h->key->path, &st) == 0 && !S_ISREG(st.st_mode))
		return report(word, "name a file", "it is not a file, only files have handles (EPERM)");
	return report_errno(word, EPERM, NULL);
}

static int report_process(const struct key *k, const char *pid, int error)
{
	if (error == EPERM)
		return report(k->word, "name a process of your own, or run this as root",
			      "process %s is somebody else's (EPERM)", pid);
	return report(k->word, "check the number of the process", "no process %s (ESRCH)", pid);
}

static int report_make(const struct handle *h, const char *name, int error)
{
	const char *word = h->key->word;

	if (error == EBUSY && h->kind != HANDLE_OWN)
		return report_busy(h, limit_passed());
	if (error == EPERM)
		return report_not_permitted(h);
	if (error == EEXIST)
		return report(word, "choose another name, or release it with 'promisefs release'",
			      "there is a handle %s/%s already (EEXIST)", views[h->kind], name ?: "");
	if (error == EMLINK)
		return report(word, "remove its other names", "it has several names, hard links (EMLINK)");
	return report_errno(word, error, NULL);
}

static int report_wait(const struct handle *h, int error)
{
	if (error == ETIMEDOUT && limit_passed())
		return report_busy(h, true);
	if (error == ENOENT)
		return report(h->key->word, "see why with 'promisefs log KEY'", "it has gone while waiting (ENOENT)");
	return key_report(h->key, error);
}

static int report_no_handle(const struct key *k)
{
	enum handle_kind kind = HANDLE_OWN;
	char *advice = NULL;

	handle_is(k, &kind);
	if (asprintf(&advice, "'ls %s/.promisefs/%s' shows those that there are", k->root, views[kind]) < 0)
		out_of_memory();
	report(k->word, advice, "no such handle (ENOENT)");
	free(advice);
	return EXIT_FAILED;
}

int handle_report(const struct key *k, int error)
{
	if (error == ENOENT)
		return report_no_handle(k);
	if (error == EPERM || error == EACCES)
		return report(k->word, "run this as the user who made it, or as root",
			      "not permitted, the handle is somebody else's (%s)", errno_name(error));
	if (error == EBUSY)
		return report(k->word, "release these first; 'promisefs log' tells whose they are",
			      "there are handles that borrow it (EBUSY)");
	return report_errno(k->word, error, NULL);
}

/* Making */

struct making {
	const struct handle *handle;
	const struct handle_wish *wish;
	char *target; /* a borrow: where it is linked to */
};

static int link_key(void *arg)
{
	const struct making *m = arg;
	char *lent;
	int r = link(m->handle->key->path, m->target) < 0 ? -errno : 0;

	if (r != -EPERM)
		return r;
	/* Somebody else's, which the kernel lets nobody link who may not write it; promisefs(5), OWNERS AND BORROWS */
	lent = key_control(m->handle->key, "lend", m->handle->key->name);
	r = link(lent, m->target) < 0 ? -errno : 0;
	free(lent);
	return r == -ENOENT ? -EPERM : r; /* no key, but a handle or what is not below the mount's keys */
}

static int move_key(void *arg)
{
	const struct handle *h = ((const struct making *)arg)->handle;

	return renameat2(AT_FDCWD, h->key->path, AT_FDCWD, h->path, RENAME_NOREPLACE) < 0 ? -errno : 0;
}

static int create_file(void *arg)
{
	const struct making *m = arg;
	int fd = open(m->handle->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, m->wish->mode), r;

	if (fd < 0)
		return -errno;
	r = close(fd) < 0 ? -errno : 0;
	if (r < 0)
		unlink(m->handle->path);
	return r;
}

static void unmake(void *arg)
{
	unlink(((const struct making *)arg)->handle->path);
}

static int make_one(struct handle *h, const struct handle_wish *w, int (*f)(void *arg), const char *name)
{
	struct making m = { .handle = h, .wish = w };
	struct guarded g = { .make = f, .unmake = unmake, .arg = &m, .path = h->path, .pid = w->pid };
	int r;

	if (f == link_key)
		m.target = key_control(h->key, w->wait ? queues[h->kind] : views[h->kind], name);
	r = w->pid != NULL ? guarded_make(&g) : f(&m);
	free(m.target);
	return r;
}

/* Under the name that is wished, or the first fresh one that is free. */
static int make(struct handle *h, const struct handle_wish *w, int (*f)(void *arg))
{
	int r = -EEXIST;

	for (int i = 0; r == -EEXIST && i < (w->name != NULL ? 1 : ATTEMPTS); i++) {
		char *fresh = w->name == NULL ? fresh_name(h, w->prefix) : NULL;
		const char *name = w->name ?: fresh;

		free(h->path);
		h->path = key_control(h->key, views[h->kind], name);
		r = make_one(h, w, f, name);
		free(fresh);
	}
	if (r == 0)
		return 0;
	free(h->path);
	h->path = NULL;
	return report_make(h, w->name, -r);
}

/* Opening a handle that is in line waits for its turn, and ends with EINTR for every signal that is handled, also when
 * the process is stopped and goes on. The place in line stays as long as the handle does. */
static int wait_for_turn(const struct handle *h)
{
	int fd;

	do
		fd = open(h->path, O_RDONLY | O_CLOEXEC);
	while (fd < 0 && errno == EINTR && !limit_passed());
	if (fd < 0)
		return errno == EINTR ? -ETIMEDOUT : -errno;
	close(fd);
	return 0;
}

/* As long as it is in line it is bound to this process: nobody's turn must not come. */
static int borrow_in_turn(struct handle *h, const struct handle_wish *w)
{
	struct handle_wish mine = *w;
	int r;

	mine.pid = "self";
	r = make(h, &mine, link_key);
	if (r != 0)
		return r;
	r = wait_for_turn(h);
	if (r < 0)
		r = report_wait(h, -r);
	else if (w->pid == NULL)
		attribute_remove(h->path, "pid");
	else if (strcmp(w->pid, "self") != 0)
		r = handle_set(h, "pid", w->pid);
	if (r != 0)
		handle_undo(h);
	return r;
}

int handle_borrow(struct handle *h, const struct handle_wish *w)
{
	return w->wait ? borrow_in_turn(h, w) : make(h, w, link_key);
}

int handle_create(struct handle *h, const struct handle_wish *w)
{
	return make(h, w, create_file);
}

/* Not guarded: it would be evicted with whoever guards it. */
int handle_own(struct handle *h, const struct handle_wish *w)
{
	struct handle_wish unbound = *w;
	int r;

	unbound.pid = NULL;
	h->pid_before = attribute_read(h->key->path, "pid");
	r = make(h, &unbound, move_key);
	return r == 0 && w->pid != NULL ? handle_set(h, "pid", w->pid) : r;
}

int handle_check_process(const struct key *k, const char *pid)
{
	if (pid == NULL || kill(atoi(pid), 0) == 0)
		return 0;
	return report_process(k, pid, errno);
}

int handle_set(const struct handle *h, const char *attribute, const char *value)
{
	int r = attribute_write(h->path, attribute, value);

	if ((r == -ESRCH || r == -EPERM) && strcmp(attribute, "pid") == 0)
		return report_process(h->key, value, -r);
	if (r == -ENOENT)
		return report(h->key->word, "the lease has passed, or 'promisefs release' was faster",
			      "its handle is gone (ENOENT)");
	return r < 0 ? report_errno(h->key->word, -r, NULL) : 0;
}

/* Ending */

/* First it must not end with us any more. */
static void give_back(const struct handle *h)
{
	if (h->pid_before != NULL)
		attribute_write(h->path, "pid", h->pid_before);
	else
		attribute_remove(h->path, "pid");
	if (renameat2(AT_FDCWD, h->path, AT_FDCWD, h->key->path, RENAME_NOREPLACE) < 0 && errno != ENOENT)
		report(h->key->word, "move it where it belongs", "it is '%s' and cannot be given back (%s)", h->path,
		       strerror(errno));
}

void handle_undo(struct handle *h)
{
	if (h->path != NULL && h->kind == HANDLE_OWN)
		give_back(h);
	else
		handle_drop(h);
	handle_finish(h);
}

void handle_drop(struct handle *h)
{
	if (h->path != NULL)
		unlink(h->path);
}

void handle_finish(struct handle *h)
{
	free(h->path);
	free(h->pid_before);
	h->path = h->pid_before = NULL;
}

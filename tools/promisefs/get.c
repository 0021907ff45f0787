/* get and once: open(2) waits, and what it gives is final. A timeout is a timer whose signal ends the open. */
#include "abandon.h"
#include "copy.h"
#include "core/parse.h"
#include "key.h"
#include "limit.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOMENT (50 * NS_PER_MS)

/* The way to a key. */
struct way {
	const struct key *key;
	char *path;
	int64_t timeout;
	const char *timeout_text;
	bool await; /* the key need not be there */
	bool once;  /* opening it takes the key away */
};

/* An open that waits ends with EINTR for every signal that is handled, also when the process is stopped and goes on. */
static int open_until(const char *path, int64_t timeout)
{
	int fd;

	limit_start(timeout);
	do
		fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd < 0 && errno == EINTR && !limit_passed());
	fd = fd < 0 ? -errno : fd;
	limit_stop();
	return fd == -EINTR ? -ETIMEDOUT : fd;
}

/* Without waiting: only what is there now. What can be taken only once is not opened before it can be read; nothing
 * says that it is being replaced just now, so then a moment must do. */
static int open_at_once(const struct way *w)
{
	char *state = attribute_read(w->path, "state");
	bool waits = state != NULL && (strcmp(state, "pending") == 0 || strcmp(state, "writing") == 0);
	int fd = -ETIMEDOUT;

	if (waits)
		limit_pass();
	else if (w->once)
		fd = open_until(w->path, MOMENT);
	else
		fd = open(w->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	free(state);
	return fd == -1 ? -errno : fd;
}

static int report_late(const struct way *w)
{
	const struct key *k = w->key;
	char *state = attribute_read(k->path, "state"), *producer = attribute_read(k->path, "producer");

	report(k->word, "raise --timeout, or see who is at work with 'promisefs log KEY'", "still %s after %s%s%s",
	       state == NULL ? "undeclared" : w->once && strcmp(state, "ready") == 0 ? "being replaced" : state,
	       w->timeout_text, producer ? ", written by " : "", producer ?: "");
	free(state);
	free(producer);
	return EXIT_TIMEOUT;
}

static int report_open(const struct way *w, int error)
{
	const char *word = w->key->word;

	if (limit_passed() && error == ETIMEDOUT)
		return report_late(w);
	if (w->once && error == ENOENT)
		return report(word, "'promisefs log KEY' tells", "no such key, or somebody else has taken it (ENOENT)");
	if (w->once && error == EBUSY)
		return report(word, "take it when they are released; 'promisefs log KEY' tells who has it",
			      "it is borrowed (EBUSY)");
	return key_report(w->key, error);
}

static int report_copy(const struct way *w, int error, bool reading)
{
	const char *back = w->once ? "; the key is there again" : "";

	if (error == EPIPE)
		return EXIT_FAILED;
	if (error == EDEADLK && reading)
		return report(w->key->word, "write it somewhere else", "standard output is the same file%s", back);
	if (reading)
		return key_report(w->key, error);
	return report(w->key->word, "check where standard output goes", "cannot write standard output (%s)%s",
		      strerror(error), back);
}

static int open_way(const struct way *w)
{
	if (w->timeout != 0)
		return open_until(w->path, w->timeout);
	if (!w->await || access(w->path, F_OK) == 0 || errno != ENOENT)
		return open_at_once(w);
	limit_pass();
	return -ETIMEDOUT;
}

static int get(const struct way *w)
{
	int fd = open_way(w), r;
	bool reading;

	if (fd < 0)
		return report_open(w, -fd);
	r = copy_all(fd, STDOUT_FILENO, &reading);
	if (r < 0 && w->once)
		abandon(fd); /* nobody has got it, so it goes back */
	else
		close(fd);
	return r < 0 ? report_copy(w, -r, reading) : EXIT_DONE;
}

static int get_by(const struct args *a, bool once)
{
	struct way w = { .timeout = args_duration(a, OPT_TIMEOUT), .timeout_text = a->value[OPT_TIMEOUT],
			 .await = args_has(a, OPT_AWAIT), .once = once };
	struct key k;
	int r;

	if (w.timeout == INT64_MIN)
		return EXIT_USAGE;
	r = key_find(a, a->words[0], &k);
	if (r != 0)
		return r;
	w.key = &k;
	if (once || (w.await && w.timeout != 0))
		w.path = key_control(&k, once ? "once" : "await", k.name);
	else
		w.path = strdup(k.path);
	if (w.path == NULL)
		out_of_memory();
	r = get(&w);
	free(w.path);
	key_finish(&k);
	return r;
}

int verb_get(const struct args *a)
{
	return get_by(a, false);
}

int verb_once(const struct args *a)
{
	return get_by(a, true);
}

/* wait: one descriptor for each key, opened with O_NONBLOCK, and one epoll for all; idle while nothing happens. */
#include "core/parse.h"
#include "json.h"
#include "key.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct waiting {
	struct key key;
	int fd; /* -1: settled */
};

struct waiter {
	struct waiting *keys;
	int count, pending, settled;
	int epoll;
	int status;
	bool json;
};

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

static void print_settled(const struct waiter *w, const struct key *k, const char *state, int error)
{
	struct json j = { .f = stdout };
	char *version, *reason;

	if (!w->json) {
		if (error == 0)
			puts(k->word);
		fflush(stdout);
		return;
	}
	version = error == 0 ? attribute_read(k->path, "version") : NULL;
	reason = error != 0 ? attribute_read(k->path, "error") : NULL;
	json_open(&j, NULL, '{');
	json_string(&j, "key", k->name);
	json_string(&j, "word", k->word);
	json_string(&j, "state", state);
	if (version != NULL)
		json_integer(&j, "version", atoll(version));
	if (error != 0) {
		json_string(&j, "errno", errno_name(error));
		json_string(&j, "error", reason);
	}
	json_end_line(&j);
	fflush(stdout);
	free(version);
	free(reason);
}

/* What one failure means for the whole: anything that failed is worse than what was only too late. */
static void count_failure(struct waiter *w, int status)
{
	if (w->status != EXIT_FAILED)
		w->status = status;
}

/* One of them is decided: error is 0 when it is ready. */
static void settle(struct waiter *w, struct waiting *x, int error)
{
	if (x->fd >= 0) {
		close(x->fd);
		w->pending--;
	}
	x->fd = -1;
	w->settled++;
	print_settled(w, &x->key, error == 0 ? "ready" : "failed", error);
	if (error != 0)
		count_failure(w, key_report(&x->key, error));
}

/* Whether it is still not decided; settles it otherwise. Reading tells: nothing yet, a byte or the end, or why not. */
static bool still_pending(struct waiter *w, struct waiting *x)
{
	char c;
	ssize_t n;

	do
		n = pread(x->fd, &c, 1, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return true;
	settle(w, x, n < 0 ? errno : 0);
	return false;
}

static void begin(struct waiter *w, struct waiting *x)
{
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = x };

	x->fd = open(x->key.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (x->fd < 0) {
		settle(w, x, errno);
		return;
	}
	w->pending++;
	if (still_pending(w, x) && epoll_ctl(w->epoll, EPOLL_CTL_ADD, x->fd, &e) < 0)
		settle(w, x, errno);
}

static int milliseconds_left(int64_t until)
{
	int64_t ms;

	if (until < 0)
		return -1;
	ms = (until - now_ns() + NS_PER_MS - 1) / NS_PER_MS;
	return ms < 0 ? 0 : ms > 1000000000 ? 1000000000 : (int)ms;
}

/* Take what has settled by now; false when the time is over. */
static bool wait_some(struct waiter *w, int64_t until)
{
	struct epoll_event events[64];
	int n = epoll_wait(w->epoll, events, 64, milliseconds_left(until));

	for (int i = 0; i < n; i++)
		still_pending(w, events[i].data.ptr);
	return n != 0 || until < 0 || now_ns() < until;
}

static void report_late(struct waiter *w, const char *timeout)
{
	for (int i = 0; i < w->count; i++) {
		struct key *k = &w->keys[i].key;
		char *state;

		if (w->keys[i].fd < 0)
			continue;
		state = attribute_read(k->path, "state");
		print_settled(w, k, state, ETIMEDOUT);
		report(k->word, "raise --timeout, or see who is at work with 'promisefs log KEY'", "still %s after %s",
		       state ?: "pending", timeout);
		count_failure(w, EXIT_TIMEOUT);
		free(state);
	}
}

static void wait_for_all(struct waiter *w, const struct args *a, int64_t timeout)
{
	int64_t start = now_ns(), until = timeout < 0 || timeout > INT64_MAX - start ? -1 : start + timeout;
	bool any = args_has(a, OPT_ANY);

	for (int i = 0; i < w->count && !(any && w->settled); i++)
		begin(w, &w->keys[i]);
	while (w->pending > 0 && !(any && w->settled))
		if (!wait_some(w, until)) {
			report_late(w, a->value[OPT_TIMEOUT]);
			break;
		}
}

/* As many descriptors as this process may have. */
static void raise_file_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return;
	l.rlim_cur = l.rlim_max;
	setrlimit(RLIMIT_NOFILE, &l);
}

static int find_all(struct waiter *w, const struct args *a)
{
	int r = 0;

	for (w->count = 0; w->count < a->count && r == 0; w->count++) {
		w->keys[w->count].fd = -1;
		r = key_find(a, a->words[w->count], &w->keys[w->count].key);
	}
	return r;
}

int verb_wait(const struct args *a)
{
	struct waiter w = { .json = args_has(a, OPT_JSON) };
	int64_t timeout = args_duration(a, OPT_TIMEOUT);

	if (timeout == INT64_MIN)
		return EXIT_USAGE;
	w.keys = calloc((size_t)a->count, sizeof(*w.keys));
	w.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (w.keys == NULL || w.epoll < 0)
		out_of_memory();
	raise_file_limit();
	w.status = find_all(&w, a);
	if (w.status == 0)
		wait_for_all(&w, a, timeout);
	for (int i = 0; i < w.count; i++)
		key_finish(&w.keys[i].key);
	free(w.keys);
	close(w.epoll);
	return w.status;
}

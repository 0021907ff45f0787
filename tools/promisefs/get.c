/* get: open(2) waits, and what it gives is final. A timeout is a timer whose signal ends the open. */
#include "copy.h"
#include "core/parse.h"
#include "key.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t expired;

static void on_alarm(int sig)
{
	expired = 1;
}

/* The signal is repeated: the first one may come before open(2) has begun. */
static void timer_start(int64_t ns)
{
	struct sigaction act = { .sa_handler = on_alarm };
	struct itimerval t = { .it_interval = { .tv_usec = 20000 } };

	t.it_value.tv_sec = ns / NS_PER_SEC;
	t.it_value.tv_usec = ns % NS_PER_SEC / 1000;
	if (t.it_value.tv_sec == 0 && t.it_value.tv_usec == 0)
		t.it_value.tv_usec = 1;
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &t, NULL);
}

static void timer_stop(void)
{
	struct itimerval none = { 0 };

	setitimer(ITIMER_REAL, &none, NULL);
}

/* An open that waits ends with EINTR for every signal that is handled, also when the process is stopped and goes on. */
static int open_until(const char *path, int64_t timeout)
{
	int fd;

	if (timeout > 0)
		timer_start(timeout);
	do
		fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd < 0 && errno == EINTR && !expired);
	fd = fd < 0 ? -errno : fd;
	timer_stop();
	return fd == -EINTR ? -ETIMEDOUT : fd;
}

/* Without waiting: only what is there now. */
static int open_at_once(const char *path)
{
	char *state = attribute_read(path, "state");
	bool waits = state != NULL && (strcmp(state, "pending") == 0 || strcmp(state, "writing") == 0);
	int fd = -ETIMEDOUT;

	if (!waits)
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	else
		expired = 1;
	free(state);
	return fd == -1 ? -errno : fd;
}

static int report_open(const struct key *k, int error, const char *timeout)
{
	char *state, *producer;

	if (!expired || error != ETIMEDOUT)
		return key_report(k, error);
	state = attribute_read(k->path, "state");
	producer = attribute_read(k->path, "producer");
	report(k->word, "raise --timeout, or see who is at work with 'promisefs log KEY'", "still %s after %s%s%s",
	       state ?: "undeclared", timeout, producer ? ", written by " : "", producer ?: "");
	free(state);
	free(producer);
	return EXIT_TIMEOUT;
}

static int write_out(const struct key *k, int fd)
{
	bool reading;
	int r = copy_all(fd, STDOUT_FILENO, &reading);

	if (r == -EPIPE)
		return EXIT_FAILED;
	if (r == -EDEADLK && reading)
		return report(k->word, "write it somewhere else", "standard output is the same file");
	if (r < 0 && reading)
		return key_report(k, -r);
	if (r < 0)
		return report(k->word, "check where standard output goes", "cannot write standard output (%s)",
			      strerror(-r));
	return EXIT_DONE;
}

static int get(const struct key *k, const char *path, int64_t timeout, const char *timeout_text)
{
	int fd = timeout == 0 ? open_at_once(path) : open_until(path, timeout);
	int r;

	if (fd < 0)
		return report_open(k, -fd, timeout_text);
	r = write_out(k, fd);
	close(fd);
	return r;
}

static int get_key(const struct args *a, const struct key *k, int64_t timeout)
{
	bool await = args_has(a, OPT_AWAIT);
	char *path = await && timeout != 0 ? key_control(k, "await", k->name) : strdup(k->path);
	int r;

	if (path == NULL)
		out_of_memory();
	if (await && timeout == 0 && access(path, F_OK) < 0 && errno == ENOENT) {
		expired = 1;
		r = report_open(k, ETIMEDOUT, a->value[OPT_TIMEOUT]);
	} else {
		r = get(k, path, timeout, a->value[OPT_TIMEOUT]);
	}
	free(path);
	return r;
}

int verb_get(const struct args *a)
{
	int64_t timeout = args_duration(a, OPT_TIMEOUT);
	struct key k;
	int r;

	if (timeout == INT64_MIN)
		return EXIT_USAGE;
	r = key_find(a, a->words[0], &k);
	if (r == 0) {
		r = get_key(a, &k, timeout);
		key_finish(&k);
	}
	return r;
}

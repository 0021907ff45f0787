/* run: a command with a lifetime that ends when the command does. The command binds the lifetime to itself before it
 * begins, so that does not depend on this process. */
#include "lifetime.h"

#include "core/parse.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_NS (10 * NS_PER_SEC) /* from SIGTERM to SIGKILL, after --timeout */
#define CANNOT_RUN 126
#define NOT_FOUND 127

static const int forwarded[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2 };

/* Arguments: {lifetime} becomes the path of its directory. */

static char *replaced(const char *word, const char *path)
{
	static const char mark[] = "{lifetime}";
	const char *at = strstr(word, mark);
	char *rest, *whole = NULL;

	if (at == NULL)
		whole = strdup(word);
	if (at != NULL) {
		rest = replaced(at + strlen(mark), path);
		if (asprintf(&whole, "%.*s%s%s", (int)(at - word), word, path, rest) < 0)
			whole = NULL;
		free(rest);
	}
	if (whole == NULL)
		out_of_memory();
	return whole;
}

/* The command */

static void set_mask(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGCHLD);
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		sigaddset(set, forwarded[i]);
}

static void become(const struct args *a, const struct key *lifetime, const sigset_t *mask) __attribute__((noreturn));

static void become(const struct args *a, const struct key *lifetime, const sigset_t *mask)
{
	const char *path = lifetime != NULL ? lifetime->path : "{lifetime}";
	char **words = calloc((size_t)a->count + 1, sizeof(*words));
	int r;

	if (words == NULL)
		out_of_memory();
	if (lifetime != NULL && (r = attribute_write(path, "pid", "self")) < 0)
		_exit(lifetime_report(lifetime, -r));
	if (lifetime != NULL && setenv("PROMISEFS_LIFETIME", path, 1) < 0)
		out_of_memory();
	for (int i = 0; i < a->count; i++)
		words[i] = replaced(a->words[i], path);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(words[0], words);
	r = errno;
	report(words[0], "check the name and PATH", "cannot be run (%s)", strerror(r));
	_exit(r == ENOENT ? NOT_FOUND : CANNOT_RUN);
}

/* Waiting for it */

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

/* The next signal, or 0 at `until`; -1: never. */
static int next_signal(const sigset_t *set, int64_t until, siginfo_t *info)
{
	int64_t left = until < 0 ? 3600 * NS_PER_SEC : until > now() ? until - now() : 0;
	struct timespec ts = { .tv_sec = left / NS_PER_SEC, .tv_nsec = left % NS_PER_SEC };
	int r = sigtimedwait(set, info, &ts);

	return r > 0 ? r : 0;
}

static int exit_status(int status, bool timed_out)
{
	if (timed_out)
		return EXIT_TIMEOUT;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* What is sent to us is for the command; what the terminal sends it gets itself. */
static int wait_for(const struct args *a, pid_t child, const sigset_t *set, int64_t timeout)
{
	int64_t until = timeout < 0 ? -1 : now() + timeout;
	bool timed_out = false;
	siginfo_t info;
	int status, number;

	while (waitpid(child, &status, WNOHANG) != child) {
		number = next_signal(set, until, &info);
		if (number > 0 && number != SIGCHLD && info.si_code <= 0)
			kill(child, number);
		if (until < 0 || now() < until)
			continue;
		if (!timed_out)
			report(a->words[0], "give it more with --timeout", "has not ended in time");
		kill(child, timed_out ? SIGKILL : SIGTERM);
		timed_out = true;
		until = now() + PATIENCE_NS;
	}
	return exit_status(status, timed_out);
}

static int run(const struct args *a, const struct key *lifetime, int64_t timeout)
{
	sigset_t set, before;
	pid_t child;

	set_mask(&set);
	sigprocmask(SIG_BLOCK, &set, &before);
	child = fork();
	if (child < 0)
		return report(a->words[0], "end some processes", "cannot be started (%s)", strerror(errno));
	if (child == 0)
		become(a, lifetime, &before);
	return wait_for(a, child, &set, timeout);
}

static int run_in_lifetime(const struct args *a, int64_t timeout)
{
	struct key lifetime;
	int r = lifetime_find(a, a->value[OPT_RUN_LIFETIME], &lifetime);

	if (r != 0)
		return r;
	if (mkdir(lifetime.path, 0777) < 0)
		r = lifetime_report(&lifetime, errno);
	if (r == 0 && args_has(a, OPT_LEASE)) {
		r = attribute_write(lifetime.path, "lease", a->value[OPT_LEASE]);
		if (r < 0) {
			r = lifetime_report(&lifetime, -r);
			rmdir(lifetime.path);
		}
	}
	if (r == 0) {
		r = run(a, &lifetime, timeout);
		rmdir(lifetime.path); /* by now it has ended, or is about to; this waits for it */
	}
	key_finish(&lifetime);
	return r;
}

int verb_run(const struct args *a)
{
	int64_t timeout = args_duration(a, OPT_TIMEOUT);

	if (timeout == INT64_MIN)
		return EXIT_USAGE;
	if (args_has(a, OPT_LEASE) && !args_has(a, OPT_RUN_LIFETIME))
		return report_usage("--lease needs --lifetime NAME");
	if (args_has(a, OPT_LEASE) && lease_check(a->value[OPT_RUN_LIFETIME], a->value[OPT_LEASE]) != 0)
		return EXIT_USAGE;
	return args_has(a, OPT_RUN_LIFETIME) ? run_in_lifetime(a, timeout) : run(a, NULL, timeout);
}

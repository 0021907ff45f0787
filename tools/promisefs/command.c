#include "command.h"

#include "args.h"
#include "core/parse.h"
#include "report.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_NS (10 * NS_PER_SEC) /* from SIGTERM to SIGKILL, after --timeout */
#define CANNOT_RUN 126
#define NOT_FOUND 127

static const int forwarded[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2 };

static void set_mask(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGCHLD);
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		sigaddset(set, forwarded[i]);
}

/* In its process */

static void become(const struct command *c, const sigset_t *mask) __attribute__((noreturn));

static void become(const struct command *c, const sigset_t *mask)
{
	int r = c->begin(c->arg);

	if (r == 0) {
		signal(SIGPIPE, SIG_DFL);
		sigprocmask(SIG_SETMASK, mask, NULL);
		execvp(c->words[0], c->words);
		r = errno == ENOENT ? NOT_FOUND : CANNOT_RUN;
		report(c->words[0], "check the name and PATH", "cannot be run (%s)", strerror(errno));
	}
	c->not_run(c->arg);
	_exit(r);
}

/* Waiting for it */

int64_t command_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

/* The next signal, or 0 at `until`; negative: never. */
static int next_signal(const sigset_t *set, int64_t until, siginfo_t *info)
{
	int64_t now = command_clock();
	int64_t left = until < 0 ? 3600 * NS_PER_SEC : until > now ? until - now : 0;
	struct timespec ts = { .tv_sec = left / NS_PER_SEC, .tv_nsec = left % NS_PER_SEC };
	int r = sigtimedwait(set, info, &ts);

	return r > 0 ? r : 0;
}

/* Also takes leave of others that have become our children. */
static bool has_ended(pid_t child, struct outcome *o)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == child) {
			o->status = status;
			return true;
		}
	return false;
}

/* What is sent to us is for the command; what the terminal sends it gets itself. */
static void wait_for(const char *name, pid_t child, const sigset_t *set, int64_t until, struct outcome *o)
{
	siginfo_t info;
	int number;

	while (!has_ended(child, o)) {
		number = next_signal(set, until, &info);
		if (number > 0 && number != SIGCHLD && info.si_code <= 0)
			kill(child, number);
		if (until < 0 || command_clock() < until)
			continue;
		if (!o->timed_out)
			report(name, "give it more with --timeout", "has not ended in time");
		kill(child, o->timed_out ? SIGKILL : SIGTERM);
		o->timed_out = true;
		until = command_clock() + PATIENCE_NS;
	}
}

int command_run(const struct command *c, int64_t until, struct outcome *o)
{
	sigset_t set, before;
	pid_t child;

	*o = (struct outcome){ 0 };
	set_mask(&set);
	sigprocmask(SIG_BLOCK, &set, &before);
	child = fork();
	if (child < 0)
		return report(c->words[0], "end some processes", "cannot be started (%s)", strerror(errno));
	if (child == 0)
		become(c, &before);
	wait_for(c->words[0], child, &set, until, o);
	return 0;
}

int command_status(const struct outcome *o)
{
	if (o->timed_out)
		return EXIT_TIMEOUT;
	return WIFSIGNALED(o->status) ? 128 + WTERMSIG(o->status) : WEXITSTATUS(o->status);
}

char *command_failure(const char *name, const struct outcome *o)
{
	char *text = NULL;
	const char *sig;
	int n;

	if (o->timed_out)
		n = asprintf(&text, "%s did not end in time", name);
	else if (WIFEXITED(o->status) && WEXITSTATUS(o->status) == 0)
		return NULL;
	else if (WIFEXITED(o->status))
		n = asprintf(&text, "%s exited with status %d", name, WEXITSTATUS(o->status));
	else if ((sig = sigabbrev_np(WTERMSIG(o->status))) != NULL)
		n = asprintf(&text, "%s was killed by SIG%s", name, sig);
	else
		n = asprintf(&text, "%s was killed by signal %d", name, WTERMSIG(o->status));
	if (n < 0)
		out_of_memory();
	return text;
}

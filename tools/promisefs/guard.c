/* While it is made, and between making and binding it, this process may be killed. So another one makes it, binds it to
 * itself and then waits, until this one has bound it as it is to be, or has died. Only who kills both at once leaves
 * something behind. */
#include "guard.h"

#include "key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* The other process */

static _Noreturn void make_and_hold(const struct guarded *g, int result, int hold)
{
	int r, bound;
	char c;

	setpgid(0, 0); /* what is sent to a whole group is not for it */
	r = g->make(g->arg);
	bound = r == 0 ? attribute_write(g->path, "pid", "self") : 0;
	if (bound < 0) {
		g->unmake(g->arg);
		r = bound;
	}
	if (write(result, &r, sizeof(r)) == sizeof(r))
		while (read(hold, &c, 1) < 0 && errno == EINTR)
			;
	_exit(EXIT_DONE);
}

/* This one */

static int result_of(int result)
{
	ssize_t n;
	int r;

	do
		n = read(result, &r, sizeof(r));
	while (n < 0 && errno == EINTR);
	return n == sizeof(r) ? r : -EOWNERDEAD;
}

static int take_over(const struct guarded *g, int r)
{
	if (r == 0)
		r = attribute_write(g->path, "pid", g->pid);
	else if (r != -EOWNERDEAD)
		return r;
	if (r < 0)
		g->unmake(g->arg);
	return r;
}

static pid_t start(const struct guarded *g, const int result[2], const int hold[2])
{
	pid_t child = fork();

	if (child != 0)
		return child;
	close(result[0]);
	close(hold[1]);
	make_and_hold(g, result[1], hold[0]);
}

int guarded_make(const struct guarded *g)
{
	int result[2], hold[2] = { -1, -1 }, r;
	pid_t child;

	if (pipe2(result, O_CLOEXEC) < 0)
		return -errno;
	child = pipe2(hold, O_CLOEXEC) < 0 ? -1 : start(g, result, hold);
	r = child < 0 ? -errno : 0;
	close(result[1]);
	if (child > 0)
		r = take_over(g, result_of(result[0]));
	close(result[0]);
	close(hold[0]);
	close(hold[1]);
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	return r;
}

/* put: standard input becomes the next version of a key.
 *
 * In this file system an ordinary close publishes, and so does every kind of exit; only the death of the last writer by
 * a signal does not. So when standard input or the store fails half way, put hands the draft to a child, closes its own
 * descriptor, and lets the child be killed with the draft open: nothing is published, and put exits as it likes. */
#include "copy.h"
#include "key.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the child: die with the draft open, once the parent has closed it (end of file on the pipe). */
static _Noreturn void die_with_draft(int turn)
{
	char c;

	while (read(turn, &c, 1) < 0 && errno == EINTR)
		;
	for (;;)
		raise(SIGKILL);
}

/* Give the draft up without publishing it. When there can be no child, put itself is the one who is killed. */
static void abandon_draft(int draft)
{
	int turn[2] = { -1, -1 };
	pid_t child = pipe2(turn, O_CLOEXEC) == 0 ? fork() : -1;

	if (child < 0)
		raise(SIGKILL);
	if (child == 0) {
		close(turn[1]);
		die_with_draft(turn[0]);
	}
	close(turn[0]);
	close(draft);
	close(turn[1]);
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
}

static int open_draft(const char *path)
{
	int fd;

	do
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

static int report_copy(const struct key *k, int error, bool reading)
{
	if (reading && error == EDEADLK)
		return report(k->word, "copy it somewhere else first",
			      "standard input is the same file; nothing was published");
	if (reading)
		return report(k->word, "check what standard input is",
			      "cannot read standard input (%s); nothing was published", strerror(error));
	return report_errno(k->word, error, NULL);
}

static int put(const struct key *k)
{
	int fd = open_draft(k->path), r;
	bool reading;

	if (fd < 0)
		return report_errno(k->word, -fd, NULL);
	r = copy_all(STDIN_FILENO, fd, &reading);
	if (r < 0) {
		report_copy(k, -r, reading);
		abandon_draft(fd);
		return EXIT_FAILED;
	}
	if (close(fd) < 0)
		return report_errno(k->word, errno, NULL);
	return EXIT_DONE;
}

int verb_put(const struct args *a)
{
	struct key k;
	int r = key_find(a, a->words[0], &k);

	if (r == 0) {
		r = put(&k);
		key_finish(&k);
	}
	return r;
}

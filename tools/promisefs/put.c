/* put: standard input becomes the next version of a key. When standard input or the store fails half way, the draft is
 * abandoned: nothing is published, and put exits as it likes. */
#include "abandon.h"
#include "copy.h"
#include "key.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

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
		abandon(fd);
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

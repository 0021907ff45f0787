/* future, fail, cancel, evict: what changes a key without writing it. */
#include "future.h"

#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Create the empty file that declares the key. */
int future_declare(const struct key *k)
{
	char *path = key_control(k, "future", k->name);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	int r = fd < 0 ? -errno : 0;

	free(path);
	if (fd >= 0 && close(fd) < 0)
		r = -errno;
	return r;
}

static int future(const struct args *a, const struct key *k)
{
	int r = future_declare(k);

	if (r < 0)
		return key_report(k, -r);
	if (args_has(a, OPT_DEADLINE))
		r = attribute_write(k->path, "deadline", a->value[OPT_DEADLINE]);
	if (r < 0)
		return report(k->word, "'promisefs stat KEY' says what it is now",
			      "declared, but its deadline could not be set (%s)", strerror(-r));
	printf("%s\n", k->path);
	return EXIT_DONE;
}

int verb_future(const struct args *a)
{
	struct key k;
	int r;

	if (args_has(a, OPT_DEADLINE) && !expiry_valid(a->value[OPT_DEADLINE]))
		return report_usage("'%s' is neither a duration such as 60s nor a time such as 2026-01-02T03:04:05Z",
				    a->value[OPT_DEADLINE]);
	r = key_find(a, a->words[0], &k);
	if (r == 0) {
		r = future(a, &k);
		key_finish(&k);
	}
	return r;
}

static int fail(const struct key *k, const char *reason)
{
	int r = attribute_write(k->path, "error", reason);

	if (r == -ENOENT)
		return report(k->word, "declare it first with 'promisefs future KEY'", "no such key");
	if (r == -EEXIST)
		return report(k->word, "only a pending key can fail; 'promisefs evict KEY' removes it",
			      "it is set already (EEXIST)");
	return r < 0 ? report_errno(k->word, -r, NULL) : EXIT_DONE;
}

int verb_fail(const struct args *a)
{
	struct key k;
	int r = key_find(a, a->words[0], &k);

	if (r == 0) {
		r = fail(&k, a->words[1]);
		key_finish(&k);
	}
	return r;
}

int future_cancel(const struct key *k)
{
	char *path = key_control(k, "future", k->name);
	int r = unlink(path) < 0 ? -errno : 0;

	free(path);
	return r;
}

static int cancel(const struct key *k)
{
	char *state = attribute_read(k->path, "state");
	int r;

	if (state == NULL && errno == ENOENT)
		return report(k->word, "'promisefs ls' shows what there is", "no such key");
	if (state == NULL || strcmp(state, "ready") == 0) {
		free(state);
		return report(k->word, "only a pending key can be cancelled; 'promisefs evict KEY' removes it",
			      "it is set already");
	}
	free(state);
	r = future_cancel(k);
	return r < 0 ? report_errno(k->word, -r, NULL) : EXIT_DONE;
}

int verb_cancel(const struct args *a)
{
	struct key k;
	int r = key_find(a, a->words[0], &k);

	if (r == 0) {
		r = cancel(&k);
		key_finish(&k);
	}
	return r;
}

static int evict(const struct key *k)
{
	if (unlink(k->path) == 0)
		return EXIT_DONE;
	if (errno == ENOENT)
		return report(k->word, "'promisefs ls' shows what there is", "no such key");
	if (errno == EISDIR)
		return report(k->word, "remove it with 'rm -r KEY'", "it is a directory");
	return report_errno(k->word, errno, NULL);
}

int verb_evict(const struct args *a)
{
	int status = EXIT_DONE;

	for (int i = 0; i < a->count; i++) {
		struct key k;
		int r = key_find(a, a->words[i], &k);

		if (r == 0) {
			r = evict(&k);
			key_finish(&k);
		}
		status = r != 0 ? r : status;
	}
	return status;
}

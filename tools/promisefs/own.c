/* own: a key moves to an owner handle, or from there to a key. */
#include "handle.h"
#include "lifetime.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <stdio.h>

/* To a handle */

static int check(const struct args *a)
{
	if (args_has(a, OPT_LEASE) && lease_check(a->words[0], a->value[OPT_LEASE]) != 0)
		return EXIT_USAGE;
	if (a->count > 1 && handle_check_name(a->words[1]) != 0)
		return EXIT_USAGE;
	return args_check_pid(a);
}

static int own(const struct args *a, struct handle *h)
{
	const struct handle_wish wish = { .name = a->count > 1 ? a->words[1] : NULL, .prefix = "own",
					  .pid = a->value[OPT_PID] };
	int r = handle_own(h, &wish);

	if (r == 0 && args_has(a, OPT_LEASE))
		r = handle_set(h, "lease", a->value[OPT_LEASE]);
	if (r == 0)
		printf("%s\n", h->path);
	else
		handle_undo(h);
	return r;
}

static int take(const struct args *a)
{
	struct handle h = { .kind = HANDLE_OWN };
	struct key k;
	int r = check(a);

	if (r == 0)
		r = key_find(a, a->words[0], &k);
	if (r != 0)
		return r;
	h.key = &k;
	r = handle_check_process(&k, a->value[OPT_PID]);
	if (r == 0)
		r = own(a, &h);
	handle_finish(&h);
	key_finish(&k);
	return r;
}

/* To a key */

static int report_give(const struct key *k, const struct key *handle, int error)
{
	if (error == ENOENT || error == EPERM)
		return handle_report(handle, error);
	if (error == EBUSY)
		return report(k->word, "wait until it is released; 'promisefs log KEY' tells who has it",
			      "what is there is borrowed, and cannot be replaced (EBUSY)");
	if (error == EXDEV)
		return report(k->word, "name a key of the same mount",
			      "it is not in the mount of %s (EXDEV)", handle->word);
	return report_errno(k->word, error, NULL);
}

static int give(const struct args *a, const struct key *handle)
{
	enum handle_kind kind;
	struct key k;
	int r = 0;

	if (handle_is(handle, &kind) && kind != HANDLE_OWN)
		return report(handle->word, "release it with 'promisefs release KEY'",
			      "it only borrows, and has nothing to give");
	r = key_find(a, a->value[OPT_TO], &k);
	if (r != 0)
		return r;
	if (rename(handle->path, k.path) < 0)
		r = report_give(&k, handle, errno);
	key_finish(&k);
	return r;
}

static int give_back(const struct args *a)
{
	struct key handle;
	int r;

	if (a->count != 1)
		return report_usage("unexpected argument '%s'", a->words[1]);
	if (args_has(a, OPT_LEASE) || args_has(a, OPT_PID))
		return report_usage("option --%s does not go with --to", args_has(a, OPT_LEASE) ? "lease" : "pid");
	r = handle_find(a, a->words[0], &handle);
	if (r == 0) {
		r = give(a, &handle);
		key_finish(&handle);
	}
	return r;
}

int verb_own(const struct args *a)
{
	return args_has(a, OPT_TO) ? give_back(a) : take(a);
}

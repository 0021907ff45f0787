/* borrow: a link in ref/ or mut/. It is dropped again when what was asked for besides cannot be had. */
#include "handle.h"
#include "lifetime.h"
#include "limit.h"
#include "report.h"
#include "verbs.h"

#include <stdio.h>

static int check(const struct args *a, int64_t timeout)
{
	if (timeout == INT64_MIN)
		return EXIT_USAGE;
	if (timeout >= 0 && !args_has(a, OPT_WAIT))
		return report_usage("--timeout needs --wait");
	if (args_has(a, OPT_LEASE) && lease_check(a->words[0], a->value[OPT_LEASE]) != 0)
		return EXIT_USAGE;
	if (a->count > 1 && handle_check_name(a->words[1]) != 0)
		return EXIT_USAGE;
	return args_check_pid(a);
}

static int borrow(const struct args *a, struct handle *h, int64_t timeout)
{
	const struct handle_wish wish = { .name = a->count > 1 ? a->words[1] : NULL, .prefix = "borrow",
					  .pid = a->value[OPT_PID], .wait = args_has(a, OPT_WAIT) && timeout != 0 };
	int r;

	if (timeout == 0)
		limit_pass();
	else
		limit_start(timeout);
	r = handle_borrow(h, &wish);
	limit_stop();
	return r;
}

static int limit_and_print(const struct args *a, struct handle *h)
{
	int r = args_has(a, OPT_LEASE) ? handle_set(h, "lease", a->value[OPT_LEASE]) : 0;

	if (r == 0)
		printf("%s\n", h->path);
	else
		handle_undo(h);
	return r;
}

int verb_borrow(const struct args *a)
{
	int64_t timeout = args_duration(a, OPT_TIMEOUT);
	struct handle h = { .kind = args_has(a, OPT_MUT) ? HANDLE_MUT : HANDLE_REF };
	struct key k;
	int r = check(a, timeout);

	if (r == 0)
		r = key_find(a, a->words[0], &k);
	if (r != 0)
		return r;
	h.key = &k;
	r = handle_check_process(&k, a->value[OPT_PID]); /* before it is waited for */
	if (r == 0)
		r = borrow(a, &h, timeout);
	if (r == 0)
		r = limit_and_print(a, &h);
	handle_finish(&h);
	key_finish(&k);
	return r;
}

/* lease: when a key or a lifetime ends by itself. */
#include "core/parse.h"
#include "json.h"
#include "lifetime.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <stdlib.h>

int lease_check(const char *word, const char *value)
{
	int64_t ns;

	if (expiry_valid(value) || (value[0] == '+' && parse_duration(value + 1, &ns) == 0))
		return 0;
	return report_usage("%s: '%s' is not a lease such as 60s, +60s, 2026-01-02T03:04:05Z or none", word, value);
}

static int report_lease(const struct key *k, int error)
{
	if (lifetime_is(k))
		return lifetime_report(k, error);
	if (error == EOPNOTSUPP)
		return report(k->word, "give it to files or directories in it, or to a lifetime",
			      "this directory cannot have a lease (EOPNOTSUPP)");
	return report_errno(k->word, error, NULL);
}

static int set(const struct key *k, const char *value)
{
	int r = attribute_write(k->path, "lease", value);

	return r < 0 ? report_lease(k, -r) : EXIT_DONE;
}

static int print(const struct args *a, const struct key *k)
{
	struct json j = { .f = stdout };
	char *value = attribute_read(k->path, "lease");

	if (value == NULL && errno != ENODATA)
		return report_lease(k, errno);
	if (args_has(a, OPT_JSON)) {
		json_open(&j, NULL, '{');
		json_string(&j, "key", k->name);
		json_string(&j, "lease", value);
		json_end_line(&j);
	} else {
		puts(value ?: "none");
	}
	free(value);
	return EXIT_DONE;
}

int verb_lease(const struct args *a)
{
	const char *value = a->count > 1 ? a->words[1] : NULL;
	struct key k;
	int r = value != NULL ? lease_check(a->words[0], value) : 0;

	if (r == 0 && value != NULL && args_has(a, OPT_JSON))
		r = report_usage("option --json is for printing a lease, not for setting one");
	if (r == 0)
		r = args_has(a, OPT_LIFETIME) ? lifetime_find(a, a->words[0], &k) : key_find(a, a->words[0], &k);
	if (r == 0) {
		r = value != NULL ? set(&k, value) : print(a, &k);
		key_finish(&k);
	}
	return r;
}

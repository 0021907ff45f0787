#include "args.h"

#include "core/parse.h"
#include "report.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONG_BASE 0x100 /* getopt's value of option id is LONG_BASE + id */

const struct verb_row *verb_find(const struct verb_row *table, const char *name)
{
	for (const struct verb_row *v = table; v->name != NULL; v++)
		if (strcmp(v->name, name) == 0)
			return v;
	return NULL;
}

bool args_has(const struct args *a, enum option_id id)
{
	return a->value[id] != NULL;
}

int64_t args_duration(const struct args *a, enum option_id id)
{
	int64_t ns;

	if (!args_has(a, id))
		return -1;
	if (parse_duration(a->value[id], &ns) == 0)
		return ns;
	report_usage("'%s' is not a duration such as 500ms, 10s or 1.5h", a->value[id]);
	return INT64_MIN;
}

int args_check_wait_timeout(const struct args *a)
{
	const char *value = a->value[OPT_WAIT_TIMEOUT];
	int64_t ns;

	if (value == NULL || strcmp(value, "none") == 0 || parse_duration(value, &ns) == 0)
		return 0;
	return report_usage("--wait-timeout: '%s' is not a duration such as 500ms, 10s or 0, nor none", value);
}

int args_check_pid(const struct args *a)
{
	const char *value = a->value[OPT_PID];
	char *end;
	long pid;

	if (value == NULL)
		return 0;
	errno = 0;
	pid = strtol(value, &end, 10);
	if (errno == 0 && isdigit((unsigned char)value[0]) && *end == '\0' && pid > 0 && pid <= INT_MAX)
		return 0;
	return report_usage("'%s' is not the number of a process", value);
}

bool expiry_valid(const char *s)
{
	int64_t ns;

	return strcmp(s, "none") == 0 || parse_time(s, &ns) == 0 || parse_duration(s, &ns) == 0;
}

/* The options of a verb in the form that getopt wants. */
static void build_getopt(const struct verb_row *v, char *letters, struct option *longs)
{
	if (v->kind == WORD_COMMAND)
		*letters++ = '+';
	*letters++ = ':';
	for (const struct option_row *o = option_table; o->name != NULL; o++) {
		if ((v->options & (1u << o->id)) == 0)
			continue;
		*longs++ = (struct option){ o->name, o->argument ? required_argument : no_argument, NULL,
					    LONG_BASE + (int)o->id };
		if (o->letter == 0)
			continue;
		*letters++ = o->letter;
		if (o->argument != NULL)
			*letters++ = ':';
	}
	*letters = '\0';
	*longs = (struct option){ 0 };
}

static const struct option_row *option_of(int c)
{
	for (const struct option_row *o = option_table; o->name != NULL; o++)
		if (c == LONG_BASE + (int)o->id || (o->letter != 0 && c == o->letter))
			return o;
	return NULL;
}

static void join_mount_options(struct args *a, const char *more)
{
	char *joined = NULL;

	if (asprintf(&joined, "%s%s%s", a->mount_options ?: "", a->mount_options ? "," : "", more) < 0)
		out_of_memory();
	free(a->mount_options);
	a->mount_options = joined;
}

static void take_option(struct args *a, const struct option_row *o, const char *value)
{
	a->value[o->id] = value ?: "";
	if (o->argument != NULL)
		a->given[a->given_count++] = (struct given){ o->id, value };
	if (o->id == OPT_OPTIONS)
		join_mount_options(a, value);
}

/* getopt leaves the culprit behind optind for a long option and in optopt for a letter. */
static int bad_option(int c, char **argv)
{
	const char *word = argv[optind - 1];
	const struct option_row *o = option_of(optopt);
	char letter[3] = { '-', (char)optopt, '\0' };

	if (c == ':')
		return report_usage("option %s needs %s", word, o != NULL ? o->argument : "a value");
	if (optopt >= LONG_BASE)
		return report_usage("option --%s takes no value", o->name);
	return report_usage("unknown option %s", optopt != 0 ? letter : word);
}

static int check_count(const struct args *a)
{
	const struct verb_row *v = a->verb;

	if (a->count < v->min)
		return report_usage("missing argument: %s", v->words);
	if (v->max >= 0 && a->count > v->max)
		return report_usage("unexpected argument '%s'", a->words[v->max]);
	for (int i = 0; i < a->count && v->kind != WORD_COMMAND; i++)
		if (a->words[i][0] == '\0')
			return report_usage("an argument is empty");
	return 0;
}

/* The first word of a verb that has actions says which; the others are that one's. */
static int take_action(struct args *a)
{
	const struct verb_row *action;

	if (a->verb->actions == NULL || a->count == 0)
		return 0;
	action = verb_find(a->verb->actions, a->words[0]);
	if (action == NULL)
		return report_usage("unknown action '%s'", a->words[0]);
	for (const struct option_row *o = option_table; o->name != NULL; o++)
		if (args_has(a, o->id) && (action->options & (1u << o->id)) == 0)
			return report_usage("option --%s does not go with '%s'", o->name, action->name);
	a->verb = action;
	a->words++;
	a->count--;
	return 0;
}

int args_parse(struct args *a, int argc, char **argv)
{
	char letters[2 * OPT_COUNT + 3];
	struct option longs[OPT_COUNT + 1];
	int c, r;

	a->given = calloc((size_t)argc, sizeof(*a->given)); /* a word has one value at most */
	if (a->given == NULL)
		out_of_memory();
	build_getopt(a->verb, letters, longs);
	opterr = 0;
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		if (c == '?' || c == ':')
			return bad_option(c, argv);
		take_option(a, option_of(c), optarg);
	}
	a->count = argc - optind;
	a->words = argv + optind;
	if (args_has(a, OPT_HELP))
		return 0;
	r = take_action(a);
	return r == 0 ? check_count(a) : r;
}

void args_finish(struct args *a)
{
	free(a->mount_options);
	a->mount_options = NULL;
	free(a->given);
	a->given = NULL;
}

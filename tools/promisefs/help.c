/* Help and completion, written from the table. */
#include "args.h"
#include "key.h"
#include "report.h"
#include "verbs.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void help_all(void)
{
	printf("Usage: promisefs VERB [OPTION]... [ARGUMENT]...\n"
	       "A directory in which every path is a promise: open a file before it exists,\n"
	       "and get it, whole, when its producer has written it.\n\n");
	for (const struct verb_row *v = verb_table; v->name != NULL; v++)
		printf("  %-8s %s\n", v->name, v->summary);
	printf("\n"
	       "  --version, --help, and `promisefs VERB --help` or `promisefs help VERB`\n\n"
	       "KEY is a path below a mount. With -m MOUNTPOINT, or PROMISEFS_MOUNT in the\n"
	       "environment, relative KEYs are below that mount.\n"
	       "DUR is a number with a unit: 500ms, 10s, 1.5h; units ns us ms s m h d.\n"
	       "Exit status: 0 done, 1 failed, 2 usage, 124 timed out.\n");
}

static void help_option(const struct option_row *o)
{
	char left[40], letter[5] = "    ";

	if (o->letter != 0)
		snprintf(letter, sizeof(letter), "-%c, ", o->letter);
	snprintf(left, sizeof(left), "%s--%s%s%s", letter, o->name, o->argument ? " " : "", o->argument ?: "");
	printf("  %-27s %s\n", left, o->help);
}

static void help_actions(const struct verb_row *actions)
{
	printf("\nActions:\n");
	for (const struct verb_row *v = actions; v->name != NULL; v++) {
		char left[40];

		snprintf(left, sizeof(left), "%s %s", v->name, v->words);
		printf("  %-16s %s\n", left, v->summary);
	}
}

static void help_mount_options(void)
{
	printf("\nMount options:\n");
	for (const struct mount_option_row *m = mount_table; m->name != NULL; m++) {
		char left[40];

		snprintf(left, sizeof(left), "%s%s", m->name, m->argument);
		printf("  %-28s %s\n", left, m->help);
	}
}

void help_verb(const struct verb_row *v)
{
	printf("Usage: promisefs %s [OPTION]...%s%s\n%c%s.\n", v->name, *v->words ? " " : "", v->words,
	       v->summary[0] - ('a' - 'A'), v->summary + 1);
	if (*v->text)
		printf("\n%s", v->text);
	if (v->actions != NULL)
		help_actions(v->actions);
	printf("\n");
	for (const struct option_row *o = option_table; o->name != NULL; o++)
		if (v->options & (1u << o->id))
			help_option(o);
	if (v->options & (1u << OPT_OPTIONS))
		help_mount_options();
}

int verb_help(const struct args *a)
{
	const struct verb_row *v;

	if (a->count == 0) {
		help_all();
		return EXIT_DONE;
	}
	v = verb_find(verb_table, a->words[0]);
	if (v == NULL) {
		report_verb(NULL);
		return report_usage("unknown verb '%s'", a->words[0]);
	}
	help_verb(v);
	return EXIT_DONE;
}

static void offer(const char *prefix, const char *word, const char *typed)
{
	if (strncmp(word, typed, strlen(typed)) == 0)
		printf("%s%s\n", prefix, word);
}

static void complete_verbs(const struct verb_row *table, const char *typed)
{
	for (const struct verb_row *v = table; v->name != NULL; v++)
		offer("", v->name, typed);
}

static void complete_options(const struct verb_row *v, const char *typed)
{
	for (const struct option_row *o = option_table; o->name != NULL; o++)
		if ((v->options & (1u << o->id)) && strncmp(typed, "--", strlen(typed) < 2 ? strlen(typed) : 2) == 0)
			offer("--", o->name, strlen(typed) < 2 ? "" : typed + 2);
}

/* The last of a list that is separated by commas; what stands before it is kept. */
static void complete_mount_options(const char *typed)
{
	const char *comma = strrchr(typed, ',');
	const char *last = comma != NULL ? comma + 1 : typed;
	char *before = strndup(typed, (size_t)(last - typed));

	for (const struct mount_option_row *m = mount_table; before != NULL && m->name != NULL; m++)
		offer(before, m->name, last);
	free(before);
}

/* The names in a directory below .promisefs, with a prefix. */
static void complete_controls(const char *directory, const char *prefix, const char *typed, const char *mount)
{
	const struct args a = { .value[OPT_MOUNT] = mount };
	struct dirent **names = NULL;
	struct key k;
	char *dir;
	int n;

	if (strncmp(prefix, typed, strlen(prefix)) != 0 || key_find(&a, key_default(&a), &k) != 0)
		return;
	dir = key_control(&k, directory, NULL);
	n = directory_names(dir, &names);
	for (int i = 0; i < n; i++) {
		offer(prefix, names[i]->d_name, typed + strlen(prefix));
		free(names[i]);
	}
	free(names);
	free(dir);
	key_finish(&k);
}

/* What has a slash already is a handle of that kind, or a path. */
static void complete_handles(const char *typed, const char *mount)
{
	static const char *const kinds[] = { "own", "ref", "mut" };

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		char prefix[8];

		snprintf(prefix, sizeof(prefix), "%s/", kinds[i]);
		if (strchr(typed, '/') != NULL)
			complete_controls(kinds[i], prefix, typed, mount);
		else
			offer("", prefix, typed);
	}
	printf("@files\n");
}

static void complete_word(enum word_kind kind, const char *typed, const char *mount)
{
	if (kind == WORD_VERB)
		complete_verbs(verb_table, typed);
	else if (kind == WORD_MOUNT_OPTION)
		complete_mount_options(typed);
	else if (kind == WORD_LIFETIME)
		complete_controls("lifetimes", "", typed, mount);
	else if (kind == WORD_HANDLE)
		complete_handles(typed, mount);
	else if (kind == WORD_DIRECTORY)
		printf("@dirs\n");
	else if (kind == WORD_KEY && mount != NULL && typed[0] != '/')
		printf("@below %s\n", mount);
	else if (kind == WORD_KEY || kind == WORD_COMMAND)
		printf("@files\n");
}

/* The row of the option that `word` is for the verb (NULL: for any), when it takes an argument. */
static const struct option_row *wants_argument(const struct verb_row *v, const char *word)
{
	for (const struct option_row *o = option_table; o->name != NULL; o++) {
		bool by_letter = o->letter != 0 && word[0] == '-' && word[1] == o->letter && word[2] == '\0';
		bool by_name = strncmp(word, "--", 2) == 0 && strcmp(word + 2, o->name) == 0;

		if (o->argument != NULL && (by_letter || by_name) && (v == NULL || (v->options & (1u << o->id)) != 0))
			return o;
	}
	return NULL;
}

/* What the words before the one to be completed say. */
struct typed {
	const struct verb_row *verb;     /* or its action; NULL: not yet there */
	const struct option_row *option; /* whose argument comes now */
	const struct option_row *before; /* whose argument was the last word */
	const char *mount;
	enum word_kind first; /* what an option has made of the verb's first word */
	bool more;            /* it is not the first of the verb's words */
};

static bool in_command(const struct typed *t)
{
	return t->more && t->verb->kind == WORD_COMMAND;
}

static void take_word(struct typed *t, const char *word)
{
	if (t->verb == NULL)
		t->verb = verb_find(verb_table, word);
	else if (t->verb->actions != NULL)
		t->verb = verb_find(t->verb->actions, word) ?: t->verb;
	else
		t->more = true;
}

/* A shell that takes NAME=KEY for three words means the argument still. */
static void take_typed(struct typed *t, const char *word)
{
	const struct option_row *option = t->option;

	t->option = strcmp(word, "=") == 0 ? t->before : option == NULL ? wants_argument(t->verb, word) : NULL;
	t->before = option;
	if (in_command(t))
		t->option = NULL;
	if (option != NULL && option->id == OPT_MOUNT)
		t->mount = word;
	else if (option != NULL && option->id == OPT_TO)
		t->first = WORD_HANDLE;
	else if (t->option == NULL && strcmp(word, "--lifetime") == 0)
		t->first = WORD_LIFETIME;
	else if (option == NULL && t->option == NULL && word[0] != '-')
		take_word(t, word);
}

static enum word_kind next_kind(const struct typed *t)
{
	if (!t->more && t->first != WORD_NONE)
		return t->first;
	return !t->more && t->verb->first != WORD_NONE ? t->verb->first : t->verb->kind;
}

int complete(int index, int count, char **words)
{
	const char *typed = index < count ? words[index] : "";
	struct typed t = { .mount = getenv("PROMISEFS_MOUNT") };

	for (int i = 1; i < index && i < count; i++)
		take_typed(&t, words[i]);
	if (strcmp(typed, "=") == 0 && t.before != NULL) {
		t.option = t.before;
		typed = "";
	}
	if (t.option != NULL)
		complete_word(t.option->kind, typed, t.mount);
	else if (t.verb == NULL)
		complete_word(WORD_VERB, typed, t.mount);
	else if (typed[0] == '-' && !in_command(&t))
		complete_options(t.verb, typed);
	else if (t.verb->actions != NULL)
		complete_verbs(t.verb->actions, typed);
	else
		complete_word(next_kind(&t), typed, t.mount);
	return EXIT_DONE;
}

/* Verbs and options: the table that everything else is made from (parsing, help, completion), and what a verb gets. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum exit_status {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_TIMEOUT = 124,
	EXIT_REPAIRED = 1, /* these three as fsck(8) has them */
	EXIT_LEFT = 4,
	EXIT_OPERATION = 8,
};

enum option_id {
	OPT_MOUNT,
	OPT_JSON,
	OPT_TIMEOUT,
	OPT_AWAIT,
	OPT_DEADLINE,
	OPT_LEASE,
	OPT_LIFETIME,
	OPT_RUN_LIFETIME, /* --lifetime with a name */
	OPT_ANY,
	OPT_LONG,
	OPT_FOLLOW,
	OPT_SHA256,
	OPT_OPTIONS,
	OPT_FOREGROUND,
	OPT_MUT,
	OPT_WAIT,
	OPT_PID,
	OPT_TO,
	OPT_BORROW, /* run makes a handle for each of this and the next four */
	OPT_BORROW_MUT,
	OPT_OWN,
	OPT_PRODUCE,
	OPT_ONCE,
	OPT_WAIT_TIMEOUT,
	OPT_ONLINE,
	OPT_REPAIR,
	OPT_QUICK,
	OPT_DRY_RUN,
	OPT_EVENTS,
	OPT_HELP,
	OPT_COUNT,
};

/* What completion offers where a verb takes a word. */
enum word_kind {
	WORD_NONE,
	WORD_KEY,
	WORD_DIRECTORY,
	WORD_VERB,
	WORD_MOUNT_OPTION,
	WORD_LIFETIME,
	WORD_HANDLE,
	WORD_COMMAND, /* and its arguments: what looks like an option behind it is none of ours */
};

struct option_row {
	enum option_id id;
	char letter; /* 0: long form only */
	const char *name;
	const char *argument; /* NULL: takes none */
	const char *help;
	enum word_kind kind; /* of the argument */
};

struct given {
	enum option_id id;
	const char *value;
};

/* The words of one command line, as the verb sees them. */
struct args {
	const struct verb_row *verb;  /* or its action */
	const char *value[OPT_COUNT]; /* NULL: not given; "" for an option without argument */
	struct given *given;          /* those with an argument, in the order of the command line; may be repeated */
	int given_count;
	int count;                    /* of words that are not options */
	char **words;
	char *mount_options; /* all -o joined with commas, or NULL */
};

struct verb_row {
	const char *name;
	const char *words;   /* the synopsis after the options */
	const char *summary; /* one line */
	const char *text;    /* more, for --help */
	unsigned options;    /* bits of enum option_id */
	int min, max;        /* number of words; max < 0: any number */
	enum word_kind kind; /* of the words */
	int (*run)(const struct args *a);
	const struct verb_row *actions; /* NULL: none; else the first word is one of these, which is then run instead */
	enum word_kind first;           /* kind of the first word, when it is another one */
};

struct mount_option_row {
	const char *name;     /* with the = of its value */
	const char *argument; /* what may follow, or "" */
	const char *help;
};

extern const struct option_row option_table[];      /* ends with a row without name */
extern const struct verb_row verb_table[];          /* likewise */
extern const struct mount_option_row mount_table[]; /* likewise */

/* The verb or action of that name, NULL when there is none. */
const struct verb_row *verb_find(const struct verb_row *table, const char *name);

/* Whether the option was given. */
bool args_has(const struct args *a, enum option_id id);

/* The value of a duration option in nanoseconds, -1 when it was not given; INT64_MIN after a usage error was told. */
int64_t args_duration(const struct args *a, enum option_id id);

/* Check the value of OPT_WAIT_TIMEOUT. Returns 0 or EXIT_USAGE after saying what is wrong. */
int args_check_wait_timeout(const struct args *a);

/* Check the value of OPT_PID. Returns 0 or EXIT_USAGE after saying what is wrong. */
int args_check_pid(const struct args *a);

/* Whether s says when something ends: a duration, a time, or `none`. */
bool expiry_valid(const char *s);

/* Take argv (after the verb) apart by the table. Returns 0, or EXIT_USAGE after saying what is wrong. */
int args_parse(struct args *a, int argc, char **argv);

void args_finish(struct args *a);

/* Help: of the whole command, of one verb. */
void help_all(void);
void help_verb(const struct verb_row *v);

/* Print what could stand at word `index` of the command line, for the shell: one candidate a line, or a line
 * `@files`, `@dirs` or `@below DIRECTORY` that tells the shell to look for names itself. */
int complete(int index, int count, char **words);

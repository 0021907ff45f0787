/* What the user is told when something failed: one line on standard error, `promisefs VERB: KEY: what; what to do`. */
#pragma once

#include <stdio.h>

/* Name of the verb that begins every line, NULL for none. */
void report_verb(const char *verb);

/* Say what failed with `key` (may be NULL) and what to do (may be NULL; the word KEY in it becomes the key, quoted for
 * a shell). Returns EXIT_FAILED. */
int report(const char *key, const char *advice, const char *what, ...) __attribute__((format(printf, 3, 4)));

/* The same for an errno (positive), by the table of advice. `reason` says more and may be NULL. Returns EXIT_FAILED. */
int report_errno(const char *key, int error, const char *reason);

/* Say what is wrong with the command line. Returns EXIT_USAGE. */
int report_usage(const char *what, ...) __attribute__((format(printf, 1, 2)));

/* Write a key so that it stays on one line: control characters and backslash as \n, \t, \\, \xNN. */
void print_key(FILE *f, const char *key);

/* The same as one word of a shell command, in quotation marks where it needs them. */
void print_quoted(FILE *f, const char *word);

/* What to do about an errno, from the table; never NULL. */
const char *advice_for(int error);

_Noreturn void out_of_memory(void);

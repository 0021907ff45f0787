/* The command line: words with a NUL between them, taken apart by every verb, and completed. */
#include "args.h"
#include "report.h"
#include "verbs.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS 24

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	int null = open("/dev/null", O_RDWR);

	dup2(null, STDOUT_FILENO);
	return 0;
}

static int split(char *text, size_t size, char **words)
{
	int n = 0;

	for (char *at = text; at < text + size && n < WORDS; at += strlen(at) + 1)
		words[n++] = at;
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *words[WORDS + 2] = { NULL };
	const struct verb_row *v;
	struct args a = { 0 };
	int n;

	memcpy(text, data, size);
	text[size] = '\0';
	n = split(text, size, words);
	if (n > 0 && size % 5 == 0)
		complete((int)(data[0] % (n + 2)), n, words);
	v = n > 0 ? verb_find(verb_table, words[0]) : NULL;
	if (v != NULL) {
		a.verb = v;
		optind = 0; /* getopt forgets the last one */
		if (args_parse(&a, n, words) == 0) {
			args_duration(&a, OPT_TIMEOUT);
			args_check_wait_timeout(&a);
			args_check_pid(&a);
			if (args_has(&a, OPT_DEADLINE))
				expiry_valid(a.value[OPT_DEADLINE]);
			if (args_has(&a, OPT_HELP))
				help_verb(v);
		}
		args_finish(&a);
	}
	free(text);
	return 0;
}

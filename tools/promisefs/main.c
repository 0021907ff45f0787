/* The promisefs command. It talks to a mount through files only, as any other program would. */
#include "args.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Standard descriptors that are closed would be taken by the first file that is opened. Put something there on which
 * the reading or writing that is meant for them fails. */
static void fill_standard_descriptors(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0)
			exit(EXIT_FAILED);
}

/* What is still in the buffer must have been written when we say that all went well. */
static int finish_output(int status)
{
	bool failed = fflush(stdout) != 0 || ferror(stdout);

	if (!failed || status != EXIT_DONE)
		return status;
	if (errno == EPIPE)
		return EXIT_FAILED;
	return report(NULL, "check where standard output goes", "cannot write standard output (%s)", strerror(errno));
}

static int run_verb(const struct verb_row *v, int argc, char **argv, const char *mount)
{
	struct args a = { .verb = v };
	int r;

	report_verb(v->name);
	a.value[OPT_MOUNT] = mount;
	r = args_parse(&a, argc, argv);
	if (r == 0 && args_has(&a, OPT_HELP))
		help_verb(v);
	else if (r == 0)
		r = a.verb->run(&a);
	args_finish(&a);
	return finish_output(r);
}

/* Words before the verb: the same -m as behind it. Returns how many there are. */
static int leading_mount(int argc, char **argv, const char **mount)
{
	if (argc > 2 && (strcmp(argv[1], "-m") == 0 || strcmp(argv[1], "--mount") == 0)) {
		*mount = argv[2];
		return 2;
	}
	if (argc > 1 && strncmp(argv[1], "--mount=", 8) == 0) {
		*mount = argv[1] + 8;
		return 1;
	}
	return 0;
}

static int run_word(const char *word)
{
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
		help_all();
	else if (strcmp(word, "--version") == 0)
		printf("promisefs %s\n", PFS_VERSION);
	else
		return report_usage("unknown %s '%s'", word[0] == '-' ? "option" : "verb", word);
	return finish_output(EXIT_DONE);
}

int main(int argc, char **argv)
{
	const char *mount = NULL;
	const struct verb_row *v;
	int skip;

	fill_standard_descriptors();
	if (argc > 2 && strcmp(argv[1], "--complete") == 0)
		return complete(atoi(argv[2]), argc - 3, argv + 3);
	skip = leading_mount(argc, argv, &mount);
	argc -= skip;
	argv += skip;
	if (argc < 2)
		return report_usage("missing verb");
	v = verb_find(verb_table, argv[1]);
	if (v == NULL)
		return run_word(argv[1]);
	if (v->run != verb_mount)
		signal(SIGPIPE, SIG_IGN);
	return run_verb(v, argc - 1, argv + 1, mount);
}

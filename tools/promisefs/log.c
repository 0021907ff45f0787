/* log: the recorded events of a key or of all, and with --follow those to come. */
#include "json.h"
#include "key.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct follower {
	const struct args *args;
	const struct key *key;
	long long last; /* id of the last event that was printed */
};

/* One event as one line of text: when, what, which key, and by whom. */
static void print_event(const char *line)
{
	static const char *const names[] = { "time", "event", "key", "version", "pid", "command", "uid", "detail" };
	char *v[8];

	for (int i = 0; i < 8; i++)
		v[i] = json_member(line, names[i]);
	printf("%-30s %-8s ", v[0] ?: "-", v[1] ?: "-");
	print_key(stdout, v[2] ?: "");
	if (v[3] != NULL && strcmp(v[3], "0") != 0)
		printf("  version %s", v[3]);
	if (v[4] != NULL && strcmp(v[4], "0") != 0)
		printf("  pid %s (%s) uid %s", v[4], v[5] ?: "?", v[6] ?: "?");
	if (v[7] != NULL && *v[7]) {
		printf("  ");
		print_key(stdout, v[7]);
	}
	printf("\n");
	for (int i = 0; i < 8; i++)
		free(v[i]);
}

/* The daemon selects the history by key; the live stream has everything. */
static bool of_key(const struct follower *f, const char *line)
{
	char *key;
	bool same;

	if (f->args->count == 0 || *f->key->name == '\0')
		return true;
	key = json_member(line, "key");
	same = key != NULL && strcmp(key, f->key->name) == 0;
	free(key);
	return same;
}

static void take_line(struct follower *f, const char *line)
{
	char *id = json_member(line, "id");
	long long number = id != NULL ? atoll(id) : 0;

	free(id);
	if ((number != 0 && number <= f->last) || !of_key(f, line))
		return;
	f->last = number;
	if (args_has(f->args, OPT_JSON))
		fputs(line, stdout);
	else
		print_event(line);
}

/* Print a stream to its end. Lines of the live stream are written out one by one. */
static int print_stream(struct follower *f, int fd, bool live)
{
	FILE *in = fdopen(fd, "r");
	char *line = NULL;
	size_t size = 0;
	int r;

	if (in == NULL)
		out_of_memory();
	errno = 0;
	while (!ferror(stdout) && getline(&line, &size, in) > 0) {
		take_line(f, line);
		if (live)
			fflush(stdout);
	}
	r = ferror(in) ? -errno : 0;
	free(line);
	fclose(in);
	return r;
}

/* Ask for the history; returns a descriptor to read it from. The question is a line: a key that does not fit on one is
 * not asked for, its events are picked from all of them. */
static int open_history(const char *path, const char *name)
{
	char *question = NULL;
	int fd = open(path, O_RDWR | O_CLOEXEC), n, r;
	bool all = *name == '\0' || strchr(name, '\n') != NULL;

	if (fd < 0)
		return -errno;
	n = asprintf(&question, "log%s%s\n", all ? "" : " ", all ? "" : name);
	if (n < 0)
		out_of_memory();
	r = write(fd, question, (size_t)n) < 0 ? -errno : 0;
	free(question);
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static int show_log(struct follower *f, const char *path)
{
	int live = args_has(f->args, OPT_FOLLOW) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	int history = open_history(path, f->key->name);
	int r = history < 0 ? history : print_stream(f, history, false);

	fflush(stdout);
	if (live >= 0 && r == 0)
		r = print_stream(f, live, true);
	if (r < 0)
		return report_errno(f->key->word, -r, NULL);
	return EXIT_DONE;
}

int verb_log(const struct args *a)
{
	struct key k;
	struct follower f = { .args = a, .key = &k };
	char *path;
	int r = key_find(a, a->count > 0 ? a->words[0] : key_default(a), &k);

	if (r != 0)
		return r;
	if (a->count == 0)
		k.name[0] = '\0';
	path = key_control(&k, "events", NULL);
	r = show_log(&f, path);
	free(path);
	key_finish(&k);
	return r;
}

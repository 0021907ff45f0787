/* stat and ls: what is known of keys. Neither ever waits: attributes only, no open of an object. */
#include "core/parse.h"
#include "json.h"
#include "key.h"
#include "report.h"
#include "verbs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *type_of(mode_t mode)
{
	return S_ISREG(mode) ? "file" : S_ISDIR(mode) ? "directory" : S_ISLNK(mode) ? "symlink" :
	       S_ISFIFO(mode) ? "fifo" : S_ISSOCK(mode) ? "socket" : "device";
}

static void time_of(const struct timespec *t, char buf[static 40])
{
	format_time(t->tv_sec * NS_PER_SEC + t->tv_nsec, buf);
}

/* The attributes that are text, in the order in which they are shown. */
static const char *const text_attributes[] = { "deadline", "error", "publish", "lease", "pid", "owner", "borrows",
					       "evict", "sha256" };
static const char *const number_attributes[] = { "version", "id" };

static bool wanted(const struct args *a, const char *attribute)
{
	return strcmp(attribute, "sha256") != 0 || args_has(a, OPT_SHA256);
}

/* What every key says is not worth a line: it owns what it names, and nobody has borrowed that. */
static bool goes_without_saying(const struct key *k, const char *attribute, const char *value)
{
	return value != NULL && ((strcmp(attribute, "owner") == 0 && strcmp(value, k->name) == 0) ||
				 (strcmp(attribute, "borrows") == 0 && strcmp(value, "none") == 0));
}

/* `pid=123 uid=0 command=cat` as an object. */
static void json_producer(struct json *j, const char *producer)
{
	const char *command;
	int pid, uid;

	if (producer == NULL || sscanf(producer, "pid=%d uid=%d", &pid, &uid) != 2) {
		json_string(j, "producer", producer);
		return;
	}
	command = strstr(producer, "command=");
	json_open(j, "producer", '{');
	json_integer(j, "pid", pid);
	json_integer(j, "uid", uid);
	json_string(j, "command", command != NULL ? command + strlen("command=") : NULL);
	json_close(j, '}');
}

static void json_number_attribute(struct json *j, const char *path, const char *name)
{
	char *value = attribute_read(path, name);

	if (value != NULL)
		json_integer(j, name, atoll(value));
	else
		json_string(j, name, NULL);
	free(value);
}

static void json_text_attribute(struct json *j, const char *path, const char *name)
{
	char *value;

	if (strcmp(name, "pid") == 0 || strcmp(name, "evict") == 0) {
		json_number_attribute(j, path, name);
		return;
	}
	value = attribute_read(path, name);

	json_string(j, name, value);
	free(value);
}

/* `a/b` as an array. */
static void json_lifetimes(struct json *j, const char *path)
{
	char *lifetimes = attribute_read(path, "lifetimes"), *rest = lifetimes, *name;

	if (lifetimes == NULL) {
		json_string(j, "lifetimes", NULL);
		return;
	}
	json_open(j, "lifetimes", '[');
	while ((name = strsep(&rest, "/")) != NULL)
		json_string(j, NULL, name);
	json_close(j, ']');
	free(lifetimes);
}

static void json_times(struct json *j, const struct stat *st)
{
	char buf[40];

	time_of(&st->st_mtim, buf);
	json_string(j, "mtime", buf);
}

static void stat_json(const struct args *a, const struct key *k, const struct stat *st)
{
	struct json j = { .f = stdout };
	char *producer = attribute_read(k->path, "producer");
	char mode[8];

	snprintf(mode, sizeof(mode), "%04o", (unsigned)st->st_mode & 07777);
	json_open(&j, NULL, '{');
	json_string(&j, "key", k->name);
	json_string(&j, "path", k->path);
	json_string(&j, "type", type_of(st->st_mode));
	json_text_attribute(&j, k->path, "state");
	for (size_t i = 0; i < sizeof(number_attributes) / sizeof(char *); i++)
		json_number_attribute(&j, k->path, number_attributes[i]);
	json_integer(&j, "size", st->st_size);
	json_string(&j, "mode", mode);
	json_integer(&j, "uid", st->st_uid);
	json_integer(&j, "gid", st->st_gid);
	json_integer(&j, "nlink", (int64_t)st->st_nlink);
	json_times(&j, st);
	for (size_t i = 0; i < sizeof(text_attributes) / sizeof(char *); i++)
		if (wanted(a, text_attributes[i]))
			json_text_attribute(&j, k->path, text_attributes[i]);
	json_lifetimes(&j, k->path);
	json_producer(&j, producer);
	json_end_line(&j);
	free(producer);
}

static void line_of(const char *name, const char *value)
{
	if (value == NULL)
		return;
	printf("  %-9s ", name);
	print_key(stdout, value);
	printf("\n");
}

static void line_of_attribute(const struct key *k, const char *name)
{
	char *value = attribute_read(k->path, name);

	if (!goes_without_saying(k, name, value))
		line_of(name, value);
	free(value);
}

static void stat_text(const struct args *a, const struct key *k, const struct stat *st)
{
	char mtime[40];

	print_key(stdout, k->word);
	printf("\n");
	line_of("type", type_of(st->st_mode));
	line_of_attribute(k, "state");
	for (size_t i = 0; i < sizeof(number_attributes) / sizeof(char *); i++)
		line_of_attribute(k, number_attributes[i]);
	printf("  %-9s %lld\n", "size", (long long)st->st_size);
	printf("  %-9s %04o, uid %u, gid %u\n", "mode", (unsigned)st->st_mode & 07777, st->st_uid, st->st_gid);
	time_of(&st->st_mtim, mtime);
	line_of("mtime", mtime);
	for (size_t i = 0; i < sizeof(text_attributes) / sizeof(char *); i++)
		if (wanted(a, text_attributes[i]))
			line_of_attribute(k, text_attributes[i]);
	line_of_attribute(k, "lifetimes");
	line_of_attribute(k, "producer");
}

static int stat_key(const struct args *a, const struct key *k)
{
	struct stat st;

	if (stat(k->path, &st) < 0)
		return report_errno(k->word, errno, NULL);
	if (args_has(a, OPT_JSON))
		stat_json(a, k, &st);
	else
		stat_text(a, k, &st);
	return EXIT_DONE;
}

int verb_stat(const struct args *a)
{
	int status = EXIT_DONE;

	for (int i = 0; i < a->count; i++) {
		struct key k;
		int r = key_find(a, a->words[i], &k);

		if (r == 0) {
			r = stat_key(a, &k);
			key_finish(&k);
		}
		status = r != 0 ? r : status;
	}
	return status;
}

static void ls_json(const char *below, const char *name, const struct stat *st, const char *state, const char *version)
{
	struct json j = { .f = stdout };
	char *key = NULL;

	if (asprintf(&key, "%s%s%s", below, *below && *name ? "/" : "", name) < 0)
		out_of_memory();
	json_open(&j, NULL, '{');
	json_string(&j, "key", key);
	json_string(&j, "name", *name ? name : below);
	json_string(&j, "type", type_of(st->st_mode));
	json_string(&j, "state", state);
	if (version != NULL)
		json_integer(&j, "version", atoll(version));
	else
		json_string(&j, "version", NULL);
	json_integer(&j, "size", st->st_size);
	json_times(&j, st);
	json_end_line(&j);
	free(key);
}

/* On a terminal a name stays on its line; a pipe gets its bytes. */
static void print_name(const char *name, const struct stat *st)
{
	if (isatty(STDOUT_FILENO))
		print_key(stdout, name);
	else
		fputs(name, stdout);
	puts(S_ISDIR(st->st_mode) ? "/" : "");
}

static void ls_long(const char *name, const struct stat *st, const char *state, const char *version)
{
	char mtime[40];

	time_of(&st->st_mtim, mtime);
	mtime[19] = 'Z';
	mtime[20] = '\0';
	printf("%-9s %7s %12lld  %s  ", state ?: type_of(st->st_mode), version ?: "-", (long long)st->st_size, mtime);
	print_name(name, st);
}

/* One line for the object at `path` (relative to the current directory); one that is just gone is left out. */
static void ls_one(const struct args *a, const char *path, const char *below, const char *name)
{
	bool details = args_has(a, OPT_LONG) || args_has(a, OPT_JSON);
	char *state = NULL, *version = NULL;
	struct stat st;

	if (lstat(path, &st) < 0)
		return;
	if (details && S_ISREG(st.st_mode)) {
		state = attribute_read(path, "state");
		version = attribute_read(path, "version");
	}
	if (args_has(a, OPT_JSON))
		ls_json(below, name, &st, state, version);
	else if (args_has(a, OPT_LONG))
		ls_long(*name ? name : below, &st, state, version);
	else
		print_name(*name ? name : below, &st);
	free(state);
	free(version);
}

static int ls_directory(const struct args *a, const struct key *k)
{
	struct dirent **names = NULL;
	int n = chdir(k->path) < 0 ? -1 : directory_names(".", &names);

	if (n < 0)
		return report_errno(k->word, errno, NULL);
	for (int i = 0; i < n; i++) {
		char *path = NULL;

		if (asprintf(&path, "./%s", names[i]->d_name) < 0)
			out_of_memory();
		ls_one(a, path, k->name, names[i]->d_name);
		free(path);
		free(names[i]);
	}
	free(names);
	return EXIT_DONE;
}

static int ls(const struct args *a, const struct key *k)
{
	struct stat st;

	if (lstat(k->path, &st) < 0)
		return report_errno(k->word, errno, NULL);
	if (S_ISDIR(st.st_mode))
		return ls_directory(a, k);
	ls_one(a, k->path, k->name, "");
	return EXIT_DONE;
}

int verb_ls(const struct args *a)
{
	struct key k;
	int r = key_find(a, a->count > 0 ? a->words[0] : key_default(a), &k);

	if (r == 0) {
		r = ls(a, &k);
		key_finish(&k);
	}
	return r;
}

/* lifetime: scopes of keys. One is a directory in the mount, a key that was added is a name in it. */
#include "lifetime.h"

#include "core/parse.h"
#include "json.h"
#include "report.h"
#include "verbs.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BELOW ".promisefs/lifetimes/"

/* Finding */

static void compose(struct key *k, const char *root, const char *name)
{
	*k = (struct key){ .word = name, .root = strdup(root) };
	if (k->root == NULL || asprintf(&k->name, BELOW "%s", name) < 0 ||
	    asprintf(&k->path, "%s/%s", root, k->name) < 0)
		out_of_memory();
}

static int check_name(const char *name)
{
	if (strcmp(name, "self") == 0)
		return report_usage("self: it is the lifetime of the process that asks, and this one ends at once");
	if (strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
		return 0;
	return report_usage("%s: not a name for a lifetime, which is a single part of a path", name);
}

int lifetime_find(const struct args *a, const char *name, struct key *k)
{
	struct key mount;
	int r = check_name(name);

	if (r == 0)
		r = key_find(a, key_default(a), &mount);
	if (r == 0) {
		compose(k, mount.root, name);
		key_finish(&mount);
	}
	return r;
}

bool lifetime_is(const struct key *k)
{
	size_t n = strlen(BELOW);

	return strncmp(k->name, BELOW, n) == 0 && strchr(k->name + n, '/') == NULL;
}

int lifetime_report(const struct key *k, int error)
{
	if (error == ENOENT)
		return report(k->word, "'promisefs lifetime list' shows those that there are",
			      "no such lifetime (ENOENT)");
	if (error == EEXIST)
		return report(k->word, "choose another name, or end it with 'promisefs lifetime end KEY'",
			      "there is a lifetime of this name already (EEXIST)");
	if (error == EPERM || error == EACCES)
		return report(k->word, "run this as the user who began it, or as root",
			      "not permitted, the lifetime is somebody else's (%s)", errno_name(error));
	return report_errno(k->word, error, NULL);
}

/* Beginning and ending */

static int begin(const struct args *a, const struct key *k)
{
	int r;

	if (mkdir(k->path, 0777) < 0)
		return lifetime_report(k, errno);
	r = args_has(a, OPT_LEASE) ? attribute_write(k->path, "lease", a->value[OPT_LEASE]) : 0;
	if (r < 0) {
		rmdir(k->path);
		return lifetime_report(k, -r);
	}
	printf("%s\n", k->path);
	return EXIT_DONE;
}

int lifetime_begin(const struct args *a)
{
	struct key k;
	int r = args_has(a, OPT_LEASE) ? lease_check(a->words[0], a->value[OPT_LEASE]) : 0;

	if (r == 0)
		r = lifetime_find(a, a->words[0], &k);
	if (r == 0) {
		r = begin(a, &k);
		key_finish(&k);
	}
	return r;
}

int lifetime_end(const struct args *a)
{
	struct key k;
	int r = lifetime_find(a, a->words[0], &k);

	if (r == 0) {
		r = rmdir(k.path) < 0 ? lifetime_report(&k, errno) : EXIT_DONE;
		key_finish(&k);
	}
	return r;
}

/* Adding */

static char *member_path(const struct key *lifetime, const char *name)
{
	char *path = NULL;

	if (asprintf(&path, "%s/%s", lifetime->path, name) < 0)
		out_of_memory();
	return path;
}

/* A file gets another inode number with every version, other things have no attributes. */
static bool same_object(const char *x, const char *y)
{
	struct stat s, t;
	char *a, *b;
	bool same;

	if (lstat(x, &s) < 0 || lstat(y, &t) < 0)
		return false;
	if (!S_ISREG(s.st_mode) || !S_ISREG(t.st_mode))
		return s.st_ino == t.st_ino;
	a = attribute_read(x, "id");
	b = attribute_read(y, "id");
	same = a != NULL && b != NULL && strcmp(a, b) == 0;
	free(a);
	free(b);
	return same;
}

/* Make the key a member of that name; no error when it is. Returns 0 or a negative errno. */
static int join(const struct key *lifetime, const struct key *k, const char *name)
{
	char *path = member_path(lifetime, name);
	int r = link(k->path, path) < 0 ? -errno : 0;

	if (r == -EEXIST && same_object(k->path, path))
		r = 0;
	free(path);
	return r;
}

static const char *last_part(const struct key *k)
{
	const char *slash = strrchr(k->name, '/');

	return slash != NULL ? slash + 1 : k->name;
}

/* All of the key as one name. */
static char *whole_name(const struct key *k)
{
	char *name = strdup(k->name);

	if (name == NULL)
		out_of_memory();
	for (char *p = name; *p; p++)
		if (*p == '/')
			*p = ':';
	return name;
}

static int report_join(const struct key *lifetime, const struct key *k, int error)
{
	struct stat st;

	if (error == ENOENT && access(lifetime->path, F_OK) < 0)
		return lifetime_report(lifetime, ENOENT);
	if (error == EACCES && access(lifetime->path, W_OK | X_OK) < 0)
		return lifetime_report(lifetime, EACCES);
	if (error == EEXIST)
		return report(k->word, "add it with 'ln KEY MOUNTPOINT/" BELOW "NAME/ANOTHER'",
			      "the names that it could have in lifetime '%s' are taken (EEXIST)", lifetime->word);
	if (error == EPERM && lstat(k->path, &st) == 0 && S_ISDIR(st.st_mode))
		return report(k->word, "add the files in it",
			      "it is a directory, which cannot be in a lifetime (EPERM)");
	if (error == EPERM)
		return report(k->word, "run this as the owner of the key, or as root",
			      "not permitted, only who may write a key may add it (EPERM)");
	return report_errno(k->word, error, NULL);
}

static int add(const struct key *lifetime, const struct key *k)
{
	int r = join(lifetime, k, last_part(k));

	if (r == -EEXIST) {
		char *name = whole_name(k);

		r = join(lifetime, k, name);
		free(name);
	}
	return r < 0 ? report_join(lifetime, k, -r) : EXIT_DONE;
}

/* One key, to the lifetime in its mount. *end: the next ones would fail likewise. */
static int add_word(const struct args *a, const char *word, bool *end)
{
	struct key k, lifetime;
	int r = key_find(a, word, &k);

	if (r != 0)
		return r;
	compose(&lifetime, k.root, a->words[0]);
	r = add(&lifetime, &k);
	*end = r != 0 && access(lifetime.path, W_OK | X_OK) < 0;
	key_finish(&lifetime);
	key_finish(&k);
	return r;
}

int lifetime_add(const struct args *a)
{
	int status = check_name(a->words[0]);
	bool end = status != 0;

	for (int i = 1; i < a->count && !end; i++) {
		int r = add_word(a, a->words[i], &end);

		status = r != 0 ? r : status;
	}
	return status;
}

/* Listing */

/* How many members; -1 when that cannot be seen. */
static int64_t count_members(const char *path)
{
	DIR *dir = opendir(path);
	int64_t n = -2; /* `.` and `..` */

	if (dir == NULL)
		return -1;
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

static void show_lifetime_json(const char *name, const char *path, int64_t members, const char *lease)
{
	struct json j = { .f = stdout };

	json_open(&j, NULL, '{');
	json_string(&j, "lifetime", name);
	json_string(&j, "path", path);
	if (members >= 0)
		json_integer(&j, "members", members);
	else
		json_string(&j, "members", NULL);
	json_string(&j, "lease", lease);
	json_end_line(&j);
}

static void show_lifetime(const char *name, int64_t members, const char *lease)
{
	if (members >= 0)
		printf("%9lld", (long long)members);
	else
		printf("%9s", "-");
	printf("  %-30s  ", lease ?: "-");
	print_key(stdout, name);
	printf("\n");
}

/* One lifetime; one that has just ended is left out. */
static void list_one(const struct args *a, const char *name, const char *path)
{
	char *lease = attribute_read(path, "lease");
	int64_t members;

	if (lease == NULL && errno == ENOENT)
		return;
	members = count_members(path);
	if (args_has(a, OPT_JSON))
		show_lifetime_json(name, path, members, lease);
	else
		show_lifetime(name, members, lease);
	free(lease);
}

static void show_member(const struct args *a, const char *name, const char *state, const char *id)
{
	struct json j = { .f = stdout };

	if (!args_has(a, OPT_JSON)) {
		printf("%-9s %9s  ", state ?: "-", id ?: "-");
		print_key(stdout, name);
		printf("\n");
		return;
	}
	json_open(&j, NULL, '{');
	json_string(&j, "lifetime", a->words[0]);
	json_string(&j, "name", name);
	if (id != NULL)
		json_integer(&j, "id", atoll(id));
	else
		json_string(&j, "id", NULL);
	json_string(&j, "state", state);
	json_end_line(&j);
}

/* One member; one that has just gone is left out. */
static void list_member(const struct args *a, const char *name, const char *path)
{
	char *id = NULL, *state = NULL;
	struct stat st;

	if (lstat(path, &st) < 0)
		return;
	if (S_ISREG(st.st_mode)) {
		id = attribute_read(path, "id");
		state = attribute_read(path, "state");
	}
	show_member(a, name, state, id);
	free(id);
	free(state);
}

static int list(const struct args *a, const struct key *k,
		void (*show)(const struct args *a, const char *name, const char *path))
{
	struct dirent **names = NULL;
	int n = directory_names(k->path, &names);

	if (n < 0)
		return lifetime_report(k, errno);
	for (int i = 0; i < n; i++) {
		char *path = member_path(k, names[i]->d_name);

		show(a, names[i]->d_name, path);
		free(path);
		free(names[i]);
	}
	free(names);
	return EXIT_DONE;
}

int lifetime_list(const struct args *a)
{
	struct key k;
	int r = lifetime_find(a, a->count > 0 ? a->words[0] : "", &k);

	if (r == 0 && a->count == 0) {
		k.word = k.root;
		k.path[strlen(k.path) - 1] = '\0'; /* the slash */
	}
	if (r == 0) {
		r = list(a, &k, a->count > 0 ? list_member : list_one);
		key_finish(&k);
	}
	return r;
}

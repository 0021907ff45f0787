/* doctor: what this machine can do for promisefs. It looks, and changes nothing. */
#define FUSE_USE_VERSION 314

#include "doctor.h"

#include "args.h"
#include "json.h"
#include "mounts.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define FILES_WANTED 16384

void check_set(struct check *c, enum health health, const char *advice, const char *detail, ...)
{
	va_list ap;

	c->health = health;
	c->advice = advice;
	va_start(ap, detail);
	vsnprintf(c->detail, sizeof(c->detail), detail, ap);
	va_end(ap);
}

int kernel_version(void)
{
	struct utsname u;
	int major = 0, minor = 0;

	if (uname(&u) == 0)
		sscanf(u.release, "%d.%d", &major, &minor);
	return major * 1000 + minor;
}

bool may_mount(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long long effective = 0;
	char line[256];

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "CapEff: %llx", &effective) == 1)
			break;
	if (f != NULL)
		fclose(f);
	return effective >> 21 & 1; /* CAP_SYS_ADMIN */
}

static void check_kernel(struct check *c)
{
	struct utsname u;

	uname(&u);
	if (kernel_version() < 5004)
		check_set(c, HEALTH_FAIL, "use Linux 5.4 or newer, best 6.9 or newer", "Linux %s", u.release);
	else
		check_set(c, HEALTH_OK, NULL, "Linux %s", u.release);
}

static void check_device(struct check *c)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC), error = errno;

	if (fd >= 0)
		check_set(c, HEALTH_OK, NULL, "/dev/fuse can be opened");
	else if (error == EACCES)
		check_set(c, HEALTH_FAIL, "run 'chmod 666 /dev/fuse' as root", "/dev/fuse: permission denied");
	else if (error == ENOENT || error == ENODEV || error == ENXIO)
		check_set(c, HEALTH_FAIL, "run 'modprobe fuse' as root, or give the container '--device /dev/fuse'",
			  "/dev/fuse is missing");
	else
		check_set(c, HEALTH_FAIL, "allow this container or user to use FUSE", "/dev/fuse: %s", strerror(error));
	if (fd >= 0)
		close(fd);
}

/* The first program of that name in PATH. */
static bool find_program(const char *name, char *path, size_t size, struct stat *st)
{
	const char *dirs = getenv("PATH") ?: "/usr/local/bin:/usr/bin:/bin";

	while (*dirs) {
		int n = (int)strcspn(dirs, ":");

		snprintf(path, size, "%.*s/%s", n, dirs, name);
		if (stat(path, st) == 0 && S_ISREG(st->st_mode) && access(path, X_OK) == 0)
			return true;
		dirs += n + (dirs[n] == ':');
	}
	return false;
}

static void check_fusermount(struct check *c)
{
	bool needed = !may_mount();
	struct stat st;
	char path[400];

	if (!find_program("fusermount3", path, sizeof(path), &st))
		check_set(c, needed ? HEALTH_FAIL : HEALTH_WARN, "install the package fuse3",
			  "fusermount3 is not in PATH; users other than root cannot mount");
	else if (st.st_uid != 0 || !(st.st_mode & S_ISUID))
		check_set(c, needed ? HEALTH_FAIL : HEALTH_WARN, "run 'chmod u+s' on it as root, or reinstall fuse3",
			  "%s is not set-uid root; users other than root cannot mount", path);
	else
		check_set(c, HEALTH_OK, NULL, "%s", path);
}

static bool fuse_conf_allows_other(void)
{
	FILE *f = fopen("/etc/fuse.conf", "re");
	char line[256];
	bool yes = false;

	while (f != NULL && !yes && fgets(line, sizeof(line), f) != NULL) {
		char word[32];

		yes = sscanf(line, "%31s", word) == 1 && strcmp(word, "user_allow_other") == 0;
	}
	if (f != NULL)
		fclose(f);
	return yes;
}

static void check_allow_other(struct check *c)
{
	if (may_mount())
		check_set(c, HEALTH_OK, NULL, "root may mount with -o allow_other");
	else if (fuse_conf_allows_other())
		check_set(c, HEALTH_OK, NULL, "user_allow_other is set in /etc/fuse.conf");
	else
		check_set(c, HEALTH_WARN, "put the line user_allow_other into /etc/fuse.conf",
			  "only root may mount with -o allow_other");
}

static void check_files(struct check *c)
{
	struct rlimit l = { 0 };

	getrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_max < FILES_WANTED)
		check_set(c, HEALTH_WARN, "raise it with 'ulimit -Hn' or in /etc/security/limits.conf",
			  "at most %llu open files", (unsigned long long)l.rlim_max);
	else
		check_set(c, HEALTH_OK, NULL, "%llu open files, can be raised to %llu", (unsigned long long)l.rlim_cur,
			  (unsigned long long)l.rlim_max);
}

static void check_libfuse(struct check *c)
{
	if (fuse_version() < 314)
		check_set(c, HEALTH_FAIL, "install libfuse 3.14 or newer", "libfuse %s", fuse_pkgversion());
	else
		check_set(c, HEALTH_OK, NULL, "libfuse %s", fuse_pkgversion());
}

static void check_sqlite(struct check *c)
{
	if (sqlite3_libversion_number() < 3037000)
		check_set(c, HEALTH_FAIL, "install SQLite 3.40 or newer", "SQLite %s knows no STRICT tables",
			  sqlite3_libversion());
	else if (!sqlite3_threadsafe())
		check_set(c, HEALTH_FAIL, "install an SQLite built with threads", "SQLite %s is built without threads",
			  sqlite3_libversion());
	else
		check_set(c, HEALTH_OK, NULL, "SQLite %s", sqlite3_libversion());
}

static int list_mount(void *arg, const struct mount_row *m)
{
	struct check *c = arg;
	size_t n = strlen(c->detail);

	if (mount_is_promisefs(m) && n < sizeof(c->detail))
		snprintf(c->detail + n, sizeof(c->detail) - n, "%s%s on %s", n ? ", " : "", m->source, m->point);
	return 0;
}

static void check_mounts(struct check *c)
{
	mounts_walk(list_mount, c);
	if (c->detail[0] == '\0')
		check_set(c, HEALTH_OK, NULL, "none");
}

static const struct {
	const char *name;
	void (*run)(struct check *c);
} checks[] = {
	{ "kernel", check_kernel },
	{ "fuse", check_device },
	{ "fusermount3", check_fusermount },
	{ "passthrough", check_passthrough },
	{ "allow_other", check_allow_other },
	{ "open files", check_files },
	{ "libfuse", check_libfuse },
	{ "sqlite", check_sqlite },
	{ "mounts", check_mounts },
};

static const char *const health_names[] = { "ok", "warn", "fail" };

static void check_json(struct json *j, const char *name, const struct check *c)
{
	json_open(j, NULL, '{');
	json_string(j, "name", name);
	json_string(j, "status", health_names[c->health]);
	json_string(j, "detail", c->detail);
	json_string(j, "advice", c->advice);
	json_close(j, '}');
}

static void check_text(const char *name, const struct check *c)
{
	printf("%-5s %-12s ", health_names[c->health], name);
	print_key(stdout, c->detail);
	printf("%s%s\n", c->advice ? "; " : "", c->advice ?: "");
}

int verb_doctor(const struct args *a)
{
	struct json j = { .f = stdout };
	bool as_json = args_has(a, OPT_JSON), ok = true;

	if (as_json) {
		json_open(&j, NULL, '{');
		json_open(&j, "checks", '[');
	}
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		struct check c = { 0 };

		checks[i].run(&c);
		ok = ok && c.health != HEALTH_FAIL;
		if (as_json)
			check_json(&j, checks[i].name, &c);
		else
			check_text(checks[i].name, &c);
	}
	if (as_json) {
		json_close(&j, ']');
		json_bool(&j, "ok", ok);
		json_end_line(&j);
	}
	return ok ? EXIT_DONE : EXIT_FAILED;
}

#include "holders.h"

#include "json.h"
#include "report.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHOWN 5

struct listing {
	FILE *f;
	int count;
};

static void list_process(struct listing *l, const char *command, const char *pid)
{
	fputs(l->count == 0 ? "" : l->count < SHOWN ? ", " : l->count == SHOWN ? " and others" : "", l->f);
	if (l->count++ < SHOWN)
		fprintf(l->f, "%s (pid %s)", command, pid);
}

/* Whether the link (`cwd`, `fd/3`) leads below the mount. */
static bool leads_below(const char *link, const char *mountpoint)
{
	char target[4096];
	ssize_t n = readlink(link, target, sizeof(target) - 1);
	size_t len = strlen(mountpoint);

	if (n < (ssize_t)len)
		return false;
	target[n] = '\0';
	return strncmp(target, mountpoint, len) == 0 && strchr("/ ", target[len]) != NULL;
}

/* Whether a link in the directory /proc/PID/WHICH does. */
static bool any_leads_below(const char *pid, const char *which, const char *mountpoint)
{
	char path[600];
	struct dirent *d;
	bool yes = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/%s", pid, which);
	dir = opendir(path);
	while (dir != NULL && !yes && (d = readdir(dir)) != NULL) {
		snprintf(path, sizeof(path), "/proc/%s/%s/%s", pid, which, d->d_name);
		yes = leads_below(path, mountpoint);
	}
	if (dir != NULL)
		closedir(dir);
	return yes;
}

static bool holds(const char *pid, const char *mountpoint)
{
	static const char *const links[] = { "cwd", "root", "exe" };
	char path[300];

	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
		snprintf(path, sizeof(path), "/proc/%s/%s", pid, links[i]);
		if (leads_below(path, mountpoint))
			return true;
	}
	return any_leads_below(pid, "fd", mountpoint) || any_leads_below(pid, "map_files", mountpoint);
}

static void list_by_pid(struct listing *l, const char *pid)
{
	char path[300], command[32] = "?";
	FILE *comm;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	comm = fopen(path, "re");
	if (comm != NULL && fgets(command, sizeof(command), comm) != NULL)
		command[strcspn(command, "\n")] = '\0';
	if (comm != NULL)
		fclose(comm);
	list_process(l, command, pid);
}

/* Who waits in open(2) has nothing open yet; the mount itself knows. */
static void list_waiting(struct listing *l, const char *mountpoint)
{
	char path[4200], *line = NULL;
	size_t size = 0;
	FILE *waits;

	snprintf(path, sizeof(path), "%s/.promisefs/waits", mountpoint);
	waits = fopen(path, "re");
	while (waits != NULL && l->count <= SHOWN && getline(&line, &size, waits) > 0) {
		char *command = json_member(line, "command"), *pid = json_member(line, "pid");

		list_process(l, command ?: "?", pid ?: "?");
		free(command);
		free(pid);
	}
	free(line);
	if (waits != NULL)
		fclose(waits);
}

static void list_holding(struct listing *l, const char *mountpoint)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;

	while (proc != NULL && l->count <= SHOWN && (d = readdir(proc)) != NULL)
		if (isdigit((unsigned char)d->d_name[0]) && holds(d->d_name, mountpoint))
			list_by_pid(l, d->d_name);
	if (proc != NULL)
		closedir(proc);
}

char *holders_of(const char *mountpoint)
{
	char *text = NULL;
	size_t len = 0;
	struct listing l = { .f = open_memstream(&text, &len) };

	if (l.f == NULL)
		out_of_memory();
	list_holding(&l, mountpoint);
	list_waiting(&l, mountpoint);
	fclose(l.f);
	if (l.count > 0)
		return text;
	free(text);
	return NULL;
}

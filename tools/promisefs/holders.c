#include "holders.h"

#include "report.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHOWN 5

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

static void print_process(FILE *f, const char *pid)
{
	char path[300], command[32] = "?";
	FILE *comm;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	comm = fopen(path, "re");
	if (comm != NULL && fgets(command, sizeof(command), comm) != NULL)
		command[strcspn(command, "\n")] = '\0';
	if (comm != NULL)
		fclose(comm);
	fprintf(f, "%s (pid %s)", command, pid);
}

char *holders_of(const char *mountpoint)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	DIR *proc = opendir("/proc");
	struct dirent *d;
	int n = 0;

	if (f == NULL)
		out_of_memory();
	while (proc != NULL && n <= SHOWN && (d = readdir(proc)) != NULL) {
		if (!isdigit((unsigned char)d->d_name[0]) || !holds(d->d_name, mountpoint))
			continue;
		fputs(n == 0 ? "" : n < SHOWN ? ", " : " and others", f);
		if (n++ < SHOWN)
			print_process(f, d->d_name);
	}
	if (proc != NULL)
		closedir(proc);
	fclose(f);
	if (n > 0)
		return text;
	free(text);
	return NULL;
}

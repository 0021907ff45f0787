#include "fs/process.h"
#include "fs/fs.h"

#include <ctype.h>
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Reads a small file of /proc as a string. */
static bool read_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, buf, size - 1);
	close(fd);
	buf[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static const char *field(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at == NULL ? NULL : at + strlen(name) + strspn(at + strlen(name), " \t");
}

/* The last number of /proc/TID/stat is the exit code as wait(2) gives it: its low seven bits are the signal. */
static enum fate exiting_fate(int32_t tid)
{
	char path[48], text[1024], *last;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	if (!read_text(path, text, sizeof(text)))
		return FATE_EXITED;
	last = strrchr(text, ' ');
	return last != NULL && (strtoul(last, NULL, 10) & 0x7f) != 0 ? FATE_KILLED : FATE_EXITED;
}

void process_look(int32_t tid, struct process *p)
{
	char path[48], text[2048];
	const char *name, *tgid;
	size_t len;

	*p = (struct process){ .pid = tid };
	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	if (tid == 0 || !read_text(path, text, sizeof(text)))
		return;
	name = field(text, "Name:");
	tgid = field(text, "\nTgid:");
	if (name != NULL) {
		len = strcspn(name, "\n");
		memcpy(p->command, name, len < sizeof(p->command) - 1 ? len : sizeof(p->command) - 1);
	}
	if (tgid != NULL)
		p->pid = (int32_t)strtol(tgid, NULL, 10);
	p->fate = strstr(text, "\nVmSize:") != NULL ? FATE_ALIVE : exiting_fate(tid);
}

int process_family(int32_t tid, int32_t *pid, int32_t *parent)
{
	const char *tgid, *ppid;
	char path[48], text[2048];

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	if (!read_text(path, text, sizeof(text)))
		return -ESRCH;
	tgid = field(text, "\nTgid:");
	ppid = field(text, "\nPPid:");
	if (tgid == NULL || ppid == NULL)
		return -ESRCH;
	if (pid != NULL)
		*pid = (int32_t)strtol(tgid, NULL, 10);
	*parent = (int32_t)strtol(ppid, NULL, 10);
	return 0;
}

#define PIDFS_MAGIC 0x50494446

/* Field 22, the time when it started, counted behind the command, which may hold anything. Kernels before 6.9 only: there
 * a process that is in exec(2) of a file that we have to answer for first holds us up. */
static int start_time(int32_t pid, uint64_t *start)
{
	char path[48], text[1024], *at;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	at = read_text(path, text, sizeof(text)) ? strrchr(text, ')') : NULL;
	for (int field = 2; at != NULL && field < 22; field++) {
		at = strchr(at, ' ');
		at = at != NULL ? at + 1 : NULL;
	}
	if (at == NULL)
		return -ESRCH;
	*start = strtoull(at, NULL, 10);
	return 0;
}

int process_identity(int32_t pid, int pidfd, uint64_t *start)
{
	struct statfs fs;
	struct stat st;

	if (fstatfs(pidfd, &fs) < 0 || fs.f_type != PIDFS_MAGIC)
		return start_time(pid, start);
	if (fstat(pidfd, &st) < 0)
		return -errno;
	*start = st.st_ino & INT64_MAX; /* never given twice */
	return 0;
}

bool process_may_end(const struct caller *who, int32_t pid)
{
	char path[48], text[2048];
	const char *uid;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	uid = read_text(path, text, sizeof(text)) ? field(text, "\nUid:") : NULL;
	return who->uid == 0 || (uid != NULL && strtoul(uid, NULL, 10) == who->uid);
}

static bool writable(int32_t tid, const char *fd)
{
	char path[320], text[512];
	const char *flags;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", tid, fd);
	if (!read_text(path, text, sizeof(text)))
		return false;
	flags = field(text, "flags:");
	return flags != NULL && (strtoul(flags, NULL, 8) & O_ACCMODE) != O_RDONLY;
}

/* As what shows the object to those who write it: below future/, its number is that of the view, too. */
static bool shows(uint64_t ino, uint64_t object)
{
	return node_id(ino) == object && (node_view(ino) == VIEW_KEYS || node_view(ino) == VIEW_FUTURE);
}

bool process_holds(int32_t tid, dev_t dev, uint64_t object)
{
	char path[48];
	struct dirent *e;
	struct statx sx;
	bool holds = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", tid);
	dir = tid == 0 ? NULL : opendir(path);
	if (dir == NULL)
		return false;
	while (!holds && (e = readdir(dir)) != NULL) {
		/* DONT_SYNC: what the kernel has of the inode is enough, and asks us nothing */
		if (!isdigit((unsigned char)e->d_name[0]) ||
		    statx(dirfd(dir), e->d_name, AT_STATX_DONT_SYNC, STATX_INO, &sx) < 0)
			continue;
		holds = shows(sx.stx_ino, object) && makedev(sx.stx_dev_major, sx.stx_dev_minor) == dev && writable(tid, e->d_name);
	}
	closedir(dir);
	return holds;
}

enum maps process_maps(int32_t tid, dev_t dev, uint64_t object)
{
	unsigned long long ino;
	enum maps maps = MAPS_NOT;
	char path[48], rights[8], *line = NULL;
	unsigned major, minor;
	size_t size = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/maps", tid);
	file = tid == 0 ? NULL : fopen(path, "re");
	if (file == NULL)
		return MAPS_NOT;
	while (maps != MAPS_WRITING && getline(&line, &size, file) > 0) {
		if (sscanf(line, "%*s %7s %*s %x:%x %llu", rights, &major, &minor, &ino) != 4 ||
		    makedev(major, minor) != dev || !shows(ino, object))
			continue;
		maps = rights[1] == 'w' && rights[3] == 's' ? MAPS_WRITING : MAPS_READING;
	}
	fclose(file);
	free(line);
	return maps;
}

static bool is_one_of(int32_t pid, const int32_t *pids, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

static bool holds_any(int32_t pid, dev_t dev, const struct holding *h, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (process_holds(pid, dev, h[i].object))
			return true;
	return false;
}

bool process_any_holds(dev_t dev, uint64_t object)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	bool found = false;

	while (!found && proc != NULL && (e = readdir(proc)) != NULL)
		found = process_holds((int32_t)strtol(e->d_name, NULL, 10), dev, object);
	if (proc != NULL)
		closedir(proc);
	return found;
}

bool process_only_these_hold(dev_t dev, const struct holding *h, unsigned n)
{
	int32_t *pids = calloc(n + 1, sizeof(*pids));
	DIR *proc = opendir("/proc");
	bool only = pids != NULL && proc != NULL;
	struct dirent *e;
	struct process p;

	for (unsigned i = 0; only && i < n; i++) {
		process_look(h[i].tid, &p);
		pids[i] = p.pid;
		only = process_holds(h[i].tid, dev, h[i].object);
	}
	while (only && (e = readdir(proc)) != NULL) {
		int32_t pid = (int32_t)strtol(e->d_name, NULL, 10);

		only = pid <= 0 || is_one_of(pid, pids, n) || !holds_any(pid, dev, h, n);
	}
	if (proc != NULL)
		closedir(proc);
	free(pids);
	return only;
}

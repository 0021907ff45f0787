/* umount: take the mount away, then wait until its daemon has let go of the store. */
#include "args.h"
#include "holders.h"
#include "mounts.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_S 60 /* a daemon that takes longer to write its catalog is not waited for */

extern char **environ;

static char *joined(const char *dir, const char *name)
{
	char *path = NULL;

	if (asprintf(&path, "%s%s%s", dir, strcmp(dir, "/") == 0 ? "" : "/", name) < 0)
		out_of_memory();
	return path;
}

/* The absolute path of the mount point. Where the daemon is dead the path itself cannot be resolved, its parent can. */
static char *absolute(const char *word)
{
	char *path = realpath(word, NULL), *copy, *slash, *parent;

	if (path != NULL || errno != ENOTCONN)
		return path;
	copy = strdup(word);
	if (copy == NULL)
		out_of_memory();
	for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = '\0';
	slash = strrchr(copy, '/');
	if (slash != NULL)
		*slash = '\0';
	parent = realpath(slash == NULL ? "." : *copy ? copy : "/", NULL);
	if (parent != NULL)
		path = joined(parent, slash == NULL ? copy : slash + 1);
	free(parent);
	free(copy);
	return path;
}

/* Run fusermount3 -u, which is set-uid root and unmounts what the caller has mounted. What it says goes to `said`. */
static int run_fusermount(const char *point, char *said, size_t size)
{
	char *argv[] = { (char[]){ "fusermount3" }, (char[]){ "-u" }, (char[]){ "--" }, (char *)point, NULL };
	posix_spawn_file_actions_t actions;
	int out[2], r, status = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) < 0)
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out[1], STDERR_FILENO);
	setenv("LC_ALL", "C", 1);
	r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(out[1]);
	n = r == 0 ? read(out[0], said, size - 1) : 0;
	said[n > 0 ? n : 0] = '\0';
	said[strcspn(said, "\n")] = '\0';
	close(out[0]);
	if (r != 0)
		return -r;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status == 0 ? 0 : strstr(said, "busy") != NULL ? -EBUSY : -EPERM;
}

/* Returns 0 or a negative errno; `said` gets the words of fusermount3, if it had any. */
static int take_away(const char *point, char *said, size_t size)
{
	said[0] = '\0';
	if (umount2(point, UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	return run_fusermount(point, said, size);
}

static int report_busy(const char *word, const char *point)
{
	char *holders = holders_of(point);

	if (holders != NULL)
		report(word, "end them or let them close it, then try again", "busy, in use by %s", holders);
	else
		report(word, "'fuser -vm KEY' as root shows who uses it", "busy");
	free(holders);
	return EXIT_FAILED;
}

static int report_failure(const char *word, const char *point, int error, const char *said)
{
	if (error == EBUSY)
		return report_busy(word, point);
	if (error == ENOENT)
		return report(word, "install fuse3, or unmount as root", "fusermount3 is not installed");
	if (error == EPERM)
		return report(word, "unmount as the user who mounted, or as root", "not permitted%s%s",
			      *said ? ": " : "", said);
	return report_errno(word, error, NULL);
}

static void on_alarm(int sig)
{
}

/* The daemon holds a lock on the store as long as it lives. Wait for it; not for ever. */
static int wait_for_store(const char *word, const char *store)
{
	struct sigaction act = { .sa_handler = on_alarm };
	char *path = joined(store, "lock");
	int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;

	free(path);
	if (fd < 0)
		return EXIT_DONE;
	sigaction(SIGALRM, &act, NULL);
	alarm(PATIENCE_S);
	if (flock(fd, LOCK_SH) < 0 && errno == EINTR)
		r = report(word, "wait for it to end before you mount the store again",
			   "unmounted, but the daemon still holds %s after %d s", store, PATIENCE_S);
	alarm(0);
	close(fd);
	return r;
}

static int unmount(const char *word, const struct mount_row *m)
{
	char said[300];
	int r;

	if (!mount_is_promisefs(m))
		return report(word, "use umount(8)", "mounted, but as %s, not by promisefs", m->type);
	r = take_away(m->point, said, sizeof(said));
	if (r < 0)
		return report_failure(word, m->point, -r, said);
	return wait_for_store(word, m->source);
}

int verb_umount(const struct args *a)
{
	const char *word = a->words[0];
	char *point = absolute(word);
	struct mount_row m;
	int r;

	if (point == NULL)
		return report(word, "check the path", "%s", strerror(errno));
	if (mount_at(point, &m))
		r = unmount(word, &m);
	else
		r = report(word, "'promisefs doctor' lists the mounts", "nothing is mounted here");
	mount_finish(&m);
	free(point);
	return r;
}

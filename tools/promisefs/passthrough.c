/* Whether this kernel would pass reads and writes through. The kernel says so in the first message (INIT) that it sends
 * on every FUSE mount. So a child makes a mount in a mount namespace of its own, reads that one message and is gone:
 * nobody else can see that mount, and it goes away with the child. */
#include "doctor.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of the INIT message: the flags, by number of the bit. */
#define INIT_EXTENDED 30
#define INIT_PASSTHROUGH 37

enum answer {
	ANSWER_YES = 0,
	ANSWER_NO = 1,
	ANSWER_UNKNOWN = 2, /* the mount was not possible */
};

/* A mount over /tmp that only this process sees; returns its device or -1. */
static int private_mount(void)
{
	char options[100];
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -1;
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	if (mount("promisefs-doctor", "/tmp", "fuse.promisefs-doctor", MS_NOSUID | MS_NODEV, options) < 0)
		return -1;
	return fd;
}

/* Headers of older systems end the message with its first four numbers; the fifth has the upper half of the flags. */
static enum answer ask_kernel(void)
{
	static _Alignas(8) char buffer[FUSE_MIN_READ_BUFFER + 65536];
	struct fuse_in_header header;
	uint32_t init[5] = { 0 };
	int fd = private_mount();
	ssize_t n;

	if (fd < 0)
		return ANSWER_UNKNOWN;
	n = read(fd, buffer, sizeof(buffer));
	if (n < (ssize_t)(sizeof(header) + 4 * sizeof(uint32_t)))
		return ANSWER_UNKNOWN;
	memcpy(&header, buffer, sizeof(header));
	memcpy(init, buffer + sizeof(header), n - sizeof(header) < sizeof(init) ? n - sizeof(header) : sizeof(init));
	if (header.opcode != FUSE_INIT)
		return ANSWER_UNKNOWN;
	if (!(init[3] >> INIT_EXTENDED & 1))
		return ANSWER_NO;
	return init[4] >> (INIT_PASSTHROUGH - 32) & 1 ? ANSWER_YES : ANSWER_NO;
}

static enum answer ask_in_child(void)
{
	int status = 0;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		alarm(5); /* a kernel that does not answer ends the child, not the user's patience */
		_exit(ask_kernel());
	}
	if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
		return ANSWER_UNKNOWN;
	return WEXITSTATUS(status);
}

void check_passthrough(struct check *c)
{
	if (kernel_version() < 6009) {
		check_set(c, HEALTH_WARN, "use Linux 6.9 or newer",
			  "this kernel has none; data goes through the daemon");
		return;
	}
	if (!may_mount()) {
		check_set(c, HEALTH_WARN, "mount as root for full speed",
			  "only for mounts by root (CAP_SYS_ADMIN); data goes through the daemon");
		return;
	}
	switch (ask_in_child()) {
	case ANSWER_YES:
		check_set(c, HEALTH_OK, NULL, "the kernel offers it (asked with a throw-away mount)");
		break;
	case ANSWER_NO:
		check_set(c, HEALTH_WARN, "use a kernel with CONFIG_FUSE_PASSTHROUGH=y",
			  "this kernel was built without it; data goes through the daemon");
		break;
	default:
		check_set(c, HEALTH_WARN, "run doctor as root outside of a container",
			  "cannot tell: a throw-away mount was not possible");
	}
}

/* The daemon gives its rights up before it opens the store, and may not start programs (fs/privileges.c); mounting
 * takes rights, or fusermount3, which is set-user-ID. A process that was forked before does both.
 *
 * It is told what to do by one byte, reads nothing else and knows nothing of the store. To 'm' it answers with the
 * descriptor of the mount; to 'u', with a byte. It ends when the other end of the socket is closed, also by the death of
 * the daemon, and leaves the mount as it is then. */
#include "fs/keeper.h"

#include "fs/fs.h"
#include "fs/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

union passed {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int))];
};

/* fd < 0: an error instead, which the byte is. */
static int send_fd(int socket, int fd)
{
	char byte = fd < 0 ? (char)-fd : 0;
	struct iovec iov = { &byte, 1 };
	union passed c = { 0 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		m.msg_control = &c;
		m.msg_controllen = sizeof(c.space);
		c.header.cmsg_level = SOL_SOCKET;
		c.header.cmsg_type = SCM_RIGHTS;
		c.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&c.header), &fd, sizeof(fd));
	}
	return sendmsg(socket, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void send_answer(int socket, int fd)
{
	if (send_fd(socket, fd) < 0)
		_exit(1);
}

static int receive_answer(int socket)
{
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	union passed c;
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof(c.space) };
	struct cmsghdr *h;
	ssize_t n;
	int fd = -EPROTO;

	do
		n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0 || byte != 0)
		return n <= 0 ? -EPIPE : -(unsigned char)byte;
	h = CMSG_FIRSTHDR(&m);
	if (h != NULL && h->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(h), sizeof(fd));
	return fd;
}

/* In the keeper */

static void quieten(void)
{
	int null = open("/dev/null", O_RDWR);

	for (int fd = 0; null >= 0 && fd <= 2; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}

/* The descriptor of the mount, or a negative errno. */
static int mount_now(struct fs *fs)
{
	static struct fuse_session *se; /* until the process ends: libfuse frees all of it but the mount point's name */
	int r = session_new(fs, &se);

	if (r == 0 && fuse_session_mount(se, fs->options.mountpoint) < 0)
		r = -ECONNREFUSED;
	return r < 0 ? r : fuse_session_fd(se);
}

static void do_mount(struct fs *fs, int socket)
{
	int fd = mount_now(fs);

	send_answer(socket, fd);
	if (fd < 0)
		return;
	close(fd); /* ours: the mount ends with the daemon */
	privileges_of_keeper();
	quieten(); /* whoever reads what was said until now sees an end of it */
}

void keeper_unmount_now(const char *mountpoint)
{
	const char *argv[] = { "fusermount3", "-u", "-z", "-q", "--", mountpoint, NULL };
	pid_t child;
	int status;

	if (umount2(mountpoint, MNT_DETACH) < 0 && posix_spawnp(&child, argv[0], NULL, NULL, (char **)argv, environ) == 0)
		waitpid(child, &status, 0);
}

static _Noreturn void keep(struct fs *fs, int socket)
{
	static const int ignored[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP };
	char what;

	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN); /* they are for the daemon */
	if (dup2(socket, 3) < 0 || syscall(SYS_close_range, 4U, ~0U, 0U) < 0)
		_exit(1);
	fcntl(3, F_SETFD, FD_CLOEXEC);
	prctl(PR_SET_NAME, "promisefs-keep");
	if (!fs->options.foreground)
		setsid();
	if (chdir("/") < 0) /* in nobody's way */
		_exit(1);
	while (read(3, &what, 1) == 1) {
		if (what == KEEPER_MOUNT) {
			do_mount(fs, 3);
		} else {
			keeper_unmount_now(fs->options.mountpoint);
			send_answer(3, -EALREADY);
		}
	}
	_exit(0);
}

/* In a supervisor, which does the same (fs/supervisor.c) */

int keeper_answer_mount(struct fs *fs, int socket)
{
	int fd = mount_now(fs);

	send_fd(socket, fd);
	return fd;
}

void keeper_answer_unmount(int socket)
{
	send_fd(socket, -EALREADY);
}

/* In the daemon */

int keeper_start(struct keeper *k, struct fs *fs)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	k->pid = fork();
	if (k->pid == 0)
		keep(fs, ends[1]);
	close(ends[1]);
	k->fd = ends[0];
	if (k->pid > 0)
		return 0;
	close(k->fd);
	k->fd = -1;
	return -EAGAIN;
}

static int ask(struct keeper *k, char what)
{
	if (k->fd < 0 || send(k->fd, &what, 1, MSG_NOSIGNAL) != 1)
		return -EPIPE;
	return receive_answer(k->fd);
}

int keeper_mount(struct keeper *k)
{
	return ask(k, KEEPER_MOUNT);
}

void keeper_unmount(struct keeper *k)
{
	ask(k, KEEPER_UNMOUNT);
}

void keeper_end(struct keeper *k)
{
	if (k->fd < 0)
		return;
	close(k->fd);
	k->fd = -1;
	waitpid(k->pid, NULL, 0);
}

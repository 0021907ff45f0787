/* The processes of a mount with supervisor=on:
 *
 *   supervisor  keeps the connection, mounts and unmounts, starts a worker when there is none
 *   worker      the daemon as it is without: privileges dropped, threads, store, requests
 *   standby     waits for the supervisor to die, and is the supervisor then
 *   teller      tells the kernel of names for the worker, see teller.c
 *
 *  who has died             who notices      what he does
 *  worker                   supervisor       starts another, which goes on with the same connection
 *  supervisor               standby          becomes it, and starts another standby
 *  standby, teller          supervisor       starts another
 *  supervisor and worker    standby          both
 *  supervisor and standby   nobody           the worker serves as long as it lives; with it, the teller ends
 *
 * Who is what is a lock (fcntl) of a byte in a file that all of them have: the kernel gives it up when the last thread of
 * its owner has closed its files, so who gets a lock knows that whoever had it before can do nothing any more. Two processes
 * never serve one connection, whoever dies while he starts another: the second does not get the lock, and ends.
 *
 * All but the worker have one thread each, read nothing but signals, shared memory and single bytes from the worker,
 * and open neither the store nor the mount. A worker that ends by itself, because it was unmounted or could not start,
 * says so before it does; everything else is a death. */
#include "fs/supervisor.h"

#include "fs/fs.h"
#include "fs/privileges.h"
#include "fs/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum role_byte { THE_WORKER, THE_SUPERVISOR, THE_TELLER };

#define NOT_NEEDED 75      /* exit status of a worker that has found another one at work */
#define END_NS 5000000000LL
#define PAUSE_NS 100000000 /* between two standbys, should they be killed as soon as they are there */

struct supervisor {
	struct fs *fs;
	struct shared *sh;
	const struct supervised *how;
	int locks;        /* the file of them */
	int control[2];   /* ours, the worker's */
	int ready[2];     /* from the first worker: it serves */
	int report;       /* to who started us, -1: nobody */
	int signals;
	int worker, standby, teller; /* pidfds; -1: none */
	pid_t worker_pid;
	bool child; /* the worker is ours; otherwise a supervisor has started it that has died since */
	bool inherited; /* we were a standby */
	int64_t helped; /* when a standby or a teller was started */
};

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void say(struct supervisor *s, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Once it is detached nobody reads what goes to stderr. */
static void say(struct supervisor *s, int level, const char *format, ...)
{
	char line[512];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fprintf(stderr, "promisefs: %s: %s\n", s->fs->options.mountpoint, line);
	syslog(level, "%s: %s", s->fs->options.mountpoint, line);
}

/* Roles */

static int take_role(struct supervisor *s, enum role_byte role, bool wait)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = role, .l_len = 1 };
	int r;

	do
		r = fcntl(s->locks, wait ? F_SETLKW : F_SETLK, &l);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static pid_t who_is(struct supervisor *s, enum role_byte role)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = role, .l_len = 1 };

	return fcntl(s->locks, F_GETLK, &l) < 0 || l.l_type == F_UNLCK ? 0 : l.l_pid;
}

static int pidfd_of(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0U);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_ours(struct supervisor *s)
{
	close_fd(&s->signals);
	close_fd(&s->worker);
	close_fd(&s->standby);
	close_fd(&s->teller);
}

/* The worker */

static _Noreturn void be_worker(struct supervisor *s)
{
	bool first = atomic_load(&s->sh->workers) == 0;
	sigset_t set;
	int r;

	if (take_role(s, THE_WORKER, false) < 0)
		_exit(NOT_NEEDED);
	close_ours(s);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* the others are waited for, and one may be there already */
	prctl(PR_SET_NAME, "promisefs");
	atomic_fetch_add(&s->sh->workers, 1);
	s->fs->keeper.fd = s->control[1];
	r = s->how->work(s->fs, first ? s->ready[1] : -1);
	s->sh->status = r;
	atomic_store(&s->sh->over, true);
	exit(r);
}

static int start_worker(struct supervisor *s)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		be_worker(s);
	if (pid < 0)
		return -errno;
	s->worker = pidfd_of(pid);
	s->worker_pid = pid;
	s->child = true;
	return s->worker < 0 ? -errno : 0;
}

/* Whoever serves now, started by whomever; or a new one. */
static int have_worker(struct supervisor *s)
{
	for (;;) {
		pid_t pid = who_is(s, THE_WORKER);

		if (pid == 0)
			return start_worker(s);
		s->worker = pidfd_of(pid);
		if (s->worker >= 0 && who_is(s, THE_WORKER) == pid) {
			s->worker_pid = pid;
			s->child = false;
			return 0;
		}
		close_fd(&s->worker);
	}
}

/* The standby and the teller */

static int run(struct supervisor *s);

static _Noreturn void be_standby(struct supervisor *s)
{
	close_ours(s);
	close_fd(&s->report);
	prctl(PR_SET_NAME, "promisefs-stby");
	if (take_role(s, THE_SUPERVISOR, true) < 0 || atomic_load(&s->sh->over))
		_exit(0);
	s->inherited = true;
	s->how->took_over(s->fs);
	_exit(run(s));
}

static void start_standby(struct supervisor *s)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		be_standby(s);
	s->standby = pid > 0 ? pidfd_of(pid) : -1;
}

static bool nobody_else(void *arg)
{
	struct supervisor *s = arg;

	return who_is(s, THE_SUPERVISOR) == 0 && who_is(s, THE_WORKER) == 0;
}

static _Noreturn void be_teller(struct supervisor *s)
{
	close_ours(s);
	prctl(PR_SET_NAME, "promisefs-tell");
	if (take_role(s, THE_TELLER, false) < 0)
		_exit(NOT_NEEDED);
	teller_main(s->fs, nobody_else, s);
}

/* Whoever is it, started by whomever; or a new one. One that was killed may be a while about its last name. */
static void have_teller(struct supervisor *s)
{
	pid_t pid = who_is(s, THE_TELLER);

	if (pid == 0) {
		fflush(NULL);
		pid = fork();
		if (pid == 0)
			be_teller(s);
	}
	s->teller = pid > 0 ? pidfd_of(pid) : -1;
}

static void have_helpers(struct supervisor *s)
{
	if (!s->sh->serving || (s->standby >= 0 && s->teller >= 0) || now_ns() - s->helped < PAUSE_NS)
		return;
	if (s->standby < 0)
		start_standby(s);
	if (s->teller < 0)
		have_teller(s);
	s->helped = now_ns();
}

/* Deaths */

static void describe(struct supervisor *s, char *text, size_t size)
{
	siginfo_t info = { 0 };

	if (!s->child || waitid(P_PID, (id_t)s->worker_pid, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
		snprintf(text, size, "has ended");
	else if (info.si_code == CLD_EXITED)
		snprintf(text, size, "has ended with status %d", info.si_status);
	else
		snprintf(text, size, "was killed by signal %d (%s)", info.si_status, strsignal(info.si_status));
}

/* Too many of late? */
static bool is_crash_loop(struct supervisor *s)
{
	unsigned limit = s->fs->options.restart_limit, n = 0;
	int64_t now = now_ns();

	if (s->sh->death_count < DEATHS_MAX)
		s->sh->death_count++;
	memmove(s->sh->deaths + 1, s->sh->deaths, sizeof(s->sh->deaths) - sizeof(s->sh->deaths[0]));
	s->sh->deaths[0] = now;
	for (unsigned i = 0; i < s->sh->death_count; i++)
		n += now - s->sh->deaths[i] < DEATHS_NS;
	return limit != 0 && n >= limit;
}

/* 0: another one serves. */
static int after_death(struct supervisor *s)
{
	pid_t dead = s->worker_pid;
	char why[128];
	int r;

	describe(s, why, sizeof(why));
	if (!s->sh->serving) {
		say(s, LOG_ERR, "process %d %s before the mount was up", dead, why);
		return -ECHILD;
	}
	if (is_crash_loop(s)) {
		say(s, LOG_ERR, "process %d, which served the mount, %s, and %u did within %d s: the mount ends", dead,
		    why, s->fs->options.restart_limit, (int)(DEATHS_NS / 1000000000));
		return -ECHILD;
	}
	r = have_worker(s);
	if (r < 0)
		say(s, LOG_ERR, "process %d, which served the mount, %s, and there is no other: %s", dead, why, strerror(-r));
	else
		say(s, LOG_WARNING, "process %d, which served the mount, %s; process %d goes on with it", dead, why, s->worker_pid);
	return r;
}

/* The mount */

static void unmount(struct supervisor *s)
{
	if (s->fs->device >= 0 && !atomic_exchange(&s->sh->unmounted, true))
		keeper_unmount_now(s->fs->options.mountpoint);
}

static void serve_worker(struct supervisor *s)
{
	char what;

	if (recv(s->control[0], &what, 1, MSG_DONTWAIT) != 1)
		return;
	if (what == KEEPER_MOUNT) {
		s->fs->device = keeper_answer_mount(s->fs, s->control[0]);
		return;
	}
	unmount(s);
	keeper_answer_unmount(s->control[0]);
}

static void serving(struct supervisor *s)
{
	char byte;

	if (read(s->ready[0], &byte, 1) != 1)
		return;
	s->sh->serving = true;
	if (s->how->detach != NULL)
		s->how->detach();
	if (s->report >= 0 && write(s->report, "", 1) < 0)
		perror("promisefs: telling the parent");
	close_fd(&s->report);
	privileges_of_supervisor();
}

/* Told to end: the worker gives those who have files open a moment, and ends. */
static void end_mount(struct supervisor *s)
{
	if (!s->sh->ending)
		s->sh->ending_since = now_ns();
	s->sh->ending = true;
	unmount(s);
	if (s->worker >= 0)
		syscall(SYS_pidfd_send_signal, s->worker, SIGTERM, NULL, 0U);
}

static void signalled(struct supervisor *s)
{
	struct signalfd_siginfo info;

	if (read(s->signals, &info, sizeof(info)) == sizeof(info) && info.ssi_signo != SIGCHLD)
		end_mount(s);
}

static void helper_died(int *pidfd)
{
	siginfo_t info;

	waitid(P_PIDFD, (id_t)*pidfd, &info, WEXITED | WNOHANG);
	close_fd(pidfd);
}

/* 1: go on */
static int worker_died(struct supervisor *s)
{
	siginfo_t info = { 0 };
	int r;

	close_fd(&s->worker);
	if (atomic_load(&s->sh->over) || (s->sh->ending && now_ns() - s->sh->ending_since > END_NS))
		return 0; /* whoever has files open yet had his moment */
	if (s->child && waitid(P_PID, (id_t)s->worker_pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0 &&
	    info.si_code == CLD_EXITED && info.si_status == NOT_NEEDED) {
		waitpid(s->worker_pid, NULL, 0);
		r = have_worker(s);
	} else {
		r = after_death(s);
	}
	if (r == 0 && s->sh->ending)
		end_mount(s);
	return r < 0 ? r : 1;
}

enum { SIGNALS, CONTROL, READY, WORKER, STANDBY, TELLER, WATCHED };

static int wait_for_something(struct supervisor *s, struct pollfd p[static WATCHED])
{
	have_helpers(s);
	p[SIGNALS] = (struct pollfd){ .fd = s->signals, .events = POLLIN };
	p[CONTROL] = (struct pollfd){ .fd = s->control[0], .events = POLLIN };
	p[READY] = (struct pollfd){ .fd = s->sh->serving ? -1 : s->ready[0], .events = POLLIN };
	p[WORKER] = (struct pollfd){ .fd = s->worker, .events = POLLIN };
	p[STANDBY] = (struct pollfd){ .fd = s->standby, .events = POLLIN };
	p[TELLER] = (struct pollfd){ .fd = s->teller, .events = POLLIN };
	return poll(p, WATCHED, s->sh->serving && (s->standby < 0 || s->teller < 0) ? (int)(PAUSE_NS / 1000000) : -1);
}

static int watch(struct supervisor *s)
{
	struct pollfd p[WATCHED];
	int r = 1;

	while (r > 0) {
		if (wait_for_something(s, p) < 0)
			continue; /* interrupted, or short of memory */
		if (p[READY].revents != 0)
			serving(s);
		if (p[CONTROL].revents != 0)
			serve_worker(s);
		if (p[SIGNALS].revents != 0)
			signalled(s);
		if (p[STANDBY].revents != 0)
			helper_died(&s->standby);
		if (p[TELLER].revents != 0)
			helper_died(&s->teller);
		if (p[WORKER].revents != 0)
			r = worker_died(s);
	}
	return r;
}

static int open_signals(struct supervisor *s)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC);
	return s->signals < 0 ? -errno : 0;
}

static void end_helper(int *pidfd)
{
	siginfo_t info;

	if (*pidfd < 0)
		return;
	syscall(SYS_pidfd_send_signal, *pidfd, SIGKILL, NULL, 0U);
	waitid(P_PIDFD, (id_t)*pidfd, &info, WEXITED);
	close_fd(pidfd);
}

/* The supervisor, once it has the role; the exit status of the mount. */
static int run(struct supervisor *s)
{
	int r = open_signals(s);

	prctl(PR_SET_NAME, s->inherited ? "promisefs-super" : "promisefs");
	if (r == 0)
		r = have_worker(s);
	if (r == 0 && s->sh->ending)
		end_mount(s);
	if (r == 0)
		r = watch(s);
	if (r < 0)
		s->sh->status = 1;
	atomic_store(&s->sh->over, true); /* for the standby */
	end_helper(&s->standby);
	end_helper(&s->teller);
	if (r < 0 || s->sh->status != 0)
		unmount(s);
	close_ours(s);
	return s->sh->status;
}

int supervise(struct fs *fs, const struct supervised *how, int ready_fd)
{
	struct supervisor s = {
		.fs = fs, .how = how, .report = ready_fd, .signals = -1, .worker = -1, .standby = -1, .teller = -1,
		.sh = shared_new(),
	};

	fs->shared = s.sh;
	fs->device = -1;
	s.locks = memfd_create("promisefs-roles", MFD_CLOEXEC);
	if (s.sh == NULL || s.locks < 0 || pipe2(s.ready, O_CLOEXEC) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s.control) < 0 || take_role(&s, THE_SUPERVISOR, false) < 0) {
		perror("promisefs: supervisor");
		return 1;
	}
	openlog("promisefs", LOG_PID, LOG_DAEMON);
	signal(SIGPIPE, SIG_IGN);
	return run(&s);
}

/* Least privilege. Which capabilities serving takes, as root (found by taking each away):
 *
 *   CAP_SYS_PTRACE       how a writer has ended, and who has a draft open: /proc/PID/stat and fd of other users, and of
 *                        root's processes, which have more capabilities than we keep
 *   CAP_DAC_READ_SEARCH  the same: /proc/PID/fd is its owner's alone
 *   CAP_SYS_ADMIN        with passthrough: the kernel asks for it where a backing file is registered
 *   CAP_DAC_OVERRIDE, CAP_CHOWN, CAP_LEASE
 *                        where the store belongs to somebody else: using it at all, giving SQLite's files to the owner
 *                        of the catalog, leases on his data files (without, an append does not see who has one mapped)
 *
 * The filter of system calls (libseccomp) names what may be called. Anything else fails with EPERM and is written to the
 * kernel's log: should a library begin to use something new, one operation may fail, but no mount is lost. What only
 * somebody calls who has taken the daemon over ends it at once. */
#include "fs/privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAP(name) (1ULL << CAP_##name)
#define CAPS_ALWAYS (CAP(SYS_PTRACE) | CAP(DAC_READ_SEARCH))
#define CAPS_PASSTHROUGH CAP(SYS_ADMIN)
#define CAPS_FOREIGN_STORE (CAP(DAC_OVERRIDE) | CAP(CHOWN) | CAP(LEASE))
#define CAPS_KEEPER (CAP(SYS_ADMIN) | CAP(DAC_READ_SEARCH)) /* umount(2), and the way to the mount point */

/* Of this thread; the libraries for it do no more. */
static int keep_capabilities(uint64_t keep)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];

	if (syscall(SYS_capget, &h, d) < 0)
		return -errno;
	if ((d[0].effective & CAP(SETPCAP)) != 0) /* nor would a program get them */
		for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
			if ((keep >> cap & 1) == 0)
				prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (int i = 0; i < 2; i++) {
		d[i].permitted &= (uint32_t)(keep >> (32 * i));
		d[i].effective = d[i].permitted;
		d[i].inheritable = 0;
	}
	return syscall(SYS_capset, &h, d) < 0 ? -errno : 0;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* what the sanitizers call is their business */
#else
#define SANITIZED 0
#endif

#if defined(HAVE_SECCOMP) && !SANITIZED && (defined(__x86_64__) || defined(__aarch64__))
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>

static const char *const allowed[] = {
	/* files */
	"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "open",
	"openat", "close", "close_range", "stat", "fstat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "access",
	"faccessat", "faccessat2", "lseek", "ftruncate", "fallocate", "fadvise64", "readahead", "sync_file_range", "fsync",
	"fdatasync", "syncfs", "copy_file_range", "sendfile", "splice", "tee", "vmsplice", "pipe", "pipe2", "dup", "dup2",
	"dup3", "fcntl", "flock", "getdents64", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat",
	"renameat2", "linkat", "readlink", "readlinkat", "fchmod", "fchown", "utimensat", "umask", "getcwd", "chdir",
	/* memory */
	"mmap", "mprotect", "munmap", "mremap", "madvise", "brk", "msync", "mincore",
	/* threads and itself */
	"clone3", "futex", "set_robust_list", "get_robust_list", "rseq", "sched_yield", "sched_getaffinity", "sched_setaffinity",
	"sched_getparam", "sched_getscheduler", "sched_get_priority_min", "sched_get_priority_max", "gettid", "getpid",
	"getppid", "getuid", "geteuid", "getgid", "getegid", "getgroups", "getresuid", "getresgid", "exit", "exit_group",
	"membarrier", "getcpu", "getrandom", "sysinfo", "uname", "prlimit64", "getrlimit", "getrusage", "times", "setsid",
	"restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "rt_sigpending",
	"rt_sigsuspend", "sigaltstack", "tgkill", "tkill", "pause", "wait4", "waitid",
	/* time, and waiting for something */
	"clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "timerfd_create",
	"timerfd_settime", "timerfd_gettime", "poll", "ppoll", "select", "pselect6", "epoll_create1", "epoll_ctl",
	"epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "pidfd_open",
	/* the keeper */
	"sendto", "sendmsg", "recvfrom", "recvmsg",
};

static const char *const deadly[] = {
	"execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "mount",
	"umount2", "move_mount", "open_tree", "fsopen", "fsmount", "fsconfig", "mount_setattr", "pivot_root", "chroot",
	"setns", "unshare", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "bpf",
	"perf_event_open", "reboot", "swapon", "swapoff", "settimeofday", "clock_settime", "keyctl", "add_key",
	"request_key", "io_uring_setup", "userfaultfd", "open_by_handle_at", "socket", "connect", "bind",
};

#define BACKING_OPEN 0x4010e501U /* FUSE_DEV_IOC_BACKING_OPEN and _CLOSE of linux/fuse.h, which may be older */
#define BACKING_CLOSE 0x4004e502U

static const unsigned ioctls[] = { FICLONE, BACKING_OPEN, BACKING_CLOSE, TCGETS, FIONREAD };
static const unsigned prctls[] = { PR_SET_NAME, PR_GET_NAME, 0x53564d41 /* PR_SET_VMA, which glibc may use */ };

static int add_all(scmp_filter_ctx *f, uint32_t action, const char *const *names, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		int nr = seccomp_syscall_resolve_name(names[i]);

		if (nr >= 0) /* this machine has it */
			r = seccomp_rule_add(f, action, nr, 0);
	}
	return r;
}

static int add_with(scmp_filter_ctx *f, int nr, unsigned arg, const unsigned *values, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, nr, 1,
				     SCMP_CMP(arg, SCMP_CMP_MASKED_EQ, 0xffffffffU, values[i]));
	return r;
}

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* Threads, not processes. What clone3 is asked for cannot be seen, but a process that it makes is no more free. */
static int add_special(scmp_filter_ctx *f)
{
	int r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				 SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));

	if (r == 0)
		r = add_with(f, SCMP_SYS(ioctl), 1, ioctls, COUNT(ioctls));
	if (r == 0)
		r = add_with(f, SCMP_SYS(prctl), 0, prctls, COUNT(prctls));
	return r;
}

static int filter(void)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r;

	if (f == NULL)
		return -ENOMEM;
	r = add_all(f, SCMP_ACT_ALLOW, allowed, COUNT(allowed));
	if (r == 0)
		r = add_all(f, SCMP_ACT_KILL_PROCESS, deadly, COUNT(deadly));
	if (r == 0)
		r = add_special(f);
	if (r == 0)
		seccomp_attr_set(f, SCMP_FLTATR_CTL_LOG, 1); /* what is refused; older kernels cannot */
	if (r == 0)
		r = seccomp_load(f);
	seccomp_release(f);
	return r;
}
#else
static int filter(void)
{
	return -EOPNOTSUPP;
}
#endif

int privileges_drop(const struct privileges *p)
{
	uint64_t keep = CAPS_ALWAYS | (p->passthrough ? CAPS_PASSTHROUGH : 0) |
			(p->foreign_store ? CAPS_FOREIGN_STORE : 0);
	int r;

	if (geteuid() == 0 && (r = keep_capabilities(keep)) < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	r = p->seccomp == SECCOMP_OFF ? 0 : filter();
	if (r == 0 || p->seccomp == SECCOMP_ON)
		return r;
	if (r != -EOPNOTSUPP)
		fprintf(stderr, "promisefs: no filter of system calls: error %d\n", -r);
	return 0;
}

/* What its workers need it has to have, too; and the right to take all the rest from them. */
void privileges_of_supervisor(void)
{
	if (geteuid() == 0)
		keep_capabilities(CAPS_ALWAYS | CAPS_PASSTHROUGH | CAPS_FOREIGN_STORE | CAPS_KEEPER | CAP(SETPCAP));
}

void privileges_of_keeper(void)
{
	if (geteuid() == 0)
		keep_capabilities(CAPS_KEEPER);
}

/* What a process may still do after privileges_drop. Each case is a child of its own, which does not come back. */
#include "fs/privileges.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define NO_FILTER 77

/* How a child ends that drops its privileges and then does this. */
static int end_of(int (*fn)(void), enum seccomp seccomp)
{
	const struct privileges p = { .seccomp = seccomp };
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		int r = privileges_drop(&p);

		_exit(r == -EOPNOTSUPP ? NO_FILTER : r < 0 ? 99 : fn());
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_FILTER) {
		print_message("no filter of system calls here\n");
		skip();
	}
	return status;
}

static int exits(int (*fn)(void), enum seccomp seccomp)
{
	int status = end_of(fn, seccomp);

	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void *nothing(void *arg)
{
	return arg;
}

static int does_what_it_should(void)
{
	char byte = 0;
	pthread_t thread;
	int ends[2], fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0 || write(fd, &byte, 1) != 1 || fsync(fd) == 0 || errno != EINVAL)
		return 1;
	if (pthread_create(&thread, NULL, nothing, NULL) != 0 || pthread_join(thread, NULL) != 0)
		return 2;
	if (pipe2(ends, O_CLOEXEC) < 0 || prctl(PR_SET_NAME, "x") < 0)
		return 3;
	return syscall(SYS_pidfd_open, getpid(), 0) >= 0 ? 0 : 4;
}

static void test_serving_goes_on(void **state)
{
	assert_int_equal(exits(does_what_it_should, SECCOMP_ON), 0);
}

static int is_refused(void)
{
	char buf[64] = "";

	if (syscall(SYS_symlinkat, "a", AT_FDCWD, "/nonexistent/b") == 0 || errno != EPERM)
		return 1;
	if (ioctl(0, TIOCSTI, buf) == 0 || errno != EPERM)
		return 2;
	if (prctl(PR_SET_DUMPABLE, 0) == 0 || errno != EPERM)
		return 3;
	return syscall(SYS_setresuid, 1, 1, 1) == 0 || errno != EPERM ? 4 : 0;
}

static void test_what_is_not_listed_is_refused(void **state)
{
	assert_int_equal(exits(is_refused, SECCOMP_ON), 0);
}

static int executes(void)
{
	execl("/bin/true", "true", NULL);
	return 0;
}

static int connects(void)
{
	return socket(AF_INET, SOCK_STREAM, 0) < 0;
}

static int traces(void)
{
	return (int)syscall(SYS_process_vm_writev, getppid(), NULL, 0, NULL, 0, 0);
}

static void test_what_an_intruder_would_call_ends_it(void **state)
{
	int (*const fns[])(void) = { executes, connects, traces };

	for (size_t i = 0; i < COUNT(fns); i++) {
		int status = end_of(fns[i], SECCOMP_ON);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSYS);
	}
}

static int owns_nothing(void)
{
	char line[256];
	unsigned long long caps = 0;
	FILE *f = fopen("/proc/self/status", "re");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "CapBnd: %llx", &caps) == 1)
			break;
	return f == NULL || (geteuid() == 0 && (caps & ~0x80004ULL) != 0); /* SYS_PTRACE, DAC_READ_SEARCH */
}

static void test_capabilities_are_gone(void **state)
{
	assert_int_equal(exits(owns_nothing, SECCOMP_AUTO), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_serving_goes_on),
		cmocka_unit_test(test_what_is_not_listed_is_refused),
		cmocka_unit_test(test_what_an_intruder_would_call_ends_it),
		cmocka_unit_test(test_capabilities_are_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "abandon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the child: die with the file open, once the parent has closed it (end of file on the pipe). */
static _Noreturn void die_with_file(int turn)
{
	char c;

	while (read(turn, &c, 1) < 0 && errno == EINTR)
		;
	for (;;)
		raise(SIGKILL);
}

/* When there can be no child, this process itself is the one who is killed. */
void abandon(int fd)
{
	int turn[2] = { -1, -1 };
	pid_t child = pipe2(turn, O_CLOEXEC) == 0 ? fork() : -1;

	if (child < 0)
		raise(SIGKILL);
	if (child == 0) {
		close(turn[1]);
		die_with_file(turn[0]);
	}
	close(turn[0]);
	close(fd);
	close(turn[1]);
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
}

#include "fs/descriptors.h"

#include <errno.h>
#include <limits.h>
#include <sys/resource.h>
#include <unistd.h>

#define RESERVE 256 /* or a quarter, if that is less */

/* The kernel gives the lowest number that is free, so a high one tells that all below are in use. */
static int ceiling = INT_MAX;

void descriptors_start(void)
{
	struct rlimit l;
	rlim_t reserve;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return;
	l.rlim_cur = l.rlim_max;
	setrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_cur == RLIM_INFINITY || l.rlim_cur > INT_MAX)
		l.rlim_cur = INT_MAX;
	reserve = l.rlim_cur / 4 < RESERVE ? l.rlim_cur / 4 : RESERVE;
	ceiling = (int)(l.rlim_cur - reserve);
}

uint64_t descriptors_for_users(void)
{
	return (uint64_t)ceiling;
}

int descriptor_for_user(int fd)
{
	if (fd < ceiling)
		return fd;
	close(fd);
	errno = EMFILE;
	return -1;
}

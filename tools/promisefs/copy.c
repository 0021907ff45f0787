/* Three ways, each of which goes on where the one before it stopped: copy_file_range between regular files, splice when
 * one side is a pipe, and read and write. Only the last one reports errors: whatever makes a faster way stop (not
 * possible here, the end, or an error) the slower one meets again, and knows which side it came from. */
#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (1u << 20)
#define LARGE (1u << 30)

static void copy_by_range(int in, int out)
{
	while (copy_file_range(in, NULL, out, NULL, LARGE, 0) > 0)
		;
}

static void copy_by_splice(int in, int out)
{
	while (splice(in, NULL, out, NULL, CHUNK, SPLICE_F_MOVE | SPLICE_F_MORE) > 0)
		;
}

/* Whether the call should be made again; waits when the descriptor is a non-blocking one. */
static bool again(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	if (errno == EAGAIN)
		poll(&p, 1, -1);
	return errno == EINTR || errno == EAGAIN;
}

static ssize_t read_some(int fd, char *buffer)
{
	ssize_t n;

	do
		n = read(fd, buffer, CHUNK);
	while (n < 0 && again(fd, POLLIN));
	return n < 0 ? -errno : n;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && again(fd, POLLOUT))
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int copy_by_buffer(int in, int out, bool *reading)
{
	char *buffer = malloc(CHUNK);
	ssize_t n = -ENOMEM;

	*reading = true;
	while (buffer != NULL && (n = read_some(in, buffer)) > 0) {
		int r = write_all(out, buffer, (size_t)n);

		if (r < 0) {
			*reading = false;
			n = r;
			break;
		}
	}
	free(buffer);
	return (int)n;
}

/* Reading a file while appending to it would never end. */
static bool same_file(int in, int out)
{
	struct stat a, b;

	return fstat(in, &a) == 0 && fstat(out, &b) == 0 && S_ISREG(a.st_mode) && S_ISREG(b.st_mode) &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int copy_all(int in, int out, bool *reading)
{
	*reading = true;
	if (same_file(in, out))
		return -EDEADLK;
	copy_by_range(in, out);
	copy_by_splice(in, out);
	return copy_by_buffer(in, out, reading);
}

/* A producer and two consumers, started in any order; see README.md. Run it in the root of a mount, after mkdir demo:
 *	pipeline consumer one & pipeline consumer two & pipeline producer
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONTROL ".promisefs/"
#define OWN CONTROL "own/demo-list"

static char buffer[4096];

/* Reads a file into the buffer; 0 or a negative errno. What waits, waits in open(2). */
static int try_get(const char *path)
{
	size_t size = 0;
	ssize_t got;
	int fd;

	do
		fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd < 0 && errno == EINTR); /* a signal was handled: as with a FIFO, open again */
	if (fd < 0)
		return -errno;
	while ((got = read(fd, buffer + size, sizeof(buffer) - 1 - size)) > 0)
		size += (size_t)got;
	if (got < 0)
		err(1, "%s", path);
	close(fd);
	while (size > 0 && buffer[size - 1] == '\n')
		size--;
	buffer[size] = '\0';
	return 0;
}

static const char *get(const char *path)
{
	int r = try_get(path);

	if (r < 0)
		errx(1, "%s: %s", path, strerror(-r));
	return buffer;
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	size_t size = strlen(text);

	if (fd < 0 || write(fd, text, size) != (ssize_t)size || close(fd) < 0) /* closing it is what publishes it */
		err(1, "%s", path);
}

static void consumer(const char *me)
{
	char ref[256], answer[256], line[32];
	int sum = 0, r;

	snprintf(ref, sizeof(ref), CONTROL "ref/demo-%s", me);
	snprintf(answer, sizeof(answer), "demo/answer-%s", me);

	/* A future that nobody has declared: the open waits until the key is published. Who comes late need not wait. */
	get(CONTROL "await/demo/numbers");
	for (const char *word = strtok(buffer, "\n"); word; word = strtok(NULL, "\n"))
		sum += atoi(word);
	printf("%s: the sum is %d\n", me, sum);

	/* A one-time object: the open takes it, of all who try one gets it. The others find no such file. */
	r = try_get(CONTROL "once/demo/ticket");
	if (r == 0)
		printf("%s: the ticket is mine: %s\n", me, buffer);
	else if (r == -ENOENT)
		printf("%s: the ticket is gone\n", me);
	else
		errx(1, "the ticket: %s", strerror(-r));

	/* A borrow is a hard link. As long as it is there nobody can write the list or evict it. */
	if (link(OWN, ref) < 0)
		err(1, "%s", ref);
	printf("%s: scratch says: %s\n", me, get("demo/scratch/note"));
	snprintf(line, sizeof(line), "%d\n", sum);
	put(answer, line); /* keeps the promise that the producer waits for */

	/* A future that nobody will ever write, in a directory with a lease: the open waits until the lease is over. */
	r = try_get("demo/scratch/never");
	if (r != -ECANCELED && r != -ENOENT)
		errx(1, "demo/scratch/never: %s", r < 0 ? strerror(-r) : "somebody has written it");
	if (try_get("demo/scratch/note") != -ENOENT)
		errx(1, "demo/scratch/note is still there");
	printf("%s: scratch is gone\n", me);

	printf("%s: the list is %s\n", me, get(ref)); /* a writer is in line by now, and does not get in */
	if (unlink(ref) < 0)                          /* until the last borrow is dropped */
		err(1, "%s", ref);
}

static void producer(void)
{
	char numbers[1024] = "", *end = numbers;

	put(OWN, "1 2 3\n"); /* an object whose owner is a handle, not a key */
	if (mkdir("demo/scratch", 0777) < 0)
		err(1, "demo/scratch");
	put("demo/scratch/note", "not for long\n");
	put(CONTROL "future/demo/scratch/never", ""); /* an empty file declares a future */
	put(CONTROL "future/demo/answer-one", "");
	put(CONTROL "future/demo/answer-two", "");
	put("demo/ticket", "admit one\n");
	for (int number = 1; number <= 100; number++)
		end += sprintf(end, "%d\n", number);
	put("demo/numbers", numbers); /* published, whole, when it is closed: this wakes the consumers */

	printf("producer: one answers %s\n", get("demo/answer-one")); /* waits for the future */
	printf("producer: two answers %s\n", get("demo/answer-two"));

	/* To write the list takes the only borrow there is. Both consumers borrow it now, so get in line. */
	if (link(OWN, CONTROL "await-mut/demo-writer") < 0)
		err(1, "await-mut/demo-writer");
	put(CONTROL "attributes/lease/demo/scratch/.dir", "100ms\n"); /* the directory goes by itself */
	put(CONTROL "mut/demo-writer", "1 2 3 4\n");                  /* the open waits for the turn */
	if (unlink(CONTROL "mut/demo-writer") < 0)
		err(1, "mut/demo-writer");
	printf("producer: the list is %s\n", get(OWN));
	if (unlink(OWN) < 0) /* nobody borrows it: evicted */
		err(1, OWN);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "producer") == 0)
		producer();
	else if (argc == 3 && strcmp(argv[1], "consumer") == 0)
		consumer(argv[2]);
	else
		errx(2, "usage: %s producer | consumer NAME", argv[0]);
	return 0;
}

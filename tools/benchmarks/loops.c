/*
 * The timed loops of tools/bench. Each verb does one thing to one file system (or Redis) and prints one number.
 *
 * It knows nothing of promisefs but two paths: a key, and where to declare it. So the same loop runs on tmpfs, bindfs
 * and promisefs. tools/bench compiles it (cc -O2 -pthread), starts it, and does the statistics.
 *
 *   stream-write FILE BYTES          create, write in 1 MiB pieces, close: seconds
 *   stream-read FILE                 open, read in 1 MiB pieces, close: seconds
 *   mmap-read FILE COUNT             copy COUNT random pages out of a mapping: seconds
 *   get DIR FILES COUNT              open, read 4 KiB, close, round robin over DIR/k0, k1, ...: seconds
 *   put DIR COUNT                    create DIR/p0, p1, ..., write 4 KiB, close: seconds
 *   redis-get PORT KEYS COUNT        GET of 4 KiB over one TCP connection to 127.0.0.1: seconds
 *   redis-set PORT COUNT             SET of 4 KiB to new keys: seconds
 *   wake-pipe ROUNDS                 write(2) into a pipe to data in its sleeping reader: nanoseconds, one a line
 *   wake-future DIR DECLARE ROUNDS   close(2) returned in the producer to data in the consumer that waited in open(2):
 *                                    nanoseconds, and from the call of close(2): nanoseconds; two a line
 *   fan-future DIR DECLARE READERS   close(2) called to data in the last of READERS waiting threads: seconds
 *   fan-pipes DIR READERS            the same without futures: every reader has a pipe, is told, opens the file
 *   wait-many DIR DECLARE READERS    READERS threads wait for one key; prints "waiting", and ends them at end of input
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	VALUE_SIZE = 4096,
	PIECE_SIZE = 1 << 20,
	READERS_PER_PROCESS = 1000,
	READER_STACK = 64 * 1024,
	SETTLE_US = 1500, /* long enough for a reader to fall asleep, short enough for the CPU to stay awake */
};

/* Written by the consumer's process, read by the producer's. */
struct shared {
	_Atomic int64_t seen;     /* when the data was there */
	atomic_int started;       /* readers about to wait */
	atomic_int finished;      /* readers that have the data */
	atomic_int failed;
};

static char value[VALUE_SIZE];

static void die(const char *what)
{
	fprintf(stderr, "loops: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void print_seconds(int64_t start)
{
	printf("%.9f\n", (double)(now() - start) / 1e9);
}

static long number(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*end || n <= 0) {
		fprintf(stderr, "loops: %s is not a positive number\n", text);
		exit(2);
	}
	return n;
}

static char *path_of(const char *format, ...)
{
	char *path;
	va_list arguments;

	va_start(arguments, format);
	if (vasprintf(&path, format, arguments) < 0)
		die("vasprintf");
	va_end(arguments);
	return path;
}

static int must_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	if (fd < 0)
		die(path);
	return fd;
}

static void write_all(int fd, const char *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0)
			die("write");
		data += n;
		size -= n;
	}
}

static void read_all(int fd, char *data, size_t size)
{
	while (size) {
		ssize_t n = read(fd, data, size);

		if (n <= 0)
			die(n ? "read" : "read: too short");
		data += n;
		size -= n;
	}
}

static void must_close(int fd)
{
	if (close(fd))
		die("close");
}

static struct shared *share(void)
{
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (s == MAP_FAILED)
		die("mmap");
	return s;
}

/* ---- files ---- */

static int stream_write(char **argument)
{
	char *piece = malloc(PIECE_SIZE);
	long left = number(argument[1]);
	int64_t start;
	int fd;

	memset(piece, 'x', PIECE_SIZE);
	start = now();
	fd = must_open(argument[0], O_WRONLY | O_CREAT | O_TRUNC);
	for (; left > 0; left -= PIECE_SIZE)
		write_all(fd, piece, left < PIECE_SIZE ? left : PIECE_SIZE);
	must_close(fd);
	print_seconds(start);
	return 0;
}

static int stream_read(char **argument)
{
	char *piece = malloc(PIECE_SIZE);
	int64_t start;
	ssize_t n;
	int fd;

	memset(piece, 0, PIECE_SIZE);
	start = now();
	fd = must_open(argument[0], O_RDONLY);
	while ((n = read(fd, piece, PIECE_SIZE)) > 0)
		;
	if (n < 0)
		die("read");
	must_close(fd);
	print_seconds(start);
	return 0;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static int mmap_read(char **argument)
{
	static char page[VALUE_SIZE];
	int fd = must_open(argument[0], O_RDONLY);
	long count = number(argument[1]);
	uint64_t seed = 88172645463325252u;
	struct stat st;
	int64_t start;
	char *map;

	if (fstat(fd, &st))
		die("fstat");
	start = now();
	map = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("mmap");
	for (long i = 0; i < count; i++) {
		memcpy(page, map + next_random(&seed) % (st.st_size / VALUE_SIZE) * VALUE_SIZE, VALUE_SIZE);
		__asm__ volatile("" : : "r"(page) : "memory");
	}
	munmap(map, st.st_size);
	print_seconds(start);
	return 0;
}

static int get(char **argument)
{
	long files = number(argument[1]), count = number(argument[2]);
	char **paths = malloc(files * sizeof(*paths));
	int64_t start;

	for (long i = 0; i < files; i++)
		paths[i] = path_of("%s/k%ld", argument[0], i);
	start = now();
	for (long i = 0; i < count; i++) {
		int fd = must_open(paths[i % files], O_RDONLY);

		read_all(fd, value, VALUE_SIZE);
		close(fd);
	}
	print_seconds(start);
	return 0;
}

static void put_file(const char *path)
{
	int fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);

	write_all(fd, value, VALUE_SIZE);
	must_close(fd);
}

static int put(char **argument)
{
	long count = number(argument[1]);
	char **paths = malloc(count * sizeof(*paths));
	int64_t start;

	for (long i = 0; i < count; i++)
		paths[i] = path_of("%s/p%ld", argument[0], i);
	start = now();
	for (long i = 0; i < count; i++)
		put_file(paths[i]);
	print_seconds(start);
	return 0;
}

/* ---- Redis ---- */

static int redis_connect(const char *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(number(port))};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		die("redis");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/* Reads until the reply is `size` bytes long; a wrong reply would be shorter and starts with '-'. */
static void redis_reply(int fd, char *reply, size_t size)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = recv(fd, reply + have, size - have, 0);

		if (n <= 0)
			die("redis reply");
		have += n;
		if (reply[0] == '-') {
			fprintf(stderr, "loops: redis: %.*s\n", (int)have, reply);
			exit(1);
		}
	}
}

static void redis_set_one(int fd, const char *prefix, long i)
{
	static char request[VALUE_SIZE + 128];
	char key[32], reply[8];
	int key_size = snprintf(key, sizeof(key), "%s%ld", prefix, i);
	int size = sprintf(request, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n", key_size, key, VALUE_SIZE);

	memcpy(request + size, value, VALUE_SIZE);
	memcpy(request + size + VALUE_SIZE, "\r\n", 2);
	write_all(fd, request, size + VALUE_SIZE + 2);
	redis_reply(fd, reply, 5); /* +OK\r\n */
}

static void redis_get_one(int fd, long i)
{
	char key[32], request[96];
	static char reply[VALUE_SIZE + 16];
	int key_size = snprintf(key, sizeof(key), "k%ld", i);
	int size = sprintf(request, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", key_size, key);

	write_all(fd, request, size);
	redis_reply(fd, reply, strlen("$4096\r\n") + VALUE_SIZE + strlen("\r\n"));
}

static int redis_get(char **argument)
{
	int fd = redis_connect(argument[0]);
	long keys = number(argument[1]), count = number(argument[2]);
	int64_t start;

	for (long i = 0; i < keys; i++)
		redis_set_one(fd, "k", i);
	start = now();
	for (long i = 0; i < count; i++)
		redis_get_one(fd, i % keys);
	print_seconds(start);
	return 0;
}

static int redis_set(char **argument)
{
	int fd = redis_connect(argument[0]);
	long count = number(argument[1]);
	int64_t start = now();

	for (long i = 0; i < count; i++)
		redis_set_one(fd, "p", i);
	print_seconds(start);
	return 0;
}

/* ---- waking ---- */

static void settle(void)
{
	usleep(SETTLE_US);
}

static void reap(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) < 0 || status) {
		fprintf(stderr, "loops: a reader failed\n");
		exit(1);
	}
}

static int wake_pipe(char **argument)
{
	long rounds = number(argument[0]);
	struct shared *s = share();
	int data[2], turn[2];
	pid_t child;
	char c = 0;

	if (pipe(data) || pipe(turn))
		die("pipe");
	child = fork();
	if (child == 0) {
		for (long i = 0; i < rounds; i++) {
			write_all(turn[1], &c, 1);
			read_all(data[0], value, VALUE_SIZE);
			s->seen = now();
			s->finished++;
		}
		_exit(0);
	}
	for (int i = 0; i < rounds; i++) {
		int64_t start;

		read_all(turn[0], &c, 1);
		settle();
		start = now();
		write_all(data[1], value, VALUE_SIZE);
		while (s->finished <= i)
			usleep(50);
		printf("%lld\n", (long long)(s->seen - start));
	}
	reap(child);
	return 0;
}

static void declare(const char *directory, const char *name)
{
	char *path = path_of("%s/%s", directory, name);

	must_close(must_open(path, O_WRONLY | O_CREAT));
	free(path);
}

static int wake_future(char **argument)
{
	long rounds = number(argument[2]);
	struct shared *s = share();
	char name[32], *path;
	int turn[2];
	pid_t child;
	char c = 0;

	if (pipe(turn))
		die("pipe");
	/* All are declared before, so that a round has nothing in it but the waiting, the writing and the waking. */
	for (long i = 0; i < rounds; i++) {
		snprintf(name, sizeof(name), "w%ld", i);
		declare(argument[1], name);
	}
	child = fork();
	if (child == 0) {
		for (long i = 0; i < rounds; i++) {
			int fd;

			path = path_of("%s/w%ld", argument[0], i);
			write_all(turn[1], &c, 1);
			fd = must_open(path, O_RDONLY);
			read_all(fd, value, VALUE_SIZE);
			s->seen = now();
			close(fd);
			free(path);
			s->finished++;
		}
		_exit(0);
	}
	for (int i = 0; i < rounds; i++) {
		int64_t called, returned;
		int fd;

		path = path_of("%s/w%d", argument[0], i);
		read_all(turn[0], &c, 1);
		settle();
		fd = must_open(path, O_WRONLY | O_CREAT);
		write_all(fd, value, VALUE_SIZE);
		called = now();
		must_close(fd);
		returned = now();
		while (s->finished <= i)
			usleep(50);
		printf("%lld %lld\n", (long long)(s->seen - returned), (long long)(s->seen - called));
		free(path);
	}
	reap(child);
	return 0;
}

/* ---- many readers ---- */

struct reader {
	struct shared *shared;
	const char *path;
	int gate; /* -1, or a pipe that says when to open */
};

static void *read_one(void *data)
{
	struct reader *reader = data;
	char buffer[VALUE_SIZE], c;
	ssize_t n = -1;
	int fd;

	reader->shared->started++;
	if (reader->gate >= 0 && read(reader->gate, &c, 1) != 1)
		reader->shared->failed++;
	fd = open(reader->path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, buffer, sizeof(buffer));
		close(fd);
	}
	if (n != VALUE_SIZE)
		reader->shared->failed++;
	reader->shared->seen = now();
	reader->shared->finished++;
	return NULL;
}

/* Starts `count` reading threads and ends, with the process, when they have all finished. */
static void run_readers(struct shared *s, const char *path, long count, int (*pipes)[2])
{
	pthread_t *threads = calloc(count, sizeof(*threads));
	struct reader *readers = calloc(count, sizeof(*readers));
	pthread_attr_t attributes;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody is left waiting when the measurement gives up */
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, READER_STACK);
	for (long i = 0; i < count; i++) {
		readers[i] = (struct reader){s, path, pipes ? pipes[i][0] : -1};
		if ((errno = pthread_create(&threads[i], &attributes, read_one, &readers[i])))
			die("pthread_create");
	}
	for (long i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

/* How many opens wait on the mount of promisefs at `directory`, as it says itself; -1 if that is no such mount. */
static long opens_waiting(const char *directory)
{
	char *name = path_of("%s/.promisefs/metrics", directory), line[256];
	FILE *file = fopen(name, "re");
	long waiting = -1;

	free(name);
	if (!file)
		return -1;
	while (waiting < 0 && fgets(line, sizeof(line), file))
		sscanf(line, "promisefs_waiters %ld", &waiting);
	fclose(file);
	return waiting;
}

static void wait_until_all_wait(struct shared *s, const char *directory, long readers)
{
	int64_t limit = now() + 60 * (int64_t)1000000000;

	while (s->started < readers && now() < limit)
		usleep(1000);
	if (opens_waiting(directory) >= 0)
		while (opens_waiting(directory) < readers && now() < limit)
			usleep(20000);
	if (s->started < readers || now() >= limit) {
		fprintf(stderr, "loops: only %d of %ld readers came to wait, %ld opens\n", s->started, readers,
			opens_waiting(directory));
		exit(1);
	}
	usleep(200000);
}

static void wait_until_all_read(struct shared *s, long readers)
{
	int64_t limit = now() + 60 * (int64_t)1000000000;

	while (s->finished < readers && now() < limit)
		usleep(200);
	if (s->finished < readers || s->failed) {
		fprintf(stderr, "loops: %d of %ld readers ended, %d failed\n", s->finished, readers, s->failed);
		exit(1);
	}
}

static int fan_future(char **argument)
{
	long readers = number(argument[2]);
	struct shared *s = share();
	char *path = path_of("%s/fan", argument[0]);
	int64_t called;
	pid_t child;
	int fd;

	declare(argument[1], "fan");
	child = fork();
	if (child == 0)
		run_readers(s, path, readers, NULL);
	wait_until_all_wait(s, argument[0], readers);
	fd = must_open(path, O_WRONLY | O_CREAT);
	write_all(fd, value, VALUE_SIZE);
	called = now();
	must_close(fd);
	wait_until_all_read(s, readers);
	printf("%.9f\n", (double)(s->seen - called) / 1e9);
	reap(child);
	unlink(path);
	return 0;
}

static int fan_pipes(char **argument)
{
	long readers = number(argument[1]);
	struct shared *s = share();
	char *path = path_of("%s/fan", argument[0]), c = 0;
	int (*pipes)[2] = calloc(readers, sizeof(*pipes));
	int64_t called;
	pid_t child;
	int fd;

	for (long i = 0; i < readers; i++)
		if (pipe2(pipes[i], O_CLOEXEC))
			die("pipe");
	child = fork();
	if (child == 0)
		run_readers(s, path, readers, pipes);
	wait_until_all_wait(s, "/proc", readers);
	fd = must_open(path, O_WRONLY | O_CREAT);
	write_all(fd, value, VALUE_SIZE);
	called = now();
	must_close(fd);
	for (long i = 0; i < readers; i++)
		write_all(pipes[i][1], &c, 1);
	wait_until_all_read(s, readers);
	printf("%.9f\n", (double)(s->seen - called) / 1e9);
	reap(child);
	unlink(path);
	return 0;
}

static int wait_many(char **argument)
{
	long readers = number(argument[2]), left = readers;
	struct shared *s = share();
	char *path = path_of("%s/many", argument[0]), line[16];

	declare(argument[1], "many");
	for (; left > 0; left -= READERS_PER_PROCESS)
		if (fork() == 0)
			run_readers(s, path, left < READERS_PER_PROCESS ? left : READERS_PER_PROCESS, NULL);
	wait_until_all_wait(s, argument[0], readers);
	printf("waiting\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		;
	put_file(path);
	wait_until_all_read(s, readers);
	while (wait(NULL) > 0)
		;
	unlink(path);
	return 0;
}

static const struct verb {
	const char *name;
	int arguments;
	int (*run)(char **argument);
} verbs[] = {
	{"stream-write", 2, stream_write}, {"stream-read", 1, stream_read}, {"mmap-read", 2, mmap_read},
	{"get", 3, get},                   {"put", 2, put},                 {"redis-get", 3, redis_get},
	{"redis-set", 2, redis_set},       {"wake-pipe", 1, wake_pipe},     {"wake-future", 3, wake_future},
	{"fan-future", 3, fan_future},     {"fan-pipes", 2, fan_pipes},     {"wait-many", 3, wait_many},
};

int main(int argc, char **argv)
{
	struct rlimit files;

	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	memset(value, 'v', sizeof(value));
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (argc >= 2 && !strcmp(argv[1], verbs[i].name) && argc - 2 == verbs[i].arguments)
			return verbs[i].run(argv + 2);
	fprintf(stderr, "usage: loops VERB ARGUMENT...; the verbs are listed at the top of loops.c\n");
	return 2;
}

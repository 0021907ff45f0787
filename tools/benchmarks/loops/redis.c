/*
 * A client of Redis, as bare as can be: RESP over a Unix socket, one request at a time.
 *
 *   redis-get SOCKET KEYS COUNT CLIENTS    each client GETs 4 KiB COUNT times: seconds until the last one is done
 *   redis-set SOCKET COUNT CLIENTS         each client SETs COUNT new keys of 4 KiB: the same
 *   redis-clear SOCKET                     FLUSHALL
 */
#include "loops.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

struct redis {
	const char *path;
	long keys, count;
	int fd;
};

static int redis_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		fail("%s is too long for a socket", path);
	strcpy(address.sun_path, path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		die(path);
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
		if (reply[0] == '-')
			fail("redis: %.*s", (int)have, reply);
	}
}

static void set_one(int fd, const char *key)
{
	static char request[VALUE_SIZE + 128];
	char reply[8];
	int size = sprintf(request, "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%d\r\n", strlen(key), key, VALUE_SIZE);

	memcpy(request + size, value, VALUE_SIZE);
	memcpy(request + size + VALUE_SIZE, "\r\n", 2);
	write_all(fd, request, size + VALUE_SIZE + 2);
	redis_reply(fd, reply, strlen("+OK\r\n"));
}

static void get_one(int fd, long i)
{
	static char reply[VALUE_SIZE + 16];
	char key[32], request[96];
	int key_size = snprintf(key, sizeof(key), "k%ld", i);
	int size = sprintf(request, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", key_size, key);

	write_all(fd, request, size);
	redis_reply(fd, reply, strlen("$4096\r\n") + VALUE_SIZE + strlen("\r\n"));
}

static void connect_client(long client, void *data)
{
	struct redis *redis = data;

	(void)client;
	redis->fd = redis_connect(redis->path);
}

static void get_client(long client, void *data)
{
	struct redis *redis = data;

	for (long i = 0; i < redis->count; i++)
		get_one(redis->fd, (i + client * 101) % redis->keys);
}

static int redis_get(char **argument)
{
	struct redis redis = {.path = argument[0], .keys = number(argument[1]), .count = number(argument[2])};
	int fd = redis_connect(redis.path);
	char key[32];

	for (long i = 0; i < redis.keys; i++) {
		snprintf(key, sizeof(key), "k%ld", i);
		set_one(fd, key);
	}
	printf("%.9f\n", run_clients(number(argument[3]), get_client, connect_client, &redis));
	return 0;
}

static void set_client(long client, void *data)
{
	struct redis *redis = data;
	char key[64];

	for (long i = 0; i < redis->count; i++) {
		snprintf(key, sizeof(key), "p%ld-%ld", client, i);
		set_one(redis->fd, key);
	}
}

static int redis_set(char **argument)
{
	struct redis redis = {.path = argument[0], .count = number(argument[1])};

	printf("%.9f\n", run_clients(number(argument[2]), set_client, connect_client, &redis));
	return 0;
}

static int redis_clear(char **argument)
{
	static const char request[] = "*1\r\n$8\r\nFLUSHALL\r\n";
	int fd = redis_connect(argument[0]);
	char reply[8];

	write_all(fd, request, sizeof(request) - 1);
	redis_reply(fd, reply, strlen("+OK\r\n"));
	return 0;
}

const struct verb redis_verbs[] = {
	{"redis-get", 4, redis_get}, {"redis-set", 3, redis_set}, {"redis-clear", 1, redis_clear}, {NULL, 0, NULL},
};

/* What a user writes as a value: attributes (leases, deadlines, processes, errors, lists ...), the same through
 * .promisefs/attributes, .promisefs/wait-timeout, and queries of .promisefs/events. The first byte says which of these. */
#include "fake_kernel.h"

#include <sys/syscall.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {
	"lease", "pid", "error", "deadline", "publish", "lifetime", "evict", "state", "version", "id", "owner", "borrows",
	"lifetimes", "sha256", "producer",
};
#define NAMES (sizeof(names) / sizeof(names[0]))

static uint64_t look_up(uint64_t parent, const char *name)
{
	const struct asked *a = answer_of(ask(FUSE_LOOKUP, parent, 1, name, strlen(name) + 1), NS_PER_SEC);

	return a != NULL && a->error == 0 ? a->body.entry.nodeid : 0;
}

static uint64_t make(uint64_t parent, uint32_t opcode, const char *name)
{
	char body[64] = { 0 };
	struct fuse_mknod_in mn = { .mode = S_IFREG | 0666 };
	struct fuse_mkdir_in md = { .mode = 0777 };
	size_t n = opcode == FUSE_MKNOD ? sizeof(mn) : sizeof(md);
	const struct asked *a;

	memcpy(body, opcode == FUSE_MKNOD ? (void *)&mn : (void *)&md, n);
	strcpy(body + n, name);
	a = answer_of(ask(opcode, parent, (uint32_t)syscall(SYS_gettid), body, n + strlen(name) + 1), NS_PER_SEC);
	return a != NULL && a->error == 0 ? a->body.entry.nodeid : 0;
}

static void set_attribute(uint64_t node, const char *name, const uint8_t *value, size_t n)
{
	char body[8192];
	struct fuse_setxattr_in in = { .size = (uint32_t)n };
	struct fuse_getxattr_in get = { .size = 4096 };
	size_t len = FUSE_COMPAT_SETXATTR_IN_SIZE;

	memcpy(body, &in, len);
	len += (size_t)sprintf(body + len, "%s", name) + 1;
	memcpy(body + len, value, n);
	ask(FUSE_SETXATTR, node, (uint32_t)syscall(SYS_gettid), body, len + n);
	memcpy(body, &get, sizeof(get));
	strcpy(body + sizeof(get), name);
	ask(FUSE_GETXATTR, node, (uint32_t)syscall(SYS_gettid), body, sizeof(get) + strlen(name) + 1);
}

static void write_file(uint64_t node, const uint8_t *value, size_t n)
{
	char body[8192];
	struct fuse_open_in open = { .flags = O_RDWR };
	const struct asked *a = answer_of(ask(FUSE_OPEN, node, 1, &open, sizeof(open)), NS_PER_SEC);
	struct fuse_write_in wr = { .size = (uint32_t)n };
	struct fuse_read_in rd = { .size = 4096 };
	struct fuse_release_in re = { 0 };

	if (a == NULL || a->error != 0)
		return;
	re.fh = rd.fh = wr.fh = a->body.open.fh;
	memcpy(body, &wr, sizeof(wr));
	memcpy(body + sizeof(wr), value, n);
	ask(FUSE_WRITE, node, (uint32_t)syscall(SYS_gettid), body, sizeof(wr) + n);
	ask(FUSE_READ, node, 1, &rd, sizeof(rd));
	all_must_be_answered(); /* the kernel releases no file that a request is under way for */
	ask(FUSE_RELEASE, node, 0, &re, sizeof(re));
}

static void play(uint8_t which, const uint8_t *value, size_t n)
{
	static const char *const lists[] = { "system.posix_acl_access", "system.posix_acl_default", "security.capability" };
	uint64_t control = look_up(1, ".promisefs"), node, file = make(1, FUSE_MKNOD, "file"), dir = make(1, FUSE_MKDIR, "dir");
	uint64_t future = make(look_up(control, "future"), FUSE_MKNOD, "future");
	uint64_t targets[] = { file, dir, future, make(look_up(control, "lifetimes"), FUSE_MKDIR, "L") };
	char name[64];

	if (which < 4 * NAMES) {
		snprintf(name, sizeof(name), "user.promisefs.%s", names[which / 4]);
		set_attribute(targets[which % 4], name, value, n);
	} else if (which < 4 * NAMES + 12) {
		set_attribute(targets[which % 2], lists[which % 3], value, n);
	} else if (which < 4 * NAMES + 12 + NAMES) {
		node = look_up(look_up(control, "attributes"), names[which - 4 * NAMES - 12]);
		node = look_up(node, which % 2 ? "file" : "future");
		if (node != 0)
			write_file(node, value, n);
	} else if (which % 2) {
		write_file(look_up(control, "wait-timeout"), value, n);
	} else {
		write_file(look_up(control, "events"), value, n);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > 4096)
		return 0;
	daemon_begin();
	play(data[0], data + 1, size - 1);
	all_must_be_answered();
	daemon_end();
	return 0;
}

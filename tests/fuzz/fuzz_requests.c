/* Requests as a kernel might send them, in any order and with any content: no crash, no leak, each answered once. What a
 * kernel guarantees is kept: names have no slash and are not empty, a file that is used was opened and not released, and it is
 * released when all that came with it was answered.
 *
 * The input is a list of requests: a byte each for what, on which node, with which open file; then what it needs. */
#include "fake_kernel.h"

#include <sys/syscall.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *at;
static size_t left;
static uint64_t nodes[NODES_MAX];
static unsigned node_count;
static struct {
	uint64_t fh, node;
	bool dir;
} files[OPEN_MAX];
static unsigned file_count;

static uint8_t byte(void)
{
	return left > 0 ? left--, *at++ : 0;
}

static uint64_t number(void)
{
	static const uint64_t special[] = { 0, 1, 4096, 65536, 1 << 20, INT64_MAX, UINT64_MAX, 1ULL << 31, 1ULL << 40 };
	uint8_t b = byte();

	return b < 9 ? special[b] : b < 200 ? b : (uint64_t)byte() << (byte() % 60);
}

static uint64_t any_node(void)
{
	uint8_t b = byte();

	return b == 255 ? number() | (uint64_t)byte() << 56 : node_count == 0 ? 1 : nodes[b % node_count];
}

static void learn(uint64_t node)
{
	for (unsigned i = 0; i < node_count; i++)
		if (nodes[i] == node)
			return;
	if (node != 0)
		nodes[node_count < NODES_MAX ? node_count++ : byte() % NODES_MAX] = node;
}

static const char *name(void)
{
	static const char *const known[] = {
		".promisefs", "future", "await", "once", "own", "ref", "mut", "await-ref", "await-mut", "lend", "lifetimes",
		"aborted", "events", "waits", "wait-timeout", "metrics", "README", "attributes", "a", "b", "c", "d", "self",
		"state", "lease", "pid", "publish", ".dir", "evict", "error", "deadline", "lifetime",
	};
	static char own[300];
	uint8_t b = byte();
	size_t n = 0;

	if (b < 200)
		return known[b % (sizeof(known) / sizeof(known[0]))];
	for (size_t len = b == 255 ? 280 : b - 199u; n < len && left > 0; n++) {
		own[n] = (char)byte();
		if (own[n] == '/' || own[n] == '\0')
			own[n] = '_';
	}
	own[n] = '\0';
	return n == 0 || strcmp(own, ".") == 0 || strcmp(own, "..") == 0 ? "e" : own;
}

static const char *attribute(void)
{
	static const char *const known[] = {
		"user.promisefs.lease", "user.promisefs.pid", "user.promisefs.error", "user.promisefs.deadline",
		"user.promisefs.publish", "user.promisefs.lifetime", "user.promisefs.evict", "user.promisefs.state",
		"user.promisefs.sha256", "user.promisefs.owner", "user.a", "system.posix_acl_access",
		"system.posix_acl_default", "security.capability", "trusted.x", "user.promisefs.nothing", "pfs.acl",
	};

	return known[byte() % (sizeof(known) / sizeof(known[0]))];
}

/* A body of a structure and names behind it. */
static char body[20000];
static size_t body_len;

static void put(const void *bytes, size_t n)
{
	if (body_len + n <= sizeof(body)) {
		memcpy(body + body_len, bytes, n);
		body_len += n;
	}
}

static void put_name(const char *text)
{
	put(text, strlen(text) + 1);
}

static void put_value(uint32_t n)
{
	for (; n > 0; n--) {
		char c = (char)byte();

		put(&c, 1);
	}
}

static uint64_t send(uint32_t opcode, uint64_t node)
{
	uint32_t pid = byte() % 4 == 0 ? 0 : (uint32_t)syscall(SYS_gettid);

	return ask(opcode, node, pid, body, body_len);
}

static void makes(uint32_t opcode, uint64_t node, bool opens)
{
	uint64_t unique = send(opcode, node);
	const struct asked *a = unique != 0 ? answer_of(unique, 2 * NS_PER_MS) : NULL;
	struct fuse_open_out open;

	if (a == NULL || a->error != 0)
		return;
	learn(a->body.entry.nodeid);
	if (!opens || file_count == OPEN_MAX)
		return;
	memcpy(&open, a->body.bytes + sizeof(struct fuse_entry_out), sizeof(open));
	files[file_count].fh = open.fh;
	files[file_count].dir = false;
	files[file_count++].node = a->body.entry.nodeid;
}

static void opens(uint32_t opcode)
{
	static const uint32_t flags[] = { O_RDONLY, O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_WRONLY | O_APPEND,
					  O_RDONLY | O_NONBLOCK, O_RDWR | O_APPEND, O_WRONLY | O_NONBLOCK };
	struct fuse_open_in in = { .flags = flags[byte() % 8] };
	uint64_t node = any_node(), unique;
	const struct asked *a;

	put(&in, sizeof(in));
	if (file_count == OPEN_MAX)
		return;
	unique = send(opcode, node);
	a = unique != 0 ? answer_of(unique, 2 * NS_PER_MS) : NULL;
	if (a == NULL || a->error != 0)
		return; /* one that is answered later stays open until the end */
	files[file_count].fh = a->body.open.fh;
	files[file_count].dir = opcode == FUSE_OPENDIR;
	files[file_count++].node = node;
}

static void files_must_be_answered(void)
{
	interrupt(true);
	wait_for_answers(true);
}

static void release(unsigned i)
{
	struct fuse_release_in in = { .fh = files[i].fh };
	struct fuse_flush_in flush = { .fh = files[i].fh };

	files_must_be_answered();
	if (!files[i].dir)
		ask(FUSE_FLUSH, files[i].node, (uint32_t)syscall(SYS_gettid), &flush, sizeof(flush));
	files_must_be_answered();
	ask(files[i].dir ? FUSE_RELEASEDIR : FUSE_RELEASE, files[i].node, 0, &in, sizeof(in));
	files[i] = files[--file_count];
}

static void on_file(uint8_t what)
{
	unsigned i = byte() % file_count;
	struct fuse_read_in rd = { .fh = files[i].fh, .offset = number(), .size = (uint32_t)(number() % 65536) };
	struct fuse_write_in wr = { .fh = files[i].fh, .offset = number() % (1 << 22), .size = byte() % 200u };
	struct fuse_flush_in fl = { .fh = files[i].fh };
	struct fuse_fsync_in sy = { .fh = files[i].fh };
	struct fuse_lseek_in sk = { .fh = files[i].fh, .offset = number(), .whence = byte() % 5u };
	struct fuse_fallocate_in fa = { .fh = files[i].fh, .offset = number() % (1 << 22), .length = number() % (1 << 20),
					.mode = byte() };
	struct fuse_poll_in po = { .fh = files[i].fh, .kh = 1, .flags = 1, .events = byte() };
	struct fuse_setattr_in sa = { .fh = files[i].fh, .valid = FATTR_FH | FATTR_SIZE, .size = number() % (1 << 22) };
	struct fuse_copy_file_range_in cp = { .fh_in = files[i].fh, .nodeid_out = files[0].node, .fh_out = files[0].fh,
					      .len = number() % (1 << 20) };

	if (files[i].dir) {
		put(&rd, sizeof(rd));
		send(what & 1 ? FUSE_READDIR : FUSE_READDIRPLUS, files[i].node);
		return;
	}
	switch (what % 10) {
	case 0: put(&rd, sizeof(rd)); send(FUSE_READ, files[i].node); break;
	case 1: case 2: put(&wr, sizeof(wr)); put_value(wr.size); send(FUSE_WRITE, files[i].node); break;
	case 3: put(&fl, sizeof(fl)); send(FUSE_FLUSH, files[i].node); break;
	case 4: put(&sy, sizeof(sy)); send(FUSE_FSYNC, files[i].node); break;
	case 5: put(&sk, sizeof(sk)); send(FUSE_LSEEK, files[i].node); break;
	case 6: put(&fa, sizeof(fa)); send(FUSE_FALLOCATE, files[i].node); break;
	case 7: put(&po, sizeof(po)); send(FUSE_POLL, files[i].node); break;
	case 8: put(&sa, sizeof(sa)); send(FUSE_SETATTR, files[i].node); break;
	case 9:
		if (!files[0].dir) {
			put(&cp, sizeof(cp));
			send(FUSE_COPY_FILE_RANGE, files[i].node);
		}
		break;
	}
}

static void on_name(uint8_t what)
{
	struct fuse_create_in cr = { .flags = O_CREAT | (byte() % 3u) | (byte() % 2 ? O_TRUNC : 0), .mode = S_IFREG | 0666 };
	struct fuse_mknod_in mn = { .mode = (byte() % 2 ? S_IFREG : S_IFIFO) | 0666 };
	struct fuse_mkdir_in md = { .mode = 0777 };
	struct fuse_rename2_in rn = { .newdir = any_node(), .flags = byte() % 4u };
	struct fuse_link_in ln = { .oldnodeid = any_node() };
	uint64_t node = any_node();

	switch (what % 10) {
	case 0: case 1: put_name(name()); makes(FUSE_LOOKUP, node, false); break;
	case 2: put(&cr, sizeof(cr)); put_name(name()); makes(FUSE_CREATE, node, file_count < OPEN_MAX); break;
	case 3: put(&mn, sizeof(mn)); put_name(name()); makes(FUSE_MKNOD, node, false); break;
	case 4: put(&md, sizeof(md)); put_name(name()); makes(FUSE_MKDIR, node, false); break;
	case 5: put_name(name()); put_name(name()); makes(FUSE_SYMLINK, node, false); break;
	case 6: put(&rn, sizeof(rn)); put_name(name()); put_name(name()); send(FUSE_RENAME2, node); break;
	case 7: put(&ln, sizeof(ln)); put_name(name()); makes(FUSE_LINK, node, false); break;
	case 8: put_name(name()); send(FUSE_UNLINK, node); break;
	case 9: put_name(name()); send(FUSE_RMDIR, node); break;
	}
}

static void on_node(uint8_t what)
{
	struct fuse_getattr_in ga = { 0 };
	struct fuse_setattr_in sa = { .valid = byte() & ~(unsigned)FATTR_FH, .size = number() % (1 << 22), .mode = byte() | 0100000u,
				      .uid = byte(), .gid = byte(), .atime = number(), .mtime = number() };
	struct fuse_setxattr_in sx = { .size = byte(), .flags = byte() % 3u };
	struct fuse_getxattr_in gx = { .size = (uint32_t)(number() % 65536) };
	struct fuse_forget_in fo = { .nlookup = 1 };
	struct fuse_access_in ac = { .mask = byte() & 7u };
	uint64_t node = any_node();

	switch (what % 10) {
	case 0: put(&ga, sizeof(ga)); send(FUSE_GETATTR, node); break;
	case 1: put(&sa, sizeof(sa)); send(FUSE_SETATTR, node); break;
	case 2: case 3:
		put(&sx, FUSE_COMPAT_SETXATTR_IN_SIZE);
		put_name(attribute());
		put_value(sx.size);
		send(FUSE_SETXATTR, node);
		break;
	case 4: put(&gx, sizeof(gx)); put_name(attribute()); send(FUSE_GETXATTR, node); break;
	case 5: put(&gx, sizeof(gx)); send(FUSE_LISTXATTR, node); break;
	case 6: put_name(attribute()); send(FUSE_REMOVEXATTR, node); break;
	case 7: send(FUSE_READLINK, node); break;
	case 8: put(&fo, sizeof(fo)); send(FUSE_FORGET, node); break;
	case 9: put(&ac, sizeof(ac)); send(byte() & 1 ? FUSE_ACCESS : FUSE_STATFS, node); break;
	}
}

static void one_request(void)
{
	uint8_t what = byte();

	body_len = 0;
	if (what < 70)
		on_name(what);
	else if (what < 100)
		opens(what % 6 == 0 ? FUSE_OPENDIR : FUSE_OPEN);
	else if (what < 160 && file_count > 0)
		on_file(what);
	else if (what < 190 && file_count > 0)
		release(byte() % file_count);
	else if (what < 195)
		interrupt(false);
	else
		on_node(what);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	at = data;
	left = size;
	node_count = file_count = 0;
	learn(1);
	daemon_begin();
	for (int i = 0; left > 0 && i < 200; i++)
		one_request();
	interrupt(false);
	while (file_count > 0)
		release(0);
	all_must_be_answered();
	daemon_end();
	return 0;
}

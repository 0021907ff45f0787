/* A daemon without a mount: requests are handed to libfuse from memory, and answers are looked at instead of being
 * written to a device. Each request is answered exactly once, or is one that has no answer; a real store in a temporary
 * directory is behind it. Included by one program; the daemon's set-up is included as it is, for its static functions. */
#include "fs/mount.c"
#include "fs/session.c"

#include <linux/fuse.h>
#include <ftw.h>
#include <time.h>

#define OPEN_MAX 32
#define NODES_MAX 64
#define ASKED_MAX 1024
#define ANSWER_SECONDS 20

static struct fs fuzzed;
static char place[64], where[96];

static pthread_mutex_t asked_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static struct asked {
	uint64_t unique;
	uint32_t opcode;
	bool done;
	bool with_file; /* it came with an open file, which cannot be released before it is answered */
	int error;
	size_t len;
	union {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
		char bytes[sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out)];
	} body;
} asked[ASKED_MAX];
static unsigned asked_count;

static void broken(const char *what, uint64_t unique, uint32_t opcode)
{
	fprintf(stderr, "fake kernel: %s: request %llu, opcode %u\n", what, (unsigned long long)unique, opcode);
	abort();
}

/* Only notifications have no request. */
static ssize_t take_answer(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *h = iov[0].iov_base;
	size_t total = 0, at = 0;
	struct asked *a = NULL;

	for (int i = 0; i < count; i++)
		total += iov[i].iov_len;
	if (h->len != total || h->error > 0 || h->error <= -512) {
		if (h->unique != 0)
			broken("malformed answer", h->unique, 0);
	}
	if (h->unique == 0)
		return (ssize_t)total;
	pthread_mutex_lock(&asked_lock);
	for (unsigned i = 0; a == NULL && i < asked_count; i++)
		if (asked[i].unique == h->unique)
			a = &asked[i];
	if (a == NULL && h->error == -EAGAIN) { /* an INTERRUPT that came too late, which libfuse would have again */
		pthread_mutex_unlock(&asked_lock);
		return (ssize_t)total;
	}
	if (a == NULL)
		broken("an answer that nobody waits for", h->unique, 0);
	if (a->done)
		broken("answered twice", h->unique, a->opcode);
	a->done = true;
	a->error = h->error;
	for (int i = 1; i < count && at < sizeof(a->body); i++) {
		size_t n = iov[i].iov_len < sizeof(a->body) - at ? iov[i].iov_len : sizeof(a->body) - at;

		memcpy(a->body.bytes + at, iov[i].iov_base, n);
		at += n;
	}
	a->len = at;
	pthread_cond_broadcast(&answered);
	pthread_mutex_unlock(&asked_lock);
	return (ssize_t)total;
}

static ssize_t no_requests(int fd, void *buf, size_t len, void *userdata)
{
	errno = ENODEV;
	return -1;
}

static bool may_have_file(uint32_t opcode)
{
	static const uint32_t list[] = { FUSE_READ, FUSE_WRITE, FUSE_FLUSH, FUSE_FSYNC, FUSE_LSEEK, FUSE_FALLOCATE, FUSE_POLL,
					 FUSE_COPY_FILE_RANGE, FUSE_READDIR, FUSE_READDIRPLUS, FUSE_FSYNCDIR, FUSE_SETATTR };

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		if (list[i] == opcode)
			return true;
	return false;
}

static uint64_t ask(uint32_t opcode, uint64_t node, uint32_t pid, const void *body, size_t len)
{
	static uint64_t unique = 2;
	static char buf[1 << 16];
	struct fuse_in_header h = { .len = (uint32_t)(sizeof(h) + len), .opcode = opcode, .unique = unique += 2,
				    .nodeid = node, .pid = pid };
	struct fuse_buf b = { .mem = buf, .size = sizeof(h) + len };
	bool silent = opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT;

	if (b.size > sizeof(buf))
		return 0;
	memcpy(buf, &h, sizeof(h));
	memcpy(buf + sizeof(h), body, len);
	if (!silent) {
		pthread_mutex_lock(&asked_lock);
		if (asked_count == ASKED_MAX) {
			pthread_mutex_unlock(&asked_lock);
			return 0;
		}
		asked[asked_count++] = (struct asked){ .unique = h.unique, .opcode = opcode, .with_file = may_have_file(opcode) };
		pthread_mutex_unlock(&asked_lock);
	}
	fuse_session_process_buf(fuzzed.se, &b);
	return silent ? 0 : h.unique;
}

/* NULL: not yet. seconds: how long to wait. */
static const struct asked *answer_of(uint64_t unique, int64_t ns)
{
	const struct asked *a = NULL;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (until.tv_nsec + ns) / NS_PER_SEC;
	until.tv_nsec = (until.tv_nsec + ns) % NS_PER_SEC;
	pthread_mutex_lock(&asked_lock);
	for (unsigned i = 0; a == NULL && i < asked_count; i++)
		if (asked[i].unique == unique)
			a = &asked[i];
	while (a != NULL && !a->done)
		if (pthread_cond_timedwait(&answered, &asked_lock, &until) == ETIMEDOUT)
			break;
	if (a != NULL && !a->done)
		a = NULL;
	pthread_mutex_unlock(&asked_lock);
	return a;
}

/* Only those that came with an open file, or all. */
static void interrupt(bool with_file)
{
	for (unsigned i = 0; i < asked_count; i++) {
		struct fuse_interrupt_in in = { .unique = asked[i].unique };

		if (asked[i].with_file >= with_file && answer_of(asked[i].unique, 0) == NULL)
			ask(FUSE_INTERRUPT, 0, 0, &in, sizeof(in));
	}
}

static void wait_for_answers(bool with_file)
{
	for (unsigned i = 0; i < asked_count; i++)
		if (asked[i].with_file >= with_file && answer_of(asked[i].unique, ANSWER_SECONDS * NS_PER_SEC) == NULL)
			broken("never answered", asked[i].unique, asked[i].opcode);
}

static void all_must_be_answered(void)
{
	interrupt(false);
	wait_for_answers(false);
}

static void daemon_begin(void)
{
	static const struct fuse_custom_io io = { .writev = take_answer, .read = no_requests };
	struct fuse_init_in init = { .major = 7, .minor = 38, .max_readahead = 1 << 17,
				     .flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ATOMIC_O_TRUNC | FUSE_DO_READDIRPLUS |
					      FUSE_READDIRPLUS_AUTO | FUSE_PARALLEL_DIROPS | FUSE_POSIX_ACL | FUSE_DONT_MASK |
					      FUSE_MAX_PAGES };

	snprintf(place, sizeof(place), "%s/promisefs-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (mkdtemp(place) == NULL)
		abort();
	snprintf(where, sizeof(where), "%s/store", place);
	fuzzed = (struct fs){ .store_fd = -1, .lock_fd = -1, .device = -1 };
	fuzzed.options = (struct fs_options){ .store = where, .mountpoint = place, .passthrough = PASSTHROUGH_OFF };
	fuzzed.options.core = default_options;
	fuzzed.options.core.acls = ACLS_ON;
	fuzzed.options.core.wait_timeout = 50 * NS_PER_MS;
	fuzzed.keeper.fd = -1;
	descriptors_start();
	init_locks(&fuzzed);
	if (open_store_dir(&fuzzed) < 0 || lock_store(&fuzzed) < 0 || workers_new(2, &fuzzed.workers) < 0 ||
	    workers_new(1, &fuzzed.slow) < 0 || workers_new(1, &fuzzed.tellers) < 0 ||
	    workers_new(1, &fuzzed.invalidator) < 0 || timers_new(&fuzzed.timers) < 0 || open_store(&fuzzed) < 0 ||
	    session_new(&fuzzed, &fuzzed.se) < 0)
		abort();
	close(fuzzed.lock_fd);
	if (fuse_session_custom_io(fuzzed.se, &io, open("/dev/null", O_RDWR | O_CLOEXEC)) < 0)
		abort();
	atomic_store(&fuzzed.serving, true);
	asked_count = 0;
	ask(FUSE_INIT, 0, 0, &init, sizeof(init));
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return remove(path);
}

static void daemon_end(void)
{
	close_store(&fuzzed);
	session_free(&fuzzed);
	close(fuzzed.store_fd);
	nftw(place, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

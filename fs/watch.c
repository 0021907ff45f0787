/* What the machine tells: somebody has set the wall clock, a process has ended. One thread waits for all of it. */
#include "fs/descriptors.h"
#include "fs/fs.h"
#include "fs/process.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define RETRY_MS 200
#define ENDED -1 /* which core has not been told yet */
#define LATER -2 /* there was none to be had: it is tried again */

/* A process that something is bound to. */
struct watched {
	struct {
		int64_t pid;
		uint64_t start;
	} key;
	int fd; /* a pidfd, or one of these: */
	UT_hash_handle hh;
};

struct watch {
	struct fs *fs;
	pthread_t thread;
	pthread_mutex_t lock; /* guards `processes`; nothing is taken inside */
	struct watched *processes;
	unsigned later; /* how many of them are to be tried again */
	int epoll, wake, clock;
	bool started;
	atomic_bool stop;
};

/* The first half of what the kernel calls its boot id, a random number. 0: not known. */
uint64_t watch_boot_id(void)
{
	unsigned a = 0, b = 0, c = 0;
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	int n = f != NULL ? fscanf(f, "%8x-%4x-%4x", &a, &b, &c) : 0;

	if (f != NULL)
		fclose(f);
	return n == 3 ? ((uint64_t)a << 32 | b << 16 | c) & INT64_MAX : 0;
}

static void wake(struct watch *w)
{
	const uint64_t one = 1;

	if (write(w->wake, &one, sizeof(one)) < 0)
		perror("promisefs: watch");
}

static int listen_to(struct watch *w, int fd, void *what)
{
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = what };

	return epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

/* Processes */

/* Whoever binds something has one kept for him. */
int watch_identify(const struct caller *who, int32_t pid, uint64_t *start)
{
	int fd = descriptor_for_user((int)syscall(SYS_pidfd_open, pid, 0)), r;

	if (fd < 0)
		return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? -errno : -ESRCH;
	r = process_may_end(who, pid) ? process_identity(pid, fd, start) : -EPERM;
	close(fd);
	return r;
}

static bool lacks_something(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM;
}

static int open_process(int32_t pid, uint64_t start)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0), r;
	uint64_t found;

	if (fd < 0)
		return lacks_something(errno) ? LATER : ENDED;
	r = process_identity(pid, fd, &found);
	if (r == 0 && found == start)
		return fd;
	close(fd);
	return lacks_something(-r) ? LATER : ENDED;
}

/* Locked. */
static void begin_to_watch(struct watch *w, struct watched *p)
{
	p->fd = open_process((int32_t)p->key.pid, p->key.start);
	if (p->fd >= 0 && listen_to(w, p->fd, p) < 0) {
		close(p->fd);
		p->fd = LATER;
	}
	w->later += p->fd == LATER;
}

static void try_again(struct watch *w)
{
	struct watched *p, *tmp;

	pthread_mutex_lock(&w->lock);
	if (w->later > 0) {
		w->later = 0;
		HASH_ITER(hh, w->processes, p, tmp)
			if (p->fd == LATER)
				begin_to_watch(w, p);
	}
	pthread_mutex_unlock(&w->lock);
}

static bool watches_all(struct watch *w)
{
	bool all;

	pthread_mutex_lock(&w->lock);
	all = w->later == 0;
	pthread_mutex_unlock(&w->lock);
	return all;
}

void watch_process(struct watch *w, int32_t pid, uint64_t start)
{
	struct watched *p = calloc(1, sizeof(*p)), *known;

	if (p == NULL)
		return; /* the next start finds it */
	p->key.pid = pid;
	p->key.start = start;
	pthread_mutex_lock(&w->lock);
	HASH_FIND(hh, w->processes, &p->key, sizeof(p->key), known);
	if (known == NULL) {
		begin_to_watch(w, p);
		HASH_ADD(hh, w->processes, key, sizeof(p->key), p);
		if (p->fd < 0)
			wake(w);
		p = NULL;
	}
	pthread_mutex_unlock(&w->lock);
	free(p);
}

/* One that has ended and was not told; NULL: none. It is the caller's. */
static struct watched *take_ended(struct watch *w)
{
	struct watched *p, *tmp;

	pthread_mutex_lock(&w->lock);
	HASH_ITER(hh, w->processes, p, tmp)
		if (p->fd == ENDED)
			break;
	if (p != NULL)
		HASH_DELETE(hh, w->processes, p);
	pthread_mutex_unlock(&w->lock);
	return p;
}

/* False when core could not record it, and is to be told again. */
static bool tell_ended(struct watch *w)
{
	struct watched *p;

	while ((p = take_ended(w)) != NULL) {
		if (store_process_ended(w->fs->store, (int32_t)p->key.pid, p->key.start) < 0) {
			pthread_mutex_lock(&w->lock);
			HASH_ADD(hh, w->processes, key, sizeof(p->key), p);
			pthread_mutex_unlock(&w->lock);
			return false;
		}
		free(p);
	}
	return true;
}

static void has_ended(struct watch *w, struct watched *p)
{
	pthread_mutex_lock(&w->lock);
	close(p->fd); /* which takes it out of the epoll set */
	p->fd = ENDED;
	pthread_mutex_unlock(&w->lock);
}

/* The wall clock: a timer that never fires, but tells when it is set. */

static int watch_clock(struct watch *w)
{
	const struct itimerspec never = { .it_value.tv_sec = INT32_MAX };

	if (timerfd_settime(w->clock, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0)
		return -errno;
	return 0;
}

static void clock_was_set(struct watch *w)
{
	uint64_t n;

	if (read(w->clock, &n, sizeof(n)) < 0 && errno == ECANCELED)
		store_clock_was_set(w->fs->store);
	watch_clock(w);
}

/* The thread */

static void handle(struct watch *w, void *what)
{
	uint64_t n;

	if (what == &w->clock)
		clock_was_set(w);
	else if (what != &w->wake)
		has_ended(w, what);
	else if (read(w->wake, &n, sizeof(n)) < 0)
		perror("promisefs: watch");
}

static void *watch_main(void *arg)
{
	struct watch *w = arg;
	struct epoll_event events[32];
	bool told = tell_ended(w);
	int n;

	while (!atomic_load(&w->stop)) {
		n = epoll_wait(w->epoll, events, 32, told && watches_all(w) ? -1 : RETRY_MS);
		for (int i = 0; i < n; i++)
			handle(w, events[i].data.ptr);
		try_again(w);
		told = tell_ended(w);
	}
	return NULL;
}

struct watch *watch_new(struct fs *fs)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (w == NULL)
		return NULL;
	w->fs = fs;
	pthread_mutex_init(&w->lock, NULL);
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->wake = eventfd(0, EFD_CLOEXEC);
	w->clock = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (w->epoll < 0 || w->wake < 0 || w->clock < 0 || listen_to(w, w->wake, &w->wake) < 0 ||
	    listen_to(w, w->clock, &w->clock) < 0 || watch_clock(w) < 0) {
		watch_free(w);
		return NULL;
	}
	return w;
}

int watch_start(struct watch *w)
{
	int r = pthread_create(&w->thread, NULL, watch_main, w);

	if (r != 0)
		return -r;
	w->started = true;
	pthread_setname_np(w->thread, "watch");
	return 0;
}

void watch_stop(struct watch *w)
{
	if (w == NULL || !w->started)
		return;
	atomic_store(&w->stop, true);
	wake(w);
	pthread_join(w->thread, NULL);
	w->started = false;
}

void watch_free(struct watch *w)
{
	struct watched *p, *tmp;

	if (w == NULL)
		return;
	watch_stop(w);
	HASH_ITER(hh, w->processes, p, tmp) {
		HASH_DELETE(hh, w->processes, p);
		if (p->fd >= 0)
			close(p->fd);
		free(p);
	}
	if (w->epoll >= 0)
		close(w->epoll);
	if (w->wake >= 0)
		close(w->wake);
	if (w->clock >= 0)
		close(w->clock);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* Telling the kernel of names, with a supervisor: in a process of its own.
 *
 * The kernel invalidates a name under its lock of the directory, and waits for that in a way that not even SIGKILL ends.
 * Whoever has the lock may wait for an answer of ours. So a worker that is killed while it tells a name could not end, and
 * nobody else could serve: the answer would never come. Therefore the worker's invalidator has another process tell it, and
 * waits in its own memory.
 *
 * One name at a time, in shared memory: `asked` and `done` count them. Whoever dies on either side leaves them as they are:
 * the next teller does what was asked and not done (again: that is harmless), the next worker waits for it. */
#include "fs/shared.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NOTIFY_INVAL_ENTRY 3

struct notice {
	uint32_t len;
	int32_t error;
	uint64_t unique;
	uint64_t parent;
	uint32_t name_len, flags;
	char name[META_NAME_MAX + 1];
};

static void wait_while(atomic_uint *word, unsigned value)
{
	static const struct timespec limit = { .tv_sec = 1 };

	syscall(SYS_futex, word, FUTEX_WAIT, value, &limit, NULL, 0);
}

static void wake(atomic_uint *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void tell_name(struct fs *fs, uint64_t parent, const char *name)
{
	struct telling_name *t = &fs->shared->telling;
	unsigned done, asked = atomic_load(&t->asked);

	while ((done = atomic_load(&t->done)) != asked) /* of the worker before */
		wait_while(&t->done, done);
	t->parent = parent;
	strcpy(t->name, name);
	atomic_store(&t->asked, ++asked);
	wake(&t->asked);
	while ((done = atomic_load(&t->done)) != asked)
		wait_while(&t->done, done);
}

static void tell(int device, const struct telling_name *t)
{
	struct notice n = { .error = NOTIFY_INVAL_ENTRY, .parent = t->parent, .name_len = (uint32_t)strlen(t->name) };

	strcpy(n.name, t->name);
	n.len = (uint32_t)(offsetof(struct notice, name) + n.name_len + 1);
	if (write(device, &n, n.len) < 0)
		return; /* it has no such name */
}

/* When all others were killed it would keep the connection open, with nobody to answer. */
_Noreturn void teller_main(struct fs *fs, bool (*alone)(void *arg), void *arg)
{
	struct telling_name *t = &fs->shared->telling;
	unsigned asked;

	while (!atomic_load(&fs->shared->over)) {
		asked = atomic_load(&t->asked);
		if (asked == atomic_load(&t->done)) {
			wait_while(&t->asked, asked);
			if (alone(arg))
				break;
			continue;
		}
		tell(fs->device, t);
		atomic_store(&t->done, asked);
		wake(&t->done);
	}
	_exit(0);
}

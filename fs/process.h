/* What /proc tells about the processes that use the mount.
 *
 * Reading /proc/PID/stat, maps or cmdline of a process that is inside exec while it waits for our answer deadlocks both:
 * `status` is read first, and `stat` only of a task that has no memory any more, which exec cannot be. */
#pragma once

#include "core/store.h"

#include <sys/types.h>

/* Name, process id and fate of thread tid. A thread that is not found (0, another PID namespace) is alive. */
void process_look(int32_t tid, struct process *p);

/* Its process id (pid may be NULL) and that of its parent; 0: it has none that we can see. 0 or -ESRCH. Never blocks. */
int process_family(int32_t tid, int32_t *pid, int32_t *parent);

/* What tells this process, of which pidfd is one, from others of its number in this boot. 0 or negative errno. */
int process_identity(int32_t pid, int pidfd, uint64_t *start);
/* May `who` decide that something ends with it? His own processes, and root all. */
bool process_may_end(const struct caller *who, int32_t pid);

/* Does the process of tid have the object, on device dev, open for writing? Sends no request to the mount. */
bool process_holds(int32_t tid, dev_t dev, uint64_t object);
/* The same of any process that we may look at. */
bool process_any_holds(dev_t dev, uint64_t object);

/* What does the process of tid have mapped of it? Blocks while another thread of the process changes its mappings, which
 * may have to wait for an answer of ours: not for a thread that serves requests. */
enum maps process_maps(int32_t tid, dev_t dev, uint64_t object);

/* Does each of these threads' processes have its object open for writing, and no other process any of them? */
bool process_only_these_hold(dev_t dev, const struct holding *h, unsigned n);

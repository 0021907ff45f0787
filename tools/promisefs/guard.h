/* Making something that is to end with a process, so that it is never there without one. */
#pragma once

struct guarded {
	int (*make)(void *arg); /* at once; returns 0 or a negative errno */
	void (*unmake)(void *arg);
	void *arg;
	const char *path;       /* what is made */
	const char *pid;        /* the process that it is bound to then, as in user.promisefs.pid */
};

/* Make it. Returns 0 or a negative errno. */
int guarded_make(const struct guarded *g);

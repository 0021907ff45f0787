/* The supervisor: a process that keeps the connection to the kernel while others serve it, and starts the next when one
 * dies (mount option supervisor=on). See supervisor.c for the processes, shared.h for what they leave to each other. */
#pragma once

struct fs;

struct supervised {
	int (*work)(struct fs *fs, int ready_fd); /* serves until the mount is over; the exit status. Tells ready_fd, -1: nobody */
	int (*took_over)(struct fs *fs); /* the process that is calling is the supervisor now */
	void (*detach)(void); /* from the terminal, once the mount is up; NULL: not at all */
};

/* Returns when the mount is over, with the exit status of the last who served it. */
int supervise(struct fs *fs, const struct supervised *how, int ready_fd);

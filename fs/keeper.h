/* The keeper: a process beside the daemon that keeps the right to mount and to unmount, so that the daemon need not. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct fs;

struct keeper {
	int fd; /* a socket to it; -1: there is none */
	pid_t pid;
};

int keeper_start(struct keeper *k, struct fs *fs); /* before there are threads; 0 or negative errno */
int keeper_mount(struct keeper *k); /* the descriptor of the mount, or a negative errno, which was explained on stderr */
void keeper_unmount(struct keeper *k); /* for everybody at once, whoever uses it; returns when that is done */
void keeper_end(struct keeper *k);

/* What the keeper does when it is told to, for who does it in its place. */
enum { KEEPER_MOUNT = 'm', KEEPER_UNMOUNT = 'u' };
int keeper_answer_mount(struct fs *fs, int socket); /* the descriptor, or a negative errno, both also sent */
void keeper_answer_unmount(int socket); /* says so there */
void keeper_unmount_now(const char *mountpoint);

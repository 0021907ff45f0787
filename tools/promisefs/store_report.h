/* What fsck, gc and backup share: progress on a terminal, and being interrupted. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct offline;

/* From now on SIGINT, SIGTERM and SIGHUP only make store_stopped true. */
void store_catch_signals(void);
bool store_stopped(void *arg);

/* A line on standard error that is written over, when that is a terminal. total 0: nobody knows. */
void store_progress(void *arg, const char *what, uint64_t done, uint64_t total);
void store_progress_end(void);

/* Say what offline.h has left in s. Returns status. */
int store_report(const char *store, const struct offline *s, int status);

/* A number of bytes for people. */
const char *store_size(int64_t bytes, char text[static 24]);

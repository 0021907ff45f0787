/* Data files for tests: two kinds of names in one directory, and faults on demand. */
#pragma once

#include "core/blobs.h"

#include <stdatomic.h>
#include <stdbool.h>

struct test_blobs {
	struct blobs b;
	int dir;
	_Atomic int64_t space; /* what it says is left */
	atomic_int create_fails; /* errno of the next create; 0: none */
	atomic_int copy_fails;
	atomic_bool held; /* a backup needs what is there */
	bool mapped; /* files can be written though everybody has closed them */
	atomic_uint copies, shares, unshares, syncs, sync_alls;
	void (*on_remove)(uint64_t vid); /* called before it is; NULL: nobody cares */
};

/* Uses what is in `path` already. 0 or negative errno. */
int test_blobs_open(const char *path, struct test_blobs *tb);
void test_blobs_close(struct test_blobs *tb);
bool test_blobs_has(struct test_blobs *tb, uint64_t vid, bool published);
unsigned test_blobs_count(struct test_blobs *tb, bool published);

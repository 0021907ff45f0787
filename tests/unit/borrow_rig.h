/* What tests of borrowing share. A handle is named here as the user names it, "ref/R", "mut/M" or "own/X". */
#pragma once

#include "tests/unit/store_rig.h"

#include <fcntl.h>

/* ---- Handles ---- */

uint64_t place_of(const char *handle);
const char *name_of(const char *handle);
enum via via_of(const char *handle);
int look(int32_t tid, const char *handle, struct entry *e);
bool held_as(const char *handle);
/* As the kernel opens a path. */
int open_handle(int32_t tid, const char *handle, int flags, struct handle **h);
void handle_has(const char *handle, const char *text);
struct handle *write_through(int32_t tid, const char *handle, int flags);
void replace_through(const char *handle, const char *text);
int drop(const char *handle);

/* ---- Borrowing ---- */

struct test_borrowing {
	struct borrowing b; /* first */
	struct sync_commit s;
	atomic_uint woken;
	atomic_int result;
};

int begin_borrow(struct test_borrowing *tb, const struct caller *c, uint64_t node, const char *handle, bool queue);
int borrow_as(const struct caller *c, uint64_t node, const char *handle);
int borrow(const char *key, const char *handle);
/* In the queue: what it has got is a handle whose turn comes later. */
bool in_line(const char *handle);
bool has_turn(const char *handle);
int queue_as(const struct caller *c, uint64_t node, const char *handle);
/* Joins the queue. */
void queue(int32_t tid, const char *key, const char *handle);
/* Opens a handle that is in line, and waits with it. */
uint64_t wait_for_turn(struct test_waiter *tw, int32_t tid, const char *handle, int flags);
bool woken_with(struct test_borrowing *tb, int r);
bool handle_attribute_is(const char *handle, const char *attribute, const char *value);
int handle_attribute(const char *handle, const char *attribute);
int set_handle_attribute(const char *handle, const char *attribute, const char *value);
int open_key(const char *key, int flags);
int move(const char *key, const char *to);

/* What the next process of the same store needs of this one: open files, what they have open, and what threads were
 * promised, in memory that outlives the process.
 *
 * The structs of core themselves are in that memory (handles, versions, objects, intents ...), at the same address in
 * every process, so nothing is written twice. A slot counts once it is live, by one store, when all of it has been
 * filled in; it ends by one store. What belongs together in the catalog is believed by the catalog, which, with its
 * redo region (meta/redo.h), is that of the moment of death: whether a version is a draft or current, closed, whether
 * its object is gone. What follows from the rest (lists, counts, pointers) is made anew. See adopt.c.
 *
 * A front end does this, in the next process:
 *   1. meta_sqlite_open_redo, store_open_all with `kept` in the options: everything is adopted, what was being
 *      released is;
 *   2. for each handle (store_adopted_each) its own state is made again, from handle_front;
 *   3. has requests sent again that were not answered. For each of those, before anything else, store_resent. A
 *      request that opens finds its handle with store_claim, if it got as far as that, and is answered with it;
 *      otherwise it is done anew. Handles of requests that do not come again were answered: a request is sent again
 *      until it was. (So nothing is let go when all have come, and store_adoption_over only forgets which requests
 *      there were.) A request that opens for its own length only (truncate(2) of a path) claims its handle, too, and
 *      goes on with it, or releases it.
 *   4. other requests that were done (redo_was_done) are answered by what is there now.
 * A release is answered after store_release; one that comes again for a number that is not there any more has been
 * done.
 *
 * Not kept, and so lost: extended attributes that were set on what has no name any more; in which order those came
 * who wait for a one-time object. A handle that cannot be adopted (its file cannot be opened) is not there. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct caller;
struct handle;
struct kept;
struct store;

#define HANDLE_FRONT 128

/* Shared by all processes that are forked from now on, for as many handles; opening more is ENFILE. Memory is taken
 * as it is used. NULL: there is none. One process at a time uses it. */
struct kept *kept_new(unsigned handles_max);
void kept_free(struct kept *k);

/* Tells a handle from all others that there ever were, in whatever process; never 0. 0: nothing is kept. */
uint64_t handle_number(const struct handle *h);
/* HANDLE_FRONT bytes for the front end's own, aligned as for uint64_t, zero at first; kept. Also there when nothing
 * is kept. */
void *handle_front(struct handle *h);

/* NULL: it is not there (any more). */
struct handle *store_adopted(struct store *st, uint64_t number);
/* Calls fn for each handle there is; before requests are served. */
void store_adopted_each(struct store *st, void (*fn)(void *arg, struct handle *h), void *arg);
/* The handle that was made for that request, by redo_request, in whatever process, if it was not said to be answered.
 * With O_TRUNC the draft is emptied (again). NULL: none. */
struct handle *store_claim(struct store *st, uint64_t request);
/* Its request was answered, or has failed. */
void handle_answered(struct handle *h);
/* This request of `who` is being sent again: what it had promised his thread before it could be answered is
 * forgotten. Call before store_claim and store_open. */
void store_resent(struct store *st, const struct caller *who, uint64_t request);
void store_adoption_over(struct store *st);

/* Redo: what was answered and is not committed yet survives the death of the process.
 *
 * The catalog commits in groups and later (see sqlite_transaction.c), so after the death of the process that has it
 * open it is older than what was answered. With a redo region, memory that outlives the process, every change of an
 * operation is also written there, the end of the operation makes it valid, and whoever opens the catalog next with
 * that region does the valid ones again. Its catalog is then exactly that of the moment of death: all operations that
 * had ended, and nothing of the one that was under way.
 *
 *  where it dies                            changes in the region   number in the catalog   the next one
 *  in an operation                          not valid               that of the region      forgets these
 *  after its end, before the commit         valid                   that of the region      does them again
 *  after the commit, before it is told so   valid                   the one after           forgets them: it has them
 *  after that                               none                    that of the region      -
 *
 * The region holds statements by their numbers, so it belongs to processes of one program, forked from each other.
 *
 * Power loss takes the region along, and what was not durable with it, as without.
 *
 * One process at a time has a region in use. It needs no lock of its own: what belongs to the catalog is guarded by
 * that; the table of requests is changed by single stores. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct redo;

/* Shared by all processes that are forked from now on. NULL: no memory. */
struct redo *redo_new(void);
void redo_free(struct redo *r);

/* Which request the operations of this thread are for from now on; 0: none. A request is any number but 0 that is not
 * used again before it was answered. */
void redo_request(uint64_t request);
uint64_t redo_requested(void);

/* Has an operation for that request ended that changed records? Then a request that comes again because nobody has
 * answered it has been done, at least its first part: what is done in several operations has to be looked at more
 * closely. Stays so until it was answered. */
int redo_was_done(struct redo *r, uint64_t request);
void redo_answered(struct redo *r, uint64_t request);

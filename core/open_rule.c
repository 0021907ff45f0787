#include "core/open_rule.h"

/*  object   node      reading                                    writing
 *  PENDING  current   wait                                       draft
 *  WRITING  current   wait; its own writers: draft               draft; while sealed: wait for the close
 *  FAILED   current   fail; its own writers: draft               draft; while sealed: wait for the close
 *  READY    current   this; its own writers: look up the draft;  look up the draft (begins one); while
 *                     while sealed: wait for the close           sealed: wait for the close
 *  READY    draft     its own writers: draft; others: look up;   draft; while sealed: wait for the close
 *                     while sealed: wait for the close
 *  READY    live      this                                       in place
 *  READY    outdated  look up                                    as current
 *  other    outdated  as current                                 look up
 *  gone     draft     its own writers: draft; others: look up    draft
 *  gone     aborted   look up                                    look up
 *  gone     other     this                                       look up
 *
 * "Its own writers": processes that have a descriptor of the draft for writing, or have closed that and have only a mapping
 * of it left, which keeps the draft unfinished until munmap(2) (waiter.maps; without kernel passthrough only).
 *
 * "Wait for the close": FLUSH has answered close(2), RELEASE is on its way. Whoever comes now must see what was
 * closed. It is not waited for long, since a descriptor inherited by another process can hold RELEASE up. */

static enum open_verdict own_or(const struct open_question *q, enum open_verdict own, enum open_verdict other)
{
	if (!q->drafting || q->holds == HOLDS_NO)
		return other;
	return q->holds == HOLDS_YES ? own : OPEN_ASK_HOLDS;
}

static bool closing(const struct open_question *q)
{
	return q->sealed && q->patient;
}

static enum open_verdict read_ready(const struct open_question *q)
{
	if (q->live)
		return OPEN_THIS;
	if (closing(q))
		return OPEN_WAIT_CLOSE;
	if (q->standing == NODE_DRAFT)
		return own_or(q, OPEN_DRAFT, OPEN_LOOK_UP);
	return own_or(q, OPEN_LOOK_UP_DRAFT, OPEN_THIS);
}

static enum open_verdict read_rule(const struct open_question *q)
{
	if (q->gone && q->aborted)
		return OPEN_LOOK_UP;
	if (q->gone)
		return q->is_draft ? own_or(q, OPEN_DRAFT, OPEN_LOOK_UP) : OPEN_THIS;
	if (q->state == OBJECT_READY && q->standing != NODE_OUTDATED)
		return read_ready(q);
	switch (q->state) {
	case OBJECT_PENDING:
		return OPEN_WAIT;
	case OBJECT_WRITING:
		return own_or(q, OPEN_DRAFT, OPEN_WAIT);
	case OBJECT_FAILED:
		return own_or(q, OPEN_DRAFT, OPEN_FAILED);
	default:
		return OPEN_LOOK_UP;
	}
}

static enum open_verdict write_rule(const struct open_question *q)
{
	if (q->gone)
		return q->is_draft ? OPEN_DRAFT : OPEN_LOOK_UP;
	if (q->standing == NODE_OUTDATED && (q->state != OBJECT_READY || q->live))
		return OPEN_LOOK_UP;
	if (q->state == OBJECT_READY && q->live)
		return OPEN_IN_PLACE;
	if (closing(q))
		return OPEN_WAIT_CLOSE;
	if (q->state == OBJECT_READY && q->standing != NODE_DRAFT)
		return OPEN_LOOK_UP_DRAFT;
	return OPEN_DRAFT;
}

enum open_verdict open_rule(const struct open_question *q)
{
	return q->write ? write_rule(q) : read_rule(q);
}

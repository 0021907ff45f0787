#include "core/draft_rule.h"

/*                      replacement   new, a future           new, plain
 *  object gone         drop          drop                    drop
 *  a write failed      drop          fail                    remove
 *  nothing was opened  drop          pend                    remove
 *  nothing changed     drop          publish                 publish
 *  killed              drop, keep    fail or pend, keep      remove, keep
 *  killed, fsynced     publish       fail or pend, keep      publish
 *  closed              publish       publish                 publish
 */

static bool torn(const struct draft_question *q)
{
	return q->killed && !(q->fsynced && (q->replaces || !q->declared));
}

static bool broken(const struct draft_question *q)
{
	return q->error != 0 || !q->has_data || torn(q);
}

enum draft_verdict draft_rule(const struct draft_question *q)
{
	if (q->gone)
		return DRAFT_DROP;
	if (q->replaces)
		return broken(q) || q->unchanged ? DRAFT_DROP : DRAFT_PUBLISH;
	if (!broken(q))
		return DRAFT_PUBLISH;
	if (!q->declared)
		return DRAFT_REMOVE;
	if (q->error != 0)
		return DRAFT_FAIL;
	return !q->has_data || q->death_waits ? DRAFT_PEND : DRAFT_FAIL;
}

bool draft_keeps_bytes(const struct draft_question *q)
{
	return !q->gone && q->error == 0 && q->has_data && !q->unchanged && torn(q);
}

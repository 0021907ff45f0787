/* Numbers of names that the kernel must not count wrongly. When it has the answer to unlink(2), or to a rename(2)
 * that replaces something, it takes one off the number that it has then. If somebody was told the new number in
 * between, that is one too few: 0 of a file that has a name, which link(2) then refuses. And it counts at the node that
 * the name had for it, which may be of an older version than the one that others have open.
 *
 * So, before the change is answered, the kernel is told to forget how the current version looks; and for a moment
 * nothing that is said of it is kept: whoever is asked for it makes the kernel forget once more (`recounted` of an
 * entry), by which that knows his own answer for too old to be remembered. The kernel gives it to whoever asked all
 * the same. */
#include "core/internal.h"

#define MOMENT_NS 1000000000LL /* until the kernel has certainly heard the answer */

/* What is told before the answer. */
static void forget_first(struct op *op, uint64_t node)
{
	struct aftermath *a = op_after(op);

	for (unsigned i = 0; a != NULL && i < FORGOTTEN_MAX; i++) {
		if (a->forgotten[i] == 0) {
			a->forgotten[i] = node;
			return;
		}
	}
}

void op_recounts(struct op *op, const struct meta_object *o)
{
	struct recounts *rc = &op->st->recounts;

	rc->nodes[rc->next++ % RECOUNTS_MAX] = o->vid;
	rc->until = timers_now() + MOMENT_NS;
	if (op->st->kept != NULL) /* whoever comes after us knows of that, and of `forgotten` nothing */
		op->st->hooks.forget(op->st->hooks_arg, o->vid);
	forget_first(op, o->vid);
}

void op_recounts_dir(struct op *op, uint64_t dir)
{
	forget_first(op, dir);
}

bool is_recounted(struct store *st, uint64_t node)
{
	struct recounts *rc = &st->recounts;
	bool found = false;

	if (rc->until == 0)
		return false;
	if (timers_now() > rc->until) {
		*rc = (struct recounts){ 0 };
		return false;
	}
	for (unsigned i = 0; !found && i < RECOUNTS_MAX; i++)
		found = rc->nodes[i] == node;
	return found;
}

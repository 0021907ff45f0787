#include "core/borrow_rule.h"
#include "meta/meta.h"

#include <errno.h>

/*                        not borrowed   by refs    by one mut
 *  owner      read       yes            yes        EBUSY
 *             write      yes            EBUSY      EBUSY
 *             evict      yes            EBUSY      EBUSY
 *             ref        yes            yes        EBUSY
 *             mut        yes            EBUSY      EBUSY
 *  once       read       as evict: that is what it does
 *  ref        read       ESTALE         yes        ESTALE
 *             write      EACCES
 *  mut        read       ESTALE         ESTALE     yes
 *             write      ESTALE         ESTALE     yes
 *  ref, mut   the rest   EPERM: only owners are borrowed, and only owners evict
 *
 * A lifetime, a lease or a process that ends does not ask: the names go at once, and the object when the last borrow is
 * dropped. */

static int owner_rule(int64_t borrows, enum act act)
{
	if (borrows == 0)
		return 0;
	if (borrows == BORROWED_MUT)
		return -EBUSY;
	return act == ACT_READ || act == ACT_BORROW_REF ? 0 : -EBUSY;
}

int borrow_rule(int64_t borrows, enum via via, enum act act)
{
	switch (via) {
	case VIA_OWNER:
		return owner_rule(borrows, act);
	case VIA_ONCE:
		return owner_rule(borrows, act == ACT_READ ? ACT_EVICT : act);
	case VIA_REF:
		if (act == ACT_WRITE)
			return -EACCES;
		if (act == ACT_READ)
			return borrows > 0 ? 0 : -ESTALE;
		return -EPERM;
	case VIA_MUT:
		if (act == ACT_READ || act == ACT_WRITE)
			return borrows == BORROWED_MUT ? 0 : -ESTALE;
		return -EPERM;
	}
	return -EPERM;
}

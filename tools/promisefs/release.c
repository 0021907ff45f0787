/* release: unlink(2) of handles, and of nothing else. */
#include "handle.h"
#include "verbs.h"

#include <errno.h>
#include <unistd.h>

int verb_release(const struct args *a)
{
	int status = EXIT_DONE;

	for (int i = 0; i < a->count; i++) {
		struct key k;
		int r = handle_find(a, a->words[i], &k);

		if (r == 0) {
			r = unlink(k.path) < 0 ? handle_report(&k, errno) : EXIT_DONE;
			key_finish(&k);
		}
		status = r != 0 ? r : status;
	}
	return status;
}

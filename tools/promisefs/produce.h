/* What a command produces: it writes a file in own/, which becomes the key when it has succeeded. Meanwhile the key is
 * a future, so that others can wait for it. */
#pragma once

#include "handle.h"

#include <time.h>

struct product {
	struct handle handle; /* bound to this process, not to the command: when that has ended, it is needed */
	char *id;             /* of the empty file that was made */
	struct timespec mtime;
	bool declared; /* we did that */
	bool bound;    /* the future is, to this process: it fails when we are killed */
};

/* Make the file and the future. Returns 0 or an exit status after saying why not; nothing is left then. */
int product_begin(struct product *p, const struct key *k);

/* The command has ended: what it wrote becomes the key, or, when there is a failure, is dropped. Returns an exit
 * status. */
int product_end(struct product *p, const char *failure);

/* The command was not started. */
void product_undo(struct product *p);

void product_finish(struct product *p);

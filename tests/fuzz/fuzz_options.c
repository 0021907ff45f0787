/* Mount options: the text behind -o. */
#include "core/store.h"
#include "fs/mount.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	struct store_options o;

	if (pfs_core_options(text, &o) == 0 && o.wait_timeout < -1)
		abort();
	free(text);
	return 0;
}

/* The data files of a store, in a directory: drafts/HEX16 while they are written, data/XX/HEX16 once published, where
 * HEX16 is the version id and XX its last byte. No name that a user gives is ever part of a path here. */
#pragma once

#include "core/blobs.h"

/* store_fd: the store's directory, stays the caller's. Makes the directories that are missing. 0 or negative errno. */
int blob_dir_open(int store_fd, struct blobs **ret);
void blob_dir_close(struct blobs *b);

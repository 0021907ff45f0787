/* The data files of a store, in a directory: drafts/HEX16 while they are written, data/XX/HEX16 once published, where
 * HEX16 is the version id and XX its last byte. No name that a user gives is ever part of a path here. */
#pragma once

#include "core/blobs.h"

/* store_fd: the store's directory, stays the caller's. Makes the directories that are missing. 0 or negative errno. */
int blob_dir_open(int store_fd, struct blobs **ret);
void blob_dir_close(struct blobs *b);

/* The same without making anything: -ENOENT when a directory is missing. */
int blob_dir_look(int store_fd, struct blobs **ret);
/* Where set_aside moves files to; the descriptor stays the caller's. */
void blob_dir_keep_in(struct blobs *b, int keep_fd);
/* Until hold is closed no file that is there now goes away (but drafts that are given up). Returns hold, or a negative errno. */
int blob_dir_hold(int store_fd);

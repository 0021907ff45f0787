/* A directory for the length of a test. */
#pragma once

/* Makes a directory, whose path is to be given to scratch_remove. NULL when it cannot. */
char *scratch_make(void);
void scratch_remove(char *dir); /* with all that is in it; frees dir */
/* dir/name, in one of a few buffers that are used in turn. */
const char *scratch_path(const char *dir, const char *name);

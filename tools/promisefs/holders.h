/* Who uses a mount: found in /proc by the names of what processes have open, and for those who wait for a key, in the
 * mount's own list. */
#pragma once

/* Text such as `bash (pid 12), tail (pid 40)`, at most five of them; NULL when none was found. */
char *holders_of(const char *mountpoint);

/* Closing a file as if its process had been killed, while this process goes on. */
#pragma once

/* In this file system an ordinary close counts, and so does every kind of exit; only the death of the last user by a
 * signal does not: a draft is not published then, and what was taken through once/ goes back. So the descriptor is
 * handed to a child, closed here, and the child is killed with the file open. */
void abandon(int fd);

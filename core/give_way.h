/* Long work in the background that nobody waits for, and its manners. */
#pragma once

/* Between two steps of it, each of some microseconds: sleeps for a moment whenever the thread has worked for half a
 * millisecond. Without locks. */
void give_way(void);

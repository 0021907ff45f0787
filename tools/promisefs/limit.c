#include "limit.h"

#include "core/parse.h"

#include <signal.h>
#include <stddef.h>
#include <sys/time.h>

static volatile sig_atomic_t passed;

static void on_alarm(int sig)
{
	passed = 1;
}

/* The signal is repeated: the first one may come before the call has begun. */
void limit_start(int64_t ns)
{
	struct sigaction act = { .sa_handler = on_alarm };
	struct itimerval t = { .it_interval = { .tv_usec = 20000 } };

	if (ns < 0)
		return;
	t.it_value.tv_sec = ns / NS_PER_SEC;
	t.it_value.tv_usec = ns % NS_PER_SEC / 1000;
	if (t.it_value.tv_sec == 0 && t.it_value.tv_usec == 0)
		t.it_value.tv_usec = 1;
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &t, NULL);
}

void limit_stop(void)
{
	struct itimerval none = { 0 };

	setitimer(ITIMER_REAL, &none, NULL);
}

bool limit_passed(void)
{
	return passed != 0;
}

void limit_pass(void)
{
	passed = 1;
}

#include "store_report.h"

#include "fs/offline.h"
#include "report.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t caught;
static bool shown;

static void on_signal(int sig)
{
	caught = 1;
}

void store_catch_signals(void)
{
	struct sigaction act = { .sa_handler = on_signal };

	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGHUP, &act, NULL);
}

bool store_stopped(void *arg)
{
	return caught != 0;
}

/* Ten times a second. */
void store_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	static int64_t last;
	static int terminal = -1;
	struct timespec now;

	if (terminal < 0)
		terminal = isatty(STDERR_FILENO);
	if (!terminal)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec * 10 + now.tv_nsec / 100000000 == last)
		return;
	last = now.tv_sec * 10 + now.tv_nsec / 100000000;
	if (total != 0)
		fprintf(stderr, "\r\033[K%s: %llu of %llu", what, (unsigned long long)done, (unsigned long long)total);
	else if (done != 0)
		fprintf(stderr, "\r\033[K%s: %llu", what, (unsigned long long)done);
	else
		fprintf(stderr, "\r\033[K%s", what);
	fflush(stderr);
	shown = true;
}

void store_progress_end(void)
{
	if (shown)
		fputs("\r\033[K", stderr);
	shown = false;
}

int store_report(const char *store, const struct offline *s, int status)
{
	store_progress_end();
	report(store, s->advice, "%s", s->error);
	return status;
}

const char *store_size(int64_t bytes, char text[static 24])
{
	static const char units[] = " KMGTPE";
	double n = (double)bytes;
	int unit = 0;

	while (n >= 1024 && units[unit + 1] != '\0') {
		n /= 1024;
		unit++;
	}
	if (unit == 0)
		snprintf(text, 24, "%lld bytes", (long long)bytes);
	else
		snprintf(text, 24, "%.1f %ciB", n, units[unit]);
	return text;
}

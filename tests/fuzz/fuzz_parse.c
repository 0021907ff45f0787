/* Durations, times, sizes and names of errnos: what is read is written so that it reads the same. */
#include "core/parse.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int good)
{
	if (!good)
		abort();
}

static void durations(const char *text)
{
	int64_t ns, again;
	char written[32];

	if (parse_duration(text, &ns) < 0)
		return;
	require(ns >= 0 && ns <= INT64_MAX / 2);
	format_duration(ns, written);
	require(parse_duration(written, &again) == 0 && again == ns);
}

static void times(const char *text)
{
	int64_t ns, again;
	char written[40];

	if (parse_time(text, &ns) < 0)
		return;
	format_time(ns, written);
	require(parse_time(written, &again) == 0 && again == ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	const char *name;
	uint64_t bytes;
	int e;

	memcpy(text, data, size);
	text[size] = '\0';
	durations(text);
	times(text);
	parse_size(text, &bytes);
	e = errno_by_name(text, size);
	name = e != 0 ? errno_name(e) : NULL;
	require(e == 0 || (name != NULL && errno_by_name(name, strlen(name)) == e));
	free(text);
	return 0;
}

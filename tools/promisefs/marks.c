#include "marks.h"

#include "report.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int marks_count(char **words, int count)
{
	int n = 0;

	for (int i = 0; i < count; i++)
		for (const char *at = words[i]; (at = strstr(at, "{}")) != NULL; at += 2)
			n++;
	return n;
}

static bool is_name(const struct mark *m, const char *name, size_t len)
{
	return m->name != NULL && strlen(m->name) == len && memcmp(m->name, name, len) == 0;
}

/* What stands for the mark of that name, NULL: it is none. `next` is for those without a name. */
static const char *path_of(const struct marks *m, const char *name, size_t len, int *next)
{
	if (len == 0 && m->count == 1)
		return m->list[0].path;
	if (len == 0)
		return *next < m->count ? m->list[(*next)++].path : NULL;
	for (int i = 0; i < m->count; i++)
		if (is_name(&m->list[i], name, len))
			return m->list[i].path;
	return is_name(&m->other, name, len) ? m->other.path : NULL;
}

/* From left to right, and never in what has been put there. */
static char *replaced(const struct marks *m, const char *word, int *next)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (f == NULL)
		out_of_memory();
	while (*word != '\0') {
		const char *end = *word == '{' ? strchr(word, '}') : NULL;
		const char *path = end != NULL ? path_of(m, word + 1, (size_t)(end - word - 1), next) : NULL;

		if (path == NULL) {
			fputc(*word++, f);
			continue;
		}
		fputs(path, f);
		word = end + 1;
	}
	if (fclose(f) != 0 || text == NULL)
		out_of_memory();
	return text;
}

char **marks_replace(const struct marks *m, char **words, int count)
{
	char **all = calloc((size_t)count + 1, sizeof(*all));
	int next = 0;

	if (all == NULL)
		out_of_memory();
	for (int i = 0; i < count; i++)
		all[i] = replaced(m, words[i], &next);
	return all;
}

static void export_as(const char *name, const char *path)
{
	char *variable = NULL;

	if (asprintf(&variable, "PROMISEFS_%s", name) < 0)
		out_of_memory();
	for (char *p = variable; *p; p++)
		*p = (char)toupper((unsigned char)*p);
	if (setenv(variable, path, 1) < 0)
		out_of_memory();
	free(variable);
}

void marks_export(const struct marks *m)
{
	for (int i = 0; i < m->count; i++) {
		char number[16];

		snprintf(number, sizeof(number), "%d", i + 1);
		export_as(number, m->list[i].path);
		if (m->list[i].name != NULL)
			export_as(m->list[i].name, m->list[i].path);
	}
	if (m->other.path != NULL)
		export_as(m->other.name, m->other.path);
}

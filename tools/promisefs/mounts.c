#include "mounts.h"

#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* mountinfo writes space, tab, newline and backslash as \ooo. In place. */
static char *unescape(char *s)
{
	char *out = s;

	for (char *p = s; *p;) {
		if (*p == '\\' && strspn(p + 1, "01234567") >= 3) {
			*out++ = (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0'));
			p += 4;
		} else {
			*out++ = *p++;
		}
	}
	*out = '\0';
	return s;
}

/* ID PARENT DEV ROOT POINT OPTIONS [TAG]... - TYPE SOURCE SUPEROPTIONS; the row points into the line. */
static bool parse_row(char *line, struct mount_row *m)
{
	char *rest = strstr(line, " - "), *save = NULL;

	if (rest == NULL)
		return false;
	*rest = '\0';
	m->point = strtok_r(line, " ", &save);
	for (int i = 0; i < 4 && m->point != NULL; i++)
		m->point = strtok_r(NULL, " ", &save);
	m->type = strtok_r(rest + 3, " ", &save);
	m->source = strtok_r(NULL, " ", &save);
	if (m->point == NULL || m->type == NULL || m->source == NULL)
		return false;
	unescape(m->point);
	unescape(m->source);
	return true;
}

int mounts_walk(int (*fn)(void *arg, const struct mount_row *m), void *arg)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;
	int r = 0;

	while (f != NULL && r == 0 && getline(&line, &size, f) > 0) {
		struct mount_row m;

		if (parse_row(line, &m))
			r = fn(arg, &m);
	}
	free(line);
	if (f != NULL)
		fclose(f);
	return r;
}

struct search {
	const char *point;
	struct mount_row *found;
};

static char *copy_of(const char *s)
{
	char *copy = strdup(s);

	if (copy == NULL)
		out_of_memory();
	return copy;
}

/* Later rows lie on top of earlier ones. */
static int take_match(void *arg, const struct mount_row *m)
{
	struct search *s = arg;

	if (strcmp(m->point, s->point) != 0)
		return 0;
	mount_finish(s->found);
	*s->found = (struct mount_row){ copy_of(m->point), copy_of(m->type), copy_of(m->source) };
	return 0;
}

bool mount_at(const char *point, struct mount_row *m)
{
	struct search s = { point, m };

	*m = (struct mount_row){ 0 };
	mounts_walk(take_match, &s);
	return m->point != NULL;
}

void mount_finish(struct mount_row *m)
{
	free(m->point);
	free(m->type);
	free(m->source);
	*m = (struct mount_row){ 0 };
}

bool mount_is_promisefs(const struct mount_row *m)
{
	return strcmp(m->type, "fuse.promisefs") == 0;
}

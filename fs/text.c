#include "core/parse.h"
#include "fs/fs.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(struct text *t, size_t more)
{
	size_t capacity = t->capacity == 0 ? 512 : t->capacity;
	char *at;

	while (capacity < t->len + more + 1)
		capacity *= 2;
	if (capacity == t->capacity)
		return true;
	at = realloc(t->at, capacity);
	if (at == NULL) {
		t->failed = true;
		return false;
	}
	t->at = at;
	t->capacity = capacity;
	return true;
}

void text_add(struct text *t, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n < 0 || !reserve(t, (size_t)n))
		return;
	va_start(args, format);
	vsnprintf(t->at + t->len, (size_t)n + 1, format, args);
	va_end(args);
	t->len += (size_t)n;
}

/* The length of the UTF-8 sequence at s, 0 when there is none. */
static int utf8_length(const unsigned char *s)
{
	int n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;

	for (int i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

void text_json(struct text *t, const char *bytes)
{
	const unsigned char *s = (const unsigned char *)bytes;

	text_add(t, "\"");
	while (*s != '\0') {
		int n = utf8_length(s);

		if (*s == '"' || *s == '\\')
			text_add(t, "\\%c", *s);
		else if (n == 0)
			text_add(t, "\\udc%02x", *s); /* as Python's surrogateescape */
		else if (*s < 0x20)
			text_add(t, "\\u%04x", *s);
		else
			text_add(t, "%.*s", n, (const char *)s);
		s += n > 0 ? n : 1;
	}
	text_add(t, "\"");
}

void text_event(struct text *t, const struct meta_event *e)
{
	char when[40];

	format_time(e->at, when);
	text_add(t, "{\"id\":%llu,\"time\":\"%s\",\"event\":\"%s\",\"key\":", (unsigned long long)e->id, when, e->kind);
	text_json(t, e->key);
	text_add(t, ",\"object\":%llu,\"version\":%llu,\"pid\":%d,\"uid\":%u,\"command\":", (unsigned long long)e->object,
		 (unsigned long long)e->version, e->pid, e->uid);
	text_json(t, e->command);
	if (e->detail != NULL) {
		text_add(t, ",\"detail\":");
		text_json(t, e->detail);
	}
	text_add(t, "}\n");
}

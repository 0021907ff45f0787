#include "json.h"

#include "report.h"

#include <stdlib.h>
#include <string.h>

/* Length of the valid UTF-8 sequence at p, 0 when it is none (overlong forms, surrogates and beyond U+10FFFF too). */
static size_t utf8_length(const unsigned char *p)
{
	size_t n = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f))
		return 0;
	if ((*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

static void write_string(FILE *f, const char *s)
{
	const unsigned char *p = (const unsigned char *)s;

	fputc('"', f);
	while (*p) {
		size_t n = utf8_length(p);

		if (n == 0)
			fprintf(f, "\\udc%02x", *p);
		else if (*p == '"' || *p == '\\')
			fprintf(f, "\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			fprintf(f, "\\u%04x", *p);
		else
			fwrite(p, 1, n, f);
		p += n ?: 1;
	}
	fputc('"', f);
}

static void begin_member(struct json *j, const char *name)
{
	if (j->more)
		fputc(',', j->f);
	j->more = true;
	if (name == NULL)
		return;
	write_string(j->f, name);
	fputc(':', j->f);
}

void json_open(struct json *j, const char *name, char bracket)
{
	begin_member(j, name);
	fputc(bracket, j->f);
	j->more = false;
}

void json_close(struct json *j, char bracket)
{
	fputc(bracket, j->f);
	j->more = true;
}

void json_end_line(struct json *j)
{
	json_close(j, '}');
	fputc('\n', j->f);
	j->more = false;
}

void json_string(struct json *j, const char *name, const char *value)
{
	begin_member(j, name);
	if (value != NULL)
		write_string(j->f, value);
	else
		fputs("null", j->f);
}

void json_integer(struct json *j, const char *name, int64_t value)
{
	begin_member(j, name);
	fprintf(j->f, "%lld", (long long)value);
}

void json_bool(struct json *j, const char *name, bool value)
{
	begin_member(j, name);
	fputs(value ? "true" : "false", j->f);
}

static const char *skip_space(const char *p)
{
	return p + strspn(p, " \t\r\n");
}

/* Behind the string that begins at p (a quotation mark). */
static const char *skip_string(const char *p)
{
	for (p++; *p && *p != '"'; p++)
		if (*p == '\\' && p[1])
			p++;
	return *p ? p + 1 : p;
}

/* Behind the value that begins at p. */
static const char *skip_value(const char *p)
{
	int depth = 0;

	if (*p == '"')
		return skip_string(p);
	while (*p) {
		if (*p == '{' || *p == '[')
			depth++;
		else if (depth == 0 && strchr(",}] \t\r\n", *p))
			break;
		else if (*p == '}' || *p == ']')
			depth--;
		p = *p == '"' ? skip_string(p) : p + 1;
	}
	return p;
}

static unsigned hex4(const char *p)
{
	char digits[5] = { 0 };

	strncpy(digits, p, 4);
	return (unsigned)strtoul(digits, NULL, 16);
}

/* One code point as UTF-8. An escape for \udc80 to \udcff is the byte that it stands for; so is \u0080 to \u00ff, for
 * nobody here escapes what is valid. */
static char *put_code(char *out, unsigned c)
{
	if ((c >= 0xdc80 && c <= 0xdcff) || (c >= 0x80 && c <= 0xff)) {
		*out++ = (char)(c & 0xff);
	} else if (c < 0x80) {
		*out++ = (char)c;
	} else if (c < 0x800) {
		*out++ = (char)(0xc0 | c >> 6);
		*out++ = (char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		*out++ = (char)(0xe0 | c >> 12);
		*out++ = (char)(0x80 | (c >> 6 & 0x3f));
		*out++ = (char)(0x80 | (c & 0x3f));
	} else {
		*out++ = (char)(0xf0 | c >> 18);
		*out++ = (char)(0x80 | (c >> 12 & 0x3f));
		*out++ = (char)(0x80 | (c >> 6 & 0x3f));
		*out++ = (char)(0x80 | (c & 0x3f));
	}
	return out;
}

/* The escape behind a backslash; returns what follows it. */
static const char *decode_escape(const char *p, char **out)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	const char *at = strchr(from, *p);
	unsigned c, low;

	if (*p != 'u') {
		*(*out)++ = at != NULL ? to[at - from] : *p;
		return p + 1;
	}
	if (strnlen(p, 5) < 5)
		return p + strlen(p);
	c = hex4(p + 1);
	p += 5;
	if (c >= 0xd800 && c < 0xdc00 && strnlen(p, 6) == 6 && p[0] == '\\' && p[1] == 'u') {
		low = hex4(p + 2);
		if (low >= 0xdc00 && low < 0xe000) {
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
			p += 6;
		}
	}
	*out = put_code(*out, c);
	return p;
}

/* The string from p (behind its quotation mark) to end, decoded. What is decoded is never longer. */
static char *decode(const char *p, const char *end)
{
	char *value = malloc((size_t)(end - p) + 1), *out = value;

	if (value == NULL)
		out_of_memory();
	while (p < end && *p && *p != '"') {
		if (*p == '\\' && p + 1 < end)
			p = decode_escape(p + 1, &out);
		else
			*out++ = *p++;
	}
	*out = '\0';
	return value;
}

static char *take_value(const char *p, const char *end)
{
	char *value;

	if (*p == '"')
		return decode(p + 1, end);
	if (strncmp(p, "null", 4) == 0)
		return NULL;
	value = strndup(p, (size_t)(end - p));
	if (value == NULL)
		out_of_memory();
	return value;
}

char *json_member(const char *line, const char *name)
{
	const char *p = skip_space(line), *end;
	char *here;
	bool found;

	if (*p != '{')
		return NULL;
	for (p = skip_space(p + 1); *p == '"'; p = skip_space(p + 1)) {
		end = skip_string(p);
		here = decode(p + 1, end);
		found = strcmp(here, name) == 0;
		free(here);
		p = skip_space(end);
		if (*p != ':')
			return NULL;
		p = skip_space(p + 1);
		end = skip_value(p);
		if (found)
			return take_value(p, end);
		p = skip_space(end);
		if (*p != ',')
			return NULL;
	}
	return NULL;
}

/* Just enough JSON: writing objects, one a line, and taking a member out of one.
 *
 * Keys are any bytes, JSON strings are Unicode. Valid UTF-8 stays as it is; a byte that is not part of it, 0xNN, becomes
 * the lone surrogate \udcNN. So no two keys look the same, and Python gives the bytes back with os.fsencode(). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json {
	FILE *f;
	bool more; /* the next member follows another one */
};

/* Begin and end an object or array: name is NULL at the top and inside of arrays. The end of the top ends the line. */
void json_open(struct json *j, const char *name, char bracket);
void json_close(struct json *j, char bracket);
void json_end_line(struct json *j);

/* Members. A NULL string is null. */
void json_string(struct json *j, const char *name, const char *value);
void json_integer(struct json *j, const char *name, int64_t value);
void json_bool(struct json *j, const char *name, bool value);

/* The member of that name in the object that `line` holds, in a new string: a string decoded to bytes, anything else as
 * it stands. NULL when there is none, when it is null, or when line is no object. */
char *json_member(const char *line, const char *name);

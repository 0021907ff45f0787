#include "report.h"

#include "args.h"
#include "core/parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *verb_name;

/* errno -> what happened, in words of this file system, and what to do. */
static const struct {
	int error;
	const char *what;
	const char *advice;
} advice_table[] = {
	{ EOWNERDEAD, "its producer was killed before it had written all of it",
	  "run the producer again, writing KEY sets it anew" },
	{ EIO, "it failed, or the store could not be read or written",
	  "see why with 'promisefs log KEY', then write KEY anew" },
	{ ECANCELED, "it was cancelled while waiting", "declare it again with 'promisefs future KEY', or write it" },
	{ ETIMEDOUT, "nobody set it in time",
	  "run its producer again, or allow more time; 'promisefs stat KEY' says more" },
	{ EDEADLK, "waiting could never end: its writer waits for what you are writing",
	  "close your own drafts before you read this one" },
	{ EBUSY, "it is borrowed, or in use", "try again when it is released; 'promisefs log KEY' tells who has it" },
	{ EPERM, "not permitted", "run this as the owner of the key, or as root" },
	{ EACCES, "permission denied", "check owner and mode with 'promisefs stat KEY'" },
	{ EINVAL, "the value is malformed or cannot be set on this", "see promisefs(5) for what is accepted" },
	{ ESRCH, "no such process", "check the process id" },
	{ EEXIST, "it is set already", "put replaces it; 'promisefs evict KEY' removes it" },
	{ ENOSPC, "no space left in the store; nothing was published", "free some space, then write it again" },
	{ EDQUOT, "disk quota exceeded; nothing was published", "free some space, then write it again" },
	{ EFBIG, "too large for the store's file system; nothing was published", "raise 'ulimit -f', or write less" },
	{ EROFS, "the mount is read only", "mount it without -o ro" },
	{ ENOENT, "no such key",
	  "wait for it with 'promisefs get --await KEY', or declare it with 'promisefs future KEY'" },
	{ ENOTDIR, "a part of the path is not a directory", "check the path with 'promisefs ls'" },
	{ EISDIR, "it is a directory", "name a key in it; 'promisefs ls KEY' lists them" },
	{ ENOTEMPTY, "the directory is not empty", "evict what is in it first" },
	{ ENAMETOOLONG, "the name is too long", "use at most 255 bytes between slashes" },
	{ ELOOP, "too many symbolic links", "check the links on the path" },
	{ ENOTCONN, "the daemon of this mount is gone", "unmount with 'promisefs umount', then mount again" },
	{ ECONNABORTED, "the daemon of this mount went away", "unmount with 'promisefs umount', then mount again" },
	{ ENODEV, "the daemon of this mount went away", "mount it again" },
	{ EMFILE, "too many open files", "raise 'ulimit -n'" },
	{ ENFILE, "too many open files on this machine", "raise sysctl fs.file-max" },
	{ EINTR, "interrupted", "try again" },
};

void report_verb(const char *verb)
{
	verb_name = verb;
}

void print_key(FILE *f, const char *key)
{
	for (const unsigned char *p = (const unsigned char *)key; *p; p++) {
		if (*p == '\n')
			fputs("\\n", f);
		else if (*p == '\t')
			fputs("\\t", f);
		else if (*p == '\\')
			fputs("\\\\", f);
		else if (iscntrl(*p))
			fprintf(f, "\\x%02x", *p);
		else
			fputc(*p, f);
	}
}

void print_quoted(FILE *f, const char *word)
{
	static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789%+,-./:=@_";

	if (strspn(word, safe) == strlen(word)) {
		fputs(word, f);
		return;
	}
	fputc('"', f);
	print_key(f, word);
	fputc('"', f);
}

static void print_advice(FILE *f, const char *advice, const char *key)
{
	const char *at;

	while (key != NULL && (at = strstr(advice, "KEY")) != NULL) {
		fwrite(advice, 1, (size_t)(at - advice), f);
		print_quoted(f, key);
		advice = at + 3;
	}
	fputs(advice, f);
}

static void print_begin(FILE *f, const char *key)
{
	fprintf(f, "promisefs%s%s: ", verb_name ? " " : "", verb_name ?: "");
	if (key == NULL)
		return;
	print_key(f, key);
	fputs(": ", f);
}

/* One write for the whole line, so that lines of several processes do not mix. */
static void print_line(const char *key, const char *what, const char *advice)
{
	char *line = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&line, &len);

	if (f == NULL)
		out_of_memory();
	print_begin(f, key);
	print_key(f, what);
	if (advice != NULL) {
		fputs("; ", f);
		print_advice(f, advice, key);
	}
	fputc('\n', f);
	fclose(f);
	fflush(stdout);
	fwrite(line, 1, len, stderr);
	free(line);
}

int report(const char *key, const char *advice, const char *what, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, what);
	if (vasprintf(&text, what, ap) < 0)
		out_of_memory();
	va_end(ap);
	print_line(key, text, advice);
	free(text);
	return EXIT_FAILED;
}

int report_usage(const char *what, ...)
{
	char *text = NULL, *advice = NULL;
	va_list ap;

	va_start(ap, what);
	if (vasprintf(&text, what, ap) < 0)
		out_of_memory();
	va_end(ap);
	if (asprintf(&advice, "see 'promisefs %s%s--help'", verb_name ?: "", verb_name ? " " : "") < 0)
		out_of_memory();
	print_line(NULL, text, advice);
	free(text);
	free(advice);
	return EXIT_USAGE;
}

static size_t advice_row(int error)
{
	size_t n = sizeof(advice_table) / sizeof(advice_table[0]), i = 0;

	while (i < n && advice_table[i].error != error)
		i++;
	return i < n ? i : SIZE_MAX;
}

const char *advice_for(int error)
{
	size_t row = advice_row(error);

	return row != SIZE_MAX ? advice_table[row].advice : "see promisefs(1)";
}

int report_errno(const char *key, int error, const char *reason)
{
	size_t row = advice_row(error);
	const char *what = row != SIZE_MAX ? advice_table[row].what : strerror(error);

	if (reason != NULL)
		report(key, advice_for(error), "%s", reason);
	else
		report(key, advice_for(error), "%s (%s)", what, errno_name(error) ?: "unknown error");
	return EXIT_FAILED;
}

_Noreturn void out_of_memory(void)
{
	fputs("promisefs: out of memory; close other programs or raise 'ulimit -v'\n", stderr);
	exit(EXIT_FAILED);
}

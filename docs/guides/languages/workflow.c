/* usage: workflow MOUNTPOINT declare|consume N|produce|write */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (!file || fputs(text, file) < 0 || fclose(file) != 0) /* fclose says whether it was published */
		err(1, "%s", path);
}

/* Waits until it is written; NULL when it is not there. */
static char *read_file(const char *path, char *text, size_t size)
{
	FILE *file = fopen(path, "r");

	if (!file && (errno == ENOENT || errno == EBUSY))
		return NULL;
	if (!file)
		err(1, "%s", path);
	text[fread(text, 1, size - 1, file)] = '\0';
	fclose(file);
	return text;
}

static void consume(const char *number)
{
	char numbers[1000], token[100], list[100], handle[100], result[100], text[1000];
	long sum = 0;
	char *at = read_file("guide/numbers", numbers, sizeof(numbers)), *end;

	for (long n = strtol(at, &end, 10); end != at; n = strtol(at = end, &end, 10))
		sum += n;
	if (!read_file(".promisefs/once/guide/token", token, sizeof(token))) /* one of all consumers gets it */
		strcpy(token, "-");
	snprintf(handle, sizeof(handle), ".promisefs/ref/guide-%s", number);
	if (link(".promisefs/own/guide-list", handle) < 0) /* nobody writes it now */
		err(1, "%s", handle);
	if (!read_file(handle, list, sizeof(list)) || unlink(handle) < 0)
		err(1, "%s", handle);
	snprintf(result, sizeof(result), "guide/result-%s", number);
	snprintf(text, sizeof(text), "%ld %s %s\n", sum, token, list);
	write_file(result, text);
}

static void produce(void)
{
	write_file("guide/token", "token");
	write_file(".promisefs/own/guide-list", "1 2 3"); /* an object without a key */
	write_file("guide/scratch", "scratch");
	write_file(".promisefs/attributes/lease/guide/scratch", "500ms\n"); /* or setxattr(2) */
	write_file("guide/numbers", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");     /* wakes the consumers */
}

static void write_list(void)
{
	char text[100];

	if (link(".promisefs/own/guide-list", ".promisefs/mut/guide") < 0) /* nobody else reads or writes it now */
		err(1, "mut");
	if (read_file(".promisefs/own/guide-list", text, sizeof(text)) || errno != EBUSY)
		errx(1, "it was read");
	write_file(".promisefs/mut/guide", "1 2 3 4");
	if (unlink(".promisefs/mut/guide") < 0 || rename(".promisefs/own/guide-list", "guide/list") < 0)
		err(1, "own/guide-list");
}

int main(int argc, char **argv)
{
	if (argc < 3 || chdir(argv[1]) < 0)
		err(1, "usage: workflow MOUNTPOINT ROLE");
	if (strcmp(argv[2], "declare") == 0)
		write_file(".promisefs/future/guide/numbers", "");
	else if (strcmp(argv[2], "consume") == 0 && argc > 3)
		consume(argv[3]);
	else if (strcmp(argv[2], "produce") == 0)
		produce();
	else if (strcmp(argv[2], "write") == 0)
		write_list();
	return 0;
}

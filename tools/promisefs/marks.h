/* Marks in the arguments of a command: {NAME} and {} stand for the paths of its handles. */
#pragma once

struct mark {
	const char *name; /* NULL: none, only {} */
	const char *path;
};

/* The marks that {} stands for, one after the other: that of the only one; and one more, for which it does not. */
struct marks {
	struct mark *list;
	int count;
	struct mark other;
};

/* How often {} stands in the words. */
int marks_count(char **words, int count);

/* The words with paths instead of marks, each in a new string; ends with NULL. What is no mark stays. */
char **marks_replace(const struct marks *m, char **words, int count);

/* Put the paths into the environment: PROMISEFS_1 and so on, and PROMISEFS_NAME in capitals. */
void marks_export(const struct marks *m);

/* stats: what the daemon of a mount has done and how long that took, out of .promisefs/metrics. */
#include "json.h"
#include "key.h"
#include "report.h"
#include "verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 64
#define BUCKETS_MAX 64

/* A line or, if it is a histogram, the lines of one name and kind. */
struct row {
	char name[40], kind[16];
	double limit[BUCKETS_MAX]; /* of each bucket */
	unsigned long long count[BUCKETS_MAX], total;
	unsigned buckets;
	double value; /* or the sum */
};

struct stats {
	struct row rows[ROWS_MAX];
	unsigned n;
};

static struct row *find(struct stats *s, const char *name, const char *kind)
{
	for (unsigned i = 0; i < s->n; i++)
		if (strcmp(s->rows[i].name, name) == 0 && strcmp(s->rows[i].kind, kind) == 0)
			return &s->rows[i];
	return NULL;
}

static struct row *row_of(struct stats *s, const char *name, const char *kind)
{
	struct row *row = find(s, name, kind);

	if (row == NULL && s->n < ROWS_MAX) {
		row = &s->rows[s->n++];
		snprintf(row->name, sizeof(row->name), "%s", name);
		snprintf(row->kind, sizeof(row->kind), "%s", kind);
	}
	return row;
}

/* Whether `name` ends so; that end is cut off. */
static bool cut(char *name, const char *end)
{
	size_t len = strlen(name), n = strlen(end);

	if (len <= n || strcmp(name + len - n, end) != 0)
		return false;
	name[len - n] = '\0';
	return true;
}

/* The value of a label, or "". */
static void label(const char *line, const char *name, char *to, size_t size)
{
	const char *at = strstr(line, name);
	size_t len = at != NULL ? strcspn(at + strlen(name), "\"") : 0;

	snprintf(to, size, "%.*s", (int)len, at != NULL ? at + strlen(name) : "");
}

/* promisefs_NAME[{kind="KIND",le="LIMIT"}] VALUE */
static void take_line(struct stats *s, const char *line)
{
	const char *space = strrchr(line, ' ');
	char name[80], kind[16], limit[32];
	struct row *row;
	double value;

	if (space == NULL || sscanf(line, "promisefs_%79[a-z_]", name) != 1)
		return;
	value = strtod(space, NULL);
	label(line, "kind=\"", kind, sizeof(kind));
	label(line, "le=\"", limit, sizeof(limit));
	if (cut(name, "_bucket")) {
		row = row_of(s, name, kind);
		if (row != NULL && row->buckets < BUCKETS_MAX && strcmp(limit, "+Inf") != 0) {
			row->limit[row->buckets] = strtod(limit, NULL);
			row->count[row->buckets++] = (unsigned long long)value;
		}
		return;
	}
	if (cut(name, "_count")) {
		row = row_of(s, name, kind);
		if (row != NULL)
			row->total = (unsigned long long)value;
		return;
	}
	cut(name, "_sum");
	row = row_of(s, name, kind);
	if (row != NULL)
		row->value = value;
}

static int read_metrics(const struct key *k, struct stats *s)
{
	char *path = key_control(k, "metrics", NULL), *line = NULL;
	FILE *f = fopen(path, "re");
	size_t size = 0;
	int r = f == NULL ? report_errno(k->word, errno, NULL) : EXIT_DONE;

	free(path);
	while (f != NULL && getline(&line, &size, f) > 0)
		if (*line != '#')
			take_line(s, line);
	free(line);
	if (f != NULL)
		fclose(f);
	return r;
}

/* The limit of the bucket in which the value is that `part` of all values do not exceed. */
static double quantile(const struct row *row, double part)
{
	for (unsigned i = 0; i < row->buckets; i++)
		if ((double)row->count[i] >= part * (double)row->total)
			return row->limit[i];
	return row->buckets > 0 ? row->limit[row->buckets - 1] : 0;
}

static double mean(const struct row *row)
{
	return row->total > 0 ? row->value / (double)row->total : 0;
}

static double value_of(struct stats *s, const char *name)
{
	const struct row *row = find(s, name, "");

	return row != NULL ? row->value : 0;
}

static void print_duration(double seconds)
{
	static const struct { double unit; const char *name; } units[] = { { 1, "s" }, { 1e-3, "ms" }, { 1e-6, "us" } };
	unsigned i = 0;

	while (i < 2 && seconds < units[i].unit)
		i++;
	printf(" %8.3g %-2s", seconds / units[i].unit, units[i].name);
}

static void print_times(const char *what, const struct row *row)
{
	printf("%-10s %10llu", what, row->total);
	print_duration(mean(row));
	print_duration(quantile(row, 0.5));
	print_duration(quantile(row, 0.99));
	printf("\n");
}

static void print_text(struct stats *s)
{
	static const struct { const char *name, *what; } more[] = {
		{ "commit_seconds", "commit" }, { "record_seconds", "record" }, { "wait_seconds", "wait" } };
	const struct row *ops = find(s, "commit_operations", "");
	double pages = value_of(s, "catalog_page_hits_total") + value_of(s, "catalog_page_misses_total");

	printf("%-10s %10s %11s %11s %11s\n", "request", "count", "mean", "median <=", "p99 <=");
	for (unsigned i = 0; i < s->n; i++)
		if (strcmp(s->rows[i].name, "request_seconds") == 0)
			print_times(s->rows[i].kind, &s->rows[i]);
	printf("\n");
	for (unsigned i = 0; i < sizeof(more) / sizeof(*more); i++) {
		const struct row *row = find(s, more[i].name, "");

		if (row != NULL)
			print_times(more[i].what, row);
	}
	printf("\ncatalog: %.0f operations, %.0f SQL statements, %.2f changes a commit, %.1f%% of pages were in memory\n",
	       value_of(s, "catalog_operations_total"), value_of(s, "catalog_statements_total"), ops != NULL ? mean(ops) : 0,
	       pages > 0 ? 100 * value_of(s, "catalog_page_hits_total") / pages : 100);
	printf("now: %.0f waiters, %.0f drafts, %.0f versions in use, passthrough %s\n", value_of(s, "waiters"),
	       value_of(s, "drafts"), value_of(s, "versions_in_use"), value_of(s, "passthrough") > 0 ? "on" : "off");
}

static void print_json(const struct stats *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		const struct row *row = &s->rows[i];
		double unit = strstr(row->name, "_seconds") != NULL ? 1e9 : 1;
		struct json j = { .f = stdout };

		json_open(&j, NULL, '{');
		json_string(&j, "name", row->name);
		if (*row->kind)
			json_string(&j, "kind", row->kind);
		if (row->buckets == 0) {
			json_integer(&j, "value", (int64_t)row->value);
		} else {
			json_integer(&j, "count", (int64_t)row->total);
			json_integer(&j, unit > 1 ? "sum_ns" : "sum", (int64_t)(row->value * unit));
			json_integer(&j, unit > 1 ? "median_ns" : "median", (int64_t)(quantile(row, 0.5) * unit));
			json_integer(&j, unit > 1 ? "p99_ns" : "p99", (int64_t)(quantile(row, 0.99) * unit));
		}
		json_end_line(&j);
	}
}

int verb_stats(const struct args *a)
{
	struct stats *s = calloc(1, sizeof(*s));
	struct key k;
	int r;

	if (s == NULL)
		out_of_memory();
	r = key_find(a, key_default(a), &k);
	if (r == 0) {
		r = read_metrics(&k, s);
		key_finish(&k);
	}
	if (r == 0 && args_has(a, OPT_JSON))
		print_json(s);
	else if (r == 0)
		print_text(s);
	free(s);
	return r;
}

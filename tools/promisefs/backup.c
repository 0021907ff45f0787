/* backup: a copy of a store of one moment. */
#include "args.h"
#include "fs/backup.h"
#include "json.h"
#include "report.h"
#include "store_report.h"
#include "verbs.h"

#include <stdio.h>
#include <sys/stat.h>

static void on_left_out(void *arg, uint64_t object, const char *why)
{
	store_progress_end();
	fprintf(stderr, "promisefs backup: object %llu: %s; the copy has it as it was before, if it was\n",
		(unsigned long long)object, why);
}

static void print_result(const struct args *a, const struct offline *s, const struct backup_result *t)
{
	struct json j = { .f = stdout };
	char size[24];

	if (args_has(a, OPT_JSON)) {
		json_open(&j, NULL, '{');
		json_string(&j, "store", s->path);
		json_string(&j, "destination", a->words[1]);
		json_bool(&j, "mounted", s->online);
		json_integer(&j, "files", (int64_t)t->files);
		json_integer(&j, "cloned", (int64_t)t->cloned);
		json_integer(&j, "copied", (int64_t)t->copied);
		json_integer(&j, "kept", (int64_t)t->there);
		json_integer(&j, "bytes", (int64_t)t->bytes);
		json_integer(&j, "moments", t->moments);
		json_end_line(&j);
		return;
	}
	print_key(stdout, a->words[1]);
	printf(": %llu data files: %llu cloned, %llu copied (%s)", (unsigned long long)t->files,
	       (unsigned long long)t->cloned, (unsigned long long)t->copied,
	       store_size((int64_t)t->bytes, size));
	if (t->there > 0)
		printf(", %llu were there", (unsigned long long)t->there);
	printf("\n");
}

int verb_backup(const struct args *a)
{
	static const struct backup_options o = { .stop = store_stopped, .progress = store_progress,
						 .left_out = on_left_out };
	static struct offline s;
	struct backup_result result = { 0 };
	int r;

	store_catch_signals();
	umask(077);
	backup_make_dest(a->words[0], a->words[1]);
	r = offline_open(&s, a->words[0], "backup", true);
	if (r < 0) {
		r = store_report(a->words[0], &s, EXIT_FAILED);
	} else if (backup_store(&s, a->words[1], &o, &result) < 0) {
		r = store_report(a->words[1], &s, EXIT_FAILED);
	} else {
		store_progress_end();
		print_result(a, &s, &result);
	}
	offline_close(&s);
	return r;
}

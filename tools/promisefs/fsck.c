/* fsck: what is wrong with a store, and putting it right. The rules are in core/fsck_rules.c. */
#include "args.h"
#include "core/fsck.h"
#include "fs/blob_dir.h"
#include "fs/offline.h"
#include "json.h"
#include "report.h"
#include "store_report.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct session {
	const char *word; /* the store, as it was named */
	struct offline s;
	struct fsck_options o;
	struct fsck_result result;
	bool json;
	bool noted; /* the index has begun */
	int failed; /* the first error while something was noted */
};

static const char howto[] =
	"# What promisefs fsck --repair has done: one line for each thing that was wrong. Columns: kind, key, number of the\n"
	"# object, number of the version, its data file (which is in this directory if it says that it was set aside), what\n"
	"# was wrong and what was done. To get data back, mount the store and give it a key: promisefs put KEY < FILE\n"
	"# Nothing here is needed by the store; remove the directory when you need it no longer.\n";

static void print_json(const struct fsck_finding *f, bool repaired)
{
	struct json j = { .f = stdout };

	json_open(&j, NULL, '{');
	json_string(&j, "kind", f->kind);
	json_string(&j, "key", f->key);
	json_integer(&j, "object", (int64_t)f->object);
	json_integer(&j, "version", (int64_t)f->version);
	json_string(&j, "file", f->file);
	json_string(&j, "text", f->text);
	json_string(&j, "remedy", f->remedy);
	json_bool(&j, "harmless", f->harmless);
	json_bool(&j, "repaired", repaired && f->remedy != NULL && !f->harmless);
	json_end_line(&j);
}

static void print_text(const struct fsck_finding *f, bool repaired)
{
	if (f->harmless)
		return;
	printf("%s: ", f->kind);
	print_key(stdout, f->key[0] != '\0' ? f->key : f->file);
	printf(": %s", f->text);
	if (f->object != 0)
		printf(" (object %llu", (unsigned long long)f->object);
	if (f->object != 0 && f->version != 0)
		printf(", version %llu", (unsigned long long)f->version);
	if (f->object != 0 && f->file != NULL)
		printf(", file %s", f->file);
	printf("%s", f->object != 0 ? ")" : "");
	printf("%s%s\n", repaired && f->remedy != NULL ? "; " : "", repaired && f->remedy != NULL ? f->remedy : "");
}

static void note(struct session *x, const struct fsck_finding *f)
{
	if (x->failed == 0)
		x->failed = offline_keep(&x->s);
	if (x->failed < 0)
		return;
	if (!x->noted)
		fputs(howto, x->s.index);
	x->noted = true;
	fprintf(x->s.index, "%s\t", f->kind);
	print_key(x->s.index, f->key);
	fprintf(x->s.index, "\t%llu\t%llu\t%s\t%s; %s\n", (unsigned long long)f->object, (unsigned long long)f->version,
		f->file ?: "-", f->text, f->remedy);
	if (fflush(x->s.index) != 0 || ferror(x->s.index))
		x->failed = -EIO;
}

static void on_finding(void *arg, const struct fsck_finding *f)
{
	struct session *x = arg;

	store_progress_end();
	if (x->o.repair && !f->harmless && f->remedy != NULL)
		note(x, f);
	if (x->json)
		print_json(f, x->o.repair);
	else
		print_text(f, x->o.repair);
}

/* The marker comes before the first change, and the index before the change that it tells of. */
static int on_noted(void *arg)
{
	struct session *x = arg;

	if (x->failed == 0)
		x->failed = offline_noted(&x->s);
	if (x->failed == 0)
		x->failed = offline_repairing(&x->s, false);
	return x->failed;
}

static bool on_stop(void *arg)
{
	return store_stopped(NULL) || ((struct session *)arg)->failed < 0;
}

static void on_pause(void *arg)
{
	struct timespec pause = { .tv_sec = 1 };

	nanosleep(&pause, NULL);
}

static void on_rights(void *arg, const char *name, const char *what)
{
	on_finding(arg, &(struct fsck_finding){ .kind = "rights", .key = name, .text = what,
						.remedy = "owner and mode are set" });
}

static int fail(struct session *x, int r, const char *advice, const char *what)
{
	store_progress_end();
	if (r == -ECANCELED && x->failed == 0)
		report(x->word, "run it again", "interrupted");
	else if (x->failed < 0)
		report(x->word, "free some space, check the rights of the store", "what is wrong cannot be noted in %s",
		       x->s.keep);
	else
		report(x->word, advice, "%s", what);
	return EXIT_OPERATION;
}

/* The catalog by itself */

static void on_copied(void *arg, const char *table, uint64_t rows, bool lost)
{
	struct session *x = arg;
	char text[120];

	if (!lost)
		return;
	snprintf(text, sizeof(text), "records of the table %s could not all be read; %llu could", table,
		 (unsigned long long)rows);
	x->result.found++;
	on_finding(arg, &(struct fsck_finding){ .kind = "catalog", .key = "catalog.db", .text = text,
						.remedy = "the others are lost; what they were about is found below" });
}

#define FRESH "catalog.db.new"
#define SALVAGED "catalog.db.salvaged" /* complete, to become the catalog when the damaged one is out of the way */

static void remove_fresh(struct session *x)
{
	static const char *const names[] = { FRESH, FRESH "-wal", FRESH "-shm", FRESH "-journal" };

	for (int i = 0; i < 4; i++)
		unlinkat(x->s.fd, names[i], 0);
}

/* 1: it is there; 0: nothing could be read. */
static int salvage(struct session *x)
{
	char fresh[PATH_MAX + 32];
	int r;

	snprintf(fresh, sizeof(fresh), "%s.new", x->s.catalog);
	remove_fresh(x);
	r = meta_sqlite_salvage(x->s.catalog, fresh, on_copied, x);
	if (r == 0)
		r = renameat(x->s.fd, FRESH, x->s.fd, SALVAGED) < 0 ? -errno : 1;
	remove_fresh(x);
	return r == -ENODATA || r == -EBADMSG || r == -EPROTO ? 0 : r;
}

static bool is_salvaged(struct session *x)
{
	return faccessat(x->s.fd, SALVAGED, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* A new catalog in the place of one that is damaged, empty or missing. If it is stopped when that is out of the way
 * already, the next run goes on with what was salvaged. */
static int make_catalog(struct session *x, bool readable)
{
	int r = 0, salvaged = is_salvaged(x);

	if (readable) {
		unlinkat(x->s.fd, SALVAGED, 0);
		r = salvaged = salvage(x);
	}
	if (r >= 0)
		r = on_noted(x);
	if (r == 0)
		r = offline_keep_catalog(&x->s);
	if (r == 0 && salvaged > 0 && renameat(x->s.fd, SALVAGED, x->s.fd, "catalog.db") < 0)
		r = -errno;
	if (r == 0)
		r = fsync(x->s.fd) < 0 ? -errno : 0;
	x->o.remade = true;
	if (r < 0)
		return fail(x, r, "free some space, and run it again", "a new catalog cannot be made");
	x->result.left = 0;
	return 0;
}

static const char lost_catalog[] = "the catalog is missing, nothing tells which data file was what";
static const char new_catalog[] = "an empty one is made, all data files are set aside";

static void on_lost_catalog(struct session *x, const char *text, const char *remedy)
{
	x->result.found++;
	x->result.left++;
	on_finding(x, &(struct fsck_finding){ .kind = "catalog", .key = "catalog.db", .text = text, .remedy = remedy });
}

/* Returns 0, or an exit status when nothing else can be looked at. */
static int check_catalog(struct session *x)
{
	struct meta *m = NULL;
	const char *why;
	bool damaged = false, readable = true;
	int r = meta_sqlite_open_reader(x->s.catalog, &m, &why);

	if (r == 0) {
		r = store_fsck_catalog(m, &x->o, &x->result, &damaged);
		m->ops->close(m);
		if (r < 0)
			return fail(x, r, "check the disk", "the catalog cannot be read");
	} else if (r == -ENOENT) {
		readable = false;
		if (is_salvaged(x))
			on_lost_catalog(x, "it was being repaired, and was salvaged", "that takes its place");
		else
			on_lost_catalog(x, lost_catalog, new_catalog);
	} else if (r == -EBADMSG) {
		damaged = true;
		on_lost_catalog(x, why, "what can be read of it becomes a new one, it is set aside");
	} else {
		return fail(x, r, r == -ESTALE ? "mount it with 'promisefs mount' and unmount it" : "see promisefs(1)", why);
	}
	if (readable && !damaged)
		return 0;
	if (x->o.repair)
		return make_catalog(x, readable);
	return EXIT_LEFT;
}

/* All of it */

static int check_store(struct session *x)
{
	struct meta *m = NULL;
	struct blobs *b = NULL;
	const char *why = NULL;
	int r;

	r = x->o.repair ? meta_sqlite_open(x->s.catalog, &m, &why) : meta_sqlite_open_reader(x->s.catalog, &m, &why);
	if (r < 0)
		return fail(x, r, "see promisefs(1)", why);
	r = x->o.repair ? blob_dir_open(x->s.fd, &b) : blob_dir_look(x->s.fd, &b);
	if (r == 0) {
		if (x->o.repair)
			blob_dir_keep_in(b, x->s.keep_fd);
		r = store_fsck(m, b, &x->o, &x->result);
	} else if (r == -ENOENT) {
		on_finding(x, &(struct fsck_finding){ .kind = "lost", .key = "data", .text = "the directory of the data files, or of the drafts, is missing",
						      .remedy = "it is made" });
		x->result.found++;
		x->result.left++;
		r = 0;
	}
	blob_dir_close(b);
	m->ops->close(m);
	if (r == 0 && x->o.repair)
		r = offline_repairing(&x->s, true);
	return r == 0 ? 0 : fail(x, r, "check the disk and the rights of the store", strerror(-r));
}

static void print_summary(struct session *x)
{
	const struct fsck_result *t = &x->result;
	struct json j = { .f = stdout };

	if (x->json) {
		json_open(&j, NULL, '{');
		json_string(&j, "store", x->s.path);
		json_integer(&j, "objects", (int64_t)t->objects);
		json_integer(&j, "files", (int64_t)t->files);
		json_integer(&j, "bytes", (int64_t)t->bytes);
		json_integer(&j, "found", (int64_t)t->found);
		json_integer(&j, "left", (int64_t)t->left);
		json_integer(&j, "harmless", (int64_t)t->harmless);
		json_bool(&j, "clean", t->left == 0);
		json_string(&j, "quarantine", x->s.index != NULL ? x->s.keep : NULL);
		json_end_line(&j);
		return;
	}
	printf("%llu objects, %llu data files: ", (unsigned long long)t->objects, (unsigned long long)t->files);
	if (t->found == 0)
		printf("nothing is wrong");
	else if (t->left == 0)
		printf("%llu wrong, all repaired", (unsigned long long)t->found);
	else if (x->o.repair)
		printf("%llu wrong, %llu of them still", (unsigned long long)t->found, (unsigned long long)t->left);
	else
		printf("%llu wrong; %s", (unsigned long long)t->found,
		       x->o.online ? "unmount it, then 'promisefs fsck --repair' puts it right" : "--repair puts it right");
	if (t->harmless > 0)
		printf("; %llu unfinished, which the next mount sees to", (unsigned long long)t->harmless);
	printf("\n");
	if (x->s.index != NULL)
		printf("what was done, and how to get data back, is in %s/index\n", x->s.keep);
}

/* Where nothing was set aside, nothing is kept. */
static void drop_quarantine(struct session *x)
{
	if (x->s.keep_fd < 0 || x->result.found > 0)
		return;
	fclose(x->s.index);
	x->s.index = NULL;
	unlinkat(x->s.keep_fd, "index", 0);
	rmdir(x->s.keep);
	unlinkat(x->s.fd, "quarantine", AT_REMOVEDIR);
}

static void on_interrupted(struct session *x)
{
	x->result.found++;
	x->result.left++;
	on_finding(x, &(struct fsck_finding){ .kind = "repair", .key = OFFLINE_REPAIRING,
					      .text = "a repair did not come to its end", .remedy = "it goes on" });
}

static int check_all(struct session *x)
{
	uint64_t wrong = 0, left = 0;
	int r;

	if (x->o.repair && offline_keep(&x->s) < 0)
		return store_report(x->word, &x->s, EXIT_OPERATION);
	x->o.remade = offline_is_repairing(&x->s);
	if (x->o.remade)
		on_interrupted(x);
	offline_rights(&x->s, x->o.repair, on_rights, x, &wrong, &left);
	x->result.found += wrong;
	r = check_catalog(x);
	if (x->o.repair)
		x->result.left = 0;
	if (r == 0)
		r = check_store(x);
	x->result.left += left;
	drop_quarantine(x);
	store_progress_end();
	if (r == EXIT_OPERATION)
		return r;
	print_summary(x);
	return x->result.left > 0 ? EXIT_LEFT : x->result.found > 0 ? EXIT_REPAIRED : EXIT_DONE;
}

int verb_fsck(const struct args *a)
{
	static struct session x;
	int r;

	x.word = a->words[0];
	x.json = args_has(a, OPT_JSON);
	x.o = (struct fsck_options){ .checksums = !args_has(a, OPT_QUICK), .repair = args_has(a, OPT_REPAIR),
				     .found = on_finding, .pause = on_pause, .stop = on_stop, .noted = on_noted,
				     .progress = store_progress, .arg = &x };
	if (x.o.repair && args_has(a, OPT_ONLINE))
		return report_usage("--repair does not go with --online");
	store_catch_signals();
	r = offline_open(&x.s, x.word, "fsck", args_has(a, OPT_ONLINE));
	if (r == 0 && x.o.repair)
		r = offline_claim(&x.s);
	x.o.online = x.s.online;
	r = r < 0 ? store_report(x.word, &x.s, EXIT_OPERATION) : check_all(&x);
	offline_close(&x.s);
	return r;
}

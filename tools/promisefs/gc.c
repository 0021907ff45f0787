/* gc: frees what a store that is not mounted needs no longer. */
#include "args.h"
#include "core/fsck.h"
#include "core/parse.h"
#include "core/store.h"
#include "fs/blob_dir.h"
#include "fs/mount.h"
#include "fs/offline.h"
#include "json.h"
#include "report.h"
#include "store_report.h"
#include "verbs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVENTS_DEFAULT 10000

struct gc {
	struct offline s;
	struct meta *m;
	struct blobs *b;
	bool dry;
	uint64_t keep;   /* events */
	uint64_t drafts; /* that killed writers left */
	uint64_t garbage, unknown, events;
	uint64_t aside;  /* data files that nothing speaks of */
	int64_t data, catalog; /* bytes that were freed */
};

static int count_draft(void *arg, const struct meta_draft *d)
{
	((struct gc *)arg)->drafts++;
	return 0;
}


static int count_garbage(void *arg, uint64_t vid)
{
	struct gc *g = arg;
	struct stat st;

	g->garbage++;
	if (g->b->ops->stat(g->b, vid, &st) == 0 && st.st_nlink == 1)
		g->data += st.st_blocks * 512;
	return 0;
}

/* What is there before anything is settled. */
static int count(struct gc *g)
{
	int r;

	g->m->ops->begin(g->m);
	r = g->m->ops->draft_list(g->m, count_draft, g);
	if (r == 0)
		r = g->m->ops->garbage_list(g->m, count_garbage, g);
	if (r == 0)
		r = g->m->ops->events_trim(g->m, g->keep, true, &g->events);
	g->m->ops->end(g->m, META_ABANDON, NULL);
	return r;
}

/* Some of them are removed when what was left is settled, the others afterwards. */
static int count_unknown(void *arg, const struct blob_file *f)
{
	struct gc *g = arg;
	struct stat st;

	if (!f->draft)
		return 0;
	g->unknown++;
	if (g->b->ops->stat(g->b, f->vid, &st) == 0 && st.st_nlink == 1)
		g->data += st.st_blocks * 512;
	return 0;
}

static int count_aside(void *arg, const struct blob_file *f)
{
	((struct gc *)arg)->aside += !f->draft;
	return 0;
}

/* What was published, and no record says that it is to be removed, may be the only copy of something. */
static int settle_unknown(void *arg, const struct blob_file *f)
{
	struct gc *g = arg;
	int r;

	if (f->draft)
		return g->b->ops->remove(g->b, f->vid);
	g->aside++;
	r = offline_keep(&g->s);
	if (r < 0)
		return r;
	fprintf(g->s.index, "unknown\t\t0\t0\t%016llx\ta data file belongs to no object; it is set aside\n",
		(unsigned long long)f->vid);
	blob_dir_keep_in(g->b, g->s.keep_fd);
	return g->b->ops->set_aside(g->b, f->vid, NULL, false);
}

/* Files that were to take the place of others (blob_dir.c, unshare). */
static void remove_temporary(struct gc *g)
{
	int fd = openat(g->s.fd, "drafts", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	struct stat st;

	while (dir != NULL && (e = readdir(dir)) != NULL) {
		size_t n = strlen(e->d_name);

		if (n != 24 || strcmp(e->d_name + 16, ".private") != 0 || fstatat(fd, e->d_name, &st, 0) < 0)
			continue;
		if (!g->dry && unlinkat(fd, e->d_name, 0) < 0)
			continue;
		g->unknown++;
		g->data += st.st_blocks * 512;
	}
	if (dir != NULL)
		closedir(dir);
}

static int trim(struct gc *g)
{
	int r;

	g->m->ops->begin(g->m);
	r = g->m->ops->events_trim(g->m, g->keep, g->dry, &g->events);
	g->m->ops->end(g->m, r < 0 ? META_ABANDON : g->dry ? META_READ : META_RECORDED, NULL);
	return r;
}

static int64_t catalog_bytes(struct gc *g)
{
	static const char *const names[] = { "catalog.db", "catalog.db-wal" };
	struct stat st;
	int64_t bytes = 0;

	for (int i = 0; i < 2; i++)
		if (fstatat(g->s.fd, names[i], &st, 0) == 0)
			bytes += st.st_size;
	return bytes;
}

static int64_t unused_bytes(struct gc *g)
{
	int64_t bytes = 0, unused = 0;

	g->m->ops->begin(g->m);
	if (g->m->ops->space(g->m, &bytes, &unused) < 0)
		unused = 0;
	g->m->ops->end(g->m, META_ABANDON, NULL);
	return unused;
}

static int collect(struct gc *g, const struct store_options *options)
{
	int64_t before = catalog_bytes(g);
	int r = count(g);

	if (r == 0)
		r = store_unknown_files(g->m, g->b, count_unknown, g);
	if (r == 0 && !g->dry)
		r = store_settle(g->m, g->b, options);
	if (r == 0 && !g->dry)
		r = store_unknown_files(g->m, g->b, settle_unknown, g);
	if (r == 0 && g->s.index != NULL)
		r = offline_noted(&g->s);
	if (r == 0 && g->dry)
		r = store_unknown_files(g->m, g->b, count_aside, g);
	remove_temporary(g);
	if (r == 0)
		r = trim(g);
	if (r == 0 && !g->dry)
		r = g->m->ops->compact(g->m);
	g->catalog = g->dry ? unused_bytes(g) : before - catalog_bytes(g);
	return r;
}

static void print_result(const struct gc *g, bool as_json)
{
	struct json j = { .f = stdout };
	char data[24], catalog[24];

	if (as_json) {
		json_open(&j, NULL, '{');
		json_string(&j, "store", g->s.path);
		json_bool(&j, "dry_run", g->dry);
		json_integer(&j, "drafts", (int64_t)g->drafts);
		json_integer(&j, "garbage", (int64_t)g->garbage);
		json_integer(&j, "unknown", (int64_t)g->unknown);
		json_integer(&j, "set_aside", (int64_t)g->aside);
		json_string(&j, "quarantine", g->s.index != NULL ? g->s.keep : NULL);
		json_integer(&j, "events", (int64_t)g->events);
		json_integer(&j, "data_bytes", g->data);
		json_integer(&j, "catalog_bytes", g->catalog);
		json_end_line(&j);
		return;
	}
	printf("%s %s of data: %llu files of replaced or evicted versions, %llu that nothing speaks of\n",
	       g->dry ? "would free" : "freed", store_size(g->data, data), (unsigned long long)g->garbage,
	       (unsigned long long)g->unknown);
	if (g->aside > 0)
		printf("%s %llu data files that belong to no object%s%s\n", g->dry ? "would set aside" : "set aside",
		       (unsigned long long)g->aside, g->dry ? "" : ", in ", g->dry ? "" : g->s.keep);
	printf("%s %llu drafts of killed writers\n", g->dry ? "would settle" : "settled", (unsigned long long)g->drafts);
	printf("%s %llu events, %s %s of the catalog%s\n", g->dry ? "would remove" : "removed",
	       (unsigned long long)g->events, g->dry ? "would free" : "freed",
	       store_size(g->catalog > 0 ? g->catalog : 0, catalog), g->dry ? " at least" : "");
}

/* Drafts that nothing speaks of are removed, so that nothing does must be the truth. */
static void count_wrong(void *arg, const struct fsck_finding *f)
{
	*(unsigned *)arg += !f->harmless && strcmp(f->kind, "unknown") != 0 && strcmp(f->kind, "strange") != 0;
}

static int check_sound(struct gc *g, const char *word)
{
	unsigned wrong = 0;
	const struct fsck_options look = { .found = count_wrong, .arg = &wrong };
	struct fsck_result ignored = { 0 };
	struct meta *m = NULL;
	const char *why;
	bool damaged = false;
	int r = meta_sqlite_open_reader(g->s.catalog, &m, &why);

	if (r < 0) {
		report(word, "see 'promisefs fsck'", "cannot use the catalog: %s", why);
		return r;
	}
	r = store_fsck_catalog(m, &look, &ignored, &damaged);
	if (r == 0 && !damaged)
		r = store_fsck(m, g->b, &look, &ignored);
	m->ops->close(m);
	if (r == 0 && wrong > 0)
		r = -EBADMSG;
	if (r < 0)
		report(word, "'promisefs fsck --repair' puts it right", r == -EBADMSG ? "the store is damaged; nothing was removed" :
		       "it cannot be read");
	return r;
}

static int open_parts(struct gc *g, const char *word)
{
	const char *why = NULL;
	int r = blob_dir_look(g->s.fd, &g->b);

	if (r < 0) {
		report(word, "see 'promisefs fsck'", "its directories data and drafts: %s", strerror(-r));
		return r;
	}
	r = check_sound(g, word);
	if (r < 0)
		return r;
	r = g->dry ? meta_sqlite_open_reader(g->s.catalog, &g->m, &why) : meta_sqlite_open(g->s.catalog, &g->m, &why);
	if (r < 0)
		report(word, "see 'promisefs fsck'", "cannot use the catalog: %s", why);
	return r;
}

static int run_gc(struct gc *g, const struct args *a, const struct store_options *options)
{
	const char *word = a->words[0];
	int r = open_parts(g, word);

	if (r == 0) {
		r = collect(g, options);
		if (r < 0)
			report(word, "see 'promisefs fsck'", "not all could be done: %s", strerror(-r));
	}
	blob_dir_close(g->b);
	if (g->m != NULL)
		g->m->ops->close(g->m);
	if (r == 0)
		print_result(g, args_has(a, OPT_JSON));
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}

int verb_gc(const struct args *a)
{
	static struct gc g;
	struct store_options options;
	int r;

	g.dry = args_has(a, OPT_DRY_RUN);
	g.keep = EVENTS_DEFAULT;
	if (args_has(a, OPT_EVENTS) && parse_size(a->value[OPT_EVENTS], &g.keep) < 0)
		return report_usage("--events: '%s' is not a number", a->value[OPT_EVENTS]);
	if (pfs_core_options(a->mount_options, &options) < 0)
		return EXIT_USAGE;
	r = offline_open(&g.s, a->words[0], "gc", false);
	if (r == 0)
		r = offline_claim(&g.s);
	r = r < 0 ? store_report(a->words[0], &g.s, EXIT_FAILED) : run_gc(&g, a, &options);
	offline_close(&g.s);
	return r;
}

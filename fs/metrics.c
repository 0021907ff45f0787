/* .promisefs/metrics: counts since the daemon started, as Prometheus reads them.
 *
 * The time of a request is that of the thread which serves it. What is answered later by others has times of its own:
 * being recorded (record), and waiting for a future or one's turn (wait). */
#include "fs/fs.h"
#include "fs/shared.h"

#include <stdio.h>
#include <time.h>

#define SHORTEST 10 /* 2^10 ns: about a microsecond */

static const char *const request_names[REQUEST_COUNT] = {
	[REQUEST_LOOKUP] = "lookup", [REQUEST_GETATTR] = "getattr", [REQUEST_SETATTR] = "setattr",
	[REQUEST_OPEN] = "open", [REQUEST_CREATE] = "create", [REQUEST_READ] = "read", [REQUEST_WRITE] = "write",
	[REQUEST_FLUSH] = "flush", [REQUEST_RELEASE] = "release", [REQUEST_FSYNC] = "fsync", [REQUEST_NAMES] = "names",
	[REQUEST_XATTR] = "xattr", [REQUEST_READDIR] = "readdir", [REQUEST_POLL] = "poll", [REQUEST_OTHER] = "other",
};

_Thread_local enum request request_served;

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void metrics_waited(struct fs *fs, const struct waiter *w)
{
	if (w->since != 0)
		histogram_add(&fs->wait_ns, fs->meta->ops->now(fs->meta) - w->since);
}

void metrics_serve(struct fs *fs, struct fuse_buf *buf)
{
	int64_t began = now_ns();

	request_served = REQUEST_COUNT; /* what libfuse answers by itself, and forgets */
	if (fs->shared != NULL)
		request_is_for(connection_unique(buf));
	fuse_session_process_buf(fs->se, buf);
	if (fs->shared != NULL)
		request_is_for(0);
	if (request_served != REQUEST_COUNT)
		histogram_add(&fs->request_ns[request_served], now_ns() - began);
}

static uint64_t get(const atomic_ullong *n)
{
	return atomic_load_explicit(n, memory_order_relaxed);
}

static uint64_t total(const struct histogram *h)
{
	uint64_t n = 0;

	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		n += get(&h->buckets[i]);
	return n;
}

static void describe(struct text *t, const char *name, const char *type, const char *help)
{
	text_add(t, "# HELP promisefs_%s %s\n# TYPE promisefs_%s %s\n", name, help, name, type);
}

static void add(struct text *t, const char *name, const char *type, const char *help, unsigned long long value)
{
	describe(t, name, type, help);
	text_add(t, "promisefs_%s %llu\n", name, value);
}

/* label: `kind="open"` or nothing. Values are multiplied by unit; those up to 2^first have one bucket. */
static void add_buckets(struct text *t, const char *name, const char *label, const struct histogram *h, double unit, int first)
{
	const char *comma = *label != '\0' ? "," : "", *begin = *label != '\0' ? "{" : "", *end = *label != '\0' ? "}" : "";
	uint64_t n = 0, all = total(h);

	for (int i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
		n += get(&h->buckets[i]);
		n = n < all ? n : all; /* some have come since that was counted */
		if (i >= first)
			text_add(t, "promisefs_%s_bucket{%s%sle=\"%.9g\"} %llu\n", name, label, comma, (double)(1ULL << i) * unit,
				 (unsigned long long)n);
		if (i >= first && n >= all)
			break; /* the buckets above say the same */
	}
	text_add(t, "promisefs_%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, label, comma, (unsigned long long)all);
	text_add(t, "promisefs_%s_sum%s%s%s %.9g\npromisefs_%s_count%s%s%s %llu\n", name, begin, label, end,
		 (double)get(&h->sum) * unit, name, begin, label, end, (unsigned long long)all);
}

static void add_histogram(struct text *t, const char *name, const char *help, const struct histogram *h, double unit, int first)
{
	describe(t, name, "histogram", help);
	add_buckets(t, name, "", h, unit, first);
}

static void add_requests(struct text *t, struct fs *fs)
{
	char label[32];

	describe(t, "requests_total", "counter", "FUSE requests by kind.");
	for (int i = 0; i < REQUEST_COUNT; i++)
		text_add(t, "promisefs_requests_total{kind=\"%s\"} %llu\n", request_names[i],
			 (unsigned long long)get(&fs->requests[i]));
	describe(t, "request_seconds", "histogram", "How long a thread was busy with a request.");
	for (int i = 0; i < REQUEST_COUNT; i++) {
		snprintf(label, sizeof(label), "kind=\"%s\"", request_names[i]);
		if (total(&fs->request_ns[i]) > 0)
			add_buckets(t, "request_seconds", label, &fs->request_ns[i], 1e-9, SHORTEST);
	}
}

void metrics_text(struct fs *fs, struct text *t)
{
	struct store_counts s;
	struct meta_counts m;

	store_counts(fs->store, &s);
	fs->meta->ops->counts(fs->meta, &m);
	add_requests(t, fs);
	add(t, "catalog_operations_total", "counter", "Operations on the catalog.", m.operations);
	add(t, "catalog_commits_total", "counter", "Commits of the catalog; one may serve many operations.", m.commits);
	add(t, "catalog_statements_total", "counter", "SQL statements.", m.statements);
	add(t, "catalog_page_hits_total", "counter", "Pages of the catalog that were in memory.", m.page_hits);
	add(t, "catalog_page_misses_total", "counter", "Pages of the catalog that had to be read.", m.page_misses);
	add_histogram(t, "commit_seconds", "How long commits of the catalog took.", m.commit_ns, 1e-9, SHORTEST);
	add_histogram(t, "commit_operations", "How many operations a commit has recorded.", m.commit_ops, 1, 0);
	add_histogram(t, "record_seconds", "How long operations have waited to be recorded.", m.record_ns, 1e-9, SHORTEST);
	add_histogram(t, "wait_seconds", "How long opens have waited that had to wait.", &fs->wait_ns, 1e-9, SHORTEST);
	add(t, "waiters", "gauge", "Opens that wait for an object to settle.", s.waiters);
	add(t, "drafts", "gauge", "Objects that are being written.", s.drafts);
	add(t, "versions_in_use", "gauge", "Versions that somebody has open.", s.versions);
	if (fs->shared != NULL)
		add(t, "workers_started", "counter", "Processes that have served this mount (supervisor=on).",
		    atomic_load(&fs->shared->workers));
	add(t, "passthrough", "gauge", "1: the kernel reads and writes data files itself.", atomic_load(&fs->passthrough));
}

/* .promisefs/metrics: counts since the daemon started, as Prometheus reads them. */
#include "fs/fs.h"

static const char *const request_names[REQUEST_COUNT] = {
	[REQUEST_LOOKUP] = "lookup", [REQUEST_GETATTR] = "getattr", [REQUEST_SETATTR] = "setattr",
	[REQUEST_OPEN] = "open", [REQUEST_CREATE] = "create", [REQUEST_READ] = "read", [REQUEST_WRITE] = "write",
	[REQUEST_FLUSH] = "flush", [REQUEST_RELEASE] = "release", [REQUEST_FSYNC] = "fsync", [REQUEST_NAMES] = "names",
	[REQUEST_XATTR] = "xattr", [REQUEST_READDIR] = "readdir", [REQUEST_POLL] = "poll", [REQUEST_OTHER] = "other",
};

static void add(struct text *t, const char *name, const char *type, const char *help, unsigned long long value)
{
	text_add(t, "# HELP promisefs_%s %s\n# TYPE promisefs_%s %s\npromisefs_%s %llu\n", name, help, name, type, name,
		 value);
}

void metrics_text(struct fs *fs, struct text *t)
{
	struct store_counts s;
	struct meta_counts m;

	store_counts(fs->store, &s);
	fs->meta->ops->counts(fs->meta, &m);
	text_add(t, "# HELP promisefs_requests_total FUSE requests by kind.\n# TYPE promisefs_requests_total counter\n");
	for (int i = 0; i < REQUEST_COUNT; i++)
		text_add(t, "promisefs_requests_total{kind=\"%s\"} %llu\n", request_names[i],
			 (unsigned long long)atomic_load_explicit(&fs->requests[i], memory_order_relaxed));
	add(t, "catalog_operations_total", "counter", "Operations on the catalog.", m.operations);
	add(t, "catalog_commits_total", "counter", "Commits of the catalog; one may serve many operations.", m.commits);
	add(t, "catalog_statements_total", "counter", "SQL statements.", m.statements);
	add(t, "waiters", "gauge", "Opens that wait for an object to settle.", s.waiters);
	add(t, "drafts", "gauge", "Objects that are being written.", s.drafts);
	add(t, "versions_in_use", "gauge", "Versions that somebody has open.", s.versions);
	add(t, "passthrough", "gauge", "1: the kernel reads and writes data files itself.", atomic_load(&fs->passthrough));
}

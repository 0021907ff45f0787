/* The control directory .promisefs: found by name at the root, never listed there. */
#include "core/parse.h"
#include "fs/fs.h"
#include "fs/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char readme[] =
	"promisefs: every path here is a promise\n"
	"\n"
	"A reader may open a file before it is written: open(2) waits until its writer has closed it, so nobody ever\n"
	"sees half a file. Everything is done with ordinary files; KEY is a path below the mount point.\n"
	"\n"
	"  declare a future    : > .promisefs/future/KEY         (its parent directory must exist)\n"
	"  wait and read       cat KEY\n"
	"  wait, undeclared    cat .promisefs/await/KEY\n"
	"  set                 cmd > KEY                         (published when the last writer closes it)\n"
	"  fail                setfattr -n user.promisefs.error -v 'ENOSPC: reason' KEY\n"
	"  cancel              rm KEY                            (while it is pending)\n"
	"  deadline            setfattr -n user.promisefs.deadline -v 60s KEY\n"
	"  ask                 getfattr -n user.promisefs.state KEY    (pending, writing, ready, failed)\n"
	"  as it is written    setfattr -n user.promisefs.publish -v write DIRECTORY    (for logs that someone tails)\n"
	"\n"
	"With O_NONBLOCK the open succeeds at once, read gives EAGAIN, and poll says when it is worth trying again.\n"
	"A writer that is killed publishes nothing; what it wrote is below .promisefs/aborted/ for a while.\n"
	"\n"
	"  begin a lifetime    mkdir .promisefs/lifetimes/L\n"
	"  add an object       ln KEY .promisefs/lifetimes/L/    (when L ends, all that is in it is evicted)\n"
	"  end it              rmdir .promisefs/lifetimes/L\n"
	"  ... by itself       setfattr -n user.promisefs.lease -v 10s .promisefs/lifetimes/L    (or of a KEY)\n"
	"  ... with a process  setfattr -n user.promisefs.pid -v PID .promisefs/lifetimes/L     (or of a KEY), or use\n"
	"                      .promisefs/lifetimes/self, which is the lifetime of the process that says it\n"
	"\n"
	"  borrow              ln KEY .promisefs/ref/R           (many may read it, nobody writes it until rm .promisefs/ref/R)\n"
	"  borrow to write     ln KEY .promisefs/mut/M           (one, and nobody else reads or writes it)\n"
	"  ... in turn         ln KEY .promisefs/await-ref/R     (instead of EBUSY; open .promisefs/ref/R to wait; await-mut/ likewise)\n"
	"  ... of somebody else  ln .promisefs/lend/KEY .promisefs/ref/R    (the kernel does not let you link KEY itself)\n"
	"  own                 mv KEY .promisefs/own/X           (and mv it back to a key, or rm it)\n"
	"  read once           cat .promisefs/once/KEY           (evicts KEY; or setfattr -n user.promisefs.evict -v 1 KEY)\n"
	"\n"
	"  attributes/NAME/KEY the attribute user.promisefs.NAME of KEY as a file: read it, or write it to set it\n"
	"  future/ await/      the key space, seen for declaring and for waiting\n"
	"  aborted/            torn bytes of killed writers\n"
	"  wait-timeout        `echo 5s >` it: no open of that process and its descendants waits longer (0, none, default)\n"
	"  waits               who waits for what, one JSON object a line\n"
	"  events              what happens, live; write `log KEY` into it to read the past instead\n"
	"  metrics             Prometheus text\n"
	"\n"
	"promisefs(1) and promisefs(5) have the rest.\n";

enum listed { LISTED_VIEW, LISTED_KEYS, LISTED_FILE, LISTED_DIR };

static const struct control_entry {
	const char *name;
	enum listed what;
	fuse_ino_t id;
	enum view view;
	mode_t mode;
} entries[] = {
	{ "future", LISTED_VIEW, META_ROOT, VIEW_FUTURE, 0 },
	{ "await", LISTED_VIEW, META_ROOT, VIEW_AWAIT, 0 },
	{ "attributes", LISTED_DIR, CONTROL_ATTRIBUTES, VIEW_CONTROL, 0555 },
	{ "once", LISTED_VIEW, META_ROOT, VIEW_ONCE, 0 },
	{ "own", LISTED_KEYS, META_OWN, VIEW_KEYS, 0 },
	{ "ref", LISTED_KEYS, META_REF, VIEW_REF, 0 },
	{ "mut", LISTED_KEYS, META_MUT, VIEW_MUT, 0 },
	{ "await-ref", LISTED_VIEW, META_REF, VIEW_TURN, 0 },
	{ "await-mut", LISTED_VIEW, META_MUT, VIEW_TURN, 0 },
	{ "lend", LISTED_VIEW, META_ROOT, VIEW_LEND, 0 },
	{ "lifetimes", LISTED_KEYS, META_LIFETIMES, VIEW_LIFETIME, 0 },
	{ "aborted", LISTED_KEYS, META_ABORTED, VIEW_KEYS, 0 },
	{ "metrics", LISTED_FILE, CONTROL_METRICS, VIEW_CONTROL, 0444 },
	{ "events", LISTED_FILE, CONTROL_EVENTS, VIEW_CONTROL, 0666 },
	{ "waits", LISTED_FILE, CONTROL_WAITS, VIEW_CONTROL, 0444 },
	{ "wait-timeout", LISTED_FILE, CONTROL_WAIT_TIMEOUT, VIEW_CONTROL, 0666 },
	{ "README", LISTED_FILE, CONTROL_README, VIEW_CONTROL, 0444 },
};
#define ENTRIES (sizeof(entries) / sizeof(entries[0]))

bool control_name_is_reserved(fuse_ino_t parent, const char *name)
{
	return parent == META_ROOT && strcmp(name, CONTROL_NAME) == 0;
}

static void control_stat(struct fs *fs, fuse_ino_t id, mode_t mode, struct stat *st)
{
	*st = (struct stat){
		.st_ino = node_in(VIEW_CONTROL, id), .st_mode = mode, .st_nlink = S_ISDIR(mode) ? 2 : 1,
		.st_uid = geteuid(), .st_gid = getegid(), .st_blksize = 4096,
	};
	st->st_mtim.tv_sec = st->st_ctim.tv_sec = st->st_atim.tv_sec = fs->started / NS_PER_SEC;
}

int control_getattr(struct fs *fs, fuse_ino_t ino, struct stat *st)
{
	if (node_id(ino) == CONTROL_DIR) {
		control_stat(fs, CONTROL_DIR, S_IFDIR | 0755, st);
		return 0;
	}
	if (node_id(ino) == CONTROL_ATTRIBUTES) {
		control_stat(fs, CONTROL_ATTRIBUTES, S_IFDIR | 0555, st);
		return 0;
	}
	for (size_t i = 0; i < ENTRIES; i++)
		if (entries[i].what == LISTED_FILE && entries[i].id == node_id(ino)) {
			control_stat(fs, entries[i].id, S_IFREG | entries[i].mode, st);
			if (entries[i].id == CONTROL_README)
				st->st_size = (off_t)strlen(readme);
			return 0;
		}
	return -ENOENT;
}

static bool entry_param(struct fs *fs, const struct control_entry *c, struct fuse_entry_param *p)
{
	const struct caller nobody = { 0 };
	struct entry e;

	if (c->what == LISTED_FILE || c->what == LISTED_DIR) {
		*p = (struct fuse_entry_param){ .ino = node_in(VIEW_CONTROL, c->id), .generation = 1 };
		return control_getattr(fs, p->ino, &p->attr) == 0;
	}
	if (store_getattr(fs->store, &nobody, c->id, &e) < 0)
		return false;
	reply_entry_param(c->view, &e, p);
	p->entry_timeout = 3600;
	return true;
}

/* The key space, as one attribute shows it. */
static bool attributes_entry(struct fs *fs, const char *name, struct fuse_entry_param *p)
{
	struct control_entry c = { .what = LISTED_VIEW, .id = META_ROOT };

	return attribute_view(name, &c.view) == 0 && entry_param(fs, &c, p);
}

bool control_lookup(struct fs *fs, fuse_ino_t parent, const char *name, struct fuse_entry_param *p)
{
	if (control_name_is_reserved(parent, name)) {
		*p = (struct fuse_entry_param){ .ino = node_in(VIEW_CONTROL, CONTROL_DIR), .generation = 1,
						.attr_timeout = 3600, .entry_timeout = 3600 };
		return control_getattr(fs, p->ino, &p->attr) == 0;
	}
	if (parent == node_in(VIEW_CONTROL, CONTROL_ATTRIBUTES))
		return attributes_entry(fs, name, p);
	if (parent != node_in(VIEW_CONTROL, CONTROL_DIR))
		return false;
	for (size_t i = 0; i < ENTRIES; i++)
		if (strcmp(entries[i].name, name) == 0)
			return entry_param(fs, &entries[i], p);
	return false;
}

static void list_attributes(fuse_req_t req, size_t size, off_t off, bool plus)
{
	const struct stat st = { .st_ino = 1, .st_mode = S_IFDIR };
	const struct fuse_entry_param p = { .attr = st };
	char buf[4096];
	size_t used = 0;

	for (unsigned i = off < 0 ? 0 : (unsigned)off; i < 2 || store_attribute_name(i - 2) != NULL; i++) {
		const char *name = i == 0 ? "." : i == 1 ? ".." : store_attribute_name(i - 2);
		size_t left = (size < sizeof(buf) ? size : sizeof(buf)) - used, n;

		n = plus ? fuse_add_direntry_plus(req, buf + used, left, name, &p, (off_t)i + 1) :
			   fuse_add_direntry(req, buf + used, left, name, &st, (off_t)i + 1);
		if (n > left)
			break;
		used += n;
	}
	fuse_reply_buf(req, buf, used);
}

/* With `plus` too, nothing is looked up here: a node number of 0 says so. */
void control_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	char buf[4096];
	size_t used = 0;

	if (node_id(ino) == CONTROL_ATTRIBUTES) {
		list_attributes(req, size, off, plus);
		return;
	}

	for (size_t i = off < 0 ? 0 : (size_t)off; i < ENTRIES + 2; i++) {
		struct fuse_entry_param p = { .attr = { .st_ino = 1, .st_mode = S_IFDIR } };
		const char *name = i == 0 ? "." : i == 1 ? ".." : entries[i - 2].name;
		size_t left = (size < sizeof(buf) ? size : sizeof(buf)) - used, n;

		if (i >= 2) {
			p.attr.st_ino = node_in(entries[i - 2].view, entries[i - 2].id);
			p.attr.st_mode = entries[i - 2].what == LISTED_FILE ? S_IFREG : S_IFDIR;
		}
		n = plus ? fuse_add_direntry_plus(req, buf + used, left, name, &p, (off_t)i + 1) :
			   fuse_add_direntry(req, buf + used, left, name, &p.attr, (off_t)i + 1);
		if (n > left)
			break;
		used += n;
	}
	fuse_reply_buf(req, buf, used);
}

/* waits */

struct waits {
	struct fs *fs;
	struct text *text;
	const struct caller *who;
};

static void add_process(struct text *t, int32_t tid)
{
	struct process p;

	process_look(tid, &p);
	text_add(t, "\"pid\":%d,\"command\":", p.pid);
	text_json(t, p.command);
}

static int add_wait(void *arg, const struct wait_info *w)
{
	struct waits *ws = arg;
	struct text *t = ws->text;
	char since[40];
	int64_t now = ws->fs->meta->ops->now(ws->fs->meta);

	if (w->uid != ws->who->uid && !store_sees(ws->fs->store, ws->who, w->key, NULL))
		return 0;
	format_time(w->since, since);
	text_add(t, "{\"key\":");
	text_json(t, w->key);
	text_add(t, ",");
	add_process(t, w->tid);
	text_add(t, ",\"uid\":%u,\"since\":\"%s\",\"waited_ms\":%lld,\"state\":\"%s\"", w->uid, since,
		 (long long)((now - w->since) / NS_PER_MS), w->state);
	if (w->handle != NULL) {
		text_add(t, ",\"wants\":\"%.3s\",\"handle\":", w->handle);
		text_json(t, w->handle);
	}
	text_add(t, ",\"holders\":[");
	for (unsigned i = 0; i < w->holder_count; i++) {
		text_add(t, i == 0 ? "{" : ",{");
		add_process(t, w->holders[i]);
		text_add(t, "}");
	}
	text_add(t, "]}\n");
	return t->failed ? -ENOMEM : 0;
}

static int fill(fuse_req_t req, uint64_t id, struct text *t)
{
	struct fs *fs = fs_of(req);
	uint32_t groups[CALLER_GROUPS];
	struct caller who;
	struct waits ws = { .fs = fs, .text = t, .who = &who };

	switch (id) {
	case CONTROL_README:
		text_add(t, "%s", readme);
		break;
	case CONTROL_METRICS:
		metrics_text(fs, t);
		break;
	case CONTROL_WAITS:
		who = caller_with_groups(req, 0, groups);
		return store_waits(fs->store, add_wait, &ws);
	case CONTROL_WAIT_TIMEOUT:
		patience_text(req, t);
		break;
	default:
		return -EACCES;
	}
	return t->failed ? -ENOMEM : 0;
}

static int kind_of(uint64_t id)
{
	return id == CONTROL_EVENTS ? FILE_EVENTS : id == CONTROL_WAIT_TIMEOUT ? FILE_PATIENCE : FILE_TEXT;
}

static int open_control(fuse_req_t req, uint64_t id, int flags, struct file **ret)
{
	struct fs *fs = fs_of(req);
	struct text t = { 0 };
	struct file *f;
	int r;

	if (kind_of(id) == FILE_TEXT && (flags & O_ACCMODE) != O_RDONLY)
		return -EACCES;
	r = file_new(fs, kind_of(id), caller_of(req).uid, &f);
	if (r < 0)
		return r;
	*ret = f;
	f->ino = node_in(VIEW_CONTROL, id);
	if (id == CONTROL_EVENTS) {
		f->listener = listener_new(fs, f, req);
		return f->listener == NULL ? -ENOMEM : 0;
	}
	r = fill(req, id, &t);
	f->text = t.at;
	f->text_len = t.len;
	return r;
}

static void open_now(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct file *f = NULL;
	int r = open_control(req, node_id(ino), fi->flags, &f);

	if (r < 0) {
		file_free(f);
		fuse_reply_err(req, -r);
		return;
	}
	fi->direct_io = 1; /* its length is known only by reading it */
	fi->nonseekable = f->kind == FILE_EVENTS;
	fi->noflush = 1;
	if (file_reply(f, req, fi, NULL) < 0)
		file_free(f);
}

struct opening {
	struct work work;
	fuse_req_t req;
	fuse_ino_t ino;
	struct fuse_file_info fi;
};

static void open_later(struct work *w)
{
	struct opening *o = (struct opening *)w;

	open_now(o->req, o->ino, &o->fi);
	free(o);
}

/* There may be thousands who wait, and each is looked at. */
void control_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct opening *o = node_id(ino) == CONTROL_WAITS ? calloc(1, sizeof(*o)) : NULL;

	if (o == NULL) {
		open_now(req, ino, fi);
		return;
	}
	*o = (struct opening){ .work.run = open_later, .req = req, .ino = ino, .fi = *fi };
	workers_queue(fs_of(req)->tellers, &o->work);
}

/* Extended attributes: the user's own, kept as they are, and `user.promisefs.*`, which show and change the state of
 * an object. One table says which there are and what reading and setting them does. */
#include "core/acl_rule.h"
#include "core/internal.h"
#include "core/parse.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define OURS "user.promisefs."
#define TEXT_MAX 1024

/* What reading and setting get to see. */
struct request {
	struct store *st;
	struct op *op;
	struct subject *s;
	const char *value; /* set: as a string */
	char *text;        /* get: TEXT_MAX bytes */
	int error;         /* of the future, for `error` */
};

static const char *const state_names[] = { NULL, "pending", "writing", "ready", "failed" };

static int get_state(struct request *rq)
{
	if (!is_file(&rq->s->o))
		return -ENODATA;
	if (rq->s->via == VIA_REF && rq->s->handle.declared)
		return snprintf(rq->text, TEXT_MAX, "waiting"); /* for its turn */
	return snprintf(rq->text, TEXT_MAX, "%s", state_names[rq->s->o.state]);
}

static int get_version(struct request *rq)
{
	return is_file(&rq->s->o) ? snprintf(rq->text, TEXT_MAX, "%llu", (unsigned long long)rq->s->o.version) : -ENODATA;
}

static int get_id(struct request *rq)
{
	return snprintf(rq->text, TEXT_MAX, "%llu", (unsigned long long)rq->s->o.id);
}

static int get_deadline(struct request *rq)
{
	if (rq->s->o.deadline == 0)
		return -ENODATA;
	format_time(rq->s->o.deadline, rq->text);
	return (int)strlen(rq->text);
}

static bool pending(const struct meta_object *o)
{
	return o->state == OBJECT_PENDING || (o->state == OBJECT_WRITING && o->declared);
}

static int parse_deadline(struct store *st, const char *value, int64_t *at)
{
	int r;

	if (strcmp(value, "none") == 0) {
		*at = 0;
		return 0;
	}
	r = parse_duration(value, at);
	if (r == 0)
		*at += store_now(st);
	if (r < 0)
		r = parse_time(value, at);
	if (r == 0 && *at == 0)
		*at = 1; /* 0 is for none */
	return r;
}

static int set_deadline(struct request *rq)
{
	int r = parse_deadline(rq->st, rq->value, &rq->s->o.deadline);

	if (r < 0 || !pending(&rq->s->o))
		return -EINVAL;
	r = subject_save(rq->st, rq->s);
	if (r == 0)
		deadline_rearm(rq->st);
	return r;
}

static int get_error(struct request *rq)
{
	struct meta *m = rq->st->meta;
	const char *name = errno_name(rq->s->o.error);
	char reason[TEXT_MAX / 2];
	int r;

	if (rq->s->o.state != OBJECT_FAILED)
		return -ENODATA;
	r = m->ops->attribute_get(m, rq->s->o.id, "pfs.error", reason, sizeof(reason));
	return snprintf(rq->text, TEXT_MAX, "%s: %.*s", name != NULL ? name : "EIO", r > 0 ? r : 0, reason);
}

/* `REASON`, `ENAME` or `ENAME: REASON`. */
static int set_error(struct request *rq)
{
	const char *reason = rq->value;
	size_t name = strcspn(reason, ": ");
	int error = reason[name] == '\0' || reason[name] == ':' ? errno_by_name(reason, name) : 0;

	if (!is_file(&rq->s->o) || rq->s->gone)
		return -EINVAL;
	if (rq->s->o.state == OBJECT_READY)
		return -EEXIST;
	if (error != 0) {
		reason += name;
		reason += strspn(reason, ": ");
	}
	return future_fail(rq->op, rq->s, error != 0 ? error : EIO, reason);
}

static int get_producer(struct request *rq)
{
	struct meta_object *o = &rq->s->o;

	if (o->producer_command[0] == '\0')
		return -ENODATA;
	return snprintf(rq->text, TEXT_MAX, "pid=%d uid=%u command=%s", o->producer_pid, o->producer_uid,
			o->producer_command);
}

static int get_publish(struct request *rq)
{
	if (!is_dir(&rq->s->o))
		return -ENODATA;
	return snprintf(rq->text, TEXT_MAX, "%s", rq->s->o.live ? "write" : "close");
}

static int set_publish(struct request *rq)
{
	bool write = strcmp(rq->value, "write") == 0;

	if (!is_dir(&rq->s->o) || (!write && strcmp(rq->value, "close") != 0))
		return -EINVAL;
	rq->s->o.live = write;
	return subject_save(rq->st, rq->s);
}

static int remove_deadline(struct request *rq)
{
	rq->value = "none";
	return rq->s->o.deadline == 0 ? -ENODATA : set_deadline(rq);
}

static int remove_publish(struct request *rq)
{
	rq->value = "close";
	return set_publish(rq);
}

static int get_lease(struct request *rq)
{
	return lease_text(rq->st, subject_self(rq->s)->id, rq->text);
}

static int set_lease(struct request *rq)
{
	return lease_set(rq->op, rq->s, rq->value);
}

static int remove_lease(struct request *rq)
{
	char text[40];
	int r = lease_text(rq->st, subject_self(rq->s)->id, text);

	return r < 0 ? r : lease_set(rq->op, rq->s, "none");
}

static int get_pid(struct request *rq)
{
	struct meta_binding b;
	int r = rq->st->meta->ops->binding_get(rq->st->meta, subject_self(rq->s)->id, &b);

	return r == 0 ? snprintf(rq->text, TEXT_MAX, "%d", b.pid) : r == -ENOENT ? -ENODATA : r;
}

static int remove_pid(struct request *rq)
{
	struct meta_binding b;
	int r = check_can_expire(rq->st, rq->op->who, rq->s);

	if (r == 0)
		r = rq->st->meta->ops->binding_get(rq->st->meta, subject_self(rq->s)->id, &b);
	return r == 0 ? rq->st->meta->ops->binding_remove(rq->st->meta, subject_self(rq->s)->id) : r == -ENOENT ? -ENODATA : r;
}

static int get_lifetime(struct request *rq)
{
	struct meta_dentry d;
	int r = is_dir(&rq->s->o) ? lifetime_name(rq->st, rq->s->o.lifetime, &d) : -ENOENT;

	return r == 0 ? snprintf(rq->text, TEXT_MAX, "%s", d.name) : r == -ENOENT ? -ENODATA : r;
}

static int set_lifetime(struct request *rq)
{
	return lifetime_of_dir_set(rq->op, rq->s, rq->value);
}

static int remove_lifetime(struct request *rq)
{
	return !is_dir(&rq->s->o) || rq->s->o.lifetime == 0 ? -ENODATA : lifetime_of_dir_set(rq->op, rq->s, NULL);
}

static int get_lifetimes(struct request *rq)
{
	return lifetimes_of(rq->st, subject_self(rq->s)->id, rq->text, TEXT_MAX);
}

static int get_borrows(struct request *rq)
{
	int64_t n = rq->s->o.borrows;

	if (!is_file(&rq->s->o))
		return -ENODATA;
	if (n > 0)
		return snprintf(rq->text, TEXT_MAX, "ref %lld", (long long)n);
	return snprintf(rq->text, TEXT_MAX, "%s", n == 0 ? "none" : "mut");
}

/* The name that owns it; the first one when there are several keys. */
static int get_owner(struct request *rq)
{
	struct meta_dentry d;
	char path[PATH_MAX];
	int r = rq->st->meta->ops->dentry_names(rq->st->meta, rq->s->o.id, take_name, &d);

	if (r <= 0 || !is_file(&rq->s->o))
		return r < 0 ? r : -ENODATA;
	r = path_of_name(rq->st, d.parent, d.name, path);
	return r < 0 ? r : snprintf(rq->text, TEXT_MAX, "%s", path);
}

static int get_evict(struct request *rq)
{
	return rq->s->o.evict ? snprintf(rq->text, TEXT_MAX, "1") : -ENODATA;
}

static int set_evict(struct request *rq)
{
	struct object *obj = rq->s->obj;
	bool evict = strcmp(rq->value, "1") == 0;

	if (!is_file(&rq->s->o) || (!evict && strcmp(rq->value, "0") != 0))
		return -EINVAL;
	rq->s->o.evict = evict;
	pthread_mutex_lock(&rq->st->lock);
	if (obj != NULL)
		object_guard(obj, &rq->s->o);
	pthread_mutex_unlock(&rq->st->lock);
	return subject_save(rq->st, rq->s);
}

static int remove_evict(struct request *rq)
{
	rq->value = "0";
	return rq->s->o.evict ? set_evict(rq) : -ENODATA;
}

static const struct our_attribute {
	const char *name;
	int (*get)(struct request *rq);
	int (*set)(struct request *rq);
	int (*remove)(struct request *rq);
} ours[] = {
	{ "state", get_state, NULL, NULL },
	{ "version", get_version, NULL, NULL },
	{ "id", get_id, NULL, NULL },
	{ "deadline", get_deadline, set_deadline, remove_deadline },
	{ "error", get_error, set_error, NULL },
	{ "producer", get_producer, NULL, NULL },
	{ "publish", get_publish, set_publish, remove_publish },
	{ "lease", get_lease, set_lease, remove_lease },
	{ "lifetime", get_lifetime, set_lifetime, remove_lifetime },
	{ "lifetimes", get_lifetimes, NULL, NULL },
	{ "owner", get_owner, NULL, NULL },
	{ "borrows", get_borrows, NULL, NULL },
	{ "evict", get_evict, set_evict, remove_evict },
	{ "pid", get_pid, NULL, remove_pid }, /* setting it: bind_to */
};

const char *store_attribute_name(unsigned i)
{
	const unsigned n = sizeof(ours) / sizeof(ours[0]);

	return i < n ? ours[i].name : i == n ? "sha256" : NULL;
}

static const struct our_attribute *find_ours(const char *name)
{
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (strcmp(ours[i].name, name + strlen(OURS)) == 0)
			return &ours[i];
	return NULL;
}

static bool is_ours(const char *name)
{
	return strncmp(name, OURS, strlen(OURS)) == 0;
}

/* `pfs.` is where core keeps what belongs to an object; nobody else can name it. */
static int check_name(const struct store *st, const char *name)
{
	static const char *const prefixes[] = { "user.", "trusted.", "security." };

	if (is_acl(name))
		return st->uses_acls ? 0 : -EOPNOTSUPP;
	for (unsigned i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return name[strlen(prefixes[i])] != '\0' ? 0 : -EINVAL;
	return -EOPNOTSUPP;
}

static int give(const char *text, int len, void *value, size_t size)
{
	if (len < 0 || size == 0)
		return len;
	if ((size_t)len > size)
		return -ERANGE;
	memcpy(value, text, (size_t)len);
	return len;
}

/* The hash: computed once per version, when somebody asks. */

/* Of the first `left` bytes: an append may be under way behind them. */
int hash_file(int fd, int64_t left, char hex[static 65])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	size_t size = 1 << 18;
	unsigned char *buf = malloc(size);
	unsigned len = 0;
	ssize_t n = -1;

	if (ctx != NULL && buf != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1)
		while ((n = read(fd, buf, left < (int64_t)size ? (size_t)left : size)) > 0) {
			EVP_DigestUpdate(ctx, buf, (size_t)n);
			left -= n;
		}
	if (n == 0)
		EVP_DigestFinal_ex(ctx, digest, &len);
	EVP_MD_CTX_free(ctx);
	free(buf);
	for (unsigned i = 0; i < len; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	return n == 0 && len == 32 ? 0 : -EIO;
}

static int known_hash(struct store *st, enum via via, uint64_t node, char hex[static 65], struct meta_object *o)
{
	struct subject s;
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = subject_get_via(st, via, node, &s);
	if (r == 0)
		r = subject_refresh(st, &s, node);
	if (r == 0) {
		bool current = s.o.vid == node || via == VIA_REF || (s.v == NULL && !s.gone);

		*o = s.o;
		r = is_file(o) && o->state == OBJECT_READY && current && !s.gone ? 0 : -ENODATA;
		if (r == 0 && !o->live)
			r = st->meta->ops->attribute_get(st->meta, o->id, "pfs.sha256", hex, 64);
		if (r == -ENOENT)
			r = 0;
		subject_put(st, &s);
	} else if (r == -ENOENT) {
		r = -ESTALE;
	}
	op_end(&op, 0, META_READ, NULL);
	return r;
}

static void keep_hash(struct store *st, const struct meta_object *of, const char *hex)
{
	struct meta_object o;
	struct op op;
	int r;

	op_begin(&op, st, NULL);
	r = st->meta->ops->object_get(st->meta, of->id, &o);
	if (r == 0 && (o.vid != of->vid || o.live))
		r = -ESTALE;
	if (r == 0)
		r = st->meta->ops->attribute_set(st->meta, of->id, "pfs.sha256", hex, 64);
	op_end(&op, r, META_LATER, NULL);
}

static int get_hash(struct store *st, enum via via, uint64_t node, void *value, size_t size)
{
	struct meta_object o;
	char hex[65] = "";
	int fd, r = known_hash(st, via, node, hex, &o);

	if (r < 0)
		return r;
	if (r == 0 && size > 0) { /* asking for the length is no reason to read all of it */
		fd = st->blobs->ops->open(st->blobs, o.vid);
		r = fd < 0 ? fd : hash_file(fd, o.live ? INT64_MAX : o.size, hex);
		if (fd >= 0)
			close(fd);
		if (r < 0)
			return r;
		keep_hash(st, &o, hex);
	}
	return give(hex, 64, value, size);
}

/* Who writes the first version is known to the process table, not to the catalog yet. */
static int get_writer(struct store *st, uint64_t node, void *value, size_t size)
{
	struct handle *h = NULL;
	struct version *v;
	struct process p;
	char text[TEXT_MAX];
	int32_t tid = 0;
	uint32_t uid = 0;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, node);
	if (v != NULL && v->role == ROLE_DRAFT)
		h = v->writer_list;
	if (h != NULL) {
		tid = h->tid;
		uid = h->uid;
	}
	pthread_mutex_unlock(&st->lock);
	if (h == NULL)
		return -ENODATA;
	st->hooks.process(st->hooks_arg, tid, &p);
	return give(text, snprintf(text, sizeof(text), "pid=%d uid=%u command=%s", p.pid, uid, p.command), value, size);
}

static void not_bare(struct store *st, struct object *obj)
{
	if (obj == NULL)
		return;
	pthread_mutex_lock(&st->lock);
	obj->bare = false;
	pthread_mutex_unlock(&st->lock);
}

/* The calls */

static int get_ours(struct store *st, struct subject *s, const char *name, void *value, size_t size)
{
	const struct our_attribute *a = find_ours(name);
	char text[TEXT_MAX];
	struct request rq = { .st = st, .s = s, .text = text };

	return a == NULL ? -ENODATA : give(text, a->get(&rq), value, size);
}

static int get_theirs(struct store *st, struct subject *s, const char *name, void *value, size_t size)
{
	if (s->gone && s->obj != NULL)
		return orphan_get(st, s->obj, name, value, size);
	return st->meta->ops->attribute_get(st->meta, s->o.id, name, value, size);
}

/* The kernel asks for security.capability before the first write to every file. */
static bool is_bare(struct store *st, uint64_t node)
{
	struct version *v;
	bool bare;

	pthread_mutex_lock(&st->lock);
	v = version_find(st, node);
	bare = v != NULL && v->object->bare;
	pthread_mutex_unlock(&st->lock);
	return bare;
}

int store_getxattr(struct store *st, const struct caller *who, uint64_t node, const char *name, void *value, size_t size)
{
	struct subject s;
	struct op op;
	bool gone;
	int r = check_name(st, name);

	if (r < 0)
		return r;
	if (!is_ours(name) && is_bare(st, node))
		return -ENODATA;
	if (is_acl(name) && (who->via == VIA_REF || who->via == VIA_MUT || !atomic_load(&st->has_acls)))
		return -ENODATA; /* the mode of a handle says who may use it */
	if (strcmp(name, OURS "sha256") == 0)
		return get_hash(st, who->via, node, value, size);
	op_begin(&op, st, who);
	r = subject_get_now(st, who, node, &s);
	gone = r == -ENOENT;
	if (r == 0) {
		r = is_ours(name) ? get_ours(st, &s, name, value, size) : get_theirs(st, &s, name, value, size);
		r = r == -ENOENT ? -ENODATA : r;
		subject_put(st, &s);
		if (!is_acl(name)) /* which the kernel looks at on its way to an open */
			intent_done(&op);
	}
	op_end(&op, 0, META_READ, NULL);
	if (gone && strncmp(name, "security.", 9) == 0)
		r = -ENODATA; /* the kernel asks by itself before it changes a file, and goes on whatever it is told */
	else if (gone)
		r = intent_stale(st, who->tid, node, false);
	if (r == -ENODATA && strcmp(name, OURS "producer") == 0)
		r = get_writer(st, node, value, size);
	return r;
}

/* Through a borrow: the lease of the handle, and what belongs to the user when he may write. */
static bool may_set(const struct subject *s, const char *name)
{
	if (subject_self(s) == &s->o || strcmp(name, OURS "lease") == 0 || strcmp(name, OURS "pid") == 0)
		return true;
	return s->via == VIA_MUT && !is_ours(name);
}

/* What the kernel says of setting attributes of such directories, whichever way it was asked. */
static int check_sticky(const struct caller *who, const struct meta_object *o)
{
	return is_dir(o) && (o->mode & S_ISVTX) != 0 && who->uid != 0 && who->uid != o->uid ? -EPERM : 0;
}

static int set_ours(struct op *op, struct subject *s, const char *name, const void *value, size_t len)
{
	const struct our_attribute *a = find_ours(name);
	char text[TEXT_MAX];
	struct request rq = { .st = op->st, .op = op, .s = s, .value = text };

	if (a == NULL || a->set == NULL || len >= sizeof(text) || memchr(value, '\0', len) != NULL)
		return -EINVAL;
	if (check_sticky(op->who, &s->o) < 0)
		return -EPERM;
	memcpy(text, value, len);
	text[len] = '\0';
	return a->set(&rq);
}

static int set_theirs(struct store *st, struct subject *s, const char *name, const void *value, size_t len, int flags)
{
	struct meta *m = st->meta;
	int r = m->ops->attribute_get(m, s->o.id, name, NULL, 0);

	if (s->gone)
		return s->obj != NULL ? orphan_set(st, s->obj, name, value, len, flags) : -ENOENT;
	if (r >= 0 && (flags & XATTR_CREATE) != 0)
		return -EEXIST;
	if (r == -ENOENT && (flags & XATTR_REPLACE) != 0)
		return -ENODATA;
	if (r < 0 && r != -ENOENT)
		return r;
	not_bare(st, s->obj);
	if (strncmp(name, "security.", 9) == 0)
		privileges_bless(st, s);
	s->o.ctime = store_now(st);
	r = m->ops->attribute_set(m, s->o.id, name, value, len);
	return r == 0 ? subject_save(st, s) : r;
}

static int set_acl(struct op *op, struct subject *s, const char *name, const void *value, size_t len)
{
	not_bare(op->st, s->obj);
	rights_changed(op, s);
	return access_set(op, s, name, value, len);
}

/* A process is looked at without locks. */
static int bind_to(struct store *st, const struct caller *who, uint64_t node, const char *value, size_t len,
		   struct meta_commit *c)
{
	char text[16];
	char *end;
	struct process self;
	long pid;

	if (len == 0 || len >= sizeof(text))
		return -EINVAL;
	memcpy(text, value, len);
	text[len] = '\0';
	if (strcmp(text, "self") == 0) {
		st->hooks.process(st->hooks_arg, who->tid, &self);
		return store_bind(st, who, node, self.pid, c);
	}
	pid = strtol(text, &end, 10);
	if (*end != '\0' || text[0] < '0' || text[0] > '9' || pid <= 0 || pid > INT32_MAX)
		return -EINVAL;
	return store_bind(st, who, node, (int32_t)pid, c);
}

/* Ends an operation on a node that could not be found. */
static int end_stale(struct op *op, uint64_t node, int r)
{
	op_end(op, r, META_READ, NULL);
	return r == -ENOENT ? intent_stale(op->st, op->who->tid, node, false) : r;
}

int store_setxattr(struct store *st, const struct caller *who, uint64_t node, const char *name, const void *value,
		   size_t len, int flags, struct meta_commit *c)
{
	struct subject s;
	struct op op;
	int r = check_name(st, name);

	if (r < 0)
		return r;
	if (strcmp(name, OURS "pid") == 0)
		return bind_to(st, who, node, value, len, c);
	if (is_ours(name))
		op_begin_named(&op, st, who);
	else
		op_begin(&op, st, who);
	r = subject_get_now(st, who, node, &s);
	if (r < 0)
		return end_stale(&op, node, r);
	if (is_acl(name))
		r = set_acl(&op, &s, name, value, len);
	else if (!may_set(&s, name))
		r = -EPERM;
	else
		r = is_ours(name) ? set_ours(&op, &s, name, value, len) : set_theirs(st, &s, name, value, len, flags);
	if (r == 0 && who->unseen && !s.gone)
		r = object_forget(&op, &s.o);
	subject_put(st, &s);
	intent_done(&op);
	return op_end(&op, r, META_RECORDED, c);
}

static int remove_ours(struct op *op, struct subject *s, const char *name)
{
	const struct our_attribute *a = find_ours(name);
	struct request rq = { .st = op->st, .op = op, .s = s };

	if (a != NULL && check_sticky(op->who, &s->o) < 0)
		return -EPERM;
	return a == NULL ? -ENODATA : a->remove == NULL ? -EINVAL : a->remove(&rq);
}

static int remove_theirs(struct store *st, struct subject *s, const char *name)
{
	struct meta *m = st->meta;
	int r = m->ops->attribute_get(m, s->o.id, name, NULL, 0);

	if (s->gone && s->obj != NULL)
		return orphan_remove(st, s->obj, name);
	if (r < 0)
		return r == -ENOENT ? is_acl(name) ? 0 : -ENODATA : r;
	s->o.ctime = store_now(st);
	r = m->ops->attribute_remove(m, s->o.id, name);
	return r == 0 ? subject_save(st, s) : r;
}

int store_removexattr(struct store *st, const struct caller *who, uint64_t node, const char *name, struct meta_commit *c)
{
	struct subject s;
	struct op op;
	int r = check_name(st, name);

	if (r < 0)
		return r;
	op_begin(&op, st, who);
	r = subject_get_now(st, who, node, &s);
	if (r < 0)
		return end_stale(&op, node, r);
	if (!may_set(&s, name) || (is_acl(name) && subject_self(&s) != &s.o))
		r = is_acl(name) ? -EOPNOTSUPP : -EPERM;
	else
		r = is_ours(name) ? remove_ours(&op, &s, name) : remove_theirs(st, &s, name);
	if (r == 0 && who->unseen && !s.gone)
		r = object_forget(&op, &s.o);
	subject_put(st, &s);
	intent_done(&op);
	return op_end(&op, r, META_RECORDED, c);
}

struct name_list {
	const struct store *st;
	bool root;
	char *list;
	size_t size, used;
};

static int list_name(void *arg, const char *name, size_t value_len)
{
	struct name_list *l = arg;
	size_t len = strlen(name) + 1;

	if (check_name(l->st, name) < 0 || (!l->root && strncmp(name, "trusted.", 8) == 0))
		return 0;
	if (l->size > 0 && l->used + len > l->size)
		return -ERANGE;
	if (l->size > 0)
		memcpy(l->list + l->used, name, len);
	l->used += len;
	return 0;
}

int store_listxattr(struct store *st, const struct caller *who, uint64_t node, char *list, size_t size)
{
	struct name_list l = { .st = st, .root = who->uid == 0, .list = list, .size = size };
	struct subject s;
	struct op op;
	bool gone;
	int r;

	op_begin(&op, st, who);
	r = subject_get_now(st, who, node, &s);
	gone = r == -ENOENT;
	if (r == 0) {
		r = s.gone && s.obj != NULL ? orphan_list(st, s.obj, list_name, &l) :
					      st->meta->ops->attribute_list(st->meta, s.o.id, list_name, &l);
		subject_put(st, &s);
		intent_done(&op);
	}
	op_end(&op, 0, META_READ, NULL);
	if (gone)
		r = intent_stale(st, who->tid, node, false);
	return r < 0 ? r : (int)l.used;
}

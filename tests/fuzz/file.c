/* Random operations on a few files by one process, compared byte by byte with a shadow in memory.
 *
 *   fuzz-file [-m promise|native] [-c] [-s SEED] [-n OPERATIONS] [-t SECONDS] [-v] -p PROBE DIRECTORY
 *
 * One run is OPERATIONS operations in the empty DIRECTORY, made from SEED alone; with -t there are runs, of SEED,
 * SEED + 1 and so on, until the time is over. PROBE is a directory on the file system that is below, where it is found
 * out what that can do. With -c there are mappings that are stored into when their descriptor is closed; -v prints every
 * operation. After a difference the last operations, the seed and the place are printed, and the exit status is 1.
 *
 * The shadow knows two rules. native: a file is one set of bytes for all who have it open, as on any file system, and
 * below a publish=write directory. promise: who opens a file for writing gets a draft, which starts as a copy, which
 * all writers and this process's readers share from then on, and which becomes the file when the last writer has closed
 * it; who has opened a version keeps that. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SIZE_MAX_BYTES (384 * 1024)
#define PAGE 4096
#define NAMES 4
#define SLOTS 8
#define MAPS 4
#define TRACE 60
#define LINE 160

struct version {
	unsigned char *bytes;
	int64_t size;
	int refs, writers;
};

struct object {
	struct version *current, *draft;
	int links, refs;
};

struct description { /* what open(2) makes; dup(2) shares it */
	struct object *object;
	struct version *version;
	int flags, refs;
	int64_t at;
	bool writer, appends; /* was opened with O_APPEND */
};

struct slot {
	int fd;
	struct description *d;
};

struct mapping {
	unsigned char *at;
	int64_t offset, size;
	bool writable;
	struct description *d; /* NULL: this place is free */
};

static struct {
	bool promise, verbose, closed_maps;
	int dir, probe;
	uint64_t seed, random, step;
	bool zero_range, punch_hole, direct;
	struct object *names[NAMES];
	struct slot slots[SLOTS];
	struct mapping maps[MAPS];
	char trace[TRACE][LINE];
	unsigned traced;
} f;

static unsigned char *buffer, *other; /* aligned for O_DIRECT */

/* ---- Telling ---- */

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void differ(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void say(const char *format, ...)
{
	char *line = f.trace[f.traced++ % TRACE];
	int n = snprintf(line, LINE, "%" PRIu64 ": ", f.step);
	va_list args;

	va_start(args, format);
	vsnprintf(line + n, LINE - (size_t)n, format, args);
	va_end(args);
	if (f.verbose)
		printf("%s\n", line);
}

static void differ(const char *format, ...)
{
	va_list args;

	for (unsigned i = f.traced > TRACE ? f.traced - TRACE : 0; i < f.traced; i++)
		printf("  %s\n", f.trace[i % TRACE]);
	va_start(args, format);
	printf("seed %" PRIu64 ", operation %" PRIu64 ": ", f.seed, f.step);
	vprintf(format, args);
	printf("\n");
	exit(1);
}

/* A mapping whose file was cut off under it. Printing here is safe enough: what is interrupted copies bytes. */
static void bus_error(int number)
{
	differ("a mapping: no such page (%s)", sigabbrev_np(number));
}

static const char *name_of(int error)
{
	return error == 0 ? "success" : strerrorname_np(error);
}

/* What a call returned against what it should have failed with (0: nothing). True: it has succeeded. */
static bool as_expected(const char *what, int64_t result, int error)
{
	int found = result < 0 ? errno : 0;

	if (found != error)
		differ("%s: %s, should be %s", what, name_of(found), name_of(error));
	return found == 0;
}

static void same_bytes(const char *what, const unsigned char *found, const unsigned char *wanted, int64_t n, int64_t at)
{
	for (int64_t i = 0; i < n; i++)
		if (found[i] != wanted[i])
			differ("%s: byte %" PRId64 " is 0x%02x, should be 0x%02x", what, at + i, found[i], wanted[i]);
}

/* ---- Chance ---- */

static uint64_t chance(uint64_t n)
{
	f.random ^= f.random << 13;
	f.random ^= f.random >> 7;
	f.random ^= f.random << 17;
	return f.random % n;
}

static int64_t some_size(int64_t max)
{
	static const int64_t scales[] = { 1, 16, 600, PAGE, 3 * PAGE, 65536, 100000 };
	int64_t scale = scales[chance(sizeof(scales) / sizeof(scales[0]))];
	int64_t n = (int64_t)chance((uint64_t)scale) + 1;

	if (chance(4) == 0)
		n = (n + PAGE - 1) / PAGE * PAGE;
	return n > max ? max : n;
}

static int64_t some_offset(int64_t size)
{
	int64_t at = (int64_t)chance((uint64_t)size + 1);

	switch (chance(6)) {
	case 0:
		return 0;
	case 1:
		return size;
	case 2:
		return at / PAGE * PAGE;
	case 3:
		return (int64_t)chance(SIZE_MAX_BYTES - 70000);
	default:
		return at;
	}
}

static void fill(unsigned char *at, int64_t n)
{
	uint64_t tag = f.step * 2654435761u + f.seed;

	for (int64_t i = 0; i < n; i++)
		at[i] = (unsigned char)((tag + (uint64_t)i * 31 + ((uint64_t)i >> 8) * 7) | 1); /* never 0, as holes are */
}

/* ---- The shadow ---- */

static struct version *version_new(const struct version *from)
{
	struct version *v = calloc(1, sizeof(*v));

	v->bytes = calloc(1, SIZE_MAX_BYTES);
	v->refs = 1;
	if (from != NULL) {
		v->size = from->size;
		memcpy(v->bytes, from->bytes, (size_t)from->size);
	}
	return v;
}

static struct version *version_ref(struct version *v)
{
	v->refs++;
	return v;
}

static void version_unref(struct version *v)
{
	if (v == NULL || --v->refs > 0)
		return;
	free(v->bytes);
	free(v);
}

static void object_unref(struct object *o)
{
	if (o == NULL || --o->refs > 0)
		return;
	version_unref(o->current);
	free(o);
}

static void name_set(int name, struct object *o)
{
	struct object *before = f.names[name];

	if (o != NULL) {
		o->links++;
		o->refs++;
	}
	f.names[name] = o;
	if (before != NULL) {
		before->links--;
		object_unref(before);
	}
}

static void resize(struct version *v, int64_t size)
{
	if (size < v->size)
		memset(v->bytes + size, 0, (size_t)(v->size - size));
	v->size = size;
}

static void put_bytes(struct version *v, const unsigned char *bytes, int64_t n, int64_t at)
{
	memcpy(v->bytes + at, bytes, (size_t)n);
	if (n > 0 && at + n > v->size)
		v->size = at + n;
}

static int64_t readable_from(const struct version *v, int64_t at, int64_t n)
{
	return at >= v->size ? 0 : v->size - at < n ? v->size - at : n;
}

static struct version *draft_of(struct object *o)
{
	if (!f.promise)
		return o->current;
	if (o->draft == NULL)
		o->draft = version_new(o->current);
	return o->draft;
}

static void writer_gone(struct object *o, struct version *v)
{
	if (!f.promise || --v->writers > 0)
		return;
	o->draft = NULL;
	version_unref(o->current);
	o->current = v; /* takes the reference that the draft had */
}

/* ---- Slots ---- */

static struct slot *free_slot(void)
{
	for (int i = 0; i < SLOTS; i++)
		if (f.slots[i].d == NULL)
			return &f.slots[i];
	return NULL;
}

static struct slot *some_slot(void)
{
	struct slot *open[SLOTS];
	int n = 0;

	for (int i = 0; i < SLOTS; i++)
		if (f.slots[i].d != NULL)
			open[n++] = &f.slots[i];
	return n == 0 ? NULL : open[chance((uint64_t)n)];
}

static int index_of(const struct slot *s)
{
	return (int)(s - f.slots);
}

static bool reads(const struct slot *s)
{
	return (s->d->flags & O_ACCMODE) != O_WRONLY;
}

static bool writes(const struct slot *s)
{
	return (s->d->flags & O_ACCMODE) != O_RDONLY;
}

static bool direct(const struct slot *s)
{
	return (s->d->flags & O_DIRECT) != 0;
}

static const char *path(int name)
{
	static const char *const names[NAMES] = { "a", "b", "c", "d" };

	return names[name];
}

static void text_of_flags(int flags, char text[static 64])
{
	static const char *const access[] = { "rdonly", "wronly", "rdwr", "?" };

	snprintf(text, 64, "%s%s%s%s%s%s%s", access[flags & O_ACCMODE], flags & O_CREAT ? " creat" : "",
		 flags & O_EXCL ? " excl" : "", flags & O_TRUNC ? " trunc" : "",
		 flags & O_APPEND ? " append" : "", flags & O_DIRECT ? " direct" : "",
		 (flags & O_SYNC) == O_SYNC ? " sync" : "");
}

static int open_error(int name, int flags)
{
	if (f.names[name] == NULL)
		return (flags & O_CREAT) == 0 ? ENOENT : (flags & O_DIRECT) != 0 && !f.direct ? EINVAL : 0;
	if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
		return EEXIST;
	return (flags & O_DIRECT) != 0 && !f.direct ? EINVAL : 0;
}

static struct description *describe(int name, int flags)
{
	struct description *d = calloc(1, sizeof(*d));
	struct object *o = f.names[name];
	bool made = o == NULL;

	if (made) {
		o = calloc(1, sizeof(*o));
		if (!f.promise)
			o->current = version_new(NULL);
		name_set(name, o);
	}
	d->object = o;
	o->refs++;
	d->flags = flags & ~(O_CREAT | O_EXCL | O_TRUNC);
	d->refs = 1;
	d->appends = (flags & O_APPEND) != 0;
	d->writer = (flags & O_ACCMODE) != O_RDONLY;
	if (made && !d->writer && f.promise)
		o->current = version_new(NULL); /* there is nothing to wait for */
	d->version = version_ref(d->writer ? draft_of(o) : f.promise && o->draft != NULL ? o->draft : o->current);
	if (d->writer)
		d->version->writers++;
	if ((flags & O_TRUNC) != 0)
		resize(d->version, 0);
	return d;
}

static int some_flags(void)
{
	static const int access[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR };
	int flags = access[chance(4)];

	if (chance(3) != 0)
		flags |= O_CREAT;
	if (chance(12) == 0)
		flags |= O_EXCL | O_CREAT;
	if ((flags & O_ACCMODE) != O_RDONLY && chance(4) == 0)
		flags |= O_TRUNC;
	if ((flags & O_ACCMODE) != O_RDONLY && chance(4) == 0)
		flags |= O_APPEND;
	if (chance(8) == 0 && f.direct)
		flags |= O_DIRECT;
	if (chance(10) == 0)
		flags |= O_SYNC;
	return flags;
}

static void op_open(void)
{
	struct slot *s = free_slot();
	int name = (int)chance(NAMES), flags = some_flags(), error = open_error(name, flags);
	char text[64];

	if (s == NULL)
		return;
	text_of_flags(flags, text);
	say("open %s %s -> slot %d", path(name), text, index_of(s));
	s->fd = openat(f.dir, path(name), flags | O_CLOEXEC, 0644);
	if (as_expected("open", s->fd, error))
		s->d = describe(name, flags);
}

static void unmap(struct mapping *m)
{
	struct description *d = m->d;

	if (d == NULL)
		return;
	if (munmap(m->at, (size_t)m->size) < 0)
		differ("munmap: %s", name_of(errno));
	m->d = NULL;
	version_unref(d->version);
	if (--d->refs == 0) {
		object_unref(d->object);
		free(d);
	}
}

/* A mapping keeps what it maps open, and with it a draft. */
static void unmap_all_of(const struct description *d)
{
	for (int i = 0; i < MAPS; i++)
		if (f.maps[i].d == d)
			unmap(&f.maps[i]);
}

static int slots_of(const struct description *d)
{
	int n = 0;

	for (int i = 0; i < SLOTS; i++)
		n += f.slots[i].d == d;
	return n;
}

static void close_slot(struct slot *s)
{
	struct description *d = s->d;
	bool last = slots_of(d) == 1;

	if (last && d->writer && f.promise)
		unmap_all_of(d);
	as_expected("close", close(s->fd), 0);
	s->d = NULL;
	if (last && d->writer)
		writer_gone(d->object, d->version);
	if (last)
		version_unref(d->version);
	if (--d->refs == 0) {
		object_unref(d->object);
		free(d);
	}
}

static void op_close(void)
{
	struct slot *s = some_slot();

	if (s == NULL)
		return;
	say("close slot %d", index_of(s));
	close_slot(s);
}

static void op_dup(void)
{
	struct slot *s = some_slot(), *to = free_slot();

	if (s == NULL || to == NULL)
		return;
	say("dup slot %d -> slot %d", index_of(s), index_of(to));
	to->fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
	if (as_expected("dup", to->fd, 0)) {
		to->d = s->d;
		s->d->refs++;
	}
}

static void op_append_flag(void)
{
	struct slot *s = some_slot();

	if (s == NULL || direct(s) || s->d->appends) /* passthrough in the kernel does not see that it is taken off */
		return;
	s->d->flags ^= O_APPEND;
	say("fcntl slot %d: append %s", index_of(s), s->d->flags & O_APPEND ? "on" : "off");
	as_expected("fcntl", fcntl(s->fd, F_SETFL, s->d->flags & O_APPEND), 0);
}

/* ---- Reading and writing ---- */

static void align(int64_t *at, int64_t *n)
{
	*at = *at / PAGE * PAGE;
	*n = (*n + PAGE - 1) / PAGE * PAGE;
}

static void op_write(void)
{
	struct slot *s = some_slot();
	bool positioned = chance(2) == 0;
	int64_t n = some_size(70000), at, to, r;

	if (s == NULL)
		return;
	at = to = positioned ? some_offset(s->d->version->size) : s->d->at;
	if (direct(s) && (s->d->at % PAGE != 0 || (s->d->flags & O_APPEND) != 0 || !writes(s)))
		return;
	if (direct(s))
		align(&at, &n);
	to = (s->d->flags & O_APPEND) != 0 ? s->d->version->size : at;
	if (to + n > SIZE_MAX_BYTES)
		return;
	fill(buffer, n);
	say("%s slot %d: %" PRId64 " bytes at %" PRId64, positioned ? "pwrite" : "write", index_of(s), n, to);
	r = positioned ? pwrite(s->fd, buffer, (size_t)n, at) : write(s->fd, buffer, (size_t)n);
	if (!as_expected("write", r, writes(s) ? 0 : EBADF))
		return;
	if (r != n)
		differ("write: %" PRId64 " bytes of %" PRId64, r, n);
	put_bytes(s->d->version, buffer, n, to);
	if (!positioned)
		s->d->at = to + n;
}

static void op_read(void)
{
	struct slot *s = some_slot();
	bool positioned = chance(2) == 0;
	int64_t n = some_size(100000), at, r, wanted;

	if (s == NULL)
		return;
	at = positioned ? some_offset(s->d->version->size) : s->d->at;
	if (direct(s) && (s->d->at % PAGE != 0 || !reads(s)))
		return;
	if (direct(s))
		align(&at, &n);
	say("%s slot %d: %" PRId64 " bytes at %" PRId64, positioned ? "pread" : "read", index_of(s), n, at);
	r = positioned ? pread(s->fd, buffer, (size_t)n, at) : read(s->fd, buffer, (size_t)n);
	if (!as_expected("read", r, reads(s) ? 0 : EBADF))
		return;
	wanted = readable_from(s->d->version, at, n);
	if (r != wanted)
		differ("read: %" PRId64 " bytes, should be %" PRId64, r, wanted);
	same_bytes("read", buffer, s->d->version->bytes + at, r, at);
	if (!positioned)
		s->d->at = at + r;
}

static void op_seek(void)
{
	struct slot *s = some_slot();
	int64_t at, end;

	if (s == NULL)
		return;
	at = some_offset(s->d->version->size);
	if (direct(s))
		at = at / PAGE * PAGE;
	say("lseek slot %d: %" PRId64, index_of(s), at);
	if (lseek(s->fd, at, SEEK_SET) != at)
		differ("lseek: %s", name_of(errno));
	s->d->at = at;
	end = chance(3) == 0 ? lseek(s->fd, 0, SEEK_END) : s->d->version->size;
	if (end != s->d->version->size)
		differ("lseek: the end is at %" PRId64 " (%s), should be %" PRId64, end, name_of(end < 0 ? errno : 0),
		       s->d->version->size);
	lseek(s->fd, at, SEEK_SET);
}

static bool all_zero(const unsigned char *at, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		if (at[i] != 0)
			return false;
	return true;
}

static void op_hole(void)
{
	struct slot *s = some_slot();
	const struct version *v;
	int64_t at, r;

	if (s == NULL)
		return;
	v = s->d->version;
	at = some_offset(v->size);
	say("lseek slot %d: data and hole from %" PRId64, index_of(s), at);
	for (int i = 0; i < MAPS; i++) /* FUSE in the kernel does not look into its page cache for this */
		if (f.maps[i].d != NULL && f.maps[i].d->version == v && f.maps[i].writable)
			as_expected("msync", msync(f.maps[i].at, (size_t)f.maps[i].size, MS_SYNC), 0);
	r = lseek(s->fd, at, SEEK_DATA);
	if (r < 0 && (errno != ENXIO || !all_zero(v->bytes + at, at < v->size ? v->size - at : 0)))
		differ("SEEK_DATA: %s, and there are data", name_of(errno));
	if (r >= 0 && (r < at || r >= v->size || !all_zero(v->bytes + at, r - at)))
		differ("SEEK_DATA: %" PRId64 ", size %" PRId64, r, v->size);
	r = lseek(s->fd, at, SEEK_HOLE);
	if (r < 0 ? errno != ENXIO || at < v->size : r < at || r > v->size || (r < v->size && v->bytes[r] != 0))
		differ("SEEK_HOLE: %" PRId64 " (%s), size %" PRId64, r, name_of(r < 0 ? errno : 0), v->size);
	lseek(s->fd, s->d->at, SEEK_SET);
}

static void op_stat(void)
{
	struct slot *s = some_slot();
	struct stat st;

	if (s == NULL)
		return;
	say("fstat slot %d", index_of(s));
	if (!as_expected("fstat", fstat(s->fd, &st), 0))
		return;
	if (st.st_size != s->d->version->size)
		differ("fstat: size %" PRId64 ", should be %" PRId64, (int64_t)st.st_size, s->d->version->size);
}

static void op_fsync(void)
{
	struct slot *s = some_slot();
	bool data = chance(2) == 0;

	if (s == NULL)
		return;
	say("%s slot %d", data ? "fdatasync" : "fsync", index_of(s));
	as_expected("fsync", data ? fdatasync(s->fd) : fsync(s->fd), 0);
}

/* ---- Changing the size, and holes ---- */

static void op_ftruncate(void)
{
	struct slot *s = some_slot();
	int64_t size;

	if (s == NULL)
		return;
	size = some_offset(s->d->version->size);
	say("ftruncate slot %d: %" PRId64, index_of(s), size);
	if (as_expected("ftruncate", ftruncate(s->fd, size), writes(s) ? 0 : EINVAL))
		resize(s->d->version, size);
}

static void op_truncate(void)
{
	int name = (int)chance(NAMES);
	struct object *o = f.names[name];
	struct version *v;
	char full[64];
	int64_t size;

	size = some_offset(o == NULL ? 0 : o->draft != NULL ? o->draft->size : o->current->size);
	say("truncate %s: %" PRId64, path(name), size);
	snprintf(full, sizeof(full), "/proc/self/fd/%d/%s", f.dir, path(name));
	if (!as_expected("truncate", truncate(full, size), o != NULL ? 0 : ENOENT))
		return;
	v = draft_of(o);
	v->writers++;
	resize(v, size);
	if (f.promise)
		writer_gone(o, v);
	else
		v->writers--;
}

static void zero(struct version *v, int64_t at, int64_t n, bool keep)
{
	int64_t end = at + n;

	if (!keep && end > v->size)
		v->size = end;
	if (end > v->size)
		end = v->size;
	if (at < end)
		memset(v->bytes + at, 0, (size_t)(end - at));
}

static void op_fallocate(void)
{
	static const struct { int mode; const char *name; } modes[] = {
		{ 0, "" }, { FALLOC_FL_KEEP_SIZE, "keep" },
		{ FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punch" },
		{ FALLOC_FL_ZERO_RANGE, "zero" }, { FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, "zero keep" },
	};
	struct slot *s = some_slot();
	unsigned which = (unsigned)chance(5);
	int mode = modes[which].mode, error = 0;
	int64_t at, n = some_size(100000);

	if (s == NULL)
		return;
	at = some_offset(s->d->version->size);
	if (at + n > SIZE_MAX_BYTES)
		return;
	say("fallocate %s slot %d: %" PRId64 " bytes at %" PRId64, modes[which].name, index_of(s), n, at);
	if (((mode & FALLOC_FL_ZERO_RANGE) != 0 && !f.zero_range) || ((mode & FALLOC_FL_PUNCH_HOLE) != 0 && !f.punch_hole))
		error = EOPNOTSUPP;
	if (!writes(s))
		error = EBADF;
	if (!as_expected("fallocate", fallocate(s->fd, mode, at, n), error))
		return;
	if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0)
		zero(s->d->version, at, n, (mode & FALLOC_FL_KEEP_SIZE) != 0);
	else if (mode == 0 && at + n > s->d->version->size)
		s->d->version->size = at + n;
}

/* ---- From one to another ---- */

static void copied(const char *what, struct slot *from, struct slot *to, int64_t from_at, int64_t to_at, int64_t r,
		   int64_t n)
{
	int64_t most = readable_from(from->d->version, from_at, n);

	if (r > most || (most > 0 && r == 0))
		differ("%s: %" PRId64 " bytes of %" PRId64, what, r, most);
	memcpy(other, from->d->version->bytes + from_at, (size_t)r);
	put_bytes(to->d->version, other, r, to_at);
}

static void op_copy(void)
{
	struct slot *from = some_slot(), *to = some_slot();
	int64_t n = some_size(100000), from_at, to_at, r;
	off_t x, y;
	int error = 0;

	if (from == NULL || direct(from) || direct(to))
		return;
	x = from_at = some_offset(from->d->version->size);
	y = to_at = some_offset(to->d->version->size);
	if (to_at + n > SIZE_MAX_BYTES)
		return;
	say("copy_file_range slot %d at %" PRId64 " -> slot %d at %" PRId64 ": %" PRId64, index_of(from), from_at,
	    index_of(to), to_at, n);
	if (!reads(from) || !writes(to) || (to->d->flags & O_APPEND) != 0)
		error = EBADF;
	else if (from->d->version == to->d->version && readable_from(from->d->version, from_at, n) > 0 &&
		 from_at < to_at + readable_from(from->d->version, from_at, n) &&
		 to_at < from_at + readable_from(from->d->version, from_at, n))
		error = EINVAL;
	r = copy_file_range(from->fd, &x, to->fd, &y, (size_t)n, 0);
	if (as_expected("copy_file_range", r, error))
		copied("copy_file_range", from, to, from_at, to_at, r, n);
}

static void op_sendfile(void)
{
	struct slot *from = some_slot(), *to = some_slot();
	int64_t n = some_size(100000), from_at, r;
	off_t x;

	if (from == NULL || direct(from) || direct(to) || !reads(from) || !writes(to) || (to->d->flags & O_APPEND) != 0 ||
	    from->d->version == to->d->version || to->d->at + n > SIZE_MAX_BYTES)
		return;
	x = from_at = some_offset(from->d->version->size);
	say("sendfile slot %d at %" PRId64 " -> slot %d at %" PRId64 ": %" PRId64, index_of(from), from_at, index_of(to),
	    to->d->at, n);
	r = sendfile(to->fd, from->fd, &x, (size_t)n);
	if (!as_expected("sendfile", r, 0))
		return;
	copied("sendfile", from, to, from_at, to->d->at, r, n);
	to->d->at += r;
}

/* ---- Mappings ---- */

static void op_map(void)
{
	struct slot *s = some_slot();
	struct mapping *m = &f.maps[chance(MAPS)];
	bool writable = chance(2) == 0, shared = writable || chance(2) == 0;
	int error = 0;
	int64_t at, n;

	if (s == NULL || m->d != NULL || direct(s) || s->d->version->size == 0)
		return;
	at = (int64_t)chance((uint64_t)s->d->version->size) / PAGE * PAGE;
	n = (int64_t)chance((uint64_t)(s->d->version->size - at)) + 1;
	say("mmap %s slot %d -> map %d: %" PRId64 " bytes at %" PRId64, writable ? "rw" : shared ? "shared" : "private",
	    index_of(s), (int)(m - f.maps), n, at);
	if (!reads(s) || (writable && !writes(s)))
		error = EACCES;
	m->at = mmap(NULL, (size_t)n, PROT_READ | (writable ? PROT_WRITE : 0), shared ? MAP_SHARED : MAP_PRIVATE, s->fd, at);
	if (!as_expected("mmap", m->at == MAP_FAILED ? -1 : 0, error))
		return;
	*m = (struct mapping){ .at = m->at, .offset = at, .size = n, .writable = writable, .d = s->d };
	s->d->refs++;
	version_ref(s->d->version);
}

static struct mapping *some_map(void)
{
	struct mapping *m = &f.maps[chance(MAPS)];

	return m->d != NULL ? m : NULL;
}

static void op_look(void)
{
	struct mapping *m = some_map();
	int64_t n;

	if (m == NULL)
		return;
	n = readable_from(m->d->version, m->offset, m->size);
	say("look at map %d: %" PRId64 " bytes", (int)(m - f.maps), n);
	same_bytes("map", m->at, m->d->version->bytes + m->offset, n, m->offset);
}

static void op_store(void)
{
	struct mapping *m = some_map();
	int64_t n, at, length;

	if (m == NULL || !m->writable)
		return;
	n = readable_from(m->d->version, m->offset, m->size);
	if (n == 0)
		return;
	at = (int64_t)chance((uint64_t)n);
	length = some_size(n - at);
	say("store into map %d: %" PRId64 " bytes at %" PRId64, (int)(m - f.maps), length, m->offset + at);
	fill(buffer, length);
	memcpy(m->at + at, buffer, (size_t)length);
	put_bytes(m->d->version, buffer, length, m->offset + at);
	if (chance(3) == 0)
		as_expected("msync", msync(m->at, (size_t)m->size, chance(2) == 0 ? MS_SYNC : MS_ASYNC), 0);
}

static void op_unmap(void)
{
	struct mapping *m = some_map();

	if (m == NULL)
		return;
	say("munmap map %d", (int)(m - f.maps));
	unmap(m);
}

/* open, mmap, close, store, munmap: only then it is finished. */
static void op_map_closed(void)
{
	int name = (int)chance(NAMES), fd;
	struct object *o = f.names[name];
	struct version *v;
	unsigned char *map;

	if (!f.closed_maps || o == NULL || o->draft != NULL || o->current->size == 0)
		return;
	say("map %s, close, store, munmap", path(name));
	fd = openat(f.dir, path(name), O_RDWR | O_CLOEXEC);
	if (!as_expected("open", fd, 0))
		return;
	v = draft_of(o);
	v->writers++;
	map = mmap(NULL, (size_t)v->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	as_expected("mmap", map == MAP_FAILED ? -1 : 0, 0);
	as_expected("close", close(fd), 0);
	fill(v->bytes, v->size);
	memcpy(map, v->bytes, (size_t)v->size);
	as_expected("munmap", munmap(map, (size_t)v->size), 0);
	if (f.promise)
		writer_gone(o, v);
	else
		v->writers--;
}

/* ---- Names ---- */

/* Its last name goes while it is appended to: when that is closed the bytes that were appended are cut off, also for
 * this process, if it reads them by another descriptor. Known, and not tried. */
static bool is_appended(const struct object *o)
{
	for (int i = 0; o != NULL && o->links == 1 && i < SLOTS; i++)
		if (f.promise && f.slots[i].d != NULL && f.slots[i].d->object == o && f.slots[i].d->appends)
			return true;
	return false;
}

static void op_rename(void)
{
	int from = (int)chance(NAMES), to = (int)chance(NAMES);
	struct object *o = f.names[from];

	if (is_appended(f.names[to]))
		return;
	say("rename %s %s", path(from), path(to));
	if (!as_expected("rename", renameat(f.dir, path(from), f.dir, path(to)), o != NULL ? 0 : ENOENT))
		return;
	if (o == f.names[to])
		return; /* two names of one file: nothing happens */
	name_set(to, o);
	name_set(from, NULL);
}

static void op_exchange(void)
{
	int from = (int)chance(NAMES), to = (int)chance(NAMES);
	struct object *a = f.names[from], *b = f.names[to];

	say("exchange %s %s", path(from), path(to));
	if (!as_expected("exchange", renameat2(f.dir, path(from), f.dir, path(to), RENAME_EXCHANGE),
			 a != NULL && b != NULL ? 0 : ENOENT))
		return;
	f.names[from] = b;
	f.names[to] = a;
}

static void op_link(void)
{
	int from = (int)chance(NAMES), to = (int)chance(NAMES);
	struct object *o = f.names[from];

	say("link %s %s", path(from), path(to));
	if (as_expected("link", linkat(f.dir, path(from), f.dir, path(to), 0),
			o == NULL ? ENOENT : f.names[to] != NULL ? EEXIST : 0))
		name_set(to, o);
}

static void op_unlink(void)
{
	int name = (int)chance(NAMES);

	if (is_appended(f.names[name]))
		return;
	say("unlink %s", path(name));
	if (as_expected("unlink", unlinkat(f.dir, path(name), 0), f.names[name] != NULL ? 0 : ENOENT))
		name_set(name, NULL);
}

/* ---- All of it ---- */

static void check_bytes(const char *what, int fd, const struct version *v)
{
	struct stat st;
	int64_t n;

	n = pread(fd, buffer, SIZE_MAX_BYTES + PAGE, 0);
	if (n != v->size)
		differ("%s: %" PRId64 " bytes (%s), should be %" PRId64, what, n, name_of(n < 0 ? errno : 0), v->size);
	same_bytes(what, buffer, v->bytes, n, 0);
	if (fstat(fd, &st) < 0 || st.st_size != v->size)
		differ("%s: fstat says %" PRId64 ", should be %" PRId64, what, (int64_t)st.st_size, v->size);
}

static void op_check(void)
{
	char what[32];

	say("check all");
	for (int i = 0; i < SLOTS; i++)
		if (f.slots[i].d != NULL && reads(&f.slots[i])) {
			snprintf(what, sizeof(what), "all of slot %d", i);
			check_bytes(what, f.slots[i].fd, f.slots[i].d->version);
		}
	for (int i = 0; i < NAMES; i++) {
		struct object *o = f.names[i];
		int fd;

		snprintf(what, sizeof(what), "all of %s", path(i));
		fd = openat(f.dir, path(i), O_RDONLY | O_CLOEXEC);
		if (!as_expected(what, fd, o != NULL ? 0 : ENOENT))
			continue;
		check_bytes(what, fd, o->draft != NULL ? o->draft : o->current);
		close(fd);
	}
	for (int i = 0; i < MAPS; i++)
		if (f.maps[i].d != NULL)
			same_bytes("map", f.maps[i].at, f.maps[i].d->version->bytes + f.maps[i].offset,
				   readable_from(f.maps[i].d->version, f.maps[i].offset, f.maps[i].size), f.maps[i].offset);
}

static const struct { void (*run)(void); unsigned weight; } operations[] = {
	{ op_open, 14 }, { op_close, 9 }, { op_dup, 2 }, { op_append_flag, 1 }, { op_write, 18 }, { op_read, 12 },
	{ op_seek, 4 }, { op_hole, 4 }, { op_stat, 4 }, { op_fsync, 2 }, { op_ftruncate, 5 }, { op_truncate, 2 },
	{ op_fallocate, 6 }, { op_copy, 5 }, { op_sendfile, 3 }, { op_map, 6 }, { op_look, 4 }, { op_store, 8 },
	{ op_unmap, 3 }, { op_map_closed, 1 }, { op_rename, 3 }, { op_exchange, 1 }, { op_link, 2 }, { op_unlink, 2 },
	{ op_check, 2 },
};
#define OPERATIONS (sizeof(operations) / sizeof(operations[0]))

static void one_operation(void)
{
	unsigned sum = 0, at;
	size_t i = 0;

	for (size_t k = 0; k < OPERATIONS; k++)
		sum += operations[k].weight;
	at = (unsigned)chance(sum);
	while (at >= operations[i].weight)
		at -= operations[i++].weight;
	operations[i].run();
}

static void clean_up(void)
{
	f.step++;
	say("close all");
	for (int i = 0; i < MAPS; i++)
		unmap(&f.maps[i]);
	for (int i = 0; i < SLOTS; i++)
		if (f.slots[i].d != NULL)
			close_slot(&f.slots[i]);
	op_check();
	for (int i = 0; i < NAMES; i++) {
		if (f.names[i] != NULL && unlinkat(f.dir, path(i), 0) < 0)
			differ("unlink: %s", name_of(errno));
		name_set(i, NULL);
	}
}

static void one_run(uint64_t seed, uint64_t count)
{
	f.seed = seed;
	f.random = seed * 0x9e3779b97f4a7c15u + 1;
	f.traced = 0;
	for (int i = 0; i < 8; i++)
		chance(2);
	for (f.step = 1; f.step <= count; f.step++)
		one_operation();
	clean_up();
}

/* What the file system below can do. */
static void find_out(const char *probe)
{
	int dir = open(probe, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;

	fd = openat(dir, "fuzz-probe", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, 8 * PAGE) < 0) {
		perror(probe);
		exit(2);
	}
	f.punch_hole = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) == 0;
	f.zero_range = fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, PAGE) == 0;
	close(fd);
	fd = openat(dir, "fuzz-probe", O_RDWR | O_DIRECT | O_CLOEXEC);
	f.direct = fd >= 0 && pwrite(fd, buffer, PAGE, 0) == PAGE;
	close(fd);
	unlinkat(dir, "fuzz-probe", 0);
	close(dir);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1, count = 2000, runs = 0;
	const char *probe = NULL;
	double end = 0, start = now();
	int c;

	f.promise = true;
	while ((c = getopt(argc, argv, "m:s:n:t:p:vc")) != -1)
		switch (c) {
		case 'm': f.promise = strcmp(optarg, "native") != 0; break;
		case 's': seed = strtoull(optarg, NULL, 10); break;
		case 'n': count = strtoull(optarg, NULL, 10); break;
		case 't': end = start + strtod(optarg, NULL); break;
		case 'c': f.closed_maps = true; break;
		case 'v': f.verbose = true; break;
		case 'p': probe = optarg; break;
		default: return 2;
		}
	if (probe == NULL || optind + 1 != argc)
		return 2;
	buffer = aligned_alloc(PAGE, SIZE_MAX_BYTES + 2 * PAGE);
	other = aligned_alloc(PAGE, SIZE_MAX_BYTES + 2 * PAGE);
	find_out(probe);
	f.dir = open(argv[optind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f.dir < 0) {
		perror(argv[optind]);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGBUS, bus_error);
	do {
		one_run(seed + runs++, count);
	} while (now() < end);
	printf("%" PRIu64 " runs of %" PRIu64 " operations from seed %" PRIu64 " in %.1f s\n", runs, count, seed,
	       now() - start);
	return 0;
}

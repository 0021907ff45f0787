/* A damaged catalog: it is refused in words, or opened, read and checked; nothing else. The input is one of two things: bytes
 * that are put over a good catalog (place, length, bytes ...), or, when it begins like a database, the whole file. */
#include "core/fsck.h"
#include "core/internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/dev/shm/promisefs-fuzz-XXXXXX", path[64];
static char *good;
static size_t good_size;

static void clean(void)
{
	static const char *const ends[] = { "", "-wal", "-shm", "-journal" };
	char name[96];

	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "%s%s", path, ends[i]);
		unlink(name);
	}
}

static void finish(void)
{
	clean();
	rmdir(dir);
}

static void fill(struct meta *m)
{
	struct meta_object o = { .mode = S_IFREG | 0644, .nlink = 1, .state = OBJECT_READY, .version = 1 };

	m->ops->begin(m);
	roots_make(m);
	for (int i = 0; i < 8; i++) {
		char name[] = "key0";

		name[3] = (char)('0' + i);
		if (m->ops->new_id(m, &o.id) < 0)
			abort();
		o.vid = o.id;
		m->ops->object_insert(m, &o);
		m->ops->dentry_insert(m, META_ROOT, name, o.id);
		m->ops->attribute_set(m, o.id, "user.a", "value", 5);
		m->ops->draft_put(m, &(struct meta_draft){ .object = o.id, .vid = o.id + 100 });
		m->ops->garbage_add(m, o.id + 200);
	}
	m->ops->end(m, META_RECORDED, NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *why;
	struct meta *m;
	FILE *f;

	if (mkdtemp(dir) == NULL)
		abort();
	snprintf(path, sizeof(path), "%s/catalog.db", dir);
	if (meta_sqlite_open(path, &m, &why) < 0)
		abort();
	fill(m);
	m->ops->close(m);
	good = malloc(1 << 20);
	f = fopen(path, "r");
	good_size = fread(good, 1, 1 << 20, f);
	fclose(f);
	clean();
	atexit(finish);
	return 0;
}

static void write_catalog(const uint8_t *data, size_t size)
{
	bool whole = size >= 6 && memcmp(data, "SQLite", 6) == 0;
	char *bytes = malloc(good_size);
	FILE *f = fopen(path, "w");
	size_t place, n;

	memcpy(bytes, good, good_size);
	while (!whole && size > 4) {
		place = (data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16) % good_size;
		n = data[3] % 24u;
		data += 4;
		size -= 4;
		n = n > size ? size : n;
		n = n > good_size - place ? good_size - place : n;
		memcpy(bytes + place, data, n);
		data += n;
		size -= n;
	}
	if (whole)
		fwrite(data, 1, size, f);
	else
		fwrite(bytes, 1, good_size, f);
	fclose(f);
	free(bytes);
}

static int see_object(void *arg, const struct meta_object *o)
{
	return 0;
}

static int see_dentry(void *arg, const struct meta_dentry *d)
{
	return d->name[0] == '\0' && *(int *)arg > 1000;
}

static int see_draft(void *arg, const struct meta_draft *d)
{
	return 0;
}

static int see_id(void *arg, uint64_t id)
{
	return 0;
}

static int see_event(void *arg, const struct meta_event *e)
{
	return 0;
}

static int see_text(void *arg, const char *text)
{
	return 0;
}

static int see_attribute(void *arg, const char *name, size_t len)
{
	return 0;
}

static void look_around(struct meta *m)
{
	struct meta_object o;
	struct meta_dentry d;
	char uuid[64], value[64];
	int n = 0;

	m->ops->begin(m);
	m->ops->object_get(m, META_ROOT, &o);
	m->ops->dentry_get(m, META_ROOT, "key3", &d);
	m->ops->dentry_list(m, META_ROOT, 0, see_dentry, &n);
	m->ops->attribute_get(m, 17, "user.a", value, sizeof(value));
	m->ops->attribute_list(m, 17, see_attribute, NULL);
	m->ops->object_scan(m, see_object, NULL);
	m->ops->dentry_scan(m, false, see_dentry, &n);
	m->ops->draft_list(m, see_draft, NULL);
	m->ops->garbage_list(m, see_id, NULL);
	m->ops->event_scan(m, 0, see_event, NULL);
	m->ops->identity(m, uuid);
	m->ops->check(m, see_text, NULL);
	m->ops->end(m, META_READ, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *why;
	struct meta *m;

	write_catalog(data, size);
	if (meta_sqlite_open_reader(path, &m, &why) == 0) {
		look_around(m);
		m->ops->close(m);
	} else if (why == NULL) {
		abort();
	}
	if (meta_sqlite_open(path, &m, &why) == 0) {
		look_around(m);
		m->ops->close(m);
	} else if (why == NULL) {
		abort();
	}
	clean();
	return 0;
}

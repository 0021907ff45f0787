/* What the catalog's process had answered is there when it is killed, and nothing else is: meta/redo.h. */
#include "meta/meta.h"
#include "meta/redo_region.h"
#include "tests/unit/rig.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILLS 150
#define OBJECTS 8

/* What the process says of itself as it goes. */
struct said {
	uint64_t tried[OBJECTS], answered[OBJECTS]; /* the newest value of each */
	uint64_t number; /* the highest that was handed out */
	uint64_t events;
	uint64_t failed; /* a line of this file, in the child */
};

static char *dir;
static struct redo *redo;
static struct said *said;
static struct meta *m;

static int open_catalog(void)
{
	const char *why = NULL;
	int r = meta_sqlite_open_redo(scratch_path(dir, "catalog.db"), redo, &m, &why);

	if (r < 0)
		fprintf(stderr, "open: %s (%d)\n", why, r);
	return r;
}

static int set_up(void **state)
{
	dir = scratch_make();
	redo = redo_new();
	said = mmap(NULL, sizeof(*said), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return dir == NULL || redo == NULL || said == MAP_FAILED ? -1 : 0;
}

static int tear_down(void **state)
{
	munmap(said, sizeof(*said));
	redo_free(redo);
	scratch_remove(dir);
	return 0;
}

static void make_objects(void)
{
	m->ops->begin(m);
	for (uint64_t i = 0; i < OBJECTS; i++)
		assert_int_equal(m->ops->object_insert(m, &(struct meta_object){ .id = i + 1, .vid = i + 1, .nlink = 1 }), 0);
	m->ops->end(m, META_LATER, NULL);
}

/* Small ones mostly; some that are committed alone, and some that the region has no room for. */
static size_t size_of(uint64_t value)
{
	return value % 1499 == 1000 ? 3u << 20 : value % 211 == 100 ? 200000 : sizeof(uint64_t) + value % 50;
}

static void give_up(int line)
{
	said->failed = (uint64_t)line;
	_exit(1);
}

static void change(char *buffer, uint64_t n)
{
	uint64_t object = (uint64_t)rand() % OBJECTS, id = 0;
	uint64_t value = said->answered[object] + 1;

	redo_request(value * OBJECTS + object);
	said->tried[object] = value;
	m->ops->begin(m);
	memcpy(buffer, &value, sizeof(value));
	if (m->ops->attribute_set(m, object + 1, "user.value", buffer, size_of(value)) < 0)
		give_up(__LINE__);
	if (m->ops->object_touch(m, object + 1, (int64_t)value, 1) < 0)
		give_up(__LINE__);
	if (m->ops->new_id(m, &id) < 0 || id <= said->number)
		give_up(__LINE__);
	said->number = id;
	if (m->ops->event_add(m, &(struct meta_event){ .kind = "put", .key = "it's", .key_len = 4, .object = object + 1,
						       .version = value, .detail = "a 'detail'" }) < 0)
		give_up(__LINE__);
	m->ops->end(m, n % 40 == 0 ? META_RECORDED : META_LATER, NULL);
	said->answered[object] = value;
	redo_answered(redo, value * OBJECTS + object);
}

static void work(unsigned seed)
{
	char *buffer = calloc(1, 4u << 20);

	srand(seed);
	if (buffer == NULL || open_catalog() < 0)
		give_up(__LINE__);
	for (uint64_t n = 0;; n++)
		change(buffer, n);
}

static uint64_t value_of(uint64_t object)
{
	static char buffer[4u << 20];
	uint64_t value = 0;
	int len = m->ops->attribute_get(m, object + 1, "user.value", buffer, sizeof(buffer));

	if (len == -ENOENT)
		return 0;
	memcpy(&value, buffer, sizeof(value));
	assert_int_equal(len, size_of(value));
	return value;
}

static int count_event(void *arg, const struct meta_event *e)
{
	assert_int_equal(e->version, ((uint64_t *)arg)[e->object - 1] + 1);
	((uint64_t *)arg)[e->object - 1]++;
	return 0;
}

/* Every value was there once, in turn, and all of each operation. */
static unsigned check(void)
{
	uint64_t events[OBJECTS] = { 0 };
	unsigned undone = 0;

	m->ops->begin(m);
	assert_int_equal(m->ops->event_scan(m, 0, count_event, events), 0);
	for (uint64_t i = 0; i < OBJECTS; i++) {
		struct meta_object o;
		uint64_t value = value_of(i), request = said->tried[i] * OBJECTS + i;

		assert_int_equal(m->ops->object_get(m, i + 1, &o), 0);
		assert_int_equal(o.nlink, 1 + value); /* each was done once */
		assert_int_equal(events[i], value);
		if (said->answered[i] == said->tried[i]) {
			assert_int_equal(value, said->answered[i]);
			redo_answered(redo, request); /* it may have died just before it said so */
			continue;
		}
		assert_in_range(value, said->answered[i], said->tried[i]);
		assert_int_equal(redo_was_done(redo, request), value == said->tried[i]);
		undone += value != said->tried[i];
		redo_answered(redo, request);
		said->answered[i] = said->tried[i] = value;
	}
	m->ops->end(m, META_READ, NULL);
	return undone;
}

static unsigned requests_left(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < REDO_REQUESTS; i++)
		n += redo->requests[i].request != 0;
	return n;
}

static void wait_for_end(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(said->failed, 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* The one that looks is killed as well now and then, in the middle of doing again what was valid. */
static void killed_at_any_time(void **state)
{
	unsigned undone = 0, redone = 0;

	assert_int_equal(open_catalog(), 0);
	make_objects();
	m->ops->close(m);
	for (unsigned i = 0; i < KILLS; i++) {
		pid_t pid = fork();

		if (pid == 0)
			work(i);
		usleep((useconds_t)(rand() % (i % 4 == 3 ? 2500 : 25000)));
		kill(pid, SIGKILL);
		wait_for_end(pid);
		redone += redo_state(redo).length > 0;
		if (i % 4 == 2)
			continue; /* the next one begins where this one has left it */
		assert_int_equal(open_catalog(), 0);
		undone += check();
		m->ops->close(m);
		assert_int_equal(requests_left(), 0);
	}
	/* It has to have met what it is about. */
	assert_in_range(redone, 3, KILLS);
	assert_in_range(undone, 1, KILLS);
}

static void ended(void)
{
	m->ops->begin(m);
	assert_int_equal(m->ops->object_insert(m, &(struct meta_object){ .id = 20, .vid = 20, .nlink = 1 }), 0);
	m->ops->end(m, META_LATER, NULL);
}

/* It dies after SQLite has committed, and before the region says so. */
static void a_commit_counts_once(void **state)
{
	struct meta_object o;
	struct redo_state before;

	assert_int_equal(open_catalog(), 0);
	redo_request(5);
	ended();
	m->ops->begin(m);
	assert_int_equal(m->ops->object_touch(m, 20, 7, 1), 0);
	m->ops->end(m, META_LATER, NULL);
	before = redo_state(redo);
	assert_true(before.length > 0);
	assert_true(redo_was_done(redo, 5));
	m->ops->close(m);
	redo_set_state(redo, before);
	assert_int_equal(open_catalog(), 0);
	m->ops->begin(m);
	assert_int_equal(m->ops->object_get(m, 20, &o), 0);
	assert_int_equal(o.nlink, 2);
	m->ops->end(m, META_READ, NULL);
	assert_true(redo_was_done(redo, 5));
	redo_answered(redo, 5);
	assert_false(redo_was_done(redo, 5));
	m->ops->close(m);
	redo_request(0);
}

/* What is taken back is not done again, and its request was not done. */
static void taken_back_is_forgotten(void **state)
{
	struct meta_object o;

	assert_int_equal(open_catalog(), 0);
	redo_request(6);
	m->ops->begin(m);
	assert_int_equal(m->ops->object_insert(m, &(struct meta_object){ .id = 21, .vid = 21, .nlink = 1 }), 0);
	m->ops->end(m, META_ABANDON, NULL);
	assert_false(redo_was_done(redo, 6));
	assert_int_equal(redo_state(redo).length, 0);
	redo_request(0);
	ended();
	assert_false(redo_was_done(redo, 6));
	m->ops->close(m);
	assert_int_equal(open_catalog(), 0);
	m->ops->begin(m);
	assert_int_equal(m->ops->object_get(m, 21, &o), -ENOENT);
	assert_int_equal(m->ops->object_get(m, 20, &o), 0);
	m->ops->end(m, META_READ, NULL);
	m->ops->close(m);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(killed_at_any_time),
		TEST(a_commit_counts_once),
		TEST(taken_back_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

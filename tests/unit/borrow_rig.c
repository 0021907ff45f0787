#include "tests/unit/borrow_rig.h"

/* ---- Handles ---- */

uint64_t place_of(const char *handle)
{
	return handle[0] == 'r' ? META_REF : handle[0] == 'm' ? META_MUT : META_OWN;
}

const char *name_of(const char *handle)
{
	return handle + 4; /* "ref/", "mut/", "own/" */
}

enum via via_of(const char *handle)
{
	return handle[0] == 'r' ? VIA_REF : handle[0] == 'm' ? VIA_MUT : VIA_OWNER;
}

int look(int32_t tid, const char *handle, struct entry *e)
{
	return lookup(tid, place_of(handle), name_of(handle), e);
}

bool held_as(const char *handle)
{
	struct entry e;

	return look(0, handle, &e) == 0;
}

int open_handle(int32_t tid, const char *handle, int flags, struct handle **h)
{
	struct entry e;
	int r = look(tid, handle, &e);

	if (r == 0)
		r = open_via(tid, e.via, e.node, flags, NULL, h);
	if (r != -ESTALE)
		return r;
	r = look(tid, handle, &e);
	return r == 0 ? open_via(tid, e.via, e.node, flags, NULL, h) : r;
}

void handle_has(const char *handle, const char *text)
{
	struct handle *h = NULL;

	CHECK_R(open_handle(2, handle, O_RDONLY, &h), 0);
	CHECK(reads(h, text));
	store_release(h);
}

struct handle *write_through(int32_t tid, const char *handle, int flags)
{
	struct handle *h = NULL;
	struct entry e;

	CHECK_R(open_handle(tid, handle, O_WRONLY | flags, &h), 0);
	CHECK_R(look(0, handle, &e), 0);
	held[tid] = e.o.id;
	return h;
}

void replace_through(const char *handle, const char *text)
{
	struct handle *h = write_through(1, handle, O_TRUNC);

	put_bytes(h, text);
	close_handle(1, h);
}

int drop(const char *handle)
{
	const struct caller c3 = who(3);

	return COMMITTED(store_unlink(st, &c3, place_of(handle), name_of(handle), c));
}

/* ---- Borrowing ---- */

static void woken_borrower(struct waiter *w, int r)
{
	struct test_borrowing *tb = (struct test_borrowing *)w;

	tb->result = r;
	tb->woken++;
}

int begin_borrow(struct test_borrowing *tb, const struct caller *c, uint64_t node, const char *handle, bool queue)
{
	memset(tb, 0, sizeof(*tb));
	sync_init(&tb->s);
	tb->b.waiter.wake = woken_borrower;
	tb->b.who = *c;
	tb->b.node = node;
	tb->b.mut = handle[0] == 'm';
	tb->b.queue = queue;
	strcpy(tb->b.name, name_of(handle));
	return store_borrow(st, &tb->b, &tb->s.c);
}

int borrow_as(const struct caller *c, uint64_t node, const char *handle)
{
	struct test_borrowing tb;
	int r = begin_borrow(&tb, c, node, handle, false);

	if (r == 0) {
		CHECK(sync_wait(&tb.s));
		r = tb.s.result;
	}
	return r;
}

int borrow(const char *key, const char *handle)
{
	const struct caller c4 = who(4);

	return borrow_as(&c4, node_of(key), handle);
}

bool in_line(const char *handle)
{
	struct handle *h = NULL;
	int r = open_handle(6, handle, O_RDONLY, &h);

	if (r != STORE_MUST_WAIT)
		fprintf(stderr, "opening %s gives %d\n", handle, r);
	store_release(h);
	return r == STORE_MUST_WAIT;
}

bool has_turn(const char *handle)
{
	struct handle *h = NULL;
	int r = open_handle(6, handle, O_RDONLY, &h);

	if (r != 0)
		fprintf(stderr, "opening %s gives %d\n", handle, r);
	store_release(h);
	return r == 0;
}

int queue_as(const struct caller *c, uint64_t node, const char *handle)
{
	struct test_borrowing tb;
	int r = begin_borrow(&tb, c, node, handle, true);

	if (r == 0) {
		CHECK(sync_wait(&tb.s));
		r = tb.s.result;
	}
	return r;
}

void queue(int32_t tid, const char *key, const char *handle)
{
	const struct caller c = who(tid);

	CHECK_R(queue_as(&c, node_of(key), handle), 0);
	CHECK(in_line(handle));
}

uint64_t wait_for_turn(struct test_waiter *tw, int32_t tid, const char *handle, int flags)
{
	struct handle *h = NULL;
	struct entry e;

	waiter_init(tw);
	CHECK_R(look(tid, handle, &e), 0);
	CHECK_R(open_via(tid, e.via, e.node, flags, &tw->w, &h), STORE_WAITING);
	CHECK(sleeps(tw));
	return e.node;
}

bool woken_with(struct test_borrowing *tb, int r)
{
	for (unsigned i = 0; i < 200 && tb->woken == 0; i++)
		usleep(5000);
	if (tb->woken != 1 || tb->result != r)
		fprintf(stderr, "woken %u times, with %d instead of %d\n", (unsigned)tb->woken, (int)tb->result, r);
	return tb->woken == 1 && tb->result == r;
}

bool handle_attribute_is(const char *handle, const char *attribute, const char *value)
{
	struct caller c = who(3);
	char got[256] = "";
	struct entry e;
	int r = look(0, handle, &e);

	c.via = e.via;
	if (r == 0)
		r = store_getxattr(st, &c, e.node, attribute, got, sizeof(got) - 1);
	if (r < 0 || strcmp(got, value) != 0)
		fprintf(stderr, "%s of %s is \"%s\" (%d) instead of \"%s\"\n", attribute, handle, got, r, value);
	return r == (int)strlen(value) && strcmp(got, value) == 0;
}

int handle_attribute(const char *handle, const char *attribute)
{
	struct caller c = who(3);
	char got[256];
	struct entry e;
	int r = look(0, handle, &e);

	c.via = e.via;
	return r < 0 ? r : store_getxattr(st, &c, e.node, attribute, got, sizeof(got));
}

int set_handle_attribute(const char *handle, const char *attribute, const char *value)
{
	struct caller c3 = who(3);
	struct entry e;
	int r = look(0, handle, &e);

	c3.via = e.via;
	return r < 0 ? r : COMMITTED(store_setxattr(st, &c3, e.node, attribute, value, strlen(value), 0, c));
}

int open_key(const char *key, int flags)
{
	struct handle *h = NULL;
	int r = open_name(5, key, flags, NULL, &h);

	if (r == 0)
		store_release(h);
	return r;
}

int move(const char *key, const char *to)
{
	return rename_to(META_ROOT, key, META_ROOT, to, 0);
}

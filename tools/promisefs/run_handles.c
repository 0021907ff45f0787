#include "run_handles.h"

#include "command.h"
#include "limit.h"
#include "report.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* From the command line */

static bool is_handle_option(enum option_id id)
{
	return id == OPT_BORROW || id == OPT_BORROW_MUT || id == OPT_OWN || id == OPT_PRODUCE || id == OPT_ONCE;
}

/* The length of NAME in [NAME=]KEY: 0 when there is none. */
static size_t name_length(const char *word)
{
	size_t n = 0;

	while (isalnum((unsigned char)word[n]) || word[n] == '_')
		n++;
	return word[n] == '=' && !isdigit((unsigned char)word[0]) ? n : 0;
}

static int check_name(const struct run_handles *h, const char *name)
{
	static const char *const taken[] = { "lifetime", "mount" };

	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
		if (strcasecmp(name, taken[i]) == 0)
			return report_usage("the name %s has another meaning; for a key like that write ./%s=...", name,
					    name);
	for (int i = 0; i < h->count; i++)
		if (h->list[i].name != NULL && strcasecmp(name, h->list[i].name) == 0)
			return report_usage("the name %s stands for two handles", name);
	return 0;
}

/* Two handles for one key would wait for each other, or make each other useless; only reading goes together. */
static int check_key(const struct run_handles *h, const struct run_handle *x)
{
	for (int i = 0; i < h->count; i++)
		if (strcmp(h->list[i].key.path, x->key.path) == 0 &&
		    !(x->option == OPT_BORROW && h->list[i].option == OPT_BORROW))
			return report_usage("%s is named twice, which only --borrow allows", x->key.word);
	return 0;
}

static int find(const struct args *a, const struct given *g, struct run_handles *h)
{
	struct run_handle *x = &h->list[h->count];
	size_t n = name_length(g->value);
	const char *word = g->value + (n > 0 ? n + 1 : 0);
	int r;

	*x = (struct run_handle){ .option = g->id };
	if (*word == '\0')
		return report_usage("the KEY of '%s' is empty", g->value);
	x->name = n > 0 ? strndup(g->value, n) : NULL;
	r = n > 0 ? check_name(h, x->name) : 0;
	if (r == 0)
		r = key_find(a, word, &x->key);
	if (r == 0)
		r = check_key(h, x);
	h->count++; /* so that it is given free */
	return r;
}

int run_handles_find(const struct args *a, struct run_handles *h)
{
	int r = 0;

	*h = (struct run_handles){ .list = calloc((size_t)a->given_count + 1, sizeof(*h->list)) };
	if (h->list == NULL)
		out_of_memory();
	for (int i = 0; r == 0 && i < a->given_count; i++)
		if (is_handle_option(a->given[i].id))
			r = find(a, &a->given[i], h);
	return r;
}

/* Making */

/* The limit is for the waiting alone: no other call is to be interrupted. */
static int borrow(struct handle *h, bool wait, int64_t until)
{
	struct handle_wish wish = { .prefix = "run", .pid = "self" };
	int64_t now = command_clock();
	int r;

	if (until >= 0 && until <= now)
		limit_pass();
	else
		limit_start(until < 0 ? -1 : until - now);
	wish.wait = wait && !limit_passed();
	r = handle_borrow(h, &wish);
	limit_stop();
	return r;
}

/* What was moved is bound by the command alone: before that begins nothing is to be evicted. */
static int make_handle(const struct args *a, struct run_handle *x, int64_t until)
{
	const struct handle_wish wish = { .prefix = "run" };
	int r;

	x->handle.key = &x->key;
	x->handle.kind = x->option == OPT_OWN ? HANDLE_OWN : x->option == OPT_BORROW ? HANDLE_REF : HANDLE_MUT;
	if (x->option == OPT_OWN)
		r = handle_own(&x->handle, &wish);
	else
		r = borrow(&x->handle, args_has(a, OPT_WAIT), until);
	if (r == 0 && args_has(a, OPT_LEASE))
		r = handle_set(&x->handle, "lease", a->value[OPT_LEASE]);
	return r;
}

static int make_once(struct run_handle *x)
{
	struct stat st;

	x->once = key_control(&x->key, "once", x->key.name);
	return lstat(x->key.path, &st) < 0 ? report_errno(x->key.word, errno, NULL) : 0;
}

static int make_one(const struct args *a, struct run_handle *x, int64_t until)
{
	if (x->option == OPT_PRODUCE)
		return product_begin(&x->product, &x->key);
	return x->option == OPT_ONCE ? make_once(x) : make_handle(a, x, until);
}

/* Borrows come first, because they may have to be waited for, and all commands take them in the same order: so they
 * never wait for each other. What others can see comes last: owners, then futures. */
static int rank(const struct run_handle *x)
{
	return x->option == OPT_PRODUCE ? 2 : x->option == OPT_OWN ? 1 : 0;
}

static int by_rank(const void *a, const void *b)
{
	const struct run_handle *x = *(struct run_handle *const *)a, *y = *(struct run_handle *const *)b;

	return rank(x) != rank(y) ? rank(x) - rank(y) : strcmp(x->key.path, y->key.path);
}

int run_handles_make(const struct args *a, struct run_handles *h, int64_t until)
{
	struct run_handle **order = calloc((size_t)h->count + 1, sizeof(struct run_handle *));
	int r = 0;

	if (order == NULL)
		out_of_memory();
	for (int i = 0; i < h->count; i++)
		order[i] = &h->list[i];
	qsort(order, (size_t)h->count, sizeof(struct run_handle *), by_rank);
	for (int i = 0; r == 0 && i < h->count; i++)
		r = make_one(a, order[i], until);
	free(order);
	if (r != 0)
		run_handles_undo(h);
	return r;
}

/* In the process of the command */

int run_handles_bind(struct run_handles *h)
{
	int r = 0;

	for (int i = 0; r == 0 && i < h->count; i++)
		if (h->list[i].handle.path != NULL)
			r = handle_set(&h->list[i].handle, "pid", "self");
	return r;
}

void run_handles_give_back(struct run_handles *h)
{
	for (int i = 0; i < h->count; i++)
		if (h->list[i].option == OPT_OWN)
			handle_undo(&h->list[i].handle);
}

/* Ending */

void run_handles_undo(struct run_handles *h)
{
	for (int i = 0; i < h->count; i++) {
		handle_undo(&h->list[i].handle);
		if (h->list[i].product.handle.path != NULL)
			product_undo(&h->list[i].product);
	}
}

int run_handles_end(struct run_handles *h, const char *failure)
{
	int status = EXIT_DONE;

	for (int i = 0; i < h->count; i++) {
		int r = 0;

		if (h->list[i].option == OPT_PRODUCE)
			r = product_end(&h->list[i].product, failure);
		else
			handle_drop(&h->list[i].handle);
		status = r != 0 ? r : status;
	}
	return status;
}

static const char *path_of(const struct run_handle *x)
{
	return x->once ?: x->product.handle.path ?: x->handle.path;
}

void run_handles_mark(const struct run_handles *h, struct marks *m)
{
	m->count = h->count;
	m->list = calloc((size_t)h->count + 1, sizeof(*m->list));
	if (m->list == NULL)
		out_of_memory();
	for (int i = 0; i < h->count; i++)
		m->list[i] = (struct mark){ h->list[i].name, path_of(&h->list[i]) };
}

void run_handles_finish(struct run_handles *h)
{
	for (int i = 0; i < h->count; i++) {
		struct run_handle *x = &h->list[i];

		handle_finish(&x->handle);
		product_finish(&x->product);
		key_finish(&x->key);
		free(x->name);
		free(x->once);
	}
	free(h->list);
	*h = (struct run_handles){ 0 };
}

/* run: a command with handles and a lifetime that end when it does. They are made here, and bound to this process; the
 * process of the command binds them to itself before it begins, so that from then on nothing depends on this one. */
#include "command.h"
#include "lifetime.h"
#include "marks.h"
#include "report.h"
#include "run_handles.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct run {
	const struct args *args;
	int64_t until; /* --timeout, by command_clock(); negative: none */
	struct key lifetime; /* path is NULL: has none */
	char *wait_timeout;  /* the file to write that into, or NULL */
	struct run_handles handles;
};

/* The lifetime */

static int begin_lifetime(struct run *r)
{
	const char *lease = r->args->value[OPT_LEASE];
	int e;

	if (r->lifetime.path == NULL)
		return 0;
	if (mkdir(r->lifetime.path, 0777) < 0)
		return lifetime_report(&r->lifetime, errno);
	e = attribute_write(r->lifetime.path, "pid", "self");
	if (e == 0 && lease != NULL)
		e = attribute_write(r->lifetime.path, "lease", lease);
	if (e == 0)
		return 0;
	rmdir(r->lifetime.path);
	return lifetime_report(&r->lifetime, -e);
}

/* By now it has ended, or is about to; this waits for it. */
static void end_lifetime(struct run *r)
{
	if (r->lifetime.path != NULL)
		rmdir(r->lifetime.path);
}

/* How long it waits. Said of the process of the command, and of this one, to which those belong whose parent has
 * ended. */

static int limit_waiting(const struct run *r)
{
	const char *value = r->args->value[OPT_WAIT_TIMEOUT];
	int fd, e;

	if (r->wait_timeout == NULL)
		return 0;
	fd = open(r->wait_timeout, O_WRONLY | O_CLOEXEC);
	e = fd < 0 || write(fd, value, strlen(value)) < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	if (e == EROFS)
		return report("--wait-timeout", "mount it with -o wait-timeout=DUR", "the mount is read only (EROFS)");
	return e != 0 ? report_errno("--wait-timeout", e, NULL) : 0;
}

static int find_wait_timeout(struct run *r)
{
	struct key k = { 0 };
	int e;

	if (!args_has(r->args, OPT_WAIT_TIMEOUT))
		return 0;
	e = r->handles.count > 0 ? 0 : key_find(r->args, key_default(r->args), &k);
	if (e == 0)
		r->wait_timeout = key_control(r->handles.count > 0 ? &r->handles.list[0].key : &k, "wait-timeout", NULL);
	key_finish(&k);
	return e;
}

static int adopt(const struct run *r)
{
	int e = limit_waiting(r);

	if (e == 0 && r->wait_timeout != NULL)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	return e;
}

/* The command */

static int bind_all(void *arg)
{
	struct run *r = arg;
	int e = limit_waiting(r);

	if (e != 0)
		return e;
	e = r->lifetime.path != NULL ? attribute_write(r->lifetime.path, "pid", "self") : 0;
	return e < 0 ? lifetime_report(&r->lifetime, -e) : run_handles_bind(&r->handles);
}

static void give_back(void *arg)
{
	struct run *r = arg;

	run_handles_give_back(&r->handles);
}

static char **prepare_words(const struct run *r)
{
	struct marks m = { .other = { .name = "lifetime", .path = r->lifetime.path } };
	char **words;

	run_handles_mark(&r->handles, &m);
	marks_export(&m);
	words = marks_replace(&m, r->args->words, r->args->count);
	free(m.list);
	return words;
}

static void free_words(char **words)
{
	for (char **w = words; *w != NULL; w++)
		free(*w);
	free(words);
}

static int finish(struct run *r, const struct outcome *o)
{
	char *failure = command_failure(r->args->words[0], o);
	int status = command_status(o), ended = run_handles_end(&r->handles, failure);

	free(failure);
	return status != 0 ? status : ended;
}

static int run_command(struct run *r)
{
	struct command c = { .words = prepare_words(r), .begin = bind_all, .not_run = give_back, .arg = r };
	struct outcome o;
	int status = adopt(r);

	if (status == 0)
		status = command_run(&c, r->until, &o);
	if (status == 0)
		status = finish(r, &o);
	else
		run_handles_undo(&r->handles);
	free_words(c.words);
	return status;
}

/* All of it */

static int run(struct run *r)
{
	int status = begin_lifetime(r);

	if (status != 0)
		return status;
	status = run_handles_make(r->args, &r->handles, r->until);
	if (status == 0)
		status = run_command(r);
	end_lifetime(r);
	return status;
}

static int check_marks(const struct run *r)
{
	const struct args *a = r->args;

	if (r->handles.count < 2 || marks_count(a->words, a->count) <= r->handles.count)
		return 0;
	return report_usage("there are more {} than handles; give them names, NAME=KEY and {NAME}");
}

static int check(const struct args *a)
{
	bool borrows = args_has(a, OPT_BORROW) || args_has(a, OPT_BORROW_MUT);

	if (args_has(a, OPT_LEASE) && !args_has(a, OPT_RUN_LIFETIME) && !args_has(a, OPT_OWN) && !borrows)
		return report_usage("--lease needs --lifetime NAME, --borrow, --borrow-mut or --own");
	if (args_has(a, OPT_WAIT) && !borrows)
		return report_usage("--wait needs --borrow or --borrow-mut");
	if (args_check_wait_timeout(a) != 0)
		return EXIT_USAGE;
	return args_has(a, OPT_LEASE) ? lease_check("--lease", a->value[OPT_LEASE]) : 0;
}

int verb_run(const struct args *a)
{
	int64_t timeout = args_duration(a, OPT_TIMEOUT), now = command_clock();
	struct run r = { .args = a, .until = timeout < 0 || timeout > INT64_MAX - now ? -1 : now + timeout };
	int status = timeout == INT64_MIN ? EXIT_USAGE : check(a);

	if (status == 0)
		status = run_handles_find(a, &r.handles);
	if (status == 0)
		status = check_marks(&r);
	if (status == 0 && args_has(a, OPT_RUN_LIFETIME))
		status = lifetime_find(a, a->value[OPT_RUN_LIFETIME], &r.lifetime);
	if (status == 0)
		status = find_wait_timeout(&r);
	if (status == 0)
		status = run(&r);
	free(r.wait_timeout);
	run_handles_finish(&r.handles);
	key_finish(&r.lifetime);
	return status;
}

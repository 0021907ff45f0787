/* The words for what fsck finds. */
#include "core/fsck_tables.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAILS "its readers get EIO until it is written anew"
#define NAMED "it gets a name below lost+found/"

static const struct {
	const char *kind, *text, *remedy;
} words[FSCK_KINDS] = {
	[FSCK_ROOT] = { "root", "a directory that every store has is missing", "it is made" },
	[FSCK_LOST] = { "lost", "its data file is missing", FAILS },
	[FSCK_SHORT] = { "short", "its data file is shorter than it was", "the file is set aside, " FAILS },
	[FSCK_LONG] = { "long", "its data file is longer than it was", "what is too much is cut off, a copy is set aside" },
	[FSCK_CHECKSUM] = { "checksum", "its data are not what they were (SHA-256)", "the file is set aside, " FAILS },
	[FSCK_TWICE] = { "twice", "its data file is that of another object", FAILS },
	[FSCK_STATE] = { "state", "its fields contradict its state", "they are set by its state" },
	[FSCK_TYPE] = { "type", "it is of no known type", NULL },
	[FSCK_LINKS] = { "links", "it has more or less names than its number of links says", "they are counted anew" },
	[FSCK_NAMELESS] = { "nameless", "it has no name", NAMED },
	[FSCK_DANGLING] = { "dangling", "nothing has this name", "the name is removed" },
	[FSCK_HOMELESS] = { "homeless", "its directory is missing", "the directory is made, below lost+found/" },
	[FSCK_MISPLACED] = { "misplaced", "it is in what is no directory", "the name is removed, " NAMED },
	[FSCK_NAME] = { "name", "its name cannot be one", "the name is removed, " NAMED },
	[FSCK_DIRECTORY_NAMES] = { "directory", "a directory has a second name", "the name is removed" },
	[FSCK_CIRCLE] = { "circle", "a directory is inside of itself", "the name is removed, " NAMED },
	[FSCK_HANDLE] = { "handle", "it borrows nothing that can be borrowed", "it is dropped" },
	[FSCK_BORROW] = { "borrow", "it is borrowed without a handle", "it is not any more" },
	[FSCK_COUNTS] = { "counts", "it has more or less borrows than it says", "they are counted anew" },
	[FSCK_MEMBER] = { "member", "it is in a lifetime, and one of both is missing", "it is in it no longer" },
	[FSCK_ORPHAN] = { "orphan", "records belong to an object that is missing",
			"they are removed, the file of a draft is set aside" },
	[FSCK_DRAFT] = { "draft", "it has a draft and cannot have one", "the draft is forgotten, its file set aside" },
	[FSCK_GARBAGE] = { "garbage", "its data file was about to be removed", "it stays" },
	[FSCK_UNKNOWN] = { "unknown", "a data file belongs to no object", "it is set aside" },
	[FSCK_STRANGE] = { "strange", "this is no data file of anything", "it is set aside" },
	[FSCK_LEFT_DRAFT] = { "left draft", "a draft waits for the next mount", NULL },
	[FSCK_LEFT_FILE] = { "left file", "a file of an unfinished draft waits for the next mount", NULL },
	[FSCK_LEFT_GARBAGE] = { "left garbage", "a data file waits to be removed", NULL },
	[FSCK_LEFT_TAKEN] = { "left taken", "it was being read for the only time", NULL },
	[FSCK_LEFT_ENDING] = { "left ending", "it has ended, what is in it is still to be evicted", NULL },
};

static const char *const table_names[META_TABLES] = {
	[META_ATTRIBUTES] = "attributes", [META_DRAFTS] = "a draft", [META_TORN] = "torn bytes", [META_ENDINGS] = "an end",
	[META_LEASES] = "a lease", [META_BINDINGS] = "a process", [META_TAKEN] = "names",
};

bool fsck_can_repair(enum fsck_kind kind)
{
	return words[kind].remedy != NULL;
}

static int take_first(void *arg, const struct meta_dentry *d)
{
	*(struct meta_dentry *)arg = *d;
	return 1;
}

/* Puts a part in front of what is at the end of the buffer. */
static char *prepend(char *path, char *at, const char *part, bool slash)
{
	size_t n = strlen(part);

	if (at - path < (ptrdiff_t)n + 2)
		return at;
	if (slash)
		*--at = '/';
	return memcpy(at - n, part, n);
}

/* The path of what is called `name` in `dir`; `name` may be NULL. As far as it can be found out. */
static const char *climb(struct fsck *c, uint64_t dir, const char *name, char path[static PATH_MAX])
{
	static const char *const roots[] = { [META_ABORTED] = ".promisefs/aborted", [META_LIFETIMES] = ".promisefs/lifetimes",
					     [META_OWN] = ".promisefs/own", [META_REF] = ".promisefs/ref",
					     [META_MUT] = ".promisefs/mut" };
	char *at = path + PATH_MAX - 1, number[32];
	struct meta_dentry d;

	*at = '\0';
	if (name != NULL)
		at = prepend(path, at, name, false);
	for (int depth = 0; dir != META_ROOT && depth < 256; depth++, dir = d.parent) {
		bool slash = *at != '\0';

		if (dir > META_ROOT && dir <= META_MUT)
			return prepend(path, at, roots[dir], slash);
		if (c->m->ops->dentry_names(c->m, dir, take_first, &d) != 1) {
			snprintf(number, sizeof(number), "#%llu", (unsigned long long)dir);
			return prepend(path, at, number, slash);
		}
		at = prepend(path, at, d.name, slash);
	}
	return at;
}

static const char *key_of(struct fsck *c, const struct finding *f, char path[static PATH_MAX])
{
	static const char nothing[] = "";
	struct meta_dentry d = { 0 };

	if (f->kind >= FSCK_DANGLING && f->kind <= FSCK_DIRECTORY_NAMES &&
	    c->m->ops->dentry_list(c->m, f->other, f->cookie - 1, take_first, &d) == 1 && d.cookie == f->cookie)
		return climb(c, f->other, d.name, path);
	if (f->kind == FSCK_MEMBER && c->m->ops->member_list(c->m, f->other, f->cookie - 1, take_first, &d) == 1)
		return climb(c, f->other, d.name, path);
	if (f->object == META_ROOT)
		return ".";
	return f->object != 0 ? climb(c, f->object, NULL, path) : nothing;
}

int fsck_tell(struct fsck *c, const struct finding *f)
{
	const struct item *i = fsck_item(c, f->object);
	char path[PATH_MAX], file[24] = "", text[200];
	struct fsck_finding told = {
		.kind = words[f->kind].kind, .harmless = fsck_is_harmless(f->kind), .key = key_of(c, f, path),
		.object = f->object, .version = i != NULL ? i->version : 0, .text = words[f->kind].text,
		.remedy = words[f->kind].remedy, .file = f->name,
	};

	if (f->kind == FSCK_ORPHAN) {
		snprintf(text, sizeof(text), "%s: %s", told.text, table_names[f->other]);
		told.text = text;
	}
	if (f->vid != 0 && f->kind != FSCK_LINKS && f->kind != FSCK_COUNTS) {
		snprintf(file, sizeof(file), "%016llx", (unsigned long long)f->vid);
		told.file = file;
	}
	c->o->found(c->o->arg, &told);
	return 0;
}

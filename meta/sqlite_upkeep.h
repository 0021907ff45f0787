/* Statements that look at whole tables: for promisefs fsck, gc and backup, and never for a mount that serves somebody.
 * Prepared when they are needed. */
#pragma once

#include "meta/meta.h"

#define SQL_ORPHANS(table, column) "SELECT DISTINCT " column " FROM " table " ORDER BY " column
#define SQL_REMOVAL(table, column) "DELETE FROM " table " WHERE " column " = ?1"

static const struct {
	const char *scan, *remove;
} sqlite_tables[META_TABLES] = {
	[META_ATTRIBUTES] = { SQL_ORPHANS("attribute", "object"), SQL_REMOVAL("attribute", "object") },
	[META_DRAFTS] = { SQL_ORPHANS("draft", "object"), SQL_REMOVAL("draft", "object") },
	[META_TORN] = { SQL_ORPHANS("aborted", "object"), SQL_REMOVAL("aborted", "object") },
	[META_ENDINGS] = { SQL_ORPHANS("ending", "object"), SQL_REMOVAL("ending", "object") },
	[META_LEASES] = { SQL_ORPHANS("lease", "object"), SQL_REMOVAL("lease", "object") },
	[META_BINDINGS] = { SQL_ORPHANS("binding", "object"), SQL_REMOVAL("binding", "object") },
	[META_TAKEN] = { SQL_ORPHANS("taken", "object"), SQL_REMOVAL("taken", "object") },
};

#define SQL_OBJECTS                                                                                                    \
	"SELECT id, vid, version, mode, uid, gid, nlink, rdev, size, blocks, atime, mtime, ctime, btime, state,"       \
	" declared, durable, live, error, deadline, producer_pid, producer_uid, producer_command, lifetime, borrows,"  \
	" queued, evict FROM object NOT INDEXED ORDER BY id"
#define SQL_DENTRIES "SELECT parent, cookie, name, object FROM dentry ORDER BY parent, cookie"
#define SQL_MEMBERS "SELECT lifetime, cookie, name, object FROM member ORDER BY lifetime, cookie"
#define SQL_BORROWS "SELECT handle, object, mut, waiting FROM borrow NOT INDEXED ORDER BY handle"
#define SQL_BORROW_REMOVE "DELETE FROM borrow WHERE handle = ?1"
#define SQL_CHECK "PRAGMA integrity_check"
#define SQL_HIGHEST                                                                                                    \
	"SELECT max(ifnull((SELECT max(id) FROM object), 0), ifnull((SELECT max(vid) FROM object WHERE vid <> id), 0),"\
	" ifnull((SELECT max(vid) FROM draft), 0), ifnull((SELECT max(vid) FROM garbage), 0),"                        \
	" ifnull((SELECT max(draft) FROM aborted), 0), 15)"
#define SQL_NUMBERS "SELECT ifnull((SELECT next FROM sequence WHERE name = 'id'), 0), (" SQL_HIGHEST ")"
#define SQL_NUMBERS_MEND                                                                                               \
	"INSERT INTO sequence (name, next) VALUES ('id', (" SQL_HIGHEST ") + 1)"                                       \
	" ON CONFLICT (name) DO UPDATE SET next = max(next, excluded.next)"
#define SQL_IDENTITY "SELECT uuid FROM store WHERE one = 1"
#define SQL_EVENTS_OVER "SELECT count(*) - ?1 FROM event"
#define SQL_EVENTS_TRIM                                                                                                \
	"DELETE FROM event WHERE id <= (SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET ?1)"
#define SQL_SPACE                                                                                                      \
	"SELECT page_count * page_size, freelist_count * page_size"                                                    \
	" FROM pragma_page_count, pragma_page_size, pragma_freelist_count"
#define SQL_COMPACT "PRAGMA temp_store = FILE; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)"

/* Salvage: each table with the columns of its primary key. Rows are read along that, from both ends. */
static const struct salvaged {
	const char *table, *key, *backwards;
	bool numbered; /* the first column is a number that one can go on from, behind what cannot be read */
} sqlite_salvaged[] = {
	{ "store", "one", "one DESC", false },
	{ "sequence", "name", "name DESC", false },
	{ "object", "id", "id DESC", true },
	{ "dentry", "parent, cookie", "parent DESC, cookie DESC", true },
	{ "attribute", "object, name", "object DESC, name DESC", true },
	{ "draft", "object", "object DESC", true },
	{ "garbage", "vid", "vid DESC", true },
	{ "aborted", "object", "object DESC", true },
	{ "event", "id", "id DESC", true },
	{ "member", "lifetime, cookie", "lifetime DESC, cookie DESC", true },
	{ "ending", "object", "object DESC", true },
	{ "lease", "object", "object DESC", true },
	{ "binding", "object", "object DESC", true },
	{ "borrow", "handle", "handle DESC", true },
	{ "taken", "object, parent, name", "object DESC, parent DESC, name DESC", true },
};

/* Every statement that runs after the catalog is open: STATEMENT(NAME, "SQL"). Each is prepared once. A test checks
 * that none of them scans a table; EVENT_SCAN and the LIST statements of small tables walk their primary key. */

#define OBJECT_COLUMNS                                                                                              \
	"id, vid, version, mode, uid, gid, nlink, rdev, size, blocks, atime, mtime, ctime, btime, state, declared, " \
	"durable, live, error, deadline, producer_pid, producer_uid, producer_command, lifetime, borrows, queued, evict"

STATEMENT(BEGIN, "BEGIN")
STATEMENT(BEGIN_IMMEDIATE, "BEGIN IMMEDIATE")
STATEMENT(COMMIT, "COMMIT")
STATEMENT(ROLLBACK, "ROLLBACK")
STATEMENT(SEQUENCE_TAKE, "UPDATE sequence SET next = max(next, ?2) + ?1 WHERE name = 'id' RETURNING next")
STATEMENT(GENERATION_GET, "SELECT next FROM sequence WHERE name = 'commit'")
STATEMENT(GENERATION_SET, "INSERT INTO sequence (name, next) VALUES ('commit', ?1) ON CONFLICT (name) DO UPDATE SET next = excluded.next")

STATEMENT(OBJECT_GET, "SELECT " OBJECT_COLUMNS " FROM object WHERE id = ?1")
STATEMENT(OBJECT_BY_VERSION, "SELECT " OBJECT_COLUMNS " FROM object WHERE vid = ?1 AND vid <> id")
STATEMENT(OBJECT_INSERT, "INSERT INTO object (" OBJECT_COLUMNS ")"
			 " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)")
STATEMENT(OBJECT_UPDATE, "UPDATE object SET vid = ?2, version = ?3, mode = ?4, uid = ?5, gid = ?6, nlink = ?7, rdev = ?8,"
			 " size = ?9, blocks = ?10, atime = ?11, mtime = ?12, ctime = ?13, btime = ?14, state = ?15,"
			 " declared = ?16, durable = ?17, live = ?18, error = ?19, deadline = ?20, producer_pid = ?21,"
			 " producer_uid = ?22, producer_command = ?23, lifetime = ?24, borrows = ?25, queued = ?26, evict = ?27 WHERE id = ?1")
STATEMENT(OBJECT_TOUCH, "UPDATE object SET mtime = ?2, ctime = ?2, nlink = nlink + ?3 WHERE id = ?1")
STATEMENT(OBJECT_DELETE, "DELETE FROM object WHERE id = ?1")
STATEMENT(OBJECT_DEADLINES, "SELECT " OBJECT_COLUMNS " FROM object WHERE deadline IS NOT NULL AND deadline > 0 ORDER BY deadline")

STATEMENT(DENTRY_GET, "SELECT cookie, object FROM dentry WHERE parent = ?1 AND cookie BETWEEN ?2 AND ?3 AND name = ?4")
STATEMENT(DENTRY_INSERT, "INSERT INTO dentry (parent, cookie, name, object) VALUES (?1, ?2, ?3, ?4)")
STATEMENT(DENTRY_SET, "UPDATE dentry SET object = ?3 WHERE parent = ?1 AND cookie = ?2")
STATEMENT(DENTRY_DELETE, "DELETE FROM dentry WHERE parent = ?1 AND cookie = ?2")
STATEMENT(DENTRY_LIST, "SELECT cookie, name, object FROM dentry WHERE parent = ?1 AND cookie > ?2 ORDER BY cookie")
STATEMENT(DENTRY_NAMES, "SELECT parent, cookie, name FROM dentry WHERE object = ?1")

STATEMENT(ATTRIBUTE_GET, "SELECT value FROM attribute WHERE object = ?1 AND name = ?2")
STATEMENT(ATTRIBUTE_SET, "INSERT INTO attribute (object, name, value) VALUES (?1, ?2, ?3)"
			 " ON CONFLICT (object, name) DO UPDATE SET value = excluded.value")
STATEMENT(ATTRIBUTE_REMOVE, "DELETE FROM attribute WHERE object = ?1 AND name = ?2")
STATEMENT(ATTRIBUTES_DELETE, "DELETE FROM attribute WHERE object = ?1")
STATEMENT(ATTRIBUTE_LIST, "SELECT name, length(value) FROM attribute WHERE object = ?1")

STATEMENT(DRAFT_PUT, "INSERT INTO draft (object, vid, sealed, fsynced, size, mtime) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
		     " ON CONFLICT (object) DO UPDATE SET vid = excluded.vid, sealed = excluded.sealed,"
		     " fsynced = excluded.fsynced, size = excluded.size, mtime = excluded.mtime")
STATEMENT(DRAFT_DELETE, "DELETE FROM draft WHERE object = ?1 AND (?2 = 0 OR vid = ?2)")
STATEMENT(DRAFT_LIST, "SELECT object, vid, sealed, fsynced, size, mtime FROM draft WHERE object > 0 ORDER BY object")

STATEMENT(GARBAGE_ADD, "INSERT INTO garbage (vid) VALUES (?1)")
STATEMENT(GARBAGE_REMOVE, "DELETE FROM garbage WHERE vid = ?1")
STATEMENT(GARBAGE_LIST, "SELECT vid FROM garbage WHERE vid > 0 ORDER BY vid")

STATEMENT(ABORTED_ADD, "INSERT INTO aborted (object, draft, at, size) VALUES (?1, ?2, ?3, ?4)")
STATEMENT(ABORTED_REMOVE, "DELETE FROM aborted WHERE object = ?1")
STATEMENT(ABORTED_LIST, "SELECT object, draft, at, size FROM aborted WHERE object > 0 ORDER BY object")

STATEMENT(MEMBER_GET, "SELECT cookie, object FROM member WHERE lifetime = ?1 AND cookie BETWEEN ?2 AND ?3 AND name = ?4")
STATEMENT(MEMBER_INSERT, "INSERT INTO member (lifetime, cookie, name, object) VALUES (?1, ?2, ?3, ?4)")
STATEMENT(MEMBER_DELETE, "DELETE FROM member WHERE lifetime = ?1 AND cookie = ?2")
STATEMENT(MEMBERSHIPS_DELETE, "DELETE FROM member WHERE object = ?1")
STATEMENT(MEMBERS_DELETE, "DELETE FROM member WHERE lifetime = ?1")
STATEMENT(MEMBER_LIST, "SELECT cookie, name, object FROM member WHERE lifetime = ?1 AND cookie > ?2 ORDER BY cookie")
STATEMENT(MEMBER_NAMES, "SELECT lifetime, cookie, name FROM member WHERE object = ?1")

STATEMENT(ENDING_ADD, "INSERT INTO ending (object, path) VALUES (?1, ?2)")
STATEMENT(ENDING_LIST, "SELECT object, path FROM ending WHERE object > 0 ORDER BY object")

STATEMENT(LEASE_GET, "SELECT object, expires, boot, boot_id FROM lease WHERE object = ?1")
STATEMENT(LEASE_PUT, "INSERT INTO lease (object, expires, boot, boot_id) VALUES (?1, ?2, ?3, ?4)"
		     " ON CONFLICT (object) DO UPDATE SET expires = excluded.expires, boot = excluded.boot,"
		     " boot_id = excluded.boot_id")
STATEMENT(LEASE_REMOVE, "DELETE FROM lease WHERE object = ?1")
STATEMENT(LEASE_SOONEST_BOOT, "SELECT object, expires, boot, boot_id FROM lease WHERE boot IS NOT NULL ORDER BY boot")
STATEMENT(LEASE_SOONEST_TIME, "SELECT object, expires, boot, boot_id FROM lease WHERE boot IS NULL AND expires > -9223372036854775807 ORDER BY expires")
STATEMENT(LEASE_REBASE, "UPDATE lease SET boot = max(1, ?3 + expires - ?2), boot_id = ?1 WHERE boot IS NOT NULL AND boot_id <> ?1")

STATEMENT(BINDING_GET, "SELECT object, pid, start, boot_id FROM binding WHERE object = ?1")
STATEMENT(BINDING_PUT, "INSERT INTO binding (object, pid, start, boot_id) VALUES (?1, ?2, ?3, ?4)"
		       " ON CONFLICT (object) DO UPDATE SET pid = excluded.pid, start = excluded.start,"
		       " boot_id = excluded.boot_id")
STATEMENT(BINDING_REMOVE, "DELETE FROM binding WHERE object = ?1")
STATEMENT(BINDING_LIST, "SELECT object, pid, start, boot_id FROM binding WHERE object > ?1 ORDER BY object")
STATEMENT(BINDING_OF, "SELECT object, pid, start, boot_id FROM binding WHERE pid = ?1 AND start = ?2")

STATEMENT(BORROW_GET, "SELECT handle, object, mut, waiting FROM borrow WHERE handle = ?1")
STATEMENT(BORROW_ADD, "INSERT INTO borrow (handle, object, mut, waiting) VALUES (?1, ?2, ?3, ?4)")
STATEMENT(BORROW_HELD, "UPDATE borrow SET waiting = 0 WHERE handle = ?1")
STATEMENT(BORROW_QUEUES, "SELECT DISTINCT object FROM borrow WHERE waiting = 1 AND object > ?1 ORDER BY object")
STATEMENT(BORROW_LIST, "SELECT handle, object, mut, waiting FROM borrow WHERE object = ?1 AND waiting = ?2 ORDER BY handle")

STATEMENT(TAKEN_ADD, "INSERT INTO taken (object, parent, name, done) VALUES (?1, ?2, ?3, 0)")
STATEMENT(TAKEN_DONE, "UPDATE taken SET done = ?2 WHERE object = ?1")
STATEMENT(TAKEN_REMOVE, "DELETE FROM taken WHERE object = ?1")
STATEMENT(TAKEN_NAMES, "SELECT parent, 0, name FROM taken WHERE object = ?1")
STATEMENT(TAKEN_LIST, "SELECT object, done FROM taken WHERE object > 0 ORDER BY object")

STATEMENT(EVENT_ADD, "INSERT INTO event (at, kind, key, object, version, pid, uid, command, detail)"
		     " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")
STATEMENT(EVENT_PRUNE, "DELETE FROM event WHERE id <= ?1")
STATEMENT(EVENT_SCAN, "SELECT id, at, kind, key, object, version, pid, uid, command, detail FROM event WHERE id > ?1 ORDER BY id")

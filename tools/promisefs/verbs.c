/* The table of verbs, options and mount options. Help, parsing and completion read it; nothing repeats it. */
#include "args.h"
#include "verbs.h"

#define BIT(id) (1u << (id))
_Static_assert(OPT_COUNT <= 32, "the options of a verb are bits of an unsigned");
#define KEY_OPTIONS (BIT(OPT_MOUNT) | BIT(OPT_HELP))

const struct option_row option_table[] = {
	{ OPT_MOUNT, 'm', "mount", "MOUNTPOINT", "relative KEYs are below this mount", WORD_DIRECTORY },
	{ OPT_JSON, 0, "json", NULL, "print JSON, one object a line" },
	{ OPT_TIMEOUT, 0, "timeout", "DUR", "give up after DUR (exit status 124)" },
	{ OPT_AWAIT, 0, "await", NULL, "wait also when nobody has declared KEY yet" },
	{ OPT_DEADLINE, 0, "deadline", "DUR", "fail with ETIMEDOUT when not set after DUR" },
	{ OPT_LEASE, 0, "lease", "DUR", "it also ends by itself after DUR, or at a time" },
	{ OPT_LIFETIME, 0, "lifetime", NULL, "KEY is the name of a lifetime" },
	{ OPT_RUN_LIFETIME, 0, "lifetime", "NAME", "a new lifetime, which ends when COMMAND does" },
	{ OPT_ANY, 0, "any", NULL, "return when the first of them settles" },
	{ OPT_LONG, 'l', "long", NULL, "also state, version, size and time" },
	{ OPT_FOLLOW, 0, "follow", NULL, "go on with what happens from now on" },
	{ OPT_SHA256, 0, "sha256", NULL, "also the SHA-256 of the content" },
	{ OPT_OPTIONS, 'o', "options", "OPT[,OPT]", "mount options, see below; may be repeated", WORD_MOUNT_OPTION },
	{ OPT_FOREGROUND, 'f', "foreground", NULL, "stay in the foreground" },
	{ OPT_MUT, 0, "mut", NULL, "borrow it to write it, alone" },
	{ OPT_WAIT, 0, "wait", NULL, "wait for one's turn to borrow" },
	{ OPT_PID, 0, "pid", "PID", "it also ends when that process does" },
	{ OPT_TO, 0, "to", "KEY", "move HANDLE there: KEY owns it again", WORD_KEY },
	{ OPT_BORROW, 0, "borrow", "[NAME=]KEY", "COMMAND reads KEY, nobody changes it", WORD_KEY },
	{ OPT_BORROW_MUT, 0, "borrow-mut", "[NAME=]KEY", "COMMAND writes KEY, nobody else uses it", WORD_KEY },
	{ OPT_OWN, 0, "own", "[NAME=]KEY", "KEY is COMMAND's, and goes with it", WORD_KEY },
	{ OPT_PRODUCE, 0, "produce", "[NAME=]KEY", "COMMAND writes KEY; set if it succeeds", WORD_KEY },
	{ OPT_ONCE, 0, "once", "[NAME=]KEY", "COMMAND takes KEY by reading it once", WORD_KEY },
	{ OPT_WAIT_TIMEOUT, 0, "wait-timeout", "DUR|none", "what COMMAND opens waits no longer than that" },
	{ OPT_ONLINE, 0, "online", NULL, "look at a store that is mounted, change nothing" },
	{ OPT_REPAIR, 0, "repair", NULL, "put right what is wrong, set aside what is lost" },
	{ OPT_QUICK, 0, "quick", NULL, "do not read data to compare checksums" },
	{ OPT_DRY_RUN, 0, "dry-run", NULL, "only say what would be done" },
	{ OPT_EVENTS, 0, "events", "N", "keep the newest N events of the log (10000)" },
	{ OPT_HELP, 'h', "help", NULL, "print this help" },
	{ OPT_COUNT },
};

const struct mount_option_row mount_table[] = {
	{ "allow_other", "", "other users may use the mount" },
	{ "ro", "", "read only" },
	{ "acl", "", "access control lists, also in a store without" },
	{ "noacl", "", "no access control lists" },
	{ "passthrough=", "auto|on|off", "let the kernel read and write by itself" },
	{ "on-producer-death=", "fail|wait", "a future whose producer was killed" },
	{ "aborted-age=", "DUR", "keep torn bytes of killed writers (24h)" },
	{ "aborted-bytes=", "SIZE", "keep at most so much of them (1G)" },
	{ "wait-timeout=", "DUR|none", "no reader waits longer than this (none)" },
	{ "seccomp=", "auto|on|off", "make only the system calls that are needed" },
	{ "max-open=", "N|none", "open files of one user (see promisefs(5))" },
	{ "max-writing=", "N|none", "of these, open for writing (4096)" },
	{ "max-waiting=", "N|none", "opens of one user that wait (4096)" },
	{ "max-listening=", "N|none", "his readers of events, waits ... (64)" },
	{ "max-timeouts=", "N|none", "his processes with a wait-timeout (1024)" },
	{ "max-handles=", "N|none", "his handles (16384)" },
	{ "max-lifetimes=", "N|none", "his lifetimes (4096)" },
	{ "threads=", "N", "threads that serve requests" },
	{ "supervisor=", "on|off", "another process goes on when one dies (off)" },
	{ "restart-limit=", "N|none", "deaths in 10 s that end the mount (5)" },
	{ "busy-poll=", "DUR|off", "look so long for a request before sleeping" },
	{ 0 },
};

static const struct verb_row lifetime_table[] = {
	{ "begin", "NAME", "begin it, print the path of its directory", "",
	  KEY_OPTIONS | BIT(OPT_LEASE), 1, 1, WORD_NONE, lifetime_begin },
	{ "add", "NAME KEY...", "KEYs are evicted when it ends", "",
	  KEY_OPTIONS, 2, -1, WORD_KEY, lifetime_add, .first = WORD_LIFETIME },
	{ "end", "NAME", "end it: all keys that were added are evicted", "",
	  KEY_OPTIONS, 1, 1, WORD_LIFETIME, lifetime_end },
	{ "list", "[NAME]", "the lifetimes that there are, or what is in one", "",
	  KEY_OPTIONS | BIT(OPT_JSON), 0, 1, WORD_LIFETIME, lifetime_list },
	{ 0 },
};

const struct verb_row verb_table[] = {
	{ "mount", "STORE MOUNTPOINT", "mount a store, made when it is missing",
	  "STORE is a directory on a local file system, MOUNTPOINT an empty directory.\n"
	  "Returns when the mount answers.\n",
	  BIT(OPT_OPTIONS) | BIT(OPT_FOREGROUND) | BIT(OPT_HELP), 2, 2, WORD_DIRECTORY, verb_mount },
	{ "umount", "MOUNTPOINT", "unmount, and wait until the store is free",
	  "Works for root and, through fusermount3, for the user who mounted.\n",
	  BIT(OPT_HELP), 1, 1, WORD_DIRECTORY, verb_umount },
	{ "put", "KEY < data", "write standard input to KEY, all or nothing",
	  "KEY is replaced, or set when it is a future; readers see all of it or none.\n"
	  "After a read or write error, or when put is killed, nothing is published.\n"
	  "The end of a pipe looks the same whether its writer finished or was killed:\n"
	  "where that matters let the producer write KEY itself, `producer > KEY`.\n",
	  KEY_OPTIONS, 1, 1, WORD_KEY, verb_put },
	{ "get", "KEY", "write KEY to standard output, wait for it if need be",
	  "Waits while KEY is declared or written for the first time.\n",
	  KEY_OPTIONS | BIT(OPT_TIMEOUT) | BIT(OPT_AWAIT), 1, 1, WORD_KEY, verb_get },
	{ "future", "KEY", "declare KEY, print its path",
	  "Who opens KEY for reading waits until it is set: written and closed.\n"
	  "Declaring it again while it is pending is no error; when it is set, it is.\n",
	  KEY_OPTIONS | BIT(OPT_DEADLINE), 1, 1, WORD_KEY, verb_future },
	{ "wait", "KEY...", "wait until every KEY is ready",
	  "Prints each KEY when it is ready. A KEY that failed is told on standard error\n"
	  "and makes the exit status 1, after all others have settled too.\n",
	  KEY_OPTIONS | BIT(OPT_TIMEOUT) | BIT(OPT_ANY) | BIT(OPT_JSON), 1, -1, WORD_KEY, verb_wait },
	{ "fail", "KEY REASON", "fail a pending KEY: its readers get an error",
	  "REASON is free text (readers get EIO), or begins with an errno's name:\n"
	  "`ENOSPC` or `ENOSPC: no room for the index`.\n",
	  KEY_OPTIONS, 2, 2, WORD_KEY, verb_fail },
	{ "cancel", "KEY", "remove a pending KEY: its readers get ECANCELED",
	  "Refuses a KEY that is set; see evict.\n",
	  KEY_OPTIONS, 1, 1, WORD_KEY, verb_cancel },
	{ "evict", "KEY...", "remove KEYs from the store",
	  "The key goes at once, its data when the last reader has closed it.\n",
	  KEY_OPTIONS, 1, -1, WORD_KEY, verb_evict },
	{ "lifetime", "ACTION [NAME [KEY...]]", "begin, fill, end, list scopes of KEYs that go together",
	  "A lifetime is a directory, MOUNTPOINT/.promisefs/lifetimes/NAME. Its mount is\n"
	  "that of the KEYs, else of -m or of the current directory. In it, a KEY gets the\n"
	  "last part of its own name, or, when that is taken, all of it with : for /.\n",
	  KEY_OPTIONS | BIT(OPT_LEASE) | BIT(OPT_JSON), 1, -1, WORD_NONE, NULL, .actions = lifetime_table },
	{ "lease", "KEY [DUR]", "let KEY or a lifetime end by itself, or say when",
	  "DUR is a duration, or +DUR to extend the lease that it has, or a time such as\n"
	  "2026-01-02T03:04:05Z, or none. Without it, prints when the lease expires.\n",
	  KEY_OPTIONS | BIT(OPT_LIFETIME) | BIT(OPT_JSON), 1, 2, WORD_KEY, verb_lease },
	{ "borrow", "KEY [NAME]", "borrow KEY, print the path of the handle",
	  "As long as somebody has borrowed KEY nobody can change or evict it. Many may\n"
	  "borrow it; with --mut only one, who may write it, and nobody reads it meanwhile.\n"
	  "Otherwise it is an error, or with --wait a wait in line. KEY may be an owner\n"
	  "handle, MOUNTPOINT/.promisefs/own/X.\n",
	  KEY_OPTIONS | BIT(OPT_MUT) | BIT(OPT_WAIT) | BIT(OPT_TIMEOUT) | BIT(OPT_LEASE) | BIT(OPT_PID), 1, 2,
	  WORD_NONE, verb_borrow, .first = WORD_KEY },
	{ "own", "KEY [NAME] | --to KEY HANDLE", "move KEY to an owner handle, print its path; or back",
	  "KEY is no key any more, its object is MOUNTPOINT/.promisefs/own/NAME.\n"
	  "With --to, HANDLE (own/NAME, or its path) becomes KEY, and replaces what was it.\n",
	  KEY_OPTIONS | BIT(OPT_LEASE) | BIT(OPT_PID) | BIT(OPT_TO), 1, 2, WORD_NONE, verb_own, .first = WORD_KEY },
	{ "release", "HANDLE...", "drop handles: the end of a borrow, or of an object",
	  "HANDLE is ref/NAME, mut/NAME or own/NAME in the mount of the current directory\n"
	  "or of -m, or a path. An object that an owner handle owns is evicted.\n",
	  KEY_OPTIONS, 1, -1, WORD_HANDLE, verb_release },
	{ "once", "KEY", "take KEY: write it to standard output, evict it",
	  "Of many who do that one gets it. Waits as get does. When it cannot be written\n"
	  "to standard output, or once is killed, KEY is there again.\n",
	  KEY_OPTIONS | BIT(OPT_TIMEOUT), 1, 1, WORD_KEY, verb_once },
	{ "run", "[--] COMMAND [ARGUMENT...]", "run a command with handles and a lifetime of its own",
	  "For each KEY there is a handle as long as COMMAND runs, whatever ends it, also\n"
	  "when run was killed. Its path stands in every ARGUMENT instead of {NAME}, or of\n"
	  "{}: that of the only one, or of one after the other; and in the environment, as\n"
	  "PROMISEFS_NAME and by its number, PROMISEFS_1. The path of the lifetime's\n"
	  "directory: {lifetime}, PROMISEFS_LIFETIME. What is produced becomes KEY when\n"
	  "COMMAND ends with status 0, else KEY fails. With --wait-timeout no open(2) of\n"
	  "COMMAND and what it starts waits longer for a future: it fails with ETIMEDOUT.\n"
	  "--timeout counts from the start,\n"
	  "with the waiting. The exit status is that of COMMAND, 128 and the number of the\n"
	  "signal that killed it, or 124 after --timeout.\n",
	  KEY_OPTIONS | BIT(OPT_BORROW) | BIT(OPT_BORROW_MUT) | BIT(OPT_OWN) | BIT(OPT_PRODUCE) | BIT(OPT_ONCE) |
	  BIT(OPT_RUN_LIFETIME) | BIT(OPT_LEASE) | BIT(OPT_TIMEOUT) | BIT(OPT_WAIT) | BIT(OPT_WAIT_TIMEOUT), 1, -1, WORD_COMMAND, verb_run },
	{ "stat", "KEY...", "what is known of KEY; never waits",
	  "", KEY_OPTIONS | BIT(OPT_JSON) | BIT(OPT_SHA256), 1, -1, WORD_KEY, verb_stat },
	{ "ls", "[KEY]", "list the keys in a directory; never waits",
	  "KEY is the current directory, or with -m MOUNTPOINT the root of the mount,\n"
	  "when it is not given.\n",
	  KEY_OPTIONS | BIT(OPT_JSON) | BIT(OPT_LONG), 0, 1, WORD_KEY, verb_ls },
	{ "log", "[KEY]", "who declared, wrote, failed, evicted KEY, and when",
	  "Without KEY: of all keys of the mount of the current directory or of -m.\n",
	  KEY_OPTIONS | BIT(OPT_JSON) | BIT(OPT_FOLLOW), 0, 1, WORD_KEY, verb_log },
	{ "stats", "", "what the daemon has done, and how long that took",
	  "Of the mount of the current directory or of -m, since it was mounted.\n",
	  KEY_OPTIONS | BIT(OPT_JSON), 0, 0, WORD_NONE, verb_stats },
	{ "doctor", "", "what this machine can do for promisefs, and what to change",
	  "Exit status 1 when something is missing that promisefs cannot do without.\n",
	  BIT(OPT_JSON) | BIT(OPT_HELP), 0, 0, WORD_NONE, verb_doctor },
	{ "fsck", "STORE", "check a store: its catalog against its data files",
	  "STORE is the directory that mount was given, and is not mounted, or, with\n"
	  "--online, is. With --repair nothing is deleted: data goes to STORE/quarantine/,\n"
	  "objects without a name to lost+found/ in the mount.\n"
	  "Exit status: 0 nothing is wrong, 1 all was repaired, 4 something is left,\n"
	  "8 it could not be checked.\n",
	  BIT(OPT_ONLINE) | BIT(OPT_REPAIR) | BIT(OPT_QUICK) | BIT(OPT_JSON) | BIT(OPT_HELP), 1, 1, WORD_DIRECTORY, verb_fsck },
	{ "gc", "STORE", "free what a store that is not mounted needs no longer",
	  "Data files that nothing speaks of, what killed writers left, old events, free\n"
	  "pages of the catalog. Of -o, on-producer-death counts.\n",
	  BIT(OPT_DRY_RUN) | BIT(OPT_EVENTS) | BIT(OPT_OPTIONS) | BIT(OPT_JSON) | BIT(OPT_HELP), 1, 1, WORD_DIRECTORY, verb_gc },
	{ "backup", "STORE DEST", "copy a store, also one that is mounted",
	  "DEST is a new directory, which can be mounted then. It is as STORE was at one\n"
	  "moment: what close(2) had acknowledged is in it, whole, drafts are not. On the\n"
	  "same file system data is not copied, but cloned or linked. When interrupted, run\n"
	  "it again to go on; until it has succeeded, DEST is no store.\n",
	  BIT(OPT_JSON) | BIT(OPT_HELP), 2, 2, WORD_DIRECTORY, verb_backup },
	{ "help", "[VERB]", "help on all or on one verb", "", BIT(OPT_HELP), 0, 1, WORD_VERB, verb_help },
	{ 0 },
};

/* What becomes of a draft whose last writer is gone, as a function of what is known and nothing else. */
#pragma once

#include <stdbool.h>

struct draft_question {
	bool gone;      /* the object has no name any more */
	bool replaces;  /* the object was published before */
	bool declared;  /* the object is a future */
	bool has_data;  /* the draft's file was made */
	bool unchanged; /* it is what it was copied from */
	int error;      /* a write, or the record of the close, failed with this errno */
	bool killed;    /* the last close was a death by a signal */
	bool fsynced;   /* after the writer had said that what is there counts */
	bool death_waits; /* option on-producer-death=wait */
};

enum draft_verdict {
	DRAFT_PUBLISH, /* it becomes the current version */
	DRAFT_DROP,    /* it is forgotten; the object stays as it was */
	DRAFT_REMOVE,  /* the object, which never was anything else, goes with it */
	DRAFT_FAIL,    /* the future fails */
	DRAFT_PEND,    /* the future is pending again */
};

enum draft_verdict draft_rule(const struct draft_question *q);
/* Are its bytes to be kept below aborted/? */
bool draft_keeps_bytes(const struct draft_question *q);

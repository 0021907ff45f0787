/* The rule of opening, as a function of what is known and nothing else. */
#pragma once

#include "meta/meta.h"

#include <stdbool.h>

enum holds { HOLDS_UNKNOWN, HOLDS_NO, HOLDS_YES };

/* Where a node stands in its object. */
enum standing {
	NODE_CURRENT,  /* it is what the key gives: the current version, or what will be the first */
	NODE_DRAFT,    /* it is the draft of a replacement */
	NODE_OUTDATED, /* it was replaced, or its object is gone */
};

struct open_question {
	enum object_state state;
	enum standing standing;
	bool gone;     /* no name is left */
	bool aborted;  /* the node was a draft that was never published */
	bool live;     /* publish=write */
	bool write;    /* for writing, or with O_TRUNC */
	bool drafting; /* there is a draft with writers */
	bool sealed;   /* and the last of them has called close, which is not finished yet */
	bool patient;  /* has not waited for that close in vain */
	bool is_draft; /* the node is the draft's, whatever its standing */
	enum holds holds; /* does the asking process write the draft itself? */
};

enum open_verdict {
	OPEN_THIS,           /* for reading, as it is */
	OPEN_DRAFT,          /* the draft: a writer, or a reader who is one of its writers */
	OPEN_IN_PLACE,       /* change the file itself */
	OPEN_FAILED,         /* with the future's error */
	OPEN_WAIT,           /* until the object settles */
	OPEN_WAIT_CLOSE,     /* until the close that is under way is finished, but not long */
	OPEN_LOOK_UP,        /* the name again: what it gives now */
	OPEN_LOOK_UP_DRAFT,  /* the name again: it shall give the draft */
	OPEN_ASK_HOLDS,      /* find out `holds`, then ask again */
};

enum open_verdict open_rule(const struct open_question *q);

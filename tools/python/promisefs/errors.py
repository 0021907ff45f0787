"""What goes wrong, as exceptions. All are OSError, with an errno and the path."""
from __future__ import annotations

import concurrent.futures

InvalidStateError = concurrent.futures.InvalidStateError


class BrokenPromise(OSError):
    """A future has failed: it will not be set, unless somebody declares it again or makes another attempt.

    errno says of what: EOWNERDEAD (the producer was killed), ETIMEDOUT (its deadline has passed), EIO or any other
    that the producer has given.
    """

    @property
    def reason(self) -> str:
        """What `user.promisefs.error` says, without the name of the errno."""
        return self.strerror or ""


class Cancelled(BrokenPromise, concurrent.futures.CancelledError):
    """A future was cancelled, or its key evicted before it was set."""


class BorrowError(OSError):
    """The rules of borrowing: one owner; any number of immutable borrows, or one mutable."""


class MutableBorrowError(BorrowError):
    """EBUSY: it is borrowed (or being written) in a way that does not permit this now."""


class ReferenceNotOwnedError(BorrowError):
    """EPERM: only owners can be borrowed, cloned and given away, and immutable borrows cannot be written."""


class ReferenceInvalidError(BorrowError):
    """ENOENT: this reference was dropped, or pickled and so moved elsewhere, or its lease or process has ended."""

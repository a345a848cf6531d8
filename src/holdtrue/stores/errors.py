"""What a store can fail with.  Each says what happened, and what to do."""

from holdtrue.core.errors import HoldtrueError


class StoreError(HoldtrueError):
    """The base of a store's errors: what was asked for was not done."""


class StoreUnavailable(StoreError):
    """The storage does not take work now (disk full, read-only, locked); it goes on when the cause is gone."""


class StoreDenied(StoreError):
    """The storage does not let this process in: a wrong key, a signature that has expired, a right that is missing."""


class StoreCorrupt(StoreError):
    """The storage holds what no store of ours writes, or its file is damaged."""


class StoreMissing(StoreError):
    """The hub's file or tables are gone while it was open."""


class SchemaTooNew(StoreError):
    """The hub was written by a newer Holdtrue."""


class UnsuitableFileSystem(StoreError):
    """The hub lies where locks and syncs cannot be trusted (a network file system)."""


class OutcomeUnknown(StoreError):
    """A write was sent and its answer lost: it may have been done.  Read back before anything else.

    A host does not know any more what it holds: its next call as a host is LeaseLost, and it must join again.
    """


class LeaseLost(StoreError):
    """This host was taken for dead and another took over its work; it must join again."""


class ForkedProcess(StoreError):
    """The process forked after the hub was opened; open it anew in the child."""

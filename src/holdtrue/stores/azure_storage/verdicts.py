"""Which of an instance's two rows tells its status (rule 7), and whether .NET wrote after us (rule 8).

A status takes two reads side by side, the instances row and the sentinel.  They are of two tables and no
transaction joins them; what they say together is judged here.  Pure.
"""

from enum import StrEnum
from typing import TypeGuard

import msgspec

from holdtrue.core.events import Ticks
from holdtrue.core.projection import TERMINAL, Status

from .sentinel import Sentinel


class RowView(msgspec.Struct, frozen=True, kw_only=True):
    """What of an instances row a judgement rests on."""

    execution_id: str
    status: Status
    start_id: str | None = None
    is_child: bool = False
    generation: int = 0
    created_at: Ticks = 0
    last_updated_at: Ticks = 0
    completed_at: Ticks | None = None


class Told(StrEnum):
    """Who tells the status."""

    NOT_FOUND = "not found"
    SENTINEL = "sentinel"
    """The projection on the sentinel."""
    HISTORY = "history"
    """The history itself: the sentinel's projection is not of the last write."""
    ROW = "row"
    """A start that waits, which only the row knows."""
    ROW_AGAIN = "row again"
    """The row is to be read once more, after the sentinel; the second reading decides."""
    SENTINEL_AGAIN = "sentinel again"
    """The sentinel is to be read once more, after the row, which names an execution that has begun since."""
    IN_DOUBT = "in doubt"
    """A purge of .NET is under way, or a history is lost: both are read again after a second, then it is marked."""


def judge(
    row: RowView | None,
    sentinel: Sentinel | None,
    *,
    row_was_read_after: bool = False,
    sentinel_was_read_after: bool = False,
    both_again: bool = False,
) -> Told:
    """Who tells the status of an instance with this row and this sentinel.

    `row_was_read_after` says that the row was read when the answer to the sentinel's read was there,
    `sentinel_was_read_after` that it was the other way round, `both_again` that row and sentinel were read in this
    order once before, and the row was not Pending then.
    """
    if not stands(sentinel, row):
        if not row_was_read_after:
            # Also where there is no row yet: what the sentinel's absence says holds for a later row only.
            return Told.ROW_AGAIN
        if row is None:
            return Told.NOT_FOUND
        if row.status is Status.PENDING:
            return Told.ROW
        # Terminated: by .NET while it waited; or its first commit has come since, which ended it.
        return Told.ROW if row.status is Status.TERMINATED and both_again else Told.IN_DOUBT
    if row is None or row.execution_id in ("", sentinel.execution_id):
        return _sentinel_or_history(row, sentinel)
    if not names_newer_start(row, sentinel):
        return _sentinel_or_history(row, sentinel)
    if not row_was_read_after and _may_be_purged(row, sentinel):
        return Told.ROW_AGAIN
    if row.status is Status.PENDING:
        return Told.ROW
    if not sentinel_was_read_after:
        # Its history stands before its row says that it runs, or has ended.
        return Told.SENTINEL_AGAIN
    return Told.ROW if row.status is Status.TERMINATED else Told.IN_DOUBT


def stands(sentinel: Sentinel | None, row: object | None) -> TypeGuard[Sentinel]:
    """Whether an execution has begun under the id, and is there: a history that counts, which nobody purges."""
    if sentinel is None or not sentinel.has_history or sentinel.state.purging:
        return False
    return not was_purged(row, sentinel)


def was_purged(row: object | None, sentinel: Sentinel) -> bool:
    """Whether this is the first commit of a client's start whose row is gone: it was purged while that commit was on
    its way (rule 9), be it that the request came late, when a second try of it had long run to its end.

    The row was there before the start's message, and nobody but a purge takes it away.  A child has none before its
    first commit (`purged_starts` knows of those).
    """
    told = sentinel.state.projection
    return _is_first_without_row(row, sentinel) and told is not None and told.parent is None


def may_be_purged_child(row: object | None, sentinel: Sentinel) -> bool:
    """Whether this is the first commit of a child that has no row: none yet, or it was purged."""
    told = sentinel.state.projection
    return _is_first_without_row(row, sentinel) and told is not None and told.parent is not None


def _is_first_without_row(row: object | None, sentinel: Sentinel) -> bool:
    state = sentinel.state
    return row is None and sentinel.is_ours and state.rows > 0 and not state.previous


def names_newer_start(row: RowView, sentinel: Sentinel) -> bool:
    """Whether the row of another execution is a start that waits (else it is stale).

    The start's own id settles it without times.  A start never has a generation below that of what it replaces.
    A child has no row before its first commit: what names a parent is what a commit left behind.
    """
    if row.execution_id == sentinel.execution_id or row.is_child:
        return False
    state = sentinel.state
    if row.start_id is not None and state.start_id:
        return row.start_id != state.start_id and not _is_older(row, sentinel)
    return not _is_older(row, sentinel) and row.status in (Status.PENDING, Status.TERMINATED)


def _is_older(row: RowView, sentinel: Sentinel) -> bool:
    projection = sentinel.state.projection
    if not sentinel.is_ours or projection is None:
        return False
    if row.generation != projection.generation:
        return row.generation < projection.generation
    return row.created_at < projection.created_at


def _may_be_purged(row: RowView, sentinel: Sentinel) -> bool:
    """Whether a row of a later generation is older by its time: a client's clock was slow, or it was purged since it
    was read, with all generations before it."""
    projection = sentinel.state.projection
    return sentinel.is_ours and projection is not None and row.created_at < projection.created_at


def _sentinel_or_history(row: RowView | None, sentinel: Sentinel) -> Told:
    if not sentinel.is_ours or sentinel.state.projection is None:
        return Told.HISTORY
    if row is not None and was_rewound_by_dotnet(row, sentinel):
        return Told.HISTORY
    return Told.SENTINEL


def was_rewound_by_dotnet(row: RowView, sentinel: Sentinel) -> bool:
    """A .NET rewind leaves the mark as it is: an ended execution whose row says Pending, and when it had ended.

    A row left behind since the start says Pending too, and has no time of an end.
    """
    projection = sentinel.state.projection
    return (
        projection is not None
        and projection.status in TERMINAL
        and row.execution_id == sentinel.execution_id
        and row.status is Status.PENDING
        and row.completed_at is not None
    )

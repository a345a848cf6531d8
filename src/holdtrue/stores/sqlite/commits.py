"""Applies episodes: a batch of commits becomes rows per table, and few statements.

`prepare` makes the rows, on the loop, before the writer sees them; `apply_commits` runs them.  The fence
is one statement over the whole batch and a count of the rows that it changed; only where the count is
wrong each commit is looked at by itself.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.events import ExecutionStarted, ExecutionTerminated, HistoryEvent, decode_event, encode_events
from holdtrue.core.messages import InboundMessage, WorkRef
from holdtrue.core.projection import TERMINAL, Projection, Status
from holdtrue.stores.decisions import recursive_end, refused_answer, started_of, taken_by
from holdtrue.stores.protocol import (
    CommitOutcome,
    CommitResult,
    Committing,
    Delivery,
    LockedActivity,
    LockedInstance,
    queue_name,
)

from . import inbox, starts
from .rows import (
    INLINE_BYTES,
    STATUS,
    activity_key,
    condition_text,
    encode,
    failure_bytes,
    message_row,
)
from .statements import sql
from .transaction import PLACE_BITS, Contested, Transaction, places_of

_Row = tuple[Any, ...]


class Prepared:
    """The rows of one or more commits by table, and what needs the database to be decided.

    `outcomes` stand in the order of the commits; `special` are those with messages, starts, cancellations,
    or the lock to be given back.
    """

    __slots__ = (
        "activities",
        "changed",
        "changed_ids",
        "committings",
        "consumed",
        "ended",
        "episodes",
        "finished",
        "history",
        "left",
        "outcomes",
        "replaced",
        "special",
    )

    def __init__(self, committings: Sequence[Committing]) -> None:
        self.committings = committings
        self.outcomes: list[CommitOutcome] = []
        self.episodes: list[_Row] = []
        self.changed: list[_Row] = []
        self.ended: list[_Row] = []
        self.replaced: list[Committing] = []
        self.history: list[_Row] = []
        self.consumed: list[_Row] = []
        self.finished: list[_Row] = []
        self.activities: list[_Row] = []
        self.special: list[tuple[Committing, CommitOutcome]] = []
        self.changed_ids: list[str] = []
        self.left = False

    def rows(self) -> int:
        """About how many rows this writes."""
        count = 2 * len(self.committings) + len(self.consumed) + len(self.finished) + len(self.activities)
        for committing, _ in self.special:
            commit = committing.commit
            count += 2 * len(commit.messages) + 4 * len(commit.starts) + len(commit.cancelled)
        return count


def prepare(committings: Sequence[Committing], token: Callable[[], int]) -> Prepared:
    """The rows of commits; `token` makes the fencing token of work items taken along."""
    made = Prepared(committings)
    for committing in committings:
        commit = committing.commit
        lease = committing.lease
        instance = lease.key
        outcome = CommitOutcome(result=CommitResult.COMMITTED)
        made.outcomes.append(outcome)
        projection = commit.projection
        special = not committing.keep
        if commit.replace:
            made.replaced.append(committing)
            made.changed_ids.append(commit.instance_id)
            special = True
        else:
            events = commit.events
            size = 0
            if events:
                data = encode_events(events)
                size = len(data)
                made.history.append((instance << PLACE_BITS | commit.first, data))
            fence = (projection.last_updated_at, len(events), size, instance, lease.token, commit.first)
            if projection.status in TERMINAL:
                made.ended.append(
                    (
                        *fence,
                        int(projection.status),
                        projection.custom_status,
                        projection.completed_at,
                        projection.output,
                        failure_bytes(projection.failure),
                    )
                )
                made.changed_ids.append(commit.instance_id)
                special = True
            elif commit.status_changed or commit.custom_status_changed or commit.condition_changed:
                made.changed.append(
                    (*fence, int(projection.status), projection.custom_status, condition_text(commit.condition))
                )
                made.changed_ids.append(commit.instance_id)
            else:
                made.episodes.append(fence)
        for key in commit.consumed:
            made.consumed.append((instance, key))
        for ref in commit.finished:
            made.finished.append((ref.key, ref.token))
        if commit.activities:
            _prepare_activities(made, committing, outcome, token)
        if special or commit.messages or commit.starts or commit.cancelled or commit.wake:
            made.special.append((committing, outcome))
    return made


def _prepare_activities(
    made: Prepared, committing: Committing, outcome: CommitOutcome, token: Callable[[], int]
) -> None:
    commit = committing.commit
    instance, generation, at = committing.lease.key, commit.projection.generation, commit.projection.last_updated_at
    takes = committing.take_activities
    held = token() if takes else 0
    rows, taken = made.activities, outcome.activities
    if takes:
        # A fresh list: the default of the struct is shared until then.
        taken = outcome.activities = []
    for task in commit.activities:
        key = activity_key(instance, generation, task.scheduled)
        options = task.options
        queue = queue_name(task.name, options.tag if options is not None else None)
        take = takes > 0
        takes -= 1
        if take:
            taken.append(LockedActivity(ref=WorkRef(key, held), instance=instance, task=task, scheduled_at=at))
            rows.append((key, at, held, 1, task.scheduled, task.execution_id, queue, encode(task)))
        else:
            made.left = True
            rows.append((key, at, None, 0, task.scheduled, task.execution_id, queue, encode(task)))


def apply_commits(transaction: Transaction, prepared: list[Prepared]) -> list[list[CommitOutcome]]:
    """Apply prepared commits; as many lists of outcomes."""
    if not transaction.host:
        return [[CommitOutcome(result=CommitResult.LEASE_LOST) for _ in one.committings] for one in prepared]
    if transaction.careful:
        return [[_carefully(transaction, committing) for committing in one.committings] for one in prepared]
    one = prepared[0] if len(prepared) == 1 else _merge(prepared)
    _apply(transaction, one)
    return [each.outcomes for each in prepared]


def _merge(prepared: list[Prepared]) -> Prepared:
    whole = Prepared(())
    for one in prepared:
        whole.episodes += one.episodes
        whole.changed += one.changed
        whole.ended += one.ended
        whole.replaced += one.replaced
        whole.history += one.history
        whole.consumed += one.consumed
        whole.finished += one.finished
        whole.activities += one.activities
        whole.special += one.special
        whole.changed_ids += one.changed_ids
        whole.left = whole.left or one.left
    return whole


def _carefully(transaction: Transaction, committing: Committing) -> CommitOutcome:
    """One commit by itself: first it is seen whether it may be applied."""
    commit = committing.commit
    lock, length, execution = transaction.one(sql.fence, committing.lease.key) or (None, 0, "")
    if lock is None or lock != committing.lease.token:
        return CommitOutcome(result=CommitResult.LEASE_LOST)
    if (execution, length) != (commit.old_execution, commit.old_length) if commit.replace else length != commit.first:
        return CommitOutcome(result=CommitResult.STALE)
    made = prepare([committing], transaction.token)
    places: set[int] = set()
    made.activities = [_free_place(transaction, row, places) for row in made.activities]
    for activity, row in zip(made.outcomes[0].activities, made.activities, strict=False):
        activity.ref = WorkRef(row[0], activity.ref.token)
    _apply(transaction, made)
    return made.outcomes[0]


def _free_place(transaction: Transaction, row: _Row, places: set[int]) -> _Row:
    """The row of a work item, at another place where its own is taken by one of eight generations ago."""
    key = row[0]
    while key in places or transaction.one(sql.activity_exists, key) is not None:
        first, last = places_of(key >> PLACE_BITS)
        key = key - 1 if key > first else last
    places.add(key)
    return (key, *row[1:])


def _apply(transaction: Transaction, made: Prepared) -> None:
    many, counted = transaction.many, transaction.counted
    fenced = 0
    if made.episodes:
        fenced += counted("episode", made.episodes) - len(made.episodes)
    if made.changed:
        fenced += counted("episode_changed", made.changed) - len(made.changed)
    if made.ended:
        fenced += counted("episode_ended", made.ended) - len(made.ended)
    if fenced:
        raise Contested
    for committing in made.replaced:
        _replace_history(transaction, committing)
    if made.history:
        many("insert_history", made.history)
    if made.consumed:
        many("delete_message", made.consumed)
    if made.finished:
        many("delete_activity", made.finished)
    if made.activities:
        try:
            many("insert_activity", made.activities)
        except Exception as error:
            if type(error).__name__ == "ConstraintError" and not transaction.careful:
                raise Contested from error
            raise
    if transaction.shared:
        transaction.changed += made.changed_ids
        transaction.work = transaction.work or made.left
    if made.special:
        _apply_special(transaction, made.special)


def _apply_special(transaction: Transaction, special: list[tuple[Committing, CommitOutcome]]) -> None:
    """Starts, cancellations and messages (which may be for what was started), then the locks that are given back."""
    timers: list[_Row] = []
    gone: list[_Row] = []
    for committing, outcome in special:
        if committing.commit.starts:
            _start(transaction, committing, outcome)
    for committing, outcome in special:
        commit, instance = committing.commit, committing.lease.key
        if commit.ended:
            gone.append((instance,))
        if commit.cancelled:
            _cancel(transaction, committing)
        if commit.messages:
            _send(transaction, committing, outcome, timers)
    if timers:
        transaction.many("insert_message", timers)
    if gone:
        _end_below(transaction, special, gone)
    released: set[int] = set()
    for committing, _ in special:
        commit, lease = committing.commit, committing.lease
        if commit.ended:
            released.add(lease.key)
            continue
        if commit.wake:
            transaction.execute(sql.wake, (lease.key,))
        if not committing.keep:
            transaction.execute(sql.release_instance, (transaction.now, lease.key, lease.token))
            transaction.work = True
            released.add(lease.key)
    if released:
        for _, outcome in special:
            if outcome.deliveries:
                outcome.deliveries = [each for each in outcome.deliveries if each.instance not in released]


def _send(transaction: Transaction, committing: Committing, outcome: CommitOutcome, timers: list[_Row]) -> None:
    """The messages of a commit; what is for the instance itself (its timers) needs no look-up."""
    commit, instance, now = committing.commit, committing.lease.key, transaction.now
    ended = commit.ended
    others = []
    deliveries: list[Delivery] = []
    for message in commit.messages:
        if message.instance_id != commit.instance_id:
            others.append(message)
        elif not ended:
            key, due = transaction.next_message(), message.due
            if due is not None and due <= now:
                due = None
            timers.append(message_row(instance, key, message, due))
            if due is None:
                deliveries.append(
                    Delivery(
                        instance,
                        InboundMessage(
                            event=message.event,
                            key=key,
                            execution_id=message.execution_id,
                            scheduled=message.scheduled,
                        ),
                    )
                )
    if others:
        found, dead = inbox.post_all(transaction, others)
        deliveries += found
        if dead:
            outcome.dead = dead
    if deliveries:
        outcome.deliveries = [*outcome.deliveries, *deliveries]


def _end_below(transaction: Transaction, special: list[tuple[Committing, CommitOutcome]], gone: list[_Row]) -> None:
    """What waits for ended instances is deleted; recursive terminates that they took, or that came too late, go on."""
    left: dict[int, list[HistoryEvent]] = {}
    for instance, due, event in transaction.many("take_messages", gone).fetchall():
        if due is None:
            with suppress(msgspec.DecodeError):
                left.setdefault(instance, []).append(decode_event(event))
    for committing, _ in special:
        commit = committing.commit
        if commit.ended:
            end = recursive_end((*taken_by(commit), *left.get(committing.lease.key, ())))
            if end is not None:
                told = [one.instance_id for one in commit.messages if type(one.event) is ExecutionTerminated]
                inbox.end_below(transaction, commit.instance_id, end, told)


def _cancel(transaction: Transaction, committing: Committing) -> None:
    commit, instance = committing.commit, committing.lease.key
    if commit.replace:
        # The ordinals are of the execution before; its timers go in `_replace_history`.
        return
    execution, generation = commit.projection.execution_id, commit.projection.generation
    ordinals = commit.cancelled
    if not commit.ended:
        transaction.execute(sql.cancel_messages, (instance, execution, encode(ordinals).decode()))
    keys = [activity_key(instance, generation, ordinal) for ordinal in ordinals]
    transaction.execute(sql.cancel_activities, (execution, encode(keys).decode()))


def _start(transaction: Transaction, committing: Committing, outcome: CommitOutcome) -> None:
    """The children of a commit; one whose id is taken by an instance that has not ended is answered as failed."""
    children = committing.commit.starts
    takes = committing.take_starts
    flags = [position < takes for position in range(len(children))]
    taken: list[LockedInstance] = []
    inserted = starts.insert(transaction, children, flags)
    for child, flag, made in zip(children, flags, inserted, strict=True):
        if made is None:
            row = transaction.one(sql.record_by_id, child.started.instance_id)
            if Status(row[STATUS]) not in TERMINAL:
                _refuse(transaction, committing, outcome, child.started)
                continue
            starts.replace(transaction, row)
            (made,) = starts.insert(transaction, [child], [flag])
            assert made is not None
        if made[1] is not None:
            taken.append(made[1])
    if taken:
        outcome.taken = taken


def _refuse(
    transaction: Transaction, committing: Committing, outcome: CommitOutcome, started: ExecutionStarted
) -> None:
    answer = refused_answer(started, transaction.now)
    if answer is None:
        return
    deliveries, _ = inbox.post_all(transaction, [answer])
    if deliveries:
        outcome.deliveries = [*outcome.deliveries, *deliveries]


# -- replaced histories ------------------------------------------------------------------------------------


def _write_history(transaction: Transaction, instance: int, commit: EpisodeCommit) -> tuple[int, bytes]:
    """Put a history in the place of another; its size, and the ExecutionStarted for the row."""
    execute = transaction.execute
    data = encode_events(commit.events)
    execute(sql.delete_history, places_of(instance))
    execute(sql.insert_history, (instance << PLACE_BITS, data))
    started = encode(started_of(commit))
    if len(started) > INLINE_BYTES:
        execute(sql.insert_large, (instance, started))
        started = b""
    else:
        execute(sql.delete_large, (instance,))
    return len(data), started


def _end_values(projection: Projection) -> tuple[Any, ...]:
    if projection.status not in TERMINAL:
        return (None, None, None)
    return (projection.completed_at, projection.output, failure_bytes(projection.failure))


def _replace_history(transaction: Transaction, committing: Committing) -> None:
    commit, lease = committing.commit, committing.lease
    projection = commit.projection
    size, started = _write_history(transaction, lease.key, commit)
    row = (
        projection.last_updated_at,
        len(commit.events),
        size,
        lease.key,
        lease.token,
        int(projection.status),
        projection.custom_status,
        *_end_values(projection),
        projection.execution_id,
        started,
        projection.name,
        commit.old_execution,
        commit.old_length,
    )
    if transaction.counted("episode_replaced", [row]) != 1:
        raise Contested
    transaction.execute(sql.delete_old_timers, (lease.key, projection.execution_id))

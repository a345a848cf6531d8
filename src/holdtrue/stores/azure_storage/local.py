"""Activities that run on the host that scheduled them, without a message (rule 16): who is named, and who keeps it.

`local` names them until their results are committed.  As long as it does, one inbound message of the instance, the
*keeper*, stays undeleted: if this host dies, it brings the next owner there, who takes them over.  Pure.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.events import AnyEvent, HistoryEvent, TaskCompleted, TaskFailed, TaskScheduled, Ticks
from holdtrue.core.messages import ActivityTask
from holdtrue.core.projection import Projection

from .arrivals import Arrived
from .owing import RowExtra, asked_by_row, asks_for_all, derived_id
from .sentinel import Local, Owed, number_of

Place = tuple[str, int]
"""An activity of an instance: its execution, and the ordinal of its TaskScheduled."""

LAST_DELIVERY = 3
"""From this delivery of a keeper on its activities go through the queue: one that kills its host does not take the
partition along."""


class Named(msgspec.Struct, frozen=True):
    """An activity that `local` names: the id of its envelope, should it need one; its task; when it was scheduled, and
    in which episode."""

    id: str
    task: ActivityTask
    at: Ticks
    episode: int

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.task.execution_id, self.task.scheduled


class Judged(msgspec.Struct, frozen=True):
    """What becomes of what `local` names: to be run, answered in history, or overwritten by somebody else (rule 8)."""

    outstanding: list[Named]
    answered: list[Place]
    overwritten: list[Place]


def places(local: Iterable[Local]) -> list[Place]:
    """All that is named."""
    return [(one.execution, ordinal) for one in local for ordinal in one.ordinals]


def without(local: Iterable[Local], gone: Collection[Place]) -> list[Local]:
    """What is left of `local` without these."""
    left = []
    for one in local:
        ordinals = [ordinal for ordinal in one.ordinals if (one.execution, ordinal) not in gone]
        if ordinals:
            left.append(Local(one.execution, one.episode, ordinals))
    return left


def until(local: Iterable[Local], end: int) -> list[Local]:
    """What of `local` stands in the rows before an ordinal."""
    return without(local, {(one.execution, ordinal) for one in local for ordinal in one.ordinals if ordinal >= end})


def runnable(commit: EpisodeCommit, most: int) -> list[ActivityTask]:
    """The activities of a commit that this host may run itself, which has room for its first `most`.

    Their rows must be of this very commit, so that they are enough to run them again.
    """
    if most <= 0 or commit.ended or not asks_for_all(commit):
        return []
    execution, end = commit.projection.execution_id, commit.first + len(commit.events)
    return [
        task
        for task in commit.activities[:most]
        if task.execution_id == execution and commit.first <= task.scheduled < end
    ]


def named(tasks: Iterable[ActivityTask], episode: str, at: Ticks) -> list[Named]:
    """Activities that an episode keeps here."""
    return [
        Named(
            derived_id(task.instance_id, task.execution_id, episode, str(task.scheduled)), task, at, number_of(episode)
        )
        for task in tasks
    ]


def choose_keeper(
    taken: Iterable[Arrived], given: Iterable[Arrived], events: Sequence[HistoryEvent], in_hand: Callable[[int], bool]
) -> Arrived | None:
    """The message that stays undeleted; None where no message of a queue drives the episode.

    Of those that it uses up the one whose event stands first, so that it is in the first part of the commit; else one
    that is in hand for later.
    """
    order = {id(event): index for index, event in enumerate(events)}
    best = min(
        (one for one in taken if one.kept is None and in_hand(one.key)),
        key=lambda one: order.get(id(one.event), len(order)),
        default=None,
    )
    return best or next((one for one in given if one.kept is None and in_hand(one.key)), None)


def judge(
    local: Sequence[Local],
    projection: Projection | None,
    dialect: str,
    rows: Sequence[tuple[int, AnyEvent, RowExtra]],
) -> Judged:
    """What is to be done about `local`, given the history that counts: ordinal, event, and what a row asks for beyond.

    It holds only for rows that still have that execution, and schedule an activity.
    """
    judged = Judged([], [], [])
    if not local:
        return judged
    by_ordinal = {ordinal: (event, more) for ordinal, event, more in rows}
    open_ = _open(rows)
    for one in local:
        for ordinal in one.ordinals:
            event, more = by_ordinal.get(ordinal, (None, RowExtra()))
            mine = projection is not None and projection.execution_id == one.execution
            if projection is None or not mine or not isinstance(event, TaskScheduled):
                judged.overwritten.append((one.execution, ordinal))
                continue
            if ordinal not in open_:
                judged.answered.append((one.execution, ordinal))
                continue
            owed = Owed(one.execution, one.episode, ordinal, ordinal + 1)
            asked = asked_by_row(projection, dialect, owed, ordinal, event, more)
            assert asked is not None and isinstance(asked.what, ActivityTask)
            judged.outstanding.append(Named(asked.id, asked.what, event.timestamp, asked.episode))
    return judged


def _open(rows: Sequence[tuple[int, AnyEvent, RowExtra]]) -> set[int]:
    """The ordinals of the activities that have no result."""
    found: dict[int, int] = {}
    for ordinal, event, _ in rows:
        if isinstance(event, TaskScheduled):
            found[event.event_id] = ordinal
        elif isinstance(event, TaskCompleted | TaskFailed):
            found.pop(event.task_scheduled_id, None)
    return set(found.values())

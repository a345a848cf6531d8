"""What an episode sends, each with an id that is the same however often it is sent (rules 1 to 3).

Most of it is asked for by rows of the history, so that the rows are enough to send it again; the rest stands in an
extra row.  Pure.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.actions import ActivityOptions
from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.events import SCHEDULING_EVENTS
from holdtrue.core.messages import ActivityTask, OutboundMessage, Start
from holdtrue.core.outgoing import answer, child_start, timer_message, work_item
from holdtrue.core.projection import TERMINAL, Projection

from .sentinel import Owed, number_of


class RowExtra(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a row asks for beyond .NET's columns: an activity's options; a child's execution id."""

    options: ActivityOptions | None = None
    execution: str | None = None


class Child(msgspec.Struct, frozen=True, omit_defaults=True):
    """A child to be started, as an extra row holds it."""

    started: ev.ExecutionStarted
    start_id: str
    dialect: str

    def as_start(self) -> Start:
        """The start."""
        return Start(started=self.started, start_id=self.start_id, dialect=self.dialect)


class Extra(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an episode sends that no row of its history asks for."""

    activities: list[ActivityTask] = []
    starts: list[Child] = []
    messages: list[OutboundMessage] = []

    def __len__(self) -> int:
        return len(self.activities) + len(self.starts) + len(self.messages)


class Outgoing(msgspec.Struct, frozen=True):
    """One thing to be sent: an activity, a start or a message, the id of its envelope, its episode's number."""

    id: str
    what: ActivityTask | Start | OutboundMessage
    episode: int


class Sending(msgspec.Struct, frozen=True):
    """What an episode sends, and how a sentinel names it: by rows, and by an extra row."""

    outgoing: list[Outgoing]
    by_rows: dict[int, RowExtra]
    extra: Extra
    rows: tuple[int, int]
    """The first ordinal and the end of the rows that ask for some of it."""


def is_waited_for(what: ActivityTask | Start | OutboundMessage) -> bool:
    """Whether somebody waits to know that it was sent: of answers and timers a history tells, they may come twice."""
    return not isinstance(what, OutboundMessage) or type(what.event) not in (*_ANSWERS, ev.TimerFired)


def derived_id(instance_id: str, execution: str, episode: str, index: str) -> str:
    """The id of an envelope: a GUID that is the same whenever the same thing is sent."""
    text = "\x1f".join((instance_id, execution, episode, index))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def result_id(work_item: str) -> str:
    """The id of the envelope of an activity's result, from that of its work item: whoever ran it, once a sending.

    Not from the place in history, which an activity that a rewind runs again has a second time.
    """
    return derived_id(work_item, "", "result", "")


def sending(commit: EpisodeCommit, episode: str, local: Collection[int] = ()) -> Sending:
    """What a commit sends, in order: starts, activities, messages.

    The activities of these ordinals are not sent: the host that commits runs them (rule 16).
    """
    instance, execution = commit.instance_id, commit.projection.execution_id
    number, first, end = number_of(episode), commit.first, commit.first + len(commit.events)
    if not asks_for_all(commit):
        # A rewind writes all rows anew, and most of what they ask for was sent long ago.
        first = end = 0
    by_rows: dict[int, RowExtra] = {}
    extra = Extra(activities=[], starts=[], messages=[])
    outgoing: list[Outgoing] = []

    def by_row(ordinal: int, what: Any, more: RowExtra) -> None:
        by_rows[ordinal] = more
        outgoing.append(Outgoing(derived_id(instance, execution, episode, str(ordinal)), what, number))

    def beside(what: Any, into: list[Any], kept: Any) -> None:
        into.append(kept)
        outgoing.append(Outgoing(derived_id(instance, execution, episode, _index(extra, into)), what, number))

    for start in commit.starts:
        started = start.started
        parent = started.parent
        if parent is not None and parent.execution_id == execution and first <= parent.scheduled < end:
            by_row(parent.scheduled, start, RowExtra(execution=started.execution_id))
        else:
            beside(start, extra.starts, Child(started, start.start_id, start.dialect))
    for task in commit.activities:
        if task.execution_id == execution and first <= task.scheduled < end:
            if task.scheduled in local:
                by_rows[task.scheduled] = RowExtra(options=task.options)
            else:
                by_row(task.scheduled, task, RowExtra(options=task.options))
        else:
            beside(task, extra.activities, task)
    sent = _events_sent(commit)
    for message in commit.messages:
        ordinal = _row_of(message, commit, sent) if end else None
        if ordinal is None:
            beside(message, extra.messages, message)
        else:
            by_row(ordinal, message, RowExtra())
    return Sending(outgoing, by_rows, extra, (first, end))


def asks_for_all(commit: EpisodeCommit) -> bool:
    """Whether every row that asks for something is of this very episode: then rows and extra row are all it sends."""
    asked = sum(type(event) in SCHEDULING_EVENTS or type(event) is ev.EventSent for event in commit.events)
    if not asked:
        return True
    execution = commit.projection.execution_id
    sent = sum(task.execution_id == execution for task in commit.activities)
    sent += sum(
        start.started.parent is not None and start.started.parent.execution_id == execution for start in commit.starts
    )
    sent += sum(
        type(message.event) is ev.TimerFired
        and message.execution_id == execution
        and message.instance_id == commit.instance_id
        for message in commit.messages
    )
    iterator = _events_sent(commit)
    sent += sum(
        type(message.event) is ev.EventRaised and _row_of(message, commit, iterator) is not None
        for message in commit.messages
    )
    return bool(sent == asked)


def _index(extra: Extra, into: list[Any]) -> str:
    kind = "a" if into is extra.activities else "s" if into is extra.starts else "m"
    return f"{kind}{len(into) - 1}"


def _events_sent(commit: EpisodeCommit) -> Iterator[tuple[int, ev.EventSent]]:
    for ordinal, event in enumerate(commit.events, commit.first):
        if type(event) is ev.EventSent:
            yield ordinal, event


def _row_of(message: OutboundMessage, commit: EpisodeCommit, sent: Iterator[tuple[int, ev.EventSent]]) -> int | None:
    """The ordinal of the row that asks for a message; None where none does.  Events sent come in their rows' order."""
    event = message.event
    first, end = commit.first, commit.first + len(commit.events)
    ours = message.instance_id == commit.instance_id and message.execution_id == commit.projection.execution_id
    if type(event) is ev.TimerFired:
        return (
            message.scheduled if ours and message.scheduled is not None and first <= message.scheduled < end else None
        )
    if type(event) is ev.EventRaised and message.execution_id is None and message.due is None:
        for ordinal, row in sent:
            if (row.instance_id, row.name, row.input) == (message.instance_id, event.name, event.input):
                return ordinal
        return None
    if type(event) in _ANSWERS and commit.ended and commit.events and message == _answer(commit.projection, event):
        return next(
            (
                ordinal
                for ordinal, row in enumerate(commit.events, first)
                if type(row) is ev.ExecutionCompleted and row.timestamp == event.timestamp
            ),
            None,
        )
    return None


_ANSWERS = (ev.SubOrchestrationInstanceCompleted, ev.SubOrchestrationInstanceFailed)


def _answer(projection: Projection, event: ev.HistoryEvent) -> OutboundMessage | None:
    parent = projection.parent
    return None if parent is None else answer(parent, projection, event.timestamp)


def asked_by_row(
    projection: Projection, dialect: str, owed: Owed, ordinal: int, event: ev.AnyEvent, more: RowExtra
) -> Outgoing | None:
    """What the row of this ordinal asks for, as it was sent the first time; None where it asks for nothing.

    `projection` is that of the execution now: an answer to the parent is made from it.
    """
    what: ActivityTask | Start | OutboundMessage | None = None
    if isinstance(event, ev.TaskScheduled):
        what = work_item(projection, event, ordinal, more.options)
    elif isinstance(event, ev.TimerCreated):
        what = timer_message(projection, event, ordinal)
    elif isinstance(event, ev.SubOrchestrationInstanceCreated):
        what = _child(projection, dialect, ordinal, event, more)
    elif isinstance(event, ev.EventSent):
        raised = ev.EventRaised(timestamp=event.timestamp, name=event.name, input=event.input)
        what = OutboundMessage(instance_id=event.instance_id, event=raised, sender=projection.instance_id)
    elif isinstance(event, ev.ExecutionCompleted) and projection.status in TERMINAL:
        what = _answer(projection, event)
    if what is None:
        return None
    return Outgoing(
        derived_id(projection.instance_id, owed.execution, owed.episode, str(ordinal)), what, number_of(owed.episode)
    )


def _child(
    projection: Projection, dialect: str, ordinal: int, event: ev.SubOrchestrationInstanceCreated, more: RowExtra
) -> Start:
    execution = (
        more.execution
        or hashlib.sha256(
            f"{projection.instance_id}\x1f{projection.execution_id}\x1f{ordinal}".encode("utf-8", "surrogatepass")
        ).hexdigest()[:32]
    )
    return child_start(projection, event, ordinal, execution_id=execution, dialect=dialect)


def beside_rows(instance_id: str, owed: Owed, extra: Extra) -> list[Outgoing]:
    """What an extra row holds, as it was sent the first time."""
    found: list[Outgoing] = []
    groups: Sequence[tuple[str, Sequence[Any]]] = (
        ("s", [child.as_start() for child in extra.starts]),
        ("a", extra.activities),
        ("m", extra.messages),
    )
    for kind, group in groups:
        for index, what in enumerate(group):
            id = derived_id(instance_id, owed.execution, owed.episode, f"{kind}{index}")
            found.append(Outgoing(id, what, number_of(owed.episode)))
    return found

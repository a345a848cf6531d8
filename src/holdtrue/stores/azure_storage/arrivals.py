"""What is done with the messages that came for an instance (rules 3, 8, 10, 11): one decision over all of them.

A message may be a double, may be for an execution that is over, may come before the start that it follows, or may
be for nobody.  None of them is deleted before what it says stands in a commit, or is known not to matter.  Pure.
"""

from collections.abc import Iterable, Sequence, Set
from enum import StrEnum

import msgspec

from holdtrue.core.events import (
    TICKS_PER_SECOND,
    AnyEvent,
    EventRaised,
    ExecutionResumed,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    GenericEvent,
    HistoryEvent,
    Ticks,
)
from holdtrue.core.messages import DEADLINE_EVENT
from holdtrue.core.projection import TERMINAL, Status

from .sentinel import Seen, Sentinel
from .verdicts import RowView, names_newer_start

NOBODY_TICKS: Ticks = 5 * 60 * TICKS_PER_SECOND
"""How long a message to an id that there is not is put back: a child's start may be behind it."""
STRANGER_DELIVERIES = 10
"""At this delivery a start that no row names is a dead letter (.NET deletes it then)."""


class Arrived(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message as it came: its envelope's id, its event, for which execution, answering which ordinal.

    `sender`, `sender_execution` and `episode` tell who sent it (empty: a client).  `delivery` counts from 1,
    `inserted` is when it was first put.  `key` is the store's own number of it.  `kept` is the row key where it
    waited in the hub (None: it stands in the queue).
    """

    key: int
    id: str
    event: AnyEvent
    execution_id: str | None = None
    scheduled: int | None = None
    start_id: str | None = None
    dialect: str = "dotnet"
    sender: str = ""
    sender_execution: str = ""
    episode: int = 0
    delivery: int = 1
    inserted: Ticks = 0
    kept: str | None = None

    @property
    def seen(self) -> Seen | None:
        """What must stay in `seen` when it is used up; None for what the history knows."""
        event = self.event
        child = type(event) is ExecutionStarted and event.parent is not None
        if type(event) in _SEEN or child:
            return Seen(self.id, self.inserted, self.sender, self.sender_execution, self.episode)
        return None


_SEEN = (EventRaised, ExecutionRewound, ExecutionSuspended, ExecutionResumed)
"""What would have its effect a second time if it came again long after: no history tells one from the next."""


class Run(StrEnum):
    """What is run."""

    NOTHING = "nothing"
    START = "start"
    """A start that waits: its message is the first one given."""
    EXISTING = "existing"
    """The execution whose history stands."""
    REWIND = "rewind"
    """A failed execution, to be set back."""


class Decided(msgspec.Struct, kw_only=True):
    """What is done with each message.  Dropped ones are deleted and counted, kept ones written beside the history."""

    run: Run = Run.NOTHING
    give: list[Arrived] = []
    drop: list[tuple[Arrived, str]] = []
    keep: list[Arrived] = []
    back: list[Arrived] = []
    dead: list[tuple[Arrived, str]] = []
    refuse: list[Arrived] = []
    """Children whose id is taken: their parents are told."""
    terminated: bool = False
    """.NET made the pending start's row Terminated: it begins and ends at once."""


def doubles(sentinel: Sentinel | None) -> set[str]:
    """The ids of envelopes that were used up before."""
    if sentinel is None:
        return set()
    state = sentinel.state
    return {used.id for used in state.consumed} | {seen.id for seen in state.seen}


def decide(
    row: RowView | None,
    sentinel: Sentinel | None,
    status: Status | None,
    arrived: Sequence[Arrived],
    *,
    now: Ticks,
    started: ExecutionStarted | None = None,
    held: bool = False,
    kept_later: Set[str] = frozenset(),
) -> Decided:
    """What to do with the messages of one instance, in their order (kept ones first).

    `status` is that of the history that stands (None: there is none), `started` its start, `held` says that its
    condition is `held`,
    `kept_later` are the ids of what is kept and not among them.
    """
    decided = Decided(give=[], drop=[], keep=[], back=[], dead=[], refuse=[])
    used, here = doubles(sentinel), set(kept_later)
    fresh: list[Arrived] = []
    for message in arrived:
        came = message.id in here or (message.id in used and not _is_named(message, row))
        if message.kept is None and came:
            decided.drop.append((message, "it came before"))
        else:
            here.add(message.id)
            fresh.append(message)
    start = _start(row, sentinel, status, started, fresh, decided)
    rest = [one for one in fresh if type(one.event) is not ExecutionStarted]
    if held and not _replaces(start, sentinel) and not any(_moves_a_held_one(one.event) for one in rest):
        for one in (*(() if start is None else (start,)), *rest):
            _keep(one, decided)
        return decided
    if start is not None:
        decided.run = Run.START
        decided.terminated = row is not None and row.status is Status.TERMINATED
        decided.give = [start]
        decided.drop += [(one, "it has not failed") for one in rest if type(one.event) is ExecutionRewound]
        rest = [one for one in rest if type(one.event) is not ExecutionRewound]
        _give(rest, start.execution_id or "", decided)
    elif status is not None and sentinel is not None:
        _to_history(row, sentinel, status, rest, decided)
    elif row is not None and row.status is Status.PENDING:
        for one in rest:
            if one.execution_id in (None, row.execution_id):
                _keep(one, decided)
            else:
                decided.drop.append((one, "it belongs to an earlier execution"))
    else:
        for one in rest:
            _to_nobody(one, decided, now)
    return decided


def _keep(message: Arrived, decided: Decided) -> None:
    if message.kept is None:
        decided.keep.append(message)


def _to_nobody(message: Arrived, decided: Decided, now: Ticks) -> None:
    if message.execution_id is not None or type(message.event) is ExecutionTerminated:
        decided.drop.append((message, "there is no instance of this id"))
    elif message.kept is not None:
        return
    elif now - message.inserted >= NOBODY_TICKS:
        decided.dead.append((message, "there is no instance of this id"))
    else:
        decided.back.append(message)


def _start(
    row: RowView | None,
    sentinel: Sentinel | None,
    status: Status | None,
    started: ExecutionStarted | None,
    fresh: Iterable[Arrived],
    decided: Decided,
) -> Arrived | None:
    """The start that is to be run; the others are judged."""
    chosen: Arrived | None = None
    for message in fresh:
        event = message.event
        if not isinstance(event, ExecutionStarted):
            continue
        start_id = message.start_id or event.execution_id
        state = None if sentinel is None or status is None else sentinel.state
        if chosen is not None and (chosen.execution_id == event.execution_id or is_same_child(chosen.event, event)):
            decided.drop.append((message, "it came before"))
        elif (status is not None and is_same_child(started, event)) or (
            state is not None
            and sentinel is not None
            and (sentinel.execution_id == event.execution_id or (state.start_id and state.start_id == start_id))
        ):
            decided.drop.append((message, "it has started already"))
        elif event.parent is not None:
            if chosen is None and (status is None or status in TERMINAL) and not _row_waits(row, sentinel, status):
                chosen = message
            else:
                decided.refuse.append(message)
        elif row is not None and row.execution_id == event.execution_id:
            if chosen is not None:
                # Both want this id: what the row names goes first.
                decided.refuse.append(chosen)
            chosen = message
        elif _is_superseded(event, row, sentinel):
            decided.drop.append((message, "a newer start has taken its place"))
        elif message.delivery >= STRANGER_DELIVERIES:
            decided.dead.append((message, "no row of the instances table names this start"))
        elif message.kept is None:
            decided.back.append(message)
    return chosen


def is_same_child(one: AnyEvent | None, other: AnyEvent) -> bool:
    """Whether two starts are of the same task of the same parent.

    A .NET worker sends what an episode starts before it commits it.  Where it dies between the two, whoever runs the
    episode again starts the child under another execution id.
    """
    if not isinstance(one, ExecutionStarted) or not isinstance(other, ExecutionStarted):
        return False
    a, b = one.parent, other.parent
    if a is None or b is None or not a.execution_id:
        return False
    if (a.instance_id, a.execution_id, a.task_id) != (b.instance_id, b.execution_id, b.task_id):
        return False
    return a.scheduled == b.scheduled or min(a.scheduled, b.scheduled) < 0  # .NET does not tell the ordinal


def _is_named(message: Arrived, row: RowView | None) -> bool:
    """Whether it is the start that the row waits for: were it dropped as a double, the row would wait for ever."""
    event = message.event
    if type(event) is not ExecutionStarted or event.parent is not None or row is None:
        return False
    return row.status is Status.PENDING and row.execution_id == event.execution_id


def _is_superseded(event: ExecutionStarted, row: RowView | None, sentinel: Sentinel | None) -> bool:
    """Whether a start is older than what stands: a double that came late, after another had replaced what it began.

    Nothing else tells, since only the newest start is remembered; and its row was there before its message.
    """
    if row is not None:
        return (event.generation, event.timestamp) < (row.generation, row.created_at)
    projection = None if sentinel is None or sentinel.state.purging else sentinel.state.projection
    return projection is not None and event.timestamp < projection.created_at


def _row_waits(row: RowView | None, sentinel: Sentinel | None, status: Status | None) -> bool:
    """Whether the row names a start of a client's that waits."""
    if row is None or row.status is not Status.PENDING:
        return False
    return status is None or sentinel is None or names_newer_start(row, sentinel)


def _give(messages: Iterable[Arrived], execution: str, decided: Decided) -> None:
    for one in messages:
        if one.execution_id in (None, "", execution):
            decided.give.append(one)
        else:
            decided.drop.append((one, "it belongs to an earlier execution"))


def _to_history(
    row: RowView | None,
    sentinel: Sentinel,
    status: Status,
    rest: Sequence[Arrived],
    decided: Decided,
) -> None:
    execution = sentinel.execution_id
    waits = row is not None and names_newer_start(row, sentinel)
    if waits:
        # They belong to the id, and whichever execution starts next takes them; what names one is over.
        for one in rest:
            if one.execution_id in (None, row.execution_id):  # type: ignore[union-attr]
                _keep(one, decided)
            else:
                decided.drop.append((one, "it belongs to an earlier execution"))
        return
    projection = sentinel.state.projection
    rewinding = sentinel.is_ours and projection is not None and projection.status is Status.PENDING
    if rewinding and sentinel.state.rows:
        if any(type(one.event) is ExecutionRewound for one in rest):
            decided.run = Run.REWIND
            _give(rest, execution, decided)
        else:
            for one in rest:
                _keep(one, decided)
        return
    if status is Status.FAILED and any(type(one.event) is ExecutionRewound for one in rest):
        # From its parent, which was rewound: nobody has said so on the sentinel.
        decided.run = Run.REWIND
        _give(rest, execution, decided)
        return
    if status in TERMINAL:
        decided.drop += [(one, "the instance has ended") for one in rest if one.kept is None]
        return
    decided.run = Run.EXISTING
    _give(rest, execution, decided)


def _replaces(start: Arrived | None, sentinel: Sentinel | None) -> bool:
    """Whether a start is of another execution than that which is held."""
    return start is not None and (sentinel is None or start.execution_id != sentinel.execution_id)


def _moves_a_held_one(event: HistoryEvent) -> bool:
    return ends_from_outside(event) or is_wake(event) or type(event) is ExecutionRewound


def parents_of(starts: Iterable[ExecutionStarted]) -> set[str]:
    """The executions whose children these are."""
    return {start.parent.execution_id for start in starts if start.parent is not None}


def is_meant(event: HistoryEvent, parents: set[str]) -> bool:
    """Whether an end that goes on from a parent is for a child of one of these; any other message is meant."""
    return type(event) is not ExecutionTerminated or event.parent_execution is None or event.parent_execution in parents


def ends_from_outside(event: HistoryEvent) -> bool:
    """Whether it ends a held instance."""
    return type(event) is ExecutionTerminated or (type(event) is EventRaised and event.name == DEADLINE_EVENT)


WAKE = "holdtrue:wake"
"""The data of a message without effect that makes its owner look at an instance."""


def is_wake(event: HistoryEvent) -> bool:
    """Whether a message is there to make its owner look."""
    return type(event) is GenericEvent and event.data == WAKE

"""What every store of ours decides alike: pure functions from values to values.

What ends an instance without its code, what a parent is told of a child that will not run, what an instance
gets from its start on, how a limit is shared out.  Knows no storage.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.errors import InvalidInput
from holdtrue.core.events import (
    EventRaised,
    ExecutionStarted,
    ExecutionTerminated,
    FailureDetails,
    GenericEvent,
    HistoryEvent,
    Ticks,
)
from holdtrue.core.messages import CANCEL_EVENT, DEADLINE_EVENT, InboundMessage, OutboundMessage, Start
from holdtrue.core.outgoing import answer, deadline_message
from holdtrue.core.projection import Condition, Projection, Status, initial

from .protocol import CreateOutcome, CreateResult, InstanceRecord

T = TypeVar("T")

REPLACED_ERROR = "holdtrue.SubOrchestrationReplacedError"
EXISTS_ERROR = "holdtrue.InstanceAlreadyExists"
AT_REST = -1
"""The lock of what was put there to be looked at (`TaskHubStore.put_copies`): no host's, so that nobody gets it."""
LAST_KEY = (1 << 63) - 1
"""No key of an instance is beyond this one."""


def ends(event: HistoryEvent, *, begun: bool, deadline: Ticks | None = None) -> bool:
    """Whether a message ends an instance without any code (of this deadline, where that is known).

    A cancel does where the code has not `begun`, since there is nothing that could catch it.
    """
    if type(event) is EventRaised:
        if event.name == DEADLINE_EVENT:
            return deadline is None or event.input == str(deadline)
        return event.name == CANCEL_EVENT and not begun
    return type(event) is ExecutionTerminated


def meant(message: OutboundMessage, parent: str | None) -> OutboundMessage | None:
    """A message as its target takes it, which is a child of this `parent`; None where it is not meant for it.

    A terminate that goes on from a parent is for that one's children only, whoever else has such an id now.
    """
    event = message.event
    if type(event) is not ExecutionTerminated or event.parent_execution is None:
        return message
    if parent is None or parent != message.sender:
        return None
    # Whose child it is has been judged here, and need not be once more by its episode.
    return msgspec.structs.replace(message, event=msgspec.structs.replace(event, parent_execution=None))


def recursive_end(events: Iterable[HistoryEvent]) -> ExecutionTerminated | None:
    """The terminate among events that goes on to all sub-orchestrations under an instance; None: there is none."""
    for event in events:
        if type(event) is ExecutionTerminated and event.recurse:
            return msgspec.structs.replace(event, parent_execution=None)
    return None


def taken_by(commit: EpisodeCommit) -> Iterable[HistoryEvent]:
    """The messages that an episode took, with what else it has done."""
    yield from commit.events
    for dropped in commit.dropped:
        yield dropped.event


def is_missed(message: OutboundMessage) -> bool:
    """Whether a message to nobody is a dead letter: an answer to an execution, or its end, is none."""
    return message.execution_id is None and type(message.event) is not ExecutionTerminated


def first_message(started: ExecutionStarted) -> InboundMessage:
    """The message that an instance without history has first."""
    return InboundMessage(event=started, execution_id=started.execution_id)


def messages_of_start(start: Start, now: Ticks) -> list[OutboundMessage]:
    """What an instance has to get from its start on: its event, its deadline, its scheduled time."""
    started = start.started
    wanted: list[OutboundMessage] = []
    if start.event is not None:
        wanted.append(start.event)
    if start.deadline is not None:
        wanted.append(deadline_message(started.instance_id, start.deadline))
    if started.scheduled_start is not None and started.scheduled_start > now:
        # An event without effect that makes the instance ready at its time.
        wanted.append(
            OutboundMessage(
                instance_id=started.instance_id,
                event=GenericEvent(timestamp=started.scheduled_start),
                due=started.scheduled_start,
            )
        )
    return wanted


def new_record(start: Start) -> InstanceRecord:
    """The record of an instance just created."""
    return InstanceRecord(
        projection=initial(start.started),
        started=start.started,
        start_id=start.start_id,
        dialect=start.dialect,
        deadline=start.deadline,
    )


def not_started(result: CreateResult, standing: Projection, condition: Condition | None) -> CreateOutcome:
    """The outcome of a start that was not done because of what stands there."""
    return CreateOutcome(
        result=result,
        instance_id=standing.instance_id,
        execution_id=standing.execution_id,
        status=standing.status,
        condition=condition,
    )


def replaced_answer(old: Projection, now: Ticks) -> OutboundMessage | None:
    """What the parent of an instance is told whose place another start takes; None where it has no parent."""
    if old.parent is None:
        return None
    ended = old.copy()
    ended.status = Status.TERMINATED
    ended.failure = FailureDetails(
        message=f"sub-orchestration {old.instance_id!r} was replaced by another start of its id",
        error_type=REPLACED_ERROR,
    )
    return answer(old.parent, ended, now)


def refused_answer(started: ExecutionStarted, now: Ticks) -> OutboundMessage | None:
    """What the parent of a child is told whose id is taken; None where it has no parent."""
    if started.parent is None:
        return None
    failed = initial(started)
    failed.status = Status.FAILED
    failed.failure = FailureDetails(
        message=f"sub-orchestration {started.instance_id!r} was not started: an instance of this id has not ended. "
        "Choose another instance id, or wait for it to end",
        error_type=EXISTS_ERROR,
    )
    return answer(started.parent, failed, now)


def started_of(commit: EpisodeCommit) -> ExecutionStarted:
    """The ExecutionStarted of a history that takes another's place; raises ValueError where it has none."""
    for event in commit.events:
        if type(event) is ExecutionStarted:
            return event
    raise ValueError(f"instance {commit.instance_id!r}: a history that is replaced must hold an ExecutionStarted")


def share(limit: int, names: Sequence[str], turn: int, find: Callable[[str, int], list[T]]) -> list[T]:
    """Up to `limit` of what `find` has under several names, each getting its share before any gets more."""
    if not names:
        return []
    found: list[T] = []
    turn %= len(names)
    order = [*names[turn:], *names[:turn]]
    part = max(1, -(-limit // len(order)))
    more: list[list[T]] = []
    for name in order:
        rows = find(name, limit)
        if len(rows) > part:
            more.append(rows[part:])
            rows = rows[:part]
        found += rows
    for rows in more:
        if len(found) >= limit:
            break
        found += rows
    return found[:limit]


def key_of_token(token: str) -> int:
    """The key after which a page begins; raises InvalidInput for what is no token of a page."""
    if not token.isascii() or not token.isdecimal() or len(token) > 19 or int(token) > LAST_KEY:
        raise InvalidInput(f"{token!r} is no token of a page; give the one that the page before came with")
    return int(token)

"""The commit core: messages and decisions in, one `EpisodeCommit` out.

An episode takes the messages of one instance, turns them into events (what is stale or doubled is counted
and dropped, lifecycle commands are brought into order), lets an executor decide, and builds the one value
that a store applies whole or not at all.  A commit that would break a law of histories cannot be built.

Pure: time and ids come in as arguments.  The executor may be a live coroutine or a remote worker; this
module only sees its `Decision`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from . import events as ev
from .actions import (
    CompleteOrchestration,
    CreateSubOrchestration,
    CreateTimer,
    Decision,
    ScheduleTask,
    SendEvent,
)
from .dialect import DIALECTS
from .ending import end_from_outside
from .errors import InvariantBroken
from .messages import (
    DEADLINE_EVENT,
    START_LIMIT_EVENT,
    ActivityTask,
    Dropped,
    InboundMessage,
    OutboundMessage,
    Start,
    WorkRef,
)
from .outgoing import answer, child_start, is_late_start, options_of, start_limit_message, timer_message, work_item
from .projection import TERMINAL, Condition, Projection, Status, initial, project


class OpenTask(msgspec.Struct, frozen=True, gc=False):
    """A task without a result yet: the scheduling event's class and ordinal, its name; a `child`'s instance id."""

    kind: type
    ordinal: int
    name: str
    child: str = ""


class ExecutionState(msgspec.Struct, kw_only=True):
    """What an episode needs to know of an execution; the fold of its history and its instance record.

    `open` maps a task id to what is outstanding under it, `failed` the id of an activity that failed to the
    ordinal of its (first) schedule, `length` counts the events of the history.
    `condition`, `dialect`, `deadline`, `start_id` are the record's.
    """

    projection: Projection
    dialect: str
    start_id: str = ""
    deadline: ev.Ticks | None = None
    condition: Condition | None = None
    open: dict[int, OpenTask] = msgspec.field(default_factory=dict)
    failed: dict[int, int] = msgspec.field(default_factory=dict)
    length: int = 0

    def extend(self, events: Iterable[ev.HistoryEvent], project_too: bool = True) -> None:
        """Fold committed events in; raises InvariantBroken for one that cannot come here."""
        events = list(events)
        if project_too:
            self.projection = project(self.projection, events)
        ordinal = self.length
        for event in events:
            self._track(event, ordinal)
            ordinal += 1
        self.length = ordinal

    def _track(self, event: Any, ordinal: int) -> None:
        kind = type(event)
        if kind in _OPENS:
            if event.event_id in self.open:
                raise InvariantBroken(
                    f"instance {self.projection.instance_id!r}: task id {event.event_id} is used again "
                    "while its task is outstanding"
                )
            name = "" if kind is ev.TimerCreated else event.name
            child = event.instance_id if kind is ev.SubOrchestrationInstanceCreated else ""
            self.open[event.event_id] = OpenTask(kind, ordinal, name, child)
        elif kind in _ANSWERS:
            task_id = event.timer_id if kind is ev.TimerFired else event.task_scheduled_id
            task = self.open.pop(task_id, None)
            if task is None or task.kind is not _ANSWERS[kind]:
                raise InvariantBroken(
                    f"instance {self.projection.instance_id!r}: {kind.__name__} for task {task_id}, "
                    "which is not outstanding (never scheduled, or answered before)"
                )
            if kind is ev.TaskFailed:
                self.failed.setdefault(task_id, task.ordinal)


_OPENS = frozenset(ev.SCHEDULING_EVENTS)
_ANSWERS: dict[type, type] = {
    ev.TaskCompleted: ev.TaskScheduled,
    ev.TaskFailed: ev.TaskScheduled,
    ev.SubOrchestrationInstanceCompleted: ev.SubOrchestrationInstanceCreated,
    ev.SubOrchestrationInstanceFailed: ev.SubOrchestrationInstanceCreated,
    ev.TimerFired: ev.TimerCreated,
}


def state_of(
    record: Start, history: Iterable[ev.HistoryEvent] = (), condition: Condition | None = None
) -> ExecutionState:
    """The state of an execution from its start record and the events of its history."""
    state = ExecutionState(
        projection=initial(record.started),
        dialect=record.dialect,
        start_id=record.start_id,
        deadline=record.deadline,
        condition=condition,
    )
    state.extend(history)
    return state


class EpisodeCommit(msgspec.Struct, kw_only=True, gc=False):
    """Everything that one episode does: applied whole, or not at all.

    `events` are appended from ordinal `first` on, or take the place of the whole history (`replace`): of that of
    the execution `old_execution`, `old_length` events long.  Where another one stands, the episode is stale.
    `consumed` names messages used up, `finished` the work items of activities whose results came along.
    `cancelled` gives ordinals of scheduling events whose delayed message or work item is not wanted any
    more.  `wake` asks for one more episode without any message.  `status_changed` is false where nothing
    of the projection but times and custom status differs from the commit before.
    `dropped` was counted and is gone.  `ended` says that the execution has ended with this commit.
    """

    instance_id: str
    projection: Projection
    condition: Condition | None
    first: int
    events: list[ev.HistoryEvent]
    replace: bool = False
    old_execution: str
    old_length: int
    consumed: list[int]
    finished: list[WorkRef]
    activities: list[ActivityTask]
    messages: list[OutboundMessage]
    starts: list[Start]
    cancelled: list[int]
    dropped: list[Dropped]
    status_changed: bool
    custom_status_changed: bool
    condition_changed: bool = False
    wake: bool = False

    @property
    def ended(self) -> bool:
        """True if this commit ends the execution."""
        return self.projection.status in TERMINAL


GENERATIONS_PER_EPISODE = 16
"""How often an execution may continue as new within one commit; then it commits and is woken again."""


class Episode:
    """One episode in the making: `feed` is what the executor gets, `decide` takes its answer, `commit` ends it.

    `state` is changed along the way; where the commit is not applied, throw both away and load again.
    """

    __slots__ = (
        "_activities",
        "_cancelled",
        "_condition_before",
        "_consumed",
        "_custom",
        "_dropped",
        "_events",
        "_fed_events",
        "_finished",
        "_first",
        "_generations",
        "_messages",
        "_new_id",
        "_now",
        "_old",
        "_replace",
        "_starts",
        "_status_before",
        "_wake",
        "feed",
        "state",
    )

    def __init__(
        self, state: ExecutionState, messages: Sequence[InboundMessage], *, now: ev.Ticks, new_id: Callable[[], str]
    ) -> None:
        self.state = state
        self._now = now
        self._new_id = new_id
        self._first = state.length
        self._old = (state.projection.execution_id, state.length)
        self._status_before = state.projection.status
        self._condition_before = state.condition
        self._custom = False
        self._events: list[ev.HistoryEvent] = []
        self._consumed: list[int] = []
        self._finished: list[WorkRef] = []
        self._activities: list[ActivityTask] = []
        self._messages: list[OutboundMessage] = []
        self._starts: list[Start] = []
        self._cancelled: list[int] = []
        self._dropped: list[Dropped] = []
        self._replace = False
        self._wake = False
        self._generations = 0
        self._fed_events: list[ev.HistoryEvent] = []
        self.feed: list[ev.HistoryEvent] = []
        self._accept(messages)

    # -- messages become events ------------------------------------------------------------------------

    def _accept(self, messages: Sequence[InboundMessage]) -> None:
        state = self.state
        execution = state.projection.execution_id
        status = state.projection.status
        fresh: list[ev.HistoryEvent] = []
        answered: set[int] = set()
        for message in messages:
            if message.key is not None:
                self._consumed.append(message.key)
            if message.work is not None:
                self._finished.append(message.work)
            event: Any = message.event
            kind = type(event)
            if status in TERMINAL:
                self._drop("the instance has ended", event)
                self._end_children((event,))
            elif kind in _ANSWERS:
                task_id = event.timer_id if kind is ev.TimerFired else event.task_scheduled_id
                task = state.open.get(task_id)
                if message.execution_id is not None and message.execution_id != execution:
                    self._drop("it belongs to an earlier execution", event)
                elif task is None or task_id in answered:
                    self._drop("nobody waits for it any more", event)
                elif task.kind is not _ANSWERS[kind] or (
                    # (What another engine asked for names no ordinal: it is negative.)
                    message.scheduled is not None and message.scheduled != task.ordinal and message.scheduled >= 0
                ):
                    self._drop("it answers an earlier attempt", event)
                else:
                    answered.add(task_id)
                    fresh.append(event)
                    if kind is ev.TaskFailed and message.work is None and is_late_start(event):
                        # Nobody has begun it, so its work item is still there.
                        self._cancelled.append(task.ordinal)
            elif kind is ev.EventRaised:
                if event.name == START_LIMIT_EVENT:
                    self._drop("its activity was begun in time", event)
                elif event.name == DEADLINE_EVENT and (state.deadline is None or event.input != str(state.deadline)):
                    self._drop("the deadline is not this execution's", event)
                else:
                    fresh.append(event)
            elif kind is ev.ExecutionStarted:
                if status is Status.PENDING:
                    fresh.append(event)
                    status = Status.RUNNING
                else:
                    self._drop("it has started already", event)
            elif kind is ev.ExecutionSuspended:
                if status is Status.RUNNING:
                    fresh.append(event)
                    status = Status.SUSPENDED
                else:
                    self._drop("it is suspended already", event)
            elif kind is ev.ExecutionResumed:
                if status is Status.SUSPENDED:
                    fresh.append(event)
                    status = Status.RUNNING
                else:
                    self._drop("it is not suspended", event)
            elif kind is ev.ExecutionTerminated:
                parent = state.projection.parent
                if event.parent_execution is not None and (
                    parent is None or parent.execution_id != event.parent_execution
                ):
                    self._drop("it is for a child whose id this one has", event)
                else:
                    fresh.append(event)
            elif kind is ev.GenericEvent:
                pass
            else:
                self._drop("an instance takes no such message", event)
        self._fed_events = fresh
        if fresh:
            # The clock of who fired a timer may be ahead of this one; to the orchestration it has come nonetheless.
            self._now = max((self._now, *(event.fire_at for event in fresh if type(event) is ev.TimerFired)))
            self.feed = [ev.OrchestratorStarted(timestamp=self._now), *fresh]
            if state.projection.status is Status.PENDING and len(fresh) > 1:
                self._end_before_start(fresh)

    def _end_before_start(self, fresh: Sequence[ev.HistoryEvent]) -> None:
        """An execution that was ended before its code began never runs any of it."""
        for index, event in enumerate(fresh):
            end = end_from_outside(event, DIALECTS[self.state.dialect].first_task_id, cancel_too=True)
            if end is not None:
                self.decide(Decision(actions=[end], fed=index + 2))
                return

    def _drop(self, reason: str, event: ev.HistoryEvent) -> None:
        self._dropped.append(Dropped(reason, event))

    # -- decisions become events and work --------------------------------------------------------------

    def decide(self, decision: Decision) -> bool:
        """Take the executor's answer to `feed`.

        True if the execution has continued as new and the next one's `feed` is to be given to a fresh
        executor; False when the episode is ready to be committed.
        """
        state = self.state
        fed, unfed = self.feed[: decision.fed], self.feed[decision.fed :]
        continued = self._replace and not self._events
        state.extend(fed)
        self._events += fed
        if continued:
            # As .NET writes it: the rows that begin a continued execution are closed before its own.
            self._append(ev.OrchestratorCompleted(timestamp=self._now))
        begun = len(self._events)
        if decision.custom_status_set:
            projection = state.projection.copy()
            projection.custom_status = decision.custom_status
            state.projection = projection
            self._custom = True
        for task_id in decision.cancelled:
            task = state.open.get(task_id)
            if task is not None and task.kind is not ev.SubOrchestrationInstanceCreated:
                self._cancelled.append(task.ordinal)
        now = self._now
        completion: CompleteOrchestration | None = None
        for action in decision.actions:
            kind = type(action)
            if kind is ScheduleTask:
                self._schedule(action, now)  # type: ignore[arg-type]
            elif kind is CompleteOrchestration:
                self._check_end(action, completion)  # type: ignore[arg-type]
                completion = action  # type: ignore[assignment]
            elif kind is CreateTimer:
                self._create_timer(action, now)  # type: ignore[arg-type]
            elif kind is CreateSubOrchestration:
                self._create_child(action, now)  # type: ignore[arg-type]
            else:
                self._send(action, now)  # type: ignore[arg-type]
        self.feed = []
        if completion is None:
            if not continued or len(self._events) > begun:
                self._append(ev.OrchestratorCompleted(timestamp=now))
            return False
        # Also where the code ended, or continued as new, before the terminate came to its turn.
        self._end_children((*fed, *unfed))
        if completion.status == Status.CONTINUED_AS_NEW:
            return self._continue(completion, [*decision.unfed, *unfed])
        self._complete(completion)
        for event in unfed:
            self._drop("the instance has ended", event)
        self._append(ev.OrchestratorCompleted(timestamp=now))
        return False

    def _check_end(self, end: CompleteOrchestration, before: CompleteOrchestration | None) -> None:
        if before is not None or (end.status not in TERMINAL and end.status != Status.CONTINUED_AS_NEW):
            what = "ends twice" if before is not None else f"ends with the status {end.status}, which is no end"
            raise InvariantBroken(f"instance {self.state.projection.instance_id!r}: its executor's decision {what}")

    def _append(self, event: ev.HistoryEvent) -> int:
        state = self.state
        ordinal = state.length
        state._track(event, ordinal)
        state.length = ordinal + 1
        self._events.append(event)
        return ordinal

    def _schedule(self, action: ScheduleTask, now: ev.Ticks) -> None:
        scheduled = ev.TaskScheduled(
            timestamp=now,
            event_id=action.id,
            name=action.name,
            input=action.input,
            version=action.version,
            tags=action.tags,
        )
        ordinal = self._append(scheduled)
        task = work_item(self.state.projection, scheduled, ordinal, options_of(action, self.state.failed))
        self._activities.append(task)
        if task.options is not None and task.options.schedule_to_start is not None:
            self._messages.append(start_limit_message(task, task.options.schedule_to_start, now))

    def _create_timer(self, action: CreateTimer, now: ev.Ticks) -> None:
        created = ev.TimerCreated(timestamp=now, event_id=action.id, fire_at=action.fire_at)
        self._messages.append(timer_message(self.state.projection, created, self._append(created)))

    def _create_child(self, action: CreateSubOrchestration, now: ev.Ticks) -> None:
        created = ev.SubOrchestrationInstanceCreated(
            timestamp=now,
            event_id=action.id,
            name=action.name,
            instance_id=action.instance_id,
            input=action.input,
            version=action.version,
            tags=action.tags,
        )
        ordinal = self._append(created)
        state = self.state
        self._starts.append(
            child_start(state.projection, created, ordinal, execution_id=self._new_id(), dialect=state.dialect)
        )

    def _send(self, action: SendEvent, now: ev.Ticks) -> None:
        self._append(
            ev.EventSent(
                timestamp=now,
                event_id=action.id,
                instance_id=action.instance_id,
                name=action.name,
                input=action.input,
            )
        )
        self._messages.append(
            OutboundMessage(
                instance_id=action.instance_id,
                event=ev.EventRaised(timestamp=now, name=action.name, input=action.input),
                sender=self.state.projection.instance_id,
            )
        )

    def _end_children(self, came: Sequence[ev.HistoryEvent]) -> None:
        """A recursive terminate goes on to all children outstanding, those that its own step asked for too."""
        end = next((event for event in came if type(event) is ev.ExecutionTerminated and event.recurse), None)
        if end is None:
            return
        projection = self.state.projection
        self._messages += [
            OutboundMessage(
                instance_id=task.child,
                event=ev.ExecutionTerminated(
                    timestamp=self._now, input=end.input, recurse=True, parent_execution=projection.execution_id
                ),
                sender=projection.instance_id,
            )
            for task in self.state.open.values()
            if task.child
        ]

    def _complete(self, completion: CompleteOrchestration) -> None:
        state, now = self.state, self._now
        event = ev.ExecutionCompleted(
            timestamp=now,
            event_id=completion.id,
            status=completion.status,
            result=completion.result,
            failure=completion.failure,
        )
        state.projection = project(state.projection, (event,))
        self._append(event)
        # What is still out belongs to nobody any more: timers and work items are taken back.
        self._cancelled += [
            task.ordinal for task in state.open.values() if task.kind is not ev.SubOrchestrationInstanceCreated
        ]
        state.open.clear()
        parent = state.projection.parent
        if parent is not None:
            self._messages.append(answer(parent, state.projection, now))

    def _continue(self, completion: CompleteOrchestration, unfed: Sequence[ev.HistoryEvent]) -> bool:
        old, now = self.state, self._now
        before = old.projection
        if old.length != len(self._events) or self._first:
            self._cancelled += [
                task.ordinal
                for task in old.open.values()
                if task.kind is ev.TimerCreated and task.ordinal < self._first
            ]
        self._drop_uncommitted_timers(before.execution_id)
        started = ev.ExecutionStarted(
            timestamp=now,
            instance_id=before.instance_id,
            execution_id=self._new_id(),
            name=before.name,
            version=completion.new_version if completion.new_version is not None else before.version,
            input=completion.result,
            parent=before.parent,
            tags=before.tags,
            generation=before.generation + 1,
        )
        carried: list[ev.HistoryEvent] = [
            ev.EventRaised(timestamp=now, name=name, input=value) for name, value in completion.carryover
        ]
        for event in unfed:
            if type(event) in _CARRIED:
                carried.append(event)
            else:
                self._drop("it belongs to an earlier execution", event)
        fresh = ExecutionState(
            projection=initial(started),
            dialect=old.dialect,
            start_id=old.start_id,
            deadline=old.deadline,
        )
        fresh.projection.created_at = before.created_at
        fresh.projection.custom_status = before.custom_status
        self.state = fresh
        self._replace = True
        self._first = 0
        self._events = []
        self._generations += 1
        self.feed = [ev.OrchestratorStarted(timestamp=now), started, *carried]
        if self._generations < GENERATIONS_PER_EPISODE:
            return True
        # Enough for one commit: the next execution's first rows stand, its code runs at the next episode.
        fresh.extend(self.feed)
        self._events = [*self.feed]
        self._append(ev.OrchestratorCompleted(timestamp=now))
        self.feed = []
        self._wake = True
        return False

    def _drop_uncommitted_timers(self, execution_id: str) -> None:
        self._messages = [
            message
            for message in self._messages
            if not (message.execution_id == execution_id and message.due is not None)
        ]

    # -- the commit ------------------------------------------------------------------------------------

    def commit(self) -> EpisodeCommit:
        """The one value to be applied.  Without any event it only uses messages up."""
        state = self.state
        if self._events:
            projection = state.projection.copy()
            projection.last_updated_at = self._now
            state.projection = projection
        condition_changed = self._condition_before is not None
        state.condition = None
        return EpisodeCommit(
            instance_id=state.projection.instance_id,
            projection=state.projection,
            condition=None,
            first=self._first,
            events=self._events,
            replace=self._replace,
            old_execution=self._old[0],
            old_length=self._old[1],
            consumed=self._consumed,
            finished=self._finished,
            activities=self._activities,
            messages=self._messages,
            starts=self._starts,
            cancelled=self._cancelled,
            dropped=self._dropped,
            status_changed=self._replace or state.projection.status is not self._status_before,
            custom_status_changed=self._custom,
            condition_changed=condition_changed,
            wake=self._wake,
        )


_CARRIED = frozenset((ev.EventRaised, ev.ExecutionSuspended, ev.ExecutionResumed, ev.ExecutionTerminated))


Executor = Callable[[ExecutionState, Sequence[ev.HistoryEvent]], Decision]
"""Takes the state and the new events of an execution (a fresh one after a continue-as-new); decides."""


def episode(
    state: ExecutionState,
    messages: Sequence[InboundMessage],
    execute: Executor,
    *,
    now: ev.Ticks,
    new_id: Callable[[], str],
) -> EpisodeCommit:
    """One whole episode with an executor that answers at once.

    `now` is the episode's time, `new_id` makes execution ids.  Raises InvariantBroken where the commit
    would break a law of histories, and whatever `execute` raises (NonDeterminismError among it).
    """
    making = Episode(state, messages, now=now, new_id=new_id)
    while making.feed:
        if not making.decide(execute(making.state, making.feed)):
            break
    return making.commit()

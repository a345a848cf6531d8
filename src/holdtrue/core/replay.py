"""Drives one execution of an orchestrator, a coroutine or a generator, by feeding it history events.

There is one path: past events and new ones are fed alike, and what the code asks for is matched with the
events that confirm it.  A live run is the same object, kept: its last decision is confirmed at once.  So
a replay and a live run give the same decision for the same events.

No I/O, clock or randomness: time comes with OrchestratorStarted, payloads are decoded by a function that
the author's side passes in.
"""

import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from . import events as ev
from .actions import (
    Action,
    ActivityOptions,
    CompleteOrchestration,
    CreateSubOrchestration,
    CreateTimer,
    Decision,
    ScheduleTask,
    SendEvent,
)
from .author import Author, OrchestratorNotFound
from .describing import describe, describe_event
from .dialect import Dialect
from .errors import HoldtrueError, InvalidInput, NonDeterminismError
from .external_events import ExternalEvents
from .messages import CANCEL_EVENT, DEADLINE_EVENT
from .places import calling_from, raised_at, standing_at
from .projection import Status
from .retry import RetryPolicy, next_attempt, next_delay
from .tasks import OrchestrationCancelledError, Task

DEADLINE_ERROR_TYPE = "holdtrue.DeadlineExceededError"
CANCELLED_ERROR_TYPE = "holdtrue.OrchestrationCancelledError"
UNKNOWN = ev.FailureDetails(message="the failure was recorded without details", error_type="")


CLOSING_TRIES = 100
"""How often code is told to end that waits for something in its clean-up."""
REFUSALS = 100
"""How often in a row code may swallow that what it waits for is not durable; then its execution fails."""


class _Attempts(Task[Any]):
    """A task that is tried again by a policy; the one task the code sees over all attempts."""

    __slots__ = ("action", "attempt", "policy", "started")

    def __init__(
        self, expected_type: Any, policy: RetryPolicy, action: ScheduleTask | CreateSubOrchestration, started: ev.Ticks
    ) -> None:
        super().__init__(expected_type)
        self.policy = policy
        self.action = action
        self.attempt = 1
        self.started = started


class TimerTask(Task[None]):
    """A durable timer; `final_fire_at` where a dialect cuts it into pieces."""

    __slots__ = ("final_fire_at",)

    def __init__(self) -> None:
        super().__init__()
        self.final_fire_at: ev.Ticks | None = None


class _RetryDelay(TimerTask):
    """The timer between two attempts."""

    __slots__ = ("of",)

    def __init__(self, of: _Attempts) -> None:
        super().__init__()
        self.of = of


class Run:
    """One execution in hand: feed it events, take its decisions.

    `now` is the orchestration's time in ticks, `history_size` the number of events of the history up to
    the one being fed.  `discarded` says that the code is gone: nothing that its clean-up asks for counts.
    """

    def __init__(self, author: Author, dialect: Dialect) -> None:
        self.author = author
        self.dialect = dialect
        self.started: ev.ExecutionStarted | None = None
        self.now: ev.Ticks = 0
        self.is_replaying = False
        self.history_size = 0
        self.custom_status: str | None = None
        self.completion: CompleteOrchestration | None = None
        self.continuing: tuple[str | None, bool, str | None] | None = None
        self.failed_by: list[int] = []
        self._custom_status_set = False
        self._code: Any = None
        self._awaited: Task[Any] | None = None
        self._next_id = dialect.first_task_id
        self._pending: dict[int, Action] = {}
        self._open: dict[int, Task[Any]] = {}
        self._cancelled: list[int] = []
        self._external = ExternalEvents()
        self._uuids = 0
        self._suspended = False
        self._held_back: list[ev.HistoryEvent] = []
        self._unfed: list[ev.HistoryEvent] = []
        self._over = False
        self.discarded = False
        self._allow_rest = False
        self._places: dict[int, str | None] = {}
        self._failed_at: str | None = None

    # -- feeding -------------------------------------------------------------------------------------

    def replay(self, history: Iterable[ev.HistoryEvent], *, unfinished: bool = False) -> None:
        """Feed committed events.

        `unfinished` says that the last episode was cut: what its actions go beyond the history is its
        rest, no deviation.  Raises NonDeterminismError where the code does not fit.
        """
        self.is_replaying = True
        self._allow_rest = unfinished
        try:
            for event in history:
                if unfinished and self.continuing is not None:
                    if type(event) is not ev.OrchestratorCompleted:
                        self._unfed.append(event)
                else:
                    self._feed(event)
        finally:
            self.is_replaying = False
        if unfinished:
            return
        # What past episodes decided is committed; only the rest of a cut one is still to be done.
        self._cancelled.clear()
        self._custom_status_set = False
        if self._over:
            return
        if self._pending:
            raise self._asks_beyond("no such step up to its end")
        if self.completion is not None or self.continuing is not None:
            raise self._deviation("no end", self._stands())

    def step(self, events: Sequence[ev.HistoryEvent]) -> Decision:
        """Feed new events and take the decision.

        Stops feeding at the end of the code or at its continue-as-new; `Decision.fed` counts the events
        that the code has seen.  Raises NonDeterminismError where a replay before it does not fit.
        """
        fed = 0
        if not events:
            self._allow_rest = False
        for event in events:
            if self.completion is not None or self.continuing is not None:
                break
            self._feed(event)
            fed += 1
        if self.continuing is not None and self.completion is None:
            self._complete_continuing()
        actions = list(self._pending.values())
        self._pending.clear()
        if self.completion is not None:
            actions.append(self.completion)
        decision = Decision(
            actions=actions,
            fed=fed,
            custom_status=self.custom_status,
            custom_status_set=self._custom_status_set,
            cancelled=tuple(self._cancelled),
            unfed=tuple(self._unfed),
        )
        self._places.clear()
        self._cancelled.clear()
        self._custom_status_set = False
        return decision

    def committed(self, count: int) -> None:
        """The decision became `count` more rows of history (beside the events fed)."""
        self.history_size += count

    def close(self) -> None:
        """Drop the code: its `finally` blocks run, and nothing that they ask for is kept."""
        self.discarded = True
        code, self._code = self._code, None
        for _ in range(CLOSING_TRIES if code is not None else 0):
            try:
                code.close()
            except RuntimeError:
                continue  # a clean-up that waits for something again: it is told once more
            except BaseException:  # noqa: BLE001  the run is gone; what its clean-up raises concerns nobody
                pass
            return

    def _feed(self, event: ev.HistoryEvent) -> None:
        self.history_size += 1
        kind = type(event)
        if self._suspended and kind not in _ACT_AT_ONCE and getattr(event, "name", None) != DEADLINE_EVENT:
            self._held_back.append(event)
            return
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, event)

    # -- events --------------------------------------------------------------------------------------

    def _orchestrator_started(self, event: ev.OrchestratorStarted) -> None:
        if self._pending and not self._allow_rest:
            raise self._asks_beyond("no such step before its next episode")
        if self.is_replaying and (self.completion is not None or self.continuing is not None):
            raise self._deviation("further episodes", self._stands())
        self.now = event.timestamp

    def _execution_started(self, event: ev.ExecutionStarted) -> None:
        self.started = event
        try:
            code = self.author.begin(self, event)
        except OrchestratorNotFound:
            raise
        except BaseException as error:  # noqa: BLE001  every way out of user code is an outcome
            self._fail(error)
            return
        if isinstance(code, (types.CoroutineType, types.GeneratorType)):
            self._code = code
            self._advance(None, None)
        elif self.continuing is None:
            self._succeed(code)

    def _task_completed(self, event: Any) -> None:
        task = self._open.pop(event.task_scheduled_id, None)
        if task is None:
            return
        try:
            value = self.author.decode(event.result, task.expected_type)
        except Exception as error:  # noqa: BLE001  a payload that does not fit fails this one task
            task.fail(error)
        else:
            task.succeed(value)
        self._resume()

    def _task_failed(self, event: Any) -> None:
        task_id: int = event.task_scheduled_id
        task = self._open.pop(task_id, None)
        if task is None:
            return
        failure: ev.FailureDetails = event.failure or UNKNOWN
        if type(task) is _Attempts:
            try:
                delay = next_delay(task.policy, task.attempt, failure, task.started, self.now)
            except Exception as error:  # noqa: BLE001  the author's own predicate or handler has failed
                task.fail(error)
                self._resume()
                return
            if delay is not None:
                task.attempt += 1
                task.action = next_attempt(task.action, task.attempt, failure)
                self._set_timer(_RetryDelay(task), min(self.now + delay, ev.MAX_TICKS))
                return
        what = "Activity task" if type(event) is ev.TaskFailed else "Sub-orchestration task"
        instance = self.started.instance_id if self.started else ""
        task.fail(self.author.task_failed(f"{instance}: {what} #{task_id} failed: {failure.message}", failure))
        self._resume()

    def _timer_fired(self, event: ev.TimerFired) -> None:
        task = self._open.pop(event.timer_id, None)
        if not isinstance(task, TimerTask):
            return
        if task.final_fire_at is not None and event.fire_at < task.final_fire_at:
            self._set_timer(task, task.final_fire_at, at=event.fire_at)
            return
        if type(task) is _RetryDelay:
            self._try_again(task.of)
            return
        task.succeed(None)
        self._resume()

    def _event_raised(self, event: ev.EventRaised) -> None:
        name = event.name
        if name == CANCEL_EVENT:
            self._cancel(event.input)
            return
        if name == DEADLINE_EVENT:
            self._end(
                Status.FAILED,
                failure=ev.FailureDetails(
                    message="the execution's deadline has passed", error_type=DEADLINE_ERROR_TYPE
                ),
            )
            return
        task = self._external.raised(name, event.input)
        if task is not None:
            self._deliver(task, event.input)
            self._resume()

    def _suspend(self, event: ev.HistoryEvent) -> None:
        self._suspended = True

    def _resumed(self, event: ev.HistoryEvent) -> None:
        self._suspended = False
        held_back, self._held_back = self._held_back, []
        for index, held in enumerate(held_back):
            if self.continuing is not None:
                # Not fed before the code asked to continue as new: these go over, in order.
                self._unfed += held_back[index:]
                return
            handler = _HANDLERS.get(type(held))
            if handler is not None:
                handler(self, held)

    def _terminated(self, event: ev.ExecutionTerminated) -> None:
        self._end(Status.TERMINATED, result=event.input)

    # -- events that confirm what the code asked for ---------------------------------------------------

    def _confirm(self, event: Any) -> None:
        action = self._pending.pop(event.event_id, None)
        if action is None:
            raise self._deviation(describe_event(event), f"does not ask for it: it {self._stands()}")
        kind = type(event)
        fits = type(action) is _CONFIRMS[kind]
        if fits and kind is not ev.TimerCreated:
            fits = action.name == event.name  # type: ignore[union-attr]
            if fits and kind is not ev.TaskScheduled:
                fits = action.instance_id == event.instance_id  # type: ignore[union-attr]
        if not fits:
            raise self._deviation(describe_event(event), self._asks(action), self._places.get(action.id))

    def _ended(self, event: Any) -> None:
        if self.completion is None:
            raise self._deviation(describe_event(event), f"has not ended: it {self._stands()}")
        self._over = True

    def _deviation(self, step: str, call: str, place: str | None = None) -> NonDeterminismError:
        instance = self.started.instance_id if self.started else "?"
        event = self.history_size - 1
        place = place or self.where() or self._failed_at
        return NonDeterminismError(instance, f"{step} (event {event})", call, event=event, place=place)

    def _asks_beyond(self, step: str) -> NonDeterminismError:
        action = next(iter(self._pending.values()))
        return self._deviation(step, self._asks(action), self._places.get(action.id))

    def _asks(self, action: Action) -> str:
        place = self._places.get(action.id)
        return f"asks for {describe(action)}" + (f" at {place}" if place else "")

    def _stands(self) -> str:
        """What the code does now, for messages."""
        if self.continuing is not None:
            return "continues as new"
        if self.completion is None:
            return f"waits at {self.where()}"
        failure = self.completion.failure
        return "has ended" if failure is None else f"has failed ({failure.error_type}: {failure.message})"

    def where(self) -> str | None:
        """`file:line` where the code stands now, its innermost await or yield; None when it does not run."""
        return standing_at(self._code)

    def events_waited_for(self) -> list[str]:
        """The names of the external events that the code waits for, in lower case."""
        return self._external.waited()

    # -- the code --------------------------------------------------------------------------------------

    def _resume(self) -> None:
        task = self._awaited
        if task is not None and task._complete:
            self._awaited = None
            if task._exception is not None:
                self._advance(None, task._exception)
            else:
                self._advance(task._result, None)

    def _advance(self, value: Any, error: BaseException | None) -> None:
        code = self._code
        if code is None:
            return
        refused = 0
        while True:
            try:
                awaited = code.throw(error) if error is not None else code.send(value)
            except StopIteration as stop:
                self._code = None
                if self.continuing is None:
                    self._succeed(stop.value)
                return
            except OrchestrationCancelledError as cancelled:
                self._code = None
                if self.continuing is None:
                    self._cancelled_out(cancelled)
                return
            except BaseException as raised:  # noqa: BLE001  SystemExit, KeyboardInterrupt and all: an outcome
                self._code = None
                if self.continuing is None:
                    self._fail(raised)
                return
            if self.continuing is not None:
                self.close()
                return
            try:
                task = awaited if isinstance(awaited, Task) else self.author.adopt(awaited)
            except Exception as unfit:  # noqa: BLE001  what was awaited cannot be: an error of the code's
                value, error = None, unfit
                continue
            if task is None:
                value, error = None, self._not_durable(awaited)
                refused += 1
                if refused > REFUSALS:
                    self._fail(error)
                    return
                continue
            if not task._complete:
                self._awaited = task
                return
            if task._exception is not None:
                value, error = None, task._exception
            else:
                value, error = task._result, None

    def _not_durable(self, awaited: Any) -> BaseException:
        cancel = getattr(awaited, "cancel", None)
        if cancel is not None and not isinstance(awaited, type):
            try:
                cancel()
            except Exception:  # noqa: BLE001  a foreign object's own affair
                pass
        return NotDurableError(
            f"{self.where() or 'the orchestrator'}: waits for {type(awaited).__module__}.{type(awaited).__qualname__}, "
            "which is not durable. Do I/O in an activity (ctx.call_activity), sleep with ctx.create_timer, "
            "combine with when_all and when_any."
        )

    def _succeed(self, value: Any) -> None:
        try:
            if isinstance(value, Task):
                raise NotDurableError("the orchestrator returned a task that it did not wait for: await (or yield) it")
            result = None if value is None else self.author.encode(value)
        except Exception as error:  # noqa: BLE001  an output that cannot be written is a failure of the execution
            self._fail(error)
            return
        self._end(Status.COMPLETED, result=result)

    def _fail(self, error: BaseException) -> None:
        if self.is_replaying:
            self._failed_at = raised_at(error)
        self._end(Status.FAILED, failure=self.author.failure(error))

    def _cancel(self, reason: str | None) -> None:
        error = OrchestrationCancelledError(reason or "cancelled")
        if self._code is None:
            return
        self._awaited = None
        self._advance(None, error)

    def _cancelled_out(self, error: OrchestrationCancelledError) -> None:
        reason = str(error)
        self._end(
            Status.TERMINATED,
            result=self.author.encode(reason),
            failure=ev.FailureDetails(message=f"cancelled: {reason}", error_type=CANCELLED_ERROR_TYPE),
        )

    def _end(self, status: Status, result: str | None = None, failure: ev.FailureDetails | None = None) -> None:
        if self.completion is not None:
            return
        self.close()
        self.continuing = None
        self.completion = CompleteOrchestration(id=self._take_id(), status=status, result=result, failure=failure)

    def _complete_continuing(self) -> None:
        assert self.continuing is not None
        payload, save_events, new_version = self.continuing
        self.close()
        self.completion = CompleteOrchestration(
            id=self._take_id(),
            status=Status.CONTINUED_AS_NEW,
            result=payload,
            new_version=new_version,
            carryover=self._external.buffered() if save_events else (),
        )

    # -- what a context calls ----------------------------------------------------------------------------

    def _take_id(self) -> int:
        task_id = self._next_id
        self._next_id += 1
        return task_id

    def _ask(self, action: Action) -> None:
        if self.discarded:
            return
        self._pending[action.id] = action
        if self.is_replaying:
            self._places[action.id] = calling_from(Run._feed.__code__)

    def schedule_task(
        self,
        name: str,
        payload: str | None,
        *,
        expected_type: Any = None,
        retry: RetryPolicy | None = None,
        tags: dict[str, str] | None = None,
        version: str | None = None,
        options: ActivityOptions | None = None,
    ) -> Task[Any]:
        """Ask for an activity."""
        task_id = self._take_id()
        action = ScheduleTask(id=task_id, name=name, input=payload, version=version, tags=tags, options=options)
        return self._track(action, expected_type, retry)

    def create_sub_orchestration(
        self,
        name: str,
        payload: str | None,
        *,
        instance_id: str | None = None,
        expected_type: Any = None,
        retry: RetryPolicy | None = None,
        tags: dict[str, str] | None = None,
        version: str | None = None,
    ) -> Task[Any]:
        """Ask for a child."""
        task_id = self._take_id()
        if instance_id is None:
            assert self.started is not None
            instance_id = self.dialect.child_id(self.started.instance_id, self.started.execution_id, task_id)
        action = CreateSubOrchestration(
            id=task_id, name=name, instance_id=instance_id, input=payload, version=version, tags=tags
        )
        return self._track(action, expected_type, retry)

    def _track(
        self, action: ScheduleTask | CreateSubOrchestration, expected_type: Any, retry: RetryPolicy | None
    ) -> Task[Any]:
        task: Task[Any]
        if retry is None:
            task = Task(expected_type)
        else:
            task = _Attempts(expected_type, retry, action, self.now)
        self._register(action, task)
        return task

    def _register(self, action: Action, task: Task[Any]) -> None:
        task_id = action.id
        self._ask(action)
        self._open[task_id] = task
        task._on_cancel = _Cancellation(self, task_id)

    def _try_again(self, task: _Attempts) -> None:
        if task._complete:
            return
        action = task.action
        if not self.dialect.reuses_ids:
            action = msgspec.structs.replace(action, id=self._take_id())
            if isinstance(action, CreateSubOrchestration) and self.started is not None:
                default = self.dialect.child_id(self.started.instance_id, self.started.execution_id, task.action.id)
                if action.instance_id == default:
                    fresh = self.dialect.child_id(self.started.instance_id, self.started.execution_id, action.id)
                    action = msgspec.structs.replace(action, instance_id=fresh)
        task.action = action
        self._register(action, task)

    def create_timer(self, fire_at: ev.Ticks) -> TimerTask:
        """Ask to be woken at a time; one that has passed fires at once.  Raises InvalidInput past the year 9999."""
        if fire_at > ev.MAX_TICKS:
            raise InvalidInput("a timer cannot fire after the year 9999: give an earlier time")
        task = TimerTask()
        self._set_timer(task, max(fire_at, ev.MIN_TICKS))
        return task

    def _set_timer(self, task: TimerTask, fire_at: ev.Ticks, at: ev.Ticks | None = None) -> None:
        longest = self.dialect.longest_timer
        piece = fire_at
        if longest is not None:
            base = self.now if at is None else at
            if base + longest < fire_at:
                task.final_fire_at = fire_at
                piece = base + longest
        action = CreateTimer(id=self._take_id(), fire_at=piece)
        self._register(action, task)
        if type(task) is _RetryDelay:
            task.of._on_cancel = _Cancellation(self, action.id)

    def wait_for_event(self, name: str, expected_type: Any = None) -> Task[Any]:
        """Wait for an event of that name (case-insensitive); one that came early is taken, oldest first."""
        task: Task[Any] = Task(expected_type)
        if self.continuing is not None:
            return task  # it ends here: what came early is for the next execution
        early = self._external.wait(name, task)
        if early is not None:
            self._deliver(task, early[0])
        return task

    def _deliver(self, task: Task[Any], payload: str | None) -> None:
        try:
            value = self.author.decode(payload, task.expected_type)
        except Exception as error:  # noqa: BLE001  the event does not fit its type: this wait fails
            task.fail(error)
        else:
            task.succeed(value)

    def send_event(self, instance_id: str, name: str, payload: str | None) -> None:
        """Raise an event on another instance, once this episode is committed."""
        self._ask(SendEvent(id=self._take_id(), instance_id=instance_id, name=name, input=payload))

    def continue_as_new(self, payload: str | None, save_events: bool, new_version: str | None) -> None:
        """End this execution and begin the next one with this input; the first call counts."""
        if self.completion is None and self.continuing is None and not self.discarded:
            self.continuing = (payload, save_events, new_version)

    def set_custom_status(self, payload: str | None) -> None:
        """What a reader sees as the custom status, from the commit of this episode on."""
        if not self.discarded:
            self.custom_status = payload
            self._custom_status_set = True

    def new_uuid(self) -> str:
        """The next replay-safe UUID, made as the dialect makes it."""
        assert self.started is not None
        value = self.dialect.new_uuid(self.started.instance_id, self.now, self._uuids)
        self._uuids += 1
        return value


class NotDurableError(HoldtrueError):
    """An orchestrator waited for something that is not durable."""


class _Cancellation:
    """Takes a task back: before its commit as if never asked for (its id stays used), after it by request."""

    __slots__ = ("run", "task_id")

    def __init__(self, run: Run, task_id: int) -> None:
        self.run = run
        self.task_id = task_id

    def __call__(self) -> None:
        run = self.run
        run._open.pop(self.task_id, None)
        if run._pending.pop(self.task_id, None) is None:
            run._cancelled.append(self.task_id)


_CONFIRMS: dict[type, type] = {
    ev.TaskScheduled: ScheduleTask,
    ev.SubOrchestrationInstanceCreated: CreateSubOrchestration,
    ev.TimerCreated: CreateTimer,
    ev.EventSent: SendEvent,
}

_HANDLERS: dict[type, Callable[[Run, Any], None]] = {
    ev.OrchestratorStarted: Run._orchestrator_started,
    ev.ExecutionStarted: Run._execution_started,
    ev.TaskScheduled: Run._confirm,
    ev.SubOrchestrationInstanceCreated: Run._confirm,
    ev.TimerCreated: Run._confirm,
    ev.EventSent: Run._confirm,
    ev.TaskCompleted: Run._task_completed,
    ev.TaskFailed: Run._task_failed,
    ev.SubOrchestrationInstanceCompleted: Run._task_completed,
    ev.SubOrchestrationInstanceFailed: Run._task_failed,
    ev.TimerFired: Run._timer_fired,
    ev.EventRaised: Run._event_raised,
    ev.ExecutionSuspended: Run._suspend,
    ev.ExecutionResumed: Run._resumed,
    ev.ExecutionTerminated: Run._terminated,
    ev.ExecutionCompleted: Run._ended,
    ev.ExecutionFailed: Run._ended,
}

_ACT_AT_ONCE = frozenset(
    (
        ev.OrchestratorStarted,
        ev.OrchestratorCompleted,
        ev.ExecutionResumed,
        ev.ExecutionTerminated,
        ev.ExecutionCompleted,
        ev.TaskScheduled,
        ev.SubOrchestrationInstanceCreated,
        ev.TimerCreated,
        ev.EventSent,
    )
)
"""What takes effect while an execution is suspended; the deadline's event is let through by name."""

"""Finds out why an execution failed, by running its code once more over its history and watching.

Noted are: what the code asked for, and when; which failures were recorded, and when each was delivered
into the code (thrown at an await, or as a part of a composite that was awaited); the error it ended with.
Moments are counted by a clock of the probe's own; a row is an ordinal of the history.

`core.rewind` judges by what is found here.  Pure, as the replay is.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from . import events as ev
from .actions import Action, ScheduleTask
from .author import Author
from .dialect import Dialect
from .replay import UNKNOWN, Run, _Attempts, _RetryDelay
from .tasks import CompositeTask, Task, TaskFailedError


class Ask(msgspec.Struct, kw_only=True):
    """Something the code asked for: at which moment, while which row was fed, while handling which error.

    `row` is the event that confirms it (None: cancelled before its commit); `owner` the task that it is for.
    """

    moment: int
    fed: int
    action: Any
    owner: Any = None
    handling: Any = None
    row: int | None = None


class Failure(msgspec.Struct, kw_only=True):
    """A task that failed for good: its row, its error, and the moment and row of its delivery (None: never)."""

    row: int
    error: Any
    task: Any
    delivered: int | None = None
    fed: int = -1


class Attempt(msgspec.Struct, frozen=True):
    """One failed attempt of a task that is tried again: its row, and the moment it was fed."""

    row: int
    moment: int


class Probe(Run):
    """A run that watches itself.  `error` is what the code ended with, `asks` and `failures` are in order."""

    def __init__(self, author: Author, dialect: Dialect) -> None:
        super().__init__(_Listener(author, self), dialect)
        self.asks: list[Ask] = []
        self.failures: list[Failure] = []
        self.attempts: dict[int, list[Attempt]] = {}
        self.error: BaseException | None = None
        self._row = -1
        self._clock = 0
        self._owner: Any = None
        self._by_action: dict[int, Ask] = {}
        self._by_error: dict[int, Failure] = {}
        self._failed_rows: dict[int, tuple[int, Any]] = {}

    def feed(self, history: Iterable[ev.HistoryEvent]) -> None:
        """Feed a history; what the code asks for beyond it stays to be taken by `step`.

        Raises NonDeterminismError where the code does not fit.
        """
        self.is_replaying = True
        try:
            for event in history:
                self._feed(event)
        finally:
            self.is_replaying = False

    @property
    def sets_custom_status(self) -> bool:
        """True if the code has set a custom status in what was fed."""
        return self._custom_status_set

    def activity_at(self, row: int) -> ScheduleTask | None:
        """What the code asked for in the TaskScheduled of that row: it knows the options, the event does not."""
        for ask in self.asks:
            if ask.row == row and isinstance(ask.action, ScheduleTask):
                return ask.action
        return None

    # -- watching ----------------------------------------------------------------------------------------

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _feed(self, event: ev.HistoryEvent) -> None:
        self._row += 1
        kind = type(event)
        if kind in _CONFIRMING:
            ask = self._by_action.get(id(self._pending.get(event.event_id)))
            if ask is not None:
                ask.row = self._row
        elif isinstance(event, (ev.TaskFailed, ev.SubOrchestrationInstanceFailed)):
            task = self._open.get(event.task_scheduled_id)
            if type(task) is _Attempts:
                self.attempts.setdefault(id(task), []).append(Attempt(self._row, self._tick()))
            # An object of its own, so that the failure's error can be told by it.
            failure = msgspec.structs.replace(event.failure or UNKNOWN)
            self._failed_rows[id(failure)] = (self._row, task)
            event = msgspec.structs.replace(event, failure=failure)
        super()._feed(event)

    def failed(self, error: TaskFailedError, failure: ev.FailureDetails) -> None:
        """A task has failed for good; its error is about to be delivered, or to wait for being awaited."""
        row, task = self._failed_rows[id(failure)]
        found = Failure(row=row, error=error, task=task)
        self.failures.append(found)
        self._by_error[id(error)] = found

    def delivered(self, task: Task[Any] | None, error: BaseException | None) -> None:
        """The code is resumed with what it awaited, and with an error."""
        moment = self._tick()
        for each in _errors_of(task):
            self._mark(each, moment)
        if error is not None:
            self._mark(error, moment)

    def _mark(self, error: BaseException, moment: int) -> None:
        found = self._by_error.get(id(error))
        if found is not None and found.delivered is None:
            found.delivered, found.fed = moment, self._row

    def _register(self, action: Action, task: Task[Any]) -> None:
        self._owner = task.of if type(task) is _RetryDelay else task
        super()._register(action, task)
        self._owner = None

    def _ask(self, action: Action) -> None:
        if not self.discarded:
            ask = Ask(moment=self._tick(), fed=self._row, action=action, owner=self._owner, handling=sys.exc_info()[1])
            self.asks.append(ask)
            self._by_action[id(action)] = ask
        super()._ask(action)

    def _advance(self, value: Any, error: BaseException | None) -> None:
        if self._code is not None and not isinstance(self._code, _Watched):
            self._code = _Watched(self._code, self)
        super()._advance(value, error)

    def _fail(self, error: BaseException) -> None:
        self.error = error
        super()._fail(error)


class _Watched:
    """The code, with an ear at its door."""

    def __init__(self, code: Any, probe: Probe) -> None:
        self._code = code
        self._probe = probe
        self._awaited: Any = None

    def send(self, value: Any) -> Any:
        self._probe.delivered(self._taken(), None)
        self._awaited = self._code.send(value)
        return self._awaited

    def throw(self, error: BaseException) -> Any:
        self._probe.delivered(self._taken(), error)
        self._awaited = self._code.throw(error)
        return self._awaited

    def close(self) -> None:
        self._code.close()

    def _taken(self) -> Task[Any] | None:
        awaited, self._awaited = self._awaited, None
        if awaited is None or isinstance(awaited, Task):
            return awaited
        adopted = self._probe.author.adopted  # type: ignore[attr-defined]  # a probe's author is a _Listener
        return adopted if isinstance(adopted, Task) else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._code, name)


class _Listener:
    """The author's side, with an ear at its door."""

    def __init__(self, author: Author, probe: Probe) -> None:
        self._author = author
        self._probe = probe
        self.adopted: Task[Any] | None = None

    def begin(self, run: Run, started: ev.ExecutionStarted) -> Any:
        return self._author.begin(run, started)

    def encode(self, value: Any) -> str | None:
        return self._author.encode(value)

    def decode(self, payload: str | None, expected_type: Any) -> Any:
        return self._author.decode(payload, expected_type)

    def failure(self, error: BaseException) -> ev.FailureDetails:
        return self._author.failure(error)

    def task_failed(self, message: str, failure: ev.FailureDetails) -> TaskFailedError:
        error = self._author.task_failed(message, failure)
        self._probe.failed(error, failure)
        return error

    def adopt(self, awaited: Any) -> Task[Any] | None:
        self.adopted = self._author.adopt(awaited)
        return self.adopted


def causes_of(error: BaseException | None) -> set[int]:
    """The identities (`id`) of an error and of all that stand behind it, as cause, context or member of a group."""
    found: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in found:
            continue
        found.add(id(each))
        todo += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            todo += each.exceptions
    return found


def _errors_of(task: Task[Any] | None) -> list[BaseException]:
    """The errors of a completed task and of all its parts."""
    errors: list[BaseException] = []
    todo: list[Task[Any]] = [] if task is None or not task.is_complete else [task]
    while todo:
        each = todo.pop()
        if each._exception is not None:
            errors.append(each._exception)
        if isinstance(each, CompositeTask):
            parts: Sequence[Task[Any]] = each.get_tasks()
            todo += [part for part in parts if part.is_complete]
    return errors


_CONFIRMING = frozenset((*ev.SCHEDULING_EVENTS, ev.EventSent))

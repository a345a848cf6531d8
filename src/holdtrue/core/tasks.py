"""The things an orchestrator waits for.

A task is complete when its event has been fed; code that waits on it is resumed by `replay`.  Tasks know
their composites and nothing of histories, stores or loops.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from .errors import HoldtrueError
from .events import FailureDetails

T = TypeVar("T")


class TaskFailedError(HoldtrueError):
    """An activity, a sub-orchestration or an execution failed; `details` tells type, message, stack and cause.

    Where the app knows the class of the original error, the error's `__cause__` is one of it.
    """

    def __init__(self, message: str, details: FailureDetails) -> None:
        super().__init__(message)
        self._details = details

    @property
    def details(self) -> FailureDetails:
        """The failure as it was recorded."""
        return self._details


class TaskCancelledError(HoldtrueError):
    """The result of a task was asked for that had been cancelled."""


class OrchestrationCancelledError(BaseException):
    """Thrown into an orchestrator that a client has asked to cancel, at the point where it waits.

    It may be caught to clean up; uncaught the instance ends Terminated and its failure says cancelled.
    It is no `Exception`, so that a broad `except Exception` does not swallow it.
    """


class Task(Generic[T]):
    """Something durable that will complete: the result of an activity, a child, a timer, an event.

    `await` it (or `yield` it) in an orchestrator.
    """

    __slots__ = ("_cancelled", "_complete", "_composites", "_exception", "_on_cancel", "_result", "expected_type")

    cancelled_error: ClassVar[type[TaskCancelledError]] = TaskCancelledError
    """What a cancelled task raises; a subclass where the author's side wants one."""

    def __init__(self, expected_type: Any = None) -> None:
        self._complete = False
        self._cancelled = False
        self._result: Any = None
        self._exception: BaseException | None = None
        self._composites: list[CompositeTask[Any]] | None = None
        self._on_cancel: Callable[[], None] | None = None
        self.expected_type = expected_type

    @property
    def is_complete(self) -> bool:
        """True once it has a result, has failed, or was cancelled."""
        return self._complete

    @property
    def is_failed(self) -> bool:
        """True once it has failed; a cancelled task has not failed."""
        return self._exception is not None and not self._cancelled

    @property
    def is_cancelled(self) -> bool:
        """True once `cancel` took effect."""
        return self._cancelled

    @property
    def result(self) -> T:
        """The same as `get_result()`."""
        return self.get_result()

    def get_result(self) -> T:
        """The result.

        Raises ValueError while the task is not complete, TaskFailedError if it failed, TaskCancelledError
        if it was cancelled.
        """
        if not self._complete:
            raise ValueError("The task has not completed.")
        if self._exception is not None:
            raise self._exception
        return self._result  # type: ignore[no-any-return]

    def get_exception(self) -> BaseException:
        """The error it failed with; ValueError if it did not fail."""
        if self._exception is None or self._cancelled:
            raise ValueError("The task has not failed.")
        return self._exception

    def cancel(self) -> bool:
        """Stop waiting for it: True if that took effect, False if it was complete already.

        A timer is taken back; an activity is asked to stop, and what it returns is not used; a child goes
        on by itself.  Waiting on a cancelled task raises TaskCancelledError.
        """
        if self._complete:
            return False
        if self._on_cancel is not None:
            self._on_cancel()
        self._cancelled = True
        self._finish(None, self.cancelled_error("The task was cancelled."))
        return True

    def succeed(self, result: T) -> None:
        """Complete with a result (for executors)."""
        self._finish(result, None)

    def fail(self, error: BaseException) -> None:
        """Complete with an error (for executors)."""
        self._finish(None, error)

    def _finish(self, result: Any, error: BaseException | None) -> None:
        if self._complete:
            return
        self._complete = True
        self._result = result
        self._exception = error
        self._on_cancel = None
        composites = self._composites
        if composites is not None:
            self._composites = None
            for composite in composites:
                composite.child_completed(self)

    def __await__(self) -> Generator["Task[T]", Any, T]:
        return (yield self)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        state = "cancelled" if self._cancelled else "complete" if self._complete else "waiting"
        return f"<{type(self).__name__} {state}>"


class CompositeTask(Task[T]):
    """A task over other tasks; a task named twice counts twice."""

    __slots__ = ("_tasks",)

    def __init__(self, tasks: Sequence[Task[Any]]) -> None:
        super().__init__()
        self._tasks = list(tasks)
        for task in self._tasks:
            if not isinstance(task, Task):
                raise TypeError(f"only durable tasks can be combined, not {type(task).__name__!r}")

    def get_tasks(self) -> list[Task[Any]]:
        """Its children, in the order given."""
        return self._tasks

    def child_completed(self, task: Task[Any]) -> None:
        """A child has completed (called by the child, once for each time it is named)."""
        raise NotImplementedError

    def _subscribe(self) -> None:
        for task in self._tasks:
            if task._complete:
                self.child_completed(task)
            elif not self._complete:
                if task._composites is None:
                    task._composites = [self]
                else:
                    task._composites.append(self)


class WhenAllTask(CompositeTask[list[T]]):
    """Completes when every child has; then gives all results in order, or raises the failure that came first."""

    __slots__ = ("_first_failure", "_left")

    def __init__(self, tasks: Sequence[Task[T]]) -> None:
        super().__init__(tasks)
        self._left = len(self._tasks)
        self._first_failure: BaseException | None = None
        if not self._tasks:
            self._finish([], None)
        self._subscribe()

    @property
    def pending_tasks(self) -> int:
        """How many children are not complete yet."""
        return self._left

    def get_completed_tasks(self) -> int:
        """How many children are complete."""
        return len(self._tasks) - self._left

    def child_completed(self, task: Task[Any]) -> None:
        self._left -= 1
        if task._exception is not None and self._first_failure is None:
            self._first_failure = task._exception
        if self._left == 0 and not self._complete:
            if self._first_failure is not None:
                self._finish(None, self._first_failure)
            else:
                self._finish([child._result for child in self._tasks], None)


class WhenAnyTask(CompositeTask[Task[T]]):
    """Completes with the child that completes first; the others go on."""

    __slots__ = ()

    def __init__(self, tasks: Sequence[Task[T]]) -> None:
        super().__init__(tasks)
        if not self._tasks:
            raise ValueError("when_any of no tasks would never complete: give at least one")
        self._subscribe()

    def child_completed(self, task: Task[Any]) -> None:
        self._finish(task, None)


def when_all(tasks: Iterable[Task[T]]) -> WhenAllTask[T]:
    """A task that waits for every one of `tasks`, then raises the failure that came first; of none: `[]`."""
    return WhenAllTask(list(tasks))


def when_any(tasks: Iterable[Task[T]]) -> WhenAnyTask[T]:
    """A task that gives the first of `tasks` to complete or fail; nothing is cancelled.

    Raises ValueError for no tasks.
    """
    return WhenAnyTask(list(tasks))

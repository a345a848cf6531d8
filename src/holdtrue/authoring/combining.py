"""`when_all` and `when_any` for authors: those of the core, which take groups of the SDK's as well."""

from collections.abc import Iterable
from typing import Any, TypeVar

from holdtrue.core.tasks import Task, WhenAllTask, WhenAnyTask

from . import sdk

T = TypeVar("T")


def when_all(tasks: Iterable[Task[T]]) -> WhenAllTask[T]:
    """A task that waits for every one of `tasks`, then raises the failure that came first; of none: `[]`.

    Groups of the SDK's may be among them.
    """
    return WhenAllTask([_ours(task) for task in tasks])


def when_any(tasks: Iterable[Task[T]]) -> WhenAnyTask[T]:
    """A task that gives the first of `tasks` to complete or fail; nothing is cancelled.

    Groups of the SDK's may be among them.  Raises ValueError for no tasks.
    """
    ours: list[Task[Any]] = [_ours(task) for task in tasks]
    if any(type(task) is sdk.Following for task in ours):
        return _MixedWhenAny(ours)
    return WhenAnyTask(ours)


def _ours(task: Any) -> Task[Any]:
    if isinstance(task, Task):
        return task
    adopted = sdk.adopt(task)
    if adopted is None:
        raise TypeError(
            f"only durable tasks can be combined, not {type(task).__module__}.{type(task).__qualname__}: "
            "start it with a method of the orchestration's context"
        )
    return adopted


class _MixedWhenAny(WhenAnyTask[Any]):
    """A when_any whose winner is the object that the caller gave, also where that is the SDK's."""

    __slots__ = ()

    def child_completed(self, task: Task[Any]) -> None:
        self._finish(task.group if type(task) is sdk.Following else task, None)

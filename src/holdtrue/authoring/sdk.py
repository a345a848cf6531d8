"""Lets programs that use objects of `durabletask.task` run here unchanged.

An orchestrator written for both imports `when_all`, `when_any`, `RetryPolicy` and the error classes from
there.  The SDK's groups are kept as they are: they hear of our tasks' ends through the `_parents` mapping
that they expect, and what a generator yields is answered with a task of ours that follows the group.

The SDK is optional and never imported from here: what is not in `sys.modules` cannot have made an object.
"""

import sys
from typing import Any

from holdtrue.core.events import FailureDetails
from holdtrue.core.retry import RetryPolicy
from holdtrue.core.tasks import Task, TaskCancelledError, TaskFailedError

_sdk: Any = None
_task_failed: type[TaskFailedError] = TaskFailedError


def attached() -> Any:
    """The SDK's task module if this program has imported it, else None; prepares our classes at first sight."""
    if _sdk is None and "durabletask.task" in sys.modules:
        _attach(sys.modules["durabletask.task"])
    return _sdk


def _attach(module: Any) -> None:
    global _sdk, _task_failed
    if not hasattr(module, "when_any"):
        return  # it is just being imported

    def init(self: Any, message: str, details: FailureDetails) -> None:
        # Past the SDK's constructor, which would make protobuf details of its own.
        Exception.__init__(self, message)
        self._details = details

    # Ours that are the SDK's too, so that `except durabletask.task.TaskFailedError` catches them.
    members = {"__module__": "holdtrue", "__init__": init}
    both = type("TaskFailedError", (TaskFailedError, module.TaskFailedError), members)
    cancelled = type("TaskCancelledError", (TaskCancelledError, module.TaskCancelledError), {"__module__": "holdtrue"})
    _task_failed = both
    Task.cancelled_error = cancelled
    _sdk = module


def task_failed_error() -> type[TaskFailedError]:
    """The class of error to raise for a failed task."""
    attached()
    return _task_failed


def retry_policy(policy: Any) -> RetryPolicy | None:
    """Our retry policy for ours or the SDK's; raises TypeError for anything else."""
    if policy is None or isinstance(policy, RetryPolicy):
        return policy
    sdk = attached()
    if sdk is not None and isinstance(policy, sdk.RetryPolicy):
        return RetryPolicy(
            first_retry_interval=policy.first_retry_interval,
            max_number_of_attempts=policy.max_number_of_attempts,
            backoff_coefficient=policy.backoff_coefficient,
            max_retry_interval=policy.max_retry_interval,
            retry_timeout=policy.retry_timeout,
        )
    raise TypeError(f"retry_policy takes a RetryPolicy, not {type(policy).__name__}")


def adopt(awaited: Any) -> Task[Any] | None:
    """A task of ours that follows a group of the SDK's; None for anything else.

    Raises ValueError for a `when_any` of nothing, as ours does.
    """
    sdk = attached()
    if sdk is None or not isinstance(awaited, sdk.CompositeTask):
        return None
    _settle_empty(awaited, sdk)
    task = Following(awaited)
    if awaited.is_complete:
        task.on_child_completed(awaited)
    else:
        awaited._parents[id(task)] = task
    return task


class Following(Task[Any]):
    """Completes as the SDK's group does that it follows."""

    __slots__ = ("group",)

    def __init__(self, group: Any) -> None:
        super().__init__()
        self.group = group

    def on_child_completed(self, group: Any) -> None:
        """What the SDK calls at a group's end."""
        if group.is_failed:
            self.fail(group.get_exception())
        else:
            self.succeed(group.get_result())


def _settle_empty(group: Any, sdk: Any) -> None:
    """In the SDK an empty group never completes: here `when_all` of nothing is `[]`, of any depth."""
    for child in group.get_tasks():
        if isinstance(child, sdk.CompositeTask) and not child.is_complete:
            _settle_empty(child, sdk)
    if not group.get_tasks() and not group.is_complete:
        if isinstance(group, sdk.WhenAnyTask):
            raise ValueError("when_any of no tasks would never complete: give at least one")
        group._is_complete = True
        group._result = []
        group._notify_parent()


class _Parents:
    """What a group of the SDK's sees as `_parents` of a task of ours: who enters hears of the task's end."""

    __slots__ = ("_task",)

    def __init__(self, task: Task[Any]) -> None:
        self._task = task

    def __setitem__(self, key: int, group: Any) -> None:
        observer: Any = _Observer(group)
        if self._task._composites is None:
            self._task._composites = [observer]
        else:
            self._task._composites.append(observer)

    def pop(self, key: int, default: Any = None) -> Any:
        observers: Any = self._task._composites or ()
        for index, observer in enumerate(observers):
            if isinstance(observer, _Observer) and id(observer.group) == key:
                del observers[index]
                return observer.group
        return default


class _Observer:
    """Tells a group of the SDK's that a task of ours has completed."""

    __slots__ = ("group",)

    def __init__(self, group: Any) -> None:
        self.group = group

    def child_completed(self, task: Task[Any]) -> None:
        group = self.group
        # The SDK's when_all lets a cancelled child's error out of `cancel()`; here it is the group's outcome.
        if task.is_cancelled and getattr(group, "_pending_exception", group) is None:
            group._pending_exception = task._exception
        group.on_child_completed(task)


setattr(Task, "_parents", property(_Parents))  # noqa: B010  the SDK's affair, so it stands here and not in core

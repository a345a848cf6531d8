"""What goes out of an episode, made from its events: work items of activities, and messages.

A rewind makes the same again for what is outstanding, and clients and stores make those that come from outside.
"""

import msgspec

from . import events as ev
from .actions import ActivityOptions, ScheduleTask
from .messages import CANCEL_EVENT, DEADLINE_EVENT, START_LIMIT_EVENT, ActivityTask, OutboundMessage, Start
from .projection import Projection, Status


def options_of(action: ScheduleTask, failed: dict[int, int]) -> ActivityOptions | None:
    """The options of an activity's work item; `failed` is the execution's (see `ExecutionState`).

    An attempt after a failed one knows the first: by the author's word, or (a dialect's) by the same task id.
    """
    first = failed.get(action.id if action.retries is None else action.retries)
    if first is None:
        return action.options
    return msgspec.structs.replace(action.options or ActivityOptions(), first=first)


def work_item(
    projection: Projection, scheduled: ev.TaskScheduled, ordinal: int, options: ActivityOptions | None
) -> ActivityTask:
    """The work item of an activity that the history's event of this ordinal schedules."""
    return ActivityTask(
        instance_id=projection.instance_id,
        execution_id=projection.execution_id,
        task_id=scheduled.event_id,
        scheduled=ordinal,
        name=scheduled.name,
        input=scheduled.input,
        version=scheduled.version,
        tags=scheduled.tags,
        options=options,
    )


def child_start(
    projection: Projection,
    created: ev.SubOrchestrationInstanceCreated,
    ordinal: int,
    *,
    execution_id: str,
    dialect: str,
) -> Start:
    """The start of the child that the history's event of this ordinal asks for."""
    started = ev.ExecutionStarted(
        timestamp=created.timestamp,
        instance_id=created.instance_id,
        execution_id=execution_id,
        name=created.name,
        input=created.input,
        version=created.version,
        tags=created.tags,
        parent=ev.ParentInstance(
            instance_id=projection.instance_id,
            execution_id=projection.execution_id,
            task_id=created.event_id,
            scheduled=ordinal,
            name=projection.name,
            version=projection.version,
        ),
    )
    return Start(started=started, start_id=execution_id, dialect=dialect)


def timer_message(projection: Projection, created: ev.TimerCreated, ordinal: int) -> OutboundMessage:
    """The delayed message that fires a timer which the history's event of this ordinal sets."""
    fire_at = created.fire_at
    return OutboundMessage(
        instance_id=projection.instance_id,
        execution_id=projection.execution_id,
        scheduled=ordinal,
        due=fire_at,
        event=ev.TimerFired(timestamp=fire_at, timer_id=created.event_id, fire_at=fire_at),
    )


def start_limit_message(task: ActivityTask, limit: float, now: ev.Ticks) -> OutboundMessage:
    """The delayed message that tells when an activity scheduled `now` has waited `limit` seconds for a worker."""
    due = min(now + int(limit * ev.TICKS_PER_SECOND), ev.MAX_TICKS)
    return OutboundMessage(
        instance_id=task.instance_id,
        execution_id=task.execution_id,
        scheduled=task.scheduled,
        due=due,
        event=ev.EventRaised(timestamp=due, name=START_LIMIT_EVENT, input=repr(limit)),
    )


def is_late_start(event: ev.TaskFailed) -> bool:
    """True for the failure of an activity that waited too long for a worker."""
    properties = None if event.failure is None else event.failure.properties
    return properties is not None and properties.get("timeout") == "schedule_to_start"


def answer(parent: ev.ParentInstance, child: Projection, now: ev.Ticks) -> OutboundMessage:
    """The message that tells a parent how its child ended."""
    event: ev.AnyEvent
    if child.status is Status.COMPLETED:
        event = ev.SubOrchestrationInstanceCompleted(
            timestamp=now, task_scheduled_id=parent.task_id, result=child.output
        )
    else:
        failure = child.failure or ev.FailureDetails(
            message=f"sub-orchestration {child.instance_id!r} was {child.status.name.lower()}",
            error_type="holdtrue.SubOrchestrationTerminatedError",
        )
        event = ev.SubOrchestrationInstanceFailed(timestamp=now, task_scheduled_id=parent.task_id, failure=failure)
    return OutboundMessage(
        instance_id=parent.instance_id,
        execution_id=parent.execution_id,
        scheduled=parent.scheduled,
        event=event,
        sender=child.instance_id,
    )


def cancel_message(instance_id: str, reason: str, now: ev.Ticks) -> OutboundMessage:
    """Ask an orchestration to cancel itself."""
    return OutboundMessage(
        instance_id=instance_id, event=ev.EventRaised(timestamp=now, name=CANCEL_EVENT, input=reason)
    )


def deadline_message(instance_id: str, deadline: ev.Ticks) -> OutboundMessage:
    """The message that ends an execution at its deadline."""
    return OutboundMessage(
        instance_id=instance_id,
        event=ev.EventRaised(timestamp=deadline, name=DEADLINE_EVENT, input=str(deadline)),
        due=deadline,
    )

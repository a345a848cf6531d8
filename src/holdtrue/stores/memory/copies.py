"""Instances as wholes: read with all that belongs to them, and put there as they were read elsewhere."""

from collections.abc import Sequence

from holdtrue.core.events import encode_events
from holdtrue.core.messages import InboundMessage, OutboundMessage
from holdtrue.core.projection import TERMINAL
from holdtrue.stores.decisions import AT_REST, ends
from holdtrue.stores.protocol import ActivityCopy, InstanceCopy, queue_name

from .hub import Activity, Delayed, Instance, Moment
from .reading import record


def read(instance: Instance) -> InstanceCopy:
    """An instance with all that belongs to it."""
    waiting = [(message, None) for message in instance.inbox.values()]
    later = [(delayed.message, delayed.due) for delayed in instance.delayed.values()]
    work = sorted(instance.activities.values(), key=lambda one: (one.task.execution_id, one.task.scheduled))
    return InstanceCopy(
        record=record(instance),
        history=list(instance.history),
        messages=[
            OutboundMessage(
                instance_id=instance.projection.instance_id,
                event=message.event,  # type: ignore[arg-type]
                execution_id=message.execution_id,
                scheduled=message.scheduled,
                due=due,
            )
            for message, due in (*waiting, *later)
        ],
        activities=[
            ActivityCopy(
                task=one.task,
                at=one.at,
                run=one.run,
                progress=one.progress,
                details=one.details,
                heartbeat_at=one.heartbeat,
            )
            for one in work
        ],
        wake=instance.woken,
    )


def put(moment: Moment, copies: Sequence[InstanceCopy], *, replace: bool, run: bool) -> list[str]:
    """Put instances there; the ids that stand in the way, and then nothing is done."""
    hub = moment.hub
    ids = [copy.record.projection.instance_id for copy in copies]
    standing = [instance_id for instance_id in ids if hub.of(instance_id) is not None]
    if standing and not replace:
        return standing
    for instance_id in standing:
        old = hub.of(instance_id)
        assert old is not None
        hub.remove(old)
    for copy in copies:
        _put(moment, copy, run)
    moment.changed += ids
    moment.work = moment.work or run
    return []


def _put(moment: Moment, copy: InstanceCopy, run: bool) -> None:
    hub, now, found = moment.hub, moment.now, copy.record
    unfinished = found.projection.status not in TERMINAL
    lock = AT_REST if unfinished and not run else 0
    hub.counts.instance += 1
    instance = Instance(
        key=hub.counts.instance,
        projection=found.projection.copy(),
        started=found.started,
        start_id=found.start_id,
        dialect=found.dialect,
        deadline=found.deadline,
        condition=found.condition,
        begins=None if copy.history else found.started.scheduled_start,
        history=list(copy.history),
        size=len(encode_events(copy.history)) if copy.history else 0,
        lock=lock,
        woken=copy.wake,
        inbox={},
        delayed={},
        activities={},
    )
    hub.add(instance)
    for message in copy.messages:
        hub.counts.message += 1
        inbound = InboundMessage(
            event=message.event,
            key=hub.counts.message,
            execution_id=message.execution_id,
            scheduled=message.scheduled,
        )
        if message.due is not None and message.due > now:
            hub.delay(instance, Delayed(message.due, inbound))
        else:
            instance.inbox[hub.counts.message] = inbound
    for one in copy.activities:
        _put_activity(moment, instance, one, lock)
    begun = bool(copy.history)
    arrived = instance.inbox.values()
    if unfinished and any(ends(message.event, begun=begun, deadline=found.deadline) for message in arrived):
        hub.set_ending(instance, True)
    if unfinished and run and not (not begun and not arrived and instance.begins and instance.begins > now):
        hub.release(instance)


def _put_activity(moment: Moment, instance: Instance, one: ActivityCopy, lock: int) -> None:
    hub, task = moment.hub, one.task
    hub.counts.activity += 1
    activity = Activity(
        key=hub.counts.activity,
        instance=instance.key,
        at=one.at,
        task=task,
        queue=queue_name(task.name, None if task.options is None else task.options.tag),
        lock=lock,
        run=one.run,
        progress=one.progress,
        details=one.details,
        heartbeat=one.heartbeat_at,
    )
    hub.activities[activity.key] = instance.activities[task.execution_id, task.scheduled] = activity
    if not lock:
        hub.enqueue(activity, again=True)

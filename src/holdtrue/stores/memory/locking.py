"""Locks on instances and work items: taking, giving back, parking; and the hosts that take them."""

from collections.abc import Sequence
from itertools import islice

import msgspec

from holdtrue.core.messages import WorkRef
from holdtrue.core.projection import TERMINAL, Condition
from holdtrue.stores.decisions import ends, first_message, share
from holdtrue.stores.protocol import Lease, LockedActivity, LockedInstance

from .hub import LOCK_BITS, Activity, Instance, Member, Moment
from .reading import record

# -- instances ---------------------------------------------------------------------------------------------


def lock(moment: Moment, limit: int, names: Sequence[str], turn: int) -> list[LockedInstance]:
    """Take instances that have work, of these orchestrations, in turn from one of them; then those of others that
    a message ends without their code.
    """
    hub, host = moment.hub, moment.host
    if not host or limit <= 0:
        return []

    def find(name: str, most: int) -> list[Instance]:
        return list(islice((one for one in hub.ready.get(name, {}).values() if host not in one.tried), most))

    found = share(limit, names, turn, find)
    if hub.ending and len(found) < limit:
        found += _to_be_ended(moment, limit - len(found), found)
    locked = []
    for instance in found:
        hub.withdraw(instance)
        instance.lock = moment.token()
        for mail in hub.mail.values():
            mail.pop(instance.key, None)
        messages = list(instance.inbox.values())
        if not instance.history:
            messages.insert(0, first_message(instance.started))
        locked.append(
            LockedInstance(lease=Lease(instance.key, instance.lock), record=record(instance), messages=messages)
        )
    return locked


def _to_be_ended(moment: Moment, limit: int, taken: list[Instance]) -> list[Instance]:
    """Instances that a message ends which any host can handle: nobody alive may have their code."""
    hub, keys = moment.hub, {instance.key for instance in taken}
    found = []
    for instance in list(hub.ending.values()):
        if instance.lock or not instance.ready or instance.key in keys or moment.host in instance.tried:
            continue
        if has_end(instance):
            found.append(instance)
        else:
            hub.set_ending(instance, False)
    return found[:limit]


def has_end(instance: Instance) -> bool:
    """Whether a message waits that ends an instance without its code."""
    begun, deadline = bool(instance.history), instance.deadline
    return any(ends(message.event, begun=begun, deadline=deadline) for message in instance.inbox.values())


def held(moment: Moment, lease: Lease) -> Instance | None:
    """The instance that is held under a lease; None where it is not (any more)."""
    instance = moment.hub.instances.get(lease.key)
    return instance if instance is not None and lease.token and instance.lock == lease.token else None


def put_back(moment: Moment, leases: Sequence[Lease]) -> None:
    """Give instances back."""
    for lease in leases:
        instance = held(moment, lease)
        if instance is not None:
            moment.hub.release(instance)
    moment.work = True


def park(moment: Moment, lease: Lease, condition: Condition) -> None:
    """Hold an instance.

    A host that has its code and has not tried it yet gets it; one that got a terminate or a deadline
    meanwhile is for any host.
    """
    hub, instance = moment.hub, held(moment, lease)
    if instance is None:
        return
    name = instance.projection.name
    serving = [member.number for member in hub.members.values() if name in member.orchestrators]
    tried = tuple(host for host in serving if host in instance.tried or host == moment.host)
    instance.condition = condition
    moment.changed.append(instance.projection.instance_id)
    instance.lock = 0
    if has_end(instance):
        instance.tried = ()
    else:
        instance.tried = tried if moment.host in tried else (*tried, moment.host)
        if not set(serving).difference(instance.tried):
            return
    hub.offer(instance)
    moment.work = True


# -- work items --------------------------------------------------------------------------------------------


def lock_activities(moment: Moment, limit: int, queues: Sequence[str], turn: int) -> list[LockedActivity]:
    """Take work items of these queues, in turn from one of them."""
    hub = moment.hub
    if not moment.host or limit <= 0:
        return []

    def find(queue: str, most: int) -> list[Activity]:
        line = hub.lines.get(queue)
        return [] if line is None else line.first(most)

    locked = []
    for activity in share(limit, queues, turn, find):
        hub.lines[activity.queue].remove(activity)
        activity.lock = moment.token()
        activity.run += 1
        locked.append(locked_activity(activity))
    return locked


def locked_activity(activity: Activity) -> LockedActivity:
    """A work item as it is handed to its host."""
    return LockedActivity(
        ref=WorkRef(activity.key, activity.lock),
        instance=activity.instance,
        task=activity.task,
        run=activity.run,
        details=activity.details,
        scheduled_at=activity.at,
    )


def put_back_activities(moment: Moment, refs: Sequence[WorkRef]) -> None:
    """Give work items back."""
    for ref in refs:
        activity = moment.hub.held_activity(ref.key, ref.token)
        if activity is not None:
            activity.lock = 0
            moment.hub.enqueue(activity, again=True)
    moment.work = True


def report(moment: Moment, ref: WorkRef, progress: str | None, details: str | None) -> bool:
    """A sign of life of a running activity; false for one that is not held any more."""
    activity = moment.hub.held_activity(ref.key, ref.token)
    if activity is None or not moment.host:
        return False
    activity.heartbeat = moment.now
    if progress is not None:
        activity.progress = progress
    if details is not None:
        activity.details = details
    return True


# -- hosts -------------------------------------------------------------------------------------------------


def join(moment: Moment, member: Member) -> Member:
    """Take part, or come with other code; what is held is offered again.  Number 0 gets a new one."""
    hub = moment.hub
    if not member.number:
        hub.counts.host += 1
        member = msgspec.structs.replace(member, number=hub.counts.host)
    elif (before := hub.members.get(member.number)) is not None:
        member.renewals = before.renewals + 1
    hub.members[member.number] = member
    for instance in hub.instances.values():
        projection = instance.projection
        if instance.condition is None or instance.lock or projection.status in TERMINAL:
            continue
        if projection.name in member.orchestrators:
            instance.tried = tuple(host for host in instance.tried if host != member.number)
            hub.offer(instance)
    moment.work = True
    return member


def remove(moment: Moment, number: int) -> bool:
    """A host leaves, or was found dead: all that it held is free again.  False for one already removed."""
    hub = moment.hub
    if hub.members.pop(number, None) is None:
        return False
    hub.mail.pop(number, None)
    for instance in hub.instances.values():
        if instance.lock >> LOCK_BITS == number:
            hub.release(instance)
        for activity in instance.activities.values():
            if activity.lock >> LOCK_BITS == number:
                activity.lock = 0
                hub.enqueue(activity, again=True)
    moment.work = True
    return True

"""Creates instances: judges a start against what stands under its id, replaces, takes the lock along."""

from holdtrue.core.messages import Start
from holdtrue.core.projection import TERMINAL, initial
from holdtrue.stores.decisions import first_message, messages_of_start, new_record, not_started, replaced_answer
from holdtrue.stores.protocol import CreateOutcome, CreateRequest, CreateResult, Lease, LockedInstance

from . import inbox
from .hub import Instance, Moment


def create(moment: Moment, request: CreateRequest) -> CreateOutcome:
    """Create an instance, unless what stands under its id is in the way."""
    refused = refusal(moment, request)
    if refused is not None:
        return refused
    started = request.start.started
    old = moment.hub.of(started.instance_id)
    if old is not None:
        replace(moment, old)
    return CreateOutcome(
        result=CreateResult.CREATED if old is None else CreateResult.REPLACED,
        instance_id=started.instance_id,
        execution_id=started.execution_id,
        status=None if old is None else old.projection.status,
        taken=insert(moment, request.start, request.take),
    )


def refusal(moment: Moment, request: CreateRequest) -> CreateOutcome | None:
    """What stands in the way of a start (the same one was accepted before, or the status); None: nothing."""
    standing = moment.hub.of(request.start.started.instance_id)
    if standing is None:
        return None
    if standing.start_id == request.start.start_id:
        result = CreateResult.ALREADY
    elif standing.projection.status not in request.replaceable:
        result = CreateResult.REFUSED
    else:
        return None
    return not_started(result, standing.projection, standing.condition)


def replace(moment: Moment, old: Instance) -> None:
    """Make place for a new instance: the old one goes with all that belongs to it; its parent gets an answer."""
    projection = old.projection
    if projection.status not in TERMINAL:
        answer = replaced_answer(projection, moment.now)
        if answer is not None:
            inbox.post_unseen(moment, answer)
        moment.changed.append(projection.instance_id)
    moment.hub.remove(old)


def insert(moment: Moment, start: Start, take: bool) -> LockedInstance | None:
    """Put an instance there, whose id is free; the lock of it where it is taken along."""
    hub, now, started = moment.hub, moment.now, start.started
    begins = started.scheduled_start
    later = begins is not None and begins > now
    take = take and moment.host > 0 and not later
    hub.counts.instance += 1
    instance = Instance(
        key=hub.counts.instance,
        projection=initial(started),
        started=started,
        start_id=start.start_id,
        dialect=start.dialect,
        deadline=start.deadline,
        begins=begins,
        history=[],
        lock=moment.token() if take else 0,
        inbox={},
        delayed={},
        activities={},
    )
    hub.add(instance)
    taken = None
    if take:
        taken = LockedInstance(
            lease=Lease(instance.key, instance.lock), record=new_record(start), messages=[first_message(started)]
        )
    elif not later:
        hub.offer(instance)
        moment.work = True
    for message in messages_of_start(start, now):
        delivery = inbox.put(moment, instance, message)
        if taken is not None and delivery is not None:
            taken.messages.append(delivery.message)
    return taken

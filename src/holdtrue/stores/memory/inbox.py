"""Brings messages to instances: keeps them, and sees to it that whoever is to handle them learns of it."""

from collections.abc import Collection, Sequence

from holdtrue.core.events import ExecutionRewound, ExecutionTerminated, Ticks
from holdtrue.core.messages import DeadLetter, InboundMessage, OutboundMessage
from holdtrue.core.projection import TERMINAL, Status, rewinding
from holdtrue.stores.decisions import ends, is_missed, meant, recursive_end
from holdtrue.stores.protocol import (
    ActivityResult,
    CompleteOutcome,
    Delivery,
    Due,
    SendOutcome,
    SendResult,
    StoredDeadLetter,
)

from .hub import LOCK_BITS, Delayed, Instance, Moment
from .reading import children


def post(moment: Moment, message: OutboundMessage) -> SendOutcome:
    """Keep a message for an instance that stands and has not ended."""
    hub = moment.hub
    target = hub.of(message.instance_id)
    if target is None:
        return SendOutcome(result=SendResult.NOT_FOUND)
    parent = target.projection.parent
    meant_so = meant(message, None if parent is None else parent.instance_id)
    if meant_so is None:
        return SendOutcome(result=SendResult.ENDED)
    message = meant_so
    if message.execution_id is not None and message.execution_id != target.projection.execution_id:
        # An answer to an earlier execution: it would be dropped when it is handled.
        return SendOutcome(result=SendResult.ENDED)
    status = target.projection.status
    if status in TERMINAL:
        end = recursive_end((message.event,))
        if end is not None:
            end_below(moment, message.instance_id, end)
        if type(message.event) is not ExecutionRewound or status is not Status.FAILED:
            return SendOutcome(result=SendResult.ENDED)
        target.projection = rewinding(target.projection, moment.now)
        moment.changed.append(message.instance_id)
    return SendOutcome(result=SendResult.ACCEPTED, delivery=put(moment, target, message))


def post_unseen(moment: Moment, message: OutboundMessage) -> SendResult:
    """The same where the caller is not given what is for its own instances: it fetches that."""
    outcome = post(moment, message)
    if outcome.delivery is not None and outcome.delivery.message.key is not None:
        instance = moment.hub.instances[outcome.delivery.instance]
        moment.hub.send_mail(moment.host, instance, outcome.delivery.message.key)
        moment.own = True
    return outcome.result


def end_below(moment: Moment, instance_id: str, end: ExecutionTerminated, told: Collection[str] = ()) -> None:
    """A recursive terminate goes on from an instance that has ended to those under it, but for who was told already.

    It passes through those that have ended too: whatever they have started is there.
    """
    seen = {instance_id, *told}
    above = [instance_id]
    while above:
        for child in children(moment.hub, above.pop()):
            name = child.projection.instance_id
            if name in seen:
                continue
            seen.add(name)
            if child.projection.status in TERMINAL:
                above.append(name)
            else:
                post_unseen(moment, OutboundMessage(instance_id=name, event=end, sender=instance_id))
                moment.own = True  # nobody may hold it, and this host is not told otherwise


def put(moment: Moment, target: Instance, message: OutboundMessage) -> Delivery | None:
    """Keep a message for an instance; what this host is to be given at once."""
    counts = moment.hub.counts
    counts.message += 1
    inbound = InboundMessage(
        event=message.event, key=counts.message, execution_id=message.execution_id, scheduled=message.scheduled
    )
    due = message.due
    if due is not None and due > moment.now:
        moment.hub.delay(target, Delayed(due, inbound))
        moment.work = True  # hosts are to look at the clock
        return None
    return arrive(moment, target, inbound, moment.now)


def arrive(moment: Moment, target: Instance, message: InboundMessage, now: Ticks) -> Delivery | None:
    """A message stands in the line of its instance from now on; what this host is to be given at once."""
    hub, key = moment.hub, message.key
    assert key is not None
    target.inbox[key] = message
    end = ends(message.event, begun=bool(target.history))
    if end:
        # Also where somebody holds it, who may go before handling this.
        hub.set_ending(target, True)
    lock = target.lock
    if lock:
        if lock >> LOCK_BITS == moment.host:
            return Delivery(target.key, message)
        hub.send_mail(lock >> LOCK_BITS, target, key)
        moment.work = True
        return None
    if end:
        target.tried = ()
        hub.offer(target)
    elif not _rests(target, now):
        hub.offer(target)
    else:
        return None
    moment.work = True
    return None


def _rests(target: Instance, now: Ticks) -> bool:
    """Whether it takes no step over an ordinary message: it is held, or its time to begin has not come."""
    if target.condition is not None:
        return True
    return not target.history and target.begins is not None and target.begins > now


def post_all(moment: Moment, messages: Sequence[OutboundMessage]) -> tuple[list[Delivery], list[DeadLetter]]:
    """Messages of a commit: what is for this host, and what nobody can take."""
    deliveries: list[Delivery] = []
    dead: list[DeadLetter] = []
    for message in messages:
        outcome = post(moment, message)
        if outcome.delivery is not None:
            deliveries.append(outcome.delivery)
        elif outcome.result is SendResult.NOT_FOUND and is_missed(message):
            letter = DeadLetter(
                instance_id=message.instance_id, reason="there is no instance of this id", message=message
            )
            dead.append(letter)
            bury(moment, letter)
    return deliveries, dead


def bury(moment: Moment, letter: DeadLetter) -> None:
    """Keep a dead letter."""
    counts = moment.hub.counts
    counts.letter += 1
    moment.hub.letters[counts.letter] = StoredDeadLetter(number=counts.letter, at=moment.now, letter=letter)


def resend(moment: Moment, numbers: Sequence[int]) -> int:
    """Send dead letters again; how many were taken (the others stay)."""
    letters, sent = moment.hub.letters, 0
    for number in numbers:
        stored = letters.get(number)
        if stored is not None and post_unseen(moment, stored.letter.message) is SendResult.ACCEPTED:
            del letters[number]
            sent += 1
    return sent


def complete(moment: Moment, result: ActivityResult) -> CompleteOutcome:
    """The result of a work item whose instance this host does not hold."""
    hub = moment.hub
    activity = hub.held_activity(result.ref.key, result.ref.token)
    if activity is None or not moment.host:
        return CompleteOutcome(accepted=False)
    target, task = hub.instances[activity.instance], activity.task
    hub.drop(target, activity)
    projection = target.projection
    if projection.status in TERMINAL or projection.execution_id != task.execution_id:
        return CompleteOutcome(accepted=True)
    message = OutboundMessage(
        instance_id="", event=result.event, execution_id=task.execution_id, scheduled=task.scheduled
    )
    return CompleteOutcome(accepted=True, delivery=put(moment, target, message))


def fire(moment: Moment, now: Ticks) -> Due:
    """Delayed messages whose time has come stand in the line from now on, at its end."""
    hub = moment.hub
    deliveries: list[Delivery] = []
    ready = False
    while (following := hub.next_due()) is not None and following[0] <= now:
        _, target, key = following
        old = hub.forget(target, key).message
        hub.counts.message += 1
        message = InboundMessage(
            event=old.event, key=hub.counts.message, execution_id=old.execution_id, scheduled=old.scheduled
        )
        delivery = arrive(moment, target, message, now)
        if delivery is not None:
            deliveries.append(delivery)
        if not target.lock:
            ready = ready or (target.ready and target.condition is None) or ends(message.event, begun=True)
    return Due(deliveries=deliveries, ready=ready, next_due=None if following is None else following[0])


def fetch(moment: Moment) -> list[Delivery]:
    """What came from elsewhere for instances that this host holds."""
    hub = moment.hub
    found: list[Delivery] = []
    for key, messages in hub.mail.pop(moment.host, {}).items():
        instance = hub.instances.get(key)
        if instance is not None and instance.lock >> LOCK_BITS == moment.host:
            inbox = instance.inbox
            found += [Delivery(key, inbox[message]) for message in messages if message in inbox]
    return found

"""Brings messages to instances: stores them, and sees to it that whoever is to handle them learns of it."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from holdtrue.core.events import ExecutionRewound, ExecutionTerminated, Ticks
from holdtrue.core.messages import DeadLetter, InboundMessage, OutboundMessage
from holdtrue.core.projection import TERMINAL, Status, rewinding
from holdtrue.stores.decisions import ends, is_missed, meant, recursive_end
from holdtrue.stores.protocol import ActivityResult, CompleteOutcome, Delivery, Due, SendOutcome, SendResult

from .rows import ID, STARTED, encode, inbound, message_row, record, unreadable
from .statements import sql
from .transaction import LOCK_BITS, PLACE_BITS, Transaction, tokens_of

FIRED_AT_ONCE = 2_000
"""Most delayed messages that one look at the clock takes."""

_ENDED = frozenset(int(status) for status in TERMINAL)
_PENDING = int(Status.PENDING)
_FAILED = int(Status.FAILED)


class _Target(NamedTuple):
    """The state of an instance, as the statement `target` gives it."""

    key: int
    lock: int | None
    status: int
    ready: int | None
    held: int
    scheduled: int | None
    length: int
    execution: str
    parent: str | None


def apply_send(transaction: Transaction, messages: list[OutboundMessage]) -> list[SendOutcome]:
    """Put messages into inboxes."""
    return [post(transaction, message) for message in messages]


def post(transaction: Transaction, message: OutboundMessage) -> SendOutcome:
    """Store a message for an instance that stands and has not ended."""
    row = transaction.one(sql.target, message.instance_id)
    if row is None:
        return SendOutcome(result=SendResult.NOT_FOUND)
    target = _Target._make(row)
    meant_so = meant(message, target.parent)
    if meant_so is None:
        return SendOutcome(result=SendResult.ENDED)
    message = meant_so
    if message.execution_id is not None and message.execution_id != target.execution:
        # An answer to an earlier execution: it would be dropped when it is handled.
        return SendOutcome(result=SendResult.ENDED)
    if target.status in _ENDED:
        end = recursive_end((message.event,))
        if end is not None:
            end_below(transaction, message.instance_id, end)
        if type(message.event) is not ExecutionRewound or target.status != _FAILED:
            return SendOutcome(result=SendResult.ENDED)
        _rewind(transaction, target.key)
        target = _Target._make(transaction.one(sql.target_by_key, target.key))
    return SendOutcome(result=SendResult.ACCEPTED, delivery=_put(transaction, target, message))


def _rewind(transaction: Transaction, key: int) -> None:
    """A failed instance is Pending from now on: its rewind was asked for."""
    row = transaction.one(sql.record_by_key, key)
    started = row[STARTED] or transaction.one(sql.large, key)[0]
    projection = rewinding(record(row, started).projection, transaction.now)
    transaction.execute(sql.rewinding, (projection.last_updated_at, key, int(projection.status)))
    transaction.changed.append(row[ID])


def post_unseen(transaction: Transaction, message: OutboundMessage) -> SendResult:
    """The same where the caller is not given what is for its own instances: it fetches that."""
    outcome = post(transaction, message)
    if outcome.delivery is not None and outcome.delivery.message.key is not None:
        transaction.send_mail(transaction.host << LOCK_BITS, outcome.delivery.instance, outcome.delivery.message.key)
        transaction.own = True
    return outcome.result


def end_below(transaction: Transaction, instance_id: str, end: ExecutionTerminated, told: Collection[str] = ()) -> None:
    """A recursive terminate goes on from an instance that has ended to those under it, but for who was told already.

    It passes through those that have ended too: whatever they have started is there.
    """
    seen = {instance_id, *told}
    above = [instance_id]
    while above:
        for child, has_ended in transaction.execute(sql.children_to_end, (above.pop(),)).fetchall():
            if child in seen:
                continue
            seen.add(child)
            if has_ended:
                above.append(child)
            else:
                post_unseen(transaction, OutboundMessage(instance_id=child, event=end, sender=instance_id))
                transaction.own = True  # nobody may hold it, and this host is not told otherwise


def _put(transaction: Transaction, target: _Target, message: OutboundMessage) -> Delivery | None:
    now = transaction.now
    key = transaction.next_message()
    due: Ticks | None = message.due
    if due is not None and due <= now:
        due = None
    transaction.execute(sql.insert_message, message_row(target.key, key, message, due))
    if due is not None:
        return None
    end = ends(message.event, begun=target.length > 0)
    if end:
        # Also where somebody holds it, who may go before handling this.
        transaction.execute(sql.ending, (1, target.key))
    lock = target.lock
    if lock is not None:
        if lock >> LOCK_BITS != transaction.host:
            transaction.send_mail(lock, target.key, key)
            return None
        return Delivery(
            target.key,
            InboundMessage(
                event=message.event, key=key, execution_id=message.execution_id, scheduled=message.scheduled
            ),
        )
    if target.ready is None:
        waits = target.held or (
            target.status == _PENDING and target.scheduled is not None and target.scheduled > now and not target.length
        )
        if end:
            transaction.execute(sql.offer_to_all, (now, target.key))
            transaction.work = True
        elif not waits:
            transaction.execute(sql.make_ready, (now, target.key))
            transaction.work = True
    else:
        if target.held and end:
            transaction.execute(sql.offer_to_all, (now, target.key))
        transaction.work = True
    return None


def post_all(transaction: Transaction, messages: Sequence[OutboundMessage]) -> tuple[list[Delivery], list[DeadLetter]]:
    """Messages of a commit: what is for this host, and what nobody can take."""
    deliveries: list[Delivery] = []
    dead: list[DeadLetter] = []
    for message in messages:
        outcome = post(transaction, message)
        if outcome.delivery is not None:
            deliveries.append(outcome.delivery)
        elif outcome.result is SendResult.NOT_FOUND and is_missed(message):
            dead.append(
                DeadLetter(instance_id=message.instance_id, reason="there is no instance of this id", message=message)
            )
    for letter in dead:
        bury(transaction, letter)
    return deliveries, dead


def bury(transaction: Transaction, letter: DeadLetter) -> None:
    """Keep a dead letter."""
    transaction.execute(sql.insert_dead_letter, (transaction.now, encode(letter)))


def _readable(
    transaction: Transaction, instance: int, row: tuple[int, str | None, int | None, bytes]
) -> InboundMessage | None:
    """A message from its row; one that cannot be read becomes a dead letter, so that it holds nobody up."""
    try:
        return inbound([row])[0]
    except msgspec.DecodeError as error:
        name = transaction.execute(sql.record_by_key, (instance,)).fetchone()[ID]
        bury(transaction, unreadable(name, row[3], str(error)))
        return None


def apply_complete(transaction: Transaction, results: list[ActivityResult]) -> list[CompleteOutcome]:
    """Results of work items whose instance this host does not hold."""
    outcomes = []
    for result in results:
        key, token = result.ref.key, result.ref.token
        row = transaction.one(sql.held_activity, key, token)
        if row is None or not transaction.host:
            outcomes.append(CompleteOutcome(accepted=False))
            continue
        execution, scheduled = row
        transaction.execute(sql.delete_activity, (key, token))
        target = transaction.one(sql.target_by_key, key >> PLACE_BITS)
        delivery = None
        if target is not None and target[2] not in _ENDED and target[7] == execution:
            message = OutboundMessage(instance_id="", event=result.event, execution_id=execution, scheduled=scheduled)
            delivery = _put(transaction, _Target._make(target), message)
        outcomes.append(CompleteOutcome(accepted=True, delivery=delivery))
    return outcomes


def apply_fire(transaction: Transaction, times: list[Ticks]) -> list[Due]:
    """Delayed messages whose time has come."""
    now = max(times)
    rows = transaction.execute(sql.due_messages, (now, FIRED_AT_ONCE)).fetchall()
    deliveries: list[Delivery] = []
    ready: list[tuple[int, int]] = []
    offered: list[tuple[int, int]] = []
    fired: list[tuple[int, int, int]] = []
    for instance, sleeping, execution, scheduled, event, lock, held in rows:
        key = transaction.next_message()
        message = _readable(transaction, instance, (key, execution, scheduled, event))
        if message is None:
            transaction.execute(sql.delete_message, (instance, sleeping))
            continue
        fired.append((instance, sleeping, key))
        end = ends(message.event, begun=True)
        if end:
            transaction.execute(sql.ending, (1, instance))
        if lock is None:
            if not held:
                ready.append((now, instance))
            elif end:
                offered.append((now, instance))
        elif lock >> LOCK_BITS == transaction.host:
            deliveries.append(Delivery(instance, message))
        else:
            transaction.send_mail(lock, instance, key)
    if fired:
        transaction.many("fire", fired)
    if ready:
        transaction.many("make_ready", ready)
        transaction.work = True
    if offered:
        transaction.executemany(sql.offer_to_all, offered)
        transaction.work = True
    next_due = transaction.execute(sql.earliest_due).fetchone()[0]
    first = Due(deliveries=deliveries, ready=bool(ready or offered), next_due=next_due)
    return [first, *(Due(deliveries=[], ready=bool(ready), next_due=next_due) for _ in times[1:])]


def apply_fetch(transaction: Transaction, asked: list[None]) -> list[list[Delivery]]:
    """What came from elsewhere for instances that this host holds."""
    found: list[Delivery] = []
    if transaction.host:
        first, last = tokens_of(transaction.host)
        rows = transaction.execute(sql.mail, (transaction.host, first, last)).fetchall()
        for instance, key, execution, scheduled, event in rows:
            message = _readable(transaction, instance, (key, execution, scheduled, event))
            if message is None:
                transaction.execute(sql.delete_message, (instance, key))
            else:
                found.append(Delivery(instance, message))
        transaction.execute(sql.delete_mail, (transaction.host,))
    return [found, *([] for _ in asked[1:])]

"""From rows to records and messages, and back.  Pure: no connection, no statement."""

from collections.abc import Iterable
from typing import Any

import msgspec

from holdtrue.core.events import (
    AnyEvent,
    ExecutionStarted,
    FailureDetails,
    GenericEvent,
    Ticks,
    decode_event,
    encode_events,
)
from holdtrue.core.messages import ActivityTask, DeadLetter, InboundMessage, OutboundMessage
from holdtrue.core.projection import Condition, Status, initial
from holdtrue.stores.decisions import AT_REST
from holdtrue.stores.protocol import InstanceRecord

from .transaction import PLACE_BITS

INLINE_BYTES = 3_000
"""An ExecutionStarted of more bytes lies in a table of its own."""

encode = msgspec.json.Encoder().encode
decode_started = msgspec.json.Decoder(ExecutionStarted).decode
decode_failure = msgspec.json.Decoder(FailureDetails).decode
decode_condition = msgspec.json.Decoder(Condition).decode
decode_task = msgspec.json.Decoder(ActivityTask).decode
decode_letter = msgspec.json.Decoder(DeadLetter).decode
decode_names = msgspec.json.Decoder(list[str]).decode
decode_numbers = msgspec.json.Decoder(list[int]).decode

_GENERATION_BITS = 3
_ORDINAL_BITS = PLACE_BITS - _GENERATION_BITS


def activity_key(instance: int, generation: int, scheduled: int) -> int:
    """The key of a work item: unique but for what is outstanding over eight generations or 8 million events."""
    place = (generation & 7) << _ORDINAL_BITS | scheduled & ((1 << _ORDINAL_BITS) - 1)
    return instance << PLACE_BITS | place


# The columns of a record, as the statements `record_by_id`, `record_by_key` and `ready_instances` give them.
KEY, ID, STATUS, LOCK, READY, LENGTH, SIZE, UPDATED, CREATED, COMPLETED = range(10)
DEADLINE, NAME, EXECUTION, START_ID, DIALECT, STARTED, CUSTOM_STATUS, CONDITION, FAILURE, OUTPUT = range(10, 20)


def record(row: tuple[Any, ...], started_bytes: bytes | None) -> InstanceRecord:
    """The record that a row holds; `started_bytes` is its ExecutionStarted, wherever it lies.

    Raises msgspec.DecodeError for a row that no store of ours writes.
    """
    try:
        return _record(row, started_bytes)
    except (ValueError, TypeError) as error:
        raise msgspec.DecodeError(f"the record of instance {row[ID]!r}: {error}") from error


def _record(row: tuple[Any, ...], started_bytes: bytes | None) -> InstanceRecord:
    if started_bytes is None:
        raise ValueError("its start is missing")
    started = decode_started(started_bytes)
    projection = initial(started)
    projection.status = Status(row[STATUS])
    projection.created_at, projection.last_updated_at = row[CREATED], row[UPDATED]
    projection.completed_at = row[COMPLETED]
    projection.custom_status, projection.output = row[CUSTOM_STATUS], row[OUTPUT]
    failure, condition = row[FAILURE], row[CONDITION]
    if failure is not None:
        projection.failure = decode_failure(failure)
    return InstanceRecord(
        projection=projection,
        started=started,
        start_id=row[START_ID] or row[EXECUTION],
        dialect=row[DIALECT],
        deadline=row[DEADLINE],
        condition=None if condition is None else decode_condition(condition),
        length=row[LENGTH],
        size=row[SIZE],
        at_rest=row[LOCK] == AT_REST,
    )


def inbound(rows: Iterable[tuple[int, str | None, int | None, bytes]]) -> list[InboundMessage]:
    """Messages from rows of key, execution, scheduled, event; raises msgspec.DecodeError for an unreadable one."""
    return [
        InboundMessage(event=decode_event(event), key=key, execution_id=execution, scheduled=scheduled)
        for key, execution, scheduled, event in rows
    ]


def message_row(instance: int, key: int, message: OutboundMessage, due: Ticks | None) -> tuple[Any, ...]:
    """The row of a message."""
    return (instance, key, due, message.execution_id, message.scheduled, encode_events(message.event))


def condition_text(condition: Condition | None) -> str | None:
    """A condition as it is stored."""
    return None if condition is None else encode(condition).decode()


def failure_bytes(failure: FailureDetails | None) -> bytes | None:
    """A failure as it is stored."""
    return None if failure is None else encode(failure)


def unreadable(instance_id: str, event: bytes | str, reason: str) -> DeadLetter:
    """The dead letter of a message that no store of ours can read."""
    text = event if isinstance(event, str) else event.decode("utf-8", "replace")
    generic: AnyEvent = GenericEvent(timestamp=0, data=text)
    return DeadLetter(
        instance_id=instance_id,
        reason=f"it cannot be read: {reason}",
        message=OutboundMessage(instance_id=instance_id, event=generic),
    )

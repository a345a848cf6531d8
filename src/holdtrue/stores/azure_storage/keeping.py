"""Messages that wait beside a history for their instance to begin or to go on (rule 11): extra rows, by arrival.

One that is too large for a row stands in a blob that its row names; the blob goes with the instance, as those of
large messages do.
"""

from collections.abc import Sequence

import msgspec

from holdtrue.core.events import ExecutionStarted
from holdtrue.stores.errors import StoreCorrupt

from .arrivals import Arrived
from .dead_letters import DeadLetters, unreadable_kept
from .formats import Formats
from .holding import Held
from .large import Blob
from .mail import Mail
from .planning import MOST_BYTES, size_of
from .service import Do, Operation, Row

PREFIX = "~kept-"
"""The row keys of kept messages begin so; they sort behind `sentinel`."""
MOST_KEPT = 64
"""Kept messages given, and written, at a time: each is deleted in the transaction of the commit that uses it up."""


class Kept(msgspec.Struct, frozen=True):
    """A message as its extra row holds it."""

    message: Arrived


async def kept_rows(formats: Formats, held: Held, messages: Sequence[Arrived]) -> list[list[Operation]]:
    """The extra rows of messages, in as many transactions as they need; the blobs that they name are written."""
    blobs: list[Blob] = []
    transactions: list[list[Operation]] = []
    size = 0
    for one in messages:
        row = _kept_row(formats, held, one, blobs)
        more = size_of([row])
        if not transactions or len(transactions[-1]) >= MOST_KEPT or size + more > MOST_BYTES:
            transactions.append([])
            size = 0
        transactions[-1].append(row)
        size += more
    for blob in blobs:
        await formats.put_blob(blob)
    return transactions


def _kept_row(formats: Formats, held: Held, one: Arrived, blobs: list[Blob]) -> Operation:
    values = formats.extra_values(
        held.instance_id, f"{one.id}-kept", Kept(msgspec.structs.replace(one, kept=None)), blobs
    )
    return Operation(do=Do.REPLACE, partition=held.partition_key, key=_key(one), values=values)


def _key(one: Arrived) -> str:
    # A start is read first, however many others of its second there are: without it none of them is of use.
    inserted = 0 if isinstance(one.event, ExecutionStarted) else one.inserted
    return f"{PREFIX}{inserted:020d}-{one.id}"


async def read_kept(formats: Formats, row: Row, number: int) -> Arrived:
    """The message of an extra row, under a number of the store's; raises StoreCorrupt where it is none."""
    try:
        kept = msgspec.json.decode(await formats.text_of_extra(row), type=Kept)
    except msgspec.DecodeError as error:
        raise StoreCorrupt(f"the kept message {row.key!r} of instance partition {row.partition!r}: {error}") from error
    return msgspec.structs.replace(kept.message, key=number, kept=row.key)


async def kept_beside(
    formats: Formats, letters: DeadLetters, mail: Mail, held: Held, extras: Sequence[Row]
) -> list[Arrived]:
    """The first of the messages that wait beside a history, the others noted as `kept_later`; one that cannot be read
    is a dead letter."""
    kept: list[Arrived] = []
    rows = [row for row in extras if row.key.startswith(PREFIX)]
    for at, row in enumerate(rows):
        if len(kept) == MOST_KEPT:
            held.kept_later = frozenset(row.key.removeprefix(PREFIX).partition("-")[2] for row in rows[at:])
            break
        try:
            kept.append(await read_kept(formats, row, mail.next_number()))
        except StoreCorrupt as error:
            if not held.state.purging:
                await letters.bury(unreadable_kept(held.instance_id, error), row.key, row.timestamp)
    return kept

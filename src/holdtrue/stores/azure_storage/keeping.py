"""Messages that wait beside a history for their instance to begin or to go on (rule 11): extra rows, by arrival."""

import msgspec

from holdtrue.stores.errors import StoreCorrupt

from .access import extra_of
from .arrivals import Arrived
from .holding import Held
from .sentinel import extra_text
from .service import Do, Operation, Row

PREFIX = "~kept-"
"""The row keys of kept messages begin so; they sort behind `sentinel`."""
MOST_KEPT = 64
"""Kept messages given at a time: each is deleted in the transaction of the commit that uses it up."""


class Kept(msgspec.Struct, frozen=True):
    """A message as its extra row holds it."""

    message: Arrived


def kept_row(held: Held, one: Arrived) -> Operation:
    """The extra row of a message."""
    value = msgspec.structs.replace(one, kept=None)
    key = f"{PREFIX}{one.inserted:020d}-{one.id}"
    return Operation(do=Do.REPLACE, partition=held.partition_key, key=key, values=extra_text(Kept(value)))


def read_kept(row: Row, number: int) -> Arrived:
    """The message of an extra row, under a number of the store's; raises StoreCorrupt where it is none."""
    try:
        kept = msgspec.json.decode(extra_of(row), type=Kept)
    except msgspec.DecodeError as error:
        raise StoreCorrupt(f"the kept message {row.key!r} of instance partition {row.partition!r}: {error}") from error
    return msgspec.structs.replace(kept.message, key=number, kept=row.key)

"""Where hosts write who serves which control queue: a table, or leases on blobs (`ownership` goes by either)."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from holdtrue.core.events import Ticks

from .partitions import Lease, Sighting, Step


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the service's time: as in a `Situation`."""

    sightings: Mapping[str, Sighting]
    now: Ticks
    at_least: Ticks | None
    measured: bool


class Board(Protocol):
    """Where one hub's partitions stand, as one host sees it."""

    name: str
    """What it is, for messages."""
    shows_renewals: bool
    """Whether a reading tells that an owner has renewed; else only its lease's end tells that it has not."""

    async def read(self) -> list[Lease]:
        """All partitions.  Raises a ServiceError as the account does, NotThere where the hub has no such place."""

    def known(self) -> Known:
        """The service's time, at this moment, as far as what was read and written tells it."""

    async def write(self, step: Step) -> Lease:
        """Do what was decided, if all is as it was read (else Conflict or NotThere); how the partition stands then.

        Raises a ServiceError or TimeoutError where it is not known to be done.
        """

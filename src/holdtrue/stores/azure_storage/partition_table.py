"""The partitions table as a board: rows, their etags, and the service's time as their stamps tell it."""

import asyncio

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.environment import Environment

from .board import Known
from .partitions import Lease, Sighting, Step, Terms, is_lease, lease_values, read_lease, sight
from .renewals import Renewals
from .service import Do, Operation, Tables, Unsure
from .service_clock import ServiceClock


class PartitionTable:
    """The partitions table of one hub."""

    shows_renewals = True

    def __init__(self, tables: Tables, table: str, environment: Environment, terms: Terms, renewals: Renewals) -> None:
        self.name = f"table {table}"
        self._tables = tables
        self._table = table
        self._environment = environment
        self._terms = terms
        self._renewals = renewals
        self._clock = ServiceClock()
        self._sightings: dict[str, Sighting] = {}
        self._written: dict[str, tuple[str, float]] = {}

    async def read(self) -> list[Lease]:
        leases: list[Lease] = []
        token: str | None = None
        while True:
            try:
                async with asyncio.timeout(self._terms.operation):
                    page = await self._tables.query(self._table, token=token)
            except TimeoutError as error:
                raise Unsure(f"{self.name}: no answer within {self._terms.operation:g} s") from error
            leases += map(read_lease, filter(is_lease, page.rows))
            token = page.token
            if token is None:
                break
        self._sighted(leases)
        return leases

    def known(self) -> Known:
        moment = self._environment.monotonic()
        estimate = self._clock.estimate(moment)
        return Known(
            sightings=self._sightings,
            now=self._environment.now() if estimate is None else estimate,
            at_least=self._clock.at_least(moment),
            measured=estimate is not None,
        )

    async def write(self, step: Step) -> Lease:
        partition = step.lease.partition
        async with asyncio.timeout(self._terms.operation):
            etag = await self._tables.write(
                self._table,
                Operation(
                    do=Do.REPLACE,
                    partition="",
                    key=partition,
                    values=lease_values(step.lease),
                    etag=step.lease.etag,
                ),
            )
        self._written[partition] = (etag or "", self._environment.monotonic())
        return msgspec.structs.replace(step.lease, etag=etag or "")

    def _sighted(self, leases: list[Lease]) -> None:
        moment = self._environment.monotonic()
        for lease in leases:
            etag, answered = self._written.get(lease.partition, ("", 0.0))
            renewed = self._renewals.row(lease.partition)
            if lease.etag == etag:
                self._clock.wrote(lease.timestamp, answered)
            elif renewed is not None and lease.etag == renewed.etag:
                self._clock.wrote(lease.timestamp, renewed.answered)
            else:
                self._clock.saw(lease.timestamp, moment)
        self._sightings = sight(self._sightings, leases)
        if (estimate := self._clock.estimate(moment)) is not None:
            self._renewals.tell_time(estimate - moment * TICKS_PER_SECOND)

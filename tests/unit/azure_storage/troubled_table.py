"""A hub's partitions table in the model account, on a service that fails: what the tests of ownership run on."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.environment import Environment
from holdtrue.stores.azure_storage.service import (
    ANY,
    Conflict,
    Do,
    Instant,
    NotThere,
    Operation,
    Row,
    RowPage,
    Test,
    Unsure,
    Value,
)
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.storage_tables import ModelTables
from holdtrue.testing.virtual_time import as_part

SERVICE_BEGAN: Ticks = 1_770_000_000 * TICKS_PER_SECOND
"""What the service's own clock shows when a test begins; the hosts' clocks show something else."""
TABLE = "HubPartitions"
COLUMNS = {"CurrentOwner", "NextOwner", "OwnedSince", "LastRenewal", "ExpiresAt", "IsDraining"}


class TroubledTable:
    """The port's `write`, `query` and `get`, checked and troubled.

    `trouble` is how many of its requests go wrong: not done and told as unsure, done and told so, or done late.
    """

    def __init__(self, *keys: str, seed: int = 0, trouble: float = 0.0) -> None:
        self._environment = SimulatedEnvironment(seed, epoch=SERVICE_BEGAN)
        self._model = StorageModel(self._environment)
        self._random = random.Random(seed)
        self._late: set[asyncio.Task[None]] = set()
        self.trouble = trouble
        self.writes = 0
        assert isinstance(self._model.tables, ModelTables)
        self._tables = self._model.tables
        self._tables._tables[TABLE.lower()] = type(self)._empty()
        for key in keys:
            self._change(Do.INSERT, key, {"IsDraining": False})

    @staticmethod
    def _empty() -> Any:
        from holdtrue.testing.storage_tables import _Table

        return _Table()

    def time(self) -> Ticks:
        """The service's time."""
        return self._environment.now()

    @property
    def rows(self) -> dict[str, Row]:
        """What stands in the table, at no cost."""
        from holdtrue.testing.storage_tables import _row

        return {stored.key: _row(stored, None) for stored in self._tables._table(TABLE).rows.values()}

    def _change(self, do: Do, key: str, values: dict[str, Value | None]) -> None:
        etag = ANY if do is Do.DELETE else None
        request = self._tables.write(TABLE, Operation(do=do, partition="", key=key, values=values, etag=etag))
        with suppress(StopIteration):
            while True:
                request.send(None)

    def change(self, key: str, **values: Value | None) -> None:
        """What another writer does, at once."""
        self._change(Do.REPLACE, key, {**self.rows[key].values, **values})

    def remove(self, key: str) -> None:
        """Take a row away, at once."""
        self._change(Do.DELETE, key, {})

    def owner(self, key: str) -> Any:
        """Who stands in a row."""
        return self.rows[key].values.get("CurrentOwner")

    async def _pause(self) -> None:
        await self._environment.sleep(self._random.choice((0.001, 0.01, 0.2)) if self.trouble else 0.005)

    async def query(
        self, table: str, where: Any = None, *, select: Any = None, top: int | None = None, token: str | None = None
    ) -> RowPage:
        """A page; the model cuts them short and gives empty ones too."""
        await self._pause()
        if self._random.random() < self.trouble:
            raise Unsure("no answer")
        page = await self._tables.query(table, where, select=select, top=top, token=token)
        await self._pause()
        return page

    async def write(self, table: str, operation: Operation) -> str | None:
        """A write of a host's: a replace of a row as it was read, with all columns."""
        assert operation.do is Do.REPLACE and operation.etag not in (None, ANY)
        assert set(operation.values) == COLUMNS
        await self._pause()
        fate = self._random.random()
        if fate < self.trouble / 3:
            raise Unsure("reset before it was sent")
        if fate < self.trouble * 2 / 3:
            with as_part(None):  # it is on its way, whatever becomes of its sender
                task = asyncio.get_running_loop().create_task(self._write_late(table, operation))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            raise Unsure("no answer yet")
        etag = await self._tables.write(table, operation)
        self.writes += 1
        await self._pause()
        if fate < self.trouble:
            raise Unsure("answer lost")
        return etag

    async def _write_late(self, table: str, operation: Operation) -> None:
        await self._environment.sleep(self._random.choice((0.5, 5.0, 40.0)))
        with suppress(Conflict, NotThere):
            await self._tables.write(table, operation)

    async def get(self, table: str, partition: str, key: str, *, select: Any = None) -> Row | None:
        """A row."""
        page = await self.query(table, Test("RowKey", "eq", key))
        return next(iter(page.rows), None) if page.token is None else await self._tables.get(table, partition, key)

    async def transact(self, table: str, operations: Sequence[Operation]) -> list[str | None]:
        raise NotImplementedError


class DotNetWorker:
    """What a .NET worker does with the rows: its own wall clock, passes each 10 s, steals by NextOwner."""

    def __init__(
        self, table: TroubledTable, name: str, environment: Environment, *, lease: float, acquire: float
    ) -> None:
        self.table = table
        self.name = name
        self.environment = environment
        self.lease = lease
        self.acquire = acquire

    def owns(self) -> set[str]:
        return {key for key in self.table.rows if self.table.owner(key) == self.name}

    async def run(self) -> None:
        while True:
            waiting = self.one_pass()
            await self.environment.sleep(1.0 if waiting else self.acquire)

    def one_pass(self) -> bool:
        now = self.table.time()  # its wall clock is right
        waiting = False
        shares: dict[str, list[str]] = {}
        for key, row in self.table.rows.items():
            owner, wanted = row.values.get("CurrentOwner"), row.values.get("NextOwner")
            ends = row.values.get("ExpiresAt")
            over = isinstance(ends, Instant) and now >= ends.ticks
            lease = {"LastRenewal": Instant(now), "ExpiresAt": Instant(now + int(self.lease * TICKS_PER_SECOND))}
            if over or (owner is None and wanted in (None, self.name)):
                self.table.change(
                    key, CurrentOwner=self.name, NextOwner=None, OwnedSince=Instant(now), IsDraining=False, **lease
                )
            elif owner == self.name and wanted is None:
                self.table.change(key, **lease)
            elif owner == self.name:
                self.table.change(key, CurrentOwner=None, IsDraining=False)
            elif wanted == self.name:
                waiting = True
            else:
                shares.setdefault(str(wanted or owner), []).append(key)
        mine = len(self.table.rows) - sum(map(len, shares.values()))
        fair = len(self.table.rows) // (len(shares) + 1)
        for keys in shares.values():
            for key in keys[: max(0, min(fair - mine, len(keys) - fair))]:
                if self.table.rows[key].values.get("NextOwner") is None:
                    self.table.change(key, NextOwner=self.name)
                    mine += 1
                    waiting = True
        return waiting

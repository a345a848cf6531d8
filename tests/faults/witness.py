"""Watches the statuses of a hub from outside, and holds them against the histories that stand in the account.

It reads history rows by itself, straight from the emulator, and trusts no projection: an execution has ended where
its last row says so.  Each status is read between two readings of the history, and must be that of one of them.
"""

import asyncio
from collections import Counter

import msgspec

import holdtrue
from holdtrue.stores.azure_storage.names import escape_key
from holdtrue.stores.azure_storage.service import Row, Service, Test

HISTORY, INSTANCES = "HubHistory", "HubInstances"


class Standing(msgspec.Struct, frozen=True):
    """What stands in an instance's history: execution, status, result (None: no history), and how many events."""

    execution: str | None = None
    status: str | None = None
    result: str | None = None
    events: int = 0


class Untrue(AssertionError):
    """A status was read that was not true."""


async def history_rows(service: Service, instance_id: str) -> tuple[Row | None, list[Row]]:
    """The sentinel, and the event rows of its execution.  One page, so that they are of one moment."""
    page = await service.tables.query(HISTORY, Test("PartitionKey", "eq", escape_key(instance_id)))
    assert page.token is None
    sentinel = next((row for row in page.rows if row.key == "sentinel"), None)
    if sentinel is None:
        return None, []
    execution = sentinel.values.get("ExecutionId")
    rows = [row for row in page.rows if row.key < "sentinel" and row.values.get("ExecutionId") == execution]
    return sentinel, rows


async def standing(service: Service, instance_id: str) -> Standing:
    """What stands in the account."""
    sentinel, rows = await history_rows(service, instance_id)
    if sentinel is None or not rows:
        return Standing()
    execution = str(sentinel.values["ExecutionId"])
    status, result = "Running", None
    for row in rows:
        if row.values["EventType"] == "ExecutionCompleted":
            status, result = str(row.values["OrchestrationStatus"]), str(row.values.get("Result"))
    return Standing(execution, status, result, len(rows))


class Witness:
    """Watches instances until it is told to stop; what it finds untrue it raises then."""

    def __init__(self, client: holdtrue.Client, service: Service, instances: list[str]) -> None:
        self._client, self._service = client, service
        self._instances = instances
        self._changed = asyncio.Event()
        self._task = asyncio.ensure_future(self._watch())
        self.reads = 0

    def changed(self) -> None:
        """Something was written: look at once."""
        self._changed.set()

    async def stop(self) -> None:
        """The last look.  Raises Untrue for whatever was untrue at any time."""
        if not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if not self._task.cancelled():
            self._task.result()
        for name in self._instances:
            await self._look(name, await standing(self._service, name))

    async def _watch(self) -> None:
        before = {name: Standing() for name in self._instances}
        while True:
            for name in self._instances:
                before[name] = await self._look(name, before[name])
            if not self._changed.is_set():
                try:
                    async with asyncio.timeout(1.0):
                        await self._changed.wait()
                except TimeoutError:
                    pass
            self._changed.clear()

    async def _look(self, name: str, before: Standing) -> Standing:
        status = await self._client.get_status(name)
        after = await standing(self._service, name)
        self.reads += 1
        if status is None:
            if before.execution is not None:
                raise Untrue(f"{name!r} was not found, and its history said {before}")
            return after
        record = status.record.projection
        seen = Standing(record.execution_id, record.status.name.title(), record.output)
        if not is_true(seen, before, after):
            raise Untrue(f"{name!r} was read as {seen}; its history said {before} before, and {after} after it")
        return after


def is_true(seen: Standing, before: Standing, after: Standing) -> bool:
    """Whether a status may have been true at some moment between two readings of the history."""
    if seen.status == "Pending":
        return seen.execution != before.execution  # a start that waits: no history tells of it
    if seen.status == "Running":
        # It had not ended when it was read, and its history begins before the second reading.
        return before.execution != seen.execution or before.status == "Running"
    ends = [one for one in (before, after) if one.execution == seen.execution and one.status != "Running"]
    if ends:
        return all((seen.status, seen.result) == (one.status, one.result) for one in ends)
    return after.execution != seen.execution  # it ended, and another began, between the two


async def counts(service: Service, instance_id: str) -> Counter[str]:
    """The events of a history by their types, but for those of the episodes."""
    _, rows = await history_rows(service, instance_id)
    found = Counter(str(row.values["EventType"]) for row in rows)
    return Counter({kind: count for kind, count in found.items() if not kind.startswith("Orchestrator")})


async def row_status(service: Service, instance_id: str) -> str:
    """What the instances row says."""
    row = await service.tables.get(INSTANCES, escape_key(instance_id), "")
    return "no row" if row is None else str(row.values.get("RuntimeStatus"))

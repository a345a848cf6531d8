"""A client of .NET's provider: its requests on the account, in its order, with none of our columns.

It starts over whatever stands there (message first, then the row), raises, ends, rewinds row by row, and purges in
parallel, at any status.  What fails it tries again, as its storage library does.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from azure_watch import Watch

from holdtrue.core import events as ev
from holdtrue.stores.azure_storage.envelopes import Envelope, pack_message
from holdtrue.stores.azure_storage.instances_row import rewound_values, start_values
from holdtrue.stores.azure_storage.names import SENTINEL, HubNames, escape_key, partition_of
from holdtrue.stores.azure_storage.service import (
    ANY,
    Conflict,
    Do,
    Instant,
    NotThere,
    Operation,
    Row,
    Service,
    Test,
    Unsure,
)
from holdtrue.testing.environment import SimulatedEnvironment

BATCH = 3
"""Rows that its purge deletes at a time (100 in truth)."""
AT_ONCE = 4
"""Requests of its purge that are under way together."""


class DotNetClient:
    """The verbs.  `watch` is told what .NET does that no client of ours could."""

    def __init__(
        self, service: Service, names: HubNames, partitions: int, environment: SimulatedEnvironment, watch: Watch
    ) -> None:
        self._service = service
        self._names = names
        self._partitions = partitions
        self._environment = environment
        self._watch = watch
        self._chance: random.Random = environment.random()

    async def start(self, name: str, input: str) -> None:
        """Start `program`, over whatever is there."""
        self._watch.dotnet_starts(name)
        row = await self._row(name)
        generation = 0 if row is None else int(row.values.get("Generation") or 0) + 1  # type: ignore[call-overload]
        now, execution = self._environment.now(), self._guid().replace("-", "")
        started = ev.ExecutionStarted(
            timestamp=now,
            instance_id=name,
            execution_id=execution,
            name="program",
            version="",
            input=input,
            generation=generation,
        )
        await self._send(name, started, execution)
        values = start_values(started, hub=self._names.hub, start_id="", at=now)
        del values["StartId"]
        do, etag = (Do.INSERT, None) if row is None else (Do.REPLACE, row.etag)
        try:
            await self._insist(lambda: self._write(self._names.instances, name, "", do, values, etag))
        except (Conflict, NotThere):
            pass  # .NET reports success

    async def raise_event(self, name: str, event: str, input: str) -> None:
        """Raise an event."""
        await self._send(name, ev.EventRaised(timestamp=self._environment.now(), name=event, input=input), None)

    async def terminate(self, name: str) -> None:
        """Ask for its end."""
        await self._send(name, ev.ExecutionTerminated(timestamp=self._environment.now(), input="enough"), None)

    async def rewind(self, name: str) -> None:
        """Turn the rows of the failure, one request each; then its children that failed; then the instances row; then
        the message, where none of its children gets one."""
        rows = [row for row in await self._rows(name) if row.key < SENTINEL]
        begun = [row for row in rows if row.values.get("EventType") == "OrchestratorStarted"]
        if not begun:
            return
        execution = begun[-1].values.get("ExecutionId")
        rows = [row for row in rows if row.values.get("ExecutionId") == execution]
        answers = [row for row in rows if row.values.get("EventType") == "SubOrchestrationInstanceFailed"]
        asked = {row.values.get("TaskScheduledId") for row in answers}
        children = [
            str(row.values["InstanceId"])
            for row in rows
            if row.values.get("EventType") == "SubOrchestrationInstanceCreated" and row.values.get("EventId") in asked
        ]
        failed = [row for row in rows if row.values.get("EventType") == "TaskFailed"]
        tasks = {row.values.get("TaskScheduledId") for row in failed}
        turned = [row for row in rows if row.values.get("OrchestrationStatus") == "Failed" or row in failed + answers]
        turned += [
            row for row in rows if row.values.get("EventType") == "TaskScheduled" and row.values.get("EventId") in tasks
        ]
        if not any(row.values.get("OrchestrationStatus") == "Failed" for row in turned):
            return
        self._watch.dotnet_rewinds(name)
        for row in sorted(turned, key=lambda row: row.key):
            values = {**row.values, "Reason": f"Rewound: {row.values['EventType']}", "EventType": "GenericEvent"}
            try:
                await self._insist(
                    lambda: self._write(self._names.history, name, row.key, Do.REPLACE, values, row.etag)  # noqa: B023
                )
            except Conflict:
                if (found := await self._event_type(name, row.key)) != "GenericEvent":
                    assert found is not None
                    return
            except NotThere:
                return
        for child in children:
            await self.rewind(child)
        values = rewound_values(self._environment.now())
        try:
            await self._insist(lambda: self._write(self._names.instances, name, "", Do.MERGE, values, ANY))
        except NotThere:
            return
        if children:
            return
        await self._send(name, ev.GenericEvent(timestamp=self._environment.now(), data="once more"), None)

    async def write_row_late(self, name: str, seconds: float) -> None:
        """A worker's write of the row, blind, that was on its way for so long: after the first episode, say."""
        row = await self._row(name)
        if row is None or row.values["RuntimeStatus"] == "Pending":
            return
        now = Instant(self._environment.now())
        values = {"ExecutionId": row.values["ExecutionId"], "RuntimeStatus": "Running", "LastUpdatedTime": now}
        await asyncio.sleep(seconds)
        await self._insist(lambda: self._write(self._names.instances, name, "", Do.MERGE, values, None))

    async def purge(self, name: str) -> None:
        """Delete row and history side by side, whatever it does."""
        row = await self._row(name)
        if row is None:
            return
        keys = [one.key for one in await self._rows(name)]
        self._watch.dotnet_purges(name)
        batches = [keys[begin : begin + BATCH] for begin in range(0, len(keys), BATCH)]
        self._chance.shuffle(batches)
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(do: Callable[[], Awaitable[Any]]) -> None:
            async with limit:
                try:
                    await self._insist(do)
                except NotThere:
                    pass

        table, key = self._names.history, escape_key(name)
        await asyncio.gather(
            one(lambda: self._write(self._names.instances, name, "", Do.DELETE, {}, ANY)),
            *(
                one(
                    lambda batch=batch: self._service.tables.transact(  # type: ignore[misc]
                        table, [Operation(do=Do.DELETE, partition=key, key=each, etag=ANY) for each in batch]
                    )
                )
                for batch in batches
            ),
        )
        self._watch.dotnet_has_purged(name)

    # -- requests --------------------------------------------------------------------------------------

    def _guid(self) -> str:
        text = f"{self._chance.getrandbits(128):032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    async def _insist(self, do: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await do()
            except Unsure:
                await asyncio.sleep(0.5)

    async def _row(self, name: str) -> Row | None:
        found: Row | None = await self._insist(
            lambda: self._service.tables.get(self._names.instances, escape_key(name), "")
        )
        return found

    async def _rows(self, name: str) -> list[Row]:
        rows: list[Row] = []
        token = None
        while True:
            asked = token
            page = await self._insist(
                lambda: self._service.tables.query(
                    self._names.history,
                    Test("PartitionKey", "eq", escape_key(name)),
                    token=asked,  # noqa: B023
                )
            )
            rows += page.rows
            token = page.token
            if token is None:
                return rows

    async def _event_type(self, name: str, key: str) -> Any:
        row = await self._insist(lambda: self._service.tables.get(self._names.history, escape_key(name), key))
        return None if row is None else row.values.get("EventType")

    async def _write(self, table: str, name: str, key: str, do: Do, values: Any, etag: str | None) -> None:
        operation = Operation(do=do, partition=escape_key(name), key=key, values=values, etag=etag)
        await self._service.tables.write(table, operation)

    async def _send(self, name: str, event: Any, execution: str | None) -> None:
        envelope = Envelope(id=self._guid(), instance_id=name, event=event, execution_id=execution)
        queue = self._names.control(partition_of(name, self._partitions))
        text = pack_message(envelope).text
        await self._insist(lambda: self._service.queues.put(queue, text))

"""The old order of writes in examples/stale_running makes the requests that the real code of June 2025 made.

Each recording is made anew: the same instances, the same answer lost.  Then every request is compared, with all that it
carries but ids and times, and the rows that stand in the tables at the end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from examples.stale_running.old_order import OldOrder
from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.creating import create_hub
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.service import Instant, Row
from holdtrue.testing.storage_proxy import ANSWER_LOST, Seen, StorageProxy
from tests.azurite import order
from tools.azurite import Azurite

BACK_OFF = 3.0
"""Longer than the 2 s after which a message comes again, as the 10 s of .NET are."""


class Run:
    """A hub of the old order, with a proxy before its client and one before its worker."""

    def __init__(self, hub: str, client: OldOrder, said: list[str], direct: HttpService) -> None:
        self._names = HubNames(hub)
        self.client = client
        self.said = said
        self._direct = direct

    async def rows(self) -> dict[str, list[Row]]:
        tables = (self._names.history, self._names.instances)
        return {table: (await self._direct.tables.query(table)).rows for table in tables}

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(60):
            while not await holds():
                await asyncio.sleep(0.05)

    async def until_discarded(self, times: int = 1) -> None:
        async def holds() -> bool:
            return sum("Discarding" in line for line in self.said) >= times

        await self.until(holds)

    async def until_status(self, instance_id: str, status: str) -> None:
        async def holds() -> bool:
            row = await self._direct.tables.get(self._names.instances, instance_id, "")
            return row is not None and row.values["RuntimeStatus"] == status

        await self.until(holds)

    async def until_quiet(self) -> None:
        """Nothing is in any queue."""
        queues = [*(self._names.control(number) for number in range(4)), self._names.work_items]

        async def holds() -> bool:
            return not sum([await self._direct.queues.approximate_count(queue) for queue in queues])

        await self.until(holds)


async def stuck_running(run: Run) -> None:
    await run.client.start("Singleton", "job", '{"minute":1}')
    await run.until_discarded()


async def stuck_helpless(run: Run) -> None:
    await stuck_running(run)
    await run.client.raise_event("job", "go", "1")
    await run.until_discarded(2)
    await run.client.terminate("job", "stop")
    await run.until_discarded(3)


async def stuck_again(run: Run) -> None:
    await stuck_running(run)
    await run.client.start("Singleton", "job", '{"minute":2}')
    await run.until_status("job", "Completed")


async def stuck_failed(run: Run) -> None:
    await run.client.start("Failing", "job", '"x"')
    await run.until_discarded()


async def stuck_terminated(run: Run) -> None:
    await run.client.start("Event", "job", None)

    async def waits() -> bool:
        history, _ = (await run.rows()).values()
        return len(history) == 8

    await run.until(waits)
    await run.until_quiet()
    await run.client.terminate("job", "stop")
    await run.until_discarded()


async def stuck_child(run: Run) -> None:
    await run.client.start("Parent", "parent", "2")
    await run.until_discarded()


async def split_middle(run: Run) -> None:
    await run.client.start("Chain", "job", "3")
    await run.until_status("job", "Completed")


def a_last(instance_id: str) -> Callable[[Seen], bool]:
    def matches(seen: Seen) -> bool:
        ends = b'"ExecutionCompleted"' in seen.request.body
        return seen.about.kind == "table transact history" and ends and seen.about.instance == instance_id

    return matches


def a_second(seen: Seen) -> bool:
    return seen.about.kind == "table transact history" and b"0000000000000004" in seen.request.body


STORIES: dict[str, tuple[Callable[[Run], Awaitable[None]], Callable[[Seen], bool]]] = {
    "StuckRunning": (stuck_running, a_last("job")),
    "StuckHelpless": (stuck_helpless, a_last("job")),
    "StuckAgain": (stuck_again, a_last("job")),
    "StuckFailed": (stuck_failed, a_last("job")),
    "StuckTerminated": (stuck_terminated, a_last("job")),
    "StuckChild": (stuck_child, a_last("parent:child:1")),
    "SplitMiddle": (split_middle, a_second),
}


@asynccontextmanager
async def services(connection: Callable[[dict[str, int] | None], str], *ports: dict[str, int] | None) -> Any:
    opened = [HttpService(from_connection_string(connection(one))) for one in ports]
    for one in opened:
        await one.open()
    try:
        yield opened
    finally:
        for one in opened:
            await one.close()


async def made_anew(azurite: Azurite, name: str) -> tuple[list[order.Sent], dict[str, list[dict[str, Any]]], list[str]]:
    """The requests, the rows at the end, and what was said."""
    story, spoiled = STORIES[name]
    account, said = azurite.new_account(), list[str]()
    async with (
        StorageProxy(azurite.ports) as of_client,
        StorageProxy(azurite.ports) as of_worker,
        services(lambda ports: azurite.connection_string(account, ports), of_client.ports, of_worker.ports, None) as (
            client,
            worker,
            direct,
        ),
    ):
        await create_hub(direct, HubNames(name), 4, REAL)
        of_worker.spoil(spoiled, ANSWER_LOST)
        run = Run(name, OldOrder(client, name), said, direct)
        working = asyncio.create_task(OldOrder(worker, name, back_off=BACK_OFF, log=said.append).work())
        try:
            await story(run)
            await run.until_quiet()
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        sent = order.seen_by_proxy("client", of_client.seen) + order.seen_by_proxy("worker", of_worker.seen)
        return sent, {table: [_columns(row) for row in rows] for table, rows in (await run.rows()).items()}, said


def _columns(row: Row) -> dict[str, Any]:
    values = {name: [] if isinstance(value, Instant) else value for name, value in row.values.items()}
    return {"PartitionKey": row.partition, "RowKey": row.key, **values}


@pytest.fixture(scope="module")
def runs(azurite: Azurite) -> dict[str, tuple[list[order.Sent], dict[str, list[dict[str, Any]]], list[str]]]:
    """All of them, side by side: most of the time is waiting."""

    async def main() -> Any:
        return dict(zip(STORIES, await asyncio.gather(*(made_anew(azurite, name) for name in STORIES)), strict=True))

    found: Any = asyncio.run(main())
    return found


@pytest.mark.parametrize("name", STORIES)
def test_the_same_requests(runs: Any, name: str) -> None:
    made, wanted = order.lanes(runs[name][0]), order.lanes(order.recorded(name))
    if name == "StuckHelpless":
        # The recording ends before the terminate message is discarded too.
        assert made["orchestrator of job"].pop() == "queue delete control {}"
    assert made.keys() == wanted.keys()
    for lane, requests in wanted.items():
        assert made[lane] == requests, lane


@pytest.mark.parametrize("name", STORIES)
def test_the_same_rows_at_the_end(runs: Any, name: str) -> None:
    made, tables = runs[name][1], order.recordings()[name]["hub"]
    for table in ("History", "Instances"):
        wanted = [order.named_alike(row) for row in tables[f"Rec{name}{table}"]]
        assert [order.named_alike(row) for row in made[f"{name}{table}"]] == wanted


@pytest.mark.parametrize("name", STORIES)
def test_the_same_words(runs: Any, name: str) -> None:
    """What .NET logged: the split brain that was none, and what was discarded."""
    said = runs[name][2]
    assert sum("Split brain detected" in line for line in said) == 1
    ends = {"StuckFailed": "Failed", "StuckTerminated": "Terminated"}
    discarded = [line for line in said if "Discarding 1 dequeued history event(s): Instance is " in line]
    assert all(line.endswith(ends.get(name, "Completed")) for line in discarded)
    assert len(discarded) == {"StuckHelpless": 3, "SplitMiddle": 0}.get(name, 1)

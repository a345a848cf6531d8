"""What the scan finds although no message comes: a start without its message, rows left behind; whose it is."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import holdtrue
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.reconciling import Pace
from holdtrue.stores.azure_storage.service import Do, Operation, Row, Unsure
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.protocol import InstanceQuery
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_faults import Call, CallFaultList, FaultyService
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, run

PACE = Pace(every_seconds=30.0, requests_a_minute=600.0, fresh_seconds=20.0)

app = holdtrue.App()


@app.orchestrator
async def waits(ctx: holdtrue.OrchestrationContext) -> None:
    await ctx.wait_for_external_event("go")


@app.orchestrator
async def ends(ctx: holdtrue.OrchestrationContext) -> str:
    await ctx.create_timer(timedelta(seconds=1))
    return "over"


class Hub:
    """An account, hosts on it, and who read the instances rows."""

    def __init__(self) -> None:
        self.model = StorageModel(SimulatedEnvironment(1))
        self.scans: list[str] = []
        self.puts_fail = False
        self.failing: list[str | None] | None = None
        """The tokens of the scans' queries, of which every sixth is answered."""
        self._put, self._query = self.model.queues.put, self.model.tables.query
        self.model.queues.put = self._putting  # type: ignore[method-assign]
        self.model.tables.query = self._querying  # type: ignore[method-assign]
        self._hosts = 0

    async def _putting(self, *given: Any, **more: Any) -> Any:
        if self.puts_fail:
            raise Unsure("no answer")
        return await self._put(*given, **more)

    async def _querying(self, table: str, *given: Any, **more: Any) -> Any:
        if table == "ScanInstances" and self.failing is not None:
            self.failing.append(more["token"])
            if len(self.failing) % 6:
                raise Unsure("no answer")
        return await self._query(table, *given, **more)

    async def host(self, **settings: Any) -> holdtrue.Host:
        self._hosts += 1
        name = f"h{self._hosts}"

        def applied(call: Call, given: tuple[Any, ...], outcome: Any) -> None:
            if call.verb == "tables.query" and call.target == "ScanInstances":
                self.scans.append(name)

        service = FaultyService(self.model, Part(name), CallFaultList(()), applied=applied)
        store = AzureStorageStore(
            service,
            "Scan",
            environment=SimulatedEnvironment(self._hosts),
            settings=AzureStorageSettings(
                partition_count=2, max_queue_polling_interval=0.5, lease_acquire_interval=1.0, **settings
            ),
            pace=PACE,
        )
        await store.open()
        given = HostSettings(name=name, retention=False, schedules=False)
        host = holdtrue.Host(app, store, settings=given, environment=SimulatedEnvironment(10 + self._hosts))
        await host.start()
        return host

    def row(self, name: str) -> Row:
        (row,) = self.model.tables.look("ScanInstances", name)  # type: ignore[attr-defined]
        return row  # type: ignore[no-any-return]

    async def spoil(self, name: str, **values: Any) -> None:
        operation = Operation(do=Do.MERGE, partition=name, key="", values=values)
        await self.model.tables.write("ScanInstances", operation)


def on_hub(test: Callable[[Hub], Awaitable[None]]) -> Callable[[], None]:
    def play() -> None:
        async def main() -> None:
            async with asyncio.timeout(3_600):
                await test(Hub())

        run(main())

    play.__name__, play.__doc__ = test.__name__, test.__doc__
    return play


@on_hub
async def test_a_row_that_says_terminated_over_another_end(hub: Hub) -> None:
    """.NET writes it so with allowReplayingTerminalInstances: lists tell what is true, and the row is mended."""
    host = await hub.host()
    client = host.client

    async def listed(*statuses: Status) -> set[str]:
        """In both orders alike."""
        found = [
            {
                record.projection.instance_id
                for record in (
                    await host.store.query(InstanceQuery(statuses=frozenset(statuses), any_order=any_order))
                ).records
            }
            for any_order in (False, True)
        ]
        assert found[0] == found[1]
        return found[0]

    for name in ("one", "two", "old"):
        await client.start(ends, instance_id=name)
        await client.wait_for_completion(name)
    await client.start(waits, instance_id="ended")
    await client.terminate("ended")
    await client.wait_for_completion("ended")
    await hub.spoil("old", RuntimeStatus="Terminated")
    assert await listed(Status.COMPLETED) == {"one", "two", "old"}
    assert await listed(Status.TERMINATED) == {"ended"}
    assert await listed(Status.FAILED) == await listed(Status.RUNNING) == set()
    while hub.row("old").values["RuntimeStatus"] != "Completed":
        await asyncio.sleep(10)
    # And while hosts go on: the scans after the first one look at what was written since.
    await asyncio.sleep(600)
    await hub.spoil("two", RuntimeStatus="Terminated")
    while hub.row("two").values["RuntimeStatus"] != "Completed":
        await asyncio.sleep(10)
    assert hub.row("ended").values["RuntimeStatus"] == "Terminated"
    await host.stop()


@on_hub
async def test_a_row_that_cannot_be_read_does_not_end_the_scan(hub: Hub) -> None:
    """What stands behind it is looked at, in this scan and in all that follow."""
    host = await hub.host()
    for name in ("a", "b", "c", "d", "z"):
        await host.client.start(ends if name == "z" else waits, instance_id=name)
    await host.client.wait_for_completion("z")
    await hub.spoil("b", ExecutionId=7)
    await hub.spoil("c", HoldtrueStart="{garbage", RuntimeStatus="Pending", ExecutionId="another")
    operation = Operation(do=Do.MERGE, partition="d", key="sentinel", values={"Holdtrue": "0:{garbage"})
    await hub.model.tables.write("ScanHistory", operation)
    for _ in range(2):
        await asyncio.sleep(300)
        await hub.spoil("z", RuntimeStatus="Running")
        async with asyncio.timeout(300):
            while hub.row("z").values["RuntimeStatus"] != "Completed":
                await asyncio.sleep(10)
    await host.stop()


@on_hub
async def test_a_start_whose_message_was_never_put(hub: Hub) -> None:
    host = await hub.host()
    hub.puts_fail = True
    start = asyncio.create_task(host.client.start(ends, instance_id="one"))
    await asyncio.sleep(5.0)
    start.cancel()
    hub.puts_fail = False
    assert hub.row("one").values["RuntimeStatus"] == "Pending"
    status = await host.client.wait_for_completion("one", timeout=300)
    assert status.output == "over"
    await host.stop()


@on_hub
async def test_a_row_that_is_left_behind_is_mended_without_any_message(hub: Hub) -> None:
    host = await hub.host()
    await host.client.start(ends, instance_id="one")
    await host.client.wait_for_completion("one")
    await hub.spoil("one", RuntimeStatus="Running")
    await asyncio.sleep(120.0)
    assert hub.row("one").values["RuntimeStatus"] == "Completed"
    assert hub.row("one").values["Output"] == '"over"'
    await host.stop()


@on_hub
async def test_one_host_of_a_hub_scans(hub: Hub) -> None:
    hosts = [await hub.host() for _ in range(2)]
    await hosts[0].client.start(waits, instance_id="one")
    await asyncio.sleep(60.0)
    hub.scans.clear()
    await asyncio.sleep(300.0)
    assert len(set(hub.scans)) == 1
    for host in hosts:
        await host.stop()


@on_hub
async def test_a_scan_goes_on_where_it_was_left(hub: Hub) -> None:
    """After a failure it does not begin anew: what stands behind is reached however often something fails."""
    host = await hub.host()
    for number in range(40):
        await host.client.start(waits, instance_id=f"i{number:02d}")
    await asyncio.sleep(25.0)
    for number in range(40):
        await hub.spoil(f"i{number:02d}", RuntimeStatus="Pending")
    tokens = hub.failing = []
    await asyncio.sleep(1_200.0)
    tables = [hub.row(f"i{number:02d}").values["RuntimeStatus"] for number in range(40)]
    assert tables == ["Running"] * 40
    assert any(token is not None for token in tokens)
    hub.failing = None
    await host.stop()


@on_hub
async def test_beside_dotnet_workers_a_host_looks_after_its_own_partitions(hub: Hub) -> None:
    host = await hub.host(beside_dotnet=True, use_app_lease=False)
    names = [f"i{number}" for number in range(8)]
    for name in names:
        await host.client.start(ends, instance_id=name)
        await host.client.wait_for_completion(name)
    store: Any = host.store
    mine = {name for name in names if store._access.partition_of(name) == 1}
    assert mine and mine != set(names)
    is_mine = store._reconciler._is_mine
    store._reconciler._is_mine = lambda partition: partition == 1 and is_mine(partition)
    for name in names:
        await hub.spoil(name, RuntimeStatus="Running")
    await asyncio.sleep(200.0)
    mended = {name for name in names if hub.row(name).values["RuntimeStatus"] == "Completed"}
    assert mended == mine
    await host.stop()

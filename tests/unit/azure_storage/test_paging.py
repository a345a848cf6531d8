"""Pages of instances: how many rows they read, that none is missing or doubled, and what is not verified."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.core.events import TICKS_PER_SECOND, ExecutionStarted
from holdtrue.core.messages import Start
from holdtrue.core.projection import Status
from holdtrue.stores.azure_storage.service import Do, Instant, Operation, Row, RowPage
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.protocol import CreateRequest, InstanceQuery
from holdtrue.testing.environment import EPOCH, SimulatedEnvironment
from holdtrue.testing.storage_faults import CallFaultList, FaultyService
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, run

SETTINGS = AzureStorageSettings(partition_count=1)


class Hub:
    """A store on a model whose requests are counted, and the rows that its queries got."""

    def __init__(self) -> None:
        self.model = StorageModel(SimulatedEnvironment(3))
        self.service = FaultyService(self.model, Part("p"), CallFaultList(()), applied=self._applied)
        self.store = AzureStorageStore(self.service, "Pages", environment=SimulatedEnvironment(4), settings=SETTINGS)
        self.rows = self.empty = 0

    def _applied(self, call: Any, given: tuple[Any, ...], outcome: Any) -> None:
        if isinstance(outcome, RowPage):
            self.rows += len(outcome.rows)
            self.empty += not outcome.rows and outcome.token is not None

    async def fill(self, *names: str) -> None:
        """Starts, the last one first by the time of creation."""
        for number, name in enumerate(names):
            at = EPOCH - number * TICKS_PER_SECOND
            started = ExecutionStarted(
                timestamp=at, instance_id=name, execution_id=f"x{number}", name="code", input=None
            )
            start = Start(started=started, start_id=f"s{number}", dialect="dotnet")
            await self.store.create([CreateRequest(start=start, replaceable=frozenset())])

    async def ids(self, size: int, **more: Any) -> list[list[str]]:
        """The pages."""
        pages, token = [], None
        while True:
            page = await self.store.query(InstanceQuery(page_size=size, token=token, **more))
            pages.append([record.projection.instance_id for record in page.records])
            token = page.token
            if token is None:
                return pages


def on_hub(test: Callable[[Hub], Awaitable[None]]) -> Callable[[], None]:
    def play() -> None:
        async def main() -> None:
            hub = Hub()
            await hub.store.open()
            await test(hub)

        run(main())

    play.__name__, play.__doc__ = test.__name__, test.__doc__
    return play


NAMES = [f"i{number:03d}" for number in range(120)]


@on_hub
async def test_pages_in_any_order_read_what_they_give(hub: Hub) -> None:
    await hub.fill(*NAMES)
    hub.rows = 0
    pages = await hub.ids(10, any_order=True)
    assert [name for page in pages for name in page] == NAMES
    assert all(len(page) == 10 for page in pages[:-1])
    assert hub.rows <= len(NAMES) + len(pages)  # one row more a page tells that there is another


@on_hub
async def test_pages_in_order_of_creation(hub: Hub) -> None:
    await hub.fill(*NAMES)
    pages = await hub.ids(50)
    assert [name for page in pages for name in page] == NAMES[::-1]
    assert await hub.ids(200, newest_first=True) == [NAMES]


@on_hub
async def test_pages_of_those_that_fit(hub: Hub) -> None:
    await hub.fill(*NAMES)
    asked = {"created_from": EPOCH - 59 * TICKS_PER_SECOND, "any_order": True}
    assert [name for page in await hub.ids(7, **asked) for name in page] == NAMES[:60]
    only = {"statuses": frozenset([Status.COMPLETED]), "any_order": True}
    assert [name for page in await hub.ids(7, **only) for name in page] == []
    assert [name for page in await hub.ids(7, prefix="i11", any_order=True) for name in page] == NAMES[110:]


@on_hub
async def test_a_token_of_another_order_is_refused(hub: Hub) -> None:
    await hub.fill(*NAMES[:3])
    page = await hub.store.query(InstanceQuery(page_size=1))
    with pytest.raises(InvalidInput, match="no token"):
        await hub.store.query(InstanceQuery(page_size=1, token=page.token, any_order=True))


@on_hub
async def test_unverified_statuses_are_as_the_rows_say_and_say_so(hub: Hub) -> None:
    await hub.fill("a", "b")
    values = {
        "RuntimeStatus": "Completed",
        "Output": '"done"',
        "CustomStatus": '"c"',
        "CompletedTime": Instant(EPOCH),
    }
    operation = Operation(do=Do.MERGE, partition="a", key="", values=values)
    await hub.model.tables.write("PagesInstances", operation)
    for any_order in (False, True):
        asked = InstanceQuery(statuses=frozenset([Status.COMPLETED]), any_order=any_order)
        (true,) = (await hub.store.query(asked)).records  # the history is missing: marked so
        assert true.verified and true.condition is not None
        plain = InstanceQuery(statuses=frozenset([Status.COMPLETED]), any_order=any_order, verified=False)
        (record,) = (await hub.store.query(plain)).records
        assert not record.verified and record.projection.status is Status.COMPLETED
        assert (record.projection.output, record.projection.custom_status) == ('"done"', '"c"')
        assert record.projection.completed_at == EPOCH


@on_hub
async def test_pages_of_the_service_may_be_empty(hub: Hub) -> None:
    """Only an absent token ends a query: the model cuts its answers anywhere, and some hold nothing."""
    await hub.fill(*NAMES)
    for _ in range(20):
        assert [name for page in await hub.ids(9, any_order=True) for name in page] == NAMES
    assert hub.empty


def _row(name: str, at: int | None, **values: Any) -> Row:
    times = {} if at is None else {"CompletedTime": Instant(at)}
    return Row(
        partition=name, key="", values={"RuntimeStatus": "Completed", "Name": "code", **times, **values}, etag="e"
    )


def test_what_a_scan_gathers_for_retention_is_bounded() -> None:
    from holdtrue.stores.azure_storage.ended import MOST, Ended, Rule

    ended, rule, other = Ended(lambda row: row.partition), Rule(None, frozenset(["kept"])), Rule("kept", frozenset())
    ended.ask(rule, None)
    ended.ask(other, 50)
    assert not ended.knows(rule, None, 0.0)
    gathering = ended.begin(1.0)
    for number in range(5 * MOST):
        assert gathering.take(_row(f"i{number}", 5 * MOST - number))
    assert gathering.take(_row("child", 0, ParentInstanceId="p")) and gathering.take(_row("endless", None))
    assert gathering.take(_row("k", 7, Name="kept"))
    assert not gathering.take(_row("live", None, RuntimeStatus="Running"))
    ended.finish(gathering)
    assert ended.knows(rule, None, 0.0) and ended.knows(rule, 10, 0.0) and not ended.knows(rule, None, 2.0)
    assert ended.knows(other, 10, 0.0) and not ended.knows(other, None, 0.0)
    assert [one.instance_id for one in ended.expired(rule, 3, None, 10)] == [f"i{5 * MOST - 1}", f"i{5 * MOST - 2}"]
    assert len(ended.expired(rule, None, 5 * MOST - 3, 10)) == 3
    assert len(ended.expired(rule, None, 0, 10 * MOST)) == MOST
    (place,) = ended.expired(other, 8, None, 10)
    ended.gone(place)
    assert ended.expired(other, 8, None, 10) == []


@on_hub
async def test_a_scan_makes_no_more_requests_than_it_may(hub: Hub) -> None:
    from holdtrue.stores.azure_storage.reconciling import Pace

    await hub.fill(*NAMES)
    store = AzureStorageStore(
        hub.service,
        "Pages",
        environment=SimulatedEnvironment(5),
        settings=SETTINGS,
        pace=Pace(every_seconds=10.0, requests_a_minute=60.0),
    )
    await store.open()
    await store.join("h", [], [])

    def made() -> int:
        return sum(count for kind, count in hub.service.counts.items() if kind.startswith("tables.get Pages"))

    await asyncio.sleep(60.0)
    looks = made()
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(120.0)
    passed = asyncio.get_running_loop().time() - began
    assert 0 < made() - looks <= passed  # 60 a minute, and a look is row, sentinel, row again
    await store.leave()

"""A hub whose only host died at some call, settled for .NET: by one run, or by runs that die or meet a mishap.

Everything is in virtual time on the model account.  What a hub holds in the end is told without times and ids of
chance, so that two ways to it can be compared.
"""

import asyncio
import copy
import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from azure_cluster import HUB, SETTINGS
from search import what_died_lies_still

import holdtrue
from holdtrue.engine.finishing import EpisodeFinisher
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.service import Instant
from holdtrue.stores.azure_storage.settling import Settled
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreError
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_faults import Call, CallFaultList, FaultyService
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, as_part, run

NAMES = HubNames(HUB)
WANTED = {
    "chain": 4,
    "fan": 101,
    "listener": ["a", "b", "c"],
    "teller": "told",
    "parent": [2, 2],
    "timer": "over",
    "later": ["early"],
    "again": "3",
    "newcomer": "new",
}
"""What every instance gives in the end."""


def app(*, newcomers: bool = False) -> holdtrue.App:
    """The app of every host; the one that died had no code of `newcomers`."""
    app = holdtrue.App()

    if newcomers:

        @app.orchestrator
        async def newcomer(ctx: holdtrue.OrchestrationContext, given: Any) -> str:
            return str(await ctx.wait_for_external_event("Go"))

    @app.activity
    async def add_one(ctx: holdtrue.ActivityContext, number: int) -> int:
        await asyncio.sleep(0.3)
        return number + 1

    @app.orchestrator
    async def chain(ctx: holdtrue.OrchestrationContext, count: int) -> int:
        number = 0
        for _ in range(count):
            number = await ctx.call_activity(add_one, input=number)
        return number

    @app.orchestrator
    async def fan(ctx: holdtrue.OrchestrationContext, count: int) -> int:
        return len(await holdtrue.when_all([ctx.call_activity(add_one, input=n) for n in range(count)]))

    @app.orchestrator
    async def listener(ctx: holdtrue.OrchestrationContext, count: int) -> list[str]:
        return [await ctx.wait_for_external_event("Go") for _ in range(count)]

    @app.orchestrator
    async def teller(ctx: holdtrue.OrchestrationContext, texts: list[str]) -> str:
        for text in texts:
            ctx.send_event("listener", "Go", data=text)
            ctx.set_custom_status(text)
            await ctx.call_activity(add_one, input=0)
        return "told"

    @app.orchestrator
    async def parent(ctx: holdtrue.OrchestrationContext, count: int) -> list[int]:
        return await holdtrue.when_all(
            [ctx.call_sub_orchestrator(chain, input=count, instance_id=f"child{n}") for n in range(2)]
        )

    @app.orchestrator
    async def timer(ctx: holdtrue.OrchestrationContext, seconds: int) -> str:
        await ctx.create_timer(timedelta(seconds=seconds))
        return "over"

    @app.orchestrator
    async def again(ctx: holdtrue.OrchestrationContext, count: int) -> str:
        got = await ctx.wait_for_external_event("Go")
        if count:
            ctx.continue_as_new(count - 1)
            return ""
        return got

    return app


async def start_all(client: Any) -> None:
    """Start one of each, with what comes from outside."""
    await client.start("listener", input=3, instance_id="listener")
    for name, given in {"chain": 4, "fan": 101, "teller": ["a", "b", "c"], "parent": 2, "timer": 90}.items():
        await client.start(name, input=given, instance_id=name)
    await client.start("newcomer", instance_id="newcomer")
    await client.raise_event("newcomer", "Go", data="new")
    await client.start("again", input=2, instance_id="again")
    await client.start("listener", input=1, instance_id="later", start_at=timedelta(seconds=600))
    await client.raise_event("later", "Go", data="early")
    for text in ("1", "2", "3"):
        await client.raise_event("again", "Go", data=text)
        await asyncio.sleep(0.5)


class World:
    """The model account, through several loops of virtual time one after another."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.clock = SimulatedEnvironment(seed)
        self.model = StorageModel(self.clock)
        self.calls: list[Call] = []
        self._kept: list[Any] = []
        self._parts = 0

    def copy(self) -> "World":
        """One that goes on from here, apart."""
        kept, self._kept = self._kept, []
        try:
            return copy.deepcopy(self)
        finally:
            self._kept = kept

    def part(self, name: str, faults: Sequence[Any] = ()) -> tuple[Part, AzureStorageStore, SimulatedEnvironment]:
        """A process on the account."""
        self._parts += 1
        part = Part(name)
        environment = SimulatedEnvironment(self.seed * 1_000 + self._parts, epoch=self.clock._epoch)
        service = FaultyService(
            self.model,
            part,
            CallFaultList(faults),
            called=lambda call, fault: self.calls.append(call),
            crash=lambda seconds: part.die(),
            pause=lambda seconds: None,
        )
        store = AzureStorageStore(service, HUB, environment=environment, settings=SETTINGS)
        self._kept += [service, store]
        return part, store, environment

    def in_time(self, main: Any) -> Any:
        """Run a coroutine; the clock goes on from where the last one left it."""

        async def timed() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # what died is not missed
            try:
                return await main
            finally:
                took = self.clock.now() - self.clock._epoch
                asyncio.get_running_loop().call_soon(self._went, took)
                await asyncio.sleep(0)

        with what_died_lies_still():
            try:
                return run(timed())
            finally:
                self._kept.clear()

    def _went(self, ticks: int) -> None:
        self.clock._epoch += ticks

    async def host(
        self, faults: Sequence[Any] = (), name: str = "host", *, newcomers: bool = False
    ) -> tuple[Part, holdtrue.Host]:
        """A host at work."""
        code = app(newcomers=newcomers)
        part, store, environment = self.part(name, faults)
        settings = HostSettings(name=name, drain_seconds=2.0, activity_slots=50, retention=False, schedules=False)
        hosts = [holdtrue.Host(code, store, settings=settings, environment=environment)]
        self._kept.append(hosts)

        async def live() -> None:
            while True:
                try:
                    await hosts[-1].start()
                    return
                except StoreError:
                    await asyncio.sleep(1.0)
                    hosts.append(holdtrue.Host(code, store, settings=settings, environment=environment))

        with as_part(part):
            self._kept.append(asyncio.ensure_future(live()))
        return part, hosts[0]

    async def client(self) -> holdtrue.Client:
        """A client without mishaps."""
        _, store, environment = self.part("client")
        await store.open()
        return holdtrue.Client(store, app=app(), environment=environment)

    async def settle(self, faults: Sequence[Any] = (), name: str = "settle", *, leave: bool = True) -> Settled | None:
        """One run of `hub settle`; None where it died or could not be brought to its end."""
        part, store, environment = self.part(name, faults)
        ended: asyncio.Future[Settled | None] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                await store.open()
                ended.set_result(await store.settle(EpisodeFinisher(app(), environment), leave=leave))
            except StoreError:
                ended.set_result(None)
            except BaseException as error:
                ended.set_exception(error)

        with as_part(part):
            self._kept.append(asyncio.ensure_future(work()))
        while not ended.done() and not part.dead:
            await asyncio.sleep(0.25)
        return await ended if ended.done() else None


def died(seed: int, at: int, mishap: Any) -> World:
    """The account as a host leaves it that dies at its call of this number."""
    from holdtrue.testing.storage_faults import CallFault

    world = World(seed)

    async def main() -> None:
        part, _ = await world.host([CallFault(part="host", point=at, mishap=mishap)])
        await asyncio.sleep(1.0)
        client = await world.client()
        await start_all(client)
        for _ in range(240):
            if part.dead:
                break
            await asyncio.sleep(0.5)
        part.die()

    world.in_time(main())
    world.calls.clear()
    return world


def held(world: World) -> dict[str, Any]:
    """What the hub holds: rows and messages, without times, receipts and what is made by chance."""
    tables = {
        table: sorted(
            (row.partition, row.key, _values(row.values))
            for row in world.model.tables._tables[table.lower()].rows.values()  # type: ignore[attr-defined]
        )
        for table in (NAMES.history, NAMES.instances)
    }
    queues = {
        # What is hidden until its time may be there twice; the second one does nothing.
        queue: sorted((text, _waits(text) or count) for text, count in Counter(map(_message, texts)).items())
        for queue, texts in world.model.queues.look().items()
    }
    return {**tables, **queues}


def difference(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """In what two hubs differ, a line each."""
    found = []
    for place in one:
        found += [f"+ {place}: {item}" for item in one[place] if item not in other[place]]
        found += [f"- {place}: {item}" for item in other[place] if item not in one[place]]
    return found


def _values(values: dict[str, Any]) -> str:
    shown = {key: "a time" if isinstance(value, Instant) else value for key, value in values.items()}
    return _CHANCE.sub("", json.dumps(shown, sort_keys=True, default=str))


_CHANCE = re.compile(r"""\\"(episode|previous|key|delivery)\\":(\\"[0-9a-f-]*\\"|\d+),""")
"""What of a sentinel or of a kept message is another each time."""


def _waits(text: str) -> bool:
    return "TimerFired" in text or '"ScheduledStartTime": "' in text


def _message(text: str) -> str:
    found = json.loads(text)
    task = found["TaskMessage"]
    event = {key: value for key, value in task["Event"].items() if key != "Timestamp"}
    return json.dumps([task["OrchestrationInstance"], event], sort_keys=True)


def completed(world: World) -> dict[str, Any]:
    """What every instance gives when a host goes on with the hub, which knows only what .NET would know."""

    async def main() -> dict[str, Any]:
        await world.host(name="after", newcomers=True)
        client = await world.client()
        found: dict[str, Any] = {}
        for name in WANTED:
            status = await client.wait_for_completion(name, timeout=3_600)
            found[name] = status.output if status.failure is None else status.failure
        return found

    return world.in_time(main())  # type: ignore[no-any-return]

"""Part 4 of the story: Holdtrue on the hub that part 1 left, with the same answers lost, and on recorded hubs."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import holdtrue
from holdtrue.client.schedules import ScheduleTick
from holdtrue.client.status import InstanceStatus
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.reconciling import Pace
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.storage_proxy import ANSWER_LOST, Seen

from . import recorded_hubs
from .old_parts import HUB, JOB
from .stage import Part, Stage, beside
from .timeline import HEAD, PATIENCE, TERMINAL, Tables, Timeline, Watch, text_of

TICKS = 5
TITLE = "Holdtrue on the hub that was left so: read true at once, mended, and the job goes on"
SETTINGS = AzureStorageSettings(max_queue_polling_interval=0.5, lease_interval=6.0, lease_acquire_interval=1.0)
PACE = Pace(every_seconds=0.5, requests_a_minute=60_000.0, fresh_seconds=1.0)
"""The reconciler's; a minute each by default."""

app = holdtrue.App()


@app.activity(name="Work")
async def work(ctx: holdtrue.ActivityContext, given: Any) -> str:
    """What the job does."""
    return f"worked {json.dumps(given)}"


@app.orchestrator(name="Singleton")
async def singleton(ctx: holdtrue.OrchestrationContext, given: Any) -> str:
    """The job."""
    return str(await ctx.call_activity(work, input=given))


@asynccontextmanager
async def store_on(stage: Stage, hub: str, *, spoiled: bool) -> AsyncIterator[AzureStorageStore]:
    """An opened store."""
    store = AzureStorageStore(stage.service(spoiled=spoiled), hub, settings=SETTINGS, pace=PACE)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def host_on(store: AzureStorageStore, code: holdtrue.App) -> holdtrue.Host:
    """A host."""
    return holdtrue.Host(code, store, settings=HostSettings(name="holdtrue", retention=False, drain_seconds=1.0))


def each_third_commit(hub: str) -> Any:
    """Every third history transaction of a hub."""
    met = 0

    def matches(seen: Seen) -> bool:
        nonlocal met
        if seen.about.kind != "table transact history" or seen.about.resource != f"{hub}History":
            return False
        met += 1
        return met % 3 == 0

    return matches


async def on_the_same_hub(part: Part, stage: Stage, tick: float) -> Timeline:
    """The row left behind reads true, is mended without a message; then the job goes on, and never misses."""
    part.say("The hub that part 1 left, and nobody has touched it since.  A client reads the status:")
    async with store_on(stage, HUB, spoiled=False) as reading, stage.opened(spoiled=False) as direct:
        client = holdtrue.Client(reading, app=app)
        status = await client.get_status(JOB)
        running = await client.query_page(statuses=[Status.RUNNING])
        told = None if status is None else status.runtime_status
        part.say(f"  {JOB}: {None if told is None else told.name}, {None if status is None else status.output!r}")
        part.say()
        part.say(HEAD)
        async with Watch(direct, HUB, JOB, TITLE, lambda moment: part.say(text_of(moment))) as watch:
            stale = await watch.until(lambda tables: tables.execution is not None, "the first look")
            async with store_on(stage, HUB, spoiled=True) as store:
                watch.note("a host of Holdtrue starts")
                async with host_on(store, app) as host:
                    mended = await watch.until(lambda tables: not tables.differ, "the row's mending")
                    watch.note(f"a schedule starts the job every {tick:g} s; every third commit's answer is lost")
                    rule = stage.proxy.spoil(each_third_commit(HUB), ANSWER_LOST, times=10**9)
                    ticks, ended = await _scheduled(host.client, watch, tick)
    part.say()
    part.claim("the row left behind read true at once", told is Status.COMPLETED, told)
    part.claim(
        "a list of what is running does not have it", not running.items, [one.instance_id for one in running.items]
    )
    part.claim("until then the row said Running", stale.row == "Running" and stale.differ, stale)
    part.claim("it was mended without any message", (mended.row, mended.ends) == ("Completed", ("Completed",)), mended)
    started, missed = [one for one in ticks if one.started], _missed(ticks, ended)
    part.claim(f"{len(started)} of {len(ticks)} ticks started the job, and none was missed", not missed, missed)
    runs = {one.execution_id for one in started}
    part.claim("and each run came to its end", runs <= ended.keys(), runs - ended.keys())
    lost = len(rule.spoiled)
    part.claim(f"while {lost} answers to commits were lost", lost >= TICKS // 2, lost)
    return watch.timeline


async def _scheduled(
    client: holdtrue.Client, watch: Watch, tick: float
) -> tuple[list[ScheduleTick], dict[str | None, datetime | None]]:
    """Let the job run by a schedule; its ticks, and when each of its runs ended."""
    ended: dict[str | None, datetime | None] = {}

    async def look() -> None:
        while True:
            status = await client.get_status(JOB)
            if status is not None and status.completed_at is not None:
                ended[status.execution_id] = status.completed_at
            await asyncio.sleep(0.05)

    async with beside(look()):
        await client.schedules.create(
            "minutely", singleton, interval=tick, instance_id=JOB, input={"minute": "now"}, overlap="skip"
        )
        seen = 0
        async with asyncio.timeout(PATIENCE):
            while True:
                ticks = await client.schedules.ticks("minutely")
                for one in ticks[seen:]:
                    watch.note(f"tick {seen + 1}: {one.decision}")
                    seen += 1
                if sum(one.started for one in ticks) >= TICKS:
                    break
                await asyncio.sleep(0.05)
        await client.schedules.pause("minutely")
        ticks = await client.schedules.ticks("minutely")
        status = await client.wait_for_completion(JOB, timeout=PATIENCE)
        ended[status.execution_id] = status.completed_at
        await watch.until(lambda tables: not tables.differ and tables.row == "Completed", "the last run's row")
    return ticks, ended


def _missed(ticks: Sequence[ScheduleTick], ended: dict[str | None, datetime | None]) -> list[ScheduleTick]:
    """Ticks without a run that should have had one.

    One that meets a run which has not ended has none, nor has one that a slow host decides together with a later one.
    """

    def is_right(one: ScheduleTick) -> bool:
        at = ended.get(one.execution_id)
        met = (
            one.decision == "skipped" and one.status in ("PENDING", "RUNNING") and (at is None or at >= one.decided_at)
        )
        return one.started or met

    decided = {one.decided_at for one in ticks if is_right(one)}
    return [one for one in ticks if one.decided_at not in decided]


async def recorded(part: Part, stage: Stage) -> None:
    """The hubs of the recordings: each instance is read true before any host is there, and each row is mended."""
    part.say(
        "The hubs that the real code of June 2025 left, as recorded; a host of Holdtrue without any code serves them:"
    )
    names, gate = list(recorded_hubs.recorded()), asyncio.Semaphore(3)
    found = await asyncio.gather(*(_recorded(stage, name, gate) for name in names))
    for name, (read, rows) in zip(names, found, strict=True):
        for instance_id, (before, after) in rows.items():
            status = read[instance_id]
            true, failure = status.runtime_status.name.capitalize(), status.failure
            output = status.serialized_output if failure is None else failure.message
            became = "mended" if before.differ else "left alone"
            part.claim(
                f"{name + ' ' + instance_id:28} the row said {before.row}; read {true}, {_short(output)}; {became}",
                true == before.history == after.row and not after.differ,
                (before, status.runtime_status, after),
            )


async def _recorded(
    stage: Stage, name: str, gate: asyncio.Semaphore
) -> tuple[dict[str, InstanceStatus], dict[str, tuple[Tables, Tables]]]:
    hub = recorded_hubs.hub_of(name)
    read: dict[str, InstanceStatus] = {}
    rows: dict[str, tuple[Tables, Tables]] = {}
    async with gate, stage.opened(spoiled=False) as direct:
        await recorded_hubs.put(direct, name)
        instances = [row.partition for row in (await direct.tables.query(f"{hub}Instances")).rows]
        async with store_on(stage, hub, spoiled=False) as store:
            client = holdtrue.Client(store)
            for instance_id in instances:
                status = await client.get_status(instance_id)
                if status is None:
                    raise RuntimeError(f"{name}: the instance {instance_id!r} is not found")
                read[instance_id] = status
            for instance_id in instances:
                async with Watch(direct, hub, instance_id, name) as watch:
                    before = await watch.until(lambda tables: tables.execution is not None, "the first look")
                    rows[instance_id] = before, before
            async with host_on(store, holdtrue.App()):
                for instance_id, (before, _) in rows.items():
                    async with Watch(direct, hub, instance_id, name) as watch:
                        after = await watch.until(lambda tables: tables.row in TERMINAL, f"the row of {instance_id}")
                        rows[instance_id] = before, after
    return read, rows


def _short(text: str | None) -> str:
    text = text or "nothing"
    return text if len(text) <= 24 else text[:23] + "…"

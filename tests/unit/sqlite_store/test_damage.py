"""Damaged files: whatever bytes are wrong, each call answers or says so by a typed error, and none hangs."""

import asyncio
import shutil
from collections.abc import Awaitable
from pathlib import Path
from random import Random

import apsw
import pytest

import holdtrue
from holdtrue.core.projection import Status
from holdtrue.stores import errors
from holdtrue.stores.protocol import InstanceQuery, StoredSchedule, TaskHubStore
from holdtrue.stores.sqlite import SqliteStore
from tests.conformance.acting import (
    SECOND,
    Held,
    Hub,
    act,
    begin,
    child,
    create,
    end,
    ended,
    fail,
    history_of,
    in_hub,
    lock,
    raised,
    send,
    start,
    status_of,
    tell,
    timer,
)

PAGE = 4_096
IDS = [*(f"i{n}" for n in range(8)), *(f"c{n}" for n in range(8)), *(f"d{n}" for n in range(4)), "teller"]


async def fill(hub: Hub) -> None:
    """Some of everything."""
    store = await hub.host(code=["code"])
    for n in range(8):
        later = hub.now() + (n + 1) * 100 * SECOND
        await begin(
            hub, store, f"i{n}", act(0), timer(1, later), child(2, f"c{n}"), input=f'"{"x" * n * 900}"', custom='"c"'
        )
    await send(store, *(raised(f"i{n}", "e", n) for n in range(8)))
    for n in range(4):
        await ended(hub, store, f"d{n}", how=fail() if n % 2 else end())
    await begin(hub, store, "teller", tell(0, "nobody", "e"))
    schedule = StoredSchedule(schedule_id="s", definition="{}", state="{}", due=5, etag=0)
    await store.put_schedule(schedule, expect=None)
    await hub.close()


def damage(data: bytearray, random: Random) -> None:
    """Some bytes, a page, or the end of the file are not what they were."""
    page = random.randrange(len(data) // PAGE) * PAGE
    match random.randrange(5):
        case 0:
            for _ in range(random.randrange(1, 60)):
                data[random.randrange(len(data))] = random.randrange(256)
        case 1:
            for _ in range(random.randrange(1, 40)):
                data[page + random.randrange(PAGE)] = random.randrange(256)
        case 2:
            data[page : page + PAGE] = random.randbytes(PAGE)
        case 3:
            other = random.randrange(len(data) // PAGE) * PAGE
            data[page : page + PAGE] = data[other : other + PAGE]
        case _:
            del data[random.randrange(PAGE, len(data)) :]


async def use(store: TaskHubStore, hub: Hub) -> list[Exception]:
    """Every kind of call; gives what was raised."""
    raised_: list[Exception] = []

    async def attempt(call: Awaitable[object]) -> object:
        try:
            return await call
        except Exception as error:
            raised_.append(error)
            return None

    await attempt(store.open())
    for instance_id in IDS:
        for call in (
            store.status([instance_id]),
            store.activities_of(instance_id),
            store.children(instance_id),
            history_of(store, instance_id),
        ):
            await attempt(call)
    for query in (InstanceQuery(page_size=7), InstanceQuery(statuses=frozenset([Status.FAILED]), newest_first=True)):
        await attempt(store.query(query))
    for call in (
        store.info(),
        store.dead_letters(),
        store.get_schedules(),
        store.join("h", ["code", "child"], ["act"]),
    ):
        await attempt(call)
    hub.clock.ahead = 500
    await attempt(store.fire_due(hub.now()))
    await attempt(store.lock_activities(100))
    locked = await attempt(store.lock(100))
    for one in locked if isinstance(locked, list) else []:
        held = Held(store, one, hub)
        await attempt(held.load() if one.record.length else asyncio.sleep(0))
        try:
            commit = held.episode(end())
        except Exception:
            continue
        await attempt(store.commit([held.committing(commit)]))
    await attempt(store.create([start(f"n{n}") for n in range(9)]))
    await attempt(store.send([raised(instance_id, "z") for instance_id in IDS]))
    await attempt(store.purge(IDS))
    await attempt(store.upkeep())
    await attempt(store.close())
    return raised_


@in_hub
async def test_whatever_bytes_are_wrong_errors_are_typed_and_nothing_hangs(hub: Hub, tmp_path: Path) -> None:
    await fill(hub)
    good = (tmp_path / "hub.db").read_bytes()
    told = 0
    for seed in range(40):
        place = tmp_path / str(seed)
        place.mkdir()
        data = bytearray(good)
        damage(data, Random(seed))
        (place / "hub.db").write_bytes(data)
        hub.clock.ahead = 0.0
        found = await use(SqliteStore(str(place / "hub.db"), environment=hub.clock), hub)
        assert all(isinstance(error, errors.StoreError) for error in found), (seed, found)
        told += bool(found)
        shutil.rmtree(place)
    assert told > 10


@pytest.mark.parametrize(
    "change",
    [
        "update instance set started = cast('{' as blob) where id = 'a'",
        "update instance set status = 77 where id = 'a'",
        "update instance set started = x'' where id = 'a'",
        "update history set events = cast('[{\"e\":99}]' as blob)",
        "update activity set task = cast('[]' as blob)",
    ],
)
@in_hub
async def test_a_row_that_nobody_of_us_wrote_is_told_by_its_instance(hub: Hub, tmp_path: Path, change: str) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0))
    await held.put_back()
    await send(store, raised("a", "e"))
    await create(store, start("b"))
    other = apsw.Connection(str(tmp_path / "hub.db"))
    other.execute(change)
    other.close()
    with pytest.raises(errors.StoreCorrupt, match="cannot be read"):
        await store.status(["a"])
        await history_of(store, "a")
        await store.activities_of("a")
    assert await status_of(store, "b") is Status.PENDING
    with pytest.raises(errors.StoreCorrupt, match="cannot be read"):
        await lock(hub, store)
        await store.lock_activities(1)


def test_a_host_holds_an_instance_whose_history_cannot_be_read_and_goes_on_with_others(tmp_path: Path) -> None:
    app = holdtrue.App()

    @app.orchestrator
    async def waits(ctx: holdtrue.OrchestrationContext, _: None) -> str:
        return str(await ctx.wait_for_external_event("go"))

    async def main() -> None:
        path = tmp_path / "hub.db"
        async with holdtrue.Host(app, path) as host:
            await host.client.start(waits, instance_id="damaged")
            await host.client.wait_for_start("damaged")
        other = apsw.Connection(str(path))
        other.execute("update history set events = cast('[{\"e\":99}]' as blob)")
        other.close()
        async with holdtrue.Host(app, path) as host:
            await host.client.raise_event("damaged", "go", 1)
            async with asyncio.timeout(30):
                while (status := await host.client.get_status("damaged")) is None or status.condition is None:
                    await asyncio.sleep(0.01)
            assert status.condition.kind == "held" and "cannot be read" in str(status.condition.reason)
            await host.client.start(waits, instance_id="sound")
            await host.client.raise_event("sound", "go", 2)
            assert (await host.client.wait_for_completion("sound")).runtime_status is Status.COMPLETED
            assert host.dispatcher.counters.held == 1

    asyncio.run(main())

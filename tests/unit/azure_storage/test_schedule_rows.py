"""Two hosts finish the same tick, one of them late."""

import asyncio
from typing import Any

from holdtrue.stores.azure_storage.service import ANY, Do, Operation
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.protocol import CreateOutcome, StoredSchedule, Tick, TickCommit
from holdtrue.testing import virtual_time
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from tests.conformance.acting import EVERY, NONE, start


def two_hosts(model: StorageModel) -> tuple[AzureStorageStore, AzureStorageStore]:
    slow, quick = (
        AzureStorageStore(
            model, "Ticks", environment=SimulatedEnvironment(n), settings=AzureStorageSettings(partition_count=1)
        )
        for n in (2, 3)
    )
    return slow, quick


def test_a_start_is_recorded_whoever_found_something_in_its_way() -> None:
    """One found the run before still there, the other did not, and started: the record said skipped."""

    async def main() -> None:
        model = StorageModel(SimulatedEnvironment(1))
        slow, quick = two_hosts(model)
        for store in (slow, quick):
            await store.open()
        is_current, go_on = slow._schedules._is_current, asyncio.Event()

        async def late(schedule_id: str, etag: str) -> bool:
            current = await is_current(schedule_id, etag)
            await go_on.wait()
            return current

        slow._schedules._is_current = late  # type: ignore[method-assign]
        etag = await quick.put_schedule(
            StoredSchedule(schedule_id="s", definition="{}", state="0", due=10, etag=0), expect=None
        )
        assert etag is not None
        await quick.create([start("run", over=NONE)])
        tick = TickCommit(
            schedule_id="s",
            etag=etag,
            state="1",
            due=20,
            tick=Tick(schedule_id="s", due=10, decided_at=10, decision="started"),
            request=start("run", over=NONE),
            state_if_refused="refused",
            due_if_refused=30,
        )
        refused = asyncio.ensure_future(slow.commit_tick(tick))
        await asyncio.sleep(5)
        gone = Operation(do=Do.DELETE, partition="run", key="", etag=ANY)
        await model.tables.write("TicksInstances", gone)
        await quick.get_schedules()  # finishes it, where nothing is in its way any more
        assert [one.decision for one in await quick.ticks("s")] == ["started"]
        go_on.set()
        await refused
        assert [one.decision for one in await quick.ticks("s")] == ["started"]
        (stored,) = await quick.get_schedules()
        assert (stored.state, stored.due) == ("1", 20)

    virtual_time.run(main())


def test_what_a_later_tick_started_does_not_make_an_earlier_one_refused() -> None:
    """The record of the first tick was written over as skipped, though it had started its run."""

    async def main() -> None:
        model = StorageModel(SimulatedEnvironment(1))
        slow, quick = two_hosts(model)
        for store in (slow, quick):
            await store.open()
        reads, go_on = slow._schedules._reader, asyncio.Event()
        standing = reads.standing

        async def late(name: str) -> Any:
            await go_on.wait()
            return await standing(name)

        reads.standing = late  # type: ignore[method-assign]
        etag = await quick.put_schedule(
            StoredSchedule(schedule_id="s", definition="{}", state="0", due=10, etag=0), expect=None
        )
        assert etag is not None

        def tick(number: int, etag: int, over: Any) -> TickCommit:
            record = Tick(schedule_id="s", due=10 * number, decided_at=10 * number, decision="started")
            request = start("run", over=over)
            return TickCommit(
                schedule_id="s", etag=etag, state=str(number), due=10 * number + 10, tick=record, request=request
            )

        first = asyncio.ensure_future(slow.commit_tick(tick(1, etag, NONE)))
        await asyncio.sleep(5)
        (stored,) = await quick.get_schedules()  # finishes what the other has not come to
        assert isinstance(await quick.commit_tick(tick(2, stored.etag, EVERY)), CreateOutcome)
        go_on.set()
        await first
        assert [one.decision for one in await quick.ticks("s")] == ["started", "replaced"]
        (stored,) = await quick.get_schedules()
        assert stored.state == "2"

    virtual_time.run(main())

"""A faulty service: what each mishap does to a call, and that a clean run names every one of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdtrue.stores.azure_storage.service import Blobs, Conflict, Do, NotThere, Operation, Queues, Tables, Unsure
from holdtrue.testing import virtual_time
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.faults import SimulationError
from holdtrue.testing.storage_faults import (
    OF_WRITES,
    READS,
    Call,
    CallFault,
    CallFaultList,
    FaultyService,
    Mishap,
    every_fault,
)
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, as_part

INSERT = Operation(do=Do.INSERT, partition="a", key="1")


def with_fault(
    mishap: Mishap | None, act: Callable[[FaultyService, StorageModel], Awaitable[None]], seconds: float = 3.0
) -> None:
    """Run with a service whose third call meets the mishap; the first two make a table and a queue."""

    async def main() -> None:
        model = StorageModel(SimulatedEnvironment(1))
        faults = [] if mishap is None else [CallFault(part="h0", point=3, mishap=mishap, seconds=seconds)]
        service = FaultyService(model, Part("h0"), CallFaultList(faults))
        await service.open()
        await service.tables.create_table("Hub")
        await service.queues.create_queue("hub-q")
        await act(service, model)
        await service.close()

    virtual_time.run(main())


async def there(model: StorageModel) -> bool:
    return await model.tables.get("Hub", "a", "1") is not None


def test_refused_is_not_done_and_lost_is_done_and_neither_is_told() -> None:
    for mishap, done in ((Mishap.REFUSED, False), (Mishap.LOST, True)):

        async def act(service: FaultyService, model: StorageModel, done: bool = done) -> None:
            with pytest.raises(Unsure):
                await service.tables.write("Hub", INSERT)
            assert await there(model) is done

        with_fault(mishap, act)


def test_a_call_of_a_process_that_is_dead_ends_where_it_is() -> None:
    """Nothing of it goes on when it is thrown away: a slow answer does not wait for its time then."""

    async def act(service: FaultyService, model: StorageModel) -> None:
        call = service.tables.write("Hub", INSERT)
        call.send(None)  # type: ignore[attr-defined]
        call.close()  # type: ignore[attr-defined]

    with_fault(Mishap.SLOW_ANSWER, act)


def test_late_is_done_after_the_caller_has_given_up() -> None:
    async def act(service: FaultyService, model: StorageModel) -> None:
        with pytest.raises(Unsure):
            await service.tables.write("Hub", INSERT)
        assert not await there(model)
        await asyncio.sleep(3.1)
        assert await there(model)

    with_fault(Mishap.LATE, act)


def test_resent_is_a_conflict_with_oneself() -> None:
    async def insert(service: FaultyService, model: StorageModel) -> None:
        with pytest.raises(Conflict, match="EntityAlreadyExists"):
            await service.tables.transact("Hub", [INSERT])
        assert await there(model)

    async def merge(service: FaultyService, model: StorageModel) -> None:
        etag = await model.tables.write("Hub", INSERT)
        with pytest.raises(Conflict, match="UpdateConditionNotSatisfied"):
            await service.tables.write("Hub", Operation(do=Do.MERGE, partition="a", key="1", etag=etag))

    async def remove(service: FaultyService, model: StorageModel) -> None:
        id, receipt = await model.queues.put("hub-q", "x")
        with pytest.raises(NotThere, match="MessageNotFound"):
            await service.queues.remove("hub-q", id, receipt)
        assert await model.queues.approximate_count("hub-q") == 0

    async def put(service: FaultyService, model: StorageModel) -> None:
        await service.queues.put("hub-q", "x")
        assert await model.queues.approximate_count("hub-q") == 2

    for act in (insert, merge, remove, put):
        with_fault(Mishap.RESENT, act)


def test_doubled_is_done_again_later() -> None:
    async def act(service: FaultyService, model: StorageModel) -> None:
        await service.queues.put("hub-q", "x")
        assert len(await model.queues.take("hub-q", 32, 600)) == 1
        await asyncio.sleep(3.1)
        assert len(await model.queues.take("hub-q", 32, 600)) == 1

    with_fault(Mishap.DOUBLED, act)


def test_a_get_whose_answer_is_lost_hides_its_messages() -> None:
    async def act(service: FaultyService, model: StorageModel) -> None:
        await model.queues.put("hub-q", "x")
        with pytest.raises(Unsure):
            await service.queues.take("hub-q", 32, 5)
        assert await service.queues.take("hub-q", 32, 5) == []
        await asyncio.sleep(5)
        (message,) = await service.queues.take("hub-q", 32, 5)
        assert message.dequeue_count == 2

    with_fault(Mishap.LOST, act)


def test_slow_delays_the_effect_and_a_slow_answer_only_the_answer_also_of_an_error() -> None:
    for mishap, done in ((Mishap.SLOW, False), (Mishap.SLOW_ANSWER, True)):

        async def act(service: FaultyService, model: StorageModel, done: bool = done) -> None:
            doing = asyncio.ensure_future(service.tables.write("Hub", INSERT))
            await asyncio.sleep(2.9)
            assert not doing.done() and await there(model) is done
            await doing

        with_fault(mishap, act)

    async def refused(service: FaultyService, model: StorageModel) -> None:
        await model.tables.write("Hub", INSERT)
        before = asyncio.get_running_loop().time()
        with pytest.raises(Conflict):
            await service.tables.write("Hub", INSERT)
        assert asyncio.get_running_loop().time() - before == pytest.approx(3)

    with_fault(Mishap.SLOW_ANSWER, refused)


@pytest.mark.parametrize("mishap", [Mishap.CRASH_BEFORE, Mishap.CRASH_AFTER, Mishap.PAUSE_BEFORE, Mishap.PAUSE_AFTER])
def test_a_crash_or_a_pause_comes_before_or_after_the_effect(mishap: Mishap) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualLoop)
        model = StorageModel(SimulatedEnvironment(1))
        await model.tables.create_table("Hub")
        part = Part("h0")
        stopped: list[tuple[str, bool]] = []

        def stop(kind: str) -> Callable[[float], None]:
            def now(seconds: float) -> None:
                stopped.append((kind, bool(model.tables._tables["hub"].rows)))  # type: ignore[attr-defined]
                if kind == "crash":
                    part.die()
                else:
                    part.paused = True
                    with as_part(None):
                        loop.call_later(seconds, loop.resume, part)

            return now

        fault = CallFault(part="h0", point=1, mishap=mishap, seconds=60.0)
        service = FaultyService(model, part, CallFaultList([fault]), crash=stop("crash"), pause=stop("pause"))
        with as_part(part):
            doing = asyncio.ensure_future(service.tables.write("Hub", INSERT))
        await asyncio.sleep(59)
        assert not doing.done()
        await asyncio.sleep(2)
        crash = mishap in (Mishap.CRASH_BEFORE, Mishap.CRASH_AFTER)
        after = mishap in (Mishap.CRASH_AFTER, Mishap.PAUSE_AFTER)
        assert stopped == [("crash" if crash else "pause", after)]
        assert doing.done() is not crash
        assert await there(model) is (mishap is not Mishap.CRASH_BEFORE)
        doing.cancel()

    virtual_time.run(main())


def test_calls_are_counted_by_kind_and_a_clean_run_names_every_fault() -> None:
    calls: list[Call] = []
    applied: list[tuple[str, Any]] = []

    async def main() -> None:
        model = StorageModel(SimulatedEnvironment(1))
        service = FaultyService(
            model,
            Part("h0"),
            CallFaultList(),
            called=lambda call, fault: calls.append(call),
            applied=lambda call, given, outcome: applied.append((call.verb, outcome)),
        )
        await service.tables.create_table("Hub")
        for _ in range(2):
            await service.tables.get("Hub", "a", "1")
        await service.tables.write("Hub", INSERT)
        with pytest.raises(Conflict):
            await service.tables.write("Hub", INSERT)
        assert service.counts == {"tables.create_table Hub": 1, "tables.get Hub": 2, "tables.write Hub": 2}

    virtual_time.run(main())
    assert [(call.point, call.verb, call.nth) for call in calls] == [
        (1, "tables.create_table", 1),
        (2, "tables.get", 1),
        (3, "tables.get", 2),
        (4, "tables.write", 1),
        (5, "tables.write", 2),
    ]
    assert [verb for verb, _ in applied] == [call.verb for call in calls]
    assert isinstance(applied[-1][1], Conflict)
    faults = list(every_fault(calls))
    assert len(faults) == 3 * len(Mishap) + 2 * (len(Mishap) - len(OF_WRITES))
    assert not {fault.point for fault in faults if fault.mishap is Mishap.LATE} & {2, 3}


def test_the_reads_are_named_as_the_port_names_them() -> None:
    for verb in READS:
        part, _, method = verb.partition(".")
        assert callable(getattr({"tables": Tables, "queues": Queues, "blobs": Blobs}[part], method))


def test_a_part_that_uses_anothers_service_is_told() -> None:
    async def act(service: FaultyService, model: StorageModel) -> None:
        with as_part(Part("h1")):
            doing = asyncio.ensure_future(service.tables.get("Hub", "a", "1"))
        with pytest.raises(SimulationError, match="each has its own"):
            await doing

    with_fault(None, act)


def test_without_a_way_to_crash_a_crash_is_refused() -> None:
    async def act(service: FaultyService, model: StorageModel) -> None:
        with pytest.raises(SimulationError, match="nobody said"):
            await service.tables.get("Hub", "a", "1")

    with_fault(Mishap.CRASH_BEFORE, act)

"""What the policy does not keep is purged in small batches, and nothing else."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.core.events import TICKS_PER_SECOND, ExecutionStarted, ParentInstance
from holdtrue.core.projection import Status, initial
from holdtrue.engine.retention import BATCH, RetentionPolicy, RetentionRule, RetentionService
from holdtrue.stores.errors import StoreUnavailable
from holdtrue.stores.protocol import Purged
from tests.unit.schedules.virtual import START, FakeHub, Instance, VirtualEnvironment, in_virtual_time

DAY = 86_400 * TICKS_PER_SECOND


def add(hub: FakeHub, instance_id: str, name: str, days_ago: float, status: Status = Status.COMPLETED) -> Instance:
    started = ExecutionStarted(timestamp=START, instance_id=instance_id, execution_id="e", name=name)
    hub.instances[instance_id] = instance = Instance(initial(started), started, "")
    instance.projection.status = status
    if status.is_terminal:
        instance.projection.completed_at = START - int(days_ago * DAY)
    return instance


def sweep(hub: FakeHub, policy: RetentionPolicy) -> RetentionService:
    async def body() -> RetentionService:
        service = RetentionService(hub, VirtualEnvironment(), policy)  # type: ignore[arg-type]
        await service.sweep()
        return service

    return in_virtual_time(body)


def test_by_default_thirty_days_and_any_number() -> None:
    hub = FakeHub()
    for status in Status:
        add(hub, f"old {status.name}", "a", 31, status)
        add(hub, f"new {status.name}", "a", 29, status)
    for number in range(3 * BATCH):
        add(hub, f"many {number}", "a", 1)
    service = sweep(hub, RetentionPolicy())
    gone = {f"old {status.name}" for status in Status if status.is_terminal}
    assert {f"old {status.name}" for status in Status} - hub.instances.keys() == gone
    assert len(hub.instances) == 16 - len(gone) + 3 * BATCH
    assert service.counters.instances == len(gone)


def test_by_count_the_oldest_go() -> None:
    hub = FakeHub()
    for number in range(10):
        add(hub, f"{number}", "a", number)
    sweep(hub, RetentionPolicy(max_age=None, max_count=3))
    assert sorted(hub.instances) == ["0", "1", "2"]


def test_a_rule_of_its_own() -> None:
    hub = FakeHub()
    for name in ("a", "b", "c", "d"):
        for number in range(5):
            add(hub, f"{name}{number}", name, number * 10)
    sweep(
        hub,
        RetentionPolicy(
            max_age=timedelta(days=15),
            per_orchestration={
                "a": RetentionRule(max_count=1),
                "b": RetentionRule(),
                "c": RetentionRule(max_age=timedelta(days=35)),
            },
        ),
    )
    assert sorted(hub.instances) == [
        "a0", *(f"b{n}" for n in range(5)), *(f"c{n}" for n in range(4)), "d0", "d1",
    ]  # fmt: skip


def test_everything_is_kept() -> None:
    hub = FakeHub()
    add(hub, "old", "a", 4000)

    async def body() -> None:
        await RetentionService(hub, VirtualEnvironment(), RetentionPolicy(keep_everything=True)).run()  # type: ignore[arg-type]
        await RetentionService(hub, VirtualEnvironment(), RetentionPolicy(max_age=None)).run()  # type: ignore[arg-type]

    in_virtual_time(body)
    assert list(hub.instances) == ["old"]


def test_children_go_with_their_parent_only() -> None:
    hub = FakeHub()
    child = add(hub, "child", "a", 100)
    child.projection.parent = ParentInstance(instance_id="p", execution_id="e", task_id=0, scheduled=0)
    sweep(hub, RetentionPolicy())
    assert list(hub.instances) == ["child"]


def test_small_batches_with_pauses_and_what_is_refused_is_left() -> None:
    hub = FakeHub()
    for number in range(2 * BATCH + 7):
        add(hub, f"{number:04d}", "a", 40)

    async def body() -> None:
        environment = VirtualEnvironment()
        service = RetentionService(hub, environment, RetentionPolicy())  # type: ignore[arg-type]
        assert await service.sweep() == 2 * BATCH + 7
        assert environment.monotonic() > 0
        assert [len(batch) for batch in hub.purges] == [BATCH, BATCH, 7]

        async def refuse(instance_ids: Any, *, recursive: bool = True) -> Purged:
            return Purged(refused=list(instance_ids))

        for number in range(BATCH):
            add(hub, f"{number:04d}", "a", 40)
        hub.purge = refuse  # type: ignore[method-assign]
        assert await service.sweep() == 0

    in_virtual_time(body)


def test_it_goes_on_after_a_failure() -> None:
    async def body() -> None:
        hub = FakeHub()
        service = RetentionService(hub, VirtualEnvironment(), RetentionPolicy())  # type: ignore[arg-type]
        purge = hub.purge

        async def fail(instance_ids: Any, *, recursive: bool = True) -> Purged:
            raise StoreUnavailable("the disk is full: make room")

        hub.purge = fail  # type: ignore[method-assign]
        add(hub, "old", "a", 40)
        task = asyncio.ensure_future(service.run())
        await asyncio.sleep(200)
        assert 3 <= service.counters.errors <= 10
        hub.purge = purge  # type: ignore[method-assign]
        await asyncio.sleep(90)
        assert not hub.instances
        add(hub, "later", "a", 40)
        await asyncio.sleep(90)
        assert not hub.instances
        task.cancel()

    in_virtual_time(body)


def test_negative_limits_are_refused() -> None:
    with pytest.raises(InvalidInput, match="max_age"):
        RetentionPolicy(max_age=timedelta(days=-1))
    with pytest.raises(InvalidInput, match="max_count"):
        RetentionRule(max_count=-1)

"""What was in somebody's hands when a backup was made is nobody's in the hub restored from it, and goes on."""

from pathlib import Path

import pytest

from holdtrue.core.projection import Status
from holdtrue.stores.sqlite import SqliteStore
from holdtrue.stores.sqlite.backup import restore
from tests.conformance.acting import Hub, act, begin, end, in_hub, lock
from tests.conformance.test_giving_back import RESTS, WORKS, Situation


@pytest.mark.parametrize("situation", [*RESTS, *WORKS], ids=lambda each: each.__name__)
@in_hub
async def test_restored_it_is_offered_if_it_has_something_to_do(hub: Hub, tmp_path: Path, situation: Situation) -> None:
    store = await hub.host("one")
    await situation(hub, store)
    await store.backup(str(tmp_path / "copy.db"))
    restore(str(tmp_path / "restored.db"), str(tmp_path / "copy.db"))
    restored = SqliteStore(str(tmp_path / "restored.db"), environment=hub.clock)
    await restored.open()
    try:
        assert (await restored.info()).hosts == []
        await restored.join("new", ["code"], ["act"])
        offered = [locked.record.projection.instance_id for locked in await restored.lock(10)]
        assert offered == (["a"] if situation in WORKS else [])
    finally:
        await restored.close()


@in_hub
async def test_a_work_item_that_was_running_is_run_again_in_the_restored_hub(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), act(1))
    (running,) = await store.lock_activities(1)
    await store.backup(str(tmp_path / "copy.db"))
    await held.step(end())
    restore(str(tmp_path / "restored.db"), str(tmp_path / "copy.db"))
    restored = SqliteStore(str(tmp_path / "restored.db"), environment=hub.clock)
    await restored.open()
    try:
        await restored.join("new", ["code"], ["act"])
        assert sorted((item.task.task_id, item.run) for item in await restored.lock_activities(10)) == [(0, 2), (1, 1)]
        assert not (await restored.report(running.ref, None, None))
        (record,) = await restored.status(["a"])
        assert record is not None and record.projection.status is Status.RUNNING
    finally:
        await restored.close()
    assert await lock(hub, store) == {}

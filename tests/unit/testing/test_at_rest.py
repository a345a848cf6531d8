"""What was imported to be looked at stays at rest, also through a copy of the hub and its restore."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdtrue.core import events as ev
from holdtrue.core.messages import ActivityTask
from holdtrue.core.projection import Status, initial
from holdtrue.stores.memory import MemoryHub, MemoryStore, read_backup
from holdtrue.stores.protocol import ActivityCopy, InstanceCopy, InstanceRecord
from holdtrue.stores.sqlite import SqliteStore, restore
from tests.unit.testing.histories import all_of, plain


def waiting() -> InstanceCopy:
    """An instance with a work item."""
    started = ev.ExecutionStarted(timestamp=1, instance_id="one", execution_id="x", name="job")
    projection = initial(started)
    projection.status = Status.RUNNING
    task = ActivityTask(instance_id="one", execution_id="x", task_id=0, scheduled=2, name="act")
    return InstanceCopy(
        record=InstanceRecord(projection=projection, started=started, start_id="x", dialect="dotnet", length=3),
        history=[ev.OrchestratorStarted(timestamp=1), started, ev.TaskScheduled(timestamp=1, event_id=0, name="act")],
        activities=[ActivityCopy(task=task, at=1)],
        wake=True,
    )


@pytest.mark.parametrize("run", [False, True])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_through_backup_and_restore(kind: str, run: bool, tmp_path: Path) -> None:
    backup, path = str(tmp_path / "copy"), str(tmp_path / "restored.db")

    async def main() -> None:
        store: Any = SqliteStore(str(tmp_path / "hub.db")) if kind == "sqlite" else MemoryStore(MemoryHub())
        await store.open()
        await store.put_copies([waiting()], run=run)
        await store.backup(backup)
        await store.close()
        if kind == "sqlite":
            restore(path, backup)
        again: Any = SqliteStore(path) if kind == "sqlite" else MemoryStore(read_backup(backup))
        await again.open()
        (record,) = await again.status(["one"])
        assert record.at_rest is not run
        await again.join("host", ["job"], ["act"])
        assert len(await again.lock(10)) == len(await again.lock_activities(10)) == int(run)
        assert plain(await all_of(again))[0].history == waiting().history
        await again.close()

    asyncio.run(main())

"""Rule 10 beside .NET: the row that it writes last, and blindly, comes before, while, or after we start anew."""

import asyncio

import pytest

from holdtrue.core.events import (
    TICKS_PER_SECOND,
    ExecutionCompleted,
    ExecutionStarted,
    OrchestratorCompleted,
    OrchestratorStarted,
)
from holdtrue.core.messages import Start
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.azure_storage.instances_row import start_values
from holdtrue.stores.azure_storage.names import row_key
from holdtrue.stores.azure_storage.rows import event_values
from holdtrue.stores.azure_storage.service import Do, Instant, Operation
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.protocol import CreateOutcome, CreateRequest, CreateResult
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_faults import Call, CallFault, CallFaultList, FaultyService, Mishap
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, run

LATE = 61.0
"""Seconds after which .NET's row is not waited for any more."""


class Scene:
    """A hub where a .NET worker has just committed an end, and has yet to write its row."""

    def __init__(self) -> None:
        self.model = StorageModel(SimulatedEnvironment(1))
        self.environment = SimulatedEnvironment(2)
        self.calls: list[Call] = []
        self.outcome: CreateOutcome | None = None
        self.took = 0.0

    async def ended(self, owner: str = "a .NET worker") -> None:
        store = AzureStorageStore(
            self.model, "Late", environment=self.environment, settings=AzureStorageSettings(partition_count=1)
        )
        await store.open()
        await store.close()
        tables, now = self.model.tables, self.environment.now()
        await tables.write(
            "LatePartitions",
            Operation(
                do=Do.MERGE,
                partition="",
                key="late-control-00",
                values={"CurrentOwner": owner, "ExpiresAt": Instant(now + 3_600 * TICKS_PER_SECOND)},
            ),
        )
        started = ExecutionStarted(timestamp=now, instance_id="job", execution_id="old", name="Job")
        await self.write_row(start_values(started, hub="Late", start_id="", at=now) | {"StartId": None})
        await self.write_row({"RuntimeStatus": "Running"})
        events = (
            OrchestratorStarted(timestamp=now),
            started,
            ExecutionCompleted(timestamp=now, status=Status.COMPLETED, result="1"),
            OrchestratorCompleted(timestamp=now),
        )
        rows = [
            Operation(do=Do.INSERT, partition="job", key=row_key(n), values=event_values(event, "old"))
            for n, event in enumerate(events)
        ]
        values = {"ExecutionId": "old", "IsCheckpointComplete": True, "CheckpointCompletedTimestamp": Instant(now)}
        rows.append(Operation(do=Do.INSERT, partition="job", key="sentinel", values=values))
        await tables.transact("LateHistory", rows)

    async def write_row(self, values: dict) -> None:  # type: ignore[type-arg]
        await self.model.tables.write("LateInstances", Operation(do=Do.MERGE, partition="job", key="", values=values))

    async def late_row(self) -> None:
        """What .NET merges at an end, whatever stands there."""
        at = Instant(self.environment.now())
        await self.write_row(
            {
                "CustomStatus": "null",
                "ExecutionId": "old",
                "LastUpdatedTime": at,
                "TaskHubName": "Late",
                "ParentInstanceId": "",
                "RuntimeStatus": "Completed",
                "CompletedTime": at,
                "Output": "1",
            }
        )

    async def start(self, late_before: int | None = None, lost: int | None = None) -> None:
        """Start anew; .NET's row comes just before one of our calls has its effect, the answer of another is lost."""
        faults = []
        if late_before is not None:
            faults.append(CallFault(part="c", point=late_before, mishap=Mishap.SLOW, seconds=2.0))
        if lost is not None and lost != late_before:
            faults.append(CallFault(part="c", point=lost, mishap=Mishap.LOST))
        reached = asyncio.Event()

        def called(call: Call, fault: CallFault | None) -> None:
            self.calls.append(call)
            if call.point == late_before:
                reached.set()

        service = FaultyService(self.model, Part("c"), CallFaultList(()), called=called)
        store = AzureStorageStore(service, "Late", environment=self.environment)
        await store.open()
        service.points = 0
        service._faults = CallFaultList(faults)
        self.calls.clear()

        async def write() -> None:
            await reached.wait()
            await asyncio.sleep(1.0)
            await self.late_row()

        writing = asyncio.ensure_future(write())
        started = ExecutionStarted(
            timestamp=self.environment.now(), instance_id="job", execution_id="new", name="Job", input="2"
        )
        request = CreateRequest(start=Start(started=started, start_id="s", dialect="dotnet"), replaceable=TERMINAL)
        began = self.environment.monotonic()
        (self.outcome,) = await store.create([request])
        self.took = self.environment.monotonic() - began
        writing.cancel()
        await store.close()

    async def is_started(self) -> None:
        """The row is the start's, so that .NET runs its message when that comes; and it comes."""
        row = await self.model.tables.get("LateInstances", "job", "")
        assert row is not None
        shown = [row.values.get(name) for name in ("ExecutionId", "StartId", "RuntimeStatus", "Input", "Output")]
        assert shown == ["new", "s", "Pending", "2", None]
        assert self.outcome is not None
        assert self.outcome.result in (CreateResult.CREATED, CreateResult.REPLACED)
        assert self.outcome.execution_id == "new"
        (message, *more) = await self.model.queues.take("late-control-00", 32, 30)
        assert '"ExecutionId":"new"' in message.text
        assert all(one.text == message.text for one in more)


def played(moment: int | None = None, lost: int | None = None) -> list[Call]:
    """The calls of a start when .NET's row comes just before the one of that number."""
    scene = Scene()

    async def main() -> None:
        await scene.ended()
        await asyncio.sleep(LATE)
        await scene.start(moment, lost)
        await scene.is_started()

    run(main())
    return scene.calls


@pytest.mark.parametrize("lost", [False, True], ids=["", "the write's answer is lost"])
def test_the_row_comes_at_any_moment_of_a_start(lost: bool) -> None:
    """The latest moment is the last look at the row."""
    calls = played()
    assert len(calls) >= 5
    write = next(call.point for call in calls if call.kind == "tables.write LateInstances")
    if lost:
        calls = played(lost=write)
    for call in calls:
        assert len(played(call.point, write if lost else None)) >= 5


@pytest.mark.parametrize("seconds", [0.3, 5.0, 30.0, 59.0])
def test_a_start_waits_for_the_row(seconds: float) -> None:
    scene = Scene()

    async def main() -> None:
        await scene.ended()
        starting = asyncio.ensure_future(scene.start())
        await asyncio.sleep(seconds)
        assert not starting.done()
        await scene.late_row()
        await starting
        await scene.is_started()

    run(main())
    assert scene.took < seconds + 2


@pytest.mark.parametrize(("owner", "least", "most"), [("a .NET worker", 59, 62), ("holdtrue-h1", 0, 1)])
def test_for_how_long(owner: str, least: float, most: float) -> None:
    """A row that never comes is the known failure; where no .NET worker serves, none can come."""
    scene = Scene()

    async def main() -> None:
        await scene.ended(owner)
        await scene.start()
        await scene.is_started()

    run(main())
    assert least <= scene.took <= most


def test_a_refused_start_does_not_wait() -> None:
    scene = Scene()

    async def main() -> None:
        await scene.ended()
        store = AzureStorageStore(scene.model, "Late", environment=scene.environment)
        await store.open()
        started = ExecutionStarted(timestamp=0, instance_id="job", execution_id="new", name="Job")
        request = CreateRequest(start=Start(started=started, start_id="s", dialect="dotnet"), replaceable=frozenset())
        (outcome,) = await store.create([request])
        assert (outcome.result, outcome.status) == (CreateResult.REFUSED, Status.COMPLETED)

    run(main())

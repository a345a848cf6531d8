"""A rewind in .NET's way: the rows that its client turned in the recording *Rewind*, and its message."""

from typing import Any

import pytest

import holdtrue
from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.stores.azure_storage.row_reading import rewound_from
from holdtrue.stores.azure_storage.service import Do, Instant, Operation, Row, Value
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_faults import CallFault, CallFaultList, FaultyService, Mishap
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, run
from tests.unit.azure_storage.recorded import columns, history_rows

Rows = dict[str, dict[str, Any]]


def recording() -> tuple[Rows, Rows]:
    """The rows of *Rewind* before its first rewind, and those that the rewind turned."""
    rows = [row for name, _, row in history_rows() if name == "Rewind"]
    before = {row["RowKey"]: row for row in rows if rewound_from(row) is None and row["RowKey"][-2:] <= "0B"}
    turned = [row for row in rows if rewound_from(row) is not None][:3]
    return before, {row["RowKey"]: row for row in turned}


class Hub:
    """A hub that a .NET worker serves, with what it has failed."""

    def __init__(self, lost: int | None = None) -> None:
        self.environment = SimulatedEnvironment(1)
        self.model = StorageModel(self.environment)
        faults = [] if lost is None else [CallFault(part="c", point=lost, mishap=Mishap.LOST)]
        self.service = FaultyService(self.model, Part("c"), CallFaultList(faults))
        settings = AzureStorageSettings(partition_count=1)
        self.store = AzureStorageStore(self.service, "Rewind", environment=self.environment, settings=settings)
        self.client = holdtrue.Client(self.store, environment=self.environment)

    async def open(self) -> None:
        await self.store.open()
        self.service.points = 0
        now = self.environment.now()
        await self.merge("RewindPartitions", "", "rewind-control-00", CurrentOwner="net", ExpiresAt=Instant(now * 2))

    async def merge(self, table: str, partition: str, key: str, **values: Value | None) -> None:
        await self.model.tables.write(table, Operation(do=Do.MERGE, partition=partition, key=key, values=values))

    async def failed(self, name: str, rows: Rows, output: str = "flaky 0") -> None:
        """As .NET leaves it."""
        execution = next(iter(rows.values()))["ExecutionId"]
        at = Instant(self.environment.now() - TICKS_PER_SECOND)
        for key, row in rows.items():
            await self.merge("RewindHistory", name, key, **columns(row))
        await self.merge(
            "RewindHistory",
            name,
            "sentinel",
            ExecutionId=execution,
            IsCheckpointComplete=True,
            CheckpointCompletedTimestamp=at,
        )
        await self.merge(
            "RewindInstances",
            name,
            "",
            ExecutionId=execution,
            Name="Rewindable",
            Version="",
            RuntimeStatus="Failed",
            CreatedTime=at,
            LastUpdatedTime=at,
            CompletedTime=at,
            Output=output,
        )

    async def rows(self, name: str) -> dict[str, Row]:
        rows: list[Row] = []
        token: str | None = None
        while True:
            page = await self.model.tables.query("RewindHistory", token=token)
            rows += [row for row in page.rows if row.partition == name]
            token = page.token
            if token is None:
                return {row.key: row for row in rows}

    async def status(self, name: str) -> Value | None:
        row = await self.model.tables.get("RewindInstances", name, "")
        return None if row is None else row.values["RuntimeStatus"]

    async def messages(self) -> list[str]:
        return [one.text for one in await self.model.queues.take("rewind-control-00", 32, 30)]


@pytest.mark.parametrize("lost", [None, *range(1, 13)])
def test_it_turns_the_rows_that_dotnet_turns(lost: int | None) -> None:
    """Once, also where an answer is lost."""
    before, turned = recording()
    assert len(turned) == 3

    async def main() -> None:
        hub = Hub(lost)
        await hub.open()
        await hub.failed("rw", before)
        await hub.client.rewind("rw", "once more")
        rows = await hub.rows("rw")
        assert rows.keys() == {*before, "sentinel"}
        for key, row in rows.items():
            if key != "sentinel":
                assert dict(row.values) == {
                    name: value for name, value in columns(turned.get(key, before[key])).items() if value is not None
                }
        assert await hub.status("rw") == "Pending"
        messages = await hub.messages()
        assert messages
        for text in messages:
            assert '"$type":"DurableTask.Core.History.GenericEvent","Data":"once more"' in text
            assert (
                '"OrchestrationInstance":{"$type":"DurableTask.Core.OrchestrationInstance","InstanceId":"rw","Ex'
                in text
            )

    run(main())


def test_the_child_that_failed_is_rewound_and_gets_the_message() -> None:
    before, turned = recording()
    kinds = {"TaskScheduled": "SubOrchestrationInstanceCreated", "TaskFailed": "SubOrchestrationInstanceFailed"}
    parent = {
        key: {**row, "EventType": kinds[row["EventType"]], "InstanceId": "child"}
        if row["EventType"] in kinds and row.get("TaskScheduledId", row["EventId"]) == 1
        else row
        for key, row in before.items()
    }

    async def main() -> None:
        hub = Hub()
        await hub.open()
        await hub.failed("parent", parent)
        await hub.failed("child", before)
        await hub.client.rewind("parent", "once more")
        found = {key: rewound_from(row.values) for key, row in (await hub.rows("parent")).items()}
        assert {kind for kind in found.values() if kind} == {"SubOrchestrationInstanceFailed", "ExecutionCompleted"}
        found = {key: rewound_from(row.values) for key, row in (await hub.rows("child")).items()}
        assert {key for key, kind in found.items() if kind} == set(turned)
        assert [await hub.status(name) for name in ("parent", "child")] == ["Pending", "Pending"]
        (text,) = await hub.messages()
        assert '"InstanceId":"child"' in text

    run(main())


def test_the_message_of_ours_goes_where_no_dotnet_worker_serves() -> None:
    before, _ = recording()

    async def main() -> None:
        hub = Hub()
        await hub.open()
        await hub.merge("RewindPartitions", "", "rewind-control-00", CurrentOwner="holdtrue-h")
        await hub.failed("rw", before)
        await hub.client.rewind("rw", "once more")
        (text,) = await hub.messages()
        assert "ExecutionRewound" in text

    run(main())


def test_an_end_that_was_turned_twice_is_known_by_its_own_column() -> None:
    """.NET asks for ends by `OrchestrationStatus`, which a turned row keeps; the type that it notes is lost then."""
    _, turned = recording()
    ends = [row for row in turned.values() if rewound_from(row) == "ExecutionCompleted"]
    assert ends
    for row in ends:
        assert rewound_from({**row, "Reason": "Rewound: GenericEvent"}) == "ExecutionCompleted"
    task = next(row for row in turned.values() if rewound_from(row) == "TaskScheduled")
    assert rewound_from({**task, "Reason": "Rewound: GenericEvent"}) == "GenericEvent"

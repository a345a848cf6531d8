"""Writes whose answers say nothing, and those whose refusal says something."""

import asyncio
from typing import Any

import pytest

from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.access import Access
from holdtrue.stores.azure_storage.beside import refuse_beside
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.partition_table import PartitionTable
from holdtrue.stores.azure_storage.partitions import Terms
from holdtrue.stores.azure_storage.service import ANY, Conflict, Do, Operation, Unsure
from holdtrue.stores.azure_storage.service import Test as Where
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_faults import CallFaultList, FaultyService
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, run


class Tables:
    """Tables that refuse the first write."""

    def __init__(self) -> None:
        self.writes: list[Any] = []

    async def write(self, table: str, operation: Operation) -> str:
        return self._etag(operation)

    async def transact(self, table: str, operations: list[Operation]) -> list[str]:
        return [self._etag(operations)]

    def _etag(self, written: Any) -> str:
        self.writes.append(written)
        if len(self.writes) == 1:
            raise Conflict(412, "UpdateConditionNotSatisfied")
        return "etag"

    async def query(self, table: str, **given: Any) -> Any:
        await asyncio.Event().wait()


class Service:
    def __init__(self) -> None:
        self.tables = Tables()


def access() -> tuple[Access, Tables]:
    service: Any = Service()
    return Access(service, HubNames("Hub"), REAL), service.tables


def row(**more: Any) -> Operation:
    return Operation(do=Do.REPLACE, partition="p", key=more.pop("key", "k"), **more)


@pytest.mark.parametrize("operation", [row(), Operation(do=Do.DELETE, partition="p", key="k", etag=ANY)])
def test_a_write_without_a_condition_has_no_conflict(operation: Operation) -> None:
    """Only what stands between could say so, and it says nothing of the write."""
    to, tables = access()
    assert asyncio.run(to.write_own(operation)) == "etag"
    assert tables.writes == [operation] * 2


@pytest.mark.parametrize("operation", [row(etag="e"), Operation(do=Do.INSERT, partition="p", key="k")])
def test_a_refused_condition_is_told(operation: Operation) -> None:
    to, tables = access()
    with pytest.raises(Conflict):
        asyncio.run(to.write_own(operation))
    assert tables.writes == [operation]


def test_many_rows_go_with_one_request() -> None:
    to, tables = access()
    rows = [row(key=f"{n:03}") for n in range(120)]
    asyncio.run(to.put_own(rows))
    assert [len(written) for written in tables.writes] == [100, 100, 20]  # the first was refused once


def test_many_rows_are_deleted_by_the_hundred_also_where_some_are_gone() -> None:
    async def main() -> None:
        environment = SimulatedEnvironment(1)
        service = FaultyService(StorageModel(environment), Part("p"), CallFaultList())
        to = Access(service, HubNames("Hub"), environment)
        await to.put_own([row(key=f"k{number}") for number in range(250)])
        rows = await to.query_own(Where("PartitionKey", "eq", "p"))
        assert len(rows) == 250
        await to.delete_own(Operation(do=Do.DELETE, partition="p", key="k7", etag=ANY))
        service.counts.clear()
        assert await to.delete_all_own(rows) == 249
        assert await to.query_own(Where("PartitionKey", "eq", "p")) == []
        assert service.counts["tables.transact HubHoldtrue"] == 3 and await to.delete_all_own([]) == 0

    run(main())


def test_a_partitions_table_that_gives_no_answer_is_an_error_of_the_service() -> None:
    """A bare TimeoutError would end a host's start as a defect does."""

    async def main() -> None:
        tables: Any = Tables()
        terms, nothing = Terms(operation=0.01), Any
        table = PartitionTable(tables, "HubPartitions", REAL, terms, nothing)  # type: ignore[arg-type]
        with pytest.raises(Unsure, match="no answer within"):
            await refuse_beside(table, terms, REAL)

    asyncio.run(main())

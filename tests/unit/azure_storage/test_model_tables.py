"""The model's tables: what the service refuses, whole, and how its answers come in pages."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdtrue.stores.azure_storage import service as port
from holdtrue.stores.azure_storage.service import ANY, Conflict, Do, Instant, NotThere, Operation, Refused, Row
from holdtrue.testing import virtual_time
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import AZURITE, REAL, Manner, StorageModel

HISTORY = "HubHistory"


def insert(key: str, partition: str = "a", **values: Any) -> Operation:
    return Operation(do=Do.INSERT, partition=partition, key=key, values=values)


def in_model(act: Callable[[StorageModel], Awaitable[None]], *, manner: Manner = REAL, seed: int = 1) -> StorageModel:
    """Run with a model that has one table."""
    models: list[StorageModel] = []

    async def main() -> None:
        models.append(StorageModel(SimulatedEnvironment(seed), manner=manner))
        await models[0].tables.create_table(HISTORY)
        await act(models[0])

    virtual_time.run(main())
    return models[0]


async def every(model: StorageModel, where: port.Filter | None = None, **how: Any) -> list[port.RowPage]:
    """All pages of a query."""
    pages = [await model.tables.query(HISTORY, where, **how)]
    while pages[-1].token is not None:
        pages.append(await model.tables.query(HISTORY, where, token=pages[-1].token, **how))
    return pages


async def refusal(doing: Awaitable[Any]) -> tuple[str, str]:
    """The code of what is refused, and the index in its message."""
    with pytest.raises(Refused) as caught:
        await doing
    return caught.value.code, caught.value.message.partition(":")[0]


def test_a_transaction_is_done_whole_or_not_at_all() -> None:
    async def act(model: StorageModel) -> None:
        tables = model.tables
        etags = await tables.transact(HISTORY, [insert("1", A=1), insert("sentinel", B=1)])
        assert len(set(etags)) == 2
        writes = [
            Operation(do=Do.MERGE, partition="a", key="sentinel", values={"B": 2}, etag=etags[1]),
            insert("2"),
            insert("1"),
        ]
        assert await refusal(tables.transact(HISTORY, writes)) == ("EntityAlreadyExists", "2")
        row = await tables.get(HISTORY, "a", "sentinel")
        assert row is not None and row.values == {"B": 1} and row.etag == etags[1]
        assert await tables.get(HISTORY, "a", "2") is None
        assert len(await tables.transact(HISTORY, writes[:2])) == 2

    in_model(act)


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([insert(f"{n:04}") for n in range(101)], ("InvalidInput", "0")),
        ([insert("1"), insert("2", partition="b")], ("CommandsInBatchActOnDifferentPartitions", "1")),
        ([insert("1"), insert("1")], ("InvalidDuplicateRow", "1")),
        ([insert("1"), insert("2", Large="x" * (32 * 1024 + 1))], ("PropertyValueTooLarge", "1")),
        ([insert("1", **{f"C{n}": "x" * 32_000 for n in range(17)})], ("EntityTooLarge", "0")),
        ([insert("a/b")], ("OutOfRangeInput", "0")),
        ([insert("x" * 513)], ("KeyValueTooLarge", "0")),
        ([insert("1", Big=1 << 31)], ("InvalidInput", "0")),
        ([insert("1", **{f"C{n}": 1 for n in range(253)})], ("TooManyProperties", "0")),
        ([], ("InvalidInput", "0")),
    ],
)
def test_what_a_transaction_may_not_hold(operations: list[Operation], expected: tuple[str, str]) -> None:
    async def act(model: StorageModel) -> None:
        assert await refusal(model.tables.transact(HISTORY, operations)) == expected
        assert (await every(model))[-1].rows == []

    in_model(act)


def test_a_body_has_at_most_four_megabytes_also_where_each_row_is_small_enough() -> None:
    async def act(model: StorageModel) -> None:
        rows = [insert(f"{n}", A="x" * 32_000, B="y" * 32_000) for n in range(70)]
        with pytest.raises(Refused) as caught:
            await model.tables.transact(HISTORY, rows)
        assert (caught.value.status, caught.value.code) == (413, "RequestBodyTooLarge")
        assert len(await model.tables.transact(HISTORY, rows[:60])) == 60

    in_model(act)


def test_a_merge_may_not_make_a_row_too_large() -> None:
    async def act(model: StorageModel) -> None:
        await model.tables.write(HISTORY, insert("1", **{f"C{n}": "x" * 32_000 for n in range(10)}))
        more = Operation(
            do=Do.MERGE, partition="a", key="1", values={f"D{n}": "x" * 32_000 for n in range(10)}, etag=ANY
        )
        assert (await refusal(model.tables.write(HISTORY, more)))[0] == "EntityTooLarge"

    in_model(act)


def test_merge_replace_and_delete_ask_for_the_etag_they_are_given() -> None:
    async def act(model: StorageModel) -> None:
        tables = model.tables

        async def write(do: Do, etag: str | None, **values: Any) -> str | None:
            return await tables.write(HISTORY, Operation(do=do, partition="a", key="1", values=values, etag=etag))

        with pytest.raises(NotThere, match="ResourceNotFound"):
            await write(Do.MERGE, ANY, A=1)
        first = await write(Do.MERGE, None, A=1, B="x")
        second = await write(Do.MERGE, first, A=2, B=None)
        row = await tables.get(HISTORY, "a", "1")
        assert row is not None and row.values == {"A": 2, "B": "x"} and row.etag == second
        for do in (Do.MERGE, Do.REPLACE, Do.DELETE):
            with pytest.raises(Conflict, match="UpdateConditionNotSatisfied") as caught:
                await write(do, first)
            assert caught.value.status == 412
        await write(Do.REPLACE, second, C=True)
        row = await tables.get(HISTORY, "a", "1")
        assert row is not None and row.values == {"C": True}
        assert await write(Do.DELETE, ANY) is None
        with pytest.raises(NotThere):
            await write(Do.DELETE, ANY)
        with pytest.raises(ValueError, match="etag"):
            await write(Do.DELETE, None)

    in_model(act)


def test_no_two_writes_have_the_same_etag_although_no_time_passes() -> None:
    async def act(model: StorageModel) -> None:
        merge = Operation(do=Do.MERGE, partition="a", key="1")
        etags = [await model.tables.write(HISTORY, merge) for _ in range(300)]
        assert len(set(etags)) == 300

    in_model(act)


def test_pages_are_cut_anywhere_and_may_be_empty_but_together_hold_every_row_once() -> None:
    sizes: set[int] = set()
    for seed in range(20):

        async def act(model: StorageModel) -> None:
            for first in range(0, 150, 50):
                await model.tables.transact(HISTORY, [insert(f"{first + n:04}", N=n) for n in range(50)])
            await model.tables.write(HISTORY, insert("0", partition="b"))
            pages = await every(model, port.Test("PartitionKey", "eq", "a"))
            assert [row.key for page in pages for row in page.rows] == [f"{n:04}" for n in range(150)]
            sizes.update(len(page.rows) for page in pages)
            few = await every(model, port.Test("N", "ge", 48), top=2)
            assert [row.key[-2:] for page in few for row in page.rows] == ["48", "49", "98", "99", "48", "49"]
            assert all(len(page.rows) <= 2 for page in few)

        in_model(act, seed=seed)
    assert 0 in sizes and len(sizes) > 10


def test_pages_together_are_no_snapshot() -> None:
    async def act(model: StorageModel) -> None:
        await model.tables.transact(HISTORY, [insert(f"{n}", A=0) for n in range(4)])
        page = await model.tables.query(HISTORY, top=2)
        assert [row.values["A"] for row in page.rows] == [0, 0]
        merges = [Operation(do=Do.MERGE, partition="a", key=f"{n}", values={"A": 1}) for n in range(4)]
        await model.tables.transact(HISTORY, merges)
        rest = await model.tables.query(HISTORY, token=page.token)
        assert [(row.key, row.values["A"]) for row in rest.rows] == [("2", 1), ("3", 1)]

    in_model(act, manner=AZURITE)


def test_rows_come_in_the_order_of_their_utf16_units() -> None:
    async def act(model: StorageModel) -> None:
        keys = ["", "0", "A", "a", "sentinel", "~", "é", "😀", "\uffee"]
        for key in reversed(keys):
            await model.tables.write(HISTORY, insert(key))
        assert [row.key for page in await every(model) for row in page.rows] == keys

    in_model(act)


def test_of_a_column_that_is_not_there_or_of_another_type_nothing_holds() -> None:
    async def act(model: StorageModel) -> None:
        await model.tables.write(HISTORY, insert("1", Status="Running", At=Instant(5)))
        await model.tables.write(HISTORY, insert("2", At=Instant(7)))

        async def keys(where: port.Filter) -> list[str]:
            return [row.key for page in await every(model, where) for row in page.rows]

        assert await keys(port.Test("Status", "ne", "Completed")) == ["1"]
        assert await keys(port.Test("Status", "ge", 0)) == []
        assert await keys(port.Test("At", "gt", Instant(5))) == ["2"]
        both = port.Any((port.Test("At", "eq", Instant(7)), port.Test("Status", "eq", "Running")))
        assert await keys(port.All((both, port.Test("RowKey", "lt", "2")))) == ["1"]

    in_model(act)


def test_a_row_that_was_read_does_not_change_with_the_table() -> None:
    async def act(model: StorageModel) -> None:
        await model.tables.write(HISTORY, insert("1", A=1))
        row = await model.tables.get(HISTORY, "a", "1", select=["A"])
        assert isinstance(row, Row)
        row.values["A"] = 9
        again = await model.tables.get(HISTORY, "a", "1")
        assert again is not None and again.values == {"A": 1}

    in_model(act)


def test_a_table_has_one_name_in_any_case_and_its_name_is_not_free_at_once() -> None:
    async def act(model: StorageModel) -> None:
        tables = model.tables
        assert not await tables.create_table(HISTORY.upper())
        await tables.write(HISTORY, insert("1"))
        assert await tables.delete_table(HISTORY)
        assert not await tables.delete_table(HISTORY)
        with pytest.raises(NotThere, match="TableNotFound"):
            await tables.get(HISTORY, "a", "1")
        with pytest.raises(NotThere, match="TableNotFound"):
            await tables.transact(HISTORY, [insert("1")])
        with pytest.raises(Conflict, match="TableBeingDeleted"):
            await tables.create_table(HISTORY)
        await asyncio.sleep(REAL.deletion)
        assert await tables.create_table(HISTORY)
        assert await tables.get(HISTORY, "a", "1") is None
        for bad in ("ab", "1abc", "a-b", "x" * 64):
            with pytest.raises(Refused):
                await tables.create_table(bad)

    in_model(act)


def test_requests_that_are_on_their_way_together_have_their_effects_one_by_one() -> None:
    async def act(model: StorageModel) -> None:
        etag = await model.tables.write(HISTORY, insert("1", A=0))
        merge = Operation(do=Do.MERGE, partition="a", key="1", values={"A": 1}, etag=etag)
        outcomes = await asyncio.gather(*(model.tables.write(HISTORY, merge) for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(outcome, str) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 4

    in_model(act)

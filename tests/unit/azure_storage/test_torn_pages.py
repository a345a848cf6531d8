"""A history that comes in pages is read as it stood at one moment, whoever writes meanwhile."""

import asyncio
from typing import Any

import pytest

import holdtrue
from holdtrue.stores.azure_storage.names import row_key
from holdtrue.stores.azure_storage.service import Do, Operation
from tests.unit.azure_storage.stages import Account, app, played

HISTORY = "TornHistory"


@app.orchestrator
async def waits_twice(ctx: holdtrue.OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("one") + await ctx.wait_for_external_event("two")


class Stage(Account):
    """An account whose history comes a row a page; `between` is awaited, once, after the page of row `at`."""

    def __init__(self) -> None:
        super().__init__()
        self.between: Any = None
        self.at = 0
        tables: Any = self.tables
        inner = tables.query

        async def query(table: str, where: Any = None, **more: Any) -> Any:
            if table != HISTORY:
                return await inner(table, where, **more)
            page = await inner(table, where, **{**more, "top": 1})
            if self.between is not None and page.rows and page.rows[0].key == row_key(self.at):
                between, self.between = self.between, None
                await between()
            return page

        tables.query = query


def on_stage(*, turns_one: bool) -> None:
    stage = Stage()

    async def test(stage: Stage, client: holdtrue.Client) -> None:
        store: Any = client.store
        await client.start(waits_twice, instance_id="i")
        await client.raise_event("i", "one", "a")
        while len(before := [one async for one in client.history("i")]) < 5:
            await asyncio.sleep(0.1)

        async def commits() -> None:
            await client.raise_event("i", "two", "b")
            await client.wait_for_completion("i")

        async def turns() -> None:
            """As a rewind does: a row in place, and a sentinel with it."""
            values = {"Name": "turned"}
            turned = Operation(do=Do.MERGE, partition="i", key=row_key(0), values=values, etag="*")
            told = Operation(do=Do.MERGE, partition="i", key="sentinel", values={}, etag="*")
            await stage.tables.transact(HISTORY, [turned, told])

        stage.between, stage.at = (turns, 0) if turns_one else (commits, len(before) - 1)
        partition = await store._access.history_partition("i")
        if turns_one:
            assert partition.rows[0].values.get("Name") == "turned"
        else:
            assert len(partition.rows) == partition.sentinel.state.rows > len(before)

    played(test, app, lambda: (stage, stage.store("Torn")))()


@pytest.mark.parametrize("turns_one", [False, True], ids=["rows are added", "a row is turned"])
def test_what_is_written_between_its_pages_is_in_all_of_them_or_in_none(turns_one: bool) -> None:
    """The sentinel comes with the last page: that it stays the same after that tells nothing of the first."""
    on_stage(turns_one=turns_one)

"""A copy of a start's insert that arrives when its instance has run and was purged begins nothing (rule 10)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import holdtrue
from holdtrue.stores.azure_storage.purged_starts import PARTITION
from holdtrue.stores.azure_storage.service import Conflict, Do, Operation, Unsure
from holdtrue.stores.azure_storage.store import AzureStorageStore
from tests.unit.azure_storage.stages import Account, app, note, one_step, played, ran

INSTANCES, OWN = "AgainInstances", "AgainHoldtrue"


@app.orchestrator
async def twice(ctx: holdtrue.OrchestrationContext, text: str | None) -> str | None:
    if text is None:
        return None
    await ctx.call_activity(note, input=text)
    ctx.continue_as_new(None)


class Stage(Account):
    """An account where the inserts of starts get lost: as many as `lose` says, by whether each is done all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.lose: list[bool] = []
        self.lost: list[Operation] = []
        self.inserted: list[Operation] = []
        tables: Any = self.tables
        self.write = tables.write

        async def write(table: str, operation: Operation) -> Any:
            if table == INSTANCES and operation.do is Do.INSERT and self.lose:
                if self.lose.pop(0):
                    await self.write(table, operation)
                else:
                    self.lost.append(operation)
                raise Unsure("no answer in time")
            if table == INSTANCES and operation.do is Do.INSERT:
                self.inserted.append(operation)
            return await self.write(table, operation)

        tables.write = write

    async def arrive(self) -> None:
        """The first insert that was lost comes after all."""
        await self.write(INSTANCES, self.lost.pop(0))


def on_stage(test: Callable[[Stage, holdtrue.Client], Awaitable[None]]) -> Callable[[], None]:
    def make() -> tuple[Stage, AzureStorageStore]:
        stage = Stage()
        return stage, stage.store("Again")

    return played(test, app, make)


async def run_and_purge(client: holdtrue.Client, orchestration: Any) -> None:
    """Start the instance, let it run to its end, and purge it."""
    await client.start(orchestration, input="a", instance_id="i")
    await client.wait_for_completion("i")
    await client.purge("i")


async def begins_nothing(stage: Stage, client: holdtrue.Client) -> None:
    """What arrives reads as nothing at once, and is gone after a look at it; nothing is run a second time."""
    await stage.arrive()
    assert len(await stage.rows(INSTANCES)) == 1
    assert await client.get_status("i") is None
    assert [one async for one in client.query()] == []
    await asyncio.sleep(300)
    assert await client.get_status("i") is None
    assert not await stage.rows(INSTANCES)
    assert ran == ["a"]


@on_stage
async def test_the_first_try_of_a_purged_start_begins_nothing(stage: Stage, client: holdtrue.Client) -> None:
    stage.lose = [False]
    await run_and_purge(client, one_step)
    await asyncio.sleep(60)
    await begins_nothing(stage, client)


@on_stage
async def test_one_of_two_unanswered_tries_was_done_and_the_other_comes_later(
    stage: Stage, client: holdtrue.Client
) -> None:
    stage.lose = [False, True]
    await run_and_purge(client, one_step)
    await asyncio.sleep(60)
    await begins_nothing(stage, client)


@on_stage
async def test_the_same_id_starts_anew_beside_it(stage: Stage, client: holdtrue.Client) -> None:
    stage.lose = [False]
    await run_and_purge(client, one_step)
    await asyncio.sleep(2)
    await stage.arrive()
    # Over the row that came late, which counts for nothing.
    await client.start(one_step, input="b", instance_id="i")
    assert (await client.wait_for_completion("i")).output == "b"
    await asyncio.sleep(300)
    status = await client.get_status("i")
    assert status is not None and status.output == "b" and ran == ["a", "b"]


@on_stage
async def test_what_was_not_purged_is_refused_by_its_row(stage: Stage, client: holdtrue.Client) -> None:
    stage.lose = [False]
    await client.start(one_step, input="a", instance_id="i")
    await client.wait_for_completion("i")
    with pytest.raises(Conflict):
        await stage.arrive()


@on_stage
async def test_an_insert_that_was_made_twice_on_its_way_begins_nothing_the_second_time(
    stage: Stage, client: holdtrue.Client
) -> None:
    await client.start(one_step, input="a", instance_id="i")
    stage.lost = [stage.inserted[0]]
    await client.wait_for_completion("i")
    await client.purge("i")
    await asyncio.sleep(60)
    await begins_nothing(stage, client)


@on_stage
async def test_the_insert_of_what_went_on_as_another_execution_begins_nothing(
    stage: Stage, client: holdtrue.Client
) -> None:
    stage.lose = [False]
    await run_and_purge(client, twice)
    await asyncio.sleep(60)
    await begins_nothing(stage, client)


@on_stage
async def test_what_began_long_ago_needs_no_note_and_notes_go_when_they_are_past(
    stage: Stage, client: holdtrue.Client
) -> None:
    await client.start(one_step, input="a", instance_id="old")
    await asyncio.sleep(1_260)
    await client.purge("old")
    assert await noted(stage) == 0
    await client.start(one_step, input="a", instance_id="young")
    await client.wait_for_completion("young")
    await client.purge("young")
    assert await noted(stage) == 1
    await asyncio.sleep(3_000)
    assert await noted(stage) == 0


async def noted(stage: Stage) -> int:
    return sum(row.partition == PARTITION for row in await stage.rows(OWN))

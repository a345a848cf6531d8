"""A first commit that comes when its instance has been purged is taken back, and reads as nothing (rule 9)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import holdtrue
from holdtrue.stores.azure_storage import planning
from holdtrue.stores.azure_storage.service import ANY, Conflict, Do, Operation
from holdtrue.stores.azure_storage.store import AzureStorageStore
from tests.unit.azure_storage.stages import Account, app, note, one_step, played, ran

HISTORY, INSTANCES = "LateHistory", "LateInstances"


@app.orchestrator
async def waits(ctx: holdtrue.OrchestrationContext, text: str) -> str:
    await ctx.call_activity(note, input=text)
    return await ctx.wait_for_external_event("go")


@app.orchestrator
async def goes_on(ctx: holdtrue.OrchestrationContext, text: str) -> str | None:
    if text == "a":
        ctx.continue_as_new("b")
        return None
    ctx.set_custom_status(text)
    return await ctx.call_activity(note, input=text)


@app.orchestrator
async def shows_much(ctx: holdtrue.OrchestrationContext, text: str) -> str:
    ctx.set_custom_status("x" * 60_000)
    return await ctx.call_activity(note, input=text)


@app.orchestrator
async def has_a_child(ctx: holdtrue.OrchestrationContext, text: str) -> str:
    return await ctx.call_sub_orchestrator(one_step, input=text, instance_id="child")


class Stage(Account):
    """An account; `first` is called with each history transaction before it is done."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Callable[[list[Operation]], Awaitable[None]] | None = None
        tables: Any = self.tables
        inner = tables.transact

        async def transact(table: str, operations: list[Operation]) -> Any:
            if table == HISTORY and self.first is not None:
                await self.first(list(operations))
            return await inner(table, operations)

        self.transact = inner
        tables.transact = transact
        self.puts: list[tuple[str, str]] = []
        """Each message that was put, and its queue."""
        queues: Any = self.queues
        self.put = queues.put

        async def put(queue: str, text: str, *more: Any, **named: Any) -> Any:
            self.puts.append((queue, text))
            return await self.put(queue, text, *more, **named)

        queues.put = put

    async def history(self, instance: str) -> list[str]:
        return [row.key for row in await self.rows(HISTORY) if row.partition == instance]

    async def delete_row(self, instance: str) -> None:
        """As a purge of .NET's deletes it, whatever it says."""
        gone = Operation(do=Do.DELETE, partition=instance, key="", etag=ANY)
        await self.tables.write(INSTANCES, gone)


def on_stage(test: Callable[[Stage, holdtrue.Client], Awaitable[None]]) -> Callable[[], None]:
    def make() -> tuple[Stage, AzureStorageStore]:
        stage = Stage()
        return stage, stage.store("Late")

    return played(test, app, make)


async def run_and_purge(stage: Stage, client: holdtrue.Client, what: Any = one_step) -> list[Operation]:
    """Run an instance to its end, purge it; its first commit."""
    commits: list[list[Operation]] = []

    async def noted(operations: list[Operation]) -> None:
        commits.append(operations)

    stage.first = noted
    await client.start(what, input="a", instance_id="i")
    await client.wait_for_completion("i")
    await client.purge("i")
    stage.first = None
    assert await client.get_status("i") is None and not await stage.history("i")
    return commits[0]


@on_stage
async def test_a_late_copy_of_the_first_commit_is_read_as_nothing_and_taken_back(
    stage: Stage, client: holdtrue.Client
) -> None:
    late = await run_and_purge(stage, client)
    await stage.transact(HISTORY, late)
    assert await stage.history("i")
    assert await client.get_status("i") is None
    await client.purge("i")
    assert not await stage.history("i")
    # Whoever is brought there by a message takes it back too, and runs nothing of it.
    await stage.transact(HISTORY, late)
    await stage.put(*stage.puts[0])
    await asyncio.sleep(5)
    assert not await stage.history("i")
    assert ran == ["a"]


@on_stage
async def test_what_is_started_anew_beside_it_runs_alone(stage: Stage, client: holdtrue.Client) -> None:
    late = await run_and_purge(stage, client)
    await stage.transact(HISTORY, late)
    await client.start_if_not_running(one_step, input="b", instance_id="i")
    assert (await client.wait_for_completion("i")).output == "b"
    try:
        await stage.transact(HISTORY, late)
    except Conflict:
        pass
    else:
        raise AssertionError("a late first commit goes over a history")
    status = await client.get_status("i")
    assert status is not None and status.output == "b"


def with_few_operations(test: Callable[[], None]) -> Callable[[pytest.MonkeyPatch], None]:
    """A continue-as-new needs more than one transaction."""

    def play(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(planning, "MOST_OPERATIONS", 3)
        test()

    play.__doc__ = test.__doc__
    return play


async def leaves_the_id_free(stage: Stage, client: holdtrue.Client, what: Any, names: str) -> None:
    """A late first commit whose blobs went with the purge: nobody stumbles over it, a new start least of all."""
    late = await run_and_purge(stage, client, what)
    assert names in repr(late)
    await stage.transact(HISTORY, late)
    assert await client.get_status("i") is None
    assert [one async for one in client.query()] == []
    await client.start_if_not_running(one_step, input="c", instance_id="i")
    assert (await client.wait_for_completion("i")).output == "c"
    assert (await client.purge("i")).instances == 1
    await stage.transact(HISTORY, late)
    await stage.put(*stage.puts[0])
    await asyncio.sleep(5)
    assert not await stage.history("i")
    await stage.transact(HISTORY, late)
    await client.purge("i")
    assert not await stage.history("i")


@with_few_operations
@on_stage
async def test_one_that_names_a_redo_log(stage: Stage, client: holdtrue.Client) -> None:
    await leaves_the_id_free(stage, client, goes_on, "-log.json.gz")


@on_stage
async def test_one_that_names_a_large_status(stage: Stage, client: holdtrue.Client) -> None:
    await leaves_the_id_free(stage, client, shows_much, "-status.json.gz")


@pytest.mark.parametrize("by", ["a purge", "a message", "another start"])
def test_the_first_commit_of_a_child_comes_when_it_was_purged(by: str) -> None:
    """A child has no row before it; so its purge leaves a note."""

    async def comes_late(stage: Stage, client: holdtrue.Client) -> None:
        commits: list[list[Operation]] = []

        async def noted(operations: list[Operation]) -> None:
            if operations[0].partition == "child":
                commits.append(operations)

        stage.first = noted
        await client.start(has_a_child, input="a", instance_id="i")
        await client.wait_for_completion("i")
        stage.first = None
        started = next(put for put in stage.puts if "ExecutionStarted" in put[1] and '"child"' in put[1])
        await client.purge("i")
        assert not await stage.history("child")
        await stage.transact(HISTORY, commits[0])
        assert await stage.history("child")
        assert await client.get_status("child") is None
        assert not [event async for piece in client.store.history("child") for event in piece]
        await asyncio.sleep(2)
        if by == "another start":
            await client.start(has_a_child, input="b", instance_id="i")
            assert (await client.wait_for_completion("i")).output == "b"
            assert ran == ["a", "b"]
            return
        if by == "a purge":
            await client.purge("child")
        else:
            await stage.put(*started)
            await asyncio.sleep(5)
        assert not await stage.history("child")
        assert ran == ["a"]

    on_stage(comes_late)()


@on_stage
async def test_a_row_that_goes_before_the_first_commit_takes_that_along(stage: Stage, client: holdtrue.Client) -> None:
    async def purged(operations: list[Operation]) -> None:
        stage.first = None
        await stage.delete_row("i")

    stage.first = purged
    await client.start(waits, input="a", instance_id="i")
    await asyncio.sleep(30)
    assert stage.first is None
    assert await client.get_status("i") is None
    assert not await stage.history("i")
    # The id is free, and nothing of the first one is left to disturb it.
    await client.start(one_step, input="b", instance_id="i")
    assert (await client.wait_for_completion("i")).output == "b"

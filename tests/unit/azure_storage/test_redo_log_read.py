"""What readers are told while a redo log is not rolled forward yet, and when it goes as they read it (rule 5)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import holdtrue
from holdtrue.stores.azure_storage import planning
from holdtrue.stores.azure_storage.sentinel import read_sentinel
from holdtrue.stores.azure_storage.service import Operation
from holdtrue.stores.azure_storage.store import AzureStorageStore
from tests.unit.azure_storage.stages import Account, app, note, played

HISTORY, WIDTH = "RedoHistory", 8


@app.orchestrator
async def goes_on_once(ctx: holdtrue.OrchestrationContext, again: bool) -> str:
    await holdtrue.when_all([ctx.call_activity(note, input=f"{again} {number}") for number in range(WIDTH)])
    if again:
        ctx.continue_as_new(False)
    return await ctx.wait_for_external_event("go")


class Stage(Account):
    """An account in which the first redo log is not rolled forward before `go_on` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on, self.flipped = asyncio.Event(), asyncio.Event()
        tables: Any = self.tables
        inner = tables.transact

        async def transact(table: str, operations: list[Operation]) -> Any:
            if table == HISTORY and self.flipped.is_set():
                await self.go_on.wait()
            done = await inner(table, operations)
            if table == HISTORY and await self.log() is not None:
                self.flipped.set()
            return done

        tables.transact = transact

    async def log(self) -> str | None:
        row = await self.tables.get(HISTORY, "i", "sentinel")
        return None if row is None else read_sentinel(row).state.log


def on_stage(test: Callable[[Stage, AzureStorageStore], Awaitable[None]]) -> Callable[..., None]:
    def play(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(planning, "MOST_OPERATIONS", 6)

        def make() -> tuple[Stage, AzureStorageStore]:
            stage = Stage()
            return stage, stage.store("Redo")

        async def begun(stage: Stage, client: holdtrue.Client) -> None:
            await client.start(goes_on_once, input=True, instance_id="i")
            await stage.flipped.wait()
            await test(stage, client.store)  # type: ignore[arg-type]
            stage.go_on.set()

        played(begun, app, make)()

    play.__name__, play.__doc__ = test.__name__, test.__doc__
    return play


@on_stage
async def test_the_history_of_an_execution_that_has_just_begun_is_in_its_log(
    stage: Stage, store: AzureStorageStore
) -> None:
    """A status that is read from the history was an error: what is committed was not among the rows."""
    row = await store._access.instances_row("i")
    record = await store._reader._from_history("i", row)
    assert record is not None and record.started.input == "false"
    assert len(await store._listing.history("i")) == record.length


@on_stage
async def test_a_log_that_is_rolled_forward_while_it_is_read_is_looked_for_among_the_rows(
    stage: Stage, store: AzureStorageStore
) -> None:
    log = await stage.log()
    blobs: Any = stage.blobs
    inner = blobs.get_blob

    async def get_blob(container: str, name: str, **more: Any) -> Any:
        if name == log:
            stage.go_on.set()
            while name in blobs.names(container):
                await asyncio.sleep(0.01)
        return await inner(container, name, **more)

    blobs.get_blob = get_blob
    row = await store._access.instances_row("i")
    record, events = await asyncio.gather(store._reader._from_history("i", row), store._listing.history("i"))
    assert record is not None and record.started.input == "false" and len(events) >= record.length

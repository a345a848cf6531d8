"""A rewind whose row is written and whose sentinel is not yet, and a host that brings the row up to date meanwhile."""

import asyncio
from typing import Any

import holdtrue
from holdtrue.stores.azure_storage.sentinel import read_sentinel
from holdtrue.stores.azure_storage.service import Operation
from tests.unit.azure_storage.stages import Account, app, note, played

HISTORY, INSTANCES = "TurnedHistory", "TurnedInstances"
broken = [True]


@app.orchestrator
async def fails_once(ctx: holdtrue.OrchestrationContext) -> str:
    await ctx.call_activity(note, input="a")
    return await ctx.call_activity(breaks)


@app.activity
async def breaks(ctx: holdtrue.ActivityContext) -> str:
    if broken:
        raise ValueError("broken")
    return "mended"


class Stage(Account):
    """An account in which a client's write of the sentinel is held up until `go_on` is set.

    `shown` are the statuses of sentinel and row after each write of either.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held_up, self.go_on = asyncio.Event(), asyncio.Event()
        self.shown: list[tuple[str, Any]] = []
        tables: Any = self.tables
        write, transact = tables.write, tables.transact

        async def writes(table: str, operation: Operation) -> Any:
            if table == HISTORY:  # hosts write it in transactions
                self.held_up.set()
                await self.go_on.wait()
            done = await write(table, operation)
            await self.look()
            return done

        async def transacts(table: str, operations: list[Operation]) -> Any:
            done = await transact(table, operations)
            await self.look()
            return done

        tables.write, tables.transact = writes, transacts

    async def look(self) -> None:
        row = await self.tables.get(INSTANCES, "i", "")
        sentinel = await self.tables.get(HISTORY, "i", "sentinel")
        if row is not None and sentinel is not None:
            told = read_sentinel(sentinel).state.projection
            self.shown.append(("" if told is None else told.status.name, row.values["RuntimeStatus"]))


def test_no_row_says_that_it_has_failed_while_it_is_to_be_rewound() -> None:
    """A query by status left it out, and if the client died then, nothing but a message mended it."""
    stage = Stage()
    broken[:] = [True]

    async def test(stage: Stage, client: holdtrue.Client) -> None:
        store: Any = client.store
        await client.start(fails_once, instance_id="i")
        await client.wait_for_completion("i")
        broken.clear()
        rewinding = asyncio.ensure_future(client.rewind("i", "mended"))
        await stage.held_up.wait()
        before = len(stage.shown)
        await store._poster.wake("i", "look")
        await asyncio.sleep(5)
        assert ("FAILED", "Failed") in stage.shown[before:]  # (it might have died)
        stage.go_on.set()
        await rewinding
        status = await client.wait_for_completion("i")
        assert status.output == "mended"
        lies = [one for one in stage.shown if one[0] in ("PENDING", "RUNNING") and one[1] in ("Failed", "Completed")]
        assert not lies, stage.shown

    played(test, app, lambda: (stage, stage.store("Turned")))()

"""A rewind redoes what failed, however deep, and nothing beside it."""

from collections import Counter
from pathlib import Path

import holdtrue
from holdtrue import Status
from tests.e2e.hubs import outcome, until

from .hosting import ended, hosted


def test_three_deep_with_fan_outs_beside_a_healthy_one(tmp_path: Path) -> None:
    """Rewind in a fan-out, of several, nested three deep, beside one that stays as it was (the family's suites)."""
    app = holdtrue.App()
    ran: Counter[str] = Counter()
    broken = True

    @app.activity
    async def item(ctx: holdtrue.ActivityContext, what: str) -> str:
        ran[what] += 1
        if broken and what.endswith(("1", "3")):
            raise RuntimeError(f"{what} is broken")
        return what

    @app.orchestrator
    async def tree(ctx: holdtrue.OrchestrationContext, place: tuple[str, int]) -> list[str]:
        name, depth = place
        if depth == 0:
            return await holdtrue.when_all([ctx.call_activity(item, input=f"{name}{n}") for n in range(4)])
        found = await holdtrue.when_all(
            [ctx.call_sub_orchestrator(tree, input=(f"{name}{side}", depth - 1)) for side in "lr"]
        )
        return [*found[0], *found[1], await ctx.call_activity(item, input=f"{name}+")]

    async def main(client: holdtrue.Client) -> None:
        nonlocal broken
        i = await client.start(tree, input=("a", 3))
        healthy = await client.start(tree, input=("b2", 0), instance_id="healthy")
        await ended(client, i, Status.FAILED)
        await ended(client, healthy, Status.FAILED)
        untouched = (await client.get_status(healthy)).record
        broken = False
        before = ran.copy()
        await client.rewind(i)
        await until(lambda: no_longer_failed(client, i), "the rewind")
        leaves = [f"a{x}{y}{z}{n}" for x in "lr" for y in "lr" for z in "lr" for n in range(4)]
        output = await outcome(client, i)
        assert [what for what in output if not what.endswith("+")] == leaves
        again = {what for what in ran if before[what] and ran[what] != before[what]}
        assert again == {what for what in leaves if what[-1] in "13"}
        assert all(ran[what] == 1 for what in ran if what.endswith("+")) and ran["a+"] == 1
        assert (await client.get_status(healthy)).record == untouched

    async def no_longer_failed(client: holdtrue.Client, i: str) -> bool:
        return (await client.get_status(i)).runtime_status is not Status.FAILED

    hosted(tmp_path, app, main)

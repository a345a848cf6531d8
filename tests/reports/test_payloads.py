"""A payload over the bound is an error of the one call that made it."""

from pathlib import Path
from typing import Any

import pytest

import holdtrue
from holdtrue import Status
from tests.e2e.hubs import outcome

from .hosting import ended, hosted

BIG = "x" * 5_000


def make_app() -> holdtrue.App:
    app = holdtrue.App(max_payload=4_000)

    @app.activity
    async def give(ctx: holdtrue.ActivityContext, big: bool) -> str:
        return BIG if big else "small"

    @app.activity
    async def reports(ctx: holdtrue.ActivityContext) -> None:
        ctx.progress(BIG)

    @app.activity
    async def complains(ctx: holdtrue.ActivityContext) -> None:
        raise ValueError("y" * 5_000_000)

    @app.orchestrator
    async def job(ctx: holdtrue.OrchestrationContext, where: str) -> Any:
        match where:
            case "output":
                return BIG
            case "an activity's input":
                await ctx.call_activity(give, input=BIG)
            case "an activity's output":
                await ctx.call_activity(give, input=True)
            case "an activity's progress":
                await ctx.call_activity(reports)
            case "a child's input":
                await ctx.call_sub_orchestrator(job, input=BIG)
            case "a child's output":
                await ctx.call_sub_orchestrator(job, input="output")
            case "the custom status":
                ctx.set_custom_status(BIG)
            case "an event sent":
                ctx.send_event("nobody", "e", data=BIG)
            case "the next input":
                ctx.continue_as_new(BIG)
            case "an error's message":
                await ctx.call_activity(complains)
            case "an own error's message":
                raise ValueError("y" * 5_000_000)
        return await ctx.call_activity(give, input=False)

    return app


@pytest.mark.parametrize(
    "where",
    [
        "output",
        "an activity's input",
        "an activity's output",
        "an activity's progress",
        "a child's input",
        "a child's output",
        "the custom status",
        "an event sent",
        "the next input",
        "an error's message",
        "an own error's message",
    ],
)
def test_what_is_too_large_fails_that_one_soon_and_others_go_on(tmp_path: Path, where: str) -> None:
    """A message over a limit was tried for ever or vanished in silence, and the worker with it (classes 4 and 6)."""

    async def main(client: holdtrue.Client) -> None:
        bad = await client.start("job", input=where)
        good = await client.start("job", input="")
        status = await ended(client, bad, Status.FAILED)
        assert status.failure is not None and len(status.failure.message) < 100_000
        if "error's" not in where:
            assert "PayloadTooLarge" in str(status.failure), status.failure
        assert await outcome(client, good) == "small"

    hosted(tmp_path, make_app(), main)


def test_what_a_client_gives_is_refused_at_the_call(tmp_path: Path) -> None:
    """A start or an event over a limit was acknowledged and then never seen (class 6)."""

    async def main(client: holdtrue.Client) -> None:
        i = await client.start("job", input="", instance_id="one")
        for call in (
            client.start("job", input=BIG, instance_id="two"),
            client.start("job", instance_id="two", event=("e", BIG)),
            client.raise_event(i, "e", BIG),
            client.terminate(i, BIG),
        ):
            with pytest.raises(holdtrue.PayloadTooLarge):
                await call
        assert await client.get_status("two") is None
        assert await outcome(client, i) == "small"

    hosted(tmp_path, make_app(), main)


def test_large_tags_come_back_and_are_found(tmp_path: Path) -> None:
    """Tags, large ones too, in the status and in queries (the family's suites)."""
    app = holdtrue.App()

    @app.orchestrator
    async def job(ctx: holdtrue.OrchestrationContext) -> int:
        return sum(len(value) for value in ctx.tags.values())

    async def main(client: holdtrue.Client) -> None:
        tags = {f"{n} \"'é": f"{n}" * 20_000 for n in range(10)}
        i = await client.start(job, tags=tags)
        await client.start(job, tags={**tags, "9 \"'é": "other"})
        assert await outcome(client, i) == 200_000
        status = await client.get_status(i)
        assert status is not None and status.tags == tags
        assert [found.instance_id async for found in client.query(tags=tags)] == [i]

    hosted(tmp_path, app, main)

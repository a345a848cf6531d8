"""What an orchestrator asks for in words that no history can hold is an error at its call, and nowhere else."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import holdtrue

HALF = "\ud800"
TIMEOUT = 60

CALLS: dict[str, Callable[[holdtrue.OrchestrationContext], Any]] = {
    "activity's name": lambda ctx: ctx.call_activity(HALF),
    "activity's version": lambda ctx: ctx.call_activity("fine", version=3),  # type: ignore[call-overload]
    "activity's tags": lambda ctx: ctx.call_activity("fine", tags={"k": HALF}),
    "activity's tag": lambda ctx: ctx.call_activity("fine", tag=HALF),
    "no tags": lambda ctx: ctx.call_activity("fine", tags=["k"]),  # type: ignore[call-overload]
    "orchestrator's name": lambda ctx: ctx.call_sub_orchestrator(HALF),
    "orchestrator's version": lambda ctx: ctx.call_sub_orchestrator("asks", version=HALF),
    "orchestrator's tags": lambda ctx: ctx.call_sub_orchestrator("asks", tags={HALF: "v"}),
    "child's id": lambda ctx: ctx.call_sub_orchestrator("asks", instance_id=HALF),
    "event's name": lambda ctx: ctx.wait_for_external_event(HALF),
    "event sent": lambda ctx: ctx.send_event("i", HALF),
    "new version": lambda ctx: ctx.continue_as_new(None, new_version=3),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("which", CALLS)
def test_it_is_an_error_at_the_call(tmp_path: Path, which: str) -> None:
    app = holdtrue.App()

    @app.activity
    async def fine(ctx: holdtrue.ActivityContext) -> None: ...

    @app.orchestrator
    async def asks(ctx: holdtrue.OrchestrationContext) -> str:
        try:
            CALLS[which](ctx)
        except holdtrue.InvalidInput as error:
            return ascii(str(error))
        return ""

    async def main() -> None:
        async with holdtrue.Host(app, str(tmp_path / "hub.db")) as host:
            status = await host.client.wait_for_completion(await host.client.start(asks), timeout=TIMEOUT)
            assert status.runtime_status is holdtrue.Status.COMPLETED and status.output

    asyncio.run(main())


def test_a_timer_however_long_past_fires_at_once_and_can_be_shown(tmp_path: Path) -> None:
    app = holdtrue.App()

    @app.orchestrator
    async def waits(ctx: holdtrue.OrchestrationContext) -> str:
        await ctx.create_timer(timedelta(days=-999_999_999))
        return "fired"

    async def main() -> None:
        async with holdtrue.Host(app, str(tmp_path / "hub.db")) as host:
            i = await host.client.start(waits)
            assert (await host.client.wait_for_completion(i, timeout=TIMEOUT)).output == "fired"
            times = [event.fire_at async for event in host.client.history(i) if hasattr(event, "fire_at")]
            assert len(times) == 2 and all(holdtrue.core.dialect.to_datetime(time).year == 1 for time in times)

    asyncio.run(main())

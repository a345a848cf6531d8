"""Results find the execution that asked for them, and no other under the same id."""

import threading
from pathlib import Path

import pytest

import holdtrue
from tests.e2e.hubs import outcome, until

from .hosting import hosted


@pytest.mark.parametrize("again", ["terminate", "replace", "purge", "restart", "continue as new"])
def test_a_late_result_does_not_answer_the_next_execution(tmp_path: Path, again: str) -> None:
    """Task numbers begin anew with each execution, and a late result answered the wrong one (class 1)."""
    app = holdtrue.App()
    released = [threading.Event(), threading.Event()]
    begun: list[str] = []
    done: list[int] = []

    @app.activity
    def ask(ctx: holdtrue.ActivityContext) -> int:
        number = len(begun)
        begun.append(ctx.idempotency_key)
        assert released[number].wait(60)
        done.append(number)
        return number

    @app.orchestrator
    async def job(ctx: holdtrue.OrchestrationContext, generation: int) -> int | None:
        answer = ctx.call_activity(ask)
        if again == "continue as new" and generation == 0:
            await ctx.wait_for_external_event("next")
            ctx.continue_as_new(1)
            return None
        return await answer

    @app.orchestrator
    async def other(ctx: holdtrue.OrchestrationContext) -> None:
        await ctx.create_timer(ctx.now)

    async def main(client: holdtrue.Client) -> None:
        await client.start(job, instance_id="one", input=0)
        await until(lambda: len(begun) == 1, "the first call")
        if again == "continue as new":
            await client.raise_event("one", "next")
        elif again == "replace":
            await client.start(job, instance_id="one", input=1, reuse="replace")
        else:
            await client.terminate("one")
            await client.wait_for_completion("one", timeout=30)
            if again == "restart":
                await client.restart("one")
            else:
                if again == "purge":
                    await client.purge("one")
                await client.start(job, instance_id="one", input=1)
        await until(lambda: len(begun) == 2, "the second call")
        released[0].set()
        await until(lambda: done == [0], "the late result")
        await outcome(client, await client.start(other))
        assert (await client.get_status("one")).runtime_status is holdtrue.Status.RUNNING
        released[1].set()
        assert await outcome(client, "one") == 1
        assert begun[0] != begun[1]

    try:
        hosted(tmp_path, app, main, cancel_grace_seconds=0.1, drain_seconds=0.1)
    finally:
        for event in released:
            event.set()

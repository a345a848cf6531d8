"""A human decides by an event; where none comes in time, the answer is no.

Prints:
    approved by Grace
    nobody answered
"""

import asyncio
import tempfile
from datetime import timedelta

import holdtrue

app = holdtrue.App()


@app.orchestrator
async def expense(ctx: holdtrue.OrchestrationContext, seconds: float) -> str:
    answer = ctx.wait_for_external_event("decision", data_type=str)
    late = ctx.create_timer(timedelta(seconds=seconds))
    if await holdtrue.when_any([answer, late]) is answer:
        late.cancel()
        return f"approved by {answer.get_result()}"
    return "nobody answered"


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with holdtrue.Host(app, f"{directory}/hub.db") as host:
            asked = await host.client.start(expense, input=3600.0)
            await host.client.raise_event(asked, "decision", "Grace")
            forgotten = await host.client.start(expense, input=0.05)
            for instance_id in (asked, forgotten):
                print((await host.client.wait_for_completion(instance_id)).output)


if __name__ == "__main__":
    asyncio.run(main())

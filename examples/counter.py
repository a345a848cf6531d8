"""A loop without end: after every event it begins anew with a fresh, short history; no event is lost.

Prints:
    COMPLETED 6
"""

import asyncio
import tempfile

import holdtrue

app = holdtrue.App()


@app.orchestrator
async def counter(ctx: holdtrue.OrchestrationContext, total: int) -> int:
    amount = await ctx.wait_for_external_event("add", data_type=int)
    if amount == 0:
        return total
    ctx.continue_as_new(total + amount, save_events=True)
    return total


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with holdtrue.Host(app, f"{directory}/hub.db") as host:
            await host.client.start(counter, input=0, instance_id="counter")
            for amount in (1, 2, 3, 0):
                await host.client.raise_event("counter", "add", amount)
            status = await host.client.wait_for_completion("counter")
            print(status.runtime_status.name, status.output)


if __name__ == "__main__":
    asyncio.run(main())

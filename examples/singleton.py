"""At most one run under a fixed id: asking and starting are one transaction.

Prints:
    started
    running
    started
"""

import asyncio
import tempfile

import holdtrue

app = holdtrue.App()


@app.orchestrator
async def nightly(ctx: holdtrue.OrchestrationContext) -> None:
    await ctx.wait_for_external_event("finish")


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with holdtrue.Host(app, f"{directory}/hub.db") as host:
            client = host.client
            print((await client.start_if_not_running(nightly, instance_id="nightly")).outcome)
            print((await client.start_if_not_running(nightly, instance_id="nightly")).outcome)
            await client.raise_event("nightly", "finish")
            await client.wait_for_completion("nightly")
            print((await client.start_if_not_running(nightly, instance_id="nightly")).outcome)


if __name__ == "__main__":
    asyncio.run(main())

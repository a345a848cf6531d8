"""An orchestration with one activity.

Prints:
    COMPLETED Hello, Oslo!
"""

import asyncio
import tempfile

import holdtrue

app = holdtrue.App()


@app.activity
def greet(ctx: holdtrue.ActivityContext, name: str) -> str:
    return f"Hello, {name}!"


@app.orchestrator
async def hello(ctx: holdtrue.OrchestrationContext, name: str) -> str:
    return await ctx.call_activity(greet, input=name)


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with holdtrue.Host(app, f"{directory}/hub.db") as host:
            instance_id = await host.client.start(hello, input="Oslo")
            status = await host.client.wait_for_completion(instance_id)
            print(status.runtime_status.name, status.output)


if __name__ == "__main__":
    asyncio.run(main())

"""A hundred activities at once, and the sum of what they return.

Prints:
    328350
"""

import asyncio
import tempfile

import holdtrue

app = holdtrue.App()


@app.activity
async def square(ctx: holdtrue.ActivityContext, number: int) -> int:
    return number * number


@app.orchestrator
async def sum_of_squares(ctx: holdtrue.OrchestrationContext, count: int) -> int:
    return sum(await holdtrue.when_all([ctx.call_activity(square, input=n) for n in range(count)]))


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with holdtrue.Host(app, f"{directory}/hub.db") as host:
            instance_id = await host.client.start(sum_of_squares, input=100)
            status = await host.client.wait_for_completion(instance_id)
            print(status.output)


if __name__ == "__main__":
    asyncio.run(main())

"""A program that begins its host whenever it is loaded, also by the process of its own activity."""

import asyncio
import sys
from typing import Any

import holdtrue

app = holdtrue.App()


@app.activity(cpu=True)
def square(ctx: Any, number: int) -> int:
    return number * number


@app.orchestrator
async def main(ctx: Any, number: int) -> int:
    result: int = await ctx.call_activity(square, input=number)
    return result


async def work() -> None:
    async with holdtrue.Host(app, sys.argv[-1] if len(sys.argv) > 1 else "unused.db") as host:
        status = await host.client.wait_for_completion(await host.client.start(main, input=3), timeout=60)
        assert status.failure is not None and status.failure.inner_failure is not None
        print(status.failure.inner_failure.message)


asyncio.run(work())

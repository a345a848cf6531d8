"""A program whose app, registration and orchestrator are there only when it is run: its activity works all the same."""

import asyncio
import json
import sys
from typing import Any

import holdtrue


class Odd(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(f"{number} is odd")
        self.number = number


def halve(ctx: Any, number: int) -> int:
    if number % 2:
        raise Odd(number)
    return number // 2


async def work(app: holdtrue.App) -> None:
    async with holdtrue.Host(app, sys.argv[1]) as host:
        for number in (4, 3):
            status = await host.client.wait_for_completion(await host.client.start("main", input=number), timeout=60)
            print(json.dumps(status.output), flush=True)


if __name__ == "__main__":
    app = holdtrue.App()
    app.error(Odd, properties=["number"])
    app.activity(halve, cpu=True)

    @app.orchestrator
    async def main(ctx: Any, number: int) -> Any:
        try:
            return await ctx.call_activity(halve, input=number)
        except holdtrue.TaskFailedError as error:
            cause = error.__cause__
            return [error.details.error_type, isinstance(cause, Odd), getattr(cause, "number", None)]

    asyncio.run(work(app))

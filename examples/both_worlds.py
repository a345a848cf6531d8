"""A generator orchestration in the words of the official Durable Task Python SDK.

`square` and `squares` run unchanged under that SDK's worker too: what they import is the SDK's own.

Prints:
    COMPLETED [1, 4, 9]
"""

import asyncio
import tempfile

from durabletask.task import when_all

import holdtrue

app = holdtrue.App()


@app.activity
def square(ctx, number: int) -> int:
    return number * number


@app.orchestrator
def squares(ctx, numbers: list[int]):
    results = yield when_all([ctx.call_activity(square, input=number) for number in numbers])
    return results


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with holdtrue.Host(app, f"{directory}/hub.db") as host:
            status = await host.client.wait_for_completion(await host.client.start(squares, input=[1, 2, 3]))
            print(status.runtime_status.name, status.output)


if __name__ == "__main__":
    asyncio.run(main())

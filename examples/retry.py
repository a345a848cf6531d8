"""An activity that fails twice is tried again; one that always fails raises in the orchestration.

Prints:
    ['answered at attempt 3', 'gave up: attempt 2: nobody at home']
"""

import asyncio
import tempfile
from datetime import timedelta

import holdtrue

app = holdtrue.App()


@app.activity
def ring(ctx: holdtrue.ActivityContext, home_at: int) -> str:
    if ctx.attempt < home_at:
        raise ConnectionError(f"attempt {ctx.attempt}: nobody at home")
    return f"answered at attempt {ctx.attempt}"


@app.orchestrator
async def call_round(ctx: holdtrue.OrchestrationContext) -> list[str]:
    policy = holdtrue.RetryPolicy(first_retry_interval=timedelta(milliseconds=10), max_number_of_attempts=3)
    first = await ctx.call_activity(ring, input=3, retry_policy=policy)
    policy = holdtrue.RetryPolicy(first_retry_interval=timedelta(milliseconds=10), max_number_of_attempts=2)
    try:
        return [first, await ctx.call_activity(ring, input=3, retry_policy=policy)]
    except holdtrue.TaskFailedError as error:
        return [first, f"gave up: {error.details.message}"]


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with holdtrue.Host(app, f"{directory}/hub.db") as host:
            status = await host.client.wait_for_completion(await host.client.start(call_round))
            print(status.output)


if __name__ == "__main__":
    asyncio.run(main())

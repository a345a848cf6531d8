"""A trip is booked step by step; when a client cancels, what was booked is undone in reverse order.

Prints:
    booked flight, booked hotel, undid hotel, undid flight
    TERMINATED
"""

import asyncio
import tempfile

import holdtrue

app = holdtrue.App()
done: list[str] = []


@app.activity
def act(ctx: holdtrue.ActivityContext, what: str) -> None:
    done.append(what)


@app.orchestrator
async def trip(ctx: holdtrue.OrchestrationContext) -> None:
    steps = ["flight", "hotel"]
    try:
        for step in steps:
            await ctx.call_activity(act, input=f"booked {step}")
        ctx.set_custom_status("waiting for the car")
        await ctx.wait_for_external_event("car")
    except holdtrue.OrchestrationCancelledError:
        for step in reversed(steps):
            await ctx.call_activity(act, input=f"undid {step}")
        raise


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with holdtrue.Host(app, f"{directory}/hub.db") as host:
            status = await host.client.wait_for_start(instance_id := await host.client.start(trip))
            while status.custom_status is None:
                status = await host.client.wait_for_change(instance_id, since=status)
            await host.client.cancel(instance_id, "changed my mind")
            status = await host.client.wait_for_completion(instance_id)
            print(", ".join(done), status.runtime_status.name, sep="\n")


if __name__ == "__main__":
    asyncio.run(main())

"""A parent starts a child for each order and waits for all; each child is an instance of its own.

Prints:
    ['A-1: 2 parcels', 'A-2: 3 parcels']
    children: order-A-1, order-A-2
"""

import asyncio
import tempfile

import holdtrue

app = holdtrue.App()


@app.activity
def pack(ctx: holdtrue.ActivityContext, items: int) -> int:
    return (items + 4) // 5


@app.orchestrator
async def order(ctx: holdtrue.OrchestrationContext, items: int) -> str:
    return f"{ctx.instance_id[6:]}: {await ctx.call_activity(pack, input=items)} parcels"


@app.orchestrator
async def day(ctx: holdtrue.OrchestrationContext, orders: dict[str, int]) -> list[str]:
    return await holdtrue.when_all(
        [ctx.call_sub_orchestrator(order, input=n, instance_id=f"order-{name}") for name, n in orders.items()]
    )


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with holdtrue.Host(app, f"{directory}/hub.db") as host:
            instance_id = await host.client.start(day, input={"A-1": 7, "A-2": 11})
            print((await host.client.wait_for_completion(instance_id)).output)
            ids = sorted([status.instance_id async for status in host.client.query(prefix="order-")])
            print("children:", ", ".join(ids))


if __name__ == "__main__":
    asyncio.run(main())

"""A program for the tests of `TestHub`."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from holdtrue import ActivityContext, App, OrchestrationContext, RetryPolicy

app = App()


@dataclass
class Order:
    customer: str
    amount: int


@app.activity
def charge(ctx: ActivityContext, order: Order) -> str:
    return f"{order.customer} paid {order.amount}"


@app.activity(cpu=True)
def crunch(ctx: ActivityContext, number: int) -> int:
    return number * number


@app.activity(tag="gpu")
async def rest(ctx: ActivityContext, seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@app.activity
async def lost(ctx: ActivityContext) -> None:
    await asyncio.Event().wait()


@app.activity
async def circle(ctx: ActivityContext) -> None:
    while True:
        await asyncio.sleep(0)


@app.activity
def ask_client(ctx: ActivityContext) -> Any:
    return ctx.client.get_status(ctx.instance_id)


@app.activity
async def tell(ctx: ActivityContext, instance_id: str) -> None:
    await ctx.client.raise_event(instance_id, "told", ctx.instance_id)


@app.orchestrator
async def fulfil(ctx: OrchestrationContext, order: Order) -> list[Any]:
    paid = await ctx.call_activity(charge, input=order)
    await ctx.create_timer(timedelta(days=30))
    approved = await ctx.wait_for_external_event("Approved")
    return [paid, approved]


@app.orchestrator
async def month(ctx: OrchestrationContext) -> str:
    await ctx.create_timer(timedelta(days=30))
    return f"{ctx.current_utc_datetime:%Y-%m-%d %H:%M:%S}"


@app.orchestrator
async def call(ctx: OrchestrationContext, given: list[Any]) -> Any:
    name, value = given
    return await ctx.call_activity(name, input=value)


@app.orchestrator
async def trying(ctx: OrchestrationContext) -> Any:
    policy = RetryPolicy(first_retry_interval=timedelta(hours=1), max_number_of_attempts=3)
    return await ctx.call_activity(charge, input=Order("Ann", 5), retry_policy=policy)


@app.orchestrator
async def tagged(ctx: OrchestrationContext) -> Any:
    return await ctx.call_activity(rest, input=5.0, tag="big")


@app.orchestrator
async def parent(ctx: OrchestrationContext) -> Any:
    return await ctx.call_sub_orchestrator(listen, instance_id="child")


@app.orchestrator
async def listen(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("told")


@app.orchestrator
async def eternal(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(minutes=1))
    ctx.continue_as_new(None)


@app.orchestrator
async def names(ctx: OrchestrationContext) -> list[str]:
    return [str(ctx.new_uuid()), str(ctx.random().random())]

"""The orchestrations of the .NET peer, written again: the same names, ids and steps, so that either side goes on with
what the other has begun."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import holdtrue

app = holdtrue.App()
calls: Counter[str] = Counter()


@app.activity(name="AddOne")
async def add_one(ctx: holdtrue.ActivityContext, given: list[Any]) -> int:
    return int(given[0]) + 1


@app.activity(name="Square")
async def square(ctx: holdtrue.ActivityContext, given: list[Any]) -> int:
    await asyncio.sleep(1.0)  # so that many are at work at a hand-over
    return int(given[0]) ** 2


@app.activity(name="Echo")
async def echo(ctx: holdtrue.ActivityContext, given: list[Any]) -> Any:
    return given[0]


@app.activity(name="Blob")
async def blob(ctx: holdtrue.ActivityContext, given: list[Any]) -> str:
    return "x" * (1024 * int(given[0]))


@app.activity(name="Boom")
async def boom(ctx: holdtrue.ActivityContext, given: list[Any]) -> str:
    raise RuntimeError(f"boom {given[0]}")


@app.activity(name="Flaky")
async def flaky(ctx: holdtrue.ActivityContext, given: list[Any]) -> int:
    name = ctx.orchestration_id
    calls[name] += 1
    if calls[name] <= 2:
        raise RuntimeError(f"flaky {calls[name] - 1}")
    return calls[name]


@app.activity(name="Work")
async def work(ctx: holdtrue.ActivityContext, given: list[Any]) -> Any:
    await asyncio.sleep(0.1)
    return f"worked {given[0]}"


def add(ctx: holdtrue.OrchestrationContext, number: int) -> Any:
    return ctx.call_activity("AddOne", input=[number])


@app.orchestrator(name="Chain")
async def chain(ctx: holdtrue.OrchestrationContext, count: int) -> int:
    number = 0
    for at in range(count):
        ctx.set_custom_status(at)
        number = await add(ctx, number)
    return number


@app.orchestrator(name="FanOut")
async def fan_out(ctx: holdtrue.OrchestrationContext, count: int) -> int:
    return sum(await holdtrue.when_all([ctx.call_activity("Square", input=[n]) for n in range(count)]))


@app.orchestrator(name="Timer")
async def timer(ctx: holdtrue.OrchestrationContext, seconds: int) -> int:
    number = await add(ctx, 0)
    await ctx.create_timer(timedelta(seconds=seconds))
    return await add(ctx, number)


@app.orchestrator(name="Event")
async def event(ctx: holdtrue.OrchestrationContext) -> Any:
    await add(ctx, 0)
    return await ctx.call_activity("Echo", input=[await ctx.wait_for_external_event("go")])


@app.orchestrator(name="Race")
async def race(ctx: holdtrue.OrchestrationContext, seconds: int) -> str:
    late, go = ctx.create_timer(timedelta(seconds=seconds)), ctx.wait_for_external_event("go")
    won = await holdtrue.when_any([go, late])
    return "late" if won is late else str(go.get_result())


@app.orchestrator(name="Parent")
async def parent(ctx: holdtrue.OrchestrationContext, count: int) -> int:
    children = [
        ctx.call_sub_orchestrator("Chain", input=3, instance_id=f"{ctx.instance_id}:child:{n}") for n in range(count)
    ]
    return sum(await holdtrue.when_all(children))


@app.orchestrator(name="ParentCatch")
async def parent_catch(ctx: holdtrue.OrchestrationContext) -> str:
    try:
        await ctx.call_sub_orchestrator("Failing", input="c", instance_id=f"{ctx.instance_id}:child")
    except holdtrue.TaskFailedError as error:
        return error.details.message.rpartition(": ")[2]  # ours tells before it which activity failed
    return ""


@app.orchestrator(name="ParentAnonymous")
async def parent_anonymous(ctx: holdtrue.OrchestrationContext) -> int:
    return await ctx.call_sub_orchestrator("Chain", input=2)


@app.orchestrator(name="FireAndForget")
async def fire_and_forget(ctx: holdtrue.OrchestrationContext, child: str) -> str:
    ctx.call_sub_orchestrator("Chain", input=2, instance_id=child)
    return "started"


@app.orchestrator(name="Loop")
async def loop(ctx: holdtrue.OrchestrationContext, left: int) -> str:
    await add(ctx, left)
    if left:
        ctx.continue_as_new(left - 1)
        return ""
    return "done"


@app.orchestrator(name="Adder")
async def adder(ctx: holdtrue.OrchestrationContext, number: int) -> int:
    more = int(await ctx.wait_for_external_event("go"))
    if more:
        ctx.continue_as_new(number + more, save_events=True)
    return number


@app.orchestrator(name="Failing")
async def failing(ctx: holdtrue.OrchestrationContext, text: str) -> str:
    return await ctx.call_activity("Boom", input=[text])


@app.orchestrator(name="Handling")
async def handling(ctx: holdtrue.OrchestrationContext, text: str) -> str:
    try:
        return await ctx.call_activity("Boom", input=[text])
    except holdtrue.TaskFailedError as error:
        return error.details.message


@app.orchestrator(name="Throwing")
async def throwing(ctx: holdtrue.OrchestrationContext) -> None:
    await add(ctx, 1)
    raise RuntimeError("thrown by the orchestration")


@app.orchestrator(name="Retrying")
async def retrying(ctx: holdtrue.OrchestrationContext, number: int) -> int:
    policy = holdtrue.RetryPolicy(
        first_retry_interval=timedelta(milliseconds=300), max_number_of_attempts=5, backoff_coefficient=1.5
    )
    return await ctx.call_activity("Flaky", input=[number], retry_policy=policy)


@app.orchestrator(name="Rewindable")
async def rewindable(ctx: holdtrue.OrchestrationContext) -> int:
    return await add(ctx, 0) + await ctx.call_activity("Flaky", input=[0])


@app.orchestrator(name="Large")
async def large(ctx: holdtrue.OrchestrationContext, size: int) -> Any:
    return await ctx.call_activity("Echo", input=[await ctx.call_activity("Blob", input=[size])])


@app.orchestrator(name="Reporting")
async def reporting(ctx: holdtrue.OrchestrationContext, status: Any) -> str:
    ctx.set_custom_status(status)
    await add(ctx, 0)
    await ctx.wait_for_external_event("go")
    ctx.set_custom_status(None)
    return "reported"


@app.orchestrator(name="Nothing")
async def nothing(ctx: holdtrue.OrchestrationContext) -> None:
    await ctx.call_activity("Echo", input=[None])


@app.orchestrator(name="Sender")
async def sender(ctx: holdtrue.OrchestrationContext, given: dict[str, Any]) -> str:
    ctx.send_event(given["to"], "go", data=given["data"])
    return "sent"


@app.orchestrator(name="HandOver")
async def hand_over(ctx: holdtrue.OrchestrationContext, seconds: int) -> int:
    number = await add(ctx, 0)
    await ctx.create_timer(timedelta(seconds=seconds))
    number = await add(ctx, number)
    number += int(await ctx.wait_for_external_event("go"))
    return await add(ctx, number)


@app.orchestrator(name="Singleton")
async def singleton(ctx: holdtrue.OrchestrationContext, given: Any) -> Any:
    return await ctx.call_activity("Work", input=[given])

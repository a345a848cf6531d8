"""What the workers on Azure Storage run: the .NET peer's orchestrations of these names, in Python."""

import holdtrue

app = holdtrue.App()


@app.activity(name="AddOne")
async def add_one(ctx: holdtrue.ActivityContext, number: int) -> int:
    """One more."""
    return number + 1


@app.activity(name="Square")
async def square(ctx: holdtrue.ActivityContext, number: int) -> int:
    """Its square."""
    return number * number


@app.orchestrator(name="Chain")
async def chain(ctx: holdtrue.OrchestrationContext, steps: int) -> int:
    """So many activities, one after the other, each told in the custom status."""
    number = 0
    for step in range(steps):
        number = await ctx.call_activity(add_one, input=number)
        ctx.set_custom_status(step)
    return number


@app.orchestrator(name="FanOut")
async def fan_out(ctx: holdtrue.OrchestrationContext, width: int) -> int:
    """So many activities at once."""
    return sum(await holdtrue.when_all([ctx.call_activity(square, input=number) for number in range(width)]))


@app.orchestrator(name="Parent")
async def parent(ctx: holdtrue.OrchestrationContext, width: int) -> int:
    """So many children at once."""
    return sum(
        await holdtrue.when_all(
            [
                ctx.call_sub_orchestrator(chain, input=3, instance_id=f"{ctx.instance_id}:child:{number}")
                for number in range(width)
            ]
        )
    )

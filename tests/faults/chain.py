"""`Chain` and `AddOne` of the .NET worker, in Python under the same names: n activities, one after the other."""

import holdtrue

app = holdtrue.App()


@app.activity(name="AddOne")
async def add_one(ctx: holdtrue.ActivityContext, number: int) -> int:
    return number + 1


@app.orchestrator(name="Chain")
async def chain(ctx: holdtrue.OrchestrationContext, length: int) -> int:
    number = 0
    for step in range(length):
        ctx.set_custom_status(step)
        number = await ctx.call_activity(add_one, input=number)
    return number

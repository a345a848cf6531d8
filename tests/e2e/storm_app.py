"""What runs in the storm: programs of every kind, and who starts them and sends them events.

`python tests/e2e/storm_app.py worker DIRECTORY` is a worker; `... sender DIRECTORY NAME SEED` starts instances
and sends events, and says in `DIRECTORY/said` what it is about to do and what was acknowledged.  Each can be
killed at any moment.
"""

import asyncio
import os
import random
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import holdtrue

app = holdtrue.App()

PROGRAMS = ("chain", "fan", "family", "naps", "loop", "collect")
SINGLE = "single"
OVER = -1
"""The event after which a `collect` waits for no more."""


def put_down(file: Path, line: str) -> None:
    """A line at the end of a file that several processes write to, whole or not at all."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


@app.activity
async def step(ctx: holdtrue.ActivityContext, work: list[Any]) -> int:
    """One more than it was given; its effect is a line with the name of the work."""
    tag, value = work
    await asyncio.sleep(0.005)
    put_down(Path(os.environ["STORM"]) / "effects", tag)
    return int(value) + 1


@app.orchestrator
async def chain(ctx: holdtrue.OrchestrationContext, n: int) -> int:
    total = 0
    for at in range(n):
        total = await ctx.call_activity(step, input=[f"{ctx.instance_id}/{at}", total])
    return total


@app.orchestrator
async def fan(ctx: holdtrue.OrchestrationContext, n: int) -> int:
    return sum(
        await holdtrue.when_all([ctx.call_activity(step, input=[f"{ctx.instance_id}/{at}", at]) for at in range(n)])
    )


@app.orchestrator
async def family(ctx: holdtrue.OrchestrationContext, n: int) -> int:
    return sum(
        await holdtrue.when_all(
            [ctx.call_sub_orchestrator(chain, input=n, instance_id=f"{ctx.instance_id}.{at}") for at in range(3)]
        )
    )


@app.orchestrator
async def naps(ctx: holdtrue.OrchestrationContext, n: int) -> int:
    for _ in range(n):
        await ctx.create_timer(timedelta(milliseconds=30))
    return n


@app.orchestrator
async def loop(ctx: holdtrue.OrchestrationContext, state: list[int] | int) -> int:
    left, total = state if isinstance(state, list) else (state, 0)
    if left:
        total = await ctx.call_activity(step, input=[f"{ctx.instance_id}/{total}", total])
        ctx.continue_as_new([left - 1, total])
    return total


@app.orchestrator
async def collect(ctx: holdtrue.OrchestrationContext, n: int) -> list[int]:
    seen: list[int] = []
    while (value := await ctx.wait_for_external_event("go", data_type=int)) != OVER:
        seen.append(value)
        await ctx.call_activity(step, input=[f"{ctx.instance_id}/{value}", value])
    return seen


@app.orchestrator
async def single(ctx: holdtrue.OrchestrationContext, _: None = None) -> int:
    total = 0
    for at in range(3):
        total = await ctx.call_activity(step, input=[f"{SINGLE}/{ctx.execution_id}/{at}", total])
    return total


def answer(program: str, n: int) -> int:
    """What a program gives (but `collect`, which gives what it was sent)."""
    return {"chain": n, "fan": n * (n + 1) // 2, "family": 3 * n, "naps": n, "loop": n}[program]


def effects(instance_id: str, program: str, n: int) -> set[str]:
    """The names of the work that a program does."""
    if program == "naps":
        return set()
    parts = [f"{instance_id}.{at}" for at in range(3)] if program == "family" else [instance_id]
    return {f"{part}/{at}" for part in parts for at in range(n)}


async def send(directory: Path, name: str, seed: int) -> None:
    """Start instances and send events, a few each moment, until it is killed or there are enough."""
    rng, said = random.Random(seed), directory / "said"
    open_: list[str] = []
    async with holdtrue.Client(directory / "hub.db", app=app) as client:
        for at in range(25):
            program, n = rng.choice(PROGRAMS), rng.randrange(2, 9)
            instance_id = f"{program}-{name}-{at}"
            put_down(said, f"starts {instance_id} {n}")
            await client.start(program, input=n, instance_id=instance_id)
            put_down(said, f"started {instance_id} {n}")
            if program == "collect":
                open_.append(instance_id)
            for target in open_[-3:]:
                put_down(said, f"sends {target} {at}")
                await client.raise_event(target, "go", at)
                put_down(said, f"sent {target} {at}")
            await asyncio.sleep(rng.uniform(0.0, 0.05))


if __name__ == "__main__":
    where = Path(sys.argv[2])
    os.environ["STORM"] = str(where)
    if sys.argv[1] == "worker":
        holdtrue.run(app, str(where / "hub.db"))
    else:
        asyncio.run(send(where, sys.argv[3], int(sys.argv[4])))

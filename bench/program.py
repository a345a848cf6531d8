"""The program under test: the orchestrations and activities of all scenarios, and how a scenario runs.

Needs nothing but Holdtrue's public API with its default settings.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import holdtrue

app = holdtrue.App()


@app.activity
async def step(ctx: holdtrue.ActivityContext, number: int) -> int:
    """The activity that does nothing."""
    return number


@app.activity
def burn(ctx: holdtrue.ActivityContext, seconds: float) -> int:
    """A synchronous activity that keeps the interpreter busy for so long, and never says that it would."""
    end, value = time.perf_counter() + seconds, 1
    while time.perf_counter() < end:
        for _ in range(1000):
            value = (value * 31 + 7) % 1_000_003
    return value


@app.orchestrator
async def chain(ctx: holdtrue.OrchestrationContext, steps: int) -> int:
    """So many activities, one after the other."""
    done = 0
    for number in range(steps):
        done += await ctx.call_activity(step, input=number) == number
    return done


@app.orchestrator
async def fan_out(ctx: holdtrue.OrchestrationContext, width: int) -> int:
    """So many activities at once."""
    return sum(await holdtrue.when_all([ctx.call_activity(step, input=number) for number in range(width)]))


@app.orchestrator
async def nothing(ctx: holdtrue.OrchestrationContext, number: int) -> int:
    """Ends at once."""
    return number


@app.orchestrator
async def busy(ctx: holdtrue.OrchestrationContext, seconds: float) -> int:
    """Runs `burn`."""
    return await ctx.call_activity(burn, input=seconds)


@app.orchestrator
async def waiting(ctx: holdtrue.OrchestrationContext) -> None:
    """Waits for an event that never comes."""
    await ctx.wait_for_external_event("go")


class WrongResult(Exception):
    """An instance ended otherwise than it had to: the figures of this run are worth nothing."""


async def run_to_end(client: holdtrue.Client, orchestrator: Callable[..., Any], given: Any, expected: Any) -> None:
    """Start one instance and see its result."""
    instance_id = await client.start(orchestrator, input=given)
    status = await client.wait_for_completion(instance_id)
    if status.runtime_status is not holdtrue.Status.COMPLETED or status.output != expected:
        raise WrongResult(
            f"{instance_id} ended as {status.runtime_status}, {status.serialized_output}; expected {expected}"
        )


def arguments(description: str | None, **defaults: int | float) -> argparse.Namespace:
    """The scenario's own options: one for each default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=" ")
    return parser.parse_args()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario on the loop that `holdtrue.run` takes: uvloop where it is there."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(scenario)
    else:
        uvloop.run(scenario)

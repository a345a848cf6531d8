"""The three scenarios of the fault matrix: what runs, who starts it, and what must have come of it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec

import holdtrue
from holdtrue.client.errors import InstanceAlreadyExists
from holdtrue.core.projection import Status
from holdtrue.stores.errors import StoreError

app = holdtrue.App()

ran: dict[str, Counter[str]] = {}
"""What activities have done, by the case (the beginning of the instance's id) that they belong to."""


tell: Callable[[str], None] | None = None
"""In a process of its own: says what is noted, a line that `heard` takes."""


def note(instance_id: str, what: str) -> None:
    ran.setdefault(instance_id.partition("-")[0], Counter())[what] += 1
    if tell is not None:
        tell(f"{instance_id}\t{what}")


def heard(line: str) -> None:
    """Another process has said so."""
    instance_id, _, what = line.partition("\t")
    note(instance_id, what)


LONG_ONES = "q"
"""The names of cases begin so in which an activity takes long."""
LONG_SECONDS = 6.0
"""Longer than a message that was got stays hidden without being renewed."""


@app.activity
async def add_one(ctx: holdtrue.ActivityContext, number: int) -> int:
    if number == 0 and ctx.instance_id.startswith(LONG_ONES):
        await asyncio.sleep(LONG_SECONDS)
    note(ctx.instance_id, f"add_one {number}")
    return number + 1


@app.activity
async def work(ctx: holdtrue.ActivityContext, what: list[str]) -> None:
    note(ctx.instance_id, " ".join(what))


@app.orchestrator
async def chain_with_timer(ctx: holdtrue.OrchestrationContext, given: Any) -> int:
    number = await ctx.call_activity(add_one, input=0)
    await ctx.create_timer(timedelta(seconds=1))
    return await ctx.call_activity(add_one, input=number)


@app.orchestrator
async def child(ctx: holdtrue.OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(add_one, input=number)


@app.orchestrator
async def fan_out_with_child(ctx: holdtrue.OrchestrationContext, given: Any) -> int:
    tasks = [ctx.call_activity(add_one, input=n) for n in range(3)]
    own = ctx.call_sub_orchestrator(child, input=100, instance_id=f"{ctx.instance_id}:child")
    return sum(await holdtrue.when_all([*tasks, own]))


@app.orchestrator
async def singleton(ctx: holdtrue.OrchestrationContext, given: list[str] | None) -> str:
    run, step = given or [str(ctx.new_uuid()), "first"]
    await ctx.call_activity(work, input=[run, step])
    if step == "first":
        ctx.continue_as_new([run, "second"])
        return ""
    return run


class Scenario(msgspec.Struct, frozen=True):
    """`begin` asks for it as a client, `done` waits, as one, until all that was asked for is over.

    `instances` are the ids that it makes; `counts` the events of each one's last history, by type; `output` that of
    the first where it is always the same.  `ran` says what its activities must have done, once at least.  With
    `hosts_after` they come when it has been asked for: running ones look for new schedules every 30 s alone.
    """

    name: str
    begin: Callable[[holdtrue.Client, str], Awaitable[None]]
    done: Callable[[holdtrue.Client, str], Awaitable[None]]
    counts: dict[str, Counter[str]]
    ran: Callable[[Counter[str]], bool]
    output: Any = None
    hosts_after: bool = False

    def instances(self, case: str) -> list[str]:
        """The ids of its instances in a case."""
        return [f"{case}-{name}" for name in self.counts]


def _started(orchestrator: Callable[..., Any]) -> Callable[[holdtrue.Client, str], Awaitable[None]]:
    async def begin(client: holdtrue.Client, case: str) -> None:
        """Start it, again where the answer tells nothing: one that was started stands."""
        while True:
            try:
                await client.start(orchestrator, instance_id=f"{case}-one", reuse="error")
                return
            except InstanceAlreadyExists:
                return
            except StoreError:
                await asyncio.sleep(0.1)

    return begin


async def _ended(client: holdtrue.Client, case: str) -> None:
    await client.wait_for_completion(f"{case}-one")


RUNS = 2
"""Of the singleton in a case."""


async def _scheduled(client: holdtrue.Client, case: str) -> None:
    every = timedelta(seconds=1)
    while True:
        try:
            await client.schedules.put("every second", singleton, interval=every, instance_id=f"{case}-one")
            return
        except StoreError:
            await asyncio.sleep(0.1)


async def _ran_by_schedule(client: holdtrue.Client, case: str) -> None:
    """Until it has run twice; then nothing more is to begin, and what has begun is to end."""
    while len([tick async for tick in client.schedules.all_ticks("every second") if tick.started]) < RUNS:
        await asyncio.sleep(0.3)
    await client.schedules.pause("every second")
    while True:
        status = await client.wait_for_completion(f"{case}-one")
        # A tick that was under way at the pause is among them by now.
        ticks = [tick async for tick in client.schedules.all_ticks("every second") if tick.started]
        runs = {what.partition(" ")[0] for what in ran.get(case, ()) if what.endswith(" second")}
        if len(runs) >= len(ticks) and status.runtime_status is Status.COMPLETED:
            break
        await asyncio.sleep(0.3)
    if len(runs) != len(ticks):
        raise AssertionError(f"{len(ticks)} ticks have started {len(runs)} runs: {ticks}")


def _events(activities: int, *, timers: int = 0, children: int = 0) -> Counter[str]:
    return +Counter(
        ExecutionStarted=1,
        TaskScheduled=activities,
        TaskCompleted=activities,
        TimerCreated=timers,
        TimerFired=timers,
        SubOrchestrationInstanceCreated=children,
        SubOrchestrationInstanceCompleted=children,
        ExecutionCompleted=1,
    )


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="chain",
            begin=_started(chain_with_timer),
            done=_ended,
            counts={"one": _events(2, timers=1)},
            ran=lambda ran: ran.keys() == {"add_one 0", "add_one 1"},
            output=2,
        ),
        Scenario(
            name="fan-out",
            begin=_started(fan_out_with_child),
            done=_ended,
            counts={"one": _events(3, children=1), "one:child": _events(1)},
            ran=lambda ran: ran.keys() == {"add_one 0", "add_one 1", "add_one 2", "add_one 100"},
            output=1 + 2 + 3 + 101,
        ),
        Scenario(
            name="singleton",
            begin=_scheduled,
            done=_ran_by_schedule,
            counts={"one": _events(1)},
            hosts_after=True,
            ran=lambda ran: len({what.partition(" ")[0] for what in ran}) * 2 == len(ran) >= 2 * RUNS,
        ),
    )
}

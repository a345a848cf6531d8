"""Work made from a seed: small programs that one orchestrator interprets, with the answer that each must give.

A program is a list of steps (JSON).  What it returns follows from the program alone, so that any crash, any
lost answer and any order of messages must give the same.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import holdtrue
from holdtrue.authoring import determinism

Program = list[list[Any]]


class World:
    """What activities did outside the hub: runs by idempotency key, and which failed on purpose."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        self.mended: set[str] = set()
        self.kill: Callable[[], None] = lambda: None
        """Ends the process of whoever calls it."""

    def ran(self, key: str) -> None:
        """An activity ran (once more)."""
        self.runs[key] += 1


_checked: set[int] = set()


def app_for(world: World, code: int = 1) -> holdtrue.App:
    """The app of every host; each host has its own object, as each process has.

    `code` is its version: histories of `changing` that begin under one do not fit another.
    """
    if code not in _checked:
        _checked.add(code)
        return _app_for(world, code)
    # It was found fit to be replayed, and is the same code each time: that look costs a tenth of a run.
    with patch.object(determinism, "check", lambda function, name: None):
        return _app_for(world, code)


def _app_for(world: World, code: int) -> holdtrue.App:
    app = holdtrue.App()

    @app.activity
    async def echo(ctx: holdtrue.ActivityContext, tag: str) -> str:
        world.ran(ctx.idempotency_key)
        return tag

    @app.activity
    def echo_in_thread(ctx: holdtrue.ActivityContext, tag: str) -> str:
        world.ran(ctx.idempotency_key)
        return tag

    @app.activity
    async def slow(ctx: holdtrue.ActivityContext, seconds: float) -> str:
        await asyncio.sleep(seconds)
        world.ran(ctx.idempotency_key)
        return "slow"

    @app.activity
    async def flaky(ctx: holdtrue.ActivityContext, given: list[Any]) -> str:
        tag, failures = given
        world.tries[tag] += 1
        if world.tries[tag] <= failures:
            raise RuntimeError(f"{tag} fails on purpose")
        return str(tag)

    @app.activity
    async def deadly(ctx: holdtrue.ActivityContext, given: list[Any]) -> str:
        tag, deaths = given
        world.tries[tag] += 1
        if world.tries[tag] <= deaths:
            world.kill()
            await asyncio.sleep(0)
        return str(tag)

    @app.activity
    async def once_broken(ctx: holdtrue.ActivityContext, tag: str) -> str:
        if tag not in world.mended:
            raise RuntimeError(f"{tag} is broken until somebody mends it")
        return tag

    @app.activity
    async def boom(ctx: holdtrue.ActivityContext, tag: str) -> str:
        raise ValueError(tag)

    @app.orchestrator
    async def program(ctx: holdtrue.OrchestrationContext, given: list[Any]) -> list[Any]:
        steps, results = given
        for at, step in enumerate(steps):
            verb = step[0]
            if verb == "echo":
                results.append(await ctx.call_activity(echo, input=step[1]))
            elif verb == "thread":
                results.append(await ctx.call_activity(echo_in_thread, input=step[1]))
            elif verb == "all":
                results.append(await holdtrue.when_all([ctx.call_activity(echo, input=tag) for tag in step[1]]))
            elif verb == "flaky":
                policy = holdtrue.RetryPolicy(first_retry_interval=timedelta(seconds=2), max_number_of_attempts=50)
                results.append(await ctx.call_activity(flaky, input=[step[1], step[2]], retry_policy=policy))
            elif verb == "deadly":
                results.append(await ctx.call_activity(deadly, input=[step[1], step[2]]))
            elif verb == "beside":
                long = ctx.call_activity(slow, input=step[1])
                for tag in step[2]:
                    results.append(await ctx.call_activity(echo, input=tag))
                results.append(await long)
            elif verb == "boom":
                try:
                    await ctx.call_activity(boom, input=step[1])
                except holdtrue.TaskFailedError:
                    results.append(f"failed {step[1]}")
            elif verb == "broken":
                results.append(await ctx.call_activity(once_broken, input=step[1]))
            elif verb == "race":
                timer = ctx.create_timer(timedelta(seconds=step[1]))
                await holdtrue.when_any([ctx.call_activity(slow, input=step[2]), timer])
                results.append("race")
            elif verb == "outrun":
                timer = ctx.create_timer(timedelta(seconds=step[1]))
                await holdtrue.when_any([ctx.call_sub_orchestrator(program, input=[step[2], []]), timer])
                results.append("outrun")
            elif verb == "timer":
                await ctx.create_timer(timedelta(seconds=step[1]))
                results.append("timer")
            elif verb == "status":
                ctx.set_custom_status(step[1])
            elif verb == "events":
                got: list[str] = []
                while len(got) < step[2]:
                    tag = await ctx.wait_for_external_event(step[1])
                    if tag not in got:
                        got.append(tag)
                results.append(sorted(got))
            elif verb == "child":
                results.append(await ctx.call_sub_orchestrator(program, input=[step[1], []]))
            elif verb == "children":
                results.append(
                    await holdtrue.when_all([ctx.call_sub_orchestrator(program, input=[one, []]) for one in step[1]])
                )
            elif verb == "tell":
                ctx.send_event(step[1], step[2], data=step[3])
            elif verb == "again":
                ctx.continue_as_new([steps[at + 1 :], results], save_events=True)
                return []
            elif verb == "fail":
                raise RuntimeError("the program fails")
        return list(results)

    @app.orchestrator
    async def changing(ctx: holdtrue.OrchestrationContext, given: Any) -> list[str]:
        first = await ctx.call_activity(echo if code == 1 else echo_in_thread, input="first")
        return [first, await ctx.wait_for_external_event("Go")]

    @app.orchestrator
    async def every_tick(ctx: holdtrue.OrchestrationContext, given: Any) -> str:
        await ctx.call_activity(echo, input="tick")
        await ctx.create_timer(timedelta(seconds=7))
        return "ticked"

    return app


def expected(steps: Program) -> list[Any]:
    """What a program returns."""
    results: list[Any] = []
    for step in steps:
        verb = step[0]
        if verb in ("echo", "thread", "flaky", "broken", "deadly"):
            results.append(step[1])
        elif verb == "all":
            results.append(list(step[1]))
        elif verb == "beside":
            results += [*step[2], "slow"]
        elif verb == "boom":
            results.append(f"failed {step[1]}")
        elif verb in ("race", "timer", "outrun"):
            results.append(verb)
        elif verb == "events":
            results.append(sorted(step[3]))
        elif verb == "child":
            results.append(expected(step[1]))
        elif verb == "children":
            results.append([expected(one) for one in step[1]])
    return results


def events_of(steps: Program) -> list[tuple[str, str]]:
    """The events that the top level of a program waits for: name and payload, in an order to send them."""
    return [(step[1], tag) for step in steps if step[0] == "events" for tag in step[3]]


def broken_in(steps: Program) -> list[str]:
    """What must be mended before a program, its children included, can end well."""
    found = []
    for step in steps:
        if step[0] == "broken":
            found.append(step[1])
        elif step[0] == "child":
            found += broken_in(step[1])
        elif step[0] == "children":
            found += [tag for one in step[1] for tag in broken_in(one)]
    return found


class Maker:
    """Programs from chance; every tag is used once in a simulation."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._tags = 0
        self.breaks = chance.random() < 0.3

    def tag(self, kind: str) -> str:
        """A new one."""
        self._tags += 1
        return f"{kind}{self._tags}"

    def program(self, depth: int = 0) -> Program:
        """One to six steps; children only two levels deep."""
        verbs = ["echo", "thread", "all", "flaky", "boom", "race", "timer", "status"]
        if self.breaks:
            verbs.append("broken")
        if depth < 2:
            verbs += ["child", "children", "outrun"]
        if depth == 0:
            # What comes to one that has failed is dropped; so what is rewound waits for no events.
            verbs += ["again"] if self.breaks else ["events", "events", "again"]
        return [self.step(self._chance.choice(verbs), depth) for _ in range(self._chance.randint(1, 6))]

    def step(self, verb: str, depth: int) -> list[Any]:
        """One step."""
        chance = self._chance
        if verb in ("echo", "thread", "boom", "broken"):
            return [verb, self.tag("a")]
        if verb == "all":
            return [verb, [self.tag("p") for _ in range(chance.randint(0, 5))]]
        if verb == "flaky":
            return [verb, self.tag("f"), chance.randint(1, 3)]
        if verb == "race":
            return [verb, chance.randint(1, 10), chance.choice([0.5, 5, 30])]
        if verb == "outrun":
            # The child's answer comes late: perhaps to the next execution, whose task ids are the same.
            return [verb, chance.choice([1, 5]), [["timer", chance.choice([1, 5, 20])]]]
        if verb == "timer":
            return [verb, chance.choice([0, 1, 5, 60])]
        if verb == "status":
            return [verb, self.tag("s")]
        if verb == "events":
            tags = [self.tag("e") for _ in range(chance.randint(1, 3))]
            return [verb, chance.choice(["Approval", "go"]) + tags[0], len(tags), tags]
        if verb == "child":
            return [verb, self.program(depth + 1)]
        if verb == "children":
            return [verb, [self.program(depth + 1) for _ in range(chance.randint(1, 3))]]
        return [verb]

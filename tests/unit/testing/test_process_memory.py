"""What a restart loses is found in the code of orchestrators, and set back in place; what the test names is not."""

from collections import Counter, defaultdict, deque
from functools import cache
from random import Random
from typing import Any

import holdtrue
from holdtrue.testing.process_memory import ProcessMemory

words: list[str] = []
by_name: dict[str, list[int]] = {}
counts: Counter[str] = Counter()
recent: deque[int] = deque(maxlen=2)
groups: defaultdict[str, set[int]] = defaultdict(set)
chance = Random(7)
number = 1
world: list[str] = []


class Kept:
    made = 0

    def __init__(self) -> None:
        self.parts: list[int] = []


kept = Kept()


@cache
def squared(value: int) -> int:
    return value * value


def aside(text: str) -> None:
    words.append(text)


async def everything(ctx: holdtrue.OrchestrationContext) -> None:
    global number
    aside("called")
    by_name.setdefault("a", []).append(1)
    counts["a"] += 1
    recent.append(number)
    groups["g"].add(1)
    chance.random()  # holdtrue: allow
    number += 1
    kept.parts.append(squared(number))
    Kept.made += 1
    world.append("seen")


def memory(*apart: Any) -> ProcessMemory:
    app = holdtrue.App()
    app.orchestrator(everything)
    return ProcessMemory(app, apart)


def run() -> None:
    coroutine = everything(None)  # type: ignore[arg-type]
    try:
        coroutine.send(None)
    except StopIteration:
        pass


def test_all_is_set_back_in_place() -> None:
    by_name["b"] = [5]
    inner, state = by_name["b"], chance.getstate()
    held = memory()
    assert held.changed() == []
    by_name["b"].append(6)
    run()
    assert {name for name, _ in held.changed()} == {
        *("words", "by_name", "counts", "recent", "groups", "chance", "number", "kept", "Kept", "world")
    }
    held.restore()
    assert held.changed() == []
    assert (words, by_name, dict(counts), list(recent), dict(groups)) == ([], {"b": [5]}, {}, [], {})
    assert by_name["b"] is inner
    assert (number, kept.parts, Kept.made, chance.getstate()) == (1, [], 0, state)
    assert squared.cache_info().currsize == 0


def test_what_the_test_names_is_the_outside_world() -> None:
    held = memory(lambda: list(world))
    run()
    assert "world" not in {name for name, _ in held.changed()}
    held.restore()
    assert world == ["seen"]
    world.clear()


def test_closures_and_what_activities_keep() -> None:
    local: list[int] = []
    outside: list[int] = []
    app = holdtrue.App()

    @app.activity
    def effect(ctx: holdtrue.ActivityContext) -> None:
        outside.append(1)

    @app.orchestrator
    async def closed(ctx: holdtrue.OrchestrationContext) -> None:
        local.append(1)
        await ctx.call_activity(effect)

    held = ProcessMemory(app, ())
    local.append(1)
    outside.append(1)
    assert [name for name, _ in held.changed()] == ["local"]
    held.restore()
    assert (local, outside) == ([], [1])

"""Code that does not fit its history is found at the replay; the error names the step and the line of the call."""

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from holdtrue.authoring.app import App
from holdtrue.core.errors import NonDeterminismError
from tests.unit.authoring.hub import Hub


def first(ctx: Any, n: int) -> int:
    return n


def second(ctx: Any, n: int) -> int:
    return n


async def original(ctx: Any) -> str:
    await ctx.call_activity("first", input=1)
    await ctx.wait_for_external_event("go")
    return "original"


async def ends_early(ctx: Any) -> str:
    await ctx.call_activity("first", input=1)
    return "early"


async def continues_early(ctx: Any) -> None:
    await ctx.call_activity("first", input=1)
    ctx.continue_as_new(1)


async def fails_early(ctx: Any) -> None:
    await ctx.call_activity("first", input=1)
    raise ValueError("boo")


async def asks_for_more(ctx: Any) -> None:
    await ctx.call_activity("first", input=1)
    task = ctx.call_activity("second", input=1)  # here
    await ctx.wait_for_external_event("go")
    await task


async def asks_for_another(ctx: Any) -> None:
    task = ctx.call_activity("second", input=1)  # here
    await ctx.wait_for_external_event("go")
    await task


def ask(ctx: Any) -> Any:
    return ctx.create_timer(timedelta(seconds=1))  # here


async def asks_in_a_function(ctx: Any) -> None:
    task = ask(ctx)
    await task


def asks_as_a_generator(ctx: Any) -> Any:
    yield ctx.call_sub_orchestrator("child", instance_id="kid")  # here


async def asks_for_nothing(ctx: Any) -> None:
    await ctx.wait_for_external_event("go")  # here


async def ends_at_once(ctx: Any) -> None:
    pass


def held_by(code: Callable[..., Any]) -> NonDeterminismError:
    def app_with(body: Callable[..., Any]) -> App:
        app = App()
        app.activity(first)
        app.activity(second)
        app.orchestrator(name="job")(body)
        return app

    hub = Hub(app_with(original))
    hub.start("job")
    hub.run(seconds=0)
    size = len(hub.instances["main"].history)
    hub.app = app_with(code)
    hub.raise_event("main", "go", "kept")
    with pytest.raises(NonDeterminismError) as caught:
        hub.run()
    assert len(hub.instances["main"].history) == size
    assert [type(message.event).__name__ for message in hub.instances["main"].inbox] == ["EventRaised"]
    # With the code that fits it goes on, and the event is there.
    hub.app = app_with(original)
    hub.run()
    assert hub.output() == "original"
    return caught.value


STEP = "TaskScheduled 'first' (task 0) (event 2)"


@pytest.mark.parametrize(
    ("code", "step", "call"),
    [
        (ends_early, "no end (event 6)", "has ended"),
        (continues_early, "no end (event 6)", "continues as new"),
        (fails_early, "no end (event 6)", "has failed (builtins.ValueError: boo)"),
        (asks_for_more, "no such step up to its end (event 6)", "asks for activity 'second' (task 1) at "),
        (asks_for_another, STEP, "asks for activity 'second' (task 0) at "),
        (asks_in_a_function, STEP, "asks for a timer (task 0) at "),
        (asks_as_a_generator, STEP, "asks for sub-orchestration 'child' as 'kid' (task 0) at "),
        (asks_for_nothing, STEP, "does not ask for it: it waits at "),
        (ends_at_once, STEP, "does not ask for it: it has ended"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_step_and_the_call_are_named(code: Callable[..., Any], step: str, call: str) -> None:
    error = held_by(code)
    assert error.step == step
    if call.endswith(" at "):
        source = ask if code is asks_in_a_function else code
        lines, first_line = inspect.getsourcelines(source)
        call += f"{__file__}:{first_line + next(n for n, line in enumerate(lines) if '# here' in line)}"
    assert error.call == call

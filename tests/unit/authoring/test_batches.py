"""The same messages in the same order, however they come in batches, give the same result; nothing gets lost."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue import when_all, when_any
from holdtrue.authoring.app import App
from holdtrue.core import events as ev
from holdtrue.core.tasks import OrchestrationCancelledError, TaskCancelledError
from tests.unit.authoring.hub import Hub

NAMES = st.sampled_from(["a", "b"])
OPERATIONS = st.one_of(
    st.tuples(st.just("wait"), NAMES),
    st.tuples(st.just("two"), NAMES),
    st.tuples(st.just("both")),
    st.tuples(st.just("race"), st.booleans()),
    st.tuples(st.just("drop"), NAMES),
    st.tuples(st.just("nested")),
    st.tuples(st.just("catch"), NAMES),
    st.tuples(st.just("again"), st.booleans()),
)
MESSAGES = st.sampled_from(["a", "A", "b", "a", "b", "suspend", "resume", "cancel"])


async def interpret(ctx: Any, argument: list[Any]) -> list[Any]:
    program, seen = argument
    wait = ctx.wait_for_external_event
    while program:
        (operation, *rest), program = program[0], program[1:]
        if operation == "wait":
            seen.append(await wait(rest[0]))
        elif operation == "two":
            first, second = wait(rest[0]), wait(rest[0].upper())
            seen += [await second, await first]
        elif operation == "both":
            seen += await when_all([wait("b"), wait("a")])
        elif operation == "race":
            tasks = [wait("a"), wait("b")]
            winner = await when_any(tasks)
            seen.append([tasks.index(winner), winner.get_result()])
            if rest[0]:
                for task in tasks:
                    task.cancel()
        elif operation == "drop":
            task = wait(rest[0])
            task.cancel()
            try:
                seen.append(await task)
            except TaskCancelledError:
                seen.append("dropped")
        elif operation == "nested":
            tasks = [when_all([wait("a"), wait("a")]), wait("b")]
            seen.append(tasks.index(await when_any([when_any([tasks[0]]), tasks[1]])))  # type: ignore[arg-type]
        elif operation == "catch":
            try:
                seen.append(await wait(rest[0]))
            except OrchestrationCancelledError:
                seen.append("cancelled")
                seen.append(await wait("b"))
        elif operation == "again":
            ctx.continue_as_new([program, seen], save_events=rest[0])
            return []
    return seen


def outcome(argument: Any, messages: list[str], cuts: set[int], live: bool) -> Any:
    app = App()
    app.orchestrator(interpret)
    hub = Hub(app, live=live)
    hub.start(interpret, argument)
    hub.run()
    for index, message in enumerate(messages):
        if message == "suspend":
            hub.deliver("main", ev.ExecutionSuspended(timestamp=hub.now))
        elif message == "resume":
            hub.deliver("main", ev.ExecutionResumed(timestamp=hub.now))
        elif message == "cancel":
            hub.cancel("main")
        else:
            hub.raise_event("main", message, index)
        if index in cuts:
            hub.run()
    hub.run()
    status = hub.status()
    return status.status.name, status.output, status.failure and status.failure.error_type, status.input


@settings(max_examples=200, deadline=None)
@given(
    program=st.lists(OPERATIONS, max_size=7),
    messages=st.lists(MESSAGES, max_size=12),
    cuts=st.sets(st.integers(0, 12)),
)
def test_batches_do_not_change_the_result(program: Any, messages: list[str], cuts: set[int]) -> None:
    results = [
        outcome([program, []], messages, chosen, live)
        for chosen in (set(range(len(messages))), set(), cuts)
        for live in (False, True)
    ]
    assert all(result == results[0] for result in results), results


@pytest.mark.parametrize("save_events", [False, True])
@pytest.mark.parametrize("live", [False, True])
def test_a_long_inbox_is_taken_one_event_an_execution(save_events: bool, live: bool) -> None:
    """More executions than one commit holds: the one that only begins has its events, in order."""
    app = App()

    @app.orchestrator
    async def actor(ctx: Any, seen: list[int]) -> list[int]:
        if len(seen) < 40:
            ctx.continue_as_new([*seen, await ctx.wait_for_external_event("a")], save_events=save_events)
        return seen

    for suspended_at in (None, 5, 17, 30):
        hub = Hub(app, live=live)
        hub.start(actor, [])
        for index in range(40):
            if index == suspended_at:
                hub.deliver("main", ev.ExecutionSuspended(timestamp=hub.now))
            hub.raise_event("main", "a", index)
        hub.run()
        if suspended_at is not None:
            assert hub.status().status.name == "SUSPENDED"
            hub.deliver("main", ev.ExecutionResumed(timestamp=hub.now))
            hub.run()
        assert hub.output() == list(range(40))


@pytest.mark.parametrize("live", [False, True])
def test_a_wait_after_continue_as_new_takes_nothing_from_the_next_execution(live: bool) -> None:
    app = App()

    @app.orchestrator
    async def twice(ctx: Any, n: int) -> Any:
        if n == 1:
            return await ctx.wait_for_external_event("a")
        await ctx.wait_for_external_event("b")
        ctx.continue_as_new(1, save_events=True)
        return await ctx.wait_for_external_event("a")

    hub = Hub(app, live=live)
    hub.start(twice, 0)
    hub.raise_event("main", "a", 7)
    hub.raise_event("main", "b")
    hub.run()
    assert hub.output() == 7

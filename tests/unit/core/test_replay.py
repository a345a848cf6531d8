"""Replay by examples: an end that does not fit, and a child that is tried again."""

import json
from typing import Any

import pytest
from test_rewind import child_failed
from world import World

from holdtrue.core import events as ev
from holdtrue.core.errors import NonDeterminismError
from holdtrue.core.messages import Start
from holdtrue.core.replay import NotDurableError, Run
from holdtrue.core.retry import RetryPolicy
from holdtrue.core.tasks import TaskFailedError


async def steps(run: Run, count: int) -> Any:
    for n in range(count):
        await run.schedule_task(f"step{n}", None)
    return "done"


def ended_after(count: int) -> World:
    world = World(steps, count)
    task = world.step().activities
    while task:
        task = world.step(world.result(task[0], 1)).activities
    assert world.state.projection.output == '"done"'
    return world


def replayed(world: World, count: int, end: ev.HistoryEvent | None = None) -> None:
    """Run code of so many steps over the world's history, with another end where one is given."""
    history = [*world.history]
    history[1] = ev.ExecutionStarted(
        timestamp=1, instance_id="i", execution_id="x", name="code", input=json.dumps(count)
    )
    if end is not None:
        history[-2] = end
    run = Run(world.author, world.dialect)
    try:
        run.replay(history)
    finally:
        run.close()


def test_code_that_fits_an_ended_history_is_replayed_to_its_end() -> None:
    replayed(ended_after(2), 2)


@pytest.mark.parametrize("end", [None, ev.ExecutionFailed(timestamp=1)])
def test_code_that_goes_on_where_history_has_the_end_does_not_fit(end: ev.HistoryEvent | None) -> None:
    async def waits(run: Run, _: Any) -> Any:
        await run.schedule_task("step0", None)
        await run.wait_for_event("go")

    world = ended_after(1)
    with pytest.raises(NonDeterminismError, match=r"has Execution.* not ended: it waits at .*test_replay\.py"):
        world.author.code = waits
        replayed(world, 1, end)


def test_code_that_ends_before_history_does_or_asks_for_more_does_not_fit() -> None:
    for count in (0, 1, 3):
        with pytest.raises(NonDeterminismError):
            replayed(ended_after(2), count)


@pytest.mark.parametrize("given", [None, "mine"])
@pytest.mark.parametrize(
    ("dialect", "made"),
    [
        ("dotnet", ["x:0", "x:2"]),
        ("python", ["i:0001", "i:0001"]),
    ],
)
def test_a_child_tried_again_has_an_id_of_its_own_only_where_the_dialect_makes_one(
    dialect: str, made: list[str], given: str | None
) -> None:
    async def code(run: Run, _: Any) -> Any:
        policy = RetryPolicy(max_number_of_attempts=2)
        try:
            return await run.create_sub_orchestration("c", "1", instance_id=given, retry=policy)
        except TaskFailedError as error:
            return error.details.message

    world = World(code, dialect=dialect)
    ids: list[str] = []
    (start,) = world.step().starts
    for _ in range(2):
        assert isinstance(start, Start)
        ids.append(start.started.instance_id)
        assert (start.started.input, start.dialect) == ("1", dialect)
        commit = world.step(child_failed(start, "down"))
        if world.work:
            world.now += 2 * ev.TICKS_PER_SECOND
            (start,) = world.step(world.work.pop()).starts
    assert ids == (made if given is None else [given, given])
    assert commit.projection.output == '"down"'


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("together", [True, False])
def test_what_a_resume_sets_free_after_a_continue_as_new_goes_over_once_and_in_order(
    count: int, together: bool
) -> None:
    async def code(run: Run, seen: Any) -> Any:
        seen = [*seen, await run.wait_for_event("e")]
        if len(seen) == count:
            return seen
        run.continue_as_new(json.dumps(seen), False, None)

    world = World(code, [])
    world.step()
    messages = [world.suspend(), *(world.event("e", n) for n in range(count)), world.resume()]
    for batch in [messages] if together else [[message] for message in messages]:
        commit = world.step(*batch)
    assert commit.projection.output == json.dumps(list(range(count)))
    assert commit.dropped == []


class Foreign:
    """Something of a loop's that can be cancelled."""

    cancelled = 0

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def cancel(self) -> None:
        type(self).cancelled += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, ValueError("its own affair")])
def test_what_is_not_durable_is_cancelled_since_nobody_waits_for_it(error: Exception | None) -> None:
    def code(run: Run, _: Any) -> Any:
        seen = []
        for awaited in (Foreign(error), Foreign, 7):
            try:
                yield awaited
            except NotDurableError as refused:
                seen.append("not durable" in str(refused) and "test_replay.py" in str(refused))
        return seen

    Foreign.cancelled = 0
    world = World(code)
    assert world.step().projection.output == "[true, true, true]"
    # Once in the live run and once in its replay.
    assert Foreign.cancelled == 2

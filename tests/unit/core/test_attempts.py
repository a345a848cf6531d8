"""Attempts of one activity: from where the next goes on, and the name that all of them share."""

import itertools
import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from world import World

from holdtrue.core import events as ev
from holdtrue.core.actions import ActivityOptions
from holdtrue.core.messages import ActivityTask, InboundMessage
from holdtrue.core.replay import Run
from holdtrue.core.retry import RetryPolicy, resumed, with_details
from holdtrue.core.rewind import rewind_commit
from holdtrue.core.tasks import TaskFailedError

POLICY = RetryPolicy(first_retry_interval=timedelta(seconds=5), max_number_of_attempts=4)
BOTH = pytest.mark.parametrize("dialect", ["dotnet", "python"])


async def tries(run: Run, _: Any) -> Any:
    return await run.schedule_task("load", '"all"', retry=POLICY, options=ActivityOptions(heartbeat=3.0))


def failed(world: World, task: Any, details: str | None, **more: Any) -> InboundMessage:
    """Its failure as a host tells it, after a heartbeat with these details."""
    message = world.failed(task, "silent")
    event: Any = message.event
    failure = with_details(msgspec.structs.replace(event.failure, **more), details)
    return msgspec.structs.replace(message, event=msgspec.structs.replace(event, failure=failure))


def next_attempt(world: World) -> ActivityTask:
    """The one that follows when the delay is over (done live and by replay: `World` compares)."""
    world.now += 60 * ev.TICKS_PER_SECOND
    world.history = list(ev.decode_events(ev.encode_events(world.history)))
    (task,) = world.step(world.work.pop()).activities
    return task


@BOTH
def test_the_next_attempt_goes_on_from_what_the_last_reported(dialect: str) -> None:
    world = World(tries, dialect=dialect)
    (first,) = world.step().activities
    assert first.options == ActivityOptions(heartbeat=3.0)
    assert world.step(failed(world, first, '{"at": 7}')).activities == []
    second = next_attempt(world)
    assert second.options is not None
    assert (second.options.attempt, second.options.details, second.options.heartbeat) == (2, '{"at": 7}', 3.0)
    world.step(failed(world, second, '{"at": 9}', properties={"timeout": "heartbeat"}))
    third = next_attempt(world)
    assert third.options is not None and third.options.details == '{"at": 9}'
    # One whose host tells of no details (another engine's, say) takes nothing away.
    world.step(failed(world, third, None))
    fourth = next_attempt(world)
    assert fourth.options is not None and (fourth.options.attempt, fourth.options.details) == (4, '{"at": 9}')
    assert world.step(world.result(fourth, "done")).projection.output == '"done"'


@BOTH
def test_all_attempts_share_one_idempotency_key_and_no_other_call_has_it(dialect: str) -> None:
    async def code(run: Run, _: Any) -> Any:
        one = run.schedule_task("load", '"one"', retry=POLICY)
        other = run.schedule_task("load", '"other"', retry=POLICY)
        return [await one, await other, await run.schedule_task("load", '"third"')]

    world = World(code, dialect=dialect)
    one, other = world.step().activities
    keys = {one.idempotency_key, other.idempotency_key}
    assert len(keys) == 2
    world.step(failed(world, one, None))
    one_again = next_attempt(world)
    world.step(failed(world, one_again, None), failed(world, other, None))
    again = []
    for _ in range(2):
        again.append(next_attempt(world))
    by_input = {task.input: task for task in again}
    assert by_input['"one"'].options is not None and by_input['"one"'].options.attempt == 3
    assert {one_again.idempotency_key, by_input['"one"'].idempotency_key} == {one.idempotency_key}
    assert by_input['"other"'].idempotency_key == other.idempotency_key
    (third,) = world.step(world.result(by_input['"one"'], 1), world.result(by_input['"other"'], 2)).activities
    assert third.idempotency_key not in keys


@BOTH
def test_after_a_rewind_the_activity_goes_on_from_where_it_was_under_the_same_key(dialect: str) -> None:
    async def code(run: Run, _: Any) -> Any:
        await run.schedule_task("load", None, retry=RetryPolicy(max_number_of_attempts=2))

    world = World(code, dialect=dialect)
    (first,) = world.step().activities
    world.step(failed(world, first, '"here"'))
    second = next_attempt(world)
    world.step(failed(world, second, '"there"'))
    ids = itertools.count()
    commit = rewind_commit(
        world.refolded(),
        world.history,
        [InboundMessage(event=ev.ExecutionRewound(timestamp=world.now))],
        now=world.now,
        new_id=lambda: f"r{next(ids)}",
        author=world.author,
    )
    (again,) = commit.activities
    assert again.options is not None and json.loads(again.options.details or "") in ("here", "there")
    assert again.idempotency_key == first.idempotency_key


@BOTH
def test_a_rewind_of_one_that_is_not_tried_again_keeps_its_details(dialect: str) -> None:
    async def code(run: Run, _: Any) -> Any:
        await run.schedule_task("load", None)

    world = World(code, dialect=dialect)
    (first,) = world.step().activities
    world.step(failed(world, first, '"here"'))
    commit = rewind_commit(
        world.refolded(),
        world.history,
        [InboundMessage(event=ev.ExecutionRewound(timestamp=world.now))],
        now=world.now,
        new_id=lambda: "r",
        author=world.author,
    )
    (again,) = commit.activities
    assert again.options is not None and again.options.details == '"here"'
    assert again.idempotency_key == first.idempotency_key


def test_what_an_orchestration_catches_gives_no_details_to_its_parents_next_attempt() -> None:
    """A failure's own details are those of its activity, not of one within its chain of causes."""
    inner = with_details(ev.FailureDetails(message="m", error_type="t"), '"inner"')
    assert resumed(None, ev.FailureDetails(message="m", error_type="t", inner_failure=inner)) is None
    assert resumed(None, None) is None
    odd = ev.FailureDetails(message="m", error_type="t", properties={"holdtrue.details": 5})
    assert resumed(ActivityOptions(attempt=2), odd) == ActivityOptions(attempt=2)


def test_a_policy_sees_the_failure_with_its_details() -> None:
    seen: list[Any] = []

    async def code(run: Run, _: Any) -> Any:
        policy = RetryPolicy(retry_if=lambda failure: seen.append(failure.properties))  # type: ignore[func-returns-value]
        try:
            await run.schedule_task("load", None, retry=policy)
        except TaskFailedError as error:
            return error.details.properties
        return None

    world = World(code)
    (task,) = world.step().activities
    done = world.step(failed(world, task, "[1]", properties={"own": 1}))
    assert json.loads(done.projection.output or "") == {"own": 1, "holdtrue.details": "[1]"} == seen[0]

"""Tasks by themselves: each completes once, and composites know the first of what happened."""

from collections.abc import Callable
from typing import Any

import pytest
from world import World

from holdtrue.core.events import FailureDetails
from holdtrue.core.tasks import Task, TaskCancelledError, TaskFailedError, WhenAllTask, when_all, when_any

ERROR = ValueError("down")

Do = Callable[[Task[Any]], Any]
WAYS: dict[str, Do] = {
    "succeed": lambda task: task.succeed(1),
    "succeed with another": lambda task: task.succeed(2),
    "fail": lambda task: task.fail(ERROR),
    "cancel": lambda task: task.cancel(),
}


def told(task: Task[Any]) -> list[Any]:
    """All that a task tells of itself."""
    found: list[Any] = [task.is_complete, task.is_failed, task.is_cancelled, repr(task)]
    for ask in (task.get_result, task.get_exception, lambda: task.result):
        try:
            found.append(ask())
        except Exception as error:
            found.append(repr(error))
    return found


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
def test_what_completed_a_task_first_stays(first: str, second: str) -> None:
    task: Task[Any] = Task()
    seen = when_all([task])
    WAYS[first](task)
    before, of_all = told(task), told(seen)
    WAYS[second](task)
    assert told(task) == before and told(seen) == of_all


def test_what_a_task_tells() -> None:
    waiting, good, bad, cancelled = Task[Any](), Task[Any](), Task[Any](), Task[Any]()
    good.succeed(7)
    bad.fail(ERROR)
    assert cancelled.cancel() and not cancelled.cancel() and not good.cancel()
    assert told(waiting)[:3] == [False, False, False]
    assert told(good)[:3] == [True, False, False] and good.get_result() == good.result == 7
    assert told(bad)[:3] == [True, True, False] and bad.get_exception() is ERROR
    assert told(cancelled)[:3] == [True, False, True]
    for ask, error in (
        (waiting.get_result, ValueError),
        (waiting.get_exception, ValueError),
        (good.get_exception, ValueError),
        (bad.get_result, ValueError),
        (cancelled.get_result, TaskCancelledError),
        (cancelled.get_exception, ValueError),
    ):
        with pytest.raises(error):
            ask()


def test_cancelling_takes_the_task_back_once() -> None:
    asked: list[str] = []
    task: Task[Any] = Task()
    task._on_cancel = lambda: asked.append("back")
    assert task.cancel() and not task.cancel()
    done: Task[Any] = Task()
    done._on_cancel = lambda: asked.append("never")
    done.succeed(1)
    assert not done.cancel() and asked == ["back"]


@pytest.mark.parametrize("way", WAYS)
def test_any_is_the_one_that_completed_first_whatever_comes_before_it_is_looked_at(way: str) -> None:
    tasks = [Task[Any]() for _ in range(3)]
    race = when_any(tasks)
    tasks[1].succeed("won")
    for task in (tasks[2], tasks[0]):
        WAYS[way](task)
    assert race.get_result() is tasks[1]
    # The same where they were complete before: then the first in order.
    assert when_any(tasks).get_result() is tasks[0]


def test_all_counts_gives_results_in_order_and_the_first_failure_in_time() -> None:
    one, two, three = (Task[Any]() for _ in range(3))
    whole: WhenAllTask[Any] = when_all([one, two, three, one])
    assert (whole.pending_tasks, whole.get_completed_tasks()) == (4, 0)
    three.succeed("c")
    one.succeed("a")
    assert (whole.pending_tasks, whole.get_completed_tasks()) == (1, 3) and not whole.is_complete
    two.succeed("b")
    assert whole.get_result() == ["a", "b", "c", "a"] and whole.get_tasks() == [one, two, three, one]
    first, second = Task[Any](), Task[Any]()
    failed = when_all([first, second])
    second.fail(ERROR)
    first.fail(KeyError("later"))
    assert failed.is_failed and failed.get_exception() is ERROR


def test_only_durable_tasks_can_be_combined() -> None:
    for combine in (when_all, when_any):
        with pytest.raises(TypeError, match="int"):
            combine([Task[Any](), 7])  # type: ignore[list-item]


def test_a_race_that_was_decided_while_the_code_waited_for_something_else() -> None:
    async def code(run: Any, _: Any) -> Any:
        slow, quick, gate = (run.schedule_task(name, None) for name in ("slow", "quick", "gate"))
        race = when_any([slow, quick])
        await gate
        winner = await race
        return ["slow", "quick"][winner is quick]

    world = World(code)
    slow, quick, gate = world.step().activities
    world.step(world.result(quick, 1))
    world.step(world.result(slow, 1))
    assert world.step(world.result(gate, 1)).projection.output == '"quick"'


def test_a_composite_of_composites() -> None:
    async def code(run: Any, _: Any) -> Any:
        pairs = [when_all([run.schedule_task("a", str(n)), run.schedule_task("b", str(n))]) for n in range(2)]
        first = await when_any(pairs)
        rest = await when_all(pairs)
        return [first is pairs[1], rest]

    world = World(code)
    a0, b0, a1, b1 = world.step().activities
    world.step(world.result(a0, "a0"), world.result(a1, "a1"))
    world.step(world.result(b1, "b1"))
    assert world.step(world.result(b0, "b0")).projection.output == '[true, [["a0", "b0"], ["a1", "b1"]]]'


def test_a_failure_tells_its_details() -> None:
    details = FailureDetails(message="m", error_type="t")
    assert TaskFailedError("it failed", details).details is details

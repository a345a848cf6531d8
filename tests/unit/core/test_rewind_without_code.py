"""Rewind where the code is not at hand: the failure's own details tell what is undone."""

from typing import Any

import pytest
from test_rewind import Rewinding, activity, as_it_stands, child_failed, emptied, names
from world import Author

from holdtrue.core import events as ev
from holdtrue.core.projection import Status
from holdtrue.core.replay import Run
from holdtrue.core.rewind import children_of
from holdtrue.core.tasks import TaskFailedError, when_all


class Telling(Author):
    """Records an error with its causes; one of a task's failure as that failure, as other workers do, where `plain`."""

    plain = False

    def failure(self, error: BaseException) -> ev.FailureDetails:
        if self.plain and isinstance(error, TaskFailedError):
            return error.details
        behind = error.__cause__ or error.__context__
        return ev.FailureDetails(
            message=str(error),
            error_type=type(error).__qualname__,
            inner_failure=None if behind is None else self.failure(behind),
        )


def world_of(code: Any, *, plain: bool = False) -> Rewinding:
    world = Rewinding(code)
    world.author = Telling(code)
    world.author.plain = plain
    world.run = Run(world.author, world.dialect)
    return world


def test_everything_since_the_first_failure_that_the_error_names_is_undone() -> None:
    async def code(run: Run, _: Any) -> Any:
        try:
            return await activity(run, "main")
        except TaskFailedError:
            return await activity(run, "fallback")

    world = world_of(code)
    (main,) = world.step().activities
    (fallback,) = world.step(world.failed(main, "no line")).activities
    assert world.step(world.failed(fallback, "no paper")).projection.status is Status.FAILED
    rewound = world.rewind(with_code=False)
    assert names(rewound) == ["main"]
    assert emptied(world).count("TaskFailed") == 2 and emptied(world).count("TaskScheduled") == 1
    world.step(world.result(rewound.activities[0], 1))
    assert world.state.projection.output == "1"


def test_a_failure_of_the_same_type_that_was_handled_long_before_stays() -> None:
    async def code(run: Run, _: Any) -> Any:
        try:
            await activity(run, "optional")
        except TaskFailedError:
            pass
        return await activity(run, "needed")

    for plain in (False, True):
        world = world_of(code, plain=plain)
        (optional,) = world.step().activities
        (needed,) = world.step(world.failed(optional, "no matter")).activities
        world.step(world.failed(needed, "down"))
        assert names(world.rewind(with_code=False)) == ["needed"]
        assert emptied(world).count("TaskFailed") == 1


def test_an_error_that_names_none_undoes_the_failure_right_before_it() -> None:
    async def code(run: Run, _: Any) -> Any:
        await activity(run, "before")
        try:
            await activity(run, "last")
        except TaskFailedError:
            pass
        raise ValueError("something was wrong") from None

    class Silent(Telling):
        def failure(self, error: BaseException) -> ev.FailureDetails:
            return ev.FailureDetails(message=str(error), error_type="ValueError")

    world = world_of(code)
    world.author = Silent(code)
    world.run = Run(world.author, world.dialect)
    (before,) = world.step().activities
    (last,) = world.step(world.result(before, 1)).activities
    world.step(world.failed(last, "down"))
    assert names(world.rewind(with_code=False)) == ["last"]


def test_an_error_of_the_code_alone_undoes_only_the_end() -> None:
    async def code(run: Run, _: Any) -> Any:
        try:
            await activity(run, "optional")
        except TaskFailedError:
            pass
        await activity(run, "good")
        raise ValueError("the code's own")

    world = world_of(code)
    (optional,) = world.step().activities
    (good,) = world.step(world.failed(optional, "no matter")).activities
    world.step(world.result(good, 1))
    rewound = world.rewind(with_code=False)
    assert rewound.activities == []
    assert emptied(world) == ["ExecutionCompleted", "OrchestratorCompleted"]


@pytest.mark.parametrize("status", [Status.FAILED, Status.COMPLETED, Status.TERMINATED, Status.RUNNING, None])
def test_mended_code_that_ends_at_once_leaves_what_was_outstanding_alone(status: Status | None) -> None:
    async def code(run: Run, argument: Any) -> Any:
        run.create_sub_orchestration("c", "1", instance_id="child")
        activity(run, "unwatched")
        run.create_timer(run.now + 100)
        await activity(run, "a")
        if world.broken:
            raise ValueError("a defect")
        return "mended"

    world = world_of(code)
    world.broken = True
    first = world.step()
    world.step(world.result(first.activities[1], 1))
    world.broken = False
    commit = world.rewind(children={"child": None if status is None else as_it_stands(first.starts[0], status)})
    assert commit.projection.status is Status.COMPLETED and commit.ended
    assert (commit.activities, commit.messages, commit.starts, commit.cancelled) == ([], [], [], [])


def test_children_whose_status_helps_are_those_that_failed_and_those_still_out() -> None:
    async def code(run: Run, _: Any) -> Any:
        children = [run.create_sub_orchestration("c", "1", instance_id=f"child{n}") for n in range(5)]
        await when_all(children[:4])

    world = world_of(code)
    starts = world.step().starts
    world.step(world.result(starts[1], 1))
    world.step(child_failed(starts[3], "down"))
    world.step(child_failed(starts[0], "down"))
    world.step(world.result(starts[2], 1))
    assert world.state.projection.status is Status.FAILED
    assert children_of(world.history) == ["child3", "child0", "child4"]
    assert children_of(world.history[:1]) == []

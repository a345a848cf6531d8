"""Rewind beside children whose failures are not the cause."""

from typing import Any

import pytest
from test_rewind import Rewinding, activity, as_it_stands, child_failed, emptied, names

from holdtrue.core.messages import InboundMessage
from holdtrue.core.projection import Status
from holdtrue.core.replay import Run
from holdtrue.core.tasks import TaskFailedError


async def optional(run: Run, kind: str, name: str) -> None:
    """A step whose failure is no matter."""
    try:
        if kind == "child":
            await run.create_sub_orchestration("c", "1", instance_id=name)
        else:
            await activity(run, name)
    except TaskFailedError:
        pass


def answer(world: Rewinding, name: str, well: bool) -> InboundMessage:
    """How the last step of this name or id ends."""
    tasks = {getattr(task, "name", None) or task.started.instance_id: task for task in world.scheduled}
    task = tasks[name]
    if well:
        return world.result(task, 1)
    return world.failed(task, "no matter") if hasattr(task, "task_id") else child_failed(task, "no matter")


KINDS = pytest.mark.parametrize("kind", ["child", "activity"])
WELL = pytest.mark.parametrize("well", [True, False])
LOOKED = pytest.mark.parametrize("looked", [True, False])
WITH_CODE = pytest.mark.parametrize("with_code", [True, False])


@KINDS
@WELL
@WITH_CODE
@LOOKED
def test_what_was_answered_before_the_cause_is_not_done_again(
    kind: str, well: bool, with_code: bool, looked: bool
) -> None:
    async def code(run: Run, _: Any) -> Any:
        await optional(run, kind, "optional")
        return await activity(run, "needed")

    world = Rewinding(code)
    starts = world.step().starts
    world.step(answer(world, "optional", well))
    world.step(answer(world, "needed", False))
    status = Status.COMPLETED if well else Status.FAILED
    stands = {start.started.instance_id: as_it_stands(start, status) for start in starts}
    commit = world.rewind(with_code=with_code, children=stands if looked else None)
    assert (names(commit), commit.messages, commit.starts) == (["needed"], [], [])
    assert commit.projection.status is Status.RUNNING


@KINDS
@WELL
def test_clean_up_is_undone_with_its_answer_however_it_ended(kind: str, well: bool) -> None:
    async def code(run: Run, _: Any) -> Any:
        try:
            return await activity(run, "needed")
        except TaskFailedError:
            await optional(run, kind, "clean-up")
            raise

    world = Rewinding(code)
    world.step()
    world.step(answer(world, "needed", False))
    world.step(answer(world, "clean-up", well))
    assert world.state.projection.status is Status.FAILED
    commit = world.rewind()
    assert (names(commit), commit.messages, commit.starts) == (["needed"], [], [])
    what = ("SubOrchestrationInstance", "Created") if kind == "child" else ("Task", "Scheduled")
    assert {"".join(what), what[0] + ("Completed" if well else "Failed")} <= set(emptied(world))
    done = world.step(world.result(commit.activities[0], 7))
    assert done.projection.output == "7"

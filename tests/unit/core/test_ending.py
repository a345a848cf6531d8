"""Ends that come from outside to an execution whose code has not begun or cannot be run."""

from typing import Any

import pytest
from world import World, kinds

from holdtrue.core import events as ev
from holdtrue.core.actions import CompleteOrchestration
from holdtrue.core.ending import end_from_outside
from holdtrue.core.messages import CANCEL_EVENT, DEADLINE_EVENT, InboundMessage
from holdtrue.core.projection import Status
from holdtrue.core.replay import CANCELLED_ERROR_TYPE, DEADLINE_ERROR_TYPE, Run

CANCEL = ev.EventRaised(timestamp=1, name=CANCEL_EVENT, input="no need")
DEADLINE = ev.EventRaised(timestamp=1, name=DEADLINE_EVENT, input="5")
TERMINATE = ev.ExecutionTerminated(timestamp=1, input='"enough"')


def ended(event: Any, cancel_too: bool) -> CompleteOrchestration | None:
    return end_from_outside(event, 7, cancel_too=cancel_too)


@pytest.mark.parametrize("cancel_too", [True, False])
def test_each_kind_of_end(cancel_too: bool) -> None:
    terminated = ended(TERMINATE, cancel_too)
    assert terminated == CompleteOrchestration(id=7, status=Status.TERMINATED, result='"enough"')
    late = ended(DEADLINE, cancel_too)
    assert late is not None and late.failure is not None
    assert (late.id, late.status, late.failure.error_type) == (7, Status.FAILED, DEADLINE_ERROR_TYPE)
    cancelled = ended(CANCEL, cancel_too)
    if cancel_too:
        assert cancelled is not None and cancelled.failure is not None
        assert (cancelled.id, cancelled.status) == (7, Status.TERMINATED)
        assert cancelled.failure.error_type == CANCELLED_ERROR_TYPE and "no need" in cancelled.failure.message
    else:
        assert cancelled is None
    for other in (ev.EventRaised(timestamp=1, name="go"), ev.ExecutionSuspended(timestamp=1)):
        assert ended(other, cancel_too) is None


@pytest.mark.parametrize("event", [CANCEL, DEADLINE, TERMINATE], ids=["cancel", "deadline", "terminate"])
@pytest.mark.parametrize("with_another_before", [True, False])
def test_ended_before_it_began_it_runs_no_code_and_ends_as_its_kind_says(event: Any, with_another_before: bool) -> None:
    async def code(run: Run, _: Any) -> Any:
        raise AssertionError("its code was run")

    world = World(code)
    world.state.deadline = 5
    world.record = type(world.record)(started=world.started, start_id="x", deadline=5)
    before = [world.event("early")] if with_another_before else []
    commit = world.step(*before, InboundMessage(event=event), world.event("after"))
    end = ended(event, True)
    assert end is not None
    projection = commit.projection
    assert (projection.status, projection.failure, projection.output) == (end.status, end.failure, end.result)
    assert kinds(commit)[-2:] == ["ExecutionCompleted", "OrchestratorCompleted"]
    assert [dropped.event.name for dropped in commit.dropped] == ["after"]  # type: ignore[attr-defined]

"""A recursive terminate leaves an episode for every child outstanding, however the execution itself ends."""

from typing import Any

import pytest
from world import World

from holdtrue.core import events as ev
from holdtrue.core.episode import Episode, EpisodeCommit, episode
from holdtrue.core.messages import DEADLINE_EVENT, InboundMessage
from holdtrue.core.projection import Status
from holdtrue.core.replay import Run


def told(commit: EpisodeCommit) -> list[tuple[str, Any, bool, str | None]]:
    """Who is told to end by a commit: id, reason, whether it goes on from there, and for whose child it is."""
    return [
        (message.instance_id, message.event.input, message.event.recurse, message.event.parent_execution)
        for message in commit.messages
        if isinstance(message.event, ev.ExecutionTerminated)
    ]


def parent(then: str) -> World:
    """Starts a child, waits for an event, starts another, and then does this."""

    async def code(run: Run, generation: Any) -> Any:
        if generation:
            return await run.wait_for_event("never")
        run.create_sub_orchestration("child", None, instance_id="first")
        await run.wait_for_event("go")
        run.create_sub_orchestration("child", None, instance_id="second")
        if then == "wait":
            await run.wait_for_event("never")
        elif then == "fail":
            raise ValueError("down")
        elif then == "again":
            run.continue_as_new("2", False, None)
        return 1

    world = World(code)
    world.step()
    return world


BOTH = [("first", '"enough"', True, "x"), ("second", '"enough"', True, "x")]


@pytest.mark.parametrize(
    ("then", "status"), [("wait", Status.TERMINATED), ("return", Status.COMPLETED), ("fail", Status.FAILED)]
)
def test_children_that_its_own_step_starts_are_told_however_it_ends(then: str, status: Status) -> None:
    world = parent(then)
    commit = world.step(world.event("go"), world.terminate('"enough"', recurse=True))
    assert commit.projection.status is status
    assert told(commit) == BOTH and [start.started.instance_id for start in commit.starts] == ["second"]


def test_those_that_continuing_as_new_leaves_behind_are_told() -> None:
    world = parent("again")
    commit = world.step(world.event("go"), world.terminate('"enough"', recurse=True))
    assert commit.projection.status is Status.TERMINATED and commit.projection.generation == 1
    assert told(commit) == BOTH


def test_one_that_is_not_recursive_tells_nobody() -> None:
    world = parent("wait")
    assert told(world.step(world.event("go"), world.terminate('"enough"'))) == []


def test_a_child_that_has_answered_is_not_told() -> None:
    world = parent("wait")
    first = world.scheduled[0]
    world.step(world.result(first, 1))
    assert [who for who, *_ in told(world.step(world.terminate(recurse=True)))] == []


def test_a_deadline_in_the_same_batch_does_not_keep_it_from_them() -> None:
    world = parent("wait")
    world.state.deadline = 7
    deadline = InboundMessage(event=ev.EventRaised(timestamp=1, name=DEADLINE_EVENT, input="7"))
    commit = world.step(deadline, world.terminate('"enough"', recurse=True))
    assert commit.projection.status is Status.FAILED
    assert told(commit) == BOTH[:1]


def test_an_ended_one_that_gets_it_tells_those_still_outstanding() -> None:
    world = parent("return")
    world.step(world.event("go"))
    commit = episode(
        world.refolded(),
        [world.terminate('"enough"', recurse=True)],
        lambda state, events: pytest.fail("the executor was asked"),
        now=5,
        new_id=str,
    )
    assert commit.events == [] and told(commit) == BOTH


def test_one_for_another_parents_child_changes_nothing() -> None:
    world = parent("wait")
    event = ev.ExecutionTerminated(timestamp=1, recurse=True, parent_execution="another")
    making = Episode(world.refolded(), [InboundMessage(event=event)], now=5, new_id=str)
    assert making.feed == [] and told(making.commit()) == []

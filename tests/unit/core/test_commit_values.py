"""What one episode's commit holds, member by member: events, work, messages, starts, and what is taken back."""

from typing import Any

import pytest
from world import World, kinds

from holdtrue.core import events as ev
from holdtrue.core.actions import (
    ActivityOptions,
    CompleteOrchestration,
    CreateSubOrchestration,
    CreateTimer,
    Decision,
    ScheduleTask,
    SendEvent,
)
from holdtrue.core.episode import Episode, EpisodeCommit, ExecutionState, episode, state_of
from holdtrue.core.errors import InvariantBroken
from holdtrue.core.messages import ActivityTask, InboundMessage, OutboundMessage, Start, WorkRef
from holdtrue.core.outgoing import answer
from holdtrue.core.projection import Condition, Projection, Status
from holdtrue.core.replay import Run
from holdtrue.core.tasks import OrchestrationCancelledError

NOW = 5_000
STARTED = ev.ExecutionStarted(
    timestamp=1_000,
    instance_id="i",
    execution_id="x",
    name="code",
    version="2",
    input="1",
    tags={"a": "b"},
    generation=3,
    parent=ev.ParentInstance(instance_id="p", execution_id="px", task_id=7, scheduled=9, name="parent", version="1"),
)


def running(dialect: str = "python") -> ExecutionState:
    """An execution with two rows of history."""
    return state_of(
        Start(started=STARTED, start_id="s", dialect=dialect, deadline=77),
        [ev.OrchestratorStarted(timestamp=1_000), STARTED, ev.OrchestratorCompleted(timestamp=1_001)],
    )


def committed(*actions: Any, state: ExecutionState | None = None, **decision: Any) -> EpisodeCommit:
    """The commit of one episode over one event with these actions."""
    message = InboundMessage(event=ev.EventRaised(timestamp=2_000, name="e"), key=4)
    return episode(
        state or running(),
        [message],
        lambda _, feed: Decision(actions=list(actions), fed=len(feed), **decision),
        now=NOW,
        new_id=iter(["n1", "n2"]).__next__,
    )


def test_an_activity() -> None:
    options = ActivityOptions(start_to_close=3.0, tag="gpu")
    commit = committed(ScheduleTask(id=5, name="load", input='"i"', version="v", tags={"t": "1"}, options=options))
    assert commit.events[2] == ev.TaskScheduled(
        timestamp=NOW, event_id=5, name="load", input='"i"', version="v", tags={"t": "1"}
    )
    assert commit.activities == [
        ActivityTask(
            instance_id="i",
            execution_id="x",
            task_id=5,
            scheduled=5,
            name="load",
            input='"i"',
            version="v",
            tags={"t": "1"},
            options=options,
        )
    ]
    assert commit.activities[0].idempotency_key == "x:5"


def test_a_timer() -> None:
    commit = committed(CreateTimer(id=5, fire_at=9_000))
    assert commit.events[2] == ev.TimerCreated(timestamp=NOW, event_id=5, fire_at=9_000)
    fired = ev.TimerFired(timestamp=9_000, timer_id=5, fire_at=9_000)
    assert commit.messages == [OutboundMessage(instance_id="i", execution_id="x", scheduled=5, due=9_000, event=fired)]


def test_a_child() -> None:
    commit = committed(
        CreateSubOrchestration(id=5, name="child", instance_id="c", input='"i"', version="v", tags={"t": "1"})
    )
    assert commit.events[2] == ev.SubOrchestrationInstanceCreated(
        timestamp=NOW, event_id=5, name="child", instance_id="c", input='"i"', version="v", tags={"t": "1"}
    )
    started = ev.ExecutionStarted(
        timestamp=NOW,
        instance_id="c",
        execution_id="n1",
        name="child",
        input='"i"',
        version="v",
        tags={"t": "1"},
        parent=ev.ParentInstance(instance_id="i", execution_id="x", task_id=5, scheduled=5, name="code", version="2"),
    )
    assert commit.starts == [Start(started=started, start_id="n1", dialect="python")]


def test_an_event() -> None:
    commit = committed(SendEvent(id=5, instance_id="other", name="hello", input='"h"'))
    assert commit.events[2] == ev.EventSent(timestamp=NOW, event_id=5, instance_id="other", name="hello", input='"h"')
    event = ev.EventRaised(timestamp=NOW, name="hello", input='"h"')
    assert commit.messages == [OutboundMessage(instance_id="other", event=event, sender="i")]


def test_the_whole_of_an_ordinary_commit() -> None:
    commit = committed(custom_status='"c"', custom_status_set=True)
    assert kinds(commit) == ["OrchestratorStarted", "EventRaised", "OrchestratorCompleted"]
    assert (commit.instance_id, commit.first, commit.replace, commit.consumed, commit.wake) == (
        "i",
        3,
        False,
        [4],
        False,
    )
    assert commit.projection == Projection(
        instance_id="i",
        execution_id="x",
        name="code",
        version="2",
        status=Status.RUNNING,
        input="1",
        custom_status='"c"',
        created_at=1_000,
        last_updated_at=NOW,
        parent=STARTED.parent,
        tags={"a": "b"},
        generation=3,
    )
    assert not commit.ended and not commit.status_changed and commit.custom_status_changed
    assert (commit.condition, commit.condition_changed) == (None, False)


def test_a_condition_ends_with_the_episode() -> None:
    state = running()
    state.condition = Condition(kind="held", reason="because")
    commit = committed(state=state)
    assert (commit.condition, commit.condition_changed, state.condition) == (None, True, None)


def test_results_that_came_along_are_named_even_where_nobody_waits_for_them() -> None:
    ref = WorkRef(key=8, token=9)
    late = InboundMessage(event=ev.TaskCompleted(timestamp=1, task_scheduled_id=44), work=ref)
    commit = episode(running(), [late], lambda *_: Decision(actions=[], fed=0), now=NOW, new_id=str)
    assert (commit.finished, commit.consumed, commit.events) == ([ref], [], [])
    assert [dropped.event for dropped in commit.dropped] == [late.event]
    assert commit.projection.last_updated_at == 1_001


ENDS = [
    (Status.COMPLETED, '"o"', None),
    (Status.FAILED, None, ev.FailureDetails(message="down", error_type="OSError")),
    (Status.TERMINATED, '"enough"', None),
]


@pytest.mark.parametrize(("status", "output", "failure"), ENDS)
def test_an_end_answers_the_parent_and_takes_back_all_but_children(
    status: Status, output: str | None, failure: ev.FailureDetails | None
) -> None:
    state = running()
    state.extend(
        [
            ev.TaskScheduled(timestamp=1, event_id=1, name="a"),
            ev.TimerCreated(timestamp=1, event_id=2, fire_at=9),
            ev.SubOrchestrationInstanceCreated(timestamp=1, event_id=3, name="c", instance_id="c"),
        ]
    )
    commit = committed(CompleteOrchestration(id=9, status=status, result=output, failure=failure), state=state)
    assert kinds(commit)[-2:] == ["ExecutionCompleted", "OrchestratorCompleted"]
    p = commit.projection
    assert (p.status, p.output, p.failure, p.completed_at, commit.ended) == (status, output, failure, NOW, True)
    assert commit.status_changed and commit.cancelled == [3, 4] and not state.open
    (message,) = commit.messages
    assert message == answer(STARTED.parent, p, NOW)  # type: ignore[arg-type]
    assert (message.instance_id, message.execution_id, message.scheduled, message.sender) == ("p", "px", 9, "i")
    event: Any = message.event
    assert event.task_scheduled_id == 7
    if status is Status.COMPLETED:
        assert type(event) is ev.SubOrchestrationInstanceCompleted and event.result == output
    else:
        assert type(event) is ev.SubOrchestrationInstanceFailed
        assert event.failure == failure or "'i' was terminated" in event.failure.message


@pytest.mark.parametrize("asks", [True, False])
def test_a_continued_execution_has_its_first_rows_closed_before_its_own(asks: bool) -> None:
    async def code(run: Run, n: Any) -> Any:
        if n == 1:
            run.continue_as_new("2", True, "next")
        elif asks:
            await run.schedule_task("a", None)
        else:
            await run.wait_for_event("e")

    world = World(code, 1)
    commit = world.step()
    begins = ["OrchestratorStarted", "ExecutionStarted", "OrchestratorCompleted"]
    assert kinds(commit) == begins + (["TaskScheduled", "OrchestratorCompleted"] if asks else [])
    assert commit.replace and commit.first == 0 and commit.status_changed
    p = commit.projection
    assert (p.input, p.version, p.generation, p.name, p.instance_id) == ("2", "next", 1, "code", "i")
    assert p.execution_id != "x" and world.state.length == len(commit.events)


def test_a_continued_execution_keeps_what_is_the_instances() -> None:
    state = running()
    state.projection.custom_status = '"c"'
    making = Episode(state, [InboundMessage(event=ev.EventRaised(timestamp=2, name="e"))], now=NOW, new_id=lambda: "n1")
    done = CompleteOrchestration(id=9, status=Status.CONTINUED_AS_NEW, result="2", carryover=(("k", '"v"'),))
    assert making.decide(Decision(actions=[done], fed=2))
    fresh = making.state
    assert (fresh.deadline, fresh.dialect) == (77, "python")
    p = fresh.projection
    assert (p.created_at, p.custom_status, p.parent, p.tags, p.version, p.name) == (
        1_000, '"c"', STARTED.parent, {"a": "b"}, "2", "code"
    )  # fmt: skip
    assert (p.input, p.generation, p.execution_id) == ("2", 4, "n1")
    assert [(type(e).__name__, getattr(e, "name", None)) for e in making.feed] == [
        ("OrchestratorStarted", None),
        ("ExecutionStarted", "code"),
        ("EventRaised", "k"),
    ]
    assert making.feed[2] == ev.EventRaised(timestamp=NOW, name="k", input='"v"')


async def returns(run: Run) -> Any:
    return "a value"


async def fails(run: Run) -> Any:
    raise ValueError("no matter any more")


async def cancels(run: Run) -> Any:
    raise OrchestrationCancelledError("no matter")


async def exits(run: Run) -> Any:
    raise SystemExit(3)


async def waits(run: Run) -> Any:
    run.schedule_task("asked for with the end", None)
    await run.create_timer(run.now + 10)


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("leaves", [returns, fails, cancels, exits, waits], ids=lambda each: each.__name__)
def test_it_continues_as_new_however_the_code_goes_on_after_it_has_said_so(leaves: Any, late: bool) -> None:
    async def code(run: Run, n: Any) -> Any:
        if n == 2:
            return "the second"
        if late:
            await run.schedule_task("a", None)
        run.continue_as_new("2", True, None)
        await leaves(run)

    world = World(code, 1)
    commit = world.step()
    if late:
        commit = world.step(world.result(commit.activities[0], 1))
    assert commit.replace and commit.projection.generation == 1
    assert (commit.projection.status, commit.projection.output) == (Status.COMPLETED, '"the second"')


def test_the_first_continue_as_new_counts() -> None:
    async def code(run: Run, n: Any) -> Any:
        if n > 1:
            return n
        run.continue_as_new("2", True, None)
        run.continue_as_new("3", True, None)

    assert World(code, 1).step().projection.output == "2"


@pytest.mark.parametrize(
    "ends",
    [[CompleteOrchestration(id=5, status=status)] for status in (Status.RUNNING, Status.PENDING, Status.SUSPENDED, 99)]
    + [[CompleteOrchestration(id=5, status=Status.COMPLETED), CompleteOrchestration(id=6, status=Status.FAILED)]],
)
def test_an_end_that_is_none_or_a_second_one_cannot_leave_the_core(ends: list[CompleteOrchestration]) -> None:
    with pytest.raises(InvariantBroken, match=r"'i'.*ends"):
        committed(*ends)

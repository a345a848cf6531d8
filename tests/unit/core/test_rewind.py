"""Rewind judges by cause: what is undone, what stays, and how the execution goes on."""

import copy
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from world import World

from holdtrue.core import events as ev
from holdtrue.core.episode import EpisodeCommit, ExecutionState, state_of
from holdtrue.core.errors import InvariantBroken
from holdtrue.core.messages import DEADLINE_EVENT, ActivityTask, InboundMessage, Start
from holdtrue.core.projection import Projection, Status, initial
from holdtrue.core.replay import Run
from holdtrue.core.retry import RetryPolicy
from holdtrue.core.rewind import children_of, rewind_commit
from holdtrue.core.tasks import OrchestrationCancelledError, TaskFailedError, when_all, when_any


class Rewinding(World):
    """A world that can be rewound, with or without its code at hand."""

    def rewind(
        self,
        *,
        with_code: bool = True,
        children: dict[str, Projection | None] | None = None,
        before: tuple[InboundMessage, ...] = (),
        after: tuple[InboundMessage, ...] = (),
    ) -> EpisodeCommit:
        self.now += 60 * ev.TICKS_PER_SECOND
        message = InboundMessage(event=ev.ExecutionRewound(timestamp=self.now, reason="mended"), key=77)
        length = len(self.history)
        commit = rewind_commit(
            self.refolded(),
            list(self.history),
            [*before, message, *after],
            now=self.now,
            new_id=lambda: f"new{next(self.ids)}",
            author=self.author if with_code else None,
            children=children,
        )
        assert commit.replace and commit.first == 0
        assert 77 in commit.consumed
        if type(commit.events[0]) is type(self.history[0]) and commit.events[0] == self.history[0]:
            # What was asked for and stands keeps its place; the history never gets shorter.
            assert len(commit.events) > length
        # The new history folds to what the commit says.
        again = state_of(Start(started=self.started, start_id="x"), commit.events)
        assert again.projection.status is commit.projection.status
        self.history = list(commit.events)
        self.state = self._state(commit)
        self.run.close()
        self.run = Run(self.author, self.dialect)
        cut = commit.wake
        self.run.replay(self.history, unfinished=cut)
        self.commits.append(commit)
        self.scheduled.clear()
        self.work.clear()
        self._note(commit)
        return commit

    def _state(self, commit: EpisodeCommit) -> ExecutionState:
        state = ExecutionState(projection=copy.copy(commit.projection), dialect=self.dialect.name, start_id="x")
        state.extend(self.history, project_too=False)
        return state

    def change_code(self, code: Callable[[Run, Any], Any]) -> None:
        self.author.code = code


def names(commit: EpisodeCommit) -> list[str]:
    """What a commit gives to workers."""
    return [task.name for task in commit.activities]


def emptied(world: World) -> list[str]:
    """What was taken out of the history."""
    return [e.data.removeprefix("Rewound: ") for e in world.history if type(e) is ev.GenericEvent and e.data]


def activity(run: Run, name: str, value: Any = None, **options: Any) -> Any:
    return run.schedule_task(name, json.dumps(value), **options)


def test_one_failed_activity_is_done_again_and_the_rest_stays() -> None:
    async def code(run: Run, _: Any) -> Any:
        first = await activity(run, "a")
        second = await activity(run, "b", first)
        return [first, second]

    world = Rewinding(code)
    (a,) = world.step().activities
    (b,) = world.step(world.result(a, 1)).activities
    failed = world.step(world.failed(b, "down"))
    assert failed.projection.status is Status.FAILED

    rewound = world.rewind()
    assert rewound.projection.status is Status.RUNNING
    assert rewound.projection.failure is None and rewound.projection.completed_at is None
    assert rewound.projection.last_updated_at == world.now
    assert rewound.status_changed and not rewound.wake
    assert names(rewound) == ["b"]
    (again,) = rewound.activities
    # The same schedule, so the same key: a run of it that did take effect is known by it.
    assert again == b
    assert emptied(world) == ["TaskFailed", "ExecutionCompleted", "OrchestratorCompleted"]
    assert [type(e) for e in world.history[-2:]] == [ev.ExecutionRewound, ev.OrchestratorCompleted]

    done = world.step(world.result(again, 2))
    assert done.projection.status is Status.COMPLETED and done.projection.output == "[1, 2]"


def test_a_late_result_of_the_failed_run_is_not_taken_twice() -> None:
    async def code(run: Run, _: Any) -> Any:
        return await activity(run, "a")

    world = Rewinding(code)
    (a,) = world.step().activities
    world.step(world.failed(a, "down"))
    (again,) = world.rewind().activities
    done = world.step(world.result(again, 1), world.result(again, 2))
    assert done.projection.output == "1"
    assert [d.reason for d in done.dropped] == ["nobody waits for it any more"]


def test_clean_up_in_an_except_block_is_undone_with_the_failure() -> None:
    async def code(run: Run, _: Any) -> Any:
        try:
            await activity(run, "work")
        except TaskFailedError:
            await activity(run, "clean up")
            run.send_event("other", "gone wrong", None)
            raise
        return await activity(run, "report")

    world = Rewinding(code)
    (work,) = world.step().activities
    (clean,) = world.step(world.failed(work, "down")).activities
    world.step(world.result(clean, None))
    rewound = world.rewind()
    assert names(rewound) == ["work"]
    assert emptied(world).count("TaskScheduled") == 1
    assert {"TaskCompleted", "EventSent", "TaskFailed"} <= set(emptied(world))
    (report,) = world.step(world.result(rewound.activities[0], 1)).activities
    assert report.name == "report"
    # The clean-up's task id comes again, its place in history does not.
    assert report.task_id == clean.task_id and report.scheduled > clean.scheduled
    assert report.idempotency_key != clean.idempotency_key
    late = world.step(world.result(clean, "late"))
    assert [d.reason for d in late.dropped] == ["it answers an earlier attempt"]
    assert world.step(world.result(report, 5)).projection.output == "5"


def test_clean_up_in_a_finally_block_and_in_a_context_manager_is_undone() -> None:
    class Reserved:
        def __init__(self, run: Run) -> None:
            self.run = run

        async def __aenter__(self) -> None:
            await activity(self.run, "reserve")

        async def __aexit__(self, *_: Any) -> None:
            await activity(self.run, "release")

    async def code(run: Run, _: Any) -> Any:
        async with Reserved(run):
            try:
                return await activity(run, "work")
            finally:
                await activity(run, "log")

    world = Rewinding(code)
    (reserve,) = world.step().activities
    (work,) = world.step(world.result(reserve, None)).activities
    (log,) = world.step(world.failed(work, "down")).activities
    (release,) = world.step(world.result(log, None)).activities
    world.step(world.result(release, None))
    rewound = world.rewind()
    assert names(rewound) == ["work"]
    (log,) = world.step(world.result(rewound.activities[0], 1)).activities
    assert log.name == "log"
    (release,) = world.step(world.result(log, None)).activities
    assert world.step(world.result(release, None)).projection.output == "1"


def test_an_own_error_with_a_clean_up_is_undone_back_to_the_error() -> None:
    async def code(run: Run, _: Any) -> Any:
        value = await activity(run, "read")
        try:
            if value != "good":
                raise ValueError(value)
        except ValueError:
            await activity(run, "clean up")
            raise
        return value

    world = Rewinding(code)
    (read,) = world.step().activities
    (clean,) = world.step(world.result(read, "bad")).activities
    world.step(world.result(clean, None))

    async def mended(run: Run, _: Any) -> Any:
        value = await activity(run, "read")
        return f"mended {value}"

    # With the code as it was, the same happens again, from the error on.
    rewound = world.rewind()
    assert names(rewound) == ["clean up"]
    assert rewound.projection.status is Status.RUNNING
    world.step(world.result(rewound.activities[0], None))
    assert world.commits[-1].projection.status is Status.FAILED


def test_a_failure_that_was_handled_long_before_stays() -> None:
    async def code(run: Run, _: Any) -> Any:
        try:
            first = await activity(run, "optional")
        except TaskFailedError:
            first = "default"
        middle = await activity(run, "middle")
        last = await activity(run, "last")
        return [first, middle, last]

    world = Rewinding(code)
    (optional,) = world.step().activities
    (middle,) = world.step(world.failed(optional, "no matter")).activities
    (last,) = world.step(world.result(middle, 1)).activities
    world.step(world.failed(last, "down"))
    rewound = world.rewind()
    assert names(rewound) == ["last"]
    assert emptied(world).count("TaskFailed") == 1
    done = world.step(world.result(rewound.activities[0], 2))
    assert done.projection.output == '["default", 1, 2]'


def test_a_fallback_that_fails_too_is_undone_with_what_it_replaced() -> None:
    async def code(run: Run, _: Any) -> Any:
        try:
            return await activity(run, "primary")
        except TaskFailedError:
            return await activity(run, "fallback")

    world = Rewinding(code)
    (primary,) = world.step().activities
    (fallback,) = world.step(world.failed(primary, "down")).activities
    world.step(world.failed(fallback, "down as well"))
    rewound = world.rewind()
    assert names(rewound) == ["primary"]
    assert world.step(world.result(rewound.activities[0], 1)).projection.output == "1"


def test_in_a_fan_out_all_failed_are_redone_and_the_healthy_keep_their_results() -> None:
    async def code(run: Run, _: Any) -> Any:
        return await when_all([activity(run, f"part{n}") for n in range(5)])

    world = Rewinding(code)
    parts = world.step().activities
    world.step(world.result(parts[0], 0), world.failed(parts[1], "one"))
    world.step(world.failed(parts[3], "three"), world.result(parts[2], 2))
    ended = world.step(world.result(parts[4], 4))
    assert ended.projection.status is Status.FAILED
    rewound = world.rewind()
    assert names(rewound) == ["part1", "part3"]
    assert emptied(world).count("TaskFailed") == 2 and "TaskCompleted" not in emptied(world)
    one, three = rewound.activities
    assert world.step(world.result(three, 3)).projection.status is Status.RUNNING
    assert world.step(world.result(one, 1)).projection.output == "[0, 1, 2, 3, 4]"


def test_failures_that_nobody_had_awaited_yet_are_redone_too() -> None:
    async def code(run: Run, _: Any) -> Any:
        tasks = [activity(run, f"part{n}") for n in range(3)]
        return [await task for task in tasks]

    world = Rewinding(code)
    parts = world.step().activities
    world.step(world.failed(parts[2], "two"))
    world.step(world.failed(parts[0], "zero"))
    rewound = world.rewind()
    # The last was still running when the first failed: it is put back to work as it stood.
    assert names(rewound) == ["part0", "part1", "part2"]
    two, one, zero = reversed(rewound.activities)
    world.step(world.result(zero, 0), world.result(one, 1))
    assert world.step(world.result(two, 2)).projection.output == "[0, 1, 2]"


def test_a_failed_sibling_of_a_handled_fan_out_stays() -> None:
    async def code(run: Run, _: Any) -> Any:
        tasks = [activity(run, f"part{n}") for n in range(3)]
        try:
            await when_all(tasks)
        except TaskFailedError:
            pass
        good = sum(not task.is_failed for task in tasks)
        return await activity(run, f"keep {good}")

    world = Rewinding(code)
    parts = world.step().activities
    keep = world.step(world.failed(parts[0], "a"), world.failed(parts[1], "b"), world.result(parts[2], 1)).activities
    assert [k.name for k in keep] == ["keep 1"]
    world.step(world.failed(keep[0], "down"))
    rewound = world.rewind()
    assert names(rewound) == ["keep 1"]
    assert world.step(world.result(rewound.activities[0], 9)).projection.output == "9"


def test_a_failure_that_was_looked_at_without_being_awaited_is_left_where_undoing_it_would_not_fit() -> None:
    async def code(run: Run, _: Any) -> Any:
        quick = activity(run, "quick")
        await activity(run, "slow")
        name = "plan b" if quick.is_complete and quick.is_failed else "plan a"
        return await activity(run, name)

    world = Rewinding(code)
    quick, slow = world.step().activities
    world.step(world.failed(quick, "no"))
    (plan,) = world.step(world.result(slow, 1)).activities
    assert plan.name == "plan b"
    world.step(world.failed(plan, "down"))
    rewound = world.rewind()
    assert names(rewound) == ["plan b"]
    assert world.step(world.result(rewound.activities[0], 3)).projection.output == "3"


def test_an_error_made_anew_right_after_the_failure_has_it_as_its_cause() -> None:
    async def code(run: Run, _: Any) -> Any:
        failures = []
        for name in ("a", "b"):
            try:
                await activity(run, name)
            except TaskFailedError as error:
                failures.append(str(error))
        if failures:
            raise RuntimeError(f"{len(failures)} failed")
        return "good"

    world = Rewinding(code)
    (a,) = world.step().activities
    (b,) = world.step(world.result(a, 1)).activities
    world.step(world.failed(b, "down"))
    rewound = world.rewind()
    assert names(rewound) == ["b"]
    assert world.step(world.result(rewound.activities[0], 1)).projection.output == '"good"'


def test_after_a_defect_of_the_code_nothing_but_the_end_is_undone() -> None:
    async def broken(run: Run, _: Any) -> Any:
        value = await activity(run, "a")
        raise KeyError(value)

    async def mended(run: Run, _: Any) -> Any:
        value = await activity(run, "a")
        return await activity(run, "b", value)

    world = Rewinding(broken)
    (a,) = world.step().activities
    world.step(world.result(a, 7))
    failed_again = world.rewind()
    assert failed_again.projection.status is Status.FAILED and failed_again.ended
    assert names(failed_again) == []
    assert emptied(world) == ["ExecutionCompleted", "OrchestratorCompleted"]

    world.change_code(mended)
    rewound = world.rewind()
    assert rewound.projection.status is Status.RUNNING
    assert names(rewound) == ["b"] and rewound.activities[0].input == "7"
    assert world.step(world.result(rewound.activities[0], 8)).projection.output == "8"


def test_rewind_twice() -> None:
    async def code(run: Run, _: Any) -> Any:
        a = await activity(run, "a")
        try:
            return [a, await activity(run, "b")]
        except TaskFailedError:
            await activity(run, "clean up")
            raise

    world = Rewinding(code)
    (a,) = world.step().activities
    (b,) = world.step(world.result(a, 1)).activities
    for _ in range(3):
        (clean,) = world.step(world.failed(b, "down")).activities
        assert world.step(world.result(clean, None)).projection.status is Status.FAILED
        rewound = world.rewind()
        assert names(rewound) == ["b"]
        (b,) = rewound.activities
    assert world.step(world.result(b, 2)).projection.output == "[1, 2]"


def test_a_retried_activity_gets_all_its_attempts_again() -> None:
    policy = RetryPolicy(first_retry_interval=timedelta(seconds=5), max_number_of_attempts=2)

    async def code(run: Run, _: Any) -> Any:
        return await activity(run, "a", retry=policy)

    world = Rewinding(code)
    (a,) = world.step().activities
    world.step(world.failed(a, "once"))
    (second,) = world.step(world.work.pop()).activities
    world.step(world.failed(second, "twice"))
    assert world.commits[-1].projection.status is Status.FAILED
    rewound = world.rewind()
    assert rewound.activities == [a]
    world.step(world.failed(a, "three times"))
    (fourth,) = world.step(world.work.pop()).activities
    assert world.step(world.result(fourth, 4)).projection.output == "4"


def test_a_retried_activity_beside_other_steps_gets_its_last_attempt_again() -> None:
    policy = RetryPolicy(first_retry_interval=timedelta(seconds=5), max_number_of_attempts=2)

    async def code(run: Run, _: Any) -> Any:
        flaky = activity(run, "flaky", retry=policy)
        for n in range(2):
            await activity(run, f"step{n}")
        return await flaky

    world = Rewinding(code)
    flaky, step0 = world.step().activities
    world.step(world.failed(flaky, "once"))
    (step1,) = world.step(world.result(step0, 0)).activities
    (second,) = world.step(world.work.pop()).activities
    world.step(world.failed(second, "twice"))
    world.step(world.result(step1, 1))
    assert world.commits[-1].projection.status is Status.FAILED
    rewound = world.rewind()
    assert rewound.activities == [second]
    assert rewound.activities[0].options is not None and rewound.activities[0].options.attempt == 2
    assert world.step(world.result(second, 4)).projection.output == "4"


def test_what_came_from_outside_after_the_failure_is_kept() -> None:
    async def code(run: Run, _: Any) -> Any:
        try:
            await activity(run, "work")
        except TaskFailedError:
            await activity(run, "clean up")
            raise
        return await run.wait_for_event("go")

    world = Rewinding(code)
    (work,) = world.step().activities
    (clean,) = world.step(world.failed(work, "down")).activities
    world.step(world.event("go", "early"))
    world.step(world.suspend())
    world.step(world.resume(), world.result(clean, None))
    assert world.commits[-1].projection.status is Status.FAILED
    rewound = world.rewind()
    assert rewound.projection.status is Status.RUNNING
    done = world.step(world.result(rewound.activities[0], 1))
    assert done.projection.output == '"early"'


def test_one_suspended_meanwhile_is_suspended_after_the_rewind() -> None:
    async def code(run: Run, _: Any) -> Any:
        try:
            await activity(run, "work")
        except TaskFailedError:
            timer = run.create_timer(run.now + 10)
            await timer
            raise
        return "good"

    world = Rewinding(code)
    world.state.deadline = 5
    (work,) = world.step().activities
    world.step(world.failed(work, "down"))
    world.step(world.suspend())
    world.step(InboundMessage(event=ev.EventRaised(timestamp=world.now, name=DEADLINE_EVENT, input="5")))
    assert world.commits[-1].projection.status is Status.FAILED
    rewound = world.rewind()
    # A deadline that has passed is undone itself; everything else is as it was.
    assert emptied(world) == ["EventRaised", "ExecutionCompleted", "OrchestratorCompleted"]
    assert rewound.projection.status is Status.SUSPENDED
    (fired,) = [m for m in rewound.messages if type(m.event) is ev.TimerFired]
    assert fired.scheduled is not None and fired.due is not None


def test_outstanding_timers_and_activities_are_put_back_to_work_and_cancelled_ones_are_not() -> None:
    async def code(run: Run, _: Any) -> Any:
        other = activity(run, "other")
        kept = run.create_timer(run.now + 1000)
        unwanted = run.create_timer(run.now + 2000)
        await activity(run, "first")
        unwanted.cancel()
        await activity(run, "work")
        await when_all([other, kept])
        return "good"

    world = Rewinding(code)
    first = world.step()
    other = first.activities[0]
    (work,) = world.step(world.result(first.activities[1], 0)).activities
    world.step(world.failed(work, "down"))
    rewound = world.rewind()
    assert rewound.activities == [other, work]
    timers = [m for m in rewound.messages if type(m.event) is ev.TimerFired]
    assert [t.due for t in timers] == [first.messages[0].due]
    assert rewound.cancelled == []
    world.step(world.result(work, 1))
    (fired,) = world.work
    world.step(fired)
    assert world.step(world.result(other, 1)).projection.output == '"good"'


def test_when_any_with_a_failed_winner() -> None:
    async def code(run: Run, _: Any) -> Any:
        a, b = activity(run, "a"), activity(run, "b")
        winner = await when_any([a, b])
        return winner.get_result()

    world = Rewinding(code)
    a, b = world.step().activities
    world.step(world.failed(a, "down"))
    rewound = world.rewind()
    assert names(rewound) == ["a", "b"]
    assert world.step(world.result(b, 2)).projection.output == "2"


def test_a_caught_cancel_is_no_failure_and_stays() -> None:
    async def code(run: Run, _: Any) -> Any:
        try:
            await run.wait_for_event("never")
        except OrchestrationCancelledError:
            await activity(run, "clean up")
            raise

    world = Rewinding(code)
    world.step()
    cancel = ev.EventRaised(timestamp=1, name="holdtrue:cancel", input="stop")
    (clean,) = world.step(InboundMessage(event=cancel)).activities
    assert world.step(world.failed(clean, "down")).projection.status is Status.FAILED
    rewound = world.rewind()
    assert names(rewound) == ["clean up"]
    assert world.step(world.result(rewound.activities[0], 1)).projection.status is Status.TERMINATED


def test_generators_are_rewound_alike() -> None:
    def code(run: Run, _: Any) -> Any:
        a = yield activity(run, "a")
        try:
            b = yield activity(run, "b")
        except TaskFailedError:
            yield activity(run, "clean up")
            raise
        return [a, b]

    world = Rewinding(code)
    (a,) = world.step().activities
    (b,) = world.step(world.result(a, 1)).activities
    (clean,) = world.step(world.failed(b, "down")).activities
    world.step(world.result(clean, None))
    rewound = world.rewind()
    assert rewound.activities == [b]
    assert world.step(world.result(b, 2)).projection.output == "[1, 2]"


def test_the_python_dialect_reuses_ids_and_is_rewound_alike() -> None:
    policy = RetryPolicy(first_retry_interval=timedelta(seconds=5), max_number_of_attempts=2)

    async def code(run: Run, _: Any) -> Any:
        return [await activity(run, "a"), await activity(run, "b", retry=policy)]

    world = Rewinding(code, dialect="python")
    (a,) = world.step().activities
    (b,) = world.step(world.result(a, 1)).activities
    world.step(world.failed(b, "once"))
    (again,) = world.step(world.work.pop()).activities
    assert again.task_id == b.task_id
    world.step(world.failed(again, "twice"))
    rewound = world.rewind()
    assert rewound.activities == [b]
    assert world.step(world.result(b, 2)).projection.output == "[1, 2]"


def test_the_custom_status_goes_back_with_the_code() -> None:
    async def code(run: Run, _: Any) -> Any:
        run.set_custom_status('"working"')
        try:
            await activity(run, "work")
        except TaskFailedError:
            run.set_custom_status('"cleaning up"')
            raise

    world = Rewinding(code)
    (work,) = world.step().activities
    world.step(world.failed(work, "down"))
    assert world.commits[-1].projection.custom_status == '"cleaning up"'
    assert world.rewind().projection.custom_status == '"working"'


def test_mended_code_may_continue_as_new_at_once() -> None:
    async def broken(run: Run, value: Any) -> Any:
        await activity(run, "a")
        raise ValueError

    async def mended(run: Run, value: Any) -> Any:
        if value == 2:
            return await activity(run, "second life")
        await activity(run, "a")
        run.continue_as_new("2", False, None)

    world = Rewinding(broken)
    (a,) = world.step().activities
    world.step(world.result(a, 1))
    world.change_code(mended)
    now = world.now
    commit = rewind_commit(
        world.refolded(),
        world.history,
        [InboundMessage(event=ev.ExecutionRewound(timestamp=now), key=1)],
        now=now,
        new_id=lambda: "fresh",
        author=world.author,
    )
    assert commit.replace and commit.projection.execution_id == "fresh" and commit.projection.generation == 1
    assert names(commit) == ["second life"]
    assert commit.projection.status is Status.RUNNING and commit.consumed == [1]


# -- sub-orchestrations ---------------------------------------------------------------------------------


def child_failed(start: Start, message: str, error_type: str = "ValueError") -> InboundMessage:
    parent = start.started.parent
    return InboundMessage(
        event=ev.SubOrchestrationInstanceFailed(
            timestamp=1,
            task_scheduled_id=parent.task_id,
            failure=ev.FailureDetails(message=message, error_type=error_type),
        ),
        execution_id=parent.execution_id,
        scheduled=parent.scheduled,
    )


def as_it_stands(start: Start, status: Status, output: str | None = None) -> Projection:
    projection = initial(start.started)
    projection.status = status
    projection.output = output
    return projection


def parent_of(count: int) -> Callable[[Run, Any], Any]:
    async def code(run: Run, _: Any) -> Any:
        return await when_all(
            [run.create_sub_orchestration("child", str(n), instance_id=f"child{n}") for n in range(count)]
        )

    return code


@pytest.mark.parametrize("told", [False, True])
def test_a_failed_child_is_rewound_itself_and_a_healthy_one_left_alone(told: bool) -> None:
    world = Rewinding(parent_of(3))
    starts = world.step().starts
    world.step(world.result(starts[0], "zero"), child_failed(starts[1], "down"))
    world.step(world.result(starts[2], "two"))
    assert world.commits[-1].projection.status is Status.FAILED
    assert children_of(world.history) == ["child1"]
    rewound = world.rewind(children={"child1": as_it_stands(starts[1], Status.FAILED)} if told else None)
    (message,) = rewound.messages
    assert message.instance_id == "child1" and type(message.event) is ev.ExecutionRewound
    assert message.event.parent_execution_id == "x"
    assert rewound.starts == []
    done = world.step(world.result(starts[1], "one"))
    assert done.projection.output == '["zero", "one", "two"]'


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("gone", "started again"),
        ("somebody else's", "started again"),
        (Status.TERMINATED, "started again"),
        (Status.COMPLETED, "answered"),
        (Status.RUNNING, "waited for"),
        (Status.PENDING, "waited for"),
    ],
)
def test_a_failed_child_is_handled_as_it_stands_now(now: Any, expected: str) -> None:
    world = Rewinding(parent_of(1))
    (start,) = world.step().starts
    world.step(child_failed(start, "down"))
    if now == "gone":
        child = None
    elif now == "somebody else's":
        child = Projection(instance_id="child0", execution_id="z", name="child", status=Status.RUNNING)
    else:
        child = as_it_stands(start, now, '"in the end"')
    rewound = world.rewind(children={"child0": child})
    if expected == "started again":
        (again,) = rewound.starts
        assert again.started.instance_id == "child0" and again.started.input == "0"
        assert again.started.execution_id != start.started.execution_id
        assert again.started.parent == start.started.parent
        assert rewound.messages == []
        done = world.step(world.result(again, "in the end"))
    elif expected == "answered":
        (message,) = rewound.messages
        assert message.instance_id == "i" and rewound.starts == []
        done = world.step(
            InboundMessage(event=message.event, execution_id=message.execution_id, scheduled=message.scheduled)
        )
    else:
        assert rewound.messages == [] and rewound.starts == []
        done = world.step(world.result(start, "in the end"))
    assert done.projection.output == '["in the end"]'


def test_a_terminated_child_is_known_by_its_failure_where_nobody_looked() -> None:
    world = Rewinding(parent_of(1))
    (start,) = world.step().starts
    world.step(child_failed(start, "it was terminated", "holdtrue.SubOrchestrationTerminatedError"))
    assert len(world.rewind().starts) == 1


def test_a_child_still_running_at_the_failure_whose_answer_came_too_late_is_answered() -> None:
    async def code(run: Run, _: Any) -> Any:
        child = run.create_sub_orchestration("child", None, instance_id="child0")
        await activity(run, "work")
        return await child

    world = Rewinding(code)
    first = world.step()
    (start,), (work,) = first.starts, first.activities
    world.step(world.failed(work, "down"))
    assert children_of(world.history) == ["child0"]
    rewound = world.rewind(children={"child0": as_it_stands(start, Status.COMPLETED, "5")})
    assert names(rewound) == ["work"]
    (message,) = rewound.messages
    world.step(InboundMessage(event=message.event, execution_id=message.execution_id, scheduled=message.scheduled))
    assert world.step(world.result(work, 1)).projection.output == "5"


# -- without the code ------------------------------------------------------------------------------------


def test_without_the_code_the_failure_tells_what_is_undone() -> None:
    async def code(run: Run, _: Any) -> Any:
        try:
            await activity(run, "optional")
        except TaskFailedError:
            pass
        parts = [activity(run, f"part{n}") for n in range(3)]
        try:
            return await when_all(parts)
        except TaskFailedError:
            await activity(run, "clean up")
            raise

    world = Rewinding(code)
    (optional,) = world.step().activities
    parts = world.step(world.failed(optional, "no matter")).activities
    world.step(world.result(parts[0], 0))
    world.step(world.failed(parts[1], "down"))
    (clean,) = world.step(world.result(parts[2], 2)).activities
    world.step(world.result(clean, None))
    rewound = world.rewind(with_code=False)
    assert rewound.wake and rewound.projection.status is Status.RUNNING
    assert names(rewound) == ["part1"]
    # The cut episode has no rest here: the code waits for the failed part.
    assert world.run.step(()).actions == []
    world.state = world._state(rewound)
    again = parts[1]
    message = world.result(again, 1)
    from holdtrue.core.episode import Episode

    making = Episode(world.state, [message], now=world.now, new_id=lambda: "n")
    assert not making.decide(world.run.step(making.feed))
    assert making.commit().projection.output == "[0, 1, 2]"


def test_code_that_no_longer_fits_is_not_run_and_the_next_episode_will_say_so() -> None:
    async def code(run: Run, _: Any) -> Any:
        await activity(run, "a")
        return await activity(run, "b")

    async def other(run: Run, _: Any) -> Any:
        return await activity(run, "something else")

    world = Rewinding(code)
    (a,) = world.step().activities
    (b,) = world.step(world.result(a, 1)).activities
    world.step(world.failed(b, "down"))
    world.change_code(other)
    now = world.now
    commit = rewind_commit(
        world.refolded(),
        world.history,
        [InboundMessage(event=ev.ExecutionRewound(timestamp=now), key=1)],
        now=now,
        new_id=lambda: "n",
        author=world.author,
    )
    assert commit.wake and commit.activities == [b] and commit.projection.status is Status.RUNNING


# -- bounds ----------------------------------------------------------------------------------------------


def test_messages_before_the_rewind_are_dropped_and_those_after_it_stay() -> None:
    async def code(run: Run, _: Any) -> Any:
        return await activity(run, "a")

    world = Rewinding(code)
    (a,) = world.step().activities
    world.step(world.failed(a, "down"))
    early = InboundMessage(event=ev.EventRaised(timestamp=1, name="early"), key=70)
    late = InboundMessage(event=ev.EventRaised(timestamp=1, name="late"), key=80)
    rewound = world.rewind(before=(early,), after=(late,))
    assert rewound.consumed == [70, 77]
    assert [d.reason for d in rewound.dropped] == ["the instance has ended"]


def test_only_a_failed_execution_is_rewound() -> None:
    async def code(run: Run, _: Any) -> Any:
        return 1

    world = Rewinding(code)
    world.step()
    with pytest.raises(InvariantBroken, match="COMPLETED: only a failed one"):
        world.rewind()


def test_a_rewound_child_answers_its_parent_when_it_fails_again() -> None:
    async def code(run: Run, _: Any) -> Any:
        raise ValueError("a defect")

    world = Rewinding(code)
    parent = ev.ParentInstance(instance_id="p", execution_id="px", task_id=3, scheduled=8)
    world.started = ev.ExecutionStarted(
        timestamp=world.now, instance_id="i", execution_id="x", name="code", input="null", parent=parent
    )
    world.record = Start(started=world.started, start_id="x")
    world.state = state_of(world.record)
    world.step()
    rewound = world.rewind()
    (message,) = rewound.messages
    assert message.instance_id == "p" and type(message.event) is ev.SubOrchestrationInstanceFailed
    assert message.scheduled == 8


def test_activities_of_the_history_are_values() -> None:
    """A rewind changes nothing that it was given."""

    async def code(run: Run, _: Any) -> Any:
        return await activity(run, "a")

    world = Rewinding(code)
    (a,) = world.step().activities
    assert isinstance(a, ActivityTask)
    world.step(world.failed(a, "down"))
    state, history = world.refolded(), list(world.history)
    before = copy.deepcopy((state, history))
    rewind_commit(
        state,
        history,
        [InboundMessage(event=ev.ExecutionRewound(timestamp=1))],
        now=world.now,
        new_id=lambda: "n",
        author=world.author,
    )
    assert (state, history) == before


@pytest.mark.parametrize("with_code", [True, False])
def test_after_a_deadline_the_end_is_undone_and_what_was_out_is_out_again(with_code: bool) -> None:
    async def code(run: Run, _: Any) -> Any:
        return [await activity(run, "a"), await activity(run, "b")]

    world = Rewinding(code)
    world.state.deadline = 5
    (a,) = world.step().activities
    (b,) = world.step(world.result(a, 1)).activities
    world.step(InboundMessage(event=ev.EventRaised(timestamp=world.now, name=DEADLINE_EVENT, input="5")))
    assert world.state.projection.status is Status.FAILED
    rewound = world.rewind(with_code=with_code)
    assert rewound.activities == [b] and rewound.wake is not with_code
    assert set(emptied(world)) == {"EventRaised", "ExecutionCompleted", "OrchestratorCompleted"}
    assert rewound.projection.status is Status.RUNNING


@pytest.mark.parametrize("nested", [False, True])
def test_each_error_of_a_group_is_a_cause(nested: bool) -> None:
    async def code(run: Run, _: Any) -> Any:
        errors: list[Exception] = []
        for task in [activity(run, "a"), activity(run, "b"), activity(run, "c")]:
            try:
                await task
            except TaskFailedError as error:
                errors.append(error)
        if errors:
            await activity(run, "report")
            raise ExceptionGroup("several", [ExceptionGroup("inner", errors)] if nested else errors)
        return "good"

    world = Rewinding(code)
    a, b, c = world.step().activities
    world.step(world.result(b, 1))
    (report,) = world.step(world.failed(c, "down"), world.failed(a, "down")).activities
    world.step(world.result(report, None))
    assert world.state.projection.status is Status.FAILED
    rewound = world.rewind()
    assert names(rewound) == ["a", "c"]
    world.step(world.result(rewound.activities[0], 1))
    assert world.step(world.result(rewound.activities[1], 1)).projection.output == '"good"'

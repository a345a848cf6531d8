"""The commit core by examples: order, identity, lifecycle, continue-as-new."""

from datetime import timedelta

import pytest
from world import World, kinds

from holdtrue.core import events as ev
from holdtrue.core.episode import ExecutionState, episode, state_of
from holdtrue.core.errors import InvariantBroken, NonDeterminismError
from holdtrue.core.messages import CANCEL_EVENT, DEADLINE_EVENT, InboundMessage, Start
from holdtrue.core.projection import Status
from holdtrue.core.replay import CANCELLED_ERROR_TYPE, DEADLINE_ERROR_TYPE, Run
from holdtrue.core.retry import RetryPolicy
from holdtrue.core.tasks import OrchestrationCancelledError, TaskFailedError, when_all, when_any


async def chain(run, n):
    total = 0
    for _ in range(n):
        total = await run.schedule_task("inc", str(total))
    return total


async def wait_for_go(run, _):
    return await run.wait_for_event("go")


def test_a_chain_takes_one_step_a_commit_and_numbers_tasks_as_dotnet_does():
    world = World(chain, 2)
    first = world.step()
    assert kinds(first) == ["OrchestratorStarted", "ExecutionStarted", "TaskScheduled", "OrchestratorCompleted"]
    second = world.step(world.result(world.scheduled[0], 1))
    last = world.step(world.result(world.scheduled[1], 2))
    assert [task.task_id for task in world.scheduled] == [0, 1]
    assert second.projection.status is Status.RUNNING
    assert last.projection.status is Status.COMPLETED and last.projection.output == "2" and last.ended
    assert last.events[-2].event_id == 2


def test_the_python_dialect_counts_from_one():
    world = World(chain, 1, dialect="python")
    world.step()
    assert world.scheduled[0].task_id == 1


def test_a_result_of_what_another_engine_asked_for_names_no_ordinal():
    """Its work item has a negative one; an activity that this host ran for it was dropped, and waited for for ever."""
    world = World(chain, 1)
    world.step()
    result = world.result(world.scheduled[0], 1)
    commit = world.step(InboundMessage(event=result.event, execution_id="x", scheduled=-1))
    assert commit.projection.status is Status.COMPLETED
    assert not commit.dropped


def test_a_plain_function_is_an_orchestrator_too():
    commit = World(lambda run, n: n * 2, 21).step()
    assert commit.projection.output == "42" and commit.projection.status is Status.COMPLETED


def test_generator_and_falsy_results():
    def code(run, _):
        values = []
        for _ in range(4):
            values.append((yield run.schedule_task("a", None)))
        return values

    world = World(code)
    world.step()
    for value in (0, "", False, None):
        commit = world.step(world.result(world.scheduled[-1], value))
    assert commit.projection.output == '[0, "", false, null]'


def test_a_second_result_a_stale_one_and_one_of_another_execution_are_dropped_and_counted():
    world = World(chain, 2)
    world.step()
    result = world.result(world.scheduled[0], 1)
    other = InboundMessage(event=result.event, execution_id="older", scheduled=result.scheduled)
    wrong = InboundMessage(event=result.event, execution_id="x", scheduled=77)
    commit = world.step(other, wrong, result, result)
    assert [d.reason for d in commit.dropped] == [
        "it belongs to an earlier execution",
        "it answers an earlier attempt",
        "nobody waits for it any more",
    ]
    assert kinds(commit).count("TaskCompleted") == 1


def test_a_batch_of_nothing_but_dropped_messages_makes_no_history():
    world = World(chain, 2)
    world.step()
    result = world.result(world.scheduled[0], 1)
    world.step(result)
    commit = world.step(InboundMessage(event=result.event, execution_id="x", scheduled=result.scheduled, key=9))
    assert commit.events == [] and commit.consumed == [9] and len(commit.dropped) == 1


def test_events_are_taken_in_order_by_several_waiters_and_names_fold_case():
    async def code(run, _):
        first, second = run.wait_for_event("Go"), run.wait_for_event("go")
        return [await second, await first]

    world = World(code)
    world.step()
    assert world.step(world.event("GO", 1), world.event("gO", 2)).projection.output == "[2, 1]"


def test_an_early_event_is_buffered():
    async def code(run, _):
        await run.schedule_task("a", None)
        return await run.wait_for_event("go")

    world = World(code)
    world.step(world.event("go", 5))
    assert world.step(world.result(world.scheduled[0], None)).projection.output == "5"


def test_a_cancelled_wait_takes_no_event():
    async def code(run, _):
        lost, timer = run.wait_for_event("go"), run.create_timer(run.now + 10)
        await when_any([lost, timer])
        lost.cancel()
        return await run.wait_for_event("go")

    world = World(code)
    world.step()
    world.step(world.work[0])
    assert world.step(world.event("go", 1)).projection.output == "1"


def test_after_a_timer_the_orchestrations_time_is_not_before_it_whatever_clock_fired_it():
    async def code(run, _):
        due = run.now + 10 * ev.TICKS_PER_SECOND
        await run.create_timer(due)
        return run.now >= due

    world = World(code)
    world.step()
    world.now -= 300 * ev.TICKS_PER_SECOND
    commit = world.step(world.work[0])
    assert commit.projection.output == "true" and commit.projection.completed_at == world.work[0].event.fire_at


def test_suspended_events_are_appended_at_once_and_handled_at_the_resume():
    world = World(wait_for_go)
    world.step()
    assert world.step(world.suspend()).projection.status is Status.SUSPENDED
    commit = world.step(world.event("go", 1))
    assert "EventRaised" in kinds(commit) and commit.projection.status is Status.SUSPENDED
    assert world.step(world.resume()).projection.output == "1"


def test_suspend_event_and_resume_in_one_batch_and_unpaired_ones():
    world = World(wait_for_go)
    world.step()
    commit = world.step(world.resume(), world.suspend(), world.suspend(), world.event("go", 3), world.resume())
    assert commit.projection.output == "3"
    assert [d.reason for d in commit.dropped] == ["it is not suspended", "it is suspended already"]


def test_terminate_acts_at_once_also_while_suspended_and_takes_back_what_is_out():
    async def code(run, _):
        await when_all([run.schedule_task("a", None), run.create_timer(run.now + 100)])

    world = World(code)
    world.step()
    world.step(world.suspend())
    commit = world.step(world.terminate('"enough"'))
    assert commit.projection.status is Status.TERMINATED and commit.projection.output == '"enough"'
    assert sorted(commit.cancelled) == [2, 3]
    after = world.step(world.event("late"))
    assert after.events == [] and after.dropped[0].reason == "the instance has ended"


def test_cancel_can_be_caught_to_clean_up():
    async def code(run, _):
        try:
            await run.wait_for_event("never")
        except OrchestrationCancelledError:
            await run.schedule_task("clean", None)
            return "cleaned"

    world = World(code)
    world.step()
    world.step(InboundMessage(event=ev.EventRaised(timestamp=1, name=CANCEL_EVENT, input="why")))
    commit = world.step(world.result(world.scheduled[0], None))
    assert commit.projection.status is Status.COMPLETED and commit.projection.output == '"cleaned"'


def test_an_uncaught_cancel_ends_terminated_and_says_cancelled():
    world = World(wait_for_go)
    world.step()
    commit = world.step(InboundMessage(event=ev.EventRaised(timestamp=1, name=CANCEL_EVENT, input="why")))
    assert commit.projection.status is Status.TERMINATED
    assert commit.projection.failure.error_type == CANCELLED_ERROR_TYPE and "why" in commit.projection.failure.message


def test_a_deadline_fails_with_a_type_of_its_own_and_a_stale_one_does_nothing():
    world = World(wait_for_go)
    world.state.deadline = 500
    world.record = Start(started=world.started, start_id="x", deadline=500)
    world.step()
    stale = world.step(InboundMessage(event=ev.EventRaised(timestamp=1, name=DEADLINE_EVENT, input="400")))
    assert stale.events == []
    commit = world.step(InboundMessage(event=ev.EventRaised(timestamp=1, name=DEADLINE_EVENT, input="500")))
    assert commit.projection.status is Status.FAILED
    assert commit.projection.failure.error_type == DEADLINE_ERROR_TYPE


def test_every_way_out_of_user_code_is_an_outcome():
    for error in (SystemExit(3), KeyboardInterrupt(), GeneratorExit(), ValueError("x"), BaseException("b")):

        async def code(run, _, error=error):
            await run.schedule_task("a", None)
            raise error

        world = World(code)
        world.step()
        commit = world.step(world.result(world.scheduled[0], None))
        assert commit.projection.status is Status.FAILED
        assert commit.projection.failure.error_type == type(error).__name__


def test_an_output_that_cannot_be_written_is_a_failure():
    commit = World(lambda run, _: object()).step()
    assert commit.projection.status is Status.FAILED


def test_finally_of_a_discarded_run_leaks_nothing():
    seen = []

    async def code(run, _):
        try:
            await run.wait_for_event("never")
        finally:
            seen.append(run.schedule_task("leak", None))
            run.set_custom_status('"leak"')

    world = World(code)
    world.step()
    commit = world.step(world.terminate())
    assert seen and commit.activities == [] and commit.projection.custom_status is None


def test_retry_takes_a_new_id_in_dotnet_and_the_same_one_in_python():
    policy = RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=3, backoff_coefficient=2)

    async def code(run, _):
        return await run.schedule_task("flaky", None, retry=policy)

    for dialect, ids in (("dotnet", [0, 2, 4]), ("python", [1, 1, 1])):
        world = World(code, dialect=dialect)
        world.step()
        for attempt in range(2):
            world.step(world.failed(world.scheduled[-1], "no"))
            world.now = world.work[-1].event.fire_at
            world.step(world.work[-1])
            assert world.scheduled[-1].options.attempt == attempt + 2
        assert [task.task_id for task in world.scheduled] == ids
        late = world.failed(world.scheduled[0], "late")
        assert world.step(late).events == []
        commit = world.step(world.failed(world.scheduled[-1], "last"))
        assert commit.projection.status is Status.FAILED and "last" in commit.projection.failure.message


def test_continue_as_new_carries_what_was_not_fed_however_it_was_batched():
    async def code(run, seen):
        seen = seen + [await run.wait_for_event("go")]
        if len(seen) == 3:
            return seen
        import json

        run.continue_as_new(json.dumps(seen), True, None)

    outputs = []
    for batches in ([[1, 2, 3]], [[1], [2], [3]], [[1, 2], [3]], [[], [1, 2, 3]]):
        world = World(code, [])
        for batch in batches:
            commit = world.step(*[world.event("go", n) for n in batch])
        outputs.append(commit.projection.output)
        assert commit.projection.status is Status.COMPLETED
    assert set(outputs) == {"[1, 2, 3]"}


def test_without_save_events_fed_and_buffered_ones_go_and_unfed_ones_stay():
    async def code(run, first):
        if first:
            await run.wait_for_event("go")
            run.continue_as_new("false", False, None)
            return
        return await run.wait_for_event("other")

    world = World(code, True)
    world.step(world.event("other", "buffered"))
    commit = world.step(world.event("go"), world.event("other", "unfed"))
    assert commit.projection.output == '"unfed"'


def test_an_endless_continue_as_new_commits_now_and_then():
    async def code(run, n):
        run.continue_as_new(str(n + 1), False, None)

    commit = World(code, 0).step()
    assert commit.wake and commit.replace and commit.projection.input == "16"


def test_continue_as_new_takes_uncommitted_and_committed_timers_back():
    async def code(run, n):
        run.create_timer(run.now + 50)
        await run.wait_for_event("go")
        run.create_timer(run.now + 60)
        if n:
            return "done"
        run.continue_as_new("1", False, None)

    world = World(code, 0)
    world.step()
    commit = world.step(world.event("go"))
    assert commit.cancelled == [2]
    fresh = [m for m in commit.messages if m.due is not None]
    assert [m.execution_id for m in fresh] == [commit.projection.execution_id]


def test_a_child_that_ends_answers_its_parent_by_execution_and_ordinal():
    async def parent(run, _):
        return await run.create_sub_orchestration("child", "1")

    world = World(parent)
    commit = world.step()
    start = commit.starts[0]
    assert start.started.instance_id == "x:0" and start.started.parent.scheduled == 2
    child = World(lambda run, n: n, 1)
    child.started = start.started
    child.record = start
    child.state = state_of(start)
    answer = child.step().messages[0]
    assert (answer.instance_id, answer.execution_id, answer.scheduled) == ("i", "x", 2)
    done = world.step(InboundMessage(event=answer.event, execution_id="x", scheduled=2))
    assert done.projection.output == "1"


def test_code_that_no_longer_fits_names_the_step_and_the_call():
    world = World(chain, 2)
    world.step()
    history = world.history

    async def changed(run, _):
        await run.schedule_task("other", None)

    async def gone(run, _):
        return 1

    async def more(run, _):
        await when_all([run.schedule_task("inc", None), run.schedule_task("inc", None)])

    world.step(world.result(world.scheduled[0], 1))
    for code in (changed, gone, more):
        world.author.code = code
        run = Run(world.author, world.dialect)
        with pytest.raises(NonDeterminismError) as caught:
            run.replay(world.history)
        assert "instance 'i'" in str(caught.value)
    world.author.code = changed
    with pytest.raises(
        NonDeterminismError, match=r"TaskScheduled 'inc' \(task 0\).*activity 'other'.*test_episode.py:\d+"
    ):
        Run(world.author, world.dialect).replay(history)


@pytest.mark.parametrize(
    "events",
    [
        [ev.TaskCompleted(timestamp=1, task_scheduled_id=0)],
        [ev.TaskScheduled(timestamp=1, event_id=0, name="a"), ev.TaskScheduled(timestamp=1, event_id=0, name="a")],
        [
            ev.TaskScheduled(timestamp=1, event_id=0, name="a"),
            ev.TaskCompleted(timestamp=1, task_scheduled_id=0),
            ev.TaskCompleted(timestamp=1, task_scheduled_id=0),
        ],
        [ev.TimerCreated(timestamp=1, event_id=0, fire_at=2), ev.TaskCompleted(timestamp=1, task_scheduled_id=0)],
        [ev.ExecutionCompleted(timestamp=1, status=1), ev.EventRaised(timestamp=2, name="late")],
        [ev.ExecutionResumed(timestamp=1)],
    ],
)
def test_what_breaks_a_law_of_histories_cannot_be_folded(events):
    world = World(chain, 1)
    state: ExecutionState = state_of(world.record, [world.started])
    with pytest.raises(InvariantBroken):
        state.extend(events)


def test_when_all_waits_for_all_and_raises_the_failure_that_came_first():
    async def code(run, _):
        tasks = [run.schedule_task(str(n), None) for n in range(3)]
        try:
            await when_all(tasks)
        except TaskFailedError as error:
            return [error.details.message, all(task.is_complete for task in tasks)]

    world = World(code)
    world.step()
    zero, one, two = world.scheduled
    assert kinds(world.step(world.failed(two, "second task"))).count("ExecutionCompleted") == 0
    world.step(world.result(zero, None))
    assert world.step(world.failed(one, "later")).projection.output == '["second task", true]'


def test_combinators_of_nothing_and_of_cancelled_children():
    async def code(run, _):
        with pytest.raises(ValueError):
            when_any([])
        lost = run.wait_for_event("never")
        both = when_all([lost, run.create_timer(0)])
        assert lost.cancel() and not lost.cancel()
        try:
            await both
        except Exception as error:
            return [await when_all([]), type(error).__name__]

    world = World(code)
    world.step()
    assert world.step(world.work[0]).projection.output == '[[], "TaskCancelledError"]'


def test_a_timer_past_the_year_9999_is_an_error_in_the_orchestration():
    async def code(run, _):
        await run.create_timer(ev.MAX_TICKS + 1)

    commit = World(code).step()
    assert commit.projection.status is Status.FAILED and "9999" in commit.projection.failure.message


def test_awaiting_something_that_is_not_durable_names_the_line_and_the_way():
    class Foreign:
        def __await__(self):
            yield self

    async def code(run, _):
        await Foreign()

    failure = World(code).step().projection.failure
    assert failure.error_type == "NotDurableError"
    assert "test_episode.py" in failure.message and "ctx.create_timer" in failure.message


def test_long_timers_are_cut_in_the_python_dialect_only():
    day = 86_400 * ev.TICKS_PER_SECOND

    async def code(run, _):
        await run.create_timer(run.now + 7 * day)
        return "up"

    whole = World(code)
    whole.step()
    assert len(whole.work) == 1
    cut = World(code, dialect="python")
    start = cut.now
    cut.step()
    for _ in range(3):
        cut.now = cut.work[-1].event.fire_at
        commit = cut.step(cut.work[-1])
    assert [(m.event.fire_at - start) // day for m in cut.work] == [3, 6, 7]
    assert commit.projection.output == '"up"'


@pytest.mark.parametrize("dialect", ["dotnet", "python"])
def test_what_is_ended_before_it_began_runs_no_code(dialect):
    def code(run, _):
        raise AssertionError("the code ran")

    world = World(code, dialect=dialect)
    world.record = Start(started=world.started, start_id="x", dialect=dialect, deadline=7)
    endings = {
        Status.TERMINATED: ev.ExecutionTerminated(timestamp=1, input='"no"'),
        Status.FAILED: ev.EventRaised(timestamp=1, name=DEADLINE_EVENT, input="7"),
    }
    for status, event in endings.items():
        state = state_of(world.record)
        commit = episode(
            state,
            [
                InboundMessage(event=world.started),
                world.event("early"),
                InboundMessage(event=event),
                world.event("late"),
            ],
            lambda state, events: pytest.fail("the executor was asked"),
            now=5,
            new_id=str,
        )
        assert commit.projection.status is status and len(commit.dropped) == 1
        assert kinds(commit)[1] == "ExecutionStarted" and kinds(commit)[-2] == "ExecutionCompleted"

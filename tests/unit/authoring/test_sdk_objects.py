"""Objects of `durabletask.task` in programs that run here."""

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from durabletask import task as sdk

from holdtrue.authoring.app import App
from holdtrue.authoring.combining import when_all, when_any
from holdtrue.core.projection import Status
from holdtrue.core.retry import RetryPolicy
from holdtrue.core.tasks import Task, TaskCancelledError, TaskFailedError
from tests.unit.authoring.hub import BEGINNING, SECOND, Hub, run_once


@pytest.fixture
def app() -> App:
    app = App()

    @app.activity
    def double(ctx: Any, n: int) -> int:
        return n * 2

    @app.activity
    def fail(ctx: Any, text: str) -> None:
        raise ValueError(text)

    return app


def test_the_sdk_is_never_imported_from_here() -> None:
    program = (
        "import sys; from holdtrue.authoring.app import App; import holdtrue.authoring.combining as c\n"
        "app = App(); app.orchestrator(name='o')(lambda ctx: 5); app.failure(ValueError())\n"
        "app.task_failed('x', app.failure(ValueError()))\n"
        "app.author.adopt(object())\n"
        "assert not [m for m in sys.modules if m.startswith('durabletask')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize("live", [True, False])
def test_groups_of_the_sdk_work_and_keep_in_step(app: App, live: bool) -> None:
    @app.orchestrator
    def main(ctx: Any) -> Any:
        a, b = ctx.call_activity("double", input=1), ctx.call_activity("double", input=2)
        group = sdk.when_all([a, b, a])
        assert not group.is_complete and group.pending_tasks == 3
        results = yield group
        assert results == [2, 4, 2] == group.get_result() and group.is_complete and not group.is_failed
        again = yield group
        assert again == results
        timer = ctx.create_timer(timedelta(hours=1))
        nested = sdk.when_all([ctx.call_activity("double", input=3), ctx.call_activity("double", input=4)])
        race = sdk.when_any([timer, nested])
        winner = yield race
        assert winner is nested and winner == nested and race.get_result() is nested
        assert winner.get_result() == [6, 8]
        assert timer.cancel()
        # A group that is not waited for itself is in step too.
        x, y = ctx.call_activity("double", input=5), ctx.call_activity("double", input=6)
        aside = sdk.when_all([x, y])
        yield x
        yield y
        assert aside.is_complete and aside.get_result() == [10, 12]
        first = yield sdk.when_any([x, ctx.create_timer(timedelta(hours=1))])
        return first is x

    hub = Hub(app, live=live)
    hub.start(main)
    hub.run(seconds=10)
    assert hub.output() is True
    assert hub.now == BEGINNING


def test_ours_and_the_sdks_mixed(app: App) -> None:
    @app.orchestrator
    def main(ctx: Any) -> Any:
        def call(n: int) -> Any:
            return ctx.call_activity("double", input=n)

        theirs = sdk.when_all([call(1), call(2)])
        assert (yield when_all([theirs, call(3)])) == [[2, 4], 6]
        quick = sdk.when_all([call(4)])
        winner = yield when_any([ctx.create_timer(timedelta(hours=1)), quick])
        assert winner is quick and winner.get_result() == [8]
        ours = when_all([call(5), call(6)])
        winner = yield sdk.when_any([ctx.create_timer(timedelta(hours=1)), ours])
        assert winner is ours and winner.get_result() == [10, 12]
        winner = yield sdk.when_any([sdk.when_any([ctx.create_timer(timedelta(hours=1)), call(7)]), call(8)])
        return winner.get_result().get_result()

    hub = Hub(app)
    hub.start(main)
    hub.run(seconds=10)
    assert hub.output() == 14


def test_empty_groups_of_the_sdk(app: App) -> None:
    # In the SDK `when_all([])` never completes, nor does `when_any([])`.
    @app.orchestrator
    def main(ctx: Any) -> Any:
        assert (yield sdk.when_all([])) == []
        inner = sdk.when_all([])
        outer = sdk.when_any([sdk.when_all([inner]), ctx.wait_for_external_event("never")])
        winner = yield outer
        assert winner.get_result() == [[]]
        with pytest.raises(ValueError, match="at least one"):
            yield sdk.when_any([])
        with pytest.raises(ValueError, match="at least one"):
            yield sdk.when_all([sdk.when_any([])])
        return "done"

    assert run_once(app, main) == "done"


def test_a_failure_in_a_group_of_the_sdk(app: App) -> None:
    @app.orchestrator
    def main(ctx: Any) -> Any:
        group = sdk.when_all(
            [
                ctx.call_activity("fail", input="a"),
                ctx.call_activity("double", input=1),
                ctx.call_activity("fail", input="b"),
            ]
        )
        try:
            yield group
        except sdk.TaskFailedError as error:
            assert isinstance(error, TaskFailedError) and group.is_failed and group.get_exception() is error
            assert error.details.is_caused_by(ValueError) and error.details.message == "a"
            assert type(error.__cause__) is ValueError
        yield sdk.when_all([ctx.call_activity("fail", input="c")])

    hub = Hub(app)
    hub.start(main)
    hub.run()
    failure = hub.failure()
    assert failure.error_type == "holdtrue.TaskFailedError" and failure.is_caused_by(sdk.TaskFailedError)
    assert failure.inner_failure is not None and failure.inner_failure.message == "c"


def test_a_cancelled_child_of_an_sdks_group(app: App) -> None:
    # In the SDK the last child's cancellation raises out of `cancel()` itself.
    @app.orchestrator
    def main(ctx: Any) -> Any:
        timer, task = ctx.create_timer(timedelta(hours=1)), ctx.call_activity("double", input=1)
        group = sdk.when_all([timer, task])
        outer = sdk.when_any([group, ctx.create_timer(timedelta(hours=2))])
        yield task
        assert timer.cancel()
        assert group.is_complete and outer.is_complete
        winner = yield outer
        assert winner is group
        with pytest.raises(TaskCancelledError):
            yield group
        with pytest.raises(sdk.TaskCancelledError):
            timer.get_result()
        return "done"

    hub = Hub(app)
    hub.start(main)
    hub.run(seconds=10)
    assert hub.output() == "done"


def test_a_group_gives_up_its_other_children(app: App) -> None:
    @app.orchestrator
    def main(ctx: Any) -> Any:
        waits = ctx.wait_for_external_event("x")
        for n in range(5):
            yield sdk.when_any([waits, ctx.call_activity("double", input=n)])
            assert not waits._composites
        return "done"

    assert run_once(app, main) == "done"


def test_retry_policies_of_the_sdk(app: App) -> None:
    @app.orchestrator
    def main(ctx: Any) -> Any:
        policy = sdk.RetryPolicy(
            first_retry_interval=timedelta(seconds=10),
            max_number_of_attempts=4,
            backoff_coefficient=3,
            max_retry_interval=timedelta(seconds=50),
        )
        try:
            yield ctx.call_activity("fail", input="x", retry_policy=policy)
        except sdk.TaskFailedError as error:
            with pytest.raises(TypeError, match="RetryPolicy"):
                ctx.call_activity("fail", input="x", retry_policy=5)
            return error.details.error_type

    hub = Hub(app)
    hub.start(main)
    hub.run()
    assert hub.output() == "builtins.ValueError"
    assert len(hub.calls) == 4 and hub.now == BEGINNING + (10 + 30 + 50) * SECOND


def test_a_retry_policy_of_ours_has_the_sdks_members() -> None:
    ours, theirs = (
        kind(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=2, retry_timeout=timedelta(days=1))
        for kind in (RetryPolicy, sdk.RetryPolicy)
    )
    for name in (
        "first_retry_interval",
        "max_number_of_attempts",
        "backoff_coefficient",
        "max_retry_interval",
        "retry_timeout",
    ):
        assert getattr(ours, name) == getattr(theirs, name)


def test_what_else_the_sdk_makes_is_not_durable_here(app: App) -> None:
    @app.orchestrator
    def main(ctx: Any) -> Any:
        yield sdk.CompletableTask()

    hub = Hub(app)
    hub.start(main)
    hub.run()
    assert hub.status().status is Status.FAILED
    assert "durabletask.task.CompletableTask" in hub.failure().message


def test_our_tasks_answer_what_the_sdk_asks_of_a_task() -> None:
    task: Task[Any] = Task()
    parents = task._parents  # type: ignore[attr-defined]
    group = sdk.when_all([task])  # type: ignore[list-item]
    assert parents.pop(id(group)) is group
    assert parents.pop(id(group), None) is None
    task.succeed(1)
    assert not group.is_complete

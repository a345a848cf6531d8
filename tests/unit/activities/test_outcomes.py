"""Every way out of user code is an outcome, none keeps a slot, and the next one runs."""

import asyncio
import contextvars
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from holdtrue.authoring.app import App
from holdtrue.authoring.errors import RegistrationError
from holdtrue.core.events import TaskCompleted, TaskFailed
from holdtrue.core.messages import WorkRef

from .bench import Bench, failure, result, settle, with_bench


@dataclass
class Order:
    number: int
    lines: list[str]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def fail_with(kind: str) -> Any:
    if kind == "exit":
        raise SystemExit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "cancelled":
        raise asyncio.CancelledError("by itself")
    if kind == "generator":
        raise GeneratorExit
    if kind == "stop":
        raise StopIteration
    if kind == "base":
        raise BaseException("bare")
    if kind == "value":
        raise ValueError("no such order")
    if kind == "unspeakable":
        raise Unspeakable
    if kind == "long":
        raise ValueError("x" * 3_000_000)
    if kind == "unserialisable":
        return object()
    if kind == "oversize":
        return "x" * 200_000
    if kind == "deep":
        deep: list[Any] = []
        for _ in range(200_000):
            deep = [deep]
        return deep
    raise AssertionError(kind)


TYPES = {
    "exit": "SystemExit",
    "interrupt": "KeyboardInterrupt",
    "cancelled": "CancelledError",
    "generator": "GeneratorExit",
    "stop": "",
    "base": "BaseException",
    "value": "ValueError",
    "unspeakable": "Unspeakable",
    "long": "ValueError",
    "unserialisable": "PayloadError",
    "oversize": "PayloadTooLarge",
    "deep": "",
}


def make_app() -> App:
    app = App(max_payload=100_000)

    @app.activity
    def hidden(ctx: Any) -> Any:
        async def quick() -> int:
            return 7

        return quick()

    @app.activity
    async def quick(ctx: Any, kind: str) -> Any:
        return fail_with(kind)

    @app.activity
    async def slow(ctx: Any, kind: str) -> Any:
        await asyncio.sleep(0)
        return fail_with(kind)

    @app.activity
    def blocking(ctx: Any, kind: str) -> Any:
        return fail_with(kind)

    @app.activity
    async def fine(ctx: Any, order: Order) -> Order:
        return Order(order.number + 1, order.lines)

    @app.activity
    def fine_blocking(ctx: Any, order: Order) -> Order:
        return Order(order.number + 1, order.lines)

    @app.activity
    async def bare(ctx: Any) -> None:
        return None

    @app.activity
    def defaulted(ctx: Any, word: str = "default") -> str:
        return word

    return app


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ["quick", "slow", "blocking"])
def test_a_way_out_is_an_outcome(name: str, kind: str) -> None:
    async def test(bench: Bench) -> None:
        for _ in range(3):
            failed = failure(await bench.run(name, f'"{kind}"'))
            assert failed.error_type.endswith(TYPES[kind])
            assert len(failed.message) < 1_000_000
        await bench.idle()
        assert result(await bench.run("fine", '{"number": 1, "lines": []}')) == '{"number":2,"lines":[]}'
        assert result(await bench.run("fine_blocking", '{"number": 1, "lines": []}')) == '{"number":2,"lines":[]}'

    with_bench(make_app(), test, async_slots=1, threads=1)


def test_input_and_output_follow_the_hints() -> None:
    async def test(bench: Bench) -> None:
        assert result(await bench.run("fine", '{"number": 7, "lines": ["a"]}')) == '{"number":8,"lines":["a"]}'
        refused = failure(await bench.run("fine", '{"number": "seven", "lines": []}'))
        assert refused.error_type.endswith("PayloadError") and "input of activity 'fine'" in refused.message
        assert result(await bench.run("bare")) == "null"
        assert result(await bench.run("bare", '"not looked at"')) == "null"
        assert result(await bench.run("defaulted")) == '"default"'
        assert result(await bench.run("defaulted", '"given"')) == '"given"'
        assert result(await bench.run("defaulted", '""')) == '""'

    with_bench(make_app(), test)


def test_an_unknown_name_is_kept_and_given_back() -> None:
    app = make_app()

    async def test(bench: Bench) -> None:
        bench.submit("nowhere")
        assert result(await bench.run("bare")) == "null"
        assert await bench.pool.drain(0) == [WorkRef(1, 7)]

    with_bench(app, test)


def test_the_same_item_twice_runs_once() -> None:
    async def test(bench: Bench) -> None:
        item = bench.item("bare")
        bench.pool.submit([item, item])
        bench.pool.submit([item])
        await bench.idle()
        assert len(bench.told) == 1

    with_bench(make_app(), test)


def test_a_consumer_that_fails_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        def bad(item: Any, event: Any) -> None:
            raise RuntimeError("consumer")

        good, bench.pool._finished = bench.pool._finished, bad
        bench.submit("bare")
        bench.submit("blocking", '"value"')
        await bench.idle()
        bench.pool._finished = good
        assert result(await bench.run("bare")) == "null"

    with_bench(make_app(), test, async_slots=1, threads=1)
    assert "could not be taken" in caplog.text


def test_thousands_at_once_each_told_once() -> None:
    app = App()

    @app.activity
    async def never_waits(ctx: Any, number: int) -> int:
        return number

    @app.activity
    async def sometimes_waits(ctx: Any, number: int) -> int:
        if number % 7 == 3:
            await asyncio.sleep(0.001 if number % 2 else 0)
        return number

    @app.activity
    def in_a_thread(ctx: Any, number: int) -> int:
        return number

    async def test(bench: Bench) -> None:
        names = ["never_waits", "sometimes_waits", "in_a_thread"]
        items = [bench.item(names[n % 3], str(n + 1)) for n in range(3_000)]
        bench.pool.submit(items)
        await bench.idle()
        assert sorted(number for number, _ in bench.told) == list(range(1, 3_001))
        for number, event in bench.told:
            assert result(event) == str(number)

    with_bench(app, test, async_slots=50, threads=4)


# -- the shared task -----------------------------------------------------------------------------------------

WORD: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="clean")


@pytest.mark.parametrize("sync", [False, True])
def test_context_variables_do_not_leak(sync: bool) -> None:
    app = App()

    def look(word: str) -> str:
        before = WORD.get()
        WORD.set(word)
        return before

    if sync:

        @app.activity(name="look")
        def in_thread(ctx: Any, word: str) -> str:
            return look(word)

    else:

        @app.activity(name="look")
        async def on_loop(ctx: Any, word: str) -> str:
            return look(word)

    async def test(bench: Bench) -> None:
        bench.pool.submit([bench.item("look", '"dirty"') for _ in range(5)])
        await bench.idle()
        assert [result(event) for _, event in bench.told] == ['"clean"'] * 5

    with_bench(app, test, threads=1)


def test_one_that_cancels_its_own_task_fails_alone() -> None:
    app = App()

    @app.activity
    async def odd(ctx: Any, wait: bool) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if wait:
            await asyncio.sleep(60)
        return "left a cancellation behind"

    @app.activity
    async def waits(ctx: Any) -> str:
        await asyncio.sleep(0)
        return "fine"

    async def test(bench: Bench) -> None:
        calls = [("odd", "false"), ("waits", None), ("odd", "true"), ("waits", None)]
        bench.pool.submit([bench.item(name, payload) for name, payload in calls])
        await bench.idle()
        told = dict(bench.told)
        assert result(told[1]) == '"left a cancellation behind"'
        assert result(told[2]) == '"fine"'
        assert failure(told[3]).error_type.endswith("CancelledError")
        assert result(told[4]) == '"fine"'

    with_bench(app, test)


def test_one_that_waits_does_not_hold_up_the_others() -> None:
    app = App()
    gate = asyncio.Event()

    @app.activity
    async def mixed(ctx: Any, wait: bool) -> int:
        if wait:
            await gate.wait()
        return id(asyncio.current_task())

    async def test(bench: Bench) -> None:
        bench.pool.submit([bench.item("mixed", word) for word in ("false", "true", "false", "true", "false")])
        await bench.until(lambda: len(bench.told) == 3)
        assert [number for number, _ in bench.told] == [1, 3, 5]
        gate.set()
        await bench.idle()
        tasks = [result(event) for number, event in bench.told if number in (2, 4)]
        assert tasks[0] != tasks[1], "two that wait must not share a task"

    with_bench(app, test)


def test_a_loop_torn_down_makes_no_outcomes() -> None:
    """asyncio cancels every task at its end: that an activity was cut off so must not be told as its failure."""
    app = App()

    @app.activity
    async def hangs(ctx: Any) -> None:
        await asyncio.sleep(3600)

    benches: list[Bench] = []

    async def main() -> None:
        bench = Bench(app)
        benches.append(bench)
        bench.pool.submit([bench.item("hangs"), bench.item("hangs")])
        await settle()
        assert bench.pool.running == 2

    asyncio.run(main())
    assert benches[0].told == []


def test_threads_run_side_by_side_up_to_their_number() -> None:
    app = App()
    together = threading.Barrier(3)

    @app.activity
    def meets(ctx: Any) -> str:
        together.wait(timeout=30)
        return threading.current_thread().name

    async def test(bench: Bench) -> None:
        bench.pool.submit([bench.item("meets") for _ in range(6)])
        await bench.until(lambda: len(bench.told) == 6)
        assert len({result(event) for _, event in bench.told}) == 3

    with_bench(app, test, threads=3)


def test_counters_tell_what_happened() -> None:
    async def test(bench: Bench) -> None:
        await bench.run("bare")
        await bench.run("quick", '"value"')
        assert (bench.pool.counters.completed, bench.pool.counters.failed) == (1, 1)
        assert [type(event) for _, event in bench.told] == [TaskCompleted, TaskFailed]

    with_bench(make_app(), test)


@pytest.mark.parametrize("name", ["quick", "slow", "blocking"])
def test_a_result_that_cannot_be_written_names_its_activity(name: str) -> None:
    async def test(bench: Bench) -> None:
        for kind, error_type in (("unserialisable", "holdtrue.PayloadError"), ("oversize", "holdtrue.PayloadTooLarge")):
            failed = failure(await bench.run(name, f'"{kind}"'))
            assert failed.error_type == error_type
            assert failed.message.startswith(f"the result of activity {name!r}: a ")

    with_bench(make_app(), test)


def test_a_coroutine_as_a_result_is_told_as_such(recwarn: pytest.WarningsRecorder) -> None:
    async def test(bench: Bench) -> None:
        failed = failure(await bench.run("hidden"))
        assert failed.error_type == "holdtrue.PayloadError"
        assert "'hidden' returned a coroutine" in failed.message and "async def" in failed.message

    with_bench(make_app(), test)
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


def test_an_object_whose_call_yields_is_refused_at_registration() -> None:
    class Rows:
        def __call__(self, ctx: Any) -> Any:
            yield 1

    class MoreRows:
        async def __call__(self, ctx: Any) -> Any:
            yield 1

    for rows in (Rows(), MoreRows()):
        with pytest.raises(RegistrationError, match="activity 'rows' yields, but an activity gives its result once"):
            App().activity(rows, name="rows")

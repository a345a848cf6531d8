"""Registration: what is read from functions, and what is refused."""

import functools
from collections.abc import Awaitable, Coroutine, Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from holdtrue.authoring.app import App
from holdtrue.authoring.errors import RegistrationError
from holdtrue.core import events as ev
from holdtrue.core.author import OrchestratorNotFound
from holdtrue.core.dialect import DOTNET
from holdtrue.core.replay import Run
from holdtrue.stores.protocol import queue_name

if TYPE_CHECKING:
    from somewhere import Context, Missing, Yielded  # type: ignore[import-not-found]


class Item(msgspec.Struct):
    name: str


class Opaque:
    pass


def heavy(ctx: Any, n: int) -> int:
    return n


def test_decorators_with_and_without_arguments_leave_the_function_as_it_is() -> None:
    app = App()

    @app.activity
    def one(ctx: Any, n: int) -> int:
        return n + 1

    @app.activity(name="two", limit=3)
    def second(ctx: Any) -> None: ...

    @app.orchestrator
    async def three(ctx: Any) -> None: ...

    @app.orchestrator(name="four", version="2", on_mismatch="fail")
    def fourth(ctx: Any) -> Any:
        yield

    assert one(None, 4) == 5
    assert set(app.activities) == {"one", "two"} and set(app.orchestrators) == {"three", "four"}
    assert app.activities["two"].limit == 3 and app.activities["two"].function is second
    four = app.orchestrators["four"]
    assert (four.version, four.on_mismatch, four.function) == ("2", "fail", fourth)
    assert app.orchestrator_of(fourth) is four and app.activity_of(fourth) is None
    with pytest.raises(TypeError):
        app.activities["x"] = app.activities["two"]  # type: ignore[index]


def test_what_is_read_from_the_hints() -> None:
    app = App()

    @app.orchestrator
    async def coroutine(ctx: Any, item: Item) -> list[Item]:
        return [item]

    @app.orchestrator
    def generator(ctx: Any, item: "Item | None" = None) -> Generator[Any, Any, Item]:
        yield
        return Item("x")

    @app.orchestrator
    def returned(ctx: Any) -> Awaitable[int]: ...  # type: ignore[empty-body]

    @app.orchestrator
    def chained(ctx: Any) -> Coroutine[Any, Any, str]: ...  # type: ignore[empty-body]

    @app.orchestrator
    def bare(ctx, item):  # type: ignore[no-untyped-def]
        yield

    @app.orchestrator
    def rest(*args: Any) -> None: ...

    read = {name: (d.takes_input, d.has_default, d.input_type, d.output_type) for name, d in app.orchestrators.items()}
    assert read == {
        "coroutine": (True, False, Item, list[Item]),
        "generator": (True, True, Item | None, Item),
        "returned": (False, False, None, int),
        "chained": (False, False, None, str),
        "bare": (True, False, None, None),
        "rest": (True, False, None, None),
    }


def test_hints_that_only_a_type_checker_sees() -> None:
    app = App()

    @app.orchestrator
    def main(ctx: "Context", item: "Item") -> "Generator[Yielded.Task[Any], Any, Item]":
        yield
        return item

    assert app.orchestrators["main"].input_type is Item
    assert app.orchestrators["main"].output_type is Item

    @app.orchestrator
    def unknown_result(ctx: "Context") -> "list[Missing]": ...

    assert app.orchestrators["unknown_result"].output_type is None
    with pytest.raises(RegistrationError, match=r"parameter 'item'.*Missing.*module level"):

        @app.activity
        def unknown_input(ctx: "Context", item: "Missing") -> None: ...


def test_hints_of_the_closure_are_found() -> None:
    class Local(msgspec.Struct):
        n: int

    app = App()

    @app.activity
    def read(ctx: Any, value: "Local") -> "Local":
        return Local(value.n)

    assert app.activities["read"].input_type is Local


@pytest.mark.parametrize("hint", [Opaque, list[int] | set[int], Item | Opaque], ids=str)
def test_hints_that_cannot_be_converted_are_refused(hint: Any) -> None:
    def takes(ctx: Any, item: Any) -> None: ...

    def gives(ctx: Any) -> Any: ...

    takes.__annotations__["item"] = hint
    gives.__annotations__["return"] = hint
    app = App()
    with pytest.raises(RegistrationError, match="activity 'takes', parameter 'item'") as caught:
        app.activity(takes)
    assert __file__ in str(caught.value)
    with pytest.raises(RegistrationError, match="orchestrator 'gives', its result"):
        app.orchestrator(gives)
    assert not app.activities and not app.orchestrators


def test_kinds_of_activities() -> None:
    app = App()

    class Callable_:
        __name__ = "object"

        async def __call__(self, ctx: Any) -> None: ...

    async def awaits(ctx: Any) -> None: ...

    app.activity(cpu=True)(heavy)
    app.activity(awaits)
    app.activity(Callable_())
    app.activity(name="partial")(functools.partial(awaits))
    app.activity(name="plain")(lambda ctx: None)
    assert {name: d.kind for name, d in app.activities.items()} == {
        "heavy": "cpu",
        "awaits": "async",
        "object": "async",
        "partial": "async",
        "plain": "sync",
    }


def test_activity_options() -> None:
    app = App()
    app.activity(tag="gpu", start_to_close=timedelta(minutes=2), schedule_to_start=5, heartbeat=0.5)(heavy)
    definition = app.activities["heavy"]
    assert definition.tag == "gpu"
    assert definition.options.tag == "gpu" and definition.options.start_to_close == 120.0
    assert definition.options.schedule_to_start == 5.0 and definition.options.heartbeat == 0.5


@pytest.mark.parametrize(
    "options",
    [{"limit": 0}, {"limit": "x"}, {"tag": ""}, {"tag": "a\x1fb"}, {"start_to_close": 0}, {"heartbeat": "x"}],
    ids=str,
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RegistrationError, match="heavy"):
        App().activity(**options)(heavy)


async def _async_generator(ctx: Any) -> Any:
    yield


def _generator(ctx: Any) -> Any:
    yield


def _no_context() -> None: ...


def _too_many(ctx: Any, a: int, b: int) -> None: ...


def _keyword(ctx: Any, *, a: int) -> None: ...


def test_functions_that_cannot_work_are_refused() -> None:
    app = App()
    for function in (_async_generator, _no_context, _too_many, _keyword):
        with pytest.raises(RegistrationError, match=f"test_app.py:{function.__code__.co_firstlineno}"):
            app.orchestrator(function)
        with pytest.raises(RegistrationError):
            app.activity(function)
    for function in (_generator, 5, lambda ctx: None):
        with pytest.raises(RegistrationError):
            app.activity(function)  # type: ignore[call-overload]
    for name in ("", "a\nb", 5):
        with pytest.raises(RegistrationError, match="name"):
            app.activity(name=name)(heavy)  # type: ignore[call-overload]
    with pytest.raises(RegistrationError, match="on_mismatch"):
        app.orchestrator(on_mismatch="retry")(heavy)  # type: ignore[call-overload]
    assert not app.orchestrators and not app.activities


def test_cpu_activities_must_be_importable() -> None:
    def local(ctx: Any) -> None: ...

    async def awaits(ctx: Any) -> None: ...

    with pytest.raises(RegistrationError, match="top level"):
        App().activity(cpu=True)(local)
    with pytest.raises(RegistrationError, match="async"):
        App().activity(cpu=True)(awaits)


def test_two_functions_with_one_name() -> None:
    app = App()

    def other(ctx: Any) -> None: ...

    app.activity(heavy)
    app.activity(heavy)
    with pytest.raises(RegistrationError, match=f"test_app.py:{other.__code__.co_firstlineno}"):
        app.activity(name="heavy")(other)
    app.orchestrator(name="heavy")(other)
    with pytest.raises(RegistrationError, match="two orchestrators"):
        app.orchestrator(heavy)


def test_including_another_app() -> None:
    one, two = App(), App()

    def other(ctx: Any) -> None: ...

    two.activity(heavy)
    two.orchestrator(other)
    two.error(KeyError)
    one.include(two)
    one.include(two)
    assert set(one.activities) == {"heavy"} and set(one.orchestrators) == {"other"}
    three = App()
    three.activity(name="heavy")(other)
    with pytest.raises(RegistrationError, match="two activities"):
        one.include(three)


def test_queues() -> None:
    app = App()
    app.activity(name="plain")(heavy)
    app.activity(name="tagged", tag="gpu")(lambda ctx: None)
    assert set(app.queues([])) == {"plain"}
    assert set(app.queues(["gpu"])) == {"plain", queue_name("plain", "gpu"), queue_name("tagged", "gpu")}


def test_schedules_are_declared() -> None:
    app = App()

    @app.orchestrator(version="3")
    async def job(ctx: Any, item: Item) -> None: ...

    app.schedule("every", job, cron="* * * * * *", input=Item("x"), instance_id="job")
    app.schedule("named", "elsewhere", interval=timedelta(seconds=5))
    every, named = app.schedules
    assert (every.orchestrator, every.input, every.version, every.instance_id) == ("job", '{"name":"x"}', "3", "job")
    assert named.orchestrator == "elsewhere"
    for arguments in (("every", job), ("new", heavy), ("new",)):
        with pytest.raises(RegistrationError):
            app.schedule(*arguments, cron="* * * * *")  # type: ignore[arg-type]


def test_a_name_that_the_app_does_not_have_is_not_the_instances_failure() -> None:
    run = Run(App().author, DOTNET)
    started = ev.ExecutionStarted(timestamp=1, instance_id="i", execution_id="x", name="nobody")
    with pytest.raises(OrchestratorNotFound, match="nobody"):
        run.step([ev.OrchestratorStarted(timestamp=1), started])
    assert run.completion is None

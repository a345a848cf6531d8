"""Errors to failure details and back."""

from typing import Any

import pytest

from holdtrue.authoring.app import App
from holdtrue.authoring.errors import RegistrationError
from holdtrue.authoring.failures import MAX_MESSAGE, NonRetriableError
from holdtrue.core import events as ev
from holdtrue.core.events import FailureDetails
from holdtrue.core.tasks import TaskFailedError


class OutOfStock(Exception):
    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"{item}: {left} left")
        self.item = item
        self.left = left


class Sold(OutOfStock):
    pass


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_type_message_and_trace() -> None:
    details = App().failure(raised(OutOfStock("tea", 3)))
    assert details.error_type == f"{__name__}.OutOfStock"
    assert details.message == "tea: 3 left"
    assert "in raised" in (details.stack_trace or "") and __file__ in (details.stack_trace or "")
    assert App().failure(ValueError("x")).error_type == "builtins.ValueError"
    assert App().failure(ValueError("x")).stack_trace is None


def test_causes_are_kept_in_order() -> None:
    try:
        try:
            raise KeyError("deep")
        except KeyError as error:
            raise ValueError("middle") from error
    except ValueError:
        try:
            raise OSError("top")
        except OSError as top:
            details = App().failure(top)
    assert [details.error_type, details.inner_failure.error_type, details.inner_failure.inner_failure.error_type] == [  # type: ignore[union-attr]
        "builtins.OSError",
        "builtins.ValueError",
        "builtins.KeyError",
    ]
    try:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise ValueError("alone") from None
    except ValueError as alone:
        assert App().failure(alone).inner_failure is None


def test_a_group_shows_its_first_error() -> None:
    details = App().failure(ExceptionGroup("several", [ValueError("a"), KeyError("b")]))
    assert details.inner_failure is not None and details.inner_failure.error_type == "builtins.ValueError"


def test_circles_and_long_chains_end() -> None:
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    assert App().failure(one).inner_failure.inner_failure is None  # type: ignore[union-attr]
    last = ValueError("0")
    for n in range(100):
        error = ValueError(str(n))
        error.__cause__ = last
        last = error
    details, depth = App().failure(last), 0
    while details is not None:
        details, depth = details.inner_failure, depth + 1  # type: ignore[assignment]
    assert depth == 10


def test_messages_are_cut_and_survive_whatever_str_does() -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "RuntimeError" in App().failure(Rude()).message
    long = App().failure(ValueError("x" * 1_000_000)).message
    assert len(long) < MAX_MESSAGE + 100 and "cut" in long
    odd = App().failure(ValueError("\ud800"))
    ev.encode_events(ev.TaskFailed(timestamp=0, task_scheduled_id=0, failure=odd))


def test_a_failed_task_that_is_passed_on_keeps_its_failure() -> None:
    app = App()
    inner = FailureDetails("root", "other.Error", inner_failure=FailureDetails("deeper", "x.Y"))
    details = app.failure(raised(app.task_failed("task 1 failed", inner)))
    assert details.error_type == "holdtrue.TaskFailedError"
    assert details.inner_failure == inner


def test_a_builtin_comes_back_as_the_cause() -> None:
    app = App()
    error = app.task_failed("task failed", app.failure(raised(ZeroDivisionError("by zero"))))
    assert isinstance(error, TaskFailedError)
    assert type(error.__cause__) is ZeroDivisionError and str(error.__cause__) == "by zero"
    assert error.details.is_caused_by(ZeroDivisionError)


def test_a_registered_class_comes_back_with_its_properties_and_without_its_constructor() -> None:
    app = App()
    app.error(properties=["item", "left", "absent"])(OutOfStock)
    details = app.failure(raised(OutOfStock("tea", 3)))
    assert details.properties == {"item": "tea", "left": 3}
    back = app.task_failed("x", details).__cause__
    assert type(back) is OutOfStock and (back.item, back.left, str(back)) == ("tea", 3, "tea: 3 left")


def test_classes_that_are_not_registered_are_not_looked_for() -> None:
    app = App()
    assert app.task_failed("x", app.failure(OutOfStock("tea", 3))).__cause__ is None
    for name in ("os.system", "subprocess.Popen", "builtins.eval", "builtins.SystemExit", "builtins.object", "", "x"):
        assert app.task_failed("x", FailureDetails("message", name)).__cause__ is None


def test_causes_of_the_cause_come_back_too() -> None:
    app = App()
    app.error(Sold)
    top = OSError("top")
    top.__cause__ = Sold("tea", 0)
    back = app.task_failed("x", app.failure(top)).__cause__
    assert type(back) is OSError and type(back.__cause__) is Sold


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), KeyError("k"), StopIteration(5)])
def test_builtins_with_constructors_of_their_own(error: Exception) -> None:
    app = App()
    back = app.task_failed("x", app.failure(error)).__cause__
    assert back is None or type(back) is type(error)


def test_non_retriable() -> None:
    app = App()
    app.error(non_retriable=True)(OutOfStock)
    assert app.failure(OutOfStock("a", 1)).is_non_retriable
    assert app.failure(NonRetriableError("x")).is_non_retriable
    assert not app.failure(ValueError("x")).is_non_retriable


def test_properties_by_the_apps_provider() -> None:
    def provide(error: BaseException) -> dict[str, Any]:
        return {"when": (1, 2), "kind": type(error).__name__}

    assert App(failure_properties=provide).failure(ValueError("x")).properties == {"when": [1, 2], "kind": "ValueError"}

    def broken(error: BaseException) -> dict[str, Any]:
        raise RuntimeError("no")

    assert App(failure_properties=broken).failure(ValueError("x")).properties is None


def test_registering_what_is_no_error() -> None:
    app = App()
    with pytest.raises(RegistrationError):
        app.error(int)  # type: ignore[type-var]
    app.error(OutOfStock)
    app.error(OutOfStock)
    twin = type("OutOfStock", (Exception,), {"__module__": __name__})
    with pytest.raises(RegistrationError, match="two error classes"):
        app.error(twin)


@pytest.mark.parametrize(
    ("recorded", "asked", "answer"),
    [
        ("builtins.ValueError", ValueError, True),
        ("builtins.ValueError", Exception, True),
        ("builtins.ValueError", KeyError, False),
        (f"{__name__}.Sold", OutOfStock, True),
        (f"{__name__}.OutOfStock", Sold, False),
        ("Sold", OutOfStock, True),
        ("builtins.ValueError", "ValueError", True),
        ("builtins.ValueError", "builtins.ValueError", True),
        ("a.ValueError", "b.ValueError", False),
        ("ValueError", "b.ValueError", True),
        ("", "", False),
        ("", Exception, False),
    ],
)
def test_is_caused_by(recorded: str, asked: Any, answer: bool) -> None:
    assert FailureDetails("m", recorded).is_caused_by(asked) is answer


def test_is_caused_by_takes_errors_only() -> None:
    with pytest.raises(TypeError):
        FailureDetails("m", "x").is_caused_by(int)  # type: ignore[arg-type]

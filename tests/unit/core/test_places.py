"""Which line a message names: the user's own, innermost; a library's only where there is no other; never ours."""

import sys
import types
from collections.abc import Callable
from typing import Any

from holdtrue.core.places import calling_from, raised_at, running_at, standing_at
from holdtrue.core.tasks import Task

OWN, LIBRARY = "app/main.py", "lib/site-packages/nice/retry.py"


def module(name: str, file: str, text: str) -> Callable[..., Any]:
    """The function `f` of a module of that name, out of that file."""
    made: Any = types.ModuleType(name)
    exec(compile(text, file, "exec"), made.__dict__)
    return made.f  # type: ignore[no-any-return]


WAITS = "async def f(task):\n    return await task"
AWAITS = "async def f(inner, *args):\n\n    return await inner(*args)"
YIELDS_FROM = "def f(inner, *args):\n\n    return (yield from inner(*args))"
YIELDS = "def f(task):\n    return (yield task)"


def standing(code: Any) -> str | None:
    code.send(None)
    try:
        return standing_at(code)
    finally:
        code.close()
        assert standing_at(code) is None


def test_where_code_stands() -> None:
    own_waits, own_awaits = module("app", OWN, WAITS), module("app", OWN, AWAITS)
    nice_waits, nice_awaits = module("nice.retry", LIBRARY, WAITS), module("nice.retry", LIBRARY, AWAITS)
    standard = module("contextlib", "lib/contextlib.py", AWAITS)
    task: Task[Any] = Task()
    assert standing(own_waits(task)) == f"{OWN}:2"
    # The innermost of the user's own lines, whatever libraries lie around it.
    assert standing(own_awaits(own_waits, task)) == f"{OWN}:2"
    assert standing(own_awaits(nice_waits, task)) == f"{OWN}:3"
    assert standing(own_awaits(standard, nice_waits, task)) == f"{OWN}:3"
    assert standing(nice_awaits(own_waits, task)) == f"{OWN}:2"
    # None but a library's: its innermost.
    assert standing(nice_awaits(nice_waits, task)) == f"{LIBRARY}:2"
    assert standing(standard(nice_waits, task)) == f"{LIBRARY}:2"


def test_where_generators_stand() -> None:
    own, nice = module("app", OWN, YIELDS), module("nice.retry", LIBRARY, YIELDS)
    outer = module("app", OWN, YIELDS_FROM)
    task: Task[Any] = Task()
    assert standing(own(task)) == f"{OWN}:2"
    assert standing(outer(own, task)) == f"{OWN}:2"
    assert standing(outer(nice, task)) == f"{OWN}:3"


def test_what_does_not_run_stands_nowhere() -> None:
    assert standing_at(None) is None and standing_at(object()) is None


CALLS = "def f(inner, *args):\n\n    return inner(*args)"


def test_from_where_a_call_comes() -> None:
    def outer(inner: Callable[..., Any], *args: Any) -> Any:
        return inner(*args)

    def served() -> str | None:
        return calling_from(outer.__code__)

    own, nice = module("app", OWN, CALLS), module("nice.retry", LIBRARY, CALLS)
    ours = module("holdtrue.authoring.context", "lib/site-packages/holdtrue/context.py", CALLS)
    serve = module("holdtrue.core.replay", "lib/site-packages/holdtrue/replay.py", "def f(call):\n    return call()")
    # (This test's own function `served` stands for ours: it is called by way of ours only.)
    served = types.FunctionType(
        served.__code__, {**globals(), "__name__": "holdtrue.core.x"}, closure=served.__closure__
    )
    assert outer(own, serve, served) == f"{OWN}:3"
    assert outer(own, nice, ours, serve, served) == f"{OWN}:3"
    assert outer(nice, own, ours, serve, served) == f"{OWN}:3"
    assert outer(nice, ours, serve, served) == f"{LIBRARY}:3"
    assert outer(ours, serve, served) is None


RAISES = "def f(*args):\n\n\n    raise ValueError('boo')"
CALLS = "def f(inner, *args):\n\n    return inner(*args)"


def test_where_an_error_was_raised() -> None:
    own, nice = module("app", OWN, RAISES), module("nice.retry", LIBRARY, RAISES)

    def place(call: Callable[..., Any], *args: Any) -> str | None:
        try:
            call(*args)
        except ValueError as error:
            # The frame of this test is the user's, too: the innermost counts.
            return raised_at(error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None))
        raise AssertionError("nothing was raised")

    assert place(own) == f"{OWN}:4"
    assert place(module("app", OWN, CALLS), nice) == f"{OWN}:3"
    assert place(module("nice.retry", LIBRARY, CALLS), own) == f"{OWN}:4"
    assert place(nice) == f"{LIBRARY}:4"
    assert place(module("holdtrue.inner", "holdtrue/inner.py", RAISES)) is None
    assert raised_at(ValueError("never raised")) is None


def test_where_code_runs() -> None:
    def here() -> str | None:
        return running_at(sys._getframe(1))

    calls = module("nice.retry", LIBRARY, CALLS)
    assert module("app", OWN, CALLS)(here) == f"{OWN}:3"
    assert module("app", OWN, CALLS)(calls, here) == f"{OWN}:3"

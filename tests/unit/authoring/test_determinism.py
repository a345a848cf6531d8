"""The reading of an orchestrator's source at registration."""

import ast
import asyncio
import datetime as dt
import json
import os
import random
import secrets
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable
from datetime import date, datetime
from functools import wraps
from os import urandom
from pathlib import Path
from random import randint
from time import monotonic as ticking
from time import sleep
from typing import Any

import pytest

from holdtrue.authoring import determinism
from holdtrue.authoring.app import App
from holdtrue.authoring.errors import RegistrationError

shared = random.Random(5)


async def _time(ctx: Any) -> None:
    time.time()


async def _alias(ctx: Any) -> None:
    ticking()


async def _sleep(ctx: Any) -> None:
    sleep(1)


async def _now(ctx: Any) -> None:
    datetime.now().isoformat()


async def _utcnow(ctx: Any) -> None:
    dt.datetime.utcnow()


async def _today(ctx: Any) -> None:
    str(date.today())


async def _localtime(ctx: Any) -> None:
    time.localtime()


async def _random(ctx: Any) -> None:
    random.random()


async def _randint(ctx: Any) -> None:
    randint(1, 2)


async def _shared(ctx: Any) -> None:
    shared.choice([1])


async def _seedless(ctx: Any) -> None:
    random.Random()


async def _uuid(ctx: Any) -> None:
    print(f"{uuid.uuid4()}")


async def _urandom(ctx: Any) -> None:
    urandom(5)


async def _os_urandom(ctx: Any) -> None:
    os.urandom(5)


async def _secrets(ctx: Any) -> None:
    secrets.token_hex()


async def _async_sleep(ctx: Any) -> None:
    await asyncio.sleep(1)


async def _gather(ctx: Any) -> None:
    await asyncio.gather(ctx.a())


async def _wait_for(ctx: Any) -> None:
    await asyncio.wait_for(ctx.a(), 5)


async def _group(ctx: Any) -> None:
    async with asyncio.TaskGroup():
        pass


async def _open(ctx: Any) -> None:
    with open("x"):
        pass


async def _input(ctx: Any) -> None:
    input()


async def _url(ctx: Any) -> None:
    urllib.request.urlopen("x")


async def _thread(ctx: Any) -> None:
    threading.Thread()


async def _process(ctx: Any) -> None:
    subprocess.run(["x"])


async def _local_import(ctx: Any) -> None:
    from time import time as clock

    clock()


async def _uninstalled(ctx: Any) -> None:
    import requests as http  # type: ignore[import-untyped,unused-ignore]

    http.get("x")


async def _nested(ctx: Any) -> None:
    def inner() -> Any:
        return [time.time() for _ in range(3)]

    inner()


def _generator(ctx: Any) -> Any:
    yield ctx.create_timer(time.time())


async def _path(ctx: Any) -> None:
    Path("x").read_text()


async def _folder(ctx: Any) -> None:
    os.listdir(".")


async def _exists(ctx: Any) -> None:
    os.path.exists("x")


async def _database(ctx: Any) -> None:
    sqlite3.connect("x")


async def _name(ctx: Any) -> None:
    socket.gethostname()


async def _setting(ctx: Any) -> None:
    os.environ.get("X")


@pytest.mark.parametrize(
    ("function", "way"),
    [
        (_time, "current_utc_datetime"),
        (_alias, "current_utc_datetime"),
        (_sleep, "create_timer"),
        (_now, "current_utc_datetime"),
        (_utcnow, "current_utc_datetime"),
        (_today, "current_utc_datetime"),
        (_localtime, "current_utc_datetime"),
        (_random, "ctx.random()"),
        (_randint, "ctx.random()"),
        (_shared, "ctx.random()"),
        (_seedless, "ctx.random()"),
        (_uuid, "ctx.new_uuid()"),
        (_urandom, "ctx.random()"),
        (_os_urandom, "ctx.random()"),
        (_secrets, "ctx.random()"),
        (_async_sleep, "create_timer"),
        (_gather, "when_all"),
        (_wait_for, "timeout="),
        (_group, "when_all"),
        (_open, "activity"),
        (_input, "activity"),
        (_url, "activity"),
        (_thread, "call_activity"),
        (_process, "activity"),
        (_local_import, "current_utc_datetime"),
        (_uninstalled, "activity"),
        (_nested, "current_utc_datetime"),
        (_generator, "current_utc_datetime"),
        (_path, "activity"),
        (_folder, "activity"),
        (_exists, "activity"),
        (_database, "activity"),
        (_name, "activity"),
        (_setting, "as input"),
    ],
)
def test_a_call_that_cannot_be_replayed_is_found(function: Callable[..., Any], way: str) -> None:
    app = App()
    with pytest.raises(RegistrationError) as caught:
        app.orchestrator(function)
    text = str(caught.value)
    assert way in text and function.__name__ in text
    first = function.__code__.co_firstlineno
    lines = [int(part.split("test_determinism.py:")[1].split(":")[0]) for part in text.splitlines() if ".py:" in part]
    assert len(lines) == 1 and first < lines[0] <= first + 4
    assert function.__name__ not in app.orchestrators


def test_every_line_is_named() -> None:
    async def main(ctx: Any) -> None:
        time.time()
        uuid.uuid4()

    with pytest.raises(RegistrationError) as caught:
        App().orchestrator(main)
    first = main.__code__.co_firstlineno
    assert f":{first + 1}: time.time()" in str(caught.value)
    assert f":{first + 2}: uuid.uuid4()" in str(caught.value)


def test_what_is_deterministic_passes() -> None:
    def open(path: str) -> None: ...

    @App().orchestrator
    async def main(ctx: Any, time: Any) -> None:
        time.time()
        time.sleep(5)
        open("x")
        rng = random.Random(7)
        rng.random()
        uuid.uuid5(uuid.NAMESPACE_URL, "x")
        datetime.fromtimestamp(5)
        dt.timedelta(seconds=5)
        key = dt.datetime.now
        sorted([1], key=lambda random: random)
        ctx.random().random()
        ctx.sleep(key)
        datetime.fromisoformat("2020-01-01").isoformat()


def test_a_line_may_be_allowed() -> None:
    @App().orchestrator
    async def main(ctx: Any) -> None:
        time.time()  # holdtrue: allow
        time.time()  # measured for a log line; holdtrue: allow
        datetime.now(
            None,
        )  # holdtrue: allow


def test_the_function_under_decorators_is_read() -> None:
    def decorated(function: Any) -> Any:
        @wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    @decorated
    def main(ctx: Any) -> Any:
        time.time()

    with pytest.raises(RegistrationError, match=r"time\.time"):
        App().orchestrator(main)


def test_code_without_source_passes() -> None:
    scope: dict[str, Any] = {}
    exec("import time\nasync def main(ctx):\n    time.time()", scope)
    App().orchestrator(scope["main"])


def clock() -> float:
    return time.time()  # in a function


def through(n: int) -> float:
    return clock() if n else through(n - 1)


def audited() -> float:
    return time.time()  # holdtrue: allow


class Desk:
    def clock(self) -> float:
        return time.time()  # in a method

    @staticmethod
    def draw() -> float:
        return random.random()  # in a static method

    async def orchestrate(self, ctx: Any) -> None:
        self.clock()  # the call

    async def by_class(self, ctx: Any) -> None:
        Desk.draw()  # the call


async def _calls(ctx: Any) -> None:
    clock()  # the call


async def _calls_through(ctx: Any) -> None:
    through(3)  # the call


async def _calls_what_comes_later(ctx: Any) -> None:
    comes_later()  # the call


async def _awaits(ctx: Any) -> None:
    await naps(ctx)  # the call


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (_calls, "in a function"),
        (_calls_through, "in a function"),
        (_calls_what_comes_later, "in a function below"),
        (_awaits, "in a coroutine"),
        (Desk().orchestrate, "in a method"),
        (Desk().by_class, "in a static method"),
    ],
)
def test_what_the_programs_own_functions_call_is_found(
    function: Callable[..., Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At registration in a module's body, what is defined further down is not there yet.
    monkeypatch.delitem(globals(), "comes_later")
    with pytest.raises(RegistrationError) as caught:
        App().orchestrator(function)
    lines = Path(__file__).read_text().splitlines()

    def number(end: str, after: int = 0) -> int:
        return next(n for n, text in enumerate(lines, 1) if n > after and text.endswith(f"# {end}"))

    called = number("the call", function.__code__.co_firstlineno)
    assert f"{__file__}:{number(line)}: " in str(caught.value)
    assert f"(called at {__file__}:{called})" in str(caught.value)


def comes_later() -> float:
    return time.time()  # in a function below


async def naps(ctx: Any) -> None:
    await asyncio.sleep(1)  # in a coroutine


def test_what_is_only_handed_over_allowed_or_a_librarys_passes() -> None:
    @App().orchestrator
    async def main(ctx: Any) -> None:
        await ctx.call_activity(clock)
        audited()
        clock()  # holdtrue: allow
        json.dumps({})
        pytest.approx(1.0)
        ctx.clock()


def test_activities_may_do_all_of_it() -> None:
    app = App()
    app.activity(_time)
    app.activity(_open)


@pytest.mark.parametrize("fails", [1, 2, 100])
def test_an_error_of_the_interpreters_own_parser_stops_no_program(fails: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython 3.11 raises it by chance, where what is collected while it parses runs code."""
    parse, left = ast.parse, [fails]

    def unlucky(source: str) -> ast.Module:
        left[0] -= 1
        if left[0] >= 0:
            raise SystemError("AST constructor recursion depth mismatch (before=195, after=223)")
        return parse(source)

    monkeypatch.setattr(ast, "parse", unlucky)
    found = determinism._tree(f"number = {fails}")
    assert (found is None) == (fails == 100)

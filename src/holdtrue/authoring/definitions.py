"""What is registered with an app: orchestrators and activities, read from functions and their hints.

Reads signatures once, at registration, and refuses what could not work later.  Knows nothing of runs.
"""

import builtins
import functools
import inspect
import os
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal

import msgspec

from holdtrue.core.actions import ActivityOptions

from .conversion import Converter
from .errors import PayloadError, RegistrationError

Kind = Literal["async", "sync", "cpu"]
"""Where an activity runs: on the loop, in a thread, in a process."""
OnMismatch = Literal["hold", "fail"]
"""What becomes of an instance whose history its code no longer fits."""


class OrchestratorDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A registered orchestrator.

    `version` is what new instances get unless they are started with another.  `input_type` and
    `output_type` are the hints to convert by (None: plain JSON).  `has_default` is true where the input
    may be left out.
    """

    name: str
    function: Callable[..., Any]
    input_type: Any = None
    output_type: Any = None
    version: str | None = None
    on_mismatch: OnMismatch = "hold"
    takes_input: bool = True
    has_default: bool = False
    place: str = ""


class ActivityDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A registered activity.

    `kind` says where it runs, `tag` which workers serve it, `limit` how many of it may run at once in a
    worker; `options` are the defaults of each call (`given_options`: None where nothing was set).
    """

    name: str
    function: Callable[..., Any]
    kind: Kind = "sync"
    input_type: Any = None
    output_type: Any = None
    takes_input: bool = True
    has_default: bool = False
    tag: str | None = None
    limit: int | None = None
    options: ActivityOptions = ActivityOptions()
    place: str = ""

    @property
    def given_options(self) -> ActivityOptions | None:
        """The defaults of a call, None where none were set (so that nothing is stored)."""
        return None if self.options == _NO_OPTIONS else self.options


_NO_OPTIONS = ActivityOptions()


class Signature(msgspec.Struct, frozen=True):
    """What a function takes beside its context, and what it gives."""

    takes_input: bool
    has_default: bool
    input_type: Any
    output_type: Any


def define_orchestrator(
    function: Callable[..., Any],
    converter: Converter,
    *,
    name: str | None,
    version: str | None,
    on_mismatch: str,
) -> OrchestratorDefinition:
    """Read an orchestrator; raises RegistrationError."""
    place = place_of(function)
    name = _name_for(function, name, "orchestrator", place)
    if inspect.isasyncgenfunction(function):
        raise RegistrationError(
            f"{place}: orchestrator {name!r} is an async generator, which cannot give a result: "
            "await its tasks instead of yielding them, or drop `async`"
        )
    if on_mismatch not in ("hold", "fail"):
        raise RegistrationError(f"{place}: on_mismatch is {on_mismatch!r}: give 'hold' or 'fail'")
    if version is not None and not isinstance(version, str):
        raise RegistrationError(f"{place}: the version of orchestrator {name!r} is {version!r}: give a str")
    signature = read_signature(function, converter, f"orchestrator {name!r}", place)
    return OrchestratorDefinition(
        name=name,
        function=function,
        input_type=signature.input_type,
        output_type=signature.output_type,
        version=version,
        on_mismatch=on_mismatch,  # type: ignore[arg-type]
        takes_input=signature.takes_input,
        has_default=signature.has_default,
        place=place,
    )


def define_activity(
    function: Callable[..., Any],
    converter: Converter,
    *,
    name: str | None,
    cpu: bool,
    tag: str | None,
    limit: int | None,
    start_to_close: float | timedelta | None,
    schedule_to_start: float | timedelta | None,
    heartbeat: float | timedelta | None,
) -> ActivityDefinition:
    """Read an activity; raises RegistrationError."""
    place = place_of(function)
    name = _name_for(function, name, "activity", place)
    what = f"activity {name!r}"
    called = getattr(function, "__call__", None)  # noqa: B004  of an object that can be called
    if any(inspect.isasyncgenfunction(each) or inspect.isgeneratorfunction(each) for each in (function, called)):
        raise RegistrationError(
            f"{place}: {what} yields, but an activity gives its result once: return it "
            "(report what is done on the way with ctx.heartbeat or ctx.progress)"
        )
    asynchronous = _is_async(function)
    if cpu:
        _check_importable(function, asynchronous, what, place)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise RegistrationError(f"{place}: the limit of {what} is {limit!r}: give an int of 1 or more")
    try:
        options = activity_options(start_to_close, schedule_to_start, heartbeat, tag)
    except (TypeError, ValueError) as error:
        raise RegistrationError(f"{place}: {what}: {error}") from None
    signature = read_signature(function, converter, what, place)
    return ActivityDefinition(
        name=name,
        function=function,
        kind="cpu" if cpu else "async" if asynchronous else "sync",
        input_type=signature.input_type,
        output_type=signature.output_type,
        takes_input=signature.takes_input,
        has_default=signature.has_default,
        tag=tag,
        limit=limit,
        options=options or _NO_OPTIONS,
        place=place,
    )


def activity_options(
    start_to_close: float | timedelta | None,
    schedule_to_start: float | timedelta | None,
    heartbeat: float | timedelta | None,
    tag: str | None,
    defaults: ActivityOptions | None = None,
) -> ActivityOptions | None:
    """The options of a call over the activity's defaults; raises ValueError, or TypeError, for bad ones."""
    if start_to_close is None and schedule_to_start is None and heartbeat is None and tag is None:
        return defaults
    if tag is not None:
        check_tag(tag)
    base = defaults or _NO_OPTIONS
    return ActivityOptions(
        start_to_close=seconds(start_to_close, "start_to_close") or base.start_to_close,
        schedule_to_start=seconds(schedule_to_start, "schedule_to_start") or base.schedule_to_start,
        heartbeat=seconds(heartbeat, "heartbeat") or base.heartbeat,
        tag=tag or base.tag,
    )


def check_tag(tag: str) -> None:
    """Raise ValueError for what cannot be a tag."""
    if not isinstance(tag, str) or not tag or not tag.isprintable():
        raise ValueError(f"the tag is {tag!r}: give a text of printable characters")


def seconds(span: float | timedelta | None, what: str) -> float | None:
    """A span of time over zero, in seconds; None stays None.  Raises ValueError or TypeError."""
    if span is None:
        return None
    if isinstance(span, timedelta):
        span = span.total_seconds()
    if isinstance(span, bool) or not isinstance(span, (int, float)):
        raise TypeError(f"{what} is {span!r}: give seconds or a timedelta")
    if not 0 < span < 1e11:
        raise ValueError(f"{what} is {span!r}: give a time over zero")
    return float(span)


def place_of(function: Callable[..., Any]) -> str:
    """`file:line` of a function, or what can be said of it."""
    code = getattr(plain_function(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(function)


def plain_function(function: Any) -> Any:
    """The function under partials, decorators (that kept `__wrapped__`), methods and callable objects."""
    for _ in range(32):
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.ismethod(function):
            function = function.__func__
        elif isinstance(function, (types.FunctionType, type)):
            break
        else:
            call = getattr(type(function), "__call__", None)  # noqa: B004
            if not isinstance(call, types.FunctionType):
                break
            function = call
    return function


def _is_async(function: Any) -> bool:
    if isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _name_for(function: Any, name: str | None, what: str, place: str) -> str:
    if not callable(function):
        raise RegistrationError(f"{function!r} cannot be registered as {what}: give a function")
    if name is None:
        try:
            name = name_of(function)
        except ValueError as error:
            raise RegistrationError(f"{place}: {error}") from None
    if not isinstance(name, str) or not name or not name.isprintable():
        raise RegistrationError(f"{place}: the name of this {what} is {name!r}: give a text of printable characters")
    return name


def name_of(function: Any) -> str:
    """The name of a function, as the SDK takes it; raises ValueError for what has none."""
    name = getattr(function, "__name__", None)
    if not isinstance(name, str) or name == "<lambda>":
        raise ValueError(f"no name can be inferred for {function!r}: give one explicitly (name=...)")
    return name


def _check_importable(function: Any, asynchronous: bool, what: str, place: str) -> None:
    if asynchronous:
        raise RegistrationError(
            f"{place}: {what} is async and cpu=True: a CPU-bound activity is a plain function, run in a process"
        )
    name, module = getattr(function, "__qualname__", None), getattr(function, "__module__", None)
    if not name or not module or "<" in name or inspect.ismethod(function):
        raise RegistrationError(
            f"{place}: {what} is cpu=True, so a process of its own must be able to import it: "
            "define it as a function at the top level of a module"
        )
    main = sys.modules.get("__main__")
    in_file = getattr(main, "__spec__", None) is not None or os.path.exists(getattr(main, "__file__", None) or "")
    if module == "__main__" and not in_file:
        raise RegistrationError(
            f"{place}: {what} is cpu=True, so a process of its own must be able to import it, and it is defined in a "
            "shell or notebook: put it into a module of its own, in a file"
        )


# -- signatures ------------------------------------------------------------------------------------------


def read_signature(function: Callable[..., Any], converter: Converter, what: str, place: str) -> Signature:
    """What a function takes and gives; raises RegistrationError that names the parameter and the cure."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return Signature(True, False, None, None)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if not positional and not rest:
        raise RegistrationError(f"{place}: {what} takes no context: its parameters are (ctx) or (ctx, input)")
    needed = [p for p in positional[2:] if p.default is p.empty]
    needed += [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if needed:
        raise RegistrationError(
            f"{place}: {what} needs {', '.join(repr(p.name) for p in needed)} besides its input: its parameters are "
            "(ctx) or (ctx, input); put several values into one (a dataclass, say)"
        )
    hints = _Hints(function)
    input_type = None
    if len(positional) > 1:
        parameter = positional[1]
        input_type = hints.of(parameter.name, parameter.annotation)
        missing = hints.missing
        if missing:
            raise RegistrationError(
                f"{place}: {what}, parameter {parameter.name!r}: the hint {parameter.annotation!r} names "
                f"{', '.join(sorted(missing))}, which cannot be found when the function is registered: import or "
                "define it at module level (not only under TYPE_CHECKING), or annotate Any"
            )
        _check_hint(converter, input_type, f"{place}: {what}, parameter {parameter.name!r}")
    output_type = _result_type(hints.of("return", inspect.signature(function).return_annotation), function)
    if hints.missing and _mentions_unknown(output_type):
        output_type = None
    _check_hint(converter, output_type, f"{place}: {what}, its result")
    return Signature(
        takes_input=len(positional) > 1 or rest,
        has_default=len(positional) > 1 and positional[1].default is not inspect.Parameter.empty,
        input_type=input_type,
        output_type=output_type,
    )


def return_type(function: Callable[..., Any], converter: Converter) -> Any:
    """The type of a function's result by its hint; None (plain JSON) where it has none that can be used."""
    try:
        return read_signature(function, converter, "a function", "").output_type
    except RegistrationError:
        return None


def _check_hint(converter: Converter, hint: Any, where: str) -> None:
    try:
        converter.check(hint)
    except PayloadError as error:
        raise RegistrationError(f"{where}: {error}") from error


def _result_type(hint: Any, function: Any) -> Any:
    """The result's type from the return hint of a coroutine, a generator or a plain function."""
    origin = typing.get_origin(hint) or hint
    if origin in (Generator, Coroutine, typing.Generator, typing.Coroutine):
        args = typing.get_args(hint)
        return _plain_hint(args[2]) if len(args) == 3 else None
    if origin in (Awaitable, typing.Awaitable):
        args = typing.get_args(hint)
        return _plain_hint(args[0]) if args else None
    if isinstance(origin, type) and issubclass(origin, Iterator):
        return None
    return None if inspect.isgeneratorfunction(plain_function(function)) else hint


def _plain_hint(hint: Any) -> Any:
    """A hint to convert by: None for those that say nothing."""
    if hint is inspect.Parameter.empty or hint is Any or hint is type(None) or hint is object:
        return None
    return None if isinstance(hint, typing.TypeVar) else hint


class _Hints:
    """Resolves annotations one by one, so that one that cannot be resolved spoils no other.

    `missing` names what the last one mentioned and was not found.
    """

    def __init__(self, function: Any) -> None:
        plain = plain_function(function)
        self._globals: dict[str, Any] = getattr(plain, "__globals__", {})
        self._names = _Names(self._globals, _closure(plain))
        self.missing: set[str] = set()

    def of(self, name: str, annotation: Any) -> Any:
        self._names.missing = self.missing = set()
        if annotation is inspect.Parameter.empty or annotation is None:
            return None
        try:
            hints = typing.get_type_hints(
                _Annotated({name: annotation}), self._globals, self._names, include_extras=True
            )
        except Exception as error:  # noqa: BLE001  an annotation may hold any expression
            self.missing.add(f"{annotation!r} ({error})")
            return None
        return _plain_hint(hints[name])


class _Annotated:
    """An object with nothing but annotations."""

    def __init__(self, annotations: dict[str, Any]) -> None:
        self.__annotations__ = annotations


class _UnknownType(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class _Unknown(metaclass=_UnknownType):
    """Stands for a name that is not there, so that the rest of an annotation can still be read."""

    def __class_getitem__(cls, item: Any) -> Any:
        return cls


def _mentions_unknown(hint: Any) -> bool:
    return hint is _Unknown or any(_mentions_unknown(part) for part in typing.get_args(hint))


class _Names(dict[str, Any]):
    """Local names for an annotation: those of the closure, and stand-ins for names that are nowhere."""

    def __init__(self, module: Mapping[str, Any], closure: Mapping[str, Any]) -> None:
        super().__init__(closure)
        self._module = module
        self.missing: set[str] = set()

    def __missing__(self, name: str) -> Any:
        if name in self._module or hasattr(builtins, name):
            raise KeyError(name)
        self.missing.add(name)
        return _Unknown


def _closure(function: Any) -> dict[str, Any]:
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    found: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars if code else (), cells or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return found

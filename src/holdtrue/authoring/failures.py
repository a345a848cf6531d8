"""Errors to failure details, and failure details to the errors an orchestrator catches.

Nothing is imported by name, unpickled, or built by running a class's own constructor: the original class
comes back only where the app registered it (`app.error`) or it is a builtin, and then with its recorded
message and properties.
"""

import builtins
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from holdtrue.core.errors import HoldtrueError
from holdtrue.core.events import FailureDetails, qualified_name
from holdtrue.core.tasks import TaskFailedError

from . import sdk
from .errors import RegistrationError

MAX_MESSAGE = 64 * 1024
"""Characters kept of an error's message, and of its trace."""
MAX_DEPTH = 10
"""How many errors of a chain of causes are kept."""

Properties = Callable[[BaseException], Mapping[str, Any] | None]
"""Gives what an error itself adds to its failure details (JSON values)."""

_BUILTINS: dict[str, type[BaseException]] = {
    f"builtins.{name}": value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, BaseExceptionGroup)
}


class NonRetriableError(HoldtrueError):
    """Raise it (or a subclass) from an activity or a child to say that trying again is of no use.

    No retry policy tries again after it.
    """


class RegisteredError(msgspec.Struct, frozen=True):
    """An error class of the app: the attributes that travel with it, and whether it is worth trying again."""

    cls: type[BaseException]
    properties: tuple[str, ...] = ()
    non_retriable: bool = False


class Failures:
    """The app's error classes, and the conversions in both directions."""

    def __init__(self, properties: Properties | None = None) -> None:
        self._provider = properties
        self._known: dict[str, RegisteredError] = {}
        self.known: Mapping[str, RegisteredError] = MappingProxyType(self._known)
        """The registered classes, by the name under which they are recorded."""

    def register(self, cls: type[BaseException], properties: Sequence[str], non_retriable: bool) -> None:
        """Take a class in; raises RegistrationError for what is no exception, or a name that another has."""
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise RegistrationError(f"app.error takes an exception class, not {cls!r}")
        name = qualified_name(cls)
        known = self._known.get(name)
        if known is not None and known.cls is not cls:
            raise RegistrationError(f"two error classes are named {name!r}: rename one of them")
        self._known[name] = RegisteredError(cls, tuple(properties), non_retriable)

    def include(self, other: "Failures") -> None:
        """Take in the classes of another app."""
        for known in other._known.values():
            self.register(known.cls, known.properties, known.non_retriable)

    def details(self, error: BaseException) -> FailureDetails:
        """An error as failure details; never raises, whatever the error's own methods do."""
        return self._details(error, set())

    def _details(self, error: BaseException, seen: set[int]) -> FailureDetails:
        seen.add(id(error))
        inner: FailureDetails | None
        if isinstance(error, TaskFailedError):
            inner = error.details
        else:
            cause = _cause(error)
            inner = None
            if cause is not None and id(cause) not in seen and len(seen) < MAX_DEPTH:
                inner = self._details(cause, seen)
        name = qualified_name(type(error))
        known = self._known.get(name)
        return FailureDetails(
            message=_message(error),
            error_type=name,
            stack_trace=_trace(error),
            inner_failure=inner,
            properties=self._properties(error, known),
            is_non_retriable=isinstance(error, NonRetriableError) or (known is not None and known.non_retriable),
        )

    def _properties(self, error: BaseException, known: RegisteredError | None) -> dict[str, Any] | None:
        found: dict[str, Any] = {}
        try:
            for name in known.properties if known is not None else ():
                if hasattr(error, name):
                    found[name] = getattr(error, name)
            if self._provider is not None:
                found.update(self._provider(error) or {})
            # As JSON values, so that they are the same before and after the history was written.
            return msgspec.json.decode(msgspec.json.encode(found)) if found else None
        except Exception:  # noqa: BLE001  properties are an extra: without them the failure is still told
            return None

    def task_failed(self, message: str, details: FailureDetails) -> TaskFailedError:
        """The error to raise for a failed task; its `__cause__` is the original where its class is known."""
        error = sdk.task_failed_error()(message, details)
        error.__cause__ = self.rebuild(details)
        return error

    def rebuild(self, details: FailureDetails, depth: int = 0) -> BaseException | None:
        """The recorded error as an instance of its class, with its own causes; None where it is not known."""
        if depth >= MAX_DEPTH:
            return None
        known = self._known.get(details.error_type)
        cls = known.cls if known is not None else _BUILTINS.get(details.error_type)
        if cls is None:
            return None
        try:
            error = cls.__new__(cls, details.message)
            if type(error) is not cls:
                return None
            error.args = (details.message,)
            if known is None:
                cls.__init__(error, details.message)
            elif details.properties:
                for name in known.properties:
                    if name in details.properties:
                        setattr(error, name, details.properties[name])
        except Exception:  # noqa: BLE001  a class that cannot be made so: the details tell it all the same
            return None
        if details.inner_failure is not None:
            error.__cause__ = self.rebuild(details.inner_failure, depth + 1)
        return error


def _cause(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    if error.__context__ is not None and not error.__suppress_context__:
        return error.__context__
    if isinstance(error, BaseExceptionGroup):
        first: BaseException = error.exceptions[0]
        return first
    return None


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as raised:  # noqa: BLE001  the error's own code
        text = f"(no message: {type(error).__qualname__}.__str__ raised {type(raised).__qualname__})"
    return _cut(text)


def _trace(error: BaseException) -> str | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("holdtrue.core."):
        trace = trace.tb_next
    if trace is None:
        return None
    try:
        return _cut("".join(traceback.format_tb(trace)))
    except Exception:  # noqa: BLE001  a trace that cannot be written is left out
        return None


def _cut(text: str) -> str:
    # A lone surrogate could not be written to the history.
    text = text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}… ({len(text) - MAX_MESSAGE} characters cut)"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()

"""JSON texts as .NET writes and reads them: in rows without type names, in messages with a `$type` in every object.

Type names are compared with a fixed table, whatever a text says: none is ever resolved.  Pure.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from holdtrue.core.events import MAX_TICKS, MIN_TICKS, FailureDetails, ParentInstance, Ticks
from holdtrue.stores.errors import StoreCorrupt

from .moments import from_table_text, table_text

T = TypeVar("T")


MOST_SAID = 400
"""Characters of an error's reason: it may quote what it refuses."""


class FormatError(StoreCorrupt):
    """What stands at a place of the hub is not what .NET or Holdtrue writes there, or cannot be written there.

    `place` names the row, message or blob.
    """

    def __init__(self, place: str, reason: str) -> None:
        if len(reason) > MOST_SAID:
            reason = f"{reason[: MOST_SAID // 2]} ... {reason[-MOST_SAID // 2 :]}"
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


def too_deep(place: str) -> FormatError:
    """It is nested deeper than the interpreter goes."""
    return FormatError(place, "it is nested too deep")


# -- texts ---------------------------------------------------------------------------------------------

_encode = msgspec.json.Encoder().encode
_ESCAPED = {"\u0085": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029", "\ufffe": "\\ufffe", "\uffff": "\\uffff"}
_UNUSUAL = re.compile("[" + "".join(_ESCAPED) + "]")


def dump(value: Any, place: str) -> str:
    """A value as JSON text, escaped as .NET does it; beyond that what XML, and so a queue, cannot carry.

    Raises FormatError for what no JSON text can hold (half a surrogate pair).
    """
    try:
        text = _encode(value).decode()
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise FormatError(place, f"it cannot be written as JSON ({error})") from error
    if not text.isascii() and _UNUSUAL.search(text):
        text = _UNUSUAL.sub(lambda found: _ESCAPED[found[0]], text)
    return text


def load(decode: Callable[[str], T], text: str, place: str) -> T:
    """What a decoder makes of a text; raises FormatError."""
    try:
        return decode(text)
    except RecursionError as error:
        raise too_deep(place) from error
    except ValueError as error:
        raise FormatError(place, f"it cannot be read ({error})") from error


# -- times ---------------------------------------------------------------------------------------------

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))?", re.ASCII)
_TICKS_PER_MINUTE = 600_000_000


def time_text(at: Ticks, place: str) -> str:
    """A time in a message: without zeros at the end.  Raises FormatError outside the years 1 to 9999."""
    if not MIN_TICKS <= at <= MAX_TICKS:
        raise FormatError(place, f"{at} is a time outside the years 1 to 9999")
    text = table_text(at)
    return text[:-1].rstrip("0").rstrip(".") + "Z" if text[-2] == "0" else text


def from_time_text(text: str, place: str) -> Ticks:
    """A time from a message; one without a zone is UTC.  Raises FormatError."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise FormatError(place, f"{text[:60]!r} is no time")
    whole, rest, sign, hours, minutes = found.groups()
    try:
        at = from_table_text(f"{whole}.{(rest or '')[:7]:0<7}Z")
    except ValueError as error:
        raise FormatError(place, f"{text!r} is no time ({error})") from error
    if sign is not None:
        offset = (int(hours) * 60 + int(minutes)) * _TICKS_PER_MINUTE
        at = at - offset if sign == "+" else at + offset
        if not MIN_TICKS <= at <= MAX_TICKS:
            raise FormatError(place, f"{text!r} is a time outside the years 1 to 9999")
    return at


# -- objects that stand in rows and in messages ----------------------------------------------------------

CORE = "DurableTask.Core."
DICTIONARY = (
    "System.Collections.Generic.Dictionary`2"
    "[[System.String, System.Private.CoreLib],[System.{}, System.Private.CoreLib]]"
)
STRINGS = DICTIONARY.format("String")
OBJECTS = DICTIONARY.format("Object")
TYPE = "$type"


class OrchestrationInstance(msgspec.Struct, rename="pascal", gc=False):
    """The name of an execution."""

    instance_id: str = ""
    execution_id: str | None = None


class TypedInstance(OrchestrationInstance, tag_field=TYPE, tag=CORE + "OrchestrationInstance", gc=False):
    """The same in a message."""


class Parent(msgspec.Struct, rename="pascal", gc=False):
    """A ParentInstance."""

    name: str | None
    orchestration_instance: OrchestrationInstance
    task_schedule_id: int = -1
    version: str | None = None


class TypedParent(msgspec.Struct, rename="pascal", tag_field=TYPE, tag=CORE + "ParentInstance", gc=False):
    """The same in a message."""

    name: str | None
    orchestration_instance: TypedInstance
    task_schedule_id: int = -1
    version: str | None = None


class Failure(msgspec.Struct, rename="pascal"):
    """FailureDetails."""

    error_type: str | None = None
    error_message: str | None = None
    stack_trace: str | None = None
    inner_failure: "Failure | None" = None
    is_non_retriable: bool = False
    properties: dict[str, Any] | None = None


class TypedFailure(msgspec.Struct, rename="pascal", tag_field=TYPE, tag=CORE + "FailureDetails"):
    """The same in a message."""

    error_type: str | None = None
    error_message: str | None = None
    stack_trace: str | None = None
    inner_failure: "TypedFailure | None" = None
    is_non_retriable: bool = False
    properties: dict[str, Any] | None = None


F = TypeVar("F", Failure, TypedFailure)


def failure_as(kind: type[F], failure: FailureDetails) -> F:
    """A failure as .NET holds it."""
    properties = failure.properties
    if properties is not None and kind is TypedFailure:
        properties = {TYPE: OBJECTS, **properties}
    inner = failure.inner_failure
    return kind(
        error_type=failure.error_type,
        error_message=failure.message,
        stack_trace=failure.stack_trace,
        inner_failure=None if inner is None else failure_as(kind, inner),
        is_non_retriable=failure.is_non_retriable,
        properties=properties,
    )


def failure_from(found: Failure | TypedFailure) -> FailureDetails:
    """A failure of ours from .NET's."""
    inner = found.inner_failure
    return FailureDetails(
        message=found.error_message or "",
        error_type=found.error_type or "",
        stack_trace=found.stack_trace,
        inner_failure=None if inner is None else failure_from(inner),
        properties=_without_types(found.properties),
        is_non_retriable=found.is_non_retriable,
    )


def _without_types(value: Any) -> Any:
    if type(value) is dict:
        return {key: _without_types(one) for key, one in value.items() if key != TYPE}
    if type(value) is list:
        return [_without_types(one) for one in value]
    return value


def is_bare(failure: FailureDetails) -> bool:
    """Whether a failure has no more than hubs of old hold of one: a message, and perhaps a trace."""
    return (
        not failure.error_type
        and failure.inner_failure is None
        and failure.properties is None
        and not failure.is_non_retriable
    )


def parent_from(found: Parent | TypedParent, scheduled: int | None, version: str | None) -> ParentInstance:
    """A parent of ours from .NET's; `scheduled` is what we noted of it (-1: a stranger's, its task id tells)."""
    instance = found.orchestration_instance
    return ParentInstance(
        instance_id=instance.instance_id,
        execution_id=instance.execution_id or "",
        task_id=found.task_schedule_id,
        scheduled=-1 if scheduled is None else scheduled,
        name=found.name or "",
        version=found.version or version,
    )


# -- what .NET would take for its own --------------------------------------------------------------------


def has_reserved_names(value: Any) -> bool:
    """Whether .NET would take a name in it for one of its own (`$type`, `$ref`): such values it must not get."""
    if isinstance(value, Mapping):
        return any(key.startswith("$") or has_reserved_names(one) for key, one in value.items())
    return isinstance(value, list | tuple) and any(map(has_reserved_names, value))


def failure_has_reserved_names(failure: FailureDetails | None) -> bool:
    """The same of a failure's properties, the inner ones' too."""
    while failure is not None:
        if has_reserved_names(failure.properties):
            return True
        failure = failure.inner_failure
    return False


def shown_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that .NET may get."""
    return {key: value for key, value in tags.items() if not key.startswith("$")}

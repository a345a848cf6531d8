"""What of our events .NET's format has no place for, and the form in which failures, versions and results stand there.

It lies where .NET does not look: in a column of ours beside the row's, in a member of ours at a message's end.  With
it every event of ours comes back as it was; without it what .NET wrote is read.  Pure.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.events import FailureDetails, Ticks
from holdtrue.core.projection import Status

from .dotnet_json import (
    FormatError,
    dump,
    failure_has_reserved_names,
    has_reserved_names,
    is_bare,
    load,
)

FAILED = int(Status.FAILED)


class Beyond(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """What is noted of an event.

    `scheduled` is the ordinal of ParentInstance; `blank` and `parent_blank` say that a version is the empty text, not
    none; `at`, `fire_at` and `start` are times before those that a table takes.  `tags`, `trace` and `failure` are
    whole where .NET would misread them; `apart` says that a result is no failure's text.
    """

    scheduled: int | None = None
    blank: bool = False
    parent_blank: bool = False
    at: Ticks | None = None
    fire_at: Ticks | None = None
    start: Ticks | None = None
    tags: dict[str, str] | None = None
    trace: str | None = None
    failure: FailureDetails | None = None
    apart: bool = False
    recurse: bool = False
    parent_execution: str | None = None


def beyond_of(event: ev.AnyEvent) -> dict[str, Any]:
    """What is to be noted of an event, by the names of `Beyond`; mostly nothing."""
    find = _FINDERS.get(type(event))
    return {} if find is None else find(event)


def _of_call(event: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if event.version == "":
        found["blank"] = True
    if event.tags is not None and has_reserved_names(event.tags):
        found["tags"] = event.tags
    return found


def _of_started(event: ev.ExecutionStarted) -> dict[str, Any]:
    found = _of_call(event) | _of_traced(event)
    parent = event.parent
    if parent is not None:
        if parent.scheduled != -1:
            found["scheduled"] = parent.scheduled
        if parent.version == "":
            found["parent_blank"] = True
    return found


def _of_traced(event: Any) -> dict[str, Any]:
    trace = event.parent_trace_context
    return {} if trace is None or shown_trace(trace) is not None else {"trace": trace}


def _of_failed(event: Any) -> dict[str, Any]:
    return {"failure": event.failure} if failure_has_reserved_names(event.failure) else {}


def _of_completed(event: ev.ExecutionCompleted) -> dict[str, Any]:
    found = _of_failed(event)
    if event.result is not None and (event.failure is not None or event.status == FAILED):
        found["apart"] = True
    return found


def _of_terminated(event: ev.ExecutionTerminated) -> dict[str, Any]:
    found: dict[str, Any] = {"recurse": True} if event.recurse else {}
    if event.parent_execution is not None:
        found["parent_execution"] = event.parent_execution
    return found


_FINDERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    ev.ExecutionStarted: _of_started,
    ev.ExecutionCompleted: _of_completed,
    ev.ExecutionFailed: _of_failed,
    ev.ExecutionTerminated: _of_terminated,
    ev.TaskScheduled: _of_call,
    ev.TaskFailed: _of_failed,
    ev.SubOrchestrationInstanceCreated: _of_call,
    ev.SubOrchestrationInstanceFailed: _of_failed,
    ev.EventRaised: _of_traced,
    ev.ExecutionRewound: _of_traced,
}

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def shown_trace(trace: str) -> dict[str, Any] | None:
    """A trace context as .NET may get it; None for one that is not the text of an object, as .NET writes it."""
    try:
        found = load(_decode_object, trace, "")
        return found if dump(found, "") == trace and not has_reserved_names(found) else None
    except FormatError:
        return None


def generation_of(event: ev.ExecutionStarted) -> int | None:
    """The generation as .NET writes it: a child's first execution has none."""
    return None if event.parent is not None and event.generation == 0 else event.generation


def version_from(version: str | None, blank: bool) -> str | None:
    """A version as it was: .NET writes none as the empty text."""
    return version or ("" if blank else None)


def shown_failure(failure: FailureDetails | None, beyond: dict[str, Any]) -> FailureDetails | None:
    """The failure that .NET gets whole; None for one that a reason and details are enough for."""
    if failure is None or is_bare(failure):
        return None
    return _shortened(failure) if "failure" in beyond else failure


def _shortened(failure: FailureDetails) -> FailureDetails:
    inner = failure.inner_failure
    return msgspec.structs.replace(failure, properties=None, inner_failure=None if inner is None else _shortened(inner))


def failure_of(
    whole: FailureDetails | None, reason: str | None, details: str | None, beyond: Beyond
) -> FailureDetails | None:
    """The failure that these tell of: hubs of old have a reason and details alone."""
    if beyond.failure is not None:
        return beyond.failure
    if whole is not None:
        return whole
    if reason is None and details is None:
        return None
    return FailureDetails(message=reason or "", error_type="", stack_trace=details)


def shown_end(event: ev.ExecutionCompleted, beyond: dict[str, Any]) -> tuple[str | None, FailureDetails | None]:
    """Result and FailureDetails of an end: .NET has the failure's text as result."""
    failure = event.failure
    if failure is None:
        return event.result, None
    apart = event.result is not None
    bare = is_bare(failure) and failure.stack_trace is None
    if bare and not apart and event.status == FAILED:
        return failure.message, None
    whole = _shortened(failure) if "failure" in beyond else failure
    return event.result if apart else failure.message, whole


def end_of(
    status: int, result: str | None, whole: FailureDetails | None, beyond: Beyond
) -> tuple[str | None, FailureDetails | None]:
    """Result and failure of an end."""
    failure = beyond.failure or whole
    if beyond.apart:
        return result, failure
    if failure is not None:
        return None, failure
    if status == FAILED and result is not None:
        return None, FailureDetails(message=result, error_type="")
    return result, None

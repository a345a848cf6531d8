"""Events in messages: the structs of .NET's types with their members in its order, and the way there and back.

Pure.  `$type` is compared with the names that stand here, and never means anything else.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.events import FailureDetails

from .beyond import (
    Beyond,
    end_of,
    failure_of,
    shown_end,
    shown_failure,
    shown_trace,
    version_from,
)
from .dotnet_json import (
    CORE,
    STRINGS,
    TYPE,
    FormatError,
    TypedFailure,
    TypedInstance,
    TypedParent,
    dump,
    failure_as,
    failure_from,
    from_time_text,
    parent_from,
    shown_tags,
    time_text,
)
from .rows import STATUS_NAMES, STATUSES, generation_of
from holdtrue.core.projection import Status

TRACE_TYPE = CORE + "Tracing.DistributedTraceContext"
Tags = dict[str, str | None]


def _tag(name: str) -> str:
    return f"{CORE}History.{name.removeprefix('Wire')}"

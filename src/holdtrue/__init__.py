"""Holdtrue: durable task orchestration whose status never lies.

The names below are the public API; they are loaded when first asked for, so that a command line or a tool
that needs few of them starts fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from holdtrue.authoring.activity_context import (
        ActivityCancelledError,
        ActivityContext,
        ActivityProcessCrashedError,
        ActivityTimeoutError,
    )
    from holdtrue.authoring.app import App
    from holdtrue.authoring.combining import when_all, when_any
    from holdtrue.authoring.context import OrchestrationContext
    from holdtrue.authoring.errors import NotRegistered, PayloadError, PayloadTooLarge, RegistrationError
    from holdtrue.authoring.failures import NonRetriableError
    from holdtrue.client.bulk import ManyResult
    from holdtrue.client.client import Client, StartOutcome
    from holdtrue.client.errors import (
        InstanceAlreadyExists,
        InstanceEnded,
        InstanceNotEnded,
        InstanceNotFound,
        OrchestrationFailedError,
        RewindRefused,
        StartsRefused,
        WaitTimeout,
    )
    from holdtrue.client.requests import ReusePolicy, StartSpec
    from holdtrue.client.status import InstanceStatus
    from holdtrue.client.sync import SyncClient
    from holdtrue.core.errors import HoldtrueError, InvalidInput, NonDeterminismError
    from holdtrue.core.events import FailureDetails
    from holdtrue.core.projection import Condition, Status
    from holdtrue.core.replay import NotDurableError
    from holdtrue.core.retry import RetryPolicy
    from holdtrue.core.tasks import (
        OrchestrationCancelledError,
        Task,
        TaskCancelledError,
        TaskFailedError,
    )
    from holdtrue.engine.retention import RetentionPolicy
    from holdtrue.engine.settings import HostSettings
    from holdtrue.host import Host, run
    from holdtrue.schedules.specification import ScheduleSpec

_HOMES = {
    "ActivityCancelledError": "authoring.activity_context",
    "ActivityContext": "authoring.activity_context",
    "ActivityProcessCrashedError": "authoring.activity_context",
    "ActivityTimeoutError": "authoring.activity_context",
    "App": "authoring.app",
    "OrchestrationContext": "authoring.context",
    "NotRegistered": "authoring.errors",
    "PayloadError": "authoring.errors",
    "PayloadTooLarge": "authoring.errors",
    "RegistrationError": "authoring.errors",
    "NonRetriableError": "authoring.failures",
    "when_all": "authoring.combining",
    "when_any": "authoring.combining",
    "ManyResult": "client.bulk",
    "Client": "client.client",
    "StartOutcome": "client.client",
    "OrchestrationFailedError": "client.errors",
    "StartsRefused": "client.errors",
    "WaitTimeout": "client.errors",
    "ReusePolicy": "client.requests",
    "StartSpec": "client.requests",
    "InstanceAlreadyExists": "client.errors",
    "InstanceEnded": "client.errors",
    "InstanceNotEnded": "client.errors",
    "InstanceNotFound": "client.errors",
    "RewindRefused": "client.errors",
    "InstanceStatus": "client.status",
    "SyncClient": "client.sync",
    "HoldtrueError": "core.errors",
    "InvalidInput": "core.errors",
    "NonDeterminismError": "core.errors",
    "FailureDetails": "core.events",
    "Condition": "core.projection",
    "Status": "core.projection",
    "NotDurableError": "core.replay",
    "RetryPolicy": "core.retry",
    "OrchestrationCancelledError": "core.tasks",
    "Task": "core.tasks",
    "TaskCancelledError": "core.tasks",
    "TaskFailedError": "core.tasks",
    "RetentionPolicy": "engine.retention",
    "ScheduleSpec": "schedules.specification",
    "HostSettings": "engine.settings",
    "Host": "host",
    "run": "host",
}

# Written out: type checkers read it.
__all__ = [
    "__version__",
    "ActivityCancelledError",
    "ActivityContext",
    "ActivityProcessCrashedError",
    "ActivityTimeoutError",
    "App",
    "Client",
    "Condition",
    "FailureDetails",
    "HoldtrueError",
    "Host",
    "HostSettings",
    "InstanceAlreadyExists",
    "InstanceEnded",
    "InstanceNotEnded",
    "InstanceNotFound",
    "InstanceStatus",
    "InvalidInput",
    "ManyResult",
    "NonDeterminismError",
    "NonRetriableError",
    "NotDurableError",
    "NotRegistered",
    "OrchestrationCancelledError",
    "OrchestrationContext",
    "OrchestrationFailedError",
    "PayloadError",
    "PayloadTooLarge",
    "RegistrationError",
    "RetentionPolicy",
    "RetryPolicy",
    "ReusePolicy",
    "RewindRefused",
    "ScheduleSpec",
    "StartOutcome",
    "StartSpec",
    "StartsRefused",
    "Status",
    "SyncClient",
    "Task",
    "TaskCancelledError",
    "TaskFailedError",
    "WaitTimeout",
    "run",
    "when_all",
    "when_any",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'holdtrue' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"holdtrue.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

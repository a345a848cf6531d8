"""What users test their programs with.  The names are loaded when first asked for, as those of `holdtrue` are."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .crash_errors import CannotCheck, CrashUnsafe, DoesNotEnd, NotReset
    from .crash_report import CrashReport, Finding, FindingKind
    from .crash_safety import check_crash_safety
    from .history_files import read_histories, write_histories
    from .history_format import HistoryFileError, HistoryFileTooNew
    from .hub import AsyncTestHub, TestHub
    from .hub_errors import WaitsForever, WrongLoop
    from .replay_check import ReplayReport, ReplayResult, Verdict, check_histories, check_replay

_HOMES = {
    "AsyncTestHub": "hub",
    "CannotCheck": "crash_errors",
    "CrashReport": "crash_report",
    "CrashUnsafe": "crash_errors",
    "DoesNotEnd": "crash_errors",
    "Finding": "crash_report",
    "FindingKind": "crash_report",
    "HistoryFileError": "history_format",
    "HistoryFileTooNew": "history_format",
    "NotReset": "crash_errors",
    "ReplayReport": "replay_check",
    "ReplayResult": "replay_check",
    "TestHub": "hub",
    "Verdict": "replay_check",
    "WaitsForever": "hub_errors",
    "WrongLoop": "hub_errors",
    "check_crash_safety": "crash_safety",
    "check_histories": "replay_check",
    "check_replay": "replay_check",
    "read_histories": "history_files",
    "write_histories": "history_files",
}

# Written out: type checkers read it.
__all__ = [
    "AsyncTestHub",
    "CannotCheck",
    "CrashReport",
    "CrashUnsafe",
    "DoesNotEnd",
    "Finding",
    "FindingKind",
    "HistoryFileError",
    "HistoryFileTooNew",
    "NotReset",
    "ReplayReport",
    "ReplayResult",
    "TestHub",
    "Verdict",
    "WaitsForever",
    "WrongLoop",
    "check_crash_safety",
    "check_histories",
    "check_replay",
    "read_histories",
    "write_histories",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'holdtrue.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"holdtrue.testing.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

"""Replay dialects: how the two families of executors number tasks, retry, cut timers and make names.

An execution records its dialect; a history that comes without a record is judged by its first task id.
Sources: DurableTask.Core and Durable Functions (.NET); `durabletask` 1.12 (Python).
"""

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from . import events as ev

_NAMESPACE = "9e952958-5e33-4daf-827f-2fa12937b875"
_DOTNET_NAMESPACE = uuid.UUID(_NAMESPACE)
_PYTHON_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, _NAMESPACE)


class Dialect(msgspec.Struct, frozen=True):
    """The rules of one family of executors.

    `first_task_id` is where task ids begin; `reuses_ids` says that a retry takes its task id (and its
    child's instance id) again; `longest_timer` in ticks cuts longer timers (None: never).
    """

    name: str
    first_task_id: int
    reuses_ids: bool
    longest_timer: int | None

    def child_id(self, instance_id: str, execution_id: str, task_id: int) -> str:
        """The instance id of a child that was given none."""
        if self.reuses_ids:
            return f"{instance_id}:{task_id:04x}"
        return f"{execution_id}:{task_id}"

    def new_uuid(self, instance_id: str, now: ev.Ticks, counter: int) -> str:
        """The n-th (`counter` from 0) replay-safe UUID of an execution, at orchestration time `now`."""
        moment = to_datetime(now)
        if self.reuses_ids:
            stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            return str(uuid.uuid5(_PYTHON_NAMESPACE, f"{instance_id}_{stamp}_{counter}"))
        stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{now % ev.TICKS_PER_SECOND:07d}Z"
        return str(uuid.uuid5(_DOTNET_NAMESPACE, f"{instance_id}_{stamp}_{counter}"))


DOTNET = Dialect(name="dotnet", first_task_id=0, reuses_ids=False, longest_timer=None)
PYTHON = Dialect(name="python", first_task_id=1, reuses_ids=True, longest_timer=3 * 86_400 * ev.TICKS_PER_SECOND)

DIALECTS = {dialect.name: dialect for dialect in (DOTNET, PYTHON)}


def detect(history: Iterable[ev.HistoryEvent]) -> Dialect:
    """The dialect of a history without a record: its first task id decides, 0 is .NET, any other Python.

    (A timer cancelled in its first episode uses up an id unseen, so the first need not be 1.)
    Without any task it is .NET's.
    """
    for event in history:
        if event.event_id >= 0:
            return DOTNET if event.event_id == 0 else PYTHON
    return DOTNET


_EPOCH = datetime(1970, 1, 1)


def to_datetime(ticks: ev.Ticks) -> datetime:
    """Naive UTC, as the family's Python SDK has it; the seventh digit is cut."""
    seconds, rest = divmod(ticks, ev.TICKS_PER_SECOND)
    return _EPOCH + timedelta(seconds=seconds, microseconds=rest // ev.TICKS_PER_MICROSECOND)


def to_ticks(moment: datetime) -> ev.Ticks:
    """Ticks of a datetime; a naive one is UTC."""
    offset = moment.utcoffset()
    delta = moment.replace(tzinfo=None) - _EPOCH
    if offset is not None:
        delta -= offset  # not from the datetime: at the ends of its range it could not hold the result
    return (delta.days * 86_400 + delta.seconds) * ev.TICKS_PER_SECOND + delta.microseconds * ev.TICKS_PER_MICROSECOND

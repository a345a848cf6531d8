"""Copies of a hub in memory: one JSON file, written at one moment, from which a hub is made again."""

import os

import msgspec

from holdtrue.core.events import AnyEvent, Ticks
from holdtrue.core.messages import InboundMessage
from holdtrue.stores import errors
from holdtrue.stores.decisions import AT_REST
from holdtrue.stores.protocol import StoredDeadLetter, StoredSchedule, Tick

from .hub import Activity, Counts, Delayed, Instance, MemoryHub
from .reading import FORMAT_VERSION


class _Message(msgspec.Struct, omit_defaults=True):
    key: int
    event: AnyEvent
    execution_id: str | None = None
    scheduled: int | None = None
    due: Ticks | None = None


class _Kept(msgspec.Struct):
    """An instance without its messages and work items, and these beside it."""

    instance: Instance
    messages: list[_Message]
    activities: list[Activity]


class _Copy(msgspec.Struct):
    version: int
    counts: Counts
    instances: list[_Kept]
    schedules: list[StoredSchedule]
    ticks: dict[str, list[Tick]]
    letters: list[StoredDeadLetter]


class _Version(msgspec.Struct):
    version: int


def write(hub: MemoryHub, target: str) -> None:
    """A copy of the hub in a new file; raises StoreError where that exists or cannot be written."""
    data = msgspec.json.encode(
        _Copy(
            version=FORMAT_VERSION,
            counts=hub.counts,
            instances=[_kept(instance) for instance in hub.instances.values()],
            schedules=list(hub.schedules.values()),
            ticks=hub.ticks,
            letters=list(hub.letters.values()),
        )
    )
    try:
        with open(target, "xb") as file:
            file.write(data)
    except FileExistsError as error:
        raise errors.StoreError(
            f"backup {target!r}: there is such a file already; give the name of a new one"
        ) from error
    except OSError as error:
        raise errors.StoreUnavailable(
            f"backup {target!r} cannot be written ({error.strerror}). See that its directory exists and has room"
        ) from error


def _kept(instance: Instance) -> _Kept:
    waiting = [(message, None) for message in instance.inbox.values()]
    later = [(delayed.message, delayed.due) for delayed in instance.delayed.values()]
    return _Kept(
        instance=msgspec.structs.replace(instance, inbox={}, delayed={}, activities={}),
        messages=[
            _Message(message.key, message.event, message.execution_id, message.scheduled, due)  # type: ignore[arg-type]
            for message, due in (*waiting, *later)
        ],
        activities=list(instance.activities.values()),
    )


def read(source: str, name: str = "memory:") -> MemoryHub:
    """A hub made from a copy; nobody holds anything in it.

    Raises StoreMissing where there is no such file, SchemaTooNew for a copy of a newer Holdtrue, and
    StoreCorrupt for what is no copy.
    """
    try:
        with open(source, "rb") as file:
            data = file.read()
        version = msgspec.json.decode(data, type=_Version).version
        if version > FORMAT_VERSION:
            raise errors.SchemaTooNew(
                f"backup {os.fspath(source)!r} is of version {version}, this Holdtrue reads up to {FORMAT_VERSION}: "
                "use the newer one"
            )
        copy = msgspec.json.decode(data, type=_Copy)
    except FileNotFoundError as error:
        raise errors.StoreMissing(f"backup {os.fspath(source)!r}: there is no such file") from error
    except msgspec.DecodeError as error:
        raise errors.StoreCorrupt(f"backup {os.fspath(source)!r} is no copy of a hub in memory ({error})") from error
    hub = MemoryHub(name)
    hub.counts = copy.counts
    hub.schedules = {one.schedule_id: one for one in copy.schedules}
    hub.ticks = copy.ticks
    hub.letters = {one.number: one for one in copy.letters}
    for kept in copy.instances:
        _restore(hub, kept)
    return hub


def _restore(hub: MemoryHub, kept: _Kept) -> None:
    instance = kept.instance
    hub.add(instance)
    for one in kept.messages:
        message = InboundMessage(event=one.event, key=one.key, execution_id=one.execution_id, scheduled=one.scheduled)
        if one.due is None:
            instance.inbox[one.key] = message
        else:
            hub.delay(instance, Delayed(one.due, message))
    for activity in kept.activities:
        task = activity.task
        hub.activities[activity.key] = instance.activities[task.execution_id, task.scheduled] = activity
        if activity.lock != AT_REST:
            activity.lock = 0
            hub.enqueue(activity, again=True)
    ready, instance.ready = instance.ready, False
    ending, instance.ending = instance.ending, False
    hub.set_ending(instance, ending)
    if instance.lock and instance.lock != AT_REST:
        hub.release(instance)
    elif ready:
        hub.offer(instance)

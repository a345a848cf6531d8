"""Reads the hub: records, pages, figures.  Changes nothing, and gives nothing away that it goes on to change."""

from collections.abc import Iterator, Sequence

from holdtrue.core.projection import TERMINAL
from holdtrue.stores.decisions import AT_REST, key_of_token
from holdtrue.stores.protocol import ActivityInfo, HubInfo, InstanceQuery, InstanceRecord, Page

from .hub import Instance, MemoryHub

FORMAT_VERSION = 1
"""Of copies of a hub."""


def record(instance: Instance) -> InstanceRecord:
    """The record of an instance."""
    return InstanceRecord(
        projection=instance.projection.copy(),
        started=instance.started,
        start_id=instance.start_id,
        dialect=instance.dialect,
        deadline=instance.deadline,
        condition=instance.condition,
        length=len(instance.history),
        size=instance.size,
        at_rest=instance.lock == AT_REST,
    )


def status(hub: MemoryHub, instance: Instance) -> InstanceRecord:
    """The record as a client sees it: it also says whether the instance waits for a worker."""
    found = record(instance)
    if instance.ready and not instance.lock and instance.condition is None:
        name = instance.projection.name
        found.waits_for_worker = all(name not in member.orchestrators for member in hub.members.values())
    return found


def activities(hub: MemoryHub, instance: Instance) -> list[ActivityInfo]:
    """The outstanding work items of an instance."""
    return [
        ActivityInfo(
            task_id=one.task.task_id,
            scheduled=one.task.scheduled,
            name=one.task.name,
            running=one.lock > 0,
            run=one.run,
            progress=one.progress,
            heartbeat_at=one.heartbeat,
            waits_for_worker=not one.lock and all(one.queue not in member.queues for member in hub.members.values()),
        )
        for one in instance.activities.values()
    ]


def query(hub: MemoryHub, asked: InstanceQuery) -> Page:
    """One page of instances, in the order of their creation."""
    size = max(1, asked.page_size)
    found: list[Instance] = []
    for instance in _beginning(hub, asked):
        if _fits(instance, asked):
            if len(found) == size:
                return Page(records=[status(hub, one) for one in found], token=str(found[-1].key))
            found.append(instance)
    return Page(records=[status(hub, one) for one in found], token=None)


def _beginning(hub: MemoryHub, asked: InstanceQuery) -> Iterator[Instance]:
    after = None if asked.token is None else key_of_token(asked.token)
    if asked.newest_first:
        return (one for key, one in reversed(hub.instances.items()) if after is None or key < after)
    return (one for key, one in hub.instances.items() if after is None or key > after)


def _fits(instance: Instance, asked: InstanceQuery) -> bool:
    p, tags = instance.projection, instance.started.tags or {}
    return (
        (asked.statuses is None or p.status in asked.statuses)
        and (asked.name is None or p.name == asked.name)
        and (asked.prefix is None or p.instance_id.startswith(asked.prefix))
        and (asked.created_from is None or p.created_at >= asked.created_from)
        and (asked.created_to is None or p.created_at < asked.created_to)
        and (asked.completed_to is None or (p.completed_at is not None and p.completed_at < asked.completed_to))
        and all(tags.get(tag) == value for tag, value in (asked.tags or {}).items())
    )


def children(hub: MemoryHub, instance_id: str) -> list[Instance]:
    """The direct children of an instance, the oldest first."""
    return [hub.instances[key] for key in hub.children.get(instance_id, ())]


def expired(
    hub: MemoryHub,
    name: str | None,
    completed_before: int | None,
    keep: int | None,
    limit: int,
    excluding: Sequence[str],
) -> list[str]:
    """Ended top-level instances that ended before, or beyond the newest so many; the oldest end first."""
    ended = [
        ((p.completed_at, one.key), p.instance_id)
        for one in hub.instances.values()
        if (p := one.projection).completed_at is not None
        and p.status in TERMINAL
        and p.parent is None
        and (name is None or p.name == name)
        and p.name not in excluding
    ]
    ended.sort()
    count = 0 if keep is None else max(0, len(ended) - keep)
    before = 0 if completed_before is None else sum(at < completed_before for (at, _), _ in ended)
    return [instance_id for _, instance_id in ended[: min(limit, max(count, before))]]


def info(hub: MemoryHub) -> HubInfo:
    """Figures of the hub; `size` is that of its histories."""
    counted: dict[str, int] = {}
    messages = size = 0
    for instance in hub.instances.values():
        status_name = instance.projection.status.name
        counted[status_name] = counted.get(status_name, 0) + 1
        messages += len(instance.inbox) + len(instance.delayed)
        size += instance.size
    return HubInfo(
        instances=counted,
        messages=messages,
        activities=len(hub.activities),
        dead_letters=len(hub.letters),
        hosts=[member.name for member in hub.members.values()],
        size=size,
        schema_version=FORMAT_VERSION,
    )

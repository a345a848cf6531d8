"""The same on many instances at once: starts, purges by filter, any operation by ids.

What fails for one is told and does not keep the others; progress is told as it goes.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.core.events import Ticks
from holdtrue.core.ids import short
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.protocol import CreateOutcome, CreateResult, InstanceQuery, Purged, TaskHubStore

from .errors import InstanceAlreadyExists, StartsRefused
from .requests import StartRequests, StartSpec, first_due, policy_of

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""

START_BATCH = 1_000
PURGE_BATCH = 200
AT_ONCE = 64
"""Operations of `many` under way at once; the store gathers them."""

OPERATIONS = frozenset(("raise_event", "suspend", "resume", "cancel", "terminate", "rewind", "restart", "purge"))
"""What can be done to many at once."""


@dataclass
class ManyResult:
    """How an operation on many ended: the ids done, in the order given, and the error of each other one."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)


async def start_many(
    store: TaskHubStore,
    requests: StartRequests,
    specs: Sequence[StartSpec],
    *,
    wants: Callable[[str], bool],
    created: Callable[[CreateOutcome, Ticks | None], None],
    progress: Progress | None,
) -> list[str]:
    """Create all; see `Client.start_many`."""
    policies = [policy_of(spec.reuse) for spec in specs]
    made = [requests.make(spec, policy.replaceable, take=wants) for spec, policy in zip(specs, policies, strict=True)]
    ids: list[str] = []
    started: list[str] = []
    refused: dict[str, InstanceAlreadyExists] = {}
    for begin in range(0, len(made), START_BATCH):
        batch = made[begin : begin + START_BATCH]
        outcomes = await store.create(batch)
        for request, outcome, policy in zip(batch, outcomes, policies[begin:], strict=False):
            ids.append(outcome.instance_id)
            if outcome.result is not CreateResult.REFUSED:
                started.append(outcome.instance_id)
                created(outcome, first_due(request.start))
            elif policy.otherwise == "error":
                refused[outcome.instance_id] = InstanceAlreadyExists(
                    outcome.instance_id, outcome.status or Status.RUNNING
                )
        if progress is not None:
            progress(len(ids), len(made))
    if refused:
        raise StartsRefused(started, refused)
    return ids


async def purge_where(store: TaskHubStore, query: InstanceQuery, progress: Callable[[int], None] | None) -> Purged:
    """Delete what a query finds, page by page; see `Client.purge_where`."""
    assert query.statuses is not None
    living = query.statuses - TERMINAL
    if living:
        names = ", ".join(sorted(status.name.lower() for status in living))
        raise InvalidInput(f"only ended instances can be purged, not {names} ones: terminate them first")
    total = Purged()
    query = msgspec.structs.replace(query, page_size=PURGE_BATCH, any_order=True)
    while True:
        page = await store.query(query)
        ids = [record.projection.instance_id for record in page.records]
        if ids:
            purged = await store.purge(ids, recursive=False)
            total.instances += purged.instances
            total.children += purged.children
            total.refused += purged.refused
            if progress is not None:
                progress(total.instances)
        if page.token is None:
            return total
        query = msgspec.structs.replace(query, token=page.token)


async def many(
    client: Any,
    operation: str,
    instance_ids: Sequence[str],
    progress: Progress | None,
    arguments: Mapping[str, Any],
) -> ManyResult:
    """Do one operation to each id once; see `Client.many`."""
    if operation not in OPERATIONS:
        raise InvalidInput(f"{operation!r} cannot be done to many: use one of {', '.join(sorted(OPERATIONS))}")
    call: Callable[..., Awaitable[Any]] = getattr(client, operation)
    if isinstance(instance_ids, str):
        raise InvalidInput(f"instance_ids={short(instance_ids)} is one text: give a list of ids")
    ids = list(dict.fromkeys(instance_ids))
    try:
        inspect.signature(call).bind("", **arguments)
    except TypeError as error:
        raise InvalidInput(f"{operation!r} cannot be called so: {error}") from None
    failures: dict[str, Exception] = {}
    finished = 0
    remaining = iter(ids)

    async def work() -> None:
        nonlocal finished
        for instance_id in remaining:
            try:
                await call(instance_id, **arguments)
            except (HoldtrueError, TimeoutError) as error:
                failures[instance_id] = error
            finished += 1
            if progress is not None:
                progress(finished, len(ids))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, len(ids))):
            group.create_task(work())
    return ManyResult([i for i in ids if i not in failures], {i: failures[i] for i in ids if i in failures})

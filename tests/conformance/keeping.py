"""A host that takes the activities of its own commits at once (all, unless it is asked for some), as the engine does,
and has them when it asks for work.

So the tests that ask for work items run, on a store that needs no message for those, without any.
"""

from collections.abc import Sequence
from typing import Any

from holdtrue.stores.protocol import CommitOutcome, Committing, LockedActivity, TaskHubStore, queue_name


class KeepsItsActivities:
    """`store`, as a host uses it that has room for everything it schedules."""

    def __init__(self, store: TaskHubStore) -> None:
        self._store = store
        self._queues: frozenset[str] = frozenset()
        self._mine: list[LockedActivity] = []

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._store, verb)

    async def join(self, name: str, orchestrators: Sequence[str], queues: Sequence[str]) -> int:
        self._queues = frozenset(queues)
        return await self._store.join(name, orchestrators, queues)

    async def commit(self, commits: Sequence[Committing]) -> list[CommitOutcome]:
        for committing in commits:
            if committing.take_activities:
                continue
            tasks = committing.commit.activities
            served = [self._queue(task) in self._queues for task in tasks]
            committing.take_activities = served.index(False) if False in served else len(tasks)
        outcomes = await self._store.commit(commits)
        for outcome in outcomes:
            self._mine += outcome.activities
            outcome.activities = []
        return outcomes

    async def lock_activities(self, limit: int, queues: Sequence[str] | None = None) -> list[LockedActivity]:
        fits = [item for item in self._mine if queues is None or self._queue(item.task) in queues][:limit]
        wanted = await self._store.cancelled([item.ref for item in fits])
        self._mine = [item for item in self._mine if item not in fits]
        found = [item for item in fits if item.ref not in wanted]
        return found + (await self._store.lock_activities(limit - len(found), queues) if limit > len(found) else [])

    @staticmethod
    def _queue(task: Any) -> str:
        return queue_name(task.name, None if task.options is None else task.options.tag)

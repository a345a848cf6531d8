"""Work items of activities: got from the queue where this host has slots for them, handed out by their queue's name.

A host gets no more than it has room for; what it has no code for it puts back.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import msgspec

from holdtrue.core.messages import ActivityTask, WorkRef
from holdtrue.stores.decisions import share
from holdtrue.stores.errors import StoreError
from holdtrue.stores.protocol import LockedActivity, queue_name

from .access import Access
from .formats import task_of
from .holding import key_of
from .local import Named
from .mail import MOST_A_GET, Mail
from .postbox import Postbox
from .progress import QUIET_TICKS, Report, Reports
from .service import QueueMessage, ServiceError

log = logging.getLogger("holdtrue.azure_storage")

STRANGER_SECONDS = 10
"""For how long an activity is put back that this host has no code for; the time doubles with each delivery."""
LONGEST_STRANGER_SECONDS = 600
MOST_UNWANTED = 10_000
"""Activities that were called off of which a host knows when they come."""


class WorkItem:
    """A work item in hand, and its envelope's id: `run` counts its runs, `locked` that the engine has it,
    `episode` which one scheduled it (0: not told).

    `hand` is the number of its message.  One that runs here without a message (rule 16) is `local`; unless it is
    `offered`, the engine does not get it.
    """

    __slots__ = (
        "episode",
        "hand",
        "handing_in",
        "id",
        "local",
        "locked",
        "number",
        "offered",
        "queue",
        "report",
        "run",
        "scheduled_at",
        "task",
        "token",
    )

    def __init__(self, number: int, id: str, task: ActivityTask, run: int, scheduled_at: int, episode: int) -> None:
        self.number = self.hand = number
        self.id = id
        self.task = task
        self.run = run
        self.scheduled_at = scheduled_at
        self.episode = episode
        self.queue = queue_name(task.name, None if task.options is None else task.options.tag)
        self.locked = False
        self.local = False
        self.offered = True
        self.handing_in = False
        self.token = 0
        self.report: Report | None = None
        """What was last written of it, in this run or an earlier one."""


class WorkItems:
    """The work items that this host has in hand."""

    def __init__(self, access: Access, mail: Mail, postbox: Postbox, reports: Reports) -> None:
        self._access = access
        self._mail = mail
        self._postbox = postbox
        self._reports = reports
        self._items: dict[int, WorkItem] = {}
        self._served: frozenset[str] = frozenset()
        self._unwanted: dict[tuple[str, str, int], None] = {}
        self._turn = 0
        self._tokens = 0
        self._begun_here = 0
        self._may_have = True
        """Whether the last get may have left some, or some were put since."""
        self._pulling = asyncio.Lock()
        self.wanted = 0
        """How many more the engine would take now."""

    def serve(self, queues: Sequence[str]) -> None:
        """From now on these are this host's queues."""
        self._served = frozenset(queues)

    async def pull(self, limit: int) -> int:
        """Get up to so many work items; how many came.  Raises ServiceError."""
        async with self._pulling:
            return await self._pull(min(limit, self.wanted))

    async def _pull(self, limit: int) -> int:
        if limit <= 0:
            return 0
        queue = self._access.names.work_items
        count = await self._mail.pull(queue, limit, partial(self._sort, queue))
        self.wanted = max(0, self.wanted - count)
        self._may_have = count >= min(limit, MOST_A_GET)
        return count

    def posted(self) -> None:
        """This process has put a work item."""
        self._may_have = True

    async def _sort(self, queue: str, number: int, message: QueueMessage) -> None:
        found = await self._postbox.read(queue, number, message, lambda content: (content, task_of(content)))
        if found is None:
            return
        content, task = found
        if (task.instance_id, task.execution_id, task.scheduled) in self._unwanted:
            await self._mail.delete(number)
            return
        item = WorkItem(
            number, content.id, task, message.dequeue_count + content.runs, message.inserted, content.episode
        )
        if item.queue not in self._served:
            wait = min(LONGEST_STRANGER_SECONDS, STRANGER_SECONDS << min(10, message.dequeue_count - 1))
            await self._mail.give_back(number, wait)
            return
        if item.run > 1:
            await self.read_report(item)
        self._items[number] = item

    def keep(self, named: Named, run: int) -> WorkItem:
        """An activity that runs here without a message, not offered yet."""
        number = self._mail.next_number()
        item = self._items[number] = WorkItem(number, named.id, named.task, run, named.at, named.episode)
        item.local, item.offered = True, False
        return item

    async def read_report(self, item: WorkItem) -> None:
        """What an earlier run reported, so that this one goes on from there."""
        try:
            item.report = await self._reports.read(item.task)
        except StoreError as error:
            log.warning("what an earlier run of a work item reported could not be read, it begins anew: %s", error)

    def serves(self, item: WorkItem) -> bool:
        """Whether this host has its code."""
        return item.queue in self._served

    async def lock(self, limit: int, queues: Sequence[str] | None) -> list[LockedActivity]:
        """Up to so many work items of these queues (of all that are served)."""
        asked = list(self._served) if queues is None else [queue for queue in queues if queue in self._served]
        if limit <= 0 or not asked:
            return []
        looked, self.wanted = self.wanted > 0, 0  # nobody else gets any meanwhile
        begun_here = self._begun_here
        async with self._pulling:
            locked = self._take(limit, asked)
            while len(locked) < limit and (self._may_have or not looked):
                looked = True
                try:
                    await self._pull(limit - len(locked))
                except ServiceError as error:
                    log.warning("the work-item queue could not be read, it is tried again: %s", error)
                    break
                locked += self._take(limit - len(locked), asked)
            # What was begun here meanwhile has taken slots that are no longer free.
            self.wanted = max(0, limit - len(locked) - (self._begun_here - begun_here))
        # What ran here without a message may have been let go while others were got.
        locked = [one for one in locked if one.ref.key in self._items]
        begun = await asyncio.gather(*(self.say_begun(self._items[one.ref.key]) for one in locked))
        return [one for one, told in zip(locked, begun, strict=True) if told]

    def _take(self, limit: int, queues: Sequence[str]) -> list[LockedActivity]:
        def find(queue: str, most: int) -> list[WorkItem]:
            return [item for item in self._items.values() if item.offered and not item.locked and item.queue == queue][
                :most
            ]

        self._turn += 1
        return [self._lock_one(item) for item in share(limit, sorted(queues), self._turn, find)]

    def begin_here(self, item: WorkItem) -> LockedActivity:
        """Give the engine one that runs here without a message; its slot is not for one from the queue any more."""
        self._begun_here += 1
        self.wanted = max(0, self.wanted - 1)
        return self._lock_one(item)

    def _lock_one(self, item: WorkItem) -> LockedActivity:
        self._tokens += 1
        item.locked, item.offered, item.token = True, True, self._tokens
        return LockedActivity(
            ref=WorkRef(item.number, item.token),
            instance=key_of(item.task.instance_id),
            task=item.task,
            run=item.run,
            details=None if item.report is None else item.report.details,
            scheduled_at=item.scheduled_at,
        )

    async def say_begun(self, item: WorkItem) -> bool:
        """Where it must begin in time, say that it has, or its orchestration would take it for late.

        False where that could not be written: it goes back.  What runs without a message is named by a sentinel.
        """
        options, report = item.task.options, item.report
        if item.local or options is None or options.schedule_to_start is None:
            return True
        if report is not None and report.run == item.run and report.running:
            return True
        begun = Report(item.task.execution_id, item.task.scheduled, item.run, self._access.environment.now())
        if report is not None:
            begun = msgspec.structs.replace(begun, progress=report.progress, details=report.details)
        try:
            await self._reports.write(item.task, begun)
        except StoreError as error:
            log.warning("that a work item has begun could not be written, it comes again: %s", error)
            if self._items.pop(item.number, None) is item:
                await self._mail.give_back(item.hand, STRANGER_SECONDS)
            return False
        item.report = begun
        return True

    def get(self, ref: WorkRef) -> WorkItem | None:
        """What is in hand under a reference; None where it is not (any more)."""
        item = self._items.get(ref.key)
        good = item is not None and item.locked and item.token == ref.token and not item.handing_in
        return item if good else None

    @contextmanager
    def handing_in(self, ref: WorkRef) -> Iterator[WorkItem | None]:
        """While its result is put: nobody hands in another."""
        item = self.get(ref)
        if item is None:
            yield None
            return
        item.handing_in = True
        try:
            yield item
        finally:
            item.handing_in = False

    async def report(self, ref: WorkRef, progress: str | None, details: str | None) -> bool:
        """A sign of life; false where it is not in hand (any more)."""
        item = self.get(ref)
        if item is None:
            return False
        before, now = item.report, self._access.environment.now()
        same_run = before is not None and before.run == item.run and before.running
        if before is not None and same_run and progress is None and details is None and now - before.at < QUIET_TICKS:
            return True
        report = Report(
            execution=item.task.execution_id,
            scheduled=item.task.scheduled,
            run=item.run,
            at=now,
            progress=progress if progress is not None or before is None else before.progress,
            details=details if details is not None or before is None else before.details,
        )
        await self._reports.write(item.task, report)
        item.report = report
        return self.get(ref) is not None

    async def done(self, ref: WorkRef) -> None:
        """Its result stands where it cannot be lost: the work item goes."""
        item = self.get(ref)
        if item is not None:
            await self._remove(item)

    async def _remove(self, item: WorkItem) -> None:
        del self._items[item.number]
        await self._mail.delete(item.hand)
        if item.report is not None:
            await self._reports.forget(item.task)

    async def remove(self, item: WorkItem) -> None:
        """Nobody needs it any more."""
        if item.number in self._items:
            await self._remove(item)

    def drop(self, item: WorkItem) -> None:
        """It is no more this host's."""
        self._items.pop(item.number, None)

    async def cancel(self, instance_id: str, execution_id: str, ordinals: Sequence[int]) -> None:
        """Nobody wants these any more: those in hand go, and those that come to this host later."""
        for ordinal in ordinals:
            self._unwanted[instance_id, execution_id, ordinal] = None
        while len(self._unwanted) > MOST_UNWANTED:
            del self._unwanted[next(iter(self._unwanted))]
        unwanted = [
            item
            for item in self._items.values()
            if item.task.scheduled in ordinals
            and item.task.instance_id == instance_id
            and item.task.execution_id == execution_id
        ]
        await asyncio.gather(*(self._remove(item) for item in unwanted))

    async def put_back(self, refs: Sequence[WorkRef]) -> None:
        """Give work items back, to be run by any host."""
        await self._give_back([item for ref in refs if (item := self.get(ref)) is not None and not item.local])

    async def give_back_all(self) -> None:
        """Give all back."""
        await self._give_back([item for item in self._items.values() if not item.local])

    async def _give_back(self, items: Sequence[WorkItem]) -> None:
        for item in items:
            del self._items[item.number]
        await asyncio.gather(*(self.rests(item) for item in items))
        await asyncio.gather(*(self._mail.give_back(item.hand) for item in items))

    async def rests(self, item: WorkItem) -> None:
        """Say that it does not run any more; before it is given back, or its next run's report might be overwritten."""
        if not item.locked or item.report is None:
            return
        try:
            await self._reports.write(item.task, msgspec.structs.replace(item.report, running=False))
        except StoreError as error:
            log.info("a work item is given back, its report says that it runs: %s", error)

    def forget_all(self) -> None:
        """Hold nothing any more: they come back by themselves."""
        for item in self._items.values():
            self._mail.forget(item.hand)
        self._items.clear()

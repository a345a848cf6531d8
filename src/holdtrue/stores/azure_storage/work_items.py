"""Work items of activities: got from the queue where this host has slots for them, handed out by their queue's name.

A host gets no more than it has room for; what it has no code for it puts back.
"""

import asyncio
import logging
from collections.abc import Sequence

from holdtrue.core.messages import ActivityTask, WorkRef
from holdtrue.stores.decisions import share
from holdtrue.stores.errors import StoreError
from holdtrue.stores.protocol import LockedActivity, queue_name

from .access import Access
from .dead_letters import DeadLetters
from .dotnet_json import FormatError
from .formats import Formats, task_of
from .mail import Mail
from .service import QueueMessage, ServiceError
from .taking import Keys

log = logging.getLogger("holdtrue.azure_storage")

STRANGER_SECONDS = 10
"""For how long an activity is put back that this host has no code for; the time doubles with each delivery."""
LONGEST_STRANGER_SECONDS = 600


class WorkItem:
    """A work item in hand, and its envelope's id: `run` counts its deliveries, `locked` that the engine has it."""

    __slots__ = ("id", "locked", "number", "queue", "run", "scheduled_at", "task", "token")

    def __init__(self, number: int, id: str, task: ActivityTask, run: int, scheduled_at: int) -> None:
        self.number = number
        self.id = id
        self.task = task
        self.run = run
        self.scheduled_at = scheduled_at
        self.queue = queue_name(task.name, None if task.options is None else task.options.tag)
        self.locked = False
        self.token = 0


class WorkItems:
    """The work items that this host has in hand."""

    def __init__(self, access: Access, formats: Formats, mail: Mail, letters: DeadLetters, keys: Keys) -> None:
        self._access = access
        self._formats = formats
        self._mail = mail
        self._letters = letters
        self._keys = keys
        self._items: dict[int, WorkItem] = {}
        self._served: frozenset[str] = frozenset()
        self._turn = 0
        self._tokens = 0
        self.wanted = 0
        """How many more the engine would take now."""

    def serve(self, queues: Sequence[str]) -> None:
        """From now on these are this host's queues."""
        self._served = frozenset(queues)

    async def pull(self, limit: int) -> int:
        """Get up to so many work items; how many came.  Raises ServiceError."""
        queue = self._access.names.work_items
        began = self._access.environment.monotonic()
        messages = await self._mail.take(queue, limit)
        for message in messages:
            if not self._mail.came_again(queue, message, began):
                await self._sort(queue, message, began)
        return len(messages)

    async def _sort(self, queue: str, message: QueueMessage, began: float) -> None:
        try:
            content = await self._formats.read_message(message)
            task = task_of(content)
        except FormatError as error:
            await self._letters.bury(
                self._formats.unreadable_letter(queue, message, error), message.id, message.inserted
            )
            await self._mail.delete_unheld(queue, message)
            return
        except StoreError as error:
            log.warning("a work item could not be read, it comes again: %s", error)
            return
        hand = self._mail.hold(queue, message, content, began)
        item = WorkItem(hand.number, content.id, task, message.dequeue_count, message.inserted)
        if item.queue not in self._served:
            wait = min(LONGEST_STRANGER_SECONDS, STRANGER_SECONDS << min(10, message.dequeue_count - 1))
            await self._mail.give_back(hand.number, wait)
            return
        self._items[hand.number] = item

    @property
    def has_work(self) -> bool:
        """Whether there is something for the engine."""
        return any(not item.locked for item in self._items.values())

    async def lock(self, limit: int, queues: Sequence[str] | None) -> list[LockedActivity]:
        """Up to so many work items of these queues (of all that are served)."""
        asked = list(self._served) if queues is None else [queue for queue in queues if queue in self._served]
        if limit <= 0 or not asked:
            return []
        locked = self._take(limit, asked)
        while len(locked) < limit:
            try:
                found = await self.pull(limit - len(locked))
            except ServiceError as error:
                log.warning("the work-item queue could not be read, it is tried again: %s", error)
                break
            if not found:
                break
            locked += self._take(limit - len(locked), asked)
        self.wanted = max(0, limit - len(locked))
        return locked

    def _take(self, limit: int, queues: Sequence[str]) -> list[LockedActivity]:
        def find(queue: str, most: int) -> list[WorkItem]:
            return [item for item in self._items.values() if not item.locked and item.queue == queue][:most]

        self._turn += 1
        return [self._lock(item) for item in share(limit, sorted(queues), self._turn, find)]

    def _lock(self, item: WorkItem) -> LockedActivity:
        self._tokens += 1
        item.locked, item.token = True, self._tokens
        return LockedActivity(
            ref=WorkRef(item.number, item.token),
            instance=self._keys.of(item.task.instance_id),
            task=item.task,
            run=item.run,
            scheduled_at=item.scheduled_at,
        )

    def get(self, ref: WorkRef) -> WorkItem | None:
        """What is in hand under a reference; None where it is not (any more)."""
        item = self._items.get(ref.key)
        return item if item is not None and item.locked and item.token == ref.token else None

    async def done(self, ref: WorkRef) -> None:
        """Its result stands where it cannot be lost: the work item goes."""
        if self.get(ref) is not None:
            del self._items[ref.key]
            await self._mail.delete(ref.key)

    async def cancel(self, instance_id: str, execution_id: str, ordinals: Sequence[int]) -> None:
        """Nobody wants these any more: those in hand go (one that runs is told by its engine)."""
        unwanted = [
            item
            for item in self._items.values()
            if item.task.scheduled in ordinals
            and item.task.instance_id == instance_id
            and item.task.execution_id == execution_id
        ]
        for item in unwanted:
            del self._items[item.number]
        await asyncio.gather(*(self._mail.delete(item.number) for item in unwanted))

    async def put_back(self, refs: Sequence[WorkRef]) -> None:
        """Give work items back, to be run by any host."""
        items = [item for ref in refs if (item := self.get(ref)) is not None]
        for item in items:
            del self._items[item.number]
        await asyncio.gather(*(self._mail.give_back(item.number) for item in items))

    async def give_back_all(self) -> None:
        """Give all back."""
        numbers = list(self._items)
        self._items.clear()
        await asyncio.gather(*(self._mail.give_back(number) for number in numbers))

    def forget_all(self) -> None:
        """Hold nothing any more: they come back by themselves."""
        for number in self._items:
            self._mail.forget(number)
        self._items.clear()

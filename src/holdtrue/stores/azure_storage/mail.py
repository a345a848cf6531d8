"""Queue messages in hand: taken, renewed while they are in hand, deleted or given back.

A message is in hand under a number of ours.  Renewal and deletion of one are never under way at once, and after a
renewal whose answer is lost its receipt is unknown: the message may come to another, and is no longer counted on.
Nothing is ever concluded from a 404: an old receipt gets it also while the message is there.
"""

import asyncio
import itertools
import logging
from typing import Any, Generic, TypeVar

from holdtrue.environment import Environment

from .service import QueueMessage, Queues, Refused, ServiceError, Unsure
from .settings import AzureStorageSettings

log = logging.getLogger("holdtrue.azure_storage")

T = TypeVar("T")

MOST_A_GET = 32
"""Messages of one get (the service's limit)."""


class InHand(Generic[T]):
    """A message in hand: its number of ours, its queue, what it says, and its receipt (None: not known any more)."""

    __slots__ = ("busy", "content", "delivery", "id", "number", "queue", "receipt", "renew_at")

    def __init__(self, number: int, queue: str, message: QueueMessage, content: T, renew_at: float) -> None:
        self.number = number
        self.queue = queue
        self.id = message.id
        self.receipt: str | None = message.receipt
        self.delivery = message.dequeue_count
        self.content = content
        self.renew_at = renew_at
        self.busy = asyncio.Lock()


class Mail:
    """The messages that this host has in hand, of all its queues.

    A get hides its messages for a short time, so that an answer that is lost costs no more than that (rule 1); what
    is still in hand then is renewed for longer, again and again (`settings`).
    """

    def __init__(self, queues: Queues, environment: Environment, settings: AzureStorageSettings) -> None:
        self._queues = queues
        self._environment = environment
        self._settings = settings
        self._numbers = itertools.count(1)
        self._in_hand: dict[int, InHand[Any]] = {}
        self._by_message: dict[tuple[str, str], InHand[Any]] = {}

    def __len__(self) -> int:
        return len(self._in_hand)

    def get(self, number: int) -> InHand[Any] | None:
        """What is in hand under a number."""
        return self._in_hand.get(number)

    def next_number(self) -> int:
        """A number for something that is given along with messages and stands in no queue."""
        return next(self._numbers)

    async def take(self, queue: str, limit: int) -> list[QueueMessage]:
        """Get up to so many messages; `hold` what of them is to stay in hand.  Raises ServiceError."""
        return await self._queues.take(queue, min(limit, MOST_A_GET), self._settings.take_visibility)

    def hold(self, queue: str, message: QueueMessage, content: T, taken_at: float) -> InHand[T]:
        """Keep a message in hand that was got at `taken_at` (monotonic)."""
        one = InHand(next(self._numbers), queue, message, content, taken_at + self._settings.renew_messages_after)
        self._in_hand[one.number] = one
        self._by_message[queue, message.id] = one
        return one

    def came_again(self, queue: str, message: QueueMessage, taken_at: float) -> bool:
        """Whether a message that was got is in hand already (its receipt had become unknown, say): the new receipt is
        the one that holds."""
        one = self._by_message.get((queue, message.id))
        if one is None:
            return False
        one.receipt = message.receipt
        one.renew_at = taken_at + self._settings.renew_messages_after
        return True

    def forget(self, number: int) -> None:
        """Let a message come back by itself when its time is over."""
        self._pop(number)

    def forget_all(self) -> None:
        """Let all come back by themselves."""
        self._in_hand.clear()
        self._by_message.clear()

    def _pop(self, number: int) -> InHand[Any] | None:
        one = self._in_hand.pop(number, None)
        if one is not None:
            self._by_message.pop((one.queue, one.id), None)
        return one

    async def delete(self, number: int) -> bool:
        """Delete a message; true only where the service said that it has (204): nothing else proves it."""
        one = self._pop(number)
        if one is None:
            return False
        async with one.busy:
            return one.receipt is not None and await self._remove(one.queue, one.id, one.receipt)

    async def delete_unheld(self, queue: str, message: QueueMessage) -> bool:
        """Delete a message that was not taken in hand; as above."""
        return await self._remove(queue, message.id, message.receipt)

    async def _remove(self, queue: str, id: str, receipt: str) -> bool:
        try:
            await self._queues.remove(queue, id, receipt)
        except ServiceError as error:
            log.debug("message %s of queue %s was not deleted, as far as is known: %s", id, queue, error)
            return False
        return True

    async def give_back(self, number: int, seconds: int = 0) -> None:
        """Make a message visible again after so long; where that fails it comes back by itself."""
        one = self._pop(number)
        if one is None:
            return
        async with one.busy:
            if one.receipt is None:
                return
            try:
                await self._queues.hide(one.queue, one.id, one.receipt, seconds)
            except ServiceError as error:
                log.debug("message %s of queue %s was not given back: %s", one.id, one.queue, error)

    async def renew_due(self) -> None:
        """Renew what is in hand for long enough; to be called every second or so."""
        now = self._environment.monotonic()
        due = [one for one in self._in_hand.values() if one.receipt is not None and one.renew_at <= now]
        if due:
            await asyncio.gather(*(self._renew(one) for one in due))

    async def _renew(self, one: InHand[Any]) -> None:
        async with one.busy:
            if one.number not in self._in_hand or one.receipt is None:
                return
            began = self._environment.monotonic()
            try:
                one.receipt = await self._queues.hide(one.queue, one.id, one.receipt, self._settings.renewed_visibility)
            except Unsure:
                # It may have a new receipt that nobody knows.
                one.receipt = None
            except Refused:
                one.receipt = None
            else:
                one.renew_at = began + self._settings.renewed_visibility / 3

"""Queue messages in hand: taken, renewed while they are in hand, deleted or given back.

A message is in hand under a number of ours, once the `renewals` have it, in time; what they have not is dropped
before anything of it is known here, and comes back.  Who deletes one withdraws it from them, which gives its receipt.
Nothing is ever concluded from a 404: an old receipt gets it also while the message is there.
"""

import itertools
import logging
from collections.abc import Awaitable, Callable

from holdtrue.environment import Environment

from .renewals import Renewals
from .renewing import Message
from .service import QueueMessage, Queues, ServiceError
from .settings import AzureStorageSettings

log = logging.getLogger("holdtrue.azure_storage")

MOST_A_GET = 32
"""Messages of one get (the service's limit)."""


class Mail:
    """The messages that this host has in hand, of all its queues.

    A get hides its messages for a short time, so that an answer that is lost costs no more than that (rule 1); what
    is still in hand then is renewed for longer, again and again (`settings`).
    """

    def __init__(self, queues: Queues, environment: Environment, settings: AzureStorageSettings) -> None:
        self._queues = queues
        self._environment = environment
        self._settings = settings
        self._renewals: Renewals | None = None
        self._returns: Callable[[str, float], None] = lambda queue, seconds: None
        self._numbers = itertools.count(1)
        self._in_hand: dict[int, tuple[str, str]] = {}
        self._by_message: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._in_hand)

    def renewed_by(self, renewals: Renewals | None) -> None:
        """From now on these renew what is in hand."""
        self._renewals = renewals

    def returns_to(self, returns: Callable[[str, float], None]) -> None:
        """`returns` is told of a queue whose messages come back, as nobody has them, and in how many seconds."""
        self._returns = returns

    def next_number(self) -> int:
        """A number for something that is given along with messages and stands in no queue."""
        return next(self._numbers)

    async def pull(self, queue: str, limit: int, sort: Callable[[int, QueueMessage], Awaitable[None]]) -> int:
        """Get up to so many messages, and hand each that is in hand now to `sort` under its number; how many.

        One that was in hand already (its receipt had become unknown, say) has the new receipt, and nothing else
        comes of it.  Raises ServiceError.
        """
        renewals = self._renewals
        if renewals is None:
            return 0
        await renewals.ready()
        taken_at = self._environment.monotonic()
        try:
            got = await self._queues.take(queue, min(limit, MOST_A_GET), self._settings.take_visibility)
        except ServiceError:
            self._comes_back(queue, taken_at)  # the answer may be lost that told what it has hidden
            raise
        if not got:
            return 0
        numbers = [self._by_message.get((queue, message.id)) or next(self._numbers) for message in got]
        new = {number: message for number, message in zip(numbers, got, strict=True) if number not in self._in_hand}
        try:
            held = await renewals.hold(
                [
                    Message(number, queue, message.id, message.receipt, taken_at)
                    for number, message in zip(numbers, got, strict=True)
                ]
            )
            renewals.forget([number for number in numbers if number not in new and number not in self._in_hand])
            if len(held) < len(got):
                log.info("%d messages of queue %s came too late: they come again", len(got) - len(held), queue)
            for number in new.keys() & held:
                self._in_hand[number] = queue, new[number].id
                self._by_message[queue, new[number].id] = number
            count = 0
            for number in [number for number in new if number in held]:
                await sort(number, new[number])
                del new[number]
                count += 1
            return count
        finally:
            for number in new:  # nobody has them
                self._pop(number)
            renewals.forget(list(new))
            if new:
                self._comes_back(queue, taken_at)

    def _comes_back(self, queue: str, taken_at: float) -> None:
        self._returns(queue, taken_at + self._settings.take_visibility - self._environment.monotonic())

    def has(self, number: int) -> bool:
        """Whether there is a message in hand under a number."""
        return number in self._in_hand

    async def add(self, queue: str, message: QueueMessage, put_at: float) -> int | None:
        """Have a message in hand that this host has put, hidden, at `put_at` (monotonic); its number.

        None where that was too late: it comes to whoever gets it.
        """
        renewals = self._renewals
        if renewals is None:
            return None
        number = next(self._numbers)
        if number not in await renewals.hold([Message(number, queue, message.id, message.receipt, put_at)]):
            renewals.forget([number])
            return None
        self._in_hand[number] = queue, message.id
        self._by_message[queue, message.id] = number
        return number

    def forget(self, number: int) -> None:
        """Let a message come back by itself when its time is over."""
        if self._pop(number) is not None and self._renewals is not None:
            self._renewals.forget([number])

    def forget_queue(self, queue: str) -> None:
        """Let all of a queue come back by themselves, whoever was about to do something with them."""
        for number in [number for number, (of, _) in self._in_hand.items() if of == queue]:
            self.forget(number)

    def forget_all(self) -> None:
        """Let all come back by themselves."""
        if self._renewals is not None:
            self._renewals.forget(list(self._in_hand))
        self._in_hand.clear()
        self._by_message.clear()

    def _pop(self, number: int) -> tuple[str, str] | None:
        message = self._in_hand.pop(number, None)
        if message is not None:
            self._by_message.pop(message, None)
        return message

    async def _withdraw(self, number: int) -> tuple[str, str, str] | None:
        """Have a message in hand no more: its queue, id and receipt; None where that is not known."""
        message = self._pop(number)
        if message is None or self._renewals is None:
            return None
        receipt = await self._renewals.withdraw(number)
        return None if receipt is None else (*message, receipt)

    async def delete(self, number: int) -> bool:
        """Delete a message; true only where the service said that it has (204): nothing else proves it."""
        message = await self._withdraw(number)
        if message is None:
            return False
        try:
            await self._queues.remove(*message)
        except ServiceError as error:
            log.debug("message %s of queue %s was not deleted, as far as is known: %s", *message[1::-1], error)
            return False
        return True

    async def give_back(self, number: int, seconds: int = 0) -> None:
        """Make a message visible again after so long; where that fails it comes back by itself."""
        message = await self._withdraw(number)
        if message is None:
            return
        try:
            await self._queues.hide(*message, seconds)
        except ServiceError as error:
            log.debug("message %s of queue %s was not given back: %s", *message[1::-1], error)

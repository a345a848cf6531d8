"""The queues of a model account: messages that hide for a while, and receipts that serve once."""

import re

import msgspec

from holdtrue.core.events import Ticks
from holdtrue.stores.azure_storage.service import QueueMessage, Refused

from .storage_account import Account, not_there, refuse, request, seconds_in_ticks, whole_second

WEEK = 7 * 24 * 3_600
TEXT = 64 * 1024
AT_ONCE = 32

_NAME = re.compile(r"(?=.{3,63}\Z)[a-z0-9]+(-[a-z0-9]+)*")
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class _Message(msgspec.Struct):
    id: str
    text: str
    inserted: Ticks
    visible: Ticks
    receipt: str
    number: int
    count: int = 0


class ModelQueues:
    """Queues, as the port `Queues` says.  A get whose answer is lost has hidden its messages all the same."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._queues: dict[str, dict[str, _Message]] = {}
        self._number = 0

    def look(self) -> dict[str, list[str]]:
        """The texts in each queue at this moment, hidden ones too: for who watches, not for who works."""
        return {queue: [one.text for one in messages.values()] for queue, messages in self._queues.items()}

    @request
    def create_queue(self, queue: str) -> bool:
        if not _NAME.fullmatch(queue):
            raise refuse("InvalidResourceName" if 3 <= len(queue) <= 63 else "OutOfRangeInput", queue)
        if queue in self._queues:
            return False
        self.account.check_free("Queue", queue)
        self._queues[queue] = {}
        return True

    @request
    def delete_queue(self, queue: str) -> bool:
        if self._queues.pop(queue, None) is None:
            return False
        self.account.deleted("Queue", queue)
        return True

    @request
    def put(self, queue: str, text: str, *, delay: int = 0) -> tuple[str, str]:
        if _NOT_IN_XML.search(text):
            raise refuse("InvalidXmlDocument", "the text has a character that XML does not have")
        if len(text.encode()) > TEXT:
            raise Refused(413, "RequestBodyTooLarge", "a message has at most 64 KB")
        _check_range("visibilitytimeout", delay, 0, WEEK)
        messages = self._messages(queue)
        now = self.account.now()
        self._number += 1
        message = _Message(
            id=self.account.fresh_id(),
            text=text,
            inserted=now,
            visible=now + seconds_in_ticks(delay),
            receipt=self._receipt(),
            number=self._number,
        )
        messages[message.id] = message
        return message.id, message.receipt

    @request
    def take(self, queue: str, limit: int, visibility: int) -> list[QueueMessage]:
        _check_range("visibilitytimeout", visibility, 1, WEEK)
        _check_range("numofmessages", limit, 1, AT_ONCE)
        now = self.account.now()
        there = sorted(
            (message for message in self._messages(queue).values() if message.visible <= now),
            key=lambda message: (message.visible, message.number),
        )
        random = self.account.random
        if self.account.manner.shuffles and len(there) > 1 and random.random() < 0.2:
            random.shuffle(there)
        taken = there[:limit]
        for message in taken:
            message.count += 1
            message.visible = now + seconds_in_ticks(visibility)
            message.receipt = self._receipt()
        return [
            QueueMessage(
                id=message.id,
                receipt=message.receipt,
                text=message.text,
                dequeue_count=message.count,
                inserted=whole_second(message.inserted),
                next_visible=whole_second(message.visible),
            )
            for message in taken
        ]

    @request
    def hide(self, queue: str, message: str, receipt: str, visibility: int) -> str:
        _check_range("visibilitytimeout", visibility, 0, WEEK)
        there = self._there(queue, message, receipt)
        there.visible = self.account.now() + seconds_in_ticks(visibility)
        there.receipt = self._receipt()
        return there.receipt

    @request
    def remove(self, queue: str, message: str, receipt: str) -> None:
        self._there(queue, message, receipt)
        del self._queues[queue][message]

    @request
    def approximate_count(self, queue: str) -> int:
        return len(self._messages(queue))

    def _messages(self, queue: str) -> dict[str, _Message]:
        messages = self._queues.get(queue)
        if messages is None:
            raise not_there("QueueNotFound", f"the queue {queue} does not exist")
        return messages

    def _there(self, queue: str, id: str, receipt: str) -> _Message:
        message = self._messages(queue).get(id)
        if message is not None and message.receipt == receipt:
            return message
        if message is not None and self.account.manner.tells_old_receipts:
            raise refuse("PopReceiptMismatch", "the pop receipt did not match")
        raise not_there("MessageNotFound", "the specified message does not exist")

    def _receipt(self) -> str:
        return f"{self.account.random.getrandbits(96):024x}"


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise refuse("OutOfRangeQueryParameterValue", f"{name} is {value}: it may be {least} to {most}")

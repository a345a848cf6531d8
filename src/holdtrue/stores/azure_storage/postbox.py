"""Reads the messages that a queue gave.  What nobody can read becomes a dead letter, and the others go on."""

import logging
from collections.abc import Callable
from typing import TypeVar

from holdtrue.stores.errors import StoreCorrupt, StoreError, StoreMissing

from .dead_letters import DeadLetters
from .dotnet_json import FormatError
from .envelopes import Envelope
from .formats import Formats
from .mail import Mail
from .service import QueueMessage

log = logging.getLogger("holdtrue.azure_storage")

T = TypeVar("T")

LAST_DELIVERY = 10
"""At this delivery a message whose blob is not there is a dead letter: until then it might be restored."""


class Postbox:
    """Reads messages, and buries those that nobody can read."""

    def __init__(self, formats: Formats, mail: Mail, letters: DeadLetters) -> None:
        self._formats = formats
        self._mail = mail
        self._letters = letters

    async def read(self, queue: str, number: int, message: QueueMessage, judge: Callable[[Envelope], T]) -> T | None:
        """What `judge` makes of a message that is in hand; None where it cannot be read, and is in hand no more.

        `judge` raises FormatError for one that does not belong into its queue.
        """
        try:
            try:
                return judge(await self._formats.read_message(message))
            except FormatError as error:
                await self._bury(queue, number, message, error)
                return None
            except (StoreCorrupt, StoreMissing) as error:
                if message.dequeue_count < LAST_DELIVERY:
                    raise
                await self._bury(queue, number, message, error)
                return None
        except StoreError as error:
            log.warning("a message of queue %s could not be read, it comes again: %s", queue, error)
        except Exception:  # a defect: it must not keep the others from being read
            log.exception("message %s of queue %s could not be read, it comes again", message.id, queue)
        self._mail.forget(number)
        return None

    async def _bury(self, queue: str, number: int, message: QueueMessage, error: StoreError) -> None:
        await self._letters.bury(self._formats.unreadable_letter(queue, message, error), message.id, message.inserted)
        await self._mail.delete(number)

"""Puts messages into queues, each under an id that is the same however often it is put.

A put whose answer is lost is put again: doubles are known by their receivers (rule 3).  A put is given up after a
while, so that none arrives when its id is forgotten.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from holdtrue.core.events import TICKS_PER_SECOND, ExecutionStarted, GenericEvent, HistoryEvent
from holdtrue.core.messages import ActivityTask, OutboundMessage, Start
from holdtrue.core.outgoing import deadline_message
from holdtrue.stores.errors import OutcomeUnknown

from .access import BUSY, Access
from .arrivals import WAKE, Arrived
from .formats import Formats, Parcel
from .holding import Held
from .local import Named
from .owing import Outgoing, derived_id, result_id
from .service import QueueMessage, Refused, ServiceError

log = logging.getLogger("holdtrue.azure_storage")

GIVE_UP_SECONDS = 60.0
"""A put is not tried for longer than this (rule 3)."""


class Poster:
    """Puts messages.  `posted` is told of each: the partition of its control queue, or None for a work item."""

    def __init__(self, access: Access, formats: Formats, posted: Callable[[int | None], None]) -> None:
        self._access = access
        self._formats = formats
        self._posted = posted

    # -- what an episode sends ---------------------------------------------------------------------------

    async def send(self, held: Held, outgoing: Sequence[Outgoing]) -> None:
        """Put what a held instance sends, starts before what may be for them.

        Raises StoreError where not all of it is put.
        """
        starts = [one for one in outgoing if isinstance(one.what, Start)]
        others = [one for one in outgoing if not isinstance(one.what, Start)]
        for group in (starts, others):
            if group:
                await asyncio.gather(*(self._send(held, one) for one in group))

    async def _send(self, held: Held, one: Outgoing) -> None:
        what = one.what
        parcel = Parcel(
            id=one.id,
            sender=held.instance_id,
            sender_execution=held.execution_id,
            episode=one.episode,
            context=None if held.started is None else held.started.tags,
            what=what,
        )
        if isinstance(what, ActivityTask):
            await self._put(None, parcel)
        elif isinstance(what, Start):
            await self._put(what.started.instance_id, parcel)
        else:
            await self._put(what.instance_id, parcel)

    async def work_item(self, named: Named, runs: int, context: dict[str, str] | None, hidden: int) -> QueueMessage:
        """Put an activity that was to run here into the queue, hidden for so many seconds, in the hand of who puts it;
        it was begun `runs` times."""
        task = named.task
        parcel = Parcel(
            id=named.id,
            sender=task.instance_id,
            sender_execution=task.execution_id,
            episode=named.episode,
            context=context,
            what=task,
            runs=runs,
        )
        return await self._put(None, parcel, hidden=hidden)

    async def result(self, work_item: str, task: ActivityTask, episode: int, event: HistoryEvent) -> None:
        """Put the result of the work item of this id, which an episode scheduled and which ran here, for whoever holds
        its instance."""
        message = OutboundMessage(
            instance_id=task.instance_id,
            event=event,  # type: ignore[arg-type]
            execution_id=task.execution_id,
            scheduled=task.scheduled,
        )
        parcel = Parcel(
            id=result_id(work_item),
            sender=task.instance_id,
            sender_execution=task.execution_id,
            episode=episode,
            what=message,
        )
        await self._put(task.instance_id, parcel)

    async def again(self, instance_id: str, one: Arrived) -> None:
        """Put a message that was kept beside a history into its queue again, under the id that it came with."""
        event = one.event
        what: Start | OutboundMessage
        if isinstance(event, ExecutionStarted):
            what = Start(started=event, start_id=one.start_id or event.execution_id, dialect=one.dialect)
        else:
            what = OutboundMessage(
                instance_id=instance_id, event=event, execution_id=one.execution_id, scheduled=one.scheduled
            )
        parcel = Parcel(
            id=one.id, what=what, sender=one.sender, sender_execution=one.sender_execution, episode=one.episode
        )
        await self._put(instance_id, parcel)

    async def wake(self, instance_id: str, about: str) -> None:
        """Have its owner look at an instance; `about` makes the id."""
        event = GenericEvent(timestamp=self._access.environment.now(), data=WAKE)
        id = derived_id(instance_id, "", "wake", about)
        await self._put(instance_id, Parcel(id=id, what=OutboundMessage(instance_id=instance_id, event=event)))

    # -- what comes from outside -------------------------------------------------------------------------

    def client_id(self) -> str:
        """A new id of an envelope."""
        text = f"{self._access.environment.random().getrandbits(128):032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def derived(self, instance_id: str, what: str, about: str) -> str:
        """The id of an envelope that is the same whoever sends this to the instance."""
        return derived_id(instance_id, "", what, about)

    async def client_message(self, message: OutboundMessage, id: str) -> None:
        """Put a message of a client's."""
        await self._put(message.instance_id, Parcel(id=id, what=message))

    async def start(self, start: Start, *, there: Collection[str] = ()) -> None:
        """Put a client's start message, and what the instance gets from its start on, under ids of the start's own;
        those of `there` are in the queue."""
        started = start.started
        name, execution = started.instance_id, started.execution_id
        sends: list[tuple[str, Start | OutboundMessage]] = [("start", start)]
        if start.event is not None:
            sends.append(("start event", start.event))
        if start.deadline is not None:
            sends.append(("deadline", deadline_message(name, start.deadline)))
        for kind, what in sends:
            id = derived_id(name, execution, kind, start.start_id)
            if id not in there:
                await self._put(name, Parcel(id=id, what=what))

    # -- the put -----------------------------------------------------------------------------------------

    async def _put(self, instance_id: str | None, parcel: Parcel, *, hidden: int = 0) -> QueueMessage:
        """Put into the control queue of an instance, or (None) as a work item; the message, in hand while `hidden`."""
        names, environment = self._access.names, self._access.environment
        partition = None if instance_id is None else self._access.partition_of(instance_id)
        queue = names.work_items if partition is None else names.control(partition)
        text = await self._formats.text_of(parcel)
        due = parcel.due
        delay = hidden if due is None else self._formats.delay_until(due)
        began, pause = environment.monotonic(), 0.1
        while True:
            try:
                id, receipt = await self._access.service.queues.put(queue, text, delay=delay)
                break
            except ServiceError as error:
                if isinstance(error, Refused) and error.status not in BUSY:
                    raise self._access.failure(f"queue {queue}", error) from error
                if environment.monotonic() + pause - began > GIVE_UP_SECONDS:
                    raise OutcomeUnknown(
                        f"queue {queue}: the storage account gives no clear answer to a message of instance "
                        f"{instance_id or parcel.sender!r} ({error}); it may have been taken"
                    ) from error
            await environment.sleep(pause)
            pause = min(5.0, pause * 2)
        self._posted(partition)
        now = environment.now()
        visible = now + delay * TICKS_PER_SECOND
        return QueueMessage(id=id, receipt=receipt, text=text, dequeue_count=1, inserted=now, next_visible=visible)

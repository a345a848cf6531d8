"""Takes messages from the control queues of the partitions that this host owns, and brings them to their instances.

What comes for an instance that is held is a delivery; what comes for others waits, by instance, until the engine asks
for work.  An instance is read and judged only then.
"""

import asyncio
import itertools
import logging
from functools import partial

from holdtrue.core.events import ExecutionRewound, ExecutionStarted
from holdtrue.core.messages import InboundMessage
from holdtrue.stores.errors import StoreError
from holdtrue.stores.protocol import Delivery, Lease, LockedInstance

from .access import Access
from .adopting import BACK_SECONDS, Adopter
from .afterwards import Afterwards
from .arrivals import Arrived, is_meant, is_same_child, is_wake, parents_of
from .envelopes import Envelope
from .formats import Formats, arrived_as
from .holding import Held, key_of
from .local_runs import LocalRuns
from .mail import MOST_A_GET, Mail
from .postbox import Postbox
from .service import QueueMessage, ServiceError
from .settings import AzureStorageSettings

log = logging.getLogger("holdtrue.azure_storage")

FULL_SECONDS = 0.1
"""How often it is looked whether there is room again for messages."""
AT_ONCE = 16
"""Instances read at once."""
DRAIN_LOOK_SECONDS = 0.05
"""How often it is looked whether a partition that goes to another is drained."""


class Taking:
    """The instances that this host holds, those with messages that wait, and the mail that is on its way to them."""

    def __init__(
        self,
        access: Access,
        formats: Formats,
        mail: Mail,
        adopter: Adopter,
        afterwards: Afterwards,
        postbox: Postbox,
        settings: AzureStorageSettings,
        local: LocalRuns,
    ) -> None:
        self._access = access
        self._most_a_get = min(MOST_A_GET, settings.control_queue_batch_size)
        self._most_waiting = settings.control_queue_buffer_threshold
        self._formats = formats
        self._mail = mail
        self._adopter = adopter
        self._afterwards = afterwards
        self._postbox = postbox
        self._local = local
        self._held: dict[int, Held] = {}
        self._writing: dict[int, Held] = {}
        """Held no more, while a write was under way."""
        self._waiting: dict[str, list[Arrived]] = {}
        self._deliveries: list[Delivery] = []
        self._tokens = 0
        self._adopting: set[str] = set()
        self._draining: set[int] = set()
        self._handing_out: set[int] = set()
        """Instances in hand whose lock the engine does not have yet: what comes for them goes with it."""
        self._doubles: list[tuple[Arrived, bool]] = []
        self._strange: list[tuple[str, Arrived]] = []
        self._keepers: list[tuple[Held, Arrived]] = []

    # -- what is held ----------------------------------------------------------------------------------

    def held(self, lease: Lease) -> Held | None:
        """What is held under a lease; None where it is not (any more)."""
        held = self._held.get(lease.key)
        return held if held is not None and held.lease == lease else None

    def held_of(self, instance_id: str) -> Held | None:
        """An instance that is held."""
        return self._held.get(key_of(instance_id))

    def release(self, held: Held, *, back: bool = True) -> None:
        """Hold an instance no more; with `back` its messages come again at once, else by themselves."""
        self._forget(held)
        self._deliveries = [one for one in self._deliveries if one.instance != held.lease.key]
        queued = [one for one in held.given.values() if one.kept is None]
        held.given = {}
        if not held.is_current and self._local.of(held.instance_id) is not None:
            # It may have committed activities that run here, and have not begun.
            self._waiting.setdefault(held.instance_id, [])
        if back:
            # They are in hand still: whoever asks for work next gets them, without a way through the queue.
            if queued:
                self._waiting.setdefault(held.instance_id, [])[:0] = queued
            elif held.state.woken:
                self._waiting.setdefault(held.instance_id, [])
        else:
            for one in queued:
                self._mail.forget(one.key)

    def _forget(self, held: Held) -> None:
        if self._held.get(held.lease.key) is held:
            del self._held[held.lease.key]
        if held.busy.locked():
            self._writing = {key: one for key, one in self._writing.items() if one.busy.locked()}
            self._writing[held.lease.key] = held

    def forget_partition(self, partition: int) -> list[Held]:
        """Hold nothing of a partition any more: it is another's; what was held."""
        self._draining.discard(partition)
        self._afterwards.forget(partition)
        self._adopter.forget(partition)
        gone = [held for held in self._held.values() if held.partition == partition]
        for held in gone:
            self._forget(held)
            for one in held.given.values():
                self._mail.forget(one.key)
        for instance_id in [name for name in self._waiting if self._access.partition_of(name) == partition]:
            for one in self._waiting.pop(instance_id):
                self._mail.forget(one.key)
        # Keepers as well, and what was about to be looked at.
        self._mail.forget_queue(self._access.names.control(partition))
        self._local.forget(partition)
        return gone

    def forget_all(self) -> None:
        """Hold nothing any more, and let all messages come back by themselves."""
        self._draining.clear()
        self._afterwards.forget()
        for held in list(self._held.values()):
            self._forget(held)
        self._waiting.clear()
        self._deliveries.clear()
        self._local.forget_all()
        self._mail.forget_all()

    async def drain(self, partition: int) -> None:
        """Another is to have a partition, whose queue is polled no more: bring its work to an end.

        What waits for it is given back at once, what is in work is waited for, and what was sent for it is not owed any
        more.  Nothing of it is taken in hand until it is forgotten.
        """
        self._draining.add(partition)
        while True:
            for name in [name for name in self._waiting if self._access.partition_of(name) == partition]:
                await asyncio.gather(*(self._mail.give_back(one.key) for one in self._waiting.pop(name, ())))
            if not self._works_on(partition):
                break
            await self._access.environment.sleep(DRAIN_LOOK_SECONDS)
        await self.settle_debts(partition)

    def _works_on(self, partition: int) -> bool:
        """Whether something of a partition is in work: read, or given and not committed yet."""
        read = any(self._access.partition_of(name) == partition for name in self._adopting)
        given = any(held.partition == partition and held.given for held in self._held.values())
        in_hand = (*self._held.values(), *self._writing.values())
        return read or given or any(held.partition == partition and held.busy.locked() for held in in_hand)

    async def settle_debts(self, partition: int | None = None) -> None:
        """What was sent for instances in hand (of a partition) is no more owed: their next owner sends it not again."""
        for held in [one for one in self._held.values() if partition in (None, one.partition)]:
            try:
                await self._adopter.settle_debt(held)
            except StoreError as error:
                log.info("what instance %r owes is paid once more by its next owner: %s", held.instance_id, error)
        await self._afterwards.finish(partition)

    async def give_back_all(self) -> None:
        """Hold nothing any more, and make all messages visible at once."""
        numbers = [one.key for held in self._held.values() for one in held.given.values() if one.kept is None]
        numbers += [one.key for waiting in self._waiting.values() for one in waiting]
        self._held.clear()
        self._waiting.clear()
        self._deliveries.clear()
        await asyncio.gather(*(self._mail.give_back(number) for number in numbers), self._local.give_back_all())

    # -- the queues ------------------------------------------------------------------------------------

    async def pull(self, partition: int) -> int:
        """Get what one control queue has, up to a batch; how many messages came.  Raises ServiceError."""
        queue = self._access.names.control(partition)
        while sum(map(len, self._waiting.values())) >= self._most_waiting:
            await self._access.environment.sleep(FULL_SECONDS)
        count = await self._mail.pull(queue, self._most_a_get, partial(self._sort, queue))
        await self._settle_odd()
        return count

    async def _sort(self, queue: str, number: int, message: QueueMessage) -> None:
        content = await self._postbox.read(queue, number, message, _anything)
        if content is None:
            return
        right = self._access.names.control(self._access.partition_of(content.instance_id))
        if right != queue:
            await self._redirect(queue, right, number, message, content.instance_id)
            return
        if content.due is not None and content.due > self._access.environment.now():
            await self._mail.give_back(number, self._formats.delay_until(content.due))
            return
        self._bring(content.instance_id, arrived_as(content, number, message))

    async def _redirect(self, queue: str, right: str, number: int, message: QueueMessage, instance_id: str) -> None:
        """Put a message that lies in another partition's queue into its own, as it is: only the owner of that may act
        on it.  Where this is broken off it comes twice, and is known by its id."""
        log.warning("a message of instance %r lies in queue %s: it is put into %s", instance_id, queue, right)
        try:
            await self._access.service.queues.put(right, message.text)
        except ServiceError as error:
            log.warning("a message of queue %s could not be put into %s, it comes again: %s", queue, right, error)
            self._mail.forget(number)
            return
        await self._mail.delete(number)

    def _bring(self, instance_id: str, arrived: Arrived) -> None:
        held = self._held.get(key_of(instance_id))
        if held is None:
            self._waiting.setdefault(instance_id, []).append(arrived)
            return
        if held.state.local and arrived.id == held.state.keeper:
            self._keepers.append((held, arrived))
            if is_known(held, arrived.id):
                return
        if any(one.id == arrived.id for one in held.given.values()):
            self._doubles.append((arrived, False))
            return
        if isinstance(arrived.event, ExecutionStarted) and arrived.event.parent is not None and held.state.rows:
            self._strange.append((instance_id, arrived))
            return
        if isinstance(arrived.event, ExecutionStarted | ExecutionRewound) or is_wake(arrived.event):
            # What stands there may not be what this session knows.
            self._drop_session(held, arrived)
            return
        if arrived.execution_id not in (None, held.execution_id) and held.state.rows:
            self._strange.append((instance_id, arrived))
            return
        if held.started is not None and not is_meant(arrived.event, parents_of([held.started])):
            self._doubles.append((arrived, True))
            return
        if is_known(held, arrived.id):
            self._doubles.append((arrived, True))
            return
        held.given[arrived.key] = arrived
        message = InboundMessage(
            event=arrived.event, key=arrived.key, execution_id=arrived.execution_id, scheduled=arrived.scheduled
        )
        self._deliveries.append(Delivery(held.lease.key, message))

    def _drop_session(self, held: Held, arrived: Arrived) -> None:
        self.release(held)
        self._waiting.setdefault(held.instance_id, []).append(arrived)

    async def _settle_odd(self) -> None:
        """Delete what was used up before; what is in hand twice comes again when it is known which it is."""
        strange, self._strange = self._strange, []
        keepers, self._keepers = self._keepers, []
        for held, arrived in keepers:
            if self.held(held.lease) is not held:
                if is_known(held, arrived.id):
                    self._waiting.setdefault(held.instance_id, []).append(arrived)
                continue
            try:
                await self._adopter.keeper_came(held, arrived)
            except StoreError as error:
                log.warning("instance %r: its activities could not be taken over yet: %s", held.instance_id, error)
                await self._local.give_back_keeper(held.instance_id)
        doubles, self._doubles = self._doubles, []
        left = {arrived.key for _, arrived in strange} | {arrived.key for arrived, _ in doubles}
        try:
            for instance_id, arrived in strange:
                await self._settle_strange(instance_id, arrived)
                left.discard(arrived.key)
            for arrived, used_up in doubles:
                if used_up:
                    await self._mail.delete(arrived.key)
                else:
                    await self._mail.give_back(arrived.key, BACK_SECONDS)
                left.discard(arrived.key)
        finally:
            # Where this is broken off nobody else has them: they come again by themselves.
            for key in left:
                self._mail.forget(key)

    async def _settle_strange(self, instance_id: str, arrived: Arrived) -> None:
        """A message for another execution than the held one, or a child's start: that execution is over, and the
        child's id taken, unless somebody wrote since this was read."""
        held = self._held.get(key_of(instance_id))
        if held is not None:
            try:
                async with held.busy:
                    found = await self._access.sentinel(instance_id)
                is_current = found is not None and found.etag == held.etag
                if is_current and isinstance(arrived.event, ExecutionStarted) and not _is_start_of(held, arrived):
                    await self._adopter.refuse(held, arrived)
            except StoreError as error:
                log.warning("instance %r could not be read, a message of it comes again: %s", instance_id, error)
                await self._mail.give_back(arrived.key, BACK_SECONDS)
                return
            if not isinstance(arrived.event, ExecutionStarted) and arrived.execution_id == held.execution_id:
                self._bring(instance_id, arrived)  # it has become that meanwhile
                return
            if is_current:
                await self._mail.delete(arrived.key)
                return
            self.release(held)
        self._waiting.setdefault(instance_id, []).append(arrived)

    def fetch(self) -> list[Delivery]:
        """What came for instances that are held."""
        found, self._deliveries = self._deliveries, []
        self._deliveries = [one for one in found if one.instance in self._handing_out]
        return [one for one in found if one.instance in self._held and one.instance not in self._handing_out]

    @property
    def has_work(self) -> bool:
        """Whether there is something for the engine."""
        return bool(self._waiting or self._deliveries)

    # -- the engine asks for work ------------------------------------------------------------------------

    async def lock(self, limit: int) -> list[LockedInstance]:
        """Up to so many instances whose messages have come."""
        locked: list[LockedInstance] = []
        try:
            await self._lock(limit, locked)
        finally:
            self._handing_out.difference_update(one.lease.key for one in locked)
        # A start that came meanwhile may have taken one back, to be judged anew.
        locked = [one for one in locked if self.held(one.lease) is not None]
        for one in locked:
            one.messages += [came.message for came in self._deliveries if came.instance == one.lease.key]
        gone = {one.lease.key for one in locked}
        self._deliveries = [came for came in self._deliveries if came.instance not in gone]
        return locked

    async def _lock(self, limit: int, locked: list[LockedInstance]) -> None:
        while len(locked) < limit:
            ids = self._next_ids(min(limit - len(locked), AT_ONCE))
            if not ids:
                break
            self._adopting.update(ids)
            try:
                found = await asyncio.gather(*(self._adopt(name) for name in ids))
            finally:
                self._adopting.difference_update(ids)
            locked += [one for one in found if one is not None]

    def _next_ids(self, limit: int) -> list[str]:
        """Instances to be taken in hand."""
        ready = (
            name
            for name in self._waiting
            if name not in self._adopting and not (self._draining and self._access.partition_of(name) in self._draining)
        )
        return list(itertools.islice(ready, limit))

    async def _adopt(self, instance_id: str) -> LockedInstance | None:
        arrived = self._waiting.pop(instance_id, None)
        if arrived is None:
            return None  # its partition was lost meanwhile
        key = key_of(instance_id)
        if key in self._held:
            for one in arrived:
                self._bring(instance_id, one)
            await self._settle_odd()
            return None
        self._tokens += 1
        writing = self._writing.pop(key, None)
        if writing is not None:
            async with writing.busy:
                pass  # what an earlier session of this host is about to write is to be read
        row_due = await self._afterwards.hand_over(instance_id)
        try:
            found = await self._adopter.adopt(instance_id, Lease(key, self._tokens), arrived)
        except StoreError as error:
            log.warning("instance %r could not be taken in hand, its messages come again: %s", instance_id, error)
            await asyncio.gather(*(self._mail.give_back(one.key, BACK_SECONDS) for one in arrived))
            await self._local.give_back_keeper(instance_id)
            return None
        if found is None:
            return None
        held, locked = found
        self._held[key] = held
        self._afterwards.adopted(held, row_due)
        self._handing_out.add(key)
        for one in self._waiting.pop(instance_id, ()):
            self._bring(instance_id, one)
        await self._settle_odd()
        return locked


def _anything(content: Envelope) -> Envelope:
    return content


def _is_start_of(held: Held, start: Arrived) -> bool:
    """Whether an instance in hand is what this start started."""
    same_child = is_same_child(held.started, start.event)
    return same_child or start.execution_id == held.execution_id or start.start_id == held.start_id


def is_known(held: Held, id: str) -> bool:
    """Whether an envelope of this id was used up before by the instance, or is kept beside it."""
    state = held.state
    return (
        id in held.kept_later
        or any(used.id == id for used in state.consumed)
        or any(seen.id == id for seen in state.seen)
    )

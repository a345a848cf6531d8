"""Takes an instance in hand whose messages have come: it is read (`loading`), what its last owner left is finished
(`leftovers`), and the messages are judged.

Every message is given, dropped, kept beside the history, put back or buried (`arrivals`); only what is given goes to
the engine.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from holdtrue.core.events import (
    ExecutionRewound,
    ExecutionStarted,
    ExecutionTerminated,
    GenericEvent,
)
from holdtrue.core.messages import DeadLetter, InboundMessage, OutboundMessage
from holdtrue.core.projection import TERMINAL, Projection, Status, initial, rewinding
from holdtrue.environment import Environment
from holdtrue.stores.decisions import ends, refused_answer, replaced_answer
from holdtrue.stores.errors import StoreCorrupt
from holdtrue.stores.protocol import Committing, InstanceRecord, Lease, LockedInstance

from .access import Access
from .arrivals import Arrived, Decided, Run, decide, doubles, is_meant, is_wake, parents_of
from .committing import Committer
from .damaged import end_unread, is_over, set_aside
from .dead_letters import DeadLetters
from .formats import Formats
from .holding import Held
from .keeping import kept_beside, kept_rows
from .leftovers import Leftovers
from .loading import Loader, Read
from .local import LAST_DELIVERY, judge
from .local_runs import LocalRuns, Runs
from .mail import Mail
from .owing import Outgoing, derived_id
from .planning import Part
from .posting import Poster
from .purged_starts import PurgedStarts
from .row_writing import RowWriter
from .sentinel import Sentinel, next_episode
from .terminating import Terminator
from .verdicts import names_newer_start
from .waiting import WaitingInstances

log = logging.getLogger("holdtrue.azure_storage")

BACK_SECONDS = 5
"""For how long a message is put back whose time has not come."""


class Adopter:
    """Takes instances in hand."""

    def __init__(
        self,
        access: Access,
        formats: Formats,
        mail: Mail,
        poster: Poster,
        committer: Committer,
        loader: Loader,
        leftovers: Leftovers,
        rows: RowWriter,
        letters: DeadLetters,
        waiting: WaitingInstances,
        terminator: Terminator,
        local: LocalRuns,
        purged: PurgedStarts,
        has_code: Callable[[str], bool],
        came: Callable[[], None],
    ) -> None:
        self._access = access
        self._formats = formats
        self._mail = mail
        self._poster = poster
        self._committer = committer
        self._loader = loader
        self._leftovers = leftovers
        self._rows = rows
        self._letters = letters
        self._waiting = waiting
        self._terminator = terminator
        self._local = local
        self._purged = purged
        self._has_code = has_code
        self.kept_for: set[str] = set()
        """Instances that have yet to begin, beside which this host has kept messages."""
        self._came = came

    @property
    def _environment(self) -> Environment:
        return self._access.environment

    async def adopt(
        self, instance_id: str, lease: Lease, arrived: Sequence[Arrived]
    ) -> tuple[Held, LockedInstance] | None:
        """An instance in hand, and what the engine gets of it; None where there is nothing for it to do.

        Raises StoreError where it could not be read or finished: the messages come back by themselves.
        """
        held = Held(
            instance_id, self._formats.partition_key(instance_id), self._access.partition_of(instance_id), lease
        )
        begins = any(isinstance(one.event, ExecutionStarted) for one in arrived)
        try:
            read = await self._loader.load(held, begins=begins)
        except StoreCorrupt:
            again = await self._read_or_set_aside(held, arrived)
            if again is None:
                return None
            read = again
        read = await self._leftovers.finished(held, read)
        if read.projection is None:
            arrived = await self._without_purged_children(instance_id, arrived)
        arrived = await self._take_over(held, read, arrived)
        kept = await kept_beside(self._formats, self._letters, self._mail, held, read.partition.extras)
        if not kept:
            self.kept_for.discard(instance_id)
        status = None if read.projection is None else read.projection.status
        state = held.state
        messages = await self._with_waiting_start(held, read, [*kept, *arrived])
        if held.rewound_by_dotnet:
            messages = [self._rewind(held), *messages]
        decided = decide(
            read.view,
            read.sentinel,
            status,
            messages,
            now=self._environment.now(),
            started=read.started,
            held=state.condition is not None and state.condition.kind == "held",
            kept_later=held.kept_later,
        )
        await self._settle(held, read, decided)
        await self._pass_over(held, read, decided)
        if decided.run is Run.REWIND and status is Status.FAILED:
            await self._rows.rewinds(held, read.row)
        record = self._record(held, read, decided)
        if record is None:
            await self._leftovers.clear_debt(held)
            if _may_be_turned(read):
                # By who rewinds it, and writes the sentinel next: in vain now, so that it turns the row once more.
                await self._committer.renew(held)
            await self.mend_row(held, read)
            return None
        if not self._has_code(record.projection.name) and not self._ends(decided, record):
            await self._keep_for_worker(held, read, decided)
            return None
        held.given = {one.key: one for one in decided.give}
        held.history = read.events if record.length else None
        return held, LockedInstance(lease=lease, record=record, messages=[_inbound(one) for one in decided.give])

    async def _without_purged_children(self, instance_id: str, arrived: Sequence[Arrived]) -> list[Arrived]:
        """The messages without the starts of children that have run and were purged: such a one came once more."""
        over = [one for one in arrived if await self._purged.has_begun(instance_id, one)]
        for one in over:
            log.warning("instance %r was purged, and its start came once more: it begins nothing", instance_id)
            await self._mail.delete(one.key)
        return [one for one in arrived if one not in over]

    async def _read_or_set_aside(self, held: Held, arrived: Sequence[Arrived]) -> Read | None:
        """Read an instance again that could not be read: it may have been written between two pages.

        What can never be read is held, with its reason, and its messages wait beside it for it to be mended: None.
        One that has ended, or is ended by a message, needs its history no more.  Raises StoreCorrupt where there is no
        sentinel of ours that could say so: the messages come again by themselves.
        """
        before = await self._access.sentinel(held.instance_id)
        try:
            return await self._loader.load(held)
        except StoreCorrupt as error:
            sentinel = await self._access.sentinel(held.instance_id)
            if sentinel is None or before is None or sentinel.etag != before.etag or not sentinel.is_ours:
                raise
            if sentinel.state.started is None or sentinel.state.purging:
                raise
            rewinds = any(isinstance(one.event, ExecutionRewound) for one in arrived)
            if is_over(sentinel.state) and not rewinds:
                return await self._loader.without_history(held, sentinel)
            if not await self._end_unread(held, arrived, sentinel):
                left = await set_aside(self._committer, held, arrived, sentinel, error, self._environment.now())
                await asyncio.gather(*(self._mail.give_back(key, BACK_SECONDS) for key in left))
            return None

    async def _end_unread(self, held: Held, arrived: Sequence[Arrived], sentinel: Sentinel) -> bool:
        """End an instance whose history cannot be read, if one of its messages does; whether one does."""
        known = doubles(sentinel)
        to_it = [
            one for one in arrived if one.execution_id in (None, "", sentinel.execution_id) and one.id not in known
        ]
        inbound = [_inbound(one) for one in to_it]
        if end_unread(sentinel.state, inbound, self._environment.now(), self._environment.new_id) is None:
            return False
        read = await self._loader.without_history(held, sentinel)
        if not self._committer.has_sent(held):
            await self._leftovers.pay(held, read)
        commit = end_unread(held.state, inbound, self._environment.now(), self._environment.new_id)
        assert commit is not None
        held.given = {one.key: one for one in to_it}
        log.error("instance %r is ended without its history, which cannot be read", held.instance_id)
        await self._committer.apply(held, Committing(lease=held.lease, commit=commit, keep=False))
        # What was not used up comes again, and is judged by the end.
        left = [one.key for one in arrived if one.key in held.given or one not in to_it]
        await asyncio.gather(*(self._mail.give_back(key, BACK_SECONDS) for key in left))
        return True

    def forget(self, partition: int) -> None:
        """A partition is another's: what is kept there is told by its owner."""
        self.kept_for = {name for name in self.kept_for if self._access.partition_of(name) != partition}

    async def settle_debt(self, held: Held) -> None:
        """What a held instance owes is paid, and goes from its sentinel: nobody pays it once more."""
        async with held.busy:
            await self._committer.clear_debt(held)

    # -- what runs on the host that scheduled it (rule 16) -----------------------------------------------

    async def _take_over(self, held: Held, read: Read, arrived: Sequence[Arrived]) -> Sequence[Arrived]:
        """Take over what `local` names, if its keeper is here; the messages without a keeper that was used up."""
        state, sentinel = held.state, read.sentinel
        if sentinel is None or not state.local:
            await self._local.follow(held)  # it may have been purged, or written by somebody else
            return arrived
        keeper = next((one for one in arrived if one.id == state.keeper and one.kept is None), None)
        if keeper is not None and self._local.keep(held, keeper) and keeper.id in doubles(sentinel):
            arrived = [one for one in arrived if one is not keeper]
        rows = [(row.ordinal, row.event, row.more) for row in read.history]
        judged = judge(state.local, read.projection, held.dialect, rows)
        held.gone = [*judged.answered, *judged.overwritten]
        for execution, ordinal in judged.overwritten:
            await self._bury_overwritten(held, execution, ordinal)
        runs = self._local.found(held, judged.outstanding)
        # .NET may have deleted the keeper as a message come twice.
        await self._offer(held, runs, at_once=not sentinel.is_ours)
        return arrived

    async def _offer(self, held: Held, runs: Runs, *, at_once: bool = False) -> None:
        """Run what does not run yet, now that its keeper is here; or put it into the queue."""
        keeper = runs.keeper
        if keeper is None and not at_once:
            return
        waiting = [item for item in runs.items.values() if item.local and not item.locked]
        through_queue = at_once or not self._local.may_run(runs.partition)
        if keeper is not None and keeper.delivery >= LAST_DELIVERY:
            through_queue = True
        going = waiting if through_queue else [item for item in waiting if not self._local.serves(item)]
        if going:
            await self._committer.into_queue(runs, held, going, run_on=True)
        if runs.keeper is not None and await self._local.offer(runs):
            self._came()

    async def keeper_came(self, held: Held, keeper: Arrived) -> None:
        """The keeper of an instance in hand is delivered.  Raises StoreError where its work could not be taken over."""
        state = held.state
        if not state.local or state.keeper != keeper.id or not self._local.keep(held, keeper):
            if keeper.key not in held.given:
                await self._mail.delete(keeper.key)  # it has nothing to keep any more, or is but a copy
            return
        runs = self._local.of(held.instance_id)
        if runs is not None:
            await self._offer(held, runs)

    async def _bury_overwritten(self, held: Held, execution: str, ordinal: int) -> None:
        """An activity cannot be run any more whose row somebody else wrote over (rule 8)."""
        event = GenericEvent(timestamp=self._environment.now(), data=f"activity of event {ordinal}")
        message = OutboundMessage(instance_id=held.instance_id, event=event, execution_id=execution, scheduled=ordinal)
        reason = f"the row of event {ordinal}, an activity that was to run, was written over by another worker"
        letter = DeadLetter(instance_id=held.instance_id, reason=reason, message=message)
        id = derived_id(held.instance_id, execution, "overwritten", str(ordinal))
        await self._letters.bury(letter, id, self._environment.now())

    async def mend_row(self, held: Held, read: Read) -> None:
        """Nothing is run that would write the row: it is brought up to date here where it is behind."""
        projection, view, sentinel = read.projection, read.view, read.sentinel
        if projection is None or sentinel is None or sentinel.state.purging:
            return
        if not held.row_is_late:
            await self._rows.catch_up(held)
            return
        if held.rewound_by_dotnet:
            return  # by its row alone it is known that it was
        if view is None and projection.parent is None:
            return  # purged: its history goes with it
        if view is not None and names_newer_start(view, sentinel):
            return
        await self._rows.mend(held, read.row, projection)

    async def _with_waiting_start(self, held: Held, read: Read, messages: list[Arrived]) -> list[Arrived]:
        """The messages, and before them the start that waits, where its own is not here and one of them ends it.

        What ends an instance that has yet to start does so at once, however far its time is.
        """
        view, sentinel = read.view, read.sentinel
        if view is None or read.row is None or view.status is not Status.PENDING:
            return messages
        if any(isinstance(one.event, ExecutionStarted) for one in messages):
            return messages
        if read.projection is not None and (sentinel is None or not names_newer_start(view, sentinel)):
            return messages
        to_it = [one for one in messages if one.execution_id in (None, view.execution_id)]
        if not any(ends(one.event, begun=False) for one in to_it):
            return messages
        start = await self._formats.waiting_start(read.row, held.instance_id, input_may_be_gone=True)
        if not any(ends(one.event, begun=False, deadline=start.deadline) for one in to_it):
            return messages
        execution = start.started.execution_id
        first = Arrived(
            key=self._mail.next_number(),
            id=derived_id(held.instance_id, execution, "start", start.start_id),
            event=start.started,
            execution_id=execution,
            start_id=start.start_id,
            dialect=start.dialect,
        )
        return [first, *messages]

    def _rewind(self, held: Held) -> Arrived:
        """What .NET's rewind asks for, as a message of ours."""
        event = ExecutionRewound(timestamp=self._environment.now(), instance_id=held.instance_id)
        id = derived_id(held.instance_id, held.execution_id, "rewound by .NET", held.state.episode)
        return Arrived(key=self._mail.next_number(), id=id, event=event)

    # -- what the messages came to ---------------------------------------------------------------------

    async def _settle(self, held: Held, read: Read, decided: Decided) -> None:
        """Do what was decided of the messages that are not given."""
        for message in decided.refuse:
            await self.refuse(held, message)
        for message, reason in decided.dead:
            letter = OutboundMessage(instance_id=held.instance_id, event=message.event, sender=message.sender or None)
            await self._letters.bury(
                DeadLetter(instance_id=held.instance_id, reason=reason, message=letter), message.id, message.inserted
            )
        for message, _ in decided.drop:
            end, ended = message.event, read.projection
            if not isinstance(end, ExecutionTerminated) or not end.recurse or ended is None:
                continue
            if message.execution_id in (None, ended.execution_id):
                await self._terminator.end_below(held.instance_id, end, message.id)
        if decided.keep:
            await self.keep(held, read, decided.keep)
        gone = [*decided.refuse, *decided.keep, *(one for one, _ in decided.dead), *(one for one, _ in decided.drop)]
        await asyncio.gather(
            *(self._mail.delete(one.key) for one in gone),
            *(self._mail.give_back(one.key, BACK_SECONDS) for one in decided.back),
        )

    async def _pass_over(self, held: Held, read: Read, decided: Decided) -> None:
        """Delete what would be given for nothing: the end of a child that only had this id, a mere look at it."""
        started = read.started
        if decided.run is Run.START:
            (start, *_) = decided.give
            assert isinstance(start.event, ExecutionStarted)
            started = start.event
        state, parents = held.state, parents_of([] if started is None else [started])
        over = [one for one in decided.give if one.kept is None and not is_meant(one.event, parents)]
        looked_at = all(is_wake(one.event) for one in decided.give) and state.condition is None
        if decided.run is Run.EXISTING and looked_at and not state.woken and not read.is_unfinished:
            # Whatever was to be finished has been.
            over = decided.give
        decided.give = [one for one in decided.give if one not in over]
        await asyncio.gather(*(self._mail.delete(one.key) for one in over))

    async def refuse(self, held: Held, start: Arrived) -> None:
        """Tell the parent of a child that its id is taken."""
        assert isinstance(start.event, ExecutionStarted)
        answer = refused_answer(start.event, self._environment.now())
        if answer is not None:
            id = derived_id(held.instance_id, start.execution_id or "", "refused", "0")
            await self._poster.send(held, [Outgoing(id, answer, 0)])

    async def keep(self, held: Held, read: Read, messages: Sequence[Arrived], *, waits: bool = False) -> None:
        """Write messages beside the history, in transactions with the sentinel (rule 11).

        `waits`: no host has its code.
        """
        if not held.state.rows:
            self.kept_for.add(held.instance_id)
        for writes in await kept_rows(self._formats, held, messages):
            view = read.view
            execution = held.execution_id or ("" if view is None else view.execution_id)
            state = msgspec.structs.replace(
                held.standing,
                waits=waits or held.state.waits,
                episode=next_episode(held.state.episode, self._committer.chance()),
                previous=held.state.episode,
            )
            part = Part(operations=writes, state=state, execution_id=execution, complete=False, aside=True)
            await self._committer.must_write(held, part, "messages are kept for it")

    async def _keep_for_worker(self, held: Held, read: Read, decided: Decided) -> None:
        """Nobody here has its code: its messages wait beside its history, its start among them."""
        # The start may have been kept by another host, or before: it need not be among those that came now.
        started = next((one.event for one in decided.give if isinstance(one.event, ExecutionStarted)), read.started)
        named = None if read.row is None else read.row.values.get("Name")
        await self._waiting.note(held.instance_id, started.name if started is not None else str(named or ""))
        fresh = [one for one in decided.give if one.kept is None]
        if fresh:
            await self.keep(held, read, fresh, waits=True)
        await asyncio.gather(*(self._mail.delete(one.key) for one in fresh))

    # -- what the engine gets --------------------------------------------------------------------------

    def _record(self, held: Held, read: Read, decided: Decided) -> InstanceRecord | None:
        """The record of what is run; None where nothing is."""
        if decided.run is Run.START:
            return self._started_anew(held, read, decided)
        state = held.state
        unfinished = read.is_unfinished
        if decided.run is Run.NOTHING and not ((unfinished or state.woken) and _lives(read.projection)):
            return None
        if not decided.give and decided.run is Run.EXISTING and not unfinished and not state.woken:
            return None
        assert read.projection is not None and read.started is not None
        projection = read.projection
        if decided.run is Run.REWIND and projection.status is Status.FAILED:
            projection = rewinding(projection, self._environment.now())
        return InstanceRecord(
            projection=projection,
            started=read.started,
            start_id=held.start_id,
            dialect=held.dialect,
            deadline=held.deadline,
            condition=state.condition,
            length=state.rows,
            size=state.size,
        )

    def _started_anew(self, held: Held, read: Read, decided: Decided) -> InstanceRecord:
        """A start takes its place: what stood there is over, and its parent is told."""
        first = decided.give[0]
        self.kept_for.discard(held.instance_id)
        started = first.event
        assert isinstance(started, ExecutionStarted)
        if read.projection is not None and _lives(read.projection):
            held.replaces = replaced_answer(read.projection, self._environment.now())
        more = self._formats.start_options(read.row) if started.parent is None else None
        held.started = started
        held.start_id = first.start_id or started.execution_id
        self._local.end(held)
        held.gone = []
        held.dialect = more.dialect if more is not None else first.dialect
        held.deadline = None if more is None else more.deadline
        held.stood = held.state
        held.state = msgspec.structs.replace(
            held.state, rows=0, size=0, projection=None, started=None, condition=None, log=None, local=[], keeper=None
        )
        if decided.terminated:
            end = ExecutionTerminated(timestamp=self._environment.now(), input=self._formats.output(read.row))
            key = self._mail.next_number()
            decided.give.append(
                Arrived(key=key, id=derived_id(held.instance_id, started.execution_id, "row", "terminated"), event=end)
            )
        return InstanceRecord(
            projection=initial(started),
            started=started,
            start_id=held.start_id,
            dialect=held.dialect,
            deadline=held.deadline,
        )

    def _ends(self, decided: Decided, record: InstanceRecord) -> bool:
        return any(ends(one.event, begun=record.length > 0, deadline=record.deadline) for one in decided.give)


def _may_be_turned(read: Read) -> bool:
    """Whether its row may be of a rewind that has begun: it is Pending, of an execution that has failed."""
    view, sentinel, projection = read.view, read.sentinel, read.projection
    if view is None or sentinel is None or projection is None or sentinel.state.purging or not sentinel.is_ours:
        return False
    return (
        view.status is Status.PENDING
        and view.execution_id == sentinel.execution_id
        and projection.status is Status.FAILED
    )


def _lives(projection: Projection | None) -> bool:
    return projection is not None and projection.status not in TERMINAL


def _inbound(one: Arrived) -> InboundMessage:
    return InboundMessage(event=one.event, key=one.key, execution_id=one.execution_id, scheduled=one.scheduled)

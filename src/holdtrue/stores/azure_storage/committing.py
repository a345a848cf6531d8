"""Applies an episode: transaction, then what it sends, then the instances row, then the deletion of its messages.

The transaction on the history partition is the commit; everything after it is redone by the next owner where this
host does not come to it.  An ambiguous answer is settled by reading the sentinel back.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.events import Ticks, encode_events
from holdtrue.core.messages import ActivityTask, OutboundMessage
from holdtrue.core.projection import Condition
from holdtrue.stores.decisions import recursive_end, taken_by
from holdtrue.stores.errors import StoreError, StoreUnavailable
from holdtrue.stores.protocol import CommitOutcome, CommitResult, Committing, Lease

from . import readback
from .access import Access, is_conflict
from .arrivals import Arrived, ends_from_outside
from .formats import Formats
from .holding import Held
from .keeping import kept_rows
from .large import Blob
from .local import Place, choose_keeper, named, runnable, without
from .local_runs import LocalRuns, Runs
from .mail import Mail
from .names import SENTINEL
from .owing import Extra, Outgoing, RowExtra, is_waited_for, sending
from .payloads import Payloads
from .planning import Base, Encode, Part, Plan, Taken, log_parts, owed_key, plan
from .posting import Poster
from .readback import Verdict
from .remembering import senders_to_ask, still_consumed, still_seen
from .row_writing import RowWriter
from .sentinel import Mark, Seen, Sentinel, State, next_episode, sentinel_values, state_values
from .service import ANY, Do, Operation, ServiceError, Value
from .waiting import WaitingInstances
from .work_items import WorkItem

log = logging.getLogger("holdtrue.azure_storage")

MOST_NOTED = 10_000
"""Instances of which it is noted what was sent."""
WRITE_TRIES = 8
"""How often a commit is written whose answers leave it open; then the session is thrown away and reads anew."""


class Committer:
    """Applies episodes to held instances."""

    def __init__(
        self,
        access: Access,
        formats: Formats,
        mail: Mail,
        poster: Poster,
        rows: RowWriter,
        waiting: WaitingInstances,
        local: LocalRuns,
        is_mine: Callable[[int], bool],
    ) -> None:
        self._access = access
        self._formats = formats
        self._mail = mail
        self._poster = poster
        self._rows = rows
        self._waiting = waiting
        self._local = local
        self._is_mine = is_mine
        self._payloads = Payloads(formats)
        self._random = access.environment.random()
        self._sent: dict[str, str] = {}
        self.not_deleted = 0
        """How many messages were used up here whose deletion was not confirmed; some of them are gone all the same."""

    def chance(self) -> str:
        """The random part of an episode's id."""
        return f"{self._random.getrandbits(32):08x}"

    async def apply(self, held: Held, committing: Committing) -> CommitOutcome:
        """Commit an episode and do what follows from it; the activities that run here now come with it.

        STALE also where it was committed and what follows could not be done: whoever holds it next does that.  The
        session goes on only where it `is_current` still: an episode that did not fit it has touched nothing.
        """
        commit = committing.commit
        async with held.busy:
            if commit.replace:
                assert held.started is not None
                standing = held.execution_id if held.state.rows else held.started.execution_id
                if (commit.old_execution, commit.old_length) != (standing, held.state.rows):
                    return CommitOutcome(result=CommitResult.STALE)
            elif commit.first != held.state.rows:
                return CommitOutcome(result=CommitResult.STALE)
            held.is_current = False  # until it is known what became of this
            if not self._is_mine(held.partition):
                return CommitOutcome(result=CommitResult.LEASE_LOST)
            answered = self._local.answered(held, commit)
            if not _does_something(commit, held) and not answered:
                await self._use_up(held, commit)
                held.is_current = True
                return CommitOutcome(result=CommitResult.COMMITTED)
            commit = _with_recursion(commit)
            if held.replaces is not None:
                # Owed like any other message: its parent would wait for ever.
                commit = msgspec.structs.replace(commit, messages=[held.replaces, *commit.messages])
            if held.kept_later and not commit.ended:
                # No message drives the episode of what is still kept.
                commit = msgspec.structs.replace(commit, wake=True)
            await self._outlive(held, commit, answered)
            now = self._access.environment.now()
            taken = [_taken(held, key) for key in commit.consumed if key in held.given]
            episode = next_episode(held.state.episode, self.chance())
            before = held.state
            stay, keeper = self._stay(held, commit, committing.take_activities)
            sent = sending(commit, episode, {task.scheduled for task in stay})
            blobs: list[Blob] = []
            continued = commit.replace and commit.old_execution != commit.projection.execution_id
            head = next((at for at, one in enumerate(commit.events) if isinstance(one, ev.OrchestratorCompleted)), 0)

            def encode(event: ev.AnyEvent, ordinal: int, more: RowExtra) -> Mapping[str, Value | None]:
                return self._formats.event_values(
                    held.instance_id,
                    event,
                    commit.projection.execution_id,
                    ordinal,
                    more,
                    blobs,
                    continued=continued and ordinal <= head,
                )

            def encode_extra(extra: Extra) -> Mapping[str, Value | None]:
                return self._formats.extra_values(held.instance_id, f"{episode}-owed", extra, blobs)

            planned = plan(
                commit,
                sent,
                taken,
                msgspec.structs.replace(
                    _base(held, await self._seen(held, now), now),
                    local=[task.scheduled for task in stay],
                    answered=frozenset(answered),
                    keeper=before.keeper if keeper is None else keeper.id,
                ),
                episode=episode,
                now=now,
                chance=self.chance,
                encode=encode,
                encode_extra=encode_extra,
                size=len(encode_events(commit.events)) if commit.events else 0,
            )
            for part in planned.parts:
                part.state = await self._payloads.put_beside(held.instance_id, part.state, before)
            result = await self._write(held, planned, blobs, encode)
            if result is not CommitResult.COMMITTED:
                return CommitOutcome(result=result)
            self._after(held, commit, before)
            held.replaces = None
            if keeper is not None:
                self._local.keep(held, keeper)
            try:
                await self._follow(held, commit, sent.outgoing)
            except StoreError as error:
                log.warning(
                    "instance %r: its episode is committed, what it sends is not all sent (%s): it is read anew",
                    held.instance_id,
                    error,
                )
                return CommitOutcome(result=CommitResult.STALE)
            await self._payloads.forget(before, held.state)
            begun = self._local.begin(held, named(stay, episode, now)) if stay else []
            held.is_current = True
        return CommitOutcome(result=CommitResult.COMMITTED, activities=begun)

    # -- what runs on this host (rule 16) --------------------------------------------------------------

    def _stay(self, held: Held, commit: EpisodeCommit, most: int) -> tuple[list[ActivityTask], Arrived | None]:
        """The activities of a commit that need no message, and the message that is to be their keeper.

        Where there is a keeper already it goes on to be that.  What no message of a queue drives is not kept here: a
        host that dies would leave nothing that brings the next owner.
        """
        stay = runnable(commit, most) if self._local.may_run(held.partition) else []
        if not stay or (held.state.local and held.state.keeper is not None):
            return stay, None
        taken = [held.given[key] for key in commit.consumed if key in held.given]
        keeper = choose_keeper(taken, held.given.values(), commit.events, self._mail.has)
        return (stay, keeper) if keeper is not None else ([], None)

    async def _outlive(self, held: Held, commit: EpisodeCommit, answered: Collection[Place]) -> None:
        """What runs for an execution that continues as new runs on to its end, under a message of the queue."""
        runs = self._local.of(held.instance_id)
        if commit.replace and runs is not None:
            left = [item for place, item in runs.items.items() if place not in answered]
            answered_too = await self._local.let_go(runs, left)
            log.debug("instance %r: %d activities outlive their execution", held.instance_id, len(answered_too))

    async def into_queue(self, runs: Runs, held: Held | None, items: Sequence[WorkItem], *, run_on: bool) -> None:
        """Activities that were to run here go into the queue, then out of `local`; with `run_on` what runs goes on.

        `held` is their instance in hand.  Raises StoreError where not all could be put.
        """
        gone = await (self._local.let_go if run_on else self._local.give_back)(runs, items)
        if held is None:
            held = await self._as_it_stands(runs)
        if held is not None:
            await self._take_out(held, set(gone))

    async def _as_it_stands(self, runs: Runs) -> Held | None:
        """An instance of which only activities are in hand; None where its sentinel is not to be written."""
        sentinel = await self._access.sentinel(runs.instance_id)
        if sentinel is None or sentinel.state.purging:
            return None
        held = Held(runs.instance_id, self._formats.partition_key(runs.instance_id), runs.partition, Lease(0, 0))
        held.etag, held.execution_id, held.state = sentinel.etag, sentinel.execution_id, sentinel.state
        # Its keeper must stay as long as something is owed.
        return held if self.has_sent(held) else None

    async def _take_out(self, held: Held, gone: Collection[Place]) -> None:
        async with held.busy:
            local = without(held.state.local, gone)
            if local == held.state.local:
                return
            state = msgspec.structs.replace(
                held.state,
                local=local,
                keeper=held.state.keeper if local else None,
                episode=next_episode(held.state.episode, self.chance()),
                previous=held.state.episode,
            )
            part = Part(operations=[], state=state, execution_id=held.execution_id, complete=True, aside=True)
            # Where that fails somebody else wrote: who reads the instance next finds what is named.
            if await self.write_part(held, part) is CommitResult.COMMITTED:
                await self._local.follow(held)

    async def _seen(self, held: Held, now: Ticks) -> list[Seen]:
        """The ids to be known further on."""
        seen = held.state.seen
        asked = senders_to_ask(seen, now)
        sentinels = await asyncio.gather(*(self._access.sentinel(name) for name in asked))
        return still_seen(seen, now, dict(zip(asked, sentinels, strict=True)))

    async def hold(self, held: Held, condition: Condition, *, ends_too: bool = False) -> None:
        """Hold an instance: its messages wait beside its history, and it is noted for the hosts that join.

        One that ends it is not kept, and comes again, unless `ends_too`.
        """
        assert held.started is not None
        await self._waiting.note(held.instance_id, held.started.name)
        async with held.busy:
            messages = [one for one in held.given.values() if one.kept is None]
            if not ends_too and any(ends_from_outside(one.event) for one in held.given.values()):
                messages = []  # one of them ends it all the same: they come again
            execution = held.execution_id or ("" if held.started is None else held.started.execution_id)
            runs = self._local.of(held.instance_id)
            if runs is not None:
                # It may be held for long: what runs goes on under messages of the queue, and needs no keeper.
                await self._local.let_go(runs, list(runs.items.values()))
            state = msgspec.structs.replace(
                held.standing,
                condition=condition,
                local=[],
                keeper=None,
                woken=False,
                episode=next_episode(held.state.episode, self.chance()),
                previous=held.state.episode,
            )
            for writes in await kept_rows(self._formats, held, messages) or [[]]:
                part = Part(operations=writes, state=state, execution_id=execution, complete=False, aside=True)
                if await self.write_part(held, part) is not CommitResult.COMMITTED:
                    return
                state = msgspec.structs.replace(
                    held.state, episode=next_episode(held.state.episode, self.chance()), previous=held.state.episode
                )
            self._waiting.tried(held.instance_id, held.state)
            await self._local.follow(held)
            await asyncio.gather(*(self._mail.delete(one.key) for one in messages))
            for one in messages:
                held.given.pop(one.key, None)

    # -- the transaction -------------------------------------------------------------------------------

    async def _write(self, held: Held, planned: Plan, blobs: Sequence[Blob], encode: Encode) -> CommitResult:
        await asyncio.gather(*(self._formats.put_blob(blob) for blob in blobs))
        if planned.log is not None:
            (flip,) = planned.parts
            log_blob = self._formats.log_blob(held.instance_id, flip.state.episode, planned.log)
            await self._formats.put_blob(log_blob)
            flip.state = msgspec.structs.replace(flip.state, log=log_blob.name)
            result = await self.write_part(held, flip)
            if result is not CommitResult.COMMITTED:
                return result
            put = len(blobs)
            parts = log_parts(held.partition_key, planned.log, held.state, encode, self.chance)
            # Rows are encoded anew for it, and name blobs of their own.
            await asyncio.gather(*(self._formats.put_blob(blob) for blob in blobs[put:]))
            for part in parts:
                result = await self.write_part(held, part)
                if result is not CommitResult.COMMITTED:
                    return result
            await self._formats.delete_blob(log_blob.name)
            return CommitResult.COMMITTED
        for part in planned.parts:
            result = await self.write_part(held, part)
            if result is not CommitResult.COMMITTED:
                return result
        return CommitResult.COMMITTED

    async def must_write(self, held: Held, part: Part, what: str) -> None:
        """Write a part; raises StoreUnavailable where another has written meanwhile."""
        if await self.write_part(held, part) is not CommitResult.COMMITTED:
            raise StoreUnavailable(f"instance {held.instance_id!r} changed while {what}; it is read anew")

    async def renew(self, held: Held) -> None:
        """Write the sentinel as it stands: whoever read it before writes it in vain.  Raises StoreUnavailable."""
        state = msgspec.structs.replace(
            held.standing,
            episode=next_episode(held.state.episode, self.chance()),
            previous=held.state.episode,
        )
        part = Part(operations=[], state=state, execution_id=held.execution_id, complete=True, aside=True)
        await self.must_write(held, part, "its row is mended")

    async def write_part(self, held: Held, part: Part) -> CommitResult:
        """One transaction under If-Match, read back where its answer leaves it open."""
        environment = self._access.environment
        tables, table = self._access.service.tables, self._access.names.history
        pause = 0.1
        for _ in range(WRITE_TRIES):
            if not self._is_mine(held.partition):
                return CommitResult.LEASE_LOST
            at = environment.now() if part.complete else None
            if part.aside and held.etag is not None:
                values, mark = state_values(part.state), part.state.mark
            else:
                standing = held.completed_at if at is None else at
                values = sentinel_values(part.execution_id, part.complete, at, part.state, standing)
                mark = Mark(part.execution_id, part.complete, standing)
            operations = [*part.operations, sentinel_operation(held, values)]
            try:
                etags = await tables.transact(table, operations)
            except ServiceError as error:
                if not is_conflict(error):
                    raise self._access.failure(f"instance {held.instance_id!r}", error) from error
                verdict = await self._read_back(held, part.state.episode)
                if verdict is Verdict.COMMITTED:
                    break
                if verdict is not Verdict.AGAIN:
                    return CommitResult.STALE
                await environment.sleep(pause)
                pause = min(2.0, pause * 2)
                continue
            held.etag = etags[-1]
            break
        else:
            return CommitResult.STALE
        if mark is not None and not part.aside:
            held.completed_at = mark.at
        held.state, held.stood = msgspec.structs.replace(part.state, mark=mark), None
        held.execution_id = part.execution_id
        return CommitResult.COMMITTED

    async def _read_back(self, held: Held, wrote: str) -> Verdict:
        found = await self._access.sentinel(held.instance_id)
        row_is_gone = False
        if held.etag is None and (held.started is None or held.started.parent is None):
            row_is_gone = await self._access.instances_row(held.instance_id, select=("ExecutionId",)) is None
        verdict = readback.judge(
            wrote=wrote,
            loaded=held.state.episode,
            held=held.etag,
            found=found,
            row_is_gone=row_is_gone,
            moved_execution=found is not None and found.execution_id != held.execution_id and held.etag is not None,
        )
        self._tell(held, found, wrote, verdict)
        if verdict in (Verdict.COMMITTED, Verdict.AGAIN) and found is not None:
            held.etag = found.etag
        return verdict

    def _tell(self, held: Held, found: Sentinel | None, wrote: str, verdict: Verdict) -> None:
        other = readback.proves_another(found, wrote=wrote, loaded=held.state.episode)
        if other is not None and verdict is Verdict.STALE:
            log.warning(
                "split brain, proven: instance %r was committed by another (episode %s) while this host wrote episode "
                "%s; this one has no effect and the instance is read anew",
                held.instance_id,
                other,
                wrote,
            )

    # -- what follows from it --------------------------------------------------------------------------

    def _after(self, held: Held, commit: EpisodeCommit, before: State) -> None:
        used = {used.id for used in before.consumed}
        held.known_deleted -= used
        if commit.replace:
            # Whole, not as the sentinel has it: the row may yet be to be written.
            begun = next((event for event in commit.events if isinstance(event, ev.ExecutionStarted)), None)
            held.started = begun or held.state.started

    async def _follow(self, held: Held, commit: EpisodeCommit, outgoing: Sequence[Outgoing]) -> None:
        """Send, bring the row up to date, delete what was used up.  Raises StoreError where it was not all sent."""
        await asyncio.gather(
            self._poster.send(held, outgoing),
            self._rows.after_commit(held, commit),
            self._waiting.goes_on(held.instance_id),
        )
        self.note_sent(held)
        held.is_waited_for = any(is_waited_for(one.what) for one in outgoing)
        if commit.wake and not commit.ended:
            await self._poster.wake(held.instance_id, held.state.episode)
        await self._use_up(held, commit)
        held.gone = []
        await self._local.follow(held)

    def note_sent(self, held: Held) -> None:
        """What this process has sent it need not send again, should it read the instance anew."""
        self._sent.pop(held.instance_id, None)
        if held.state.owed:
            self._sent[held.instance_id] = held.state.owed[-1].episode
            if len(self._sent) > MOST_NOTED:
                del self._sent[next(iter(self._sent))]

    def has_sent(self, held: Held) -> bool:
        """Whether all that the sentinel names as owed was sent by this process; so where it names nothing."""
        owed = held.state.owed
        return not owed or (len(owed) == 1 and owed[0].episode == self._sent.get(held.instance_id))

    async def clear_debt(self, held: Held, *, local: bool = False) -> bool:
        """Take what is paid from the sentinel, by a merge of its own; false where that was not to be written.

        With `local` what ran on the host that scheduled it goes too.  For a session whose `busy` is held.
        """
        owed, running = held.state.owed, [] if local else without(held.state.local, held.gone)
        if (not owed and running == held.state.local) or held.state.purging or not self.has_sent(held):
            return True
        if held.stood is not None:
            return True  # the first commit clears it
        gone = [
            Operation(do=Do.DELETE, partition=held.partition_key, key=owed_key(one.episode), etag=ANY)
            for one in owed
            if one.extra
        ]
        state = msgspec.structs.replace(
            held.state,
            owed=[],
            local=running,
            keeper=held.state.keeper if running else None,
            episode=next_episode(held.state.episode, self.chance()),
            previous=held.state.episode,
        )
        part = Part(operations=gone, state=state, execution_id=held.execution_id, complete=True, aside=True)
        held.is_current = False  # until it is known what became of this
        held.is_current = await self.write_part(held, part) is CommitResult.COMMITTED
        if held.is_current:
            self.note_sent(held)
            await self._local.follow(held)
        return held.is_current

    async def _use_up(self, held: Held, commit: EpisodeCommit) -> None:
        numbers = [key for key in commit.consumed if key in held.given]
        numbers = [number for number in numbers if not self._stays_undeleted(held, number)]
        arrived = [held.given.pop(number) for number in numbers]
        known = await asyncio.gather(*(self._mail.delete(number) for number in numbers))
        self.not_deleted += sum(not gone and not one.kept for one, gone in zip(arrived, known, strict=True))
        held.known_deleted |= {one.id for one, deleted in zip(arrived, known, strict=True) if deleted and not one.kept}

    def _stays_undeleted(self, held: Held, number: int) -> bool:
        if not self._local.is_keeper(held.instance_id, number):
            return False
        held.given.pop(number)
        return True


def sentinel_operation(held: Held, values: Mapping[str, Value | None]) -> Operation:
    """The write of a held instance's sentinel: an insert where there is none, else a merge with If-Match."""
    do = Do.INSERT if held.etag is None else Do.MERGE
    return Operation(do=do, partition=held.partition_key, key=SENTINEL, values=values, etag=held.etag)


def _with_recursion(commit: EpisodeCommit) -> EpisodeCommit:
    """The end that was asked for with all below goes on when this stands: a message to itself, owed like any other."""
    end = recursive_end(taken_by(commit)) if commit.ended else None
    if end is None:
        return commit
    name, execution = commit.instance_id, commit.projection.execution_id
    message = OutboundMessage(instance_id=name, event=end, execution_id=execution, sender=name)
    return msgspec.structs.replace(commit, messages=[*commit.messages, message])


def _does_something(commit: EpisodeCommit, held: Held) -> bool:
    """False where it only uses up messages that leave no trace."""
    if commit.events or commit.messages or commit.starts or commit.activities or commit.replace or commit.wake:
        return True
    if commit.condition_changed or commit.status_changed or held.state.woken:
        return True
    given = held.given
    # A kept message has a row to be deleted, an event must not come twice.
    return any(key in given and (given[key].kept or given[key].seen) for key in commit.consumed)


def _taken(held: Held, key: int) -> Taken:
    arrived = held.given[key]
    return Taken(arrived.id, arrived.event, arrived.seen, arrived.kept)


def _base(held: Held, seen: list[Seen], now: Ticks) -> Base:
    assert held.started is not None
    consumed = still_consumed(held.state.consumed, held.known_deleted, now)
    return Base(
        partition=held.partition_key,
        etag=held.etag,
        state=msgspec.structs.replace(held.state, consumed=consumed, seen=seen),
        started=held.started,
        start_id=held.start_id,
        dialect=held.dialect,
        deadline=held.deadline,
    )

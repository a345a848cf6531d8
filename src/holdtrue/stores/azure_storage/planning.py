"""From an episode's commit to the transactions that write it (rules 3 to 5).

One transaction holds at most 100 operations and 4 MB, the sentinel among them.  A commit that needs more is cut into
parts, each a valid commit of its own: rows in order, so that a result never stands before its scheduling; the
messages named as consumed are those whose events stand in the rows so far; what is owed grows from part to part.  A
continue-as-new that needs more than one part goes through a redo log.  Pure.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.events import ExecutionStarted, Ticks
from holdtrue.core.projection import TERMINAL, initial, project

from .local import Place, until, without
from .names import row_key
from .owing import Extra, RowExtra, Sending
from .sentinel import Local, Owed, Seen, State, Used, next_episode
from .service import ANY, Do, Operation, Value

MOST_OPERATIONS = 100
"""Operations in a transaction (the service's limit)."""
MOST_BYTES = 3_000_000
"""Estimated bytes of a transaction: the service takes 4 MB of text, in which each row has some overhead."""
ROW_OVERHEAD = 1_024
"""Bytes that a row costs beside its texts."""


class Taken(msgspec.Struct, frozen=True):
    """An inbound message that a commit uses up: the id of its envelope, its event, and what stays in `seen`.

    `kept` is the row key of the extra row in which it waited (None: it stands in the queue).
    """

    id: str
    event: ev.HistoryEvent
    seen: Seen | None = None
    kept: str | None = None


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit stands on: the state on the sentinel as loaded, less what is known to be done since.

    `etag` None: there is no sentinel yet.  `partition` is the escaped id.  `local` are the ordinals of its activities
    that run here, `keeper` the id of the message that stays for them (rule 16).
    """

    partition: str
    etag: str | None
    state: State
    started: ExecutionStarted
    start_id: str
    dialect: str
    deadline: Ticks | None
    local: list[int] = []
    answered: frozenset[Place] = frozenset()
    keeper: str | None = None


class Part(msgspec.Struct, kw_only=True):
    """One transaction, its sentinel not among `operations`: `state` goes onto it.

    `complete` is true for the last part.  Its If-Match is what the part before gave.
    """

    operations: list[Operation]
    state: State
    execution_id: str
    complete: bool
    aside: bool = False
    """Not an episode: of a sentinel that is there only our columns are written."""


class Plan(msgspec.Struct, kw_only=True):
    """How a commit is written: its parts; for a continue-as-new in parts the events of its redo log."""

    parts: list[Part]
    log: list["LogRow"] | None = None


class LogRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of a redo log: its event, and what it asks for beyond."""

    event: ev.AnyEvent
    more: RowExtra = RowExtra()


Encode = Callable[[ev.AnyEvent, int, RowExtra], Mapping[str, Value | None]]
"""A history row's columns from an event, its ordinal, and what its row asks for beyond."""

EncodeExtra = Callable[[Extra], Mapping[str, Value | None]]
"""An extra row's columns from what it holds."""


def owed_key(episode: str) -> str:
    """The row key of the extra row of what an episode sends and no row asks for; it sorts behind `sentinel`."""
    return f"~owed-{episode}"


def plan(
    commit: EpisodeCommit,
    sending: Sending,
    taken: Sequence[Taken],
    base: Base,
    *,
    episode: str,
    now: Ticks,
    chance: Callable[[], str],
    encode: Encode,
    encode_extra: EncodeExtra,
    size: int,
) -> Plan:
    """The transactions of a commit that carries the episode id `episode`.

    `taken` are the messages that it uses up, `size` the bytes of its events, `chance` makes the random part of
    further episode ids.
    """
    units = _units(commit, sending, taken, base, encode)
    last = _last_state(commit, sending, taken, base, episode=episode, now=now, size=size)
    beside = _beside(commit, sending, taken, base, episode, encode_extra)
    cuts = _cuts(units, beside)
    execution = commit.projection.execution_id
    if len(cuts) == 1:
        writes = [operation for unit in units for operation in unit]
        return Plan(parts=[Part(operations=writes + beside, state=last, execution_id=execution, complete=True)])
    if commit.replace:
        deletes = [operation for unit in units for operation in unit[1:]]
        flip = Part(operations=deletes + beside, state=last, execution_id=execution, complete=True)
        log = [LogRow(event, sending.by_rows.get(at, _NOTHING)) for at, event in enumerate(commit.events)]  # type: ignore[arg-type]
        return Plan(parts=[flip], log=log)
    return Plan(parts=_in_parts(commit, taken, base, units, cuts, last, beside, now=now, chance=chance))


_NOTHING = RowExtra()


def _write(partition: str, ordinal: int, values: Mapping[str, Value | None]) -> Operation:
    return Operation(do=Do.REPLACE, partition=partition, key=row_key(ordinal), values=values)


def _last_state(
    commit: EpisodeCommit,
    sending: Sending,
    taken: Sequence[Taken],
    base: Base,
    *,
    episode: str,
    now: Ticks,
    size: int,
) -> State:
    before, projection = base.state, commit.projection
    owed: list[Owed] = []
    if sending.outgoing:
        first, end = sending.rows
        owed = [Owed(projection.execution_id, episode, first, end, len(sending.extra))]
    slim = projection.copy()
    slim.input = None
    state = msgspec.structs.replace(
        before,
        episode=episode,
        previous=before.episode,
        rows=commit.first + len(commit.events),
        size=size if commit.replace else before.size + size,
        projection=slim,
        started=msgspec.structs.replace(_started_of(commit) or base.started, input=None),
        start_id=base.start_id,
        dialect=base.dialect,
        deadline=base.deadline,
        condition=None if commit.ended else commit.condition,
        consumed=[*before.consumed, *(Used(one.id, now) for one in taken if one.kept is None)],
        seen=[*before.seen, *(one.seen for one in taken if one.seen is not None)],
        owed=owed,
        log=None,
        purging=False,
        blobs_before=0,
        woken=commit.wake and not commit.ended,
        waits=False,
    )
    # What ran for an execution that is over belongs to nobody any more.
    state.local = [] if commit.ended or commit.replace else without(before.local, base.answered)
    if base.local and not commit.ended:
        state.local = [*state.local, Local(projection.execution_id, episode, base.local)]
    state.keeper = base.keeper if state.local else None
    return state


def _started_of(commit: EpisodeCommit) -> ExecutionStarted | None:
    return next((event for event in commit.events if type(event) is ExecutionStarted), None)


def _units(
    commit: EpisodeCommit, sending: Sending, taken: Sequence[Taken], base: Base, encode: Encode
) -> list[list[Operation]]:
    """What must stand in one transaction, in order: a row, and the end of the kept message whose event it holds."""
    kept = {id(one.event): one.kept for one in taken if one.kept}
    units: list[list[Operation]] = []
    for ordinal, event in enumerate(commit.events, commit.first):
        values = encode(event, ordinal, sending.by_rows.get(ordinal, _NOTHING))  # type: ignore[arg-type]
        unit = [Operation(do=Do.REPLACE, partition=base.partition, key=row_key(ordinal), values=values)]
        key = kept.get(id(event))
        if key is not None:
            unit.append(Operation(do=Do.DELETE, partition=base.partition, key=key, etag=ANY))
        units.append(unit)
    return units


def _beside(
    commit: EpisodeCommit,
    sending: Sending,
    taken: Sequence[Taken],
    base: Base,
    episode: str,
    encode_extra: EncodeExtra,
) -> list[Operation]:
    """The extra rows that come and go with the last part: what is owed, and kept messages that came to nothing."""
    partition = base.partition
    events = {id(event) for event in commit.events}
    gone = [one.kept for one in taken if one.kept and id(one.event) not in events]
    gone += [owed_key(owed.episode) for owed in base.state.owed if owed.extra]
    found = [Operation(do=Do.DELETE, partition=partition, key=key, etag=ANY) for key in gone]
    if len(sending.extra):
        values = encode_extra(sending.extra)
        found.append(Operation(do=Do.REPLACE, partition=partition, key=owed_key(episode), values=values))
    return found


def size_of(operations: Sequence[Operation]) -> int:
    """Estimated bytes of operations: of their texts as they are sent and as the tables count them, whichever is more,
    and what a row costs beside."""
    return sum(
        ROW_OVERHEAD + sum(_bytes_of(value) for value in one.values.values() if isinstance(value, str))
        for one in operations
    )


def _bytes_of(text: str) -> int:
    units = 2 * len(text)
    return units if text.isascii() else max(units, len(text.encode("utf-8", "surrogatepass")))


def _cuts(units: Sequence[Sequence[Operation]], beside: Sequence[Operation]) -> list[int]:
    """Where each part ends (an index into the units); the last part also holds what stands beside."""
    cuts: list[int] = []
    count = total = 0
    for index, unit in enumerate(units):
        size = size_of(unit)
        if count and (count + len(unit) > MOST_OPERATIONS - 1 or total + size > MOST_BYTES):
            cuts.append(index)
            count = total = 0
        count, total = count + len(unit), total + size
    if count and (count + len(beside) > MOST_OPERATIONS - 1 or total + size_of(beside) > MOST_BYTES):
        cuts.append(len(units))
    return [*cuts, len(units)]


def _in_parts(
    commit: EpisodeCommit,
    taken: Sequence[Taken],
    base: Base,
    units: Sequence[Sequence[Operation]],
    cuts: Sequence[int],
    last: State,
    beside: Sequence[Operation],
    *,
    now: Ticks,
    chance: Callable[[], str],
) -> list[Part]:
    places = {id(event): index for index, event in enumerate(commit.events)}
    projection = base.state.projection or initial(base.started)
    state, execution, first = base.state, commit.projection.execution_id, commit.first
    parts: list[Part] = []
    mine = [Local(execution, last.episode, base.local)] if base.local else []
    begun, name = 0, last.episode
    for end in cuts[:-1]:
        projection = project(projection, commit.events[begun:end])
        slim = projection.copy()
        slim.input = None
        # Only what stands: who finishes a cut episode is given the rest of its messages again.
        used = [one for one in taken if begun <= places.get(id(one.event), -1) < end]
        state = msgspec.structs.replace(
            last,
            episode=name,
            previous=state.episode,
            rows=first + end,
            projection=slim,
            condition=None,
            consumed=[*state.consumed, *(Used(one.id, now) for one in used if one.kept is None)],
            seen=[*state.seen, *(one.seen for one in used if one.seen is not None)],
            # Under the whole episode's name: the ids of what is sent are the same whoever sends it.
            # The extra rows of the debts before go with the last part; until then somebody must name them.
            owed=[*(one for one in base.state.owed if one.extra), Owed(execution, last.episode, first, first + end)],
            # What is answered goes with the last part, when it is: who finishes this one looks what has a result.
            local=(local := [] if projection.status in TERMINAL else [*base.state.local, *until(mine, first + end)]),
            keeper=base.keeper if local else None,
            woken=False,
        )
        writes = [operation for unit in units[begun:end] for operation in unit]
        parts.append(Part(operations=writes, state=state, execution_id=execution, complete=False))
        begun, name = end, next_episode(state.episode, chance())
    writes = [operation for unit in units[begun:] for operation in unit]
    final = msgspec.structs.replace(last, episode=name, previous=state.episode)
    parts.append(Part(operations=[*writes, *beside], state=final, execution_id=execution, complete=True))
    return parts


def log_parts(
    partition: str, rows: Sequence[LogRow], state: State, encode: Encode, chance: Callable[[], str]
) -> list[Part]:
    """The transactions that roll a redo log forward onto a sentinel that names it; the last one ends the log."""
    units = [
        [Operation(do=Do.REPLACE, partition=partition, key=row_key(at), values=encode(row.event, at, row.more))]
        for at, row in enumerate(rows)
    ]
    assert state.projection is not None
    execution, begun, parts = state.projection.execution_id, 0, []
    for end in _cuts(units, ()):
        state = msgspec.structs.replace(
            state,
            episode=next_episode(state.episode, chance()),
            previous=state.episode,
            log=state.log if end < len(units) else None,
        )
        writes = [operation for unit in units[begun:end] for operation in unit]
        parts.append(Part(operations=writes, state=state, execution_id=execution, complete=True))
        begun = end
    return parts


def decode_extra(text: str) -> Extra:
    """What `owed_key`'s row holds; raises msgspec.DecodeError."""
    return _extra.decode(text)


def encode_log(rows: Sequence[LogRow]) -> str:
    """A redo log as its blob holds it."""
    return msgspec.json.encode(rows).decode()


def decode_log(text: str) -> list[LogRow]:
    """A redo log from its blob's text; raises msgspec.DecodeError."""
    return _log.decode(text)


_extra: msgspec.json.Decoder[Extra] = msgspec.json.Decoder(Extra)
_log: msgspec.json.Decoder[list[LogRow]] = msgspec.json.Decoder(list[LogRow])

"""The sentinel row: the commit point of an instance, and what of ours stands on it.

.NET reads and writes three columns (`ExecutionId`, `IsCheckpointComplete`, `CheckpointCompletedTimestamp`) and
keeps all others.  Ours is one JSON text in the columns `Holdtrue`, `Holdtrue1`, `Holdtrue2`, ..., each within the
service's limit of 64 KB.  Pure: values in, values out.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from holdtrue.core.events import ExecutionStarted, Ticks
from holdtrue.core.projection import Condition, Projection
from holdtrue.stores.errors import StoreCorrupt
from holdtrue.stores.protocol import InstanceRecord

from .service import Instant, Row, Value

COLUMN = "Holdtrue"
UNITS_A_COLUMN = 31_000
"""UTF-16 units that we put into one column: a property may have 64 KB, two bytes a unit."""
MOST_COLUMNS = 14
"""So that the row stays under 1 MB, with 100 KB to spare."""


class Used(msgspec.Struct, frozen=True, array_like=True):
    """An inbound message that was used up: the id of its envelope, and when."""

    id: str
    at: Ticks


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """The id of an event or of a child's start that came, who sent it (empty: a client), and when it came."""

    id: str
    at: Ticks
    sender: str = ""
    execution: str = ""
    episode: int = 0


class Owed(msgspec.Struct, frozen=True, array_like=True):
    """What an episode has to send: what the rows of these ordinals ask for, and what no row holds.

    `extra` counts the messages that stand in the extra row of the episode (or in its blob).
    """

    execution: str
    episode: str
    first: int
    end: int
    extra: int = 0


class Local(msgspec.Struct, frozen=True, array_like=True):
    """Activities of an episode that run on the host that scheduled them, by the ordinals of their rows."""

    execution: str
    episode: str
    ordinals: list[int]


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """.NET's three columns as we wrote them: another mark tells that .NET wrote after us."""

    execution: str
    complete: bool
    at: Ticks | None


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All of ours on a sentinel.

    `episode` is `number-random`, one a commit; `rows` how many event rows count.  The record is without its
    payloads of the start (the row of the start holds them).  `log` names the blob of a redo log (rule 5), `payload` the
    blob of the projection's texts where they are too large for a row.
    `purging`: a purge is under way (rule 12), and takes the blobs made before `blobs_before`.  `woken`: one more
    episode is wanted, without any message.
    `waits`: it has messages, kept beside it, that a host without its code got.
    """

    episode: str = ""
    previous: str = ""
    rows: int = 0
    size: int = 0
    projection: Projection | None = None
    started: ExecutionStarted | None = None
    start_id: str = ""
    dialect: str = "dotnet"
    deadline: Ticks | None = None
    condition: Condition | None = None
    consumed: list[Used] = []
    owed: list[Owed] = []
    local: list[Local] = []
    keeper: str | None = None
    seen: list[Seen] = []
    mark: Mark | None = None
    log: str | None = None
    payload: str | None = None
    purging: bool = False
    blobs_before: Ticks = 0
    woken: bool = False
    waits: bool = False

    @property
    def number(self) -> int:
        """The number in the episode's id."""
        return number_of(self.episode)

    def copy(self) -> "State":
        """A value of its own; its lists are never changed in place."""
        return msgspec.structs.replace(self)


class Sentinel(msgspec.Struct, kw_only=True):
    """A sentinel as read: .NET's three columns, the etag, the service's time of its last write, and ours."""

    execution_id: str
    complete: bool
    completed_at: Ticks | None
    etag: str
    timestamp: Ticks
    state: State

    @property
    def mark(self) -> Mark:
        """The three columns as they stand."""
        return Mark(self.execution_id, self.complete, self.completed_at)

    @property
    def is_ours(self) -> bool:
        """False where .NET wrote after us, or we never did: the projection is not to be trusted (rule 8)."""
        return self.state.mark == self.mark

    @property
    def has_history(self) -> bool:
        """Whether event rows count.  One without was put there to keep messages of an instance not begun."""
        return not self.is_ours or self.state.rows > 0


def number_of(episode: str) -> int:
    """The number in an episode's id; 0 for none."""
    return int(episode.partition("-")[0] or 0)


def next_episode(before: str, chance: str) -> str:
    """The id of the episode after another: its number grows, `chance` makes it one host's own."""
    return f"{number_of(before) + 1}-{chance}"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(State).decode


def columns(text: str) -> dict[str, Value | None]:
    """A text in as many columns as it needs, the first of which says how many follow.

    Raises ValueError where the row would be too large.
    """
    pieces = _pieces(text) if len(text) <= MOST_COLUMNS * UNITS_A_COLUMN else []
    if not 1 <= len(pieces) <= MOST_COLUMNS:
        raise ValueError(f"{len(text)} characters do not fit a row")
    values: dict[str, Value | None] = {COLUMN: f"{len(pieces) - 1}:{pieces[0]}"}
    for number, piece in enumerate(pieces[1:], 1):
        values[f"{COLUMN}{number}"] = piece
    return values


def _pieces(text: str) -> list[str]:
    if len(text) * 2 <= UNITS_A_COLUMN or (text.isascii() and len(text) <= UNITS_A_COLUMN):
        return [text]
    pieces, at, units = [], 0, 0
    for index, character in enumerate(text):
        width = 2 if ord(character) > 0xFFFF else 1
        if units + width > UNITS_A_COLUMN:
            pieces.append(text[at:index])
            at, units = index, 0
        units += width
    pieces.append(text[at:])
    return pieces


def text_of(values: Mapping[str, Value]) -> str | None:
    """The text that `columns` spread; None where there is none.  Raises ValueError where a part is missing."""
    first = values.get(COLUMN)
    if not isinstance(first, str):
        return None
    count, colon, text = first.partition(":")
    if not colon or not count.isdecimal() or int(count) >= MOST_COLUMNS:
        raise ValueError(f"the column {COLUMN!r} does not begin with a number and a colon")
    parts = [text]
    for number in range(1, int(count) + 1):
        part = values.get(f"{COLUMN}{number}")
        if not isinstance(part, str):
            raise ValueError(f"the column '{COLUMN}{number}' is missing")
        parts.append(part)
    return "".join(parts)


def sentinel_values(
    execution: str, complete: bool, at: Ticks | None, state: State, standing: Ticks | None = None
) -> dict[str, Value | None]:
    """The columns of a sentinel that we write: .NET's three, and ours with the mark that says so.

    Without a time of its own a merge leaves the one that is `standing` there.
    """
    marked = msgspec.structs.replace(state, mark=Mark(execution, complete, standing if at is None else at))
    values: dict[str, Value | None] = {"ExecutionId": execution, "IsCheckpointComplete": complete}
    if at is not None:
        values["CheckpointCompletedTimestamp"] = Instant(at)
    return {**values, **columns(_text(marked))}


def state_values(state: State) -> dict[str, Value | None]:
    """Our columns alone, for a merge that leaves .NET's three as they are; the mark stays what it was."""
    return columns(_text(state))


def _text(state: State) -> str:
    if state.payload is not None and state.projection is not None:
        projection = state.projection.copy()
        projection.output = projection.custom_status = projection.failure = None
        state = msgspec.structs.replace(state, projection=projection)
    return _encode(state).decode()


def read_sentinel(row: Row) -> Sentinel:
    """A sentinel from its row; raises StoreCorrupt where our columns are damaged."""
    values = row.values
    at = values.get("CheckpointCompletedTimestamp")
    try:
        text = text_of(values)
        state = State() if text is None else _decode(text)
    except (ValueError, msgspec.DecodeError) as error:
        raise StoreCorrupt(
            f"the sentinel of instance partition {row.partition!r} cannot be read: {error}. Nothing was changed; "
            "restore the row, or purge the instance"
        ) from error
    return Sentinel(
        execution_id=str(values.get("ExecutionId") or ""),
        complete=values.get("IsCheckpointComplete") is not False,
        completed_at=at.ticks if isinstance(at, Instant) else None,
        etag=row.etag,
        timestamp=row.timestamp,
        state=state,
    )


def slim(record: InstanceRecord) -> tuple[Projection, ExecutionStarted]:
    """The projection and the start as a sentinel holds them: without the input, which its own row holds."""
    projection = record.projection.copy()
    projection.input = None
    return projection, msgspec.structs.replace(record.started, input=None)


def record_of(state: State, input: str | None) -> InstanceRecord:
    """The record that a sentinel of ours stands for, with the input of its execution."""
    assert state.projection is not None and state.started is not None
    projection = state.projection.copy()
    projection.input = input
    return InstanceRecord(
        projection=projection,
        started=msgspec.structs.replace(state.started, input=input),
        start_id=state.start_id,
        dialect=state.dialect,
        deadline=state.deadline,
        condition=state.condition,
        length=state.rows,
        size=state.size,
    )


def extra_text(value: Any) -> dict[str, Value | None]:
    """An extra row's columns from any value of ours."""
    return columns(_encode(value).decode())

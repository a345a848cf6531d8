"""The lines of a history file: recorded instances as JSON, one a line, and back (docs/reference/history-files.md).

Pure: from values to lines and from lines to values.  A line that was cut or changed, that a newer Holdtrue wrote,
or whose parts do not belong together is refused, with its place; nothing of it is guessed.
"""

import re
import zlib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import msgspec

from holdtrue.core.dialect import DIALECTS
from holdtrue.core.episode import ExecutionState
from holdtrue.core.errors import InvalidInput, InvariantBroken
from holdtrue.core.events import AnyEvent, ExecutionStarted, FailureDetails, Ticks
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import Condition, Projection, Status, initial
from holdtrue.stores.protocol import ActivityCopy, InstanceCopy, InstanceRecord, is_rewinding

SCHEMA = "holdtrue.histories"
VERSION = 1

_SUM = re.compile(rb',"sum":"([0-9a-f]{8})"\}\Z')
_BYTE = re.compile(r"\(byte (\d+)\)")
_FIELD = re.compile(r"at `(\$[^`]*)`")
_STATUS = {status: status.name.title().replace("_", "") for status in Status}
_NAMED = {name: status for status, name in _STATUS.items()}


class HistoryFileError(InvalidInput):
    """A history file cannot be used: the message names the file, the line, and the column or the member.

    `line` counts from 1 (0: the file as a whole), `place` is `column n` or a member as `$.events[3]`.
    """

    def __init__(self, file: str, line: int, place: str | None, what: str) -> None:
        where = [f"history file {file!r}", *([f"line {line}"] if line else []), *([place] if place else [])]
        super().__init__(f"{', '.join(where)}: {what}")
        self.file = file
        self.line = line
        self.place = place


class HistoryFileTooNew(HistoryFileError):
    """A newer Holdtrue wrote the file."""


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="line", tag="header"):
    """The first line: what the file is, which Holdtrue wrote it, and whether payloads were taken out."""

    schema: str = SCHEMA
    version: int = VERSION
    written_by: str = ""
    redacted: bool = False


class InstanceLine(
    msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="line", tag="instance"
):
    """One instance: its record, then its history and what is under way for it.

    `events` is the number of events in `history`; payloads are JSON texts, times ticks.
    """

    instance_id: str
    status: str
    dialect: str
    start_id: str
    started: ExecutionStarted
    created_at: Ticks
    last_updated_at: Ticks
    completed_at: Ticks | None = None
    deadline: Ticks | None = None
    output: str | None = None
    failure: FailureDetails | None = None
    custom_status: str | None = None
    condition: Condition | None = None
    wake: bool = False
    events: int
    history: list[AnyEvent]
    messages: list[OutboundMessage] = []
    activities: list[ActivityCopy] = []


class EndLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="line", tag="end"):
    """The last line: how many instances and events there are in all."""

    instances: int
    events: int


class _AnyVersion(msgspec.Struct):
    schema: str
    version: int


_header = msgspec.json.Decoder(Header)
_any_version = msgspec.json.Decoder(_AnyVersion)
_following: msgspec.json.Decoder[InstanceLine | EndLine] = msgspec.json.Decoder(InstanceLine | EndLine)


# -- writing ---------------------------------------------------------------------------------------------


def written_by() -> str:
    """This Holdtrue, for the header."""
    try:
        return version("holdtrue")
    except PackageNotFoundError:
        return "unknown"


def seal(line: Any) -> bytes:
    """A line as it stands in the file, with its checksum and line end."""
    body = msgspec.json.encode(line)[:-1]
    return body + b',"sum":"%08x"}\n' % zlib.crc32(body)


def line_of(copy: InstanceCopy) -> InstanceLine:
    """The line of an instance."""
    record, p = copy.record, copy.record.projection
    return InstanceLine(
        instance_id=p.instance_id,
        status=_STATUS[p.status],
        dialect=record.dialect,
        start_id=record.start_id,
        started=record.started,
        created_at=p.created_at,
        last_updated_at=p.last_updated_at,
        completed_at=p.completed_at,
        deadline=record.deadline,
        output=p.output,
        failure=p.failure,
        custom_status=p.custom_status,
        condition=record.condition,
        wake=copy.wake,
        events=len(copy.history),
        history=copy.history,
        messages=copy.messages,
        activities=copy.activities,
    )


# -- reading ---------------------------------------------------------------------------------------------


class Lines:
    """Takes the lines of one file, in order, and gives its instances; `end` says that there must be no more.

    Raises HistoryFileError at the first line that cannot be used.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.header: Header | None = None
        self._line = 0
        self._events = 0
        self._ids: dict[str, int] = {}
        self._ended = False

    def read(self, lines: Iterable[bytes]) -> Iterator[InstanceCopy]:
        """The instances of these lines."""
        for line in lines:
            copy = self._take(line)
            if copy is not None:
                yield copy

    def end(self) -> None:
        """There are no more lines: all must have come."""
        if not self._ended:
            self._line = 0
            what = (
                "is empty" if self.header is None else "is cut: its last line, which counts the instances, is missing"
            )
            self._refuse(None, f"it {what}. Export it again, or fetch it again whole")

    def _take(self, line: bytes) -> InstanceCopy | None:
        self._line += 1
        line = line.rstrip(b"\r\n")
        self._check_text(line)
        if self._ended:
            self._refuse(None, "stands after the file's last line; files are not to be joined")
        if self.header is None:
            self.header = self._first(line)
            return None
        found = self._decode(_following, line)
        if isinstance(found, EndLine):
            self._ended = True
            counted = EndLine(instances=len(self._ids), events=self._events)
            if found != counted:
                self._refuse(
                    None,
                    f"counts {found.instances} instances and {found.events} events, the file has {counted.instances} "
                    f"and {counted.events}: lines are missing or were added",
                )
            return None
        return self._instance(found)

    def _check_text(self, line: bytes) -> None:
        if not line:
            self._refuse(None, "is empty")
        if line[:2] in (b"\xff\xfe", b"\xfe\xff") or line[:3] == b"\xef\xbb\xbf":
            self._refuse("column 1", "begins with a byte order mark: the file was saved again in another encoding")
        try:
            line.decode()
        except UnicodeDecodeError as error:
            self._refuse(f"column {error.start + 1}", f"is no UTF-8 text ({error.reason})")
        found = _SUM.search(line)
        if found is None:
            if self.header is None and b'"' + SCHEMA.encode() + b'"' not in line:
                self._refuse(None, "this is no history file of Holdtrue's (`holdtrue export-history` writes them)")
            self._refuse(f"column {len(line)}", "is cut, or was changed: it does not end with its checksum")
        if found[1] != b"%08x" % zlib.crc32(line[: found.start()]):
            self._refuse(f"column {found.start() + 1}", "was changed after it was written: its checksum does not fit")

    def _first(self, line: bytes) -> Header:
        told = self._decode(_any_version, line)
        if told.schema != SCHEMA:
            self._refuse("$.schema", f"this is a file of {told.schema!r}, not of {SCHEMA!r}")
        if told.version > VERSION:
            what = f"is of version {told.version}, this Holdtrue reads up to {VERSION}: use the newer one that wrote it"
            raise HistoryFileTooNew(self.file, self._line, "$.version", what)
        header: Header = self._decode(_header, line)
        return header

    def _decode(self, decoder: msgspec.json.Decoder[Any], line: bytes) -> Any:
        # The checksum has done its work; no line has such a member.
        text = _SUM.sub(b"}", line)
        try:
            return decoder.decode(text)
        except msgspec.ValidationError as error:
            field = _FIELD.search(str(error))
            self._refuse(field[1] if field else None, str(error))
        except (msgspec.DecodeError, RecursionError) as error:
            at = _BYTE.search(str(error))
            self._refuse(f"column {int(at[1]) + 1}" if at else None, str(error))

    def _instance(self, line: InstanceLine) -> InstanceCopy:
        before = self._ids.setdefault(line.instance_id, self._line)
        if before != self._line:
            self._refuse("$.instance_id", f"instance {line.instance_id!r} stands in line {before} already")
        if line.events != len(line.history):
            self._refuse("$.events", f"says {line.events} events, and there are {len(line.history)}")
        if line.dialect not in DIALECTS:
            self._refuse("$.dialect", f"{line.dialect!r} is not one of {', '.join(DIALECTS)}")
        if line.status not in _NAMED:
            self._refuse("$.status", f"{line.status!r} is not one of {', '.join(_NAMED)}")
        if line.started.instance_id != line.instance_id:
            self._refuse("$.started.instance_id", f"is {line.started.instance_id!r}, of another instance")
        self._check_parts(line)
        self._events += line.events
        copy = copy_of(line)
        self._check_fold(copy)
        return copy

    def _check_parts(self, line: InstanceLine) -> None:
        """Messages and work items are the instance's own, and no work item comes twice."""
        for number, message in enumerate(line.messages):
            if message.instance_id != line.instance_id:
                self._refuse(f"$.messages[{number}].instance_id", f"is {message.instance_id!r}, of another instance")
        seen = set()
        for number, activity in enumerate(line.activities):
            task = activity.task
            if task.instance_id != line.instance_id:
                self._refuse(
                    f"$.activities[{number}].task.instance_id", f"is {task.instance_id!r}, of another instance"
                )
            if (task.execution_id, task.scheduled) in seen:
                self._refuse(f"$.activities[{number}].task.scheduled", "this work item stands there twice")
            seen.add((task.execution_id, task.scheduled))

    def _check_fold(self, copy: InstanceCopy) -> None:
        """The events can follow each other, and give the status that the record has."""
        record = copy.record
        try:
            folded = _fold(record, copy.history)
        except InvariantBroken:
            folded = record.projection  # found again below, event by event
            for number in range(len(copy.history)):
                try:
                    _fold(record, copy.history[: number + 1])
                except InvariantBroken as error:
                    self._refuse(f"$.history[{number}]", f"this event cannot come here: {error}")
        told = record.projection
        if folded.execution_id != told.execution_id or folded.instance_id != told.instance_id:
            self._refuse("$.history", "its ExecutionStarted is not that of `started`")
        if is_rewinding(record):
            if folded.status is not Status.FAILED:
                self._refuse("$.status", f"is Pending (a rewind), but the history says {_STATUS[folded.status]}")
            return
        for member in ("status", "output", "failure", "completed_at"):
            if getattr(folded, member) != getattr(told, member):
                self._refuse(f"$.{member}", f"is not what the history gives ({_shown(getattr(folded, member))})")

    def _refuse(self, place: str | None, what: str) -> NoReturn:
        raise HistoryFileError(self.file, self._line, place, what)


def _shown(value: Any) -> str:
    return _STATUS[value] if isinstance(value, Status) else repr(value)


def _fold(record: InstanceRecord, history: list[AnyEvent]) -> Projection:
    state = ExecutionState(projection=initial(record.started), dialect=record.dialect)
    state.extend(history)
    return state.projection


def copy_of(line: InstanceLine) -> InstanceCopy:
    """The instance of a line that was found in order."""
    p = initial(line.started)
    p.status = _NAMED[line.status]
    p.created_at, p.last_updated_at, p.completed_at = line.created_at, line.last_updated_at, line.completed_at
    p.output, p.failure, p.custom_status = line.output, line.failure, line.custom_status
    return InstanceCopy(
        record=InstanceRecord(
            projection=p,
            started=line.started,
            start_id=line.start_id,
            dialect=line.dialect,
            deadline=line.deadline,
            condition=line.condition,
            length=len(line.history),
        ),
        history=line.history,
        messages=line.messages,
        activities=line.activities,
        wake=line.wake,
    )

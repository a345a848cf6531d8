"""Files of recorded instances: written whole or not at all, read whole or not at all; gzip by the name's end `.gz`."""

import contextlib
import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from holdtrue.environment import REAL
from holdtrue.stores.protocol import InstanceCopy

from .history_format import EndLine, Header, HistoryFileError, Lines, line_of, seal, written_by
from .redaction import redacted

_GZIP = b"\x1f\x8b"


class Output(Protocol):
    """Where lines go: what is needed of a binary file."""

    def write(self, data: bytes, /) -> object:
        """Take these bytes."""


class RecordedHistories(NamedTuple):
    """What a history file holds; `is_redacted` where its payloads were taken out."""

    instances: list[InstanceCopy]
    is_redacted: bool


class Written(NamedTuple):
    """How much was written."""

    instances: int
    events: int


def read_histories(path: str | os.PathLike[str]) -> RecordedHistories:
    """The instances of a history file, packed or not.

    Raises HistoryFileError (a value that cannot be meant) for a file that is cut, was changed, is of a newer
    Holdtrue or none of ours; OSError where it cannot be read.
    """
    name = os.fspath(path)
    lines = Lines(name)
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        try:
            instances = list(lines.read(gzip.open(file) if packed else file))  # noqa: SIM115  closed with the file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            what = f"its packing (gzip) is cut or damaged: {error}. Export it again, or fetch it again whole"
            raise HistoryFileError(name, 0, None, what) from error
    lines.end()
    assert lines.header is not None
    return RecordedHistories(instances, lines.header.redacted)


def write_histories(
    path: str | os.PathLike[str],
    instances: Iterable[InstanceCopy],
    *,
    redact: bool = False,
    written: Callable[[int], None] = lambda count: None,
) -> Written:
    """Write instances into a history file, which takes the place of one of that name when it is whole.

    `redact` takes payloads out (`testing.redaction`).  `written` is told how many there are so far.  Raises OSError.
    """
    with replacing(path) as file:
        return write_lines(file, instances, redact=redact, written=written)


def write_lines(
    file: Output,
    instances: Iterable[InstanceCopy],
    *,
    redact: bool = False,
    written: Callable[[int], None] = lambda count: None,
) -> Written:
    """The same into an open file."""
    file.write(seal(Header(written_by=written_by(), redacted=redact)))
    count = events = 0
    for copy in instances:
        file.write(seal(line_of(redacted(copy) if redact else copy)))
        count, events = count + 1, events + len(copy.history)
        written(count)
    file.write(seal(EndLine(instances=count, events=events)))
    return Written(count, events)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Output]:
    """A file to write to, which takes the name `path` when all went well, and is gone otherwise."""
    target = os.fspath(path)
    unfinished = f"{target}.{REAL.new_id()}.unfinished"
    try:
        with open(unfinished, "xb") as plain:
            if target.endswith(".gz"):
                # No time and no name in it: the same instances give the same bytes.
                with gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0) as packed:
                    yield packed
            else:
                yield plain
            plain.flush()
            os.fsync(plain.fileno())
        os.replace(unfinished, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)

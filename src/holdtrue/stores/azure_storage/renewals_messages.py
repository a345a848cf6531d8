"""What a host and the process that renews for it say to each other, and over what: MessagePack in frames, many at once.

Both read the socket when they choose to, beside their loops too, and neither ever waits for it.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from holdtrue.frames import frame, take_frames

from .http.connection import Reopening
from .partitions import Lease
from .renewals import Standing
from .renewing import AppLeaseHeld, Message, RenewalTerms

ROOM = 1 << 20
"""Bytes that the system is asked to keep for a side that does not read."""


class Setup(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """To the process, first: the account and the terms."""

    account: Reopening
    terms: RenewalTerms


class Hold(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Renew these; `Has` answers."""

    turn: int
    messages: list[Message]


class Withdraw(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Renew this no more.  Nothing answers: who asks for a receipt all the same sends `Ask` after it."""

    number: int


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Renew this no more, and tell its receipt when no renewal is under way; `Receipt` answers."""

    number: int


class Forget(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Renew these no more; nobody asks for them again."""

    numbers: list[int]


class KeepRow(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Renew a partition's row."""

    lease: Lease
    until: float


class DropRow(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Renew it no more."""

    partition: str


class KeepAppLease(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Renew the app lease."""

    held: AppLeaseHeld
    until: float


class DropAppLease(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Renew it no more; `Dropped` answers when no renewal is under way."""


class Alive(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """A sign of life of the host's loop, and by how much the service's clock is before the monotonic one.

    `Alive` answers.
    """

    offset: float | None = None


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """From the process: it has begun, and its monotonic clock shows this."""

    now: float


class Has(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """These of a `Hold` are in hand."""

    turn: int
    numbers: list[int]


class Receipt(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The newest receipt of a message: None where a renewal took it along.  Not `known`: none was ever begun."""

    number: int
    known: bool
    receipt: str | None = None


class RowStands(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """How a row stands.  (Of one that is renewed no more nothing is said: its time ends by itself.)"""

    partition: str
    standing: Standing


class AppLeaseStands(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Until when the app lease is ours; 0 where it is lost."""

    until: float


class Dropped(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """No renewal of the app lease is under way."""


class Ends(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """It renews nothing any more and ends, for this reason."""

    why: str


Command = Setup | Hold | Withdraw | Ask | Forget | KeepRow | DropRow | KeepAppLease | DropAppLease | Alive
Report = Ready | Has | Receipt | RowStands | AppLeaseStands | Dropped | Ends | Alive

_encoder = msgspec.msgpack.Encoder()
commands = msgspec.msgpack.Decoder(list[Command])
reports = msgspec.msgpack.Decoder(list[Report])


def encode(some: Sequence[Command] | Sequence[Report]) -> bytes:
    """Commands or reports as one message."""
    return _encoder.encode(some)


class Link(Protocol):
    """One side of what lies between host and process."""

    def listen(self, heard: Callable[[], None]) -> None:
        """From now on call this, on the running loop, when there is something to read."""

    def read(self) -> list[bytes]:
        """All messages that have come by now."""

    def write(self, body: bytes) -> bool:
        """Send a message: true where the other side can read all that was ever sent, from this moment on."""

    @property
    def waits(self) -> bool:
        """Whether something that was sent cannot be read by the other side yet."""

    @property
    def ended(self) -> bool:
        """Whether the other side is gone."""

    def close(self) -> None:
        """Leave; idempotent."""


class SocketLink:
    """A link over a socket."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            link.setsockopt(socket.SOL_SOCKET, option, ROOM)
        self._socket = link
        self._loop: asyncio.AbstractEventLoop | None = None
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._writes = False
        self._ended = False

    def listen(self, heard: Callable[[], None]) -> None:
        if not self._ended:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._socket, heard)

    def read(self) -> list[bytes]:
        while not self._ended:
            try:
                data = self._socket.recv(1 << 16)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data:
                self._ended = True
                self.close()
            self._incoming += data
        return take_frames(self._incoming)

    def write(self, body: bytes) -> bool:
        self._outgoing += frame(body)
        return self._send()

    def _send(self) -> bool:
        while self._outgoing and not self._ended:
            try:
                del self._outgoing[: self._socket.send(self._outgoing)]
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                return False  # the end of what it said is yet to be read
        if bool(self._outgoing) is not self._writes and self._loop is not None and not self._ended:
            self._writes = not self._writes
            if self._writes:
                self._loop.add_writer(self._socket, self._send)
            else:
                self._loop.remove_writer(self._socket)
        return not self._outgoing and not self._ended

    @property
    def waits(self) -> bool:
        return bool(self._outgoing)

    @property
    def ended(self) -> bool:
        return self._ended

    def close(self) -> None:
        self._ended = True
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._loop = None
        self._socket.close()

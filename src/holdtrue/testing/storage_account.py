"""What the parts of a model account share: its clock, its chance, its manners, and how a request takes its way.

A request takes a step of the loop to arrive, has its effect at one moment, and takes a step for its answer:
whoever sends it may end in between.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.environment import Environment
from holdtrue.stores.azure_storage.service import Conflict, NotThere, Refused


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """In what the service and the emulator differ.

    `short_pages`: answers come in pages cut anywhere, empty ones too.  `tells_old_receipts`: an old receipt of a
    message that is there has an error of its own.  `shuffles`: messages come out of order.  `deletion` is for how
    many seconds the name of a deleted table, queue or container cannot be used again.  `row_limit` in bytes.
    """

    short_pages: bool = True
    tells_old_receipts: bool = False
    shuffles: bool = True
    deletion: float = 30.0
    row_limit: int = 1 << 20


REAL = Manner()
"""As Azure Storage answers."""
AZURITE = Manner(short_pages=False, tells_old_receipts=True, shuffles=False, deletion=0.0, row_limit=1 << 22)
"""As the emulator answers."""


class Account:
    """The clock and the chance of an account, and the names of its resources that are being deleted."""

    def __init__(self, environment: Environment, manner: Manner) -> None:
        self.environment = environment
        self.manner = manner
        self.random = environment.random()
        self.watch: Callable[[str, tuple[Any, ...], Any], None] | None = None
        """Called at the moment a request has its effect, with its name, what it was given and its outcome."""
        self._last_tick: Ticks = 0
        self._deleted: dict[tuple[str, str], Ticks] = {}

    def now(self) -> Ticks:
        """The service's clock."""
        return self.environment.now()

    def tick(self) -> Ticks:
        """A time that no other write has."""
        self._last_tick = max(self._last_tick + 1, self.now())
        return self._last_tick

    def fresh_id(self) -> str:
        """A GUID in its usual form."""
        digits = f"{self.random.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def deleted(self, kind: str, name: str) -> None:
        """A table, queue or container is gone; its name is not free yet."""
        self._deleted[kind, name] = self.now() + int(self.manner.deletion * TICKS_PER_SECOND)

    def check_free(self, kind: str, name: str) -> None:
        """Raises Conflict where the name is that of a thing being deleted."""
        if self.now() < self._deleted.get((kind, name), 0):
            raise Conflict(409, f"{kind}BeingDeleted", f"{name} is being deleted; try again later")


class _Part(Protocol):
    @property
    def account(self) -> Account: ...


P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=_Part)


def request(do: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a coroutine function of what a request does at the moment of its effect."""

    async def on_its_way(self: S, /, *given: P.args, **named: P.kwargs) -> T:
        await asyncio.sleep(0)
        try:
            outcome = do(self, *given, **named)
            if self.account.watch is not None:
                self.account.watch(do.__name__, given, outcome)
            return outcome
        finally:
            await asyncio.sleep(0)

    update_wrapper(on_its_way, do)
    return on_its_way


def seconds_in_ticks(seconds: int) -> Ticks:
    """Whole seconds."""
    return seconds * TICKS_PER_SECOND


def whole_second(at: Ticks) -> Ticks:
    """As the headers and lists of the service give a time."""
    return at - at % TICKS_PER_SECOND


def refuse(code: str, message: str = "") -> Refused:
    """The error of a request that makes no sense (400)."""
    return Refused(400, code, message)


def not_there(code: str, message: str = "") -> NotThere:
    """404."""
    return NotThere(404, code, message)


def expected_otherwise(code: str, message: str = "") -> Conflict:
    """412: what stands there is not what the request expected."""
    return Conflict(412, code, message)

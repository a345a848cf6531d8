"""Between clients and an emulator of Azure Storage: counts each request by its kind, and spoils those it is told to.

It listens on three ports of loopback, one for each service.  The signatures of requests do not cover the host, so
that a connection string with these ports is all that a client needs.  A rule says for the n-th request that matches
what becomes of it (`Fault`); `cut_off` makes the account unreachable for good, as it is to a host that was killed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from .storage_real_service import RealService, refusal
from .storage_requests import About, Answer, Request, about, messages_in
from .storage_wire import Emulator, read_request, reset, write_answer

SERVICES = ("blob", "queue", "table")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a request: `delay` seconds before it is forwarded `forward` times; then `call`, then the answer.

    `answer` is the true one; or none, with the connection closed or reset; or half of it; or a status in its place.
    It is given after `hold` seconds more, and no sooner than `pace` seconds after the request came.
    """

    name: str
    forward: int = 1
    answer: Literal["true", "close", "reset", "half"] | int = "true"
    delay: float = 0.0
    hold: float = 0.0
    pace: float = 0.0
    call: "Callable[[StorageProxy], None] | None" = None


REFUSED = Fault(name="refused", forward=0, answer="close")
RESET_BEFORE = Fault(name="reset before it was done", forward=0, answer="reset")
ANSWER_LOST = Fault(name="answer lost", answer="reset")
CUT_SHORT = Fault(name="answer cut short", answer="half")
TWICE = Fault(name="delivered twice", forward=2)


def answered(status: int) -> Fault:
    """It is done, and a status says that it was not: 500, 503, 409, 412, 429."""
    return Fault(name=f"{status} after it was done", answer=status)


def instead(status: int) -> Fault:
    """It is not done, and a status says so."""
    return Fault(name=f"{status} in place of it", forward=0, answer=status)


def late(seconds: float) -> Fault:
    """It is done so much later: after the client has given up, where that is more than its time-out."""
    return Fault(name="done late", delay=seconds)


def paced(seconds: float) -> Fault:
    """It is done at once, and its answer comes so long after it, however long it took (if not longer)."""
    return Fault(name="paced", pace=seconds)


def answered_late(seconds: float) -> Fault:
    """It is done at once, and its answer comes so much later."""
    return Fault(name="answered late", hold=seconds)


def killed(call: "Callable[[StorageProxy], None]", *, before: bool = False) -> Fault:
    """`call` kills who sent it to that proxy: after it was done and before its answer, or before it is done."""
    return Fault(
        name=f"killed {'before' if before else 'after'}", forward=0 if before else 1, answer="reset", call=call
    )


class Seen(msgspec.Struct, kw_only=True):
    """A request that came, and what became of it.

    `at` is the event loop's time when it came.  `status` is that of the true answer (None: not forwarded, or not yet
    answered); `empty` marks a get of a queue that gave no message.
    """

    number: int
    at: float
    request: Request
    about: About
    instances: tuple[str, ...] = ()
    status: int | None = None
    empty: bool = False
    fault: str | None = None

    @property
    def kind(self) -> str:
        """What it is counted by."""
        return f"{self.about.kind} (empty)" if self.empty else self.about.kind


class Rule:
    """Which requests are spoiled, and how: those from the `nth` on that `matches`, `times` of them.

    With `answered` the true answer must match too; such a request is judged after it was forwarded once.
    """

    def __init__(
        self,
        matches: Callable[[Seen], bool],
        fault: Fault,
        *,
        nth: int = 1,
        times: int = 1,
        answered: Callable[[Answer], bool] | None = None,
    ) -> None:
        if answered is not None and (fault.forward == 0 or fault.delay):
            raise ValueError(f"{fault.name}: a rule that looks at the answer comes too late for it")
        self._matches = matches
        self._nth, self._times = nth, times
        self._met = 0
        self.answered = answered
        self.fault = fault
        self.spoiled: list[Seen] = []

    def meets(self, seen: Seen, answer: Answer | None = None) -> bool:
        """Whether this one is to be spoiled; counts it."""
        if (answer is None) != (self.answered is None) or not self._matches(seen):
            return False
        if answer is not None and self.answered is not None and not self.answered(answer):
            return False
        self._met += 1
        if not self._nth <= self._met < self._nth + self._times:
            return False
        self.spoiled.append(seen)
        seen.fault = self.fault.name
        return True


class StorageProxy:
    """A proxy before the services that listen on the ports `upstream` of loopback.  Use it with `async with`.

    `real` makes the emulator answer as the real service does.  `keep` says whether `seen` keeps what came.  `told`
    is called with each request when it was done, before its answer goes.
    """

    def __init__(
        self,
        upstream: Mapping[str, int],
        *,
        real: RealService | None = None,
        keep: bool = True,
        told: Callable[[Seen], None] | None = None,
    ) -> None:
        self._upstream = upstream
        self._real = real
        self._keep = keep
        self._told = told
        self.rules: list[Rule] = []
        """The first that meets a request has it.  One rule may stand in several proxies, and counts in all."""
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._messages: dict[str, str] = {}
        self._number = 0
        self._cut_off = False
        self.ports: dict[str, int] = {}
        self.seen: list[Seen] = []
        self.counts: Counter[str] = Counter()
        """By kind; gets that gave no message count apart."""

    async def __aenter__(self) -> "StorageProxy":
        for service in SERVICES:
            server = await asyncio.start_server(self._serving(service), "127.0.0.1", 0, limit=2**16)
            self._servers.append(server)
            self.ports[service] = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self.cut_off()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def spoil(
        self,
        matches: Callable[[Seen], bool],
        fault: Fault,
        *,
        nth: int = 1,
        times: int = 1,
        answered: Callable[[Answer], bool] | None = None,
    ) -> Rule:
        """Add a rule; its `spoiled` says what it met."""
        rule = Rule(matches, fault, nth=nth, times=times, answered=answered)
        self.rules.append(rule)
        return rule

    def cut_off(self) -> None:
        """Close every connection, and open none any more.  What was forwarded is done all the same."""
        self._cut_off = True
        for server in self._servers:
            server.close()
        for writer in list(self._writers):
            reset(writer)

    def work(self) -> int:
        """The requests so far that did something: without empty polls, renewals of messages, and leases."""
        return sum(count for kind, count in self.counts.items() if not is_upkeep(kind))

    # -- one connection --------------------------------------------------------------------------------

    def _serving(self, service: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(service, reader, writer))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        return begin

    async def _serve(self, service: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        emulator = Emulator(self._upstream[service])
        try:
            while (request := await read_request(service, reader)) is not None:
                if not await self._one(request, writer, emulator):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            emulator.close()

    async def _one(self, request: Request, writer: asyncio.StreamWriter, emulator: Emulator) -> bool:
        """Whether the connection goes on."""
        seen = self._meet(request)
        fault = next((rule.fault for rule in self.rules if rule.meets(seen)), None)
        if fault is not None and fault.delay:
            await asyncio.sleep(fault.delay)
        answer: Answer | None = None
        for _ in range(1 if fault is None else fault.forward):
            answer = await self._forward(request, seen, emulator)
        if fault is None and answer is not None:
            fault = next((rule.fault for rule in self.rules if rule.meets(seen, answer)), None)
            if fault is not None:
                for _ in range(fault.forward - 1):
                    answer = await self._forward(request, seen, emulator)
        self.counts[seen.kind] += 1
        if self._told is not None and seen.status is not None:
            self._told(seen)
        if fault is None:
            assert answer is not None
            return await write_answer(writer, request, answer)
        if fault.call is not None:
            fault.call(self)
        wait = max(fault.hold, seen.at + fault.pace - asyncio.get_running_loop().time())
        if wait > 0:
            await asyncio.sleep(wait)
        if isinstance(fault.answer, int):
            return await write_answer(writer, request, refusal(seen.about, fault.answer))
        if fault.answer == "true" and answer is not None:
            return await write_answer(writer, request, answer)
        if fault.answer == "half" and answer is not None:
            await write_answer(writer, request, answer, half=True)
        if fault.answer == "reset":
            reset(writer)
        return False

    def _meet(self, request: Request) -> Seen:
        what = about(request)
        self._number += 1
        seen = Seen(number=self._number, at=asyncio.get_running_loop().time(), request=request, about=what)
        instance = what.instance or (self._messages.get(what.message) if what.message is not None else None)
        if instance is not None:
            seen.instances = (instance,)
        if self._keep:
            self.seen.append(seen)
        return seen

    async def _forward(self, request: Request, seen: Seen, emulator: Emulator) -> Answer:
        real = self._real
        answer = real.instead(request, seen.about) if real is not None else None
        if answer is None:
            sent = real.asked(request, seen.about) if real is not None else request
            answer = await emulator.ask(sent)
            if real is not None:
                answer = real.answered(seen.about, answer)
        seen.status = answer.status
        if seen.about.service == "queue" and seen.about.operation in ("put", "get", "peek"):
            found = messages_in(answer)
            seen.empty = seen.about.operation == "get" and answer.status == 200 and not found
            for message, instance in found.items():
                if (known := instance or seen.about.instance) is not None:
                    self._messages[message] = known
            seen.instances = tuple(dict.fromkeys([*seen.instances, *(one for one in found.values() if one)]))
        return answer


def is_upkeep(kind: str) -> bool:
    """Whether requests of a kind are there without any work: polls without a message, renewals, leases."""
    service, operation, role = kind.split(" ", 2)
    if service == "queue":
        return operation == "renew" or role.endswith("(empty)")
    if service == "blob":
        return operation.startswith("lease-") or role in ("applease", "leases")
    return role == "partitions"

"""The process that renews for a host: a Python of its own in which no code of a user's runs.

It ends when its host does, or closes the socket, or gives no sign of life for long: then it lets all go.
"""

import asyncio
import os
import signal
import socket
import types
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from holdtrue.environment import REAL, Environment

from .http.connection import reopen
from .renewals import MessageHeld, Renewer
from .renewals_messages import (
    Alive,
    AppLeaseStands,
    Ask,
    Command,
    DropAppLease,
    Dropped,
    DropRow,
    Ends,
    Forget,
    Has,
    Hold,
    KeepAppLease,
    KeepRow,
    Link,
    Ready,
    Receipt,
    Report,
    RowStands,
    Setup,
    SocketLink,
    Withdraw,
    commands,
    encode,
)
from .renewing import RenewalTerms
from .service import Service

LOOK_SECONDS = 0.5
"""How often it is looked whether the host is there."""
FULL_SECONDS = 0.05
"""For how long what is to be said waits where the host does not read."""


class RenewalServer:
    """The process's side: hears a host, renews for it, and tells what came of it.

    `has_host` says whether the host lives; its end shows in the link too, but for what it has forked.
    """

    def __init__(
        self,
        link: Link,
        service: Service,
        environment: Environment,
        terms: RenewalTerms,
        has_host: Callable[[], bool],
    ) -> None:
        self._link = link
        self._environment = environment
        self._terms = terms
        self._has_host = has_host
        self._renewer = Renewer(service, environment, terms, changed=self._changed, before=self.hear)
        self._left: dict[int, MessageHeld] = {}
        """Withdrawn although a renewal was begun: its host asks for them yet."""
        self._heard_at = environment.monotonic()
        self._reports: list[Report] = []
        self._news: set[str | None] = set()
        self._telling: asyncio.Handle | None = None
        self._answers: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Until the host is gone, or gives no sign of life."""
        await self._renewer.open()
        self._link.listen(self.hear)
        self._tell(Ready(self._environment.monotonic()))
        try:
            while not self._link.ended and self._has_host():
                self.hear()
                silent = self._environment.monotonic() - self._heard_at
                if silent > self._terms.silence:
                    self._reports.append(Ends(f"the host's loop gave no sign of life for {silent:.0f} s"))
                    self._say()
                    return
                await self._environment.sleep(LOOK_SECONDS)
        finally:
            await self._renewer.close()
            for task in self._answers:
                task.cancel()

    def hear(self) -> None:
        """Do all that the host has said by now."""
        self.do(self._link.read())

    def do(self, messages: Sequence[bytes]) -> None:
        """Do what these messages say."""
        for body in messages:
            self._heard_at = self._environment.monotonic()
            for command in commands.decode(body):
                self._obey(command)

    def _obey(self, command: Command) -> None:
        match command:
            case Hold(turn, messages):
                self._tell(Has(turn, sorted(self._renewer.held(messages))))
            case Withdraw(number):
                held = self._renewer.take_out(number)
                if held is not None and held.renewed:
                    self._left[number] = held
            case Ask(number):
                held = self._left.pop(number, None) or self._renewer.take_out(number)
                if held is None:
                    self._tell(Receipt(number, known=False))
                else:
                    self._answer(self._give(number, held))
            case Forget(numbers):
                self._renewer.forget(numbers)
            case KeepRow(lease, until):
                self._renewer.keep_row(lease, until)
            case DropRow(partition):
                self._renewer.drop_row(partition)
            case KeepAppLease(held_lease, until):
                self._renewer.keep_app_lease(held_lease, until)
            case DropAppLease():
                self._answer(self._drop())
            case Alive(offset):
                if offset is not None:
                    self._renewer.tell_time(offset)
                self._tell(Alive())
            case Setup():
                pass

    def _answer(self, answer: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(answer)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _give(self, number: int, held: MessageHeld) -> None:
        await held.rests()
        self._tell(Receipt(number, known=True, receipt=held.receipt))

    async def _drop(self) -> None:
        await self._renewer.drop_app_lease()
        self._tell(Dropped())

    # -- what is told ----------------------------------------------------------------------------------

    def _changed(self, partition: str | None) -> None:
        self._news.add(partition)
        self._plan()

    def _tell(self, report: Report) -> None:
        self._reports.append(report)
        self._plan()

    def _plan(self, seconds: float = 0.0) -> None:
        if self._telling is None:
            self._telling = (
                self._environment.call_later(seconds, self._say)
                if seconds
                else asyncio.get_running_loop().call_soon(self._say)
            )

    def _say(self) -> None:
        self._telling = None
        if self._link.waits:
            # A host that stands still needs no more than how things stand when it reads again.
            self._plan(FULL_SECONDS)
            return
        for partition in self._news:
            if partition is None:
                self._reports.append(AppLeaseStands(self._renewer.app_lease_until()))
            elif (standing := self._renewer.row(partition)) is not None:
                self._reports.append(RowStands(partition, standing))
        self._news.clear()
        if self._reports:
            self._link.write(encode(self._reports))
            self._reports.clear()


def main(descriptor: int, parent: int) -> None:
    """Serve the host at the other end of this socket, until it is gone."""
    # The host decides when this process ends, also when a terminal or a service manager asks all of them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave_it_to_the_host)
    asyncio.run(_serve(descriptor, parent))


def _leave_it_to_the_host(number: int, frame: types.FrameType | None) -> None:
    pass


async def _serve(descriptor: int, parent: int) -> None:
    from .http.service import HttpService  # what it needs is not needed by who reads this module

    inherited = socket.socket(fileno=descriptor)
    inherited.set_inheritable(False)
    link = SocketLink(inherited)

    def has_host() -> bool:
        return os.getppid() == parent

    while not (said := link.read()):
        if link.ended or not has_host():
            return
        await REAL.sleep(0.01)
    (setup,) = commands.decode(said[0])
    assert isinstance(setup, Setup), "the host says first which account it is"
    service = HttpService(reopen(setup.account), REAL)
    await service.open()
    try:
        server = RenewalServer(link, service, REAL, setup.terms, has_host)
        server.do(said[1:])
        await server.serve()
    finally:
        link.close()
        await service.close()

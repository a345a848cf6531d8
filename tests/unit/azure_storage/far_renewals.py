"""A host and the process that renews for it, both on one loop with virtual time: what lies between is two lists.

Each side may stand still before any of its steps, and time may pass within any reading and writing.
"""

import asyncio
import gc
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from holdtrue.stores.azure_storage.http.connection import Endpoint, Reopening
from holdtrue.stores.azure_storage.mail import Mail
from holdtrue.stores.azure_storage.renewals_child import RenewalServer
from holdtrue.stores.azure_storage.renewals_messages import Setup, commands
from holdtrue.stores.azure_storage.renewals_process import ProcessRenewals
from holdtrue.stores.azure_storage.service import QueueMessage, Unsure
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, VirtualLoop, as_part

ME, TABLE, QUEUE = "holdtrue-me", "Partitions", "queue"
_NOWHERE = Endpoint("http://127.0.0.1:1", "/a")
ACCOUNT = Reopening(account="a", blob=_NOWHERE, queue=_NOWHERE, table=_NOWHERE, key=b"k")


class NearLink:
    """One side of a link; `takes` is how much time passes within a call of it."""

    def __init__(self, part: Part, takes: Callable[[], float]) -> None:
        self.part = part
        self.other: NearLink
        self.incoming: deque[bytes] = deque()
        self.heard: Callable[[], None] = lambda: None
        self._takes = takes
        self._ended = False

    def _time_passes(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.advance(self._takes())

    def _wake(self) -> None:
        with as_part(self.part):
            asyncio.get_running_loop().call_soon(lambda: self.heard())

    def listen(self, heard: Callable[[], None]) -> None:
        self.heard = heard
        if self.incoming or self._ended:
            self._wake()

    def read(self) -> list[bytes]:
        self._time_passes()
        found = list(self.incoming)
        self.incoming.clear()
        return found

    def write(self, body: bytes) -> bool:
        self._time_passes()
        if self._ended or self.other._ended:
            return False
        self.other.incoming.append(body)
        self.other._wake()
        self._time_passes()
        return True

    @property
    def waits(self) -> bool:
        return False

    @property
    def ended(self) -> bool:
        return self._ended and not self.incoming

    def close(self) -> None:
        for side in (self, self.other):
            if not side._ended:
                side._ended = True
                side._wake()


class NearChild:
    """The process, as a part of the loop."""

    def __init__(self, scene: "Scene", number: int) -> None:
        self.part = Part(f"renewals {number}")
        self.part.before_step = scene.child_stands_still
        theirs = NearLink(self.part, scene.takes)
        self.link = NearLink(scene.host, scene.takes)
        self.link.other, theirs.other = theirs, self.link
        self.server: RenewalServer | None = None
        self._link = theirs
        self._scene = scene
        with as_part(self.part):
            asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        scene = self._scene
        while not self._link.incoming:
            await asyncio.sleep(0.01)
        (setup,) = commands.decode(self._link.incoming.popleft())
        assert isinstance(setup, Setup) and setup.account == ACCOUNT
        self.server = RenewalServer(
            self._link, scene.model, scene.environment, setup.terms, lambda: not scene.host.dead
        )
        await self.server.serve()
        self.part.die()
        self._link.close()

    def kill(self) -> None:
        if not self.part.dead:
            self.part.die()
            self._link.close()

    def has_ended(self) -> bool:
        return self.part.dead


class Scene:
    """A model account, a host's mail, and processes that renew for it.

    `slow` is how long a request may take at most, on either way; `still` how often a side stands still before a step,
    and for how long at most.  `overlaps` are the requests that were under way beside another with the same receipt.
    """

    def __init__(self, seed: int = 0, *, slow: float = 0.0, still: tuple[float, float] = (0.0, 0.0)) -> None:
        self.random = random.Random(seed)
        self.environment = SimulatedEnvironment(seed)
        self.model: Any = StorageModel(self.environment)
        self.host = Part("host")
        self.settings = AzureStorageSettings()
        self.children: list[NearChild] = []
        self.changed: list[str | None] = []
        self.gone = 0
        self.starts = True
        self.lose: Callable[[str], bool] = lambda verb: False
        self.under_way: dict[str, list[str]] = {}
        self.overlaps: list[tuple[str, list[str]]] = []
        self._slow = slow
        self._still = still
        self._spoil("hide")
        self._spoil("remove")
        self.renewals = ProcessRenewals(
            self._start,
            ACCOUNT,
            self.environment,
            self.settings.renewal_terms(ME, TABLE),
            changed=self.changed.append,
            gone=self._gone,
        )
        self.mail = Mail(self.model.queues, self.environment, self.settings)
        self.mail.renewed_by(self.renewals)
        self.taken: dict[int, QueueMessage] = {}

    def _start(self) -> NearChild:
        if not self.starts:
            raise OSError("no more processes")
        child = NearChild(self, len(self.children) + 1)
        self.children.append(child)
        return child

    def _gone(self) -> None:
        self.gone += 1

    def _spoil(self, verb: str) -> None:
        really = getattr(self.model.queues, verb)

        async def spoilt(queue: str, message: str, receipt: str, *more: Any) -> Any:
            beside = self.under_way.setdefault(receipt, [])
            beside.append(verb)
            if len(beside) > 1:
                self.overlaps.append((message, list(beside)))
            try:
                await self.environment.sleep(self.random.uniform(0, self._slow))
                answer = await really(queue, message, receipt, *more)
                await self.environment.sleep(self.random.uniform(0, self._slow))
            finally:
                beside.remove(verb)
            if self.lose(verb):
                raise Unsure("the answer was lost")
            return answer

        setattr(self.model.queues, verb, spoilt)

    def takes(self) -> float:
        """How much time passes within a call of the link."""
        often, long = self._still
        return self.random.uniform(0, long) if self.random.random() < often else 0.0

    def child_stands_still(self, part: Part) -> None:
        self._stands_still(part)

    def host_stands_still(self, part: Part) -> None:
        """Before a step of the host's."""
        self._stands_still(part)

    def _stands_still(self, part: Part) -> None:
        often, long = self._still
        if self.random.random() >= often:
            return
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        part.paused = True
        with as_part(None):
            loop.call_later(self.random.uniform(0, long), loop.resume, part)

    async def open(self, messages: int = 1) -> None:
        self.host.before_step = self.host_stands_still
        await self.model.queues.create_queue(QUEUE)
        for number in range(messages):
            await self.model.queues.put(QUEUE, f"text {number}")
        await self.renewals.open()

    async def take(self) -> list[int]:
        """Numbers of the messages that a get gives."""
        found: list[int] = []

        async def sort(number: int, message: QueueMessage) -> None:
            self.taken[number] = message
            found.append(number)

        await self.mail.pull(QUEUE, 32, sort)
        return found

    async def left(self) -> int:
        return int(await self.model.queues.approximate_count(QUEUE))


@contextmanager
def what_died_lies_still() -> Iterator[None]:
    """What a process that was killed leaves half done is not closed within, and then without a sound."""
    collects, hook = gc.isenabled(), sys.unraisablehook
    gc.disable()
    try:
        yield
    finally:
        sys.unraisablehook = lambda info: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            gc.collect()
        sys.unraisablehook = hook
        if collects:
            gc.enable()

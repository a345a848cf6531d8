"""`make faults-table`: each request of `Chain(2)`, spoiled once in each of nine ways; Holdtrue, and .NET beside it.

One worker, a process of its own that is killed as the system kills; the instance is started by our client on both.
Many cases run at once, each with a hub of its own.  What comes of them is saved, and the docs' table is drawn from it.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

import holdtrue
from examples.stale_running.dotnet_part import provider
from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.creating import create_hub
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.names import HubNames, escape_key
from holdtrue.stores.azure_storage.reconciling import Pace
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.storage_proxy import (
    ANSWER_LOST,
    TWICE,
    Fault,
    Rule,
    Seen,
    StorageProxy,
    answered,
    instead,
    is_upkeep,
    killed,
)
from holdtrue.testing.storage_requests import Answer, messages_in
from tests.faults.load import Load
from tests.faults.processes import HostProcess, ours
from tests.faults.witness import INSTANCES, Standing, is_true, standing
from tests.faults.worker import Setup
from tools import draw_faults
from tools.azurite import Azurite, start
from tools.draw_faults import Column, Outcome, Saved

KILLED = "killed"
FAULTS: dict[str, Fault] = {
    "answer lost": ANSWER_LOST,
    **{f"{status} after it was done": answered(status) for status in (500, 503, 409, 412)},
    **{f"{status} in place of it": instead(status) for status in (500, 503)},
    "delivered twice": TWICE,
    KILLED: killed(lambda proxy: None),
}

ID, LENGTH, RESULT = "chain", 2, "2"
HUB = "Hub"
HIDDEN = 20
""".NET's time-outs of messages here, to keep it short: 300 s by default."""
SETTINGS = AzureStorageSettings(partition_count=1, max_queue_polling_interval=1.0)
"""Ours are the defaults, but for the polls, which are .NET's here."""
DOTNET_SETTINGS = (
    *("UseAppLease=False", "WorkerId=here", "PartitionCount=1"),
    *(f"{name}=00:00:{HIDDEN}" for name in ("ControlQueueVisibilityTimeout", "WorkItemQueueVisibilityTimeout")),
)
ANY_END = 180.0
"""An instance that has not ended by then does not end."""
EVER = 45.0
"""A status that is wrong for so long after the end stays so: all that was hidden has come back by then, twice."""
SETTLES = 4.0
"""Seconds after the end until no request for the instance comes any more."""
LOOKS, LOOKS_WRONG = 1.0, 0.15
"""Seconds between two looks at the status, beside those at each write; and while it is wrong."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """`fault` at the `nth` request of a kind; none: what requests there are."""

    kind: str = ""
    nth: int = 1
    fault: str = ""


Read = Callable[[], Awaitable[Standing | None]]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One provider: its column, the command of its worker on an account, and how its clients read a status."""

    name: str
    hidden: int
    command: Callable[[str], Sequence[str]]
    reads: Callable[[holdtrue.Client, HttpService], Read]


def holdtrue_side() -> Side:
    """Ours."""

    def command(connection: str) -> list[str]:
        return ours(
            Setup(
                app="tests.faults.chain",
                connection=connection,
                hub=HUB,
                name="here",
                settings=SETTINGS,
                pace=Pace(),
                timeout=30.0,
            )
        )

    def reads(client: holdtrue.Client, service: HttpService) -> Read:
        async def read() -> Standing | None:
            status = await client.get_status(ID)
            if status is None:
                return None
            projection = status.record.projection
            return Standing(projection.execution_id, projection.status.name.title(), projection.output)

        return read

    return Side(name="Holdtrue", hidden=SETTINGS.take_visibility, command=command, reads=reads)


def dotnet_side(program: Path) -> Side:
    """.NET's, whose clients take the row for the status."""

    def command(connection: str) -> list[str]:
        settings = [word for setting in DOTNET_SETTINGS for word in ("--set", setting)]
        return [str(program), "worker", "--hub", HUB, "--conn", connection, *settings]

    def reads(client: holdtrue.Client, service: HttpService) -> Read:
        async def read() -> Standing | None:
            row = await service.tables.get(INSTANCES, escape_key(ID), "")
            if row is None:
                return None
            execution, status, output = (row.values.get(n) for n in ("ExecutionId", "RuntimeStatus", "Output"))
            return Standing(str(execution), str(status), None if output is None else str(output))

        return read

    return Side(name=".NET 2.11.2", hidden=HIDDEN, command=command, reads=reads)


class Watch:
    """Reads the status all the time, and holds it against the history."""

    def __init__(self, service: HttpService, read: Read) -> None:
        self._service, self._read = service, read
        self._changed = asyncio.Event()
        self._wrong_since: float | None = None
        self._wrong_at = 0.0
        self.ended_at: float | None = None
        self.wrong = 0.0
        """Seconds, the longest stretch from one wrong reading to the last."""
        self.seen: Standing | None = None

    def changed(self) -> None:
        """Something was written."""
        self._changed.set()

    @property
    def is_right(self) -> bool:
        """Whether the last reading was."""
        return self._wrong_since is None

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        before = await standing(self._service, ID)
        while True:
            self._changed.clear()
            self.seen, at = await self._read(), loop.time()
            after = await standing(self._service, ID)
            self.judge(at, before, after)
            before = after
            try:
                async with asyncio.timeout(LOOKS if self.is_right else LOOKS_WRONG):
                    await self._changed.wait()
            except TimeoutError:
                before = await standing(self._service, ID)

    def judge(self, at: float, before: Standing, after: Standing) -> None:
        """Take a reading, made at a moment between two of the history."""
        seen = self.seen
        if before.execution is None if seen is None else is_true(seen, before, after):
            self._wrong_since = None
        else:
            if self._wrong_since is None:
                self._wrong_since = at
            self.wrong = max(self.wrong, at - self._wrong_since)
        if self.ended_at is None and after.status not in (None, "Running"):
            self.ended_at = at


class Running:
    """A case at work."""

    def __init__(self, azurite: Azurite, side: Side, case: Case, starting: asyncio.Semaphore) -> None:
        self._azurite, self._side, self._case = azurite, side, case
        self._account = azurite.new_account()
        self._starting = starting
        self._workers: list[HostProcess] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._put: Counter[str] = Counter()
        self._watch: Watch | None = None
        self._proxy = StorageProxy(azurite.ports, told=self._told)
        self._rule: Rule | None = None
        if case.fault:
            fault = FAULTS[case.fault]
            if fault.call is not None:
                fault = killed(self._kill)
            gives = None if fault.forward == 0 or not self._is_of_a_get() else _gives
            early = fault.forward == 0 and self._is_of_a_get()
            matches = self._would_give if early else self._is_meant
            self._rule = self._proxy.spoil(matches, fault, nth=1 if early else case.nth, answered=gives)

    def _is_of_a_get(self) -> bool:
        return self._case.kind.startswith("queue get ")

    def _is_meant(self, seen: Seen) -> bool:
        return seen.about.kind == self._case.kind and (self._is_of_a_get() or ID in seen.instances)

    def _would_give(self, seen: Seen) -> bool:
        """A get that is not to be done, and would give the n-th message, as that was put."""
        put = self._put[seen.about.role]
        return seen.about.kind == self._case.kind and put >= self._case.nth

    def _told(self, seen: Seen) -> None:
        if seen.about.kind.startswith("queue put ") and seen.status == 201 and ID in seen.instances:
            self._put[seen.about.role] += 1
        if seen.about.service == "table" and ID in seen.instances and self._watch is not None:
            self._watch.changed()

    def _kill(self, proxy: StorageProxy) -> None:
        self._workers[-1].kill()
        self._tasks.append(asyncio.ensure_future(self._begin_worker()))

    async def _begin_worker(self) -> None:
        connection = self._azurite.connection_string(self._account, self._proxy.ports)
        worker = HostProcess(self._side.command(connection))
        self._workers.append(worker)
        await worker.start()

    async def run(self) -> tuple[Outcome, Counter[str]]:
        """What came of it, and the requests for the instance by kind."""
        case = self._case
        async with (
            self._proxy,
            StorageProxy(self._azurite.ports, keep=False, told=self._told) as starting,
            self._opened(self._azurite.ports) as (client, service),
            self._opened(starting.ports) as (starter, _),
        ):
            self._watch = Watch(service, self._side.reads(client, service))
            try:
                async with self._starting:
                    await self._begin_worker()
                watching = asyncio.ensure_future(self._watch.run())
                self._tasks.append(watching)
                await starter.start("Chain", input=LENGTH, instance_id=ID)
                began = asyncio.get_running_loop().time()
                while not self._is_over(began):
                    await asyncio.sleep(0.05)
                    if watching.done():
                        watching.result()
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await asyncio.gather(*(worker.end() for worker in self._workers))
        mine = [seen for seen in self._proxy.seen if ID in seen.instances and not is_upkeep(seen.kind)]
        return self._outcome(mine), Counter(seen.about.kind for seen in mine) if not case.fault else Counter()

    @asynccontextmanager
    async def _opened(self, ports: dict[str, int]) -> AsyncIterator[tuple[holdtrue.Client, HttpService]]:
        service = HttpService(from_connection_string(self._azurite.connection_string(self._account, ports)))
        await service.open()
        if ports == self._azurite.ports:
            await create_hub(service, HubNames(HUB), SETTINGS.partition_count, REAL)
        store = AzureStorageStore(service, HUB, settings=SETTINGS)
        try:
            await store.open()
            yield holdtrue.Client(store), service
        finally:
            await store.close()
            await service.close()

    def _spoiled(self) -> Seen | None:
        return self._rule.spoiled[0] if self._rule is not None and self._rule.spoiled else None

    def _is_over(self, began: float) -> bool:
        assert self._watch is not None
        now, ended, spoiled = asyncio.get_running_loop().time(), self._watch.ended_at, self._spoiled()
        if ended is None:
            return now > max(began, spoiled.at if spoiled else began) + ANY_END
        if not self._watch.is_right:
            return self._watch.wrong > EVER
        settles = SETTLES if spoiled is None else 0.5 * SETTLES
        return now > max(ended, spoiled.at if spoiled else ended) + settles

    def _outcome(self, mine: Sequence[Seen]) -> Outcome:
        case, watch, spoiled = self._case, self._watch, self._spoiled()
        assert watch is not None
        took = stood = 0.0
        if spoiled is not None:
            end = next((seen.at for seen in mine if _ends(seen)), None)
            after = [seen.at for seen in mine if seen.at > spoiled.at and (end is None or seen.at <= end)]
            times = [spoiled.at, *after]
            stood = max((then - at for at, then in zip(times, times[1:], strict=False)), default=0.0)
            took = times[-1] - times[0]
        return Outcome(
            kind=case.kind,
            nth=case.nth,
            fault=case.fault,
            met=spoiled is not None,
            took=round(took, 2),
            stood=round(stood, 2),
            wrong=round(watch.wrong, 2),
            for_ever=watch.wrong > EVER,
            ended=watch.ended_at is not None,
            right=watch.seen is not None and (watch.seen.status, watch.seen.result) == ("Completed", RESULT),
        )


def _gives(answer: Answer) -> bool:
    return ID in messages_in(answer).values()


def _ends(seen: Seen) -> bool:
    written = seen.about.kind == "table transact history" and seen.status == 202
    return written and b'"ExecutionCompleted"' in seen.request.body


async def play(
    azurite: Azurite, side: Side, cases: Sequence[Case], *, at_once: int, tell: Callable[[Outcome], None]
) -> tuple[list[Outcome], Counter[str], float]:
    """The outcomes of cases, the requests of those without a fault, and how long a request took in the middle."""
    outcomes: list[Outcome] = []
    requests: Counter[str] = Counter()
    loads: list[float] = []
    load, starting, waiting = Load(azurite), asyncio.Semaphore(2), iter(list(cases))
    measuring = asyncio.ensure_future(load.measure())

    async def work() -> None:
        for case in waiting:
            outcome, found = await Running(azurite, side, case, starting).run()
            outcomes.append(outcome)
            requests.update(found)
            loads.append(load.seconds)
            tell(outcome)

    try:
        await asyncio.gather(*(work() for _ in range(at_once)))
    finally:
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)
    return outcomes, requests, statistics.median(loads)


def spread(requests: Counter[str]) -> list[Case]:
    """Each request × each fault."""
    return [
        Case(kind=kind, nth=nth, fault=fault)
        for kind, count in sorted(requests.items())
        for nth in range(1, count + 1)
        for fault in FAULTS
    ]


def played(azurite: Azurite, side: Side, *, most: int | None, seed: int, at_once: int) -> Column:
    """A provider's column: all cases, or so many of them, drawn by a seed."""
    say = lambda outcome: None  # noqa: E731
    _, requests, _ = asyncio.run(play(azurite, side, [Case()], at_once=1, tell=say))
    cases = spread(requests)
    print(f"{side.name}: {requests.total()} requests of {len(requests)} kinds, {len(cases)} cases", flush=True)
    some = random.Random(seed).sample(cases, min(most or len(cases), len(cases)))
    began = time.monotonic()
    outcomes, _, request = asyncio.run(play(azurite, side, some, at_once=at_once, tell=tell))
    print(f"{len(outcomes)} cases in {time.monotonic() - began:.0f} s", flush=True)
    order = {case: number for number, case in enumerate(cases)}
    outcomes.sort(key=lambda one: order[Case(kind=one.kind, nth=one.nth, fault=one.fault)])
    return Column(name=side.name, hidden=side.hidden, cases=len(cases), request=round(request, 4), outcomes=outcomes)


def tell(one: Outcome) -> None:
    """A line for a case that shows something."""
    if not one.met:
        print(f"  did not come: {one.kind} {one.nth} ({one.fault})", flush=True)
    elif one.stood > 2 or one.wrong > draw_faults.LONG_WRONG or not one.right:
        told = f"stood still {one.stood} s, status wrong {one.wrong} s" + ("" if one.right else ", NOT RIGHT")
        print(f"  {one.fault} at {one.kind} {one.nth}: {told}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.table", description=__doc__)
    parser.add_argument("--cases", type=int, help="of each column, drawn by the seed (all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--only", choices=["holdtrue", "dotnet"], help="this column alone; the other stays as it was")
    given = parser.parse_args()
    program = provider()
    sides = [] if given.only == "dotnet" else [holdtrue_side()]
    if program is None:
        print("Without the .NET provider beside the project: Holdtrue's column alone.", flush=True)
    elif given.only != "holdtrue":
        sides.append(dotnet_side(program))
    columns = []
    for side in sides:
        with start() as azurite:
            columns.append(played(azurite, side, most=given.cases, seed=given.seed, at_once=given.at_once))
    if program is not None and given.only and draw_faults.SAVED.exists():
        names = [column.name for column in columns]
        columns += [column for column in draw_faults.load().columns if column.name not in names]
    columns.sort(key=lambda column: column.name)
    saved = Saved(cores=os.cpu_count() or 1, columns=columns)
    draw_faults.save(saved)
    draw_faults.PAGE.write_text(draw_faults.redraw(draw_faults.PAGE.read_text(), saved))
    print(draw_faults.table(saved) + "\n\n" + draw_faults.waits(saved))
    good = all(one.ended and one.right and not one.wrong for column in columns[-1:] for one in column.met)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

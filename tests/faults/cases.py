"""One case of the matrix: a scenario on a hub of its own, with one request spoiled, and what must hold all the time."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

import holdtrue
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreError
from holdtrue.testing.storage_proxy import (
    ANSWER_LOST,
    CUT_SHORT,
    REFUSED,
    RESET_BEFORE,
    TWICE,
    Fault,
    Rule,
    Seen,
    StorageProxy,
    answered,
    answered_late,
    instead,
    is_upkeep,
    killed,
    late,
)
from holdtrue.testing.storage_real_service import RealService
from tests.faults import scenarios
from tests.faults.hosts import TIMEOUT, RunningHost
from tests.faults.load import Load
from tests.faults.outside_hosts import OutsideHost
from tests.faults.scenarios import SCENARIOS, app
from tests.faults.witness import Witness, counts, row_status, standing
from tools.azurite import Azurite

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        REFUSED,
        RESET_BEFORE,
        ANSWER_LOST,
        CUT_SHORT,
        TWICE,
        *(answered(status) for status in (500, 503, 409, 412, 429)),
        *(instead(status) for status in (500, 503, 409, 412, 429)),
        late(TIMEOUT + 1),
        answered_late(TIMEOUT + 1),
        killed(lambda proxy: None, before=True),
        killed(lambda proxy: None),
    )
}
"""By their names.  Those that kill get whom to kill in each case."""

LONG, SHORT, ACQUIRE = 60.0, 6.0, 1.0
"""Seconds of a lease and of a renewed message: long where nobody is killed, so that whoever waits for one is late;
and between two looks at whose leases are over."""
LIMIT, REQUESTS = 20.0, 300
"""Seconds from the spoiled request to the end of everything: what the clients' own retries take, 5 s for a lost get,
a lease and an acquire interval for a kill; and so many requests, each as long as they take on this machine."""
AFTERWARDS = 180.0
"""Seconds until the row is mended and the queues are empty: a message that could not be deleted comes once more."""

_UPKEEP_SPOILED = 2
"""Of requests of a kind that come all the time, so many are spoiled."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """`fault` at the `nth` request of a kind, of the hosts or of the client that asks for it; neither: no fault."""

    scenario: str
    hosts: int
    by: str = "hosts"
    kind: str = ""
    nth: int = 1
    fault: str = ""
    queued: bool = False
    """Every activity goes through the queue."""
    outside: bool = False
    """The hosts are processes of their own, one of which serves the hub's one partition."""
    limit: float | None = None
    """Seconds from the fault to the end of everything, where it is not `LIMIT`; `REQUESTS` come to it."""

    @property
    def is_long(self) -> bool:
        """An activity takes so long that its message is renewed, or that it runs here while other things are done."""
        return self.queued or self.scenario == "fan-out"

    def __str__(self) -> str:
        hosts = f"{self.hosts} {'processes' if self.outside else 'hosts'}{', queued' if self.queued else ''}"
        if not self.kind:
            return f"{self.scenario}, {hosts}, no fault"
        return f"{self.scenario}, {hosts}: {self.fault} at {self.kind} {self.nth} of the {self.by}"


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a case: what is wrong (empty: nothing), how long it took from the spoiled request (None: there was
    none), and the requests by kind, of the hosts and of the client."""

    case: Case
    wrong: str = ""
    seconds: float | None = None
    whole: float = 0.0
    """Seconds from the first host's start to the end of everything."""
    counts: dict[str, Counter[str]] = {}
    reads: int = 0
    load: float = 0.0
    """Seconds that a request took."""
    story: str = ""
    """Where something is wrong: the hosts' requests and what they logged."""


_numbers = itertools.count()


class Running:
    """A case at work."""

    def __init__(self, azurite: Azurite, case: Case, *, seed: int, load: Load) -> None:
        self._azurite, self._case, self._load = azurite, case, load
        self._scenario = SCENARIOS[case.scenario]
        self._seed = seed
        self._name = f"{scenarios.LONG_ONES if case.is_long else 'c'}{next(_numbers)}"
        self._account = azurite.new_account()
        fault = FAULTS.get(case.fault)
        kills = fault is not None and fault.call is not None
        lease = SHORT if kills or fault is None else LONG
        self._partitions = 1 if case.outside else case.hosts
        self._settings = AzureStorageSettings(
            partition_count=self._partitions,
            max_queue_polling_interval=1.0,
            lease_interval=lease,
            lease_acquire_interval=ACQUIRE,
            app_lease_acquire_interval=1.0,
            renewed_visibility=int(lease),
            local_activities=not case.queued,
        )
        self._hosts: list[RunningHost | OutsideHost] = []
        self._rules: dict[str, list[Rule]] = {"hosts": [], "client": []}
        self._rule: Rule | None = None
        if fault is not None:
            if kills:
                fault = killed(self._kill, before=fault.forward == 0)
            self._rule = Rule(self._is_meant, fault, nth=case.nth)
            self._rules[case.by].append(self._rule)
        self._witness: Witness | None = None
        self._starting: set[asyncio.Task[None]] = set()

    def _is_meant(self, seen: Seen) -> bool:
        return seen.about.kind == self._case.kind

    def _kill(self, proxy: StorageProxy) -> None:
        for host in self._hosts:
            if host.proxy is proxy:
                host.kill()
        if self._case.hosts == 1:
            task = asyncio.ensure_future(self._add_host())
            self._starting.add(task)

    async def _add_hosts(self) -> None:
        for _ in range(self._case.hosts):
            await self._add_host()

    async def _add_host(self) -> None:
        number = len(self._hosts)
        name, rules, real = f"host{number}", self._rules["hosts"], RealService(self._seed * 10 + number)
        host: RunningHost | OutsideHost
        if self._case.outside:
            host = OutsideHost(
                self._azurite, self._account, self._settings, name=name, rules=rules, real=real, told=self._told
            )
        else:
            host = RunningHost(
                self._azurite, self._account, app, self._settings, name=name, rules=rules, real=real, told=self._told
            )
        self._hosts.append(host)
        await host.begin()

    def _told(self, seen: Seen) -> None:
        writes = seen.about.role in ("history", "instances") and seen.about.operation not in ("get", "query")
        if writes and self._witness is not None:
            self._witness.changed()

    async def run(self) -> Outcome:
        """Run it; it is in order where nothing is `wrong`."""
        outcome = Outcome(case=self._case)
        try:
            async with (
                self._client(self._azurite.ports) as (outside, service),
                StorageProxy(self._azurite.ports, real=RealService(self._seed), told=self._told) as proxy,
                self._client(proxy.ports) as (asking, _),
            ):
                proxy.rules = self._rules["client"]
                try:
                    await self._all(asking, outside, service, outcome)
                finally:
                    hosts = sum((host.proxy.counts for host in self._hosts), Counter())
                    outcome.counts = {"hosts": hosts, "client": proxy.counts}
                    await asyncio.gather(*(host.end() for host in self._hosts), *self._starting)
        except Exception as error:
            outcome.wrong = f"{type(error).__name__}: {error}"
            told = sorted(one for host in self._hosts for one in host.story())
            outcome.story = "\n".join(f"{at - told[0][0]:8.2f} {what}" for at, what in told)
        scenarios.ran.pop(self._name, None)
        return outcome

    @asynccontextmanager
    async def _client(self, ports: dict[str, int]) -> AsyncIterator[tuple[holdtrue.Client, HttpService]]:
        connection = from_connection_string(self._azurite.connection_string(self._account, ports))
        service = HttpService(connection, timeout=30.0 if ports == self._azurite.ports else TIMEOUT)
        store = AzureStorageStore(service, "Hub", settings=self._settings)
        try:
            yield holdtrue.Client(store, app=app), service
        finally:
            await store.close()
            await service.close()

    async def _all(
        self, asking: holdtrue.Client, outside: holdtrue.Client, service: HttpService, outcome: Outcome
    ) -> None:
        scenario, loop, load = self._scenario, asyncio.get_running_loop(), self._load.seconds
        began = loop.time()
        await outside.store.open()
        self._witness = Witness(outside, service, scenario.instances(self._name))
        try:
            async with asyncio.timeout(AFTERWARDS):
                if not scenario.hosts_after:
                    await self._add_hosts()
                await _opened(asking)
                await scenario.begin(asking, self._name)
                if scenario.hosts_after:
                    await self._add_hosts()
                await scenario.done(outside, self._name)
        finally:
            if self._rule is not None and self._rule.spoiled:
                outcome.seconds = loop.time() - self._rule.spoiled[0].at
        outcome.load = max(self._load.seconds, load)
        outcome.whole = loop.time() - began
        limit = (LIMIT if self._case.limit is None else self._case.limit) + REQUESTS * outcome.load
        if self._case.is_long:
            limit += 2 * scenarios.LONG_SECONDS  # once more where its host was killed
        if outcome.seconds is not None and outcome.seconds > limit:
            raise AssertionError(f"it took {outcome.seconds:.1f} s from the fault to its end, {limit:.1f} s at most")
        for host in self._hosts:
            if host.defect is not None and not host.is_dead:
                raise host.defect
        await self._judge(outside, service)
        await self._witness.stop()
        outcome.reads = self._witness.reads

    async def _judge(self, client: holdtrue.Client, service: HttpService) -> None:
        scenario = self._scenario
        for name, expected in scenario.counts.items():
            found = await counts(service, f"{self._name}-{name}")
            if found != expected:
                raise AssertionError(f"{name}: its history has {found - expected} too much, {expected - found} too few")
        if not scenario.ran(ran := scenarios.ran.get(self._name, Counter())):
            raise AssertionError(f"its activities did {dict(ran)}")
        first = await standing(service, f"{self._name}-one")
        if scenario.output is not None and first.result != str(scenario.output):
            raise AssertionError(f"its result is {first.result}")
        wrong: dict[str, str] = {}
        try:
            async with asyncio.timeout(AFTERWARDS):
                while wrong := await self._unsettled(service):
                    await asyncio.sleep(0.5)
        except TimeoutError:
            raise AssertionError(f"this stays: {wrong}") from None
        if letters := [one async for one in client.dead_letters()]:
            raise AssertionError(f"there are dead letters: {letters}")
        live = await client.query_page(statuses=[holdtrue.Status.RUNNING, holdtrue.Status.PENDING])
        if live.items:
            raise AssertionError(f"a query finds {live.items}")

    async def _unsettled(self, service: HttpService) -> dict[str, str]:
        """What is not as it will be: rows that lag behind, messages left in queues."""
        found = {}
        for name in self._scenario.instances(self._name):
            row = await row_status(service, name)
            if row != "Completed":
                found[f"row of {name}"] = row
        queues = ["hub-workitems", *(f"hub-control-{n:02}" for n in range(self._partitions))]
        for queue in queues:
            if count := await service.queues.approximate_count(queue):
                found[queue] = f"{count} messages"
        return found


async def _opened(client: holdtrue.Client) -> None:
    while True:
        try:
            await client.store.open()
            return
        except StoreError:
            await asyncio.sleep(0.1)


def points(found: Counter[str]) -> list[tuple[str, int]]:
    """What to spoil, by the counts of a run without faults: each request of each kind, of upkeep the first two."""
    kinds: Counter[str] = Counter()
    for kind, count in found.items():
        kind = kind.removesuffix(" (empty)")
        kinds[kind] += min(count, _UPKEEP_SPOILED) if is_upkeep(kind) else count
    return [(kind, nth) for kind, count in sorted(kinds.items()) for nth in range(1, count + 1)]

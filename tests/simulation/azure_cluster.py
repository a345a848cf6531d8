"""Hosts and clients on one hub in a storage account that is no transaction over queues, history and rows."""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import msgspec
from azure_scenarios import PARTITIONS
from azure_watch import Watch
from broken import Broken
from cluster import MOST_AT_ONCE, REST_SECONDS, Cluster, Errors, Insisting
from leftovers import in_host_on_azure
from timekeeping import Timekeeping
from workload import World

import holdtrue
from holdtrue.core import events as ev
from holdtrue.stores.azure_storage.arrivals import Arrived
from holdtrue.stores.azure_storage.formats import Formats
from holdtrue.stores.azure_storage.keeping import read_kept
from holdtrue.stores.azure_storage.names import HubNames, partition_of, unescape_key
from holdtrue.stores.azure_storage.payloads import Payloads
from holdtrue.stores.azure_storage.sentinel import Sentinel
from holdtrue.stores.azure_storage.service import Operation, Row, ServiceError
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreError
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.faults import Faults, Kind
from holdtrue.testing.storage_faults import Call, CallFault, CallFaults, FaultyService
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, current_part

HUB = "Simulated"
MOST_CALLS = 25_000
"""Calls of a run: one that needs more will never come to rest."""
ROWS_SECONDS = 600.0
"""So long after everything has ended the rows of all instances tell what is true."""
SETTINGS = AzureStorageSettings(
    partition_count=PARTITIONS,
    max_queue_polling_interval=2.0,
    lease_interval=20.0,
    lease_acquire_interval=5.0,
    drain_limit=5.0,
)


def settings_of(seed: int) -> AzureStorageSettings:
    """In the runs of every other seed activities need no message where their host has room for them."""
    return msgspec.structs.replace(SETTINGS, local_activities=seed % 2 == 1)


class LookingFormats(Formats):
    """The format as a watcher reads it, at one moment."""

    def __init__(self, model: StorageModel, names: HubNames) -> None:
        self._model = model
        self._names = names
        self._access = SimpleNamespace(names=names)  # type: ignore[assignment]

    async def get_blob(self, name: str) -> bytes:
        """A blob's bytes, without any wait."""
        return self.blob_now(name)

    def blob_now(self, name: str) -> bytes:
        """A blob's bytes."""
        return self._model.blobs.look(self._names.large_messages, name)

    def event_now(self, row: Row) -> ev.AnyEvent:
        """An event from its row."""
        work = self.event("", row)
        try:
            work.send(None)
        except StopIteration as stop:
            return stop.value.event  # type: ignore[no-any-return]
        raise AssertionError("the row of an event names a blob")

    def whole_now(self, sentinel: Sentinel) -> Sentinel:
        """A sentinel with the texts that are too large for its row."""
        try:
            Payloads(self).whole(sentinel).send(None)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        raise AssertionError("it waits for nothing")

    def kept_now(self, operation: Operation) -> Arrived:
        """The message that an extra row holds."""
        values = {name: value for name, value in operation.values.items() if value is not None}
        row = Row(partition=operation.partition, key=operation.key, values=values, etag="", timestamp=0)
        work = read_kept(self, row, 0)
        try:
            work.send(None)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        raise AssertionError("the row of a message names a blob")

    def waiting_now(self, row: Row) -> ev.ExecutionStarted:
        """The start that a row holds."""
        work = self.waiting_start(row, "")
        try:
            work.send(None)
        except StopIteration as stop:
            return stop.value.started  # type: ignore[no-any-return]
        raise AssertionError("the row of a start names a blob")


MOST_STRAY_TAKES = 3
"""Gets from a queue that is another's now: one that wakes up may be on its way to one before it looks at its lease."""


class Leases:
    """Rule 14: who begins a commit has the lease of its partition by its own clock, counted from before the renewal
    was sent.  (One that was sent in time may arrive late: its If-Match is all that holds it.)  And who has no lease
    any more stops to get messages: each get hides them from their owner."""

    def __init__(self, names: HubNames) -> None:
        self._names = names
        self._made: dict[tuple[str, int], float] = {}
        self._renewed: dict[tuple[str, str], float] = {}
        self._stray: Counter[tuple[str, str]] = Counter()

    def made(self, call: Call, at: float) -> None:
        """A call is made."""
        self._made[call.part, call.point] = at

    def answered(self, call: Call, given: tuple[Any, ...]) -> None:
        """A host's call has had its effect.  Raises Broken."""
        at = self._made[call.part, call.point]
        if call.verb == "tables.write" and given[0] == self._names.partitions:
            if str(given[1].values.get("CurrentOwner") or "").startswith(f"holdtrue-{call.part}-"):
                self._renewed[call.part, given[1].key] = at
                self._stray[call.part, given[1].key] = 0
        elif call.verb == "queues.take" and given[0] != self._names.work_items:
            place = (call.part, given[0])
            self._stray[place] += at - self._renewed.get(place, -SETTINGS.lease_interval) >= SETTINGS.lease_interval
            if self._stray[place] > MOST_STRAY_TAKES:
                raise Broken(f"{call.part} goes on to get messages of {given[0]}, which it lost long ago")
        elif call.verb == "tables.transact" and given[0] == self._names.history:
            name = unescape_key(given[1][0].partition)
            queue = self._names.control(partition_of(name, SETTINGS.partition_count))
            renewed = self._renewed.get((call.part, queue))
            if renewed is None or at - renewed >= SETTINGS.lease_interval:
                raise Broken(f"{call.part} commits {name!r} at {at:g}, and had its lease renewed at {renewed}")


class AzureCluster(Cluster):
    """As `Cluster`, with faults at the calls of the account; what is true is read from the account itself."""

    def __init__(
        self,
        seed: int,
        faults: CallFaults,
        steps: Faults,
        *,
        hosts: int = 2,
        most_calls: int = MOST_CALLS,
        rests: bool = False,
    ) -> None:
        self.seed = seed
        self.rests = rests
        """Whether it is looked what hosts hold when all has come to rest: that costs as much again."""
        self.step_faults = steps
        self.most_calls = most_calls
        self.call_faults = faults
        self.names = [f"h{number}" for number in range(1, hosts + 1)]
        self.world = World()
        self.world.kill = self._kill_its_host
        self.hub_names = HubNames(HUB)
        self._leases = Leases(self.hub_names)
        self.hosts: dict[str, holdtrue.Host] = {}
        self.parts: dict[str, Part] = {}
        self.environments: dict[str, SimulatedEnvironment] = {}
        self.services: dict[str, FaultyService] = {}
        self._stores: dict[str, AzureStorageStore] = {}
        self.trace: list[tuple[float, str, str, str]] = []
        self.calls: list[Call] = []
        self.fruitful: set[int] = set()
        """Which calls got messages."""
        self.last_write = 0
        """How many calls had been made at the last write of an instance."""
        self.last_write_at = 0.0
        self.counts: Counter[str] = Counter()
        self.errors = Errors()
        self.faults_over = False
        self.twice: set[str] = set()
        self.failed: list[BaseException] = []
        self.code = 1
        self.codes: dict[str, int] = {}
        self.times = Timekeeping(lambda: self.loop.time(), SETTINGS.lease_interval, SETTINGS.lease_acquire_interval)
        self._numbers: dict[tuple[str, int], int] = {}
        self._steps: dict[str, int] = {}
        self._kept: list[Any] = []
        self._lives: Counter[str] = Counter()
        self._host_names: set[str] = set()
        self._not_wanted: set[str] = set()
        self._at_once = 0

    def may_have_events_twice(self, name: str) -> None:
        """Noted: an event has no id of its own, and the messages that wait are not seen."""
        self.twice.add(name)
        self.ledger.twice.add(name)  # type: ignore[attr-defined]

    def are_sent_twice(self, name: str) -> None:
        """Noted: of events that stand twice it is not seen whether they were sent so."""
        self.ledger.twice.add(name)  # type: ignore[attr-defined]

    def at(self, call: Call) -> CallFault | None:  # type: ignore[override]
        """What happens to a call: nothing, when faults are over."""
        return None if self.faults_over else self.call_faults.at(call)

    def part(self, name: str) -> tuple[Part, Any, SimulatedEnvironment]:  # type: ignore[override]
        """A new process of that name: its part, its store, its environment."""
        self._lives[name] += 1
        part = Part(name if self._lives[name] == 1 else f"{name}.{self._lives[name]}")
        chance = random.Random(f"{self.seed}:{part.name}")
        environment = SimulatedEnvironment(chance.getrandbits(64))
        before = self.environments.get(name)
        environment.skew = 0 if before is None else before.skew
        service = FaultyService(
            self.model,
            part,
            self,
            applied=self._call_answered,
            called=self._call_made,
            crash=lambda seconds: self.crash(part, seconds),
            pause=lambda seconds: self.pause(part, seconds),
        )
        part.before_step = self._before_step
        store = AzureStorageStore(service, HUB, environment=environment, settings=settings_of(self.seed))
        self.parts[name] = part
        self.environments[name] = environment
        self.services[name] = service
        self._stores[name] = store
        self._kept += [service, store]
        return part, store, environment

    def _before_step(self, part: Part) -> None:
        step = part.steps + 1
        if self._steps.get(part.name) == step or self.faults_over:
            return  # it stood still before this one, and goes on
        self._steps[part.name] = step
        fault = self.step_faults.at(part.name, step, "step")
        if fault is None:
            return
        self.counts[fault.kind.value] += 1
        if fault.kind is Kind.CRASH_AT_STEP:
            self.crash(part, fault.seconds)
        elif fault.kind is Kind.PAUSE_AT_STEP:
            self.pause(part, fault.seconds)
        else:
            self.set_clock(part, fault.seconds)

    def _call_applied(self, verb: str, given: tuple[Any, ...], outcome: Any) -> None:
        try:
            if self.ledger.applied(verb, given, outcome):
                self.last_write, self.last_write_at = len(self.calls), self.loop.time()
        except BaseException as error:
            self.failed.append(error)
            raise

    def _code_of_writer(self) -> int | None:
        part = current_part()
        return None if part is None else self.codes.get(part.name)

    def _call_answered(self, call: Call, given: tuple[Any, ...], outcome: Any) -> None:
        if call.part in self.codes and not isinstance(outcome, ServiceError):
            try:
                self._leases.answered(call, given)
            except Broken as broken:
                self.failed.append(broken)
        if call.verb == "queues.take" and isinstance(outcome, list) and outcome:
            self.fruitful.add(self._numbers[call.part, call.point])

    def _call_made(self, call: Call, fault: CallFault | None) -> None:
        self._numbers[call.part, call.point] = len(self.calls)
        self._leases.made(call, self.loop.time())
        self.calls.append(call)
        now = self.loop.time()
        self.times.read(self.environments[call.part.partition(".")[0]].now())
        if len(self.calls) == self.most_calls:
            self.failed.append(Broken(f"not at rest after {self.most_calls} calls: {self._unfinished()}"))
        self._at_once = self._at_once + 1 if self.trace and self.trace[-1][0] == now else 0
        if self._at_once > MOST_AT_ONCE:
            self.failed.append(Broken(f"{call.part} spins: {MOST_AT_ONCE} calls at one moment, now {call.kind}"))
            self.parts[call.part.partition(".")[0]].die()
        self.trace.append((self.loop.time(), call.part, call.kind, "" if fault is None else fault.mishap.value))
        if fault is not None:
            self.counts[fault.mishap.value] += 1

    def _kill_its_host(self) -> None:
        part = current_part()
        assert part is not None
        self.crash(part, 1.0)

    def _gone(self, part: Part) -> None:
        """The account knows nothing of processes."""

    async def run(self, scenario: Any) -> None:
        """The scenario to its end, then quiet; raises Broken where anything is not as it must be."""
        self.loop.set_exception_handler(self._loop_error)
        root = logging.getLogger("holdtrue")
        handlers, propagate = root.handlers[:], root.propagate
        root.handlers, root.propagate = [self.errors], False
        self.model = StorageModel(SimulatedEnvironment(self.seed))
        self.model.account.watch = self._call_applied
        formats = LookingFormats(self.model, self.hub_names)
        self.ledger = Watch(self.model, self.hub_names, formats, self.times, code=self._code_of_writer)  # type: ignore[assignment]
        try:
            for name in self.names:
                self.boot(name)
            await self._client_work(scenario)
            await self._settle()
            self._end_of_faults()
            await self._settle()
            await self._rows_become_true()
            await asyncio.sleep(REST_SECONDS if self.rests else 0.0)
            self._raise_failed()
            self._nothing_is_left()
            watch: Watch = self.ledger  # type: ignore[assignment]
            watch.messages.all_had_their_effect()
            if self.errors.messages:
                raise Broken(f"the engine reports a defect of its own: {self.errors.messages[0]}")
            scenario.check(self)
        finally:
            root.handlers, root.propagate = handlers, propagate
            for name in list(self.hosts):
                self.parts[name].die()

    async def _rows_become_true(self) -> None:
        """The reconciler finds every row that was left behind, without any message."""
        watch: Watch = self.ledger  # type: ignore[assignment]
        end = self.loop.time() + ROWS_SECONDS
        while watch.rows_are_late():
            self._raise_failed()
            if self.loop.time() > end:
                raise Broken(f"rows are wrong {ROWS_SECONDS:g} s after all has ended: {watch.rows_are_late()}")
            await asyncio.sleep(10.0)

    def _nothing_is_left(self) -> None:
        watch: Watch = self.ledger  # type: ignore[assignment]
        found = watch.left()
        for name, host in self.hosts.items() if self.rests else ():
            found += in_host_on_azure(name, host, self._stores[name], set(watch.open()))
        if found:
            raise Broken(f"left behind when all had come to rest: {'; '.join(found)}")

    def _at_rest(self) -> bool:
        if any("SUSPENDED" not in text for text in self.ledger.open().values()):  # type: ignore[attr-defined]
            return False
        return not any(self._queues().values()) and not self._in_hand()

    def _queues(self) -> dict[str, int]:
        return {queue: len(messages) for queue, messages in self.model.queues.look().items()}

    def _unfinished(self) -> str:
        return f"{self.ledger.open()}; {self._queues()}; {self._in_hand()}"  # type: ignore[attr-defined]

    async def _one_client(self, part: Part, client: Any, store: Any, work: Any) -> None:
        while True:
            with contextlib.suppress(StoreError):
                await store.open()
                break
            await asyncio.sleep(1.0)
        await work(Reader(self, part, client))


class Reader(Insisting):
    """As every client's user; what a read says of a missing history is held against the watch too."""

    async def status(self, name: str) -> holdtrue.InstanceStatus | None:
        watch: Watch = self.cluster.ledger  # type: ignore[assignment]
        since = watch.moment
        _, status = await self.do(lambda: self.client.get_status(name))
        if status is None:
            watch.saw(name, None, since)
        else:
            condition = status.condition
            missing = condition is not None and condition.kind == "history missing"
            watch.saw(name, status.record.projection, since, missing=missing)
        return status  # type: ignore[no-any-return]

    async def start(
        self, name: str, payload: Any, *, orchestrator: str = "program", start_id: str = "", **more: Any
    ) -> None:
        watch: Watch = self.cluster.ledger  # type: ignore[assignment]
        start_id = start_id or f"start-{name}"
        await super().start(name, payload, orchestrator=orchestrator, start_id=start_id, **more)
        watch.messages.told_started(name, start_id)

    async def raise_event(self, name: str, event: str, tag: str) -> bool:
        watch: Watch = self.cluster.ledger  # type: ignore[assignment]
        accepted = await super().raise_event(name, event, tag)
        if accepted:
            watch.messages.told_raised(name, tag)
        return accepted

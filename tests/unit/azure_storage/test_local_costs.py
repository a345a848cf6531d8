"""What an orchestration costs in requests where its activities need no message (rule 16).

Polls that find nothing, renewals and what belongs to partitions, leases and hosts are not an orchestration's.
"""

from collections import Counter
from typing import Any

import pytest

import holdtrue
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing import virtual_time
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel

HUB = "Counted"


class Port:
    """One of an account's services, its calls counted."""

    def __init__(self, port: Any, counts: Counter[str]) -> None:
        self._port = port
        self._counts = counts

    def __getattr__(self, verb: str) -> Any:
        method = getattr(self._port, verb)

        async def call(target: str, *given: Any, **named: Any) -> Any:
            outcome = await method(target, *given, **named)
            nothing = verb == "take" and not outcome
            if not nothing and verb != "hide" and not target.endswith(("Partitions", "Holdtrue", "applease")):
                self._counts[f"{verb} {target.removeprefix(HUB).removeprefix(HUB.lower())}"] += 1
            return outcome

        return call


class Counting:
    """An account as one process has it."""

    def __init__(self, model: StorageModel) -> None:
        self._model = model
        self.counts: Counter[str] = Counter()
        self.tables = Port(model.tables, self.counts)
        self.queues = Port(model.queues, self.counts)
        self.blobs = Port(model.blobs, self.counts)

    async def open(self) -> None:
        await self._model.open()

    async def close(self) -> None:
        pass

    def blob_url(self, container: str, blob: str) -> str:
        return self._model.blob_url(container, blob)


def app() -> holdtrue.App:
    app = holdtrue.App()

    @app.activity
    async def echo(ctx: holdtrue.ActivityContext, given: int) -> int:
        return given

    @app.activity
    def in_thread(ctx: holdtrue.ActivityContext, given: int) -> int:
        return given

    @app.orchestrator
    async def chain(ctx: holdtrue.OrchestrationContext, length: int) -> int:
        for number in range(length):
            await ctx.call_activity(echo, input=number)
        return length

    @app.orchestrator
    async def fan_out(ctx: holdtrue.OrchestrationContext, width: int) -> int:
        return len(await holdtrue.when_all([ctx.call_activity(in_thread, input=number) for number in range(width)]))

    @app.orchestrator
    async def parent(ctx: holdtrue.OrchestrationContext, width: int) -> int:
        return len(await holdtrue.when_all([ctx.call_sub_orchestrator(chain, input=1) for _ in range(width)]))

    return app


async def counted(orchestrator: str, size: int, *, local: bool) -> tuple[Counter[str], Counter[str]]:
    """The requests of the client's start, and those of the worker."""
    model = StorageModel(SimulatedEnvironment(3))
    settings = AzureStorageSettings(partition_count=1, max_queue_polling_interval=5.0, local_activities=local)
    worker, starter = Counting(model), Counting(model)
    host_settings = HostSettings(activity_slots=100, activity_threads=100, retention=False, schedules=False)
    store = AzureStorageStore(worker, HUB, environment=SimulatedEnvironment(5), settings=settings)  # type: ignore[arg-type]
    async with holdtrue.Host(app(), store, settings=host_settings, environment=SimulatedEnvironment(6)):
        own = AzureStorageStore(starter, HUB, environment=SimulatedEnvironment(7), settings=settings)  # type: ignore[arg-type]
        client = holdtrue.Client(own, app=app(), environment=SimulatedEnvironment(8))
        await own.open()
        worker.counts.clear()
        starter.counts.clear()
        await client.start(orchestrator, input=size, instance_id="i")
        start = Counter(starter.counts)
        status = await client.wait_for_completion("i", timeout=600.0)
        assert status.runtime_status is Status.COMPLETED, status
        await store._environment.sleep(30)  # what goes on behind its end
        await own.close()
        return start, Counter(worker.counts)


@pytest.mark.parametrize(
    ("orchestrator", "size", "most"), [("chain", 5, 12), ("fan_out", 100, 16), ("parent", 10, 150)]
)
def test_the_requests_of_a_worker(orchestrator: str, size: int, most: int) -> None:
    _, worker = virtual_time.run(counted(orchestrator, size, local=True))
    print(orchestrator, worker.total(), worker)
    assert worker.total() <= most, worker
    assert not any("workitems" in request for request in worker), worker


def test_a_chain_of_five_and_its_start() -> None:
    start, worker = virtual_time.run(counted("chain", 5, local=True))
    print(start)
    assert start.total() + worker.total() <= 15, (start, worker)


def test_with_messages_it_costs_more() -> None:
    _, without = virtual_time.run(counted("chain", 5, local=True))
    _, with_them = virtual_time.run(counted("chain", 5, local=False))
    assert with_them.total() >= 2 * without.total(), (with_them, without)

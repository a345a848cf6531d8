"""A host that could not start leaves nothing behind that keeps the hub from the next one.

Each call of a host that starts on the model account is refused once, before or after it was done; whatever becomes of
it, a host that starts right after it serves the hub at once, not when a lease has run out.
"""

import asyncio
import functools
from collections.abc import Callable

import pytest
from azure_cluster import HUB, SETTINGS

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.service import Refused
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreError, StoreUnavailable
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_faults import Call, CallFaultList, FaultyService
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, run

AT_ONCE = 5.0
"""Virtual seconds from the next host's start to the end of an instance: less than any lease takes."""

app = holdtrue.App()


@app.orchestrator
async def ends(ctx: holdtrue.OrchestrationContext) -> str:
    return "ended"


class Account:
    """An account, and the hosts that come to it one after another."""

    def __init__(self) -> None:
        self.model = StorageModel(SimulatedEnvironment(1))
        self._hosts = 0

    def host(self, name: str, *, before: Callable[[int], None], after: Callable[[int], None]) -> holdtrue.Host:
        """A host that has yet to start; `before` and `after` are told of each call, by its number, and may fail it."""
        self._hosts += 1

        def called(call: Call, fault: object) -> None:
            before(call.point)

        def applied(call: Call, given: object, outcome: object) -> None:
            after(call.point)

        environment = SimulatedEnvironment(self._hosts)
        service = FaultyService(
            self.model,
            Part(name),
            CallFaultList(),
            called=called,
            applied=applied,
            crash=lambda seconds: None,
            pause=lambda seconds: None,
        )
        store = AzureStorageStore(service, HUB, environment=environment, settings=SETTINGS)
        settings = HostSettings(name=name, drain_seconds=2.0, retention=False, schedules=False)
        return holdtrue.Host(app, store, settings=settings, environment=environment)


def nothing(point: int) -> None:
    """A call that goes well."""


@functools.cache
def calls_of_a_start() -> int:
    """How many calls a start makes."""

    async def main() -> int:
        points: list[int] = []
        host = Account().host("first", before=points.append, after=nothing)
        await host.start()
        count = max(points)
        await host.stop()
        return count

    return run(main())


@pytest.mark.parametrize("done", [False, True])
def test_whichever_call_of_a_start_is_refused_the_next_host_serves_at_once(done: bool) -> None:
    failed = 0
    for refused in range(1, calls_of_a_start() + 1):

        def refuse(point: int, refused: int = refused) -> None:
            if point == refused:
                raise Refused(403, "AuthenticationFailed", "spoiled on the way")

        async def main(refuse: Callable[[int], None] = refuse) -> bool:
            account, could_not = Account(), False
            first = account.host("first", before=nothing if done else refuse, after=refuse if done else nothing)
            try:
                await first.start()
            except StoreError:
                could_not = True
            else:
                await first.stop()
            after = account.host("after", before=nothing, after=nothing)
            await after.start()
            try:
                async with asyncio.timeout(AT_ONCE):
                    started = await after.client.start(ends)
                    assert (await after.client.wait_for_completion(started)).output == "ended"
            finally:
                await after.stop()
            return could_not

        try:
            failed += run(main())
        except TimeoutError:
            pytest.fail(f"after call {refused} of a start was refused the next host had to wait")
    assert failed, "no refusal kept a host from starting: the test shows nothing"


def test_a_host_that_could_not_start_is_over(tmp_path, monkeypatch) -> None:
    async def main() -> None:
        host = holdtrue.Host(app, tmp_path / "hub.db")

        async def join(*given: object) -> int:
            raise StoreUnavailable("the disk is full")

        monkeypatch.setattr(host.store, "join", join)
        with pytest.raises(StoreUnavailable):
            await host.start()
        with pytest.raises(RuntimeError, match="make a new Host"):
            await host.start()

    asyncio.run(main())


def test_a_host_that_has_stopped_is_over(tmp_path) -> None:
    async def main() -> None:
        host = holdtrue.Host(app, tmp_path / "hub.db")
        await host.start()
        await host.stop()
        with pytest.raises(RuntimeError, match="make a new Host"):
            await host.start()

    asyncio.run(main())

"""Messages that come while an instance is on its way to the engine."""

import asyncio
from types import SimpleNamespace
from typing import Any

from holdtrue.core.events import EventRaised, ExecutionStarted
from holdtrue.core.projection import initial
from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.afterwards import Afterwards
from holdtrue.stores.azure_storage.arrivals import Arrived
from holdtrue.stores.azure_storage.holding import Held
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.taking import Taking
from holdtrue.stores.protocol import InstanceRecord, Lease, LockedInstance


class SlowAdopter:
    """Takes `quick` in hand at once, any other when it is told."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def adopt(self, name: str, lease: Lease, arrived: Any) -> tuple[Held, LockedInstance]:
        if name != "quick":
            await self.go_on.wait()
        started = ExecutionStarted(timestamp=0, instance_id=name, execution_id="e", name="x")
        held = Held(name, name, 0, lease)
        held.started, held.execution_id = started, "e"
        record = InstanceRecord(projection=initial(started), started=started, start_id="s", dialect="dotnet")
        return held, LockedInstance(lease=lease, record=record, messages=[])


def made(adopter: Any) -> Taking:
    access: Any = SimpleNamespace(partition_of=lambda name: 0)
    mail: Any = SimpleNamespace()
    nothing: Any = None
    local: Any = SimpleNamespace(of=lambda name: None)
    afterwards = Afterwards(REAL, row_delay=1.0, write_row=nothing, clear_debt=nothing, is_mine=nothing)
    return Taking(access, nothing, mail, adopter, afterwards, nothing, AzureStorageSettings(), local)


def event(number: int) -> Arrived:
    return Arrived(key=number, id=f"id{number}", event=EventRaised(timestamp=0, name="go", input=None))


def test_a_message_that_comes_before_the_lock_is_told_goes_with_it() -> None:
    """It was given to an engine that did not know the instance yet, which dropped it; it stayed in hand."""

    async def main() -> None:
        adopter = SlowAdopter()
        taking = made(adopter)
        taking._bring("quick", event(1))
        taking._bring("slow", event(2))
        locking = asyncio.ensure_future(taking.lock(10))
        await asyncio.sleep(0.01)
        taking._bring("quick", event(3))
        assert taking.fetch() == []  # the engine has not been told of the instance
        adopter.go_on.set()
        quick, _ = await locking
        assert [one.key for one in quick.messages] == [3]
        taking._bring("quick", event(4))
        assert [one.message.key for one in taking.fetch()] == [4]

    asyncio.run(main())


def test_what_a_session_of_before_is_writing_is_waited_for() -> None:
    """Read earlier, it would let go of what that write is about to begin."""

    async def main() -> None:
        taking = made(SlowAdopter())
        taking._bring("quick", event(1))
        (first,) = await taking.lock(10)
        held = taking.held(first.lease)
        assert held is not None
        await held.busy.acquire()  # a commit is under way
        taking.release(held)
        taking._bring("quick", event(2))
        locking = asyncio.ensure_future(taking.lock(10))
        await asyncio.sleep(0.01)
        assert not locking.done()
        held.busy.release()
        (second,) = await locking
        assert second.lease != first.lease

    asyncio.run(main())


def test_a_second_copy_of_a_start_that_was_given_takes_no_session_back() -> None:
    async def main() -> None:
        taking = made(SlowAdopter())
        started = ExecutionStarted(timestamp=0, instance_id="quick", execution_id="e", name="x")
        taking._bring("quick", Arrived(key=1, id="start", event=started))
        (locked,) = await taking.lock(10)
        held = taking.held(locked.lease)
        assert held is not None
        held.given[1] = Arrived(key=1, id="start", event=started)
        taking._bring("quick", Arrived(key=2, id="start", event=started))
        assert taking.held(locked.lease) is held
        taking._bring("quick", Arrived(key=3, id="another", event=started))
        assert taking.held(locked.lease) is None

    asyncio.run(main())

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
from holdtrue.stores.azure_storage.taking import Keys, Taking
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


def event(number: int) -> Arrived:
    return Arrived(key=number, id=f"id{number}", event=EventRaised(timestamp=0, name="go", input=None))


def test_a_message_that_comes_before_the_lock_is_told_goes_with_it() -> None:
    """It was given to an engine that did not know the instance yet, which dropped it; it stayed in hand."""

    async def main() -> None:
        adopter: Any = SlowAdopter()
        access: Any = SimpleNamespace(partition_of=lambda name: 0)
        mail: Any = SimpleNamespace()
        nothing: Any = None
        local: Any = SimpleNamespace(of=lambda name: None)
        afterwards = Afterwards(REAL, row_delay=1.0, write_row=nothing, clear_debt=nothing, is_mine=nothing)
        taking = Taking(access, nothing, mail, adopter, afterwards, nothing, Keys(), AzureStorageSettings(), local)
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

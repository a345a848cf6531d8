"""Results on their way to the hub: none is lost, whatever comes while others are under way or the hub fails."""

import asyncio

from holdtrue.core.events import TaskCompleted
from holdtrue.core.messages import WorkRef
from holdtrue.engine.handing_in import HandingIn
from holdtrue.engine.tasks import Background
from holdtrue.environment import REAL
from holdtrue.stores.errors import StoreUnavailable
from holdtrue.stores.protocol import ActivityResult, CompleteOutcome


class Hub:
    def __init__(self) -> None:
        self.taken: list[int] = []
        self.failing = 1

    async def complete(self, results):
        await asyncio.sleep(0.01)
        if self.failing:
            self.failing -= 1
            raise StoreUnavailable("full")
        self.taken += [result.ref.key for result in results]
        await asyncio.sleep(0.01)
        return [CompleteOutcome(accepted=True) for _ in results]


def result(key: int) -> ActivityResult:
    return ActivityResult(ref=WorkRef(key, 1), event=TaskCompleted(timestamp=1, task_scheduled_id=0))


def test_what_comes_while_a_batch_is_under_way_is_handed_in_too_once_each():
    async def main() -> None:
        hub = Hub()
        background = Background(REAL, lost=lambda: None)
        handing_in = HandingIn(hub, background, deliver=lambda delivery: None, look=lambda: None)  # type: ignore[arg-type]
        for key in range(30):
            handing_in.add([result(key)])
            await asyncio.sleep(0.004)
        await background.finish()
        assert hub.taken == list(range(30))

    asyncio.run(main())

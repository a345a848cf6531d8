"""An instance that the hub gives out anew: what its old session knew is over, the results in it are not."""

import asyncio
from typing import Any

import holdtrue
from holdtrue.core.events import ExecutionStarted, TaskCompleted
from holdtrue.core.messages import ActivityTask, WorkRef
from holdtrue.core.projection import initial
from holdtrue.engine.dispatcher import Dispatcher
from holdtrue.engine.settings import HostSettings
from holdtrue.environment import REAL
from holdtrue.stores.protocol import (
    ActivityResult,
    CompleteOutcome,
    InstanceRecord,
    Lease,
    LockedActivity,
    LockedInstance,
)


class Hub:
    """Takes results, and knows nobody under any lease."""

    def __init__(self) -> None:
        self.results: list[ActivityResult] = []
        self.loaded: list[Lease] = []

    async def complete(self, results: list[ActivityResult]) -> list[CompleteOutcome]:
        self.results += results
        return [CompleteOutcome(accepted=True) for _ in results]

    async def load(self, lease: Lease) -> None:
        self.loaded.append(lease)

    async def put_back(self, leases: Any) -> None: ...

    async def lock(self, limit: int) -> list[LockedInstance]:
        return []

    async def fetch(self) -> list[Any]:
        return []


class NoActivities:
    """Runs none."""

    def backlog(self) -> int:
        return 10**6

    def rooms(self) -> list[Any]:
        return []


def locked(token: int) -> LockedInstance:
    started = ExecutionStarted(timestamp=1, instance_id="i", execution_id="e", name="job")
    record = InstanceRecord(
        projection=initial(started), started=started, start_id="s", dialect="dotnet", length=5, size=100
    )
    return LockedInstance(lease=Lease(7, token), record=record, messages=[])


def test_the_results_in_an_old_session_are_handed_in_when_its_instance_is_given_out_anew() -> None:
    app = holdtrue.App()

    @app.orchestrator
    async def job(ctx: holdtrue.OrchestrationContext, n: Any) -> Any:
        return n

    async def main() -> None:
        hub = Hub()
        dispatcher = Dispatcher(
            app,
            hub,  # type: ignore[arg-type]
            REAL,
            HostSettings(),
            changed=lambda names: None,
            committed=lambda records: None,
            lost=lambda: None,
        )
        dispatcher._loop = asyncio.get_running_loop()
        dispatcher.pool = NoActivities()  # type: ignore[assignment]
        dispatcher.adopt(locked(1))
        task = ActivityTask(instance_id="i", execution_id="e", task_id=0, scheduled=2, name="a", input=None)
        item = LockedActivity(ref=WorkRef(3, 4), instance=7, task=task, run=1)
        result = TaskCompleted(timestamp=2, task_scheduled_id=0, result='"done"')
        dispatcher.finished(item, result)
        dispatcher.adopt(locked(2))
        assert [session.lease for session in dispatcher.sessions] == [Lease(7, 2)]
        await dispatcher._background.finish()
        assert [(one.ref, one.event) for one in hub.results] == [(item.ref, result)]

    asyncio.run(main())

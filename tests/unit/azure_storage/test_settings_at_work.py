"""What the settings change of a host at work, seen in the account."""

import base64
import json
from typing import Any

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.azure_storage.tracking import TrackedService
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_faults import Call, CallFaultList, FaultyService
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, run

app = holdtrue.App()


@app.activity
async def add_one(ctx: holdtrue.ActivityContext, number: int) -> int:
    return number + 1


@app.orchestrator
async def fan_out(ctx: holdtrue.OrchestrationContext, width: int) -> int:
    return sum(await holdtrue.when_all([ctx.call_activity(add_one, input=number) for number in range(width)]))


class Play:
    """A fan-out to its end, with these settings; the calls that it made."""

    def __init__(
        self, width: int = 5, tracking: bool = False, instances: int = 1, active: int = 100, **settings: Any
    ) -> None:
        self.calls: list[tuple[Call, tuple[Any, ...], Any]] = []
        self.width = width
        self.instances = instances
        self.active = active
        given: dict[str, Any] = {"partition_count": 1, "max_queue_polling_interval": 0.2, "local_activities": False}
        self.settings = AzureStorageSettings(**given, **settings)
        self.model, self.other = (StorageModel(SimulatedEnvironment(seed)) for seed in (1, 2))
        self.tracking = tracking
        run(self._play())

    def of(self, verb: str) -> list[tuple[Call, tuple[Any, ...], Any]]:
        """The calls of one verb."""
        return [one for one in self.calls if one[0].verb == verb]

    async def _play(self) -> None:
        def applied(call: Call, given: tuple[Any, ...], outcome: Any) -> None:
            self.calls.append((call, given, outcome))

        service: Any = FaultyService(self.model, Part("p"), CallFaultList(()), applied=applied)
        prefix = "Track" if self.tracking else None
        if self.tracking:
            service = TrackedService(service, self.other, HubNames("Set", prefix))
        store = AzureStorageStore(
            service, "Set", environment=SimulatedEnvironment(3), settings=self.settings, tracking_prefix=prefix
        )
        await store.open()
        settings = HostSettings(name="h", retention=False, schedules=False, active_instances=self.active)
        async with holdtrue.Host(app, store, settings=settings, environment=SimulatedEnvironment(4)) as host:
            names = [await host.client.start(fan_out, input=self.width) for _ in range(self.instances)]
            for name in names:
                status = await host.client.wait_for_completion(name)
                assert status.output == sum(range(1, self.width + 1))
            (listed, *_) = (await host.client.query_page()).items
            assert listed.runtime_status is holdtrue.Status.COMPLETED
            self.partitions = self.model.tables.look("SetPartitions", "")  # type: ignore[attr-defined]
            await host.client.purge(names[0])


def test_history_and_instances_in_an_account_of_their_own() -> None:
    play = Play(tracking=True)
    tables = {call.target for call, _, _ in play.calls if call.verb.startswith("tables.")}
    assert tables == {"SetPartitions", "SetHoldtrue"}


def test_messages_in_base64() -> None:
    for setting, encoded in (("Base64", True), ("UTF8", False)):
        texts = [given[1] for _, given, _ in Play(queue_message_encoding=setting).of("queues.put")]
        assert texts
        for text in texts:
            assert "TaskMessage" in json.loads(base64.b64decode(text) if encoded else text)


def test_so_many_messages_a_get() -> None:
    taken = [
        given[1] for call, given, _ in Play(control_queue_batch_size=3).of("queues.take") if "control" in call.target
    ]
    assert set(taken) == {3}


def test_no_more_messages_in_hand_than_the_buffer_holds() -> None:
    play = Play(width=1, instances=40, active=1, control_queue_batch_size=4, control_queue_buffer_threshold=8)
    in_hand = most = 0  # one instance is worked on at a time, the others wait
    for call, _, outcome in play.calls:
        if "control" in call.target:
            in_hand += len(outcome) if call.verb == "queues.take" else -1 if call.verb == "queues.remove" else 0
            most = max(most, in_hand)
    assert 8 <= most <= 8 + 2 * 4


def test_the_worker_s_own_id() -> None:
    (row,) = Play(worker_id="fixed").partitions
    assert row.values["CurrentOwner"] == "holdtrue-fixed"

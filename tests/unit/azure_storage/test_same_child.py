"""A child whose start comes again under another execution: a .NET worker sent it and died before it committed."""

import asyncio
import re
from typing import Any

import pytest

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run

SETTINGS = AzureStorageSettings(partition_count=1, max_queue_polling_interval=0.2, lease_acquire_interval=1.0)

app = holdtrue.App()


@app.orchestrator
async def child(ctx: holdtrue.OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("go")


@app.orchestrator
async def parent(ctx: holdtrue.OrchestrationContext) -> str:
    return await ctx.call_sub_orchestrator(child, instance_id="c")


@pytest.mark.parametrize("when", ["in hand", "out of hand", "ended"])
def test_it_has_started_already(when: str) -> None:
    async def main() -> None:
        account = StorageModel(SimulatedEnvironment(1))
        texts: list[str] = []

        def saw(verb: str, given: tuple[Any, ...], outcome: Any) -> None:
            if verb == "put" and '"InstanceId":"p"' in given[1] and '"InstanceId":"c"' in given[1]:
                texts.append(given[1])

        account.account.watch = saw

        async def host() -> holdtrue.Host:
            environment = SimulatedEnvironment(2)
            store = AzureStorageStore(account, "Hub", environment=environment, settings=SETTINGS)
            await store.open()
            settings = HostSettings(name="h", retention=False, schedules=False)
            made = holdtrue.Host(app, store, settings=settings, environment=environment)
            await made.start()
            return made

        async def again() -> None:
            """As .NET puts it: another execution, another envelope, nothing of ours in it."""
            text = next(one for one in texts if "ExecutionStartedEvent" in one)
            (execution,) = set(re.findall(r'"InstanceId":"c","ExecutionId":"(\w+)"', text))
            text = re.sub(r'"ActivityId":"[^"]*"', '"ActivityId":"11111111-2222-3333-4444-555555555555"', text)
            text = re.sub(r',"Holdtrue":\{.*\}\}$', "}", text.replace(execution, "e" * 32))
            assert "Holdtrue" not in text and execution not in text
            await account.queues.put("hub-control-00", text)

        at_work = await host()
        await at_work.client.start(parent, instance_id="p")
        while (status := await at_work.client.get_status("c")) is None or status.runtime_status is not running:
            await asyncio.sleep(0.5)
        if when == "out of hand":
            await at_work.stop()
            await again()
            at_work = await host()
        elif when == "in hand":
            await again()
            await asyncio.sleep(5.0)
        await at_work.client.raise_event("c", "go", "went")
        ended = await at_work.client.wait_for_completion("p", timeout=60.0)
        assert (ended.runtime_status, ended.output) == (holdtrue.Status.COMPLETED, "went")
        if when == "ended":
            await again()
            await asyncio.sleep(60.0)
        kept = await at_work.client.get_status("c")
        assert kept is not None and (kept.runtime_status, kept.output) == (holdtrue.Status.COMPLETED, "went")
        assert not account.queues.look()["hub-control-00"]
        await at_work.stop()

    running = holdtrue.Status.RUNNING
    run(main())

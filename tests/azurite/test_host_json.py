"""A hub opened as an app's host.json says: history and instances in an account of their own, messages in Base64."""

import asyncio
import json
from pathlib import Path

import holdtrue
from holdtrue.engine.settings import HostSettings
from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.opening import open_hub
from holdtrue.stores.azure_storage.service import NotThere
from tools.azurite import Azurite

app = holdtrue.App()


@app.activity
async def twice(ctx: holdtrue.ActivityContext, text: str) -> str:
    return text * 2


@app.orchestrator
async def echo(ctx: holdtrue.OrchestrationContext, text: str) -> str:
    return await ctx.call_activity(twice, input=text)


async def _has(connection: str, table: str) -> bool:
    service = HttpService(from_connection_string(connection))
    await service.open()
    try:
        await service.tables.query(table, top=1)
    except NotThere:
        return False
    finally:
        await service.close()
    return True


def test_two_accounts(azurite: Azurite, tmp_path: Path) -> None:
    accounts = {name: azurite.connection_string(azurite.new_account()) for name in ("Main", "Tracking")}
    provider = {
        "partitionCount": 1,
        "connectionName": "Main",
        "trackingStoreConnectionName": "Tracking",
        "trackingStoreNamePrefix": "Followed",
        "maxQueuePollingInterval": "00:00:00.2",
        "queueClientMessageEncoding": "Base64",
    }
    file = tmp_path / "host.json"
    file.write_text(json.dumps({"extensions": {"durableTask": {"hubName": "Split", "storageProvider": provider}}}))

    async def main() -> None:
        store = open_hub(f"azure-storage:?settings={file}", REAL, accounts)
        settings = HostSettings(name="one", retention=False, drain_seconds=1.0)
        async with asyncio.timeout(120), holdtrue.Host(app, store, settings=settings) as host:
            name = await host.client.start(echo, input="ä" * 50_000)
            status = await host.client.wait_for_completion(name)
            assert status.output == "ä" * 100_000
            assert [one.instance_id async for one in host.client.query(any_order=True)] == [name]
        for table, place in (
            ("FollowedHistory", "Tracking"),
            ("FollowedInstances", "Tracking"),
            ("SplitPartitions", "Main"),
            ("SplitHoldtrue", "Main"),
        ):
            assert [one for one in accounts if await _has(accounts[one], table)] == [place]

    asyncio.run(main())

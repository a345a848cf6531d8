"""A status that is too large for the sentinel is whole, whoever tells it (rules 6 and 8)."""

import holdtrue
from holdtrue.stores.azure_storage.service import Do, Operation
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from tests.unit.azure_storage.stages import played

SETTINGS = AzureStorageSettings(partition_count=1, max_queue_polling_interval=0.2)
LARGE = "x" * 60_000

app = holdtrue.App()


@app.orchestrator
async def fails(ctx: holdtrue.OrchestrationContext, text: str) -> None:
    ctx.set_custom_status(text)
    raise RuntimeError("no way on")


def on_an_account() -> tuple[StorageModel, AzureStorageStore]:
    account = StorageModel(SimulatedEnvironment(1))
    return account, AzureStorageStore(account, "Large", environment=SimulatedEnvironment(7), settings=SETTINGS)


async def is_told_while_a_rewind_begins(account: StorageModel, client: holdtrue.Client) -> None:
    """Told by the history, that .NET may be turning: the custom status stands beside our sentinel alone."""
    await client.start(fails, input=LARGE, instance_id="i")
    before = await client.wait_for_completion("i")
    assert before.custom_status == LARGE
    # The last write of .NET's rewind, and the first of ours.
    await account.tables.write(
        "LargeInstances", Operation(do=Do.MERGE, partition="i", key="", values={"RuntimeStatus": "Pending"})
    )
    status = await client.get_status("i")
    assert status is not None and status.custom_status == LARGE and status.runtime_status == before.runtime_status


test_it_is_told_while_a_rewind_begins = played(is_told_while_a_rewind_begins, app, on_an_account)

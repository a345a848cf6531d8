"""A status that is too large for the sentinel is whole, whoever tells it (rules 6 and 8)."""

import holdtrue
from holdtrue.stores.azure_storage.service import Do, Operation
from holdtrue.stores.azure_storage.store import AzureStorageStore
from tests.unit.azure_storage.stages import Account, app, played

LARGE = "x" * 60_000


@app.orchestrator
async def fails(ctx: holdtrue.OrchestrationContext, text: str) -> None:
    ctx.set_custom_status(text)
    raise RuntimeError("no way on")


def on_an_account() -> tuple[Account, AzureStorageStore]:
    account = Account()
    return account, account.store("Large")


async def is_told_while_a_rewind_begins(account: Account, client: holdtrue.Client) -> None:
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

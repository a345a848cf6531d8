"""Which account and hub a URL names."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from azure.identity import aio

from holdtrue.cli.app import Session
from holdtrue.cli.exits import UsageProblem
from holdtrue.cli.worker import _of_account
from holdtrue.core.errors import InvalidInput
from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.http.connection import Reopening, reopen, reopening
from holdtrue.stores.azure_storage.http.identity import Identity
from holdtrue.stores.azure_storage.opening import HOST_JSON, _connection, hub_and_settings, open_hub
from holdtrue.stores.azure_storage.store import AzureStorageStore

EMULATOR = "UseDevelopmentStorage=true"


def test_the_usual_connection_and_another() -> None:
    assert isinstance(open_hub("azure-storage:Hub", REAL, {"AzureWebJobsStorage": EMULATOR}), AzureStorageStore)
    assert isinstance(open_hub("azure-storage:Hub?connection=Other", REAL, {"Other": EMULATOR}), AzureStorageStore)


@pytest.mark.parametrize(
    ("url", "variables", "told"),
    [
        ("azure-storage:Hub", {}, "no storage account is named"),
        ("azure-storage:Hub", {"AzureWebJobsStorage__tableServiceUri": "https://t"}, "no storage account is named"),
        ("azure-storage:9", {"AzureWebJobsStorage": EMULATOR}, "'9' cannot be the name of a task hub"),
        ("azure-storage:Hub?key=x", {"AzureWebJobsStorage": EMULATOR}, "unknown options"),
        ("azure-storage:Hub", {"AzureWebJobsStorage": "AccountName=x"}, "AccountKey"),
    ],
)
def test_what_names_nothing(url: str, variables: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        open_hub(url, REAL, variables)


def by_identity(**more: str) -> Any:
    """The connection of an account that an identity opens."""
    given = {f"Mine__{name}": value for name, value in {"accountName": "acc", **more}.items()}
    return _connection("Mine", given)


def test_an_account_that_an_identity_opens() -> None:
    found = by_identity()
    assert (found.account, found.table.url) == ("acc", "https://acc.table.core.windows.net")
    assert type(found.key.credential) is aio.DefaultAzureCredential
    assert reopening(found).identity == Identity()
    uris = {f"MINE__{service}serviceuri": f"https://{service}.local/x" for service in ("table", "queue", "blob")}
    assert _connection("Mine", uris).queue.url == "https://queue.local/x"


@pytest.mark.parametrize(
    ("settings", "kind", "identity"),
    [
        ({"clientId": "c"}, aio.DefaultAzureCredential, Identity("c")),
        ({"credential": "ManagedIdentity"}, aio.ManagedIdentityCredential, Identity(kind="managedidentity")),
        (
            {"credential": "managedidentity", "clientId": "c"},
            aio.ManagedIdentityCredential,
            Identity("c", kind="managedidentity"),
        ),
        (
            {"managedIdentityResourceId": "/r"},
            aio.ManagedIdentityCredential,
            Identity(kind="managedidentity", resource_id="/r"),
        ),
        (
            {"tenantId": "t", "clientId": "c", "clientSecret": "s"},
            aio.ClientSecretCredential,
            Identity("c", tenant_id="t", secret="s"),
        ),
    ],
)
def test_which_identity_it_is(settings: dict[str, str], kind: type, identity: Identity) -> None:
    found = by_identity(**settings)
    assert type(found.key.credential) is kind
    known = reopening(found)
    assert known is not None and known.identity == identity
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(known), type=Reopening)
    assert type(reopen(again).key.credential) is kind  # type: ignore[union-attr]
    assert "'s'" not in repr(identity)


def test_an_identity_of_a_workload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    found = by_identity(credential="workloadidentity", clientId="c", tenantId="t")
    assert type(found.key.credential) is aio.WorkloadIdentityCredential


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"credential": "password"}, "Mine__credential is 'password': there are managedidentity, workloadidentity"),
        ({"clientId": "c", "managedIdentityResourceId": "/r"}, "both name the identity"),
        ({"clientSecret": "s"}, "needs Mine__tenantId and Mine__clientId"),
        ({"clientSecret": "s", "credential": "managedidentity"}, "leave one out"),
        ({"managedIdentityResourceId": "/r", "credential": "workloadidentity"}, "names a managed identity"),
    ],
)
def test_an_identity_that_cannot_be(settings: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        by_identity(**settings)
    assert "'s'" not in str(caught.value)


def test_the_settings_of_a_host_json(tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    file.write_text(
        '{"extensions": {"durableTask": {"hubName": "Named", "maxConcurrentActivityFunctions": 7, "storageProvider": '
        '{"partitionCount": 9, "connectionName": "Mine", "trackingStoreConnectionName": "Other"}}}} // ours'
    )
    variables = {"Mine": EMULATOR, "Other": EMULATOR, HOST_JSON: str(file)}
    names, settings = hub_and_settings("azure-storage:", variables)
    assert (names.hub, names.history) == ("Named", "DurableTaskHistory")
    assert (settings.partition_count, settings.max_concurrent_activities) == (9, 7)
    assert hub_and_settings(f"azure-storage:Named?settings={file}", {}) == (names, settings)
    assert isinstance(open_hub("azure-storage:", REAL, variables), AzureStorageStore)
    over = {**variables, "AzureFunctionsJobHost__extensions__durableTask__storageProvider__partitionCount": "3"}
    assert hub_and_settings("azure-storage:", over)[1].partition_count == 3
    with pytest.raises(InvalidInput, match="leave one of them out"):
        hub_and_settings("azure-storage:Another", variables)
    with pytest.raises(InvalidInput, match="no storage account is named: set Other"):
        open_hub("azure-storage:", REAL, {**variables, "Other": ""})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "host.json': "),
        (
            '{"extensions": {"durableTask": {"storageProvider": {"useLegacyPartitionManagement": true}}}}',
            "contradicts useTablePartitionManagement.*settings check",
        ),
        ('{"extensions": {"durableTask": {"storageProvider": {"partitionCount": 99}}}}', "partitionCount"),
    ],
)
def test_a_host_json_with_errors_is_not_run(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "host.json"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=told):
        hub_and_settings("azure-storage:Hub", {HOST_JSON: str(file)})
    with pytest.raises(InvalidInput, match="cannot be read"):
        hub_and_settings("azure-storage:Hub", {HOST_JSON: str(tmp_path / "none.json")})


def test_what_the_command_that_runs_a_worker_takes_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "host.json"
    file.write_text(
        '{"extensions": {"durableTask": {"maxConcurrentActivityFunctions": 7,"maxConcurrentOrchestratorFunctions": 3}}}'
    )
    monkeypatch.setenv(HOST_JSON, str(file))
    limits = {"activity_slots": 7, "activity_threads": 7, "active_instances": 3}
    assert _of_account("azure-storage:Hub") == limits
    assert _of_account("hub.db") == {}
    Session("azure-storage:Hub", None, False).require_hub(create=True)  # type: ignore[arg-type]
    file.write_text("[]")
    with pytest.raises(UsageProblem, match="must be an object"):
        _of_account("azure-storage:Hub")

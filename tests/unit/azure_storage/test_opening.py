"""Which account and hub a URL names."""

import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.opening import open_hub
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

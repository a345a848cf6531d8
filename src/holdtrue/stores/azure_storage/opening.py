"""From a hub's URL to its store: `azure-storage:HUB`, the account by a named connection of the environment.

As .NET's settings name it: the variable `AzureWebJobsStorage` (or the one that `?connection=NAME` gives) holds a
connection string; or `NAME__accountName`, or `NAME__tableServiceUri` and its like, name the account, and a token of
`azure-identity` opens it (`NAME__clientId` says which identity).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from holdtrue.core.errors import InvalidInput
from holdtrue.environment import Environment

from .settings import AzureStorageSettings
from .store import AzureStorageStore

if TYPE_CHECKING:
    from .http.connection import Connection

SCHEME = "azure-storage:"


def open_hub(url: str, environment: Environment, variables: Mapping[str, str]) -> AzureStorageStore:
    """The store for a URL; it is not opened yet.  Raises InvalidInput where it names no hub, or no account is named."""
    hub, _, query = url.removeprefix(SCHEME).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    name = options.pop("connection", AzureStorageSettings().connection_name)
    if options:
        raise InvalidInput(f"the hub's URL {url!r} has unknown options {sorted(options)}: 'connection' is the only one")
    try:
        from .http.connection import from_connection_string, reopening
        from .http.service import HttpService
    except ImportError as error:
        raise InvalidInput(
            f"hubs in Azure Storage need aiohttp, which is not installed ({error}): install holdtrue[azure]"
        ) from error
    text = variables.get(name)
    connection = from_connection_string(text) if text else _by_identity(name, variables)
    service = HttpService(connection, environment)
    return AzureStorageStore(service, hub, environment=environment, account=reopening(connection))


def _by_identity(name: str, variables: Mapping[str, str]) -> "Connection":
    from .http.connection import Identity, with_credential

    account = variables.get(f"{name}__accountName")
    endpoints = {
        service: url for service in ("table", "queue", "blob") if (url := variables.get(f"{name}__{service}ServiceUri"))
    }
    if not account and len(endpoints) < 3:
        raise InvalidInput(
            f"no storage account is named: set {name} to a connection string, or {name}__accountName to use an identity"
        )
    identity = Identity(variables.get(f"{name}__clientId"))
    return with_credential(identity.credential(), identity=identity, account=account, endpoints=endpoints)

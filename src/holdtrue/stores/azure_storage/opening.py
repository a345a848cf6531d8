"""From a hub's URL to its store: `azure-storage:HUB`, the account by a named connection of the environment.

As .NET's settings name it: the variable `AzureWebJobsStorage` (or the one that `?connection=NAME` gives) holds a
connection string; or `NAME__accountName`, or `NAME__tableServiceUri` and its like, name the account, and a token of
`azure-identity` opens it (`NAME__clientId` says which identity).  The settings are those of the host.json that
`?settings=PATH` or the variable `HOLDTRUE_HOST_JSON` names; without a hub in the URL it is that file's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from holdtrue.core.errors import InvalidInput
from holdtrue.environment import Environment

from .host_json import HostJson, Origin, Weight, read_host_json
from .names import HubNames
from .service import Service
from .settings import AzureStorageSettings
from .settings_check import check
from .store import AzureStorageStore
from .tracking import TrackedService

if TYPE_CHECKING:
    from .http.connection import Connection

SCHEME = "azure-storage:"
HOST_JSON = "HOLDTRUE_HOST_JSON"
"""The variable that names the host.json."""


def open_hub(url: str, environment: Environment, variables: Mapping[str, str]) -> AzureStorageStore:
    """The store for a URL; it is not opened yet.  Raises InvalidInput where it names no hub, or no account is named,
    and for a host.json that is not there or has errors."""
    names, settings = hub_and_settings(url, variables)
    try:
        from .http.connection import reopening
        from .http.service import HttpService
    except ImportError as error:
        raise InvalidInput(
            f"hubs in Azure Storage need aiohttp, which is not installed ({error}): install holdtrue[azure]"
        ) from error

    def account(connection: "Connection") -> Service:
        return HttpService(connection, environment, at_once=settings.max_storage_operations)

    connection = _connection(settings.connection_name, variables)
    service = account(connection)
    if settings.tracking_store_connection_name is not None:
        tracking = account(_connection(settings.tracking_store_connection_name, variables))
        service = TrackedService(service, tracking, names)
    return AzureStorageStore(
        service,
        names.hub,
        environment=environment,
        settings=settings,
        tracking_prefix=names.tracking_prefix,
        account=reopening(connection),
    )


def hub_and_settings(url: str, variables: Mapping[str, str]) -> tuple[HubNames, AzureStorageSettings]:
    """What a URL and the environment say.  Raises InvalidInput."""
    hub, _, query = url.removeprefix(SCHEME).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    connection, path = options.pop("connection", None), options.pop("settings", None) or variables.get(HOST_JSON)
    if options:
        raise InvalidInput(
            f"the hub's URL {url!r} has unknown options {sorted(options)}: there are 'connection' and 'settings'"
        )
    settings = AzureStorageSettings()
    if path:
        host = _host_json(path, variables)
        settings = host.settings()
        if host.values["hubName"].origin is not Origin.DEFAULT:
            hub = hub or host.hub
            if hub != host.hub:
                raise InvalidInput(
                    f"the URL names the hub {hub!r}, and {path} the hub {host.hub!r}: leave one of them out"
                )
    if connection is not None:
        settings = msgspec.structs.replace(settings, connection_name=connection)
    tracked = settings.tracking_store_connection_name is not None
    return HubNames(hub, settings.tracking_store_name_prefix if tracked else None), settings


def _host_json(path: str, variables: Mapping[str, str]) -> HostJson:
    try:
        host = read_host_json(Path(path).read_text(encoding="utf-8-sig"), variables)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidInput(f"the settings {path!r} cannot be read: {reason}") from None
    except InvalidInput as error:
        raise InvalidInput(f"the settings {path!r}: {error}") from None
    wrong = [one for one in check(host) if one.weight is Weight.ERROR]
    if wrong:
        raise InvalidInput(
            f"the settings {path!r}: {wrong[0].name}: {wrong[0].text} (`holdtrue settings check {path}` shows all)"
        )
    return host


def _connection(name: str, variables: Mapping[str, str]) -> "Connection":
    from .http.connection import from_connection_string

    text = variables.get(name)
    return from_connection_string(text) if text else _by_identity(name, variables)


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

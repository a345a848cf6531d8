"""From a hub's URL to its store: `azure-storage:HUB`, the account by a named connection of the environment.

As .NET's settings name it: the variable `AzureWebJobsStorage` (or the one that `?connection=NAME` gives) holds a
connection string; or `NAME__accountName`, or `NAME__tableServiceUri` and its like, name the account, and a token of
`azure-identity` opens it (`NAME__credential`, `NAME__clientId` and others say whose).  The settings are those of the
host.json that `?settings=PATH` or the variable `HOLDTRUE_HOST_JSON` names; without a hub in the URL it is that file's.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from holdtrue.core.errors import InvalidInput
from holdtrue.environment import Environment
from holdtrue.stores.errors import StoreMissing

from .access import Access
from .creating import delete_hub, partitions_there
from .host_json import HostJson, Origin, Weight, read_host_json
from .names import HubNames
from .partitions import HubServed
from .served import owners
from .service import Service, ServiceError
from .settings import AzureStorageSettings
from .settings_check import check
from .store import AzureStorageStore
from .tracking import TrackedService

if TYPE_CHECKING:
    from .http.connection import Connection, Reopening

SCHEME = "azure-storage:"
HOST_JSON = "HOLDTRUE_HOST_JSON"
"""The variable that names the host.json."""


def open_hub(url: str, environment: Environment, variables: Mapping[str, str]) -> AzureStorageStore:
    """The store for a URL; it is not opened yet.  Raises InvalidInput where it names no hub, or no account is named,
    and for a host.json that is not there or has errors."""
    service, names, settings, account = _account(url, environment, variables)
    return AzureStorageStore(
        service,
        names.hub,
        environment=environment,
        settings=settings,
        tracking_prefix=names.tracking_prefix,
        account=account,
    )


async def hub_exists(url: str, environment: Environment, variables: Mapping[str, str]) -> bool:
    """Whether there is the hub of a URL.  Raises as `open_hub`, and StoreError where the account does not answer."""
    async with _opened(url, environment, variables) as access:
        try:
            await access.query(access.names.instances, None, top=1)
        except StoreMissing:
            return False
        return True


async def delete_hub_of(url: str, environment: Environment, variables: Mapping[str, str]) -> None:
    """Delete the hub of a URL with all that it holds; idempotent, and an interrupted one can be repeated.

    Raises HubServed or HubLeased where hosts serve it, before anything is deleted; else as above.
    """
    async with _opened(url, environment, variables) as access:
        if serving := await owners(access):
            raise HubServed(
                f"the hub {access.names.hub!r} is served by {', '.join(sorted(serving))}: stop its hosts first; one "
                "that was killed counts for a minute after its lease"
            )
        try:
            await delete_hub(access.service, access.names)
        except ServiceError as error:
            raise access.failure(f"hub {access.names.hub!r} could not be deleted", error) from error


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A hub as it stands in its account: how many partitions it has, and which hosts serve it."""

    partitions: int
    served_by: list[str]


async def standing(url: str, environment: Environment, variables: Mapping[str, str]) -> Standing | None:
    """The hub of a URL as it stands, None where there is none.  Nothing is made.  Raises as `hub_exists`."""
    async with _opened(url, environment, variables) as access:
        try:
            partitions = await partitions_there(access.service, access.names)
        except ServiceError as error:
            raise access.failure(f"hub {access.names.hub!r} could not be read", error) from error
        if partitions is None:
            return None
        return Standing(partitions=partitions, served_by=sorted(await owners(access)))


@asynccontextmanager
async def _opened(url: str, environment: Environment, variables: Mapping[str, str]) -> AsyncIterator[Access]:
    service, names, _, _ = _account(url, environment, variables)
    try:
        await service.open()
        yield Access(service, names, environment)
    finally:
        await service.close()


def _account(
    url: str, environment: Environment, variables: Mapping[str, str]
) -> tuple[Service, HubNames, AzureStorageSettings, "Reopening | None"]:
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
    return service, names, settings, reopening(connection)


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
    from .http.connection import with_credential
    from .http.identity import identity_of

    # As in .NET's configuration, where capitals do not count.
    settings = {key.lower(): value for key, value in variables.items()}
    account = settings.get(f"{name}__accountName".lower())
    endpoints = {
        service: url
        for service in ("table", "queue", "blob")
        if (url := settings.get(f"{name}__{service}ServiceUri".lower()))
    }
    if not account and len(endpoints) < 3:
        raise InvalidInput(
            f"no storage account is named: set {name} to a connection string, or {name}__accountName to use an identity"
        )
    identity = identity_of(name, settings)
    return with_credential(identity.credential(), identity=identity, account=account, endpoints=endpoints)

"""Where a storage account is and what opens it: from a connection string, or from names and a token credential.  Pure.

Error messages never hold what a connection string holds: it is a secret.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import parse_qsl, urlsplit

import msgspec

from holdtrue.core.errors import InvalidInput

from .identity import Identity

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

EMULATOR_ACCOUNT = "devstoreaccount1"
EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of every emulator, as its documentation publishes it."""
_EMULATOR_PORTS = {"blob": 10000, "queue": 10001, "table": 10002}

SERVICES = ("blob", "queue", "table")


class SharedKey(msgspec.Struct, frozen=True):
    """The account's key."""

    account: str
    key: bytes

    def __repr__(self) -> str:
        return f"SharedKey({self.account!r}, ...)"


class Sas(msgspec.Struct, frozen=True):
    """A shared access signature, as the pairs of its query."""

    pairs: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return "Sas(...)"


class Token(msgspec.Struct, frozen=True):
    """A credential of `azure-identity` (its `aio` kind), which gives tokens, and whose it is (None: not known)."""

    credential: "AsyncTokenCredential"
    identity: Identity | None = None


Key = SharedKey | Sas | Token
"""What opens an account."""


class Endpoint(msgspec.Struct, frozen=True):
    """Of one service: `https://name.table.core.windows.net`, or with the account's name as its path."""

    origin: str
    path: str

    @property
    def host(self) -> str:
        """Its name and port."""
        return self.origin.partition("://")[2]

    @property
    def url(self) -> str:
        """Whole, without a slash at its end."""
        return self.origin + self.path


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """An account: its name, its three endpoints, and what opens it."""

    account: str
    blob: Endpoint
    queue: Endpoint
    table: Endpoint
    key: Key


class Reopening(msgspec.Struct, frozen=True, kw_only=True):
    """A connection as another process opens it anew: with one of key, signature and identity."""

    account: str
    blob: Endpoint
    queue: Endpoint
    table: Endpoint
    key: bytes | None = None
    pairs: tuple[tuple[str, str], ...] | None = None
    identity: Identity | None = None

    def __repr__(self) -> str:
        return f"Reopening({self.account!r}, ...)"


def reopening(connection: Connection) -> Reopening | None:
    """How another process of this machine opens it; None where only this one can, with a credential made by hand."""
    key = connection.key
    known = Reopening(account=connection.account, blob=connection.blob, queue=connection.queue, table=connection.table)
    if isinstance(key, SharedKey):
        return msgspec.structs.replace(known, key=key.key)
    if isinstance(key, Sas):
        return msgspec.structs.replace(known, pairs=key.pairs)
    return None if key.identity is None else msgspec.structs.replace(known, identity=key.identity)


def reopen(known: Reopening) -> Connection:
    """The connection anew."""
    key: Key
    if known.key is not None:
        key = SharedKey(known.account, known.key)
    elif known.pairs is not None:
        key = Sas(known.pairs)
    else:
        identity = known.identity or Identity()
        key = Token(identity.credential(), identity)
    return Connection(account=known.account, blob=known.blob, queue=known.queue, table=known.table, key=key)


def from_connection_string(text: str) -> Connection:
    """Read a connection string of Azure Storage.

    Raises InvalidInput, which says what is missing or wrong and never shows a value.
    """
    given = _settings(text)
    if given.get("usedevelopmentstorage", "").lower() == "true":
        return _emulator(given)
    account = given.get("accountname", "")
    key: Key
    if "sharedaccesssignature" in given:
        key = _sas(given["sharedaccesssignature"])
    elif "accountkey" in given:
        if not account:
            _wrong("AccountKey needs AccountName")
        key = SharedKey(account, _key(given["accountkey"]))
    else:
        _wrong("it has neither AccountKey nor SharedAccessSignature")
    protocol = given.get("defaultendpointsprotocol", "https").lower()
    if protocol not in ("http", "https"):
        _wrong("DefaultEndpointsProtocol is neither http nor https")
    suffix = given.get("endpointsuffix", "core.windows.net")
    endpoints: dict[str, Endpoint] = {}
    for service in SERVICES:
        if url := given.get(f"{service}endpoint"):
            endpoints[service] = _endpoint(url, f"{service.capitalize()}Endpoint")
        elif account:
            endpoints[service] = _endpoint(f"{protocol}://{account}.{service}.{suffix}", "AccountName")
        else:
            _wrong(f"it has neither AccountName nor {service.capitalize()}Endpoint")
    return Connection(account=account or _name_in(endpoints["table"]), key=key, **endpoints)


def with_credential(
    credential: "AsyncTokenCredential",
    *,
    identity: Identity | None = None,
    account: str | None = None,
    endpoints: Mapping[str, str] | None = None,
    suffix: str = "core.windows.net",
) -> Connection:
    """An account opened by tokens: by its name, or by its URLs (`blob`, `queue`, `table`).

    `identity` says whose the credential is, where another process shall make it anew.

    Raises InvalidInput where neither says where a service is.
    """
    found: dict[str, Endpoint] = {}
    for service in SERVICES:
        if url := (endpoints or {}).get(service):
            found[service] = _endpoint(url, f"the URL of the {service} service")
        elif account:
            found[service] = _endpoint(f"https://{account}.{service}.{suffix}", "the account's name")
        else:
            raise InvalidInput(f"no account name, and no URL of the {service} service: give one of them")
    return Connection(account=account or _name_in(found["table"]), key=Token(credential, identity), **found)


def _settings(text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in text.split(";"):
        name, equals, value = part.strip().partition("=")
        if not name and not equals:
            continue
        if not equals or not name:
            _wrong("it is not of the form Name=Value;Name=Value")
        if name.strip().lower() in given:
            _wrong(f"it has {name.strip()} twice")
        given[name.strip().lower()] = value.strip()
    if not given:
        _wrong("it is empty")
    return given


def _emulator(given: Mapping[str, str]) -> Connection:
    proxy = _endpoint(given.get("developmentstorageproxyuri") or "http://127.0.0.1", "DevelopmentStorageProxyUri")
    host = urlsplit(proxy.origin)
    name = host.hostname or "127.0.0.1"
    name = f"[{name}]" if ":" in name else name
    endpoints = {
        service: Endpoint(f"{host.scheme}://{name}:{port}", f"/{EMULATOR_ACCOUNT}")
        for service, port in _EMULATOR_PORTS.items()
    }
    return Connection(account=EMULATOR_ACCOUNT, key=SharedKey(EMULATOR_ACCOUNT, _key(EMULATOR_KEY)), **endpoints)


def _endpoint(url: str, what: str) -> Endpoint:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port is not False
    except ValueError:
        good = False
    if not good:
        _wrong(f"{what} does not give a URL of http or https")
    if parts.query or parts.fragment:
        _wrong(f"{what} has a query: a signature belongs into SharedAccessSignature")
    return Endpoint(f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/"))


def _name_in(endpoint: Endpoint) -> str:
    """The account's name in an endpoint: its path, or the first part of its host."""
    return endpoint.path.strip("/") or endpoint.host.partition(".")[0]


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        _wrong("AccountKey is not base64")
    return key


def _sas(text: str) -> Sas:
    pairs = tuple(parse_qsl(text.removeprefix("?"), keep_blank_values=True))
    if "sig" not in dict(pairs):
        _wrong("SharedAccessSignature has no sig")
    return Sas(pairs)


def _wrong(why: str) -> NoReturn:
    raise InvalidInput(f"the storage connection string cannot be used: {why}; copy it anew from the account's page")

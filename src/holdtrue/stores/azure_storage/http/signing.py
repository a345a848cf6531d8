"""What opens a request: the account's shared key, a shared access signature, or a token."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, quote

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.environment import Environment

from .connection import Key, Sas, SharedKey, Token

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

SCOPE = "https://storage.azure.com/.default"
EARLY = 300
"""A token is fetched anew so many seconds before its end."""

_SIGNED_HEADERS = ("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date")
_CONDITIONS = ("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range")


class Signer(Protocol):
    """Opens requests."""

    async def sign(self, service: str, method: str, path: str, query: str, headers: MutableMapping[str, str]) -> str:
        """Add what opens the request to its headers (names in lower case); the query to send.

        `path` and `query` are as on the wire, percent-encoded.
        """

    async def close(self) -> None:
        """Give back what it holds; it may sign again."""


def signer_of(key: Key, environment: Environment) -> Signer:
    """The signer for what opens an account."""
    if isinstance(key, SharedKey):
        return SharedKeySigner(key)
    if isinstance(key, Sas):
        return SasSigner(key)
    return TokenSigner(key, environment)


class SharedKeySigner:
    """By the account's key: the light form for tables, as all clients send it, the full one for the rest."""

    def __init__(self, key: SharedKey) -> None:
        self._account = key.account
        self._hash = hmac.new(key.key, digestmod=hashlib.sha256)

    async def sign(self, service: str, method: str, path: str, query: str, headers: MutableMapping[str, str]) -> str:
        if service == "table":
            text, scheme = _light(self._account, path, query, headers), "SharedKeyLite"
        else:
            text, scheme = _full(self._account, method, path, query, headers), "SharedKey"
        mac = self._hash.copy()
        mac.update(text.encode())
        headers["authorization"] = f"{scheme} {self._account}:{base64.b64encode(mac.digest()).decode()}"
        return query

    async def close(self) -> None:
        return None


def _light(account: str, path: str, query: str, headers: Mapping[str, str]) -> str:
    comp = dict(parse_qsl(query)).get("comp") if "comp=" in query else None
    return f"{headers['x-ms-date']}\n/{account}{path}" + (f"?comp={comp}" if comp else "")


def _full(account: str, method: str, path: str, query: str, headers: Mapping[str, str]) -> str:
    lines = [method]
    for name in (*_SIGNED_HEADERS, *_CONDITIONS):
        value = headers.get(name, "")
        lines.append("" if name == "content-length" and value == "0" else value)
    lines += [f"{name}:{headers[name].strip()}" for name in sorted(headers) if name.startswith("x-ms-")]
    lines.append(f"/{account}{path}")
    named: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        named.setdefault(name.lower(), []).append(value)
    lines += [f"{name}:{','.join(sorted(values))}" for name, values in sorted(named.items())]
    return "\n".join(lines)


class SasSigner:
    """By a shared access signature, which stands in the query."""

    def __init__(self, sas: Sas) -> None:
        self._query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sas.pairs)

    async def sign(self, service: str, method: str, path: str, query: str, headers: MutableMapping[str, str]) -> str:
        return f"{query}&{self._query}" if query else self._query

    async def close(self) -> None:
        return None


class TokenSigner:
    """By a token, fetched once for all requests and again shortly before it ends."""

    def __init__(self, token: Token, environment: Environment) -> None:
        self._identity = token.identity
        self._credential: AsyncTokenCredential | None = token.credential
        self._environment = environment
        self._token = ""
        self._until = 0.0
        self._fetching = asyncio.Lock()

    async def sign(self, service: str, method: str, path: str, query: str, headers: MutableMapping[str, str]) -> str:
        if self._now() > self._until - EARLY:
            async with self._fetching:
                if self._now() > self._until - EARLY:
                    if self._credential is None:
                        assert self._identity is not None
                        self._credential = self._identity.credential()
                    token = await self._credential.get_token(SCOPE)
                    self._token, self._until = token.token, float(token.expires_on)
        headers["authorization"] = f"Bearer {self._token}"
        return query

    async def close(self) -> None:
        credential = self._credential
        if credential is not None and self._identity is not None:
            # One that was made for this account alone: nobody else uses its connections.
            self._credential = None
            await credential.close()

    def _now(self) -> float:
        return self._environment.now() / TICKS_PER_SECOND

"""A proxy that lets everything through and keeps what it saw, in a form that two clients can be compared by."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.etree import ElementTree

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from holdtrue.stores.azure_storage.moments import from_table_text

_KEPT = frozenset({"if-match", "if-none-match", "x-ms-blob-type"})
_PLAIN = frozenset({"Edm.String", "Edm.Int32", "Edm.Boolean"})
_ALWAYS_SELECTED = frozenset({"PartitionKey", "RowKey", "Timestamp"})
_PART = re.compile(r"(GET|POST|PUT|PATCH|DELETE) http://[^/]+(\S+) HTTP/1\.1\r\n(.*?)\r\n\r\n(.*?)\r\n--", re.DOTALL)


class Request(msgspec.Struct, frozen=True):
    """A request without what belongs to a client: its ids, times, versions and signatures."""

    service: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    body: Any


class Wiretap:
    """Listens on ports of its own, one for each service of an emulator."""

    def __init__(self, upstream: Mapping[str, int]) -> None:
        self._upstream = upstream
        self.ports: dict[str, int] = {}
        self.seen: list[Request] = []

    async def __aenter__(self) -> "Wiretap":
        unasked = ("Content-Type", "Accept", "Accept-Encoding", "User-Agent")  # they would break the signature
        self._session = aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=unasked)
        self._runners = []
        for service, port in self._upstream.items():
            server = web.Server(self._handler(service, port))
            runner = web.ServerRunner(server)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self._runners.append(runner)
            self.ports[service] = runner.addresses[0][1]
        return self

    async def __aexit__(self, *error: object) -> None:
        for runner in self._runners:
            await runner.cleanup()
        await self._session.close()

    def take(self) -> list[Request]:
        """What was seen since the last time."""
        seen, self.seen = self.seen, []
        return seen

    def _handler(self, service: str, port: int) -> Any:
        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            body = await request.read()
            self.seen.append(_of(service, request.method, request.raw_path, request.headers, body))
            url = URL(f"http://127.0.0.1:{port}{request.raw_path}", encoded=True)
            headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
            async with self._session.request(
                request.method, url, headers=headers, data=body or None, allow_redirects=False
            ) as answer:
                hop = {"transfer-encoding", "content-length", "connection", "keep-alive"}
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in hop}
                return web.Response(status=answer.status, headers=kept, body=await answer.read())

        return forward


def _of(service: str, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
    path, _, query = target.partition("?")
    return Request(
        service=service,
        method=method,
        path=_path(path),
        query=_query(query),
        headers=_headers({name.lower(): value for name, value in headers.items()}),
        body=_body(service, body, headers),
    )


def _path(path: str) -> str:
    """Without the account, which each client has its own of."""
    return unquote(path).partition("/")[2].partition("/")[2]


def _query(query: str) -> tuple[tuple[str, str], ...]:
    pairs = {name.lower(): value for name, value in parse_qsl(query, keep_blank_values=True)}
    if "$select" in pairs:
        pairs["$select"] = ",".join(sorted(set(pairs["$select"].split(",")) - _ALWAYS_SELECTED))
    left_out = {"$format", "timeout", *(name for name in ("nextpartitionkey", "nextrowkey") if not pairs.get(name))}
    return tuple(sorted((name, value) for name, value in pairs.items() if name not in left_out))


def _headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    kept = ((name, value) for name, value in headers.items() if name in _KEPT or name.startswith("x-ms-lease"))
    return tuple(sorted(pair for pair in kept))


def _body(service: str, body: bytes, headers: Mapping[str, str]) -> Any:
    if service == "blob" or not body:
        return body
    if service == "queue":
        return [(element.tag, element.text or "") for element in ElementTree.fromstring(body).iter()]
    if headers.get("Content-Type", "").startswith("multipart/"):
        return [
            (method, _path(target.partition("?")[0]), _headers(_lines(lines)), _json(row))
            for method, target, lines, row in _PART.findall(body.decode())
        ]
    return _json(body.decode())


def _lines(text: str) -> dict[str, str]:
    return {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in text.split("\r\n"))
    }


def _json(text: str) -> Any:
    if not text.strip():
        return None
    members = msgspec.json.decode(text)
    values = {}
    for name, value in members.items():
        edm = members.get(f"{name}@odata.type")
        if name.endswith("@odata.type"):
            if value not in _PLAIN:
                values[name] = value
        else:
            values[name] = from_table_text(value) if edm == "Edm.DateTime" else value
    return values

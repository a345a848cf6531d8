"""One request to one service: its headers, its signature, its time-outs, and what an answer or its absence means.

A request that may be done twice without harm (a read, a create) is sent up to three times.  A write never is, once
any of it may have gone out: what became of it is for the caller to read back.  aiohttp would resend some of them by
itself over a connection that it had kept; it is told not to.
"""

import re
from collections.abc import Collection, Mapping

import aiohttp
import msgspec
from yarl import URL

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.environment import Environment
from holdtrue.stores.azure_storage.moments import from_header_text, header_text
from holdtrue.stores.azure_storage.service import Conflict, NotThere, Refused, ServiceError, TooLarge, Unsure

from .connection import Connection
from .signing import signer_of

VERSIONS = {"table": "2020-12-06", "queue": "2025-05-05", "blob": "2026-02-06"}
"""Of each service, as the .NET provider asks for it."""

TRIES = 3
MINUTES_WRONG = 5
"""A refusal may have to do with a clock that is wrong by so much; the service allows 15."""
UNSURE = frozenset({408, 429})
"""Besides 5xx: a proxy on the way may say so after the request was done."""

_NO_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_CODE = re.compile(rb"<Code>([^<]*)</Code>\s*(?:<Message>([^<]*))?")


class Answer(msgspec.Struct, frozen=True):
    """What came back; names of headers do not depend on case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


AT_ONCE = 256
"""Requests under way at once, where nothing else was said."""


class _NotSent(Exception):
    """There was no connection: nothing has gone out."""


class Requests:
    """Requests to an account.

    `timeout` seconds are for the whole of one, `connect` of them for its connection.
    """

    def __init__(
        self,
        connection: Connection,
        environment: Environment,
        *,
        timeout: float = 30.0,
        connect: float = 10.0,
        at_once: int | None = None,
    ) -> None:
        self.connection = connection
        self._environment = environment
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=connect)
        self._endpoints = {"table": connection.table, "queue": connection.queue, "blob": connection.blob}
        self._signer = signer_of(connection.key, environment)
        self._at_once = at_once or AT_ONCE
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Be ready to send.  Connections are made as they are needed."""
        if self._session is not None:
            return
        plain = self.connection.table.origin.startswith("http:")
        connector = aiohttp.TCPConnector(
            limit=self._at_once,
            # Shorter than the emulator's 5 s and the service's: else a request meets a connection as it closes.
            keepalive_timeout=4.0 if plain else 20.0,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_NO_AUTOMATIC,
            auto_decompress=False,
        )
        self._session._retry_connection = False

    async def close(self) -> None:
        """Give the connections back; what is on its way is cut off."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await self._signer.close()

    async def send(
        self,
        service: str,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        expect: Collection[int],
        again: bool = False,
        most: int | None = None,
    ) -> Answer:
        """Send one; `path` (below the endpoint) and `query` are percent-encoded.

        Raises Refused, Conflict, NotThere for an answer that says so, Unsure for none, one in doubt, or one with
        a success that is not in `expect`, TooLarge for one of more than `most` bytes.  With `again` it may be done
        twice, and is tried anew where that may help.
        """
        what = f"{method} {service} {path}"
        for attempt in range(TRIES):
            try:
                answer = await self._once(service, method, path, query, headers or {}, body, what, most)
                if answer.status in expect:
                    return answer
                code, message = _code_in(answer)
                if answer.status in (401, 403):
                    message += self._wrong_clock(answer)
                raise error_of(answer.status, code, message, what)
            except _NotSent as error:
                if attempt + 1 == TRIES:
                    raise Unsure(str(error)) from error
            except (Unsure, Conflict) as error:
                # Nothing conflicts with a read: something on the way has said so.
                may_help = again and (method == "GET" or isinstance(error, Unsure))
                if not may_help or attempt + 1 == TRIES:
                    raise
            await self._environment.sleep(0.1 * 4**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _wrong_clock(self, answer: Answer) -> str:
        """What is to be said of this host's clock: the service refuses requests whose time is not its own."""
        try:
            ahead = self._environment.now() - from_header_text(answer.headers["date"])
        except (KeyError, ValueError, TypeError):
            return ""
        minutes = round(abs(ahead) / (60 * TICKS_PER_SECOND))
        if minutes < MINUTES_WRONG:
            return ""
        return f" This host's clock is {minutes} minutes {'ahead of' if ahead > 0 else 'behind'} the service's: set it."

    async def _once(
        self,
        service: str,
        method: str,
        path: str,
        query: str,
        given: Mapping[str, str],
        body: bytes,
        what: str,
        most: int | None,
    ) -> Answer:
        if self._session is None:
            raise Unsure(f"{what}: the connection to the storage account is not open")
        endpoint = self._endpoints[service]
        headers = {
            **given,
            "x-ms-version": VERSIONS[service],
            "x-ms-date": header_text(self._environment.now()),
            "x-ms-client-request-id": self._environment.new_id(),
        }
        if body or method in ("PUT", "POST", "PATCH"):
            headers["content-length"] = str(len(body))
        try:
            query = await self._signer.sign(service, method, endpoint.path + path, query, headers)
        except Exception as error:  # a credential's own, whatever it is: nothing was sent
            raise _NotSent(f"{what}: no token could be got: {error}") from error
        url = URL(f"{endpoint.url}{path}?{query}" if query else f"{endpoint.url}{path}", encoded=True)
        try:
            async with self._session.request(
                method, url, headers=headers, data=body or None, allow_redirects=False
            ) as response:
                if most is None or response.status >= 300:
                    return Answer(response.status, response.headers, await response.read())
                return Answer(response.status, response.headers, await _bounded(response, most, what))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _NotSent(
                f"{what}: no connection to {endpoint.host}, where the account's {service} service should be: {error}"
            ) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unsure(f"{what}: no answer: {type(error).__name__} {error}") from error


async def _bounded(response: aiohttp.ClientResponse, most: int, what: str) -> bytes:
    """The body of an answer, of which no more than `most` bytes are read."""
    body = bytearray()
    if (response.content_length or 0) <= most:
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > most:
                break
        else:
            return bytes(body)
    response.close()  # the rest is not wanted, and the connection is of no more use
    raise TooLarge(f"{what}: it has more than {most} bytes")


def error_of(status: int, code: str, message: str, what: str) -> ServiceError:
    """What an answer that is no success means."""
    if status >= 500 or status in UNSURE:
        return Unsure(f"{what}: {status} {code}: {message}")
    if status < 300:
        return Unsure(f"{what}: an answer that does not belong to it ({status})")
    kind = {404: NotThere, 409: Conflict, 412: Conflict}.get(status, Refused)
    return kind(status, code, message)


def json_code(body: bytes) -> tuple[str, str]:
    """Code and message of an error of the tables; empty texts where there is none."""
    try:
        error = msgspec.json.decode(body, type=_TableErrorBody)
    except msgspec.MsgspecError:
        return "", ""
    return error.error.code, error.error.message.value.partition("\nRequestId:")[0]


class _TableMessage(msgspec.Struct, frozen=True):
    value: str = ""


class _TableError(msgspec.Struct, frozen=True):
    code: str = ""
    message: _TableMessage = _TableMessage()


class _TableErrorBody(msgspec.Struct):
    error: _TableError = msgspec.field(name="odata.error", default_factory=_TableError)


def _code_in(answer: Answer) -> tuple[str, str]:
    """The service's code and message: in a header, in the body's JSON or XML, or nowhere."""
    code, message = "", ""
    if answer.body.lstrip()[:1] == b"{":
        code, message = json_code(answer.body)
    elif (found := _CODE.search(answer.body)) is not None:
        code = found[1].decode("utf-8", "replace")
        message = (found[2] or b"").decode("utf-8", "replace").partition("\nRequestId:")[0]
    return answer.headers.get("x-ms-error-code") or code, message

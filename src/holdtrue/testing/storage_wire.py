"""HTTP/1.1 as the storage proxy needs it: requests read, answers written, a connection to the emulator."""

import asyncio
import socket
import struct

from .storage_requests import Answer, Headers, Request

_LIMIT = 2**20
"""Of a line; bodies are read whole whatever their size."""

_IDLE_SECONDS = 2.0
"""After which a connection to the emulator is not used again: it closes them itself after 5 s."""


async def read_request(service: str, reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None at its end.  Raises IncompleteReadError where it ends within one."""
    line = await reader.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = await _read_headers(reader)
    body = await _read_body(reader, headers)
    return Request(service=service, method=method, target=target, headers=headers, body=body)


async def write_answer(writer: asyncio.StreamWriter, request: Request, answer: Answer, *, half: bool = False) -> bool:
    """Write an answer, or its first half.  Whether the connection goes on."""
    bodiless = request.method == "HEAD" or answer.status in (204, 304)
    body = b"" if bodiless else answer.body
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
    for name, value in answer.headers:
        lower = name.lower()
        if lower not in ("transfer-encoding", "connection", "keep-alive") and (bodiless or lower != "content-length"):
            lines.append(f"{name}: {value}")
    if not bodiless:
        lines.append(f"content-length: {len(body)}")
    whole = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
    # Half of the body, or where there is none, half of the head: the client must see that something is missing.
    writer.write(whole[: len(whole) - max(len(body) // 2, 8)] if half else whole)
    await writer.drain()
    return not half


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with a reset, so that the other side gets an error rather than an end."""
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Emulator:
    """A connection to one service of the emulator, opened anew where it has rested."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used = 0.0

    async def ask(self, request: Request) -> Answer:
        """Send a request on.  Raises ConnectionError where the emulator does not answer."""
        reader, writer = await self._connected()
        lines = [f"{request.method} {request.target} HTTP/1.1"]
        lines += [
            f"{name}: {value}"
            for name, value in request.headers
            if name.lower() not in ("transfer-encoding", "content-length")
        ]
        if request.body or request.method in ("PUT", "POST", "PATCH", "MERGE"):
            lines.append(f"content-length: {len(request.body)}")
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body)
        await writer.drain()
        line = await reader.readline()
        if not line:
            raise ConnectionError("the emulator closed the connection")
        _, status, reason = (line.decode("latin-1").rstrip("\r\n") + " ").split(" ", 2)
        headers = await _read_headers(reader)
        bodiless = request.method == "HEAD" or int(status) in (204, 304)
        body = b"" if bodiless else await _read_body(reader, headers)
        self._used = asyncio.get_running_loop().time()
        return Answer(status=int(status), headers=headers, body=body, reason=reason.strip())

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and asyncio.get_running_loop().time() - self._used > _IDLE_SECONDS:
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=_LIMIT)
        return self._streams

    def close(self) -> None:
        """Close it; the next request opens it anew."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()


async def _read_headers(reader: asyncio.StreamReader) -> Headers:
    headers = []
    while (line := await reader.readline()) not in (b"\r\n", b"\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name.strip(), value.strip()))
    return tuple(headers)


async def _read_body(reader: asyncio.StreamReader, headers: Headers) -> bytes:
    found = {name.lower(): value for name, value in headers}
    if "chunked" in found.get("transfer-encoding", "").lower():
        parts = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(parts)
    return await reader.readexactly(int(found.get("content-length") or 0))

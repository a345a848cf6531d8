"""A request over a connection that fails: what is sent again, what never is, and what is said of the outcome."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import pytest

from holdtrue.environment import Environment
from holdtrue.stores.azure_storage.http.connection import EMULATOR_KEY, Connection, from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.service import (
    ANY,
    Conflict,
    Do,
    NotThere,
    Operation,
    QueueMessage,
    Refused,
    ServiceError,
    TooLarge,
    Unsure,
)

REPLACE = Operation(do=Do.REPLACE, partition="a", key="1", etag=ANY)
RESET = b""
"""The connection is closed without an answer."""
NO_CONTENT = b"HTTP/1.1 204 No Content\r\netag: W/1\r\nx-ms-popreceipt: new\r\n\r\n"


def answer(status: int, body: str = "", **headers: str) -> bytes:
    """An answer on the wire."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}content-length: {len(body.encode())}\r\n\r\n{body}".encode()


class _Impatient(Environment):
    """Waits for nothing between attempts."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Server:
    """Answers each request with the next of its answers (the last one again and again), whatever was asked."""

    def __init__(self, answers: list[bytes | None]) -> None:
        self._answers = answers
        self.requests: list[str] = []
        self.targets: list[str] = []
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while line := await reader.readline():
                length = 0
                while (header := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = header.decode().partition(":")
                    length = int(value) if name.lower() == "content-length" else length
                await reader.readexactly(length)
                method, target, _ = line.decode().split(" ")
                self.requests.append(method)
                self.targets.append(target)
                given = self._answers[min(len(self.requests), len(self._answers)) - 1]
                if given is None:
                    await asyncio.Event().wait()
                if given == RESET:
                    break
                writer.write(given or b"")
                await writer.drain()
                if given is not None and b"content-length: 1000000" in given:
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        writer.close()


def connection_to(port: int) -> Connection:
    """An account whose services are all there."""
    ends = "".join(f"{name}Endpoint=http://127.0.0.1:{port}/acc;" for name in ("Table", "Queue", "Blob"))
    return from_connection_string(f"AccountName=acc;AccountKey={EMULATOR_KEY};{ends}")


def against(
    answers: list[bytes | None],
    act: Callable[[HttpService], Awaitable[Any]],
    *,
    timeout: float = 30.0,
) -> Server:
    """Run with a service that is this server."""
    server = Server(answers)

    async def main() -> None:
        listening = await asyncio.start_server(server, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        service = HttpService(connection_to(port), _Impatient(), timeout=timeout)
        await service.open()
        try:
            await act(service)
        finally:
            await service.close()
            listening.close()

    asyncio.run(main())
    return server


WRITES: dict[str, Callable[[HttpService], Awaitable[Any]]] = {
    "write": lambda service: service.tables.write("T", REPLACE),
    "insert": lambda service: service.tables.write("T", Operation(do=Do.INSERT, partition="a", key="1")),
    "delete": lambda service: service.tables.write("T", Operation(do=Do.DELETE, partition="a", key="1", etag=ANY)),
    "transact": lambda service: service.tables.transact("T", [REPLACE]),
    "put": lambda service: service.queues.put("q", "x"),
    "take": lambda service: service.queues.take("q", 32, 5),
    "hide": lambda service: service.queues.hide("q", "1", "r", 5),
    "remove": lambda service: service.queues.remove("q", "1", "r"),
    "put_blob": lambda service: service.blobs.put_blob("c", "b", b"x", only_new=True),
    "release_lease": lambda service: service.blobs.release_lease("c", None, "1"),
}
READS: dict[str, Callable[[HttpService], Awaitable[Any]]] = {
    "get": lambda service: service.tables.get("T", "a", "1"),
    "query": lambda service: service.tables.query("T"),
    "count": lambda service: service.queues.approximate_count("q"),
    "get_blob": lambda service: service.blobs.get_blob("c", "b"),
    "list_blobs": lambda service: service.blobs.list_blobs("c", ""),
    "create_table": lambda service: service.tables.create_table("T"),
    "renew_lease": lambda service: service.blobs.renew_lease("c", None, "1"),
}


@pytest.mark.parametrize("failure", [RESET, answer(500), answer(503), answer(429)], ids=["reset", "500", "503", "429"])
@pytest.mark.parametrize("verb", WRITES)
def test_a_write_is_sent_once_whatever_comes_back(verb: str, failure: bytes) -> None:
    async def act(service: HttpService) -> None:
        with pytest.raises(Unsure):
            await WRITES[verb](service)

    assert len(against([failure, NO_CONTENT], act).requests) == 1


@pytest.mark.parametrize("verb", ["write", "delete", "hide", "remove", "put_blob"])
def test_nor_is_it_sent_again_when_a_kept_connection_turns_out_to_be_closed(verb: str) -> None:
    """The HTTP client would resend a PUT and a DELETE by itself."""

    async def act(service: HttpService) -> None:
        await service.tables.write("T", REPLACE)
        with pytest.raises(Unsure):
            await WRITES[verb](service)

    server = against([NO_CONTENT, RESET, NO_CONTENT], act)
    assert (len(server.requests), server.connections) == (2, 1)


@pytest.mark.parametrize("verb", READS)
def test_what_may_be_done_twice_is_tried_three_times(verb: str) -> None:
    async def act(service: HttpService) -> None:
        with pytest.raises(Unsure):
            await READS[verb](service)

    assert len(against([RESET, answer(503), answer(500), NO_CONTENT], act).requests) == 3


def test_and_is_done_where_a_later_attempt_succeeds() -> None:
    async def act(service: HttpService) -> None:
        row = await service.tables.get("T", "a", "1")
        assert row is not None and row.etag == "W/7"

    row = answer(200, '{"PartitionKey":"a","RowKey":"1"}', etag="W/7")
    assert len(against([RESET, answer(503), row], act).requests) == 3


@pytest.mark.parametrize("status", [409, 412])
def test_a_conflict_of_a_read_is_none_of_the_services(status: int) -> None:
    """Something on the way has said so: it is asked again, and what it was about does not have to wait."""
    row = answer(200, '{"PartitionKey":"a","RowKey":"1"}', etag="W/7")

    async def act(service: HttpService) -> None:
        assert await service.tables.get("T", "a", "1") is not None
        assert len((await service.tables.query("T")).rows) == 1
        with pytest.raises(Conflict):
            await service.tables.write("T", REPLACE)

    refused, rows = answer(status), answer(200, '{"value":[{"PartitionKey":"a","RowKey":"1"}]}')
    assert len(against([refused, refused, row, refused, rows, refused], act).requests) == 6


def test_where_nothing_listens_nothing_was_sent_and_the_outcome_is_still_called_unknown() -> None:
    async def act(service: HttpService) -> None:
        ends = "".join(f"{name}Endpoint=http://127.0.0.1:1/acc;" for name in ("Table", "Queue", "Blob"))
        connection = from_connection_string(f"AccountName=acc;AccountKey={EMULATOR_KEY};{ends}")
        nowhere = HttpService(connection, _Impatient())
        await nowhere.open()
        with pytest.raises(Unsure, match=r"no connection to 127\.0\.0\.1:1"):
            await nowhere.queues.put("q", "x")
        await nowhere.close()

    assert against([NO_CONTENT], act).requests == []


def test_no_answer_in_time() -> None:
    async def act(service: HttpService) -> None:
        with pytest.raises(Unsure, match="no answer"):
            await service.queues.put("q", "x")

    assert len(against([None], act, timeout=0.3).requests) == 1


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n<?xml",
        b"nonsense\r\n\r\n",
        answer(200, "<html>a page of somebody between</html>"),
        answer(302, "", location="http://127.0.0.1:1/"),
    ],
)
def test_a_broken_answer_to_a_get_of_messages_says_nothing(broken: bytes) -> None:
    async def act(service: HttpService) -> None:
        with pytest.raises(ServiceError) as caught:
            await service.queues.take("q", 32, 5)
        assert isinstance(caught.value, Unsure) or caught.value.status == 302  # type: ignore[attr-defined]

    assert len(against([broken], act).requests) == 1


def test_a_success_that_is_not_the_one_of_this_request_says_nothing() -> None:
    async def act(service: HttpService) -> None:
        for verb in ("write", "remove", "put", "put_blob"):
            with pytest.raises(Unsure):
                await WRITES[verb](service)

    against([answer(200, "<html></html>")], act)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Refused), (403, Refused), (404, NotThere), (409, Conflict), (412, Conflict), (413, Refused)],
)
@pytest.mark.parametrize(
    "said",
    [
        answer(0, "", x_ms_error_code="TheCode"),
        answer(0, '{"odata.error":{"code":"TheCode","message":{"lang":"en-US","value":"Why.\\nRequestId:1"}}}'),
        answer(0, '<?xml version="1.0"?><Error><Code>TheCode</Code><Message>Why.\nRequestId:1</Message></Error>'),
    ],
    ids=["header", "json", "xml"],
)
def test_a_refusal_has_its_status_and_the_services_own_code(status: int, kind: type[Refused], said: bytes) -> None:
    async def act(service: HttpService) -> None:
        with pytest.raises(Refused) as caught:
            await service.tables.write("T", REPLACE)
        error = caught.value
        assert (type(error), error.status, error.code) == (kind, status, "TheCode")
        assert error.message in ("", "Why.")

    against([said.replace(b" 0 ", f" {status} ".encode(), 1)], act)


def test_one_message_that_no_parser_would_take_does_not_hide_the_others() -> None:
    def message(id: str, text: str) -> str:
        return (
            f"<QueueMessage><MessageId>{id}</MessageId><InsertionTime>Wed, 25 Nov 2026 00:02:29 GMT</InsertionTime>"
            "<ExpirationTime>Fri, 31 Dec 9999 23:59:59 GMT</ExpirationTime><PopReceipt>r</PopReceipt>"
            "<TimeNextVisible>Wed, 25 Nov 2026 00:07:30 GMT</TimeNextVisible><DequeueCount>1</DequeueCount>"
            f"<MessageText>{text}</MessageText></QueueMessage>"
        )

    listed = f"<QueueMessagesList>{message('1', '&lt;a&gt;')}{message('2', chr(1) + '&nbsp;')}</QueueMessagesList>"

    async def act(service: HttpService) -> None:
        found = await service.queues.take("q", 32, 5)
        assert [(one.id, one.text) for one in found] == [("1", "<a>"), ("2", "\x01&nbsp;")]
        assert all(isinstance(one, QueueMessage) for one in found)
        assert await service.queues.take("q", 32, 5) == []

    against([answer(200, "\ufeff<?xml version='1.0'?>" + listed), answer(200, "<QueueMessagesList />")], act)


def test_what_exists_already_is_told_from_what_is_still_being_deleted() -> None:
    async def act(service: HttpService) -> None:
        create = (
            service.tables.create_table("T"),
            service.queues.create_queue("q"),
            service.blobs.create_container("c"),
        )
        assert [await doing for doing in create] == [False] * 3
        for doing in (
            service.tables.create_table("T"),
            service.queues.create_queue("q"),
            service.blobs.create_container("c"),
        ):
            with pytest.raises(Conflict, match="BeingDeleted"):
                await doing

    kinds = ("Table", "Queue", "Container")
    there: list[bytes | None] = [answer(409, "", x_ms_error_code=f"{kind}AlreadyExists") for kind in kinds]
    going: list[bytes | None] = [answer(409, "", x_ms_error_code=f"{kind}BeingDeleted") for kind in kinds]
    against(there + going, act)


def test_the_name_of_a_blob_or_a_row_reaches_the_wire_as_it_is() -> None:
    """No dots are folded on the way: the request would be for another blob."""
    names = ["a/../b", "./a", "a//b", "a\\b", "é ?#%2F", ".."]

    async def act(service: HttpService) -> None:
        for name in names:
            assert await service.blobs.get_blob("c", name) is None
        assert await service.tables.get("T", ".", "it's+ %") is None

    server = against([answer(404, "", x_ms_error_code="BlobNotFound")], act)
    assert [unquote(target.removeprefix("/acc/c/")) for target in server.targets[:-1]] == names
    assert server.targets[-1].startswith("/acc/T(PartitionKey='.',RowKey='it%27%27s%2B%20%25')?")


@pytest.mark.parametrize(
    "head", ["content-length: 100000000", "transfer-encoding: chunked"], ids=["it says so", "it does not say"]
)
def test_no_more_of_a_blob_is_read_than_is_wanted(head: str) -> None:
    """The server sends as much as anybody reads, and does not end: whoever read all of it would never be done."""
    piece = b"1000\r\n" + b"x" * 0x1000 + b"\r\n" if "chunked" in head else b"x" * 0x1000

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
            with suppress(ConnectionError):
                while True:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            service = HttpService(connection_to(port), timeout=60)
            await service.open()
            with pytest.raises(TooLarge, match="more than 10000 bytes"):
                await service.blobs.get_blob("c", "b", most=10_000)
            await service.close()

    asyncio.run(main())


def test_before_it_is_opened_and_after_it_is_closed_nothing_is_sent() -> None:
    async def act(service: HttpService) -> None:
        await service.close()
        await service.close()
        with pytest.raises(Unsure, match="not open"):
            await service.queues.put("q", "x")

    assert against([NO_CONTENT], act).requests == []

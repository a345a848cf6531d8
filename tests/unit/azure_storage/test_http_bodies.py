"""Rows, filters, transactions and messages on the wire, as the .NET provider has them."""

import pytest

from holdtrue.stores.azure_storage import service as port
from holdtrue.stores.azure_storage.http import bodies
from holdtrue.stores.azure_storage.http.blobs import listing_in
from holdtrue.stores.azure_storage.http.queues import escaped, unescaped
from holdtrue.stores.azure_storage.http.requests import error_of, json_code
from holdtrue.stores.azure_storage.moments import from_header_text, from_table_text, header_text, table_text
from holdtrue.stores.azure_storage.service import (
    All,
    Any,
    Conflict,
    Do,
    Instant,
    NotThere,
    Operation,
    Refused,
    ServiceError,
    Typed,
    Unsure,
)


def test_a_row_as_dotnet_sends_one_without_its_nulls() -> None:
    """Of a recorded start: the row of the instances table."""
    at = Instant(from_table_text("2026-11-25T00:02:29.5058259Z"))
    row = Operation(
        do=Do.INSERT,
        partition="e",
        key="",
        values={"Input": None, "CreatedTime": at, "Name": "Event", "Version": "", "Generation": 0, "Done": False},
    )
    method, path, headers, body = bodies.request_of("XXmlInstances", row)
    assert (method, path) == ("POST", "/XXmlInstances")
    assert headers == {
        "dataserviceversion": "3.0",
        "prefer": "return-no-content",
        "accept": "application/json;odata=minimalmetadata",
        "content-type": "application/json;odata=nometadata",
    }
    assert body == (
        b'{"PartitionKey":"e","RowKey":"","CreatedTime":"2026-11-25T00:02:29.5058259Z",'
        b'"CreatedTime@odata.type":"Edm.DateTime","Name":"Event","Version":"","Generation":0,"Done":false}'
    )


def test_a_transaction_as_dotnet_sends_one() -> None:
    """Of a recorded checkpoint: a row by PUT, and the sentinel by PATCH under its etag."""
    operations = [
        Operation(do=Do.REPLACE, partition="it's", key="0000000000000000", values={"EventId": -1}),
        Operation(do=Do.MERGE, partition="it's", key="sentinel", etag="W/\"datetime'x'\""),
    ]
    url, host = "http://127.0.0.1:15632/devstoreaccount1", "127.0.0.1"
    text = bodies.transaction_body(url, host, "2020-12-06", "XXmlHistory", operations, "1").decode()
    query = "?$format=application%2Fjson%3Bodata%3Dminimalmetadata HTTP/1.1\r\n"
    part = (
        "--changeset_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        "{method} http://127.0.0.1:15632/devstoreaccount1/XXmlHistory(PartitionKey='it%27%27s',RowKey='{key}')"
        + query
        + "Host: 127.0.0.1\r\nx-ms-version: 2020-12-06\r\ndataserviceversion: 3.0\r\n{more}"
        "accept: application/json\r\ncontent-type: application/json\r\n\r\n{body}\r\n"
    )
    assert text == (
        "--batch_1\r\nContent-Type: multipart/mixed; boundary=changeset_1\r\n\r\n"
        + part.format(
            method="PUT",
            key="0000000000000000",
            more="",
            body='{"PartitionKey":"it\'s","RowKey":"0000000000000000","EventId":-1}',
        )
        + part.format(
            method="PATCH",
            key="sentinel",
            more="if-match: W/\"datetime'x'\"\r\n",
            body='{"PartitionKey":"it\'s","RowKey":"sentinel"}',
        )
        + "--changeset_1--\r\n\r\n--batch_1--\r\n"
    )


_ANSWER = (
    "--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_1\r\n\r\n"
    "{parts}--changesetresponse_1--\r\n--batchresponse_1--\r\n"
)
_PART = (
    "--changesetresponse_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    "HTTP/1.1 {status} Whatever\r\nCache-Control: no-cache\r\n{etag}\r\n{body}\r\n"
)


def refused(status: int, body: bytes) -> ServiceError:
    return error_of(status, *json_code(body), "a transaction")


def test_the_answer_to_a_transaction() -> None:
    etag = "ETag: W/\"datetime'2026'\"\r\n"
    parts = _PART.format(status=204, etag=etag, body="") + _PART.format(status=204, etag="", body="")
    answer = _ANSWER.format(parts=parts).encode()
    assert bodies.transaction_answer(answer, 2, refused) == ["W/\"datetime'2026'\"", None]
    for cut in (answer, answer[: len(answer) // 2], b"", b"<html>"):
        with pytest.raises(Unsure, match="parts"):
            bodies.transaction_answer(cut, 3, refused)


@pytest.mark.parametrize(
    ("status", "kind"), [(412, Conflict), (409, Conflict), (404, NotThere), (400, Refused), (500, Unsure)]
)
def test_a_refused_transaction_says_which_write_it_was(status: int, kind: type[ServiceError]) -> None:
    body = '{"odata.error":{"code":"Code","message":{"lang":"en-US","value":"3:Not so.\\nRequestId:x"}}}'
    answer = _ANSWER.format(parts=_PART.format(status=status, etag="", body=body)).encode()
    with pytest.raises(kind) as caught:
        bodies.transaction_answer(answer, 5, refused)
    assert "3:Not so." in str(caught.value) and "RequestId" not in str(caught.value)
    if isinstance(caught.value, Refused):
        assert (type(caught.value), caught.value.code, caught.value.message) == (kind, "Code", "3:Not so.")


def test_a_row_is_read_with_its_types_and_without_what_is_not_its_own() -> None:
    body = (
        b'{"odata.metadata":"http://x","value":[{"odata.etag":"W/1","PartitionKey":"p","RowKey":"r","S":"","I":-1,'
        b'"B":true,"N":null,"F":1.5,"T":"2026-11-25T00:02:29.5Z","T@odata.type":"Edm.DateTime","L":"12",'
        b'"L@odata.type":"Edm.Int64","G":"x","G@odata.type":"Edm.Guid","W":"w","W@odata.type":"Edm.String",'
        b'"Timestamp":"2026-11-25T00:02:29.7055762Z"}]}'
    )
    (row,) = bodies.rows_in(body)
    assert (row.partition, row.key, row.etag) == ("p", "r", "W/1")
    assert row.timestamp == from_table_text("2026-11-25T00:02:29.7055762Z")
    assert row.values == {
        "S": "",
        "I": -1,
        "B": True,
        "F": Typed("Edm.Double", "1.5"),
        "T": Instant(row.timestamp - 2_055_762),
        "L": Typed("Edm.Int64", "12"),
        "G": Typed("Edm.Guid", "x"),
        "W": "w",
    }
    assert bodies.row_of({"PartitionKey": "", "RowKey": "", "Timestamp": "2026-11-25T00:02:29.7Z"}).etag == (
        "W/\"datetime'2026-11-25T00%3A02%3A29.7Z'\""
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"{}", b'{"value":[{}]}', b'{"value":[{"PartitionKey":"p","RowKey":"r","T":[1]}]}']
    + [b'{"value":[{"PartitionKey":"p","RowKey":"r","T":"x","T@odata.type":"Edm.DateTime"}]}', b'{"value":[{"Part'],
)
def test_an_answer_that_cannot_be_read_says_nothing(body: bytes) -> None:
    with pytest.raises(Unsure):
        bodies.rows_in(body)


def test_a_filter_in_the_services_words() -> None:
    where = All(
        (
            port.Test("PartitionKey", "eq", "it's"),
            Any((port.Test("RowKey", "eq", "sentinel"), All((port.Test("N", "ge", -5), port.Test("B", "ne", True))))),
            port.Test("At", "lt", Instant(0)),
            port.Test("L", "eq", Typed("Edm.Int64", "7")),
            port.Test("G", "eq", Typed("Edm.Guid", "x")),
        )
    )
    assert bodies.filter_text(where) == (
        "PartitionKey eq 'it''s' and (RowKey eq 'sentinel' or (N ge -5 and B ne true))"
        " and At lt datetime'1970-01-01T00:00:00.0000000Z' and L eq 7L and G eq guid'x'"
    )


def test_a_filter_on_a_type_that_has_no_literal_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Edm\.Binary"):
        bodies.filter_text(port.Test("B", "eq", Typed("Edm.Binary", "AA==")))


def test_what_a_query_asks_for() -> None:
    text = bodies.query_text(port.Test("A", "eq", "&"), ["A", "RowKey"], 3, "NextPartitionKey=x")
    assert text == (
        "$format=application%2Fjson%3Bodata%3Dminimalmetadata&$top=3&$select=A%2CPartitionKey%2CRowKey%2CTimestamp"
        "&$filter=A%20eq%20%27%26%27&NextPartitionKey=x"
    )


def test_only_an_absent_token_is_the_end() -> None:
    assert bodies.token_of({}) is None
    both = {"x-ms-continuation-NextPartitionKey": "1!4!a+", "x-ms-continuation-NextRowKey": ""}
    assert bodies.token_of(both) == "NextPartitionKey=1%214%21a%2B&NextRowKey="


@pytest.mark.parametrize(
    "text", ["", "a&lt;b", "<a href='x'>\r\n\t&amp;&#65;</a>", "ä€😀\ufeff", "&;&#;&#xD800;&#99999999;"]
)
def test_a_text_goes_through_xml_and_back(text: str) -> None:
    assert unescaped(escaped(text)) == text
    assert not set("<>\r") & set(escaped(text))


def test_references_to_characters_are_read_and_those_to_none_stay() -> None:
    assert unescaped("&#65;&#x42;&quot;&apos;&nbsp;&#xD800;&#x110000;") == "AB\"'&nbsp;&#xD800;&#x110000;"


def test_a_listing_of_blobs() -> None:
    body = (
        '<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs><Blob><Name>a/ä &amp; b</Name><Properties>'
        "<Creation-Time>Tue, 24 Nov 2026 23:45:12 GMT</Creation-Time><Content-Length>123</Content-Length>"
        '</Properties></Blob><Blob><Name Encoded="true">a%EF%BF%BFb</Name><Properties>'
        "<Creation-Time>Tue, 24 Nov 2026 23:45:13 GMT</Creation-Time><Content-Length>0</Content-Length>"
        "</Properties></Blob></Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    )
    infos, token = listing_in(body.format(marker="2!x").encode())
    assert [(info.name, info.size) for info in infos] == [("a/ä & b", 123), ("a\uffffb", 0)]
    assert infos[1].created - infos[0].created == 10_000_000
    assert token == "2!x"
    assert listing_in(body.format(marker="").encode())[1] is None
    for bad in (body.encode()[:200], b"", body.replace("123", "x").encode(), body.replace("Tue, 24", "").encode()):
        with pytest.raises(Unsure):
            listing_in(bad)


@pytest.mark.parametrize("ticks", [0, 1, 17_956_508_560_468_819, -116_444_736_000_000_000])
def test_times_keep_their_hundreds_of_nanoseconds(ticks: int) -> None:
    assert from_table_text(table_text(ticks)) == ticks
    assert len(table_text(ticks)) == 28


def test_times_are_read_with_fewer_and_more_decimals() -> None:
    assert from_table_text("1970-01-01T00:00:01Z") == 10_000_000
    assert from_table_text("1970-01-01T00:00:01.5Z") == 15_000_000
    assert from_table_text("1970-01-01T00:00:01.123456789Z") == 11_234_567
    assert header_text(10_000_001) == "Thu, 01 Jan 1970 00:00:01 GMT"
    assert from_header_text("Thu, 01 Jan 1970 00:00:01 GMT") == 10_000_000
    for bad in ("", "x", "1970-13-01T00:00:00Z"):
        with pytest.raises(ValueError):
            from_table_text(bad)

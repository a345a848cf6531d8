"""Where the real storage service answers otherwise than the emulator: what the proxy changes for it.

- A pop receipt that is not the newest gets 404 `MessageNotFound`, as if the message were gone.
- Queries of tables come in short pages and in empty ones; only an absent token ends them.
- 503 `ServerBusy` comes in bursts, without any effect.
- A row of more than 1 MB is refused.
"""

import random
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from .storage_requests import About, Answer, Headers, Request

MOST_ROW_BYTES = 2**20

_OURS = "holdtrue!"
"""How tokens of our own begin: the rest is the JSON of the keys after which the page begins, in hex.  The emulator's
own would be lost for rows whose partition key is empty."""


class RealService:
    """The changes, drawn from a seed.

    `busy` is the share of requests at which a burst of 1 to 3 refusals of that service begins; `short` the share of
    queries that come in short pages, `empty` that of pages that come empty before them.
    """

    def __init__(self, seed: int, *, busy: float = 0.01, short: float = 0.5, empty: float = 0.2) -> None:
        self._chance = random.Random(seed)
        self._busy, self._short, self._empty = busy, short, empty
        self._refusing: dict[str, int] = {}

    def instead(self, request: Request, what: About) -> Answer | None:
        """The answer to a request that the emulator is not to see; None: it is."""
        if (left := self._refusing.get(what.service, 0)) > 0:
            self._refusing[what.service] = left - 1
            return refusal(what, 503)
        if self._chance.random() < self._busy:
            self._refusing[what.service] = self._chance.randrange(3)
            return refusal(what, 503)
        if what.service == "table":
            for number, row in enumerate(_rows_of(request)):
                if row_bytes(row) > MOST_ROW_BYTES:
                    why = "The entity is larger than the maximum allowed size (1MB)."
                    return refusal(what, 400, "EntityTooLarge", f"{number}:{why}")
        if _is_cut(what) and self._chance.random() < self._empty:
            names = ("NextPartitionKey", "NextRowKey")
            given = {name: value for name in names if (value := what.query.get(name.lower()))}
            headers = (
                ("content-type", "application/json;odata=minimalmetadata"),
                *_continuation(given or {"NextPartitionKey": _token("", "")}),
            )
            return Answer(status=200, headers=headers, body=b'{"value":[]}', reason="OK")
        return None

    def asked(self, request: Request, what: About) -> Request:
        """A request as the emulator is to get it."""
        if _after(what) is None:
            return request
        path, _, query = request.target.partition("?")
        left = [part for part in query.split("&") if not part.lower().startswith("nextpartitionkey=")]
        return msgspec.structs.replace(request, target=f"{path}?{'&'.join(left)}")

    def answered(self, what: About, answer: Answer) -> Answer:
        """An answer as the real service gives it."""
        if answer.status == 400 and answer.header("x-ms-error-code") == "PopReceiptMismatch":
            return refusal(what, 404, "MessageNotFound", "The specified message does not exist.")
        if _is_cut(what) and answer.status == 200 and answer.header("x-ms-continuation-nextpartitionkey") is None:
            return self._page(what, answer)
        return answer

    def _page(self, what: About, answer: Answer) -> Answer:
        """A page of an answer that has everything; the next is read when it is asked for, and may find other rows."""
        after = _after(what) or ("", "")
        whole = msgspec.json.decode(answer.body, type=_Rows)
        rows = [(row, _keys(row)) for row in whole.value]
        if after != ("", ""):
            rows = [(row, keys) for row, keys in rows if keys > after]
        most = self._chance.choice((1, 2, 3, 10, 100)) if self._chance.random() < self._short else len(rows)
        headers = answer.headers
        if most < len(rows):
            headers = (*headers, *_continuation({"NextPartitionKey": _token(*rows[most - 1][1])}))
        page = msgspec.structs.replace(whole, value=[row for row, _ in rows[:most]])
        return msgspec.structs.replace(answer, headers=headers, body=msgspec.json.encode(page))


class _Keys(msgspec.Struct, rename="pascal"):
    partition_key: str
    row_key: str


class _Rows(msgspec.Struct, omit_defaults=True):
    value: list[msgspec.Raw]
    metadata: str | None = msgspec.field(name="odata.metadata", default=None)


def _keys(row: msgspec.Raw) -> tuple[str, str]:
    keys = msgspec.json.decode(row, type=_Keys)
    return keys.partition_key, keys.row_key


def _is_cut(what: About) -> bool:
    """Whether a query may come in pages: one whose client asks for neither so many rows nor other columns alone."""
    selected = what.query.get("$select", "PartitionKey,RowKey").split(",")
    whole = {"PartitionKey", "RowKey"} <= set(selected)
    return what.service == "table" and what.operation == "query" and "$top" not in what.query and whole


def _token(partition: str, row: str) -> str:
    return _OURS + msgspec.json.encode((partition, row)).hex()


def _after(what: About) -> tuple[str, str] | None:
    """The keys after which a page is to begin, by a token of ours."""
    token = what.query.get("nextpartitionkey", "")
    if what.service != "table" or not token.startswith(_OURS):
        return None
    return msgspec.json.decode(bytes.fromhex(token.removeprefix(_OURS)), type=tuple[str, str])


def _continuation(token: dict[str, str]) -> Headers:
    return tuple((f"x-ms-continuation-{name}", value) for name, value in token.items())


_IN_BATCH = re.compile(rb"\r\n\r\n(\{.*?\})\r\n--", re.DOTALL)


def _rows_of(request: Request) -> list[dict[str, Any]]:
    """The rows that a request writes, where one of them may be too large."""
    if len(request.body) < MOST_ROW_BYTES // 2:  # two bytes a character
        return []
    bodies = _IN_BATCH.findall(request.body) if request.target.partition("?")[0].endswith("$batch") else [request.body]
    return [msgspec.json.decode(body, type=dict[str, Any]) for body in bodies]


def row_bytes(row: Mapping[str, Any]) -> int:
    """What a row takes in the service, as its documentation counts it."""
    size = 4 + 2 * len(f"{row.get('PartitionKey', '')}{row.get('RowKey', '')}")
    for name, value in row.items():
        if name in ("PartitionKey", "RowKey") or name.endswith("@odata.type") or value is None:
            continue
        size += 8 + 2 * len(name)
        kind = row.get(f"{name}@odata.type")
        if isinstance(value, bool):
            size += 1
        elif isinstance(value, int):
            size += 4
        elif isinstance(value, float) or kind in ("Edm.Int64", "Edm.DateTime", "Edm.Double"):
            size += 8
        elif kind == "Edm.Guid":
            size += 16
        elif kind == "Edm.Binary":
            size += 4 + len(value) * 3 // 4
        else:
            size += 4 + 2 * len(value)
    return size


_CODES = {
    "table": {500: "InternalError", 503: "ServerBusy", 409: "EntityAlreadyExists", 412: "UpdateConditionNotSatisfied"},
    "queue": {500: "InternalError", 503: "ServerBusy", 409: "Conflict", 412: "ConditionNotMet"},
    "blob": {500: "InternalError", 503: "ServerBusy", 409: "BlobAlreadyExists", 412: "ConditionNotMet"},
}
_THERE = {"table": "TableAlreadyExists", "queue": "QueueAlreadyExists", "blob": "ContainerAlreadyExists"}


def refusal(what: About, status: int, code: str | None = None, message: str = "spoiled on the way") -> Answer:
    """An answer of the service that says a status.  A transaction's 4xx stands within an answer 202."""
    if code is None:
        code = _CODES[what.service].get(status, "TooManyRequests" if status == 429 else "Spoiled")
        if status == 409 and what.operation == "create":
            code = _THERE[what.service]
        elif status in (409, 412) and what.operation.startswith("lease-"):
            code = "LeaseAlreadyPresent" if status == 409 else "LeaseIdMismatchWithLeaseOperation"
    named = ("x-ms-error-code", code)
    if what.service != "table":
        xml = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        headers: Headers = (("content-type", "application/xml"), named)
        return Answer(status=status, headers=headers, body=xml.encode(), reason=code)
    body = msgspec.json.encode({"odata.error": {"code": code, "message": {"lang": "en-US", "value": message}}})
    if what.operation != "transact" or status >= 500 or status == 429:
        return Answer(status=status, headers=(("content-type", "application/json"), named), body=body, reason=code)
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/json\r\n\r\n"
    outer, inner = "--batchresponse_spoiled", "--changesetresponse_spoiled"
    lines = [
        f"{outer}\r\nContent-Type: multipart/mixed; boundary={inner[2:]}\r\n",
        f"{inner}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n",
        f"{head}{body.decode()}",
        f"{inner}--",
        f"{outer}--\r\n",
    ]
    kind = ("content-type", f"multipart/mixed; boundary={outer[2:]}")
    return Answer(status=202, headers=(kind,), body="\r\n".join(lines).encode(), reason="Accepted")

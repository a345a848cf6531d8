"""What a request to a storage account is about, read off the wire: service, operation, resource, instance.  Pure."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import unescape

import msgspec

from holdtrue.stores.azure_storage.names import unescape_key

Headers = tuple[tuple[str, str], ...]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came: `target` is what its first line names, percent-encoded, with its query."""

    service: str
    method: str
    target: str
    headers: Headers
    body: bytes


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it came."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    reason: str = ""

    def header(self, name: str) -> str | None:
        """A header's value, whatever the case of its name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is about.

    `operation` is one of: insert, merge, replace, delete, get, query, transact (tables); put, get, peek, renew,
    delete, clear, count (queues); put, get, head, list, delete, lease-acquire, lease-renew, lease-change,
    lease-release, lease-break (blobs); create, drop, list-all (tables, queues and containers themselves).

    `role` is what the resource is to a task hub (history, instances, partitions, holdtrue; control, workitems;
    largemessages, applease, leases), else its name.  `instance` is None where the request does not tell it.
    """

    service: str
    operation: str
    account: str
    resource: str
    role: str
    instance: str | None = None
    message: str | None = None
    query: Mapping[str, str] = {}

    @property
    def kind(self) -> str:
        """Such as `queue put control`: what requests are counted by."""
        return f"{self.service} {self.operation} {self.role}"


_TABLE_ROLE = re.compile(r"(History|Instances|Partitions|Holdtrue)$")
_LOWER_ROLE = re.compile(r"-(control|workitems|largemessages|applease|leases)(-\d\d)?$")
_POINT = re.compile(r"^(\w+)\(PartitionKey='(.*?)',\s?RowKey='(.*)'\)$", re.DOTALL)
_DROP = re.compile(r"^Tables\('(\w+)'\)$")
_FILTERED = re.compile(r"PartitionKey eq '((?:[^']|'')*)'")
_IN_BATCH = re.compile(
    rb"\r\n(?:POST|PUT|PATCH|MERGE|DELETE|GET) https?://[^/]+/[^/ ]*?/?(\w+)(?:\(PartitionKey='([^ ]*?)',[^ ]*)?[ ?]"
)
_BODY_KEY = re.compile(rb'"PartitionKey":\s?("(?:[^"\\]|\\.)*")')
_TEXT = re.compile(rb"<MessageText>(.*?)</MessageText>", re.DOTALL)
_WRITES = {"POST": "insert", "PUT": "replace", "PATCH": "merge", "MERGE": "merge", "DELETE": "delete", "GET": "get"}


def about(request: Request) -> About:
    """What a request is about.  One that is none of the services' has the operation `unknown`."""
    path, _, query_text = request.target.partition("?")
    query = {name.lower(): value for name, value in parse_qsl(query_text, keep_blank_values=True)}
    account, _, below = path.lstrip("/").partition("/")
    read = {"table": _table, "queue": _queue, "blob": _blob}[request.service]
    found = read(request, below, query)
    resource = found.pop("resource", "")
    return About(
        service=request.service,
        account=unquote(account),
        resource=resource,
        role=role_of(request.service, resource),
        query=query,
        **found,
    )


def role_of(service: str, resource: str) -> str:
    """What a table, queue or container is to a task hub; its own name where it is none of one."""
    found = _TABLE_ROLE.search(resource) if service == "table" else _LOWER_ROLE.search(resource)
    return found[1].lower() if found is not None else resource


def _table(request: Request, below: str, query: Mapping[str, str]) -> dict[str, Any]:
    method = {name.lower(): value for name, value in request.headers}.get("x-http-method", request.method)
    path = unquote(below)
    if path == "$batch":
        first = _IN_BATCH.search(request.body)
        if first is None:
            return {"operation": "transact"}
        key = unquote(first[2].decode()).replace("''", "'") if first[2] else _key_in(request.body)
        table = first[1].decode()
        return {"operation": "transact", "resource": table, "instance": _instance(table, key)}
    if path.rstrip("()") == "Tables":
        return {"operation": "create" if method == "POST" else "list-all"}
    if (drop := _DROP.match(path)) is not None:
        return {"operation": "drop", "resource": drop[1]}
    if (point := _POINT.match(path)) is not None:
        operation = _WRITES.get(method, "unknown")
        return {
            "operation": operation,
            "resource": point[1],
            "instance": _instance(point[1], point[2].replace("''", "'")),
        }
    table = path.rstrip("()")
    if method == "POST":
        return {"operation": "insert", "resource": table, "instance": _instance(table, _key_in(request.body))}
    filtered = _FILTERED.search(query.get("$filter", ""))
    key = filtered[1].replace("''", "'") if filtered is not None else None
    return {
        "operation": "query" if method == "GET" else "unknown",
        "resource": table,
        "instance": _instance(table, key),
    }


def _key_in(body: bytes) -> str | None:
    found = _BODY_KEY.search(body)
    return msgspec.json.decode(found[1], type=str) if found is not None else None


def _instance(table: str, key: str | None) -> str | None:
    return unescape_key(key) if key is not None and table.endswith(("History", "Instances")) else None


def _queue(request: Request, below: str, query: Mapping[str, str]) -> dict[str, Any]:
    queue, *rest = (unquote(part) for part in below.split("/"))
    method = request.method
    if not rest:
        if not queue:
            return {"operation": "list-all"}
        operation = {"PUT": "create", "DELETE": "drop"}.get(method, "count")
        return {"operation": "set" if operation == "create" and "comp" in query else operation, "resource": queue}
    if len(rest) > 1:
        operation = {"PUT": "renew", "DELETE": "delete"}.get(method, "unknown")
        return {"operation": operation, "resource": queue, "message": rest[1]}
    if method == "POST":
        found = _TEXT.search(request.body)
        text = found[1].decode("utf-8", "replace") if found is not None else ""
        return {"operation": "put", "resource": queue, "instance": instance_in(text)}
    operation = "peek" if query.get("peekonly", "").lower() == "true" else "get"
    return {"operation": "clear" if method == "DELETE" else operation, "resource": queue}


def instance_in(text: str) -> str | None:
    """Whom a message is for, by its text as it stands in XML; None where it does not say."""
    text = unescape(text, {"&quot;": '"', "&apos;": "'", "&#13;": "\r"})
    if not text.startswith("{"):
        try:
            text = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, ValueError):
            return None
    try:
        found = msgspec.json.decode(text)
        if blob := found.get("CompressedBlobName"):
            return str(blob).rpartition("/")[0] or None
        return str(found["TaskMessage"]["OrchestrationInstance"]["InstanceId"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


_MESSAGE = re.compile(rb"<QueueMessage>(.*?)</QueueMessage>", re.DOTALL)
_ID = re.compile(rb"<MessageId>(.*?)</MessageId>")


def messages_in(answer: Answer) -> dict[str, str | None]:
    """The messages of an answer: whom each is for, by its id.  The answer to a put tells the id alone."""
    found: dict[str, str | None] = {}
    for message in _MESSAGE.findall(answer.body):
        if (id := _ID.search(message)) is not None:
            text = _TEXT.search(message)
            found[id[1].decode()] = instance_in(text[1].decode("utf-8", "replace")) if text is not None else None
    return found


def _blob(request: Request, below: str, query: Mapping[str, str]) -> dict[str, Any]:
    container, _, blob = (unquote(part) for part in below.partition("/"))
    headers = {name.lower(): value for name, value in request.headers}
    found: dict[str, Any] = {"resource": container, "instance": blob.rpartition("/")[0] or None}
    if query.get("comp") == "lease":
        operation = f"lease-{headers.get('x-ms-lease-action', 'unknown').lower()}"
    elif blob:
        operation = {"PUT": "put", "GET": "get", "HEAD": "head", "DELETE": "delete"}.get(request.method, "unknown")
        operation = "set" if operation == "put" and query.get("comp") in ("metadata", "properties") else operation
    elif query.get("comp") == "list":
        operation = "list" if container else "list-all"
    else:
        operation = {"PUT": "create", "DELETE": "drop"}.get(request.method, "get")
    return found | {"operation": operation}

"""The requests for instances of a task hub, in a form in which two runs can be compared.

What is new in each run (ids, times) is named alike.  Requests fall into lanes: a client's, and of a worker for each
instance those of its orchestrator and of its activities.  In a lane their order is the same in every run; lanes go
beside each other.  Gets of control queues are left out: one may bring several messages, or none.
"""

import gzip
import html
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from holdtrue.testing.storage_proxy import Seen
from holdtrue.testing.storage_requests import About, Request, about, instance_in

FILE = Path(__file__).resolve().parents[1] / "data" / "azure_storage" / "stuck.json.gz"

_MESSAGE = re.compile(
    r"<MessageId>(.*?)</MessageId>(?:.*?<MessageText>(.*?)</MessageText>)?.*?</QueueMessage>", re.DOTALL
)
_TEXT = re.compile(r"<MessageText>(.*?)</MessageText>", re.DOTALL)
_PART = re.compile(r"\r\n(POST|PUT|PATCH|DELETE) (\S+) HTTP/1.1\r\n(.*?)\r\n\r\n(\{.*?\})\r\n", re.DOTALL)
_EXECUTION = re.compile(r"\b[0-9a-f]{32}\b")
_KEYS_OF_ALL = frozenset({"PartitionKey", "RowKey", "Timestamp", "ETag"})


class Sent(msgspec.Struct, frozen=True):
    """A request: whose lane it is in, and what it says."""

    lane: str
    what: str


@cache
def recordings() -> dict[str, Any]:
    """All of them, as tools/extract_recordings.py took them out."""
    found: dict[str, Any] = json.loads(gzip.decompress(FILE.read_bytes()))
    return found


def recorded(name: str) -> list[Sent]:
    """The requests of a recording, in their order."""
    found, instances = [], dict[str, str]()
    for by, service, method, target, if_match, body, answer, _, _ in recordings()[name]["requests"]:
        headers = (("If-Match", if_match),) if if_match else ()
        request = Request(service=service, method=method, target=target, headers=headers, body=body.encode())
        what = about(request)
        for id, text in _MESSAGE.findall(answer) if service == "queue" else ():
            instance = instance_in(text) if text else what.instance
            if instance is not None:
                instances[id] = what_instance = instance
                if what.instance is None:
                    what = msgspec.structs.replace(what, instance=what_instance)
        if what.instance is None and what.message is not None:
            what = msgspec.structs.replace(what, instance=instances[what.message])
        found += _sent(by, request, what)
    return found


def seen_by_proxy(by: str, seen: Iterable[Seen]) -> list[Sent]:
    """Those for instances that came to a proxy, which is before a client or a worker."""
    found = []
    for one in seen:
        if one.instances and not one.empty:
            found += _sent(by, one.request, msgspec.structs.replace(one.about, instance=one.instances[0]))
    return found


def lanes(sent: Iterable[Sent]) -> dict[str, list[str]]:
    """Each lane's requests in their order."""
    found: dict[str, list[str]] = {}
    for one in sent:
        found.setdefault(one.lane, []).append(one.what)
    return found


def named_alike(row: dict[str, Any]) -> dict[str, Any]:
    """A row's columns as JSON has them, without types; times, and ids of executions and of hubs, are all the same."""
    found: dict[str, Any] = {}
    for name, value in sorted(row.items()):
        if value is None or name.endswith("@odata.type") or name in ("Timestamp", "odata.etag"):
            continue
        if row.get(f"{name}@odata.type") == "Edm.DateTime" or isinstance(value, list):
            found[name] = "a time"
        elif name == "TaskHubName":
            found[name] = "the hub"
        else:
            found[name] = _EXECUTION.sub("E", value) if isinstance(value, str) else value
    return found


def _sent(by: str, request: Request, what: About) -> list[Sent]:
    if what.kind == "queue get control":
        return []
    said = _said(what, request)
    lane = by
    if by == "worker":
        instance, role = what.instance, "orchestrator"
        if what.kind == "queue put control":
            message = _message(request)
            instance = message["Sender"]["InstanceId"]
            role = "activity" if "DurableTask.Core.History.Task" in message["TaskMessage"]["Event"]["$type"] else role
        elif what.role == "workitems" and what.operation != "put":
            role = "activity"
        lane = f"{role} of {instance}"
    return [Sent(lane, f"{what.kind} {said}")]


def _said(what: About, request: Request) -> Any:
    if what.service == "queue":
        times = {name: what.query[name] for name in ("visibilitytimeout", "numofmessages") if name in what.query}
        return _text(_message(request) if what.operation == "put" else times)
    if what.operation == "query":
        columns = sorted(set(filter(None, what.query.get("$select", "").split(","))) - _KEYS_OF_ALL)
        where = _EXECUTION.sub("E", what.query.get("$filter", ""))
        return f"{where} top {what.query.get('$top')} {columns}"
    if what.operation == "transact":
        parts = []
        for method, target, headers, row in _PART.findall(request.body.decode()):
            parts.append((method, "RowKey='" in target, "if-match" in headers.lower(), named_alike(json.loads(row))))
        return _text(parts)
    match = any(name.lower() == "if-match" for name, _ in request.headers)
    return _text((match, named_alike(json.loads(request.body))))


def _message(request: Request) -> Any:
    found = _TEXT.search(request.body.decode("utf-8-sig"))
    assert found is not None
    return _message_alike(json.loads(html.unescape(found[1])))


def _message_alike(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _message_alike(one, key) for key, one in value.items()}
    if name == "Timestamp" or name == "ActivityId" or (name == "ExecutionId" and value):
        return name
    return 0 if name == "SequenceNumber" else value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)

"""Queues over HTTP, as the port `Queues` says.

Messages are read by hand: one whose text no XML parser would take must not hide the 31 others.
"""

import re
from urllib.parse import quote

from holdtrue.stores.azure_storage.moments import from_header_text
from holdtrue.stores.azure_storage.service import Conflict, NotThere, QueueMessage, Unsure

from .requests import Answer, Requests

_XML = {"accept": "application/xml"}
_BODY = {**_XML, "content-type": "application/xml"}
_BOM = "\ufeff"

_MESSAGE = re.compile(r"<QueueMessage>(.*?)</QueueMessage>", re.DOTALL)
_FIELD = re.compile(r"<(\w+)>(.*?)</\1>", re.DOTALL)
_REFERENCE = re.compile(r"&(?:(lt|gt|amp|quot|apos)|#(\d{1,7})|#x([0-9A-Fa-f]{1,6}));")
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}


class HttpQueues:
    """Queues."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def create_queue(self, queue: str) -> bool:
        try:
            answer = await self._requests.send("queue", "PUT", f"/{queue}", "", _XML, expect=(201, 204), again=True)
        except Conflict as conflict:
            if conflict.code == "QueueAlreadyExists":  # with metadata, which somebody gave it
                return False
            raise
        return answer.status == 201

    async def delete_queue(self, queue: str) -> bool:
        try:
            await self._requests.send("queue", "DELETE", f"/{queue}", "", _XML, expect=(204,), again=True)
        except NotThere:
            return False
        return True

    async def put(self, queue: str, text: str, *, delay: int = 0) -> tuple[str, str]:
        query = f"visibilitytimeout={delay}&messagettl=-1" if delay else "messagettl=-1"
        body = f"{_BOM}<QueueMessage><MessageText>{escaped(text)}</MessageText></QueueMessage>".encode()
        answer = await self._requests.send("queue", "POST", f"/{queue}/messages", query, _BODY, body, expect=(201,))
        try:
            message = _messages(answer)[0]
            return message["MessageId"], message["PopReceipt"]
        except (IndexError, KeyError) as error:
            raise Unsure(f"the answer to a put into {queue} names no message") from error

    async def take(self, queue: str, limit: int, visibility: int) -> list[QueueMessage]:
        query = f"numofmessages={limit}&visibilitytimeout={visibility}"
        answer = await self._requests.send("queue", "GET", f"/{queue}/messages", query, _XML, expect=(200,))
        try:
            return [
                QueueMessage(
                    id=message["MessageId"],
                    receipt=message["PopReceipt"],
                    text=message.get("MessageText", ""),
                    dequeue_count=int(message["DequeueCount"]),
                    inserted=from_header_text(message["InsertionTime"]),
                    next_visible=from_header_text(message["TimeNextVisible"]),
                )
                for message in _messages(answer)
            ]
        except (KeyError, ValueError) as error:
            raise Unsure(f"the answer to a get from {queue} cannot be read: {error!r}") from error

    async def hide(self, queue: str, message: str, receipt: str, visibility: int) -> str:
        query = f"popreceipt={quote(receipt, safe='')}&visibilitytimeout={visibility}"
        answer = await self._requests.send("queue", "PUT", _path(queue, message), query, _XML, expect=(204,))
        if not (new := answer.headers.get("x-ms-popreceipt")):
            raise Unsure(f"the answer to a renewal in {queue} has no receipt")
        return new

    async def remove(self, queue: str, message: str, receipt: str) -> None:
        query = f"popreceipt={quote(receipt, safe='')}"
        await self._requests.send("queue", "DELETE", _path(queue, message), query, _XML, expect=(204,))

    async def approximate_count(self, queue: str) -> int:
        answer = await self._requests.send(
            "queue", "GET", f"/{queue}", "comp=metadata", _XML, expect=(200,), again=True
        )
        try:
            return int(answer.headers["x-ms-approximate-messages-count"])
        except (KeyError, ValueError) as error:
            raise Unsure(f"the answer about {queue} has no count") from error


def escaped(text: str) -> str:
    """A text within XML.  A carriage return is named: a parser would make a line feed of it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def unescaped(text: str) -> str:
    """The text that XML holds; a reference to no character stays as it is."""
    return _REFERENCE.sub(_character, text) if "&" in text else text


def _character(reference: re.Match[str]) -> str:
    if reference[1]:
        return _NAMED[reference[1]]
    number = int(reference[2]) if reference[2] else int(reference[3], 16)
    return chr(number) if number <= 0x10FFFF and not 0xD800 <= number < 0xE000 else reference[0]


def _messages(answer: Answer) -> list[dict[str, str]]:
    """The members of each message in an answer.

    Raises Unsure where it is no list of messages, or ends before its end.
    """
    text = answer.body.decode("utf-8", "replace")
    if "<QueueMessagesList" not in text or not text.rstrip().endswith(("</QueueMessagesList>", "/>")):
        raise Unsure("the answer is no list of messages")
    return [{name: unescaped(value) for name, value in _FIELD.findall(message)} for message in _MESSAGE.findall(text)]


def _path(queue: str, message: str) -> str:
    return f"/{queue}/messages/{quote(message, safe='')}"

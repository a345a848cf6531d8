"""What the tests of the command line share: running it in process, and a client that only remembers."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
from typer.testing import CliRunner, Result

from holdtrue.cli.program import app
from holdtrue.client.client import StatusPage
from holdtrue.client.errors import InstanceNotFound
from holdtrue.client.status import InstanceStatus
from holdtrue.core import events as ev
from holdtrue.core.projection import Condition, Projection, Status
from holdtrue.stores.protocol import DeadLetter, InstanceRecord, StoredDeadLetter

T0 = 1_767_225_600 * ev.TICKS_PER_SECOND
"""2026-01-01T00:00:00Z."""


def run(*arguments: str, input: str | None = None, env: dict[str, str | None] | None = None) -> Result:
    """Run the command line in this process."""
    return CliRunner(env={"HOLDTRUE_HUB": None, **(env or {})}).invoke(app, list(arguments), input=input)


def documents(text: str) -> list[Any]:
    """The JSON documents of an output, one a line."""
    return [json.loads(line) for line in text.splitlines()]


class Payloads:
    """Decodes as a client without an app does."""

    def decode(self, text: str | None, expected: Any) -> Any:
        return None if text is None else json.loads(text)


def instance(
    instance_id: str, status: Status = Status.RUNNING, condition: Condition | None = None, **more: Any
) -> InstanceStatus:
    """A status as a client gives it."""
    members: dict[str, Any] = {"name": "hello", "created_at": T0, "last_updated_at": T0 + 15_000_000, **more}
    projection = Projection(instance_id=instance_id, execution_id=f"{instance_id}-x", status=status, **members)
    started = ev.ExecutionStarted(
        timestamp=T0, instance_id=instance_id, execution_id=projection.execution_id, name=projection.name
    )
    record = InstanceRecord(
        projection=projection, started=started, start_id="s", dialect="dotnet", condition=condition, length=3
    )
    return InstanceStatus(record, Payloads(), None)  # type: ignore[arg-type]


class FakeClient:
    """Answers from what the test gave it, and remembers what was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.instances: dict[str, InstanceStatus] = {}
        self.histories: dict[str, list[Any]] = {}
        self.letters: list[StoredDeadLetter] = []
        self.error: Exception | None = None
        self.outcome: Any = None
        self.hosts: list[str] = []

    def __enter__(self) -> "FakeClient":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, status: InstanceStatus, *history: Any) -> None:
        self.instances[status.instance_id] = status
        self.histories[status.instance_id] = list(history)

    def _note(self, call: str, *arguments: Any, **named: Any) -> None:
        self.calls.append((call, arguments, named))
        if self.error is not None:
            raise self.error

    def _there(self, instance_id: str) -> None:
        if instance_id not in self.instances:
            raise InstanceNotFound(instance_id)

    def start(self, name: str, **named: Any) -> str:
        self._note("start", name, **named)
        return named.get("instance_id") or "made"

    def start_if_not_running(self, name: str, **named: Any) -> Any:
        self._note("start_if_not_running", name, **named)
        return self.outcome

    def get_status(self, instance_id: str, *, waits: bool = False) -> InstanceStatus | None:
        self._note("get_status", instance_id)
        return self.instances.get(instance_id)

    def wait_for_completion(self, instance_id: str, *, timeout: float | None = None) -> InstanceStatus:
        self._note("wait_for_completion", instance_id, timeout=timeout)
        self._there(instance_id)
        if not self.instances[instance_id].has_ended:
            raise TimeoutError
        return self.instances[instance_id]

    def wait_for_start(self, instance_id: str, *, timeout: float | None = None) -> InstanceStatus:
        self._note("wait_for_start", instance_id, timeout=timeout)
        self._there(instance_id)
        return self.instances[instance_id]

    def history(self, instance_id: str) -> Iterator[Any]:
        self._note("history", instance_id)
        yield from self.histories[instance_id]

    def query_page(self, *, page_size: int, token: str | None = None, **named: Any) -> StatusPage:
        self._note("query_page", page_size=page_size, token=token, **named)
        items = list(self.instances.values())[int(token or 0) :]
        return StatusPage(items[:page_size], str(int(token or 0) + page_size) if len(items) > page_size else None)

    def purge(self, instance_id: str, **named: Any) -> Any:
        self._note("purge", instance_id, **named)
        return SimpleNamespace(instances=int(instance_id in self.instances), children=0, refused=[])

    def purge_where(self, **named: Any) -> Any:
        named.pop("progress")(7)
        self._note("purge_where", **named)
        return SimpleNamespace(instances=7, children=0, refused=[])

    def restart(self, instance_id: str, *, new_instance_id: str | None = None) -> str:
        self._note("restart", instance_id, new_instance_id=new_instance_id)
        self._there(instance_id)
        return new_instance_id or instance_id

    def dead_letters(self, **named: Any) -> list[StoredDeadLetter]:
        self._note("dead_letters", **named)
        return self.letters

    def resend_dead_letters(self, numbers: list[int]) -> int:
        self._note("resend_dead_letters", numbers)
        return len(numbers)

    def dismiss_dead_letters(self, numbers: list[int]) -> int:
        self._note("dismiss_dead_letters", numbers)
        return len(numbers)

    def __getattr__(self, name: str) -> Any:
        if name not in ("suspend", "resume", "cancel", "terminate", "rewind", "raise_event"):
            raise AttributeError(name)

        def act(instance_id: str, *arguments: Any, **named: Any) -> bool:
            self._note(name, instance_id, *arguments, **named)
            self._there(instance_id)
            return not self.instances[instance_id].has_ended

        return act

    def asked(self, call: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Arguments of all calls of that name."""
        return [(arguments, named) for name, arguments, named in self.calls if name == call]


def letter(number: int, instance_id: str = "a/1") -> StoredDeadLetter:
    """A dead letter."""
    from holdtrue.core.messages import OutboundMessage

    event = ev.EventRaised(timestamp=T0, name="go", input='{"n": 1}')
    message = OutboundMessage(instance_id=instance_id, event=event, sender="boss")
    return StoredDeadLetter(
        number=number, at=T0, letter=DeadLetter(instance_id=instance_id, reason="no such entity", message=message)
    )


def moment(text: str) -> datetime:
    """A UTC time."""
    return datetime.fromisoformat(text).astimezone(UTC)


def raw(value: Any) -> Any:
    """A value as JSON output has it."""
    return json.loads(msgspec.json.encode(value))

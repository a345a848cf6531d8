"""What a client in a host's process is lent by it, and what a client needs of an app.

A start goes straight to the host that will run it, a message to the host that holds its instance, and
changes come back as calls: no polling and no second read of what was just written.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from holdtrue.core.events import Ticks
from holdtrue.stores.protocol import Delivery, LockedInstance

from .changes import Changes


class LocalHost(Protocol):
    """A host in this process, as its client sees it."""

    @property
    def changes(self) -> Changes:
        """The register that the host rings at every commit that changes a status."""

    def wants(self, name: str) -> bool:
        """True if a start of this orchestration should be given to this host at once."""

    def adopt(self, locked: LockedInstance) -> None:
        """Run this new instance, whose lock came with its creation."""

    def deliver(self, delivery: Delivery) -> None:
        """Take this message for an instance that the host holds."""

    def nudge(self, due: Ticks | None = None) -> None:
        """The hub has new work that nobody was given, and perhaps something that is due then."""

    def schedules_changed(self) -> None:
        """A schedule was made or changed: its next tick may be sooner."""


class Payloads(Protocol):
    """Values to payloads and back (`authoring.Converter`)."""

    def encode(self, value: Any) -> str | None:
        """A value as payload; raises PayloadError or PayloadTooLarge."""

    def decode(self, payload: str | None, expected_type: Any) -> Any:
        """A payload as value; raises PayloadError."""


class Orchestrator(Protocol):
    """A registered orchestrator, as far as a client cares (`authoring.OrchestratorDefinition`)."""

    @property
    def name(self) -> str:
        """Its name in the hub."""

    @property
    def function(self) -> Any:
        """The function itself."""

    @property
    def version(self) -> str | None:
        """The version that new instances get."""

    @property
    def output_type(self) -> Any:
        """What it returns, for decoding."""

    @property
    def input_type(self) -> Any:
        """What it takes, for decoding."""


class Program(Protocol):
    """An app, as far as a client cares (`holdtrue.App`)."""

    @property
    def orchestrators(self) -> Mapping[str, Orchestrator]:
        """By name."""

    @property
    def converter(self) -> Payloads:
        """Its codec."""

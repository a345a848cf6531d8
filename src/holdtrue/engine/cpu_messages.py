"""What a host and its activity processes say to each other: JSON, each message with its length before it.

Payloads are JSON texts within, as they are in the hub; nothing is ever pickled.
"""

import msgspec

from holdtrue.core.events import FailureDetails
from holdtrue.frames import frame
from holdtrue.stores.protocol import LockedActivity

MAIN_NAME = "__holdtrue_main__"
"""What `__name__` is in the host's script when a process loads it: its `if __name__ == "__main__"` is not taken."""


class Place(msgspec.Struct, frozen=True):
    """Where an object stands: an importable module, and the dotted name in it."""

    module: str
    name: str


class MainScript(msgspec.Struct, frozen=True):
    """The script that the host runs as `__main__`: as a module (`python -m`), or as a file."""

    module: str | None
    path: str | None


class KnownError(msgspec.Struct, frozen=True):
    """An error class that the app has registered, and where it stands."""

    place: Place
    properties: tuple[str, ...]
    non_retriable: bool


class BareApp(msgspec.Struct, frozen=True):
    """What an app that has no global name is made from again: it gives errors and payloads their form."""

    max_payload: int
    errors: tuple[KnownError, ...]
    failure_properties: Place | None


class Program(msgspec.Struct, frozen=True):
    """What is to be loaded for an activity: its function, and its app by name or (where it has none) anew.

    `hub` is the location of the host's hub (None: no other process can open it).
    """

    function: Place
    app: Place | None
    bare: BareApp
    main: MainScript | None
    hub: str | None


class Work(msgspec.Struct, frozen=True, tag=True):
    """To the process: run this item of this program's."""

    item: LockedActivity
    program: Program


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """To the process: what it runs should end."""

    reason: str


class Began(msgspec.Struct, frozen=True, tag=True):
    """From the process: the app is loaded, the activity's code begins."""


class Sign(msgspec.Struct, frozen=True, tag=True):
    """From the process: a sign of life; what is None stays as it was."""

    progress: str | None
    details: str | None


class Done(msgspec.Struct, frozen=True, tag=True):
    """From the process: the activity's result."""

    result: str | None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """From the process: the activity's failure."""

    failure: FailureDetails


ToProcess = Work | Cancel
FromProcess = Began | Sign | Done | Failed

_encoder = msgspec.json.Encoder()
to_process: msgspec.json.Decoder[ToProcess] = msgspec.json.Decoder(ToProcess)
from_process: msgspec.json.Decoder[FromProcess] = msgspec.json.Decoder(FromProcess)


def framed(message: ToProcess | FromProcess) -> bytes:
    """A message as it goes over the socket."""
    return frame(_encoder.encode(message))

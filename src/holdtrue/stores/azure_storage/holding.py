"""An instance that this host holds: what it stands on, and the messages that were given with it.

A value that one session's commits go along with; whatever is not known any more, it is thrown away and the instance
is read anew.
"""

import asyncio
import hashlib

from holdtrue.core.events import AnyEvent, ExecutionStarted
from holdtrue.core.messages import OutboundMessage
from holdtrue.stores.protocol import Lease

from .arrivals import Arrived
from .local import Place
from .sentinel import State


class Held:
    """An instance in hand.

    `etag` is the sentinel's (None: there is none yet), `state` what of ours stands there, less what is known to be
    done since.  `row_etag` is the instances row's as last read or written (None: there is no row, or it is not
    known).  `given` are the messages handed to the engine and not used up yet, by their number.  `history` is kept
    from the read of the partition until it is asked for.
    """

    __slots__ = (
        "busy",
        "completed_at",
        "deadline",
        "dialect",
        "etag",
        "execution_id",
        "given",
        "gone",
        "history",
        "instance_id",
        "is_current",
        "is_waited_for",
        "kept_later",
        "known_deleted",
        "lease",
        "partition",
        "partition_key",
        "replaces",
        "rewound_by_dotnet",
        "row_etag",
        "row_execution",
        "row_is_late",
        "row_lags",
        "start_id",
        "started",
        "state",
        "stood",
    )

    def __init__(self, instance_id: str, partition_key: str, partition: int, lease: Lease) -> None:
        self.instance_id = instance_id
        self.partition_key = partition_key
        self.partition = partition
        self.lease = lease
        self.etag: str | None = None
        self.completed_at: int | None = None
        """.NET's time of the last complete checkpoint, as it stands on the sentinel."""
        self.state = State()
        self.stood: State | None = None
        """What stands there, where a start is to take its place: `state` is without that execution, and is written with
        the first commit and not before."""
        self.execution_id = ""
        self.row_etag: str | None = None
        self.row_execution: str | None = None
        self.row_is_late = False
        """Whether the row does not tell execution and status."""
        self.row_lags = False
        """Whether it does not tell custom status and times."""
        self.is_waited_for = True
        """Whether somebody waits to know that what is owed is paid: of answers and timers the history tells."""
        self.started: ExecutionStarted | None = None
        self.start_id = ""
        self.dialect = "dotnet"
        self.deadline: int | None = None
        self.given: dict[int, Arrived] = {}
        self.history: list[AnyEvent] | None = None
        self.known_deleted: set[str] = set()
        self.rewound_by_dotnet = False
        """Whether .NET has rewound it since our last write: its sentinel says Failed still (rule 8)."""
        self.kept_later: frozenset[str] = frozenset()
        """The ids of what is kept beside its history and not given yet: too many for one time; it is woken for them."""
        self.gone: list[Place] = []
        """What `local` names and need not run any more; the next commit says so."""
        self.replaces: OutboundMessage | None = None
        """What the parent of the execution is told whose place this start takes."""
        self.is_current = True
        """False where what stands there is not known any more: it is read anew."""
        self.busy = asyncio.Lock()

    @property
    def standing(self) -> State:
        """What stands on the sentinel, to be written by whatever is no commit."""
        return self.state if self.stood is None else self.stood


def key_of(instance_id: str) -> int:
    """The store's number of an instance: of its id alone, so that nothing is remembered of what a host has served in
    its years; of 128 bits, so that no two have the same."""
    return int.from_bytes(hashlib.sha256(instance_id.encode("utf-8", "surrogatepass")).digest()[:16], "big")

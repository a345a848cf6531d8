"""Every test here runs against every store of `STORES`: a new store is one more line."""

import zlib
from pathlib import Path

import msgspec
import pytest

from holdtrue.environment import Environment
from holdtrue.stores.azure_storage.http.connection import Connection
from holdtrue.stores.azure_storage.reconciling import Pace
from holdtrue.stores.azure_storage.service import Service
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.memory import MemoryHub, MemoryStore, read_backup
from holdtrue.stores.protocol import TaskHubStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import REAL, StorageModel
from tests.azurite.in_virtual_time import VirtualAzurite, VirtualService
from tests.conformance.hubs import COMMON, Hub, Opener, Traits
from tests.conformance.keeping import KeepsItsActivities


def _sqlite(place: Path, environment: Environment, lease: float) -> TaskHubStore:
    from holdtrue.stores.sqlite import SqliteStore

    return SqliteStore(str(place / "hub.db"), environment=environment, lease_seconds=lease)


_in_memory: dict[Path, MemoryHub] = {}


def _memory(place: Path, environment: Environment, lease: float) -> TaskHubStore:
    if place not in _in_memory:
        copy = place / "hub.db"
        _in_memory[place] = read_backup(str(copy)) if copy.exists() else MemoryHub()
    return MemoryStore(_in_memory[place], environment=environment, lease_seconds=lease)


_accounts: dict[Path, StorageModel] = {}


def _azure(place: Path, environment: Environment, lease: float, *, local: bool = False) -> TaskHubStore:
    """On an account in memory.  Its queues keep their order here, as the service's do almost always."""
    if place not in _accounts:
        # Its clock is the service's own, whatever the hosts' say.
        manner = msgspec.structs.replace(REAL, shuffles=False)
        _accounts[place] = StorageModel(SimulatedEnvironment(11), manner=manner)
    return _on_account(_accounts[place], environment, lease, polls=0.1, looks=0.2, local=local)


_emulator: list[VirtualAzurite] = []
_emulated: dict[Path, Connection] = {}


def _azurite(place: Path, environment: Environment, lease: float) -> TaskHubStore:
    """On the emulator, in the test's time too."""
    if not _emulator:
        _emulator.append(VirtualAzurite())
    if place not in _emulated:
        _emulated[place] = _emulator[0].new_account()
    service = VirtualService(_emulator[0], _emulated[place], SimulatedEnvironment(11))
    return _on_account(service, environment, lease, polls=0.2, looks=0.4)


def _on_account(
    service: Service, environment: Environment, lease: float, *, polls: float, looks: float, local: bool = False
) -> TaskHubStore:
    settings = AzureStorageSettings(
        partition_count=1,
        max_queue_polling_interval=polls,
        use_app_lease=False,
        lease_interval=lease,
        lease_acquire_interval=looks,
        lease_renew_interval=looks,
        drain_limit=5.0,
        local_activities=local,
    )
    # Retention is asked for what has just ended; what tests let lie is not to be looked after.
    pace = Pace(requests_a_minute=1e6, fresh_seconds=600.0, ended_seconds=0.0)
    store = AzureStorageStore(service, "Conformance", environment=environment, settings=settings, pace=pace)
    store._taking._most_waiting = 1 << 30  # tests look at all that was sent, and take none of it before
    return store


def _azure_without_messages(place: Path, environment: Environment, lease: float) -> TaskHubStore:
    """The same, whose hosts run what they schedule themselves, without a message."""
    return KeepsItsActivities(_azure(place, environment, lease, local=True))  # type: ignore[return-value]


AZURE = Traits(
    settles=0.5,  # what is sent goes through queues, which are polled
    takes_along=False,  # for the same reason
    any_host=False,  # a partition has one owner, and it sends all that its instances do
    fair=False,  # the format has one queue for all work items, and control queues that know no names
    recalls=False,  # a queue gives nothing back unasked
    ends_mail=False,  # .NET's messages name no execution: they belong to the id
    children_stand=False,  # .NET's children have no row before their first commit
    calls_others=False,  # storage calls nobody
    knows_due=False,  # a delayed message comes by itself
    counts=False,  # a queue counts about, and what nobody wants any more as well
    copies=False,  # there is no one moment over tables and queues
    most=5_000,
)
AZURITE = msgspec.structs.replace(AZURE, most=300)
STORES: dict[str, tuple[Opener, Traits]] = {
    "sqlite": (_sqlite, COMMON),
    "memory": (_memory, COMMON),
    "azure": (_azure, AZURE),
    "azurite": (_azurite, AZURITE),
    "azure without messages": (
        _azure_without_messages,
        msgspec.structs.replace(AZURE, keeps_activities=True, recalls=True),  # what a host schedules it runs itself
    ),
}
ABOUT_ACTIVITIES = ("activities", "continue_as_new", "fencing", "giving_back", "park", "rewind", "terminate")
"""The parts of the suite that a store with `keeps_activities` is held to beside the plain one."""


ONE_IN = 12
"""Of so many tests one runs on the emulator; with `--whole` each does, which takes minutes."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "where(*traits): a test of stores that have all these traits")
    config.addinivalue_line("markers", "where_not(*traits): a test of stores that lack these traits")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test runs against every store that it is for."""
    if "hub" not in metafunc.fixturenames:
        return
    marks = {name: {trait for mark in metafunc.definition.iter_markers(name) for trait in mark.args} for name in _MARKS}

    def is_for(traits: Traits) -> bool:
        has = {trait for trait in (*marks["where"], *marks["where_not"]) if getattr(traits, trait)}
        about = metafunc.module.__name__.rpartition(".test_")[2]
        if traits.keeps_activities and about not in ABOUT_ACTIVITIES:
            return False
        return marks["where"] <= has and not marks["where_not"] & has

    names = [name for name, (_, traits) in STORES.items() if is_for(traits)]
    if not metafunc.config.getoption("--whole") and zlib.crc32(metafunc.definition.name.encode()) % ONE_IN:
        names = [name for name in names if name != "azurite"]
    metafunc.parametrize("hub", names, indirect=True)


_MARKS = ("where", "where_not")


def pytest_sessionfinish() -> None:
    while _emulator:
        _emulator.pop().stop()


@pytest.fixture
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Hub:
    """A new, empty task hub."""
    _in_memory.clear()
    _accounts.clear()
    _emulated.clear()
    opener, traits = STORES[request.param]
    return Hub(opener, tmp_path, traits)
